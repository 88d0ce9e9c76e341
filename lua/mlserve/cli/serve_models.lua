--- The arguments of `mlserve serve` that say which models are served: our own and TensorFlow Serving's, under its names.
-- @module mlserve.cli.serve_models

local arguments = require "mlserve.cli.arguments"

local concat, format = table.concat, string.format

local M = {}

local function named_base(text)
  local name, base = text:match("^([^=]+)=(.+)$")
  if not name then return nil, format("NAME=BASEDIR expected, such as cancer=models/cancer, got '%s'", text) end
  return { name = name, base = base }
end

local BOOLEANS = { ["true"] = true, t = true, ["1"] = true, ["false"] = false, f = false, ["0"] = false }

-- --name, --name=true, --name=false, as TensorFlow Serving takes them
local function boolean(text)
  local value = BOOLEANS[text:lower()]
  if value == nil then return nil, format("true or false expected, got '%s'", text) end
  return { value = value }
end

-- A flag given without a value stands for true. nil: not given.
local function flag_value(given)
  if given == nil then return nil end
  if given.value ~= nil then return given.value end
  if given[1] then return given[1].value end
  return true
end

-- Flags of TensorFlow Serving that say nothing to us: accepted, so that its command line works, and named once.
local IGNORED = {
  "rest_api_num_threads", "rest_api_timeout_in_ms", "num_load_threads", "num_unload_threads", "flush_filesystem_caches",
  "tensorflow_session_parallelism", "tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism", "platform_config_file",
  "tensorflow_session_config_file", "saved_model_tags", "per_process_gpu_memory_fraction",
  "allow_version_labels_for_unavailable_models", "enable_signature_method_name_check", "prefer_tflite_model", "enable_profiler",
  "remove_unused_fields_from_bundle_metagraph", "thread_pool_factory_config_file", "mixed_precision",
  "xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled",
}
local GRPC = { "grpc_socket_path", "grpc_channel_arguments", "grpc_max_threads", "enable_grpc_healthcheck_service" }

--- Adds the arguments.
function M.add(parser)
  parser:option("--model", "A model: its name in URLs and its directory, which holds numbered versions. Repeatable.")
    :argname("NAME=BASEDIR"):count("*"):convert(named_base)
  parser:option("--models", "A directory of models: each sub-directory is one, also those that appear later. Repeatable.")
    :argname("DIR"):count("*")
  parser:option("--model_config_file --model-config-file", "Models, version policies and labels: TensorFlow Serving's text format, or a Lua table in "
    .. "a file that ends in .lua."):argname("FILE")
  parser:option("--model_config_file_poll_wait_seconds --model-config-poll", "Look at that file for changes this often; 0: only on SIGHUP.", "0")
    :argname("SECONDS"):convert(arguments.number(0))
  parser:option("--file_system_poll_wait_seconds --scan-interval", "Look at the directories this often, besides being told of changes; 0: only at the "
    .. "start."):argname("SECONDS"):convert(arguments.number(-1e9))
  parser:flag("--admin", "Let clients list, load and unload models.")
  parser:option("--warm-up --num_request_iterations_for_warmup", "Times that each warm-up request is run before a version answers; 0: none.")
    :argname("N"):convert(arguments.integer(0, 1000000))
  parser:option("--model_name", "TensorFlow Serving's name for one model (default: default)."):argname("NAME")
  parser:option("--model_base_path", "… and its directory."):argname("DIR")
  parser:option("--max_num_load_retries", "Times that a version that fails is tried again by itself.", "5"):argname("N"):convert(arguments.integer(0, 1000000))
  parser:option("--load_retry_interval_micros", "Time between these.", "60000000"):argname("MICROSECONDS"):convert(arguments.integer(0))
  parser:option("--enable_batching", "As --batching auto; =false: as --batching never."):args("?"):convert(boolean)
  parser:option("--enable_per_model_batching_parameters", "Read batching_params.pbtxt in each version's directory as well."):args("?"):convert(boolean)
  parser:option("--enable_model_warmup", "=false: as --warm-up 0."):args("?"):convert(boolean)
  parser:option("--cors --enable_cors_support", "Let pages of every origin ask (REST of TensorFlow Serving, gRPC-Web)."):args("?"):convert(boolean)
  parser:option("--grpc-max-message", "Bytes that a message of a gRPC client may have (default: 4194304)."):argname("BYTES"):convert(arguments.integer(1))
  parser:option("--enable_serialization_as_tensor_content", "Predict of gRPC answers in tensor_content."):args("?"):convert(boolean)
  for _, name in ipairs(GRPC) do parser:option("--" .. name):args("?"):hidden(true) end
  for _, name in ipairs(IGNORED) do parser:option("--" .. name):args("?"):hidden(true) end
end

local function given_of(args, names)
  local list = {}
  for _, name in ipairs(names) do
    if args[name] ~= nil then list[#list + 1] = "--" .. name end
  end
  return list
end

--- Brings TensorFlow Serving's arguments into our form: args.model has every single model, args.batching the mode.
---@return boolean|nil ok
---@return string|nil message wrong usage
---@return table|nil notices lines to be told once
function M.normalise(args)
  local notices, seen = {}, {}
  local batching = flag_value(args.enable_batching)
  local ignored = given_of(args, IGNORED)
  for _, name in ipairs(given_of(args, GRPC)) do ignored[#ignored + 1] = name end
  if args.model_base_path and not args.model_config_file then
    args.model[#args.model + 1] = { name = args.model_name or "default", base = args.model_base_path, waits = true }
  elseif args.model_name and not args.model_config_file then
    return nil, "--model_name needs --model_base_path"
  end
  for _, model in ipairs(args.model) do
    if seen[model.name] then return nil, format("two models are named '%s'", model.name) end
    seen[model.name] = true
  end
  if #args.model == 0 and #args.models == 0 and not args.model_config_file then
    return nil, "no models: --model NAME=BASEDIR, --models DIR, --model_config_file FILE or --model_base_path DIR expected"
  end
  if batching ~= nil then args.batching = args.batching or (batching and "auto" or "never") end
  args.batching_per_model = flag_value(args.enable_per_model_batching_parameters) or false
  if flag_value(args.enable_model_warmup) == false then args.warm_up = 0 end
  args.cors = flag_value(args.cors) or false
  if #ignored > 0 then notices[#notices + 1] = format("without effect here: %s", concat(ignored, ", ")) end
  return true, nil, notices
end

--- The option `batching` of either transport.
function M.batching(args)
  return { mode = args.batching, file = args.batching_parameters_file, per_model = args.batching_per_model, max_queue_micros = args.max_queue_micros }
end

--- The option `grpc` of mlserve.server.
function M.grpc(args)
  local content = flag_value(args.enable_serialization_as_tensor_content) or nil
  if not args.grpc_port and not args.grpc_max_message and not content then return nil end
  return { port = args.grpc_port or false, max_message = args.grpc_max_message, tensor_content = content }
end

--- The options of mlserve.server that follow from the arguments.
function M.options(args)
  local interval = args.file_system_poll_wait_seconds
  return {
    batching = M.batching(args),
    admin = args.admin or false, scan_interval = interval and math.max(0, interval) or nil, warm_up = args.warm_up or 1,
    retries = args.max_num_load_retries, retry_interval = args.load_retry_interval_micros * 1e-6,
  }
end

--- Loads the models into a server. A bad model does not keep the good ones from being served; what may still appear is waited for.
---@return table problems messages
---@return boolean hopeless nothing is served and nothing is waited for
---@return string|nil message the configuration file is no good
function M.load(server, args)
  local problems, hopeless = {}, #args.models == 0 and not args.model_config_file
  if args.model_config_file then
    local errors, message = server:add_config(args.model_config_file, args.model_config_file_poll_wait_seconds)
    if not errors then return problems, false, message end
    for _, problem in ipairs(errors) do problems[#problems + 1] = problem end
  end
  for _, model in ipairs(args.model) do
    local ok, message = server:add_directory(model.name, model.base)
    if not ok then problems[#problems + 1] = message end
    if model.waits or server.repository:get(model.name) then hopeless = false end
  end
  for _, directory in ipairs(args.models) do
    local _, errors = server:add_directories(directory)
    for _, problem in ipairs(errors) do problems[#problems + 1] = problem end
  end
  return problems, hopeless
end

return M
