/* Memory that runs out when a test wants it, and knows what was not given back. Included before zqbroker.h. For tests of
   one thread. */
#ifndef UNIT_MEMORY_H_INCLUDED
#define UNIT_MEMORY_H_INCLUDED

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <stdlib.h>

static long unit_memory_left = -1; /* so many allocations will still succeed; -1: all */
static long unit_memory_live;      /* pieces that were given out and are not back */

static int unit_memory_out (void)
{
    if (unit_memory_left < 0)
        return 0;
    if (unit_memory_left == 0)
        return 1;
    unit_memory_left--;
    return 0;
}

static void *unit_malloc (size_t size)
{
    void *memory = unit_memory_out () ? NULL : malloc (size);
    unit_memory_live += memory != NULL;
    return memory;
}

static void *unit_realloc (void *old, size_t size)
{
    void *memory = unit_memory_out () ? NULL : realloc (old, size);
    unit_memory_live += memory != NULL && !old;
    return memory;
}

static void unit_free (void *memory)
{
    unit_memory_live -= memory != NULL;
    free (memory);
}

#define ZQB_MALLOC(size) unit_malloc (size)
#define ZQB_REALLOC(pointer, size) unit_realloc (pointer, size)
#define ZQB_FREE(pointer) unit_free (pointer)

#endif
