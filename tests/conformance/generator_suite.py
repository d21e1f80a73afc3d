"""What every generator must do.

A new generator needs one line in `GENERATORS` and one class here:

    class TestMine(GeneratorTests):
        kind = "mine"
        quick = {"gradient_steps": 100}  # noqa: RUF012 (settings under which it fits in a second)

It is fitted on three small datasets: `mixed` (episodes without environment; a class, a flag and a constant beside the
usual columns), `rows` (no episodes, discrete actions) and `hopper` (an environment that knows its terminations).
"""

import contextlib
import inspect
import json
from dataclasses import dataclass

import global_random
import numpy as np
import pytest
import worker_tasks
from toy_data import random_episodes

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.data.split import split_dataset
from synth_pipeline.envs.base import dataset_fields
from synth_pipeline.envs.rollout import RandomActor, rollout
from synth_pipeline.errors import CheckpointError, ConfigError
from synth_pipeline.generators import GENERATORS
from synth_pipeline.generators.base import Generator, build, derived_fields, load, modelled_fields, save
from synth_pipeline.runs import read_json, write_json
from synth_pipeline.scale.local import map_tasks
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.marginals import column_scores

ROWS = 400
INFINITY = float("inf")


def mixed_dataset():
    """States are clipped into what the data hold, far from 0 in one component, so that differences are no states."""
    linear = random_episodes((60, 45, 1, 70, 50, 65, 40), seed=3)
    offset = np.array([5.0, 0.0, 0.0], np.float32)
    observations, final = linear.observations + offset, linear.final_observations + offset
    states = np.concatenate([observations, final])
    low, high = (tuple(map(float, edge(states, axis=0))) for edge in (np.min, np.max))
    rng = np.random.default_rng(3)
    action = Field(name="actions", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0), clip=True)
    extra = (
        Field(name="truncations", kind="binary"),
        Field(name="task_id", kind="categorical", num_categories=3),
        Field(name="contacts", shape=(2,), kind="binary"),
        Field(name="goal", low=(-INFINITY,), high=(INFINITY,)),
    )
    fields = tuple(
        field.replace(low=low, high=high, clip=True) if field.name.endswith("observations") else field
        for field in transition_fields(3, action, extra=extra)
    )
    columns = {
        **linear.columns,
        "task_id": rng.integers(0, 3, linear.num_rows),
        "contacts": linear.observations[:, :2] > 0.5,
        "goal": np.full(linear.num_rows, 2.5, np.float32),
    }
    return Dataset(
        DatasetSpec(dataset_id="toy/mixed", fields=fields), Episodes(observations, final, linear.starts, columns)
    )


def rows_dataset():
    """Column-major arrays, as readers may deliver them."""
    rows = random_episodes((60, 45, 70, 50), seed=4).transitions()
    actions = (rows["actions"][:, 0] > 0).astype(np.int64) + (rows["actions"][:, 1] > 0)
    fields = transition_fields(3, Field(name="actions", kind="categorical", num_categories=3))
    columns = {"actions": actions, "observations": np.asfortranarray(rows["observations"])}
    return Dataset(DatasetSpec(dataset_id="toy/rows", fields=fields), rows=rows.with_columns(**columns))


def hopper_dataset():
    model = envs.make("hopper")
    episodes = rollout(model, RandomActor(model.spec.action), episodes=40, seed=5)
    spec = DatasetSpec(dataset_id="hopper/random", fields=dataset_fields(model.spec), environment="hopper")
    return Dataset(spec, episodes)


DATASETS = {"mixed": mixed_dataset, "rows": rows_dataset, "hopper": hopper_dataset}


@dataclass(frozen=True)
class Case:
    """A generator fitted twice with one seed on the training part of one dataset."""

    whole: Dataset
    train: Dataset
    generator: Generator
    again: Generator
    data_before: list
    untouched: bool
    reports: list


def fit_twice(settings, whole):
    """The second time under other global random states, which a fit must neither read nor change."""
    train = split_dataset(whole, held_out=0.3, seed=1).train
    data = as_bytes(train.transitions().columns)
    generator = build(settings)
    generator.fit(train, seed=7)

    def fit_again():
        again, reports = build(settings), []
        again.fit(train, seed=7, report=lambda step, total, values: reports.append((step, total, dict(values))))
        return again, reports

    (again, reports), untouched = global_random.untouched(fit_again, 1)
    return Case(whole, train, generator, again, data, untouched, reports)


def draw(generator, rows=ROWS, seed=0, shard=0, attempt=0):
    return generator.sample(rows, stream(seed, Stage.GENERATE, shard, attempt))


def as_bytes(columns):
    """Name, type, shape and bytes of each column, in order."""
    return [(name, str(column.dtype), column.shape, column.tobytes()) for name, column in columns.items()]


class GeneratorTests:
    """What every generator must do.

    Attributes:
        kind: Name in the registry.
        quick: Settings under which a fit takes about a second.
    """

    kind: str
    quick = {}  # noqa: RUF012

    def made_from(self, sample: Transitions, source: Transitions, target: Transitions | None) -> None:
        """Override: how a row relates to the real rows that its provenance names."""

    @pytest.fixture(scope="class", params=list(DATASETS))
    @classmethod
    def case(cls, request):
        return fit_twice({"kind": cls.kind, **cls.quick}, DATASETS[request.param]())

    # What it is

    def test_it_says_what_it_is(self):
        generator, registered = build({"kind": self.kind, **self.quick}), GENERATORS.load(self.kind)
        assert type(generator) is registered
        assert generator.kind == self.kind
        assert isinstance(generator.config, registered.settings)
        assert registered().config == registered.settings()
        assert inspect.getdoc(registered)

    def test_every_setting_has_a_default_and_a_meaning(self):
        for name, setting in GENERATORS.load(self.kind).settings.model_fields.items():
            assert setting.description, name
            assert not setting.is_required(), name

    def test_a_misspelt_setting_gets_the_nearest(self):
        known = list(GENERATORS.load(self.kind).settings.model_fields) or ["x"]
        with pytest.raises(ConfigError, match=f"unknown key '{known[0]}z'") as caught:
            build({"kind": self.kind, f"{known[0]}z": 1})
        assert known == ["x"] or caught.value.fix == f"did you mean 'generator.{known[0]}'?"

    # Same address, same bytes

    def test_what_was_not_fitted_says_so(self):
        with pytest.raises(ConfigError, match="was not fitted"):
            build({"kind": self.kind, **self.quick}).sample(3, np.random.default_rng(0))

    def test_less_than_no_rows_is_an_error(self, case):
        with pytest.raises(ConfigError, match="0 or more"):
            case.generator.sample(-1, np.random.default_rng(0))

    def test_same_address_same_bytes(self, case):
        assert as_bytes(draw(case.generator).columns) == as_bytes(draw(case.generator).columns)

    @pytest.mark.parametrize("other", [{"seed": 1}, {"shard": 1}, {"attempt": 1}])
    def test_another_address_other_rows(self, case, other):
        assert as_bytes(draw(case.generator).columns) != as_bytes(draw(case.generator, **other).columns)

    def test_same_bytes_after_save_and_load(self, case, tmp_path):
        save(case.generator, tmp_path / "model", extra={"note": [1, "é"]})
        loaded, extra = load(tmp_path / "model")
        assert extra == {"note": [1, "é"]}
        assert loaded.config == case.generator.config
        for rows in (ROWS, 1):  # libraries of linear algebra treat a single row in their own way
            assert as_bytes(draw(loaded, rows).columns) == as_bytes(draw(case.generator, rows).columns)
        save(loaded, tmp_path / "again", extra={"note": [1, "é"]})
        for name in ("config.json", "state.json", "arrays.safetensors"):
            assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    def test_same_bytes_in_another_process(self, case, tmp_path):
        """Workers compute with one thread each, and so do these tests."""
        if case.whole.spec.dataset_id != "toy/mixed":
            pytest.skip("processes are slow to start: one dataset is enough")
        save(case.generator, tmp_path / "model", extra={})
        tasks = [(str(tmp_path / "model"), ROWS, 0, shard, 0) for shard in (0, 1)]
        for task, digest in map_tasks(worker_tasks.sample_digest, tasks, workers=1):
            assert digest == as_bytes(draw(case.generator, shard=task[3]).columns)

    def test_fitting_again_with_the_same_seed_gives_the_same(self, case):
        assert as_bytes(case.again.state()[1]) == as_bytes(case.generator.state()[1])
        assert case.again.state()[0] == case.generator.state()[0]
        assert as_bytes(draw(case.again).columns) == as_bytes(draw(case.generator).columns)

    def test_global_random_states_are_neither_read_nor_changed(self, case):
        samples = [global_random.untouched(lambda: as_bytes(draw(case.generator).columns), seed) for seed in (1, 2)]
        assert [case.untouched, *(untouched for _, untouched in samples)] == [True] * 3
        assert samples[0] == samples[1]

    def test_the_data_are_not_changed_and_samples_share_no_memory_with_the_model(self, case):
        assert as_bytes(case.train.transitions().columns) == case.data_before
        sample, kept = draw(case.generator), as_bytes(draw(case.generator).columns)
        for column in sample.columns.values():
            column.fill(0)
        assert as_bytes(draw(case.generator).columns) == kept

    # What leaves it

    @pytest.mark.parametrize("rows", [0, 1, 7])
    def test_any_number_of_rows(self, case, rows):
        sample = draw(case.generator, rows=rows)
        assert len(sample) == rows
        assert all(len(column) == rows for column in sample.columns.values())

    def test_columns_types_and_shapes(self, case):
        sample = draw(case.generator)
        fields = (*modelled_fields(case.whole.spec), *case.generator.provenance)
        assert list(sample.columns) == [field.name for field in fields]
        for field in fields:
            assert sample[field.name].dtype == field.dtype
            assert sample[field.name].shape == (ROWS, *field.shape)

    def test_values_are_finite_inside_bounds_and_classes_exist(self, case):
        sample = draw(case.generator)
        for field in modelled_fields(case.whole.spec):
            values = sample[field.name]
            assert np.isfinite(values).all()
            if field.clip:
                assert (values >= np.float32(field.low)).all()
                assert (values <= np.float32(field.high)).all()
            if field.num_categories:
                assert values.min() >= 0
                assert values.max() < field.num_categories

    def test_the_table_contract_holds(self, case):
        sample = draw(case.generator)
        fields = (*modelled_fields(case.whole.spec), *case.generator.provenance)
        broken = {m.metric: m.details for m in contract(Dataset(case.whole.spec, rows=sample), fields) if m.value}
        assert not broken

    def test_derived_terminations_are_those_of_the_environment(self, case):
        if "terminations" not in derived_fields(case.whole.spec):
            pytest.skip("no termination function is known")
        sample = draw(case.generator)
        known = envs.make(case.whole.spec.environment).terminated(sample["next_observations"])
        assert np.array_equal(sample["terminations"], known)

    def test_rows_differ(self, case):
        sample = draw(case.generator)
        assert len(np.unique(sample["observations"], axis=0)) > ROWS / 4
        assert len(np.unique(sample["rewards"])) > ROWS / 4

    def test_columns_look_more_real_than_a_standard_normal_guess(self, case):
        fields, real = modelled_fields(case.train.spec), case.train.transitions()
        rng = np.random.default_rng(0)
        guess = {
            f.name: rng.standard_normal((ROWS, *f.shape)).astype(f.dtype) for f in fields if f.kind == "continuous"
        }
        continuous = tuple(field for field in fields if field.name in guess)
        ours = column_scores(real, draw(case.generator), continuous)
        theirs = column_scores(real, Transitions(guess), continuous)
        assert np.mean(list(ours.values())) > np.mean(list(theirs.values())) + 0.1
        assert min(ours.values()) > 0.4, min(ours, key=ours.get)

    def test_flags_and_classes_are_about_as_frequent_as_in_the_data(self, case):
        real, sample = case.train.transitions(), draw(case.generator, rows=4000)
        for field in modelled_fields(case.train.spec):
            if field.kind == "binary":
                assert abs(sample[field.name].mean() - real[field.name].mean()) < 0.1
            if field.num_categories:
                shares = [np.bincount(rows[field.name], minlength=3) / len(rows) for rows in (real, sample)]
                assert np.abs(shares[0] - shares[1]).max() < 0.15

    def test_a_constant_column_stays_constant(self, case):
        if not case.whole.spec.has("goal"):
            pytest.skip("no constant column")
        assert np.array_equal(draw(case.generator)["goal"], np.full(ROWS, 2.5, np.float32))

    # Where it comes from

    def test_sources_are_training_rows(self, case):
        sample = draw(case.generator)
        for end in ("source", "target"):
            if f"{end}_episode" not in sample:
                continue
            episodes, steps = sample[f"{end}_episode"], sample[f"{end}_step"]
            assert (steps >= 0).all()
            if case.train.episodes is None:
                assert (episodes == -1).all()
                assert (steps < len(case.train)).all()
            else:
                assert np.isin(episodes, case.train.episode_ids).all()  # so nothing that is held out
                assert (steps < case.whole.episodes.lengths[episodes]).all()

    def test_provenance_names_the_right_rows(self, case):
        sample = draw(case.generator)
        if "source_episode" not in sample:
            pytest.skip("rows have no origin")
        source = self._origin(case, sample, "source")
        self.made_from(sample, source, self._origin(case, sample, "target") if "target_episode" in sample else None)

    @staticmethod
    def _origin(case, sample, end):
        """The real rows that a sample names, looked up in the whole dataset, not in the part that it was fitted on."""
        rows = sample[f"{end}_step"]
        if case.whole.episodes is not None:
            rows = rows + case.whole.episodes.starts[sample[f"{end}_episode"]]
        return case.whole.transitions().take(rows)

    # What can go wrong

    def test_progress_rises_to_the_total(self, case):
        steps = [step for step, _, _ in case.reports]
        assert steps == sorted(set(steps))
        assert all(np.isfinite(list(values.values())).all() for _, _, values in case.reports)
        assert not steps or steps[-1] == case.reports[-1][1]

    def test_an_interrupted_fit_goes_on_to_the_same_model(self, case, tmp_path):
        if case.whole.spec.dataset_id != "toy/rows":
            pytest.skip("one dataset is enough")

        class Interrupted(Exception):
            pass

        def interrupt(step, total, values):
            if 2 * step >= total:
                raise Interrupted

        settings = {"kind": self.kind, **self.quick}
        with contextlib.suppress(Interrupted):  # methods without progress simply finish
            build(settings).fit(case.train, seed=7, report=interrupt, checkpoint=tmp_path / "fit.state")
        resumed = build(settings)
        resumed.fit(case.train, seed=7, checkpoint=tmp_path / "fit.state")
        assert as_bytes(resumed.state()[1]) == as_bytes(case.generator.state()[1])

    def test_state_is_strict_json_and_arrays(self, case):
        values, arrays = case.generator.state()
        json.dumps(values, allow_nan=False)
        assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays.values())

    def refuses_what_is_incomplete(self, generator):
        """What `load` turns into a sentence; what is not there must not be taken for what is not needed."""
        values, arrays = generator.state()
        parts = [(values, {n: a for n, a in arrays.items() if n != missing}) for missing in arrays]
        parts += [({n: v for n, v in values.items() if n != missing}, arrays) for missing in values]
        for less in parts:
            with pytest.raises((CheckpointError, KeyError, TypeError, RuntimeError)):
                build({"kind": self.kind, **self.quick}).restore(*less)

    def test_a_damaged_model_is_refused(self, case, tmp_path):
        from safetensors.numpy import load_file, save_file

        folder = tmp_path / "model"
        save(case.generator, folder, extra={})
        with pytest.raises(ConfigError, match="exists already"):
            save(case.generator, folder, extra={})
        whole = (folder / "arrays.safetensors").read_bytes()
        arrays = load_file(folder / "arrays.safetensors")
        for name in arrays:
            save_file({other: array for other, array in arrays.items() if other != name}, folder / "arrays.safetensors")
            with pytest.raises(CheckpointError):
                load(folder)
        (folder / "arrays.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="damaged"):
            load(folder)
        (folder / "arrays.safetensors").write_bytes(whole)
        self.refuses_what_is_incomplete(case.generator)
        state = read_json(folder / "state.json")
        write_json(folder / "state.json", {"values": {}, "extra": {}})
        with pytest.raises(CheckpointError, match="train again"):
            load(folder)
        write_json(folder / "state.json", state)
        load(folder)
        (folder / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            load(folder)
