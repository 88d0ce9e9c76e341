local net = require "mlserve.net"

local function request(...) return table.concat({ ... }, "\r\n") .. "\r\n\r\n" end

-- everything the parser says, as one table
local function head(bytes, init)
  local method, path, query, headers, length, keep, expect, after, minor = net.http1_parser():head(bytes, init)
  if method == nil then return nil end
  if method == false then return { status = path, message = query } end
  return { method = method, path = path, query = query, headers = headers, length = length, keep = keep, expect = expect,
    after = after, minor = minor }
end

describe("mlserve.net request heads", function()
  it("gives method, path, query and lower-cased headers in one call", function()
    local bytes = request("POST /v1/models/m:predict?a=1&b=%20 HTTP/1.1", "Host: example.org:8501",
      "Content-Type:application/json",
      "X-Blank: \t two words \t", "X-Empty:", "Content-Length: 12")
    local got = head(bytes .. "body")
    assert.are.equal("POST", got.method)
    assert.are.equal("/v1/models/m:predict", got.path)
    assert.are.equal("a=1&b=%20", got.query)
    assert.are.same({ host = "example.org:8501", ["content-type"] = "application/json", ["x-blank"] = "two words",
      ["x-empty"] = "", ["content-length"] = "12" }, got.headers)
    assert.are.equal(12, got.length)
    assert.is_true(got.keep)
    assert.is_false(got.expect)
    assert.are.equal(#bytes + 1, got.after)
    assert.are.equal(1, got.minor)
  end)

  it("starts at any place of the buffer", function()
    local bytes = request("GET /a HTTP/1.1", "Host: a")
    local got = head(bytes .. bytes, #bytes + 1)
    assert.are.equal("/a", got.path)
    assert.are.equal(2 * #bytes + 1, got.after)
    assert.has_error(function() net.http1_parser():head(bytes, #bytes + 2) end)
    assert.has_error(function() net.http1_parser():head(bytes, 0) end)
  end)

  it("joins repeated fields", function()
    local got = head(request("GET / HTTP/1.1", "Host: a", "X-A: 1", "Cookie: a=1", "x-a: 2", "cookie: b=2", "X-a: 3"))
    assert.are.equal("1, 2, 3", got.headers["x-a"])
    assert.are.equal("a=1; b=2", got.headers.cookie)
  end)

  it("understands the forms of a target", function()
    for target, expected in pairs {
      ["/"] = { "/", nil }, ["/?"] = { "/", "" }, ["/a/../b//c"] = { "/a/../b//c", nil }, ["/%00"] = { "/%00", nil },
      ["http://h/a?b"] = { "/a", "b" }, ["HTTPS://h:1/a"] = { "/a", nil }, ["http://h"] = { "/", nil }, ["http://h?x"] = { "/",
        "x" },
      ["http://[::1]:80/a"] = { "/a", nil },
    } do
      local got = head(request("GET " .. target .. " HTTP/1.1", "Host: a"))
      assert.are.same(expected, { got.path, got.query }, target)
    end
    assert.are.equal("*", head(request("OPTIONS * HTTP/1.1", "Host: a")).path)
  end)

  it("decides about keep-alive", function()
    for _, case in ipairs {
      { "HTTP/1.1", nil, true }, { "HTTP/1.1", "close", false }, { "HTTP/1.1", "x, Close", false }, { "HTTP/1.1", "keep-alive",
        true },
      { "HTTP/1.0", nil, false }, { "HTTP/1.0", "Keep-Alive", true }, { "HTTP/1.0", "keep-alive, close", false },
      { "HTTP/1.1", "closed", true }, { "HTTP/1.1", " , ,close", false },
    } do
      local got = head(request("GET / " .. case[1], "Host: a", "Connection: " .. (case[2] or "")))
      assert.are.equal(case[3], got.keep, case[1] .. " " .. tostring(case[2]))
    end
  end)

  it("knows chunked bodies and 100-continue", function()
    local got = head(request("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: Chunked", "Expect: 100-Continue"))
    assert.are.equal(-1, got.length)
    assert.is_true(got.expect)
    assert.is_false(head(request("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1")).expect)
  end)

  it("gives the same result however the bytes are cut", function()
    local bytes = request("POST /x?y HTTP/1.1", "Host: a", "X-Long: " .. ("v"):rep(300), "Content-Length: 3")
    local parser = net.http1_parser()
    for i = 1, #bytes - 1 do assert.is_nil((parser:head(bytes:sub(1, i)))) end
    local method, path = parser:head(bytes)
    assert.are.same({ "POST", "/x" }, { method, path })
    assert.are.equal("GET", (parser:head(request("GET / HTTP/1.1", "Host: a")))) -- ready for the next one
  end)

  it("refuses what is not strictly HTTP", function()
    local ok = "Host: a"
    local cases = {
      { 400, "GET / HTTP/1.1\nHost: a\n\n" }, { 400, "GET / HTTP/1.1\r\nHost: a\n\r\n" }, { 400, "GET / HTTP/1.1\r\n\r\n" },
      { 400, request("GET  / HTTP/1.1", ok) }, { 400, request("GET / HTTP/1.1 ", ok) }, { 400, request(" GET / HTTP/1.1", ok) },
      { 400, request("GET /", ok) }, { 400, request("GET", ok) }, { 400, request("G(T / HTTP/1.1", ok) },
      { 400, request("GET /a b HTTP/1.1", ok) }, { 400, request("GET /a\1 HTTP/1.1", ok) }, { 400, request("GET /\200 HTTP/1.1",
        ok) },
      { 400, request("GET /a#b HTTP/1.1", ok) }, { 400, request("GET a HTTP/1.1", ok) }, { 400, request("GET * HTTP/1.1", ok) },
      { 400, request("GET ftp://a/ HTTP/1.1", ok) }, { 400, request("GET http:///a HTTP/1.1", ok) },
      { 400, request("GET http://u@h/a HTTP/1.1", ok) }, { 400, request("GET / HTTP/1.10", ok) }, { 400,
        request("GET / http/1.1", ok) },
      { 400, request("GET / HTTP/1", ok) }, { 400, request("GET / XTTP/1.1", ok) },
      { 505, request("GET / HTTP/2.0", ok) }, { 505, request("GET / HTTP/1.2", ok) }, { 505, request("GET / HTTP/0.9", ok) },
      { 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" }, { 501, request("CONNECT a:1 HTTP/1.1", ok) },
      { 501, request(("M"):rep(33) .. " / HTTP/1.1", ok) },
      { 400, request("GET / HTTP/1.1", "Host: a", "Host: a") }, { 400, request("GET / HTTP/1.0", "Host: a", "Host: b") },
      { 400, request("GET / HTTP/1.1", "Host: a, b") }, { 400, request("GET / HTTP/1.1", "Host: a b") },
      { 400, request("GET / HTTP/1.1", "Host: a/b") }, { 400, request("GET / HTTP/1.1", "Host : a") },
      { 400, request("GET / HTTP/1.1", " Host: a") }, { 400, request("GET / HTTP/1.1", ok, "X: 1", " folded") },
      { 400, request("GET / HTTP/1.1", ok, "X: 1", "\tfolded") }, { 400, request("GET / HTTP/1.1", ok, ": 1") },
      { 400, request("GET / HTTP/1.1", ok, "X") }, { 400, request("GET / HTTP/1.1", ok, "X Y: 1") },
      { 400, request("GET / HTTP/1.1", ok, "X\200: 1") }, { 400, request("GET / HTTP/1.1", ok, "X: a\0b") },
      { 400, request("GET / HTTP/1.1", ok, "X: a\rb") }, { 400, request("GET / HTTP/1.1", ok, "X: a\127") },
      { 400, "\r\n\r\n" .. request("GET / HTTP/1.1", ok) },
    }
    for i, case in ipairs(cases) do
      local got = head(case[2]) or {}
      assert.are.equal(case[1], got.status, "case " .. i .. ": " .. case[2])
      assert.are.equal("string", type(got.message))
    end
  end)

  it("refuses every doubtful framing of a body", function()
    for fields, status in pairs {
      ["Content-Length: -1"] = 400, ["Content-Length: +1"] = 400, ["Content-Length: 1.0"] = 400, ["Content-Length: 0x1"] = 400,
      ["Content-Length:"] = 400, ["Content-Length: 1 1"] = 400, ["Content-Length: 1,1"] = 400,
        ["Content-Length: 1\r\nContent-Length: 1"] = 400,
      ["Content-Length: 1\r\ncontent-length: 2"] = 400, ["Content-Length: 9223372036854775808"] = 413,
      ["Content-Length: 99999999999999999999999"] = 413, ["Transfer-Encoding: chunked\r\nContent-Length: 1"] = 400,
      ["Content-Length: 1\r\nTransfer-Encoding: chunked"] = 400,
        ["Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"] = 400,
      ["Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"] = 400, ["Transfer-Encoding: chunked, chunked"] = 400,
      ["Transfer-Encoding: gzip, chunked"] = 400, ["Transfer-Encoding: ,;="] = 400, ["Transfer-Encoding:"] = 400,
      ["Transfer-Encoding: \"chunked\""] = 400, ["Transfer-Encoding: chunked;q=1"] = 400, ["Transfer-Encoding: foo"] = 501,
      ["Transfer-Encoding: identity"] = 501, ["Transfer-Encoding: gzip"] = 501, ["Transfer-Encoding: xchunked"] = 501,
      ["Transfer-Encoding: \11chunked"] = 400, ["Transfer-Encoding : chunked"] = 400, ["Transfer-Encoding\t: chunked"] = 400,
    } do
      local got = head(request("POST / HTTP/1.1", "Host: a", fields)) or {}
      assert.are.equal(status, got.status, fields)
    end
    assert.are.equal(400, head(request("POST / HTTP/1.0", "Transfer-Encoding: chunked")).status)
    assert.are.equal(7, head(request("POST / HTTP/1.1", "Host: a", "Content-Length: 0000000000000000000000007")).length)
  end)

  it("keeps its limits", function()
    local line = "GET /%s HTTP/1.1"
    local longest = 8192 - #line:format("")
    assert.are.equal(longest + 1, #head(request(line:format(("a"):rep(longest)), "Host: a")).path)
    assert.are.equal(414, head(request(line:format(("a"):rep(longest + 1)), "Host: a")).status)
    assert.are.equal(414, head(("a"):rep(8194)).status)
    assert.is_nil(head(("a"):rep(8193)))
    local fields = {}
    for i = 1, 99 do fields[i] = "X-" .. i .. ": 1" end
    assert.are.equal("/", head(request("GET / HTTP/1.1", "Host: a", table.concat(fields, "\r\n"))).path)
    fields[100] = "X-100: 1"
    assert.are.equal(431, head(request("GET / HTTP/1.1", "Host: a", table.concat(fields, "\r\n"))).status)
    local frame = #request("GET / HTTP/1.1", "Host: a", "X: ")
    assert.are.equal("/", head(request("GET / HTTP/1.1", "Host: a", "X: " .. ("a"):rep(32768 - frame))).path)
    assert.are.equal(431, head(request("GET / HTTP/1.1", "Host: a", "X: " .. ("a"):rep(32769 - frame))).status)
    assert.are.equal(431, head("GET / HTTP/1.1\r\nX: " .. ("a"):rep(40000)).status)
    assert.are.equal(431, head(request("GET / HTTP/1.1", "Host: a", ("n"):rep(257) .. ": 1")).status)
  end)
end)

describe("mlserve.net chunked bodies", function()
  local function decode(bytes, limit, step)
    local body, out, at = net.http1_chunked(limit or 1000), {}, 1
    step = step or #bytes
    while at <= #bytes do
      local text = bytes:sub(at, at + step - 1)
      local piece, after, done = body:feed(text)
      if not piece then return nil, after, done end
      out[#out + 1] = piece
      if done then return table.concat(out), bytes:sub(at + after - 1) end
      at = at + step
    end
    return "unfinished"
  end

  it("joins the chunks and says where the body ends", function()
    local bytes = "5\r\nhello\r\n0006;name=\"value\"\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\nGET"
    for step = 1, #bytes do
      local body, rest = decode(bytes, 11, step)
      assert.are.equal("hello world", body)
      assert.are.equal("GET", rest)
    end
    assert.are.same({ "", "" }, { decode "0\r\n\r\n" })
    assert.are.equal(("x"):rep(26), (decode("1A\r\n" .. ("x"):rep(26) .. "\r\n0\r\n\r\n")))
    assert.are.equal("unfinished", (decode "5\r\nhel"))
  end)

  it("refuses bad framing", function()
    for _, bytes in ipairs {
      "-5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello", " 5\r\nhello", "0x5\r\nhello", "\r\n", "g\r\n", "5\nhello", "5\rhello",
        "5;a\nhello",
      "5;\1\r\nhello", "5\r\nhello0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0", "0\r\n\n", "0\r\nX\r\n\r\n",
        "0\r\n: x\r\n\r\n",
      "0\r\nX : x\r\n\r\n", "0\r\n x: y\r\n\r\n", "0\r\nx: \0\r\n\r\n", "0\r\nx: y\n", "00000000000000005\r\nhello",
        "fffffffffffffffff\r\n",
      "5;" .. ("x"):rep(16385) .. "\r\n",
    } do
      local body, status = decode(bytes)
      assert.is_nil(body, bytes)
      assert.are.equal(400, status, bytes)
    end
    assert.are.equal(431, select(2, decode("0\r\nx: " .. ("y"):rep(8192))))
  end)

  it("stops at the limit before the bytes are there", function()
    assert.are.same({ nil, 413 }, { (decode("b\r\n", 10)), (select(2, decode("b\r\n", 10))) })
    assert.are.equal(413, select(2, decode("8\r\n12345678\r\n3\r\n", 10)))
    assert.are.equal(413, select(2, decode("ffffffffffffffff\r\n", 10)))
    assert.are.equal("0123456789", (decode("8\r\n01234567\r\n2\r\n89\r\n0\r\n\r\n", 10)))
  end)

  it("takes a million chunks of one byte in linear time", function()
    local bytes = ("1\r\nx\r\n"):rep(1000000) .. "0\r\n\r\n"
    local body = decode(bytes, 1000000, 65536)
    assert.are.equal(1000000, #body)
  end)
end)

describe("mlserve.net processes", function()
  it("refuses to signal anything but one process", function()
    assert.has_error(function() net.kill(0, 15) end)
    assert.has_error(function() net.kill(-1, 15) end)
    assert.has_error(function() net.kill(1.5, 0) end)
    assert.is_true(net.kill(net.getpid(), 0))
    local ok, message, code = net.kill(2147483647, 0)
    assert.is_nil(ok)
    assert.are.equal("NOT_FOUND", code)
    assert.truthy(message:find("2147483647", 1, true))
  end)

  it("catches signals until told not to", function()
    local signals = assert(net.catch_signals(10, 12))
    assert.is_nil((net.catch_signals(10)))
    assert.are.equal("FAILED_PRECONDITION", select(3, net.catch_signals(10)))
    assert.is_nil(signals:take())
    net.kill(net.getpid(), 12)
    net.kill(net.getpid(), 10)
    assert.are.same({ 12, 10 }, { signals:take(), signals:take() })
    assert.is_nil(signals:take())
    assert.are.equal("number", type(signals:pollfd()))
    signals:close()
    signals:close()
    assert.is_nil(signals:pollfd())
    assert.is_nil(signals:take())
    assert.are.equal("INVALID_ARGUMENT", select(3, net.catch_signals(9))) -- nobody can catch this one
    assert.has_error(function() net.catch_signals() end)
    net.catch_signals(10):close()
  end)

  it("forks and reaps", function()
    local process = require "spec.support.process"
    local file = os.tmpname()
    process.write(file, [[
      local net = require "mlserve.net"
      local first = assert(net.fork())
      if first == 0 then os.exit(7) end
      local second = assert(net.fork())
      if second == 0 then while true do end end
      print("parent " .. net.getpid())
      local seen = {}
      local pid, how, code
      repeat pid, how, code = net.reap(first) until pid
      print(pid == first, how, code)
      print(tostring(net.reap(second)))
      assert(net.kill(second, 9))
      repeat pid, how, code = net.reap() until pid
      print(pid == second, how, code)
      print(select(3, net.reap()))
      print "end"
    ]])
    local child = process.spawn_lua(file)
    child:expect "end\n"
    assert.are.same({ "true\texit\t7", "false", "true\tsignal\t9", "NOT_FOUND", "end" },
      { child:log():match("^parent %d+\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n$") })
    assert.are.equal(0, child:stop())
    os.remove(file)
  end)
end)
