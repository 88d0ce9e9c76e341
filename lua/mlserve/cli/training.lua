--- What `train` and `optimize` share: options of fitting, and reporting how it went.
-- @module mlserve.cli.training

local core = require "mlserve.core"

local arguments = require "mlserve.cli.arguments"
local output = require "mlserve.cli.output"

local format = string.format

local training = {}

--- Adds the options of a fit.
---@param parser table
---@param defaults table epochs, patience, l2, dropout: texts; nil: none
---@param ... table options of the verb's own, in the same group
function training.options(parser, defaults, ...)
  parser:group("Training",
    parser:option("--epochs", "At most this many passes over the training rows.", defaults.epochs):argname("N")
      :convert(arguments.integer(1)),
    parser:option("--batch-size", "Rows per step.", "32"):argname("N"):convert(arguments.integer(1)),
    parser:option("--learning-rate", "Default: the optimiser's."):argname("RATE"):convert(arguments.positive),
    parser:option("--l1", "Penalty on the absolute values of weights."):argname("L"):convert(arguments.number(0)),
    parser:option("--l2", "Penalty on the squares of weights.", defaults.l2):argname("L"):convert(arguments.number(0)),
    parser:option("--dropout", "Share of hidden units left out in each training step.", defaults.dropout):argname("RATE")
      :convert(arguments.number(0, 1)),
    parser:option("--patience", "Stop after so many epochs without a better validation loss, and keep the best weights.",
      defaults.patience):argname("N"):convert(arguments.integer(1)),
    parser:option("--validation-split", "Share of the training rows that validate after each epoch.", "0.1"):argname("SHARE")
      :convert(arguments.number(0, 1)),
    parser:option("--test-split", "Share of all rows held back for the final evaluation.", "0.2"):argname("SHARE")
      :convert(arguments.number(0, 1)),
    parser:option("--seed", "Of splits, initial weights, shuffling and dropout.", "0"):argname("N")
      :convert(arguments.integer(0, 2 ^ 53)),
    parser:option("--threads", "Threads to use (default: the number of cores)."):argname("N"):convert(arguments.integer(1, 1024)),
    ...
  )
end

--- Adds -o, --force, --json and --quiet.
function training.output_options(parser)
  parser:group("Output",
    parser:option("-o", "Where to save: a model directory gets a new version; or a path that ends in .onnx.")
      :argname("MODELDIR"):target("output"),
    parser:flag("--force", "Overwrite an existing .onnx file or version directory."),
    parser:flag("--json", "Report as one JSON object on standard output."),
    parser:flag("-q --quiet", "Do not report epochs.")
  )
end

--- A share as an option: nil for none.
function training.share(value)
  return value and value > 0 and value or nil
end

--- Options that need each other; checked before anything is read.
---@return string|nil problem
function training.problem(args)
  if args.patience and not training.share(args.validation_split) then
    return "--patience watches the validation loss: leave --validation-split above 0"
  end
end

--- Sets the number of threads, when one is given.
function training.set_threads(args)
  if args.threads then core.set_threads(args.threads) end
end

--- Prints "name   text" unless the report is JSON.
function training.note(args, name, text)
  if not args.json then io.stdout:write(format("%-10s%s\n", name, text)) end
end

--- What a run that ended early has to say; a run that diverged is a failure.
---@return boolean|nil ok
---@return string|nil message
function training.check(args, history)
  if history.message and (args.quiet or args.json) then io.stderr:write(history.message, "\n") end
  if history.stop_reason == "nan" then return nil, "the training diverged; nothing was saved" end
  return true
end

-- {loss = {…}, val_loss = {…}} with arrays marked, numbers and texts kept.
local function plain_history(history)
  local out = {}
  for name, value in pairs(history or {}) do
    if type(value) == "table" then value = output.array(value) end
    if type(value) ~= "function" and type(value) ~= "userdata" then out[name] = value end
  end
  return out
end

--- The report as JSON.
---@param fields table
---@param history table
function training.print_json(fields, history)
  fields.history = plain_history(history)
  for _, name in ipairs { "epochs", "stop_reason", "best_epoch", "seconds", "message" } do
    fields[name], fields.history[name] = fields.history[name], nil
  end
  output.print_json(fields)
end

return training
