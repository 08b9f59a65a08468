/*  peer.c - the processes that chaos.py starts, stops and kills: workers and clients that write down all they do

        peer worker  DIALECT ENDPOINT SERVICE FILE WHO CREDIT HEARTBEAT_MS
        peer client  DIALECT ENDPOINT SERVICE FILE WHO SEED TIMEOUT_MS RETRIES OUTSTANDING PER_SECOND [plain]
        peer hold    DIALECT ENDPOINT SERVICE HEARTBEAT_MS
                                      a worker that says on stdout what it began, and answers when told on stdin
        peer control ENDPOINT         a client: each line of stdin is "SERVICE [TEXT]", each line of stdout its answer

    DIALECT is ZQB/1, MDP/0.1, MDP/0.2 or LRU. LRU peers are written on libzmq alone, with a REQ socket each, and know
    no service: their ENDPOINT does. The worker says READY, and starts anew when its connection is gone; the client asks
    one thing at a time, and takes another socket to ask again: the "lazy pirate" of the Guide.

    Worker and client end with SIGTERM: the worker says goodbye, if its dialect can, the client asks nothing more and
    waits until each of its requests has ended. With SIGUSR1 the worker drains. Status 0: that is what happened.

    Every second request of a ZQB/1 client that is not plain asks for something besides, by its number: see wish_of.
    Workers of ZQB/1 give some of them back, and tell of some how far they are, in many parts.

    A request is a head {number, work, size, checksum} and, as a second frame, so many random bytes, all of which follow
    from its number. A reply is a head {number, value, worker, checksum}, where value is computed from the body, and to
    every fourth request its body. FILE gets a record of each event, in one write to an O_APPEND file: it is whole, and
    there, whatever becomes of the process. The fields are in the machine's order; chaos.py reads them. */

#define _GNU_SOURCE
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { OUTSTANDING_MOST = 1000, BODY_MOST = 200000 };
enum { LRU = 100 }; /* beside ZQB_DIALECT_* */

/* What a record tells; chaos.py has the same list. */
enum {
    SUBMIT = 1, REPLY, ERROR, WRONG, STRANGER, CANCEL, NOT_TAKEN, BEGIN, DAMAGED, FINISH,
    SENT,   /* it was one way */
    LED,    /* number: of the request that was executed; detail: the lower half of that of ours */
    REFUSED /* by a worker */
};

/* What a request of ZQB/1 asks for; chaos.py has the same list. */
enum {
    PLAIN, PRIORITY, DEADLINE, UNIQUE, ONE_WAY, AFFINITY, FAIL_FAST, ONCE, BACKOFF, DELAYED, PICKY, REPORTED, WISHES = 24
};
enum { PLAIN_NUMBERS = 0x40000000 }; /* in all that ask for nothing */
enum { DEADLINE_MS = 1500, DELAY_MS = 150, KEYS = 2, PARTS = 40, LOOK_US = 5000 };

/* Why a reply is wrong. */
enum { WRONG_SHAPE = 1, WRONG_CHECKSUM, WRONG_NUMBER, WRONG_VALUE, WRONG_ECHO, WRONG_KIND };

typedef struct record_t {
    uint64_t number; /* of the request */
    uint64_t at;     /* ns of the monotonic clock */
    uint32_t kind, detail; /* detail: errno, the worker, why it is wrong */
    uint32_t who, zero;
} record_t;

typedef struct question_t {
    uint64_t number;
    uint32_t work_us, size;
    uint64_t checksum; /* of the above and the random bytes */
} question_t;

typedef struct answer_t {
    uint64_t number, value;
    uint32_t worker, zero;
    uint64_t checksum; /* of the above */
} answer_t;

static volatile sig_atomic_t stopping;
static zqb_worker_t *stopped_worker; /* for the signal handler */
static int stop_pipe[2];             /* readable from SIGTERM on */
static unsigned char body[BODY_MOST];
static int file = -1;
static uint32_t who;

static void fail (const char *what)
{
    fprintf (stderr, "peer: %s: %s\n", what, zqb_strerror (errno));
    exit (1);
}

static uint64_t now_ns (void)
{
    struct timespec now;
    clock_gettime (CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

/* Sleeps so long, or, if it may be cut short, until a signal comes. */
static void rest_ns (uint64_t span, int whole)
{
    struct timespec left;
    left.tv_sec = (time_t) (span / 1000000000u);
    left.tv_nsec = (long) (span % 1000000000u);
    while (nanosleep (&left, &left) != 0 && whole) {
    }
}

static void note (int kind, uint64_t number, uint32_t detail)
{
    record_t record;
    memset (&record, 0, sizeof record);
    record.number = number;
    record.at = now_ns ();
    record.kind = (uint32_t) kind;
    record.detail = detail;
    record.who = who;
    if (write (file, &record, sizeof record) != (ssize_t) sizeof record)
        fail ("write");
}

/* ---- bodies */

/* SplitMix64 */
static uint64_t next_random (uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* FNV-1a */
static uint64_t digest (uint64_t start, const void *data, size_t size)
{
    const unsigned char *bytes = (const unsigned char *) data;
    uint64_t sum = start ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3u;
    return sum;
}

static uint64_t checksum_of (const question_t *question, const void *bytes)
{
    return digest (digest (0, question, offsetof (question_t, checksum)), bytes, question->size);
}

static uint64_t value_of (const question_t *question, const void *bytes)
{
    return digest (question->number * 0x9e3779b97f4a7c15u, bytes, question->size);
}

/* Most are small and quick, some not. */
static uint32_t choose_size (uint64_t dice)
{
    uint32_t kind = (uint32_t) (dice % 500), spread = (uint32_t) (dice >> 32);
    return kind < 1 ? spread % BODY_MOST : kind < 50 ? spread % 8192 : kind < 200 ? spread % 1024 : spread % 64;
}

static uint32_t choose_work_us (uint64_t dice)
{
    uint32_t kind = (uint32_t) (dice % 400), spread = (uint32_t) (dice >> 32);
    return kind < 2 ? 300000 : kind < 20 ? spread % 50000 : kind < 120 ? spread % 5000 : 0;
}

static int wish_of (uint64_t number)
{
    return number & PLAIN_NUMBERS ? PLAIN : (int) (number % WISHES);
}

/* The question of this number; its bytes are in body. */
static question_t make_question (uint64_t number)
{
    uint64_t state = number;
    question_t question;
    memset (&question, 0, sizeof question);
    question.number = number;
    question.work_us = choose_work_us (next_random (&state));
    if (wish_of (number) == UNIQUE) /* so that there is time to join it */
        question.work_us += 20000;
    question.size = choose_size (next_random (&state));
    for (uint32_t i = 0; i < question.size; i += 8) {
        uint64_t word = next_random (&state);
        memcpy (body + i, &word, question.size - i < 8 ? question.size - i : 8);
    }
    question.checksum = checksum_of (&question, body);
    return question;
}

static int same_bytes (const zqb_msg_t *msg, size_t index, const void *bytes, size_t size)
{
    return zqb_msg_size (msg, index) == size && (size == 0 || memcmp (zqb_msg_data (msg, index), bytes, size) == 0);
}

/* The key that a unique request shares with others. */
static uint64_t key_of (uint64_t number)
{
    return number / WISHES % KEYS;
}

/* What a worker of ZQB/1 says before it answers: a part, or how far it is. */
static int report_fault (const zqb_reply_t *reply, uint64_t number)
{
    uint64_t part[2];
    if (wish_of (number) != REPORTED)
        return WRONG_KIND;
    if (reply->kind == ZQB_REPLY_PROGRESS)
        return reply->total != number || reply->done > PARTS || !same_bytes (&reply->body, 0, "reported", 8) ? WRONG_VALUE : 0;
    if (zqb_msg_count (&reply->body) != 1 || zqb_msg_size (&reply->body, 0) != sizeof part)
        return WRONG_SHAPE;
    memcpy (part, zqb_msg_data (&reply->body, 0), sizeof part);
    return part[0] != number ? WRONG_NUMBER : part[1] >= PARTS ? WRONG_VALUE : 0;
}

/* What is wrong with the reply to a request; 0: nothing. *asked becomes that of the request that was executed: another
   with the same key, if it is unique. */
static int reply_fault (const zqb_reply_t *reply, uint64_t *asked, uint32_t *worker)
{
    answer_t answer;
    uint64_t number = *asked;
    if (zqb_msg_count (&reply->body) != (number % 4 ? 1u : 2u) || zqb_msg_size (&reply->body, 0) != sizeof answer)
        return WRONG_SHAPE;
    memcpy (&answer, zqb_msg_data (&reply->body, 0), sizeof answer);
    *worker = answer.worker;
    if (wish_of (number) == UNIQUE && wish_of (answer.number) == UNIQUE && key_of (answer.number) == key_of (number))
        *asked = number = answer.number;
    question_t question = make_question (number);
    return answer.checksum != digest (1, &answer, offsetof (answer_t, checksum)) ? WRONG_CHECKSUM
           : answer.number != number                                              ? WRONG_NUMBER
           : answer.value != value_of (&question, body)                           ? WRONG_VALUE
           : number % 4 == 0 && !same_bytes (&reply->body, 1, body, question.size) ? WRONG_ECHO
                                                                                   : 0;
}

/* ---- LRU: sockets of libzmq */

/* A REQ socket, with nothing of ours that would wait when it is closed. */
static void *req_open (void *ctx)
{
    int linger = 0;
    void *socket = zmq_socket (ctx, ZMQ_REQ);
    if (!socket || zmq_setsockopt (socket, ZMQ_LINGER, &linger, sizeof linger) != 0)
        fail ("REQ");
    return socket;
}

static void req_connect (void *socket, const char *endpoint)
{
    if (zmq_connect (socket, endpoint) != 0)
        fail (endpoint);
}

static void req_send (void *socket, zqb_msg_t *msg)
{
    for (size_t i = 0, count = zqb_msg_count (msg); i < count; i++)
        while (zmq_msg_send (zqb_msg_frame (msg, i), socket, i + 1 < count ? ZMQ_SNDMORE : 0) < 0)
            if (errno != EINTR)
                fail ("send");
    zqb_msg_close (msg);
}

/* The next message, without waiting for it: 1, or 0 if there is none. */
static int req_take (void *socket, zqb_msg_t *msg)
{
    zmq_msg_t frame;
    int more = 1;
    zqb_msg_close (msg);
    while (more) {
        zmq_msg_init (&frame);
        while (zmq_msg_recv (&frame, socket, ZMQ_DONTWAIT) < 0)
            if (errno == EAGAIN)
                return 0;
            else if (errno != EINTR)
                fail ("receive");
        more = zmq_msg_more (&frame);
        if (zqb_msg_add_frame (msg, &frame) != 0)
            fail ("receive");
    }
    return 1;
}

/* ---- the worker, in each dialect */

static void stop (int number)
{
    int error = errno;
    (void) number;
    stopping = 1;
    if (stopped_worker)
        zqb_worker_stop (stopped_worker);
    if (write (stop_pipe[1], "", 1) != 1)
        stopping = 1;
    errno = error;
}

/* SIGUSR1: a REQ worker has no word for it. */
static void drain (int number)
{
    int error = errno;
    if (stopped_worker)
        zqb_worker_drain (stopped_worker);
    else
        stop (number);
    errno = error;
}

/* One that serves: with zqb_worker_t, or, if that is NULL, with a REQ socket. */
typedef struct server_t {
    void *ctx;
    const char *endpoint;
    zqb_worker_t *worker;
    zqb_request_t *request;
    int native; /* it speaks ZQB/1 */
    void *socket, *monitor;
    zqb__inbox_t events;
    int connected, lost;
    zqb_msg_t asked; /* token, empty frame, body */
} server_t;

static void lru_close (server_t *server)
{
    if (!server->socket)
        return;
    zqb__monitor_close (server->socket, server->monitor);
    zmq_close (server->socket);
    server->socket = NULL;
}

static void lru_register (server_t *server)
{
    lru_close (server);
    server->socket = req_open (server->ctx);
    server->monitor = zqb__monitor_open (server->ctx, server->socket, ZQB__EVENT_THERE | ZMQ_EVENT_DISCONNECTED);
    if (!server->monitor)
        fail ("monitor");
    server->connected = server->lost = 0;
    req_connect (server->socket, server->endpoint);
    if (zmq_send (server->socket, "READY", 5, 0) < 0)
        fail ("READY");
}

/* Whether the connection over which it registered is gone: what it has to say then is of no use. */
static int lru_is_lost (server_t *server)
{
    uint16_t event;
    int32_t value;
    while (zqb__monitor_next (server->monitor, &server->events, &event, &value)) {
        server->lost |= server->connected && event == ZMQ_EVENT_DISCONNECTED;
        server->connected = event != ZMQ_EVENT_DISCONNECTED;
    }
    return server->lost;
}

/* As zqb_worker_recv, for ever. */
static int lru_next (server_t *server)
{
    zmq_pollitem_t items[3];
    memset (items, 0, sizeof items);
    while (!stopping) {
        if (lru_is_lost (server))
            lru_register (server);
        if (req_take (server->socket, &server->asked))
            return 1;
        items[0].socket = server->socket;
        items[1].socket = server->monitor;
        items[2].fd = stop_pipe[0];
        items[0].events = items[1].events = items[2].events = ZMQ_POLLIN;
        if (zmq_poll (items, 3, -1) < 0 && errno != EINTR)
            fail ("poll");
    }
    return 0;
}

static void server_open (server_t *server, void *ctx, char **argv, const zqb_worker_options_t *options)
{
    memset (server, 0, sizeof *server);
    server->ctx = ctx;
    server->endpoint = argv[3];
    server->native = options->dialect == ZQB_DIALECT_ZQB1;
    server->events.limit = SIZE_MAX;
    zqb_msg_init (&server->asked);
    if (options->dialect == LRU) {
        lru_register (server);
        return;
    }
    server->worker = zqb_worker_new (ctx, argv[3], argv[4], options);
    if (!server->worker)
        fail (argv[3]);
    stopped_worker = server->worker;
    if (stopping)
        zqb_worker_stop (server->worker);
}

/* Waits for the next request: 1; 0: it is to stop. */
static int server_next (server_t *server)
{
    if (!server->worker)
        return lru_next (server);
    while (!(server->request = zqb_worker_recv (server->worker, -1)))
        if (errno == ECANCELED)
            return 0;
        else if (errno != EINTR && errno != ZQB_EREFUSED)
            fail ("recv");
    return 1;
}

/* The body of the request, from which frame on. */
static zqb_msg_t *server_body (server_t *server, size_t *first)
{
    *first = server->worker ? 0 : 2;
    return server->worker ? zqb_request_body (server->request) : &server->asked;
}

/* Answers the request, if there is still somebody to be told. */
static void server_reply (server_t *server, zqb_msg_t *msg)
{
    zqb_msg_t whole;
    if (server->worker) {
        if (zqb_request_reply (server->request, msg) != 0 && errno != ENOTCONN)
            fail ("reply");
        zqb_msg_close (msg);
        return;
    }
    zqb_msg_init (&whole);
    zqb_msg_add_frame (&whole, zqb_msg_frame (&server->asked, 0));
    zqb_msg_add (&whole, NULL, 0);
    for (size_t i = 0; i < zqb_msg_count (msg); i++)
        if (zqb_msg_add_frame (&whole, zqb_msg_frame (msg, i)) != 0)
            fail ("reply");
    zqb_msg_close (msg);
    if (!lru_is_lost (server))
        req_send (server->socket, &whole);
    zqb_msg_close (&whole);
}

static void server_close (server_t *server)
{
    stopped_worker = NULL;
    zqb_worker_destroy (&server->worker);
    lru_close (server);
    zqb__inbox_close (&server->events);
    zqb_msg_close (&server->asked);
}

/* The question of a request, whose body starts at this frame; 0 if it came as it was sent. */
static int read_question (const zqb_msg_t *msg, size_t first, question_t *question)
{
    memset (question, 0, sizeof *question);
    if (zqb_msg_count (msg) != first + 2 || zqb_msg_size (msg, first) != sizeof *question)
        return -1;
    memcpy (question, zqb_msg_data (msg, first), sizeof *question);
    return zqb_msg_size (msg, first + 1) == question->size
                   && checksum_of (question, zqb_msg_data (msg, first + 1)) == question->checksum
               ? 0 : -1;
}

static void make_answer (const question_t *question, zmq_msg_t *bytes, zqb_msg_t *msg)
{
    answer_t answer;
    memset (&answer, 0, sizeof answer);
    answer.number = question->number;
    answer.value = value_of (question, zmq_msg_data (bytes));
    answer.worker = who;
    answer.checksum = digest (1, &answer, offsetof (answer_t, checksum));
    if (zqb_msg_add (msg, &answer, sizeof answer) != 0
        || (question->number % 4 == 0 && zqb_msg_add_frame (msg, bytes) != 0))
        fail ("reply");
}

/* A worker of ZQB/1 gives back a quarter of those that can do with it; which, depends on both. */
static int gives_back (const server_t *server, const question_t *question)
{
    return server->native && wish_of (question->number) == PICKY && digest (question->number, &who, sizeof who) % 4 == 0;
}

/* How far it is, in many parts. What cannot be told is told nobody. */
static void report (server_t *server, uint64_t number)
{
    for (uint64_t i = 0; i < PARTS; i++) {
        uint64_t part[2];
        zqb_msg_t msg;
        part[0] = number;
        part[1] = i;
        zqb_msg_init (&msg);
        if (zqb_msg_add (&msg, part, sizeof part) != 0)
            fail ("report");
        int failed = zqb_request_partial (server->request, &msg) != 0
                     || (i % 8 == 0 && zqb_request_progress (server->request, i, number, "reported") != 0);
        zqb_msg_close (&msg);
        if (failed && errno != ENOTCONN && errno != ZQB_ECANCELLED)
            fail ("report");
        if (failed)
            return;
    }
}

/* Works so long, and looks whether somebody still wants it. 0: nobody does. */
static int do_work (server_t *server, const question_t *question)
{
    uint32_t left = question->work_us;
    for (uint32_t span; left; left -= span) {
        span = server->native && left > LOOK_US ? LOOK_US : left;
        rest_ns ((uint64_t) span * 1000u, 1);
        if (server->native && zqb_request_cancelled (server->request))
            return 0;
    }
    return 1;
}

static void refuse (server_t *server, uint64_t number)
{
    note (REFUSED, number, 0);
    if (zqb_request_refuse (server->request) != 0 && errno != ENOTCONN)
        fail ("refuse");
}

/* It has to be ended all the same. */
static void give_up (server_t *server)
{
    if (zqb_request_fail (server->request, 1, "nobody wants it") != 0 && errno != ENOTCONN)
        fail ("fail");
}

static void work (server_t *server)
{
    question_t question;
    size_t first;
    int wanted = 1;
    zqb_msg_t msg, *asked = server_body (server, &first);
    zqb_msg_init (&msg);
    if (read_question (asked, first, &question) != 0) {
        note (DAMAGED, question.number, 0);
        zqb_msg_add_str (&msg, "damaged");
    } else if (gives_back (server, &question)) {
        refuse (server, question.number);
        return;
    } else {
        note (BEGIN, question.number, 0);
        if (server->native && wish_of (question.number) == REPORTED)
            report (server, question.number);
        wanted = do_work (server, &question);
        note (FINISH, question.number, 0); /* before the broker can know */
        make_answer (&question, zqb_msg_frame (asked, first + 1), &msg);
    }
    if (wanted)
        server_reply (server, &msg);
    else
        give_up (server);
    zqb_msg_close (&msg);
}

static int run_worker (void *ctx, int dialect, char **argv)
{
    server_t server;
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.credit = atoi (argv[7]);
    options.heartbeat_ms = atoi (argv[8]);
    options.reconnect_max_ms = 1000;
    server_open (&server, ctx, argv, &options);
    while (server_next (&server))
        work (&server);
    server_close (&server);
    return 0;
}

/* ---- the worker that is killed at work */

static int run_hold (void *ctx, int dialect, char **argv)
{
    server_t server;
    zqb_worker_options_t options;
    zqb_msg_t msg;
    char go;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.credit = 1;
    options.heartbeat_ms = atoi (argv[5]);
    server_open (&server, ctx, argv, &options);
    while (server_next (&server)) {
        printf ("%llu\n", (unsigned long long) now_ns ());
        fflush (stdout);
        if (read (STDIN_FILENO, &go, 1) != 1)
            break;
        zqb_msg_init (&msg);
        zqb_msg_add (&msg, NULL, 0);
        server_reply (&server, &msg);
    }
    server_close (&server);
    return 0;
}

/* ---- the client */

typedef struct asked_t {
    uint64_t id, number;
} asked_t;

/* A client of one REQ socket, with the face of zqb_client_t. */
typedef struct lazy_t {
    void *ctx, *socket;
    const char *endpoint;
    uint64_t timeout, times_out; /* ns */
    int retries, tries_left;
    uint64_t id, last_id; /* 0: nothing is outstanding */
    zqb_msg_t body;
} lazy_t;

static void lazy_send (lazy_t *lazy)
{
    zqb_msg_t copy;
    zqb_msg_init (&copy);
    if (zqb_msg_copy (&copy, &lazy->body) != 0)
        fail ("ask");
    lazy->times_out = now_ns () + lazy->timeout;
    lazy->socket = req_open (lazy->ctx);
    req_connect (lazy->socket, lazy->endpoint);
    req_send (lazy->socket, &copy);
}

/* A late answer comes to nobody: the next question goes over another socket. */
static void lazy_hang_up (lazy_t *lazy)
{
    zmq_close (lazy->socket);
    lazy->socket = NULL;
}

static int lazy_submit (lazy_t *lazy, zqb_msg_t *request, uint64_t *id)
{
    if (lazy->id) {
        errno = EAGAIN;
        return -1;
    }
    zqb_msg_move (&lazy->body, request);
    lazy->tries_left = lazy->retries;
    *id = lazy->id = ++lazy->last_id;
    lazy_send (lazy);
    return 0;
}

static int lazy_end (lazy_t *lazy, zqb_reply_t *reply, int error)
{
    lazy_hang_up (lazy);
    reply->id = lazy->id;
    reply->kind = error ? ZQB_REPLY_ERROR : ZQB_REPLY_FINAL;
    reply->error = error;
    lazy->id = 0;
    return 0;
}

static int lazy_cancel (lazy_t *lazy)
{
    lazy_hang_up (lazy);
    lazy->id = 0;
    return 0;
}

static int lazy_recv (lazy_t *lazy, zqb_reply_t *reply, int wait_ms)
{
    zmq_pollitem_t item;
    memset (&item, 0, sizeof item);
    errno = ENOENT;
    if (!lazy->id)
        return -1;
    uint64_t now = now_ns (), left = lazy->times_out > now ? (lazy->times_out - now) / 1000000u + 1 : 0;
    item.socket = lazy->socket;
    item.events = ZMQ_POLLIN;
    if (zmq_poll (&item, 1, left < (uint64_t) wait_ms ? (long) left : wait_ms) < 0)
        return -1;
    if (req_take (lazy->socket, &reply->body))
        return lazy_end (lazy, reply, 0);
    if (now_ns () >= lazy->times_out && lazy->tries_left-- == 0)
        return lazy_end (lazy, reply, ETIMEDOUT);
    if (now_ns () >= lazy->times_out) {
        lazy_hang_up (lazy);
        lazy_send (lazy);
    }
    errno = EAGAIN;
    return -1;
}

typedef struct asker_t {
    zqb_client_t *client; /* or NULL, and lazy is used */
    lazy_t lazy;
    const char *service;
    asked_t asked[OUTSTANDING_MOST];
    size_t count, most;
    uint64_t next_number, dice, interval;
} asker_t;

/* What this number asks for. */
static void make_wish (uint64_t number, zqb_request_options_t *options)
{
    static char key[32];
    int wish = wish_of (number);
    memset (options, 0, sizeof *options);
    snprintf (key, sizeof key, "key %d", (int) (wish == UNIQUE ? key_of (number) : number / WISHES % 8));
    switch (wish) {
        case PRIORITY: options->priority = (int) (number / WISHES % 9) - 4; break;
        case DEADLINE: options->deadline_ms = DEADLINE_MS; break;
        case UNIQUE: options->unique = key; break;
        case ONE_WAY: options->one_way = 1; break;
        case AFFINITY: options->affinity = key; break;
        case FAIL_FAST: options->fail_fast = 1; break;
        case ONCE: options->attempts = 1; break;
        case BACKOFF:
            options->backoff_ms = 20;
            options->backoff_max_ms = 100;
            break;
        case DELAYED: options->delay_ms = DELAY_MS; break;
        default: break;
    }
}

static int submit (asker_t *asker, zqb_msg_t *request, uint64_t number, uint64_t *id)
{
    zqb_request_options_t options;
    if (!asker->client)
        return lazy_submit (&asker->lazy, request, id);
    make_wish (number, &options);
    return zqb_client_submit_with (asker->client, asker->service, wish_of (number) == PLAIN ? NULL : &options, request, id);
}

static int cancel (asker_t *asker, uint64_t id)
{
    return asker->client ? zqb_client_cancel (asker->client, id) : lazy_cancel (&asker->lazy);
}

static int receive (asker_t *asker, zqb_reply_t *reply, int wait_ms)
{
    return asker->client ? zqb_client_recv (asker->client, reply, wait_ms) : lazy_recv (&asker->lazy, reply, wait_ms);
}

static void ask (asker_t *asker)
{
    zqb_msg_t msg;
    question_t question = make_question (asker->next_number++);
    asked_t *asked = &asker->asked[asker->count];
    zqb_msg_init (&msg);
    if (zqb_msg_add (&msg, &question, sizeof question) != 0 || zqb_msg_add (&msg, body, question.size) != 0)
        fail ("ask");
    asked->number = question.number;
    note (SUBMIT, question.number, 0);
    if (submit (asker, &msg, question.number, &asked->id) == 0 && wish_of (question.number) == ONE_WAY)
        note (asked->id ? STRANGER : SENT, question.number, 0);
    else if (zqb_msg_count (&msg) == 0)
        asker->count++;
    else
        note (NOT_TAKEN, question.number, (uint32_t) errno);
    zqb_msg_close (&msg);
}

static void forget (asker_t *asker, size_t index)
{
    asker->asked[index] = asker->asked[--asker->count];
}

/* Gives one of the requests up. */
static void cancel_one (asker_t *asker)
{
    size_t index = (size_t) (next_random (&asker->dice) % asker->count);
    if (cancel (asker, asker->asked[index].id) == 0) {
        note (CANCEL, asker->asked[index].number, 0);
        forget (asker, index);
    }
}

static void hear_final (const zqb_reply_t *reply, uint64_t number)
{
    uint32_t worker = 0;
    uint64_t executed = number;
    int fault = reply_fault (reply, &executed, &worker);
    if (executed != number)
        note (LED, executed, (uint32_t) number);
    note (fault ? WRONG : REPLY, number, fault ? (uint32_t) fault : worker);
}

static void hear (asker_t *asker, const zqb_reply_t *reply)
{
    size_t index = 0;
    while (index < asker->count && asker->asked[index].id != reply->id)
        index++;
    if (index == asker->count) {
        note (STRANGER, reply->id, (uint32_t) reply->error);
        return;
    }
    uint64_t number = asker->asked[index].number;
    if (reply->kind == ZQB_REPLY_PARTIAL || reply->kind == ZQB_REPLY_PROGRESS) {
        int fault = report_fault (reply, number);
        if (!fault)
            return;
        note (WRONG, number, (uint32_t) fault);
    } else if (reply->kind == ZQB_REPLY_ERROR)
        note (ERROR, number, (uint32_t) reply->error);
    else
        hear_final (reply, number);
    forget (asker, index);
}

/* Asks, and hears what comes, until it is to stop and nothing is outstanding. */
static void run_asker (asker_t *asker)
{
    zqb_reply_t reply;
    uint64_t next = now_ns ();
    zqb_msg_init (&reply.body);
    while (!stopping || asker->count) {
        uint64_t now = now_ns ();
        while (!stopping && now >= next && asker->count < asker->most) {
            ask (asker);
            next += next_random (&asker->dice) % (2 * asker->interval);
            if (next_random (&asker->dice) % 100 == 0 && asker->count)
                cancel_one (asker);
        }
        if (now >= next) /* it could not keep up, or was stopped: that is not made up for */
            next = now + 1;
        int wait_ms = asker->count == asker->most || stopping ? 50 : (int) ((next - now) / 1000000u) + 1;
        if (receive (asker, &reply, wait_ms < 50 ? wait_ms : 50) == 0)
            hear (asker, &reply);
        else if (errno == ENOENT && asker->count)
            fail ("the client has forgotten what is outstanding");
        else if (errno == ENOENT && !stopping)
            rest_ns ((uint64_t) wait_ms * 1000000u, 0);
        else if (errno != EAGAIN && errno != EINTR && errno != ENOENT)
            fail ("recv");
    }
    if (receive (asker, &reply, 0) == 0)
        hear (asker, &reply);
    zqb_msg_close (&reply.body);
}

static void open_asker (asker_t *asker, void *ctx, int dialect, char **argv)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.timeout_ms = atoi (argv[8]);
    options.retries = atoi (argv[9]);
    asker->lazy.ctx = ctx;
    asker->lazy.endpoint = argv[3];
    asker->lazy.timeout = (uint64_t) options.timeout_ms * 1000000u;
    asker->lazy.retries = options.retries;
    zqb_msg_init (&asker->lazy.body);
    if (dialect != LRU && !(asker->client = zqb_client_new (ctx, argv[3], &options)))
        fail (argv[3]);
}

static int run_client (void *ctx, int dialect, char **argv)
{
    static asker_t asker;
    asker.service = argv[4];
    asker.dice = strtoull (argv[7], NULL, 10);
    asker.most = (size_t) atoi (argv[10]);
    asker.interval = 1000000000u / (uint64_t) atoi (argv[11]);
    asker.next_number = (uint64_t) who << 32 | (dialect != ZQB_DIALECT_ZQB1 || argv[12] ? PLAIN_NUMBERS : 0);
    if (asker.most > OUTSTANDING_MOST)
        asker.most = OUTSTANDING_MOST;
    open_asker (&asker, ctx, dialect, argv);
    run_asker (&asker);
    zqb_client_destroy (&asker.client);
    zqb_msg_close (&asker.lazy.body);
    return 0;
}

/* ---- the client that chaos.py asks with */

static void print_body (const zqb_msg_t *msg)
{
    for (size_t i = 0; i < zqb_msg_count (msg); i++)
        printf (" %.*s", (int) zqb_msg_size (msg, i), (char *) zqb_msg_data (msg, i));
    printf ("\n");
    fflush (stdout);
}

static int run_control (void *ctx, char **argv)
{
    char line[512], *rest;
    zqb_client_options_t options;
    zqb_msg_t request, reply;
    memset (&options, 0, sizeof options);
    options.timeout_ms = 1000;
    options.retries = 9;
    zqb_client_t *client = zqb_client_new (ctx, argv[2], &options);
    if (!client)
        fail (argv[2]);
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    while (fgets (line, sizeof line, stdin)) {
        const char *service = strtok_r (line, " \n", &rest), *text = strtok_r (NULL, "\n", &rest);
        zqb_msg_close (&request);
        zqb_msg_close (&reply);
        zqb_msg_add_str (&request, text ? text : "");
        if (zqb_client_call (client, service, &request, &reply) == 0)
            printf ("ok");
        else
            printf ("error %s", zqb_strerror (errno));
        print_body (&reply);
    }
    zqb_msg_close (&request);
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
    return 0;
}

/* ---- all of them */

static void listen_to (int number, void (*handler) (int))
{
    struct sigaction action;
    memset (&action, 0, sizeof action);
    action.sa_handler = handler;
    sigaction (number, &action, NULL);
    sigemptyset (&action.sa_mask);
    sigaddset (&action.sa_mask, number);
    sigprocmask (SIG_UNBLOCK, &action.sa_mask, NULL); /* chaos.py has it blocked until it can be handled */
}

static void open_file (char **argv)
{
    who = (uint32_t) strtoul (argv[6], NULL, 10);
    file = open (argv[5], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        fail (argv[5]);
    listen_to (SIGTERM, stop);
    listen_to (SIGUSR1, drain);
}

/* -1: there is none of that name. */
static int dialect_of (const char *name)
{
    return strcmp (name, "ZQB/1") == 0     ? ZQB_DIALECT_ZQB1
           : strcmp (name, "MDP/0.1") == 0 ? ZQB_DIALECT_MDP01
           : strcmp (name, "MDP/0.2") == 0 ? ZQB_DIALECT_MDP02
           : strcmp (name, "LRU") == 0     ? LRU
                                           : -1;
}

static int run (void *ctx, int argc, char **argv)
{
    const char *role = argc > 2 ? argv[1] : "";
    int dialect = argc > 2 ? dialect_of (argv[2]) : -1;
    if (strcmp (role, "control") == 0 && argc == 3)
        return run_control (ctx, argv);
    if (strcmp (role, "hold") == 0 && argc == 6 && dialect >= 0)
        return run_hold (ctx, dialect, argv);
    if (strcmp (role, "worker") == 0 && argc == 9 && dialect >= 0) {
        open_file (argv);
        return run_worker (ctx, dialect, argv);
    }
    if (strcmp (role, "client") == 0 && (argc == 12 || argc == 13) && dialect >= 0) {
        open_file (argv);
        return run_client (ctx, dialect, argv);
    }
    fprintf (stderr, "usage: see tests/chaos/peer.c\n");
    return 2;
}

int main (int argc, char **argv)
{
#ifdef __linux__
    prctl (PR_SET_PDEATHSIG, SIGKILL);
#endif
    void *ctx = zmq_ctx_new ();
    if (pipe (stop_pipe) != 0)
        fail ("pipe");
    int status = run (ctx, argc, argv);
    zmq_ctx_term (ctx);
    return status;
}
