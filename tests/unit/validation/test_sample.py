"""Rows that were aimed at something are held against the data without their aim; nothing else moves."""

import numpy as np
import pytest
from toy_data import SPEC, toy_dataset

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.gate import Suite
from synth_pipeline.validation.sample import FEWEST, UNDONE, draw, importance, in_words
from synth_pipeline.validation.scorecard import DISTRIBUTIONS, METRICS, Reference, scorecard
from synth_pipeline.validation.truth import Truth

SUITE = Suite.parse(
    {
        "name": "alike",
        "rules": [
            {"metric": "marginals.worst", "floor_plus": 0.06},
            {"metric": "dependence.correlation", "floor_plus": 0.01},
            {"metric": "c2st.sa", "floor_plus": 0.1},
            {"metric": "coverage.rare", "floor_plus": 0.13},
            {"metric": "terminations.prevalence", "floor_plus": 0.15},
            {"metric": "novelty.nn_ratio_sa", "at_least": 0.9},
            {"metric": "novelty.nn_ratio_sa", "at_most": 1.2},
        ],
    }
)
LENGTHS, HELD_OUT = (25,) * 240, np.arange(24)
REAL = toy_dataset(LENGTHS)


def aimed(count=14_000, share=0.5, seed=5):
    """Fresh real rows, half of them from the last steps of episodes; `weight` undoes it, as a generator's does."""
    rows, rng = toy_dataset((25,) * 1_000, seed=1).transitions(), np.random.default_rng(seed)
    late = np.arange(len(rows)) % 25 >= 22
    ids = np.where(
        rng.random(count) < share, rng.choice(np.flatnonzero(late), count), rng.integers(len(rows), size=count)
    )
    weights = 1 / ((1 - share) + share * late[ids] / late.mean())
    return rows.take(ids).with_columns(weight=weights.astype(np.float32), row_id=np.arange(count))


def table(rows):
    return Dataset(SPEC, rows=rows)


def judged(rows, lengths=LENGTHS, seed=0):
    real = toy_dataset(lengths)
    fields = tuple(field for field in SPEC.fields if field.name != "truncations")
    reference = Reference(real, fields, fields, Truth(), HELD_OUT[: len(lengths) // 10], splits=5)
    return scorecard(table(rows), reference, SUITE, seed=seed)


def values(card):
    return {m["metric"]: m["value"] for m in card["measurements"]}


@pytest.fixture(scope="module")
def rows():
    return aimed()


@pytest.fixture(scope="module")
def undone(rows):
    return judged(rows)


@pytest.fixture(scope="module")
def as_they_are(rows):
    return judged(rows.take(slice(None)).with_columns(weight=np.ones(len(rows), np.float32)))


def test_what_was_asked_for_is_no_fault(undone, as_they_are):
    assert undone[0].failures() == []
    failed = {rule.metric for rule in as_they_are[0].failures()}
    assert {"marginals.worst", "terminations.prevalence"} <= failed
    assert 6_000 < undone[1][UNDONE]["left"] < 8_000
    assert undone[1][UNDONE]["drawn"] == 14_000
    assert UNDONE not in as_they_are[1]


def test_what_is_right_or_wrong_by_itself_is_judged_on_all_rows(rows, undone, as_they_are):
    mine, plain = values(undone[1]), values(as_they_are[1])
    assert tuple(mine) == tuple(name for name in METRICS if name != "contract.terminations")
    decided = {name for name in mine if mine[name] is not None}
    assert {name for name in decided - set(DISTRIBUTIONS) if mine[name] != plain[name]} == set()
    moved = {name for name in decided & set(DISTRIBUTIONS) if mine[name] != plain[name]}
    assert moved == decided & set(DISTRIBUTIONS)
    # A generator that copies only where it was aimed: that is an eighth of what is left, and more than half of all.
    train = toy_dataset(LENGTHS).transitions()
    late = rows["weight"] < 1
    ids = np.resize(np.arange(625, len(train)), len(rows))
    copies = {name: rows[name].copy() for name in train.columns}
    for name, column in copies.items():
        column[late] = train[name][ids][late]
    found = values(judged(rows.with_columns(**copies))[1])
    assert found["novelty.copies"] == pytest.approx(late.mean(), abs=0.02)


def test_a_result_repeats_and_no_row_does(rows, undone):
    assert judged(rows)[1] == undone[1]
    first, again, other = (draw(table(rows), 50_000, real=REAL, seed=seed).unaimed["row_id"] for seed in (0, 0, 1))
    assert (first == again).all()
    assert len(np.unique(first)) == len(first)
    assert set(first.tolist()) != set(other.tolist())


def test_rows_that_were_not_aimed_stay_as_they_are(rows):
    plain = rows.with_columns(weight=np.full(len(rows), 0.7, np.float32))
    for given in (plain, toy_dataset().transitions(), rows.take(slice(0, 0))):
        sample = draw(table(given), 50_000, real=REAL, seed=0)
        assert sample.unaimed is sample.rows
        assert sample.too_few is None
        assert sample.facts() == {}


def test_of_a_large_table_more_rows_are_drawn_so_that_as_many_are_left(rows):
    sample = draw(table(rows), 4_096, real=REAL, seed=0)
    assert len(sample.rows) == 4_096
    assert len(sample.unaimed) == pytest.approx(4_096, rel=0.06)
    assert sample.drawn < len(rows)


def test_where_too_few_rows_are_left_nothing_is_said_of_distributions(rows):
    verdict, card = judged(rows.take(slice(0, 1_000)))
    decided = {name for name, value in values(card).items() if value is not None}
    assert not decided & set(DISTRIBUTIONS)
    assert {"novelty.copies", "kinematics.outside", "contract.finite"} <= decided
    assert not verdict.passed  # the rules of this suite are no options
    assert card[UNDONE]["needed"] == 3_000  # a half of the real rows, which the floors are made of
    whys = {m["details"]["why"] for m in card["measurements"] if m["metric"] in ("c2st.sa", "novelty.nn_ratio_row")}
    assert len(whys) == 1
    assert "of 1,000 rows are left when the aim is undone, 3,000 are needed: generate more rows" in whys.pop()
    assert "distributions are not judged, since 3,000 rows are needed" in in_words(card)
    assert draw(table(rows), 50_000, real=toy_dataset((25,) * 1_000), seed=0).needed == FEWEST


def test_a_weight_that_is_no_weight_keeps_no_row(rows):
    wrong = np.array([1, 2, np.nan, np.inf, -3, 0], np.float32)
    assert importance(rows.take(slice(0, 6)).with_columns(weight=wrong)).tolist() == [1, 2, 0, 0, 0, 0]
    assert importance(rows.take(slice(0, 6)).with_columns(weight=wrong[:, None])) is None


def test_it_is_said_in_words():
    card = {UNDONE: {"drawn": 20_000, "left": 10_012, "needed": 5_000}, "store": {"aim": {"where": "near_terminal"}}}
    assert in_words(card) == (
        "Rows were aimed at near_terminal: distributions are judged on the 10,012 rows (of 20,000) that are left when "
        "the aim is undone by their weights. All else is judged on the rows as they are."
    )
    assert in_words({**card, "store": {}}).startswith("Rows were aimed: ")
    assert in_words({"store": {}}) is None


def test_a_weight_that_real_rows_have_too_is_a_column_like_any_other(rows):
    spec = SPEC.replace(fields=(*SPEC.fields, Field(name="weight")))
    weighed = {**REAL.transitions().columns, "weight": np.ones(len(REAL), np.float32)}
    sample = draw(table(rows), 50_000, real=Dataset(spec, rows=Transitions(weighed)), seed=0)
    assert sample.accepted is None
    assert sample.unaimed is sample.rows
