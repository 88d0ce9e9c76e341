#!/usr/bin/env bash
# lint.sh (from `make lint`, which gives ML_CFLAGS, BLAS_CFLAGS and IMAGE_CFLAGS): everything that can be said about the sources without running them.
set -uo pipefail
cd "$(dirname "$0")/.."
bad=0
problem() { echo "lint: $*" >&2; bad=1; }

mapfile -t shell < <(git ls-files -co --exclude-standard -- '*.sh' .ci/run)
for file in "${shell[@]}"; do bash -n "$file" || problem "$file does not parse"; done
mapfile -t python < <(git ls-files -co --exclude-standard -- '*.py')
python3 - "${python[@]}" <<'PY' || problem "Python files do not parse"
import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)
PY

luacheck --no-color -q lua bin/mlserve build-aux spec bench examples .busted .luacheckrc rockspec/*.rockspec || problem "luacheck"
if command -v luarocks >/dev/null; then
  for file in rockspec/*.rockspec; do luarocks lint "$file" >/dev/null || problem "luarocks lint $file"; done
fi

# Every C file with gcc and with clang, all warnings errors: the core with and without BLAS where a file asks for it, the bindings with every
# Lua's headers, tests, fuzz targets and benchmarks.
jobs=$(mktemp)
trap 'rm -f "$jobs"' EXIT
machine=$(uname -m)
job() { for compiler in gcc clang; do command -v $compiler >/dev/null && echo "$compiler $ML_CFLAGS -O1 -Werror -fsyntax-only $*" >> "$jobs"; done; }
for file in $(find csrc spec/csrc spec/fuzz bench -name '*.c' | LC_ALL=C sort); do
  case $file in
    csrc/image/*) job "$IMAGE_CFLAGS $file"; job "$file"; continue ;;
    csrc/lua/*) for lua in lua5.4 luajit lua5.1; do pkg-config --exists $lua && job "$(pkg-config --cflags $lua) $BLAS_CFLAGS $file"; done; continue ;;
    *_avx2.c) [ "$machine" = x86_64 ] && job "-mavx2 -mfma $BLAS_CFLAGS $file"; continue ;;
    *_avx512.c) [ "$machine" = x86_64 ] && job "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma $BLAS_CFLAGS $file"; continue ;;
  esac
  job "$BLAS_CFLAGS $file"
  if grep -q ML_BLAS "$file"; then job "$file"; fi
done
xargs -P "$(nproc)" -I{} sh -c '{} || exit 1' < "$jobs" || problem "compiler warnings"

lua5.4 build-aux/lint.lua || bad=1
LUA_CPATH="$BUILD/lua5.4/?.so;;" lua5.4 build-aux/docs.lua --check || problem "generated documents"

if [ $bad -eq 0 ]; then echo "lint: $(wc -l < "$jobs") compilations, $(git ls-files -co --exclude-standard | wc -l) files, nothing to say"; fi
exit $bad
