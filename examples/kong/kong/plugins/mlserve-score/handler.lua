-- A Kong plugin: scores a request with a model inside the gateway's own process, refuses it or tells the service the score.
-- Kong requires this file in nginx's master, before the workers are forked: models named in MLSERVE_MODELS ("NAME=DIRECTORY,…") are
-- loaded there once, and the workers share their memory.
local mlserve = require "mlserve.nginx"

local kong = kong -- luacheck: ignore
local ipairs, tonumber, tostring, type = ipairs, tonumber, tostring, type

local plugin = { PRIORITY = 900, VERSION = "0.1.0" } -- after authentication and rate limits

local models = {}
for name, base in (os.getenv "MLSERVE_MODELS" or ""):gmatch "([^=,]+)=([^,]+)" do models[name] = base end
mlserve.init { models = models } -- what cannot be loaded is in the error log

function plugin:init_worker() -- luacheck: ignore self
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

local function read(features)
  local numbers, document = {}, nil
  for i, feature in ipairs(features) do
    local value = feature.value
    if feature.header then
      value = kong.request.get_header(feature.header)
    elseif feature.arg then
      value = kong.request.get_query_arg(feature.arg)
    elseif feature.json then
      document = document or kong.request.get_body "application/json" or {}
      value = at(document, feature.json)
    end
    if type(value) == "boolean" then value = value and 1 or 0 end
    value = (type(value) == "number" or type(value) == "string") and tonumber(value) or feature.default
    if not value then return nil, "feature " .. i .. " is missing or no number" end
    numbers[i] = value
  end
  return numbers
end

function plugin:access(config) -- luacheck: ignore self
  local score, message
  local numbers, missing = read(config.features)
  if numbers then score, message = mlserve.score { model = config.model, features = numbers, budget = config.budget } end
  if type(score) ~= "number" then
    kong.log.notice("not scored: ", missing or message or "the model gives more than one number")
    score = config.fallback
  end
  kong.service.request.clear_header(config.header) -- a client cannot bring its own
  if not score then return end
  if config.deny_above and score > config.deny_above then
    return kong.response.exit(config.deny_status, { message = "refused" })
  end
  kong.service.request.set_header(config.header, tostring(score))
end

return plugin
