#!/bin/sh
# gRPC calls a second, one server process pinned to one core, h2load on another:
#   plain    lua-http as it is, an empty answer with its trailers
#   engine   the same server with mlserve's HTTP/2 engine, the same answer
#   python   grpcio with ONNX Runtime answering TensorFlow Serving's Predict (when .interop has both)
#   predict  mlserve answering the same Predict: one row of 30 floats
#   nginx    nginx Lua, the same empty answer with trailers
#   ngxgrpc  Predict by mlserve inside nginx
# Then, at half of predict's rate, the 99th percentile of its time, and what a tensor of 3 MB needs. Rounds are interleaved, the best of each is
# taken. Usage: bench/bench_grpc.sh [-r ROUNDS] [-d SECONDS] MODEL      from the root, after make
set -eu

rounds=3 seconds=3
while getopts r:d: option; do
  case $option in
  r) rounds=$OPTARG ;;
  d) seconds=$OPTARG ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
model=$1
case $model in /*) ;; *) model=$PWD/$model ;; esac
lua=${LUA:-lua5.4}
: "${LUA_PATH:=lua/?.lua;lua/?/init.lua;;}" "${LUA_CPATH:=build/$lua/?.so;;}"
export LUA_PATH LUA_CPATH

directory=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; rm -rf "$directory"' EXIT INT TERM
if [ "$(nproc)" -gt 1 ]; then server="taskset -c 0" client="taskset -c 1"; else server= client=; fi

# a model that gives back its input: what moving a large tensor costs
cat >"$directory/make.lua" <<'LUA'
local core, grpc, proto = require "mlserve.core", require "mlserve.serve.protocols.grpc", require "mlserve.serve.protocols.grpc_schema"
local directory, schema = arg[1], proto.schema()
local function write(name, text)
  local file = assert(io.open(directory .. "/" .. name, "wb"))
  file:write(text)
  file:close()
end
local function request(model, columns)
  local floats = {}
  for i = 1, columns do floats[i] = string.pack("<f", i * 0.37 % 1) end
  return grpc.frame(schema:encode("tensorflow.serving.PredictRequest", {
    model_spec = { name = model },
    inputs = { x = { dtype = 1, tensor_shape = { dim = { { size = 1 }, { size = columns } } }, tensor_content = table.concat(floats) } },
  }))
end
write("request", request("m", 30))
write("large", request("large", 786432))
local graph = core.graph "large"
graph:output(graph:node("ReduceSum", { graph:input("x", "float32", { -1, 786432 }) }, { keepdims = 1 }), "y")
assert(core.onnx_save(graph, directory .. "/large.onnx"))
local set = {}
for _, name in ipairs(schema:closure(schema:file_of "tensorflow.serving.PredictRequest")) do
  local bytes, size = schema:descriptor(name), ""
  local n = #bytes
  while n >= 128 do size, n = size .. string.char(n % 128 + 128), n // 128 end
  set[#set + 1] = "\10" .. size .. string.char(n) .. bytes
end
write("descriptors", table.concat(set))
LUA
$lua "$directory/make.lua" "$directory"

cat >"$directory/plain.lua" <<'LUA'
local luahttp = require "mlserve.serve.transports.luahttp"
local http_server = assert(luahttp.server())
local headers = require "http.headers"
local server = assert(http_server.listen {
  host = "127.0.0.1", port = 0, tls = false, version = 2,
  onstream = function(_, stream)
    stream:get_headers()
    stream:get_body_as_string()
    local answer = headers.new()
    answer:append(":status", "200")
    answer:append("content-type", "application/grpc")
    stream:write_headers(answer, false)
    stream:write_chunk("\0\0\0\0\0", false)
    -- lua-http 0.4 takes trailers for a second head that lacks its status (its pull request 237)
    local context, trailers = stream.connection.encoding_context, headers.new()
    trailers:append("grpc-status", "0")
    context:encode_headers(trailers)
    local payload = context:render_data()
    context:clear_data()
    stream:write_headers_frame(payload, true, true)
  end,
})
assert(server:listen())
print("port " .. select(3, server:localname()))
io.flush()
assert(server:loop())
LUA

cat >"$directory/engine.lua" <<'LUA'
local http = require "mlserve.serve.transports.http"
local response = { status = 200, headers = { ["content-type"] = "application/grpc" }, body = "\0\0\0\0\0", trailers = { ["grpc-status"] = "0" } }
local server = http.new { app = { handle = function() return response end, streaming = function() return false end }, port = 0 }
assert(server:listen())
print("port " .. server:port())
io.flush()
server:run()
LUA

cat >"$directory/predict.lua" <<'LUA'
local mlserve = require "mlserve"
local server = mlserve.server { rest = { port = 0 } }
server:add_model("m", assert(mlserve.load(arg[1])))
server:add_model("large", assert(mlserve.load(arg[2])))
assert(server:start())
print("port " .. server:address():match("%d+$"))
io.flush()
server:run()
LUA

cat >"$directory/nginx.conf" <<'CONF'
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
events { worker_connections 512; }
http {
  access_log off; keepalive_requests 100000000; lua_load_resty_core off;
  client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
  server { listen 127.0.0.1:@PORT@ http2; client_body_buffer_size 4m;
    location / { set $grpc_status ""; add_trailer grpc-status $grpc_status; content_by_lua_block {
      ngx.req.read_body()
      local body = ngx.req.get_body_data()
      ngx.header["content-type"] = "application/grpc"
      ngx.var.grpc_status = "0"
      ngx.print("\0\0\0\0\0")
    } } }
}
CONF

wait_for() { # file pattern
  for _ in $(seq 100); do
    if grep -q "$2" "$1" 2>/dev/null; then return 0; fi
    sleep 0.1
  done
  echo "bench_grpc: server did not start:" >&2
  cat "$1" >&2
  exit 1
}

start() { # name command…
  name=$1
  shift
  $server "$@" >"$directory/$name.log" 2>&1 &
  eval "pid_$name=$!"
  pids="$pids $!"
  wait_for "$directory/$name.log" '^port '
  eval "port_$name=$(sed -n 's/^port //p' "$directory/$name.log")"
  names="$names $name"
}

start_nginx() { # name command…: @PORT@ in the command becomes its port
  name=$1 port=$2
  shift 2
  $server "$@" >"$directory/$name.log" 2>&1 &
  pids="$pids $!"
  master=$!
  for _ in $(seq 50); do
    worker=$(pgrep -f 'nginx: worker' -P "$(pgrep -f 'nginx: master' -P $master || echo $master)" || true)
    if [ -n "$worker" ]; then break; fi
    sleep 0.1
  done
  if [ -z "$worker" ]; then
    echo "bench_grpc: no $name: $(cat "$directory/$name.log")" >&2
    return 0
  fi
  sleep 0.5
  eval "port_$name=$port pid_$name=$worker"
  names="$names $name"
}
free_port() {
  $lua -e 'local s = require("cqueues.socket").listen { host = "127.0.0.1", port = "0" } s:listen() print(select(3, s:localname()))'
}

names=
start plain "$lua" "$directory/plain.lua"
start engine "$lua" "$directory/engine.lua"
start predict "$lua" "$directory/predict.lua" "$model" "$directory/large.onnx"
packages=$(find .interop/*/lib -type d -path '*site-packages/grpc' 2>/dev/null | head -n 1)
if [ -n "$packages" ] && PYTHONPATH=${packages%/grpc} .interop/venv/bin/python -c 'import grpc, onnxruntime, google.protobuf' 2>/dev/null; then
  export PYTHONPATH="${packages%/grpc}"
  start python .interop/venv/bin/python bench/grpc_peer.py "$directory/descriptors" "$model"
  unset PYTHONPATH
fi
if command -v nginx >/dev/null && [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ]; then
  mkdir "$directory/nginx"
  port=$(free_port)
  sed "s|@PORT@|$port|" "$directory/nginx.conf" >"$directory/nginx/nginx.conf"
  start_nginx nginx "$port" nginx -p "$directory/nginx" -c nginx.conf
  mkdir -p "$directory/models/m/1"
  cp "$model" "$directory/models/m/1/model.onnx"
  port=$(free_port)
  start_nginx ngxgrpc "$port" "$lua" bin/mlserve serve --transport nginx --model "m=$directory/models/m" --rest-port 0 --grpc-port "$port"
fi

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
call() { # name data h2load's arguments…
  name=$1 data=$2
  shift 2
  eval "port=\$port_$name"
  $client h2load "$@" -d "$directory/$data" -H 'content-type: application/grpc' -H 'te: trailers' \
    "http://127.0.0.1:$port/tensorflow.serving.PredictionService/Predict" >"$directory/h2load.out" 2>&1
  if ! grep -q ' 0 failed, 0 errored' "$directory/h2load.out"; then
    echo "bench_grpc: $name failed" >&2
    cat "$directory/h2load.out" >&2
    exit 1
  fi
}

for _ in $(seq "$rounds"); do
  for name in $names; do
    for load in '8 4' '16 1'; do
      # shellcheck disable=SC2086
      set -- $load
      eval "pid=\$pid_$name"
      before=$(ticks "$pid")
      call "$name" request -c "$1" -m "$2" -D "$seconds"
      after=$(ticks "$pid")
      awk -v name="$name" -v load="$1x$2" -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" \
        '/^finished in/ { rate = $4 } /^requests:/ { count = $2 } END { print name, load, rate, ticks / hertz * 1e6 / count }' \
        "$directory/h2load.out" >>"$directory/results"
    done
  done
done

awk '{
  if (!($1 in seen)) { order[++n] = $1; seen[$1] = 1 }
  if ($3 > rate[$1, $2]) rate[$1, $2] = $3
  if (!(($1, $2) in cpu) || $4 < cpu[$1, $2]) cpu[$1, $2] = $4
} END {
  printf "%-8s %14s %14s %10s %14s\n", "gRPC", "8 x 4, calls/s", "16 x 1, calls/s", "to plain", "CPU us/call"
  for (i = 1; i <= n; ++i)
    printf "%-8s %14.0f %14.0f %9.2fx %14.1f\n", order[i], rate[order[i], "8x4"], rate[order[i], "16x1"],
      rate[order[i], "8x4"] / rate["plain", "8x4"], cpu[order[i], "8x4"]
  if (("python", "8x4") in rate) printf "predict to python: %.1fx\n", rate["predict", "8x4"] / rate["python", "8x4"]
  printf "predict to engine: %.2f\n", rate["predict", "8x4"] / rate["engine", "8x4"]
  if (("ngxgrpc", "8x4") in rate) printf "ngxgrpc to nginx: %.2f\n", rate["ngxgrpc", "8x4"] / rate["nginx", "8x4"]
}' "$directory/results"

half=$(awk '$1 == "predict" && $2 == "16x1" && $3 > best { best = $3 } END { print int(best / 2 / 16) }' "$directory/results")
call predict request -c 16 -m 1 -D "$seconds" --rps="$half" --log-file="$directory/times"
cut -f3 "$directory/times" | sort -n | awk -v rate=$((half * 16)) '{ t[NR] = $1 }
  END { printf "predict at %d calls/s: median %.3f ms, p99 %.3f ms\n", rate, t[int(NR / 2 + 0.5)] / 1e3, t[int(NR * 0.99 + 0.5)] / 1e3 }'
call predict large -c 1 -m 1 -D "$seconds"
awk '/^finished in/ { printf "a tensor of 3 MiB: %.0f calls/s, %.2f GB/s\n", $4, $4 * 3145728 / 1e9 }' "$directory/h2load.out"
