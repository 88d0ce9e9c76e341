-- Requests that every transport answers alike, from the command line down: what HTTP may do to a body, paths, errors, KServe's protocol.
-- The model "penguins" is spec/golden/pipeline, whose answers are ONNX Runtime's. TensorFlow Serving's own cases: spec/support/tfserving_cases.lua.

local cjson = require "cjson"

local M = {}

M.model = "spec/golden/pipeline"

local golden

local function expected()
  if not golden then
    local file = assert(io.open(M.model .. "/expected.json"))
    golden = cjson.decode(file:read "*a")
    file:close()
  end
  return golden
end

local function predict_body() return cjson.encode { instances = expected().instances } end

-- what a response must say about the golden rows
local function check_predictions(body)
  for i, row in ipairs(cjson.decode(body).predictions) do
    assert(row.output_label == expected().label[i], body)
    for name, share in pairs(expected().probabilities[i]) do
      assert(math.abs(row.output_probability[name] - share) < 1e-5, body)
    end
  end
end

local function infer_body()
  local island, mass = {}, {}
  for i, row in ipairs(expected().instances) do island[i], mass[i] = row.island[1], row.mass[1] end
  return cjson.encode { id = "seven", inputs = {
    { name = "island", datatype = "BYTES", shape = { #island, 1 }, data = island },
    { name = "mass", datatype = "FP32", shape = { #mass, 1 }, data = mass },
  }, outputs = { { name = "output_label" } } }
end

local function check_infer(body)
  local document = cjson.decode(body)
  assert(document.id == "seven" and document.outputs[1].name == "output_label", body)
  for i, label in ipairs(expected().label) do assert(document.outputs[1].data[i] == label, body) end
end

local function chunks(body, size)
  local pieces = {}
  for at = 1, #body, size do
    local piece = body:sub(at, at + size - 1)
    pieces[#pieces + 1] = ("%x\r\n%s\r\n"):format(#piece, piece)
  end
  return table.concat(pieces) .. "0\r\n\r\n"
end

local PREDICT = "/v1/models/penguins:predict"

-- method, path, body (text or function), headers; status, type (of the content), and body: a text it must hold, or a function that checks it.
-- `chunked`: bytes of a chunk.
M.cases = {
  { "predicts", "POST", PREDICT, predict_body, status = 200, type = "application/json", check = check_predictions },
  { "takes chunked bodies", "POST", PREDICT, predict_body, chunked = 7, status = 200, check = check_predictions },
  { "leaves a query aside", "POST", PREDICT .. "?x=1", predict_body, status = 200, check = check_predictions },
  { "decodes names in paths", "POST", "/v1/models/peng%75ins:predict", predict_body, status = 200, check = check_predictions },
  { "answers by version", "POST", "/v1/models/penguins/versions/3:predict", predict_body, status = 200, check = check_predictions },
  { "takes a body after Expect", "POST", PREDICT, predict_body, headers = { Expect = "100-continue" }, status = 200, check = check_predictions },
  { "knows no such version", "POST", "/v1/models/penguins/versions/4:predict", "{}", status = 404, type = "application/json",
    body = "Servable not found for request: Specific(penguins, 4)" },
  { "refuses an empty body", "POST", PREDICT, "", status = 400, type = "application/json", body = "JSON Parse error: The document is empty" },
  { "refuses half a body", "POST", PREDICT, '{"instances": [', status = 400, body = "JSON Parse error: Invalid value." },
  { "reports states", "GET", "/v1/models/penguins", status = 200, type = "application/json", body = '"state": "AVAILABLE"' },
  { "knows no such model", "GET", "/v1/models/none", status = 404, body = "Could not find any versions of model none" },
  { "describes the model", "GET", "/v1/models/penguins/metadata", status = 200, body = '"dtype": "DT_STRING"' },
  { "refuses other methods", "PUT", "/v1/models/penguins", "x", status = 400, body = "Malformed request: PUT /v1/models/penguins" },
  { "knows no other paths", "GET", "/nothing/here", status = 404 },
  { "is live", "GET", "/v2/health/live", status = 200 },
  { "is ready", "GET", "/v2/models/penguins/ready", status = 200 },
  { "infers", "POST", "/v2/models/penguins/infer", infer_body, status = 200, type = "application/json", check = check_infer },
  { "infers from chunks", "POST", "/v2/models/penguins/versions/3/infer", infer_body, chunked = 100, status = 200, check = check_infer },
  { "refuses what is no inference", "POST", "/v2/models/penguins/infer", "{}", status = 400, type = "application/json", body = '"error"' },
  { "has no model to infer with", "POST", "/v2/models/none/infer", infer_body, status = 404, body = '"error"' },
}

--- Runs all cases, each on a connection that the ones before have used.
---@param connection table of spec.support.raw_http
---@return integer count
function M.run(connection)
  for _, case in ipairs(M.cases) do
    local body = type(case[4]) == "function" and case[4]() or case[4]
    local lines = { case[2] .. " " .. case[3] .. " HTTP/1.1", "Host: a" }
    for name, value in pairs(case.headers or {}) do lines[#lines + 1] = name .. ": " .. value end
    if case.chunked then
      lines[#lines + 1] = "Transfer-Encoding: chunked"
      body = chunks(body, case.chunked)
    elseif body then
      lines[#lines + 1] = "Content-Length: " .. #body
    end
    connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or ""))
    local response, why = connection:response(10)
    if response and response.status == 100 then response, why = connection:response(10) end
    assert(response, case[1] .. ": " .. tostring(why))
    assert(response.status == case.status, ("%s: status %d: %s"):format(case[1], response.status, response.body))
    local kind = response.headers["content-type"]
    assert(not case.type or kind == case.type, ("%s: content-type %s"):format(case[1], tostring(kind)))
    assert(not case.body or response.body:find(case.body, 1, true), ("%s: %s"):format(case[1], response.body))
    if case.check then case.check(response.body) end
  end
  return #M.cases
end

return M
