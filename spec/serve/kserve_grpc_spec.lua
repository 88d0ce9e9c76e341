-- KServe's ModelInfer over gRPC. Requests are tritonclient's or made with its messages, expected answers what it reads back
-- (spec/golden/make_grpc.py); texts of refusals are Triton's (infer_handler.cc, grpc_utils.cc; infer_request.cc of its core).

local core = require "mlserve.core"
local cqueues = require "cqueues"
local execute = require "mlserve.serve.execute"
local kserve_grpc = require "mlserve.serve.protocols.kserve_grpc"
local protobuf = require "spec.support.protobuf"
local repository = require "mlserve.serve.repository"

local bytes, fields, hex = protobuf.bytes, protobuf.fields, protobuf.hex

local golden = protobuf.golden "infer"

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
  local given = { model = "m", version = 3 }
  for key, value in pairs(options or {}) do given[key] = value end
  return core.servable(core.program(graph), given)
end

local UNKNOWN = "[request id: <id_unknown>] "
local REFUSALS = {
  ["one input"] = UNKNOWN .. "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing required input(s) ['b']. Please provide "
    .. "all required input(s).",
  ["three inputs"] = UNKNOWN .. "expected 2 inputs but got 3 inputs for model 'm'. Got input(s) ['a','b','c'], but missing required input(s) []. Please "
    .. "provide all required input(s).",
  ["other input"] = "unexpected inference input 'c' for model 'm'",
  ["input twice"] = "input 'a' already exists in request",
  ["no input"] = UNKNOWN .. "expected 2 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['a','b']. Please provide all "
    .. "required input(s).",
  ["other type"] = UNKNOWN .. "inference input 'b' data-type is 'FP64', but model 'm' expects 'FP32'",
  ["no type"] = "invalid datatype for input b",
  ["shape"] = UNKNOWN .. "unexpected shape for input 'b' for model 'm'. Expected [-1,2], got [2,3]. ",
  ["shape and id"] = "[request id: 42] unexpected shape for input 'b' for model 'm'. Expected [-1,2], got [2,3]. ",
  ["negative shape"] = "input 'b': -1 is no size of a dimension",
  ["deep"] = "input 'b': more than 16 dimensions",
  ["raw too short"] = UNKNOWN .. "input byte size mismatch for input 'b' for model 'm'. Expected 16, got 15",
  ["raw missing"] = "unable to find data for input tensor 'b' for model 'm' in request.",
  ["both forms"] = "contents field must not be specified when using raw_input_contents for 'a' for model 'm'",
  ["typed: too few"] = UNKNOWN .. "input byte size mismatch for input 'b' for model 'm'. Expected 16, got 12",
  ["typed: too many"] = UNKNOWN .. "input byte size mismatch for input 'b' for model 'm'. Expected 16, got 20",
  ["typed: nothing"] = UNKNOWN .. "input byte size mismatch for input 'b' for model 'm'. Expected 16, got 0",
  ["typed: other list"] = "unexpected explicit tensor data for input tensor 'b' for model 'm' of type 'INT32', expected datatype 'FP32'",
  ["typed: two lists"] = "unexpected explicit tensor data for input tensor 'b' for model 'm', binary data was already supplied.",
  ["unknown output"] = "unexpected inference output 'product' for model 'm'",
  ["no classes"] = "invalid value for 'classification' parameter, expected >= 0",
  ["classes of another type"] = "invalid value type for 'classification' parameter, expected int64_param",
  ["parameter sequence_id"] = "invalid value type for 'sequence_id' parameter, expected int64_param or string_param.",
  ["parameter sequence_start"] = "invalid value type for 'sequence_start' parameter, expected bool_param.",
  ["parameter sequence_end"] = "invalid value type for 'sequence_end' parameter, expected bool_param.",
  ["parameter priority"] = "invalid value type for 'priority' parameter, expected int64_param or uint64_param.",
  ["parameter timeout"] = "invalid value type for 'timeout' parameter, expected int64_param.",
  ["parameter triton_x"] = "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with 'triton_' are "
    .. "allowed: triton_enable_empty_final_response",
  ["parameter triton_enable_empty_final_response"] = "invalid value type for 'triton_enable_empty_final_response' parameter, expected bool_param.",
  ["parameter other"] = "invalid value type for 'other' parameter, expected int64_param, bool_param, or string_param.",
  ["negative priority"] = "invalid value for 'priority', expected value >= 0.",
  ["empty parameter"] = "invalid value type for 'nothing' parameter, expected int64_param, bool_param, or string_param.",
}

describe("ModelInfer over gRPC", function()
  it("reads and writes every type as tritonclient does", function()
    assert.is_true(#golden.copies > 70)
    for _, case in ipairs(golden.copies) do
      local servable = copier(case.dtype, case.dims)
      local answer, message = servable:infer_proto(bytes(case.request))
      assert.are.equal(case.response, hex(answer), case.title .. ": " .. tostring(message))
      servable:close()
    end
  end)

  it("gives the outputs that are asked for, and classes", function()
    local servable, n = pair(), 0
    for title, case in pairs(golden.requests) do
      if case[2] then
        n = n + 1
        local answer, message = servable:infer_proto(bytes(case[1]))
        assert.are.equal(case[2], hex(answer), title .. ": " .. tostring(message))
      end
    end
    assert.are.equal(11, n)
    local answer = fields(assert(servable:infer_proto(request_of "one output", nil, "their name", "stable")))
    assert.are.same({ { 1, "their name" }, { 2, "stable" } }, { answer[1], answer[2] })
  end)

  it("says what is wrong in Triton's words", function()
    local servable = pair()
    for title, expected in pairs(REFUSALS) do
      local answer, message, code = servable:infer_proto(request_of(title))
      assert.are.same({ n = 3, nil, expected, "INVALID_ARGUMENT" }, { n = 3, answer, message, code }, title)
    end
    local _, message, code = servable:infer_proto(request_of "shared memory")
    assert.are.same({ "shared memory is not supported: data are sent in the message", "UNIMPLEMENTED" }, { message, code })
    _, message = pair({ max_elements = 7 }):infer_proto(request_of "both")
    assert.are.equal("input 'b': the request has more than 7 elements", message)
    -- strings in raw contents
    local texts, where = copier("string", { -1 }), "inference input 'x' for model 'm'"
    local refusals = {
      ["length cut off"] = "incomplete string length indicator for " .. where .. ", expecting 4 bytes but only 2 bytes available. Please make sure the "
        .. "string length indicator is in one buffer.",
      ["bytes cut off"] = "incomplete string data for " .. where .. ", expecting string of length 5 but only 3 bytes available",
      ["too few"] = "expected 2 string elements for " .. where .. ", got 1",
      ["too many"] = "unexpected number of string elements 3 for " .. where .. ", expecting 2",
    }
    for title, expected in pairs(refusals) do
      _, message, code = texts:infer_proto(bytes(golden.strings[title]))
      assert.are.same({ UNKNOWN .. expected, "INVALID_ARGUMENT" }, { message, code }, title)
    end
  end)

  it("answers INTERNAL to bytes that are no message, wherever they end", function()
    local servable, codes = pair(), {}
    for _, title in ipairs { "parameters", "best class" } do
      local whole = request_of(title)
      for size = 0, #whole - 1 do
        local answer, message, code = servable:infer_proto(whole:sub(1, size))
        assert.is_nil(answer)
        assert.is_true(#message > 0)
        codes[code] = true
      end
    end
    assert.are.same({ INTERNAL = true, INVALID_ARGUMENT = true }, codes)
    local _, message, code = servable:infer_proto("\26\2\255\254")
    assert.are.same({ "the request is no message of this method: id is not UTF-8", "INTERNAL" }, { message, code })
  end)

  it("counts as REST requests do", function()
    local servable = pair()
    assert(servable:infer_proto(request_of "both"))
    assert.is_nil((servable:infer_proto(request_of "shape")))
    assert.is_nil((servable:infer_proto("\10")))
    local text = servable:statistics()
    assert.is_truthy(text:find('"inference_count": 2, "execution_count": 1, "inference_stats": {"success": {"count": 1, ', 1, true), text)
    assert.is_truthy(text:find('"fail": {"count": 2, ', 1, true), text)
    assert.is_truthy(text:find('"batch_size": 2, ', 1, true), text)
  end)

  it("is batched as other requests are", function()
    local servable, loop, answers = pair(), cqueues.new(), {}
    servable:batching { mode = "always", max_batch_size = 64, batch_timeout_micros = 20000 }
    local entry, titles = { name = "m", version = "3", servable = servable }, { "both", "one output", "best class", "shape", "parameters" }
    for i = 1, 20 do
      loop:wrap(function() answers[i] = { execute.proto(entry, "infer_proto", request_of(titles[i % 5 + 1]), {}) } end)
    end
    assert(loop:loop())
    for i = 1, 20 do
      local title = titles[i % 5 + 1]
      if title == "shape" then assert.are.same({ REFUSALS.shape, "INVALID_ARGUMENT" }, { answers[i][2], answers[i][3] })
      else assert.are.equal(golden.requests[title][2], hex(answers[i][1]), title .. ": " .. tostring(answers[i][2])) end
    end
    assert.is_true(servable:batch_stats().merged > 0)
    local statistics = servable:statistics()
    assert.is_truthy(statistics:find('"success": {"count": 16, ', 1, true) and statistics:find('"fail": {"count": 4, ', 1, true), statistics)
    -- a microsecond is over before the others have come for whom the batch waits
    local waiting, late = pair(), nil
    waiting:batching { mode = "always", max_batch_size = 64, batch_timeout_micros = 50000 }
    local timeout = protobuf.field(4, protobuf.field(1, "timeout") .. protobuf.field(2, "\16\1"))
    loop:wrap(function() late = { execute.proto({ name = "m", version = "3", servable = waiting }, "infer_proto", request_of "both" .. timeout, {}) } end)
    assert(loop:loop())
    assert.are.equal("DEADLINE_EXCEEDED", late[3])
    for _, case in ipairs(golden.copies) do -- what must be unpacked before it waits
      if #case.dims == 2 then
        local copy = copier(case.dtype, case.dims)
        copy:batching { mode = "always" }
        local answer, message = execute.proto({ name = "m", version = "3", servable = copy }, "infer_proto", bytes(case.request), { timeout = 5 })
        assert.are.equal(case.response, hex(answer), case.title .. ": " .. tostring(message))
        copy:close()
      end
    end
  end)
end)

describe("GRPCInferenceService", function()
  local models, methods

  before_each(function()
    models = repository.new()
    models:add_model("m", pair(), 3)
    methods = kserve_grpc.methods(models)
  end)

  it("finds models by name, version and label", function()
    local request = {}
    assert.are.equal(golden.requests.version[2], hex((assert(methods.ModelInfer(request_of "version", request)))))
    assert.are.same({ model = "m", version = "3", verb = "infer" }, request)
    models:set_label("m", "canary", 3)
    assert(methods.ModelInfer(request_of "label", {}))
  end)

  it("are routes of an application", function()
    local grpc = require "mlserve.serve.protocols.grpc"
    local served = require("mlserve.serve.app").new():mount(kserve_grpc.routes(models))
    local headers, path = { ["content-type"] = "application/grpc", te = "trailers" }, "/inference.GRPCInferenceService/ModelInfer"
    local response = served:handle { method = "POST", path = path, headers = headers, body = grpc.frame(request_of "both") }
    assert.are.equal("0", response.trailers["grpc-status"])
    assert.are.equal(golden.requests.both[2], hex(response.body:sub(6)))
    assert.are.same({ "m", "3", "infer" }, { response.model, response.version, response.verb })
    response = served:handle { method = "POST", path = path, headers = headers, body = grpc.frame(request_of "shape") }
    assert.are.same({ "3", REFUSALS.shape }, { response.trailers["grpc-status"], grpc.percent_decode(response.trailers["grpc-message"]) })
  end)

  -- as nginx's thread pool does it
  it("is batched where a model is known by its handle", function()
    local worker = require "mlserve.serve.transports.nginx_worker"
    local servable = pair()
    servable:batching { mode = "always" }
    assert.are.equal(golden.requests.both[2], hex((worker.call(servable:handle(), false, "infer_proto", request_of "both", nil, "m", "3"))))
    assert.are.equal(1, servable:batch_stats().jobs)
    local _, message, code = worker.call(servable:handle(), false, "infer_proto", request_of "shape", nil, "m", "3")
    assert.are.same({ REFUSALS.shape, "INVALID_ARGUMENT" }, { message, code })
  end)

  it("refuses in Triton's words", function()
    local cases = {
      ["other model"] = { "Request for unknown model: 'nobody' is not found", "NOT_FOUND" },
      ["other version"] = { "Request for unknown model: 'm' version 9 is not found", "NOT_FOUND" },
      ["label"] = { "Request for unknown model: 'm' version canary is not found", "NOT_FOUND" },
      ["shape"] = { REFUSALS.shape, "INVALID_ARGUMENT" },
    }
    for title, case in pairs(cases) do
      local answer, message, code = methods.ModelInfer(request_of(title), {})
      assert.are.same({ n = 3, nil, case[1], case[2] }, { n = 3, answer, message, code }, title)
    end
    local _, _, code = methods.ModelInfer("\10", {})
    assert.are.equal("INTERNAL", code)
  end)
end)
