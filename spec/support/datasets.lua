--- The tables of examples/data as datasets, read once.
local data = require "mlserve.data"

local folder = debug.getinfo(1, "S").source:match("^@(.*)spec/support/[^/]*$") or "./"
local datasets, cache = {}, {}

local function reader(file, label)
  return function()
    if not cache[file] then cache[file] = assert(data.csv(folder .. "examples/data/" .. file, { label = label })) end
    return cache[file]
  end
end

datasets.breast_cancer = reader("breast_cancer.csv", "diagnosis")
datasets.digits = reader("digits.csv", "digit")
datasets.penguins = reader("penguins.csv", "species")
datasets.folder = folder

return datasets
