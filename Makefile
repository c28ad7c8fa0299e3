# Every target sets up what it needs; nothing has to be installed first but Python 3.11 and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
DEMO   := sample_catalogs/home.enriched.parquet

export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help run test test-fast lint samples train-default clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: $(DEMO) ## Enrich a sample catalog with the embedded model and show three of its texts
	@$(BIN)/enrich show $(DEMO) -n 3
	@echo "The enriched catalog is $(DEMO). Yours: $(BIN)/enrich run CATALOG"

$(DEMO): sample_catalogs/home.parquet $(VENV)/.core
	$(BIN)/enrich run sample_catalogs/home.parquet -o $@

test: $(VENV)/.dev lint ## Run the whole test suite, lint and types
	$(BIN)/pytest

test-fast: $(VENV)/.dev ## Run the tests that take no more than a few seconds each
	$(BIN)/pytest -m "not slow"

lint: $(VENV)/.dev ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

samples: $(VENV)/.core ## Write the sample catalogs anew
	$(BIN)/python sample_catalogs/make_samples.py

train-default: $(VENV)/.dev ## Train the embedded model anew: make train-default CORPUS=retail_demo_store.parquet
	@test -f "$(CORPUS)" || { echo "CORPUS=FILE names the Retail Demo Store texts as Parquet; docs/models.md says where they come from"; exit 2; }
	mkdir -p build
	$(BIN)/python jobs/home_mini_corpus.py $(CORPUS) build/home-mini-training.parquet
	$(BIN)/enrich finetune build/home-mini-training.parquet --from-scratch mini --steps 3600 -o build/home-mini

clean: ## Remove the virtual environment and what was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache $(DEMO)

$(VENV)/.core: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $@
