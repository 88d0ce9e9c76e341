--- `mlserve serve --transport nginx`: writes a configuration, runs nginx in the foreground, ends with it and cleans up.
--
-- nginx is a child of this process. SIGTERM and SIGINT become nginx's graceful end (it answers what was asked), a second one its
-- fast end; SIGHUP makes it read the models again. When this process is killed, the kernel sends nginx SIGTERM.

local nginx_conf = require "mlserve.serve.transports.nginx_conf"
local options = require "mlserve.options"
local tls = require "mlserve.serve.transports.tls"

local find, format, gmatch, gsub, match = string.find, string.format, string.gmatch, string.gsub, string.match

local M = {}

local SIGHUP, SIGINT, SIGQUIT, SIGTERM = 1, 2, 3, 15

local RULES = {
  init = { type = "table", required = true },
  nginx = { type = "string", default = "nginx" },
  host = { type = "string", default = "127.0.0.1" },
  port = { type = { "integer", "boolean" }, min = 0, max = 65535, default = 8501 }, -- false: no TCP
  grpc_port = { type = "integer", min = 0, max = 65535 },
  tls = { type = "table" },
  unix_socket = { type = "string" },
  workers = { type = "integer", min = 1, default = 1 },
  pool = { type = "integer", min = 1, max = 256, default = 4 },
  log = { type = "function" },
  max_connections = { type = "integer", min = 1 },
  max_body = { type = "number", min = 0 },
  head_timeout = { type = "number", min = 0 },
  body_timeout = { type = "number", min = 0 },
  idle_timeout = { type = "number", min = 0 },
  write_timeout = { type = "number", min = 0 },
  drain_timeout = { type = "number", min = 0 },
}

local function shell_word(text) return "'" .. gsub(text, "'", "'\\''") .. "'" end

local function output(command)
  local pipe = io.popen(command, "r")
  local text = pipe and pipe:read "*a" or ""
  if pipe then pipe:close() end
  return text
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

local function write(path, text)
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local ok
  ok, message = file:write(text)
  file:close()
  if not ok then return nil, message end
  return true
end

-- Lua 5.1 as such has no package.searchpath.
local function search(name, path)
  name = gsub(name, "%.", "/")
  for template in gmatch(path, "[^;]+") do
    local place = gsub(template, "%?", name)
    if exists(place) then return place end
  end
end

--- Where nginx's LuaJIT finds mlserve: its Lua files are the same for every Lua, its core is the one built for LuaJIT.
---@return string|nil path
---@return string cpath or message
function M.paths()
  local lua = search("mlserve.nginx", package.path)
  local core = search("mlserve.core", package.cpath)
  local tried = {}
  if not lua or not core then return nil, "mlserve.nginx or mlserve.core is not where package.path and package.cpath say" end
  local base = match(lua, "^(.*)mlserve[/\\]nginx%.lua$")
  local places = { core }
  if not rawget(_G, "jit") then
    places = { (gsub(core, "lua5%.%d", "luajit")), (gsub(core, "/5%.%d/", "/5.1/")), (gsub(core, "lua5%.%d", "lua5.1")) }
  end
  for _, place in ipairs(places) do
    if (place ~= core or rawget(_G, "jit")) and exists(place) then
      return base .. "?.lua;" .. base .. "?/init.lua;;", gsub(place, "mlserve/core%.so$", "?.so") .. ";;"
    end
    tried[#tried + 1] = place
  end
  return nil, format("nginx runs LuaJIT, and mlserve's core for it is not installed (looked at %s)", table.concat(tried, ", "))
end

-- a port that is free now: nginx cannot be asked which one it took
local function free_port(host)
  local socket = require "cqueues.socket"
  local listener, message = socket.listen { host = host, port = "0", reuseaddr = true }
  if not listener or not listener:listen() then return nil, format("no free port on %s: %s", host, tostring(message)) end
  local _, _, port = listener:localname()
  listener:close()
  return tonumber(port)
end

local function answers(host, port)
  local socket = require "cqueues.socket"
  local connection = socket.connect { host = host, port = port }
  if not connection then return false end
  connection:onerror(function(_, _, why) return why end)
  local ok = connection:connect(0.2)
  connection:close()
  return ok and true or false
end

-- A path that does not hang on where nginx looks.
local function absolute(path)
  if find(path, "^/") then return path end
  return match(output "pwd", "^[^\n]*") .. "/" .. path
end

-- The option `tls` of nginx_conf: files, checked by whom the stand-alone server would check them. TensorFlow Serving's file holds texts.
local function tls_files(given, directory)
  local context, message = tls.context(given)
  if not context then return nil, message end
  local files = { ciphers = tls.CIPHERS }
  local texts = given.config and tls.texts(given) or given
  for _, name in ipairs { "cert", "key", "client_ca" } do
    if texts[name] and given.config then
      files[name] = directory .. "/" .. name .. ".pem" -- the directory is for our eyes only
      local ok
      ok, message = write(files[name], texts[name])
      if not ok then return nil, message end
    elseif texts[name] then
      files[name] = absolute(texts[name])
    end
  end
  return files
end

local function prepare(values, directory)
  local described = output(shell_word(values.nginx) .. " -V 2>&1")
  local address = find(values.host, ":", 1, true) and "[" .. values.host .. "]" or values.host
  local listen = {}
  if not find(described, "nginx version:", 1, true) then
    return nil, format("'%s' cannot be run (Debian: apt install nginx-light libnginx-mod-http-lua): %s", values.nginx, described)
  end
  local path, cpath = M.paths()
  if not path then return nil, cpath end
  if values.port then listen[1] = { address = format("%s:%d", address, values.port) } end
  if values.grpc_port then listen[#listen + 1] = { address = format("%s:%d", address, values.grpc_port), http2 = true } end
  if values.unix_socket then listen[#listen + 1] = { address = "unix:" .. values.unix_socket, plain = true } end
  if #listen == 0 then return nil, "neither a port nor a Unix socket to listen at" end
  local streams = values.grpc_port or values.tls
  if streams then listen[#listen + 1] = { address = "unix:" .. directory .. "/calls", http2 = true, plain = true } end
  local user = match(output "id -u", "^0%s") and match(output "id -un", "^%S+") or nil
  values.init.pool, values.init.pool_states = "mlserve", values.pool
  local files, message
  if values.tls then
    files, message = tls_files(values.tls, directory)
    if not files then return nil, message end
  end
  local text
  text, message = nginx_conf.render {
    directory = directory, workers = values.workers, listen = listen, tls = files, streams = streams and true, path = path, cpath = cpath,
    nginx = nginx_conf.describe(described), exists = exists, user = user, pool = values.pool,
    connections = values.max_connections, max_body = values.max_body, head_timeout = values.head_timeout,
    body_timeout = values.body_timeout, idle_timeout = values.idle_timeout, write_timeout = values.write_timeout,
    drain_timeout = values.drain_timeout,
  }
  if not text then return nil, message end
  local ok
  ok, message = write(directory .. "/nginx.conf", text)
  if ok then ok, message = write(directory .. "/init.lua", nginx_conf.init(values.init)) end
  return ok, message
end

-- Until nginx has ended: passes signals on, says when it answers, answers streams.
local function attend(net, signals, pid, values, streams)
  local cqueues = require "cqueues"
  local asked, said = 0, not values.port
  local host = (values.host == "0.0.0.0" or values.host == "::") and "127.0.0.1" or values.host
  while true do
    local ended, how, code = net.reap(pid)
    if ended == nil then return nil, how end
    if ended then
      if how == "exit" and code == 0 then return true end
      return nil, format("nginx ended with %s %d; its messages are above", how == "exit" and "code" or "signal", code)
    end
    if not said and answers(host, values.port) then
      said = true
      if find(host, ":", 1, true) then host = "[" .. host .. "]" end
      local scheme = values.tls and "https" or "http"
      values.log(format("listening on %s://%s:%d%s (nginx, %d worker%s)", scheme, host, values.port,
        values.grpc_port and format(", %s://%s:%d", scheme, host, values.grpc_port) or "", values.workers, values.workers == 1 and "" or "s"))
    end
    local number = signals:take()
    if number == SIGHUP then
      net.kill(pid, SIGHUP)
    elseif number then
      asked = asked + 1
      net.kill(pid, asked == 1 and SIGQUIT or SIGTERM)
      if streams then streams:stop() end
    elseif streams then
      cqueues.poll(signals, streams, said and 0.2 or 0.05)
      if not streams:step(0) then streams = nil end
    else
      cqueues.poll(signals, said and 0.2 or 0.05)
    end
  end
end

--- Serves until nginx ends.
---@param given table init: options of mlserve.nginx.init (no functions); nginx: the program; host, port, grpc_port: speaks HTTP/2 (with
--- TLS, and from nginx 1.25 on, both speak both versions); tls: see transports.tls; unix_socket, workers, pool:
--- threads of each worker for models that take long; log: function(line); limits as the stand-alone transport has them
---@return boolean|nil ok
---@return string|nil message
function M.run(given)
  local values = options.check(given, RULES, "nginx_run.run")
  local net = require "mlserve.net"
  local directory = match(output 'mktemp -d "${TMPDIR:-/tmp}/mlserve-nginx.XXXXXX"', "^([^\n]+)")
  local ok, message
  values.log = values.log or function(line) io.stdout:write(line, "\n") io.stdout:flush() end
  if not directory then return nil, "no temporary directory can be made" end
  local function clean() os.execute("rm -rf " .. shell_word(directory)) end
  for _, name in ipairs { "port", "grpc_port" } do
    local any = values[name] == 0
    while any and (values[name] == 0 or name ~= "port" and values[name] == values.port) do
      values[name], message = free_port(values.host)
      if not values[name] then clean() return nil, message end
    end
  end
  ok, message = prepare(values, directory)
  if not ok then clean() return nil, message end
  local signals, pid
  signals, message = net.catch_signals(SIGTERM, SIGINT, SIGHUP)
  if not signals then clean() return nil, message end
  pid, message = net.fork()
  if pid == 0 then
    message = select(2, net.exec(true, values.nginx, "-p", directory, "-c", directory .. "/nginx.conf"))
    io.stderr:write("mlserve serve: ", message, "\n")
    os.exit(127, false)
  end
  local streams
  if pid and (values.grpc_port or values.tls) then -- not before nginx has been forked, which has no use for any of it
    streams, message = require("mlserve.serve.transports.nginx_streams").new {
      streams = directory .. "/streams", calls = directory .. "/calls", grpc = values.init.grpc, max_connections = values.max_connections,
      drain_timeout = values.drain_timeout, log = function(level, text)
        if level == "error" then io.stderr:write("mlserve serve: ", text, "\n") end
      end,
    }
    if not streams then net.kill(pid, SIGTERM) end
  end
  if pid then
    local problem = message
    ok, message = attend(net, signals, pid, values, streams)
    if problem then ok, message = nil, problem end
  else ok = nil end
  signals:close()
  clean()
  return ok, message
end

return M
