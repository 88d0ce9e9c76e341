-- Writes docs/api/*.md from the doc comments of lua/ and docs/ops.md from the operators of the core. Run in the root of the
-- checkout: lua5.4 build-aux/docs.lua, or with --check: writes nothing, fails when a file is not current (make lint).
-- The output depends on the sources only, so it can be committed and compared.

local concat, insert, sort = table.concat, table.insert, table.sort
local format = string.format

local check = arg[1] == "--check"
local stale = {}

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a")
  if file then file:close() end
  return text
end

local function write(path, text)
  local file
  if read(path) == text then return end
  insert(stale, path)
  if check then return end
  file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local function lines_of(command)
  local list, pipe = {}, assert(io.popen(command))
  for line in pipe:lines() do insert(list, line) end
  pipe:close()
  return list
end

-- ---- doc comments ----

-- A comment's lines without dashes, apart from the tags; text indented by two or more becomes a code block.
local function parse_comment(lines)
  local doc = { text = {}, params = {}, returns = {}, fields = {} }
  local before = false
  for _, line in ipairs(lines) do
    local tag, rest = line:match("^%-%-%-?%s*@(%w+)%s*(.*)$")
    local body = line:gsub("^%-%-%-?", ""):gsub("^ ", ""):gsub("%s+$", "")
    if tag == "param" then
      local name, kind, text = rest:match("^(%S+)%s+(%S+)%s*(.*)$")
      insert(doc.params, { name = name or rest, kind = kind or "", text = text or "" })
    elseif tag == "return" then
      insert(doc.returns, rest)
    elseif tag == "field" or tag == "class" then
      insert(doc.fields, tag .. " " .. rest)
    elseif not tag then
      local indented = body:find("^  ") ~= nil
      if indented then body = "    " .. body:gsub("^  ", "") end
      if indented ~= before and body ~= "" and doc.text[#doc.text] ~= "" and #doc.text > 0 then insert(doc.text, "") end
      if body ~= "" then before = indented end
      insert(doc.text, body)
    end
  end
  while doc.text[#doc.text] == "" do doc.text[#doc.text] = nil end
  return doc
end

-- The name a reader knows: M.new of mlserve.serve.app is app.new; a table of methods is the object.
local function public_name(name, own, module)
  local stem, separator, last = name:match("^([%w_]+)([.:])([%w_.]+)$")
  local short = module:match("[^.]+$")
  if not stem then return nil end
  if stem == own then stem = short end
  if stem == "methods" or stem:find("_methods$") then stem = stem == "methods" and short or stem:gsub("_methods$", "") end
  return stem:gsub("^%u", string.lower) .. separator .. last
end

local function parse_file(path, module)
  local source = read(path)
  local own = source:match("\nreturn ([%w_]+)%s*$")
  local head, entries, comment = nil, {}, nil
  for line in (source .. "\n"):gmatch("([^\n]*)\n") do
    if line:find("^%-%-") and (comment or line:find("^%-%-%-")) then
      comment = comment or {}
      insert(comment, line)
    elseif comment then
      local name, args = line:match("^function ([%w_.:]+)(%b())")
      local value = line:match("^([%w_]+%.[%w_.]+) = ")
      if not head and #entries == 0 and not name and not value then
        head = parse_comment(comment)
      elseif name or value then
        name = public_name(name or value, own, module)
        if name then insert(entries, { name = name .. (args or ""), doc = parse_comment(comment) }) end
      end
      comment = nil
    end
  end
  return head, entries
end

local function escape(text) return (text:gsub("|", "\\|")) end

local function render(doc, out)
  if #doc.text > 0 then insert(out, concat(doc.text, "\n")) insert(out, "") end
  for _, field in ipairs(doc.fields) do insert(out, "- `" .. field .. "`") end
  if #doc.fields > 0 then insert(out, "") end
  if #doc.params > 0 then
    insert(out, "| argument | type | |")
    insert(out, "|---|---|---|")
    for _, param in ipairs(doc.params) do
      insert(out, format("| `%s` | `%s` | %s |", param.name, escape(param.kind), escape(param.text)))
    end
    insert(out, "")
  end
  for _, value in ipairs(doc.returns) do
    local kind, text = value:match("^(%S*)%s*(.*)$")
    insert(out, format("%s `%s`%s", #doc.returns > 1 and "- returns" or "Returns", kind or "", text ~= "" and " " .. text or ""))
  end
  if #doc.returns > 0 then insert(out, "") end
end

local function api()
  local index = { "# Lua API", "", "Made from the comments in `lua/` by `make docs`. Start with [mlserve](mlserve.md).", "" }
  local written = {}
  for _, path in ipairs(lines_of("find lua/mlserve -name '*.lua' | LC_ALL=C sort")) do
    local module = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
    local head, entries, out
    if not module:find("^mlserve%.cli") then
      head, entries = parse_file(path, module)
      out = { "# " .. module, "", format("<!-- made from %s by make docs -->", path), "" }
      if head then render(head, out) end
      for _, entry in ipairs(entries) do
        insert(out, "## `" .. entry.name .. "`")
        insert(out, "")
        render(entry.doc, out)
      end
      write("docs/api/" .. module .. ".md", (concat(out, "\n"):gsub("%s*$", "\n")))
      written[module .. ".md"] = true
      local first = head and head.text[1] or ""
      insert(index, format("- [%s](%s.md)%s", module, module, first ~= "" and " — " .. first or ""))
    end
  end
  write("docs/api/README.md", concat(index, "\n") .. "\n")
  written["README.md"] = true
  for _, path in ipairs(lines_of("ls docs/api")) do
    if not written[path] then
      insert(stale, "docs/api/" .. path)
      if not check then os.remove("docs/api/" .. path) end
    end
  end
end

-- ---- operators ----

local function arity(row)
  if row.variadic then return format("%d or more", row.min_inputs) end
  if row.min_inputs == row.max_inputs then return format("%d", row.min_inputs) end
  return format("%d to %d", row.min_inputs, row.max_inputs)
end

local integers = { "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64" }
local small = { "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "uint2", "int2", "float6e2m3",
  "float6e3m2" }
local groups = { { "float", { "float32", "float64" } }, { "half", { "float16", "bfloat16" } }, { "int", integers }, { "small", small } }

-- Operators that check their inputs without a declared list of types, because it goes by attributes or by more inputs than a list has room for.
local checked_inside = {
  Attention = "Q, K, V: float, half; mask: float, half, int, bool", LabelEncoder = "those of the keys",
  MelWeightMatrix = "int32, int64; edges: float",
  QLinearConv = "int8, uint8; scales: float32; B: int32", QLinearMatMul = "int8, uint8; scales: float32",
}

local function type_names(list)
  local set, out = {}, {}
  if #list == 0 then return "any" end
  for _, name in ipairs(list) do set[name] = true end
  for _, group in ipairs(groups) do
    local all = true
    for _, name in ipairs(group[2]) do all = all and set[name] end
    if all then
      insert(out, group[1])
      for _, name in ipairs(group[2]) do set[name] = nil end
    end
  end
  for _, name in ipairs(list) do
    if set[name] then insert(out, name) end
  end
  return concat(out, ", ")
end

-- The types of each input, the last of which stands for all further ones.
local function types(row)
  local out, same = {}, true
  if row.max_inputs == 0 and not row.variadic then return "" end
  if checked_inside[row.name] and #row.types == 0 then return checked_inside[row.name] end
  for i, list in ipairs(row.types) do
    if i <= row.max_inputs or row.variadic then insert(out, type_names(list)) end
  end
  for _, text in ipairs(out) do same = same and text == out[1] end
  return (same and (out[1] or "any") or concat(out, "; ")) .. (row.containers and " +" or "")
end

local function operators()
  local rows, out = require("mlserve.core").operators(), {
    "# Operators", "",
    "Made from the operator definitions in `csrc/ops/` by `make docs`.", "",
    "*Opset* is the range of operator set versions that a file may import; in brackets the version whose form the engine computes, to which older",
    "files are brought when they are read. *Types* are those of the inputs in order, divided by semicolons, the last for all further inputs: *float*",
    "is float32 and float64, *half* float16 and bfloat16, *int* every integer type of 8 to 64 bits with and without sign, *small* floats of 4 to 8",
    "bits and integers of 2 and 4, of which float8e8m0 is named apart; *any* includes string and bool; *+* means sequences,",
    "optionals or maps as well. *Trainable* means that the operator has a gradient.", "",
    "Upsample (1 to 9) is read as Resize, Scatter (9 to 10) as ScatterElements. Operators that exist only inside programs (gradients, fused forms) are",
    "never in a file and are not listed.", "",
    "| operator | domain | opset | inputs | types | attributes | trainable | what it computes |", "|---|---|---|---|---|---|---|---|",
  }
  sort(rows, function(a, b)
    if a.domain ~= b.domain then return a.domain < b.domain end
    return a.name < b.name
  end)
  for _, row in ipairs(rows) do
    if not row.internal and not row.training then
      insert(out, format("| %s | %s | %d to %d (%d) | %s | %s | %s | %s | %s |", row.name, row.domain == "" and "ai.onnx" or row.domain,
        row.introduced, row.newest, row.since, arity(row), types(row), concat(row.attributes, ", "), row.differentiable and "yes" or "",
        escape(row.formula)))
    end
  end
  write("docs/ops.md", concat(out, "\n") .. "\n")
end

-- Every layer has its place in docs/layers.md, which is written by hand.
local function layers()
  local text = read("docs/layers.md") or ""
  for name, value in pairs(require("mlserve.nn")) do
    if type(value) == "function" and not text:find("%f[%w]" .. name .. "%f[%W]") then
      insert(stale, "docs/layers.md (lacks " .. name .. ")")
    end
  end
end

package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
if not check then os.execute("mkdir -p docs/api") end
api()
operators()
if check then layers() end
if check and #stale > 0 then
  io.stderr:write("not current (run make docs): ", concat(stale, ", "), "\n")
  os.exit(1)
end
for _, path in ipairs(stale) do print("wrote " .. path) end
