# `make run` and `make test` each work alone and first, on a fresh machine with Python 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.locked

.PHONY: run test evidence test-interop clean

run: $(STAMP)
	$(BIN)/synthpipe run default -o runs/default --workers $$(nproc)

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m compileall -q synth_pipeline
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

evidence: $(STAMP)
	$(BIN)/python benchmarks/evidence.py $(CLAIM)

INTEROP := .venv-interop
test-interop:
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/pip install -q torch==2.13.0
	$(INTEROP)/bin/pip install -q -r tests/interop/requirements.txt
	$(INTEROP)/bin/pip install -q --no-deps -e .
	$(INTEROP)/bin/python -m pytest -m interop tests/interop

# The lock first (torch from exactly this pin), then the package itself without touching anything. pip would compile on
# one core, tests of libraries too; templates of libraries that are no Python stay as they are.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile -r requirements.lock
	$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	touch $@

clean:
	rm -rf $(VENV) $(INTEROP) build dist *.egg-info
