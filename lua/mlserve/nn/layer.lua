--- What every layer has in common.
-- A layer only stores its options; build() writes its ONNX nodes into a graph when the shape of its input is known. A layer
-- called with the result of another one (`x = nn.Dense { 8 }(x)`) gives a symbol, from which nn.Model collects the graph.
--
-- A class is a table with
--   kind      its name, as users write it
--   options   rules for mlserve.options; `name` is added
--   build     function (self, builder, inputs, learned) -> value: emits the nodes; inputs are value ids of the graph
--   describe  (optional) function (self) -> text between the parentheses of tostring
--   learn     (optional) function (self, tensor) -> table: what is taken from the training data before weights are trained
--   many      (optional) true: takes several inputs
-- @module mlserve.nn.layer

local options = require "mlserve.options"

local format = string.format

local layer = {}

local Symbol = { __name = "mlserve.nn.Symbol" }
Symbol.__index = Symbol
Symbol.__tostring = function(symbol) return "output of " .. tostring(symbol.layer) end

--- The result of a layer before there is a graph.
---@param owner table the layer
---@param inputs table[] symbols
---@return table symbol
function layer.symbol(owner, inputs)
  return setmetatable({ layer = owner, inputs = inputs }, Symbol)
end

---@return boolean
function layer.is_symbol(value)
  return getmetatable(value) == Symbol
end

---@return boolean
function layer.is_layer(value)
  local metatable = getmetatable(value)
  return type(metatable) == "table" and metatable.mlserve_layer == true
end

local function call(self, given)
  local inputs = layer.is_symbol(given) and { given } or given
  if type(inputs) ~= "table" or #inputs == 0 then
    error(format("%s: the output of another layer or nn.Input expected, got %s", self.kind, type(given)), 2)
  end
  for _, input in ipairs(inputs) do
    if not layer.is_symbol(input) then
      error(format("%s: outputs of layers expected, got an array holding a %s", self.kind, type(input)), 2)
    end
  end
  if #inputs > 1 and not self.many then error(format("%s takes one input, got %d", self.kind, #inputs), 2) end
  return layer.symbol(self, inputs)
end

local function describe(self)
  return format("%s(%s)", self.kind, self.describe and self:describe() or "")
end

-- Learns from data at once, for layers with `learn`; otherwise fit does it with the training set.
local function adapt(self, tensor)
  self.learned = self:learn(tensor)
  return self
end

--- Makes the constructor of a class of layers.
---@param class table
---@return function constructor
function layer.define(class)
  local rules = options.merge(class.options or {}, { name = { type = "string" } })
  local metatable = {
    __name = "mlserve.nn." .. class.kind, __index = class, __call = call, __tostring = describe, mlserve_layer = true,
  }
  if class.learn then class.adapt = adapt end
  return function(given)
    if given ~= nil and type(given) ~= "table" then given = { given } end
    local self = setmetatable(options.check(given, rules, class.kind), metatable)
    if class.check then class.check(self) end
    return self
  end
end

--- The stem of generated names: "LayerNormalization" gives "layer_normalization".
---@param kind string
---@return string
function layer.stem(kind)
  return (kind:gsub("ReLU", "Relu"):gsub("(%l)(%u)", "%1_%2"):lower())
end

return layer
