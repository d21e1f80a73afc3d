"""The metrics of kinematics, of trajectories, and of the user's rules pass the suite of metrics."""

import numpy as np
import pytest
from metric_suite import FRESH, REAL, MetricTests

from synth_pipeline.data.containers import Segments
from synth_pipeline.data.rows import Dataset
from synth_pipeline.envs.base import KinematicPair
from synth_pipeline.validation.kinematics import Kinematics, kinematics
from synth_pipeline.validation.rules import Rules, rules
from synth_pipeline.validation.trajectories import trajectories
from synth_pipeline.validation.truth import Answer, Truth

STEPS = 40  # of every trajectory
SYSTEM = Kinematics((KinematicPair(position=0, velocity=1), KinematicPair(position=2, velocity=1, angle=True)), dt=0.1)
RULES = Rules.parse(
    {
        "columns": {"actions[0]": {"low": -1, "high": 1}, "terminations": {"integer": True}},
        "kinematics": {"dt": 0.1, "tolerance": 1.0, "pairs": [{"position": 0, "velocity": 1}]},
        "identities": [{"sum": {"next_observations[2]": 1, "observations[2]": -0.9}, "tolerance": 0.2}],
    }
)


class KinematicsTests(MetricTests):
    def measure(self, real, synthetic, seed=0):
        return kinematics(real, synthetic, SYSTEM, Truth(clip=np.full(3, 3.0)), seed=seed)

    def corrupt(self, rows, rng):
        after = rows["next_observations"]
        return rows.with_columns(next_observations=after + 0.1 * rng.standard_normal(after.shape))


class TestResidual(KinematicsTests):
    metric = "kinematics.residual"


class TestResidualOfTeleports(KinematicsTests):
    metric = "kinematics.residual"

    def corrupt(self, rows, rng):
        """Two rows of a hundred land anywhere: too few for a median."""
        after = rows["next_observations"].copy()
        after[::50] = after[rng.permutation(len(after))[: len(after[::50])]] + 2
        return rows.with_columns(next_observations=after)


class TestSelfLoops(KinematicsTests):
    metric = "kinematics.self_loops"

    def corrupt(self, rows, rng):
        after = rows["next_observations"].copy()
        after[::20] = rows["observations"][::20]
        return rows.with_columns(next_observations=after)


class TestOutside(KinematicsTests):
    metric = "kinematics.outside"

    def corrupt(self, rows, rng):
        return rows.with_columns(observations=3 * rows["observations"])


def oracle(observations, actions):
    """The mean of the toy, which real rows miss by their noise."""
    expected = 0.9 * np.asarray(observations, float) + 0.1 * np.pad(actions, ((0, 0), (0, 1)))
    return Answer(expected, np.zeros(len(expected)), np.ones(len(expected), bool), "toy")


def windows(rows):
    """Rows whose trajectories have 40 steps, with the next observations that they claim."""
    steps = min(STEPS, len(rows))
    columns = {name: column.reshape(-1, steps, *column.shape[1:]) for name, column in rows.columns.items()}
    ids = np.arange(len(rows) // steps)
    return Segments(columns, np.ones((len(ids), steps), bool), ids, np.zeros_like(ids))


class TrajectoryTests(MetricTests):
    def measure(self, real, synthetic, seed=0):
        return trajectories(real, windows(synthetic), Truth(oracle), seed=seed)

    def test_the_order_of_rows_does_not_matter(self):
        """The order of trajectories: rows of one have an order that is theirs."""
        order = np.arange(len(FRESH)).reshape(-1, STEPS)[::-1].reshape(-1)
        assert self.value(synthetic=FRESH.take(order)).value == pytest.approx(self.value().value, abs=1e-12)


class TestChain(TrajectoryTests):
    metric = "trajectories.chain"

    def corrupt(self, rows, rng):
        after = rows["next_observations"]
        return rows.with_columns(next_observations=after + 0.02 * rng.standard_normal(after.shape))


class TestReturns(TrajectoryTests):
    metric = "trajectories.returns"

    def corrupt(self, rows, rng):
        return rows.with_columns(rewards=0.5 * rows["rewards"])


class TestErrorGrowth(TrajectoryTests):
    metric = "trajectories.error_growth"

    def corrupt(self, rows, rng):
        return rows.with_columns(actions=rows["actions"][rng.permutation(len(rows))])

    def test_real_rows_against_themselves_are_as_good_as_it_gets(self):
        """As good as fresh ones, up to the noise of the rows: the comparison is with a truth, not with these rows."""
        same, fresh = self.value(synthetic=REAL.transitions()).value, self.value().value
        assert abs(same - fresh) < 0.2 * abs(self.value(synthetic=self.corrupted()).value - fresh)


class RulesTests(MetricTests):
    has_floor = False

    def measure(self, real, synthetic, seed=0):
        return rules(Dataset(real.spec, rows=synthetic), RULES)


class TestBounds(RulesTests):
    metric = "rules.bounds"

    def corrupt(self, rows, rng):
        return rows.with_columns(actions=1.2 * rows["actions"])


class TestIntegers(RulesTests):
    metric = "rules.integers"

    def corrupt(self, rows, rng):
        return rows.with_columns(terminations=rng.random(len(rows)))


class TestKinematics(RulesTests):
    metric = "rules.kinematics"

    def corrupt(self, rows, rng):
        return rows.with_columns(next_observations=3 * rows["next_observations"] + 1)


class TestIdentities(RulesTests):
    metric = "rules.identities"

    def corrupt(self, rows, rng):
        return rows.with_columns(observations=rows["observations"] + rng.standard_normal((len(rows), 3)))


def test_the_toy_obeys_its_rules():
    assert not RULES.violations(FRESH).any()
    assert {m.value for m in rules(REAL, RULES)} == {0.0}
