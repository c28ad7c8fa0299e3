# Every target sets up what it needs; nothing has to be installed first but Python 3.11 and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
AIRFLOW_VENV ?= .airflow-venv
S3_VENV ?= .s3-venv
AUDIT_VENV ?= .audit-venv
OLDEST_VENV ?= .oldest-venv
BENCH_VENV ?= .bench-venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
DEMO   := sample_catalogs/home.enriched.parquet

export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help run enrich status nightly demo report browser-test ray-test screenshots bench bench-peers gpu-check test test-fast airflow-test s3-test crash-test fault-test coverage mutation-test fuzz soak audit lint samples train-default wheel-test extras-test oldest-test clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: $(DEMO) ## Enrich a sample catalog with the embedded model and show three of its texts
	@$(BIN)/enrich show $(DEMO) -n 3
	@echo "The enriched catalog is $(DEMO). Yours: $(BIN)/enrich run CATALOG"

$(DEMO): sample_catalogs/home.parquet $(VENV)/.core
	$(BIN)/enrich run sample_catalogs/home.parquet -o $@

enrich: $(VENV)/.core ## Enrich a catalog: make enrich CATALOG=file [OUT=file]
	@test -n "$(CATALOG)" || { echo "make enrich CATALOG=file [OUT=file]"; exit 2; }
	$(BIN)/enrich run "$(CATALOG)" $(if $(OUT),-o "$(OUT)")

status: $(VENV)/.core ## Show how far the run is that writes a file: make status OUT=file
	@test -n "$(OUT)" || { echo "make status OUT=file"; exit 2; }
	@$(BIN)/enrich status "$(OUT)"

nightly: $(VENV)/.core ## Run the nightly job once, as cron would: make nightly CATALOG=file [OUT=file]
	@test -n "$(CATALOG)" || { echo "make nightly CATALOG=file [OUT=file]"; exit 2; }
	@jobs/nightly.sh "$(CATALOG)" $(if $(OUT),-o "$(OUT)")
	@echo "The end of its log, $${NIGHTLY_LOG:-logs/nightly.log}:"; tail -n 3 "$${NIGHTLY_LOG:-logs/nightly.log}"

demo: $(VENV)/.demo ## Serve the live demo on this machine: make demo [MODEL=name]
	$(BIN)/enrich demo $(if $(MODEL),--model "$(MODEL)")

report: $(VENV)/.report ## Write the report on an output: make report OUT=file
	@test -n "$(OUT)" || { echo "make report OUT=file"; exit 2; }
	$(BIN)/enrich report "$(OUT)"

browser-test: $(VENV)/.browser ## Run the tests of report and demo in headless Chromium, which apt-get installs if need be
	$(BIN)/pytest -m browser tests/integration/test_browser.py

ray-test: $(VENV)/.ray ## Run the tests of several workers in a real Ray on this machine: make ray-test [SHORT=1]
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "ray$(if $(SHORT), and not slow)" tests/integration/test_ray.py

screenshots: $(VENV)/.browser ## Take the docs' screenshots of report and demo anew
	$(BIN)/python docs/take_screenshots.py

bench: $(VENV)/.core ## Measure the speed beside that of the transformers pipeline
	$(BIN)/python benchmarks/bench_run.py

BENCH ?= --dtype float32,bfloat16 --cases all
bench-peers: $(VENV)/.core $(BENCH_VENV)/.done ## Measure the engine beside transformers, CTranslate2 and OpenVINO: make bench-peers [BENCH=options]
	$(BIN)/python benchmarks/bench_engine.py --peers all --peer-python $(BENCH_VENV)/bin/python --export-python $(BENCH_VENV)/bin/python $(BENCH)

# Any Python that has torch, with CUDA, and transformers: nothing is installed, and nothing of .venv is used.
gpu-check: ## Test and measure the engine on this machine's GPU: make gpu-check [PYTHON=one that has torch]
	$(PYTHON) benchmarks/gpu_check.py

# A process a core, each with one thread: threads of several processes on the same cores wait for each other.
PROCESSES ?= auto
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSES) --dist worksteal
FAST := not slow and not airflow and not browser and not ray and not s3
test: $(VENV)/.dev lint ## Run the whole test suite, lint and types
	$(PYTEST)

test-fast: $(VENV)/.dev ## Run the tests that take no more than a few seconds each
	$(PYTEST) -m "$(FAST)"

fuzz: $(VENV)/.fuzz ## Fuzz the CSV and template front ends: make fuzz [SECONDS=600]
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(or $(SECONDS),600)

soak: $(VENV)/.dev ## Enrich thousands of rows and watch memory, open files and pace: make soak [ROWS=10000]
	$(BIN)/python tests/integration/soak.py --rows $(or $(ROWS),10000)

audit: $(AUDIT_VENV)/.done ## Ask for known vulnerabilities of the pinned packages: make audit [AUDIT=--if-reachable]
	$(AUDIT_VENV)/bin/python tests/audit.py $(AUDIT) constraints.txt benchmarks/constraints.txt jobs/airflow/constraints.txt tests/integration/s3/constraints.txt

airflow-test: $(VENV)/.dev $(AIRFLOW_VENV)/.done ## Run the Airflow DAG in a real Airflow, in an environment of its own
	AIRFLOW_VENV=$(AIRFLOW_VENV) $(BIN)/pytest -m airflow tests/integration/test_airflow.py

s3-test: $(VENV)/.dev $(S3_VENV)/.done ## Run with everything on an S3 server on this machine: make s3-test [SHORT=1]
	S3_VENV=$(S3_VENV) OMP_NUM_THREADS=1 $(BIN)/pytest -m "s3$(if $(SHORT), and not slow)" tests/integration/test_s3.py

crash-test: $(VENV)/.dev ## Kill runs of the command everywhere, hundreds of times, and count what is lost (twenty minutes)
	OMP_NUM_THREADS=1 $(BIN)/python tests/integration/crash/kills.py

fault-test: $(VENV)/.dev ## Let disks, checkpoints, engines, memory and clocks fail, and count what is lost
	OMP_NUM_THREADS=1 $(BIN)/python tests/integration/crash/failures.py

coverage: $(VENV)/.dev ## Run the whole test suite and count the lines of enrich that it has run; 90 % are asked for
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n $(PROCESSES) --dist worksteal; tests=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report --skip-covered --show-missing --fail-under=90 && exit $$tests

mutation-test: $(VENV)/.dev ## Break every stage on purpose and see that its tests notice
	$(BIN)/python tests/mutations.py

lint: $(VENV)/.dev ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

samples: $(VENV)/.core ## Write the sample catalogs anew
	$(BIN)/python sample_catalogs/make_samples.py

STEPS ?= 5269
FINISHING_STEPS ?= 2049
TRAINING := --no-clean --validation build/home-mini-data/validation.parquet --batch-size 256 --max-tokens 256 --patience 0
train-default: $(VENV)/.dev ## Train the embedded model anew: make train-default CORPUS=directory of the two corpora
	@test -f "$(CORPUS)/retail_demo_store.parquet" -a -f "$(CORPUS)/vespa_ecommerce.parquet" || { echo "CORPUS=DIRECTORY names where retail_demo_store.parquet and vespa_ecommerce.parquet lie; docs/models.md says where they come from"; exit 2; }
	$(BIN)/python jobs/home_mini $(CORPUS)/retail_demo_store.parquet $(CORPUS)/vespa_ecommerce.parquet build/home-mini-data
	$(BIN)/enrich finetune build/home-mini-data/training.parquet $(TRAINING) --template jobs/home_mini/prompt.j2 --from-scratch mini --steps $(STEPS) --learning-rate 3e-3 --warmup-steps 500 --dropout 0.1 -o build/home-mini-begun
	$(BIN)/enrich finetune build/home-mini-data/finishing.parquet $(TRAINING) --base build/home-mini-begun --steps $(FINISHING_STEPS) --learning-rate 8e-4 --warmup-steps 100 --word-dropout 0.1 --calibrate --temperature 0.35 -o build/home-mini

wheel-test: $(VENV)/.core ## Build the wheel, install it into an empty environment and run it away from the source tree
	rm -rf build/wheel
	$(PIP) wheel --quiet --no-deps -w build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt build/wheel/*.whl
	cp sample_catalogs/home.csv build/wheel
	cd build/wheel && HF_HUB_OFFLINE=1 venv/bin/enrich run home.csv --limit 20 && venv/bin/enrich show home.enriched.parquet

extras-test: ## Build the wheel, install it with each extra into an empty environment and use the extra there
	$(PYTHON) tests/integration/extras.py $(EXTRAS)

oldest-test: $(OLDEST_VENV)/.done ## Run the quick tests with the oldest versions that pyproject.toml allows
	CONSTRAINTS=$(OLDEST_VENV)/constraints.txt $(PYTEST:$(BIN)/%=$(OLDEST_VENV)/bin/%) -m "$(FAST)"

clean: ## Remove the virtual environment and what was built
	rm -rf $(VENV) $(AIRFLOW_VENV) $(S3_VENV) $(AUDIT_VENV) $(OLDEST_VENV) $(BENCH_VENV) build dist .pytest_cache .mypy_cache .ruff_cache $(DEMO)

$(VENV)/.core: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.report: $(VENV)/.core
	$(PIP) install --quiet -c constraints.txt -e ".[report]"
	@touch $@

$(VENV)/.demo: $(VENV)/.core
	$(PIP) install --quiet -c constraints.txt -e ".[demo]"
	@touch $@

$(VENV)/.browser: $(VENV)/.dev
	$(PIP) install --quiet -c constraints.txt -e ".[dev,demo,browser]"
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y chromium; }
	@touch $@

$(VENV)/.ray: $(VENV)/.dev
	$(PIP) install --quiet -c constraints.txt -e ".[dev,ray]"
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP) install --quiet -c constraints.txt -e ".[dev,fuzz]" || echo "atheris can't be had here: inputs are changed at random"
	@touch $@

$(OLDEST_VENV)/constraints.txt: constraints-oldest.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(OLDEST_VENV)
	awk -F== 'NR == FNR { oldest[$$1]; print; next } !($$1 in oldest)' $^ > $@

$(OLDEST_VENV)/.done: $(OLDEST_VENV)/constraints.txt pyproject.toml
	$(OLDEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c $< -e ".[dev]"
	@touch $@

$(AUDIT_VENV)/.done: constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c $< pip-audit
	@touch $@

# torchvision, which the exporter asks for but does not use, comes for another build of torch where torch is without CUDA.
$(BENCH_VENV)/.done: benchmarks/constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c $< ctranslate2 openvino-genai optimum-intel
	$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchvision
	@touch $@

$(AIRFLOW_VENV)/.done: jobs/airflow/constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(AIRFLOW_VENV)
	$(AIRFLOW_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c $< apache-airflow apache-airflow-providers-standard
	@touch $@

$(S3_VENV)/.done: tests/integration/s3/constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -m venv $(S3_VENV)
	$(S3_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c $< "moto[s3]" flask flask-cors
	@touch $@
