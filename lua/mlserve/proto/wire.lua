--- Messages as bytes and as Lua tables, by the descriptors that mlserve.proto has made.
--
-- A message type has `name`, `by_name`, `by_number` and `ordered` (fields by number). A field has name, number, type (its kind below), repeated, packed,
-- map (the entry's type), message, enum, oneof (array of the fields that exclude each other) and presence (0 and "" are sent too).
--
-- 64-bit numbers do not fit into every Lua's numbers. What a Lua number holds exactly is a number (Lua 5.4: all of int64; LuaJIT: below 2^53), what it does
-- not is a string of decimal digits. Encoding takes both.

local byte, char, find, format, match, sub = string.byte, string.char, string.find, string.format, string.match, string.sub
local concat, floor, huge, sort = table.concat, math.floor, math.huge, table.sort
local error, ipairs, pairs, pcall, tonumber, tostring, type = error, ipairs, pairs, pcall, tonumber, tostring, type
local frexp, ldexp = math.frexp, math.ldexp -- luacheck: ignore
local pack, unpack = string.pack, string.unpack -- luacheck: ignore
local integers = math.type ~= nil -- luacheck: ignore

local M = {}

local TWO_31, TWO_32 = 2147483648, 4294967296
local EXACT_HIGH = 2097152 -- 2^53 / 2^32

---------------------------------------------------------------------------------------------------------------------------
-- 64 bits as two halves of 32

local function decimal(high, low)
  local limbs, chunks = { floor(high / 65536), high % 65536, floor(low / 65536), low % 65536 }, {}
  repeat
    local rest, any = 0, false
    for i = 1, 4 do
      local current = rest * 65536 + limbs[i]
      limbs[i] = floor(current / 10000000)
      rest = current % 10000000
      any = any or limbs[i] > 0
    end
    chunks[#chunks + 1] = rest
  until not any
  local text = format("%.0f", chunks[#chunks])
  for i = #chunks - 1, 1, -1 do text = text .. format("%07.0f", chunks[i]) end
  return text
end

local function negated(high, low)
  if low == 0 then return (TWO_32 - high) % TWO_32, 0 end
  return TWO_32 - 1 - high, TWO_32 - low
end

local function unsigned_of(high, low)
  if high < EXACT_HIGH or integers and high < TWO_31 then return high * TWO_32 + low end
  return decimal(high, low)
end

local function signed_of(high, low)
  if high < TWO_31 then return unsigned_of(high, low) end
  if integers then return (high - TWO_32) * TWO_32 + low end
  high, low = negated(high, low)
  if high < EXACT_HIGH then return -(high * TWO_32 + low) end
  return "-" .. decimal(high, low)
end

-- two's complement of an integer, a float that is one, or decimal digits; nil when it does not fit
local function halves(value, signed)
  local high, low
  if type(value) == "string" then
    local sign, digits = match(value, "^(-?)(%d+)$")
    if not digits or #digits > 20 then return nil end
    high, low = 0, 0
    for i = 1, #digits do
      low = low * 10 + byte(digits, i) - 48
      high = high * 10 + floor(low / TWO_32)
      low = low % TWO_32
      if high >= TWO_32 then return nil end
    end
    if sign == "-" and (high > 0 or low > 0) then
      if not signed or high > TWO_31 or high == TWO_31 and low > 0 then return nil end
      return negated(high, low)
    end
    if signed and high >= TWO_31 then return nil end
    return high, low
  end
  if type(value) ~= "number" or value % 1 ~= 0 then return nil end
  if signed and (value < -2 ^ 63 or value >= 2 ^ 63) or not signed and (value < 0 or value >= 2 ^ 64) then return nil end
  low = value % TWO_32
  high = (value - low) / TWO_32 -- exact: no more than 32 bits are left
  return floor(high % TWO_32), floor(low)
end

---------------------------------------------------------------------------------------------------------------------------
-- floating point, where string.pack is not there

local function le_bytes(value, count)
  local out = {}
  for i = 1, count do
    out[i] = char(value % 256)
    value = floor(value / 256)
  end
  return concat(out)
end

-- IEEE 754 with so many bits; the nearest, of two the even one
local function ieee_fields(value, mantissa_bits, bias)
  local sign, limit = 0, 2 * bias + 1
  if value < 0 or value == 0 and 1 / value < 0 then sign, value = 1, -value end
  if value ~= value then return 0, limit, 2 ^ (mantissa_bits - 1) end
  if value == huge then return sign, limit, 0 end
  if value == 0 then return sign, 0, 0 end
  local fraction, exponent = frexp(value)
  local biased = exponent + bias - 1
  if biased < 1 then
    fraction, biased = ldexp(fraction, biased), 0 -- a subnormal: fraction * 2^mantissa_bits is its mantissa
  else
    fraction = fraction * 2 - 1
  end
  local scaled = ldexp(fraction, mantissa_bits)
  local mantissa = floor(scaled)
  local over = scaled - mantissa
  if over > 0.5 or over == 0.5 and mantissa % 2 == 1 then mantissa = mantissa + 1 end
  if mantissa >= 2 ^ mantissa_bits then mantissa, biased = mantissa - 2 ^ mantissa_bits, biased + 1 end
  if biased >= limit then return sign, limit, 0 end
  return sign, biased, mantissa
end

local function ieee_value(sign, biased, mantissa, mantissa_bits, bias)
  local value
  if biased == 2 * bias + 1 then
    if mantissa ~= 0 then return 0 / 0 end
    value = huge
  elseif biased == 0 then
    value = ldexp(mantissa, 1 - bias - mantissa_bits)
  else
    value = ldexp(1 + mantissa / 2 ^ mantissa_bits, biased - bias)
  end
  return sign == 1 and -value or value
end

local function pack_float(value)
  local sign, biased, mantissa = ieee_fields(value, 23, 127)
  return le_bytes(sign * TWO_31 + biased * 8388608 + mantissa, 4)
end

local function pack_double(value)
  local sign, biased, mantissa = ieee_fields(value, 52, 1023)
  local low = mantissa % TWO_32
  return le_bytes(low, 4) .. le_bytes(sign * TWO_31 + biased * 1048576 + (mantissa - low) / TWO_32, 4)
end

local function unpack_float(bytes, at)
  local a, b, c, d = byte(bytes, at, at + 3)
  return ieee_value(d >= 128 and 1 or 0, d % 128 * 2 + floor(c / 128), c % 128 * 65536 + b * 256 + a, 23, 127)
end

local function unpack_double(bytes, at)
  local a, b, c, d, e, f, g, h = byte(bytes, at, at + 7)
  local mantissa = (((((g % 16 * 256 + f) * 256 + e) * 256 + d) * 256 + c) * 256 + b) * 256 + a
  return ieee_value(h >= 128 and 1 or 0, h % 128 * 16 + floor(g / 16), mantissa, 52, 1023)
end

if pack then
  function pack_float(value) return value == value and pack("<f", value) or "\0\0\192\127" end -- one NaN, as 0/0 has either sign
  function pack_double(value) return value == value and pack("<d", value) or "\0\0\0\0\0\0\248\127" end
  function unpack_float(bytes, at) return (unpack("<f", bytes, at)) end
  function unpack_double(bytes, at) return (unpack("<d", bytes, at)) end
end

---------------------------------------------------------------------------------------------------------------------------
-- UTF-8

-- Whether all is well-formed (RFC 3629).
local function is_utf8(text)
  local at = find(text, "[\128-\255]")
  while at do
    local a, b, c, d = byte(text, at, at + 3)
    local length
    local function tail(x) return x ~= nil and x >= 0x80 and x <= 0xbf end
    if a < 0x80 then length = 1
    elseif a >= 0xc2 and a <= 0xdf and tail(b) then length = 2
    elseif a >= 0xe0 and a <= 0xef and tail(b) and tail(c) and not (a == 0xe0 and b < 0xa0 or a == 0xed and b > 0x9f) then length = 3
    elseif a >= 0xf0 and a <= 0xf4 and tail(b) and tail(c) and tail(d) and not (a == 0xf0 and b < 0x90 or a == 0xf4 and b > 0x8f) then length = 4
    else return false end
    at = find(text, "[\128-\255]", at + length)
  end
  return true
end

---------------------------------------------------------------------------------------------------------------------------
-- decoding; errors are raised as strings

-- high, low and where it goes on
local STEPS = { 1, 128, 16384, 2097152 }
local function read_varint(bytes, at, stop)
  local b = at <= stop and byte(bytes, at)
  if not b then error("truncated", 0) end
  if b < 128 then return 0, b, at + 1 end
  local high, low = 0, b - 128
  for i = 1, 9 do
    at = at + 1
    b = at <= stop and byte(bytes, at)
    if not b then error("truncated", 0) end
    local seven = b % 128
    if i < 4 then low = low + seven * STEPS[i + 1]
    elseif i == 4 then
      low, high = low + seven % 16 * 268435456, floor(seven / 16)
    elseif i < 9 then high = high + seven * 8 * STEPS[i - 4]
    else high = high + seven % 2 * TWO_31 end
    if b < 128 then return high, low, at + 1 end
  end
  error("number of more than 10 bytes", 0)
end

local function read_fixed32(bytes, at, stop)
  if at + 3 > stop then error("truncated", 0) end
  local a, b, c, d = byte(bytes, at, at + 3)
  return ((d * 256 + c) * 256 + b) * 256 + a, at + 4
end

local function to_int32(_, low)
  if low >= TWO_31 then return low - TWO_32 end
  return low
end

local READ = {} -- wire form by kind: function(bytes, at, stop, field) -> value, next
local WIRE = {}

local function varint_kind(kind, convert)
  WIRE[kind] = 0
  READ[kind] = function(bytes, at, stop, field)
    local high, low
    high, low, at = read_varint(bytes, at, stop)
    return convert(high, low, field), at
  end
end

varint_kind("int32", to_int32)
varint_kind("uint32", function(_, low) return low end)
varint_kind("int64", signed_of)
varint_kind("uint64", unsigned_of)
varint_kind("bool", function(high, low) return high ~= 0 or low ~= 0 end)
varint_kind("enum", function(high, low, field)
  local number = to_int32(high, low)
  return field.enum.names[number] or number
end)
varint_kind("sint32", function(_, low)
  if low % 2 == 0 then return floor(low / 2) end
  return -floor(low / 2) - 1
end)
varint_kind("sint64", function(high, low)
  local negative = low % 2 == 1
  low = floor(low / 2) + high % 2 * TWO_31
  high = floor(high / 2)
  if negative then high, low = TWO_32 - 1 - high, TWO_32 - 1 - low end
  return signed_of(high, low)
end)

local function fixed32_kind(kind, convert)
  WIRE[kind] = 5
  READ[kind] = function(bytes, at, stop)
    local low
    low, at = read_fixed32(bytes, at, stop)
    return convert(0, low), at
  end
end
fixed32_kind("fixed32", function(_, low) return low end)
fixed32_kind("sfixed32", to_int32)

local function fixed64_kind(kind, convert)
  WIRE[kind] = 1
  READ[kind] = function(bytes, at, stop)
    local high, low
    low, at = read_fixed32(bytes, at, stop)
    high, at = read_fixed32(bytes, at, stop)
    return convert(high, low), at
  end
end
fixed64_kind("fixed64", unsigned_of)
fixed64_kind("sfixed64", signed_of)

WIRE.float, WIRE.double = 5, 1
function READ.float(bytes, at, stop)
  if at + 3 > stop then error("truncated", 0) end
  return unpack_float(bytes, at), at + 4
end
function READ.double(bytes, at, stop)
  if at + 7 > stop then error("truncated", 0) end
  return unpack_double(bytes, at), at + 8
end

local function read_length(bytes, at, stop)
  local high, low
  high, low, at = read_varint(bytes, at, stop)
  if high ~= 0 or low > stop - at + 1 then error("truncated", 0) end
  return at + low - 1, at
end

WIRE.string, WIRE.bytes, WIRE.message = 2, 2, 2
function READ.bytes(bytes, at, stop)
  local last
  last, at = read_length(bytes, at, stop)
  return sub(bytes, at, last), last + 1
end
function READ.string(bytes, at, stop)
  local last
  last, at = read_length(bytes, at, stop)
  local text = sub(bytes, at, last)
  if not is_utf8(text) then error("no valid UTF-8", 0) end
  return text, last + 1
end

local function skip(bytes, at, stop, wire, number, state, depth)
  if wire == 0 then
    local _
    _, _, at = read_varint(bytes, at, stop)
    return at
  elseif wire == 1 or wire == 5 then
    at = at + (wire == 1 and 8 or 4)
    if at > stop + 1 then error("truncated", 0) end
    return at
  elseif wire == 2 then
    return read_length(bytes, at, stop) + 1
  elseif wire == 3 then -- a group
    if depth > state.depth then error("nested too deep", 0) end
    while true do
      local high, tag
      high, tag, at = read_varint(bytes, at, stop)
      local inner = floor(tag / 8)
      if high ~= 0 or inner == 0 then error("field with the number 0 or more than 2^29", 0) end
      if tag % 8 == 4 then
        if inner ~= number then error("group that ends as another", 0) end
        return at
      end
      at = skip(bytes, at, stop, tag % 8, inner, state, depth + 1)
    end
  end
  error(format("wire type %d", wire), 0)
end

local DEFAULT = {
  int32 = 0, uint32 = 0, int64 = 0, uint64 = 0, sint32 = 0, sint64 = 0, fixed32 = 0, fixed64 = 0, sfixed32 = 0, sfixed64 = 0, float = 0.0, double = 0.0,
  bool = false, string = "", bytes = "",
}
M.DEFAULT = DEFAULT

local function default_of(field)
  if field.kind == "message" then return {} end
  if field.kind == "enum" then return field.enum.names[0] or 0 end
  return DEFAULT[field.kind]
end

local decode_into

local function count(state, n)
  state.items = state.items - n
  if state.items < 0 then error("too many values", 0) end
end

local function read_value(bytes, at, stop, field, state, depth, into)
  if field.kind ~= "message" then return READ[field.kind](bytes, at, stop, field) end
  local last
  last, at = read_length(bytes, at, stop)
  if depth >= state.depth then error("nested too deep", 0) end
  local value = decode_into(into or {}, field.message, bytes, at, last, state, depth + 1)
  return value, last + 1
end

local function read_field(result, field, wire, bytes, at, stop, state, depth)
  local name = field.name
  count(state, 1)
  if field.map then
    local entry
    entry, at = read_value(bytes, at, stop, field, state, depth)
    local map, fields = result[name], field.message.by_name
    if not map then
      map = {}
      result[name] = map
    end
    local key, value = entry.key, entry.value
    if key == nil then key = default_of(fields.key) end
    if value == nil then value = default_of(fields.value) end
    map[key] = value
  elseif field.repeated then
    local list = result[name]
    if not list then
      list = {}
      result[name] = list
    end
    if wire == 2 and WIRE[field.kind] ~= 2 then
      local last
      local read = READ[field.kind]
      last, at = read_length(bytes, at, stop)
      local n = #list
      while at <= last do
        n = n + 1
        list[n], at = read(bytes, at, last, field)
        count(state, 1)
      end
    else
      list[#list + 1], at = read_value(bytes, at, stop, field, state, depth)
    end
  else
    local into = field.kind == "message" and result[name] or nil
    result[name], at = read_value(bytes, at, stop, field, state, depth, into)
    if field.oneof then
      for _, other in ipairs(field.oneof) do
        if other ~= field then result[other.name] = nil end
      end
    end
  end
  return at
end

function decode_into(result, message, bytes, at, stop, state, depth)
  local by_number = message.by_number
  while at <= stop do
    local high, tag
    high, tag, at = read_varint(bytes, at, stop)
    local number, wire = floor(tag / 8), tag % 8
    if high ~= 0 or number == 0 then error("field with the number 0 or more than 2^29", 0) end
    local field = by_number[number]
    if field and (wire == WIRE[field.kind] or wire == 2 and field.repeated and WIRE[field.kind] ~= 2) then
      local ok, next_at = pcall(read_field, result, field, wire, bytes, at, stop, state, depth)
      if not ok then
        local inner = tostring(next_at)
        error(find(inner, "^%.") and "." .. field.name .. inner or "." .. field.name .. ": " .. inner, 0)
      end
      at = next_at
    else
      at = skip(bytes, at, stop, wire, number, state, depth)
    end
  end
  return result
end

--- Bytes to a table. What a message does not have is absent from it, lists and maps too; values of enums are names where they have one; of bytes that
--- come more than once the last one counts, as protobuf has it; unknown fields are skipped.
---@param message table type
---@param bytes string
---@param limits? table depth (100), items (1000000): values in all
---@return table|nil value
---@return string|nil error
function M.decode(message, bytes, limits)
  local state = { depth = limits and limits.depth or 100, items = limits and limits.items or 1000000 }
  local ok, value = pcall(decode_into, {}, message, bytes, 1, #bytes, state, 1)
  if ok then return value end
  value = tostring(value)
  return nil, message.name .. (find(value, "^%.") and value or ": " .. value)
end

---------------------------------------------------------------------------------------------------------------------------
-- encoding; errors are raised as strings, with the path in front

local function varint(high, low)
  if high == 0 and low < 128 then return char(low) end
  local out, n = {}, 0
  while high > 0 or low >= 128 do
    n = n + 1
    out[n] = char(low % 128 + 128)
    low = floor(low / 128) + high % 128 * 33554432
    high = floor(high / 128)
  end
  out[n + 1] = char(low)
  return concat(out)
end

local WRITE = {}

local function range(value, least, most, what)
  local number = type(value) == "string" and find(value, "^-?%d+$") and tonumber(value) or value
  if type(number) ~= "number" or number % 1 ~= 0 or number < least or number > most then error(format(": %s expected, got %s", what, tostring(value)), 0) end
  return number
end

local function write_int32(value)
  value = range(value, -TWO_31, TWO_31 - 1, "int32")
  if value < 0 then return varint(TWO_32 - 1, floor(value + TWO_32)) end
  return varint(0, floor(value))
end

function WRITE.int32(value) return write_int32(value) end
function WRITE.uint32(value) return varint(0, floor(range(value, 0, TWO_32 - 1, "uint32"))) end
function WRITE.sint32(value)
  value = range(value, -TWO_31, TWO_31 - 1, "int32")
  return varint(0, floor(value < 0 and -2 * value - 1 or 2 * value))
end

local function split(value, signed)
  local high, low = halves(value, signed)
  if not high then error(format(": %s expected, got %s", signed and "int64" or "uint64", tostring(value)), 0) end
  return high, low
end

function WRITE.int64(value) return varint(split(value, true)) end
function WRITE.uint64(value) return varint(split(value, false)) end
function WRITE.sint64(value)
  local high, low = split(value, true)
  local negative = high >= TWO_31
  high = high * 2 % TWO_32 + floor(low / TWO_31)
  low = low * 2 % TWO_32
  if negative then high, low = TWO_32 - 1 - high, TWO_32 - 1 - low end
  return varint(high, low)
end
function WRITE.fixed32(value) return le_bytes(range(value, 0, TWO_32 - 1, "uint32"), 4) end
function WRITE.sfixed32(value) return le_bytes(range(value, -TWO_31, TWO_31 - 1, "int32") % TWO_32, 4) end
function WRITE.fixed64(value)
  local high, low = split(value, false)
  return le_bytes(low, 4) .. le_bytes(high, 4)
end
function WRITE.sfixed64(value)
  local high, low = split(value, true)
  return le_bytes(low, 4) .. le_bytes(high, 4)
end
local function number_of(value)
  if type(value) ~= "number" then error(format(": number expected, got %s", type(value)), 0) end
  return value
end
function WRITE.float(value) return pack_float(number_of(value)) end
function WRITE.double(value) return pack_double(number_of(value)) end
function WRITE.bool(value)
  if type(value) ~= "boolean" then error(format(": boolean expected, got %s", type(value)), 0) end
  return value and "\1" or "\0"
end
function WRITE.enum(value, field)
  local number = field.enum.numbers[value]
  if not number then
    if type(value) == "string" then error(format(": '%s' is no value of %s", value, field.enum.name), 0) end
    number = value
  end
  return write_int32(number)
end
local function text_of(value)
  if type(value) ~= "string" then error(format(": string expected, got %s", type(value)), 0) end
  return varint(0, #value) .. value
end
WRITE.string, WRITE.bytes = text_of, text_of

local encode_message

local function write_value(field, value, depth)
  if field.kind ~= "message" then return WRITE[field.kind](value, field) end
  if type(value) ~= "table" then error(format(": table expected, got %s", type(value)), 0) end
  local bytes = encode_message(field.message, value, depth + 1)
  return varint(0, #bytes) .. bytes
end

local function is_default(field, value)
  if field.kind == "enum" then return value == 0 or field.enum.numbers[value] == 0 end
  if field.kind == "float" or field.kind == "double" then return value == 0 and 1 / value > 0 end
  return value == DEFAULT[field.kind] or value == "0" and type(DEFAULT[field.kind]) == "number"
end

-- Keys in an order that does not change from run to run.
local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  sort(keys, function(a, b)
    if type(a) == type(b) and type(a) ~= "boolean" then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function tag_of(field, wire) return varint(0, field.number * 8 + wire) end

local function write_field(out, field, value, depth)
  local n = #out
  if field.map then
    local fields = field.message.by_name
    if type(value) ~= "table" then error(format(": table expected, got %s", type(value)), 0) end
    for _, key in ipairs(sorted_keys(value)) do
      local entry = tag_of(fields.key, WIRE[fields.key.kind]) .. WRITE[fields.key.kind](key)
        .. tag_of(fields.value, WIRE[fields.value.kind]) .. write_value(fields.value, value[key], depth + 1)
      out[n + 1], out[n + 2], out[n + 3] = tag_of(field, 2), varint(0, #entry), entry
      n = n + 3
    end
  elseif field.repeated then
    if type(value) ~= "table" then error(format(": table expected, got %s", type(value)), 0) end
    if field.packed then
      local parts = {}
      for i = 1, #value do parts[i] = WRITE[field.kind](value[i], field) end
      local bytes = concat(parts)
      if bytes ~= "" then out[n + 1], out[n + 2], out[n + 3] = tag_of(field, 2), varint(0, #bytes), bytes end
    else
      local tag = tag_of(field, WIRE[field.kind])
      for i = 1, #value do
        out[n + 1], out[n + 2] = tag, write_value(field, value[i], depth)
        n = n + 2
      end
    end
  elseif field.presence or not is_default(field, value) then
    out[n + 1], out[n + 2] = tag_of(field, WIRE[field.kind]), write_value(field, value, depth)
  end
end

function encode_message(message, value, depth)
  local out, by_name = {}, message.by_name
  if depth > 100 then error(": nested too deep", 0) end
  for key in pairs(value) do
    if not by_name[key] then error(format(": %s has no field '%s'", message.name, tostring(key)), 0) end
  end
  for _, field in ipairs(message.ordered) do
    local given = value[field.name]
    if given ~= nil then
      local ok, problem = pcall(write_field, out, field, given, depth)
      if not ok then error("." .. field.name .. tostring(problem), 0) end
    end
  end
  return concat(out)
end

--- A table to bytes: fields in the order of their numbers, maps in the order of their keys. Values of enums may be names or numbers. A table that does not
--- fit is an error that says where.
---@param message table type
---@param value table
---@return string
function M.encode(message, value)
  local ok, bytes = pcall(encode_message, message, value, 1)
  if ok then return bytes end
  error(message.name .. tostring(bytes), 3)
end

M.is_utf8 = is_utf8

return M
