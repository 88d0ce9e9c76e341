--- A real nginx for specs: `start { init = Lua, server = configuration, … }`.

local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"
local socket = require "cqueues.socket"

local M = {}

-- a port that was free a moment ago
function M.free_port()
  local listener = assert(socket.listen { host = "127.0.0.1", port = "0", reuseaddr = true })
  assert(listener:listen())
  local _, _, port = listener:localname()
  listener:close()
  return tonumber(port)
end

function M.root()
  local pipe = io.popen "pwd"
  local path = pipe:read "*l"
  pipe:close()
  return path
end

local function absolute(path) return path:sub(1, 1) == "/" and path or M.root() .. "/" .. path end

--- Lua paths for nginx's LuaJIT: this checkout's.
function M.paths()
  local lua, core = assert(require("mlserve.serve.transports.nginx_run").paths())
  return absolute(lua) .. absolute("?.lua") .. ";;", absolute(core)
end

--- Starts nginx: init and init_worker are Lua; server goes into server {}, http into http {}, main in front; workers.
---@return table process
---@return integer port
---@return string directory
function M.start(given)
  local directory, port = process.directory(), M.free_port()
  local conf = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off;
pid nginx.pid;
error_log stderr notice;
]] .. (given.main or "") .. "\nworker_processes " .. (given.workers or 1) .. [[;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
  client_max_body_size 64m; keepalive_requests 1000000;
  lua_load_resty_core off;
  lua_package_path "%s";
  lua_package_cpath "%s";
  init_by_lua_file init.lua;
]] .. (given.http or "") .. [[

  server {
    listen 127.0.0.1:%d;
]] .. given.server .. "\n  }\n}\n"
  local path, cpath = M.paths()
  conf = conf:gsub("%%s", function() local value = path path = cpath return value end):gsub("%%d", port)
  process.write(directory .. "/nginx.conf", conf)
  process.write(directory .. "/init.lua", given.init)
  local nginx = process.spawn("nginx -p " .. directory .. " -c nginx.conf")
  assert(process.wait(20, function()
    return nginx:code() or pcall(function() raw_http.connect(port):close() end)
  end))
  assert(not nginx:code(), nginx:log())
  return nginx, port, directory
end

return M
