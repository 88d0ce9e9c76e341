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

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local golden = here .. "golden/dtype/"
local SMALL = { "float4e2m1", "float6e2m3", "float6e3m2", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0", "int2",
  "int4", "uint2", "uint4" }

local function cast(values, to, attributes, from)
  attributes = attributes or {}
  attributes.to = to
  return run("Cast", { core.tensor(values, from) }, attributes)[1]
end

local function codes(tensor) return { tensor:tobytes():byte(1, -1) } end

-- spec/golden/make_dtype.py: casts through every turning point, quantisation, data movement, raw_data and int32_data
describe("small element type", function()
  for _, dtype in ipairs(SMALL) do
    for _, level in ipairs(LEVELS) do
      it(dtype .. " at level " .. level, function()
        local result = core.verify_case(golden .. dtype, { level = level, rtol = 0, atol = 0 })
        assert.is_true(result.passed, result.error)
      end)
    end

    it(dtype .. " is written as it was read, packed, at the operator set it needs", function()
      local graph, directory = core.onnx_load(golden .. dtype .. "/model.onnx"), os.tmpname()
      os.remove(directory)
      assert(os.execute("cp -r '" .. golden .. dtype .. "' '" .. directory .. "'"))
      finally(function() os.execute("rm -r '" .. directory .. "'") end)
      assert(core.onnx_save(graph, directory .. "/model.onnx"))
      local again, same = core.onnx_load(directory .. "/model.onnx"), 0
      for _, name in ipairs { "raw", "typed" } do
        assert.are.equal(dtype, graph:get_initializer(name):dtype())
        assert.are.same(codes(graph:get_initializer(name)), codes(again:get_initializer(name)))
        same = same + 1
      end
      assert.are.equal(2, same)
      local result = core.verify_case(directory, { level = "fast", rtol = 0, atol = 0 })
      assert.is_true(result.passed, result.error)
    end)
  end
end)

describe("float8", function()
  -- the tables in the description of ONNX's Cast-28; codes: arXiv:2209.05433 (E4M3, E5M2), arXiv:2206.02915 (FNUZ)
  local special = { 0 / 0, math.huge, -math.huge, 1e6, -1e6, -0.0, 0 }
  local saturated = {
    [17] = { 0x7F, 0x7E, 0xFE, 0x7E, 0xFE, 0x80, 0 }, [18] = { 0x80, 0x7F, 0xFF, 0x7F, 0xFF, 0, 0 },
    [19] = { 0x7E, 0x7B, 0xFB, 0x7B, 0xFB, 0x80, 0 }, [20] = { 0x80, 0x7F, 0xFF, 0x7F, 0xFF, 0, 0 },
  }
  local open = {
    [17] = { 0x7F, 0x7F, 0xFF, 0x7F, 0xFF, 0x80, 0 }, [18] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0 },
    [19] = { 0x7E, 0x7C, 0xFC, 0x7C, 0xFC, 0x80, 0 }, [20] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0 },
  }

  local function without_sign_of_nan(list) -- 0/0 has another sign on every machine
    list[1] = list[1] >= 0xFE and list[1] - 0x80 or list[1]
    return list
  end

  for number, expected in pairs(saturated) do
    it("of type " .. number .. " saturates or not", function()
      assert.are.same(expected, without_sign_of_nan(codes(cast(special, number))))
      assert.are.same(open[number], without_sign_of_nan(codes(cast(special, number, { saturate = 0 }))))
    end)
  end

  it("e8m0 rounds as it is told", function()
    -- Cast-28, table of float8e8m0: 2^(code - 127), 255 is NaN
    local values = { 0 / 0, math.huge, 0, 1e-39, 3, 2.9, 2 }
    assert.are.same({ 255, 254, 0, 0, 129, 129, 128 }, codes(cast(values, 24)))
    assert.are.same({ 255, 255, 255, 255, 129, 128, 128 }, codes(cast(values, 24, { saturate = 0, round_mode = "nearest" })))
    assert.are.same({ 255, 254, 0, 0, 128, 128, 128 }, codes(cast(values, 24, { round_mode = "down" })))
    assert.has_error(function() cast({ 1 }, 24, { round_mode = "sideways" }) end)
  end)
end)

describe("elements of less than 8 bits", function()
  it("are made, read, cast and printed", function()
    local tensor = core.tensor({ 1, -8, 7, 100, -100 }, "int4")
    assert.are.same({ 1, -8, 7, 7, -8 }, tensor:totable())
    assert.are.equal("tensor int4 (5) [1, -8, 7, 7, -8]", tostring(tensor))
    tensor:set(1, -3)
    assert.are.same({ -3, "float32", -3 }, { tensor:get(1), tensor:cast("float32"):dtype(), tensor:cast("float16"):get(1) })
    assert.are.same({ 3, 0, 3 }, core.tensor({ 3, -1, 9 }, "uint2"):totable())
    assert.are.same({ 0.5, 6, -4 }, core.tensor({ 0.4, 100, -4.5 }, "float4e2m1"):totable()) -- ml_dtypes.float4_e2m1fn
    assert.are.same({ -1, 7, -8 }, core.from_bytes("\255\7\8", "int4", { 3 }):totable())
    assert.are.same({ 448, 0.001953125 }, core.tensor({ 1000, 0.002 }, "float8e4m3fn"):cast("float64"):totable()) -- ml_dtypes.float8_e4m3fn
  end)

  it("keep the low bits of integers", function()
    -- numpy.array([300, -1, 200], numpy.int32).astype(…), ml_dtypes.int4 and ml_dtypes.uint2
    local values = { 300, -1, 200 }
    assert.are.same({ 44, 255, 200 }, cast(values, 2, nil, "int32"):totable())
    assert.are.same({ 44, -1, -56 }, cast(values, 3, nil, "int32"):totable())
    assert.are.same({ -4, -1, -8 }, cast(values, 22, nil, "int32"):totable())
    assert.are.same({ 0, 3, 0 }, cast(values, 25, nil, "int64"):totable())
    assert.are.same({ 300, 65535, 200 }, cast(values, 4, nil, "int64"):totable())
  end)

  it("change their type bit by bit", function()
    -- ml_dtypes: array([-1, -8, 7], int4).view(uint4)
    assert.are.same({ 15, 8, 7 }, run("BitCast", { core.tensor({ -1, -8, 7 }, "int4") }, { to = 21 })[1]:totable())
    assert.are.same({ -1, -8, 7 }, run("BitCast", { core.tensor({ 15, 8, 7 }, "uint4") }, { to = 22 })[1]:totable())
    local _, message = pcall(run, "BitCast", { core.tensor({ 1 }, "int4") }, { to = 3 })
    assert.truthy(message:find("int4 has elements of 4 bits, int8 of 8", 1, true), message)
  end)

  it("are ordered, found and turned into text", function()
    local values = core.tensor({ 2, -0.5, 2, 0.5 }, "float4e2m1")
    assert.are.same({ -0.5, 0.5, 2 }, run("Unique", { values })[1]:totable())
    assert.are.same({ { 0, 1, 2, 3 } }, run("NonZero", { values })[1]:totable())
    assert.are.same({ "2.0", "-0.5", "2.0", "0.5" }, cast({ 2, -0.5, 2, 0.5 }, 8):totable())
    assert.are.same({ "2.0", "-0.5", "2.0", "0.5" }, run("Cast", { values }, { to = 8 })[1]:totable())
    assert.are.same({ 1.5, -6 }, cast({ "1.5", "-1e3" }, 23, nil, "string"):totable())
  end)

  it("are refused by arithmetic", function()
    local _, message = pcall(run, "Add", { core.tensor({ 1 }, "int4"), core.tensor({ 1 }, "int4") })
    assert.truthy(message:find("input 0 has dtype int4, expected one of", 1, true), message)
  end)
end)
