"""The metrics of dynamics, dependence, C2ST, coverage, novelty and terminations pass the suite of metrics."""

from dataclasses import replace

import numpy as np
import pytest
from metric_suite import FRESH, REAL, WITHOUT_EPISODES, MetricTests
from toy_data import SPEC, random_episodes

from synth_pipeline.data.rows import Dataset
from synth_pipeline.envs.toys import Mixture
from synth_pipeline.validation.c2st import c2st
from synth_pipeline.validation.coverage import coverage
from synth_pipeline.validation.dependence import dependence
from synth_pipeline.validation.novelty import novelty
from synth_pipeline.validation.oracle import calibration, clipped_share, dynamics, judge_sample
from synth_pipeline.validation.terminations import prevalence, terminations
from synth_pipeline.validation.truth import Answer, Truth

FIELDS = REAL.spec.fields
HELD_OUT = np.arange(0, 30, 5)


def expected(observations, actions):
    drive = np.pad(actions, ((0, 0), (0, 1)))
    return 0.9 * np.asarray(observations, float) + 0.1 * drive


def oracle(observations, actions):
    """The mean of the toy, which real rows miss by their noise."""
    rewards = -np.sum(np.asarray(observations, float) ** 2, axis=1)
    return Answer(expected(observations, actions), rewards, np.ones(len(observations), bool), "toy")


def kernel(observations, actions, next_observations):
    mean = expected(observations, actions)
    return Mixture(np.ones(1), mean[None], 0.02 * np.eye(3)[None, None]).conditional_cdf(next_observations)


def ends(next_observations):
    return next_observations[:, 0] > 0.3


TRUTH = Truth(oracle, kernel, terminated=ends)
CLIPPING = Truth(clip=np.full(3, 1.5))


class RulerTests(MetricTests):
    def test_real_rows_against_themselves_are_as_good_as_it_gets(self):
        """As good as fresh ones, up to the noise of the rows: the comparison is with a truth, not with these rows."""
        same, fresh = self.value(synthetic=REAL.transitions()).value, self.value().value
        spoilt = self.value(synthetic=self.corrupted()).value
        assert abs(same - fresh) < 0.2 * abs(spoilt - fresh)


class DynamicsTests(RulerTests):
    def measure(self, real, synthetic, seed=0):
        return dynamics(real, judge_sample(real, synthetic, TRUTH, seed=seed), seed=seed)

    def corrupt(self, rows, rng):
        moved = REAL.transitions()["next_observations"] - REAL.transitions()["observations"]
        noise = 0.5 * moved.std(axis=0) * rng.standard_normal(rows["observations"].shape)
        return rows.with_columns(next_observations=rows["next_observations"] + noise)


class TestOracleMean(DynamicsTests):
    metric = "oracle.mean"

    def test_shuffled_actions_are_worse(self):
        shuffled = FRESH.with_columns(actions=FRESH["actions"][np.random.default_rng(0).permutation(len(FRESH))])
        assert self.value(synthetic=shuffled).value > 1.5 * self.value().value


class TestOracleMedian(DynamicsTests):
    metric = "oracle.median"


class TestOracleP95(DynamicsTests):
    metric = "oracle.p95"


class TestOracleP99(DynamicsTests):
    metric = "oracle.p99"


class RewardTests(DynamicsTests):
    def corrupt(self, rows, rng):
        return rows.with_columns(rewards=rows["rewards"] * 0.9)  # they are negative: 10 % too rosy


class TestRewardError(RewardTests):
    metric = "oracle.reward_error"


class TestRewardBias(RewardTests):
    metric = "oracle.reward_bias"


class TestRewardBiasTop(RewardTests):
    metric = "oracle.reward_bias_top5"


class TestClippedShare(RulerTests):
    metric = "oracle.clipped_share_ratio"

    def measure(self, real, synthetic, seed=0):
        return clipped_share(real, synthetic, CLIPPING, seed=seed)

    def corrupt(self, rows, rng):
        return rows.with_columns(observations=3 * rows["observations"])


class TestPit(RulerTests):
    metric = "oracle.pit_ks"

    def measure(self, real, synthetic, seed=0):
        return calibration(real, synthetic, kernel, seed=seed)

    def corrupt(self, rows, rng):
        return rows.with_columns(next_observations=expected(rows["observations"], rows["actions"]))


class TestCorrelation(MetricTests):
    metric = "dependence.correlation"

    def measure(self, real, synthetic, seed=0):
        return dependence(real, synthetic, FIELDS, seed=seed)

    def corrupt(self, rows, rng):
        return rows.with_columns(next_observations=-rows["next_observations"])  # every column keeps its own spread


class C2STTests(MetricTests):
    @pytest.fixture(autouse=True)
    def _few_trees(self, monkeypatch):
        monkeypatch.setattr("synth_pipeline.validation.c2st.TREES", 15)
        monkeypatch.setattr("synth_pipeline.validation.c2st.EPOCHS", 1)

    def measure(self, real, synthetic, seed=0):
        return c2st(real, synthetic, splits=3, seed=seed)

    def corrupt(self, rows, rng):
        """Every column keeps its distribution, rows lose what holds them together."""
        order = rng.permutation(len(rows))
        return rows.with_columns(observations=rows["observations"][order], next_observations=rows["next_observations"])


class TestC2STOfRows(C2STTests):
    metric = "c2st.row"


class TestC2STOfStateAndAction(C2STTests):
    metric = "c2st.sa"

    def corrupt(self, rows, rng):
        return rows.with_columns(actions=rows["actions"] ** 3)


class CoverageTests(MetricTests):
    def measure(self, real, synthetic, seed=0):
        return coverage(real, synthetic, splits=3, seed=seed)

    def corrupt(self, rows, rng):
        """Most of the space is left out."""
        kept = np.flatnonzero(rows["observations"][:, 0] > 1)
        return rows.take(np.resize(kept, len(rows)))


class TestCoverage(CoverageTests):
    metric = "coverage.distance"


class TestCoverageOfRareCells(CoverageTests):
    metric = "coverage.rare"

    def test_floor_is_between_the_corruption_and_perfection(self):
        """Thirty long episodes share no rare cell; many short ones do."""
        many, fresh = (Dataset(SPEC, random_episodes([4] * 600, seed=seed)) for seed in (3, 4))
        found, spoilt = (self.value(many, rows) for rows in (fresh.transitions(), self.corrupted()))
        assert spoilt.value < found.floor.median
        assert found.value > found.floor.worst95 - 0.1


class NoveltyTests(MetricTests):
    def measure(self, real, synthetic, seed=0):
        return novelty(real, synthetic, HELD_OUT, seed=seed)

    def corrupt(self, rows, rng):
        copies = REAL.episodes.take(np.arange(1, 5)).transitions()
        return copies.with_columns(
            observations=copies["observations"] + 1e-5 * rng.standard_normal(copies["observations"].shape)
        )

    def test_real_rows_against_themselves_are_as_good_as_it_gets(self):
        """Unseen rows are; the training rows are the worst there is."""
        unseen = REAL.episodes.take(HELD_OUT).transitions()
        assert self.value(synthetic=unseen).value == self.perfect
        assert self.value(synthetic=self.corrupted()).value == pytest.approx(self.worst, abs=0.01)

    def test_floor_is_there_with_episodes_and_not_without(self):
        """Without them nothing is held out, and the value is not decidable either."""
        assert (self.value().floor is not None) == self.has_floor
        assert self.value(real=WITHOUT_EPISODES).value is None


class TestNoveltyOfStateAndAction(NoveltyTests):
    metric = "novelty.nn_ratio_sa"
    perfect, worst = 1.0, 0.0


class TestNoveltyOfRows(NoveltyTests):
    metric = "novelty.nn_ratio_row"
    perfect, worst = 1.0, 0.0


class TestCopies(NoveltyTests):
    metric = "novelty.copies"
    perfect, worst = 0.0, 1.0
    has_floor = False


def flagged(rows):
    """Rows with the flags that the toy's oracle gives."""
    return rows.with_columns(terminations=ends(expected(rows["observations"], rows["actions"])))


class TerminationTests(MetricTests):
    """The flags of the shared toy are random: they are set to the truth, or turned by the corruption."""

    undecidable = 3  # rows

    def measure(self, real, synthetic, seed=0):
        if real.episodes is not None:
            columns = {**real.episodes.columns, "terminations": flagged(real.transitions())["terminations"]}
            real = replace(real, episodes=replace(real.episodes, columns=columns))
        turned = synthetic["truncations"].all()
        synthetic = self.turn(flagged(synthetic)) if turned else flagged(synthetic)
        pair = judge_sample(real, synthetic, TRUTH, seed=seed)
        return [*terminations(real, pair, ends, seed=seed), *prevalence(real, synthetic, seed=seed)]

    def corrupt(self, rows, rng):
        return rows.with_columns(truncations=np.ones(len(rows), bool))

    def turn(self, rows):
        return rows.with_columns(terminations=rows["terminations"] & (np.arange(len(rows)) % 2 == 0))

    def test_values_stay_inside_the_limits(self):
        for synthetic in (FRESH, self.corrupted(), REAL.transitions()):
            found = self.value(synthetic=synthetic)
            assert found.limits[0] <= found.value <= found.limits[1]
        assert self.value(synthetic=FRESH.take(np.arange(self.undecidable))).value is None


class TestRecall(TerminationTests):
    metric = "terminations.recall"


class TestPrecision(TerminationTests):
    metric = "terminations.precision"

    def turn(self, rows):
        return rows.with_columns(terminations=np.ones(len(rows), bool))


class TestPrevalence(TerminationTests):
    metric = "terminations.prevalence"
    sampled = False
    undecidable = 0

    def turn(self, rows):
        return rows.with_columns(terminations=np.ones(len(rows), bool))
