"""The gate: rules over measurements, in YAML; a failed rule stops the export and says by how much."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline import resources
from synth_pipeline.config import Config, read_yaml
from synth_pipeline.errors import GateError, unknown_name
from synth_pipeline.validation.metric import Floor, Measurement, badness
from synth_pipeline.validation.record import read_scorecard


class Rule(Config):
    """One threshold: a value, or the floor of the metric and a margin."""

    metric: str = Setting(description="name of a measurement, e.g. 'marginals.mean'")
    verdict: Literal["fidelity", "novelty", "utility"] = Setting("fidelity", description="which verdict it belongs to")
    at_least: float | None = Setting(None, description="passes at or above this value")
    at_most: float | None = Setting(None, description="passes at or below this value")
    floor_plus: float | None = Setting(
        None, ge=0, description="passes when worse by at most this than what 95 % of real splits reach"
    )
    optional: bool = Setting(False, description="passes when the metric cannot be measured on this data")
    why: str = Setting("", description="one sentence for the report")

    @model_validator(mode="after")
    def _one_threshold(self) -> Rule:
        if sum(value is not None for value in (self.at_least, self.at_most, self.floor_plus)) != 1:
            raise ValueError(f"the rule on '{self.metric}' needs exactly one of at_least, at_most and floor_plus")
        return self

    def limits(self, measured: Measurement | None) -> tuple[float | None, float | None]:
        """Smallest and largest value that passes; both None: a margin on a floor that is not there."""
        if self.floor_plus is None:
            return self.at_least, self.at_most
        if measured is None or measured.floor is None:
            return None, None
        worst = measured.floor.worst95
        if measured.target is not None:
            return measured.target - worst - self.floor_plus, measured.target + worst + self.floor_plus
        return (worst - self.floor_plus, None) if measured.direction == "higher" else (None, worst + self.floor_plus)


class Suite(Config):
    """A named list of rules."""

    name: str = Setting(description="name of the suite")
    description: str = Setting("", description="what it is for")
    rules: tuple[Rule, ...] = Setting(min_length=1, description="all must pass")


@dataclass(frozen=True)
class RuleResult:
    """What one rule said.

    `low` and `high` are the smallest and largest value that passes; None: no limit on that side, and on neither where
    the rule is a margin on a floor that is not there.
    """

    metric: str
    verdict: str
    passed: bool
    value: float | None
    threshold: str
    floor: Floor | None
    worst_field: str | None
    why: str
    low: float | None = None
    high: float | None = None

    def sentence(self) -> str:
        """Metric, field, value, threshold and floor in one line."""
        value = "not decidable" if self.value is None else f"{self.value:.4g}"
        floor = f", real against real {self.floor.median:.4g}" if self.floor else ""
        where = f" (worst: {self.worst_field})" if self.worst_field and not self.passed else ""
        return f"{self.metric}{where}: {value}, needs {self.threshold}{floor}"


@dataclass(frozen=True)
class Verdict:
    """Whether a store passed, rule by rule; never one blended number."""

    suite: str
    passed: bool
    rules: tuple[RuleResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the sentence of each rule."""
        rules = [{**asdict(rule), "sentence": rule.sentence()} for rule in self.rules]
        return {**asdict(self), "rules": rules}

    def failures(self) -> list[RuleResult]:
        """The rules that failed."""
        return [rule for rule in self.rules if not rule.passed]


def require_passed(scorecard: Path, digest: str, name: str, *, allow_failed: bool = False) -> dict[str, Any]:
    """The scorecard of a store as it is now, if it may be exported.

    Args:
        scorecard: File that the validate stage wrote.
        digest: Digest of the store as it is now.
        name: What the store is called in the error, and what `synthpipe validate` takes.
        allow_failed: Accept failed rules (never a missing or outdated scorecard).

    Raises:
        GateError: When there is no scorecard, when it is of another state of the store, or when a rule failed.
        ConfigError: When the file is not a scorecard.
    """
    again = shlex.join(["synthpipe", "validate", name])
    card = read_scorecard(scorecard, fix=again) if scorecard.exists() else {}
    if card.get("store", {}).get("digest") != digest:
        raise GateError(
            f"the store of '{name}' was not validated as it is now",
            found="a scorecard of another digest" if card else "no scorecard",
            fix=again,
        )
    if not allow_failed:
        anyway = shlex.join(["synthpipe", "export", name, "--allow-failed"])
        require_rules(card, name, fix=f"improve the generator, or: {anyway} (the card will say so)")
    return card


def require_rules(card: Mapping[str, Any], name: str, *, fix: str) -> None:
    """Fail when a rule failed.

    Args:
        card: A scorecard, as the validate stage writes it.
        name: What was judged.
        fix: What to do about it.

    Raises:
        GateError: With metric, field, value, threshold and floor of every failed rule.
    """
    failed = [rule["sentence"] for rule in card["verdict"]["rules"] if not rule["passed"]]
    if failed:
        raise GateError(
            f"'{name}' did not pass the suite '{card['verdict']['suite']}'",
            found="; ".join(failed),
            accepted="every rule of the suite",
            fix=fix,
        )


def load_suite(name_or_path: str) -> Suite:
    """A shipped suite by name, or a YAML file by path.

    Raises:
        UnknownNameError: For a name that is neither.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return Suite.parse(read_yaml(path), where=str(path))
    folder = resources.path("validation/suites")
    known = [file.stem for file in folder.glob("*.yaml")]
    if name_or_path not in known:
        raise unknown_name("suite", name_or_path, known)
    return Suite.parse(read_yaml(folder / f"{name_or_path}.yaml"), where=f"suite '{name_or_path}'")


def judge(measurements: Sequence[Measurement], suite: Suite) -> Verdict:
    """Apply every rule."""
    by_name = {measurement.metric: measurement for measurement in measurements}
    results = tuple(_apply(rule, by_name.get(rule.metric)) for rule in suite.rules)
    return Verdict(suite.name, all(result.passed for result in results), results)


def _apply(rule: Rule, measured: Measurement | None) -> RuleResult:
    low, high = rule.limits(measured)
    value = measured.value if measured is not None else None
    if value is None or (low is None and high is None):
        value, passed = None, rule.optional
    else:
        passed = (low is None or value >= low) and (high is None or value <= high)
    floor = measured.floor if measured is not None else None
    threshold = _in_words(rule, low, high)
    field, why = _worst_field(measured), rule.why
    return RuleResult(rule.metric, rule.verdict, passed, value, threshold, floor, field, why, low, high)


def _in_words(rule: Rule, low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return f"a floor, and at most {rule.floor_plus:g} beyond it"
    if low is not None and high is not None:
        return f"{low:.4g} to {high:.4g}"
    return f">= {low:.6g}" if low is not None else f"<= {high:.6g}"


def _worst_field(measured: Measurement | None) -> str | None:
    if measured is None:
        return None
    if columns := measured.details.get("columns"):
        return str(max(columns, key=lambda name: badness(columns[name], measured.direction, measured.target)))
    if fields := measured.details.get("fields"):
        return str(max(fields, key=fields.__getitem__))
    return None
