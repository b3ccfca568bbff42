# Two commands: `make demo` shows LWFM-SPM on the bundled images, `make test` checks everything. `make train-demo` trains
# from scratch on the same images. All set up a virtual environment in .venv first and touch nothing outside the checkout.

PYTHON ?= python3
VENV ?= .venv
# Minutes that train-demo trains; the number of epochs follows from the measured time of a step.
MINUTES ?= 6
TRAINED ?= runs/trained-$(shell date +%Y%m%d-%H%M%S)
BIN := $(abspath $(VENV))/bin
CXX_FILES = $(shell git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cuh' 'csrc/*.cu' 'tests/*.h' 'tests/*.cpp')
SOURCES := setup.py setup_cuda.py setup_objects.py $(shell find csrc -type f)
DEMO_CLASS := test/movie-camera
# The requirements of a build, from pyproject.toml; where they are installed, pip does not fetch torch again.
BUILD_NEEDS = $(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')"

.PHONY: demo train-demo test lint types core-test docs python-test clean

demo: $(VENV)/installed-offline,report
	$(BIN)/lwfm demo --out runs/demo

train-demo: $(VENV)/installed-train
	$(BIN)/lwfm train --preset emoji --max_time $(MINUTES) --out $(TRAINED)
	@echo && echo "== the trained network on unseen classes"
	$(BIN)/lwfm evaluate --checkpoint $(TRAINED)/best.safetensors --queries 5 --out $(TRAINED)/result.json
	@echo && echo "== the same network before training"
	$(BIN)/lwfm evaluate --queries 5 --out $(TRAINED)/untrained.json
	@$(BIN)/python -m zipfile -e lwfm/data/emoji84.zip $(TRAINED)/images
	$(BIN)/lwfm match $(TRAINED)/images/$(DEMO_CLASS)/fxemoji.webp $(TRAINED)/images/$(DEMO_CLASS)/noto.webp \
		--checkpoint $(TRAINED)/best.safetensors --out $(TRAINED)/match.png
	@echo && echo "curves: $(TRAINED)/curves.png   matches: $(TRAINED)/match.png   results: $(TRAINED)/result.json"

test: lint types core-test docs python-test

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

types: $(VENV)/installed-dev
	$(BIN)/mypy

# The solver's C++ tests: plain, and under sanitizers.
SANITIZE_plain :=
SANITIZE_asan := address,undefined
SANITIZE_tsan := thread
# Optimizing what a sanitizer has instrumented takes the compiler ten times as long as running it saves.
BUILD_plain := RelWithDebInfo
BUILD_asan := Debug
BUILD_tsan := Debug

core-test: core-test-plain core-test-asan core-test-tsan

core-test-%: $(VENV)/installed-dev
	$(BIN)/cmake -S . -B build-core/$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(BIN)/ninja -DLWFM_SANITIZE=$(SANITIZE_$*) \
		-DCMAKE_BUILD_TYPE=$(BUILD_$*)
	$(BIN)/cmake --build build-core/$*
	$(BIN)/ctest --test-dir build-core/$* --output-on-failure

# The documentation site, build/site/index.html; a warning is an error.
docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/site

python-test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

# One stamp for the modules, one for each set of extras: changed C++ or CUDA sources never call pip, other
# extras compile nothing. Object files stay in build/objects, and only those that are out of date are made.
$(VENV)/needs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install torch torchvision
	$(BUILD_NEEDS) | $(BIN)/pip install -r /dev/stdin
	touch $@

$(VENV)/built: $(SOURCES) $(VENV)/needs
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@

$(VENV)/installed-%: pyproject.toml $(VENV)/needs | $(VENV)/built
	$(BIN)/pip install --no-build-isolation -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build build-core *.egg-info lwfm/*.so
