"""The image and the compose file, read without an engine; each rule of the linter catches what it is there for."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE, COMPOSE = (ROOT / name for name in ("Dockerfile", "compose.yaml"))


@pytest.fixture
def dockerfile(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import dockerfile

    return dockerfile


@pytest.fixture
def compose():
    return yaml.safe_load(COMPOSE.read_text())


def test_the_image_is_sound(dockerfile):
    assert dockerfile.lint(dockerfile.parse(DOCKERFILE.read_text()), ROOT) == []


def test_what_the_image_carries_and_how_it_runs(dockerfile):
    found = dockerfile.parse(DOCKERFILE.read_text())
    assert dockerfile.stages(found) == {"build": 0}
    by_name = {one.name: one for one in found}
    assert by_name["HEALTHCHECK"].exec_form() == ["synthpipe", "doctor"]
    assert by_name["ENTRYPOINT"].exec_form() == ["synthpipe"]
    copied = [word for one in found if one.name == "COPY" and one.stage == 1 for word in one.words[:-1]]
    assert copied == ["/opt/synth-pipeline", "flows/", "prefect.yaml"]
    (torch,) = (one.value for one in found if one.name == "ARG")
    assert torch == "TORCH_INDEX=https://download.pytorch.org/whl/cpu"


BROKEN = {
    "not pinned": ("FROM python:3.11.13-slim-bookworm\n", "FROM python:latest\n", "not pinned"),
    "download": ("COPY flows/ flows/", "ADD https://example.com/x.tar.gz /x", "ADD is not used"),
    "absent source": ("COPY flows/ flows/", "COPY flaws/ flows/", "no 'flaws/' to copy"),
    "ignored source": ("COPY flows/ flows/", "COPY Makefile ./", ".dockerignore leaves it out"),
    "absent stage": ("COPY --from=build", "COPY --from=builder", "no earlier stage 'builder'"),
    "root": ("USER 1000", "USER root", "runs as root"),
    "no user": ("USER 1000\n", "", "runs as root"),
    "shell form": ('ENTRYPOINT ["synthpipe"]', "ENTRYPOINT synthpipe", "does not pass signals on"),
    "no health": ("HEALTHCHECK", "LABEL", "has no HEALTHCHECK"),
    "apt lists": ("USER 1000", "RUN apt-get install -y git\nUSER 1000", "package lists"),
    "secret": ("USER 1000", "ENV PREFECT_API_KEY=abc\nUSER 1000", "secret"),
    "unread argument": ("USER 1000", "ARG UNREAD=1\nUSER 1000", "nobody reads"),
    "order": (
        "FROM python:3.11.13-slim-bookworm AS build",
        "RUN true\nFROM python:3.11.13-slim-bookworm AS build",
        "before",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_is_noticed(dockerfile, case):
    before, after, text = BROKEN[case]
    given = DOCKERFILE.read_text()
    assert before in given
    sound, broken = (
        dockerfile.lint(dockerfile.parse(lines), ROOT) for lines in (given, given.replace(before, after, 1))
    )
    known = {problem.partition(": ")[2] for problem in sound}
    (problem,) = [problem for problem in broken if problem.partition(": ")[2] not in known]
    assert text in problem
    assert problem.startswith("line ")


def test_continued_lines_and_comments(dockerfile):
    (run, copy) = dockerfile.parse("# a\nRUN one \\\n  # not this\n  && two\n\nCOPY --from=x a b\n")
    assert (run.line, run.value) == (2, "one && two")
    assert (copy.flags, copy.words) == ({"from": "x"}, ["a", "b"])


def test_compose_is_sound_and_names_what_the_doctor_asks(dockerfile, compose):
    from synth_pipeline.doctor_services import DASK, PREFECT

    assert dockerfile.lint_compose(compose) == []
    assert compose["services"].keys() == {"server", "worker", "scheduler", "dask-worker"}
    assert {PREFECT, DASK} <= compose["services"]["worker"]["environment"].keys()
    pool = compose["services"]["worker"]["command"]
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {one["work_pool"]["name"] for one in deployments} == {pool[pool.index("--pool") + 1]}


@pytest.mark.parametrize(
    ("service", "changes", "text"),
    [
        ("server", {"ports": ["4200:4200"]}, "open to others"),
        ("server", {"image": "prefecthq/prefect"}, "another image"),
        ("server", {"entrypoint": ["perfect"]}, "no command 'perfect'"),
        ("worker", {"environment": {"PREFECT_API_URL": "http://sever:4200/api"}}, "'sever' is no service"),
        ("worker", {"environment": {"PREFECT_API_URL": "http://server:4201/api"}}, "does not listen on 4201"),
        ("worker", {"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "a secret"),
        ("worker", {"volumes": ["run:/work/runs"]}, "no volume 'run'"),
        ("worker", {"depends_on": {"sever": {}}}, "no service"),
    ],
)
def test_a_broken_compose_file_is_noticed(dockerfile, compose, service, changes, text):
    compose["services"][service] |= changes
    (problem,) = dockerfile.lint_compose(compose)
    assert problem.startswith(f"{service}: ")
    assert text in problem
