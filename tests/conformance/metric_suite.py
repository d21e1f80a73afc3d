"""What every metric must do.

A new metric needs one class here:

    class TestMine(MetricTests):
        metric = "family.mine"
        def measure(self, real, synthetic, seed=0):      # -> the measurements of its family
            return mine(real, synthetic, FIELDS, seed=seed)
        def corrupt(self, rows, rng):                    # -> what it must notice
            ...
"""

import json
import random
from typing import ClassVar

import numpy as np
import pytest
from toy_data import SPEC, random_episodes

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.metric import Measurement, badness

REAL = Dataset(SPEC, random_episodes([40] * 30, seed=1))
WITHOUT_EPISODES = Dataset(SPEC, rows=REAL.transitions())
ONE_EPISODE = Dataset(SPEC, random_episodes([400], seed=1))
FRESH = random_episodes([40] * 30, seed=2).transitions()  # what a perfect generator would make


class MetricTests:
    """What every metric must do.

    Attributes:
        metric: Its name, `family.name`.
        has_floor: Whether it has a meaning between two halves of the real data.
        sampled: Whether it looks at a seeded sample when there are more rows than it needs.
    """

    metric: str
    has_floor = True

    def measure(self, real: Dataset, synthetic: Transitions, seed: int = 0) -> list[Measurement]:
        raise NotImplementedError

    def corrupt(self, rows: Transitions, rng: np.random.Generator) -> Transitions:
        raise NotImplementedError

    def value(self, real=REAL, synthetic=FRESH, seed=0) -> Measurement:
        (found,) = [m for m in self.measure(real, synthetic, seed) if m.metric == self.metric]
        return found

    _measured: ClassVar[dict[tuple[type, str], Measurement]] = {}  # of a class, on rows that many tests look at

    def usual(self) -> Measurement:
        """Of fresh rows; measured once."""
        return self._once("usual", self.value)

    def spoilt(self) -> Measurement:
        """Of corrupted rows; measured once."""
        return self._once("spoilt", lambda: self.value(synthetic=self.corrupted()))

    def _once(self, what, measure) -> Measurement:
        key = (type(self), what)
        if key not in self._measured:
            self._measured[key] = measure()
        return self._measured[key]

    @staticmethod
    def bad(found: Measurement) -> float:
        return badness(found.value, found.direction, found.target)

    def corrupted(self):
        return self.corrupt(FRESH, np.random.default_rng(0))

    def test_it_declares_what_it_is(self):
        found = self.usual()
        family, _, name = found.metric.partition(".")
        assert family
        assert name
        assert found.direction in ("higher", "lower", "nearest")
        assert found.target is None or found.limits[0] <= found.target <= found.limits[1]
        assert found.limits[0] < found.limits[1]
        assert found.unit
        assert found.source
        assert found.sample > 0

    def test_a_corruption_is_worse(self):
        fresh, spoilt = self.usual(), self.spoilt()
        assert self.bad(spoilt) > self.bad(fresh)

    def test_real_rows_against_themselves_are_as_good_as_it_gets(self):
        same, fresh = self.value(synthetic=REAL.transitions()), self.usual()
        assert self.bad(same) <= self.bad(fresh)

    def test_values_stay_inside_the_limits(self):
        few, same = (self.value(synthetic=rows) for rows in (FRESH.take(np.arange(3)), REAL.transitions()))
        for found in (self.usual(), self.spoilt(), few, same):
            assert found.limits[0] <= found.value <= found.limits[1]

    def test_a_seed_fixes_the_value_whatever_the_global_states(self):
        values = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            state = str(np.random.get_state(legacy=False))  # noqa: NPY002
            values.append(json.dumps(self.value().to_json(), sort_keys=True))
            assert str(np.random.get_state(legacy=False)) == state  # noqa: NPY002
        assert values[0] == values[1]

    def test_the_order_of_rows_does_not_matter(self):
        order = np.random.default_rng(0).permutation(len(FRESH))
        assert self.value(synthetic=FRESH.take(order)).value == pytest.approx(self.usual().value, abs=1e-12)

    def test_inputs_are_not_changed(self):
        real, synthetic = REAL.transitions(), self.corrupted()
        before = [column.tobytes() for rows in (real, synthetic) for column in rows.columns.values()]
        self.value(WITHOUT_EPISODES, synthetic)
        real = WITHOUT_EPISODES.transitions()
        assert [c.tobytes() for rows in (real, synthetic) for c in rows.columns.values()] == before

    def test_floor_is_there_with_episodes_and_not_without(self):
        floor = self.usual().floor
        assert (floor is not None) == self.has_floor
        assert self.value(real=WITHOUT_EPISODES).floor is None
        assert self.value(real=ONE_EPISODE).floor is None

    def test_floor_is_between_the_corruption_and_perfection(self):
        if not self.has_floor:
            pytest.skip("no meaning between halves of the real data")
        found, spoilt = self.usual(), self.spoilt()
        worst, median = found.floor.worst95, found.floor.median
        if found.target is None:
            worst = badness(worst, found.direction)
        assert self.bad(spoilt) > worst >= badness(median, found.direction, found.target)
        assert found.limits[0] <= found.floor.median <= found.limits[1]

    def test_it_is_strict_json(self):
        assert json.loads(json.dumps(self.usual().to_json(), allow_nan=False))["metric"] == self.metric
