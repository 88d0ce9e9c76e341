--- The summary of a model: one line per layer, told from its graph, so that models made elsewhere have one too.
-- Nodes named LAYER/OPERATOR belong to that layer; a node without such a name is a line of its own.
-- @module mlserve.summary

local format = string.format

local function thousands(number)
  local text = format("%d", number)
  local count
  repeat text, count = text:gsub("^(-?%d+)(%d%d%d)", "%1,%2") until count == 0
  return text
end

local function shape_text(shape)
  local parts = {}
  if not shape then return "?" end
  for i, dimension in ipairs(shape) do parts[i] = dimension < 0 and "-1" or format("%d", dimension) end
  return "(" .. table.concat(parts, ", ") .. ")"
end

local function size(shape)
  local count = 1
  for _, dimension in ipairs(shape) do count = count * dimension end
  return count
end

local function floats(graph)
  local parameters = {}
  for _, value in ipairs(graph:initializers()) do
    if value.dtype:find("float") and #value.shape > 0 then parameters[value.name] = { count = size(value.shape), trainable = value.trainable } end
  end
  return parameters
end

local function layers_of(graph, parameters)
  local rows, counted = {}, {}
  for _, node in ipairs(graph:nodes()) do
    local name, row = node.name:match("^(.+)/[^/]*$") or node.name, rows[#rows]
    if not row or row.name ~= name then
      row = { name = name, operators = {}, parameters = 0 }
      rows[#rows + 1] = row
    end
    row.operators[#row.operators + 1] = node.op
    row.shape = graph:value(node.outputs[1]).shape
    for _, input in ipairs(node.inputs) do
      if parameters[input] and not counted[input] then
        counted[input] = true
        row.parameters = row.parameters + parameters[input].count
      end
    end
  end
  return rows
end

local function aligned(lines)
  local widths, total = {}, 0
  for _, line in ipairs(lines) do
    for i, cell in ipairs(line) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for n, line in ipairs(lines) do
    local cells = {}
    for i, cell in ipairs(line) do
      local padding = (" "):rep(widths[i] - #cell)
      cells[i] = i == #line and padding .. cell or cell .. padding
    end
    lines[n] = table.concat(cells, "  ")
    total = math.max(total, #lines[n])
  end
  table.insert(lines, 2, ("-"):rep(total))
  lines[#lines + 1] = ("-"):rep(total)
  return lines
end

local function signature_text(values)
  local parts = {}
  for i, value in ipairs(values) do parts[i] = format("%s %s %s", value.name, value.dtype, shape_text(value.shape)) end
  return table.concat(parts, ", ")
end

--- The summary as text.
---@param graph userdata
---@param name string
---@return string
return function(graph, name)
  local parameters, lines = floats(graph), { { "Layer", "Operators", "Output", "Parameters" } }
  local total, trainable = 0, 0
  for _, parameter in pairs(parameters) do
    total = total + parameter.count
    trainable = trainable + (parameter.trainable and parameter.count or 0)
  end
  for _, row in ipairs(layers_of(graph, parameters)) do
    lines[#lines + 1] = { row.name, table.concat(row.operators, ", "), shape_text(row.shape), thousands(row.parameters) }
  end
  lines = aligned(lines)
  table.insert(lines, 1, format("Model '%s'", name))
  lines[#lines + 1] = "Inputs:  " .. signature_text(graph:inputs())
  lines[#lines + 1] = "Outputs: " .. signature_text(graph:outputs())
  lines[#lines + 1] = format("Parameters: %s (%s trainable)", thousands(total), thousands(trainable))
  return table.concat(lines, "\n")
end
