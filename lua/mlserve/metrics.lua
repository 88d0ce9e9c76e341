--- Metrics: how good predictions are.
-- Every metric is a function (y_true, y_pred[, options]) -> value[, note]. Labels are class ids or one-hot rows, predictions are
-- scores of the positive class, a score per class, class ids, or values; tensors and nested tables both do. The numbers are
-- scikit-learn's on the same predictions; an undefined one is NaN and the note says why.
--
--     local metrics = require "mlserve.metrics"
--     print(metrics.f1({ 0, 1, 1 }, { 0.2, 0.7, 0.4 }))
--     print(metrics.precision(labels, probabilities, { average = "macro" }))
--     print(metrics.report(labels, probabilities, "categorical", { classes = { "cat", "dog", "owl" } }))
-- @module mlserve.metrics

local core = require "mlserve.core"

local assert, error, ipairs, pairs, pcall = assert, error, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type
local concat, insert, sort = table.concat, table.insert, table.sort
local format = string.format

local metrics = {}

-- Names that say for which kind of labels they are meant.
local implied_task = {
  binary_accuracy = "binary",
  binary_crossentropy = "binary",
  categorical_accuracy = "categorical",
  sparse_categorical_accuracy = "categorical",
  categorical_crossentropy = "categorical",
  sparse_categorical_crossentropy = "categorical",
  top_k_categorical_accuracy = "categorical",
  sparse_top_k_categorical_accuracy = "categorical",
}

local rows_by_name = {} -- any name -> row of core.metric_list()
local list = core.metric_list()

local function with_task(options, task)
  local copy
  if not task or (options and options.task) then return options end
  copy = { task = task }
  for key, value in pairs(options or {}) do copy[key] = value end
  return copy
end

-- fn(…), with errors at the position of whoever called the public function this is called from.
local function call(fn, ...)
  local ok, first, second, third = pcall(fn, ...)
  if not ok then error((tostring(first):gsub("^[^\n]-:%d+: ", "", 1)), 3) end
  return first, second, third
end

local function define(name, row)
  rows_by_name[name] = row
  metrics[name] = function(y_true, y_pred, options)
    if y_true == nil or y_pred == nil then
      error(format("%s: labels and predictions expected, got %s and %s", name, type(y_true), type(y_pred)), 2)
    end
    local value, note = call(core.metric, row.name, y_true, y_pred, with_task(options, implied_task[name]))
    return value, note
  end
end

for _, row in ipairs(list) do
  define(row.name, row)
  for _, alias in ipairs(row.aliases) do define(alias, row) end
end

--- The names of all metrics, without aliases, sorted.
---@return string[]
function metrics.names()
  local names = {}
  for _, row in ipairs(list) do insert(names, row.name) end
  sort(names)
  return names
end

--- What a metric's name stands for; nil when there is no such metric.
---@param name string a name or an alias, such as Keras's
---@return table|nil info { name, aliases, larger_is_better, binary, categorical, regression }
function metrics.info(name)
  return rows_by_name[name]
end

--- Whether a larger value of this metric is better (for early stopping and choosing the best weights).
--- "loss" and names beginning with "val_" are understood too.
---@param name string
---@return boolean
function metrics.larger_is_better(name)
  local plain = name:gsub("^val_", "")
  if plain == "loss" then return false end
  if not rows_by_name[plain] then
    error(format("unknown metric '%s'; the metrics are %s", plain, concat(metrics.names(), ", ")), 2)
  end
  return rows_by_name[plain].larger_is_better
end

--- Turns what a user writes into a metric to call.
--- A string is a name; a table is { name, option = value, … }; a function (y_true, y_pred) -> number is taken as it is.
---@param spec string|table|function
---@return table metric { name = string, compute = function(y_true, y_pred) -> value, note }
function metrics.get(spec)
  local name, options, compute
  if type(spec) == "function" then return { name = "custom", compute = spec } end
  if type(spec) == "table" and spec.compute then return spec end
  if type(spec) == "string" then
    name = spec
  elseif type(spec) == "table" and type(spec[1]) == "string" then
    name, options = spec[1], {}
    for key, value in pairs(spec) do
      if key ~= 1 then options[key] = value end
    end
  else
    error(format("a metric is a name, a table { name, options… } or a function, got %s", type(spec)), 2)
  end
  if not rows_by_name[name] then
    error(format("unknown metric '%s'; the metrics are %s", name, concat(metrics.names(), ", ")), 2)
  end
  compute = metrics[name]
  return {
    name = name,
    compute = function(y_true, y_pred) return compute(y_true, y_pred, options) end,
  }
end

--- Rows of true classes, columns of predicted ones, as nested tables.
---@param y_true any labels
---@param y_pred any predictions
---@param options table|nil { task, threshold, classes }
---@return integer[][]
function metrics.confusion_matrix(y_true, y_pred, options)
  local matrix, message = call(core.confusion_matrix, y_true, y_pred, options)
  return matrix, message
end

-- ---- reports ----

local function number(value)
  if value ~= value then return "nan" end
  return format(value ~= 0 and (value >= 1e6 or value <= -1e6 or (value < 1e-4 and value > -1e-4)) and "%.4g" or "%.4f", value)
end

-- Lines of cells, first column to the left, the others to the right.
local function aligned(lines)
  local widths, out = {}, {}
  for _, line in ipairs(lines) do
    for i, cell in ipairs(line) do
      if #cell > (widths[i] or 0) then widths[i] = #cell end
    end
  end
  for _, line in ipairs(lines) do
    local cells = {}
    for i, cell in ipairs(line) do
      local padding = (" "):rep(widths[i] - #cell)
      cells[i] = i == 1 and cell .. padding or padding .. cell
    end
    insert(out, (concat(cells, "  "):gsub("%s+$", "")))
  end
  return concat(out, "\n")
end

local function whole(value) return format("%d", value) end

local function class_lines(report)
  local lines = { { "", "precision", "recall", "f1", "support" } }
  local function add(name, scores)
    insert(lines, { name, number(scores.precision), number(scores.recall), number(scores.f1), whole(scores.support) })
  end
  for _, scores in ipairs(report.per_class) do add(scores.class, scores) end
  add("macro average", report.averages.macro)
  add("weighted average", report.averages.weighted)
  return aligned(lines)
end

local function confusion_lines(report)
  local lines = { { "true \\ predicted" } }
  for t, row in ipairs(report.confusion) do
    local line = { report.per_class[t].class }
    insert(lines[1], report.per_class[t].class)
    for _, count in ipairs(row) do insert(line, whole(count)) end
    insert(lines, line)
  end
  return aligned(lines)
end

--- A report as text: the metrics, then for classes a table of scores and the confusion matrix (up to 20 classes).
---@param report table from metrics.report
---@return string
function metrics.format(report)
  local names, lines, parts = {}, {}, {}
  for name in pairs(report.metrics) do insert(names, name) end
  sort(names)
  for _, name in ipairs(names) do
    local note = report.notes and report.notes[name]
    insert(lines, { name, number(report.metrics[name]) .. (note and "  (" .. note .. ")" or "") })
  end
  -- notes are of any length, so values are not padded to the right here
  for i, line in ipairs(lines) do lines[i] = format("%-18s %s", line[1], line[2]) end
  insert(parts, concat(lines, "\n"))
  if report.per_class then
    insert(parts, class_lines(report))
    if report.confusion and #report.confusion <= 20 then insert(parts, confusion_lines(report)) end
  end
  return concat(parts, "\n\n")
end

local report_class = { __name = "mlserve.report", __tostring = metrics.format }

--- Everything the metrics can say about these predictions.
--- The result has task, rows, metrics (by name, ROC AUC as "auc"), notes (by name: why a metric is undefined or left out) and,
--- for classes, per_class (array of { class, precision, recall, f1, support } in class order), averages (macro, micro, weighted)
--- and confusion. tostring(report) is a text table.
---@param y_true any labels
---@param y_pred any predictions
---@param task string|nil "binary", "categorical" or "regression"; nil: told from the values
---@param options table|nil { classes = names in class order, threshold, average, k }
---@return table|nil report
---@return string|nil message
function metrics.report(y_true, y_pred, task, options)
  local report, message = call(core.metrics_report, y_true, y_pred, task or "auto", options)
  if not report then return nil, message end
  return setmetatable(report, report_class)
end

--- Per-class precision, recall, F1 and support with their averages, as scikit-learn's classification_report.
--- tostring() of it is the text table.
---@param y_true any labels
---@param y_pred any predictions
---@param options table|nil { classes = names in class order, task, threshold }
---@return table report { accuracy, per_class, averages }
function metrics.classification_report(y_true, y_pred, options)
  local task = options and options.task or "auto"
  local full = assert(call(core.metrics_report, y_true, y_pred, task, options))
  if not full.per_class then error("classification_report: these are not class labels", 2) end
  return setmetatable(
    { accuracy = full.metrics.accuracy, per_class = full.per_class, averages = full.averages },
    { __name = "mlserve.classification_report", __tostring = class_lines }
  )
end

return metrics
