--- What runs in the Lua states of nginx's thread pool: ngx.run_worker_thread calls these functions by name.
--
-- A state of the pool shares nothing with the worker's own but numbers and strings: models go by their handle in the core's
-- registry. nginx requires this module in its event loop, so everything that takes time to load is required when it is used.

local M = {}

local MEASURE_BODY = 4 * 1024 * 1024 -- bytes of the largest body that is made up to measure a model
local MEASURE_RUNS, MEASURE_TIME = 5, 0.05

local function close_with(servable, ...)
  servable:close()
  return ...
end

--- Loads what a request needs, in the pool's thread.
function M.prepare()
  require "mlserve.core"
  return true
end

-- Through the model's batcher, where requests of other threads join this one: functions of a servable, the seconds that are left
-- (nil: any number) and a method's arguments.
local function result(job, message, code)
  if type(job) ~= "userdata" then return job, message, code end
  return job:text()
end

local function start_proto(method)
  return function(servable, left, bytes, signature, ...) return result(servable:start_proto(method, bytes, signature, nil, left, nil, ...)) end
end

local MERGED = {
  predict_json = function(servable, left, body, signature) return result(servable:start_json(body, signature, nil, left)) end,
  infer = function(servable, left, body, json_size, names) return result(servable:start_infer(body, json_size, nil, left, nil, names)) end,
  predict_proto = start_proto "predict_proto", classify_proto = start_proto "classify_proto", regress_proto = start_proto "regress_proto",
  multi_inference_proto = start_proto "multi_inference_proto", infer_proto = start_proto "infer_proto",
}

--- Calls a method of a deployed model. Requests for a model whose requests are merged meet those of the other threads.
---@param handle integer
---@param deadline number|boolean by the core's clock, after which nobody wants the answer; false: never
---@param method string
---@return any what the method returns
function M.call(handle, deadline, method, ...)
  local core = require "mlserve.core"
  local left = deadline and deadline - core.clock() or nil
  if left and left <= 0 then return nil, "Deadline Exceeded", "DEADLINE_EXCEEDED" end
  local servable, message, code = core.servable_at(handle)
  if not servable then return nil, message, code end
  local merged = MERGED[method]
  if merged and servable:batched() then return close_with(servable, merged(servable, left, ...)) end
  return close_with(servable, servable[method](servable, ...))
end

--- Decides for a deployed model whether its requests are merged.
---@return boolean|nil ok
---@return string|nil message
function M.merge(handle, name, directory, batching)
  local merging, message = require("mlserve.serve.batching").config(batching)
  if not merging then return nil, message end
  local servable
  servable, message = require("mlserve.core").servable_at(handle)
  if not servable then return nil, message end
  local report, problem = merging:apply(servable, name, directory)
  servable:close()
  if report == nil then return nil, problem end
  return true
end

--- Seconds that the least request of a model takes, and its bytes: the best of a few, so that a busy machine does not make a
--- cheap model look dear. Also the model's first requests: its buffers are there afterwards.
---@param servable userdata
---@return number|nil seconds nil: no request can be made up for it, or it is refused
---@return integer|string bytes or why not
function M.cost(servable)
  local clock = require("mlserve.core").clock
  local signature = servable:signatures().serving_default
  local body = signature and require("mlserve.serve.example").predict_body(signature, MEASURE_BODY)
  if not body then return nil, "no request can be made up for its signature" end
  local best
  local begun = clock()
  for _ = 1, MEASURE_RUNS do
    local start = clock()
    local text, message = servable:predict_json(body)
    local now = clock()
    if not text then return nil, message end
    if not best or now - start < best then best = now - start end
    if now - begun > MEASURE_TIME then break end
  end
  return best, #body
end

--- The cost of a deployed model.
function M.measure(handle)
  local servable, message = require("mlserve.core").servable_at(handle)
  if not servable then return nil, message end
  return close_with(servable, M.cost(servable))
end

return M
