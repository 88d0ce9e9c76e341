-- An HTTP server that misbehaves, for the client's specs: lua rude_server.lua [CERT KEY]; prints "port N". What it does is said by the first
-- segment of the path, which a client has as the path of its URL. It reads requests by itself and knows nothing of mlserve.

local cjson = require "cjson"
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local GOOD = '{"predictions": [1.5, 2.5]}'
local asked, connections, open = {}, 0, 0
local tls

if arg[1] then
  local context = require("openssl.ssl.context").new("TLS", true)
  local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "*a"
    file:close()
    return text
  end
  context:setCertificate(require("openssl.x509").new(read(arg[1])))
  context:setPrivateKey(require("openssl.pkey").new(read(arg[2])))
  tls = context
end

local function answer(body, more, status)
  return ("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s"):format(status or "200 OK", more or "", #body, body)
end

local function split(text, size)
  local pieces = {}
  for at = 1, #text, size do pieces[#pieces + 1] = text:sub(at, at + size - 1) end
  return pieces
end

-- kind -> function(connection, request) -> whether the connection goes on; request: { line, head, headers, body, count (of this kind), nth (of
-- this connection) }
local kinds = {}

function kinds.ok(c) return c:write(answer(GOOD)) end
function kinds.echo(c, r)
  return c:write(answer(cjson.encode { line = r.line, head = r.head, body = r.body, connection = r.connection, nth = r.nth }))
end
function kinds.asked(c, r)
  local of = {}
  for kind, count in pairs(asked) do of[kind] = count end
  of.open, of.connections = open, connections
  return c:write(answer(cjson.encode(of))), r
end

-- silence and slowness
function kinds.silent() cqueues.sleep(30) end
function kinds.trickle(c)
  for byte in ("HTTP/1.1 200 OK\r\nX-A: " .. ("a"):rep(1000)):gmatch "." do
    c:write(byte)
    cqueues.sleep(0.02)
  end
end
function kinds.stall(c)
  c:write("HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{")
  cqueues.sleep(30)
end
function kinds.bytes(c)
  for byte in answer(GOOD):gmatch "." do
    c:write(byte)
    cqueues.sleep(0)
  end
  return true
end
function kinds.late(c)
  cqueues.sleep(0.15)
  return c:write(answer(GOOD))
end

-- ends
function kinds.nothing() end
function kinds.half(c) c:write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"pred") end
function kinds.halfhead(c) c:write "HTTP/1.1 200 OK\r\nContent-Le" end
function kinds.halfchunk(c) c:write "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc" end
function kinds.stale(c) c:write(answer(GOOD)) end -- says nothing of closing
function kinds.swallow(c, r) -- closes when it is asked for the second time
  if r.nth == 1 then return c:write(answer(GOOD)) end
end
function kinds.swallowhalf(c, r)
  if r.nth == 1 then return c:write(answer(GOOD)) end
  c:write "HTTP/1.1 "
end

-- not HTTP
local BAD = {
  http2 = "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n", text = "hello, world\r\n\r\n", newlines = "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
  negative = "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", lengths = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
  both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
  code = "HTTP/1.1 2000 OK\r\n\r\n", small = "HTTP/1.1 099 X\r\n\r\n", folded = "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
  coding = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", empty = "\r\n\r\n",
  switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", control = "HTTP/1.1 200 OK\r\nX: a\1b\r\n\r\n",
  chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", gzip = answer("not gzip", "Content-Encoding: gzip\r\n"),
  brotli = answer(GOOD, "Content-Encoding: br\r\n"), fields = "HTTP/1.1 200 OK\r\n" .. ("X-A: 1\r\n"):rep(101) .. "\r\n",
}
function kinds.bad(c, r)
  c:write(BAD[r.line:match "^%a+ /bad/(%w+)/"])
  cqueues.sleep(1)
end
kinds["bad-names"] = function(c)
  local names = {}
  for name in pairs(BAD) do names[#names + 1] = name end
  return c:write(answer(cjson.encode(names)))
end

-- too much
function kinds.huge(c) c:write("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n") cqueues.sleep(1) end
function kinds.endless(c)
  c:write "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
  while c:write("1000\r\n" .. ("x"):rep(4096) .. "\r\n") do cqueues.sleep(0) end
end
function kinds.pouring(c)
  c:write "HTTP/1.1 200 OK\r\n\r\n"
  while c:write(("x"):rep(65536)) do cqueues.sleep(0) end
end
function kinds.longhead(c)
  c:write "HTTP/1.1 200 OK\r\n"
  while c:write("X-A: " .. ("x"):rep(4000) .. "\r\n") do cqueues.sleep(0) end
end
function kinds.interim(c)
  while c:write "HTTP/1.1 102 Processing\r\n\r\n" do cqueues.sleep(0) end
end
function kinds.bomb(c)
  local bytes = require("mlserve.net").deflate("gzip", ("\0"):rep(2 ^ 26), 9)
  return c:write(answer(bytes, "Content-Encoding: gzip\r\n"))
end

-- unusual, but right
function kinds.continue(c) return c:write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" .. answer(GOOD)) end
function kinds.chunked(c)
  c:write "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
  for _, piece in ipairs(split(GOOD, 5)) do c:write(("%x;a=b\r\n%s\r\n"):format(#piece, piece)) end
  return c:write "0\r\nX-Trailer: 1\r\n\r\n"
end
function kinds.untilclose(c) c:write("HTTP/1.0 200 OK\r\n\r\n" .. GOOD) end
function kinds.noreason(c) return c:write("HTTP/1.1 200\r\nContent-Length: " .. #GOOD .. "\r\n\r\n" .. GOOD) end
function kinds.close(c) c:write(answer(GOOD, "Connection: close\r\n")) end
function kinds.compressed(c)
  return c:write(answer(require("mlserve.net").deflate("gzip", GOOD, 6), "Content-Encoding: gzip\r\n"))
end
function kinds.extra(c) return c:write(answer(GOOD) .. answer '{"predictions": [666]}') end
function kinds.afterwards(c)
  c:write(answer(GOOD))
  cqueues.sleep(0.05)
  return c:write(answer '{"predictions": [666]}')
end

-- errors
function kinds.busy(c, r)
  if r.count <= tonumber(r.line:match "^%a+ /busy/(%d+)/") then return c:write(answer("", "Retry-After: 0\r\n", "503 Service Unavailable")) end
  return c:write(answer(GOOD))
end
function kinds.toomany(c, r)
  if r.count == 1 then return c:write(answer('{"error": "slow down"}', "Retry-After: 0\r\n", "429 Too Many Requests")) end
  return c:write(answer(GOOD))
end
function kinds.full(c) return c:write(answer('{"error": "queue is full"}', nil, "503 Service Unavailable")) end
function kinds.later(c) return c:write(answer('{"error": "come back"}', "Retry-After: 3600\r\n", "503 Service Unavailable")) end
function kinds.status(c, r)
  local status = r.line:match "^%a+ /status/(%d+)/"
  return c:write(answer("<html>sorry</html>", "Content-Type: text/html\r\n", status .. " Sorry"))
end
function kinds.json(c, r)
  local name = r.line:match "^%a+ /json/(%w+)/"
  local BODIES = {
    text = "hello", empty = "", list = "[1]", nothing = "{}", deep = '{"predictions": ' .. ("["):rep(100) .. ("]"):rep(100) .. "}",
    ragged = '{"predictions": [[1, 2], [3]]}', maps = '{"outputs": {"label": ["a"], "p": [{"a": 0.25, "b": 0.75}]}}', cut = '{"predictions": [1.5, ',
    mixed = '{"predictions": [1, 2, 2.5]}', integers = '{"predictions": [[1, 2]]}', rows = '{"predictions": [{"a": 1, "b": [0.5]}, {"b": [1], "a": 2.5}]}',
    bytes = '{"predictions": [{"b64": "AAH/"}]}', nan = '{"predictions": [NaN, Infinity, -Infinity]}', null = '{"predictions": [null]}',
  }
  return c:write(answer(BODIES[name]))
end
function kinds.infer(c, r)
  local name = r.line:match "^%a+ /infer/(%w+)/"
  local function output(more) return '{"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], ' .. more .. "}]}" end
  local json = output '"parameters": {"binary_data_size": 8}'
  local FIELDS = {
    good = { json .. "\0\0\0\64\0\0\128\63", #json }, short = { json .. "\0\0\0\64", #json }, long = { json .. ("\0"):rep(12), #json },
    outside = { json, #json + 1 }, negative = { json, -1 }, words = { json, "x" }, neither = { output '"x": 1', nil },
    count = { output '"data": [1, 2, 3]' }, nested = { output '"data": [[1], [2]]' }, type = { output '"data": ["a", "b"]' },
    shape = { '{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1e18, 1e18], "data": [1]}]}' },
    wide = { '{"outputs": [{"name": "y", "datatype": "FP32", "shape": [4611686018427387904, 4], "data": [1]}]}' },
    datatype = { '{"outputs": [{"name": "y", "datatype": "FP31", "shape": [1], "data": [1]}]}' },
    twice = { '{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}, {"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]}' },
    string = { '{"outputs": [{"name": "y", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 8}}]}\4\0\0\0abc\0', 89 },
  }
  local given = FIELDS[name]
  return c:write(answer(given[1], given[2] and "Inference-Header-Content-Length: " .. given[2] .. "\r\n"))
end
-- refuses before the body has come, and does not read it
function kinds.early(c) c:write(answer('{"error": "too large"}', "Connection: close\r\n", "413 Content Too Large")) cqueues.sleep(0.3) end

---------------------------------------------------------------------------------------------------------------------------

local function read_request(c, early)
  local line = c:read "*l"
  if not line then return nil end
  local head, headers = {}, {}
  for field in function() return c:read "*l" end do
    field = field:gsub("\r$", "")
    if field == "" then break end
    head[#head + 1] = field
    local name, value = field:match "^([^:]+): ?(.*)$"
    headers[name:lower()] = value
  end
  local request = { line = line:gsub("\r$", ""), head = head, headers = headers }
  if early(request.line) then return request end
  local length = tonumber(headers["content-length"]) or 0
  request.body = length > 0 and c:read(length) or ""
  return request
end

local function serve(c)
  local number, nth = connections, 0
  c:onerror(function(_, _, why) return why end)
  c:setmode("bn", "bn")
  if tls and not c:starttls(tls, 5) then return c:close() end
  while true do
    local request = read_request(c, function(line) return line:find "^POST /early/" end)
    if not request then break end
    local kind = request.line:match "^%a+ /([%w-]+)"
    nth = nth + 1
    local key = request.line:match "^%a+ /(%w+/%d+/[%w-]+)" or kind
    asked[key] = (asked[key] or 0) + 1
    asked[kind] = key == kind and asked[kind] or (asked[kind] or 0) + 1
    request.count, request.nth, request.connection = asked[key], nth, number
    if not (kinds[kind] or kinds.ok)(c, request) then break end
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
    connections, open = connections + 1, open + 1
    loop:wrap(function()
      local ok, message = pcall(serve, c)
      open = open - 1
      if not ok then
        print("error: " .. tostring(message))
        c:close()
      end
    end)
  end
end)
while not loop:empty() do
  local ok, message = loop:step()
  if not ok then print("loop: " .. tostring(message)) end
end
