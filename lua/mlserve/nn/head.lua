--- Heads: new layers in place of the last ones of a graph, as one fine-tunes a model that was trained for something else.
-- @module mlserve.nn.head

local builder = require "mlserve.nn.builder"
local layer = require "mlserve.nn.layer"

local format = string.format

local head = {}

local same_values = { Transpose = true, Identity = true, Cast = true }

-- For each value that weights become without any data: true.
local function weights_of(graph)
  local weights = {}
  for _, value in ipairs(graph:initializers()) do weights[value.name] = value.dtype:find("float") ~= nil end
  for _, node in ipairs(graph:nodes()) do
    if same_values[node.op] and weights[node.inputs[1]] then weights[node.outputs[1]] = true end
  end
  return weights
end

local with_kernel = { Gemm = true, MatMul = true, Conv = true }

--- The tensor that the last layer with a kernel (Gemm, MatMul, Conv) reads.
---@param graph userdata
---@return string name
function head.place(graph)
  local weights, nodes = weights_of(graph), graph:nodes()
  for i = #nodes, 1, -1 do
    local a, b = nodes[i].inputs[1], nodes[i].inputs[2]
    if with_kernel[nodes[i].op] and weights[b] and not weights[a] then return a end
  end
  error("replace_head: no last layer with weights was found; name the tensor that the new layers shall read (at = …)", 0)
end

-- The part of the graph that computes a value, without what only other outputs need.
local function cut(graph, name)
  local part = graph:clone()
  local out
  part:clear_outputs()
  part:output(name)
  part:prune()
  out = part:clone() -- forgets the names of what was cut off
  part:close()
  out:clear_outputs()
  return out
end

-- Freed names: the new output may be called what the old one was.
local function make_room(graph, name)
  if graph:find(name) then graph:rename(name, name .. "/before") end
end

--- A graph that computes the value `at` and, from it, layers one after the other.
---@param graph userdata left as it is
---@param layers table[] of mlserve.nn
---@param at string name of the tensor the first layer reads
---@param output_name string
---@param seed integer of the new layers' weights
---@return userdata graph
function head.replace(graph, layers, at, output_name, seed)
  local b, x, part
  if #layers == 0 then error("replace_head: at least one layer expected", 0) end
  for i, entry in ipairs(layers) do
    if not layer.is_layer(entry) then error(format("replace_head: layer %d: a layer expected, got %s", i, type(entry)), 0) end
  end
  if not graph:find(at) then error(format("replace_head: the model has no tensor '%s'", at), 0) end
  for _, input in ipairs(graph:inputs()) do
    if input.name == output_name then error(format("replace_head: the output '%s' would have an input's name", output_name), 0) end
  end
  part = cut(graph, at)
  x = part:find(at)
  make_room(part, output_name)
  b = builder.on(part, seed)
  for _, entry in ipairs(layers) do x = b:apply(entry, { x }) end
  part:output(x, output_name)
  return part
end

return head
