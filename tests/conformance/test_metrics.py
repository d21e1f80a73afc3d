"""Every metric passes the suite; the two scores of single columns agree with SciPy and with their definition."""

import numpy as np
import pytest
from metric_suite import FRESH, REAL, MetricTests
from scipy.stats import ks_2samp

from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.marginals import ks_complement, marginals, tv_complement

FIELDS = REAL.spec.fields


class MarginalTests(MetricTests):
    def measure(self, real, synthetic, seed=0):
        return marginals(real, synthetic, FIELDS, seed=seed)

    def corrupt(self, rows, rng):
        return rows.with_columns(**{name: rows[name] * 3 for name in ("observations", "next_observations", "rewards")})


class TestMarginalsMean(MarginalTests):
    metric = "marginals.mean"


class TestMarginalsWorst(MarginalTests):
    metric = "marginals.worst"

    def corrupt(self, rows, rng):
        return rows.with_columns(rewards=rows["rewards"] + 5)


class TestSampledMarginals(MarginalTests):
    """Fewer rows are drawn than there are."""

    metric = "marginals.mean"

    def measure(self, real, synthetic, seed=0):
        return marginals(real, synthetic, FIELDS, sample=500, seed=seed)

    def test_the_order_of_rows_does_not_matter(self):
        """Only up to the draw, for a sample."""
        order = np.random.default_rng(0).permutation(len(FRESH))
        assert self.value(synthetic=FRESH.take(order)).value == pytest.approx(self.value().value, abs=0.05)

    def test_real_rows_against_themselves_are_as_good_as_it_gets(self):
        assert self.value(synthetic=REAL.transitions()).value > self.value().floor.worst95 - 0.05

    def test_another_seed_is_another_draw(self):
        assert self.value(seed=1).value != self.value(seed=0).value
        assert self.value(seed=1).sample == 500


class ContractTests(MetricTests):
    has_floor = False

    def measure(self, real, synthetic, seed=0):
        rows = Dataset(real.spec, rows=synthetic)
        return contract(rows, FIELDS, lambda next_observations: next_observations[:, 0] > 100)

    def spoil(self, rows, name, value):
        column = rows[name].copy()
        column[5] = value
        return rows.with_columns(**{name: column})


class TestContractSchema(ContractTests):
    metric = "contract.schema"

    def corrupt(self, rows, rng):
        return rows.with_columns(terminations=rows["terminations"].astype(np.float32))


class TestContractFinite(ContractTests):
    metric = "contract.finite"

    def corrupt(self, rows, rng):
        return self.spoil(rows, "rewards", np.nan)


class TestContractBounds(ContractTests):
    metric = "contract.bounds"

    def corrupt(self, rows, rng):
        return self.spoil(rows, "actions", 1.001)


class TestContractTerminations(ContractTests):
    metric = "contract.terminations"

    def corrupt(self, rows, rng):
        return rows.with_columns(terminations=np.ones(len(rows), bool))


@pytest.mark.parametrize("seed", range(20))
def test_ks_complement_is_scipys(seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(rng.integers(1, 400))
    b = rng.choice([rng.normal(0.3, 1.5, 300), np.round(rng.standard_normal(300), 1), np.zeros(300)])
    b = b[: rng.integers(1, 300)]
    if seed % 2:
        a = np.round(a, 1)  # ties within and across the samples
    assert ks_complement(a, b) == pytest.approx(1 - ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_tv_complement_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, 200), rng.integers(0, 6, 150)
    p, q = np.bincount(a, minlength=6) / 200, np.bincount(b, minlength=6) / 150
    assert tv_complement(a, b) == pytest.approx(1 - np.abs(p - q).sum() / 2)
    assert tv_complement(a % 2 == 0, b % 2 == 0) == pytest.approx(1 - abs(np.mean(a % 2 == 0) - np.mean(b % 2 == 0)))
