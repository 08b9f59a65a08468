/*  zqecho.c - a worker that sends back what it gets, in any dialect

    By default and with --mdp it is made with zqb_worker_t. With --lru and --ppp it is written on
    libzmq alone, as the workers of the Guide are, to show that any of those will do.

    Build   cc -o zqecho examples/zqecho.c -I. -lzmq
    Run     ./zqecho -e tcp://127.0.0.1:5555 echo               an endpoint of zqbrokerd --bind
            ./zqecho -e tcp://127.0.0.1:5555 --mdp 0.2 echo
            ./zqecho -e ipc:///tmp/back --ppp                   the backend of zqbrokerd --lru
    Prints  nothing

    It serves until SIGINT or SIGTERM, and then ends with status 0. Status 1: it cannot go on, and
    says why. Status 2: the command line is wrong. --help lists the options.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
    "usage: zqecho -e ENDPOINT [OPTION...] SERVICE\n"
    "       zqecho -e ENDPOINT [OPTION...] --lru | --ppp\n"
    "  -e, --endpoint ENDPOINT    of the broker\n"
    "      --mdp 0.1|0.2          speak Majordomo, not ZQB/1\n"
    "      --credit N             hold up to N requests (1); ZQB/1 only\n"
    "      --lru                  be a plain REQ worker, of a broker's LRU backend\n"
    "      --ppp                  be a Paranoid Pirate worker, of a broker's LRU backend\n"
    "      --heartbeat MS         how often heartbeats are sent and expected (2500)\n"
    "  -h, --help                 this\n";

enum { HEARTBEAT_MS = 2500, LIVENESS = 3, LINGER_MS = 1000 };

typedef struct settings_t settings_t;
typedef int (serve_fn) (void *ctx, const settings_t *settings);

struct settings_t {
    serve_fn *serve; /* one of serve_native, serve_lru, serve_ppp */
    const char *endpoint;
    const char *service;
    zqb_worker_options_t worker;
};

static int failed (const char *what)
{
    fprintf (stderr, "zqecho: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

/* ---- signals ---- */

static volatile sig_atomic_t stopping;
static zqb_worker_t *native; /* for the signal handler */

static void stop (int signal_number)
{
    (void) signal_number;
    stopping = 1;
    if (native != NULL)
        zqb_worker_stop (native);
}

static void stop_on (int signal_number)
{
    struct sigaction action;

    memset (&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction (signal_number, &action, NULL);
}

static void stop_on_signals (void)
{
    stop_on (SIGINT);
    stop_on (SIGTERM);
}

/* ---- ZQB/1 and Majordomo ---- */

static int echo (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) arg;
    return zqb_msg_move (reply, zqb_request_body (request));
}

static int serve_native (void *ctx, const settings_t *settings)
{
    int rc;

    native = zqb_worker_new (ctx, settings->endpoint, settings->service, &settings->worker);
    if (native == NULL)
        return failed (settings->endpoint);
    stop_on_signals ();
    rc = zqb_worker_run (native, echo, NULL);
    if (rc == -1)
        failed (settings->service);
    zqb_worker_destroy (&native);
    return rc;
}

/* ---- libzmq alone: what LRU and PPP workers share ---- */

static int64_t now_ms (void)
{
    struct timespec now;

    clock_gettime (CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *open_socket (void *ctx, int type, const char *endpoint)
{
    void *socket = zmq_socket (ctx, type);
    int linger_ms = LINGER_MS;

    if (socket == NULL)
        return NULL;
    if (zmq_setsockopt (socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) == 0
        && zmq_connect (socket, endpoint) == 0)
        return socket;
    zmq_close (socket);
    return NULL;
}

/* Whether a message is there within that time. A signal, too, ends the waiting: 0. */
static int wait_for_message (void *socket, int64_t timeout_ms)
{
    zmq_pollitem_t item = { 0 };
    int rc;

    item.socket = socket;
    item.events = ZMQ_POLLIN;
    rc = zmq_poll (&item, 1, timeout_ms > 0 ? (long) timeout_ms : 0);
    return rc == -1 && errno == EINTR ? 0 : rc;
}

/* Sends a message back as it came: the address of the request is in front of it, and has to be in
   front of the reply. Messages of one frame are commands, and not sent back. */
static int send_back (void *socket, zqb_msg_t *msg)
{
    size_t count = zqb_msg_count (msg);

    for (size_t i = 0; i < count && count > 1; i++)
        if (zmq_msg_send (zqb_msg_frame (msg, i), socket, i < count - 1 ? ZMQ_SNDMORE : 0) == -1)
            return -1;
    return 0;
}

/* Receives a message that is there, all its frames. */
static int receive (void *socket, zqb_msg_t *msg)
{
    zmq_msg_t frame;
    int more = 1;

    zmq_msg_init (&frame);
    while (more) {
        if (zmq_msg_recv (&frame, socket, ZMQ_DONTWAIT) == -1)
            break;
        more = zmq_msg_more (&frame);
        if (zqb_msg_add_frame (msg, &frame) == -1)
            break;
    }
    zmq_msg_close (&frame);
    return more ? -1 : 0;
}

static int echo_message (void *socket)
{
    zqb_msg_t msg;
    int rc;

    zqb_msg_init (&msg);
    rc = receive (socket, &msg);
    if (rc == 0)
        rc = send_back (socket, &msg);
    zqb_msg_close (&msg);
    return rc;
}

/* ---- LRU: READY, then [token][""][body] both ways; never learns that its broker is gone ---- */

static int serve_lru (void *ctx, const settings_t *settings)
{
    void *socket = open_socket (ctx, ZMQ_REQ, settings->endpoint);
    int rc;

    if (socket == NULL)
        return failed (settings->endpoint);
    stop_on_signals ();
    rc = zmq_send (socket, "READY", 5, 0);
    while (!stopping && rc != -1) {
        rc = wait_for_message (socket, HEARTBEAT_MS);
        if (rc == 1)
            rc = echo_message (socket);
    }
    if (rc == -1 && !stopping)
        failed (settings->endpoint);
    zmq_close (socket);
    return rc == -1 && !stopping ? -1 : 0;
}

/* ---- PPP (RFC 6): the same through a DEALER, with heartbeats both ways ---- */

#define PPP_READY "\001"
#define PPP_HEARTBEAT "\002"

/* One connection: until the broker is silent for too long, or a signal: 0; or -1. */
static int ppp_session (void *socket, int heartbeat_ms)
{
    int64_t heard = now_ms (), told = heard;
    int rc = zmq_send (socket, PPP_READY, 1, 0);

    while (!stopping && rc != -1 && now_ms () - heard < (int64_t) LIVENESS * heartbeat_ms) {
        rc = wait_for_message (socket, told + heartbeat_ms - now_ms ());
        if (rc == 1) {
            rc = echo_message (socket);
            heard = now_ms ();
        }
        if (rc != -1 && now_ms () - told >= heartbeat_ms) {
            rc = zmq_send (socket, PPP_HEARTBEAT, 1, 0);
            told = now_ms ();
        }
    }
    return rc == -1 && !stopping ? failed ("socket") : 0;
}

/* A broker that was lost may have been started anew, and does not know us: a new socket, and READY
   again. Each try lasts for some heartbeats, so that no pause is needed between them. */
static int serve_ppp (void *ctx, const settings_t *settings)
{
    int heartbeat_ms = settings->worker.heartbeat_ms;
    int rc = 0;

    if (heartbeat_ms == 0)
        heartbeat_ms = HEARTBEAT_MS;
    stop_on_signals ();
    while (!stopping && rc == 0) {
        void *socket = open_socket (ctx, ZMQ_DEALER, settings->endpoint);
        if (socket == NULL)
            return failed (settings->endpoint);
        rc = ppp_session (socket, heartbeat_ms);
        zmq_close (socket);
    }
    return rc;
}

/* ---- the command line ---- */

static void usage_error (const char *what, const char *which)
{
    fprintf (stderr, "zqecho: %s%s\nTry: zqecho --help\n", what, which);
    exit (2);
}

static int number (const char *text, int most)
{
    char *end;
    long value = strtol (text, &end, 10);

    if (end == text || *end != '\0' || value < 1 || value > most)
        usage_error ("not a number that makes sense here: ", text);
    return (int) value;
}

static int dialect (const char *version)
{
    if (strcmp (version, "0.1") == 0)
        return ZQB_DIALECT_MDP01;
    if (strcmp (version, "0.2") != 0)
        usage_error ("no such version of Majordomo: ", version);
    return ZQB_DIALECT_MDP02;
}

static void show_help (void)
{
    fputs (help, stdout);
    exit (0);
}

static void set_option (settings_t *settings, int option)
{
    switch (option) {
        case 'e': settings->endpoint = optarg; break;
        case 'm': settings->worker.dialect = dialect (optarg); break;
        case 'c': settings->worker.credit = number (optarg, 65535); break;
        case 'b': settings->worker.heartbeat_ms = number (optarg, INT_MAX); break;
        case 'l': settings->serve = serve_lru; break;
        case 'p': settings->serve = serve_ppp; break;
        case 'h': show_help (); break;
        default: usage_error ("bad option", ""); /* getopt_long said which */
    }
}

static void parse (settings_t *settings, int argc, char **argv)
{
    static const struct option options[] = {
        { "endpoint", required_argument, NULL, 'e' },
        { "mdp", required_argument, NULL, 'm' },
        { "credit", required_argument, NULL, 'c' },
        { "heartbeat", required_argument, NULL, 'b' },
        { "lru", no_argument, NULL, 'l' },
        { "ppp", no_argument, NULL, 'p' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 }
    };
    int option;

    while ((option = getopt_long (argc, argv, "e:h", options, NULL)) != -1)
        set_option (settings, option);
    if (settings->endpoint == NULL)
        usage_error ("-e is missing", "");
    if (settings->serve == serve_native && optind == argc)
        usage_error ("the service is missing", "");
    settings->service = argv[optind];
}

int main (int argc, char **argv)
{
    settings_t settings = { 0 };
    void *ctx;
    int rc;

    settings.serve = serve_native;
    parse (&settings, argc, argv);
    ctx = zmq_ctx_new ();
    rc = settings.serve (ctx, &settings);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
