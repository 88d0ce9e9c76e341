local app = require "mlserve.serve.app"
local json = require "mlserve.serve.json"

describe("the application", function()
  local function request(method, path) return { method = method, path = path, headers = {}, body = "" } end

  it("calls the first route that matches, with the captures", function()
    local it_ = app.new()
    it_:route("GET", "^/a/(%d+)$", function(_, digits) return { status = 200, body = "digits " .. digits } end)
    it_:route("GET", "^/a/(.*)$", function(_, rest) return { status = 200, body = "rest " .. rest } end)
    it_:mount { { method = "*", pattern = "^/b", handler = function(each) return { status = 200, body = each.method } end } }
    assert.are.equal("digits 12", it_:handle(request("GET", "/a/12")).body)
    assert.are.equal("rest x", it_:handle(request("GET", "/a/x")).body)
    assert.are.equal("PATCH", it_:handle(request("PATCH", "/bcd")).body)
  end)

  it("answers 404 and 405", function()
    local it_ = app.new()
    it_:route("GET", "^/a$", function() return { status = 200 } end)
    assert.are.equal(404, it_:handle(request("GET", "/")).status)
    local response = it_:handle(request("POST", "/a"))
    assert.are.same({ 405, "GET" }, { response.status, response.headers.allow })
    assert.has_error(function() it_:route("GET", "^/a$") end)
  end)

  it("finds exact paths before patterns", function()
    local it_ = app.new()
    it_:route("*", "^/p%.S/", function() return { status = 200, body = "pattern" } end)
    it_:mount {
      { method = "POST", path = "/p.S/M", handler = function(each) return { status = 200, body = each.path } end },
      { method = "POST", path = "/p.S/W", handler = function() return { status = 200, trailers = {} } end, stream = true },
      { method = "GET", path = "/only", handler = function() return { status = 200 } end },
      { method = "PUT", path = "/only", handler = function() return { status = 201 } end },
      { method = "*", path = "/any", handler = function(each) return { status = 200, body = each.method } end },
    }
    assert.are.equal("/p.S/M", it_:handle(request("POST", "/p.S/M")).body)
    assert.are.equal("pattern", it_:handle(request("GET", "/p.S/M")).body)
    assert.are.equal("pattern", it_:handle(request("POST", "/p.S/m")).body)
    assert.are.equal("DELETE", it_:handle(request("DELETE", "/any")).body)
    local response = it_:handle(request("POST", "/only"))
    assert.are.same({ 405, "GET, PUT" }, { response.status, response.headers.allow })
    assert.are.same({ true, false, false, false }, { it_:streaming("POST", "/p.S/W"), it_:streaming("POST", "/p.S/M"),
      it_:streaming("GET", "/p.S/W"), it_:streaming("POST", "/nowhere") })
    assert.has_error(function() it_:mount { { method = "POST", path = "/x" } } end)
  end)

  it("asks the fallbacks before it answers 404 or 405", function()
    local it_ = app.new()
    it_:route("GET", "^/a$", function() return { status = 200 } end)
    it_:fallback(function(each) return each.headers.mine and { status = 299 } or nil end)
    assert.are.equal(404, it_:handle(request("GET", "/")).status)
    assert.are.equal(405, it_:handle(request("PUT", "/a")).status)
    for _, path in ipairs { "/", "/a" } do
      assert.are.equal(299, it_:handle({ method = "PUT", path = path, headers = { mine = "yes" }, body = "" }).status)
    end
    assert.are.equal(200, it_:handle({ method = "GET", path = "/a", headers = { mine = "yes" }, body = "" }).status)
    assert.has_error(function() it_:fallback(1) end)
  end)

  it("leaves bodies with trailers as they are", function()
    local it_ = app.new { compression = { min_response = 1 } }
    local long = ("x"):rep(10000)
    it_:exact("GET", "/plain", function() return { status = 200, body = long } end)
    it_:exact("GET", "/trailers", function() return { status = 200, body = long, trailers = { ["x-y"] = "z" } } end)
    local function size(path) return #it_:handle({ method = "GET", path = path, headers = { ["accept-encoding"] = "gzip" }, body = "" }).body end
    assert.is_true(size "/plain" < 1000)
    assert.are.equal(10000, size "/trailers")
  end)

  it("percent-decodes", function()
    for text, expected in pairs {
      ["a"] = "a", ["a%20b"] = "a b", ["%C3%a9"] = "\195\169", ["%"] = "%", ["%4"] = "%4", ["%zz"] = "%zz", ["%2541"] = "%41",
      ["a+b"] = "a+b", ["%00"] = "\0",
    } do
      assert.are.equal(expected, app.percent_decode(text))
    end
  end)
end)

describe("JSON strings", function()
  it("are valid JSON and valid UTF-8 whatever goes in", function()
    local cjson = require "cjson"
    for i = 0, 300 do
      local text = i <= 255 and string.char(i) or ("\195\169\240\159\152\128 \"\\/" .. i)
      local quoted = json.string(text)
      local back = cjson.decode("[" .. quoted .. "]")[1]
      if i < 128 or i > 255 then assert.are.equal(text, back) else assert.are.equal("\239\191\189", back) end
    end
    -- overlong, surrogate, above U+10FFFF, cut short: one U+FFFD per byte
    assert.are.equal('"' .. ("\239\191\189"):rep(2) .. '"', json.string("\192\128"))
    assert.are.equal('"' .. ("\239\191\189"):rep(3) .. '"', json.string("\237\160\128"))
    assert.are.equal('"' .. ("\239\191\189"):rep(4) .. '"', json.string("\244\144\128\128"))
    assert.are.equal('"a' .. ("\239\191\189"):rep(2) .. '"', json.string("a\226\130"))
  end)
end)
