-- ImageDecoder: ONNX's own cases (spec/golden/make_image.py), pictures written by hand, errors, and what a build without decoders says. The decoders
-- themselves: spec/csrc/test_image.c; against Pillow: spec/interop/check_pillow.py.
local core = require "mlserve.core"

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local golden = here .. "golden/image/"
local header = "BM\0\0\0\0\0\0\0\0\54\0\0\0\40\0\0\0"

local function program(pixel_format)
  local graph = core.graph("image")
  local bytes = graph:input("bytes", "uint8", { -1 })
  graph:output(graph:node("ImageDecoder", { bytes }, pixel_format and { pixel_format = pixel_format }), "image")
  return core.program(graph)
end

local function decode(text, pixel_format)
  local bytes = { text:byte(1, -1) }
  local outputs, message = program(pixel_format):run { core.tensor(bytes, "uint8") }
  return outputs and outputs[1], message
end

-- what running it says when it fails
local function failure(text)
  local ok, tensor, message = pcall(decode, text)
  assert.is_false(ok and tensor ~= nil)
  return tostring(ok and message or tensor)
end

describe("ONNX's case", function()
  local names = assert(core.list_directory(golden))
  for _, name in ipairs(names) do
    for _, level in ipairs { "none", "exact", "fast" } do
      it(name .. " at level " .. level, function()
        local result = core.verify_case(golden .. name, { level = level, rtol = 0, atol = name:find("jpeg_") and 1 or 0 })
        assert.is_true(result.passed, result.error)
      end)
    end
  end
  it("exists nine times", function() assert.are.equal(9, #names) end)
end)

describe("ImageDecoder", function()
  it("decodes BMP and PNM", function()
    local bmp = header .. "\2\0\0\0\1\0\0\0\1\0\24\0" .. ("\0"):rep(24) .. "\1\2\3\4\5\6\0\0"
    assert.are.same({ { { 3, 2, 1 }, { 6, 5, 4 } } }, decode(bmp):totable())
    assert.are.same({ { { 1, 2, 3 }, { 4, 5, 6 } } }, decode(bmp, "BGR"):totable())
    assert.are.same({ { { 0 }, { 255 } }, { { 255 }, { 0 } } }, decode("P1 2 2\n1 0 0 1\n", "Grayscale"):totable())
    assert.are.same({ { { 9, 8, 7 } } }, decode("P6 1 1 255\n\9\8\7"):totable())
  end)

  it("gives every call the size of its picture", function()
    local two = program("Grayscale")
    assert.are.same({ 1, 3, 1 }, two:run({ core.tensor({ ("P5 3 1 255\nabc"):byte(1, -1) }, "uint8") })[1]:shape())
    assert.are.same({ 4, 2, 1 }, two:run({ core.tensor({ ("P5 2 4 255\nabcdefgh"):byte(1, -1) }, "uint8") })[1]:shape())
    assert.are.same({ 1, 1, 1 }, two:run({ core.tensor({ ("P5 1 1 255\nabc"):byte(1, -1) }, "uint8") })[1]:shape())
  end)

  it("feeds other operators", function()
    local graph = core.graph("scaled")
    local image = graph:node("ImageDecoder", { graph:input("bytes", "uint8", { -1 }) })
    local floats = graph:node("Cast", { image }, { to = 1 })
    graph:output(graph:node("ReduceMean", { floats }, { keepdims = 0 }), "mean")
    local mean = core.program(graph):run({ core.tensor({ ("P2 2 2 255 10 20 30 60"):byte(1, -1) }, "uint8") })[1]
    assert.are.equal(30, mean:item())
  end)

  it("names what is wrong", function()
    assert.truthy(failure("GIF89a"):find("6 bytes that start with 47 49 46 38 are no BMP, JPEG", 1, true))
    assert.truthy(failure("P6 2 1 255\nabc"):find("PNM image: ends early", 1, true))
    assert.truthy(failure(header):find("BMP image: ends early", 1, true))
    assert.truthy(failure("\137PNG\r\n\26\n"):find("PNG image: ends early", 1, true))
    assert.truthy(failure("\255\216\255"):find("JPEG image: ends early", 1, true))
    assert.truthy(failure("P5 70000 70000 255\n"):find("70000 by 70000 pixels are over the limit of 89478485", 1, true))
    assert.truthy(failure("RIFF\20\0\0\0WEBPVP8 "):find("WebP image: ", 1, true))
    assert.truthy(failure("II*\0\8\0\0\0"):find("TIFF image: ", 1, true))
    assert.truthy(failure("\255\79\255\81"):find("JPEG 2000 image: ends early", 1, true))
  end)

  it("refuses other pixel formats when the model is made", function()
    local ok, message = pcall(program, "CMYK")
    assert.is_false(ok)
    assert.truthy(tostring(message):find("expected RGB, BGR or Grayscale, got 'CMYK'", 1, true), message)
  end)

  it("says what is missing where image.so is not beside the core", function()
    local directory, lua = os.tmpname(), os.getenv("MLSERVE_LUA") or "lua5.4"
    os.remove(directory)
    local module = assert(package.searchpath("mlserve.core", package.cpath))
    local script = [[
      local core = require "mlserve.core"
      local graph = core.graph("image")
      graph:output(graph:node("ImageDecoder", { graph:input("bytes", "uint8", { -1 }) }), "image")
      print(select(2, pcall(function() return assert(core.program(graph):run({ core.tensor({ ("P5 1 1 1\n"):byte(1, -1) }, "uint8") })) end)))
    ]]
    assert(os.execute(("mkdir -p '%s/mlserve' && ln -s \"$(realpath '%s')\" '%s/mlserve/core.so'"):format(directory, module, directory)))
    finally(function() os.execute("rm -r '" .. directory .. "'") end)
    local file = assert(io.open(directory .. "/try.lua", "w"))
    file:write(script)
    file:close()
    local pipe = assert(io.popen(("env -u LUA_CPATH_5_4 LUA_CPATH='%s/?.so' %s '%s/try.lua' 2>&1"):format(directory, lua, directory)))
    local said = pipe:read("*a")
    pipe:close()
    assert.truthy(said:find("decoding PNM needs the module image.so", 1, true), said)
  end)
end)
