--- TimeLimit { seconds }: stops after the step during which the time is up.
-- @module mlserve.train.callbacks.time_limit

local callback = require "mlserve.train.callbacks.callback"
local core = require "mlserve.core"

return callback.define {
  kind = "TimeLimit",
  options = { seconds = { type = "number", above = 0, required = true, position = 1 } },
  on_train_begin = function(self, run) run.deadline = core.clock() + self.seconds end,
}
