--- A client of model servers: TensorFlow Serving's protocol and KServe's v2 protocol (Open Inference Protocol), over REST from Lua 5.4, LuaJIT and
-- nginx, over gRPC from Lua outside of nginx.
--
--     local client = mlserve.client { url = "http://127.0.0.1:8501" }
--     local scores, message, code = client:predict("cancer", { { 17.9, 10.3, 122.8 } })
--
-- What predict takes and gives is what model:predict takes and gives: tensors, nested arrays, or a table of them by name. Calls may come from
-- several coroutines at once; within a cqueues loop or nginx they wait without blocking the others, elsewhere they block.
--
-- Misuse raises an error. What fails on the way, or at the server, gives nil, a message and a code: the server's names, NOT_FOUND,
-- INVALID_ARGUMENT, UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, DATA_LOSS (an answer that is none), ….
-- @module mlserve.client

local core = require "mlserve.core"
local http = require "mlserve.client.http"
local kserve = require "mlserve.client.kserve"
local options = require "mlserve.options"
local tfserving = require "mlserve.client.tfserving"

local format = string.format
local min = math.min
local error, ipairs, pairs, pcall, rawget, require, select, setmetatable, type = error, ipairs, pairs, pcall, rawget, require, select, setmetatable, type

local client = {}

---@class Client
local Client = {}
local class = { __index = Client, __name = "mlserve.client" }

local PROTOCOLS = { tfserving = tfserving, kserve = kserve, grpc = tfserving, ["grpc-kserve"] = kserve } -- whose options there are
local GRPC = { grpc = "mlserve.client.grpc_tfserving", ["grpc-kserve"] = "mlserve.client.grpc_kserve" }
local KNOWN_FOR = 60        -- seconds that a model's metadata are believed
local COMPRESS_FROM = 1024  -- bytes of a request from which compressing it is worth the time

local seconds = { type = "number", above = 0 }

local RULES = {
  url = { type = "string", required = true, position = 1 },
  protocol = { type = "string", choices = { "tfserving", "kserve", "grpc", "grpc-kserve" }, default = "tfserving" },
  timeout = { type = { "number", "table" }, above = 0, default = {} },
  retries = { type = { "table", "boolean" }, default = {} },
  pool = { type = "table", default = {} },
  headers = { type = "table" },
  tls = { type = "table", default = {} },
  compression = { type = "string", choices = { "gzip" } },
  binary = { type = "boolean", default = true },
  max_response = { type = "integer", min = 1, default = 256 * 1024 * 1024 },
}
local TIMEOUT_RULES = {
  connect = { type = "number", above = 0, default = 5 },
  request = { type = "number", above = 0, default = 30 },
}
local RETRY_RULES = {
  attempts = { type = "integer", min = 1, max = 100, default = 3 },
  backoff = { type = "number", min = 0, default = 0.05 },
  max_backoff = { type = "number", min = 0, default = 2 },
  jitter = { type = "boolean", default = true },
}
local POOL_RULES = { size = { type = "integer", min = 1, max = 65535, default = 16 }, idle = { type = "number", above = 0, default = 30 } }
local TLS_RULES = {
  verify = { type = "boolean", default = true },
  ca = { type = "string" }, cert = { type = "string" }, key = { type = "string" }, server_name = { type = "string" },
}

-- of every call
local CALL_RULES = { timeout = seconds, headers = { type = "table" } }
local which = { version = { type = { "string", "integer" }, min = 0 }, label = { type = "string" } }
local MODEL_RULES = options.merge(CALL_RULES, which)
local SIGNATURE_RULES = options.merge(MODEL_RULES, { signature = { type = "string" } })
local PREDICT_RULES = options.merge(SIGNATURE_RULES, {
  outputs = { type = "table" },
  format = { type = "string", choices = { "row", "column" } },
  dtypes = { type = { "string", "table" } },
  binary = { type = "boolean" },
  id = { type = "string" },
  parameters = { type = "table" },
})
local EXAMPLE_RULES = options.merge(SIGNATURE_RULES, { context = { type = "table" } })
local INDEX_RULES = options.merge(CALL_RULES, { ready = { type = "boolean" } })
local UNLOAD_RULES = options.merge(CALL_RULES, { unload_dependents = { type = "boolean" } })

local TF_ONLY = { "signature", "format", "dtypes" }
local KSERVE_ONLY = { "id", "parameters" }

---------------------------------------------------------------------------------------------------------------------------
-- making one

local function sockets(given, protocol)
  local ngx = rawget(_G, "ngx")
  local inside = type(ngx) == "table" and ngx.socket
  if GRPC[protocol] and inside then return nil, "gRPC is not spoken inside nginx: take protocol = 'tfserving' or 'kserve'" end
  if GRPC[protocol] then return require("mlserve.client.http2").new(given) end
  if inside then return require("mlserve.client.cosockets").new(given) end
  return require("mlserve.client.sockets").new(given)
end

-- The driver of a client that speaks gRPC: it asks with paths and messages.
local function over_grpc(self, driver)
  local channel = require("mlserve.client.grpc").channel(self.pool, self.endpoint, self.options)
  local function given_of(o)
    local whole = o.timeout or self.timeout
    local fields = {}
    for _, text in ipairs(self.grpc_fields) do fields[#fields + 1] = text end
    for _, text in ipairs(o.grpc_fields or {}) do fields[#fields + 1] = text end
    return { deadline = o.deadline or self.pool.now() + whole, seconds = whole, fields = fields, retries = self.retries }
  end
  self.channel, self.given_of = channel, given_of
  self.driver = require(driver).new(function(path, message, o, idempotent)
    local given = given_of(o)
    given.idempotent = idempotent
    return channel:unary(path, message, given)
  end)
  return self
end

--- Makes a client. Nothing is connected before the first call.
--- Options: url ("http://HOST:PORT", "https://…", a path in front of the protocol's allowed, or "unix:/PATH"), protocol ("tfserving", "kserve", or over
--- gRPC "grpc" (TensorFlow Serving's) and "grpc-kserve"),
--- timeout ({ connect = 5, request = 30 } in seconds, or one number: request; a request's is one for all its attempts and pauses), retries
--- ({ attempts = 3, backoff = 0.05, max_backoff = 2, jitter = true }, or false), pool ({ size = 16 connections at most, idle = 30 seconds }), headers
--- (of every request), tls ({ verify = true, ca, cert, key (PEM files), server_name }), compression ("gzip": of requests from 1 KiB on, and
--- wanted for answers), binary (KServe: tensors as bytes, default true; false: as JSON), max_response (bytes of an answer, default 256 MiB).
---@param given table
---@return Client|nil
---@return string|nil message
function client.new(given)
  local o = options.check(given, RULES, "client", 3)
  local endpoint, message, pool
  if o.retries == true then o.retries = {} end
  if type(o.timeout) == "number" then o.timeout = { request = o.timeout } end
  local timeout = options.check(o.timeout, TIMEOUT_RULES, "client: timeout", 3)
  local retries = options.check(o.retries or { attempts = 1 }, RETRY_RULES, "client: retries", 3)
  local pooling = options.check(o.pool, POOL_RULES, "client: pool", 3)
  local tls = options.check(o.tls, TLS_RULES, "client: tls", 3)
  endpoint, message = http.parse_url(o.url)
  if not endpoint then error(format("client: option 'url': %s, got '%s'", message, o.url), 2) end
  local driver = GRPC[o.protocol]
  local fields = driver and require("mlserve.client.grpc").metadata(o.headers, 3) or http.fields(o.headers, 3)
  pool, message = sockets({
    endpoint = endpoint, tls = endpoint.secure and tls or nil, connect_timeout = timeout.connect, idle_timeout = pooling.idle, size = pooling.size,
  }, o.protocol)
  if not pool then return nil, message end
  if driver then
    return setmetatable(over_grpc({
      options = o, protocol = PROTOCOLS[o.protocol], pool = pool, timeout = timeout.request, retries = retries, endpoint = endpoint, metadata_cache = {},
      grpc_fields = fields,
    }, driver), class)
  end
  local compression = o.compression and "accept-encoding: gzip\r\n" or ""
  return setmetatable({
    options = o, protocol = PROTOCOLS[o.protocol], pool = pool, timeout = timeout.request, retries = retries, endpoint = endpoint, metadata_cache = {},
    head = format("host: %s\r\nuser-agent: mlserve/%s\r\naccept: application/json, application/octet-stream\r\n%s%s", endpoint.authority, core._VERSION,
      compression, fields),
  }, class)
end

class.__tostring = function(self) return format("client of %s (%s)", self.options.url, self.options.protocol) end

--- Closes the connections; calls after this fail.
function Client:close() self.pool:close() end
class.__close = Client.close

---------------------------------------------------------------------------------------------------------------------------
-- requests

-- Asks; call: method, path, body, headers (of the protocol), idempotent, given (of the caller: timeout, fields; shown: the timeout in messages).
local function ask(self, call)
  local given = call.given
  local body, fields, timeout = call.body, "", given.timeout or self.timeout
  local deadline = self.pool.now() + timeout
  for name, value in pairs(call.headers or {}) do fields = fields .. name .. ": " .. value .. "\r\n" end
  fields = fields .. (given.fields or "")
  if body then
    if self.options.compression and #body >= COMPRESS_FROM then
      local smaller = require("mlserve.net").deflate("gzip", body, 1)
      if smaller and #smaller < #body then body, fields = smaller, fields .. "content-encoding: gzip\r\n" end
    end
    fields = fields .. format("content-length: %d\r\n", #body)
  end
  local path = self.endpoint.prefix .. call.path
  local request = format("%s %s HTTP/1.1\r\n", call.method, path) .. self.head .. fields .. "\r\n" .. (body or "")
  return http.request(self.pool, request, {
    deadline = deadline, seconds = given.shown or timeout, retries = self.retries, idempotent = call.idempotent, limit = self.options.max_response,
    where = format("%s %s", call.method, path),
  })
end

-- What the server refused with: nil, message, code.
local function refused(self, response)
  local text = self.protocol.error_text(response.body)
  if not text or text == "" then text = format("HTTP %d", response.status) end
  return nil, text, http.code(response.status)
end

local function successful(self, call)
  local response, message, code = ask(self, call)
  if not response then return nil, message, code end
  if response.status ~= 200 then return refused(self, response) end
  return response
end

local function get(self, path, given) return successful(self, { method = "GET", path = path, idempotent = true, given = given }) end

local function post(self, path, body, headers, given, idempotent)
  return successful(self, { method = "POST", path = path, body = body, headers = headers, idempotent = idempotent, given = given })
end

local JSON = { ["content-type"] = "application/json" }

local function check_model(model, where)
  if type(model) ~= "string" or model == "" then error(format("%s: the name of a model expected, got %s", where, type(model)), 3) end
end

-- Calls what raises without position, and gives its errors that of the caller's caller.
local function checked(where, f, ...)
  local ok, a, b, c = pcall(f, ...)
  if ok then return a, b, c end
  if type(a) == "string" and not a:find("^[^\n]-:%d+: ") then error(where .. ": " .. a, 3) end
  error(a, 0)
end

local function check_options(self, given, rules, where)
  local o = options.check(given, rules, where, 4)
  if o.version ~= nil and o.label ~= nil then error(where .. ": either version or label", 3) end
  if type(o.version) == "number" then o.version = format("%.0f", o.version) end
  if o.headers and self.driver then o.grpc_fields = require("mlserve.client.grpc").metadata(o.headers, 4)
  elseif o.headers then o.fields = http.fields(o.headers, 4) end
  if self.driver and (o.format or o.dtypes or o.binary ~= nil) then error(where .. ": options 'format', 'dtypes' and 'binary' are for REST", 3) end
  if self.driver then o.deadline = self.pool.now() + (o.timeout or self.timeout) end
  for _, name in ipairs(self.protocol == kserve and TF_ONLY or KSERVE_ONLY) do
    if o[name] ~= nil then error(format("%s: option '%s' is not part of protocol '%s'", where, name, self.options.protocol), 3) end
  end
  return o
end

---------------------------------------------------------------------------------------------------------------------------
-- metadata that we need ourselves

local function cache_key(model, o) return model .. "\0" .. (o.version or "") .. "\0" .. (o.label or "") .. "\0" .. (o.signature or "") end

--- The metadata of a model, remembered for a minute. For the protocols.
function Client:known_metadata(model, o)
  local key, now = cache_key(model, o), self.pool.now()
  local known = self.metadata_cache[key]
  if known and known.until_time > now then return known.metadata end
  local response, metadata, message, code
  if self.driver then
    metadata, message, code = self.driver:metadata(model, o)
  else
    response, message, code = get(self, self.protocol.metadata_path(model, o), { timeout = o.timeout, fields = o.fields })
    if not response then return nil, message, code end
    metadata, message, code = self.protocol.metadata_answer(response, o)
  end
  if not metadata then return nil, message, code end
  self.metadata_cache[key] = { metadata = metadata, until_time = now + KNOWN_FOR }
  return metadata
end

---------------------------------------------------------------------------------------------------------------------------
-- what a client can do

local function forget_metadata(self, model, o, code)
  if code == "INVALID_ARGUMENT" or code == "NOT_FOUND" then self.metadata_cache[cache_key(model, o)] = nil end -- perhaps it is another model now
end

local function predict(self, model, inputs, o)
  if self.driver then
    local outputs, message, code = self.driver:predict(self, model, inputs, o)
    if outputs == nil then forget_metadata(self, model, o, code) end
    return outputs, message, code
  end
  local started = self.pool.now()
  local path, body, headers = self.protocol.predict_request(self, model, inputs, o)
  if not path then return nil, body, headers end
  local whole = o.timeout or self.timeout
  local given = { fields = o.fields, timeout = whole - min(self.pool.now() - started, whole * 0.999), shown = whole } -- metadata may have been asked for
  local response, message, code = post(self, path, body, headers, given, true)
  if not response then
    forget_metadata(self, model, o, code)
    return nil, message, code
  end
  return self.protocol.predict_answer(self, model, inputs, o, response)
end

--- Predicts.
--- Options: version or label, signature (TensorFlow Serving), outputs (names; with KServe also name = parameters, such as
--- { scores = { classification = 3 } }), format ("column", the default, or "row": TensorFlow Serving), dtypes (TensorFlow Serving, whose JSON does
--- not say them: { output = "float64" } or one for all; default: float32, or int64 where no number has a fraction), binary, id, parameters (KServe),
--- timeout (seconds, for this call), headers.
---@param model string
---@param inputs userdata|table a tensor or nested array (one input), a table of inputs by name, or a data set
---@param given table|nil options
---@return userdata|table|nil output a tensor; a table by name when inputs came by name or several outputs did
---@return string|nil message
---@return string|nil code
function Client:predict(model, inputs, given)
  check_model(model, "predict")
  local o = check_options(self, given, PREDICT_RULES, "predict")
  local data = package.loaded["mlserve.data"] -- who has a data set has loaded it
  if inputs == nil then error("predict: inputs expected, got nil", 2) end
  if data and data.is_dataset(inputs) then inputs = inputs:inputs() end
  local output, message, code = checked("predict", predict, self, model, inputs, o)
  if output ~= nil then return output end
  return nil, message, code
end

local function examples(self, verb, model, list, given)
  local o = check_options(self, given, EXAMPLE_RULES, verb)
  if self.protocol ~= tfserving then return nil, verb .. " is part of TensorFlow Serving's protocol only", "UNIMPLEMENTED" end
  if self.driver then return self.driver[verb](self.driver, checked(verb, self.driver.examples_request, model, list, o), o) end
  local path, body, headers = checked(verb, tfserving[verb .. "_request"], model, list, o)
  local response, message, code = post(self, path, body, headers, o, true)
  if not response then return nil, message, code end
  return tfserving[verb .. "_answer"](response)
end

--- Classifies examples (TensorFlow Serving). Options: version or label, signature, context (features that all examples share), timeout, headers.
---@param model string
---@param list table[] each a table of features by name: number, string, boolean, a flat list of one kind, or a tensor
---@param given table|nil options
---@return table|nil results for each example a list of { label, score }
---@return string|nil message
---@return string|nil code
function Client:classify(model, list, given)
  check_model(model, "classify")
  return examples(self, "classify", model, list, given)
end

--- Regresses examples (TensorFlow Serving); see classify.
---@param model string
---@param list table[]
---@param given table|nil options
---@return number[]|nil values
---@return string|nil message
---@return string|nil code
function Client:regress(model, list, given)
  check_model(model, "regress")
  return examples(self, "regress", model, list, given)
end

--- The versions of a model. Options: version or label, timeout, headers.
---@param model string
---@param given table|nil
---@return table[]|nil versions { version, state, error_code, error_message }; with KServe only those that answer
---@return string|nil message
---@return string|nil code
function Client:status(model, given)
  check_model(model, "status")
  local o = check_options(self, given, MODEL_RULES, "status")
  if self.driver then return self.driver:status(model, o) end
  local response, message, code = get(self, self.protocol.status_path(model, o), o)
  if not response then return nil, message, code end
  return self.protocol.status_answer(response)
end

--- What a model takes and gives. Options: version or label, signature (TensorFlow Serving), timeout, headers.
---@param model string
---@param given table|nil
---@return table|nil metadata { name, inputs = { name = { dtype, shape } }, outputs, … }; TensorFlow Serving: version, signatures; KServe: versions,
---platform, input_names, output_names
---@return string|nil message
---@return string|nil code
function Client:metadata(model, given)
  check_model(model, "metadata")
  local o = check_options(self, given, SIGNATURE_RULES, "metadata")
  if self.driver then return self.driver:metadata(model, o) end
  local response, message, code = get(self, self.protocol.metadata_path(model, o), o)
  if not response then return nil, message, code end
  return self.protocol.metadata_answer(response, o)
end

--- Whether a model answers, or without one the whole server. TensorFlow Serving can say that only of models. Options: version or label, timeout,
--- headers.
---@param model string|nil
---@param given table|nil
---@return boolean ready
---@return string|nil message why not
---@return string|nil code
function Client:ready(model, given)
  if model ~= nil then check_model(model, "ready") end
  local o = check_options(self, given, model and MODEL_RULES or CALL_RULES, "ready")
  if self.driver and model then return self.driver:ready(model, o) end
  if self.driver then return self.driver:server_ready(o) end
  local path = model and self.protocol.ready_path(model, o) or self.protocol.server_ready_path
  -- a server that is busy is not ready: no use to wait for it
  local response, message, code = ask(self, { method = "GET", path = path, idempotent = true, given = o })
  local ready
  if not response then return false, message, code end
  if not model then
    if self.protocol.live_answer(response) then return true end
    return false, select(2, refused(self, response)), http.code(response.status)
  end
  if response.status ~= 200 then return false, select(2, refused(self, response)), http.code(response.status) end
  ready, message, code = self.protocol.ready_answer(response)
  return ready or false, message, code
end

--- Whether the server answers at all. Options: timeout, headers.
---@param given table|nil
---@return boolean live
---@return string|nil message
---@return string|nil code
function Client:live(given)
  local o = check_options(self, given, CALL_RULES, "live")
  if self.driver then return self.driver:live(o) end
  local response, message, code = ask(self, { method = "GET", path = self.protocol.live_path, idempotent = true, given = o })
  if not response then return false, message, code end
  if self.protocol.live_answer(response) then return true end
  return false, select(2, refused(self, response)), http.code(response.status)
end

local function document(self, path, o)
  local response, message, code = get(self, path, o)
  if not response then return nil, message, code end
  return kserve.document(response)
end

-- What follows is KServe's and Triton's, asked for under /v2 whatever the client's protocol for predictions is: mlserve serves both.

--- Name, version and extensions of the server (KServe). Options: timeout, headers.
---@param given table|nil
---@return table|nil
---@return string|nil message
---@return string|nil code
function Client:server_metadata(given)
  local o = check_options(self, given, CALL_RULES, "server_metadata")
  if self.driver then return self.driver:server_metadata(o) end
  return document(self, "/v2", o)
end

--- Triton's statistics of a model, or of all. Options: version or label, timeout, headers.
---@param model string|nil
---@param given table|nil
---@return table[]|nil statistics one for each version
---@return string|nil message
---@return string|nil code
function Client:statistics(model, given)
  if model ~= nil then check_model(model, "statistics") end
  local o = check_options(self, given, model and MODEL_RULES or CALL_RULES, "statistics")
  if self.driver then return self.driver:statistics(model, o) end
  local all, message, code = document(self, kserve.statistics_path(model, o), o)
  if not all then return nil, message, code end
  if type(all.model_stats) ~= "table" then return nil, "the answer is not valid: no model_stats", "DATA_LOSS" end
  return all.model_stats
end

--- Triton's configuration of a model. Options: version or label, timeout, headers.
---@param model string
---@param given table|nil
---@return table|nil
---@return string|nil message
---@return string|nil code
function Client:config(model, given)
  check_model(model, "config")
  local o = check_options(self, given, MODEL_RULES, "config")
  if self.driver then return self.driver:config(model, o) end
  return document(self, kserve.config_path(model, o), o)
end

--- The models of the server's repository (KServe; a server with admin rights given). Options: ready (true: only those), timeout, headers.
---@param given table|nil
---@return table[]|nil models { name, version, state, reason }
---@return string|nil message
---@return string|nil code
function Client:index(given)
  local o = check_options(self, given, INDEX_RULES, "index")
  if self.driver then return self.driver:index(o) end
  local body = o.ready ~= nil and core.json_encode { ready = o.ready } or "{}"
  local response, message, code = post(self, "/v2/repository/index", body, JSON, o, true)
  if not response then return nil, message, code end
  return kserve.document(response)
end

local function control(self, verb, model, given, rules)
  check_model(model, verb)
  local o = check_options(self, given, rules, verb)
  if self.driver then
    local done, message, code = self.driver:control(verb, model, o)
    if done then self.metadata_cache = {} end
    return done, message, code
  end
  local body = o.unload_dependents ~= nil and core.json_encode { parameters = { unload_dependents = o.unload_dependents } } or "{}"
  local response, message, code = post(self, kserve.load_path(model, verb), body, JSON, o, false)
  if not response then return nil, message, code end
  self.metadata_cache = {}
  return true
end

--- Loads a model, or loads it again. Never retried. Options: timeout, headers.
---@param model string
---@param given table|nil
---@return boolean|nil loaded
---@return string|nil message
---@return string|nil code
function Client:load(model, given) return control(self, "load", model, given, CALL_RULES) end

--- Unloads a model. Never retried. Options: unload_dependents, timeout, headers.
---@param model string
---@param given table|nil
---@return boolean|nil unloaded
---@return string|nil message
---@return string|nil code
function Client:unload(model, given) return control(self, "unload", model, given, UNLOAD_RULES) end

---------------------------------------------------------------------------------------------------------------------------
-- streams (gRPC)

---@class ClientStream
local Stream = {}
local stream_class = { __index = Stream, __name = "mlserve.client.stream" }

local STREAM_RULES = CALL_RULES
local RECEIVE_RULES = { timeout = seconds }

local function over(call)
  if call.status == "OK" then return nil end
  return nil, call.message ~= "" and call.message or call.status, call.status
end

--- Sends a request of a stream that infer_stream opened; see predict for model, inputs and options. Answers come in the order of requests.
---@param model string
---@param inputs userdata|table
---@param given table|nil
---@return boolean|nil sent
---@return string|nil message
---@return string|nil code
function Stream:send(model, inputs, given)
  check_model(model, "send")
  local o = check_options(self.client, given, PREDICT_RULES, "send")
  if not self.asked then error("send: this stream takes no requests", 2) end
  local bytes, message, code = checked("send", require("mlserve.client.grpc_kserve").encode_stream_request, self.client, model, inputs, o)
  if not bytes then return nil, message, code end
  if not self.call:send(bytes) then
    self.call:receive(self.client.pool.now()) -- what has come by now may say why
    if self.call.status then return over(self.call) end
    return nil, "the stream takes no more requests", "CANCELLED"
  end
  self.asked[#self.asked + 1] = { inputs, o }
  return true
end

--- The next answer. Of infer_stream: the outputs of the oldest request without an answer, as predict gives them; nil, message, code where that request
--- failed (the stream goes on). Of watch: "SERVING", "NOT_SERVING", …. At the end of the stream nil alone, or with message and code.
--- Options: timeout (seconds; when they are over, nil, message, "DEADLINE_EXCEEDED", and the stream goes on).
---@param given table|nil
---@return any answer
---@return string|nil message
---@return string|nil code
function Stream:receive(given)
  local o = options.check(given, RECEIVE_RULES, "receive", 3)
  local bytes, why = self.call:receive(o.timeout and self.client.pool.now() + o.timeout)
  if not bytes then
    if why == "timeout" then return nil, format("no answer within %g s", o.timeout), "DEADLINE_EXCEEDED" end
    return over(self.call)
  end
  return self.decode(self, bytes)
end

--- Whether the stream has ended.
---@return boolean
function Stream:ended() return self.call.status ~= nil end

--- Says that no more requests will come; answers still do.
function Stream:finish() self.call:send(nil, true) end

--- Gives the stream up.
function Stream:close() self.call:cancel() end
stream_class.__close = Stream.close

local function open_stream(self, path, o, fields)
  if not self.driver then error(fields.where .. ": streams are gRPC's: protocol = 'grpc' or 'grpc-kserve'", 3) end
  local given = self.given_of(o)
  given.endless = not o.timeout
  given.connect = given.deadline
  if given.endless then given.deadline = math.huge end
  local call, message, code = self.channel:open(path, given)
  if not call then return nil, message, code end
  fields.call, fields.client = call, self
  return setmetatable(fields, stream_class)
end

--- Opens a stream of infer requests (Triton's ModelStreamInfer; gRPC). Options: timeout (seconds, of the whole stream; default: none), headers.
---@param given table|nil
---@return ClientStream|nil
---@return string|nil message
---@return string|nil code
function Client:infer_stream(given)
  local o = check_options(self, given, STREAM_RULES, "infer_stream")
  local decode = require("mlserve.client.grpc_kserve").decode_stream_answer
  return open_stream(self, "/inference.GRPCInferenceService/ModelStreamInfer", o, {
    where = "infer_stream", asked = {},
    decode = function(stream, bytes)
      local request = table.remove(stream.asked, 1)
      if not request then return nil, "an answer without a request", "DATA_LOSS" end
      return decode(bytes, request[1], request[2])
    end,
  })
end

--- Watches the health of the server, or of a service ("" or nil: the server; gRPC): a stream whose receive gives the state now, and then each
--- change. Options: service, timeout (of the whole stream; default: none), headers.
---@param given table|nil
---@return ClientStream|nil
---@return string|nil message
---@return string|nil code
function Client:watch(given)
  local o = check_options(self, given, options.merge(CALL_RULES, { service = { type = "string" } }), "watch")
  local kserve_driver = require "mlserve.client.grpc_kserve"
  local stream, message, code = open_stream(self, "/grpc.health.v1.Health/Watch", o, {
    where = "watch", decode = function(_, bytes) return kserve_driver.health_answer(bytes) end,
  })
  if not stream then return nil, message, code end
  stream.call:send(kserve_driver.health_request(o.service), true)
  return stream
end

--- The health of the server, or of a service (gRPC). Options: service, timeout, headers.
---@param given table|nil
---@return string|nil state "SERVING", "NOT_SERVING" or "UNKNOWN"
---@return string|nil message
---@return string|nil code
function Client:health(given)
  local o = check_options(self, given, options.merge(CALL_RULES, { service = { type = "string" } }), "health")
  if not self.driver then error("health: the health service is gRPC's: protocol = 'grpc' or 'grpc-kserve'", 2) end
  local kserve_driver = require "mlserve.client.grpc_kserve"
  local bytes, message, code = self.driver.ask("/grpc.health.v1.Health/Check", kserve_driver.health_request(o.service), o, true)
  if not bytes then return nil, message, code end
  return kserve_driver.health_answer(bytes)
end

--- Whether a value is a client.
---@param value any
---@return boolean
function client.is(value) return getmetatable(value) == class end

return setmetatable(client, { __call = function(_, given) return client.new(given) end })
