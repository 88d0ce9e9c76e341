--- TensorFlow Serving's REST protocol, from the client's side.

local core = require "mlserve.core"
local http = require "mlserve.client.http"
local json = require "mlserve.serve.json"
local tensor = require "mlserve.tensor"
local values = require "mlserve.client.values"

local concat, find, format = table.concat, string.find, string.format
local abs, floor, huge = math.abs, math.floor, math.huge
local ipairs, next, pairs, rawget, tonumber, tostring, type = ipairs, next, pairs, rawget, tonumber, tostring, type
local escape = http.escape
local math_type = rawget(math, "type") -- 5.4 tells floats from integers, LuaJIT does not

local M = {}

local JSON = { ["content-type"] = "application/json" }

local function path_of(model, o, tail)
  return "/v1/models/" .. escape(model) .. (o.version and "/versions/" .. escape(o.version) or "")
    .. (o.label and "/labels/" .. escape(o.label) or "") .. tail
end

-- The message of an answer that is an error; nil: it says nothing.
function M.error_text(body)
  local document = core.json_decode(body, { nonfinite = true })
  local text = type(document) == "table" and document.error
  return type(text) == "string" and text or nil
end

---------------------------------------------------------------------------------------------------------------------------
-- predict

local function signature_text(o) return o.signature and '"signature_name":' .. json.string(o.signature) .. "," or "" end

local function column_text(inputs, named)
  local items = {}
  if not named then return values.json(inputs, "inputs") end
  for i, name in ipairs(values.sorted_keys(inputs)) do
    items[i] = json.string(name) .. ":" .. values.json(inputs[name], format("input '%s'", name))
  end
  return "{" .. concat(items, ",") .. "}"
end

local function rows_of(value, what)
  local shape = tensor.is(value) and value:shape()
  if not shape and type(value) ~= "table" or shape and #shape == 0 then error(format("%s: rows expected (format = 'row')", what), 0) end
  return #value
end

local function row_text(inputs, named)
  local keys, rows = {}, {}
  local names, count
  if not named then
    rows_of(inputs, "inputs")
    return values.json(inputs, "inputs")
  end
  names = values.sorted_keys(inputs)
  for i, name in ipairs(names) do
    local n = rows_of(inputs[name], format("input '%s'", name))
    count = count or n
    if n ~= count then error(format("inputs: '%s' has %d rows, '%s' has %d", names[1], count, name, n), 0) end
    keys[i] = (i == 1 and "{" or ",") .. json.string(name) .. ":"
  end
  for row = 1, count do
    local items = {}
    for i, name in ipairs(names) do
      items[2 * i - 1], items[2 * i] = keys[i], values.json(inputs[name], format("input '%s', row %d", name, row), row)
    end
    rows[row] = concat(items) .. "}"
  end
  return "[" .. concat(rows, ",") .. "]"
end

--- The request: path, body, headers.
function M.predict_request(_, model, inputs, o)
  local named = values.is_named(inputs)
  local body
  if o.format == "row" then body = '"instances":' .. row_text(inputs, named)
  else body = '"inputs":' .. column_text(inputs, named) end
  return path_of(model, o, ":predict"), "{" .. signature_text(o) .. body .. "}", JSON
end

--- The outputs of an answer.
function M.predict_answer(client, model, inputs, o, response)
  local value, named, code = core.reply_predict(response.body, o.dtypes)
  local by_name, inputs_named = {}, values.is_named(inputs)
  local message, metadata
  local wanted = values.wanted(o.outputs)
  if value == nil then return nil, "the answer is no prediction: " .. tostring(named), code end
  if named then
    for name, each in pairs(value) do by_name[name] = values.value(each) end
  elseif wanted and #wanted == 1 then
    by_name[wanted[1]] = values.value(value)
  elseif inputs_named or wanted then -- the protocol does not name an output that is alone
    metadata, message, code = client:known_metadata(model, o)
    if not metadata then return nil, "the name of the output is not known: " .. tostring(message), code end
    local names = values.sorted_keys(metadata.outputs)
    if #names ~= 1 then return nil, format("one output came, the signature has %d", #names), "DATA_LOSS" end
    by_name[names[1]] = values.value(value)
  else
    return values.value(value)
  end
  by_name, message = values.select(by_name, wanted)
  if not by_name then return nil, message, "INVALID_ARGUMENT" end
  return values.shape_answer(by_name, inputs_named)
end

---------------------------------------------------------------------------------------------------------------------------
-- classify and regress

-- TensorFlow Serving takes a number without a fraction for an integer feature: Lua 5.4's floats keep one; LuaJIT has none to keep.
local function number_text(value, as_float)
  if value ~= value then return "NaN" end
  if value == huge then return "Infinity" end
  if value == -huge then return "-Infinity" end
  if not as_float and value == floor(value) and abs(value) < 2 ^ 53 then return format("%.0f", value) end
  local text = format("%.15g", value)
  if tonumber(text) ~= value then text = format("%.17g", value) end
  return find(text, "[.eE]") and text or text .. ".0"
end

local function is_float(value)
  if math_type then return math_type(value) == "float" end
  return value ~= floor(value) or value ~= value
end

local function feature_text(value, what)
  local items, as_float = {}, false
  if tensor.is(value) or type(value) == "string" then return values.json(value, what) end
  if type(value) == "boolean" then return tostring(value) end
  if type(value) == "number" then return number_text(value, is_float(value)) end
  if type(value) ~= "table" then error(format("%s: number, string, boolean, tensor or a list expected, got %s", what, type(value)), 0) end
  for _, each in ipairs(value) do as_float = as_float or type(each) == "number" and is_float(each) end
  for i, each in ipairs(value) do
    if type(each) == "number" then items[i] = number_text(each, as_float)
    elseif type(each) == "table" then error(format("%s: a flat list expected", what), 0)
    else items[i] = feature_text(each, what) end
  end
  return "[" .. concat(items, ",") .. "]"
end

local function example_text(example, what)
  local items = {}
  if type(example) ~= "table" then error(format("%s: a table of features by name expected, got %s", what, type(example)), 0) end
  for i, name in ipairs(values.sorted_keys(example)) do
    if type(name) ~= "string" then error(format("%s: features by name expected", what), 0) end
    items[i] = json.string(name) .. ":" .. feature_text(example[name], format("%s, feature '%s'", what, name))
  end
  return "{" .. concat(items, ",") .. "}"
end

local function examples_request(model, examples, o, verb)
  local items = {}
  if type(examples) ~= "table" then error(format("examples: a list of tables expected, got %s", type(examples)), 0) end
  for i, example in ipairs(examples) do items[i] = example_text(example, format("example %d", i)) end
  return path_of(model, o, ":" .. verb), "{" .. signature_text(o) .. (o.context and '"context":' .. example_text(o.context, "context") .. "," or "")
    .. '"examples":[' .. concat(items, ",") .. "]}", JSON
end

function M.classify_request(model, examples, o) return examples_request(model, examples, o, "classify") end
function M.regress_request(model, examples, o) return examples_request(model, examples, o, "regress") end

local function results_of(response)
  local document, message = core.json_decode(response.body, { nonfinite = true })
  if type(document) ~= "table" then return nil, "the answer is not valid: " .. tostring(message or "no object"), "DATA_LOSS" end
  local results = document.results or document.result
  if type(results) ~= "table" then return nil, "the answer is not valid: no results", "DATA_LOSS" end
  return results
end

function M.classify_answer(response)
  local results, message, code = results_of(response)
  local all = {}
  if not results then return nil, message, code end
  for i, classes in ipairs(results) do
    local list = {}
    for k, class in ipairs(type(classes) == "table" and classes or {}) do
      if type(class) ~= "table" or type(class[1]) ~= "string" or type(class[2]) ~= "number" then
        return nil, "the answer is not valid: pairs of label and score expected", "DATA_LOSS"
      end
      list[k] = { label = class[1], score = class[2] }
    end
    all[i] = list
  end
  return all
end

function M.regress_answer(response)
  local results, message, code = results_of(response)
  if not results then return nil, message, code end
  for i, value in ipairs(results) do
    if type(value) ~= "number" then return nil, format("the answer is not valid: result %d is no number", i), "DATA_LOSS" end
  end
  return results
end

---------------------------------------------------------------------------------------------------------------------------
-- status and metadata

function M.status_path(model, o) return path_of(model, o, "") end

function M.status_answer(response)
  local document = core.json_decode(response.body)
  local list = type(document) == "table" and document.model_version_status
  local versions = {}
  if type(list) ~= "table" then return nil, "the answer is not valid: no model_version_status", "DATA_LOSS" end
  for i, each in ipairs(list) do
    if type(each) ~= "table" then return nil, "the answer is not valid: model_version_status", "DATA_LOSS" end
    local status = type(each.status) == "table" and each.status or {}
    versions[i] = { version = each.version and tostring(each.version), state = each.state, error_code = status.error_code,
      error_message = status.error_message }
  end
  return versions
end

function M.metadata_path(model, o) return path_of(model, o, "/metadata") end

local function tensors_of(infos)
  local tensors = {}
  for name, info in pairs(type(infos) == "table" and infos or {}) do
    if type(info) == "table" then
      local shape, given = nil, type(info.tensor_shape) == "table" and info.tensor_shape or {}
      if not given.unknown_rank then
        shape = {}
        for i, dim in ipairs(type(given.dim) == "table" and given.dim or {}) do shape[i] = tonumber(type(dim) == "table" and dim.size) or -1 end
      end
      tensors[name] = { dtype = values.TF_DTYPES[info.dtype] or info.dtype, shape = shape }
    end
  end
  return tensors
end

function M.metadata_answer(response, o)
  local document = core.json_decode(response.body)
  local metadata = type(document) == "table" and document.metadata
  local map = type(metadata) == "table" and type(metadata.signature_def) == "table" and metadata.signature_def.signature_def
  local spec = type(document) == "table" and type(document.model_spec) == "table" and document.model_spec or {}
  local signatures = {}
  if type(map) ~= "table" then return nil, "the answer is not valid: no signature_def", "DATA_LOSS" end
  for name, each in pairs(map) do
    if type(each) == "table" then
      signatures[name] = { inputs = tensors_of(each.inputs), outputs = tensors_of(each.outputs), method_name = each.method_name }
    end
  end
  local wanted = o.signature or "serving_default"
  local chosen = signatures[wanted] or not o.signature and signatures[next(signatures)]
  if not chosen then return nil, format("the model has no signature '%s'", wanted), "INVALID_ARGUMENT" end
  return { name = spec.name, version = spec.version and tostring(spec.version), inputs = chosen.inputs, outputs = chosen.outputs, signatures = signatures }
end

--- A model is ready when one of the versions asked for is available.
function M.ready_answer(response)
  local versions, message, code = M.status_answer(response)
  if not versions then return nil, message, code end
  for _, each in ipairs(versions) do
    if each.state == "AVAILABLE" then return true end
  end
  return false, "no version is available", "UNAVAILABLE"
end

function M.ready_path(model, o) return M.status_path(model, o) end

M.live_path = "/v1/models"
M.server_ready_path = "/v1/models"
--- There is no question about the server itself: any answer will do.
function M.live_answer(response)
  return response.status < 500 or nil
end

return M
