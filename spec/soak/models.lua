--- The models of a soak, and who publishes them: versions that come every moment, broken ones, old ones that go, a directory that vanishes.
--
-- Every model answers with the greatest of x + 0, x + 0, …, plus its version's number, so an answer tells which version gave it.

local core = require "mlserve.core"
local cqueues = require "cqueues"

local M = {}

-- name -> numbers that each x is added to: what a run costs, and how much memory a version that stays behind would take
local WIDTHS = { cheap = 1, swapped = 32768, batched = 120000 }
local KEPT = 10 -- versions that stay beside the newest

local wide = {} -- name -> tensor of zeros

local function save(path, name, value)
  local graph = core.graph(name)
  wide[name] = wide[name] or core.zeros { WIDTHS[name] }
  local sum = graph:node("Add", { graph:input("x", "float32", { -1, 1 }), graph:initializer("zeros", wide[name]) })
  sum = graph:node("Add", { sum, graph:initializer("value", core.tensor { value }) })
  graph:output(graph:node("ReduceMax", { sum, graph:initializer("axes", core.tensor({ 1 }, "int64")) }, { keepdims = 1 }), "y")
  assert(core.onnx_save(graph, path))
end

local function write(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

local function remove(directory)
  os.remove(directory .. "/model.onnx")
  os.remove(directory)
end

local methods = {}
local mt = { __index = methods }

-- A whole directory appears at once, as a careful publisher does it, or, every fourth time, file by file.
local function publish(self, name, version, in_place)
  local base = self.root .. "/" .. name
  local directory = base .. "/" .. (in_place and version or "tmp")
  assert(core.make_directories(directory))
  save(directory .. "/model.onnx", name, version)
  if not in_place then assert(os.rename(directory, base .. "/" .. version)) end
end

--- Publishes the next version of the swapped model and removes one that is old.
function methods:swap()
  local version = self.newest + 1
  self.published[version] = cqueues.monotime()
  publish(self, "swapped", version, version % 4 == 0)
  self.newest, self.swaps = version, self.swaps + 1
  local old = table.remove(self.versions, 1)
  self.versions[#self.versions + 1] = version
  if old then
    self.removed[old] = cqueues.monotime()
    remove(self.root .. "/swapped/" .. old)
  end
end

--- Publishes a version that cannot be loaded, newer than all others; the one after the next takes its place.
function methods:corrupt()
  local version = self.newest + 1
  local directory = self.root .. "/swapped/" .. version
  assert(core.make_directories(directory))
  write(directory .. "/model.onnx", self.corruption % 2 == 0 and ("\8\7rubbish"):rep(100) or self.half)
  self.corruption, self.newest = self.corruption + 1, version
  local broken = self.broken
  self.broken = directory
  if broken then remove(broken) end
end

--- Takes the directory of a model away, as a disk that is not mounted any more, and gives it back.
function methods:vanish(seconds, stopped)
  local base, away = self.root .. "/cheap", self.directory .. "/gone"
  assert(os.rename(base, away))
  self.vanished = self.vanished + 1
  local back = cqueues.monotime() + seconds
  repeat cqueues.sleep(0.05) until stopped() or cqueues.monotime() > back
  assert(os.rename(away, base))
end

--- Whether an answer of the swapped model that was asked for at `asked` may be of this version: it was there, and has not been gone for long.
function methods:plausible(version, asked, patience)
  return self.published[version] ~= nil and not (self.removed[version] and asked - self.removed[version] > patience)
end

---@param directory string an empty one
function M.new(directory)
  local root = directory .. "/models"
  local self = setmetatable({
    directory = directory, root = root, newest = 0, swaps = 0, corruption = 0, vanished = 0, versions = {}, published = {}, removed = {}, broken = nil,
  }, mt)
  for _, name in ipairs { "cheap", "batched" } do
    assert(core.make_directories(root .. "/" .. name))
    publish(self, name, 1)
  end
  assert(core.make_directories(root .. "/swapped"))
  for _ = 1, KEPT do
    self.newest = self.newest + 1
    self.versions[#self.versions + 1], self.published[self.newest] = self.newest, cqueues.monotime()
    publish(self, "swapped", self.newest)
  end
  local file = assert(io.open(root .. "/batched/1/model.onnx", "rb"))
  self.half = file:read "*a"
  file:close()
  self.half = self.half:sub(1, math.floor(#self.half / 2))
  return self
end

return M
