"""What is known of environments: simulators reset to rows, clips, kernels."""

import numpy as np
import pytest
from toy_data import SPEC

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs.base import dataset_fields
from synth_pipeline.validation.truth import Truth, known_truth, simulator_oracle, truth_of


def hopper_rows(n=6, seed=0):
    model, rng = envs.make("hopper"), np.random.default_rng(seed)
    states = np.concatenate([[1.25], np.zeros(10)]) + 0.01 * rng.standard_normal((n, 11))
    actions = rng.uniform(-1, 1, (n, 3))
    return model, states, actions


def test_nothing_is_known_without_an_environment():
    assert known_truth(SPEC) == Truth()
    assert Truth().bounded(np.array([[99.0]])).tolist() == [[99.0]]


@pytest.mark.parametrize(
    ("name", "oracle", "kernel", "clip"),
    [
        ("hopper", True, False, True),
        ("pointmaze-umaze", True, False, False),
        ("toy-point-mass", True, False, False),
        ("toy-jumps", False, True, False),
    ],
)
def test_what_is_known_of_each_kind(name, oracle, kernel, clip):
    truth = truth_of(envs.make(name))
    assert (truth.oracle is not None, truth.kernel is not None, truth.clip is not None) == (oracle, kernel, clip)
    assert truth.terminated is not None


def test_an_environment_of_a_dataset_is_found_by_name():
    fields = dataset_fields(envs.make("toy-point-mass").spec)
    assert known_truth(DatasetSpec(dataset_id="a/b", fields=fields, environment="toy-point-mass")).oracle is not None


def test_the_simulator_answers_with_its_own_step():
    model, states, actions = hopper_rows()
    answer = simulator_oracle(model)(states, actions)
    outcome = model.step(states, actions)
    np.testing.assert_array_equal(answer.next_observations, outcome.next_observations)
    np.testing.assert_array_equal(answer.rewards, outcome.rewards)
    assert answer.judged.all()
    assert answer.label == "simulator hopper"


def test_what_the_simulator_cannot_judge_is_never_judged():
    model, states, actions = hopper_rows(5)
    states[0, 7] = 9.9  # at 0.99 of the clip
    states[1, 2] = np.nan
    actions[2, 1] = np.inf
    states[3, 10], actions[3] = 9.85, 1.0  # off the clip now, at it one step later
    answer = simulator_oracle(model)(states, actions)
    assert abs(answer.next_observations[3]).max() >= 9.9
    assert answer.judged.tolist() == [False, False, False, False, True]


def test_rows_are_clipped_and_counted_as_the_environment_shows_them():
    truth = Truth(clip=np.array([np.inf, 10.0]))
    values = np.array([[50.0, 0.0], [50.0, 9.89], [0.0, -9.9], [0.0, 12.0]])
    assert truth.bounded(values).tolist() == [[50, 0], [50, 9.89], [0, -9.9], [0, 10]]
    still = np.zeros_like(values)
    for rows in (
        {"observations": values, "next_observations": still},
        {"observations": still, "next_observations": values},
    ):
        assert truth.clipped(Transitions(rows)).tolist() == [False, False, True, True]
