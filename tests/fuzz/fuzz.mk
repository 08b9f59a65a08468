# The fuzzers. To be included by the Makefile, or alone: make -f tests/fuzz/fuzz.mk fuzz
#
#   make fuzz            each for FUZZ_SECONDS=60; FUZZ="fuzz_wire fuzz_broker ..." for some of them; needs clang
#   make fuzz-build      only builds them, and the seeds
#   make fuzz-replay     the seeds, and what tests/fuzz/kept has, with any compiler: CC, FUZZ_REPLAY_FLAGS
#   make fuzz-coverage   which lines of zqbroker.h the corpora reach; needs llvm-cov

CC           ?= cc
PYTHON       ?= python3
FUZZ_SECONDS ?= 60
FUZZ         ?= fuzz_wire fuzz_broker fuzz_client fuzz_worker fuzz_auth fuzz_rules fuzz_keys
FUZZ_CLANG   ?= clang
FUZZ_NICE    ?= nice -n 15

FUZZ_DIR   = tests/fuzz
FUZZ_BUILD = tests/build/fuzz
FUZZ_ZMQ   = $(shell pkg-config --cflags --libs libzmq 2>/dev/null || echo -lzmq)
FUZZ_NEEDS = $(wildcard $(FUZZ_DIR)/*.h) tests/sim/walk.h examples/zqkeygen.c zqbroker.h
FUZZ_WARN  = -std=c99 -Wall -Wextra -Wno-unused-function -I.
FUZZ_ASAN  = -O2 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_REPLAY_FLAGS ?= $(FUZZ_ASAN)
FUZZ_SEEDS = $(FUZZ_BUILD)/seeds/.made
fuzz_kept  = $(wildcard $(FUZZ_DIR)/kept/$(1))

# For the list of runs of the Makefile: LABEL:: COMMAND, see tests/support/run.py
FUZZ_RUNS        = "fuzz:: $(FUZZ_NICE) $(PYTHON) $(FUZZ_DIR)/fuzz.py --seconds $(FUZZ_SECONDS) $(FUZZ)"
FUZZ_REPLAY_RUNS = $(foreach name,$(FUZZ),"replay/$(name):: $(FUZZ_BUILD)/replay-$(name) \
    $(FUZZ_BUILD)/seeds/$(name) $(call fuzz_kept,$(name))")
FUZZ_REPLAYED    = $(FUZZ:%=$(FUZZ_BUILD)/replay-%) $(FUZZ_SEEDS)

.PHONY: fuzz fuzz-build fuzz-replay fuzz-coverage

fuzz: fuzz-build
	@$(FUZZ_NICE) $(PYTHON) $(FUZZ_DIR)/fuzz.py --seconds $(FUZZ_SECONDS) $(FUZZ)

fuzz-build: $(FUZZ:%=$(FUZZ_BUILD)/%) $(FUZZ_SEEDS)

fuzz-replay: $(FUZZ_REPLAYED)
	@failed=0; for name in $(FUZZ); do kept=; test -d $(FUZZ_DIR)/kept/$$name && kept=$(FUZZ_DIR)/kept/$$name; \
	    $(FUZZ_BUILD)/replay-$$name $(FUZZ_BUILD)/seeds/$$name $$kept || failed=1; done; exit $$failed

# Reads the seeds, and what was found: the corpora grow with make fuzz.
fuzz-coverage: $(FUZZ:%=$(FUZZ_BUILD)/cover-%) $(FUZZ_SEEDS)
	@for name in $(FUZZ); do mkdir -p $(FUZZ_BUILD)/corpus/$$name; LLVM_PROFILE_FILE=$(FUZZ_BUILD)/$$name.profraw \
	    $(FUZZ_NICE) $(FUZZ_BUILD)/cover-$$name -runs=0 $(FUZZ_BUILD)/seeds/$$name \
	    $(FUZZ_BUILD)/corpus/$$name >/dev/null 2>&1 || echo "$$name did not end well, and does not count"; done
	@for name in $(FUZZ); do at=$(FUZZ_BUILD)/$$name; llvm-profdata merge -o $$at.profdata $$at.profraw && \
	    llvm-cov export -format=lcov -instr-profile=$$at.profdata $(FUZZ_BUILD)/cover-$$name > $$at.lcov; done
	@$(PYTHON) $(FUZZ_DIR)/coverage.py zqbroker.h $(FUZZ:%=$(FUZZ_BUILD)/%.lcov)

$(FUZZ_BUILD)/fuzz_%: $(FUZZ_DIR)/fuzz_%.c $(FUZZ_DIR)/mutate.c $(FUZZ_NEEDS)
	@mkdir -p $(@D)
	$(FUZZ_CLANG) $(FUZZ_WARN) $(FUZZ_ASAN) -fsanitize=fuzzer -o $@ $< $(FUZZ_DIR)/mutate.c $(LDFLAGS) $(FUZZ_ZMQ)

$(FUZZ_BUILD)/cover-fuzz_%: $(FUZZ_DIR)/fuzz_%.c $(FUZZ_DIR)/mutate.c $(FUZZ_NEEDS)
	@mkdir -p $(@D)
	$(FUZZ_CLANG) $(FUZZ_WARN) -O1 -g -DFUZZ_COVERAGE -fsanitize=fuzzer -fprofile-instr-generate -fcoverage-mapping -o $@ $< \
	    $(FUZZ_DIR)/mutate.c $(LDFLAGS) $(FUZZ_ZMQ)

$(FUZZ_BUILD)/replay-fuzz_%: $(FUZZ_DIR)/fuzz_%.c $(FUZZ_DIR)/replay.c $(FUZZ_NEEDS)
	@mkdir -p $(@D)
	$(CC) $(FUZZ_WARN) $(FUZZ_REPLAY_FLAGS) -o $@ $< $(FUZZ_DIR)/replay.c $(LDFLAGS) $(FUZZ_ZMQ)

$(FUZZ_BUILD)/seeds-writer: $(FUZZ_DIR)/seeds.c $(FUZZ_DIR)/script.h $(FUZZ_DIR)/steps.h
	@mkdir -p $(@D)
	$(CC) $(FUZZ_WARN) -O1 -g -o $@ $< $(LDFLAGS) $(FUZZ_ZMQ)

$(FUZZ_SEEDS): $(FUZZ_BUILD)/seeds-writer
	@rm -rf $(@D)
	$< $(@D)
	@touch $@
