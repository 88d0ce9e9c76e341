--- Layers that make one value of several: Concatenate, Add, Subtract, Multiply, Average, Maximum, Minimum.
-- @module mlserve.nn.merging

local layer = require "mlserve.nn.layer"

local format = string.format

local merging = {}

--- Concatenate { axis = -1 }: inputs one after the other along an axis (1 is the batch).
merging.Concatenate = layer.define {
  kind = "Concatenate",
  many = true,
  options = { axis = { type = "integer", default = -1, position = 1 } },
  build = function(self, b, x) return b:node("Concat", x, { axis = self.axis > 0 and self.axis - 1 or self.axis }) end,
}

-- Operators of two inputs are chained.
local function binary(kind, op, most)
  merging[kind] = layer.define {
    kind = kind,
    many = true,
    build = function(_, b, x)
      local y = x[1]
      if #x < 2 or #x > most then error(format("%s: %s inputs expected, got %d", kind, most == 2 and "2" or "2 or more", #x), 0) end
      for i = 2, #x do y = b:node(op, { y, x[i] }) end
      return y
    end,
  }
end

binary("Add", "Add", math.huge)
binary("Multiply", "Mul", math.huge)
binary("Subtract", "Sub", 2)

local function variadic(kind, op)
  merging[kind] = layer.define { kind = kind, many = true, build = function(_, b, x) return b:node(op, x) end }
end

variadic("Average", "Mean")
variadic("Maximum", "Max")
variadic("Minimum", "Min")

return merging
