# make demo | test | quick | faults | oracle | trt-check | lint | bench | wheel | bundle | bundle-deeppcb | bundle-surfaces
# Needs Python (3.10 to 3.12, with venv), git and make; everything else goes into .venv.

SHELL       := /bin/bash
VENV        ?= .venv
PYTHON      ?= $(shell .ci/find-python 3.11 3.12 3.10)
EXTRAS      ?= cpu,export,demo,dev
BIN         := $(VENV)/bin
STAMP       := $(VENV)/.stamp

# The plain `torch` of the public index is a CUDA build of several GB: ask for the CPU build by name.
TORCH        ?= torch==2.13.0+cpu
ORACLE_VENV  ?= .venv-oracle

# Compiles for a GPU that is not there; about 1 GB. Other versions list their layers in other words.
TRT          ?= tensorrt-rtx==1.7.1.116
TRT_VENV     ?= .venv-trt

# Real pictures, "research use": none is in this project
DEEPPCB      ?= ../shared/data/deeppcb
NEU          ?= ../shared/data/neu-det
MAGNETIC     ?= ../shared/data/magnetic-tile

REFERENCE    := examples/reference
EXPORT        = $(BIN)/orinspect export
BOARDS       := --recipe $(REFERENCE)/pcb-compare.toml --calibration "pcb-compare=scenes:pcb?seed=77"
METAL        := --recipe $(REFERENCE)/metal-surface.toml --calibration "metal-surface=scenes:metal?seed=77"
STEEL         = --recipe $(REFERENCE)/steel-surface.toml --calibration "steel-surface=neu:$(NEU)"
TILE          = --recipe $(REFERENCE)/tile-surface.toml --calibration "tile-surface=magnetic:$(MAGNETIC)"

.PHONY: demo test quick faults oracle trt-check lint bench bench-real wheel bundle bundle-deeppcb bundle-surfaces clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml setup.py Makefile
	@test -n "$(PYTHON)" || { echo "orinspect: no usable Python found; give one: make PYTHON=/usr/bin/python3.12"; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[$(EXTRAS)]"
	@mkdir -p $(VENV)/checkout && ln -sfn "$(CURDIR)" $(VENV)/checkout/orinspect
	@touch $@

demo: $(STAMP)
	$(BIN)/orinspect demo --out demo-out

test: $(STAMP)
	$(BIN)/pytest -m "not oracle and not gpu and not trt" $(ARGS)

quick: $(STAMP)
	$(BIN)/pytest -q -m "not slow and not oracle and not gpu and not trt" $(ARGS)

# Kills, power cuts, broken networks and damaged files for BUDGET minutes; goes on where it stopped and adds to
# docs/faults.jsonl. One campaign: make faults BUDGET=5 ARGS="--only kill9"
BUDGET       ?= 10
faults: $(STAMP)
	nice -n 10 $(BIN)/python -m orinspect.tests.faults --budget $(BUDGET) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	cd $(VENV)/checkout && $(CURDIR)/$(BIN)/mypy --config-file orinspect/pyproject.toml \
	    --cache-dir $(CURDIR)/.mypy_cache -p orinspect

# An environment of its own, so that `make test` goes on proving that it needs no torch.
oracle:
	@.ci/find-python 3.11 >/dev/null || { echo "orinspect: the oracle (torch 2.13.0, transformers 5.23.0) is pinned for Python 3.11, and none was found"; exit 1; }
	@$(MAKE) --no-print-directory $(ORACLE_VENV)/.stamp-torch VENV=$(ORACLE_VENV) PYTHON="$$(.ci/find-python 3.11)"
	$(ORACLE_VENV)/bin/pytest -m oracle $(ARGS)

$(ORACLE_VENV)/.stamp-torch: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "$(TORCH)" -e ".[oracle]" || { \
	    echo "orinspect: $(TORCH) cannot be installed from the package index in use."; \
	    echo "Point pip to PyTorch's own index of CPU builds, or take the CUDA build (several GB): make oracle TORCH=torch==2.13.0"; \
	    exit 1; }
	@touch $@

# TensorRT without a GPU: builds of every graph and profile, the names of its Python bindings, and the engine
# with ONNX Runtime in TensorRT's place over the real CUDA bindings.
trt-check:
	@$(MAKE) --no-print-directory $(TRT_VENV)/.stamp-trt VENV=$(TRT_VENV) EXTRAS=cpu,export,dev
	$(TRT_VENV)/bin/pytest -q -m "not trt" tests/export/tensorrt tests/runtime/infer/engines tests/jetson
	$(TRT_VENV)/bin/pytest -m trt $(ARGS)

$(TRT_VENV)/.stamp-trt: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "$(TRT)" || { \
	    echo "orinspect: $(TRT) cannot be installed from the package index in use; it is on PyPI for Linux on x86-64."; \
	    exit 1; }
	@touch $@

# INT8 and float of the shipped checkpoint, in turns; other bundles: orinspect bench --help
bench: bundle/manifest.json bundle-float/manifest.json
	$(BIN)/orinspect bench bundle --against bundle-float $(ARGS)
	$(MAKE) --no-print-directory bench-real

# Qwen3-VL 2B with random weights: 15 GB of disk, 8 GB of memory, up to 20 minutes; more: docs/real-size.md
bench-real: $(STAMP)
	$(BIN)/python -m orinspect.examples.real_size.measure --json runs/real-size.json $(REAL_SIZE)

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

bundle/manifest.json: | $(STAMP)
	$(EXPORT) $(REFERENCE)/reference $(BOARDS) $(METAL) -o bundle

bundle-float/manifest.json: | $(STAMP)
	$(EXPORT) $(REFERENCE)/reference $(BOARDS) $(METAL) -o bundle-float --precision float32

bundle: $(STAMP)
	$(EXPORT) $(REFERENCE)/reference $(BOARDS) $(METAL) -o $@

bundle-deeppcb: $(STAMP)
	$(EXPORT) $(REFERENCE)/reference-deeppcb --recipe $(REFERENCE)/pcb-compare.toml -o $@ --calibration "$(DEEPPCB)"

bundle-surfaces: $(STAMP)
	$(EXPORT) $(REFERENCE)/reference-deeppcb $(STEEL) $(TILE) -o $@

clean:
	rm -rf bundle bundle.work bundle-float bundle-float.work build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
