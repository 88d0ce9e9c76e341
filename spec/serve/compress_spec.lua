-- The other side of each comparison: what Python's gzip and zlib modules make of a text, and the command gzip.

local app = require "mlserve.serve.app"
local cjson = require "cjson"
local compress = require "mlserve.serve.compress"
local net = require "mlserve.net"
local process = require "spec.support.process"

local function unhex(text) return (text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)) end

-- "hello" from gzip.compress(…, mtime=0), zlib.compress and zlib.compressobj(wbits=-15)
local GZIP = unhex "1f8b0800000000000203cb48cdc9c9070086a6103605000000"
local ZLIB = unhex "789ccb48cdc9c90700062c0215"
local RAW = unhex "cb48cdc9c90700"

local function command(line, input)
  local directory = process.directory()
  process.write(directory .. "/in", input)
  assert(os.execute(line .. " < " .. directory .. "/in > " .. directory .. "/out"))
  local text = process.slurp(directory .. "/out")
  os.execute("rm -rf " .. process.quote(directory))
  return text
end

describe("compressed bodies", function()
  local limits = compress.limits()

  it("are read as gzip, deflate with and without zlib's header", function()
    assert.are.equal("hello", compress.decode("gzip", GZIP, limits))
    assert.are.equal("hello", compress.decode(" X-GZip ", GZIP, limits))
    assert.are.equal("hello", compress.decode("deflate", ZLIB, limits))
    assert.are.equal("hello", compress.decode("deflate", RAW, limits))
    assert.are.equal("hellohello", compress.decode("gzip", GZIP .. GZIP, limits))
    assert.are.equal(GZIP, compress.decode("identity", GZIP, limits))
    assert.are.equal("", compress.decode("gzip", "", limits))
    local text = {}
    for i = 1, 50000 do text[i] = tostring(i * 7919 % 10007) end
    text = table.concat(text, ",")
    assert.are.equal(text, compress.decode("gzip", command("gzip -9", text), limits))
  end)

  it("are refused when broken, cut short, followed by something, or in another coding", function()
    for _, case in ipairs {
      { "gzip", "hello", 400 }, { "gzip", GZIP:sub(1, -2), 400 }, { "gzip", GZIP:sub(1, 5), 400 }, { "gzip", GZIP .. "x", 400 },
      { "gzip", GZIP:sub(1, 15) .. "\0" .. GZIP:sub(17), 400 }, { "gzip", ZLIB, 400 }, { "deflate", "\255\255\255", 400 },
      { "deflate", ZLIB .. ZLIB:sub(1, 3), 400 }, { "br", "x", 415 }, { "gzip, gzip", GZIP, 415 }, { "zstd", "x", 415 },
    } do
      local body, status, message = compress.decode(case[1], case[2], limits)
      assert.is_nil(body, case[1])
      assert.are.equal(case[3], status, case[1])
      assert.truthy(message:find(case[1], 1, true))
    end
  end)

  it("cannot grow beyond their bounds", function()
    local bomb = net.deflate("gzip", ("\0"):rep(40 * 1024 * 1024), 9)
    assert.is_true(#bomb < 50000)
    local function status_of(given)
      local body, status = compress.decode("gzip", bomb, compress.limits(given))
      return body and #body or status
    end
    assert.are.equal(413, status_of {})
    assert.are.equal(413, status_of { max_ratio = 0 })
    assert.are.equal(413, status_of { max_inflated = 0 })
    assert.are.equal(413, status_of { max_inflated = 40 * 1024 * 1024 - 1, max_ratio = 0 })
    assert.are.equal(40 * 1024 * 1024, status_of { max_inflated = 40 * 1024 * 1024, max_ratio = 0 })
    assert.are.equal(40 * 1024 * 1024, status_of { max_inflated = 0, max_ratio = 2000 })
    local small = net.deflate("gzip", ("\0"):rep(1000000), 9) -- a thousand times its size, but small all the same
    assert.are.equal(1000000, #compress.decode("gzip", small, limits))
    local live = collectgarbage "count"
    for _ = 1, 20 do compress.decode("gzip", bomb, limits) end
    collectgarbage()
    assert.is_true(collectgarbage "count" - live < 1024)
  end)

  it("are written so that gzip reads them", function()
    local text = ("a line of text\n"):rep(5000)
    for level = 1, 9 do assert.are.equal(text, command("gzip -dc", net.deflate("gzip", text, level))) end
    assert.are.equal(text, compress.decode("deflate", net.deflate("deflate", text, 1), limits))
    assert.are.equal("", command("gzip -dc", net.deflate("gzip", "", 1)))
    assert.has_error(function() net.deflate("br", "x", 1) end)
    assert.are.same({ "level 10: 1 to 9 expected", "INVALID_ARGUMENT" }, { select(2, net.deflate("gzip", "x", 10)) })
  end)

  it("follow Accept-Encoding's weights", function()
    for field, expected in pairs {
      ["gzip"] = "gzip", ["GZIP"] = "gzip", ["deflate"] = "deflate", ["gzip, deflate"] = "gzip", ["deflate, gzip;q=1.0, *;q=0.5"] = "gzip",
      ["deflate;q=1, gzip;q=0.5"] = "deflate", ["*"] = "gzip", ["gzip;q=0"] = false, ["gzip;q=0, *"] = "deflate", ["br"] = false,
      ["identity"] = false, ["identity;q=1, gzip;q=0.5"] = false, [""] = false, ["gzip;q=0.000"] = false, ["gzip;q=x"] = false,
      ["x-gzip"] = "gzip", ["gzip , br"] = "gzip", ["*;q=0"] = false, ["gzip; q = 0.3"] = "gzip", [",,"] = false,
    } do
      assert.are.equal(expected, compress.accepts(field), field)
    end
    for i = 1, 200 do assert.are.equal("gzip", compress.accepts("gzip;q=0." .. i)) end
  end)

  it("have bounds that are checked", function()
    assert.has_error(function() compress.limits { max_size = 1 } end,
      "compression: unknown option 'max_size'; known: level, max_inflated, max_ratio, max_response, min_response")
    assert.has_error(function() compress.limits { level = 0 } end)
    assert.has_error(function() compress.limits { max_ratio = "1" } end)
    assert.are.equal(10, app.new({ compression = { min_response = 10 } }).compression.min_response)
  end)

  describe("in the application", function()
    local served, HEADERS = nil, { ["content-type"] = "text/plain", vary = "Origin" }

    before_each(function()
      served = app.new { compression = { min_response = 100, max_response = 100000 } }
      served:route("POST", "^/echo$", function(request)
        return { status = 200, headers = HEADERS, body = request.body .. "|" .. tostring(request.headers["content-encoding"]) }
      end)
      served:route("GET", "^/size/(%d+)$", function(_, size) return { status = 200, body = ("x"):rep(tonumber(size)) } end)
    end)

    local function call(method, path, body, headers)
      return served:handle { method = method, path = path, headers = headers or {}, body = body or "" }
    end

    it("reach handlers in plain form", function()
      assert.are.equal("hello|identity", call("POST", "/echo", GZIP, { ["content-encoding"] = "gzip" }).body)
      assert.are.equal("hello|nil", call("POST", "/echo", "hello").body)
    end)

    it("are refused with an error of the protocols' form", function()
      local response = call("POST", "/echo", "hello", { ["content-encoding"] = "gzip" })
      assert.are.same({ 400, "application/json" }, { response.status, response.headers["content-type"] })
      assert.truthy(cjson.decode(response.body).error:find("^Content%-Encoding gzip: the compressed body is broken"))
      assert.are.equal(415, call("POST", "/echo", "hello", { ["content-encoding"] = "br" }).status)
      assert.are.equal(404, call("POST", "/other", "hello", { ["content-encoding"] = "br" }).status)
    end)

    it("are answered when asked for, not for tiny or huge ones, and without changing the handler's fields", function()
      local accept = { ["accept-encoding"] = "gzip" }
      local response = call("GET", "/size/100", "", accept)
      assert.are.same({ "gzip", "Accept-Encoding" }, { response.headers["content-encoding"], response.headers.vary })
      assert.are.equal(("x"):rep(100), command("gzip -dc", response.body))
      for _, path in ipairs { "/size/99", "/size/0", "/size/100001" } do
        response = call("GET", path, "", accept)
        assert.is_nil(response.headers)
        assert.are.equal(path:match("%d+"), tostring(#response.body))
      end
      assert.is_nil(call("GET", "/size/1000").headers)
      local random = {}
      for i = 1, 200 do random[i] = string.char((i * i * 31 + i * 17) % 251) end
      response = call("POST", "/echo", table.concat(random), accept) -- what does not shrink is left alone
      assert.are.equal(HEADERS, response.headers)
      response = call("POST", "/echo", ("y"):rep(1000), accept)
      assert.are.equal("Origin, Accept-Encoding", response.headers.vary)
      assert.are.same({ ["content-type"] = "text/plain", vary = "Origin" }, HEADERS)
      assert.are.equal(response.headers, call("POST", "/echo", ("y"):rep(1000), accept).headers)
    end)
  end)
end)
