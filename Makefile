# The commands of this project; `make` alone lists them.

# An interpreter of your choice, 3.11 or 3.12: make env PYTHON=/path/to/python3.12
PYTHON ?=
# uv is used where it is found; `UV=` installs with pip.
UV ?= $(shell command -v uv 2>/dev/null)
# Handed on to the command: make run ARGS="--profile paper --workers 4"
ARGS ?=
# Damaged files for each reader: make fuzz EXAMPLES=20000
EXAMPLES ?= 2000
# GPU=1 adds CUDA and cuDNN. An environment that was made with them keeps them.
GPU ?= $(if $(wildcard .venv/.gpu),1)
# EXPORT=1 adds what writes and runs ONNX, and what runs LiteRT.
EXPORT ?= $(if $(wildcard .venv/.export),1)
# TRACK=1 adds the clients of MLflow and Weights & Biases, in the same way.
TRACK ?= $(if $(wildcard .venv/.track),1)

# Debian's names for what the tests use beside Python: a headless browser for the report, and a
# Slurm whose nodes are namespaces.
DEBIAN := chromium chromium-driver slurmctld slurmd slurm-client munge iproute2

# What a module system or an activated environment left there would shadow the locked versions.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

ifeq ($(UV),)
create = "$$python" -m venv --clear --prompt tlcluster .venv
install := .venv/bin/python -m pip --disable-pip-version-check install --quiet
else
create = "$(UV)" venv --quiet --clear --prompt tlcluster --python "$$python" .venv
# Compiled at once, as pip does: where Python may write none, each process would compile all again.
install := "$(UV)" pip install --quiet --compile-bytecode --python .venv/bin/python
endif
locked := $(install) --require-hashes --only-binary :all: --requirement

# A stamp is the last act of its step, so what was cut short has none. A step on top of a whole
# environment takes the first stamp away while it works: cut short there, all is made again.
began = mv .venv/.base .venv/.unfinished
ended = touch $@ && mv .venv/.unfinished .venv/.base

# The first stamp holds the place of the checkout, for the scripts in .venv/bin do too. A moved
# environment is made again, and so is one whose interpreter is gone or not the one asked for.
here := $(shell .venv/bin/python -I -c 'import os; print(os.getcwd())' 2>/dev/null)
made := $(shell cat .venv/.base 2>/dev/null)
ifneq "$(here)" "$(made)"
stale := again
endif
ifneq ($(PYTHON),)
base = $(shell "$(1)" -I -c 'import os, sys; print(os.path.realpath(sys._base_executable))' 2>/dev/null)
ifneq "$(call base,$(PYTHON))" "$(call base,.venv/bin/python)"
stale := again
endif
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env run test test-gpu drill fuzz bench lint lock sbom audit-deps clean dev-env debian again

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'ARGS="…" is handed on, PYTHON=… chooses the interpreter (3.11 or 3.12), GPU=1 adds CUDA, EXPORT=1'
	@echo 'ONNX and LiteRT, TRACK=1 the clients of MLflow and Weights & Biases.'

env: .venv/.package $(if $(GPU),.venv/.gpu) $(if $(EXPORT),.venv/.export) $(if $(TRACK),.venv/.track) ## make .venv from requirements.txt, or bring it up to date

run: env ## train and compare the four experiments; make run ARGS="--profile paper --dry-run"
	@.venv/bin/python jobs/run_all.py $(ARGS)

test: dev-env debian ## tests, ruff and mypy; make test ARGS="tests/test_order.py -k shards"
	@.venv/bin/python -m pytest $(side_by_side) $(ARGS)

test-gpu: dev-env ## the tests that need an NVIDIA GPU, with their figures; skipped elsewhere
	@.venv/bin/python -m pytest -m gpu $(ARGS)

drill: dev-env debian ## the longest tests, which `make test` leaves out
	@.venv/bin/python -m pytest -m drill $(ARGS)

fuzz: dev-env ## thousands of damaged files for everything that reads a stranger's; make fuzz EXAMPLES=20000
	@TLCLUSTER_FUZZ=$(EXAMPLES) .venv/bin/python -m pytest tests/fuzz $(ARGS)

bench: env .venv-bench/.made ## measure beside what people use (PyTorch comes with it, 6 GB); make bench ARGS="--only input"
	@.venv/bin/python jobs/bench.py $(ARGS)

lint: dev-env ## ruff and mypy alone
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

lock: dev-env ## renew requirements*.txt after a change in pyproject.toml; ARGS=--upgrade takes the newest
	@$(lock) pyproject.toml --output-file requirements.txt
	@printf 'mlflow-skinny\nwandb\n' | $(lock) - --constraint requirements.txt --output-file requirements-track.txt
	@.venv/bin/python -c '$(extras)' | $(lock) - --constraint requirements.txt --constraint requirements-track.txt --output-file requirements-export.txt
	@$(lock) --group dev $(foreach other,requirements requirements-track requirements-export,--constraint $(other).txt) --output-file requirements-dev.txt
	@$(lock) --group bench --output-file requirements-bench.txt
	@$(lock) --group supply --output-file requirements-supply.txt
	@echo 'tensorflow[and-cuda]' | $(lock) - --constraint requirements.txt --output-file requirements-gpu.txt

sbom: .venv-supply/.made ## what requirements.txt installs, as CycloneDX in sbom.cdx.json
	@.venv-supply/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --no-validate --output-format JSON --output-file sbom.cdx.json requirements.txt

audit-deps: .venv-supply/.made ## the locks against the advisories of PyPI, which need the internet
	@.venv-supply/bin/pip-audit --strict --require-hashes --disable-pip $(ARGS) $(foreach lock,$(locks),--requirement $(lock))

clean: ## remove .venv and what tools leave behind; runs/ stays
	@rm -rf .venv .venv-bench .venv-supply build sbom.cdx.json *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find jobs tests tlcluster -name __pycache__ -type d -prune -exec rm -rf {} +

# Two processes, a file at a time each: real clusters wait a lot. The order is that of conftest.py.
side_by_side = --numprocesses 2 --dist loadfile --no-loadscope-reorder

lock = .venv/bin/uv pip compile $(ARGS) --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

locks := $(wildcard requirements*.txt)

extras = import tomllib; of = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*of["onnx"], *of["litert"], sep="\n")

dev-env: env .venv/.dev .venv/.export

.venv/.base: requirements.txt $(stale)
	@for python in $(if $(PYTHON),"$(PYTHON)",python3.12 python3.11 python3); do \
	  python=$$("$$python" -I -c 'import sys; print(sys._base_executable) if (3, 11) <= sys.version_info < (3, 13) else sys.exit(1)' 2>/dev/null) && break; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'tlcluster needs Python 3.11 or 3.12, and $(if $(PYTHON),$(PYTHON) is not one,none of python3.12 python3.11 python3 is one): install one and name it, make env PYTHON=/path/to/python3.12' >&2; exit 1; \
	fi; \
	echo "Making .venv with $$("$$python" --version) and $(if $(UV),uv,pip); the first time takes some minutes"; \
	$(create)
	@$(locked) requirements.txt
	@pwd -P > $@

.venv/.package: .venv/.base pyproject.toml
	@$(began)
	@$(install) --no-deps --no-build-isolation --editable .
	@$(ended)

.venv/.gpu: .venv/.package requirements-gpu.txt
	@$(began)
	@$(locked) requirements-gpu.txt
	@$(ended)

.venv/.export: .venv/.package requirements-export.txt
	@$(began)
	@$(locked) requirements-export.txt
	@$(ended)

.venv/.track: .venv/.package requirements-track.txt
	@$(began)
	@$(locked) requirements-track.txt
	@$(ended)

.venv/.dev: .venv/.package requirements-dev.txt
	@$(began)
	@$(locked) requirements-dev.txt
	@$(ended)

# Environments of their own, named like their locks: what is in them is not for the product to live with.
apart = set -e; .venv/bin/python -m venv --clear --prompt 'tlcluster$(patsubst .venv%/.made,%,$@)' $(@D); \
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all: --requirement $<; \
	touch $@

.venv-bench/.made: requirements-bench.txt | .venv/.base
	@echo 'Making .venv-bench, the environment of those that tlcluster is measured beside'
	@$(apart)

.venv-supply/.made: requirements-supply.txt | .venv/.base
	@$(apart)

debian:
	@if ! { command -v chromedriver && command -v slurmctld; } >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo 'Installing $(DEBIAN) for the tests'; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get update -qq && apt-get install -qq --no-install-recommends $(DEBIAN); } >/dev/null \
	    || echo 'They could not be installed; the tests that need them will be skipped'; \
	fi
