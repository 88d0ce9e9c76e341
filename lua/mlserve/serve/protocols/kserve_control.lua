--- KServe's v2 protocol over gRPC: what does not run a model, with Triton's extensions. The answers are those of the REST routes
--- (mlserve.serve.protocols.kserve), whose JSON has the fields of the messages.

local grpc_schema = require "mlserve.serve.protocols.grpc_schema"
local kserve = require "mlserve.serve.protocols.kserve"

local pairs, require = pairs, require

local M = {}

local function given(text) return text ~= "" and text or nil end

-- { name = { string_param = "x" } } -> { name = "x" }
local function parameters_of(message)
  local parameters = {}
  for name, parameter in pairs(message.parameters or {}) do
    for _, value in pairs(parameter) do parameters[name] = value end
    if parameters[name] == nil then parameters[name] = "" end
  end
  return parameters
end

--- The routes.
---@param models table repository
---@param options? table admin (boolean), version (string): of the server; settings: of mlserve.serve.protocols.grpc
---@return table routes for app:mount
function M.routes(models, options)
  local verbs = kserve.verbs(models, options)

  -- what the REST route answers, as a table
  local function ask(verb, message, request, document)
    local target = {
      verb = verb, model = given(message.name or message.model_name), version = given(message.version), repository = given(message.repository_name),
    }
    request.model, request.version, request.verb = target.model, target.version, verb
    local response = verbs[verb](target, { method = "POST", headers = {}, body = "", document = document })
    if response.model then request.model, request.version = response.model, response.version end
    if response.status ~= 200 then return nil, response.message, response.refused or "UNAVAILABLE" end
    return response.body == "" and {} or require("mlserve.core").json_decode(response.body)
  end

  local function missing(name)
    if name and name ~= "" then return nil end
    return "the name of the model is missing"
  end

  local function live(message, request) return ask("live", message, request) end

  local function server_ready(message, request) return { ready = ask("server_ready", message, request) ~= nil } end

  -- as Triton: what is not known is not ready
  local function model_ready(message, request)
    if missing(message.name) then return nil, missing(message.name), "INVALID_ARGUMENT" end
    return { ready = ask("ready", message, request) ~= nil }
  end

  local function of_model(verb, field)
    return function(message, request)
      if missing(message.name) then return nil, missing(message.name), "INVALID_ARGUMENT" end
      local answer, text, code = ask(verb, message, request)
      if not answer then return nil, text, code end
      return field and { [field] = answer } or answer
    end
  end

  local function statistics(message, request)
    if not given(message.name) and given(message.version) then return nil, "the name of the model is missing", "INVALID_ARGUMENT" end
    return ask("stats", message, request)
  end

  local function index(message, request)
    local list, text, code = ask("index", message, request, { ready = message.ready or nil })
    if not list then return nil, text, code end
    return { models = list }
  end

  local function control(verb)
    return function(message, request)
      if missing(message.model_name) then return nil, missing(message.model_name), "INVALID_ARGUMENT" end
      return ask(verb, message, request, { parameters = parameters_of(message) })
    end
  end

  return grpc_schema.routes("inference.GRPCInferenceService", {
    ServerLive = { "ServerLiveRequest", "ServerLiveResponse", live },
    ServerReady = { "ServerReadyRequest", "ServerReadyResponse", server_ready },
    ModelReady = { "ModelReadyRequest", "ModelReadyResponse", model_ready },
    ServerMetadata = { "ServerMetadataRequest", "ServerMetadataResponse", function(message, request) return ask("server", message, request) end },
    ModelMetadata = { "ModelMetadataRequest", "ModelMetadataResponse", of_model "metadata" },
    ModelConfig = { "ModelConfigRequest", "ModelConfigResponse", of_model("config", "config") },
    ModelStatistics = { "ModelStatisticsRequest", "ModelStatisticsResponse", statistics },
    RepositoryIndex = { "RepositoryIndexRequest", "RepositoryIndexResponse", index },
    RepositoryModelLoad = { "RepositoryModelLoadRequest", "RepositoryModelLoadResponse", control "load" },
    RepositoryModelUnload = { "RepositoryModelUnloadRequest", "RepositoryModelUnloadResponse", control "unload" },
  }, options and options.settings)
end

return M
