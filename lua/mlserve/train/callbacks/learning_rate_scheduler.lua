--- LearningRateScheduler: the learning rate as a function of the epoch.
-- LearningRateScheduler(function(epoch, rate) return new_rate end), epochs counting from 1; or
-- LearningRateScheduler { schedule = NAME, … } with the initial rate r, e the epochs done and E all epochs:
--   "constant"     r
--   "cosine"       min + (r - min) (1 + cos(pi e / E)) / 2      min_lr = 0
--   "step"         r factor^floor(e / every)                    factor = 0.1, every = 10
--   "exponential"  r factor^e                                   factor = 0.95
--   "linear"       r + (min - r) e / E                          min_lr = 0
-- warmup = N (any schedule; "linear_warmup" is "constant" with it) multiplies by (e + 1) / (N + 1) during the first N epochs.
-- Cosine: Loshchilov & Hutter 2017.
-- @module mlserve.train.callbacks.learning_rate_scheduler

local callback = require "mlserve.train.callbacks.callback"

local schedules = {
  constant = function(_, rate) return rate end,
  linear_warmup = function(_, rate) return rate end,
  cosine = function(self, rate, done, all) return self.min_lr + (rate - self.min_lr) * (1 + math.cos(math.pi * done / all)) / 2 end,
  step = function(self, rate, done) return rate * (self.factor or 0.1) ^ math.floor(done / self.every) end,
  exponential = function(self, rate, done) return rate * (self.factor or 0.95) ^ done end,
  linear = function(self, rate, done, all) return rate + (self.min_lr - rate) * done / all end,
}

return callback.define {
  kind = "LearningRateScheduler",
  options = {
    schedule = {
      type = { "string", "function" }, choices = { "constant", "cosine", "exponential", "linear", "linear_warmup", "step" },
      required = true, position = 1,
    },
    factor = { type = "number", above = 0 },
    every = { type = "integer", min = 1, default = 10 },
    min_lr = { type = "number", min = 0, default = 0 },
    warmup = { type = "integer", min = 0 },
  },

  check = function(self)
    if self.schedule == "linear_warmup" then self.warmup = self.warmup or 5 end
  end,

  on_epoch_begin = function(self, run)
    local done, rate = run.epoch - 1
    if type(self.schedule) == "function" then
      run:learning_rate(self.schedule(run.epoch, run:learning_rate()))
      return
    end
    rate = schedules[self.schedule](self, run.initial_learning_rate, done, run.epochs)
    if self.warmup and done < self.warmup then rate = rate * (done + 1) / (self.warmup + 1) end
    run:learning_rate(rate)
  end,
}
