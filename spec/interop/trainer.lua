-- Answers check_torch.py: a dense network with given weights and one trainer; its gradients after the first step and its weights after all.
local core = require "mlserve.core"

local function network(layers)
  local graph = core.graph "network"
  local x = graph:input("x", "float32", { -1, #layers[1].kernel })
  for i, layer in ipairs(layers) do
    local kernel = graph:initializer("kernel" .. i, core.tensor(layer.kernel, "float32"), true)
    local bias = graph:initializer("bias" .. i, core.tensor(layer.bias, "float32"), true)
    x = graph:node("Gemm", { x, kernel, bias })
    if layer.activation ~= "Identity" then x = graph:node(layer.activation, { x }) end
  end
  graph:output(x, "y")
  return graph
end

local function values_of(tensors, prefix)
  local out = {}
  for name, tensor in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then out[name:sub(#prefix + 1)] = tensor:totable() end
  end
  return out
end

dofile((arg[0]:gsub("trainer%.lua$", "question.lua")))(function(cases)
  local answers = {}
  for i, case in ipairs(cases) do
    local trainer = core.trainer(network(case.layers), case.options)
    local target = trainer:target()
    local run = { inputs = { core.tensor(case.x, "float32") }, target = core.tensor(case.y, target.dtype), batch_size = case.batch_size,
      shuffle = false }
    run.max_steps = 1
    local first = assert(trainer:epoch(run))
    local gradients = values_of(trainer:gradients(), "")
    run.max_steps, run.first_step = 0, 1
    local rest = assert(trainer:epoch(run))
    answers[i] = { loss = first.loss, gradients = gradients, weights = values_of(trainer:state(), "param/"), steps = first.steps + rest.steps }
    trainer:close()
  end
  return answers
end)
