-- A model server with several processes for specs: lua test_workers.lua 'OPTIONS'; logs to standard output.
-- OPTIONS is a Lua table: rest, grpc, tls (of mlserve.server), reload ("ok", "fail" or "raise"), start ("raise": workers fail to start).
-- Beside model "m": /who answers the process that serves, /sleep waits, /threads tells what predictions may use, /loads how often
-- the model was loaded and by whom, /generation counts reloads, /spin never ends, /sum runs a parallel prediction.

local cqueues = require "cqueues"
local core = require "mlserve.core"
local fake_servable = require "spec.support.fake_servable"
local net = require "mlserve.net"

local options = assert((loadstring or load)("return " .. (arg[1] or "{}")))()
local generation, loads = 0, {}
local server

io.stdout:setvbuf "line"
if options.threads then core.set_threads(options.threads) end
server = require("mlserve.serve.server") {
  rest = options.rest, grpc = options.grpc, tls = options.tls,
  log = function(level, message) print(level .. ": " .. message) end,
  reload = function()
    if options.reload == "raise" then error "broken configuration" end
    if options.reload == "fail" then return nil, "broken configuration" end
    generation = generation + 1
    return true
  end,
}
server.repository.list = function() return { "1" } end
server.repository.loader = function()
  loads[#loads + 1] = tostring(net.getpid())
  return fake_servable.new(0)
end
assert(server:add_directory("m", "models/m"))

local app = server.app
local function text(answer) return { status = 200, body = tostring(answer) } end
app:route("GET", "^/who$", function() return text(net.getpid()) end)
app:route("GET", "^/slot$", function() return text(server.worker) end)
local function say(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end
app:route("GET", "^/sleep/(%d+)$", function(_, milliseconds)
  if tonumber(milliseconds) >= 500 then say "sleeping" end
  cqueues.sleep(tonumber(milliseconds) / 1000)
  return text(net.getpid())
end)
app:route("GET", "^/threads$", function() return text(core.threads()) end)
app:route("GET", "^/loads$", function() return text(table.concat(loads, " ")) end)
app:route("GET", "^/generation$", function() return text(generation) end)
app:route("GET", "^/spin$", function()
  say "spinning"
  while true do end -- luacheck: ignore 542
end)
app:route("GET", "^/leave$", function() os.exit(3) end)
app:route("POST", "^/echo$", function(request) return text(request.body) end)

if options.start == "raise" then
  require("mlserve.serve.transports.http").new = function() error "no transport" end
end
print("parent " .. net.getpid())
local ok, message = server:run()
print("run returned " .. tostring(ok) .. " " .. tostring(message) .. " in " .. net.getpid())
os.exit(ok and 0 or 1)
