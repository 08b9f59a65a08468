/*  One run of the simulator: a seed, from which everything follows. */

#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdint.h>

typedef struct sim_options_t {
    uint64_t seed, events;
    uint64_t walk; /* every so many events the whole structure is walked over; 0 never */
    uint64_t features; /* of those that the seed draws, only these: to find out which it takes */
    int verbose;
} sim_options_t;

/* Where a run is, and what came of it. Kept where it can still be read when the run crashed. */
typedef struct sim_progress_t {
    volatile uint64_t seed, event; /* at work; 0: none */
    volatile uint64_t steps;       /* what the engine was told, in all: commands, ends of connections, ticks ... */
    char wrong[700];               /* "": nothing */
} sim_progress_t;

/* 0, or -1: progress->wrong says what was violated. */
int sim_run (const sim_options_t *options, sim_progress_t *progress);

#endif
