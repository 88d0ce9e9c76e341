--- The model server: models, protocols and a transport put together.
--
--   local server = mlserve.server { rest = { port = 8501 } }
--   server:add_model("cancer", model)
--   server:run()                                    -- until SIGTERM or SIGINT
--
-- Everything it has to say goes line by line to `log` (default: standard output, problems to standard error).

local app = require "mlserve.serve.app"
local batching = require "mlserve.serve.batching"
local core = require "mlserve.core"
local example = require "mlserve.serve.example"
local grpc_services = require "mlserve.serve.protocols.grpc_services"
local kserve = require "mlserve.serve.protocols.kserve"
local metrics = require "mlserve.serve.metrics"
local openapi = require "mlserve.serve.openapi"
local options = require "mlserve.options"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

local format, ipairs, pairs, pcall, tostring = string.format, ipairs, pairs, pcall, tostring

local RULES = {
  rest = { type = "table", position = 1 },
  grpc = { type = { "boolean", "table" } },
  tls = { type = "table" },
  log = { type = "function" },
  limits = { type = "table" },
  admin = { type = "boolean", default = false },
  batching = { type = { "string", "table" } },
  metrics = { type = { "boolean", "table" }, default = true },
  access_log = { type = "string" },
  reload = { type = "function" },
  scan_interval = { type = "number", min = 0 },
  warm_up = { type = "integer", min = 0, max = 1000000, default = 1 },
  retries = { type = "integer", min = 0 },
  retry_interval = { type = "number", min = 0 },
}

local REST_RULES = {
  host = { type = "string", default = "127.0.0.1" },
  port = { type = { "integer", "boolean" }, min = 0, max = 65535, default = 8501 }, -- false: no TCP
  cors = { type = "boolean", default = false },
  compression = { type = "table" },
  workers = { type = "integer", min = 1, max = 256, default = 1 },
  unix_socket = { type = "string" },
  unix_mode = { type = "string" },
  socket_activation = { type = "boolean" },
  max_connections = { type = "integer", min = 1 },
  refuse_connections = { type = "boolean" },
  max_body = { type = "number", min = 0 },
  max_buffered = { type = "number", min = 0 },
  max_head = { type = "integer", min = 16, max = 32768 },
  max_fields = { type = "integer", min = 1, max = 100 },
  head_timeout = { type = "number", min = 0 },
  body_timeout = { type = "number", min = 0 },
  idle_timeout = { type = "number", min = 0 },
  write_timeout = { type = "number", min = 0 },
  drain_timeout = { type = "number", min = 0 },
}

local FRESH = 0.5 -- seconds that a new worker waits for a version that has just been copied

local GRPC_RULES = {
  port = { type = { "integer", "boolean" }, min = 0, max = 65535, default = 8500 }, -- false: none of its own
  max_message = { type = "number", min = 1 },
  max_response = { type = "number", min = 1 },
  compress_from = { type = "number", min = 0 },
  cors = { type = { "boolean", "string", "table" } },
  tensor_content = { type = "boolean" },
  web = { type = "boolean" },
}

local TLS_RULES = { cert = { type = "string" }, key = { type = "string" }, client_ca = { type = "string" }, config = { type = "string" } }

-- Loaded when it is needed: a program that only puts an application together has no use for an event loop.
local function part(name) return require("mlserve.serve.transports." .. name) end

-- what the transport is told; the rest is for `start`
local LIMITS = {
  "max_connections", "refuse_connections", "max_body", "max_buffered", "max_head", "max_fields", "head_timeout", "body_timeout", "idle_timeout",
  "write_timeout", "drain_timeout",
}

local methods = {}
local mt = { __name = "mlserve.server", __index = methods }

function mt:__tostring()
  return format("mlserve.server{models=%d, %s}", #self.repository:names(), self:address() or "not listening")
end

local function default_log(level, message)
  local file = (level == "error" or level == "warn") and io.stderr or io.stdout
  file:write(message, "\n")
  file:flush()
end

-- Refused requests and dropped connections are told only to a log function of the program's own.
local function transport_log(self)
  return function(level, message)
    if self.own_log or level ~= "info" then self.log(level, message) end
  end
end

-- One half of a signature as the core wants it: public name -> the graph's name. A single value needs no graph name.
local function graph_names(half, values)
  local mapped, single = {}, #values == 1 and next(half, (next(half))) == nil and values[1].name
  for name, given in pairs(half) do
    mapped[name] = type(given) == "string" and given or type(given) == "table" and given.name or single or name
  end
  return mapped
end

local function servable_of(name, model, signature, version)
  local given = { model = name, version = tonumber(version or 1) }
  if signature then
    given.signatures = { serving_default = {
      inputs = graph_names(signature.inputs or {}, model:inputs()),
      outputs = graph_names(signature.outputs or {}, model:outputs()),
      method_name = signature.method_name,
    } }
  end
  return model:servable(given)
end

-- How a model's requests run, and who counts it.
local function prepare(self, servable, name, directory)
  local report, message = self.batching:apply(servable, name, directory)
  if self.app.observer then self.app.observer:feed(servable) end
  return report, message
end

--- Serves a model of this program.
---@param name string letters, digits, ".", "_", "-"
---@param model table|userdata a model (with servable(options), inputs() and outputs()) or a servable
---@param signature? table { inputs = { name = { name = the graph's } }, outputs = … }: the names callers use, each with the
--- graph's name unless there is only one; default: the graph's names
---@param version? number default 1
---@return table self
function methods:add_model(name, model, signature, version)
  local kind = type(model)
  if kind ~= "table" and kind ~= "userdata" then
    error(format("add_model: argument 2: model expected, got %s", kind), 2)
  end
  local servable = model
  if model.servable then
    local ok, message
    ok, servable, message = pcall(servable_of, name, model, signature, version)
    if not ok then servable, message = nil, servable end
    if not servable then error(format("add_model: model '%s': %s", tostring(name), tostring(message)), 2) end
  elseif not model.predict_json then
    error("add_model: argument 2: a model or a servable expected", 2)
  end
  if servable.batching and servable.batched and not servable:batched() then prepare(self, servable, name) end
  local ok, message = pcall(self.repository.add_model, self.repository, name, servable, version)
  if not ok then error("add_model: " .. tostring(message), 2) end
  return self
end

--- Serves versions under <base>/<version>/model.onnx: the newest, and newer ones as they appear.
---@param given? table policy, labels: see repository:add_directory
---@return boolean|nil ok
---@return string|nil message what could not be served and why; status requests tell it too
function methods:add_directory(name, base, given)
  return self.repository:add_directory(name, base, given)
end

--- Serves every model under <base>/<name>/<version>/model.onnx, and others as they appear.
---@return number count
---@return table errors
function methods:add_directories(base)
  return self.repository:add_root(base)
end

--- Serves the models of a configuration file; see mlserve.serve.config.
---@param path string
---@param interval? number seconds between looks whether the file has changed; 0: none
---@return table|nil errors
---@return string|nil message
function methods:add_config(path, interval)
  return self.repository:add_config(path, interval)
end

--- "http://127.0.0.1:8501" once listening; nil without a TCP port.
---@return string|nil
function methods:address()
  return self.listeners and self.listeners:url()
end

--- The port for gRPC once listening; nil without one.
---@return integer|nil
function methods:grpc_port()
  return self.listeners and self.listeners:grpc_port()
end

local function new_transport(self)
  local given = {
    app = self.app, log = transport_log(self), listeners = self.listeners, processes = self.rest.workers, tls = self.tls,
  }
  for _, name in ipairs(LIMITS) do given[name] = self.rest[name] end
  return part("http").new(given)
end

local function announce(self)
  local address = self:address() or "--unix-socket " .. tostring(self.rest.unix_socket) .. " http://localhost"
  self.log("info", "listening on " .. self.listeners:describe())
  for _, name in ipairs(self.repository:names()) do
    local entry = self.repository:get(name)
    if entry then
      self.log("info", format("model %s version %s: %s", name, entry.version, example.curl(address, name, entry.servable)))
    else
      for _, version in ipairs(self.repository:versions(name) or {}) do
        self.log("warn", format("model %s version %s is not served: %s", name, version.version, version.error_message))
      end
    end
  end
end

-- Follows the directories in the loop of a transport, until that has stopped. After a fork: in the process that serves.
local function watch(self)
  local models, transport = self.repository, self.transport
  local cqueues = require "cqueues"
  local wake = require("cqueues.condition").new()
  models.sleep, self.look_now = cqueues.sleep, function() wake:signal() end
  transport.controller:wrap(function()
    while not transport.drained do
      local delay = models:poll()
      local waiting = models:pollables()
      waiting[#waiting + 1] = transport.done_condition
      waiting[#waiting + 1] = wake
      waiting[#waiting + 1] = delay
      cqueues.poll((unpack or table.unpack)(waiting)) -- luacheck: ignore
    end
  end)
end

--- Binds the port and says so; `run`, or `step` in a loop of the program's own, then serves.
---@return boolean|nil ok
---@return string|nil message
function methods:start()
  if self.listeners then return true end
  if not self.rest.port and not self.rest.unix_socket then return nil, "neither a port nor a Unix socket to listen at" end
  local rest = self.rest
  if self.tls then -- the files are looked at before anything is bound; workers read them again
    local context, problem = part("tls").context(self.tls)
    if not context then return nil, problem end
  end
  local opened, message = part("listeners").open {
    host = rest.host, port = rest.port, unix_socket = rest.unix_socket, unix_mode = rest.unix_mode,
    activation = rest.socket_activation, grpc_port = self.grpc and self.grpc.port or nil, secure = self.tls ~= nil,
  }
  if not opened then return nil, message end
  self.listeners = opened
  if rest.workers == 1 then
    local transport = new_transport(self)
    local ok
    ok, message = transport:listen()
    if not ok then
      opened:remove()
      self.listeners = nil
      return nil, message
    end
    self.transport = transport
    watch(self)
  end
  announce(self)
  return true
end

--- Reads again what the server was made from: calls the option `reload`, or reads the configuration file and looks at all directories. SIGHUP does this
--- while `run` runs. What has changed is then loaded by a thread of the process that serves; in one that does not serve, as the parent of several
--- workers, now.
---@return boolean|nil ok
---@return string|nil message
function methods:reload()
  local models = self.repository
  local ok, message
  if self.tls then
    if self.transport then ok, message = self.transport:reload_tls() else ok, message = part("tls").context(self.tls) end
    if not ok then return nil, message end
  end
  if self.reload_hook then ok, message = self.reload_hook(self) else ok, message = models:reload() end
  if not ok then return nil, message end
  if self.look_now then
    self.look_now()
  else
    for _, problem in ipairs(models:load_changes()) do self.log("warn", "reload: " .. problem) end
  end
  return true
end

-- The parent's models may be old: a worker that takes the place of another one must not answer with what that one had replaced long ago.
local function catch_up(self)
  local cqueues = require "cqueues"
  local finish = cqueues.monotime() + FRESH
  while select(2, self.repository:load_changes()) and cqueues.monotime() < finish do cqueues.sleep(FRESH / 10) end
end

-- In each worker: what belongs to a process, not to the parent it comes from.
local function work(self, slot, threads, ready)
  local transport, ok, message
  self.worker = slot
  core.set_threads(threads)
  transport = new_transport(self)
  ok, message = transport:listen()
  if not ok then return nil, message end
  self.transport = transport
  catch_up(self)
  watch(self)
  return transport:run { worker = true, ready = ready }
end

local function run_workers(self)
  local workers = self.rest.workers
  local threads = math.max(1, math.floor(core.threads() / workers))
  local ok, message = part("prefork").new({
    workers = workers, drain_timeout = self.rest.drain_timeout, log = self.log,
    work = function(slot, ready) return work(self, slot, threads, ready) end,
    reload = function() return self:reload() end,
    stopping = function() self.listeners:remove() end,
  }):run()
  self.listeners:remove()
  return ok, message
end

--- Serves until SIGTERM or SIGINT (answers what was asked, then returns true) or `stop`. With several workers, this process is
--- their parent.
---@return boolean|nil ok
---@return string|nil message
function methods:run()
  local ok, message = self:start()
  if not ok then return nil, message end
  if self.rest.workers > 1 then return run_workers(self) end
  local notify = part "notify"
  return self.transport:run {
    ready = function() notify.ready "serving" end,
    stopping = notify.stopping,
    reload = function()
      self.log("info", "SIGHUP: reloading")
      notify.reloading()
      local done, fine, problem = pcall(self.reload, self)
      if not done or not fine then
        self.log("error", "reload: " .. tostring(done and problem or fine) .. "; the old configuration goes on")
      end
      notify.ready "serving"
    end,
  }
end

--- One turn of the server's loop for programs that have their own; false when it has stopped.
---@param timeout? number seconds
function methods:step(timeout)
  if not self.transport then
    return nil, self.listeners and "several workers: call run instead of step" or "not started"
  end
  return self.transport:step(timeout)
end

--- Begins to stop; see transports.http.
function methods:stop()
  if self.transport then self.transport:stop() end
end

-- Compressed requests may be as large as plain ones.
local function compression_of(rest)
  local given = {}
  for name, value in pairs(rest.compression or {}) do given[name] = value end
  given.max_inflated = given.max_inflated or rest.max_body
  return given
end

-- Of the gRPC services, which both ports have.
local function grpc_options(self, admin)
  local given = {
    admin = admin, cors = self.rest.cors, log = self.log, stopping = function() return self.transport ~= nil and self.transport.stopping or false end,
  }
  for name, value in pairs(self.grpc or {}) do
    if name ~= "port" then given[name] = value end
  end
  return given
end

local M = {}

---@param given? table grpc = true or { port (default 8500; 0: any free one; false: none), max_message and max_response (bytes), compress_from (bytes), cors
--- (rest's), tensor_content, web (see mlserve.serve.protocols.grpc_services) }: a second port, which speaks the same as rest's;
--- tls = { cert, key, client_ca } or { config }, see transports.tls: for all ports, read again by `reload`;
--- rest = { host, port (0: any free one), workers, unix_socket, unix_mode, socket_activation, cors, compression
--- (see mlserve.serve.compress; a body may inflate to max_body bytes unless it says otherwise), and the limits of transports.http },
--- reload = function(server) -> true | nil, message for SIGHUP,
--- log = function(level, message), admin (true: clients may list, load and unload models through the v2 protocol),
--- batching = mode or table (see mlserve.serve.batching), metrics = false or { path, tensorflow_path } (see mlserve.serve.metrics),
--- access_log = path or "-" for standard output, limits (of models, see mlserve.model.load), scan_interval (seconds between looks at the
--- directories, 0: only at the start), warm_up (times that each warm-up request is run, 0: none), retries and retry_interval (seconds) of versions
--- that did not load
---@return table|nil server
---@return string|nil message
function M.new(given)
  local values = options.check(given, RULES, "mlserve.server")
  local rest = options.check(values.rest, REST_RULES, "mlserve.server: rest")
  if rest.port == true then error("mlserve.server: rest: option 'port': integer or false expected, got true", 2) end
  if values.admin and rest.workers > 1 then error("mlserve.server: option 'admin' needs one worker: each loads for itself only", 2) end
  local grpc, tls = values.grpc or nil, values.tls
  if grpc then grpc = options.check(grpc == true and {} or grpc, GRPC_RULES, "mlserve.server: grpc") end
  if grpc and grpc.port == true then error("mlserve.server: grpc: option 'port': integer or false expected, got true", 2) end
  if tls then tls = options.check(tls, TLS_RULES, "mlserve.server: tls") end
  local merging, problem = batching.config(values.batching)
  if not merging then error("mlserve.server: batching: " .. problem, 2) end
  local log = values.log or default_log
  local self
  local models = repository.new {
    limits = values.limits, admin = values.admin, scan_interval = values.scan_interval, warm_up = values.warm_up, log = log,
    retries = values.retries, retry_interval = values.retry_interval,
    prepare = function(servable, name, directory) return prepare(self, servable, name, directory) end,
  }
  self = setmetatable({
    grpc = grpc, tls = tls, rest = rest, reload_hook = values.reload, log = log, own_log = values.log ~= nil, repository = models,
    app = app.new { compression = compression_of(rest) },
    batching = merging,
  }, mt)
  self.app:mount(tfserving.routes(models, { cors = rest.cors }))
  self.app:mount(kserve.routes(models, { admin = values.admin }))
  grpc_services.mount(self.app, models, grpc_options(self, values.admin))
  local ok, message = metrics.watch(self.app, models, values.metrics, values.access_log, self.log)
  if not ok then return nil, message end
  openapi.mount(self.app)
  return self
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
