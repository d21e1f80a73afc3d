"""The catalog: named recipes of datasets that any machine can collect by itself, without a download.

One YAML an environment under `datasets/catalog/`: its reference returns and its levels. A level that no shipped
policy can give is absent; `datasets/README.md` says how the levels are defined.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline import resources
from synth_pipeline.config import Config, read_yaml
from synth_pipeline.envs import behaviours
from synth_pipeline.errors import unknown_name


class Share(Config):
    """One behaviour of a recipe."""

    behaviour: Literal["uniform", "sac", "waypoint"] = Setting(
        description="uniform actions, a shipped SAC snapshot, or the maze controller"
    )
    environment_steps: int | None = Setting(None, ge=0, description="which SAC snapshot, by its training steps")
    share: float = Setting(1.0, gt=0, description="part of the rows, relative to the recipe's other shares")
    stochastic: bool = Setting(True, description="SAC: sample actions; otherwise the mean action")
    noise: float = Setting(0.0, ge=0, description="waypoint: standard deviation of Gaussian action noise")

    @model_validator(mode="after")
    def _check(self) -> Share:
        if (self.behaviour == "sac") != (self.environment_steps is not None):
            raise ValueError("environment_steps belongs to the behaviour 'sac', which needs it")
        if self.noise and self.behaviour != "waypoint":
            raise ValueError("noise belongs to the behaviour 'waypoint'")
        return self

    @property
    def label(self) -> str:
        """The behaviour in words."""
        if self.behaviour == "sac":
            return f"SAC at {self.environment_steps:,} steps, {'sampled' if self.stochastic else 'mean'} actions"
        return f"waypoint controller, noise {self.noise:g}" if self.behaviour == "waypoint" else "uniform actions"


class Returns(Config):
    """Returns of one policy, measured by this project."""

    mean: float = Setting(description="mean return")
    std: float = Setting(ge=0, description="spread over episodes")
    episodes: int = Setting(ge=1, description="episodes measured")


class References(Config):
    """What normalised scores are read against: `random` scores 0, `best` scores 100."""

    random: Returns = Setting(description="uniform actions")
    best_policy: Share | None = Setting(None, description="the best policy that the project ships")
    best: Returns | None = Setting(None, description="the best policy as it collects data: THE upper reference")
    best_without_noise: Returns | None = Setting(None, description="the same policy's mean action, for comparison")
    program: str = Setting(description="command that measures these numbers again")
    versions: dict[str, str] = Setting(description="versions that the numbers hold for")


class D4rlConstants(Config):
    """The constants that D4RL normalises with, shown beside our references; never mixed with them."""

    dataset: str = Setting(description="D4RL's name of the environment")
    minimum: float = Setting(description="return that scores 0 in D4RL")
    maximum: float = Setting(description="return that scores 100 in D4RL")
    comparable: bool = Setting(description="whether returns here mean the same as there")
    note: str = Setting(description="where the constants come from, and what differs")

    def score(self, value: float) -> float | None:
        """D4RL's normalised score (0-100) of a return, or None when returns are not comparable."""
        if not self.comparable:
            return None
        return round(100 * (value - self.minimum) / (self.maximum - self.minimum), 1)


class Level(Config):
    """One dataset of an environment, as the YAML has it."""

    description: str = Setting(min_length=1, description="what the data are")
    rows: int = Setting(ge=1, description="rows to collect; whole episodes, so a few more come out")
    seed: int = Setting(ge=0, description="seed of the collection")
    recipe: tuple[Share, ...] = Setting(min_length=1, description="who acts, for which part of the rows")


class CatalogFile(Config):
    """One YAML of the catalog."""

    environment: str = Setting(description="name in the environment registry")
    licence: str = Setting(description="licence of the collected data")
    horizon: int = Setting(ge=1, description="time limit of an episode, steps")
    references: References = Setting(description="reference returns measured by this project")
    d4rl: D4rlConstants | None = Setting(None, description="D4RL's constants, where it has the environment")
    levels: dict[str, Level] = Setting(min_length=1, description="name -> dataset")


class CatalogEntry(Level):
    """One dataset with everything that is known of it; its id is `environment/level`."""

    environment: str = Setting(description="name in the environment registry")
    level: str = Setting(description="name among the environment's datasets")
    licence: str = Setting(description="licence of the collected data")
    horizon: int = Setting(ge=1, description="time limit of an episode, steps")
    references: References = Setting(description="reference returns measured by this project")
    d4rl: D4rlConstants | None = Setting(None, description="D4RL's constants, where it has the environment")

    @property
    def id(self) -> str:
        """E.g. `hopper/medium-replay`."""
        return f"{self.environment}/{self.level}"

    def behaviours(self) -> list[dict[str, Any]]:
        """The recipe with how good each behaviour is, as plain JSON.

        Each item has `label`, `share` (normalised), and where the return is known `return`, `fraction` (0 = uniform
        actions, 1 = our best policy) and `d4rl_score` (None where D4RL's returns are not comparable).
        """
        total = sum(part.share for part in self.recipe)
        return [{"label": p.label, "share": p.share / total, **self._scores(p)} for p in self.recipe]

    def _scores(self, part: Share) -> dict[str, Any]:
        value = self._return(part)
        if value is None:
            return {}
        low, high = self.references.random.mean, self.references.best
        fraction = None if high is None else round((value - low) / (high.mean - low), 3)
        return {"return": value, "fraction": fraction, "d4rl_score": self.d4rl.score(value) if self.d4rl else None}

    def _return(self, part: Share) -> float | None:
        if part.behaviour == "uniform":
            return self.references.random.mean
        if part == self.references.best_policy and self.references.best is not None:
            return self.references.best.mean
        if part.behaviour == "sac":
            scores = {s.environment_steps: s for s in behaviours.recipe(self.environment).snapshots}
            score = scores[part.environment_steps or 0]
            return score.stochastic_return if part.stochastic else score.deterministic_return
        return None


@lru_cache
def entries() -> dict[str, CatalogEntry]:
    """Every dataset of the catalog by its id, sorted.

    Raises:
        ConfigError: When a file of the catalog is not of the right form.
    """
    found: dict[str, CatalogEntry] = {}
    for path in sorted(resources.path("datasets/catalog").glob("*.yaml")):
        file = CatalogFile.parse(read_yaml(path), where=str(path))
        common = file.model_dump(exclude={"levels"})
        for level, values in file.levels.items():
            entry = CatalogEntry.parse({**common, **values.model_dump(), "level": level}, where=str(path))
            found[entry.id] = entry
    return dict(sorted(found.items()))


def get(dataset_id: str) -> CatalogEntry:
    """The dataset called `dataset_id`.

    Raises:
        UnknownNameError: With the nearest id of the catalog.
    """
    known = entries()
    if dataset_id not in known:
        raise unknown_name("dataset", dataset_id, known, listing="synthpipe datasets")
    return known[dataset_id]
