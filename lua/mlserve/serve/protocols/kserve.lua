--- KServe's v2 protocol (Open Inference Protocol) over REST, with Triton's extensions for model configuration, statistics and the
--- repository. The binary tensor and classification extensions are part of the servable's infer, which takes and gives bytes.
--
-- Messages and codes are Triton's, with one exception: what is wrong with a request is a 400 throughout, also where Triton answers
-- 500 because it notices late. Bodies of the health requests are the protocol's, which Triton leaves empty.

local app = require "mlserve.serve.app"
local execute = require "mlserve.serve.execute"
local json = require "mlserve.serve.json"
local repository = require "mlserve.serve.repository"

local concat, find, format, match, sub = table.concat, string.find, string.format, string.match, string.sub
local ipairs, next, pcall, setmetatable, tonumber, tostring, type = ipairs, next, pcall, setmetatable, tonumber, tostring, type

local M = {}

local PLATFORM, BACKEND = "onnx_onnxv1", "mlserve"

local HTTP_STATUS = {
  INVALID_ARGUMENT = 400, FAILED_PRECONDITION = 400, OUT_OF_RANGE = 400, ALREADY_EXISTS = 400, CANCELLED = 400, NOT_FOUND = 404,
  UNIMPLEMENTED = 501, UNAVAILABLE = 503, RESOURCE_EXHAUSTED = 503, DEADLINE_EXCEEDED = 503,
}

local JSON = { ["content-type"] = "application/json" }
local BUSY = { ["content-type"] = "application/json", ["retry-after"] = "1" } -- too much was asked at once

local STATES = { START = "LOADING", LOADING = "LOADING", AVAILABLE = "READY", UNLOADING = "UNLOADING", END = "UNAVAILABLE" }

---------------------------------------------------------------------------------------------------------------------------
-- paths

local GET, POST = "GET", "POST"

-- what may follow a model, and with which method
local VERBS = { ["/infer"] = POST, ["/ready"] = GET, ["/config"] = GET, ["/stats"] = GET, [""] = GET }

-- What a path asks for: { verb, method, model, version, repository }; nil when nothing.
local function parse(path)
  local tail = match(path, "^/v2(.*)$")
  if tail == "" or tail == "/" then return { verb = "server", method = GET } end
  if tail == "/health/live" then return { verb = "live", method = GET } end
  if tail == "/health/ready" then return { verb = "server_ready", method = GET } end
  if tail == "/models/stats" then return { verb = "stats", method = GET } end
  local name, rest = match(tail, "^/models/([^/]+)(.*)$")
  if name then
    local version, after = match(rest, "^/versions/([^/]+)(.*)$")
    local verb = after or rest
    if not VERBS[verb] then return nil end
    return { verb = verb == "" and "metadata" or sub(verb, 2), method = VERBS[verb], model = app.percent_decode(name),
      version = version and app.percent_decode(version) }
  end
  local repo
  repo, rest = match(tail, "^/repository/([^/]+)(/.*)$")
  if repo == "models" and match(rest, "^/[^/]+/u?n?load$") then repo = nil end
  if not repo then rest = match(tail, "^/repository(/.*)$") end
  if rest == "/index" then return { verb = "index", method = POST, repository = repo } end
  local model, action = match(rest or "", "^/models/([^/]+)/(%a+)$")
  if action ~= "load" and action ~= "unload" then return nil end
  return { verb = action, method = POST, repository = repo, model = app.percent_decode(model) }
end

-- The same few paths come again and again: what they mean is kept (as long as they are few).
local function new_cache()
  local known, count = {}, 0
  return function(path)
    local target = known[path]
    if target == nil then
      target = parse(path) or false
      count = count + 1
      if count > 256 then known, count = {}, 1 end
      known[path] = target
    end
    return target
  end
end

---------------------------------------------------------------------------------------------------------------------------
-- bodies

local function reply(body) return { status = 200, headers = JSON, body = body } end

-- message and code: for who answers in another form
local function refuse(status, message, code)
  return { status = status, headers = JSON, body = '{"error":' .. json.string(message) .. "}", message = message, refused = code }
end

local function fail(code, message)
  code = code or "INTERNAL"
  return refuse(HTTP_STATUS[code] or 500, message or "unknown error", code)
end

local function strings(list)
  local items = {}
  for i, text in ipairs(list) do items[i] = json.string(text) end
  return "[" .. concat(items, ",") .. "]"
end

local function numbers(list, from)
  local items = {}
  for i = from, #list do items[#items + 1] = format("%.0f", list[i]) end
  return "[" .. concat(items, ",") .. "]"
end

local function metadata_tensors(list)
  local items = {}
  for i, tensor in ipairs(list) do
    items[i] = format('{"name":%s,"datatype":"%s","shape":%s}', json.string(tensor.name), tensor.datatype or "INVALID",
      numbers(tensor.shape, 1))
  end
  return "[" .. concat(items, ",") .. "]"
end

-- Triton's configuration names the batch apart: dims are those of one row.
local function config_tensors(list, batches, more)
  local items = {}
  for i, tensor in ipairs(list) do
    local datatype = tensor.datatype == "BYTES" and "STRING" or tensor.datatype or "INVALID"
    items[i] = format('{"name":%s,"data_type":"TYPE_%s",%s"dims":%s,"is_shape_tensor":false}', json.string(tensor.name), datatype, more,
      numbers(tensor.shape, batches and 2 or 1))
  end
  return "[" .. concat(items, ",") .. "]"
end

local function config_text(entry)
  local batch, inputs, outputs = entry.servable:max_batch(), entry.servable:io()
  return format('{"name":%s,"platform":"%s","backend":"%s","max_batch_size":%.0f,"input":%s,"output":%s,"batch_input":[],"batch_output":[],'
    .. '"instance_group":[{"name":%s,"kind":"KIND_CPU","count":1,"gpus":[],"secondary_devices":[],"profile":[],"passive":false,'
    .. '"host_policy":""}],"default_model_filename":"model.onnx","cc_model_filenames":{},"metric_tags":{},"parameters":{},"model_warmup":[]}',
    json.string(entry.name), PLATFORM, BACKEND, batch,
    config_tensors(inputs, batch > 0, '"format":"FORMAT_NONE","allow_ragged_batch":false,"optional":false,'),
    config_tensors(outputs, batch > 0, '"label_filename":"",'), json.string(entry.name .. "_0"))
end

---------------------------------------------------------------------------------------------------------------------------
-- routes

-- What :infer and :statistics call the model; the same table for every request of an entry.
local names = setmetatable({}, {
  __mode = "k",
  __index = function(known, entry)
    local given = { model = entry.name, version = entry.version }
    known[entry] = given
    return given
  end,
})

-- The one place where a request runs a model.
local function run(entry, body, json_size, request)
  return execute.infer(entry, body, request, json_size, names[entry])
end

-- Value of Inference-Header-Content-Length: nil and true when there is none, nil and a message when it is no size of this body.
local function header_length(text, size)
  if not text then return nil end
  local number = match(text, "^%s*([+-]?%d+)")
  if not number then return nil, "Unable to parse Inference-Header-Content-Length, got: " .. text end
  local value = tonumber(number)
  if value < -2147483648 or value > 2147483647 then
    return nil, "Unable to parse Inference-Header-Content-Length, value is out of range [ -2147483648, 2147483647 ], got: " .. text
  end
  if value < 0 or value > size then return nil, format("inference header size should be in range (0, %d), got: %s", size, text) end
  return value
end

-- The document of a request that may be empty: a table; nil and the refusal.
local function document(request)
  local body = request.body
  if request.document then return request.document end -- of who has no JSON
  if find(body, "^%s*$") then return {} end
  local ok, value = pcall(require("mlserve.core").json_decode, body)
  if ok and type(value) == "table" then return value end
  return nil, fail("INVALID_ARGUMENT", "failed to parse the request JSON buffer: " .. (ok and "an object expected" or tostring(value)))
end

--- Finds the entry that a request asks for.
---@param models table repository
---@param name string
---@param wanted? string a version, or a label
---@return table|nil entry
---@return string|nil message
---@return string|nil code
function M.find(models, name, wanted)
  local digits = wanted and find(wanted, "^%d+$")
  local entry = models:get(name, digits and wanted or nil, not digits and wanted or nil)
  if entry then return entry end
  local entries = models:versions(name)
  if not entries then return nil, format("Request for unknown model: '%s' is not found", name), "NOT_FOUND" end
  if not wanted then return nil, format("Request for unknown model: '%s' has no available versions", name), "NOT_FOUND" end
  local canonical = repository.version(wanted)
  for _, each in ipairs(entries) do
    if each.version == canonical then
      return nil, format("Request for unknown model: '%s' version %s is not at ready state", name, canonical), "UNAVAILABLE"
    end
  end
  return nil, format("Request for unknown model: '%s' version %s is not found", name, canonical or wanted), "NOT_FOUND"
end

--- What can be asked, by its verb: function(target, request) -> response. gRPC asks the same functions: a response has status and a body
--- of JSON; a refusal has `message` and, unless it only says "not ready", the code `refused` as well.
---@param models table repository
---@param options? table admin (boolean): offer the repository's index, load and unload; version (string): of the server
---@return table verbs
function M.verbs(models, options)
  local admin = options and options.admin
  local version = options and options.version or require("mlserve.core").info().version
  local verbs = {}

  -- the entry that shall answer, or nil and the refusal
  local function find_entry(target)
    local entry, message, code = M.find(models, target.model, target.version)
    if entry then return entry end
    return nil, fail(code, message)
  end

  local function named(response, entry, verb)
    response.model, response.version, response.verb = entry.name, entry.version, verb
    return response
  end

  function verbs.live() return reply '{"live":true}' end

  -- Every model answers; one that was unloaded on purpose need not.
  function verbs.server_ready()
    for _, name in ipairs(models:names()) do
      if not models:get(name) then
        for _, entry in ipairs(models:versions(name) or {}) do
          if entry.error_code ~= "OK" or entry.state ~= "END" then return { status = 400, headers = JSON, body = '{"ready":false}' } end
        end
      end
    end
    return reply '{"ready":true}'
  end

  function verbs.server()
    local extensions = { "binary_tensor_data", "classification", "model_configuration", "parameters", "statistics" }
    if admin then
      extensions[#extensions + 1] = "model_repository"
      extensions[#extensions + 1] = "model_repository(unload_dependents)"
    end
    return reply(format('{"name":"mlserve","version":%s,"extensions":%s}', json.string(version), strings(extensions)))
  end

  function verbs.ready(target)
    local entry, refusal = find_entry(target)
    if entry then return named(reply(format('{"name":%s,"ready":true}', json.string(entry.name))), entry, "ready") end
    if refusal.status == 404 then return refusal end
    return refuse(400, "Model version not ready")
  end

  function verbs.metadata(target)
    local entry, refusal = find_entry(target)
    if not entry then return refusal end
    local versions, inputs, outputs = {}, entry.servable:io()
    for _, each in ipairs(models:versions(entry.name) or {}) do
      if each.state == "AVAILABLE" and (not target.version or each.version == entry.version) then
        versions[#versions + 1] = each.version
      end
    end
    return named(reply(format('{"name":%s,"versions":%s,"platform":"%s","inputs":%s,"outputs":%s}', json.string(entry.name), strings(versions),
      PLATFORM, metadata_tensors(inputs), metadata_tensors(outputs))), entry, "metadata")
  end

  function verbs.config(target)
    local entry, refusal = find_entry(target)
    if not entry then return refusal end
    return named(reply(config_text(entry)), entry, "config")
  end

  function verbs.stats(target)
    local items, entries = {}, {}
    if target.version then
      local entry = find_entry(target)
      if not entry then
        if not models:get(target.model) then
          return fail("INVALID_ARGUMENT", format("requested model '%s' is not available", target.model))
        end
        return fail("INVALID_ARGUMENT", format("requested model version is not available for model '%s'", target.model))
      end
      entries[1] = entry
    else
      for _, name in ipairs(target.model and { target.model } or models:names()) do
        for _, entry in ipairs(models:versions(name) or {}) do
          if entry.state == "AVAILABLE" then entries[#entries + 1] = entry end
        end
      end
      if target.model and #entries == 0 then
        return fail("INVALID_ARGUMENT", format("requested model '%s' is not available", target.model))
      end
    end
    for i, entry in ipairs(entries) do
      local text, message, code = entry.servable:statistics(names[entry])
      if not text then return fail(code, message) end
      items[i] = text
    end
    return reply('{"model_stats":[' .. concat(items, ",") .. "]}")
  end

  function verbs.infer(target, request)
    local body = request.body
    local entry, refusal = find_entry(target)
    if not entry then return refusal end
    local json_size, message = header_length(request.headers["inference-header-content-length"], #body)
    if message then return named(fail("INVALID_ARGUMENT", message), entry, "infer") end
    local text, headers, code = run(entry, body, json_size, request)
    if not text then
      refusal = fail(code, headers)
      if code == "UNAVAILABLE" then refusal.headers = BUSY end
      return named(refusal, entry, "infer")
    end
    return { status = 200, headers = headers or JSON, body = text, model = entry.name, version = entry.version, verb = "infer" }
  end

  local function not_offered(target)
    if not admin then
      return fail("UNAVAILABLE", "explicit model load / unload is not allowed: the server was started without admin = true")
    end
    if target.repository then return fail("UNIMPLEMENTED", "'repository_name' specification is not supported") end
  end

  function verbs.index(target, request)
    local refusal = not_offered(target)
    if refusal and not (admin and target.repository) then return refusal end -- Triton takes any repository's name here
    local given, problem = document(request)
    if not given then return problem end
    if given.ready ~= nil and type(given.ready) ~= "boolean" then
      return fail("INVALID_ARGUMENT", "Invalid value for 'ready': expected a boolean")
    end
    local items = {}
    for _, name in ipairs(models:names()) do
      for _, entry in ipairs(models:versions(name) or {}) do
        local state = STATES[entry.state] or "UNKNOWN"
        if state == "READY" or not given.ready then
          local reason = entry.error_message ~= "" and entry.error_message or state == "UNAVAILABLE" and "unloaded" or nil
          items[#items + 1] = format('{"name":%s,"version":"%s","state":"%s"%s}', json.string(name), entry.version, state,
            reason and ',"reason":' .. json.string(reason) or "")
        end
      end
    end
    return reply("[" .. concat(items, ",") .. "]")
  end

  -- models:load or models:unload, whatever they need
  local function control(action, target)
    local act = models[action]
    if not act then return fail("UNIMPLEMENTED", format("this server's repository can not %s models", action)) end
    local ok, done, message, code = pcall(act, models, target.model)
    if ok and done then return named({ status = 200, headers = JSON, body = "" }, { name = target.model }, action) end
    if not ok then message, code = done, "INTERNAL" end
    if message == "model" then
      if action == "unload" then return fail("INVALID_ARGUMENT", "Model to be unloaded has not been served") end
      message, code = format("failed to load '%s', failed to poll from model repository", target.model), "INVALID_ARGUMENT"
    end
    return fail(code or "INTERNAL", tostring(message))
  end

  function verbs.load(target, request)
    local refusal = not_offered(target)
    if refusal then return refusal end
    local given, problem = document(request)
    if not given then return problem end
    local parameters = given.parameters
    if type(parameters) == "table" and next(parameters) ~= nil then
      return fail("UNIMPLEMENTED", "models are loaded as they lie in the repository: the parameters 'config' and 'file:' are not supported")
    end
    return control("load", target)
  end

  function verbs.unload(target, request)
    local refusal = not_offered(target)
    if refusal then return refusal end
    local given, problem = document(request)
    if not given then return problem end
    local parameters = given.parameters -- nothing here depends on another model
    if type(parameters) == "table" and parameters.unload_dependents ~= nil and type(parameters.unload_dependents) ~= "boolean" then
      return fail("INVALID_ARGUMENT", "Unable to parse 'unload_dependents': attempt to access JSON non-boolean as boolean")
    end
    return control("unload", target)
  end

  return verbs
end

--- The routes of the protocol.
---@param models table repository
---@param options? table see verbs
---@return table routes for app:mount
function M.routes(models, options)
  local verbs = M.verbs(models, options)
  local target_of = new_cache()

  local function handler(request)
    local target = target_of(request.path)
    if not target then return refuse(404, "Not Found") end
    if target.method ~= request.method then
      local response = refuse(405, "Method Not Allowed")
      response.headers = { ["content-type"] = "application/json", allow = target.method }
      return response
    end
    local response = verbs[target.verb](target, request)
    if not response.verb then response.model, response.version, response.verb = target.model, target.version, target.verb end
    return response
  end

  return {
    { method = "*", pattern = "^/v2$", handler = handler },
    { method = "*", pattern = "^/v2/", handler = handler },
  }
end

M.HTTP_STATUS = HTTP_STATUS

return M
