-- ONNX's own backend tests (Debian's libonnx-testdata, ONNX 1.12) at every optimisation level: whatever the engine loads must be right. Cases it
-- refuses when loading (operators and types it does not have) are counted and named by the reason; a case that holds a random operator cannot
-- match in value, and ONNX 1.12's bfloat16 files were made by cutting bits off instead of rounding.
local core = require "mlserve.core"

local OFFICIAL = "/usr/share/libonnx-testdata/data/"
local SUITES = { "node", "simple", "pytorch-operator", "pytorch-converted" }
local AT_LEAST = { node = 870, simple = 5, ["pytorch-operator"] = 35, ["pytorch-converted"] = 82 } -- passed at each level

-- Operators whose official cases are their test; each must be met in a case that passes.
local OPERATORS = {
  "BitShift", "BlackmanWindow", "ConvInteger", "DFT", "DequantizeLinear", "DynamicQuantizeLinear", "EyeLike", "HammingWindow", "HannWindow",
  "MatMulInteger", "MelWeightMatrix", "NonZero", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Range", "STFT", "Unique",
}

local function is_refusal(message)
  return message:find("unsupported operators", 1, true) or message:find("not supported", 1, true) or message:find("expected one of", 1, true)
end

local function is_random(case)
  return case:find("bernoulli", 1, true) or (case:find("training_dropout", 1, true) and not case:find("zero_ratio", 1, true))
end

local seen = {}

describe("ONNX's backend tests:", function()
  for _, suite in ipairs(SUITES) do
    for _, level in ipairs { "none", "exact", "fast" } do
      it(suite .. " at level " .. level, function()
        local passed, wrong = 0, {}
        for _, case in ipairs(assert(core.list_directory(OFFICIAL .. suite))) do
          local result = core.verify_case(OFFICIAL .. suite .. "/" .. case, { level = level })
          if result.passed then
            passed = passed + 1
            for _, operator in ipairs(result.operators) do seen[operator] = true end
          elseif not is_refusal(result.error) and not is_random(case) and not case:find("BFLOAT16", 1, true) then
            wrong[#wrong + 1] = case .. ": " .. result.error
          end
        end
        assert.are.equal("", table.concat(wrong, "\n"))
        assert.is_true(passed >= AT_LEAST[suite], passed .. " passed")
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
