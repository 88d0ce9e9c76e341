--- `mlserve VERB …`: finds the verb, reads its arguments, runs it, and turns what went wrong into a message and an exit code.
--
-- A verb is a module mlserve.cli.NAME, one row below and a table with
--   summary      one line for the list of verbs
--   description  what `mlserve NAME --help` begins with
--   parser       function (argparse parser): adds its arguments; the epilog holds an example
--   run          function (args) -> exit code, or nil, message[, exit code]
-- Exit codes: 0 success, 1 failure, 2 wrong usage. Errors go to stderr and name what to do.
-- @module mlserve.cli.main

local argparse = require "argparse"

local concat, insert = table.concat, table.insert
local format = string.format

local main = {}

-- In the order of a model's life, as `mlserve --help` shows them.
local verbs = { "train", "optimize", "evaluate", "predict", "inspect", "bench", "serve", "proto", "convert", "verify" }

local known = {}
for _, name in ipairs(verbs) do known[name] = true end

local function load_verb(name)
  return require("mlserve.cli." .. name)
end

local function help()
  local lines = {
    "Usage: mlserve VERB [arguments]", "",
    "Trains, optimises, evaluates, inspects and serves machine-learning models (ONNX files).", "", "Verbs:",
  }
  for _, name in ipairs(verbs) do insert(lines, format("  %-10s %s", name, load_verb(name).summary)) end
  for _, line in ipairs {
    "", "Options:",
    "  -h, --help     this text; `mlserve VERB --help` explains a verb",
    "  -V, --version  version, instruction set, BLAS, threads, Lua", "",
    "A MODEL is an .onnx file, a directory with model.onnx in it, or a directory of numbered versions (the newest is taken).", "",
    "Example:",
    "  mlserve train --data breast_cancer.csv --label diagnosis -o models/cancer",
    "  mlserve evaluate models/cancer --data breast_cancer.csv --label diagnosis",
    "  mlserve serve --model cancer=models/cancer", "",
    "Exit code: 0 success, 1 failure, 2 wrong usage.",
  } do
    insert(lines, line)
  end
  return concat(lines, "\n")
end

local function version()
  local info = require("mlserve.core").info()
  return format("mlserve %s (%s, BLAS %s, %d thread%s, %s)", info.version, info.isa, info.blas, info.threads,
    info.threads == 1 and "" or "s", info.lua)
end

local function complain(where, message)
  io.stderr:write(where, ": ", message, "\n")
end

-- Edit distance at most 2 and the same first letter: good enough to guess what was meant.
local function near(a, b)
  local previous, current = {}, {}
  if a:sub(1, 1) ~= b:sub(1, 1) then return false end
  for j = 0, #b do previous[j] = j end
  for i = 1, #a do
    current[0] = i
    for j = 1, #b do
      local cost = a:sub(i, i) == b:sub(j, j) and 0 or 1
      current[j] = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
    end
    previous, current = current, previous
  end
  return previous[#b] <= 2
end

local function unknown_verb(name)
  local text = name:sub(1, 1) == "-" and "unknown option '%s'" or "unknown verb '%s'"
  text = format(text, name)
  for _, verb in ipairs(verbs) do
    if near(name, verb) then
      text = format("%s; did you mean '%s'?", text, verb)
      break
    end
  end
  complain("mlserve", format("%s (verbs: %s; try mlserve --help)", text, concat(verbs, ", ")))
  return 2
end

-- The message without "file.lua:12:" in front: the place is ours, not the user's.
local function on_error(value)
  if type(value) ~= "string" then return tostring(value) end
  if os.getenv("MLSERVE_TRACEBACK") then return debug.traceback(value, 2) end
  return (value:gsub("^[^:\n]*%.lua:%d+: ", ""))
end

-- argparse leaves the name of the option out of what a converter has to say.
local function name_options(parser)
  for _, option in ipairs(parser._options or {}) do
    local convert, name = option._convert, option._aliases and option._aliases[1]
    if type(convert) == "function" and name then
      option:convert(function(text)
        local value, message = convert(text)
        if value == nil then return nil, format("option '%s': %s", name, message) end
        return value
      end)
    end
  end
end

local function run_verb(name, given)
  local verb = load_verb(name)
  local where = "mlserve " .. name
  local description = verb.description:gsub("\n", " ")
  local parser = argparse(where, description):usage_max_width(100):help_max_width(100)
    :help_description_margin(30)
  local ok, args, finished, code, message, exit_code
  parser:add_help "-h --help"
  verb.parser(parser)
  name_options(parser)
  ok, args = parser:pparse(given)
  if not ok then
    complain(where, (tostring(args):gsub("\n", " ")))
    io.stderr:write("Try: ", where, " --help\n")
    return 2
  end
  finished, code, message, exit_code = xpcall(verb.run, on_error, args)
  if not finished then
    complain(where, code)
    return 1
  end
  if code == nil then
    complain(where, tostring(message))
    if exit_code == 2 then io.stderr:write("Try: ", where, " --help\n") end
    return exit_code or 1
  end
  return code
end

--- Runs the command line.
---@param given string[] the arguments, without the program's name
---@return integer exit_code
function main.run(given)
  local name, rest = given[1], {}
  for i = 2, #given do rest[i - 1] = given[i] end
  if name == "-h" or name == "--help" or (name == "help" and not rest[1]) then
    print(help())
    return 0
  end
  if name == "-V" or name == "--version" then
    print(version())
    return 0
  end
  if not name then
    io.stderr:write(help(), "\n")
    return 2
  end
  if name == "help" then name, rest = rest[1], { "--help" } end
  if not known[name] then return unknown_verb(name) end
  return run_verb(name, rest)
end

return main
