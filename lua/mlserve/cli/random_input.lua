--- Made-up inputs of a model's shape, for measuring time.
-- @module mlserve.cli.random_input

local core = require "mlserve.core"

local format = string.format

local random_input = {}

-- "numeric=8,16" for inputs whose further dimensions are not fixed
local function given_shape(shapes, name)
  for _, entry in ipairs(shapes or {}) do
    if entry.name == name then return entry.shape end
  end
end

--- "NAME=1,3,224,224"; a converter for argparse.
function random_input.shape(text)
  local name, sizes = text:match("^([^=]+)=([%d,]+)$")
  local shape = {}
  if not name then return nil, format("NAME=SIZES expected, such as image=1,3,224,224, got '%s'", text) end
  for size in sizes:gmatch("%d+") do shape[#shape + 1] = tonumber(size) end
  return { name = name, shape = shape }
end

--- Tensors for the model's inputs, in order: normal floats, zeros for integers, empty texts.
---@param model table
---@param batch integer takes the place of an unknown first dimension
---@param shapes table|nil array of { name, shape }
---@return userdata[]|nil inputs
---@return string|nil message
function random_input.make(model, batch, shapes)
  local list = {}
  for i, input in ipairs(model:inputs()) do
    local shape = given_shape(shapes, input.name) or input.shape
    local dims, count = {}, 1
    if not shape then return nil, format("the shape of input '%s' is not known: say --shape %s=SIZES", input.name, input.name) end
    for axis, size in ipairs(shape) do
      if size < 0 and axis > 1 then
        return nil, format("dimension %d of input '%s' is not fixed: say --shape %s=SIZES", axis, input.name, input.name)
      end
      dims[axis] = size < 0 and batch or size
      count = count * dims[axis]
    end
    if input.dtype == "string" then
      local texts = {}
      for k = 1, count do texts[k] = "" end
      list[i] = core.tensor(texts, "string"):reshape(dims)
    elseif input.dtype:find("float") then
      list[i] = core.random_normal(dims, 0, 1, 1, i)
      if input.dtype ~= "float32" then list[i] = list[i]:cast(input.dtype) end
    else
      list[i] = core.zeros(dims, input.dtype)
    end
  end
  return list
end

return random_input
