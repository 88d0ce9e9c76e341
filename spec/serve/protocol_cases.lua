-- Requests that every transport answers alike, from the command line down: what HTTP may do to a body, paths, errors, KServe's protocol, gRPC and gRPC-Web.
-- The model "penguins" is spec/golden/pipeline, whose answers are ONNX Runtime's. TensorFlow Serving's own cases: spec/support/tfserving_cases.lua.

local cjson = require "cjson"
local client_grpc = require "mlserve.client.grpc"
local client_http = require "mlserve.client.http"
local client_http2 = require "mlserve.client.http2"
local core = require "mlserve.core"
local grpc_curl = require "spec.support.grpc_curl"
local net = require "mlserve.net"
local proto = require "mlserve.serve.protocols.grpc_schema"
local protobuf = require "spec.support.protobuf"

local M = {}

M.model = "spec/golden/pipeline"

local golden

local function expected()
  if not golden then
    local file = assert(io.open(M.model .. "/expected.json"))
    golden = cjson.decode(file:read "*a")
    file:close()
  end
  return golden
end

local function predict_body() return cjson.encode { instances = expected().instances } end

-- what a response must say about the golden rows
local function check_predictions(body)
  for i, row in ipairs(cjson.decode(body).predictions) do
    assert(row.output_label == expected().label[i], body)
    for name, share in pairs(expected().probabilities[i]) do
      assert(math.abs(row.output_probability[name] - share) < 1e-5, body)
    end
  end
end

local function infer_body()
  local island, mass = {}, {}
  for i, row in ipairs(expected().instances) do island[i], mass[i] = row.island[1], row.mass[1] end
  return cjson.encode { id = "seven", inputs = {
    { name = "island", datatype = "BYTES", shape = { #island, 1 }, data = island },
    { name = "mass", datatype = "FP32", shape = { #mass, 1 }, data = mass },
  }, outputs = { { name = "output_label" } } }
end

local function check_infer(body)
  local document = cjson.decode(body)
  assert(document.id == "seven" and document.outputs[1].name == "output_label", body)
  for i, label in ipairs(expected().label) do assert(document.outputs[1].data[i] == label, body) end
end

local function chunks(body, size)
  local pieces = {}
  for at = 1, #body, size do
    local piece = body:sub(at, at + size - 1)
    pieces[#pieces + 1] = ("%x\r\n%s\r\n"):format(#piece, piece)
  end
  return table.concat(pieces) .. "0\r\n\r\n"
end

local PREDICT = "/v1/models/penguins:predict"

-- method, path, body (text or function), headers; status, type (of the content), and body: a text it must hold, or a function that checks it.
-- `chunked`: bytes of a chunk.
M.cases = {
  { "predicts", "POST", PREDICT, predict_body, status = 200, type = "application/json", check = check_predictions },
  { "takes chunked bodies", "POST", PREDICT, predict_body, chunked = 7, status = 200, check = check_predictions },
  { "leaves a query aside", "POST", PREDICT .. "?x=1", predict_body, status = 200, check = check_predictions },
  { "decodes names in paths", "POST", "/v1/models/peng%75ins:predict", predict_body, status = 200, check = check_predictions },
  { "answers by version", "POST", "/v1/models/penguins/versions/3:predict", predict_body, status = 200, check = check_predictions },
  { "takes a body after Expect", "POST", PREDICT, predict_body, headers = { Expect = "100-continue" }, status = 200, check = check_predictions },
  { "knows no such version", "POST", "/v1/models/penguins/versions/4:predict", "{}", status = 404, type = "application/json",
    body = "Servable not found for request: Specific(penguins, 4)" },
  { "refuses an empty body", "POST", PREDICT, "", status = 400, type = "application/json", body = "JSON Parse error: The document is empty" },
  { "refuses half a body", "POST", PREDICT, '{"instances": [', status = 400, body = "JSON Parse error: Invalid value." },
  { "reports states", "GET", "/v1/models/penguins", status = 200, type = "application/json", body = '"state": "AVAILABLE"' },
  { "knows no such model", "GET", "/v1/models/none", status = 404, body = "Could not find any versions of model none" },
  { "describes the model", "GET", "/v1/models/penguins/metadata", status = 200, body = '"dtype": "DT_STRING"' },
  { "refuses other methods", "PUT", "/v1/models/penguins", "x", status = 400, body = "Malformed request: PUT /v1/models/penguins" },
  { "knows no other paths", "GET", "/nothing/here", status = 404 },
  { "is live", "GET", "/v2/health/live", status = 200 },
  { "is ready", "GET", "/v2/models/penguins/ready", status = 200 },
  { "infers", "POST", "/v2/models/penguins/infer", infer_body, status = 200, type = "application/json", check = check_infer },
  { "infers from chunks", "POST", "/v2/models/penguins/versions/3/infer", infer_body, chunked = 100, status = 200, check = check_infer },
  { "refuses what is no inference", "POST", "/v2/models/penguins/infer", "{}", status = 400, type = "application/json", body = '"error"' },
  { "has no model to infer with", "POST", "/v2/models/none/infer", infer_body, status = 404, body = '"error"' },
}

--- Runs all cases, each on a connection that the ones before have used.
---@param connection table of spec.support.raw_http
---@return integer count
function M.run(connection)
  for _, case in ipairs(M.cases) do
    local body = type(case[4]) == "function" and case[4]() or case[4]
    local lines = { case[2] .. " " .. case[3] .. " HTTP/1.1", "Host: a" }
    for name, value in pairs(case.headers or {}) do lines[#lines + 1] = name .. ": " .. value end
    if case.chunked then
      lines[#lines + 1] = "Transfer-Encoding: chunked"
      body = chunks(body, case.chunked)
    elseif body then
      lines[#lines + 1] = "Content-Length: " .. #body
    end
    connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or ""))
    local response, why = connection:response(10)
    if response and response.status == 100 then response, why = connection:response(10) end
    assert(response, case[1] .. ": " .. tostring(why))
    assert(response.status == case.status, ("%s: status %d: %s"):format(case[1], response.status, response.body))
    local kind = response.headers["content-type"]
    assert(not case.type or kind == case.type, ("%s: content-type %s"):format(case[1], tostring(kind)))
    assert(not case.body or response.body:find(case.body, 1, true), ("%s: %s"):format(case[1], response.body))
    if case.check then case.check(response.body) end
  end
  return #M.cases
end

---------------------------------------------------------------------------------------------------------------------------
-- gRPC

local function frame(message, flag)
  local size = #message
  return string.char(flag or 0, math.floor(size / 16777216), math.floor(size / 65536) % 256, math.floor(size / 256) % 256, size % 256) .. message
end

local function encode(kind, message) return proto.schema():encode(kind, message) end

local function predict_message(name, version)
  local islands, masses, size = {}, {}, #expected().instances
  for i, row in ipairs(expected().instances) do islands[i], masses[i] = row.island[1], row.mass[1] end
  local shape = { dim = { { size = size }, { size = 1 } } }
  return encode("tensorflow.serving.PredictRequest", {
    model_spec = name and { name = name, version = version and { value = version } }, output_filter = { "output_label" },
    inputs = { island = { dtype = "DT_STRING", tensor_shape = shape, string_val = islands }, mass = { dtype = "DT_FLOAT", tensor_shape = shape, float_val = masses } },
  })
end

local function infer_message(name)
  local islands, masses = {}, {}
  for i, row in ipairs(expected().instances) do islands[i], masses[i] = row.island[1], row.mass[1] end
  return encode("inference.ModelInferRequest", {
    model_name = name or "penguins", id = "seven", outputs = { { name = "output_label" } }, inputs = {
      { name = "island", datatype = "BYTES", shape = { #islands, 1 }, contents = { bytes_contents = islands } },
      { name = "mass", datatype = "FP32", shape = { #masses, 1 }, contents = { fp32_contents = masses } },
    },
  })
end

local function check_predict(messages)
  local message = assert(proto.schema():decode("tensorflow.serving.PredictResponse", messages[1]))
  assert(#messages == 1 and tostring(message.model_spec.version.value) == "3")
  for i, label in ipairs(expected().label) do assert(message.outputs.output_label.string_val[i] == label, label) end
end

-- the labels of a ModelInferResponse: raw, each with its length before it
local function check_labels(message)
  local labels = table.concat(message.raw_output_contents)
  local at = 1
  for _, label in ipairs(expected().label) do
    assert(labels:sub(at, at + 3) == string.char(#label, 0, 0, 0) and labels:sub(at + 4, at + 3 + #label) == label, labels)
    at = at + 4 + #label
  end
  assert(at == #labels + 1 and message.id == "seven")
end

local function check_model_infer(messages) check_labels(assert(proto.schema():decode("inference.ModelInferResponse", messages[1]))) end

local function check_stream(messages)
  local list = {}
  for i, bytes in ipairs(messages) do list[i] = assert(proto.schema():decode("inference.ModelStreamInferResponse", bytes)) end
  assert(#list == 3, #list)
  check_labels(list[1].infer_response)
  assert(list[2].error_message:find("none", 1, true) and not list[2].infer_response)
  check_labels(list[3].infer_response)
end

local function check_reflection(messages)
  local kind = "grpc.reflection.v1.ServerReflectionResponse"
  local list, file = assert(proto.schema():decode(kind, messages[1])), assert(proto.schema():decode(kind, messages[2]))
  assert(#messages == 2 and #list.list_services_response.service == 6)
  assert(file.file_descriptor_response.file_descriptor_proto[1] == proto.schema():descriptor "grpc/health/v1/health.proto")
end

local SERVICE, PREDICTION = "/inference.GRPCInferenceService/", "/tensorflow.serving.PredictionService/"
local CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
local LIVE, LIVE_ANSWER = SERVICE .. "ServerLive", "\8\1"
local REFLECT = "grpc.reflection.v1.ServerReflectionRequest"

local function is(bytes)
  return function(messages) assert(#messages == 1 and messages[1] == bytes, protobuf.hex(table.concat(messages, "|"))) end
end

local function frames(...)
  local list = { ... }
  for i, message in ipairs(list) do list[i] = frame(message) end
  return table.concat(list)
end

-- path, message or function that gives it; code (grpc-status, 0), text (grpc-message), headers, check: function(messages of the answer).
-- `body`: all of the body, or a function that gives it; http: a refusal of HTTP's; fields: of the answer; method, type: others than POST and gRPC's
M.grpc = {
  { "is live", LIVE, "", check = is(LIVE_ANSWER) },
  { "knows which models are ready", SERVICE .. "ModelReady", protobuf.field(1, "penguins"), check = is "\8\1" },
  { "predicts", PREDICTION .. "Predict", function() return predict_message "penguins" end, check = check_predict },
  { "predicts by version", PREDICTION .. "Predict", function() return predict_message("penguins", 3) end, check = check_predict },
  { "knows no such version", PREDICTION .. "Predict", function() return predict_message("penguins", 4) end, code = 5,
    text = "Servable not found for request: Specific(penguins, 4)" },
  { "knows no such model", PREDICTION .. "Predict", function() return predict_message "n\195\182ne" end, code = 5,
    text = "Servable not found for request: Latest(n%C3%B6ne)" },
  { "wants a model", PREDICTION .. "Predict", function() return predict_message() end, code = 3, text = "Missing ModelSpec" },
  { "infers", SERVICE .. "ModelInfer", infer_message, check = check_model_infer },
  { "infers from a compressed message", SERVICE .. "ModelInfer", headers = { ["grpc-encoding"] = "gzip" }, check = check_model_infer,
    body = function() return frame(net.deflate("gzip", infer_message(), 6), 1) end },
  { "has no model to infer with", SERVICE .. "ModelInfer", function() return infer_message "none" end, code = 5 },
  { "infers in a stream, and tells what is wrong with a request in its place", SERVICE .. "ModelStreamInfer",
    body = function() return frames(infer_message(), infer_message "none", infer_message()) end, check = check_stream },
  { "ends a stream that is strict", SERVICE .. "ModelStreamInfer", body = function() return frames(infer_message "none", infer_message()) end,
    headers = { triton_grpc_error = "true" }, code = 5 },
  { "tells what it offers", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", check = check_reflection, body = function()
    return frames(encode(REFLECT, { list_services = "" }), encode(REFLECT, { file_containing_symbol = "grpc.health.v1.Health" }))
  end },
  { "is healthy", CHECK, "", check = is "\8\1" },
  { "has healthy models", CHECK, protobuf.field(1, "penguins"), check = is "\8\1" },
  { "is not asked for others", CHECK, protobuf.field(1, "x"), code = 5, text = "unknown service x" },
  { "is watched until the deadline", WATCH, "", headers = { ["grpc-timeout"] = "300m" }, code = 4, text = "Deadline Exceeded", check = is "\8\1" },
  { "is asked for little within the deadline", LIVE, "", headers = { ["grpc-timeout"] = "10S" }, check = is(LIVE_ANSWER) },
  { "is too late", LIVE, "", headers = { ["grpc-timeout"] = "0n" }, code = 4, text = "Deadline Exceeded" },
  { "does not understand the deadline", LIVE, "", headers = { ["grpc-timeout"] = "5 minutes" }, code = 13, text = "Malformed grpc-timeout: 5 minutes" },
  { "offers no such service", "/no.Such/Method", "", code = 12, text = "unknown service no.Such" },
  { "offers no such service without a package", "/Such/Method", "", code = 12, text = "unknown service Such" },
  { "offers no such method", SERVICE .. "Shout", "", code = 12, text = "unknown method Shout for service inference.GRPCInferenceService" },
  { "wants a message", LIVE, body = "", code = 12, text = "Request cardinality violation: one message expected, got none" },
  { "wants one message", LIVE, body = frames("", ""), code = 12, text = "Request cardinality violation: one message expected, got more" },
  { "wants whole messages", LIVE, body = frame("abc"):sub(1, 7), code = 13, text = "Truncated message: the stream ended within a frame" },
  { "wants whole heads", LIVE, body = "\0\0\0", code = 13, text = "Truncated message: the stream ended within a frame" },
  { "wants whole messages in streams", SERVICE .. "ModelStreamInfer", body = "\0\0\0\1\0abc", code = 13,
    text = "Truncated message: the stream ended within a frame" },
  { "knows no such flag", LIVE, body = "\2\0\0\0\0", code = 13 },
  { "knows no such compression", LIVE, body = frame("", 1), headers = { ["grpc-encoding"] = "lzma" }, code = 12,
    fields = { ["grpc-accept-encoding"] = "identity,deflate,gzip" } },
  { "knows no protocol buffers in this", PREDICTION .. "Predict", "\255\255", code = 13 },
  { "refuses large messages", LIVE, body = function() return frame(("x"):rep(4194305)) end, code = 8, text = "Received message larger than max (4194305 vs. 4194304)" },
  { "takes messages that are just not too large", LIVE, function() return protobuf.field(15, ("x"):rep(4194304 - 5)) end, check = is(LIVE_ANSWER) },
  { "takes large metadata", LIVE, "", headers = { ["x-large"] = ("m"):rep(12000), ["x-some-bin"] = "AAE=" }, check = is(LIVE_ANSWER) },
  { "speaks protobuf only", LIVE, "", type = "application/grpc+json", code = 12 },
  { "says what it speaks", LIVE, "", type = "application/grpc+proto", check = is(LIVE_ANSWER), fields = { ["content-type"] = "application/grpc" } },
  { "is no form", LIVE, "", type = "text/plain", http = 415 },
  { "is not got", LIVE, method = "GET", http = 405 },
}

local function messages_of(body)
  local list, at = {}, 1
  while at <= #body do
    local flag, a, b, c, d = body:byte(at, at + 4)
    local size = ((a * 256 + b) * 256 + c) * 256 + d
    assert(flag == 0 and at + 4 + size <= #body, "a whole frame expected: " .. protobuf.hex(body))
    list[#list + 1] = body:sub(at + 5, at + 4 + size)
    at = at + 5 + size
  end
  return list
end

local function body_of(case)
  local body, message = case.body, case[3]
  if body then return type(body) == "function" and body() or body end
  return message and frame(type(message) == "function" and message() or message) or nil
end

--- Runs the cases of gRPC.
---@param url string of a port that speaks HTTP/2
---@return integer count
function M.run_grpc(url)
  for _, case in ipairs(M.grpc) do
    local title = case[1]
    local response = grpc_curl.request(url .. case[2], { body = body_of(case), type = case.type, headers = case.headers, method = case.method })
    local fields = response.fields
    assert(response.status == (case.http or 200), ("%s: HTTP status %s"):format(title, tostring(response.status)))
    if not case.http then
      assert(fields["grpc-status"] == tostring(case.code or 0), ("%s: status %s, %s"):format(title, tostring(fields["grpc-status"]), tostring(fields["grpc-message"])))
      assert(not case.text or fields["grpc-message"] == case.text, ("%s: %s"):format(title, tostring(fields["grpc-message"])))
      assert(case.check or response.body == "", title .. ": a refusal has no body")
      assert((fields["content-length"] or "0") == "0", title .. ": an answer of gRPC has no length")
    end
    for name, value in pairs(case.fields or {}) do assert(fields[name] == value, ("%s: %s: %s"):format(title, name, tostring(fields[name]))) end
    if case.check then case.check(messages_of(response.body)) end
  end
  return #M.grpc
end

-- Sends each message when the one before has been answered, and then that there is no more.
local function converse(url, path, messages)
  local endpoint = client_http.parse_url(url)
  local pool = assert(client_http2.new { endpoint = endpoint, tls = endpoint.secure and { verify = false } or nil, connect_timeout = 5, idle_timeout = 5, size = 1 })
  local call = assert(client_grpc.channel(pool, endpoint, { max_response = 1e6 }):open(path, { deadline = pool.now() + 10, seconds = 10 }))
  local answers = {}
  for i, message in ipairs(messages) do
    assert(call:send(message))
    answers[i] = assert(call:receive(), call.message)
  end
  assert(call:send(nil, true) ~= nil and call:receive() == nil and call.status == "OK", call.message)
  pool:close()
  return answers
end

--- Streams in which both sides speak in turn.
---@param url string of a port that speaks HTTP/2
function M.run_streams(url)
  for _, message in ipairs(converse(url, SERVICE .. "ModelStreamInfer", { infer_message(), infer_message() })) do
    check_labels(assert(proto.schema():decode("inference.ModelStreamInferResponse", message)).infer_response)
  end
  check_reflection(converse(url, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    { encode(REFLECT, { list_services = "" }), encode(REFLECT, { file_containing_symbol = "grpc.health.v1.Health" }) }))
end

---------------------------------------------------------------------------------------------------------------------------
-- gRPC-Web

local WEB, TEXT = "application/grpc-web+proto", "application/grpc-web-text"

local function trailers(text) return frame(text, 128) end

-- path, type, message; code, check as above. Text mode's bodies are base64.
M.web = {
  { "is live", LIVE, WEB, "", check = is(LIVE_ANSWER) },
  { "is live in text", LIVE, TEXT, "", check = is(LIVE_ANSWER) },
  { "predicts", PREDICTION .. "Predict", WEB, function() return predict_message "penguins" end, check = check_predict },
  { "infers in text", SERVICE .. "ModelInfer", TEXT, infer_message, check = check_model_infer },
  { "knows no such service", CHECK, WEB, protobuf.field(1, "x"), code = 5 },
  { "knows no such service in text", CHECK, TEXT, protobuf.field(1, "x"), code = 5 },
  { "offers no such method", SERVICE .. "Shout", WEB, "", code = 12 },
  { "is watched until the deadline", WATCH, WEB, "", headers = { ["grpc-timeout"] = "300m" }, code = 4, check = is "\8\1" },
  { "is watched in text", WATCH, TEXT, "", headers = { ["grpc-timeout"] = "300m" }, code = 4, check = is "\8\1" },
  { "refuses large messages", LIVE, WEB, function() return ("x"):rep(4194305) end, code = 8 },
}

local function base64(text) -- chunk by chunk, each padded
  local parts = {}
  for chunk in text:gmatch "[^=]+=*" do parts[#parts + 1] = core.base64_decode(chunk) end
  return table.concat(parts)
end

--- Runs the cases of gRPC-Web.
---@param url string
---@param version integer of HTTP
---@return integer count
function M.run_web(url, version)
  for _, case in ipairs(M.web) do
    local text, message = case[3] == TEXT, case[4]
    local body = frame(type(message) == "function" and message() or message)
    local response = grpc_curl.request(url .. case[2], {
      body = text and core.base64_encode(body) or body, type = case[3], headers = case.headers, version = version,
    })
    local title = ("%s (HTTP/%d)"):format(case[1], version)
    assert(response.status == 200 and response.version:sub(1, 1) == tostring(version), ("%s: HTTP status %s"):format(title, tostring(response.status)))
    assert(response.fields["content-type"] == (text and TEXT .. "+proto" or WEB), title .. ": content-type " .. tostring(response.fields["content-type"]))
    local answer = text and base64(response.body) or response.body
    local at = assert(answer:find("\128...." .. "grpc%-status: "), title .. ": no trailers")
    local status = answer:sub(at + 5):match "^grpc%-status: (%d+)\r\n"
    assert(status == tostring(case.code or 0), title .. ": " .. answer:sub(at + 5))
    assert(answer:sub(at) == trailers(answer:sub(at + 5)), title .. ": the trailers' frame")
    assert(not response.fields["grpc-status"], title .. ": no status outside of the body")
    if case.check then case.check(messages_of(answer:sub(1, at - 1))) else assert(at == 1, title .. ": a refusal has no messages") end
  end
  return #M.web
end

return M
