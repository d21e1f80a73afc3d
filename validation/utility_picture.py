"""Pictures of the study from its tables: what every arm does, case by case, against real rows alone.

    python validation/utility_picture.py            # results/utility.*.svg, of the studies that are there

A table that is not there yet is named as such.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synth_pipeline.evaluation.tables import BASELINE
from synth_pipeline.plots.evaluation import Point, paired_differences
from synth_pipeline.plots.style import to_svg
from synth_pipeline.runs import read_json

RESULTS = Path(__file__).resolve().parent / "results"
VALUES = "less error, in sd of the true values"
SCORE = "score of TD3+BC"
UNITS = {
    "utility.value_probe": VALUES,
    "utility.quality": VALUES,
    "utility.returns": SCORE,
    "utility.returns_longer": SCORE,
}


def differences(tables: dict[str, Any]) -> dict[str, dict[str, Point]]:
    """Arm -> case (kind of data, real rows) -> paired difference to real rows alone."""
    found: dict[str, dict[str, Point]] = {}
    for name, body in tables.items():
        for row in body["table"]:
            if row["arm"] != BASELINE:
                value, low, high = (row["difference"][part] for part in ("value", "low", "high"))
                found.setdefault(row["arm"], {})[f"{name}, {row['size']:,}"] = Point(value, low, high)
    return found


def main() -> None:
    """One picture a table."""
    for claim, unit in UNITS.items():
        path = RESULTS / f"{claim}.json"
        if not path.exists():
            print(f"{claim}: not measured yet")
            continue
        picture = RESULTS / f"{claim}.svg"
        picture.write_text(to_svg(paired_differences(differences(read_json(path)["details"]), unit=unit)))
        print(picture)


if __name__ == "__main__":
    main()
