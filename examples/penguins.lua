-- Missing values and text columns: what has to be done about them becomes part of the model.
-- In the checkout: bin/mlserve train examples/penguins.lua
local mlserve = require "mlserve"
local nn, data = mlserve.nn, mlserve.data

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local base = arg[1] or "models/penguins"

-- Four measurements and two texts (island, sex); some penguins were not measured or their sex is not known.
local set = assert(data.csv(here .. "/data/penguins.csv", { label = "species" }))
local _, notes = assert(set:check())
print("data      " .. tostring(set))
for _, note in ipairs(notes) do print("note      " .. note) end
local train, test = set:split { test = 0.25, stratify = true, seed = 1 }

-- Features() makes one vector of all columns: the median in the place of a missing number, then (x - mean) / deviation; a place
-- for each word of a text column, and one for unknown or missing words. Everything it learns is stored in the graph.
local model = nn.Sequential {
  nn.Features(),
  nn.Dense { 16, activation = "relu" },
  nn.Dense { 3, activation = "softmax" },
}
model:compile { optimizer = "adam", loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
model:fit(train, { epochs = 40, batch_size = 16, validation_split = 0.1, patience = 10, seed = 1 })
print(model:evaluate(test))
assert(model:save(base .. "/1/model.onnx"))

-- The loaded model takes what was in the file: raw numbers (NaN where there is none) and texts ("" where there is none).
local served = assert(mlserve.load(base .. "/1/model.onnx"))
for _, input in ipairs(served:inputs()) do print(("input     %s %s"):format(input.name, input.dtype)) end
local scores = served:predict {
  numeric = { { 46.1, 13.2, 211, 0 / 0 } }, -- beak length and depth, flipper length; nobody weighed this one
  island = { { "Biscoe" } },
  sex = { { "" } },
}
local row = select(2, next(scores)):totable()[1]
for i, class in ipairs(set.classes) do print(("%-10s%.3f"):format(class, row[i])) end
