--- Compressed bodies: Content-Encoding of requests, Accept-Encoding of responses.
--
-- Requests may come in gzip or deflate; what they inflate to is bounded in size and in proportion to what was sent. Responses are
-- compressed only when the client asks for it and the body is large enough to gain by it, at zlib's fastest level: the time that
-- it takes is taken from other requests.

local find, format, gmatch, lower, match = string.find, string.format, string.gmatch, string.lower, string.match
local pairs, require, setmetatable, tonumber, tostring, type = pairs, require, setmetatable, tonumber, tostring, type

local M = {}

--- What is used unless the application is made with other values.
M.DEFAULTS = {
  max_inflated = 32 * 1024 * 1024, -- bytes of a request's body once inflated
  max_ratio = 200,                 -- … and times the size it came in, when that is over a mebibyte
  min_response = 4096,             -- bytes from which a response is worth compressing
  max_response = 8 * 1024 * 1024,  -- bytes from which compressing would keep others waiting too long
  level = 1,
}

local CODINGS = { gzip = "gzip", ["x-gzip"] = "gzip", deflate = "deflate" }

-- Loaded when first needed: a server that nobody sends compressed bodies to does without.
local function net() return require "mlserve.net" end

local STATUS = { DATA_LOSS = 400, RESOURCE_EXHAUSTED = 413 }

--- The body of a request in plain form.
---@param coding string value of Content-Encoding
---@param body string
---@param limits table as DEFAULTS
---@return string|nil body
---@return number|nil status then: what to answer …
---@return string|nil message … and why
function M.decode(coding, body, limits)
  local name = lower(match(coding, "^%s*(.-)%s*$"))
  if name == "identity" or name == "" or body == "" then return body end
  local known = CODINGS[name]
  if not known then return nil, 415, format("Content-Encoding '%s' is not supported: gzip and deflate are", coding) end
  local text, message, code = net().inflate(known, body, limits.max_inflated, limits.max_ratio)
  if text then return text end
  return nil, STATUS[code] or 500, format("Content-Encoding %s: %s", name, message)
end

-- The coding for an Accept-Encoding field (RFC 9110, 12.5.3): the one of highest weight, gzip where they are equal; false for none.
local function negotiate(field)
  local weights, best = {}, false
  for item in gmatch(lower(field), "[^,]+") do
    local name, parameters = match(item, "^%s*([%w*-]+)%s*(.-)%s*$")
    if name then
      local weight = 1
      if parameters ~= "" then weight = tonumber(match(parameters, "^;%s*q%s*=%s*([%d.]+)$")) or 0 end
      weights[CODINGS[name] or name] = weight
    end
  end
  local any = weights["*"] or 0
  local gzip, deflate, identity = weights.gzip or any, weights.deflate or any, weights.identity or 0
  if gzip > 0 and gzip >= deflate then best = "gzip" elseif deflate > 0 then best = "deflate" end
  if best and identity > (best == "gzip" and gzip or deflate) then best = false end
  return best
end

-- Clients send the same few fields again and again.
local accepted, accepted_count = {}, 0
local function accepts(field)
  local coding = accepted[field]
  if coding == nil then
    coding = negotiate(field)
    if accepted_count >= 64 then accepted, accepted_count = {}, 0 end
    accepted[field], accepted_count = coding, accepted_count + 1
  end
  return coding
end

-- Handlers answer with the same few tables of header fields; so do we.
local encoded = { gzip = setmetatable({}, { __mode = "k" }), deflate = setmetatable({}, { __mode = "k" }) }
local NONE = {}
local function with_coding(headers, coding)
  local known = encoded[coding][headers]
  if known then return known end
  known = {}
  for name, value in pairs(headers) do known[name] = value end
  known["content-encoding"] = coding
  known.vary = headers.vary and headers.vary .. ", Accept-Encoding" or "Accept-Encoding"
  encoded[coding][headers] = known
  return known
end

--- Compresses a response in place if that is worth it. Call it only for bodies of `min_response` bytes and more.
---@param response table
---@param field string value of Accept-Encoding
---@param limits table as DEFAULTS
function M.encode(response, field, limits)
  local headers, body = response.headers or NONE, response.body
  if #body > limits.max_response or headers["content-encoding"] then return end
  local coding = accepts(field)
  if not coding then return end
  local bytes = net().deflate(coding, body, limits.level)
  if bytes and #bytes < #body then response.body, response.headers = bytes, with_coding(headers, coding) end
end

--- The limits with `given` put over the defaults; unknown names and values that are no limits are errors.
function M.limits(given)
  local limits = {}
  for name, value in pairs(M.DEFAULTS) do limits[name] = value end
  for name, value in pairs(given or {}) do
    if not M.DEFAULTS[name] then
      error(format("compression: unknown option '%s'; known: level, max_inflated, max_ratio, max_response, min_response", tostring(name)), 3)
    end
    if type(value) ~= "number" or value < 0 or value ~= value or name == "level" and not find("123456789", tostring(value), 1, true) then
      error(format("compression: option '%s': %s expected, got %s", name, name == "level" and "1 to 9" or "a number of 0 or more", tostring(value)), 3)
    end
    limits[name] = value
  end
  return limits
end

M.accepts = accepts

return M
