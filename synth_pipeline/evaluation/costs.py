"""What the rest of a study costs, judged here and now: by a few steps of what it trains, and of the environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from synth_pipeline import envs
from synth_pipeline.agents.base import Agent
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.config import content_hash
from synth_pipeline.data.rows import Dataset
from synth_pipeline.dynamics.ensemble import Ensemble
from synth_pipeline.dynamics.regressor import RegressorConfig
from synth_pipeline.envs.rollout import rollout
from synth_pipeline.evaluation.cells import Task, agent_of, drawn
from synth_pipeline.evaluation.study import ArmConfig
from synth_pipeline.generators import base as generators

TIMED = 30  # gradient steps, and steps of an environment, that a rate is measured from


def cell_seconds(task: Task) -> float:
    """Of a whole training and its evaluations; at most, because episodes may end before their time limit.

    Walks for the true values of a fixed policy are left out: every process makes them once for all cells that hold
    out the same.
    """
    real, _ = drawn(task)
    agent = agent_of(task, real)
    seconds = agent.expected_seconds(Mixture(real), TIMED)
    return seconds + (_judging_seconds(task, agent, real) if task.study.outcome == "returns" else 0.0)


def arms_seconds(tasks: Sequence[Task]) -> float:
    """Of the trainings that make or label the rows of these tasks' arms: none where rows are there, one where several
    share them. Drawing the rows is left out.
    """
    files = {task.base.rows_file: task.base for task in tasks if task.mixes}
    known: dict[str, float] = {}
    seconds = 0.0
    for task in (task for path, task in files.items() if not path.exists()):
        arm = task.study.arms[task.cell.arm]
        key = content_hash(arm.made_from())
        if key not in known:
            known[key] = _arm_seconds(arm, drawn(task)[0])
        seconds += known[key]
    return seconds


def shortened(settings: Any, share: float) -> Any:
    """Settings in which every training takes a share of its gradient steps."""
    if not isinstance(settings, dict):
        return settings
    found = {name: shortened(value, share) for name, value in settings.items()}
    for name, least in {"gradient_steps": 1, "warmup_steps": 0}.items():
        if isinstance(steps := found.get(name), int):
            found[name] = max(least, round(steps * share))
    return found


def _judging_seconds(task: Task, agent: Agent, real: Dataset) -> float:
    study, environment = task.study, envs.make(str(real.spec.environment))
    actors = list(agent.begin(Mixture(real), seed=0).actors().values())
    took = _timed(lambda: rollout(environment, actors[0], episodes=study.episodes, seed=0, max_steps=TIMED))
    return took / TIMED * environment.spec.horizon * (study.evaluations + study.watched) * len(actors)


def _arm_seconds(arm: ArmConfig, data: Dataset) -> float:
    """By two short trainings, of which one takes twice the steps of the other."""
    if arm.kind in ("generated", "relabelled"):
        settings = {"kind": arm.generator["kind"], **generators.build(arm.generator).config.plain()}
    elif arm.kind in ("learned", "noise"):
        settings = arm.labels.plain()
    else:
        return 0.0

    def fit(share: float) -> float:
        short = shortened(settings, share)
        model = generators.build(short) if "kind" in short else Ensemble(RegressorConfig.parse(short, where="labels"))
        return _timed(lambda: model.fit(data, seed=0))

    share = min(0.5, TIMED / max(1, _longest(settings)))
    once, twice = fit(share), fit(2 * share)
    more = twice - once if twice > once else twice / 2  # a busy moment must not make it free
    return once + more / share * (1 - share)


def _longest(settings: Any) -> int:
    """Gradient steps of the longest training in them; 0: nothing is trained by steps."""
    if not isinstance(settings, dict):
        return 0
    return max([settings.get("gradient_steps") or 0, *(_longest(value) for value in settings.values())])


def _timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
