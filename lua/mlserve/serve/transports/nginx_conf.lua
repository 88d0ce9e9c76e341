--- nginx's configuration for `mlserve serve --transport nginx`, and what has to be known about the nginx that is installed.

local concat, find, format, gsub, match = table.concat, string.find, string.format, string.gsub, string.match
local ipairs, pairs, tonumber, tostring, type = ipairs, pairs, tonumber, tostring, type
local sort = table.sort

local M = {}

local TEMPLATE = [[
# Written by mlserve serve --transport nginx; gone when it ends.
{modules}
daemon off;
master_process on;
{user}
worker_processes {workers};
worker_shutdown_timeout {drain};
pid "{directory}/nginx.pid";
error_log stderr {level};
{thread_pool}
events { worker_connections {connections}; }

http {
  access_log off;
  server_tokens off;
  client_body_temp_path "{directory}/body";
  proxy_temp_path "{directory}/proxy";
  fastcgi_temp_path "{directory}/fastcgi";
  uwsgi_temp_path "{directory}/uwsgi";
  scgi_temp_path "{directory}/scgi";
  client_max_body_size {max_body};
  client_body_buffer_size 1m;
  client_header_timeout {head_timeout};
  client_body_timeout {body_timeout};
  keepalive_timeout {idle_timeout};
  send_timeout {write_timeout};
  keepalive_requests 1000000;
  default_type application/octet-stream;
  lua_check_client_abort on;
  {resty_core}
  {worker_states}
  lua_package_path "{path}";
  lua_package_cpath "{cpath}";
  init_by_lua_file "{directory}/init.lua";
  init_worker_by_lua_block { require("mlserve.nginx").init_worker() }

{servers}
}
]]

local SERVER = [[
  server {
    {listen}
    {tls}
    {http2}
    location / {
      # what follows the body of a gRPC answer; nginx leaves out what is empty
      set $grpc_status "";
      set $grpc_message "";
      set $grpc_status_details_bin "";
      if ($http_content_type ~ "^application/grpc([+;]|$)") {
        add_trailer grpc-status $grpc_status;
        add_trailer grpc-message $grpc_message;
        add_trailer grpc-status-details-bin $grpc_status_details_bin;
        content_by_lua_block { require("mlserve.nginx").handler() }
      }
      # what nginx refuses by itself: too large, malformed
      error_page 413 = @refused;
      content_by_lua_block { require("mlserve.nginx").handler() }
    }
{streams}
    location @refused {
      internal;
      default_type application/json;
      if ($http_content_type ~ "^application/grpc([+;]|$)") { rewrite ^ /refused last; }
      return 413 '{"error": "the body is over the limit of {max_body} bytes"}';
    }
    location = /refused {
      internal;
      client_max_body_size 0; # or it would be refused again
      default_type application/grpc;
      set $grpc_status 8;
      add_trailer grpc-status $grpc_status;
      add_trailer grpc-message "Received message larger than max ({max_body})";
      return 200;
    }
  }]]

-- Streams in which both sides speak in turn: transports.nginx_streams answers them. gRPC-Web has none.
local STREAMS = [[
    location ~ "^/(inference[.]GRPCInferenceService/ModelStreamInfer|grpc[.]reflection[.]v1(alpha)?[.]ServerReflection/ServerReflectionInfo)$" {
      client_max_body_size 0; # of all messages together
      client_body_timeout 24h;
      grpc_read_timeout 24h;
      grpc_send_timeout 24h;
      if ($http_content_type ~ "^application/grpc([+;]|$)") { grpc_pass grpc://unix:{streams_path}; }
      content_by_lua_block { require("mlserve.nginx").handler() }
    }]]

local HTTP2 = [[
http2_max_concurrent_streams 128;
    large_client_header_buffers 4 32k;
    client_body_buffer_size 4m;
    underscores_in_headers on;]]

local TLS = [[
ssl_certificate "{cert}";
    ssl_certificate_key "{key}";
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers {ciphers};
    ssl_prefer_server_ciphers on;
    ssl_session_tickets off;]]

-- A text inside double quotes of nginx's configuration; nil when it cannot be put there.
local function quoted(text)
  if find(text, "[%c$]") then return nil end
  return (gsub(text, '[\\"]', "\\%0"))
end

local function literal(value)
  local kind = type(value)
  if kind == "string" then return format("%q", value) end
  if kind ~= "table" then return tostring(value) end
  local keys, items = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do items[i] = format("[%s] = %s", literal(key), literal(value[key])) end
  return "{ " .. concat(items, ", ") .. " }"
end

--- init.lua: loads the models in nginx's master.
---@param given table options of mlserve.nginx.init: strings, numbers, booleans and tables of them
---@return string
function M.init(given)
  return format("local ok, message = require(\"mlserve.nginx\").init %s\n"
    .. "if not ok then ngx.log(ngx.ERR, \"mlserve: not everything could be loaded: \", message) end\n", literal(given))
end

--- What `nginx -V` says.
---@param text string
---@return table { version = "1.22.1", modules = directory of dynamic modules, threads = boolean, lua = built in }
function M.describe(text)
  return {
    version = match(text, "nginx version: %S-/([%d.]+)") or "",
    openresty = find(text, "openresty/", 1, true) ~= nil,
    modules = match(text, "%-%-modules%-path=(%S+)") or (match(text, "%-%-prefix=(%S+)") or "/usr/local/nginx") .. "/modules",
    threads = find(text, "--with-threads", 1, true) ~= nil,
    lua = find(text, "--add-module=%S*lua%-nginx%-module") ~= nil or find(text, "--add-module=%S*ngx_lua") ~= nil
      or find(text, "openresty/", 1, true) ~= nil,
  }
end

-- Whether this nginx has `http2 on`, with which a port speaks HTTP/1.1 and HTTP/2 without TLS too; before, a port without TLS speaks either.
local function is_mixed(version)
  local major, minor, patch = match(version, "^(%d+)%.(%d+)%.?(%d*)")
  if not major then return false end
  return (tonumber(major) * 1000 + tonumber(minor)) * 1000 + (tonumber(patch) or 0) >= 1025001
end

-- The lines of server {} on where to listen and what to speak there.
local function listen_lines(given, values)
  local lines, mixed = {}, is_mixed(given.nginx.version)
  local http2 = false
  for i, each in ipairs(given.listen) do
    local address = quoted(each.address)
    if not address or find(address, "[%s;{}]") then return nil, format("cannot listen on '%s'", each.address) end
    local secure, both = given.tls and not each.plain, each.http2 or given.tls and not each.plain
    http2 = http2 or both
    lines[i] = format("listen %s%s%s;", address, secure and " ssl" or "", both and not mixed and " http2" or "")
  end
  values.listen = concat(lines, "\n    ")
  values.http2 = http2 and (mixed and "http2 on;\n    " or "") .. HTTP2 or ""
  values.tls = ""
  if given.tls then
    local tls = { ciphers = given.tls.ciphers }
    for _, name in ipairs { "cert", "key", "client_ca" } do
      tls[name] = given.tls[name] and quoted(given.tls[name])
      if given.tls[name] and not tls[name] then
        return nil, format("%s '%s': nginx's configuration cannot hold '$' and control characters", name, given.tls[name])
      end
    end
    values.tls = gsub(TLS, "{([%l_]+)}", tls)
    if tls.client_ca then values.tls = values.tls .. format('\n    ssl_client_certificate "%s";\n    ssl_verify_client on;', tls.client_ca) end
  end
  return true
end

--- The configuration.
---@param given table directory, workers, listen (array of { address, http2: speak that too, plain: without TLS }), tls = { cert, key, client_ca
--- (files), ciphers }, streams: whether a process answers streams at DIRECTORY/streams, path, cpath (of LuaJIT's modules), nginx (of `describe`),
--- exists: function(path) -> boolean, user, level, pool (threads of the pool), and limits: connections, max_body, head_timeout, body_timeout, idle_timeout, write_timeout, drain_timeout
---@return string|nil text
---@return string|nil message
function M.render(given)
  local nginx, values, modules = given.nginx, {}, {}
  if not nginx.lua then
    for _, name in ipairs { "ndk_http_module.so", "ngx_http_lua_module.so" } do
      local path = nginx.modules .. "/" .. name
      if given.exists(path) then
        modules[#modules + 1] = format('load_module "%s";', path)
      elseif name == "ngx_http_lua_module.so" then
        return nil, format("nginx %s has no Lua module: it is neither built in nor at %s (Debian: apt install libnginx-mod-http-lua)",
          nginx.version, path)
      end
    end
  end
  local ok, message = listen_lines(given, values)
  if not ok then return nil, message end
  values.modules = concat(modules, "\n")
  values.user = given.user and "user " .. given.user .. ";" or ""
  values.workers = tostring(given.workers or 1)
  values.level = given.level or "notice"
  values.thread_pool = nginx.threads and format("thread_pool mlserve threads=%d max_queue=65536;", given.pool) or ""
  values.worker_states = nginx.threads and format("lua_worker_thread_vm_pool_size %d;", given.pool * 2) or ""
  values.resty_core = nginx.openresty and "" or "lua_load_resty_core off;"
  values.connections = tostring(given.connections or 4096)
  values.max_body = tostring(given.max_body or 64 * 1024 * 1024)
  values.head_timeout = format("%dms", (given.head_timeout or 10) * 1000)
  values.body_timeout = format("%dms", (given.body_timeout or 30) * 1000)
  values.idle_timeout = format("%dms", (given.idle_timeout or 75) * 1000)
  values.write_timeout = format("%dms", (given.write_timeout or 30) * 1000)
  values.drain = format("%dms", (given.drain_timeout or 30) * 1000)
  for _, name in ipairs { "directory", "path", "cpath" } do
    values[name] = quoted(given[name])
    if not values[name] then return nil, format("%s '%s': nginx's configuration cannot hold '$' and control characters", name, given[name]) end
  end
  values.streams = given.streams and gsub(STREAMS, "{streams_path}", (gsub(values.directory, "%%", "%%%%")) .. "/streams") or ""
  values.servers = gsub(SERVER, "{([%l_0-9]+)}", values)
  return (gsub(TEMPLATE, "{([%l_]+)}", values))
end

return M
