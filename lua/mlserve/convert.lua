--- Rewrites a graph for its file: behind model:convert and `mlserve convert`.
-- @module mlserve.convert

local core = require "mlserve.core"
local options = require "mlserve.options"

local rules = {
  inputs = { type = "table" },
  outputs = { type = "table" },
  batch = { type = "integer", min = 1 },
  fold = { type = "boolean", default = false },
  simplify = { type = "boolean", default = false },
  fp16 = { type = "boolean", default = false },
  keep_io_types = { type = "boolean", default = true },
}

-- What is stored about a whole model and does not hold for a part of it.
local of_the_whole = { "mlserve.classes", "mlserve.features", "mlserve.evaluation", "mlserve.training" }

local function size_of(graph)
  local operators, nodes = {}, graph:nodes()
  for _, node in ipairs(nodes) do operators[node.op] = (operators[node.op] or 0) + 1 end
  return { nodes = #nodes, parameters = graph:parameters(), operators = operators }
end

-- The steps in order; each core function changes the graph in place.
local function steps(graph, o, report)
  local notes
  if o.inputs or o.outputs then
    assert(core.graph_extract(graph, o.inputs, o.outputs))
    for _, key in ipairs(of_the_whole) do graph:set_property(key, nil) end
    report.cut = true
  end
  if o.batch then assert(core.graph_batch(graph, o.batch)) end
  if o.simplify then assert(core.graph_simplify(graph))
  elseif o.fold then assert(core.graph_fold(graph)) end
  if o.fp16 then
    notes = assert(core.graph_half(graph, o.keep_io_types))
    report.float16 = notes
  end
end

--- Changes the graph in place; options as of model:convert.
---@param graph userdata
---@param given table|nil
---@return table report
return function(graph, given)
  local o = options.check(given, rules, "convert", 0)
  local report = { before = size_of(graph) }
  steps(graph, o, report)
  report.after = size_of(graph)
  return report
end
