--- Preprocessing as layers: what they learn from the training data is stored in the graph, so that serving cannot differ from training.
-- Normalization, Imputer, StringLookup and OneHot learn when the model is built for the first time (the first fit), or earlier
-- by layer:adapt(tensor).
-- @module mlserve.nn.preprocessing

local core = require "mlserve.core"
local layer = require "mlserve.nn.layer"
local merging = require "mlserve.nn.merging"

local format = string.format

local preprocessing = {}

-- Statistics of each feature (last axis), missing values left out.
local function describe_features(self, tensor)
  local columns = {}
  local shape
  tensor = core.tensor(tensor)
  shape = tensor:shape()
  if tensor:dtype() == "string" then error(format("%s: numbers expected, got text", self.kind), 0) end
  tensor = tensor:reshape { -1, #shape > 1 and shape[#shape] or 1 }
  for i = 1, tensor:shape()[2] do columns[i] = core.describe_column(tensor, i) end
  return columns
end

local function array(columns, value)
  local values = {}
  for i, column in ipairs(columns) do values[i] = value(column) end
  return values
end

--- Normalization: (x - mean) / stddev for each feature (last axis), with the mean and the population standard deviation of the
--- training data; NaN is left out when learning and passes through. A feature that never changes is only centred.
--- Options: mean, variance (numbers or arrays), instead of learning.
preprocessing.Normalization = layer.define {
  kind = "Normalization",
  options = { mean = { type = { "number", "table" } }, variance = { type = { "number", "table" } } },
  check = function(self)
    if (self.mean == nil) ~= (self.variance == nil) then error("Normalization: mean and variance belong together", 4) end
    if not self.mean then return end
    local variances, deviations = type(self.variance) == "table" and self.variance or { self.variance }, {}
    for i, variance in ipairs(variances) do deviations[i] = math.sqrt(variance) end
    self.learned = { mean = type(self.mean) == "table" and self.mean or { self.mean }, stddev = deviations }
  end,
  learn = function(self, tensor)
    local columns = describe_features(self, tensor)
    return {
      mean = array(columns, function(c) return c.count > 0 and c.mean or 0 end),
      stddev = array(columns, function(c)
        local variance = c.count > 1 and c.stddev ^ 2 * (c.count - 1) / c.count or 0
        return variance > 0 and math.sqrt(variance) or 1
      end),
    }
  end,
  build = function(_, b, x, learned)
    local centred = b:node("Sub", { x[1], b:constant("mean", learned.mean, b:dtype(x[1])) })
    return b:node("Div", { centred, b:constant("stddev", learned.stddev, b:dtype(x[1])) })
  end,
}

--- Rescaling { scale, offset = 0 }: x scale + offset.
preprocessing.Rescaling = layer.define {
  kind = "Rescaling",
  options = { scale = { type = "number", required = true, position = 1 }, offset = { type = "number", default = 0, position = 2 } },
  build = function(self, b, x)
    local y = b:node("Mul", { x[1], b:constant("scale", self.scale, b:dtype(x[1])) })
    if self.offset == 0 then return y end
    return b:node("Add", { y, b:constant("offset", self.offset, b:dtype(x[1])) })
  end,
  describe = function(self) return format("x %g + %g", self.scale, self.offset) end,
}

local fill = {
  mean = function(column) return column.count > 0 and column.mean or 0 end,
  median = function(column) return column.count > 0 and column.median or 0 end,
}

--- Imputer { strategy = "mean" | "median" | "constant", fill_value = 0 }: puts a value in the place of NaN, for each feature (last
--- axis); a feature without any value gets 0.
preprocessing.Imputer = layer.define {
  kind = "Imputer",
  options = {
    strategy = { type = "string", choices = { "mean", "median", "constant" }, default = "mean", position = 1 },
    fill_value = { type = "number", default = 0 },
  },
  check = function(self)
    if self.strategy == "constant" then self.learned = { fill = self.fill_value } end
  end,
  learn = function(self, tensor) return { fill = array(describe_features(self, tensor), fill[self.strategy]) } end,
  build = function(_, b, x, learned)
    return b:node("Where", { b:node("IsNaN", x), b:constant("fill", learned.fill, b:dtype(x[1])), x[1] })
  end,
  describe = function(self) return self.strategy end,
}

-- The texts of a tensor, most frequent first (as they sort when equally frequent), at most `most`; missing ones are left out.
local function vocabulary_of(self, tensor, most)
  local counts, words = {}, {}
  tensor = core.tensor(tensor)
  if tensor:dtype() ~= "string" then error(format("%s: text expected, got %s", self.kind, tensor:dtype()), 0) end
  for _, word in ipairs(tensor:reshape({ -1 }):totable()) do
    if word ~= "" then
      if not counts[word] then words[#words + 1] = word end
      counts[word] = (counts[word] or 0) + 1
    end
  end
  table.sort(words, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] > counts[b] end
    return a < b
  end)
  for i = #words, (most or #words) + 1, -1 do words[i] = nil end
  return { words = words }
end

-- Texts to ids: 0 for unknown and missing ones, i for the i-th word.
local function lookup(b, x, words)
  local ids = {}
  for i in ipairs(words) do ids[i] = i end
  if #words == 0 then error("a vocabulary without words", 0) end
  return b:node("ai.onnx.ml.LabelEncoder", { x }, { keys_strings = words, values_int64s = ids, default_int64 = 0 })
end

-- (rows, 1) or (rows) ids to (rows, depth) float32
local function one_hot(b, ids, depth)
  local shape = b:shape(ids)
  if #shape > 2 or (#shape == 2 and shape[2] ~= 1) then error("one id a row expected: an input of shape (rows) or (rows, 1)", 0) end
  local hot = b:node("OneHot", { ids, b:constant("depth", depth, "int64"), b:constant("values", { 0, 1 }) }, { axis = -1 })
  if #shape == 1 then return hot end
  return b:node("Reshape", { hot, b:constant("shape", { 0, depth }, "int64") })
end

local text_options = {
  vocabulary = { type = "table", position = 1 },
  max_tokens = { type = "integer", min = 1 },
}

local function check_vocabulary(self)
  if self.vocabulary then self.learned = { words = self.vocabulary } end
end

local function learn_vocabulary(self, tensor) return vocabulary_of(self, tensor, self.max_tokens) end

local function describe_vocabulary(self) return self.learned and format("%d words", #self.learned.words) or "" end

--- StringLookup { vocabulary, max_tokens }: text to int64 ids; 0 for unknown words, i for the i-th of the vocabulary.
preprocessing.StringLookup = layer.define {
  kind = "StringLookup", options = text_options, check = check_vocabulary, learn = learn_vocabulary, describe = describe_vocabulary,
  build = function(_, b, x, learned) return lookup(b, x[1], learned.words) end,
}

--- CategoryEncoding { num_tokens }: one id a row (from 0) to a vector with 1 at its place.
preprocessing.CategoryEncoding = layer.define {
  kind = "CategoryEncoding",
  options = { num_tokens = { type = "integer", min = 1, required = true, position = 1 } },
  build = function(self, b, x)
    local ids = x[1]
    if b:dtype(ids) ~= "int64" then ids = b:node("Cast", { ids }, { to = 7 }) end -- 7: INT64
    return one_hot(b, ids, self.num_tokens)
  end,
  describe = function(self) return format("%d", self.num_tokens) end,
}

--- OneHot { vocabulary, max_tokens }: one text a row to a vector; place 1 is for unknown and missing texts, place i + 1 for the i-th
--- word of the vocabulary.
preprocessing.OneHot = layer.define {
  kind = "OneHot", options = text_options, check = check_vocabulary, learn = learn_vocabulary, describe = describe_vocabulary,
  build = function(_, b, x, learned) return one_hot(b, lookup(b, x[1], learned.words), #learned.words + 1) end,
}

--- Features { strategy = "median" }: all columns of a data set as one vector. Numbers go through Imputer and Normalization, each
--- text column through OneHot. The first layer of a Sequential for data with text columns.
preprocessing.Features = layer.define {
  kind = "Features",
  many = true,
  options = {
    strategy = { type = "string", choices = { "mean", "median" }, default = "median", position = 1 },
    max_tokens = { type = "integer", min = 1 },
  },
  build = function(self, b, x)
    local parts = {}
    self.parts = self.parts or {} -- the same inner layers whenever this layer is used
    for i, value in ipairs(x) do
      local inner = self.parts[i]
      if b:dtype(value) == "string" then
        inner = inner or { preprocessing.OneHot { max_tokens = self.max_tokens } }
      else
        inner = inner or { preprocessing.Imputer { self.strategy }, preprocessing.Normalization() }
      end
      self.parts[i] = inner
      for _, part in ipairs(inner) do value = b:apply(part, { value }) end
      parts[i] = value
    end
    return #parts == 1 and parts[1] or b:apply(merging.Concatenate(), parts)
  end,
}

return preprocessing
