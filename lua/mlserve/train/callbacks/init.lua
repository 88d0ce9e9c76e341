--- Callbacks: what happens between the steps of a training run.
-- A callback is a table with some of these functions; run is the training run, logs the numbers of the epoch by name.
--   on_train_begin(self, run)          on_train_end(self, run)
--   on_epoch_begin(self, run)          on_epoch_end(self, run, logs)
--   on_batch_end(self, run, logs)      slows training down: the epoch then runs step by step
--   state(self) -> table, restore(self, table)   (optional) what a checkpoint keeps of it
-- run has model, epoch (from 1), epochs, step, steps_per_epoch, history, seconds(), learning_rate([new]), stop(reason), fail(message),
-- keep_best(), restore_best(), save_model(path).
-- @module mlserve.train.callbacks

local callback = require "mlserve.train.callbacks.callback"

local names = {
  EarlyStopping = "early_stopping", ModelCheckpoint = "model_checkpoint", ReduceLROnPlateau = "reduce_lr_on_plateau",
  LearningRateScheduler = "learning_rate_scheduler", ProgressBar = "progress_bar", CSVLogger = "csv_logger",
  TerminateOnNaN = "terminate_on_nan", TargetMetric = "target_metric", TimeLimit = "time_limit",
}

local callbacks = { check = callback.check }

for name, file in pairs(names) do callbacks[name] = require("mlserve.train.callbacks." .. file) end

return callbacks
