#!/usr/bin/env bash
# Builds llama-cpp-python (about ten minutes the first time), then compares: loading, generation, decoded tensors, speed.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1
if ! .venv/bin/python -c 'import llama_cpp' 2>/dev/null; then
  echo "peers: building llama-cpp-python"
  CMAKE_ARGS="-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) \
    .venv/bin/python -m pip --disable-pip-version-check install -q --no-build-isolation --no-binary llama-cpp-python llama-cpp-python==0.3.36
fi
# Runtimes beside which products and generation are timed. What is installed stays as it is.
.venv/bin/python -m pip freeze | grep -iE '^(torch|numpy|transformers|tokenizers|onnx|onnxruntime)==' >.venv/constraints.txt
for package in openvino torchao onnxruntime-genai; do
  .venv/bin/python -m pip --disable-pip-version-check install -q -c .venv/constraints.txt "$package" ||
    echo "peers: $package cannot be installed; it is not compared with"
done
ls demo/*/*.gguf >/dev/null 2>&1 || .venv/bin/python tools/demo.py
.venv/bin/python tools/peers.py demo
.venv/bin/python -m pytest -m peer
.venv/bin/python benchmarks/dequantize.py
.venv/bin/python benchmarks/quantize.py
.venv/bin/python benchmarks/quantize_grid.py
.venv/bin/python benchmarks/quantize_model.py --repeat 1
.venv/bin/python benchmarks/matmul.py --rows 1 128
.venv/bin/python benchmarks/torch_generate.py
tools/planar_peers.sh
