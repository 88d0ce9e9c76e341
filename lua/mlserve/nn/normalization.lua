--- Layers that normalise what passes through a network while it is trained.
-- Ioffe & Szegedy 2015 (batches), Ba, Kiros & Hinton 2016 (layers); defaults are Keras's.
-- @module mlserve.nn.normalization

local layer = require "mlserve.nn.layer"

local normalization = {}

local function swap_axes(rank) -- the last axis second, and back
  local there, back = { 0, rank - 1 }, { 0 }
  for i = 1, rank - 2 do there[#there + 1] = i end
  for i = 2, rank - 1 do back[#back + 1] = i end
  back[#back + 1] = 1
  return there, back
end

--- BatchNormalization: (x - mean) / sqrt(variance + epsilon) gamma + beta for each feature (last axis); mean and variance are the
--- batch's while training and their running averages otherwise.
--- Options: momentum (0.99, of the running averages), epsilon (1e-3).
normalization.BatchNormalization = layer.define {
  kind = "BatchNormalization",
  options = {
    momentum = { type = "number", min = 0, max = 1, default = 0.99 },
    epsilon = { type = "number", above = 0, default = 1e-3 },
  },
  build = function(self, b, x)
    local shape, y = b:shape(x[1]), x[1]
    local features = { shape[#shape] }
    local there, back = swap_axes(#shape)
    if #shape > 2 then y = b:node("Transpose", { y }, { perm = there }) end
    y = b:node("BatchNormalization", {
      y, b:parameter("gamma", features, "ones"), b:parameter("beta", features, "zeros"),
      b:parameter("moving_mean", features, "zeros", false), b:parameter("moving_variance", features, "ones", false),
    }, { epsilon = self.epsilon, momentum = self.momentum })
    if #shape > 2 then y = b:node("Transpose", { y }, { perm = back }) end
    return y
  end,
}

--- LayerNormalization: (x - mean) / sqrt(variance + epsilon) gamma + beta over the last axis of each row. Options: epsilon (1e-3).
normalization.LayerNormalization = layer.define {
  kind = "LayerNormalization",
  options = { epsilon = { type = "number", above = 0, default = 1e-3 } },
  build = function(self, b, x)
    local shape = b:shape(x[1])
    local features = { shape[#shape] }
    return b:node("LayerNormalization", { x[1], b:parameter("gamma", features, "ones"), b:parameter("beta", features, "zeros") },
      { axis = -1, epsilon = self.epsilon })
  end,
}

return normalization
