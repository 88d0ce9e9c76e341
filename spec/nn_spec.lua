-- Layers: shapes, values against formulas computed by hand or with Python's statistics module, initialisers against their definitions.
local core = require "mlserve.core"
local datasets = require "spec.support.datasets"
local nn = require "mlserve.nn"

local unpack = table.unpack or unpack -- luacheck: ignore

local function near(expected, got, tolerance)
  if type(expected) == "table" then
    assert.equal(#expected, #got)
    for i = 1, #expected do near(expected[i], got[i], tolerance) end
    return
  end
  assert.is_true(math.abs(expected - got) <= (tolerance or 1e-6) * math.max(1, math.abs(expected)),
    string.format("expected %.9g, got %.9g", expected, got))
end

-- The output of layers for rows, in inference mode.
local function apply(layers, rows)
  local model = nn.Sequential(layers)
  local x = core.tensor(rows)
  model:build {
    inputs = { { name = "features", dtype = x:dtype(), shape = { -1, unpack(x:shape(), 2) } } },
    data = { features = x }, seed = 0,
  }
  return model:predict(x):totable(), model
end

local function fixed(values) return function() return core.tensor(values) end end

describe("nn layers", function()
  it("compute what their formulas say", function()
    local x = { { -2, 0.5 }, { 1, 3 } }
    local cases = {
      { nn.ReLU(), { { 0, 0.5 }, { 1, 3 } } },
      { nn.ReLU { max_value = 2 }, { { 0, 0.5 }, { 1, 2 } } },
      { nn.LeakyReLU { negative_slope = 0.25 }, { { -0.5, 0.5 }, { 1, 3 } } },
      { nn.LeakyReLU(), { { -0.6, 0.5 }, { 1, 3 } } },
      { nn.PReLU { alpha_initializer = fixed { 0.5, 0.5 } }, { { -1, 0.5 }, { 1, 3 } } },
      { nn.ELU(), { { math.exp(-2) - 1, 0.5 }, { 1, 3 } } },
      { nn.Activation "tanh", { { -0.96402758, 0.46211716 }, { 0.76159416, 0.99505475 } } },
      { nn.Activation "sigmoid", { { 0.11920292, 0.62245933 }, { 0.73105858, 0.95257413 } } },
      { nn.Activation "swish", { { -0.23840584, 0.31122967 }, { 0.73105858, 2.85772238 } } },
      { nn.Activation "softplus", { { 0.12692801, 0.97407698 }, { 1.31326169, 3.04858735 } } },
      { nn.Activation "hard_sigmoid", { { 1 / 6, 0.5 + 0.5 / 6 }, { 2 / 3, 1 } } },
      { nn.Activation "linear", x },
      { nn.Softmax(), { { 0.07585818, 0.92414182 }, { 0.11920292, 0.88079708 } } },
      { nn.Rescaling { 2, offset = -1 }, { { -5, 0 }, { 1, 5 } } },
      { nn.Dropout(0.5), x },
      { nn.Dense { 1, kernel_initializer = fixed { { 2 }, { 3 } }, bias_initializer = { name = "constant", value = 1 } }, { { -1.5 }, { 12 } } },
      { nn.Dense { 1, kernel_initializer = fixed { { 2 }, { 3 } }, use_bias = false, activation = "relu" }, { { 0 }, { 11 } } },
      { nn.BatchNormalization { epsilon = 3 }, { { -1, 0.25 }, { 0.5, 1.5 } } }, -- running mean 0, variance 1: x / sqrt(1 + 3)
      { nn.LayerNormalization { epsilon = 1e-12 }, { { -1, 1 }, { -1, 1 } } },
      { nn.Normalization { mean = { 1, 2 }, variance = { 4, 0.25 } }, { { -1.5, -3 }, { 0, 2 } } },
    }
    for _, case in ipairs(cases) do near(case[2], (apply({ case[1] }, x)), 1e-6) end
  end)

  it("change shapes", function()
    assert.same({ { { 1, 2 }, { 3, 4 } } }, (apply({ nn.Reshape { { 2, 2 } } }, { { 1, 2, 3, 4 } })))
    assert.same({ { 1, 2, 3, 4 } }, (apply({ nn.Reshape { { -1, 2 } }, nn.Flatten() }, { { 1, 2, 3, 4 } })))
  end)

  it("look vectors up", function()
    local vectors = { { 1, 2 }, { 3, 4 }, { 5, 6 } }
    local out = apply({ nn.Embedding { 3, 2, embeddings_initializer = fixed(vectors) } }, { { 2, 0 }, { 1, 1 } })
    assert.same({ { { 5, 6 }, { 1, 2 } }, { { 3, 4 }, { 3, 4 } } }, out)
  end)

  it("work on more than two dimensions", function()
    local out = apply({ nn.Reshape { { 2, 2 } }, nn.Dense { 1, kernel_initializer = fixed { { 1 }, { 10 } } } }, { { 1, 2, 3, 4 } })
    assert.same({ { { 21 }, { 43 } } }, out)
    out = apply({ nn.Reshape { { 2, 2 } }, nn.BatchNormalization { epsilon = 3 } }, { { 1, 2, 3, 4 } })
    near({ { { 0.5, 1 }, { 1.5, 2 } } }, out)
  end)

  it("say what they are", function()
    assert.equal("Dense(3, relu)", tostring(nn.Dense { 3, activation = "relu" }))
    local layer = nn.Dense { 3, activation = "relu" }
    apply({ layer }, { { 1, 2 } })
    assert.equal("Dense(2 -> 3, relu)", tostring(layer))
    assert.equal("Dropout(0.25)", tostring(nn.Dropout { 0.25 }))
    assert.equal("Reshape(8 x 8)", tostring(nn.Reshape { { 8, 8 } }))
  end)

  it("refuse options they do not know", function()
    assert.error_matches(function() nn.Dense { 3, activations = "relu" } end, "Dense: unknown option 'activations'; known: activation,")
    assert.error_matches(function() nn.Dense {} end, "Dense: option 'units'.*missing")
    assert.error_matches(function() nn.Dense { 0 } end, "integer of at least 1 expected, got 0")
    assert.error_matches(function() nn.Dense { 2.5 } end, "integer of at least 1 expected, got 2.5")
    assert.error_matches(function() nn.Dense { 3, units = 4 } end, "'units' is given twice")
    assert.error_matches(function() nn.Dropout { 1 } end, "below 1 expected, got 1")
    assert.error_matches(function() nn.Activation "rely" end, "relu, selu, .* expected, got 'rely'")
    assert.error_matches(function() nn.Sequential { nn.Dense { 1 }, "relu" } end, "layer 2: a layer expected, got string")
    assert.error_matches(function() nn.Sequential {} end, "at least one layer")
    assert.error_matches(function() nn.Dense { 1 } {} end, "Dense: the output of another layer or nn.Input expected")
  end)
end)

describe("nn layers that learn from data", function()
  it("normalise with mean and population deviation", function()
    local set = datasets.breast_cancer()
    local _, model = apply({ nn.Normalization { name = "scale" } }, set.features)
    local mean = model:graph():get_initializer "scale/mean"
    local stddev = model:graph():get_initializer "scale/stddev"
    near(14.127291739894552, mean:get(1), 1e-6) -- statistics.fmean and pstdev of mean_radius and mean_area
    near(3.520950760711062, stddev:get(1), 1e-6)
    near(654.8891036906855, mean:get(4), 1e-6)
    near(351.60475406323, stddev:get(4), 1e-6)
  end)

  it("leave missing values out and never divide by 0", function()
    local nan = 0 / 0
    local out = apply({ nn.Normalization() }, { { 1, 7 }, { nan, 7 }, { 3, 7 } })
    near({ -1, 0 }, out[1])
    assert.is_true(out[2][1] ~= out[2][1])
    near({ 1, 0 }, out[3])
  end)

  it("fill missing values", function()
    local nan = 0 / 0
    local rows = { { 1, 5 }, { nan, nan }, { 2, 7 }, { 9, nan } }
    near({ 4, 6 }, apply({ nn.Imputer() }, rows)[2])
    near({ 2, 6 }, apply({ nn.Imputer "median" }, rows)[2])
    near({ -1, -1 }, apply({ nn.Imputer { strategy = "constant", fill_value = -1 } }, rows)[2])
    local features = datasets.penguins().features
    local _, model = apply({ nn.Imputer { "mean", name = "fill" } }, features)
    near(43.9219298245614, model:graph():get_initializer("fill/fill"):get(1), 1e-6)
  end)

  it("learn vocabularies, most frequent first", function()
    local island = datasets.penguins():column "island"
    local out = apply({ nn.OneHot() }, island) -- Biscoe 168, Dream 124, Torgersen 52; the first rows are Torgersen
    assert.same({ 0, 0, 0, 1 }, out[1])
    out = apply({ nn.OneHot { max_tokens = 2 } }, island)
    assert.same({ 1, 0, 0 }, out[1])
    out = apply({ nn.StringLookup { { "b", "a" } } }, { { "a" }, { "zebra" }, { "" }, { "b" } })
    assert.same({ { 2 }, { 0 }, { 0 }, { 1 } }, out)
    assert.same({ { 0, 0, 1 }, { 1, 0, 0 } }, (apply({ nn.CategoryEncoding { 3 } }, { { 2 }, { 0 } })))
  end)

  it("need data", function()
    local model = nn.Sequential { nn.Normalization(), nn.Dense { 1 } }
    assert.error_matches(function() model:compile { input_shape = { 3 } } end, "Normalization%(%) learns from data")
    local adapted = nn.Normalization()
    adapted:adapt { { 1, 2 }, { 3, 4 } }
    model = nn.Sequential { adapted, nn.Dense { 1 } }
    model:compile { input_shape = { 2 } }
    assert.same({ -1, 1 }, model:outputs()[1].shape)
  end)
end)

describe("nn initialisers", function()
  local function draw(name) return nn.initializers.get(name, "spec")({ 200, 100 }, 3, 5):totable() end

  local function moments(rows)
    local n, sum, square, largest = 0, 0, 0, 0
    for _, row in ipairs(rows) do
      for _, value in ipairs(row) do
        n, sum, square, largest = n + 1, sum + value, square + value * value, math.max(largest, math.abs(value))
      end
    end
    return sum / n, math.sqrt(square / n), largest
  end

  it("have the deviations of their definitions", function()
    local fan_in, fan_out = 200, 100
    local expected = {
      glorot_uniform = math.sqrt(2 / (fan_in + fan_out)), glorot_normal = math.sqrt(2 / (fan_in + fan_out)),
      he_uniform = math.sqrt(2 / fan_in), he_normal = math.sqrt(2 / fan_in),
      lecun_uniform = math.sqrt(1 / fan_in), lecun_normal = math.sqrt(1 / fan_in),
    }
    for name, stddev in pairs(expected) do
      local mean, got, largest = moments(draw(name))
      assert.is_true(math.abs(mean) < stddev * 0.03, name)
      assert.is_true(math.abs(got / stddev - 1) < 0.02, name .. " " .. got)
      local bound = name:find "uniform" and math.sqrt(3) * stddev or 2 * stddev / 0.87962566103423978
      assert.is_true(largest <= bound * 1.000001, name)
    end
  end)

  it("take options and refuse unknown names", function()
    local _, stddev = moments(draw { "random_normal", stddev = 0.5 })
    assert.is_true(math.abs(stddev / 0.5 - 1) < 0.02)
    assert.same(2, nn.initializers.get({ name = "constant", value = 2 }, "spec")({ 1 }):get(1))
    assert.error_matches(function() nn.initializers.get("glorot", "spec") end, "unknown initialiser 'glorot'; known: constant,")
    assert.error_matches(function() nn.initializers.get({ "zeros", value = 3 }, "spec") end, "unknown option 'value'")
  end)

  it("give the same weights for the same seed", function()
    local function weights(seed)
      local model = nn.Sequential { nn.Dense { 5 }, nn.Dense { 4 } }
      model:compile { input_shape = { 3 }, seed = seed }
      return model:graph():get_initializer("dense/kernel"):tobytes() .. model:graph():get_initializer("dense_1/kernel"):tobytes()
    end
    assert.equal(weights(1), weights(1))
    assert.not_equal(weights(1), weights(2))
  end)
end)

describe("nn.Sequential and nn.Model", function()
  it("name what they hold", function()
    local model = nn.Sequential { nn.Dense { 4, activation = "relu" }, nn.Dense { 2, name = "head" } }
    assert.matches("no input shape yet", tostring(model))
    assert.error_matches(function() model:graph() end, "no input shape yet")
    model:compile { input_shape = { 3 } }
    local names = {}
    for _, value in ipairs(model:graph():initializers()) do names[value.name] = value.shape end
    assert.same({ ["dense/kernel"] = { 3, 4 }, ["dense/bias"] = { 4 }, ["head/kernel"] = { 4, 2 }, ["head/bias"] = { 2 } }, names)
    assert.same({ { name = "features", dtype = "float32", shape = { -1, 3 } } }, model:inputs())
    assert.same({ { name = "scores", dtype = "float32", shape = { -1, 2 } } }, model:outputs())
  end)

  it("take names for inputs and outputs", function()
    local model = nn.Sequential { nn.Input { { 3 }, name = "x" }, nn.Dense { 2 }, output_name = "y" }
    model:build {}
    assert.equal("x", model:inputs()[1].name)
    assert.equal("y", model:outputs()[1].name)
  end)

  it("connect layers freely and share them", function()
    local a, b = nn.Input { { 2 }, name = "a" }, nn.Input { { 2 }, name = "b" }
    local shared = nn.Dense { 1, kernel_initializer = fixed { { 1 }, { 10 } } }
    local model = nn.Model {
      inputs = { a, b },
      outputs = { sum = nn.Add() { shared(a), shared(b) }, difference = nn.Subtract() { shared(a), shared(b) } },
    }
    model:build {}
    assert.equal(3, model:graph():parameters())
    local out = model:predict { a = { { 1, 2 } }, b = { { 3, 4 } } }
    assert.same({ { 64 } }, out.sum:totable())
    assert.same({ { -22 } }, out.difference:totable())
  end)

  it("merge", function()
    local a, b = nn.Input { { 2 }, name = "a" }, nn.Input { { 2 }, name = "b" }
    local both = { a, b }
    local model = nn.Model {
      inputs = both,
      outputs = {
        concatenate = nn.Concatenate()(both), multiply = nn.Multiply()(both), average = nn.Average()(both),
        maximum = nn.Maximum()(both), minimum = nn.Minimum()(both),
      },
    }
    model:build {}
    local out = model:predict { a = { { 1, 6 } }, b = { { 3, 4 } } }
    assert.same({ { 1, 6, 3, 4 } }, out.concatenate:totable())
    assert.same({ { 3, 24 } }, out.multiply:totable())
    assert.same({ { 2, 5 } }, out.average:totable())
    assert.same({ { 3, 6 } }, out.maximum:totable())
    assert.same({ { 1, 4 } }, out.minimum:totable())
  end)

  it("refuse a network that does not hang together", function()
    local a, b = nn.Input { { 2 }, name = "a" }, nn.Input { { 2 }, name = "b" }
    assert.error_matches(function() nn.Model { inputs = a, outputs = nn.Add() { a, b } } end, "not among the inputs")
    assert.error_matches(function() nn.Model { inputs = nn.Dense { 1 }(a), outputs = a } end, "made by nn.Input")
    local two = nn.Model { inputs = { a, b }, outputs = nn.Concatenate() { nn.Dense { 1, name = "d" }(a), nn.Dense { 1, name = "d" }(b) } }
    assert.error_matches(function() two:build {} end, "two layers are named 'd'")
  end)
end)
