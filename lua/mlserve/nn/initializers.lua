--- Initialisers: the weights before training, under Keras's names.
-- Every parameter has its own random stream, so the same seed gives the same weights whatever the number of threads.
-- With fan_in and fan_out the numbers of inputs and outputs of a kernel:
--   glorot_uniform  U(-a, a), a = sqrt(6 / (fan_in + fan_out))    glorot_normal  N(0, sqrt(2 / (fan_in + fan_out)))
--   he_uniform      U(-a, a), a = sqrt(6 / fan_in)                he_normal      N(0, sqrt(2 / fan_in))
--   lecun_uniform   U(-a, a), a = sqrt(3 / fan_in)                lecun_normal   N(0, sqrt(1 / fan_in))
-- The normal ones are truncated at two standard deviations and widened so that the stated deviation holds.
-- Sources: Glorot & Bengio 2010; He et al. 2015; LeCun et al. 1998.
-- @module mlserve.nn.initializers

local core = require "mlserve.core"
local options = require "mlserve.options"

local concat, sort = table.concat, table.sort
local format = string.format
local sqrt = math.sqrt

local TRUNCATED_STDDEV = 0.87962566103423978 -- of a standard normal cut off at +-2

local initializers = {}

local function fans(shape)
  local field = 1
  if #shape < 2 then return shape[1] or 1, shape[1] or 1 end
  for i = 1, #shape - 2 do field = field * shape[i] end
  return shape[#shape - 1] * field, shape[#shape] * field
end

local function scaled(scale, both, normal)
  return function(shape, seed, stream)
    local fan_in, fan_out = fans(shape)
    local variance = scale / (both and (fan_in + fan_out) / 2 or fan_in)
    if normal then return core.random_normal(shape, 0, sqrt(variance) / TRUNCATED_STDDEV, seed, stream, true) end
    return core.random_uniform(shape, -sqrt(3 * variance), sqrt(3 * variance), seed, stream)
  end
end

local known = {
  zeros = { make = function() return function(shape) return core.zeros(shape) end end },
  ones = { make = function() return function(shape) return core.full(shape, 1) end end },
  constant = {
    rules = { value = { type = "number", default = 0 } },
    make = function(o) return function(shape) return core.full(shape, o.value) end end,
  },
  random_uniform = {
    rules = { low = { type = "number", default = -0.05 }, high = { type = "number", default = 0.05 } },
    make = function(o)
      return function(shape, seed, stream) return core.random_uniform(shape, o.low, o.high, seed, stream) end
    end,
  },
  random_normal = {
    rules = { mean = { type = "number", default = 0 }, stddev = { type = "number", min = 0, default = 0.05 } },
    make = function(o)
      return function(shape, seed, stream) return core.random_normal(shape, o.mean, o.stddev, seed, stream, false) end
    end,
  },
}

for name, rule in pairs {
  glorot_uniform = { 1, true, false }, glorot_normal = { 1, true, true },
  he_uniform = { 2, false, false }, he_normal = { 2, false, true },
  lecun_uniform = { 1, false, false }, lecun_normal = { 1, false, true },
} do
  known[name] = { make = function() return scaled(rule[1], rule[2], rule[3]) end }
end

--- The names of all initialisers, sorted.
---@return string[]
function initializers.names()
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  sort(names)
  return names
end

--- Turns what a user writes into a function (shape, seed, stream) -> tensor.
---@param spec string|table|function a name, { name = "random_normal", stddev = 0.1 }, or such a function
---@param where string the option this is, for messages
---@return function
function initializers.get(spec, where)
  local name, given = spec, {}
  if type(spec) == "function" then return spec end
  if type(spec) == "table" then
    name = spec.name or spec[1]
    for key, value in pairs(spec) do
      if key ~= "name" and key ~= 1 then given[key] = value end
    end
  end
  if not known[name] then
    error(format("%s: unknown initialiser '%s'; known: %s", where, tostring(name), concat(initializers.names(), ", ")), 0)
  end
  return known[name].make(options.check(given, known[name].rules or {}, name, 0))
end

return initializers
