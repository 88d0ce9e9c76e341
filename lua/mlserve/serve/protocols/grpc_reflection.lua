--- Server reflection, v1 and v1alpha: clients such as grpcurl ask what the server offers and need no .proto files.

local grpc = require "mlserve.serve.protocols.grpc"
local grpc_schema = require "mlserve.serve.protocols.grpc_schema"

local format, gsub, ipairs = string.format, string.gsub, ipairs

local M = {}

local function refusal(code, text) return { error_response = { error_code = grpc.CODES[code], error_message = text } } end

local function files(schema, name)
  local list = {}
  for i, each in ipairs(schema:closure(name)) do list[i] = schema:descriptor(each) end
  return { file_descriptor_response = { file_descriptor_proto = list } }
end

local function answer(schema, services, message)
  if message.list_services then
    local list = {}
    for i, name in ipairs(services) do list[i] = { name = name } end
    return { list_services_response = { service = list } }
  end
  if message.file_by_filename then
    if not schema:closure(message.file_by_filename) then return refusal("NOT_FOUND", format("File not found: %s", message.file_by_filename)) end
    return files(schema, message.file_by_filename)
  end
  if message.file_containing_symbol then
    local name = schema:file_of((gsub(message.file_containing_symbol, "^%.", "")))
    if not name then return refusal("NOT_FOUND", format("Symbol not found: %s", message.file_containing_symbol)) end
    return files(schema, name)
  end
  if message.file_containing_extension then
    return refusal("NOT_FOUND", format("Extension not found: %s", message.file_containing_extension.containing_type or ""))
  end
  local name = message.all_extension_numbers_of_type
  if name then
    if not schema.types[name] then return refusal("NOT_FOUND", format("Type not found: %s", name)) end
    return { all_extension_numbers_response = { base_type_name = name } }
  end
  return refusal("INVALID_ARGUMENT", "the request asks for nothing")
end

--- The routes.
---@param services table array of names, the reflection services' own excluded
---@param options? table settings: of mlserve.serve.protocols.grpc
---@return table routes for app:mount
function M.routes(services, options)
  local routes, names = {}, {}
  for i, name in ipairs(services) do names[i] = name end
  for _, name in ipairs(M.SERVICES) do names[#names + 1] = name end
  table.sort(names)

  for _, service in ipairs(M.SERVICES) do
    local package = gsub(service, "ServerReflection$", "")
    routes[#routes + 1] = {
      method = "POST", path = "/" .. service .. "/ServerReflectionInfo", stream = true,
      handler = grpc.streaming(function(stream, request)
        local schema = grpc_schema.schema()
        request.verb = "reflection"
        while true do
          local bytes, text, code = stream:receive()
          if not bytes then
            if code then return nil, text, code end
            return true
          end
          local message, problem = schema:decode(package .. "ServerReflectionRequest", bytes)
          if not message then return nil, "Cannot parse the request: " .. problem, "INTERNAL" end
          local response = answer(schema, names, message)
          response.valid_host, response.original_request = message.host, message
          local ok
          ok, text, code = stream:send(schema:encode(package .. "ServerReflectionResponse", response))
          if not ok then return nil, text, code end
        end
      end, options and options.settings),
    }
  end
  return routes
end

M.SERVICES = { "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection" }

return M
