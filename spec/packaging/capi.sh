#!/usr/bin/env bash
# The library for C as its users get it: installed, found by pkg-config, used by the example and by C++, with the promised symbols only.
. "$(dirname "$0")/../support/checks.sh"

prefix=$scratch/opt
library=$prefix/lib/libmlserve.so
abi=$(sed -n 's/^#define MLSERVE_ABI_VERSION //p' csrc/mlserve.h)
version=$(sed -n 's/.*MLSERVE_VERSION "\(.*\)"/\1/p' csrc/mlserve_version.h)
strict="-Wall -Wextra -Wpedantic -Werror"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib

same() { [ "$1" = "$2" ] || { echo "got '$1', expected '$2'"; return 1; }; }
declared() { grep -o '^MLSERVE_API .*' csrc/mlserve.h | grep -o 'mlserve_[a-z_]*(' | tr -d '(' | sort; }
exported() { nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort; }
with_version() { declared | sed "s/\$/@@MLSERVE_$abi/"; }
small() { local size; size=$(stat -L -c %s "$library"); echo "$size bytes"; [ "$size" -le 2000000 ]; }
needs_only() { # as core.so: libc, libm, OpenBLAS and what decodes images
  local name
  for name in $(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\.so.*\]/\1/p'); do
    case $name in libc | libm | libpthread | libopenblas | ld-linux-* | libjpeg | libpng16 | libwebp) ;; *) echo "needs $name"; return 1 ;; esac
  done
}
field() { readelf -d "$library" | sed -n "s/.*($1).*\[\(.*\)\]/\1/p"; }
rows() { grep ",$1\$" examples/data/breast_cancer.csv | cut -d, -f1-30; }
# Of all rows of a class, how many (in percent) the model finds likely to be malignant.
malignant() {
  rows "$1" | "$scratch/embed" "$model" | awk '/^[0-9]/ { n++; if ($1 > 0.5) m++ } END { if (n == 0) exit 1; printf "%d\n", 100 * m / n }'
}
at_least() { [ "$1" -ge "$2" ] || { echo "$1 is below $2"; return 1; }; }
at_most() { [ "$1" -le "$2" ] || { echo "$1 is above $2"; return 1; }; }

check "make install" make -s install PREFIX="$prefix"
check "pkg-config knows the version" same "$(pkg-config --modversion mlserve)" "$version"
check "pkg-config knows the folders" same "$(pkg-config --cflags --libs mlserve | xargs)" "-I$prefix/include -L$prefix/lib -lmlserve"
check "the SONAME has the interface's version" same "$(field SONAME)" "libmlserve.so.$abi"
check "the linker's name is a link to it" same "$(readlink "$library")" "libmlserve.so.$abi"
check "it lets out the header's functions only" same "$(exported)" "$(with_version)"
check "it is at most 2 MB" small
check "it needs only libc, libm, OpenBLAS and what decodes images" needs_only

cc=${CC:-cc}
for standard in c99 c11 c17; do
  check "the header in $standard" $cc -std=$standard $strict -Wstrict-prototypes -Wundef -fsyntax-only -x c "$prefix/include/mlserve.h"
done
check "the example builds" $cc -std=c99 $strict examples/embed/embed.c -o "$scratch/embed" $(pkg-config --cflags --libs mlserve)
model=$scratch/cancer/1/model.onnx
check "a model is trained" sh -c "cd '$scratch' && '$prefix/bin/mlserve' train --data '$root/examples/data/breast_cancer.csv' --label diagnosis \
  --epochs 10 -o '$scratch/cancer'"
check "the example describes it" grep -q '^input .*: float32 (-1, 30)$' <<< "$("$scratch/embed" "$model" < /dev/null)"
check "it predicts every row" same "$(rows malignant | "$scratch/embed" "$model" | grep -c '^[0-9]')" "$(rows malignant | wc -l)"
check "malignant rows are found so" at_least "$(malignant malignant)" 85
check "benign rows are not" at_most "$(malignant benign)" 10
check "a missing model is an error" sh -c "! '$scratch/embed' '$scratch/none.onnx' 2> '$scratch/errors' && grep -q 'NOT_FOUND: .*none.onnx' '$scratch/errors'"

cxx=${CXX:-g++}
for standard in c++11 c++17; do
  check "C++ builds ($standard)" "$cxx" -std=$standard $strict -Wold-style-cast spec/packaging/capi_cxx.cc -o "$scratch/cxx" $(pkg-config --cflags --libs mlserve)
done
check "C++ predicts the same" same "$("$scratch/cxx" "$model" $(rows benign | head -n 1 | tr , ' '))" \
  "$(rows benign | head -n 1 | "$scratch/embed" "$model" | tail -n 1)"

check "make uninstall" make -s uninstall PREFIX="$prefix"
check "uninstall leaves no file" same "$(find "$prefix" -type f -o -type l)" ""

check "make install DESTDIR" make -s install DESTDIR="$scratch/stage" PREFIX=/usr
check "the staged file for pkg-config names no stage" same "$(head -n 1 "$scratch/stage/usr/lib/pkgconfig/mlserve.pc")" "prefix=/usr"
finish
