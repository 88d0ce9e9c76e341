--- Networks: how layers are connected, until there is a graph.
-- A network has build { inputs, data, seed } -> graph, where inputs is an array of { name, dtype, shape } (for a Sequential without
-- an Input; a functional model has its own) and data the training data by input name. describe() lists its layers.
-- @module mlserve.nn.network

local builder = require "mlserve.nn.builder"
local layer = require "mlserve.nn.layer"
local options = require "mlserve.options"

local format = string.format

local network = {}

-- Marks an output under its name; a value that is an input as well gets a node of its own.
local function mark_output(b, id, name)
  for _, input in ipairs(b.graph:inputs()) do
    if input.name == b.graph:value(id).name then id = b.graph:node("Identity", { id }) end
  end
  b.graph:output(id, name)
end

-- ---- Input ----

local input_rules = {
  shape = { type = "shape", required = true, position = 1 },
  dtype = { type = "string", default = "float32" },
  name = { type = "string" },
}

local InputLayer = { kind = "Input" }
local input_class = {
  __index = InputLayer,
  __name = "mlserve.nn.Input",
  __tostring = function(self) return format("Input(%s)", table.concat(self.shape, " x ")) end,
}

--- Input { shape = {30}, dtype = "float32", name = "features" }: where data enter a model; shape is that of one row.
---@param given table
---@return table symbol
function network.Input(given)
  return layer.symbol(setmetatable(options.check(given, input_rules, "Input"), input_class), {})
end

local function is_input(symbol)
  return layer.is_symbol(symbol) and getmetatable(symbol.layer) == input_class
end

local function signature(input, name)
  local shape = { -1 }
  for i, dimension in ipairs(input.layer.shape) do shape[i + 1] = dimension end
  return { name = name, dtype = input.layer.dtype, shape = shape }
end

-- ---- Sequential ----

local Sequential = {}
Sequential.__index = Sequential

--- Layers one after the other.
---@param layers table[] an Input may come first
---@param name string of the graph
---@param input_name string|nil default "features", or what the data say
---@param output_name string|nil default "scores"
function network.sequential(layers, name, input_name, output_name)
  local self = setmetatable({ layers = {}, name = name, input_name = input_name, output_name = output_name or "scores" }, Sequential)
  for i, entry in ipairs(layers) do
    if i == 1 and is_input(entry) then
      self.own_inputs = { signature(entry, entry.layer.name or input_name or "features") }
    elseif layer.is_layer(entry) then
      self.layers[#self.layers + 1] = entry
    else
      error(format("Sequential: layer %d: a layer expected, got %s", i, type(entry)), 3)
    end
  end
  if #self.layers == 0 then error("Sequential: at least one layer expected", 3) end
  return self
end

function Sequential:build(given)
  local b = builder.new(self.name, given.seed, given.data)
  local inputs, ids, names = self.own_inputs or given.inputs, {}, {}
  local x
  for i, input in ipairs(inputs) do
    names[i] = #inputs == 1 and self.input_name or input.name
    if b.data and #inputs == 1 then b.data = { [names[i]] = (select(2, next(given.data))) } end
    ids[i] = b:input(names[i], input.dtype, input.shape)
  end
  if #ids > 1 and not self.layers[1].many then
    error(format("the data have %d inputs (%s): let the first layer be nn.Features(), or connect them with nn.Model",
      #ids, table.concat(names, ", ")), 0)
  end
  x = b:apply(self.layers[1], ids)
  for i = 2, #self.layers do x = b:apply(self.layers[i], { x }) end
  mark_output(b, x, self.output_name)
  return b.graph
end

function Sequential:describe() return self.layers end

-- ---- functional ----

local Functional = {}
Functional.__index = Functional

-- Symbols in the order they can be computed. An explicit stack: a network may be deeper than Lua's C stack likes.
local function in_order(outputs)
  local order, state, stack = {}, {}, {}
  for i = #outputs, 1, -1 do stack[#stack + 1] = outputs[i] end
  while #stack > 0 do
    local symbol = stack[#stack]
    if state[symbol] then
      stack[#stack] = nil
      if state[symbol] == "open" then
        state[symbol] = "done"
        order[#order + 1] = symbol
      end
    else
      state[symbol] = "open"
      for i = #symbol.inputs, 1, -1 do
        if not state[symbol.inputs[i]] then stack[#stack + 1] = symbol.inputs[i] end
      end
    end
  end
  return order
end

local function symbols(given, what)
  local list = layer.is_symbol(given) and { given } or given
  if type(list) ~= "table" then error(format("Model: %s: outputs of layers expected, got %s", what, type(given)), 4) end
  return list
end

-- Outputs given as an array are named "scores", "scores_1" …; as a table, by their keys (sorted).
local function named_outputs(given)
  local names, list, names_of = {}, symbols(given, "outputs"), {}
  if #list > 0 then
    for i = 1, #list do names[i] = i == 1 and "scores" or format("scores_%d", i - 1) end
    names_of = list
  else
    for name in pairs(list) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do names_of[i] = list[name] end
  end
  if #names == 0 then error("Model: at least one output expected", 4) end
  for i, symbol in ipairs(names_of) do
    if not layer.is_symbol(symbol) then error(format("Model: output '%s': the output of a layer expected", names[i]), 4) end
  end
  return names, names_of
end

--- Layers connected freely.
---@param inputs table|table[] symbols of nn.Input
---@param outputs table|table[] symbols, an array or by name
---@param name string of the graph
function network.functional(inputs, outputs, name)
  local self = setmetatable({ inputs = symbols(inputs, "inputs"), name = name, own_inputs = {} }, Functional)
  local known = {}
  self.output_names, self.outputs = named_outputs(outputs)
  for i, input in ipairs(self.inputs) do
    if not is_input(input) then error("Model: inputs are made by nn.Input", 3) end
    local input_name = input.layer.name or (i == 1 and "features" or format("features_%d", i - 1))
    self.own_inputs[i] = signature(input, input_name)
    known[input] = true
  end
  self.order = in_order(self.outputs)
  for _, symbol in ipairs(self.order) do
    if is_input(symbol) and not known[symbol] then error("Model: an nn.Input that the outputs need is not among the inputs", 3) end
  end
  return self
end

function Functional:build(given)
  local data, ids = given.data, {}
  local b
  if data and #self.own_inputs == 1 then data = { [self.own_inputs[1].name] = select(2, next(data)) } end
  b = builder.new(self.name, given.seed, data)
  for i, input in ipairs(self.own_inputs) do ids[self.inputs[i]] = b:input(input.name, input.dtype, input.shape) end
  for _, symbol in ipairs(self.order) do
    if not ids[symbol] then
      local from = {}
      for i, source in ipairs(symbol.inputs) do from[i] = ids[source] end
      ids[symbol] = b:apply(symbol.layer, from)
    end
  end
  for i, output in ipairs(self.outputs) do mark_output(b, ids[output], self.output_names[i]) end
  return b.graph
end

function Functional:describe()
  local layers = {}
  for _, symbol in ipairs(self.order) do layers[#layers + 1] = symbol.layer end
  return layers
end

return network
