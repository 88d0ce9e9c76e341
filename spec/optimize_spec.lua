-- The second stage: regularisation, stop conditions, freezing, models from disk. Means over seeds, so that no claim rests on one draw.
local core = require "mlserve.core"
local datasets = require "spec.support.datasets"
local mlserve = require "mlserve"

local nn = mlserve.nn

local function trained(seed, train)
  local model = nn.Sequential {
    nn.Normalization(), nn.Dense { 64, activation = "relu" }, nn.Dense { 32, activation = "relu" }, nn.Dense { 1, activation = "sigmoid" },
  }
  model:compile { seed = seed, metrics = { "accuracy" } }
  assert(model:fit(train, { epochs = 8, verbose = 0, validation_split = 0.1 }))
  return model
end

local kernels = { "dense/kernel", "dense_1/kernel", "dense_2/kernel" }

-- Share of kernel elements that are 0, and the norm of all.
local function kernel_stats(model)
  local zeros, count, square = 0, 0, 0
  for _, name in ipairs(kernels) do
    for _, row in ipairs(model:graph():get_initializer(name):totable()) do
      for _, w in ipairs(row) do
        count, square = count + 1, square + w * w
        if w == 0 then zeros = zeros + 1 end
      end
    end
  end
  return zeros / count, math.sqrt(square)
end

local function weights(model, names)
  local parts = {}
  for i, name in ipairs(names) do parts[i] = model:graph():get_initializer(name):tobytes() end
  return table.concat(parts)
end

local function parts(seed, share) return datasets.breast_cancer():split { test = share or 0.2, stratify = true, seed = seed } end

describe("optimize", function()
  local train, test = parts(1)
  local model = trained(1, train)
  local before = weights(model, kernels)

  local function optimized(o)
    o.verbose, o.epochs = 0, o.epochs or 20
    o.patience = o.patience or o.epochs
    o.restore_best_weights = o.restore_best_weights or false
    return assert(model:optimize(train, o))
  end

  it("leaves the original as it was", function()
    local better = optimized { epochs = 2, dropout = 0.2 }
    assert.is_true(before == weights(model, kernels))
    assert.is_true(before ~= weights(better, kernels))
    assert.equal(8, #model:graph():nodes()) -- Sub, Div, three Gemm, three activations: no dropout
  end)

  it("makes weights 0 by L1", function()
    local plain = kernel_stats(optimized {})
    local l1 = optimized { l1 = 0.003 }
    local sparse = kernel_stats(l1)
    assert.is_true(plain < 0.01)
    assert.is_true(sparse > 0.1, "share of zeros: " .. sparse)
    assert.is_true(l1:evaluate(test).accuracy >= 0.9, "accuracy: " .. l1:evaluate(test).accuracy)
  end)

  it("shrinks weights by L2 and by weight decay", function()
    local _, plain = kernel_stats(optimized {})
    local _, l2 = kernel_stats(optimized { l2 = 0.01 })
    local _, decay = kernel_stats(optimized { weight_decay = 0.5 })
    assert.is_true(l2 < 0.9 * plain, string.format("%g against %g", l2, plain))
    assert.is_true(decay < 0.95 * plain, string.format("%g against %g", decay, plain))
  end)

  it("narrows the gap between training and validation by dropout and early stopping", function()
    local plain, regularised = 0, 0
    for seed = 1, 5 do
      local few, rest = parts(seed, 0.7)
      local start = trained(seed, few)
      local function gap(o)
        o.verbose, o.validation_data, o.epochs = 0, rest, 60
        local better = assert(start:optimize(few, o))
        return better:evaluate(rest).loss - better:evaluate(few).loss
      end
      plain = plain + gap { patience = 60, restore_best_weights = false } / 5
      regularised = regularised + gap { dropout = 0.5, l2 = 1e-3, patience = 5 } / 5
    end
    assert.is_true(regularised < 0.6 * plain, string.format("mean gap %g, regularised %g", plain, regularised))
  end)

  it("keeps the weights that validation liked best", function()
    local better, history = optimized { epochs = 60, patience = 4, validation_data = test, restore_best_weights = true }
    local best = 1
    for i, value in ipairs(history.val_loss) do
      if value < history.val_loss[best] then best = i end
    end
    assert.equal(best, history.best_epoch)
    assert.is_true(math.abs(history.val_loss[best] - better:evaluate(test).loss) < 1e-5)
    assert.equal(history, better:history())
  end)

  it("puts dropout after hidden activations, once", function()
    local function ratios(m)
      local list = {}
      for _, node in ipairs(m:graph():nodes()) do
        if node.op == "Dropout" then list[#list + 1] = m:graph():get_initializer(node.inputs[2]):item() end
      end
      return list
    end
    local once = optimized { epochs = 1, dropout = 0.5 }
    assert.same({ 0.5, 0.5 }, ratios(once))
    local twice = assert(once:optimize(train, { epochs = 1, verbose = 0, dropout = 0.25 }))
    assert.same({ 0.25, 0.25 }, ratios(twice))
    assert.equal(once:predict(test):tobytes(), once:predict(test):tobytes()) -- idle when predicting
    local line = nn.Sequential { nn.Dense { 1 } }:compile { input_shape = { 30 }, loss = "mse" }
    assert.error_matches(function() line:optimize(train, { dropout = 0.5, verbose = 0 }) end, "no hidden activation")
  end)

  it("trains only what it may", function()
    local better = optimized { epochs = 2, freeze = { "^dense/" } }
    assert.is_true(weights(model, { "dense/kernel", "dense/bias" }) == weights(better, { "dense/kernel", "dense/bias" }))
    assert.is_true(weights(model, { "dense_1/kernel" }) ~= weights(better, { "dense_1/kernel" }))
    better = optimized { epochs = 2, train_only = { "dense_2/" } }
    assert.is_true(weights(model, { "dense/kernel", "dense_1/kernel" }) == weights(better, { "dense/kernel", "dense_1/kernel" }))
    assert.is_true(weights(model, { "dense_2/kernel" }) ~= weights(better, { "dense_2/kernel" }))
    assert.is_true(better:graph():value("dense/kernel").trainable) -- for the next stage
    assert.error_matches(function() model:optimize(train, { train_only = { "nothing" } }) end, "no parameter is left to train")
  end)

  it("sets learning rate and clipping", function()
    local _, history = optimized { epochs = 1, learning_rate = 1e-4, clip_norm = 1 }
    assert.is_true(math.abs(history.learning_rate[1] - 1e-4) < 1e-10)
    assert.is_nil(model.settings.optimizer.learning_rate)
  end)

  it("refuses what it does not know", function()
    assert.error_matches(function() model:optimize(train, { drop_out = 0.5 }) end, "optimize: unknown option 'drop_out'; known: batch_size")
    assert.error_matches(function() model:optimize(train, { dropout = 1.5 }) end, "'dropout'.*below 1")
    assert.error_matches(function() nn.Sequential({ nn.Dense { 1 } }):optimize(train, {}) end, "no input shape yet")
  end)
end)

describe("optimize on models from disk", function()
  local train, test = parts(2)

  it("goes on with what training left", function()
    local path = os.tmpname()
    local model = trained(2, train)
    assert(model:save(path .. ".onnx"))
    local loaded = assert(mlserve.load(path .. ".onnx"))
    os.remove(path)
    os.remove(path .. ".onnx")
    local o = { l2 = 1e-4, dropout = 0.3, patience = 5, epochs = 10, validation_split = 0.1, verbose = 0 }
    local a, b = assert(model:optimize(train, o)), assert(loaded:optimize(train, o))
    assert.is_true(weights(a, kernels) == weights(b, kernels))
    assert.is_true(b:evaluate(test).accuracy >= 0.93)
    assert.same({ "accuracy" }, b.settings.metrics)
  end)

  it("infers the loss of a model made elsewhere", function()
    -- a graph with other names and a transposed kernel, without any metadata of ours
    local g, path = core.graph "foreign", os.tmpname()
    local x = g:input("input.1", "float32", { -1, 30 })
    local mean, deviation, columns = {}, {}, train:describe().columns
    for i, column in ipairs(columns) do mean[i], deviation[i] = column.mean, column.stddev end
    local scaled = g:node("Div", { g:node("Sub", { x, g:initializer("m", core.tensor(mean)) }), g:initializer("s", core.tensor(deviation)) })
    local h = g:node("Relu", { g:node("Gemm", {
      scaled, g:initializer("fc1.weight", core.random_normal({ 16, 30 }, 0, 0.2, 1, 1), true), g:initializer("fc1.bias", core.zeros { 16 }, true),
    }, { transB = 1 }) })
    local y = g:node("Sigmoid", { g:node("Gemm", {
      h, g:initializer("fc2.weight", core.random_normal({ 1, 16 }, 0, 0.2, 1, 2), true), g:initializer("fc2.bias", core.zeros { 1 }, true),
    }, { transB = 1 }) })
    g:output(y, "output")
    assert(core.onnx_save(g, path .. ".onnx"))
    local foreign = assert(mlserve.load(path .. ".onnx"))
    os.remove(path)
    os.remove(path .. ".onnx")
    assert.equal("binary_crossentropy", foreign:loss())
    local before = foreign:evaluate(test).loss
    local better = assert(foreign:optimize(train, { epochs = 30, dropout = 0.1, freeze = { "^[ms]$" }, verbose = 0 }))
    local report = better:evaluate(test)
    assert.is_true(report.loss < before)
    assert.is_true(report.accuracy >= 0.93)
  end)
end)
