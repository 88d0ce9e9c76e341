-- Loading a large model: milliseconds from the file to a compiled program; memory then and after the first prediction, as multiples of
-- the file's size. Usage: bench_load.lua FILE
local core = require "mlserve.core"
local mlserve = require "mlserve"

local function resident()
  for line in io.lines "/proc/self/status" do
    local kib = line:match "^VmRSS:%s*(%d+)"
    if kib then return tonumber(kib) * 1024 end
  end
end

local file = assert(io.open(arg[1], "rb"))
local size = file:seek "end"
file:close()
core.set_threads(1)
local x = core.zeros { 1, 3, 224, 224 }
local before, begin = resident(), core.clock()
local model = assert(mlserve.load(arg[1]))
model:program()
local loaded, after_load = core.clock(), resident()
model:predict(x)
print(("%.1f\t%.2f\t%.2f"):format((loaded - begin) * 1e3, (after_load - before) / size, (resident() - before) / size))
