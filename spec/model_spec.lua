-- The model object: predicting, evaluating, saving and loading.
local core = require "mlserve.core"
local datasets = require "spec.support.datasets"
local mlserve = require "mlserve"

local nn = mlserve.nn

local function temporary_directory()
  local path = os.tmpname()
  os.remove(path)
  assert(core.make_directories(path))
  return path
end

local function remove(path) os.execute("rm -rf '" .. path .. "'") end

local function fixed(values) return function() return core.tensor(values) end end

-- scores = sigmoid(2 x1 - x2 + 0.5)
local function known_model()
  local model = nn.Sequential {
    nn.Dense { 1, kernel_initializer = fixed { { 2 }, { -1 } }, bias_initializer = { "constant", value = 0.5 }, activation = "sigmoid" },
  }
  return model:compile { input_shape = { 2 } }
end

local function sigmoid(z) return 1 / (1 + math.exp(-z)) end

describe("model:predict", function()
  it("takes arrays, tensors, named inputs and data sets", function()
    local model, rows = known_model(), { { 1, 2 }, { 0, -1 } }
    local expected = { sigmoid(0.5), sigmoid(1.5) }
    local set = assert(mlserve.data.dataset(rows, { 0, 1 }))
    for _, out in ipairs {
      model:predict(rows), model:predict(core.tensor(rows)), model:predict(core.tensor(rows, "float64")),
      model:predict({ features = rows }).scores, model:predict(set),
    } do
      assert.same({ 2, 1 }, out:shape())
      for i = 1, 2 do assert.is_true(math.abs(out:get(i, 1) - expected[i]) < 1e-6) end
    end
  end)

  it("predicts into a tensor", function()
    local model, out = known_model(), core.zeros { 2, 1 }
    model:predict_into(out, core.tensor { { 1, 2 }, { 0, -1 } })
    assert.is_true(math.abs(out:get(1, 1) - sigmoid(0.5)) < 1e-6)
    assert.error_matches(function() model:predict_into(core.zeros { 3, 1 }, core.tensor { { 1, 2 } }) end, "the output tensor is")
  end)

  it("names what does not fit", function()
    local model = known_model()
    assert.error_matches(function() model:predict { { 1, 2, 3 } } end, "predict: .*features")
    assert.error_matches(function() model:predict { other = { { 1, 2 } }, more = { { 1, 2 } } } end, "input 'features' is not among the inputs given")
    assert.error_matches(function() model:predict { { 1, 2 }, { 3 } } end, "%[2%]")
  end)
end)

describe("model:evaluate", function()
  local model, x, y = known_model(), { { 1, 2 }, { 0, -1 }, { -1, 1 } }, { 1, 1, 0 }

  it("gives the loss and the metrics", function()
    -- cross-entropy by its definition: all three are classified rightly
    local loss = -(math.log(sigmoid(0.5)) + math.log(sigmoid(1.5)) + math.log(1 - sigmoid(-2.5))) / 3
    local report = model:evaluate(x, y)
    assert.is_true(math.abs(report.loss - loss) < 1e-6)
    assert.equal(1, report.accuracy)
    assert.equal(report.metrics.accuracy, report.accuracy)
    assert.same({ { 1, 0 }, { 0, 2 } }, report.confusion)
    assert.matches("accuracy +1.0000", tostring(report))
    assert.matches("true \\ predicted", tostring(report), 1, true)
  end)

  it("keeps to the metrics asked for", function()
    local report = model:evaluate(x, y, { metrics = { "accuracy" } })
    local names = {}
    for name in pairs(report.metrics) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "accuracy", "loss" }, names)
    assert.error_matches(function() model:evaluate(x, y, { metrics = { "acuracy" } }) end, "unknown metric 'acuracy'")
    assert.error_matches(function() model:evaluate(x, y, { metric = {} }) end, "unknown option 'metric'")
    assert.error_matches(function() model:evaluate(x) end, "labels expected")
  end)

  it("weighs rows", function()
    local report = model:evaluate(x, y, { sample_weight = { 3, 0, 0 } })
    assert.is_true(math.abs(report.loss + math.log(sigmoid(0.5))) < 1e-6)
  end)

  it("computes regression losses", function()
    local line = nn.Sequential { nn.Dense { 1, kernel_initializer = fixed { { 2 } } } }
    line:compile { input_shape = { 1 }, loss = "mse" }
    assert.is_true(math.abs(line:evaluate({ { 1 }, { 2 } }, { 3, 7 }).loss - 5) < 1e-6) -- (1 + 9) / 2
    line:compile { loss = "mae" }
    assert.is_true(math.abs(line:evaluate({ { 1 }, { 2 } }, { 3, 7 }).loss - 2) < 1e-6) -- (1 + 3) / 2
    line:compile { loss = "huber", delta = 2 }
    assert.is_true(math.abs(line:evaluate({ { 1 }, { 2 } }, { 3, 7 }).loss - 2.25) < 1e-6) -- (1/2 + 2 (3 - 1)) / 2
  end)

  it("takes class ids and one-hot rows for several classes", function()
    local softmax = nn.Sequential { nn.Dense { 3, kernel_initializer = fixed { { 1, 2, 3 } }, activation = "softmax" } }
    softmax:compile { input_shape = { 1 } }
    local z = math.exp(1) + math.exp(2) + math.exp(3)
    local expected = -(math.log(math.exp(3) / z) + math.log(1 / 3)) / 2
    assert.is_true(math.abs(softmax:evaluate({ { 1 }, { 0 } }, { 2, 0 }).loss - expected) < 1e-6)
    assert.is_true(math.abs(softmax:evaluate({ { 1 }, { 0 } }, { { 0, 0, 1 }, { 1, 0, 0 } }).loss - expected) < 1e-6)
    assert.is_table(softmax:evaluate({ { 1 }, { 0 } }, { 2, 0 }).averages.macro)
  end)

  it("refuses classes that are not the model's", function()
    local train = datasets.breast_cancer():split { test = 0.8 }
    local net = nn.Sequential { nn.Normalization(), nn.Dense { 1, activation = "sigmoid" } }
    assert(net:fit(train, { verbose = 0 }))
    local other = assert(mlserve.data.csv_text("a,b\n1,x\n2,y\n", { label = "b" }))
    assert.error_matches(function() net:evaluate(other) end, "classes %(x, y%) are not the model's %(benign, malignant%)")
  end)
end)

describe("model:compile", function()
  it("refuses what it does not know", function()
    local model = known_model()
    assert.error_matches(function() model:compile { loss = "entropy" } end, "one of binary_crossentropy")
    assert.error_matches(function() model:compile { optimizer = "adams" } end, "unknown optimizer 'adams'; known: adagrad, adam")
    assert.error_matches(function() model:compile { optimizer = { name = "sgd", beta1 = 0.9 } } end, "optimizer sgd: unknown option 'beta1'")
    assert.error_matches(function() model:compile { metrics = { "accurate" } } end, "unknown metric 'accurate'")
    assert.error_matches(function() model:compile { optimiser = "adam" } end, "unknown option 'optimiser'; known: clip_norm")
  end)

  it("infers the loss from the output", function()
    local function loss(activation, units)
      return nn.Sequential { nn.Dense { units, activation = activation } }:compile({ input_shape = { 2 } }):loss()
    end
    assert.equal("binary_crossentropy", loss("sigmoid", 1))
    assert.equal("categorical_crossentropy", loss("softmax", 3))
    assert.equal("mse", loss(nil, 1))
  end)
end)

describe("model files", function()
  local directory, model, test
  setup(function()
    local train
    directory = temporary_directory()
    train, test = datasets.breast_cancer():split { test = 0.2, stratify = true, seed = 7 }
    model = nn.Sequential {
      nn.Normalization(), nn.Dense { 8, activation = "relu" }, nn.BatchNormalization(), nn.Dropout(0.1), nn.Dense { 1, activation = "sigmoid" },
    }
    model:compile { optimizer = { name = "sgd", learning_rate = 0.1, momentum = 0.9 }, metrics = { "accuracy" } }
    assert(model:fit(train, { epochs = 3, verbose = 0, validation_split = 0.1 }))
  end)
  teardown(function() remove(directory) end)

  it("come back as they were", function()
    model:evaluate(test)
    local file = assert(model:save(directory .. "/one.onnx"))
    local loaded = assert(mlserve.load(file))
    assert.equal(model:predict(test):tobytes(), loaded:predict(test):tobytes())
    assert.same(model:inputs(), loaded:inputs())
    assert.same(model:outputs(), loaded:outputs())
    assert.same({ "benign", "malignant" }, loaded.classes)
    assert.equal(30, #loaded.features)
    assert.equal("binary_crossentropy", loaded:loss())
    assert.equal("sgd", loaded.settings.optimizer.name)
    assert.is_true(math.abs(loaded.settings.optimizer.momentum - 0.9) < 1e-9)
    assert.equal(model:evaluate(test).accuracy, loaded:evaluate(test).accuracy)
    local meta = loaded:metadata()
    for _, key in ipairs { "signature", "classes", "features", "training", "evaluation" } do assert.is_string(meta["mlserve." .. key]) end
    assert.equal(3, core.json_decode(meta["mlserve.training"]).epochs)
  end)

  it("keep what is trained apart from what is not", function()
    local loaded = assert(mlserve.load(assert(model:save(directory .. "/flags.onnx"))))
    local function trainable(m)
      local names = {}
      for _, value in ipairs(m:graph():initializers()) do
        if value.trainable then names[#names + 1] = value.name end
      end
      table.sort(names)
      return names
    end
    assert.same(trainable(model), trainable(loaded))
    local better = assert(loaded:optimize(test, { epochs = 1, verbose = 0 }))
    assert.equal(loaded:graph():get_initializer("normalization/mean"):tobytes(), better:graph():get_initializer("normalization/mean"):tobytes())
  end)

  it("lie in versions", function()
    local base = directory .. "/cancer"
    assert.equal(base .. "/1/model.onnx", model:save(base))
    assert.equal(base .. "/2/model.onnx", model:save(base))
    assert(model:save(base .. "/10/model.onnx"))
    assert.equal(base .. "/11/model.onnx", model:save(base))
    assert(core.make_directories(base .. "/12")) -- not whole yet
    assert.equal(base .. "/11/model.onnx", assert(mlserve.load(base)).path)
    assert.equal(base .. "/2/model.onnx", assert(mlserve.load(base .. "/2")).path)
  end)

  it("fail with a message", function()
    local file = directory .. "/file"
    assert(io.open(file, "w")):close()
    local saved, message = model:save(file .. "/model.onnx")
    assert.is_nil(saved)
    assert.is_string(message)
    local broken = directory .. "/broken.onnx"
    local f = assert(io.open(broken, "wb"))
    f:write "this is no model"
    f:close()
    local loaded, why = mlserve.load(broken)
    assert.is_nil(loaded)
    assert.matches("broken.onnx", why, 1, true)
  end)
end)

describe("a model", function()
  it("has a summary", function()
    local text = known_model():summary()
    assert.matches("dense +Gemm, Sigmoid +%(%-1, 1%) +3", text)
    assert.matches("Parameters: 3 %(3 trainable%)", text)
  end)

  it("is cloned with weights of its own", function()
    local model = known_model()
    local copy = model:clone()
    assert(copy:fit({ { 1, 2 }, { 3, 4 } }, { 0, 1 }, { epochs = 3, verbose = 0 }))
    assert.same({ { 2 }, { -1 } }, model:graph():get_initializer("dense/kernel"):totable())
    assert.not_same({ { 2 }, { -1 } }, copy:graph():get_initializer("dense/kernel"):totable())
  end)

  it("takes a signature and checks it", function()
    local model = known_model()
    model:set_signature { inputs = { x = { shape = { -1, 2 }, dtype = "float32" } }, outputs = { y = { shape = { -1, 1 } } } }
    assert.equal("x", model:inputs()[1].name)
    assert.equal("y", model:outputs()[1].name)
    assert.is_true(math.abs(model:predict({ x = { { 1, 2 } } }).y:item() - sigmoid(0.5)) < 1e-6)
    assert.error_matches(function() model:set_signature { inputs = { x = { shape = { -1, 3 } } } } end, "input 'x': the model's shape is")
    assert.error_matches(function() model:set_signature { inputs = { x = { dtype = "int64" } } } end, "input 'x': the model has float32")
    assert.error_matches(function() model:set_signature { input = {} } end, "unknown option 'input'")
  end)

  it("can be closed", function()
    local model = known_model()
    model:predict { { 1, 2 } }
    model:close()
    assert.error_matches(function() model:predict { { 1, 2 } } end, "closed")
  end)
end)
