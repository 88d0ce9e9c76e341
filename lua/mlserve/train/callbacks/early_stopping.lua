--- EarlyStopping { monitor, patience = 0, min_delta = 0, mode = "auto", restore_best_weights = false }: stops when the monitored number
-- (default val_loss; without validation, loss) has not improved for `patience` epochs.
-- @module mlserve.train.callbacks.early_stopping

local callback = require "mlserve.train.callbacks.callback"
local options = require "mlserve.options"

return callback.define {
  kind = "EarlyStopping",
  options = options.merge(callback.monitor_rules, {
    patience = { type = "integer", min = 0, default = 0 },
    restore_best_weights = { type = "boolean", default = false },
  }),

  on_train_begin = function(self)
    if not self.resumed then self.best, self.waited = nil, 0 end
    self.resumed = nil
  end,

  on_epoch_end = function(self, run, logs)
    local value, name = callback.monitored(self, logs)
    if callback.improved(self, value, name, self.best) then
      self.best, self.waited = value, 0
      run:keep_best()
      return
    end
    self.waited = self.waited + 1
    if self.waited >= math.max(self.patience, 1) then run:stop "early_stopping" end
  end,

  on_train_end = function(self, run)
    if self.restore_best_weights then run:restore_best() end
  end,

  state = function(self) return { best = self.best, waited = self.waited } end,
  restore = function(self, state) self.best, self.waited, self.resumed = state.best, state.waited, true end,
}
