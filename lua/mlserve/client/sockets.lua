--- Pooled connections outside nginx: from a cqueues loop without blocking it, elsewhere by waiting.
--
-- Plain connections are read and written through the kernel's descriptor (mlserve.net), which saves cqueues' own buffers; TLS goes through
-- cqueues and luaossl. There are at most `size` connections at a time; who finds none free waits for one, in a loop, or is refused, outside of
-- one, because nobody else could give one back. A connection that lay idle is used again only when it has nothing to read: bytes or an end that
-- came without a question mean that the server is done with it. After a fork the child leaves its parent's connections alone.

local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local errno = require "cqueues.errno"
local net = require "mlserve.net"
local socket = require "cqueues.socket"

local format, match = string.format, string.match
local max, min = math.max, math.min
local monotime, poll, running = cqueues.monotime, cqueues.poll, cqueues.running
local pairs, remove, setmetatable, tostring, type = pairs, table.remove, setmetatable, tostring, type
local receive, send, wait = net.receive, net.send, net.wait

local READ_SIZE = 65536

local M = {}

-- Errors are values here; cqueues would raise them.
local function onerror(_, _, why) return why end

---------------------------------------------------------------------------------------------------------------------------
-- connections

local plain = {}
local plain_mt = { __index = plain }

-- Waits until there is something to read; false when the time is over.
local function wait_readable(self, seconds)
  if running() then
    local ready = poll(self.readable, seconds)
    return ready ~= nil and ready ~= seconds
  end
  return wait(seconds, self.fd)
end

--- Some bytes; nil and "timeout" or "closed".
function plain:receive(deadline)
  local more = self.more
  while true do
    local left = deadline - monotime()
    if left <= 0 then return nil, "timeout" end
    if more or wait_readable(self, left) then
      local data, again = receive(self.fd, READ_SIZE)
      if data then
        self.more = #data == READ_SIZE -- then there is more, most likely: no need to ask first
        return data
      end
      if not again then return nil, "closed" end
      more = false
    end
  end
end

--- Sends all of it. nil and "timeout", "closed", or "early": the server talks already, before it has everything.
function plain:send(bytes, deadline)
  local fd, size = self.fd, #bytes
  local sent = send(fd, bytes, 1)
  if sent == size then return true end
  while sent do
    size = size - sent
    if size == 0 then return true end
    local left = deadline - monotime()
    if left <= 0 then return nil, "timeout" end
    poll(self.both, left)
    if wait(0, fd) then return nil, "early" end
    sent = send(fd, bytes, #bytes - size + 1)
  end
  return nil, "closed"
end

-- Whether it may be used again after it lay idle.
function plain:usable()
  local data, again = receive(self.fd, 1)
  return data == nil and again
end

local secure = {}
local secure_mt = { __index = secure }

function secure:receive(deadline)
  local left = deadline - monotime()
  if left <= 0 then return nil, "timeout" end
  local data, why = self.socket:xread(-READ_SIZE, "bn", left)
  if data and data ~= "" then return data end
  return nil, why == errno.ETIMEDOUT and "timeout" or "closed"
end

function secure:send(bytes, deadline)
  local left = deadline - monotime()
  if left <= 0 then return nil, "timeout" end
  local ok, why = self.socket:xwrite(bytes, "bn", left)
  if ok then return true end
  return nil, why == errno.ETIMEDOUT and "timeout" or "closed"
end

function secure:usable()
  local data, why = self.socket:recv(-1)
  return data == nil and why == errno.EAGAIN
end

---------------------------------------------------------------------------------------------------------------------------
-- TLS

local function read_file(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text = file:read "*a"
  file:close()
  return text
end

-- The certificates of a PEM file, in order.
local function certificates(path)
  local x509 = require "openssl.x509"
  local text, message = read_file(path)
  if not text then return nil, message end
  local list = {}
  for pem in text:gmatch "%-%-%-%-%-BEGIN CERTIFICATE%-%-%-%-%-.-%-%-%-%-%-END CERTIFICATE%-%-%-%-%-" do
    local ok, certificate = pcall(x509.new, pem, "PEM")
    if not ok then return nil, format("%s: %s", path, tostring(certificate)) end
    list[#list + 1] = certificate
  end
  if #list == 0 then return nil, path .. ": no certificate" end
  return list
end

local function fill_context(context, tls)
  local list, message, text
  local ssl_context, store = require "openssl.ssl.context", context:getStore()
  context:setOptions(ssl_context.OP_NO_SSLv3 + ssl_context.OP_NO_TLSv1 + ssl_context.OP_NO_TLSv1_1 + ssl_context.OP_NO_COMPRESSION)
  context:setVerify(tls.verify and ssl_context.VERIFY_PEER or ssl_context.VERIFY_NONE)
  if not tls.ca then
    store:addDefaults()
  else
    list, message = certificates(tls.ca)
    if not list then return nil, message end
    for _, certificate in ipairs(list) do store:add(certificate) end
  end
  if not tls.cert then return context end
  list, message = certificates(tls.cert)
  if not list then return nil, message end
  text, message = read_file(tls.key or tls.cert)
  if not text then return nil, message end
  context:setCertificate(list[1])
  if #list > 1 then
    local chain = require("openssl.x509.chain").new()
    for i = 2, #list do chain:add(list[i]) end
    context:setCertificateChain(chain)
  end
  context:setPrivateKey(require("openssl.pkey").new(text))
  return context
end

local function tls_context(tls)
  local loaded, ssl_context = pcall(require, "openssl.ssl.context")
  if not loaded then return nil, "https needs luaossl: " .. tostring(ssl_context) end
  local ok, context, message = pcall(function() return fill_context(ssl_context.new("TLS", false), tls) end)
  if ok then return context, message end
  return nil, tostring(context)
end

local function handshake(self, sock, seconds)
  local host, tls = self.tls.server_name or self.endpoint.host, self.tls
  local is_ip = match(host, "^%d+%.%d+%.%d+%.%d+$") or match(host, ":")
  local ssl = require("openssl.ssl").new(self.context)
  if not is_ip then ssl:setHostName(host) end
  if self.alpn then ssl:setAlpnProtos(self.alpn) end
  if tls.verify then
    local wanted, params = require("openssl.x509.verify_param").new(), ssl:getParam()
    if is_ip then wanted:setIP(host) else wanted:setHost(host) end
    params:inherit(wanted)
    ssl:setParam(params)
  end
  local ok, why = sock:starttls(ssl, seconds)
  if ok and self.alpn and sock:checktls():getAlpnSelected() ~= self.alpn[1] then return nil, "TLS: the server does not speak HTTP/2" end
  if ok then return true end
  if why == errno.ETIMEDOUT then return nil, "the TLS handshake took too long", "timeout" end
  local reason = type(why) == "number" and why > 0 and errno.strerror(why) or "handshake failed"
  local verified, result = pcall(function()
    local code, text = sock:checktls():getVerifyResult()
    return code ~= 0 and text
  end)
  return nil, "TLS: " .. (verified and result or reason)
end

---------------------------------------------------------------------------------------------------------------------------
-- connecting

local function close(self)
  self.socket:close()
end
plain.close, secure.close = close, close

--- A new connection outside of the pool; or nil, a message and "timeout" when it took too long.
function M.dial(self, deadline)
  local endpoint, now = self.endpoint, monotime()
  local limit = min(deadline, now + self.connect_timeout)
  local sock, why = socket.connect { host = endpoint.host, port = endpoint.port, path = endpoint.path, nodelay = not endpoint.path or nil }
  if not sock then return nil, errno.strerror(why) or tostring(why) end
  sock:onerror(onerror)
  local ok, message, timed_out
  ok, why = sock:connect(max(0, limit - monotime()))
  if ok and self.context then
    ok, message, timed_out = handshake(self, sock, max(0, limit - monotime()))
  elseif not ok then
    message, timed_out = type(why) == "number" and errno.strerror(why) or tostring(why), why == errno.ETIMEDOUT and "timeout"
  end
  if not ok then
    sock:close()
    return nil, message, timed_out
  end
  sock:setmode("bn", "bn")
  if self.context then return setmetatable({ socket = sock }, secure_mt) end
  local fd = sock:pollfd()
  return setmetatable({
    socket = sock, fd = fd, more = false, readable = { pollfd = fd, events = "r" }, both = { pollfd = fd, events = "rw" },
  }, plain_mt)
end

---------------------------------------------------------------------------------------------------------------------------
-- the pool

local methods = {}
local class = { __name = "mlserve.client.sockets", __index = methods }

local function close_idle(self)
  local idle = self.idle
  self.idle = {}
  for _, connection in pairs(idle) do connection:close() end
end

-- Connections that lie idle for too long are closed when the client is used the next time.
local function prune(self, now)
  local idle = self.idle
  while idle[1] and idle[1].since + self.idle_timeout < now do remove(idle, 1):close() end
end

-- How many are lent out. Those of coroutines that were dropped have been collected.
local function count_busy(self)
  local count = 0
  for _ in pairs(self.busy) do count = count + 1 end
  return count
end

local function forked(self)
  local pid = net.getpid()
  if pid == self.pid then return end
  self.pid, self.idle, self.busy, self.busy_count = pid, {}, setmetatable({}, { __mode = "k" }), 0
end

-- An idle connection that still lives.
local function pop(self)
  local idle = self.idle
  while idle[1] do
    local connection = remove(idle)
    if connection:usable() then
      connection.reused = true
      return connection
    end
    connection:close()
  end
  return nil
end

local function lend(self, connection)
  self.busy[connection] = true
  self.busy_count = self.busy_count + 1
  return connection
end

local function give_back(self, connection)
  if not self.busy[connection] then return end
  self.busy[connection] = nil
  self.busy_count = self.busy_count - 1
  self.freed:signal(1)
end

local function connect(self, deadline)
  local place = lend(self, {}) -- so that nobody else takes it while we connect
  local ok, connection, message, timed_out = pcall(M.dial, self, deadline)
  self.busy[place] = nil
  self.busy_count = self.busy_count - 1
  if ok and connection then return lend(self, connection) end
  self.freed:signal(1)
  if not ok then return nil, tostring(connection) end
  return nil, message, timed_out
end

--- A connection. `fresh`: none that was used before. nil, message and kind: "timeout" (of the deadline or of connecting), "full", or nil: the
--- server can not be reached.
function methods:acquire(deadline, fresh)
  forked(self)
  while true do
    if self.closed then return nil, "the client has been closed", "closed" end
    prune(self, monotime())
    local connection = not fresh and pop(self)
    if connection then return lend(self, connection) end
    if #self.idle + self.busy_count < self.size then return connect(self, deadline) end
    self.busy_count = count_busy(self)
    if #self.idle > 0 then
      remove(self.idle, 1):close()
    elseif self.busy_count >= self.size then
      if not running() then return nil, format("all %d connections are in use", self.size), "full" end
      local left = deadline - monotime()
      if left <= 0 then
        self.freed:signal(1) -- perhaps it was us who were woken
        return nil, format("none of %d connections became free", self.size), "timeout"
      end
      self.freed:wait(left)
    end
  end
end

--- Gives a connection back; `reusable`: the answer ended where it should and the server keeps it open.
function methods:release(connection, reusable)
  if reusable and not self.closed and net.getpid() == self.pid then
    connection.since = monotime()
    self.idle[#self.idle + 1] = connection
  else
    connection:close()
  end
  give_back(self, connection)
end

--- Closes what is idle, and the others as they come back.
function methods:close()
  self.closed = true
  close_idle(self)
end

--- How many connections there are: idle, in use.
function methods:count() return #self.idle, self.busy_count end

methods.now = monotime
methods.sleep = cqueues.sleep

--- A pool of connections to one place.
---@param given table endpoint = { host, port } or { path }, tls = nil or { verify, ca, cert, key, server_name }, connect_timeout, idle_timeout, size
---@return table|nil pool
---@return string|nil message
function M.new(given)
  local context, message
  if given.tls then
    context, message = tls_context(given.tls)
    if not context then return nil, message end
  end
  return setmetatable({
    endpoint = given.endpoint, tls = given.tls, context = context, connect_timeout = given.connect_timeout,
    idle_timeout = given.idle_timeout, size = given.size, idle = {}, busy = setmetatable({}, { __mode = "k" }), busy_count = 0,
    freed = condition.new(), pid = net.getpid(), closed = false,
  }, class)
end

return M
