-- Answers check_onnxruntime.py: the outputs, by name, of each model for the inputs given by name.
local mlserve = require "mlserve"

dofile((arg[0]:gsub("predict%.lua$", "question.lua")))(function(cases)
  local answers = {}
  for i, case in ipairs(cases) do
    local model = assert(mlserve.load(case.path))
    local outputs = assert(model:predict(case.inputs))
    answers[i] = {}
    for name, tensor in pairs(outputs) do answers[i][name] = { shape = tensor:shape(), dtype = tensor:dtype(), values = tensor:totable() } end
    model:close()
  end
  return answers
end)
