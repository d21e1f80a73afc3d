"""PRDC, Fréchet distance, membership inference, and the classifiers beside `c2st.sa` and `c2st.row`, pass the suite."""

import numpy as np
import pytest
from metric_suite import FRESH, REAL, MetricTests

from synth_pipeline.validation.c2st import c2st
from synth_pipeline.validation.frechet import frechet
from synth_pipeline.validation.membership import membership
from synth_pipeline.validation.prdc import prdc

HELD_OUT = np.arange(0, 30, 5)


class PRDCTests(MetricTests):
    def measure(self, real, synthetic, seed=0):
        return prdc(real, synthetic, splits=3, seed=seed)

    def test_values_stay_inside_the_limits(self):
        for synthetic in (FRESH, self.corrupted(), FRESH.take(np.arange(6)), REAL.transitions()):
            found = self.value(synthetic=synthetic)
            assert found.limits[0] <= found.value <= found.limits[1]
        found = self.value(synthetic=FRESH.take(np.arange(3)))  # no row has five others
        assert found.value is None
        assert found.details["why"]

    def test_real_rows_against_themselves_reach_one(self):
        assert self.value(synthetic=REAL.transitions()).value == 1.0


class TestPrecision(PRDCTests):
    metric = "prdc.precision"

    def corrupt(self, rows, rng):
        """Half of the rows are off the data."""
        noise = rng.standard_normal(rows["next_observations"].shape) * (np.arange(len(rows)) % 2)[:, None]
        return rows.with_columns(next_observations=rows["next_observations"] + noise)


class TypicalRowsTests(PRDCTests):
    made = 0.25

    def corrupt(self, rows, rng):
        """Only the most typical rows are made."""
        middle = np.argsort((rows["observations"] ** 2).sum(axis=1))[: int(self.made * len(rows))]
        return rows.take(np.resize(middle, len(rows)))


class TestRecall(TypicalRowsTests):
    metric = "prdc.recall"


class TestCoverage(TypicalRowsTests):
    metric = "prdc.coverage"


class TestDensity(TypicalRowsTests):
    metric = "prdc.density"
    made = 0.02

    def test_it_is_too_high_for_typical_rows_and_too_low_off_the_data(self):
        off = FRESH.with_columns(rewards=FRESH["rewards"] + 3)
        assert self.value(synthetic=self.corrupted()).value > 1.3
        assert self.value(synthetic=off).value < 0.1


class FrechetTests(MetricTests):
    def measure(self, real, synthetic, seed=0):
        return frechet(real, synthetic, splits=3, seed=seed)


class TestFrechetOfStateAndAction(FrechetTests):
    metric = "frechet.sa"

    def corrupt(self, rows, rng):
        """Every mean is kept, the spread of the actions is not."""
        return rows.with_columns(actions=rows["actions"] * 0.5)


class TestFrechetOfRows(FrechetTests):
    metric = "frechet.row"

    def corrupt(self, rows, rng):
        """Every column keeps its distribution, rows lose what holds them together."""
        return rows.with_columns(next_observations=rows["next_observations"][rng.permutation(len(rows))])


class C2STTests(MetricTests):
    trees, epochs = 1, 1  # of the classifiers that the test is not about

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch):
        monkeypatch.setattr("synth_pipeline.validation.c2st.TREES", self.trees)
        monkeypatch.setattr("synth_pipeline.validation.c2st.EPOCHS", self.epochs)

    def measure(self, real, synthetic, seed=0):
        return c2st(real, synthetic, splits=3, seed=seed)


class TestC2STOfResiduals(C2STTests):
    metric = "c2st.residual"
    trees = 15

    def corrupt(self, rows, rng):
        """Noise on s' that is small beside s' and large beside the noise of the toy."""
        noise = 0.04 * rng.standard_normal(rows["next_observations"].shape)
        return rows.with_columns(next_observations=rows["next_observations"] + noise)

    def test_it_notices_what_the_trees_on_rows_do_not(self):
        of_rows, of_residuals = (
            {m.metric: m for m in self.measure(REAL, self.corrupted())}[name].value
            for name in ("c2st.row", "c2st.residual")
        )
        assert of_residuals > of_rows + 0.1


class NetworkTests(C2STTests):
    epochs = 10


class TestC2STOfRowsByNetwork(NetworkTests):
    metric = "c2st.row_mlp"

    def corrupt(self, rows, rng):
        order = rng.permutation(len(rows))
        return rows.with_columns(observations=rows["observations"][order])


class TestC2STOfStateAndActionByNetwork(NetworkTests):
    metric = "c2st.sa_mlp"

    def corrupt(self, rows, rng):
        return rows.with_columns(actions=rows["actions"] ** 3)


class TestMembership(MetricTests):
    metric = "membership.auc"

    def measure(self, real, synthetic, seed=0):
        return membership(real, synthetic, HELD_OUT, splits=5, seed=seed)

    def corrupt(self, rows, rng):
        """Training rows with a little noise."""
        seen = REAL.episodes.take(np.setdiff1d(np.arange(30), HELD_OUT)).transitions()
        noise = 1e-3 * rng.standard_normal(seen["observations"].shape)
        return seen.with_columns(observations=seen["observations"] + noise)

    def test_copies_are_the_worst_there_is(self):
        assert self.value(synthetic=self.corrupted()).value == pytest.approx(1.0, abs=0.01)
