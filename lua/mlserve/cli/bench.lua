--- `mlserve bench`: how long a prediction takes.
-- @module mlserve.cli.bench

local core = require "mlserve.core"

local arguments = require "mlserve.cli.arguments"
local model_path = require "mlserve.cli.model_path"
local output = require "mlserve.cli.output"
local random_input = require "mlserve.cli.random_input"

local insert, sort = table.insert, table.sort
local ceil = math.ceil
local format = string.format

local bench = { summary = "measure the time of predictions" }

bench.description = [[Predicts made-up numbers again and again and shows the smallest, the median and the 99th percentile
of the time of a call, for each batch size. GFLOP/s is what the median call computes. Models of one input go through
model:predict_into, which allocates nothing.]]

function bench.parser(parser)
  parser:argument("model", "The model."):argname("MODEL")
  parser:option("--batch", "Batch sizes, separated by commas.", "1,8,64"):argname("SIZES"):convert(arguments.sizes)
  parser:option("--threads", "Threads to use (default: the number of cores)."):argname("N"):convert(arguments.integer(1, 1024))
  parser:option("--seconds", "Time to measure each batch size.", "1"):argname("S"):convert(arguments.positive)
  parser:option("--shape", "Shape of an input whose dimensions are not fixed. Repeatable."):argname("NAME=SIZES"):count("*")
    :convert(random_input.shape)
  parser:flag("--json", "Report as one JSON object on standard output.")
  parser:epilog [[Example:
  mlserve bench models/cancer --batch 1,64 --threads 1]]
end

local MOST_CALLS, WARM_UP = 200000, 20

-- Seconds of each call, sorted.
local function measure(call, seconds)
  local clock, times, n = core.clock, {}, 0
  local now, stop
  for _ = 1, WARM_UP do call() end
  now = clock()
  stop = now + seconds
  repeat
    local before = now
    call()
    now = clock()
    n = n + 1
    times[n] = now - before
  until now >= stop or n >= MOST_CALLS
  sort(times)
  return times
end

local function flops_of(program, inputs)
  local total = 0
  for _, step in ipairs((program:profile(inputs, 1))) do total = total + step.flops end
  return total
end

local function run_one(model, batch, args)
  local inputs, message = random_input.make(model, batch, args.shape)
  local program, out, call, times, outputs, median
  if not inputs then return nil, message end
  program = model:program()
  outputs, message = program:run(inputs)
  if not outputs then return nil, message end
  if #inputs == 1 and outputs[1]:dtype() ~= "string" and inputs[1]:dtype() ~= "string" then
    local x = inputs[1]
    out = outputs[1]:copy()
    call = function() model:predict_into(out, x) end
  else
    call = function() program:run(inputs) end
  end
  times = measure(call, args.seconds)
  median = times[ceil(#times / 2)]
  return {
    model = model.path, batch = batch, threads = core.threads(), calls = #times,
    min_us = times[1] * 1e6, median_us = median * 1e6, p99_us = times[ceil(#times * 0.99)] * 1e6,
    gflops = flops_of(program, inputs) / median * 1e-9,
  }
end

function bench.run(args)
  local results, lines = output.array {}, { { "batch", "calls", "min µs", "median µs", "p99 µs", "rows/s", "GFLOP/s" } }
  local model, message = model_path.load(args.model)
  if not model then return nil, message end
  if #args.batch == 0 then return nil, "option '--batch': at least one size expected", 2 end
  if args.threads then core.set_threads(args.threads) end
  for _, batch in ipairs(args.batch) do
    local result
    result, message = run_one(model, batch, args)
    if not result then return nil, message end
    insert(results, result)
    insert(lines, {
      format("%d", batch), output.count(result.calls), format("%.2f", result.min_us), format("%.2f", result.median_us),
      format("%.2f", result.p99_us), output.count(math.floor(batch / result.median_us * 1e6)), format("%.2f", result.gflops),
    })
  end
  if args.json then
    output.print_json { results = results, isa = core.info().isa, version = core._VERSION }
    return 0
  end
  io.stdout:write(format("%s, %s, %d thread%s\n", model.path, core.info().isa, core.threads(), core.threads() == 1 and "" or "s"),
    output.columns(lines), "\n")
  return 0
end

return bench
