"""Every registered agent passes the suite."""

import json
import sys

from agent_suite import AgentTests, learned_return, random_return

from synth_pipeline.agents import AGENTS


def test_every_registered_agent_is_tested_here():
    tested = [c.kind for c in vars(sys.modules[__name__]).values() if isinstance(c, type) and hasattr(c, "kind")]
    assert sorted(tested) == AGENTS.names()


class TestBC(AgentTests):
    kind = "bc"
    no_critics = "it clones"


class TestPercentBC(AgentTests):
    kind = "percent_bc"
    no_critics = "it clones"
    no_single_rows = "episodes are picked by their return"


class TestTD3BC(AgentTests):
    kind = "td3_bc"


class TestIQL(AgentTests):
    kind = "iql"
    learner = {"gradient_steps": 300}  # noqa: RUF012


class TestAWAC(AgentTests):
    kind = "awac"


class TestCQL(AgentTests):
    kind = "cql"
    quick = {"sampled_actions": 2}  # noqa: RUF012
    learner = {"gradient_steps": 200, "sampled_actions": 4, "actor_learning_rate": 5e-3, "alpha": 1.0}  # noqa: RUF012


class TestOneStep(AgentTests):
    kind = "onestep"
    quick = {"behaviour_share": 0.25, "value_share": 0.5}  # noqa: RUF012
    learner = {  # noqa: RUF012
        "gradient_steps": 250,
        "behaviour_share": 0.5,
        "value_share": 0.2,
        "temperature": 0.3,
        "normalize_observations": True,
    }


class TestReBRAC(AgentTests):
    kind = "rebrac"
    learner = {"learning_rate": 1e-2, "actor_penalty": 0.5, "policy_delay": 1}  # noqa: RUF012


class TestDecisionTransformer(AgentTests):
    kind = "decision_transformer"
    quick = {"context": 4, "width": 64}  # noqa: RUF012
    learner = {"gradient_steps": 150, "batch_size": 16, "depth": 1, "context": 5, "return_scale": 0.01}  # noqa: RUF012
    no_critics = "it predicts actions"
    no_single_rows = "they have no return-to-go"

    @staticmethod
    def sides(batch):
        return {"actor": batch.observations[:, 0]}


class TestMOReL(AgentTests):
    kind = "morel"
    model_steps = 8
    quick = {  # noqa: RUF012
        "model": {"members": 2, "width": 16, "depth": 1, "trainer": {"gradient_steps": model_steps, "batch_size": 32}},
        "terminations": "never",
        "rollouts": 20,
        "rollout_length": 3,
        "refresh_every": 4,
        "kept_refreshes": 2,
        "model_share": 0.5,
    }
    learner = {  # noqa: RUF012
        "model": {"members": 2, "width": 48, "depth": 2, "trainer": {"gradient_steps": 200, "batch_size": 256}},
        "gradient_steps": 300,
        "actor_learning_rate": 5e-3,
        "target_rate": 0.05,
        "scale_rewards": True,
        "rollouts": 200,
        "refresh_every": 50,
        "model_share": 0.5,
    }

    @classmethod
    def begun(cls, data=None, seed=7, **settings):
        """Where rows of the data are told from synthetic ones, there are no imagined ones beside them."""
        if data is not None and data.synthetic is not None and data.share > 0:
            settings = {"model_share": 0.0, **settings}
        return super().begun(data, seed, **settings)


def test_the_better_half_of_the_data_is_worth_cloning_alone():
    """Half of the data are random: cloning all of it is better than random, cloning the best of it better still."""
    returns = [learned_return(test.kind, json.dumps(test.learner)) for test in (TestBC, TestPercentBC)]
    assert random_return() + 15 < returns[0] < returns[1] - 5
