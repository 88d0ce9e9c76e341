--- KServe's v2 protocol (Open Inference Protocol) over REST, from the client's side, with the binary tensor extension.

local core = require "mlserve.core"
local http = require "mlserve.client.http"
local json = require "mlserve.serve.json"
local tensor = require "mlserve.tensor"
local values = require "mlserve.client.values"

local concat, find, format, match = table.concat, string.find, string.format, string.match
local ipairs, next, pairs, tonumber, tostring, type = ipairs, next, pairs, tonumber, tostring, type
local escape = http.escape

local M = {}

local JSON = { ["content-type"] = "application/json" }

-- A label may stand in the place of a version, as mlserve's server has it.
local function path_of(model, o, tail)
  local version = o.version or o.label
  return "/v2/models/" .. escape(model) .. (version and "/versions/" .. escape(version) or "") .. tail
end

function M.error_text(body)
  local document = core.json_decode(body, { nonfinite = true })
  local text = type(document) == "table" and document.error
  return type(text) == "string" and text or nil
end

---------------------------------------------------------------------------------------------------------------------------
-- infer

-- Inputs as { name, tensor } in order. What is no tensor yet becomes one of the model's type, and an input without a name gets the model's: both
-- take the model's metadata, which are asked for once.
local function inputs_of(client, model, inputs, o)
  local list = {}
  local known, message, code
  local named, complete = values.is_named(inputs), true
  if named then
    for _, value in pairs(inputs) do complete = complete and tensor.is(value) end
  else
    complete = false
  end
  if not complete then
    known, message, code = client:known_metadata(model, o)
    if not known then return nil, "the model's inputs are not known: " .. tostring(message), code end
  end
  if not named then
    if #known.input_names ~= 1 then
      return nil, format("the model has %d inputs (%s): give them by name", #known.input_names, concat(values.sorted_keys(known.inputs), ", ")), "INVALID_ARGUMENT"
    end
    local name = known.input_names[1]
    return { { name = name, tensor = values.tensor(inputs, known.inputs[name].dtype, "inputs") } }
  end
  for i, name in ipairs(values.sorted_keys(inputs)) do
    local info = known and known.inputs[name]
    list[i] = { name = name, tensor = values.tensor(inputs[name], info and info.dtype, format("input '%s'", name)) }
  end
  return list
end

local function shape_text(shape)
  local dims = {}
  for i, size in ipairs(shape) do dims[i] = format("%.0f", size) end
  return "[" .. concat(dims, ",") .. "]"
end

-- One input's JSON, and its bytes when it is sent as such; nil, message, code.
local function input_text(each, binary)
  local dtype = each.tensor:dtype()
  local datatype = values.DATATYPES[dtype]
  local text, bytes, message, code
  if not datatype then
    return nil, format("input '%s': %s has no datatype in this protocol", each.name, dtype), "INVALID_ARGUMENT"
  end
  text = format('{"name":%s,"shape":%s,"datatype":"%s",', json.string(each.name), shape_text(each.tensor:shape()), datatype)
  if binary then
    bytes, message, code = core.request_bytes(each.tensor)
    if not bytes then return nil, message, code end
    return format('%s"parameters":{"binary_data_size":%d}}', text, #bytes), bytes
  end
  bytes, message, code = core.request_json(each.tensor, nil, true)
  if not bytes then return nil, format("input '%s': %s", each.name, message), code end
  if #each.tensor:shape() == 0 then bytes = "[" .. bytes .. "]" end
  return text .. '"data":' .. bytes .. "}"
end

local function merged(parameters, more)
  local all = {}
  for name, value in pairs(parameters or {}) do all[name] = value end
  for name, value in pairs(more) do all[name] = value end
  return all
end

local function outputs_text(o, binary)
  local names, parameters = values.wanted(o.outputs)
  local items = {}
  if not names then return "" end
  for i, name in ipairs(names) do
    local given = merged(parameters[name], binary and not (parameters[name] or {}).classification and { binary_data = true } or {})
    items[i] = '{"name":' .. json.string(name) .. (next(given) and ',"parameters":' .. core.json_encode(given) or "") .. "}"
  end
  return ',"outputs":[' .. concat(items, ",") .. "]"
end

--- The request: path, body, headers; nil, message, code.
function M.predict_request(client, model, inputs, o)
  local list, message, code = inputs_of(client, model, inputs, o)
  local items, bytes = {}, {}
  local binary = o.binary
  if not list then return nil, message, code end
  if binary == nil then binary = client.options.binary end
  for i, each in ipairs(list) do
    local text, more, why = input_text(each, binary)
    if not text then return nil, more, why end
    items[i], bytes[#bytes + 1] = text, more
  end
  local parameters = merged(o.parameters, binary and not o.outputs and { binary_data_output = true } or {})
  local head = (o.id and '{"id":' .. json.string(o.id) .. "," or "{") .. (next(parameters) and '"parameters":' .. core.json_encode(parameters) .. "," or "")
    .. '"inputs":[' .. concat(items, ",") .. "]" .. outputs_text(o, binary) .. "}"
  if not binary then return path_of(model, o, "/infer"), head, JSON end
  return path_of(model, o, "/infer"), head .. concat(bytes),
    { ["content-type"] = "application/octet-stream", ["inference-header-content-length"] = format("%d", #head) }
end

--- The outputs of an answer.
function M.predict_answer(_, _, inputs, o, response)
  local field, json_size = response.headers["inference-header-content-length"], nil
  if field then
    json_size = match(field, "^%d+$") and #field < 16 and tonumber(field)
    if not json_size then return nil, "the answer is no inference: Inference-Header-Content-Length: " .. field, "DATA_LOSS" end
  end
  local list, version, id = core.reply_infer(response.body, json_size)
  local by_name = {}
  local message
  if not list then return nil, "the answer is no inference: " .. tostring(version), id end
  if o.id and id ~= nil and id ~= o.id then return nil, "the answer is to another request", "DATA_LOSS" end
  for _, each in ipairs(list) do
    if by_name[each.name] ~= nil then return nil, format("the answer is no inference: output '%s' came twice", each.name), "DATA_LOSS" end
    by_name[each.name] = each.value
  end
  by_name, message = values.select(by_name, (values.wanted(o.outputs)))
  if not by_name then return nil, message, "INVALID_ARGUMENT" end
  return values.shape_answer(by_name, values.is_named(inputs))
end

---------------------------------------------------------------------------------------------------------------------------
-- the rest

function M.metadata_path(model, o) return path_of(model, o, "") end

local function tensors_of(list)
  local tensors, names = {}, {}
  for _, each in ipairs(type(list) == "table" and list or {}) do
    if type(each) == "table" and type(each.name) == "string" then
      local shape = type(each.shape) == "table" and each.shape or {}
      names[#names + 1] = each.name
      tensors[each.name] = { dtype = values.DTYPES[each.datatype] or each.datatype, shape = shape }
    end
  end
  return tensors, names
end

function M.metadata_answer(response)
  local document = core.json_decode(response.body)
  if type(document) ~= "table" or type(document.inputs) ~= "table" then return nil, "the answer is not valid: no inputs", "DATA_LOSS" end
  local inputs, input_names = tensors_of(document.inputs)
  local outputs, output_names = tensors_of(document.outputs)
  return {
    name = document.name, versions = type(document.versions) == "table" and document.versions or nil, platform = document.platform,
    inputs = inputs, outputs = outputs, input_names = input_names, output_names = output_names,
  }
end

M.status_path = M.metadata_path

--- The protocol knows versions that answer, and no others.
function M.status_answer(response)
  local metadata, message, code = M.metadata_answer(response)
  local versions = {}
  if not metadata then return nil, message, code end
  for i, version in ipairs(metadata.versions or {}) do
    versions[i] = { version = tostring(version), state = "AVAILABLE", error_code = "OK", error_message = "" }
  end
  return versions
end

function M.ready_path(model, o) return path_of(model, o, "/ready") end
function M.ready_answer() return true end

M.live_path = "/v2/health/live"
M.server_ready_path = "/v2/health/ready"
function M.live_answer(response) return response.status == 200 or nil end

function M.statistics_path(model, o) return model and path_of(model, o, "/stats") or "/v2/models/stats" end
function M.config_path(model, o) return path_of(model, o, "/config") end

function M.load_path(model, verb) return "/v2/repository/models/" .. escape(model) .. "/" .. verb end

--- A document as it came.
function M.document(response)
  local document, message
  if not find(response.body, "%S") then return {} end
  document, message = core.json_decode(response.body, { nonfinite = true })
  if type(document) ~= "table" then return nil, "the answer is not valid JSON: " .. tostring(message), "DATA_LOSS" end
  return document
end

return M
