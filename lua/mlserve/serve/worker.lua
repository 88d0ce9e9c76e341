--- What runs in the threads of nginx's pool, each with a Lua state of its own: a model is reached by its handle, and requests of
--- all the coroutines that wait in these threads are merged.

local type = type

local M = {}

local function run(start, handle, body, what, timeout, priority, names)
  local servable, message, code = require("mlserve.core").servable_at(handle)
  if not servable then return nil, message, code end
  local job
  job, message, code = servable[start](servable, body, what, nil, timeout, priority, names)
  if type(job) ~= "userdata" then return job, message, code end
  return job:text()
end

--- What execute.predict_json returns.
---@param handle number of the servable
---@param body string
---@param signature? string
---@param timeout? number
---@param priority? number
---@return string|nil text
---@return string|nil message
---@return string|nil code
function M.start_json(handle, body, signature, timeout, priority) return run("start_json", handle, body, signature, timeout, priority) end

--- What execute.infer returns.
---@param handle number of the servable
---@param body string
---@param json_size? number
---@param timeout? number
---@param priority? number
---@param names? table
---@return string|nil body
---@return table|string|nil headers
---@return string|nil code
function M.start_infer(handle, body, json_size, timeout, priority, names)
  return run("start_infer", handle, body, json_size, timeout, priority, names)
end

return M
