--- Parameters by name: which there are, and which of them training changes.
-- A name pattern is a Lua pattern found anywhere in a parameter's name, or in the name of a node that reads it (exporters that fold
-- weights invent new names for them, not for nodes): "features" matches "features.0.weight", "^/conv1/" what the node /conv1/Conv reads.
-- @module mlserve.train.parameters

local format, concat = string.format, table.concat

local parameters = {}

--- Patterns as an array.
---@param given string|string[]
---@param what string for messages
---@return string[]
function parameters.patterns(given, what)
  local list = type(given) == "string" and { given } or given
  if type(list) ~= "table" or #list == 0 then
    error(format("%s: a name pattern or an array of them expected, got %s", what, type(given)), 0)
  end
  for _, pattern in ipairs(list) do
    if type(pattern) ~= "string" then error(format("%s: a name pattern expected, got %s", what, type(pattern)), 0) end
    local ok, message = pcall(string.find, "", pattern)
    if not ok then error(format("%s: '%s' is no Lua pattern: %s", what, pattern, message), 0) end
  end
  return list
end

---@param parameter table one of parameters.list
---@param patterns string[]
---@return boolean
function parameters.matches(parameter, patterns)
  for _, pattern in ipairs(patterns) do
    if parameter.name:find(pattern) then return true end
    for _, node in ipairs(parameter.nodes) do
      if node:find(pattern) then return true end
    end
  end
  return false
end

local function readers_of(graph)
  local readers = {}
  for _, node in ipairs(graph:nodes()) do
    for _, input in ipairs(node.inputs) do
      readers[input] = readers[input] or {}
      table.insert(readers[input], node.name)
    end
  end
  return readers
end

--- What can be trained: { name, dtype, shape, trainable, nodes } in the graph's order; nodes: names of those that read it.
---@param graph userdata
---@param frozen table|nil names of those that are kept for now
---@return table[]
function parameters.list(graph, frozen)
  local list, readers = {}, readers_of(graph)
  for _, value in ipairs(graph:initializers()) do
    if value.trainable or frozen and frozen[value.name] then
      value.nodes = readers[value.name] or {}
      list[#list + 1] = value
    end
  end
  return list
end

local function some_names(list)
  local names = {}
  for i = 1, math.min(#list, 8) do names[i] = list[i].name end
  if #list > 8 then names[9] = format("… (%d in all)", #list) end
  return concat(names, ", ")
end

--- Freezes (or thaws) the parameters whose names match.
---@param graph userdata
---@param frozen table names of those that are frozen; changed
---@param given string|string[]
---@param trainable boolean
---@param what string for messages
function parameters.set(graph, frozen, given, trainable, what)
  local patterns, list, found = parameters.patterns(given, what), parameters.list(graph, frozen), false
  for _, value in ipairs(list) do
    if parameters.matches(value, patterns) then
      found = true
      graph:set_trainable(value.name, trainable)
      frozen[value.name] = not trainable or nil
    end
  end
  if not found then
    error(format("%s: no parameter's name matches '%s'; there are %s", what, concat(patterns, "', '"), some_names(list)), 0)
  end
end

return parameters
