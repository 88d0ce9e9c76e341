-- bench_infer.lua MODEL: time of a prediction from Lua, median of samples. Lines: what, microseconds, unit; separated by tabs.
local core = require "mlserve.core"
local mlserve = require "mlserve"

local sort = table.sort

local model = assert(mlserve.load(arg[1]))
local lua = rawget(_G, "jit") and "LuaJIT" or _VERSION

local function median(call)
  local samples = {}
  local calls = 200
  for round = 0, 60 do
    local begin = core.clock()
    for _ = 1, calls do call() end
    local us = (core.clock() - begin) * 1e6 / calls
    if round == 0 then calls = math.floor(1000 / us) + 1 else samples[round] = us end -- about a millisecond each
  end
  sort(samples)
  return samples[30]
end

mlserve.set_threads(1)
for _, rows in ipairs { 1, 8, 64 } do
  local x, out = core.random_uniform({ rows, 30 }, -1, 1, 1, 1), core.zeros { rows, 1 }
  print(("predict_into from %s, batch %d\t%.3f\tus"):format(lua, rows, median(function() model:predict_into(out, x) end)))
end
local nested = { {} }
for i = 1, 30 do nested[1][i] = i / 30 end
print(("predict of a nested table from %s, batch 1\t%.3f\tus"):format(lua, median(function() return model:predict(nested) end)))
