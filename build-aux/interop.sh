#!/usr/bin/env bash
# interop.sh: compares mlserve with ONNX Runtime, scikit-learn, XGBoost, LightGBM, PyTorch and (MLSERVE_INTEROP_FULL) Keras, asks it with the
# clients of KServe, Triton and TensorFlow Serving, and runs the backend tests of the newest onnx package. Pinned Python packages go into
# .interop/venv, .interop/suite-venv, .interop/kserve, .interop/grpc and (TensorFlow's) .interop/keras, the tests that onnx generates into
# .interop/suite, clients in Go, Node and a browser (interop-clients.sh) beside them, once; PyTorch is the system's (python3-torch), run by the system's Python. The last line is "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."
# environment DIRECTORY REQUIREMENTS: a virtual environment with exactly those packages
environment() {
  if cmp -s "$2" "$1/requirements.txt"; then return; fi
  echo "making $1 (once)"
  python3 -m venv --clear "$1"
  "$1/bin/pip" install -q --disable-pip-version-check -r "$2"
  cp "$2" "$1/requirements.txt"
}
venv=${INTEROP_VENV:-.interop/venv}
environment "$venv" build-aux/interop-requirements.txt
environment .interop/suite-venv build-aux/onnx-suite-requirements.txt
environment .interop/kserve build-aux/interop-kserve-requirements.txt
export INTEROP_KSERVE_PYTHON=$PWD/.interop/kserve/bin/python
# made anew when the packages or the script have changed
made_by=$(cat build-aux/onnx-suite-requirements.txt build-aux/onnx_suite.py)
if [ "$(cat .interop/suite/made-by 2>/dev/null)" != "$made_by" ]; then
  .interop/suite-venv/bin/python -W ignore build-aux/onnx_suite.py .interop/suite
  printf '%s\n' "$made_by" > .interop/suite/made-by
fi
if [ -n "${MLSERVE_INTEROP_FULL:-}" ]; then
  environment .interop/keras build-aux/interop-keras-requirements.txt
  export INTEROP_KERAS_PYTHON=$PWD/.interop/keras/bin/python
  environment .interop/grpc build-aux/interop-grpc-requirements.txt
  export INTEROP_GRPC_PYTHON=$PWD/.interop/grpc/bin/python
fi

# ONNX Runtime's StringNormalizer asks for the locale en_US.UTF-8; of that it only needs the letters' cases, which C.UTF-8 has too.
mkdir -p .interop/locale
ln -sfn /usr/lib/locale/C.utf8 .interop/locale/en_US.UTF-8
export LOCPATH=$PWD/.interop/locale
case ${BUILD:=build} in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
export BUILD
build-aux/interop-clients.sh "$INTEROP_KSERVE_PYTHON"
exec "$venv/bin/python" spec/interop/run.py "$@"
