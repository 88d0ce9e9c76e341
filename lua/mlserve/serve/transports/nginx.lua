--- The nginx transport: models inside nginx or OpenResty.
--
--   init_by_lua_block        { require("mlserve.nginx").init { models = { cancer = "models/cancer" } } }
--   init_worker_by_lua_block { require("mlserve.nginx").init_worker() }
--   content_by_lua_block     { require("mlserve.nginx").handler() }                       # every protocol; gRPC's trailers: see docs/grpc.md
--   access_by_lua_block      { require("mlserve.nginx").score { model = "cancer", features = { { header = "x-a" }, 2, 3 },
--                                deny = { above = 0.9 } } }
--
-- Models are loaded by the master before it forks, so workers share their memory; nothing that starts threads is called there.
-- Each worker then looks for new versions on its own, loads them in a thread of the core and swaps them in between two requests.
-- Models that take long run in the thread pool as well (nginx_pool). As is usual for libraries in nginx, functions return nil
-- and a message instead of raising when the environment fails; misuse raises.

local app = require "mlserve.serve.app"
local batching = require "mlserve.serve.batching"
local features = require "mlserve.serve.transports.nginx_features"
local grpc_services = require "mlserve.serve.protocols.grpc_services"
local kserve = require "mlserve.serve.protocols.kserve"
local metrics = require "mlserve.serve.metrics"
local nginx_client = require "mlserve.serve.transports.nginx_client"
local nginx_pool = require "mlserve.serve.transports.nginx_pool"
local openapi = require "mlserve.serve.openapi"
local options = require "mlserve.options"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

local concat, format, gsub, match, sub = table.concat, string.format, string.gsub, string.match, string.sub
local max, min = math.max, math.min
local ipairs, pairs, pcall, setmetatable, tonumber, tostring, type = ipairs, pairs, pcall, setmetatable, tonumber, tostring, type

local ngx = ngx -- luacheck: ignore

local M = {}

local POLL_MOST = 0.1 -- seconds between looks: the kernel's notices of changes cannot wake nginx

local state -- { repository, app, pool, scores, watch, … } of this Lua VM, made by init
local new_scorer

local INIT_RULES = {
  models = { type = "table" },
  directories = { type = "table" },
  scores = { type = "table" },
  cors = { type = "boolean", default = false },
  grpc = { type = "table" },
  compression = { type = "table" },
  limits = { type = "table" },
  threads = { type = "integer", min = 1, max = 1024, default = 1 },
  watch = { type = "number", min = 0, default = 1 },
  pool = { type = "string", default = "mlserve" },
  pool_states = { type = "integer", min = 1, max = 1024, default = 8 },
  pool_queue = { type = "integer", min = 0, default = 1000 },
  pool_wait = { type = "number", above = 0, default = 10 },
  inline = { type = "integer", min = 0, default = 500 },
  batching = { type = { "string", "table" } },
  admin = { type = "boolean", default = false },
  warm_up = { type = "integer", min = 0 },
  retries = { type = "integer", min = 0 },
  retry_interval = { type = "number", min = 0 },
  config = { type = "string" },
  config_interval = { type = "number", min = 0, default = 0 },
  metrics = { type = { "boolean", "table" }, default = true },
  access_log = { type = "string" },
}

local GRPC_RULES = { -- of mlserve.serve.protocols.grpc_services
  max_message = { type = "number", min = 1 },
  max_response = { type = "number", min = 1 },
  compress_from = { type = "number", min = 0 },
  cors = { type = { "boolean", "string", "table" } },
  tensor_content = { type = "boolean" },
  web = { type = "boolean" },
}

local function log(level, ...) ngx.log(level, "mlserve: ", ...) end
local function log_line(_, message) log(ngx.ERR, message) end

-- A worker's timer cannot be made before there are workers: the first request to be logged does it.
local function every_second(f) ngx.timer.every(1, f) end

-- Options of the repository.
local function repository_options(values, pool, merging, application)
  return {
    limits = values.limits, admin = values.admin, warm_up = values.warm_up, retries = values.retries, retry_interval = values.retry_interval,
    scan_interval = values.watch > 0 and values.watch or 0,
    prepare = function(servable, name, directory) -- runs the model a few times: in a thread once there are some
      local ok, message
      if pool:usable() then ok, message = pool:run("merge", servable:handle(), name, directory, values.batching)
      else ok, message = merging:apply(servable, name, directory) end
      if ok ~= nil and application.observer then application.observer:feed(servable) end
      return ok, message
    end,
    log = function(level, message) log(level == "error" and ngx.ERR or level == "warn" and ngx.WARN or ngx.NOTICE, message) end,
  }
end

-- Puts what the repository has loaded behind the pool; at once after it was loaded, so that no request comes first.
local function adopt(models, pool)
  for _, name in ipairs(models:names()) do
    for _, entry in ipairs(models:versions(name) or {}) do
      if entry.state == "AVAILABLE" and type(entry.servable) == "userdata" then entry.servable = pool:serve(entry.servable) end
    end
  end
end

--- Loads models; call it from init_by_lua. A model that cannot be loaded is logged and reported by status requests, the
--- others are served.
---@param given table models = { name = base directory | servable }, directories = array of directories of models, scores =
--- { name = options of `score` }, cors, compression (see mlserve.serve.compress), limits (see mlserve.load), metrics (false: none), access_log
--- = path, batching (see mlserve.serve.batching), admin, warm_up, retries, retry_interval (see mlserve.serve.repository), config and config_interval:
--- a configuration file of models, threads a prediction may use (1), watch: seconds between looks for new versions (1; 0: never), pool: name of nginx's thread_pool,
--- pool_states (at most lua_worker_thread_vm_pool_size),
--- pool_queue, pool_wait, inline: microseconds that a request may take in the event loop (500)
---@return boolean|nil ok
---@return string|nil message
function M.init(given)
  local values = options.check(given, INIT_RULES, "mlserve.nginx.init")
  local pool = nginx_pool.new {
    name = values.pool, states = values.pool_states, queue = values.pool_queue, wait = values.pool_wait,
    inline = values.inline * 1e-6,
  }
  local merging, problem = batching.config(values.batching)
  if not merging then error("mlserve.nginx.init: batching: " .. problem, 2) end
  local grpc = options.check(values.grpc or {}, GRPC_RULES, "mlserve.nginx.init: grpc")
  grpc.admin, grpc.log, grpc.stopping = values.admin, log_line, function() return ngx.worker.exiting() end
  if grpc.cors == nil then grpc.cors = values.cors end
  local application = app.new { compression = values.compression }
  local models = repository.new(repository_options(values, pool, merging, application))
  local errors = {}
  local has_core, core = pcall(require, "mlserve.core")
  if has_core then core.set_threads(values.threads) end
  local function note(ok, message)
    if ok then return end
    errors[#errors + 1] = message
    log(ngx.ERR, message)
  end
  application:mount(tfserving.routes(models, { cors = values.cors }))
  application:mount(kserve.routes(models, { admin = values.admin }))
  grpc_services.mount(application, models, grpc)
  note(metrics.watch(application, models, values.metrics, values.access_log, log_line, every_second))
  openapi.mount(application)
  for name, source in pairs(values.models or {}) do
    if type(source) == "string" then note(models:add_directory(name, source))
    else
      if type(source) == "userdata" and not source:batched() then merging:apply(source, name) end
      models:add_model(name, source)
    end
  end
  for _, base in ipairs(values.directories or {}) do
    local _, problems = models:add_root(base)
    for _, message in ipairs(problems) do note(nil, message) end
  end
  if values.config then
    local problems, message = models:add_config(values.config, values.config_interval)
    for _, each in ipairs(problems or { message }) do note(nil, each) end
  end
  adopt(models, pool)
  state = { repository = models, app = application, pool = pool, watch = values.watch, scores = {} }
  state.clock = has_core and core.clock or ngx.now
  for name, each in pairs(values.scores or {}) do
    state.scores[name] = new_scorer(each, format("mlserve.nginx.init: scores.%s", tostring(name)))
  end
  if #errors > 0 then return nil, concat(errors, "\n") end
  return true
end

---------------------------------------------------------------------------------------------------------------------------
-- the worker: measures its models, then looks for new versions

local function measure_models()
  local pool = state.pool
  for model in pairs(pool.served) do
    local warning = pool:measure(model)
    if warning then log(ngx.WARN, "model '", model:model(), "' version ", model:version(), " ", warning) end
  end
end

local function describe(name, entry)
  local model = entry.servable
  if type(model) ~= "table" or not model.measured then return end
  log(ngx.NOTICE, format("model '%s' version %s: %s, %s", name, entry.version,
    model.cost and format("%.0f us a request", model.cost * 1e6) or "time of a request not known",
    model.inline_bytes >= 0 and format("bodies up to %d bytes in the event loop", model.inline_bytes)
    or state.pool.available and "in the thread pool" or "in the event loop, for want of a thread pool"))
end

--- Looks once for new versions; the timer of each worker does so.
---@return number seconds until it wants to look again
function M.poll()
  local models, before = state.repository, {}
  for _, name in ipairs(models:names()) do before[name] = models:get(name) end
  local delay = models:poll()
  adopt(models, state.pool)
  measure_models()
  for _, name in ipairs(models:names()) do
    local entry = models:get(name)
    if entry and entry ~= before[name] then describe(name, entry) end
  end
  state.pool:sweep(models)
  return min(max(delay, 0.005), state.watch, POLL_MOST)
end

local function turn(premature)
  if premature then return end
  local ok, delay = pcall(M.poll)
  if not ok then
    log(ngx.ERR, "looking for new versions: ", tostring(delay))
    delay = state.watch
  end
  local message
  ok, message = ngx.timer.at(delay, turn)
  if not ok and message ~= "process exiting" then log(ngx.ERR, "no timer, new versions will not be found: ", message) end
end

local function begin(premature)
  if premature then return end
  local pool, models = state.pool, state.repository
  local ok, message = pcall(function()
    if not pool:usable() and pool.reason then log(ngx.WARN, pool.reason, "; models run and load in the event loop") end
    pool:prepare()
    measure_models()
    for _, name in ipairs(models:names()) do
      local entry = models:get(name)
      if entry then describe(name, entry) end
    end
  end)
  if not ok then log(ngx.ERR, "measuring models: ", tostring(message)) end
  if state.watch > 0 then
    models.sleep = function(seconds) -- a request that loads a model must get to its end
      nginx_client.watch()
      ngx.sleep(seconds)
    end
    turn()
  end
end

--- Begins to measure models and to look for new versions; call it from init_worker_by_lua. Where it was not, the first request
--- of a worker does.
---@return boolean|nil ok
---@return string|nil message
function M.init_worker()
  if not state then return nil, "init was not called in init_by_lua" end
  if state.started or not ngx.worker.id() then return true end -- helper processes of nginx answer no requests
  state.started = true
  return ngx.timer.at(0, begin)
end

--- The repository of this worker, for programs that add models or routes of their own; nil before init.
function M.repository() return state and state.repository end

--- The application of this worker; nil before init.
function M.app() return state and state.app end

--- The body of the request, also when nginx has put it into a file.
---@return string|nil body
---@return string|nil message
function M.body()
  ngx.req.read_body()
  local body = ngx.req.get_body_data()
  if body then return body end
  local path = ngx.req.get_body_file()
  if not path then return "" end
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  body = file:read "*a"
  file:close()
  if not body then return nil, "cannot read " .. path end
  return body
end

-- Header fields are looked up when asked for: protocols ask for one or two, and a table of all costs more than a small model.
local variables = setmetatable({}, { -- "content-encoding" -> "http_content_encoding"; protocols ask for few different ones
  __index = function(names, name)
    local variable = "http_" .. gsub(name, "-", "_")
    names[name] = variable
    return variable
  end,
})
local headers_mt = { __index = function(_, name) return ngx.var[variables[name]] end }

-- The same few targets come again and again: how they split into path and query is kept, as long as they are few.
local targets, target_count = {}, 0
local function split_target(uri)
  local target = targets[uri]
  if target then return target[1], target[2] end
  local relative = gsub(uri, "^%a+://[^/?]*", "")
  local path, query = match(relative, "^([^?]*)%??(.*)$")
  if query == "" then query = nil end
  if target_count >= 256 then targets, target_count = {}, 0 end
  targets[uri], target_count = { path, query }, target_count + 1
  return path, query
end

---------------------------------------------------------------------------------------------------------------------------
-- gRPC: what follows the body. nginx sends the trailers that the configuration names, with what their variables hold in the end.

local trailer_variables = setmetatable({
  ["grpc-status"] = "grpc_status", ["grpc-message"] = "grpc_message", ["grpc-status-details-bin"] = "grpc_status_details_bin",
}, {
  __index = function(names, name) -- names are a program's own, and few
    local variable = "grpc_trailer_" .. gsub(name, "[^%w]", "_")
    names[name] = variable
    return variable
  end,
})

local NEEDS = "for gRPC the location needs `set $grpc_status \"\"; add_trailer grpc-status $grpc_status;`, and the same with grpc_message and "
  .. "grpc_status_details_bin"
local UNCONFIGURED = { status = 501, headers = { ["content-type"] = "text/plain; charset=utf-8" }, body = "gRPC is not configured at this location\n" }
local missing = {} -- trailers that the log has been told about

local function set_variable(name, value) ngx.var[trailer_variables[name]] = value end

local function set_status(trailers)
  local var = ngx.var
  var.grpc_status = trailers["grpc-status"]
  if trailers["grpc-message"] then var.grpc_message = trailers["grpc-message"] end
  if trailers["grpc-status-details-bin"] then var.grpc_status_details_bin = trailers["grpc-status-details-bin"] end
end

-- Metadata without a variable becomes header fields when these have not been sent.
local function set_trailers(trailers, fields)
  local ok, problem = pcall(set_status, trailers)
  if not ok then
    log(ngx.ERR, NEEDS, ": ", problem)
    return false
  end
  for name, value in pairs(trailers) do
    if sub(name, 1, 5) ~= "grpc-" and not pcall(set_variable, name, value) then
      if fields then fields[name] = value end
      if not missing[name] then
        missing[name] = true
        log(ngx.WARN, format("trailer '%s' is %s: the location lacks `set $%s \"\"; add_trailer %s $%s;`", name,
          fields and "sent as a header field" or "not sent", trailer_variables[name], name, trailer_variables[name]))
      end
    end
  end
  return true
end

---------------------------------------------------------------------------------------------------------------------------
-- streams: nginx gives the body of a request over HTTP/2 only as a whole, so a client is answered once it has said everything

local stream_methods = {}
local stream_mt = { __name = "mlserve.nginx.stream", __index = stream_methods }

local function send_fields(given)
  local fields = ngx.header
  for name, value in pairs(given or {}) do fields[name] = value end
end

function stream_methods:read()
  local body = self.body
  if self.client.gone then return nil, "cancelled" end
  self.body = nil
  if body and body ~= "" then return body end
  return nil, "end"
end

function stream_methods:write(bytes)
  if not self.started then
    self.started = true
    send_fields(self.headers)
  end
  if self.client.gone or not ngx.print(bytes) or not ngx.flush(true) then
    self.client.gone = true
    return nil, "cancelled"
  end
  return true
end

function stream_methods:wait(seconds)
  ngx.sleep(max(seconds, 0.001)) -- nginx's timers count milliseconds: less would not wait at all
  return self.client.gone and "cancelled" or "timeout"
end

---------------------------------------------------------------------------------------------------------------------------
-- requests

local function respond(response)
  local fields, body, trailers = ngx.header, response.body or "", response.trailers
  if trailers and not set_trailers(trailers, fields) then
    response = UNCONFIGURED
    body, trailers = response.body, nil
  end
  if response.status ~= 200 then ngx.status = response.status end
  if response.headers then
    for name, value in pairs(response.headers) do fields[name] = value end
  end
  if not trailers then
    if response.status ~= 204 then fields["content-length"] = #body end
    ngx.print(body)
  elseif body ~= "" then
    ngx.print(body)
  else -- no frame with the end of the stream before that of the trailers
    ngx.send_headers()
    ngx.eof()
  end
end

local function answer_stream(request)
  local client = nginx_client.watch()
  local stream = setmetatable({ body = request.body, client = client, headers = {}, started = false }, stream_mt)
  request.stream, request.body = stream, nil
  local response = state.app:handle(request)
  if not stream.started then return respond(response) end
  if client.gone then return end
  if response.body and response.body ~= "" then ngx.print(response.body) end
  if response.trailers then set_trailers(response.trailers) end
  ngx.eof()
end

local HANDLER_RULES = { prefix = { type = "string", default = "" } }

--- Answers the request of this location; call it from content_by_lua. `prefix` is cut off the path: with prefix = "/ml" the
--- location /ml/v1/ serves what the stand-alone server serves under /v1/.
---@param given? table prefix
function M.handler(given)
  local prefix = given and options.check(given, HANDLER_RULES, "mlserve.nginx.handler").prefix or ""
  local path, query = split_target(ngx.var.request_uri)
  local body, message = M.body()
  if sub(path, 1, #prefix) == prefix then path = sub(path, #prefix + 1) end
  if state and not state.started then M.init_worker() end
  if not state then
    log(ngx.ERR, "init was not called in init_by_lua")
    return respond { status = 503, body = "no models\n" }
  elseif not body then
    log(ngx.ERR, "request body: ", message)
    return respond { status = 500, body = "cannot read the request body\n" }
  end
  local application = state.app
  local request = {
    method = ngx.req.get_method(), path = path == "" and "/" or path, query = query,
    headers = setmetatable({}, headers_mt), body = body,
    peer = application.observer and application.observer.access_log and ngx.var.remote_addr or nil,
  }
  if application:streaming(request.method, request.path) then return answer_stream(request) end
  return respond(application:handle(request))
end

---------------------------------------------------------------------------------------------------------------------------
-- scoring in the access phase

M.features = features.numbers

local SCORE_RULES = {
  model = { type = "string", required = true },
  features = { type = "any" },
  version = { type = { "integer", "string" } },
  label = { type = "string" },
  output = { type = "string" },
  class = { type = "integer", min = 1 },
  budget = { type = "integer", min = 1 },
  fallback = { type = "any" },
  variable = { type = "string" },
  header = { type = "string" },
  deny = { type = "table" },
}

local DENY_RULES = {
  above = { type = "number" },
  below = { type = "number" },
  status = { type = "integer", min = 400, max = 599, default = 403 },
  body = { type = "string" },
}

-- The score in {"predictions": [[0.5]]}: found without building tables in the usual case of one number.
local function first_prediction(text, output, class)
  if not output and not class then
    local number = match(text, '^%s*{%s*"predictions"%s*:%s*%[%s*%[?%s*([%w.+-]+)%s*%]?%s*%]%s*}%s*$')
    if number then
      number = tonumber(number)
      if number and number == number and number ~= 1 / 0 and number ~= -1 / 0 then return number end
      return nil, "the score is not a finite number"
    end
  end
  local ok, document = pcall(require("cjson.safe").decode, text)
  local value = ok and type(document) == "table" and type(document.predictions) == "table" and document.predictions[1]
  if output then value = type(value) == "table" and value[output] end
  if class then value = type(value) == "table" and value[class]
  elseif type(value) == "table" and #value == 1 then value = value[1] end
  if type(value) ~= "number" and type(value) ~= "table" then return nil, "the model's answer holds no score" end
  return value
end

-- Answers {"instances": [row]} within what is left of the budget, and no later than that: text | nil, message.
local function predict(servable, body, budget)
  if not budget then return servable:predict_json(body) end
  local clock, pool = state.clock, state.pool
  local cost = type(servable) == "table" and servable.cost
  if cost and cost * 1e6 > budget then
    return nil, format("the model takes %.0f us, the budget is %d us", cost * 1e6, budget)
  end
  local start = clock()
  local text, message
  if type(servable) == "table" and servable.pool == pool and #body > servable.inline_bytes and pool:usable() then
    local in_time
    in_time, text, message = pool:within(max(budget * 1e-6, 0.001), servable.predict_json, servable, body) -- nginx's timers count ms
    if not in_time then return nil, format("the budget of %d us is exceeded", budget) end
  else
    text, message = servable:predict_json(body)
  end
  local took = (clock() - start) * 1e6
  if took > budget then return nil, format("the budget of %d us is exceeded: %.0f us", budget, took) end
  return text, message
end

local function score(self)
  if not state then return nil, "init was not called in init_by_lua" end
  if not state.started then M.init_worker() end
  local body, message = self.read(M.body)
  if not body then return nil, message end
  local values = self.values
  local entry, reason = state.repository:get(values.model, values.version, values.label)
  if not entry then return nil, format("model '%s': no such %s", values.model, reason) end
  local text
  text, message = predict(entry.servable, body, values.budget)
  if not text then return nil, message end
  return first_prediction(text, values.output, values.class)
end

local function as_text(value)
  if value == nil then return "" end
  return type(value) == "table" and concat(value, ",") or tostring(value)
end

-- Where the features come from, by what was given: a text, an array of numbers, or a specification.
local function reader_of(given, where)
  if type(given) == "string" then
    return function()
      local numbers, message = features.numbers(given)
      if not numbers then return nil, message end
      return features.row(numbers)
    end
  elseif type(given) ~= "table" then
    return function() return nil, "no features" end
  elseif features.is_row(given) then
    return function() return features.row(given) end
  end
  local ok, read = pcall(features.compile, given, where)
  if not ok then error(read, 0) end
  return read
end

-- options as a function() -> score | fallback, message
function new_scorer(given, where)
  local values = options.check(given, SCORE_RULES, where, 4)
  local deny = values.deny and options.check(values.deny, DENY_RULES, where .. ": deny", 4)
  if deny and not deny.above and not deny.below then error(where .. ": deny: one of above and below expected", 3) end
  local self = { values = values, read = reader_of(values.features, where) }
  local variable, header = values.variable, values.header
  return function()
    local value, message = score(self)
    if value == nil then value = values.fallback end
    if variable then ngx.var[variable] = as_text(value) end
    if header then ngx.req.set_header(header, value ~= nil and as_text(value) or nil) end -- also takes away what a client sent
    if deny and type(value) == "number" and (deny.above and value > deny.above or deny.below and value < deny.below) then
      if not deny.body then return ngx.exit(deny.status) end
      ngx.status = deny.status
      ngx.print(deny.body)
      return ngx.exit(ngx.HTTP_OK)
    end
    return value, message
  end
end

--- A function that scores the present request, for programs that keep it: options are checked once.
---@param given table options of `score`
---@return function
function M.scorer(given) return new_scorer(given, "mlserve.nginx.scorer") end

--- Scores the present request; for access_by_lua, rewrite_by_lua and the like. A single number where the model gives one, else
--- the array. Without a score the fallback decides in its place; without a fallback the request passes.
---@param given table|string name of one of `scores` of init, or: model; features: a list or table of what `nginx_features` knows,
--- an array of numbers, or a text for `features`; version or label; output: name of the output; class: index into it; budget:
--- microseconds; fallback: the score when there is none in time; variable: nginx variable that gets the score (must exist:
--- `set $NAME "";`); header: request header that gets it; deny = { above =, below =, status = 403, body = }
---@return number|table|any score the fallback (default nil) when something is missing
---@return string|nil message then: what
function M.score(given)
  if type(given) == "string" then
    local scorer = state and state.scores[given]
    if scorer then return scorer() end
    error(format("mlserve.nginx.score: '%s' is not among the scores of init", given), 2)
  end
  return new_scorer(given, "mlserve.nginx.score")()
end

return M
