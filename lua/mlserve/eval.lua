--- Evaluation: the loss and the metrics of a model on examples.
-- @module mlserve.eval

local core = require "mlserve.core"
local data = require "mlserve.data"
local examples = require "mlserve.train.examples"
local losses = require "mlserve.train.losses"
local metrics = require "mlserve.metrics"
local optimizers = require "mlserve.train.optimizers"
local options = require "mlserve.options"

local format = string.format

local eval = {}

local rules = {
  metrics = { type = "table" },
  batch_size = { type = "integer", min = 1, default = 256 },
  sample_weight = { type = { "table", "userdata" } },
}

-- For models with nothing to train, which have no trainer: the metric that is the loss.
local loss_metric = { binary_crossentropy = "log_loss", categorical_crossentropy = "log_loss", mse = "mse", mae = "mae" }

--- Metrics as functions of (target, prediction), told which task they are about.
---@param specs table|nil names, { name, options } or functions
---@param task string
---@return table[] { name, compute }
function eval.metrics(specs, task)
  local list = {}
  for i, spec in ipairs(specs or {}) do
    if type(spec) == "string" then spec = { spec, task = task } end
    list[i] = metrics.get(spec)
  end
  return list
end

--- Computes metrics into a table by name; several outputs a row of a binary task count as rows of their own.
function eval.compute(list, target, predictions, prefix, into)
  for _, metric in ipairs(list) do into[(prefix or "") .. metric.name] = (metric.compute(target, predictions)) end
  return into
end

--- Raises when the data's classes are not the model's.
function eval.check_classes(model_classes, e)
  if not model_classes or not e.classes then return end
  if table.concat(model_classes, "\n") ~= table.concat(e.classes, "\n") then
    error(format("the data's classes (%s) are not the model's (%s): read the data with { classes = model.classes }",
      table.concat(e.classes, ", "), table.concat(model_classes, ", ")), 0)
  end
end

--- Predictions and labels in the form metrics take: probabilities, one row of the task per row.
function eval.comparable(predictions, target, loss, from_logits)
  predictions = losses.probabilities(predictions, loss, from_logits)
  if losses.task(loss) == "binary" and predictions:count() > #predictions then -- several labels a row
    return predictions:reshape { -1 }, target:reshape { -1 }
  end
  return predictions, target
end

-- Loss and predictions by the trainer's evaluation program, which computes cross-entropy from logits as training does.
local function by_trainer(model, loss, inputs, e, o)
  local trainer_options = optimizers.trainer_options(model.settings, loss)
  local ok, trainer, target, predictions, dims, value
  trainer_options.weighted = e.weights ~= nil
  ok, trainer = pcall(core.trainer, model:graph(), trainer_options)
  if not ok or not trainer then return nil end
  target, dims = losses.target(e.labels, trainer:target()), model:outputs()[1].shape
  dims[1] = e.rows
  for i = 2, #dims do
    if dims[i] < 0 then return nil end
  end
  predictions = core.zeros(dims)
  value = trainer:evaluate {
    inputs = inputs, target = target, weights = e.weights, batch_size = o.batch_size, predictions = predictions,
  }
  trainer:close()
  return predictions, target, value
end

local function by_program(model, loss, inputs, e)
  local outputs, message = model:program():run(inputs)
  local name = loss_metric[losses.canonical(loss)]
  local target, shape
  if not outputs then return nil, message end
  shape = outputs[1]:shape()
  if losses.task(loss) == "categorical" then
    target = losses.target(e.labels, { dtype = "int64", shape = { -1 } })
  else
    target = losses.target(e.labels, { dtype = "float32", shape = shape })
  end
  return outputs[1], target, name and (core.metric(name, target, outputs[1], { task = losses.task(loss) })) or nil
end

local function wanted(report, list, target, predictions)
  if #list == 0 then return report.metrics end
  return eval.compute(list, target, predictions, nil, {})
end

local report_class = {
  __name = "mlserve.report",
  __tostring = metrics.format,
  __index = function(report, name) return rawget(report, "metrics")[name] end,
}

--- Evaluates a model; see Model:evaluate.
function eval.evaluate(model, x, y, given)
  local loss, task, e, o, report, message, list, predictions, target, value, inputs
  if data.is_dataset(x) then y, given = nil, y end
  o = options.check(given, rules, "evaluate", 0)
  loss = model:loss()
  task = losses.task(loss)
  e = examples.of(x, y, task)
  if not e.labels then error("evaluate: labels expected", 0) end
  eval.check_classes(model.classes, e)
  examples.weigh(e, o.sample_weight)
  inputs = examples.inputs(e, model:graph())
  predictions, target, value = by_trainer(model, loss, inputs, e, o)
  if not predictions then predictions, target, value = by_program(model, loss, inputs, e) end
  if not predictions then return nil, target end
  predictions, target = eval.comparable(predictions, target, loss, model.settings.from_logits)
  list = eval.metrics(o.metrics or model.settings.metrics, task)
  report, message = metrics.report(target, predictions, task, { classes = task ~= "regression" and model.classes or nil })
  if not report then return nil, message end
  report.metrics = wanted(report, list, target, predictions)
  report.metrics.loss = value
  return setmetatable(report, report_class)
end

return eval
