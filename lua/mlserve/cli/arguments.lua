--- What arguments may be: converters for argparse, which answer nil and a message that says what was expected.
-- @module mlserve.cli.arguments

local concat, insert = table.concat, table.insert
local format = string.format

local arguments = {}

local function number_of(text)
  local value = tonumber(text)
  if value == nil or value ~= value or value == math.huge or value == -math.huge then return nil end
  return value
end

--- An integer within min … max.
---@param min integer
---@param max integer|nil
function arguments.integer(min, max)
  local range = max and format("from %d to %d", min, max) or format("of at least %d", min)
  return function(text)
    local value = number_of(text)
    if value and value % 1 == 0 and value >= min and value <= (max or math.huge) then return value end
    return nil, format("an integer %s expected, got '%s'", range, text)
  end
end

--- A number of at least min and, when given, below limit.
---@param min number
---@param limit number|nil
function arguments.number(min, limit)
  return function(text)
    local value = number_of(text)
    if value and value >= min and (not limit or value < limit) then return value end
    return nil, format("a number of at least %g%s expected, got '%s'", min, limit and format(" and below %g", limit) or "", text)
  end
end

--- A number above 0.
function arguments.positive(text)
  local value = number_of(text)
  if value and value > 0 then return value end
  return nil, format("a number above 0 expected, got '%s'", text)
end

--- "128,64" as an array of integers of at least 1; "none" is the empty one.
function arguments.sizes(text)
  local sizes = {}
  if text == "none" then return sizes end
  for part in (text .. ","):gmatch("([^,]*),") do
    local value = number_of(part)
    if not value or value < 1 or value % 1 ~= 0 then
      return nil, format("positive integers separated by commas expected, such as 128,64 (or none), got '%s'", text)
    end
    insert(sizes, value)
  end
  return sizes
end

--- "a,b c,d" as an array of names.
function arguments.names(text)
  local names = {}
  for part in (text .. ","):gmatch("([^,]*),") do
    if part == "" then return nil, format("names separated by commas expected, got '%s'", text) end
    insert(names, part)
  end
  return names
end

--- One of a few words.
---@param choices string[]
function arguments.one_of(choices)
  return function(text)
    for _, choice in ipairs(choices) do
      if choice == text then return text end
    end
    return nil, format("one of %s expected, got '%s'", concat(choices, ", "), text)
  end
end

--- One character, "tab" or "\t".
function arguments.delimiter(text)
  if text == "tab" or text == "\\t" then return "\t" end
  if #text == 1 then return text end
  return nil, format("one character or tab expected, got '%s'", text)
end

return arguments
