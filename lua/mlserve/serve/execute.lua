--- Runs models for requests: the one place through which protocols reach a servable.
--
-- A cheap model runs here and now. The requests of others go to the servable's threads (mlserve.serve.batching decides which),
-- and this coroutine waits for an eventfd that cqueues polls; without an event loop of cqueues the caller blocks (in nginx that is
-- a thread of its pool: transports.nginx_pool, where the time-out counts). A request's fields `timeout` (seconds that it may stay in the queue), `priority`
-- (1 is served before 2; 100 when it has none) and `closed` (a cqueues condition: nobody wants the answer any more) are honoured
-- when they are there.

local ngx = _G.ngx
local pcall, setmetatable, type = pcall, setmetatable, type

local M = {}

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

local function await(job, finished, closed)
  local timed = job:left() ~= nil
  while not job:done() do
    local left = timed and job:left() or nil
    if left == 0 then
      if job:expire() then return end
      timed, left = false, nil -- it has begun: its result comes soon, and nothing is won by leaving
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

local function start_json(servable, port, timeout, priority, body, signature) return servable:start_json(body, signature, port, timeout, priority) end

local function start_infer(servable, port, timeout, priority, body, json_size, names)
  return servable:start_infer(body, json_size, port, timeout, priority, names)
end

local function start_proto(servable, port, timeout, priority, method, bytes, signature, model, version, content)
  return servable:start_proto(method, bytes, signature, port, timeout, priority, model, version, content)
end

-- start: one of the functions above; what follows are its arguments
local function in_cqueues(controller, start, servable, request, ...)
  local hub, message, code = hub_of(controller)
  if not hub then return nil, message, code end
  local job
  job, message, code = start(servable, hub.port, request and request.timeout, request and request.priority, ...)
  if type(job) ~= "userdata" then return job, message, code end
  local id, finished = job:id(), condition.new()
  hub.waiting[id], hub.pending = finished, hub.pending + 1
  if not hub.running then
    hub.running = true
    controller:wrap(dispatch, hub)
  end
  await(job, finished, request and request.closed)
  hub.waiting[id], hub.pending = nil, hub.pending - 1
  if hub.pending == 0 then hub.idle:signal() end
  return job:text()
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

local function elsewhere(start, servable, request, ...)
  local controller = not ngx and find_controller()
  if controller then return in_cqueues(controller, start, servable, request, ...) end
  local job, message, code = start(servable, nil, request and request.timeout, request and request.priority, ...)
  if type(job) ~= "userdata" then return job, message, code end
  return job:text()
end

-- Without a batcher of this process: now. A model in nginx has a queue of its own, and takes the request along.
local function here(servable, request, method, ...)
  local answer = request and servable.answer
  if answer then return answer(servable, request, method, ...) end
  return servable[method](servable, ...)
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
  if not batched or not batched(servable) then return here(servable, request, "predict_json", body, signature) end
  return elsewhere(start_json, servable, request, body, signature)
end

--- Answers an infer request of KServe's v2 protocol, whose own parameters `timeout` and `priority` count for more than the request's.
---@param entry table of the repository
---@param body string
---@param request? table timeout, priority, closed
---@param json_size? number how much of the body is JSON; default: all
---@param names? table model, version: what the response calls the model
---@return string|nil body
---@return table|string|nil headers nil when the answer is JSON only; message when there is no body
---@return string|nil code
function M.infer(entry, body, request, json_size, names)
  local servable = entry.servable
  local batched = servable.batched
  if not batched or not batched(servable) then return here(servable, request, "infer", body, json_size, names) end
  return elsewhere(start_infer, servable, request, body, json_size, names)
end

--- Answers a message of a binary protocol by a method of the servable.
---@param entry table of the repository
---@param method string "predict_proto", "classify_proto", "regress_proto", "multi_inference_proto" or "infer_proto"
---@param bytes string
---@param request? table timeout, priority, closed
---@param signature? string used when the message names none
---@param content? boolean answer in tensor_content
---@return string|nil bytes
---@return string|nil message
---@return string|nil code
function M.proto(entry, method, bytes, request, signature, content)
  local servable = entry.servable
  local batched = servable.batched
  if not batched or not batched(servable) then
    return here(servable, request, method, bytes, signature, entry.name, entry.version, content)
  end
  return elsewhere(start_proto, servable, request, method, bytes, signature, entry.name, entry.version, content)
end

return M
