#!/bin/sh
# The whole life of a model in a few seconds: train, evaluate, optimise, save, serve, ask. Run by `make demo`, which builds first.
# BUILD says where the modules were built (default: build).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mlserve="${LUA:-lua5.4} $root/bin/mlserve"
if [ -n "${BUILD:-}" ]; then
  case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
  export LUA_CPATH="$BUILD/${LUA:-lua5.4}/?.so;;"
fi
data=$root/examples/data/breast_cancer.csv
work=$(mktemp -d "${TMPDIR:-/tmp}/mlserve-demo.XXXXXX")
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
cd "$work"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

say "\$ mlserve train examples/cancer.lua -o models/cancer"
$mlserve train "$root/examples/cancer.lua" -o models/cancer

say "\$ mlserve evaluate models/cancer --data breast_cancer.csv --label diagnosis"
$mlserve evaluate models/cancer --data "$data" --label diagnosis

say "\$ head -4 breast_cancer.csv | mlserve predict models/cancer"
head -4 "$data" | $mlserve predict models/cancer

say "\$ mlserve serve --model cancer=models/cancer --rest-port 0 &"
$mlserve serve --model cancer=models/cancer --rest-port 0 >serve.log 2>&1 &
server=$!
tries=0
until grep -q '^model cancer' serve.log; do
  tries=$((tries + 1))
  if [ $tries -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
    cat serve.log >&2
    echo "demo: the server did not start" >&2
    exit 1
  fi
  sleep 0.05
done
cat serve.log

ask=$(sed -n 's/^model cancer version [0-9]*: //p' serve.log)
say "\$ $ask"
curl() { command curl -sS "$@"; }
eval "$ask"

say "\$ kill -TERM \$server"
kill -TERM "$server"
wait "$server"
server=
echo "the server answered everything and left with exit code 0"

say "Yours to try: bin/mlserve --help, examples/*.lua, README.md"
