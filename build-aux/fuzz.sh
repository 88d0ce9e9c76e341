#!/usr/bin/env bash
# fuzz.sh SECONDS: runs every fuzz target in $BUILD/fuzz that long, as many at a time as there are processors. New inputs are kept in
# $BUILD/corpus/NAME and used again. A target starts from spec/fuzz/seeds/NAME (onnx: also the models of spec/golden/onnx; model: those of
# spec/golden and, where Debian's python3-onnx is there, of ONNX's node tests; ops reads them itself) and, where there is one, spec/fuzz/NAME.dict. Last line: "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build-fuzz} seconds=${1:-60}
cases=/usr/lib/python3/dist-packages/onnx/backend/test/data/node
[ -d "$cases" ] && export MLSERVE_CASES=${MLSERVE_CASES:-$cases}
export UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=allocator_may_return_null=1

# Small models with the byte behind them that chooses how they are run.
model_seeds() {
  local model size
  mkdir -p "$1"
  for model in spec/golden/*/*/model.onnx ${MLSERVE_CASES:+"$MLSERVE_CASES"/*/model.onnx}; do
    size=$(stat -c %s "$model")
    [ "$size" -lt 4000 ] && { cat "$model"; printf '\5'; } > "$1/$(basename "$(dirname "$model")")"
  done
  return 0
}
export -f model_seeds

run_one() {
  local target=$1 name corpus options=()
  name=$(basename "$target") name=${name#fuzz_}
  corpus=$BUILD/corpus/$name
  mkdir -p "$corpus" "$BUILD/crashes"
  options=("-max_total_time=$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1200 -print_final_stats=1 "-artifact_prefix=$BUILD/crashes/$name-")
  case $name in
    *json | infer | reply) options+=(-dict=spec/fuzz/json.dict) ;;
    *) [ -f "spec/fuzz/$name.dict" ] && options+=("-dict=spec/fuzz/$name.dict") ;;
  esac
  local seeds=()
  [ -d "spec/fuzz/seeds/$name" ] && seeds=("spec/fuzz/seeds/$name")
  [ "$name" = onnx ] && seeds+=(spec/golden/onnx)
  if [ "$name" = model ]; then
    model_seeds "$BUILD/seeds"
    seeds+=("$BUILD/seeds")
    options+=(-max_len=6000)
  fi
  [ "$name" = ops ] && options+=(-max_len=400)
  if "$target" "${options[@]}" "$corpus" "${seeds[@]}" > "$BUILD/$name.log" 2>&1; then
    printf '%-20s %s runs, no crash\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$BUILD/$name.log")"
  else
    printf '%-20s FAILED; end of %s:\n%s\n' "$name" "$BUILD/$name.log" "$(grep -avE '^#[0-9]+\s+(NEW|REDUCE|pulse)' "$BUILD/$name.log" | tail -n 40)"
    return 1
  fi
}
export -f run_one

find "$BUILD/fuzz" -type f -name 'fuzz_*' ! -name '*.d' -perm -u+x | LC_ALL=C sort > "$BUILD/targets"
total=$(wc -l < "$BUILD/targets")
xargs -P "$(nproc)" -I{} bash -c 'run_one {} || { echo {} >> "$BUILD/failed"; }' < "$BUILD/targets"
failed=0
[ -f "$BUILD/failed" ] && failed=$(wc -l < "$BUILD/failed") && rm -f "$BUILD/failed"
echo "$((total - failed)) passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$total" -gt 0 ]
