--- TensorFlow Serving over gRPC: what does not run a model, that is metadata, status and configuration.
--
-- The data are those of the REST protocol (mlserve.serve.protocols.tfserving), texts and codes TensorFlow Serving's.

local grpc_schema = require "mlserve.serve.protocols.grpc_schema"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"
local tfserving_grpc = require "mlserve.serve.protocols.tfserving_grpc"

local concat, find, format = table.concat, string.find, string.format
local error, ipairs, pairs, pcall, require, tostring, type = error, ipairs, pairs, pcall, require, tostring, type

local M = {}

local WAIT = 0.02      -- seconds between looks whether what was asked for is there
local WAIT_MOST = 300  -- … when the caller has no deadline

local FIELD = "signature_def"

-- version (digits) and label of a ModelSpec
local function choice(spec)
  local version = spec.version and (spec.version.value or 0)
  if version then version = type(version) == "string" and version or format("%d", version) end
  return version, spec.version_label
end

-- the entry that shall answer, or nil, text and code
local function find_entry(models, spec)
  if not spec then return tfserving_grpc.find(models) end
  return tfserving_grpc.find(models, spec.name or "", choice(spec))
end

---------------------------------------------------------------------------------------------------------------------------
-- configuration

local function policy_of(policy, name)
  if policy and policy.all then return { kind = "all" } end
  if policy and policy.specific then
    local versions = {}
    for i, version in ipairs(policy.specific.versions or {}) do
      versions[i] = repository.version(version)
      if not versions[i] then return nil, format("Invalid version %s of model %s", tostring(version), name) end
    end
    if #versions == 0 then return nil, format("The version policy 'specific' of model %s names no versions", name) end
    return { kind = "specific", versions = versions }
  end
  local count = policy and policy.latest and policy.latest.num_versions or 1
  return { kind = "latest", count = count > 0 and count or 1 }
end

-- The configuration as the repository takes it; platforms: what models had before. Nil and why it is refused.
local function read_config(config, platforms)
  local list, seen, found = {}, {}, {}
  for i, each in ipairs(config.config or {}) do
    local name, base, platform = each.name or "", each.base_path or "", each.model_platform or ""
    if seen[name] then return nil, format("Illegal to list model %s multiple times in config list", name) end
    if not repository.valid_name(name) then return nil, format("Invalid name of a model: '%s'", name) end
    if not find(base, "^/") then return nil, format("Expected model %s to have an absolute path or URI; got base_path()=%s", name, base) end
    if platform == "" then platform = each.model_type == "TENSORFLOW" and "tensorflow" or each.model_type == "OTHER" and "other" or "" end
    if platform == "" then
      return nil, "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, model name is " .. name
    end
    if platforms[name] and platforms[name] ~= platform then
      return nil, format("Illegal to change a model's platform. For model %s platform was %s and new platform requested is %s", name, platforms[name], platform)
    end
    local policy, problem = policy_of(each.model_version_policy, name)
    if not policy then return nil, problem end
    local labels = {}
    for label, version in pairs(each.version_labels or {}) do
      labels[label] = repository.version(version)
      if label == "" or not labels[label] then return nil, format("Invalid label '%s' of version %s of model %s", label, tostring(version), name) end
    end
    seen[name], found[name] = true, platform
    list[i] = { name = name, base = base, policy = policy, labels = labels }
  end
  return list, found
end

local function is_available(models, name, version) return (models:get(name, version)) ~= nil end

-- "pending", or nil and perhaps why no version answers
local function progress(models, name)
  local entries, problem = models:versions(name), nil
  if is_available(models, name) then return nil end
  for _, entry in ipairs(entries or {}) do
    if entry.error_code == "OK" and entry.state ~= "END" and entry.state ~= "UNLOADING" then return "pending" end
    if entry.error_code ~= "OK" and not problem then
      problem = format("{name: %s version: %s due to error: %s: %s}", name, entry.version, entry.error_code, entry.error_message)
    end
  end
  if not entries then
    problem = models.models[name] and models.models[name].problem
    problem = problem and format("{name: %s due to error: %s}", name, problem)
  end
  return problem == nil and "pending" or nil, problem
end

-- Waits until every one of these models answers or has failed; returns what has gone wrong.
local function await(models, names, seconds)
  local clock = require("mlserve.core").clock
  local deadline = clock() + seconds
  while models.sleep and clock() < deadline do
    local pending = false
    models:poll()
    for _, name in ipairs(names) do pending = pending or progress(models, name) == "pending" end
    if not pending then break end
    models.sleep(WAIT)
  end
  local failed = {}
  for _, name in ipairs(names) do
    local state, problem = progress(models, name)
    if state == "pending" then problem = format("{name: %s due to error: no version is available}", name) end
    if problem then failed[#failed + 1] = problem .. ", " end
  end
  return failed
end

local function reload(models, config, platforms, timeout)
  local list, found = read_config(config, platforms)
  local new, later = {}, {}
  if not list then return nil, found, "INVALID_ARGUMENT" end
  for _, each in ipairs(list) do
    if not is_available(models, each.name) then new[#new + 1] = each.name end
    -- a label moves at once when its version answers already, else when what is new does
    local now = {}
    for label, version in pairs(each.labels) do
      if is_available(models, each.name, version) then now[label] = version
      else later[#later + 1] = { name = each.name, label = label, version = version } end
    end
    each.labels = now
  end
  for name in pairs(platforms) do platforms[name] = nil end
  for name, platform in pairs(found) do platforms[name] = platform end

  models:configure(list, models.sleep == nil, true)
  local failed = await(models, new, timeout or WAIT_MOST)
  if #failed > 0 then
    return nil, format("%d model(s) did not become available: {%s}", #failed, concat(failed)), "UNKNOWN"
  end
  for _, each in ipairs(later) do
    if not models:set_label(each.name, each.label, each.version) then
      return nil, format("Request to assign label to version %s of model %s, which is not currently available for inference", each.version, each.name),
        "FAILED_PRECONDITION"
    end
  end
  return true
end

---------------------------------------------------------------------------------------------------------------------------
-- services

--- The routes.
---@param models table repository
---@param options? table admin (boolean): clients may change what is served; settings: of mlserve.serve.protocols.grpc
---@return table routes for app:mount
function M.routes(models, options)
  local admin, settings = options and options.admin, options and options.settings
  local platforms, reloading = {}, false
  local routes = {}

  local function metadata(message, request)
    local spec = message.model_spec
    request.verb, request.model = "metadata", spec and spec.name
    if spec and not (message.metadata_field and message.metadata_field[1]) then
      return nil, "GetModelMetadataRequest must specify at least one metadata_field", "INVALID_ARGUMENT"
    end
    for _, field in ipairs(message.metadata_field or {}) do
      if field ~= FIELD then return nil, format("Metadata field %s is not supported", field), "INVALID_ARGUMENT" end
    end
    local entry, text, code = find_entry(models, spec)
    if not entry then return nil, text, code end
    request.model, request.version = entry.name, entry.version
    local document = require("mlserve.core").json_decode(tfserving.metadata_text(entry))
    return {
      model_spec = { name = entry.name, version = { value = entry.version } },
      metadata = { [FIELD] = grpc_schema.schema():any("tensorflow.serving.SignatureDefMap", document.metadata.signature_def) },
    }
  end

  local function status(message, request)
    local spec = message.model_spec
    if not spec then return nil, "Missing ModelSpec", "INVALID_ARGUMENT" end
    local name, version = spec.name or "", choice(spec)
    local entries, list = models:versions(name), {}
    request.verb, request.model = "status", name
    if not entries then return nil, "Could not find any versions of model " .. name, "NOT_FOUND" end
    version = tfserving.wanted(models, name, version)
    local wanted = version and (repository.version(version) or version)
    for _, entry in ipairs(entries) do
      if not wanted or entry.version == wanted then
        list[#list + 1] = {
          version = entry.version, state = entry.state, status = { error_code = entry.error_code, error_message = entry.error_message },
        }
      end
    end
    if #list == 0 then return nil, format("Could not find version %s of model %s", wanted, name), "NOT_FOUND" end
    return { model_version_status = list }
  end

  local function reload_config(message, request)
    request.verb = "reload"
    if not admin then
      return nil, "changing the configuration is not allowed: the server was started without admin = true", "PERMISSION_DENIED"
    end
    if not message.config or not message.config.model_config_list then
      return nil, "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported", "INVALID_ARGUMENT"
    end
    if reloading then return nil, "Another change of the configuration is being made", "ABORTED" end
    reloading = true
    local fine, ok, text, code = pcall(reload, models, message.config.model_config_list, platforms, request.timeout)
    reloading = false
    if not fine then error(ok, 0) end
    if not ok then return nil, text, code end
    return { status = {} }
  end

  local function add(service, methods)
    for _, route in ipairs(grpc_schema.routes(service, methods, settings)) do routes[#routes + 1] = route end
  end
  add("tensorflow.serving.PredictionService", { GetModelMetadata = { "GetModelMetadataRequest", "GetModelMetadataResponse", metadata } })
  add("tensorflow.serving.ModelService", {
    GetModelStatus = { "GetModelStatusRequest", "GetModelStatusResponse", status },
    HandleReloadConfigRequest = { "ReloadConfigRequest", "ReloadConfigResponse", reload_config },
  })
  return routes
end

return M
