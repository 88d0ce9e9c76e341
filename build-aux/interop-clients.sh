#!/usr/bin/env bash
# interop-clients.sh PYTHON: makes the clients of gRPC that spec/interop/check_grpc_clients.py runs, in .interop, anew only when what they are made of has changed:
# modules of Python, the program in Go with its generated code, grpcurl, grpc-health-probe, Node's packages, and the page for the browser. All of them
# come from the .proto files that `mlserve proto` prints; packages are pinned by requirement files, go.sum and package-lock.json.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD here=spec/interop/grpc
python=$1
case $python in /*) ;; *) python=$root/$python ;; esac

# changed NAME FILE…: whether the part NAME has to be made again of these files; made NAME says that it was
changed() {
  local name=$1
  shift
  sum=$(cat "$@" build-aux/interop-clients.sh | sha256sum)
  if [ "$(cat ".interop/$name.made-of" 2>/dev/null)" = "$sum" ]; then return 1; fi
  echo "making .interop/$name (once)"
  rm -rf ".interop/$name"
  mkdir -p ".interop/$name"
}
made() { echo "$sum" > ".interop/$1.made-of"; }

rm -rf .interop/protos
lua=(env "LUA_PATH=lua/?.lua;lua/?/init.lua;;" "LUA_CPATH=${BUILD:-build}/lua5.4/?.so;;" lua5.4)
"${lua[@]}" bin/mlserve proto -o .interop/protos
mapfile -t protos < <(cd .interop/protos && find . -name '*.proto' | LC_ALL=C sort | cut -c3-)
sources=("${protos[@]/#/.interop/protos/}")
protoc() { (cd "$1" && shift && "$python" -m grpc_tools.protoc -I. "$@"); }
matching() { printf '%s\n' "${protos[@]}" | grep -E "$1"; }

# Python: everything from our files
if changed python "${sources[@]}" build-aux/interop-kserve-requirements.txt; then
  mapfile -t files < <(matching '^tensorflow|^[a-z_]*\.proto$')
  protoc .interop/protos --python_out=../python --grpc_python_out=../python "${files[@]}"
  made python
fi

# Python: the package tensorflow-serving-api, and of TensorFlow only the messages that it needs, laid out as there
if changed python-tensorflow "${sources[@]}" build-aux/interop-tfserving-requirements.txt; then
  layout=.interop/python-tensorflow/protos
  mkdir -p $layout/xla/tsl/protobuf
  cp -R .interop/protos/tensorflow $layout
  mv $layout/tensorflow/core/protobuf/error_codes.proto $layout/xla/tsl/protobuf
  printf 'syntax = "proto3";\nimport public "xla/tsl/protobuf/error_codes.proto";\n' > $layout/tensorflow/core/protobuf/error_codes.proto
  mapfile -t files < <(cd $layout && find . -name '*.proto' | cut -c3-)
  protoc $layout --python_out=.. "${files[@]}"
  "$python" -m pip install -q --disable-pip-version-check --no-deps --target .interop/python-tensorflow -r build-aux/interop-tfserving-requirements.txt
  made python-tensorflow
fi

# Go: the client with its generated code, and the tools of go.mod
export GOPATH=$root/.interop/gopath GOCACHE=$root/.interop/gocache GOFLAGS="-modcacherw -buildvcs=false -mod=readonly" GOTOOLCHAIN=local
if changed go "${sources[@]}" $here/go/*; then
  cp $here/go/* .interop/go
  bin=$root/.interop/go/bin
  build() { (cd .interop/go && go build -o "$@"); }
  build "$bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/fullstorydev/grpcurl/cmd/grpcurl \
    github.com/grpc-ecosystem/grpc-health-probe
  options=({--go_opt,--go-grpc_opt}=Mgoogle/protobuf/{any.proto=google.golang.org/protobuf/types/known/anypb,wrappers.proto=google.golang.org/protobuf/types/known/wrapperspb})
  for file in $(matching '^tensorflow|^[a-z_]*\.proto$'); do
    case $file in
      tensorflow/*) package=tensorflow ;;
      tensorflow_serving/*) package=serving ;;
      *) package=inference ;;
    esac
    options+=("--go_opt=M$file=mlserve.interop/pb/$package" "--go-grpc_opt=M$file=mlserve.interop/pb/$package")
  done
  mapfile -t files < <(matching '^tensorflow|^[a-z_]*\.proto$')
  protoc .interop/protos "--plugin=protoc-gen-go=$bin/protoc-gen-go" "--plugin=protoc-gen-go-grpc=$bin/protoc-gen-go-grpc" --go_out=../go --go-grpc_out=../go \
    --go_opt=module=mlserve.interop --go-grpc_opt=module=mlserve.interop "${options[@]}" "${files[@]}"
  build "$bin/client" .
  made go
fi

# Node: the client reads the .proto files as they are; the browser's page is bundled with code generated from them
if changed node "${sources[@]}" $here/node/*; then
  cp $here/node/* .interop/node
  (cd .interop/node && npm ci --silent --ignore-scripts --no-audit --no-fund --cache "$root/.interop/npm-cache")
  mkdir .interop/node/gen
  mapfile -t files < <(matching '^tensorflow|^[a-z_]*\.proto$|^grpc/health')
  protoc .interop/protos "--plugin=protoc-gen-es=$root/.interop/node/node_modules/.bin/protoc-gen-es" --es_out=../node/gen --es_opt=target=js "${files[@]}"
  .interop/node/node_modules/.bin/esbuild .interop/node/page.js --bundle --log-level=warning --outfile=.interop/node/bundle.js
  made node
fi
