/*  run.h - one measurement: what client.c keeps and run.c reads */

#ifndef RUN_H
#define RUN_H

#include "bench.h"

typedef enum phase_t { PHASE_WARM_UP, PHASE_MEASURE, PHASE_OVER } phase_t;

enum { MAX_LATENCIES = 1 << 17 };

/* Written by the client's thread alone. */
typedef struct client_t {
    size_t body;
    uint64_t replies;
    int since_sample, sample_every;
    size_t latency_count;
    uint64_t latencies[MAX_LATENCIES];
} client_t;

extern phase_t bench_phase;
extern client_t bench_clients[MAX_CLIENTS];

typedef struct task_t {
    const subject_t *subject;
    cell_t cell;
    const char *folder;
    int warm_up_ms, window_ms;
} task_t;

typedef struct figures_t {
    double rate;                   /* requests per second */
    double p50_us, p99_us, p999_us;
    double cpu_us, broker_cpu_us;  /* per request; broker_cpu_us is 0 without a broker */
    double switches;               /* per request */
} figures_t;

/* For in_child: one measurement, a task_t to a figures_t. */
void measure (const void *task, void *figures);

#endif /* RUN_H */
