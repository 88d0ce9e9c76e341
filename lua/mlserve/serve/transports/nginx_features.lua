--- Features of a request, told declaratively: where each number comes from and what it is when it is not there.
--
--   { { header = "x-amount" }, { arg = "age", default = 30 }, { json = "user.score" }, { var = "request_time" },
--     { cookie = "visits", default = 0 }, { var = "request_method", map = { GET = 0, POST = 1 }, default = 2 }, 3.5 }
--
-- A list makes one row of numbers. A table of names makes an object by input name, whose values are features or lists of them;
-- texts are allowed there, for inputs of strings: { island = { { header = "x-island", text = true } } }.

local json = require "mlserve.serve.json"

local concat, find, format, gmatch, gsub, lower, sub =
  table.concat, string.find, string.format, string.gmatch, string.gsub, string.lower, string.sub
local ipairs, next, pairs, pcall, tonumber, tostring, type = ipairs, next, pairs, pcall, tonumber, tostring, type
local sort = table.sort

local ngx = ngx -- luacheck: ignore

local M = {}

local huge = math.huge

-- Reads one feature of the request: each takes what the specification names. `request` keeps what is parsed once.
local SOURCES = {
  header = function(name)
    local variable = "http_" .. gsub(lower(name), "-", "_")
    return function() return ngx.var[variable] end
  end,
  var = function(name) return function() return ngx.var[name] end end,
  cookie = function(name)
    local variable = "cookie_" .. name
    return function() return ngx.var[variable] end
  end,
  arg = function(name)
    return function(request)
      local args = request.args
      if not args then
        args = ngx.req.get_uri_args()
        request.args = args
      end
      local value = args[name]
      if type(value) == "table" then value = value[1] end
      return value
    end
  end,
  json = function(path)
    local steps = {}
    for step in gmatch(path, "[^.]+") do steps[#steps + 1] = step end
    return function(request)
      local value = request.document
      if value == nil then
        local body = request.body()
        local ok, document = pcall(require("cjson.safe").decode, body or "")
        value = ok and document or false
        request.document = value
      end
      for i = 1, #steps do
        if type(value) ~= "table" then return nil end
        local step = steps[i]
        local inner = value[step]
        if inner == nil then inner = value[tonumber(step)] end
        value = inner
      end
      if value == ngx.null then return nil end
      return value
    end
  end,
}

local KNOWN = { header = true, arg = true, json = true, var = true, cookie = true, default = true, map = true, text = true }

local function fail(where, message, ...)
  error(format("%s: " .. message, where, ...), 0)
end

local function finite(value)
  return type(value) == "number" and value == value and value ~= huge and value ~= -huge
end

-- A value as JSON; nil when it is none that a feature can have.
local function text_of(value, text)
  if text then
    if type(value) == "number" then value = format("%.17g", value) end
    return type(value) == "string" and json.string(value) or nil
  end
  if value == true then return "1" elseif value == false then return "0" end
  if type(value) == "string" then
    if not find(value, "^[%s%d.eE+-]+$") then return nil end
    value = tonumber(value)
  end
  return finite(value) and format("%.17g", value) or nil
end

-- A feature as a function(request) -> JSON text | nil, message
local function feature(spec, where)
  if type(spec) == "number" then
    if not finite(spec) then fail(where, "a finite number expected, got %s", tostring(spec)) end
    local constant = text_of(spec)
    return function() return constant end
  end
  if type(spec) ~= "table" then
    fail(where, "a number or { header | arg | json | var | cookie = NAME, default =, map = } expected, got %s", type(spec))
  end
  local source, name
  for key, value in pairs(spec) do
    if not KNOWN[key] then
      fail(where, "unknown key '%s'; known: arg, cookie, default, header, json, map, text, var", tostring(key))
    end
    if SOURCES[key] then
      if source then fail(where, "both '%s' and '%s' are given", source, key) end
      source, name = key, value
    end
  end
  if not source then fail(where, "one of header, arg, json, var and cookie expected") end
  if type(name) ~= "string" or name == "" then fail(where, "%s: a name expected, got %s", source, type(name)) end
  if spec.map ~= nil and type(spec.map) ~= "table" then fail(where, "map: table expected, got %s", type(spec.map)) end
  local get, map, as_text, default = SOURCES[source](name), spec.map, spec.text, nil
  if spec.default ~= nil then
    default = text_of(spec.default, as_text)
    if not default then fail(where, "default: %s expected, got %s", as_text and "text" or "finite number", tostring(spec.default)) end
  end
  local label = format("%s '%s'", source, name)
  return function(request)
    local value = get(request)
    if map and value ~= nil then value = map[value] end
    local text = value ~= nil and text_of(value, as_text) or default
    if text then return text end
    if value == nil then return nil, format("%s is missing", label) end
    return nil, format("%s is not a number: '%s'", label, sub(tostring(value), 1, 40))
  end
end

local function list(specs, where)
  local items = {}
  for i, spec in ipairs(specs) do items[i] = feature(spec, format("%s: feature %d", where, i)) end
  if #items == 0 then fail(where, "features: at least one expected") end
  return function(request)
    local texts = {}
    for i = 1, #items do
      local text, message = items[i](request)
      if not text then return nil, format("feature %d: %s", i, message) end
      texts[i] = text
    end
    return "[" .. concat(texts, ",") .. "]"
  end
end

local function is_spec(value)
  if type(value) ~= "table" then return type(value) == "number" end
  for key in pairs(SOURCES) do
    if value[key] ~= nil then return true end
  end
  return false
end

local function object(specs, where)
  local names, readers = {}, {}
  for name in pairs(specs) do
    if type(name) ~= "string" then fail(where, "features: a list, or a table of input names; not both") end
    names[#names + 1] = name
  end
  sort(names)
  for i, name in ipairs(names) do
    local what = format("%s: input '%s'", where, name)
    readers[i] = is_spec(specs[name]) and feature(specs[name], what) or list(type(specs[name]) == "table" and specs[name] or {}, what)
  end
  return function(request)
    local texts = {}
    for i, name in ipairs(names) do
      local text, message = readers[i](request)
      if not text then return nil, format("input '%s': %s", name, message) end
      texts[i] = json.string(name) .. ":" .. text
    end
    return "{" .. concat(texts, ",") .. "}"
  end
end

--- Numbers from a text such as "1, 2.5, -3e2" (a header, a cookie, an argument).
---@param text string|nil
---@return table|nil numbers
---@return string|nil message
function M.numbers(text)
  if type(text) ~= "string" or find(text, "^%s*$") then return nil, "no features" end
  local numbers = {}
  for item in gmatch(text .. ",", "([^,]*),") do
    local number = find(item, "^[%s%d.eE+-]+$") and tonumber(item)
    if not number then return nil, format("feature %d is not a number: '%s'", #numbers + 1, sub(item, 1, 40)) end
    numbers[#numbers + 1] = number
  end
  return numbers
end

--- The body of a predict request for an array of numbers.
---@return string|nil body
---@return string|nil message
function M.row(numbers)
  local items = {}
  for i, value in ipairs(numbers) do
    if not finite(value) then return nil, format("feature %d: finite number expected, got %s", i, tostring(value)) end
    items[i] = format("%.17g", value)
  end
  if #items == 0 then return nil, "no features" end
  return '{"instances":[[' .. concat(items, ",") .. "]]}"
end

--- Whether every element is a number: a row as it is.
function M.is_row(specs)
  for _, value in pairs(specs) do
    if type(value) ~= "number" then return false end
  end
  return true
end

--- Compiles a specification.
---@param specs table list of features, or features by input name
---@param where string for messages; errors are raised without a position
---@return function read (body: function() -> text) -> predict body | nil, message
function M.compile(specs, where)
  local first = next(specs)
  local read = (type(first) == "string" and object or list)(specs, where)
  return function(body)
    local row, message = read { body = body }
    if not row then return nil, message end
    return '{"instances":[' .. row .. "]}"
  end
end

return M
