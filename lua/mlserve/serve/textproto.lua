--- Protocol buffers in text form: a strict reader, driven by a schema.
--
--   local value, message = textproto.parse('name: "m" size { value: 3 }', {
--     name = { type = "string" },
--     size = { type = "message", fields = { value = { type = "int64" } } },
--   }, "config")
--
-- A field has type ("string", "bool", "int32", "uint32", "int64", "enum" with values = { NAME = number }, "message" with fields),
-- may be repeated (an array; always there, even if empty) and may name the oneof it is in. What the schema does not know, what is given twice, and what is out of
-- range is an error with line and column. An int64 beyond 2^53 stays a string of digits.

local byte, char, concat, find, format, gsub, match, sub =
  string.byte, string.char, table.concat, string.find, string.format, string.gsub, string.match, string.sub
local error, ipairs, pairs, pcall, sort, tonumber, type = error, ipairs, pairs, pcall, table.sort, tonumber, type

local M = {}

local DEPTH = 32

local ESCAPES = { a = "\a", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", v = "\v", ["\\"] = "\\", ["'"] = "'", ['"'] = '"', ["?"] = "?" }
local BOOLS = { ["true"] = true, True = true, t = true, ["1"] = true, ["false"] = false, False = false, f = false, ["0"] = false }
local RANGES = { int32 = { "2147483648", "2147483647" }, uint32 = { "0", "4294967295" }, int64 = { "9223372036854775808", "9223372036854775807" } }

local function fail(reader, message, ...)
  local line, from = 1, 1
  if select("#", ...) > 0 then message = format(message, ...) end
  for at in reader.text:gmatch("\n()") do
    if at > reader.at then break end
    line, from = line + 1, at
  end
  error({ message = format("%s:%d:%d: %s", reader.what, line, reader.at - from + 1, message) }, 0)
end

-- reader.at comes to stand on the next token; kind is "name", "number", "string" (decoded), a punctuation mark, or "end"
local function skip(reader)
  local text, at = reader.text, reader.at
  while true do
    at = find(text, "[^%s]", at) or #text + 1
    if byte(text, at) ~= 35 then break end -- #
    at = find(text, "\n", at, true) or #text + 1
  end
  reader.at = at
end

local function utf8_of(reader, code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xc0 + (code - code % 64) / 64, 0x80 + code % 64) end
  if code >= 0xd800 and code <= 0xdfff or code > 0x10ffff then fail(reader, "no such character in a string") end
  local tail = char(0x80 + (code - code % 64) / 64 % 64, 0x80 + code % 64)
  if code < 0x10000 then return char(0xe0 + (code - code % 4096) / 4096) .. tail end
  return char(0xf0 + (code - code % 262144) / 262144, 0x80 + (code - code % 4096) / 4096 % 64) .. tail
end

local function unescape(reader, text)
  local out, at = {}, 1
  while at <= #text do
    local plain, stop = match(text, "^([^\\]*)()", at)
    local digits
    out[#out + 1], at = plain, stop
    if at > #text then break end
    local code = sub(text, at + 1, at + 1)
    if ESCAPES[code] then
      out[#out + 1], at = ESCAPES[code], at + 2
    elseif match(code, "[xX]") and find(text, "^%x", at + 2) then
      digits, at = match(text, "^(%x%x?)()", at + 2)
      out[#out + 1] = char(tonumber(digits, 16))
    elseif match(code, "[0-7]") then
      digits, at = match(text, "^([0-7][0-7]?[0-7]?)()", at + 1)
      if tonumber(digits, 8) > 255 then fail(reader, "'\\%s' is no byte", digits) end
      out[#out + 1] = char(tonumber(digits, 8))
    elseif code == "u" and find(text, "^%x%x%x%x", at + 2) then
      out[#out + 1], at = utf8_of(reader, tonumber(sub(text, at + 2, at + 5), 16)), at + 6
    elseif code == "U" and find(text, "^%x%x%x%x%x%x%x%x", at + 2) then
      out[#out + 1], at = utf8_of(reader, tonumber(sub(text, at + 2, at + 9), 16)), at + 10
    else
      fail(reader, "unknown escape '\\%s' in a string", code)
    end
  end
  return concat(out)
end

local function string_token(reader, quote)
  local text, from, at = reader.text, reader.at + 1, reader.at + 1
  while true do
    at = find(text, "[\\\n" .. quote .. "]", at)
    local c = at and sub(text, at, at)
    if not at or c == "\n" then fail(reader, "a string does not end") end
    if c == quote then break end
    at = at + 2
  end
  local value = unescape(reader, sub(text, from, at - 1))
  return value, at + 1
end

local function next_token(reader)
  skip(reader)
  local text, at = reader.text, reader.at
  local first = sub(text, at, at)
  reader.token_at = at
  if first == "" then reader.kind, reader.value, reader.after = "end", "the end", at return end
  if find(first, "[%a_]") then
    reader.kind = "name"
    reader.value, reader.after = match(text, "^([%w_]+)()", at)
  elseif find(first, "[%d.]") then
    reader.kind = "number"
    reader.value, reader.after = match(text, "^([%w.]+)()", at)
  elseif first == '"' or first == "'" then
    reader.kind = "string"
    reader.value, reader.after = string_token(reader, first)
  elseif find(first, "[][{}<>:,;-]") then
    reader.kind, reader.value, reader.after = first, first, at + 1
  else
    fail(reader, "unexpected %s", find(first, "%g") and "'" .. first .. "'" or format("byte 0x%02x", byte(first)))
  end
end

local function advance(reader)
  reader.at = reader.after
  next_token(reader)
end

local function expect(reader, kind, what)
  if reader.kind ~= kind then fail(reader, "%s expected, got '%s'", what or "'" .. kind .. "'", reader.value) end
  local value = reader.value
  advance(reader)
  return value
end

local function decimal(reader, text)
  local digits = match(text, "^0[xX](%x+)$")
  local value = digits and #digits <= 13 and tonumber(digits, 16)
  if not digits then
    digits = match(text, "^0([0-7]+)$")
    value = digits and #digits <= 17 and tonumber(digits, 8)
  end
  if value then return format("%.0f", value) end
  if digits or not find(text, "^[1-9]%d*$") and text ~= "0" then fail(reader, "integer expected, got '%s'", text) end
  return text
end

local function integer(reader, kind)
  local negative = reader.kind == "-"
  if negative then advance(reader) end
  if reader.kind ~= "number" then fail(reader, "integer expected, got '%s'", reader.value) end
  local digits = decimal(reader, reader.value)
  local limit = RANGES[kind][negative and 1 or 2]
  if #digits > #limit or #digits == #limit and digits > limit then fail(reader, "%s%s is out of range", negative and "-" or "", digits) end
  advance(reader)
  local number = tonumber(digits)
  if number > 9007199254740992 then return (negative and "-" or "") .. digits end
  return negative and -number or number
end

local function known(names)
  local list = {}
  for name in pairs(names) do list[#list + 1] = name end
  sort(list)
  return concat(list, ", ")
end

local function scalar(reader, field, name)
  local kind, value = field.type, nil
  if RANGES[kind] then return integer(reader, kind) end
  if kind == "string" then
    local parts = { expect(reader, "string", "string for '" .. name .. "'") }
    while reader.kind == "string" do
      parts[#parts + 1] = reader.value
      advance(reader)
    end
    return concat(parts)
  end
  if kind == "bool" then value = BOOLS[reader.value]
  elseif reader.kind == "name" then value = field.values[reader.value]
  else
    local number = tonumber(reader.value)
    for _, each in pairs(field.values) do value = each == number and each or value end
  end
  if value == nil or reader.kind ~= "name" and reader.kind ~= "number" then
    fail(reader, "%s: %s expected, got '%s'", name, kind == "bool" and "true or false" or known(field.values), reader.value)
  end
  advance(reader)
  return value
end

local message_body

local function one(reader, field, name, depth)
  if field.type ~= "message" then return scalar(reader, field, name) end
  local stop = reader.kind == "<" and ">" or "}"
  if reader.kind ~= "{" and reader.kind ~= "<" then fail(reader, "'{' expected behind '%s', got '%s'", name, reader.value) end
  if depth >= DEPTH then fail(reader, "messages are nested too deeply") end
  advance(reader)
  return message_body(reader, field.fields, stop, depth + 1)
end

local function repeated(reader, field, name, depth, list)
  if reader.kind ~= "[" then
    list[#list + 1] = one(reader, field, name, depth)
    return
  end
  advance(reader)
  while reader.kind ~= "]" do
    list[#list + 1] = one(reader, field, name, depth)
    if reader.kind ~= "]" then
      expect(reader, ",", "',' or ']'")
      if reader.kind == "]" then fail(reader, "value expected, got ']'") end
    end
  end
  advance(reader)
end

function message_body(reader, fields, stop, depth)
  local message, chosen = {}, {}
  for name, field in pairs(fields) do
    if field.repeated then message[name] = {} end
  end
  while reader.kind ~= stop do
    if reader.kind ~= "name" then fail(reader, "a field's name%s expected, got '%s'", stop ~= "end" and " or '" .. stop .. "'" or "", reader.value) end
    local name = reader.value
    local field = fields[name]
    if not field then fail(reader, "unknown field '%s'; known: %s", name, known(fields)) end
    if not field.repeated and message[name] ~= nil then fail(reader, "'%s' is given twice", name) end
    if field.oneof then
      if chosen[field.oneof] and chosen[field.oneof] ~= name then fail(reader, "'%s' and '%s' exclude each other", chosen[field.oneof], name) end
      chosen[field.oneof] = name
    end
    advance(reader)
    if reader.kind == ":" then advance(reader)
    elseif field.type ~= "message" then fail(reader, "':' expected behind '%s', got '%s'", name, reader.value) end
    if field.repeated then repeated(reader, field, name, depth, message[name])
    else message[name] = one(reader, field, name, depth) end
    if reader.kind == "," or reader.kind == ";" then advance(reader) end
  end
  if stop ~= "end" then advance(reader) end
  return message
end

--- Reads a message.
---@param text string
---@param fields table schema of the message, see above
---@param what? string where the text comes from, for messages
---@return table|nil message
---@return string|nil problem "WHAT:line:column: …"
function M.parse(text, fields, what)
  local reader = { text = gsub(text, "\r\n", "\n"), at = 1, what = what or "text" }
  local ok, value = pcall(function()
    next_token(reader)
    return message_body(reader, fields, "end", 1)
  end)
  if ok then return value end
  if type(value) ~= "table" then error(value, 0) end
  return nil, value.message
end

--- The map<key, value> that text form writes as repeated { key value } messages. A key given again wins, as in protobuf.
function M.map(list)
  local map = {}
  for _, item in ipairs(list) do map[item.key] = item.value end
  return map
end

return M
