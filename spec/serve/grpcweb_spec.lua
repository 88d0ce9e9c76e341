-- gRPC-Web: frames, base64, CORS. Expected bodies are written out from the protocol's description.

local app = require "mlserve.serve.app"
local core = require "mlserve.core"
local grpc = require "mlserve.serve.protocols.grpc"
local grpc_call = require "spec.support.grpc_call"
local grpc_services = require "mlserve.serve.protocols.grpc_services"
local grpcweb = require "mlserve.serve.protocols.grpcweb"
local net = require "mlserve.net"
local repository = require "mlserve.serve.repository"

local SAY, COUNT = "/test.Echo/Say", "/test.Echo/Count"
local OK = "\128\0\0\0\16grpc-status: 0\r\n"

local function new(cors)
  local function say(message, request)
    if message == "no" then return nil, "not\nthat", "NOT_FOUND" end
    if message == "more" then request.reply_headers, request.reply_trailers = { mine = "1" }, { ["late-bin"] = "\0\1" } end
    return message
  end
  local function count(stream)
    local message, text, code = stream:receive()
    if not message then return nil, text or "nothing", code or "INTERNAL" end
    for c in message:gmatch "." do
      local ok
      ok, text, code = stream:send(c)
      if not ok then return nil, text, code end
    end
    return true
  end
  local options = { cors = cors }
  return app.new():mount(grpcweb.wrap({
    { method = "POST", path = SAY, handler = grpc.unary(say) }, { method = "POST", path = COUNT, handler = grpc.streaming(count), stream = true },
  }, options)):fallback(grpcweb.fallback(grpc.fallback { ["test.Echo"] = true }, options))
end

local function post(it_, body, headers, path, stream)
  local all = { ["content-type"] = "application/grpc-web+proto", ["x-grpc-web"] = "1" }
  for name, value in pairs(headers or {}) do all[name] = value or nil end
  return it_:handle { method = "POST", path = path or SAY, headers = all, body = not stream and body or nil, stream = stream, http = "1.1" }
end

local TEXT = { ["content-type"] = "application/grpc-web-text" }

describe("gRPC-Web", function()
  local it_ = new()

  it("has the trailers in the body", function()
    local response = post(it_, "\0\0\0\0\3abc")
    assert.are.equal(200, response.status)
    assert.are.equal("\0\0\0\0\3abc" .. OK, response.body)
    assert.are.same({ ["content-type"] = "application/grpc-web+proto" }, response.headers)
    assert.is_nil(response.trailers)
    response = post(it_, "\0\0\0\0\2no")
    assert.are.equal("\128\0\0\0\42grpc-status: 5\r\ngrpc-message: not%0Athat\r\n", response.body)
    assert.are.equal(404, response.outcome)
    response = post(it_, "\0\0\0\0\4more")
    assert.are.equal("\0\0\0\0\4more\128\0\0\0\31grpc-status: 0\r\nlate-bin: AAE\r\n", response.body)
    assert.are.equal("1", response.headers.mine)
    assert.are.equal("\128\0\0\0", post(it_, "\0\0\0").body:sub(1, 4)) -- broken
    assert.truthy(post(it_, "", nil, "/test.Echo/Shout").body:find("^\128%z%z%z.grpc%-status: 12\r\n"))
    assert.are.equal(415, post(it_, "", { ["content-type"] = "application/grpc-web+thrift" }).status)
    assert.are.equal(404, post(it_, "", { ["content-type"] = "text/plain" }, "/test.Echo/Shout").status)
  end)

  it("leaves gRPC as it is", function()
    local response = post(it_, "\0\0\0\0\3abc", { ["content-type"] = "application/grpc" })
    assert.are.same({ "\0\0\0\0\3abc", "0", "application/grpc" }, { response.body, response.trailers["grpc-status"], response.headers["content-type"] })
  end)

  it("is text for who wants text", function()
    local expected = core.base64_encode("\0\0\0\0\3abc" .. OK)
    for _, name in ipairs { "application/grpc-web-text", "application/grpc-web-text+proto", "Application/grpc-web-text; charset=utf-8" } do
      local response = post(it_, "AAAAAANhYmM=", { ["content-type"] = name })
      assert.are.equal(expected, response.body)
      assert.are.equal("application/grpc-web-text+proto", response.headers["content-type"])
    end
    assert.are.equal(expected, post(it_, "\0\0\0\0\3abc", { accept = "application/grpc-web-text" }).body)
    assert.are.equal("\0\0\0\0\3abc" .. OK, post(it_, "AAAAAANhYmM=", { ["content-type"] = TEXT["content-type"], accept = "application/grpc-web+proto" }).body)
    -- chunks with padding of their own, white space, no padding at the end
    for _, text in ipairs { "AA==AAAAA2FiYw==", "AA==AA==AA==AA==Aw==YQ==Yg==Yw==", "AAAA\r\nAANh\nYmM=", "AAAAAANhYmM" } do
      assert.are.equal(expected, post(it_, text, TEXT).body, text)
    end
    for _, text in ipairs { "AAAA!ANhYmM=", "=AAA", "A", "AAAAAANhYm=M=" } do
      assert.truthy(core.base64_decode(post(it_, text, TEXT).body):find("^\128%z%z%z.grpc%-status: 13\r\n"), text)
    end
  end)

  it("takes compressed bodies as a whole", function()
    local message = ("abc"):rep(5000)
    local body = grpc.frame(message)
    local response = post(it_, net.deflate("gzip", body, 6), { ["content-encoding"] = "gzip", ["accept-encoding"] = "gzip" })
    assert.are.equal("gzip", response.headers["content-encoding"])
    assert.are.equal(body .. OK, net.inflate("gzip", response.body, 0, 0))
  end)

  describe("streams", function()
    local function stream_of(pieces, headers)
      local stream = grpc_call.stream(pieces)
      return stream, post(it_, nil, headers, COUNT, stream)
    end

    it("end with the trailers", function()
      local stream, response = stream_of { "\0\0\0", "\0\3a", "bc" }
      assert.are.same({ "\0\0\0\0\1a", "\0\0\0\0\1b", "\0\0\0\0\1c", OK }, stream.written)
      assert.are.equal("application/grpc-web+proto", stream.sent_headers["content-type"])
      assert.is_nil(response.trailers)
      assert.is_nil(response.body)
      stream = stream_of { "end" }
      assert.are.same({ "\128\0\0\0\40grpc-status: 13\r\ngrpc-message: nothing\r\n" }, stream.written)
      assert.are.equal("application/grpc-web+proto", stream.sent_headers["content-type"])
      stream = stream_of { "cancelled" }
      assert.are.equal(1, #stream.written)
    end)

    it("are base64 chunk by chunk", function()
      local text = "AAAAAANhYmM="
      for size = 1, #text do
        local pieces = {}
        for at = 1, #text, size do pieces[#pieces + 1] = text:sub(at, at + size - 1) end
        local stream = stream_of(pieces, TEXT)
        assert.are.equal("application/grpc-web-text+proto", stream.sent_headers["content-type"])
        assert.are.equal("\0\0\0\0\1a\0\0\0\0\1b\0\0\0\0\1c" .. OK, grpcweb.decode_text(table.concat(stream.written)))
        assert.are.equal(core.base64_encode "\0\0\0\0\1a", stream.written[1])
      end
      local stream = stream_of({ "AA==", "AAAAA2FiYw==" }, TEXT)
      assert.are.equal(4, #stream.written)
      stream = stream_of({ "AAAAAANhYmM" }, TEXT)
      assert.are.equal(4, #stream.written)
      stream = stream_of({ "AAA!AANhYmM=" }, TEXT)
      assert.truthy(grpcweb.decode_text(stream.written[1]):find("grpc-status: 13", 1, true))
    end)

    it("are collected where the transport has none", function()
      assert.are.equal("\0\0\0\0\1a\0\0\0\0\1b" .. OK, post(it_, "\0\0\0\0\2ab", nil, COUNT).body)
    end)
  end)
end)

describe("gRPC-Web and other origins", function()
  local function preflight(it_, origin, wanted)
    return it_:handle { method = "OPTIONS", path = SAY, body = "", headers = {
      origin = origin, ["access-control-request-method"] = "POST", ["access-control-request-headers"] = wanted,
    } }
  end

  it("are refused unless they were allowed", function()
    local it_ = new()
    assert.are.equal(405, preflight(it_, "https://a.example", "content-type").status)
    assert.is_nil(post(it_, "\0\0\0\0\0", { origin = "https://a.example" }).headers["access-control-allow-origin"])
  end)

  it("may all be allowed", function()
    local it_ = new(true)
    local response = preflight(it_, "https://a.example", "content-type,x-grpc-web,x-user-agent")
    assert.are.same({ 204, {
      ["access-control-allow-origin"] = "*", ["access-control-allow-methods"] = "POST, OPTIONS",
      ["access-control-allow-headers"] = "content-type,x-grpc-web,x-user-agent", ["access-control-max-age"] = "86400",
    } }, { response.status, response.headers })
    assert.truthy(preflight(it_, "https://a.example").headers["access-control-allow-headers"]:find("x-grpc-web", 1, true))
    assert.truthy(preflight(it_, "https://a.example", "x\r\nevil: 1").headers["access-control-allow-headers"]:find("x-grpc-web", 1, true))
    assert.are.same({
      ["content-type"] = "application/grpc-web+proto", ["access-control-allow-origin"] = "*",
      ["access-control-expose-headers"] = "grpc-message,grpc-status,grpc-status-details-bin,late-bin,mine", mine = "1",
    }, post(it_, "\0\0\0\0\4more", { origin = "https://a.example" }).headers)
    local stream = grpc_call.stream { "\0\0\0\0\1x" }
    post(it_, nil, { origin = "https://a.example" }, COUNT, stream)
    assert.are.equal("*", stream.sent_headers["access-control-allow-origin"])
    assert.truthy(stream.sent_headers["access-control-expose-headers"])
  end)

  it("may be some, with credentials", function()
    local it_ = new { "https://a.example", "https://b.example" }
    for _, origin in ipairs { "https://a.example", "https://b.example" } do
      local response = preflight(it_, origin, "content-type")
      assert.are.same({ 204, origin, "true", "Origin" }, { response.status, response.headers["access-control-allow-origin"],
        response.headers["access-control-allow-credentials"], response.headers.vary })
      assert.are.equal(origin, post(it_, "\0\0\0\0\0", { origin = origin }).headers["access-control-allow-origin"])
    end
    assert.are.equal(403, preflight(it_, "https://c.example", "content-type").status)
    assert.are.equal(403, preflight(it_, nil, "content-type").status)
    assert.is_nil(post(it_, "\0\0\0\0\0", { origin = "https://c.example" }).headers["access-control-allow-origin"])
    assert.are.equal(204, preflight(new "https://d.example", "https://d.example").status)
    assert.has_error(function() new { 1 } end)
  end)

  it("reach every service", function()
    local it_ = app.new()
    grpc_services.mount(it_, repository.new(), { cors = true })
    local response = it_:handle { method = "OPTIONS", path = "/inference.GRPCInferenceService/ServerLive", headers = { origin = "https://a.example" }, body = "" }
    assert.are.equal(204, response.status)
    for wanted, status in pairs { ["content-type,x-grpc-web"] = 204, ["content-type"] = 404 } do -- the page shall learn that there is no such method
      assert.are.equal(status, it_:handle({ method = "OPTIONS", path = "/some.Service/Method", body = "", headers = {
        origin = "https://a.example", ["access-control-request-headers"] = wanted,
      } }).status)
    end
    response = post(it_, "\0\0\0\0\0", nil, "/inference.GRPCInferenceService/ServerLive")
    assert.are.equal("\0\0\0\0\2\8\1" .. OK, response.body)
    it_ = app.new()
    grpc_services.mount(it_, repository.new(), { web = false })
    assert.are.equal(415, post(it_, "\0\0\0\0\0", nil, "/inference.GRPCInferenceService/ServerLive").status)
  end)
end)
