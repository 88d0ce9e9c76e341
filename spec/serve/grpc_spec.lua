-- gRPC's rules on request tables, without a transport. Bytes of google.rpc.Status are what Python's protobuf makes of it; numbers of codes,
-- the alphabet of grpc-message and the form of frames are the protocol's.

local app = require "mlserve.serve.app"
local core = require "mlserve.core"
local grpc = require "mlserve.serve.protocols.grpc"
local net = require "mlserve.net"

local PATH = "/test.Echo/Say"

local function bytes(...) return string.char(...) end

local function head(flag, size)
  return bytes(flag, math.floor(size / 16777216), math.floor(size / 65536) % 256, math.floor(size / 256) % 256, size % 256)
end

local function request(body, headers)
  local all = { ["content-type"] = "application/grpc" }
  for name, value in pairs(headers or {}) do all[name] = value or nil end
  return { method = "POST", path = PATH, headers = all, body = body, http = "2" }
end

local function status(response) return tonumber(response.trailers["grpc-status"]), response.trailers["grpc-message"] end

describe("gRPC", function()
  local seen

  local function served(method, settings)
    local handler = grpc.unary(method, settings and grpc.settings(settings))
    local it_ = app.new():mount { { method = "POST", path = PATH, handler = handler } }
    return function(body, headers) return it_:handle(request(body, headers)) end
  end

  local function echo(message, each)
    seen = { message = message, timeout = each.timeout }
    return message
  end

  it("answers a message with a message", function()
    local call = served(echo)
    for _, message in ipairs { "", "x", ("abc"):rep(100), ("y"):rep(70000), ("z"):rep(4194304), "\0\255" } do
      local response = call(head(0, #message) .. message)
      assert.are.equal(200, response.status)
      assert.are.same({ ["content-type"] = "application/grpc" }, response.headers)
      assert.are.same({ ["grpc-status"] = "0" }, response.trailers)
      assert.is_true(response.body == head(0, #message) .. message)
    end
  end)

  it("takes exactly one message", function()
    local call = served(echo)
    for _, case in ipairs {
      { "", 12 }, { bytes(0), 13 }, { bytes(0, 0, 0, 0), 13 }, { head(0, 2) .. "x", 13 }, { head(0, 1) .. "x" .. head(0, 1) .. "y", 12 },
      { head(0, 1) .. "xy", 12 }, { head(2, 1) .. "x", 13 }, { head(255, 0), 13 }, { head(1, 1) .. "x", 13 }, { head(0, 4194305), 8 },
      { bytes(0, 255, 255, 255, 255), 8 },
    } do
      seen = nil
      local response = call(case[1])
      assert.are.equal(case[2], (status(response)), #case[1])
      assert.is_nil(response.body)
      assert.is_nil(seen)
    end
    local code, text = status(call(head(0, 4194305) .. ("x"):rep(4194305)))
    assert.are.same({ 8, "Received message larger than max (4194305 vs. 4194304)" }, { code, text })
  end)

  it("wants its content type", function()
    local call = served(echo)
    for _, name in ipairs { "application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc; charset=utf-8",
      "application/grpc+proto;x=y" } do
      assert.are.equal(0, (status(call(head(0, 0), { ["content-type"] = name }))), name)
    end
    assert.are.equal(12, (status(call(head(0, 0), { ["content-type"] = "application/grpc+json" }))))
    for _, name in ipairs { "application/json", "application/grpcx", "application/grp", "", "application/grpc-web", false } do
      assert.are.equal(415, call(head(0, 0), { ["content-type"] = name }).status)
    end
  end)

  it("gives every code its number", function()
    for name, number in pairs {
      CANCELLED = 1, UNKNOWN = 2, INVALID_ARGUMENT = 3, DEADLINE_EXCEEDED = 4, NOT_FOUND = 5, ALREADY_EXISTS = 6, PERMISSION_DENIED = 7,
      RESOURCE_EXHAUSTED = 8, FAILED_PRECONDITION = 9, ABORTED = 10, OUT_OF_RANGE = 11, UNIMPLEMENTED = 12, INTERNAL = 13,
      UNAVAILABLE = 14, DATA_LOSS = 15, UNAUTHENTICATED = 16,
    } do
      local response = served(function() return nil, "because", name end)(head(0, 0))
      assert.are.same({ number, "because" }, { status(response) })
      assert.is_nil(response.body)
      assert.are.equal(200, response.status)
    end
    assert.are.same({ 2, "what" }, { status(served(function() return nil, "what", "NO_CODE" end)(head(0, 0))) })
    assert.are.same({ 2 }, { status(served(function() return nil end)(head(0, 0))) })
  end)

  it("encodes messages of status in percents", function()
    local function text_of(text) return select(2, status(served(function() return nil, text, "NOT_FOUND" end)(head(0, 0)))) end
    assert.are.equal('a b%25c%0A%C3%A9%E2%82%AC~"', text_of 'a b%c\n\195\169\226\130\172~"')
    for i = 0, 255 do
      local c = string.char(i)
      local plain = i > 32 and i <= 126 and c ~= "%"
      assert.are.equal(plain and c or ("%%%02X"):format(i), text_of(c))
      assert.are.equal(c, grpc.percent_decode(text_of(c)))
    end
    assert.are.equal("%20 what, why %20", text_of "  what, why  ") -- HTTP/2 allows no space at the ends of a field
    assert.are.equal("%zz%4%", grpc.percent_decode "%zz%4%")
  end)

  it("sends details of a status", function()
    local details = { { type_url = "type.googleapis.com/google.protobuf.StringValue", value = "\10\1x" }, { type_url = "u", value = "" } }
    local response = served(function() return nil, "no such model", "NOT_FOUND", details end)(head(0, 0))
    assert.are.equal("CAUSDW5vIHN1Y2ggbW9kZWwaNgovdHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucHJvdG9idWYuU3RyaW5nVmFsdWUSAwoBeBoDCgF1",
      response.trailers["grpc-status-details-bin"])
    response = served(function() return nil, nil, "INTERNAL", { { type_url = "", value = "" } } end)(head(0, 0))
    assert.are.equal("CA0aAA", response.trailers["grpc-status-details-bin"])
  end)

  it("keeps to itself what a method raises", function()
    local told = {}
    local call = served(function() error "secret place" end, { log = function(level, message) told[#told + 1] = level .. " " .. message end })
    local code, text = status(call(head(0, 0)))
    assert.are.equal(13, code)
    assert.is_nil(text:find("secret", 1, true))
    assert.are.equal(1, #told)
    assert.truthy(told[1]:find("^error /test%.Echo/Say: .*secret place"))
    assert.are.equal(13, (status(served(function() error({}) end)(head(0, 0)))))
  end)

  it("reads deadlines", function()
    local call = served(echo)
    for text, seconds in pairs { ["1H"] = 3600, ["2M"] = 120, ["99999999S"] = 99999999, ["100m"] = 0.1, ["5000000u"] = 5, ["99999999n"] = 0.099999999,
      ["00000001H"] = 3600 } do
      assert.are.equal(0, (status(call(head(0, 0), { ["grpc-timeout"] = text }))), text)
      assert.is_true(math.abs(seen.timeout - seconds) < 1e-9 * seconds + 1e-12)
    end
    for _, text in ipairs { "", "1", "S", "-1S", "1.5S", "123456789S", "1s", "1 S", "1Sx", "0x1S" } do
      assert.are.equal(13, (status(call(head(0, 0), { ["grpc-timeout"] = text }))), text)
    end
    assert.are.equal(4, (status(call(head(0, 0), { ["grpc-timeout"] = "0S" }))))
    local slow = served(function()
      local stop = core.clock() + 0.002
      repeat until core.clock() > stop
      return ""
    end)
    assert.are.equal(4, (status(slow(head(0, 0), { ["grpc-timeout"] = "100u" }))))
    assert.are.equal(0, (status(slow(head(0, 0), { ["grpc-timeout"] = "1M" }))))
  end)

  it("inflates and deflates", function()
    local call = served(echo)
    local message = ("hello "):rep(1000)
    for _, coding in ipairs { "gzip", "deflate" } do
      local squeezed = net.deflate(coding, message, 6)
      local response = call(head(1, #squeezed) .. squeezed, { ["grpc-encoding"] = coding })
      assert.are.same({ 0 }, { status(response) })
      assert.are.equal(head(0, #message) .. message, response.body) -- the client has not said that it can read that
      assert.is_nil(response.headers["grpc-encoding"])
      response = call(head(1, #squeezed) .. squeezed, { ["grpc-encoding"] = coding, ["grpc-accept-encoding"] = "identity, " .. coding })
      assert.are.equal(coding, response.headers["grpc-encoding"])
      assert.are.equal(1, response.body:byte())
      assert.are.equal(message, net.inflate(coding, response.body:sub(6), 0, 0))
      assert.are.equal(#response.body - 5, response.body:byte(4) * 256 + response.body:byte(5))
    end
    -- a plain message of a client that may compress
    local response = call(head(0, 3) .. "abc", { ["grpc-encoding"] = "gzip", ["grpc-accept-encoding"] = "gzip" })
    assert.are.equal(head(0, 3) .. "abc", response.body)
    -- gzip.compress of Python
    local from_python = ("1f8b0800000000000203cb48cdc9c957c8402701e3513d8d17000000"):gsub("%x%x", function(d) return string.char(tonumber(d, 16)) end)
    call(head(1, #from_python) .. from_python, { ["grpc-encoding"] = "gzip" })
    assert.are.equal("hello hello hello hello", seen.message)
  end)

  it("compresses large answers when it is told to", function()
    local call = served(echo, { compress_from = 1000 })
    local message = ("abc"):rep(400)
    assert.are.equal("gzip", call(head(0, 1200) .. message, { ["grpc-accept-encoding"] = "identity,deflate, gzip" }).headers["grpc-encoding"])
    assert.is_nil(call(head(0, 1200) .. message, { ["grpc-accept-encoding"] = "identity" }).headers["grpc-encoding"])
    assert.is_nil(call(head(0, 1200) .. message).headers["grpc-encoding"])
    assert.is_nil(call(head(0, 900) .. message:sub(1, 900), { ["grpc-accept-encoding"] = "gzip" }).headers["grpc-encoding"])
  end)

  it("refuses what it cannot inflate", function()
    local call = served(echo)
    local response = call(head(0, 0), { ["grpc-encoding"] = "snappy" })
    assert.are.equal(12, (status(response)))
    assert.are.equal("identity,deflate,gzip", response.headers["grpc-accept-encoding"])
    local squeezed = net.deflate("gzip", ("x"):rep(4194305), 6)
    assert.are.equal(8, (status(call(head(1, #squeezed) .. squeezed, { ["grpc-encoding"] = "gzip" }))))
    squeezed = net.deflate("gzip", ("x"):rep(4194304), 6)
    assert.are.equal(0, (status(call(head(1, #squeezed) .. squeezed, { ["grpc-encoding"] = "gzip" }))))
    assert.are.equal(13, (status(call(head(1, 10) .. squeezed:sub(1, 10), { ["grpc-encoding"] = "gzip" }))))
    assert.are.equal(13, (status(call(head(1, 5) .. "xxxxx", { ["grpc-encoding"] = "gzip" }))))
    assert.are.equal(13, (status(call(head(1, 0), { ["grpc-encoding"] = "gzip" }))))
    assert.are.equal(13, (status(call(head(1, 5) .. "xxxxx", { ["grpc-encoding"] = "identity" }))))
  end)

  it("keeps its answers within a bound too", function()
    local call = served(function() return ("x"):rep(101) end, { max_response = 100 })
    assert.are.same({ 8, "Sent message larger than max (101 vs. 100)" }, { status(call(head(0, 0))) })
  end)

  it("hands metadata on", function()
    local call = served(function(_, each)
      local first, all = grpc.metadata(each, "trace-bin")
      assert.are.same({ "\0\1", { "\0\1", "abc" } }, { first, all })
      assert.are.equal("Y", grpc.metadata(each, "x"))
      assert.is_nil(grpc.metadata(each, "none-bin"))
      each.reply_headers, each.reply_trailers = { mine = "1", ["my-bin"] = "\255\254" }, { late = "2", ["grpc-status"] = "9" }
      return ""
    end)
    local response = call(head(0, 0), { ["trace-bin"] = "AAE=, YWJj", x = "Y" })
    assert.are.same({ ["content-type"] = "application/grpc", mine = "1", ["my-bin"] = "//4" }, response.headers)
    assert.are.same({ ["grpc-status"] = "0", late = "2" }, response.trailers)
    response = served(function(_, each)
      each.reply_trailers = { late = "2" }
      return nil, "no", "ABORTED"
    end)(head(0, 0))
    assert.are.same({ ["grpc-status"] = "10", ["grpc-message"] = "no", late = "2" }, response.trailers)
  end)

  it("names model, version, verb and outcome for whoever counts requests", function()
    local function model(code)
      return served(function(_, each)
        each.model, each.version, each.verb = "m", "7", "infer"
        if code then return nil, "text", code end
        return ""
      end)(head(0, 0))
    end
    local response = model()
    assert.are.same({ "m", "7", "infer" }, { response.model, response.version, response.verb })
    assert.is_nil(response.outcome)
    response = model "NOT_FOUND"
    assert.are.same({ "m", "7", "infer", 404 }, { response.model, response.version, response.verb, response.outcome })
    assert.is_nil(response.code)
    local handler = grpc.unary(function(message) return message ~= "" and message or nil, "no", "INVALID_ARGUMENT" end)
    local it_ = app.new():mount { { method = "POST", path = "/tensorflow.serving.PredictionService/Predict", handler = handler } }
    local each = request(head(0, 1) .. "x")
    each.path = "/tensorflow.serving.PredictionService/Predict"
    assert.are.equal("OK", it_:handle(each).code)
    each.body = head(0, 0)
    assert.are.equal("INVALID_ARGUMENT", it_:handle(each).code)
  end)

  it("answers unknown methods in its own way", function()
    local it_ = app.new():mount { { method = "POST", path = PATH, handler = grpc.unary(echo) } }
    it_:fallback(grpc.fallback { ["test.Echo"] = true })
    local function of(path, method, content_type)
      return it_:handle { method = method or "POST", path = path, headers = { ["content-type"] = content_type or "application/grpc" }, body = head(0, 0) }
    end
    assert.are.same({ 12, "unknown method Shout for service test.Echo" }, { status(of "/test.Echo/Shout") })
    assert.are.same({ 12, "unknown service no.Such" }, { status(of "/no.Such/Say") })
    assert.are.equal(12, (status(of "/")))
    assert.are.equal(12, (status(of "/a/b/c")))
    assert.are.equal(404, of("/no.Such/Say", "POST", "application/json").status)
    assert.are.equal(404, of("/no.Such/Say", "GET").status)
    assert.are.equal(405, of(PATH, "GET").status)
  end)

  it("refuses settings it does not know", function()
    assert.has_error(function() grpc.settings { max = 1 } end, "grpc: unknown option 'max'; known: compress_from, level, log, max_message, max_response")
    assert.has_error(function() grpc.settings { max_message = "1" } end)
    assert.has_error(function() grpc.settings { max_message = 0 / 0 } end)
  end)
end)

describe("gRPC's frames", function()
  it("are put together from any pieces", function()
    local messages, whole = { "", "a", ("b"):rep(300), "", ("c"):rep(1023), ("d"):rep(1024), ("e"):rep(70000) }, {}
    for i, message in ipairs(messages) do whole[i] = grpc.frame(message) end
    whole = table.concat(whole)
    for _, size in ipairs { 1, 2, 3, 5, 7, 64, 1000, 100000 } do
      local reader, found = grpc.reader(70000), {}
      for at = 1, #whole, size do
        reader:push(whole:sub(at, at + size - 1))
        local content, flag = reader:next()
        while content do
          assert.are.equal(0, flag)
          found[#found + 1] = content
          content, flag = reader:next()
        end
      end
      assert.are.same(messages, found)
      assert.is_false(reader:pending())
    end
  end)

  it("may not be too large, and may be cut short", function()
    local reader = grpc.reader(10)
    reader:push(grpc.frame(("x"):rep(11)):sub(1, 5))
    assert.are.same({ nil, "Received message larger than max (11 vs. 10)", "RESOURCE_EXHAUSTED", n = 3 }, { n = 3, reader:next() })
    reader = grpc.reader(10)
    reader:push "\0\0\0\0"
    assert.is_nil((reader:next()))
    assert.is_true(reader:pending())
  end)
end)

describe("gRPC's streams", function()
  -- what a transport gives; pieces: strings and reasons
  local function raw(pieces)
    local at = 0
    local it_ = { written = {} }
    function it_.read()
      at = at + 1
      local piece = pieces[at] or "end"
      if piece == "end" or piece == "timeout" or piece == "cancelled" then return nil, piece end
      return piece
    end
    function it_.write(_, piece)
      if it_.closed then return nil, it_.closed end
      it_.sent_headers = it_.sent_headers or it_.headers
      it_.written[#it_.written + 1] = piece
      return true
    end
    return it_
  end

  local function call(method, stream, headers, settings, body)
    local it_ = app.new():mount { { method = "POST", path = PATH, stream = true, handler = grpc.streaming(method, settings and grpc.settings(settings)) } }
    assert.is_true(it_:streaming("POST", PATH))
    local each = request(body, headers)
    each.stream = stream
    return it_:handle(each)
  end

  local function echo(stream)
    while true do
      local message, text, code = stream:receive()
      if not message then return not code, text, code end
      local ok, why, which = stream:send(message:upper())
      if not ok then return nil, why, which end
    end
  end

  it("echo, whatever the pieces", function()
    local all = grpc.frame "one" .. grpc.frame "" .. grpc.frame "three"
    for size = 1, #all do
      local pieces = {}
      for at = 1, #all, size do pieces[#pieces + 1] = all:sub(at, at + size - 1) end
      local stream = raw(pieces)
      local response = call(echo, stream)
      assert.are.same({ grpc.frame "ONE", grpc.frame "", grpc.frame "THREE" }, stream.written)
      assert.are.same({ ["content-type"] = "application/grpc" }, stream.sent_headers)
      assert.are.same({ ["grpc-status"] = "0" }, response.trailers)
      assert.is_nil(response.body)
    end
  end)

  it("end with a status whatever happens", function()
    assert.are.equal(13, (status(call(echo, raw { grpc.frame "one", "\0\0" }))))
    assert.are.equal(13, (status(call(echo, raw { "\5\0\0\0\0" }))))
    assert.are.equal(8, (status(call(echo, raw { head(0, 5000000) }))))
    assert.are.equal(1, (status(call(echo, raw { grpc.frame "one", "cancelled" }))))
    assert.are.equal(4, (status(call(echo, raw { grpc.frame "one", "timeout" }, { ["grpc-timeout"] = "1S" }))))
    assert.are.equal(4, (status(call(echo, raw {}, { ["grpc-timeout"] = "0S" }))))
    assert.are.equal(13, (status(call(echo, raw {}, { ["grpc-timeout"] = "soon" }))))
    assert.are.equal(12, (status(call(echo, raw {}, { ["grpc-encoding"] = "br" }))))
    assert.are.equal(415, call(echo, raw {}, { ["content-type"] = "text/plain" }).status)
    assert.are.equal(13, (status(call(function() error "secret" end, raw {}))))
    assert.are.same({ 9, "not%0Anow" }, { status(call(function() return nil, "not\nnow", "FAILED_PRECONDITION" end, raw {})) })
    local stream = raw { grpc.frame "one" }
    stream.closed = "cancelled"
    assert.are.equal(1, (status(call(echo, stream))))
    -- a method that does not care
    assert.are.equal(13, (status(call(function(it_) it_:receive() return true end, raw { "\0" }))))
  end)

  it("inflate and deflate", function()
    local message = ("hello "):rep(100)
    local squeezed = net.deflate("gzip", message, 6)
    local stream = raw { head(1, #squeezed) .. squeezed }
    local response = call(echo, stream, { ["grpc-encoding"] = "gzip", ["grpc-accept-encoding"] = "gzip" })
    assert.are.equal(0, (status(response)))
    assert.are.equal("gzip", stream.sent_headers["grpc-encoding"])
    assert.are.equal(message:upper(), net.inflate("gzip", stream.written[1]:sub(6), 0, 0))
    assert.are.equal(13, (status(call(echo, raw { head(1, 3) .. "abc" }))))
  end)

  it("collect answers where a transport has no streams", function()
    local response = call(echo, nil, nil, nil, grpc.frame "one" .. grpc.frame "two")
    assert.are.equal(grpc.frame "ONE" .. grpc.frame "TWO", response.body)
    assert.are.same({ ["grpc-status"] = "0" }, response.trailers)
    response = call(echo, nil, nil, nil, "")
    assert.is_nil(response.body)
    assert.are.equal(0, (status(response)))
    call(function(stream) assert.are.equal("unsupported", stream:wait(1)) return true end, nil, nil, nil, "")
  end)

  it("answer one message with many", function()
    local function method(message, stream)
      for c in message:gmatch "." do assert(stream:send(c)) end
      return true
    end
    local handler = grpc.server_streaming(method)
    local stream = raw { grpc.frame "abc" }
    local each = request()
    each.stream = stream
    assert.are.equal(0, (status(handler(each))))
    assert.are.same({ grpc.frame "a", grpc.frame "b", grpc.frame "c" }, stream.written)
    each.stream = raw {}
    assert.are.equal(12, (status(handler(each))))
  end)

  it("wait by the transport's means", function()
    local stream = raw { grpc.frame "x" }
    local asked = {}
    function stream.wait(_, seconds)
      asked[#asked + 1] = seconds
      return #asked == 3 and "cancelled" or "timeout"
    end
    local response = call(function(it_)
      it_:receive()
      while it_:wait(1.5) == "timeout" do it_:send "y" end
      return true
    end, stream)
    assert.are.same({ 1.5, 1.5, 1.5 }, asked)
    assert.are.equal(2, #stream.written)
    assert.are.equal(1, (status(response)))
  end)
end)

describe("base64 of the core", function()
  it("goes both ways", function()
    for plain, text in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foobar = "Zm9vYmFy", ["\255\254"] = "//4=" } do
      assert.are.equal(text, core.base64_encode(plain))
      assert.are.equal(plain, core.base64_decode(text))
      assert.are.equal(plain, core.base64_decode((text:gsub("=", ""))))
    end
    assert.are.same({ nil, "INVALID_ARGUMENT" }, { core.base64_decode "a!b", (select(3, core.base64_decode "a!b")) })
  end)
end)
