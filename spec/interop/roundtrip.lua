-- Answers check_roundtrip.py: reads each model and writes it again, in the operator set that the case names, if it names one.
local core = require "mlserve.core"

-- Misuse (an operator set that cannot express the model) raises; here it is an answer.
local function save(...)
  local ok, first, message = pcall(...)
  if ok then return first, message end
  return nil, first
end

dofile((arg[0]:gsub("roundtrip%.lua$", "question.lua")))(function(cases)
  local answers = {}
  for i, case in ipairs(cases) do
    local graph, message = core.onnx_load(case.path)
    local ok
    answers[i] = { loaded = graph ~= nil }
    if graph then
      ok, message = save(core.onnx_save, graph, case.to, case.opset)
      answers[i].written = ok == true
    end
    answers[i].message = message
  end
  return answers
end)
