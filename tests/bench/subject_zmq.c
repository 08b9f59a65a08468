/*  subject_zmq.c - libzmq alone: no broker at all (the floor), and zmq_proxy (the yardstick) */

#include "bench.h"

#include <stdio.h>

static const frame_t no_header[] = {{NULL, 0}};
static const frame_t empty_header[] = {{"", 0}, {NULL, 0}};

/* ---- direct: a DEALER (or REQ) client, and a ROUTER in each worker ---- */

static const char *direct_endpoint (bench_t *run, int index)
{
    char name[24];
    snprintf (name, sizeof name, "direct%d", index);
    return bench_endpoint (run, name);
}

static void *direct_sockets[MAX_WORKERS];

static void *direct_worker (void *arg)
{
    bench_echo (direct_sockets[((worker_t *) arg)->index]);
    return NULL;
}

static void direct_start (bench_t *run)
{
    for (int i = 0; i < run->cell.workers; i++) {
        direct_sockets[i] = bench_socket (run, ROLE_WORKER, ZMQ_ROUTER);
        MUST (zmq_bind (direct_sockets[i], direct_endpoint (run, i)) == 0);
    }
    bench_start_workers (run, direct_worker);
}

static void direct_client (bench_t *run, int index)
{
    void *socket = bench_socket (run, ROLE_CLIENT, *(const int *) run->subject->variant);
    for (int i = 0; i < run->cell.workers; i++)
        MUST (zmq_connect (socket, direct_endpoint (run, i)) == 0);
    bench_socket_client (run, index, socket, no_header);
}

static const int dealer = ZMQ_DEALER, req = ZMQ_REQ;

const subject_t direct_subject = {
    "direct", ON_ANY, ON_ALL, SIZE_MAX, NULL, direct_start, direct_client, &dealer};
const subject_t direct_req_subject = {
    "direct_req", ON_ANY, ON_SYNC, 10, NULL, direct_start, direct_client, &req};

/* ---- zmq_proxy: ROUTER/DEALER, DEALER workers; with the empty frame of REQ and REP, without, and under CURVE ---- */

typedef struct proxy_t {
    const frame_t *header;
    bool curve; /* nobody is asked who may come in: who has the server's key may */
} proxy_t;

static const proxy_t *proxy_variant (const bench_t *run)
{
    return (const proxy_t *) run->subject->variant;
}

static void set_key (void *socket, int option, const char *key)
{
    MUST (zmq_setsockopt (socket, option, key, 41) == 0);
}

static void *proxy_server_socket (bench_t *run, int type)
{
    void *socket = bench_socket (run, ROLE_BROKER, type);
    int one = 1;
    if (proxy_variant (run)->curve) {
        MUST (zmq_setsockopt (socket, ZMQ_CURVE_SERVER, &one, sizeof one) == 0);
        set_key (socket, ZMQ_CURVE_SECRETKEY, bench_keys ()->server_secret);
    }
    return socket;
}

static void *proxy_peer_socket (bench_t *run, int role)
{
    void *socket = bench_socket (run, role, ZMQ_DEALER);
    if (proxy_variant (run)->curve) {
        set_key (socket, ZMQ_CURVE_SERVERKEY, bench_keys ()->server_public);
        set_key (socket, ZMQ_CURVE_PUBLICKEY, bench_keys ()->public_key);
        set_key (socket, ZMQ_CURVE_SECRETKEY, bench_keys ()->secret_key);
    }
    return socket;
}

static void *proxy_frontend, *proxy_backend;

static void *proxy_broker (void *arg)
{
    (void) arg;
    zmq_proxy (proxy_frontend, proxy_backend, NULL);
    return NULL;
}

static void *proxy_worker (void *arg)
{
    bench_t *run = ((worker_t *) arg)->run;
    void *socket = proxy_peer_socket (run, ROLE_WORKER);
    MUST (zmq_connect (socket, bench_endpoint (run, "backend")) == 0);
    bench_echo (socket);
    return NULL;
}

static void proxy_start (bench_t *run)
{
    proxy_frontend = proxy_server_socket (run, ZMQ_ROUTER);
    proxy_backend = proxy_server_socket (run, ZMQ_DEALER);
    MUST (zmq_bind (proxy_frontend, bench_endpoint (run, "frontend")) == 0);
    MUST (zmq_bind (proxy_backend, bench_endpoint (run, "backend")) == 0);
    bench_start_broker (run, proxy_broker, NULL);
    bench_start_workers (run, proxy_worker);
}

static void proxy_client (bench_t *run, int index)
{
    void *socket = proxy_peer_socket (run, ROLE_CLIENT);
    MUST (zmq_connect (socket, bench_endpoint (run, "frontend")) == 0);
    bench_socket_client (run, index, socket, proxy_variant (run)->header);
}

static const proxy_t usual = {empty_header, false}, bare = {no_header, false}, curve = {empty_header, true};

const subject_t proxy_subject = {"zmq_proxy", ON_ANY, ON_ALL, SIZE_MAX, NULL, proxy_start, proxy_client, &usual};
const subject_t proxy_bare_subject = {
    "zmq_proxy_bare", ON_INPROC | ON_TCP, ON_ALL, 10, NULL, proxy_start, proxy_client, &bare};
const subject_t proxy_curve_subject = {
    "zmq_proxy_curve", ON_TCP, ON_SYNC | ON_PIPELINED, 64 << 10, curve_missing, proxy_start, proxy_client, &curve};
