--- TargetMetric { metric, value, mode = "auto" }: stops when a number is at least as good as a value, e.g. { "val_accuracy", 0.98 }.
-- @module mlserve.train.callbacks.target_metric

local callback = require "mlserve.train.callbacks.callback"

return callback.define {
  kind = "TargetMetric",
  options = {
    metric = { type = "string", required = true, position = 1 },
    value = { type = "number", required = true, position = 2 },
    mode = { type = "string", choices = { "auto", "min", "max" }, default = "auto" },
  },

  check = function(self) self.monitor = self.metric end,

  on_epoch_end = function(self, run, logs)
    local value, name = callback.monitored(self, logs)
    if callback.reached(self, value, name, self.value) then run:stop "target" end
  end,
}
