/* Memory that runs out when a test wants it, and knows what was not given back. Included before zqbroker.h. */
#ifndef UNIT_MEMORY_H_INCLUDED
#define UNIT_MEMORY_H_INCLUDED

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <stdlib.h>

/* Of all threads. Tests of one thread may look at them, and set the first, as they like. */
static long unit_memory_left = -1;      /* so many allocations will still succeed; -1: all */
static long unit_memory_live;           /* pieces that were given out and are not back */
static long unit_memory_failed;         /* allocations that failed */
static long unit_memory_most;           /* so many fail, and then all succeed again; 0: there is no end to it */
static __thread int unit_memory_spared; /* this thread's all succeed, and do not count among those */

static int unit_memory_out (void)
{
    long left = __atomic_load_n (&unit_memory_left, __ATOMIC_SEQ_CST);
    if (unit_memory_spared)
        return 0;
    while (left > 0)
        if (__atomic_compare_exchange_n (&unit_memory_left, &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return 0;
    if (left < 0)
        return 0;
    long failed = __atomic_add_fetch (&unit_memory_failed, 1, __ATOMIC_SEQ_CST);
    if (unit_memory_most && failed == unit_memory_most)
        __atomic_store_n (&unit_memory_left, -1, __ATOMIC_SEQ_CST);
    return 1;
}

/* So many allocations succeed, and behind them as many as `most` fail, or all for 0. Called before there are other
   threads. */
__attribute__ ((unused)) static void unit_memory_fail (long left, long most)
{
    unit_memory_most = most;
    unit_memory_failed = 0;
    unit_memory_left = left;
}

/* How many have failed. */
__attribute__ ((unused)) static long unit_memory_failures (void)
{
    return __atomic_load_n (&unit_memory_failed, __ATOMIC_SEQ_CST);
}

/* All succeed again. */
__attribute__ ((unused)) static void unit_memory_recover (void)
{
    __atomic_store_n (&unit_memory_left, -1, __ATOMIC_SEQ_CST);
}

static void unit_memory_count (long pieces)
{
    __atomic_fetch_add (&unit_memory_live, pieces, __ATOMIC_SEQ_CST);
}

static void *unit_malloc (size_t size)
{
    void *memory = unit_memory_out () ? NULL : malloc (size);
    unit_memory_count (memory != NULL);
    return memory;
}

static void *unit_realloc (void *old, size_t size)
{
    int had = old != NULL;
    void *memory = unit_memory_out () ? NULL : realloc (old, size);
    unit_memory_count (memory != NULL && !had);
    return memory;
}

static void unit_free (void *memory)
{
    unit_memory_count (-(memory != NULL));
    free (memory);
}

#define ZQB_MALLOC(size) unit_malloc (size)
#define ZQB_REALLOC(pointer, size) unit_realloc (pointer, size)
#define ZQB_FREE(pointer) unit_free (pointer)

#endif
