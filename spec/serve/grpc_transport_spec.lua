-- gRPC and gRPC-Web through `mlserve serve`, asked by curl, which knows nothing of either.

local core = require "mlserve.core"
local grpc = require "mlserve.serve.protocols.grpc"
local grpc_call = require "spec.support.grpc_call"
local grpc_schema = require "mlserve.serve.protocols.grpc_schema"
local grpcweb = require "mlserve.serve.protocols.grpcweb"
local process = require "spec.support.process"
local store = require "spec.support.model_store"

local quote = process.quote

describe("mlserve serve and gRPC", function()
  local directory, child, rest, own

  setup(function()
    directory = process.directory()
    store.publish(directory .. "/m", 1, 7)
    child = process.spawn_lua("bin/mlserve", "serve", "--model", "m=" .. directory .. "/m", "--rest-port", "0", "--grpc-port", "0", "--admin",
      "--grpc-max-message", "1000000")
    rest = child:expect "listening on (http://[%d.]+:%d+)"
    own = child:expect "listening on http://[%d.]+:%d+, (http://[%d.]+:%d+)"
  end)
  teardown(function()
    assert.are.equal(0, child:stop())
    store.remove(directory)
  end)

  -- head, body and trailers of an answer
  local function post(url, version, content_type, path, body, more, seconds)
    local input, output = directory .. "/in", directory .. "/out"
    process.write(input, body)
    os.execute(table.concat({ "curl -sN -m", seconds or "5", "-o", quote(output), "-D", quote(output .. ".head"), version == 2 and "--http2-prior-knowledge" or "--http1.1",
      "-H", quote("content-type: " .. content_type), "-H 'te: trailers' -H 'expect:' --data-binary @" .. input, more or "", quote(url .. path), "2>" .. output .. ".err" }, " "))
    local fields = {}
    for name, value in (process.slurp(output .. ".head") or ""):gmatch "([%w-]+): ([^\r\n]*)" do fields[name:lower()] = value end
    return fields, process.slurp(output) or "", (process.slurp(output .. ".head") or ""):match "^HTTP/[%d.]+ (%d+)"
  end

  local LIVE, CHECK = "/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Check"

  it("answers calls on both ports", function()
    for _, url in ipairs { rest, own } do
      local fields, body, status = post(url, 2, "application/grpc", LIVE, grpc.frame "")
      assert.are.same({ "200", "0", "application/grpc", "\0\0\0\0\2\8\1" }, { status, fields["grpc-status"], fields["content-type"], body })
      fields, body = post(url, 2, "application/grpc", CHECK, grpc.frame "\10\1x")
      assert.are.same({ "5", "unknown service x", "" }, { fields["grpc-status"], fields["grpc-message"], body })
      fields = post(url, 2, "application/grpc", "/no.Such/Method", grpc.frame "")
      assert.are.equal("12", fields["grpc-status"])
    end
  end)

  it("keeps to its limit", function()
    local fields = post(own, 2, "application/grpc", CHECK, grpc.frame(("x"):rep(1000001)))
    assert.are.same({ "8", "Received message larger than max (1000001 vs. 1000000)" }, { fields["grpc-status"], fields["grpc-message"] })
  end)

  it("predicts", function()
    local schema = grpc_schema.schema()
    local body = grpc.frame(schema:encode("tensorflow.serving.PredictRequest", {
      model_spec = { name = "m" }, inputs = { x = { dtype = "DT_FLOAT", tensor_shape = { dim = { { size = 1 }, { size = 1 } } }, float_val = { 0 } } },
    }))
    local fields, answer = post(own, 2, "application/grpc", "/tensorflow.serving.PredictionService/Predict", body)
    assert.are.equal("0", fields["grpc-status"], fields["grpc-message"])
    local message = grpc_call.messages(answer, "tensorflow.serving.PredictResponse")[1]
    local _, output = next(message.outputs)
    assert.are.same({ "m", "serving_default", { 7 } }, { message.model_spec.name, message.model_spec.signature_name, output.float_val })
    assert.are.equal("1", tostring(message.model_spec.version.value))
  end)

  it("streams what is asked while it is asked", function()
    local schema = grpc_schema.schema()
    local kind = "grpc.reflection.v1.ServerReflectionRe"
    local body = grpc.frame(schema:encode(kind .. "quest", { list_services = "" }))
      .. grpc.frame(schema:encode(kind .. "quest", { file_containing_symbol = "grpc.health.v1.Health" }))
    local fields, answer = post(own, 2, "application/grpc", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", body)
    assert.are.equal("0", fields["grpc-status"])
    local answers = grpc_call.messages(answer, kind .. "sponse")
    assert.are.equal(6, #answers[1].list_services_response.service)
    assert.is_true(answers[2].file_descriptor_response.file_descriptor_proto[1] == schema:descriptor "grpc/health/v1/health.proto")
  end)

  it("speaks gRPC-Web over HTTP/1.1 and HTTP/2", function()
    local ok = "\128\0\0\0\16grpc-status: 0\r\n"
    for version = 1, 2 do
      local fields, body = post(rest, version, "application/grpc-web+proto", LIVE, grpc.frame "")
      assert.are.same({ "application/grpc-web+proto", "\0\0\0\0\2\8\1" .. ok }, { fields["content-type"], body })
      body = select(2, post(rest, version, "application/grpc-web-text", LIVE, core.base64_encode(grpc.frame "")))
      assert.are.equal("\0\0\0\0\2\8\1" .. ok, core.base64_decode(body))
      body = select(2, post(rest, version, "application/grpc-web", CHECK, grpc.frame "\10\1x"))
      assert.truthy(body:find("^\128%z%z%z.grpc%-status: 5\r\n"))
      -- a stream goes on until the client leaves
      fields, body = post(rest, version, "application/grpc-web", "/grpc.health.v1.Health/Watch", grpc.frame "\10\1m", nil, "0.7")
      assert.are.equal("application/grpc-web+proto", fields["content-type"])
      assert.are.equal(grpc.frame "\8\1", body)
      body = select(2, post(rest, version, "application/grpc-web-text", "/grpc.health.v1.Health/Watch", core.base64_encode(grpc.frame "\10\1m"), nil, "0.7"))
      assert.are.equal(grpc.frame "\8\1", grpcweb.decode_text(body))
    end
  end)

  it("ends a watch whose deadline is over", function()
    local fields, body = post(own, 2, "application/grpc", "/grpc.health.v1.Health/Watch", grpc.frame "\10\1m", "-H 'grpc-timeout: 300m'")
    assert.are.same({ "4", grpc.frame "\8\1" }, { fields["grpc-status"], body })
  end)

  it("tells who watches that it stops", function()
    for _, workers in ipairs { 1, 2 } do
      local server = process.spawn_lua("bin/mlserve", "serve", "--model", "m=" .. directory .. "/m", "--rest-port", "0", "--workers", workers)
      local url, output = server:expect "listening on (http://[%d.]+:%d+)", directory .. "/watched" .. workers
      process.write(directory .. "/empty", grpc.frame "")
      os.execute(table.concat({ "curl -sN -m 20 --http1.1 -H 'content-type: application/grpc-web' --data-binary @" .. directory .. "/empty", "-o", output,
        url .. "/grpc.health.v1.Health/Watch", "&" }, " "))
      assert.is_truthy(process.wait(10, function() return process.slurp(output) == grpc.frame "\8\1" end))
      assert.are.equal(0, server:stop())
      local expected = grpc.frame "\8\1" .. grpc.frame "\8\2" .. grpcweb.trailer_frame { ["grpc-status"] = "14", ["grpc-message"] = "the server is stopping" }
      assert.is_truthy(process.wait(10, function() return process.slurp(output) == expected end))
    end
  end)
end)
