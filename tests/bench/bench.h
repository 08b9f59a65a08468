/*  bench.h - what a subject of the comparison is, and what the runner gives it */

#ifndef BENCH_H
#define BENCH_H

#include "measure.h"

#include <errno.h>
#include <zmq.h>

enum { INPROC, IPC, TCP, TRANSPORTS };
enum { ROLE_BROKER, ROLE_WORKER, ROLE_CLIENT, ROLES };
enum { MAX_CLIENTS = 4, MAX_WORKERS = 8, MAX_ROUNDS = 15 };

/* A body starts with the time at which the request left (0 for most), the number of its client, and a mark. */
enum { STAMP_SIZE = 10 };

typedef struct bench_t bench_t;

/* ---- what is measured: the same for all subjects ---- */

typedef struct cell_t {
    int transport;
    int scenario; /* index in the runner's table */
    int clients;
    int outstanding; /* of each client; fewer for large bodies */
    int workers;
    size_t body;
    bool pinned;
} cell_t;

/* ---- who is measured ---- */

typedef struct subject_t {
    const char *name;
    unsigned transports;          /* bits: 1 << INPROC ... */
    unsigned scenarios;           /* bits: ONLY_SYNC ... */
    size_t largest_body;
    const char *(*missing) (void); /* NULL, or a function: NULL, or the Debian packages that it needs */
    void (*start) (bench_t *run);  /* broker and workers; calls fail() if it cannot */
    void (*client) (bench_t *run, int index); /* the whole life of one client: until bench_over() */
    const void *variant;           /* the subject's own */
} subject_t;

enum { ON_SYNC = 1, ON_PIPELINED = 2, ON_CLIENTS = 4, ON_ALL = 7 };
enum { ON_INPROC = 1 << INPROC, ON_IPC = 1 << IPC, ON_TCP = 1 << TCP, ON_ANY = 7 };

extern const subject_t direct_subject, direct_req_subject, proxy_subject, proxy_bare_subject, proxy_curve_subject;
extern const subject_t mdp01_plain_subject, mdp01_subject, mdp01_spin_subject, mdp02_subject, lru_subject;
extern const subject_t zqb1_subject, zqb1_spin_subject, zqb1_credit_subject, zqb_handle_subject;
extern const subject_t zqb1_curve_subject, zqb1_plain_subject, zqb1_rules_10_subject, zqb1_rules_1000_subject;
extern const subject_t nats_subject, gearman_subject, redis_subject;

/* ---- one measurement ---- */

struct bench_t {
    const subject_t *subject;
    cell_t cell;
    const char *folder;    /* for ipc endpoints */
    void *contexts[ROLES]; /* one for all over inproc; else each role has its own, as if it were a process */
    int port;              /* of a server */
    pthread_t broker;      /* the thread of the broker, if there is one */
    bool has_broker;
    int workers_ready; /* for subjects that lose what is sent before */
};

/* An endpoint by name: "inproc://name", "ipc://folder/name", or a free tcp port which that name then keeps. */
const char *bench_endpoint (bench_t *run, const char *name);

/* A socket of this role that gives up after 5 s. */
void *bench_socket (bench_t *run, int role, int type);

/* Runs body in the broker's thread, whose CPU time is then known. */
void bench_start_broker (bench_t *run, void *(*body) (void *), void *arg);

/* Starts cell.workers threads; body gets a worker_t. */
typedef struct worker_t {
    bench_t *run;
    int index;
} worker_t;
void bench_start_workers (bench_t *run, void *(*body) (void *));

/* For workers that must be there before the first request. */
void bench_worker_ready (bench_t *run);
void bench_wait_for_workers (bench_t *run);

/* ---- CURVE: a pair of keys for the broker, and one for all who speak to it; made once in each measurement ---- */

typedef struct bench_keys_t {
    char server_public[41], server_secret[41], public_key[41], secret_key[41];
} bench_keys_t;

const bench_keys_t *bench_keys (void);
const char *curve_missing (void); /* NULL if this libzmq has it */

/* ---- what a client does with its bodies ---- */

void bench_fill (bench_t *run, void *body);              /* once for a new body: everything behind the stamp */
void bench_stamp (int client, void *body);               /* each time before it is sent */
void bench_count (int client, const void *body, size_t size); /* each reply: checks it, takes its latency */
bool bench_over (void);

/* The life of a client with a libzmq socket: keeps the window full; a reply becomes the next request. header: the
   frames in front of the body, closed by one with data NULL. */
typedef struct frame_t {
    const void *data;
    size_t size;
} frame_t;
void bench_socket_client (bench_t *run, int index, void *socket, const frame_t *header);

/* What a worker does for a request: nothing, but in balance.c, where the n-th thread that calls it sleeps for
   bench_work_us[n] microseconds. */
extern const int *bench_work_us;
void bench_work (void);

/* The life of a worker with a DEALER or ROUTER that returns every message as it came. */
void bench_echo (void *socket);

/* Sends header and, unless it is NULL, body behind it. */
void bench_send (void *socket, const frame_t *header, zmq_msg_t *body);

#endif /* BENCH_H */
