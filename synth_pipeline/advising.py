"""The verb `advise`: should a dataset be augmented, with what, at which ratio? The questions of `evaluation.advice`."""

from __future__ import annotations

from pathlib import Path

from synth_pipeline import sources
from synth_pipeline.data.split import SplitData, split_dataset
from synth_pipeline.evaluating import ERRORS, OWN, acted_in, as_run, planned, states_to_judge
from synth_pipeline.evaluation.advice import (
    HELD_OUT,
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
        ConfigError: When the environment is not known, or there are too few rows.
        UnknownNameError: When no policy is shipped that values could be asked of.
    """
    require_folder(folder, (*OWN, ADVICE), "advice")
    split = split_for_advice(dataset, rows)
    config, training = probed_in(split, config), len(split.train)
    study = trials(dataset, rows, training, config)
    with working(as_run(folder)):
        found, quarter = judged(study, _results(study, folder, workers=workers, yes=yes), training), None
        if (arm := recommended(found)) is not None:
            again = on_a_quarter(dataset, rows, training, arm, config)
            (quarter,) = judged(again, _results(again, folder, workers=workers, yes=yes), training)
        advice = concluded(found, quarter, config, training, held_out_episodes(split))
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
    split = split_for_advice(dataset, rows)
    study = trials(dataset, rows, len(split.train), probed_in(split, config))
    return planned(study, folder, workers=workers)


def split_for_advice(dataset: str, rows: int | None) -> SplitData:
    """The data of `advise`, and the episodes in whose states values are judged.

    Raises:
        ConfigError: When the environment is not known.
    """
    return split_dataset(acted_in(sources.real_source(dataset, rows=rows).load()), held_out=HELD_OUT)


def probed_in(split: SplitData, config: AdviceConfig) -> AdviceConfig:
    """As many states as the held-out episodes have, where these are fewer than asked for.

    Raises:
        ConfigError: When they are too few to judge values in.
        UnknownNameError: When there is no policy whose values could be asked.
    """
    return config.replace(states=states_to_judge(split, config.policy, config.states))


def held_out_episodes(split: SplitData) -> int:
    """How many there are."""
    unseen = split.held_out
    return 0 if unseen is None or unseen.episodes is None else len(unseen.episodes)


def _results(study: StudyConfig, folder: Path, *, workers: int | str, yes: bool) -> Results:
    """Run a study, and show its table."""
    results = run_study(study, folder, workers=workers, yes=yes)
    for line in lines(table(study, results, None), scored=True):
        console.print(line, markup=False)
    say("", ERRORS)
    return results
