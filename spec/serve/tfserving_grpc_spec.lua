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

  it("refuses in TensorFlow Serving's words", function()
    local cases = {
      ["no model_spec"] = { "Missing ModelSpec", "INVALID_ARGUMENT" },
      ["empty name"] = { "ModelSpec has no name specified.", "INVALID_ARGUMENT" },
      ["label"] = { "Unrecognized servable version label: canary", "INVALID_ARGUMENT" },
      ["version 0"] = { "Servable not found for request: Specific(m, 0)", "NOT_FOUND" },
      ["negative version"] = { "Servable not found for request: Specific(m, -1)", "NOT_FOUND" },
    }
    for title, case in pairs(cases) do
      local answer, message, code = methods.Predict(request_of(title), {})
      assert.are.same({ n = 3, nil, case[1], case[2] }, { n = 3, answer, message, code }, title)
    end
    models = repository.new()
    local _, message, code = tfserving_grpc.methods(models).Predict(request_of "both", {})
    assert.are.same({ "Servable not found for request: Latest(m)", "NOT_FOUND" }, { message, code })
    _, _, code = methods.Predict("\10", {})
    assert.are.equal("INTERNAL", code)
  end)
end)
