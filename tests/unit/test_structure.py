"""The rules of the house that no tool checks: sizes, names, and what an import may drag in."""

import ast
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from synth_pipeline.agents import AGENTS
from synth_pipeline.generators import GENERATORS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "synth_pipeline").rglob("*.py"))
FOLDERS = ("benchmarks", "datasets", "flows", "synth_pipeline", "tests", "validation")
EVERY = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
HEAVY = (
    "torch",
    "prefect",
    "dask",
    "distributed",
    "minari",
    "gymnasium",
    "mujoco",
    "h5py",
    "zarr",
    "great_expectations",
)
TORCH_FREE = ("data", "envs", "store", "sources", "export", "validation", "plots")


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(node):
    return node.end_lineno - min([node.lineno, *(d.lineno for d in node.decorator_list)]) + 1


def test_the_package_was_found():
    assert len(FILES) > 20


def test_files_are_short():
    too_long = {str(path): n for path in EVERY if (n := len(path.read_text(encoding="utf-8").splitlines())) >= 400}
    assert not too_long


def test_functions_are_short():
    trees = {str(path): ast.parse(path.read_text(encoding="utf-8")) for path in EVERY}
    too_long = {
        f"{name}:{f.name}": length(f) for name, tree in trees.items() for f in functions(tree) if length(f) > 60
    }
    assert not too_long


def test_the_median_function_is_short():
    assert statistics.median(length(f) for tree in TREES.values() for f in functions(tree)) <= 15


def names_of(node):
    """Names that a node gives to things of ours; attributes of other libraries are only read."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.arg | ast.keyword):
        return [node.arg or ""]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr]
    if isinstance(node, ast.alias):
        return [node.asname or ""]
    return []


def test_nothing_is_called_by_the_word_that_mixes_terminations_and_truncations():
    banned = {"done", "dones"}
    guilty = {
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        for identifier in names_of(node)
        if banned & set(identifier.lower().split("_"))
    }
    assert not guilty


def test_the_rule_about_names_would_catch_them():
    tree = ast.parse("def f(done, x=1):\n    self._done = is_done\nresult.done()\ng(dones=1)")
    found = [i for node in ast.walk(tree) for i in names_of(node) if {"done", "dones"} & set(i.lower().split("_"))]
    assert sorted(found) == ["_done", "done", "dones", "is_done"]


@pytest.mark.parametrize("folder", ["flows", "datasets", "validation", "benchmarks", "tests"])
def test_only_the_package_is_a_package(folder):
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_public_modules_explain_themselves():
    silent = [name for name, tree in TREES.items() if not ast.get_docstring(tree)]
    assert not silent


def test_nothing_reads_pickles():
    banned = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve"}
    imports = {
        f"{name}: {alias}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in [*(a.name for a in node.names), getattr(node, "module", None) or ""]
        if alias.split(".")[0] in banned
    }
    allowing = {name for name, path in zip(TREES, FILES, strict=True) if "allow_pickle=True" in path.read_text()}
    assert not imports
    assert not allowing


def test_test_files_have_unique_names():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def loaded_by(statement, modules):
    """Which of the modules a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(*[m for m in {modules!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return run.stdout.split()


def test_every_method_is_in_the_contract_that_keeps_methods_apart():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (kept,) = (set(contract["modules"]) for contract in contracts if contract["type"] == "independence")
    assert kept == {family.load(name).__module__ for family in (AGENTS, GENERATORS) for name in family.names()}


def test_the_package_itself_is_light():
    assert loaded_by("import synth_pipeline", [*HEAVY, "numpy", "scipy", "pandas"]) == []


def test_registries_and_the_ground_floor_are_light():
    ground = ("errors", "config", "seeding", "registry", "resources", "runs", "tracking")
    statement = (
        f"import synth_pipeline.generators, synth_pipeline.data, {', '.join(f'synth_pipeline.{m}' for m in ground)}"
    )
    assert loaded_by(statement, HEAVY) == []


def test_anyones_data_can_be_read_and_judged_without_torch():
    """Every module of these rooms in one fresh interpreter; the converters to torch libraries import it when called."""
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in TREES
        if name.split("/")[1] in TORCH_FREE
    ]
    statement = "import importlib\nfor name in " + repr(modules) + ": importlib.import_module(name)"
    assert loaded_by(statement, ("torch", "prefect", "dask", "distributed")) == []


def test_pyproject_ships_one_top_level():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["setuptools"]["packages"]["find"]["include"] == ["synth_pipeline*"]
