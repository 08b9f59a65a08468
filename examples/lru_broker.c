/*  lru_broker.c - the broker of the Guide, chapter 3: REQ clients in front, REQ workers behind

    Build   cc -o lru_broker examples/lru_broker.c -I. -lzmq
    Run     ./lru_broker [FRONTEND BACKEND]             default: the two below
    Prints  clients at tcp://127.0.0.1:5556
            workers at tcp://127.0.0.1:5557

    and then serves until it is killed (Ctrl-C). Clients and workers need nothing of ours: see
    lru_client.c and lru_worker.c. Behind the two endpoints is an ordinary service, here named
    "upper": add a zqb_broker_bind, and Majordomo and ZQB/1 peers share it.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <stdio.h>

static int serve (zqb_broker_t *broker, const char *frontend, const char *backend)
{
    char clients[256], workers[256];

    if (zqb_broker_bind_lru (broker, frontend, backend, "upper") == -1
        || zqb_broker_endpoint (broker, 0, clients, sizeof clients) == -1
        || zqb_broker_endpoint (broker, 1, workers, sizeof workers) == -1)
        return -1;
    printf ("clients at %s\nworkers at %s\n", clients, workers);
    fflush (stdout);
    return zqb_broker_run (broker);
}

int main (int argc, char **argv)
{
    const char *frontend = argc > 2 ? argv[1] : "tcp://127.0.0.1:5556";
    const char *backend = argc > 2 ? argv[2] : "tcp://127.0.0.1:5557";
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    int rc = -1;

    if (broker != NULL)
        rc = serve (broker, frontend, backend);
    if (rc == -1)
        fprintf (stderr, "lru_broker: %s, %s: %s\n", frontend, backend, zqb_strerror (errno));

    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
