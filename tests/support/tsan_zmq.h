/* Included ahead of everything when a test is built for ThreadSanitizer. libzmq itself is not built for it, so it cannot
   see that a message was sent before it was received. These tell it so, message by message: what was sent is known
   again by its bytes. */
#ifndef TSAN_ZMQ_H_INCLUDED
#define TSAN_ZMQ_H_INCLUDED

#include <stddef.h>
#include <stdlib.h>
#include <zmq.h>

void __tsan_acquire (void *address);
void __tsan_release (void *address);

static char tsan_zmq_places[65536];

__attribute__ ((unused, no_sanitize_thread)) static void *tsan_zmq_place (const void *data, size_t size)
{
    const unsigned char *bytes = (const unsigned char *) data;
    unsigned hash = 2166136261u;
    size_t i;
    for (i = 0; i < size && i < 4096; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return &tsan_zmq_places[(hash ^ hash >> 16) & 0xfff8];
}

__attribute__ ((unused)) static int tsan_zmq_msg_send (zmq_msg_t *msg, void *socket, int flags)
{
    __tsan_release (tsan_zmq_place (zmq_msg_data (msg), zmq_msg_size (msg)));
    return zmq_msg_send (msg, socket, flags);
}

__attribute__ ((unused)) static int tsan_zmq_msg_recv (zmq_msg_t *msg, void *socket, int flags)
{
    int size = zmq_msg_recv (msg, socket, flags);
    if (size >= 0)
        __tsan_acquire (tsan_zmq_place (zmq_msg_data (msg), zmq_msg_size (msg)));
    return size;
}

__attribute__ ((unused)) static int tsan_zmq_send (void *socket, const void *data, size_t size, int flags)
{
    __tsan_release (tsan_zmq_place (data, size));
    return zmq_send (socket, data, size, flags);
}

__attribute__ ((unused)) static int tsan_zmq_recv (void *socket, void *data, size_t size, int flags)
{
    int got = zmq_recv (socket, data, size, flags);
    if (got >= 0)
        __tsan_acquire (tsan_zmq_place (data, (size_t) got < size ? (size_t) got : size));
    return got;
}

/* What was done before a frame was made is known to whoever frees it, in whichever thread. */
typedef struct tsan_zmq_free_t {
    zmq_free_fn *free_fn;
    void *hint;
} tsan_zmq_free_t;

__attribute__ ((unused, no_sanitize_thread)) static void tsan_zmq_free (void *data, void *hint)
{
    tsan_zmq_free_t its = *(tsan_zmq_free_t *) hint;
    __tsan_acquire (hint);
    free (hint);
    its.free_fn (data, its.hint);
}

__attribute__ ((unused)) static int tsan_zmq_msg_init_data (zmq_msg_t *msg, void *data, size_t size,
                                                            zmq_free_fn *free_fn, void *hint)
{
    tsan_zmq_free_t *its = free_fn ? (tsan_zmq_free_t *) malloc (sizeof *its) : NULL;
    if (!its)
        return zmq_msg_init_data (msg, data, size, free_fn, hint);
    its->free_fn = free_fn;
    its->hint = hint;
    __tsan_release (its);
    int failed = zmq_msg_init_data (msg, data, size, tsan_zmq_free, its);
    if (failed)
        free (its);
    return failed;
}

#define zmq_msg_init_data tsan_zmq_msg_init_data
#define zmq_msg_send tsan_zmq_msg_send
#define zmq_msg_recv tsan_zmq_msg_recv
#define zmq_send tsan_zmq_send
#define zmq_recv tsan_zmq_recv

#endif
