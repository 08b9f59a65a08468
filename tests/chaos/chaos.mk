# Chaos with real processes: see tests/chaos/chaos.py. To be included by the Makefile, or alone:
# make -f tests/chaos/chaos.mk chaos
#
#   make chaos      CHAOS_SECONDS=15 CHAOS_SEED=N (random if not given) CHAOS_ARGS="--transport tcp"
#   make soak       a broker under load for an hour, which must be as before at the end: SOAK_SECONDS=3600
#                   SOAK_ARGS="--only broker"; see tests/chaos/soak.py
#   make hostile    peers of many kinds that mean no good: HOSTILE_SECONDS=120; see tests/chaos/hostile.py

CC            ?= cc
CHAOS_SECONDS ?= 15
CHAOS_SEED    ?=
CHAOS_ARGS    ?=
CHAOS_NICE    ?= nice -n 10
SOAK_SECONDS  ?= 3600
SOAK_ARGS     ?=
HOSTILE_SECONDS ?= 120
HOSTILE_ARGS  ?=

CHAOS_BUILD   = tests/build/chaos
CHAOS_BROKER  = tests/build/zqbrokerd
SOAK_BUILT    = $(CHAOS_BUILD)/soak $(CHAOS_BUILD)/heap.so
HOSTILE_BUILT = $(CHAOS_BUILD)/siege $(CHAOS_BUILD)/hostile tests/build/zqkeygen
CHAOS_PYTHON  = $(or $(PYTHON),$(shell sh tests/support/need.sh python),python3)
CHAOS_WARN    = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-unused-function
CHAOS_ZMQ     = $(shell pkg-config --cflags --libs libzmq 2>/dev/null || echo -lzmq)
CHAOS_ALL     = $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(CHAOS_ARGS)
CHAOS_RUN     = $(CHAOS_NICE) $(CHAOS_PYTHON) tests/chaos/chaos.py --seconds $(CHAOS_SECONDS) $(CHAOS_ALL)

.PHONY: chaos soak hostile

chaos: $(CHAOS_BUILD)/peer $(CHAOS_BROKER)
	$(CHAOS_RUN)

soak: $(SOAK_BUILT) $(CHAOS_BROKER)
	$(CHAOS_NICE) $(CHAOS_PYTHON) tests/chaos/soak.py --seconds $(SOAK_SECONDS) $(SOAK_ARGS)

hostile: $(HOSTILE_BUILT)
	$(CHAOS_NICE) $(CHAOS_PYTHON) tests/chaos/hostile.py --seconds $(HOSTILE_SECONDS) $(HOSTILE_ARGS)

$(CHAOS_BUILD)/siege $(CHAOS_BUILD)/hostile: tests/chaos/siege.h
$(CHAOS_BUILD)/siege $(CHAOS_BUILD)/soak: tests/chaos/given.h

$(CHAOS_BUILD)/%: tests/chaos/%.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) -std=c99 -O2 -g $(CHAOS_WARN) -I. -pthread -o $@ $< $(LDFLAGS) $(CHAOS_ZMQ)

# Only glibc tells what it is for; elsewhere soak does without.
$(CHAOS_BUILD)/heap.so: tests/chaos/heap.c
	@mkdir -p $(@D) && rm -f $@
	$(CC) -std=c99 -O2 -Wall -Wextra -shared -fPIC -pthread -o $@ $< || echo "soak will know less of memory"

# Alone, there is no rule for the examples.
ifndef EXAMPLE_NAMES
$(CHAOS_BROKER) tests/build/zqkeygen: tests/build/%: examples/%.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) -O2 -g -Wall -Wextra -I. -o $@ $< $(LDFLAGS) $(CHAOS_ZMQ)
endif
