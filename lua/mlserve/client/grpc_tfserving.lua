--- TensorFlow Serving's PredictionService and ModelService over gRPC, from the client's side.
--
-- Tensors stay bytes until C makes tensors of them: the messages around them are declared here with bytes where TensorFlow has TensorProto, which
-- is the same on the wire.

local core = require "mlserve.core"
local kserve = require "mlserve.client.grpc_kserve"
local proto = require "mlserve.proto"
local tensor = require "mlserve.tensor"
local values = require "mlserve.client.values"

local format = string.format
local floor = math.floor
local ipairs, next, pairs, rawget, setmetatable, tostring, type = ipairs, next, pairs, rawget, setmetatable, tostring, type
local math_type = rawget(math, "type")

local M = {}

local MESSAGES = [[
  syntax = "proto3";
  package mlserve.client;
  import "tensorflow_serving/apis/model.proto";
  message PredictRequest {
    tensorflow.serving.ModelSpec model_spec = 1;
    map<string, bytes> inputs = 2;
    repeated string output_filter = 3;
  }
  message PredictResponse {
    map<string, bytes> outputs = 1;
    tensorflow.serving.ModelSpec model_spec = 2;
  }
]]

local PREDICTION, MODEL, SERVING = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/", "tensorflow.serving."

local loaded
local function schema()
  if not loaded then
    local made = proto.schema()
    made:add("mlserve/client.proto", MESSAGES)
    made:load "tensorflow_serving/apis/prediction_service.proto"
    made:load "tensorflow_serving/apis/model_service.proto"
    loaded = made
  end
  return loaded
end

local function spec_of(model, o)
  return {
    name = model, version = o.version and { value = o.version } or nil, version_label = o.label, signature_name = o.signature,
  }
end

local driver = {}
local class = { __index = driver }

local function call(self, path, request_type, request, answer_type, o, idempotent)
  local bytes, message, code = self.ask(path, schema():encode(request_type, request), o, idempotent)
  if not bytes then return nil, message, code end
  local answer
  answer, message = schema():decode(answer_type, bytes)
  if not answer then return nil, "the answer is not valid: " .. message, "DATA_LOSS" end
  return answer
end

---------------------------------------------------------------------------------------------------------------------------
-- predict

-- Nested arrays become tensors of the model's type, and an input without a name gets the model's: both take its metadata, asked for once.
local function inputs_of(client, model, inputs, o)
  local named, complete = values.is_named(inputs), true
  local list = {}
  local known, message, code
  if named then
    for _, value in pairs(inputs) do complete = complete and tensor.is(value) end
  end
  if not named or not complete then
    known, message, code = client:known_metadata(model, o)
    if not known then return nil, "the model's inputs are not known: " .. tostring(message), code end
  end
  if not named then
    local name, info = next(known.inputs)
    if not name or next(known.inputs, name) then
      return nil, format("the model has %d inputs (%s): give them by name", #values.sorted_keys(known.inputs),
        table.concat(values.sorted_keys(known.inputs), ", ")), "INVALID_ARGUMENT"
    end
    inputs = { [name] = values.tensor(inputs, info.dtype, "inputs") }
  end
  for name, value in pairs(inputs) do
    local info = known and known.inputs[name]
    list[name], message, code = core.tensor_proto(values.tensor(value, info and info.dtype, format("input '%s'", name)))
    if not list[name] then return nil, format("input '%s': %s", name, message), code end
  end
  return list
end

function driver:predict(client, model, inputs, o)
  local list, message, code = inputs_of(client, model, inputs, o)
  if not list then return nil, message, code end
  local names = values.wanted(o.outputs)
  local answer
  answer, message, code = call(self, PREDICTION .. "Predict", "mlserve.client.PredictRequest",
    { model_spec = spec_of(model, o), inputs = list, output_filter = names }, "mlserve.client.PredictResponse", o, true)
  if not answer then return nil, message, code end
  local outputs = {}
  for name, bytes in pairs(answer.outputs or {}) do
    outputs[name], message, code = core.tensor_from_proto(bytes)
    if not outputs[name] then return nil, format("the answer is no prediction: output '%s': %s", name, message), code end
  end
  outputs, message = values.select(outputs, names)
  if not outputs then return nil, message, "DATA_LOSS" end
  if next(outputs) == nil then return nil, "the answer is no prediction: it has no outputs", "DATA_LOSS" end
  return values.shape_answer(outputs, values.is_named(inputs))
end

---------------------------------------------------------------------------------------------------------------------------
-- classify and regress

local function is_float(value)
  if math_type then return math_type(value) == "float" end
  return value ~= floor(value) or value ~= value
end

-- A Feature: floats, integers or bytes, by what the list holds.
local function feature(value, what)
  local floats, integers, texts, as_float = {}, {}, {}, false
  if tensor.is(value) then
    as_float = value:dtype():find("float", 1, true) ~= nil
    value = value:reshape({ value:count() }):totable()
  elseif type(value) ~= "table" then
    value = { value }
  end
  for i, each in ipairs(value) do
    if type(each) == "boolean" then each = each and 1 or 0 end
    if type(each) == "number" then
      as_float = as_float or is_float(each)
      floats[i], integers[i] = each, each
    elseif type(each) == "string" then texts[i] = each
    else error(format("%s: number, string, boolean, tensor or a flat list expected, got %s", what, type(each)), 0) end
  end
  if #texts > 0 and #floats > 0 then error(format("%s: elements of one kind expected", what), 0) end
  if #texts > 0 then return { bytes_list = { value = texts } } end
  if as_float then return { float_list = { value = floats } } end
  for i, each in ipairs(integers) do integers[i] = floor(each) end
  return { int64_list = { value = integers } }
end

local function example(given, what)
  local features = {}
  if type(given) ~= "table" then error(format("%s: a table of features by name expected, got %s", what, type(given)), 0) end
  for name, value in pairs(given) do
    if type(name) ~= "string" then error(format("%s: features by name expected", what), 0) end
    features[name] = feature(value, format("%s, feature '%s'", what, name))
  end
  return { features = { feature = features } }
end

--- The message of classify and regress; raises what is wrong with the examples.
function driver.examples_request(model, list, o)
  local examples = {}
  if type(list) ~= "table" then error(format("examples: a list of tables expected, got %s", type(list)), 0) end
  for i, each in ipairs(list) do examples[i] = example(each, format("example %d", i)) end
  local input = o.context and { example_list_with_context = { examples = examples, context = example(o.context, "context") } }
    or { example_list = { examples = examples } }
  return { model_spec = spec_of(model, o), input = input }
end

function driver:classify(request, o)
  local answer, message, code = call(self, PREDICTION .. "Classify", SERVING .. "ClassificationRequest", request, SERVING .. "ClassificationResponse", o, true)
  if not answer then return nil, message, code end
  local all = {}
  for i, each in ipairs(answer.result and answer.result.classifications or {}) do
    local classes = {}
    for k, one in ipairs(each.classes or {}) do classes[k] = { label = one.label or "", score = one.score or 0 } end
    all[i] = classes
  end
  return all
end

function driver:regress(request, o)
  local answer, message, code = call(self, PREDICTION .. "Regress", SERVING .. "RegressionRequest", request, SERVING .. "RegressionResponse", o, true)
  if not answer then return nil, message, code end
  local all = {}
  for i, each in ipairs(answer.result and answer.result.regressions or {}) do all[i] = each.value or 0 end
  return all
end

---------------------------------------------------------------------------------------------------------------------------
-- status and metadata

function driver:status(model, o)
  local answer, message, code = call(self, MODEL .. "GetModelStatus", SERVING .. "GetModelStatusRequest", { model_spec = spec_of(model, o) },
    SERVING .. "GetModelStatusResponse", o, true)
  if not answer then return nil, message, code end
  local versions = {}
  for i, each in ipairs(answer.model_version_status or {}) do
    local status = each.status or {}
    versions[i] = { version = tostring(each.version or 0), state = each.state or "UNKNOWN", error_code = status.error_code or "OK",
      error_message = status.error_message or "" }
  end
  return versions
end

local function tensors_of(infos)
  local tensors = {}
  for name, info in pairs(infos or {}) do
    local given, shape = info.tensor_shape or {}, nil
    if not given.unknown_rank then
      shape = {}
      for i, dim in ipairs(given.dim or {}) do shape[i] = dim.size or 0 end
    end
    tensors[name] = { dtype = values.TF_DTYPES[info.dtype] or info.dtype, shape = shape }
  end
  return tensors
end

function driver:metadata(model, o)
  local answer, message, code = call(self, PREDICTION .. "GetModelMetadata", SERVING .. "GetModelMetadataRequest",
    { model_spec = spec_of(model, { version = o.version, label = o.label }), metadata_field = { "signature_def" } },
    SERVING .. "GetModelMetadataResponse", o, true)
  if not answer then return nil, message, code end
  local any = (answer.metadata or {}).signature_def
  local map
  if any then map, message = schema():decode(SERVING .. "SignatureDefMap", any.value or "") end
  if not map then return nil, "the answer is not valid: " .. (any and message or "no signature_def"), "DATA_LOSS" end
  local signatures, spec = {}, answer.model_spec or {}
  for name, each in pairs(map.signature_def or {}) do
    signatures[name] = { inputs = tensors_of(each.inputs), outputs = tensors_of(each.outputs), method_name = each.method_name }
  end
  local wanted = o.signature or "serving_default"
  local chosen = signatures[wanted] or not o.signature and signatures[next(signatures)]
  if not chosen then return nil, format("the model has no signature '%s'", wanted), "INVALID_ARGUMENT" end
  return {
    name = spec.name, version = spec.version and tostring(spec.version.value or 0), inputs = chosen.inputs, outputs = chosen.outputs, signatures = signatures,
  }
end

function driver:ready(model, o)
  local versions, message, code = self:status(model, o)
  if not versions then return false, message, code end
  for _, each in ipairs(versions) do
    if each.state == "AVAILABLE" then return true end
  end
  return false, "no version is available", "UNAVAILABLE"
end

--- There is no question about the server itself: any answer will do.
function driver:live(o)
  local versions, message, code = self:status("", o)
  if versions or code ~= "UNAVAILABLE" and code ~= "DEADLINE_EXCEEDED" and code ~= "CANCELLED" then return true end
  return false, message, code
end

driver.server_ready = driver.live

--- KServe's service answers the rest, where the server has it.
---@param ask function(path, message, options, idempotent) -> bytes | nil, message, code
function M.new(ask)
  local self = setmetatable({ ask = ask }, class)
  local other = kserve.new(ask)
  for _, name in ipairs { "server_metadata", "statistics", "config", "index", "control" } do
    self[name] = function(_, ...) return other[name](other, ...) end
  end
  return self
end

return M
