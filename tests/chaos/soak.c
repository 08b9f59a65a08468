/*  soak.c - all that a broker can be made to do, for a while, and then nothing: what soak.py measures

        soak load ENDPOINT FRONTEND BACKEND     on a broker elsewhere, of whose --lru pair these are
        soak whole                              on a broker in this process, over inproc

    Each line of stdin is for how many seconds; 0: only to tell again how things stand. For so long workers and clients
    come and go in threads: a pool and bulk clients that keep the broker busy; workers and clients of each dialect, who
    cancel, time out and try again, ask for all that a request can ask for, answer in parts, tell how far they are, fail,
    give back, drain, leave with work in hand, and ask and carry a few bytes or a fifth of a megabyte; services that are
    made and forgotten, and patterns; workers that vanish; messages without sense; REQ clients and workers (not over
    inproc, where nobody tells that one is gone); over inproc also a host that filters, chooses, and has workers drained.
    When all of them have gone, and the broker knows
    that, a line says "quiet requests=N lives=N heap=N" and its counters. Status 0: stdin ended. */

#define _GNU_SOURCE
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "given.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { HEARTBEAT_MS = 200, PATIENCE_MS = 30000, BODY_MOST = 200000, LOOK_MS = 20 };
enum { BULK_OUTSTANDING = 200, BULK_LIFE = 20000, MIXED_OUTSTANDING = 20, MIXED_LIFE = 200 };

typedef struct actor_t actor_t;
typedef void (live_fn) (actor_t *actor);

/* A thread that lives again and again, each time with new sockets. */
struct actor_t {
    live_fn *live;
    pthread_t thread;
    uint64_t dice, asked, lives;
};

static void *ctx;
static const char *endpoint = "inproc://soak", *frontend, *backend;
static zqb_broker_t *broker; /* ours, or NULL */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stopped = PTHREAD_COND_INITIALIZER;
static int stopping;
static unsigned char bytes[BODY_MOST];
static uint64_t asked_in_all, lives_in_all;

static void fail (const char *what)
{
    fprintf (stderr, "soak: %s: %s\n", what, zqb_strerror (errno));
    exit (1);
}

/* SplitMix64, below most */
static uint64_t dice (actor_t *actor, uint64_t most)
{
    uint64_t z = (actor->dice += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % most;
}

static int is_over (void)
{
    return __atomic_load_n (&stopping, __ATOMIC_RELAXED);
}

/* For so long, or until it is over. */
static void wait_ms (uint64_t ms)
{
    struct timespec until;
    clock_gettime (CLOCK_REALTIME, &until);
    until.tv_sec += (time_t) (ms / 1000);
    until.tv_nsec += (long) (ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock (&lock);
    while (!is_over () && pthread_cond_timedwait (&stopped, &lock, &until) == 0) {
    }
    pthread_mutex_unlock (&lock);
}

static size_t choose_size (actor_t *actor)
{
    uint64_t kind = dice (actor, 200);
    return (size_t) dice (actor, kind < 1 ? BODY_MOST : kind < 40 ? 8192 : 64);
}

static void fill (actor_t *actor, zqb_msg_t *msg)
{
    zqb_msg_init (msg);
    for (uint64_t frames = 1 + dice (actor, 3); frames--;)
        if (zqb_msg_add (msg, bytes, choose_size (actor)) != 0)
            fail ("body");
}

static int choose_dialect (actor_t *actor)
{
    static const int dialects[] = { ZQB_DIALECT_ZQB1, ZQB_DIALECT_ZQB1, ZQB_DIALECT_MDP01, ZQB_DIALECT_MDP02 };
    return dialects[dice (actor, 4)];
}

/* ---- what keeps the broker busy */

static int echo (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) arg;
    return zqb_msg_move (reply, zqb_request_body (request));
}

static void live_pool (actor_t *actor)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 2;
    options.worker.heartbeat_ms = HEARTBEAT_MS;
    zqb_pool_t *pool = zqb_pool_start (ctx, endpoint, "bulk", echo, NULL, &options);
    if (!pool)
        fail ("pool");
    wait_ms (200 + dice (actor, 800));
    zqb_pool_stop (&pool);
}

static zqb_client_t *new_client (int dialect, int timeout_ms, int retries)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.timeout_ms = timeout_ms;
    options.retries = retries;
    zqb_client_t *client = zqb_client_new (ctx, endpoint, &options);
    if (!client)
        fail ("client");
    return client;
}

static void submit (actor_t *actor, zqb_client_t *client, const char *service, zqb_msg_t *msg, uint64_t *id)
{
    if (zqb_client_submit (client, service, msg, id) != 0)
        fail ("submit");
    actor->asked++;
}

/* Asks for one thing after the other, with many outstanding; it leaves with them, or waits for them. */
static void live_bulk (actor_t *actor)
{
    zqb_client_t *client = new_client (ZQB_DIALECT_ZQB1, 2500, 2);
    zqb_reply_t reply;
    zqb_msg_t msg;
    uint64_t id = 0;
    int outstanding = 0, waits = (int) dice (actor, 2), cancels = (int) dice (actor, 2);
    zqb_msg_init (&reply.body);
    zqb_msg_init (&msg);
    for (int i = 0; i < BULK_LIFE && !is_over ();) {
        for (; outstanding < BULK_OUTSTANDING && i < BULK_LIFE; i++, outstanding++) {
            zqb_msg_add (&msg, bytes, (size_t) dice (actor, 64));
            submit (actor, client, "bulk", &msg, &id);
        }
        if (cancels && dice (actor, BULK_OUTSTANDING) == 0 && zqb_client_cancel (client, id) == 0)
            outstanding--; /* the broker has now looked at the numbers of all that it asked for */
        if (zqb_client_recv (client, &reply, LOOK_MS) == 0)
            outstanding--;
    }
    while (waits && outstanding && !is_over ())
        outstanding -= zqb_client_recv (client, &reply, LOOK_MS) == 0;
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

/* ---- clients and workers of all kinds */

/* All that a request can ask for, now and then; what is one way is wanted for a second at most, as nobody is waited for
   that might do it. */
static void wish (actor_t *actor, zqb_request_options_t *options)
{
    static const char *const keys[] = { "a key", "another", "a third one" };
    memset (options, 0, sizeof *options);
    if (dice (actor, 3) == 0)
        options->priority = (int) dice (actor, 9) - 4;
    if (dice (actor, 5) == 0)
        options->deadline_ms = 1 + (int) dice (actor, 200);
    if (dice (actor, 10) == 0)
        options->delay_ms = (int) dice (actor, 50);
    if (dice (actor, 10) == 0)
        options->attempts = (int) dice (actor, 4) - 1;
    if (dice (actor, 10) == 0)
        options->backoff_ms = (int) dice (actor, 20);
    if (dice (actor, 10) == 0)
        options->unique = keys[dice (actor, 3)];
    if (dice (actor, 10) == 0)
        options->affinity = keys[dice (actor, 3)];
    options->fail_fast = dice (actor, 20) == 0;
    options->survey = dice (actor, 100) == 0;
    options->one_way = !options->survey && dice (actor, 20) == 0;
    if (options->one_way)
        options->deadline_ms = 1 + (int) dice (actor, 1000);
}

/* id becomes 0 if nothing comes of it. */
static void submit_with (actor_t *actor, zqb_client_t *client, const char *service, int dialect, zqb_msg_t *msg, uint64_t *id)
{
    zqb_request_options_t options;
    wish (actor, &options);
    if (zqb_client_submit_with (client, service, dialect == ZQB_DIALECT_ZQB1 ? &options : NULL, msg, id) != 0)
        fail ("submit with wishes");
    actor->asked++;
}

static void live_client (actor_t *actor)
{
    int dialect = choose_dialect (actor), outstanding = 0;
    zqb_client_t *client = new_client (dialect, 10 + (int) dice (actor, 100), 1 + (int) dice (actor, 3));
    zqb_reply_t reply;
    zqb_msg_t msg;
    uint64_t id;
    zqb_msg_init (&reply.body);
    for (int i = 0; i < MIXED_LIFE && !is_over (); i++) {
        fill (actor, &msg);
        submit_with (actor, client, "mixed", dialect, &msg, &id);
        outstanding += id != 0;
        if (id && dice (actor, 20) == 0 && zqb_client_cancel (client, id) == 0)
            outstanding--;
        while (outstanding > MIXED_OUTSTANDING && !is_over ())
            if (zqb_client_recv (client, &reply, LOOK_MS) == 0)
                outstanding -= reply.kind == ZQB_REPLY_FINAL || reply.kind == ZQB_REPLY_ERROR;
    }
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

/* Answers somehow, or, seldom, not at all; in so many parts at most. Behind 32 it waits until the client has read. */
static void treat (actor_t *actor, zqb_request_t *request, uint64_t most)
{
    zqb_msg_t msg;
    uint64_t kind = dice (actor, 1000);
    if (kind < 5)
        return; /* it has that in hand when it leaves */
    if (kind < 10)
        wait_ms (dice (actor, 60));
    if (kind < 60) {
        zqb_request_fail (request, (int) kind, kind < 30 ? "no" : NULL);
        return;
    }
    if (kind < 90 && zqb_request_refuse (request) == 0) /* MDP has no word for it */
        return;
    if (kind < 150)
        zqb_request_progress (request, kind, 150, kind < 120 ? "so far" : NULL);
    if (kind < 200 && zqb_request_cancelled (request))
        zqb_request_left_ms (request);
    for (uint64_t parts = kind < 300 ? dice (actor, kind < 95 ? most : 4) : 0; parts--;) {
        fill (actor, &msg);
        zqb_request_partial (request, &msg); /* MDP/0.1 has none */
        zqb_msg_close (&msg);
    }
    zqb_msg_init (&msg);
    zqb_msg_move (&msg, zqb_request_body (request));
    zqb_request_reply (request, &msg);
    zqb_msg_close (&msg);
}

/* What it still has it does, and then it leaves. */
static void drain_out (actor_t *actor, zqb_worker_t *worker)
{
    zqb_worker_drain (worker);
    errno = 0;
    while (!is_over () && errno != ECANCELED) {
        errno = 0;
        zqb_request_t *request = zqb_worker_recv (worker, LOOK_MS);
        if (request)
            treat (actor, request, 60);
    }
}

static void live_worker (actor_t *actor)
{
    zqb_worker_options_t options;
    uint64_t life = 50 + dice (actor, 500);
    memset (&options, 0, sizeof options);
    options.dialect = choose_dialect (actor);
    options.credit = options.dialect == ZQB_DIALECT_ZQB1 ? (int) dice (actor, 10) : 0;
    options.heartbeat_ms = HEARTBEAT_MS;
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "mixed", &options);
    if (!worker)
        fail ("worker");
    errno = 0;
    while (life-- && !is_over () && errno != ECANCELED) {
        errno = 0;
        zqb_request_t *request = zqb_worker_recv (worker, LOOK_MS);
        if (request)
            treat (actor, request, 60);
        if (life == 0 && dice (actor, 2))
            drain_out (actor, worker);
    }
    zqb_worker_destroy (&worker);
}

/* A service that nobody knew, and nobody will know: with a worker, or without. */
static void live_passing (actor_t *actor)
{
    char name[32];
    zqb_msg_t msg;
    zqb_request_t *request;
    zqb_reply_t reply;
    zqb_worker_t *worker = NULL;
    zqb_client_t *client = new_client (ZQB_DIALECT_ZQB1, 1000, 1);
    uint64_t id, number = dice (actor, UINT64_MAX);
    zqb_msg_init (&reply.body);
    snprintf (name, sizeof name, "passing-%016llx%s", (unsigned long long) number, number % 3 ? "" : "*");
    if (dice (actor, 4) && !(worker = zqb_worker_new (ctx, endpoint, name, NULL)))
        fail ("worker");
    snprintf (name, sizeof name, "passing-%016llx%s", (unsigned long long) number, number % 3 ? "" : " more");
    for (int i = 0; i < 5 && !is_over (); i++) {
        fill (actor, &msg);
        submit_with (actor, client, name, ZQB_DIALECT_ZQB1, &msg, &id);
        zqb_client_flush (client);
        if (!worker && id)
            zqb_client_cancel (client, id);
        else if ((request = zqb_worker_recv (worker, LOOK_MS)) != NULL)
            treat (actor, request, 4); /* who reads them is itself */
        zqb_client_recv (client, &reply, 1);
    }
    fill (actor, &msg);
    submit (actor, client, dice (actor, 2) ? "mmi.services" : "mmi.workers", &msg, NULL);
    zqb_client_recv (client, &reply, LOOK_MS);
    zqb_msg_close (&reply.body);
    zqb_worker_destroy (&worker);
    zqb_client_destroy (&client);
}

/* ---- peers that are written on libzmq alone */

static void *new_socket (int type, const char *where)
{
    int linger = 0, wait = LOOK_MS;
    void *socket = zmq_socket (ctx, type);
    if (!socket || zmq_setsockopt (socket, ZMQ_LINGER, &linger, sizeof linger) != 0
        || zmq_setsockopt (socket, ZMQ_RCVTIMEO, &wait, sizeof wait) != 0
        || zmq_setsockopt (socket, ZMQ_SNDTIMEO, &wait, sizeof wait) != 0 || zmq_connect (socket, where) != 0)
        fail (where);
    return socket;
}

/* The frames of the next message, of which so many are kept: how many there were; 0: none came. */
static int take (void *socket, zmq_msg_t *kept, int most)
{
    int count = 0, more = 1;
    for (zmq_msg_t frame; more; count++) {
        zmq_msg_init (&frame);
        if (zmq_msg_recv (&frame, socket, 0) < 0)
            return 0;
        more = zmq_msg_more (&frame);
        if (count < most)
            zmq_msg_move (&kept[count], &frame);
        zmq_msg_close (&frame);
    }
    return count;
}

/* A worker that vanishes without a word, perhaps with a request. */
static void live_vanishing (actor_t *actor)
{
    void *socket = new_socket (ZMQ_DEALER, endpoint);
    zmq_send (socket, "", 0, ZMQ_SNDMORE);
    zmq_send (socket, "MDPW01", 6, ZMQ_SNDMORE);
    zmq_send (socket, "\1", 1, ZMQ_SNDMORE);
    zmq_send (socket, "mixed", 5, 0);
    take (socket, NULL, 0);
    zmq_close (socket);
    wait_ms (dice (actor, 100));
}

/* Messages without sense, which sometimes begin as if they had one. */
static void live_babbler (actor_t *actor)
{
    static const char *const beginnings[] = { "", "ZQB\1", "MDPC01", "MDPW01", "MDPC02", "MDPW02" };
    void *socket = new_socket (ZMQ_DEALER, endpoint);
    unsigned char junk[64];
    for (int i = 0; i < 10; i++) {
        const char *beginning = beginnings[dice (actor, 6)];
        for (size_t at = 0; at < sizeof junk; at++)
            junk[at] = (unsigned char) dice (actor, 256);
        if (dice (actor, 2))
            zmq_send (socket, "", 0, ZMQ_SNDMORE);
        zmq_send (socket, beginning, strlen (beginning), ZMQ_SNDMORE);
        for (uint64_t frames = dice (actor, 4); frames--;)
            zmq_send (socket, junk, (size_t) dice (actor, 8), ZMQ_SNDMORE);
        zmq_send (socket, junk, (size_t) dice (actor, sizeof junk), 0);
    }
    take (socket, NULL, 0);
    zmq_close (socket);
    wait_ms (dice (actor, 20));
}

static void live_lru_client (actor_t *actor)
{
    void *socket = new_socket (ZMQ_REQ, frontend);
    for (int i = 0; i < 50 && !is_over (); i++) {
        if (zmq_send (socket, bytes, choose_size (actor), 0) < 0)
            break;
        actor->asked++;
        if (!take (socket, NULL, 0))
            break;
    }
    zmq_close (socket);
}

static void live_lru_worker (actor_t *actor)
{
    zmq_msg_t address[2];
    void *socket = new_socket (ZMQ_REQ, backend);
    zmq_send (socket, "READY", 5, 0);
    zmq_msg_init (&address[0]);
    zmq_msg_init (&address[1]);
    for (uint64_t life = dice (actor, 100); life-- && !is_over ();) {
        if (take (socket, address, 2) < 2)
            continue;
        zmq_msg_send (&address[0], socket, ZMQ_SNDMORE);
        zmq_msg_send (&address[1], socket, ZMQ_SNDMORE);
        zmq_send (socket, bytes, choose_size (actor), 0);
    }
    zmq_msg_close (&address[0]);
    zmq_msg_close (&address[1]);
    zmq_close (socket);
}

/* ---- the host of a broker in this process */

static int64_t outcomes;

static int filter (zqb_request_t *request, zqb_request_options_t *options, zqb_msg_t *refusal, void *arg)
{
    size_t size = zqb_msg_size (zqb_request_body (request), 0);
    (void) arg;
    if (size % 8 == 1)
        options->priority = 1;
    return size % 64 == 7 ? zqb_msg_add_str (refusal, "not that size") + 1 : 0;
}

static void hear_outcome (const zqb_outcome_t *outcome, void *arg)
{
    (void) outcome;
    ++*(int64_t *) arg;
}

static size_t choose (const zqb_worker_info_t *workers, size_t count, void *arg)
{
    (void) arg;
    return (size_t) workers[0].served % count;
}

/* A service with a policy of its own is kept until it has the usual one again. */
static void live_host (actor_t *actor)
{
    if (zqb_broker_policy (broker, "mixed", (int) dice (actor, 5), choose, NULL) != 0)
        fail ("policy");
    if (dice (actor, 5) == 0 && zqb_broker_drain (broker, "mixed", 0) != 0 && errno != ENOENT)
        fail ("drain");
    wait_ms (dice (actor, 200));
    if (zqb_broker_policy (broker, "mixed", ZQB_POLICY_LRU, NULL, NULL) != 0)
        fail ("policy");
}

/* ---- a while of it */

static void *run_actor (void *arg)
{
    actor_t *actor = (actor_t *) arg;
    for (; !is_over (); actor->lives++)
        actor->live (actor);
    return NULL;
}

static live_fn *const lives[] = {
    live_bulk,    live_bulk,   live_pool,   live_client,  live_client,    live_client,  live_worker,     live_worker,
    live_worker,  live_worker, live_passing, live_vanishing, live_babbler,
    live_lru_client, live_lru_worker, live_lru_worker, /* LRU_ACTORS; instead of them, if the broker is ours: */
    live_host,
};
enum { ACTORS = sizeof lives / sizeof lives[0] - 1, LRU_ACTORS = 3 };

static void load (uint64_t ms)
{
    static actor_t actors[ACTORS];
    size_t count = broker ? ACTORS - LRU_ACTORS + 1 : ACTORS;
    stopping = 0;
    for (size_t i = 0; i < count; i++) {
        actors[i].live = broker && i == count - 1 ? live_host : lives[i];
        actors[i].dice += i;
        if (pthread_create (&actors[i].thread, NULL, run_actor, &actors[i]) != 0)
            fail ("thread");
    }
    wait_ms (ms);
    pthread_mutex_lock (&lock);
    __atomic_store_n (&stopping, 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast (&stopped);
    pthread_mutex_unlock (&lock);
    for (size_t i = 0; i < count; i++) {
        pthread_join (actors[i].thread, NULL);
        asked_in_all += actors[i].asked;
        lives_in_all += actors[i].lives;
        actors[i].asked = actors[i].lives = 0;
    }
}

/* ---- then nothing */

/* A counter in an answer of mmi.stats. */
static uint64_t counter (const zqb_msg_t *msg, const char *name)
{
    size_t length = strlen (name);
    char text[64];
    for (size_t i = 0; i < zqb_msg_count (msg); i++) {
        snprintf (text, sizeof text, "%.*s", (int) zqb_msg_size (msg, i), (char *) zqb_msg_data (msg, i));
        if (strncmp (text, name, length) == 0 && text[length] == '=')
            return strtoull (text + length + 1, NULL, 10);
    }
    return UINT64_MAX;
}

/* The broker's counters, over its own door, or by a client that comes and goes. */
static void get_stats (zqb_stats_t *stats)
{
    zqb_msg_t request, reply;
    if (broker) {
        zqb_broker_stats (broker, stats);
        return;
    }
    zqb_client_t *client = new_client (ZQB_DIALECT_ZQB1, 1000, 9);
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    if (zqb_client_call (client, "mmi.stats", &request, &reply) != 0)
        fail ("mmi.stats");
#define COUNTER(name, text) stats->name = counter (&reply, #name);
    ZQB_STATS (COUNTER)
    zqb_msg_close (&request);
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
}

static void await_quiet (void)
{
    zqb_stats_t stats;
    uint64_t until = zqb__clock () + (uint64_t) PATIENCE_MS * 1000u;
    do {
        struct timespec moment = { 0, 10000000 };
        nanosleep (&moment, NULL); /* of this there is no event */
        get_stats (&stats);
    } while (stats.queued + stats.running + stats.services + stats.workers + stats.clients + stats.bytes
             && zqb__clock () < until);
    if (broker && outcomes != (int64_t) (stats.accepted - stats.queued - stats.running))
        fail ("an outcome was not told");
    printf ("quiet requests=%llu lives=%llu heap=%llu", (unsigned long long) asked_in_all,
            (unsigned long long) lives_in_all, (unsigned long long) heap ());
#define PRINT(name, text) printf (" " #name "=%llu", (unsigned long long) stats.name);
    ZQB_STATS (PRINT)
    printf ("\n");
    fflush (stdout);
}

static void open_broker (void)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = HEARTBEAT_MS;
    options.filter = filter;
    options.outcome = hear_outcome;
    options.outcome_arg = &outcomes;
    options.ageing_ms = 20;
    options.rest_failures = 3;
    options.rest_ms = 20;
    options.slow_ms = 50;
    options.no_worker_ms = 500; /* over inproc nobody tells that a client is gone, and what it wanted waits so long */
    broker = zqb_broker_new (ctx, &options);
    if (!broker || zqb_broker_bind (broker, endpoint) != 0 || zqb_broker_start (broker) != 0)
        fail ("broker");
}

int main (int argc, char **argv)
{
    char line[64];
#ifdef __linux__
    prctl (PR_SET_PDEATHSIG, SIGKILL);
#endif
    ctx = zmq_ctx_new ();
    if (argc == 5 && strcmp (argv[1], "load") == 0) {
        endpoint = argv[2];
        frontend = argv[3];
        backend = argv[4];
    } else if (argc == 2 && strcmp (argv[1], "whole") == 0)
        open_broker ();
    else {
        fprintf (stderr, "usage: see tests/chaos/soak.c\n");
        return 2;
    }
    printf ("ready\n");
    fflush (stdout);
    while (fgets (line, sizeof line, stdin)) {
        if (atof (line) > 0)
            load ((uint64_t) (atof (line) * 1000));
        await_quiet ();
    }
    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return 0;
}
