--- Protocol buffers in text format, as far as configuration files use it: messages, numbers, booleans, names, strings, lists.
--
--   textproto.parse 'max_batch_size { value: 32 } allowed_batch_sizes: [1, 32]'
--   -> { max_batch_size = { { value = { 32 } } }, allowed_batch_sizes = { 1, 32 } }
--
-- A message is a table from field to the array of its values: what may be repeated is for the reader to say.

local find, format, gsub, match, sub = string.find, string.format, string.gsub, string.match, string.sub
local char, error, pcall, tonumber, type = string.char, error, pcall, tonumber, type

local M = {}

local MAX_DEPTH = 64
local ESCAPES = { n = "\n", r = "\r", t = "\t", a = "\a", b = "\b", f = "\f", v = "\v" }

local function fail(state, message)
  local _, lines = gsub(sub(state.text, 1, state.at - 1), "\n", "")
  error({ message = format("line %d: %s", lines + 1, message) }, 0)
end

local function skip(state)
  local at = state.at
  repeat
    local from = at
    at = match(state.text, "^%s*()", at)
    at = match(state.text, "^#[^\n]*()", at) or at
  until at == from
  state.at = at
end

local function accept(state, set)
  skip(state)
  local found = match(state.text, "^[" .. set .. "]", state.at)
  if found then state.at = state.at + 1 end
  return found
end

local function shown(state)
  skip(state)
  local token = match(state.text, "^[%w_.+-]+", state.at) or sub(state.text, state.at, state.at)
  return token == "" and "the end" or "'" .. token .. "'"
end

local function unescape(text)
  text = gsub(text, "\\(x?)(%w*)", function(x, rest)
    if x == "x" then
      local digits, after = match(rest, "^(%x%x?)(.*)$")
      if digits then return char(tonumber(digits, 16)) .. after end
    end
    rest = x .. rest
    local octal, after = match(rest, "^([0-7][0-7]?[0-7]?)(.*)$")
    if octal then return char(tonumber(octal, 8) % 256) .. after end
    return (ESCAPES[sub(rest, 1, 1)] or sub(rest, 1, 1)) .. sub(rest, 2)
  end)
  return text
end

local function quoted(state, quote)
  local from = state.at
  while true do
    local at = find(state.text, "[\\\n" .. quote .. "]", state.at)
    local found = at and sub(state.text, at, at)
    if not found or found == "\n" then fail(state, "a string does not end") end
    state.at = at + 1
    if found == quote then break end
    if found == "\\" then state.at = at + 2 end
  end
  -- escaped backslashes and quotes first become numbers, so that each backslash begins exactly one escape
  local body = gsub(sub(state.text, from, state.at - 2), "\\([\\\"'?])", function(c) return format("\\%03o", c:byte()) end)
  return unescape(body)
end

local message -- (state, closing, depth)

local function scalar(state)
  skip(state)
  local quote = accept(state, "\"'")
  if quote then
    local text = quoted(state, quote)
    quote = accept(state, "\"'")
    while quote do
      text = text .. quoted(state, quote)
      quote = accept(state, "\"'")
    end
    return text
  end
  local token = match(state.text, "^[%w_.+-]+", state.at)
  if not token then fail(state, "a value expected, got " .. shown(state)) end
  state.at = state.at + #token
  if token == "true" then return true elseif token == "false" then return false end
  return tonumber(token) or tonumber((gsub(token, "[fF]$", ""))) or token
end

local function value(state, depth)
  local open = accept(state, "{<")
  if open then return message(state, open == "{" and "}" or ">", depth + 1) end
  return scalar(state)
end

message = function(state, closing, depth)
  local fields = {}
  if depth > MAX_DEPTH then fail(state, "messages are nested too deeply") end
  while true do
    skip(state)
    if closing and accept(state, closing) then return fields end
    if state.at > #state.text then
      if not closing then return fields end
      fail(state, format("'%s' expected, got the end", closing))
    end
    local name = match(state.text, "^[%a_][%w_]*", state.at)
    if not name then fail(state, "the name of a field expected, got " .. shown(state)) end
    state.at = state.at + #name
    local values = fields[name] or {}
    fields[name] = values
    local colon = accept(state, ":")
    skip(state)
    if not colon and not match(state.text, "^[{<]", state.at) then fail(state, format("':' expected after '%s', got %s", name, shown(state))) end
    if accept(state, "%[") then
      if not accept(state, "%]") then
        repeat values[#values + 1] = value(state, depth) until not accept(state, ",")
        if not accept(state, "%]") then fail(state, "']' expected, got " .. shown(state)) end
      end
    else
      values[#values + 1] = value(state, depth)
    end
    accept(state, ",;")
  end
end

---@param text string
---@return table|nil message
---@return string|nil problem "line 3: …"
function M.parse(text)
  local state = { text = text, at = 1 }
  local ok, result = pcall(message, state, nil, 0)
  if ok then return result end
  if type(result) == "table" then return nil, result.message end
  error(result, 0)
end

return M
