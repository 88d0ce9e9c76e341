--- gRPC for the client: calls of one answer and streams, over mlserve.client.http2.
--
-- A call has one deadline, which the server is told as well (grpc-timeout), for connecting, its attempts and its answer; when it is over, or the call
-- is dropped, the stream is reset and the server may stop. A call is repeated when it never reached a handler (nobody listened; the stream was
-- refused, or left out by GOAWAY), when a connection that had been used before broke without an answer, or when the server said when
-- (grpc-retry-pushback-ms); the last two only for what may be asked twice.

local core = require "mlserve.core"
local grpc = require "mlserve.serve.protocols.grpc"
local http = require "mlserve.client.http"
local net = require "mlserve.net"

local find, format, gsub, lower, match = string.find, string.format, string.gsub, string.lower, string.match
local ceil, max, min, random = math.ceil, math.max, math.min, math.random
local error, ipairs, pairs, pcall, setmetatable, tonumber, tostring, type =
  error, ipairs, pairs, pcall, setmetatable, tonumber, tostring, type

local M = {}

local COMPRESS_FROM = 1024
local CANCEL, REFUSED = 8, 7

local NAMES = {}
for name, number in pairs(grpc.CODES) do NAMES[number] = name end

-- What an answer without a status means, by its HTTP status and by the reason its stream was reset for: gRPC's tables, and 413, which they leave out.
local BY_HTTP = { [400] = "INTERNAL", [401] = "UNAUTHENTICATED", [403] = "PERMISSION_DENIED", [404] = "UNIMPLEMENTED", [429] = "UNAVAILABLE",
  [413] = "RESOURCE_EXHAUSTED", [431] = "INTERNAL", [502] = "UNAVAILABLE", [503] = "UNAVAILABLE", [504] = "UNAVAILABLE" }
local BY_RESET = { [REFUSED] = "UNAVAILABLE", [CANCEL] = "CANCELLED", [11] = "RESOURCE_EXHAUSTED", [12] = "PERMISSION_DENIED" }

---------------------------------------------------------------------------------------------------------------------------
-- header fields

-- At most eight digits, rounded up: the server shall not give up before us.
local function timeout_text(seconds)
  if seconds < 10 then return format("%.0fu", max(1, ceil(seconds * 1e6))) end
  if seconds < 99999 then return format("%.0fm", ceil(seconds * 1e3)) end
  return format("%.0fS", min(99999999, ceil(seconds)))
end

--- Metadata as fields: { name, value, … }, checked; names that end in -bin are sent as base64.
---@param headers table|nil
---@param level integer for error
---@return string[]
function M.metadata(headers, level)
  local fields = {}
  for name, value in pairs(headers or {}) do
    if type(value) == "number" then value = tostring(value) end
    local key = type(name) == "string" and lower(name)
    if not key or find(key, "[^%l%d_.-]") or key == "" or find(key, "^grpc%-") or key == "te" or key == "content-type" or key == "user-agent" then
      error(format("headers: invalid name '%s'", tostring(name)), level)
    end
    if type(value) ~= "string" or not find(key, "%-bin$") and find(value, "[^\32-\126]") then
      error(format("headers: '%s': a string of printable ASCII expected (any bytes under a name that ends in -bin)", name), level)
    end
    fields[#fields + 1], fields[#fields + 2] = key, grpc.metadata_value(key, value)
  end
  return fields
end

---------------------------------------------------------------------------------------------------------------------------
-- calls

local call_methods = {}
local call_mt = { __name = "mlserve.client.call", __index = call_methods }

-- What is known of the answer; sets self.status (code name) and self.message when it has ended.
local function finish(self, code, message)
  if self.status then return end
  self.status, self.message = code, message
  if not self.forgotten then
    self.forgotten = true
    self.connection:forget(self.id)
  end
end

local function status_of(fields)
  local number = fields["grpc-status"]
  if not number then return nil end
  local text = grpc.percent_decode(fields["grpc-message"] or "")
  return NAMES[tonumber(number)] or "UNKNOWN", text
end

-- Looks at what has come; true: a message may be there.
local function look(self)
  local session, id = self.connection.session, self.id
  local status, ended, over, buffered = session:get(id)
  if status and not self.head then
    self.head = session:head(id)
    self.http = status
    local kind = self.head["content-type"]
    self.is_grpc = status == 200 and kind ~= nil and find(kind, "^application/grpc") ~= nil
    local coding = self.head["grpc-encoding"]
    self.coding = (coding == "gzip" or coding == "deflate") and coding or nil
  end
  if buffered > 0 then
    local bytes = session:read(id)
    if self.is_grpc then self.reader:push(bytes) end
  end
  if not ended and not over then return end
  self.ended = true
  local trailers = session:trailers(id)
  local code, text = status_of(trailers)
  if not code and self.head then -- an answer of trailers only
    trailers = self.head
    code, text = status_of(trailers)
  end
  if code then
    self.trailers, self.code, self.text = trailers, code, text
  elseif over and over ~= 0 then
    self.code, self.text, self.unseen = BY_RESET[over] or "INTERNAL", format("the stream was reset (HTTP/2 error %.0f)", over), over == REFUSED
  elseif self.http and not self.is_grpc then
    self.code, self.text = BY_HTTP[self.http] or "UNKNOWN", format("HTTP %d instead of a gRPC answer", self.http)
  else
    self.code, self.text = "INTERNAL", "the answer has no status"
  end
end

--- The next message; nil when there is none any more: then status and message say how it ended.
---@param deadline number|nil default: the call's
---@return string|nil bytes
---@return string|nil why "timeout": nothing yet, at a deadline of its own
function call_methods:receive(deadline)
  local until_time = min(deadline or self.deadline, self.deadline)
  while not self.status do
    local content, flag, code = self.reader:next()
    if content then
      if flag == 0 then return content end
      local text
      if flag == 1 and self.coding then
        content, text, code = net.inflate(self.coding, content, self.most, 0)
        if content then return content end
      end
      finish(self, code == "RESOURCE_EXHAUSTED" and code or "INTERNAL", text or format("a frame with flag %d", flag))
    elseif code then
      finish(self, "RESOURCE_EXHAUSTED", "the answer is larger than max_response: " .. flag)
    elseif self.ended then
      if self.code == "OK" and self.reader:pending() then finish(self, "INTERNAL", "the answer ended within a message") end
      finish(self, self.code, self.text)
    else
      local there, why = self.connection:wait(self.id, until_time)
      if there then
        look(self)
      elseif why == "timeout" then
        if until_time < self.deadline then return nil, "timeout" end
        finish(self, "DEADLINE_EXCEEDED", format("no answer within %g s", self.seconds))
      else
        look(self) -- what came before the end
        if not self.ended then
          self.broken = true
          finish(self, "UNAVAILABLE", self.http and "the connection ended inside the answer" or "the connection ended without an answer")
        end
      end
    end
  end
  return nil
end

--- Sends a message; `last`: the last one. False when nobody takes it any more.
---@param message string|nil nil: only says that there is no more
---@param last boolean|nil
---@return boolean
function call_methods:send(message, last)
  if self.status or self.half then return false end
  local frame = message and self.frame(message) or ""
  self.half = last or false
  if self.connection.dead then return false end
  local taken = self.connection.session:write(self.id, frame, not last)
  if taken then self.connection:kick() end
  return taken
end

--- Gives the call up.
function call_methods:cancel()
  finish(self, "CANCELLED", "the call was given up")
end

local channel_methods = {}
local channel_mt = { __index = channel_methods }

-- Begins a call on the connection. nil, message, kind.
local function begin(self, path, body, more, given)
  local pool, fields = self.pool, {}
  local connection, message, kind = pool:acquire(given.connect or given.deadline, given.fresh)
  if not connection then return nil, message, kind end
  for i, text in ipairs(self.fields) do fields[i] = text end
  fields[6] = self.prefix .. path
  for _, text in ipairs(given.fields or {}) do fields[#fields + 1] = text end
  if not given.endless then
    fields[#fields + 1], fields[#fields + 2] = "grpc-timeout", timeout_text(max(0, given.deadline - pool.now()))
  end
  local used = not connection.fresh
  local id
  id, message = connection:request(fields, body, more)
  if not id then return nil, message end
  connection.fresh = false
  return setmetatable({
    connection = connection, id = id, reader = grpc.reader(self.most), most = self.most, deadline = given.deadline, seconds = given.seconds, used = used,
    frame = self.frame, ended = false,
  }, call_mt)
end

--- Opens a stream.
---@param path string /package.Service/Method
---@param given table deadline, seconds, fields, endless (no grpc-timeout), connect (deadline of connecting)
---@return table|nil call
---@return string|nil message
---@return string|nil code
function channel_methods:open(path, given)
  local call, message, kind = begin(self, path, "", true, given)
  if call then return call end
  local late = kind == "timeout" and self.pool.now() >= given.deadline
  return nil, format("%s: %s", path, message), late and "DEADLINE_EXCEEDED" or kind == "closed" and "CANCELLED" or "UNAVAILABLE"
end

local function answer_of(call)
  local bytes = call:receive()
  if not bytes then
    if call.status == "OK" then call.status, call.message = "INTERNAL", "the answer has no message" end
    return nil
  end
  if call:receive() then
    call:cancel()
    call.status, call.message = "INTERNAL", "the answer has more than one message"
    return nil
  end
  return call.status == "OK" and bytes or nil
end

--- Asks and reads the only answer.
---@param path string
---@param message string bytes
---@param given table deadline, seconds, fields, retries, idempotent
---@return string|nil bytes
---@return string|nil message
---@return string|nil code
function channel_methods:unary(path, message, given)
  local body, attempts, retries, pool = self.frame(message), 0, given.retries, self.pool
  local fresh, text, code, pause
  while true do
    attempts = attempts + 1
    local call, why, kind = begin(self, path, body, false, { deadline = given.deadline, seconds = given.seconds, fields = given.fields, fresh = fresh })
    pause = nil
    if call then
      local ok, bytes = pcall(answer_of, call)
      if not ok then
        call:cancel()
        error(bytes, 0)
      end
      if bytes then return bytes end
      text, code = call.message, call.status
      local pushback = call.trailers and tonumber(call.trailers["grpc-retry-pushback-ms"])
      if call.unseen then pause, fresh = http.backoff(retries, attempts, random()), false
      elseif call.broken and call.used and not call.http and given.idempotent then pause, fresh = 0, true
      elseif pushback and pushback >= 0 and given.idempotent and (code == "UNAVAILABLE" or code == "RESOURCE_EXHAUSTED") then
        pause = pushback / 1000 + http.backoff(retries, attempts, random())
      end
    else
      text, code = why, "UNAVAILABLE"
      if kind == "closed" then code = "CANCELLED"
      elseif kind == "timeout" and pool.now() >= given.deadline then
        text, code = format("no answer within %g s (%s)", given.seconds, why), "DEADLINE_EXCEEDED"
      else pause = given.idempotent and http.backoff(retries, attempts, random()) or nil end
    end
    if not pause or attempts >= retries.attempts or pool.now() + pause >= given.deadline then
      if text == "" or text == nil then text = code end
      return nil, text, code
    end
    if pause > 0 then pool.sleep(pause) end
  end
end

--- A channel to the place that the pool leads to.
---@param pool table of mlserve.client.http2
---@param endpoint table of http.parse_url
---@param options table compression, max_response
---@return table
function M.channel(pool, endpoint, options)
  local fields = {
    ":method", "POST", ":scheme", endpoint.secure and "https" or "http", ":path", "", ":authority", endpoint.authority, "te", "trailers",
    "content-type", "application/grpc", "user-agent", "grpc-lua-mlserve/" .. core._VERSION, "grpc-accept-encoding", "identity,deflate,gzip",
  }
  local function frame(message)
    if options.compression and #message >= COMPRESS_FROM then
      local smaller = net.deflate("gzip", message, 1)
      if smaller and #smaller < #message then return grpc.frame(smaller, 1) end
    end
    return grpc.frame(message)
  end
  if options.compression then fields[#fields + 1], fields[#fields + 2] = "grpc-encoding", "gzip" end
  return setmetatable({ pool = pool, fields = fields, prefix = endpoint.prefix, frame = frame, most = options.max_response }, channel_mt)
end

--- A path without what must not stand in one, for error messages.
function M.method_name(path) return (gsub(match(path, "[^/]*$") or path, "%c", "?")) end

return M
