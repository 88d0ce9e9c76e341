--- `mlserve evaluate`: how good a model's predictions are on a table with labels.
-- @module mlserve.cli.evaluate

local model_path = require "mlserve.cli.model_path"
local output = require "mlserve.cli.output"
local table_input = require "mlserve.cli.table_input"

local evaluate = { summary = "measure a model on a table with labels" }

evaluate.description = [[Predicts every row of a table and compares with its label: loss and metrics, and for classes
precision, recall and F1 of each class and the confusion matrix.]]

function evaluate.parser(parser)
  parser:argument("model", "The model."):argname("MODEL")
  table_input.options(parser, true)
  parser:flag("--json", "Report as one JSON object on standard output.")
  parser:epilog [[Example:
  mlserve evaluate models/cancer --data breast_cancer.csv --label diagnosis]]
end

function evaluate.run(args)
  local set, report
  local model, message = model_path.load(args.model)
  if not model then return nil, message end
  set, message = table_input.read_for(args, model)
  if not set then return nil, message end
  report, message = model:evaluate(set)
  if not report then return nil, message end
  if not args.json then
    io.stdout:write("model ", model.path or args.model, ", ", tostring(#set), " rows\n\n", tostring(report), "\n")
    return 0
  end
  output.print_json {
    model = model.path, rows = #set, task = rawget(report, "task"), metrics = report.metrics, notes = rawget(report, "notes"),
    per_class = rawget(report, "per_class"), averages = rawget(report, "averages"), confusion = rawget(report, "confusion"),
  }
  return 0
end

return evaluate
