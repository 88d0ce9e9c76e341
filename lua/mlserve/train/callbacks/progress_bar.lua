--- ProgressBar { verbose = 1 }: how training goes, on standard error. On a terminal one line that is redrawn after each epoch;
-- otherwise, or with verbose = 2, a line for each.
-- @module mlserve.train.callbacks.progress_bar

local callback = require "mlserve.train.callbacks.callback"
local core = require "mlserve.core"

local format = string.format
local WIDTH = 20

local function bar(done, all)
  local full = math.floor(WIDTH * done / all)
  return "[" .. ("="):rep(full) .. (" "):rep(WIDTH - full) .. "]"
end

local function numbers(run, logs)
  local parts = {}
  for _, name in ipairs(run.log_names) do
    if logs[name] then parts[#parts + 1] = format("%s %.4f", name, logs[name]) end
  end
  return table.concat(parts, "  ")
end

return callback.define {
  kind = "ProgressBar",
  options = { verbose = { type = "integer", min = 0, max = 2, default = 1, position = 1 } },

  on_train_begin = function(self)
    self.redraw = self.verbose == 1 and core.is_terminal(2)
    self.drawn = false
  end,

  on_epoch_end = function(self, run, logs)
    local line = format("epoch %d/%d  %s  %.1fs", run.epoch, run.epochs, numbers(run, logs), run:seconds())
    if self.verbose == 0 then return end
    if self.redraw then
      io.stderr:write("\r\27[K", bar(run.epoch, run.epochs), " ", line)
      self.drawn = true
    else
      io.stderr:write(line, "\n")
    end
    io.stderr:flush()
  end,

  on_train_end = function(self, run)
    if self.drawn then io.stderr:write "\n" end
    if self.verbose > 0 and run.history.message then io.stderr:write(run.history.message, "\n") end
  end,
}
