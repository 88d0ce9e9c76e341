--- Activations by name, as the option of a layer or as layers of their own.
-- Each row emits ONNX nodes for one name; Keras's names and constants.
-- @module mlserve.nn.activations

local layer = require "mlserve.nn.layer"

local concat, sort = table.concat, table.sort
local format = string.format

local activations = {}

local function one(op, attributes)
  return function(b, x) return b:node(op, { x }, attributes) end
end

local emit = {
  linear = function(_, x) return x end,
  relu = one "Relu",
  sigmoid = one "Sigmoid",
  tanh = one "Tanh",
  softmax = one("Softmax", { axis = -1 }),
  log_softmax = one("LogSoftmax", { axis = -1 }),
  elu = one("Elu", { alpha = 1 }),
  selu = one "Selu",
  gelu = one "Gelu",
  softplus = one "Softplus",
  softsign = one "Softsign",
  exponential = one "Exp",
  mish = one "Mish",
  leaky_relu = one("LeakyRelu", { alpha = 0.2 }),
  hard_sigmoid = one("HardSigmoid", { alpha = 1 / 6, beta = 0.5 }),
  -- x sigmoid(x), in operators that every runtime has
  swish = function(b, x) return b:node("Mul", { x, b:node("Sigmoid", { x }) }) end,
}
emit.silu = emit.swish

--- The names of all activations, sorted.
---@return string[]
function activations.names()
  local names = {}
  for name in pairs(emit) do names[#names + 1] = name end
  sort(names)
  return names
end

--- The rule of an `activation` option.
activations.rule = { type = "string", choices = activations.names() }

--- Emits the nodes of an activation; nil is linear.
function activations.emit(b, name, x)
  if name == nil then return x end
  if not emit[name] then error(format("unknown activation '%s'; known: %s", name, concat(activations.names(), ", ")), 2) end
  return emit[name](b, x)
end

--- Activation { name }: any activation by its name.
activations.Activation = layer.define {
  kind = "Activation",
  options = { activation = { type = "string", choices = activations.names(), position = 1, required = true } },
  build = function(self, b, x) return activations.emit(b, self.activation, x[1]) end,
  describe = function(self) return self.activation end,
}

--- ReLU { max_value = nil }: max(x, 0), at most max_value.
activations.ReLU = layer.define {
  kind = "ReLU",
  options = { max_value = { type = "number", above = 0, position = 1 } },
  build = function(self, b, x)
    if not self.max_value then return b:node("Relu", x) end
    return b:node("Clip", { x[1], b:constant("min", 0), b:constant("max", self.max_value) })
  end,
  describe = function(self) return self.max_value and format("max_value %g", self.max_value) or "" end,
}

--- LeakyReLU { negative_slope = 0.3 }: x where positive, negative_slope x elsewhere.
activations.LeakyReLU = layer.define {
  kind = "LeakyReLU",
  options = { negative_slope = { type = "number", min = 0, default = 0.3, position = 1 } },
  build = function(self, b, x) return b:node("LeakyRelu", x, { alpha = self.negative_slope }) end,
  describe = function(self) return format("%g", self.negative_slope) end,
}

--- PReLU: x where positive, a trained slope for each feature elsewhere.
activations.PReLU = layer.define {
  kind = "PReLU",
  options = { alpha_initializer = { type = { "string", "table", "function" }, default = "zeros" } },
  build = function(self, b, x)
    local shape = b:shape(x[1])
    return b:node("PRelu", { x[1], b:parameter("alpha", { shape[#shape] }, self.alpha_initializer) })
  end,
}

--- ELU { alpha = 1 }: x where positive, alpha (exp(x) - 1) elsewhere.
activations.ELU = layer.define {
  kind = "ELU",
  options = { alpha = { type = "number", min = 0, default = 1, position = 1 } },
  build = function(self, b, x) return b:node("Elu", x, { alpha = self.alpha }) end,
  describe = function(self) return format("%g", self.alpha) end,
}

--- Softmax { axis = -1 }: exp(x) / sum exp(x) along an axis (1 is the batch).
activations.Softmax = layer.define {
  kind = "Softmax",
  options = { axis = { type = "integer", default = -1, position = 1 } },
  build = function(self, b, x) return b:node("Softmax", x, { axis = self.axis > 0 and self.axis - 1 or self.axis }) end,
}

return activations
