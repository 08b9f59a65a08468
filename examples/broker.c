/*  broker.c - the smallest broker: Majordomo and ZQB/1 peers, all on one endpoint

    Build   cc -o broker examples/broker.c -I. -lzmq
    Run     ./broker [ENDPOINT]                         default: tcp://127.0.0.1:5555
    Prints  ready at tcp://127.0.0.1:5555

    and then serves until it is killed (Ctrl-C). If it cannot bind, it says why and exits with
    status 1. zqbrokerd.c is the same as a real program, with options and a clean end.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <stdio.h>

int main (int argc, char **argv)
{
    const char *endpoint = argc > 1 ? argv[1] : "tcp://127.0.0.1:5555";
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    char bound[256];
    int rc = -1;

    if (broker != NULL && zqb_broker_bind (broker, endpoint) == 0
        && zqb_broker_endpoint (broker, -1, bound, sizeof bound) == 0) {
        printf ("ready at %s\n", bound);
        fflush (stdout);
        rc = zqb_broker_run (broker);
    }
    if (rc == -1)
        fprintf (stderr, "broker: %s: %s\n", endpoint, zqb_strerror (errno));

    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
