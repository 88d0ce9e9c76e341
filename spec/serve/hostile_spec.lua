-- Requests that servers are known to read in different ways, and attacks on resources. Each is sent on its own connection to one
-- server process; after each a well-behaved client must be answered within a second, and in the end the server must be whole.

local cqueues = require "cqueues"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

local POST, GET = "POST /echo HTTP/1.1\r\nHost: a\r\n", "GET /echo HTTP/1.1\r\nHost: a\r\n"
local SMUGGLED = "GET /echo/smuggled HTTP/1.1\r\nHost: b\r\n\r\n"
local CHUNKED = POST .. "Transfer-Encoding: chunked\r\n\r\n"

-- name, bytes, status of the only answer
local CORPUS = {
  -- two lengths
  { "CL and TE", POST .. "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "TE and CL", POST .. "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "two CL", POST .. "Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello" .. SMUGGLED, 400 },
  { "two equal CL", POST .. "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" .. SMUGGLED, 400 },
  { "CL list", POST .. "Content-Length: 5, 5\r\n\r\nhello" .. SMUGGLED, 400 },
  { "CL and GET", GET .. "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" .. SMUGGLED, 400 },
  -- Content-Length that is no number
  { "negative CL", POST .. "Content-Length: -5\r\n\r\nhello", 400 },
  { "signed CL", POST .. "Content-Length: +5\r\n\r\nhello", 400 },
  { "hexadecimal CL", POST .. "Content-Length: 0x5\r\n\r\nhello", 400 },
  { "fraction CL", POST .. "Content-Length: 5.0\r\n\r\nhello", 400 },
  { "exponent CL", POST .. "Content-Length: 5e0\r\n\r\nhello", 400 },
  { "blank in CL", POST .. "Content-Length: 5 0\r\n\r\nhello", 400 },
  { "empty CL", POST .. "Content-Length:\r\n\r\nhello", 400 },
  { "form feed CL", POST .. "Content-Length: \0125\r\n\r\nhello", 400 },
  { "NUL in CL", POST .. "Content-Length: 5\0\r\n\r\nhello", 400 },
  { "overflowing CL", POST .. "Content-Length: 18446744073709551621\r\n\r\nhello", 413 },
  { "huge CL", POST .. "Content-Length: 9223372036854775807\r\n\r\nhello", 413 },
  { "endless CL", POST .. "Content-Length: " .. ("9"):rep(5000) .. "\r\n\r\nhello", 413 },
  { "quoted CL", POST .. 'Content-Length: "5"\r\n\r\nhello', 400 },
  -- Transfer-Encoding in disguise
  { "TE list of separators", POST .. "Transfer-Encoding: ,;=\r\n\r\nhello", 400 },
  { "unknown TE", POST .. "Transfer-Encoding: foo\r\n\r\nhello", 501 },
  { "identity TE", POST .. "Transfer-Encoding: identity\r\n\r\n", 501 },
  { "gzip TE", POST .. "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400 },
  { "TE blank colon", POST .. "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "TE tab colon", POST .. "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "two TE", POST .. "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "two chunked", POST .. "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "chunked list", POST .. "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "chunked with comma", POST .. "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "chunked with parameter", POST .. "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "quoted chunked", POST .. 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' .. SMUGGLED, 400 },
  { "vertical tab chunked", POST .. "Transfer-Encoding: \11chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "chunked NUL", POST .. "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "folded TE", POST .. "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "TE after bare LF", POST .. "X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "TE after bare CR", POST .. "X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "TE in 1.0", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "obs-text in TE", POST .. "Transfer-Encoding: chunked\160\r\n\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  -- lines
  { "LF only", "GET /echo HTTP/1.1\nHost: a\n\n", 400 },
  { "CR only", "GET /echo HTTP/1.1\rHost: a\r\r" .. ("x"):rep(8200), 414 },
  { "LF at the end of the head", "GET /echo HTTP/1.1\r\nHost: a\r\n\n", 400 },
  { "CR before CRLF", "GET /echo HTTP/1.1\r\nHost: a\r\r\n\r\n", 400 },
  { "fold", GET .. "X: 1\r\n 2\r\n\r\n", 400 },
  { "blank before first field", "GET /echo HTTP/1.1\r\n Host: a\r\n\r\n", 400 },
  { "NUL in a field", GET .. "X: a\0b\r\n\r\n", 400 },
  { "no colon", GET .. "Xyz\r\n\r\n", 400 },
  { "no name", GET .. ": x\r\n\r\n", 400 },
  { "brackets in a name", GET .. "X[]: 1\r\n\r\n", 400 },
  -- the request line
  { "tab for blank", "GET\t/echo\tHTTP/1.1\r\nHost: a\r\n\r\n", 400 },
  { "two blanks", "GET  /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
  { "blank in the target", "GET /echo x HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
  { "no version", "GET /echo\r\n\r\n", 400 },
  { "version in small letters", "GET /echo http/1.1\r\nHost: a\r\n\r\n", 400 },
  { "version with more digits", "GET /echo HTTP/1.11\r\nHost: a\r\n\r\n", 400 },
  { "HTTP/1.2", "GET /echo HTTP/1.2\r\nHost: a\r\n\r\n", 505 },
  { "HTTP/3", "GET /echo HTTP/3.0\r\nHost: a\r\n\r\n", 505 },
  { "something like HTTP/2's preface", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505 },
  { "TLS hello", "\22\3\1\2\0\1\0\1\252\3\3" .. ("\1"):rep(32) .. "\n", 400 },
  { "NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
  { "fragment", "GET /echo#x HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
  { "relative target", "GET ../echo HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
  { "CONNECT", "CONNECT example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501 },
  { "long method", ("A"):rep(100) .. " / HTTP/1.1\r\nHost: a\r\n\r\n", 501 },
  -- Host
  { "no Host", "GET /echo HTTP/1.1\r\n\r\n", 400 },
  { "two Host", "GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400 },
  { "two equal Host", "GET /echo HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400 },
  { "Host with path", "GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n", 400 },
  { "Host with user", "GET /echo HTTP/1.1\r\nHost: u@a\r\n\r\n", 400 },
  { "Host list", "GET /echo HTTP/1.1\r\nHost: a,b\r\n\r\n", 400 },
  -- sizes
  { "long target", "GET /" .. ("a"):rep(9000) .. " HTTP/1.1\r\nHost: a\r\n\r\n", 414 },
  { "long line without end", ("a"):rep(70000), 414 },
  { "long field", GET .. "X: " .. ("a"):rep(40000) .. "\r\n\r\n", 431 },
  { "field without end", GET .. "X: " .. ("a"):rep(200000), 431 },
  { "many fields", GET .. ("X: a\r\n"):rep(101) .. "\r\n", 431 },
  { "many tiny fields", GET .. ("a:\r\n"):rep(20000), 431 },
  { "long field name", GET .. ("a"):rep(300) .. ": 1\r\n\r\n", 431 },
  -- chunks
  { "negative chunk", CHUNKED .. "-5\r\nhello\r\n0\r\n\r\n", 400 },
  { "chunk with 0x", CHUNKED .. "0x5\r\nhello\r\n0\r\n\r\n", 400 },
  { "chunk with plus", CHUNKED .. "+5\r\nhello\r\n0\r\n\r\n", 400 },
  { "chunk with blank", CHUNKED .. "5 \r\nhello\r\n0\r\n\r\n", 400 },
  { "chunk of 2^64", CHUNKED .. "10000000000000000\r\nhello", 400 },
  { "chunk of 2^64-1", CHUNKED .. "ffffffffffffffff\r\nhello", 413 },
  { "chunk of 4 GiB", CHUNKED .. "100000000\r\nhello", 413 },
  { "chunk size without end", CHUNKED .. ("0"):rep(100000), 400 },
  { "chunk without size", CHUNKED .. "\r\nhello\r\n0\r\n\r\n", 400 },
  { "chunk ended by LF", CHUNKED .. "5\nhello\r\n0\r\n\r\n", 400 },
  { "chunk data too long", CHUNKED .. "3\r\nhello\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "chunk extension with LF", CHUNKED .. "5;a\nb\r\nhello\r\n0\r\n\r\n" .. SMUGGLED, 400 },
  { "chunk extension without end", CHUNKED .. "5;" .. ("a"):rep(100000), 400 },
  { "chunk extensions in sum", CHUNKED .. ("1;" .. ("a"):rep(100) .. "\r\nx\r\n"):rep(1000), 400 },
  { "trailer without end", CHUNKED .. "0\r\nX: " .. ("a"):rep(100000), 431 },
  { "trailer fold", CHUNKED .. "0\r\nX: a\r\n b\r\n\r\n", 400 },
  { "trailer with bare LF", CHUNKED .. "0\r\nX: a\n\r\n", 400 },
  { "end by bare LF", CHUNKED .. "0\r\n\n", 400 },
}

describe("hostile clients", function()
  local server, port, healthy

  setup(function()
    server = process.spawn_lua("spec/support/test_server.lua", "{ head_timeout = 3, body_timeout = 3 }")
    port = tonumber(server:expect "port (%d+)\n")
    healthy = raw_http.connect(port)
  end)

  teardown(function()
    healthy:close()
    assert.are.equal(0, server:stop())
  end)

  local function still_served()
    local start = cqueues.monotime()
    healthy:send("POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 23\r\n\r\n" .. '{"instances":[[1,2,3]]}')
    local response, why = healthy:response(1)
    assert(response, "the healthy client was not answered: " .. tostring(why))
    assert.truthy(response.body:find("[6]", 1, true))
    assert.truthy(cqueues.monotime() - start < 1)
  end

  for _, case in ipairs(CORPUS) do
    it("are refused once and cut off: " .. case[1], function()
      local connection = raw_http.connect(port)
      connection:send(case[2])
      still_served()
      local answer, closed = connection:rest(2)
      connection:close()
      assert.are.equal(case[3], tonumber(answer:match("^HTTP/1%.1 (%d%d%d) ")), answer)
      assert.is_true(closed)
      assert.are.equal(1, select(2, answer:gsub("HTTP/1%.1 ", "")))
      assert.falsy(answer:find("smuggled", 1, true))
    end)
  end

  it("may send a million chunks of one byte", function()
    local connection = raw_http.connect(port)
    local loop = cqueues.new()
    local piece, response = ("1\r\nx\r\n"):rep(10000), nil
    loop:wrap(function()
      connection:send(CHUNKED)
      for _ = 1, 100 do connection:send(piece) end
      connection:send("0\r\n\r\n")
      response = connection:response(10)
    end)
    loop:wrap(function()
      for _ = 1, 10 do
        still_served()
        cqueues.sleep(0.02)
      end
    end)
    assert(loop:loop(20))
    connection:close()
    assert.truthy(response.body:find("\n1000000\n", 1, true))
  end)

  it("may pipeline without end: others have their turn", function()
    local connection = raw_http.connect(port)
    local loop = cqueues.new()
    local batch, stop = ("GET /count HTTP/1.1\r\nHost: a\r\n\r\n"):rep(500), false
    loop:wrap(function() while not stop and connection:send(batch, 0.5) do end end)
    loop:wrap(function()
      while not stop do
        connection:more(cqueues.monotime() + 0.2)
        connection.buffer = ""
      end
    end)
    loop:wrap(function()
      for _ = 1, 20 do still_served() end
      stop = true
    end)
    assert(loop:loop(20))
    connection:close()
  end)

  it("may be many and slow", function()
    local slow = {}
    for i = 1, 200 do
      slow[i] = raw_http.connect(port)
      slow[i]:send(i % 2 == 0 and "GET / HT" or POST .. "Content-Length: 100\r\n\r\nx")
    end
    still_served()
    for i = 1, 200 do
      slow[i]:send "x"
      if i % 20 == 0 then still_served() end
    end
    assert.are.equal(408, slow[200]:response(5).status)
    for i = 1, 200 do slow[i]:close() end
    still_served()
  end)

  it("may leave at any moment", function()
    local bytes = POST .. "Content-Length: 5\r\n\r\nhello"
    for at = 1, #bytes, 3 do
      local connection = raw_http.connect(port)
      connection:send(bytes:sub(1, at))
      connection:close()
    end
    for at = 1, #bytes, 7 do
      local connection = raw_http.connect(port)
      connection:send(bytes:sub(1, at))
      connection:finish_sending()
      local answer, closed = connection:rest(2)
      assert.is_true(closed)
      if at < #bytes then assert.are.equal("400", answer:match("^HTTP/1%.1 (%d%d%d) ")) end
      connection:close()
    end
    still_served()
  end)

  it("leave the server whole", function()
    assert.truthy(process.wait(5, function()
      local body = raw_http.request(port, "GET", "/count").body
      return body == "2" -- this one and the healthy one
    end))
    assert.falsy(server:log():find("error: ", 1, true))
  end)
end)
