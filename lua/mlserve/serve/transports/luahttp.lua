--- Access to lua-http's server: finding it, and giving its connections to our engines.
--
-- Debian installs lua-http (pure Lua) for Lua 5.1 to 5.3 only, although it runs on 5.4. When `require "http.server"` finds
-- nothing, it is looked for there, with a package.path that is put back afterwards.

local EXTRA = "/usr/share/lua/5.3/?.lua;/usr/share/lua/5.3/?/init.lua;/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua"

local M = {}

local engines = setmetatable({}, { __mode = "k" }) -- cqueues controller -> function(socket) -> connection
local loaded

-- lua-http's server makes a connection object by calling the `new` of http.h1_connection or http.h2_connection. Ours answers for
-- servers whose controller is registered; clients and other servers in the same process get the original.
local function install()
  local cqueues = require "cqueues"
  local function replace(module, is_http2)
    local original = module.new
    module.new = function(socket, kind, version)
      local engine = kind == "server" and engines[cqueues.running()]
      if engine then return engine(socket, is_http2) end
      return original(socket, kind, version)
    end
  end
  replace(require "http.h1_connection", false)
  replace(require "http.h2_connection", true)
end

local function load_server()
  local ok, server = pcall(require, "http.server")
  if ok then return server end
  if not tostring(server):find("module 'http.server' not found", 1, true) then return nil, server end
  local path = package.path
  package.path = path .. ";" .. EXTRA
  local found, second = pcall(require, "http.server")
  package.path = path
  if found then return second end
  return nil, server
end

--- The module http.server.
---@return table|nil server
---@return string|nil message
function M.server()
  if loaded then return loaded end
  local server, message = load_server()
  if not server then return nil, "the HTTP server needs lua-http: " .. tostring(message) end
  install()
  loaded = server
  return server
end

--- Connections accepted under `controller` are made by `new(socket, is_http2)`; nil ends that.
function M.set_engine(controller, new)
  engines[controller] = new
end

return M
