--- Losses by name: which there are, which one fits a graph, and what kind of task they mean.
-- @module mlserve.train.losses

local core = require "mlserve.core"

local format = string.format

local losses = {}

local rows = {
  binary_crossentropy = { name = "binary_crossentropy", task = "binary", activation = "Sigmoid" },
  categorical_crossentropy = { name = "categorical_crossentropy", task = "categorical", activation = "Softmax" },
  sparse_categorical_crossentropy = { name = "sparse_categorical_crossentropy", task = "categorical", activation = "Softmax" },
  mse = { name = "mse", task = "regression" },
  mae = { name = "mae", task = "regression" },
  huber = { name = "huber", task = "regression" },
}
rows.mean_squared_error, rows.mean_absolute_error = rows.mse, rows.mae

--- The names, for option rules.
losses.names = {
  "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy", "mse", "mean_squared_error", "mae",
  "mean_absolute_error", "huber",
}

--- "binary", "categorical" or "regression".
---@param name string
---@return string
function losses.task(name) return rows[name].task end

--- The canonical name: "mean_squared_error" is "mse".
---@param name string
---@return string
function losses.canonical(name) return rows[name].name end

local function producer(graph, name)
  for _, node in ipairs(graph:nodes()) do
    for _, output in ipairs(node.outputs) do
      if output == name then return node end
    end
  end
end

--- The loss that the first output asks for: sigmoid, softmax or anything else.
---@param graph userdata
---@return string name
function losses.infer(graph)
  local output = graph:outputs()[1]
  local node = output and producer(graph, output.name)
  if node and node.op == "Sigmoid" then return "binary_crossentropy" end
  if node and node.op == "Softmax" then return "categorical_crossentropy" end
  return "mse"
end

--- Predictions as probabilities: logits go through the loss's activation.
---@param predictions userdata tensor
---@param name string the loss
---@param from_logits boolean
---@return userdata
function losses.probabilities(predictions, name, from_logits)
  local op, graph, dims = rows[name].activation
  if not from_logits or not op then return predictions end
  graph, dims = core.graph("probabilities"), predictions:shape()
  dims[1] = -1
  graph:output(graph:node(op, { graph:input("logits", "float32", dims) }, op == "Softmax" and { axis = -1 } or nil))
  return assert(core.program(graph):run { predictions })[1]
end

--- Labels as the trainer wants them: the dtype and shape of its target. One-hot rows become class ids.
---@param labels userdata tensor
---@param target table { dtype, shape }
---@return userdata
function losses.target(labels, target)
  local shape, want = labels:shape(), { #labels }
  local count, graph = 1
  if labels:dtype() == "string" then error("labels are text: give them as a data set, or as class ids", 0) end
  if target.dtype == "int64" and #shape == #target.shape + 1 and shape[#shape] > 1 then
    graph, shape[1] = core.graph("class ids"), -1
    graph:output(graph:node("ArgMax", { graph:input("one_hot", labels:dtype(), shape) }, { axis = -1, keepdims = 0 }))
    return assert(core.program(graph):run { labels })[1]
  end
  for i = 2, #target.shape do
    want[i] = target.shape[i] >= 0 and target.shape[i] or shape[i]
    count = count * (want[i] or 0)
  end
  if count * #labels ~= labels:count() then
    error(format("labels of shape (%s) do not fit the model: its output wants %s of shape (%s)", table.concat(labels:shape(), ", "),
      target.dtype, table.concat(want, ", ")), 0)
  end
  return core.tensor(labels, target.dtype):reshape(want)
end

return losses
