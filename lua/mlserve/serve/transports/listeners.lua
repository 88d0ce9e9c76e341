--- The sockets a server accepts from: a TCP port, a Unix socket, or what systemd passes on.
--
--   local listeners = listeners.open { host = "127.0.0.1", port = 8501, unix_socket = "/run/mlserve.sock" }
--
-- Made by the process that binds, before it forks; its children share them. Nothing here waits, so no event loop is needed.

local cqueues_socket = require "cqueues.socket"
local errno = require "cqueues.errno"
local net = require "mlserve.net"

local concat, format, tonumber, tostring = table.concat, string.format, tonumber, tostring

local FIRST_PASSED = 3 -- systemd's SD_LISTEN_FDS_START

local methods = {}
local mt = { __name = "mlserve.listeners", __index = methods }

-- Errors are results, not exceptions.
local function return_error(_, _, why) return why end

local function add(self, socket, family, text)
  socket:onerror(return_error)
  self[#self + 1] = { socket = socket, tcp = family ~= "unix", text = text }
end

local function tcp_name(socket)
  local _, address, port = socket:localname()
  return address, tonumber(port)
end

local function open_tcp(self, given, wanted)
  local socket, why = cqueues_socket.listen {
    host = given.host, port = format("%d", wanted), reuseaddr = true, reuseport = given.reuseport,
  }
  local port, _
  if socket then
    socket:onerror(return_error)
    _, why = socket:listen()
    _, port = tcp_name(socket)
  end
  if why or not port then
    if socket then socket:close() end
    return nil, format("cannot listen on %s:%d: %s", given.host, wanted, why and errno.strerror(why) or "no address")
  end
  add(self, socket, "inet")
  if not self.tcp_port then self.host, self.tcp_port = given.host, port end
  return port
end

local function open_unix(self, given)
  local fd, file = net.listen_unix(given.unix_socket, tonumber(given.unix_mode or "600", 8))
  if not fd then return nil, "cannot listen: " .. file end
  add(self, cqueues_socket.fdopen(fd), "unix", "unix:" .. given.unix_socket)
  self.path, self.file = given.unix_socket, file
  return true
end

local taken -- the environment says the same for ever, the descriptors are taken over once

-- Sockets of systemd's protocol, when they are meant for this process: their number, 0 without any.
local function adopt(self)
  local count = tonumber(os.getenv "LISTEN_FDS")
  if taken or not count or count < 1 or tonumber(os.getenv "LISTEN_PID") ~= net.getpid() then return 0 end
  taken = true
  for fd = FIRST_PASSED, FIRST_PASSED + count - 1 do
    local family, message = net.adopt(fd)
    if not family then return nil, "socket activation: " .. message end
    local socket = cqueues_socket.fdopen(fd)
    if family == "unix" then
      local _, path = socket:localname()
      add(self, socket, family, "unix:" .. tostring(path))
    else
      add(self, socket, family)
      if not self.tcp_port then self.host, self.tcp_port = tcp_name(socket) end
    end
  end
  return count
end

local function url(self, host, port)
  if host == "0.0.0.0" then host = "127.0.0.1" elseif host == "::" then host = "[::1]"
  elseif host:find(":", 1, true) then host = "[" .. host .. "]" end
  return format("%s://%s:%d", self.scheme, host, port)
end

--- The port bound first; nil when there is none.
function methods:port() return self.tcp_port end

--- The URL of that port ("http://127.0.0.1:8501"); nil when there is none.
function methods:url() return self.tcp_port and url(self, self.host, self.tcp_port) or nil end

--- The port bound for gRPC; nil when there is none.
function methods:grpc_port() return self.second_port end

--- All of them in words.
function methods:describe()
  local texts = {}
  for i = 1, #self do
    local each = self[i]
    texts[i] = each.text or each.tcp and (i == 1 and self:url() or url(self, tcp_name(each.socket)))
  end
  return concat(texts, ", ")
end

--- Accepts no more in this process; others that share the sockets go on.
function methods:close()
  for i = #self, 1, -1 do
    self[i].socket:close()
    self[i] = nil
  end
end

--- The same, and the Unix socket's file goes: for the process that made it.
function methods:remove()
  self:close()
  if self.path then net.remove_unix(self.path, self.file) end
  self.path = nil
end

local M = {}

--- Binds. With `activation` and sockets passed by systemd, those are the only ones; else the port is bound unless it is false,
--- and the Unix socket when one is named.
---@param given table host, port, grpc_port (a second one), reuseport, unix_socket, unix_mode (octal digits), activation,
--- secure (only for what `url` says)
---@return table|nil listeners
---@return string|nil message
function M.open(given)
  local self, count = setmetatable({ scheme = given.secure and "https" or "http" }, mt), 0
  local ok, message
  if given.activation then
    count, message = adopt(self)
    if not count then
      self:close()
      return nil, message
    end
  end
  if count > 0 then return self end
  if given.port then
    ok, message = open_tcp(self, given, given.port)
    if not ok then return nil, message end
  end
  if given.grpc_port then
    ok, message = open_tcp(self, given, given.grpc_port)
    if not ok then
      self:close()
      return nil, message
    end
    self.second_port = ok
  end
  if given.unix_socket then
    ok, message = open_unix(self, given)
    if not ok then
      self:close()
      return nil, message
    end
  end
  return self
end

--- Listens on a cqueues socket made elsewhere.
function M.of_socket(socket)
  local self = setmetatable({ scheme = "http" }, mt)
  add(self, socket, "inet")
  self.host, self.tcp_port = tcp_name(socket)
  return self
end

return M
