-- core.verify_case and `mlserve verify`: golden cases of the convolution, pooling, image and normalisation operators (spec/golden/make_cnn.py:
-- ONNX Runtime, and ONNX's reference evaluator), ONNX's own backend tests where Debian's libonnx-testdata is installed, and what the engine
-- says about cases that fail.
local core = require "mlserve.core"
local verify = require "mlserve.cli.verify"

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local golden = here .. "golden/cnn/"
local official = "/usr/share/libonnx-testdata/data/"

-- Operators of spec/golden/cnn; every one must be in it.
local operators = {
  "AffineGrid", "AveragePool", "CenterCropPad", "Col2Im", "Conv", "ConvTranspose", "DeformConv", "DepthToSpace", "Det", "Einsum",
  "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GridSample", "GroupNormalization", "Hardmax", "InstanceNormalization", "LRN",
  "LpNormalization", "LpPool", "MaxPool", "MaxUnpool", "MeanVarianceNormalization", "NonMaxSuppression", "Pad", "RMSNormalization", "Resize",
  "RoiAlign", "SpaceToDepth",
}

-- Cases of ONNX 1.12 that need no more than these operators and must pass.
local patterns = {
  node = { "^test_averagepool", "^test_basic_conv_", "^test_col2im", "^test_constant_pad", "^test_conv_", "^test_convtranspose",
    "^test_depthtospace", "^test_det_", "^test_edge_pad", "^test_einsum", "^test_globalaveragepool", "^test_globalmaxpool", "^test_gridsample",
    "^test_hardmax", "^test_instancenorm", "^test_lrn", "^test_maxpool", "^test_maxunpool", "^test_mvn", "^test_nonmaxsuppression",
    "^test_reflect_pad", "^test_resize", "^test_roialign", "^test_spacetodepth", "^test_upsample" },
  ["pytorch-converted"] = { "." },
  ["pytorch-operator"] = { "^test_operator_conv", "^test_operator_maxpool", "^test_operator_pad" },
}

local function cases_in(directory)
  local names = core.list_directory(directory)
  if names then table.sort(names) end
  return names
end

local function matches(name, list)
  for _, pattern in ipairs(list) do
    if name:find(pattern) then return true end
  end
end

local function write(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

-- A copy of a golden case in a directory of its own, whose files the test may change.
local function copy(name)
  local directory = os.tmpname()
  os.remove(directory)
  assert(os.execute("cp -r '" .. golden .. name .. "' '" .. directory .. "'"))
  finally(function() os.execute("rm -r '" .. directory .. "'") end)
  return directory
end

-- stdout of a verb's run(), and what it returns
local function run(args)
  local lines, stdout = {}, io.stdout
  local code, message
  io.stdout = { write = function(_, ...) lines[#lines + 1] = table.concat({ ... }) end } -- luacheck: ignore
  local ok, why = pcall(function() code, message = verify.run(args) end)
  io.stdout = stdout -- luacheck: ignore
  assert(ok, why)
  return table.concat(lines), code, message
end

describe("golden case", function()
  local seen = {}
  for _, name in ipairs(assert(cases_in(golden))) do
    for _, level in ipairs { "none", "fast" } do
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

describe("ONNX's backend test", function()
  for suite, list in pairs(patterns) do
    local names = cases_in(official .. suite)
    if not names then
      pending(suite .. " (package libonnx-testdata is not installed)")
    else
      it(suite, function()
        local count = 0
        for _, name in ipairs(names) do
          if matches(name, list) then
            local result = core.verify_case(official .. suite .. "/" .. name)
            assert.is_true(result.passed, name .. ": " .. tostring(result.error))
            count = count + 1
          end
        end
        assert.is_true(count > 0)
      end)
    end
  end
end)

describe("verify_case", function()
  it("names the first difference", function()
    local directory = copy "conv_1x1"
    local path = directory .. "/test_data_set_0/output_0.pb"
    local bytes = read(path)
    write(path, bytes:sub(1, -5) .. "\0\0\128\66") -- the last element becomes 64
    local result = core.verify_case(directory)
    assert.is_false(result.passed)
    assert.truthy(result.error:find("output 'y0' at (1, 2, 2, 3)", 1, true), result.error)
    assert.truthy(result.error:find("expected 64 (1 of 72 elements differ)", 1, true), result.error)
  end)

  it("applies the tolerances", function()
    local name = golden .. "resize_linear_scales"
    assert.is_true(core.verify_case(name).passed)
    assert.is_true(core.verify_case(name, { rtol = 0, atol = 1 }).passed)
    assert.is_false(core.verify_case(name, { rtol = 0, atol = 0 }).passed)
  end)

  it("wants every file of the data set", function()
    local directory = copy "conv_1x1"
    os.remove(directory .. "/test_data_set_0/input_2.pb")
    assert.truthy(core.verify_case(directory).error:find("there is no file for input 'x2'", 1, true))
    directory = copy "conv_1x1"
    write(directory .. "/test_data_set_0/output_1.pb", "")
    assert.truthy(core.verify_case(directory).error:find("more outputs than the 1 of the model", 1, true))
  end)

  it("fails without a case, and raises on misuse", function()
    local result = core.verify_case(golden .. "nowhere")
    assert.is_false(result.passed)
    assert.is_true(result.refused)
    assert.truthy(result.error:find("nowhere", 1, true))
    assert.has_error(function() core.verify_case(golden, { speed = 1 }) end, "unknown option 'speed' (known: atol, level, rtol)")
    assert.has_error(function() core.verify_case(golden, { level = "quick" }) end)
    assert.has_error(function() core.verify_case(golden, { rtol = -1 }) end, "option 'rtol': a number of at least 0 expected")
    assert.has_error(function() core.verify_cases { 1 } end, "directory 1: string expected, got number")
  end)

  it("reports the first difference in parts, and the largest ones", function()
    local directory = copy "conv_1x1"
    local path = directory .. "/test_data_set_0/output_0.pb"
    write(path, read(path):sub(1, -5) .. "\0\0\128\66")
    local result = core.verify_case(directory)
    local got = tonumber(result.difference.got)
    assert.are.equal("(1, 2, 2, 3)", result.difference.index)
    assert.are.equal("64", result.difference.expected)
    assert.are.equal("y0", result.difference.output)
    assert.is_true(math.abs(result.max_abs - math.abs(64 - got)) < 1e-4)
    assert.is_true(math.abs(result.max_rel - math.abs(64 - got) / 64) < 1e-5)
    assert.is_false(result.refused)
  end)

  it("runs every data set", function()
    local directory = copy "conv_1x1"
    assert(os.execute(("cp -r '%s/test_data_set_0' '%s/test_data_set_3'"):format(directory, directory)))
    assert.are.equal(2, core.verify_case(directory).outputs)
    os.remove(directory .. "/test_data_set_3/output_0.pb")
    assert.truthy(core.verify_case(directory).error:find("test_data_set_3: output_0.pb is missing", 1, true))
  end)

  it("takes the tolerances of data.json, unless others are given", function()
    local directory = copy "conv_1x1"
    local path = directory .. "/test_data_set_0/output_0.pb"
    write(path, read(path):sub(1, -5) .. "\0\0\128\66") -- 64
    write(directory .. "/data.json", '{"atol": 1e4, "url": {"x": [1]}, "rtol": 0.5}')
    assert.is_true(core.verify_case(directory).passed)
    assert.is_false(core.verify_case(directory, { rtol = 1e-3, atol = 1e-7 }).passed)
    write(directory .. "/data.json", '{"atol": -1}')
    assert.truthy(core.verify_case(directory).error:find("data.json: atol is -1, expected at least 0", 1, true))
  end)

  it("gives the same on several threads", function()
    local list, threads, results = {}, core.threads(), {}
    for i, name in ipairs(cases_in(golden)) do list[i] = golden .. name end
    for _, n in ipairs { 1, 4 } do
      core.set_threads(n)
      results[n] = core.verify_cases(list)
      core.set_threads(threads)
    end
    assert.are.same(results[1], results[4])
  end)
end)

-- A case of one random operator, made here: expected values are given, so a wrong distribution can be given too.
local function random_case(op, input, attributes, more, expected)
  local directory = os.tmpname()
  os.remove(directory)
  finally(function() os.execute("rm -r '" .. directory .. "'") end)
  local graph = core.graph(op)
  local ids = { graph:input("x", input:dtype(), input:shape()) }
  for i, tensor in ipairs(more) do ids[i + 1] = graph:initializer("c" .. i, tensor) end
  graph:output((graph:node(op, ids, attributes, 1)))
  assert(core.onnx_save(graph, directory .. "/model.onnx"))
  assert(core.make_directories(directory .. "/test_data_set_0"))
  assert(core.tensor_pb_save(directory .. "/test_data_set_0/input_0.pb", input, "x"))
  assert(core.tensor_pb_save(directory .. "/test_data_set_0/output_0.pb", expected, "y"))
  return core.verify_case(directory)
end

describe("random outputs", function()
  local p = core.tensor { 0.9, 0.1, 0.8, 0.2, 0.95, 0.05, 0.7, 0.1, 0.9, 0.2 }
  local likely = { 1, 0, 1, 0, 1, 0, 1, 0, 1, 0 }

  it("are compared by distribution", function()
    local result = random_case("Bernoulli", p, {}, {}, core.tensor(likely))
    assert.is_true(result.passed, result.error)
    assert.is_true(result.random)
  end)

  it("fail when they are distributed otherwise", function()
    local unlikely = {}
    for i, v in ipairs(likely) do unlikely[i] = 1 - v end
    for _, expected in ipairs { unlikely, { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 }, { 2, 0, 2, 0, 2, 0, 2, 0, 2, 0 } } do
      local result = random_case("Bernoulli", p, {}, {}, core.tensor(expected))
      assert.is_false(result.passed)
      assert.truthy(result.error:find("distributed otherwise", 1, true), result.error)
    end
    for _, shift in ipairs { 0, 1 } do -- normal numbers of mean 0 and 1 against a mean of 0
      local expected = core.random_normal({ 400 }, shift, 1, 7)
      assert.are.equal(shift == 0, random_case("RandomNormalLike", core.zeros { 400 }, {}, {}, expected).passed)
    end
    assert.is_false(random_case("RandomNormalLike", core.zeros { 400 }, {}, {}, core.random_normal({ 400 }, 0, 3, 7)).passed)
  end)

  it("still need the type and the shape", function()
    assert.truthy(random_case("Bernoulli", p, {}, {}, core.tensor(likely):cast "int32").error:find("is float32, expected int32", 1, true))
    assert.truthy(random_case("Bernoulli", p, {}, {}, core.tensor(likely):reshape { 2, 5 }).error:find("has shape (10), expected (2, 5)", 1, true))
  end)

  it("of Dropout are random only where it draws", function()
    local x, truth = core.full({ 60 }, 3), core.tensor({ 1 }, "bool"):reshape {}
    local half, none = core.tensor({ 0.5 }):reshape {}, core.tensor({ 0 }):reshape {}
    local dropped = {}
    for i = 1, 60 do dropped[i] = i % 2 == 0 and 6 or 0 end
    assert.is_true(random_case("Dropout", x, {}, { half, truth }, core.tensor(dropped)).passed)
    assert.is_false(random_case("Dropout", x, {}, { half, truth }, x).passed) -- kept elements are scaled
    assert.is_false(random_case("Dropout", x, {}, { none, truth }, core.tensor(dropped)).passed)
    local exact = random_case("Dropout", x, {}, { none, truth }, x)
    assert.is_true(exact.passed, exact.error)
    assert.is_false(exact.random)
  end)
end)

describe("mlserve verify", function()
  local function args(list, more)
    local all = { cases = list }
    for key, value in pairs(more or {}) do all[key] = value end
    return all
  end

  it("expands a directory and sums up by operator", function()
    local text, code = run(args { golden })
    assert.are.equal(0, code)
    assert.truthy(text:find("ok    conv_1x1 (", 1, true))
    assert.truthy(text:find("\nConv +7 +7 "), text)
    assert.truthy(text:find("%d+ passed, 0 failed\n$"))
    assert.truthy(text:find("\noperator +passed +cases +max abs +max rel +max ulp\n"))
    assert.are.equal(text, (run(args({ golden }, { jobs = 3, level = "fast" }))))
  end)

  it("takes a directory of suites, and counts cases without a model", function()
    local directory = copy "conv_1x1"
    assert(os.execute(("mkdir -p '%s/all/a/b' '%s/all/a/c' && cp -r '%s/model.onnx' '%s/test_data_set_0' '%s/all/a/b'"):format(directory, directory,
      directory, directory, directory)))
    write(directory .. "/all/a/c/data.json", '{"url": "x"}')
    local text, code = run(args { directory .. "/all" })
    assert.are.equal(0, code)
    assert.truthy(text:find("ok    a/b (", 1, true), text)
    assert.truthy(text:find("1 without a model (only data.json)\n1 passed, 0 failed", 1, true), text)
    assert.are.equal(1, select(2, run(args { directory .. "/all/a/c" }))) -- nothing was run
  end)

  it("speaks JSON and exits 1 when a case fails", function()
    local directory = copy "pad_edge"
    os.remove(directory .. "/model.onnx")
    write(directory .. "/model.onnx", "\8")
    local text, code = run(args({ directory, golden .. "pad_wrap" }, { json = true }))
    assert.are.equal(1, code)
    assert.truthy(text:find('"failed":1', 1, true))
    assert.truthy(text:find('"passed":1,"random":0,"refused":1}', 1, true), text)
    assert.truthy(text:find('"case":"pad_wrap"', 1, true))
  end)

  it("says what is no case", function()
    local _, code, message = run(args { here .. "support" })
    assert.is_nil(code)
    assert.truthy(message:find("neither model.onnx nor directories with one in them", 1, true))
  end)
end)

describe("mlserve verify --record", function()
  local root, model

  before_each(function()
    root = os.tmpname()
    os.remove(root)
    assert(core.make_directories(root))
    model = root .. "/sum.onnx"
    local graph = core.graph "sum"
    local a, b = graph:input("a", "float32", { -1, 3 }), graph:input("b", "float32", { 3 })
    graph:output((graph:node("Add", { a, b }, {}, 1)))
    assert(core.onnx_save(graph, model))
  end)
  after_each(function() os.execute("rm -r '" .. root .. "'") end)

  local function record(more)
    local all = { cases = {}, record = root .. "/case", model = model }
    for key, value in pairs(more or {}) do all[key] = value end
    return run(all)
  end
  local function verified() return run { cases = { root .. "/case" } } end
  local function listing(directory)
    local names = cases_in(directory)
    return table.concat(names or {}, " ")
  end

  it("records given inputs, and what comes out of them", function()
    assert(core.npy_save(root .. "/a.npy", core.tensor { { 1, 2, 3 }, { 4, 5, 6 } }))
    assert(core.npy_save(root .. "/b.npy", core.tensor({ 10, 20, 30 }, "int64"))) -- becomes what the model wants
    local text, code, message = record { input = { { name = "a", path = root .. "/a.npy" }, { name = "b", path = root .. "/b.npy" } } }
    assert.are.equal(0, code, message)
    assert.are.equal("recorded " .. root .. "/case/test_data_set_0: 2 inputs, 1 output\n", text)
    local tensor, name = core.tensor_pb_load(root .. "/case/test_data_set_0/output_0.pb")
    assert.are.same({ { 11, 22, 33 }, { 14, 25, 36 } }, tensor:totable())
    assert.truthy(#name > 0)
    assert.are.equal("b", select(2, core.tensor_pb_load(root .. "/case/test_data_set_0/input_1.pb")))
    assert.are.equal(read(model), read(root .. "/case/model.onnx"))
    assert.are.equal(0, select(2, verified()))
    assert.are.equal("a.npy b.npy case sum.onnx", listing(root)) -- nothing is left lying about
  end)

  it("adds data sets of random inputs, each its own", function()
    for _ = 1, 2 do assert.are.equal(0, select(2, record { batch = 4, seed = 5 })) end
    assert.are.equal("model.onnx test_data_set_0 test_data_set_1", listing(root .. "/case"))
    local first = core.tensor_pb_load(root .. "/case/test_data_set_0/input_0.pb")
    local second = core.tensor_pb_load(root .. "/case/test_data_set_1/input_0.pb")
    assert.are.same({ 4, 3 }, first:shape())
    assert.are_not.same(first:totable(), second:totable())
    assert.are.equal(0, select(2, verified()))
    assert.are.equal(2, core.verify_case(root .. "/case").outputs)
  end)

  it("overwrites only when told to, and then the whole case", function()
    assert.are.equal(0, select(2, record()))
    assert.are.equal(0, select(2, record()))
    local before = read(root .. "/case/test_data_set_0/output_0.pb")
    local graph = core.graph "difference"
    local a = graph:input("a", "float32", { 3 })
    graph:output((graph:node("Neg", { a }, {}, 1)))
    assert(core.onnx_save(graph, root .. "/neg.onnx"))
    local _, code, message = record { model = root .. "/neg.onnx" }
    assert.is_nil(code)
    assert.truthy(message:find("holds a case of another model", 1, true))
    assert.are.equal(before, read(root .. "/case/test_data_set_0/output_0.pb"))
    assert.are.equal(0, select(2, record { model = root .. "/neg.onnx", force = true }))
    assert.are.equal("model.onnx test_data_set_0", listing(root .. "/case"))
    assert.are.equal("case neg.onnx sum.onnx", listing(root))
    assert.are.equal(0, select(2, verified()))
  end)

  it("touches nothing but cases", function()
    write(root .. "/precious", "x")
    for _, force in ipairs { false, true } do
      local _, code, message = record { record = root, force = force }
      assert.is_nil(code)
      assert.truthy(message:find("is no case: it holds ", 1, true), message)
    end
    assert.are.equal("precious sum.onnx", listing(root))
  end)

  it("removes a link, not what it leads to", function()
    assert.are.equal(0, select(2, record()))
    assert(core.make_directories(root .. "/shared"))
    write(root .. "/shared/precious", "x")
    assert(os.execute(("ln -s '%s/shared' '%s/case/test_data_set_1'"):format(root, root)))
    assert.are.equal(0, select(2, record { force = true }))
    assert.are.equal("model.onnx test_data_set_0", listing(root .. "/case"))
    assert.are.equal("precious", listing(root .. "/shared"))
  end)

  it("leaves no half case behind a failure", function()
    local _, code, message = record { input = { { name = "c", path = "x.npy" } } }
    assert.is_nil(code)
    assert.are.equal("the model has no input 'c' (inputs: a, b)", message)
    assert(core.npy_save(root .. "/a.npy", core.tensor { 1, 2 }))
    assert.has_error(function() record { input = { { name = "a", path = root .. "/a.npy" } } } end)
    assert.are.equal("a.npy sum.onnx", listing(root))
  end)

  it("draws inputs of every type", function()
    local graph = core.graph "types"
    for _, dtype in ipairs { "int64", "uint8", "bool", "string", "float64", "float32" } do
      graph:output((graph:node("Identity", { graph:input("x_" .. dtype, dtype, { 20 }) }, {}, 1)))
    end
    assert(core.onnx_save(graph, root .. "/types.onnx"))
    assert.are.equal(0, select(2, record { model = root .. "/types.onnx" }))
    assert.are.equal(0, select(2, verified()))
    for i = 0, 5 do
      local values, kinds, n = core.tensor_pb_load(("%s/case/test_data_set_0/input_%d.pb"):format(root, i)):totable(), {}, 0
      for _, v in ipairs(values) do
        if not kinds[v] then n = n + 1 end
        kinds[v] = true
      end
      assert.is_true(n > 1, "input " .. i .. " has one value only")
    end
  end)

  it("says what does not go together", function()
    local _, message, code = verify.run { cases = {}, record = "x" }
    assert.are.equal("--record needs --model MODEL", message)
    assert.are.equal(2, code)
    _, message, code = verify.run { cases = { golden }, record = "x", model = "y" }
    assert.are.equal("either cases to run or --record DIR", message)
    assert.are.equal(2, code)
    _, message = verify.run { cases = { golden }, seed = 1 }
    assert.are.equal("--seed is for --record DIR only", message)
    _, message = verify.run { cases = {} }
    assert.are.equal("a case or a directory of cases expected", message)
  end)
end)
