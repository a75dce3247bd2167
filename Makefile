# bothways: `make tune` and `make test` work on a fresh clone; they set up what they need by themselves.

PYTHON   ?= python3
PIPELINE ?= pipelines/sentiment.yaml
ARGS     ?=
# TORCH=system: use the torch this machine has already (a CUDA or ROCm build, say) instead of installing one.
TORCH    ?=
CLUSTER_PORT ?= 8265
MLFLOW_PORT  ?= 5000

VENV := .venv
BIN  := $(VENV)/bin
# Two processes: the default tests are short, and importing torch in more of them would cost more than it saves.
PARALLEL := -n 2 --dist loadfile
# `make check` runs what needs Ray or more than five seconds as well; never what kills things or needs a GPU.
SAFE := not chaos and not gpu

export RAY_USAGE_STATS_ENABLED := 0
export RAY_DATA_DISABLE_PROGRESS_BARS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: setup tune test check ui cluster-up submit cluster-down bench clean help

setup: $(VENV)/.installed ## make .venv with the tested versions of everything (the other targets do it by themselves)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "bothways needs Python 3.11 or newer, and '$(PYTHON)' is not: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(if $(filter system,$(TORCH)),--system-site-packages) $(VENV)
	$(if $(filter system,$(TORCH)),grep -v '^torch==',cat) constraints.txt > $(VENV)/constraints.txt
	@echo "installing what $(VENV) needs: about 2 GB, some minutes"
	$(BIN)/python -m pip install -qq --constraint $(VENV)/constraints.txt --editable '.[zh,assets,dev]'
	@touch $@

tune: $(VENV)/.installed ## search both sides jointly: PIPELINE=pipelines/sentiment.yaml ARGS="key=value …"
	$(BIN)/python -m bothways tune $(PIPELINE) $(ARGS)

test: $(VENV)/.installed ## the tests without Ray, in about a minute; ARGS go to pytest
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

check: $(VENV)/.installed ## all that CI checks: style, types, import direction, every test that needs no GPU
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy cluster/local.py
	$(BIN)/python -m pytest $(PARALLEL) -m "not ray and $(SAFE)"
	$(BIN)/python -m pytest -m "ray and $(SAFE)" --durations=10

ui: $(VENV)/.installed ## look at every trial and model: the MLflow UI over runs/, on loopback
	$(BIN)/python -m bothways ui $(ARGS)

cluster-up: $(VENV)/.installed ## a Ray head (with a token) and an MLflow server, on loopback; CLUSTER_PORT=… MLFLOW_PORT=…
	$(BIN)/python cluster/local.py up --port $(CLUSTER_PORT) --mlflow-port $(MLFLOW_PORT) $(ARGS)

submit: $(VENV)/.installed ## run PIPELINE as a job on that cluster and follow its log; ARGS="key=value …"
	$(BIN)/python cluster/local.py submit $(PIPELINE) $(ARGS)

cluster-down: $(VENV)/.installed ## end what cluster-up started, and only that
	$(BIN)/python cluster/local.py down

bench: $(VENV)/.installed ## every benchmark beside its peers, JSON lines and a table; ARGS="training cli" for some
	$(BIN)/python -m pip install -qq --constraint $(VENV)/constraints.txt --editable '.[zh,assets,dev,bench]'
	$(BIN)/python tests/benchmarks $(ARGS)

clean: ## take away caches and build leftovers; .venv and runs/ stay
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
