--- The Lua side of check_client.py: makes the calls it is asked for with mlserve.client and says what came.

local client = require "mlserve.client"
local core = require "mlserve.core"
local tensor = require "mlserve.tensor"

-- { dtype, shape, hex } or nested lists, as they stand in the question
local function input(value)
  if type(value) ~= "table" or not value.dtype then return value end
  if value.texts then
    for i, hex in ipairs(value.texts) do value.texts[i] = hex:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end) end
    return core.tensor(value.texts, "string"):reshape(value.shape)
  end
  local bytes = value.hex:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)
  return core.from_bytes(bytes, value.dtype, value.shape)
end

local function hex(bytes) return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end

local function output(value)
  local texts = {}
  if not tensor.is(value) then return value end
  if value:dtype() ~= "string" then return { dtype = value:dtype(), shape = core.json_array(value:shape()), hex = hex(value:tobytes()) } end
  for i, text in ipairs(value:reshape({ value:count() }):totable()) do texts[i] = hex(text) end
  return { dtype = "string", shape = core.json_array(value:shape()), texts = core.json_array(texts) }
end

require("spec.interop.question")(function(question)
  local answers = {}
  local inputs, given, value, message, code, made
  for i, call in ipairs(question.calls) do
    made = assert(client(call.client))
    inputs, given = call.inputs, call.options
    if call.named then
      inputs = {}
      for name, each in pairs(call.inputs) do inputs[name] = input(each) end
    elseif call.method == "predict" then
      inputs = input(inputs)
    end
    value, message, code = made[call.method](made, call.model, inputs, given)
    if tensor.is(value) then
      value = output(value)
    elseif call.method == "predict" and value then
      for name, each in pairs(value) do value[name] = output(each) end
    end
    answers[i] = { value = value, message = message, code = code }
    made:close()
  end
  return answers
end)
