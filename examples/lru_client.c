/*  lru_client.c - a client for lru_broker.c that needs nothing but libzmq: a plain REQ socket

    Build   cc -o lru_client examples/lru_client.c -lzmq
    Run     ./lru_client [FRONTEND [TEXT]]              default: tcp://127.0.0.1:5556 "hello, world"
    Prints  HELLO, WORLD

    It waits 5 seconds at most; without an answer it says so and exits with status 1.
*/
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

static int call (void *socket, const char *endpoint, const char *text, zmq_msg_t *reply)
{
    int wait_ms = 5000, linger_ms = 0;

    if (zmq_setsockopt (socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms) == -1
        || zmq_setsockopt (socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) == -1
        || zmq_connect (socket, endpoint) == -1
        || zmq_send (socket, text, strlen (text), 0) == -1)
        return -1;
    return zmq_msg_recv (reply, socket, 0);
}

int main (int argc, char **argv)
{
    const char *frontend = argc > 1 ? argv[1] : "tcp://127.0.0.1:5556";
    const char *text = argc > 2 ? argv[2] : "hello, world";
    void *ctx = zmq_ctx_new ();
    void *socket = zmq_socket (ctx, ZMQ_REQ);
    zmq_msg_t reply;
    int size = -1;

    zmq_msg_init (&reply);
    if (socket != NULL)
        size = call (socket, frontend, text, &reply);
    if (size != -1)
        printf ("%.*s\n", size, (char *) zmq_msg_data (&reply));
    else
        fprintf (stderr, "lru_client: %s: %s\n", frontend,
                 errno == EAGAIN ? "no answer" : zmq_strerror (errno));

    zmq_msg_close (&reply);
    if (socket != NULL)
        zmq_close (socket);
    zmq_ctx_term (ctx);
    return size != -1 ? 0 : 1;
}
