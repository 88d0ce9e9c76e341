--- Training: epochs over examples, with validation, callbacks and checkpoints.
-- The steps themselves run in the core; here is what happens around them.
-- @module mlserve.train.fit

local callbacks = require "mlserve.train.callbacks"
local checkpoint = require "mlserve.train.checkpoint"
local core = require "mlserve.core"
local data = require "mlserve.data"
local eval = require "mlserve.eval"
local examples = require "mlserve.train.examples"
local losses = require "mlserve.train.losses"
local optimizers = require "mlserve.train.optimizers"
local options = require "mlserve.options"

local ceil, max, min = math.ceil, math.max, math.min
local format = string.format

local fit = {}

local rows_or_tensor = { type = { "table", "userdata" } }

fit.rules = {
  epochs = { type = "integer", min = 0, default = 1 },
  batch_size = { type = { "integer", "string" }, min = 1, choices = { "full" }, default = 32 },
  validation_split = { type = "number", min = 0, below = 1, default = 0 },
  validation_data = rows_or_tensor,
  shuffle = { type = "boolean", default = true },
  seed = { type = "integer", min = 0 },
  sample_weight = rows_or_tensor,
  class_weight = { type = { "table", "string" }, choices = { "balanced" } },
  callbacks = { type = "table" },
  verbose = { type = "integer", min = 0, max = 2, default = 1 },
  checkpoint = { type = "string" },
  resume = { type = "boolean", default = true },
  max_steps = { type = "integer", min = 1 },
  max_seconds = { type = "number", above = 0 },
  target = { type = "table" },
  patience = { type = "integer", min = 0 },
  min_delta = { type = "number", min = 0 },
  restore_best_weights = { type = "boolean", default = true },
}

-- ---- the run, as callbacks see it ----

local Run = {}
Run.__index = Run

local History = {
  __name = "mlserve.history",
  __tostring = function(history)
    local names, parts = {}, {}
    for name, values in pairs(history) do
      if type(values) == "table" and #values > 0 then names[#names + 1] = name end
    end
    table.sort(names)
    for i, name in ipairs(names) do parts[i] = format("%s %.4g", name, history[name][#history[name]]) end
    return format("%d epochs (%s): %s", history.epochs, tostring(history.stop_reason), table.concat(parts, ", "))
  end,
}

--- Ends training after the current step or epoch; the first reason counts.
function Run:stop(reason) self.stop_reason = self.stop_reason or reason or "callback" end

--- Ends training because something around it failed; fit returns nil and the message.
function Run:fail(message)
  self.failure = self.failure or message
  self:stop "failed"
end

--- The learning rate; with a value, sets it.
function Run:learning_rate(value)
  if value then self.trainer:set { learning_rate = value } end
  return self.trainer:get().learning_rate
end

--- Seconds since training began.
function Run:seconds() return core.clock() - self.began end

--- Remembers the weights as the best so far.
function Run:keep_best()
  self.best = self.model:graph():clone()
  self.trainer:export(self.best)
  self.best_epoch = self.epoch
end

--- The model will have the best weights instead of the last ones.
function Run:restore_best() self.use_best = self.best ~= nil end

--- Saves the model with its present weights.
function Run:save_model(path)
  local file, message
  self.trainer:export(self.model:graph())
  self.model:changed()
  file, message = self.model:save(path)
  if not file then self:fail(message) end
  return file, message
end

--- Ends training because the numbers have left the finite ones.
function Run:diverged()
  self:stop "nan"
  self.history.message = format(
    "stopped in epoch %d, step %d: the loss or a gradient is NaN or infinite; the weights are those before that step. "
      .. "Try a smaller learning_rate (now %g), clip_norm = 1, nn.Normalization or nn.Imputer in front; check the data for NaN",
    self.epoch, self.step + 1, self:learning_rate())
end

function Run:call(hook, logs)
  for _, callback in ipairs(self.callbacks) do
    if callback[hook] then callback[hook](callback, self, logs) end
  end
end

function Run:has(hook)
  for _, callback in ipairs(self.callbacks) do
    if callback[hook] then return true end
  end
  return false
end

--- The numbers of all epochs, without what the history says about the run.
function Run:recorded()
  local lists = {}
  for name, values in pairs(self.history) do
    if type(values) == "table" then lists[name] = values end
  end
  return lists
end

--- The reason to stop that also holds for a run that goes on later.
function Run:final_stop()
  local reason = self.stop_reason
  return (reason == "early_stopping" or reason == "target" or reason == "callback") and reason or nil
end

-- ---- epochs ----

function Run:remaining_steps()
  if not self.max_steps then return 0 end
  return max(1, self.max_steps - self.steps_done)
end

-- Steps until the epoch is over or something stops it; true: the epoch is complete.
function Run:train()
  local stepwise = self:has "on_batch_end"
  local o = {
    inputs = self.training.inputs, target = self.training.target, weights = self.training.weights, predictions = self.predictions,
    batch_size = self.batch_size, shuffle = self.config.shuffle, epoch = self.epoch - 1,
  }
  repeat
    local result, message
    o.first_step, o.max_steps = self.step, stepwise and 1 or self:remaining_steps()
    o.deadline = self.deadline and max(1e-6, self.deadline - core.clock()) or nil
    result, message = self.trainer:epoch(o)
    if not result then
      self:fail(message)
      return false
    end
    if result.rows > 0 then
      self.loss_sum, self.rows_seen = self.loss_sum + result.loss * result.rows, self.rows_seen + result.rows
    end
    self.step, self.steps_done, self.penalty = self.step + result.steps, self.steps_done + result.steps, result.penalty
    if result.diverged then
      self:diverged()
      return false
    end
    if stepwise then self:call("on_batch_end", { loss = result.loss, step = self.step }) end
    if result.interrupted then self:stop(core.interrupted() and "interrupted" or "time") end
    if self.max_steps and self.steps_done >= self.max_steps then self:stop "steps" end
  until self.step >= self.steps_per_epoch or self.stop_reason
  return self.step >= self.steps_per_epoch
end

function Run:measure(part, predictions, prefix, logs)
  local compared, target
  if #self.metrics == 0 or not predictions then return end
  compared, target = eval.comparable(predictions, part.target, self.config.loss, self.model.settings.from_logits)
  eval.compute(self.metrics, target, compared, prefix, logs)
end

function Run:validate(logs)
  local part = self.validation
  if not part then return end
  logs.val_loss = assert(self.trainer:evaluate {
    inputs = part.inputs, target = part.target, weights = part.weights, batch_size = 256, predictions = part.predictions,
  })
  self:measure(part, part.predictions, "val_", logs)
end

function Run:record(logs)
  for name, value in pairs(logs) do
    self.history[name] = self.history[name] or {}
    self.history[name][#self.history[name] + 1] = value
  end
end

function Run:finish_epoch()
  local logs = { loss = self.loss_sum / self.rows_seen, learning_rate = self:learning_rate() }
  if self.penalty ~= 0 then logs.penalty = self.penalty end
  self:measure(self.training, self.predictions, "", logs)
  self:validate(logs)
  self:record(logs)
  self.completed, self.step, self.loss_sum, self.rows_seen = self.epoch, 0, 0, 0
  self:call("on_epoch_end", logs)
end

function Run:save_checkpoint()
  local ok, message
  if not self.checkpoint or self.stop_reason == "nan" then return end
  ok, message = checkpoint.save(self.checkpoint, self)
  if not ok then self:fail(message) end
end

function Run:loop()
  self:call "on_train_begin"
  while self.completed < self.epochs and not self.stop_reason do
    self.epoch = self.completed + 1
    if self.step == 0 then self:call "on_epoch_begin" end
    if not self.stop_reason and self:train() then self:finish_epoch() end
    if core.interrupted() then self:stop "interrupted" end
    self:save_checkpoint()
  end
  self:stop "epochs"
  if self.stop_reason == "interrupted" then
    self.history.message = format("interrupted in epoch %d after step %d%s", self.epoch, self.step,
      self.checkpoint and "; checkpoint saved to " .. self.checkpoint or "")
  end
end

function Run:finish()
  local history = self.history
  history.epochs, history.stop_reason, history.best_epoch = self.completed, self.stop_reason, self.best_epoch
  history.seconds = self:seconds()
  self:call "on_train_end"
  if self.use_best then self.model.built = self.best else self.trainer:export(self.model:graph()) end
  self.model:changed()
  self.model.last_history = history
end

-- ---- preparing ----

local function prepared(e, graph, trainer, weighted)
  local weights = weighted and (e.weights or core.full({ e.rows }, 1)) or nil
  return { inputs = examples.inputs(e, graph), target = losses.target(e.labels, trainer:target()), weights = weights, rows = e.rows }
end

-- A tensor for what the model says to each row, when metrics want to know.
local function prediction_buffer(graph, rows, wanted)
  local shape = graph:outputs()[1].shape
  if not wanted then return nil end
  shape[1] = rows
  for i = 2, #shape do
    if shape[i] < 0 then return nil end
  end
  return core.zeros(shape)
end

local function validation_examples(given, task)
  local e
  if not given then return nil end
  if data.is_dataset(given) then
    e = examples.of(given)
  else
    if given[1] == nil or given[2] == nil then error("fit: validation_data: a data set or { x, y } expected", 0) end
    e = examples.of(given[1], given[2], task)
  end
  if not e.labels then error("fit: validation_data has no labels", 0) end
  return e
end

local function all_callbacks(o)
  local list = {}
  for _, callback in ipairs(o.callbacks or {}) do
    callbacks.check(callback, 0)
    list[#list + 1] = callback
  end
  list[#list + 1] = callbacks.TerminateOnNaN()
  if o.patience then
    list[#list + 1] = callbacks.EarlyStopping {
      patience = o.patience, min_delta = o.min_delta, restore_best_weights = o.restore_best_weights,
    }
  end
  if o.target then list[#list + 1] = callbacks.TargetMetric(o.target) end
  if o.max_seconds then list[#list + 1] = callbacks.TimeLimit(o.max_seconds) end
  if o.verbose > 0 then list[#list + 1] = callbacks.ProgressBar { verbose = o.verbose } end
  return list
end

local function log_names(metric_list, validated)
  local names = { "loss" }
  for _, metric in ipairs(metric_list) do names[#names + 1] = metric.name end
  for i = 1, validated and #names or 0 do names[#names + 1] = "val_" .. names[i] end
  return names
end

local function split(model, x, y, o, seed)
  local loss = model.settings.loss or model.built and model:loss()
  local e = examples.of(x, y, loss and losses.task(loss))
  local validation = validation_examples(o.validation_data, loss and losses.task(loss))
  if not e.labels then error("fit: labels expected", 0) end
  examples.weigh(e, o.sample_weight, o.class_weight)
  if not validation and o.validation_split > 0 then e, validation = examples.split(e, o.validation_split, seed) end
  return e, validation
end

-- The model gets its graph, its classes and the names of its features.
local function prepare_model(model, e, validation, seed)
  model:build { inputs = examples.signature(e), data = e.tensors, seed = seed }
  if losses.task(model:loss()) ~= "regression" then
    eval.check_classes(model.classes, e)
    model.classes = model.classes or e.classes
    if validation then eval.check_classes(model.classes, validation) end
  end
  model.features, model.label = model.features or e.features, model.label or e.label
end

local function new_run(model, e, validation, o, seed)
  local loss, settings, graph = model:loss(), model.settings, model:graph()
  local trainer_options = optimizers.trainer_options(settings, loss)
  local batch_size = o.batch_size == "full" and e.rows or min(o.batch_size, e.rows)
  local metric_list = eval.metrics(settings.metrics, losses.task(loss))
  local config = {
    seed = seed, batch_size = batch_size, rows = e.rows, shuffle = o.shuffle and batch_size < e.rows, loss = loss,
    optimizer = settings.optimizer.name,
  }
  local saved, message, run, trainer
  if o.checkpoint and o.resume then
    saved, message = checkpoint.load(o.checkpoint, config)
    if message then return nil, message end
  end
  trainer_options.seed, trainer_options.weighted = seed, e.weights ~= nil
  trainer, message = core.trainer(graph, trainer_options)
  if not trainer then return nil, message end
  run = setmetatable({
    model = model, trainer = trainer, config = config, metrics = metric_list, callbacks = all_callbacks(o),
    history = setmetatable({}, History), log_names = log_names(metric_list, validation),
    training = prepared(e, graph, trainer, e.weights), epochs = o.epochs, epoch = 0, completed = 0, step = 0, steps_done = 0,
    batch_size = batch_size, steps_per_epoch = ceil(e.rows / batch_size), max_steps = o.max_steps, checkpoint = o.checkpoint,
    loss_sum = 0, rows_seen = 0, penalty = 0, began = core.clock(), initial_learning_rate = trainer:get().learning_rate,
  }, Run)
  run.predictions = prediction_buffer(graph, e.rows, #metric_list > 0)
  if validation then
    run.validation = prepared(validation, graph, trainer, e.weights)
    run.validation.predictions = prediction_buffer(graph, validation.rows, #metric_list > 0)
  end
  if saved then checkpoint.restore(run, saved) end
  return run
end

--- Trains a model; see Model:fit.
function fit.fit(model, x, y, given)
  local o, seed, e, validation, run, message, ok
  if data.is_dataset(x) then y, given = nil, y end
  o = options.check(given, fit.rules, "fit", 0)
  seed = o.seed or model.settings.seed or 0
  model.settings.seed = seed -- a later stage splits the same data in the same way
  e, validation = split(model, x, y, o, seed)
  prepare_model(model, e, validation, seed)
  run, message = new_run(model, e, validation, o, seed)
  if not run then return nil, message end
  core.interrupt_begin()
  ok, message = pcall(run.loop, run)
  core.interrupt_end()
  if not ok then error(message, 0) end
  run:finish()
  if run.failure then return nil, run.failure end
  return run.history
end

return fit
