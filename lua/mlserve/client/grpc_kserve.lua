--- KServe's GRPCInferenceService with Triton's extensions, and the health service, from the client's side. Tensors travel as raw contents.

local core = require "mlserve.core"
local proto = require "mlserve.proto"
local tensor = require "mlserve.tensor"
local values = require "mlserve.client.values"

local concat, format = table.concat, string.format
local floor = math.floor
local error, ipairs, next, pairs, pcall, setmetatable, tostring, type = error, ipairs, next, pairs, pcall, setmetatable, tostring, type

local M = {}

local SERVICE, INFERENCE = "/inference.GRPCInferenceService/", "inference."

local loaded
local function schema()
  if not loaded then
    local made = proto.schema()
    made:load "grpc_service.proto"
    made:load "grpc/health/v1/health.proto"
    loaded = made
  end
  return loaded
end

local driver = {}
local class = { __index = driver }

local function call(self, method, request, o, idempotent)
  local bytes, message, code = self.ask(SERVICE .. method, schema():encode(INFERENCE .. method .. "Request", request), o, idempotent)
  if not bytes then return nil, message, code end
  local answer
  answer, message = schema():decode(INFERENCE .. method .. "Response", bytes)
  if not answer then return nil, "the answer is not valid: " .. message, "DATA_LOSS" end
  return answer
end

-- A label may stand in the place of a version, as mlserve's server has it.
local function version_of(o) return o.version or o.label end

---------------------------------------------------------------------------------------------------------------------------
-- infer

local function parameter(name, value)
  if type(value) == "boolean" then return { bool_param = value } end
  if type(value) == "string" then return { string_param = value } end
  if type(value) ~= "number" then error(format("parameters: '%s': boolean, number or string expected, got %s", name, type(value)), 0) end
  if value == floor(value) then return { int64_param = value } end
  return { double_param = value }
end

local function parameters_of(given)
  local all = {}
  for name, value in pairs(given or {}) do all[name] = parameter(name, value) end
  return all
end

--- A ModelInferRequest as a table; nil, message, code. Inputs that are no tensors yet and those without a name take the model's metadata.
local function infer_request(client, model, inputs, o)
  local named, complete = values.is_named(inputs), true
  local entries, raw, outputs = {}, {}, {}
  local known, message, code
  if named then
    for _, value in pairs(inputs) do complete = complete and tensor.is(value) end
  end
  if not named or not complete then
    known, message, code = client:known_metadata(model, o)
    if not known then return nil, "the model's inputs are not known: " .. tostring(message), code end
  end
  if not named then
    local names = values.sorted_keys(known.inputs)
    if #names ~= 1 then
      return nil, format("the model has %d inputs (%s): give them by name", #names, concat(names, ", ")), "INVALID_ARGUMENT"
    end
    inputs = { [names[1]] = values.tensor(inputs, known.inputs[names[1]].dtype, "inputs") }
  end
  for i, name in ipairs(values.sorted_keys(inputs)) do
    local info = known and known.inputs[name]
    local made = values.tensor(inputs[name], info and info.dtype, format("input '%s'", name))
    local datatype = values.DATATYPES[made:dtype()]
    if not datatype then return nil, format("input '%s': %s has no datatype in this protocol", name, made:dtype()), "INVALID_ARGUMENT" end
    entries[i] = { name = name, datatype = datatype, shape = made:shape() }
    raw[i], message, code = core.request_bytes(made)
    if not raw[i] then return nil, message, code end
  end
  local names, parameters = values.wanted(o.outputs)
  for i, name in ipairs(names or {}) do outputs[i] = { name = name, parameters = parameters_of(parameters[name]) } end
  return {
    model_name = model, model_version = version_of(o), id = o.id, parameters = parameters_of(o.parameters), inputs = entries, outputs = outputs,
    raw_input_contents = raw,
  }
end

local TYPED = { "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents", "fp32_contents", "fp64_contents", "bytes_contents" }

local function typed_tensor(entry)
  local dtype, shape = values.DTYPES[entry.datatype], entry.shape or {}
  local list, count = {}, 1
  for _, name in ipairs(TYPED) do
    local given = entry.contents[name]
    if given then list = given end
  end
  for _, size in ipairs(shape) do count = count * size end
  if not dtype or count ~= #list then return nil, "elements that do not fill the shape", "DATA_LOSS" end
  local ok, made = pcall(function() return core.tensor(list, dtype):reshape(shape) end)
  if not ok then return nil, tostring(made), "DATA_LOSS" end
  return made
end

--- Outputs of a ModelInferResponse, and its id.
local function infer_answer(answer, inputs, o)
  local outputs, raw = {}, answer.raw_output_contents or {}
  local names = values.wanted(o.outputs)
  local at, message, code = 0
  for _, entry in ipairs(answer.outputs or {}) do
    local name = entry.name or ""
    local value
    if entry.contents and #raw == 0 then
      value, message, code = typed_tensor(entry)
    else
      at = at + 1
      if not raw[at] then return nil, format("the answer is no inference: output '%s' has no contents", name), "DATA_LOSS" end
      local ok
      ok, value, message, code = pcall(core.reply_tensor, raw[at], entry.datatype or "", entry.shape or {})
      if not ok then value, message, code = nil, tostring(value), "DATA_LOSS" end
    end
    if not value then return nil, format("the answer is no inference: output '%s': %s", name, message), code end
    if outputs[name] ~= nil then return nil, format("the answer is no inference: output '%s' came twice", name), "DATA_LOSS" end
    outputs[name] = value
  end
  if at ~= #raw then return nil, format("the answer is no inference: contents of %d outputs, %d outputs", #raw, at), "DATA_LOSS" end
  outputs, message = values.select(outputs, names)
  if not outputs then return nil, message, "DATA_LOSS" end
  if next(outputs) == nil then return nil, "the answer is no inference: it has no outputs", "DATA_LOSS" end
  return values.shape_answer(outputs, values.is_named(inputs)), answer.id
end

function driver:predict(client, model, inputs, o)
  local request, message, code = infer_request(client, model, inputs, o)
  if not request then return nil, message, code end
  local answer
  answer, message, code = call(self, "ModelInfer", request, o, true)
  if not answer then return nil, message, code end
  if o.id and answer.id and answer.id ~= o.id then return nil, "the answer is to another request", "DATA_LOSS" end
  local outputs
  outputs, message, code = infer_answer(answer, inputs, o)
  if outputs == nil then return nil, message, code end
  return outputs
end

--- For streams of requests: bytes of a message, and back.
function M.encode_stream_request(client, model, inputs, o)
  local request, message, code = infer_request(client, model, inputs, o)
  if not request then return nil, message, code end
  return schema():encode("inference.ModelInferRequest", request)
end

--- outputs, id; nil, message, code for an answer that is an error.
function M.decode_stream_answer(bytes, inputs, o)
  local answer, message = schema():decode("inference.ModelStreamInferResponse", bytes)
  if not answer then return nil, "the answer is not valid: " .. message, "DATA_LOSS" end
  if answer.error_message and answer.error_message ~= "" then return nil, answer.error_message, "UNKNOWN" end
  return infer_answer(answer.infer_response or {}, inputs, o)
end

---------------------------------------------------------------------------------------------------------------------------
-- health

function M.health_request(service) return schema():encode("grpc.health.v1.HealthCheckRequest", { service = service }) end

--- "SERVING", "NOT_SERVING", …; nil, message, code.
function M.health_answer(bytes)
  local answer, message = schema():decode("grpc.health.v1.HealthCheckResponse", bytes)
  if not answer then return nil, "the answer is not valid: " .. message, "DATA_LOSS" end
  return tostring(answer.status or "UNKNOWN")
end

---------------------------------------------------------------------------------------------------------------------------
-- the rest

local function tensors_of(list)
  local tensors, names = {}, {}
  for i, each in ipairs(list or {}) do
    names[i] = each.name or ""
    tensors[names[i]] = { dtype = values.DTYPES[each.datatype] or each.datatype, shape = each.shape or {} }
  end
  return tensors, names
end

function driver:metadata(model, o)
  local answer, message, code = call(self, "ModelMetadata", { name = model, version = version_of(o) }, o, true)
  if not answer then return nil, message, code end
  local inputs, input_names = tensors_of(answer.inputs)
  local outputs, output_names = tensors_of(answer.outputs)
  return { name = answer.name, versions = answer.versions or {}, platform = answer.platform, inputs = inputs, outputs = outputs, input_names = input_names,
    output_names = output_names }
end

--- The protocol knows versions that answer, and no others.
function driver:status(model, o)
  local metadata, message, code = self:metadata(model, o)
  local versions = {}
  if not metadata then return nil, message, code end
  for i, version in ipairs(metadata.versions) do versions[i] = { version = version, state = "AVAILABLE", error_code = "OK", error_message = "" } end
  return versions
end

local function flag(answer, name, message, code)
  if not answer then return false, message, code end
  if answer[name] then return true end
  return false, "not " .. name, "UNAVAILABLE"
end

function driver:ready(model, o)
  local answer, message, code = call(self, "ModelReady", { name = model, version = version_of(o) }, o, true)
  return flag(answer, "ready", message, code)
end

function driver:server_ready(o)
  local answer, message, code = call(self, "ServerReady", {}, o, true)
  return flag(answer, "ready", message, code)
end

function driver:live(o)
  local answer, message, code = call(self, "ServerLive", {}, o, true)
  return flag(answer, "live", message, code)
end

function driver:server_metadata(o) return call(self, "ServerMetadata", {}, o, true) end

function driver:statistics(model, o)
  local answer, message, code = call(self, "ModelStatistics", { name = model, version = version_of(o) }, o, true)
  if not answer then return nil, message, code end
  return answer.model_stats or {}
end

function driver:config(model, o)
  local answer, message, code = call(self, "ModelConfig", { name = model, version = version_of(o) }, o, true)
  if not answer then return nil, message, code end
  return answer.config or {}
end

function driver:index(o)
  local answer, message, code = call(self, "RepositoryIndex", { ready = o.ready }, o, true)
  if not answer then return nil, message, code end
  return answer.models or {}
end

function driver:control(verb, model, o)
  local parameters = o.unload_dependents ~= nil and { unload_dependents = { bool_param = o.unload_dependents } } or nil
  local answer, message, code = call(self, verb == "load" and "RepositoryModelLoad" or "RepositoryModelUnload",
    { model_name = model, parameters = parameters }, o, false)
  if not answer then return nil, message, code end
  return true
end

---@param ask function(path, message, options, idempotent) -> bytes | nil, message, code
function M.new(ask) return setmetatable({ ask = ask }, class) end

return M
