"""What every exporter must keep: exact content, whole or not at all, never over something that exists."""

import errno
import os
from abc import ABC, abstractmethod

import numpy as np
import pytest

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import ExportError, ResourceError
from synth_pipeline.export import hdf5

ACTION = Field(name="actions", shape=(2,), low=(-1e6, -1e6), high=(1e6, 1e6), clip=True)
SPEC = DatasetSpec(dataset_id="counter", fields=transition_fields(3, ACTION), reference_min=0.0, reference_max=10.0)


def counter_episodes(lengths, first=0):
    """Episodes that count: the state of episode e at step t is 100 e + t, the action its negative, the reward t.

    Even episodes terminate, odd ones reach a time limit.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.repeat(np.arange(len(lengths)), lengths) + first
    steps = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    count = (100 * ids + steps).astype(np.float32)
    final = (100 * (np.arange(len(lengths)) + first) + np.asarray(lengths)).astype(np.float32)
    ends = np.zeros(starts[-1], bool)
    ends[starts[1:] - 1] = True
    return Episodes(
        observations=count[:, None] + np.float32([0.0, 0.25, 0.5]),
        final_observations=final[:, None] + np.float32([0.0, 0.25, 0.5]),
        starts=starts,
        columns={
            "actions": -count[:, None] + np.float32([0.0, 0.5]),
            "rewards": steps.astype(np.float32),
            "terminations": ends & (ids % 2 == 0),
            "truncations": ends & (ids % 2 == 1),
        },
    )


def counter_rows(count, first=0):
    """Independent rows: s = 10 i, s' = 10 i + 1, a = -s; every third terminates."""
    state = (10.0 * (np.arange(count) + first)).astype(np.float32)
    return Transitions(
        {
            "observations": state[:, None] + np.float32([0.0, 0.25, 0.5]),
            "actions": -state[:, None] + np.float32([0.0, 0.5]),
            "rewards": np.arange(count, dtype=np.float32),
            "next_observations": state[:, None] + np.float32([1.0, 1.25, 1.5]),
            "terminations": np.arange(count) % 3 == 0,
        }
    )


FALLOCATE = os.posix_fallocate
COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations")


class ExportTests(ABC):
    """Inherit, and say how to write and how to read with somebody else's reader."""

    @abstractmethod
    def write(self, folder, episodes, rows):
        """Write parts of episodes and of rows below `folder`; returns the target."""

    @abstractmethod
    def read(self, folder, target):
        """All rows as a dict of the five columns, in order."""

    def test_episodes_round_trip_exactly(self, tmp_path):
        parts = [counter_episodes([3, 1, 5]), counter_episodes([2, 40], first=3)]
        target = self.write(tmp_path, parts, [])
        found = self.read(tmp_path, target)
        self.same(found, [part.transitions() for part in parts])

    def test_rows_round_trip_exactly(self, tmp_path):
        parts = [counter_rows(7), counter_rows(1, first=7)]
        target = self.write(tmp_path, [], parts)
        self.same(self.read(tmp_path, target), parts)

    def test_episodes_and_rows_round_trip_together(self, tmp_path):
        episodes, rows = counter_episodes([4, 2]), counter_rows(5)
        target = self.write(tmp_path, [episodes], [rows])
        self.same(self.read(tmp_path, target), [episodes.transitions(), rows])

    def test_not_a_number_round_trips(self, tmp_path):
        rows = counter_rows(3)
        rows["rewards"][1] = np.nan
        target = self.write(tmp_path, [], [rows])
        self.same(self.read(tmp_path, target), [rows])

    def test_an_existing_target_is_refused_and_kept(self, tmp_path):
        self.write(tmp_path, [counter_episodes([3])], [])
        before = contents(tmp_path)
        with pytest.raises(ExportError, match="exists already"):
            self.write(tmp_path, [counter_episodes([9])], [])
        assert contents(tmp_path) == before

    def test_nothing_to_export_is_an_error(self, tmp_path):
        with pytest.raises(ExportError, match="nothing to export"):
            self.write(tmp_path, [], [])
        assert contents(tmp_path) == {}

    def test_an_exception_in_a_source_leaves_nothing(self, tmp_path):
        with pytest.raises(RuntimeError, match="the shard is gone"):
            self.write(tmp_path, [counter_episodes([3, 4])], [counter_rows(4), Vanishing(counter_rows(4).columns)])
        assert contents(tmp_path) == {}

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
    def test_a_disk_that_fills_up_leaves_nothing(self, tmp_path, monkeypatch, number):
        """Every request for space fails once, in turn."""
        monkeypatch.setattr(hdf5, "STEP_BYTES", 1)
        sound = FaultyDisk(monkeypatch, failing=None)
        self.write(tmp_path / "sound", [counter_episodes([3])], [counter_rows(3)])
        assert sound.requests > 1
        for failing in range(sound.requests):
            FaultyDisk(monkeypatch, failing, number)
            with pytest.raises(ResourceError if number == errno.ENOSPC else OSError):
                self.write(tmp_path / "faulty", [counter_episodes([3])], [counter_rows(3)])
            assert contents(tmp_path / "faulty") == {}

    def test_a_disk_that_cannot_keep_the_file_leaves_nothing(self, tmp_path, monkeypatch):
        def failing(descriptor):
            raise OSError(errno.EIO, "injected")

        monkeypatch.setattr("os.fsync", failing)
        with pytest.raises(OSError, match="injected"):
            self.write(tmp_path, [counter_episodes([3])], [])
        assert contents(tmp_path) == {}

    def test_a_bit_that_flips_on_the_way_is_noticed(self, tmp_path, monkeypatch):
        trim = hdf5.Writer.trim

        def flip(writer, size):
            (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
            data = bytearray(path.read_bytes())
            data[data.index(np.float32(100.0).tobytes())] ^= 1
            path.write_bytes(data)
            trim(writer, size)

        monkeypatch.setattr(hdf5.Writer, "trim", flip)
        with pytest.raises(ExportError, match="does not read back as written"):
            self.write(tmp_path, [counter_episodes([3, 4])], [])
        assert contents(tmp_path) == {}

    def same(self, found, parts):
        for name in COLUMNS:
            expected = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
            assert found[name].dtype == expected.dtype, name


class FaultyDisk:
    """Counts the requests for space, and refuses one of them."""

    def __init__(self, monkeypatch, failing, number=errno.ENOSPC):
        self.requests, self.failing, self.number = 0, failing, number
        monkeypatch.setattr("os.posix_fallocate", self.reserve)

    def reserve(self, descriptor, offset, length):
        self.requests += 1
        if self.requests - 1 == self.failing:
            raise OSError(self.number, "injected")
        FALLOCATE(descriptor, offset, length)


class Vanishing(Transitions):
    """Rows whose source disappears when more than the first of them is read."""

    def __getitem__(self, name):
        raise RuntimeError("the shard is gone")

    def take(self, rows):
        if rows != slice(0, 1):
            raise RuntimeError("the shard is gone")
        return super().take(rows)


def contents(folder):
    """Every file below a folder with its bytes, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
