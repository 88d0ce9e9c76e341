# mlserve: `make` builds, `make demo` shows everything, `make test` tests everything, `make help` lists the rest.
# The C core is compiled once; the bindings once per Lua (build/lua5.4, build/luajit). LuaRocks calls `make rock` and `make install-rock`.
# Variables: BUILD CC CFLAGS (OPT=: these alone, without each file's own optimisation) LDFLAGS BLAS=openblas|none IMAGES="jpeg png …"|none PREFIX DESTDIR
# V=1 (show commands) WERROR=1 (warnings are errors) JOBS.
BUILD   ?= build
CFLAGS  ?= -g
BLAS    ?= openblas
IMAGES  ?= jpeg jpeg2000 png tiff webp
PREFIX  ?= /usr/local
STRIP   ?= strip
INSTALL ?= install
LUA54   ?= lua5.4
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
LUAS    ?= $(foreach lua,lua5.4 luajit,$(if $(shell pkg-config --exists $(lua) 2>/dev/null && echo yes),$(lua)))

VERSION := $(shell sed -n 's/.*MLSERVE_VERSION "\(.*\)"/\1/p' csrc/mlserve_version.h)
WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wvla
ML_CFLAGS := -std=gnu11 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -pthread -Icsrc $(WARN) $(if $(WERROR),-Werror)
ZLIB    := $(or $(shell pkg-config --libs zlib 2>/dev/null),-lz)
NGHTTP2 := $(or $(shell pkg-config --libs libnghttp2 2>/dev/null),-lnghttp2)
LDLIBS  := -lm -lpthread -ldl
MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))

ifneq ($(filter-out openblas none,$(BLAS)),)
$(error BLAS=$(BLAS) is unknown: openblas or none)
endif
BLAS_CFLAGS := -DML_BLAS_OPENBLAS $(shell pkg-config --cflags openblas 2>/dev/null)
ifeq ($(BLAS),openblas)
ML_CFLAGS += $(BLAS_CFLAGS)
BLAS_LIBS := $(or $(shell pkg-config --libs openblas 2>/dev/null),-lopenblas)
endif

# Decoders of images: those of IMAGES whose library is there; BMP and PNM need none. They are in image.so, so that core.so needs no library.
IMAGE_LIBRARY := jpeg:libjpeg jpeg2000:libopenjp2 png:libpng tiff:libtiff-4 webp:libwebp
ifneq ($(filter-out none $(foreach pair,$(IMAGE_LIBRARY),$(firstword $(subst :, ,$(pair)))),$(IMAGES)),)
$(error IMAGES=$(IMAGES) is unknown: none, or some of $(foreach pair,$(IMAGE_LIBRARY),$(firstword $(subst :, ,$(pair)))))
endif
IMAGE_HAVE   := $(foreach pair,$(filter $(IMAGES:%=%:%),$(IMAGE_LIBRARY)),$(shell pkg-config --exists $(lastword $(subst :, ,$(pair))) 2>/dev/null && echo $(pair)))
IMAGE_PC     := $(foreach pair,$(IMAGE_HAVE),$(lastword $(subst :, ,$(pair))))
IMAGE_CFLAGS := $(foreach pair,$(IMAGE_HAVE),-DML_IMAGE_WITH_$(shell echo $(firstword $(subst :, ,$(pair))) | tr a-z A-Z)) $(if $(IMAGE_PC),$(shell pkg-config --cflags $(IMAGE_PC)))
IMAGE_LIBS   := $(if $(IMAGE_PC),$(shell pkg-config --libs $(IMAGE_PC)))

CORE_DIRS := base codec kernels tensor ops graph graph/passes eval data train format serve
CORE_SRC  := $(foreach dir,$(CORE_DIRS),$(wildcard csrc/$(dir)/*.c)) csrc/image/format.c
ifneq ($(MACHINE),x86_64)
CORE_SRC  := $(filter-out %_avx2.c %_avx512.c,$(CORE_SRC))
endif
NET_SRC   := $(wildcard csrc/net/*.c)
NET_LUA   := csrc/lua/lua_net.c csrc/lua/lua_compress.c csrc/lua/lua_http2.c csrc/lua/lua_http2_client.c
LUA_SRC   := $(filter-out $(NET_LUA),$(wildcard csrc/lua/*.c))
CORE_OBJ  := $(CORE_SRC:csrc/%.c=$(BUILD)/obj/%.o)
NET_OBJ   := $(NET_SRC:csrc/%.c=$(BUILD)/obj/%.o)
BASE_OBJ  := $(filter $(BUILD)/obj/base/%,$(CORE_OBJ))
CAPI_OBJ  := $(patsubst csrc/%.c,$(BUILD)/obj/%.o,$(wildcard csrc/capi/*.c))
ABI       := $(shell sed -n 's/^.define MLSERVE_ABI_VERSION //p' csrc/mlserve.h)
IMAGE_OBJ := $(patsubst csrc/%.c,$(BUILD)/obj/%.o,$(filter-out %/format.c,$(wildcard csrc/image/*.c)))

# One short line per file, or (V=1) the command itself.
ifeq ($(V),1)
say = @:
else
Q   := @
say = @printf '  %-5s %s\n' $(1) $(2)
endif
ifndef MLSERVE_JOBS # the first make of several decides how many jobs there are
export MLSERVE_JOBS := $(JOBS)
MAKEFLAGS += -j$(JOBS) -Otarget
endif
MAKEFLAGS += --no-print-directory
export BUILD CC V STRIP INSTALL LUA54

.PHONY: all modules
MODULES := core image net
all: modules $(BUILD)/libmlserve.so ## build the modules for every Lua there is, and the library for C
modules: $(foreach lua,$(LUAS),$(MODULES:%=$(BUILD)/$(lua)/mlserve/%.so))
	@$(if $(LUAS),,echo "no Lua with headers found (pkg-config lua5.4, luajit): run make deps" >&2; exit 1)

# ---- building ----

# One set of flags per instruction set, by the last word of the file's name.
$(BUILD)/obj/%_avx2.o: ISA_FLAGS := -mavx2 -mfma
$(BUILD)/obj/%_avx512.o: ISA_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma
$(IMAGE_OBJ): ISA_FLAGS := $(IMAGE_CFLAGS)

# Optimisation, by what a file is for: loops that requests and training steps spend their time in get -O3, which doubles or triples a file's size;
# everything else gets -O2. What nobody uses is left out, and so are unwind tables but in the bindings (LuaJIT unwinds through them; gdb has -g).
HOT := kernels/% codec/% base/rng base/thread tensor/dtype graph/session graph/run_node serve/json_tensor $(addprefix ops/, \
  attention average_pool batch_normalization batch_normalization_grad class_scores conv_engine conv_integer_engine cross_entropy dense \
  elementwise gather gemm global_pool layer_normalization layer_normalization_grad lookup mat_mul max_pool movement product quantize quantize_linear \
  recurrent resize_engine rms_normalization softmax softmax_grad svm trees)
OPT = $(if $(filter $(HOT),$*),-O3,-O2) -ffunction-sections -fdata-sections $(if $(findstring lua/,$<),,-fno-asynchronous-unwind-tables)
absent := $(filter-out $(wildcard csrc/*/*.c),$(patsubst %,csrc/%.c,$(filter-out kernels/% codec/%,$(HOT))))
$(if $(absent),$(error HOT names what is not there: $(absent)))

# Objects and libraries depend on the flags they were made with: $(1) file that records them, $(2) flags.
define RECORD_FLAGS
$(1): force
	@mkdir -p $$(@D)
	@echo '$(2)' | cmp -s - $$@ || echo '$(2)' > $$@
endef
.PHONY: force
force:
$(eval $(call RECORD_FLAGS,$(BUILD)/flags,$(CC) $(CFLAGS) $(OPT) $(HOT) $(ML_CFLAGS) $(BLAS_LIBS) $(IMAGE_CFLAGS) $(LDFLAGS)))

$(BUILD)/obj/%.o: csrc/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(OPT) $(ML_CFLAGS) -MMD -MP $(ISA_FLAGS) -c -o $@ $<

$(BUILD)/libmlserve.a: $(CORE_OBJ) $(NET_OBJ) $(CAPI_OBJ)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^

$(BUILD)/libmlserve_image.a: $(IMAGE_OBJ)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^

# Lua's own symbols stay open until the module is loaded, so the linker cannot refuse undefined ones; ours must all be there.
define LINK_MODULE
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(or $(LIBFLAG),-shared) $(LDFLAGS) -Wl,--exclude-libs,ALL -Wl,--gc-sections -o $@ $(filter-out %.map,$^) $(1) $(LDLIBS)
	@missing=$$(nm -D --undefined-only $@ | awk '$$2 ~ /^ml_/ { print $$2 }'); test -z "$$missing" || \
	  { echo "$@: undefined:" $$missing >&2; rm -f $@; exit 1; }
endef

# Bindings and modules for one Lua: $(1) name of the directory, $(2) compiler flags for its headers.
define LUA_MODULES
$(call RECORD_FLAGS,$(BUILD)/$(1)/flags,$(2))
$(BUILD)/$(1)/obj/%.o: csrc/lua/%.c $(BUILD)/flags $(BUILD)/$(1)/flags
	@mkdir -p $$(@D)
	$$(call say,CC,"$$< ($(1))")
	$$(Q)$(CC) $(CFLAGS) $$(OPT) $(ML_CFLAGS) -MMD -MP $(2) -c -o $$@ $$<
$(BUILD)/$(1)/mlserve/core.so: $(LUA_SRC:csrc/lua/%.c=$(BUILD)/$(1)/obj/%.o) $(CORE_OBJ)
	$$(call LINK_MODULE,$(BLAS_LIBS))
$(BUILD)/$(1)/mlserve/net.so: $(NET_LUA:csrc/lua/%.c=$(BUILD)/$(1)/obj/%.o) $(NET_OBJ) $(BASE_OBJ)
	$$(call LINK_MODULE,$(ZLIB) $(NGHTTP2))
$(BUILD)/$(1)/mlserve/image.so: $(IMAGE_OBJ) $(filter %/alloc.o %/status.o,$(BASE_OBJ))
	$$(call LINK_MODULE,$(IMAGE_LIBS))
endef
lua_cflags = $(or $(LUA_CFLAGS_$(1)),$(shell pkg-config --cflags $(1) 2>/dev/null))
$(foreach lua,$(LUAS),$(eval $(call LUA_MODULES,$(lua),$(call lua_cflags,$(lua)))))

# The library for C takes from the archive what it uses: no training, no data, no server.
CAPI_LINK := -Wl,-soname,libmlserve.so.$(ABI) -Wl,--version-script=csrc/capi/libmlserve.map
$(BUILD)/libmlserve.so: $(CAPI_OBJ) $(BUILD)/libmlserve.a csrc/capi/libmlserve.map
	$(call LINK_MODULE,$(CAPI_LINK) $(BLAS_LIBS))

# ---- C programs of spec/ and bench/, each linked with the whole core ----

# $(1) folder in $(BUILD), $(2) folder of the sources, $(3) further flags
define PROGRAMS
$(BUILD)/$(1)/%: $(2)/%.c $(BUILD)/libmlserve.a $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)
	$$(Q)$(CC) $(CFLAGS) $$(OPT) $(ML_CFLAGS) -MMD -MP -MF $$@.d $(3) -o $$@ $$< $$(DECODERS) $(BUILD)/libmlserve.a $(LDFLAGS) $$(if $$(DECODERS),$(IMAGE_LIBS)) $(BLAS_LIBS) $(ZLIB) $(NGHTTP2) $(LDLIBS) -ldl
endef
$(BUILD)/spec/test_image $(BUILD)/fuzz/fuzz_image: DECODERS := $(BUILD)/libmlserve_image.a
$(BUILD)/spec/test_image $(BUILD)/fuzz/fuzz_image: $(BUILD)/libmlserve_image.a
C_TESTS := $(patsubst spec/csrc/%.c,$(BUILD)/spec/%,$(wildcard spec/csrc/test_*.c))
C_BENCH := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/bench_*.c))
C_FUZZ  := $(patsubst spec/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard spec/fuzz/fuzz_*.c))
$(eval $(call PROGRAMS,spec,spec/csrc))
$(eval $(call PROGRAMS,bench,bench))
$(eval $(call PROGRAMS,fuzz,spec/fuzz,-fsanitize=fuzzer))
.PHONY: c-tests fuzz-targets c-bench
c-tests: $(C_TESTS)
fuzz-targets: $(C_FUZZ)
c-bench: $(C_BENCH)

# ---- for people ----
# Recipes that first install packages start a new make, which then finds what was installed.

.PHONY: help deps demo docs
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'
deps: ## install what is missing of the Debian packages (needs root or sudo only then)
	@build-aux/deps.sh build run test lint fuzz interop bench
demo: ## install, build, train, evaluate, serve, query: the whole tour
	@build-aux/deps.sh build run
	@$(MAKE) all
	@build-aux/demo.sh
docs: all ## write docs/api and docs/ops.md from the sources
	@LUA_CPATH="$(BUILD)/lua5.4/?.so;;" $(LUA54) build-aux/docs.lua

# ---- tests ----

.PHONY: test test-c test-lua test-luajit test-packaging test-asan test-tsan soak fuzz fuzz-short lint interop interop-full
test: ## everything: C, Lua 5.4, LuaJIT, packaging; the last line is the total
	@build-aux/deps.sh build run test
	@$(MAKE) all c-tests
	@build-aux/test.sh c lua5.4 luajit packaging
test-c: c-tests ## only the C units
	@build-aux/test.sh c
test-lua: all ## only the specs, on Lua 5.4 (SPEC=file: one of them)
	@build-aux/test.sh lua5.4
test-luajit: all ## only the specs, on LuaJIT
	@build-aux/test.sh luajit
test-packaging: all ## install and uninstall, LuaRocks, exported symbols and size
	@build-aux/test.sh packaging

ASAN := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
test-asan: ## C units and specs under AddressSanitizer and UndefinedBehaviorSanitizer
	@build-aux/deps.sh build run test
	@$(MAKE) BUILD=build-asan CFLAGS="$(ASAN)" OPT= all c-tests
	@BUILD=build-asan SANITIZER=address build-aux/test.sh c lua5.4 luajit
# OpenBLAS is not instrumented: left out, so that only our own threads are looked at.
test-tsan: ## thread pool, shared programs and sessions, batcher, loader under ThreadSanitizer
	@$(MAKE) BUILD=build-tsan CFLAGS="-O1 -g -fsanitize=thread" OPT= BLAS=none $(patsubst %,build-tsan/spec/test_%,base graph capi batcher call loader)
	@BUILD=build-tsan SANITIZER=thread C_TESTS="base graph capi batcher call loader" build-aux/test.sh c

soak: ## servers under load, swaps and faults for SECONDS (default 60): answers, counters, memory (SOAK_SEED=n: the same again)
	@build-aux/deps.sh build run test
	@$(MAKE) all
	@LUA_PATH="lua/?.lua;lua/?/init.lua;./?.lua;;" LUA_CPATH="$(BUILD)/lua5.4/?.so;;" $(LUA54) spec/soak/soak.lua $(if $(filter command,$(origin SECONDS)),$(SECONDS),60)

# Left out: clang calls NULL + 0 an overflow, which is how an empty tensor looks.
FUZZ_CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow -fno-sanitize-recover=undefined,float-cast-overflow -fno-sanitize=pointer-overflow
fuzz: ## every fuzz target for FUZZ_SECONDS (default 60) each, under sanitizers
	@build-aux/deps.sh build fuzz
	@$(MAKE) BUILD=build-fuzz CC=clang CFLAGS="$(FUZZ_CFLAGS)" OPT= BLAS=none fuzz-targets
	@BUILD=build-fuzz build-aux/fuzz.sh $(or $(FUZZ_SECONDS),60)
fuzz-short: ## every fuzz target for 5 seconds
	@$(MAKE) fuzz FUZZ_SECONDS=5

lint: ## luacheck, compiler warnings of gcc and clang, layers, operator list, versions, generated documents
	@build-aux/deps.sh build run lint
	@$(MAKE) all
	@ML_CFLAGS="$(filter-out $(BLAS_CFLAGS),$(ML_CFLAGS))" BLAS_CFLAGS="$(BLAS_CFLAGS)" IMAGE_CFLAGS="$(IMAGE_CFLAGS)" build-aux/lint.sh

interop: ## against ONNX Runtime, scikit-learn, XGBoost, LightGBM, PyTorch and all of their exports, the newest onnx package's backend tests, and with clients of every protocol
	@build-aux/deps.sh build run interop
	@$(MAKE) all $(BUILD)/spec/test_format
	@build-aux/interop.sh
interop-full: ## the same, with the long comparisons and Keras (TensorFlow) too
	@MLSERVE_INTEROP_FULL=1 $(MAKE) interop

.PHONY: bench
bench: ## speed, against ONNX Runtime, PyTorch and scikit-learn where they are there
	@build-aux/deps.sh build run bench
	@$(MAKE) all c-bench
	@build-aux/bench.sh

# ---- installing ----

lua_version = $(if $(filter luajit,$(1)),5.1,5.4)
.PHONY: install uninstall rock install-rock clean
install: all ## into $(PREFIX) (default /usr/local), for Lua 5.4, LuaJIT and C; DESTDIR is honoured
	@$(foreach lua,$(LUAS),build-aux/install.sh "$(BUILD)/$(lua)" "$(DESTDIR)$(PREFIX)/lib/lua/$(call lua_version,$(lua))" \
	  "$(DESTDIR)$(PREFIX)/share/lua/$(call lua_version,$(lua))" && ) true
	@$(INSTALL) -d "$(DESTDIR)$(PREFIX)/bin"
	@sed '1a package.path = "$(PREFIX)/share/lua/5.4/?.lua;$(PREFIX)/share/lua/5.4/?/init.lua;" .. package.path\npackage.cpath = "$(PREFIX)/lib/lua/5.4/?.so;" .. package.cpath' \
	  bin/mlserve > "$(DESTDIR)$(PREFIX)/bin/mlserve"
	@chmod 755 "$(DESTDIR)$(PREFIX)/bin/mlserve"
	@build-aux/install-c.sh "$(BUILD)/libmlserve.so" "$(ABI)" "$(VERSION)" "$(PREFIX)" "$(DESTDIR)"
	@echo "installed mlserve $(VERSION) in $(DESTDIR)$(PREFIX)"
uninstall: ## remove what install put there
	@rm -f "$(DESTDIR)$(PREFIX)/bin/mlserve" "$(DESTDIR)$(PREFIX)"/lib/libmlserve.so* "$(DESTDIR)$(PREFIX)/include/mlserve.h" \
	  "$(DESTDIR)$(PREFIX)/lib/pkgconfig/mlserve.pc" "$(DESTDIR)$(PREFIX)/lib/mlserve/image.so"
	@rmdir "$(DESTDIR)$(PREFIX)/lib/mlserve" 2>/dev/null || true
	@for version in 5.4 5.1; do rm -rf "$(DESTDIR)$(PREFIX)/lib/lua/$$version/mlserve" "$(DESTDIR)$(PREFIX)/share/lua/$$version/mlserve"; done
	@echo "removed mlserve from $(DESTDIR)$(PREFIX)"

# LuaRocks: one Lua, its headers in LUA_INCDIR. The module made for 5.1 is LuaJIT's too.
ROCK := $(BUILD)/rock
rock:
	@$(MAKE) BUILD=$(ROCK) LUAS=lua LUA_CFLAGS_lua="$(if $(LUA_INCDIR),-I$(LUA_INCDIR),$(shell pkg-config --cflags lua5.4))" modules
install-rock:
	@build-aux/install.sh "$(ROCK)/lua" "$(INST_LIBDIR)" "$(INST_LUADIR)"
	@$(INSTALL) -D -m 755 bin/mlserve "$(INST_BINDIR)/mlserve"

clean: ## remove everything that was built
	@rm -rf build build-asan build-tsan build-fuzz build-clang $(filter-out . / /%,$(BUILD))

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
