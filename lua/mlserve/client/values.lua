--- What predict takes and gives, between Lua and the protocols: tensors, nested arrays, tables of them by name.

local core = require "mlserve.core"
local tensor = require "mlserve.tensor"

local concat, format, gsub, sort = table.concat, string.format, string.gsub, table.sort
local ipairs, next, pairs, pcall, tostring, type = ipairs, next, pairs, pcall, tostring, type

local M = {}

local NONFINITE = { nonfinite = true }

--- mlserve's element types and KServe's names for them.
M.DATATYPES = {
  bool = "BOOL", uint8 = "UINT8", uint16 = "UINT16", uint32 = "UINT32", uint64 = "UINT64", int8 = "INT8", int16 = "INT16", int32 = "INT32",
  int64 = "INT64", float16 = "FP16", bfloat16 = "BF16", float32 = "FP32", float64 = "FP64", string = "BYTES",
}
M.DTYPES = {}
for dtype, datatype in pairs(M.DATATYPES) do M.DTYPES[datatype] = dtype end

--- TensorFlow's element types.
M.TF_DTYPES = {
  DT_FLOAT = "float32", DT_DOUBLE = "float64", DT_HALF = "float16", DT_BFLOAT16 = "bfloat16", DT_INT8 = "int8", DT_INT16 = "int16",
  DT_INT32 = "int32", DT_INT64 = "int64", DT_UINT8 = "uint8", DT_UINT16 = "uint16", DT_UINT32 = "uint32", DT_UINT64 = "uint64", DT_BOOL = "bool",
  DT_STRING = "string",
}

--- Whether inputs come by name.
function M.is_named(x) return type(x) == "table" and type((next(x))) == "string" end

--- The keys, sorted.
function M.sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  sort(keys)
  return keys
end

-- without the position that raised errors begin with
local function plain(message) return (gsub(gsub(tostring(message), "^[^\n:]*:%d+: ", ""), "^json_encode: ", "")) end

--- A tensor of what was given; raises (without position) naming what is wrong.
---@param value any tensor, nested array, or a single value
---@param dtype string|nil of nested arrays; nil: float32, string or bool as they look
---@param what string for messages
---@return userdata
function M.tensor(value, dtype, what)
  local ok, made, message
  if tensor.is(value) then return value end
  ok, made, message = pcall(core.tensor, value, dtype)
  if not ok then error(format("%s: %s", what, plain(made)), 0) end
  if not made then error(format("%s: %s", what, tostring(message)), 0) end
  return made
end

local function first_leaf(value)
  while type(value) == "table" do
    if value[1] == nil then return value end
    value = value[1]
  end
  return value
end

--- JSON of an input as TensorFlow Serving takes it: nested lists, bytes as {"b64": …} where they are no UTF-8.
---@param value any
---@param what string for messages
---@param row integer|nil only this row
---@return string
function M.json(value, what, row)
  local ok, text, message
  if not tensor.is(value) and type(first_leaf(value)) == "string" then value = M.tensor(value, "string", what) end
  if tensor.is(value) then ok, text, message = pcall(core.request_json, value, row)
  else ok, text, message = pcall(core.json_encode, row and value[row] or value, NONFINITE) end
  if not ok then error(format("%s: %s", what, plain(text)), 0) end
  if not text then error(format("%s: %s", what, tostring(message)), 0) end
  return text
end

--- What an answer's value is in Lua: a tensor, or a table of what is none.
function M.value(value)
  if type(value) ~= "string" then return value end
  return core.json_decode(value, NONFINITE)
end

--- Some or all of the outputs by name; nil and a message when one is not there.
---@param all table
---@param wanted string[]|nil
---@return table|nil
---@return string|nil message
function M.select(all, wanted)
  local some = {}
  if not wanted then return all end
  for _, name in ipairs(wanted) do
    if all[name] == nil then
      return nil, format("the answer has no output '%s' (it has %s)", name, concat(M.sorted_keys(all), ", "))
    end
    some[name] = all[name]
  end
  return some
end

--- The names of wanted outputs: { "a", b = { classification = 3 } } gives "a", "b" and the parameters of b.
---@param outputs table|nil
---@return string[]|nil names
---@return table parameters by name
function M.wanted(outputs)
  local names, parameters = {}, {}
  if not outputs then return nil, parameters end
  for _, name in ipairs(outputs) do
    if type(name) ~= "string" then error(format("outputs: names expected, got %s", type(name)), 0) end
    names[#names + 1] = name
  end
  for _, name in ipairs(M.sorted_keys((function()
    local named = {}
    for key in pairs(outputs) do
      if type(key) == "string" then named[key] = true end
    end
    return named
  end)())) do
    if type(outputs[name]) ~= "table" then error(format("outputs: '%s': a table of parameters expected, got %s", name, type(outputs[name])), 0) end
    names[#names + 1], parameters[name] = name, outputs[name]
  end
  if #names == 0 then return nil, parameters end
  return names, parameters
end

--- One output alone is given as such unless the inputs came by name; several always by name.
function M.shape_answer(by_name, named)
  local name, value = next(by_name)
  if named or next(by_name, name) ~= nil then return by_name end
  return value
end

return M
