"""Does offline RL get better with the rows of a run? evaluate -> report."""

import json
from pathlib import Path

import tasks
from common import Workers, flow, front, parallel
from showing import Progress, show

from synth_pipeline.run_config import CONFIG, open_run


@flow
def evaluate(
    run: Path,
    agents: list[str] = [],  # noqa: B006  (Prefect copies parameters)
    settings: list[str] = [],  # noqa: B006
    workers: Workers = 1,
    scheduler: str | None = None,
    yes: bool = False,
) -> Path:
    """Train agents on real rows, and on real and synthetic ones, in pairs of seeds.

    Args:
        run: Run directory with a filled store that was validated.
        agents: E.g. iql and td3_bc; none: as the run is configured.
        settings: Overrides of the run's configuration, e.g. evaluation.seeds=10.
        workers: Processes of one thread each.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.
        yes: Go ahead even when it takes more than an hour.

    Returns:
        The report.
    """
    _, config = open_run(run, settings)
    named = {name: config.evaluation.agents.get(name, {}) for name in agents}
    changes = [*settings, *([f"evaluation.agents={json.dumps(named)}"] if named else [])]
    progress = Progress(run, "evaluate", "report")
    tasks.evaluate(run, str(run / CONFIG), changes, parallel(workers, scheduler), yes)
    progress.ended("evaluate")
    page: Path = tasks.report(run)
    show(page)
    progress.ended("report")
    return page


if __name__ == "__main__":
    front(evaluate)
