--- TerminateOnNaN: stops when a loss is no number any more. Every run has one; the weights are those before the step that failed.
-- @module mlserve.train.callbacks.terminate_on_nan

local callback = require "mlserve.train.callbacks.callback"

return callback.define {
  kind = "TerminateOnNaN",

  on_epoch_end = function(_, run, logs)
    if logs.loss ~= logs.loss then run:diverged() end
  end,
}
