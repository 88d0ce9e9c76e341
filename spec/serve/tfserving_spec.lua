-- Expected texts, codes and shapes: TensorFlow Serving's REST API.

local app = require "mlserve.serve.app"
local cjson = require "cjson"
local fake_servable = require "spec.support.fake_servable"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

describe("TensorFlow Serving's REST protocol", function()
  local models, served

  before_each(function()
    models, served = repository.new(), app.new()
    models:add_model("m", fake_servable.new(100), 1)
    models:add_model("m", fake_servable.new(200), 12)
    models:add_model("m", fake_servable.new(300), 9)
    models:set_label("m", "stable", 1)
    models:add_model("two_inputs", fake_servable.new(0, {
      serving_default = {
        inputs = { b = { dtype = "int64", shape = {} }, a = { dtype = "string" } },
        outputs = { y = { dtype = "float64", shape = { -1, 2 } } },
      },
    }))
    served:mount(tfserving.routes(models))
  end)

  local function call(method, path, body, headers)
    local response = served:handle { method = method, path = path, headers = headers or {}, body = body or "" }
    return response.status, response.body, response.headers
  end

  local function error_of(...)
    local status, body, headers = call(...)
    assert.are.equal("application/json", headers["content-type"])
    local document = cjson.decode(body)
    assert.are.equal('{\n    "error": ', body:match("^.-: "))
    return status, document.error
  end

  it("predicts with the latest, a given or a labelled version", function()
    local body = '{"instances": [[1, 2, 3]]}'
    for path, sum in pairs {
      ["/v1/models/m:predict"] = "206", ["/v1/models/m/versions/12:predict"] = "206", ["/v1/models/m/versions/1:predict"] = "106",
      ["/v1/models/m/versions/0009:predict"] = "306", ["/v1/models/m/labels/stable:predict"] = "106",
      ["/V1/Models/m/Versions/9:PREDICT"] = "306", ["/v1/models/%6D:predict"] = "206",
    } do
      local status, text, headers = call("POST", path, body)
      assert.are.equal(200, status, path)
      assert.are.equal('{\n    "predictions": [[' .. sum .. "]\n    ]\n}", text)
      assert.are.equal("application/json", headers["content-type"])
    end
  end)

  it("answers failures with the code's status and the servable's text", function()
    for code, expected in pairs {
      INVALID_ARGUMENT = 400, FAILED_PRECONDITION = 400, OUT_OF_RANGE = 400, UNAUTHENTICATED = 401, PERMISSION_DENIED = 403,
      NOT_FOUND = 404, ALREADY_EXISTS = 409, ABORTED = 409, RESOURCE_EXHAUSTED = 429, CANCELLED = 499, UNKNOWN = 500,
      INTERNAL = 500, DATA_LOSS = 500, UNIMPLEMENTED = 501, UNAVAILABLE = 503, DEADLINE_EXCEEDED = 504, SOMETHING_NEW = 500,
    } do
      local status, message = error_of("POST", "/v1/models/m:predict", cjson.encode { fail = code, message = 'a "quoted"\nword' })
      assert.are.equal(expected, status, code)
      assert.are.equal('a "quoted"\nword', message)
    end
    assert.are.same({ 400, "JSON Parse error: The document is empty" }, { error_of("POST", "/v1/models/m:predict", "") })
    assert.are.same({ 400, "JSON Parse error: Invalid value. at offset: 0" }, { error_of("POST", "/v1/models/m:predict", "x") })
  end)

  it("classifies and regresses, if the model can", function()
    for verb in pairs { classify = 1, regress = 1 } do
      assert.are.same({ 501, "The model cannot " .. verb .. "." }, { error_of("POST", "/v1/models/m:" .. verb, "{}") })
      local bodies, model = {}, fake_servable.new(1)
      model[verb .. "_json"] = function(self, body)
        assert.are.equal(model, self)
        bodies[#bodies + 1] = body
        if body == "bad" then return nil, "no", "FAILED_PRECONDITION" end
        return '{"results": []}'
      end
      models:add_model("able", model)
      local status, text = call("POST", "/v1/models/able/versions/1:" .. verb, "{}")
      assert.are.same({ 200, '{"results": []}' }, { status, text })
      assert.are.same({ 400, "no" }, { error_of("POST", "/v1/models/able:" .. verb:upper(), "bad") })
      assert.are.same({ "{}", "bad" }, bodies)
    end
  end)

  it("says whose answer it is", function()
    local function marks(method, path, body)
      local response = served:handle { method = method, path = path, headers = {}, body = body or "" }
      return { response.model, response.version, response.verb }
    end
    assert.are.same({ "m", "12", "predict" }, marks("POST", "/v1/models/m:predict", '{"instances":[[1]]}'))
    assert.are.same({ "m", "9", "predict" }, marks("POST", "/v1/models/m/versions/9:predict", "x"))
    assert.are.same({ "m", "1", "metadata" }, marks("GET", "/v1/models/m/labels/stable/metadata"))
    assert.are.same({ "m", nil, "status" }, marks("GET", "/v1/models/m"))
    assert.are.same({ "none", nil, "classify" }, marks("POST", "/v1/models/none:classify"))
    assert.are.same({}, marks("GET", "/v1/x"))
  end)

  it("knows what is not there", function()
    for path, expected in pairs {
      ["/v1/models/none:predict"] = { 404, "Servable not found for request: Latest(none)" },
      ["/v1/models/m/versions/99:predict"] = { 404, "Servable not found for request: Specific(m, 99)" },
      ["/v1/models/none/versions/007:predict"] = { 404, "Servable not found for request: Specific(none, 7)" },
      ["/v1/models/m/labels/none:predict"] = { 400, "Unrecognized servable version label: none" },
      ["/v1/models/m/versions/9223372036854775808:predict"] = { 400,
        "Failed to convert version: 9223372036854775808 to numeric." },
      ["/v1/models/m/versions/9223372036854775807:predict"] = { 404,
        "Servable not found for request: Specific(m, 9223372036854775807)" },
    } do
      assert.are.same(expected, { error_of("POST", path, "{}") }, path)
    end
    for path, expected in pairs {
      ["/v1/models/none"] = { 404, "Could not find any versions of model none" },
      ["/v1/models/m/versions/3"] = { 404, "Could not find version 3 of model m" },
      ["/v1/models/none/metadata"] = { 404, "Servable not found for request: Latest(none)" },
      ["/v1/models/m/versions/3/metadata"] = { 404, "Servable not found for request: Specific(m, 3)" },
      ["/v1/models/m/labels/none/metadata"] = { 400, "Unrecognized servable version label: none" },
      ["/v1/models"] = { 400, "Missing model name in request." },
      ["/v1/models/metadata/metadata/metadata"] = { 400, "Malformed request: GET /v1/models/metadata/metadata/metadata" },
    } do
      assert.are.same(expected, { error_of("GET", path) }, path)
    end
  end)

  it("refuses what is malformed", function()
    for _, case in ipairs {
      { "POST", "/v1/models/m" }, { "POST", "/v1/models/m:explain" }, { "POST", "/v1/models/m:predict/" }, { "POST",
        "/v1/models/m:" },
      { "POST", "/v1/models" }, { "POST", "/v1/models/:predict" }, { "POST", "/v1/models/m/n:predict" }, { "POST", "/v1/x" },
      { "POST", "/v1/models/m/versions/x:predict" }, { "POST", "/v1/models/m/versions/-1:predict" },
      { "POST", "/v1/models/m/versions/1/labels/stable:predict" }, { "POST", "/v1/models/m/labels/:predict" },
      { "GET", "/v1/models/m:predict" }, { "GET", "/v1/models/m/" }, { "GET", "/v1/" }, { "GET", "/v1/models/m/metadata/" },
      { "GET", "/v1/models/m/versions/" }, { "GET", "/v1/models/" }, { "PUT", "/v1/models/m" }, { "HEAD", "/v1/models/m" },
      { "DELETE", "/v1/models/m:predict" }, { "GET", "/v1/models/m:classify" }, { "POST", "/v1/models/m:classification" },
    } do
      assert.are.same({ 400, "Malformed request: " .. case[1] .. " " .. case[2] }, { error_of(case[1], case[2], "{}") }, case[2])
    end
    assert.are.equal(404, (call("GET", "/")))
    assert.are.equal(404, (call("GET", "/v2/models/m")))
    assert.are.equal(404, (call("GET", "/v1")))
  end)

  it("takes compressed bodies", function()
    local net = require "mlserve.net"
    local gzip = { ["content-encoding"] = "gzip" }
    local status, body = call("POST", "/v1/models/m:predict", net.deflate("gzip", '{"instances":[[1]]}', 6), gzip)
    assert.are.same({ 200, '{\n    "predictions": [[201]\n    ]\n}' }, { status, body })
    local message
    status, message = error_of("POST", "/v1/models/m:predict", "\31\139", { ["content-encoding"] = "gzip" })
    assert.are.same({ 400, "Content-Encoding gzip: the compressed body is cut short" }, { status, message })
    status, message = error_of("POST", "/v1/models/m:predict", "x", { ["content-encoding"] = "br" })
    assert.are.same({ 415, "Content-Encoding 'br' is not supported: gzip and deflate are" }, { status, message })
    assert.are.equal(200, (call("POST", "/v1/models/m:predict", '{"instances":[[1]]}', { ["content-encoding"] = "Identity" })))
  end)

  it("reports the state of versions, newest first", function()
    local status, body = call("GET", "/v1/models/m/versions/9")
    assert.are.equal(200, status)
    assert.are.equal([[{
 "model_version_status": [
  {
   "version": "9",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
]], body)
    models:unload("m", 12)
    for _, path in ipairs { "/v1/models/m", "/v1/models/m/labels/stable", "/v1/models/m/labels/unknown" } do
      local versions, states = {}, {}
      for i, each in ipairs(cjson.decode((select(2, call("GET", path)))).model_version_status) do
        versions[i], states[i] = each.version, each.state
      end
      assert.are.same({ "12", "9", "1" }, versions)
      assert.are.same({ "END", "AVAILABLE", "AVAILABLE" }, states)
    end
    assert.are.same({ 404, "Servable not found for request: Specific(m, 12)" },
      { error_of("POST", "/v1/models/m/versions/12:predict", "{}") })
    assert.truthy(select(2, call("POST", "/v1/models/m:predict", '{"instances":[[0]]}')):find("[300]", 1, true))
  end)

  it("describes signatures", function()
    local status, body = call("GET", "/v1/models/m/labels/stable/metadata")
    assert.are.equal(200, status)
    assert.are.same({
      model_spec = { name = "m", signature_name = "", version = "1" },
      metadata = { signature_def = { signature_def = { serving_default = {
        inputs = { features = { dtype = "DT_FLOAT", name = "features:0", tensor_shape = {
          dim = { { size = "-1", name = "" }, { size = "3", name = "" } }, unknown_rank = false } } },
        outputs = { scores = { dtype = "DT_FLOAT", name = "scores:0", tensor_shape = {
          dim = { { size = "-1", name = "" }, { size = "1", name = "" } }, unknown_rank = false } } },
        method_name = "tensorflow/serving/predict", defaults = {},
      } } } },
    }, cjson.decode(body))
    local inputs = cjson.decode((select(2, call("GET", "/v1/models/two_inputs/metadata"))))
      .metadata.signature_def.signature_def.serving_default.inputs
    assert.are.same({ dim = {}, unknown_rank = false }, inputs.b.tensor_shape)
    assert.are.same({ "DT_INT64", "DT_STRING" }, { inputs.b.dtype, inputs.a.dtype })
    assert.are.same({ dim = {}, unknown_rank = true }, inputs.a.tensor_shape)
  end)

  it("answers OPTIONS, and allows other origins when told to", function()
    local status, body, headers = call("OPTIONS", "/v1/models/m:predict")
    assert.are.same({ 200, "", nil }, { status, body, headers })
    served = app.new()
    served:mount(tfserving.routes(models, { cors = true }))
    status, body, headers = call("OPTIONS", "/v1/models/m:predict", "", { origin = "https://example.org" })
    assert.are.same({ 200, "", "*", "POST, GET", "Content-Type" }, { status, body, headers["access-control-allow-origin"],
      headers["access-control-allow-methods"], headers["access-control-allow-headers"] })
    assert.are.same({ 400, "Origin header is missing in CORS preflight" }, { error_of("OPTIONS", "/v1/models/m:predict") })
    assert.are.equal("*", select(3, call("GET", "/v1/models/none"))["access-control-allow-origin"])
    assert.are.equal("*", select(3, call("POST", "/v1/models/m:predict", '{"instances":[[1]]}'))["access-control-allow-origin"])
  end)

  it("does not keep more paths in mind than it should", function()
    for i = 1, 2000 do
      assert.are.equal(404, (call("GET", "/v1/models/m" .. i)))
    end
    assert.are.equal(200, (call("GET", "/v1/models/m")))
  end)
end)
