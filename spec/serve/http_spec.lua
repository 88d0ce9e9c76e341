local cqueues = require "cqueues"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

describe("the HTTP server", function()
  local server, port

  local function start(options)
    server = process.spawn_lua("spec/support/test_server.lua", options or "{}")
    port = tonumber(server:expect "port (%d+)\n")
  end

  after_each(function()
    if server then server:stop() end
    server = nil
  end)

  it("hands method, path, query, headers and body to the application", function()
    start()
    local response = raw_http.request(port, "PUT", "/echo%20x?q=1", "hello", { ["X-Name"] = "Value" })
    assert.are.equal(200, response.status)
    assert.are.equal("PUT\n/echo%20x\nq=1\n5\nconnection=close\ncontent-length=5\nhost=localhost\nx-name=Value\nhello",
      response.body)
    assert.truthy(response.headers.date:match("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$"))
    assert.are.equal("close", response.headers.connection)
  end)

  it("keeps a connection for many requests and closes it when asked", function()
    start()
    local connection = raw_http.connect(port)
    for i = 1, 50 do
      connection:send("POST /echo?" .. i .. " HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
      local response = connection:response()
      assert.are.equal(200, response.status)
      assert.is_nil(response.headers.connection)
      assert.truthy(response.body:find("\n" .. i .. "\n2\n", 1, true))
    end
    connection:send("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert.are.equal("close", connection:response().headers.connection)
    local rest, closed = connection:rest()
    assert.are.same({ "", true }, { rest, closed })
    connection:close()
  end)

  it("speaks HTTP/1.0: closes unless asked to keep alive", function()
    start()
    local connection = raw_http.connect(port)
    connection:send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert.are.equal("keep-alive", connection:response().headers.connection)
    connection:send("GET /echo HTTP/1.0\r\n\r\n")
    assert.are.equal("close", connection:response().headers.connection)
    assert.is_true((select(2, connection:rest())))
    connection:close()
  end)

  it("answers pipelined requests in order, wherever the bytes are cut", function()
    start()
    local bytes, count = {}, 40
    for i = 1, count do
      bytes[#bytes + 1] = "POST /echo?" .. i .. " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
      bytes[#bytes + 1] = "POST /echo?c" .. i
        .. " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    end
    bytes = table.concat(bytes)
    for _, step in ipairs { #bytes, 1000, 61 } do
      local connection = raw_http.connect(port)
      for at = 1, #bytes, step do connection:send(bytes:sub(at, at + step - 1)) end
      for i = 1, count do
        assert.truthy(connection:response().body:find("^POST\n/echo\n" .. i .. "\n3\n.*\nabc$"))
        assert.truthy(connection:response().body:find("^POST\n/echo\nc" .. i .. "\n3\n.*\nabc$"))
      end
      connection:close()
    end
  end)

  it("sends 100 Continue only to a client that waits for it", function()
    start()
    local connection = raw_http.connect(port)
    connection:send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert.are.equal(100, connection:response().status)
    connection:send("body")
    assert.are.equal(200, connection:response().status)
    connection:send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody")
    assert.are.equal(200, connection:response().status)
    connection:send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    assert.are.equal(100, connection:response().status)
    connection:send("0\r\n\r\n")
    assert.are.equal(200, connection:response().status)
    connection:close()
  end)

  it("answers HEAD without a body, 204 without a length", function()
    start()
    local connection = raw_http.connect(port)
    for _, line in ipairs { "HEAD /echo", "GET /nothing", "GET /count" } do
      connection:send(line .. " HTTP/1.1\r\nHost: a\r\n\r\n")
    end
    local head = connection:response(5, true)
    assert.are.equal(200, head.status)
    assert.truthy(tonumber(head.headers["content-length"]) > 0)
    local nothing = connection:response()
    assert.are.same({ 204 }, { nothing.status, nothing.headers["content-length"] })
    assert.are.equal("1", connection:response().body)
    connection:close()
  end)

  it("takes large bodies whole and sends large answers to slow readers", function()
    start()
    local body = ("0123456789abcdef"):rep(262144) -- 4 MiB
    local response = raw_http.request(port, "POST", "/echo", body)
    assert.truthy(response.body:find("\n" .. #body .. "\n", 1, true))
    local connection = raw_http.connect(port)
    connection:send("GET /big/20000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    cqueues.sleep(0.3)
    local other = raw_http.request(port, "GET", "/count")
    assert.are.equal("2", other.body) -- a client that does not read delays nobody
    assert.are.equal(20000000, #connection:response(20).body)
    connection:close()
  end)

  it("takes compressed bodies in every framing and gives them to who asks", function()
    start()
    local net = require "mlserve.net"
    local body = net.deflate("gzip", ("abc"):rep(1000), 6)
    local response = raw_http.request(port, "POST", "/echo", body, { ["content-encoding"] = "gzip" })
    assert.truthy(response.body:find("\n3000\n.*content%-encoding=identity\n.*abcabc"))
    local connection = raw_http.connect(port)
    connection:send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. ("%x\r\n%s\r\n0\r\n\r\n"):format(#body, body) .. "GET /big/50000 HTTP/1.1\r\nHost: a\r\nAccept-Encoding: deflate, gzip\r\n\r\n")
    assert.truthy(connection:response().body:find("\n3000\n", 1, true))
    response = connection:response()
    assert.are.equal("gzip", response.headers["content-encoding"])
    assert.are.equal(("x"):rep(50000), net.inflate("gzip", response.body, 0, 0))
    connection:close()
    assert.is_nil(raw_http.request(port, "GET", "/big/50000").headers["content-encoding"])
    assert.are.equal(400, raw_http.request(port, "POST", "/echo", "abc", { ["content-encoding"] = "gzip" }).status)
    assert.are.equal(413, raw_http.request(port, "POST", "/echo", net.deflate("gzip", ("\0"):rep(2 ^ 26), 9),
      { ["content-encoding"] = "gzip" }).status)
  end)

  it("survives an application that raises or answers nonsense, and forged headers", function()
    start()
    for _, path in ipairs { "/raise", "/nonsense" } do
      local response = raw_http.request(port, "GET", path)
      assert.are.equal(500, response.status)
      assert.falsy(response.body:find("application error", 1, true))
    end
    server:expect "error: GET /raise: .*application error"
    local forged = raw_http.request(port, "GET", "/forge")
    assert.is_nil(forged.headers["x-evil"])
    assert.are.equal("a  x-evil: 1", forged.headers["x-name"])
    assert.are.equal(404, raw_http.request(port, "GET", "/unknown").status)
    assert.are.equal(405, raw_http.request(port, "POST", "/raise").status)
  end)

  it("limits bodies: announced, chunked, and over all connections", function()
    start "{ max_body = 1000, max_buffered = 1500 }"
    local response = raw_http.request(port, "POST", "/echo", ("x"):rep(1001))
    assert.are.equal(413, response.status)
    assert.are.equal(200, raw_http.request(port, "POST", "/echo", ("x"):rep(1000)).status)
    local connection = raw_http.connect(port)
    connection:send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n")
    assert.are.equal(413, connection:response().status)
    connection:close()
    connection = raw_http.connect(port)
    connection:send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" .. ("1f4\r\n" .. ("x"):rep(500)
      .. "\r\n"):rep(3))
    assert.are.equal(413, connection:response().status)
    connection:close()
    local first, second = raw_http.connect(port), raw_http.connect(port)
    local head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    first:send(head)
    second:send(head)
    cqueues.sleep(0.2)
    first:send(("x"):rep(900))
    cqueues.sleep(0.2)
    second:send(("x"):rep(900))
    assert.are.equal(503, second:response().status)
    first:send(("x"):rep(100))
    assert.are.equal(200, first:response().status)
    first:close()
    second:close()
    assert.are.equal(200, raw_http.request(port, "POST", "/echo", ("x"):rep(1000)).status)
  end)

  it("accepts no more than max_connections at a time", function()
    start "{ max_connections = 2 }"
    local first, second = raw_http.connect(port), raw_http.connect(port)
    cqueues.sleep(0.1)
    local third = raw_http.connect(port)
    third:send("GET /count HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.are.same({ nil, "timeout" }, { third:response(0.3) })
    first:close()
    assert.are.equal("2", third:response().body)
    second:close()
    third:close()
  end)

  it("cuts off clients that send too slowly", function()
    start "{ head_timeout = 0.5, body_timeout = 0.5, idle_timeout = 1 }"
    local silent, head, body, idle = raw_http.connect(port), raw_http.connect(port), raw_http.connect(port),
      raw_http.connect(port)
    local chunked = raw_http.connect(port)
    idle:send("GET /count HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.are.equal(200, idle:response().status)
    body:send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    chunked:send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    local text, slow_body, slow_head = "GET /count HTTP/1.1\r\nHost: a\r\nX: " .. ("y"):rep(1000), 0, 0
    for i = 1, 16 do -- a byte every 50 ms does not keep the connection
      if head:send(text:sub(i, i)) then slow_head = i end
      if body:send "x" then slow_body = i end
      chunked:send "1\r\nx\r\n"
      cqueues.sleep(0.05)
    end
    assert.truthy(slow_head > 0 and slow_body > 0)
    assert.are.same({ "", true }, { silent:rest() })
    for _, each in ipairs { head, body, chunked } do
      local response = each:response()
      assert.are.equal(408, response.status)
      assert.is_true((select(2, each:rest())))
    end
    assert.are.same({ "", true }, { idle:rest() })
    for _, each in ipairs { silent, head, body, chunked, idle } do each:close() end
  end)

  it("closes a connection whose client does not take the answer", function()
    start "{ write_timeout = 0.5 }"
    local connection = raw_http.connect(port)
    connection:send("GET /big/50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    local count = process.wait(5, function()
      local body = raw_http.request(port, "GET", "/count").body
      return body == "1" and body
    end)
    assert.are.equal("1", count)
    connection:close()
  end)

  it("drains on SIGTERM and ends with 0", function()
    start()
    local busy, idle, partial = raw_http.connect(port), raw_http.connect(port), raw_http.connect(port)
    idle:send("GET /count HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.are.equal(200, idle:response().status)
    busy:send("GET /sleep/700 HTTP/1.1\r\nHost: a\r\n\r\n")
    partial:send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
    cqueues.sleep(0.1)
    server:signal "TERM"
    cqueues.sleep(0.3)
    assert.has_error(function() raw_http.connect(port) end)
    assert.are.same({ "", true }, { idle:rest(0.5) })
    partial:send "dy"
    local finished = partial:response()
    assert.are.same({ 200, "close" }, { finished.status, finished.headers.connection })
    local response = busy:response()
    assert.are.same({ 200, "slept", "close" }, { response.status, response.body, response.headers.connection })
    assert.are.equal(0, server:code(5))
    assert.truthy(server:log():find("run returned true", 1, true))
    for _, each in ipairs { busy, idle, partial } do each:close() end
  end)

  it("ends at its drain deadline, or at the second signal, whatever clients do", function()
    for _, second in ipairs { false, true } do
      start(second and "{ drain_timeout = 60 }" or "{ drain_timeout = 0.4 }")
      local connection = raw_http.connect(port)
      connection:send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
      cqueues.sleep(0.1)
      server:signal "TERM"
      if second then
        cqueues.sleep(0.2)
        assert.is_nil(server:code())
        server:signal "INT"
      end
      assert.are.equal(0, server:code(5))
      connection:close()
      server:stop()
      server = nil
    end
  end)

  it("ends at its drain deadline even when the application does not return", function()
    start "{ drain_timeout = 0.3 }"
    local connection = raw_http.connect(port)
    connection:send("GET /sleep/60000 HTTP/1.1\r\nHost: a\r\n\r\n")
    cqueues.sleep(0.1)
    server:signal "TERM"
    assert.are.equal(0, server:code(5))
    connection:close()
  end)

  it("stops when the application says so", function()
    start()
    local response = raw_http.request(port, "POST", "/stop", "")
    assert.are.equal("stopping", response.body)
    assert.are.equal(0, server:code(5))
  end)

  it("loses no request of clients that keep sending while it drains", function()
    start()
    local connections = {}
    for i = 1, 8 do connections[i] = raw_http.connect(port) end
    local lost, closed = 0, 0
    local loop = cqueues.new()
    for _, connection in ipairs(connections) do
      loop:wrap(function()
        while true do
          if not connection:send("GET /count HTTP/1.1\r\nHost: a\r\n\r\n") then closed = closed + 1 return end
          local response = connection:response()
          if not response then lost = lost + 1 return end
          if response.headers.connection == "close" then closed = closed + 1 return end
        end
      end)
    end
    loop:wrap(function()
      cqueues.sleep(0.1)
      server:signal "TERM"
    end)
    assert(loop:loop(10))
    assert.are.same({ 0, 8 }, { lost, closed })
    assert.are.equal(0, server:code(5))
    for _, connection in ipairs(connections) do connection:close() end
  end)

  it("can be stepped by a program with its own loop", function()
    local http = require "mlserve.serve.transports.http"
    local embedded = http.new { app = { handle = function() return { status = 200, body = "embedded" } end }, port = 0 }
    assert(embedded:listen())
    local loop, response = cqueues.new(), nil
    loop:wrap(function() response = raw_http.request(embedded:port(), "GET", "/") embedded:stop() end)
    loop:wrap(function()
      local more
      repeat
        cqueues.poll(embedded, 1)
        more = embedded:step(0)
      until not more
    end)
    assert(loop:loop(5))
    assert.are.equal("embedded", response.body)
    assert.is_false(embedded:step(0))
    assert.are.equal(0, embedded:connections())
  end)

  it("leaves lua-http to others: paths, and servers of their own", function()
    local path = package.path
    local luahttp = require "mlserve.serve.transports.luahttp"
    local http_server = assert(luahttp.server())
    assert.are.equal(path, package.path)
    assert.are.equal(http_server, luahttp.server())
    local seen
    local other = assert(http_server.listen {
      host = "127.0.0.1", port = "0", tls = false,
      onstream = function(_, stream) seen = stream:get_headers():get ":path" stream:shutdown() end,
    })
    assert(other:listen())
    local _, _, other_port = other:localname()
    local loop = cqueues.new()
    loop:wrap(function()
      local connection = raw_http.connect(other_port)
      connection:send("GET /stock HTTP/1.1\r\nHost: a\r\n\r\n")
      connection:rest(1)
      connection:close()
      other:close()
    end)
    loop:wrap(function() while other.socket do cqueues.poll(other, 0.05) other:step(0) end end)
    loop:loop(5)
    assert.are.equal("/stock", seen)
  end)

  it("reports a port that is taken and misuse of its options", function()
    start()
    local http = require "mlserve.serve.transports.http"
    local ok, message = http.new({ app = { handle = print }, port = port }):listen()
    assert.is_nil(ok)
    assert.truthy(message:find("cannot listen on 127.0.0.1:" .. port, 1, true))
    assert.has_error(function() http.new { app = { handle = print }, prot = 1 } end)
    assert.has_error(function() http.new { app = { handle = print }, port = "1" } end)
    assert.has_error(function() http.new { port = 1 } end)
    local _, text = pcall(http.new, { app = { handle = print }, prot = 1 })
    assert.truthy(text:find("unknown option 'prot'; known: app, body_timeout, ", 1, true))
  end)

  it("waits without spinning when descriptors run out, and recovers", function()
    local words = { "ulimit -n 24; exec env", "LUA_PATH=" .. process.quote(package.path),
      "LUA_CPATH=" .. process.quote(package.cpath), process.lua, "spec/support/test_server.lua" }
    server = process.spawn("sh -c " .. process.quote(table.concat(words, " ")))
    port = tonumber(server:expect "port (%d+)\n")
    local function cpu_ticks()
      local user, system = process.slurp("/proc/" .. server.pid .. "/stat"):match("^%d+ %b() %a" .. (" %S+"):rep(10)
        .. " (%d+) (%d+)")
      return tonumber(user) + tonumber(system)
    end
    local connections = {}
    for i = 1, 40 do connections[i] = raw_http.connect(port) end
    cqueues.sleep(0.3)
    local before = cpu_ticks()
    cqueues.sleep(1)
    assert.truthy(cpu_ticks() - before <= 10) -- of 100 a second
    for i = 1, 40 do connections[i]:close() end
    assert.are.equal(200, raw_http.request(port, "GET", "/count").status)
  end)
end)
