--- `mlserve optimize`: trains a model on with regularisation and keeps its best weights.
-- @module mlserve.cli.optimize

local arguments = require "mlserve.cli.arguments"
local model_path = require "mlserve.cli.model_path"
local output = require "mlserve.cli.output"
local table_input = require "mlserve.cli.table_input"
local training = require "mlserve.cli.training"

local format = string.format

local optimize = { summary = "train a model on with regularisation until it no longer improves" }

optimize.description = [[Trains a copy of a model on, with penalties on large weights, dropout and early stopping, keeps the
weights that were best on the validation rows, and compares it with the model it came from on the same test rows. Works on any
ONNX model with float32 parameters.]]

function optimize.parser(parser)
  parser:argument("model", "The model to start from."):argname("MODEL")
  table_input.options(parser, true)
  training.options(parser, { epochs = "100", patience = "10" },
    parser:option("--weight-decay", "Decoupled decay of the weights in each step (AdamW)."):argname("D")
      :convert(arguments.number(0)),
    parser:option("--clip-norm", "Largest length of the gradient."):argname("C"):convert(arguments.positive),
    parser:option("--freeze", "Parameters that stay as they are: Lua patterns separated by commas."):argname("PATTERNS")
      :convert(arguments.names),
    parser:option("--train-only", "The only parameters that change: Lua patterns separated by commas."):argname("PATTERNS")
      :convert(arguments.names)
  )
  training.output_options(parser)
  parser:epilog [[Example:
  mlserve optimize models/cancer --data breast_cancer.csv --label diagnosis \
    --l2 1e-4 --dropout 0.3 --patience 5 -o models/cancer]]
end

local function optimize_options(args)
  return {
    epochs = args.epochs, batch_size = args.batch_size, patience = args.patience, seed = args.seed,
    validation_split = args.validation_split, learning_rate = args.learning_rate, l1 = args.l1, l2 = args.l2,
    weight_decay = args.weight_decay, dropout = training.share(args.dropout), clip_norm = args.clip_norm,
    freeze = args.freeze, train_only = args.train_only, verbose = (args.quiet or args.json) and 0 or 1,
  }
end

-- "accuracy  0.9561 -> 0.9737" for each metric, sorted by name
local function comparison(before, after)
  local names, lines = {}, {}
  for name in pairs(after) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    lines[i] = { name, before[name] and format("%.4f", before[name]) or "", "->", format("%.4f", after[name]) }
  end
  return output.columns(lines)
end

local function run(args, model, path)
  local set, message = table_input.read_for(args, model)
  local ok, notes, rows, test, better, history, before, after
  if not set then return nil, message end
  ok, notes = set:check()
  if not ok then return nil, args.data .. ": " .. notes end
  rows, test = table_input.split(set, args.test_split, args.seed)
  if not rows then return nil, test end
  training.note(args, "data", tostring(set))
  training.note(args, "rows", format("%d to train on, %d held back to test", #rows, test and #test or 0))
  better, history = model:optimize(rows, optimize_options(args))
  if not better then return nil, history end
  ok, message = training.check(args, history)
  if not ok then return nil, message end
  if test then
    before, message = model:evaluate(test)
    if not before then return nil, message end
    after, message = better:evaluate(test)
    if not after then return nil, message end
  end
  path, message = better:save(path)
  if not path then return nil, message end
  if args.json then
    training.print_json({
      model = path, rows = { train = #rows, test = test and #test or 0 }, before = before and before.metrics,
      metrics = after and after.metrics,
    }, history)
    return 0
  end
  if test then
    io.stdout:write(format("\non the %d test rows, before and after\n", #test), comparison(before.metrics, after.metrics), "\n\n")
  end
  training.note(args, "saved", path)
  return 0
end

function optimize.run(args)
  local wrong = training.problem(args)
  local model, path, message
  if not args.output then wrong = "option '-o' is missing: where shall the model be saved?" end
  if wrong then return nil, wrong, 2 end
  training.set_threads(args)
  path, message = model_path.create(args.output, args.force)
  if not path then return nil, message end
  model, message = model_path.load(args.model)
  if not model then return nil, message end
  return run(args, model, path)
end

return optimize
