--- The messages of the gRPC services, for those that are tables in Lua, and methods made of them.

local grpc = require "mlserve.serve.protocols.grpc"
local proto = require "mlserve.proto"

local ipairs, match, pairs = ipairs, string.match, pairs

local M = {}

local known

--- All files of mlserve.proto, read when this is first called.
---@return table schema
function M.schema()
  if not known then
    local schema = proto.schema()
    for _, name in ipairs(proto.names()) do schema:load(name) end
    known = schema
  end
  return known
end

--- A unary method of messages as tables: a handler for app:mount.
---@param input string full name of the request's type
---@param output string
---@param method function method(message, request) -> table | nil, text, code
---@param settings? table of mlserve.serve.protocols.grpc
---@return function handler
function M.unary(input, output, method, settings)
  return grpc.unary(function(bytes, request)
    local schema = M.schema()
    local message, problem = schema:decode(input, bytes)
    if not message then return nil, "Cannot parse the request: " .. problem, "INTERNAL" end
    local answer, text, code = method(message, request)
    if not answer then return nil, text, code end
    return schema:encode(output, answer)
  end, settings)
end

--- Routes of a service from its methods.
---@param service string full name
---@param methods table name -> { input, output (names without package), function }
---@param settings? table
---@return table
function M.routes(service, methods, settings)
  local routes, package = {}, match(service, "^(.*%.)[^.]*$") or ""
  for name, method in pairs(methods) do
    routes[#routes + 1] = {
      method = "POST", path = "/" .. service .. "/" .. name, handler = M.unary(package .. method[1], package .. method[2], method[3], settings),
    }
  end
  return routes
end

return M
