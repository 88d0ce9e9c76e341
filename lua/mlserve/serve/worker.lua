--- What runs in the threads of nginx's pool, each with a Lua state of its own: a model is reached by its handle, and requests of
--- all workers' coroutines that wait in these threads are merged.

local M = {}

---@return string|nil text
---@return string|nil message
---@return string|nil code
function M.predict_json(handle, body, signature, timeout, priority)
  local servable, message, code = require("mlserve.core").servable_at(handle)
  if not servable then return nil, message, code end
  local job
  job, message, code = servable:start_json(body, signature, nil, timeout, priority)
  if type(job) ~= "userdata" then return job, message, code end
  return job:text()
end

return M
