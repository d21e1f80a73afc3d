"""What every source must do.

`SourceTests` asks for the fixture `source` and holds for any source. `RecordedSourceTests` asks for `write`, which puts
a known dataset into a folder in the source's format, and checks every number that comes back; `ForeignSourceTests`
adds what can happen to files that other programs write.
"""

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import SourceError
from synth_pipeline.sources.base import Source

LENGTHS = (5, 4, 1, 3, 2)
DESCRIBED = {"id", "kind", "path", "bytes", "rows", "episodes", "observation_size", "action_size", "environment"}


@dataclass(frozen=True)
class Truth:
    """A dataset whose every value says where it stands: observation of episode e and step t is 100 e + t."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    starts: np.ndarray

    @property
    def columns(self):
        return {name: value for name, value in vars(self).items() if name != "starts"}

    def episodes(self):
        """Slices of rows, episode by episode."""
        return [slice(int(a), int(b)) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]

    def changed(self, name, row, value):
        column = getattr(self, name).copy()
        column[row] = value
        return replace(self, **{name: column})


def observation(episode, step):
    value = 100.0 * episode + step
    return np.array([value, value + 0.25, -value], np.float32)


def counter_truth():
    """Five episodes: terminated, truncated, terminated after one step, truncated, and one that just stops."""
    rows = sum(LENGTHS)
    steps = [(e, t) for e, length in enumerate(LENGTHS) for t in range(length)]
    starts = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    terminations, truncations = np.zeros(rows, bool), np.zeros(rows, bool)
    terminations[starts[[1, 3]] - 1] = True
    truncations[starts[[2, 4]] - 1] = True
    index = np.arange(rows, dtype=np.float32)
    return Truth(
        np.stack([observation(e, t) for e, t in steps]),
        np.stack([index / 16, -index / 16], axis=1),
        index + 0.5,
        np.stack([observation(e, t + 1) for e, t in steps]),
        terminations,
        truncations,
        starts,
    )


def tree(folder):
    """Every file under a folder with the hash of its contents."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def same_dataset(left, right):
    a, b = left.transitions(), right.transitions()
    assert left.spec == right.spec
    assert list(a.columns) == list(b.columns)
    for name in a.columns:
        np.testing.assert_array_equal(a[name], b[name])


class SourceTests:
    """Any source."""

    def test_follows_the_protocol(self, source):
        assert isinstance(source, Source)

    def test_describes_itself_in_plain_json(self, source):
        facts = source.describe()
        assert set(facts) >= DESCRIBED | {"horizon"}
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts

    def test_describes_what_it_loads(self, source):
        facts, dataset = source.describe(), source.load()
        assert facts["id"] == dataset.spec.dataset_id
        assert facts["observation_size"] == dataset.spec.observation_size
        assert facts["action_size"] == dataset.spec.action_size
        assert facts["environment"] == dataset.spec.environment
        assert facts["horizon"] == dataset.spec.horizon
        if facts["episodes"] is not None:
            assert facts["episodes"] == len(dataset.episodes)
            assert facts["rows"] == len(dataset)

    def test_columns_are_those_of_the_spec(self, source):
        dataset = source.load()
        rows = dataset.transitions()
        for field in dataset.spec.fields:
            assert rows[field.name].shape == (len(dataset), *field.shape)
            assert rows[field.name].dtype == field.dtype

    def test_spec_survives_json(self, source):
        spec = source.load().spec
        assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec

    def test_values_are_finite_and_inside_their_bounds(self, source):
        dataset = source.load()
        rows = dataset.transitions()
        for field in dataset.spec.fields:
            assert np.isfinite(rows[field.name]).all()
            np.testing.assert_array_equal(field.clipped(rows[field.name]), rows[field.name])

    def test_episodes_end_where_their_flags_say(self, source):
        dataset = source.load()
        if dataset.episodes is None:
            assert dataset.rows is not None
            return
        episodes = dataset.episodes
        ended = episodes["terminations"] | episodes["truncations"]
        np.testing.assert_array_equal(np.flatnonzero(ended), episodes.starts[1:] - 1)
        assert episodes["terminations"].dtype == episodes["truncations"].dtype == np.bool_

    def test_loads_the_same_twice(self, source):
        same_dataset(source.load(), source.load())

    def test_fingerprint_is_a_stable_hash(self, source):
        first = source.fingerprint()
        assert len(first) == 64
        assert int(first, 16) >= 0
        assert source.fingerprint() == first


class RecordedSourceTests(SourceTests):
    """A source that reads what somebody wrote."""

    independent = False
    exact_next = True  # whether the format holds the state after the last step of an episode
    action_bounds = (-1.0, 1.0)  # None: the format states none
    horizon = None

    def write(self, folder, truth):
        """Put the truth into `folder` and return a source of it."""
        raise NotImplementedError

    def reopen(self, folder, source):
        """A new source over files that were copied to, or changed in, `folder`."""
        raise NotImplementedError

    @pytest.fixture
    def truth(self):
        return counter_truth()

    @pytest.fixture
    def source(self, tmp_path, truth):
        return self.write(tmp_path, truth)

    def expected(self, truth):
        """What of the truth the format can carry: the trailing episode counts as truncated."""
        truth = truth.changed("truncations", -1, True)
        if self.exact_next:
            return truth
        kept = ~truth.truncations
        final = truth.terminations | np.concatenate([truth.truncations[1:], [False]])
        columns = {name: column[kept] for name, column in truth.columns.items()}
        columns["truncations"] = (final & ~truth.terminations)[kept]
        ends = truth.terminations[kept]
        columns["next_observations"][ends] = columns["observations"][ends]
        return Truth(**columns, starts=np.concatenate([[0], np.flatnonzero(final[kept]) + 1]))

    def test_every_transition_comes_back(self, source, truth):
        expected, rows = self.expected(truth), source.load().transitions()
        for name, column in expected.columns.items():
            if name in rows:
                np.testing.assert_array_equal(rows[name], column, err_msg=name)
        assert set(rows.columns) >= {"observations", "actions", "rewards", "next_observations", "terminations"}

    def test_episode_boundaries_come_back(self, source, truth):
        dataset = source.load()
        if self.independent:
            assert dataset.episodes is None
            return
        assert isinstance(dataset.episodes, Episodes)
        np.testing.assert_array_equal(dataset.episodes.starts, self.expected(truth).starts)
        np.testing.assert_array_equal(dataset.transitions()["truncations"], self.expected(truth).truncations)

    def test_no_transition_crosses_an_episode(self, source):
        rows = source.load().transitions()
        episode, following = rows["observations"][:, 0] // 100, rows["next_observations"][:, 0] // 100
        np.testing.assert_array_equal(episode, following)

    def test_spec_states_sizes_bounds_and_horizon(self, source):
        spec = source.load().spec
        assert (spec.observation_size, spec.action_size) == (3, 2)
        assert spec.horizon == self.horizon
        action = spec.field("actions")
        assert action.clip
        if self.action_bounds is None:
            assert spec.provenance["action_bounds"] == "observed"
        else:
            assert action.low == (self.action_bounds[0],) * 2
            assert action.high == (self.action_bounds[1],) * 2

    def test_files_are_left_as_they_were(self, source, tmp_path):
        before = tree(tmp_path)
        source.describe()
        source.load()
        source.fingerprint()
        assert tree(tmp_path) == before

    def test_fingerprint_depends_on_contents_only(self, source, truth, tmp_path):
        copy = tmp_path / "elsewhere and again"
        copy.mkdir()
        for name, digest in tree(tmp_path).items():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((tmp_path / name).read_bytes())
            assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
        assert self.reopen(copy, source).fingerprint() == source.fingerprint()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
    def test_values_that_are_not_finite_are_refused(self, tmp_path, truth, name, value):
        source = self.write(tmp_path, truth.changed(name, 6, value))
        with pytest.raises(SourceError, match=rf"column '{name}' holds NaN or inf(?s:.*)1 of .* first in row 6"):
            source.load()


class ForeignSourceTests(RecordedSourceTests):
    """A source of files that other programs write: columns may be misspelt, and a fingerprint is all there is."""

    def misspell(self, folder):
        """Rename the column 'observations' of what `write` wrote to 'observation'."""
        raise NotImplementedError

    def test_fingerprint_changes_with_one_byte(self, source, tmp_path):
        before = source.fingerprint()
        file = max((f for f in tmp_path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        assert self.reopen(tmp_path, source).fingerprint() != before

    def test_a_misspelt_column_gets_the_right_name(self, source, tmp_path):
        self.misspell(tmp_path)
        with pytest.raises(SourceError, match="has no column 'observations'") as caught:
            self.reopen(tmp_path, source).load()
        assert "did you mean 'observations' by 'observation'?" in str(caught.value)
