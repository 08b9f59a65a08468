/*  client.c - what the clients and workers of all subjects do alike: bodies, counting, windows, echo */

#include "bench.h"
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

phase_t bench_phase;
client_t bench_clients[MAX_CLIENTS];

enum { MARK = 0xA5 };

bool bench_over (void)
{
    return __atomic_load_n (&bench_phase, __ATOMIC_RELAXED) == PHASE_OVER;
}

/* ---- bodies ---- */

void bench_fill (bench_t *run, void *body)
{
    memset (body, 'x', run->cell.body);
}

/* The clock costs as much as a request may, so that only some requests carry their time: about 16 of a window. */
void bench_stamp (int client, void *body)
{
    client_t *self = &bench_clients[client];
    uint64_t sent = 0;
    if (++self->since_sample >= self->sample_every) {
        self->since_sample = 0;
        sent = now_ns ();
    }
    unsigned char *bytes = (unsigned char *) body;
    memcpy (bytes, &sent, sizeof sent);
    bytes[8] = (unsigned char) client;
    bytes[9] = MARK;
}

static void take_latency (client_t *self, uint64_t sent)
{
    if (__atomic_load_n (&bench_phase, __ATOMIC_RELAXED) != PHASE_MEASURE || self->latency_count == MAX_LATENCIES)
        return;
    self->latencies[self->latency_count] = now_ns () - sent;
    __atomic_store_n (&self->latency_count, self->latency_count + 1, __ATOMIC_RELEASE);
}

void bench_count (int client, const void *body, size_t size)
{
    client_t *self = &bench_clients[client];
    const unsigned char *bytes = (const unsigned char *) body;
    if (size != self->body || bytes[8] != client || bytes[9] != MARK)
        fail ("client %d got a wrong reply of %zu bytes", client, size);
    uint64_t sent;
    memcpy (&sent, bytes, sizeof sent);
    if (sent != 0)
        take_latency (self, sent);
    __atomic_store_n (&self->replies, self->replies + 1, __ATOMIC_RELAXED);
}

/* ---- sockets ---- */

static void send_header (void *socket, const frame_t *header, bool more)
{
    for (const frame_t *frame = header; frame->data != NULL; frame++)
        MUST (zmq_send (socket, frame->data, frame->size, more || frame[1].data != NULL ? ZMQ_SNDMORE : 0) >= 0);
}

void bench_send (void *socket, const frame_t *header, zmq_msg_t *body)
{
    send_header (socket, header, body != NULL);
    if (body != NULL)
        MUST (zmq_msg_send (body, socket, 0) >= 0);
}

/* Leaves the last frame of the next message in body. Returns whether there was one. */
static bool receive_body (void *socket, zmq_msg_t *body, int flags)
{
    if (zmq_msg_recv (body, socket, flags) < 0)
        return false;
    while (zmq_msg_more (body))
        MUST (zmq_msg_recv (body, socket, 0) >= 0);
    return true;
}

static zmq_msg_t *new_bodies (bench_t *run, int count)
{
    zmq_msg_t *bodies = (zmq_msg_t *) calloc ((size_t) count, sizeof *bodies);
    MUST (bodies != NULL);
    for (int i = 0; i < count; i++) {
        MUST (zmq_msg_init_size (&bodies[i], run->cell.body) == 0);
        bench_fill (run, zmq_msg_data (&bodies[i]));
    }
    return bodies;
}

void bench_socket_client (bench_t *run, int index, void *socket, const frame_t *header)
{
    int window = run->cell.outstanding, count = window;
    zmq_msg_t *spare = new_bodies (run, window);
    while (!bench_over ()) {
        for (; count > 0; count--) {
            bench_stamp (index, zmq_msg_data (&spare[count - 1]));
            bench_send (socket, header, &spare[count - 1]);
        }
        for (int flags = 0; count < window && receive_body (socket, &spare[count], flags); flags = ZMQ_DONTWAIT) {
            bench_count (index, zmq_msg_data (&spare[count]), zmq_msg_size (&spare[count]));
            count++;
        }
        if (count == 0)
            fail ("client %d: no reply within 5 s", index);
    }
}

/* ---- workers ---- */

const int *bench_work_us;

static void sleep_as_this_worker (void)
{
    static int threads;
    static __thread int self = -1;
    if (self < 0)
        self = __atomic_fetch_add (&threads, 1, __ATOMIC_RELAXED) % MAX_WORKERS;
    sleep_ns ((uint64_t) bench_work_us[self] * 1000u);
}

void bench_work (void)
{
    if (bench_work_us != NULL)
        sleep_as_this_worker ();
}

void bench_echo (void *socket)
{
    zmq_msg_t frame;
    zmq_msg_init (&frame);
    while (zmq_msg_recv (&frame, socket, 0) >= 0) {
        bool more = zmq_msg_more (&frame);
        if (!more)
            bench_work ();
        if (zmq_msg_send (&frame, socket, more ? ZMQ_SNDMORE : 0) < 0)
            break;
    }
    zmq_msg_close (&frame);
}
