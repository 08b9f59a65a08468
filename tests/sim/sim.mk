# The simulator: see tests/sim/sim.c. To be included by the Makefile, or alone: make -f tests/sim/sim.mk sim
#
#   make sim        SEEDS=1000 START=1 EVENTS=5000 (a seed) JOBS=2 WALK=16 (events between two looks at the structure; 0 never)
#   make sim-asan   the same under AddressSanitizer and UndefinedBehaviorSanitizer; make check has 20,000 seeds more

CC     ?= cc
JOBS   ?= 2
SEEDS  ?= 1000
START  ?= 1
EVENTS ?= 5000
WALK   ?= 16

SIM_BUILD   = tests/build/sim
SIM_WARN    = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-unused-function # the broker, the workers, the clients
SIM_ZMQ     = $(shell pkg-config --cflags --libs libzmq 2>/dev/null || echo -lzmq)
SIM_SOURCES = tests/sim/sim.c tests/sim/model.c tests/sim/run.c
SIM_NEEDS   = $(SIM_SOURCES) tests/sim/sim.h tests/sim/model.h tests/sim/walk.h tests/sim/rules.h zqbroker.h
SIM_ARGS    = --kept tests/sim/seeds.txt --seeds $(SEEDS) --start $(START) --events $(EVENTS) --jobs $(JOBS) --walk $(WALK)
SIM_MORE    = --seeds 20000 --start 1001 --events $(EVENTS) --jobs 1 --walk $(WALK)
SIM_ASAN    = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

.PHONY: sim sim-asan

sim: $(SIM_BUILD)/sim
	$< $(SIM_ARGS)

sim-asan: $(SIM_BUILD)/sim-asan
	$< $(SIM_ARGS)

$(SIM_BUILD)/sim: $(SIM_NEEDS)
	@mkdir -p $(@D)
	$(CC) -std=c99 -O2 -g $(SIM_WARN) -I. -o $@ $(SIM_SOURCES) $(LDFLAGS) $(SIM_ZMQ)

$(SIM_BUILD)/sim-asan: $(SIM_NEEDS)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(SIM_ASAN) $(SIM_WARN) -I. -o $@ $(SIM_SOURCES) $(LDFLAGS) $(SIM_ZMQ)
