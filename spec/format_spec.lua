-- Files, servables and JSON through the bindings. The models are spec/golden/onnx (ONNX Runtime's and NumPy's outputs); deeper checks of the
-- formats themselves are in spec/csrc/test_format.c and test_serve_json.c.

local core = require "mlserve.core"

local here = debug.getinfo(1, "S").source:match("^@(.*)format_spec%.lua$")
local golden = here .. "golden/onnx/"

local function fails(words, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
end

local function refused(words, code, value, message, got)
  assert.is_nil(value)
  assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
  assert.equal(code, got)
end

describe("files", function()
  local directory

  setup(function()
    directory = os.tmpname()
    os.remove(directory)
    assert.is_true(core.make_directories(directory .. "/a/b"))
  end)
  teardown(function() os.execute("rm -rf '" .. directory .. "'") end)

  it("reads and writes ONNX", function()
    local graph = assert(core.onnx_load(golden .. "network/model.onnx"))
    local bytes = core.onnx_bytes(graph)
    local path = directory .. "/a/b/model.onnx"
    assert.is_true(core.onnx_save(graph, path))
    local file = assert(io.open(path, "rb"))
    assert.equal(bytes, file:read("*a"))
    file:close()
    assert.equal(43, assert(core.onnx_parse(bytes, "bytes")):parameters())
    refused("nothing.onnx", "NOT_FOUND", core.onnx_load(directory .. "/nothing.onnx"))
    refused("text: ", "DATA_LOSS", core.onnx_parse("not a model", "text"))
  end)

  it("runs what it has read", function()
    local graph = assert(core.onnx_load(golden .. "network/model.onnx"))
    local x = assert(core.tensor_pb_load(golden .. "network/test_data_set_0/input_0.pb"))
    local expected, name = core.tensor_pb_load(golden .. "network/test_data_set_0/output_0.pb")
    local rows, wanted = x:totable(), expected:totable()
    local body = core.json_encode { instances = rows }
    local servable = core.servable(core.program(graph), { model = "net", version = 3 })
    local got = core.json_decode(assert(servable:predict_json(body))).predictions
    assert.equal("output_0", name)
    assert.equal(#wanted, #got)
    for i = 1, #wanted do
      for j = 1, #wanted[i] do assert.is_true(math.abs(wanted[i][j] - got[i][j]) < 1e-6) end
    end
    assert.is_true(core.tensor_pb_save(directory .. "/x.pb", x, "x"))
    assert.same(rows, (core.tensor_pb_load(directory .. "/x.pb")):totable())
  end)

  it("reads and writes safetensors and npy", function()
    local tensors = { w = core.tensor { { 1, 2 }, { 3, 4 } }, b = core.tensor({ 5 }, "int64") }
    local path = directory .. "/t.safetensors"
    assert.is_true(core.safetensors_save(path, tensors, { epoch = "3", text = "a\"b" }))
    local back, metadata = core.safetensors_load(path)
    assert.same({ epoch = "3", text = "a\"b" }, metadata)
    assert.same({ { 1, 2 }, { 3, 4 } }, back.w:totable())
    assert.equal("int64", back.b:dtype())
    assert.is_true(core.safetensors_save(path, {}))
    assert.same({}, (core.safetensors_load(path)))
    fails("tensor expected, got number", core.safetensors_save, path, { a = 1 })
    fails("string expected, got number", core.safetensors_save, path, tensors, { a = 1 })
    refused("t.npy", "NOT_FOUND", core.npy_load(directory .. "/t.npy"))
    assert.is_true(core.npy_save(directory .. "/t.npy", tensors.w))
    assert.same({ { 1, 2 }, { 3, 4 } }, core.npy_load(directory .. "/t.npy"):totable())
    assert.is_true(core.file_write(directory .. "/plain", "a\0b"))
    refused("no safetensors file", "DATA_LOSS", core.safetensors_load(directory .. "/plain"))
  end)
end)

describe("servable", function()
  local function make(options) return core.servable(core.program(assert(core.onnx_load(golden .. "network/model.onnx"))), options) end

  it("knows its signatures", function()
    local servable = make { model = "net", version = 3 }
    local signature = servable:signatures().serving_default
    assert.same({ x = { name = "x", dtype = "float32", shape = { -1, 4 } } }, signature.inputs)
    assert.same({ p = { name = "p", dtype = "float32", shape = { -1, 3 } } }, signature.outputs)
    assert.equal("tensorflow/serving/predict", signature.method_name)
    assert.equal("net", servable:model())
    assert.equal(3, servable:version())
    assert.equal("servable 'net' version 3", tostring(servable))
  end)

  it("takes signatures and limits", function()
    local servable = make {
      signatures = { serving_default = { inputs = { features = "x" }, outputs = { scores = "p" } }, again = make():signatures().serving_default },
      max_elements = 8,
    }
    assert.is_truthy(servable:predict_json('{"instances":[{"features":[1,2,3,4]}]}'))
    assert.is_truthy(servable:predict_json('{"instances":[{"x":[1,2,3,4]}]}', "again"))
    refused("more than 8 elements", "RESOURCE_EXHAUSTED", servable:predict_json('{"instances":[[1,2,3,4],[1,2,3,4],[1,2,3,4]]}'))
    fails("no input 'y'", make, { signatures = { s = { inputs = { a = "y" }, outputs = { p = true } } } })
    fails("unknown option 'modle'", make, { modle = "x" })
    fails("table expected", make, { signatures = { s = { inputs = 5 } } })
  end)

  it("refuses in TensorFlow Serving's words", function()
    local servable = make()
    refused("JSON Parse error: The document is empty", "INVALID_ARGUMENT", servable:predict_json(""))
    refused("No values in 'instances' array", "INVALID_ARGUMENT", servable:predict_json('{"instances":[]}'))
    refused('Serving signature name: "s" not found', "INVALID_ARGUMENT", servable:predict_json('{"instances":[[1,2,3,4]]}', "s"))
  end)

  it("is found by its handle", function()
    local servable = make { model = "net" }
    local handle = servable:handle()
    assert.equal(handle, servable:handle())
    local other = assert(core.servable_at(handle))
    assert.equal("net", other:model())
    servable:close()
    refused("handle " .. ("%d"):format(handle), "NOT_FOUND", core.servable_at(handle))
    assert.is_truthy(other:predict_json('{"instances":[[1,2,3,4]]}'))
    fails("closed", servable.predict_json, servable, "{}")
    assert.equal("servable (closed)", tostring(servable))
    servable:close()
  end)
end)

describe("JSON", function()
  it("writes the same text for the same value", function()
    assert.equal('{"a":1,"b":[1,2.5,"x\\"",true],"c":{}}', core.json_encode { c = {}, b = { 1, 2.5, 'x"', true }, a = 1.0 })
    assert.equal("[]", core.json_encode(core.json_array {}))
    assert.equal("null", core.json_encode(core.null))
    assert.equal("null", core.json_encode(nil))
    assert.equal('{\n  "a": [\n    1\n  ],\n  "b": {}\n}', core.json_encode({ a = { 1 }, b = {} }, { pretty = true }))
    assert.equal("[NaN,-Infinity]", core.json_encode({ 0 / 0, -math.huge }, { nonfinite = true }))
  end)

  it("refuses what has no form", function()
    local loop = {}
    loop.loop = loop
    fails("NaN has no JSON form", core.json_encode, 0 / 0)
    fails("type function", core.json_encode, { print })
    fails("not a list", core.json_encode, { 1, [3] = 3 })
    fails("not a list", core.json_encode, { [true] = 1 })
    fails("deeper", core.json_encode, loop)
    fails("unknown option 'prety'; known: pretty, nonfinite", core.json_encode, 1, { prety = true })
    fails("unknown option ''", core.json_encode, 1, { [""] = true })
  end)

  it("reads", function()
    local value = core.json_decode '{"a":[1,-2.5e1,"\\u00e9",false,null],"b":{},"c":[]}'
    assert.same({ 1, -25, "\195\169", false, core.null }, value.a)
    assert.equal('{"a":[1,-25,"\195\169",false,null],"b":{},"c":[]}', core.json_encode(value))
    assert.equal(9007199254740992, core.json_decode "9007199254740992")
    assert.equal("3", tostring(core.json_decode("3"))) -- an integer where Lua has them
    assert.is_true(core.json_decode("Infinity", { nonfinite = true }) == math.huge)
    refused("line 1", "INVALID_ARGUMENT", core.json_decode '{"a":}')
    refused("missing", "INVALID_ARGUMENT", core.json_decode "")
    refused("offset 2", "INVALID_ARGUMENT", core.json_decode "1 2")
    refused("deeper", "INVALID_ARGUMENT", core.json_decode(("["):rep(100)))
  end)
end)
