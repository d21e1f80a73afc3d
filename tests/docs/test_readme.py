"""The blocks of README.md are run, in order, in one folder, as somebody would who follows it.

Every fenced block is marked by its language or by a comment on the line before:

- ```` ```bash ```` is run by bash, ```` ```python ```` is executed in one namespace;
- `<!-- docs-test: skip (reason) -->` leaves a block out, `<!-- docs-test: run -->` runs one without a language as bash;
- any other block fails the test.

The blocks are one shell: what one of them sets (`source .venv/bin/activate`) the next ones have, and nothing else puts
`synthpipe` on the PATH. So that it takes seconds, lines of nothing but `synthpipe` commands are called in this process,
once the shell would find the installed program, and commands are changed before they are run (`SUBSTITUTIONS`):
targets of the Makefile are only looked up (`make -n`; what `make run` runs is planned, and other tests run the smoke
preset), datasets with a simulator are collected with few rows, SynthER is trained for few steps, no more than
`MAX_ROWS` rows are generated, they are judged by the table contract alone, without pictures and Data Docs, and
audits, comparisons and trainings of agents are only planned.
"""

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import command_line
import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"(?:<!-- docs-test: (?P<mark>.+?) -->\s*\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SKIP = re.compile(r"skip \(.+\)")
MAX_ROWS = 1_000
ENVIRONMENT = Path(command_line.SYNTHPIPE).parents[1]
SIMULATED = r"((?:hopper|halfcheetah|walker2d|pendulum|pointmaze-\w+|toy-[\w-]+)/[\w-]+)"
FEW = "{gradient_steps: 40, batch_size: 32}"
FEW_MEAN = f"{{residual: none, regressor: {{width: 16, depth: 2, trainer: {FEW}}}}}"
QUICK = " ".join(f"--set 'generator.{name}={FEW_MEAN}'" for name in ("dynamics", "rewards"))
QUICK += "".join(f" --set validation.{setting}" for setting in ("splits=2", "expectations=false", "pictures=false"))
JUDGED = f"--suite '{ROOT}/tests/docs/contract.yaml' --no-learned-oracle"
SUBSTITUTIONS = (
    (r"-g synther\b", f"-g synther --set 'generator.trainer={FEW}' {QUICK}"),
    (r"\bmake run\b", f"make -n -C '{ROOT}' run && '{command_line.SYNTHPIPE}' run default --dry-run -o runs/default"),
    (r"\bsource \.venv/bin/activate\b", f"source '{ENVIRONMENT}/bin/activate'"),
    (r"(?m)^make (?!-)", f"make -n -C '{ROOT}' "),
    (rf"\bsynthpipe (collect|train) {SIMULATED}(?=\s|$)(?! --rows)", r"synthpipe \1 \2 --rows 600"),
    (r"(?<= )(-n|--rows) (\d+)", lambda m: f"{m[1]} {min(int(m[2]), MAX_ROWS)}"),
    (r"(?<=synthpipe )run (default|paper)\b", r"run smoke -o runs/\1"),
    (r"\bsynthpipe validate [^#&\n]*[^#&\s]", rf"\g<0> {JUDGED}"),
    (rf"\bsynthpipe advise {SIMULATED}", r"\g<0> --rows 600"),
    (rf"\bsynthpipe evaluate --dataset {SIMULATED}", r"\g<0> --set collect.rows=600"),
    (r"\bsynthpipe (?:audit|compare|evaluate|advise) [^#&\n]*[^#&\s]", r"\g<0> --dry-run"),
)
OURS = r"synthpipe\s[^#&|;<>$`\\\n]*"  # no word of which means anything to a shell but its quotes
ONLY_OURS = re.compile(rf"{OURS}(?:&& {OURS})*(?:#.*)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its mark, its text."""

    line: int
    language: str
    mark: str
    text: str

    @property
    def action(self):
        if SKIP.fullmatch(self.mark):
            return "skip"
        if self.mark not in ("", "run"):
            return f"unknown mark '{self.mark}'"
        if self.language in ("bash", "python"):
            return self.language
        return "bash" if self.mark == "run" else "neither runs nor is marked"


def blocks(text):
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(line, match["language"], match["mark"] or "", match["text"]))
    return found


def shortened(command):
    """The command as the test runs it."""
    for pattern, replacement in SUBSTITUTIONS:
        command = re.sub(pattern, replacement, command)
    return command


README = blocks((ROOT / "README.md").read_text(encoding="utf-8"))


def test_every_block_runs_or_says_why_not():
    wrong = [f"line {block.line}: {block.action}" for block in README if block.action not in ("bash", "python", "skip")]
    assert wrong == []
    assert sum(block.action != "skip" for block in README) >= 3


def pieces(script):
    """Runs of lines, in order: (True, lines of nothing but `synthpipe` commands) or (False, lines for bash)."""
    by_kind = groupby(script.splitlines(), key=lambda line: ONLY_OURS.fullmatch(line) is not None)
    return [(ours, list(lines)) for ours, lines in by_kind]


def commands(line):
    """The words of each command of a line, without the program's name."""
    return [shlex.split(command)[1:] for command in line.partition("#")[0].split("&&")]


class Newcomer:
    """Types the blocks into one shell, which starts with nothing activated."""

    def __init__(self, folder, monkeypatch, capsys):
        self._monkeypatch, self._variables = monkeypatch, folder / "variables"
        self._synthpipe = command_line.Shell(folder, monkeypatch, capsys)
        self._keep(command_line.environment(folder, active=False))

    def type(self, block):
        self._where = f"README.md, line {block.line}"
        for ours, lines in pieces(shortened(block.text)):
            if ours:
                self._call(lines)
            else:
                self._bash("\n".join(lines))

    def _bash(self, script):
        command = ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > '{self._variables}'"]
        ended = subprocess.run(command, env=self._kept, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, f"{self._where}:\n{script}\n{ended.stdout}\n{ended.stderr}"
        self._keep(dict(line.split("=", 1) for line in self._variables.read_text().split("\0") if line))

    def _call(self, lines):
        assert shutil.which("synthpipe", path=self._kept["PATH"]) == command_line.SYNTHPIPE
        for words in (words for line in lines for words in commands(line)):
            answer = self._synthpipe(*words)
            assert answer.code == 0, f"{self._where}:\n{shlex.join(words)}\n{answer.out}\n{answer.err}"

    def _keep(self, variables):
        self._kept = variables
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_the_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    newcomer, names = Newcomer(tmp_path, monkeypatch, capsys), {"__name__": "__main__"}
    for block in README:
        if block.action == "bash":
            newcomer.type(block)
        elif block.action == "python":
            exec(compile("\n" * block.line + block.text, str(ROOT / "README.md"), "exec"), names)


def targets(text):
    return re.findall(r"^make (?:-n )?([\w-]+)", text, re.M)


def test_the_make_targets_of_contributing_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([\w-]+):", makefile, re.M))
    named = [t for b in blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) for t in targets(b.text)]
    assert named
    assert [target for target in named if target not in known] == []


# --- the runner itself


def test_what_is_neither_run_nor_marked_is_found():
    text = "```\na\n```\n<!-- docs-test: skip (output) -->\n```\nb\n```\n<!-- docs-test: skip -->\n```bash\nc\n```\n"
    assert [block.action for block in blocks(text)] == ["neither runs nor is marked", "skip", "unknown mark 'skip'"]
    assert [(b.line, b.action) for b in blocks("x\n\n```yaml\na: 1\n```\n")] == [(3, "neither runs nor is marked")]
    assert [b.action for b in blocks("<!-- docs-test: run -->\n```\nls\n```\n```python\n1\n```\n")] == [
        "bash",
        "python",
    ]


@pytest.mark.parametrize(
    ("written", "run"),
    [
        (
            "make run  # all",
            f"make -n -C '{ROOT}' run && '{command_line.SYNTHPIPE}' run default --dry-run -o runs/default  # all",
        ),
        ("source .venv/bin/activate", f"source '{ENVIRONMENT}/bin/activate'"),
        ("make test", f"make -n -C '{ROOT}' test"),
        (
            "synthpipe collect hopper/medium-replay --workers 2",
            "synthpipe collect hopper/medium-replay --rows 600 --workers 2",
        ),
        ("synthpipe train toy-jumps/random --rows 50 -o a", "synthpipe train toy-jumps/random --rows 50 -o a"),
        ("synthpipe train mine.npz -o a", "synthpipe train mine.npz -o a"),
        ("synthpipe generate a -n 5000000", "synthpipe generate a -n 1000"),
        ("synthpipe validate a  # b", f"synthpipe validate a {JUDGED}  # b"),
        ("synthpipe validate a && c", f"synthpipe validate a {JUDGED} && c"),
        ("synthpipe audit a --real b", "synthpipe audit a --real b --dry-run"),
        ("synthpipe compare a b  # c", "synthpipe compare a b --dry-run  # c"),
        ("synthpipe evaluate a  # b", "synthpipe evaluate a --dry-run  # b"),
        ("synthpipe advise hopper/medium", "synthpipe advise hopper/medium --rows 600 --dry-run"),
        ("synthpipe run default --dry-run", "synthpipe run smoke -o runs/default --dry-run"),
    ],
)
def test_commands_are_shortened(written, run):
    assert shortened(written) == run


def test_only_lines_of_nothing_but_our_commands_are_called_here():
    script = "cd a\nsource b\nsynthpipe c 'd e' -n 1  # f && g, 'h\nsynthpipe h && synthpipe i\nsynthpipe j | head\n"
    bash, ours, rest = pieces(script)
    assert bash == (False, ["cd a", "source b"])
    assert [commands(line) for line in ours[1]] == [[["c", "d e", "-n", "1"]], [["h"], ["i"]]]
    assert rest == (False, ["synthpipe j | head"])
    for other in ("synthpipe a > b", "synthpipe $a", "synthpipe a && rm b", "synthpipe a \\", "synthpipe a &", "make"):
        assert [ours for ours, _ in pieces(other)] == [False]
