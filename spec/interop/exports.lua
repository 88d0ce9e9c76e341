-- Answers check_exports.py: what each model gives for each run, at each optimisation level. A model that fails gives its message instead.
local core = require "mlserve.core"
local tensor = require "mlserve.tensor"

local function input_of(given)
  if given.npy then return assert(tensor.from_npy(given.npy)) end
  return core.tensor(given.values, "string"):reshape(given.shape)
end

local function tensor_of(value)
  return { shape = core.json_array(value:shape()), dtype = value:dtype(), values = core.json_array(value:reshape({ -1 }):totable()) }
end

-- A map as its keys and values: JSON's keys would all be texts.
local function map_of(value)
  local keys, values = {}, {}
  for key, number in pairs(value) do keys[#keys + 1], values[#values + 1] = key, number end
  return { keys = core.json_array(keys), values = core.json_array(values) }
end

-- A tensor, or a sequence of tensors or maps.
local function value_of(value)
  local items = {}
  if tensor.is(value) then return tensor_of(value) end
  for i, item in ipairs(value) do items[i] = tensor.is(item) and tensor_of(item) or map_of(item) end
  return { items = core.json_array(items) }
end

local function run(graph, program, given)
  local inputs, answer = {}, {}
  for i, input in ipairs(graph:inputs()) do inputs[i] = input_of(given[input.name] or error("no input " .. input.name)) end
  for i, output in ipairs(assert(program:run(inputs))) do answer[graph:outputs()[i].name] = value_of(output) end
  return answer
end

local function all_runs(case)
  local graph, answers = assert(core.onnx_load(case.path)), {}
  for _, level in ipairs(case.levels) do
    local program = assert(core.program(graph, { level = level }))
    answers[level] = {}
    for k, given in ipairs(case.runs) do answers[level][k] = run(graph, program, given) end
    program:close()
  end
  graph:close()
  return answers
end

dofile((arg[0]:gsub("exports%.lua$", "question.lua")))(function(cases)
  local answers = {}
  for i, case in ipairs(cases) do
    local ok, result = pcall(all_runs, case)
    answers[i] = ok and { runs = result } or { error = tostring(result) }
  end
  return answers
end)
