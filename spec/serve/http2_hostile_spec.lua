-- What clients may do to an HTTP/2 connection, frame by frame (spec/support/http2_attack.py): the right error where it belongs, the other
-- streams and connections go on, nothing stays behind.

local process = require "spec.support.process"

local SHORT = "{ head_timeout = 1, body_timeout = 1, idle_timeout = 1, write_timeout = 1 }"

-- case, what it shows, what the server does (one fact a line), options, argument
local ROWS = {
  { "split", "frames cut anywhere", [[
bytes 200 POST /echo x 5 host=localhost x-name=value hello
second 200 b'1'
pongs 1
cuts all]] },
  { "rapid_reset", "requests that are reset at once (CVE-2023-44487): ENHANCE_YOUR_CALM", "goaway 11\nhealthy" },
  { "some_resets", "some resets are all right", "200 b'slept'" },
  { "streams", "more streams than announced: refused one by one", "refused 72 {7} 257\nfirst 200\nnext 200" },
  { "ping_flood", "a flood of PINGs", "goaway 11\nhealthy" },
  { "settings_flood", "a flood of SETTINGS", "goaway 11\nhealthy" },
  { "priority_flood", "a flood of PRIORITY", "goaway 11\nhealthy" },
  { "empty_data_flood", "a flood of empty DATA", "goaway 11\nhealthy" },
  { "malformed_flood", "a flood of malformed requests", "goaway 11\nhealthy" },
  { "continuation_flood", "a head of endless CONTINUATIONs", "closed True\nhealthy" },
  { "keepalive", "a PING with every request is no flood", "good 1500 pongs 1500" },
  { "windows", "a stream whose window stays shut", "second 200 1000\nfirst 200 False\nten 10\nreset 8 True\nnext 204",
    "{ write_timeout = 1 }" },
  { "connection_window", "a connection whose window is used up", "other 204\nsent 65535\nall 200 200000" },
  { "half_closed", "data behind the end of a stream: STREAM_CLOSED", "error 5\nhealthy" },
  { "vanish", "a client that vanishes: its requests are given up", "cancelled 1 0" },
  { "cancel", "a stream that is reset: its request is given up, the others go on", "other 200\ncancelled 1 1\ncancelled 2 0" },
  { "heads", "oversized heads", "large 431\nmany 431\njust 200\nbomb 431\npath 414\nnext 200" },
  { "malformed", "malformed requests end their stream only", [[
no method: reset 1
no path: reset 1
no scheme: reset 1
no authority: reset 1
two methods: reset 1
two paths: reset 1
empty path: reset 1
pseudo behind a field: reset 1
unknown pseudo: reset 1
status: reset 1
upper case: reset 1
connection: reset 1
keep-alive: reset 1
upgrade: reset 1
transfer-encoding: reset 1
te: reset 1
space in a name: reset 1
line break in a value: reset 1
NUL in a value: reset 1
negative length: reset 1
two lengths: reset 1
relative path: reset 1
star: reset 1
fragment: 400
blank in the path: reset 1
list of hosts: 400
another host: 400
CONNECT: 501
a long method: 501
host alone: 200
the same host: 200
te trailers: 200
next 200
short body: reset 1
long body: reset 1
next 200]] },
  { "broken", "broken connections end with the code of RFC 9113", [[
preface: None closed
no settings: 1 closed
frame of 16385 bytes: 6 closed
hpack: 9 closed
hpack index: 9 closed
even stream: 1 closed
stream 0: 1 closed
data on an idle stream: 1 closed
reset of an idle stream: 1 closed
window of an idle stream: 1 closed
window overflow: 3 closed
increment of 0: 1 closed
ping of 7 bytes: 6 closed
settings of 5 bytes: 6 closed
initial window of 2^31: 3 closed
another frame inside a head: 1 closed
continuation alone: 1 closed
push promise: 1 closed
padding beyond the frame: 1 closed
HTTP/1.1 behind it: 6 closed
healthy]] },
  { "bodies", "bodies beyond the limits", [[
announced 413
too large 413
too much ['503', 'None', 'None', 'None']
rest [200, 200, 200, 503]
next 200 0]], "{ max_body = 100000, max_buffered = 300000 }" },
  { "slow", "slow heads, bodies and settings, and silence", "body 408 200\nhead 0 True\nsettings 0 True\nserved 200\nidle 0 True", SHORT },
  { "slow_reader", "a client that takes nothing", "healthy\ncut off True True", SHORT, "4" },
  { "trailers", "trailers both ways, 100 Continue, padding",
    "200 hello 0 2\n200 '' None\nhello\ncontinue [7] 200\npadded 200\nhello" },
  { "stream", "streaming handlers", [[
one
onetwo
onetwothree
other 200
end 200 3 end
late 200 timeout
raise 2
blocked False
cancelled 1 0]] },
  { "concurrent", "a hundred streams that wait", "100 True" },
  { "many", "requests of all kinds on several connections", "1600" },
  { "drain", "the end: two GOAWAYs, begun streams are answered",
    "stop 200\nnotice (2147483647, 0)\nlate 200\nslow 200\nlast (5, 0) True" },
}

describe("HTTP/2 under attack", function()
  for _, row in ipairs(ROWS) do
    it(row[2], function()
      local server = process.spawn_lua("spec/support/test_server.lua", row[4] or "{}")
      local port = server:expect "port (%d+)\n"
      local pipe = io.popen("timeout 120 /usr/bin/python3 spec/support/http2_attack.py " .. port .. " " .. row[1] .. " " .. (row[5] or "") .. " 2>&1")
      local facts = pipe:read "*a"
      pipe:close()
      local log = server:log()
      assert.are.equal(0, server:stop(), log)
      assert.are.equal(row[3], (facts:gsub("\n$", "")))
      for line in log:gmatch "error: ([^\n]*)" do assert.truthy(line:find("raised in a stream", 1, true), line) end
    end)
  end
end)
