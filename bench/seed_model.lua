-- seed_model.lua PATH: writes the network that the benchmarks run: 30 numbers, dense 128, 64 (relu), 1 (sigmoid), with random weights.
local nn = require "mlserve.nn"

local model = nn.Sequential {
  input_name = "x", output_name = "y",
  nn.Dense { 128, activation = "relu" },
  nn.Dense { 64, activation = "relu" },
  nn.Dense { 1, activation = "sigmoid" },
}
model:compile { input_shape = { 30 }, seed = 1 }
assert(model:save(arg[1]))
