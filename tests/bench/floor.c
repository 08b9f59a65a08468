/*  floor.c - what a request over inproc costs at the very least: threads that wake each other, and do nothing else

        floor               microseconds for two and for four wake-ups, waiting for ever and with a time-out

    A request through a broker takes four wake-ups: broker, worker, broker, client. Each is a write to an eventfd, a poll
    that sleeps, a read and a poll that finds nothing, which is what libzmq does when it receives a message and there is
    no other. All on one core, as in the benchmark's pinned form. */

#include "measure.h"

#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <errno.h>
#include <zmq.h>

enum { CLIENT, BROKER, WORKER, THREADS, ROUNDS = 50000 };

static int bells[THREADS], wake_ups, timeout_ms;

static void ring (int thread)
{
    uint64_t one = 1;
    MUST (write (bells[thread], &one, sizeof one) == sizeof one);
}

static void wait_for_bell (int thread)
{
    struct pollfd item = {bells[thread], POLLIN, 0};
    uint64_t value;
    while (poll (&item, 1, timeout_ms) == 0)
        ;
    MUST (read (bells[thread], &value, sizeof value) == sizeof value);
    poll (&item, 1, 0);
}

static void *be_worker (void *arg)
{
    for (;; ring (BROKER))
        wait_for_bell (WORKER);
    return arg;
}

static void *be_broker (void *arg)
{
    for (;; ring (CLIENT)) {
        wait_for_bell (BROKER);
        if (wake_ups == 4) {
            ring (WORKER);
            wait_for_bell (BROKER);
        }
    }
    return arg;
}

static double measure_wake_ups (int count, int timeout)
{
    wake_ups = count;
    timeout_ms = timeout;
    uint64_t begin = now_ns ();
    for (int i = 0; i < ROUNDS; i++) {
        ring (BROKER);
        wait_for_bell (CLIENT);
    }
    return (double) (now_ns () - begin) / ROUNDS / 1e3;
}

int main (void)
{
    pin_to_one_core ();
    for (int i = 0; i < THREADS; i++)
        MUST ((bells[i] = eventfd (0, 0)) >= 0);
    start_thread (be_broker, NULL);
    start_thread (be_worker, NULL);
    for (int count = 2; count <= 4; count += 2)
        printf ("%d wake-ups: %5.1f us waiting for ever, %5.1f us with a time-out of a second, %5.1f us of 1 ms\n", count,
                measure_wake_ups (count, -1), measure_wake_ups (count, 1000), measure_wake_ups (count, 1));
    return 0;
}
