--- TensorFlow Serving's REST protocol: status, metadata, predict, classify and regress.
--
-- Paths, messages, codes and shapes of bodies are TensorFlow Serving's, so that its clients need no change: paths are matched
-- whole and without regard to case, names and labels are percent-decoded, everything under /v1/ that is not understood is a 400
-- "Malformed request". Bodies go to the servable as they came; it decodes and encodes tensors and examples in C.

local app = require "mlserve.serve.app"
local execute = require "mlserve.serve.execute"
local json = require "mlserve.serve.json"
local repository = require "mlserve.serve.repository"

local concat, find, format, lower, match, sub = table.concat, string.find, string.format, string.lower, string.match, string.sub
local ipairs, pairs, sort = ipairs, pairs, table.sort

local M = {}

-- google.rpc code name -> HTTP status
local HTTP_STATUS = {
  OK = 200, INVALID_ARGUMENT = 400, FAILED_PRECONDITION = 400, OUT_OF_RANGE = 400, UNAUTHENTICATED = 401,
  PERMISSION_DENIED = 403, NOT_FOUND = 404, ALREADY_EXISTS = 409, ABORTED = 409, RESOURCE_EXHAUSTED = 429, CANCELLED = 499,
  UNKNOWN = 500, INTERNAL = 500, DATA_LOSS = 500, UNIMPLEMENTED = 501, UNAVAILABLE = 503, DEADLINE_EXCEEDED = 504,
}

local DTYPES = {
  float32 = "DT_FLOAT", float64 = "DT_DOUBLE", float16 = "DT_HALF", bfloat16 = "DT_BFLOAT16", int8 = "DT_INT8",
  int16 = "DT_INT16", int32 = "DT_INT32", int64 = "DT_INT64", uint8 = "DT_UINT8", uint16 = "DT_UINT16", uint32 = "DT_UINT32",
  uint64 = "DT_UINT64", bool = "DT_BOOL", string = "DT_STRING", container = "DT_VARIANT",
}

local JSON = { ["content-type"] = "application/json" }
local JSON_CORS = {
  ["content-type"] = "application/json", ["access-control-allow-origin"] = "*",
  ["access-control-allow-methods"] = "POST, GET", ["access-control-allow-headers"] = "Content-Type",
}
local RETRY = "1" -- seconds after which to ask again what was refused because too much was asked
local PLAIN_CORS = {
  ["access-control-allow-origin"] = "*", ["access-control-allow-methods"] = "POST, GET",
  ["access-control-allow-headers"] = "Content-Type",
}

---------------------------------------------------------------------------------------------------------------------------
-- paths

-- [/versions/V | /labels/L] at the beginning of rest
local function version_part(rest)
  local low = lower(rest)
  local version, after = match(low, "^/versions/(%d+)()")
  if version then return version, nil, sub(rest, after) end
  local start = match(low, "^/labels/()[^/:]")
  if start then
    local label, behind = match(rest, "^([^/:]+)()", start)
    return nil, label, sub(rest, behind)
  end
  return nil, nil, rest
end

local METHODS = { predict = "predict_json", classify = "classify_json", regress = "regress_json" } -- of a servable

-- What a path asks for: { model, version, label, verb, method of the servable }; { missing = true } for a GET without a model; nil when malformed.
local function parse(method, path)
  local rest = match(path, "^/[vV]1/[mM][oO][dD][eE][lL][sS](.*)$")
  if not rest then return nil end
  local name, after = match(rest, "^/([^/:]+)()")
  local target = {}
  if name then
    target.model = app.percent_decode(name)
    target.version, target.label, rest = version_part(sub(rest, after))
    if target.label then target.label = app.percent_decode(target.label) end
    if method == "POST" then
      target.verb = lower(match(rest, "^:(%a+)$") or "")
      target.method = METHODS[target.verb]
      return target.method and target
    end
    if rest == "" then target.verb = "status" return target end
    if lower(rest) == "/metadata" then target.verb = "metadata" return target end
    rest = match(path, "^/%w+/%w+(.*)$")
  end
  if method ~= "GET" then return nil end
  local _, _, tail = version_part(rest)
  if tail == "" or lower(tail) == "/metadata" then return { missing = true } end
  return nil
end

-- The same few paths come again and again: what they mean is kept (as long as they are few).
local function new_cache()
  local known, count = { GET = {}, POST = {} }, 0
  return function(method, path)
    local paths = known[method]
    if not paths then return nil end
    local target = paths[path]
    if target == nil then
      target = parse(method, path) or false
      count = count + 1
      if count > 256 then known, count = { GET = {}, POST = {} }, 1 end
      known[method][path] = target
    end
    return target
  end
end

--- The version that is meant: OpenVINO's client says 0 where it has none in mind. A version 0 that is there is meant by it.
---@param models table repository
---@param name string
---@param version? string
---@return string|nil
function M.wanted(models, name, version)
  if version and repository.version(version) == "0" and not models:get(name, "0") then return nil end
  return version
end

---------------------------------------------------------------------------------------------------------------------------
-- bodies

local function error_text(message)
  return '{\n    "error": ' .. json.string(message) .. "\n}"
end

local function status_text(entries)
  local versions = {}
  for i, entry in ipairs(entries) do
    versions[i] = format('  {\n   "version": "%s",\n   "state": "%s",\n   "status": {\n    "error_code": "%s",\n'
      .. '    "error_message": %s\n   }\n  }', entry.version, entry.state, entry.error_code, json.string(entry.error_message))
  end
  return '{\n "model_version_status": [\n' .. concat(versions, ",\n") .. "\n ]\n}\n"
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  sort(keys)
  return keys
end

local function shape_text(shape, indent)
  if not shape then return format('{\n%s "dim": [],\n%s "unknown_rank": true\n%s}', indent, indent, indent) end
  local dims = {}
  for i, size in ipairs(shape) do
    dims[i] = format('%s  {\n%s   "size": "%.0f",\n%s   "name": ""\n%s  }', indent, indent, size, indent, indent)
  end
  local list = #dims == 0 and "[]" or "[\n" .. concat(dims, ",\n") .. "\n" .. indent .. " ]"
  return format('{\n%s "dim": %s,\n%s "unknown_rank": false\n%s}', indent, list, indent, indent)
end

local function tensors_text(tensors)
  local items = {}
  for i, name in ipairs(sorted_keys(tensors or {})) do
    local tensor = tensors[name]
    items[i] = format('    %s: {\n     "dtype": "%s",\n     "tensor_shape": %s,\n     "name": %s\n    }', json.string(name),
      DTYPES[tensor.dtype] or "DT_INVALID", shape_text(tensor.shape, "     "), json.string((tensor.name or name) .. ":0"))
  end
  if #items == 0 then return "{}" end
  return "{\n" .. concat(items, ",\n") .. "\n   }"
end

--- What a metadata request is answered with: JSON text.
---@param entry table of the repository
---@return string
function M.metadata_text(entry)
  local signatures, items = entry.servable:signatures(), {}
  for i, name in ipairs(sorted_keys(signatures)) do
    local signature = signatures[name]
    items[i] = format('  %s: {\n   "inputs": %s,\n   "outputs": %s,\n   "method_name": %s,\n   "defaults": {}\n  }',
      json.string(name), tensors_text(signature.inputs), tensors_text(signature.outputs),
      json.string(signature.method_name or "tensorflow/serving/predict"))
  end
  return format('{\n"model_spec":{\n "name": %s,\n "signature_name": "",\n "version": "%s"\n}\n,\n'
    .. '"metadata": {"signature_def": {\n "signature_def": {\n%s\n }\n}\n}\n}\n',
    json.string(entry.name), entry.version, concat(items, ",\n"))
end

---------------------------------------------------------------------------------------------------------------------------
-- routes

--- The routes of the protocol.
---@param models table repository
---@param options? table cors (boolean): allow browsers of other origins
---@return table routes for app:mount
function M.routes(models, options)
  local cors = options and options.cors
  local headers, busy = cors and JSON_CORS or JSON, { ["retry-after"] = RETRY }
  local target_of = new_cache()

  for name, value in pairs(headers) do busy[name] = value end
  -- code: for who counts requests, under TensorFlow Serving's names
  local function reply(status, body) return { status = status, headers = headers, body = body, code = "OK" } end
  local function fail(code, message)
    return { status = HTTP_STATUS[code] or 500, headers = code == "UNAVAILABLE" and busy or headers, body = error_text(message), code = code }
  end
  local function malformed(request)
    return fail("INVALID_ARGUMENT", format("Malformed request: %s %s", request.method, request.path))
  end

  -- the entry that shall answer, or nil and the refusal
  local function find_entry(target)
    local version = target.version and M.wanted(models, target.model, target.version)
    local entry, reason = models:get(target.model, version, target.label)
    if entry then return entry end
    if reason == "label" then
      return nil, fail("INVALID_ARGUMENT", "Unrecognized servable version label: " .. target.label)
    end
    if version then
      return nil, fail("NOT_FOUND", format("Servable not found for request: Specific(%s, %s)", target.model,
        repository.version(version)))
    end
    return nil, fail("NOT_FOUND", format("Servable not found for request: Latest(%s)", target.model))
  end

  local function status(target)
    local entries = models:versions(target.model)
    if not entries then return fail("NOT_FOUND", "Could not find any versions of model " .. target.model) end
    local wanted = target.version and M.wanted(models, target.model, target.version)
    if wanted then
      wanted = repository.version(wanted)
      for _, entry in ipairs(entries) do
        if entry.version == wanted then return reply(200, status_text { entry }) end
      end
      return fail("NOT_FOUND", format("Could not find version %s of model %s", wanted, target.model))
    end
    return reply(200, status_text(entries)) -- also for a label, as TensorFlow Serving does
  end

  local function run(request, target)
    local entry, refusal = find_entry(target)
    if not entry then return refusal end
    local servable, method, text, message, code = entry.servable, target.method
    if method == "predict_json" then text, message, code = execute.predict_json(entry, request.body, request)
    elseif servable[method] then text, message, code = servable[method](servable, request.body)
    else message, code = format("The model cannot %s.", target.verb), "UNIMPLEMENTED" end
    if text then
      return {
        status = 200, headers = headers, body = text, model = entry.name, version = entry.version, verb = target.verb, code = "OK",
      }
    end
    local refused = fail(code or "UNKNOWN", message or "unknown error")
    refused.version = entry.version
    return refused
  end

  local function metadata(target)
    local entry, refusal = find_entry(target)
    if not entry then return refusal end
    local response = reply(200, M.metadata_text(entry))
    response.version = entry.version
    return response
  end

  local function options_request(request)
    if cors then
      local origin = request.headers.origin
      if not origin then return fail("INVALID_ARGUMENT", "Origin header is missing in CORS preflight") end
      if not find(origin, "https?://") then return fail("INVALID_ARGUMENT", "Invalid Origin in CORS preflight: " .. origin) end
    end
    return { status = 200, headers = cors and PLAIN_CORS or nil, body = "" }
  end

  local function handler(request)
    if request.method == "OPTIONS" then return options_request(request) end
    local target = target_of(request.method, request.path)
    if not target then return malformed(request) end
    if target.missing then return fail("INVALID_ARGUMENT", "Missing model name in request.") end
    if target.version and not repository.version(target.version) then
      return fail("INVALID_ARGUMENT", format("Failed to convert version: %s to numeric.", target.version))
    end
    local verb, response = target.verb
    if target.method then
      response = run(request, target)
      if response.model then return response end
    elseif verb == "status" then
      response = status(target)
    else
      response = metadata(target)
    end
    response.model, response.verb = target.model, verb
    return response
  end

  return { { method = "*", pattern = "^/[vV]1/", handler = handler } }
end

M.HTTP_STATUS = HTTP_STATUS

return M
