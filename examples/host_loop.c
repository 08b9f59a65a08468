/*  host_loop.c - the broker as a guest in a poll loop that the host has already

    A program with an event loop of its own need not give the broker a thread. Here the loop waits
    for two things: the broker's descriptor, and a pipe that stands for whatever else the host
    serves. A thread plays the outside world: it calls the service "upper", which the broker's own
    handler serves, and writes what it got into the pipe. When the pipe is closed, the loop ends.

    Build   cc -o host_loop examples/host_loop.c -I. -lzmq
    Run     ./host_loop
    Prints  one -> ONE
            two -> TWO
            three -> THREE
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define ENDPOINT "inproc://guest"

/* ---- the outside world: a thread ---- */

typedef struct world_t {
    void *ctx;
    int pipe; /* what happened there is written to this; closed at the end */
} world_t;

static void call (zqb_client_t *client, const char *text, int pipe)
{
    zqb_msg_t request, reply;
    char line[80];
    int size;

    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    if (zqb_msg_add_str (&request, text) == 0
        && zqb_client_call (client, "upper", &request, &reply) == 0)
        size = snprintf (line, sizeof line, "%s -> %.*s\n", text, (int) zqb_msg_size (&reply, 0),
                         (char *) zqb_msg_data (&reply, 0));
    else
        size = snprintf (line, sizeof line, "%s: %s\n", text, zqb_strerror (errno));
    if (write (pipe, line, (size_t) size) == -1)
        perror ("host_loop: write");
    zqb_msg_close (&reply);
    zqb_msg_close (&request);
}

static void outside (void *arg)
{
    world_t *world = (world_t *) arg;
    zqb_client_t *client = zqb_client_new (world->ctx, ENDPOINT, NULL);

    if (client != NULL) {
        call (client, "one", world->pipe);
        call (client, "two", world->pipe);
        call (client, "three", world->pipe);
    }
    zqb_client_destroy (&client);
    close (world->pipe);
}

/* ---- the host ---- */

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

/* Lets the broker do all there is to do. Its descriptor tells changes, so that one step may not be
   enough. Returns in how many milliseconds it wants to be called again, or -1. */
static int serve_guest (zqb_broker_t *broker)
{
    int wait_ms;

    do
        wait_ms = zqb_broker_step (broker, 0);
    while (wait_ms == 0);
    return wait_ms;
}

/* The other thing that this host does. Returns how many bytes there were, 0 at the end, or -1. */
static int serve_pipe (int input)
{
    char text[256];
    ssize_t size = read (input, text, sizeof text);

    if (size > 0)
        fwrite (text, 1, (size_t) size, stdout);
    return (int) size;
}

static int loop (zqb_broker_t *broker, int input)
{
    struct pollfd wanted[2];

    wanted[0].fd = zqb_broker_fd (broker);
    wanted[0].events = POLLIN;
    wanted[1].fd = input;
    wanted[1].events = POLLIN;
    for (;;) {
        int wait_ms = serve_guest (broker);
        if (wait_ms == -1)
            return -1;
        if (poll (wanted, 2, wait_ms) == -1) {
            if (errno != EINTR)
                return -1;
        } else if (wanted[1].revents != 0) {
            int size = serve_pipe (input);
            if (size <= 0)
                return size;
        }
    }
}

static int run (void *ctx, zqb_broker_t *broker)
{
    world_t world;
    void *thread;
    int ends[2], rc;

    if (pipe (ends) == -1)
        return -1;
    world.ctx = ctx;
    world.pipe = ends[1];
    thread = zmq_threadstart (outside, &world);
    rc = loop (broker, ends[0]);
    if (rc == -1)
        fprintf (stderr, "host_loop: %s\n", zqb_strerror (errno));
    zmq_threadclose (thread);
    close (ends[0]);
    return rc;
}

int main (void)
{
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    int rc = -1;

    if (broker != NULL && zqb_broker_bind (broker, ENDPOINT) == 0
        && zqb_broker_handle (broker, "upper", upper, NULL) == 0)
        rc = run (ctx, broker);
    else
        fprintf (stderr, "host_loop: %s\n", zqb_strerror (errno));

    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
