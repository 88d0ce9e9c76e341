-- Images: 8 x 8 grey levels of handwritten digits to ten scores, saved with a signature of its own.
-- In the checkout: bin/mlserve train examples/digits.lua
local mlserve = require "mlserve"
local nn, data = mlserve.nn, mlserve.data

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local base = arg[1] or "models/digits"

-- The file has a column per pixel; a tensor (rows, 8, 8, 1) has the shape of images: height, width, channels.
local columns = assert(data.csv(here .. "/data/digits.csv", { label = "digit", task = "categorical" }))
local images = columns:inputs():reshape { -1, 8, 8, 1 }
local set = assert(data.dataset(images, columns.labels, { task = "categorical", classes = columns.classes }))
local train, test = set:split { test = 0.2, stratify = true, seed = 3 }
print("images    " .. tostring(images:shape()[1]) .. " of 8 x 8 pixels, " .. #train .. " to train on")

local model = nn.Sequential {
  nn.Rescaling { 1 / 16 },                   -- grey levels 0 to 16 become 0 to 1
  nn.Flatten(),                              -- (rows, 8, 8, 1) becomes (rows, 64)
  nn.Dense { 64, activation = "relu" },
  nn.Dense { 10, activation = "softmax" },   -- one probability per digit
}
model:compile { optimizer = "adam", loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
model:fit(train, { epochs = 15, batch_size = 32, validation_split = 0.1, seed = 3 })
print(model:evaluate(test))

-- Names and shapes as clients see them.
model:set_signature {
  inputs = { image = { shape = { -1, 8, 8, 1 }, dtype = "float32" } },
  outputs = { scores = { shape = { -1, 10 }, dtype = "float32" } },
}
assert(model:save(base .. "/1/model.onnx"))

-- Load it back, as a server would, and look at one digit.
local served = assert(mlserve.load(base .. "/1/model.onnx"))
local scores = served:predict { image = images:rows(1, 1) }.scores:totable()[1]
local best = 1
for i, score in ipairs(scores) do
  if score > scores[best] then best = i end
end
print(("the first image shows a %s, the model says %s (%.1f %%)"):format(columns.labels:get(1), columns.classes[best],
  100 * scores[best]))
