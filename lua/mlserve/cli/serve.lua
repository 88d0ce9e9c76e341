--- `mlserve serve`: models over HTTP.
-- @module mlserve.cli.serve

local arguments = require "mlserve.cli.arguments"
local models = require "mlserve.cli.serve_models"

local format = string.format

local serve = { summary = "answer predictions over HTTP" }

serve.description = [[Serves models over HTTP with TensorFlow Serving's REST protocol. Prints its address and, for each
model, a curl line to try; runs until SIGTERM or SIGINT, answers what was asked, and exits 0. New versions are
loaded as they appear; SIGHUP reads the configuration file again. Sockets passed by systemd are taken instead of the port.]]

local function octal(text)
  if text:match("^[0-7][0-7]?[0-7]?[0-7]?$") then return text end
  return nil, format("permissions in octal such as 660 expected, got '%s'", text)
end

local SECONDS = {
  { name = "head", default = "10", text = "Time for the head of a request to arrive." },
  { name = "body", default = "30", text = "Time for its body to arrive." },
  { name = "idle", default = "60", text = "Silence between two requests of a connection." },
  { name = "write", default = "30", text = "Time for a client to take an answer." },
  { name = "drain", default = "10", text = "Time that requests have to end after SIGTERM." },
}

function serve.parser(parser)
  models.add(parser)
  parser:option("--rest-port --rest_api_port", "Port of the REST interface; 0 takes any free one.", "8501"):argname("PORT")
    :convert(arguments.integer(0, 65535))
  parser:option("--grpc-port --port", "A second port, TensorFlow Serving's for gRPC (8500); both ports speak HTTP/1.1 and HTTP/2. 0 takes any free one.")
    :argname("PORT"):convert(arguments.integer(0, 65535))
  parser:option("--tls-cert", "Speak TLS on all ports with this certificate (PEM; its chain behind it). SIGHUP reads it again."):argname("FILE")
  parser:option("--tls-key", "Its private key (PEM)."):argname("FILE")
  parser:option("--tls-client-ca", "Clients must show a certificate that one of these has signed (PEM)."):argname("FILE")
  parser:option("--ssl_config_file --ssl-config-file", "TensorFlow Serving's file in place of the three."):argname("FILE")
  parser:option("--host", "Address to listen on; 0.0.0.0 is every one.", "127.0.0.1")
  parser:option("--workers", "Processes that serve; with more than one they share the port and the models' memory, and one that ends is replaced.", "1")
    :argname("N"):convert(arguments.integer(1, 256))
  parser:option("--unix-socket", "Listen at this path as well; a socket file left by a server that died is replaced."):argname("PATH")
  parser:option("--unix-mode", "Permissions of the Unix socket in octal.", "600"):argname("MODE"):convert(octal)
  parser:flag("--no-tcp", "Listen at the Unix socket only.")
  parser:option("--max-connections", "Connections at a time, in all workers together.", "1024"):argname("N"):convert(arguments.integer(1, 1000000))
  parser:flag("--refuse-connections", "Answer 503 to connections beyond that, instead of leaving them in the kernel's queue.")
  parser:option("--max-body", "Bytes a request body may have.", "33554432"):argname("BYTES"):convert(arguments.integer(0))
  parser:option("--max-buffered", "Bytes of bodies that are still arriving, in all connections together.", "268435456"):argname("BYTES")
    :convert(arguments.integer(0))
  parser:option("--max-head", "Bytes the head of a request may have, at most 32768.", "32768"):argname("BYTES"):convert(arguments.integer(256, 32768))
  parser:option("--max-fields", "Header fields a request may have, at most 100.", "100"):argname("N"):convert(arguments.integer(1, 100))
  for _, limit in ipairs(SECONDS) do
    parser:option("--" .. limit.name .. "-timeout", limit.text, limit.default):argname("SECONDS"):convert(arguments.number(0))
  end
  parser:option("--threads", "Threads that predictions may use, in all workers together (default: the number of cores)."):argname("N")
    :convert(arguments.integer(1, 1024))
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
  parser:option("--max-queue-micros", "Refuse at once (503) a request that would wait longer in the queue of a costly model; 0: only its length counts.", "0")
    :argname("MICROSECONDS"):convert(arguments.integer(0, 3600000000))
  parser:option("--access-log", "File for one JSON line per request; - is standard output. SIGUSR1 begins it anew."):argname("FILE")
  parser:flag("--no-metrics", "Do not answer GET /metrics and /monitoring/prometheus/metrics.")
  parser:option("--monitoring_config_file --monitoring-config-file",
    "TensorFlow Serving's: prometheus_config { enable: true path: \"/monitoring/prometheus/metrics\" }."):argname("FILE")
  parser:epilog [[Example:
  mlserve serve --model cancer=models/cancer --rest-port 8501
  curl http://127.0.0.1:8501/v1/models/cancer
TensorFlow Serving's command line works as well:
  mlserve serve --rest_api_port=8501 --model_name=cancer --model_base_path=/models/cancer]]
end

-- The server's option `metrics`; nil and a message for a file that is wrong.
local function monitoring_of(args)
  if args.no_metrics then return false end
  if not args.monitoring_config_file then return true end
  local config, message = require("mlserve.serve.metrics").read_config(args.monitoring_config_file)
  if not config then return nil, message end
  return { tensorflow_path = config.enable and (config.path or true) }
end

-- The server's option `tls`: a table, nil, or false and a message.
local function tls_of(args)
  if args.ssl_config_file then
    if args.tls_cert or args.tls_key or args.tls_client_ca then return false, "--ssl_config_file is instead of --tls-cert, --tls-key and --tls-client-ca" end
    return { config = args.ssl_config_file }
  end
  if not args.tls_cert and not args.tls_key and not args.tls_client_ca then return nil end
  if not args.tls_cert or not args.tls_key then return false, "--tls-cert and --tls-key belong together" end
  return { cert = args.tls_cert, key = args.tls_key, client_ca = args.tls_client_ca }
end

function serve.run(args)
  local ok, message, notices = models.normalise(args)
  local server, problems, hopeless
  if not ok then return nil, message, 2 end
  for _, line in ipairs(notices) do io.stderr:write("mlserve serve: ", line, "\n") end
  if args.admin and args.workers > 1 then return nil, "--admin needs --workers 1: a worker loads and unloads for itself only", 2 end
  local tls, wrong = tls_of(args)
  if tls == false then return nil, wrong, 2 end
  if args.grpc_port and args.no_tcp then return nil, "--grpc-port or --no-tcp", 2 end
  if args.transport == "nginx" and args.refuse_connections then return nil, "--refuse-connections is not for --transport nginx, which has limit_conn", 2 end
  if args.transport == "nginx" then return require("mlserve.cli.serve_nginx").run(args, monitoring_of, tls) end
  if args.no_tcp and not args.unix_socket then return nil, "--no-tcp needs --unix-socket", 2 end
  if args.threads then require("mlserve.core").set_threads(args.threads) end
  if args.batching_parameters_file then
    ok, message = require("mlserve.serve.batching").read(args.batching_parameters_file)
    if not ok then return nil, message end
  end
  local monitoring, reason = monitoring_of(args)
  if monitoring == nil then return nil, reason, 2 end
  local given = models.options(args)
  given.metrics, given.access_log = monitoring, args.access_log
  given.rest = {
    host = args.host, port = not args.no_tcp and args.rest_port, workers = args.workers, unix_socket = args.unix_socket,
    unix_mode = args.unix_mode, socket_activation = true, max_connections = args.max_connections, max_body = args.max_body,
    max_buffered = args.max_buffered, max_head = args.max_head, max_fields = args.max_fields, head_timeout = args.head_timeout,
    body_timeout = args.body_timeout, idle_timeout = args.idle_timeout, write_timeout = args.write_timeout,
    drain_timeout = args.drain_timeout, refuse_connections = args.refuse_connections, cors = args.cors,
  }
  given.tls, given.grpc = tls, models.grpc(args)
  given.limits = args.max_memory and { memory = args.max_memory * 1024 * 1024 } or nil
  server, message = require("mlserve.serve.server").new(given)
  if not server then return nil, message end
  problems, hopeless, message = models.load(server, args)
  if message then return nil, message end
  if hopeless then return nil, table.concat(problems, "\n") end
  for _, line in ipairs(problems) do io.stderr:write("mlserve serve: ", line, "\n") end
  ok, message = server:run()
  if not ok then return nil, message end
  return 0
end

return serve
