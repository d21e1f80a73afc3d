"""One cell of a study: an agent trained on one arm of one draw, judged at steps that were fixed beforehand.

A cell is a pure function of its key. What it needs (rows of the arm, state of the training) and what it found lie in
files under that key, so a study that is killed, extended or run on several processes never does a cell twice.
"""

from __future__ import annotations

import glob
import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synth_pipeline import envs, sources, store
from synth_pipeline.agents.base import Agent, build
from synth_pipeline.agents.replay import Mixture, columns_of
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import HeldOut, SplitData, split_dataset
from synth_pipeline.errors import SourceError, TrainingDivergedError
from synth_pipeline.evaluation.arms import Ground, make_rows
from synth_pipeline.evaluation.divergence import Monitor
from synth_pipeline.evaluation.monte_carlo import (
    MonteCarlo,
    Policy,
    fixed_policy,
    held_out_states,
    monte_carlo_values,
    policy_fingerprint,
)
from synth_pipeline.evaluation.scores import evaluate_actor, evaluation_steps, watched_steps
from synth_pipeline.evaluation.statistics import Diverged
from synth_pipeline.evaluation.study import STORE, Cell, StudyConfig, cell_key, rows_key
from synth_pipeline.evaluation.subsets import draw_subset
from synth_pipeline.evaluation.value_probe import FQE, ProbeConfig, probe_values
from synth_pipeline.runs import read_json, write_bytes, write_json
from synth_pipeline.sources.base import Source, readable
from synth_pipeline.validation.truth import known_truth


class Task(NamedTuple):
    """What a worker is given.

    Attributes:
        study: The study.
        cell: Which cell of it.
        folder: Where rows, states and results of all studies of a place lie.
        data: Fingerprint of the dataset, and of the arm's store where there is one; see `data_of`.
    """

    study: StudyConfig
    cell: Cell
    folder: Path
    data: Mapping[str, str]

    @property
    def key(self) -> str:
        """Hash of everything that the result follows from."""
        return cell_key(self.study, self.cell, self.data)

    @property
    def rows_file(self) -> Path:
        """Rows of the arm."""
        key = rows_key(self.study, self.cell, self.data)[:16]
        return self.folder / "rows" / f"{self.study.arms[self.cell.arm].kind}-{key}.npz"

    @property
    def lost_file(self) -> Path:
        """Why there are no such rows: what makes them diverged."""
        return self.rows_file.with_suffix(".diverged.json")

    @property
    def result_file(self) -> Path:
        """What the cell found."""
        return self.folder / "cells" / f"{self.cell.label}-{self.key[:12]}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """Kind and settings of the agent."""
        return self.study.agent(self.cell.agent, self.cell.arm)

    @property
    def mixes(self) -> bool:
        """Whether anything is mixed in."""
        return self.study.arms[self.cell.arm].kind != "real"

    @property
    def base(self) -> Task:
        """The task whose rows this one's arm labels anew, of one store or generator; itself, where it labels none."""
        arm = self.study.arms[self.cell.arm]
        if arm.kind != "relabelled":
            return self
        kind = "generated" if arm.store is None else STORE
        arms = {**self.study.arms, self.cell.arm: arm.replace(kind=kind)}
        return self._replace(study=self.study.replace(arms=arms))


def source_of(study: StudyConfig) -> Source:
    """Where the real rows come from."""
    return sources.real_source(study.dataset, rows=study.rows)


def data_of(study: StudyConfig) -> dict[str, dict[str, str]]:
    """For every arm, what its cells' keys say of the data: asked once, for hundreds of cells."""
    source = source_of(study)
    found = {"dataset": source.fingerprint()}
    if study.outcome == "values" and (environment := source.describe()["environment"]) is not None:
        for name in study.agents:
            probe = study.numbers(name, next(iter(study.arms)))
            assert isinstance(probe, ProbeConfig)
            found[f"policy of {name}"] = policy_fingerprint(environment, probe.policy)
    stores = {name: arm.store for name, arm in study.arms.items()}
    return {n: found if url is None else {**found, "store": store.open(url).digest()} for n, url in stores.items()}


@lru_cache(maxsize=2)
def _parts(fingerprint: str, dataset: str, rows: int | None, held_out: HeldOut, seed: int) -> SplitData:
    """By the data's fingerprint: a worker may live on when they change."""
    source = sources.real_source(dataset, rows=rows)
    data = source.load()
    if (now := source.fingerprint()) != fingerprint:
        raise SourceError(
            "the data changed while a study of them was under way",
            found=f"fingerprint {now[:12]}",
            accepted=f"{fingerprint[:12]}, as when it began",
            fix="type the command again",
        )
    return split_dataset(data, held_out=held_out, seed=seed)


def drawn(task: Task) -> tuple[Dataset, Dataset | None]:
    """The real rows of a cell, and those that it does not touch.

    These are the held-out episodes where a cell has all others, unless its values are judged in them.

    Raises:
        SourceError: When the data are not what they were when the study began.
    """
    study, cell = task.study, task.cell
    parts = _parts(task.data["dataset"], study.dataset, study.rows, study.unseen(cell.draw), study.seed)
    if cell.size is None:
        return parts.train, None if study.outcome == "values" else parts.held_out
    return draw_subset(parts.train, cell.size, draw=cell.draw, seed=study.seed)


def make_arm(task: Task) -> float:
    """Make the rows of a cell's arm, and those that it labels anew, once; returns the seconds that all of it takes.

    A training that diverges is kept too: its cells have diverged with it, and those of other arms go on.
    """
    path = task.rows_file
    if path.exists():
        return _made(path)[1]
    before = 0.0 if task.base is task else make_arm(task.base)
    if lost := lost_arm(task):
        return float(lost["seconds"])
    begin = time.perf_counter()
    try:
        rows = _rows_of_store(task) if task.study.arms[task.cell.arm].kind == STORE else _made_rows(task)
    except TrainingDivergedError as error:
        seconds = before + time.perf_counter() - begin
        write_json(task.lost_file, {"reason": Diverged.by(error, 0).reason, "seconds": seconds})
        return seconds
    seconds = before + time.perf_counter() - begin
    _write_rows(path, rows, seconds)
    return seconds


def lost_arm(task: Task) -> dict[str, Any] | None:
    """`reason` and `seconds` where what makes or labels the rows of an arm has diverged."""
    files = (one.lost_file for one in (task, task.base))
    return next((read_json(path) for path in files if path.exists()), None)


def _rows_of_store(task: Task) -> Transitions:
    arm = task.study.arms[task.cell.arm]
    return columns_of(store.open(str(arm.store)).read(0, arm.rows))


def _made_rows(task: Task) -> Transitions:
    arm, state = task.study.arms[task.cell.arm], task.rows_file.with_suffix("")
    state.mkdir(parents=True, exist_ok=True)
    subset, rest = drawn(task)
    ground = Ground(
        subset,
        rest,
        truth=known_truth(subset.spec),
        rows=arm.rows,
        seed=task.study.seed + task.cell.draw,
        generator=arm.generator,
        labels=arm.labels,
        generated=None if task.base is task else rows_of(task.base),
        folder=state,
    )
    made = make_rows(arm.kind, ground)
    assert made is not None, f"the arm '{task.cell.arm}' mixes nothing in"
    return made


def run_cell(task: Task) -> dict[str, Any]:
    """Train and judge; found once, kept as JSON.

    Returns:
        `cell`, `settings`, `evaluations` (step, whether it counts, returns, lengths) or `values` (agreement with the
        truth), `diverged` (None, or step and reason); `seconds` of the training; `process_seconds`, all that the
        process which finished it took, judging too; `mixed_rows` and `arm_seconds`: what is mixed in, and how long
        making it took.
    """
    path = task.result_file
    if path.exists():
        known: dict[str, Any] = read_json(path)
        return known
    begin, state = time.perf_counter(), path.with_suffix(".safetensors")
    found, diverged = _trained(task, state)
    mixed, took = _mixed(task)
    body = {
        "cell": task.cell._asdict(),
        "settings": {"kind": task.settings["kind"], **task.study.numbers(task.cell.agent, task.cell.arm).plain()},
        **found,
        "diverged": None if diverged is None else {"step": diverged.step, "reason": diverged.reason},
        "process_seconds": round(time.perf_counter() - begin, 2),
        "mixed_rows": mixed,
        "arm_seconds": round(took, 2),
    }
    write_json(path, body)
    for leftover in path.parent.glob(f"{glob.escape(path.stem)}*"):  # the agent's state, and that of its parts
        if leftover != path:
            leftover.unlink()
    return body


def agent_seed(study: StudyConfig, cell: Cell) -> int:
    """The same in every arm of a pair."""
    return 1_000 * (study.seed + cell.draw) + cell.seed


def _trained(task: Task, state: Path) -> tuple[dict[str, Any], Diverged | None]:
    values = task.study.outcome == "values"
    if lost := lost_arm(task):
        none: dict[str, Any] = {"values": None} if values else {"evaluations": []}
        return {**none, "seconds": 0.0}, Diverged(0, f"no rows to mix in: {lost['reason']}")
    return (_values if values else _returns)(task, state)


def _mixed(task: Task) -> tuple[int, float]:
    """How many rows are mixed in, and the seconds that making them took."""
    if lost := lost_arm(task):
        return 0, float(lost["seconds"])
    return _made(task.rows_file) if task.mixes else (0, 0.0)


def _returns(task: Task, state: Path) -> tuple[dict[str, Any], Diverged | None]:
    real, _ = drawn(task)
    agent = build(task.settings).begin(_mixture(task, real), seed=agent_seed(task.study, task.cell))
    found, diverged = _judged(agent, real, task, state)
    return {"evaluations": found, "seconds": round(agent.seconds, 2)}, diverged


def _values(task: Task, state: Path) -> tuple[dict[str, Any], Diverged | None]:
    study, cell, (real, _), c = task.study, task.cell, drawn(task), _probe_numbers(task)
    asked = ProbeConfig(policy=c.policy, states=c.states, discount=c.discount, rollouts=c.rollouts)
    policy, truth = _truth(task.data["dataset"], study.dataset, study.rows, study.unseen(cell.draw), study.seed, asked)
    fqe, seed = FQE(policy, c), agent_seed(study, cell)
    try:
        probe = probe_values(fqe, _mixture(task, real), truth, seed=seed, checkpoint=state)
    except TrainingDivergedError as error:
        return {"values": None, "seconds": round(fqe.seconds, 2)}, Diverged.by(error, fqe.steps)
    return {"values": probe.plain(), "seconds": round(fqe.seconds, 2)}, None


def agent_of(task: Task, real: Dataset) -> Agent:
    """The untrained agent of a cell, as it is before its data."""
    if task.study.outcome == "returns":
        return build(task.settings)
    numbers = _probe_numbers(task)
    return FQE(fixed_policy(envs.make(str(real.spec.environment)), numbers.policy), numbers)


def _probe_numbers(task: Task) -> ProbeConfig:
    numbers = task.study.numbers(task.cell.agent, task.cell.arm)
    assert isinstance(numbers, ProbeConfig)
    return numbers


@lru_cache(maxsize=2)
def _truth(
    fingerprint: str, dataset: str, rows: int | None, held_out: HeldOut, seed: int, c: ProbeConfig
) -> tuple[Policy, MonteCarlo]:
    """The fixed policy, and its values in held-out states; the same for all arms."""
    unseen = _parts(fingerprint, dataset, rows, held_out, seed).held_out
    if unseen is None:
        raise SourceError("values are judged in held-out states", found="data without episodes to hold out")
    environment = envs.make(str(unseen.spec.environment))
    policy = fixed_policy(environment, c.policy)
    chosen = held_out_states(environment, unseen, count=c.states, seed=seed)
    found = monte_carlo_values(environment, chosen, policy, discount=c.discount, rollouts=c.rollouts, seed=seed)
    return policy, found


def _judged(agent: Agent, real: Dataset, task: Task, state: Path) -> tuple[list[dict[str, Any]], Diverged | None]:
    """Train from evaluation to evaluation; both the training and the evaluations go on where they were."""
    study, monitor, kept = task.study, Monitor(agent, real), state.with_suffix(".partial.json")
    found: list[dict[str, Any]] = read_json(kept) if kept.exists() and state.exists() else []
    diverged: Diverged | None = None
    total = agent.config.gradient_steps
    last = evaluation_steps(total, count=study.evaluations, spacing=max(1, round(study.spacing * total)))
    for step in (*watched_steps(last[0], study.watched), *last)[len(found) :]:
        try:
            agent.train(until=step, checkpoint=state)
            if diverged := monitor.check():
                break
            found.append({"step": step, "counts": step in last, **_evaluated(agent, real, task, step)})
        except TrainingDivergedError as error:
            diverged = Diverged.by(error, agent.steps)
            break
        write_json(kept, found)
    return found, diverged


def _evaluated(agent: Agent, real: Dataset, task: Task, step: int) -> dict[str, Any]:
    study, address = task.study, (2, task.cell.draw, task.cell.seed, step)
    environment = envs.make(str(real.spec.environment))
    given: dict[str, Any] = {"episodes": study.episodes, "seed": study.seed, "address": address}
    found = {target: evaluate_actor(environment, actor, **given) for target, actor in agent.actors().items()}
    judged, *others = found.values()
    said: dict[str, Any] = {"returns": judged.returns.tolist(), "lengths": judged.lengths.tolist()}
    if others:
        said["by_target"] = [{"target": target, "returns": r.returns.tolist()} for target, r in found.items()]
    return said


def _mixture(task: Task, real: Dataset) -> Mixture:
    arm = task.study.arms[task.cell.arm]
    if not task.mixes:
        return Mixture(real)
    return Mixture(real, rows_of(task), share=arm.share, use_in=arm.use_in)


def rows_of(task: Task) -> Transitions:
    """What the arm of a cell mixes in, after `make_arm`."""
    with _opened(task.rows_file) as file:
        return Transitions({name: file[name] for name in file.files if name != "seconds"})


def _made(path: Path) -> tuple[int, float]:
    """How many rows, and the seconds that making them took."""
    with _opened(path) as file:
        return len(file["rewards"]), float(file["seconds"])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    again = f"rm '{path}'   # it is damaged; then the same command again: the rows are made anew"
    with readable(path, damaged=again), path.open("rb") as raw, np.load(raw) as file:  # alone, numpy leaves it open
        yield file


def _write_rows(path: Path, rows: Transitions, seconds: float) -> None:
    buffer = io.BytesIO()
    columns: dict[str, Any] = {**rows.columns, "seconds": seconds}
    np.savez(buffer, **columns)
    write_bytes(path, buffer.getvalue())
