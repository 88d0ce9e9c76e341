--- `mlserve train`: a network for a table, or a script of one's own.
-- @module mlserve.cli.train

local core = require "mlserve.core"

local mlserve = require "mlserve"
local activations = require "mlserve.nn.activations"
local arguments = require "mlserve.cli.arguments"
local model_path = require "mlserve.cli.model_path"
local optimizers = require "mlserve.train.optimizers"
local output = require "mlserve.cli.output"
local table_input = require "mlserve.cli.table_input"
local training = require "mlserve.cli.training"

local nn = mlserve.nn

local concat, insert = table.concat, table.insert
local format = string.format

local train = { summary = "train a network on a table, or run a training script" }

train.description = [[Trains a network of dense layers on a CSV or JSON Lines table, evaluates it on rows held back, and saves
it. Numbers are normalised, missing ones filled in and text columns encoded inside the model, so that it takes the columns as they
are. With SCRIPT.lua it runs that script instead, with MODELDIR as its first argument; a model that the script returns is saved
there.]]

function train.parser(parser)
  parser:argument("script", "A training script, instead of --data."):argname("SCRIPT.lua"):args("?")
  table_input.options(parser, false)
  parser:group("Task and network",
    parser:option("--label", "The column to be predicted."):argname("COLUMN"),
    parser:option("--task", "binary, categorical, regression or auto: told from the label's values.", "auto")
      :argname("TASK"):convert(arguments.one_of { "auto", "binary", "categorical", "classification", "regression" }),
    parser:option("--layers", "Sizes of the hidden layers, or none.", "128,64"):argname("SIZES"):convert(arguments.sizes),
    parser:option("--activation", "Of the hidden layers.", "relu"):argname("NAME"):convert(arguments.one_of(activations.names()))
  )
  training.options(parser, { epochs = "50" },
    parser:option("--optimizer", concat(optimizers.names(), ", ") .. ".", "adam"):argname("NAME")
      :convert(arguments.one_of(optimizers.names())),
    parser:option("--momentum", "Of sgd."):argname("M"):convert(arguments.number(0, 1))
  )
  parser:group("Interrupted runs",
    parser:option("--checkpoint", "Write the state of the training here after each epoch."):argname("FILE"),
    parser:flag("--resume", "Go on from --checkpoint if it exists.")
  )
  training.output_options(parser)
  parser:epilog [[Example:
  mlserve train --data breast_cancer.csv --label diagnosis --layers 128,64 -o models/cancer]]
end

-- ---- a script ----

local function run_script(args)
  local chunk, message = loadfile(args.script)
  local outer = rawget(_G, "arg")
  local result, path
  if not chunk then return nil, "cannot run the script: " .. message end
  rawset(_G, "arg", { [0] = args.script, args.output })
  result = chunk()
  rawset(_G, "arg", outer)
  if not require("mlserve.model").is_model(result) then return 0 end
  if not args.output then return nil, "the script returned a model: say with -o where to save it", 2 end
  path, message = model_path.create(args.output, args.force)
  if not path then return nil, message end
  path, message = result:save(path)
  if not path then return nil, message end
  training.note(args, "saved", path)
  if args.json then output.print_json { model = path } end
  return 0
end

-- ---- a table ----

local losses = { binary = "binary_crossentropy", categorical = "sparse_categorical_crossentropy", regression = "mse" }
local measures = { binary = { "accuracy", "f1", "auc" }, categorical = { "accuracy", "f1" }, regression = { "mae", "r2" } }

local function lacks_values(set)
  for _, column in ipairs(set:describe().columns) do
    if column.missing > 0 then return true end
  end
  return false
end

local function network(set, train_set, args)
  local layers = {}
  local stats
  if #set.text_names > 0 or lacks_values(set) then
    insert(layers, nn.Features())
  else
    insert(layers, nn.Normalization())
  end
  for _, size in ipairs(args.layers) do
    insert(layers, nn.Dense { size, activation = args.activation })
    if training.share(args.dropout) then insert(layers, nn.Dropout { args.dropout }) end
  end
  if set.task == "binary" then
    insert(layers, nn.Dense { 1, activation = "sigmoid" })
  elseif set.task == "categorical" then
    insert(layers, nn.Dense { #set.classes, activation = "softmax" })
  else
    -- the network works in units of the target's deviation: learning rates then do not depend on what was measured
    stats = core.describe_column(train_set.labels, 1)
    insert(layers, nn.Dense { 1 })
    insert(layers, nn.Rescaling { stats.stddev and stats.stddev > 0 and stats.stddev or 1, stats.mean })
  end
  return nn.Sequential(layers)
end

local output_layer = { binary = "1 sigmoid", categorical = "%d softmax", regression = "1 linear" }

-- "30 features -> 128 relu -> 64 relu -> 1 sigmoid"
local function shape_of(set, args)
  local parts = { format("%d features", #set.feature_names + #set.text_names) }
  for _, size in ipairs(args.layers) do insert(parts, format("%d %s", size, args.activation)) end
  insert(parts, format(output_layer[set.task], set.classes and #set.classes or 1))
  return concat(parts, " -> ")
end

local function fit_options(args)
  return {
    epochs = args.epochs, batch_size = args.batch_size, validation_split = training.share(args.validation_split),
    patience = args.patience, seed = args.seed, checkpoint = args.checkpoint, resume = args.resume or false,
    verbose = (args.quiet or args.json) and 0 or 1,
  }
end

local function problem(args)
  if args.script and args.data then return "give either a script or --data" end
  if args.script then return nil end
  if not args.data then return "give --data FILE --label COLUMN, or a script" end
  if not args.label then return "option '--label' is missing: which column is to be predicted?" end
  if not args.output then return "option '-o' is missing: where shall the model be saved?" end
  if args.resume and not args.checkpoint then return "--resume needs --checkpoint FILE" end
  if args.momentum and args.optimizer ~= "sgd" then return format("--momentum belongs to sgd, not to %s", args.optimizer) end
  return training.problem(args)
end

local function run_table(args)
  local set, rows, test, path, message, notes, ok, model, history, report
  path, message = model_path.create(args.output, args.force)
  if not path then return nil, message end
  if args.task == "auto" then args.task = nil end
  set, message = table_input.read(args)
  if not set then return nil, message end
  ok, notes = set:check()
  if not ok then return nil, args.data .. ": " .. notes end
  rows, test = table_input.split(set, args.test_split, args.seed)
  if not rows then return nil, test end
  training.note(args, "data", tostring(set))
  for _, note in ipairs(notes) do training.note(args, "note", note) end
  training.note(args, "rows", format("%d to train on, %d held back to test", #rows, test and #test or 0))
  training.note(args, "network", shape_of(set, args))
  model = network(set, rows, args)
  model:compile {
    optimizer = { name = args.optimizer, learning_rate = args.learning_rate, momentum = args.momentum },
    loss = losses[set.task], metrics = measures[set.task], l1 = args.l1, l2 = args.l2, seed = args.seed,
  }
  history, message = model:fit(rows, fit_options(args))
  if not history then return nil, message end
  ok, message = training.check(args, history)
  if not ok then return nil, message end
  model.features = set.feature_names
  if test then
    report, message = model:evaluate(test)
    if not report then return nil, message end
  end
  path, message = model:save(path)
  if not path then return nil, message end
  if args.json then
    training.print_json({
      model = path, task = set.task, classes = set.classes and output.array(set.classes) or nil,
      rows = { train = #rows, test = test and #test or 0 }, metrics = report and report.metrics or nil,
      parameters = model:graph():parameters(true),
    }, history)
    return 0
  end
  if report then io.stdout:write("\non the ", format("%d", #test), " test rows\n", tostring(report), "\n\n") end
  training.note(args, "saved", path)
  return 0
end

function train.run(args)
  local wrong = problem(args)
  if wrong then return nil, wrong, 2 end
  training.set_threads(args)
  if args.script then return run_script(args) end
  return run_table(args)
end

return train
