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
