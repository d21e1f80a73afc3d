"""A Dockerfile and a compose file, read and linted without an engine: what would fail, leak or run as root."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KNOWN = ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "LABEL", "RUN", "USER", "VOLUME", "WORKDIR")
COMMANDS = ("synthpipe", "prefect", "dask", "python")  # that the image has
SECRET = re.compile(r"(?i)(token|secret|password|passwd|api_key|access_key)")
PINNED = re.compile(r"^[a-z0-9./-]+:\d+\.\d+\.\d+[\w.-]*$")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        line: Its first line, from 1.
        name: Upper case.
        value: The rest; continuation lines joined.
        stage: Number of the build stage, from 0; -1 before the first.
    """

    line: int
    name: str
    value: str
    stage: int

    @property
    def flags(self) -> dict[str, str]:
        """`--name=value` at the beginning."""
        return dict(re.findall(r"--([a-z-]+)=(\S+)", self.value)) if self.name in ("COPY", "HEALTHCHECK") else {}

    @property
    def words(self) -> list[str]:
        """The rest without flags, as words."""
        return [word for word in shlex.split(self.value) if not word.startswith("--")]

    def exec_form(self) -> list[str] | None:
        """The words of a JSON list; None: the shell form, in which signals do not arrive."""
        try:
            found = json.loads(self.value.rpartition("CMD ")[2] if self.name == "HEALTHCHECK" else self.value)
        except json.JSONDecodeError:
            return None
        return found if isinstance(found, list) else None


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, in order."""
    found: list[Instruction] = []
    stage, begin, parts = -1, 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if (not parts and not line.strip()) or line.lstrip().startswith("#"):
            continue
        begin = begin or number
        parts.append(line.strip().removesuffix("\\").strip())
        if line.rstrip().endswith("\\"):
            continue
        name, _, value = " ".join(parts).partition(" ")
        stage += name.upper() == "FROM"
        found.append(Instruction(begin, name.upper(), value.strip(), stage))
        begin, parts = 0, []
    return found


def stages(instructions: Sequence[Instruction]) -> dict[str, int]:
    """Name of a stage -> its number."""
    froms = [one for one in instructions if one.name == "FROM"]
    return {one.words[2]: one.stage for one in froms if len(one.words) == 3 and one.words[1].upper() == "AS"}


def kept(path: str, ignore: Sequence[str]) -> bool:
    """Whether a path is in the build context; the last pattern of `.dockerignore` that fits decides."""
    result = True
    for pattern in (line.strip() for line in ignore if line.strip() and not line.startswith("#")):
        wanted = pattern.removeprefix("!").removeprefix("**/").rstrip("/")
        if fnmatch.fnmatch(path.split("/")[0] if "/" not in wanted else path, wanted):
            result = pattern.startswith("!")
    return result


def lint(instructions: Sequence[Instruction], root: Path) -> list[str]:
    """What is wrong with a Dockerfile whose build context is `root`, a sentence each."""
    return [f"line {one.line}: {text}" for one, text in _problems(instructions, root)]


def _problems(instructions: Sequence[Instruction], root: Path) -> Iterator[tuple[Instruction, str]]:
    ignore = (root / ".dockerignore").read_text().splitlines() if (root / ".dockerignore").exists() else []
    for one in instructions:
        if one.name not in KNOWN:
            yield one, f"{one.name} is not used here"
        if one.stage < 0 and one.name != "ARG":
            yield one, f"{one.name} before the first FROM"
        if one.name == "FROM" and not PINNED.match(one.words[0]):
            yield one, f"the base '{one.words[0]}' is not pinned to a version"
        if one.name in ("ARG", "ENV") and SECRET.search(one.value):
            yield one, "a secret would stay in the image"
        if one.name in ("CMD", "ENTRYPOINT", "HEALTHCHECK") and one.exec_form() is None:
            yield one, f"{one.name} in shell form does not pass signals on"
        if one.name == "RUN" and "apt-get install" in one.value and "rm -rf /var/lib/apt/lists" not in one.value:
            yield one, "the package lists of apt stay in the layer"
        if one.name == "ARG" and f"${one.value.partition('=')[0]}" not in " ".join(i.value for i in instructions):
            yield one, f"nobody reads the argument {one.value}"
        if one.name == "COPY":
            yield from ((one, problem) for problem in _copied(one, instructions, root, ignore))
    yield from _at_the_end(instructions)


def _copied(one: Instruction, instructions: Sequence[Instruction], root: Path, ignore: Sequence[str]) -> Iterator[str]:
    if (origin := one.flags.get("from")) is not None:
        if stages(instructions).get(origin, one.stage) >= one.stage:
            yield f"there is no earlier stage '{origin}'"
        return
    for source in one.words[:-1]:
        if not (root / source).exists():
            yield f"there is no '{source}' to copy"
        elif not kept(source.rstrip("/"), ignore):
            yield f"'{source}' is not in the build context: .dockerignore leaves it out"


def _at_the_end(instructions: Sequence[Instruction]) -> Iterator[tuple[Instruction, str]]:
    last = [one for one in instructions if one.stage == instructions[-1].stage]
    users = [one.value for one in last if one.name == "USER"]
    if not users or users[-1].split(":")[0] in ("0", "root"):
        yield last[-1], "the image runs as root"
    for name in ("HEALTHCHECK", "ENTRYPOINT"):
        if name not in [one.name for one in last]:
            yield last[-1], f"the image has no {name}"


def lint_compose(compose: Mapping[str, Any]) -> list[str]:
    """What is wrong with a compose file, a sentence each."""
    services: Mapping[str, Any] = compose.get("services") or {}
    volumes = compose.get("volumes") or {}
    problems = [] if any("build" in service for service in services.values()) else ["no service builds the image"]
    for name, service in services.items():
        problems += [f"{name}: {text}" for text in _of_service(service, services, volumes)]
    return problems


def _of_service(service: Mapping[str, Any], services: Mapping[str, Any], volumes: Mapping[str, Any]) -> Iterator[str]:
    mounted = [volume.split(":")[0] for volume in service.get("volumes", ())]
    if service.get("image") != "synth-pipeline":
        yield f"another image: {service.get('image')}"
    commands = [
        service.get("entrypoint") or ["synthpipe"],
        (service.get("healthcheck") or {}).get("test", ["", "python"])[1:],
    ]
    yield from (f"the image has no command '{words[0]}'" for words in commands if words[0] not in COMMANDS)
    yield from (
        f"port {port} is open to others" for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")
    )
    yield from (f"there is no volume '{v}'" for v in mounted if v not in volumes)
    yield from (
        f"depends on '{other}', which is no service" for other in service.get("depends_on", ()) if other not in services
    )
    values = {**(service.get("environment") or {}), "command": " ".join(service.get("command", ()))}
    yield from (f"a secret in the file: {key}" for key in values if SECRET.search(key))
    for host, port in re.findall(r"(?:http|tcp)://([a-z-]+):(\d+)", " ".join(map(str, values.values()))):
        if host not in services:
            yield f"'{host}' is no service"
        elif port not in map(str, services[host].get("command", ())):
            yield f"the service '{host}' does not listen on {port}"
