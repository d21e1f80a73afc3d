"""What each choice of SynthER's default is worth, on hopper: `synther.ablation`.

    python benchmarks/synther_ablation.py
    python benchmarks/synther_ablation.py --arms "z-scores" "bounds not spread"   # only fit and measure these

Every arm is the default with one choice undone, every network trained for a fifth of its steps (the learning rate falls
to zero at the end), drawn from and measured with the same ruler. Trainings and samples are kept in
`runs/benchmark-synther/`; a killed program goes on where it was. What concerns the drawing alone needs no training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from evidence import record_table
from fitted import SEED, fitted_once, merged
from synther import FINE, Bench

from synth_pipeline.generators.base import build
from synth_pipeline.generators.synther import SynthER
from synth_pipeline.runs import read_json, write_json
from synth_pipeline.seeding import Stage, stream

ROWS, SHARE = 10_000, 5
JOINT = {"rows": "joint", "normalizer": "standard", "sampler": FINE}
ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "whole rows, s' - s": JOINT,
    "whole rows, s' itself": {**JOINT, "next_observations": "state"},
    "whole rows, s' - s, quantile maps": {**JOINT, "normalizer": "quantile"},
    "z-scores": {"normalizer": "standard"},
    "bounds not spread": {"spread_bounds": False},
    "plain residual MLP 6 x 512": {"network": {"kind": "residual", "width": 512, "depth": 6}},
    "residual of s' always diffused": {"dynamics": {"residual": "diffusion"}},
    "what follows by least squares": {"dynamics": {"regressor": {"beta": 1.0}}},
    "one residual block": {"dynamics": {"regressor": {"depth": 1}}},
    "half the batch, twice the steps": {"trainer": {"batch_size": 512, "gradient_steps": 2}},
    "a third of the learning rate": {"trainer": {"learning_rate": 1e-3}},
}
DRAWING: dict[str, dict[str, Any]] = {
    "unfamiliar rows kept": {"familiar": 1.0},
    "unsupported rows kept": {"supported": 1.0},
    "both kept": {"familiar": 1.0, "supported": 1.0},
    "63 calls, sigma 80 to 0.002": {"sampler": {"num_steps": 63, "sigma_min": 0.002, "sigma_max": 80.0}},
    "20 calls, sigma 80 to 0.002": {"sampler": FINE},
    "12 calls, sigma 10 to 0.03": {"sampler": {"num_steps": 12, "sigma_min": 0.03, "sigma_max": 10.0}},
    "8 calls, sigma 80 to 0.002": {"sampler": {**FINE, "num_steps": 8}},
    "5 calls": {"sampler": {"num_steps": 5}},
}
SHOWN = (
    "oracle.mean",
    "oracle.p95",
    "oracle.median",
    "oracle.reward_error",
    "oracle.clipped_share_ratio",
    "novelty.nn_ratio_sa",
    "marginals.mean",
    "dependence.correlation",
    "c2st.sa",
    "c2st.row",
    "coverage.distance",
)


def settings_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The default with changes, trained for a share of the steps."""
    default = {"kind": "synther"}
    config = build(default).config.model_dump()
    times = changes.get("trainer", {}).get("gradient_steps", 1)
    follow = {name: {"regressor": _fewer(config[name]["regressor"])} for name in ("dynamics", "rewards")}
    return merged(merged(default, changes), {**_fewer(config, times), **follow})


def _fewer(config: Mapping[str, Any], times: int = 1) -> dict[str, Any]:
    return {"trainer": {"gradient_steps": config["trainer"]["gradient_steps"] // SHARE * times}}


def fitted(bench: Bench, name: str, changes: Mapping[str, Any]) -> SynthER:
    """The generator of an arm; fitted once."""
    folder = bench.folder / "ablation" / name.replace(" ", "-").replace("'", "")
    return fitted_once(folder, lambda: settings_of(changes), bench.parts.train)


def redrawn(default: SynthER, changes: Mapping[str, Any]) -> SynthER:
    """The fitted default, drawing in another way."""
    model = build(merged(settings_of({}), changes))
    assert isinstance(model, SynthER)
    model.restore(*default.state())
    return model


def row(bench: Bench, name: str, model: SynthER) -> dict[str, Any]:
    """What the ruler says of an arm; measured once."""
    path = bench.folder / "ablation" / f"{name.replace(' ', '-')}.json"
    if not path.exists():
        measured = bench.measure(model.sample(ROWS, stream(SEED, Stage.GENERATE, 0, 0)))
        shown_here = {metric: measured[metric].value for metric in SHOWN}
        write_json(path, {**shown_here, "calls": model.calls, "notes": model.notes()})
    found: dict[str, Any] = read_json(path)
    print(name, found, flush=True)
    return found


def main() -> None:
    """Fit, draw, measure; once every arm is there, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="only these trainings; nothing is recorded")
    chosen = parser.parse_args().arms
    began, bench, table = time.perf_counter(), Bench("hopper"), {}
    for name in chosen or ARMS:
        table[name] = row(bench, name, fitted(bench, name, ARMS[name]))
    if chosen:
        return
    default = fitted(bench, "default", {})
    for name, changes in DRAWING.items():
        model = redrawn(default, changes)
        table[name] = row(bench, name, model)
    steps = settings_of({})["trainer"]["gradient_steps"]
    details = {"arms": table, "steps of the diffusion": steps, "rows": ROWS, "dataset": bench.data.spec.dataset_id}
    complete = all(np.isfinite([arm["oracle.mean"] for arm in table.values()]))
    record_table("synther.ablation", details, complete=bool(complete), seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main()
