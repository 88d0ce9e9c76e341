-- What the project demands of its sources beyond what compilers and luacheck look at. Run in the root of the checkout; prints one line per
-- finding, exit code 1 when there is any.

local LONGEST = 200 -- columns a line of code may have; 130 is the aim

-- Who may include whom, beside itself and what those may include (docs/architecture.md).
local INCLUDES = {
  base = {}, codec = { "base" }, kernels = { "base" }, tensor = { "kernels" }, image = { "base" },
  ops = { "tensor", "codec", "image" }, graph = { "ops" }, eval = { "tensor" },
  data = { "tensor", "codec" }, train = { "graph", "eval", "data" }, format = { "train", "codec" }, serve = { "format" }, net = { "base" },
  capi = { "serve" }, lua = { "train", "serve", "net" },
}

local findings = 0

local function say(where, text, ...)
  findings = findings + 1
  io.stderr:write("lint: ", where, ": ", select("#", ...) > 0 and text:format(...) or text, "\n")
end

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a")
  if file then file:close() end
  return text
end

local function lines_of(command)
  local list, pipe = {}, assert(io.popen(command))
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

local files = lines_of("git ls-files -co --exclude-standard | LC_ALL=C sort")
local texts = {} -- of the text files, by path
for _, path in ipairs(files) do
  local text = read(path)
  if text and not text:find("%z") and not path:find("%.onnx$") and not path:find("%.pb$") and not path:find("%.bin$") then texts[path] = text end
end

local function each(pattern)
  return coroutine.wrap(function()
    for _, path in ipairs(files) do
      if texts[path] and path:find(pattern) then coroutine.yield(path, texts[path]) end
    end
  end)
end

-- line, number of the line
local function each_line(text)
  local at, number = 1, 0
  return function()
    if at > #text then return nil end
    local line, after = text:match("^([^\n]*)\n?()", at)
    at, number = after, number + 1
    return line, number
  end
end

-- ---- layers ----

local function closure(folder, seen)
  seen = seen or {}
  if not seen[folder] then
    seen[folder] = true
    for _, below in ipairs(INCLUDES[folder] or {}) do closure(below, seen) end
  end
  return seen
end

for path, text in each("^csrc/.+/.+%.[ch]$") do
  local folder = path:match("^csrc/([^/]+)/")
  if not INCLUDES[folder] then
    say(path, "folder csrc/%s is in no layer: add it to build-aux/lint.lua and docs/architecture.md", folder)
  else
    local allowed = closure(folder)
    for line, number in each_line(text) do
      local included = line:match('^%s*#%s*include%s+"([^"]+)"')
      local system = line:match("^%s*#%s*include%s+<([^>]+)>")
      local target = included and included:match("^([^/]+)/")
      if target and INCLUDES[target] and not allowed[target] then
        say(path .. ":" .. number, "csrc/%s may not include %s", folder, included)
      elseif included and not target and included ~= "mlserve.h" and included ~= "mlserve_version.h" then
        say(path .. ":" .. number, 'include "%s" with its folder', included)
      end
      local header = system or included or ""
      if folder ~= "lua" and (header == "lua.h" or header == "lauxlib.h" or header == "lualib.h" or header == "luajit.h") then
        say(path .. ":" .. number, "only csrc/lua may include %s", header)
      end
    end
  end
end

-- ---- operators ----

local in_list, specs = {}, {}
for _, text in each("^spec/.+%.lua$") do specs[#specs + 1] = text end
for _, text in each("^spec/.+%.[ch]$") do specs[#specs + 1] = text end
specs = table.concat(specs, "\n")
local emitters = { specs }
for path, text in each("^csrc/ops/.+%.[ch]$") do emitters[#emitters + 1] = "\0" .. path:match("([%w_]+)%.[ch]$") .. "\0" .. text .. "\0" end
emitters = table.concat(emitters)
for stem in (texts["csrc/ops/ops.def"] or ""):gmatch("ML_OP%(([%w_]+)%)") do
  local path = "csrc/ops/" .. stem .. ".c"
  local text = texts[path]
  if in_list[stem] then say("csrc/ops/ops.def", "%s stands there twice", stem) end
  in_list[stem] = true
  if not text then
    say("csrc/ops/ops.def", "row %s has no file %s", stem, path)
  else
    local name = text:match("ml_op_" .. stem .. "%s*=%s*{.-%.name%s*=%s*\"([^\"]+)\"") or text:match("%.name%s*=%s*\"([^\"]+)\"")
      or stem:gsub("^%l", string.upper):gsub("_(%l)", string.upper)
    if not text:find("%f[%w_]" .. stem .. "%f[^%w_]") and not text:find("%f[%w_]ml_op_" .. stem .. "%f[^%w_]") then
      say(path, "does not define ml_op_%s", stem) -- reductions do it by a macro that is given the stem
    end
    local users = specs
    if stem:find("_grad$") then users = emitters:gsub("\0" .. stem .. "\0.-\0", "") end -- tested with the operators that emit it
    if not users:find("%f[%w]" .. name .. "%f[%W]") then say(path, "operator %s is in no spec", name) end
  end
end
for path, text in each("^csrc/ops/.+%.c$") do
  local stem = text:match("\nconst ml_op_def ml_op_([%w_]+)%s*=")
  if stem and not in_list[stem] then say(path, "defines ml_op_%s, which has no row in ops.def", stem) end
end

-- ---- the C API ----
-- Every function has a comment in front of it and stands in docs/c-api.md; the version of the symbols is that of the header.

local header, page = texts["csrc/mlserve.h"] or "", texts["docs/c-api.md"] or ""
local before
for line, number in each_line(header) do
  local name = line:match("^MLSERVE_API .-(mlserve_[%w_]+)%(")
  if name and not (before or ""):find("%*/$") then say("csrc/mlserve.h:" .. number, "%s has no comment", name) end
  if name and not page:find("%f[%w_]" .. name .. "%f[^%w_]") then say("docs/c-api.md", "does not name %s", name) end
  before = line
end
local abi = header:match("#define MLSERVE_ABI_VERSION (%d+)") or "?"
if not (texts["csrc/capi/libmlserve.map"] or ""):find("MLSERVE_" .. abi .. " {", 1, true) then
  say("csrc/capi/libmlserve.map", "is not of version %s, as mlserve.h is", abi)
end

-- ---- tests ----

for path, text in each("^spec/.+_spec%.lua$") do
  for line, number in each_line(text) do
    if line:find("#only", 1, true) or line:find("#focus", 1, true) then say(path .. ":" .. number, "focus tag left over") end
  end
end

-- ---- versions ----

local version = (texts["csrc/mlserve_version.h"] or ""):match('MLSERVE_VERSION "([^"]+)"') or "?"
if not texts["rockspec/mlserve-" .. version .. "-1.rockspec"] then say("rockspec", "no rockspec/mlserve-%s-1.rockspec", version) end
for path, text in each("^rockspec/.+%.rockspec$") do
  local named, stated = path:match("mlserve%-(.+)%.rockspec$"), text:match('version%s*=%s*"([^"]+)"')
  local tag = text:match('tag%s*=%s*"([^"]+)"')
  if named ~= stated then say(path, "says version %s", tostring(stated)) end
  if tag and tag ~= "v" .. stated:gsub("%-%d+$", "") then say(path, "tag %s does not fit version %s", tag, stated) end
end
if not (texts["CHANGELOG.md"] or ""):find("[^%d.]" .. version:gsub("%p", "%%%0") .. "[^%d.]") then
  say("CHANGELOG.md", "has no entry for %s", version)
end

-- ---- what no file may hold ----
-- The words are put together here so that this file does not hold them either.

local root = lines_of("pwd")[1]
local FORBIDDEN = {
  { root .. "/", "absolute path of this checkout" },
  { "/ho" .. "me/", "absolute path of a machine" }, { "/ro" .. "ot/", "absolute path of a machine" },
  { "TO" .. "DO", "unfinished work" }, { "FIX" .. "ME", "unfinished work" },
}
for path, text in each(".") do
  for _, rule in ipairs(FORBIDDEN) do
    local at = text:find(rule[1], 1, true)
    if at then
      local number = select(2, text:sub(1, at):gsub("\n", "")) + 1
      say(path .. ":" .. number, "%s: %s", rule[2], rule[1])
    end
  end
end

-- ---- layout of the text ----

local SOURCE = { c = true, h = true, lua = true, py = true, sh = true, def = true, rockspec = true }
for path, text in each(".") do
  if SOURCE[path:match("%.([%w]+)$") or ""] and not path:find("^spec/golden/") then
    if #text > 0 and text:sub(-1) ~= "\n" then say(path, "no newline at its end") end
    for line, number in each_line(text) do
      if #line > LONGEST then say(path .. ":" .. number, "%d columns, at most %d", #line, LONGEST) end
      if line:find("[ \t\r]$") then say(path .. ":" .. number, "blanks at the end of the line") end
      if line:find("\t", 1, true) then say(path .. ":" .. number, "tab") end
    end
  end
end

os.exit(findings == 0)
