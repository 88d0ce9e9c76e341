--- The application: a table of routes, independent of every transport.
--
--   app:route("GET", "^/healthz$", function(request) return { status = 200, body = "ok" } end)
--   app:mount { { method = "POST", path = "/package.Service/Method", handler = handler } }
--   response = app:handle { method = "GET", path = "/healthz", query = nil, headers = {}, body = "" }
--
-- A route has a pattern or a path. Paths are found in one look-up, before any pattern is tried. What no route wants goes to the
-- fallbacks, then it is a 404 or a 405. A route with stream = true is called when the head of the request is there: it reads and writes
-- request.stream itself, and the response holds only what follows (trailers).
--
-- A request has method, path (as sent: percent-encoded, without the query), query (string or nil), headers (lower-case names)
-- and body (string). A response has status, headers, body and trailers (tables but the body; all optional but the status). Tables in a
-- response may be shared with other responses: nobody changes them. Protocols offer lists of routes; transports
-- call handle. Neither knows the other, and neither sees compressed bodies: handlers get and give plain ones.

local compress = require "mlserve.serve.compress"
local json = require "mlserve.serve.json"

local concat, find, format, gsub, match = table.concat, string.find, string.format, string.gsub, string.match
local char, error, ipairs, pairs, pcall, setmetatable, tonumber, type =
  string.char, error, ipairs, pairs, pcall, setmetatable, tonumber, type
local sort = table.sort

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

--- Adds a route for one path. A second one for the same method and path takes the first one's place.
---@param method string an HTTP method in capitals, or "*" for all
---@param path string as sent
---@param handler function handler(request) -> response
---@param stream? boolean called with request.stream as soon as the head is there
function methods:exact(method, path, handler, stream)
  if type(method) ~= "string" or type(path) ~= "string" or type(handler) ~= "function" then
    error(format("app:exact: (method, path, handler) expected, got (%s, %s, %s)", type(method), type(path), type(handler)), 2)
  end
  local known = self.paths[path]
  if not known then
    known = {}
    self.paths[path] = known
  end
  known[method] = { handler = handler, stream = stream or false }
  return self
end

--- Adds a protocol's list of { method =, pattern = | path =, handler =, stream = }.
function methods:mount(routes)
  for _, route in ipairs(routes) do
    if route.path then self:exact(route.method, route.path, route.handler, route.stream)
    else self:route(route.method, route.pattern, route.handler) end
  end
  return self
end

--- Adds a handler for requests that no route wants: fallback(request) -> response, or nil when it is none of its business either.
---@param handler function
function methods:fallback(handler)
  if type(handler) ~= "function" then error("app:fallback: function expected, got " .. type(handler), 2) end
  self.fallbacks[#self.fallbacks + 1] = handler
  return self
end

--- Whether `handle` wants to be called when only the head of such a request is there, with request.stream instead of a body.
---@param method string
---@param path string
---@return boolean
function methods:streaming(method, path)
  local known = self.paths[path]
  local route = known and (known[method] or known["*"])
  return route ~= nil and route ~= false and route.stream
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

local function allowed(path, routes, known)
  local list = {}
  for method in pairs(known or list) do list[#list + 1] = method end
  sort(list)
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
  local known = self.paths[path]
  local exact = known and (known[method] or known["*"])
  if exact then
    local coding = request.headers["content-encoding"]
    local refusal = coding and request.body and refuse_or_decode(self, request, coding)
    return refusal or exact.handler(request)
  end
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
  for _, fallback in ipairs(self.fallbacks) do
    local response = fallback(request)
    if response then return response end
  end
  local others = allowed(path, routes, known)
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
  if body and #body >= compression.min_response and not response.trailers then -- who sends trailers has a compression of its own
    local field = request.headers["accept-encoding"]
    if field then compress.encode(response, field, compression) end
  end
  return response
end

local M = {}

---@param options? table compression: bounds, see mlserve.serve.compress
---@return table app
function M.new(options)
  return setmetatable({ routes = {}, paths = {}, fallbacks = {}, compression = compress.limits(options and options.compression) }, mt)
end

--- Replaces %XX by the byte it stands for; anything else, a stray % included, stays. "+" is not a blank in a path.
function M.percent_decode(text)
  if not find(text, "%", 1, true) then return text end
  return (gsub(text, "%%(%x%x)", function(digits) return char(tonumber(digits, 16)) end))
end

return M
