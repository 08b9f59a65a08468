/*  client.c - the smallest client: it asks "upper" of worker.c, and prints the answer

    Build   cc -o client examples/client.c -I. -lzmq
    Run     ./client [ENDPOINT [TEXT]]                  default: tcp://127.0.0.1:5555 "hello, world"
    Prints  HELLO, WORLD

    If there is no answer, it says why and exits with status 1: after three tries of 2.5 seconds,
    unless zqb_client_options_t says otherwise.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <stdio.h>

int main (int argc, char **argv)
{
    const char *endpoint = argc > 1 ? argv[1] : "tcp://127.0.0.1:5555";
    const char *text = argc > 2 ? argv[2] : "hello, world";
    void *ctx = zmq_ctx_new ();
    zqb_client_t *client = zqb_client_new (ctx, endpoint, NULL);
    zqb_msg_t request, reply;
    int rc = -1;

    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    if (client != NULL && zqb_msg_add_str (&request, text) == 0)
        rc = zqb_client_call (client, "upper", &request, &reply);
    if (rc == 0)
        printf ("%.*s\n", (int) zqb_msg_size (&reply, 0), (char *) zqb_msg_data (&reply, 0));
    else
        fprintf (stderr, "client: %s: %s\n", endpoint, zqb_strerror (errno));

    zqb_msg_close (&reply);
    zqb_msg_close (&request);
    zqb_client_destroy (&client);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
