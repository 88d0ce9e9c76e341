#!/usr/bin/env bash
# bench_batching.sh [SECONDS]: what batching makes of 64 clients that ask for ResNet-20 (KServe's binary tensors, one image a request), the server on one
# core, the clients on another. Compared with the engine alone on that core, at its best batch size, in the same run; then, at half of
# the rate reached, the 99th percentile of the time of an answer, with what a run takes. From the root, after make.
set -euo pipefail
seconds=${1:-5}
lua=${LUA:-lua5.4}
: "${LUA_PATH:=lua/?.lua;lua/?/init.lua;;}" "${LUA_CPATH:=build/$lua/?.so;;}"
export LUA_PATH LUA_CPATH
scratch=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi; rm -rf "$scratch"' EXIT
on_server=() on_client=()
if [ "$(nproc)" -gt 1 ]; then on_server=(taskset -c 0) on_client=(taskset -c 1); fi

mkdir -p "$scratch/resnet/1"
for python in .interop/venv/bin/python /usr/bin/python3; do
  "$python" bench/resnet.py 20 "$scratch/resnet/1/model.onnx" 2>/dev/null && break
done
[ -s "$scratch/resnet/1/model.onnx" ] || { echo "bench_batching: Python with onnx is needed" >&2; exit 1; }

# request.body, and its JSON part's length in request.json
$lua - "$scratch" <<'LUA'
local floats = {}
for i = 1, 3072 do floats[i] = string.pack("<f", (i * 37 % 255) / 255) end
local json = '{"inputs":[{"name":"x","shape":[1,3,32,32],"datatype":"FP32","parameters":{"binary_data_size":12288}}],'
  .. '"parameters":{"binary_data_output":true}}'
local function write(name, text)
  local file = assert(io.open(arg[1] .. "/" .. name, "wb"))
  file:write(text)
  file:close()
end
write("request.body", json .. table.concat(floats))
write("request.json", tostring(#json))
write("post.lua", ('local f = io.open("%s/request.body", "rb") wrk.method, wrk.body = "POST", f:read "*a" f:close()\n'
  .. 'wrk.headers["Inference-Header-Content-Length"] = "%d"'):format(arg[1], #json))
LUA

# rows a second and microseconds of a run, for each batch size
"${on_server[@]}" "$lua" bin/mlserve bench "$scratch/resnet/1/model.onnx" --batch 1,4,8,16,32 --threads 1 > "$scratch/engine"
read -r batch rate < <(awk '/^[0-9]/ && $6 > best { best = $6; batch = $1 } END { print batch, best }' "$scratch/engine")

"${on_server[@]}" "$lua" bin/mlserve serve --model "resnet=$scratch/resnet" --rest-port 0 --threads 1 > "$scratch/server.log" 2>&1 &
server=$!
for _ in $(seq 200); do grep -q '^model resnet' "$scratch/server.log" && break; sleep 0.05; done
url=http://127.0.0.1:$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$scratch/server.log" | head -n 1)/v2/models/resnet/infer
best=0
for _ in 1 2 3; do
  "${on_client[@]}" wrk -t1 -c64 -d"${seconds}s" -s "$scratch/post.lua" "$url" > "$scratch/wrk"
  if grep -q Non-2xx "$scratch/wrk"; then cat "$scratch/wrk" >&2; exit 1; fi
  best=$(awk -v best="$best" '/Requests\/sec/ { print ($2 > best) ? $2 : best }' "$scratch/wrk")
done
awk -v s="$best" -v e="$rate" -v b="$batch" 'BEGIN {
  printf "ResNet-20, 64 clients, one core: %.0f images/s; the engine alone, batches of %d: %.0f; ratio %.2f\n", s, b, e, s / e }'

# half of that rate: 16 clients, each at its share
if command -v h2load > /dev/null; then
  share=$(awk -v s="$best" 'BEGIN { r = s / 2 / 16; print r < 1 ? 1 : int(r) }')
  "${on_client[@]}" h2load --h1 -c 16 --rps="$share" -D "$seconds" -d "$scratch/request.body" --log-file="$scratch/times" \
    -H "inference-header-content-length: $(cat "$scratch/request.json")" "$url" > "$scratch/h2load" 2>&1
  p99=$(cut -f3 "$scratch/times" | sort -n | awk '{ t[NR] = $1 } END { print t[int(NR * 0.99 + 0.5)] }')
  awk -v p="$p99" -v b=32 -v n="$((share * 16))" '
    $1 == b { median = $4 } $1 == 1 { one = $4 }
    END { printf "at %d images/s: p99 %.1f ms; a run of one image takes %.1f ms, of %d %.1f ms; p99 to two full runs: %.2f\n",
      n, p / 1e3, one / 1e3, b, median / 1e3, p / (2 * median) }' "$scratch/engine"
fi
