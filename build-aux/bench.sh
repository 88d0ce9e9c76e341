#!/usr/bin/env bash
# bench.sh (from `make bench`): every benchmark, one table. Peers are measured in the same minute where they are there: ONNX Runtime and scikit-learn
# from .interop/venv (made by `make interop`), PyTorch from the system, Keras from the venv when somebody installed it there. Figures are of one
# thread; on a shared machine only ratios mean much. BENCH_HTTP=0 leaves the HTTP part out, BENCH_SWAPS is how many versions come and go in it (1000: more
# than a minute), BENCH_KERNELS=1 adds the table of kernels.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${BUILD:=build} in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
venv=${INTEROP_VENV:-.interop/venv}
scratch=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi; rm -rf "$scratch"' EXIT
model=$scratch/seed/1/model.onnx
export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;;" OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

with() { # LUA FILE ARGUMENT…
  local lua=$1
  shift
  LUA_CPATH="$BUILD/$lua/?.so;;" "$lua" "$@"
}
# best N COMMAND…: the least milliseconds of N runs
best() {
  local n=$1 least= begin ms
  shift
  for _ in $(seq "$n"); do
    begin=$(date +%s%N)
    "$@" > /dev/null
    ms=$((($(date +%s%N) - begin) / 1000))
    if [ -z "$least" ] || [ "$ms" -lt "$least" ]; then least=$ms; fi
  done
  awk -v us="$least" 'BEGIN { printf "%.1f", us / 1000 }'
}
row() { local IFS=$'\t'; echo "$*" >> "$scratch/rows"; } # what, ours, unit[, peer, the peer's]

echo "measuring (about a minute)" >&2
mkdir -p "$(dirname "$model")"
with lua5.4 bench/seed_model.lua "$model"

# ---- predictions ----
runtime=$(find "$venv" -name 'libonnxruntime.so.*' 2>/dev/null | head -n 1)
"$BUILD/bench/bench_infer" "$model" $runtime >> "$scratch/rows"
for lua in lua5.4 luajit; do [ -d "$BUILD/$lua" ] && with $lua bench/bench_infer.lua "$model" >> "$scratch/rows"; done
with lua5.4 bench/bench_request.lua "$model" >> "$scratch/rows"
row "allocations in 1000 predictions" "$("$BUILD/bench/bench_alloc" "$model" 1000)" ""
if command -v valgrind >/dev/null; then
  instructions() { # CALLS [capi]
    valgrind --tool=callgrind --callgrind-out-file="$scratch/callgrind" "$BUILD/bench/bench_alloc" "$model" "$@" 2>&1 |
      sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
  }
  requests() {
    LUA_CPATH="$BUILD/lua5.4/?.so;;" valgrind --tool=callgrind --callgrind-out-file="$scratch/callgrind" lua5.4 bench/bench_request.lua "$model" "$1" 2>&1 |
      sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
  }
  row "instructions of a prediction" $((($(instructions 3000) - $(instructions 1000)) / 2000)) ""
  row "instructions of a REST predict request" $((($(requests 3000) - $(requests 1000)) / 2000)) ""
  row "the same through the C API" $((($(instructions 3000 capi) - $(instructions 1000 capi)) / 2000)) ""
fi

# ---- training ----
ours=$(with lua5.4 bench/bench_train.lua)
peers=0
for library in torch sklearn keras; do
  python=$venv/bin/python
  [ $library = torch ] && python=/usr/bin/python3
  [ -x "$python" ] || continue
  result=$("$python" bench/bench_train.py $library 2>/dev/null | tail -n 1 || true)
  [ -n "$result" ] || continue
  row "training step, Adam, 32 rows" "$ours" us "${result%%$'\t'*}" "${result#*$'\t'}"
  peers=$((peers + 1))
done
[ $peers -gt 0 ] || row "training step, Adam, 32 rows" "$ours" us

# ---- starting up ----
start=$(best 10 env LUA_CPATH="$BUILD/lua5.4/?.so;;" lua5.4 bench/bench_startup.lua "$model")
peer=()
if [ -n "$runtime" ]; then
  cat > "$scratch/startup.py" <<'PY'
import sys
import numpy, onnxruntime
onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": numpy.ones((1, 30), numpy.float32)})
PY
  peer=("ONNX Runtime in Python" "$(best 5 "$venv/bin/python" "$scratch/startup.py" "$model")")
fi
row "process with require, load, predict" "$start" ms "${peer[@]}"
LUA_CPATH="$BUILD/lua5.4/?.so;;" lua5.4 bin/mlserve serve --model "seed=$scratch/seed" --rest-port 0 > "$scratch/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do grep -q '^model seed' "$scratch/server.log" && break; sleep 0.05; done
row "resident memory of an idle server" "$(awk '/VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$server/status")" MiB
kill "$server"
wait "$server" || true
server=

# ---- a large model: ResNet-18's graph, 46 MB of weights ----
for python in "$venv/bin/python" /usr/bin/python3; do
  [ -x "$python" ] && "$python" bench/resnet.py 18 "$scratch/resnet18.onnx" 2>/dev/null && break
done
if [ -f "$scratch/resnet18.onnx" ]; then
  IFS=$'\t' read -r ms memory memory_run < <(for _ in 1 2 3 4 5; do with lua5.4 bench/bench_load.lua "$scratch/resnet18.onnx"; done | sort -n | head -n 1)
  peer=()
  if [ -n "$runtime" ]; then
    cat > "$scratch/load.py" <<'PY'
import sys
import time
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
begin = time.perf_counter()
onnxruntime.InferenceSession(sys.argv[1], options)
print(f"{(time.perf_counter() - begin) * 1e3:.1f}")
PY
    peer=("ONNX Runtime" "$(for _ in 1 2 3 4 5; do "$venv/bin/python" "$scratch/load.py" "$scratch/resnet18.onnx"; done | sort -n | head -n 1)")
  fi
  row "loading and compiling ResNet-18" "$ms" ms "${peer[@]}"
  row "its memory, of its file's size: loaded" "$memory" x
  row "its memory, of its file's size: after a prediction" "$memory_run" x
fi
size=$(strip --strip-unneeded -o "$scratch/core.so" "$BUILD/lua5.4/mlserve/core.so" && stat -c %s "$scratch/core.so")
row "core.so" "$(awk -v b="$size" 'BEGIN { printf "%.0f", b / 1024 }')" KiB

awk -F'\t' 'BEGIN { printf "%-48s %12s      %-28s %12s  %s\n", "", "mlserve", "peer", "", "ratio" }
  { printf "%-48s %12s %-4s", $1, $2, $3; if ($5 != "") printf " %-28s %12s  %.1fx", $4, $5, $5 / $2; printf "\n" }' "$scratch/rows"

if [ "${BENCH_HTTP:-1}" != 0 ] && command -v wrk >/dev/null; then
  echo
  LUA_CPATH="$BUILD/lua5.4/?.so;;" bench/bench_http.sh -r 2 -d 2 "$model"
fi
if [ "${BENCH_HTTP:-1}" != 0 ] && command -v wrk >/dev/null; then
  echo
  LUA_CPATH="$BUILD/lua5.4/?.so;;" bench/bench_batching.sh 3
  echo
  LUA_CPATH="$BUILD/lua5.4/?.so;;" bench/bench_overload.sh "${BENCH_SWAPS:-1000}"
fi
if [ "${BENCH_KERNELS:-0}" != 0 ]; then
  echo
  "$BUILD/bench/bench_kernels"
fi
