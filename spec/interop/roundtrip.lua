-- Answers check_roundtrip.py: reads each model and writes it again, converted by the options of core.convert that the case holds.
local core = require "mlserve.core"

dofile((arg[0]:gsub("roundtrip%.lua$", "question.lua")))(function(cases)
  local answers = {}
  for i, case in ipairs(cases) do
    local graph, message = core.onnx_load(case.path)
    local ok
    answers[i] = { loaded = graph ~= nil }
    if graph then
      ok, message = core.onnx_save(graph, case.to)
      answers[i].written = ok == true
    end
    answers[i].message = message
  end
  return answers
end)
