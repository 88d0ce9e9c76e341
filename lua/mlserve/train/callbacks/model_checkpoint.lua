--- ModelCheckpoint { path, monitor, save_best_only = false, mode = "auto" }: saves the model after each epoch, or after each that is the
-- best so far. "{epoch}" in the path is the number of the epoch.
-- @module mlserve.train.callbacks.model_checkpoint

local callback = require "mlserve.train.callbacks.callback"
local options = require "mlserve.options"

return callback.define {
  kind = "ModelCheckpoint",
  options = options.merge(callback.monitor_rules, {
    path = { type = "string", required = true, position = 1 },
    save_best_only = { type = "boolean", default = false },
  }),

  on_epoch_end = function(self, run, logs)
    local value, name
    if self.save_best_only then
      value, name = callback.monitored(self, logs)
      if not callback.improved(self, value, name, self.best) then return end
      self.best = value
    end
    run:save_model((self.path:gsub("{epoch}", string.format("%d", run.epoch))))
  end,

  state = function(self) return { best = self.best } end,
  restore = function(self, state) self.best = state.best end,
}
