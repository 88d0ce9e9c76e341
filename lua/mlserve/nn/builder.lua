--- The builder: what layers write their nodes with.
-- It gives layers and their nodes and parameters names ("dense", "dense_1", "dense_1/kernel"), hands out one random stream per
-- parameter, shares the parameters of a layer that is used twice, and lets layers that learn from data see the training data as
-- it arrives at them.
-- @module mlserve.nn.builder

local core = require "mlserve.core"
local initializers = require "mlserve.nn.initializers"
local layer = require "mlserve.nn.layer"

local format = string.format

local Builder = {}
Builder.__index = Builder

local builder = {}

--- A builder on an empty graph.
---@param name string of the graph
---@param seed integer of the initial weights
---@param data table|nil input name -> tensor: the training data, for layers that learn from them
---@return table
function builder.new(name, seed, data)
  return setmetatable({
    graph = core.graph(name), seed = seed, data = data, streams = 0, shared = {}, names = {}, taken = {}, nodes = {}, inputs = {},
  }, Builder)
end

--- A builder that adds to a graph; new names are none of those that the graph has.
---@param graph userdata
---@param seed integer of the initial weights
---@return table
function builder.on(graph, seed)
  local self = builder.new(nil, seed)
  local function take(name) self.taken[name:match("^(.*)/[^/]*$") or name] = true end
  self.graph = graph
  for _, value in ipairs(graph:initializers()) do take(value.name) end
  for _, node in ipairs(graph:nodes()) do take(node.name) end
  return self
end

--- A graph input; dimension 1 is the batch.
function Builder:input(name, dtype, shape)
  local dims = { -1 }
  for i = 2, #shape do dims[i] = shape[i] end
  local id = self.graph:input(name, dtype, dims)
  self.graph:set_dim_name(id, 0, "batch")
  self.inputs[#self.inputs + 1] = name
  return id
end

function Builder:shape(id) return self.graph:value(id).shape end

function Builder:dtype(id) return self.graph:value(id).dtype end

-- A layer's name within this graph; that of a layer inside another one begins with the outer's.
function Builder:name_of(owner, outer)
  local stem, n = owner.name or layer.stem(owner.kind), 0
  local name
  if self.names[owner] then return self.names[owner] end
  if owner.name and self.taken[owner.name] then error(format("two layers are named '%s'", owner.name), 0) end
  if outer then stem = outer .. "/" .. stem end
  name = stem
  while self.taken[name] do
    n = n + 1
    name = format("%s_%d", stem, n)
  end
  self.taken[name], self.names[owner] = true, name
  return name
end

--- Appends a node of the layer being built.
---@return integer id of its output
function Builder:node(op, inputs, attributes)
  local name = self.current .. "/" .. op:match("[^.]+$")
  local count = (self.nodes[name] or 0) + 1
  self.nodes[name] = count
  if count > 1 then name = format("%s_%d", name, count - 1) end
  return (assert(self.graph:node(op, inputs, attributes, 1, name)))
end

--- A parameter of the layer being built; a layer used twice gets the same one again.
---@param name string "kernel", "bias" …
---@param shape integer[]
---@param initializer string|table|function
---@param trainable boolean|nil default true
---@return integer id
function Builder:parameter(name, shape, initializer, trainable)
  local full = self.current .. "/" .. name
  local tensor
  if self.shared[full] then return self.shared[full] end
  self.streams = self.streams + 1
  tensor = initializers.get(initializer, full)(shape, self.seed, self.streams)
  self.shared[full] = self.graph:initializer(full, core.tensor(tensor, "float32"):reshape(shape), trainable ~= false)
  return self.shared[full]
end

--- A constant of the layer being built.
---@param name string
---@param value any a tensor, number or nested array
---@param dtype string|nil
---@return integer id
function Builder:constant(name, value, dtype)
  local full = self.current .. "/" .. name
  if not self.shared[full] then self.shared[full] = self.graph:initializer(full, core.tensor(value, dtype), false) end
  return self.shared[full]
end

--- The training data as they arrive at a value, or nil without data.
---@param id integer
---@return table|nil tensor
function Builder:values(id)
  local inputs, name = {}, self.graph:value(id).name
  local graph
  if not self.data then return nil end
  if self.data[name] then return self.data[name] end
  graph = self.graph:clone()
  graph:output(id)
  for i, input in ipairs(self.inputs) do inputs[i] = self.data[input] end
  return assert(core.program(graph):run(inputs))[1]
end

--- Builds one layer.
---@param owner table the layer
---@param inputs integer[] value ids
---@return integer id of its output
function Builder:apply(owner, inputs)
  local learned, outer = owner.learned, self.current
  local data, out
  self.current = self:name_of(owner, outer)
  if owner.learn and not learned then
    data = self:values(inputs[1])
    if not data then
      error(format("%s learns from data: fit the model, or call layer:adapt(data) before it is built", tostring(owner)), 0)
    end
    learned = owner:learn(data)
  end
  out = owner:build(self, inputs, learned)
  self.current = outer
  return out
end

return builder
