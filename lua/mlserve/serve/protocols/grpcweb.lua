--- gRPC-Web: what browsers, which see no trailers, speak instead of gRPC. Handlers of gRPC serve it as they are.
--
--   app:mount(grpcweb.wrap(routes, { cors = true }))
--
-- Trailers are the last frame of the body, with the flag 0x80. Text mode is base64 of the same, in chunks that may each be padded. It works over HTTP/1.1
-- and HTTP/2; bodies as a whole may be compressed by Content-Encoding, which is the application's business. CORS: true allows every origin, a string or an
-- array of strings those origins, with credentials; otherwise pages of other origins get nothing.

local grpc = require "mlserve.serve.protocols.grpc"

local find, gmatch, gsub, lower, match, sub = string.find, string.gmatch, string.gsub, string.lower, string.match, string.sub
local concat, sort = table.concat, table.sort
local error, ipairs, next, pairs, require, setmetatable, type = error, ipairs, next, pairs, require, setmetatable, type

local M = {}

local BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
local KINDS = {
  ["application/grpc-web"] = BINARY, ["application/grpc-web+proto"] = BINARY, ["application/grpc-web-text"] = TEXT,
  ["application/grpc-web-text+proto"] = TEXT,
}
local TRAILERS_FLAG = 128

local ALLOWED_HEADERS = "keep-alive,user-agent,cache-control,content-type,content-transfer-encoding,x-accept-content-transfer-encoding,"
  .. "x-accept-response-streaming,x-user-agent,x-grpc-web,grpc-timeout,authorization"
local EXPOSED = { "grpc-status", "grpc-message", "grpc-status-details-bin" }
local MAX_AGE = "86400"

local function core() return require "mlserve.core" end

---------------------------------------------------------------------------------------------------------------------------
-- bodies

--- The last frame of a body.
---@param trailers table
---@return string
function M.trailer_frame(trailers)
  local names, lines = {}, {}
  for name in pairs(trailers) do names[#names + 1] = name end
  sort(names, function(a, b) -- the status first
    if (a == "grpc-status") ~= (b == "grpc-status") then return a == "grpc-status" end
    return a < b
  end)
  for i, name in ipairs(names) do lines[i] = name .. ": " .. trailers[name] .. "\r\n" end
  return grpc.frame(concat(lines), TRAILERS_FLAG)
end

--- Bytes of base64 that was perhaps made chunk by chunk.
---@param text string
---@return string|nil
function M.decode_text(text)
  local parts = {}
  if find(text, "%s") then text = gsub(text, "%s", "") end
  if text == "" then return "" end
  if find(text, "^=") then return nil end
  for chunk in gmatch(text, "[^=]+=*") do
    local bytes = core().base64_decode(chunk)
    if not bytes then return nil end
    parts[#parts + 1] = bytes
  end
  return concat(parts)
end

---------------------------------------------------------------------------------------------------------------------------
-- CORS

-- What an origin may see: nil for nothing.
local function new_policy(cors)
  if not cors then return function() return nil end end
  if cors == true then
    return function() return "*" end
  end
  local allowed = {}
  for _, origin in ipairs(type(cors) == "table" and cors or { cors }) do
    if type(origin) ~= "string" then error("grpcweb: option 'cors': true, an origin or an array of origins expected", 3) end
    allowed[origin] = true
  end
  return function(origin) return origin and allowed[origin] and origin or nil end
end

local function add_cors(headers, policy, request, exposed)
  local origin = policy(request.headers.origin)
  if not origin then return headers end
  headers["access-control-allow-origin"] = origin
  if origin ~= "*" then headers["access-control-allow-credentials"], headers.vary = "true", "Origin" end
  if exposed then headers["access-control-expose-headers"] = concat(exposed, ",") end
  return headers
end

local function preflight(policy)
  return function(request)
    local wanted = request.headers["access-control-request-headers"]
    if not wanted or find(wanted, "[^%w_, -]") then wanted = ALLOWED_HEADERS end
    local headers = add_cors({}, policy, request)
    if not next(headers) then return { status = 403, body = "" } end
    headers["access-control-allow-methods"], headers["access-control-allow-headers"] = "POST, OPTIONS", wanted
    headers["access-control-max-age"] = MAX_AGE
    return { status = 204, headers = headers }
  end
end

local function web_headers(kind, headers, trailers, policy, request)
  local own, exposed = {}, {}
  for i, name in ipairs(EXPOSED) do exposed[i] = name end
  for name, value in pairs(headers or {}) do
    own[name] = value
    if name ~= "content-type" then exposed[#exposed + 1] = name end
  end
  for name in pairs(trailers or {}) do
    if not find(name, "^grpc%-") then exposed[#exposed + 1] = name end
  end
  sort(exposed)
  own["content-type"] = kind
  return add_cors(own, policy, request, exposed)
end

---------------------------------------------------------------------------------------------------------------------------
-- streams

local stream_methods = {}
local stream_mt = { __index = stream_methods }

function stream_methods:read(timeout)
  while true do
    local bytes, why = self.raw:read(timeout)
    if not self.text_in or not bytes and why ~= "end" then return bytes, why end
    local text = self.left .. gsub(bytes or "", "%s", "")
    local whole = bytes and #text - #text % 4 or #text
    if whole > 0 then
      local plain = M.decode_text(sub(text, 1, whole))
      self.left = sub(text, whole + 1)
      if not plain then return nil, "broken" end
      if plain ~= "" then return plain end
    else
      self.left = text
    end
    if not bytes then return nil, why end
  end
end

function stream_methods:write(bytes)
  if not self.started then
    self.started = true
    self.raw.headers = web_headers(self.kind, self.headers, nil, self.policy, self.request)
  end
  if self.kind == TEXT then bytes = core().base64_encode(bytes) end
  return self.raw:write(bytes)
end

---------------------------------------------------------------------------------------------------------------------------
-- handlers

local function kind_of(request)
  local given = request.headers["content-type"]
  local kind = given and (KINDS[given] or KINDS[match(lower(given) .. ";", "^%s*([^;%s]*)%s*;")])
  if not kind then return nil end
  local accept = request.headers.accept
  if accept and find(accept, "application/grpc-web-text", 1, true) then return kind, TEXT end
  return kind, accept and find(accept, "application/grpc-web", 1, true) and BINARY or kind
end

local function wrap_handler(handler, policy)
  return function(request)
    local headers = request.headers
    if headers["content-type"] == "application/grpc" then return handler(request) end
    local kind, answer_kind = kind_of(request)
    if not kind then return handler(request) end
    local raw, stream, response = request.stream, nil, nil
    headers["content-type"], headers["grpc-accept-encoding"] = "application/grpc", "identity"
    if raw then
      stream = setmetatable({
        raw = raw, request = request, kind = answer_kind, text_in = kind == TEXT, left = "", headers = {}, started = false, policy = policy,
        wait = raw.wait and function(_, seconds) return raw:wait(seconds) end or nil,
      }, stream_mt)
      request.stream = stream
    elseif kind == TEXT then
      request.body = M.decode_text(request.body or "")
      if not request.body then response = grpc.failure(request, "The body is not base64", "INTERNAL") end
    end
    response = response or handler(request)
    if not response or not response.trailers then return response end -- not of gRPC

    if stream then
      local trailers = response.trailers
      stream:write(M.trailer_frame(trailers))
      response.headers, response.trailers, response.body = raw.headers, nil, nil
      return response
    end
    local body = (response.body or "") .. M.trailer_frame(response.trailers)
    response.headers = web_headers(answer_kind, response.headers, response.trailers, policy, request)
    response.body, response.trailers = answer_kind == TEXT and core().base64_encode(body) or body, nil
    return response
  end
end

--- Routes that speak gRPC-Web beside gRPC.
---@param routes table of gRPC's methods
---@param options? table cors: true, an origin or an array of origins
---@return table routes
function M.wrap(routes, options)
  local policy, all = new_policy(options and options.cors), {}
  for _, route in ipairs(routes) do
    all[#all + 1] = { method = route.method, path = route.path, handler = wrap_handler(route.handler, policy), stream = route.stream }
    if options and options.cors then all[#all + 1] = { method = "OPTIONS", path = route.path, handler = preflight(policy) } end
  end
  return all
end

--- The same for a fallback. It answers the preflight of a call that it would refuse, too: without, the page is not told that the method is unknown.
---@param handler function
---@param options? table
---@return function
function M.fallback(handler, options)
  local policy = new_policy(options and options.cors)
  local refuse, permit = wrap_handler(handler, policy), preflight(policy)
  return function(request)
    if request.method ~= "OPTIONS" then return refuse(request) end
    local wanted = request.headers["access-control-request-headers"]
    if options and options.cors and wanted and find(lower(wanted), "x-grpc-web", 1, true) then return permit(request) end
    return nil
  end
end

return M
