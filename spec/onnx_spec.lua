-- ONNX's own backend tests (Debian's libonnx-testdata, ONNX 1.12) at every optimisation level: all of them pass.
-- There is no list of cases that may fail. Outputs that come from NumPy's random generator are told from the model's operators and compared by
-- type, shape and distribution (see core.verify_cases).
local core = require "mlserve.core"

local OFFICIAL = "/usr/share/libonnx-testdata/data/"
local SUITES = { -- all cases, and how many of them are random
  { name = "node", cases = 932, random = 10 },
  { name = "pytorch-converted", cases = 82, random = 0 },
  { name = "pytorch-operator", cases = 35, random = 0 },
  { name = "simple", cases = 23, random = 0 },
}

-- Operators whose official cases are their test; each must be met in a case that passes.
local OPERATORS = {
  "BitShift", "BlackmanWindow", "ConvInteger", "DFT", "DequantizeLinear", "DynamicQuantizeLinear", "EyeLike", "HammingWindow", "HannWindow",
  "MatMulInteger", "MelWeightMatrix", "NonZero", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Range", "STFT", "Unique",
}

-- Relative tolerances of ONNX's own reference test (its files have none): the model of test_adam_multiple lacks the epsilon its expected values
-- were made with; ONNX has since mended it.
local OWN_TOLERANCE = { test_adam_multiple = 1e-2 }

local seen = {}

local function run_suite(name, level)
  local counts, wrong = { cases = 0, passed = 0, random = 0 }, {}
  local names, directories = assert(core.list_directory(OFFICIAL .. name)), {}
  table.sort(names)
  for i, case in ipairs(names) do directories[i] = OFFICIAL .. name .. "/" .. case end
  for i, result in ipairs(core.verify_cases(directories, { level = level })) do
    if OWN_TOLERANCE[names[i]] then result = core.verify_case(directories[i], { level = level, rtol = OWN_TOLERANCE[names[i]] }) end
    counts.cases = counts.cases + 1
    if result.random then counts.random = counts.random + 1 end
    if result.passed then
      counts.passed = counts.passed + 1
      for _, operator in ipairs(result.operators) do seen[operator] = true end
    else
      wrong[#wrong + 1] = names[i] .. ": " .. result.error
    end
  end
  return counts, table.concat(wrong, "\n")
end

describe("ONNX's backend tests:", function()
  for _, suite in ipairs(SUITES) do
    for _, level in ipairs { "none", "exact", "fast" } do
      it(suite.name .. " at level " .. level, function()
        local counts, wrong = run_suite(suite.name, level)
        print(("ONNX 1.12 %s, level %s: %d cases, %d passed (%d by distribution)"):format(suite.name, level, counts.cases, counts.passed, counts.random))
        assert.are.equal("", wrong)
        assert.are.equal(suite.cases, counts.cases)
        assert.are.equal(suite.random, counts.random)
        assert.are.equal(suite.cases, counts.passed)
      end)
    end
  end

  it("meet every operator that relies on them", function()
    for _, operator in ipairs(OPERATORS) do assert.is_true(seen[operator], operator) end
  end)
end)

-- Operators newer than those tests, or random: by their definitions.
local function run(op, inputs, attributes, outputs)
  local graph, ids = core.graph(op), {}
  for i, tensor in ipairs(inputs) do ids[i] = graph:input("x" .. i, tensor:dtype(), tensor:shape()) end
  local results = { graph:node(op, ids, attributes, outputs or 1) }
  for _, id in ipairs(results) do graph:output(id) end
  return core.program(graph):run(inputs)[1]
end

local function ints(values) return core.tensor(values, "int32") end

local function moments(tensor)
  local n, sum, squares = tensor:count(), 0, 0
  local flat = tensor:reshape({ n })
  for i = 1, n do
    local v = flat:get(i)
    sum, squares = sum + v, squares + v * v
  end
  return sum / n, math.sqrt(squares / n - (sum / n) ^ 2)
end

describe("operators by definition:", function()
  it("BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot", function()
    local a, b = ints { 12, -1, 5 }, ints { 10, 255, 0 }
    assert.are.same({ 8, 255, 0 }, run("BitwiseAnd", { a, b }):totable())
    assert.are.same({ 14, -1, 5 }, run("BitwiseOr", { a, b }):totable())
    assert.are.same({ 6, -256, 5 }, run("BitwiseXor", { a, b }):totable())
    assert.are.same({ -13, 0, -6 }, run("BitwiseNot", { a }):totable())
  end)

  it("BitCast", function()
    assert.are.same({ 0x3f800000, 0 }, run("BitCast", { core.tensor { 1, 0 } }, { to = 6 }):totable()) -- IEEE 754 single precision 1.0
  end)

  it("TensorScatter", function()
    local cache, update = core.zeros { 1, 1, 4, 2 }, core.tensor { { { { 5, 6 } } } }
    local result = run("TensorScatter", { cache, update, core.tensor({ 2 }, "int64") })
    assert.are.same({ { { { 0, 0 }, { 0, 0 }, { 5, 6 }, { 0, 0 } } } }, result:totable())
  end)

  it("RandomNormal and RandomNormalLike", function()
    for _, result in ipairs { run("RandomNormal", {}, { shape = { 100, 200 }, mean = 3, scale = 2 }),
                              run("RandomNormalLike", { core.zeros { 100, 200 } }, { mean = 3, scale = 2 }) } do
      local mean, deviation = moments(result)
      assert.are.same({ 100, 200 }, result:shape())
      assert.is_true(math.abs(mean - 3) < 0.08 and math.abs(deviation - 2) < 0.06, mean .. " " .. deviation) -- over 5 standard errors
    end
  end)

  it("RandomUniform and RandomUniformLike", function()
    for _, result in ipairs { run("RandomUniform", {}, { shape = { 100, 200 }, low = -1, high = 3 }),
                              run("RandomUniformLike", { core.zeros { 100, 200 } }, { low = -1, high = 3 }) } do
      local mean, deviation = moments(result)
      assert.is_true(math.abs(mean - 1) < 0.05 and math.abs(deviation - 4 / math.sqrt(12)) < 0.05, mean .. " " .. deviation)
    end
  end)

  it("Bernoulli and Multinomial", function()
    assert.are.same({ 0, 1, 0, 1 }, run("Bernoulli", { core.tensor { 0, 1, 0, 1 } }):totable())
    local mean = moments(run("Bernoulli", { core.full({ 20000 }, 0.3) }))
    assert.is_true(math.abs(mean - 0.3) < 0.02, mean)
    assert.are.same({ { 1, 1, 1 }, { 0, 0, 0 } }, run("Multinomial", { core.tensor { { -100, 0 }, { 0, -100 } } }, { sample_size = 3 }):totable())
  end)
end)
