--- Examples: what fit, evaluate and predict were given, in one form.
-- A data set, or tensors (or nested arrays) x and y, become
--   names, tensors   the inputs in order and by name
--   labels           a tensor, or nil
--   class_ids        (n) int64 when the labels are classes, else nil
--   classes (names), features (names of the numeric columns), label (name of the label column), weights, rows
-- @module mlserve.train.examples

local core = require "mlserve.core"
local data = require "mlserve.data"

local format = string.format

local examples = {}

--- A tensor a model can take: nested arrays are converted, float64 becomes float32.
---@param value any
---@return userdata
function examples.tensor(value)
  local tensor = core.tensor(value)
  return tensor:dtype() == "float64" and tensor:cast("float32") or tensor
end

local function has_names(x) return type(x) == "table" and type((next(x))) == "string" end

local function add(self, name, value)
  local tensor = examples.tensor(value)
  self.names[#self.names + 1], self.tensors[name] = name, tensor
  self.rows = self.rows or #tensor
  if #tensor ~= self.rows then
    error(format("input '%s' has %d rows, input '%s' has %d", name, #tensor, self.names[1], self.rows), 0)
  end
end

local function from_set(set)
  local inputs = set:inputs()
  local self = { names = {}, tensors = {}, labels = set.labels, class_ids = set.class_ids, classes = set.classes }
  self.features = set.feature_names and #set.feature_names > 0 and set.feature_names or nil
  self.label = set.label_name
  if not has_names(inputs) then
    add(self, "features", inputs)
    return self
  end
  if inputs.numeric then add(self, "numeric", inputs.numeric) end
  for _, name in ipairs(set.text_names or {}) do
    if not self.tensors[name] then add(self, name, inputs[name]) end
  end
  for name, value in pairs(inputs) do
    if not self.tensors[name] then add(self, name, value) end
  end
  return self
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function set_labels(self, y, task)
  local labels = core.tensor(y)
  local shape = labels:shape()
  if #labels ~= self.rows then error(format("there are %d rows of inputs and %d labels", self.rows, #labels), 0) end
  if labels:dtype() == "string" then
    local ids, classes = core.encode_classes(labels:reshape { -1 })
    if not ids then error(classes, 0) end
    self.labels, self.class_ids, self.classes = ids, ids, classes
    return
  end
  if labels:dtype() == "float64" then labels = labels:cast("float32") end
  self.labels = labels
  if task ~= "regression" and labels:count() == #labels then
    self.class_ids = (labels:dtype() == "bool" and labels:cast("uint8") or labels):cast("int64"):reshape { -1 }
  elseif task == "categorical" and #shape == 2 then
    self.class_ids = require("mlserve.train.losses").target(labels, { dtype = "int64", shape = { -1 } })
  end
end

--- Examples from a data set, or from x and y.
---@param x any data set, tensor, nested array, or table of inputs by name
---@param y any labels when x is no data set
---@param task string|nil what the loss says the labels are
---@return table
function examples.of(x, y, task)
  local self
  if data.is_dataset(x) then return from_set(x) end
  self = { names = {}, tensors = {} }
  if has_names(x) then
    for _, name in ipairs(sorted_keys(x)) do add(self, name, x[name]) end
  else
    if type(x) ~= "table" and type(x) ~= "userdata" then
      error(format("a data set, a tensor or an array of rows expected, got %s", type(x)), 0)
    end
    add(self, "features", x)
  end
  if y ~= nil then set_labels(self, y, task) end
  return self
end

--- The rows with these numbers.
---@param self table
---@param indices userdata|integer[]
---@return table
function examples.take(self, indices)
  local out = { names = self.names, tensors = {}, rows = #indices }
  for _, field in ipairs { "classes", "features", "label" } do out[field] = self[field] end
  for name, tensor in pairs(self.tensors) do out.tensors[name] = core.take_rows(tensor, indices) end
  for _, field in ipairs { "labels", "class_ids", "weights" } do
    if self[field] then out[field] = core.take_rows(self[field], indices) end
  end
  return out
end

local function can_stratify(self)
  local seen = {}
  if not self.class_ids then return false end
  for _, id in ipairs(self.class_ids:totable()) do
    if id < 0 then return false end
    seen[id] = (seen[id] or 0) + 1
  end
  for _, count in pairs(seen) do
    if count < 2 then return false end
  end
  return true
end

local function class_count(self)
  local most = 0
  for _, id in ipairs(self.class_ids:totable()) do most = math.max(most, id) end
  return most + 1
end

--- Training and validation examples; classes keep their proportions. The same seed gives the same parts.
---@param self table
---@param share number 0 < share < 1
---@param seed integer
---@return table train
---@return table validation
function examples.split(self, share, seed)
  local held_out = math.max(1, math.floor(share * self.rows + 0.5))
  local stratify = can_stratify(self) and class_count(self) <= held_out
  local first, second
  if held_out >= self.rows then
    error(format("validation_split = %g of %d rows leaves nothing to train on", share, self.rows), 0)
  end
  first, second = core.split_rows(self.rows, {
    test = held_out, seed = seed, shuffle = true,
    classes = stratify and self.class_ids or nil, class_count = stratify and class_count(self) or nil,
  })
  return examples.take(self, first), examples.take(self, second)
end

-- A tensor as an input of the graph wants it: where only the shape of a row differs, it is changed.
local function fitted(tensor, input)
  local shape, want, row, wanted = tensor:shape(), input.shape, 1, 1
  local dims = { #tensor }
  if not want or #want == #shape or #want < 1 then return tensor end
  for i = 2, #shape do row = row * shape[i] end
  for i = 2, #want do
    wanted, dims[i] = wanted * want[i], want[i]
    if want[i] < 0 then return tensor end
  end
  if row ~= wanted then return tensor end
  return tensor:reshape(dims)
end

--- The input tensors in the order of a graph's inputs. With one input on both sides its name does not matter.
---@param self table
---@param graph userdata
---@return userdata[]
function examples.inputs(self, graph)
  local list, wanted = {}, graph:inputs()
  for i, input in ipairs(wanted) do
    local tensor = self.tensors[input.name]
    if not tensor and #wanted == 1 and #self.names == 1 then tensor = self.tensors[self.names[1]] end
    if not tensor then
      error(format("the model's input '%s' is not among the data (%s)", input.name, table.concat(self.names, ", ")), 0)
    end
    list[i] = fitted(tensor, input)
  end
  return list
end

--- What a model's inputs are given by name, in the graph's order: tensors or nested arrays, and values of other types as they are. Unlike
--- examples to learn from, they need not have the same number of rows.
---@param x table value by input name; one value under any name for a model of one input
---@param graph userdata
---@return table[]
function examples.named_inputs(x, graph)
  local list, used, wanted, given = {}, 0, graph:inputs(), sorted_keys(x)
  for i, input in ipairs(wanted) do
    local value = x[input.name]
    if value == nil and #wanted == 1 and #given == 1 then value = x[given[1]] end
    if value == nil then error(format("the model's input '%s' is not among the inputs given (%s)", input.name, table.concat(given, ", ")), 0) end
    if not input.dtype:find("(", 1, true) then value = fitted(core.tensor(value), input) end
    list[i], used = value, used + 1
  end
  if used < #given then
    local known = {}
    for _, input in ipairs(wanted) do known[input.name] = true end
    for _, name in ipairs(given) do
      if not known[name] then error(format("the model has no input '%s'", name), 0) end
    end
  end
  return list
end

--- Inputs as a Sequential is built for: { name, dtype, shape } each.
---@param self table
---@return table[]
function examples.signature(self)
  local list = {}
  for i, name in ipairs(self.names) do
    local shape = self.tensors[name]:shape()
    shape[1] = -1
    list[i] = { name = name, dtype = self.tensors[name]:dtype(), shape = shape }
  end
  return list
end

local function class_weight_of(spec, self)
  local by_id, counts = {}, {}
  if not self.class_ids then error("class_weight needs labels that are classes", 0) end
  if spec == "balanced" then
    local present = 0
    for _, id in ipairs(self.class_ids:totable()) do
      if not counts[id] then present = present + 1 end
      counts[id] = (counts[id] or 0) + 1
    end
    for id, count in pairs(counts) do by_id[id] = self.rows / (present * count) end
    return by_id
  end
  for key, weight in pairs(spec) do
    local id = type(key) == "number" and key - 1 or nil
    for i, name in ipairs(self.classes or {}) do
      if name == key then id = i - 1 end
    end
    if not id or type(weight) ~= "number" then
      error(format("class_weight: '%s' is no class; known: %s", tostring(key), table.concat(self.classes or {}, ", ")), 0)
    end
    by_id[id] = weight
  end
  return by_id
end

--- Sets the weight of each row: sample_weight times the weight of its class.
---@param self table
---@param sample_weight any array or tensor of one number a row, or nil
---@param class_weight any "balanced", or weights by class name or in class order, or nil
function examples.weigh(self, sample_weight, class_weight)
  local weights, by_id
  if not sample_weight and not class_weight then return end
  weights = sample_weight and core.tensor(sample_weight, "float32"):copy() or core.full({ self.rows }, 1)
  if weights:count() ~= self.rows then
    error(format("sample_weight: one number for each of the %d rows expected, got %d", self.rows, weights:count()), 0)
  end
  weights = weights:reshape { self.rows }
  if class_weight then
    by_id = class_weight_of(class_weight, self)
    for i, id in ipairs(self.class_ids:totable()) do weights:set(i, weights:get(i) * (by_id[id] or 1)) end
  end
  self.weights = weights
end

return examples
