-- KServe's v2 protocol: paths, codes, bodies. What infer itself takes and refuses is in spec/csrc/test_infer.c.

local app = require "mlserve.serve.app"
local cases = require "spec.support.kserve_cases"
local cjson = require "cjson"
local kserve = require "mlserve.serve.protocols.kserve"
local mlserve = require "mlserve"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"
local repository = require "mlserve.serve.repository"

local PIPELINE = "spec/golden/pipeline/"

describe("KServe's v2 protocol", function()
  local models, served, loads

  before_each(function()
    models, served, loads = repository.new(), app.new(), {}
    models:add_model("pair", cases.pair(), 1)
    models:add_model("pair", cases.pair(), 2)
    served:mount(kserve.routes(models))
  end)

  local function call(method, path, body, headers)
    local response = served:handle { method = method, path = path, headers = headers or {}, body = body or "" }
    return response.status, response.body, response.headers or {}, response
  end

  -- a repository that can load, and what it was asked for
  local function administer(answers)
    models.load = function(_, name)
      loads[#loads + 1] = name
      local answer = answers[name]
      if type(answer) == "function" then return answer() end
      if answer == true then return true end
      return nil, answer[1], answer[2]
    end
    served = app.new():mount(kserve.routes(models, { admin = true, version = "9.9" }))
  end

  it("answers as the documents say", function()
    for _, case in ipairs(cases.cases) do
      local status, body, headers = call(case[1], case[2], case.send, case.with)
      assert.are.equal(case[3], status, case[2] .. ": " .. body)
      if case[4] then assert.are.equal(case[4], body, case[2]) end
      for name, value in pairs(case.headers or {}) do assert.are.equal(value, headers[name], case[2]) end
    end
  end)

  it("names model, version and verb for whoever counts requests", function()
    local _, _, _, response = call("POST", "/v2/models/pair/versions/1/infer", "{}")
    assert.are.same({ "pair", "1", "infer", 400 }, { response.model, response.version, response.verb, response.status })
    models:set_label("pair", "stable", 1)
    _, _, _, response = call("GET", "/v2/models/pair/versions/stable/ready")
    assert.are.same({ "pair", "1", "ready", 200 }, { response.model, response.version, response.verb, response.status })
    assert.are.equal(404, (call("GET", "/v2/models/pair/versions/beta/ready")))
  end)

  it("is ready when every model is that was not unloaded", function()
    models:unload "pair"
    assert.are.equal(200, (call("GET", "/v2/health/ready")))
    local status, body = call("POST", "/v2/models/pair/infer", "{}")
    assert.are.same({ 404, '{"error":"Request for unknown model: \'pair\' has no available versions"}' }, { status, body })
    status, body = call("POST", "/v2/models/pair/versions/2/infer", "{}")
    assert.are.same({ 503, '{"error":"Request for unknown model: \'pair\' version 2 is not at ready state"}' }, { status, body })
    status, body = call("GET", "/v2/models/pair/versions/2/ready")
    assert.are.same({ 400, '{"error":"Model version not ready"}' }, { status, body })
    models.loader = function() return nil, "bad file", "DATA_LOSS" end
    models.list = function() return { "1" } end
    assert.is_nil((models:add_directory("broken", "x")))
    assert.are.equal(400, (call("GET", "/v2/health/ready")))
  end)

  it("gives Triton's configuration", function()
    local status, body, headers = call("GET", "/v2/models/pair/config")
    local config = cjson.decode(body)
    assert.are.equal(200, status)
    assert.are.equal("application/json", headers["content-type"])
    assert.are.equal("pair", config.name)
    assert.are.equal(64 * 1024 * 1024 / 4, config.max_batch_size) -- the limit of elements, by two inputs of two
    assert.are.same({ "a", "TYPE_FP32", { 2 } }, { config.input[1].name, config.input[1].data_type, config.input[1].dims })
    assert.are.same({ "diff", "TYPE_FP32", { 2 } }, { config.output[2].name, config.output[2].data_type, config.output[2].dims })
  end)

  it("counts", function()
    local send = '{"inputs":[{"name":"a","shape":[3,2],"datatype":"FP32","data":[1,2,3,4,5,6]},'
      .. '{"name":"b","shape":[3,2],"datatype":"FP32","data":[1,2,3,4,5,6]}]}'
    assert.are.equal(200, (call("POST", "/v2/models/pair/infer", send)))
    assert.are.equal(200, (call("POST", "/v2/models/pair/infer", send)))
    assert.are.equal(400, (call("POST", "/v2/models/pair/infer", "{}")))
    local stats = cjson.decode((select(2, call("GET", "/v2/models/pair/versions/2/stats")))).model_stats
    assert.are.equal(1, #stats)
    assert.are.same({ "pair", "2", 6, 2 }, { stats[1].name, stats[1].version, stats[1].inference_count, stats[1].execution_count })
    assert.are.same({ 2, 1 }, { stats[1].inference_stats.success.count, stats[1].inference_stats.fail.count })
    assert.are.same({ 3, 2 }, { stats[1].batch_stats[1].batch_size, stats[1].batch_stats[1].compute_infer.count })
    assert.is_true(stats[1].last_inference > 1.6e12)
    stats = cjson.decode((select(2, call("GET", "/v2/models/stats")))).model_stats
    assert.are.same({ "2", "1", 0 }, { stats[1].version, stats[2].version, stats[2].inference_count })
  end)

  it("gives label and probabilities of a scikit-learn pipeline, maps as JSON texts", function()
    local expected = cjson.decode(process.slurp(PIPELINE .. "expected.json"))
    local islands, masses = {}, {}
    for i, row in ipairs(expected.instances) do islands[i], masses[i] = row.island[1], row.mass[1] end
    models:add_model("penguins", assert(mlserve.load(PIPELINE .. "model.onnx")):servable(), 1)
    local metadata = cjson.decode((select(2, call("GET", "/v2/models/penguins"))))
    assert.are.same({ { name = "output_label", datatype = "BYTES", shape = { -1 } }, { name = "output_probability", datatype = "BYTES", shape = { -1 } } },
      metadata.outputs)
    local status, body = call("POST", "/v2/models/penguins/infer", cjson.encode { inputs = {
      { name = "island", datatype = "BYTES", shape = { #islands, 1 }, data = islands },
      { name = "mass", datatype = "FP32", shape = { #masses, 1 }, data = masses },
    } })
    assert.are.equal(200, status, body)
    local outputs = cjson.decode(body).outputs
    assert.are.same(expected.label, outputs[1].data)
    assert.are.same({ "BYTES", { #islands } }, { outputs[2].datatype, outputs[2].shape })
    for i, text in ipairs(outputs[2].data) do
      local map, count = cjson.decode(text), 0
      for name, value in pairs(map) do
        count = count + 1
        assert.is_true(math.abs(value - expected.probabilities[i][name]) <= 1e-5)
      end
      assert.are.equal(3, count)
    end
  end)

  describe("with admin = true", function()
    it("lists what there is", function()
      administer {}
      models:unload("pair", 1)
      local status, body, headers = call("POST", "/v2/repository/index")
      assert.are.equal(200, status)
      assert.are.equal("application/json", headers["content-type"])
      assert.are.equal('[{"name":"pair","version":"2","state":"READY"},{"name":"pair","version":"1","state":"UNAVAILABLE","reason":"unloaded"}]', body)
      assert.are.equal('[{"name":"pair","version":"2","state":"READY"}]', (select(2, call("POST", "/v2/repository/r/index", '{"ready":true}'))))
      assert.are.same({ 400, '{"error":"Invalid value for \'ready\': expected a boolean"}' },
        { (call("POST", "/v2/repository/index", '{"ready":1}')), (select(2, call("POST", "/v2/repository/index", '{"ready":1}'))) })
      assert.are.equal(400, (call("POST", "/v2/repository/index", "{")))
      assert.truthy((select(2, call("GET", "/v2"))):find('"version":"9.9".*"model_repository"'))
    end)

    it("loads and unloads", function()
      administer { pair = true, ["%"] = true, none = { "model" }, broken = { "it is broken", "DATA_LOSS" }, worse = function() error("worse", 0) end }
      assert.are.equal(200, (call("POST", "/v2/repository/models/pair/load", '{"parameters":{}}')))
      assert.are.equal(200, (call("POST", "/v2/repository/models/%25/load")))
      assert.are.same({ "pair", "%" }, loads)
      for name, expected in pairs {
        none = { 400, '{"error":"failed to load \'none\', failed to poll from model repository"}' },
        broken = { 500, '{"error":"it is broken"}' }, worse = { 500, '{"error":"worse"}' },
      } do
        local status, body = call("POST", "/v2/repository/models/" .. name .. "/load")
        assert.are.same(expected, { status, body })
      end
      assert.are.equal(501, (call("POST", "/v2/repository/models/pair/load", '{"parameters":{"config":"{}"}}')))
      assert.are.equal(501, (call("POST", "/v2/repository/r/models/pair/load")))
      assert.are.equal(200, (call("POST", "/v2/repository/models/pair/unload", '{"parameters":{"unload_dependents":true}}')))
      assert.is_nil(models:get "pair")
      local status, body = call("POST", "/v2/repository/models/none/unload")
      assert.are.same({ 400, '{"error":"Model to be unloaded has not been served"}' }, { status, body })
      assert.are.equal(405, (call("GET", "/v2/repository/index")))
      assert.are.equal(404, (call("POST", "/v2/repository/models/pair/reload")))
    end)
  end)
end)

describe("KServe's v2 protocol over HTTP", function()
  it("answers as the documents say", function()
    local file = os.tmpname()
    process.write(file, [[
      local cases = require "spec.support.kserve_cases"
      local server = require("mlserve").server { rest = { port = 0 } }
      server:add_model("pair", cases.pair(), nil, 1):add_model("pair", cases.pair(), nil, 2)
      os.exit(server:run() and 0 or 1)
    ]])
    local child = process.spawn_lua(file)
    local port = tonumber(child:expect "listening on http://127%.0%.0%.1:(%d+)\n")
    for _, case in ipairs(cases.cases) do
      local answer = assert(raw_http.request(port, case[1], case[2], case.send, case.with))
      assert.are.equal(case[3], answer.status, case[2])
      if case[4] then assert.are.equal(case[4], answer.body, case[2]) end
      for name, value in pairs(case.headers or {}) do assert.are.equal(value, answer.headers[name], case[2]) end
    end
    child:stop()
    os.remove(file)
  end)
end)
