# Chaos with real processes: see tests/chaos/chaos.py. To be included by the Makefile, or alone:
# make -f tests/chaos/chaos.mk chaos
#
#   make chaos      CHAOS_SECONDS=15 CHAOS_SEED=N (random if not given) CHAOS_ARGS="--transport tcp"
#   make soak       the same for an hour: CHAOS_SOAK_SECONDS=3600

CC            ?= cc
CHAOS_SECONDS ?= 15
CHAOS_SOAK_SECONDS ?= 3600
CHAOS_SEED    ?=
CHAOS_ARGS    ?=
CHAOS_NICE    ?= nice -n 10

CHAOS_BUILD   = tests/build/chaos
CHAOS_BROKER  = tests/build/zqbrokerd
CHAOS_PYTHON  = $(or $(PYTHON),$(shell sh tests/support/need.sh python),python3)
CHAOS_WARN    = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-unused-function
CHAOS_ZMQ     = $(shell pkg-config --cflags --libs libzmq 2>/dev/null || echo -lzmq)
CHAOS_ALL     = $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(CHAOS_ARGS)
CHAOS_RUN     = $(CHAOS_NICE) $(CHAOS_PYTHON) tests/chaos/chaos.py --seconds $(CHAOS_SECONDS) $(CHAOS_ALL)

.PHONY: chaos soak

chaos: $(CHAOS_BUILD)/peer $(CHAOS_BROKER)
	$(CHAOS_RUN)

soak: $(CHAOS_BUILD)/peer $(CHAOS_BROKER)
	$(CHAOS_NICE) $(CHAOS_PYTHON) tests/chaos/chaos.py --seconds $(CHAOS_SOAK_SECONDS) $(CHAOS_ALL)

$(CHAOS_BUILD)/peer: tests/chaos/peer.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) -std=c99 -O2 -g $(CHAOS_WARN) -I. -o $@ $< $(LDFLAGS) $(CHAOS_ZMQ)

# Alone, there is no rule for the examples.
ifndef EXAMPLE_NAMES
$(CHAOS_BROKER): examples/zqbrokerd.c zqbroker.h
	@mkdir -p $(@D) && rm -f $@
	$(CC) -O2 -g -Wall -Wextra -I. -o $@ $< $(LDFLAGS) $(CHAOS_ZMQ)
endif
