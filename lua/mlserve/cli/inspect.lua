--- `mlserve inspect`: what a model is made of.
-- @module mlserve.cli.inspect

local core = require "mlserve.core"

local arguments = require "mlserve.cli.arguments"
local model_path = require "mlserve.cli.model_path"
local output = require "mlserve.cli.output"
local random_input = require "mlserve.cli.random_input"

local insert = table.insert
local format = string.format

local inspect = { summary = "show a model's signature, layers, operators, parameters and metadata" }

inspect.description = [[Shows what a model takes and gives, its layers with their operators and parameters, how often
each operator occurs, and the metadata stored with it. With --profile it also runs the compiled program on made-up numbers and
shows where the time goes.]]

function inspect.parser(parser)
  parser:argument("model", "The model."):argname("MODEL")
  parser:flag("--profile", "Run it and show the time of each step.")
  parser:option("--batch", "Rows to profile with.", "1"):argname("N"):convert(arguments.integer(1))
  parser:option("--shape", "Shape of an input whose dimensions are not fixed. Repeatable."):argname("NAME=SIZES"):count("*")
    :convert(random_input.shape)
  parser:flag("--json", "Report as one JSON object on standard output.")
  parser:epilog [[Examples:
  mlserve inspect models/cancer
  mlserve inspect models/cancer --profile --batch 64]]
end

local function operators_of(graph)
  local counts, names = {}, {}
  for _, node in ipairs(graph:nodes()) do
    local name = node.domain == "" and node.op or node.domain .. "." .. node.op
    if not counts[name] then insert(names, name) end
    counts[name] = (counts[name] or 0) + 1
  end
  table.sort(names, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] > counts[b] end
    return a < b
  end)
  return counts, names
end

local function metadata_of(graph)
  local out, names = {}, {}
  for key, text in pairs(graph:properties()) do
    local ok, value = pcall(core.json_decode, text)
    insert(names, key)
    out[key] = ok and value ~= nil and value or text
  end
  table.sort(names)
  return out, names
end

local function profile_of(model, args)
  local inputs, message = random_input.make(model, args.batch, args.shape)
  local steps, bytes, total, profile
  if not inputs then return nil, message end
  steps, bytes = model:program():profile(inputs, 100)
  if not steps then return nil, bytes end
  total, profile = 0, { batch = args.batch, arena_bytes = bytes, steps = output.array {} }
  for _, step in ipairs(steps) do total = total + step.ns end
  for i, step in ipairs(steps) do
    profile.steps[i] = {
      op = step.op, name = step.name, shape = step.shape, us = step.ns / 1000, share = total > 0 and step.ns / total or 0,
      flops = step.flops,
    }
  end
  profile.total_us = total / 1000
  return profile
end

local function tensors(values)
  local list = output.array {}
  for i, value in ipairs(values) do
    list[i] = { name = value.name, dtype = value.dtype, shape = value.shape and output.array(value.shape) or nil }
  end
  return list
end

local function print_profile(profile)
  local lines = { { "step", "operator", "output", "µs", "%", "GFLOP/s" } }
  for _, step in ipairs(profile.steps) do
    insert(lines, {
      step.name, step.op, output.shape(step.shape), format("%.2f", step.us), format("%.0f", 100 * step.share),
      step.us > 0 and step.flops > 0 and format("%.1f", step.flops / step.us / 1000) or "",
    })
  end
  io.stdout:write(format("\nProfile, batch %d: %.2f µs a run, arena %s bytes\n", profile.batch, profile.total_us,
    output.count(profile.arena_bytes)), output.columns(lines, { [2] = true, [3] = true }), "\n")
end

local function print_text(model, profile)
  local graph = model:graph()
  local counts, names = operators_of(graph)
  local metadata, keys = metadata_of(graph)
  io.stdout:write(model.path, "\n\n", model:summary(), "\n\nOperators: ")
  for i, name in ipairs(names) do io.stdout:write(i > 1 and ", " or "", format("%d %s", counts[name], name)) end
  io.stdout:write("\n")
  if #keys > 0 then io.stdout:write("\nMetadata:\n") end
  for _, key in ipairs(keys) do
    local text = type(metadata[key]) == "string" and metadata[key] or output.json(metadata[key])
    io.stdout:write(format("  %-20s %s\n", key, #text > 200 and text:sub(1, 197) .. "…" or text))
  end
  if profile then print_profile(profile) end
end

function inspect.run(args)
  local profile, graph
  local model, message = model_path.load(args.model)
  if not model then return nil, message end
  if args.profile then
    profile, message = profile_of(model, args)
    if not profile then return nil, message end
  end
  if not args.json then
    print_text(model, profile)
    return 0
  end
  graph = model:graph()
  output.print_json {
    model = model.path, name = graph:name(), inputs = tensors(model:inputs()), outputs = tensors(model:outputs()),
    operators = (operators_of(graph)), parameters = { total = graph:parameters(), trainable = graph:parameters(true) },
    metadata = (metadata_of(graph)), profile = profile,
  }
  return 0
end

return inspect
