#!/usr/bin/env bash
# fuzz.sh SECONDS: runs every fuzz target in $BUILD/fuzz that long, as many at a time as there are processors. New inputs are kept in
# $BUILD/corpus/NAME and used again. A target starts from spec/fuzz/seeds/NAME (onnx: also the models of spec/golden/onnx) and, where there is
# one, spec/fuzz/NAME.dict. Last line: "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build-fuzz} seconds=${1:-60}

run_one() {
  local target=$1 name corpus options=()
  name=$(basename "$target") name=${name#fuzz_}
  corpus=$BUILD/corpus/$name
  mkdir -p "$corpus" "$BUILD/crashes"
  options=("-max_total_time=$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 "-artifact_prefix=$BUILD/crashes/$name-")
  case $name in
    *json) options+=(-dict=spec/fuzz/json.dict) ;;
    *) [ -f "spec/fuzz/$name.dict" ] && options+=("-dict=spec/fuzz/$name.dict") ;;
  esac
  local seeds=()
  [ -d "spec/fuzz/seeds/$name" ] && seeds=("spec/fuzz/seeds/$name")
  [ "$name" = onnx ] && seeds+=(spec/golden/onnx)
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
