"""The one form of error: what is wrong, what was found, what is accepted, what to type.

Every error that a user can cause is a `SynthPipelineError`. The command line prints it without a traceback
and exits with its `exit_code`; anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable


class SynthPipelineError(Exception):
    """Base of all errors that tell the user what to do.

    Args:
        what: One sentence: what is wrong, naming the thing.
        found: What was found; of another error, what it says and not its fix: one error has one.
        accepted: What would have been accepted.
        fix: What to type or do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, found: object = None, accepted: object = None, fix: object = None) -> None:
        self.what, self.found, self.accepted, self.fix = what, found, accepted, fix
        rows = (("found", _without_fix(found)), ("accepted", accepted), ("fix", fix))
        lines = [f"  {label:<9} {text}" for label, text in rows if text is not None]
        super().__init__("\n".join([what, *lines]))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the fields when the error crosses a process boundary."""
        return (_rebuild, (type(self), self.what, self.found, self.accepted, self.fix))

    def render(self) -> str:
        """The text that the command line prints; its commands can be typed as they stand."""
        return typable(f"{type(self).__name__}: {self}")


def _without_fix(found: object) -> object:
    if not isinstance(found, SynthPipelineError):
        return found
    return found.what if found.found is None else f"{found.what}: {_without_fix(found.found)}"


def _rebuild(
    kind: type[SynthPipelineError], what: str, found: object, accepted: object, fix: object
) -> SynthPipelineError:
    return kind(what, found=found, accepted=accepted, fix=fix)


class ConfigError(SynthPipelineError):
    """A configuration that cannot be used: unknown key, value out of range, wrong file."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name that no registry, catalog or store knows."""


class MissingExtraError(ConfigError):
    """An optional dependency is not installed."""


class SourceError(SynthPipelineError):
    """A dataset that cannot be read, or that is not what it says."""

    exit_code = 3


class EnvironmentModelError(SourceError):
    """An environment that is unknown, or asked for what it cannot do (no exact reset, no simulator)."""


class StoreError(SynthPipelineError):
    """A store that is damaged, foreign, of another version, or busy."""

    exit_code = 4


class BusyError(StoreError):
    """A second process met the lock of the first."""


class StoreBusyError(BusyError):
    """A second writer met the lock of the first."""


class ResourceError(SynthPipelineError):
    """The machine cannot do it: no space, no permission."""

    exit_code = 5


class CheckpointError(SynthPipelineError):
    """A model directory that cannot be loaded or resumed."""

    exit_code = 6


class GateError(SynthPipelineError):
    """Data that failed validation, or was never validated, was about to be exported."""

    exit_code = 7


class ExportError(SynthPipelineError):
    """An export that cannot be written or does not read back as written."""

    exit_code = 8


class TaskError(SynthPipelineError):
    """A task failed on a worker in a way that is not the user's doing."""

    exit_code = 9


class TrainingDivergedError(SynthPipelineError):
    """A loss, a weight or a value stopped being finite, or possible."""

    exit_code = 10


def typable(text: str) -> str:
    """Text whose `synthpipe` and `minari` commands can be typed here, also where no environment is active.

    A command that is not on the PATH gets the folder of the program that was started, as short as it can be.
    """

    def found(match: re.Match[str]) -> str:
        name, folder = match[0], os.path.dirname(sys.argv[0])
        place = os.path.join(folder, name)
        if shutil.which(name) or not folder or not os.access(place, os.X_OK):
            return name
        return shlex.quote(min(place, os.path.relpath(place), key=len))

    return re.sub(r"(?<![\w/.'-])(?:synthpipe(?= [a-z-])|minari(?= (?:list|download)\b))", found, text)


FEW = 5  # names that fit into a line


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name` (upper and lower case count as equal), or None when nothing is close."""
    names = {candidate.casefold(): candidate for candidate in known}
    match = difflib.get_close_matches(name.casefold(), list(names), n=1, cutoff=0.55)
    return names[match[0]] if match else None


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, fix: str | None = None, listing: str | None = None
) -> UnknownNameError:
    """The error for a name that does not exist, with the nearest one that does.

    Args:
        kind: What was looked up, e.g. `"generator"`.
        name: What the user typed.
        known: What exists.
        fix: What to type; by default the nearest name is suggested.
        listing: The command that names all that exist, where they are too many for a line: only the nearest are shown.
    """
    names = sorted(known)
    guess = nearest(name, names)
    others = f"{listing}   # names them all" if listing else "use one of these names" if names else None
    advice = fix or (f"did you mean '{guess}'?" if guess else others)
    accepted = ", ".join(names) if names else f"no {kind} is available"
    if listing and len(names) > FEW:
        near = difflib.get_close_matches(name, names, n=FEW, cutoff=0.0)
        accepted = f"{', '.join(near)}, or {len(names) - FEW} more that `{listing}` names"
    return UnknownNameError(f"there is no {kind} called '{name}'", found=repr(name), accepted=accepted, fix=advice)
