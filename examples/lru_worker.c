/*  lru_worker.c - a worker for lru_broker.c that needs nothing but libzmq: a plain REQ socket

    Build   cc -o lru_worker examples/lru_worker.c -lzmq
    Run     ./lru_worker [BACKEND]                      default: tcp://127.0.0.1:5557
    Prints  nothing; it turns text into capitals until it is killed (Ctrl-C)

    It says READY once. After that each message from the broker is [token][""][body]..., and the
    answer goes back with the same two frames in front. Such a worker has no heartbeats: it does not
    notice when the broker starts anew, and then has to be started anew too. zqecho.c --ppp does
    notice.
*/
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <zmq.h>

enum { MAX_FRAMES = 1002 }; /* token, empty frame, and the 1000 of a body that the broker allows */

static int receive (void *socket, zmq_msg_t *frames)
{
    int count = 0, more = 1;

    while (more && count < MAX_FRAMES) {
        zmq_msg_init (&frames[count]);
        if (zmq_msg_recv (&frames[count], socket, 0) == -1)
            return -1;
        more = zmq_msg_more (&frames[count]);
        count++;
    }
    return count;
}

static int answer (void *socket, zmq_msg_t *frames, int count)
{
    for (int i = 0; i < count; i++)
        if (zmq_msg_send (&frames[i], socket, i < count - 1 ? ZMQ_SNDMORE : 0) == -1)
            return -1;
    return 0;
}

static void upper (zmq_msg_t *frame)
{
    char *text = (char *) zmq_msg_data (frame);

    for (size_t i = 0; i < zmq_msg_size (frame); i++)
        text[i] = (char) toupper ((unsigned char) text[i]);
}

/* For ever, unless something fails: then -1. */
static int serve (void *socket)
{
    static zmq_msg_t frames[MAX_FRAMES];
    int rc = zmq_send (socket, "READY", 5, 0);

    while (rc != -1) {
        rc = receive (socket, frames);
        for (int i = 2; i < rc; i++)
            upper (&frames[i]);
        if (rc != -1)
            rc = answer (socket, frames, rc);
    }
    return -1;
}

int main (int argc, char **argv)
{
    const char *backend = argc > 1 ? argv[1] : "tcp://127.0.0.1:5557";
    void *ctx = zmq_ctx_new ();
    void *socket = zmq_socket (ctx, ZMQ_REQ);

    if (socket != NULL && zmq_connect (socket, backend) == 0)
        serve (socket);
    fprintf (stderr, "lru_worker: %s: %s\n", backend, zmq_strerror (errno));
    return 1;
}
