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
    assert.truthy(result.error:find("nowhere", 1, true))
    assert.has_error(function() core.verify_case(golden, { speed = 1 }) end, "unknown option 'speed' (known: atol, level, rtol)")
    assert.has_error(function() core.verify_case(golden, { level = "quick" }) end)
  end)
end)

describe("mlserve verify", function()
  local function args(list, more)
    local all = { cases = list, rtol = 1e-3, atol = 1e-7, level = "fast" }
    for key, value in pairs(more or {}) do all[key] = value end
    return all
  end

  it("expands a directory and sums up by operator", function()
    local text, code = run(args { golden })
    assert.are.equal(0, code)
    assert.truthy(text:find("ok    conv_1x1 (", 1, true))
    assert.truthy(text:find("\nConv +7 +7 "), text)
    assert.truthy(text:find("%d+ passed, 0 failed\n$"))
  end)

  it("speaks JSON and exits 1 when a case fails", function()
    local directory = copy "pad_edge"
    os.remove(directory .. "/model.onnx")
    write(directory .. "/model.onnx", "\8")
    local text, code = run(args({ directory, golden .. "pad_wrap" }, { json = true }))
    assert.are.equal(1, code)
    assert.truthy(text:find('"failed":1', 1, true))
    assert.truthy(text:find('"passed":1}', 1, true))
    assert.truthy(text:find('"case":"pad_wrap"', 1, true))
  end)

  it("says what is no case", function()
    local _, code, message = run(args { here .. "support" })
    assert.is_nil(code)
    assert.truthy(message:find("neither model.onnx nor directories with one in them", 1, true))
  end)
end)
