#!/usr/bin/env bash
# Compares the planar formats with the projects that define them: their packages decode what we write, and are timed
# beside us. They live in .venv-peers, on top of .venv; nothing that they would pull in may replace torch or NumPy.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 TORCHDYNAMO_DISABLE=1
PY=.venv-peers/bin/python
if [ ! -x $PY ]; then
  .venv/bin/python -m venv .venv-peers
  .venv/bin/python -c 'import site; print(site.getsitepackages()[0])' > "$($PY -c 'import site; print(site.getsitepackages()[0])')/base.pth"
fi
$PY -m pip --disable-pip-version-check install -q --no-deps \
  mlx mlx-cpu onnxruntime onnx onnx_ir compressed-tensors loguru frozendict hqq termcolor einops accelerate torchao \
  bitsandbytes aqlm gptqmodel pypcre logbar tokenicer device-smi defuser threadpoolctl openvino openvino-telemetry \
  nncf tabulate natsort jstyleson pydot pymoo cma moocore alive-progress about-time grapheme autograd Deprecated wrapt \
  scikit-learn scipy joblib pandas pytz dill numba llvmlite
$PY -m pytest -m peer tests/py/test_planar_peers.py
$PY benchmarks/planar.py
