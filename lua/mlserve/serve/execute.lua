--- Runs models for requests: the one place through which protocols reach a servable.
--
-- A cheap model runs here and now. The requests of others go to the servable's threads (mlserve.serve.batching decides which),
-- and this coroutine waits: in the stand-alone server for an eventfd that cqueues polls, in nginx for a thread of its pool, and
-- elsewhere by blocking. A request's fields `timeout` (seconds that it may stay in the queue), `priority` (1 is served before 2;
-- 100 when it has none) and `closed` (a cqueues condition: nobody wants the answer any more) are honoured when they are there.

local ngx = _G.ngx
local pcall, setmetatable, tostring, type = pcall, setmetatable, tostring, type

local M = {}

--- Name of nginx's thread pool (directive `thread_pool`).
M.thread_pool = "mlserve"

---------------------------------------------------------------------------------------------------------------------------
-- cqueues: one port per controller; one coroutine hears what has finished and wakes whom it concerns

local cqueues, condition -- loaded when there is a controller to wait in
local hubs = setmetatable({}, { __mode = "k" })

local function dispatch(hub)
  local port, waiting = hub.port, hub.waiting
  while hub.pending > 0 do
    cqueues.poll(port, hub.idle)
    local id = port:take()
    while id do
      local waiter = waiting[id]
      if waiter then waiter:signal() end
      id = port:take()
    end
  end
  hub.running = false
end

local function hub_of(controller)
  local hub = hubs[controller]
  if hub then return hub end
  local port, message, code = require("mlserve.core").batch_port()
  if not port then return nil, message, code end
  hub = { port = port, waiting = {}, pending = 0, idle = condition.new() }
  hubs[controller] = hub
  return hub
end

local function await(job, finished, timeout, closed)
  local limit = timeout and cqueues.monotime() + timeout
  while not job:done() do
    local left = limit and limit - cqueues.monotime()
    if left and left <= 0 then
      if job:expire() then return end
      limit, left = nil, nil -- it has begun: its result comes soon, and nothing is won by leaving
    end
    if closed then
      if cqueues.poll(finished, closed, left) == closed then
        if job:cancel() then return end
        closed = nil
      end
    else
      cqueues.poll(finished, left)
    end
  end
end

local function in_cqueues(controller, servable, body, signature, request)
  local hub, message, code = hub_of(controller)
  if not hub then return nil, message, code end
  local timeout = request and request.timeout
  local job
  job, message, code = servable:start_json(body, signature, hub.port, timeout, request and request.priority)
  if type(job) ~= "userdata" then return job, message, code end
  local id, finished = job:id(), condition.new()
  hub.waiting[id], hub.pending = finished, hub.pending + 1
  if not hub.running then
    hub.running = true
    controller:wrap(dispatch, hub)
  end
  await(job, finished, timeout, request and request.closed)
  hub.waiting[id], hub.pending = nil, hub.pending - 1
  if hub.pending == 0 then hub.idle:signal() end
  return job:text()
end

---------------------------------------------------------------------------------------------------------------------------
-- nginx

local YIELDABLE = { rewrite = true, access = true, content = true }
local warned

local function in_nginx(servable, body, signature, request)
  local run = ngx.run_worker_thread
  if run and YIELDABLE[ngx.get_phase()] then
    local handle = servable:handle()
    local ok, text, message, code = run(M.thread_pool, "mlserve.serve.worker", "predict_json", handle, body, signature,
      request and request.timeout, request and request.priority)
    if ok then return text, message, code end
    if not warned then
      warned = true
      ngx.log(ngx.WARN, "mlserve: models run in the event loop: ", tostring(text))
    end
  end
  return servable:predict_json(body, signature)
end

---------------------------------------------------------------------------------------------------------------------------

local function find_controller()
  if not cqueues then
    local ok, module = pcall(require, "cqueues")
    if not ok then return nil end
    cqueues, condition = module, require "cqueues.condition"
  end
  return (cqueues.running())
end

--- Answers a predict request of TensorFlow Serving's REST protocol.
---@param entry table of the repository
---@param body string
---@param request? table timeout, priority, closed
---@param signature? string used when the body names none
---@return string|nil text
---@return string|nil message
---@return string|nil code
function M.predict_json(entry, body, request, signature)
  local servable = entry.servable
  local batched = servable.batched
  if not batched or not batched(servable) then return servable:predict_json(body, signature) end
  if ngx then return in_nginx(servable, body, signature, request) end
  local controller = find_controller()
  if controller then return in_cqueues(controller, servable, body, signature, request) end
  local job, message, code = servable:start_json(body, signature, nil, request and request.timeout, request and request.priority)
  if type(job) ~= "userdata" then return job, message, code end
  return job:text()
end

return M
