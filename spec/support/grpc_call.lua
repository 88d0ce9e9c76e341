--- Calls of gRPC methods on an application, without a transport.

local grpc = require "mlserve.serve.protocols.grpc"
local grpc_schema = require "mlserve.serve.protocols.grpc_schema"

local M = {}

--- The response to a message, a table, of the type `input`.
function M.raw(it_, path, input, message, headers)
  local all = { ["content-type"] = "application/grpc" }
  for name, value in pairs(headers or {}) do all[name] = value end
  local bytes = type(message) == "string" and message or grpc_schema.schema():encode(input, message)
  return it_:handle { method = "POST", path = path, headers = all, body = grpc.frame(bytes), http = "2" }
end

--- A function that calls methods of a service by their names: answer (a table) | nil, number of the status, text, and the response.
function M.service(it_, service)
  local package = service:match "^(.*%.)[^.]*$"
  return function(method, message, types)
    local schema = grpc_schema.schema()
    types = types or { method .. "Request", method .. "Response" }
    local response = M.raw(it_, "/" .. service .. "/" .. method, package .. types[1], message or {})
    if response.trailers["grpc-status"] ~= "0" then
      assert(response.body == nil, "a refusal has no body")
      local text = response.trailers["grpc-message"]
      return nil, tonumber(response.trailers["grpc-status"]), text and grpc.percent_decode(text), response
    end
    local reader = grpc.reader(1e9)
    reader:push(response.body)
    local answer = assert(schema:decode(package .. types[2], (assert(reader:next()))))
    assert(not reader:pending())
    return answer, nil, nil, response
  end
end

--- What a transport gives a streaming route; pieces: bytes, "end", "timeout" or "cancelled", or a function that gives one of them.
function M.stream(pieces)
  local at = 0
  local it_ = { written = {} }
  function it_.read()
    at = at + 1
    local piece = pieces[at] or "end"
    if type(piece) == "function" then piece = piece(it_) end
    if piece == "end" or piece == "timeout" or piece == "cancelled" then return nil, piece end
    return piece
  end
  function it_.write(_, bytes)
    if it_.closed then return nil, it_.closed end
    it_.sent_headers = it_.sent_headers or it_.headers
    it_.written[#it_.written + 1] = bytes
    return true
  end
  return it_
end

--- Messages in frames, as tables.
function M.messages(bytes, kind)
  local reader, list = grpc.reader(1e9), {}
  reader:push(bytes)
  local content = reader:next()
  while content do
    list[#list + 1] = assert(grpc_schema.schema():decode(kind, content))
    content = reader:next()
  end
  assert(not reader:pending())
  return list
end

return M
