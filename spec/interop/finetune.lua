-- Answers check_finetune.py: trains exported models on, and says what came of it.
local mlserve = require "mlserve"
local tensor = mlserve.tensor
local nn = mlserve.nn

local function load_all(files)
  local list = {}
  for name, path in pairs(files) do list[name] = assert(tensor.from_npy(path)) end
  return list
end

local function bytes_of(model, pattern)
  local list = {}
  for _, parameter in ipairs(model:parameters(pattern)) do list[#list + 1] = model:graph():get_initializer(parameter.name):tobytes() end
  return table.concat(list)
end

-- The outputs for the same inputs after some steps of gradient descent.
local function steps(case)
  local model, inputs, y = assert(mlserve.load(case.path)), load_all(case.inputs), assert(tensor.from_npy(case.target))
  if #case.freeze > 0 then model:freeze(case.freeze) end
  model:compile { optimizer = { name = "sgd", learning_rate = case.learning_rate }, loss = "mse" }
  assert(model:fit(inputs, y, { epochs = case.steps, batch_size = "full", shuffle = false, verbose = 0 }))
  return { values = model:predict(inputs)[model:outputs()[1].name]:reshape({ -1 }):totable() }
end

-- Another last layer; the pattern's parameters stay as they are.
local function other_classes(case)
  local data = load_all(case.data)
  local model = assert(mlserve.load(case.path)):replace_head { nn.Dense { case.classes, activation = "softmax" } }
  local function accuracy() return assert(model:evaluate(data.test_x, data.test_y, { metrics = { "accuracy" } })).accuracy end
  local answer = { before = accuracy() }
  if #case.freeze > 0 then model:freeze(case.freeze) end
  local kept = #case.freeze > 0 and bytes_of(model, case.freeze)
  model:compile { optimizer = { name = "adam", learning_rate = case.learning_rate }, loss = "sparse_categorical_crossentropy" }
  assert(model:fit(data.train_x, data.train_y, { epochs = case.epochs, batch_size = 32, seed = 1, verbose = 0 }))
  answer.after, answer.kept = accuracy(), not kept or (#kept > 0 and kept == bytes_of(model, case.freeze))
  answer.saved = assert(model:save(case.save))
  return answer
end

dofile((arg[0]:gsub("finetune%.lua$", "question.lua")))(function(cases)
  local answers = {}
  for i, case in ipairs(cases) do
    local ok, result = pcall(case.steps and steps or other_classes, case)
    answers[i] = ok and result or { error = tostring(result) }
  end
  return answers
end)
