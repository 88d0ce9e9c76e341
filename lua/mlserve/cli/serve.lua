--- `mlserve serve`: models over HTTP.
-- @module mlserve.cli.serve

local arguments = require "mlserve.cli.arguments"

local format = string.format

local serve = { summary = "answer predictions over HTTP" }

serve.description = [[Serves models over HTTP with TensorFlow Serving's REST protocol. Prints its address and, for each
model, a curl line to try; runs until SIGTERM or SIGINT, answers what was asked, and exits 0.]]

local function named_base(text)
  local name, base = text:match("^([^=]+)=(.+)$")
  if not name then return nil, format("NAME=BASEDIR expected, such as cancer=models/cancer, got '%s'", text) end
  return { name = name, base = base }
end

function serve.parser(parser)
  parser:option("--model", "A model: its name in URLs and its directory, which holds numbered versions. Repeatable.")
    :argname("NAME=BASEDIR"):count("1+"):convert(named_base)
  parser:option("--rest-port", "Port of the REST interface; 0 takes any free one.", "8501"):argname("PORT")
    :convert(arguments.integer(0, 65535))
  parser:option("--host", "Address to listen on; 0.0.0.0 is every one.", "127.0.0.1")
  parser:option("--threads", "Threads a prediction may use (default: the number of cores)."):argname("N")
    :convert(arguments.integer(1, 1024))
  parser:option("--workers", "Processes that answer requests; they share the models' memory.", "1"):argname("N")
    :convert(arguments.integer(1, 256))
  parser:option("--transport", "Who speaks HTTP: http, this program, or nginx, which is run with the same models and flags.", "http")
    :choices { "http", "nginx" }
  parser:option("--nginx", "With --transport nginx: the program.", "nginx"):argname("PROGRAM")
  parser:option("--pool-threads", "With --transport nginx: threads of each worker for models that take long.", "4"):argname("N")
    :convert(arguments.integer(1, 256))
  parser:option("--max-memory", "Memory that the predictions of one model may take, weights not counted (default: half of the machine's).")
    :argname("MIB"):convert(arguments.integer(1, 1024 * 1024 * 1024))
  parser:option("--batching", "Merge requests of costly models: auto (by measured cost), always or never."):argname("MODE")
    :choices { "auto", "always", "never" }
  parser:option("--batching-parameters-file --batching_parameters_file", "TensorFlow Serving's batching parameters (text format)."):argname("FILE")
  parser:option("--access-log", "File for one JSON line per request; - is standard output. SIGUSR1 begins it anew."):argname("FILE")
  parser:flag("--no-metrics", "Do not answer GET /metrics and /monitoring/prometheus/metrics.")
  parser:option("--monitoring_config_file --monitoring-config-file",
    "TensorFlow Serving's: prometheus_config { enable: true path: \"/monitoring/prometheus/metrics\" }."):argname("FILE")
  parser:epilog [[Example:
  mlserve serve --model cancer=models/cancer --rest-port 8501
  curl http://127.0.0.1:8501/v1/models/cancer]]
end

-- The server's option `metrics`; nil and a message for a file that is wrong.
local function monitoring_of(args)
  if args.no_metrics then return false end
  if not args.monitoring_config_file then return true end
  local config, message = require("mlserve.serve.metrics").read_config(args.monitoring_config_file)
  if not config then return nil, message end
  return { tensorflow_path = config.enable and (config.path or true) }
end

function serve.run(args)
  if args.transport == "nginx" then return require("mlserve.cli.serve_nginx").run(args, monitoring_of) end
  local seen, problems = {}, {}
  local server, ok, message
  if args.threads then require("mlserve.core").set_threads(args.threads) end
  if args.batching_parameters_file then
    ok, message = require("mlserve.serve.batching").read(args.batching_parameters_file)
    if not ok then return nil, message end
  end
  local monitoring, reason = monitoring_of(args)
  if monitoring == nil then return nil, reason, 2 end
  server, message = require("mlserve.serve.server").new {
    batching = { mode = args.batching, file = args.batching_parameters_file },
    metrics = monitoring, access_log = args.access_log,
    rest = { host = args.host, port = args.rest_port },
    limits = args.max_memory and { memory = args.max_memory * 1024 * 1024 } or nil,
  }
  if not server then return nil, message end
  for _, model in ipairs(args.model) do
    if seen[model.name] then return nil, format("two models are named '%s'", model.name), 2 end
    seen[model.name] = true
    ok, message = server:add_directory(model.name, model.base)
    if not ok then problems[#problems + 1] = message end
  end
  -- a bad model does not keep the good ones from being served; the server says which it lacks
  if #problems == #args.model then return nil, table.concat(problems, "\n") end
  for _, problem in ipairs(problems) do io.stderr:write("mlserve serve: ", problem, "\n") end
  ok, message = server:run()
  if not ok then return nil, message end
  return 0
end

return serve
