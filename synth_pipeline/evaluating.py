"""The evaluate stage: does offline RL get better with the rows of a run? And any agent alone on any dataset.

Real rows against real and synthetic ones, in pairs of seeds, with equal steps and batches; controls on request. What is
found is `evaluation/results.json`, with pictures beside it; cells that are there are never trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth_pipeline import envs
from synth_pipeline.agents import AGENTS
from synth_pipeline.config import content_hash
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import SplitData, split_dataset
from synth_pipeline.errors import ConfigError, unknown_name
from synth_pipeline.evaluation.advice import PROBE
from synth_pipeline.evaluation.cells import source_of
from synth_pipeline.evaluation.monte_carlo import Which, fixed_policy
from synth_pipeline.evaluation.pictures import pictures
from synth_pipeline.evaluation.study import STORE, StudyConfig
from synth_pipeline.evaluation.tables import lines, scale_of, sentence, table
from synth_pipeline.evaluation.value_probe import LEAST_STATES, ProbeConfig
from synth_pipeline.run_config import MIXED, RunConfig, store_url
from synth_pipeline.runs import Run, make_folder, read_object, require_folder, write_json
from synth_pipeline.scale import fitted
from synth_pipeline.scale.fill import filled_store
from synth_pipeline.scale.studies import Bill, bill, run_study, tasks_of
from synth_pipeline.sources import catalog
from synth_pipeline.store.lock import working
from synth_pipeline.tracking import console, counted, duration, say
from synth_pipeline.validation.picture_files import Picture, write_pictures

RESULTS, PICTURES = "results.json", "pictures"
OWN = ("rows", "cells")  # what a study writes into its folder
ERRORS = "score: minus the error of the values of a fixed policy, in standard deviations of the true ones"
CONTROLS = ("smote", "noise", "learned", "relabelled", "duplicate", "top", "fresh", "regularised")
REGULARISED, WEIGHT_DECAY = "regularised", 0.1  # real rows alone: does a regulariser do what further rows do?


def study_of(run: Run | None, config: RunConfig) -> StudyConfig:
    """What is compared for a run; without one, its dataset alone.

    Raises:
        StoreError: When nothing was generated, or not to the end.
        UnknownNameError: For an unknown agent.
        ConfigError: For an agent that learns from whole episodes, and a control that a run cannot have.
    """
    settings = config.evaluation
    for kind in (str(given.get("kind", name)) for name, given in settings.agents.items()):
        if kind not in AGENTS.names():
            raise unknown_name("agent", kind, AGENTS.names())
    for name in settings.controls:
        if name not in CONTROLS:
            raise unknown_name("control", name, CONTROLS)
    arms: dict[str, Any] = {"real": {}}
    if run is None and settings.controls:
        raise ConfigError(
            "controls stand beside the rows of a run",
            found=f"evaluation.controls {', '.join(settings.controls)}, and no run",
            fix="leave them out, or: synthpipe evaluate RUN",
        )
    if run is not None:
        target, url = filled_store(run, config), store_url(run, config)
        model = fitted.trained_model(run, config)
        fitted.require_model(model, config)
        fitted.fitted_facts(model, config).require_same(fitted.source_of(config), config.dataset)
        mixing = {"rows": min(settings.rows, len(target)), "share": settings.share, "use_in": settings.use_in}
        arms[MIXED] = {"kind": STORE, "store": url, **mixing}
        arms |= {name: _control(name, url, config, mixing) for name in settings.controls}
    steps = {} if settings.gradient_steps is None else {"gradient_steps": settings.gradient_steps}
    return StudyConfig.parse(
        {
            "dataset": config.dataset,
            "rows": config.collect.rows if config.dataset in catalog.entries() else None,
            "held_out": config.held_out,
            "seed": config.seed,
            "arms": arms,
            "agents": {name: {**steps, **given} for name, given in settings.agents.items()},
            **settings.model_dump(include={"seeds", "episodes", "evaluations", "spacing", "watched"}),
        },
        where="evaluation",
    )


def _control(name: str, url: str, config: RunConfig, mixing: Mapping[str, Any]) -> dict[str, Any]:
    """An arm beside the rows of a run."""
    if name == REGULARISED:
        return {"agent": {"weight_decay": WEIGHT_DECAY}}
    if name == "relabelled":
        return {**mixing, "kind": name, "store": url}
    if name != "fresh":
        return {**mixing, "kind": name}
    data = fitted.source_of(config).load()
    unseen = split_dataset(data, held_out=config.held_out, seed=config.seed).held_out
    if unseen is None:
        what = "fresh real rows are those of the held-out episodes, and there are none"
        raise ConfigError(what, found=f"held_out {config.held_out}", fix="leave 'fresh' out of evaluation.controls")
    return {**mixing, "kind": name, "rows": min(mixing["rows"], len(unseen))}


def values_of(study: StudyConfig, config: RunConfig) -> StudyConfig | None:
    """The value probe of the same arms and seeds; None: it is not asked for.

    Held-out states are what values are judged in, so the arm of fresh rows, which are those, has no part in it.

    Raises:
        ConfigError: When values cannot be judged.
        UnknownNameError: When there is no policy whose values could be asked.
    """
    if not config.evaluation.values:
        return None
    parts = split_dataset(source_of(study).load(), held_out=study.held_out, seed=study.seed)
    probe = ProbeConfig.parse(config.evaluation.probe, where="evaluation.probe")
    given = {**config.evaluation.probe, "states": states_to_judge(parts, probe.policy, probe.states)}
    arms = {name: arm for name, arm in study.arms.items() if arm.kind != "fresh"}
    return study.replace(outcome="values", arms=arms, agents={PROBE: given})


def states_to_judge(parts: SplitData, policy: Which, wanted: int) -> int:
    """How many held-out states values are judged in: those that are wanted, or all that there are.

    Raises:
        ConfigError: When they are too few.
        UnknownNameError: When no such policy is shipped for the environment.
    """
    environment, unseen = envs.make(str(parts.train.spec.environment)), parts.held_out
    fixed_policy(environment, policy)
    there = 0 if unseen is None else int(environment.resettable(unseen.transitions()["observations"]).sum())
    if there < LEAST_STATES:
        raise ConfigError(
            "too few held-out states to judge values in",
            found=f"{there:,} that the simulator can be reset to",
            accepted=f"at least {LEAST_STATES:,}",
            fix="collect more, or hold out more episodes",
        )
    return min(wanted, there)


def evaluate(run: Run, config: RunConfig, *, workers: int | str = 1, yes: bool = False) -> Path:
    """Train agents on the real rows of a run, and on these mixed with its synthetic ones; write `results.json`.

    Args:
        run: Run directory with a filled store.
        config: The run's configuration.
        workers: Processes of one thread each, or a Dask scheduler.
        yes: Go ahead even when it takes more than an hour.

    Raises:
        StoreError: When nothing was generated, or not to the end.
        ConfigError: When the environment of the dataset is not known, or it takes more than an hour.
    """
    study, folder = study_of(run, config), run.folder("evaluation")
    digest, probe = filled_store(run, config).digest(), values_of(study, config)
    asked = [study] if probe is None else [study, probe]
    key = content_hash(digest, [task.key for one in asked for task in tasks_of(one, folder)])
    path = folder / RESULTS
    if (record := run.finished("evaluation", key)) and path.exists():
        say("evaluate", f"nothing to do: {record['outcome']}")
        return path
    with working(run):
        _tell_left_out(path, study)
        found, drawn = measured(study, folder, workers=workers, yes=yes)
        values = None if probe is None else measured_values(probe, folder, workers=workers, yes=yes)
        write_pictures(folder / PICTURES, drawn, digest=digest)
        write_json(path, {**found, "values": values, "digest": digest})
        told = {"outcome": found["sentence"], "digest": digest, "table": found["table"], "values": values}
        run.finish("evaluation", key, told)
    return path


def _tell_left_out(path: Path, study: StudyConfig) -> None:
    """What of the last results these will not show; their cells are kept."""
    if not path.exists():
        return
    before, now = read_object(path, "the results of an evaluation", fix=f"rm '{path}'")["study"], study.plain()
    if left := [name for name in before["agents"] if name not in study.agents]:
        every = ",".join([*study.agents, *left])
        say("", f"not asked for again, and left out of the table: {', '.join(left)}; all: --agents {every}")
    other = [key for key in now if key != "agents" and before.get(key, now[key]) != now[key]]
    other += [name for name, given in now["agents"].items() if before["agents"].get(name, given) != given]
    if other:
        say(
            "",
            f"the last results had other {', '.join(other)}, and are replaced; asked for as they were, they are back",
        )


def evaluate_where_known(run: Run, config: RunConfig, *, workers: int | str = 1, yes: bool = False) -> None:
    """`evaluate` as a stage of a run: left out, and said so, where no agent can act in the environment."""
    if fitted.source_of(config).load().spec.environment is None:
        say("evaluate", f"left out: the environment of {config.dataset} is not known here, so no agent can act in it")
        return
    evaluate(run, config, workers=workers, yes=yes)


def evaluate_alone(config: RunConfig, folder: Path, *, workers: int | str = 1, yes: bool = False) -> Path:
    """Train agents on a dataset as it is: the plainest baseline; writes `results.json` into a folder."""
    require_folder(folder, (*OWN, RESULTS, PICTURES), "an evaluation")
    study = study_of(None, config)
    probe = values_of(study, config)
    with working(as_run(folder)):
        _tell_left_out(folder / RESULTS, study)
        found, drawn = measured(study, folder, workers=workers, yes=yes)
        values = None if probe is None else measured_values(probe, folder, workers=workers, yes=yes)
        write_pictures(folder / PICTURES, drawn, digest=content_hash(study))
        write_json(folder / RESULTS, {**found, "values": values})
    return folder / RESULTS


def as_run(folder: Path) -> Run:
    """A folder that works as a run does: one process at a time."""
    make_folder(folder)
    return Run(folder)


def measured(
    study: StudyConfig, folder: Path, *, workers: int | str, yes: bool
) -> tuple[dict[str, Any], list[Picture]]:
    """Run a study, say what came out, and draw it.

    Raises:
        ConfigError: When agents cannot be judged, because no environment of the dataset is known.
    """
    spec = acted_in(source_of(study).load()).spec
    assert spec.environment is not None
    results = run_study(study, folder, workers=workers, yes=yes)
    scale = scale_of(spec.environment, spec.horizon or 0)
    rows = table(study, results, scale)
    for line in lines(rows, scored=scale is not None):
        console.print(line, markup=False)
    said = sentence(rows)
    say("utility", said)
    if scale is not None:
        say("", f"score 0: uniform actions ({scale.random:,.0f}); 100: the best shipped policy ({scale.best:,.0f})")
    found = {"study": study.plain(), "table": rows, "sentence": said, "references": _references(scale)}
    return found, pictures(study, results, rows, scale)


def measured_values(study: StudyConfig, folder: Path, *, workers: int | str, yes: bool) -> dict[str, Any]:
    """Run a value probe, and say what came out."""
    results = run_study(study, folder, workers=workers, yes=yes)
    rows = table(study, results, None)
    for line in lines(rows, scored=True):
        console.print(line, markup=False)
    say("values", sentence(rows))
    say("", ERRORS)
    return {"study": study.plain(), "table": rows, "sentence": sentence(rows)}


def plan(run: Run | None, config: RunConfig, folder: Path, *, workers: int | str) -> str:
    """The bills of all that an evaluation does, in words.

    Raises:
        StoreError: As `study_of`.
        ConfigError: As `study_of`, `values_of` and `planned`.
    """
    study = study_of(run, config)
    bills, probe = [planned(study, folder, workers=workers)], values_of(study, config)
    if probe is not None:
        bills.append(planned(probe, folder, workers=workers))
    return "; then ".join(bills)


def planned(study: StudyConfig, folder: Path, *, workers: int | str) -> str:
    """The bill in words.

    Raises:
        ConfigError: When agents cannot be judged, because no environment of the dataset is known.
    """
    acted_in(source_of(study).load())
    found: Bill = bill(study, folder, workers=workers)
    left, every = found.cells
    arms = ", ".join(f"{count} x '{name}'" for name, count in found.arms.items())
    beside = f"; rows to be made: {arms}, {duration(found.arm_seconds)}" if arms else ""
    cells = f"{left} of {counted(every, 'cell')} ({', '.join(study.agents)})"
    return f"{cells}, about {duration(found.seconds)}{beside}"


def default_folder(dataset: str, verb: str = "evaluate") -> Path:
    """Where agents on a dataset alone are kept."""
    return Path("runs") / f"{verb}-{Path(dataset).stem if '.' in dataset else dataset.replace('/', '-')}"


def acted_in(data: Dataset) -> Dataset:
    """The data, if their environment can be acted in."""
    if data.spec.environment is None:
        raise ConfigError(
            f"agents cannot act in the environment of '{data.spec.dataset_id}'",
            found="data whose environment is not known here",
            accepted="a dataset of an environment of `synthpipe datasets`",
            fix="train on the data, and judge the rows by `synthpipe validate`",
        )
    return data


def _references(scale: Any) -> dict[str, Any] | None:
    return None if scale is None else {"random": scale.random, "best": scale.best, "program": scale.program}
