-- Datasets from files and from memory: types, labels, splits, messages. Totals of stratified splits are scikit-learn's
-- (train_test_split with stratify), summaries are NumPy's, class weights are compute_class_weight("balanced").

local core = require "mlserve.core"
local data = require "mlserve.data"

local function fails(words, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
  assert.is_falsy(tostring(message):find("mlserve[/\\]%a+%.lua:%d"), "not the caller's position: " .. tostring(message))
end

local function refuses(words, set, message)
  assert.is_nil(set)
  assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
end

local penguins = [[
species,island,beak,mass,sex
Adelie,Torgersen,39.1,3750,MALE
Adelie,Torgersen,,,
Gentoo,Biscoe,46.1,4500,FEMALE
Chinstrap,Dream,46.5,3500,FEMALE
Gentoo,Biscoe,50,5700,MALE
Adelie,"Dream, north",39.5,3250,NA
]]

local pairs_csv = "a,b,kind\n1,10,good\n2,20,bad\n3,30,good\n4,40,good\n"

describe("data.csv_text", function()
  it("makes 0 and 1 of two classes, in sorted order", function()
    local set = assert(data.csv_text(pairs_csv, { label = "kind" }))
    assert.equal(4, #set)
    assert.equal("4 rows x 2 features, 2 classes (bad 1, good 3)", tostring(set))
    assert.same({ "bad", "good" }, set.classes)
    assert.same({ "a", "b" }, set.feature_names)
    assert.equal("binary", set.task)
    assert.equal("float32", set.labels:dtype())
    assert.same({ { 1 }, { 0 }, { 1 }, { 1 } }, set.labels:totable())
    assert.equal("float32", set.features:dtype())
    assert.same({ { 1, 10 }, { 2, 20 }, { 3, 30 }, { 4, 40 } }, set.features:totable())
    assert.equal(set.features, set:inputs())
    assert.is_true(data.is_dataset(set))
    assert.is_false(data.is_dataset(set.features))
  end)

  it("makes ids of more classes, and groups numbers beside texts", function()
    local set = assert(data.csv_text(penguins, { label = "species" }))
    assert.equal("6 rows x 4 features, 3 classes (Adelie 3, Chinstrap 1, Gentoo 2)", tostring(set))
    assert.equal("int64", set.labels:dtype())
    assert.same({ 0, 0, 2, 1, 2, 0 }, set.labels:totable())
    local inputs = set:inputs()
    assert.same({ 6, 2 }, inputs.numeric:shape())
    assert.same({ 6, 1 }, inputs.island:shape())
    assert.same({ "Dream, north" }, inputs.island:totable()[6])
    assert.same({ { "MALE" }, { "" }, { "FEMALE" }, { "FEMALE" }, { "MALE" }, { "" } }, set.text.sex:totable())
    local missing = set:column("mass"):totable()[2]
    assert.is_true(missing ~= missing)
    assert.equal(set.labels, set:column("species"))
  end)

  it("tells classes from a quantity", function()
    local digits = assert(data.csv_text("x,y\n1,2\n2,10\n3,2\n4,1\n5,1\n6,10\n", { label = "y" }))
    assert.same({ "1", "2", "10" }, digits.classes)
    assert.same({ 1, 2, 1, 0, 0, 2 }, digits.labels:totable())
    local prices = assert(data.csv_text("x,y\n1,2.5\n2,10\n3,2\n", { label = "y" }))
    assert.equal("regression", prices.task)
    assert.is_nil(prices.classes)
    assert.same({ { 2.5 }, { 10 }, { 2 } }, prices.labels:totable())
    assert.equal("3 rows x 1 feature, regression target 'y'", tostring(prices))
    local forced = assert(data.csv_text("x,y\n1,0\n2,1\n3,0\n", { label = "y", task = "regression" }))
    assert.equal("regression", forced.task)
    local flags = assert(data.csv_text("x,y\n1,0\n2,1\n3,0\n", { label = "y", task = "categorical" }))
    assert.same({ 0, 1, 0 }, flags.labels:totable())
    refuses("holds text", data.csv_text(pairs_csv, { label = "kind", task = "regression" }))
    refuses("takes two classes, the labels have 3", data.csv_text(penguins, { label = "species", task = "binary" }))
  end)

  it("keeps a given order of classes", function()
    local set = assert(data.csv_text(pairs_csv, { label = "kind", classes = { "good", "bad" } }))
    assert.same({ { 0 }, { 1 }, { 0 }, { 0 } }, set.labels:totable())
    set = assert(data.csv_text("x,y\n1,2\n2,0\n", { label = "y", classes = { 0, 1, 2 } }))
    assert.same({ 2, 0 }, set.labels:totable())
    assert.same({ "0", "1", "2" }, set.classes)
    refuses("row 2: label 'bad' is none of the classes good", data.csv_text(pairs_csv, { label = "kind", classes = { "good" } }))
  end)

  it("chooses columns and types", function()
    local set = assert(data.csv_text(penguins, { label = "species", columns = { "mass", "island" } }))
    assert.same({ "mass" }, set.feature_names)
    assert.same({ "island" }, set.text_names)
    set = assert(data.csv_text(penguins, { label = 1, ignore = { "sex", -3, 2 } }))
    assert.same({ "mass" }, set.feature_names)
    assert.equal("species", set.label_name)
    set = assert(data.csv_text(pairs_csv, { label = -1, types = { a = "text" } }))
    assert.same({ { "1" }, { "2" }, { "3" }, { "4" } }, set.text.a:totable())
    set = assert(data.csv_text("1;2\n3;4\n", { header = false, delimiter = ";", label = "column_2", task = "regression" }))
    assert.same({ "column_1" }, set.feature_names)
    set = assert(data.csv_text("a,b\n-1,x\n1,none\n", { missing = { "-1", "none" } }))
    assert.is_nil(set.labels)
    assert.same({ { "x" }, { "" } }, set.text.b:totable())
    assert.equal("2 rows x 2 features, no labels", tostring(set))
  end)

  it("says where data is bad", function()
    refuses("text:3: the row has 1 cell, the header has 2", data.csv_text("a,b\n1,2\n3\n"))
    refuses("text:2: column 2 (b): 'x' is not a number", data.csv_text("a,b\n1,x\n", { types = { b = "number" } }))
    refuses("text:3: column 2 (b): the value is missing", data.csv_text("a,b\n1,2\n3,\n", { label = "b" }))
    refuses("no column named 'c'; the columns are a, b", data.csv_text("a,b\n1,2\n", { label = "c" }))
    refuses("never closed", data.csv_text('a,b\n1,"2\n'))
    refuses("the file is empty", data.csv_text(""))
    refuses("have the same name 'a'", data.csv_text("a,a\n1,2\n"))
    refuses("no feature columns", data.csv_text("a\n1\n", { label = "a" }))
    refuses("nowhere.csv", data.csv("nowhere.csv"))
    fails("unknown option 'lable'; the options are classes, columns,", data.csv, "x.csv", { lable = "a" })
    fails("option 'header' must be a boolean, got string", data.csv, "x.csv", { header = "no" })
    fails("task must be", data.csv, "x.csv", { task = "clustering" })
    fails('must be "text" or "number"', data.csv, "x.csv", { types = { a = "int" } })
    fails("a path expected, got nil", data.csv)
    fails("no column 9 among 3", data.csv_text, pairs_csv, { label = 9 })
  end)
end)

describe("data.jsonl_text", function()
  it("reads objects", function()
    local set = assert(data.jsonl_text('{"x":1,"ok":true,"w":"a"}\n{"x":2.5,"ok":false}\n', { label = "ok" }))
    assert.same({ { 1 }, { 2.5 } }, set.features:totable())
    assert.same({ { 1 }, { 0 } }, set.labels:totable())
    assert.same({ { "a" }, { "" } }, set.text.w:totable())
    refuses("text:2:", data.jsonl_text('{"x":1}\n{"x":}\n'))
    refuses("nested", data.jsonl_text('{"x":[1]}\n'))
  end)
end)

describe("data.dataset", function()
  it("takes tensors and tables", function()
    local set = assert(data.dataset({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, { 0, 1, 1 }))
    assert.equal("3 rows x 2 features, 2 classes (0 1, 1 2)", tostring(set))
    assert.same({ { 0 }, { 1 }, { 1 } }, set.labels:totable())
    local ids = core.tensor({ 0, 3, 3, 1 }, "int64")
    set = assert(data.dataset(core.zeros { 4, 2, 2, 1 }, ids, { classes = { "a", "b", "c", "d" } }))
    assert.same({ 4, 2, 2, 1 }, set.features:shape())
    assert.same({ 0, 3, 3, 1 }, set.labels:totable())
    assert.equal("4 rows x 1 feature, 4 classes (a 1, b 1, c 0, d 2)", tostring(set))
    assert.same({ 2, 2, 2, 1 }, set:rows(2, 3).features:shape())
    set = assert(data.dataset({ { 1 }, { 2 }, { 3 } }, { "no", "yes", "no" }))
    assert.same({ "no", "yes" }, set.classes)
    set = assert(data.dataset({ { 1 }, { 2 } }, { { 0, 0, 1 }, { 1, 0, 0 } }, { task = "categorical" }))
    assert.same({ 2, 3 }, set.labels:shape())
    assert.equal("2 rows x 1 feature, 3 classes (0 1, 1 0, 2 1)", tostring(set))
    set = assert(data.dataset({ 1, 2, 3 }, { 0.5, 1, 2 }))
    assert.equal("regression", set.task)
    assert.same({ 3, 1 }, set.features:shape())
    set = assert(data.dataset({ { 1 }, { 2 }, { 3 } }, { -1, 1, -1 }))
    assert.same({ "-1", "1" }, set.classes)
    set = assert(data.table { features = { { 1 }, { 2 } }, labels = { { 1, 2 }, { 3, 4 } } })
    assert.same({ { 1, 2 }, { 3, 4 } }, set.labels:totable())
    set = assert(data.dataset { a = { { 1 }, { 2 } }, b = core.tensor({ { "x" }, { "y" } }, "string") })
    assert.same({ { "y" } }, set:rows(2):inputs().b:totable())
    assert.equal("2 rows x 2 inputs, no labels", tostring(set))
  end)

  it("refuses what does not fit", function()
    refuses("3 rows of features and 2 of labels", data.dataset({ 1, 2, 3 }, { 0, 1 }))
    local two = { task = "categorical", classes = { "a", "b" } }
    refuses("a label is class 2, but 2 classes are named", data.dataset({ 1, 2, 3 }, { 0, 1, 2 }, two))
    refuses("a label is missing", data.dataset({ 1, 2 }, { 0, 0 / 0 }))
    refuses("row 2 of the labels is not one-hot", data.dataset({ 1, 2 }, { { 1, 0 }, { 0, 0 } }, { task = "categorical" }))
    fails("features expected, got nil", data.dataset)
    fails("unknown option 'label'", data.table, { features = { 1 }, label = { 1 } })
  end)
end)

describe("data.from_columns", function()
  it("sorts columns by name unless told otherwise", function()
    local columns = { b = { 1, 2 }, a = { 3, 4 }, w = { "x", "" }, y = { "p", "q" } }
    local set = assert(data.from_columns(columns, { label = "y" }))
    assert.same({ { 3, 1 }, { 4, 2 } }, set.features:totable())
    assert.same({ "w" }, set.text_names)
    set = assert(data.from_columns(columns, { label = "y", columns = { "b", "a" } }))
    assert.same({ { 1, 3 }, { 2, 4 } }, set.features:totable())
    assert.same({}, set.text_names)
    set = assert(data.from_columns { { name = "z", values = { 1, 2 } }, { name = "a", values = { 3, 4 } } })
    assert.same({ "z", "a" }, set.feature_names)
    fails("column 'b' has 1 rows, column 'a' has 2", data.from_columns, { a = { 1, 2 }, b = { 1 } })
    fails("no column named 'q'", data.from_columns, { a = { 1, 2 } }, { label = "q" })
  end)
end)

describe("a dataset", function()
  local function many(n, share)
    local x, y = {}, {}
    for i = 1, n do
      x[i] = { i }
      y[i] = i <= share and "yes" or "no"
    end
    return assert(data.dataset(x, y))
  end

  local function column(set)
    local out = {}
    for i, row in ipairs(set.features:totable()) do out[i] = row[1] end
    return out
  end

  it("is chosen from by rows", function()
    local set = assert(data.csv_text(penguins, { label = "species" }))
    local part = set:rows(3, 4)
    assert.equal(2, #part)
    assert.same({ 2, 1 }, part.labels:totable())
    assert.equal("2 rows x 4 features, 3 classes (Adelie 0, Chinstrap 1, Gentoo 1)", tostring(part))
    part = set:take { 6, 1, 6 }
    assert.same({ { "Dream, north" }, { "Torgersen" }, { "Dream, north" } }, part.text.island:totable())
    part = set:take(core.tensor({ 2 }, "int32"))
    assert.equal(1, #part)
    fails("within 1 to 6", set.rows, set, 3, 7)
    fails("row 7 is outside 1 to 6", set.take, set, { 7 })
    fails("no row numbers", set.take, set, {})
    fails("a dataset does not change", function() set.size = 3 end)
  end)

  it("splits in scikit-learn's proportions", function()
    -- train_test_split(test_size=…, stratify=y) leaves these counts in the test part
    for _, case in ipairs { { 569, 212, 0.2, 114, 42 }, { 100, 33, 0.25, 25, 8 }, { 17, 5, 0.3, 6, 2 }, { 11, 4, 4, 4, 1 } } do
      local n, share, test, size, positives = case[1], case[2], case[3], case[4], case[5]
      local set = many(n, share)
      local train_part, test_part = set:split { test = test, stratify = true, seed = 7 }
      assert.equal(size, #test_part)
      assert.equal(n - size, #train_part)
      local yes = 0
      for _, row in ipairs(test_part.labels:totable()) do yes = yes + row[1] end
      assert.equal(positives, yes)
      local all = column(train_part)
      for _, value in ipairs(column(test_part)) do all[#all + 1] = value end
      table.sort(all)
      for i = 1, n do assert.equal(i, all[i]) end
    end
  end)

  it("splits and shuffles by seed alone", function()
    local set = many(40, 10)
    local a = column((set:split { seed = 3 }))
    assert.same(a, column((set:split { seed = 3 })))
    assert.is_not.same(a, column((set:split { seed = 4 })))
    local shuffled = column(set:shuffle(5))
    assert.same(shuffled, column(set:shuffle(5)))
    assert.is_not.same(column(set), shuffled)
    local first, last = set:split { test = 8, shuffle = false }
    assert.equal(32, column(first)[32])
    assert.equal(33, column(last)[1])
    fails("unknown option 'tset'", set.split, set, { tset = 0.1 })
    fails("a share between 0 and 1", set.split, set, { test = -1 })
    fails("leaves nothing of 40", set.split, set, { test = 40 })
    fails("class 'yes' has a single row", many(4, 1).split, many(4, 1), { stratify = true })
    fails("needs class labels", function() assert(data.dataset({ 1, 2 }, { 0.5, 1.5 })):split { stratify = true } end)
  end)

  it("describes its columns", function()
    local set = assert(data.from_columns({ v = { 4, 1, 3, 2, 0 / 0, 10 }, w = { "a", "b", "", "b", "c", "a" } }))
    local description = set:describe()
    local v, w = description.columns[1], description.columns[2]
    assert.equal(6, description.rows)
    assert.same({ 5, 1, 4, 1, 2, 3, 4, 10 }, { v.count, v.missing, v.mean, v.min, v.quartile_1, v.median, v.quartile_3, v.max })
    assert.is_true(math.abs(v.stddev - 3.5355339) < 1e-6)
    assert.same({ 5, 1, 3, "a", 2 }, { w.count, w.missing, w.distinct, w.top, w.top_count })
    assert.is_truthy(tostring(description):find("text, 3 distinct, most often 'a' (2)", 1, true))
  end)

  it("weighs classes", function()
    local weights, by_name = many(10, 3):class_weights()
    assert.is_true(math.abs(weights[1] - 10 / 14) < 1e-12)
    assert.is_true(math.abs(by_name.yes - 10 / 6) < 1e-12)
    fails("no class labels", function() assert(data.dataset({ 1, 2 }, { 0.5, 1.5 })):class_weights() end)
  end)

  it("checks itself for training", function()
    local ok, notes = assert(data.csv_text(penguins, { label = "species" })):check()
    assert.is_true(ok)
    assert.same({
      "column 'beak' lacks 1 of 6 values", "column 'mass' lacks 1 of 6 values", "column 'sex' lacks 2 of 6 values",
    }, notes)
    refuses("all 3 rows belong to one class, 'yes'", many(3, 3):check())
    refuses("no labels", assert(data.dataset { 1, 2 }):check())
    refuses("infinite", assert(data.dataset({ 1, math.huge }, { 0, 1 })):check())
  end)

  it("is written and read again", function()
    local path = os.tmpname()
    local set = assert(data.csv_text(penguins, { label = "species" }))
    assert.is_true(assert(set:save_csv(path)))
    local again = assert(data.csv(path, { label = "species" }))
    os.remove(path)
    assert.equal(tostring(set), tostring(again))
    assert.same(set.labels:totable(), again.labels:totable())
    assert.same(set.text.island:totable(), again.text.island:totable())
    assert.same(set.features:rows(3):totable(), again.features:rows(3):totable())
  end)
end)
