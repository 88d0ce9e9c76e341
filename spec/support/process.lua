--- Programs started by a spec: own processes only, ended by their pid.

local cqueues = require "cqueues"

local M = {}

M.lua = os.getenv "MLSERVE_LUA" or (rawget(_G, "jit") and "luajit" or "lua5.4")

local function quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end
M.quote = quote

local function slurp(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end
M.slurp = slurp

--- A new directory for this spec.
function M.directory()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir -p " .. quote(path)))
  return path
end

function M.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

--- Calls condition until it gives a true value or the time is over.
function M.wait(seconds, condition)
  local deadline = cqueues.monotime() + seconds
  while true do
    local value = condition()
    if value then return value end
    if cqueues.monotime() > deadline then return nil end
    cqueues.sleep(0.02)
  end
end

local methods = {}
local mt = { __index = methods }

--- Starts a shell command in the background; its output goes to a file.
function M.spawn(command)
  local directory = M.directory()
  local self = setmetatable({ directory = directory }, mt)
  -- the outer shell waits so that the exit code is known; "exec" makes the pid that of the program
  local script = string.format(
    "(sh -c %s >%s/log 2>&1 </dev/null & echo $! >%s/pid; wait $!; echo $? >%s/code) >/dev/null 2>&1 &",
    quote("exec " .. command), directory, directory, directory)
  os.execute("sh -c " .. quote(script))
  self.pid = M.wait(5, function() return tonumber((slurp(directory .. "/pid"))) end)
  assert(self.pid, "program not started: " .. command)
  return self
end

--- Runs a Lua file with this interpreter and these module paths.
function M.spawn_lua(file, ...)
  local words = { "env", "LUA_PATH=" .. quote(package.path), "LUA_CPATH=" .. quote(package.cpath), M.lua, quote(file) }
  for i = 1, select("#", ...) do words[#words + 1] = quote((select(i, ...))) end
  return M.spawn(table.concat(words, " "))
end

function methods:log() return slurp(self.directory .. "/log") or "" end

--- First capture of pattern in the output, waiting for it.
function methods:expect(pattern, seconds)
  local found = M.wait(seconds or 10, function() return self:log():match(pattern) end)
  if not found then error("no '" .. pattern .. "' in the output of the program:\n" .. self:log(), 2) end
  return found
end

function methods:signal(name)
  self.told_to_end = self.told_to_end or name == "TERM" or name == "INT"
  os.execute(string.format("kill -%s %d 2>/dev/null", name, self.pid))
end

--- Exit code, waiting for the end; nil when it still runs.
function methods:code(seconds)
  return M.wait(seconds or 0, function() return tonumber((slurp(self.directory .. "/code"))) end)
end

--- Ends the program and returns its exit code. One that was told to end already is not told again: a second signal means
--- "now", and when it comes after the last handler is gone, it is what ends the process.
function methods:stop()
  if not self:code() then
    if not self.told_to_end then self:signal "TERM" end
    if not self:code(5) then
      self:signal "KILL"
      self:code(5)
    end
  end
  local code = self:code()
  os.execute("rm -rf " .. quote(self.directory))
  return code
end

return M
