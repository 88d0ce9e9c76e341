--- Embedding { input_dim, output_dim }: a trained vector for each of input_dim ids (from 0); (rows, n) becomes (rows, n, output_dim).
-- Options: embeddings_initializer ("random_uniform" between -0.05 and 0.05).
-- @module mlserve.nn.embedding

local layer = require "mlserve.nn.layer"

return layer.define {
  kind = "Embedding",
  options = {
    input_dim = { type = "integer", min = 1, required = true, position = 1 },
    output_dim = { type = "integer", min = 1, required = true, position = 2 },
    embeddings_initializer = { type = { "string", "table", "function" }, default = "random_uniform" },
  },
  build = function(self, b, x)
    local ids, dtype = x[1], b:dtype(x[1])
    local vectors = b:parameter("embeddings", { self.input_dim, self.output_dim }, self.embeddings_initializer)
    if dtype ~= "int64" and dtype ~= "int32" then ids = b:node("Cast", { ids }, { to = 7 }) end -- 7: INT64
    return b:node("Gather", { vectors, ids }, { axis = 0 })
  end,
  describe = function(self) return string.format("%d -> %d", self.input_dim, self.output_dim) end,
}
