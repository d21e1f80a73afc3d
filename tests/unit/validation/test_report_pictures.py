"""Pictures: inside the page, back from their files, drawn from what is known and otherwise saying why not."""

import base64

import numpy as np
import pytest
from report_pages import DRAWN, Page, card, measurement
from toy_data import SPEC, toy_dataset, toy_rows

from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ConfigError
from synth_pipeline.validation import pictures as gathering
from synth_pipeline.validation.metric import Floor
from synth_pipeline.validation.picture_files import INDEX, Picture, read_pictures, write_pictures
from synth_pipeline.validation.pictures import PICTURES, pictures
from synth_pipeline.validation.report import render

MISSING = Picture(name="b", title="Second", caption="nobody looked")


def test_pictures_are_inside_the_page_and_what_was_not_drawn_says_why():
    html = render(card(measurement()), title="Mine", pictures=[DRAWN, MISSING])
    page = Page(html)
    (source,) = page.links
    assert base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")) == b"<svg>1</svg>"
    assert "Good: <b>" in page.words
    assert 'alt="&quot;x&quot; &amp; y"' in html
    assert page.words.index("No picture “Second”: nobody looked.") > page.words.index("Not checked")
    assert page.words.index("Judged") < page.words.index("First") < page.words.index("Not checked")


def test_a_page_without_pictures_says_so():
    assert "There are none of this state of the store" in Page(render(card(measurement()), title="Mine")).words


def test_pictures_come_back_from_their_files_only_for_the_rows_that_they_show(tmp_path):
    folder = tmp_path / "pictures"
    assert read_pictures(folder, digest="d") == []
    write_pictures(folder, [DRAWN, MISSING], digest="d")
    assert read_pictures(folder, digest="d") == [DRAWN, MISSING]
    assert (folder / "a.svg").read_text() == DRAWN.svg
    assert read_pictures(folder, digest="e") == []
    (folder / "a.svg").unlink()
    with pytest.raises(ConfigError, match=r"a\.svg"):
        read_pictures(folder, digest="d")


@pytest.mark.parametrize("text", ["3", "[]", "{}", '{"digest": "d", "pictures": [{"name": "../x"}]}', "{"])
def test_a_damaged_index_is_refused(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ConfigError):
        read_pictures(tmp_path, digest="d")


def drawn(real, synthetic, *measurements, fields=SPEC.fields, only=tuple(PICTURES), **options):
    values = {"measurements": [m.to_json() for m in measurements]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "PICTURES", {name: PICTURES[name] for name in only})
        return {picture.name: picture for picture in pictures(real, synthetic, values, fields, **options)}


def judged():
    """Measurements with the details that the pictures of dynamics are made from."""
    fifths = [{"up_to": None, "rows": 200, "mean": 0.1, "p99": 0.5}] * 5
    by_component = {"next_observations[0]": 0.1, "next_observations[1]": 0.4}
    return (
        measurement("oracle.mean", 0.1, columns=by_component, error_by_novelty=fifths, floor=Floor(1e-12, 1e-12)),
        measurement("oracle.p99", 0.3, columns=by_component),
        measurement("trajectories.returns", 0.1, steps=8),
        measurement(
            "trajectories.error_growth", 0.1, curve={"1": 0.1, "8": 0.5}, **{"real curve": {"1": 1e-9, "8": 1e-8}}
        ),
    )


@pytest.fixture(scope="module")
def everything():
    real, fresh = toy_dataset(), toy_dataset(seed=1)
    controls = {"smote": [{"rows": 5, "mean": 0.2}] * 5}
    return drawn(real, fresh.transitions(), *judged(), controls=controls, episodes=fresh.episodes, name="mine")


def test_everything_is_drawn_where_everything_is_known(everything):
    assert list(everything) == list(PICTURES)
    for picture in everything.values():
        assert picture.svg.startswith("<?xml")
        assert picture.alt
        assert "Bad" in picture.caption
    assert everything["novelty"].alt == "Error against novelty for mine, smote"
    assert "mine no lower than smote" in everything["novelty"].caption
    assert "return of 8 steps" in everything["rewards"].alt


def test_pictures_are_the_same_every_time(everything):
    real, fresh, only = toy_dataset(), toy_dataset(seed=1), ("embedding", "terminations", "rewards", "trajectories")
    again = drawn(real, fresh.transitions(), *judged(), episodes=fresh.episodes, only=only)
    assert again == {name: everything[name] for name in only}


def test_what_is_not_known_is_not_drawn_and_says_why():
    found = drawn(toy_rows(), toy_rows(seed=1).transitions())
    missing = {name: picture.caption for name, picture in found.items() if not picture.svg}
    assert set(missing) == {"components", "novelty", "growth", "trajectories"}
    assert all(missing.values())
    assert "half of the real episodes" not in found["embedding"].caption


def test_numbers_in_the_captions_are_those_of_the_rows():
    real, only = toy_dataset((300, 300)), ("correlation", "embedding", "rewards")
    rows = real.transitions()
    same = drawn(real, rows, only=only)
    assert "The largest difference is 0.000" in same["correlation"].caption
    assert "no real row does: 0.0\u00a0% of the synthetic rows (half of the real episodes" in same["embedding"].caption
    moved = rows.with_columns(observations=rows["observations"] + 100, rewards=-rows["rewards"])
    other = drawn(real, moved, only=only)
    assert "100.0\u00a0% of the synthetic rows" in other["embedding"].caption
    stacked = [np.column_stack([side[field.name] for field in SPEC.fields]).astype(float) for side in (rows, moved)]
    largest = np.abs(np.subtract(*(np.corrcoef(x, rowvar=False) for x in stacked))).max()
    assert f"The largest difference is {largest:.3f}" in other["correlation"].caption
    top = [np.quantile(side["rewards"].astype(float), 0.95) for side in (rows, moved)]
    assert f"begin at {top[0]:.3g} in real and at {top[1]:.3g} in synthetic" in other["rewards"].caption


@pytest.mark.parametrize("poison", [np.nan, -1e38])
def test_rows_that_are_not_finite_or_huge_stop_no_picture(poison):
    real, rows = toy_dataset(), toy_dataset(seed=1).transitions()
    columns = {}
    for name in ("observations", "actions", "rewards", "next_observations"):
        columns[name] = rows[name].copy()
        columns[name][::3] = poison
    only = ("marginals", "correlation", "embedding", "terminations", "rewards")
    found = drawn(real, rows.with_columns(**columns), only=only)
    assert all(found[name].svg for name in only)
    lost = rows.with_columns(**{name: np.full_like(column, np.nan) for name, column in columns.items()})
    lost = drawn(real, lost, only=only[1:])
    assert not any(picture.svg for picture in lost.values())


def test_no_rows_and_broken_columns_have_no_picture():
    real = toy_dataset()
    broken = measurement("contract.schema", 2.0, direction="lower")
    empty = Dataset(SPEC, rows=real.transitions().take(slice(0, 0)))
    for found in (
        drawn(real, real.transitions().take(slice(0, 0))),
        drawn(empty, real.transitions()),
        drawn(real, real.transitions(), broken),
    ):
        assert list(found) == list(PICTURES)
        assert not any(picture.svg for picture in found.values())
        assert all(picture.caption for picture in found.values())


def test_many_columns_leave_those_that_agree_least(monkeypatch):
    monkeypatch.setattr(gathering, "MOST", 4)
    scores = {f"observations[{i}]": 0.9 for i in range(3)} | {"actions[0]": 0.1, "rewards": 0.2}
    real = toy_dataset()
    found = drawn(real, real.transitions(), measurement(columns=scores), only=("marginals",))["marginals"]
    assert "Of 10 columns, the 4 that agree least." in found.caption
    assert "of 4 columns" in found.alt
    assert all(f"<!-- {name} -->" in found.svg for name in ("actions[0]", "rewards", "observations[0]"))
    assert "<!-- actions[1] -->" not in found.svg
