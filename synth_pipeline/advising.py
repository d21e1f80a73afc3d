"""The verb `advise`: should a dataset be augmented, with what, at which ratio? The questions of `evaluation.advice`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from synth_pipeline import sources
from synth_pipeline.data.split import Fold, split_dataset
from synth_pipeline.evaluating import ERRORS, OWN, acted_in, as_run, planned, states_to_judge
from synth_pipeline.evaluation.advice import (
    Advice,
    AdviceConfig,
    concluded,
    judged,
    on_a_quarter,
    recommended,
    trials,
)
from synth_pipeline.evaluation.study import StudyConfig
from synth_pipeline.evaluation.tables import lines, table
from synth_pipeline.runs import require_folder, write_json
from synth_pipeline.scale.studies import Results, run_study
from synth_pipeline.store.lock import working
from synth_pipeline.tracking import console, say

ADVICE = "advice.json"


def advise(
    dataset: str, rows: int | None, config: AdviceConfig, folder: Path, *, workers: int | str = 1, yes: bool = False
) -> Advice:
    """Ask the value probe whether to augment a dataset, with what, and at which ratio; writes `advice.json`.

    Args:
        dataset: Catalog id, Minari id, or file; its environment must be known.
        rows: Size of a collected dataset; None: the recipe's.
        config: What is tried.
        folder: Where rows, states and results lie.
        workers: Processes of one thread each, or a Dask scheduler.
        yes: Go ahead even when it takes more than an hour.

    Raises:
        ConfigError: When the environment is not known, or there are too few episodes, or states to judge values in.
        UnknownNameError: When no policy is shipped that values could be asked of.
    """
    require_folder(folder, (*OWN, ADVICE), "advice")
    asked = asked_of(dataset, rows, config)
    config, training = asked.config, asked.training
    study = trials(dataset, rows, config)
    with working(as_run(folder)):
        found, quarter = judged(study, _results(study, folder, workers=workers, yes=yes), training), None
        if (arm := recommended(found)) is not None:
            again = on_a_quarter(dataset, rows, training, arm, config)
            (quarter,) = judged(again, _results(again, folder, workers=workers, yes=yes), training)
        advice = concluded(found, quarter, config, asked.rows, asked.episodes)
        write_json(folder / ADVICE, advice.plain())
    for number, text in enumerate(advice.sentences()):
        say("" if number else "advice", text)
    return advice


def plan(dataset: str, rows: int | None, config: AdviceConfig, folder: Path, *, workers: int | str = 1) -> str:
    """The bill of the trials in words; what is tried again on a quarter of the rows is known after them.

    Raises:
        ConfigError: As `advise`.
        UnknownNameError: As `advise`.
    """
    asked = asked_of(dataset, rows, config)
    return planned(trials(dataset, rows, asked.config), folder, workers=workers)


class Asked(NamedTuple):
    """What can be asked of a dataset.

    Attributes:
        rows: How many it has.
        training: How many are trained on where most are held out.
        episodes: How many it has.
        config: With as many states as the smallest part has, where these are fewer than wanted.
    """

    rows: int
    training: int
    episodes: int
    config: AdviceConfig


def asked_of(dataset: str, rows: int | None, config: AdviceConfig) -> Asked:
    """Look at every part of a dataset that is held out in its turn.

    Raises:
        ConfigError: When the environment is not known, or there are too few episodes, or states to judge values in.
        UnknownNameError: When there is no policy whose values could be asked.
    """
    data = acted_in(sources.real_source(dataset, rows=rows).load())
    training, states = len(data), config.states
    for part in range(config.draws):
        split = split_dataset(data, held_out=Fold(part, config.draws))
        states = states_to_judge(split, config.policy, states)
        training = min(training, len(split.train))
    episodes = 0 if data.episodes is None else len(data.episodes)
    return Asked(len(data), training, episodes, config.replace(states=states))


def _results(study: StudyConfig, folder: Path, *, workers: int | str, yes: bool) -> Results:
    """Run a study, and show its table."""
    results = run_study(study, folder, workers=workers, yes=yes)
    for line in lines(table(study, results, None), scored=True):
        console.print(line, markup=False)
    say("", ERRORS)
    return results
