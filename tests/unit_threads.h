/* Threads that cannot be had, or do not begin, when a test wants it. Included before zqbroker.h. */
#ifndef UNIT_THREADS_H_INCLUDED
#define UNIT_THREADS_H_INCLUDED

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static int unit_threads_left = -1; /* so many will still start; -1: all */
static int unit_threads_held;      /* those that start do nothing as long as this is so */

typedef struct unit_thread_t {
    void *(*run) (void *);
    void *arg;
} unit_thread_t;

__attribute__ ((unused)) static void unit_threads_run_out (int left)
{
    __atomic_store_n (&unit_threads_left, left, __ATOMIC_SEQ_CST);
}

__attribute__ ((unused)) static void unit_threads_hold (int held)
{
    __atomic_store_n (&unit_threads_held, held, __ATOMIC_SEQ_CST);
}

static void *unit_run_thread (void *arg)
{
    const struct timespec pause = {0, 1000000};
    unit_thread_t thread = *(unit_thread_t *) arg;
    free (arg);
    while (__atomic_load_n (&unit_threads_held, __ATOMIC_SEQ_CST))
        nanosleep (&pause, NULL);
    return thread.run (thread.arg);
}

static int unit_create_thread (pthread_t *thread, const pthread_attr_t *attributes, void *(*run) (void *), void *arg)
{
    int left = __atomic_load_n (&unit_threads_left, __ATOMIC_SEQ_CST);
    if (left == 0)
        return EAGAIN;
    if (left > 0)
        __atomic_fetch_sub (&unit_threads_left, 1, __ATOMIC_SEQ_CST);
    unit_thread_t *held = (unit_thread_t *) malloc (sizeof *held);
    if (!held)
        return EAGAIN;
    held->run = run;
    held->arg = arg;
    int failed = pthread_create (thread, attributes, unit_run_thread, held);
    if (failed)
        free (held);
    return failed;
}

#define pthread_create(thread, attributes, run, arg) unit_create_thread (thread, attributes, run, arg)

#endif
