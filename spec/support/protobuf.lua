--- Bytes of protobuf messages, just enough to compare and to pick apart what a spec expects.

local cjson = require "cjson"

local M = {}

function M.bytes(hex) return (hex:gsub("..", function(pair) return string.char(tonumber(pair, 16)) end)) end

function M.hex(text) return text and (text:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)) end

function M.varint(n) return n < 128 and string.char(n) or string.char(n % 128 + 128) .. M.varint((n - n % 128) / 128) end

--- A field of bytes.
function M.field(number, text) return M.varint(number * 8 + 2) .. M.varint(#text) .. text end

--- Fields of a message: { number, value }, bytes as strings, numbers of fixed width as their bytes.
function M.fields(message)
  local at, out = 1, {}
  local function varint()
    local value, scale = 0, 1
    repeat
      local byte = message:byte(at)
      at = at + 1
      value = value + byte % 128 * scale
      scale = scale * 128
    until byte < 128
    return value
  end
  local function take(size)
    at = at + size
    return message:sub(at - size, at - 1)
  end
  while at <= #message do
    local tag = varint()
    local wire, value = tag % 8, nil
    if wire == 0 then value = varint()
    elseif wire == 1 then value = take(8)
    elseif wire == 2 then value = take(varint())
    elseif wire == 5 then value = take(4)
    else error("wire type " .. wire) end
    out[#out + 1] = { (tag - wire) / 8, value }
  end
  return out
end

--- The same, fields of one number sorted, so that the order of a map's entries does not matter.
function M.sorted(message)
  local list = M.fields(message)
  table.sort(list, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  return list
end

--- The document that spec/golden/make_grpc.py wrote.
function M.golden(name)
  local file = assert(io.open("spec/golden/grpc/" .. name .. ".json", "rb"))
  local document = cjson.decode(file:read "*a")
  file:close()
  return document
end

return M
