-- A scikit-learn pipeline over REST: a category and a number in, label and probabilities (ZipMap) out. spec/golden/pipeline is skl2onnx's export,
-- the expected answers are ONNX Runtime's (make_pipeline.py).
local cjson = require "cjson"
local process = require "spec.support.process"

local PIPELINE = "spec/golden/pipeline/"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function post(url, body)
  local name = os.tmpname()
  process.write(name, body)
  local pipe = io.popen(("curl -s -d @%s '%s'"):format(name, url))
  local answer = pipe:read "*a"
  pipe:close()
  os.remove(name)
  return cjson.decode(answer)
end

local function close_to(expected, got, where)
  for key, value in pairs(expected) do
    assert.is_true(math.abs(got[key] - value) <= 1e-5 * value + 1e-7, where .. "." .. key .. ": " .. tostring(got[key]) .. ", expected " .. value)
  end
end

describe("a pipeline with labels and maps", function()
  local file, child, url, expected

  setup(function()
    file = os.tmpname()
    expected = cjson.decode(read(PIPELINE .. "expected.json"))
    process.write(file, [[
      local mlserve = require "mlserve"
      local server = mlserve.server { rest = { port = 0 } }
      server:add_model("penguins", assert(mlserve.load "]] .. PIPELINE .. [[model.onnx"))
      os.exit(server:run() and 0 or 1)
    ]])
    child = process.spawn_lua(file)
    url = child:expect "listening on (http://127%.0%.0%.1:%d+)\n" .. "/v1/models/penguins"
  end)

  teardown(function()
    child:stop()
    os.remove(file)
  end)

  it("answers rows with label and probabilities", function()
    local predictions = post(url .. ":predict", cjson.encode { instances = expected.instances }).predictions
    assert.are.equal(#expected.label, #predictions)
    for i, prediction in ipairs(predictions) do
      assert.are.equal(expected.label[i], prediction.output_label)
      close_to(expected.probabilities[i], prediction.output_probability, "row " .. i)
    end
  end)

  it("answers columns", function()
    local inputs = { island = {}, mass = {} }
    for i, row in ipairs(expected.instances) do inputs.island[i], inputs.mass[i] = row.island, row.mass end
    local outputs = post(url .. ":predict", cjson.encode { inputs = inputs }).outputs
    assert.are.same(expected.label, outputs.output_label)
    for i, map in ipairs(outputs.output_probability) do close_to(expected.probabilities[i], map, "row " .. i) end
  end)

  it("says what it has in its metadata", function()
    local pipe = io.popen(("curl -s '%s/metadata'"):format(url))
    local signature = cjson.decode(pipe:read "*a").metadata.signature_def.signature_def.serving_default
    pipe:close()
    assert.are.equal("DT_STRING", signature.inputs.island.dtype)
    assert.are.equal("DT_VARIANT", signature.outputs.output_probability.dtype)
  end)

  it("refuses a model whose input is a map, by name", function()
    local mlserve = require "mlserve"
    local server = mlserve.server { rest = { port = 0 }, log = function() end }
    server:add_model("vectorizer", assert(mlserve.load "spec/golden/control/dictvectorizer/model.onnx"))
    local response = server.app:handle { method = "POST", path = "/v1/models/vectorizer:predict", headers = {}, body = '{"instances": [{"a": 1}]}' }
    assert.are.equal(501, response.status)
    assert.truthy(response.body:find("input 'x' is map(string,tensor(float32)), which a request cannot hold", 1, true), response.body)
  end)
end)
