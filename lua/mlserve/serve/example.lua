--- Example requests made from signatures: what a person types to see a model answer.

local json = require "mlserve.serve.json"

local concat, format = table.concat, string.format

local M = {}

local LIMIT = 3000 -- bytes of a body that still fits on a command line one looks at

local VALUES = { bool = "false", string = '""', float16 = "0.0", bfloat16 = "0.0", float32 = "0.0", float64 = "0.0" }

-- Nested lists of the shape's sizes from `axis` on; open sizes count 1. nil when the text would exceed limit.
local function nested(shape, axis, value, limit)
  if axis > #shape then return value end
  local size = shape[axis] < 0 and 1 or shape[axis]
  local inner = nested(shape, axis + 1, value, limit)
  if not inner or size * (#inner + 1) > limit then return nil end
  local items = {}
  for i = 1, size do items[i] = inner end
  return "[" .. concat(items, ",") .. "]"
end

--- A predict body of zeros for a signature, in TensorFlow Serving's row format where every input has a batch axis of open
--- size, else in its column format. nil when it would be too long to show.
---@param signature table { inputs = { name = { dtype =, shape = } } }
---@param limit? integer bytes; default: what fits on a command line one looks at
---@return string|nil
function M.predict_body(signature, limit)
  local names, rows, items = {}, true, {}
  limit = limit or LIMIT
  for name, input in pairs(signature.inputs) do
    names[#names + 1] = name
    rows = rows and input.shape ~= nil and #input.shape > 0 and input.shape[1] < 0
  end
  table.sort(names)
  for i, name in ipairs(names) do
    local input = signature.inputs[name]
    local text = nested(input.shape or {}, rows and 2 or 1, VALUES[input.dtype] or "0", limit)
    if not text then return nil end
    items[i] = #names == 1 and text or json.string(name) .. ":" .. text
  end
  local text = concat(items, ",")
  if #names ~= 1 then text = "{" .. text .. "}" end
  if #text > limit then return nil end
  return rows and format('{"instances":[%s]}', text) or format('{"inputs":%s}', text)
end

--- A curl command for a served model: predict with zeros, or its metadata when a body would be too long.
---@param address string "http://127.0.0.1:8501"
---@param name string
---@param servable table|userdata
---@return string
function M.curl(address, name, servable)
  local signature = servable:signatures().serving_default
  local body = signature and M.predict_body(signature)
  if not body then return format("curl %s/v1/models/%s/metadata", address, name) end
  return format("curl %s/v1/models/%s:predict -d '%s'", address, name, (body:gsub("'", "'\\''")))
end

return M
