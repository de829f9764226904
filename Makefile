# Each verb works on a fresh clone: the environment is made when it is missing or out of date.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RUN ?= runs/demo
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON_ARVIZ1 ?= python3.12
VENV_ARVIZ1 ?= .venv-arviz1
INSTALLED_ARVIZ1 := $(VENV_ARVIZ1)/.installed
# One thread a process: the networks are small, and JOBS processes share the cores.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all test-arviz1 lint tutorials bench coverage clean

demo: $(INSTALLED)  ## compare objectives on scikit-learn's digits; writes $(RUN)
	$(BIN)/pyro-lvm compare --out $(RUN) --overwrite

test: $(INSTALLED)  ## the default tests
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-all: $(INSTALLED)  ## slow tests too
	$(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow" $(ARGS)

test-arviz1: $(INSTALLED_ARVIZ1)  ## the last stage of the bridge with ArviZ 1, for Python 3.12
	$(VENV_ARVIZ1)/bin/python -m pytest --noconftest tests/test_inference_data.py $(ARGS)

lint: $(INSTALLED)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/test_types.py

tutorials: $(INSTALLED)  ## run every tutorial and write its notebook
	$(BIN)/python tutorials/execute.py

bench: $(INSTALLED)  ## steps beside peers, and scaling curves; writes benchmarks/results
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[peers]'
	$(BIN)/python -m benchmarks.peers
	rm -f benchmarks/results/scaling.json
	$(BIN)/python -m benchmarks.scaling --seeds 3
	$(BIN)/python -m benchmarks.scaling_page

coverage: $(INSTALLED)  ## which lines the default tests reach
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report

clean:
	rm -rf $(VENV) $(VENV_ARVIZ1) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Torch first and alone, so that its pin decides the build before anything else asks for it.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test,lint,tutorials]'
	touch $@

# Without torch and this package: what is tested there imports neither.
$(INSTALLED_ARVIZ1): constraints.txt
	test -x $(VENV_ARVIZ1)/bin/python || $(PYTHON_ARVIZ1) -m venv $(VENV_ARVIZ1)
	$(VENV_ARVIZ1)/bin/python -m pip install -q -c constraints.txt \
		'arviz>=1' h5netcdf h5py pandas pytest zarr
	touch $@
