--- Dense { units }: y = activation(x W + b), on the last axis.
-- Options: units, activation, use_bias (true), kernel_initializer ("glorot_uniform"), bias_initializer ("zeros").
-- A matrix goes through Gemm, more dimensions through MatMul.
-- @module mlserve.nn.dense

local activations = require "mlserve.nn.activations"
local layer = require "mlserve.nn.layer"

local format = string.format

return layer.define {
  kind = "Dense",
  options = {
    units = { type = "integer", min = 1, required = true, position = 1 },
    activation = activations.rule,
    use_bias = { type = "boolean", default = true },
    kernel_initializer = { type = { "string", "table", "function" }, default = "glorot_uniform" },
    bias_initializer = { type = { "string", "table", "function" }, default = "zeros" },
  },
  build = function(self, b, x)
    local shape = b:shape(x[1])
    local features = shape[#shape]
    local kernel, y
    if #shape < 2 or features < 1 then
      error(format("%s: an input of shape (rows, …, features) with a known number of features expected", tostring(self)), 0)
    end
    self.features = features
    kernel = b:parameter("kernel", { features, self.units }, self.kernel_initializer)
    if #shape == 2 then
      y = b:node("Gemm", { x[1], kernel, self.use_bias and b:parameter("bias", { self.units }, self.bias_initializer) or nil })
    else
      y = b:node("MatMul", { x[1], kernel })
      if self.use_bias then y = b:node("Add", { y, b:parameter("bias", { self.units }, self.bias_initializer) }) end
    end
    return activations.emit(b, self.activation, y)
  end,
  describe = function(self)
    local units = self.features and format("%d -> %d", self.features, self.units) or format("%d", self.units)
    return self.activation and units .. ", " .. self.activation or units
  end,
}
