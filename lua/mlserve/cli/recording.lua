--- Records what a model answers as a case of `mlserve verify`: model.onnx and test_data_set_N/{input,output}_N.pb.
--
-- A data set is written beside its place and renamed into it, a new case likewise as a whole, so that a reader sees all of it or nothing.
-- @module mlserve.cli.recording

local core = require "mlserve.core"

local random_input = require "mlserve.cli.random_input"
local storage = require "mlserve.storage"

local insert = table.insert
local format = string.format

local recording = {}

local function read(path)
  local file, message = io.open(path, "rb")
  local bytes
  if not file then return nil, message end
  bytes, message = file:read("*a")
  file:close()
  return bytes, message
end

-- ---- inputs ----

--- "NAME=FILE"; a converter for argparse.
function recording.input(text)
  local name, path = text:match("^([^=]+)=(.+)$")
  if not name then return nil, format("NAME=FILE.npy expected, got '%s'", text) end
  return { name = name, path = path }
end

local function load_tensor(entry, wanted)
  local tensor, message
  if entry.path:find("%.pb$") then
    tensor, message = core.tensor_pb_load(entry.path)
  else
    tensor, message = core.npy_load(entry.path)
  end
  if not tensor then return nil, message end
  if tensor:dtype() ~= wanted.dtype and (tensor:dtype() == "string" or wanted.dtype == "string") then
    return nil, format("%s: input '%s' is %s, the file holds %s", entry.path, wanted.name, wanted.dtype, tensor:dtype())
  end
  return tensor:dtype() == wanted.dtype and tensor or tensor:cast(wanted.dtype)
end

-- The given files, by name; where none is given, random numbers of the declared types.
local function make_inputs(graph, args, set)
  local wanted, by_name, names, list = graph:inputs(), {}, {}, {}
  for _, entry in ipairs(args.input or {}) do
    if by_name[entry.name] then return nil, format("input '%s' is given twice", entry.name) end
    by_name[entry.name] = entry
  end
  for i, input in ipairs(wanted) do
    local entry = by_name[input.name]
    local message
    insert(names, input.name)
    by_name[input.name] = nil
    if entry then
      list[i], message = load_tensor(entry, input)
    else
      list[i], message = random_input.draw(input, args.batch or 1, args.shape, (args.seed or 0) + set, i)
    end
    if not list[i] then return nil, message end
  end
  local unknown = next(by_name)
  if unknown then return nil, format("the model has no input '%s' (inputs: %s)", unknown, table.concat(names, ", ")) end
  return list
end

-- ---- directories ----

-- What can be removed at once is: a link goes, never what it leads to.
local function remove_tree(path)
  if os.remove(path) then return true end
  for _, name in ipairs(core.list_directory(path) or {}) do remove_tree(path .. "/" .. name) end
  return os.remove(path)
end

-- The next free number of a data set, and whether the directory is a case already. Nothing but a case is ever added to or replaced.
local function survey(directory)
  local names, next_set = core.list_directory(directory), 0
  local is_case = false
  if not names then return 0, false end
  for _, name in ipairs(names) do
    local number = name:match("^test_data_set_(%d+)$")
    if number then
      next_set = math.max(next_set, tonumber(number) + 1)
    elseif name == "model.onnx" then
      is_case = true
    elseif name ~= "data.json" and not name:find("^%.recording%-") then
      return nil, format("%s is no case: it holds %s", directory, name)
    end
  end
  if not is_case and next_set > 0 then return nil, format("%s has data sets and no model.onnx", directory) end
  return next_set, is_case
end

-- The model as it lies in its file; one with external data as a file of its own, since a case holds no other files.
local function model_bytes(path, graph)
  local bytes, message = read(path)
  local alone
  if not bytes then return nil, message end
  alone = core.onnx_parse(bytes, path)
  if alone then
    alone:close()
    return bytes
  end
  return core.onnx_bytes(graph)
end

local function write_set(directory, signature, inputs, outputs)
  local ok, message = core.make_directories(directory)
  for i, tensor in ipairs(inputs) do
    if ok then ok, message = core.tensor_pb_save(format("%s/input_%d.pb", directory, i - 1), tensor, signature.inputs[i].name) end
  end
  for i, tensor in ipairs(outputs) do
    if ok then ok, message = core.tensor_pb_save(format("%s/output_%d.pb", directory, i - 1), tensor, signature.outputs[i].name) end
  end
  return ok, message
end

-- Puts what `write` fills a directory with in the place of `target`; `old`: of what lies there.
local function install(target, scratch, old, write)
  local ok, message
  remove_tree(scratch)
  ok, message = write(scratch)
  if ok and old then
    remove_tree(old)
    ok, message = os.rename(target, old)
  end
  if ok then ok, message = os.rename(scratch, target) end
  if not ok then
    remove_tree(scratch)
    return nil, message
  end
  if old then remove_tree(old) end
  return true
end

--- Runs a model once and records it.
---@param args table record, model, input, shape, batch, seed, level, force
---@return table|nil { case, set, inputs, outputs }
---@return string|nil message
function recording.record(args)
  local directory = args.record:gsub("(.)/+$", "%1")
  local parent, name = directory:match("^(.*/)([^/]*)$")
  local path, graph, bytes, set, known, inputs, outputs, message, ok, signature, place
  path, message = storage.find(args.model)
  if not path then return nil, message end
  graph, message = core.onnx_load(path)
  if not graph then return nil, message end
  bytes, message = model_bytes(path, graph)
  if not bytes then return nil, message end
  set, known = survey(directory)
  if not set then return nil, known end
  if known and not args.force and read(directory .. "/model.onnx") ~= bytes then
    return nil, format("%s holds a case of another model: name another directory, or say --force to replace it", directory)
  end
  if args.force then set = 0 end
  inputs, message = make_inputs(graph, args, set)
  if not inputs then return nil, message end
  outputs, message = core.program(graph, { level = args.level or "none" }):run(inputs)
  if not outputs then return nil, message end
  signature = { inputs = graph:inputs(), outputs = graph:outputs() }
  place = format("%s/test_data_set_%d", directory, set)
  if known and not args.force then
    ok, message = install(place, format("%s/.recording-%d", directory, set), nil, function(scratch)
      return write_set(scratch, signature, inputs, outputs)
    end)
  else
    ok, message = install(directory, format("%s.recording-%s", parent or "", name or directory), known
      and format("%s.replaced-%s", parent or "", name or directory), function(scratch)
      local written, why = core.file_write(scratch .. "/model.onnx", bytes)
      if not written then return nil, why end
      return write_set(scratch .. "/test_data_set_0", signature, inputs, outputs)
    end)
  end
  if not ok then return nil, message end
  return { case = directory, set = set, inputs = #inputs, outputs = #outputs }
end

return recording
