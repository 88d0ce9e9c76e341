--- `mlserve verify`: runs ONNX's backend test cases and compares with the outputs they hold.
-- @module mlserve.cli.verify

local core = require "mlserve.core"
local arguments = require "mlserve.cli.arguments"
local output = require "mlserve.cli.output"

local concat, insert, sort = table.concat, table.insert, table.sort
local format = string.format

local verify = { summary = "run ONNX backend test cases" }

verify.description = [[Runs cases in the layout of ONNX's backend tests: a directory with model.onnx and test_data_set_*/{input,output}_*.pb. A directory
of cases stands for all of them. An output passes when dtype and shape agree and every number lies within atol + rtol * |expected|. Prints
one line for each case, with the first difference, then how many cases of each operator passed.]]

local levels = { "none", "exact", "fast" }

function verify.parser(parser)
  parser:argument("cases", "A case, or a directory of cases."):args("+"):argname("CASEDIR")
  parser:option("--rtol", "Relative tolerance.", "1e-3"):argname("NUMBER"):convert(arguments.number(0))
  parser:option("--atol", "Absolute tolerance.", "1e-7"):argname("NUMBER"):convert(arguments.number(0))
  parser:option("--level", "Optimisation: none, exact or fast.", "fast"):argname("LEVEL"):convert(arguments.one_of(levels))
  parser:flag("--json", "One JSON object instead of text.")
  parser:epilog [[Example:
  mlserve verify /usr/share/libonnx-testdata/data/node --json]]
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- The case at path, or the cases in the directory at path, sorted by name.
local function expand(path, into)
  local trimmed = path:gsub("(.)/+$", "%1")
  local names, message, found
  if exists(trimmed .. "/model.onnx") then
    insert(into, trimmed)
    return true
  end
  names, message = core.list_directory(trimmed)
  if not names then return nil, message end
  sort(names)
  for _, name in ipairs(names) do
    local case = trimmed .. "/" .. name
    if exists(case .. "/model.onnx") then
      insert(into, case)
      found = true
    end
  end
  if found then return true end
  return nil, format("%s: neither model.onnx nor directories with one in them", trimmed)
end

local function case_line(case)
  if case.passed then return format("ok    %s (max abs %.3g, max ulp %.0f)", case.case, case.max_abs, case.max_ulp) end
  return format("FAIL  %s: %s", case.case, case.error)
end

-- Passed and all cases of every operator; a case counts for each operator in its graph.
local function by_operator(cases)
  local rows, names, lines = {}, {}, { { "operator", "passed", "cases", "max abs", "max ulp" } }
  for _, case in ipairs(cases) do
    local operators = case.operators[1] and case.operators or { "(not loaded)" }
    for _, name in ipairs(operators) do
      local row = rows[name]
      if not row then
        row = { passed = 0, cases = 0, max_abs = 0, max_ulp = 0 }
        rows[name] = row
        insert(names, name)
      end
      row.cases = row.cases + 1
      if case.passed then
        row.passed = row.passed + 1
        row.max_abs = math.max(row.max_abs, case.max_abs)
        row.max_ulp = math.max(row.max_ulp, case.max_ulp)
      end
    end
  end
  sort(names)
  for _, name in ipairs(names) do
    local row = rows[name]
    insert(lines, { name, format("%d", row.passed), format("%d", row.cases), format("%.3g", row.max_abs), format("%.0f", row.max_ulp) })
  end
  return output.columns(lines)
end

function verify.run(args)
  local paths, cases, passed = {}, {}, 0
  for _, path in ipairs(args.cases) do
    local ok, message = expand(path, paths)
    if not ok then return nil, message end
  end
  for i, path in ipairs(paths) do
    local case = core.verify_case(path, { level = args.level, rtol = args.rtol, atol = args.atol })
    case.case = path:match("[^/]*$")
    case.operators = output.array(case.operators)
    if case.passed then passed = passed + 1 end
    cases[i] = case
    if not args.json then io.stdout:write(case_line(case), "\n") end
  end
  if args.json then
    output.print_json { passed = passed, failed = #cases - passed, cases = output.array(cases) }
  else
    io.stdout:write(concat({ "", by_operator(cases), "", format("%d passed, %d failed", passed, #cases - passed) }, "\n"), "\n")
  end
  return passed == #cases and 0 or 1
end

return verify
