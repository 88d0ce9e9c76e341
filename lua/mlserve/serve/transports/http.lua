--- The stand-alone HTTP transport: lua-http's server frame, our connection engines (HTTP/1.1 and HTTP/2), TLS, signals, draining.
--
--   local server = http.new { app = app, host = "127.0.0.1", port = 8501 }
--   assert(server:listen())
--   server:run()                 -- until SIGTERM or SIGINT: stops accepting, answers what was asked, returns true
--
-- Nothing here knows a protocol: `app:handle(request)` makes every answer. Nothing is printed: `log(level, message)` gets it.
-- One process serves; `prefork` makes several of them, which share `listeners` made before the fork.

local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local errno = require "cqueues.errno"
local http1 = require "mlserve.serve.transports.http1"
local listeners = require "mlserve.serve.transports.listeners"
local luahttp = require "mlserve.serve.transports.luahttp"
local net = require "mlserve.net"
local options = require "mlserve.options"
local tls = require "mlserve.serve.transports.tls"

local monotime = cqueues.monotime

local function at_least_0(default) return { type = "number", min = 0, default = default } end

local RULES = {
  app = { type = "table", required = true },
  host = { type = "string", default = "127.0.0.1" },
  port = { type = "integer", min = 0, max = 65535, default = 8501 },
  unix_socket = { type = "string" },
  unix_mode = { type = "string", default = "600" },
  socket_activation = { type = "boolean", default = false },
  listeners = { type = "table" },
  socket = { type = "userdata" },
  tls = { type = "table" },
  grpc_port = { type = "integer", min = 0, max = 65535 },
  reuseport = { type = "boolean", default = false },
  max_connections = { type = "integer", min = 1, default = 1024 },
  refuse_connections = { type = "boolean", default = false },
  processes = { type = "integer", min = 1, default = 1 },
  drain_timeout = at_least_0(10),
  log = { type = "function", default = function() end },
}
for name, default in pairs(http1.DEFAULTS) do RULES[name] = at_least_0(default) end
RULES.max_head = { type = "integer", min = 16, max = http1.DEFAULTS.max_head, default = http1.DEFAULTS.max_head }
RULES.max_fields = { type = "integer", min = 1, max = http1.DEFAULTS.max_fields, default = http1.DEFAULTS.max_fields }

local SIGHUP, SIGINT, SIGUSR1, SIGTERM = 1, 2, 10, 15

local DRAIN_GRACE = 0.1   -- requests that were on their way when the drain began may still arrive
local FRESH_GRACE = 1     -- … and the first ones of connections just accepted
local LAST_GRACE = 0.5    -- after the drain, for connections to notice that they are shut
local ACCEPT_PAUSE = 0.05 -- after an accept that failed for want of resources
local ACCEPT_SILENCE = 10 -- seconds between two lines about it in the log
local REFUSE_PAUSE = 0.001 -- what other processes have to take a connection before a full one refuses it
local REFUSE_MOST = 32    -- connections that are told so at a time; the rest is just closed
local FULL_PAUSE = 0.1    -- with several listeners: look whether another one has left room
local SPARE_DESCRIPTORS = 64 -- for model files, libraries and logs, beside one for each connection

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

local function turn_away(self, socket)
  self.refusing = self.refusing + 1
  self.engine:turn_away(socket)
  self.refusing = self.refusing - 1
end

-- At the limit. Other processes that share the socket have the first choice.
local function refuse_one(self, listener)
  local server, socket = self.server, listener.socket
  cqueues.poll(socket, server.connection_done, self.stop_condition)
  if self.processes > 1 then cqueues.sleep(REFUSE_PAUSE) end
  if self:connections() < self.max_connections or self.stopping then return end
  local accepted = socket:accept({ nodelay = listener.tcp }, 0)
  if not accepted then return end
  local told = self.refusing < REFUSE_MOST and not (self.tls and listener.tcp) -- nobody pays for a handshake to be turned away
  if told then self.controller:wrap(turn_away, self, accepted) else accepted:close() end
end

-- Accepts until the socket is closed. lua-http's own loop is not used: it knows one socket, and takes a shortage of anything but
-- this process's descriptors for a fatal error. One connection a turn: those that are open have theirs, and processes that share
-- the socket get a share of the connections.
local function accept_loop(self, listener)
  local server, socket = listener.tcp and self.server or self.plain, listener.socket
  local wish = { nodelay = listener.tcp }
  while not self.stopping do
    if self:connections() >= self.max_connections and self.refuse_connections then
      refuse_one(self, listener)
    elseif self:connections() >= self.max_connections then
      cqueues.poll(server.connection_done, self.stop_condition, #self.listeners > 1 and FULL_PAUSE or nil)
    else
      local accepted, why = socket:accept(wish, 0)
      if accepted then
        server:add_socket(accepted)
        cqueues.poll(0)
      elseif why == errno.ETIMEDOUT or why == errno.EAGAIN then
        cqueues.poll(socket, self.stop_condition)
      elseif why ~= errno.ECONNABORTED and why ~= errno.EINTR then
        -- the client that left before we accepted is no error; out of descriptors or memory is one that passes
        local now = monotime()
        if now - self.accept_failed > ACCEPT_SILENCE then
          self.accept_failed = now
          self.log("error", "accept: " .. errno.strerror(why))
        end
        collectgarbage() -- sockets nobody has closed
        cqueues.poll(server.connection_done, self.stop_condition, ACCEPT_PAUSE)
      end
    end
  end
end

--- Binds: host and port, unix_socket, what systemd passed, or takes what is bound already (`listeners`, or `socket`, a cqueues
--- socket).
---@return boolean|nil ok
---@return string|nil message
function methods:listen()
  local http_server, message = luahttp.server()
  local context
  if not http_server then return nil, message end
  if self.tls then
    context, message = tls.context(self.tls)
    if not context then return nil, message end
  end
  if not self.listeners then
    if self.given_socket then self.listeners = listeners.of_socket(self.given_socket)
    else self.listeners, message = listeners.open(self.wanted) end
    if not self.listeners then return nil, message end
  end
  local limit = net.descriptors(self.max_connections + SPARE_DESCRIPTORS)
  if limit >= 0 and limit < self.max_connections + SPARE_DESCRIPTORS then
    self.log("warn", string.format("at most %.0f descriptors are allowed: fewer than %d connections are possible", limit,
      self.max_connections))
  end
  local controller = cqueues.new()
  local function frame(secure)
    return http_server.new {
      cq = controller, tls = secure ~= nil, ctx = secure, version = not secure and 1.1 or nil, max_concurrent = self.max_connections,
      connection_setup_timeout = self.engine.head_timeout,
      onstream = function() end, -- never called: the engine serves the connection itself
      onerror = function(_, _, operation, err)
        if secure and operation == "wrap" then self.log("info", "TLS: " .. tostring(err)) -- the client's fault, and told to it
        else self.log("error", string.format("%s: %s", tostring(operation), tostring(err))) end
      end,
    }
  end
  self.server = frame(context)
  self.plain = self.server -- for Unix sockets, whose permissions say who may connect
  if context then
    self.plain = frame()
    self.plain.connection_done = self.server.connection_done
  end
  luahttp.set_engine(controller, function(socket, is_http2) return self.engine:connection(socket, is_http2) end)
  if self.engine.app.observer then controller:wrap(tell_time, self) end
  self.controller = controller
  self:port() -- remembered
  for i = 1, #self.listeners do controller:wrap(accept_loop, self, self.listeners[i]) end
  return true
end

--- The TCP port bound (the one chosen by the system when 0 was asked for); nil before listen.
function methods:port()
  if self.listeners then self.bound_port = self.listeners:port() end
  return self.bound_port
end

--- Connections open now.
function methods:connections()
  local server, plain = self.server, self.plain
  if not server then return 0 end
  return plain == server and server.n_connections or server.n_connections + plain.n_connections
end

--- Reads the files of TLS again, for new connections; those that are open go on.
---@return boolean|nil ok
---@return string|nil message the old ones stay
function methods:reload_tls()
  if not self.tls or not self.server then return true end
  local context, message = tls.context(self.tls)
  if not context then return nil, message end
  self.server.ctx = context
  return true
end

-- Connections the kernel has already taken for us are served before the socket closes.
local function accept_waiting(self)
  for i = 1, #self.listeners do
    local listener = self.listeners[i]
    while self:connections() < self.max_connections do
      local socket = listener.socket:accept({ nodelay = listener.tcp }, 0)
      if not socket then break end
      local server = listener.tcp and self.server or self.plain
      server:add_socket(socket)
    end
  end
end

local function drain(self)
  local server, engine = self.server, self.engine
  local deadline = monotime() + self.drain_timeout
  local function wait(seconds)
    local limit = math.min(monotime() + seconds, deadline)
    while self:connections() > 0 and not self.forced and monotime() < limit do
      cqueues.poll(server.connection_done, self.force_condition, limit - monotime())
    end
  end
  engine:stop()
  self.stop_condition:signal()
  accept_waiting(self)
  if self.own_listeners then self.listeners:remove() else self.listeners:close() end
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
local function watch_signals(self, signals, hooks)
  while not self.drained do
    cqueues.poll(signals, self.done_condition)
    for number in function() return signals:take() end do
      if number == SIGHUP then
        if hooks.reload and not self.stopping then hooks.reload() end
      elseif number == SIGUSR1 then
        if self.engine.app.observer then self.engine.app.observer:reopen() end
      elseif number == SIGTERM or not hooks.worker then
        self.log("info", self.stopping and "second signal: ending now" or "signal: draining")
        if hooks.stopping and not self.stopping then hooks.stopping() end
        self:stop()
      end -- else a terminal's SIGINT for the whole group: the parent tells its workers what to do
    end
  end
end

--- Serves until SIGTERM or SIGINT, or until `stop` is called from a request.
---@param hooks? table ready = function called once signals are caught and requests are served, reload = function for SIGHUP
--- (which ends the process when there is none), stopping = function called when a signal begins the drain, worker = true: one of
--- several processes, only SIGTERM counts
---@return boolean|nil ok
---@return string|nil message
function methods:run(hooks)
  local ok, message, last = true, nil, nil
  hooks = hooks or {}
  if not self.server then
    ok, message = self:listen()
    if not ok then return nil, message end
  end
  local signals, problem
  if hooks.reload or hooks.worker then signals, problem = net.catch_signals(SIGTERM, SIGINT, SIGUSR1, SIGHUP)
  else signals, problem = net.catch_signals(SIGTERM, SIGINT, SIGUSR1) end
  if not signals then return nil, problem end
  self.controller:wrap(watch_signals, self, signals, hooks)
  if hooks.ready then hooks.ready() end
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
---@param given table app (object with handle(request) -> response), host, port (0: any free one),
--- grpc_port (a second port, which speaks the same), unix_socket, unix_mode, socket_activation, or listeners or socket,
--- tls (see transports.tls; for all ports), max_connections, …;
--- processes: how many serve together, so that max_connections and max_buffered are for all of them
---@return table server
function M.new(given)
  local values = options.check(given, RULES, "http.new")
  local app = values.app
  if type(app.handle) ~= "function" then error("http.new: option 'app': an object with a method 'handle' expected", 2) end
  local engine = { log = values.log, app = app }
  for name in pairs(http1.DEFAULTS) do engine[name] = values[name] end
  engine.max_buffered = math.max(values.max_body, math.ceil(values.max_buffered / values.processes))
  return setmetatable({
    host = values.host, tls = values.tls, given_socket = values.socket, listeners = values.listeners,
    wanted = {
      host = values.host, port = values.port, grpc_port = values.grpc_port, secure = values.tls ~= nil, reuseport = values.reuseport, unix_socket = values.unix_socket,
      unix_mode = values.unix_mode, activation = values.socket_activation,
    },
    max_connections = math.ceil(values.max_connections / values.processes), drain_timeout = values.drain_timeout, log = values.log,
    engine = http1.new(engine), force_condition = condition.new(), done_condition = condition.new(),
    refuse_connections = values.refuse_connections, refusing = 0, processes = values.processes,
    stop_condition = condition.new(), accept_failed = -ACCEPT_SILENCE, own_listeners = values.processes == 1,
    failures = 0, failures_since = 0, stopping = false, forced = false, drained = false,
  }, mt)
end

return M
