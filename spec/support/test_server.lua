-- A server for specs: lua test_server.lua 'OPTIONS'; prints "port N" and "pid N", logs to standard output.
-- OPTIONS is a Lua table of http.new's options. Routes: /echo tells what arrived, /sleep waits, /raise and /nonsense misbehave,
-- /stop ends the server, /v1 serves the fake model "m".

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
