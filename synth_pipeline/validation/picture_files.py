"""Pictures as files: one SVG each, and `index.json` with their words and the digest of the rows that they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field as Setting

from synth_pipeline.config import Config, read_text
from synth_pipeline.runs import read_json, write_bytes, write_json

INDEX = "index.json"


class Picture(Config):
    """One picture and its words.

    Attributes:
        name: Of its file.
        title: What it shows.
        caption: How to read it, and what would be bad; or why it was not drawn.
        alt: What it shows, for those who cannot see it; empty when it was not drawn.
        svg: The picture; empty when it was not drawn.
    """

    name: str = Setting(pattern=r"^[a-z0-9_]+$", description="name of the file, without its suffix")
    title: str = Setting(description="what the picture shows")
    caption: str = Setting(description="how to read it, or why it was not drawn")
    alt: str = Setting("", description="what it shows, for those who cannot see it")
    svg: str = Setting("", description="the picture; empty: not drawn")


class _Index(Config):
    digest: str = Setting(description="digest of the rows that are shown")
    pictures: tuple[Picture, ...] = Setting(description="the words of every picture")


def write_pictures(folder: Path, drawn: Sequence[Picture], *, digest: str) -> None:
    """Write one SVG a picture, and last of all the index."""
    for picture in drawn:
        if picture.svg:
            write_bytes(folder / f"{picture.name}.svg", picture.svg.encode())
    words = [picture.replace(svg="").plain() for picture in drawn]
    write_json(folder / INDEX, {"digest": digest, "pictures": words})


def read_pictures(folder: Path, *, digest: str) -> list[Picture]:
    """The pictures of these rows; none when there are none, or only those of other rows.

    Raises:
        ConfigError: When the index is damaged, or a picture is missing.
    """
    path = folder / INDEX
    if not path.exists():
        return []
    values = read_json(path)
    index = _Index.parse(values if isinstance(values, dict) else {}, where=str(path))
    if index.digest != digest:
        return []
    drawn = [picture for picture in index.pictures if picture.alt]  # what was not drawn has none
    svg = {picture.name: read_text(folder / f"{picture.name}.svg") for picture in drawn}
    return [picture.replace(svg=svg.get(picture.name, "")) for picture in index.pictures]
