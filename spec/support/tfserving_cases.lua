-- Requests of TensorFlow Serving's REST protocol with their answers, for every transport. Models (M.models): "double" is y = x + x of two columns
-- with names and classes, in versions 1 and 2; "pair" has two inputs, two outputs and a second signature; "text" gives back its strings, under a
-- name that ends in _bytes, too; "value" is y = x + x of one number per row; "penguins" is spec/golden/pipeline, whose answers are ONNX Runtime's.
local cjson = require "cjson"

local M = {}

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

--- name -> servable; root: of the repository.
function M.models(root)
  local core = require "mlserve.core"
  local function serve(graph, options) return core.servable(core.program(graph), options) end
  local function doubled(width, dtype)
    local graph = core.graph "double"
    local x = graph:input("x", dtype or "float32", width and { -1, width } or { -1 })
    graph:output(graph:node("Add", { x, x }, nil, { "y" }))
    return graph
  end
  local pair, text = core.graph "pair", core.graph "text"
  local a, b = pair:input("a", "float32", { -1, 2 }), pair:input("b", "float32", { -1, 2 })
  pair:output(pair:node("Add", { a, b }, nil, { "sum" }))
  pair:output(pair:node("Sub", { a, b }, nil, { "diff" }))
  local s = text:input("s", "string", { -1 })
  text:output(text:node("Identity", { s }, nil, { "plain" }))
  text:output(text:node("Identity", { s }, nil, { "raw_bytes" }))
  local names = { a = "a", b = "b" }
  return {
    double = serve(doubled(2), { features = { "age", "income" }, classes = { "no", "yes" } }),
    value = serve(doubled()), int64 = serve(doubled(2, "int64")), uint8 = serve(doubled(2, "uint8")), float64 = serve(doubled(2, "float64")),
    text = serve(text),
    pair = serve(pair, { signatures = {
      serving_default = { inputs = names, outputs = { sum = "sum", diff = "diff" } },
      difference = { inputs = names, outputs = { d = "diff" } },
    } }),
    penguins = assert(require("mlserve").load(root .. "spec/golden/pipeline/model.onnx")):servable(),
  }
end

local function rows(text) return '{"predictions": ' .. text .. "}" end

-- What is sent to :predict (or another verb) and what comes: a body, which is compared as JSON, or a status and the text of the error.
local CASES = {
  { "double", '{"instances": [[1, 2.5], [3, -4e0]]}', rows "[[2.0, 5.0], [6.0, -8.0]]" },
  { "double", '{"inputs": [[1, 2]]}', '{"outputs": [[2.0, 4.0]]}' },
  { "double", '{"inputs": {"x": [[1, 2], [3, 4]]}}', '{"outputs": [[2.0, 4.0], [6.0, 8.0]]}' },
  { "double", '{"instances": [{"x": [1, 2]}], "signature_name": "serving_default"}', rows "[[2.0, 4.0]]" },
  { "double/versions/1", '{"instances": [[1, 2]]}', rows "[[2.0, 4.0]]" },
  { "double/labels/canary", '{"instances": [[1, 2]]}', rows "[[2.0, 4.0]]" },
  { "value", '{"instances": [1.5, 2]}', rows "[3.0, 4.0]" },
  { "int64", '{"instances": [[1, -9007199254740993], [0, 4]]}', "[[2, -18014398509481986], [0, 8]]", exact = true },
  { "uint8", '{"instances": [[1, 127]]}', rows "[[2, 254]]" },
  { "float64", '{"instances": [[0.1, 1e300]]}', rows "[[0.2, 2e300]]" },
  { "double", '{"instances": [[NaN, -Infinity]]}', "[[NaN, -Infinity]]", exact = true },
  { "text", '{"instances": ["a", {"b64": "aGk="}]}', '{"predictions": [{"plain": "a", "raw_bytes": {"b64": "YQ=="}}, {"plain": "hi", "raw_bytes": {"b64": "aGk="}}]}' },
  { "text", '{"inputs": ["a"]}', '{"outputs": {"plain": ["a"], "raw_bytes": [{"b64": "YQ=="}]}}' },
  { "pair", '{"instances": [{"a": [1, 2], "b": [3, 4]}]}', '{"predictions": [{"sum": [4.0, 6.0], "diff": [-2.0, -2.0]}]}' },
  { "pair", '{"inputs": {"a": [[1, 2]], "b": [[3, 4]]}}', '{"outputs": {"sum": [[4.0, 6.0]], "diff": [[-2.0, -2.0]]}}' },
  { "pair", '{"signature_name": "difference", "instances": [{"a": [1, 2], "b": [3, 4]}]}', rows "[[-2.0, -2.0]]" },
  { "double:classify", '{"examples": [{"age": 1.0, "income": 2.0}]}', '{"results": [[["no", 2.0], ["yes", 4.0]]]}' },
  { "double/versions/2:classify", '{"context": {"age": 1.0}, "examples": [{"income": 2.0}, {"age": 0.5, "income": 4.0}]}',
    '{"results": [[["no", 2.0], ["yes", 4.0]], [["no", 1.0], ["yes", 8.0]]]}' },
  { "value:regress", '{"examples": [{"x": 1.5}, {"x": [0.25]}]}', '{"results": [3.0, 0.5]}' },
  { "VALUE:REGRESS", "{}", 404, "Servable not found for request: Latest(VALUE)" },
  { "value:regress", "{}", 400, "JSON Value: {} When method is classify, key 'examples' is expected and was not found" },
  { "double:regress", '{"examples": [{"x": [1.0, 2.0]}]}', 400,
    "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]" },
  { "double:classify", '{"examples": [{"age": 1.0}]}', 400, "Name: <unknown>, Feature: income (data type: float) is required but could not be found." },
  { "double:classify", '{"signature_name": "s", "examples": []}', 400, "No signature was found with the name: s" },
  { "double", '{"signature_name": "s", "instances": [[1, 2]]}', 400, 'Serving signature name: "s" not found in signature def' },
  { "double", "", 400, "JSON Parse error: The document is empty" },
  { "double", "{}", 400, "Missing 'inputs' or 'instances' key" },
  { "double", '{"instances": [["x", 1]]}', 400,
    "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"x\" Type: String is not of expected type: float" },
  { "double/labels/none", "{}", 400, "Unrecognized servable version label: none" },
  { "double/versions/7:classify", "{}", 404, "Servable not found for request: Specific(double, 7)" },
  { "double:explain", "{}", 400, "Malformed request: POST /v1/models/double:explain" },
}

local function path_of(target) return "/v1/models/" .. target .. (target:find ":%a+$" and "" or ":predict") end

local function close(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b or type(a) == "number" and type(b) == "number" and math.abs(a - b) <= 1e-6 * math.max(1, math.abs(b))
  end
  for key, value in pairs(a) do if not close(value, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end

-- What scikit-learn's pipeline says, as ONNX Runtime computes it.
local function penguins(call, expect, root)
  local expected = cjson.decode(read(root .. "spec/golden/pipeline/expected.json"))
  local status, body = call("POST", "/v1/models/penguins:classify", cjson.encode { examples = expected.instances })
  expect(200, status, "classify penguins")
  local results = cjson.decode(body).results
  expect(#expected.label, #results, "one result per example")
  for i, result in ipairs(results) do
    local best, seen = result[1], {}
    for _, pair in ipairs(result) do
      seen[pair[1]] = pair[2]
      if pair[2] > best[2] then best = pair end
    end
    expect(true, close(expected.probabilities[i], seen), "probabilities of example " .. i)
    expect(expected.label[i], best[1], "label of example " .. i)
  end
  local rows_answer = cjson.decode((select(2, call("POST", "/v1/models/penguins:predict", cjson.encode { instances = expected.instances })))).predictions
  for i, row in ipairs(rows_answer) do expect(expected.label[i], row.output_label, "row " .. i) end
end

local function compressed(call, expect)
  local net = require "mlserve.net"
  local body, n = {}, 2000
  for i = 1, n do body[i] = "[" .. i .. ",1]" end
  body = '{"instances":[' .. table.concat(body, ",") .. "]}"
  local status, text, headers = call("POST", "/v1/models/double:predict", net.deflate("gzip", body, 6),
    { ["content-encoding"] = "gzip", ["accept-encoding"] = "gzip, deflate" })
  expect(200, status, "gzip both ways")
  expect("gzip", headers["content-encoding"], "the answer's coding")
  expect("application/json", headers["content-type"], "the answer's type")
  expect(2 * n, cjson.decode(net.inflate("gzip", text, 0, 0)).predictions[n][1], "the answer")
  status, text, headers = call("POST", "/v1/models/double:predict", net.deflate("deflate", '{"instances": [[1, 2]]}', 6),
    { ["content-encoding"] = "deflate", ["accept-encoding"] = "gzip" })
  expect(200, status, "deflate")
  expect(nil, headers["content-encoding"], "tiny answers stay as they are")
  expect(2, cjson.decode(text).predictions[1][1], "its answer")
  expect(400, (call("POST", "/v1/models/double:predict", "no gzip", { ["content-encoding"] = "gzip" })), "broken")
  expect(415, (call("POST", "/v1/models/double:predict", "x", { ["content-encoding"] = "br" })), "unknown coding")
  expect(413, (call("POST", "/v1/models/double:predict", net.deflate("gzip", (" "):rep(64 * 1024 * 1024), 9), { ["content-encoding"] = "gzip" })), "a bomb")
end

--- Runs everything: call(method, path, body, headers) -> status, body, headers; expect(expected, got, what) fails when they differ.
function M.run(call, expect, root)
  for _, case in ipairs(CASES) do
    local status, body = call("POST", path_of(case[1]), case[2])
    local where = case[1] .. " " .. case[2] .. ": " .. body
    if type(case[3]) == "number" then
      expect(case[3], status, where)
      expect(case[4], cjson.decode(body).error, where)
    else
      expect(200, status, where)
      if case.exact then expect(true, body:gsub("%s", ""):find(case[3]:gsub("%s", ""), 1, true) ~= nil, where)
      else expect(true, close(cjson.decode(case[3]), cjson.decode(body)), where) end
    end
  end
  penguins(call, expect, root)
  compressed(call, expect)
  local status, body = call("GET", "/v1/models/double")
  expect(200, status, "status")
  expect("2 1", cjson.decode(body).model_version_status[1].version .. " " .. cjson.decode(body).model_version_status[2].version, "versions, newest first")
  status, body = call("GET", "/v1/models/pair/metadata")
  expect(200, status, "metadata")
  local signatures = cjson.decode(body).metadata.signature_def.signature_def
  expect("DT_FLOAT", signatures.difference.outputs.d.dtype, "metadata of a signature")
  expect("diff:0", signatures.difference.outputs.d.name, "its tensor")
end

return M
