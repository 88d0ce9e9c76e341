--- `mlserve verify`: runs ONNX's backend test cases and compares with the outputs they hold; records such cases.
-- @module mlserve.cli.verify

local core = require "mlserve.core"
local arguments = require "mlserve.cli.arguments"
local output = require "mlserve.cli.output"
local random_input = require "mlserve.cli.random_input"
local recording = require "mlserve.cli.recording"

local concat, insert, sort = table.concat, table.insert, table.sort
local format = string.format

local verify = { summary = "run and record ONNX backend test cases" }

verify.description = [[Runs cases in the layout of ONNX's backend tests: a directory with model.onnx and test_data_set_*/{input,output}_*.pb. A directory
of cases, or of suites of cases, stands for all of them. An output passes when type and shape agree and every number lies within
atol + rtol * |expected|, rtol being two units in the last place of 16-bit floats at least; outputs that hang on random numbers are
compared by their distribution. Prints one line for each case, with the first difference, then how many cases of each operator passed and
how far they were off at most.
With --record DIR --model MODEL it runs the model and records what it took and gave as such a case.]]

local levels = { "none", "exact", "fast" }
local BATCH = 32 -- cases for each job between two reports
local DEEPEST = 3 -- a directory of suites of cases

function verify.parser(parser)
  parser:argument("cases", "A case, or a directory of cases."):args("*"):argname("CASEDIR")
  parser:option("--rtol", "Relative tolerance (default: that of the case's data.json, else 1e-3)."):argname("NUMBER"):convert(arguments.number(0))
  parser:option("--atol", "Absolute tolerance (default: that of the case's data.json, else 1e-7)."):argname("NUMBER"):convert(arguments.number(0))
  parser:option("--level", "Optimisation: none, exact or fast (default: fast; for --record: none)."):argname("LEVEL")
    :convert(arguments.one_of(levels))
  parser:option("--jobs", "Cases at a time (default: one for each processor)."):argname("N"):convert(arguments.integer(1, 256))
  parser:flag("--json", "One JSON object instead of text.")
  parser:option("--record", "Record a case here; a further data set when the case is there and of the same model."):argname("DIR")
  parser:option("--model", "The model to record."):argname("MODEL")
  parser:option("--input", "Values of an input, as .npy or TensorProto (.pb); random ones otherwise. Repeatable."):argname("NAME=FILE"):count("*")
    :convert(recording.input)
  parser:option("--shape", "Shape of a random input whose dimensions are not fixed. Repeatable."):argname("NAME=SIZES"):count("*")
    :convert(random_input.shape)
  parser:option("--batch", "First dimension of random inputs that leave it open (default: 1)."):argname("N"):convert(arguments.integer(1))
  parser:option("--seed", "Seed of random inputs (default: 0); each data set has its own numbers."):argname("N"):convert(arguments.integer(0, 2 ^ 53))
  parser:flag("--force", "Let --record replace a case of another model, or all data sets of this one.")
  parser:epilog [[Examples:
  mlserve verify /usr/share/libonnx-testdata/data/node --json
  mlserve verify --record cases/cancer --model models/cancer --input x=patients.npy
  mlserve verify cases]]
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- The case at path, or the cases in the directory at path, sorted by name; a case without its model (ONNX's "real" suite names a place to
-- load it from) is left out and counted.
local function expand(path, name, depth, into)
  local names, message, found
  if exists(path .. "/model.onnx") then
    insert(into, { path = path, name = name or path:match("[^/]*$") })
    return true
  end
  if exists(path .. "/data.json") then
    into.absent = into.absent + 1
    return true
  end
  names, message = core.list_directory(path)
  if not names then return nil, message end
  sort(names)
  if depth < DEEPEST then
    for _, child in ipairs(names) do
      local case = path .. "/" .. child
      -- a directory, not a file: files cannot be listed
      if core.list_directory(case) and expand(case, (name and name .. "/" or "") .. child, depth + 1, into) then found = true end
    end
  end
  if found then return true end
  return nil, format("%s: neither model.onnx nor directories with one in them", path)
end

local function case_line(case)
  if not case.passed then return format("FAIL  %s: %s", case.case, case.error) end
  if case.random then return format("ok    %s (random: type, shape and distribution)", case.case) end
  return format("ok    %s (max abs %.3g, max rel %.3g, max ulp %.0f)", case.case, case.max_abs, case.max_rel, case.max_ulp)
end

local figures = { "max_abs", "max_rel", "max_ulp" }

-- Passed and all cases of every operator, and the largest errors; a case counts for each operator in its graph.
local function by_operator(cases)
  local rows, names = {}, {}
  for _, case in ipairs(cases) do
    local operators = case.operators[1] and case.operators or { "(not loaded)" }
    for _, name in ipairs(operators) do
      local row = rows[name]
      if not row then
        row = { operator = name, passed = 0, cases = 0, max_abs = 0, max_rel = 0, max_ulp = 0 }
        rows[name] = row
        insert(names, name)
      end
      row.cases = row.cases + 1
      if case.passed then row.passed = row.passed + 1 end
      for _, figure in ipairs(figures) do
        if case.passed and not case.random then row[figure] = math.max(row[figure], case[figure]) end
      end
    end
  end
  sort(names)
  for i, name in ipairs(names) do names[i] = rows[name] end
  return names
end

local function summary(rows)
  local lines = { { "operator", "passed", "cases", "max abs", "max rel", "max ulp" } }
  for _, row in ipairs(rows) do
    insert(lines, { row.operator, format("%d", row.passed), format("%d", row.cases), format("%.3g", row.max_abs), format("%.3g", row.max_rel),
      format("%.0f", row.max_ulp) })
  end
  return output.columns(lines)
end

-- Runs the cases, some at a time, so that their lines appear as they come.
local function run_all(list, args)
  local cases, before, size = {}, core.threads(), BATCH * (args.jobs or core.threads())
  if args.jobs then core.set_threads(args.jobs) end
  for first = 1, #list, size do
    local paths, results = {}
    for i = first, math.min(first + size - 1, #list) do insert(paths, list[i].path) end
    results = core.verify_cases(paths, { level = args.level, rtol = args.rtol, atol = args.atol })
    for i, case in ipairs(results) do
      case.case = list[first + i - 1].name
      case.operators = output.array(case.operators)
      insert(cases, case)
      if not args.json then io.stdout:write(case_line(case), "\n") end
    end
  end
  if args.jobs then core.set_threads(before) end
  return cases
end

local function count(cases, what)
  local n = 0
  for _, case in ipairs(cases) do
    if case[what] then n = n + 1 end
  end
  return n
end

local function check(args)
  local list = { absent = 0 }
  local cases, passed, refused, rows
  for _, path in ipairs(args.cases) do
    local ok, message = expand((path:gsub("(.)/+$", "%1")), nil, 1, list)
    if not ok then return nil, message end
  end
  cases = run_all(list, args)
  passed, refused, rows = count(cases, "passed"), count(cases, "refused"), by_operator(cases)
  if args.json then
    output.print_json {
      passed = passed, failed = #cases - passed, refused = refused, random = count(cases, "random"), absent = list.absent,
      cases = output.array(cases), operators = output.array(rows),
    }
  else
    io.stdout:write(concat({ "", summary(rows), "" }, "\n"), "\n")
    if list.absent > 0 then io.stdout:write(format("%d without a model (only data.json)\n", list.absent)) end
    io.stdout:write(format("%d passed, %d failed%s\n", passed, #cases - passed, refused > 0 and format(" (%d refused before they ran)", refused) or ""))
  end
  return passed == #cases and passed > 0 and 0 or 1
end

local recording_only = { "model", "input", "shape", "batch", "seed", "force" }

local function given(value) return value and (type(value) ~= "table" or value[1] ~= nil) end

function verify.run(args)
  local made, message
  if args.record then
    if args.cases[1] then return nil, "either cases to run or --record DIR", 2 end
    if not args.model then return nil, "--record needs --model MODEL", 2 end
    made, message = recording.record(args)
    if not made then return nil, message end
    if args.json then
      output.print_json(made)
    else
      io.stdout:write(format("recorded %s/test_data_set_%d: %d input%s, %d output%s\n", made.case, made.set, made.inputs, made.inputs == 1 and "" or "s",
        made.outputs, made.outputs == 1 and "" or "s"))
    end
    return 0
  end
  for _, name in ipairs(recording_only) do
    if given(args[name]) then return nil, format("--%s is for --record DIR only", name), 2 end
  end
  if not args.cases[1] then return nil, "a case or a directory of cases expected", 2 end
  return check(args)
end

return verify
