--- Whether the client of the present request is still there.
--
-- nginx tells it only where `lua_check_client_abort on` is set. It then kills the coroutines of a request whose client has gone, unless
-- the request has asked to be told: whoever waits while holding something (a place in a queue, a model) asks before.

local find = string.find
local ngx = ngx -- luacheck: ignore

local M = {}

local PHASES = { rewrite = true, access = true, content = true }
local UNKNOWN = { gone = false } -- of what is no request: timers

--- Asks to be told.
---@return table client gone (boolean)
function M.watch()
  if not PHASES[ngx.get_phase()] then return UNKNOWN end
  local context = ngx.ctx
  local client = context.mlserve_client
  if client then return client end
  client = { gone = false }
  context.mlserve_client = client
  local ok, message = ngx.on_abort(function() client.gone = true end) -- the request goes on and ends by itself
  if not ok and not find(message or "", "lua_check_client_abort is off", 1, true) then
    ngx.log(ngx.WARN, "mlserve: what becomes of the client is not known: ", message)
  end
  return client
end

return M
