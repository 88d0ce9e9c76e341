--- The nginx transport: models inside nginx or OpenResty.
--
--   init_by_lua_block    { require("mlserve.nginx").init { models = { cancer = "models/cancer" } } }
--   content_by_lua_block { require("mlserve.nginx").handler() }                       # the REST protocol
--   access_by_lua_block  { local score = require("mlserve.nginx").score { model = "cancer", features = { 1, 2, 3 } } }
--
-- Models are loaded by the master before it forks, so workers share their memory; nothing that starts threads is called there.
-- As is usual for libraries in nginx, functions return nil and a message instead of raising when the environment fails; misuse
-- raises.

local app = require "mlserve.serve.app"
local kserve = require "mlserve.serve.protocols.kserve"
local openapi = require "mlserve.serve.openapi"
local options = require "mlserve.options"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

local concat, find, format, gmatch, gsub, match, sub =
  table.concat, string.find, string.format, string.gmatch, string.gsub, string.match, string.sub
local ipairs, pairs, setmetatable, tonumber, tostring, type = ipairs, pairs, setmetatable, tonumber, tostring, type

local ngx = ngx -- luacheck: ignore

local M = {}

local state -- { repository, app } of this Lua VM, made by init

local INIT_RULES = {
  models = { type = "table", required = true },
  cors = { type = "boolean", default = false },
  compression = { type = "table" },
}

--- Loads models; call it from init_by_lua. A model that cannot be loaded is logged and reported by status requests, the
--- others are served.
---@param given table models = { name = base directory | servable }, cors, compression (see mlserve.serve.compress)
---@return boolean|nil ok
---@return string|nil message
function M.init(given)
  local values = options.check(given, INIT_RULES, "mlserve.nginx.init")
  local models, errors = repository.new(), {}
  for name, source in pairs(values.models) do
    if type(source) == "string" then
      local ok, message = models:add_directory(name, source)
      if not ok then
        errors[#errors + 1] = message
        ngx.log(ngx.ERR, "mlserve: ", message)
      end
    else
      models:add_model(name, source)
    end
  end
  state = { repository = models, app = app.new { compression = values.compression } }
  state.app:mount(tfserving.routes(models, { cors = values.cors }))
  state.app:mount(kserve.routes(models))
  openapi.mount(state.app)
  if #errors > 0 then return nil, concat(errors, "\n") end
  return true
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

local HANDLER_RULES = { prefix = { type = "string", default = "" } }

--- Answers the request of this location; call it from content_by_lua. `prefix` is cut off the path: with prefix = "/ml" the
--- location /ml/v1/ serves what the stand-alone server serves under /v1/.
---@param given? table prefix
function M.handler(given)
  local prefix = given and options.check(given, HANDLER_RULES, "mlserve.nginx.handler").prefix or ""
  local path, query = split_target(ngx.var.request_uri)
  local body, message = M.body()
  local response
  if sub(path, 1, #prefix) == prefix then path = sub(path, #prefix + 1) end
  if not state then
    ngx.log(ngx.ERR, "mlserve.nginx: init was not called in init_by_lua")
    response = { status = 503, body = "no models\n" }
  elseif not body then
    ngx.log(ngx.ERR, "mlserve.nginx: request body: ", message)
    response = { status = 500, body = "cannot read the request body\n" }
  else
    response = state.app:handle {
      method = ngx.req.get_method(), path = path == "" and "/" or path, query = query,
      headers = setmetatable({}, headers_mt), body = body,
    }
  end
  if response.status ~= 200 then ngx.status = response.status end
  local fields = ngx.header
  if response.headers then
    for name, value in pairs(response.headers) do fields[name] = value end
  end
  body = response.body or ""
  fields["content-length"] = #body
  ngx.print(body)
end

---------------------------------------------------------------------------------------------------------------------------
-- scoring in the access phase

--- Numbers from a text such as "1, 2.5, -3e2" (a header, a cookie, an argument).
---@param text string|nil
---@return table|nil numbers
---@return string|nil message
function M.features(text)
  if type(text) ~= "string" or find(text, "^%s*$") then return nil, "no features" end
  local numbers = {}
  for item in gmatch(text .. ",", "([^,]*),") do
    local number = find(item, "^[%s%d.eE+-]+$") and tonumber(item)
    if not number then return nil, format("feature %d is not a number: '%s'", #numbers + 1, sub(item, 1, 40)) end
    numbers[#numbers + 1] = number
  end
  return numbers
end

local SCORE_RULES = {
  model = { type = "string", required = true },
  features = { type = "any" },
  version = { type = { "integer", "string" } },
  label = { type = "string" },
  output = { type = "string" },
  fallback = { type = "any" },
  variable = { type = "string" },
}

-- {"instances":[[…]]} with numbers that read back exactly
local function row_body(features)
  local items = {}
  for i, value in ipairs(features) do
    if type(value) ~= "number" or value ~= value or value == 1 / 0 or value == -1 / 0 then
      return nil, format("feature %d: finite number expected, got %s", i, tostring(value))
    end
    items[i] = format("%.17g", value)
  end
  if #items == 0 then return nil, "no features" end
  return '{"instances":[[' .. concat(items, ",") .. "]]}"
end

-- The score in {"predictions": [[0.5]]}: found without building tables in the usual case of one number.
local function first_prediction(text, output)
  if not output then
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
  if type(value) == "table" and #value == 1 then value = value[1] end
  if type(value) ~= "number" and type(value) ~= "table" then return nil, "the model's answer holds no score" end
  return value
end

local function score(values)
  local features, message = values.features
  if not state then return nil, "init was not called in init_by_lua" end
  if type(features) == "string" then
    features, message = M.features(features)
    if not features then return nil, message end
  elseif type(features) ~= "table" then
    return nil, "no features"
  end
  local entry, reason = state.repository:get(values.model, values.version, values.label)
  if not entry then return nil, format("model '%s': no such %s", values.model, reason) end
  local body
  body, message = row_body(features)
  if not body then return nil, message end
  local text
  text, message = entry.servable:predict_json(body)
  if not text then return nil, message end
  return first_prediction(text, values.output)
end

--- Scores one row; for access_by_lua, rewrite_by_lua and the like. A single number where the model gives one, else the array.
---@param given table model; features: array of numbers or a text for `features`; version or label; output: name of the output;
--- fallback: what to return when there is no score; variable: nginx variable that gets the score (must exist: `set $NAME "";`)
---@return number|table|any score the fallback (default nil) when something is missing
---@return string|nil message then: what
function M.score(given)
  local values = options.check(given, SCORE_RULES, "mlserve.nginx.score")
  local value, message = score(values)
  if value == nil then value = values.fallback end
  if values.variable then
    ngx.var[values.variable] = type(value) == "table" and concat(value, ",") or value ~= nil and tostring(value) or ""
  end
  return value, message
end

return M
