/*  worker.c - the smallest worker: it serves "upper", which turns text into capitals

    Build   cc -o worker examples/worker.c -I. -lzmq
    Run     ./worker [ENDPOINT]                         default: tcp://127.0.0.1:5555
    Prints  nothing; it serves until it is killed (Ctrl-C), or drained

    Start as many as you like, before or after the broker. It serves broker.c, zqbrokerd.c, or any
    other broker that embeds zqbroker.h; client.c asks it. SIGTERM, which is what kill, systemd and
    Kubernetes send, drains it: it finishes what it has, takes no more, and ends with status 0.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>

static zqb_worker_t *worker; /* for the signal handler */

static void drain (int signal_number)
{
    (void) signal_number;
    zqb_worker_drain (worker);
}

static int upper (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_msg_t *body = zqb_request_body (request);
    size_t size = zqb_msg_size (body, 0);
    char *text;

    (void) arg;
    if (zqb_msg_add (reply, zqb_msg_data (body, 0), size) == -1)
        return -1;
    text = (char *) zqb_msg_data (reply, 0);
    for (size_t i = 0; i < size; i++)
        text[i] = (char) toupper ((unsigned char) text[i]);
    return 0;
}

int main (int argc, char **argv)
{
    const char *endpoint = argc > 1 ? argv[1] : "tcp://127.0.0.1:5555";
    void *ctx = zmq_ctx_new ();
    int rc = -1;

    worker = zqb_worker_new (ctx, endpoint, "upper", NULL);
    if (worker != NULL) {
        signal (SIGTERM, drain);
        rc = zqb_worker_run (worker, upper, NULL);
        signal (SIGTERM, SIG_IGN);
    }
    if (rc == -1)
        fprintf (stderr, "worker: %s: %s\n", endpoint, zqb_strerror (errno));

    zqb_worker_destroy (&worker);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
