# relaygw: `make run` starts a sandbox, `make test` runs everything. `make help` lists the rest.
PYTHON := python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := relaygw relaygw_postfix tests bench migrations packaging
# many tests wait for other processes: more workers than there are processors
PYTEST := $(BIN)/python -m pytest --workers $(shell expr $$(nproc) + 8)

# the tests start the program again and again: it is compiled once, whatever the environment says
export PYTHONDONTWRITEBYTECODE =

.PHONY: help run test campaign durations check lint format types unit system-packages clean \
	deb rpm tarball wheel image lock

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --without-pip and the pip of the system: Debian's python3 has no ensurepip. pip brings uv, which
# takes a quarter of pip's time; where only pip is told of an index, pip does it
UV := build/uv/bin/uv
PACKAGES := --constraint constraints.txt --editable '.[test,dev]'
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv --without-pip $(VENV)
	@! $(PYTHON) -m pip config list | grep index-url >/dev/null && \
	{ [ -x $(UV) ] || $(PYTHON) -m pip install --quiet --no-compile --root-user-action ignore \
	    --target build/uv --constraint constraints.txt uv; } && \
	UV_HTTP_TIMEOUT=15 $(UV) pip install --quiet --native-tls --python $(BIN)/python $(PACKAGES) || \
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-compile $(PACKAGES)
	@touch $@

run: $(STAMP)  ## start the gateway; unconfigured: sandbox, 127.0.0.1:1025
	$(BIN)/relaygw serve

test: $(STAMP) system-packages  ## style, types, all tests with real servers and clients
	@beside=$(VENV)/.lint-and-types; \
	$(MAKE) --no-print-directory lint types >$$beside 2>&1 & \
	$(PYTEST); tests=$$?; \
	wait $$!; checks=$$?; \
	cat $$beside; \
	exit $$((tests || checks))

campaign: $(STAMP) system-packages  ## kills, faults, clients many times; mutations (two hours)
	RELAYGW_CAMPAIGN=1 $(PYTEST) -m campaign --timeout 3600
	-$(BIN)/python bench/mutate --count 500 --seed $$(date +%j)

durations: $(STAMP) system-packages  ## run all tests and note how long each file takes
	$(PYTEST) --record-durations

check: $(STAMP) lint types unit  ## quick: style, types, unit, contract and page tests

lint: $(STAMP)  ## style
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

format: $(STAMP)  ## bring the style in order
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

types: $(STAMP)  ## static types
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit tests/contract tests/docs

system-packages:  ## bring servers and clients for tests (apt, as root)
	@sh tests/system-packages.sh

deb: $(STAMP)  ## build dist/*.deb for Debian 13 (compiled by its Python)
	$(BIN)/python packaging/build.py deb

rpm: $(STAMP)  ## build dist/*.rpm for the RHEL family with Python 3.12
	$(BIN)/python packaging/build.py rpm

tarball: $(STAMP)  ## build dist/*.tar.gz, the files of the .deb
	$(BIN)/python packaging/build.py tarball

wheel: $(STAMP)  ## build dist/*.whl: the gateway, and what is of Postfix
	$(BIN)/python packaging/build.py wheel

image: $(STAMP)  ## build the container image with docker
	docker build --file docker/Dockerfile --target relaygw --tag relaygw \
	    --build-arg VERSION="$$($(BIN)/python packaging/build.py version)" .

lock:  ## write hashes of what packages hold, by constraints.txt
	PYTHON=$(PYTHON) sh packaging/lock.sh

clean:  ## remove the environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
