-- lua-http's own server and parser, for comparison in spec/serve/luahttp_spec.lua: prints "port N"; answers /sleep/N, /big/N, /count, and
-- otherwise the length of the body. Written as lua-http's documentation shows.

local cqueues = require "cqueues"
local server = assert(require("mlserve.serve.transports.luahttp").server())
local headers = require "http.headers"

io.stdout:setvbuf "line"
local listening
listening = assert(server.listen {
  host = "127.0.0.1", port = "0", tls = false,
  onstream = function(_, stream)
    local head = assert(stream:get_headers())
    local path, body = head:get ":path", stream:get_body_as_string() or ""
    local milliseconds, bytes = path:match "^/sleep/(%d+)$", path:match "^/big/(%d+)$"
    local answer, text = headers.new(), "POST\n/echo\n-\n" .. #body .. "\n"
    if milliseconds then cqueues.sleep(tonumber(milliseconds) / 1000) text = "slept" end
    if bytes then text = ("x"):rep(tonumber(bytes)) end
    if path == "/count" then text = tostring(listening.n_connections) end
    answer:append(":status", "200")
    answer:append("content-length", tostring(#text))
    stream:write_headers(answer, false)
    stream:write_body_from_string(text)
  end,
})
assert(listening:listen())
print("port " .. select(3, listening:localname()))
assert(listening:loop())
