/*  subject_zqb.c - ours: ZQB/1 through the public API, with a pool of workers, and with a handler inside the broker */

#include "measure.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef BENCH_COUNT_MEMORY /* scale.c asks how much of the memory is ours and how much is libzmq's */

static size_t allocated;

static void *counted (void *block)
{
    if (block != NULL)
        __atomic_add_fetch (&allocated, malloc_usable_size (block), __ATOMIC_RELAXED);
    return block;
}

static void uncount (void *block)
{
    if (block != NULL)
        __atomic_sub_fetch (&allocated, malloc_usable_size (block), __ATOMIC_RELAXED);
}

static void *counting_realloc (void *block, size_t size)
{
    size_t before = block != NULL ? malloc_usable_size (block) : 0;
    void *moved = realloc (block, size);
    if (moved == NULL)
        return NULL;
    __atomic_sub_fetch (&allocated, before, __ATOMIC_RELAXED);
    return counted (moved);
}

static void counting_free (void *block)
{
    uncount (block);
    free (block);
}

#define ZQB_MALLOC(size) counted (malloc (size))
#define ZQB_REALLOC(block, size) counting_realloc ((block), (size))
#define ZQB_FREE(block) counting_free (block)
#endif

#define ZQBROKER_IMPLEMENTATION
#include "subject_zqb.h"

#ifdef BENCH_COUNT_MEMORY
size_t ours_allocated (void)
{
    return __atomic_load_n (&allocated, __ATOMIC_RELAXED);
}
#endif

/* bench.mk defines these when zqbroker.h has the option in that struct */
#ifdef BENCH_SPIN_BROKER
#define SET_SPIN_BROKER(options, value) ((options).spin_us = (value))
#else
#define SET_SPIN_BROKER(options, value) ((void) (value))
#endif
#ifdef BENCH_SPIN_WORKER
#define SET_SPIN_WORKER(options, value) ((options).spin_us = (value))
#else
#define SET_SPIN_WORKER(options, value) ((void) (value))
#endif
#ifdef BENCH_SPIN_CLIENT
#define SET_SPIN_CLIENT(options, value) ((options).spin_us = (value))
#else
#define SET_SPIN_CLIENT(options, value) ((void) (value))
#endif

const char *spin_missing (void)
{
#ifdef BENCH_SPIN_BROKER
    return NULL;
#else
    return "the option spin_us in zqbroker.h";
#endif
}

/* ---- the broker ---- */

const ours_t *ours_variant (const bench_t *run)
{
    return (const ours_t *) run->subject->variant;
}

void ours_set_spin (zqb_broker_options_t *options, int spin_us)
{
    (void) options;
    SET_SPIN_BROKER (*options, spin_us);
}

/* Who speaks to the broker is this user, whatever proves it. */
static const char user[] = "bench", password[] = "a password";

static void let_in (bench_t *run)
{
    zqb_auth_t *auth = zqb_auth_start (run->contexts[ROLE_BROKER], NULL);
    MUST (auth != NULL);
    if (ours_variant (run)->mechanism == ZMQ_CURVE)
        MUST (zqb_auth_curve (auth, bench_keys ()->public_key, user) == 0);
    else
        MUST (zqb_auth_plain (auth, user, password) == 0);
}

static void add_rules (bench_t *run, zqb_broker_t *broker)
{
    int all = ZQB_MAY_CALL | ZQB_MAY_SERVE, count = ours_variant (run)->rules;
    const char *us = run->cell.transport == INPROC ? "@inproc" : ours_variant (run)->mechanism == ZMQ_NULL ? "-" : user;
    for (int i = 1; i < count; i++) {
        char other[32];
        snprintf (other, sizeof other, "user-%d", i);
        MUST (zqb_broker_rule (broker, 0, other, all, "echo") == 0);
    }
    if (count > 0)
        MUST (zqb_broker_rule (broker, 1, us, all, "echo") == 0);
}

static zqb_broker_t *new_broker (bench_t *run)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    ours_set_spin (&options, ours_variant (run)->spin_us);
    options.plain = ours_variant (run)->mechanism == ZMQ_PLAIN;
    if (ours_variant (run)->mechanism == ZMQ_CURVE)
        options.server_secret = bench_keys ()->server_secret;
    if (ours_variant (run)->mechanism != ZMQ_NULL)
        let_in (run);
    zqb_broker_t *broker = zqb_broker_new (run->contexts[ROLE_BROKER], &options);
    MUST (broker != NULL);
    add_rules (run, broker);
    MUST (zqb_broker_bind (broker, bench_endpoint (run, "broker")) == 0);
    return broker;
}

static void *run_broker (void *arg)
{
    zqb_broker_run ((zqb_broker_t *) arg);
    return NULL;
}

void ours_run (bench_t *run, zqb_broker_t *broker)
{
    bench_start_broker (run, run_broker, broker);
}

/* ---- who workers and clients are: their options have the same names for it ---- */

#define PROVE_WHO(options, run)                                                                                    \
    do {                                                                                                           \
        if (ours_variant (run)->mechanism == ZMQ_CURVE) {                                                          \
            (options).server_public = bench_keys ()->server_public;                                                \
            (options).public_key = bench_keys ()->public_key;                                                      \
            (options).secret_key = bench_keys ()->secret_key;                                                      \
        } else if (ours_variant (run)->mechanism == ZMQ_PLAIN) {                                                   \
            (options).user = user;                                                                                 \
            (options).password = password;                                                                         \
        }                                                                                                          \
    } while (0)

/* ---- workers ---- */

static int echo (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) arg;
    bench_work ();
    return zqb_msg_move (reply, zqb_request_body (request));
}

void ours_start_pool (bench_t *run)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = run->cell.workers;
    options.worker.credit = ours_variant (run)->credit;
    SET_SPIN_WORKER (options.worker, ours_variant (run)->spin_us);
    PROVE_WHO (options.worker, run);
    MUST (zqb_pool_start (run->contexts[ROLE_WORKER], bench_endpoint (run, "broker"), "echo", echo, NULL, &options)
          != NULL);
}

void ours_start (bench_t *run)
{
    ours_run (run, new_broker (run));
    ours_start_pool (run);
}

void ours_handle (bench_t *run)
{
    zqb_broker_t *broker = new_broker (run);
    MUST (zqb_broker_handle (broker, "echo", echo, NULL) == 0);
    ours_run (run, broker);
}

/* ---- clients: one request after the other with call, a window with submit and recv ---- */

void ours_new_body (bench_t *run, zqb_msg_t *body)
{
    zmq_msg_t frame;
    MUST (zmq_msg_init_size (&frame, run->cell.body) == 0);
    bench_fill (run, zmq_msg_data (&frame));
    zqb_msg_init (body);
    MUST (zqb_msg_add_frame (body, &frame) == 0);
}

static void call_loop (bench_t *run, int index, zqb_client_t *client)
{
    zqb_msg_t body, reply;
    ours_new_body (run, &body);
    zqb_msg_init (&reply);
    while (!bench_over ()) {
        bench_stamp (index, zqb_msg_data (&body, 0));
        MUST (zqb_client_call (client, "echo", &body, &reply) == 0);
        bench_count (index, zqb_msg_data (&reply, 0), zqb_msg_size (&reply, 0));
        zqb_msg_move (&body, &reply);
    }
}

static void take_reply (int index, zqb_reply_t *reply, zqb_msg_t *spare)
{
    if (reply->kind != ZQB_REPLY_FINAL)
        fail ("a request failed: %s", zqb_strerror (reply->error));
    bench_count (index, zqb_msg_data (&reply->body, 0), zqb_msg_size (&reply->body, 0));
    zqb_msg_move (spare, &reply->body);
}

static void window_loop (bench_t *run, int index, zqb_client_t *client)
{
    int window = run->cell.outstanding, count = window;
    zqb_msg_t *spare = (zqb_msg_t *) calloc ((size_t) window, sizeof *spare);
    MUST (spare != NULL);
    for (int i = 0; i < window; i++)
        ours_new_body (run, &spare[i]);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);

    while (!bench_over ()) {
        for (; count > 0; count--) {
            bench_stamp (index, zqb_msg_data (&spare[count - 1], 0));
            MUST (zqb_client_submit (client, "echo", &spare[count - 1], NULL) == 0);
        }
        MUST (zqb_client_recv (client, &reply, 5000) == 0);
        do
            take_reply (index, &reply, &spare[count++]);
        while (count < window && zqb_client_recv (client, &reply, 0) == 0);
    }
}

zqb_client_t *ours_new_client (bench_t *run)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    SET_SPIN_CLIENT (options, ours_variant (run)->spin_us);
    PROVE_WHO (options, run);
    zqb_client_t *client = zqb_client_new (run->contexts[ROLE_CLIENT], bench_endpoint (run, "broker"), &options);
    MUST (client != NULL);
    return client;
}

void ours_client (bench_t *run, int index)
{
    zqb_client_t *client = ours_new_client (run);
    if (run->cell.outstanding == 1)
        call_loop (run, index, client);
    else
        window_loop (run, index, client);
}

static const ours_t usual = {.credit = 0}, spinning = {.spin_us = SPIN_US}, fixed_credit = {.credit = 1000};
static const ours_t under_curve = {.mechanism = ZMQ_CURVE}, with_password = {.mechanism = ZMQ_PLAIN};
static const ours_t rules_10 = {.rules = 10}, rules_1000 = {.rules = 1000};

const subject_t zqb1_subject = {"zqb1", ON_ANY, ON_ALL, SIZE_MAX, NULL, ours_start, ours_client, &usual};
const subject_t zqb1_spin_subject = {
    "zqb1_spin", ON_INPROC | ON_TCP, ON_SYNC | ON_PIPELINED, 10, spin_missing, ours_start, ours_client, &spinning};
const subject_t zqb1_credit_subject = {
    "zqb1_credit_1000", ON_INPROC | ON_TCP, ON_PIPELINED | ON_CLIENTS, 10, NULL, ours_start, ours_client, &fixed_credit};
const subject_t zqb_handle_subject = {
    "zqb_handle", ON_ANY, ON_SYNC | ON_PIPELINED, 10, NULL, ours_handle, ours_client, &usual};

/* What security costs: over tcp, as over inproc there is no mechanism, and ipc is alike. */
const subject_t zqb1_curve_subject = {
    "zqb1_curve", ON_TCP, ON_SYNC | ON_PIPELINED, 64 << 10, curve_missing, ours_start, ours_client, &under_curve};
const subject_t zqb1_plain_subject = {
    "zqb1_plain", ON_TCP, ON_SYNC | ON_PIPELINED, 10, NULL, ours_start, ours_client, &with_password};
const subject_t zqb1_rules_10_subject = {
    "zqb1_rules_10", ON_INPROC | ON_TCP, ON_SYNC | ON_PIPELINED, 10, NULL, ours_start, ours_client, &rules_10};
const subject_t zqb1_rules_1000_subject = {
    "zqb1_rules_1000", ON_INPROC | ON_TCP, ON_SYNC | ON_PIPELINED, 10, NULL, ours_start, ours_client, &rules_1000};
