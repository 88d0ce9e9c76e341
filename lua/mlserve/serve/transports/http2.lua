--- The HTTP/2 side of the stand-alone server: serves whole connections, beside transports.http1 and with its limits.
--
-- One read, one call of the session in C, the application for every request that is complete, one write for all of the answers.
-- A request runs in a coroutine that is used again for the next one; only when the application waits for something does it get
-- a coroutine of the event loop, and the connection goes on with its other streams.
--
-- What holds for every connection:
--   * the bounds of net/http2.h: streams, heads, bodies, floods; what is refused gets an answer, and the other streams go on;
--   * head_timeout, body_timeout and idle_timeout as in HTTP/1.1; a stream whose client takes nothing for write_timeout is reset,
--     a connection of which nothing is taken that long ends;
--   * a request's `closed` (a cqueues condition) is signalled when its client has reset the stream or is gone;
--   * `drain` sends GOAWAY in two steps, and streams that were begun are answered.
--
-- A streaming route (`app:streaming(method, path)` says so) is called when its head is there, with request.stream:
--   stream:read(timeout) -> bytes | nil, "end"|"timeout"|"cancelled"
--   stream:write(bytes) -> true | nil, "cancelled"      waits while the client takes no more; the first one sends stream.headers
-- Trailers of the response it returns end the stream.

local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local net = require "mlserve.net"

local coroutine_create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
local date, time = os.date, os.time
local format, pairs, pcall, setmetatable, tostring = string.format, pairs, pcall, setmetatable, tostring
local max, min = math.max, math.min
local monotime, poll, running = cqueues.monotime, cqueues.poll, cqueues.running
local new_session, shutdown = net.http2_session, net.shutdown
local POLL = cqueues._POLL -- what cqueues.poll yields first, so that it passes through coroutines of others

local READS_IN_A_ROW = 16    -- reads before other connections get their turn
local BATCH_SECONDS = 0.005  -- requests that took this long together are answered before the next ones
local LOOKS = 4              -- … which is looked at every so many
local QUEUED_MOST = 262144   -- a streaming handler waits when this much of its answer is not sent
local SENT_LEAST = 65536     -- bytes that a client must take within write_timeout
local MAX_HEAD = 16384       -- the header list that is announced
local SPARE_RUNNERS = 256

local REQUEST, HEAD, DATA, CLOSED, REFUSED = 1, 2, 3, 4, 5
local INTERNAL_ERROR = 2 -- of RFC 9113 section 7

local M = {}

--- What an HTTP/2 connection begins with; its first line is not HTTP/1's.
M.PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

-- The Date field changes once a second.
local date_second, date_text
local function date_field()
  local now = time()
  if now ~= date_second then
    date_second = now
    date_text = date("!%a, %d %b %Y %H:%M:%S GMT", now)
  end
  return date_text
end

---------------------------------------------------------------------------------------------------------------------------
-- output

local function wake_writers(self)
  for _, state in pairs(self.states) do
    if state.blocked then state.changed:signal() end
  end
end

-- Nothing more can be written: the reader is to find out.
local function give_up(self)
  if not self.failed then
    self.failed = true
    shutdown(self.connection.fd, "rw")
  end
  return false
end

local write_rest

-- Sends what there is; what the kernel does not take goes from a coroutine of its own. False when the connection is lost.
local function flush(self)
  if self.failed then return false end
  if self.writing then return true end
  local done = self.push(self)
  if done == nil then return give_up(self) end
  if done == false then
    self.writing = true
    self.controller:wrap(write_rest, self)
  end
  if self.blocked > 0 then wake_writers(self) end
  return true
end

-- When all has been said, the reader has nothing to wait for.
local function end_reader(self)
  local _, _, _, finished = self.session:state()
  if finished and not self.ended then shutdown(self.connection.fd, "r") end
end

function write_rest(self)
  local limit, seen = self.engine.write_timeout, 0
  local deadline = monotime() + limit
  while not self.failed and not self.ended do
    local left = deadline - monotime()
    if left <= 0 then
      give_up(self)
      break
    end
    poll(self.connection.writable, left)
    if self.ended or self.failed then break end
    local done, sent = self.push(self)
    if done == nil then give_up(self) end
    if done ~= false then break end
    seen = seen + (sent or 0)
    if seen >= SENT_LEAST then
      deadline, seen = monotime() + limit, 0
    end
    if self.blocked > 0 then wake_writers(self) end
  end
  self.writing = false
  if self.ended or self.failed then return end
  if self.blocked > 0 then wake_writers(self) end
  end_reader(self)
end

-- After an answer: at once, unless the batch that is being worked on is written in the end anyway.
local function written(self)
  if self.batching or self.ended then return end
  flush(self)
  if self.draining and not self.failed then end_reader(self) end
end

local function push_plain(self) return self.session:flush(self.connection.fd) end

-- The same through a socket that encrypts.
local function push_socket(self)
  local sent = 0
  while true do
    local bytes, from = self.rest, self.rest_from
    if not bytes then bytes, from = self.session:output(), 1 end
    if bytes == "" then return true end
    local taken = self.connection:send(bytes, from)
    if not taken then return nil end
    from, sent = from + taken, sent + taken
    if from <= #bytes then
      self.rest, self.rest_from = bytes, from
      return false, sent
    end
    self.rest = nil
  end
end

---------------------------------------------------------------------------------------------------------------------------
-- input

local function room(self)
  local engine = self.engine
  return engine.max_buffered - engine.buffered
end

local function pull_plain(self) return self.session:pull(self.connection.fd, room(self)) end

local function pull_socket(self)
  local data, again = self.connection:receive()
  if data then
    local ok, message = self.session:receive(data, room(self))
    if ok then return true, true end
    return nil, message
  end
  if again then return false end
  return nil
end

---------------------------------------------------------------------------------------------------------------------------
-- streaming routes

local stream_methods = {}
local stream_mt = { __name = "mlserve.http2.stream", __index = stream_methods }

function stream_methods:read(timeout)
  local state, deadline = self.state, nil
  local h2 = state.h2
  while not state.gone do
    local bytes = h2.session:read(state.id)
    if bytes then
      written(h2) -- the client may send as much again
      return bytes
    end
    if bytes == false then return nil, "end" end
    if timeout then
      deadline = deadline or monotime() + timeout
      local left = deadline - monotime()
      if left <= 0 then return nil, "timeout" end
      poll(state.changed, left)
    else
      poll(state.changed)
    end
  end
  return nil, "cancelled"
end

function stream_methods:write(bytes)
  local state = self.state
  local h2, id = state.h2, state.id
  if state.gone then return nil, "cancelled" end
  if not state.started then
    if not h2.session:start(id, 200, self.headers, date_field()) then return nil, "cancelled" end
    state.started = true
  end
  local queued = h2.session:write(id, bytes)
  if not queued then return nil, "cancelled" end
  written(h2)
  while queued > QUEUED_MOST and not state.gone do
    state.blocked, h2.blocked = true, h2.blocked + 1
    poll(state.changed)
    state.blocked, h2.blocked = false, h2.blocked - 1
    queued = state.gone and 0 or h2.session:queued(id)
  end
  if state.gone then return nil, "cancelled" end
  return true
end

---------------------------------------------------------------------------------------------------------------------------
-- requests

local DONE = {} -- what a runner yields between two requests

local function run(self, id, request, state)
  local app = self.engine.app
  local response = app:handle(request)
  if self.ended then return end
  if state and state.started then
    if response.body and response.body ~= "" then self.session:write(id, response.body) end
    self.session:finish(id, response.trailers)
  else
    self.session:respond(id, response.status, response.headers, response.body, response.trailers, date_field(),
      request.method == "HEAD")
  end
end

-- Whatever the application does wrong becomes a 500 for this request only.
local function answer(self, id, request, state)
  local ok, problem = pcall(run, self, id, request, state)
  if ok then return end
  local engine, response = self.engine, M.internal_error
  engine.log("error", format("%s %s: %s", request.method, request.path, tostring(problem)))
  if self.ended then return end
  if state and state.started then self.session:reset(id, INTERNAL_ERROR)
  else self.session:respond(id, response.status, response.headers, response.body, nil, date_field(), request.method == "HEAD") end
end

local function runner_body(self, id, request, state)
  while true do
    answer(self, id, request, state)
    self, id, request, state = yield(DONE)
  end
end

local read_on

local runners, runner_count = {}, 0 -- coroutines between two requests, of all connections

local function keep_runner(runner)
  if runner_count < SPARE_RUNNERS then
    runner_count = runner_count + 1
    runners[runner_count] = runner
  end
end

-- Passes on to the event loop what the runner waits for, until it is done.
local function follow(self, id, runner, ok, tag, ...)
  if ok and tag == POLL then return follow(self, id, runner, resume(runner, yield(POLL, ...))) end
  self.states[id] = nil
  if ok and tag == DONE then
    keep_runner(runner)
  else
    self.engine.log("error", format("%s: %s", self.connection:peer(), ok and "the application yielded" or tostring(tag)))
    if not self.ended then self.session:reset(id, INTERNAL_ERROR) end
  end
  written(self)
end

-- When the application waits, it is this coroutine that must wait for it, now: an event that comes before it is waited for would be
-- lost. So another one goes on reading, and this one is told that it is no reader any more (true).
local function settle(self, id, runner, ok, tag, ...)
  if tag == DONE and ok then
    if self.states[id] then self.states[id] = nil end
    keep_runner(runner)
    return false
  end
  if not self.states[id] then
    self.states[id] = { closed = self.spare }
    self.spare = nil
  end
  self.controller:wrap(read_on, self)
  local fine, problem = pcall(follow, self, id, runner, ok, tag, ...)
  if not fine then self.engine.log("error", format("%s: %s", self.connection:peer(), tostring(problem))) end
  return true
end

local function start(self, id, request, state)
  local runner = runners[runner_count]
  if runner then
    runners[runner_count] = nil
    runner_count = runner_count - 1
  else
    runner = coroutine_create(runner_body)
  end
  return settle(self, id, runner, resume(runner, self, id, request, state))
end

local function start_streaming(self, id)
  local method, path, query, headers = self.session:stream(id)
  if not method then return false end
  local state = { h2 = self, id = id, closed = condition.new(), changed = condition.new() }
  self.states[id] = state
  return start(self, id, {
    method = method, path = path, query = query, headers = headers, peer = self.peer, http = "2", closed = state.closed,
    stream = setmetatable({ state = state, headers = {} }, stream_mt),
  }, state)
end

local function refuse(self, id, status, message)
  self.engine.log("info", format("%s: %d %s", self.connection:peer(), status, message))
  local observer = self.engine.app.observer
  if observer then observer:refused(status, self.connection:peer()) end
  self.session:respond(id, status, { ["content-type"] = "text/plain; charset=utf-8" }, message .. "\n", nil, date_field())
end

local function gone(state)
  state.gone = true
  state.closed:signal()
  if state.changed then state.changed:signal() end
end

-- Everything the session has to tell. True when another coroutine reads from now on.
local function dispatch(self)
  local session, app, began, count = self.session, self.engine.app, nil, 0
  local kind, id, first, second, query, headers, body = session:next()
  self.batching = true
  while kind do
    if kind == REQUEST then
      local handed_over
      if app.streaming and app:streaming(first, second) then
        handed_over = start_streaming(self, id)
      else
        local closed = self.spare
        if not closed then
          closed = condition.new()
          self.spare = closed
        end
        handed_over = start(self, id, {
          method = first, path = second, query = query, headers = headers, body = body, peer = self.peer, http = "2", closed = closed,
          timeout = nil, model = nil, version = nil, verb = nil, -- room for what protocols add: growing costs more than the rest
        })
      end
      if handed_over then return true end
      count = count + 1
      if count % LOOKS == 0 then -- at the clock
        local now = monotime()
        began = began or now
        if now - began > BATCH_SECONDS then
          began, self.batching = nil, false
          if not flush(self) then return false end
          poll(0)
          self.batching = true
        end
      end
    elseif kind == HEAD then
      if app.streaming and app:streaming(first, second) and start_streaming(self, id) then return true end
    elseif kind == REFUSED then
      refuse(self, id, first, second)
    else
      local state = self.states[id]
      if state and kind == DATA then state.changed:signal()
      elseif state and kind == CLOSED then gone(state) end
    end
    kind, id, first, second, query, headers, body = session:next()
  end
  self.batching = false
  return false
end

---------------------------------------------------------------------------------------------------------------------------
-- connections

-- Bytes of bodies that are still coming count for all connections together.
local function account(self, buffered)
  local engine = self.engine
  engine.buffered = engine.buffered + buffered - self.buffered
  self.buffered = buffered
end

-- Until there is something to read or to be done; false when the connection is to end.
local function wait(self, streams, deadline)
  local engine, connection, late = self.engine, self.connection, false
  local timeout = engine.idle_timeout
  if streams > 0 then timeout = max(0.05, engine.write_timeout / 4) end -- answers of handlers that wait may begin to be late without a read
  if deadline then
    local left = max(0, deadline - monotime())
    if left < timeout then timeout, late = left, true end
  end
  connection.idle = streams == 0
  local ready = poll(connection.readable, timeout)
  connection.idle = false
  if ready and ready ~= timeout then return true end
  if streams == 0 and not late then
    self.session:goaway()
    flush(self)
    return false
  end
  self.session:expire()
  return flush(self)
end

local HANDED_OVER = {} -- no result that a caller of `loop` could take for another

-- Reads until the connection ends. True: we end it, and the client may still be sending; false: it is lost; HANDED_OVER. Waits before it
-- reads unless there may be more: asking in vain costs a system call.
local function loop(self)
  local session, pull, reads = self.session, self.pull, 0
  local more = self.connection.secure
  while true do
    if dispatch(self) then return HANDED_OVER end
    if not flush(self) then return false end
    local streams, buffered, deadline, finished, events = session:state()
    if buffered ~= self.buffered then account(self, buffered) end
    if finished and not self.writing then return true end
    if not events then
      if not more then
        reads = 0
        if not wait(self, streams, deadline) then return true end
      elseif reads >= READS_IN_A_ROW then
        reads = 0
        poll(0)
      end
      local taken
      taken, more = pull(self)
      if taken then
        self.connection.fresh = false
        reads = reads + 1
      elseif taken == nil then
        if not more then return false end
        self.engine.log("info", format("%s: %s", self.connection:peer(), more))
        flush(self) -- with the reason
        return true
      end
    end
  end
end

local methods = {}
local mt = { __name = "mlserve.http2", __index = methods }

--- The first step of a drain: the client is told that the end is near.
function methods:notice()
  if self.ended or self.draining then return end
  self.session:notice()
  flush(self)
end

--- The second one: no new requests; the connection ends when all are answered.
function methods:goaway()
  if self.ended or self.draining then return end
  self.draining = true
  self.session:goaway()
  flush(self)
  if not self.failed and not self.writing then end_reader(self) end
end

-- A coroutine that reads, the first or the next one.
function read_on(self)
  local ok, result = pcall(loop, self)
  if ok and result == HANDED_OVER then return end
  local connection, engine = self.connection, self.engine
  if not ok and not connection.aborted then engine.log("error", format("%s: %s", connection:peer(), tostring(result))) end
  self.ended = true
  connection.http2 = nil
  account(self, 0)
  for _, state in pairs(self.states) do gone(state) end
  if ok and result and not self.failed then pcall(connection.linger, connection) end
  self.session:close()
  self.over = true
  self.is_over:signal()
end

--- Serves a connection until its end.
---@param connection table of transports.http1: fd, readable, writable, peer(), linger(); with `secure`, receive() and send(bytes, from)
---@param bytes string what was read already
function M.serve(connection, bytes)
  local engine = connection.engine
  local observer = engine.app.observer
  local self = setmetatable({
    connection = connection, engine = engine, controller = running(), states = {}, blocked = 0, buffered = 0, is_over = condition.new(),
    session = new_session {
      max_head = min(engine.max_head, MAX_HEAD), max_fields = engine.max_fields, max_body = engine.max_body,
      head_timeout = engine.head_timeout, body_timeout = engine.body_timeout, write_timeout = engine.write_timeout,
    },
    push = connection.secure and push_socket or push_plain, pull = connection.secure and pull_socket or pull_plain,
    peer = observer and observer.access_log and connection:peer() or nil,
  }, mt)
  connection.http2 = self
  local fine, message = self.session:receive(bytes, room(self))
  if not fine then engine.log("info", format("%s: %s", connection:peer(), message)) end
  if engine.stopping then self.session:notice() end
  read_on(self)
  while not self.over do poll(self.is_over) end -- the frame closes the socket when this returns
end

return M
