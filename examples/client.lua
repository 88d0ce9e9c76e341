-- Asks a running server. In the checkout, after `make demo` or examples/cancer.lua:
--   bin/mlserve serve --model cancer=models/cancer
--   lua5.4 examples/client.lua [URL [MODEL]]
local mlserve = require "mlserve"

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local url, model = arg[1] or "http://127.0.0.1:8501", arg[2] or "cancer"

-- KServe's protocol: tensors travel as bytes. protocol = "tfserving" gives the same answers from JSON.
local client = assert(mlserve.client { url = url, protocol = "kserve", timeout = { connect = 1, request = 5 } })

local ready, message, code = client:ready(model)
if not ready then
  io.stderr:write(("%s does not answer at %s: %s (%s)\n"):format(model, url, message, code))
  os.exit(1)
end

-- What does it take, and what does it give?
local metadata = assert(client:metadata(model))
for _, name in ipairs(metadata.input_names) do
  print(("input   %s %s (%s)"):format(name, metadata.inputs[name].dtype, table.concat(metadata.inputs[name].shape, ", ")))
end
for _, name in ipairs(metadata.output_names) do
  print(("output  %s %s (%s)"):format(name, metadata.outputs[name].dtype, table.concat(metadata.outputs[name].shape, ", ")))
end

-- All patients at once. A tensor, a nested array, or a table of inputs by name would do as well.
local set = assert(mlserve.data.csv(here .. "/data/breast_cancer.csv", { label = "diagnosis" }))
local scores = assert(client:predict(model, set))
local right = 0
for i = 1, #scores do
  if (scores:get(i, 1) > 0.5 and 1 or 0) == set.class_ids:get(i) then right = right + 1 end
end
print(("%d of %d patients are classified right"):format(right, #scores))

-- What a server refuses is no error of the program: nil, message, code.
print(select(2, client:predict(model, { { 1, 2, 3 } })))

for _, each in ipairs(assert(client:statistics(model))) do
  print(("version %s has predicted %d rows in %d requests"):format(each.version, each.inference_count, each.execution_count))
end
client:close()
