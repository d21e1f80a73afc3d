"""What every agent must do.

A new agent needs one line in `AGENTS` and one class in `test_agents.py`:

    class TestMine(AgentTests):
        kind = "mine"
        quick = {"some_setting": 4}     # settings under which a step costs next to nothing
        learner = {"other_setting": 1}  # settings under which it learns the point mass in a second

All agents meet the same few hundred rows of a point mass among walls (`point_mass_data.tiny`).
"""

import inspect
import json
from dataclasses import replace
from functools import cache

import global_random
import numpy as np
import point_mass_data
import pytest
import torch

from synth_pipeline.agents import AGENTS
from synth_pipeline.agents.actor_critic import ValueLearner
from synth_pipeline.agents.base import build
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import transition_fields
from synth_pipeline.envs.rollout import RandomActor
from synth_pipeline.errors import CheckpointError, ConfigError, SourceError

STEPS = 12
QUICK = {"gradient_steps": STEPS, "batch_size": 16, "width": 16, "depth": 1, "log_every": 5}
LEARNER = {
    "gradient_steps": 120,
    "batch_size": 64,
    "width": 32,
    "depth": 2,
    "learning_rate": 5e-3,
    "discount": 0.95,
    "target_rate": 0.02,
}
FAR = 100.0  # added to the observations of synthetic rows, to know them again


def as_bytes(arrays):
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()}


def everything(agent):
    """All that the rest of a training depends on."""
    return agent.steps, as_bytes(agent.tensors()), agent.rng.get_state().numpy().tobytes()


def act(agent, observations):
    actor = agent.actor()
    actor.reset(len(observations))
    return actor.act(observations, np.random.default_rng(0))


def tiny():
    return point_mass_data.tiny()


def changed(column, change):
    """The tiny dataset with one column of its episodes changed in place."""
    episodes = tiny().episodes
    columns = {"observations": episodes.observations, "final": episodes.final_observations, **episodes.columns}
    columns[column] = change(columns[column].copy())
    observations, final = columns.pop("observations"), columns.pop("final")
    return Dataset(tiny().spec, Episodes(observations, final, episodes.starts, columns))


def put(value):
    def change(array):
        array[3] = value
        return array

    return change


def far_episodes():
    """The tiny episodes somewhere else."""
    episodes = tiny().episodes
    return replace(
        episodes, observations=episodes.observations + FAR, final_observations=episodes.final_observations + FAR
    )


def twins():
    """Two episodes with the same numbers; the first ends in a terminal state, the second at a time limit."""
    one = tiny().episodes.take(np.array([0]))
    length = one.num_rows
    flags = {name: np.zeros(2 * length, bool) for name in ("terminations", "truncations")}
    flags["terminations"][length - 1] = flags["truncations"][-1] = True
    columns = {name: np.concatenate([one[name], one[name]]) for name in ("actions", "rewards")} | flags
    columns["rewards"][0] -= 1  # returns that differ, for agents that scale rewards by them
    starts = np.array([0, length, 2 * length])
    twice = np.concatenate([one.observations, one.observations])
    return Dataset(tiny().spec, Episodes(twice, one.final_observations[[0, 0]], starts, columns))


@cache
def learned_return(kind, settings):
    """Mean return of an agent that learned from half good, half random data."""
    agent = build({"kind": kind, **LEARNER, **json.loads(settings)})
    agent.fit(Mixture(point_mass_data.half_good()), seed=0)
    return point_mass_data.mean_return(agent.actor())


@cache
def random_return():
    return point_mass_data.mean_return(RandomActor(point_mass_data.ENVIRONMENT.spec.action))


class AgentTests:
    """What every agent must do.

    Attributes:
        kind: Name in the registry.
        quick: Settings under which a step costs next to nothing.
        learner: Settings under which it learns the point mass in a second.
        no_critics: Why it has no targets that could bootstrap; none: it has them.
        model_steps: Steps of a model that is learned first and reported before its own.
        no_single_rows: Why it cannot learn from synthetic rows that belong to no episode; none: it can.
    """

    kind: str
    quick = {}  # noqa: RUF012
    learner = {}  # noqa: RUF012
    no_critics = ""
    model_steps = 0
    no_single_rows = ""

    @classmethod
    def untrained(cls, **settings):
        return build({"kind": cls.kind, **QUICK, **cls.quick, **settings})

    @classmethod
    def begun(cls, data=None, seed=7, **settings):
        return cls.untrained(**settings).begin(data or Mixture(tiny()), seed=seed)

    @staticmethod
    def sides(batch):
        """Override where batches are no `Batch`: the observations `[b, o]` that each side of the agent learns from."""
        return {"critic": batch.critic.observations, "actor": batch.actor.observations}

    @classmethod
    def mixed(cls, **mixture):
        """Real and far-away rows, as episodes where the agent needs them."""
        made = far_episodes()
        given = {"synthetic_episodes": made} if cls.no_single_rows else {"synthetic": made.transitions()}
        return Mixture(tiny(), **given, **mixture)

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls):
        agent = cls.begun()
        agent.train()
        return agent

    # What it is

    def test_it_says_what_it_is(self):
        agent, registered = self.untrained(), AGENTS.load(self.kind)
        assert type(agent) is registered
        assert agent.kind == self.kind
        assert isinstance(agent.config, registered.settings)
        assert registered().config == registered.settings()
        assert inspect.getdoc(registered)

    def test_every_setting_has_a_default_and_a_meaning(self):
        for name, setting in AGENTS.load(self.kind).settings.model_fields.items():
            assert setting.description, name
            assert not setting.is_required(), name

    def test_a_misspelt_setting_gets_the_nearest(self):
        for name in AGENTS.load(self.kind).settings.model_fields:
            with pytest.raises(ConfigError, match=f"unknown key '{name}z'") as caught:
                build({"kind": self.kind, f"{name}z": 1})
            assert caught.value.fix == f"did you mean '{name}'?"

    # Same data, same seed, same bytes

    def test_fitting_again_with_the_same_seed_gives_the_same_bytes(self, trained):
        def fit():
            reports = []
            again = self.untrained().fit(Mixture(tiny()), seed=7, report=lambda *values: reports.append(values))
            return again, reports

        (again, reports), untouched = global_random.untouched(fit, 1)
        assert untouched
        assert everything(again) == everything(trained)
        before = self.model_steps
        assert [step for step, _, _ in reports if step > before] == [before + 5, before + 10, before + STEPS]
        assert {total for _, total, _ in reports} == {before + STEPS}
        assert all(np.isfinite(list(values.values())).all() for _, _, values in reports)

    def test_another_seed_gives_other_weights(self, trained):
        assert as_bytes(self.begun(seed=8).tensors()) != as_bytes(self.begun().tensors())
        assert as_bytes(self.begun().tensors()) != as_bytes(trained.tensors())

    @pytest.mark.parametrize("stop", [1, 5, 11])
    def test_a_resumed_training_ends_with_the_same_bytes(self, trained, tmp_path, stop):
        path = tmp_path / "agent.safetensors"
        self.begun().train(until=stop, checkpoint=path)
        resumed = self.begun()
        resumed.train(checkpoint=path)
        assert everything(resumed) == everything(trained)

    def test_a_training_in_pieces_equals_one_in_one_go(self, trained):
        agent = self.begun()
        for until in (0, 2, 3, 9, STEPS):
            agent.train(until=until)
            assert agent.steps == until
        assert everything(agent) == everything(trained)

    def test_checkpoints_of_other_runs_are_refused(self, trained, tmp_path):
        path = tmp_path / "agent.safetensors"
        trained.save(path)
        moved = Mixture(changed("rewards", lambda column: column + 1))
        rate = trained.config.learning_rate
        for other in (self.begun(seed=8), self.begun(moved), self.begun(learning_rate=2 * rate)):
            with pytest.raises(CheckpointError, match="another run"):
                other.train(checkpoint=path)

    def test_the_data_are_not_changed(self):
        mixture = self.mixed(share=0.25)
        before = as_bytes(mixture.real.transitions().columns), as_bytes(mixture.synthetic.columns)
        self.begun(mixture).train(until=2)
        assert (as_bytes(mixture.real.transitions().columns), as_bytes(mixture.synthetic.columns)) == before

    # Acting and saving

    def test_a_restored_agent_acts_the_same(self, trained):
        values, arrays = trained.state()
        json.dumps(values, allow_nan=False)
        assert all(type(array) is np.ndarray and array.dtype != object for array in arrays.values())
        restored = self.untrained()
        restored.restore_from(json.loads(json.dumps(values)), {name: array.copy() for name, array in arrays.items()})
        observations = tiny().episodes.observations[:50]
        assert act(restored, observations).tobytes() == act(trained, observations).tobytes()
        assert restored.steps == STEPS

    def test_the_first_of_its_actors_is_the_one_that_is_judged(self, trained):
        first, observations = next(iter(trained.actors().values())), tiny().episodes.observations[:10]
        first.reset(len(observations))
        actions = first.act(observations, np.random.default_rng(0))
        assert actions.tobytes() == act(trained, observations).tobytes()

    def test_what_is_saved_shares_no_memory_with_the_agent(self, trained):
        for array in trained.state()[1].values():
            array += 1
        observations = tiny().episodes.observations[:50]
        again = self.begun()
        again.train()
        assert act(again, observations).tobytes() == act(trained, observations).tobytes()

    def test_actions_are_inside_bounds_of_any_kind(self):
        low, high = np.float32([-2.0, 5.0]), np.float32([0.5, 6.0])
        action = Field(name="actions", shape=(2,), low=tuple(low.tolist()), high=tuple(high.tolist()), clip=True)
        moved = changed("actions", lambda column: (low + (high - low) * (column + 1) / 2).astype(np.float32))
        spec = moved.spec.replace(fields=transition_fields(4, action), environment=None)
        agent = self.begun(Mixture(Dataset(spec, moved.episodes)))
        agent.train(until=2)
        for factor in (1, 1e6):
            actions = act(agent, factor * moved.episodes.observations)
            assert actions.dtype == np.float32
            assert actions.shape == (len(moved), 2)
            assert (actions >= low).all()
            assert (actions <= high).all()
        assert np.ptp(actions, axis=0).min() > 0.1 * (high - low).min()

    def test_acting_does_not_depend_on_the_batch(self, trained):
        observations = tiny().episodes.observations[:30]
        together = act(trained, observations)
        assert np.allclose(act(trained, observations[::-1])[::-1], together, atol=1e-5)
        alone = np.concatenate([act(trained, row[None]) for row in observations])
        assert np.allclose(alone, together, atol=1e-5)
        assert np.ptp(together, axis=0).max() > 1e-3

    # What it refuses

    @pytest.mark.parametrize("column", ["observations", "actions", "rewards", "final"])
    @pytest.mark.parametrize("value", [np.nan, -np.inf])
    def test_numbers_that_are_not_finite_are_refused(self, column, value):
        name = "next_observations" if column == "final" else column
        with pytest.raises(SourceError, match=rf"'{name}'[^$]*1 rows"):
            self.begun(Mixture(changed(column, put(value))))

    def test_no_rows_are_refused(self):
        none = tiny().episodes.take(np.array([], int))
        with pytest.raises(SourceError, match="0 rows"):
            self.begun(Mixture(Dataset(tiny().spec, none)))

    def test_actions_that_are_classes_are_refused(self):
        action = Field(name="actions", kind="categorical", num_categories=3)
        moved = changed("actions", lambda column: (column[:, 0] > 0).astype(np.int64))
        spec = moved.spec.replace(fields=transition_fields(4, action), environment=None)
        with pytest.raises(SourceError, match="categorical"):
            self.begun(Mixture(Dataset(spec, moved.episodes)))

    # What it learns from

    def test_values_are_bootstrapped_at_time_limits_and_not_in_terminal_states(self):
        agent = self.begun(Mixture(twins()))
        if self.no_critics:
            assert not isinstance(agent, ValueLearner)
            return
        rows, last = agent.replay.all_real(), tiny().episodes.lengths[0] - 1
        beyond = agent.targets(rows) - rows.rewards
        terminal = torch.zeros(len(rows), dtype=torch.bool)
        terminal[last] = True
        assert (beyond[terminal] == 0).all()
        assert (beyond[~terminal].abs() > 1e-4).all()

    def test_rewards_reach_the_targets(self):
        if self.no_critics:
            return
        one, other = (self.begun(Mixture(twins()), scale_rewards=False) for _ in range(2))
        rows = one.replay.all_real()
        raised = other.targets(replace(rows, rewards=rows.rewards + 3))
        assert torch.allclose(raised - one.targets(rows), torch.tensor(3.0), atol=1e-4)

    @pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
    def test_every_batch_holds_the_same_share_of_synthetic_rows(self, share):
        agent = self.begun(self.mixed(share=share))
        for _ in range(5):
            for observations in self.sides(agent.replay.draw(agent.rng)).values():
                assert len(observations) == 16
                assert self.synthetic(agent, observations) == 16 * share

    @pytest.mark.parametrize("use_in", ["critic", "actor"])
    def test_synthetic_rows_can_be_kept_from_the_actor_or_the_critic(self, use_in):
        agent = self.begun(self.mixed(share=0.25, use_in=use_in))
        for side, observations in self.sides(agent.replay.draw(agent.rng)).items():
            assert self.synthetic(agent, observations) == (4 if side == use_in else 0)
            assert len(observations) == 16, "whoever sees no synthetic rows sees as many rows: arms have equal batches"
        agent.train(until=2)

    def test_a_share_of_zero_is_the_real_data_alone(self):
        arms = [self.begun(mixture) for mixture in (Mixture(tiny()), self.mixed(share=0.0))]
        for arm in arms:
            arm.train(until=2)
        assert as_bytes(arms[0].tensors()) == as_bytes(arms[1].tensors())

    def test_a_share_that_no_batch_can_hold_is_refused(self):
        with pytest.raises(ConfigError, match="too small"):
            self.begun(self.mixed(share=0.01))

    def test_synthetic_rows_without_episodes(self):
        single = Mixture(tiny(), far_episodes().transitions(), share=0.25)
        if self.no_single_rows:
            with pytest.raises(SourceError, match="episodes"):
                self.begun(single)
        else:
            self.begun(single).train(until=1)

    @staticmethod
    def synthetic(agent, observations):
        """How many of these observations, in model units, are far away."""
        here, there = (
            agent.scaling.observations(rows.observations).mean(axis=0) for rows in (tiny().episodes, far_episodes())
        )
        return int((observations[:, 0] > (here[0] + there[0]) / 2).sum())

    # Learning

    def test_it_learns(self):
        assert learned_return(self.kind, json.dumps(self.learner)) > random_return() + 15
