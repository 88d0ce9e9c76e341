--- Layers that change the shape of a row and nothing else.
-- @module mlserve.nn.reshaping

local layer = require "mlserve.nn.layer"

local concat = table.concat

local reshaping = {}

--- Flatten: each row as one vector.
reshaping.Flatten = layer.define {
  kind = "Flatten",
  build = function(_, b, x) return b:node("Flatten", x, { axis = 1 }) end,
}

--- Reshape { target_shape }: each row in another shape, e.g. Reshape { { 8, 8 } }; one dimension may be -1.
reshaping.Reshape = layer.define {
  kind = "Reshape",
  options = { target_shape = { type = "shape", required = true, position = 1 } },
  build = function(self, b, x)
    local dims = { 0 } -- 0: as it is, the batch
    for i, dimension in ipairs(self.target_shape) do dims[i + 1] = dimension end
    return b:node("Reshape", { x[1], b:constant("shape", dims, "int64") })
  end,
  describe = function(self) return concat(self.target_shape, " x ") end,
}

return reshaping
