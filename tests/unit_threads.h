/* Threads that cannot be had when a test wants it. Included before zqbroker.h. */
#ifndef UNIT_THREADS_H_INCLUDED
#define UNIT_THREADS_H_INCLUDED

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <errno.h>
#include <pthread.h>

static int unit_threads_left = -1; /* so many will still start; -1: all */

static int unit_create_thread (pthread_t *thread, const pthread_attr_t *attributes, void *(*run) (void *), void *arg)
{
    if (unit_threads_left == 0)
        return EAGAIN;
    unit_threads_left -= unit_threads_left > 0;
    return pthread_create (thread, attributes, run, arg);
}

#define pthread_create(thread, attributes, run, arg) unit_create_thread (thread, attributes, run, arg)

#endif
