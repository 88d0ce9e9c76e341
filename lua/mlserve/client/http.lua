--- HTTP/1.1 for the client: one question and its answer, and when a question may be asked again.
--
-- An answer is parsed as strictly as the server parses requests (mlserve.net) and never kept beyond its bounds: 32 KiB of head, 16 interim
-- answers, `max_response` bytes of body, before and after inflating. The deadline is one for everything: waiting for a connection, connecting,
-- sending, the answer, and the pauses between attempts.
--
-- What is asked again: nothing that may have had an effect twice. A request that never left (no connection) and one that a connection from the
-- pool swallowed without a byte of answer may be repeated when the caller calls it idempotent; so may one that the server refused with 429 or
-- 503 and Retry-After. A connection that was opened for the request and broke is not asked again: the request may be what broke it.

local net = require "mlserve.net"

local concat, find, format, lower, match, sub = table.concat, string.find, string.format, string.lower, string.match, string.sub
local max, min, random = math.max, math.min, math.random
local pcall, tonumber, tostring = pcall, tonumber, tostring

local MOST_INTERIM = 16
local PIECES = 256 -- pieces of a body before they are joined: a server that sends single bytes must not cost a table of millions

local M = {}

-- HTTP status -> code name
local CODES = {
  [400] = "INVALID_ARGUMENT", [401] = "UNAUTHENTICATED", [403] = "PERMISSION_DENIED", [404] = "NOT_FOUND", [405] = "UNIMPLEMENTED",
  [408] = "DEADLINE_EXCEEDED", [409] = "ABORTED", [412] = "FAILED_PRECONDITION", [413] = "RESOURCE_EXHAUSTED", [415] = "INVALID_ARGUMENT",
  [422] = "INVALID_ARGUMENT", [429] = "RESOURCE_EXHAUSTED", [499] = "CANCELLED", [500] = "INTERNAL", [501] = "UNIMPLEMENTED",
  [502] = "UNAVAILABLE", [503] = "UNAVAILABLE", [504] = "DEADLINE_EXCEEDED",
}

--- The code name for an HTTP status.
function M.code(status)
  return CODES[status] or (status >= 400 and status < 500 and "INVALID_ARGUMENT") or (status >= 500 and "INTERNAL") or "UNKNOWN"
end

---------------------------------------------------------------------------------------------------------------------------
-- one answer

-- Pieces in the order they came; joined in two steps, so that memory and time stay in proportion to the bytes.
local function new_pieces() return { joined = {}, few = {}, count = 0, bytes = 0 } end

local function add_piece(pieces, piece)
  local count = pieces.count + 1
  pieces.few[count], pieces.bytes = piece, pieces.bytes + #piece
  if count == PIECES then
    pieces.joined[#pieces.joined + 1] = concat(pieces.few)
    pieces.few, count = {}, 0
  end
  pieces.count = count
end

local function whole(pieces)
  if #pieces.joined == 0 and pieces.count == 1 then return pieces.few[1] end
  return concat(pieces.joined) .. concat(pieces.few)
end

local TOO_LARGE = "the answer is larger than max_response (%.0f bytes)"

-- The body of which buffer[at …] is the beginning. Returns it and what is behind it; or nil, kind, message.
local function read_sized(connection, buffer, at, length, deadline)
  if #buffer - at + 1 >= length then return sub(buffer, at, at + length - 1), #buffer - at + 1 > length end
  local pieces = new_pieces()
  add_piece(pieces, sub(buffer, at))
  while pieces.bytes < length do
    local data, why = connection:receive(deadline)
    if not data then return nil, why, "the connection ended inside the answer" end
    add_piece(pieces, data)
  end
  local body = whole(pieces)
  if #body == length then return body, false end
  return sub(body, 1, length), true
end

local function read_chunked(connection, buffer, at, limit, deadline)
  local decoder, pieces = net.http1_chunked(limit), new_pieces()
  while true do
    local piece, after, done = decoder:feed(buffer, at)
    if not piece then return nil, after == 413 and "large" or "broken", after == 413 and format(TOO_LARGE, limit) or done end
    if piece ~= "" then add_piece(pieces, piece) end
    if done then return whole(pieces), after <= #buffer end
    local why
    buffer, why = connection:receive(deadline)
    if not buffer then return nil, why, "the connection ended inside the answer" end
    at = 1
  end
end

local function read_until_close(connection, buffer, at, limit, deadline)
  local pieces = new_pieces()
  add_piece(pieces, sub(buffer, at))
  while pieces.bytes <= limit do
    local data, why = connection:receive(deadline)
    if not data then
      if why == "closed" then return whole(pieces), false end
      return nil, why
    end
    add_piece(pieces, data)
  end
  return nil, "large", format(TOO_LARGE, limit)
end

local function decode(response, limit)
  local coding = lower(response.headers["content-encoding"] or "identity")
  if coding == "identity" or coding == "" then return response end
  if coding == "x-gzip" then coding = "gzip" end
  if coding ~= "gzip" and coding ~= "deflate" then return nil, "broken", format("Content-Encoding '%s'", coding) end
  local body, message, code = net.inflate(coding, response.body, limit, 0)
  if not body then return nil, code == "RESOURCE_EXHAUSTED" and "large" or "broken", format("Content-Encoding %s: %s", coding, message) end
  response.body = body
  return response
end

-- Asks and reads the answer. Returns { status, headers, body, keep }; or nil, kind ("timeout", "closed", "broken", "large"), message, and
-- whether any byte of an answer came.
local function exchange(connection, request, deadline, limit)
  local sent, why = connection:send(request, deadline)
  if not sent and why == "timeout" then return nil, "timeout", nil, false end
  -- What could not be sent may have been answered all the same: 413, for one.
  local parser, buffer, at, interim = net.http1_response(), "", 1, 0
  local complete, data = sent == true
  while true do
    local status, headers, length, keep, after = parser:head(buffer, at)
    if status == false then return nil, "broken", tostring(length), true end
    if status and status < 200 then
      interim, at = interim + 1, after
      if status == 101 or interim > MOST_INTERIM then return nil, "broken", format("HTTP %d", status), true end
    elseif status then
      local body, more, message
      if length > limit then return nil, "large", format(TOO_LARGE, limit), true end
      if length >= 0 then body, more, message = read_sized(connection, buffer, after, length, deadline)
      elseif length == -1 then body, more, message = read_chunked(connection, buffer, after, limit, deadline)
      else body, more, message = read_until_close(connection, buffer, after, limit, deadline) end
      if not body then return nil, more, message, true end
      local response = { status = status, headers = headers, body = body, keep = keep and complete and not more }
      local plain, kind
      plain, kind, message = decode(response, limit)
      if not plain then return nil, kind, message, true end
      return response
    else
      data, why = connection:receive(deadline)
      if not data then
        return nil, why, at <= #buffer and "the connection ended inside the answer" or "the connection ended without an answer", buffer ~= ""
      end
      buffer, at = (at > #buffer and "" or at == 1 and buffer or sub(buffer, at)) .. data, 1
    end
  end
end

---------------------------------------------------------------------------------------------------------------------------
-- again?

local MONTHS = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }

-- Seconds since 1970 of a date in the Gregorian calendar, UTC.
local function epoch(year, month, day, hour, minute, second)
  local y = month <= 2 and year - 1 or year
  local era = (y - y % 400) / 400
  local of_era = y - era * 400
  local before = 153 * (month + (month > 2 and -3 or 9)) + 2
  local of_year = (before - before % 5) / 5 + day - 1
  local days = of_era * 365 + (of_era - of_era % 4) / 4 - (of_era - of_era % 100) / 100 + of_year
  return (era * 146097 + days - 719468) * 86400 + hour * 3600 + minute * 60 + second
end

--- Seconds that a Retry-After field asks for (RFC 9110, 10.2.3): a number or a date; nil when it is neither.
---@param field string|nil
---@param time number|nil now, as os.time gives it
---@return number|nil
function M.retry_after(field, time)
  if not field then return nil end
  if match(field, "^%d+$") then return tonumber(field) end
  local day, month, year, hour, minute, second = match(field, "^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  if not day or not MONTHS[month] then return nil end
  return max(0, epoch(tonumber(year), MONTHS[month], tonumber(day), tonumber(hour), tonumber(minute), tonumber(second)) - (time or os.time()))
end

--- The pause before another attempt, in seconds: exponential, with full jitter.
---@param retries table { backoff, max_backoff, jitter }
---@param attempt integer how many there were
---@param chance number 0 … 1
---@return number
function M.backoff(retries, attempt, chance)
  local most = min(retries.max_backoff, retries.backoff * 2 ^ min(attempt - 1, 30))
  return retries.jitter and most * chance or most
end

---------------------------------------------------------------------------------------------------------------------------

local function attempt(pool, connection, bytes, deadline, limit)
  local ok, response, kind, message, started = pcall(exchange, connection, bytes, deadline, limit)
  if not ok then
    pool:release(connection, false)
    error(response, 0)
  end
  pool:release(connection, response and response.keep)
  return response, kind, message, started
end

--- Asks until there is an answer that counts.
---@param pool table of mlserve.client.sockets or cosockets
---@param bytes string the request
---@param given table deadline (pool.now's time), seconds (what it was made of, for messages), retries, idempotent, limit (bytes of a body), where
---@return table|nil response { status, headers, body }
---@return string|nil message
---@return string|nil code
function M.request(pool, bytes, given)
  local deadline, retries, where = given.deadline, given.retries, given.where
  local attempts, fresh = 0, not given.idempotent
  local function late(message)
    return nil, format("%s: no answer within %g s%s", where, given.seconds, message and " (" .. message .. ")" or ""), "DEADLINE_EXCEEDED"
  end
  while true do
    local pause, message, code, response, kind, started
    local connection
    attempts = attempts + 1
    connection, message, kind = pool:acquire(deadline, fresh)
    if connection then
      local reused = connection.reused
      response, kind, message, started = attempt(pool, connection, bytes, deadline, given.limit)
      if response then
        if response.status ~= 429 and response.status ~= 503 then return response end
        local after = M.retry_after(response.headers["retry-after"])
        if not after or not given.idempotent or attempts >= retries.attempts then return response end
        pause = after + M.backoff(retries, attempts, random())
        if pool.now() + pause >= deadline then return response end
      elseif kind == "timeout" then
        return late()
      elseif kind == "large" then
        return nil, where .. ": " .. message, "RESOURCE_EXHAUSTED"
      elseif kind == "broken" then
        return nil, format("%s: the answer is not valid HTTP: %s", where, message), "INTERNAL"
      else
        code = "UNAVAILABLE"
        if reused and not started and given.idempotent then
          pause, fresh = 0, true -- the server had closed it; a new one tells
        end
      end
    elseif kind == "timeout" then
      if pool.now() >= deadline then return late(message) end
      code, message = "UNAVAILABLE", "connecting took too long"
      pause = given.idempotent and M.backoff(retries, attempts, random())
    else
      code = kind == "full" and "RESOURCE_EXHAUSTED" or "UNAVAILABLE"
      if kind == "closed" then code = "CANCELLED" end
      pause = not kind and given.idempotent and M.backoff(retries, attempts, random()) or nil
    end
    if not pause or attempts >= retries.attempts then
      if response then return response end
      return nil, format("%s: %s", where, message), code
    end
    if pool.now() + pause >= deadline then
      if code then return nil, format("%s: %s", where, message), code end
      return late()
    end
    if pause > 0 then pool.sleep(pause) end
  end
end

---------------------------------------------------------------------------------------------------------------------------
-- requests

--- What a URL says: { host, port, path (of a Unix socket), secure, prefix, authority }; nil and a message.
---@param url string
---@return table|nil
---@return string|nil message
function M.parse_url(url)
  local path = match(url, "^unix:(/.+)$") or match(url, "^unix://(/.+)$")
  if path then return { path = path, prefix = "", authority = "localhost" } end
  local scheme, rest = match(url, "^(%a+)://(.+)$")
  scheme = scheme and lower(scheme)
  if scheme ~= "http" and scheme ~= "https" then return nil, "http://HOST:PORT, https://HOST:PORT or unix:/PATH expected" end
  local authority, prefix = match(rest, "^([^/?#]+)(/?[^?#]*)$")
  if not authority or find(authority, "@", 1, true) then return nil, "a URL without user, query and fragment expected" end
  local host, port = match(authority, "^%[([%x:.]+)%]:?(%d*)$")
  if not host then host, port = match(authority, "^([%w._~-]+):?(%d*)$") end
  if not host then return nil, "no host in it" end
  port = port == "" and (scheme == "https" and 443 or 80) or tonumber(port)
  if port < 1 or port > 65535 then return nil, "no port in it" end
  if find(prefix, "[%c\127-\255 ]") then return nil, "a path of printable ASCII expected" end
  return { host = host, port = port, secure = scheme == "https", prefix = (prefix:gsub("/+$", "")), authority = authority }
end

--- A path segment.
function M.escape(text)
  return (tostring(text):gsub("[^%w._~-]", function(c) return format("%%%02X", c:byte()) end))
end

local OURS = { ["content-length"] = true, ["transfer-encoding"] = true, connection = true, host = true, ["content-encoding"] = true,
  ["accept-encoding"] = true, expect = true, te = true, upgrade = true }

--- "name: value\r\n" for each; raises for names and values that are none.
---@param headers table|nil
---@param level integer for error
---@return string
function M.fields(headers, level)
  local lines = {}
  for name, value in pairs(headers or {}) do
    if type(name) ~= "string" or name == "" or find(name, "[^%w!#$%%&'*+.^_`|~-]") then
      error(format("headers: invalid name '%s'", tostring(name)), level)
    end
    if OURS[lower(name)] then error(format("headers: '%s' is set by the client itself", name), level) end
    if type(value) == "number" then value = tostring(value) end
    if type(value) ~= "string" or find(value, "[%z\1-\8\10-\31\127]") then
      error(format("headers: '%s': a string without control characters expected", name), level)
    end
    lines[#lines + 1] = format("%s: %s\r\n", lower(name), value)
  end
  table.sort(lines)
  return concat(lines)
end

return M
