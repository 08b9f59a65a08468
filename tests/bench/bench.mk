#   bench.mk - the benchmark; included by the Makefile at the top, or used alone from there:
#
#       make -f tests/bench/bench.mk bench              # under ten minutes; BENCH_QUICK=1 under one
#       make bench-cost                                 # the instructions of a request alone, under a minute
#       make -f tests/bench/bench.mk bench-plot         # draws tests/bench/out/results.svg from the last run
#       make -f tests/bench/bench.mk bench-readme       # puts the last run into README.md: its table, and its picture
#       make bench-security                             # what security costs, in three minutes, into tests/bench/README.md
#       make -f tests/bench/bench.mk bench BENCH_ARGS="transport=tcp subject=zqb1,nats rounds=3 seconds=20"

BENCH_DIR    := tests/bench
BENCH_BUILD  := tests/build/bench
BENCH_OUT    := $(BENCH_DIR)/out
BENCH_CC     ?= $(CC)
BENCH_CFLAGS ?= -std=c99 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wpedantic -Wconversion -Wshadow
BENCH_ARGS   ?=
PYTHON       ?= python3

# What is optional: libraries of other systems, and options that an older zqbroker.h does not have.
bench_has     = $(shell printf '\043include <%s>\n' $(1) | $(BENCH_CC) -E - >/dev/null 2>&1 && echo yes)
bench_options = $(shell sed -n '/^typedef struct zqb_$(1)_options_t {/,/^}/p' zqbroker.h | grep -q 'spin_us;' && echo yes)
BENCH_LIBS   := -lzmq -lpthread
ifeq ($(call bench_has,hiredis/hiredis.h),yes)
BENCH_DEFS   += -DBENCH_REDIS
BENCH_LIBS   += -lhiredis
endif
ifeq ($(call bench_has,libgearman/gearman.h),yes)
BENCH_DEFS   += -DBENCH_GEARMAN
BENCH_LIBS   += -lgearman
endif
ifeq ($(call bench_options,broker),yes)
BENCH_DEFS   += -DBENCH_SPIN_BROKER
endif
ifeq ($(call bench_options,worker),yes)
BENCH_DEFS   += -DBENCH_SPIN_WORKER
endif
ifeq ($(call bench_options,client),yes)
BENCH_DEFS   += -DBENCH_SPIN_CLIENT
endif

BENCH_COMMON   := run client measure subject_zmq
BENCH_SUBJECTS := subject_mdp subject_nats subject_redis subject_gearman
BENCH_HEADERS  := $(wildcard $(BENCH_DIR)/*.h) zqbroker.h
bench_objects   = $(addprefix $(BENCH_BUILD)/,$(addsuffix .o,$(1)))

.PHONY: bench bench-build bench-plot bench-readme bench-security bench-cost bench-floor bench-clean

bench: bench-build | $(BENCH_OUT)
	$(BENCH_BUILD)/bench $(BENCH_ARGS)
	$(BENCH_BUILD)/scale
	$(BENCH_BUILD)/balance
	@if [ "$$BENCH_QUICK" != 1 ] && command -v valgrind >/dev/null; then $(MAKE) --no-print-directory bench-cost; fi

bench-build: $(BENCH_BUILD)/bench $(BENCH_BUILD)/scale $(BENCH_BUILD)/balance

# the instructions of a request, of one that asks for something, and beside much else; needs valgrind
bench-cost: tests/build/cost
	$(PYTHON) $(BENCH_DIR)/cost.py $<

# what waking threads costs, without any library: the floor of a lone request
bench-floor: $(BENCH_BUILD)/floor
	$<

bench-plot:
	$(PYTHON) $(BENCH_DIR)/plot.py $(BENCH_OUT)/results.tsv $(BENCH_OUT)/results.svg

bench-readme:
	$(PYTHON) $(BENCH_DIR)/plot.py $(BENCH_OUT)/results.tsv $(BENCH_DIR)/results.svg
	$(PYTHON) $(BENCH_DIR)/table.py $(BENCH_OUT)/results.tsv README.md

BENCH_SECURITY := subject=zqb1,zqb1_curve,zqb1_plain,zqb1_rules_10,zqb1_rules_1000,zmq_proxy_curve transport=inproc,tcp \
    scenario=sync,pipelined-1x1000 workers=1 placement=pinned body=10,1024,65536 seconds=120

bench-security: bench-build | $(BENCH_OUT)
	$(BENCH_BUILD)/bench $(BENCH_SECURITY) out=$(BENCH_OUT)/security.tsv $(BENCH_ARGS)
	$(BENCH_BUILD)/scale $(BENCH_OUT)/scale.tsv
	$(PYTHON) $(BENCH_DIR)/table.py --security $(BENCH_OUT)/security.tsv $(BENCH_OUT)/scale.tsv $(BENCH_DIR)/README.md

bench-clean:
	rm -rf $(BENCH_BUILD) $(BENCH_OUT)

$(BENCH_BUILD)/bench: $(call bench_objects,bench $(BENCH_COMMON) subject_zqb $(BENCH_SUBJECTS))
	$(BENCH_CC) $(LDFLAGS) $^ -o $@ $(BENCH_LIBS)

$(BENCH_BUILD)/balance: $(call bench_objects,balance $(BENCH_COMMON) subject_zqb)
	$(BENCH_CC) $(LDFLAGS) $^ -o $@ -lzmq -lpthread

$(BENCH_BUILD)/floor: $(call bench_objects,floor measure)
	$(BENCH_CC) $(LDFLAGS) $^ -o $@ -lzmq -lpthread

$(BENCH_BUILD)/scale: $(call bench_objects,scale $(BENCH_COMMON) subject_zqb_counted)
	$(BENCH_CC) $(LDFLAGS) $^ -o $@ -lzmq -lpthread

$(BENCH_BUILD)/%.o: $(BENCH_DIR)/%.c $(BENCH_HEADERS) $(BENCH_DIR)/bench.mk | $(BENCH_BUILD)
	$(BENCH_CC) $(BENCH_CFLAGS) $(BENCH_DEFS) -c $< -o $@

# the same, counting what zqbroker.h allocates
$(BENCH_BUILD)/subject_zqb_counted.o: $(BENCH_DIR)/subject_zqb.c $(BENCH_HEADERS) $(BENCH_DIR)/bench.mk | $(BENCH_BUILD)
	$(BENCH_CC) $(BENCH_CFLAGS) $(BENCH_DEFS) -DBENCH_COUNT_MEMORY -c $< -o $@

$(BENCH_BUILD)/scale.o: BENCH_DEFS += -DBENCH_COUNT_MEMORY

$(BENCH_BUILD) $(BENCH_OUT):
	mkdir -p $@
