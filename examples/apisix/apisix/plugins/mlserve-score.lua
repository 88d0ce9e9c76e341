-- An APISIX plugin: scores a request with a model inside the gateway's own process, refuses it or tells the upstream the score.
-- Models stand in config.yaml (plugin_attr: mlserve-score: models: NAME: DIRECTORY) and are loaded when a worker starts; weights are
-- mapped from their files, so workers share them.
local core = require "apisix.core"
local mlserve = require "mlserve.nginx"
local plugin = require "apisix.plugin"

local ipairs, tonumber, tostring, type = ipairs, tonumber, tostring, type

local NAME = "mlserve-score"

local schema = {
  type = "object",
  properties = {
    model = { type = "string", minLength = 1 },
    features = { -- in the order of the model's columns
      type = "array", minItems = 1,
      items = {
        type = "object",
        properties = {
          header = { type = "string" }, arg = { type = "string" }, json = { type = "string" }, var = { type = "string" },
          value = { type = "number" }, default = { type = "number" },
        },
        oneOf = { { required = { "header" } }, { required = { "arg" } }, { required = { "json" } }, { required = { "var" } },
          { required = { "value" } } },
        additionalProperties = false,
      },
    },
    budget = { type = "integer", minimum = 1, default = 2000 }, -- microseconds
    fallback = { type = "number" }, -- the score when there is none in time; without it the request passes
    deny_above = { type = "number" },
    deny_status = { type = "integer", minimum = 400, maximum = 599, default = 403 },
    header = { type = "string", default = "X-Score" }, -- for the upstream
  },
  required = { "model", "features" },
}

local _M = { version = 0.1, priority = 1005, name = NAME, schema = schema } -- after authentication and limits

function _M.check_schema(conf) return core.schema.check(schema, conf) end

function _M.init() -- in each worker
  local attributes = plugin.plugin_attr(NAME) or {}
  mlserve.init { models = attributes.models or {} } -- what cannot be loaded is in the error log
  mlserve.init_worker()
end

-- "user.age" of a decoded body
local function at(document, path)
  for step in path:gmatch "[^.]+" do
    if type(document) ~= "table" then return nil end
    local value = document[step]
    if value == nil then value = document[tonumber(step)] end
    document = value
  end
  return document
end

local function read(features, ctx)
  local numbers, document = {}, nil
  for i, feature in ipairs(features) do
    local value = feature.value
    if feature.header then
      value = core.request.header(ctx, feature.header)
    elseif feature.arg then
      value = core.request.get_uri_args(ctx)[feature.arg]
    elseif feature.var then
      value = ctx.var[feature.var]
    elseif feature.json then
      document = document or core.json.decode(core.request.get_body() or "") or {}
      value = at(document, feature.json)
    end
    if type(value) == "boolean" then value = value and 1 or 0 end
    value = (type(value) == "number" or type(value) == "string") and tonumber(value) or feature.default
    if not value then return nil, "feature " .. i .. " is missing or no number" end
    numbers[i] = value
  end
  return numbers
end

function _M.access(conf, ctx)
  local score, message
  local numbers, missing = read(conf.features, ctx)
  if numbers then score, message = mlserve.score { model = conf.model, features = numbers, budget = conf.budget } end
  if type(score) ~= "number" then
    core.log.notice("not scored: ", missing or message or "the model gives more than one number")
    score = conf.fallback
  end
  core.request.set_header(ctx, conf.header, score and tostring(score) or nil) -- a client cannot bring its own
  if score and conf.deny_above and score > conf.deny_above then return conf.deny_status, { message = "refused" } end
end

return _M
