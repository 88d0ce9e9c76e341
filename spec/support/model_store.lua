--- Model directories for specs: models whose answer says which one it is.

local core = require "mlserve.core"
local process = require "spec.support.process"

local M = {}

local quote = process.quote

--- Saves y = x + value (rows of one number) as a file.
function M.save(path, value)
  local graph = core.graph("add")
  local x = graph:input("x", "float32", { -1, 1 })
  graph:output(graph:node("Add", { x, graph:initializer("value", core.tensor { value }) }), "y")
  assert(core.make_directories((path:gsub("/[^/]*$", ""))))
  assert(core.onnx_save(graph, path))
end

--- Writes <base>/<version>/model.onnx in one step, as a careful publisher does.
function M.publish(base, version, value)
  local temporary = base .. "/tmp." .. version
  M.save(temporary .. "/model.onnx", value)
  M.rename(temporary, base .. "/" .. version)
end

function M.rename(from, to) assert(os.rename(from, to)) end

function M.remove(path) os.execute("rm -rf " .. quote(path)) end

--- What a servable adds to 0.
function M.value(entry)
  local text = entry and entry.servable:predict_json '{"instances":[[0]]}'
  return text and tonumber(text:match "%[%s*%[%s*([%d.-]+)")
end

return M
