-- For check_onnxruntime.py: saves a model of every layer and activation in the directory given, as NAME.onnx.
local core = require "mlserve.core"
local nn = require "mlserve.nn"

local unpack = table.unpack or unpack -- luacheck: ignore
local directory = arg[1]
local words = core.tensor { { "red" }, { "green" }, { "blue" }, { "red" } }

local function save(name, model, data)
  local inputs = {}
  for input, tensor in pairs(data) do inputs[#inputs + 1] = { name = input, dtype = tensor:dtype(), shape = { -1, unpack(tensor:shape(), 2) } } end
  model:build { inputs = inputs, data = data, seed = 1 }
  assert(model:save(directory .. "/" .. name .. ".onnx"))
end

local function sequence(name, layers, data)
  layers.input_name = "x"
  save(name, nn.Sequential(layers), { x = data or core.random_normal({ 50, 6 }, 1, 2, 3, 1) })
end

for _, name in ipairs(nn.activations.names()) do sequence("activation_" .. name, { nn.Dense { 5, activation = name } }) end
sequence("relu_max", { nn.ReLU { max_value = 1 } })
sequence("leaky_relu", { nn.LeakyReLU { negative_slope = 0.2 } })
sequence("prelu", { nn.PReLU { alpha_initializer = "ones" } })
sequence("elu", { nn.ELU() })
sequence("softmax", { nn.Softmax() })
sequence("dropout", { nn.Dense { 8 }, nn.Dropout(0.5), nn.Dense { 3 } })
sequence("reshape", { nn.Reshape { { 3, 2 } }, nn.Dense { 4 }, nn.Flatten() })
sequence("batch_normalization", { nn.Dense { 8 }, nn.BatchNormalization(), nn.Activation "relu", nn.Dense { 3 } })
sequence("layer_normalization", { nn.Dense { 8 }, nn.LayerNormalization(), nn.Dense { 3 } })
sequence("normalization", { nn.Normalization(), nn.Dense { 3, activation = "softmax" } })
sequence("rescaling", { nn.Rescaling { 1 / 16, offset = -0.5 } })
sequence("imputer", { nn.Imputer(), nn.Dense { 3 } })
sequence("embedding", { nn.Embedding { 5, 3 }, nn.Flatten(), nn.Dense { 2 } }, core.tensor({ { 0, 1 }, { 4, 2 } }, "int64"))
sequence("one_hot", { nn.OneHot(), nn.Dense { 2 } }, words)
sequence("words", { nn.StringLookup(), nn.CategoryEncoding { 4 } }, words)
sequence("classes", { nn.CategoryEncoding { 6 }, nn.Dense { 2 } }, core.tensor({ { 0 }, { 4 } }, "int64"))

local x = nn.Input { shape = { 6 } }
for _, merge in ipairs { "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate" } do
  local a, b = nn.Dense { 4, activation = "tanh" }(x), nn.Dense { 4 }(x)
  save(merge:lower(), nn.Model { inputs = x, outputs = { y = nn[merge]() { a, b } } }, { x = core.random_normal({ 50, 6 }, 0, 1, 3, 1) })
end
