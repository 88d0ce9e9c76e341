--- Data: tables from CSV, JSONL or Lua, as datasets of features and labels that fit, evaluate and predict take.
--
--     local data = require "mlserve.data"
--     local set = assert(data.csv("breast_cancer.csv", { label = "diagnosis" }))
--     print(set)                                   --> 569 rows x 30 features, 2 classes (benign 357, malignant 212)
--     local train, test = set:split { test = 0.2, stratify = true, seed = 7 }
--
-- A dataset never changes; everything that chooses rows makes a new one. Bad data is `nil, message` (with file, line and column),
-- misuse raises.
-- @module mlserve.data

local core = require "mlserve.core"

local assert, error, getmetatable, ipairs, pairs = assert, error, getmetatable, ipairs, pairs
local next, pcall, select, setmetatable, tostring, type = next, pcall, select, setmetatable, tostring, type
local concat, insert, sort = table.concat, table.insert, table.sort
local ceil, floor, huge, max, min = math.ceil, math.floor, math.huge, math.max, math.min
local format = string.format

local data = {}

-- ---- options ----

-- Raises for a key that is not in `known`, with the position `level` calls up (3: the caller of the calling function).
local function check_options(options, known, what, level)
  local names
  level = level or 3
  if options == nil then return {} end
  if type(options) ~= "table" then
    error(format("%s: a table of options expected, got %s", what, type(options)), level)
  end
  for key, value in pairs(options) do
    local expected = known[key]
    if not expected then
      names = {}
      for name in pairs(known) do insert(names, name) end
      sort(names)
      error(format("%s: unknown option '%s'; the options are %s", what, tostring(key), concat(names, ", ")), level)
    end
    if not expected:find(type(value), 1, true) then
      error(format("%s: option '%s' must be a %s, got %s", what, key, expected:gsub("|", " or "), type(value)), level)
    end
  end
  return options
end

local reading = {
  label = "string|number",
  columns = "table",
  ignore = "table",
  delimiter = "string",
  header = "boolean",
  trim = "boolean",
  missing = "table",
  types = "table",
  classes = "table",
  task = "string",
}
local building = { label = "string|number", columns = "table", classes = "table", task = "string", types = "table" }

local tasks = { binary = true, categorical = true, regression = true, classification = true }

local function check_task(task, what, level)
  if task ~= nil and not tasks[task] then
    error(format('%s: task must be "binary", "categorical", "classification" or "regression", got "%s"', what,
      tostring(task)), level or 3)
  end
end

local function is_tensor(value)
  local mt = type(value) == "userdata" and getmetatable(value)
  return mt and mt.__name == "mlserve.tensor" or false
end

local function to_tensor(value, dtype)
  if is_tensor(value) then return value end
  return core.tensor(value, dtype)
end

-- Class names as strings: 3 and 3.0 are both "3".
local function class_name(value)
  if type(value) == "number" then return format(value == floor(value) and "%d" or "%.15g", value) end
  return tostring(value)
end

local function class_names(classes)
  local names
  if classes == nil then return nil end
  names = {}
  for i, value in ipairs(classes) do names[i] = class_name(value) end
  return names
end

-- ---- the dataset object ----

local states = setmetatable({}, { __mode = "k" }) -- object -> its fields
local Dataset = {}
local dataset_class = { __name = "mlserve.dataset" }

local function new_dataset(state)
  local object = core.new_object(dataset_class)
  states[object] = state
  return object
end

--- Whether a value is a dataset.
---@param value any
---@return boolean
function data.is_dataset(value)
  return states[value] ~= nil
end

local function state_of(self, method)
  local state = states[self]
  if not state then
    error(format("dataset:%s: a dataset expected (called with . instead of :?), got %s", method, type(self)), 3)
  end
  return state
end

function dataset_class.__index(self, key)
  local method = Dataset[key]
  if method ~= nil then return method end
  return states[self][key]
end

function dataset_class.__newindex(_, key)
  error(format("a dataset does not change: cannot set '%s'", tostring(key)), 2)
end

function dataset_class.__len(self)
  return states[self].size
end

-- The same dataset with `choose` applied to every tensor that has a row per row.
local function with_rows(state, size, choose)
  local out = {}
  for key, value in pairs(state) do out[key] = value end
  out.size, out.class_counts_cache = size, nil
  for _, key in ipairs { "features", "labels", "class_ids" } do
    if state[key] then out[key] = choose(state[key]) end
  end
  for _, key in ipairs { "text", "named" } do
    if state[key] then
      out[key] = {}
      for name, tensor in pairs(state[key]) do out[key][name] = choose(tensor) end
    end
  end
  return new_dataset(out)
end

local function class_counts(state)
  local names
  if not state.class_ids then return nil end
  if not state.class_counts_cache then
    names = {}
    for i = 1, #state.classes do names[i] = class_name(i - 1) end
    state.class_counts_cache = select(3, assert(core.encode_classes(state.class_ids, names)))
  end
  return state.class_counts_cache
end

local function feature_count(state)
  local count = 0
  if state.named then
    for _ in pairs(state.named) do count = count + 1 end
    return count
  end
  return #state.feature_names + #state.text_names
end

function dataset_class.__tostring(self)
  local state = states[self]
  local parts, counts, named = {}, class_counts(state), {}
  local unit = state.named and "input" or "feature"
  local features = feature_count(state)
  local plural = features == 1 and "" or "s"
  insert(parts, format("%d row%s x %d %s%s", state.size, state.size == 1 and "" or "s", features, unit, plural))
  if counts then
    for i, name in ipairs(state.classes) do
      if i > 10 then
        insert(named, "…")
        break
      end
      insert(named, format("%s %d", name, counts[i]))
    end
    insert(parts, format("%d class%s (%s)", #state.classes, #state.classes == 1 and "" or "es", concat(named, ", ")))
  elseif state.labels then
    insert(parts, state.label_name and format("regression target '%s'", state.label_name) or "regression targets")
  else
    insert(parts, "no labels")
  end
  return concat(parts, ", ")
end

--- What a model takes: the one tensor when all features are numbers, else a table { name = tensor } with the numbers together
--- under "numeric" (float32, NaN where missing) and each text column (string (N, 1), "" where missing) by its name.
---@return userdata|table
function Dataset:inputs()
  local state = state_of(self, "inputs")
  local inputs
  if state.named then
    inputs = {}
    for name, tensor in pairs(state.named) do inputs[name] = tensor end
    return inputs
  end
  if #state.text_names == 0 then return state.features end
  inputs = { numeric = state.features }
  for name, tensor in pairs(state.text) do inputs[name] = tensor end
  return inputs
end

--- Rows first … last as a dataset (sharing memory where the dtype allows).
---@param first integer from 1
---@param last integer|nil default: the last row
function Dataset:rows(first, last)
  local state = state_of(self, "rows")
  last = last or state.size
  if type(first) ~= "number" or type(last) ~= "number" or first < 1 or last > state.size or first > last
    or first ~= floor(first) or last ~= floor(last)
  then
    error(format("dataset:rows: a range within 1 to %d expected, got %s to %s", state.size, tostring(first), tostring(last)), 2)
  end
  return with_rows(state, last - first + 1, function(tensor) return tensor:rows(first, last) end)
end

--- The rows with these numbers (from 1), in this order; repeats are allowed.
---@param indices integer[]|userdata an array or an integer tensor
function Dataset:take(indices)
  local state = state_of(self, "take")
  if type(indices) ~= "table" and not is_tensor(indices) then
    error(format("dataset:take: an array of row numbers expected, got %s", type(indices)), 2)
  end
  if #indices == 0 then error("dataset:take: no row numbers", 2) end
  local ok, result = pcall(with_rows, state, #indices, function(tensor)
    return assert(core.take_rows(tensor, indices)) -- without memory it returns nil, message
  end)
  if not ok then error("dataset:take: " .. tostring(result):gsub("^[^\n]-:%d+: ", "", 1), 2) end
  return result
end

--- All rows in random order; the same seed gives the same order.
---@param seed integer|nil default 0
function Dataset:shuffle(seed)
  local state = state_of(self, "shuffle")
  return Dataset.take(self, (core.split_rows(state.size, { test = 0, seed = seed or 0 })))
end

local splitting = { test = "number", stratify = "boolean", seed = "number", shuffle = "boolean" }

--- Two datasets, for training and for testing. `test` is a share of the rows (0 < test < 1) or a number of rows; stratified parts
--- hold the classes in the same proportions, rounded as scikit-learn does.
---@param options table|nil { test = 0.2, stratify = false, seed = 0, shuffle = true }
---@return userdata train
---@return userdata test
function Dataset:split(options)
  local state = state_of(self, "split")
  local test, classes, train_rows, test_rows
  options = check_options(options, splitting, "dataset:split")
  test = options.test or 0.2
  if test > 0 and test < 1 then
    test = ceil(test * state.size - 1e-9)
  elseif test <= 0 or test ~= floor(test) then
    error(format("dataset:split: test must be a share between 0 and 1 or a number of rows, got %s", tostring(test)), 2)
  end
  if test >= state.size then
    error(format("dataset:split: a test part of %d rows leaves nothing of %d", test, state.size), 2)
  end
  if options.stratify then
    if not state.class_ids then error("dataset:split: stratify needs class labels", 2) end
    if options.shuffle == false then error("dataset:split: a stratified split is always shuffled", 2) end
    for i, count in ipairs(class_counts(state)) do
      if count == 1 then
        error(format("dataset:split: class '%s' has a single row, which cannot be in both parts; leave out stratify",
          state.classes[i]), 2)
      end
    end
    classes = state.class_ids
  end
  train_rows, test_rows = core.split_rows(state.size, {
    test = test,
    seed = options.seed or 0,
    shuffle = options.shuffle ~= false,
    classes = classes,
    class_count = classes and #state.classes or 0,
  })
  return Dataset.take(self, train_rows), Dataset.take(self, test_rows)
end

--- A column by name: float32 (N) for a numeric feature, string (N, 1) for a text column, the labels under the label's name.
---@param name string
---@return userdata
function Dataset:column(name)
  local state = state_of(self, "column")
  local known
  if name == state.label_name and state.labels then return state.labels end
  if state.named and state.named[name] then return state.named[name] end
  if state.text[name] then return state.text[name] end
  for i, feature in ipairs(state.feature_names) do
    if feature == name then return core.select_column(state.features, i) end
  end
  known = {}
  for _, feature in ipairs(state.feature_names) do insert(known, feature) end
  for _, feature in ipairs(state.text_names) do insert(known, feature) end
  error(format("dataset:column: no column named '%s'; the columns are %s", tostring(name), concat(known, ", ")), 2)
end

local function describe_text(name, tensor)
  local counts, rows, missing, distinct, top = {}, tensor:totable(), 0, 0, nil
  for _, row in ipairs(rows) do
    local value = row[1]
    if value == "" then
      missing = missing + 1
    else
      distinct = distinct + (counts[value] and 0 or 1)
      counts[value] = (counts[value] or 0) + 1
      if top == nil or counts[value] > counts[top] or (counts[value] == counts[top] and value < top) then top = value end
    end
  end
  return {
    name = name, type = "text", count = #rows - missing, missing = missing,
    distinct = distinct, top = top, top_count = top and counts[top] or 0,
  }
end

local function short(value)
  return value == nil and "" or type(value) == "number" and format("%.5g", value) or value
end

local description_class = {
  __name = "mlserve.description",
  __tostring = function(self)
    local fields = { "count", "missing", "mean", "stddev", "min", "quartile_1", "median", "quartile_3", "max" }
    local lines, widths = { { "column" } }, {}
    for _, field in ipairs(fields) do insert(lines[1], field) end
    for _, column in ipairs(self.columns) do
      local line = { column.name }
      if column.type == "number" then
        for _, field in ipairs(fields) do insert(line, short(column[field])) end
      else
        line[2], line[3] = short(column.count), short(column.missing)
        line[4] = format("text, %d distinct, most often '%s' (%d)", column.distinct, column.top or "", column.top_count)
      end
      insert(lines, line)
    end
    for _, line in ipairs(lines) do
      for i, cell in ipairs(line) do
        if not (i == 4 and #line == 4) and #cell > (widths[i] or 0) then widths[i] = #cell end
      end
    end
    for n, line in ipairs(lines) do
      for i, cell in ipairs(line) do
        local padding = (" "):rep((widths[i] or 0) - #cell)
        line[i] = (i == 1 or (i == 4 and #line == 4)) and cell .. padding or padding .. cell
      end
      lines[n] = concat(line, "  ")
    end
    return concat(lines, "\n")
  end,
}

--- A summary of each feature: count, missing, mean, stddev (n - 1), min, quartiles and max of numbers; distinct values and the
--- most frequent one of texts. tostring() of it is a text table.
---@return table description { rows, columns = { { name, type, … }, … } }
function Dataset:describe()
  local state = state_of(self, "describe")
  local columns = {}
  if state.features then
    for i, name in ipairs(state.feature_names) do
      local stats = core.describe_column(state.features, i)
      stats.name, stats.type = name, "number"
      insert(columns, stats)
    end
  end
  for _, name in ipairs(state.text_names) do insert(columns, describe_text(name, state.text[name])) end
  return setmetatable({ rows = state.size, columns = columns }, description_class)
end

--- Weights that make every class count the same: rows / (classes * rows of the class), scikit-learn's "balanced".
---@return number[] weights in class order (0 for a class without rows)
---@return table by_name the same by class name
function Dataset:class_weights()
  local state = state_of(self, "class_weights")
  local counts, weights, by_name, present = class_counts(state), {}, {}, 0
  if not counts then error("dataset:class_weights: there are no class labels", 2) end
  for _, count in ipairs(counts) do present = present + (count > 0 and 1 or 0) end
  for i, name in ipairs(state.classes) do
    weights[i] = counts[i] > 0 and state.size / (present * counts[i]) or 0
    by_name[name] = weights[i]
  end
  return weights, by_name
end

--- Whether a model can be trained on this: labels of two classes at least and no infinite values. Other things worth knowing
--- (missing values, classes without rows, columns that never change) come as notes.
---@return boolean|nil fit
---@return string[]|string notes the notes, or what is wrong
function Dataset:check()
  local state = state_of(self, "check")
  local notes, counts, present, only = {}, class_counts(state), 0, nil
  if not state.labels then return nil, "the dataset has no labels" end
  if counts then
    for i, count in ipairs(counts) do
      if count > 0 then
        present, only = present + 1, state.classes[i]
      else
        insert(notes, format("class '%s' has no rows", state.classes[i]))
      end
    end
    if present < 2 then
      return nil, format("all %d rows belong to one class, '%s': there is nothing to tell apart", state.size, tostring(only))
    end
  end
  if state.features and #state.features:shape() <= 2 then
    for _, column in ipairs(Dataset.describe(self).columns) do
      if column.type == "number" then
        if column.max == huge or column.min == -huge then
          return nil, format("column '%s' holds an infinite value", column.name)
        elseif column.count == 0 then
          insert(notes, format("column '%s' has no values at all", column.name))
        elseif column.min == column.max and column.missing == 0 and state.size > 1 then
          insert(notes, format("column '%s' is the same in every row", column.name))
        end
      end
      if column.missing > 0 and column.count > 0 then
        insert(notes, format("column '%s' lacks %d of %d values", column.name, column.missing, state.size))
      end
    end
  end
  return true, notes
end

--- Writes features and labels (as class names) as CSV, which data.csv reads back.
---@param path string
---@param options table|nil { delimiter }
---@return boolean|nil ok
---@return string|nil message
function Dataset:save_csv(path, options)
  local state = state_of(self, "save_csv")
  local names, columns = {}, {}
  options = check_options(options, { delimiter = "string" }, "dataset:save_csv")
  if state.named or (state.features and #state.features:shape() > 2) then
    error("dataset:save_csv: only tables of columns can be written", 2)
  end
  for i, name in ipairs(state.feature_names) do
    insert(names, name)
    insert(columns, core.select_column(state.features, i))
  end
  for _, name in ipairs(state.text_names) do
    insert(names, name)
    insert(columns, state.text[name])
  end
  if state.labels then
    insert(names, state.label_name or "label")
    if state.class_ids then
      local ids = state.class_ids:totable()
      for i, id in ipairs(ids) do ids[i] = state.classes[id + 1] end
      insert(columns, core.tensor(ids, "string"))
    else
      insert(columns, state.labels)
    end
  end
  return core.write_csv(path, names, columns, options.delimiter or ",")
end

-- ---- labels ----

local few = 20 -- distinct integers that still look like classes rather than a quantity

-- nil, message when a label is missing or unknown. Sets labels, class_ids, classes and task of state.
local function encode_labels(state, values, options)
  local names, ids, counts, kind
  local task, text = options.task, values:dtype() == "string"
  local fixed = class_names(options.classes)
  if task ~= "regression" and (text or task or fixed) then
    ids, names, counts = core.encode_classes(values, fixed)
    if not ids then return nil, names end
  elseif task == nil and options.integral ~= false then
    ids, names, counts = core.encode_classes(values)
    if not ids then return nil, names end
    for _, name in ipairs(names) do
      if not name:find("^%-?%d+$") then ids = nil end
    end
    if #names > few or (#names > 2 and state.size < 2 * #names) then ids = nil end
  end
  if not ids then
    if text then return nil, "a regression target must be numeric, this one holds text" end
    if core.describe_column(values, 1).missing > 0 then return nil, "a regression target is missing" end
    state.task, state.labels = "regression", core.stack_columns { values }
    return true
  end
  kind = task
  if kind == nil or kind == "classification" then kind = #names <= 2 and "binary" or "categorical" end
  if kind == "binary" and #names > 2 then
    return nil, format('task "binary" takes two classes, the labels have %d: %s', #names, concat(names, ", ", 1, min(#names, 10)))
  end
  state.task, state.classes, state.class_ids, state.class_counts_cache = kind, names, ids, counts
  state.labels = kind == "binary" and core.stack_columns { ids } or ids
  return true
end

-- ---- columns to a dataset ----

-- columns: array of { name, values = tensor (N), integral }. Returns a dataset or nil, message.
local function build(columns, label, options, source)
  local state = { text = {}, text_names = {}, feature_names = {}, source = source }
  local numeric = {}
  for _, column in ipairs(columns) do
    if column ~= label then
      if column.values:dtype() == "string" then
        state.text[column.name] = column.values:reshape { -1, 1 }
        insert(state.text_names, column.name)
      else
        insert(numeric, column.values)
        insert(state.feature_names, column.name)
      end
    end
  end
  state.size = #columns[1].values
  if #numeric > 0 then state.features = core.stack_columns(numeric) end
  if #numeric > 0 and state.text.numeric then
    return nil, "a text column cannot be called 'numeric': that is the name of the numbers taken together"
  end
  if label then
    state.label_name = label.name
    local ok, message = encode_labels(state, label.values, {
      task = options.task, classes = options.classes, integral = label.integral,
    })
    if not ok then return nil, format("%slabel '%s': %s", source and source .. ": " or "", label.name, message) end
  end
  return new_dataset(state)
end

local function check_names(list, what, option)
  for _, name in ipairs(list or {}) do
    if type(name) ~= "string" and type(name) ~= "number" then
      error(format("%s: option '%s' must be an array of column names, got a %s in it", what, option, type(name)), 4)
    end
  end
end

-- What the C reader needs to know about columns that are named; columns given by number are looked up afterwards.
local function rules_of(options)
  local rules, by_name = {}, {}
  local function rule(name)
    if not by_name[name] then
      by_name[name] = { name = name }
      insert(rules, by_name[name])
    end
    return by_name[name]
  end
  for _, name in ipairs(options.columns or {}) do rule(name).keep = true end
  for name, kind in pairs(options.types or {}) do rule(name).type = kind end
  if type(options.label) == "string" then
    rule(options.label).keep = true
    rule(options.label).required = true
  end
  return rules
end

-- The column a number from 1, or from -1 at the end, or a name stands for.
local function pick(columns, key, what)
  local found
  if type(key) == "number" then found = columns[key > 0 and key or #columns + 1 + key] end
  for _, column in ipairs(columns) do
    if column.name == key then found = column end
  end
  if not found then error(format("%s: there is no column %s among %d", what, tostring(key), #columns), 3) end
  return found
end

local function from_table(raw, options, source, what)
  local columns, chosen, ignored, label = raw.columns, {}, {}, nil
  if options.label then label = pick(columns, options.label, what) end
  for _, key in ipairs(options.ignore or {}) do ignored[pick(columns, key, what)] = true end
  for _, column in ipairs(columns) do
    if not ignored[column] or column == label then insert(chosen, column) end
  end
  if #chosen == (label and 1 or 0) then return nil, format("%s: no feature columns", source) end
  return build(chosen, label, options, source)
end

local function reader_options(options, format_name)
  return {
    format = format_name,
    delimiter = options.delimiter,
    header = options.header,
    trim = options.trim,
    missing = options.missing,
    subset = options.columns ~= nil,
    rules = rules_of(options),
  }
end

local function check_reading(options, what)
  options = check_options(options, reading, what, 4)
  check_task(options.task, what, 4)
  check_names(options.columns, what, "columns")
  check_names(options.ignore, what, "ignore")
  for name, kind in pairs(options.types or {}) do
    if kind ~= "text" and kind ~= "number" then
      error(format("%s: the type of column '%s' must be \"text\" or \"number\", got \"%s\"", what, tostring(name),
        tostring(kind)), 3)
    end
  end
  return options
end

local function read(path, options, format_name, what)
  local raw, message
  if type(path) ~= "string" then error(format("%s: a path expected, got %s", what, type(path)), 2) end -- reached by a tail call
  raw, message = core.read_table(path, reader_options(options, format_name))
  if not raw then return nil, message end
  return from_table(raw, options, path, what)
end

local function parse(text, options, format_name, what)
  local raw, message
  if type(text) ~= "string" then error(format("%s: a string expected, got %s", what, type(text)), 2) end
  raw, message = core.parse_table(text, "text", reader_options(options, format_name))
  if not raw then return nil, message end
  return from_table(raw, options, "text", what)
end

--- Reads a CSV file (RFC 4180). A column whose every value is a number is numeric, any other is text.
---
--- Options: `label` (column name, or number from 1, or from -1 at the end; without one there are no labels), `columns` (only
--- these features), `ignore` (all but these), `types` { column = "text"|"number" }, `delimiter` (","), `header` (true; else
--- columns are column_1, column_2, …), `trim` (strip spaces around texts), `missing` (texts that mean no value; default "", NA,
--- N/A, NaN, nan, null, NULL, ?), `classes` (fixed classes and their order, as of a trained model), `task` ("binary",
--- "categorical", "classification", "regression"). Without `task`, text labels are classes, and so are at most 20 distinct
--- integers.
---
--- Two classes give labels float32 (N, 1) of 0 and 1, the second class in sorted order being 1; more give int64 (N) of ids from
--- 0; regression float32 (N, 1).
---@param path string
---@param options table|nil
---@return userdata|nil dataset
---@return string|nil message "FILE:LINE: column N (NAME): …"
function data.csv(path, options)
  return read(path, check_reading(options, "data.csv"), "csv", "data.csv")
end

--- As data.csv, from a string.
---@param text string
---@param options table|nil
---@return userdata|nil dataset
---@return string|nil message
function data.csv_text(text, options)
  return parse(text, check_reading(options, "data.csv_text"), "csv", "data.csv_text")
end

--- Reads JSON Lines: one object a line, each key a column. Options as data.csv without delimiter, header and trim.
---@param path string
---@param options table|nil
---@return userdata|nil dataset
---@return string|nil message
function data.jsonl(path, options)
  return read(path, check_reading(options, "data.jsonl"), "jsonl", "data.jsonl")
end

--- As data.jsonl, from a string.
---@param text string
---@param options table|nil
---@return userdata|nil dataset
---@return string|nil message
function data.jsonl_text(text, options)
  return parse(text, check_reading(options, "data.jsonl_text"), "jsonl", "data.jsonl_text")
end

--- A dataset from columns in Lua: { name = values, … } or { { name = …, values = … }, … }, values being arrays of numbers (NaN
--- where missing) or of strings ("" where missing), or tensors (N). Options: label, columns (order and choice), types, classes,
--- task.
---@param columns table
---@param options table|nil
---@return userdata|nil dataset
---@return string|nil message
function data.from_columns(columns, options)
  local what, list, by_name, names, label, size = "data.from_columns", {}, {}, {}, nil, nil
  options = check_options(options, building, what)
  check_task(options.task, what)
  if type(columns) ~= "table" then error(format("%s: a table of columns expected, got %s", what, type(columns)), 2) end
  for key, column in pairs(columns) do
    local name, values = key, column
    if type(key) == "number" then name, values = column.name, column.values end
    if type(name) ~= "string" then error(format("%s: column %s has no name", what, tostring(key)), 2) end
    if by_name[name] then error(format("%s: two columns are named '%s'", what, name), 2) end
    if type(values) == "table" then
      if #values == 0 then error(format("%s: column '%s' is empty", what, name), 2) end
      values = core.tensor(values, type(values[1]) == "string" and "string" or "float64")
    elseif not is_tensor(values) then
      error(format("%s: column '%s' must be an array or a tensor, got %s", what, name, type(values)), 2)
    end
    by_name[name] = { name = name, values = values, index = type(key) == "number" and key or nil }
    insert(names, name)
  end
  sort(names, function(a, b)
    local i, j = by_name[a].index or huge, by_name[b].index or huge
    if i ~= j then return i < j end
    return a < b
  end)
  if options.columns then
    names = {}
    for _, name in ipairs(options.columns) do insert(names, name) end
    if options.label then insert(names, options.label) end
  end
  for _, name in ipairs(names) do
    local column = by_name[name]
    if not column then error(format("%s: no column named '%s'", what, tostring(name)), 2) end
    size = size or #column.values
    if #column.values ~= size then
      error(format("%s: column '%s' has %d rows, column '%s' has %d", what, name, #column.values, names[1], size), 2)
    end
    if (options.types or {})[name] == "text" and column.values:dtype() ~= "string" then
      error(format("%s: column '%s' holds numbers, its type is given as text", what, name), 2)
    end
    if not (label and name == options.label) then insert(list, column) end
    if name == options.label then label = column end
  end
  if options.label and not label then error(format("%s: no column named '%s'", what, tostring(options.label)), 2) end
  if #list == (label and 1 or 0) then error(format("%s: no feature columns", what), 2) end
  return build(list, label, options)
end

-- Labels given in memory: class ids mean themselves (as for Keras), so that a part of the data without some class keeps its ids.
local function memory_labels(state, y, options)
  local shape, task = y:shape(), options.task
  local values, largest, names, fixed, count, stats, probe, ok, message
  if #y ~= state.size then return nil, format("there are %d rows of features and %d of labels", state.size, #y) end
  if #shape > 2 or (#shape == 2 and shape[2] > 1) then -- one-hot rows, or several targets
    state.labels, state.task = y, task or (options.classes and "categorical" or "regression")
    if state.task == "regression" then return true end
    local ids = {}
    state.task = "categorical"
    for i, row in ipairs(y:totable()) do
      for c, value in ipairs(row) do
        if value == 1 or value == true then ids[i] = c - 1 end
      end
      if not ids[i] then return nil, format("row %d of the labels is not one-hot", i) end
    end
    state.class_ids, state.classes = core.tensor(ids, "int64"), class_names(options.classes) or {}
    for c = #state.classes + 1, shape[2] do state.classes[c] = class_name(c - 1) end
    return true
  end
  values = #shape == 2 and y:reshape { -1 } or y
  if values:dtype() == "string" or task == "regression" then return encode_labels(state, values, options) end
  if values:dtype() == "bool" then values = values:cast("int64") end
  if task == nil and (options.classes or not values:dtype():find("float", 1, true)) then task = "classification" end
  stats = core.describe_column(values, 1)
  if stats.missing > 0 then return nil, "a label is missing (NaN)" end
  probe = { size = state.size }
  ok, message = encode_labels(probe, values, { task = task })
  if not ok then return nil, message end
  if not probe.class_ids then
    if options.classes then return nil, "classes are given, but the labels are no class ids" end
    state.labels, state.task = probe.labels, "regression"
    return true
  end
  largest = stats.max
  for _, name in ipairs(probe.classes) do
    if not name:find("^%d+$") then largest = nil end -- not ids: sorted values, as from a file
  end
  if not largest then return encode_labels(state, values, options) end
  names, fixed = class_names(options.classes), {}
  count = max(largest + 1, names and #names or 2)
  if names and count > #names then return nil, format("a label is class %d, but %d classes are named", largest, #names) end
  for c = 1, count do fixed[c] = class_name(c - 1) end
  ok, message = encode_labels(state, values, { task = task, classes = fixed })
  if not ok then return nil, message end
  state.classes = names or fixed
  return true
end

--- A dataset from what is in memory. x: a tensor or nested table with a row per example, or { name = tensor, … } for several
--- inputs; y (optional): class ids, class names, one-hot rows (with task = "categorical"), or values. Options: classes, task,
--- feature_names.
---@param x userdata|table
---@param y userdata|table|nil
---@param options table|nil
---@return userdata|nil dataset
---@return string|nil message
function data.dataset(x, y, options)
  local what = "data.dataset"
  local state = { text = {}, text_names = {}, feature_names = {} }
  local shape, ok, message
  options = check_options(options, { classes = "table", task = "string", feature_names = "table" }, what)
  check_task(options.task, what)
  if not is_tensor(x) and type(x) ~= "table" then error(format("%s: features expected, got %s", what, type(x)), 2) end
  if type(x) == "table" and type((next(x))) == "string" then
    state.named = {}
    for name, value in pairs(x) do
      state.named[name] = to_tensor(value)
      state.size = state.size or #state.named[name]
      if #state.named[name] ~= state.size then
        error(format("%s: input '%s' has %d rows, another %d", what, name, #state.named[name], state.size), 2)
      end
    end
  else
    x = to_tensor(x)
    shape = x:shape()
    if #shape < 1 or shape[1] < 1 then error(format("%s: features need at least one row", what), 2) end
    if x:dtype() == "string" then error(format("%s: text features are given by name: { name = tensor }", what), 2) end
    if #shape == 1 then x = x:reshape { -1, 1 } end
    if x:dtype() == "float64" then x = x:cast("float32") end
    state.features, state.size = x, shape[1]
    if #shape <= 2 then
      for i = 1, shape[2] or 1 do
        state.feature_names[i] = options.feature_names and options.feature_names[i] or format("column_%d", i)
      end
    else
      state.feature_names[1] = "x"
    end
  end
  if y ~= nil then
    ok, message = memory_labels(state, to_tensor(y), options)
    if not ok then return nil, message end
  end
  return new_dataset(state)
end

--- data.dataset with everything in one table: { features = …, labels = …, classes, task, feature_names }.
---@param spec table
---@return userdata|nil dataset
---@return string|nil message
function data.table(spec)
  local options = {}
  check_options(spec, {
    features = "table|userdata", labels = "table|userdata", classes = "table", task = "string", feature_names = "table",
  }, "data.table")
  if not spec or spec.features == nil then error("data.table: features expected", 2) end
  for key, value in pairs(spec) do
    if key ~= "features" and key ~= "labels" then options[key] = value end
  end
  return data.dataset(spec.features, spec.labels, options)
end

return data
