--- `mlserve serve --transport nginx`: the same arguments, for nginx. The models go to nginx's own process: nothing is loaded here.
-- @module mlserve.cli.serve_nginx

local M = {}

local LIMITS = {
  "unix_socket", "max_connections", "max_body", "head_timeout", "body_timeout", "idle_timeout", "write_timeout", "drain_timeout",
}

--- Serves until nginx ends.
---@param args table of mlserve.cli.serve
---@param monitoring_of function(args) -> metrics | nil, message
---@param tls? table see mlserve.serve.transports.tls
---@return integer|nil exit_code
---@return string|nil message
---@return integer|nil exit_code
function M.run(args, monitoring_of, tls)
  local models = {}
  for _, model in ipairs(args.model) do models[model.name] = model.base end
  local metrics, reason = monitoring_of(args)
  if metrics == nil then return nil, reason, 2 end
  local grpc = require("mlserve.cli.serve_models").grpc(args) or {}
  local interval = args.file_system_poll_wait_seconds
  grpc.port = nil
  local given = {
    init = {
      models = models, directories = args.models, config = args.model_config_file, config_interval = args.model_config_file_poll_wait_seconds,
      threads = args.threads, limits = args.max_memory and { memory = args.max_memory * 1024 * 1024 } or nil,
      batching = require("mlserve.cli.serve_models").batching(args), metrics = metrics, access_log = args.access_log,
      admin = args.admin, warm_up = args.warm_up, watch = interval and math.max(0, interval) or nil, retries = args.max_num_load_retries,
      retry_interval = args.load_retry_interval_micros * 1e-6, grpc = grpc, cors = args.cors,
    },
    grpc_port = args.grpc_port, tls = tls,
    nginx = args.nginx, pool = args.pool_threads, host = args.host, port = not args.no_tcp and args.rest_port, workers = args.workers,
  }
  for _, name in ipairs(LIMITS) do given[name] = args[name] end
  local ok, message = require("mlserve.serve.transports.nginx_run").run(given)
  if not ok then return nil, message end
  return 0
end

return M
