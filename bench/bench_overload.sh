#!/usr/bin/env bash
# bench_overload.sh [SWAPS]: what happens to the time of answers when versions are swapped all the time, and when twice as much is asked as can be
# answered. The server has one core, the clients another; every ratio is of figures from this run. From the root, after make.
#   swaps      a small model, in the event loop, at a third of what the server can do, undisturbed and while SWAPS (1000) versions come and go
#   overload   the same model with twice the clients that fill the server; then ResNet-20, batched, at half of what the server can do, and at twice
#              that with a queue no longer than the 99th percentile before
set -euo pipefail
swaps=${1:-1000}
lua=${LUA:-lua5.4}
BUILD=${BUILD:-build}
: "${LUA_PATH:=lua/?.lua;lua/?/init.lua;;}" "${LUA_CPATH:=$BUILD/$lua/?.so;;}"
export LUA_PATH LUA_CPATH
scratch=$(mktemp -d)
server= publisher=
trap 'for pid in $server $publisher; do kill "$pid" 2>/dev/null || true; done; rm -rf "$scratch"' EXIT
on_server=() on_client=()
if [ "$(nproc)" -gt 1 ]; then on_server=(taskset -c 0) on_client=(taskset -c 1); fi

start() { # ARGUMENT…: sets server and address
  "${on_server[@]}" "$lua" bin/mlserve serve --rest-port 0 --threads 1 "$@" > "$scratch/server.log" 2>&1 &
  server=$!
  for _ in $(seq 400); do grep -q '^model ' "$scratch/server.log" && break; sleep 0.05; done
  address=$(sed -n 's/^listening on \(http[^ ,]*\).*/\1/p' "$scratch/server.log" | head -n 1)
}
stop() {
  kill "$server"
  wait "$server" || true
  server=
}
client() { "${on_client[@]}" "$BUILD/bench/bench_client" "${address##*:}" "$@"; } # CONNECTIONS RATE SECONDS REQUEST [LOG]
post() { # FILE PATH BODY [FIELD]: the request's bytes
  { printf 'POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n%s\r\n' "$2" "$(wc -c < "$3")" "${4:+$4$'\r\n'}"; cat "$3"; } > "$1"
}
resident() { awk '/VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$server/status"; }

# ---- swaps ----
mkdir -p "$scratch/seed/1"
"$lua" bench/seed_model.lua "$scratch/seed/1/model.onnx"
"$lua" -e 'local row = {} for i = 1, 30 do row[i] = ("%.6f"):format(i * 0.37) end print("{\"instances\":[[" .. table.concat(row, ",") .. "]]}")' > "$scratch/row.json"
cat > "$scratch/publish.lua" <<'LUA'
-- publish.lua BASE LOG SWAPS: a version every 60 ms until the server has made that many available; the ten newest stay
local core = require "mlserve.core"
local cqueues = require "cqueues"
local base, log, wanted = arg[1], arg[2], tonumber(arg[3])
local file = assert(io.open(base .. "/1/model.onnx", "rb"))
local bytes = file:read "*a"
local version, swaps, lines = 1, 0, assert(io.open(log, "rb"))
repeat
  version = version + 1
  assert(core.make_directories(base .. "/tmp"))
  file = assert(io.open(base .. "/tmp/model.onnx", "wb"))
  file:write(bytes)
  file:close()
  assert(os.rename(base .. "/tmp", base .. "/" .. version))
  os.remove(base .. "/" .. version - 10 .. "/model.onnx")
  os.remove(base .. "/" .. version - 10)
  cqueues.sleep(0.06)
  swaps = swaps + select(2, (lines:read "*a" or ""):gsub("available", ""))
until swaps >= wanted
print(swaps)
LUA
start --model "seed=$scratch/seed"
post "$scratch/row" /v1/models/seed:predict "$scratch/row.json"
read -r most _ < <(client 16 0 3 "$scratch/row")
rate=$((most / 3))
read -r _ _ _ _ _ normal _ < <(client 64 "$rate" 10 "$scratch/row")
before=$(resident)
"${on_client[@]}" "$lua" "$scratch/publish.lua" "$scratch/seed" "$scratch/server.log" "$swaps" > "$scratch/swaps" &
publisher=$!
while kill -0 "$publisher" 2>/dev/null; do client 64 "$rate" 10 "$scratch/row" "$scratch/times" > /dev/null; done
wait "$publisher"
publisher=
sleep 2
sort -k2n "$scratch/times" | awk -v n="$(cat "$scratch/swaps")" -v r="$rate" -v b="$normal" -v bm="$before" -v am="$(resident)" '
  { t[NR] = $2; if ($1 != 200) failed++ }
  END {
    d = t[int(NR * 0.99)]
    printf "%d swaps at %d requests/s: %d of %d failed; p99 %.2f ms, undisturbed %.2f ms, ratio %.2f; memory %.1f MiB before, %.1f after\n",
      n, r, failed, NR, d / 1e3, b / 1e3, d / b, bm, am
  }'
# nothing waits but in sockets: twice the clients wait twice as long
read -r most _ _ _ _ once _ < <(client 32 0 5 "$scratch/row")
read -r twice _ _ failed _ double _ < <(client 64 0 5 "$scratch/row")
awk -v m="$most" -v t="$twice" -v a="$once" -v b="$double" -v f="$failed" 'BEGIN {
  printf "in the event loop, 32 clients without pause: %d/s, p99 %.2f ms; 64: %d/s, %d failed, p99 %.2f ms, ratio %.2f\n", m, a / 1e3, t, f, b / 1e3, b / a }'
stop

# ---- overload ----
mkdir -p "$scratch/resnet/1"
for python in .interop/venv/bin/python /usr/bin/python3; do
  "$python" bench/resnet.py 20 "$scratch/resnet/1/model.onnx" 2>/dev/null && break
done
[ -s "$scratch/resnet/1/model.onnx" ] || { echo "bench_overload: Python with onnx is needed" >&2; exit 1; }
json='{"inputs":[{"name":"x","shape":[1,3,32,32],"datatype":"FP32","parameters":{"binary_data_size":12288}}],"parameters":{"binary_data_output":true}}'
{ printf '%s' "$json"; "$lua" -e 'for i = 1, 3072 do io.write(string.pack("<f", (i * 37 % 255) / 255)) end'; } > "$scratch/image"
post "$scratch/request" /v2/models/resnet/infer "$scratch/image" "inference-header-content-length: ${#json}"
start --model "resnet=$scratch/resnet"
read -r capacity _ < <(client 64 0 5 "$scratch/request")
read -r _ _ _ _ _ normal _ < <(client 256 $((capacity / 2)) 5 "$scratch/request")
read -r _ _ _ _ _ unbounded _ < <(client 256 $((capacity * 2)) 5 "$scratch/request")
stop
start --model "resnet=$scratch/resnet" --max-queue-micros "$normal"
client 64 0 3 "$scratch/request" > /dev/null
before=$(resident)
read -r _ good refused failed _ p99 r50 r99 < <(client 256 $((capacity * 2)) 10 "$scratch/request")
awk -v c="$capacity" -v n="$normal" -v u="$unbounded" -v p="$p99" -v good="$good" -v refused="$refused" -v failed="$failed" -v r50="$r50" -v r99="$r99" \
  -v bm="$before" -v am="$(resident)" 'BEGIN {
  printf "ResNet-20, %d images/s at most; p99 %.1f ms at half of that\n", c, n / 1e3
  printf "at twice as many: %d answered (%.0f %% of the most), p99 %.1f ms, ratio %.2f (without a bound on the queue %.1f ms)\n", good / 10, good / c * 10,
    p / 1e3, p / n, u / 1e3
  printf "  %d refused in %.2f ms (p99 %.2f ms), %d failed; memory %.1f MiB before, %.1f after\n", refused / 10, r50 / 1e3, r99 / 1e3, failed, bm, am }'
stop
