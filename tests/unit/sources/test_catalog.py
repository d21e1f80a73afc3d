"""The catalog: every recipe can be collected, every number is backed by a measurement, wrong names get the nearest."""

import json
from pathlib import Path

import pytest

from synth_pipeline import envs
from synth_pipeline.envs import behaviours
from synth_pipeline.errors import ConfigError, UnknownNameError
from synth_pipeline.sources import catalog
from synth_pipeline.sources.catalog import D4rlConstants, Share

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = catalog.entries()
ENVIRONMENTS = sorted({entry.environment for entry in ENTRIES.values()})
LOCOMOTION = ("hopper", "halfcheetah", "walker2d")


def of(environment):
    return {entry.level: entry for entry in ENTRIES.values() if entry.environment == environment}


def test_every_environment_has_a_file():
    assert envs.ENVIRONMENTS.names() == ENVIRONMENTS


@pytest.mark.parametrize("environment", ENVIRONMENTS)
class TestEveryEnvironment:
    def test_fits_the_environment(self, environment):
        model = envs.make(environment)
        for dataset_id, entry in ENTRIES.items():
            if entry.environment == environment:
                assert dataset_id == f"{environment}/{entry.level}" == entry.id
                assert entry.horizon == model.spec.horizon
                assert entry.licence == "MIT"

    def test_levels_are_those_that_the_shipped_weights_give(self, environment):
        levels = {"random": None}
        if environment in behaviours.names():
            levels |= behaviours.recipe(environment).levels()
        if environment.startswith("pointmaze"):
            levels["waypoint"] = None
        found = of(environment)
        if uneven := found.pop("medium-expert-10", None):
            parts = [(part.environment_steps, part.share) for part in uneven.recipe]
            assert parts == list(zip(levels["medium-expert"], (0.9, 0.1), strict=True))
        assert set(found) == set(levels)
        for level, steps in levels.items():
            recipe = found[level].recipe
            if steps is not None:
                assert tuple(part.environment_steps for part in recipe) == steps
                assert {(part.behaviour, part.stochastic, part.share) for part in recipe} == {("sac", True, 1.0)}
        assert [part.behaviour for part in found["random"].recipe] == ["uniform"]

    def test_no_two_levels_share_a_seed(self, environment):
        seeds = [entry.seed for entry in of(environment).values()]
        assert len(set(seeds)) == len(seeds)

    def test_references_are_the_measured_ones(self, environment):
        file = ROOT / "benchmarks" / "results" / f"catalog.reference_returns.{environment}.json"
        evidence = json.loads(file.read_text())
        measured, stated = evidence["details"], of(environment)["random"].references
        assert evidence["holds"]
        assert stated.program == evidence["command"]
        assert stated.versions == measured["versions"]
        for name in ("random", "best", "best_without_noise"):
            returns = getattr(stated, name)
            assert (returns is None) == (name not in measured)
            if returns is not None:
                assert returns.episodes >= 100
                assert returns.model_dump() == {key: measured[name][key] for key in ("mean", "std", "episodes")}
        if stated.best_policy is not None:
            assert stated.best_policy.model_dump() == measured["best_policy"]
            assert stated.best.mean > stated.random.mean

    def test_behaviours_say_how_good_they_are(self, environment):
        for entry in of(environment).values():
            parts = entry.behaviours()
            assert json.loads(json.dumps(parts, allow_nan=False)) == parts
            assert sum(part["share"] for part in parts) == pytest.approx(1)
            assert all("return" in part for part in parts)


@pytest.mark.parametrize("environment", LOCOMOTION)
def test_locomotion_has_all_levels_and_d4rl_scores(environment):
    levels = of(environment)
    assert set(levels) == {"random", "medium", "medium-replay", "medium-expert", "medium-expert-10", "expert"}
    assert {entry.rows for entry in levels.values()} == {100_000}
    (expert,) = levels["expert"].behaviours()
    (medium,) = levels["medium"].behaviours()
    (uniform,) = levels["random"].behaviours()
    assert expert["fraction"] == 1.0
    assert uniform["fraction"] == 0.0
    # The level is defined on the 10 episodes of the weights' own file; these are fractions of the 100 measured here.
    assert 0.3 < medium["fraction"] < 0.55
    assert abs(uniform["d4rl_score"]) < 2 < medium["d4rl_score"] < expert["d4rl_score"]


@pytest.mark.parametrize("environment", [name for name in ENVIRONMENTS if name.startswith("pointmaze")])
def test_maze_returns_are_not_scored_by_d4rl(environment):
    (part,) = of(environment)["waypoint"].behaviours()
    assert part["return"] == 1.0
    assert part["d4rl_score"] is None
    assert not of(environment)["waypoint"].d4rl.comparable


def test_d4rl_score():
    constants = D4rlConstants(dataset="x", minimum=-10, maximum=90, comparable=True, note="")
    assert constants.score(40) == 50.0


def test_every_description_names_the_real_number_of_snapshots():
    for entry in ENTRIES.values():
        if entry.level == "medium-replay":
            assert f"All {len(entry.recipe)} shipped snapshots" in entry.description


def test_the_readme_states_every_level():
    text = (ROOT / "datasets" / "README.md").read_text()
    for environment in (*LOCOMOTION, "pendulum"):
        for level in ("medium", "expert"):
            (part,) = of(environment)[level].behaviours()
            steps = of(environment)[level].recipe[0].environment_steps
            score = "-" if part["d4rl_score"] is None else f"{part['d4rl_score']:.1f}"
            cells = (environment, level, f"{steps:,}", f"{part['return']:,.0f}", f"{part['fraction']:.2f}", score)
            assert f"| {' | '.join(cells)} |" in text


def test_unknown_ids_get_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'hopper/medium-replay'"):
        catalog.get("hopper/medium_replay")


@pytest.mark.parametrize(
    "values",
    [
        {"behaviour": "sac"},
        {"behaviour": "uniform", "environment_steps": 5},
        {"behaviour": "uniform", "noise": 0.1},
        {"behaviour": "waypoint", "share": 0},
        {"behaviour": "waypoints"},
    ],
)
def test_shares_that_make_no_sense_are_refused(values):
    with pytest.raises(ConfigError):
        Share.parse(values)
