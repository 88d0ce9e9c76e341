--- All services of gRPC, for an application.
--
--   grpc_services.mount(app, models, { admin = true, max_message = 16777216, cors = true })

local grpc = require "mlserve.serve.protocols.grpc"
local grpc_health = require "mlserve.serve.protocols.grpc_health"
local grpc_reflection = require "mlserve.serve.protocols.grpc_reflection"
local grpcweb = require "mlserve.serve.protocols.grpcweb"
local kserve_control = require "mlserve.serve.protocols.kserve_control"
local kserve_grpc = require "mlserve.serve.protocols.kserve_grpc"
local tfserving_control = require "mlserve.serve.protocols.tfserving_control"
local tfserving_grpc = require "mlserve.serve.protocols.tfserving_grpc"

local ipairs, pairs = ipairs, pairs

local M = {}

local OWN = { admin = true, cors = true, stopping = true, tensor_content = true, version = true, web = true }

--- Adds the routes of all services to an application, and what answers calls of others.
---@param app table
---@param models table repository
---@param options? table admin (boolean): clients may load, unload and change the configuration; web (true): speak gRPC-Web too; cors: see
--- mlserve.serve.protocols.grpcweb; tensor_content (boolean): Predict answers in that field; version (string): of the server;
--- stopping: function() -> boolean; and the settings of mlserve.serve.protocols.grpc
---@return table services names
function M.mount(app, models, options)
  local given, routes = {}, {}
  options = options or {}
  for name, value in pairs(options) do
    if not OWN[name] then given[name] = value end
  end
  local settings = grpc.settings(given)
  local each = { admin = options.admin, version = options.version, stopping = options.stopping, settings = settings }
  local function add(more)
    for _, route in ipairs(more) do routes[#routes + 1] = route end
  end
  add(tfserving_grpc.routes(models, { tensor_content = options.tensor_content }, settings))
  add(tfserving_control.routes(models, each))
  add(kserve_grpc.routes(models, settings))
  add(kserve_control.routes(models, each))
  local services, known = grpc.services(routes), {}
  add(grpc_health.routes(models, services, each))
  add(grpc_reflection.routes(grpc.services(routes), each))
  for _, name in ipairs(grpc.services(routes)) do known[name] = true end

  local fallback = grpc.fallback(known)
  if options.web ~= false then
    routes, fallback = grpcweb.wrap(routes, { cors = options.cors }), grpcweb.fallback(fallback, { cors = options.cors })
  end
  app:mount(routes)
  app:fallback(fallback)
  return services
end

return M
