-- The newest operators of ai.onnx, ai.onnx.preview and ai.onnx.preview.training, Gradient, and what ONNX's own suites do not reach of old ones:
-- golden cases (spec/golden/make_newops.py), ONNX's gradient models where Debian's libonnx-testdata is installed, and refusals.
local core = require "mlserve.core"

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local golden = here .. "golden/newops/"
local official = "/usr/share/libonnx-testdata/data/simple/"

-- Operators of spec/golden/newops; every one must be in it. A Gradient is none: reading expands it.
local operators = {
  "Adagrad", "Adam", "BatchNormalization", "CausalConvWithState", "FlexAttention", "LinearAttention", "MaxRoiPool", "Mod", "Momentum", "SwiGLU",
}

describe("golden case", function()
  local names, seen = assert(core.list_directory(golden)), {}
  table.sort(names)
  for _, name in ipairs(names) do
    for _, level in ipairs { "none", "exact", "fast" } do
      it(name .. " at level " .. level, function()
        local result = core.verify_case(golden .. name, { level = level, rtol = 1e-4, atol = 1e-6 })
        assert.is_true(result.passed, result.error)
        assert.is_true(result.outputs > 0)
        for _, operator in ipairs(result.operators) do seen[operator] = true end
      end)
    end
  end

  it("exists for every operator", function()
    for _, operator in ipairs(operators) do assert.is_true(seen[operator], operator) end
  end)
end)

describe("ONNX's gradient model", function()
  for _, name in ipairs { "test_gradient_of_add", "test_gradient_of_add_and_mul" } do
    local file = io.open(official .. name .. "/model.onnx")
    if not file then
      pending(name .. " (package libonnx-testdata is not installed)")
    else
      file:close()
      it(name, function()
        local result = core.verify_case(official .. name)
        assert.is_true(result.passed, result.error)
      end)
    end
  end
end)

-- The fields of a protobuf message: bytes for strings, varints for numbers below 128.
local function field(number, value)
  if type(value) == "number" then return string.char(number * 8, value) end
  assert(#value < 128 * 128)
  local length = #value < 128 and string.char(#value) or string.char(#value % 128 + 128, math.floor(#value / 128))
  return string.char(number * 8 + 2) .. length .. value
end

-- A model with input x and output `output` (float32 vectors); nodes: { op, inputs, outputs, attributes }, an attribute being a name or names.
local function model(nodes, output)
  local graph = {}
  for _, node in ipairs(nodes) do
    local bytes = {}
    for _, name in ipairs(node[2]) do bytes[#bytes + 1] = field(1, name) end
    for _, name in ipairs(node[3]) do bytes[#bytes + 1] = field(2, name) end
    bytes[#bytes + 1] = field(4, node[1])
    for name, value in pairs(node[4] or {}) do
      local attribute = { field(1, name) }
      if type(value) == "string" then
        attribute[2] = field(4, value) .. "\160\1\3"
      else
        for _, item in ipairs(value) do attribute[#attribute + 1] = field(9, item) end
        attribute[#attribute + 1] = "\160\1\8"
      end
      bytes[#bytes + 1] = field(5, table.concat(attribute))
    end
    if node[4] then bytes[#bytes + 1] = field(7, "ai.onnx.preview.training") end
    graph[#graph + 1] = field(1, table.concat(bytes))
  end
  local vector = field(2, field(1, field(1, 1) .. field(2, field(1, field(1, 3)))))
  graph[#graph + 1] = field(2, "g") .. field(11, field(1, "x") .. vector) .. field(12, field(1, output) .. vector)
  local bytes = field(1, 8) .. field(8, field(2, 13)) .. field(8, field(1, "ai.onnx.preview.training") .. field(2, 1))
  local graph_bytes = table.concat(graph)
  local length = string.char(#graph_bytes % 128 + 128, math.floor(#graph_bytes / 128) % 128 + 128, math.floor(#graph_bytes / 16384))
  return bytes .. string.char(7 * 8 + 2) .. length .. graph_bytes
end

describe("Gradient", function()
  local function read(nodes) return core.onnx_parse(model(nodes, nodes[#nodes][3][1])) end
  local square, dx = { "Mul", { "x", "x" }, { "y" } }, { xs = { "x" }, y = "y" }

  it("is expanded", function()
    local graph = assert(read { square, { "Gradient", { "x" }, { "dx" }, dx } })
    assert.are.same({ 2, 4, -6 }, core.program(graph):run({ core.tensor { 1, 2, -3 } })[1]:totable())
  end)

  it("of jumps is zero", function()
    local graph = assert(read { { "Floor", { "x" }, { "y" } }, { "Gradient", { "x" }, { "dx" }, dx } })
    assert.are.same({ 0, 0, 0 }, core.program(graph):run({ core.tensor { 1.5, 2, -3 } })[1]:totable())
  end)

  for what, case in pairs {
    ["attribute 'xs' is no list of names"] = { square, { "Gradient", { "x" }, { "dx" }, { y = "y" } } },
    ["attribute 'y' is no name"] = { square, { "Gradient", { "x" }, { "dx" }, { xs = { "x" } } } },
    ["unknown attribute 'ws'"] = { square, { "Gradient", { "x" }, { "dx" }, { xs = { "x" }, y = "y", ws = "x" } } },
    ["tensor 'later' is not computed before the node"] = { square, { "Gradient", { "x" }, { "dx" }, { xs = { "x" }, y = "later" } } },
    ["2 inputs for the 1 names"] = { square, { "Gradient", { "x", "y" }, { "dx" }, dx } },
    ["2 outputs for the 1 names"] = { square, { "Gradient", { "x" }, { "dx", "dz" }, dx } },
    ["input 0 is left out"] = { square, { "Gradient", { "" }, { "dx" }, dx } },
    ["tensor 'y' is int64: gradients are float32 or float64"] = { { "Shape", { "x" }, { "y" } }, { "Gradient", { "x" }, { "dx" }, dx } },
    ["between xs and y has no gradient"] = { { "Tanh", { "x" }, { "y" } }, { "Gradient", { "x" }, { "dx" }, dx },
      { "Gradient", { "x" }, { "ddx" }, { xs = { "x" }, y = "dx" } } },
  } do
    it("is refused: " .. what, function()
      local graph, message = read(case)
      assert.is_nil(graph)
      assert.truthy(message:find(what, 1, true), message)
      assert.truthy(message:find("Gradient (node ", 1, true), message)
    end)
  end

  it("of a Gradient of … grows no further than the limit", function()
    local nodes = { { "Exp", { "x" }, { "s" } }, { "Mul", { "s", "x" }, { "y" } } }
    for i = 1, 300 do nodes[#nodes + 1] = { "Gradient", { "x" }, { "d" .. i }, { xs = { "x" }, y = i == 1 and "y" or "d" .. i - 1 } } end
    local graph, message = read(nodes)
    assert.is_nil(graph)
    assert.truthy(message:find("are too many to be differentiated under a limit of 1000000 nodes", 1, true), message)
  end)
end)

-- The message of a node that cannot be made. inputs: shapes of float32 inputs, { dtype, shape… } or false.
local function refusal(op, inputs, attributes, outputs)
  local graph, ids = core.graph(op), {}
  for i, input in ipairs(inputs) do
    if input then
      local dtype = type(input[1]) == "string" and input[1] or "float32"
      local shape = {}
      for k = dtype == input[1] and 2 or 1, #input do shape[#shape + 1] = input[k] end
      ids[i] = graph:input("x" .. i, dtype, shape)
    else
      ids[i] = false
    end
  end
  local ok, message = pcall(graph.node, graph, op, ids, attributes, outputs)
  assert.is_false(ok)
  return tostring(message)
end

describe("a node is refused:", function()
  local training = "ai.onnx.preview.training."
  local linear = { q_num_heads = 2, kv_num_heads = 2, update_rule = "linear" }
  local momentum = { alpha = 0.9, beta = 1, mode = "standard", norm_coefficient = 0 }
  for _, case in ipairs {
    { "SwiGLU", { { 2, 3 }, { 2, 1 } }, nil, "A has shape (2, 3), B has shape (2, 1)" },
    { "SwiGLU", { { 2 }, { "float64", 2 } }, nil, "A is float32, B is float64" },
    { "CausalConvWithState", { { 2, 3, 7 }, { 4, 1, 2 } }, nil, "W has shape (4, 1, 2), expected (3, 1, " },
    { "CausalConvWithState", { { 2, 3, 7 }, { 3, 1, 0 } }, nil, "W has no taps" },
    { "CausalConvWithState", { { 2, 3, 7 }, { 3, 1, 2 }, { 4 } }, nil, "B has shape (4), expected (3)" },
    { "CausalConvWithState", { { 2, 3, 7 }, { 3, 1, 2 } }, { activation = "relu" }, "'activation'" },
    { "LinearAttention", { { 1, 2, 4 }, { 1, 2, 4 }, { 1, 3, 4 } }, linear, "the number of positions is 2 and 3" },
    { "LinearAttention", { { 1, 2, 4 }, { 1, 2, 5 }, { 1, 2, 4 } }, linear, "key: 5 features do not make 2 heads" },
    { "LinearAttention", { { 1, 2, 4 }, { 1, 2, 4 }, { 1, 2, 4 } }, { q_num_heads = 3, kv_num_heads = 2 }, "update rule gated_delta needs input decay" },
    { "LinearAttention", { { 1, 2, 4 }, { 1, 2, 4 }, { 1, 2, 4 } }, { q_num_heads = 3, kv_num_heads = 2, update_rule = "linear" },
      "3 query heads cannot share 2 key heads" },
    { "ai.onnx.preview.FlexAttention", { { 2, 3, 4 }, { 2, 3, 4 }, { 2, 3, 4 } }, nil, "input 0 has rank 3, expected 4" },
    { "MaxRoiPool", { { 1, 2, 4, 4 }, { 3, 4 } }, { pooled_shape = { 2, 2 } }, "rois (3, 4)" },
    { "MaxRoiPool", { { 1, 2, 4, 4 }, { 3, 5 } }, { pooled_shape = { 2, 0 } }, "'pooled_shape'" },
    { training .. "Momentum", { { 1 }, { "int64", 1 }, { 2 }, { 2 }, { 2 }, { 2 } }, momentum, "4 inputs behind R and T, expected a multiple of 3" },
    { training .. "Momentum", { { 1 }, { "int64", 1 }, { 2 }, { 3 }, { 2 } }, momentum, "its gradient has shape (3)" },
    { training .. "Momentum", { { 2 }, { "int64", 1 }, { 2 }, { 2 }, { 2 } }, momentum, "the learning rate R has 2 elements" },
    { training .. "Adam", { { 1 }, { "int64", 1 }, { 2 }, { 2 }, { 2 }, { "float64", 2 } }, nil, "its second accumulated tensor is float64" },
  } do
    it(case[1] .. ", " .. case[4], function()
      local message = refusal(case[1], case[2], case[3], 1)
      assert.truthy(message:find(case[4], 1, true), message)
    end)
  end
end)

describe("MaxRoiPool", function()
  it("refuses a region of an image that is not there", function()
    local graph = core.graph("rois")
    local x, rois = graph:input("x", "float32", { 1, 1, 4, 4 }), graph:input("rois", "float32", { 1, 5 })
    graph:output(graph:node("MaxRoiPool", { x, rois }, { pooled_shape = { 1, 1 } }))
    local program = core.program(graph)
    local inputs = { core.full({ 1, 1, 4, 4 }, 1, "float32"), core.tensor({ { 3, 0, 0, 1, 1 } }, "float32") }
    local ok, message = pcall(program.run, program, inputs)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("region 0 is of image 3", 1, true), message)
  end)
end)
