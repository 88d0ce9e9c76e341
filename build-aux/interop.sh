#!/usr/bin/env bash
# interop.sh: compares mlserve with ONNX Runtime, scikit-learn and PyTorch. Pinned Python packages go into .interop/venv, once; PyTorch is the
# system's (python3-torch), run by the system's Python. The last line is "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${INTEROP_VENV:-.interop/venv}
if ! cmp -s build-aux/interop-requirements.txt "$venv/requirements.txt"; then
  echo "making $venv (once)"
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r build-aux/interop-requirements.txt
  cp build-aux/interop-requirements.txt "$venv/requirements.txt"
fi
case ${BUILD:=build} in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
export BUILD
exec "$venv/bin/python" spec/interop/run.py "$@"
