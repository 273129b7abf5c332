# make         set up and run the pipeline        make ui      MLflow's pages on http://127.0.0.1:5000
# make test    set up and run the tests           make check   lint, types and workflows
# make test-fast   unit tests alone, in a minute  make coverage  the tests, and which lines of stages/ they run
# make test-slow   those that take minutes: DVC's queue, Ray, a team's server, MLflow's pages, full disks, other processors
# make lock    resolve requirements.txt anew      make track   rebuild the MLflow run from the outputs
# make bench   measure what everything costs      make verify  prove that dvc.lock holds, byte for byte
# make bench-scale   measure memory and time of every stage on 10 times MNIST
# make bench-sweep   count the trials that a sweep's samplers need
# make bench-networks   measure how fast a convolutional network trains, beside Keras's fit
# make bench-recipes   measure what the recipes of docs/recipes reach, for an hour; RECIPES="mnist" for some
# make bench-c   measure what an answer of the C file costs on microcontrollers, emulated
# make web-runtimes   the runtimes for browsers that a test compares
# make docs    build docs/_build/html, without a network
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
# Stages are started as `python`: the environment's must be the first on the path.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION := false
# Eight processes for judging language models, of which there are none here.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
PORT ?= 5000

.PHONY: repro setup web-runtimes test test-fast test-slow coverage check docs ui track bench bench-scale bench-sweep bench-networks bench-recipes bench-c verify lock

repro: setup
	dvc repro

setup: $(READY)

# pip compiles to byte code as it installs; the project itself goes in as a link to this folder.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "make: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# What tests/web/test_web_runtimes.py compares; needs npm. No package runs code of its own as it is installed.
web-runtimes:
	mkdir -p .cache/npm
	cp tests/web/npm/package.json tests/web/npm/package-lock.json .cache/npm
	npm ci --prefix .cache/npm --ignore-scripts --no-audit --no-fund --silent

# Each test module in one of two processes, for its fixtures run the pipeline.
test: setup
	pytest --numprocesses 2 --dist loadfile -m "not slow"

# For the loop of edit and test: what starts no pipeline and next to no TensorFlow.
FAST := $(addprefix tests/, core data documents plotting runner validation \
	exports/test_checksums.py exports/test_lineage.py exports/test_parity.py faults/test_properties.py \
	microcontroller/test_c_source.py model/test_metrics.py model/test_shuffling.py pipeline/test_graph.py \
	sweeps/test_sweep_plan.py sweeps/test_results.py tracking/test_manifest.py tracking/test_promotion.py \
	verification/test_differences.py)

test-fast: setup
	pytest --numprocesses 2 --dist worksteal -m "not slow and not heavy" $(FAST)

test-slow: setup
	pytest --numprocesses 2 --dist loadfile -m slow

# Apart from `make test`, for it takes up to a third longer.
coverage: setup
	pytest --numprocesses 2 --dist loadfile -m "not slow" --cov

check: setup
	ruff check
	ruff format --check
	mypy
	zizmor --quiet --offline --pedantic .
	check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

# A link to a page or a heading that is not there is a warning, and a warning an error. Pages hold parts of the code, so
# all are read anew.
docs: setup
	python -m sphinx --builder html --fresh-env --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html

# One person's pages need one worker, not four: it answers in a third of the time.
ui: setup
	mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 --backend-store-uri sqlite:///mlflow.db --default-artifact-root mlartifacts

track: setup
	python -m stages.track

# JAX is for the benchmark of training alone. A quarter of an hour; the machine should have nothing else to do.
bench: setup
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement benchmarks/requirements.txt
	python -m benchmarks.predictions
	python -m benchmarks.training
	python -m benchmarks.pipeline

# MNIST 1 and 10 times as large; by hand, --sizes 100 if 60 GB of disk are free.
bench-scale: setup
	python -m benchmarks.scale

# A quarter of an hour, too.
bench-sweep: setup
	python -m benchmarks.sweep_samplers

# On data/normalized; by hand, --conv-blocks '[[32, 32], [64, 64]]'.
bench-networks: setup
	python -m benchmarks.networks

bench-recipes: setup
	python -m benchmarks.recipes $(RECIPES)

# Needs qemu-system-arm, and GCC for Arm for its half of the figures.
bench-c: setup
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement tests/machines/requirements.txt
	python -m benchmarks.c_classifier

verify: setup
	pipeline verify --emulate

# Needs uv and npm. One version of each package for every Python, with hashes and without addresses.
lock:
	uv pip compile pyproject.toml --extra dev --extra docs --extra runtimes --extra sweep --universal --python-version 3.11 --fork-strategy fewest \
		--generate-hashes --no-header --output-file requirements.txt
	uv pip compile --group bench --constraints requirements.txt --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-header --output-file benchmarks/requirements.txt
	uv pip compile --group processors --universal --python-version 3.11 --generate-hashes --no-header \
		--output-file tests/machines/requirements.txt
	npm install --prefix tests/web/npm --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund
