#!/usr/bin/env bash
# install.sh MODULES LIBDIR LUADIR: the C modules in MODULES (stripped), all Lua files and .proto files, replacing an older version.
set -euo pipefail
modules=$1 libdir=$2 luadir=$3
rm -rf "$libdir/mlserve" "$luadir/mlserve"
for module in core image net; do
  "${INSTALL:-install}" -D -m 755 "$modules/mlserve/$module.so" "$libdir/mlserve/$module.so"
  "${STRIP:-strip}" --strip-unneeded "$libdir/mlserve/$module.so"
done
cd "$(dirname "$0")/../lua"
find mlserve -name '*.lua' -o -name '*.proto' | while read -r file; do "${INSTALL:-install}" -D -m 644 "$file" "$luadir/$file"; done
