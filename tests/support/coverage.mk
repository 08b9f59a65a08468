# What of the header the tests reach: see tests/support/coverage.py. To be included by the Makefile.
#
#   make coverage   the unit tests, the programs with their tests, some seeds of the simulator and the kept inputs of
#                   the fuzzers, built with COVERAGE_CC=gcc --coverage in tests/build/coverage; then a table, and what
#                   is left, function by function. It fails below COVERAGE_LINES=95 and COVERAGE_BRANCHES=85 percent,
#                   and if tests/support/coverage.txt gives no reason for lines that are left

export COVERAGE_CC ?= gcc
export GCOV        ?= gcov
COVERAGE_LINES     ?= 95
COVERAGE_BRANCHES  ?= 85

COVERAGE_BUILD = $(B)/coverage
COVERAGE_FLAGS = -O0 -g --coverage -fprofile-update=atomic
COVERAGE_BUILT = $(UNITS:%=$(COVERAGE_BUILD)/%) $(EXAMPLE_NAMES:%=$(COVERAGE_BUILD)/%) \
    $(COVERAGE_BUILD)/obedient $(COVERAGE_BUILD)/guarded $(COVERAGE_BUILD)/sim \
    $(FUZZ:%=$(COVERAGE_BUILD)/replay-%) $(FUZZ_SEEDS)
COVERAGE_SIM   = $(COVERAGE_BUILD)/sim --kept tests/sim/seeds.txt --seeds 30 --events 2000 --jobs 2 --walk 0
COVERAGE_REPLAY = $(foreach name,$(FUZZ),"replay/$(name):: $(COVERAGE_BUILD)/replay-$(name) \
    $(FUZZ_BUILD)/seeds/$(name) $(call fuzz_kept,$(name))")
COVERAGE_RUNS  = $(call interop_run,coverage) $(call examples_run,coverage) $(call runs,,,coverage) \
    "sim:: $(COVERAGE_SIM)" $(COVERAGE_REPLAY)
COVERAGE_RUN   = $(PYTHON) tests/support/coverage.py --build $(COVERAGE_BUILD) --jobs $(JOBS) \
    --lines $(COVERAGE_LINES) --branches $(COVERAGE_BRANCHES)

.PHONY: coverage built-coverage run-coverage

coverage:
	@$(NEED) test
	@$(NEED) have gcov || { echo "it needs gcc with its gcov, of version 9 or later"; exit 1; }
	@$(AGAIN) -j$(JOBS) built-coverage
	@$(AGAIN) run-coverage

built-coverage: $(COVERAGE_BUILT)
	@:

run-coverage:
	@$(COVERAGE_RUN) $(COVERAGE_RUNS)

$(COVERAGE_BUILD)/sim: $(SIM_NEEDS)
	@mkdir -p $(@D) && rm -f $@ $@-*.gc*
	$(COVERAGE_CC) -std=c99 $(COVERAGE_FLAGS) $(SIM_WARN) -I. -o $@ $(SIM_SOURCES) $(LDFLAGS) $(SIM_ZMQ)

$(COVERAGE_BUILD)/replay-fuzz_%: $(FUZZ_DIR)/fuzz_%.c $(FUZZ_DIR)/replay.c $(FUZZ_NEEDS)
	@mkdir -p $(@D) && rm -f $@ $@-*.gc*
	$(COVERAGE_CC) $(FUZZ_WARN) $(COVERAGE_FLAGS) -o $@ $< $(FUZZ_DIR)/replay.c $(LDFLAGS) $(FUZZ_ZMQ)
