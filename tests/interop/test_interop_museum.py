"""The readers of others on a dataset of ours: what is wrong with them today.

Each test asserts the bug as it stands (d3rlpy 2.6.2, TorchRL 0.14.1), so that we notice when it is fixed and can
tell users to read Minari datasets directly. Our converters give the right answer on the same episodes.
"""

import re

import d3rlpy
import numpy as np
import pytest
from export_suite import SPEC, counter_episodes, counter_rows
from torchrl.data.datasets.minari_data import MinariExperienceReplay

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import transition_fields
from synth_pipeline.export.card import CardFacts, write_card
from synth_pipeline.export.converters import to_d3rlpy, to_torchrl
from synth_pipeline.export.d4rl_hdf5 import write_flat
from synth_pipeline.export.minari import write_minari

pytestmark = pytest.mark.interop


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Three episodes in pendulum's spaces, as a Minari dataset."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    action = Field(name="actions", shape=(1,), low=(-2.0,), high=(2.0,), clip=True)
    part = counter_episodes([3, 4, 2])
    part = Episodes(
        part.observations, part.final_observations, part.starts, {**part.columns, "actions": part["actions"][:, :1]}
    )
    spec = SPEC.replace(environment="pendulum", fields=transition_fields(3, action))
    write_minari("counter/pendulum-v0", spec=spec, episodes=[part], root=tmp_path, metadata={})
    return part


def test_d3rlpys_own_reader_shifts_observations_from_the_second_episode_on(exported):
    """It joins T + 1 observations with T actions, so episode e starts e rows too early."""
    dataset, _ = d3rlpy.datasets.get_minari("counter/pendulum-v0")
    found = [episode.observations[0, 0] for episode in dataset.buffer.episodes]
    assert found == [0.0, 3.0, 103.0]
    assert [episode.observations[0, 0] for episode in to_d3rlpy(exported).buffer.episodes] == [0.0, 100.0, 200.0]


def test_torchrls_own_reader_returns_zeros(exported, tmp_path):
    replay = MinariExperienceReplay(
        "counter/pendulum-v0", batch_size=4, root=tmp_path / "torchrl", load_from_local_minari=True
    )
    assert len(replay) == exported.num_rows
    assert not replay[:]["observation"].any()
    assert not replay[:]["next", "observation"].any()
    assert to_torchrl(exported)["observation"].any()


def test_one_step_episodes_are_no_transitions_to_d3rlpy():
    """A truncated episode of one step has no next state there, so the sample in a Minari export would be empty."""
    rows = counter_rows(5).with_columns(terminations=np.zeros(5, bool))
    dataset = d3rlpy.dataset.MDPDataset(
        rows["observations"], rows["actions"], rows["rewards"], terminals=np.zeros(5), timeouts=np.ones(5)
    )
    assert dataset.transition_count == 0
    assert to_d3rlpy(rows).transition_count == 5


def test_the_snippets_of_the_card_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = counter_rows(300)
    write_flat(tmp_path / "flat.hdf5", [Dataset(SPEC, rows=rows)], spec=SPEC, metadata={})
    facts = CardFacts(
        title="counter", spec=SPEC, rows={"rows": 300}, recipe={}, parents={}, verdicts=(), allow_failed=True,
        flat_file="flat.hdf5",
    )  # fmt: skip
    text = write_card(tmp_path / "README.md", facts).read_text()
    _, for_d3rlpy, for_torchrl = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict = {}
    exec(for_d3rlpy, found)
    assert found["dataset"].transition_count == 300
    exec(for_torchrl, found)
    batch = found["buffer"].sample()
    assert (batch["next", "observation"] == batch["observation"] + 1).all()
    assert isinstance(found["data"], dict)
    assert Transitions  # the name the snippets import
