/*  given.h - how much memory malloc has given out in this process

    Only glibc tells, from 2.33 on. */

#ifndef GIVEN_H
#define GIVEN_H

#include <stdint.h>
#if defined __GLIBC__ && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
#include <malloc.h>
#define HAVE_MALLINFO2
#endif

/* Bytes that malloc has given out; 0: that cannot be told. */
static uint64_t heap (void)
{
#ifdef HAVE_MALLINFO2
    struct mallinfo2 info = mallinfo2 ();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

#endif
