--- The application: a table of routes, independent of every transport.
--
--   app:route("GET", "^/healthz$", function(request) return { status = 200, body = "ok" } end)
--   response = app:handle { method = "GET", path = "/healthz", query = nil, headers = {}, body = "" }
--
-- A request has method, path (as sent: percent-encoded, without the query), query (string or nil), headers (lower-case names)
-- and body (string). A response has status, headers (optional) and body (optional). Protocols offer lists of routes; transports
-- call handle. Neither knows the other, and neither sees compressed bodies: handlers get and give plain ones.

local compress = require "mlserve.serve.compress"
local json = require "mlserve.serve.json"

local concat, find, format, gsub, match = table.concat, string.find, string.format, string.gsub, string.match
local char, error, ipairs, pcall, setmetatable, tonumber, type = string.char, error, ipairs, pcall, setmetatable, tonumber, type

local methods = {}
local mt = { __name = "mlserve.app", __index = methods }

local NOT_FOUND = {
  status = 404, headers = { ["content-type"] = "text/html; charset=utf-8" },
  body = "<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n",
}

--- Adds a route. Routes are tried in the order they were added.
---@param method string an HTTP method in capitals, or "*" for all
---@param pattern string Lua pattern for the path as sent
---@param handler function handler(request, captures...) -> response; at most four captures
function methods:route(method, pattern, handler)
  if type(method) ~= "string" or type(pattern) ~= "string" or type(handler) ~= "function" then
    error(format("app:route: (method, pattern, handler) expected, got (%s, %s, %s)", type(method), type(pattern),
      type(handler)), 2)
  end
  local routes = self.routes
  routes[#routes + 1] = { method = method, pattern = pattern, handler = handler }
  return self
end

--- Adds a protocol's list of { method =, pattern =, handler = }.
function methods:mount(routes)
  for _, route in ipairs(routes) do self:route(route.method, route.pattern, route.handler) end
  return self
end

--- Has every request seen: begun = observer.begin() before, observer.finish(request, response, begun) after it; without a
--- response when the handler raised. Transports tell observer:refused(status, peer) what did not become a request.
---@param observer table
function methods:observe(observer)
  local handle, begin, finish = self.handle, observer.begin, observer.finish
  self.observer = observer
  self.handle = function(app, request) -- an app without an observer pays nothing
    local begun = begin()
    local ok, response = pcall(handle, app, request)
    finish(request, ok and response or nil, begun)
    if not ok then error(response, 0) end
    return response
  end
  return self
end

local function allowed(path, routes)
  local list = {}
  for i = 1, #routes do
    if find(path, routes[i].pattern) then list[#list + 1] = routes[i].method end
  end
  return list
end

-- The request with its body in plain form; or the refusal, in the form that all protocols have for errors.
local function refuse_or_decode(self, request, coding)
  local body, status, message = compress.decode(coding, request.body, self.compression)
  if not body then
    return { status = status, headers = { ["content-type"] = "application/json" }, body = '{\n    "error": ' .. json.string(message) .. "\n}" }
  end
  request.body, request.headers["content-encoding"] = body, "identity"
end

local function dispatch(self, request)
  local routes, method, path = self.routes, request.method, request.path
  for i = 1, #routes do
    local route = routes[i]
    if route.method == "*" or route.method == method then
      local first, second, third, fourth = match(path, route.pattern) -- the whole match when the pattern captures nothing
      if first then
        local coding = request.headers["content-encoding"]
        local refusal = coding and refuse_or_decode(self, request, coding)
        return refusal or route.handler(request, first, second, third, fourth)
      end
    end
  end
  local others = allowed(path, routes)
  if #others == 0 then return NOT_FOUND end
  return {
    status = 405, headers = { ["content-type"] = "text/plain; charset=utf-8", allow = concat(others, ", ") },
    body = "method not allowed\n",
  }
end

--- Answers a request: 404 where no route matches the path, 405 where none matches the method; 400, 413 or 415 for a compressed
--- body that is broken, too large or in a coding that is not known.
---@param request table
---@return table response
function methods:handle(request)
  local response = dispatch(self, request)
  local body, compression = type(response) == "table" and response.body, self.compression
  if body and type(body) ~= "string" then error("response body: string expected, got " .. type(body), 0) end
  if body and #body >= compression.min_response then
    local field = request.headers["accept-encoding"]
    if field then compress.encode(response, field, compression) end
  end
  return response
end

local M = {}

---@param options? table compression: bounds, see mlserve.serve.compress
---@return table app
function M.new(options)
  return setmetatable({ routes = {}, compression = compress.limits(options and options.compression) }, mt)
end

--- Replaces %XX by the byte it stands for; anything else, a stray % included, stays. "+" is not a blank in a path.
function M.percent_decode(text)
  if not find(text, "%", 1, true) then return text end
  return (gsub(text, "%%(%x%x)", function(digits) return char(tonumber(digits, 16)) end))
end

return M
