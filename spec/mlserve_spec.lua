local mlserve = require "mlserve"

describe("mlserve", function()
  it("says what runs", function()
    local info = mlserve.info()
    assert.equal(info.version, mlserve._VERSION)
    assert.is_string(info.isa)
    assert.is_string(info.blas)
    assert.is_string(info.lua)
    assert.is_true(info.threads >= 1)
  end)

  it("loads its modules when they are asked for", function()
    assert.equal(require "mlserve.nn", mlserve.nn)
    assert.equal(require "mlserve.data", mlserve.data)
    assert.equal(require "mlserve.metrics", mlserve.metrics)
    assert.is_nil(mlserve.nothing)
  end)

  it("sets no globals", function()
    for _, name in ipairs { "mlserve", "nn", "core", "tensor", "data", "model" } do assert.is_nil(rawget(_G, name)) end
  end)

  describe("tensor", function()
    local tensor = mlserve.tensor

    it("is made of nested tables", function()
      local x = tensor { { 1, 2, 3 }, { 4, 5, 6 } }
      assert.same({ 2, 3 }, x:shape())
      assert.equal("float32", x:dtype())
      assert.equal(6, x:get(2, 3))
      assert.equal(2, #x)
      assert.same({ { 4, 5, 6 } }, x:rows(2, 2):totable())
    end)

    it("knows other dtypes", function()
      assert.equal("int64", tensor({ 1, 2 }, "int64"):dtype())
      assert.equal("string", tensor({ "a", "b" }):dtype())
      assert.equal("bool", tensor({ true, false }):dtype())
    end)

    it("tells tensors from other values", function()
      assert.is_true(tensor.is(tensor.zeros { 2 }))
      assert.is_false(tensor.is {})
      assert.is_false(tensor.is(io.stdout))
      assert.is_false(tensor.is(nil))
    end)

    it("names the place of a ragged row", function()
      local ok, message = pcall(tensor, { { 1, 2 }, { 3 } })
      assert.is_false(ok)
      assert.matches("%[2%]", message)
    end)
  end)

  it("answers nil and a message for a model that is not there", function()
    local model, message = mlserve.load "no/such/model.onnx"
    assert.is_nil(model)
    assert.matches("no/such/model.onnx", message, 1, true)
    model, message = mlserve.load "no/such/directory"
    assert.is_nil(model)
    assert.is_string(message)
  end)
end)
