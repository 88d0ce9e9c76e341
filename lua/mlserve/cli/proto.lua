--- `mlserve proto`: the .proto files of the protocols that the server speaks.
-- @module mlserve.cli.proto

local proto = require "mlserve.proto"

local format = string.format

local verb = { summary = "print the .proto files of the gRPC services" }

verb.description = [[Without arguments, lists the .proto files; with names of files, services or messages, prints the files; with -o, writes all
of them into a directory, from which protoc makes clients.]]

function verb.parser(parser)
  parser:argument("name", "A file (grpc_service.proto) or what it defines (inference.GRPCInferenceService)."):args "*"
  parser:option("-o --output", "Write all files into this directory."):argname("DIRECTORY")
  parser:epilog [[Example:
  mlserve proto -o protos
  python3 -m grpc_tools.protoc -I protos --python_out=. --grpc_python_out=. grpc_service.proto model_config.proto]]
end

local function write_all(directory)
  local core = require "mlserve.core"
  for _, name in ipairs(proto.names()) do
    local path = directory .. "/" .. name
    local text, ok, message
    text, message = proto.source(name)
    if not text then return nil, message end
    ok, message = core.make_directories((path:gsub("/[^/]*$", "")))
    if not ok then return nil, message end
    ok, message = core.file_write(path, text)
    if not ok then return nil, message end
  end
  return 0
end

function verb.run(args)
  local schema
  if args.output then
    if args.name[1] then return nil, "-o writes all files: no names expected", 2 end
    return write_all(args.output)
  end
  if not args.name[1] then
    io.write(table.concat(proto.names(), "\n"), "\n")
    return 0
  end
  for _, name in ipairs(args.name) do
    local text, message = proto.source(name)
    if not text then
      if not schema then
        schema = proto.schema()
        for _, file in ipairs(proto.names()) do schema:load(file) end
      end
      local file = schema:file_of(name)
      if not file then return nil, format("no .proto file, service or message '%s' (mlserve proto lists the files)", name) end
      text, message = proto.source(file)
    end
    if not text then return nil, message end
    io.write(text)
  end
  return 0
end

return verb
