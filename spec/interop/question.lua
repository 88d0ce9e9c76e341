--- The Lua side of support.ask: the question is a JSON file, the answer JSON on standard output. NaN and Infinity are written as such.

local core = require "mlserve.core"

--- Calls answer with what Python asked and prints what it returns.
return function(answer)
  local file = assert(io.open(arg[1], "rb"))
  local question = assert(core.json_decode(file:read("*a"), { nonfinite = true }))
  file:close()
  io.write(core.json_encode(answer(question), { nonfinite = true }), "\n")
end
