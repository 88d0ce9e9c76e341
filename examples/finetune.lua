-- Fine-tuning: a network that PyTorch trained on the digits 0 to 4 learns the digits 5 to 9 from 100 images.
-- data/digits_cnn.onnx is PyTorch's export, as data/make_digits_cnn.py writes it. In the checkout: bin/mlserve train examples/finetune.lua
local mlserve = require "mlserve"
local nn, data = mlserve.nn, mlserve.data

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local base = arg[1] or "models/finetune"

-- Images (rows, 1, 8, 8) of the digits 5 to 9; their classes are 0 to 4.
local columns = assert(data.csv(here .. "/data/digits.csv", { label = "digit", task = "categorical" }))
local rows, labels = {}, {}
for i, digit in ipairs(columns.labels:totable()) do
  if digit >= 5 then rows[#rows + 1], labels[#labels + 1] = i, digit - 5 end
end
local images = columns:take(rows):inputs():reshape { -1, 1, 8, 8 }
local set = assert(data.dataset(images, mlserve.tensor(labels, "int64"), { task = "categorical", classes = { "5", "6", "7", "8", "9" } }))
local test, train = set:split { test = 100, stratify = true, seed = 3 }
print(("images    %d to train on, %d to test with"):format(#train, #test))

-- The exported network, with a new last layer. Its parameters have the names they had in PyTorch.
local pretrained = assert(mlserve.load(here .. "/data/digits_cnn.onnx"))
local model = pretrained:replace_head { nn.Dense { 5, activation = "softmax" } }
model:freeze("^features")
for _, parameter in ipairs(model:parameters()) do
  print(("  %-20s %s"):format(parameter.name, parameter.trainable and "is trained" or "stays"))
end

local function accuracy(what)
  local report = assert(model:evaluate(test, { metrics = { "accuracy" } }))
  print(("%-32s accuracy %.3f"):format(what, report.accuracy))
  return report
end
accuracy "before"

-- First the new layer alone, then everything, in small steps.
model:compile { optimizer = { name = "adam", learning_rate = 0.01 }, loss = "sparse_categorical_crossentropy" }
assert(model:fit(train, { epochs = 40, batch_size = 20, seed = 3, verbose = 0 }))
accuracy "the new layer trained"

model:unfreeze("^features")
model:compile { optimizer = { name = "adam", learning_rate = 0.001 }, loss = "sparse_categorical_crossentropy" }
assert(model:fit(train, { epochs = 40, batch_size = 20, seed = 3, verbose = 0 }))
accuracy "all layers trained"
print("saved to  " .. assert(model:save(base)))
