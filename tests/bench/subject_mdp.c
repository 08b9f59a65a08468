/*  subject_mdp.c - the older dialects, with clients and workers in plain libzmq, so that only the broker differs: ours, or
    a plain loop of the same frames, the least that a Majordomo broker can be: no heartbeats, no checks, no limits. */

#include "bench.h"
#include "subject_zqb.h"

#include <string.h>

#define TEXT(s) {s, sizeof s - 1}
#define END {NULL, 0}

typedef struct dialect_t {
    frame_t client_header[5];
    frame_t worker_ready[5];
    int worker_socket;
    int command_at;      /* which frame of a message to a worker is the command; -1 for none */
    const char *request; /* its value in a request, */
    const char *reply;   /* and in the reply, which is the same otherwise */
    bool lru;
    int spin_us;
} dialect_t;

/* ---- clients and workers ---- */

static void mdp_client (bench_t *run, int index)
{
    const dialect_t *dialect = (const dialect_t *) run->subject->variant;
    void *socket = bench_socket (run, ROLE_CLIENT, ZMQ_DEALER);
    MUST (zmq_connect (socket, bench_endpoint (run, "broker")) == 0);
    bench_socket_client (run, index, socket, dialect->client_header);
}

/* Receives a whole message. Returns how many frames it has; those over limit are dropped. */
static int receive_frames (void *socket, zmq_msg_t *frames, int limit)
{
    int count = 0;
    do {
        if (count == limit) {
            zmq_msg_close (&frames[--count]);
        }
        zmq_msg_init (&frames[count]);
        if (zmq_msg_recv (&frames[count], socket, 0) < 0)
            return -1;
    } while (zmq_msg_more (&frames[count++]));
    return count;
}

static void send_frames (void *socket, zmq_msg_t *frames, int count)
{
    for (int i = 0; i < count; i++)
        MUST (zmq_msg_send (&frames[i], socket, i + 1 < count ? ZMQ_SNDMORE : 0) >= 0);
}

static void close_frames (zmq_msg_t *frames, int count)
{
    for (int i = 0; i < count; i++)
        zmq_msg_close (&frames[i]);
}

/* The request becomes its reply, in which only the command differs. */
static bool make_reply (const dialect_t *dialect, zmq_msg_t *frames, int count)
{
    if (dialect->command_at < 0)
        return true;
    if (count <= dialect->command_at)
        return false;
    char *command = (char *) zmq_msg_data (&frames[dialect->command_at]);
    if (command[0] != dialect->request[0])
        return false;
    command[0] = dialect->reply[0];
    return true;
}

static void *mdp_worker (void *arg)
{
    bench_t *run = ((worker_t *) arg)->run;
    const dialect_t *dialect = (const dialect_t *) run->subject->variant;
    void *socket = bench_socket (run, ROLE_WORKER, dialect->worker_socket);
    MUST (zmq_connect (socket, bench_endpoint (run, dialect->lru ? "backend" : "broker")) == 0);
    bench_send (socket, dialect->worker_ready, NULL);
    for (zmq_msg_t frames[8];;) {
        int count = receive_frames (socket, frames, 8);
        if (count < 0)
            return NULL;
        if (make_reply (dialect, frames, count))
            send_frames (socket, frames, count);
        else
            close_frames (frames, count); /* a heartbeat */
    }
}

/* ---- the broker: ours ---- */

static void mdp_start (bench_t *run)
{
    const dialect_t *dialect = (const dialect_t *) run->subject->variant;
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    ours_set_spin (&options, dialect->spin_us);
    zqb_broker_t *broker = zqb_broker_new (run->contexts[ROLE_BROKER], &options);
    MUST (broker != NULL);
    if (dialect->lru)
        MUST (zqb_broker_bind_lru (broker, bench_endpoint (run, "broker"), bench_endpoint (run, "backend"), "echo") == 0);
    else
        MUST (zqb_broker_bind (broker, bench_endpoint (run, "broker")) == 0);
    ours_run (run, broker);
    bench_start_workers (run, mdp_worker);
}

/* ---- the broker: a plain loop, MDP/0.1, one ROUTER, lockstep ---- */

enum { PLAIN_QUEUE = 4096 };

typedef struct plain_request_t {
    zmq_msg_t client, body;
} plain_request_t;

typedef struct plain_broker_t {
    void *socket;
    plain_request_t queue[PLAIN_QUEUE];
    unsigned queue_head, queue_tail;
    zmq_msg_t idle[MAX_WORKERS]; /* addresses, the one that has waited longest first */
    int idle_count;
} plain_broker_t;

static void plain_send_request (plain_broker_t *self)
{
    static const frame_t header[] = {TEXT (""), TEXT ("MDPW01"), TEXT ("\x02"), END};
    plain_request_t *request = &self->queue[self->queue_head++ % PLAIN_QUEUE];
    MUST (zmq_msg_send (&self->idle[0], self->socket, ZMQ_SNDMORE) >= 0);
    for (const frame_t *frame = header; frame->data != NULL; frame++)
        MUST (zmq_send (self->socket, frame->data, frame->size, ZMQ_SNDMORE) >= 0);
    MUST (zmq_msg_send (&request->client, self->socket, ZMQ_SNDMORE) >= 0);
    MUST (zmq_send (self->socket, "", 0, ZMQ_SNDMORE) >= 0);
    MUST (zmq_msg_send (&request->body, self->socket, 0) >= 0);
    self->idle_count--;
    for (int i = 0; i < self->idle_count; i++)
        self->idle[i] = self->idle[i + 1];
}

static void plain_send_reply (plain_broker_t *self, zmq_msg_t *client, zmq_msg_t *body)
{
    static const frame_t header[] = {TEXT (""), TEXT ("MDPC01"), TEXT ("echo"), END};
    MUST (zmq_msg_send (client, self->socket, ZMQ_SNDMORE) >= 0);
    bench_send (self->socket, header, body);
}

static void plain_dispatch (plain_broker_t *self)
{
    while (self->idle_count > 0 && self->queue_head != self->queue_tail)
        plain_send_request (self);
}

/* frames: [address][""][MDPC01][service][body], or [address][""][MDPW01][command]... */
static void plain_take (plain_broker_t *self, zmq_msg_t *frames, int count)
{
    if (count == 5 && memcmp (zmq_msg_data (&frames[2]), "MDPC01", 6) == 0) {
        plain_request_t *request = &self->queue[self->queue_tail++ % PLAIN_QUEUE];
        request->client = frames[0];
        request->body = frames[4];
        close_frames (frames + 1, 3);
        return;
    }
    if (count == 7) /* [address][""][MDPW01][REPLY][client][""][body] */
        plain_send_reply (self, &frames[4], &frames[6]);
    close_frames (frames + 1, count - 1);
    self->idle[self->idle_count++] = frames[0];
}

static void *plain_run (void *arg)
{
    plain_broker_t *self = (plain_broker_t *) arg;
    for (zmq_msg_t frames[8];;) {
        int count = receive_frames (self->socket, frames, 8);
        if (count < 0)
            return NULL;
        plain_take (self, frames, count);
        plain_dispatch (self);
    }
}

static void plain_start (bench_t *run)
{
    static plain_broker_t broker;
    broker.socket = bench_socket (run, ROLE_BROKER, ZMQ_ROUTER);
    MUST (zmq_bind (broker.socket, bench_endpoint (run, "broker")) == 0);
    bench_start_broker (run, plain_run, &broker);
    bench_start_workers (run, mdp_worker);
}

/* ---- the table ---- */

#define MDP01_FRAMES                                                                                               \
    {TEXT (""), TEXT ("MDPC01"), TEXT ("echo"), END}, {TEXT (""), TEXT ("MDPW01"), TEXT ("\x01"), TEXT ("echo"), END},  \
        ZMQ_DEALER, 2, "\x02", "\x03", false

static const dialect_t mdp01 = {MDP01_FRAMES, 0};
static const dialect_t mdp01_spin = {MDP01_FRAMES, SPIN_US};
static const dialect_t mdp02 = {{TEXT ("MDPC02"), TEXT ("\x01"), TEXT ("echo"), END},
                                {TEXT ("MDPW02"), TEXT ("\x01"), TEXT ("echo"), END},
                                ZMQ_DEALER, 1, "\x02", "\x04", false, 0};
static const dialect_t lru = {{TEXT (""), END}, {TEXT ("READY"), END}, ZMQ_REQ, -1, "", "", true, 0};

const subject_t mdp01_plain_subject = {
    "mdp01_plain_loop", ON_ANY, ON_ALL, 10, NULL, plain_start, mdp_client, &mdp01};
const subject_t mdp01_subject = {"zqb_mdp01", ON_ANY, ON_ALL, 10, NULL, mdp_start, mdp_client, &mdp01};
const subject_t mdp01_spin_subject = {
    "zqb_mdp01_spin", ON_INPROC | ON_TCP, ON_SYNC | ON_PIPELINED, 10, spin_missing, mdp_start, mdp_client, &mdp01_spin};
const subject_t mdp02_subject = {
    "zqb_mdp02", ON_INPROC | ON_TCP, ON_SYNC | ON_PIPELINED, 10, NULL, mdp_start, mdp_client, &mdp02};
const subject_t lru_subject = {
    "zqb_lru", ON_INPROC | ON_TCP, ON_SYNC | ON_PIPELINED, 10, NULL, mdp_start, mdp_client, &lru};
