/*  zqecho.c - a worker that sends back what it gets, in any dialect

    By default and with --mdp it is made with zqb_worker_t. With --lru and --ppp it is written on
    libzmq alone, as the workers of the Guide are, to show that any of those will do.

    Build   cc -o zqecho examples/zqecho.c -I. -lzmq
    Run     ./zqecho -e tcp://127.0.0.1:5555 echo               an endpoint of zqbrokerd --bind
            ./zqecho -e tcp://127.0.0.1:5555 --mdp 0.2 echo
            ./zqecho -e tcp://127.0.0.1:5555 'img.*'            whatever starts with img.
            ./zqecho -e ipc:///tmp/back --ppp                   the backend of zqbrokerd --lru
    Prints  nothing, or with --print a line for each request: the service, and the frames

    SIGTERM drains it: it takes no more, finishes what it has, and leaves. SIGINT (Ctrl-C) stops it:
    it finishes the request that it is at, and what it has besides goes to others; another SIGINT
    kills it. Both end it with status 0. Status 1: it cannot go on, and says why. Status 2: the
    command line is wrong. --help lists the options, some of which make it a slow, a broken or a
    picky worker, to try out what a client sees of that.
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
#include <unistd.h>

static const char help[] =
    "usage: zqecho -e ENDPOINT [OPTION...] SERVICE\n"
    "       zqecho -e ENDPOINT [OPTION...] --lru | --ppp\n"
    "  -e, --endpoint ENDPOINT    of the broker\n"
    "      --mdp 0.1|0.2          speak Majordomo, not ZQB/1\n"
    "      --credit N             hold up to N requests (1); ZQB/1 only\n"
    "      --lru                  be a plain REQ worker, of a broker's LRU backend\n"
    "      --ppp                  be a Paranoid Pirate worker, of a broker's LRU backend\n"
    "      --heartbeat MS         how often heartbeats are sent and expected (2500)\n"
    "  -h, --help                 this\n"
    "But for --lru and --ppp:\n"
    "      --print                print a line for each request, and for one that is cancelled\n"
    "      --work MS              take so long for each (0)\n"
    "      --progress             report ten times how far each is; ZQB/1 only\n"
    "      --refuse               give each back, for another worker; ZQB/1 only\n"
    "      --fail CODE            fail each, with this code\n"
    "  -v, --verbose              log to standard error, also that a broker refuses it\n"
    "      --curve-server FILE    CURVE: the broker's public key, in a file of zqkeygen's\n"
    "      --curve NAME           the key pair in NAME.secret; else a new one for this run\n"
    "      --user NAME            PLAIN: who this is\n"
    "      --password-file FILE   and the password, in a file that only its owner may read\n";

enum { HEARTBEAT_MS = 2500, LIVENESS = 3, LINGER_MS = 1000, STEPS = 10, LOOK_MS = 10 };
enum { PATH_SIZE = 4096 };

typedef struct settings_t settings_t;
typedef int (serve_fn) (void *ctx, const settings_t *settings);

struct settings_t {
    serve_fn *serve; /* one of serve_native, serve_lru, serve_ppp */
    const char *endpoint;
    const char *service;
    zqb_worker_options_t worker;
    char server[PATH_SIZE], own[PATH_SIZE], password[PATH_SIZE]; /* what it points to */
    int print, progress, refuse;
    int work_ms;
    int fail; /* the code, or 0 */
};

static int failed (const char *what)
{
    fprintf (stderr, "zqecho: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

/* ---- signals ---- */

static volatile sig_atomic_t stopping;
static zqb_worker_t *volatile native; /* if it is one, for the signal handler */

static void end (int signal_number)
{
    if (native != NULL && signal_number == SIGTERM) {
        zqb_worker_drain (native);
        return;
    }
    stopping = 1;
    if (native != NULL)
        zqb_worker_stop (native);
}

static void end_on (int signal_number)
{
    struct sigaction action;

    memset (&action, 0, sizeof action);
    action.sa_handler = end;
    action.sa_flags = signal_number == SIGINT ? (int) SA_RESETHAND : 0;
    sigaction (signal_number, &action, NULL);
}

static void end_on_signals (void)
{
    end_on (SIGINT);
    end_on (SIGTERM);
}

/* ---- ZQB/1 and Majordomo ---- */

static int64_t now_ms (void)
{
    struct timespec now;

    clock_gettime (CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void print (zqb_request_t *request, const char *what)
{
    zqb_msg_t *body = zqb_request_body (request);

    fputs (zqb_request_service (request, NULL), stdout);
    fputs (what, stdout);
    for (size_t i = 0; i < zqb_msg_count (body); i++)
        printf (" %.*s", (int) zqb_msg_size (body, i), (char *) zqb_msg_data (body, i));
    printf ("\n");
    fflush (stdout);
}

/* Lets time pass: 0; or -1 as soon as nobody wants the reply any more. */
static int wait_until (zqb_request_t *request, int64_t then_ms)
{
    while (now_ms () < then_ms) {
        if (zqb_request_cancelled (request))
            return -1;
        zmq_poll (NULL, 0, LOOK_MS);
    }
    return 0;
}

/* What stands for work. */
static int work (zqb_request_t *request, const settings_t *settings)
{
    int64_t start = now_ms ();

    for (int step = 1; step <= STEPS; step++) {
        if (wait_until (request, start + (int64_t) settings->work_ms * step / STEPS) == -1)
            return -1;
        if (settings->progress)
            zqb_request_progress (request, (uint64_t) step, STEPS, NULL);
    }
    return 0;
}

static int echo (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    const settings_t *settings = (const settings_t *) arg;

    if (settings->print)
        print (request, ":");
    if (settings->refuse)
        return ZQB_EREFUSED;
    if (work (request, settings) == -1) {
        if (settings->print)
            print (request, " cancelled:");
        return -1; /* to nobody */
    }
    if (settings->fail == 0)
        return zqb_msg_move (reply, zqb_request_body (request));
    zqb_msg_add_str (reply, "it was told to fail");
    return settings->fail;
}

static int serve_native (void *ctx, const settings_t *settings)
{
    zqb_worker_t *worker = zqb_worker_new (ctx, settings->endpoint, settings->service,
                                           &settings->worker);
    int rc;

    if (worker == NULL)
        return failed (settings->worker.server_public != NULL ? "the endpoint or a key"
                       : settings->worker.password != NULL    ? "the endpoint or the password file"
                                                              : settings->endpoint);
    native = worker;
    end_on_signals ();
    rc = zqb_worker_run (worker, echo, (void *) settings);
    native = NULL;
    if (rc == -1)
        failed (settings->service);
    zqb_worker_destroy (&worker);
    return rc;
}

/* ---- libzmq alone: what LRU and PPP workers share ---- */

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
    end_on_signals ();
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
    end_on_signals ();
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

/* ---- keys and passwords ---- */

static const char *in_file (char text[PATH_SIZE], const char *path, const char *ending)
{
    if (snprintf (text, PATH_SIZE, "file:%s%s", path, ending) >= PATH_SIZE)
        usage_error ("too long: ", path);
    return text;
}

/* 0: it is another option. */
static int set_security (settings_t *settings, int option)
{
    zqb_worker_options_t *peer = &settings->worker;

    switch (option) {
        case 'S': peer->server_public = in_file (settings->server, optarg, ""); return 1;
        case 'C': peer->secret_key = in_file (settings->own, optarg, ".secret"); return 1;
        case 'U': peer->user = optarg; return 1;
        case 'P': peer->password = in_file (settings->password, optarg, ""); return 1;
        default: return 0;
    }
}

static void check_security (const zqb_worker_options_t *peer)
{
    int curve = peer->server_public != NULL, plain = peer->user != NULL;

    if (peer->secret_key != NULL && !curve)
        usage_error ("--curve needs --curve-server", "");
    if (plain != (peer->password != NULL))
        usage_error ("--user and --password-file need each other", "");
    if (curve && plain)
        usage_error ("either --curve-server or --user", "");
}

/* ---- the options ---- */

static void print_log (int level, const char *text, void *arg)
{
    (void) level;
    (void) arg;
    fprintf (stderr, "zqecho: %s\n", text);
}

static void set_option (settings_t *settings, int option)
{
    if (set_security (settings, option))
        return;
    switch (option) {
        case 'e': settings->endpoint = optarg; break;
        case 'm': settings->worker.dialect = dialect (optarg); break;
        case 'c': settings->worker.credit = number (optarg, 65535); break;
        case 'b': settings->worker.heartbeat_ms = number (optarg, INT_MAX); break;
        case 'i': settings->print = 1; break;
        case 'w': settings->work_ms = number (optarg, INT_MAX); break;
        case 'g': settings->progress = 1; break;
        case 'r': settings->refuse = 1; break;
        case 'f': settings->fail = number (optarg, INT_MAX); break;
        case 'v': settings->worker.log = print_log; break;
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
        { "print", no_argument, NULL, 'i' },
        { "work", required_argument, NULL, 'w' },
        { "progress", no_argument, NULL, 'g' },
        { "refuse", no_argument, NULL, 'r' },
        { "fail", required_argument, NULL, 'f' },
        { "verbose", no_argument, NULL, 'v' },
        { "lru", no_argument, NULL, 'l' },
        { "ppp", no_argument, NULL, 'p' },
        { "curve-server", required_argument, NULL, 'S' },
        { "curve", required_argument, NULL, 'C' },
        { "user", required_argument, NULL, 'U' },
        { "password-file", required_argument, NULL, 'P' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 }
    };
    int option;

    while ((option = getopt_long (argc, argv, "e:vh", options, NULL)) != -1)
        set_option (settings, option);
    if (settings->endpoint == NULL)
        usage_error ("-e is missing", "");
    check_security (&settings->worker);
    if (settings->serve != serve_native
        && (settings->worker.server_public != NULL || settings->worker.user != NULL))
        usage_error ("--lru and --ppp know no keys and passwords", "");
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
