--- Optimising: the second stage of training. A copy of a trained model is trained on with regularisation until validation no longer
-- improves, and ends with the weights that were best. It works on every model with float32 parameters, wherever it was made.
--
-- Options beside fit's: l1, l2 (penalties on kernels), weight_decay, dropout (rate after each hidden activation), learning_rate,
-- clip_norm, clip_value, freeze (parameters that stay as they are), train_only (the only ones that change); both are arrays of Lua
-- patterns. Defaults: epochs 100, patience 10, validation_split 0.1 unless validation_data are given.
-- @module mlserve.train.optimize

local core = require "mlserve.core"
local data = require "mlserve.data"
local fit = require "mlserve.train.fit"
local options = require "mlserve.options"
local parameters = require "mlserve.train.parameters"

local format = string.format

local strength = { type = "number", min = 0 }

local rules = options.merge(fit.rules, {
  epochs = { type = "integer", min = 1, default = 100 },
  patience = { type = "integer", min = 0, default = 10 },
  validation_split = { type = "number", min = 0, below = 1 },
  l1 = strength, l2 = strength, weight_decay = strength, clip_norm = strength, clip_value = strength,
  dropout = { type = "number", min = 0, below = 1 },
  learning_rate = { type = "number", above = 0 },
  freeze = { type = "table" },
  train_only = { type = "table" },
})

local own = { "l1", "l2", "weight_decay", "clip_norm", "clip_value", "dropout", "learning_rate", "freeze", "train_only" }

local activations = {
  Relu = true, Tanh = true, Sigmoid = true, Elu = true, Selu = true, Celu = true, Gelu = true, LeakyRelu = true, PRelu = true,
  Softplus = true, Softsign = true, Mish = true, Swish = true, HardSwish = true, HardSigmoid = true, ThresholdedRelu = true, Clip = true,
}

-- How many nodes read each value, and by which operators; graph outputs count as read by "".
local function readers_of(graph)
  local readers = {}
  local function add(name, op)
    readers[name] = readers[name] or {}
    table.insert(readers[name], op)
  end
  for _, node in ipairs(graph:nodes()) do
    for _, input in ipairs(node.inputs) do add(input, node.op) end
  end
  for _, output in ipairs(graph:outputs()) do add(output.name, "") end
  return readers
end

local function is_hidden(readers)
  for _, op in ipairs(readers or { "" }) do
    -- x sigmoid(x) is one activation: the product is what is dropped from, not the gate
    if op == "" or op == "Dropout" or op == "Mul" or op == "BatchNormalization" then return false end
  end
  return true
end

-- The activation written as x sigmoid(x): a product one factor of which is the sigmoid of the other.
local function is_swish(node, by_output)
  local a, b = node.inputs[1], node.inputs[2]
  local function gate(x, y) return by_output[x] and by_output[x].op == "Sigmoid" and by_output[x].inputs[1] == y end
  return node.op == "Mul" and (gate(a, b) or gate(b, a))
end

local function set_dropout(graph, rate)
  local readers, by_output, places, existing = readers_of(graph), {}, {}, 0
  for _, node in ipairs(graph:nodes()) do
    for _, output in ipairs(node.outputs) do by_output[output] = node end
    if node.op == "Dropout" then
      existing = existing + 1
      if not node.inputs[2] or node.inputs[2] == "" then
        error(format("optimize: the rate of Dropout '%s' cannot be changed: it has no ratio input", node.name), 0)
      end
      graph:set_initializer(node.inputs[2], core.tensor(rate))
    elseif (activations[node.op] or is_swish(node, by_output)) and is_hidden(readers[node.outputs[1]]) then
      places[#places + 1] = node.outputs[1]
    end
  end
  for i, place in ipairs(places) do
    local ratio = graph:initializer(format("optimize/dropout_%d/ratio", i), core.tensor(rate), false)
    graph:insert_after(place, "Dropout", { ratio })
  end
  if #places + existing == 0 then error("optimize: dropout: the model has no hidden activation to drop from", 0) end
end

-- Freezes parameters; returns the names of those that were trainable before.
local function freeze(graph, o)
  local names, left, matches = {}, 0, parameters.matches
  for _, option in ipairs { "freeze", "train_only" } do
    if o[option] then parameters.patterns(o[option], "optimize: " .. option) end
  end
  for _, value in ipairs(parameters.list(graph)) do
    local keep = not (o.freeze and matches(value, o.freeze)) and (not o.train_only or matches(value, o.train_only))
    names[#names + 1] = value.name
    left = left + (keep and 1 or 0)
    graph:set_trainable(value.name, keep)
  end
  if left == 0 then error("optimize: no parameter is left to train", 0) end
  return names
end

local function new_settings(settings, o)
  local out, optimizer = options.merge(settings), options.merge(settings.optimizer)
  optimizer.learning_rate = o.learning_rate or optimizer.learning_rate
  out.optimizer = optimizer
  for _, name in ipairs { "l1", "l2", "weight_decay", "clip_norm", "clip_value" } do out[name] = o[name] or settings[name] end
  return out
end

local function fit_options(o)
  local given = {}
  for name, value in pairs(o) do given[name] = value end
  for _, name in ipairs(own) do given[name] = nil end
  if not given.validation_data and not given.validation_split then given.validation_split = 0.1 end
  return given
end

--- Optimises a model; see Model:optimize.
return function(model, x, y, given)
  local o, copy, names, history, message
  if data.is_dataset(x) then y, given = nil, y end
  o = options.check(given, rules, "optimize", 0)
  model:graph()
  copy = model:clone()
  copy.settings = new_settings(model.settings, o)
  if o.dropout then set_dropout(copy.built, o.dropout) end
  names = freeze(copy.built, o)
  if data.is_dataset(x) then
    history, message = fit.fit(copy, x, fit_options(o))
  else
    history, message = fit.fit(copy, x, y, fit_options(o))
  end
  for _, name in ipairs(names) do copy.built:set_trainable(name, true) end
  if not history then return nil, message end
  return copy, history
end
