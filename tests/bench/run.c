/*  run.c - one measurement of one subject, in a process of its own: start, warm up, measure, and leave */

#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ================================================================================================================
   >>what a subject is given
   ================================================================================================================ */

static void make_contexts (bench_t *run)
{
    for (int role = 0; role < ROLES; role++)
        if (role > 0 && run->cell.transport == INPROC)
            run->contexts[role] = run->contexts[0];
        else
            MUST ((run->contexts[role] = zmq_ctx_new ()) != NULL);
}

typedef struct endpoint_t {
    char name[16];
    char text[128];
} endpoint_t;

enum { MAX_ENDPOINTS = 16 };

static void write_endpoint (bench_t *run, endpoint_t *endpoint)
{
    if (run->cell.transport == INPROC)
        snprintf (endpoint->text, sizeof endpoint->text, "inproc://%.15s", endpoint->name);
    else if (run->cell.transport == IPC)
        snprintf (endpoint->text, sizeof endpoint->text, "ipc://%.80s/%.15s", run->folder, endpoint->name);
    else
        snprintf (endpoint->text, sizeof endpoint->text, "tcp://127.0.0.1:%d", free_port ());
}

const char *bench_endpoint (bench_t *run, const char *name)
{
    static endpoint_t endpoints[MAX_ENDPOINTS];
    static int count;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock (&lock);
    int at = 0;
    while (at < count && strcmp (endpoints[at].name, name) != 0)
        at++;
    if (at == count) {
        if (count == MAX_ENDPOINTS)
            fail ("too many endpoints");
        snprintf (endpoints[at].name, sizeof endpoints[at].name, "%s", name);
        write_endpoint (run, &endpoints[at]);
        count++;
    }
    pthread_mutex_unlock (&lock);
    return endpoints[at].text;
}

void *bench_socket (bench_t *run, int role, int type)
{
    int zero = 0, patience = 5000;
    void *socket = zmq_socket (run->contexts[role], type);
    MUST (socket != NULL);
    zmq_setsockopt (socket, ZMQ_SNDHWM, &zero, sizeof zero);
    zmq_setsockopt (socket, ZMQ_RCVHWM, &zero, sizeof zero);
    zmq_setsockopt (socket, ZMQ_LINGER, &zero, sizeof zero);
    if (role == ROLE_CLIENT)
        zmq_setsockopt (socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    return socket;
}

void bench_start_broker (bench_t *run, void *(*body) (void *), void *arg)
{
    run->broker = start_thread (body, arg);
    run->has_broker = true;
}

void bench_start_workers (bench_t *run, void *(*body) (void *))
{
    static worker_t workers[MAX_WORKERS];
    for (int i = 0; i < run->cell.workers; i++) {
        workers[i].run = run;
        workers[i].index = i;
        start_thread (body, &workers[i]);
    }
}

void bench_worker_ready (bench_t *run)
{
    __atomic_add_fetch (&run->workers_ready, 1, __ATOMIC_RELEASE);
}

void bench_wait_for_workers (bench_t *run)
{
    uint64_t deadline = now_ns () + 5000000000u;
    while (__atomic_load_n (&run->workers_ready, __ATOMIC_ACQUIRE) < run->cell.workers) {
        if (now_ns () > deadline)
            fail ("the workers do not come");
        sleep_ns (1000000);
    }
}

static bench_keys_t keys;

static void make_keys (void)
{
    MUST (zmq_curve_keypair (keys.server_public, keys.server_secret) == 0);
    MUST (zmq_curve_keypair (keys.public_key, keys.secret_key) == 0);
}

const bench_keys_t *bench_keys (void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once (&once, make_keys);
    return &keys;
}

const char *curve_missing (void)
{
    return zmq_has ("curve") ? NULL : "a libzmq with CURVE";
}

/* ================================================================================================================
   >>the measurement
   ================================================================================================================ */

typedef struct client_arg_t {
    bench_t *run;
    int index;
} client_arg_t;

static void *client_thread (void *arg)
{
    client_arg_t *self = (client_arg_t *) arg;
    self->run->subject->client (self->run, self->index);
    return NULL;
}

/* Odd, so that it does not keep step with workers who take turns. */
static int sample_every (int outstanding)
{
    return outstanding < 64 ? 1 : outstanding / 16 | 1;
}

static void start_clients (bench_t *run)
{
    static client_arg_t args[MAX_CLIENTS];
    for (int i = 0; i < run->cell.clients; i++) {
        bench_clients[i].body = run->cell.body;
        bench_clients[i].sample_every = sample_every (run->cell.outstanding);
        args[i].run = run;
        args[i].index = i;
        start_thread (client_thread, &args[i]);
    }
}

static uint64_t replies_of (int client)
{
    return __atomic_load_n (&bench_clients[client].replies, __ATOMIC_RELAXED);
}

static void wait_for_first_replies (const bench_t *run)
{
    uint64_t deadline = now_ns () + 5000000000u;
    for (int i = 0; i < run->cell.clients; i++)
        while (replies_of (i) == 0) {
            if (now_ns () > deadline)
                fail ("no first reply within 5 s");
            sleep_ns (1000000);
        }
}

typedef struct snapshot_t {
    uint64_t time, replies, cpu, broker_cpu, switches;
} snapshot_t;

static snapshot_t take_snapshot (const bench_t *run)
{
    snapshot_t now;
    memset (&now, 0, sizeof now);
    uint64_t servers = servers_cpu_ns ();
    now.cpu = process_cpu_ns () + servers;
    now.broker_cpu = run->has_broker ? thread_cpu_ns (run->broker) : servers;
    now.switches = process_switches () + servers_switches ();
    for (int i = 0; i < run->cell.clients; i++)
        now.replies += replies_of (i);
    now.time = now_ns ();
    return now;
}

static uint64_t *gather_latencies (const bench_t *run, size_t *count)
{
    uint64_t *all = (uint64_t *) malloc (MAX_CLIENTS * MAX_LATENCIES * sizeof *all);
    MUST (all != NULL);
    *count = 0;
    for (int i = 0; i < run->cell.clients; i++) {
        size_t some = __atomic_load_n (&bench_clients[i].latency_count, __ATOMIC_ACQUIRE);
        memcpy (all + *count, bench_clients[i].latencies, some * sizeof *all);
        *count += some;
    }
    return all;
}

static void work_out (const bench_t *run, const snapshot_t *begin, const snapshot_t *end, figures_t *figures)
{
    double requests = (double) (end->replies - begin->replies);
    if (requests <= 0)
        fail ("no reply in the time of the measurement");
    figures->rate = requests * 1e9 / (double) (end->time - begin->time);
    figures->cpu_us = (double) (end->cpu - begin->cpu) / 1e3 / requests;
    figures->broker_cpu_us = (double) (end->broker_cpu - begin->broker_cpu) / 1e3 / requests;
    figures->switches = (double) (end->switches - begin->switches) / requests;
    size_t count;
    uint64_t *latencies = gather_latencies (run, &count);
    figures->p50_us = percentile (latencies, count, 50) / 1e3;
    figures->p99_us = percentile (latencies, count, 99) / 1e3;
    figures->p999_us = percentile (latencies, count, 99.9) / 1e3;
    free (latencies);
}

static void enter (phase_t phase)
{
    __atomic_store_n (&bench_phase, phase, __ATOMIC_RELAXED);
}

void measure (const void *task, void *figures)
{
    const task_t *given = (const task_t *) task;
    static bench_t run;
    run.subject = given->subject;
    run.cell = given->cell;
    run.folder = given->folder;
    if (run.cell.pinned)
        pin_to_one_core ();
    make_contexts (&run);
    run.subject->start (&run);
    start_clients (&run);
    wait_for_first_replies (&run);
    sleep_ns ((uint64_t) given->warm_up_ms * 1000000u);

    enter (PHASE_MEASURE);
    snapshot_t begin = take_snapshot (&run);
    sleep_ns ((uint64_t) given->window_ms * 1000000u);
    snapshot_t end = take_snapshot (&run);
    enter (PHASE_OVER);
    work_out (&run, &begin, &end, (figures_t *) figures);
}
