--- Models: a graph and what belongs to it (training settings, classes, signature, history).
-- Made by mlserve.nn or by mlserve.load. A network without data yet has no graph; the first fit, or compile { input_shape = … },
-- makes it.
-- @module mlserve.model

local core = require "mlserve.core"
local data = require "mlserve.data"
local eval = require "mlserve.eval"
local examples = require "mlserve.train.examples"
local head = require "mlserve.nn.head"
local losses = require "mlserve.train.losses"
local optimizers = require "mlserve.train.optimizers"
local options = require "mlserve.options"
local parameters = require "mlserve.train.parameters"
local storage = require "mlserve.storage"
local summary = require "mlserve.summary"

local format = string.format

local model = {}

---@class Model
local Model = {}
local class = { __index = Model, __name = "mlserve.model" }

local function new(fields)
  fields.settings = fields.settings or { optimizer = { name = "adam" } }
  return setmetatable(fields, class)
end

--- A model of a network that has no graph yet; used by mlserve.nn.
function model.from_network(network)
  return new { network = network, name = network.name }
end

--- A model of a graph.
---@param graph userdata
---@return Model
function model.from_graph(graph)
  return new { built = graph, name = graph:name() }
end

---@return boolean
function model.is_model(value) return getmetatable(value) == class end

-- ---- looking at it ----

--- The graph; raises while there is none.
---@return userdata
function Model:graph()
  if self.closed then error("the model has been closed", 2) end
  if not self.built then error("the model has no input shape yet: fit it, or compile it with input_shape", 2) end
  return self.built
end

--- The compiled program that predict runs.
---@return userdata
function Model:program()
  if not self.compiled_program then
    local limits = self.limits or {}
    self.compiled_program = assert(core.program(self:graph(), { max_memory = limits.memory, max_loop = limits.loop }))
  end
  return self.compiled_program
end

--- Forgets the program, after the graph's weights have changed.
function Model:changed() self.compiled_program = nil end

--- The inputs: array of { name, dtype, shape }; -1 is any number of rows.
---@return table[]
function Model:inputs() return self:graph():inputs() end

--- The outputs: array of { name, dtype, shape }.
---@return table[]
function Model:outputs() return self:graph():outputs() end

--- The model as a table of lines; before there is a graph, its layers.
---@return string
function Model:summary()
  local lines = {}
  if self.built then return summary(self.built, self.name) end
  for i, layer in ipairs(self.network:describe()) do lines[i] = tostring(layer) end
  return table.concat(lines, "\n")
end

--- What is stored with the model: { key = text }.
---@return table
function Model:metadata() return self:graph():properties() end

--- The history of the last fit or optimize, or nil.
---@return table|nil
function Model:history() return self.last_history end

local function names_of(values)
  local names = {}
  for i, value in ipairs(values) do names[i] = value.name end
  return table.concat(names, ", ")
end

function class.__tostring(self)
  local graph = self.built
  if not graph then return format("model '%s' (%s)", self.name, self.closed and "closed" or "no input shape yet") end
  return format("model '%s': %s -> %s, %d trainable parameters", self.name, names_of(graph:inputs()), names_of(graph:outputs()),
    graph:parameters(true))
end

-- ---- predicting ----

local function by_name(graph, tensors)
  local named = {}
  for i, output in ipairs(graph:outputs()) do named[output.name] = tensors[i] end
  return named
end

local function is_named(x) return type(x) == "table" and type((next(x))) == "string" end

local function run(self, x)
  local program, inputs = self:program(), { x }
  local ok, outputs, message
  if data.is_dataset(x) then inputs = examples.inputs(examples.of(x), self.built)
  elseif is_named(x) then inputs = examples.named_inputs(x, self.built) end
  ok, outputs, message = pcall(program.run, program, inputs)
  if not ok then error("predict: " .. outputs, 0) end
  return outputs, message
end

--- Predicts.
---@param x userdata|table a tensor or nested array (one input), a table of inputs by name, or a data set
---@return userdata|table|nil output the first output; all by name when the inputs were given by name
---@return string|nil message
function Model:predict(x)
  local outputs, message = options.call(run, self, x)
  if not outputs then return nil, message end
  return is_named(x) and by_name(self.built, outputs) or outputs[1]
end

--- Predicts into a tensor of the right shape; with the same shapes again nothing is allocated.
---@param out userdata
---@param x userdata
---@return userdata out
function Model:predict_into(out, x) return self:program():run_into(out, x) end

--- Evaluates on a data set, or on x and y.
--- The result holds each metric by name, and metrics (the same as a table), task, rows and for classes per_class, averages (macro,
--- micro, weighted) and confusion; tostring gives a table. Options: metrics (default: compile's, else all that fit the task),
--- batch_size, sample_weight.
---@param x any
---@param y any
---@param given table|nil options (second argument after a data set)
---@return table|nil report
---@return string|nil message
function Model:evaluate(x, y, given)
  local report, message = options.call(eval.evaluate, self, x, y, given)
  if not report then return nil, message end
  self.evaluation = { metrics = report.metrics, rows = report.rows, confusion = rawget(report, "confusion") }
  return report
end

-- ---- training ----

local strength = { type = "number", min = 0 }

local compile_rules = {
  optimizer = { type = { "string", "table" }, default = "adam" },
  loss = { type = "string", choices = losses.names },
  metrics = { type = "table" },
  from_logits = { type = "boolean", default = false },
  delta = { type = "number", above = 0 },
  l1 = strength, l2 = strength, weight_decay = strength, clip_norm = strength, clip_value = strength,
  input_shape = { type = "shape" },
  input_dtype = { type = "string", default = "float32" },
  seed = { type = "integer", min = 0, default = 0 },
}

--- Says how the model is trained.
--- Options: optimizer (a name, or { name = "sgd", learning_rate = 0.1, … }), loss (default: what the last activation asks for),
--- metrics, from_logits, delta (of huber), l1 and l2 (penalties on kernels), weight_decay, clip_norm, clip_value, input_shape (of one
--- row; makes the graph now), input_dtype, seed (of the initial weights).
---@param given table|nil
---@return Model self
function Model:compile(given)
  local o = options.check(given, compile_rules, "compile")
  local shape = { -1 }
  o.optimizer = options.call(optimizers.get, o.optimizer)
  options.call(eval.metrics, o.metrics, nil) -- unknown names are errors here, not after the first epoch
  o.loss = o.loss and losses.canonical(o.loss)
  self.settings = o
  if o.input_shape and not self.built then
    for i, dimension in ipairs(o.input_shape) do shape[i + 1] = dimension end
    options.call(self.build, self, { inputs = { { name = "features", dtype = o.input_dtype, shape = shape } }, seed = o.seed })
  end
  return self
end

--- Makes the graph; fit does this by itself.
---@param given table { inputs = array of { name, dtype, shape }, data = inputs by name to learn statistics from, seed }
---@return Model self
function Model:build(given)
  if not self.built then self.built = self.network:build { inputs = given.inputs, data = given.data, seed = given.seed or 0 } end
  return self
end

--- The loss: what compile said, or what the output's activation asks for.
---@return string
function Model:loss() return self.settings.loss or losses.infer(self:graph()) end

--- Trains on a data set, or on x and y.
--- Options: epochs (1), batch_size (32, or "full"), validation_split, validation_data (a data set or { x, y }), shuffle (true), seed,
--- sample_weight, class_weight ("balanced", or weights by class), callbacks, verbose (0 silent, 1 one line an epoch; default: 1),
--- checkpoint (path), resume (true: go on from the checkpoint if there is one), max_steps, max_seconds, target ({ metric, value }),
--- patience, min_delta, restore_best_weights (true with patience).
---@param x any
---@param y any
---@param given table|nil options (second argument after a data set)
---@return table|nil history { loss = {…}, val_loss = {…}, …, epochs, stop_reason, best_epoch }
---@return string|nil message
function Model:fit(x, y, given)
  local history, message = options.call(require("mlserve.train.fit").fit, self, x, y, given)
  if not history then return nil, message end
  return history
end

--- Trains a copy on with regularisation until validation no longer improves, and keeps its best weights. See mlserve.train.optimize.
---@param x any
---@param y any
---@param given table|nil options (second argument after a data set)
---@return Model|nil better
---@return table|string history, or the message
function Model:optimize(x, y, given)
  local better, history = options.call(require("mlserve.train.optimize"), self, x, y, given)
  return better, history
end

-- ---- fine-tuning ----

--- What can be trained: array of { name, dtype, shape, trainable, nodes (names of those that read it) }, all or those that match.
---@param patterns string|string[]|nil Lua patterns, found anywhere in the name of a parameter or of a node that reads it
---@return table[]
function Model:parameters(patterns)
  local list = {}
  if patterns ~= nil then patterns = options.call(parameters.patterns, patterns, "parameters") end
  for _, value in ipairs(parameters.list(self:graph(), self.frozen)) do
    if not patterns or parameters.matches(value, patterns) then list[#list + 1] = value end
  end
  return list
end

--- Keeps the parameters that match as they are, in every later fit and optimize, until unfreeze. Saved with the model.
---@param patterns string|string[] as for parameters: "features", "^layer[12]%."
---@return Model self
function Model:freeze(patterns)
  self.frozen = self.frozen or {}
  options.call(parameters.set, self:graph(), self.frozen, patterns, false, "freeze")
  return self
end

--- Lets the parameters that match be trained again.
---@param patterns string|string[]
---@return Model self
function Model:unfreeze(patterns)
  self.frozen = self.frozen or {}
  options.call(parameters.set, self:graph(), self.frozen, patterns, true, "unfreeze")
  return self
end

local head_rules = {
  at = { type = "string" },
  output_name = { type = "string", default = "scores" },
  seed = { type = "integer", min = 0, default = 0 },
}

local function replace_head(self, given)
  local layers, named = {}, {}
  local o, graph, new_model
  if type(given) ~= "table" then error(format("replace_head: an array of layers expected, got %s", type(given)), 0) end
  for key, value in pairs(given) do
    if type(key) == "number" then layers[key] = value else named[key] = value end
  end
  o = options.check(named, head_rules, "replace_head", 0)
  graph = head.replace(self:graph(), layers, o.at or head.place(self:graph()), o.output_name, o.seed)
  for _, key in ipairs { "classes", "evaluation", "signature", "training" } do graph:set_property("mlserve." .. key, nil) end
  new_model = model.from_graph(graph)
  new_model.name, new_model.features, new_model.frozen = self.name, self.features, {}
  for _, value in ipairs(graph:initializers()) do
    if self.frozen and self.frozen[value.name] then new_model.frozen[value.name] = true end
  end
  return new_model
end

--- A new model that computes what this one does up to its last layer, and new layers from there: for other classes than it was
--- trained for. This model stays as it is; weights that are trained later are copies. Frozen parameters stay frozen.
--- Options: at (name of the tensor the first new layer reads; default: what the last layer with a kernel reads), output_name
--- ("scores"), seed (0, of the new weights).
---@param given table layers in order, and options
---@return Model
function Model:replace_head(given) return (options.call(replace_head, self, given)) end

--- A copy that shares nothing that changes.
---@return Model
function Model:clone()
  local copy = {}
  for key, value in pairs(self) do copy[key] = value end
  copy.settings = options.merge(self.settings)
  copy.frozen = self.frozen and options.merge(self.frozen)
  copy.built = self.built and self.built:clone()
  copy.compiled_program = nil
  return new(copy)
end

-- ---- converting ----

local function signature_of(graph)
  local signature = { inputs = {}, outputs = {} }
  for _, value in ipairs(graph:inputs()) do signature.inputs[value.name] = { dtype = value.dtype, shape = value.shape } end
  for _, value in ipairs(graph:outputs()) do signature.outputs[value.name] = { dtype = value.dtype, shape = value.shape } end
  return signature
end

--- A copy for another place: a part of the model, smaller, simpler, with a fixed batch or in float16. What was learnt is the same.
--- Options, done in this order: inputs and outputs (arrays of value names: the part between them), batch (number for the unknown first
--- dimension of the
--- inputs), fold (constant folding), simplify (folding, dead code, nodes that change nothing, shape arithmetic, BatchNormalization into the product
--- before it), fp16 (float16 weights and arithmetic), keep_io_types (default true: with fp16, inputs and outputs stay float32). See save for opset.
---@param given table|nil
---@return Model|nil converted
---@return table|string report { before = { nodes, parameters, operators = { name = count } }, after = …, float16 = initialisers out of its range:
---array of { name, saturated, tiny, largest } }, or the message
function Model:convert(given)
  local copy = self:clone()
  local report, message = options.call(require("mlserve.convert"), copy.built or self:graph(), given)
  if not report then return nil, message end
  if report.cut then copy.classes, copy.features, copy.evaluation, copy.trained, copy.last_history = nil, nil, nil, nil, nil end
  if copy:metadata()["mlserve.signature"] then
    copy.built:set_property("mlserve.signature", core.json_encode(signature_of(copy.built)))
  end
  return copy, report
end

local function property(properties, name)
  local value = core.json_decode(properties["mlserve." .. name] or "")
  return type(value) == "table" and value or nil
end

-- ---- signature ----

local value_rules = { dtype = { type = "string" }, shape = { type = "shape" } }

local function check_value(name, given, value, what)
  local o = options.check(given, value_rules, format("%s '%s'", what, name), 5)
  local fits = not o.shape or not value.shape or #o.shape == #value.shape
  if o.dtype and o.dtype ~= value.dtype then
    error(format("%s '%s': the model has %s, the signature says %s", what, name, value.dtype, o.dtype), 4)
  end
  for i, dimension in ipairs(fits and o.shape or {}) do
    fits = fits and (dimension < 0 or not value.shape or value.shape[i] < 0 or value.shape[i] == dimension)
  end
  if not fits then
    error(format("%s '%s': the model's shape is (%s), the signature says (%s)", what, name, table.concat(value.shape, ", "),
      table.concat(o.shape, ", ")), 4)
  end
end

-- One value under another name is renamed; of several, the names must be the model's.
local function check_values(graph, given, values, what)
  local known, names = {}, {}
  for i, value in ipairs(values) do known[value.name], names[i] = value, value.name end
  for name, spec in pairs(given or {}) do
    local value = known[name]
    if not value and #values == 1 then
      value = values[1]
      graph:rename(value.name, name)
    end
    if not value then error(format("%s '%s' is not the model's (%s)", what, name, table.concat(names, ", ")), 4) end
    check_value(name, spec, value, what)
  end
end

--- Checks a signature against the graph and stores it; a single input or output takes the signature's name.
---@param given table { inputs = { name = { dtype, shape } }, outputs = … }
---@return Model self
function Model:set_signature(given)
  local graph = self:graph()
  local o = options.check(given, { inputs = { type = "table" }, outputs = { type = "table" } }, "set_signature")
  check_values(graph, o.inputs, graph:inputs(), "input")
  check_values(graph, o.outputs, graph:outputs(), "output")
  graph:set_property("mlserve.signature", core.json_encode(signature_of(graph)))
  self:changed()
  return self
end

--- What the model takes and gives: { inputs = { name = { dtype, shape } }, outputs = … }.
---@return table
function Model:signature() return signature_of(self:graph()) end

--- The model as the servers take it. Signatures other than that of all inputs and outputs under their own names come from the
--- metadata entry mlserve.signatures of its file: { NAME: { "inputs": { PUBLIC: GRAPH'S NAME }, "outputs": …, "method_name" } } as JSON.
---@param given table|nil options of core.servable; features, classes and signatures are the model's unless given
---@return userdata
function Model:servable(given)
  local o = {}
  for name, value in pairs(given or {}) do o[name] = value end
  if o.features == nil then o.features = self.features end
  if o.classes == nil then o.classes = self.classes end
  return core.servable(self:program(), o)
end

-- ---- files ----

local function trainable_names(graph)
  local names = {}
  for _, value in ipairs(graph:initializers()) do
    if value.trainable then names[#names + 1] = value.name end
  end
  return names
end

local function sorted_names(set)
  local names = {}
  for name in pairs(set or {}) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function last_values(history)
  local last = {}
  for name, values in pairs(history or {}) do
    local value = type(values) == "table" and values[#values]
    if type(value) == "number" and value - value == 0 then last[name] = value end -- not NaN, not infinite
  end
  return last
end

local function training_summary(self)
  local s, history = self.settings, self.last_history
  local names, summary_of = {}, self.trained or {}
  for _, metric in ipairs(s.metrics or {}) do
    if type(metric) == "string" then names[#names + 1] = metric end
  end
  if history then
    summary_of = {
      epochs = history.epochs, stop_reason = history.stop_reason, best_epoch = history.best_epoch, history = last_values(history),
    }
  end
  return {
    loss = self:loss(), from_logits = s.from_logits or nil, delta = s.delta, optimizer = s.optimizer, seed = s.seed,
    metrics = core.json_array(names), label = self.label, parameters = core.json_array(trainable_names(self.built)),
    frozen = self.frozen and next(self.frozen) and core.json_array(sorted_names(self.frozen)) or nil,
    epochs = summary_of.epochs, stop_reason = summary_of.stop_reason, best_epoch = summary_of.best_epoch, history = summary_of.history,
  }
end

-- JSON has no NaN: undefined metrics are left out.
local function finite(value)
  local out = {}
  if type(value) == "number" then return value == value and value > -math.huge and value < math.huge and value or nil end
  if type(value) ~= "table" then return value end
  for key, entry in pairs(value) do out[key] = finite(entry) end
  return out
end

local function write_properties(self)
  local graph = self.built
  local function set(key, value)
    if value then graph:set_property("mlserve." .. key, core.json_encode(value)) end
  end
  set("signature", signature_of(graph))
  set("classes", self.classes)
  set("features", self.features)
  set("training", training_summary(self))
  set("evaluation", finite(self.evaluation))
end

local save_rules = { opset = { type = "integer", min = 1 }, metadata = { type = "boolean", default = true } }

--- Saves the model: to a path ending in .onnx, or as the next version (BASE/N/model.onnx) below a model directory.
--- The file appears whole or not at all.
--- Options: opset (version of ai.onnx to write, from 11 on; default 17, or the lowest newer one that every operator can be said in; an operator
--- that it
--- cannot express is an error), metadata (false: what is stored with the model stays as it was loaded).
---@param path string
---@param given table|nil
---@return string|nil file where it was saved
---@return string|nil message
function Model:save(path, given)
  local o = options.check(given, save_rules, "save")
  local file, ok, message
  if type(path) ~= "string" or path == "" then error(format("save: a path expected, got %s", type(path)), 2) end
  self:graph()
  file = storage.target(path)
  ok, message = storage.make_parent(file)
  if not ok then return nil, message end
  if o.metadata then write_properties(self) end
  ok, message = options.call(core.onnx_save, self.built, file, o.opset)
  if not ok then return nil, message end
  return file
end

local function read_settings(self, training)
  local ok, optimizer = pcall(optimizers.get, training.optimizer or "adam")
  self.settings = {
    optimizer = ok and optimizer or { name = "adam" }, metrics = training.metrics, from_logits = training.from_logits,
    delta = training.delta, seed = type(training.seed) == "number" and training.seed or nil,
  }
  for _, name in ipairs(losses.names) do
    if name == training.loss then self.settings.loss = name end
  end
end

local LOAD_RULES = { limits = { type = "table", default = {} } }
local LIMIT_RULES = {
  bytes = { type = "integer", min = 1 },
  nodes = { type = "integer", min = 1 },
  depth = { type = "integer", min = 1, max = 1000 },
  memory = { type = "integer", min = 1 },
  loop = { type = "integer", min = 1 },
}

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

local function read_parameters(self, names, frozen)
  local trainable, kept = set_of(names), type(frozen) == "table" and set_of(frozen) or {}
  for _, value in ipairs(self.built:initializers()) do
    self.built:set_trainable(value.name, trainable[value.name] or false)
    if kept[value.name] and value.dtype:find("float") then
      self.frozen = self.frozen or {}
      self.frozen[value.name] = true
    end
  end
end

--- Loads a model: an .onnx file, a version directory, or a model directory (its newest version).
--- What a model asks for is bounded: `limits` changes the bounds, a model over one is refused (or its call is), naming what asked.
---
---   bytes   of the file with its external data (default 8 GiB)
---   nodes   of the graph, with those of subgraphs and functions (default 1,000,000)
---   depth   of subgraphs and functions in each other (default 64)
---   memory  bytes that all predictions of the model may take at one time, weights not counted (default: half of what the machine
---           or its container has)
---   loop    times that one Loop may go round (default 100,000,000)
---@param path string
---@param given? table { limits = { bytes, nodes, depth, memory, loop } }
---@return Model|nil
---@return string|nil message
function model.load(path, given)
  local file, message, graph, properties, training, self
  local limits = options.check(options.check(given, LOAD_RULES, "load", 3).limits, LIMIT_RULES, "load: limits", 3)
  if type(path) ~= "string" then error(format("load: a path expected, got %s", type(path)), 2) end
  file, message = storage.find(path)
  if not file then return nil, message end
  graph, message = core.onnx_load(file, limits)
  if not graph then return nil, message end
  self, properties = model.from_graph(graph), graph:properties()
  self.limits = limits
  training = property(properties, "training")
  self.path, self.trained = file, training
  self.classes, self.features = property(properties, "classes"), property(properties, "features")
  self.evaluation = property(properties, "evaluation")
  if training then
    self.label = training.label
    read_settings(self, training)
    if type(training.parameters) == "table" then read_parameters(self, training.parameters, training.frozen) end
  end
  return self
end

--- Frees the graph and the program now instead of when they are collected.
function Model:close()
  if self.compiled_program then self.compiled_program:close() end
  if self.built then self.built:close() end
  self.compiled_program, self.built, self.closed = nil, nil, true
end
class.__close = Model.close

return model
