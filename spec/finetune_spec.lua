-- Fine-tuning an imported model: another last layer, parameters frozen by name, on the network that PyTorch exported for the example.
-- spec/interop/check_finetune.py compares the steps themselves with PyTorch's.

local core = require "mlserve.core"
local datasets = require "spec.support.datasets"
local mlserve = require "mlserve"

local nn = mlserve.nn
local path = datasets.folder .. "examples/data/digits_cnn.onnx"

local function load() return assert(mlserve.load(path)) end

-- The digits first to last as images, classes from 0.
local function images(first, last)
  local set, rows, labels = datasets.digits(), {}, {}
  for i, id in ipairs(set.class_ids:totable()) do
    local digit = tonumber(set.classes[id + 1])
    if digit >= first and digit <= last then rows[#rows + 1], labels[#labels + 1] = i, digit - first end
  end
  return set:take(rows):inputs():reshape { -1, 1, 8, 8 }, core.tensor(labels, "int64")
end

local function names(model, pattern)
  local list = {}
  for _, parameter in ipairs(model:parameters(pattern)) do list[#list + 1] = parameter.name end
  table.sort(list)
  return list
end

local function trainable(model)
  local list = {}
  for _, parameter in ipairs(model:parameters()) do
    if parameter.trainable then list[#list + 1] = parameter.name end
  end
  table.sort(list)
  return list
end

local function bytes(model, pattern)
  local list = {}
  for _, value in ipairs(model:graph():initializers()) do
    if value.name:find(pattern) then list[#list + 1] = model:graph():get_initializer(value.name):tobytes() end
  end
  return table.concat(list)
end

local function refused(words, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "accepted")
  assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
end

local features = { "features.0.bias", "features.0.weight", "features.1.bias", "features.1.weight", "features.4.bias", "features.4.weight",
                   "features.5.bias", "features.5.weight" }

describe("a PyTorch export", function()
  it("knows the digits it was trained on", function()
    local x, y = images(0, 4)
    assert.is_true(assert(load():evaluate(x, y, { metrics = { "accuracy" } })).accuracy > 0.98)
  end)

  it("learns other digits with another last layer", function()
    local x, y = images(5, 9)
    local half = math.floor(#x / 2)
    local test_x, test_y = x:rows(half + 1, #x), y:rows(half + 1, #y)
    local model = load():replace_head { nn.Dense { 5, activation = "softmax" } }
    local function accuracy() return assert(model:evaluate(test_x, test_y, { metrics = { "accuracy" } })).accuracy end
    local before = accuracy()
    model:freeze "^features"
    local kept = bytes(model, "^features") -- running statistics too
    model:compile { optimizer = { name = "adam", learning_rate = 0.01 }, loss = "sparse_categorical_crossentropy" }
    assert(model:fit(x:rows(1, half), y:rows(1, half), { epochs = 8, batch_size = 32, seed = 2, verbose = 0 }))
    local head_only = accuracy()
    assert.is_true(before < 0.5 and head_only > 0.85, ("%.3f -> %.3f"):format(before, head_only))
    assert.are.equal(kept, bytes(model, "^features"))

    model:unfreeze "^features"
    model:compile { optimizer = { name = "adam", learning_rate = 0.001 }, loss = "sparse_categorical_crossentropy" }
    assert(model:fit(x:rows(1, half), y:rows(1, half), { epochs = 8, batch_size = 32, seed = 2, verbose = 0 }))
    assert.is_true(accuracy() > head_only, ("%.3f after %.3f"):format(accuracy(), head_only))
    assert.are_not.equal(kept, bytes(model, "^features"))
  end)
end)

describe("replace_head", function()
  it("leaves the model as it was, and starts where the last layer did", function()
    local model = load()
    local x = images(0, 0):rows(1, 3)
    local before = model:predict(x):totable()
    local other = model:replace_head { nn.Dense { 7, activation = "relu" }, nn.Dense(3), output_name = "logits" }
    assert.same(before, model:predict(x):totable())
    assert.same({ { name = "logits", dtype = "float32", shape = { -1, 3 } } }, other:outputs())
    assert.same({ { name = "image", dtype = "float32", shape = { -1, 1, 8, 8 } } }, other:inputs())
    assert.same({ 3, 3 }, other:predict(x):shape())
    assert.same({ "dense/bias", "dense/kernel", "dense_1/bias", "dense_1/kernel" }, names(other, "^dense"))
    assert.same({}, names(other, "classifier"))
  end)

  it("reads the tensor it is told to", function()
    local model = load()
    local output = model:outputs()[1].name
    local other = model:replace_head { nn.Dense(2), at = output }
    assert.same({ "classifier.bias", "classifier.weight" }, names(other, "classifier"))
    -- the old output is called what the new one is
    assert.same({ 1, 2 }, model:replace_head({ nn.Dense(2), at = output, output_name = output }):predict(images(0, 0):rows(1, 1)):shape())
  end)

  it("gives new layers names of their own, and can be repeated", function()
    local model = nn.Sequential { nn.Dense { 4, activation = "relu" }, nn.Dense { 2, activation = "softmax" } }
    model:compile { input_shape = { 3 } }
    local other = model:replace_head { nn.Dense { 5, activation = "softmax" } }
    assert.same({ "dense/bias", "dense/kernel", "dense_1/bias", "dense_1/kernel" }, names(other))
    assert.same({ { -1, 5 } }, { other:outputs()[1].shape })
    assert.same({ { -1, 6 } }, { other:replace_head({ nn.Dense(6) }):outputs()[1].shape })
  end)

  it("forgets the classes and keeps what was frozen", function()
    local x, y = images(0, 4)
    local model, file = load(), os.tmpname() .. ".onnx"
    model:freeze "^features"
    assert(model:evaluate(x, y))
    model.classes = { "a", "b", "c", "d", "e" }
    assert(model:save(file))
    local other = assert(mlserve.load(file)):replace_head { nn.Dense { 2, activation = "softmax" } }
    os.remove(file)
    assert.is_nil(other.classes)
    assert.is_nil(other:metadata()["mlserve.classes"])
    assert.same({ "dense/bias", "dense/kernel" }, trainable(other))
    assert.same(features, names(other, "features"))
  end)

  it("says what is wrong", function()
    local model = load()
    refused("at least one layer expected", model.replace_head, model, {})
    refused("layer 1: a layer expected, got number", model.replace_head, model, { 5 })
    refused("no tensor 'nowhere'", model.replace_head, model, { nn.Dense(2), at = "nowhere" })
    refused("would have an input's name", model.replace_head, model, { nn.Dense(2), output_name = "image" })
    refused("unknown option 'where'", model.replace_head, model, { nn.Dense(2), where = "x" })
    local graph = core.graph("no weights")
    graph:output((graph:node("Relu", { graph:input("x", "float32", { -1, 2 }) })))
    local file = os.tmpname()
    assert(core.onnx_save(graph, file .. ".onnx"))
    model = assert(mlserve.load(file .. ".onnx"))
    os.remove(file .. ".onnx")
    refused("no last layer with weights", model.replace_head, model, { nn.Dense(2) })
  end)
end)

describe("freeze and unfreeze", function()
  it("go by the names of parameters and of the nodes that read them", function()
    local model = load()
    assert.same(10, #trainable(model))
    model:freeze { "^features%.0", "^/classifier/" }
    assert.same({ "features.1.bias", "features.1.weight", "features.4.bias", "features.4.weight", "features.5.bias", "features.5.weight" },
      trainable(model))
    model:unfreeze "bias$"
    assert.same({ "classifier.bias", "features.0.bias", "features.1.bias", "features.1.weight", "features.4.bias", "features.4.weight",
                  "features.5.bias", "features.5.weight" }, trainable(model))
    assert.same(features, names(model, "features"))
  end)

  it("never train statistics", function()
    local model = load()
    model:freeze "."
    model:unfreeze "."
    assert.same({}, names(model, "running"))
    assert.same(10, #trainable(model))
  end)

  it("are saved with the model and copied with it", function()
    local file = os.tmpname() .. ".onnx"
    local model = load():freeze "^features"
    local copy = model:clone():unfreeze "^features"
    assert.same({ "classifier.bias", "classifier.weight" }, trainable(model))
    assert.same(10, #trainable(copy))
    assert(model:save(file))
    local again = assert(mlserve.load(file))
    os.remove(file)
    assert.same({ "classifier.bias", "classifier.weight" }, trainable(again))
    assert.same(10, #trainable(again:unfreeze "features"))
  end)

  it("let optimize change only the rest", function()
    local x, y = images(0, 4)
    local model = load():freeze "^features"
    model:compile { loss = "sparse_categorical_crossentropy" }
    local better = assert(model:optimize(x, y, { epochs = 1, verbose = 0 }))
    assert.are.equal(bytes(model, "^features"), bytes(better, "^features"))
    assert.are_not.equal(bytes(model, "^classifier"), bytes(better, "^classifier"))
  end)

  it("say what is wrong", function()
    local model = load()
    refused("no parameter's name matches 'nothing'; there are features.0.weight", model.freeze, model, "nothing")
    refused("a name pattern or an array of them expected, got nil", model.freeze, model)
    refused("a name pattern expected, got number", model.unfreeze, model, { 3 })
    refused("'[' is no Lua pattern", model.freeze, model, "[")
  end)
end)
