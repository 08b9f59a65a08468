/*  pull_worker.c - a worker that holds several requests, and answers in the order that suits it

    A handler gets one request and answers it. A worker that gathers work, as for a disk, a database
    or a GPU, asks for more with `credit` and fetches requests with zqb_worker_recv instead. This
    one takes up to 8 and answers the smallest first. Broker, worker and client are threads of one
    process, and talk over inproc.

    Build   cc -o pull_worker examples/pull_worker.c -I. -lzmq
    Run     ./pull_worker
    Prints  what the client asked, and then the answers, in the order in which they came:

            asked: elephant cat hippopotamus dog ant snake bee rhinoceros
            answered: ant bee cat dog snake elephant rhinoceros hippopotamus
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDPOINT "inproc://pull"

enum { CREDIT = 8, GATHER_MS = 1000 };

/* ---- the worker ---- */

/* By size, and among equals by the alphabet. */
static int smaller_first (const void *a, const void *b)
{
    zqb_msg_t *one = zqb_request_body (*(zqb_request_t *const *) a);
    zqb_msg_t *other = zqb_request_body (*(zqb_request_t *const *) b);
    size_t size = zqb_msg_size (one, 0), other_size = zqb_msg_size (other, 0);

    if (size != other_size)
        return size < other_size ? -1 : 1;
    return size == 0 ? 0 : memcmp (zqb_msg_data (one, 0), zqb_msg_data (other, 0), size);
}

/* Waits for a request, and then for others as long as they keep coming and there is room. Returns
   how many; 0 when the worker was stopped, with ECANCELED, or something failed. */
static size_t gather (zqb_worker_t *worker, zqb_request_t **requests)
{
    size_t count = 0;

    while (count < CREDIT) {
        requests[count] = zqb_worker_recv (worker, count == 0 ? -1 : GATHER_MS);
        if (requests[count] == NULL)
            break;
        count++;
    }
    return count;
}

/* The reply is the request itself. A request is over after zqb_request_reply, whatever that
   returns. */
static void answer (zqb_request_t *request)
{
    zqb_msg_t reply;

    zqb_msg_init (&reply);
    zqb_msg_move (&reply, zqb_request_body (request));
    if (zqb_request_reply (request, &reply) == -1)
        fprintf (stderr, "pull_worker: reply: %s\n", zqb_strerror (errno));
    zqb_msg_close (&reply);
}

static void work (void *arg)
{
    zqb_worker_t *worker = (zqb_worker_t *) arg;
    zqb_request_t *requests[CREDIT];
    size_t count;

    while ((count = gather (worker, requests)) > 0) {
        qsort (requests, count, sizeof requests[0], smaller_first);
        for (size_t i = 0; i < count; i++)
            answer (requests[i]);
    }
    if (errno != ECANCELED)
        fprintf (stderr, "pull_worker: %s\n", zqb_strerror (errno));
}

/* ---- the client ---- */

static const char *const animals[] = {
    "elephant", "cat", "hippopotamus", "dog", "ant", "snake", "bee", "rhinoceros"
};
enum { ANIMALS = sizeof animals / sizeof animals[0] };

static int submit (zqb_client_t *client)
{
    zqb_msg_t request;
    int rc = 0;

    printf ("asked:");
    zqb_msg_init (&request);
    for (int i = 0; i < ANIMALS && rc == 0; i++) {
        printf (" %s", animals[i]);
        rc = zqb_msg_add_str (&request, animals[i]);
        if (rc == 0)
            rc = zqb_client_submit (client, "echo", &request, NULL);
    }
    zqb_msg_close (&request);
    printf ("\n");
    return rc;
}

static int collect (zqb_client_t *client)
{
    zqb_reply_t reply;
    int rc = 0;

    printf ("answered:");
    zqb_msg_init (&reply.body);
    for (int i = 0; i < ANIMALS && rc == 0; i++) {
        rc = zqb_client_recv (client, &reply, -1);
        if (rc == 0 && reply.kind == ZQB_REPLY_ERROR) {
            errno = reply.error;
            rc = -1;
        }
        if (rc == 0)
            printf (" %.*s", (int) zqb_msg_size (&reply.body, 0),
                    (char *) zqb_msg_data (&reply.body, 0));
    }
    zqb_msg_close (&reply.body);
    printf ("\n");
    return rc;
}

/* ---- the process ---- */

static int run (zqb_worker_t *worker, zqb_client_t *client)
{
    void *thread = zmq_threadstart (work, worker);
    int rc = submit (client);

    if (rc == 0)
        rc = collect (client);
    if (rc == -1)
        fprintf (stderr, "pull_worker: %s\n", zqb_strerror (errno));
    zqb_worker_stop (worker);
    zmq_threadclose (thread);
    return rc;
}

int main (void)
{
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    zqb_worker_options_t options = { 0 };
    zqb_worker_t *worker = NULL;
    zqb_client_t *client = NULL;
    int rc = -1;

    options.credit = CREDIT;
    if (broker != NULL && zqb_broker_bind (broker, ENDPOINT) == 0 && zqb_broker_start (broker) == 0
        && (worker = zqb_worker_new (ctx, ENDPOINT, "echo", &options)) != NULL
        && (client = zqb_client_new (ctx, ENDPOINT, NULL)) != NULL)
        rc = run (worker, client);
    else
        fprintf (stderr, "pull_worker: %s\n", zqb_strerror (errno));

    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
