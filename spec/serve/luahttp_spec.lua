-- What is weak in lua-http's server (0.4), and that ours is not, although it runs in lua-http's frame. One row a weakness.
-- With MLSERVE_SPEC_STOCK=1 the same rows run against lua-http as it is: each fails then, which shows that they test something. The two
-- cases behind the rows are weaknesses of its HTTP/2 side, held to here for HTTP/1.1.

local cqueues = require "cqueues"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

local STOCK = os.getenv "MLSERVE_SPEC_STOCK" == "1"
local POST = "POST /echo HTTP/1.1\r\nHost: a\r\n"
local GET = "GET /count HTTP/1.1\r\nHost: a\r\n\r\n"
local SMUGGLED = "GET /count HTTP/1.1\r\nHost: b\r\n\r\n"

-- Sends bytes; the only answer must have this status, and the connection must end.
local function refused(status, bytes)
  return function(port)
    local connection = raw_http.connect(port)
    connection:send(bytes)
    local answer, closed = connection:rest(3)
    connection:close()
    assert.are.equal(status, tonumber(answer:match("^HTTP/1%.1 (%d%d%d) ")), answer)
    assert.are.equal(1, select(2, answer:gsub("HTTP/1%.1 ", "")), answer)
    assert.is_true(closed)
  end
end

-- Sends a piece every 50 ms for 1.5 s; the server must have answered 408 and left by then.
local function too_slow(start, piece)
  return function(port)
    local connection = raw_http.connect(port)
    connection:send(start)
    for _ = 1, 30 do
      connection:send(piece)
      cqueues.sleep(0.05)
    end
    local response = connection:response(0.2)
    connection:close()
    assert(response, "no answer")
    assert.are.equal(408, response.status)
  end
end

local function answered(port)
  local response, why = raw_http.request(port, "GET", "/count", nil, nil, 3)
  assert(response, "a healthy client was not answered: " .. tostring(why))
  assert.are.equal(200, response.status)
end

local H2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"

-- weakness, probe
local ROWS = {
  { "a Transfer-Encoding of separators makes the process spin", refused(400, POST .. "Transfer-Encoding: ,;=\r\n\r\nhello") },
  { "a negative Content-Length ends the process", refused(400, POST .. "Content-Length: -5\r\n\r\nhello") },
  { "of two different Content-Lengths the first wins: smuggling",
    refused(400, POST .. "Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello" .. SMUGGLED) },
  { "Content-Length beside Transfer-Encoding is accepted",
    refused(400, POST .. "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n") },
  { "a signed Content-Length is accepted", refused(400, POST .. "Content-Length: +5\r\n\r\nhello") },
  { "two Transfer-Encodings are not answered",
    refused(400, POST .. "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n") },
  { "an unknown Transfer-Encoding is not answered", refused(501, POST .. "Transfer-Encoding: foo\r\n\r\nhello") },
  { "a coding of the transfer inflates without a bound",
    refused(400, POST .. "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n") },
  { "a request without Host is accepted", refused(400, "GET /count HTTP/1.1\r\n\r\n") },
  { "two Hosts are accepted", refused(400, "GET /count HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n") },
  { "refusals at the level of the parser get no answer (blank before colon)",
    refused(400, POST .. "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n") },
  { "refusals at the level of the parser get no answer (line ends)", refused(400, "GET /count HTTP/1.1\nHost: a\n\n") },
  { "refusals at the level of the parser get no answer (long field)",
    refused(431, "GET /count HTTP/1.1\r\nHost: a\r\nX: " .. ("a"):rep(40000) .. "\r\n\r\n") },
  { "refusals at the level of the parser get no answer (many fields)",
    refused(431, "GET /count HTTP/1.1\r\nHost: a\r\n" .. ("X: a\r\n"):rep(101) .. "\r\n") },
  { "refusals at the level of the parser get no answer (negative chunk)",
    refused(400, POST .. "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n") },
  { "a chunk of 4 GiB is buffered before anybody is asked",
    refused(413, POST .. "Transfer-Encoding: chunked\r\n\r\nffffffff\r\nhello") },
  { "a body has no bound", refused(413, POST .. "Content-Length: 200000\r\n\r\n" .. ("x"):rep(200000)) },
  { "a head may take for ever", too_slow("GET /count HTTP/1.1\r\nHost: a\r\nX: ", "y") },
  { "a body may take for ever", too_slow(POST .. "Content-Length: 1000\r\n\r\n", "x") },
  { "connections have no bound", function(port)
    local open = {}
    for i = 1, 10 do
      open[i] = raw_http.connect(port)
      open[i]:send(GET)
    end
    local count = 0
    cqueues.sleep(0.3)
    for i = 1, 10 do
      if open[i]:response(0.05) then count = count + 1 end
    end
    for i = 1, 10 do open[i]:close() end
    assert.are.equal(8, count)
  end },
  { "an answer that is not taken is kept for ever", function(port)
    local connection = raw_http.connect(port)
    connection:send("GET /big/50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.is_true(process.wait(4, function()
      local response = raw_http.request(port, "GET", "/count", nil, nil, 1)
      return response and response.body == "1"
    end))
    connection:close()
  end },
  { "an idle client keeps its connection for ten seconds, whatever is wanted", function(port)
    local connection = raw_http.connect(port)
    connection:send(GET)
    assert.are.equal(200, connection:response().status)
    local rest, closed = connection:rest(3)
    connection:close()
    assert.are.same({ "", true }, { rest, closed })
  end },
  -- the rest of HTTP/2 in lua-http (resets without account, read stalls, wrong HPACK) is held to in http2_hostile_spec
  { "HTTP/2's streams and header lists have no bound", function(port)
    local connection = raw_http.connect(port)
    connection:send(H2)
    local settings = connection:rest(1) -- 16-bit name, 32-bit value: MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE
    connection:close()
    assert.truthy(settings:find("\0\3\0\0\0\128", 1, true))
    assert.truthy(settings:find("\0\6\0\0\64\0", 1, true))
  end },
}

describe(STOCK and "lua-http as it is" or "where lua-http is weak, our transport", function()
  local server, port

  before_each(function()
    if STOCK then server = process.spawn_lua("spec/support/stock_luahttp.lua")
    else
      server = process.spawn_lua("spec/support/test_server.lua", "{ head_timeout = 1, body_timeout = 1, idle_timeout = 1, "
        .. "write_timeout = 1, max_body = 100000, max_connections = 8 }")
    end
    port = tonumber(server:expect "port (%d+)\n")
  end)

  after_each(function()
    if STOCK then server:signal "KILL" end -- one that spins
    server:stop()
  end)

  for _, row in ipairs(ROWS) do
    it("closes: " .. row[1], function()
      row[2](port)
      answered(port)
    end)
  end

  it("closes: a call longer than the time-out between streams breaks the connection", function()
    local connection = raw_http.connect(port)
    connection:send("GET /sleep/2000 HTTP/1.1\r\nHost: a\r\n\r\n" .. GET)
    assert.are.equal("slept", connection:response(5).body)
    assert.are.equal(200, connection:response(5).status)
    connection:close()
  end)

  it("closes: pieces that arrive while answers are written stall the reading", function()
    local loop, sizes = cqueues.new(), {}
    for i = 1, 3 do
      loop:wrap(function()
        local connection, body = raw_http.connect(port), ("x"):rep(90000)
        connection:send(POST .. "Content-Length: 90000\r\n\r\n")
        for at = 1, #body, 1460 do
          connection:send(body:sub(at, at + 1459))
          cqueues.sleep(0)
        end
        sizes[i] = connection:response(5).body:match("\n(90000)\n")
        connection:close()
      end)
    end
    assert(loop:loop(10))
    assert.are.same({ "90000", "90000", "90000" }, sizes)
  end)
end)
