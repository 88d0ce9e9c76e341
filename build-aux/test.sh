#!/usr/bin/env bash
# test.sh SECTION…: runs the tests of the sections (c, lua5.4, luajit, packaging) and prints, as the very last line, one total
# "N passed, N failed[, N skipped]". Exit code 0 only when everything passed and nothing was skipped.
# Environment: BUILD (default build), C_TESTS ("base graph": only these), SPEC (files or folders), SANITIZER (address or thread).
set -uo pipefail
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
root=$PWD
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# count NAME COMMAND…: runs it; the last line that reads "N passed, N failed[, N skipped]" is what it did
count() {
  local name=$1 code line p=0 f=0 s=0
  shift
  "$@" 2>&1 | tee "$log" | grep -avE '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$'
  code=${PIPESTATUS[0]}
  line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -n 1)
  if [ -n "$line" ]; then
    p=${line%% passed*} f=${line#*passed, } f=${f%% failed*}
    case $line in *skipped) s=${line#*failed, } s=${s%% skipped} ;; esac
  fi
  if [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then
    echo "$name: ended with code $code"
    f=1
  elif [ -z "$line" ]; then
    echo "$name: did not say what it tested"
    f=1
  fi
  printf '%-28s %5d passed, %d failed%s\n' "$name" "$p" "$f" "$([ "$s" -gt 0 ] && echo ", $s skipped")"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

section() { printf -- '-- %s\n' "$*"; }

preload() { # libraries a sanitised module needs to find in the interpreter
  [ "${SANITIZER:-}" = address ] || return 0
  local cc=${CC:-cc} name list=
  for name in libasan.so libubsan.so; do list="$list $("$cc" -print-file-name=$name)"; done
  echo "${list# }"
}

# A folder for PATH: programs that hang with AddressSanitizer's library in them are started without.
shims() {
  local directory=$BUILD/shims name path
  mkdir -p "$directory"
  for name in curl h2load nghttp openssl ps; do
    path=$(PATH=${PATH#"$directory":} command -v "$name") || continue
    printf '#!/bin/sh\nunset LD_PRELOAD\nexec %s "$@"\n' "$path" > "$directory/$name"
    chmod +x "$directory/$name"
  done
  (cd "$directory" && pwd)
}

c_tests() {
  section "C units${SANITIZER:+ ($SANITIZER sanitizer)}"
  local file name
  for file in spec/csrc/test_*.c; do
    name=$(basename "$file" .c)
    case " ${C_TESTS:-} " in *" ${name#test_} "* | "  ") ;; *) continue ;; esac
    count "$name" env ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
      TSAN_OPTIONS=halt_on_error=1 "$BUILD/spec/$name"
  done
}

# specs LUA DIRECTORY: a spec that needs cqueues (sockets, processes) runs on Lua 5.4, where the server runs
specs() {
  local lua=$1 files modules
  case $BUILD in /*) modules=$BUILD ;; *) modules=$root/$BUILD ;; esac
  section "specs on $lua${SANITIZER:+ ($SANITIZER sanitizer)}"
  files=$(find ${SPEC:-spec} -name '*_spec.lua' | LC_ALL=C sort)
  [ "$lua" = luajit ] && files=$(grep -vE '^spec/(serve/|cli)' <<< "$files")
  count "$lua" env -u LUA_PATH_5_4 -u LUA_CPATH_5_4 LUA_PATH="$root/lua/?.lua;$root/lua/?/init.lua;$root/?.lua;;" LUA_CPATH="$modules/$lua/?.so;;" \
    MLSERVE_LUA="$lua" ${SANITIZER:+ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:suppressions=$root/build-aux/asan-suppressions.txt"} \
    ${SANITIZER:+UBSAN_OPTIONS=print_stacktrace=1} ${SANITIZER:+LD_PRELOAD="$(preload)"} ${SANITIZER:+PATH="$(shims):$PATH"} \
    "$lua" build-aux/busted.lua --ignore-lua --cpath="$modules/$lua/?.so" $files
}

packaging() {
  section "packaging"
  local script
  for script in spec/packaging/*.sh; do count "$(basename "$script" .sh)" "$script"; done
}

for what in "$@"; do
  case $what in
    c) c_tests ;;
    lua5.4 | luajit) specs "$what" ;;
    packaging) packaging ;;
    *) echo "unknown section $what" >&2; exit 2 ;;
  esac
done
echo "$passed passed, $failed failed$([ "$skipped" -gt 0 ] && echo ", $skipped skipped")"
[ "$failed" -eq 0 ] && [ "$skipped" -eq 0 ] && [ "$passed" -gt 0 ]
