--- A client that sends any bytes and reads answers without being strict about anything but where they end.

local cqueues = require "cqueues"
local errno = require "cqueues.errno"
local socket = require "cqueues.socket"

local M = {}
local methods = {}
local mt = { __index = methods }

--- A connection to a local port, or to a Unix socket's path.
function M.connect(port)
  local so = assert(socket.connect(type(port) == "string" and { path = port }
    or { host = "127.0.0.1", port = port, nodelay = true }))
  so:setmode("bn", "bn")
  so:onerror(function(_, _, why) return why end)
  assert(so:connect(5))
  return setmetatable({ socket = so, buffer = "" }, mt)
end

--- Sends bytes; false when the other side has closed.
function methods:send(bytes, timeout) return self.socket:xwrite(bytes, "bn", timeout or 5) and true or false end

-- More bytes; nil and "closed" or "timeout".
function methods:more(deadline)
  local left = deadline - cqueues.monotime()
  if left <= 0 then return nil, "timeout" end
  local data, why = self.socket:xread(-65536, "bn", left)
  if data then
    self.buffer = self.buffer .. data
    return true
  end
  self.socket:clearerr("r")
  return nil, why == errno.ETIMEDOUT and "timeout" or "closed"
end

-- The body in chunks at the beginning of text and the place behind it; nil when it is not complete.
local function join_chunks(text)
  local pieces, at = {}, 1
  while true do
    local size, after = text:match("^(%x+)\r\n()", at)
    if not size then return nil end
    size = tonumber(size, 16)
    if #text < after + size + 1 then return nil end
    if size == 0 then return table.concat(pieces), after + 2 end
    pieces[#pieces + 1] = text:sub(after, after + size - 1)
    at = after + size + 2
  end
end

--- The next answer: { status, headers, body }; nil and "closed" or "timeout". `head_only`: the answer to a HEAD.
function methods:response(timeout, head_only)
  local deadline = cqueues.monotime() + (timeout or 5)
  while true do
    local head, after = self.buffer:match("^(.-\r\n)\r\n()")
    if head then
      local headers = {}
      for name, value in head:gmatch("\n([^:\r\n]+): ([^\r\n]*)") do headers[name:lower()] = value end
      local status = tonumber(head:match("^HTTP/1%.1 (%d%d%d)"))
      local length = head_only and 0 or tonumber(headers["content-length"] or 0)
      if headers["transfer-encoding"] == "chunked" and not head_only then
        local body, behind = join_chunks(self.buffer:sub(after))
        if body then
          self.buffer = self.buffer:sub(after + behind - 1)
          return { status = status, headers = headers, body = body }
        end
      elseif #self.buffer >= after + length - 1 then
        local body = self.buffer:sub(after, after + length - 1)
        self.buffer = self.buffer:sub(after + length)
        return { status = status, headers = headers, body = body }
      end
    end
    local ok, why = self:more(deadline)
    if not ok then return nil, why end
  end
end

--- Everything until the other side closes: bytes, and whether it did.
function methods:rest(timeout)
  local deadline = cqueues.monotime() + (timeout or 5)
  while true do
    local ok, why = self:more(deadline)
    if not ok then return self.buffer, why == "closed" end
  end
end

function methods:finish_sending() self.socket:shutdown("w") end

function methods:close() self.socket:close() end

--- One request on its own connection: method, path, body, fields -> response.
function M.request(port, method, path, body, fields, timeout)
  local connection = M.connect(port)
  local lines = { method .. " " .. path .. " HTTP/1.1", "host: localhost", "connection: close" }
  if body then lines[#lines + 1] = "content-length: " .. #body end
  for name, value in pairs(fields or {}) do lines[#lines + 1] = name .. ": " .. value end
  connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or ""))
  local response, why = connection:response(timeout, method == "HEAD")
  connection:close()
  return response, why
end

return M
