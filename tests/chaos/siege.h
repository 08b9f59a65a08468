/*  siege.h - what siege.c and hostile.c share: a page of memory that all processes of a siege see, and how bodies look

    hostile.py makes the page, a file of zeros, and has the same layout. */

#ifndef SIEGE_H
#define SIEGE_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { PAGE_BYTES = 4096, CLIENTS = 2, KINDS = 16, TOKENS = 64 };
enum { QUIET, ATTACK, STORM, OVER, GONE }; /* phases; GONE: the workers may go, too */

/* Written by one side each, or by atomic additions; all are 64 bits, so that nobody sees a half. */
typedef struct page_t {
    uint64_t phase;
    uint64_t good[CLIENTS];              /* requests answered */
    uint64_t number[CLIENTS];            /* the last request that was asked */
    uint64_t life[CLIENTS];              /* of the client, as ZQB/1 says it */
    uint64_t named;                      /* requests of the peers that chose their routing ids */
    uint64_t executed, executed_digest;  /* requests of good clients, by their workers */
    uint64_t for_others;                 /* requests that came to a worker as another user's than the one who asked */
    uint64_t worker_life;
    uint64_t done[KINDS];                /* units of each kind of attack */
    uint64_t rests[KINDS];               /* which phase that kind has seen */
    uint64_t next_token, tokens[TOKENS]; /* the latest that the good worker got */
    uint64_t held, released;             /* requests in the handler of a good worker, and whether they may end */
    uint64_t half_open;                  /* connections that say no more */
} page_t;

/* A body. The reply is the same with `answered` set. */
typedef struct body_t {
    char user[8]; /* who asks */
    uint64_t number;
    uint64_t answered;
} body_t;

static page_t *page;

static void fail (const char *what)
{
    fprintf (stderr, "%s: %s\n", what, zmq_strerror (errno));
    exit (1);
}

static void page_open (const char *path)
{
    int file = open (path, O_RDWR);
    page = file < 0 ? NULL : (page_t *) mmap (NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || page == MAP_FAILED)
        fail (path);
    close (file);
}

static uint64_t page_get (const uint64_t *at)
{
    return __atomic_load_n (at, __ATOMIC_RELAXED);
}

static void page_set (uint64_t *at, uint64_t value)
{
    __atomic_store_n (at, value, __ATOMIC_RELAXED);
}

static void page_add (uint64_t *at, uint64_t more)
{
    __atomic_fetch_add (at, more, __ATOMIC_RELAXED);
}

/* SplitMix64: digests are sums of it, so that neither the order nor the process matters. */
static uint64_t mix (uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t answer_to (const body_t *body)
{
    uint64_t user;
    memcpy (&user, body->user, sizeof user);
    return mix (user ^ mix (body->number));
}

static void nap_ms (long ms)
{
    struct timespec span;
    span.tv_sec = ms / 1000;
    span.tv_nsec = ms % 1000 * 1000000;
    nanosleep (&span, NULL);
}

/* Nobody outlives hostile.py. */
static void die_with_parent (void)
{
#ifdef __linux__
    prctl (PR_SET_PDEATHSIG, SIGKILL);
#endif
}

#endif
