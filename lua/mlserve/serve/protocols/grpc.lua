--- gRPC without a transport: method functions become handlers of an application's routes, and back.
--
--   app:mount { { method = "POST", path = "/package.Service/Method", handler = grpc.unary(function(message, request)
--     return answer                                     -- or nil, text, code ("NOT_FOUND") [, details]
--   end) } }
--   app:fallback(grpc.fallback())                       -- unknown methods are UNIMPLEMENTED
--
-- Here are framing, compression, deadlines, metadata and status; messages are bytes throughout. A method function finds the seconds
-- left in request.timeout and may set request.model, .version and .verb (for metrics), request.reply_headers and .reply_trailers
-- (metadata of its answer). The status goes into response.trailers, which an HTTP/2 transport sends after the body; a response
-- without a body is one of trailers only.
--
-- A streaming method function gets an object with receive() and send(message) on top of request.stream, which the transport gives:
-- read(timeout) -> bytes | nil, "end" | "timeout" | "cancelled", write(bytes) -> true | nil, reason, a table headers that the first write
-- sends, and perhaps wait(seconds) -> "timeout" | "cancelled". Where there is none, the body is the whole of what the client has to say, and the
-- answers are collected.

local HTTP_STATUS = require("mlserve.serve.protocols.tfserving").HTTP_STATUS

local byte, char, find, format, gmatch, gsub, lower, match, sub =
  string.byte, string.char, string.find, string.format, string.gmatch, string.gsub, string.lower, string.match, string.sub
local concat, floor, huge, sort = table.concat, math.floor, math.huge, table.sort
local error, ipairs, next, pairs, pcall, require, setmetatable, tonumber, tostring, type =
  error, ipairs, next, pairs, pcall, require, setmetatable, tonumber, tostring, type

local M = {}

--- Name of a code, as servables and repositories give it, to gRPC's number.
M.CODES = {
  OK = 0, CANCELLED = 1, UNKNOWN = 2, INVALID_ARGUMENT = 3, DEADLINE_EXCEEDED = 4, NOT_FOUND = 5, ALREADY_EXISTS = 6,
  PERMISSION_DENIED = 7, RESOURCE_EXHAUSTED = 8, FAILED_PRECONDITION = 9, ABORTED = 10, OUT_OF_RANGE = 11, UNIMPLEMENTED = 12,
  INTERNAL = 13, UNAVAILABLE = 14, DATA_LOSS = 15, UNAUTHENTICATED = 16,
}
local CODES = M.CODES

--- What is used where `settings` is not told otherwise.
M.DEFAULTS = {
  max_message = 4194304,      -- bytes of one message of a client, after inflating
  max_response = 2147483647,  -- … and of one of ours; the client has a limit of its own
  compress_from = huge,       -- bytes from which an answer is compressed although the request was not, if the client can read that
  level = 1,                  -- zlib's
}

local KNOWN = "compress_from, level, log, max_message, max_response"
local CONTENT_TYPE = "application/grpc"
local ENCODINGS = { gzip = "gzip", deflate = "deflate" }
local ACCEPTED = "identity,deflate,gzip"

-- Shared by all responses: nobody changes them.
local HEADERS = { ["content-type"] = CONTENT_TYPE }
local OK_TRAILERS = { ["grpc-status"] = "0" }

-- Loaded when first needed.
local function core() return require "mlserve.core" end
local function net() return require "mlserve.net" end
local core_clock
local function clock()
  if not core_clock then core_clock = core().clock end
  return core_clock()
end

--- Settings with `given` put over the defaults.
---@param given? table max_message, max_response, compress_from, level; log: function(level, message)
---@return table
function M.settings(given)
  local values = {}
  for name, value in pairs(M.DEFAULTS) do values[name] = value end
  for name, value in pairs(given or {}) do
    local wanted = name == "log" and "function" or M.DEFAULTS[name] and "number"
    if not wanted then error(format("grpc: unknown option '%s'; known: %s", tostring(name), KNOWN), 2) end
    if type(value) ~= wanted or value ~= value or wanted == "number" and value < 0 then
      error(format("grpc: option '%s': %s expected, got %s", name, wanted == "number" and "number of 0 or more" or wanted, tostring(value)), 2)
    end
    values[name] = value
  end
  return values
end

local DEFAULTS = M.settings()

---------------------------------------------------------------------------------------------------------------------------
-- frames

local heads = {} -- of plain frames by length, as long as they are short

local function head(flag, size)
  local d = size % 256
  local c = (size - d) / 256 % 256
  local b = floor(size / 65536) % 256
  return char(flag, floor(size / 16777216), b, c, d)
end
for size = 0, 1023 do heads[size] = head(0, size) end

--- A message with its head in front.
---@param message string
---@param flag? integer 1: compressed
---@return string
function M.frame(message, flag)
  local size = #message
  if flag and flag ~= 0 then return head(flag, size) .. message end
  return (heads[size] or head(0, size)) .. message
end
local frame = M.frame

local reader_methods = {}
local reader_mt = { __index = reader_methods }

--- Takes bytes as they come and gives frames.
---@param most number bytes of a frame's content
---@return table reader
function M.reader(most) return setmetatable({ most = most, buffer = "", at = 1, parts = nil, size = 0 }, reader_mt) end

function reader_methods:push(bytes)
  local parts = self.parts
  if not parts then
    self.parts, self.size = { bytes }, #bytes
  else
    parts[#parts + 1], self.size = bytes, self.size + #bytes
  end
end

-- What was pushed is put together only when a whole frame may be there: a large message in small pieces costs one copy.
local function gather(self)
  if self.parts then
    self.buffer, self.at = sub(self.buffer, self.at) .. concat(self.parts), 1
    self.parts, self.size = nil, 0
  end
end

--- The next frame.
---@return string|nil content nil: more bytes are needed
---@return integer|string flag or why the bytes are no frame
---@return string|nil code
function reader_methods:next()
  local there = #self.buffer - self.at + 1 + self.size
  if there < (self.need or 5) then return nil end
  gather(self)
  local buffer, at = self.buffer, self.at
  local flag, a, b, c, d = byte(buffer, at, at + 4)
  local size = ((a * 256 + b) * 256 + c) * 256 + d
  if size > self.most then
    return nil, format("Received message larger than max (%.0f vs. %.0f)", size, self.most), "RESOURCE_EXHAUSTED"
  end
  if there < 5 + size then
    self.need = 5 + size
    return nil
  end
  self.need = nil
  self.at = at + 5 + size
  if self.at > #buffer then self.buffer, self.at = "", 1 end
  return sub(buffer, at + 5, at + 4 + size), flag
end

--- Whether bytes are left that are no whole frame.
function reader_methods:pending() return #self.buffer - self.at + 1 + self.size > 0 end

---------------------------------------------------------------------------------------------------------------------------
-- header fields

local UNITS = { H = 3600, M = 60, S = 1, m = 1e-3, u = 1e-6, n = 1e-9 }

--- Seconds of a grpc-timeout field; nil when it is none.
---@param text string
---@return number|nil
function M.parse_timeout(text)
  local digits, unit = match(text, "^(%d+)([HMSmun])$")
  if not digits or #digits > 8 then return nil end
  return tonumber(digits) * UNITS[unit]
end

local function percent(c) return format("%%%02X", byte(c)) end

--- grpc-message: bytes outside of printable ASCII, and %, become %XX. So do spaces at either end, which no field may have in HTTP/2.
---@param text string
---@return string
function M.percent_encode(text)
  if find(text, "[^\32-\36\38-\126]") then text = gsub(text, "[^\32-\36\38-\126]", percent) end
  if find(text, "^ ") or find(text, " $") then text = gsub(gsub(text, "^ ", percent), " $", percent) end
  return text
end

--- The way back; what is no %XX stays as it is.
---@param text string
---@return string
function M.percent_decode(text)
  if not find(text, "%", 1, true) then return text end
  return (gsub(text, "%%(%x%x)", function(digits) return char(tonumber(digits, 16)) end))
end

-- Base64 as metadata has it: without padding.
local function base64(bytes) return (gsub(core().base64_encode(bytes), "=+$", "")) end

--- A value of metadata as a field has it: names that end in -bin are base64.
function M.metadata_value(name, value)
  if find(name, "%-bin$") then return base64(value) end
  return value
end

--- Metadata of a request. Names that end in -bin are decoded; of several values the array is the second result.
---@param request table
---@param name string lower case
---@return string|nil value the first one
---@return table|nil values
function M.metadata(request, name)
  local field, values = request.headers[name], {}
  if not field then return nil end
  if not find(name, "%-bin$") then return field, { field } end
  for item in gmatch(field, "[^,%s]+") do
    local bytes = core().base64_decode(item)
    if bytes then values[#values + 1] = bytes end
  end
  return values[1], values
end

-- ---- google.rpc.Status, the only message that this file knows ----

local function varint(n)
  local bytes = {}
  while n >= 128 do
    bytes[#bytes + 1] = char(n % 128 + 128)
    n = floor(n / 128)
  end
  bytes[#bytes + 1] = char(n)
  return concat(bytes)
end

local function field_of(number, bytes)
  if bytes == "" then return "" end
  return char(number * 8 + 2) .. varint(#bytes) .. bytes
end

--- The bytes of google.rpc.Status.
---@param number integer
---@param text string
---@param details table array of { type_url =, value = }
---@return string
function M.status_message(number, text, details)
  local parts = { number > 0 and char(8, number) or "", field_of(2, text) }
  for _, detail in ipairs(details) do
    local any = field_of(1, detail.type_url) .. field_of(2, detail.value)
    parts[#parts + 1] = char(26) .. varint(#any) .. any
  end
  return concat(parts)
end

---------------------------------------------------------------------------------------------------------------------------
-- responses

local function with_metadata(known, more)
  local all = {}
  for name, value in pairs(known) do all[name] = value end
  for name, value in pairs(more) do
    if not find(name, "^grpc%-") then all[name] = M.metadata_value(name, value) end
  end
  return all
end

local function status_trailers(code, text, details, more)
  local number = CODES[code] or CODES.UNKNOWN
  local trailers = { ["grpc-status"] = tostring(number) }
  if text and text ~= "" then trailers["grpc-message"] = M.percent_encode(text) end
  if details and next(details) then
    trailers["grpc-status-details-bin"] = base64(M.status_message(number, text or "", details))
  end
  if more then trailers = with_metadata(trailers, more) end
  return trailers
end

local function label(response, request, code)
  response.model, response.version, response.verb = request.model, request.version, request.verb
  if code ~= "OK" then response.outcome = HTTP_STATUS[code] or 500 end
  return response
end

--- A response of trailers only.
---@param request table
---@param text string
---@param code string
---@param details? table array of { type_url =, value = }
---@return table response
function M.failure(request, text, code, details)
  local more = request.reply_headers
  return label({
    status = 200, headers = more and with_metadata(HEADERS, more) or HEADERS,
    trailers = status_trailers(code, text, details, request.reply_trailers),
  }, request, code)
end
local failure = M.failure

local UNSUPPORTED = {
  status = 415, headers = { ["content-type"] = "text/plain; charset=utf-8" }, body = "content-type application/grpc expected\n",
}

-- nil when the type is ours, else the refusal
local function check_type(request, content_type)
  local name = content_type and match(lower(content_type) .. ";", "^%s*([^;%s]*)%s*;")
  if name == CONTENT_TYPE or name == "application/grpc+proto" then return nil end
  if name and find(name, "^application/grpc%+") then
    return failure(request, format("content-type %s: only messages in protobuf's form are understood", content_type), "UNIMPLEMENTED")
  end
  return UNSUPPORTED
end

-- false or the coding of the request's compressed messages; nil and the refusal
local function coding_of(request)
  local name = request.headers["grpc-encoding"]
  if not name or name == "identity" or name == "" then return false end
  local coding = ENCODINGS[name]
  if coding then return coding end
  local refusal = failure(request, format("grpc-encoding %s is not supported", name), "UNIMPLEMENTED")
  refusal.headers = { ["content-type"] = CONTENT_TYPE, ["grpc-accept-encoding"] = ACCEPTED }
  return nil, refusal
end

-- The message in a frame.
local function open(content, flag, coding, most)
  if flag == 0 then return content end
  if flag ~= 1 then return nil, format("Invalid gRPC frame: flag %d", flag), "INTERNAL" end
  if not coding then return nil, "Compressed flag set without a grpc-encoding", "INTERNAL" end
  if content == "" then return nil, "Cannot inflate an empty message", "INTERNAL" end
  local message, text, code = net().inflate(coding, content, most, 0)
  if message then return message end
  if code == "RESOURCE_EXHAUSTED" then
    return nil, format("Received message larger than max (after decompression; limit %.0f)", most), code
  end
  return nil, "Cannot inflate the message: " .. tostring(text), "INTERNAL"
end

-- The only message of a body that is not the plain case.
local function only_message(body, coding, most)
  local reader = M.reader(most)
  reader:push(body)
  local content, flag, code = reader:next()
  if not content then
    if code then return nil, flag, code end
    if body == "" then return nil, "Request cardinality violation: one message expected, got none", "UNIMPLEMENTED" end
    return nil, "Truncated message: the stream ended within a frame", "INTERNAL"
  end
  if reader:pending() then return nil, "Request cardinality violation: one message expected, got more", "UNIMPLEMENTED" end
  local message
  message, flag, code = open(content, flag, coding, most)
  return message, flag, code
end

-- gzip, deflate or nil: what an answer of this size is sent in
local function answer_coding(request, size, squeezed, settings)
  if size < (squeezed and 128 or settings.compress_from) then return nil end
  local accepted = request.headers["grpc-accept-encoding"]
  if not accepted then return nil end
  accepted = "," .. gsub(accepted, "%s", "") .. ","
  return find(accepted, ",gzip,", 1, true) and "gzip" or find(accepted, ",deflate,", 1, true) and "deflate" or nil
end

local function compressed(message, coding, settings)
  local bytes = net().deflate(coding, message, settings.level)
  if bytes and #bytes < #message then return frame(bytes, 1) end
  return frame(message)
end

local function too_large(size, settings)
  return format("Sent message larger than max (%.0f vs. %.0f)", size, settings.max_response), "RESOURCE_EXHAUSTED"
end

local function raised(settings, request, problem)
  if settings.log then settings.log("error", format("%s: %s", request.path, tostring(problem))) end
  return "Internal error", "INTERNAL"
end

local DEADLINE = "Deadline Exceeded"

-- request.timeout; nil and the refusal when the field is no time, or the time is over already
local function set_deadline(request, field)
  local timeout = M.parse_timeout(field)
  if not timeout then return nil, failure(request, format("Malformed grpc-timeout: %s", field), "INTERNAL") end
  if timeout <= 0 then return nil, failure(request, DEADLINE, "DEADLINE_EXCEEDED") end
  request.timeout = timeout
  return clock() + timeout
end

-- TensorFlow Serving's own counters count calls of its services.
local function is_counted(request) return find(request.path, "^/tensorflow%.serving%.") ~= nil end

---------------------------------------------------------------------------------------------------------------------------
-- unary

--- A handler from a method with one message each way.
---@param method function method(message, request) -> message | nil, text, code [, details]
---@param settings? table of `settings`
---@return function handler
function M.unary(method, settings)
  settings = settings or DEFAULTS
  local most, compress_from, max_response = settings.max_message, settings.compress_from, settings.max_response
  local counted

  local function fail(request, text, code, details)
    local response = failure(request, text, code or "UNKNOWN", details)
    if counted then response.code = CODES[code] and code or "UNKNOWN" end
    return response
  end

  return function(request)
    local headers, body = request.headers, request.body or ""
    if counted == nil then counted = is_counted(request) end
    if headers["content-type"] ~= CONTENT_TYPE then
      local refusal = check_type(request, headers["content-type"])
      if refusal then return refusal end
    end

    local coding = false
    local deadline, refusal, message, text, code, details, ok
    if headers["grpc-encoding"] then
      coding, refusal = coding_of(request)
      if refusal then return refusal end
    end
    local flag, a, b, c, d = byte(body, 1, 5)
    local size = #body - 5
    if flag == 0 and size <= most and size >= 0 and ((a * 256 + b) * 256 + c) * 256 + d == size then
      message = sub(body, 6)
    else
      message, text, code = only_message(body, coding, most)
      if not message then return fail(request, text, code) end
    end
    if headers["grpc-timeout"] then
      deadline, refusal = set_deadline(request, headers["grpc-timeout"])
      if refusal then return refusal end
    end

    ok, message, text, code, details = pcall(method, message, request)
    if not ok then
      text, code = raised(settings, request, message)
      return fail(request, text, code)
    end
    if deadline and clock() > deadline then return fail(request, DEADLINE, "DEADLINE_EXCEEDED") end
    if not message then return fail(request, text, code, details) end
    size = #message
    if size > max_response then
      text, code = too_large(size, settings)
      return fail(request, text, code)
    end

    local reply_headers, reply_trailers = HEADERS, OK_TRAILERS
    if request.reply_headers then reply_headers = with_metadata(HEADERS, request.reply_headers) end
    if request.reply_trailers then reply_trailers = with_metadata(OK_TRAILERS, request.reply_trailers) end
    coding = (flag == 1 or size >= compress_from) and answer_coding(request, size, flag == 1, settings)
    if coding then
      body = compressed(message, coding, settings)
      reply_headers = with_metadata(reply_headers, {})
      reply_headers["grpc-encoding"], reply_headers["grpc-accept-encoding"] = coding, ACCEPTED
    else
      body = frame(message)
    end
    return {
      status = 200, headers = reply_headers, body = body, trailers = reply_trailers, model = request.model, version = request.version,
      verb = request.verb, code = counted and "OK" or nil,
    }
  end
end

---------------------------------------------------------------------------------------------------------------------------
-- streams

local buffered_methods = {}
local buffered_mt = { __index = buffered_methods }

function buffered_methods:read()
  local body = self.body
  self.body = nil
  if body and body ~= "" then return body end
  return nil, "end"
end

function buffered_methods:write(bytes)
  self.parts[#self.parts + 1] = bytes
  return true
end

local stream_methods = {}
local stream_mt = { __index = stream_methods }

local function time_left(self) return self.deadline and self.deadline - clock() end

local function fail_stream(self, text, code)
  self.failed = self.failed or { text, code }
  return nil, self.failed[1], self.failed[2]
end

--- The next message of the client.
---@return string|nil message
---@return string|nil text nil with nil: the client has said all; else what went wrong …
---@return string|nil code … and the status that ends the stream
function stream_methods:receive()
  local reader, raw = self.reader, self.raw
  if self.failed then return nil, self.failed[1], self.failed[2] end
  while true do
    local content, flag, code = reader:next()
    if content then
      local message, text
      if flag == 1 then self.squeezed = true end
      message, text, code = open(content, flag, self.coding, reader.most)
      if not message then return fail_stream(self, text, code) end
      return message
    end
    if code then return fail_stream(self, flag, code) end
    if self.ended then return nil end
    local left = time_left(self)
    if left and left <= 0 then return fail_stream(self, DEADLINE, "DEADLINE_EXCEEDED") end
    local bytes, why = raw:read(left)
    if bytes then
      reader:push(bytes)
    elseif why == "end" then
      self.ended = true
      if reader:pending() then return fail_stream(self, "Truncated message: the stream ended within a frame", "INTERNAL") end
    elseif why == "timeout" then
      if left then return fail_stream(self, DEADLINE, "DEADLINE_EXCEEDED") end
    elseif why == "broken" then
      return fail_stream(self, "The body is not base64", "INTERNAL") -- of gRPC-Web
    else
      return fail_stream(self, "Cancelled", "CANCELLED")
    end
  end
end

--- Sends a message; waits while the client takes none.
---@param message string
---@return boolean|nil ok
---@return string|nil text
---@return string|nil code
function stream_methods:send(message)
  local settings, coding = self.settings, nil
  if self.failed then return nil, self.failed[1], self.failed[2] end
  if #message > settings.max_response then
    local text, code = too_large(#message, settings)
    return fail_stream(self, text, code)
  end
  if not self.sent then
    self.sent = true
    self.answer_coding = answer_coding(self.request, huge, self.squeezed, settings)
    local headers = self.raw.headers
    if self.request.reply_headers then headers = with_metadata(headers, self.request.reply_headers) end
    if (self.squeezed or settings.compress_from < huge) and self.answer_coding then
      headers["grpc-encoding"], headers["grpc-accept-encoding"] = self.answer_coding, ACCEPTED
    else
      self.answer_coding = nil
    end
    self.raw.headers = headers
  end
  if self.answer_coding and #message >= (self.squeezed and 128 or settings.compress_from) then coding = self.answer_coding end
  local ok, why = self.raw:write(coding and compressed(message, coding, settings) or frame(message))
  if ok then return true end
  if why == "timeout" then return fail_stream(self, DEADLINE, "DEADLINE_EXCEEDED") end
  return fail_stream(self, "Cancelled", "CANCELLED")
end

--- Whether messages reach the client as they are sent.
function stream_methods:live() return not self.raw.collected end

-- Whether the transport knows that nobody listens any more. What has come meanwhile is kept.
local function is_gone(self)
  local bytes, why = self.raw:read(0)
  if bytes then self.reader:push(bytes) elseif why == "end" then self.ended = true end
  return not bytes and why == "cancelled"
end

--- Waits for a while, without taking a message.
---@param seconds number
---@return string why "timeout", "cancelled" (nobody listens any more, or the deadline is over), or "unsupported" (nothing to wait with)
function stream_methods:wait(seconds)
  local raw, request = self.raw, self.request
  local left = time_left(self)
  local why
  if self.failed then return "cancelled" end
  if raw.collected then return "unsupported" end
  if left and left < seconds then seconds = left > 0 and left or 0 end
  if raw.wait then
    why = raw:wait(seconds)
  elseif _G.ngx then
    _G.ngx.sleep(seconds)
  else
    local there, cqueues = pcall(require, "cqueues")
    if not there or not cqueues.running() then return "unsupported" end
    if request.closed and not is_gone(self) then cqueues.poll(request.closed, seconds) elseif not request.closed then cqueues.poll(seconds) end
  end
  if why == "cancelled" or is_gone(self) then
    fail_stream(self, "Cancelled", "CANCELLED")
    return "cancelled"
  end
  left = time_left(self)
  if left and left <= 0 then
    fail_stream(self, DEADLINE, "DEADLINE_EXCEEDED")
    return "cancelled"
  end
  return "timeout"
end

--- A handler from a method with any number of messages each way; mount it with stream = true.
---@param method function method(stream, request) -> true | nil, text, code [, details]; what went wrong with the stream itself is known
--- without being returned
---@param settings? table of `settings`
---@return function handler
function M.streaming(method, settings)
  settings = settings or DEFAULTS
  return function(request)
    local headers, raw = request.headers, request.stream
    local coding, deadline, refusal
    if headers["content-type"] ~= CONTENT_TYPE then
      refusal = check_type(request, headers["content-type"])
      if refusal then return refusal end
    end
    coding, refusal = coding_of(request)
    if refusal then return refusal end
    if headers["grpc-timeout"] then
      deadline, refusal = set_deadline(request, headers["grpc-timeout"])
      if refusal then return refusal end
    end
    if not raw then raw = setmetatable({ body = request.body, parts = {}, collected = true }, buffered_mt) end
    raw.headers = with_metadata(HEADERS, {})

    local stream = setmetatable({
      raw = raw, request = request, settings = settings, coding = coding, deadline = deadline, reader = M.reader(settings.max_message),
      squeezed = false, failed = nil, ended = false, sent = false, answer_coding = nil,
    }, stream_mt)
    local ok, done, text, code, details = pcall(method, stream, request)
    if not ok then
      text, code = raised(settings, request, done)
      done = nil
    elseif stream.failed then
      done, text, code = nil, stream.failed[1], stream.failed[2]
    end
    code = done and "OK" or code or "UNKNOWN"
    local response = label({
      status = 200, headers = raw.headers, trailers = status_trailers(code, not done and text or nil, details, request.reply_trailers),
    }, request, code)
    if raw.collected and #raw.parts > 0 then response.body = concat(raw.parts) end
    if is_counted(request) then response.code = CODES[code] and code or "UNKNOWN" end
    return response
  end
end

--- A handler from a method that answers one message with any number; mount it with stream = true.
---@param method function method(message, stream, request) -> true | nil, text, code [, details]
---@param settings? table
---@return function handler
function M.server_streaming(method, settings)
  return M.streaming(function(stream, request)
    local message, text, code = stream:receive()
    if not message then
      if code then return nil, text, code end
      return nil, "Request cardinality violation: one message expected, got none", "UNIMPLEMENTED"
    end
    return method(message, stream, request)
  end, settings)
end

---------------------------------------------------------------------------------------------------------------------------
-- what nobody offers

--- A fallback for app:fallback: unknown services and methods are UNIMPLEMENTED, for clients that speak gRPC.
---@param services? table set of the names of known services
---@return function
function M.fallback(services)
  return function(request)
    local content_type = request.headers["content-type"]
    if not content_type or request.method ~= "POST" or check_type(request, content_type) == UNSUPPORTED then return nil end
    local service, method = match(request.path, "^/([^/]+)/([^/]+)$")
    if not service then return failure(request, format("malformed method name: %s", request.path), "UNIMPLEMENTED") end
    if services and services[service] then
      return failure(request, format("unknown method %s for service %s", method, service), "UNIMPLEMENTED")
    end
    return failure(request, format("unknown service %s", service), "UNIMPLEMENTED")
  end
end

--- Names of the services among routes, sorted.
---@param routes table
---@return table
function M.services(routes)
  local names, seen = {}, {}
  for _, route in ipairs(routes) do
    local name = route.path and match(route.path, "^/([^/]+)/[^/]+$")
    if name and not seen[name] then
      seen[name], names[#names + 1] = true, name
    end
  end
  sort(names)
  return names
end

return M
