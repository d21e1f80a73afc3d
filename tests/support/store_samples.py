"""Small stores whose every row follows from its task; worker processes import this too."""

from functools import partial

import numpy as np

from synth_pipeline import store
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.seeding import Stage
from synth_pipeline.store import Plan, Schema

FIELDS = transition_fields(3, Field(name="actions", shape=(2,)), extra=(Field(name="task_id", kind="token"),))
SPEC = DatasetSpec(dataset_id="toy/rows", fields=FIELDS)
# As few arrays as still make a dataset: against an S3 mock every file costs.
SMALL = DatasetSpec(
    dataset_id="toy/small",
    fields=tuple(field for field in FIELDS if field.name in ("observations", "rewards", "next_observations")),
)
TRANSITIONS = Schema(kind="transitions", spec=SPEC, provenance=store.provenance("source_episode", "weight"))
TRAJECTORIES = Schema(kind="trajectories", spec=SPEC, provenance=store.provenance("attempt"))
PLAN = Plan(num_rows=150, rows_per_shard=64, rows_per_chunk=16, seed=7)


def column(field, rows, rng):
    if field.kind == "binary":
        return rng.random((rows, *field.shape)) < 0.2
    if field.dtype.kind == "i":
        return rng.integers(0, 99, (rows, *field.shape), dtype=field.dtype)
    return rng.standard_normal((rows, *field.shape), dtype=np.float32)


def transitions(task, schema=TRANSITIONS):
    rng = task.rng(Stage.GENERATE)
    return Transitions({field.name: column(field, task.rows, rng) for field in schema.columns})


def episodes(task, schema=TRAJECTORIES, longest=9):
    """Whole episodes that fill the task exactly."""
    rng = task.rng(Stage.COLLECT)
    lengths = []
    while sum(lengths) < task.rows:
        lengths.append(min(int(rng.integers(1, longest + 1)), task.rows - sum(lengths)))
    fields = {field.name: field for field in schema.columns}
    columns = {name: column(field, task.rows, rng) for name, field in fields.items()}
    observations = columns.pop("observations")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Episodes(observations, column(fields["observations"], len(lengths), rng), starts, columns)


def rows_for(schema):
    return partial(episodes if schema.kind == "trajectories" else transitions, schema=schema)


def write_task(argument):
    """What a worker process does: `(url, task, schema)`, or with storage options as a fourth."""
    url, task, schema, *options = argument
    return store.write_shard(
        url, task, rows_for(schema)(task), storage_options=options[0] if options else None, sidecar={"seconds": 0.5}
    )


def build(url, schema=TRANSITIONS, plan=PLAN, config=None, order=None, **options):
    """A complete, finalised store."""
    target = store.create(url, schema, plan, config or {"generator": "toy"}, **options)
    with target.writing() as session:
        tasks = session.missing()
        for index in order if order is not None else range(len(tasks)):
            store.write_shard(url, tasks[index], rows_for(schema)(tasks[index]), **options)
        session.finalise()
    return target


def expected(schema, plan):
    """What `read_all` must give."""
    parts = [rows_for(schema)(plan.task(shard)) for shard in range(plan.num_shards)]
    names = [field.name for field in schema.readable]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def same_columns(found, wanted):
    assert set(found.columns) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def files(folder):
    """Every file that the recipe decides: not the notes on who wrote it."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("sidecar")}
