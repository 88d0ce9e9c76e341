-- The control methods of gRPC against the REST routes, which answer from the same data, and against TensorFlow Serving's and Triton's texts and codes.
-- Messages are encoded and decoded by mlserve.proto, which spec/proto_spec.lua holds to Google's library.

local app = require "mlserve.serve.app"
local cases = require "spec.support.kserve_cases"
local cjson = require "cjson"
local fake_servable = require "spec.support.fake_servable"
local grpc = require "mlserve.serve.protocols.grpc"
local grpc_call = require "spec.support.grpc_call"
local grpc_health = require "mlserve.serve.protocols.grpc_health"
local grpc_schema = require "mlserve.serve.protocols.grpc_schema"
local grpc_services = require "mlserve.serve.protocols.grpc_services"
local kserve = require "mlserve.serve.protocols.kserve"
local process = require "spec.support.process"
local proto = require "mlserve.proto"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

-- number and text of what a call gave
local function refusal(answer, code, text)
  assert.is_nil(answer)
  return { code, text }
end

local PIPELINE = "spec/golden/pipeline/model.onnx"

local function new(models, options)
  local it_ = app.new():mount(tfserving.routes(models)):mount(kserve.routes(models, options))
  grpc_services.mount(it_, models, options)
  return it_
end

local function rest(it_, method, path, body)
  local response = it_:handle { method = method, path = path, headers = {}, body = body or "" }
  return response.body ~= "" and cjson.decode(response.body) or nil, response.status
end

local function directory_of(names)
  local root = process.directory()
  for _, name in ipairs(names) do
    os.execute("mkdir -p " .. process.quote(root .. "/" .. name))
    os.execute("cp " .. PIPELINE .. " " .. process.quote(root .. "/" .. name .. "/model.onnx"))
  end
  return root
end

describe("TensorFlow Serving's control methods", function()
  local models, it_, predictions, service

  before_each(function()
    models = repository.new()
    models:add_model("m", fake_servable.new(0), 3)
    models:add_model("m", fake_servable.new(0), 12)
    models:set_label("m", "stable", 3)
    it_ = new(models)
    predictions, service = grpc_call.service(it_, "tensorflow.serving.PredictionService"), grpc_call.service(it_, "tensorflow.serving.ModelService")
  end)

  it("give the metadata that REST gives", function()
    for _, spec in ipairs { {}, { version = { value = 3 } }, { version_label = "stable" } } do
      spec.name = "m"
      local answer, _, _, response = predictions("GetModelMetadata", { model_spec = spec, metadata_field = { "signature_def" } })
      local path = "/v1/models/m" .. (spec.version and "/versions/3" or spec.version_label and "/labels/stable" or "") .. "/metadata"
      local document = rest(it_, "GET", path)
      assert.are.equal("m", answer.model_spec.name)
      assert.are.equal(document.model_spec.version, tostring(answer.model_spec.version.value))
      local any = answer.metadata.signature_def
      assert.are.equal("type.googleapis.com/tensorflow.serving.SignatureDefMap", any.type_url)
      local signature = assert(grpc_schema.schema():decode("tensorflow.serving.SignatureDefMap", any.value)).signature_def.serving_default
      local expected = document.metadata.signature_def.signature_def.serving_default
      assert.are.equal(expected.method_name, signature.method_name)
      for _, side in ipairs { "inputs", "outputs" } do
        for name, tensor in pairs(expected[side]) do
          local actual = signature[side][name]
          assert.are.same({ tensor.name, tensor.dtype, #tensor.tensor_shape.dim }, { actual.name, actual.dtype, #actual.tensor_shape.dim })
          for i, dim in ipairs(tensor.tensor_shape.dim) do assert.are.equal(dim.size, tostring(actual.tensor_shape.dim[i].size)) end
          signature[side][name] = nil
        end
        assert.is_nil(next(signature[side]))
      end
      assert.are.same({ "m", answer.model_spec.version.value == 3 and "3" or "12", "metadata", "OK" },
        { response.model, response.version, response.verb, response.code })
    end
  end)

  it("refuse metadata as TensorFlow Serving does", function()
    local field = { "signature_def" }
    for _, case in ipairs {
      { { metadata_field = field }, 3, "Missing ModelSpec" },
      { { model_spec = {}, metadata_field = field }, 3, "ModelSpec has no name specified." },
      { { model_spec = { name = "x" }, metadata_field = field }, 5, "Servable not found for request: Latest(x)" },
      { { model_spec = { name = "m", version = { value = 7 } }, metadata_field = field }, 5, "Servable not found for request: Specific(m, 7)" },
      { { model_spec = { name = "m", version = { value = "9223372036854775807" } }, metadata_field = field }, 5,
        "Servable not found for request: Specific(m, 9223372036854775807)" },
      { { model_spec = { name = "m", version = { value = -1 } }, metadata_field = field }, 5, "Servable not found for request: Specific(m, -1)" },
      { { model_spec = { name = "m", version_label = "beta" }, metadata_field = field }, 3, "Unrecognized servable version label: beta" },
      { { model_spec = { name = "m" } }, 3, "GetModelMetadataRequest must specify at least one metadata_field" },
      { { model_spec = { name = "m" }, metadata_field = { "signature_def", "other" } }, 3, "Metadata field other is not supported" },
    } do
      local answer, code, text, response = predictions("GetModelMetadata", case[1])
      assert.are.same({ nil, case[2], case[3], n = 3 }, { answer, code, text, n = 3 })
      assert.are.equal(case[2] == 5 and "NOT_FOUND" or "INVALID_ARGUMENT", response.code)
    end
    local response = grpc_call.raw(it_, "/tensorflow.serving.PredictionService/GetModelMetadata", nil, "\10\255")
    assert.are.same({ "13", "Cannot parse the request: tensorflow.serving.GetModelMetadataRequest.model_spec: truncated" },
      { response.trailers["grpc-status"], response.trailers["grpc-message"] })
  end)

  it("give the states that REST gives", function()
    models:unload("m", 3)
    for _, version in ipairs { false, 3, 12 } do
      local answer = service("GetModelStatus", { model_spec = { name = "m", version = version and { value = version } or nil } })
      local document = rest(it_, "GET", "/v1/models/m" .. (version and "/versions/" .. version or ""))
      assert.are.equal(#document.model_version_status, #answer.model_version_status)
      for i, expected in ipairs(document.model_version_status) do
        local actual = answer.model_version_status[i]
        assert.are.same({ expected.version, expected.state, expected.status.error_code, expected.status.error_message },
          { tostring(actual.version), actual.state, actual.status.error_code or "OK", actual.status.error_message or "" })
      end
    end
    for _, case in ipairs {
      { {}, 3, "Missing ModelSpec" }, { { model_spec = { name = "x" } }, 5, "Could not find any versions of model x" },
      { { model_spec = { name = "m", version = { value = 4 } } }, 5, "Could not find version 4 of model m" },
      { { model_spec = { name = "m", version = { value = -4 } } }, 5, "Could not find version -4 of model m" },
    } do
      assert.are.same({ case[2], case[3] }, refusal(service("GetModelStatus", case[1])), case[3])
    end
    assert.are.equal(2, #service("GetModelStatus", { model_spec = { name = "m", version_label = "none" } }).model_version_status)
  end)

  describe("of the configuration", function()
    local root
    local TYPES = { "ReloadConfigRequest", "ReloadConfigResponse" }

    local function reload(list) return service("HandleReloadConfigRequest", { config = { model_config_list = { config = list } } }, TYPES) end

    local function served()
      local list = {}
      for _, name in ipairs(models:names()) do
        for _, entry in ipairs(models:versions(name) or {}) do
          if entry.state == "AVAILABLE" then list[#list + 1] = name .. ":" .. entry.version end
        end
      end
      table.sort(list)
      return table.concat(list, " ")
    end

    before_each(function()
      root = directory_of { "a/1", "a/2", "b/5", "c/1" }
      models = repository.new { admin = true }
      assert(models:add_directory("a", root .. "/a"))
      it_ = new(models, { admin = true })
      service = grpc_call.service(it_, "tensorflow.serving.ModelService")
    end)
    after_each(function() os.execute("rm -rf " .. process.quote(root)) end)

    it("take the place of the one there was", function()
      assert.are.equal("a:2", served())
      local answer = reload {
        { name = "a", base_path = root .. "/a", model_platform = "tensorflow", model_version_policy = { all = {} }, version_labels = { stable = 1, canary = 2 } },
        { name = "b", base_path = root .. "/b", model_type = "TENSORFLOW" },
      }
      assert.are.same({ status = {} }, answer)
      assert.are.equal("a:1 a:2 b:5", served())
      assert.are.equal("1", models:get("a", nil, "stable").version)
      assert.are.equal("2", models:get("a", nil, "canary").version)
      assert.is_table(reload {
        { name = "a", base_path = root .. "/a", model_platform = "tensorflow", model_version_policy = { specific = { versions = { 1 } } },
          version_labels = { stable = 1 } },
        { name = "c", base_path = root .. "/c", model_platform = "tensorflow", model_version_policy = { latest = { num_versions = 2 } } },
      })
      assert.are.equal("a:1 c:1", served())
      assert.is_nil((models:get("a", nil, "canary")))
      -- what was unloaded is wanted again when it is listed
      models:unload "c"
      assert.are.equal("a:1", served())
      assert.is_table(reload { { name = "c", base_path = root .. "/c", model_platform = "tensorflow" } })
      assert.are.equal("c:1", served())
      assert.is_table(reload {})
      assert.are.equal("", served())
    end)

    it("is refused when it is wrong, and nothing changes", function()
      local good = { name = "a", base_path = root .. "/a", model_platform = "tensorflow" }
      assert.is_table(reload { good })
      for _, case in ipairs {
        { { good, good }, 3, "Illegal to list model a multiple times in config list" },
        { { { name = "a", base_path = "a", model_platform = "tensorflow" } }, 3, "Expected model a to have an absolute path or URI; got base_path()=a" },
        { { { name = "a", base_path = "/a" } }, 3,
          "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, model name is a" },
        { { { name = "a", base_path = "/a", model_platform = "onnx" } }, 3,
          "Illegal to change a model's platform. For model a platform was tensorflow and new platform requested is onnx" },
        { { { name = "../a", base_path = "/a", model_platform = "onnx" } }, 3, "Invalid name of a model: '../a'" },
        { { { name = "q", base_path = "/q", model_platform = "x", model_version_policy = { specific = { versions = { -1 } } } } }, 3,
          "Invalid version -1 of model q" },
        { { { name = "q", base_path = "/q", model_platform = "x", version_labels = { l = -2 } } }, 3, "Invalid label 'l' of version -2 of model q" },
      } do
        local _, code, text = reload(case[1])
        assert.are.same({ case[2], case[3] }, { code, text })
        assert.are.equal("a:2", served())
      end
      for _, config in ipairs { { config = {} }, {}, { config = { custom_model_config = { type_url = "x" } } } } do
        local _, code, text = service("HandleReloadConfigRequest", config, TYPES)
        assert.are.equal(3, code)
        assert.truthy(text:find("Only ModelConfigList is currently supported", 1, true))
      end
    end)

    it("says which models did not become available, and which labels cannot be", function()
      process.write(root .. "/c/1/model.onnx", "junk")
      local _, code, text = reload {
        { name = "c", base_path = root .. "/c", model_platform = "tensorflow" }, { name = "d", base_path = root .. "/d", model_platform = "tensorflow" },
      }
      assert.are.equal(2, code)
      assert.truthy(text:find("^2 model%(s%) did not become available: {{name: c version: 1 due to error: .*}, {name: d due to error: .*}, }$"), text)
      _, code, text = reload { { name = "b", base_path = root .. "/b", model_platform = "tensorflow", version_labels = { stable = 6 } } }
      assert.are.same({ 9, "Request to assign label to version 6 of model b, which is not currently available for inference" }, { code, text })
      assert.is_nil((models:get("b", nil, "stable")))
      assert.are.equal("b:5", served())
    end)

    it("waits for what is loaded aside", function()
      local core, slept = require "mlserve.core", 0
      models.sleep = function(seconds)
        slept = slept + 1
        local stop = core.clock() + seconds
        repeat until core.clock() > stop
      end
      assert.is_table(reload { { name = "b", base_path = root .. "/b", model_platform = "tensorflow" } })
      assert.are.equal("b:5", served():match "b:5")
      assert.is_true(slept > 0)
    end)

    it("is closed unless it was opened", function()
      it_ = new(models)
      service = grpc_call.service(it_, "tensorflow.serving.ModelService")
      assert.are.equal(7, (select(2, reload {})))
      assert.are.equal("a:2", served())
    end)
  end)
end)

describe("KServe's control methods", function()
  local models, it_, call, root

  before_each(function()
    models = repository.new()
    models:add_model("pair", cases.pair(), 1)
    models:add_model("pair", cases.pair(), 2)
    it_ = new(models)
    call = grpc_call.service(it_, "inference.GRPCInferenceService")
  end)

  it("answer as REST does", function()
    assert.are.same({ live = true }, call "ServerLive")
    assert.are.same({ ready = true }, call "ServerReady")
    assert.are.same(rest(it_, "GET", "/v2"), call "ServerMetadata")
    for _, version in ipairs { "", "1", "2" } do
      local path = "/v2/models/pair" .. (version ~= "" and "/versions/" .. version or "")
      assert.are.same({ ready = true }, call("ModelReady", { name = "pair", version = version }))
      local expected, answer = rest(it_, "GET", path), call("ModelMetadata", { name = "pair", version = version })
      assert.are.same(expected, answer)
      expected, answer = rest(it_, "GET", path .. "/config"), call("ModelConfig", { name = "pair", version = version }).config
      assert.are.same({ expected.name, expected.platform, expected.backend, expected.max_batch_size, #expected.input, #expected.output },
        { answer.name, answer.platform, answer.backend, answer.max_batch_size or 0, #answer.input, #answer.output })
      for _, side in ipairs { "input", "output" } do
        for i, tensor in ipairs(expected[side]) do
          local actual = answer[side][i]
          assert.are.same({ tensor.name, tensor.data_type, tensor.dims }, { actual.name, actual.data_type, actual.dims or {} })
        end
      end
      assert.are.equal("KIND_CPU", answer.instance_group[1].kind)
    end
  end)

  it("give statistics", function()
    local function numbers(value, path, into)
      for key, each in pairs(value) do
        if type(each) == "table" then numbers(each, path .. "." .. key, into) elseif each ~= 0 then into[path .. "." .. key] = each end
      end
      return into
    end
    for _, model in ipairs { "pair", "" } do
      local expected = rest(it_, "GET", model == "" and "/v2/models/stats" or "/v2/models/pair/stats")
      assert.are.same(numbers(expected, "", {}), numbers(call("ModelStatistics", { name = model }), "", {}))
    end
    assert.are.same({ 3, "requested model 'x' is not available" }, refusal(call("ModelStatistics", { name = "x" })))
    assert.are.equal(3, (select(2, call("ModelStatistics", { version = "1" }))))
  end)

  it("refuse what is not there", function()
    assert.are.same({}, call("ModelReady", { name = "x" }))
    assert.are.same({}, call("ModelReady", { name = "pair", version = "9" }))
    assert.are.equal(3, (select(2, call "ModelReady")))
    for _, method in ipairs { "ModelMetadata", "ModelConfig" } do
      assert.are.same({ 5, "Request for unknown model: 'x' is not found" }, refusal(call(method, { name = "x" })))
      assert.are.same({ 5, "Request for unknown model: 'pair' version 9 is not found" }, refusal(call(method, { name = "pair", version = "9" })))
      assert.are.equal(3, (select(2, call(method))))
    end
    models:unload("pair", 1)
    local _, code, text, response = call("ModelMetadata", { name = "pair", version = "1" })
    assert.are.same({ 14, "Request for unknown model: 'pair' version 1 is not at ready state" }, { code, text })
    assert.are.same({ 503, "pair", "1", "metadata" }, { response.outcome, response.model, response.version, response.verb })
    for _, method in ipairs { "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload" } do
      assert.are.equal(14, (select(2, call(method, method ~= "RepositoryIndex" and { model_name = "pair" } or {}))))
    end
  end)

  it("load and unload where it is allowed", function()
    root = directory_of { "a/1", "b/1" }
    models = repository.new { admin = true }
    models:add_root(root)
    it_ = new(models, { admin = true })
    call = grpc_call.service(it_, "inference.GRPCInferenceService")
    assert.are.same({ models = rest(it_, "POST", "/v2/repository/index") }, call "RepositoryIndex")
    assert.are.same({}, call("RepositoryModelUnload", { model_name = "a", parameters = { unload_dependents = { bool_param = true } } }))
    assert.are.same({ models = { { name = "a", version = "1", state = "UNAVAILABLE", reason = "unloaded" }, { name = "b", version = "1", state = "READY" } } },
      call "RepositoryIndex")
    assert.are.same({ models = { { name = "b", version = "1", state = "READY" } } }, call("RepositoryIndex", { ready = true }))
    assert.are.same({}, call("ModelReady", { name = "a" }))
    assert.are.same({}, call("RepositoryModelLoad", { model_name = "a" }))
    assert.are.same({ ready = true }, call("ModelReady", { name = "a" }))
    assert.are.same({ 3, "failed to load 'x', failed to poll from model repository" }, refusal(call("RepositoryModelLoad", { model_name = "x" })))
    assert.are.equal(12, (select(2, call("RepositoryModelLoad", { model_name = "a", parameters = { config = { string_param = "" } } }))))
    assert.are.equal(12, (select(2, call("RepositoryModelLoad", { model_name = "a", repository_name = "r" }))))
    assert.are.equal(3, (select(2, call("RepositoryModelLoad", {}))))
    assert.are.equal(3, (select(2, call("RepositoryModelUnload", { model_name = "a", parameters = { unload_dependents = { int64_param = 1 } } }))))
    os.execute("rm -rf " .. process.quote(root))
  end)
end)

describe("streams of infer requests", function()
  local models = repository.new()
  models:add_model("pair", cases.pair(), 1)
  local it_ = new(models)
  local PATH = "/inference.GRPCInferenceService/ModelStreamInfer"

  local function request(id, model)
    return grpc.frame(grpc_schema.schema():encode("inference.ModelInferRequest", {
      model_name = model or "pair", id = id, inputs = {
        { name = "a", datatype = "FP32", shape = { 1, 2 }, contents = { fp32_contents = { 4, 3 } } },
        { name = "b", datatype = "FP32", shape = { 1, 2 }, contents = { fp32_contents = { 2, 1 } } },
      },
    }))
  end

  local function ask(pieces, headers)
    local all, stream = { ["content-type"] = "application/grpc" }, grpc_call.stream(pieces)
    for name, value in pairs(headers or {}) do all[name] = value end
    local response = it_:handle { method = "POST", path = PATH, headers = all, stream = stream }
    return grpc_call.messages(table.concat(stream.written), "inference.ModelStreamInferResponse"), response
  end

  it("are answered one by one", function()
    assert.is_true(it_:streaming("POST", PATH))
    local answers, response = ask { request "1", request("2", "x"), request "3" .. request(("4"):rep(200)) }
    assert.are.equal("0", response.trailers["grpc-status"])
    assert.are.equal(4, #answers)
    for i, id in pairs { [1] = "1", [3] = "3", [4] = ("4"):rep(200) } do
      local answer = answers[i].infer_response
      assert.is_nil(answers[i].error_message)
      assert.are.same({ "pair", "1", id }, { answer.model_name, answer.model_version, answer.id })
      local names = {}
      for j, output in ipairs(answer.outputs) do names[j] = output.name end
      assert.are.same({ "sum", "diff" }, names)
      assert.are.same({ "\0\0\192\64\0\0\128\64", "\0\0\0\64\0\0\0\64" }, answer.raw_output_contents) -- 6 4, 2 2
    end
    assert.are.equal("Request for unknown model: 'x' is not found", answers[2].error_message)
    assert.is_nil(answers[2].infer_response)
  end)

  it("end at the first error for who asks for that", function()
    local answers, response = ask({ request "1", request("2", "x"), request "3" }, { triton_grpc_error = "true" })
    assert.are.equal(1, #answers)
    assert.are.equal("5", response.trailers["grpc-status"])
  end)
end)

describe("health", function()
  local models, it_, call, stopping
  local CHECK = { "HealthCheckRequest", "HealthCheckResponse" }

  local function check(name) return call("Check", { service = name }, CHECK) end

  before_each(function()
    models, stopping = repository.new(), false
    models:add_model("m", fake_servable.new(0), 1)
    it_ = new(models, { stopping = function() return stopping end })
    call = grpc_call.service(it_, "grpc.health.v1.Health")
  end)

  it("is told of the server, services and models", function()
    for _, name in ipairs { "", "m", "tensorflow.serving.PredictionService", "PredictionService", "ModelService", "inference.GRPCInferenceService" } do
      assert.are.same({ status = "SERVING" }, check(name))
    end
    assert.are.same({ 5, "unknown service x" }, refusal(check "x"))
    models:unload "m"
    assert.are.same({ status = "NOT_SERVING" }, check "m")
    assert.are.same({ status = "SERVING" }, check "") -- on purpose
    stopping = true
    for _, name in ipairs { "", "m", "PredictionService" } do assert.are.same({ status = "NOT_SERVING" }, check(name)) end
  end)

  it("is not that of a server with a model that does not load", function()
    local root = process.directory()
    os.execute("mkdir -p " .. root .. "/bad/1")
    process.write(root .. "/bad/1/model.onnx", "junk")
    models:add_directory("bad", root .. "/bad")
    assert.are.same({ status = "NOT_SERVING" }, check "")
    assert.are.same({ status = "NOT_SERVING" }, check "bad")
    assert.are.same({ status = "SERVING" }, check "m")
    assert.are.same({ status = "SERVING" }, check "PredictionService")
    os.execute("rm -rf " .. root)
  end)

  it("lists all it knows", function()
    local answer = call("List", {}, { "HealthListRequest", "HealthListResponse" })
    local names = {}
    for name, each in pairs(answer.statuses) do
      assert.are.equal("SERVING", each.status)
      names[#names + 1] = name
    end
    table.sort(names)
    assert.are.same({ "", "ModelService", "PredictionService", "inference.GRPCInferenceService", "m", "tensorflow.serving.ModelService",
      "tensorflow.serving.PredictionService" }, names)
    for i = 1, 100 do models:add_model("more" .. i, fake_servable.new(0), 1) end
    assert.are.equal(8, (select(2, call("List", {}, { "HealthListRequest", "HealthListResponse" }))))
  end)

  local function watch(name, happenings)
    local stream = grpc_call.stream { grpc.frame(grpc_schema.schema():encode("grpc.health.v1.HealthCheckRequest", { service = name })), "end" }
    local at = 0
    function stream.wait(_, seconds)
      assert.is_true(seconds > 0 and seconds < 2)
      at = at + 1
      if not happenings[at] then return "cancelled" end
      happenings[at]()
      return "timeout"
    end
    local response = it_:handle {
      method = "POST", path = "/grpc.health.v1.Health/Watch", headers = { ["content-type"] = "application/grpc" }, stream = stream,
    }
    local states = {}
    for i, message in ipairs(grpc_call.messages(table.concat(stream.written), "grpc.health.v1.HealthCheckResponse")) do states[i] = message.status end
    return states, tonumber(response.trailers["grpc-status"])
  end

  it("is watched", function()
    assert.is_true(it_:streaming("POST", "/grpc.health.v1.Health/Watch"))
    local function nothing() end
    assert.are.same({ { "SERVING", "NOT_SERVING", "SERVING" }, 1 }, { watch("m", { nothing, function() models:unload "m" end, nothing,
      function() models:add_model("m", fake_servable.new(0), 2) end }) })
    assert.are.same({ { "SERVICE_UNKNOWN", "SERVING" }, 1 }, { watch("later", { nothing, function() models:add_model("later", fake_servable.new(0), 1) end }) })
    assert.are.same({ { "SERVING", "NOT_SERVING" }, 14 }, { watch("", { nothing, function() stopping = true end }) })
    -- without streams there is nothing to watch
    local response = grpc_call.raw(it_, "/grpc.health.v1.Health/Watch", "grpc.health.v1.HealthCheckRequest", {})
    assert.are.equal("12", response.trailers["grpc-status"])
  end)

  it("needs no other services", function()
    local alone = app.new():mount(grpc_health.routes(models, {}))
    assert.are.same({ status = "SERVING" }, grpc_call.service(alone, "grpc.health.v1.Health")("Check", {}, CHECK))
  end)
end)

describe("reflection", function()
  local it_ = new(repository.new())

  local function ask(package, requests)
    local schema, pieces = grpc_schema.schema(), {}
    for i, request in ipairs(requests) do pieces[i] = grpc.frame(schema:encode(package .. "ServerReflectionRequest", request)) end
    local stream = grpc_call.stream(pieces)
    local response = it_:handle {
      method = "POST", path = "/" .. package .. "ServerReflection/ServerReflectionInfo", headers = { ["content-type"] = "application/grpc" }, stream = stream,
    }
    assert.are.equal("0", response.trailers["grpc-status"])
    local answers = grpc_call.messages(table.concat(stream.written), package .. "ServerReflectionResponse")
    for i, answer in ipairs(answers) do assert.are.same(requests[i], answer.original_request) end
    return answers
  end

  -- name of the file in a FileDescriptorProto, whose first field it is
  local function name_of(bytes) return bytes:sub(3, 2 + bytes:byte(2)) end

  it("tells services, files and symbols, in both versions", function()
    for _, package in ipairs { "grpc.reflection.v1.", "grpc.reflection.v1alpha." } do
      local answers = ask(package, {
        { host = "h", list_services = "" }, { file_by_filename = "tensorflow_serving/apis/model.proto" },
        { file_containing_symbol = "inference.GRPCInferenceService" }, { file_containing_symbol = ".inference.ModelInferRequest.InferInputTensor" },
        { file_containing_symbol = "tensorflow.DT_FLOAT" }, { file_containing_symbol = "grpc.health.v1.Health.Watch" },
        { file_containing_symbol = "no.Such" }, { file_by_filename = "no.proto" },
        { all_extension_numbers_of_type = "google.protobuf.Any" }, { all_extension_numbers_of_type = "no.Such" },
        { file_containing_extension = { containing_type = "google.protobuf.Any", extension_number = 1 } }, {},
      })
      assert.are.equal("h", answers[1].valid_host)
      local names = {}
      for i, service in ipairs(answers[1].list_services_response.service) do names[i] = service.name end
      assert.are.same({ "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService", "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService" }, names)
      local expected = {
        [2] = { "google/protobuf/wrappers.proto", "tensorflow_serving/apis/model.proto" }, [3] = { "model_config.proto", "grpc_service.proto" },
        [4] = { "model_config.proto", "grpc_service.proto" }, [5] = { "tensorflow/core/framework/types.proto" }, [6] = { "grpc/health/v1/health.proto" },
      }
      for i, list in pairs(expected) do
        local files = {}
        for j, bytes in ipairs(answers[i].file_descriptor_response.file_descriptor_proto) do files[j] = name_of(bytes) end
        assert.are.same(list, files)
      end
      for i, code in pairs { [7] = 5, [8] = 5, [10] = 5, [11] = 5, [12] = 3 } do assert.are.equal(code, answers[i].error_response.error_code) end
      assert.are.same({ base_type_name = "google.protobuf.Any" }, answers[9].all_extension_numbers_response)
    end
  end)

  it("gives files that need no others", function()
    for _, name in ipairs(proto.names()) do
      local answer = ask("grpc.reflection.v1.", { { file_by_filename = name } })[1]
      local seen = {}
      for _, bytes in ipairs(answer.file_descriptor_response.file_descriptor_proto) do seen[name_of(bytes)] = true end
      for import in assert(proto.source(name)):gmatch 'import "([^"]+)"' do assert.is_true(seen[import], name .. ": " .. import) end
    end
  end)
end)

describe("every method", function()
  local state = 4711
  local function random(n)
    state = (state * 16807) % 2147483647
    return state % n
  end

  local function mutated(bytes)
    local kind, at = random(5), random(#bytes + 1)
    if kind == 0 then return bytes:sub(1, at) end
    if kind == 1 then return bytes:sub(1, at) .. string.char(random(256)) .. bytes:sub(at + 2) end
    if kind == 2 then return bytes:sub(1, at) .. bytes:sub(random(#bytes + 1) + 1) end
    if kind == 3 then return bytes:sub(1, at) .. string.char(random(256), random(256), random(256)) .. bytes:sub(at + 1) end
    return bytes
  end

  local SEEDS = {
    ModelSpec = { model_spec = { name = "pair", version = { value = 1 }, signature_name = "serving_default" }, metadata_field = { "signature_def" } },
    Named = { name = "pair", version = "1" }, Health = { service = "pair" },
    Infer = { model_name = "pair", inputs = { { name = "a", datatype = "FP32", shape = { 1, 2 }, contents = { fp32_contents = { 4, 3 } } },
      { name = "b", datatype = "FP32", shape = { 1, 2 }, contents = { fp32_contents = { 2, 1 } } } } },
    Predict = { model_spec = { name = "pair" }, inputs = {
      a = { dtype = "DT_FLOAT", tensor_shape = { dim = { { size = 1 }, { size = 2 } } }, float_val = { 1, 2 } },
      b = { dtype = "DT_FLOAT", tensor_shape = { dim = { { size = 1 }, { size = 2 } } }, tensor_content = "\0\0\128\63\0\0\128\63" } } },
    Examples = { model_spec = { name = "pair" }, input = { example_list = { examples = { { features = { feature = {
      a = { float_list = { value = { 1, 2 } } }, b = { float_list = { value = { 1, 2 } } } } } } } } } },
    Tasks = { tasks = { { model_spec = { name = "pair" }, method_name = "tensorflow/serving/classify" } }, input = { example_list = { examples = { {} } } } },
    Reload = { config = { model_config_list = { config = { { name = "pair", base_path = "/no/such/place", model_platform = "tensorflow" } } } } },
    Control = { model_name = "pair", parameters = { x = { string_param = "y" } } },
  }
  local T, I, H = "tensorflow.serving.", "inference.", "grpc.health.v1."
  local METHODS = {
    { T .. "PredictionService/Predict", T .. "PredictRequest", SEEDS.Predict },
    { T .. "PredictionService/Classify", T .. "ClassificationRequest", SEEDS.Examples },
    { T .. "PredictionService/Regress", T .. "RegressionRequest", SEEDS.Examples },
    { T .. "PredictionService/MultiInference", T .. "MultiInferenceRequest", SEEDS.Tasks },
    { T .. "PredictionService/GetModelMetadata", T .. "GetModelMetadataRequest", SEEDS.ModelSpec },
    { T .. "ModelService/GetModelStatus", T .. "GetModelStatusRequest", { model_spec = SEEDS.ModelSpec.model_spec } },
    { T .. "ModelService/HandleReloadConfigRequest", T .. "ReloadConfigRequest", SEEDS.Reload },
    { I .. "GRPCInferenceService/ModelInfer", I .. "ModelInferRequest", SEEDS.Infer },
    { I .. "GRPCInferenceService/ModelStreamInfer", I .. "ModelInferRequest", SEEDS.Infer },
    { I .. "GRPCInferenceService/ModelReady", I .. "ModelReadyRequest", SEEDS.Named },
    { I .. "GRPCInferenceService/ModelMetadata", I .. "ModelMetadataRequest", SEEDS.Named },
    { I .. "GRPCInferenceService/ModelConfig", I .. "ModelConfigRequest", SEEDS.Named },
    { I .. "GRPCInferenceService/ModelStatistics", I .. "ModelStatisticsRequest", SEEDS.Named },
    { I .. "GRPCInferenceService/RepositoryIndex", I .. "RepositoryIndexRequest", { ready = true } },
    { I .. "GRPCInferenceService/RepositoryModelLoad", I .. "RepositoryModelLoadRequest", SEEDS.Control },
    { I .. "GRPCInferenceService/RepositoryModelUnload", I .. "RepositoryModelUnloadRequest", SEEDS.Control },
    { H .. "Health/Check", H .. "HealthCheckRequest", SEEDS.Health }, { H .. "Health/Watch", H .. "HealthCheckRequest", SEEDS.Health },
    { "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "grpc.reflection.v1.ServerReflectionRequest", { file_containing_symbol = I .. "ModelInferRequest" } },
  }
  local HEADERS = {
    { "grpc-timeout", { "1S", "5m", "0n", "x", "99999999H", "" } }, { "grpc-encoding", { "gzip", "deflate", "identity", "br", "" } },
    { "grpc-accept-encoding", { "gzip", ",,", "deflate, gzip", "" } },
    { "content-type", { "application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web-text", "application/json", "" } },
    { "accept", { "application/grpc-web-text", "*/*" } }, { "origin", { "https://a.example", "null" } },
  }

  it("survives what nobody meant", function()
    local models, told = repository.new(), {}
    models:add_model("pair", cases.pair(), 1)
    local it_ = new(models)
    it_.paths, it_.fallbacks = {}, {} -- those with the log
    grpc_services.mount(it_, models, { cors = true, compress_from = 10, log = function(_, message) told[#told + 1] = message end })
    local good, bad = 0, 0
    for round = 1, 60 do
      for _, method in ipairs(METHODS) do
        local bytes = grpc_schema.schema():encode(method[2], method[3])
        local body, headers = grpc.frame(mutated(bytes)), { ["content-type"] = "application/grpc" }
        if random(3) == 0 then body = mutated(body) end
        if random(2) == 0 and round > 1 then
          local header = HEADERS[random(#HEADERS) + 1]
          headers[header[1]] = header[2][random(#header[2]) + 1]
        end
        local request = { method = "POST", path = "/" .. method[1], headers = headers, body = body }
        local stream
        if random(2) == 0 and it_:streaming("POST", request.path) then
          local at = random(#body + 1)
          stream = grpc_call.stream { body:sub(1, at), body:sub(at + 1), "end" }
          function stream.wait() return "cancelled" end
          request.stream, request.body = stream, nil
        end
        local response = it_:handle(request)
        local status = response.trailers and tonumber(response.trailers["grpc-status"])
        if status then
          assert.is_true(status >= 0 and status <= 16 and status % 1 == 0)
          assert.is_true(response.body == nil or status == 0 or it_:streaming("POST", request.path))
          if response.body and response.body:byte() == 0 then
            local reader = grpc.reader(1e9)
            reader:push(response.body)
            repeat local content = reader:next() until not content
            assert.is_false(reader:pending())
          end
          if status == 0 then good = good + 1 else bad = bad + 1 end
        elseif not stream then
          assert.truthy(response.status == 415 or response.status == 404 or response.headers["content-type"]:find("grpc%-web"))
        end
      end
    end
    assert.are.same({}, told) -- nothing was raised
    assert.is_true(good > 100 and bad > 100, good .. " " .. bad)
  end)
end)

describe("gRPC's fallback", function()
  it("knows services", function()
    local it_ = new(repository.new())
    local function of(path) return it_:handle({ method = "POST", path = path, headers = { ["content-type"] = "application/grpc" }, body = "" }).trailers end
    assert.are.same({ ["grpc-status"] = "12", ["grpc-message"] = "unknown method X for service inference.GRPCInferenceService" },
      of "/inference.GRPCInferenceService/X")
    assert.are.same({ ["grpc-status"] = "12", ["grpc-message"] = "unknown service tensorflow.serving.SessionService" },
      of "/tensorflow.serving.SessionService/SessionRun")
  end)

  it("leaves its messages within the bound", function()
    local it_ = app.new()
    grpc_services.mount(it_, repository.new(), { max_message = 10 })
    local response = grpc_call.raw(it_, "/inference.GRPCInferenceService/ModelReady", nil, ("x"):rep(11))
    assert.are.equal("8", response.trailers["grpc-status"])
    assert.has_error(function() grpc_services.mount(app.new(), repository.new(), { max_mesage = 10 }) end)
  end)
end)
