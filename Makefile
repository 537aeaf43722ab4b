# Segue. `make demo` and `make check` each do everything on a fresh Debian 12 machine.
#
#   make            build/segue-edge, build/segue-shield, build/seguectl
#   make demo       real audio through shield and edge, URLs to play, a page; Ctrl-C ends it
#   make check      every test that CI runs
#   make bench      side-by-side figures against public peers, one table
#   make tidy       format, layers, clang-tidy, cppcheck
#   make soak       what takes longer than CI should

VARIANT ?= release
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
LDLIBS = -luring -lssl -lcrypto -lcyaml -lyaml -ljansson -lsystemd -lcares -lxxhash -lm $(LIBALLOC)

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
.PHONY: all programs clean

all: programs
ifeq ($(VARIANT),release)
	@ln -sf release/segue-edge release/segue-shield release/seguectl build/
endif

programs: $(PROGRAMS)

$(O)/segue-edge:   $(call objects,$(EDGE_SRC))   $(LIBBASE)
$(O)/segue-shield: $(call objects,$(SHIELD_SRC)) $(LIBBASE)
$(O)/seguectl:     $(call objects,$(CTL_SRC))    $(LIBBASE)
$(PROGRAMS):
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBBASE) $(LDLIBS)

$(LIBBASE): $(call objects,$(BASE_SRC))
	@rm -f $@
	$(Q)ar rcs $@ $^

$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

# A unit test links what it uses out of the archive.
$(O)/tests/unit/%: $(O)/tests/unit/%.o $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(LIBBASE) -lcmocka $(LDLIBS)

# The simulated clock and I/O come before the archive, so its real ones are never linked.
$(O)/tests/sim/test_%: $(O)/tests/sim/test_%.o $(call objects,$(SIM_SRC)) $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBBASE) -lcmocka $(LDLIBS)

$(O)/tests/fuzz/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $< $(LIBBASE) $(LDLIBS)

# Benchmarks that need no peers. bench/trace/ is one program of several files.
$(O)/bench/trace/trace: $(call objects,$(sort $(wildcard bench/trace/*.c))) $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBBASE) $(LDLIBS)

$(O)/bench/%: $(O)/bench/%.o $(LIBBASE)
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(LIBBASE) $(LDLIBS)

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)

.PHONY: demo
demo:
	@packaging/install-deps.sh build demo
	@$(MAKE) --no-print-directory all
	@demo/demo.py
