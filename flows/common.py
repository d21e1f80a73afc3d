"""What the flows share: Prefect with our settings, errors in our form, the failure hook, the front of each file."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from synth_pipeline.cli import UsageError  # switches the telemetry of our dependencies off
from synth_pipeline.errors import ConfigError, ResourceError, SynthPipelineError
from synth_pipeline.tracking import short

# Servers that Prefect starts for us: this machine alone reaches them, and a busy one may take its time.
for _name, _value in {
    "PREFECT_SERVER_API_HOST": "127.0.0.1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}.items():
    os.environ.setdefault(_name, _value)

import prefect  # noqa: E402
from prefect.exceptions import ParameterTypeError  # noqa: E402
from prefect.logging.loggers import disable_logger  # noqa: E402
from prefect.settings import get_current_settings  # noqa: E402
from prefect.states import Failed  # noqa: E402

ON_FAILURE = "SYNTHPIPE_ON_FAILURE"  # a command that reads what went wrong
Workers = Annotated[int | None, Field(ge=1)]


def flow(function: Callable[..., Any]) -> Any:
    """Prefect's flow: an error of ours, as we say it, is the message of the failed state; nothing is pickled."""

    @wraps(function)
    def said(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except SynthPipelineError as error:
            return Failed(message=error.render(), data=error)

    hooks = {"on_failure": [tell], "on_crashed": [tell]}
    return prefect.flow(name=function.__name__, persist_result=False, **hooks)(said)


def tell(flow: Any, flow_run: Any, state: Any) -> None:
    """Hand what went wrong to the command in `SYNTHPIPE_ON_FAILURE`, as its input; without one there is only the log.

    Raises:
        subprocess.SubprocessError: When the command fails, which Prefect logs.
    """
    text = f"{flow.name} {flow_run.name}: {state.name}\n{state.message}\n"
    if command := os.environ.get(ON_FAILURE):
        subprocess.run(shlex.split(command), input=text, text=True, timeout=60, check=True)


# --- the front of each file ------------------------------------------------------------------------------------------

NAMES = {"out": ("-o", "--out"), "settings": ("--set",), "over_an_hour": ("--yes",)}


def front(flow: Any) -> None:
    """Run a flow from the command line: its first parameter as argument, the others as options.

    Exit codes are those of `synthpipe`.
    """
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(help=flow.description.split("Args:")[0])(_command(flow))
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        _fail(_usage(error.format_message()))
    except ParameterTypeError as error:
        _fail(_usage(" ".join(str(error).split())))
    except SynthPipelineError as error:
        _fail(error)


def _command(flow: Any) -> Callable[..., None]:
    def command(**values: Any) -> None:
        with disable_logger("prefect.flows"):  # what it would say, we say
            flow.validate_parameters(values)
        require_server()
        try:
            flow(**values)
        except KeyboardInterrupt:
            typer.echo("interrupted; type the same command again to go on where it stopped", err=True)
            raise typer.Exit(130) from None

    command.__signature__ = inspect.Signature(list(_options(flow)))  # type: ignore[attr-defined]
    return command


def _options(flow: Any) -> Iterator[inspect.Parameter]:
    """The parameters of a flow as typer reads them; their words are those of the form."""
    for number, (name, given) in enumerate(inspect.signature(flow.fn, eval_str=True).parameters.items()):
        about = flow.parameters.properties[name]["description"]
        if number == 0:
            how: Any = typer.Argument(help=about)
        else:
            how = typer.Option(*NAMES.get(name, ()), help=about)
        yield given.replace(annotation=Annotated[given.annotation, how], kind=inspect.Parameter.KEYWORD_ONLY)


def require_server() -> None:
    """Fail before work begins when a Prefect server is configured that does not answer; none configured is fine.

    Raises:
        ResourceError: With what to type.
    """
    url = get_current_settings().api.url
    if url is None:  # Prefect starts one of its own for as long as the flow runs
        return
    with prefect.get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        typed = shlex.join(["python", short(Path(sys.argv[0])), *sys.argv[1:]])
        raise ResourceError(
            f"no Prefect server answers at {url}",
            found=str(problem) or type(problem).__name__,
            accepted="a running server at the address of PREFECT_API_URL, or no PREFECT_API_URL",
            fix=f"prefect server start   # in another terminal; or without a server: env -u PREFECT_API_URL {typed}",
        )


def _usage(what: str) -> ConfigError:
    program = short(Path(sys.argv[0]))
    typed = shlex.join(["python", program, *sys.argv[1:]])
    return ConfigError(what.rstrip("."), found=typed, fix=f"python {shlex.quote(program)} --help")


def _fail(error: SynthPipelineError) -> None:
    sys.stdout.flush()
    typer.echo(error.render(), err=True)
    sys.exit(error.exit_code)
