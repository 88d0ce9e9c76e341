-- Answers check_sklearn.py: trains a classifier on the given rows and says what it predicts for others.
local core = require "mlserve.core"
local nn = require "mlserve.nn"

dofile((arg[0]:gsub("classifier%.lua$", "question.lua")))(function(question)
  local layers = { nn.Normalization() }
  for _, units in ipairs(question.hidden) do layers[#layers + 1] = nn.Dense { units, activation = "relu" } end
  local binary = question.classes == 2
  layers[#layers + 1] = nn.Dense { binary and 1 or question.classes, activation = binary and "sigmoid" or "softmax" }
  local model = nn.Sequential(layers)
  local x, y = core.tensor(question.x, "float32"), core.tensor(question.y, binary and "float32" or "int64")
  model:compile { optimizer = "adam", loss = binary and "binary_crossentropy" or "sparse_categorical_crossentropy" }
  assert(model:fit(x, binary and y:reshape { -1, 1 } or y, { epochs = question.epochs, batch_size = 32, seed = 4, verbose = 0 }))
  return assert(model:predict(core.tensor(question.test, "float32"))):totable()
end)
