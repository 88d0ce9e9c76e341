-- Training: steps against arithmetic done by hand, real data, determinism, stop conditions, callbacks, checkpoints.
local core = require "mlserve.core"
local datasets = require "spec.support.datasets"
local mlserve = require "mlserve"

local nn = mlserve.nn
local callbacks = nn.callbacks
local unpack = table.unpack or unpack -- luacheck: ignore

local function seed_network(seed, settings)
  local model = nn.Sequential {
    nn.Normalization(), nn.Dense { 128, activation = "relu" }, nn.Dense { 64, activation = "relu" },
    nn.Dense { 1, activation = "sigmoid" },
  }
  settings = settings or {}
  settings.seed = seed
  return model:compile(settings)
end

local function small_network()
  return nn.Sequential { nn.Normalization(), nn.Dense { 8, activation = "relu" }, nn.Dropout(0.2), nn.Dense { 1, activation = "sigmoid" } }
end

local function weights(model)
  local parts = {}
  for _, value in ipairs(model:graph():initializers()) do
    if value.dtype == "float32" then parts[#parts + 1] = value.name .. model:graph():get_initializer(value.name):tobytes() end
  end
  table.sort(parts)
  return table.concat(parts)
end

local function parts(seed) return datasets.breast_cancer():split { test = 0.2, stratify = true, seed = seed } end

local function last(list) return list[#list] end

-- y = w x + b from 0, mean squared error
local function line(settings)
  local model = nn.Sequential { nn.Dense { 1, kernel_initializer = "zeros" } }
  settings.loss = "mse"
  return model:compile(settings)
end

local function line_weights(model)
  return model:graph():get_initializer("dense/kernel"):item(), model:graph():get_initializer("dense/bias"):item()
end

local X, Y = { { 1 }, { 2 }, { 3 } }, { 2, 4, 6 }

local function near(expected, got) assert.is_true(math.abs(expected - got) < 1e-5, expected .. " expected, got " .. got) end

describe("fit, step by step", function()
  it("does gradient descent on the full batch", function()
    -- dw = mean 2 (w x + b - y) x = -56/3, db = -8
    local model = line { optimizer = { name = "sgd", learning_rate = 0.1 } }
    local history = model:fit(X, Y, { batch_size = "full", epochs = 1, verbose = 0 })
    local w, b = line_weights(model)
    near(5.6 / 3, w)
    near(0.8, b)
    near(56 / 3, history.loss[1])
  end)

  it("does momentum", function()
    -- v = 0.9 v - lr g, w = w + v; second gradients 88/45 and 16/15
    local model = line { optimizer = { name = "sgd", learning_rate = 0.1, momentum = 0.9 } }
    model:fit(X, Y, { batch_size = "full", epochs = 2, verbose = 0 })
    local w, b = line_weights(model)
    near(5.6 / 3 + 0.9 * 5.6 / 3 - 8.8 / 45, w)
    near(0.8 + 0.9 * 0.8 - 1.6 / 15, b)
  end)

  it("goes through mini-batches in order without shuffling", function()
    -- batch {1, 2}: dw = -10, db = -6; batch {3} at w = 1, b = 0.6: error -2.4, dw = -14.4, db = -4.8
    local model = line { optimizer = { name = "sgd", learning_rate = 0.1 } }
    model:fit(X, Y, { batch_size = 2, shuffle = false, verbose = 0 })
    local w, b = line_weights(model)
    near(2.44, w)
    near(1.08, b)
  end)

  it("clips gradients", function()
    local model = line { optimizer = { name = "sgd", learning_rate = 0.1 }, clip_value = 1 }
    model:fit(X, Y, { batch_size = "full", verbose = 0 })
    near(0.1, (line_weights(model)))
    model = line { optimizer = { name = "sgd", learning_rate = 0.1 }, clip_norm = 1 }
    model:fit(X, Y, { batch_size = "full", verbose = 0 })
    local w, b = line_weights(model)
    near(0.01, w * w + b * b)
  end)

  it("weighs rows and classes", function()
    -- only row 1 counts: dw = -4/3, db = -4/3 (the mean is over all rows)
    local model = line { optimizer = { name = "sgd", learning_rate = 0.3 } }
    model:fit(X, Y, { batch_size = "full", sample_weight = { 1, 0, 0 }, verbose = 0 })
    near(0.4, (line_weights(model)))

    local function pull(class_weight) -- of a bias alone: sigmoid(0) - y, weighted
      local net = nn.Sequential { nn.Dense { 1, kernel_initializer = "zeros", activation = "sigmoid" } }
      net:compile { optimizer = { name = "sgd", learning_rate = 1 } }
      net:fit({ { 0 }, { 0 }, { 0 }, { 0 } }, { 1, 0, 0, 0 }, { batch_size = "full", class_weight = class_weight, verbose = 0 })
      return net:graph():get_initializer("dense/bias"):item()
    end
    near((0.5 - 1.5) / 4, pull(nil))
    near(0, pull "balanced")
    near((0.5 - 3) / 4, pull { 2, 1 })
  end)

  it("shows the loss before the step, as a mean over rows", function()
    local model = line { optimizer = { name = "sgd", learning_rate = 1e-9 } }
    local history = model:fit(X, Y, { batch_size = 2, epochs = 2, verbose = 0 })
    near(56 / 3, history.loss[1])
    assert.equal(2, history.epochs)
    assert.equal("epochs", history.stop_reason)
  end)
end)

describe("fit on real data", function()
  it("learns breast cancer to 0.95 on rows it has not seen, whatever the seed", function()
    for seed = 1, 3 do
      local train, test = parts(seed)
      local model = seed_network(seed, { optimizer = "adam", loss = "binary_crossentropy", metrics = { "accuracy", "f1", "auc" } })
      local history = model:fit(train, { epochs = 10, batch_size = 32, validation_split = 0.1, verbose = 0 })
      assert.equal(10, #history.loss)
      for _, name in ipairs { "accuracy", "f1", "auc", "val_loss", "val_accuracy", "val_f1", "val_auc" } do
        assert.equal(10, #history[name], name)
      end
      assert.is_true(last(history.loss) < history.loss[1] / 3)
      assert.is_true(model:evaluate(test).accuracy >= 0.95)
    end
  end)

  it("learns with every optimiser", function()
    local train, test = parts(1)
    for name, o in pairs {
      sgd = { learning_rate = 0.05, momentum = 0.9, nesterov = true }, adam = {}, adamw = {}, rmsprop = {}, adagrad = { learning_rate = 0.05 },
    } do
      o.name = name
      local model = seed_network(1, { optimizer = o })
      model:fit(train, { epochs = 8, verbose = 0 })
      assert.is_true(model:evaluate(test).accuracy >= 0.93, name)
    end
  end)

  it("learns by full-batch gradient descent", function()
    local train, test = parts(2)
    local model = seed_network(2, { optimizer = { name = "sgd", learning_rate = 0.3 } })
    local history = model:fit(train, { epochs = 60, batch_size = "full", verbose = 0 })
    assert.is_true(last(history.loss) < 0.15)
    assert.is_true(model:evaluate(test).accuracy >= 0.93)
  end)

  it("learns ten classes", function()
    local train, test = datasets.digits():split { test = 0.2, stratify = true, seed = 3 }
    local model = nn.Sequential { nn.Rescaling { 1 / 16 }, nn.Dense { 64, activation = "relu" }, nn.Dense { 10, activation = "softmax" } }
    model:compile { metrics = { "accuracy" } }
    model:fit(train, { epochs = 20, verbose = 0 })
    local report = model:evaluate(test)
    assert.is_true(report.accuracy >= 0.94)
    assert.equal(10, #report.confusion)
    assert.equal(10, #report.per_class)
  end)

  it("learns from columns of numbers, texts and holes", function()
    local train, test = datasets.penguins():split { test = 0.25, stratify = true, seed = 1 }
    local model = nn.Sequential { nn.Features(), nn.Dense { 16, activation = "relu" }, nn.Dense { 3, activation = "softmax" } }
    model:fit(train, { epochs = 30, verbose = 0 })
    assert.is_true(model:evaluate(test).accuracy >= 0.95)
    local out = model:predict { numeric = { { 0 / 0, 15, 220, 5000 } }, island = { { "Atlantis" } }, sex = { { "" } } }
    near(1, out.scores:get(1, 1) + out.scores:get(1, 2) + out.scores:get(1, 3))
  end)

  it("says which layer to use for several inputs", function()
    local model = nn.Sequential { nn.Dense { 3, activation = "softmax" } }
    assert.error_matches(function() model:fit(datasets.penguins(), { verbose = 0 }) end, "3 inputs.*nn.Features")
  end)

  it("normalises with the training rows alone", function()
    local train, test = parts(4)
    local all, alone = seed_network(1), seed_network(1)
    all:fit(train, { validation_data = test, verbose = 0 })
    alone:fit(train, { verbose = 0 })
    assert.is_true(weights(alone) == weights(all))
  end)
end)

describe("fit is deterministic", function()
  local train = parts(5)

  local function trained(seed, threads)
    core.set_threads(threads or 0)
    local model = small_network()
    model:fit(train, { epochs = 3, seed = seed, verbose = 0 })
    core.set_threads(0)
    return weights(model)
  end

  it("for a seed", function()
    assert.is_true(trained(1) == trained(1))
    assert.is_true(trained(1) ~= trained(2))
  end)

  it("for any number of threads", function() assert.is_true(trained(1, 1) == trained(1, 2)) end)

  it("whether steps run alone or together", function()
    local together, alone, steps = small_network(), small_network(), 0
    together:fit(train, { epochs = 2, verbose = 0 })
    alone:fit(train, { epochs = 2, verbose = 0, callbacks = { { on_batch_end = function() steps = steps + 1 end } } })
    assert.is_true(weights(together) == weights(alone))
    assert.equal(2 * math.ceil(#train / 32), steps)
  end)
end)

describe("fit stops", function()
  local train, test = parts(6)

  it("after steps", function()
    local model = small_network()
    local history = model:fit(train, { epochs = 50, max_steps = 20, verbose = 0 })
    assert.equal("steps", history.stop_reason)
    assert.equal(1, history.epochs) -- 15 steps make an epoch
  end)

  it("after a time", function()
    local history = small_network():fit(train, { epochs = 1000000, max_seconds = 0.05, verbose = 0 })
    assert.equal("time", history.stop_reason)
  end)

  it("at a target", function()
    local model = small_network():compile { metrics = { "accuracy" } }
    local history = model:fit(train, { epochs = 200, target = { "accuracy", 0.95 }, verbose = 0 })
    assert.equal("target", history.stop_reason)
    assert.is_true(last(history.accuracy) >= 0.95)
    assert.is_true(history.epochs == 1 or history.accuracy[history.epochs - 1] < 0.95)
  end)

  it("when validation no longer improves, with the best weights", function()
    local model = seed_network(1)
    local history = model:fit(train, { epochs = 200, validation_data = test, patience = 3, verbose = 0 })
    local best = 1
    for i, value in ipairs(history.val_loss) do
      if value < history.val_loss[best] then best = i end
    end
    assert.equal("early_stopping", history.stop_reason)
    assert.equal(best, history.best_epoch)
    assert.equal(best + 3, history.epochs)
    near(history.val_loss[best], model:evaluate(test).loss)
  end)

  it("at NaN, with the weights before it", function()
    local model = line { optimizer = { name = "sgd", learning_rate = 1e30 } }
    local history = model:fit({ { 100 }, { 200 } }, { 1, 2 }, { epochs = 9, verbose = 0 })
    assert.equal("nan", history.stop_reason)
    assert.matches("learning_rate", history.message)
    local w = line_weights(model)
    assert.is_true(w == w and math.abs(w) < math.huge)
  end)

  it("when a callback says so", function()
    local history = small_network():fit(train, {
      epochs = 50, verbose = 0, callbacks = { { on_epoch_end = function(_, run) if run.epoch == 2 then run:stop() end end } },
    })
    assert.equal("callback", history.stop_reason)
    assert.equal(2, history.epochs)
  end)

  it("at Ctrl-C, after the step", function()
    local history = small_network():fit(train, {
      epochs = 50, verbose = 0,
      callbacks = { { on_batch_end = function(_, run, logs)
        if run.epoch == 2 and logs.step == 4 then io.popen("kill -INT $PPID"):close() end
      end } },
    })
    assert.equal("interrupted", history.stop_reason)
    assert.equal(1, history.epochs)
    assert.matches("interrupted in epoch 2 after step [45]", history.message)
  end)
end)

describe("callbacks", function()
  local train, test = parts(7)

  it("are called in order", function()
    local calls = {}
    local spy = {}
    for _, hook in ipairs { "on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end" } do
      spy[hook] = function() calls[#calls + 1] = hook end
    end
    small_network():fit(train, { epochs = 2, verbose = 0, callbacks = { spy } })
    assert.same({
      "on_train_begin", "on_epoch_begin", "on_epoch_end", "on_epoch_begin", "on_epoch_end", "on_train_end",
    }, calls)
  end)

  it("are checked", function()
    local model = small_network()
    assert.error_matches(function() model:fit(train, { callbacks = { { on_epoch = 1 } } }) end, "unknown hook 'on_epoch'; known: on_batch_end")
    assert.error_matches(function() callbacks.EarlyStopping { patients = 3 } end, "EarlyStopping: unknown option 'patients'")
    assert.error_matches(function()
      model:fit(train, { verbose = 0, callbacks = { callbacks.EarlyStopping { monitor = "val_los" } } })
    end, "EarlyStopping: 'val_los' is not measured; known: learning_rate, loss")
  end)

  local function rates(callback, epochs)
    local model = line { optimizer = { name = "sgd", learning_rate = 0.5 } }
    return model:fit(X, Y, { epochs = epochs, verbose = 0, callbacks = { callback } }).learning_rate
  end

  local function same_rates(expected, got)
    assert.equal(#expected, #got)
    for i, rate in ipairs(expected) do near(rate, got[i]) end
  end

  it("schedule the learning rate", function()
    local Scheduler = callbacks.LearningRateScheduler
    same_rates({ 0.5, 0.25, 0.125 }, rates(Scheduler(function(epoch, rate) return epoch == 1 and rate or rate / 2 end), 3))
    same_rates({ 0.5, 0.25 * (1 + math.sqrt(0.5)), 0.25, 0.25 * (1 - math.sqrt(0.5)) }, rates(Scheduler { schedule = "cosine" }, 4))
    same_rates({ 0.5, 0.5, 0.05, 0.05 }, rates(Scheduler { schedule = "step", every = 2 }, 4))
    same_rates({ 0.5, 0.45, 0.405 }, rates(Scheduler { schedule = "exponential", factor = 0.9 }, 3))
    same_rates({ 0.125, 0.25, 0.375, 0.5 }, rates(Scheduler { schedule = "linear_warmup", warmup = 3 }, 4))
    same_rates({ 0.5, 1 / 3, 1 / 6 }, rates(Scheduler { schedule = "linear" }, 3))
  end)

  it("lower the learning rate on a plateau", function()
    local model = small_network()
    local values, at = { 1, 1, 1, 0.5, 0.5, 0.5, 0.5 }, 0
    local feed = { on_epoch_end = function(_, _, logs) at = at + 1 logs.watched = values[at] end }
    local history = model:fit(train, {
      epochs = 7, verbose = 0,
      callbacks = { feed, callbacks.ReduceLROnPlateau { monitor = "watched", patience = 2, factor = 0.5, min_lr = 3e-4 } },
    })
    same_rates({ 1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4, 3e-4 }, { 1e-3, 1e-3, 1e-3, unpack(history.learning_rate, 4) })
  end)

  it("write CSV", function()
    local path = os.tmpname()
    small_network():fit(train, { epochs = 2, verbose = 0, validation_data = test, callbacks = { callbacks.CSVLogger { path } } })
    local lines = {}
    for text in io.lines(path) do lines[#lines + 1] = text end
    os.remove(path)
    assert.equal(3, #lines)
    assert.equal("epoch,loss,val_loss", lines[1])
    assert.matches("^2,[%d.e-]+,[%d.e-]+$", lines[3])
  end)

  it("save the best model", function()
    local path = os.tmpname()
    local model = seed_network(1)
    local history = model:fit(train, {
      epochs = 12, verbose = 0, validation_data = test, callbacks = { callbacks.ModelCheckpoint { path .. ".onnx", save_best_only = true } },
    })
    local best = math.min(unpack(history.val_loss))
    near(best, assert(mlserve.load(path .. ".onnx")):evaluate(test).loss)
    os.remove(path)
    os.remove(path .. ".onnx")
  end)

  it("make fit fail when they cannot write", function()
    local path = os.tmpname() -- a file, so nothing can lie below it
    local history, message = small_network():fit(train, { verbose = 0, callbacks = { callbacks.CSVLogger(path .. "/log.csv") } })
    os.remove(path)
    assert.is_nil(history)
    assert.matches(path, message, 1, true)
  end)
end)

describe("checkpoints", function()
  local train, test = parts(8)
  local path
  before_each(function()
    path = os.tmpname()
    os.remove(path)
  end)
  after_each(function() os.remove(path) end)

  local function network()
    return nn.Sequential {
      nn.Normalization(), nn.Dense { 16, activation = "relu" }, nn.BatchNormalization(), nn.Dropout(0.3), nn.Dense { 1, activation = "sigmoid" },
    }:compile { metrics = { "accuracy" } }
  end

  local function options(more)
    local o = { epochs = 6, verbose = 0, validation_data = test, seed = 3, patience = 4 }
    for key, value in pairs(more or {}) do o[key] = value end
    return o
  end

  local function same_history(a, b)
    for _, name in ipairs { "loss", "accuracy", "val_loss", "val_accuracy" } do
      assert.equal(#a[name], #b[name])
      for i, value in ipairs(a[name]) do assert.is_true(math.abs(value - b[name][i]) < 1e-12, name) end
    end
    assert.equal(a.best_epoch, b.best_epoch)
    assert.equal(a.stop_reason, b.stop_reason)
  end

  it("let a run go on as if it had not stopped, between epochs and within one", function()
    local whole = network()
    local expected = whole:fit(train, options())
    for _, steps in ipairs { 30, 37 } do -- 15 steps an epoch
      os.remove(path)
      assert.equal("steps", network():fit(train, options { checkpoint = path, max_steps = steps }).stop_reason)
      local resumed = network()
      local history = assert(resumed:fit(train, options { checkpoint = path }))
      assert.is_true(weights(whole) == weights(resumed))
      same_history(expected, history)
    end
  end)

  it("survive a killed process", function()
    local whole = network()
    whole:fit(train, options())
    local script, interpreter = os.tmpname(), rawget(_G, "jit") and "luajit" or "lua5.4"
    local file = assert(io.open(script, "w"))
    file:write(string.format([[
      package.path, package.cpath = %q, %q
      local datasets = require "spec.support.datasets"
      local nn = require "mlserve.nn"
      local train, test = datasets.breast_cancer():split { test = 0.2, stratify = true, seed = 8 }
      nn.Sequential {
        nn.Normalization(), nn.Dense { 16, activation = "relu" }, nn.BatchNormalization(), nn.Dropout(0.3), nn.Dense { 1, activation = "sigmoid" },
      }:compile({ metrics = { "accuracy" } }):fit(train, {
        epochs = 6, verbose = 0, validation_data = test, seed = 3, patience = 4, checkpoint = %q,
        callbacks = { { on_batch_end = function(_, run, logs)
          if run.epoch == 4 and logs.step == 7 then os.execute("kill -KILL $PPID") end
        end } },
      })
    ]], package.path, package.cpath, path))
    file:close()
    os.execute(interpreter .. " " .. script .. " > " .. script .. ".log 2>&1")
    local log = assert(io.open(script .. ".log")):read "*a"
    os.remove(script)
    os.remove(script .. ".log")
    assert.equal("", (log:gsub("Killed%s*", "")))
    local tensors, metadata = assert(core.safetensors_load(path))
    assert.is_not_nil(tensors["param/dense/kernel"])
    assert.equal(3, core.json_decode(metadata["mlserve.checkpoint"]).epoch)
    local resumed = network()
    local history = assert(resumed:fit(train, options { checkpoint = path }))
    assert.is_true(weights(whole) == weights(resumed))
    assert.equal(6, #history.loss)
  end)

  it("are of one run only", function()
    network():fit(train, options { checkpoint = path, epochs = 1 })
    local history, message = network():fit(train, options { checkpoint = path, batch_size = 16 })
    assert.is_nil(history)
    assert.matches("made with batch_size = 32, this run has 16", message, 1, true)
    assert.is_table(network():fit(train, options { checkpoint = path, batch_size = 16, resume = false, epochs = 1 }))
    local file = assert(io.open(path, "wb"))
    file:write "rubbish"
    file:close()
    history, message = network():fit(train, options { checkpoint = path })
    assert.is_nil(history)
    assert.matches(path, message, 1, true)
  end)

  it("that cannot be written end training with a message", function()
    assert(io.open(path, "w")):close()
    local history, message = network():fit(train, options { checkpoint = path .. "/checkpoint", resume = false })
    assert.is_nil(history)
    assert.matches(path, message, 1, true)
  end)
end)

describe("fit refuses", function()
  local train = parts(9)

  it("what does not fit", function()
    local function refuses(pattern, ...)
      local arguments, n = { ... }, select("#", ...)
      assert.error_matches(function() small_network():fit(unpack(arguments, 1, n)) end, pattern)
    end
    refuses("fit: unknown option 'epoch'; known: batch_size", train, { epoch = 3 })
    refuses("integer of at least 1 or one of full expected, got 'half'", train, { batch_size = "half" })
    refuses("integer of at least 1 or one of full expected, got 0", train, { batch_size = 0 })
    refuses("number of at least 0 and below 1 expected, got 1", train, { validation_split = 1 })
    refuses("labels expected", { { 1 } }, nil, { verbose = 0 })
    refuses("2 rows of inputs and 1 labels", { { 1 }, { 2 } }, { 1 }, { verbose = 0 })
    refuses("'purple' is no class; known: benign", train, { class_weight = { purple = 2 }, verbose = 0 })
    refuses("one number for each of the", train, { sample_weight = { 1, 2 }, verbose = 0 })
    local three = nn.Sequential { nn.Dense { 3, activation = "sigmoid" } }
    assert.error_matches(function() three:fit({ { 1 }, { 2 } }, { 0, 1 }, { verbose = 0 }) end, "labels of shape %(2%) do not fit")
  end)

  it("with the caller's position", function()
    local ok, message = pcall(function() small_network():fit(train, { epoch = 3 }) end)
    assert.is_false(ok)
    assert.matches("fit_spec.lua:%d+: fit:", message)
  end)
end)
