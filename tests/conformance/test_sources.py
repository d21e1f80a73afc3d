"""Every source passes the suite, in each format that it reads."""

import warnings

import gymnasium
import h5py
import minari
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from minari.data_collector import EpisodeBuffer
from source_suite import ForeignSourceTests, RecordedSourceTests, same_dataset

from synth_pipeline import store
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import StoreError
from synth_pipeline.export.d4rl_hdf5 import write_flat
from synth_pipeline.export.minari import write_minari
from synth_pipeline.sources.d4rl_hdf5 import KIND_ATTRIBUTE, D4RLSource
from synth_pipeline.sources.minari import MinariSource
from synth_pipeline.sources.npz import NpzSource
from synth_pipeline.sources.stored import StoreSource
from synth_pipeline.store import Plan, Schema

D4RL_NAMES = {"terminations": "terminals", "truncations": "timeouts"}


class FlatHdf5(ForeignSourceTests):
    left_out = ()
    attributes = {}  # noqa: RUF012

    def write(self, folder, truth):
        with h5py.File(folder / "data.hdf5", "w") as file:
            for name, column in truth.columns.items():
                if name not in self.left_out:
                    file[D4RL_NAMES.get(name, name)] = column
            file.attrs.update(self.attributes)
            file["infos/qpos"] = truth.observations
            file["metadata/algorithm"] = "SAC"
        return self.reopen(folder, None)

    def reopen(self, folder, source):
        return D4RLSource(folder / "data.hdf5", action_bounds=self.action_bounds)

    def misspell(self, folder):
        with h5py.File(folder / "data.hdf5", "a") as file:
            file.move("observations", "observation")


class TestD4RLWithNextObservations(FlatHdf5):
    pass


class TestD4RLWithoutNextObservations(FlatHdf5):
    left_out = ("next_observations",)
    exact_next = False
    action_bounds = None


class TestD4RLWithoutTimeouts(FlatHdf5):
    left_out = ("truncations",)


class TestFlatTransitions(FlatHdf5):
    attributes = {KIND_ATTRIBUTE: "transitions"}  # noqa: RUF012
    independent = True

    def expected(self, truth):
        return truth


class Npz(ForeignSourceTests):
    names = {}  # noqa: RUF012
    left_out = ()

    def write(self, folder, truth):
        columns = {self.names.get(k, k): v for k, v in truth.columns.items() if k not in self.left_out}
        np.savez(folder / "data.npz", **columns)
        return self.reopen(folder, None)

    def reopen(self, folder, source):
        return NpzSource(folder / "data.npz", action_bounds=self.action_bounds)

    def misspell(self, folder):
        with np.load(folder / "data.npz") as archive:
            columns = dict(archive)
        columns["observation"] = columns.pop("observations")
        np.savez(folder / "data.npz", **columns)


class TestNpz(Npz):
    pass


class TestNpzInD4RLNames(Npz):
    names = D4RL_NAMES
    left_out = ("next_observations",)
    exact_next = False
    action_bounds = None


class TestDict(ForeignSourceTests):
    action_bounds = None

    def write(self, folder, truth):
        self.arrays = {name: column.copy() for name, column in truth.columns.items()}
        return NpzSource(self.arrays)

    def reopen(self, folder, source):
        return NpzSource(self.arrays)

    def misspell(self, folder):
        self.arrays["observation"] = self.arrays.pop("observations")

    def test_fingerprint_changes_with_one_byte(self, source):
        before = source.fingerprint()
        self.arrays["rewards"].view(np.uint8)[17] ^= 1
        assert source.fingerprint() != before

    def test_arrays_are_left_as_they_were(self, source, truth):
        same_dataset(source.load(), source.load())
        for name, column in truth.columns.items():
            np.testing.assert_array_equal(self.arrays[name], column)


class Minari(ForeignSourceTests):
    data_format = "hdf5"
    dataset_id = "counter/known-v0"

    @pytest.fixture(autouse=True)
    def _root(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def observations(self, values):
        return values

    def space(self):
        return gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def write(self, folder, truth):
        buffers = [
            EpisodeBuffer(
                observations=self.observations(
                    np.concatenate([truth.observations[rows], truth.next_observations[rows][-1:]])
                ),
                actions=truth.actions[rows],
                rewards=truth.rewards[rows],
                terminations=truth.terminations[rows],
                truncations=truth.truncations[rows],
                infos={},
            )
            for rows in truth.episodes()
        ]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(`.*` is set to None|env_spec is None)", UserWarning)
            minari.create_dataset_from_buffers(
                self.dataset_id,
                buffers,
                observation_space=self.space(),
                action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
                data_format=self.data_format,
            )
        return MinariSource.from_id(self.dataset_id)

    def reopen(self, folder, source):
        return MinariSource(folder / self.dataset_id)

    def test_agrees_with_minari(self, source):
        episodes = source.load().episodes
        for index, theirs in enumerate(minari.load_dataset(self.dataset_id)):
            ours = episodes.take(np.array([index]))
            np.testing.assert_array_equal(
                np.concatenate([ours.observations, ours.final_observations]), self.flat(theirs.observations)
            )
            for name in ("actions", "rewards", "terminations"):
                np.testing.assert_array_equal(ours[name], getattr(theirs, name))

    def flat(self, values):
        return values


class TestMinariHdf5(Minari):
    def misspell(self, folder):
        with h5py.File(folder / self.dataset_id / "data" / "main_data.hdf5", "a") as file:
            for episode in file.values():
                episode.move("observations", "observation")


class TestMinariHdf5Dict(TestMinariHdf5):
    def space(self):
        box = gymnasium.spaces.Box
        return gymnasium.spaces.Dict(
            {"velocity": box(-np.inf, np.inf, (1,), np.float32), "place": box(-np.inf, np.inf, (2,), np.float64)}
        )

    def observations(self, values):
        return {"velocity": values[:, 2:], "place": values[:, :2].astype(np.float64)}

    def flat(self, values):
        return np.concatenate([values["place"], values["velocity"]], axis=1)

    def test_slices_of_the_keys_are_noted(self, source):
        assert source.load().spec.provenance["observation_slices"] == {"place": [0, 2], "velocity": [2, 3]}


class TestMinariArrow(Minari):
    data_format = "arrow"

    def misspell(self, folder):
        for file in (folder / self.dataset_id).rglob("*.arrow"):
            table = pyarrow.ipc.open_file(file.read_bytes()).read_all()
            table = table.rename_columns([name.replace("observations", "observation") for name in table.column_names])
            with pyarrow.ipc.new_file(str(file), table.schema) as writer:
                writer.write_table(table)


class TestMinariArrowDict(TestMinariArrow, TestMinariHdf5Dict):
    pass


class TestMinariParquet(Minari):
    data_format = "parquet"

    def misspell(self, folder):
        for file in (folder / self.dataset_id).rglob("*.parquet"):
            table = pyarrow.parquet.ParquetFile(file).read()
            names = [name.replace("observations", "observation") for name in table.column_names]
            pyarrow.parquet.write_table(table.rename_columns(names), file)


def known_spec():
    action = Field(name="actions", shape=(2,), low=(-1, -1), high=(1, 1), clip=True)
    return DatasetSpec(
        dataset_id="counter/known", fields=transition_fields(3, action), environment="toy-jumps", horizon=5
    )


class StoredData(RecordedSourceTests):
    kind = ""
    horizon = 5

    def rows(self, truth):
        raise NotImplementedError

    def write(self, folder, truth):
        url, schema = folder / "store", Schema(kind=self.kind, spec=known_spec())
        opened = store.create(url, schema, Plan(num_rows=len(truth.rewards), rows_per_shard=16, rows_per_chunk=16), {})
        with opened.writing() as session:
            (task,) = session.missing()
            store.write_shard(url, task, self.rows(truth))
            session.finalise()
        return StoreSource(url)

    def reopen(self, folder, source):
        return StoreSource(folder / "store")

    def test_an_altered_byte_is_refused(self, source, tmp_path):
        file = max((f for f in (tmp_path / "store").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
        data = bytearray(file.read_bytes())
        data[5] ^= 1
        file.write_bytes(data)
        with pytest.raises(StoreError):
            self.reopen(tmp_path, source).load()


class TestStoredTransitions(StoredData):
    kind = "transitions"
    independent = True

    def rows(self, truth):
        columns = {k: v for k, v in truth.columns.items() if k != "truncations"}
        return Transitions(columns)


class TestStoredTrajectories(StoredData):
    kind = "trajectories"

    def rows(self, truth):
        truth = self.expected(truth)
        columns = {k: v for k, v in truth.columns.items() if "observations" not in k}
        ends = truth.starts[1:] - 1
        return Episodes(truth.observations, truth.next_observations[ends], truth.starts, columns)


class FlatExport(RecordedSourceTests):
    """What our own export writes, read back."""

    kind = ""
    horizon = 5

    def write(self, folder, truth):
        truth = truth.changed("truncations", -1, True)
        rows = Transitions({**truth.columns, "synthetic": truth.rewards > 3})
        part = Dataset(known_spec(), rows=rows)
        write_flat(folder / "flat.hdf5", [part], spec=known_spec(), metadata={"recipe": "counting"}, kind=self.kind)
        return D4RLSource(folder / "flat.hdf5")

    def test_the_spec_and_the_provenance_of_rows_come_back(self, source, truth):
        dataset = source.load()
        assert dataset.spec == known_spec()
        np.testing.assert_array_equal(dataset.transitions()["synthetic"], truth.rewards > 3)

    def reopen(self, folder, source):
        return D4RLSource(next(folder.rglob("flat.hdf5")))


class TestFlatExportOfTransitions(FlatExport):
    kind = "transitions"
    independent = True


class TestFlatExportOfEpisodes(FlatExport):
    kind = "episodes"

    # An observation that is not finite does not chain, and the export refuses it already.
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("name", ["actions", "rewards"])
    def test_values_that_are_not_finite_are_refused(self, tmp_path, truth, name, value):
        super().test_values_that_are_not_finite_are_refused(tmp_path, truth, name, value)


class TestMinariExport(RecordedSourceTests):
    horizon = 5

    def write(self, folder, truth):
        truth = truth.changed("truncations", -1, True)
        columns = {k: v for k, v in truth.columns.items() if "observations" not in k}
        ends = truth.starts[1:] - 1
        episodes = Episodes(truth.observations, truth.next_observations[ends], truth.starts, columns)
        made = write_minari("counter/known-v0", spec=known_spec(), episodes=[episodes], root=folder, metadata={})
        return MinariSource(made)

    def reopen(self, folder, source):
        return MinariSource(folder / "counter/known-v0")

    def test_the_environment_comes_back(self, source):
        assert source.load().spec.environment == "toy-jumps"
