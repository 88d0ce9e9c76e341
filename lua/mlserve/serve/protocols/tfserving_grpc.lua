--- TensorFlow Serving's PredictionService over gRPC: the methods that run models.
--
-- Messages stay bytes: the servable decodes and encodes them in C. Texts and codes are TensorFlow Serving's. What does not run a
-- model (metadata, status, configuration) is in tfserving_control.

local execute = require "mlserve.serve.execute"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

local format = string.format

local M = {}

local SERVICE = "/tensorflow.serving.PredictionService/"

--- Finds the entry that a ModelSpec asks for.
---@param models table repository
---@param name string|nil nil: the request has no ModelSpec
---@param version? string a number, perhaps negative
---@param label? string
---@return table|nil entry
---@return string|nil message
---@return string|nil code
function M.find(models, name, version, label)
  if not name then return nil, "Missing ModelSpec", "INVALID_ARGUMENT" end
  if name == "" then return nil, "ModelSpec has no name specified.", "INVALID_ARGUMENT" end
  version = version and tfserving.wanted(models, name, version)
  local entry, reason = models:get(name, version, label)
  if entry then return entry end
  if reason == "label" then return nil, "Unrecognized servable version label: " .. label, "INVALID_ARGUMENT" end
  if version then
    return nil, format("Servable not found for request: Specific(%s, %s)", name, repository.version(version) or version), "NOT_FOUND"
  end
  return nil, format("Servable not found for request: Latest(%s)", name), "NOT_FOUND"
end

--- The methods as functions of messages.
---@param models table repository
---@param options? table tensor_content (boolean): answer in that field instead of typed lists
---@return table methods name -> function(message, request) -> message | nil, text, code
function M.methods(models, options)
  local core, content = require "mlserve.core", options and options.tensor_content

  local function method(verb, servables, peek)
    return function(message, request)
      request.verb = verb
      local name, version, label = peek(message)
      if name == nil and version then return nil, version, label end -- no message: its text and code
      request.model = name
      local entry, text, code = M.find(models, name, version, label)
      if not entry then return nil, text, code end
      request.version = entry.version
      return execute.proto(entry, servables, message, request, nil, content)
    end
  end

  -- a request without tasks names no model, which is not the same as having no ModelSpec
  local function peek_tasks(message)
    local name, version, label = core.peek_multi_inference(message)
    if name == nil and not version then return "" end
    return name, version, label
  end

  return {
    Predict = method("predict", "predict_proto", core.peek_predict),
    Classify = method("classify", "classify_proto", core.peek_predict),
    Regress = method("regress", "regress_proto", core.peek_predict),
    MultiInference = method("multi_inference", "multi_inference_proto", peek_tasks),
  }
end

--- The routes of the methods.
---@param models table repository
---@param options? table see methods
---@param settings? table of mlserve.serve.protocols.grpc
---@return table routes for app:mount
function M.routes(models, options, settings)
  local grpc = require "mlserve.serve.protocols.grpc"
  local routes = {}
  for name, method in pairs(M.methods(models, options)) do
    routes[#routes + 1] = { method = "POST", path = SERVICE .. name, handler = grpc.unary(method, settings), stream = false }
  end
  return routes
end

return M
