--- The OpenAPI document of the REST interfaces, made from one table of operations.
--
--   openapi.mount(app)        -- GET /openapi.json, with those operations that the app has routes for
--
-- An operation is listed once; paths that may carry a version or a label are spelt out from it.

local json = require "mlserve.serve.json"

local concat, find, gmatch, gsub, lower = table.concat, string.find, string.gmatch, string.gsub, string.lower
local ipairs, pairs, pcall, require, sort, tostring, type = ipairs, pairs, pcall, require, table.sort, tostring, type

local M = {}

---------------------------------------------------------------------------------------------------------------------------
-- what there is

local function list(of) return { type = "array", items = of } end
local function ref(name) return { ["$ref"] = "#/components/schemas/" .. name } end
local TEXT, ANY, OBJECT = { type = "string" }, {}, { type = "object" }

local function object(properties, required) return { type = "object", properties = properties, required = required } end

local TENSOR = object({ dtype = TEXT, name = TEXT, tensor_shape = object({
  dim = list(object({ size = TEXT, name = TEXT }, { "size" })), unknown_rank = { type = "boolean" } }, { "dim", "unknown_rank" }) },
  { "dtype", "tensor_shape", "name" })
local FEATURES = { type = "object", description = "Features by name: a value or a flat list of numbers, booleans, strings or {\"b64\": …}.",
  additionalProperties = { anyOf = { { type = { "number", "boolean", "string" } }, list { type = { "number", "boolean", "string" } },
    object({ b64 = TEXT }, { "b64" }) } } }
local V2_TENSOR = object({ name = TEXT, datatype = TEXT, shape = list { type = "integer" }, data = { type = "array", items = ANY },
  parameters = OBJECT }, { "name", "datatype", "shape" })
local V2_DESCRIPTION = list(object({ name = TEXT, datatype = TEXT, shape = list { type = "integer" } }, { "name", "datatype", "shape" }))

local SCHEMAS = {
  Error = object({ error = TEXT }, { "error" }),
  PredictRequest = {
    type = "object", properties = {
      signature_name = { type = "string", default = "serving_default" },
      instances = { type = "array", minItems = 1, items = ANY, description = "Rows; with several inputs each is an object by input name." },
      inputs = { description = "The value of the only input, or an object by input name." },
    },
    oneOf = { { required = { "instances" } }, { required = { "inputs" } } },
  },
  PredictResponse = {
    type = "object", properties = { predictions = { type = "array", items = ANY, description = "One for each row." },
      outputs = { description = "The value of the only output, or an object by output name." } },
    oneOf = { { required = { "predictions" } }, { required = { "outputs" } } },
  },
  ExamplesRequest = object({
    signature_name = { type = "string", default = "serving_default" }, context = FEATURES,
    examples = { type = "array", minItems = 1, items = FEATURES },
  }, { "examples" }),
  ClassifyResponse = object({ results = list(list { type = "array", minItems = 2, maxItems = 2, prefixItems = { TEXT, { type = "number" } } }) },
    { "results" }),
  RegressResponse = object({ results = list { type = "number" } }, { "results" }),
  StatusResponse = object({ model_version_status = list(object({
    version = TEXT, state = { type = "string", enum = { "UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END" } },
    status = object({ error_code = TEXT, error_message = TEXT }, { "error_code", "error_message" }),
  }, { "version", "state", "status" })) }, { "model_version_status" }),
  MetadataResponse = object({
    model_spec = object({ name = TEXT, signature_name = TEXT, version = TEXT }, { "name", "version" }),
    metadata = object({ signature_def = object({ signature_def = { type = "object", additionalProperties = object({
      inputs = { type = "object", additionalProperties = TENSOR }, outputs = { type = "object", additionalProperties = TENSOR }, method_name = TEXT,
    }, { "inputs", "outputs", "method_name" }) } }, { "signature_def" }) }, { "signature_def" }),
  }, { "model_spec", "metadata" }),
  InferRequest = object({ id = TEXT, parameters = OBJECT, inputs = list(V2_TENSOR),
    outputs = list(object({ name = TEXT, parameters = OBJECT }, { "name" })) }, { "inputs" }),
  InferResponse = object({ id = TEXT, model_name = TEXT, model_version = TEXT, parameters = OBJECT, outputs = list(V2_TENSOR) },
    { "model_name", "outputs" }),
  ServerMetadata = object({ name = TEXT, version = TEXT, extensions = list(TEXT) }, { "name", "version", "extensions" }),
  ModelMetadata = object({ name = TEXT, versions = list(TEXT), platform = TEXT, inputs = V2_DESCRIPTION, outputs = V2_DESCRIPTION },
    { "name", "platform", "inputs", "outputs" }),
}

-- id, method, path, tag, what it does, then optionally: request (a schema's name), response (a schema's name, a media type, or nothing for any
-- JSON), code (of success, 200). {target} stands for a model, alone or with /versions/{version} or /labels/{label}; {model} in v2 alone or
-- with /versions/{version}.
local OPERATIONS = {
  { id = "status", "GET", "/v1/models/{target}", "TensorFlow Serving", "States of the versions of a model", response = "StatusResponse" },
  { id = "metadata", "GET", "/v1/models/{target}/metadata", "TensorFlow Serving", "Signatures of a model", response = "MetadataResponse" },
  { id = "predict", "POST", "/v1/models/{target}:predict", "TensorFlow Serving", "Predict from tensors, in row or column form",
    request = "PredictRequest", response = "PredictResponse" },
  { id = "classify", "POST", "/v1/models/{target}:classify", "TensorFlow Serving", "Labels and scores of examples", request = "ExamplesRequest",
    response = "ClassifyResponse" },
  { id = "regress", "POST", "/v1/models/{target}:regress", "TensorFlow Serving", "Values of examples", request = "ExamplesRequest",
    response = "RegressResponse" },
  { id = "serverMetadata", "GET", "/v2", "KServe v2", "Name, version and extensions of the server", response = "ServerMetadata" },
  { id = "serverLive", "GET", "/v2/health/live", "KServe v2", "Is the server alive?" },
  { id = "serverReady", "GET", "/v2/health/ready", "KServe v2", "Are all models ready?" },
  { id = "modelMetadata", "GET", "/v2/models/{versioned}", "KServe v2", "Inputs and outputs of a model", response = "ModelMetadata" },
  { id = "modelReady", "GET", "/v2/models/{versioned}/ready", "KServe v2", "Does the model answer?" },
  { id = "infer", "POST", "/v2/models/{versioned}/infer", "KServe v2", "Infer from tensors; with the header Inference-Header-Content-Length, "
    .. "binary tensors follow the JSON", request = "InferRequest", response = "InferResponse" },
  { id = "modelConfig", "GET", "/v2/models/{versioned}/config", "KServe v2", "Triton's model configuration", response = "object" },
  { id = "modelStatistics", "GET", "/v2/models/{versioned}/stats", "KServe v2", "Counts and times of a model", response = "object" },
  { id = "statistics", "GET", "/v2/models/stats", "KServe v2", "Counts and times of all models", response = "object" },
  { id = "repositoryIndex", "POST", "/v2/repository/index", "KServe v2", "What the repository holds (where it may be administered)", request = "object",
    optional = true },
  { id = "repositoryLoad", "POST", "/v2/repository/models/{model}/load", "KServe v2", "Load or reload a model (where it may be administered)",
    request = "object", optional = true },
  { id = "repositoryUnload", "POST", "/v2/repository/models/{model}/unload", "KServe v2", "Unload a model (where it may be administered)",
    request = "object", optional = true },
  { id = "metrics", "GET", "/metrics", "Monitoring", "Metrics in Prometheus' text format", response = "text/plain" },
  { id = "tensorflowMetrics", "GET", "/monitoring/prometheus/metrics", "Monitoring", "The same at TensorFlow Serving's path, with its names too",
    response = "text/plain" },
  { id = "openapi", "GET", "/openapi.json", "Monitoring", "This document", response = "object" },
}

local PARAMETERS = {
  model = { schema = { type = "string", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$" }, description = "Name of a model" },
  version = { schema = { type = "string", pattern = "^[0-9]{1,18}$" }, description = "Number of a version" },
  label = { schema = { type = "string", pattern = "^[A-Za-z0-9_]+$" }, description = "Label of a version" },
}

-- the paths that a pattern with {target} or {versioned} stands for, each with the end of its operations' ids
local FORMS = {
  target = { { "{model}", "" }, { "{model}/versions/{version}", "Version" }, { "{model}/labels/{label}", "Label" } },
  versioned = { { "{model}", "" }, { "{model}/versions/{version}", "Version" } },
}

---------------------------------------------------------------------------------------------------------------------------
-- the document

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  sort(keys)
  return keys
end

-- Tables with elements are arrays, all others objects, in the order of their keys: the same document every time.
local function encode(value)
  if type(value) == "string" then return json.string(value) end
  if type(value) ~= "table" then return tostring(value) end
  local items = {}
  if #value > 0 then
    for i, item in ipairs(value) do items[i] = encode(item) end
    return "[" .. concat(items, ",") .. "]"
  end
  for i, key in ipairs(sorted_keys(value)) do items[i] = json.string(key) .. ":" .. encode(value[key]) end
  return "{" .. concat(items, ",") .. "}"
end

local function content_of(name)
  if not name then return nil end
  if find(name, "/", 1, true) then return { [name] = { schema = TEXT } } end
  return { ["application/json"] = { schema = name == "object" and OBJECT or ref(name) } }
end

local function operation(row, path, suffix)
  local parameters = {}
  for name in gmatch(path, "{(%w+)}") do
    local p = PARAMETERS[name]
    parameters[#parameters + 1] = { name = name, ["in"] = "path", required = true, schema = p.schema, description = p.description }
  end
  return {
    operationId = row.id .. suffix, tags = { row[3] }, summary = row[4], parameters = #parameters > 0 and parameters or nil,
    requestBody = row.request and { required = not row.optional, content = content_of(row.request) } or nil,
    responses = {
      ["200"] = { description = "Success", content = content_of(row.response) },
      default = { description = "A refusal; its status says of which kind", content = content_of "Error" },
    },
  }
end

local function has_route(app, method, path)
  for _, route in ipairs(app.routes) do
    if (route.method == "*" or route.method == method) and find(path, route.pattern) then return true end
  end
  return false
end

--- The operations an app has routes for: { id, method, path (with {parameters}), operation }.
---@param app table
---@return table
function M.operations(app)
  local found = {}
  for _, row in ipairs(OPERATIONS) do
    local kind = row[2]:match "{(%a+)}"
    for _, form in ipairs(FORMS[kind] or { { "{" .. (kind or "") .. "}", "" } }) do
      local path = gsub(row[2], "{" .. (kind or "") .. "}", form[1])
      local sample = gsub(path, "{(%a+)}", { model = "m", version = "1", label = "l" })
      if has_route(app, row[1], sample) then
        found[#found + 1] = { id = row.id .. form[2], method = row[1], path = path, operation = operation(row, path, form[2]) }
      end
    end
  end
  return found
end

-- Programs may serve models of their own without the core.
local function version()
  local there, core = pcall(require, "mlserve.core")
  return there and core._VERSION or "unknown"
end

--- The document as JSON text.
---@param app table
---@return string
function M.document(app)
  local paths = {}
  for _, each in ipairs(M.operations(app)) do
    paths[each.path] = paths[each.path] or {}
    paths[each.path][lower(each.method)] = each.operation
  end
  return encode {
    openapi = "3.1.0", info = { title = "mlserve", version = version(), description = "Predictions over HTTP." },
    servers = { { url = "/" } }, paths = paths, components = { schemas = SCHEMAS },
  }
end

local HEADERS = { ["content-type"] = "application/json" }

--- Answers GET /openapi.json. The document is made when it is first asked for, and again when routes were added.
---@param app table
function M.mount(app)
  local text, count
  app:route("GET", "^/openapi%.json$", function()
    if count ~= #app.routes then text, count = M.document(app), #app.routes end
    return { status = 200, headers = HEADERS, body = text }
  end)
end

return M
