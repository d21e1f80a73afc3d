"""Every exporter through the one suite, read back by the reader that others use."""

import h5py
import numpy as np
import pytest
from export_suite import COLUMNS, SPEC, ExportTests, counter_episodes, counter_rows

from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ExportError
from synth_pipeline.export.d4rl_hdf5 import write_flat
from synth_pipeline.export.minari import write_minari


class TestMinari(ExportTests):
    def write(self, folder, episodes, rows):
        return write_minari(
            "counter/mixed-v0", spec=SPEC, episodes=iter(episodes), one_step=iter(rows), root=folder, metadata={}
        )

    def read(self, folder, target):
        import minari

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", str(folder))
            assert list(minari.list_local_datasets()) == ["counter/mixed-v0"]
            episodes = list(minari.load_dataset("counter/mixed-v0"))
        assert target == folder / "counter" / "mixed-v0"
        return {
            "observations": np.concatenate([episode.observations[:-1] for episode in episodes]),
            "next_observations": np.concatenate([episode.observations[1:] for episode in episodes]),
            **{
                name: np.concatenate([getattr(episode, name) for episode in episodes])
                for name in ("actions", "rewards", "terminations")
            },
        }


class TestFlat(ExportTests):
    kind = "transitions"

    def write(self, folder, episodes, rows):
        parts = [Dataset(SPEC, episodes=part) for part in episodes] + [Dataset(SPEC, rows=part) for part in rows]
        return write_flat(folder / "flat.hdf5", parts, spec=SPEC, metadata={}, kind=self.kind)

    def read(self, folder, target):
        with h5py.File(target) as file:
            assert file.attrs["synth_pipeline_kind"] == self.kind
            names = {name: name for name in COLUMNS} | {"terminations": "terminals"}
            return {name: file[stored][:] for name, stored in names.items()}


class TestFlatEpisodes(TestFlat):
    kind = "episodes"

    def write(self, folder, episodes, rows):
        alone = [type(part)({**part.columns, "truncations": ~part.columns["terminations"]}) for part in rows]
        return super().write(folder, episodes, alone)

    @pytest.mark.parametrize("broken", [0, 2, 3])
    def test_rows_that_do_not_chain_are_refused(self, tmp_path, broken, monkeypatch):
        monkeypatch.setattr("synth_pipeline.export.d4rl_hdf5.CHUNK_ROWS", 3)
        episodes = counter_episodes([6])
        episodes["observations"][broken + 1] += 1
        rows = episodes.transitions().with_columns(next_observations=counter_episodes([6])["next_observations"])
        with pytest.raises(ExportError, match=rf"row {broken} does not end an episode"):
            super().write(tmp_path, [], [rows])

    def test_an_open_end_is_refused(self, tmp_path):
        rows = counter_episodes([6]).transitions().take(slice(0, 4))
        with pytest.raises(ExportError, match="row 3 does not end an episode"):
            super().write(tmp_path, [], [rows])

    def test_transitions_are_refused(self, tmp_path):
        with pytest.raises(ExportError, match="row 1 does not end an episode"):
            super().write(tmp_path, [], [counter_rows(4).with_columns(truncations=np.zeros(4, bool))])
