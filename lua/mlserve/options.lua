--- Option tables: the one check behind every function that takes options.
-- A specification names what is allowed; an unknown name is an error that lists the known ones, a wrong value is an error that
-- says what was expected and what came.
--
--     local values = options.check(given, {
--       units = { type = "integer", min = 1, position = 1, required = true },
--       activation = { type = "string", choices = { "relu", "tanh" } },
--       use_bias = { type = "boolean", default = true },
--     }, "Dense")
--
-- @module mlserve.options

local concat, sort = table.concat, table.sort
local floor, huge = math.floor, math.huge
local format = string.format

local options = {}

local function is_integer(value)
  return type(value) == "number" and value == floor(value) and value > -huge and value < huge
end

local kinds = {
  any = function() return true end,
  integer = is_integer,
  number = function(value) return type(value) == "number" and value == value end,
  shape = function(value)
    if type(value) ~= "table" then return false end
    for _, dimension in ipairs(value) do
      if not is_integer(dimension) then return false end
    end
    return true
  end,
}

local kind_names = { shape = "array of integers" }

local function bounds(rule)
  local parts = {}
  if rule.min then parts[#parts + 1] = format("of at least %s", rule.min) end
  if rule.above then parts[#parts + 1] = format("above %s", rule.above) end
  if rule.max then parts[#parts + 1] = format("at most %s", rule.max) end
  if rule.below then parts[#parts + 1] = format("below %s", rule.below) end
  return #parts > 0 and " " .. concat(parts, " and ") or ""
end

-- "integer of at least 1 or one of full"
local function describe(rule)
  local names = {}
  for i, kind in ipairs(type(rule.type) == "table" and rule.type or { rule.type }) do
    names[i] = kind_names[kind] or kind
    if kind == "string" and rule.choices then names[i] = "one of " .. concat(rule.choices, ", ") end
    if kind == "integer" or kind == "number" then names[i] = kind .. bounds(rule) end
  end
  return concat(names, " or ")
end

local function shown(value)
  if type(value) == "string" then return format("'%s'", value) end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  return type(value)
end

local function one_of(value, choices)
  for _, choice in ipairs(choices) do
    if choice == value then return true end
  end
  return false
end

local function fits(value, rule)
  local typed = false
  for _, kind in ipairs(type(rule.type) == "table" and rule.type or { rule.type }) do
    typed = typed or (kinds[kind] and kinds[kind](value)) or type(value) == kind
  end
  if not typed then return false end
  if type(value) == "string" and rule.choices then return one_of(value, rule.choices) end
  if type(value) ~= "number" then return true end
  return (not rule.min or value >= rule.min) and (not rule.above or value > rule.above)
    and (not rule.max or value <= rule.max) and (not rule.below or value < rule.below)
end

local function known_names(rules)
  local names = {}
  for name in pairs(rules) do names[#names + 1] = name end
  sort(names)
  return concat(names, ", ")
end

--- Checks an option table and fills in defaults.
---@param given table|nil what the caller wrote; not changed
---@param rules table name -> { type = name or array of names, default, required, position, choices, min, max, above, below }
---@param where string whose options these are, for messages
---@param level integer|nil error level as for error(); default 3: the caller of the function that checks
---@return table values
function options.check(given, rules, where, level)
  local values, position = {}, {}
  level = level or 3
  if given ~= nil and type(given) ~= "table" then
    error(format("%s: options table expected, got %s", where, shown(given)), level)
  end
  for name, rule in pairs(rules) do
    if rule.position then position[rule.position] = name end
  end
  for key, value in pairs(given or {}) do
    local name = position[key] or key
    local rule = rules[name]
    if not rule then error(format("%s: unknown option '%s'; known: %s", where, tostring(key), known_names(rules)), level) end
    if values[name] ~= nil then error(format("%s: option '%s' is given twice", where, name), level) end
    if not fits(value, rule) then
      error(format("%s: option '%s': %s expected, got %s", where, name, describe(rule), shown(value)), level)
    end
    values[name] = value
  end
  for name, rule in pairs(rules) do
    if values[name] == nil then
      if rule.required then error(format("%s: option '%s' (%s) is missing", where, name, describe(rule)), level) end
      values[name] = rule.default
    end
  end
  return values
end

--- Calls a function whose errors about misuse carry no position (level 0) and gives them the position of the caller of the
--- function that calls this one.
---@param f function
---@return any first
---@return any second
function options.call(f, ...)
  local ok, first, second = pcall(f, ...)
  if ok then return first, second end
  if type(first) == "string" and not first:find("^[^\n]-:%d+: ") then error(first, 3) end
  error(first, 0)
end

--- Several rule tables in one; later ones win.
---@param ... table
---@return table
function options.merge(...)
  local all = {}
  for _, rules in ipairs { ... } do
    for name, rule in pairs(rules) do all[name] = rule end
  end
  return all
end

return options
