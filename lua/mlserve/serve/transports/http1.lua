--- The HTTP/1.1 side of the stand-alone server: serves whole connections on behalf of lua-http's server. A connection that begins
-- with HTTP/2's preface is left to transports.http2.
--
-- lua-http listens, limits and accepts; for each socket it asks a connection object for streams. Ours never returns a stream:
-- the first call serves the connection until its end. One read, one parser call in C and one write make a request; answers to
-- pipelined requests are joined into one write.
--
-- What holds for every connection:
--   * a head must be complete `head_timeout` seconds after its first byte (or after accept), a body `body_timeout` after its
--     head, an answer must be taken within `write_timeout`, silence between requests lasts at most `idle_timeout`;
--   * a refused request gets one answer and the connection is closed: after a framing error nobody knows where the next
--     request begins;
--   * nobody keeps the event loop: a connection that always has data gives way regularly;
--   * bytes of unfinished bodies over all connections stay under `max_buffered`.
-- When `drain` was called, idle connections end at once, others after the answer they are owed.

local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local errno = require "cqueues.errno"
local http2 = require "mlserve.serve.transports.http2"
local net = require "mlserve.net"

local concat, find, format, sub = table.concat, string.find, string.format, string.sub
local ipairs, pairs, pcall, setmetatable, tostring, type = ipairs, pairs, pcall, setmetatable, tostring, type
local monotime, poll = cqueues.monotime, cqueues.poll
local max = math.max
local receive, send, shutdown = net.receive, net.send, net.shutdown
local date, time = os.date, os.time

local READ_SIZE = 65536
local BATCH_BYTES = 65536    -- joined answers are written when they exceed this
local BATCH_SECONDS = 0.005  -- … or took this long, and other connections get their turn
local READS_IN_A_ROW = 16    -- reads before other connections get their turn
local LINGER_BYTES = 1048576 -- after a refusal: what is still read (and dropped) so that the client sees the answer
local LINGER_SECONDS = 1

local REASONS = {
  [200] = "OK", [201] = "Created", [202] = "Accepted", [204] = "No Content", [301] = "Moved Permanently", [302] = "Found",
  [304] = "Not Modified", [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found",
  [405] = "Method Not Allowed", [406] = "Not Acceptable", [408] = "Request Timeout", [409] = "Conflict",
  [412] = "Precondition Failed", [413] = "Content Too Large", [414] = "URI Too Long", [415] = "Unsupported Media Type",
  [422] = "Unprocessable Content", [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
  [499] = "Client Closed Request", [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout", [505] = "HTTP Version Not Supported",
}

local DEFAULTS = {
  max_body = 32 * 1024 * 1024,
  max_buffered = 256 * 1024 * 1024,
  max_head = 32768,  -- the parser's own limits are the upper bound
  max_fields = 100,
  head_timeout = 10,
  body_timeout = 30,
  idle_timeout = 60,
  write_timeout = 30,
}

---------------------------------------------------------------------------------------------------------------------------
-- answers

local status_lines = {}
for status, reason in pairs(REASONS) do status_lines[status] = format("HTTP/1.1 %d %s\r\n", status, reason) end

-- The Date field changes once a second.
local date_second, date_line
local function date_field()
  local now = time()
  if now ~= date_second then
    date_second = now
    date_line = date("!date: %a, %d %b %Y %H:%M:%S GMT\r\n", now)
  end
  return date_line
end

-- "name: value\r\n", checked once and kept: programs use few different fields. Line breaks in a value would let it forge
-- other fields; they become blanks.
local lines, line_count = {}, 0
local function field_line(name, value)
  local by_value = lines[name]
  local line = by_value and by_value[value]
  if line then return line end
  if type(name) ~= "string" or find(name, "[^%w!#$%%&'*+.^_`|~-]") or name == "" then
    error(format("invalid response header name %q", tostring(name)))
  end
  line = format("%s: %s\r\n", name:lower(), (tostring(value):gsub("[%z\1-\8\10-\31\127]", " ")))
  if #line <= 256 then
    if line_count >= 256 then lines, line_count = {}, 0 end
    if not lines[name] then lines[name] = {} end
    lines[name][value] = line
    line_count = line_count + 1
  end
  return line
end

-- Fields that describe the framing are ours alone.
local OURS = { ["content-length"] = true, ["transfer-encoding"] = true, connection = true, date = true }

-- The header lines of a response. Handlers answer with the same few tables again and again and do not change them: the lines of a
-- table that was seen twice are kept as long as it lives.
local known_fields, seen_fields = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })
local function encode_fields(headers)
  local fields = ""
  for name, value in pairs(headers) do
    if not OURS[name] then fields = fields .. field_line(name, value) end
  end
  if seen_fields[headers] then known_fields[headers] = fields end
  seen_fields[headers] = true
  return fields
end

-- The bytes of an answer. One concatenation makes them: intermediate strings cost more than anything else here.
local function encode(response, head_only, connection)
  local status, body, headers = response.status, response.body or "", response.headers
  local fields = headers and (known_fields[headers] or encode_fields(headers))
  local start = status_lines[status] or format("HTTP/1.1 %d \r\n", status)
  if status == 204 or status == 304 then return start .. date_field() .. (fields or "") .. (connection or "") .. "\r\n" end
  return start .. date_field() .. (fields or "") .. (connection or "") .. "content-length: " .. #body .. "\r\n\r\n"
    .. (head_only and "" or body)
end

---------------------------------------------------------------------------------------------------------------------------
-- sockets

-- Connections give way to others after some reads even when their bytes are always there already.
local function take_turns(self)
  local reads = self.reads + 1
  if reads >= READS_IN_A_ROW then
    reads = 0
    poll(0)
  end
  self.reads = reads
end

-- The kernel's socket is read and written directly: cqueues' own buffers would cost two more copies and three more calls a
-- request. What the frame may have read already is taken over when the connection begins. A socket that encrypts goes through
-- cqueues: these two do what net.receive and net.send do.

local function receive_secure(self)
  local data, why = self.socket:recv(-READ_SIZE, "bn")
  if data then return data end
  return nil, why == errno.EAGAIN
end

local function send_secure(self, bytes, from)
  local sent, why = self.socket:send(bytes, from, #bytes, "bn")
  if why and why ~= errno.EAGAIN then return nil end
  return sent or 0
end

-- Bytes there are within `timeout` seconds, at most READ_SIZE; or nil and whether the time is over. Waits before it reads: after
-- an answer the next request is hardly ever there yet, and asking in vain costs a system call. OpenSSL may have bytes that the kernel
-- has no more.
local function read(self, timeout)
  local secure, deadline = self.secure, nil
  if secure then
    local data, again = receive_secure(self)
    if data then
      take_turns(self)
      return data
    end
    if not again then return nil, false end
  end
  repeat
    local data, again
    local ready = poll(self.readable, timeout)
    if not ready or ready == timeout then return nil, true end
    if secure then data, again = receive_secure(self) else data, again = receive(self.fd, READ_SIZE) end
    if data then
      take_turns(self)
      return data
    end
    if not again then return nil, false end
    deadline = deadline or monotime() + timeout
    timeout = deadline - monotime()
  until timeout <= 0
  return nil, true
end

-- Writes all of it; false when the client does not take it in time or is gone. Usually the kernel takes an answer at once.
local function write(self, bytes)
  local fd, size, secure = self.fd, #bytes, self.secure
  local sent
  if secure then sent = send_secure(self, bytes, 1) else sent = send(fd, bytes, 1) end
  if sent == size then return true end
  local deadline = monotime() + self.engine.write_timeout
  while sent do
    size = size - sent
    if size == 0 then return true end
    local left = deadline - monotime()
    if left <= 0 then return false end
    poll(self.writable, left)
    if secure then sent = send_secure(self, bytes, #bytes - size + 1) else sent = send(fd, bytes, #bytes - size + 1) end
  end
  return false
end

local function flush(self)
  local n = self.out_count
  if n == 0 then return true end
  local out = self.out
  local bytes = n == 1 and out[1] or concat(out, "", 1, n)
  for i = n, 1, -1 do out[i] = nil end
  self.out_count, self.out_bytes = 0, 0
  return write(self, bytes)
end

local function queue(self, bytes)
  local n = self.out_count + 1
  self.out[n] = bytes
  self.out_count = n
  self.out_bytes = self.out_bytes + #bytes
end

-- Closing a socket with unread bytes resets the connection, and the reset may overtake the answer. So: say that we are done,
-- then read what was on its way, within limits.
local function linger(self)
  shutdown(self.fd, "w")
  local deadline, seen = monotime() + LINGER_SECONDS, 0
  while seen < LINGER_BYTES do
    local data = read(self, max(0, deadline - monotime()))
    if not data then return end
    seen = seen + #data
  end
end

-- Bytes of bodies that are still coming, over all connections.
local function buffer_more(self, bytes)
  local engine = self.engine
  self.buffered = self.buffered + bytes
  engine.buffered = engine.buffered + bytes
  return engine.buffered <= engine.max_buffered
end

local function buffer_done(self)
  self.engine.buffered = self.engine.buffered - self.buffered
  self.buffered = 0
end

local PLAIN = { ["content-type"] = "text/plain; charset=utf-8" }
local BUSY = { ["content-type"] = PLAIN["content-type"], ["retry-after"] = "1" }

-- The answer to a request that cannot be understood or will not be read, and the end of the connection.
local function refuse(self, status, message)
  buffer_done(self)
  self.engine.log("info", format("%s: %d %s", self:peer(), status, message))
  local observer = self.engine.app.observer
  if observer then observer:refused(status, self:peer()) end
  queue(self, encode({ status = status, headers = status == 503 and BUSY or PLAIN, body = message .. "\n" }, false, "connection: close\r\n"))
  if flush(self) then linger(self) end
end

---------------------------------------------------------------------------------------------------------------------------
-- requests

local TOO_LATE = "the request body did not arrive in time"
local CUT_SHORT = "the connection ended inside the request body"
local TOO_MUCH = "too many request bodies at once"

-- A body of known length of which `buffer` from `from` on holds only a part. Returns the body and the bytes behind it,
-- or nil, status, message.
local function read_sized(self, buffer, from, length)
  local deadline = monotime() + self.engine.body_timeout
  local pieces, count, total = { sub(buffer, from) }, 1, #buffer - from + 1
  while total < length do
    local data, late = read(self, max(0, deadline - monotime()))
    if not data then return nil, late and 408 or 400, late and TOO_LATE or CUT_SHORT end
    if not buffer_more(self, #data) then return nil, 503, TOO_MUCH end
    count = count + 1
    pieces[count] = data
    total = total + #data
    if total < length and monotime() > deadline then return nil, 408, TOO_LATE end
  end
  local rest = ""
  if total > length then
    local last = pieces[count]
    local cut = #last - (total - length)
    rest = sub(last, cut + 1)
    pieces[count] = sub(last, 1, cut)
  end
  return concat(pieces), rest
end

-- A chunked body; same results.
local function read_chunked(self, buffer, from)
  local engine = self.engine
  local deadline = monotime() + engine.body_timeout
  local decoder, pieces, count = net.http1_chunked(engine.max_body), {}, 0
  while true do
    local piece, after, done = decoder:feed(buffer, from)
    if not piece then return nil, after, done end
    if piece ~= "" then
      count = count + 1
      pieces[count] = piece
      if not buffer_more(self, #piece) then return nil, 503, TOO_MUCH end
    end
    if done then return concat(pieces), sub(buffer, after) end
    local late
    buffer, late = read(self, max(0, deadline - monotime()))
    if not buffer then return nil, late and 408 or 400, late and TOO_LATE or CUT_SHORT end
    if monotime() > deadline then return nil, 408, TOO_LATE end
    from = 1
  end
end

local CLOSE, KEEP = "connection: close\r\n", "connection: keep-alive\r\n"

local INTERNAL_ERROR = {
  status = 500, headers = { ["content-type"] = "application/json" }, body = '{\n    "error": "internal error"\n}',
}
http2.internal_error = INTERNAL_ERROR

-- For a streaming route (see transports.http2): the body, which is there, is read as one piece; what is written is sent at once, in
-- chunks, or to an HTTP/1.0 client up to the end of the connection.
local stream_methods = {}
local stream_mt = { __name = "mlserve.http1.stream", __index = stream_methods }

function stream_methods:read()
  local body = self.body
  self.body = nil
  if body and body ~= "" then return body end
  return nil, "end"
end

local function send_chunk(self, bytes)
  local connection = self.connection
  if self.chunked then bytes = format("%x\r\n", #bytes) .. bytes .. "\r\n" end
  queue(connection, bytes)
  if flush(connection) then return true end
  self.gone = true
  self.closed:signal()
  return nil, "cancelled"
end

function stream_methods:write(bytes)
  if self.gone then return nil, "cancelled" end
  if not self.started then
    self.started = true
    queue(self.connection, status_lines[200] .. date_field() .. encode_fields(self.headers)
      .. (self.chunked and "transfer-encoding: chunked\r\n" or CLOSE) .. "\r\n")
  end
  if bytes == "" then return true end
  return send_chunk(self, bytes)
end

-- The same results as `run`; the bytes are those that follow what was written.
local function run_streaming(self, request, keep, minor)
  local engine = self.engine
  local stream = setmetatable({
    connection = self, body = request.body, headers = {}, chunked = minor == 1, closed = condition.new(),
  }, stream_mt)
  request.body, request.stream, request.closed = nil, stream, stream.closed
  local ok, response = pcall(engine.app.handle, engine.app, request)
  if not stream.started then
    if not ok then error(response, 0) end
    keep = keep and not engine.stopping
    return encode(response, request.method == "HEAD", not keep and CLOSE or minor == 0 and KEEP or nil), keep
  end
  if not ok then -- what was sent cannot be taken back: the answer must be seen to be incomplete
    engine.log("error", format("%s %s: %s", request.method, request.path, tostring(response)))
    return "", false
  end
  if response.body and response.body ~= "" then stream:write(response.body) end
  return stream.chunked and "0\r\n\r\n" or "", keep and stream.chunked and not stream.gone and not engine.stopping
end

-- The bytes of the application's answer and whether the connection goes on, which is decided after the application ran: a drain
-- may have begun meanwhile.
local function run(self, request, keep, minor)
  local engine = self.engine
  local app = engine.app
  if app.streaming and app:streaming(request.method, request.path) then return run_streaming(self, request, keep, minor) end
  local response = app:handle(request)
  keep = keep and not engine.stopping
  return encode(response, request.method == "HEAD", not keep and CLOSE or minor == 0 and KEEP or nil), keep
end

-- The same; whatever the application does wrong becomes a 500 for this request only.
local function answer(self, request, keep, minor)
  local ok, bytes, goes_on = pcall(run, self, request, keep, minor)
  if ok then return bytes, goes_on end
  local engine = self.engine
  engine.log("error", format("%s %s: %s", request.method, request.path, tostring(bytes)))
  return encode(INTERNAL_ERROR, request.method == "HEAD", CLOSE), false
end

local HTTP2_LINE = sub(http2.PREFACE, 1, 16)

-- Serves requests until the connection ends. Called once, under pcall.
local function serve(self)
  local engine, socket = self.engine, self.socket
  local parser = net.http1_parser(engine.max_head, engine.max_fields)
  local observer = engine.app.observer
  local peer = observer and observer.access_log and self:peer() or nil -- only who logs wants it
  socket:setmode("bn", "bn")
  local waiting = socket:pending() -- what the frame has read
  local buffer, at = waiting > 0 and socket:recv(-waiting) or "", 1 -- unread bytes are buffer[at…]
  local head_deadline          -- set while a head is incomplete
  local batch_start            -- set while answers are being collected
  local first = true
  while true do
    if first and at == 1 and sub(buffer, 1, 16) == HTTP2_LINE then return http2.serve(self, buffer) end
    local method, path, query, headers, length, keep, expect, after, minor = parser:head(buffer, at)
    if method then
      head_deadline, first = nil, false
      at = after
      local body = ""
      if length ~= 0 then
        if length > engine.max_body then
          return refuse(self, 413, format("request body too large: %.0f bytes, at most %.0f", length, engine.max_body))
        end
        if length > 0 and #buffer - at + 1 >= length then
          body = sub(buffer, at, at + length - 1)
          at = at + length
        else
          if expect and at > #buffer then queue(self, "HTTP/1.1 100 Continue\r\n\r\n") end
          if not flush(self) then return end
          local status, message
          if length > 0 then body, status, message = read_sized(self, buffer, at, length)
          else body, status, message = read_chunked(self, buffer, at) end
          if not body then return refuse(self, status, message) end
          buffer, at = status, 1 -- the bytes behind the body
        end
      end
      local request, bytes = { method = method, path = path, query = query, headers = headers, body = body, peer = peer, http = "1.1" }
      bytes, keep = answer(self, request, keep, minor)
      if self.buffered ~= 0 then buffer_done(self) end
      if keep and at > #buffer and self.out_count == 0 then -- the usual case: one request, one answer
        if not write(self, bytes) then return end
        buffer, at = "", 1
      elseif not keep then
        queue(self, bytes)
        if flush(self) and at <= #buffer then linger(self) end
        return
      elseif at > #buffer then
        queue(self, bytes)
        buffer, at, batch_start = "", 1, nil
        if not flush(self) then return end
      else -- pipelined: more answers before the next write, within reason
        local now = monotime()
        queue(self, bytes)
        batch_start = batch_start or now
        if self.out_bytes > BATCH_BYTES or now - batch_start > BATCH_SECONDS then
          batch_start = nil
          if not flush(self) then return end
          poll(0)
        end
      end
    elseif method == false then
      return refuse(self, path, query)
    else -- the head is not complete
      if not flush(self) then return end
      local data, late
      if at > #buffer then
        if engine.stopping and not first then return end
        self.idle = true
        data = read(self, first and engine.head_timeout or engine.idle_timeout)
        self.idle = false
        if not data then return end -- nothing was asked, nothing is answered
        buffer, at = data, 1
      else
        head_deadline = head_deadline or monotime() + engine.head_timeout
        data, late = read(self, max(0, head_deadline - monotime()))
        if not data then
          return refuse(self, late and 408 or 400, late and "the request head did not arrive in time"
            or "the connection ended inside the request head")
        end
        buffer, at = (at == 1 and buffer or sub(buffer, at)) .. data, 1
        if monotime() > head_deadline and not find(buffer, "\r\n\r\n", 1, true) then
          return refuse(self, 408, "the request head did not arrive in time")
        end
      end
      self.fresh = false
    end
  end
end

---------------------------------------------------------------------------------------------------------------------------
-- what lua-http's server sees

local connection_methods = {}
local connection_mt = { __name = "mlserve.http1.connection", __index = connection_methods }

function connection_methods:peer()
  local _, address, port = self.socket:peername()
  return format("%s:%s", tostring(address or "unknown"), tostring(port or 0))
end

function connection_methods.onidle() end

connection_methods.linger, connection_methods.receive, connection_methods.send = linger, receive_secure, send_secure

--- Serves the connection and returns nil: there is never a stream for lua-http to handle.
function connection_methods:get_next_incoming_stream()
  local engine = self.engine
  local ok, err = pcall(self.is_http2 and http2.serve or serve, self, "")
  if not ok and not self.aborted then
    engine.log("error", format("%s: %s", self:peer(), tostring(err)))
    if err == "not enough memory" and not self.is_http2 and not self.http2 then -- what was read is garbage by now, and an answer takes little
      collectgarbage()
      pcall(refuse, self, 503, "out of memory")
    end
  end
  if self.buffered ~= 0 then buffer_done(self) end
  engine.connections[self] = nil
  return nil
end

function connection_methods:close()
  self.engine.connections[self] = nil
  self.socket:close()
end

---------------------------------------------------------------------------------------------------------------------------

local engine_methods = {}
local engine_mt = { __name = "mlserve.http1.engine", __index = engine_methods }

--- A connection object around an accepted socket. `is_http2`: the client and TLS have agreed on it.
function engine_methods:connection(socket, is_http2)
  local fd = socket:pollfd()
  local connection = setmetatable({
    engine = self, socket = socket, fd = fd, is_http2 = is_http2, secure = socket:checktls() ~= nil,
    readable = { pollfd = fd, events = "r" }, writable = { pollfd = fd, events = "w" }, -- what cqueues waits for
    out = {}, out_count = 0, out_bytes = 0, -- answers not yet written
    buffered = 0, reads = 0,
    idle = false,                           -- waiting for the first byte of a request
    fresh = true,                           -- nothing received yet
  }, connection_mt)
  self.connections[connection] = true
  return connection
end

-- What is done to connections may end some of them.
local function all(self)
  local list = {}
  for connection in pairs(self.connections) do list[#list + 1] = connection end
  return ipairs(list)
end

--- Tells the client of a socket that is one too many, and closes it.
function engine_methods:turn_away(socket)
  local connection = self:connection(socket)
  local ok, err = pcall(refuse, connection, 503, "too many connections")
  if not ok and not connection.aborted then self.log("error", tostring(err)) end
  connection:close()
end

--- From now on every answer closes its connection; with HTTP/2 clients are told that they shall begin no more requests.
function engine_methods:stop()
  self.stopping = true
  for _, connection in all(self) do
    if connection.http2 then connection.http2:notice() end
  end
end

--- Ends the connections that wait for a request; those that never sent one only when `fresh_too`. HTTP/2's take no new ones.
function engine_methods:close_idle(fresh_too)
  for _, connection in all(self) do
    if connection.http2 then connection.http2:goaway()
    elseif connection.idle and (fresh_too or not connection.fresh) then shutdown(connection.fd, "r") end
  end
end

--- Ends every connection, whatever it is doing. Returns how many there were.
function engine_methods:abort()
  local count = 0
  for connection in pairs(self.connections) do
    count = count + 1
    connection.aborted = true
    shutdown(connection.fd, "rw")
  end
  return count
end

local M = { DEFAULTS = DEFAULTS }

--- Makes an engine.
---@param options table app (object with handle(request) -> response), log (function(level, message)), and the limits of DEFAULTS
---@return table engine
function M.new(options)
  local engine = { app = options.app, log = options.log, connections = {}, stopping = false, buffered = 0 }
  for name, default in pairs(DEFAULTS) do engine[name] = options[name] or default end
  return setmetatable(engine, engine_mt)
end

return M
