"""Does offline RL get better with the rows of a run? evaluate -> report."""

import json
from pathlib import Path

import tasks
from common import Workers, flow, front
from showing import Progress, show

from synth_pipeline.cli_options import workers_of
from synth_pipeline.run_config import CONFIG, open_run


@flow
def evaluate(
    run: Path,
    agents: list[str] = [],
    settings: list[str] = [],
    workers: Workers = None,
    scheduler: str | None = None,
    over_an_hour: bool = False,
) -> Path:
    """Train agents on real rows, and on real and synthetic ones, in pairs of seeds.

    Args:
        run: Run directory with a filled store that was validated.
        agents: E.g. iql and td3_bc; none: as the run is configured.
        settings: Overrides of the run's configuration, e.g. evaluation.seeds=10.
        workers: Processes of one thread each; none: 1.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.
        over_an_hour: Go ahead even when it takes more than an hour.

    Returns:
        The report.
    """
    _, config = open_run(run, settings)
    named = {name: config.evaluation.agents.get(name, {}) for name in agents}
    changes = [*settings, *([f"evaluation.agents={json.dumps(named)}"] if named else [])]
    progress = Progress(run, "evaluate", "report")
    tasks.evaluate(run, str(run / CONFIG), changes, workers_of(workers, scheduler), over_an_hour)
    progress.ended("evaluate")
    page: Path = tasks.report(run)
    show(page)
    progress.ended("report")
    return page


if __name__ == "__main__":
    front(evaluate)
