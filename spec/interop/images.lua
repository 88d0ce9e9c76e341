-- images.lua FILE.json: runs the cases (array of { path, atol }) and prints { passed, error, max_abs } of each.
local cjson = require "cjson"
local core = require "mlserve.core"

local file = assert(io.open(arg[1], "rb"))
local results = {}
for i, case in ipairs(cjson.decode(file:read("*a"))) do
  local result = core.verify_case(case.path, { level = "fast", rtol = 0, atol = case.atol })
  results[i] = { passed = result.passed, error = result.error, max_abs = result.max_abs }
end
file:close()
print(cjson.encode(results))
