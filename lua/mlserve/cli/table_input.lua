--- Tables on the command line: the options that say how to read them, and reading one for training or for a given model.
-- @module mlserve.cli.table_input

local arguments = require "mlserve.cli.arguments"
local data = require "mlserve.data"
local losses = require "mlserve.train.losses"

local format = string.format

local table_input = {}

--- Adds the options about a table.
---@param parser table argparse parser
---@param labelled boolean whether the label must be named
function table_input.options(parser, labelled)
  local label
  local table_option = parser:option("--data", "The table: a CSV or JSON Lines (.jsonl) file; - is standard input.")
    :argname("FILE"):count(labelled and 1 or "0-1")
  if labelled then label = parser:option("--label", "The column to be predicted."):argname("COLUMN"):count(1) end
  local ignore = parser:option("--ignore", "Columns to leave out, separated by commas."):argname("COLUMNS")
    :convert(arguments.names)
  local delimiter = parser:option("--delimiter", "What separates the cells of a CSV file: one character, or tab.")
    :argname("CHAR"):convert(arguments.delimiter)
  local header = parser:flag("--no-header", "The CSV file has no line of names; columns are called column_1, column_2 …")
  if label then
    parser:group("Data", table_option, label, ignore, delimiter, header)
  else
    parser:group("Data", table_option, ignore, delimiter, header)
  end
end

-- The form of a file's content, from its name.
local function is_jsonl(path) return path:find("%.jsonl$") ~= nil or path:find("%.ndjson$") ~= nil end

local function copy_without(options, ...)
  local out = {}
  for key, value in pairs(options) do out[key] = value end
  for _, key in ipairs { ... } do out[key] = nil end
  return out
end

-- The data set of a file or of standard input; `text` when it has been read already.
local function read(path, options, text)
  local set, message
  if path == "-" then
    text = text or io.read("*a")
    if text:find("^%s*{") then return data.jsonl_text(text, copy_without(options, "delimiter", "header")) end
    set, message = data.csv_text(text, options)
  elseif is_jsonl(path) then
    set, message = data.jsonl(path, copy_without(options, "delimiter", "header"))
  else
    set, message = data.csv(path, options)
  end
  if set then return set end
  return nil, (tostring(message):gsub("^text:", "standard input:"))
end

local function reading_options(args)
  return { label = args.label, ignore = args.ignore, delimiter = args.delimiter, header = not args.no_header, task = args.task }
end

--- Reads the table to train on.
---@param args table parsed arguments
---@return userdata|nil set
---@return string|nil message
function table_input.read(args)
  return read(args.data, reading_options(args))
end

--- The names of the columns a model takes: numbers in order, then texts; nil when the model does not say.
---@param model table
---@return string[]|nil names
---@return table types name -> "number" or "text"
function table_input.columns(model)
  local names, types, numeric = {}, {}, nil
  for _, input in ipairs(model:inputs()) do
    if input.dtype ~= "string" then
      if numeric then return nil, {} end
      numeric = input
    end
  end
  if numeric then
    local features = model.features or {}
    if not numeric.shape or #numeric.shape ~= 2 or numeric.shape[2] ~= #features then
      for _, input in ipairs(model:inputs()) do
        if input.dtype == "string" then types[input.name] = "text" end
      end
      return nil, types
    end
    for i, name in ipairs(features) do names[i], types[name] = name, "number" end
  end
  for _, input in ipairs(model:inputs()) do
    if input.dtype == "string" then names[#names + 1], types[input.name] = input.name, "text" end
  end
  return names, types
end

--- Reads a table for a model: its columns by their names, labels in the order of its classes.
---@param args table parsed arguments
---@param model table
---@param text string|nil standard input, when it has been read already
---@return userdata|nil set
---@return string|nil message
function table_input.read_for(args, model, text)
  local options = reading_options(args)
  if not args.no_header then options.columns, options.types = table_input.columns(model) end
  if options.columns then options.ignore = nil end
  if args.label then
    options.classes, options.task = model.classes, losses.task(model:loss())
    if options.task ~= "regression" and not model.classes then options.task = nil end
  end
  return read(args.data, options, text)
end

-- A class with a single row cannot be in both parts.
local function can_stratify(set)
  local counts = {}
  if not set.class_ids then return false end
  for _, id in ipairs(set.class_ids:totable()) do counts[id] = (counts[id] or 0) + 1 end
  for _, count in pairs(counts) do
    if count < 2 then return false end
  end
  return true
end

--- Two parts of a set, classes in proportion where that is possible.
---@param set userdata
---@param share number 0: no second part
---@param seed integer
---@return userdata|nil train nil when the set is too small
---@return userdata|string|nil test or the message
function table_input.split(set, share, seed)
  if share == 0 then return set, nil end
  if math.ceil(share * #set) >= #set then
    return nil, format("--test-split %g of %d rows leaves nothing to train on", share, #set)
  end
  return set:split { test = share, stratify = can_stratify(set), seed = seed }
end

return table_input
