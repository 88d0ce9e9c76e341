#!/usr/bin/env bash
# deps.sh GROUP…: sees to it that what the groups need is there (build run test lint fuzz interop bench). What a need is met by is looked for as
# such (a command, headers, a Lua module), not as a package, so anything installed by other means counts. Only when something is missing, Debian's
# or Ubuntu's packages are installed, as root or with sudo; where that is not possible, it says what to install.
set -euo pipefail

missing=() wanted=()

# need GROUP PACKAGE|ALTERNATIVE… TEST…: the first package that is known to apt is taken when TEST fails
need() {
  local group=$1 packages=$2
  shift 2
  case " ${groups[*]} " in *" $group "*) ;; *) return 0 ;; esac
  if "$@" >/dev/null 2>&1; then return 0; fi
  missing+=("$packages")
}
headers() { pkg-config --exists "$1"; }
# Debian installs some pure Lua modules for Lua 5.3 and older only; mlserve finds them there.
lua_has() { "$1" -e "package.path = package.path .. ';/usr/share/lua/5.3/?.lua;/usr/share/lua/5.1/?.lua' require '$2'"; }
file_there() { local path; for path in "$@"; do [ -e "$path" ] && return 0; done; return 1; }
fuzzer_there() {
  local directory status=0
  directory=$(mktemp -d)
  echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return (int)(d && n) * 0; }' > "$directory/a.c"
  clang -fsanitize=fuzzer,address "$directory/a.c" -o "$directory/a" || status=1
  rm -rf "$directory"
  return $status
}
python_has() { /usr/bin/python3 -c "import $1"; }

groups=("$@")
look() {
  missing=()
  need build 'gcc' command -v "${CC:-cc}"
  need build 'libc6-dev' file_there /usr/include/stdio.h
  need build 'pkg-config|pkgconf' command -v pkg-config
  need build 'binutils' command -v ar
  need build 'liblua5.4-dev' headers lua5.4
  need build 'libluajit2-5.1-dev|libluajit-5.1-dev' headers luajit
  need build 'zlib1g-dev' headers zlib
  need build 'libnghttp2-dev' headers libnghttp2
  [ "${BLAS:-openblas}" = none ] || need build 'libopenblas-dev' headers openblas

  local library # of the image formats: a build without them works, but does not pass every test
  for library in libjpeg:libjpeg-dev libopenjp2:libopenjp2-7-dev libpng:libpng-dev libtiff-4:libtiff-dev libwebp:libwebp-dev; do
    [ "${IMAGES:-}" = none ] || for group in test lint fuzz interop; do need $group "${library#*:}" headers "${library%:*}"; done
  done

  need run 'lua5.4' command -v lua5.4
  need run 'luajit2|luajit' command -v luajit
  need run 'lua-argparse' lua_has lua5.4 argparse
  need run 'lua-cjson' lua_has lua5.4 cjson
  need run 'lua-cqueues' lua_has lua5.4 cqueues
  need run 'lua-luaossl' lua_has lua5.4 openssl
  need run 'lua-http' lua_has lua5.4 http.server

  need test 'lua-busted' lua_has lua5.4 busted
  need test 'lua-busted' lua_has luajit busted
  need test 'luarocks' command -v luarocks
  need test 'lua5.1' command -v lua5.1
  need test 'liblua5.1-0-dev|liblua5.1-dev' headers lua5.1
  need test 'g++' command -v "${CXX:-g++}"
  need test 'curl' command -v curl
  need test 'nghttp2-client' command -v nghttp
  need test 'nghttp2-client' command -v h2load
  need test 'openssl' command -v openssl
  need test 'python3-h2' python_has h2
  need test 'nginx-light|nginx' command -v nginx
  need test 'libonnx-testdata' file_there /usr/share/libonnx-testdata/data/node
  need test 'libnginx-mod-http-lua' file_there /usr/lib/nginx/modules/ngx_http_lua_module.so /usr/share/nginx/modules-available/mod-http-lua.conf

  need lint 'lua-check' command -v luacheck
  need lint 'gcc' command -v gcc
  need lint 'clang' command -v clang
  need lint 'liblua5.1-0-dev|liblua5.1-dev' headers lua5.1

  need fuzz 'clang' command -v clang
  need fuzz 'libclang-rt-14-dev|libclang-rt-18-dev|libclang-rt-dev' fuzzer_there

  need interop 'nginx-light|nginx' command -v nginx
  need interop 'libnginx-mod-http-lua' file_there /usr/lib/nginx/modules/ngx_http_lua_module.so /usr/share/nginx/modules-available/mod-http-lua.conf
  need interop 'python3-venv' python3 -c 'import venv, ensurepip'
  need interop 'python3-torch' python_has torch
  need interop 'openssl' command -v openssl
  need interop 'nginx-light|nginx' command -v nginx
  need interop 'libnginx-mod-http-lua' file_there /usr/lib/nginx/modules/ngx_http_lua_module.so /usr/share/nginx/modules-available/mod-http-lua.conf
  need interop 'golang-go' command -v go
  need interop 'nodejs' command -v node
  need interop 'npm' command -v npm
  need interop 'chromium|chromium-browser' command -v chromium

  need bench 'valgrind' command -v valgrind
  need bench 'wrk' command -v wrk
  need bench 'python3-torch' python_has torch
  need bench 'python3-onnx' python_has onnx
  return 0
}

# Of 'a|b' the first name that apt can install; the first one when it knows none (apt then says so).
choose() {
  local name
  for name in ${1//|/ }; do
    if apt-cache show "$name" 2>/dev/null | grep -q '^Package:'; then echo "$name"; return; fi
  done
  echo "${1%%|*}"
}
choose_all() {
  local packages
  wanted=()
  for packages in "${missing[@]}"; do wanted+=("$(choose "$packages")"); done
  mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)
}

look
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "mlserve needs what these Debian packages hold (| means or); please install them by your system's means:" >&2
  printf '  %s\n' "${missing[@]}" | sort -u >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    choose_all
    echo "mlserve needs packages that only root can install. Please run: apt-get install ${wanted[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
install() {
  choose_all
  echo "installing ${wanted[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${wanted[@]}" > "$log" 2>&1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install; then # perhaps the package lists are old or were never fetched
  "${as_root[@]}" apt-get update -q > /dev/null 2>&1 || true
  if ! install; then
    tail -n 20 "$log" >&2
    echo "could not install: ${wanted[*]}" >&2
    exit 1
  fi
fi
look
if [ ${#missing[@]} -gt 0 ]; then
  echo "still missing after installing: ${missing[*]}" >&2
  exit 1
fi
