/*  zqcall.c - calls a service from the shell

    Build   cc -o zqcall examples/zqcall.c -I. -lzmq
    Run     ./zqcall -e tcp://127.0.0.1:5555 upper "hello, world"
    Prints  HELLO, WORLD

    The frames of the request are the arguments behind the service, or, if there are none, one frame
    with all of the standard input. The frames of the reply are printed as they are, each followed
    by a newline; partial replies as they come. --help lists what the request may ask for.

    With --survey each answer is a line, its frames separated by tabs, and how many answered is said
    on standard error. Ctrl-C (and SIGTERM) cancels the request: the broker drops it, and tells the
    worker that has it.

    Status  0       answered; with --survey by a worker at least; with --one-way the broker has it
            1       not answered, for another reason than these, such as a broker that refuses the
                    key or the password; it is on standard error, always
            2       the command line is wrong
            3       the worker reported a failure
            4       the deadline was over
            5       there was no worker: at all (--fail-fast, --survey), or for too long
            130     cancelled by Ctrl-C; 143 by SIGTERM

    Also try
            ./zqcall -e tcp://127.0.0.1:5555 mmi.services
            ./zqcall -e tcp://127.0.0.1:5555 mmi.stats
            ./zqcall -e tcp://127.0.0.1:5555 --mdp 0.1 upper < README.md
            ./zqcall -e tcp://127.0.0.1:5555 --priority 4 --deadline 500 upper urgent
            ./zqcall -e tcp://10.0.0.1:5555 --curve-server broker.public --curve alice upper secret
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: zqcall -e ENDPOINT [OPTION...] SERVICE [FRAME...]\n"
    "  -e, --endpoint ENDPOINT    of the broker; several are separated by commas\n"
    "      --mdp 0.1|0.2          speak Majordomo, not ZQB/1\n"
    "      --timeout MS           how long one try may take (2500); -1 for ever\n"
    "      --retries N            how often to try again after the first time (2)\n"
    "      --progress             show on standard error how far the work is\n"
    "  -h, --help                 this\n"
    "Who it is, and who the broker has to be:\n"
    "      --curve-server FILE    CURVE: the broker's public key, in a file of zqkeygen's\n"
    "      --curve NAME           the key pair in NAME.secret; else a new one for this run\n"
    "      --user NAME            PLAIN: who this is\n"
    "      --password-file FILE   and the password, in a file that only its owner may read\n"
    "What the request asks for, in ZQB/1:\n"
    "      --priority N           higher first, from -4 to 4 (0)\n"
    "      --deadline MS          the answer is of use for so long, and is asked for until then\n"
    "      --delay MS             do not begin before so much time has passed\n"
    "      --attempts N           workers that may be lost over it; -1 all (the broker's option)\n"
    "      --backoff MS           a pause behind the first of them, which doubles with each\n"
    "      --unique KEY           join a request with this key, if one waits or runs\n"
    "      --affinity KEY         the worker that had the others with this key\n"
    "      --one-way              no answer\n"
    "      --fail-fast            fail rather than wait for a service without workers\n"
    "      --survey               an answer of each worker of the service\n"
    "Without a FRAME the request is the standard input.\n";

/* What the process ends with. */
enum { ANSWERED = 0, FAILED = 1, WRONG = 2, WORKER_FAILED = 3, EXPIRED = 4, NO_WORKER = 5 };

enum { LOOK_MS = 100, LONGEST_KEY = 255, MOST_ATTEMPTS = 65534 };
enum { PATH_SIZE = 4096 };

typedef struct settings_t {
    zqb_client_options_t client;
    char server[PATH_SIZE], own[PATH_SIZE], password[PATH_SIZE]; /* what it points to */
    zqb_request_options_t request;
    int asks; /* something of these */
    int progress;
    const char *endpoint;
    const char *service;
    char **frames; /* NULL ends them */
} settings_t;

/* ---- the command line ---- */

static void usage_error (const char *what, const char *which)
{
    fprintf (stderr, "zqcall: %s%s\nTry: zqcall --help\n", what, which);
    exit (WRONG);
}

static int number (const char *text, int least, int most)
{
    char *end;
    long value = strtol (text, &end, 10);

    if (end == text || *end != '\0' || value < least || value > most)
        usage_error ("not a number that makes sense here: ", text);
    return (int) value;
}

static int priority (const char *text)
{
    return number (text, ZQB_PRIORITY_LOWEST, ZQB_PRIORITY_HIGHEST);
}

static int milliseconds (const char *text)
{
    return number (text, 1, INT_MAX);
}

/* A number for which -1 stands for no limit, and 0 for the default, which nobody asks for. */
static int unless_zero (const char *text, int most)
{
    int value = number (text, -1, most);

    if (value == 0)
        usage_error ("it cannot be ", text);
    return value;
}

/* In options -1 is never, and 0 would be the default. */
static int retries (const char *text)
{
    int value = number (text, 0, INT_MAX);

    return value > 0 ? value : -1;
}

static const char *key (const char *text)
{
    if (*text == '\0' || strlen (text) > LONGEST_KEY)
        usage_error ("a key has 1 to 255 bytes, not those of ", text);
    return text;
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
    zqb_client_options_t *peer = &settings->client;

    switch (option) {
        case 'S': peer->server_public = in_file (settings->server, optarg, ""); return 1;
        case 'C': peer->secret_key = in_file (settings->own, optarg, ".secret"); return 1;
        case 'U': peer->user = optarg; return 1;
        case 'P': peer->password = in_file (settings->password, optarg, ""); return 1;
        default: return 0;
    }
}

static void check_security (const zqb_client_options_t *peer)
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

static void set_request_option (settings_t *settings, int option)
{
    zqb_request_options_t *request = &settings->request;

    settings->asks = 1;
    switch (option) {
        case 'p': request->priority = priority (optarg); break;
        case 'd': request->deadline_ms = milliseconds (optarg); break;
        case 'l': request->delay_ms = milliseconds (optarg); break;
        case 'a': request->attempts = unless_zero (optarg, MOST_ATTEMPTS); break;
        case 'b': request->backoff_ms = milliseconds (optarg); break;
        case 'u': request->unique = key (optarg); break;
        case 'f': request->affinity = key (optarg); break;
        case 'o': request->one_way = 1; break;
        case 'q': request->fail_fast = 1; break;
        case 's': request->survey = 1; break;
        default: usage_error ("bad option", ""); /* getopt_long said which */
    }
}

static void set_option (settings_t *settings, int option)
{
    if (set_security (settings, option))
        return;
    switch (option) {
        case 'e': settings->endpoint = optarg; break;
        case 'm': settings->client.dialect = dialect (optarg); break;
        case 't': settings->client.timeout_ms = unless_zero (optarg, INT_MAX); break;
        case 'r': settings->client.retries = retries (optarg); break;
        case 'g': settings->progress = 1; break;
        case 'h': show_help (); break;
        default: set_request_option (settings, option);
    }
}

static void check (const settings_t *settings)
{
    if (settings->endpoint == NULL)
        usage_error ("-e is missing", "");
    check_security (&settings->client);
    if (settings->asks && settings->client.dialect != ZQB_DIALECT_ZQB1)
        usage_error ("Majordomo has no words for what the request asks for", "");
    if (settings->request.survey && settings->request.one_way)
        usage_error ("a survey wants answers, and --one-way none", "");
}

static void parse (settings_t *settings, int argc, char **argv)
{
    static const struct option options[] = {
        { "endpoint", required_argument, NULL, 'e' },
        { "mdp", required_argument, NULL, 'm' },
        { "timeout", required_argument, NULL, 't' },
        { "retries", required_argument, NULL, 'r' },
        { "progress", no_argument, NULL, 'g' },
        { "priority", required_argument, NULL, 'p' },
        { "deadline", required_argument, NULL, 'd' },
        { "delay", required_argument, NULL, 'l' },
        { "attempts", required_argument, NULL, 'a' },
        { "backoff", required_argument, NULL, 'b' },
        { "unique", required_argument, NULL, 'u' },
        { "affinity", required_argument, NULL, 'f' },
        { "one-way", no_argument, NULL, 'o' },
        { "fail-fast", no_argument, NULL, 'q' },
        { "survey", no_argument, NULL, 's' },
        { "curve-server", required_argument, NULL, 'S' },
        { "curve", required_argument, NULL, 'C' },
        { "user", required_argument, NULL, 'U' },
        { "password-file", required_argument, NULL, 'P' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 }
    };
    int option;

    /* The + ends the options with the service, so that a frame may begin with a minus. */
    while ((option = getopt_long (argc, argv, "+e:h", options, NULL)) != -1)
        set_option (settings, option);
    check (settings);
    if (optind == argc)
        usage_error ("the service is missing", "");
    settings->service = argv[optind];
    settings->frames = argv + optind + 1;
}

/* ---- signals ---- */

static volatile sig_atomic_t ending; /* the signal that came, or 0 */

static void end (int signal_number)
{
    ending = signal_number;
}

/* The first one cancels the request; should that take too long, the second ends the process. */
static void end_on (int signal_number)
{
    struct sigaction action;

    memset (&action, 0, sizeof action);
    action.sa_handler = end;
    action.sa_flags = (int) SA_RESETHAND;
    sigaction (signal_number, &action, NULL);
}

/* ---- the request ---- */

static int failed (const char *what)
{
    fprintf (stderr, "zqcall: %s: %s\n", what, zqb_strerror (errno));
    return FAILED;
}

/* All that a stream has, as one frame. */
static int add_stream (zqb_msg_t *msg, FILE *stream)
{
    size_t size = 0, room = 0, got = 1;
    char *data = NULL;
    int rc = -1;

    while (got > 0) {
        if (size == room) {
            char *larger = (char *) realloc (data, room = 2 * room + 65536);
            if (larger == NULL)
                break;
            data = larger;
        }
        got = fread (data + size, 1, room - size, stream);
        size += got;
    }
    if (got == 0 && !ferror (stream))
        rc = zqb_msg_add (msg, data, size);
    free (data);
    return rc;
}

static int fill (zqb_msg_t *request, char **frames)
{
    if (*frames == NULL)
        return add_stream (request, stdin);
    for (; *frames != NULL; frames++)
        if (zqb_msg_add_str (request, *frames) == -1)
            return -1;
    return 0;
}

/* ---- what comes back; int functions return what the process ends with ---- */

static int written (void)
{
    return fflush (stdout) == 0 && !ferror (stdout) ? ANSWERED : failed ("standard output");
}

static int print (const zqb_msg_t *body)
{
    for (size_t i = 0; i < zqb_msg_count (body); i++) {
        fwrite (zqb_msg_data (body, i), 1, zqb_msg_size (body, i), stdout);
        putchar ('\n');
    }
    return written ();
}

/* An answer to a survey: a line. */
static int print_line (const zqb_msg_t *body)
{
    for (size_t i = 0; i < zqb_msg_count (body); i++) {
        if (i > 0)
            putchar ('\t');
        fwrite (zqb_msg_data (body, i), 1, zqb_msg_size (body, i), stdout);
    }
    putchar ('\n');
    return written ();
}

static void print_text (const zqb_msg_t *body)
{
    if (zqb_msg_size (body, 0) > 0)
        fprintf (stderr, ": %.*s", (int) zqb_msg_size (body, 0), (char *) zqb_msg_data (body, 0));
    fprintf (stderr, "\n");
}

static void print_progress (const settings_t *settings, const zqb_reply_t *reply)
{
    fprintf (stderr, "zqcall: %s: %" PRIu64, settings->service, reply->done);
    if (reply->total > 0)
        fprintf (stderr, " of %" PRIu64, reply->total);
    print_text (&reply->body);
}

static int print_end_of_survey (const settings_t *settings, const zqb_reply_t *reply)
{
    fprintf (stderr, "zqcall: %s: %" PRIu64 " of %" PRIu64 " answered\n", settings->service,
             reply->done, reply->total);
    return reply->done > 0 ? ANSWERED : FAILED;
}

static int status_of (int error)
{
    switch (error) {
        case ZQB_EFAILED: return WORKER_FAILED;
        case ZQB_EEXPIRED: return EXPIRED;
        case ZQB_ENOWORKER: return NO_WORKER;
        default: return FAILED;
    }
}

static int print_error (const settings_t *settings, const zqb_reply_t *reply)
{
    fprintf (stderr, "zqcall: %s: %s", settings->service, zqb_strerror (reply->error));
    if (reply->code != 0)
        fprintf (stderr, " (%d)", reply->code);
    print_text (&reply->body);
    return status_of (reply->error);
}

static int take (const settings_t *settings, const zqb_reply_t *reply)
{
    int survey = settings->request.survey;

    switch (reply->kind) {
        case ZQB_REPLY_ERROR:
            return print_error (settings, reply);
        case ZQB_REPLY_PROGRESS:
            if (settings->progress)
                print_progress (settings, reply);
            return ANSWERED;
        case ZQB_REPLY_PARTIAL:
            return survey ? print_line (&reply->body) : print (&reply->body);
        default:
            return survey ? print_end_of_survey (settings, reply) : print (&reply->body);
    }
}

/* ---- the call ---- */

/* The next of what comes: 0; or -1, with EINTR after a signal. It does not wait for long at a time,
   as one may come just before. */
static int next (zqb_client_t *client, zqb_reply_t *reply)
{
    while (!ending) {
        if (zqb_client_recv (client, reply, LOOK_MS) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -1;
    }
    errno = EINTR;
    return -1;
}

static int cancelled (const settings_t *settings)
{
    fprintf (stderr, "zqcall: %s: cancelled\n", settings->service);
    return 128 + ending;
}

/* The broker is told, and the worker by it. */
static int cancel (const settings_t *settings, zqb_client_t *client, uint64_t id)
{
    zqb_client_cancel (client, id);
    zqb_client_flush (client);
    return cancelled (settings);
}

/* Prints all that comes, until the request is over. */
static int receive (const settings_t *settings, zqb_client_t *client, uint64_t id)
{
    zqb_reply_t reply;
    int more = 1, status = ANSWERED;

    zqb_msg_init (&reply.body);
    while (more && status == ANSWERED) {
        if (next (client, &reply) == -1) {
            status = ending ? cancel (settings, client, id) : failed ("receive");
            break;
        }
        more = reply.kind == ZQB_REPLY_PARTIAL || reply.kind == ZQB_REPLY_PROGRESS;
        status = take (settings, &reply);
    }
    zqb_msg_close (&reply.body);
    return status;
}

/* No answer comes. But one to another question says that the broker is there, and has read what was
   sent before. */
static int send_one_way (const settings_t *settings, zqb_client_t *client, zqb_msg_t *request)
{
    zqb_msg_t name, known;
    int rc;

    zqb_msg_init (&name);
    zqb_msg_init (&known);
    rc = zqb_client_submit_with (client, settings->service, &settings->request, request, NULL);
    if (rc == 0)
        rc = zqb_msg_add_str (&name, settings->service);
    if (rc == 0)
        rc = zqb_client_call (client, "mmi.service", &name, &known);
    zqb_msg_close (&known);
    zqb_msg_close (&name);
    if (rc == 0)
        return ANSWERED;
    return ending ? cancelled (settings) : failed (settings->service);
}

static int send_and_receive (const settings_t *settings, zqb_client_t *client, zqb_msg_t *request)
{
    const zqb_request_options_t *options = settings->asks ? &settings->request : NULL;
    uint64_t id;

    if (zqb_client_submit_with (client, settings->service, options, request, &id) == -1)
        return failed (settings->service);
    return receive (settings, client, id);
}

static int call (const settings_t *settings, zqb_client_t *client)
{
    zqb_msg_t request;
    int status;

    zqb_msg_init (&request);
    if (fill (&request, settings->frames) == -1)
        status = failed ("standard input");
    else {
        end_on (SIGINT);
        end_on (SIGTERM);
        status = settings->request.one_way ? send_one_way (settings, client, &request)
                                           : send_and_receive (settings, client, &request);
    }
    zqb_msg_close (&request);
    return status;
}

int main (int argc, char **argv)
{
    settings_t settings = { 0 };
    zqb_client_t *client;
    void *ctx;
    int status;

    parse (&settings, argc, argv);
    ctx = zmq_ctx_new ();
    client = zqb_client_new (ctx, settings.endpoint, &settings.client);
    if (client != NULL)
        status = call (&settings, client);
    else
        status = failed (settings.client.server_public != NULL ? "the endpoint or a key"
                         : settings.client.password != NULL    ? "the endpoint or the password file"
                                                               : settings.endpoint);

    zqb_client_destroy (&client);
    zmq_ctx_term (ctx);
    return status;
}
