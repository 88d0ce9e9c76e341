-- From a CSV file to two versions of a model, step by step. In the checkout: bin/mlserve train examples/cancer.lua; with mlserve
-- installed also lua5.4 examples/cancer.lua. An argument (-o with mlserve train) is the directory to save in.
local mlserve = require "mlserve"
local nn, data = mlserve.nn, mlserve.data

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local base = arg[1] or "models/cancer"

-- 569 patients: 30 measurements of cell nuclei each, and the diagnosis.
local set = assert(data.csv(here .. "/data/breast_cancer.csv", { label = "diagnosis" }))
local train, test = set:split { test = 0.2, stratify = true, seed = 2 }
print("data      " .. tostring(set))
print(("split     %d rows to train on, %d held back to test"):format(#train, #test))

-- A network of two hidden layers. Normalization learns mean and deviation of each column from the training data; the statistics
-- are part of the saved model, so whoever serves it sends raw measurements.
local model = nn.Sequential {
  nn.Normalization(),
  nn.Dense { 128, activation = "relu" },
  nn.Dense { 64, activation = "relu" },
  nn.Dense { 1, activation = "sigmoid" },
}
model:compile { optimizer = "adam", loss = "binary_crossentropy", metrics = { "accuracy", "f1", "auc" } }

print("\n1. train for 10 epochs")
model:fit(train, { epochs = 10, batch_size = 32, validation_split = 0.1, seed = 2 })

print("\n2. evaluate on the rows the model has not seen")
print(model:evaluate(test))
assert(model:save(base .. "/1/model.onnx"))
print("saved     " .. base .. "/1/model.onnx")

-- Optimising goes on from the trained weights: a penalty on large weights, dropout while training, and a stop when the
-- validation loss has not improved for 5 epochs. The best weights are kept.
print("\n3. optimise: l2, dropout, early stopping")
local better = model:optimize(train, {
  l2 = 1e-4, dropout = 0.3, patience = 5, epochs = 100, validation_split = 0.1, seed = 2,
})

print("\n4. evaluate the optimised model on the same rows")
print(better:evaluate(test))
assert(better:save(base .. "/2/model.onnx"))
print("saved     " .. base .. "/2/model.onnx")
