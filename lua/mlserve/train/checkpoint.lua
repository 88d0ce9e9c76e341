--- Checkpoints: a training run on disk, as one safetensors file that appears whole or not at all.
-- Tensors: param/NAME, slotN/NAME and running/NAME (the trainer's state), best/NAME (the best weights so far) and predictions (of an
-- epoch that was stopped in the middle). Everything else is JSON in the metadata. Random numbers depend on
-- seed, epoch and step only, so a run that goes on from here ends as if it had never stopped.
-- @module mlserve.train.checkpoint

local core = require "mlserve.core"

local format = string.format

local checkpoint = {}

local KEY = "mlserve.checkpoint"
local FORMAT = 1

-- What must be the same for a run to go on.
local settings = { "seed", "batch_size", "rows", "shuffle", "loss", "optimizer" }

-- Callbacks with a state by name: "EarlyStopping 1" is the first of its kind, whatever others there are.
local function stateful(callbacks)
  local by_name, counts = {}, {}
  for _, callback in ipairs(callbacks) do
    local kind = callback.kind or "custom"
    counts[kind] = (counts[kind] or 0) + 1
    if callback.state then by_name[format("%s %d", kind, counts[kind])] = callback end
  end
  return by_name
end

--- Writes a run.
---@param path string
---@param run table
---@return boolean|nil
---@return string|nil message
function checkpoint.save(path, run)
  local tensors, callbacks, best, metadata = run.trainer:state(), {}, {}
  for key in pairs(run.best and tensors or {}) do
    local name = key:match "^param/(.+)" or key:match "^running/(.+)"
    if name then best["best/" .. name] = run.best:get_initializer(name) end
  end
  for key, tensor in pairs(best) do tensors[key] = tensor end
  if run.step > 0 and run.predictions then tensors.predictions = run.predictions end
  for name, callback in pairs(stateful(run.callbacks)) do callbacks[name] = callback:state() end
  metadata = {
    format = FORMAT, epoch = run.completed, step = run.step, steps = run.trainer:steps(), hyper = run.trainer:get(),
    history = run:recorded(), best_epoch = run.best_epoch, loss_sum = run.loss_sum, rows_seen = run.rows_seen,
    stop_reason = run:final_stop(), callbacks = callbacks,
  }
  for _, name in ipairs(settings) do metadata[name] = run.config[name] end
  return core.safetensors_save(path, tensors, { [KEY] = core.json_encode(metadata, { nonfinite = true }) })
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- Reads a checkpoint and checks that it is of a run like this one.
---@param path string
---@param config table
---@return table|nil saved { tensors, … }; nil without message: there is none
---@return string|nil message
function checkpoint.load(path, config)
  local tensors, metadata, saved
  if not exists(path) then return nil end
  tensors, metadata = core.safetensors_load(path)
  if not tensors then return nil, metadata end
  saved = core.json_decode(metadata[KEY] or "", { nonfinite = true })
  if type(saved) ~= "table" then return nil, format("%s: not a checkpoint of a training run", path) end
  if saved.format ~= FORMAT then return nil, format("%s: checkpoint format %s, this version reads %d", path, tostring(saved.format), FORMAT) end
  for _, name in ipairs(settings) do
    if saved[name] ~= config[name] then
      return nil, format("%s: made with %s = %s, this run has %s; say resume = false to begin anew", path, name, tostring(saved[name]),
        tostring(config[name]))
    end
  end
  saved.tensors = tensors
  return saved
end

-- The best weights so far, as a graph.
local function best_graph(run, saved)
  local graph = run.model:graph():clone()
  for key, tensor in pairs(saved.tensors) do
    local name = key:match "^best/(.+)"
    if name then graph:set_initializer(name, tensor) end
  end
  return graph
end

--- Puts a run where it was.
---@param run table
---@param saved table
function checkpoint.restore(run, saved)
  run.trainer:load_state(saved.tensors)
  run.trainer:set_steps(saved.steps)
  run.trainer:set(saved.hyper)
  run.completed, run.step = saved.epoch, saved.step
  run.loss_sum, run.rows_seen, run.best_epoch = saved.loss_sum, saved.rows_seen, saved.best_epoch
  run.predictions = saved.tensors.predictions and saved.tensors.predictions:copy() or run.predictions
  run.stop_reason = saved.stop_reason
  for name, values in pairs(saved.history) do run.history[name] = values end
  run.best = saved.best_epoch and best_graph(run, saved) or nil
  for name, callback in pairs(stateful(run.callbacks)) do
    if callback.restore and saved.callbacks[name] then callback:restore(saved.callbacks[name]) end
  end
end

return checkpoint
