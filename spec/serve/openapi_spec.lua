local app = require "mlserve.serve.app"
local cjson = require "cjson"
local cases = require "spec.support.tfserving_cases"
local kserve = require "mlserve.serve.protocols.kserve"
local openapi = require "mlserve.serve.openapi"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

describe("the OpenAPI document", function()
  local served, document

  before_each(function()
    local models = repository.new()
    models:add_model("m", cases.models("").double)
    models:set_label("m", "stable", 1)
    served = app.new()
    served:mount(tfserving.routes(models))
    served:mount(kserve.routes(models))
    openapi.mount(served)
    local response = served:handle { method = "GET", path = "/openapi.json", headers = {}, body = "" }
    assert.are.same({ 200, "application/json" }, { response.status, response.headers["content-type"] })
    document = cjson.decode(response.body)
  end)

  it("is of version 3.1 and names what it must", function()
    assert.are.equal("3.1.0", document.openapi)
    assert.are.equal("mlserve", document.info.title)
    assert.truthy(document.info.version:find "^%d+%.%d+%.%d+" )
    local ids, count = {}, 0
    for path, item in pairs(document.paths) do
      assert.truthy(path:find "^/")
      for method, operation in pairs(item) do
        assert.truthy(({ get = 1, post = 1 })[method])
        assert.is_nil(ids[operation.operationId], operation.operationId)
        ids[operation.operationId], count = true, count + 1
        assert.truthy(operation.summary and #operation.tags == 1 and operation.responses["200"].description and operation.responses.default)
        local named = {}
        for _, parameter in ipairs(operation.parameters or {}) do
          assert.are.same({ "path", true }, { parameter["in"], parameter.required })
          named[parameter.name] = true
        end
        for name in path:gmatch "{(%w+)}" do
          assert.is_true(named[name], path .. " " .. name)
          named[name] = nil
        end
        assert.is_nil(next(named))
      end
    end
    for _, id in ipairs { "status", "statusVersion", "statusLabel", "metadataLabel", "predict", "predictVersion", "predictLabel", "classifyVersion",
      "regressLabel", "serverReady", "infer", "inferVersion", "modelReady", "repositoryLoad", "openapi" } do
      assert.is_true(ids[id], id)
    end
    assert.are.equal(5 * 3 + 5 * 2 + 8, count) -- TensorFlow Serving's, those of a model in v2, the others
  end)

  it("refers only to what is there, and leaves nothing unused", function()
    local used = {}
    local function walk(value)
      for key, each in pairs(value) do
        if key == "$ref" then
          local name = each:match "^#/components/schemas/(%w+)$"
          assert.is_table(document.components.schemas[name], each)
          used[name] = true
        elseif type(each) == "table" then
          walk(each)
        end
      end
    end
    walk(document)
    for name in pairs(document.components.schemas) do assert.is_true(used[name], name) end
  end)

  it("lists only what the application answers", function()
    for _, each in ipairs(openapi.operations(served)) do
      local path = each.path:gsub("{(%a+)}", { model = "m", version = "1", label = "stable" })
      local response = served:handle { method = each.method, path = path, headers = {}, body = "{}" }
      assert.is_true(response.status ~= 404 and response.status ~= 405, each.method .. " " .. path .. ": " .. response.status)
    end
    local bare = app.new()
    openapi.mount(bare)
    assert.are.equal(1, #openapi.operations(bare))
    bare:route("GET", "^/metrics$", function() return { status = 200 } end)
    local paths = cjson.decode(bare:handle { method = "GET", path = "/openapi.json", headers = {}, body = "" }.body).paths
    assert.is_table(paths["/metrics"].get)
    assert.is_nil(paths["/v1/models/{model}"])
  end)

  it("is the same text every time", function()
    local first = openapi.document(served)
    for _ = 1, 5 do assert.are.equal(first, openapi.document(served)) end
  end)
end)
