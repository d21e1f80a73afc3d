"""The verbs of `synthpipe` that list what there is: datasets, and settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from synth_pipeline.agents import AGENTS
from synth_pipeline.cli_options import agent_names, settings_names, suggest
from synth_pipeline.config import Config
from synth_pipeline.errors import unknown_name
from synth_pipeline.run_config import RunConfig
from synth_pipeline.tracking import console, say

WIDEST = 40  # characters of a default


def datasets() -> None:
    """List the datasets that can be collected here, and the Minari datasets on this machine."""
    from synth_pipeline.sources import catalog, minari_root
    from synth_pipeline.sources.collect import CollectedSource

    entries = catalog.entries().values()
    width = max(len(entry.id) for entry in entries)
    head = f"{'id':<{width}}  {'rows':>8}  {'random':>7}  {'best':>7}  {'here':<5}  what"
    console.print(head, style="bold", markup=False)
    for entry in entries:
        random, best = entry.references.random, entry.references.best
        returns = f"{random.mean:>7,.0f}  {f'{best.mean:,.0f}' if best else '-':>7}"
        source = CollectedSource(entry.id)
        here = "yes" if source.describe()["collected"] else "other" if source.other_sizes() else "-"
        line = f"{entry.id:<{width}}  {entry.rows:>8,}  {returns}  {here:<5}  {entry.description}"
        console.print(line, markup=False)
    say("random", "mean return of uniform actions; best: of the best shipped policy; 100 episodes each")
    say("here", "collected; other: in another size, or with another seed")
    say("minari", ", ".join(minari_root.local_ids()) or "no Minari datasets on this machine")
    suggest("collect", "hopper/medium-replay")


def settings(
    of: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Whose: a generator, an agent, `probe` or `advise`; default: those of a run.",
            autocompletion=settings_names,
        ),
    ] = None,
) -> None:
    """List what `--set` takes: every key with its default and what it means."""
    config, above, verbs = _settings_of(of)
    found = list(leaves(config, above))
    keys, values = (max(len(row[column]) for row in found) for column in (0, 1))
    for key, value, meaning in found:
        console.print(f"{key:<{keys}}  {value:<{values}}  {meaning}".rstrip(), markup=False, soft_wrap=True)
    say("next", f"--set KEY=VALUE, with {verbs}")
    if of is None:
        say(
            "",
            "synthpipe settings synther: of a generator; td3_bc: of an agent; probe, advise: of values",
        )


def _settings_of(name: str | None) -> tuple[Config, str, str]:
    """The settings of that name, what stands before their keys, and the verbs that take them.

    Raises:
        UnknownNameError: With the nearest name.
    """
    if name is None:
        return RunConfig(dataset="DATASET"), "", "train, generate, run, evaluate, augment"
    if name not in settings_names(""):
        raise unknown_name("name with settings", name, settings_names(""))
    if name in agent_names(""):
        return AGENTS.load(name).settings(), f"evaluation.agents.{name}.", "evaluate, run"
    if name == "probe":
        from synth_pipeline.evaluation.value_probe import ProbeConfig

        return ProbeConfig(), "evaluation.probe.", "evaluate, run"
    if name == "advise":
        from synth_pipeline.evaluation.advice import AdviceConfig

        return AdviceConfig(), "", "advise"
    from synth_pipeline.generators.base import build

    return build({"kind": name}).config, "generator.", "train, run, augment"


def leaves(config: Config, above: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of every setting, in the order of the class; sections are walked into."""
    for name, field in type(config).model_fields.items():
        value: Any = getattr(config, name)
        if isinstance(value, Config):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", _short(value), field.description or ""


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
