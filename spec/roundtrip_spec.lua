-- Round trip: a model that is read, written and read again is the same graph. Over ONNX's own backend tests (Debian's libonnx-testdata): every
-- model that loads. What writes and what others say about it is in spec/interop/check_roundtrip.py.
local core = require "mlserve.core"

local OFFICIAL = "/usr/share/libonnx-testdata/data/"
local AT_LEAST = { node = 870, simple = 5, ["pytorch-operator"] = 35, ["pytorch-converted"] = 82 } -- models that load

local function tensor_text(tensor)
  return table.concat({ tensor:dtype(), "(" .. table.concat(tensor:shape(), ",") .. ")",
    tensor:dtype() == "string" and core.json_encode(tensor:reshape({ tensor:count() }):totable()) or tensor:tobytes() }, " ")
end

local function attribute_text(value)
  if type(value) == "userdata" then return tensor_text(value) end
  return core.json_encode(type(value) == "table" and value or { value })
end

local function signature_text(value)
  return value.dtype .. " " .. (value.shape and "(" .. table.concat(value.shape, ",") .. ")" or "(?)")
end

-- A line for everything a graph says. An initialiser that a node reads is its contents: the import makes initialisers of attributes, whose names
-- nobody chose.
local function lines_of(graph)
  local lines, constants = {}, {}
  for _, value in ipairs(graph:initializers()) do constants[value.name] = tensor_text(graph:get_initializer(value.name)) end
  local function add(...) lines[#lines + 1] = table.concat({ ... }, " ") end
  add("graph", graph:name())
  for kind, values in pairs { input = graph:inputs(), output = graph:outputs() } do
    for _, value in ipairs(values) do add(kind, value.name, signature_text(value), constants[value.name] or "") end
  end
  for i, node in ipairs(graph:nodes()) do
    local attributes = {}
    add("node", i, node.domain, node.op, node.name)
    while node.inputs[#node.inputs] == "" do table.remove(node.inputs) end -- left out at the end: says nothing
    for k, name in ipairs(node.inputs) do add("node", i, "input", k, constants[name] or name) end
    for k, name in ipairs(node.outputs) do add("node", i, "output", k, name, name ~= "" and signature_text(graph:value(name)) or "") end
    for name, value in pairs(node.attributes) do attributes[#attributes + 1] = name .. "=" .. attribute_text(value) end
    table.sort(attributes)
    for _, text in ipairs(attributes) do add("node", i, "attribute", text) end
  end
  for key, text in pairs(graph:properties()) do add("metadata", key, text) end
  table.sort(lines)
  return lines
end

local function first_difference(a, b)
  for i = 1, math.max(#a, #b) do
    if a[i] ~= b[i] then return string.format("%s -> %s", tostring(a[i]):sub(1, 200), tostring(b[i]):sub(1, 200)) end
  end
end

-- nil when the model does not load; else true, or what became different
local function round_trip(path)
  local graph = core.onnx_load(path)
  local bytes, message, again
  if not graph then return nil end
  bytes, message = core.onnx_bytes(graph)
  if not bytes then return "not written: " .. message end
  again, message = core.onnx_parse(bytes)
  if not again then return "not read again: " .. message end
  return first_difference(lines_of(graph), lines_of(again)) or core.onnx_bytes(again) == bytes or "other bytes the second time"
end

describe("round trip of", function()
  for suite, at_least in pairs(AT_LEAST) do
    it(suite, function()
      local same, wrong = 0, {}
      for _, case in ipairs(assert(core.list_directory(OFFICIAL .. suite))) do
        local result = round_trip(OFFICIAL .. suite .. "/" .. case .. "/model.onnx")
        if result == true then same = same + 1
        elseif result then wrong[#wrong + 1] = case .. ": " .. result end
      end
      assert.are.equal("", table.concat(wrong, "\n"))
      assert.is_true(same >= at_least, same .. " models")
    end)
  end
end)
