-- Requests of KServe's v2 protocol with their answers, for every transport. The model "pair" adds and subtracts rows of two (a, b -> sum, diff), in
-- versions 1 and 2; "penguins" is spec/golden/pipeline. Bodies follow the Open Inference Protocol's and Triton's documents.
local core = require "mlserve.core"

local M = {}

local function floats(...)
  local bytes, known = {}, { [0] = "\0\0\0\0", [1] = "\0\0\128\63", [2] = "\0\0\0\64", [3] = "\0\0\64\64", [4] = "\0\0\128\64", [6] = "\0\0\192\64" }
  for i = 1, select("#", ...) do bytes[i] = assert(known[(select(i, ...))]) end
  return table.concat(bytes)
end

--- A servable that adds and subtracts.
function M.pair()
  local graph = core.graph "pair"
  local a, b = graph:input("a", "float32", { -1, 2 }), graph:input("b", "float32", { -1, 2 })
  graph:output(graph:node("Add", { a, b }, nil, { "sum" }))
  graph:output(graph:node("Sub", { a, b }, nil, { "diff" }))
  return core.servable(core.program(graph), { model = "pair" })
end

local JSON = { ["content-type"] = "application/json" }
local A, B = '{"name":"a","shape":[1,2],"datatype":"FP32","data":[4,3]}', '{"name":"b","shape":[1,2],"datatype":"FP32","data":[[2,1]]}'
local BINARY_A = '{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}'
local TENSORS = '"inputs":[{"name":"a","datatype":"FP32","shape":[-1,2]},{"name":"b","datatype":"FP32","shape":[-1,2]}],'
  .. '"outputs":[{"name":"sum","datatype":"FP32","shape":[-1,2]},{"name":"diff","datatype":"FP32","shape":[-1,2]}]}'

local function head(version, id)
  return (id and '{"id": "' .. id .. '", ' or "{") .. '"model_name": "pair", "model_version": "' .. version .. '", "outputs": ['
end
local SUM = '{"name": "sum", "datatype": "FP32", "shape": [1, 2], "data": [6.0, 4.0]}'
local DIFF = '{"name": "diff", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 2.0]}'
local BINARY_SUM = '{"name": "sum", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}'

local function with_binary(json, bytes) return { json .. bytes, #json } end
local binary_request = with_binary('{"inputs":[' .. BINARY_A .. "," .. B .. '],"outputs":[{"name":"sum","parameters":{"binary_data":true}},'
  .. '{"name":"diff"}]}', floats(4, 3))
local binary_answer = head "2" .. BINARY_SUM .. ", " .. DIFF .. "]}"

local function problem(message) return '{"error":"' .. message .. '"}' end

--- { method, path, status, body, headers = of the response, send = body of the request, with = its headers }
M.cases = {
  { "GET", "/v2/health/live", 200, '{"live":true}' },
  { "GET", "/v2/health/ready", 200, '{"ready":true}' },
  { "GET", "/v2", 200, '{"name":"mlserve","version":"' .. core.info().version .. '","extensions":["binary_tensor_data","classification",'
    .. '"model_configuration","parameters","statistics"]}', headers = JSON },
  { "GET", "/v2/models/pair", 200, '{"name":"pair","versions":["2","1"],"platform":"onnx_onnxv1",' .. TENSORS, headers = JSON },
  { "GET", "/v2/models/pair/versions/1", 200, '{"name":"pair","versions":["1"],"platform":"onnx_onnxv1",' .. TENSORS },
  { "GET", "/v2/models/pair/ready", 200, '{"name":"pair","ready":true}' },
  { "GET", "/v2/models/%70air/versions/002/ready", 200, '{"name":"pair","ready":true}' },
  { "POST", "/v2/models/pair/infer", 200, head("2", "42") .. SUM .. ", " .. DIFF .. "]}", send = '{"id":"42","inputs":[' .. A .. "," .. B .. "]}",
    headers = JSON },
  { "POST", "/v2/models/pair/versions/1/infer", 200, head "1" .. DIFF .. "]}",
    send = '{"inputs":[' .. A .. "," .. B .. '],"outputs":[{"name":"diff"}]}' },
  { "POST", "/v2/models/pair/infer", 200, binary_answer .. floats(6, 4), send = binary_request[1],
    with = { ["inference-header-content-length"] = tostring(binary_request[2]), ["content-type"] = "application/octet-stream" },
    headers = { ["content-type"] = "application/octet-stream", ["inference-header-content-length"] = tostring(#binary_answer) } },
  { "POST", "/v2/models/pair/infer", 400, problem("unexpected size for input 'a', expecting 8 additional bytes for model 'pair'"),
    send = '{"inputs":[' .. BINARY_A .. "]}", headers = JSON },
  { "POST", "/v2/models/pair/infer", 400, problem "inference header size should be in range (0, 2), got: 3", send = "{}",
    with = { ["inference-header-content-length"] = "3" } },
  { "POST", "/v2/models/pair/infer", 400, problem "Unable to parse Inference-Header-Content-Length, got: x", send = "{}",
    with = { ["inference-header-content-length"] = "x" } },
  { "POST", "/v2/models/pair/infer", 400, problem("[request id: 9] expected 2 inputs but got 1 inputs for model 'pair'. Got input(s) ['a'], but missing "
    .. "required input(s) ['b']. Please provide all required input(s)."), send = '{"inputs":[' .. A .. '],"id":"9"}', headers = JSON },
  { "POST", "/v2/models/none/infer", 404, problem "Request for unknown model: 'none' is not found", send = "{}" },
  { "POST", "/v2/models/pair/versions/9/infer", 404, problem "Request for unknown model: 'pair' version 9 is not found", send = "{}" },
  { "GET", "/v2/models/none", 404, problem "Request for unknown model: 'none' is not found", headers = JSON },
  { "GET", "/v2/models/none/ready", 404, problem "Request for unknown model: 'none' is not found" },
  { "GET", "/v2/models/none/stats", 400, problem "requested model 'none' is not available" },
  { "GET", "/v2/models/pair/versions/9/stats", 400, problem "requested model version is not available for model 'pair'" },
  { "POST", "/v2/models/pair", 405, problem "Method Not Allowed", send = "{}", headers = { allow = "GET" } },
  { "GET", "/v2/models/pair/infer", 405, problem "Method Not Allowed", headers = { allow = "POST" } },
  { "GET", "/v2/models/pair/explain", 404, problem "Not Found" },
  { "GET", "/v2/", 200 },
  { "GET", "/v2/models/pair/versions", 404, problem "Not Found" },
  { "POST", "/v2/repository/index", 503,
    problem "explicit model load / unload is not allowed: the server was started without admin = true", send = "" },
  { "POST", "/v2/repository/models/pair/unload", 503,
    problem "explicit model load / unload is not allowed: the server was started without admin = true", send = "" },
}

return M
