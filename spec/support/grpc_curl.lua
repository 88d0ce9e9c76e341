--- Requests through curl, which knows HTTP/1.1, HTTP/2 and trailers, but nothing of gRPC.

local process = require "spec.support.process"

local quote = process.quote

local M = {}

local function result(output, head)
  local response = { fields = {}, body = process.slurp(output) or "" }
  local text = process.slurp(head) or ""
  for name, value in text:gmatch "([%w-]+): ([^\r\n]*)" do response.fields[name:lower()] = value end
  response.version, response.status = text:match "^HTTP/([%d.]+) (%d+)"
  response.status = tonumber(response.status)
  return response
end

--- Makes a request.
---@param url string
---@param given table body, type (content-type), version (of HTTP: 1 or 2), method (POST), headers, seconds (5)
---@return table response status (nil: none), fields (of head and trailers; lower-case names), body
function M.request(url, given)
  local directory = process.directory()
  local input, output, head = directory .. "/in", directory .. "/out", directory .. "/head"
  process.write(input, given.body or "")
  local version = given.version == 1 and "--http1.1" or url:find "^https:" and "--http2" or "--http2-prior-knowledge"
  local words = {
    "curl -skN --noproxy '*' -X", given.method or "POST", "-m", tostring(given.seconds or 5), "-o", output, "-D", head, version, "-H 'expect:'", "-H 'te: trailers'",
    "-H", quote("content-type: " .. (given.type or "application/grpc")),
  }
  for name, value in pairs(given.headers or {}) do
    words[#words + 1] = "-H"
    words[#words + 1] = quote(name .. ": " .. value)
  end
  if given.body then words[#words + 1] = "--data-binary @" .. input end
  words[#words + 1] = quote(url)
  os.execute(table.concat(words, " "))
  local response = result(output, head)
  os.execute("rm -rf " .. quote(directory))
  return response
end

return M
