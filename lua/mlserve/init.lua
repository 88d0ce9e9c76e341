--- mlserve: train, optimise, evaluate, deploy, serve and monitor models from Lua.
-- Everything but the core is loaded when it is first asked for.
-- @module mlserve

local core = require "mlserve.core"

local mlserve = { _VERSION = core._VERSION }

local modules = {
  tensor = "mlserve.tensor",
  nn = "mlserve.nn",
  data = "mlserve.data",
  metrics = "mlserve.metrics",
  client = "mlserve.client",
  server = "mlserve.serve.server",
}

--- Loads a model: an .onnx file, a version directory, or a model directory (its newest version).
---@param path string
---@param options? table { limits = { bytes, nodes, depth, memory, loop } }: see mlserve.model.load
---@return table|nil model see mlserve.model
---@return string|nil message
function mlserve.load(path, options)
  return require("mlserve.model").load(path, options)
end

--- The number of threads a computation may use; 0 restores the default.
---@param n integer
mlserve.set_threads = core.set_threads

--- What runs here: { version, isa, blas, threads, lua }.
---@return table
mlserve.info = core.info

return setmetatable(mlserve, {
  __index = function(self, name)
    local module = modules[name]
    if not module then return nil end
    module = require(module)
    rawset(self, name, module)
    return module
  end,
})
