-- A server for specs: lua test_server.lua 'OPTIONS'; prints "port N" and "pid N", logs to standard output.
-- OPTIONS is a Lua table of http.new's options. Routes: /echo tells what arrived, /sleep waits, /raise and /nonsense misbehave,
-- /stop ends the server, /trailers, /stream/… and /wait are for HTTP/2, /v1 serves the fake model "m".

local cqueues = require "cqueues"
local app = require("mlserve.serve.app").new()
local fake_servable = require "spec.support.fake_servable"
local http = require "mlserve.serve.transports.http"
local repository = require("mlserve.serve.repository").new()
local tfserving = require "mlserve.serve.protocols.tfserving"

local options = assert((loadstring or load)("return " .. (arg[1] or "{}")))()
local server

io.stdout:setvbuf "line"
repository:add_model("m", fake_servable.new(0), 1)
app:mount(tfserving.routes(repository))
app:route("*", "^/echo", function(request)
  local names, lines = {}, { request.method, request.path, request.query or "-", #request.body }
  for name in pairs(request.headers) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do lines[#lines + 1] = name .. "=" .. request.headers[name] end
  lines[#lines + 1] = request.body:sub(1, 200)
  return { status = 200, headers = { ["content-type"] = "text/plain" }, body = table.concat(lines, "\n") }
end)
app:route("GET", "^/sleep/(%d+)$", function(_, milliseconds)
  cqueues.sleep(tonumber(milliseconds) / 1000)
  return { status = 200, body = "slept" }
end)
app:route("GET", "^/big/(%d+)$", function(_, bytes) return { status = 200, body = ("x"):rep(tonumber(bytes)) } end)
app:route("GET", "^/raise$", function() error("application error") end)
app:route("GET", "^/nonsense$", function() return "no table" end)
app:route("GET", "^/forge$", function() return { status = 200, headers = { ["x-name"] = "a\r\nx-evil: 1" }, body = "" } end)
app:route("GET", "^/nothing$", function() return { status = 204 } end)
app:route("GET", "^/count$", function() return { status = 200, body = tostring(server:connections()) } end)
app:route("POST", "^/trailers$", function(request)
  return {
    status = 200, headers = { ["content-type"] = "application/grpc" }, body = request.body,
    trailers = { ["grpc-status"] = #request.body == 0 and "3" or "0", ["x-http"] = request.http },
  }
end)
-- what streams do: /stream/echo gives back every piece, /stream/big/… writes, /stream/wait waits for the client's end
local cancelled, waiting = 0, 0
app:exact("POST", "/stream/echo", function(request)
  local stream, pieces = request.stream, 0
  stream.headers["x-kind"] = "echo"
  while true do
    local bytes, why = stream:read()
    if not bytes then return { status = 200, trailers = { pieces = tostring(pieces), why = why } } end
    pieces = pieces + 1
    stream:write(bytes)
  end
end, true)
app:exact("GET", "/stream/big", function(request)
  local written = 0
  while written < 8000000 and request.stream:write(("y"):rep(100000)) do written = written + 100000 end
  if written < 8000000 then cancelled = cancelled + 1 end
  return { status = 200, trailers = { written = tostring(written) } }
end, true)
app:exact("POST", "/stream/early", function() return { status = 200, body = "enough", trailers = { early = "yes" } } end, true)
app:exact("POST", "/stream/raise", function(request)
  request.stream:write("a")
  error "raised in a stream"
end, true)
app:exact("POST", "/stream/late", function(request)
  local _, why = request.stream:read(0.1)
  return { status = 200, trailers = { why = why or "nothing" } }
end, true)
app:route("POST", "^/wait$", function(request)
  waiting = waiting + 1
  if cqueues.poll(request.closed, 10) == request.closed then cancelled = cancelled + 1 end
  waiting = waiting - 1
  return { status = 200 }
end)
app:route("GET", "^/cancelled$", function() return { status = 200, body = cancelled .. " " .. waiting } end)
app:route("GET", "^/buffered$", function() return { status = 200, body = string.format("%.0f", server.engine.buffered) } end)
app:route("POST", "^/stop$", function()
  server:stop()
  return { status = 200, body = "stopping" }
end)

options.app, options.port = app, 0
options.log = function(level, message) print(level .. ": " .. message) end
server = http.new(options)
assert(server:listen())
print("port " .. server:port())
local ok, message = server:run()
print("run returned " .. tostring(ok) .. " " .. tostring(message))
os.exit(ok and 0 or 1)
