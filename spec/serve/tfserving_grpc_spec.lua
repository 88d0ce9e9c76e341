-- TensorFlow Serving's gRPC messages. Requests and expected answers are Google's protobuf's and TensorFlow's (spec/golden/make_grpc.py); texts of
-- refusals are tensorflow/serving's (predict_util.cc, server_core.cc) and TensorFlow's (saved_model/util.cc).

local cjson = require "cjson"
local core = require "mlserve.core"
local cqueues = require "cqueues"
local execute = require "mlserve.serve.execute"
local mlserve = require "mlserve"
local protobuf = require "spec.support.protobuf"
local repository = require "mlserve.serve.repository"
local tfserving_grpc = require "mlserve.serve.protocols.tfserving_grpc"

local bytes, field, fields, hex, sorted = protobuf.bytes, protobuf.field, protobuf.fields, protobuf.hex, protobuf.sorted

local golden = protobuf.golden "predict"

local function request_of(name) return bytes(golden.requests[name][1]) end

-- y = x
local function copier(dtype, dims)
  local graph = core.graph "copier"
  graph:output(graph:node("Identity", { graph:input("x", dtype, dims) }, nil, { "y" }))
  return core.servable(core.program(graph), { model = "m", version = 3 })
end

local function pair(options)
  local graph = core.graph "pair"
  local a, b = graph:input("a", "float32", { -1, 2 }), graph:input("b", "float32", { -1, 2 })
  graph:output(graph:node("Add", { a, b }, nil, { "sum" }))
  graph:output(graph:node("Sub", { a, b }, nil, { "diff" }))
  local given = { model = "m", version = 3, signatures = {
    serving_default = { inputs = { a = "a", b = "b" }, outputs = { sum = "sum", diff = "diff" } },
    other = { inputs = { a = "a", b = "b" }, outputs = { total = "diff", rest = "sum" } },
  } }
  for key, value in pairs(options or {}) do given[key] = value end
  return core.servable(core.program(graph), given)
end

describe("Predict over gRPC", function()
  it("reads and writes every type as TensorFlow does", function()
    assert.is_true(#golden.copies > 190)
    for _, case in ipairs(golden.copies) do
      local servable = copier(case.dtype, case.dims)
      local answer, message = servable:predict_proto(bytes(case.request))
      assert.are.equal(case.response, hex(answer), case.title .. ": " .. tostring(message))
      assert.are.equal(case.content, hex(servable:predict_proto(bytes(case.request), nil, nil, nil, true)), case.title)
      servable:close()
    end
  end)

  it("refuses tensors that TensorFlow cannot read", function()
    local servable, n = copier("float32", { -1, -1 }), 0
    for title, request in pairs(golden.wrong) do
      n = n + 1
      local answer, message, code = servable:predict_proto(bytes(request))
      assert.are.same({ n = 3, nil, "tensor parsing error: x", "INVALID_ARGUMENT" }, { n = 3, answer, message, code }, title)
    end
    assert.are.equal(5, n)
  end)

  it("chooses signatures and outputs", function()
    local servable, n = pair(), 0
    for title, case in pairs(golden.requests) do
      if case[2] then
        n = n + 1
        local answer, message = servable:predict_proto(bytes(case[1]))
        assert.are.same(sorted(bytes(case[2])), answer and sorted(answer), title .. ": " .. tostring(message))
      end
    end
    assert.are.equal(8, n)
    local answer = assert(servable:predict_proto(request_of "both", "other"))
    assert.are.same(sorted(bytes(golden.requests["model_spec last"][2])), sorted(answer))
    assert.are.same(sorted(assert(servable:predict_proto(request_of "both", "serving_default"))), sorted(assert(servable:predict_proto(request_of "both"))))
    -- what the answer calls the model
    answer = assert(servable:predict_proto(request_of "filtered", nil, "their name", "18014398509481985"))
    local spec = fields(fields(answer)[2][2])
    assert.are.equal("their name", spec[1][2])
    assert.are.equal("0881808080808080" .. "20", hex(spec[2][2])) -- 2^54 + 1
  end)

  it("says what is wrong in TensorFlow Serving's words", function()
    local servable = pair { max_elements = 1000 }
    local cases = {
      ["missing"] = { "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}." },
      ["extra"] = { "input size does not match signature: 3!=2 len({a,b,c}) != len({a,b}). Sent extra: {c}. Missing but required: {}." },
      ["none"] = { "input size does not match signature: 0!=2 len({}) != len({a,b}). Sent extra: {}. Missing but required: {a,b}." },
      ["renamed"] = { "Signature input alias: b(feed name: b:0) not found in request and no default value provided. Inputs expected to be in the "
        .. "request {a,c}, or default input alias set: " },
      ["no signature"] = { 'Serving signature key "nobody\'s" not found.', "FAILED_PRECONDITION" },
      ["unknown output"] = { "output tensor alias not found in signature: product Outputs expected to be in the set {diff,sum}." },
      ["output twice"] = { "duplicate output tensor alias: sum" },
      ["strings"] = { "Expects arg[1] to be float but string is provided" },
      ["complex"] = { "Expects arg[1] to be float but DataType 8 is provided" },
      ["three columns"] = { "input 'b': expected shape (-1, 2), got (2, 3)" },
      ["one dimension"] = { "input 'b': expected shape (-1, 2), got (2)" },
      ["too many elements"] = { "the request has more than 1000 elements", "RESOURCE_EXHAUSTED" },
    }
    for title, case in pairs(cases) do
      local answer, message, code = servable:predict_proto(request_of(title))
      assert.are.same({ n = 3, nil, case[1], case[2] or "INVALID_ARGUMENT" }, { n = 3, answer, message, code }, title)
    end
  end)

  it("answers INTERNAL to bytes that are no message, wherever they end", function()
    local servable, whole = pair(), request_of "both"
    local messages = {}
    for size = 0, #whole - 1 do
      local answer, message, code = servable:predict_proto(whole:sub(1, size))
      assert.is_nil(answer)
      assert.is_true(code == "INTERNAL" or code == "INVALID_ARGUMENT", code)
      if code == "INTERNAL" then messages[message] = true end
    end
    assert.is_truthy(next(messages))
    local _, message, code = servable:predict_proto("\10\5ab")
    assert.are.same({ "INTERNAL", "the request is no message of this method: protobuf: field 1 at offset 0 claims 5 bytes, 2 are left" }, { code, message })
    _, message, code = servable:predict_proto("\16\5")
    assert.are.same({ "INTERNAL", "the request is no message of this method: inputs: expected wire type bytes, got varint (field 2)" }, { code, message })
    _, _, code = servable:predict_proto(("\10\3"):rep(10) .. "abc")
    assert.are.equal("INTERNAL", code)
  end)

  it("does not fill up gigabytes", function()
    local servable = copier("float32", { -1 })
    -- x: float32 of 2^24 elements, one of them given
    local shape = "\18\7\18\5\8\128\128\128\8"
    local tensor = "\8\1" .. shape .. "\42\4\0\0\128\63"
    local entry = "\10\1x\18" .. string.char(#tensor) .. tensor
    local _, message, code = servable:predict_proto("\18" .. string.char(#entry) .. entry)
    assert.are.same({ "RESOURCE_EXHAUSTED", "input 'x' has 16777216 elements, of which the request holds 1: more than 1048576 are not filled up" },
      { code, message })
  end)

  it("gives what the REST protocol and ONNX Runtime give, strings of JSON for what is no tensor", function()
    local file = assert(io.open "spec/golden/pipeline/expected.json")
    local expected = cjson.decode(file:read "*a")
    file:close()
    local servable = mlserve.load("spec/golden/pipeline/model.onnx"):servable { model = "penguins", version = 1 }
    local islands, masses = "", {}
    for i, instance in ipairs(expected.instances) do
      islands = islands .. field(8, instance.island[1])
      masses[i] = instance.mass[1]
    end
    local shape = field(2, field(2, "\8\4") .. field(2, "\8\1"))
    local request = field(2, field(1, "island") .. field(2, "\8\7" .. shape .. islands))
      .. field(2, field(1, "mass") .. field(2, "\8\1" .. shape .. field(5, core.tensor(masses, "float32"):tobytes())))
    local answer = {}
    for _, output in ipairs(fields(assert(servable:predict_proto(request)))) do
      if output[1] == 1 then
        local entry = fields(output[2])
        answer[entry[1][2]] = fields(entry[2][2])
      end
    end
    local rest = cjson.decode((assert(servable:predict_json(cjson.encode { inputs = {
      island = { { expected.instances[1].island[1] }, { expected.instances[2].island[1] }, { expected.instances[3].island[1] },
        { expected.instances[4].island[1] } },
      mass = { { masses[1] }, { masses[2] }, { masses[3] }, { masses[4] } },
    } })))).outputs
    local function strings(tensor)
      local out = {}
      for _, each in ipairs(tensor) do if each[1] == 8 then out[#out + 1] = each[2] end end
      return out
    end
    assert.are.same(expected.label, strings(answer.output_label))
    assert.are.same(rest.output_label, strings(answer.output_label))
    for i, text in ipairs(strings(answer.output_probability)) do
      local row = cjson.decode(text)
      assert.are.same(rest.output_probability[i], row)
      for key, value in pairs(expected.probabilities[i]) do assert.near(value, row[key], 1e-6) end
    end
  end)

  it("is batched as other requests are", function()
    local graph = core.graph "pair"
    local a, b = graph:input("a", "float32", { -1, 2 }), graph:input("b", "float32", { -1, 2 })
    graph:output(graph:node("Add", { a, b }, nil, { "sum" }))
    graph:output(graph:node("Sub", { a, b }, nil, { "diff" }))
    local servable = core.servable(core.program(graph), { model = "m", version = 3 })
    servable:batching { mode = "always", max_batch_size = 64, batch_timeout_micros = 20000 }
    local entry, loop, answers = { name = "m", version = "3", servable = servable }, cqueues.new(), {}
    for i = 1, 20 do
      loop:wrap(function()
        local title = i % 3 == 0 and "filtered" or i % 3 == 1 and "both" or "three columns"
        answers[i] = { title, execute.proto(entry, "predict_proto", request_of(title), {}) }
      end)
    end
    assert(loop:loop())
    for i = 1, 20 do
      local title, answer, message, code = answers[i][1], answers[i][2], answers[i][3], answers[i][4]
      if title == "three columns" then
        assert.are.same({ "INVALID_ARGUMENT", "input 'b': expected shape (-1, 2), got (2, 3)" }, { code, message })
      else
        assert.are.same(sorted(bytes(golden.requests[title][2])), answer and sorted(answer), message)
      end
    end
    assert.is_true(servable:batch_stats().merged > 0)
    -- without an event loop; lists that must be unpacked before they wait
    local copy = copier("int64", { -1, -1 })
    copy:batching { mode = "always" }
    local n = 0
    for _, case in ipairs(golden.copies) do
      if case.dtype == "int64" and #case.dims == 2 then
        n = n + 1
        local answer, message = execute.proto({ name = "m", version = "3", servable = copy }, "predict_proto", bytes(case.request), { timeout = 5 })
        assert.are.equal(case.response, hex(answer), case.title .. ": " .. tostring(message))
      end
    end
    assert.are.equal(7, n)
    local _, _, code = execute.proto({ name = "m", version = "3", servable = copy }, "predict_proto", "\10", {})
    assert.are.equal("INTERNAL", code)
    assert.has_error(function() copy:start_proto("nothing", "") end)
  end)
end)

local examples = protobuf.golden "examples"

local function example_request(title) return bytes(examples[title][1]) end

-- scores = x, value = the sum of x
local function classifier(options)
  local graph = core.graph "classifier"
  local x = graph:input("x", "float32", { -1, 3 })
  graph:output(graph:node("Identity", { x }, nil, { "scores" }))
  graph:output(graph:node("MatMul", { x, graph:initializer("ones", core.tensor { { 1 }, { 1 }, { 1 } }) }, nil, { "value" }))
  local both, value = { scores = "scores", value = "value" }, { outputs = "value" }
  local given = { model = "m", version = 3, classes = { "a", "b", "c" }, signatures = {
    serving_default = { inputs = { x = "x" }, outputs = both }, scores_only = { inputs = { x = "x" }, outputs = { scores = "scores" } },
    value_only = { inputs = { x = "x" }, outputs = value }, renamed = { inputs = { z = "x" }, outputs = value },
  } }
  for key, each in pairs(options or {}) do given[key] = each end
  return core.servable(core.program(graph), given)
end

-- the sum of the columns u and v
local function adder()
  local graph = core.graph "adder"
  local x = graph:input("x", "float32", { -1, 2 })
  graph:output(graph:node("MatMul", { x, graph:initializer("ones", core.tensor { { 1 }, { 1 } }) }, nil, { "y" }))
  return core.servable(core.program(graph), { model = "m", version = 3, features = { "u", "v" } })
end

local function labeller()
  local graph = core.graph "labeller"
  graph:output(graph:node("Identity", { graph:input("n", "int64", { -1, 1 }) }, nil, { "label" }))
  return core.servable(core.program(graph), { model = "m", version = 3 })
end

describe("Examples over gRPC", function()
  it("are classified and regressed", function()
    local scores, sums, labels, n = classifier(), adder(), labeller(), 0
    for title, case in pairs(examples) do
      if case[2] then
        n = n + 1
        local servable = title == "classify: labels" and labels or title:find "^regress" and sums or scores
        local method = title:find "^multi" and "multi_inference_proto" or title:find "^regress" and "regress_proto" or "classify_proto"
        local answer, message = servable[method](servable, bytes(case[1]))
        assert.are.equal(case[2], hex(answer), title .. ": " .. tostring(message))
      end
    end
    assert.are.equal(10, n)
  end)

  it("give what ONNX Runtime gives", function()
    local file = assert(io.open "spec/golden/pipeline/expected.json")
    local expected = cjson.decode(file:read "*a")
    file:close()
    local servable = mlserve.load("spec/golden/pipeline/model.onnx"):servable { model = "penguins", version = 1 }
    local result = fields(fields(assert(servable:classify_proto(example_request "pipeline")))[1][2])
    assert.are.equal(4, #result)
    local rest = { examples = {} }
    for i, instance in ipairs(expected.instances) do rest.examples[i] = { island = instance.island[1], mass = instance.mass[1] } end
    rest = cjson.decode((assert(servable:classify_json(cjson.encode(rest))))).results
    for i, each in ipairs(result) do
      local count = 0
      for k, class in ipairs(fields(each[2])) do
        count = count + 1
        local label, score = fields(class[2])[1][2], fields(class[2])[2][2]
        local tensor = core.tensor({ rest[i][k][2] }, "float32")
        assert.are.equal(rest[i][k][1], label)
        assert.are.equal(hex(tensor:tobytes()), hex(score))
        assert.near(expected.probabilities[i][label], rest[i][k][2], 1e-6)
      end
      assert.are.equal(3, count)
    end
  end)

  it("are refused in TensorFlow Serving's words", function()
    local servable = classifier()
    local cases = {
      ["no input"] = { "Input is empty." }, ["no examples"] = { "Input is empty." }, ["no examples but context"] = { "Input is empty." },
      ["no signature"] = { "No signature was found with the name: nobody's" },
      ["no feature"] = { "Name: <unknown>, Feature: x (data type: float) is required but could not be found." },
      ["feature without a list"] = { "Name: <unknown>, Feature: x (data type: float) is required but could not be found." },
      ["two values"] = { "Name: <unknown>, Key: x, Index: 1.  Number of float values != expected.  Values size: 2 but output shape: [3]" },
      ["bytes"] = { "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: string but expected type: float" },
      ["multi: twice"] = { "Duplicate evaluation of signature: serving_default" },
      ["multi: another method"] = { "Unsupported signature method_name: tensorflow/serving/predict", "UNIMPLEMENTED" },
      ["multi: another model"] = { "All ModelSpecs in a MultiInferenceRequest must access the same model name." },
      ["multi: no model"] = { "Found ModelSpec with an empty model name." },
      ["multi: no signature"] = { "Requested signature not found in model graph: nobody's" },
      ["multi: other inputs"] = { "Input tensor must be the same for all Signatures." },
    }
    for title, case in pairs(cases) do
      local method = title:find "^multi" and "multi_inference_proto" or "classify_proto"
      local answer, message, code = servable[method](servable, example_request(title))
      assert.are.same({ n = 3, nil, case[1], case[2] or "INVALID_ARGUMENT" }, { n = 3, answer, message, code }, title)
    end
    local _, message, code = servable:regress_proto(example_request "classify: named signature")
    assert.are.same({ "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [3,3]", "INVALID_ARGUMENT" }, { message, code })
    _, message, code = classifier({ max_elements = 8 }):classify_proto(example_request "classify")
    assert.are.same({ "the request has more than 8 elements", "RESOURCE_EXHAUSTED" }, { message, code })
  end)

  it("answer INTERNAL to bytes that are no message, wherever they end", function()
    local servable, codes = classifier(), {}
    for _, title in ipairs { "classify: context", "multi" } do
      local whole, method = example_request(title), title == "multi" and "multi_inference_proto" or "classify_proto"
      for size = 0, #whole - 1 do
        local answer, _, code = servable[method](servable, whole:sub(1, size))
        codes[answer and "OK" or code] = true
      end
    end
    assert.are.same({ INTERNAL = true, INVALID_ARGUMENT = true }, codes)
  end)

  it("are batched as other requests are", function()
    local servable, loop, answers = classifier(), cqueues.new(), {}
    servable:batching { mode = "always", max_batch_size = 64, batch_timeout_micros = 20000 }
    local entry, titles = { name = "m", version = "3", servable = servable }, { "classify", "multi", "two values", "classify: context" }
    for i = 1, 20 do
      local title = titles[i % 4 + 1]
      loop:wrap(function()
        answers[i] = { execute.proto(entry, title == "multi" and "multi_inference_proto" or "classify_proto", example_request(title), {}) }
      end)
    end
    assert(loop:loop())
    for i = 1, 20 do
      local title = titles[i % 4 + 1]
      if title == "two values" then assert.are.equal("INVALID_ARGUMENT", answers[i][3])
      else assert.are.equal(examples[title][2], hex(answers[i][1]), title .. ": " .. tostring(answers[i][2])) end
    end
    assert.is_true(servable:batch_stats().merged > 0)
  end)
end)

describe("PredictionService", function()
  local models, methods

  before_each(function()
    models = repository.new()
    models:add_model("m", pair(), 3)
    methods = tfserving_grpc.methods(models)
  end)

  it("finds models by name, version and label", function()
    for _, title in ipairs { "both", "versioned" } do
      local request = {}
      local answer = assert(methods.Predict(request_of(title), request))
      assert.are.same(sorted(bytes(golden.requests.both[2])), sorted(answer))
      assert.are.same({ model = "m", version = "3", verb = "predict" }, request)
    end
    models:set_label("m", "canary", 3)
    assert(methods.Predict(request_of "label", {}))
  end)

  it("classifies, regresses and does both", function()
    models:add_model("m", classifier(), 5)
    models:unload("m", 3)
    local request = {}
    local answer = assert(methods.Classify(example_request "classify", request))
    assert.are.equal((examples.classify[2]:gsub("12020803", "12020805")), hex(answer)) -- it is version 5 here
    assert.are.same({ model = "m", version = "5", verb = "classify" }, request)
    answer = assert(methods.MultiInference(example_request "multi", request))
    assert.are.equal((examples.multi[2]:gsub("12020803", "12020805")), hex(answer))
    assert.are.equal("multi_inference", request.verb)
    local _, message, code = methods.Regress(example_request "regress", request)
    assert.are.same({ "Name: <unknown>, Feature: x (data type: float) is required but could not be found.", "INVALID_ARGUMENT", "regress" },
      { message, code, request.verb })
    _, message, code = methods.MultiInference(example_request "multi: no tasks", {})
    assert.are.same({ "ModelSpec has no name specified.", "INVALID_ARGUMENT" }, { message, code })
  end)

  it("are routes of an application", function()
    local grpc = require "mlserve.serve.protocols.grpc"
    local served = require("mlserve.serve.app").new():mount(tfserving_grpc.routes(models))
    local headers = { ["content-type"] = "application/grpc", te = "trailers" }
    local response = served:handle { method = "POST", path = "/tensorflow.serving.PredictionService/Predict", headers = headers,
      body = grpc.frame(request_of "both") }
    assert.are.equal("0", response.trailers["grpc-status"])
    assert.are.same(sorted(bytes(golden.requests.both[2])), sorted(response.body:sub(6)))
    assert.are.same({ "m", "3", "predict" }, { response.model, response.version, response.verb })
    response = served:handle { method = "POST", path = "/tensorflow.serving.PredictionService/Predict", headers = headers,
      body = grpc.frame(request_of "no signature") }
    assert.are.same({ "9", "Serving signature key \"nobody's\" not found." }, { response.trailers["grpc-status"],
      grpc.percent_decode(response.trailers["grpc-message"]) })
  end)

  it("refuses in TensorFlow Serving's words", function()
    local cases = {
      ["no model_spec"] = { "Missing ModelSpec", "INVALID_ARGUMENT" },
      ["empty name"] = { "ModelSpec has no name specified.", "INVALID_ARGUMENT" },
      ["label"] = { "Unrecognized servable version label: canary", "INVALID_ARGUMENT" },
      ["negative version"] = { "Servable not found for request: Specific(m, -1)", "NOT_FOUND" },
    }
    for title, case in pairs(cases) do
      local answer, message, code = methods.Predict(request_of(title), {})
      assert.are.same({ n = 3, nil, case[1], case[2] }, { n = 3, answer, message, code }, title)
    end
    assert.is_truthy(methods.Predict(request_of "version 0", {})) -- OpenVINO's client means none by it
    models = repository.new()
    local _, message, code = tfserving_grpc.methods(models).Predict(request_of "both", {})
    assert.are.same({ "Servable not found for request: Latest(m)", "NOT_FOUND" }, { message, code })
    _, _, code = methods.Predict("\10", {})
    assert.are.equal("INTERNAL", code)
  end)
end)
