--- A servable without a model: { instances = [[...]] } gives the sum of each row. Obeys the interface of mlserve.core's.

local cjson = require "cjson"

local M = {}
local methods = {}
local mt = { __index = methods }

function methods:predict_json(body, signature)
  if signature ~= nil and signature ~= "serving_default" then
    return nil, 'Serving signature name: "' .. signature .. '" not found in signature def', "INVALID_ARGUMENT"
  end
  if body == "" then return nil, "JSON Parse error: The document is empty", "INVALID_ARGUMENT" end
  local ok, document = pcall(cjson.decode, body)
  if not ok then return nil, "JSON Parse error: Invalid value. at offset: 0", "INVALID_ARGUMENT" end
  if document.fail then return nil, document.message or "failed", document.fail end
  if document.raise then error("servable raised") end
  local out = {}
  for i, row in ipairs(document.instances or {}) do
    local sum = self.bias
    for _, value in ipairs(row) do sum = sum + value end
    out[i] = string.format("[%.17g]", sum)
  end
  return '{\n    "predictions": [' .. table.concat(out, ", ") .. "\n    ]\n}"
end

function methods:signatures() return self.definition end

--- `bias` tells servables apart.
function M.new(bias, definition)
  return setmetatable({
    bias = bias or 0,
    definition = definition or {
      serving_default = {
        inputs = { features = { dtype = "float32", shape = { -1, 3 } } },
        outputs = { scores = { dtype = "float32", shape = { -1, 1 } } },
        method_name = "tensorflow/serving/predict",
      },
    },
  }, mt)
end

return M
