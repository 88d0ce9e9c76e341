--- JSON strings for texts written by hand (tensors are encoded in C, configuration by a JSON library).

local byte, concat, find, format, gsub, sub = string.byte, table.concat, string.find, string.format, string.gsub, string.sub

local M = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- Length of the well-formed UTF-8 sequence (RFC 3629) at i; nil when there is none.
local function sequence(text, i)
  local a, b, c, d = byte(text, i, i + 3)
  local function tail(x) return x and x >= 0x80 and x <= 0xbf end
  if a < 0x80 then return 1 end
  if a >= 0xc2 and a <= 0xdf then return tail(b) and 2 or nil end
  if a >= 0xe0 and a <= 0xef then
    if not (tail(b) and tail(c)) then return nil end
    if a == 0xe0 and b < 0xa0 or a == 0xed and b > 0x9f then return nil end
    return 3
  end
  if a >= 0xf0 and a <= 0xf4 then
    if not (tail(b) and tail(c) and tail(d)) then return nil end
    if a == 0xf0 and b < 0x90 or a == 0xf4 and b > 0x8f then return nil end
    return 4
  end
  return nil
end

-- Bytes that are no UTF-8 become U+FFFD.
local function repair(text)
  local out, n, i = {}, 0, 1
  while i <= #text do
    local length = sequence(text, i)
    n = n + 1
    out[n] = length and sub(text, i, i + length - 1) or "\239\191\189"
    i = i + (length or 1)
  end
  return concat(out)
end

--- A JSON string, quotes included. The result is always valid JSON and valid UTF-8.
---@param text string any bytes
---@return string
function M.string(text)
  if find(text, "[\128-\255]") then text = repair(text) end
  if find(text, '[%c"\\]') then
    text = gsub(text, '[%c"\\]', function(c) return ESCAPES[c] or format("\\u%04x", byte(c)) end)
  end
  return '"' .. text .. '"'
end

return M
