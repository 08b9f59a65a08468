# zqbroker: GNU make. Everything is built below tests/build; nothing but `make install` writes elsewhere.

CC     ?= cc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
JOBS   ?= 2

B        = tests/build
WARN     = -Wall -Wextra
ZMQ      = $(shell pkg-config --cflags --libs libzmq 2>/dev/null || echo -lzmq)
CMOCKA   = $(shell pkg-config --cflags --libs cmocka 2>/dev/null || echo -lcmocka)
CZMQ     = $(if $(call HAVE,czmq),-DWITH_CZMQ $(shell pkg-config --cflags --libs libczmq 2>/dev/null || echo -lczmq))
NEED     = CC="$(CC)" sh tests/support/need.sh
HAVE     = $(shell $(NEED) have $(1) && echo yes)
PYTHON   = $(shell $(NEED) python)
VERSION  = $(shell awk '/^.define ZQB_VERSION_M/ { printf "%s.", $$3 } /^.define ZQB_VERSION_P/ { print $$3 }' zqbroker.h)
AGAIN    = $(MAKE) --no-print-directory

EXAMPLE_NAMES = $(patsubst examples/%.c,%,$(wildcard examples/*.c))
EXAMPLES = $(EXAMPLE_NAMES:%=$(B)/%)
UNITS    = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
HEADERS  = zqbroker.h $(wildcard tests/*.h tests/support/*.h)

export CC MAKE
export PYTHONDONTWRITEBYTECODE = 1
export CMOCKA_MESSAGE_OUTPUT   = TAP
export ASAN_OPTIONS  = detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS = print_stacktrace=1
export TSAN_OPTIONS  = suppressions=$(CURDIR)/tests/support/tsan.supp:second_deadlock_stack=1
export ZQBROKERD = $(B)/zqbrokerd
export ZQCALL    = $(B)/zqcall
export ZQECHO    = $(B)/zqecho
export ZQOBEDIENT = $(B)/obedient
export ZQGUARDED = $(B)/guarded

.PHONY: all demo test check rest install uninstall clean help
.NOTPARALLEL:

## make all        or just make: the example programs, in tests/build
all:
	@$(NEED) demo
	@$(AGAIN) -j$(JOBS) built-examples

## make demo       the broker spreads real work over threads; ARGS="FILE..." for files of yours
demo:
	@$(NEED) demo
	@$(AGAIN) $(B)/quickstart
	$(B)/quickstart $(ARGS)

## make test       every promise, tested; in two or three minutes
test:
	@$(NEED) test
	@$(AGAIN) -k -j$(JOBS) built-test || echo "what did not build counts as failed"
	@$(AGAIN) run-test

## make check      that, the unit tests again under the sanitizers, valgrind and another compiler, fuzzers, coverage, soak
check:
	@$(NEED) check
	@$(AGAIN) -k -j$(JOBS) built-test built-rest || echo "what did not build counts as failed"
	@$(AGAIN) run-check

## make rest       what check does beyond test
rest:
	@$(NEED) check
	@$(AGAIN) -k -j$(JOBS) built-rest || echo "what did not build counts as failed"
	@$(AGAIN) run-rest

## make install    the header, and a zqbroker.pc for pkg-config, below PREFIX (/usr/local), inside DESTDIR
install: $(B)/zqbroker.pc
	install -d "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(PREFIX)/lib/pkgconfig"
	install -m 644 zqbroker.h "$(DESTDIR)$(PREFIX)/include/zqbroker.h"
	install -m 644 $(B)/zqbroker.pc "$(DESTDIR)$(PREFIX)/lib/pkgconfig/zqbroker.pc"

## make uninstall  takes both away
uninstall:
	rm -f "$(DESTDIR)$(PREFIX)/include/zqbroker.h" "$(DESTDIR)$(PREFIX)/lib/pkgconfig/zqbroker.pc"

## make clean      removes what was built
clean:
	rm -rf $(B)

## make help       this
help:
	@sed -n 's/^## //p' Makefile

## make bench      the speed beside zmq_proxy, NATS and others; BENCH_QUICK=1: in a minute; see tests/bench/README.md
ifneq ($(filter bench%,$(MAKECMDGOALS)),)
include tests/bench/bench.mk
endif

## make sim        the engine under SEEDS=N random schedules, each checked against a model; see tests/sim/sim.mk
include tests/sim/sim.mk

## make fuzz       the fuzzers, each for FUZZ_SECONDS=60; FUZZ="fuzz_wire ..." for some of them; needs clang; see tests/fuzz/fuzz.mk
include tests/fuzz/fuzz.mk

## make chaos      real processes killed, stopped and cut off at random: CHAOS_SECONDS=15 CHAOS_SEED=N
## make soak       a broker under full load that must be as before at the end: SOAK_SECONDS=3600; see tests/chaos/chaos.mk
## make hostile    peers that mean no good, of sixteen kinds, beside good ones: HOSTILE_SECONDS=120
include tests/chaos/chaos.mk

## make coverage   which lines and branches of the header the tests reach, and what is left: tests/support/coverage.mk
include tests/support/coverage.mk

# ---- how things are built

$(B)/%: examples/%.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) $(CFLAGS) $(CPPFLAGS) $(WARN) -I. -o $@ $< $(LDFLAGS) $(ZMQ)

# A worker for the Python peers.
$(B)/obedient: tests/interop/obedient.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) $(CFLAGS) $(CPPFLAGS) $(WARN) -I. -o $@ $< $(LDFLAGS) $(ZMQ)

# A broker that lets peers in as the matrix test wants it, also by CZMQ's zauth, if there is CZMQ.
$(B)/guarded: tests/interop/guarded.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) $(CFLAGS) $(CPPFLAGS) $(WARN) -I. -o $@ $< $(LDFLAGS) $(CZMQ) $(ZMQ)

# Always alike, as its instructions are counted.
$(B)/cost: tests/bench/cost.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) -O2 -g -I. -o $@ $< $(LDFLAGS) $(ZMQ)

# Unit tests: plain, and each variant in a folder of its own, with examples. $(1) folder, $(2) compiler, $(3) flags
define variant
$(B)/$(1)/test_%: tests/test_%.c $$(HEADERS)
	@mkdir -p $$(@D) && rm -f $$@
	$(2) $$(WARN) $(3) $$(CPPFLAGS) -I. -Itests -o $$@ $$< $$(LDFLAGS) $$(CMOCKA) $$(ZMQ)
$(B)/$(1)/%: examples/%.c zqbroker.h
	@mkdir -p $$(@D) && rm -f $$@
	$(2) $$(WARN) $(3) $$(CPPFLAGS) -I. -o $$@ $$< $$(LDFLAGS) $$(ZMQ)
$(B)/$(1)/obedient: tests/interop/obedient.c zqbroker.h
	@mkdir -p $$(@D) && rm -f $$@
	$(2) $$(WARN) $(3) $$(CPPFLAGS) -I. -o $$@ $$< $$(LDFLAGS) $$(ZMQ)
$(B)/$(1)/guarded: tests/interop/guarded.c zqbroker.h
	@mkdir -p $$(@D) && rm -f $$@
	$(2) $$(WARN) $(3) $$(CPPFLAGS) -I. -o $$@ $$< $$(LDFLAGS) $$(CZMQ) $$(ZMQ)
endef

ASAN = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
TSAN = -O1 -g -fno-omit-frame-pointer -fsanitize=thread -include tests/support/tsan_zmq.h
$(eval $(call variant,unit,$$(CC),$$(CFLAGS)))
$(eval $(call variant,asan,$$(CC),$$(ASAN)))
$(eval $(call variant,tsan,$$(CC),$$(TSAN)))
$(eval $(call variant,clang,clang,-O3 -g))
$(eval $(call variant,coverage,$$(COVERAGE_CC),$$(COVERAGE_FLAGS)))
$(eval $(call variant,c++,g++,-x c++ -std=c++17 -Wno-missing-field-initializers -O2 -g))

.PHONY: $(B)/zqbroker.pc
$(B)/zqbroker.pc:
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' '' 'Name: zqbroker' 'Version: $(VERSION)' \
	    'Description: an LRU and Majordomo message broker in one header, over libzmq' \
	    $(if $(shell pkg-config --exists libzmq && echo yes),'Requires: libzmq >= 4.2','Libs: -lzmq') 'Cflags: -I$${includedir}' > $@

# ---- what is run: LABEL:: COMMAND, see tests/support/run.py

RUN = $(PYTHON) tests/support/run.py
runs = $(foreach unit,$(UNITS),"$(1)$(unit):: $(2) $(B)/$(3)/$(unit)")
python_runs = $(foreach test,$(1),"$(basename $(notdir $(test))):: $(PYTHON) $(test)")

TEST_RUNS = $(call runs,,,unit) \
    "sim:: $(SIM_BUILD)/sim $(SIM_ARGS)" \
    "chaos:: $(PYTHON) tests/chaos/chaos.py --seconds $(CHAOS_SECONDS)" \
    $(call python_runs,tests/test_build.py tests/test_readme.py tests/test_examples.py tests/interop/test_interop.py \
        tests/interop/test_matrix.py)

VALGRIND = valgrind -q --leak-check=full --errors-for-leak-kinds=definite,indirect --error-exitcode=99 --fair-sched=yes \
           --suppressions=tests/support/valgrind.supp
NO_ASLR  = $(shell setarch -R true 2>/dev/null && echo setarch -R) # older ThreadSanitizers cannot do with much of it

# The programs that the Python peers talk to.
interop_programs = zqbrokerd zqcall zqecho obedient guarded
interop_run = $(foreach test,test_interop test_matrix,"$(1)/$(test):: ZQBROKERD=$(B)/$(1)/zqbrokerd \
    ZQCALL=$(B)/$(1)/zqcall ZQECHO=$(B)/$(1)/zqecho ZQOBEDIENT=$(B)/$(1)/obedient ZQGUARDED=$(B)/$(1)/guarded \
    $(PYTHON) tests/interop/$(test).py")

examples_run = "$(1)/test_examples:: ZQB_PROGRAMS=$(B)/$(1) $(2) $(PYTHON) tests/test_examples.py"

VARIANTS := $(if $(filter %-rest %-check,$(MAKECMDGOALS)), $(if $(call HAVE,sanitizers),asan tsan) \
    $(if $(call HAVE,g++),c++) $(if $(call HAVE,clang),clang) $(if $(call HAVE,fuzzer),fuzz) \
    $(if $(call HAVE,gcov),coverage) $(if $(call HAVE,valgrind),valgrind))
REST_RUNS  = "more/sim:: $(SIM_BUILD)/sim $(SIM_MORE)" "soak:: $(CHAOS_NICE) $(PYTHON) tests/chaos/soak.py --seconds 60" \
    "hostile:: $(CHAOS_NICE) $(PYTHON) tests/chaos/hostile.py --seconds 20" \
    $(foreach variant,$(VARIANTS),$(run_$(variant)))
REST_BUILT = $(foreach variant,$(VARIANTS),$(built_$(variant):%=$(B)/$(variant)/%)) \
    $(if $(filter valgrind,$(VARIANTS)),$(B)/cost) $(if $(filter asan,$(VARIANTS)),$(FUZZ_REPLAYED)) \
    $(if $(filter coverage,$(VARIANTS)),$(COVERAGE_BUILT)) \
    $(if $(filter fuzz,$(VARIANTS)),$(FUZZ:%=$(FUZZ_BUILD)/%) $(FUZZ_SEEDS))

run_asan     = "asan/sim:: $(SIM_BUILD)/sim-asan $(SIM_ARGS)" $(FUZZ_REPLAY_RUNS) $(call interop_run,asan) $(call examples_run,asan) $(call runs,asan/,,asan)
built_asan   = $(UNITS) $(EXAMPLE_NAMES) obedient guarded
run_tsan     = $(call examples_run,tsan,$(NO_ASLR)) $(call runs,tsan/,$(NO_ASLR),tsan)
built_tsan   = $(UNITS) $(EXAMPLE_NAMES)
run_c++      = $(call interop_run,c++)
built_c++    = $(interop_programs)
run_clang    = $(call runs,clang/,,clang)
built_clang  = $(UNITS)
run_fuzz     = $(FUZZ_RUNS)
run_coverage = "coverage:: $(AGAIN) run-coverage"
run_valgrind = $(call runs,valgrind/,ZQB_SLOW=1 $(VALGRIND),unit) "cost:: $(PYTHON) tests/bench/cost.py $(B)/cost"

.PHONY: built-examples built-test built-rest run-test run-rest run-check
built-examples: $(EXAMPLES)
built-test: $(EXAMPLES) $(B)/obedient $(B)/guarded $(UNITS:%=$(B)/unit/%) $(SIM_BUILD)/sim $(CHAOS_BUILD)/peer
built-rest: $(UNITS:%=$(B)/unit/%) $(REST_BUILT) $(SIM_BUILD)/sim $(SIM_BUILD)/sim-asan $(SOAK_BUILT) $(HOSTILE_BUILT) \
    $(B)/zqbrokerd
built-examples built-test built-rest:
	@:

run-test:
	@$(RUN) --title "make test" --timeout 300 $(TEST_RUNS)
run-rest:
	@$(RUN) --title "make rest" --timeout 600 --jobs $(JOBS) $(REST_RUNS)
run-check:
	@$(RUN) --title "make check" --timeout 600 --jobs $(JOBS) $(TEST_RUNS) $(REST_RUNS)
