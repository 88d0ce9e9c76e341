-- Answers check_sklearn.py: for each case every metric asked for, { value = number } or { message = text }.
local core = require "mlserve.core"
local metrics = require "mlserve.metrics"

dofile((arg[0]:gsub("metrics%.lua$", "question.lua")))(function(cases)
  local answers = {}
  for i, case in ipairs(cases) do
    local y_true = core.tensor(case.y_true, case.task == "regression" and "float64" or "int64")
    local y_pred = core.tensor(case.y_pred, "float64")
    answers[i] = {}
    for key in pairs(case.expected) do
      local name, option = key:match("^([^:]+):(.*)$")
      local options = { task = case.task }
      if name == "top_k_accuracy" then options.k = tonumber(option) else options.average = option end
      local ok, value, note = pcall(metrics[name or key], y_true, y_pred, options)
      answers[i][key] = ok and { value = value, note = note } or { message = tostring(value) }
    end
    if case.confusion then answers[i].confusion = metrics.confusion_matrix(y_true, y_pred, { task = case.task }) end
  end
  return answers
end)
