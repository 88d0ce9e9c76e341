rockspec_format = "3.0"
package = "mlserve"
version = "scm-1"
source = { url = "git+https://github.com/mlserve/mlserve.git", branch = "main" }
description = {
  summary = "Train, optimise, evaluate, deploy, serve and monitor machine learning models from Lua",
  detailed = [[
One C module and a few Lua files hold the whole life of a model: layers and training, ONNX files in and out, evaluation, a command line and a
server that speaks TensorFlow Serving's protocol. Models run inside the calling process (Lua 5.4, LuaJIT, nginx) in microseconds.
zlib and libnghttp2 must be installed, and OpenBLAS (or build with BLAS=none). Models that decode images use libjpeg, libopenjp2, libpng, libtiff and libwebp, those of
them that are installed when it is built.]],
  homepage = "https://github.com/mlserve/mlserve",
  license = "MIT",
  labels = { "machine-learning", "neural-network", "onnx", "inference", "server" },
}
supported_platforms = { "linux" }
dependencies = { "lua >= 5.1, < 5.5", "argparse >= 0.7", "lua-cjson >= 2.1", "cqueues >= 20200726", "http >= 0.4" }
build = {
  type = "make",
  build_target = "rock",
  install_target = "install-rock",
  build_variables = { CC = "$(CC)", CFLAGS = "$(CFLAGS)", LIBFLAG = "$(LIBFLAG)", LUA_INCDIR = "$(LUA_INCDIR)" },
  install_variables = { INST_PREFIX = "$(PREFIX)", INST_BINDIR = "$(BINDIR)", INST_LIBDIR = "$(LIBDIR)", INST_LUADIR = "$(LUADIR)" },
}
test = { type = "command", command = "make test" }
