"""Should this dataset be augmented, with what, at which ratio? Asked of the value probe, in minutes instead of days.

First on all of the data, which is what the question is about: every arm in several trainings, each with a fit of its
own. Each training holds out another part of the episodes, and its values are judged in the states of that part, so that
every episode is judged in once: a fifth alone would be two of ten, and what it says chance. An arm is recommended when
its paired 95 % interval is above 0 (or, where real rows alone diverged, when it never did and won every pair that is
left), and when the values learned with it say more than their mean would. Then what is recommended on a quarter of the
data, where it can be told what it is worth: how many more real rows, by the learning curve of real rows alone, would do
as much. The value probe is no return, and the advice says so.

Trainings on parts that overlap are not independent, and no unbiased estimate of their variance is known (Bengio and
Grandvalet 2004, JMLR 5): read the interval as one of about 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.config import Config
from synth_pipeline.errors import ConfigError
from synth_pipeline.evaluation.effective import Multiplier, multiplier_of
from synth_pipeline.evaluation.monte_carlo import Which
from synth_pipeline.evaluation.statistics import Difference, Outcomes, paired_difference
from synth_pipeline.evaluation.study import ArmConfig, Cell, StudyConfig
from synth_pipeline.evaluation.tables import BASELINE, CHANCE, outcomes
from synth_pipeline.evaluation.value_probe import LEAST_STATES
from synth_pipeline.tracking import counted

PROBE = "fqe"
PART = 4  # of the data: a quarter is what an arm's worth is told on
FEW_EPISODES = 20  # with fewer, values are judged in the states of so few lives that it is said
_FOLLOWS = {
    "regressor": {"width": 128, "depth": 2, "trainer": {"gradient_steps": 1_500}},
    "diffusion": {"trainer": {"gradient_steps": 400, "batch_size": 512}},
}
QUICK = {
    "kind": "synther",
    "trainer": {"gradient_steps": 400, "batch_size": 512, "warmup_steps": 50},
    "dynamics": _FOLLOWS,
    "rewards": _FOLLOWS,
}


class AdviceConfig(Config):
    """What is tried, and how thoroughly."""

    arms: dict[str, ArmConfig] = Setting(
        {
            "synther, half": ArmConfig(kind="generated", generator=QUICK, share=0.5),
            "synther, quarter": ArmConfig(kind="generated", generator=QUICK, share=0.25),
            "smote, half": ArmConfig(kind="smote", share=0.5),
        },
        min_length=1,
        description="name -> what is mixed in, and at which share",
    )
    draws: int = Setting(
        5, ge=5, description="trainings, and parts of the episodes held out in turn; fewer than five give no interval"
    )
    policy: Which = Setting(None, description="whose values are asked, as `synthpipe settings probe` says")
    states: int = Setting(200, ge=LEAST_STATES, description="states of every part that values are judged in, at most")
    gradient_steps: int = Setting(20_000, ge=1, description="of every probe")
    width: int = Setting(128, ge=8, description="units of a hidden layer of the critics")

    @model_validator(mode="after")
    def _arms_have_names_of_their_own(self) -> AdviceConfig:
        if taken := {BASELINE, ""} & self.arms.keys():
            raise ConfigError(
                "an arm needs a name of its own",
                found=f"'{min(taken)}'",
                accepted=f"any but '{BASELINE}', which are the real rows alone",
                fix="--set 'arms={mine: {kind: smote}}'",
            )
        return self


def trials(dataset: str, rows: int | None, config: AdviceConfig, *, seed: int = 0) -> StudyConfig:
    """Real rows alone and every arm, on all of the data.

    Args:
        dataset: Catalog id, Minari id, or file.
        rows: Size of a collected dataset; None: the recipe's.
        config: What is tried.
        seed: Seed of everything.
    """
    return _study(dataset, rows, config, config.arms, (None,), seed)


def on_a_quarter(
    dataset: str, rows: int | None, training: int, arm: str, config: AdviceConfig, *, seed: int = 0
) -> StudyConfig:
    """One arm on a quarter of the data, and what the trials have of it: the learning curve of real rows alone."""
    return _study(dataset, rows, config, {arm: config.arms[arm]}, (training // PART, None), seed)


def _study(
    dataset: str,
    rows: int | None,
    config: AdviceConfig,
    arms: Mapping[str, ArmConfig],
    sizes: tuple[int | None, ...],
    seed: int,
) -> StudyConfig:
    probe = config.model_dump(include={"policy", "states", "gradient_steps", "width"})
    given: dict[str, Any] = {"dataset": dataset, "rows": rows, "crossed": True, "seed": seed}
    given |= {"sizes": sizes, "draws": config.draws, "seeds": 1}
    plain = {name: arm.model_dump() for name, arm in {BASELINE: ArmConfig(), **arms}.items()}
    return StudyConfig.parse({**given, "arms": plain, "agents": {PROBE: probe}, "outcome": "values"}, where="advice")


@dataclass(frozen=True)
class Trial:
    """What an arm did to the errors of values.

    Attributes:
        arm: Its name.
        difference: Of minus the error, to real rows alone; above 0 is better.
        error: Mean error of the values with it, in standard deviations of the true ones; None: every run diverged.
        real: The same of real rows alone.
        multiplier: How many more real rows it is worth; None on all of the data, where the curve ends.
    """

    arm: str
    difference: Difference
    error: float | None
    real: float | None
    multiplier: Multiplier | None = None


@dataclass(frozen=True)
class Advice:
    """What is recommended, and what it rests on.

    Attributes:
        arm: With what to augment; None: not at all.
        mixed: That arm's rows and the share of a batch that they are; None: nothing is mixed in.
        trials: Every arm on all of the data, best first.
        quarter: What is recommended on a quarter of the data; None: nothing is.
        rows: How many there are.
        episodes: How many there are; values were judged in states of all, those of a part at a time.
    """

    arm: str | None
    mixed: ArmConfig | None
    trials: tuple[Trial, ...]
    quarter: Trial | None
    rows: int
    episodes: int

    @property
    def augment(self) -> bool:
        """Whether to."""
        return self.arm is not None

    def sentences(self) -> list[str]:
        """The advice in plain words: what to do, what it is worth, the risk, and what was not measured."""
        best = max(self.trials, key=_gain) if self.arm is None else self._trial()
        found = [self._verdict(), f"{'Best' if self.arm is None else 'With it'} on all rows: {self._said(best)}."]
        if self.quarter is not None:
            found.append(f"With it on a quarter of them: {_change(self.quarter)}.")
        found.append(f"Risk: {self._risk()}.")
        if self.episodes < FEW_EPISODES:
            found.append(f"All of this rests on {counted(self.episodes, 'episode')}.")
        return [*found, "Not measured: returns. Try the answer with `synthpipe evaluate` before you rely on it."]

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        mixed = None if self.mixed is None else {**self.mixed.made_from(), "share": self.mixed.share}
        facts: dict[str, Any] = {"augment": self.augment, "arm": self.arm, "mixed": mixed}
        facts |= {"rows": self.rows, "episodes": self.episodes}
        facts |= {"trials": [_plain(trial) for trial in self.trials]}
        facts |= {"quarter": None if self.quarter is None else _plain(self.quarter)}
        return {**facts, "sentences": self.sentences()}

    def _verdict(self) -> str:
        every = f"on all {self.rows:,} rows"
        if self.mixed is not None:
            difference, what = self._trial().difference, f"{self.arm} ({self.mixed.share:.0%} of every batch)"
            if not difference.pairs:
                return f"Augment with {what}: {every} real rows alone diverged every time, and with it none did."
            where = ", wherever real rows alone did not diverge" if difference.verdict == "outlasts" else ""
            return f"Augment with {what}: values got better {every}{where}."
        if all(error is None or error >= CHANCE for trial in self.trials for error in (trial.error, trial.real)):
            real = self.trials[0].real
            alone = "real rows alone diverged" if real is None else f"with real rows alone their error is {real:.2f}"
            useless = f"{every} no values are better than their mean, which would cost 1; {alone}"
            return f"Nothing can be told, so do not augment: {useless}. More rows or gradient_steps may tell."
        if any(better(trial.difference) for trial in self.trials):
            return f"Do not augment: {every} even the better values are no better than their mean."
        return f"Do not augment: {every} no arm made values better beyond doubt."

    def _said(self, trial: Trial) -> str:
        return _change(trial) if self.arm is not None else f"'{trial.arm}', {_change(trial)}"

    def _risk(self) -> str:
        """Of what is recommended: how little it may bring. Where nothing is: what an arm may cost all the same."""
        if self.quarter is None:
            return _costliest(self.trials)
        return f"{_least(self._trial())}{_shown(self.quarter.difference)}"

    def _trial(self) -> Trial:
        return next(trial for trial in self.trials if trial.arm == self.arm)


def judged(
    study: StudyConfig, results: Mapping[Cell, Mapping[str, Any]], training: int, *, seed: int = 0
) -> list[Trial]:
    """The arms of a study at its first size, best first: by the lower end of their interval; without any, by their
    error. With a multiplier where the study has a learning curve.
    """
    first = study.sizes[0]
    curve = {size or training: outcomes(results, None, size=size, arm=BASELINE) for size in study.sizes}
    real, found = curve[first or training], []
    for arm in (name for name in study.arms if name != BASELINE):
        ours = outcomes(results, None, size=first, arm=arm)
        difference = paired_difference({"": ours}, {"": real}, seed=seed)
        worth = multiplier_of(curve, ours, first or training, seed=seed)
        found.append(Trial(arm, difference, error_of(ours), error_of(real), worth))
    return sorted(found, key=_rank)


def error_of(outcomes: Outcomes) -> float | None:
    """Mean error of values, over the runs that did not diverge."""
    errors = [-value for value in outcomes.values() if isinstance(value, float)]
    return math.fsum(errors) / len(errors) if errors else None


def better(difference: Difference) -> bool:
    """Whether an interval excludes 0 on the good side, or real rows alone diverged where this arm never did."""
    return difference.verdict in ("better", "outlasts")


def helps(trial: Trial) -> bool:
    """Whether the values are better beyond doubt, and say more than their mean."""
    return better(trial.difference) and trial.error is not None and trial.error < CHANCE


def recommended(found: Sequence[Trial]) -> str | None:
    """The best arm that helps on all of the data; None: none does."""
    return next((trial.arm for trial in found if helps(trial)), None)


def concluded(found: Sequence[Trial], quarter: Trial | None, config: AdviceConfig, rows: int, episodes: int) -> Advice:
    """Both looks together; the second is that of what the first recommends."""
    arm = recommended(found)
    return Advice(arm, None if arm is None else config.arms[arm], tuple(found), quarter, rows, episodes)


def _rank(trial: Trial) -> tuple[bool, float, float]:
    low, error = trial.difference.low, trial.error
    return not better(trial.difference), math.inf if low is None else -low, math.inf if error is None else error


def _gain(trial: Trial) -> float:
    return -math.inf if trial.difference.value is None else trial.difference.value


def _least(trial: Trial) -> str:
    """The lower end of what an arm that helps may bring."""
    if trial.difference.low is None:
        return "how much is not known, for real rows alone diverged"
    lost = f", and it diverged in {counted(n, 'draw')}" if (n := trial.difference.diverged[0]) else ""
    return f"the gain may be as small as {trial.difference.low:.3f} of a deviation{lost}"


def _shown(on_a_quarter: Difference) -> str:
    """What a quarter of the data adds to the risk; nothing where the gain is seen there too."""
    if better(on_a_quarter):
        return ""
    lost = f", where it diverged in {counted(n, 'draw')}" if (n := on_a_quarter.diverged[0]) else ""
    found = "it is worse beyond doubt" if on_a_quarter.verdict == "worse" else "nothing is beyond doubt"
    return f"; on a quarter of them {found}{lost}"


def _costliest(found: Sequence[Trial]) -> str:
    """The arm that may cost most: one that diverged, or the one whose interval reaches lowest."""
    lost = max(found, key=lambda trial: trial.difference.diverged[0])
    if lost.difference.diverged[0]:
        return f"'{lost.arm}' diverged in {counted(lost.difference.diverged[0], 'draw')}"
    known = [(trial.difference.low, trial.arm) for trial in found if trial.difference.low is not None]
    if not known:
        return "not known, for real rows alone diverged"
    low, arm = min(known)
    return f"'{arm}' may cost up to {max(0.0, -low):.2f} of a deviation"


def _change(trial: Trial) -> str:
    d = trial.difference
    if d.value is None or d.low is None or d.high is None:
        ours, theirs = (counted(lost, "draw") for lost in d.diverged)
        if d.verdict == "outlasts" and d.pairs:
            return f"better wherever real rows alone gave values; these diverged in {theirs}"
        return f"too few draws for an interval: it diverged in {ours}, real rows alone in {theirs}"
    text = f"error of values changes by {-d.value:+.3f} of a deviation [{-d.high:+.3f}, {-d.low:+.3f}]"
    text += f" to {trial.error:.2f}"
    if (worth := trial.multiplier) is None or worth.low is None:
        return text
    return f"{text}, worth {worth.value} [{worth.low}, {worth.high}] the real rows"


def _plain(trial: Trial) -> dict[str, Any]:
    worth = None if trial.multiplier is None else trial.multiplier.plain()
    errors = {"error": trial.error, "real": trial.real}
    return {"arm": trial.arm, "difference": trial.difference.plain(), **errors, "multiplier": worth}
