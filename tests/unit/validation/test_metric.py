import json

import numpy as np
import pytest
from threadpoolctl import threadpool_info
from toy_data import toy_dataset, toy_rows

from synth_pipeline.data.containers import Transitions
from synth_pipeline.validation.metric import Floor, Measurement, badness, floor_of, over_cores, real_halves, subsample


def test_floor_is_the_median_and_what_nearly_all_splits_reach():
    values = [float(value) for value in range(101)]
    assert floor_of(values, "higher") == Floor(50.0, 5.0)
    assert floor_of(values, "lower") == Floor(50.0, 95.0)


def test_a_target_is_missed_on_both_sides():
    values = [0.5, 0.9, 1.0, 1.2, 1.3]
    floor = floor_of(values, "nearest", 1.0)
    assert floor.median == 1.0
    assert floor.worst95 == pytest.approx(np.quantile([0.5, 0.1, 0.0, 0.2, 0.3], 0.95))
    assert [badness(value, "nearest", 1.0) for value in (0.5, 1.0, 1.5)] == [0.5, 0.0, 0.5]
    for direction, target in (("nearest", None), ("higher", 1.0)):
        with pytest.raises(ValueError, match="target"):
            Measurement("a.b", 1.0, "unit", direction, (0.0, 2.0), 10, "here", target=target)


def test_halves_hold_whole_episodes_and_every_episode_once():
    dataset = toy_dataset()
    lengths = dataset.episodes.lengths.tolist()
    first_rows = dataset.episodes.observations[dataset.episodes.starts[:-1]]
    for first, second in real_halves(dataset, splits=5):
        assert len(first) + len(second) == len(dataset)
        both = np.concatenate([first["observations"], second["observations"]])
        assert len(np.unique(both, axis=0)) == len(dataset)
        starts = [i for i, row in enumerate(both) if (row == first_rows).all(axis=1).any()]
        assert sorted(np.diff([*starts, len(both)])) == sorted(lengths)


def test_halves_are_seeded_and_differ():
    def sizes(**options):
        return [len(first) for first, _ in real_halves(toy_dataset(), **options)]

    assert sizes() == sizes()
    assert len(sizes()) == 20
    assert len(set(sizes())) > 3
    assert sizes() != sizes(seed=1)


def test_halves_come_one_at_a_time():
    """Twenty copies of a large dataset do not fit into memory."""
    halves = real_halves(toy_dataset())
    assert len(next(halves)) == 2


@pytest.mark.parametrize("dataset", [toy_rows(), toy_dataset(lengths=(9,))], ids=["rows", "one episode"])
def test_without_two_episodes_there_are_no_halves(dataset):
    assert list(real_halves(dataset)) == []


def test_subsample_is_seeded_ordered_and_without_replacement():
    rows = Transitions({"a": np.arange(1000)})
    chosen = subsample(rows, 100, seed=0, address=0)["a"]
    assert len(np.unique(chosen)) == 100
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(subsample(rows, 100, seed=0, address=0)["a"], chosen)
    assert not np.array_equal(subsample(rows, 100, seed=0, address=1)["a"], chosen)
    assert not np.array_equal(subsample(rows, 100, seed=1, address=0)["a"], chosen)
    assert subsample(rows, 1000, seed=0, address=0) is rows


def test_measurements_are_strict_json():
    floor = Floor(0.5, 0.6)
    measurement = Measurement("a.b", None, "rows", "lower", (0.0, float("inf")), 10, "here", floor, {"why": "no data"})
    values = json.loads(json.dumps(measurement.to_json(), allow_nan=False))
    assert values["limits"] == [0.0, None]
    assert values["floor"] == {"median": 0.5, "worst95": 0.6}
    assert (values["metric"], values["value"], values["details"]) == ("a.b", None, {"why": "no data"})
    assert Measurement.from_json(values) == measurement


def test_a_measurement_without_a_floor_survives_json():
    measurement = Measurement("a.b", 1.5, "ratio", "nearest", (0.0, 3.0), 7, "here", target=1.0)
    assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement


def test_items_are_worked_on_in_order_with_one_thread_each():
    def threads(item):
        return item, max(pool["num_threads"] for pool in threadpool_info())

    assert over_cores(threads, iter(range(50))) == [(item, 1) for item in range(50)]
    with pytest.raises(ZeroDivisionError):
        over_cores(lambda item: 1 // item, [1, 0])
