--- Tensors: contiguous arrays of numbers, booleans or texts.
--
--     local tensor = require "mlserve.tensor"
--     local x = tensor { { 1, 2, 3 }, { 4, 5, 6 } }      --> float32 (2, 3)
--     print(#x, x:get(2, 3), x:rows(1, 1))
--
-- Methods: shape, dtype, count, totable, item, reshape, tobytes, get, set, rows, cast, copy, close; # is the first dimension.
-- Indices count from 1. Element types are those of ONNX but complex numbers: float32, float64, float16, bfloat16, int8 … int64,
-- uint8 … uint64, bool, string, and for storage float8e4m3fn, float8e4m3fnuz, float8e5m2, float8e5m2fnuz, float8e8m0, float6e2m3,
-- float6e3m2, float4e2m1, int4, uint4, int2 and uint2. Elements of less than 8 bits take a byte each in tobytes and from_bytes.
-- @module mlserve.tensor

local core = require "mlserve.core"

local tensor = {
  zeros = core.zeros, full = core.full, arange = core.arange, from_bytes = core.from_bytes,
  from_npy = core.npy_load, save_npy = core.npy_save,
  random_uniform = core.random_uniform, random_normal = core.random_normal,
}

--- Whether a value is a tensor.
---@param value any
---@return boolean
function tensor.is(value)
  local metatable = type(value) == "userdata" and getmetatable(value)
  return metatable and metatable.__name == "mlserve.tensor" or false
end

return setmetatable(tensor, {
  --- tensor(nested_table[, dtype]): float32 unless the dtype is given (texts: string, booleans: bool).
  __call = function(_, values, dtype) return core.tensor(values, dtype) end,
})
