--- What a server tells about itself: metrics in Prometheus' text format and an access log.
--
--   local watch = metrics.new { repository = models }    -- before any fork: the counters are shared
--   watch:attach(app)                                     -- counts every request of the app, adds GET /metrics
--
-- Counters live in memory that all workers share (csrc/serve/counters.h), so any worker answers for all. A name that a caller
-- invents never becomes a label: models and versions count under their names only while the repository knows them.
--
-- A response counts under its `outcome` where it has one: gRPC answers everything with status 200 and says later how it went.
--
-- Other parts feed series of their own: `watch:count("name", amount, model, version)`, `watch:observe`, or, in C,
-- ml_counters_series with the names of FAMILIES below.

local json = require "mlserve.serve.json"
local options = require "mlserve.options"
local textproto = require "mlserve.serve.textproto"

local concat, find, format, gmatch, gsub, match, sort, sub =
  table.concat, string.find, string.format, string.gmatch, string.gsub, string.match, table.sort, string.sub
local floor, huge = math.floor, math.huge
local ipairs, pairs, pcall, setmetatable, tonumber, tostring, type = ipairs, pairs, pcall, setmetatable, tonumber, tostring, type

local M = {}
local methods = {}
local mt = { __name = "mlserve.metrics", __index = methods }

local RULES = {
  repository = { type = "table", required = true },
  access_log = { type = "string" },
  path = { type = { "string", "boolean" }, default = "/metrics" },
  tensorflow_path = { type = { "string", "boolean" }, default = "/monitoring/prometheus/metrics" },
  slots = { type = "integer", min = 0, default = 0 },
  log = { type = "function", default = function() end },
  every = { type = "function" },
}

local HEADERS = { ["content-type"] = "text/plain; version=0.0.4; charset=utf-8" }
local STATES = { "START", "LOADING", "AVAILABLE", "UNLOADING", "END" }

-- Series besides those of requests: family -> kind, name and help in the exposition, TensorFlow Serving's name where it has one.
-- Their labels are model and version, each where it was given.
local FAMILIES = {
  batch_size = { kind = "size", name = "mlserve_batch_size", help = "Rows of the batches that were run.",
    tensorflow = ":tensorflow:serving:batching_session:processed_batch_size" },
  queue_seconds = { kind = "seconds", name = "mlserve_queue_seconds", help = "Time that requests waited to be run.",
    tensorflow = ":tensorflow:serving:batching_session:queuing_latency" },
  queue_length = { kind = "gauge", name = "mlserve_queue_length", help = "Requests that wait to be run." },
  queue_rejected = { kind = "count", name = "mlserve_queue_rejected_total", help = "Requests refused because the queue was full." },
  queue_expired = { kind = "count", name = "mlserve_queue_expired_total", help = "Requests dropped because their time was over." },
  access_log_lost = { kind = "count", name = "mlserve_access_log_lost_lines_total",
    help = "Lines of the access log that could not be written." },
}
M.FAMILIES = FAMILIES

---------------------------------------------------------------------------------------------------------------------------
-- counting

-- The label values a request counts under. What the repository does not know (any more) has no name.
local function labels_of(self, response)
  local model, version, verb = response.model, response.version, response.verb
  local entries = type(model) == "string" and self.repository:versions(model)
  local known = false
  for _, entry in ipairs(entries or {}) do known = known or entry.version == version end
  return entries and model or "", known and version or "", type(verb) == "string" and match(verb, "^%l[%l_]*$") and #verb <= 32
    and verb or ""
end

local function child(tree, key)
  local found = tree[key]
  if not found then
    found = {}
    tree[key] = found
  end
  return found
end

-- The series of a response that was not seen before. It is remembered when its labels are the ones the response asked for;
-- invented names are looked up anew each time, so that they take no memory.
local function new_series(self, response)
  local status, code = response.outcome or response.status, response.code
  local model, version, verb = labels_of(self, response)
  if type(status) ~= "number" or status < 100 or status > 999 or status ~= floor(status) then status, code = 500, nil end
  if type(code) ~= "string" or not find(code, "^%u[%u_]*$") then code = nil end
  local series = self.counters:series("requests", concat({ model, version, verb, format("%d", status),
    code or "" }, "\0"))
  if (response.model or "") == model and (response.version or "") == version and (response.verb or "") == verb then
    child(child(child(self.known, model), version), verb)[code or response.outcome or status] = series
  end
  return series
end

local NO_RESPONSE = { status = 500 }

-- JSON strings of texts that come again are kept, as long as they are few.
local strings, string_count = {}, 0
local function json_string(text)
  local found = strings[text]
  if found then return found end
  found = json.string(sub(tostring(text), 1, 1024))
  if #found > 256 then return found end
  if string_count >= 512 then strings, string_count = {}, 0 end
  strings[text], string_count = found, string_count + 1
  return found
end

local function log_request(self, request, response, seconds, bytes_in, bytes_out)
  local peer, model, version, verb = request.peer, response.model, response.version, response.verb
  if self.every and not self.ticking then
    self.ticking = true
    self.every(function() self:tick() end)
  end
  self.access_log:add((peer and '"peer":' .. json_string(peer) .. "," or "") .. '"method":' .. json_string(request.method or "-")
    .. ',"path":' .. json_string(request.path or "-") .. ',"status":' .. (tonumber(response.outcome or response.status) or 500)
    .. (model and ',"model":' .. json_string(model) or "") .. (version and ',"version":' .. json_string(version) or "")
    .. (verb and ',"verb":' .. json_string(verb) or "")
    .. format(',"request_bytes":%d,"response_bytes":%d,"seconds":%.6f}', bytes_in, bytes_out, seconds))
end

-- What an application calls before and after each request (app:observe), as plain functions: they are called often.
local function observe(self)
  local finish, known, access_log
  self.begin, finish = self.counters:functions()
  known, access_log = self.known, self.access_log
  self.finish = function(request, response, begun)
    if type(response) ~= "table" then response = NO_RESPONSE end
    local body, body_in, body_out = request.body, 0, 0
    if body then body_in = #body end
    body = response.body
    if type(body) == "string" then body_out = #body end
    -- labels that come again are found by four look-ups
    local series = known[response.model or ""]
    series = series and series[response.version or ""]
    series = series and series[response.verb or ""]
    series = series and series[response.code or response.outcome or response.status] or new_series(self, response)
    local seconds = finish(series, begun, body_in, body_out)
    if access_log then log_request(self, request, response, seconds, body_in, body_out) end
  end
end

local UNREAD = { method = "-", path = "-" }

--- A transport refused something that did not become a request.
---@param status integer
---@param peer? string
function methods:refused(status, peer)
  self.finish(peer and { method = "-", path = "-", peer = peer } or UNREAD, { status = status }, self.begin())
end

local function family_series(self, family, model, version)
  local rule = FAMILIES[family]
  if not rule then error(format("metrics: unknown family '%s'", tostring(family)), 3) end
  return self.counters:series(rule.kind, concat({ family, model, version }, "\0"))
end

--- Adds to a counter or gauge of FAMILIES.
---@param family string
---@param amount number negative only for gauges
---@param model? string
---@param version? string
function methods:count(family, amount, model, version)
  self.counters:add(family_series(self, family, model, version), amount)
end

--- Counts a value in a histogram of FAMILIES.
---@param family string
---@param value number seconds, or a size
---@param model? string
---@param version? string
function methods:observe(family, value, model, version)
  local series = family_series(self, family, model, version)
  self.counters:observe(series, FAMILIES[family].kind == "seconds" and value * 1e9 or value)
end

--- Counts what the batches of a servable do, when its requests are merged (mlserve.serve.batching).
---@param servable any
function methods:feed(servable)
  if not servable.count_in or not servable:batched() then return end
  local ok, message = servable:count_in(self.counters)
  if not ok then self.log("warn", "metrics: " .. message) end
end

---------------------------------------------------------------------------------------------------------------------------
-- the text

local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

local function quoted(value) return '"' .. gsub(value, '[\\"\n]', ESCAPES) .. '"' end

-- { "model", "m", "version", "1" } -> {model="m",version="1"}
local function label_text(pairs_)
  local items = {}
  for i = 1, #pairs_, 2 do items[#items + 1] = pairs_[i] .. "=" .. quoted(pairs_[i + 1]) end
  return #items > 0 and "{" .. concat(items, ",") .. "}" or ""
end

local function number_text(value)
  if value == huge then return "+Inf" end
  if value == floor(value) and value < 1e15 and value > -1e15 then return format("%.0f", value) end
  return format("%.13g", value)
end

local writer_methods = {}
local writer_mt = { __index = writer_methods }

function writer_methods:head(name, kind, help)
  local lines = self.lines
  if help then lines[#lines + 1] = "# HELP " .. name .. " " .. help end
  lines[#lines + 1] = "# TYPE " .. name .. " " .. kind
end

function writer_methods:sample(name, labels, value)
  self.lines[#self.lines + 1] = name .. (labels == "" and self.no_labels or labels) .. " " .. number_text(value)
end

-- A histogram; scale turns bounds and sum into the unit of the name.
function writer_methods:histogram(name, labels, sample, bounds, scale)
  local inner, cumulative = labels == "" and "{" or sub(labels, 1, -2) .. ",", 0
  for i = 1, #bounds + 1 do
    cumulative = cumulative + sample.buckets[i]
    self:sample(name .. "_bucket", format('%sle="%s"}', inner, bounds[i] and format("%g", bounds[i] * scale) or "+Inf"), cumulative)
  end
  self:sample(name .. "_sum", labels, sample.sum * scale)
  self:sample(name .. "_count", labels, cumulative)
end

-- Sums of samples by what key_of(sample) says, in the order of the keys; nil leaves a sample out.
local function grouped(samples, key_of)
  local groups, keys = {}, {}
  for _, sample in ipairs(samples) do
    local key = key_of(sample)
    local group = key and groups[key]
    if key and not group then
      group = { fields = sample.fields, sum = 0, count = 0, bytes_in = 0, bytes_out = 0, buckets = sample.buckets and {} }
      groups[key], keys[#keys + 1] = group, key
    end
    if group then
      group.sum, group.count = group.sum + sample.sum, group.count + sample.count
      group.bytes_in, group.bytes_out = group.bytes_in + sample.bytes_in, group.bytes_out + sample.bytes_out
      for i, n in ipairs(sample.buckets or {}) do group.buckets[i] = (group.buckets[i] or 0) + n end
    end
  end
  sort(keys)
  local i = 0
  return function()
    i = i + 1
    return groups[keys[i]]
  end
end

-- Samples with their names taken apart: requests -> model, version, verb, status, code (of protocols that say one: TensorFlow
-- Serving's); others -> family, model, version.
local OTHER = { requests = { "<other>", "<other>", "<other>", "<other>", "<other>" } }
local function read(self)
  local requests, others = {}, {}
  for _, sample in ipairs(self.counters:samples()) do
    local fields = {}
    for field in gmatch(sample.name .. "\0", "(%Z*)%z") do fields[#fields + 1] = field end
    if sample.name == "" then fields = OTHER[sample.kind] or {} end
    sample.fields = fields
    local list = sample.kind == "requests" and requests or others
    list[#list + 1] = sample
  end
  return requests, others
end

local function by(...)
  local indices = { ... }
  return function(sample)
    local key = {}
    for i, index in ipairs(indices) do key[i] = sample.fields[index] end
    return concat(key, "\0")
  end
end

local function family_labels(fields)
  local labels = {}
  if fields[2] then labels[1], labels[2] = "model", fields[2] end
  if fields[3] then labels[3], labels[4] = "version", fields[3] end
  return label_text(labels)
end

local function write_family(self, out, family, rule, name, others, scale)
  local seen
  for group in grouped(others, function(sample) return sample.fields[1] == family and sample.kind == rule.kind and sample.name end) do
    if not seen then out:head(name, group.buckets and "histogram" or rule.kind == "gauge" and "gauge" or "counter", out.help and rule.help) end
    seen = true
    if group.buckets then out:histogram(name, family_labels(group.fields), group, self.bounds[rule.kind], scale)
    else out:sample(name, family_labels(group.fields), group.sum) end
  end
end

local function sorted(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  sort(keys)
  return keys
end

local function write_models(self, out)
  local states, errors = {}, {}
  for _, name in ipairs(self.repository:names()) do
    for _, entry in ipairs(self.repository:versions(name) or {}) do
      local failed = entry.error_code ~= nil and entry.error_code ~= "OK"
      if entry.state ~= "END" or failed then states[#states + 1] = { name, entry } end -- what was unloaded is history
      if failed then errors[#errors + 1] = { name, entry } end
    end
  end
  out:head("mlserve_model_state", "gauge", "1 for the state that a version of a model is in.")
  for _, each in ipairs(states) do
    for _, state in ipairs(STATES) do
      out:sample("mlserve_model_state", label_text { "model", each[1], "version", each[2].version, "state", state },
        each[2].state == state and 1 or 0)
    end
  end
  out:head("mlserve_model_load_error", "gauge", "1 for each version that could not be loaded.")
  for _, each in ipairs(errors) do
    local message = gsub(sub(tostring(each[2].error_message), 1, 300), "[^\32-\126]", "?")
    out:sample("mlserve_model_load_error", label_text { "model", each[1], "version", each[2].version,
      "code", each[2].error_code, "message", message }, 1)
  end
end

local function write_requests(self, out, requests)
  local bounds = self.bounds.requests
  out:head("mlserve_requests_total", "counter", "Requests answered.")
  for group in grouped(requests, by(1, 2, 3, 4)) do
    local f = group.fields
    out:sample("mlserve_requests_total", label_text { "model", f[1], "version", f[2], "verb", f[3], "code", f[4] }, group.count)
  end
  local function labels(f) return label_text { "model", f[1], "version", f[2], "verb", f[3] } end
  out:head("mlserve_request_seconds", "histogram", "Time from the complete request to the complete answer.")
  for group in grouped(requests, by(1, 2, 3)) do out:histogram("mlserve_request_seconds", labels(group.fields), group, bounds, 1e-9) end
  out:head("mlserve_request_bytes_total", "counter", "Bytes of request bodies, as the protocol saw them.")
  for group in grouped(requests, by(1, 2, 3)) do out:sample("mlserve_request_bytes_total", labels(group.fields), group.bytes_in) end
  out:head("mlserve_response_bytes_total", "counter", "Bytes of response bodies.")
  for group in grouped(requests, by(1, 2, 3)) do out:sample("mlserve_response_bytes_total", labels(group.fields), group.bytes_out) end
end

local function write_processes(self, out)
  local list, in_flight, resident = self.counters:processes(), 0, 0
  for _, process in ipairs(list) do
    in_flight, resident = in_flight + process.in_flight, resident + process.resident_bytes
  end
  out:head("mlserve_requests_in_flight", "gauge", "Requests being answered, the one for this page included.")
  out:sample("mlserve_requests_in_flight", "", in_flight)
  out:head("mlserve_processes", "gauge", "Worker processes that have answered requests and live.")
  out:sample("mlserve_processes", "", #list)
  out:head("process_start_time_seconds", "gauge", "Start of the server, in seconds since the epoch.")
  out:sample("process_start_time_seconds", "", self.counters:started())
  out:head("process_resident_memory_bytes", "gauge",
    "Memory of the worker processes, added up: what they share counts once for each.")
  out:sample("process_resident_memory_bytes", "", resident)
end

local function write_tensorflow(self, out, requests, others)
  local counted = {}
  for _, sample in ipairs(requests) do
    if sample.fields[5] ~= "" then counted[#counted + 1] = sample end
  end
  out:head(":tensorflow:serving:request_count", "counter")
  for group in grouped(counted, by(1, 5)) do
    out:sample(":tensorflow:serving:request_count", label_text { "model_name", group.fields[1], "status", group.fields[5] }, group.count)
  end
  out:head(":tensorflow:serving:request_latency", "histogram")
  for group in grouped(counted, function(sample)
    local f = sample.fields
    return f[5] == "OK" and f[1] .. "\0" .. f[3]
  end) do
    out:histogram(":tensorflow:serving:request_latency", label_text { "model_name", group.fields[1], "API", group.fields[3],
      "entrypoint", "REST" }, group, self.bounds.requests, 1e-3)
  end
  for _, family in ipairs(sorted(FAMILIES)) do
    local rule = FAMILIES[family]
    if rule.tensorflow then write_family(self, out, family, rule, rule.tensorflow, others, rule.kind == "seconds" and 1e-3 or 1) end
  end
end

local function new_writer(no_labels, help) return setmetatable({ lines = {}, no_labels = no_labels, help = help }, writer_mt) end

--- The text for /metrics.
---@param with_tensorflow? boolean TensorFlow Serving's names as well, before ours
---@return string
function methods:text(with_tensorflow)
  local requests, others = read(self)
  local out = new_writer("{}", false)
  if with_tensorflow then write_tensorflow(self, out, requests, others) end
  out.no_labels, out.help = "", true
  write_requests(self, out, requests)
  for _, family in ipairs(sorted(FAMILIES)) do
    write_family(self, out, family, FAMILIES[family], FAMILIES[family].name, others, FAMILIES[family].kind == "seconds" and 1e-9 or 1)
  end
  write_models(self, out)
  write_processes(self, out)
  out:head("mlserve_info", "gauge", "The version of the program.")
  out:sample("mlserve_info", label_text { "version", require("mlserve.core")._VERSION }, 1)
  out.lines[#out.lines + 1] = ""
  return concat(out.lines, "\n")
end

---------------------------------------------------------------------------------------------------------------------------
-- access log

local function note(self, ok, message)
  local lost = self.access_log:lost()
  if lost > 0 then self:count("access_log_lost", lost) end
  if not ok and not self.log_failed then self.log("error", message) end -- once, not every second
  self.log_failed = not ok
  return ok
end

--- Writes what was logged; call it every second and at the end. A log that was moved away is begun anew.
function methods:tick()
  if self.access_log then note(self, self.access_log:flush()) end
end

--- Begins the access log anew, as after a rotation.
function methods:reopen()
  if self.access_log then note(self, self.access_log:reopen()) end
end

---------------------------------------------------------------------------------------------------------------------------

--- Counts every request of an app and adds the routes. Attach after the protocols: routes are tried in order.
---@param app table
---@return table self
function methods:attach(app)
  local function route(path, with_tensorflow)
    app:route("GET", "^" .. gsub(path, "%W", "%%%0") .. "$", function()
      return { status = 200, headers = HEADERS, body = self:text(with_tensorflow), verb = "metrics" }
    end)
  end
  app:observe(self)
  for name, with_tensorflow in pairs { path = false, tensorflow_path = true } do
    local path = self[name]
    if path == true then path = RULES[name].default end
    if path then route(path, with_tensorflow) end
  end
  return self
end

--- Makes counters and log. Fork afterwards, not before.
---@param given table repository; access_log: path, "-" is standard output; path and tensorflow_path of the page (false: none);
--- log: function(level, message); every: function(f) that has f called each second, where the transport does not call `tick`;
--- slots: series over all processes
---@return table|nil metrics
---@return string|nil message
function M.new(given)
  local values = options.check(given, RULES, "metrics.new")
  local there, core = pcall(require, "mlserve.core")
  local counters, access_log, message, times
  if not there then return nil, "no metrics: " .. tostring(core) end
  counters, message = core.counters(values.slots)
  if not counters then return nil, message end
  if values.access_log then
    access_log, message = core.line_log(values.access_log)
    if not access_log then return nil, message end
  end
  times = core.counters_bounds "seconds"
  for i = 1, #times do times[i] = 1e4 * 1.8 ^ (i - 1) end -- as they are written; the core's are cut to whole nanoseconds
  local self = setmetatable({
    counters = counters, access_log = access_log, repository = values.repository, log = values.log, every = values.every,
    path = values.path, tensorflow_path = values.tensorflow_path, known = {},
    bounds = { requests = times, seconds = times, size = core.counters_bounds "size" },
  }, mt)
  observe(self)
  return self
end

local WATCH_RULES = { path = RULES.path, tensorflow_path = RULES.tensorflow_path }

--- What a server's options `metrics` and `access_log` ask for, attached to its app.
---@param app table
---@param repository table
---@param given boolean|table false: no metrics; else { path, tensorflow_path }, true for the usual ones
---@param access_log? string
---@param log function
---@param every? function
---@return table|boolean|nil metrics true: nothing was asked for
---@return string|nil message
function M.watch(app, repository, given, access_log, log, every)
  if not given and not access_log then return true end
  local values = options.check(type(given) == "table" and given or {}, WATCH_RULES, "metrics", 4)
  local self, message = M.new {
    repository = repository, access_log = access_log, log = log, every = every, path = given and values.path,
    tensorflow_path = given and values.tensorflow_path,
  }
  if not self then return nil, message end
  return self:attach(app)
end

local MONITORING = {
  prometheus_config = { type = "message", fields = { enable = { type = "bool" }, path = { type = "string" } } },
}

--- What TensorFlow Serving's monitoring_config_file says: `prometheus_config { enable: true, path: "/…" }`.
---@param text string
---@param what? string where it comes from, for messages
---@return table|nil config { enable, path }
---@return string|nil message
function M.parse_config(text, what)
  local parsed, message = textproto.parse(text, MONITORING, what)
  if not parsed then return nil, message end
  local config = parsed.prometheus_config or {}
  if config.path and sub(config.path, 1, 1) ~= "/" then
    return nil, format("%s: prometheus_config: path: \"/PATH\" expected, got \"%s\"", what or "text", config.path)
  end
  return { enable = config.enable or false, path = config.path }
end

--- The same from a file.
---@param path string
---@return table|nil config
---@return string|nil message
function M.read_config(path)
  local file, message = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  if not text then return nil, format("monitoring config file '%s': %s", path, message or "cannot be read") end
  return M.parse_config(text, path)
end

return M
