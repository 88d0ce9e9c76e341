--- What callbacks share: construction, checking, and watching a number.
-- @module mlserve.train.callbacks.callback

local metrics = require "mlserve.metrics"
local options = require "mlserve.options"

local concat, sort = table.concat, table.sort
local format = string.format

local callback = {}

local hooks = { "on_batch_end", "on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end" }
local is_hook = {}
for _, hook in ipairs(hooks) do is_hook[hook] = true end

--- Makes the constructor of a class of callbacks: { kind, options, hooks }.
---@param class table
---@return function
function callback.define(class)
  local metatable = { __index = class, __name = "mlserve.callback", __tostring = function(self) return self.kind end }
  return function(given)
    if given ~= nil and type(given) ~= "table" then given = { given } end
    local self = setmetatable(options.check(given, class.options or {}, class.kind), metatable)
    if class.check then class.check(self) end
    return self
  end
end

--- Raises for something that is no callback, or has a hook that nobody calls.
---@param value any
---@param level integer
function callback.check(value, level)
  if type(value) ~= "table" then error(format("callbacks: a table with hooks expected, got %s", type(value)), level) end
  for name in pairs(value) do
    if type(name) == "string" and name:find("^on_") and not is_hook[name] then
      error(format("callbacks: unknown hook '%s'; known: %s", name, concat(hooks, ", ")), level)
    end
  end
end

--- Options of callbacks that watch a number.
callback.monitor_rules = {
  monitor = { type = "string" },
  mode = { type = "string", choices = { "auto", "min", "max" }, default = "auto" },
  min_delta = { type = "number", min = 0, default = 0 },
}

--- The number a callback watches: its monitor, or val_loss, or loss.
---@param self table
---@param logs table
---@return number value
---@return string name
function callback.monitored(self, logs)
  local name = self.monitor or (logs.val_loss and "val_loss" or "loss")
  local known = {}
  if type(logs[name]) == "number" then return logs[name], name end
  for key in pairs(logs) do known[#known + 1] = key end
  sort(known)
  error(format("%s: '%s' is not measured; known: %s", self.kind, name, concat(known, ", ")), 0)
end

local function larger(self, name)
  local ok, answer
  if self.mode ~= "auto" then return self.mode == "max" end
  ok, answer = pcall(metrics.larger_is_better, name)
  return ok and answer
end

--- Whether the watched number is better than the best so far (nil: none yet) by more than min_delta. NaN is never better.
---@return boolean
function callback.improved(self, value, name, best)
  if value ~= value then return false end
  if best == nil then return true end
  if larger(self, name) then return value > best + self.min_delta end
  return value < best - self.min_delta
end

--- Whether a value has reached a goal.
---@return boolean
function callback.reached(self, value, name, goal)
  if larger(self, name) then return value >= goal end
  return value <= goal
end

return callback
