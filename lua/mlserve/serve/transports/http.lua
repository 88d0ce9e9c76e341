--- The stand-alone HTTP transport: lua-http's server frame, our connection engine, signals, draining.
--
--   local server = http.new { app = app, host = "127.0.0.1", port = 8501 }
--   assert(server:listen())
--   server:run()                 -- until SIGTERM or SIGINT: stops accepting, answers what was asked, returns true
--
-- Nothing here knows a protocol: `app:handle(request)` makes every answer. Nothing is printed: `log(level, message)` gets it.
-- Processes are the caller's business as well: fork before `new`, or share the listening socket through `socket`.

local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local errno = require "cqueues.errno"
local http1 = require "mlserve.serve.transports.http1"
local luahttp = require "mlserve.serve.transports.luahttp"
local net = require "mlserve.net"
local options = require "mlserve.options"

local monotime = cqueues.monotime

local function at_least_0(default) return { type = "number", min = 0, default = default } end

local RULES = {
  app = { type = "table", required = true },
  host = { type = "string", default = "127.0.0.1" },
  port = { type = "integer", min = 0, max = 65535, default = 8501 },
  socket = { type = "userdata" },
  reuseport = { type = "boolean", default = false },
  max_connections = { type = "integer", min = 1, default = 1024 },
  drain_timeout = at_least_0(10),
  log = { type = "function", default = function() end },
}
for name, default in pairs(http1.DEFAULTS) do RULES[name] = at_least_0(default) end

local SIGINT, SIGUSR1, SIGTERM = 2, 10, 15

local DRAIN_GRACE = 0.1   -- requests that were on their way when the drain began may still arrive
local FRESH_GRACE = 1     -- … and the first ones of connections just accepted
local LAST_GRACE = 0.5    -- after the drain, for connections to notice that they are shut
local ACCEPT_PAUSE = 0.05 -- after an accept that failed for want of resources

local methods = {}
local mt = { __name = "mlserve.http", __index = methods }

function mt:__tostring()
  return string.format("mlserve.http{host=%s, port=%s}", self.host, tostring(self:port() or "not listening"))
end

-- The observer of the requests may have something to write down.
local function tell_time(self)
  local observer = self.engine.app.observer
  while not self.drained do
    cqueues.poll(self.done_condition, 1)
    observer:tick()
  end
end

--- Binds the socket. host and port are given, or `socket` (a cqueues socket made before a fork).
---@return boolean|nil ok
---@return string|nil message
function methods:listen()
  local http_server, message = luahttp.server()
  if not http_server then return nil, message end
  local controller = cqueues.new()
  local frame = {
    cq = controller, tls = false, version = 1.1, max_concurrent = self.max_connections,
    onstream = function() end, -- never called: the engine serves the connection itself
    onerror = function(_, _, operation, err, number) self:on_error(operation, err, number) end,
  }
  local server, err
  if self.socket then
    frame.socket = self.socket
    server = http_server.new(frame)
  else
    frame.host, frame.port = self.host, string.format("%d", self.wanted_port)
    frame.reuseaddr, frame.reuseport = true, self.reuseport
    server, err = http_server.listen(frame)
  end
  local ok
  if server then ok, err = server:listen() end
  if not ok then
    if server and server.socket then server:close() end
    return nil, string.format("cannot listen on %s:%d: %s", self.host, self.wanted_port, tostring(err))
  end
  luahttp.set_engine(controller, function(socket) return self.engine:connection(socket) end)
  if self.engine.app.observer then controller:wrap(tell_time, self) end
  self.server, self.controller = server, controller
  return true
end

-- Errors of the frame: an accept that fails is tried again, but not in a tight loop.
function methods:on_error(operation, err, number)
  if number == errno.ECONNABORTED then return end -- the client left before we accepted
  self.log("error", string.format("%s: %s", tostring(operation), tostring(err)))
  if operation == "accept" then cqueues.sleep(ACCEPT_PAUSE) end
end

--- The port bound (the one chosen by the system when 0 was asked for); nil before listen.
function methods:port()
  if not self.server or not self.server.socket then return self.bound_port end
  local _, _, port = self.server:localname()
  self.bound_port = tonumber(port)
  return self.bound_port
end

--- Connections open now.
function methods:connections()
  return self.server and self.server.n_connections or 0
end

-- Connections the kernel has already taken for us are served before the socket closes.
local function accept_waiting(server)
  while server.socket do
    local socket = server.socket:accept({ nodelay = true }, 0)
    if not socket then return end
    server:add_socket(socket)
  end
end

local function drain(self)
  local server, engine = self.server, self.engine
  local deadline = monotime() + self.drain_timeout
  local function wait(seconds)
    local limit = math.min(monotime() + seconds, deadline)
    while server.n_connections > 0 and not self.forced and monotime() < limit do
      cqueues.poll(server.connection_done, self.force_condition, limit - monotime())
    end
  end
  self:port() -- remembered
  engine:stop()
  server:pause()
  accept_waiting(server)
  server.socket:close()
  server.socket = nil
  server.pause_cond:signal()
  server.connection_done:signal()
  wait(DRAIN_GRACE)
  engine:close_idle(false)
  wait(FRESH_GRACE - DRAIN_GRACE)
  engine:close_idle(true)
  wait(self.drain_timeout)
  local aborted = engine:abort()
  if aborted > 0 then self.log("warn", string.format("%d connections did not finish in time and were closed", aborted)) end
  self.drained = true
  self.done_condition:signal()
end

--- Begins to stop: no new connections, current requests are answered, everything ends within drain_timeout. Returns at once;
--- `run` returns when it is done, or keep calling `step` until it returns false. A second call ends it now.
function methods:stop()
  if not self.server then return end
  if self.stopping then
    self.forced = true
    self.force_condition:signal()
    return
  end
  self.stopping = true
  self.controller:wrap(drain, self)
end

-- One turn of the loop. An error that got out of a coroutine ends that coroutine only; a controller that does nothing but
-- fail is given up.
local function turn(self, timeout)
  local ok, err = self.controller:step(timeout)
  if ok then return true end
  local now = monotime()
  if now - self.failures_since > 1 then self.failures, self.failures_since = 0, now end
  self.failures = self.failures + 1
  self.log("error", "event loop: " .. tostring(err))
  if self.failures > 1000 then return nil, "event loop: " .. tostring(err) end
  return true
end

--- For programs with their own loop: runs what is ready, waiting at most `timeout` seconds for it.
---@return boolean|nil more false when the server has stopped; nil, message when it cannot go on
function methods:step(timeout)
  if not self.server then return nil, "not listening" end
  if self.controller:empty() then return false end
  return turn(self, timeout)
end

--- Descriptor, events and timeout, so that another cqueues controller can wait for the server: poll(server); server:step(0).
function methods:pollfd() return self.controller:pollfd() end
function methods:events() return self.controller:events() end
function methods:timeout() return self.controller:timeout() end

-- SIGTERM or SIGINT stops; again: stops now. SIGUSR1 begins the access log anew. Runs in the server's own controller: one loop, one wait.
local function watch_signals(self, signals)
  while not self.drained do
    cqueues.poll(signals, self.done_condition)
    for number in function() return signals:take() end do
      if number == SIGUSR1 then
        if self.engine.app.observer then self.engine.app.observer:reopen() end
      else
        self.log("info", self.stopping and "second signal: ending now" or "signal: draining")
        self:stop()
      end
    end
  end
end

--- Serves until SIGTERM or SIGINT, or until `stop` is called from a request.
---@return boolean|nil ok
---@return string|nil message
function methods:run()
  local ok, message, last = true, nil, nil
  if not self.server then
    ok, message = self:listen()
    if not ok then return nil, message end
  end
  local signals, problem = net.catch_signals(SIGTERM, SIGINT, SIGUSR1)
  if not signals then return nil, problem end
  self.controller:wrap(watch_signals, self, signals)
  while ok and not self.controller:empty() do
    if not self.drained then
      ok, message = turn(self)
    else -- all connections are shut; what does not end now hangs in the application
      last = last or monotime() + LAST_GRACE
      if monotime() > last then break end
      ok, message = turn(self, LAST_GRACE / 10)
    end
  end
  cqueues.cancel(signals:pollfd())
  signals:close()
  luahttp.set_engine(self.controller, nil)
  return ok, message
end

local M = {}

--- Makes a server; nothing is bound yet. The other options are the limits of transports.http1.
---@param given table app (object with handle(request) -> response), host, port (0: any free one) or socket, max_connections, …
---@return table server
function M.new(given)
  local values = options.check(given, RULES, "http.new")
  local app = values.app
  if type(app.handle) ~= "function" then error("http.new: option 'app': an object with a method 'handle' expected", 2) end
  local engine = { log = values.log, app = app }
  for name in pairs(http1.DEFAULTS) do engine[name] = values[name] end
  return setmetatable({
    host = values.host, wanted_port = values.port, socket = values.socket, reuseport = values.reuseport,
    max_connections = values.max_connections, drain_timeout = values.drain_timeout, log = values.log,
    engine = http1.new(engine), force_condition = condition.new(), done_condition = condition.new(),
    failures = 0, failures_since = 0, stopping = false, forced = false, drained = false,
  }, mt)
end

return M
