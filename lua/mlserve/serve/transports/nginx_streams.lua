--- Streams of gRPC in which both sides speak in turn, beside nginx.
--
-- nginx's Lua gets the body of a request over HTTP/2 only as a whole; its grpc_pass passes messages on as they come. So the process that runs nginx
-- listens at a Unix socket for the few methods that need it (nginx_conf has their paths), and asks nginx's workers, over another one, for every
-- message of ModelStreamInfer: models, their queues and what is counted stay in nginx.

local app = require "mlserve.serve.app"
local client_grpc = require "mlserve.client.grpc"
local client_http = require "mlserve.client.http"
local client_http2 = require "mlserve.client.http2"
local grpc = require "mlserve.serve.protocols.grpc"
local grpc_services = require "mlserve.serve.protocols.grpc_services"
local http = require "mlserve.serve.transports.http"
local kserve_grpc = require "mlserve.serve.protocols.kserve_grpc"
local listeners = require "mlserve.serve.transports.listeners"
local repository = require "mlserve.serve.repository"

local pairs, setmetatable = pairs, setmetatable

local INFER = "/inference.GRPCInferenceService/ModelInfer"
local LONG = 86400 -- seconds; a stream lasts as long as its client likes
local OWN = { cors = true, tensor_content = true, web = true } -- of grpc_services: nginx's business

local methods = {}
local mt = { __name = "mlserve.nginx_streams", __index = methods }

--- For another loop: poll(streams); streams:step(0).
function methods:pollfd() return self.transport:pollfd() end
function methods:events() return self.transport:events() end
function methods:timeout() return self.transport:timeout() end

--- Does what there is to do. False: it has stopped.
function methods:step(timeout)
  if self.transport:step(timeout) then return true end
  self.pool:close() -- nginx would wait for it before it ends
  return false
end

--- No new streams; those there are may end.
function methods:stop() self.transport:stop() end

local M = {}

--- Listens.
---@param given table streams: path of the socket to listen at; calls: of that at which nginx answers; grpc: options of mlserve.nginx.init;
--- max_connections, drain_timeout, log
---@return table|nil streams
---@return string|nil message
function M.new(given)
  local settings, application = { log = given.log }, app.new()
  for name, value in pairs(given.grpc or {}) do
    if not OWN[name] then settings[name] = value end
  end
  grpc_services.mount(application, repository.new(), settings) -- what it offers is the same, and all that is asked here
  settings = grpc.settings(settings)

  local endpoint = client_http.parse_url("unix:" .. given.calls)
  local pool, message = client_http2.new { endpoint = endpoint, connect_timeout = 5, idle_timeout = 30, size = 1 }
  if not pool then return nil, message end
  local channel = client_grpc.channel(pool, endpoint, { max_response = settings.max_response })
  local function infer(bytes, request)
    local now, seconds = pool.now(), request.timeout or LONG
    request.until_time = request.until_time or now + seconds
    return channel:unary(INFER, bytes, { deadline = request.until_time, seconds = seconds, retries = { attempts = 1 }, idempotent = false })
  end
  application:mount { kserve_grpc.stream_route(infer, settings) }

  local opened
  opened, message = listeners.open { unix_socket = given.streams, unix_mode = "600" }
  if not opened then return nil, message end
  local transport = http.new {
    app = application, listeners = opened, max_connections = given.max_connections or 1024, drain_timeout = given.drain_timeout or 10, log = given.log,
    body_timeout = LONG, idle_timeout = LONG,
  }
  local ok
  ok, message = transport:listen()
  if not ok then return nil, message end
  return setmetatable({ transport = transport, pool = pool }, mt)
end

return M
