--- KServe's v2 protocol (Open Inference Protocol) over gRPC: the methods that run models.
--
-- Messages stay bytes: the servable decodes and encodes them in C. Texts and codes are Triton's. What does not run a model (health,
-- metadata, configuration, repository, statistics) is in kserve_control.

local execute = require "mlserve.serve.execute"
local kserve = require "mlserve.serve.protocols.kserve"

local char, floor, pairs = string.char, math.floor, pairs

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

-- ModelStreamInferResponse: a ModelInferResponse in its field 2, or a text in its field 1
local function stream_response(field, bytes)
  local head, size = char(field * 8 + 2), #bytes
  while size >= 128 do
    head, size = head .. char(size % 128 + 128), floor(size / 128)
  end
  return head .. char(size) .. bytes
end

-- Requests are answered one after the other. What is wrong with one of them is told in its response, and the stream goes on; a client that sends
-- triton_grpc_error: true gets a status instead, which ends it.
local function stream_infer(infer)
  return function(stream, request)
    local strict = request.headers.triton_grpc_error == "true"
    while true do
      local message, text, code = stream:receive()
      if not message then
        if code then return nil, text, code end
        return true
      end
      local answer, ok
      answer, text, code = infer(message, request)
      if not answer and strict then return nil, text, code end
      ok, text, code = stream:send(answer and stream_response(2, answer) or stream_response(1, text or "unknown error"))
      if not ok then return nil, text, code end
    end
  end
end

--- The route of ModelStreamInfer.
---@param infer function(message, request) -> message | nil, text, code
---@param settings? table of mlserve.serve.protocols.grpc
---@return table route for app:mount
function M.stream_route(infer, settings)
  local grpc = require "mlserve.serve.protocols.grpc"
  return { method = "POST", path = SERVICE .. "ModelStreamInfer", handler = grpc.streaming(stream_infer(infer), settings), stream = true }
end

--- The routes of the methods.
---@param models table repository
---@param settings? table of mlserve.serve.protocols.grpc
---@return table routes for app:mount
function M.routes(models, settings)
  local grpc = require "mlserve.serve.protocols.grpc"
  local routes, unary = {}, M.methods(models)
  for name, method in pairs(unary) do
    routes[#routes + 1] = { method = "POST", path = SERVICE .. name, handler = grpc.unary(method, settings), stream = false }
  end
  routes[#routes + 1] = M.stream_route(unary.ModelInfer, settings)
  return routes
end

return M
