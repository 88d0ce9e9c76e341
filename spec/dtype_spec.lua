-- Element types: float16 and bfloat16 arithmetic (a graph pass computes it in float32). Expected numbers are NumPy 2 float16's and ml_dtypes
-- bfloat16's, which round every operation to the nearest.
local core = require "mlserve.core"

local LEVELS = { "none", "exact", "fast" }

local function program(graph, level) return core.program(graph, { level = level }) end

-- inputs -> op -> one output for each dtype in the graph's signature
local function run(op, inputs, attributes, outputs, level, domain)
  local graph, ids = core.graph(op), {}
  for i, tensor in ipairs(inputs) do ids[i] = graph:input("x" .. i, tensor:dtype(), tensor:shape()) end
  for _, id in ipairs { graph:node((domain or "") .. op, ids, attributes, outputs or 1) } do graph:output(id) end
  return program(graph, level or "none"):run(inputs), graph
end

local function half(values, dtype) return core.tensor(values, dtype or "float16") end

local function dtypes(tensors)
  local list = {}
  for i, tensor in ipairs(tensors) do list[i] = tensor:dtype() end
  return list
end

local A, B, C = { 1.001, -3.25, 1000.5, 0.1 }, { 0.3333, 2.7, -65.1, 0.00002 }, { 0.7, -1e-5, 33000, 6e-8 }

-- (a b + c) / b
local function chain(dtype)
  local graph = core.graph("chain")
  local a, b, c = graph:input("a", dtype, { 4 }), graph:input("b", dtype, { 4 }), graph:input("c", dtype, { 4 })
  local product = graph:node("Mul", { a, b })
  graph:output(graph:node("Div", { graph:node("Add", { product, c }), b }))
  return graph, { half(A, dtype), half(B, dtype), half(C, dtype) }
end

describe("16-bit arithmetic", function()
  -- numpy: ((a * b) + c) / b with dtype float16; ml_dtypes: the same with bfloat16
  local rounded = { float16 = { 3.099609375, -3.25, 493.75, 0.10418701171875 }, bfloat16 = { 3.09375, -3.265625, 492.0, 0.103515625 } }
  -- numpy: computed in float32 and rounded to float16 at the end
  local once = { float16 = { 3.1015625, -3.25, 494.0, 0.10296630859375 } }

  for dtype, expected in pairs(rounded) do
    for _, level in ipairs { "none", "exact" } do
      it("rounds every result to " .. dtype .. " at level " .. level, function()
        local graph, inputs = chain(dtype)
        local result = program(graph, level):run(inputs)[1]
        assert.are.equal(dtype, result:dtype())
        assert.are.same(expected, result:totable())
      end)
    end
  end

  it("rounds once at level fast", function()
    local graph, inputs = chain "float16"
    assert.are.same(once.float16, program(graph, "fast"):run(inputs)[1]:totable())
  end)

  it("keeps the casts of the model at level fast", function()
    local graph = core.graph "casts"
    local x = graph:input("x", "float32", { 2 })
    graph:output(graph:node("Cast", { graph:node("Cast", { x }, { to = 10 }) }, { to = 1 }))
    assert.are.same({ 0.0999755859375, 2048 }, program(graph, "fast"):run({ core.tensor { 0.1, 2049 } })[1]:totable()) -- numpy.float16
  end)

  it("casts a value once and its results as seldom as the level allows", function()
    local steps = {}
    for _, level in ipairs(LEVELS) do
      local graph, inputs = chain "float16"
      steps[level] = #program(graph, level):profile(inputs)
    end
    assert.are.same({ none = 3 + 3 + 3 + 2, exact = 3 + 3 + 3 + 2, fast = 3 + 3 + 1 }, steps) -- operators, inputs, results, results read again
  end)

  it("folds constants and fuses dense layers", function()
    local graph = core.graph "dense"
    local x = graph:input("x", "float16", { 1, 2 })
    local w = graph:initializer("w", half { { 1, 2 }, { 3, 4 } })
    local b = graph:initializer("b", half { -5, 0.5 })
    graph:output(graph:node("Relu", { graph:node("Gemm", { x, w, b }) }))
    local compiled = program(graph, "fast")
    assert.are.same({ { 2, 10.5 } }, compiled:run({ half { { 1, 2 } } })[1]:totable())
    assert.are.equal(3, #compiled:profile({ half { { 1, 2 } } })) -- Cast, Dense, Cast
  end)

  it("leaves alone what takes 16 bits itself", function()
    local result = run("Concat", { half { 1 }, half { 2 } }, { axis = 0 })
    assert.are.same({ { 1, 2 }, "float16" }, { result[1]:totable(), result[1]:dtype() })
    local graph = core.graph "moves"
    local x = graph:input("x", "bfloat16", { 2, 3 })
    graph:output(graph:node("Transpose", { graph:node("Transpose", { x }) }))
    assert.are.equal(2, #program(graph, "none"):profile({ core.zeros({ 2, 3 }, "bfloat16") }))
  end)

  it("gives outputs the dtypes their operators say", function()
    local x, v = half { { 1, 2 }, { 3, 5 } }, half { 1, 1 }
    assert.are.same({ "float16", "float32", "float32" }, dtypes(run("LayerNormalization", { x, v }, {}, 3)))
    assert.are.same({ "float16", "float64", "float64" }, dtypes(run("LayerNormalization", { x, v }, { stash_type = 11 }, 3)))
    local wide = core.tensor { 1, 1 }
    assert.are.same({ "float16", "float32", "float32" }, dtypes(run("BatchNormalization", { x, v, v, wide, wide }, { training_mode = 1 }, 3)))
    assert.are.same({ "float16", "float16", "float16" }, dtypes(run("BatchNormalization", { x, v, v, v, v }, { training_mode = 1 }, 3)))
    local hot = run("OneHot", { half { 1, 0 }, half { 2 }, core.tensor { 0, 1 } })[1]
    assert.are.same({ "float32", { { 0, 1 }, { 1, 0 } } }, { hot:dtype(), hot:totable() })
    assert.are.same({ "bool" }, dtypes(run("Less", { v, v })))
    assert.are.same({ "int64" }, dtypes(run("ArgMax", { x })))
    assert.are.same({ "float32" }, dtypes(run("Pow", { wide, v })))
  end)

  it("reads small inputs that shapes depend on", function()
    local graph = core.graph "depth"
    local x = graph:input("x", "int64", { 2 })
    local hot = graph:node("OneHot", { x, graph:initializer("depth", half { 3 }), graph:initializer("values", core.tensor { 0, 1 }) })
    graph:output(hot)
    assert.are.same({ 2, 3 }, graph:outputs()[1].shape)
  end)

  it("is refused where ONNX has none, and in training", function()
    assert.has_error(function() run("And", { half { 1 }, half { 1 } }) end)
    local _, message = pcall(run, "Scaler", { half { 1 } }, { scale = { 2 }, offset = { 0 } }, 1, "none", "ai.onnx.ml.")
    assert.truthy(message:find("input 0 has dtype float16", 1, true), message)
    local graph = core.graph "train"
    local x = graph:input("x", "float64", { 2 })
    local product = graph:node("Mul", { graph:node("Cast", { x }, { to = 10 }), graph:initializer("w", half { 1, 1 }) })
    local cast = graph:node("Cast", { product }, { to = 11 })
    graph:output(graph:node("ReduceSum", { cast }, { keepdims = 0 }))
    _, message = pcall(core.grad_check, graph, { core.tensor({ 1, 2 }, "float64") })
    assert.truthy(message:find("gradients are computed in float32 and float64", 1, true), message)
  end)
end)
