--- `mlserve predict`: predictions for a table, a JSON request or an .npy tensor.
-- @module mlserve.cli.predict

local core = require "mlserve.core"

local arguments = require "mlserve.cli.arguments"
local losses = require "mlserve.train.losses"
local model_path = require "mlserve.cli.model_path"
local output = require "mlserve.cli.output"
local table_input = require "mlserve.cli.table_input"

local concat, insert = table.concat, table.insert
local format = string.format

local predict = { summary = "predict the rows of a table, a JSON request or an .npy file" }

predict.description = [[Predicts. A table (CSV or JSON Lines) is read by the model's column names, in any order; further
columns are left out. A JSON file holds a request as the REST interface takes it, {"instances": […]} or {"inputs": …}, or a
bare array of rows, and is answered as that interface answers. An .npy file holds the input tensor.
Rows of a table are answered as CSV: the class or value, and a column for each class's probability; with --json as JSON.]]

function predict.parser(parser)
  parser:argument("model", "The model."):argname("MODEL")
  table_input.options(parser, false)
  parser:option("--format", "Form of the input: csv, jsonl, json or npy (default: told from the name, or of standard input from "
    .. "its text)."):argname("FORM"):convert(arguments.one_of { "csv", "jsonl", "json", "npy" })
  parser:option("--threshold", "Probability from which the second of two classes is predicted.", "0.5"):argname("P")
    :convert(arguments.number(0))
  parser:option("-o", "Write here; a path that ends in .npy gets the first output as a tensor."):argname("FILE"):target("output")
  parser:flag("--json", "Answer tables in JSON.")
  parser:epilog [=[Examples:
  mlserve predict models/cancer --data patients.csv > predictions.csv
  echo '{"instances": [[17.99, 10.38, …]]}' | mlserve predict models/cancer --data - --format json]=]
end

-- ---- what is read ----

local function read_all(path)
  local file, message, text
  if path == "-" then return io.read("*a") end
  file, message = io.open(path, "rb")
  if not file then return nil, format("cannot read %s", message) end
  text, message = file:read("*a")
  file:close()
  if not text then return nil, format("cannot read %s: %s", path, message) end
  return text
end

local extensions = { csv = "csv", tsv = "csv", txt = "csv", jsonl = "jsonl", ndjson = "jsonl", json = "json", npy = "npy" }

local function form_of(args, text)
  local extension = args.data:match("%.(%w+)$")
  if args.format then return args.format end
  if args.data ~= "-" then return extensions[extension and extension:lower() or ""] or "csv" end
  if text:find("^%s*%[") or (text:find("^%s*{") and (text:find('"instances"', 1, true) or text:find('"inputs"', 1, true))) then
    return "json"
  end
  if text:find("^\147NUMPY") then return "npy" end
  return text:find("^%s*{") and "jsonl" or "csv"
end

-- ---- what is written ----

local function number(value)
  return (format("%.9g", value):gsub("^%-?nan$", "nan"):gsub("^%-nan", "nan"))
end

local function cell(text)
  if text:find('[,"\r\n]') then return '"' .. text:gsub('"', '""') .. '"' end
  return text
end

-- One value as a number, more in place of it as an array.
local function flat(row)
  if type(row) == "table" and #row == 1 then return flat(row[1]) end
  return row
end

-- Each row as { prediction, scores }: the class and the probability of each class; or the value.
local function classified(model, rows, threshold)
  local out, classes = {}, model.classes
  for i, row in ipairs(rows) do
    local value, scores, best = flat(row), {}, 1
    if type(value) == "number" then
      scores[1], scores[2] = 1 - value, value
      best = value >= threshold and 2 or 1
    else
      for c, score in ipairs(value) do
        scores[c] = score
        if score > value[best] then best = c end
      end
    end
    out[i] = { prediction = classes and classes[best] or format("%d", best - 1), scores = scores }
  end
  return out
end

-- Whether the first output holds scores of classes.
local function gives_classes(model)
  local shape, loss = model:outputs()[1].shape, losses.infer(model:graph())
  if model.trained or model.classes then loss = model:loss() end
  return losses.task(loss) ~= "regression" and shape ~= nil and #shape == 2 and not model.settings.from_logits
    and (losses.task(loss) ~= "binary" or shape[2] == 1)
end

local function class_names(model, width)
  local names = {}
  for c = 1, width do names[c] = model.classes and model.classes[c] or format("%d", c - 1) end
  return names
end

local function as_table(model, tensor, args)
  local rows = tensor:totable()
  local lines, results, names
  if gives_classes(model) then
    results = classified(model, rows, args.threshold)
    names = class_names(model, #results[1].scores)
    if args.json then
      for i, result in ipairs(results) do
        local scores = {}
        for c, name in ipairs(names) do scores[name] = result.scores[c] end
        results[i] = { class = result.prediction, scores = scores }
      end
      return output.json { predictions = output.array(results) } .. "\n"
    end
    lines = { { "prediction" } }
    for _, name in ipairs(names) do insert(lines[1], cell(name)) end
    for _, result in ipairs(results) do
      local line = { cell(result.prediction) }
      for _, score in ipairs(result.scores) do insert(line, number(score)) end
      insert(lines, line)
    end
  else
    for i, row in ipairs(rows) do rows[i] = flat(row) end
    if args.json then return output.json { predictions = output.array(rows) } .. "\n" end
    lines = { { "prediction" } }
    for _, row in ipairs(rows) do
      local line = {}
      if type(row) ~= "table" then row = { row } end
      for _, value in ipairs(row) do
        if type(value) == "table" then return nil, "the output has more than two dimensions: say --json, or -o FILE.npy" end
        insert(line, type(value) == "number" and number(value) or cell(tostring(value)))
      end
      insert(lines, line)
    end
    for i = 2, #(lines[2] or {}) do lines[1][i] = format("prediction_%d", i) end
  end
  for i, line in ipairs(lines) do lines[i] = concat(line, ",") end
  return concat(lines, "\n") .. "\n"
end

-- ---- the three ways through ----

-- JSON is answered by the code that answers the REST interface.
local function answer_json(model, text)
  local answer, message
  if text:find("^%s*%[") then text = '{"instances":' .. text .. "}" end
  answer, message = model:servable():predict_json(text)
  if not answer then return nil, message end
  return (answer:gsub("\n*$", "\n"))
end

local function tensor_of(args, model, form, text)
  local set, x, message
  if form == "npy" then
    if args.data == "-" then return nil, "an .npy tensor is read from a file only" end
    x, message = core.npy_load(args.data)
    if not x then return nil, message end
    return model:predict(x)
  end
  set, message = table_input.read_for(args, model, text)
  if not set then return nil, message end
  return model:predict(set)
end

local function write(args, text)
  local file, ok, message
  if not args.output or args.output == "-" then
    io.stdout:write(text)
    return 0
  end
  file, message = io.open(args.output, "wb")
  if not file then return nil, format("cannot write %s", message) end
  ok, message = file:write(text)
  if ok then ok, message = file:close() end
  if not ok then return nil, format("cannot write %s: %s", args.output, message) end
  return 0
end

function predict.run(args)
  local model, message, text, form, tensor, answer, ok
  if not args.data and core.is_terminal(0) then return nil, "give --data FILE, or pipe the data in", 2 end
  args.data = args.data or "-"
  model, message = model_path.load(args.model)
  if not model then return nil, message end
  if args.data == "-" then text = read_all "-" end
  form = form_of(args, text)
  if form == "json" then
    if not text then text, message = read_all(args.data) end
    if not text then return nil, message end
    answer, message = answer_json(model, text)
    if not answer then return nil, format("%s: %s", args.data == "-" and "standard input" or args.data, message) end
    return write(args, answer)
  end
  tensor, message = tensor_of(args, model, form, text)
  if not tensor then return nil, message end
  if args.output and args.output:find("%.npy$") then
    ok, message = core.npy_save(args.output, tensor)
    if not ok then return nil, message end
    return 0
  end
  answer, message = as_table(model, tensor, args)
  if not answer then return nil, message end
  return write(args, answer)
end

return predict
