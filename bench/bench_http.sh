#!/bin/sh
# Requests a second of the HTTP paths, one server process pinned to one core, wrk -t1 -c16 on another:
#   plain    lua-http as it is, a constant answer
#   engine   the same server with mlserve's HTTP/1.1 engine, the same constant answer
#   nginx    nginx with content_by_lua, the same constant answer
#   rest     mlserve.server with a model of 30 inputs (when MODEL, a .onnx file or model directory, is given)
#   ngxrest  the same model answered by mlserve inside nginx
#   wide     mlserve.server with a model of 784 inputs
#   cjson    the same engine and model, but requests and answers go through lua-cjson and Lua tables
# and each one's ratio to plain (wide's: to cjson). Rounds are interleaved and the best of each is taken: on a shared machine only ratios mean much.
# CPU microseconds per request are printed as well; they vary less.
# Usage: bench/bench_http.sh [-r ROUNDS] [-d SECONDS] [MODEL]      from the root, after make
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
model=${1-}
case $model in "" | /*) ;; *) model=$PWD/$model ;; esac
lua=${LUA:-lua5.4}
: "${LUA_PATH:=lua/?.lua;lua/?/init.lua;;}" "${LUA_CPATH:=build/$lua/?.so;;}"
export LUA_PATH LUA_CPATH

directory=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; rm -rf "$directory"' EXIT INT TERM
if [ "$(nproc)" -gt 1 ]; then server="taskset -c 0" client="taskset -c 1"; else server= client=; fi

cat >"$directory/post.lua" <<'LUA'
function init(args)
  local row = {}
  for i = 1, tonumber(args[1]) do row[i] = ("%.6f"):format(i * 0.37) end
  wrk.method, wrk.headers["content-type"] = "POST", "application/json"
  wrk.body = '{"instances":[[' .. table.concat(row, ",") .. "]]}"
end
LUA

cat >"$directory/plain.lua" <<'LUA'
local luahttp = require "mlserve.serve.transports.luahttp"
local http_server = assert(luahttp.server())
local headers = require "http.headers"
local body = '{"predictions":[[0.123456789]]}'
local server = assert(http_server.listen {
  host = "127.0.0.1", port = 0, tls = false,
  onstream = function(_, stream)
    stream:get_headers()
    stream:get_body_as_string()
    local answer = headers.new()
    answer:append(":status", "200")
    answer:append("content-type", "application/json")
    answer:append("content-length", tostring(#body))
    stream:write_headers(answer, false)
    stream:write_chunk(body, true)
  end,
})
assert(server:listen())
print("port " .. select(3, server:localname()))
io.flush()
assert(server:loop())
LUA

cat >"$directory/engine.lua" <<'LUA'
local http = require "mlserve.serve.transports.http"
local response = { status = 200, headers = { ["content-type"] = "application/json" }, body = '{"predictions":[[0.123456789]]}' }
local server = http.new { app = { handle = function() return response end }, port = 0 }
assert(server:listen())
print("port " .. server:port())
io.flush()
server:run()
LUA

# MODEL's kind with 784 inputs and 10 classes
cat >"$directory/wide_model.lua" <<'LUA'
local nn = require "mlserve.nn"
local model = nn.Sequential { nn.Dense { 64, activation = "relu" }, nn.Dense { 10, activation = "softmax" } }
model:compile { input_shape = { 784 }, seed = 1 }
assert(model:save(arg[1]))
LUA

cat >"$directory/cjson.lua" <<'LUA'
local cjson = require "cjson"
local http = require "mlserve.serve.transports.http"
local model = assert(require("mlserve").load(arg[1]))
local headers = { ["content-type"] = "application/json" }
local function handle(_, request)
  local rows = cjson.decode(request.body).instances
  return { status = 200, headers = headers, body = cjson.encode { predictions = model:predict(rows):totable() } }
end
local server = http.new { app = { handle = handle }, port = 0 }
assert(server:listen())
print("port " .. server:port())
io.flush()
server:run()
LUA

cat >"$directory/rest.lua" <<'LUA'
local mlserve = require "mlserve"
local server = mlserve.server { rest = { port = 0 } }
server:add_model("m", assert(mlserve.load(arg[1])))
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
  server { listen 127.0.0.1:@PORT@; location / { content_by_lua_block {
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    ngx.header["content-type"] = "application/json"
    ngx.print('{"predictions":[[0.123456789]]}')
  } } }
}
CONF

# the same server with mlserve in the place of the constant answer
init='lua_package_path "@LUA_PATH@"; lua_package_cpath "@LUA_CPATH@"; init_by_lua_block {
    local model = assert(require("mlserve").load("@MODEL@"))
    require("mlserve.nginx").init { models = { m = model:servable() } }
  }'
handler='  server { listen 127.0.0.1:@PORT@; location / { content_by_lua_block { require("mlserve.nginx").handler() } } }'
awk -v init="$init" -v handler="$handler" '
  /lua_load_resty_core/ { print; print init; next }
  /^  server/ { print handler; inside = 1 }
  inside { if (/^  } }/) inside = 0; next }
  { print }' "$directory/nginx.conf" >"$directory/ngxrest.conf"

wait_for() { # file pattern
  for _ in $(seq 100); do
    if grep -q "$2" "$1" 2>/dev/null; then return 0; fi
    sleep 0.05
  done
  echo "bench_http: server did not start:" >&2
  cat "$1" >&2
  exit 1
}

start_lua() { # name script arguments…
  name=$1 script=$2
  shift 2
  $server "$lua" "$directory/$script.lua" "$@" >"$directory/$name.log" 2>&1 &
  eval "pid_$name=$!"
  pids="$pids $!"
  wait_for "$directory/$name.log" '^port '
  eval "port_$name=$(sed -n 's/^port //p' "$directory/$name.log")"
}

start_nginx() { # name: its directory holds its files, since two of them run
  name=$1
  mkdir "$directory/$name"
  # a port that was free a moment ago
  port=$($lua -e 'local s = require("cqueues.socket").listen { host = "127.0.0.1", port = "0" } s:listen()
    print(select(3, s:localname()))')
  sed -e "s|@PORT@|$port|" -e "s|@MODEL@|$model|" -e "s|@LUA_PATH@|$PWD/lua/?.lua;$PWD/lua/?/init.lua;;|" \
    -e "s|@LUA_CPATH@|$PWD/build/luajit/?.so;;|" "$directory/$name.conf" >"$directory/$name/nginx.conf"
  $server nginx -p "$directory/$name" -c nginx.conf >"$directory/$name.log" 2>&1 &
  pids="$pids $!"
  for _ in $(seq 100); do
    if [ -s "$directory/$name/nginx.pid" ]; then break; fi
    sleep 0.05
  done
  sleep 0.3
  eval "port_$name=$port pid_$name=$(pgrep -P "$(cat "$directory/$name/nginx.pid")")"
  names="$names $name"
}

names="plain engine"
start_lua plain plain
start_lua engine engine
if [ -n "$model" ]; then
  start_lua rest rest "$model"
  "$lua" "$directory/wide_model.lua" "$directory/wide.onnx"
  start_lua wide rest "$directory/wide.onnx"
  start_lua cjson cjson "$directory/wide.onnx"
  names="$names rest wide cjson"
fi
if command -v nginx >/dev/null && [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ]; then
  start_nginx nginx
  if [ -n "$model" ]; then start_nginx ngxrest; fi
fi

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

for _ in $(seq "$rounds"); do
  for name in $names; do
    eval "pid=\$pid_$name port=\$port_$name"
    before=$(ticks "$pid")
    case $name in wide | cjson) numbers=784 ;; *) numbers=30 ;; esac
    $client wrk -t1 -c16 -d"${seconds}s" -s "$directory/post.lua" "http://127.0.0.1:$port/v1/models/m:predict" -- $numbers \
      >"$directory/wrk.out"
    after=$(ticks "$pid")
    if grep -q 'Non-2xx' "$directory/wrk.out"; then
      echo "bench_http: $name answered errors" >&2
      exit 1
    fi
    awk -v name="$name" -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" \
      '/requests in/ { count = $1 } /Requests\/sec/ { print name, $2, ticks / hertz * 1e6 / count }' \
      "$directory/wrk.out" >>"$directory/results"
  done
done

awk '{
  if (!($1 in rate)) order[++n] = $1
  if ($2 > rate[$1]) rate[$1] = $2
  if (!($1 in cpu) || $3 < cpu[$1]) cpu[$1] = $3
} END {
  printf "%-8s %12s %10s %14s\n", "server", "requests/s", "ratio", "CPU us/request"
  for (i = 1; i <= n; ++i) {
    base = order[i] == "wide" || order[i] == "cjson" ? "cjson" : "plain"
    printf "%-8s %12.0f %9.2fx %14.1f\n", order[i], rate[order[i]], rate[order[i]] / rate[base], cpu[order[i]]
  }
}' "$directory/results"
