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

local function dims_of(input, batch, shapes)
  local shape, dims, count = given_shape(shapes, input.name) or input.shape, {}, 1
  if not shape then return nil, format("the shape of input '%s' is not known: say --shape %s=SIZES", input.name, input.name) end
  for axis, size in ipairs(shape) do
    if size < 0 and axis > 1 then
      return nil, format("dimension %d of input '%s' is not fixed: say --shape %s=SIZES", axis, input.name, input.name)
    end
    dims[axis] = size < 0 and batch or size
    count = count * dims[axis]
  end
  return dims, count
end

local function texts_of(count, make)
  local texts = {}
  for k = 1, count do texts[k] = make(k) end
  return core.tensor(texts, "string")
end

local function normal(input, dims, seed, stream)
  local tensor = core.random_normal(dims, 0, 1, seed, stream)
  return input.dtype == "float32" and tensor or tensor:cast(input.dtype)
end

--- A tensor for one input: normal floats, small whole numbers from 0 to 9, random truth values, words of one letter.
---@param input table of model:inputs()
---@param batch integer takes the place of an unknown first dimension
---@param shapes table|nil array of { name, shape }
---@param seed integer
---@param stream integer
---@return userdata|nil
---@return string|nil message
function random_input.draw(input, batch, shapes, seed, stream)
  local dims, count = dims_of(input, batch, shapes)
  local uniform, numbers
  if not dims then return nil, count end
  if input.dtype:find("float") then return normal(input, dims, seed, stream) end
  uniform = core.random_uniform(dims, 0, input.dtype == "bool" and 2 or 10, seed, stream)
  if input.dtype == "string" then
    numbers = uniform:reshape { count }
    return texts_of(count, function(k) return string.char(97 + math.floor(numbers:get(k))) end):reshape(dims)
  end
  return uniform:cast("uint8"):cast(input.dtype)
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
    local dims, count = dims_of(input, batch, shapes)
    if not dims then return nil, count end
    if input.dtype == "string" then
      list[i] = texts_of(count, function() return "" end):reshape(dims)
    elseif input.dtype:find("float") then
      list[i] = normal(input, dims, 1, i)
    else
      list[i] = core.zeros(dims, input.dtype)
    end
  end
  return list
end

return random_input
