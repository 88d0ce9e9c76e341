-- Control flow, functions, sparse initialisers, sequences, optionals and maps: spec/golden/control (expected values from ONNX Runtime and NumPy, see
-- make_control.py), the same after writing and reading again, and how these values look in Lua. ONNX's own cases run in onnx_spec.lua.
local core = require "mlserve.core"
local mlserve = require "mlserve"

local GOLDEN = "spec/golden/control/"
local OFFICIAL = "/usr/share/libonnx-testdata/data/node/"

-- Operators proven by ONNX's official cases (onnx_spec.lua) or by the cases here.
local OPERATORS = {
  If = "if_nested_00", Loop = "loop_until", Scan = "scan_axes_1", SequenceEmpty = "loop_growing", SequenceInsert = "sequence_edit",
  SequenceErase = "sequence_edit", SequenceAt = "sequence_edit", SequenceLength = "loop_growing", SplitToSequence = "sequence_strings",
  ConcatFromSequence = "sequence_edit", ZipMap = "zipmap_string", DictVectorizer = "dictvectorizer", CastMap = "castmap_sparse",
  Optional = "optional_empty", OptionalHasElement = "optional_present", OptionalGetElement = "optional_present", SequenceMap = "sequence_map",
  SequenceConstruct = "sequence_construct",
}

local function load(path) return assert(mlserve.load(path)) end

local function cases() return assert(core.list_directory(GOLDEN)) end

local function copy_file(from, to)
  local source, target = assert(io.open(from, "rb")), assert(io.open(to, "wb"))
  target:write(source:read "*a")
  source:close()
  target:close()
end

describe("control flow, functions and sequences", function()
  for _, level in ipairs { "none", "exact", "fast" } do
    it("give what ONNX Runtime gives, at level " .. level, function()
      for _, case in ipairs(cases()) do
        local result = core.verify_case(GOLDEN .. case, { level = level })
        assert.is_true(result.passed, case .. ": " .. tostring(result.error))
        assert.is_true(result.outputs > 0, case)
      end
    end)
  end

  it("are the same after writing and reading", function()
    for _, case in ipairs(cases()) do
      local directory = os.tmpname()
      os.remove(directory)
      os.execute("mkdir -p " .. directory .. "/test_data_set_0")
      assert(load(GOLDEN .. case .. "/model.onnx"):save(directory .. "/model.onnx"))
      for _, file in ipairs(assert(core.list_directory(GOLDEN .. case .. "/test_data_set_0"))) do
        copy_file(GOLDEN .. case .. "/test_data_set_0/" .. file, directory .. "/test_data_set_0/" .. file)
      end
      local result = core.verify_case(directory)
      assert.is_true(result.passed, case .. ": " .. tostring(result.error))
      assert(load(directory .. "/model.onnx"):save(directory .. "/again.onnx"))
      local function bytes(name)
        local file = assert(io.open(directory .. name, "rb"))
        local text = file:read "*a"
        file:close()
        return text
      end
      assert.are.equal(bytes "/model.onnx", bytes "/again.onnx")
      os.execute("rm -r " .. directory)
    end
  end)

  it("are proven for each operator", function()
    for operator, case in pairs(OPERATORS) do
      local found = false
      for _, name in ipairs(core.verify_case(GOLDEN .. case).operators) do found = found or name == operator end
      assert.is_true(found, operator)
    end
  end)
end)

describe("values that are no tensors", function()
  it("are arrays, maps and false in Lua", function()
    local model = load(GOLDEN .. "zipmap_string/model.onnx")
    assert.are.equal("seq(map(string,tensor(float32)))", model:outputs()[1].dtype)
    assert.are.same({ { no = 0.25, yes = 0.75 }, { no = 0.5, yes = 0.5 } }, model:predict { x = { { 0.25, 0.75 }, { 0.5, 0.5 } } }.y)
    assert.are.same({ { [7] = 0.25, [-3] = 0.75 } }, load(GOLDEN .. "zipmap_int64/model.onnx"):predict { { 0.25, 0.75 } })
    local parts = load(GOLDEN .. "sequence_out/model.onnx"):predict { { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } }
    assert.are.equal(2, #parts)
    assert.are.same({ { 1, 2, 3, 4 }, { 5, 6, 7, 8 } }, parts[1]:totable())
    assert.are.same({ { 9, 10, 11, 12 } }, parts[2]:totable())
  end)

  it("come in from Lua", function()
    local insert = load(OFFICIAL .. "test_sequence_insert_at_back/model.onnx")
    local inputs = insert:inputs()
    assert.are.equal("seq(tensor(int64))", inputs[1].dtype)
    local out = insert:predict { [inputs[1].name] = { { 1, 2 }, { 3 } }, [inputs[2].name] = { 4, 5, 6 } }
    out = out[insert:outputs()[1].name]
    assert.are.same({ { 1, 2 }, { 3 }, { 4, 5, 6 } }, { out[1]:totable(), out[2]:totable(), out[3]:totable() })
    local has = load(OFFICIAL .. "test_optional_has_element/model.onnx")
    local name, result = has:inputs()[1].name, has:outputs()[1].name
    assert.is_false(has:predict { [name] = false }[result]:item())
    assert.is_true(has:predict { [name] = { 1, 2, 3, 4 } }[result]:item())
  end)

  it("refuse what does not fit, by name", function()
    local insert = load(OFFICIAL .. "test_sequence_insert_at_back/model.onnx")
    local first, second = insert:inputs()[1].name, insert:inputs()[2].name
    assert.error_matches(function() insert:predict { [first] = 3, [second] = { 1 } } end, "input '" .. first .. "': a table for seq%(tensor%(int64%)%) expected, got number")
    assert.error_matches(function() insert:predict { [first] = { { "a" } }, [second] = { 1 } } end, "element 1")
    assert.error_matches(function() insert:predict { [first] = {} } end, "'" .. second .. "' is not among the inputs given")
    assert.error_matches(function() insert:predict { [first] = {}, [second] = { 1 }, third = 1 } end, "no input 'third'")
  end)
end)
