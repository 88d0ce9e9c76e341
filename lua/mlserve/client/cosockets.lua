--- Pooled connections inside nginx: cosockets, which never block a worker; nginx keeps the idle ones of each worker and drops those that end.

local ngx = ngx -- luacheck: ignore

local format = string.format
local floor, max, min = math.floor, math.max, math.min
local setmetatable, tostring = setmetatable, tostring

local READ_SIZE = 65536
local MOST = 2147483 -- seconds: cosockets count milliseconds in 32 bits

local M = {}

local function now()
  ngx.update_time()
  return ngx.now()
end

local function milliseconds(seconds) return max(1, floor(min(seconds, MOST) * 1000)) end

local connection_methods = {}
local connection_mt = { __index = connection_methods }

local function reason(why) return why == "timeout" and "timeout" or "closed" end

--- Some bytes; nil and "timeout" or "closed".
function connection_methods:receive(deadline)
  local left = deadline - now()
  if left <= 0 then return nil, "timeout" end
  self.socket:settimeout(milliseconds(left))
  local data, why = self.socket:receiveany(READ_SIZE)
  if data then return data end
  return nil, reason(why)
end

--- Sends all of it; nil and "timeout" or "closed".
function connection_methods:send(bytes, deadline)
  local left = deadline - now()
  if left <= 0 then return nil, "timeout" end
  self.socket:settimeout(milliseconds(left))
  local sent, why = self.socket:send(bytes)
  if sent then return true end
  return nil, reason(why)
end

function connection_methods:close() self.socket:close() end

local methods = {}
local class = { __name = "mlserve.client.cosockets", __index = methods }

--- A connection. `fresh`: none that was used before. nil, message and kind: "timeout", or nil: the server can not be reached.
function methods:acquire(deadline, fresh)
  local endpoint, tls = self.endpoint, self.tls
  local limit = min(deadline, now() + self.connect_timeout)
  if self.closed then return nil, "the client has been closed", "closed" end
  for _ = 1, self.size + 1 do
    local left = limit - now()
    if left <= 0 then return nil, "connecting took too long", "timeout" end
    local socket = ngx.socket.tcp()
    local ok, why
    socket:settimeout(milliseconds(left))
    if endpoint.path then ok, why = socket:connect("unix:" .. endpoint.path, self.pool)
    else ok, why = socket:connect(endpoint.host, endpoint.port, self.pool) end
    if not ok then return nil, tostring(why), why == "timeout" and "timeout" or nil end
    local reused = (socket:getreusedtimes() or 0) > 0
    if reused and fresh then
      socket:close()
    else
      if tls and not reused then
        socket:settimeout(milliseconds(limit - now()))
        ok, why = socket:sslhandshake(nil, tls.server_name or endpoint.host, tls.verify)
        if not ok then
          socket:close()
          return nil, "TLS: " .. tostring(why), why == "timeout" and "timeout" or nil
        end
      end
      return setmetatable({ socket = socket, reused = reused }, connection_mt)
    end
  end
  return nil, "no new connection"
end

--- Gives a connection back; `reusable`: the answer ended where it should and the server keeps it open.
function methods:release(connection, reusable)
  if reusable and not self.closed and connection.socket:setkeepalive(milliseconds(self.idle_timeout), self.size) then return end
  connection.socket:close()
end

--- From now on nothing is kept; nginx closes what is idle in its time.
function methods:close() self.closed = true end

methods.now = now

function methods.sleep(seconds) ngx.sleep(seconds) end

--- A pool of connections to one place; options as for mlserve.client.sockets.
---@return table|nil pool
---@return string|nil message
function M.new(given)
  local tls, endpoint = given.tls, given.endpoint
  if tls and (tls.ca or tls.cert) then
    return nil, "in nginx certificates are the configuration's: lua_ssl_trusted_certificate instead of tls.ca, a proxy_pass location for tls.cert"
  end
  local name = format("mlserve:%s:%s:%s:%s", endpoint.path or endpoint.host, tostring(endpoint.port),
    tls and (tls.verify and "verified" or "unverified") or "plain", tls and tls.server_name or "")
  return setmetatable({
    endpoint = endpoint, tls = tls, connect_timeout = given.connect_timeout, idle_timeout = given.idle_timeout, size = given.size,
    pool = { pool = name, pool_size = given.size, backlog = given.size * 16 }, closed = false,
  }, class)
end

return M
