# Segue. `make demo` and `make check` each do everything on a fresh Debian 12 machine.
#
#   make            build/segue-edge, build/segue-shield, build/seguectl
#   make demo       real audio through shield and edge, URLs to play, a page; Ctrl-C ends it
#   make check      every test that CI runs
#   make bench      side-by-side figures against public peers, one table
#   make tidy       format, layers, clang-tidy, cppcheck
#   make soak       what takes longer than CI should

VERSION  = 0.1.0
COMMIT  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
VARIANT ?= release
JOBS    ?= $(shell nproc)
Q        = $(if $(V),,@)# V=1 shows the commands
O        = build/$(VARIANT)

CFLAGS_COMMON = -std=gnu11 -g -fno-omit-frame-pointer -Wall -Wextra -Wshadow -Wpointer-arith \
                -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla -Wundef -Werror \
                -D_GNU_SOURCE -Ibase -pthread
ifeq ($(VARIANT),release)
  CC       = gcc
  CFLAGS   = $(CFLAGS_COMMON) -O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2
  LIBALLOC = -ljemalloc
else ifeq ($(VARIANT),asan)
  CC       = clang
  CFLAGS   = $(CFLAGS_COMMON) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
else ifeq ($(VARIANT),fuzz)
  CC       = clang
  CFLAGS   = $(CFLAGS_COMMON) -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
else
  $(error VARIANT is release, asan or fuzz)
endif
LDLIBS = -luring -lssl -lcrypto -lcyaml -lyaml -ljansson -lsystemd -lcares -lmaxminddb -lxxhash -lnghttp2 -lm $(LIBALLOC)

BASE_SRC   = $(sort $(wildcard base/*/*.c))
EDGE_SRC   = $(sort $(wildcard edge/*.c))
SHIELD_SRC = $(sort $(wildcard origin-shield/*.c))
CTL_SRC    = $(sort $(wildcard ctl/*.c))
SIM_SRC    = $(sort $(wildcard tests/sim/sim_*.c))
UNIT_SRC   = $(sort $(wildcard tests/unit/*/test_*.c))
SIMT_SRC   = $(sort $(wildcard tests/sim/test_*.c))
FUZZ_SRC   = $(sort $(wildcard tests/fuzz/fuzz_*.c))

objects     = $(patsubst %.c,$(O)/%.o,$(1))
UNIT_BIN    = $(patsubst %.c,$(O)/%,$(UNIT_SRC))
SIMT_BIN    = $(patsubst %.c,$(O)/%,$(SIMT_SRC))
FUZZ_BIN    = $(patsubst %.c,$(O)/%,$(FUZZ_SRC))
LIBBASE     = $(O)/libbase.a
PROGRAMS    = $(O)/segue-edge $(O)/segue-shield $(O)/seguectl

.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all programs tests fuzzers demo bench bench-programs check soak clean FORCE
.PHONY: tidy tidy-all tidy-format tidy-rules tidy-clang tidy-cppcheck format

all: programs
ifeq ($(VARIANT),release)
	@ln -sf release/segue-edge release/segue-shield release/seguectl build/
endif

programs: $(PROGRAMS)
tests:    $(UNIT_BIN) $(SIMT_BIN)
fuzzers:  $(FUZZ_BIN)

$(O)/segue-edge:   $(call objects,$(EDGE_SRC))   $(LIBBASE)
$(O)/segue-shield: $(call objects,$(SHIELD_SRC)) $(LIBBASE)
$(O)/seguectl:     $(call objects,$(CTL_SRC))    $(LIBBASE)
$(PROGRAMS):
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBBASE) $(LDLIBS)

# Files that hold one line and are written only when it changes, so that what depends on them is then built again:
# when a source is removed, the archive; when the commit is another, what names it.
once_changed = @mkdir -p $(@D); echo '$(1)' | cmp -s - $@ || echo '$(1)' >$@
$(O)/base.list: FORCE
	$(call once_changed,$(BASE_SRC))
$(O)/version: FORCE
	$(call once_changed,$(VERSION) $(COMMIT))

$(LIBBASE): $(call objects,$(BASE_SRC)) $(O)/base.list
	@rm -f $@
	$(Q)ar rcs $@ $(filter %.o,$^)

$(O)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(DEFINES) -MMD -MP -c -o $@ $<

NAMES_VERSION = $(shell grep -l 'include "util/version.h"' $(BASE_SRC))
$(call objects,$(NAMES_VERSION)): $(O)/version
$(call objects,$(NAMES_VERSION)): DEFINES = -DSEGUE_VERSION='"$(VERSION)"' -DSEGUE_COMMIT='"$(COMMIT)"'

# A unit test links what it uses out of the archive.
$(O)/tests/unit/%: $(O)/tests/unit/%.o $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(LIBBASE) -lcmocka $(LDLIBS)

# The simulated clock and I/O come before the archive, so its real ones are never linked.
$(O)/tests/sim/test_%: $(O)/tests/sim/test_%.o $(call objects,$(SIM_SRC)) $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBBASE) -lcmocka $(LDLIBS)

$(O)/tests/fuzz/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $< $(LIBBASE) $(LDLIBS)

# The load programs and measurements of the bench; what is measured is always the release variant.
BENCH_OWN  = $(sort $(wildcard bench/client*.c))
BENCH_SRC  = $(filter-out $(BENCH_OWN),$(sort $(wildcard bench/*.c)))
TRACE_SRC  = $(sort $(wildcard bench/trace/*.c))
BENCH_BIN  = $(patsubst bench/%.c,build/bench/%,$(BENCH_SRC)) $(if $(TRACE_SRC),build/bench/trace)

bench-programs: $(BENCH_BIN)

build/bench/%: $(O)/bench/%.o $(call objects,$(BENCH_OWN)) $(LIBBASE)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBBASE) $(LDLIBS)

build/bench/trace: $(call objects,$(TRACE_SRC)) $(LIBBASE)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBBASE) $(LDLIBS)

# BENCH passes options on: make bench BENCH="--quick --only segue,nginx"
bench:
	@packaging/install-deps.sh build bench
	@$(MAKE) --no-print-directory -j$(JOBS) VARIANT=release all bench-programs
	@/usr/bin/python3 bench/run.py $(BENCH)

demo:
	@packaging/install-deps.sh build demo
	@$(MAKE) --no-print-directory -j$(JOBS) VARIANT=release all
	@demo/demo.py

# ---- Checks. tests/run.py says how each kind of test is run; SIM_SEEDS and FUZZ_SECONDS bound what has no end.

FUZZ_SECONDS ?= 15

check soak:
	@packaging/install-deps.sh build check
	@$(MAKE) --no-print-directory -j$(JOBS) VARIANT=release all tests
	@$(MAKE) --no-print-directory -j$(JOBS) VARIANT=asan programs tests
	@$(MAKE) --no-print-directory -j$(JOBS) VARIANT=fuzz fuzzers
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/run.py $@

soak: FUZZ_SECONDS = 600

TIDY_SRC = $(sort $(wildcard base/*/*.c edge/*.c origin-shield/*.c ctl/*.c bench/*.c bench/*/*.c tests/*/*.c tests/unit/*/*.c))
TIDY_HDR = $(sort $(wildcard base/*/*.h edge/*.h origin-shield/*.h ctl/*.h bench/*.h bench/*/*.h tests/*/*.h tests/unit/*.h tests/unit/*/*.h))

tidy:
	@packaging/install-deps.sh build check
	@$(MAKE) --no-print-directory -j$(JOBS) -k tidy-all
	@echo 'tidy: $(words $(TIDY_SRC)) sources and $(words $(TIDY_HDR)) headers are clean'

tidy-all: tidy-format tidy-rules tidy-clang tidy-cppcheck

tidy-format:
	$(Q)clang-format --dry-run -Werror $(TIDY_SRC) $(TIDY_HDR)

format:
	clang-format -i $(TIDY_SRC) $(TIDY_HDR)

tidy-rules:
	$(Q)tests/rules.py --self-test
	$(Q)tests/rules.py $(TIDY_SRC) $(TIDY_HDR)

# One stamp a source, older than whatever the source includes when it must be looked at again.
tidy-clang: $(patsubst %.c,build/tidy/%.ok,$(TIDY_SRC))
build/tidy/%.ok: %.c .clang-tidy tests/.clang-tidy
	@mkdir -p $(@D)
	$(Q)gcc $(CFLAGS_COMMON) -MM -MP -MT $@ -MF build/tidy/$*.d $<
	$(Q)clang-tidy --quiet $< -- $(CFLAGS_COMMON) 2>build/tidy/$*.err || { cat build/tidy/$*.err; false; }
	@touch $@

tidy-cppcheck:
	@mkdir -p build/cppcheck
	$(Q)cppcheck --quiet -j$(JOBS) --cppcheck-build-dir=build/cppcheck --enable=warning,performance,portability \
	    --error-exitcode=1 --inline-suppr --suppressions-list=tests/cppcheck.txt --std=c11 \
	    -D_GNU_SOURCE -Ibase $(TIDY_SRC)

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
