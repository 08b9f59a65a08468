/*  progress.c - a long job with a progress bar, which Ctrl-C cancels

    The worker reports how far it is (zqb_request_progress), and looks whether its work is still
    wanted (zqb_request_cancelled). The client draws a bar, and on Ctrl-C cancels the request: the
    broker tells the worker, which stops. Broker, worker and client are threads of one process, and
    talk over inproc; nothing else would change over tcp.

    Build   cc -o progress examples/progress.c -I. -lzmq
    Run     ./progress [PAGES]                          default: 50, of a tenth of a second each
    Prints  on a terminal a bar:

            [####################....................]  50 %  page 25 of 50

            elsewhere a line at first, and for each tenth of the way:

            50 %  page 25 of 50

            and at the end, with status 0 or 130:

            50 pages are printed
            cancelled: the worker stopped
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENDPOINT "inproc://progress"

enum { PAGES = 50, MOST_PAGES = 1000000, PAGE_MS = 100, BAR = 40 };

/* What the process ends with. */
enum { PRINTED = 0, FAILED = 1, WRONG = 2, CANCELLED = 130 };

static int failed (const char *what)
{
    fprintf (stderr, "progress: %s: %s\n", what, zqb_strerror (errno));
    return FAILED;
}

/* ---- the worker ---- */

static int report (zqb_request_t *request, int page, int pages)
{
    char text[80];

    snprintf (text, sizeof text, "page %d of %d", page, pages);
    return zqb_request_progress (request, (uint64_t) page, (uint64_t) pages, text);
}

/* The request is the number of pages, an int of this process. */
static int print_pages (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    int *stopped = (int *) arg;
    char text[80];
    int pages;

    memcpy (&pages, zqb_msg_data (zqb_request_body (request), 0), sizeof pages);
    for (int page = 1; page <= pages; page++) {
        zmq_poll (NULL, 0, PAGE_MS);
        if (zqb_request_cancelled (request)) {
            *stopped = 1;
            return -1; /* to nobody */
        }
        if (report (request, page, pages) == -1)
            return -1;
    }
    snprintf (text, sizeof text, "%d pages are printed", pages);
    return zqb_msg_add_str (reply, text);
}

/* ---- what the user sees ---- */

typedef struct display_t {
    int terminal;
    int tenths; /* of the way: what the last line was about; -1: there was none yet */
    int bar;    /* one is there, and its line has no end yet */
} display_t;

static void show_bar (display_t *display, int percent)
{
    printf ("\r[");
    for (int i = 0; i < BAR; i++)
        putchar (i < percent * BAR / 100 ? '#' : '.');
    printf ("] %3d %%  ", percent);
    display->bar = 1;
}

static void show (display_t *display, const zqb_reply_t *reply)
{
    int percent = (int) (reply->done * 100 / reply->total);

    if (!display->terminal && percent / 10 == display->tenths)
        return;
    display->tenths = percent / 10;
    if (display->terminal)
        show_bar (display, percent);
    else
        printf ("%d %%  ", percent);
    printf ("%.*s%s", (int) zqb_msg_size (&reply->body, 0), (char *) zqb_msg_data (&reply->body, 0),
            display->terminal ? "" : "\n");
    fflush (stdout);
}

static void end_bar (display_t *display)
{
    if (display->bar)
        printf ("\n");
    display->bar = 0;
}

/* ---- the client ---- */

static volatile sig_atomic_t interrupted;

static void interrupt (int signal_number)
{
    (void) signal_number;
    interrupted = 1;
}

static void notice_ctrl_c (void)
{
    struct sigaction action;

    memset (&action, 0, sizeof action);
    action.sa_handler = interrupt;
    sigaction (SIGINT, &action, NULL);
}

static int end (display_t *display, const zqb_reply_t *reply)
{
    end_bar (display);
    if (reply->kind == ZQB_REPLY_ERROR) {
        errno = reply->error;
        return failed ("job");
    }
    printf ("%.*s\n", (int) zqb_msg_size (&reply->body, 0),
            (char *) zqb_msg_data (&reply->body, 0));
    return PRINTED;
}

/* Until the job ends, or Ctrl-C. A signal that comes just before the waiting is noticed when the
   next report is there. */
static int watch (zqb_client_t *client, uint64_t id, zqb_reply_t *reply)
{
    display_t display = { 0 };

    display.terminal = isatty (STDOUT_FILENO);
    display.tenths = -1;
    for (;;) {
        int rc = zqb_client_recv (client, reply, -1);
        if (rc == -1 && errno != EINTR)
            return failed ("receive");
        if (rc == 0 && reply->kind != ZQB_REPLY_PROGRESS)
            return end (&display, reply);
        if (rc == 0)
            show (&display, reply);
        if (interrupted && zqb_client_cancel (client, id) == 0) {
            end_bar (&display);
            return CANCELLED;
        }
    }
}

/* It may take long, but each report starts the time for a try anew: 2.5 seconds. */
static int ask (void *ctx, int pages)
{
    zqb_client_t *client = zqb_client_new (ctx, ENDPOINT, NULL);
    zqb_msg_t request;
    zqb_reply_t reply;
    uint64_t id;
    int status;

    zqb_msg_init (&request);
    zqb_msg_init (&reply.body);
    if (client != NULL && zqb_msg_add (&request, &pages, sizeof pages) == 0
        && zqb_client_submit (client, "print", &request, &id) == 0)
        status = watch (client, id, &reply);
    else
        status = failed ("client");
    zqb_msg_close (&reply.body);
    zqb_msg_close (&request);
    zqb_client_destroy (&client);
    return status;
}

/* ---- the process ---- */

static int run (void *ctx, zqb_broker_t *broker, int pages)
{
    zqb_pool_options_t options = { 0 };
    zqb_pool_t *pool = NULL;
    int stopped = 0, status;

    options.threads = 1;
    if (broker != NULL && zqb_broker_bind (broker, ENDPOINT) == 0 && zqb_broker_start (broker) == 0)
        pool = zqb_pool_start (ctx, ENDPOINT, "print", print_pages, &stopped, &options);
    if (pool == NULL)
        return failed ("start");
    status = ask (ctx, pages);
    zqb_pool_stop (&pool); /* waits for what the worker is at, so that it does stop */
    if (status == CANCELLED)
        printf ("cancelled: %s\n", stopped ? "the worker stopped" : "there was nothing to stop");
    return status;
}

int main (int argc, char **argv)
{
    int pages = argc > 1 ? atoi (argv[1]) : PAGES;
    void *ctx;
    zqb_broker_t *broker;
    int status;

    if (pages < 1 || pages > MOST_PAGES) {
        fprintf (stderr, "usage: progress [PAGES]\n");
        return WRONG;
    }
    notice_ctrl_c ();
    ctx = zmq_ctx_new ();
    broker = zqb_broker_new (ctx, NULL);
    status = run (ctx, broker, pages);
    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return status;
}
