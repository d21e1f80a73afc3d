"""A study: agents x arms x sizes x draws x seeds, as one configuration; every cell of it has an address and a key."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Literal, NamedTuple

from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.agents import AGENTS
from synth_pipeline.agents.base import AgentConfig, build
from synth_pipeline.agents.replay import UseIn
from synth_pipeline.config import Config, content_hash
from synth_pipeline.data.split import HELD_OUT, Fold, HeldOut
from synth_pipeline.dynamics.regressor import RegressorConfig
from synth_pipeline.errors import ConfigError, unknown_name
from synth_pipeline.evaluation.arms import ARMS
from synth_pipeline.evaluation.value_probe import FQE, ProbeConfig
from synth_pipeline.generators import GENERATORS
from synth_pipeline.generators import base as generators

Outcome = Literal["returns", "values"]
EVEN = ("duplicate", "learned", "noise", "top")  # arms of real rows again; at first they were drawn with replacement
STORE = "store"  # kind of the arm whose rows are there already


class ArmConfig(Config):
    """What one arm mixes into the real rows, and how."""

    kind: str = Setting("real", description="what is mixed in: an arm of the registry, or `store`")
    rows: int = Setting(100_000, ge=1, description="rows that are made; of real rows again, whole passes")
    share: float = Setting(0.5, ge=0, le=1, description="share of every batch that is mixed in")
    use_in: UseIn = Setting("both", description="who learns from the rows: both, critic or actor")
    generator: dict[str, Any] = Setting({"kind": "synther"}, description="kind and settings of the generator")
    labels: RegressorConfig = Setting(RegressorConfig(), description="the ensemble that labels rows")
    agent: dict[str, Any] = Setting({}, description="settings that every agent has otherwise in this arm")
    store: str | None = Setting(None, description="where the rows are (kind `store`), or those to label anew are")

    @model_validator(mode="after")
    def _known(self) -> ArmConfig:
        if self.kind not in (*ARMS, STORE):
            raise unknown_name("arm", self.kind, [*ARMS, STORE])
        if self.kind not in (STORE, "relabelled") and self.store is not None:
            raise ValueError("an address of a store belongs to the kinds `store` and `relabelled`")
        if self.kind == STORE and self.store is None:
            raise ValueError("the kind `store` needs the address of one")
        return self

    def made_from(self) -> dict[str, Any]:
        """What its rows follow from, defaults written out; how they are mixed in is left out.

        A store is known by its digest, wherever it stands.
        """
        found: dict[str, Any] = {"kind": self.kind} | ({"rows": self.rows} if self.kind != "real" else {})
        generates = self.kind in ("generated", "relabelled") and self.store is None
        settings = self.generator if generates else {"kind": self.kind}
        if settings["kind"] in GENERATORS.names():
            found["generator"] = {"kind": settings["kind"], **generators.build(settings).config.plain()}
        if self.kind in ("learned", "noise"):
            found["labels"] = self.labels.plain()
        if self.kind in EVEN:
            found["drawn"] = "evenly"
        return found


class StudyConfig(Config):
    """What is compared, on what, how often, and how it is scored; fixed before anything runs."""

    dataset: str = Setting(description="catalog id, Minari id, or file")
    rows: int | None = Setting(None, ge=1, description="size of a collected dataset; none: the recipe's")
    held_out: float | tuple[int, ...] = Setting(
        HELD_OUT, description="share of the episodes that no arm sees, or their ids"
    )
    crossed: bool = Setting(
        False, description="in its stead: as many parts of the episodes as draws, each held out in one of them"
    )
    seed: int = Setting(0, ge=0, description="seed of the split, the draws and everything trained")
    sizes: tuple[int | None, ...] = Setting((None,), min_length=1, description="real rows of a draw; none: all")
    draws: int = Setting(1, ge=1, description="subsets of each size")
    seeds: int = Setting(5, ge=1, description="agents trained on each draw")
    arms: dict[str, ArmConfig] = Setting({"real": ArmConfig()}, min_length=1, description="name -> arm")
    agents: dict[str, dict[str, Any]] = Setting(min_length=1, description="name -> settings; kind: the name")
    outcome: Outcome = Setting("returns", description="returns of the agent, or errors of its values (agent `fqe`)")
    episodes: int = Setting(10, ge=1, description="episodes of an evaluation")
    evaluations: int = Setting(5, ge=1, description="last evaluations that the final score is the mean of")
    spacing: float = Setting(0.02, gt=0, le=1, description="steps between them, as a share of the training")
    watched: int = Setting(4, ge=0, description="evaluations before these, for the learning curve alone")

    @model_validator(mode="after")
    def _rows_can_be_learned_from(self) -> StudyConfig:
        mixed = [name for name, arm in self.arms.items() if arm.kind != "real"]
        kinds = {str(given.get("kind", name)) for name, given in self.agents.items()} if mixed else set()
        for kind in sorted(kinds & set(AGENTS.names())):
            if self.outcome == "returns" and AGENTS.load(kind).needs_episodes:
                raise ConfigError(
                    f"'{kind}' learns from whole episodes, and what is mixed in are single steps",
                    found=f"the arms {', '.join(mixed)}",
                    accepted="agents that learn from rows: td3_bc, iql, ...",
                    fix=f"leave it out, or on real data alone: synthpipe evaluate --dataset ID --agents {kind}",
                )
        return self

    @model_validator(mode="after")
    def _parts_are_held_out_of_all(self) -> StudyConfig:
        if self.crossed and self.draws < 2:
            raise ConfigError("episodes are held out in turn", found="draws of 1", accepted="2 or more", fix="draws: 5")
        stored = [name for name, arm in self.arms.items() if arm.store is not None]
        if self.crossed and stored:
            raise ConfigError(
                "episodes are held out in turn, and the generator of a store has seen most of them",
                found=f"the arm {stored[0]}",
                accepted="arms that are made for every training: generated, smote, ...",
                fix="leave it out; a store is judged by `synthpipe evaluate RUN`, with what its run held out",
            )
        return self

    @model_validator(mode="after")
    def _judged_states_stay_unseen(self) -> StudyConfig:
        fresh = [name for name, arm in self.arms.items() if arm.kind == "fresh"]
        if fresh and self.outcome == "values" and None in self.sizes:
            raise ConfigError(
                "fresh real rows beside all others are the held-out ones, in whose states values are judged",
                found=f"the arm {fresh[0]} at size none",
                accepted="sizes that leave rows over",
                fix="leave the arm or that size out",
            )
        return self

    def unseen(self, draw: int) -> HeldOut:
        """What no arm of a draw sees."""
        return Fold(draw, self.draws) if self.crossed else self.held_out

    def agent(self, name: str, arm: str) -> dict[str, Any]:
        """Kind and settings of an agent in an arm, as they were given."""
        return {"kind": name, **self.agents[name], **self.arms[arm].agent}

    def method(self, name: str, arm: str) -> tuple[str, int]:
        """What learns: kind of the agent, and the revision of its code."""
        kind = str(self.agent(name, arm)["kind"])
        learner = FQE if self.outcome == "values" else AGENTS.load(kind)
        return kind, learner.revision

    def numbers(self, name: str, arm: str) -> AgentConfig:
        """All numbers of an agent in an arm, or of the probe where values are the outcome."""
        given = self.agent(name, arm)
        if self.outcome == "returns":
            numbers: AgentConfig = build(given).config
            return numbers
        rest = {key: value for key, value in given.items() if key != "kind"}
        return ProbeConfig.parse(rest, where=f"agent '{name}'")


class Cell(NamedTuple):
    """One training."""

    size: int | None
    draw: int
    arm: str
    agent: str
    seed: int

    @property
    def label(self) -> str:
        """Readable, and a file name."""
        return f"{self.agent}-{self.arm}-{self.size or 'all'}-{self.draw}-{self.seed}".replace(" ", "_")


def cells(study: StudyConfig) -> list[Cell]:
    """Every cell; seeds last, so that a study that is cut short has all arms of the first ones."""
    axes = (range(study.seeds), range(study.draws), study.sizes, study.agents, study.arms)
    return [Cell(size, draw, arm, agent, seed) for seed, draw, size, agent, arm in product(*axes)]


def rows_key(study: StudyConfig, cell: Cell, data: Mapping[str, Any]) -> str:
    """Hash of what an arm's rows follow from.

    Args:
        study: The study.
        cell: Whose arm.
        data: Fingerprint of the `dataset`, and of the `store` of the arm where there is one.
    """
    given = {name: data[name] for name in ("dataset", "store") if name in data}
    unseen = ("part", cell.draw, study.draws) if study.crossed else study.held_out
    drawn = (unseen, study.seed, cell.size, cell.draw)
    return content_hash(given, drawn, study.arms[cell.arm].made_from())


def cell_key(study: StudyConfig, cell: Cell, data: Mapping[str, Any]) -> str:
    """Hash of everything that a cell's result follows from; defaults are written out, so that new ones are new keys.

    Cells hold raw returns, which are scored where they are read, so the references of a score are no part of it.

    Args:
        study: The study.
        cell: Which cell of it.
        data: As in `rows_key`; where values are the outcome, also the fingerprint of each agent's fixed policy under
            `policy of AGENT`.
    """
    arm = study.arms[cell.arm]
    protocol = (study.outcome, study.episodes, study.evaluations, study.spacing, study.watched)
    mixed = (arm.share, arm.use_in) if arm.kind != "real" else ()
    agent = (*study.method(cell.agent, cell.arm), study.numbers(cell.agent, cell.arm).plain())
    policy = data.get(f"policy of {cell.agent}", "")
    return content_hash(rows_key(study, cell, data), mixed, agent, policy, cell.seed, protocol)
