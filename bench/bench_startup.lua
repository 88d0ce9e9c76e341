-- bench_startup.lua MODEL: the shortest useful program: require, load, one prediction.
local model = assert(require("mlserve").load(arg[1]))
local row = {}
for i = 1, 30 do row[i] = i / 30 end
assert(model:predict { row })
