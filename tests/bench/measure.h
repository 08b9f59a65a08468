/*  measure.h - clocks, processes and medians: what the three programs of the benchmark share */

#ifndef MEASURE_H
#define MEASURE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- time and cost ---- */

uint64_t now_ns (void);
void sleep_ns (uint64_t duration);
uint64_t process_cpu_ns (void);                /* of all threads of this process */
uint64_t thread_cpu_ns (pthread_t thread);     /* of one thread, 0 when it has ended */
uint64_t process_switches (void);              /* context switches of this process, wanted and unwanted */

/* From here on this process and all that it starts stay on one core. */
void pin_to_one_core (void);

/* ---- numbers ---- */

double median (const double *values, size_t count);           /* 0 for none */
double percentile (uint64_t *values, size_t count, double p); /* sorts; 0 for none */

/* Shuffles 0 .. count-1, the same way for the same seed. */
void shuffle (int *order, int count, uint64_t *seed);

/* ---- processes ----
   Every measurement runs in a process of its own, so that a crash, a leak or a hang spoils one figure and no more. */

/* Runs work, which fills result, for at most limit_ms. Returns NULL, or what went wrong (valid until the next call). */
const char *in_child (void (*work) (const void *task, void *result), const void *task, void *result, size_t size,
                      int limit_ms);

/* In the child, in any thread: gives up with this text. */
void fail (const char *format, ...) __attribute__ ((noreturn, format (printf, 1, 2)));

/* Ends it with the text of errno when this is not so; what a benchmark does with errors. */
#define MUST(condition)                                                                                            \
    do {                                                                                                           \
        if (!(condition))                                                                                          \
            fail ("%s:%d: %s (%s)", __FILE__, __LINE__, #condition, zmq_strerror (errno));                         \
    } while (0)

/* BENCH_QUICK=1 in the environment. */
bool quick_wanted (void);

/* Removes a folder and the files in it: the ipc endpoints. */
void remove_folder (const char *path);

pthread_t start_thread (void *(*body) (void *), void *arg);

/* ---- servers: programs of others, on a loopback port, ended with the measurement ---- */

int free_port (void);
bool program_installed (const char *name);
void server_start (char *const *argv, int port); /* returns when the port accepts; fails after 5 s */
void servers_stop (void);
uint64_t servers_cpu_ns (void);
uint64_t servers_switches (void);
int connect_loopback (int port); /* -1 when nobody listens */

#endif /* MEASURE_H */
