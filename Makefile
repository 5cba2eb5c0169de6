# make demo: set up and run the whole pipeline on scenes made on the spot, offline, on the CPU.
# make test: set up and pass the tests.
# make test-all: those too that take long: every kill, every table of the paper, all of Ray, the notebook.
# make test-gpu-api: compare the calls into CuPy, cuML, FAISS GPU and cuVS with their wheels (3.6 GB to download, no GPU
# needed).
# make docs: write docs/cli.md and docs/settings.md, of which tests fail while they are stale, and build the site in site/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GPU_API := .venv-gpu-api
DATA ?= ../shared/data/msrc14

define WARM_UP
import numpy as np
from fastcomus.objects.saliency.background_prior import BackgroundPrior
BackgroundPrior()("", np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
endef
export WARM_UP

# Processes that tests start need not compile this project anew each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test types tests test-all docs test-gpu-api bench clean

demo: $(READY)
	$(BIN)/fastcomus demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) -j 2 types tests

# Beside one another, since mypy uses one core, for a minute where nothing of it is cached.
types: $(READY)
	$(BIN)/mypy

tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

docs: $(READY)
	$(BIN)/python -m typer --app app fastcomus.cli.commands utils docs --name fastcomus --title Commands --output docs/cli.md
	$(BIN)/python docs/write_settings.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The wheels of the extra gpu alone: faiss-gpu and faiss-cpu own the same folder. Nothing of tests/conftest.py is needed.
test-gpu-api: $(GPU_API)/.ready
	$(GPU_API)/bin/pytest --noconftest -c /dev/null --rootdir tests/gpu_api -p no:cacheprovider -q -s tests/gpu_api

$(GPU_API)/.ready: pyproject.toml
	$(PYTHON) -m venv $(GPU_API)
	$(GPU_API)/bin/pip install --quiet pytest $$($(PYTHON) -c "import tomllib; \
		print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['gpu'])")
	touch $(GPU_API)/.ready

bench: $(READY)
	$(BIN)/python -m bench.paper table1 --data $(DATA)

# torch is pinned to the release that the project is tested with; the rest resolves from pyproject.toml.
#
# pip leaves packages as source and all of them are compiled here, by every core, whatever PYTHONDONTWRITEBYTECODE says:
# where that is set, Python would else compile torch anew in every process, which takes 7 seconds. It costs
# 75 seconds of processor time, divided among the cores; packages' own tests and parts that nothing here imports, left
# out, would add 51. Files that are for a newer Python do not compile. The project itself is compiled too, and numba's
# functions of the default prior (ten seconds), which the first embed would else wait for.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile torch==2.14.1 torchvision==0.29.1
	$(BIN)/pip install --quiet --no-compile -e ".[cpu,offline,dev]"
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|rllib|serve|llm|debugpy|pip|setuptools|mypyc?|testing/_internal)/' \
		$(VENV)/lib fastcomus || true
	$(BIN)/python -c "$$WARM_UP"
	touch $(READY)

clean:
	rm -rf $(VENV) $(GPU_API) comus-demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis
