# The commands of this project; `make help` lists them. Everything lives in .venv, build/ and demo/.
PY := .venv/bin/python
export CMAKE_GENERATOR := Ninja
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup install demo test lint peers bench asan arm fuzz clean

help:            ## list the commands
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup:           ## system packages, virtual environment, Python packages
	@tools/setup.sh

install: setup   ## build the package from source, with its C++ tests, and install it into .venv
	@$(PY) -m pip --disable-pip-version-check install -q --no-build-isolation --no-deps \
	  --config-settings=build-dir=build/package --config-settings=cmake.define.EDGEQUANT_TESTS=ON .

demo: install    ## the main job on two real models: quantize, evaluate, table, plot
	@$(PY) tools/demo.py

test: install    ## the C++ and Python tests
	ctest --test-dir build/package --output-on-failure
	$(PY) tools/check_layers.py
	$(PY) -m pytest

lint: setup      ## style and types
	$(PY) -m ruff check .
	$(PY) -m mypy

peers: install   ## compare with llama.cpp: loading, generation, decoded tensors, speed (long)
	@tools/peers.sh

bench: install   ## speed per format against the best peer installed
	$(PY) benchmarks/dequantize.py
	$(PY) benchmarks/quantize.py
	$(PY) benchmarks/quantize_grid.py
	$(PY) benchmarks/matmul.py --shape 4096 4096 --shape 14336 4096 --repack
	$(PY) benchmarks/matmul.py --rows 1 128 512 --formats ct.int8.channel --grouped 1 64

asan: setup      ## the C++ tests with address and undefined-behaviour sanitizers
	cmake --preset asan && cmake --build --preset asan && ctest --preset asan

arm: setup       ## the C++ tests for 64-bit Arm in an emulator
	cmake --preset aarch64 && cmake --build --preset aarch64 && ctest --preset aarch64

fuzz: setup      ## run both parsers' fuzzers (SECONDS_EACH=600); needs clang
	@tests/fuzz/run $${SECONDS_EACH:-600}

clean:           ## remove everything that was built
	rm -rf build demo .venv
