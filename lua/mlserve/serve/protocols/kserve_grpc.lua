--- KServe's v2 protocol (Open Inference Protocol) over gRPC: the methods that run models.
--
-- Messages stay bytes: the servable decodes and encodes them in C. Texts and codes are Triton's. What does not run a model (health,
-- metadata, configuration, repository, statistics) is in kserve_control.

local execute = require "mlserve.serve.execute"
local kserve = require "mlserve.serve.protocols.kserve"

local M = {}

local SERVICE = "/inference.GRPCInferenceService/"

--- The methods as functions of messages.
---@param models table repository
---@return table methods name -> function(message, request) -> message | nil, text, code
function M.methods(models)
  local peek = require("mlserve.core").peek_infer
  local methods = {}

  function methods.ModelInfer(message, request)
    request.verb = "infer"
    local name, version, code = peek(message)
    if not name then return nil, version, code end
    request.model = name
    local entry, text
    entry, text, code = kserve.find(models, name, version)
    if not entry then return nil, text, code end
    request.version = entry.version
    return execute.proto(entry, "infer_proto", message, request)
  end

  return methods
end

--- The routes of the methods.
---@param models table repository
---@return table routes for app:mount
function M.routes(models)
  local grpc = require "mlserve.serve.protocols.grpc"
  local routes = {}
  for name, method in pairs(M.methods(models)) do
    routes[#routes + 1] = { method = "POST", path = SERVICE .. name, handler = grpc.unary(method), stream = false }
  end
  return routes
end

return M
