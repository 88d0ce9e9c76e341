--- ReduceLROnPlateau { monitor, factor = 0.1, patience = 10, min_delta = 1e-4, cooldown = 0, min_lr = 0 }: multiplies the learning rate
-- by factor when the monitored number has not improved for `patience` epochs, then waits `cooldown` epochs before counting again.
-- @module mlserve.train.callbacks.reduce_lr_on_plateau

local callback = require "mlserve.train.callbacks.callback"
local options = require "mlserve.options"

return callback.define {
  kind = "ReduceLROnPlateau",
  options = options.merge(callback.monitor_rules, {
    factor = { type = "number", above = 0, below = 1, default = 0.1 },
    patience = { type = "integer", min = 1, default = 10 },
    min_delta = { type = "number", min = 0, default = 1e-4 },
    cooldown = { type = "integer", min = 0, default = 0 },
    min_lr = { type = "number", min = 0, default = 0 },
  }),

  on_train_begin = function(self)
    if not self.resumed then self.best, self.waited, self.cooling = nil, 0, 0 end
    self.resumed = nil
  end,

  on_epoch_end = function(self, run, logs)
    local value, name = callback.monitored(self, logs)
    local rate = run:learning_rate()
    if self.cooling > 0 then self.cooling, self.waited = self.cooling - 1, 0 end
    if callback.improved(self, value, name, self.best) then
      self.best, self.waited = value, 0
    elseif self.cooling == 0 then
      self.waited = self.waited + 1
      if self.waited >= self.patience and rate > self.min_lr then
        run:learning_rate(math.max(rate * self.factor, self.min_lr))
        self.cooling, self.waited = self.cooldown, 0
      end
    end
  end,

  state = function(self) return { best = self.best, waited = self.waited, cooling = self.cooling } end,
  restore = function(self, state)
    self.best, self.waited, self.cooling, self.resumed = state.best, state.waited, state.cooling, true
  end,
}
