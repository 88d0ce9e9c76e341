--- Networks: layers, and models made of them.
--
--     local nn = require "mlserve.nn"
--     local model = nn.Sequential {
--       nn.Normalization(),
--       nn.Dense { 64, activation = "relu" },
--       nn.Dropout { 0.2 },
--       nn.Dense { 1, activation = "sigmoid" },
--     }
--
-- or freely connected:
--
--     local x = nn.Input { shape = { 30 } }
--     local h = nn.Dense { 64, activation = "relu" }(x)
--     local y = nn.Dense { 1, activation = "sigmoid" }(nn.Concatenate() { h, x })
--     local model = nn.Model { inputs = x, outputs = { probability = y } }
--
-- @module mlserve.nn

local activations = require "mlserve.nn.activations"
local merging = require "mlserve.nn.merging"
local model = require "mlserve.model"
local network = require "mlserve.nn.network"
local normalization = require "mlserve.nn.normalization"
local options = require "mlserve.options"
local preprocessing = require "mlserve.nn.preprocessing"
local reshaping = require "mlserve.nn.reshaping"

local nn = {
  Input = network.Input,

  Dense = require "mlserve.nn.dense",
  Dropout = require "mlserve.nn.dropout",
  Embedding = require "mlserve.nn.embedding",

  Activation = activations.Activation, ReLU = activations.ReLU, LeakyReLU = activations.LeakyReLU,
  PReLU = activations.PReLU, ELU = activations.ELU, Softmax = activations.Softmax,

  Flatten = reshaping.Flatten, Reshape = reshaping.Reshape,

  Concatenate = merging.Concatenate, Add = merging.Add, Subtract = merging.Subtract, Multiply = merging.Multiply,
  Average = merging.Average, Maximum = merging.Maximum, Minimum = merging.Minimum,

  BatchNormalization = normalization.BatchNormalization, LayerNormalization = normalization.LayerNormalization,

  Normalization = preprocessing.Normalization, Rescaling = preprocessing.Rescaling, Imputer = preprocessing.Imputer,
  StringLookup = preprocessing.StringLookup, CategoryEncoding = preprocessing.CategoryEncoding,
  OneHot = preprocessing.OneHot, Features = preprocessing.Features,

  activations = activations,
  initializers = require "mlserve.nn.initializers",
  callbacks = require "mlserve.train.callbacks",
}

--- Layers one after the other, as a model; see mlserve.model for what it can do. The shape of the input comes from the first data
--- (fit), from compile { input_shape = … } or from an nn.Input in the first place.
---@param given table layers in order; name, input_name, output_name
---@return table model
function nn.Sequential(given)
  local names, layers = {}, {}
  for key, value in pairs(type(given) == "table" and given or {}) do
    if type(key) == "number" then layers[key] = value else names[key] = value end
  end
  names = options.check(names, {
    name = { type = "string", default = "sequential" }, input_name = { type = "string" }, output_name = { type = "string" },
  }, "Sequential")
  return model.from_network(network.sequential(layers, names.name, names.input_name, names.output_name))
end

--- A model of freely connected layers.
---@param given table { inputs = symbol or array, outputs = symbol, array or table by name, name }
---@return table model
function nn.Model(given)
  local o = options.check(given, {
    inputs = { type = "table", required = true, position = 1 },
    outputs = { type = "table", required = true, position = 2 },
    name = { type = "string", default = "model" },
  }, "Model")
  return model.from_network(network.functional(o.inputs, o.outputs, o.name))
end

return nn
