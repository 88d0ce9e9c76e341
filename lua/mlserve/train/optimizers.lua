--- Optimisers by name, with the hyper-parameters each has. Defaults are Keras's and live in the core.
-- @module mlserve.train.optimizers

local options = require "mlserve.options"

local concat, sort = table.concat, table.sort
local format = string.format

local optimizers = {}

local rate = { type = "number", above = 0 }
local share = { type = "number", min = 0, below = 1 }
local positive = { type = "number", above = 0 }
local strength = { type = "number", min = 0 }

local rules = {
  sgd = { learning_rate = rate, momentum = share, nesterov = { type = "boolean" }, weight_decay = strength },
  adam = { learning_rate = rate, beta1 = share, beta2 = share, epsilon = positive, weight_decay = strength },
  adamw = { learning_rate = rate, beta1 = share, beta2 = share, epsilon = positive, weight_decay = strength },
  rmsprop = { learning_rate = rate, rho = share, epsilon = positive, weight_decay = strength },
  adagrad = { learning_rate = rate, epsilon = positive, weight_decay = strength },
}

---@return string[]
function optimizers.names()
  local names = {}
  for name in pairs(rules) do names[#names + 1] = name end
  sort(names)
  return names
end

--- Checks what a user writes.
---@param spec string|table "adam" or { name = "sgd", learning_rate = 0.1, momentum = 0.9 }
---@return table optimizer { name, hyper-parameters given }
function optimizers.get(spec)
  local name, given, checked = spec, {}
  if type(spec) == "table" then
    name = spec.name or spec[1]
    for key, value in pairs(spec) do
      if key ~= "name" and key ~= 1 then given[key] = value end
    end
  end
  if not rules[name] then
    error(format("unknown optimizer '%s'; known: %s", tostring(name), concat(optimizers.names(), ", ")), 0)
  end
  checked = options.check(given, rules[name], "optimizer " .. name, 0)
  checked.name = name
  return checked
end

--- Options of core.trainer from compile's settings.
---@param settings table
---@param loss string
---@return table
function optimizers.trainer_options(settings, loss)
  local o = { loss = loss, from_logits = settings.from_logits, delta = settings.delta }
  for key, value in pairs(settings.optimizer) do
    if key ~= "name" then o[key] = value end
  end
  o.optimizer = settings.optimizer.name
  for _, key in ipairs { "l1", "l2", "weight_decay", "clip_norm", "clip_value" } do
    if settings[key] ~= nil then o[key] = settings[key] end
  end
  return o
end

return optimizers
