--- A strict reader of Prometheus' text format (0.0.4), for specs: raises on whatever a scraper or promtool's check would not
--- take, and returns the samples: value by `name{a="1",b="2"}` with the labels as they were written, and type by name.

local M = {}

local TYPES = { counter = true, gauge = true, histogram = true, summary = true, untyped = true }

local function fail(number, line, what) error(("line %d: %s: %s"):format(number, what, line), 0) end

-- { { name, value }, … } of the text between the braces
local function read_labels(text, number, line)
  local labels, seen, at = {}, {}, 1
  while at <= #text do
    local name, after = text:match('^([%a_][%w_]*)="()', at)
    if not name then fail(number, line, "label expected") end
    if seen[name] then fail(number, line, "label twice") end
    seen[name] = true
    local value = {}
    while true do
      local c = text:sub(after, after)
      if c == "" then fail(number, line, "label without end") end
      after = after + 1
      if c == '"' then break end
      if c == "\\" then
        c = ({ ["\\"] = "\\", ['"'] = '"', n = "\n" })[text:sub(after, after)]
        if not c then fail(number, line, "unknown escape") end
        after = after + 1
      end
      value[#value + 1] = c
    end
    labels[#labels + 1] = { name, table.concat(value) }
    at = text:match("^,()", after) or after
    if at == after and after <= #text then fail(number, line, "comma expected") end
  end
  return labels
end

local function read_value(text)
  if text == "+Inf" then return math.huge elseif text == "-Inf" then return -math.huge elseif text == "NaN" then return 0 / 0 end
  return text:match("^[+-]?[%d.]+[eE]?[+-]?%d*$") and tonumber(text)
end

local function check_histogram(name, rows)
  local groups = {}
  for _, row in ipairs(rows) do
    local rest, le = {}, nil
    for _, label in ipairs(row.labels) do
      if label[1] == "le" then le = label[2] else rest[#rest + 1] = label[1] .. "=" .. label[2] end
    end
    local key = table.concat(rest, "\0")
    local group = groups[key] or { last = -1, bound = -math.huge }
    groups[key] = group
    if row.name == name .. "_bucket" then
      local bound = assert(read_value(assert(le, name .. ": bucket without le")), name .. ": le is no number: " .. tostring(le))
      assert(bound > group.bound, name .. ": bounds do not grow")
      assert(row.value >= group.last, name .. ": buckets are not cumulative")
      group.bound, group.last = bound, row.value
    elseif row.name == name .. "_sum" then group.sum = row.value
    elseif row.name == name .. "_count" then group.count = row.value
    else error(name .. ": a histogram has no sample " .. row.name, 0) end
  end
  for key, group in pairs(groups) do
    assert(group.bound == math.huge, name .. ": no bucket +Inf: " .. key)
    assert(group.count == group.last, name .. ": the count is not that of +Inf: " .. key)
    assert(group.sum, name .. ": no sum: " .. key)
  end
end

function M.parse(text)
  local samples, types, helps, rows, closed, current, number = {}, {}, {}, {}, {}, nil, 0
  assert(text:sub(-1) == "\n", "the last line has no line feed")
  assert(not text:find("[%z\1-\9\11-\31\127-\255]"), "bytes that are not printable")
  local function belong(name)
    if current == name then return end
    if current then closed[current] = true end
    assert(not closed[name], name .. ": lines are not together")
    current = name
  end
  for line in text:gmatch("([^\n]*)\n") do
    number = number + 1
    local keyword, name, rest = line:match("^# (%u+) ([%a_:][%w_:]*) (.+)$")
    if keyword == "TYPE" then
      belong(name)
      if types[name] or rows[name] then fail(number, line, "type twice or too late") end
      if not TYPES[rest] then fail(number, line, "unknown type") end
      if rest == "counter" and name:sub(1, 1) ~= ":" and name:sub(-6) ~= "_total" then fail(number, line, "a counter's name ends in _total") end
      types[name] = rest
    elseif keyword == "HELP" then
      belong(name)
      if helps[name] or types[name] then fail(number, line, "help twice or too late") end
      helps[name] = rest
    else
      local full, labels, value = line:match("^([%a_:][%w_:]*)(%b{}) (%S+)$")
      if not full then full, value = line:match("^([%a_:][%w_:]*) (%S+)$") end
      if not full then fail(number, line, "no sample") end
      local family = full
      local base = full:match("^(.*)_bucket$") or full:match("^(.*)_sum$") or full:match("^(.*)_count$")
      if not types[family] and base and types[base] == "histogram" then family = base end
      if not types[family] then fail(number, line, "no type") end
      belong(family)
      local key = full .. (labels ~= "{}" and labels or "")
      if samples[key] then fail(number, line, "sample twice") end
      local n = read_value(value)
      if not n then fail(number, line, "no number") end
      samples[key] = n
      rows[family] = rows[family] or {}
      table.insert(rows[family], { name = full, labels = read_labels(labels and labels:sub(2, -2) or "", number, line), value = n })
    end
  end
  for name, kind in pairs(types) do
    if kind == "histogram" and rows[name] then check_histogram(name, rows[name]) end
    if kind == "counter" then
      for _, row in ipairs(rows[name] or {}) do assert(row.value >= 0, name .. ": a counter below zero") end
    end
  end
  return samples, types
end

return M
