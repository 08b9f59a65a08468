/* Threads that cannot be had when a test wants it. Included before zqbroker.h. */
#ifndef UNIT_THREADS_H_INCLUDED
#define UNIT_THREADS_H_INCLUDED

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <errno.h>
#include <pthread.h>

static int unit_threads_left = -1; /* so many will still start; -1: all */

__attribute__ ((unused)) static void unit_threads_run_out (int left)
{
    __atomic_store_n (&unit_threads_left, left, __ATOMIC_SEQ_CST);
}

static int unit_create_thread (pthread_t *thread, const pthread_attr_t *attributes, void *(*run) (void *), void *arg)
{
    int left = __atomic_load_n (&unit_threads_left, __ATOMIC_SEQ_CST);
    if (left == 0)
        return EAGAIN;
    if (left > 0)
        __atomic_fetch_sub (&unit_threads_left, 1, __ATOMIC_SEQ_CST);
    return pthread_create (thread, attributes, run, arg);
}

#define pthread_create(thread, attributes, run, arg) unit_create_thread (thread, attributes, run, arg)

#endif
