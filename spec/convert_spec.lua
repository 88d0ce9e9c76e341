-- model:convert and `mlserve convert`. Expected numbers are worked out by hand; what others make of converted models is in
-- spec/interop/check_roundtrip.py.
local cli = require "mlserve.cli.convert"
local core = require "mlserve.core"
local mlserve = require "mlserve"
local model = require "mlserve.model"

local function floats(values) return core.tensor(values, "float32") end
local function ints(values) return core.tensor(values, "int64") end

local function operators(graph)
  local names = {}
  for i, node in ipairs(graph:nodes()) do names[i] = node.op end
  return table.concat(names, " ")
end

local function convert(graph, options)
  local converted, report = assert(model.from_graph(graph):convert(options))
  return converted:graph(), report, converted
end

local function run(graph, x) return core.program(graph):run({ x })[1]:totable() end

-- y = relu(x) * 2 + 1, with the constants computed by nodes
local function arithmetic()
  local g = core.graph "arithmetic"
  local x = g:input("x", "float32", { -1, 2 })
  local two = g:node("Add", { g:initializer("one", floats { 1 }), g:node("Constant", {}, { value = floats { 1 } }) })
  local scaled = g:node("Mul", { g:node("Relu", { x }, nil, { "hidden" }), two }, nil, { "scaled" })
  g:node("Add", { scaled, "one" }, nil, { "y" })
  g:output "y"
  return g
end

describe("fold", function()
  it("computes what is constant and nothing else", function()
    local graph, report = convert(arithmetic(), { fold = true })
    assert.are.equal("Relu Mul Add", operators(graph))
    assert.are.equal(5, report.before.nodes)
    assert.are.equal(3, report.after.nodes)
    assert.are.same({ { 1, 7 } }, run(graph, floats { { -5, 3 } }))
  end)

  it("leaves the model it came from alone", function()
    local graph = arithmetic()
    convert(graph, { simplify = true, fp16 = true, batch = 3 })
    assert.are.equal("Constant Add Relu Mul Add", operators(graph))
    assert.are.same({ -1, 2 }, graph:inputs()[1].shape)
  end)

  it("keeps the small form of quantised weights", function()
    local g = core.graph "quantised"
    local x = g:input("x", "float32", { 1, 2 })
    local w = g:initializer("w", core.tensor({ { 1, 2 }, { 3, 4 } }, "int8"))
    g:node("MatMul", { x, g:node("DequantizeLinear", { w, g:initializer("scale", core.tensor(0.5)) }) }, nil, { "y" })
    g:output "y"
    assert.are.equal("DequantizeLinear MatMul", operators((convert(g, { simplify = true }))))
  end)

  it("keeps parameters trainable", function()
    local g = core.graph "trainable"
    local w = g:initializer("w", floats { { 1, 2 }, { 3, 4 } }, true)
    g:node("MatMul", { g:input("x", "float32", { -1, 2 }), g:node("Transpose", { w }) }, nil, { "y" })
    g:output "y"
    local graph = convert(g, { fold = true })
    assert.are.equal("MatMul", operators(graph))
    assert.are.equal(4, graph:parameters(true))
    assert.are.same({ { 5, 11 } }, run(graph, floats { { 1, 2 } }))
  end)
end)

describe("simplify", function()
  -- y = (2 x - 0.5) * 3 / sqrt(4) + 1 = 3 x + 0.25
  for _, shape in ipairs { "Conv", "ConvTranspose", "Gemm" } do
    it("takes BatchNormalization into " .. shape, function()
      local g = core.graph "normalised"
      local x = g:input("x", "float32", shape == "Gemm" and { -1, 1 } or { -1, 1, 1, 2 })
      local w = g:initializer("w", floats(shape == "Gemm" and { { 2 } } or { { { { 2 } } } }), true)
      local product = g:node(shape, { x, w })
      local constants = {}
      for i, value in ipairs { 3, 1, 0.5, 4 } do constants[i] = g:initializer("c" .. i, floats { value }) end
      g:node("BatchNormalization", { product, constants[1], constants[2], constants[3], constants[4] }, { epsilon = 0 }, { "y" })
      g:output "y"
      local graph = convert(g, { simplify = true })
      assert.are.equal(shape, operators(graph))
      assert.are.equal("y", graph:outputs()[1].name)
      local inputs = graph:nodes()[1].inputs
      assert.are.same({ 3 }, graph:get_initializer(inputs[2]):reshape({ 1 }):totable())
      assert.are.same({ 0.25 }, graph:get_initializer(inputs[3]):totable())
      local y = run(graph, floats(shape == "Gemm" and { { 1 }, { 2 } } or { { { { 1, 2 } } } }))
      assert.are.same(shape == "Gemm" and { { 3.25 }, { 6.25 } } or { { { { 3.25, 6.25 } } } }, y)
    end)
  end

  it("takes each channel of a grouped ConvTranspose for itself", function()
    local g = core.graph "grouped"
    local x = g:input("x", "float32", { 1, 2, 1 })
    local product = g:node("ConvTranspose", { x, g:initializer("w", floats { { { 1 }, { 2 } }, { { 3 }, { 4 } } }) }, { group = 2 })
    local one, zero = g:initializer("one", floats { 1, 1, 1, 1 }), g:initializer("zero", floats { 0, 0, 0, 0 })
    g:node("BatchNormalization", { product, g:initializer("scale", floats { 10, 100, 1000, 10000 }), zero, zero, one }, { epsilon = 0 }, { "y" })
    g:output "y"
    local graph = convert(g, { simplify = true })
    assert.are.equal("ConvTranspose", operators(graph))
    assert.are.same({ { { 10 }, { 200 }, { 6000 }, { 80000 } } }, run(graph, floats { { { 1 }, { 2 } } }))
  end)

  it("leaves a product that others read, and BatchNormalization in training", function()
    for _, training in ipairs { 0, 1 } do
      local g = core.graph "kept"
      local product = g:node("Conv", { g:input("x", "float32", { 1, 1, 2 }), g:initializer("w", floats { { { 2 } } }) }, nil, { "product" })
      local c = g:initializer("c", floats { 1 })
      g:node("BatchNormalization", { product, c, c, c, c }, { training_mode = training }, training == 1 and { "y", "m", "v" } or { "y" })
      g:output "y"
      if training == 0 then g:output "product" end
      assert.are.equal("Conv BatchNormalization", operators((convert(g, { simplify = true }))))
    end
  end)

  it("drops what changes nothing, and keeps the names of outputs", function()
    local g = core.graph "idle"
    local x = g:input("x", "float32", { 2, 3, 4 })
    local v = g:node("Identity", { x })
    v = g:node("Transpose", { g:node("Transpose", { v }, { perm = { 2, 0, 1 } }) }, { perm = { 1, 2, 0 } })
    v = g:node("Mul", { g:node("Dropout", { v }), g:initializer("one", core.tensor(1)) })
    v = g:node("Slice", { v, g:initializer("starts", ints { 0 }), g:initializer("ends", ints { 2 ^ 31 - 1 }), g:initializer("axes", ints { 1 }) })
    v = g:node("Relu", { g:node("Pad", { v, g:initializer("pads", ints { 0, 0, 0, 0, 0, 0 }) }) })
    v = g:node("Cast", { g:node("Reshape", { v, g:initializer("shape", ints { 2, 3, 4 }) }) }, { to = 1 })
    g:node("Abs", { v }) -- nobody reads it
    g:node("Identity", { v }, nil, { "y" })
    g:output "y"
    local graph = convert(g, { simplify = true })
    assert.are.equal("Relu", operators(graph))
    assert.are.same({ name = "y", dtype = "float32", shape = { 2, 3, 4 } }, graph:outputs()[1])
  end)

  it("does not take a slice, a reversal or a pad for nothing", function()
    local g = core.graph "busy"
    local x = g:input("x", "float32", { 3 })
    local none, back = g:initializer("none", ints { -1 }), g:initializer("back", ints { -1 })
    local v = g:node("Slice", { x, none, g:initializer("first", ints { -4 }), g:initializer("axes", ints { 0 }), back })
    g:node("Pad", { v, g:initializer("pads", ints { 1, -1 }) }, nil, { "y" })
    g:output "y"
    local graph = convert(g, { simplify = true })
    assert.are.equal("Slice Pad", operators(graph))
    assert.are.same({ 0, 3, 2 }, run(graph, floats { 1, 2, 3 }))
  end)

  it("follows shape arithmetic", function()
    local g = core.graph "shapes"
    local x = g:input("x", "float32", { -1, 2, 3 })
    local shape = g:node("Shape", { x })
    local function dimension(i) return g:node("Gather", { shape, g:initializer(nil, core.tensor(i, "int64")) }) end
    local function list(v) return g:node("Unsqueeze", { v, g:initializer(nil, ints { 0 }) }) end
    local columns = g:node("Mul", { dimension(1), dimension(2) })
    local relu = g:node("Relu", { x })
    g:node("Reshape", { relu, g:node("Concat", { list(dimension(0)), list(columns) }, { axis = 0 }) }, nil, { "y" })
    g:output "y"
    local graph = convert(g, { simplify = true })
    assert.are.equal("Relu Reshape", operators(graph))
    assert.are.same({ -1, 6 }, graph:get_initializer(graph:nodes()[2].inputs[2]):totable())
    assert.are.same({ { 1, 2, 3, 4, 5, 6 } }, run(graph, floats { { { 1, 2, 3 }, { 4, 5, 6 } } }))
  end)
end)

describe("batch", function()
  it("fixes open first dimensions and what depends on them", function()
    local graph = convert(arithmetic(), { batch = 4 })
    assert.are.same({ 4, 2 }, graph:inputs()[1].shape)
    assert.are.same({ 4, 2 }, graph:outputs()[1].shape)
  end)

  it("fixes every dimension of the same name", function()
    local g = core.graph "named"
    g:set_dim_name(g:input("x", "float32", { -1, 2 }), 0, "n")
    g:set_dim_name(g:input("z", "float32", { 2, -1 }), 1, "n")
    g:node("MatMul", { "x", "z" }, nil, { "y" })
    g:output "y"
    local graph = convert(g, { batch = 5 })
    assert.are.same({ 2, 5 }, graph:inputs()[2].shape)
    assert.are.same({ 5, 5 }, graph:outputs()[1].shape)
  end)

  it("wants an input with an open first dimension", function()
    local g = core.graph "fixed"
    g:node("Relu", { g:input("x", "float32", { 3 }) }, nil, { "y" })
    g:output "y"
    assert.error_matches(function() convert(g, { batch = 2 }) end, "no input has an unknown first dimension")
  end)
end)

describe("inputs and outputs", function()
  it("cut out the part between tensors", function()
    local graph, report = convert(arithmetic(), { inputs = { "hidden" }, outputs = { "scaled" } })
    assert.are.equal("Constant Add Mul", operators(graph))
    assert.is_true(report.cut)
    assert.are.same({ name = "hidden", dtype = "float32", shape = { -1, 2 } }, graph:inputs()[1])
    assert.are.equal("scaled", graph:outputs()[1].name)
    assert.are.same({ { -2, 4 } }, run(graph, floats { { -1, 2 } }))
  end)

  it("cut away one of several outputs of a node that is still needed", function()
    local g = core.graph "halves"
    g:node("Split", { g:input("x", "float32", { 4 }) }, { num_outputs = 2 }, { "a", "b" })
    g:node("Add", { "a", "b" }, nil, { "y" })
    g:output "y"
    local graph = convert(g, { inputs = { "x", "a" } })
    assert.are.equal("Split Add", operators(graph))
    assert.are.same({ 13, 24 }, core.program(graph):run({ floats { 1, 2, 3, 4 }, floats { 10, 20 } })[1]:totable())
  end)

  it("drop inputs that nothing needs any more, and what is stored about the whole", function()
    local g = core.graph "two"
    g:node("Relu", { g:input("x", "float32", { 2 }) }, nil, { "a" })
    g:node("Relu", { g:input("z", "float32", { 2 }) }, nil, { "b" })
    g:output "a"
    g:output "b"
    g:set_property("mlserve.classes", "[1]")
    g:set_property("author", "somebody")
    local graph = convert(g, { outputs = { "b" } })
    assert.are.equal(1, #graph:inputs())
    assert.are.equal("z", graph:inputs()[1].name)
    assert.are.same({ author = "somebody" }, graph:properties())
  end)

  it("name what is wrong", function()
    local function fails(options, message)
      assert.error_matches(function() convert(arithmetic(), options) end, message, 1, true)
    end
    fails({ outputs = { "z" } }, "output 'z': the graph has no value of this name")
    fails({ inputs = { "hidden", "hidden" } }, "input 'hidden' is named twice")
    fails({ inputs = { "scaled" }, outputs = { "hidden" } }, "need input 'x', which is not among the inputs")
    fails({ outputs = { 1 } }, "names are strings")
    fails({ speed = 1 }, "unknown option 'speed'")
    fails({ batch = 0 }, "option 'batch': integer of at least 1 expected")
  end)
end)

describe("fp16", function()
  local function weights()
    local g = core.graph "weights"
    g:node("Mul", { g:input("x", "float32", { 4 }), g:initializer("w", floats { 1.5, 1e6, -1e-9, 0 }) }, nil, { "scaled" })
    g:node("Celu", { "scaled" }, nil, { "y" })
    g:output "y"
    return g
  end

  it("keeps float32 at the edges and around what ONNX has in float32 only", function()
    local graph = convert(weights(), { fp16 = true })
    assert.are.equal("Cast Mul Cast Celu", operators(graph))
    assert.are.equal("float32", graph:inputs()[1].dtype)
    assert.are.equal("float32", graph:outputs()[1].dtype)
    assert.are.equal("y", graph:outputs()[1].name)
    assert.are.equal("float16", graph:get_initializer("w"):dtype())
  end)

  it("changes the edges too when asked", function()
    local graph = convert(weights(), { fp16 = true, keep_io_types = false })
    assert.are.equal("Mul Cast Celu Cast", operators(graph))
    assert.are.equal("float16", graph:inputs()[1].dtype)
    assert.are.equal("float16", graph:outputs()[1].dtype)
    assert.are.equal("y", graph:outputs()[1].name)
  end)

  it("reports what float16 does not hold", function()
    local graph, report = convert(weights(), { fp16 = true })
    assert.are.same({ { name = "w", saturated = 1, tiny = 1, largest = 1e6 } }, report.float16)
    -- IEEE 754 binary16: 1.5, the largest number, the smallest negative one, 0
    assert.are.equal("\0\62\255\123\1\128\0\0", graph:get_initializer("w"):tobytes())
  end)

  it("gives a weight in both types to those that want both", function()
    local g = core.graph "shared"
    local x, w = g:input("x", "float32", { 2 }), g:initializer("w", floats { 1, 2 })
    g:node("CumSum", { w, g:initializer("axis", core.tensor(0, "int64")) }, nil, { "sum" })
    g:node("Add", { g:node("Mul", { x, w }), "sum" }, nil, { "y" })
    g:output "y"
    local graph = convert(g, { fp16 = true })
    assert.are.equal("CumSum Cast Mul Cast Add Cast", operators(graph))
    assert.are.equal("float32", graph:get_initializer("w"):dtype())
    assert.are.equal("float16", graph:get_initializer("w_float16"):dtype())
  end)
end)

describe("opset", function()
  it("is written as asked for", function()
    for _, opset in ipairs { 11, 13, 18, 21, 28 } do
      local bytes = assert(core.onnx_bytes(arithmetic(), opset))
      assert.are.same({ { 1, 7 } }, run(assert(core.onnx_parse(bytes)), floats { { -5, 3 } }))
      assert.truthy(bytes:find("\66\4\10\0\16" .. string.char(opset), 1, true), "opset_import { domain '' version " .. opset .. " }")
    end
  end)

  it("names the operators that it cannot express, each once", function()
    local g = core.graph "new"
    g:node("Gelu", { g:node("Gelu", { g:input("x", "float32", { 1 }) }, nil, 1, "first") }, nil, 1, "second")
    g:node("LayerNormalization", { "x", g:initializer("scale", floats { 1 }) }, nil, { "y" }, "third")
    g:output "y"
    local function refusal(opset) return select(2, core.onnx_bytes(g, opset)) end
    assert.are.equal("opset 13 cannot express Gelu at node 'first' (needs 20), LayerNormalization at node 'third' (needs 17)", refusal(13))
    assert.are.equal("opset 10 cannot be written, only 11 to 28", refusal(10))
    assert.are.equal("opset 99 cannot be written, only 11 to 28", refusal(99))
  end)

  it("says axes, sizes and ratios as attributes before 13", function()
    local g = core.graph "old"
    local v = g:node("Unsqueeze", { g:input("x", "float32", { 4 }), g:initializer("axes", ints { 0 }) })
    local a, b = g:node("Split", { g:node("Dropout", { v, g:initializer("ratio", core.tensor(0.25)) }), g:initializer("sizes", ints { 1, 3 }) },
      { axis = 1 }, 2)
    g:node("Concat", { b, g:node("Softmax", { a }, { axis = 1 }) }, { axis = 1 }, { "y" })
    g:output "y"
    local again = core.onnx_parse(core.onnx_bytes(g, 11))
    assert.are.same({ { 2, 3, 4, 1 } }, run(again, floats { 1, 2, 3, 4 }))
    assert.is_nil(again:find "axes")
    assert.is_nil(again:find "sizes")
  end)
end)

describe("mlserve convert", function()
  local function scratch()
    local directory = os.tmpname()
    os.remove(directory)
    assert(core.make_directories(directory))
    finally(function() os.execute("rm -r '" .. directory .. "'") end)
    return directory
  end

  local function verb(args)
    local lines, stdout, code, message = {}, io.stdout
    io.stdout = { write = function(_, ...) lines[#lines + 1] = table.concat({ ... }) end } -- luacheck: ignore
    args.keep_io_types = args.keep_io_types or "yes"
    local ok, why = pcall(function() code, message = cli.run(args) end)
    io.stdout = stdout -- luacheck: ignore
    return table.concat(lines), ok and code, ok and message or why
  end

  it("writes the file and sums up what changed", function()
    local directory = scratch()
    local from, to = directory .. "/a.onnx", directory .. "/b.onnx"
    assert(core.onnx_save(arithmetic(), from))
    local text, code, message = verb { model = from, output = to, simplify = true, batch = 2, opset = 13 }
    assert.are.equal(0, code, message)
    assert.truthy(text:find("nodes +5 +%-> +3\n"), text)
    assert.truthy(text:find("  Constant +1 +%-> +0\n"), text)
    assert.truthy(text:find("saved " .. to, 1, true))
    local converted = assert(mlserve.load(to))
    assert.are.same({ 2, 2 }, converted:inputs()[1].shape)
    assert.are.same({}, converted:metadata())
    assert.are.same({ { 1, 7 }, { 3, 1 } }, converted:predict({ { -5, 3 }, { 1, -1 } }):totable())
    text, code = verb { model = from, output = to, fold = true, json = true, force = true }
    assert.are.equal(0, code)
    local report = core.json_decode(text)
    assert.are.equal(5, report.before.nodes)
    assert.are.equal(3, report.after.nodes)
    assert.are.equal(to, report.model)
    assert.is_true(report.after.bytes > 0 and report.before.bytes > report.after.bytes)
  end)

  it("overwrites nothing unless told to, and leaves nothing behind when it fails", function()
    local directory = scratch()
    local from, to = directory .. "/a.onnx", directory .. "/b.onnx"
    assert(core.onnx_save(arithmetic(), from))
    local _, code, message = verb { model = from, output = from }
    assert.falsy(code)
    assert.truthy(message:find("exists", 1, true), message)
    _, code, message = verb { model = from, output = to, opset = 3 }
    assert.falsy(code)
    assert.truthy(message:find("opset 3 cannot be written", 1, true), message)
    assert.is_nil((io.open(to, "rb")))
    _, code, message = verb { model = from, output = to, keep_io_types = "no" }
    assert.falsy(code)
    assert.truthy(message:find("needs --fp16", 1, true), message)
  end)
end)
