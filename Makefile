# Everything a newcomer needs: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_VENV := .venv-run
RUN_BIN := $(RUN_VENV)/bin

# The native library is built when the package is installed, from all of runtime/ but what tests alone read.
NATIVE := $(shell find runtime -type f -not -path 'runtime/tests/*' -not -path 'runtime/examples/*')
# Markers of the deep tier; pyproject.toml says what each is.
DEEP := sanitizers or cross or engines or slow or thorough

# What is installed where `make demo` runs: a wheel, as users have it.
PACKAGE := $(shell find eosfm_edge targets pruning calibration export -type f -not -path '*/__pycache__/*')

.PHONY: help demo road test test-deep test-all torch-ends lock lint tidy runtime-only wheels deb gpu-prepare gpu bench fidelity int8 swath seams fuzz clean

help:
	@echo 'make demo          run a small bundle over a Sentinel-2 scene, without PyTorch (downloads 0.14 GB)'
	@echo 'make road          import, prune, calibrate, export and run, before and after (PyTorch: downloads gigabytes)'
	@echo 'make test          run the tests of every change, in minutes'
	@echo 'make test-deep     run sanitizers, fuzzers, emulators, engine builds, full-size networks, more cases'
	@echo 'make test-all      run both'
	@echo 'make torch-ends    run the tests that use PyTorch with its lowest and highest versions (gigabytes, an hour)'
	@echo 'make lock          write dev.lock anew: the versions of what development installs'
	@echo 'make lint          check style and types'
	@echo 'make tidy          look for faults in libeosfm with clang-tidy (some minutes)'
	@echo 'make runtime-only  verify and run the bundles of make road without torch'
	@echo 'make gpu-prepare   put what the CUDA engine needs into build/gpu (after make road; docs/cuda.md)'
	@echo 'make gpu           check and time the CUDA engine from build/gpu, on a machine with a GPU'
	@echo 'make wheels        build wheels for x86-64 and aarch64, glibc and musl, into dist'
	@echo 'make deb           build a Debian package of libeosfm, its headers and eosfm into build/deb'
	@echo 'make bench         time the native engine against others (after make road; ten minutes)'
	@echo 'make fidelity      measure what pruning leaves (DATA=folder of data sets; an hour)'
	@echo 'make int8          measure what int8 leaves, and its speed (DATA=the same; 40 minutes)'
	@echo 'make swath         stream a full-size Sentinel-2 scene (after make demo; 20 minutes)'
	@echo 'make seams         measure what tiles do to features (after make demo; 25 minutes)'
	@echo 'make fuzz          fuzz bundles, packets and calls, ten minutes each (clang)'
	@echo 'make clean         remove what these made'

# dev.lock says which versions, so that what passes here passes elsewhere and later.
$(VENV)/installed: pyproject.toml dev.lock $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]' --constraint dev.lock
	touch $@

$(RUN_VENV)/installed: pyproject.toml $(NATIVE) $(PACKAGE)
	@echo 'installing into $(RUN_VENV), for running bundles: about 0.1 GB from PyPI, 0.4 GB on the disk'
	$(PYTHON) -m venv $(RUN_VENV)
	$(RUN_BIN)/pip install --quiet '.[run]'
	touch $@

demo: $(RUN_VENV)/installed
	PATH="$(CURDIR)/$(RUN_BIN):$$PATH" sh examples/demo.sh build/demo

# The environment is that of `make test`, which adds the tools of development to it.
$(VENV)/road: pyproject.toml dev.lock $(NATIVE)
	@echo 'installing PyTorch and what prunes and calibrates into $(VENV): gigabytes from PyPI, 6 GB on the disk, since'
	@echo 'it has PyTorch with CUDA; much less where PIP_EXTRA_INDEX_URL leads pip to its wheels for the CPU'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[calibrate,prune]' --constraint dev.lock
	touch $@

road: $(VENV)/road
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/road.sh build/demo

# One process for each core. Files stay whole, since their tests share what is slow to make.
test: $(VENV)/installed
	$(BIN)/pytest --numprocesses auto --dist loadfile -m 'not ($(DEEP))'

test-deep: $(VENV)/installed
	$(BIN)/pytest --numprocesses auto --dist worksteal -m '$(DEEP)'

test-all: test test-deep

# Of PyTorch and what goes with it, the versions that pyproject.toml allows: an environment of the lowest, and one of
# the highest, in build/torch-ends. Downloads some gigabytes.
torch-ends: $(VENV)/installed
	$(BIN)/python packaging/torch_ends.py build/torch-ends

# After a change of what is needed in pyproject.toml, or to take later versions.
lock: $(VENV)/installed
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --upgrade --extra dev --no-annotate \
	  --no-emit-index-url --custom-compile-command 'make lock' pyproject.toml --output-file dev.lock

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files 'runtime/*.c' 'runtime/*.cc' 'runtime/*.cu' 'runtime/*.h' 'runtime/*.hpp' | \
	  grep -v '^runtime/tests/abi/0' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy

# The checks of .clang-tidy, over all that the library, its program and packets are built from here.
tidy: $(VENV)/installed
	$(BIN)/cmake -S runtime -B build/native/tidy -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
	$(BIN)/run-clang-tidy.py -quiet -clang-tidy-binary $(BIN)/clang-tidy -p build/native/tidy -warnings-as-errors '*'

gpu-prepare: $(VENV)/installed
	$(BIN)/python benchmarks/gpu/cuda_engine.py prepare build/gpu build/demo/six.eosfm

# The machine needs a driver, Python and numpy; build/gpu may have been copied to it.
gpu:
	PYTHONPATH=build/gpu $(PYTHON) build/gpu/cuda_engine.py measure build/gpu/bundle \
		--json benchmarks/results/cuda-engine.json

# For x86-64 and aarch64, glibc from 2.28 and musl from 1.2; compiled by Zig.
wheels: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[wheels]'
	$(BIN)/python packaging/wheels.py dist

# Of libeosfm, its headers, what finds them and the program eosfm, for this machine.
deb:
	cmake -S runtime -B build/deb -DCMAKE_BUILD_TYPE=Release
	cmake --build build/deb --parallel
	cd build/deb && cpack -G DEB

# What a ground station or a payload installs, proven on the bundles that `make road` left.
runtime-only: $(RUN_VENV)/installed
	! $(RUN_BIN)/python -c 'import torch' 2>/dev/null
	$(RUN_BIN)/eosfm-edge verify build/demo/six.eosfm
	$(RUN_BIN)/eosfm-edge verify build/demo/six.eosfm --backend onnxruntime
	$(RUN_BIN)/eosfm-edge run build/demo/six.eosfm build/demo/scene -o build/demo/before-again --overwrite
	cmp build/demo/before/level4.tif build/demo/before-again/level4.tif

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
