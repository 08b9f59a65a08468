/*  peer.c - the processes that chaos.py starts, stops and kills: workers and clients that write down all they do

        peer worker  ENDPOINT SERVICE FILE WHO CREDIT HEARTBEAT_MS
        peer client  ENDPOINT SERVICE FILE WHO SEED TIMEOUT_MS RETRIES OUTSTANDING PER_SECOND
        peer hold    ENDPOINT SERVICE        a worker that says on stdout what it began, and answers when told on stdin
        peer control ENDPOINT                a client: each line of stdin is "SERVICE [TEXT]", each line of stdout its answer

    Worker and client end with SIGTERM: the worker says goodbye, the client asks nothing more and waits until each of its
    requests has ended. Status 0: that is what happened.

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

/* What a record tells; chaos.py has the same list. */
enum { SUBMIT = 1, REPLY, ERROR, WRONG, STRANGER, CANCEL, NOT_TAKEN, BEGIN, DAMAGED, FINISH };

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

/* The question of this number; its bytes are in body. */
static question_t make_question (uint64_t number)
{
    uint64_t state = number;
    question_t question;
    memset (&question, 0, sizeof question);
    question.number = number;
    question.work_us = choose_work_us (next_random (&state));
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

/* What is wrong with the reply to a request; 0: nothing, and worker is who gave it. */
static int reply_fault (const zqb_reply_t *reply, uint64_t number, uint32_t *worker)
{
    answer_t answer;
    question_t question = make_question (number);
    if (reply->kind != ZQB_REPLY_FINAL)
        return WRONG_KIND;
    if (zqb_msg_count (&reply->body) != (number % 4 ? 1u : 2u) || zqb_msg_size (&reply->body, 0) != sizeof answer)
        return WRONG_SHAPE;
    memcpy (&answer, zqb_msg_data (&reply->body, 0), sizeof answer);
    *worker = answer.worker;
    return answer.checksum != digest (1, &answer, offsetof (answer_t, checksum)) ? WRONG_CHECKSUM
           : answer.number != number                                              ? WRONG_NUMBER
           : answer.value != value_of (&question, body)                           ? WRONG_VALUE
           : number % 4 == 0 && !same_bytes (&reply->body, 1, body, question.size) ? WRONG_ECHO
                                                                                   : 0;
}

/* ---- the worker */

static void stop (int number)
{
    (void) number;
    stopping = 1;
    if (stopped_worker)
        zqb_worker_stop (stopped_worker);
}

/* The question of a request; 0 if it came as it was sent. */
static int read_question (zqb_request_t *request, question_t *question)
{
    const zqb_msg_t *msg = zqb_request_body (request);
    memset (question, 0, sizeof *question);
    if (zqb_msg_count (msg) != 2 || zqb_msg_size (msg, 0) != sizeof *question)
        return -1;
    memcpy (question, zqb_msg_data (msg, 0), sizeof *question);
    return zqb_msg_size (msg, 1) == question->size
                   && checksum_of (question, zqb_msg_data (msg, 1)) == question->checksum
               ? 0 : -1;
}

static void answer_request (zqb_request_t *request, const question_t *question)
{
    zqb_msg_t *asked = zqb_request_body (request), msg;
    answer_t answer;
    memset (&answer, 0, sizeof answer);
    answer.number = question->number;
    answer.value = value_of (question, zqb_msg_data (asked, 1));
    answer.worker = who;
    answer.checksum = digest (1, &answer, offsetof (answer_t, checksum));
    zqb_msg_init (&msg);
    if (zqb_msg_add (&msg, &answer, sizeof answer) != 0
        || (question->number % 4 == 0 && zqb_msg_add_frame (&msg, zqb_msg_frame (asked, 1)) != 0))
        fail ("reply");
    if (zqb_request_reply (request, &msg) != 0 && errno != ENOTCONN)
        fail ("reply");
    zqb_msg_close (&msg);
}

static void work (zqb_request_t *request)
{
    question_t question;
    if (read_question (request, &question) != 0) {
        note (DAMAGED, question.number, 0);
        zqb_request_fail (request, "damaged");
        return;
    }
    note (BEGIN, question.number, 0);
    if (question.work_us)
        rest_ns ((uint64_t) question.work_us * 1000u, 1);
    note (FINISH, question.number, 0); /* before the broker can know */
    answer_request (request, &question);
}

static int run_worker (void *ctx, char **argv)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.credit = atoi (argv[6]);
    options.heartbeat_ms = atoi (argv[7]);
    options.reconnect_max_ms = 1000;
    zqb_worker_t *worker = zqb_worker_new (ctx, argv[2], argv[3], &options);
    if (!worker)
        fail (argv[2]);
    stopped_worker = worker;
    if (stopping)
        zqb_worker_stop (worker);
    for (;;) {
        zqb_request_t *request = zqb_worker_recv (worker, -1);
        if (request)
            work (request);
        else if (errno == ECANCELED)
            break;
        else if (errno != EINTR && errno != ZQB_EREFUSED)
            fail ("recv");
    }
    stopped_worker = NULL;
    zqb_worker_destroy (&worker);
    return 0;
}

/* ---- the worker that is killed at work */

static int run_hold (void *ctx, char **argv)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.credit = 1;
    zqb_worker_t *worker = zqb_worker_new (ctx, argv[2], argv[3], &options);
    char go;
    if (!worker)
        fail (argv[2]);
    for (;;) {
        zqb_request_t *request = zqb_worker_recv (worker, -1);
        if (!request && errno == EINTR)
            continue;
        if (!request)
            fail ("recv");
        printf ("%llu\n", (unsigned long long) now_ns ());
        fflush (stdout);
        if (read (STDIN_FILENO, &go, 1) != 1)
            break;
        zqb_msg_t msg;
        zqb_msg_init (&msg);
        if (zqb_request_reply (request, &msg) != 0)
            fail ("reply");
    }
    zqb_worker_destroy (&worker);
    return 0;
}

/* ---- the client */

typedef struct asked_t {
    uint64_t id, number;
} asked_t;

typedef struct asker_t {
    zqb_client_t *client;
    const char *service;
    asked_t asked[OUTSTANDING_MOST];
    size_t count, most;
    uint64_t next_number, dice, interval;
} asker_t;

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
    if (zqb_client_submit (asker->client, asker->service, &msg, &asked->id) == 0)
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
    if (zqb_client_cancel (asker->client, asker->asked[index].id) == 0) {
        note (CANCEL, asker->asked[index].number, 0);
        forget (asker, index);
    }
}

static void hear (asker_t *asker, const zqb_reply_t *reply)
{
    size_t index = 0;
    uint32_t worker = 0;
    while (index < asker->count && asker->asked[index].id != reply->id)
        index++;
    if (index == asker->count) {
        note (STRANGER, reply->id, (uint32_t) reply->error);
        return;
    }
    uint64_t number = asker->asked[index].number;
    int fault = reply->kind == ZQB_REPLY_ERROR ? 0 : reply_fault (reply, number, &worker);
    if (reply->kind == ZQB_REPLY_ERROR)
        note (ERROR, number, (uint32_t) reply->error);
    else
        note (fault ? WRONG : REPLY, number, fault ? (uint32_t) fault : worker);
    if (reply->kind != ZQB_REPLY_PARTIAL)
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
        if (zqb_client_recv (asker->client, &reply, wait_ms < 50 ? wait_ms : 50) == 0)
            hear (asker, &reply);
        else if (errno == ENOENT && asker->count)
            fail ("the client has forgotten what is outstanding");
        else if (errno == ENOENT && !stopping)
            rest_ns ((uint64_t) wait_ms * 1000000u, 0);
        else if (errno != EAGAIN && errno != EINTR && errno != ENOENT)
            fail ("recv");
    }
    if (zqb_client_recv (asker->client, &reply, 0) == 0)
        hear (asker, &reply);
    zqb_msg_close (&reply.body);
}

static int run_client (void *ctx, char **argv)
{
    static asker_t asker;
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.timeout_ms = atoi (argv[7]);
    options.retries = atoi (argv[8]);
    asker.service = argv[3];
    asker.dice = strtoull (argv[6], NULL, 10);
    asker.most = (size_t) atoi (argv[9]);
    asker.interval = 1000000000u / (uint64_t) atoi (argv[10]);
    asker.next_number = (uint64_t) who << 32;
    asker.client = zqb_client_new (ctx, argv[2], &options);
    if (!asker.client)
        fail (argv[2]);
    if (asker.most > OUTSTANDING_MOST)
        asker.most = OUTSTANDING_MOST;
    run_asker (&asker);
    zqb_client_destroy (&asker.client);
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

static void stop_on_sigterm (void)
{
    struct sigaction action;
    memset (&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction (SIGTERM, &action, NULL);
    sigemptyset (&action.sa_mask);
    sigaddset (&action.sa_mask, SIGTERM);
    sigprocmask (SIG_UNBLOCK, &action.sa_mask, NULL); /* chaos.py has it blocked until it can be handled */
}

static void open_file (char **argv)
{
    who = (uint32_t) strtoul (argv[5], NULL, 10);
    file = open (argv[4], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        fail (argv[4]);
    stop_on_sigterm ();
}

int main (int argc, char **argv)
{
    const char *role = argc > 2 ? argv[1] : "";
    int status = 2;
#ifdef __linux__
    prctl (PR_SET_PDEATHSIG, SIGKILL);
#endif
    void *ctx = zmq_ctx_new ();
    if (strcmp (role, "worker") == 0 && argc == 8) {
        open_file (argv);
        status = run_worker (ctx, argv);
    } else if (strcmp (role, "client") == 0 && argc == 11) {
        open_file (argv);
        status = run_client (ctx, argv);
    } else if (strcmp (role, "hold") == 0 && argc == 4)
        status = run_hold (ctx, argv);
    else if (strcmp (role, "control") == 0 && argc == 3)
        status = run_control (ctx, argv);
    else
        fprintf (stderr, "usage: see tests/chaos/peer.c\n");
    zmq_ctx_term (ctx);
    return status;
}
