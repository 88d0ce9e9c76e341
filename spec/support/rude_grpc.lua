-- An HTTP/2 server whose gRPC answers are wrong, for the client's specs: lua rude_grpc.lua; prints "port N". What it does is said by the first segment of the
-- path. Its HTTP/2 is that of mlserve.net; messages and frames are written by hand.

local cqueues = require "cqueues"
local net = require "mlserve.net"
local socket = require "cqueues.socket"

local asked, connections = {}, 0

local HEAD = { ["content-type"] = "application/grpc" }
local OK = { ["grpc-status"] = "0" }

local function frame(message, flag)
  local n = #message
  return string.char(flag or 0, math.floor(n / 16777216), math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256) .. message
end

-- ServerLiveResponse { live = true }
local LIVE = "\8\1"

local kinds = {}

function kinds.ok(s, id) s:respond(id, 200, HEAD, frame(LIVE), OK) end
function kinds.gzip(s, id)
  s:respond(id, 200, { ["content-type"] = "application/grpc+proto", ["grpc-encoding"] = "gzip" }, frame(net.deflate("gzip", LIVE, 6), 1), OK)
end
function kinds.connections(s, id) s:respond(id, 200, HEAD, "", { ["grpc-status"] = "5", ["grpc-message"] = tostring(connections) }) end
function kinds.asked(s, id, path)
  s:respond(id, 200, HEAD, "", { ["grpc-status"] = "5", ["grpc-message"] = tostring(asked[path:match "^/asked/(%w+)"] or 0) })
end
function kinds.silent() end
function kinds.error(s, id) s:respond(id, 200, HEAD, "", { ["grpc-status"] = "9", ["grpc-message"] = "caf%C3%A9 100%25 %zz" }) end
function kinds.unknown(s, id) s:respond(id, 200, HEAD, "", { ["grpc-status"] = "99" }) end
function kinds.nostatus(s, id) s:respond(id, 200, HEAD, frame(LIVE), {}) end
function kinds.html(s, id) s:respond(id, 200, { ["content-type"] = "text/html" }, "<html>") end
function kinds.http(s, id, path) s:respond(id, tonumber(path:match "^/http/(%d+)"), { ["content-type"] = "text/html" }, "<html>") end
function kinds.none(s, id) s:respond(id, 200, HEAD, "", OK) end
function kinds.two(s, id) s:respond(id, 200, HEAD, frame(LIVE) .. frame(LIVE), OK) end
function kinds.cut(s, id) s:respond(id, 200, HEAD, frame(LIVE):sub(1, -2), OK) end
function kinds.flag(s, id) s:respond(id, 200, HEAD, frame(LIVE, 2), OK) end
function kinds.unnamed(s, id) s:respond(id, 200, HEAD, frame(net.deflate("gzip", LIVE, 6), 1), OK) end
function kinds.broken(s, id) s:respond(id, 200, { ["content-type"] = "application/grpc", ["grpc-encoding"] = "gzip" }, frame("xxxx", 1), OK) end
function kinds.bomb(s, id)
  s:respond(id, 200, { ["content-type"] = "application/grpc", ["grpc-encoding"] = "gzip" }, frame(net.deflate("gzip", ("\0"):rep(2 ^ 24), 9), 1), OK)
end
function kinds.large(s, id) s:respond(id, 200, HEAD, "\0\255\255\255\255" .. ("x"):rep(1000), OK) end
function kinds.message(s, id) s:respond(id, 200, HEAD, frame "\255\255", OK) end
function kinds.reset(s, id, path) s:reset(id, tonumber(path:match "^/reset/(%d+)")) end
function kinds.fields(s, id)
  local head = { ["content-type"] = "application/grpc" }
  for i = 1, 20 do head["x-" .. i] = ("a"):rep(3000) end
  s:respond(id, 200, head, frame(LIVE), OK)
end
function kinds.half(s, id)
  s:start(id, 200, HEAD)
  s:write(id, frame(LIVE))
end
function kinds.hangup() return "hangup" end
function kinds.midway(s, id)
  s:start(id, 200, HEAD)
  s:write(id, frame(LIVE):sub(1, 3))
  return "hangup"
end
function kinds.refused(s, id, path)
  if asked.refused <= tonumber(path:match "^/refused/(%d+)") then return s:reset(id, 7) end
  kinds.ok(s, id)
end
function kinds.busy(s, id, path)
  if asked.busy <= tonumber(path:match "^/busy/(%d+)") then
    return s:respond(id, 200, HEAD, "", { ["grpc-status"] = "14", ["grpc-message"] = "busy", ["grpc-retry-pushback-ms"] = "1" })
  end
  kinds.ok(s, id)
end
function kinds.leave(s, id) -- answers, and wants no more on this connection
  kinds.ok(s, id)
  s:goaway()
end
function kinds.second(s, id) -- dies at the second request of a connection
  if s.count == 1 then return kinds.ok(s.session, id) end
  return "hangup"
end

local function serve(c)
  connections = connections + 1
  c:onerror(function(_, _, why) return why end)
  c:setmode("bn", "bn")
  local session, fd, count = net.http2_session {}, c:pollfd(), 0
  local waiting = { pollfd = fd, events = "r" }
  while true do
    local there = session:pull(fd, 2 ^ 24)
    if there == nil then break end
    local hangup
    while true do
      local kind, id, _, path = session:next()
      if not kind then break end
      if kind == 1 then
        local name = path:match "^/(%w+)"
        count = count + 1
        asked[name] = (asked[name] or 0) + 1
        hangup = kinds[name](name == "second" and { session = session, count = count } or session, id, path) == "hangup" or hangup
      end
    end
    if session:flush(fd) == nil or hangup then break end
    if not there then cqueues.poll(waiting) end
  end
  c:close()
end

io.stdout:setvbuf "line"
local listener = assert(socket.listen { host = "127.0.0.1", port = "0", reuseaddr = true })
assert(listener:listen())
local _, _, port = listener:localname()
print("port " .. port)
local loop = cqueues.new()
loop:wrap(function()
  for c in listener:clients() do
    loop:wrap(function()
      local ok, message = pcall(serve, c)
      if not ok then print("error: " .. tostring(message)) end
    end)
  end
end)
while not loop:empty() do
  local ok, message = loop:step()
  if not ok then print("loop: " .. tostring(message)) end
end
