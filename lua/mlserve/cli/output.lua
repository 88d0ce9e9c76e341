--- What verbs print: JSON with sorted keys, aligned columns, numbers a person can read.
-- @module mlserve.cli.output

local quoted = require("mlserve.serve.json").string

local concat, insert, sort = table.concat, table.insert, table.sort
local floor, huge = math.floor, math.huge
local format = string.format

local output = {}

local array_class = { __name = "mlserve.cli.array" }

--- Marks a table as an array, so that an empty one is [] in JSON.
---@param list table
---@return table list
function output.array(list)
  return setmetatable(list, array_class)
end

-- The shortest of 15 to 17 digits that reads back as the same number.
local function number_text(value)
  local text
  if value ~= value or value == huge or value == -huge then return "null" end
  if value == floor(value) and value > -1e15 and value < 1e15 then return format("%d", value) end
  for digits = 15, 17 do
    text = format("%." .. digits .. "g", value)
    if tonumber(text) == value then break end
  end
  return text
end

local encode

local function encode_array(list)
  local parts = {}
  for i = 1, #list do parts[i] = encode(list[i]) end
  return "[" .. concat(parts, ",") .. "]"
end

local function encode_object(object)
  local names, parts = {}, {}
  for name in pairs(object) do insert(names, tostring(name)) end
  sort(names)
  for i, name in ipairs(names) do parts[i] = quoted(name) .. ":" .. encode(object[name]) end
  return "{" .. concat(parts, ",") .. "}"
end

function encode(value)
  local kind = type(value)
  if kind == "number" then return number_text(value) end
  if kind == "string" then return quoted(value) end
  if kind == "boolean" then return tostring(value) end
  if kind ~= "table" then return "null" end
  if #value > 0 or getmetatable(value) == array_class then return encode_array(value) end
  return encode_object(value)
end

--- A value as JSON on one line: keys sorted, NaN and infinities null.
---@param value any
---@return string
output.json = encode

--- Lines of cells in columns; the first column to the left, numbers to the right.
---@param lines table[] arrays of strings
---@param left table|nil set of further columns that are texts
---@return string
function output.columns(lines, left)
  local widths, out = {}, {}
  for _, line in ipairs(lines) do
    for i, cell in ipairs(line) do
      if #cell > (widths[i] or 0) then widths[i] = #cell end
    end
  end
  for _, line in ipairs(lines) do
    local cells = {}
    for i, cell in ipairs(line) do
      local padding = (" "):rep(widths[i] - #cell)
      cells[i] = (i == 1 or left and left[i]) and cell .. padding or padding .. cell
    end
    insert(out, (concat(cells, "  "):gsub("%s+$", "")))
  end
  return concat(out, "\n")
end

--- 1234567 as "1,234,567".
---@param value integer
---@return string
function output.count(value)
  local text = format("%d", value)
  local changed
  repeat
    text, changed = text:gsub("^(-?%d+)(%d%d%d)", "%1,%2")
  until changed == 0
  return text
end

--- A shape as "(-1, 30)".
---@param shape integer[]|nil
---@return string
function output.shape(shape)
  local parts = {}
  if not shape then return "(?)" end
  for i, size in ipairs(shape) do parts[i] = format("%d", size) end
  return "(" .. concat(parts, ", ") .. ")"
end

--- One JSON value as a line on stdout.
function output.print_json(value)
  io.stdout:write(encode(value), "\n")
end

return output
