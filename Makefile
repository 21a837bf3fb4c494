# Everything a newcomer needs: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_VENV := .venv-run

# The native library is built when the package is installed, from all of runtime/ but what tests alone read.
NATIVE := $(shell find runtime -type f -not -path 'runtime/tests/*' -not -path 'runtime/examples/*')
# Markers of the deep tier; pyproject.toml says what each is.
DEEP := sanitizers or cross or engines or slow

.PHONY: help demo test test-deep test-all lint runtime-only gpu-prepare gpu bench fidelity int8 swath seams fuzz clean

help:
	@echo 'make demo          install into .venv and run the main job on a Sentinel-2 scene'
	@echo 'make test          run the tests of every change, in minutes'
	@echo 'make test-deep     run sanitizers, fuzzers, emulators, engine builds and full-size networks'
	@echo 'make test-all      run both'
	@echo 'make lint          check style and types'
	@echo 'make runtime-only  verify and run the demo bundle in an environment without torch'
	@echo 'make gpu-prepare   put what the CUDA engine needs into build/gpu (after make demo; docs/cuda.md)'
	@echo 'make gpu           check and time the CUDA engine from build/gpu, on a machine with a GPU'
	@echo 'make bench         time the native engine against others (after make demo; ten minutes)'
	@echo 'make fidelity      measure what pruning leaves (DATA=folder of data sets; an hour)'
	@echo 'make int8          measure what int8 leaves, and its speed (DATA=the same; 40 minutes)'
	@echo 'make swath         stream a full-size Sentinel-2 scene (after make demo; 20 minutes)'
	@echo 'make seams         measure what tiles do to features (after make demo; 25 minutes)'
	@echo 'make fuzz          fuzz bundles, packets and calls, ten minutes each (clang)'
	@echo 'make clean         remove what these made'

$(VENV)/installed: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh build/demo

# One process for each core. Files stay whole, since their tests share what is slow to make.
test: $(VENV)/installed
	$(BIN)/pytest --numprocesses auto --dist loadfile -m 'not ($(DEEP))'

test-deep: $(VENV)/installed
	$(BIN)/pytest --numprocesses auto --dist worksteal -m '$(DEEP)'

test-all: test test-deep

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files 'runtime/*.c' 'runtime/*.cc' 'runtime/*.cu' 'runtime/*.h' 'runtime/*.hpp' | \
	  grep -v '^runtime/tests/abi/0' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy

gpu-prepare: $(VENV)/installed
	$(BIN)/python benchmarks/gpu/cuda_engine.py prepare build/gpu build/demo/six.eosfm

# The machine needs a driver, Python and numpy; build/gpu may have been copied to it.
gpu:
	PYTHONPATH=build/gpu $(PYTHON) build/gpu/cuda_engine.py measure build/gpu/bundle \
		--json benchmarks/results/cuda-engine.json

# What a ground station or a payload installs, proven on the bundle that `make demo` left.
runtime-only:
	$(PYTHON) -m venv $(RUN_VENV)
	$(RUN_VENV)/bin/pip install --quiet '.[run]'
	! $(RUN_VENV)/bin/python -c 'import torch' 2>/dev/null
	$(RUN_VENV)/bin/eosfm-edge verify build/demo/six.eosfm
	$(RUN_VENV)/bin/eosfm-edge run build/demo/six.eosfm build/demo/scene -o build/demo/features-again --overwrite
	cmp build/demo/features/level4.tif build/demo/features-again/level4.tif

# Nothing else should run meanwhile.
bench: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/engines.py --scene build/demo/scene

# DATA is the folder that examples/specialists/tasks.py describes. Nothing else should run meanwhile.
fidelity: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/fidelity.py --data $(DATA)

int8: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/int8.py --data $(DATA)

swath: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/swath.py --scene build/demo/scene

seams: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/seams.py --scene build/demo/scene

fuzz: $(VENV)/installed
	EOSFM_FUZZ_SECONDS=600 EOSFM_FUZZ_CORPUS=$(CURDIR)/build/fuzz-corpus $(BIN)/pytest tests/native/test_sanitizers.py -k fuzzing

clean:
	rm -rf $(VENV) $(RUN_VENV) build
