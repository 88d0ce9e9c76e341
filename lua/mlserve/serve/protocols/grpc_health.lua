--- grpc.health.v1.Health: is the server, one of its services, or a model able to answer?
--
-- "" is the server: SERVING when all models answer that were not unloaded on purpose. A service is SERVING as long as the server takes
-- requests; a model when a version of it answers. TensorFlow Serving's short names of its services are known too.

local grpc = require "mlserve.serve.protocols.grpc"
local grpc_schema = require "mlserve.serve.protocols.grpc_schema"
local kserve = require "mlserve.serve.protocols.kserve"

local format, ipairs, match, next = string.format, ipairs, string.match, next

local M = {}

local SERVICE = "grpc.health.v1.Health"
local INTERVAL = 0.25 -- seconds between looks of Watch
local LIST_MOST = 100

--- The routes.
---@param models table repository
---@param services table array of names
---@param options? table stopping: function() -> boolean: no new requests are wanted; interval: seconds between looks of Watch; settings
---@return table routes for app:mount
function M.routes(models, services, options)
  local settings, stopping = options and options.settings, options and options.stopping
  local interval = options and options.interval or INTERVAL
  local verbs, known = kserve.verbs(models), {}
  for _, name in ipairs(services) do
    known[name] = true
    local short = match(name, "^tensorflow%.serving%.(%w+)$")
    if short then known[short] = true end
  end

  -- SERVING, NOT_SERVING, or nil for what is not known
  local function state_of(name)
    local function either(yes) return yes and "SERVING" or "NOT_SERVING" end
    if name ~= "" and not known[name] then
      if models:get(name) then return either(not (stopping and stopping())) end
      return models:versions(name) and "NOT_SERVING" or nil
    end
    if stopping and stopping() then return "NOT_SERVING" end
    return either(name ~= "" or verbs.server_ready({}, {}).status == 200)
  end

  local function check(message, request)
    local name = message.service or ""
    local state = state_of(name)
    request.verb = "health"
    if not state then return nil, format("unknown service %s", name), "NOT_FOUND" end
    return { status = state }
  end

  local function list(_, request)
    local statuses, count = { [""] = { status = state_of "" } }, 1
    local function add(name)
      if statuses[name] then return end
      statuses[name], count = { status = state_of(name) }, count + 1
    end
    request.verb = "health"
    for name in next, known do add(name) end
    for _, name in ipairs(models:names()) do
      if state_of(name) then add(name) end
    end
    if count > LIST_MOST then return nil, format("%d services are more than the list may have", count), "RESOURCE_EXHAUSTED" end
    return { statuses = statuses }
  end

  local function watch(bytes, stream, request)
    local schema = grpc_schema.schema()
    local message, problem = schema:decode("grpc.health.v1.HealthCheckRequest", bytes)
    local last
    request.verb = "health"
    if not message then return nil, "Cannot parse the request: " .. problem, "INTERNAL" end
    if not stream:live() then return nil, "this transport has no streams", "UNIMPLEMENTED" end
    while true do
      local state = state_of(message.service or "") or "SERVICE_UNKNOWN"
      if state ~= last then
        local ok, text, code = stream:send(schema:encode("grpc.health.v1.HealthCheckResponse", { status = state }))
        if not ok then return nil, text, code end
        last = state
      end
      if stopping and stopping() then return nil, "the server is stopping", "UNAVAILABLE" end
      if stream:wait(interval) ~= "timeout" then return true end -- the stream knows why
    end
  end

  local routes = grpc_schema.routes(SERVICE, {
    Check = { "HealthCheckRequest", "HealthCheckResponse", check },
    List = { "HealthListRequest", "HealthListResponse", list },
  }, settings)
  routes[#routes + 1] = { method = "POST", path = "/" .. SERVICE .. "/Watch", handler = grpc.server_streaming(watch, settings), stream = true }
  return routes
end

return M
