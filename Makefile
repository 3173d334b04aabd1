# Three commands are the whole workflow: make demo, make test, make check.
# Each sets up what it needs in .venv; all that has to be there is Python >= 3.11 with venv, and make.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CODE = gateway sensors_sim tests benchmarks firmware scripts
# only what exists: a part may be missing in a partial checkout
SOURCES = $(wildcard $(CODE))

.PHONY: demo test check fmt bench soak web pages peers docs pins clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo pages      ## a broker, simulated sensors and the gateway, in one command
	$(BIN)/gateway demo $(ARGS)

test: $(VENV)/.dev pages       ## every test that this machine can run; the reason for each skip is printed
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev            ## lint, format and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.dev            ## the figures in docs/performance.md
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.dev             ## ten minutes of everyday trouble; ARGS="--seconds 3600" for an hour
	$(BIN)/python -m tests.soak $(ARGS)

web: $(VENV)/bin/python        ## the dashboard and the client library, into gateway/static/
	$(BIN)/python scripts/build_web.py

# the same where it can be had: without Node.js and a network the gateway shows a smaller page
pages: $(VENV)/bin/python
	@$(BIN)/python scripts/build_web.py --optional

peers: tests/peers/node_modules/.package-lock.json  ## other brokers that tests talk to; needs Node.js and a network

tests/peers/node_modules/.package-lock.json: tests/peers/package.json tests/peers/package-lock.json
	cd tests/peers && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

docs: $(VENV)/.dev             ## renew the tables in docs/ that are made from the code
	$(BIN)/python -c 'from pathlib import Path; from gateway.settings.rows import markdown; \
	  page = Path("docs/settings.md"); mark = "by `make docs` -->\n"; \
	  page.write_text(page.read_text("utf-8").partition(mark)[0] + mark + "\n" + markdown(), "utf-8")'

pins: $(VENV)/.dev             ## renew requirements-dev.txt from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	{ head -n 1 requirements-dev.txt; $(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal \
	  --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet; } > $(VENV)/pins.txt
	mv $(VENV)/pins.txt requirements-dev.txt

clean:
	rm -rf $(VENV) build dist gateway/static web/node_modules web/client/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis test-results

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module is needed (on Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements-dev.txt --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt --editable '.[demo]'
	@touch $@ $(VENV)/.demo
