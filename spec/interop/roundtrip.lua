-- Answers check_roundtrip.py: reads each model and writes it again, in the operator set that the case names, if it names one, and converted by the
-- options of model:convert, if it has some.
local core = require "mlserve.core"
local model = require "mlserve.model"

local function write(graph, case)
  local converted, message
  if not case.convert then return core.onnx_save(graph, case.to, case.opset) end
  converted, message = model.from_graph(graph):convert(case.convert)
  if not converted then return nil, message end
  return converted:save(case.to, { opset = case.opset, metadata = false })
end

-- Misuse (an operator set that cannot express the model) raises; here it is an answer.
local function try(...)
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
      ok, message = try(write, graph, case)
      answers[i].written = ok and true or false
    end
    answers[i].message = message
  end
  return answers
end)
