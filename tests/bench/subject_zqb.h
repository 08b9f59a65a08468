/*  subject_zqb.h - our broker, for the subjects that need one */

#ifndef SUBJECT_ZQB_H
#define SUBJECT_ZQB_H

#include "bench.h"
#include "../../zqbroker.h"

enum { SPIN_US = 200 };

/* The variant of a subject of ours. */
typedef struct ours_t {
    int spin_us;   /* of broker, workers and clients */
    int credit;    /* of workers; 0 is the default */
    int mechanism; /* ZMQ_NULL, ZMQ_PLAIN or ZMQ_CURVE, with a list of who may come in */
    int rules;     /* how many there are; the last allows all that is done */
} ours_t;

const ours_t *ours_variant (const bench_t *run);
void ours_set_spin (zqb_broker_options_t *options, int spin_us);
const char *spin_missing (void); /* NULL if this zqbroker.h has the option spin_us */

/* The parts of a ZQB/1 subject: the broker in its thread, a pool of cell.workers that echo, and clients. */
void ours_run (bench_t *run, zqb_broker_t *broker);
void ours_handle (bench_t *run); /* a broker that echoes by itself: a pool is not needed */
void ours_start_pool (bench_t *run);
zqb_client_t *ours_new_client (bench_t *run);
void ours_new_body (bench_t *run, zqb_msg_t *body);
void ours_start (bench_t *run);
void ours_client (bench_t *run, int index);

#ifdef BENCH_COUNT_MEMORY
size_t ours_allocated (void); /* bytes that zqbroker.h itself has allocated */
#endif

#endif /* SUBJECT_ZQB_H */
