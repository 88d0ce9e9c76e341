-- Limits on what a model may ask for: they can be set, a model over one is refused by name, and nothing is allocated on the word of a file.
local core = require "mlserve.core"
local mlserve = require "mlserve"

local folder = debug.getinfo(1, "S").source:match("^@(.*)spec/[^/]*$") or "./"
local golden = folder .. "spec/golden/onnx/"

-- ---- models, written as protobuf by hand: field numbers of onnx.proto ----
local function varint(n)
  local out = {}
  repeat
    local low = n % 128
    n = (n - low) / 128
    out[#out + 1] = string.char(low + (n > 0 and 128 or 0))
  until n == 0
  return table.concat(out)
end
local function number(field, n) return varint(field * 8) .. varint(n) end
local function bytes(field, text) return varint(field * 8 + 2) .. varint(#text) .. text end
local FLOAT, INT64 = 1, 7

local function tensor_type(dtype, dims)
  local shape = ""
  for _, n in ipairs(dims) do shape = shape .. bytes(1, type(n) == "string" and bytes(2, n) or number(1, n)) end
  return bytes(1, number(1, dtype) .. bytes(2, shape))
end
local function value_info(name, dtype, dims) return bytes(1, name) .. bytes(2, tensor_type(dtype, dims)) end
local function ints(name, list)
  local packed = ""
  for _, n in ipairs(list) do packed = packed .. varint(n) end
  return bytes(5, number(1, #list) .. number(2, INT64) .. bytes(8, name) .. bytes(7, packed))
end
local function node(op, name, inputs, outputs, rest)
  local out = ""
  for _, input in ipairs(inputs) do out = out .. bytes(1, input) end
  for _, output in ipairs(outputs) do out = out .. bytes(2, output) end
  return bytes(1, out .. bytes(3, name) .. bytes(4, op) .. (rest or ""))
end
local function subgraph(name, graph) return bytes(5, bytes(1, name) .. bytes(6, graph) .. number(20, 5)) end
local function model(graph, rest) return number(1, 8) .. bytes(7, graph) .. bytes(8, bytes(1, "") .. number(2, 17)) .. (rest or "") end

-- ConstantOfShape of these dimensions, known to the file (folded) or read from an input (dynamic)
local function bomb(dims)
  return model(ints("shape", dims) .. node("ConstantOfShape", "bomb", { "shape" }, { "y" }) .. bytes(12, value_info("y", FLOAT, {})))
end
local dynamic_bomb = model(node("ConstantOfShape", "late", { "shape" }, { "y" }) .. bytes(11, value_info("shape", INT64, { "n" })) ..
  bytes(12, bytes(1, "y")))

local function refused(what, message, ...)
  assert.is_nil((...))
  local text = select(2, ...)
  for _, part in ipairs { what, message } do assert.truthy(text:find(part, 1, true), ("'%s' in: %s"):format(part, text)) end
end
local function fails(part, f, ...) -- raises (misuse), or gives nil and a message
  local ok, message, text = pcall(f, ...)
  assert.is_true(not ok or message == nil)
  message = ok and text or message
  assert.truthy(tostring(message):find(part, 1, true), ("'%s' in: %s"):format(part, tostring(message)))
  return tostring(message)
end
local function peak() -- KiB of memory this process has had at most
  for line in io.lines "/proc/self/status" do
    local kib = line:match "^VmHWM:%s*(%d+)"
    if kib then return tonumber(kib) end
  end
end

describe("limits", function()
  it("of bytes and nodes refuse a file", function()
    refused("network/model.onnx", "over the limit of 100", core.onnx_load(golden .. "network/model.onnx", { bytes = 100 }))
    refused("network/model.onnx", "more than 2 nodes", core.onnx_load(golden .. "network/model.onnx", { nodes = 2 }))
    refused("network/model.onnx", "over the limit of 100", mlserve.load(golden .. "network/model.onnx", { limits = { bytes = 100 } }))
    assert.truthy(mlserve.load(golden .. "network/model.onnx", { limits = { bytes = 100000, nodes = 100 } }))
    refused("bytes", "more than 1 nodes", core.onnx_parse(model(node("Relu", "a", { "x" }, { "y" }) .. node("Relu", "b", { "y" }, { "z" }) ..
      bytes(11, value_info("x", FLOAT, { 1 })) .. bytes(12, value_info("z", FLOAT, { 1 }))), "bytes", { nodes = 1 }))
  end)

  it("count external data", function()
    refused("external", "limit", core.onnx_load(golden .. "external/model.onnx", { bytes = 450 }))
  end)

  it("are checked like all options", function()
    local message = fails("unknown option 'memry'", mlserve.load, "x.onnx", { limits = { memry = 1 } })
    assert.truthy(message:find("bytes, depth, loop, memory, nodes", 1, true), message)
    fails("limits", mlserve.load, "x.onnx", { limits = 5 })
    fails("unknown option 'limit'", mlserve.load, "x.onnx", { limit = {} })
    fails("memory", mlserve.load, "x.onnx", { limits = { memory = -1 } })
  end)

  it("of memory name the node that asks for too much", function()
    local before = peak()
    for _, dims in ipairs { { 2 ^ 40 }, { 2 ^ 20, 2 ^ 20 }, { 2 ^ 31, 2 ^ 8 }, { 2 ^ 52 } } do
      local program = assert(core.program(assert(core.onnx_parse(bomb(dims), "bomb"))))
      local message = fails("ConstantOfShape 'bomb'", program.run, program, {})
      assert.truthy(message:find("over the limit", 1, true) or message:find("max_memory", 1, true), message)
    end
    local late = assert(core.program(assert(core.onnx_parse(dynamic_bomb, "late"))))
    fails("ConstantOfShape 'late'", late.run, late, { core.tensor({ 2 ^ 40 }, "int64") })
    fails("ConstantOfShape 'late'", late.run, late, { core.tensor({ 2 ^ 31, 2 ^ 31, 2 ^ 31 }, "int64") })
    assert.same({ 2, 3 }, late:run({ core.tensor({ 2, 3 }, "int64") })[1]:shape())
    assert.is_true(peak() - before < 200 * 1024)
  end)

  it("of memory can be set, hold for all calls together and leave what fits alone", function()
    local graph = assert(core.onnx_parse(dynamic_bomb, "late"))
    local program = assert(core.program(graph, { max_memory = 1000000 }))
    assert.same({ 200000 }, program:run({ core.tensor({ 200000 }, "int64") })[1]:shape())
    fails("limit of 1000000 bytes", program.run, program, { core.tensor({ 300000 }, "int64") })
    for i = 1, 20 do assert.same({ 10000 * i }, program:run({ core.tensor({ 10000 * i }, "int64") })[1]:shape()) end
    assert.same({ 200000, 1 }, program:run({ core.tensor({ 200000, 1 }, "int64") })[1]:shape()) -- sessions of other shapes make room
  end)

  it("of memory hold for constants that are folded step by step", function()
    local graph, last = ints("shape", { 2 ^ 17 }) .. node("ConstantOfShape", "start", { "shape" }, { "v0" }), "v0"
    for i = 1, 24 do -- each twice as large as the one before: 8 TiB
      local name = "v" .. i
      graph = graph .. bytes(1, bytes(1, last) .. bytes(1, last) .. bytes(2, name) .. bytes(3, "double" .. i) .. bytes(4, "Concat") ..
        bytes(5, bytes(1, "axis") .. number(20, 2) .. number(3, 0)))
      last = name
    end
    local program = assert(core.program(assert(core.onnx_parse(model(graph .. bytes(12, bytes(1, last))), "folded")), { max_memory = 2 ^ 24 }))
    fails("limit", program.run, program, {})
  end)

  local BOOL = 9
  local counters = bytes(11, value_info("i", INT64, {})) .. bytes(11, value_info("go", BOOL, {}))
  local on = node("Identity", "on", { "go" }, { "on" }) .. bytes(12, value_info("on", BOOL, {}))
  local row = ints("shape", { 1000 }) .. node("ConstantOfShape", "row", { "shape" }, { "row" })

  it("end a loop that never ends", function()
    local endless = model(node("Loop", "endless", { "", "", "x" }, { "y" }, subgraph("body", counters .. bytes(11, value_info("a", FLOAT, {})) .. on ..
      node("Identity", "same", { "a" }, { "b" }) .. bytes(12, value_info("b", FLOAT, {})))) .. bytes(11, value_info("x", FLOAT, {})) ..
      bytes(12, value_info("y", FLOAT, {})))
    local program = assert(core.program(assert(core.onnx_parse(endless, "endless")), { max_loop = 1000 }))
    assert.truthy(fails("Loop 'endless'", program.run, program, { core.tensor(1) }):find("more than 1000 iterations", 1, true))
  end)

  it("end a loop whose stacked output or sequence grows for ever", function()
    local before = peak()
    local stacked = model(node("Loop", "stacking", { "", "" }, { "y" }, subgraph("body", counters .. on .. row ..
      bytes(12, value_info("row", FLOAT, { 1000 })))) .. bytes(12, value_info("y", FLOAT, { "n", 1000 })))
    local sequence = bytes(2, bytes(4, bytes(1, tensor_type(FLOAT, { 1000 }))))
    local growing = model(node("SequenceEmpty", "empty", {}, { "s" }) .. node("Loop", "growing", { "", "", "s" }, { "t" }, subgraph("body", counters ..
      bytes(11, bytes(1, "a") .. sequence) .. on .. row .. node("SequenceInsert", "more", { "a", "row" }, { "b" }) ..
      bytes(12, bytes(1, "b") .. sequence))) .. node("SequenceLength", "length", { "t" }, { "y" }) .. bytes(12, value_info("y", INT64, {})))
    for name, text in pairs { stacking = stacked, growing = growing } do
      local program = assert(core.program(assert(core.onnx_parse(text, name)), { max_memory = 20000000 }))
      fails("max_memory", program.run, program, {})
    end
    assert.is_true(os.getenv "SANITIZER" ~= nil or peak() - before < 120 * 1024) -- sanitizers hold on to freed memory
  end)

  it("refuse functions that call themselves or unfold without end", function()
    local function func(name, body) return bytes(25, bytes(1, name) .. bytes(4, "a") .. bytes(5, "b") .. body .. bytes(9, bytes(1, "") ..
      number(2, 17)) .. bytes(9, bytes(1, "mine") .. number(2, 1)) .. bytes(10, "mine")) end
    local function call(name, from, to) return bytes(7, bytes(1, from) .. bytes(2, to) .. bytes(4, name) .. bytes(7, "mine")) end
    local graph = bytes(1, bytes(1, "x") .. bytes(2, "y") .. bytes(4, "F0") .. bytes(7, "mine")) .. bytes(11, value_info("x", FLOAT, {})) ..
      bytes(12, value_info("y", FLOAT, {}))
    local imported = bytes(8, bytes(1, "mine") .. number(2, 1))
    local itself = model(graph, imported .. func("F0", call("F0", "a", "b")))
    assert.is_nil((core.onnx_parse(itself, "itself")))
    local each = imported -- each calls the next one twice: 2^40 nodes
    for i = 0, 39 do each = each .. func("F" .. i, call("F" .. i + 1, "a", "c") .. call("F" .. i + 1, "c", "b")) end
    each = each .. func("F40", bytes(7, bytes(1, "a") .. bytes(2, "b") .. bytes(4, "Neg")))
    local _, message = core.onnx_parse(model(graph, each), "laughs", { nodes = 10000 })
    assert.truthy(message:find("10000 nodes", 1, true), message)
  end)

  it("refuse subgraphs nested too deep", function()
    local condition = bytes(5, number(2, BOOL) .. bytes(8, "c") .. bytes(9, "\1"))
    local function nested(depth)
      local graph = node("Neg", "n", { "x" }, { "y" }) .. bytes(12, value_info("y", FLOAT, {}))
      for i = 1, depth do
        graph = node("If", "if" .. i, { "c" }, { "y" }, subgraph("then_branch", graph) .. subgraph("else_branch",
          node("Neg", "other", { "x" }, { "y" }) .. bytes(12, value_info("y", FLOAT, {})))) .. bytes(12, value_info("y", FLOAT, {}))
      end
      return model(condition .. graph .. bytes(11, value_info("x", FLOAT, {})))
    end
    local program = assert(core.program(assert(core.onnx_parse(nested(20), "nested"))))
    assert.equal(-2, program:run({ core.tensor(2) })[1]:item())
    assert.is_nil((core.onnx_parse(nested(20), "nested", { depth = 10 })))
    for _, depth in ipairs { 100, 400 } do assert.is_nil((core.onnx_parse(nested(depth), "nested"))) end
  end)
end)
