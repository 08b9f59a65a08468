/*  obedient.c - a worker of ours that does what its requests say, for the tests of the Python peers

        obedient ENDPOINT SERVICE [CREDIT]

    The first frame of a request is a word, and the others are what it needs:

        parts N              N parts, "0" and so on, and then the reply "end"
        progress N           N reports, each with a text, and then the reply "end"
        fail CODE TEXT       it fails
        refuse               it gives the request back
        left                 the reply is how many milliseconds are left
        name                 the reply is the name by which it was called
        work                 until nobody wants it any more

    Standard output has "began WORD" for each; "unwanted N" when nobody wants a request any more, of which it had sent N
    parts; and "gone" at the end. SIGTERM stops it, SIGUSR1 has it drained. Status 0 then. */

#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static zqb_worker_t *worker; /* for the signal handler */

static void on_signal (int number)
{
    int error = errno;
    if (number == SIGUSR1)
        zqb_worker_drain (worker);
    else
        zqb_worker_stop (worker);
    errno = error;
}

static void listen_to (int number)
{
    struct sigaction action;
    memset (&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction (number, &action, NULL);
}

static int fail (const char *what)
{
    fprintf (stderr, "obedient: %s: %s\n", what, zqb_strerror (errno));
    return 1;
}

static void say (const char *what, const char *which)
{
    printf ("%s%s\n", what, which);
    fflush (stdout);
}

/* A frame of the body as text. */
static const char *word (zqb_request_t *request, size_t index, char *text, size_t room)
{
    zqb_msg_t *body = zqb_request_body (request);
    size_t size = zqb_msg_size (body, index);
    if (size >= room)
        size = room - 1;
    if (size)
        memcpy (text, zqb_msg_data (body, index), size);
    text[size] = '\0';
    return text;
}

static int reply_text (zqb_request_t *request, const char *text)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, text);
    int rc = zqb_request_reply (request, &msg);
    zqb_msg_close (&msg);
    return rc;
}

static int reply_number (zqb_request_t *request, int number)
{
    char text[16];
    snprintf (text, sizeof text, "%d", number);
    return reply_text (request, text);
}

static int unwanted (zqb_request_t *request, int parts)
{
    char text[16];
    snprintf (text, sizeof text, "%d", parts);
    say ("unwanted ", text);
    return reply_text (request, "too late");
}

static int send_parts (zqb_request_t *request, int count)
{
    for (int i = 0; i < count; i++) {
        char text[16];
        zqb_msg_t part;
        snprintf (text, sizeof text, "%d", i);
        zqb_msg_init (&part);
        zqb_msg_add_str (&part, text);
        int rc = zqb_request_partial (request, &part);
        zqb_msg_close (&part);
        if (rc != 0)
            return errno == ZQB_ECANCELLED ? unwanted (request, i) : -1;
    }
    return reply_text (request, "end");
}

static int send_progress (zqb_request_t *request, int count)
{
    for (int i = 0; i < count; i++)
        if (zqb_request_progress (request, (uint64_t) i, (uint64_t) count, i % 2 ? NULL : "so far so good") != 0)
            return -1;
    return reply_text (request, "end");
}

/* Until nobody wants it any more. */
static int work (zqb_request_t *request)
{
    while (!zqb_request_cancelled (request)) {
        struct pollfd item;
        item.fd = zqb_worker_fd (worker);
        item.events = POLLIN;
        poll (&item, 1, 20); /* it tells changes only */
    }
    return unwanted (request, 0);
}

static int obey (zqb_request_t *request)
{
    char what[64], first[64], second[300];
    word (request, 0, what, sizeof what);
    word (request, 1, first, sizeof first);
    say ("began ", what);
    if (strcmp (what, "parts") == 0)
        return send_parts (request, atoi (first));
    if (strcmp (what, "progress") == 0)
        return send_progress (request, atoi (first));
    if (strcmp (what, "fail") == 0)
        return zqb_request_fail (request, atoi (first), word (request, 2, second, sizeof second));
    if (strcmp (what, "refuse") == 0)
        return zqb_request_refuse (request);
    if (strcmp (what, "left") == 0)
        return reply_number (request, zqb_request_left_ms (request));
    if (strcmp (what, "name") == 0)
        return reply_text (request, zqb_request_service (request, NULL));
    return strcmp (what, "work") == 0 ? work (request) : reply_text (request, "what?");
}

static int serve (void)
{
    for (;;) {
        zqb_request_t *request = zqb_worker_recv (worker, -1);
        if (!request && errno == ECANCELED)
            return 0;
        if (request ? obey (request) != 0 && errno != ENOTCONN : errno != EINTR)
            return fail ("worker");
    }
}

int main (int argc, char **argv)
{
    zqb_worker_options_t options;
    if (argc < 3) {
        fprintf (stderr, "usage: obedient ENDPOINT SERVICE [CREDIT]\n");
        return 2;
    }
    memset (&options, 0, sizeof options);
    options.credit = argc > 3 ? atoi (argv[3]) : 1;
    void *ctx = zmq_ctx_new ();
    worker = zqb_worker_new (ctx, argv[1], argv[2], &options);
    if (!worker)
        return fail (argv[1]);
    listen_to (SIGTERM);
    listen_to (SIGUSR1);
    int status = serve ();
    zqb_worker_destroy (&worker);
    zmq_ctx_term (ctx);
    say ("gone", "");
    return status;
}
