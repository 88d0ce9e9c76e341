--- Tells systemd (Type=notify) how the server is; does nothing under anything else.

local cqueues = require "cqueues"
local net = require "mlserve.net"

local M = {}

local function send(text)
  local path = os.getenv "NOTIFY_SOCKET"
  if not path or path == "" then return nil end
  return net.notify(path, text)
end

function M.ready(status) return send("READY=1\nSTATUS=" .. status) end

function M.stopping() return send "STOPPING=1\nSTATUS=draining" end

--- Followed by `ready` when it is done. systemd wants to know since when (in microseconds of the monotonic clock).
function M.reloading() return send(string.format("RELOADING=1\nMONOTONIC_USEC=%.0f", cqueues.monotime() * 1e6)) end

return M
