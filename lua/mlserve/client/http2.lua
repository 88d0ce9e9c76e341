--- HTTP/2 for the client: many requests at a time on one connection (mlserve.net's http2_client), waiting for each without a thread of its own.
--
-- Nothing runs in the background: of those who wait, one reads the socket, for all, and when it has what it wanted another one goes on. Outside of a
-- loop, where nobody else can wait, the one who asks reads.

local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local errno = require "cqueues.errno"
local net = require "mlserve.net"
local sockets = require "mlserve.client.sockets"

local error, next, pairs, pcall, setmetatable, tostring = error, next, pairs, pcall, setmetatable, tostring
local monotime, poll, running = cqueues.monotime, cqueues.poll, cqueues.running

local READ_SIZE = 65536
local PULLS = 16 -- reads in a row before those who wait get their turn

local LIMITS = { max_head = 32768, max_fields = 200, stream_window = 1048576, connection_window = 16777216 }

local M = {}

---------------------------------------------------------------------------------------------------------------------------
-- one connection

local connection_methods = {}
local connection_mt = { __index = connection_methods }

local function die(self)
  if self.dead then return end
  self.dead = true
  for _, waiting in pairs(self.waiting) do waiting:signal() end
  self.socket:close()
end

-- true: all is sent; false: not yet; nil: the connection has ended
local function flush_plain(self) return (self.session:flush(self.fd)) end

local function flush_secure(self, deadline)
  local bytes = self.session:output()
  while bytes ~= "" do
    local left = deadline - monotime()
    if left <= 0 or not self.socket:xwrite(bytes, "bn", left) then return nil end -- half a record can not be taken back
    bytes = self.session:output()
  end
  return true
end

-- Takes in what is there, and says whether that was anything; nil: the connection has ended.
local function pull_plain(self)
  local session, fd = self.session, self.fd
  for i = 1, PULLS do
    local there = session:pull(fd)
    if there == nil then return nil end
    if not there then return true, i > 1 end
  end
  return true, true
end

local function pull_secure(self)
  for i = 1, PULLS do
    local data, why = self.socket:xread(-READ_SIZE, "bn", 0)
    if not data or data == "" then
      self.socket:clearerr()
      if why ~= errno.ETIMEDOUT and why ~= errno.EAGAIN then return nil end
      return true, i > 1
    end
    if not self.session:receive(data) then return nil end
  end
  return true, true
end

local function tell(self)
  local session, news, waiting = self.session, self.news, self.waiting
  local id = session:next()
  while id do
    news[id] = true
    if waiting[id] then waiting[id]:signal() end
    id = session:next()
  end
end

-- Sends what there is to send, waits for bytes and takes them in.
local function pump(self, deadline)
  local sent = self:flush(deadline)
  local there, some = self:pull()
  if some then sent = self:flush(deadline) end -- it may have opened a window
  tell(self)
  if sent == nil or there == nil then return false end
  if some or next(self.news) then return true end
  local left = deadline - monotime()
  if left > 0 then
    if running() then poll(sent and self.readable or self.both, self.kicked, left)
    elseif sent then net.wait(left, self.fd)
    else poll(self.both, left) end
  end
  there = self:pull()
  sent = self:flush(deadline) -- acknowledgements, and windows that have opened
  tell(self)
  return there ~= nil and sent ~= nil and not (self.session:finished() and not next(self.news))
end

local function hand_over(self, id)
  if self.reader then return end
  for other, waiting in pairs(self.waiting) do
    if other ~= id then
      waiting:signal()
      return
    end
  end
end

--- Waits until there is news of a stream. nil and "timeout", or "closed": the connection has ended (what had come can still be read).
function connection_methods:wait(id, deadline)
  local news, why = self.news, nil
  local in_loop = running()
  while not news[id] do
    if self.dead then why = "closed" break end
    local left = deadline - monotime()
    if left <= 0 then why = "timeout" break end
    if self.reader and in_loop then
      local waiting = self.waiting[id] or condition.new()
      self.waiting[id] = waiting
      waiting:wait(left)
      self.waiting[id] = nil
    else
      local before = self.reader
      self.reader = id
      local ok, alive = pcall(pump, self, deadline)
      self.reader = before
      if not ok or not alive then die(self) end
      if not ok then error(alive, 0) end
    end
  end
  news[id] = nil
  hand_over(self, id)
  if why then return nil, why end
  return true
end

--- Sends what was written, as far as it goes now.
function connection_methods:kick()
  if self.dead then return end
  local sent = self:flush(monotime() + 30)
  if sent == nil then die(self) elseif not sent then self.kicked:signal() end
end

--- Begins a request. nil and a message when the connection takes none.
function connection_methods:request(fields, body, more)
  local id, message = self.session:request(fields, body, more)
  if not id then return nil, message end
  self.count = self.count + 1
  self:kick()
  return id
end

--- Forgets a stream; what is still open is reset.
function connection_methods:forget(id)
  self.news[id] = nil
  self.count, self.since = self.count - 1, monotime()
  if self.dead then return end
  local _, _, over = self.session:get(id)
  self.session:forget(id)
  if not over then self:kick() end
end

function connection_methods:usable() return not self.dead and self.session:usable() end

---------------------------------------------------------------------------------------------------------------------------
-- the place it leads to

local methods = {}
local class = { __name = "mlserve.client.http2", __index = methods }

local function connect(self, deadline)
  local made, message, kind = sockets.dial(self.dialer, deadline)
  if not made then return nil, message, kind end
  local fd = made.socket:pollfd()
  local connection = setmetatable({
    socket = made.socket, fd = fd, session = net.http2_client(LIMITS), news = {}, waiting = {}, count = 0, since = monotime(), fresh = true,
    readable = { pollfd = fd, events = "r" }, both = { pollfd = fd, events = "rw" }, kicked = condition.new(),
    flush = self.dialer.context and flush_secure or flush_plain, pull = self.dialer.context and pull_secure or pull_plain,
  }, connection_mt)
  connection:kick()
  return connection
end

--- The connection, opened if need be. `fresh`: one that nobody has used. nil, message and kind ("timeout", "closed" or nil).
function methods:acquire(deadline, fresh)
  if self.closed then return nil, "the client has been closed", "closed" end
  if net.getpid() ~= self.pid then self.pid, self.connection = net.getpid(), nil end -- a fork's connection is its parent's
  local connection = self.connection
  if connection and connection.count == 0 and connection:usable() then
    if monotime() - connection.since > self.dialer.idle_timeout or not connection:pull() then die(connection) else tell(connection) end
  end
  if connection and connection:usable() and not (fresh and not connection.fresh) then return connection end
  if connection and connection.count == 0 then die(connection) end
  while self.connecting and running() do -- somebody else is at it
    local left = deadline - monotime()
    if left <= 0 then return nil, "connecting took too long", "timeout" end
    self.connecting:wait(left)
    if not self.connecting and self.connection and self.connection:usable() then return self.connection end
  end
  local done = condition.new()
  self.connecting = done
  local ok, made, message, kind = pcall(connect, self, deadline)
  self.connecting = nil
  self.connection = ok and made or nil
  done:signal()
  if not ok then return nil, tostring(made) end
  return made, message, kind
end

--- Closes the connection; requests under way fail.
function methods:close()
  self.closed = true
  if self.connection then die(self.connection) end
  self.connection = nil
end

function methods:count()
  local connection = self.connection
  if not connection or connection.dead then return 0, 0 end
  return connection.count == 0 and 1 or 0, connection.count == 0 and 0 or 1
end

methods.now = monotime
methods.sleep = cqueues.sleep

--- Options as for mlserve.client.sockets; TLS offers "h2" only.
---@return table|nil
---@return string|nil message
function M.new(given)
  local dialer, message = sockets.new(given)
  if not dialer then return nil, message end
  dialer.alpn = { "h2" }
  return setmetatable({ dialer = dialer, pid = net.getpid(), closed = false }, class)
end

return M
