--- Dropout { rate }: while training, each element is 0 with probability rate and the others are divided by 1 - rate; idle otherwise.
-- The rate is an initialiser named NAME/ratio, so that optimising a saved model can change it.
-- @module mlserve.nn.dropout

local layer = require "mlserve.nn.layer"

return layer.define {
  kind = "Dropout",
  options = { rate = { type = "number", min = 0, below = 1, required = true, position = 1 } },
  build = function(self, b, x) return b:node("Dropout", { x[1], b:constant("ratio", self.rate) }) end,
  describe = function(self) return string.format("%g", self.rate) end,
}
