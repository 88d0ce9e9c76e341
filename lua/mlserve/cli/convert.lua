--- `mlserve convert`: writes a model in another form.
-- @module mlserve.cli.convert

local arguments = require "mlserve.cli.arguments"
local model_path = require "mlserve.cli.model_path"
local output = require "mlserve.cli.output"

local concat, insert, sort = table.concat, table.insert, table.sort
local format = string.format

local convert = { summary = "write a model simplified, cut out, in float16 or in another opset" }

convert.description = [[Reads a model and writes it as ONNX, by default with the same operators in opset 17. The options can be combined; they are
applied in this order: the part between tensors, the batch, folding or simplifying, float16, the opset. What is written computes what was read
(float16: up to its precision) in every ONNX runtime.]]

function convert.parser(parser)
  parser:argument("model", "The model to read."):argname("IN")
  parser:argument("output", "Where to write: a path ending in .onnx, or a model directory (its next version)."):argname("OUT")
  parser:flag("--fold", "Compute what is constant.")
  parser:flag("--simplify", "Fold; drop dead nodes and those that change nothing; compute shape arithmetic as far as shapes are known; take "
    .. "BatchNormalization into the product before it.")
  parser:option("--opset", "Version of the ONNX operators to write, from 11 on. Default: 17, or the lowest newer one the model needs.")
    :argname("N"):convert(arguments.integer(1, 1000))
  parser:flag("--fp16", "float16 instead of float32; operators that ONNX has in float32 only get Cast nodes around them.")
  parser:option("--keep-io-types", "With --fp16: whether inputs and outputs stay float32, yes or no.", "yes")
    :argname("yes|no"):convert(arguments.one_of { "yes", "no" })
  parser:option("--batch", "The first dimension of inputs where it is open."):argname("N"):convert(arguments.integer(1))
  parser:option("--inputs", "Names of tensors that become the inputs, separated by commas."):argname("NAMES"):convert(arguments.names)
  parser:option("--outputs", "Names of tensors that become the outputs, separated by commas."):argname("NAMES"):convert(arguments.names)
  parser:flag("--force", "Overwrite OUT.")
  parser:flag("--json", "One JSON object instead of text.")
  parser:epilog [[Examples:
  mlserve convert resnet18.onnx small.onnx --simplify --fp16
  mlserve convert model.onnx old.onnx --opset 13 --batch 1
  mlserve convert model.onnx features.onnx --outputs /avgpool/GlobalAveragePool_output_0]]
end

local function file_size(path)
  local file = io.open(path, "rb")
  local size = file and file:seek("end")
  if file then file:close() end
  return size
end

local function total(notes, field)
  local sum = 0
  for _, note in ipairs(notes) do sum = sum + note[field] end
  return sum
end

-- Weights that float16 does not hold, with the first few names.
local function range_lines(notes)
  local lines, names = {}, {}
  local saturated, tiny, largest = total(notes, "saturated"), total(notes, "tiny"), 0
  for _, note in ipairs(notes) do
    if #names < 3 then insert(names, note.name) end
    largest = math.max(largest, note.largest)
  end
  if #notes > #names then insert(names, format("%d more", #notes - #names)) end
  if saturated > 0 then
    insert(lines, format("%s weights lie beyond float16 (up to %g) and became +-65504", output.count(saturated), largest))
  end
  if tiny > 0 then insert(lines, format("%s weights are below float16 and became its smallest number, 6e-08", output.count(tiny))) end
  if #lines > 0 then insert(lines, "in " .. concat(names, ", ")) end
  return lines
end

-- Operators whose number changed, sorted by name.
local function operator_lines(report)
  local names, seen, lines = {}, {}, {}
  for _, side in ipairs { report.before, report.after } do
    for name in pairs(side.operators) do
      if not seen[name] then insert(names, name) end
      seen[name] = true
    end
  end
  sort(names)
  for _, name in ipairs(names) do
    local before, after = report.before.operators[name] or 0, report.after.operators[name] or 0
    if before ~= after then insert(lines, { "  " .. name, output.count(before), "->", output.count(after) }) end
  end
  return lines
end

local function summary(report)
  local lines = { { "nodes", output.count(report.before.nodes), "->", output.count(report.after.nodes) } }
  for _, line in ipairs(operator_lines(report)) do insert(lines, line) end
  insert(lines, { "bytes", output.count(report.before.bytes), "->", output.count(report.after.bytes) })
  return output.columns(lines)
end

function convert.run(args)
  local model, converted, report, path, message
  if args.keep_io_types == "no" and not args.fp16 then return nil, "option '--keep-io-types' needs --fp16", 2 end
  model, message = model_path.load(args.model)
  if not model then return nil, message end
  path, message = model_path.create(args.output, args.force)
  if not path then return nil, message end
  converted, report = model:convert {
    inputs = args.inputs, outputs = args.outputs, batch = args.batch, fold = args.fold, simplify = args.simplify, fp16 = args.fp16,
    keep_io_types = args.keep_io_types == "yes",
  }
  if not converted then return nil, report end
  report.before.bytes = file_size(model.path)
  path, message = converted:save(path, { opset = args.opset, metadata = converted:metadata()["mlserve.training"] ~= nil })
  if not path then return nil, message end
  report.after.bytes = file_size(path)
  if args.json then
    output.print_json {
      model = path, before = report.before, after = report.after, float16 = report.float16 and output.array(report.float16) or nil,
    }
    return 0
  end
  io.stdout:write(summary(report), "\n")
  for _, line in ipairs(range_lines(report.float16 or {})) do io.stderr:write("note: ", line, "\n") end
  io.stdout:write("saved ", path, "\n")
  return 0
end

return convert
