--- CSVLogger { path, append = false }: the numbers of each epoch as a line of a CSV file.
-- @module mlserve.train.callbacks.csv_logger

local callback = require "mlserve.train.callbacks.callback"

local format = string.format

return callback.define {
  kind = "CSVLogger",
  options = {
    path = { type = "string", required = true, position = 1 },
    append = { type = "boolean", default = false },
  },

  on_train_begin = function(self, run)
    local message
    self.file, message = io.open(self.path, self.append and "a" or "w")
    if not self.file then run:fail(message) end
    self.empty = self.file and self.file:seek "end" == 0
  end,

  on_epoch_end = function(self, run, logs)
    local cells = { format("%d", run.epoch) }
    if not self.file then return end
    if self.empty then
      self.file:write("epoch,", table.concat(run.log_names, ","), "\n")
      self.empty = false
    end
    for i, name in ipairs(run.log_names) do cells[i + 1] = logs[name] and format("%.9g", logs[name]) or "" end
    self.file:write(table.concat(cells, ","), "\n")
    self.file:flush()
  end,

  on_train_end = function(self)
    if self.file then self.file:close() end
    self.file = nil
  end,
}
