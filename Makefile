# Three commands are the whole workflow: make demo, make test, make check.
# Each sets up what it needs in .venv; all that has to be there is Python >= 3.11 with venv, and make.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CODE = gateway sensors_sim tests benchmarks firmware scripts examples
# only what exists: a part may be missing in a partial checkout
SOURCES = $(wildcard $(CODE))

# Tests that judge by time run alone, and first; the others side by side, so that the second summary counts most of them.
# A failure of either is one of both. What failed beside others, or while something else used the machine, has to pass
# alone. That makes good only what is said by 1, that tests failed: a run that broke off left out others.
PYTEST = $(BIN)/python -m pytest
ALONE = $(PYTEST) --last-failed --last-failed-no-failures none
TESTS = failed=0; \
	$(PYTEST) -m "timing$(1)" || { [ $$? -eq 1 ] && $(ALONE) -m "timing$(1)"; } || failed=1; \
	$(PYTEST) -n auto --dist loadfile --no-loadscope-reorder -m "not timing$(1)" || \
	{ [ $$? -eq 1 ] && $(ALONE) -m "not timing$(1)"; } || failed=1; \
	exit $$failed

# not by its own name in a recipe: `make -n` would run the rest of that line
AGAIN = $(MAKE) --no-print-directory

.PHONY: demo test test-all set-up tests web-check tools image check fmt bench bench-cluster bench-lines soak web pages peers docs site pins release clean
.DEFAULT_GOAL := demo

# some containers set it: then each of the hundreds of gateways that tests start would compile all its modules again
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/.demo pages      ## a broker, simulated sensors and the gateway, in one command
	$(BIN)/gateway demo $(ARGS)

test: $(VENV)/.dev pages       ## the tests that this machine can run in minutes; ARGS="tests/test_topics.py -x" runs just that
	@$(if $(ARGS),$(PYTEST) $(ARGS),export GATEWAY_TEST_WORKERS_PER_CORE=3; $(call TESTS, and not slow))

test-all: $(VENV)/.dev         ## every test, slow ones and those of web/ with them
	@failed=0; $(AGAIN) --keep-going --jobs set-up image || failed=1; $(AGAIN) web-check || failed=1; \
	$(AGAIN) tests || failed=1; exit $$failed

set-up: $(VENV)/.dev web peers tools  ## what tests need, but for the container image; quicker with --jobs: most of it waits

tests: $(VENV)/.dev            ## every test, without setting up first
	@( $(TESTS) )

web-check: $(VENV)/bin/python  ## lint, types and tests of web/
	$(BIN)/python scripts/build_web.py --run check

check: $(VENV)/.dev            ## lint, format and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.dev            ## the figures in docs/performance.md
	$(BIN)/python -m benchmarks $(ARGS)

bench-cluster: $(VENV)/.dev    ## what a cluster costs and carries; ARGS=--check judges it on a quiet machine with four cores
	$(BIN)/python -m benchmarks.cluster $(ARGS)

bench-lines: $(VENV)/.dev      ## our clients and others behind lines that lose packets; needs root, `make peers web`
	$(BIN)/python -m benchmarks.lines $(ARGS)

soak: $(VENV)/.dev             ## ten minutes of everyday trouble; ARGS="--seconds 3600" for an hour
	$(BIN)/python -m tests.soak $(ARGS)

web: $(VENV)/bin/python        ## the dashboard and the client library, into gateway/static/
	$(BIN)/python scripts/build_web.py

# the same where it can be had: without Node.js and a network the gateway shows a smaller page
pages: | $(VENV)/bin/python
	@$(BIN)/python scripts/build_web.py --optional

peers: tests/peers/node_modules/.package-lock.json  ## other brokers and clients that tests talk to; needs Node.js and a network

tests/peers/node_modules/.package-lock.json: tests/peers/package.json tests/peers/package-lock.json
	cd tests/peers && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# what some tests need apart from the project's own packages: stubs take the names of standard modules, and ESPHome pins
# other versions of ours
tools: $(VENV)/tools/esp32-stubs/installed $(VENV)/tools/esphome/installed

$(VENV)/tools/esp32-stubs/installed: tests/firmware/esp32-stubs.txt | $(VENV)/bin/python
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(@D) --requirement $<
	cp $< $@

$(VENV)/tools/esphome/installed: tests/firmware/esphome.txt | $(VENV)/bin/python
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	cp $< $@

image:                         ## the container image, where Docker is: tests of docker-compose.yml start it
	@if docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then docker compose build gateway; \
	else echo "No Docker Compose here: no image"; fi

release: $(VENV)/bin/python    ## wheel, npm, Debian packages, images, Home Assistant's app, bills of materials into dist/, each tried; ARGS="python npm"
	$(BIN)/python -m scripts.release $(ARGS)

docs: $(VENV)/.dev             ## renew the tables in docs/ that are made from the code
	$(BIN)/python -c 'from pathlib import Path; from gateway.settings.rows import markdown; \
	  page = Path("docs/settings.md"); mark = "by `make docs` -->\n"; \
	  page.write_text(page.read_text("utf-8").partition(mark)[0] + mark + "\n" + markdown(), "utf-8")'

site: $(VENV)/.dev             ## the documentation as a site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

pins: $(VENV)/.dev             ## renew requirements-dev.txt from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	{ head -n 1 requirements-dev.txt; $(BIN)/uv pip compile pyproject.toml --all-extras --group dev --group docs --universal \
	  --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet; } > $(VENV)/pins.txt
	mv $(VENV)/pins.txt requirements-dev.txt

clean:
	rm -rf $(VENV) $(VENV).lock build dist gateway/static web/node_modules web/client/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis test-results

# how far it is stands in one line; a second `make` waits for the first
SET_UP = $(PYTHON) -m scripts.set_up $(VENV)
ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }

$(VENV)/bin/python:
	@$(ENOUGH)
	@$(SET_UP)

$(VENV)/.demo: pyproject.toml requirements-dev.txt
	@$(ENOUGH)
	@$(SET_UP) '.[demo]' --editable --constraint requirements-dev.txt --stamp $@

$(VENV)/.dev: pyproject.toml requirements-dev.txt
	@$(ENOUGH)
	@$(SET_UP) '.[demo,decoders]' --editable --requirement requirements-dev.txt --stamp $@ --stamp $(VENV)/.demo
