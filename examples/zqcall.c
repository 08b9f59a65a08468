/*  zqcall.c - calls a service from the shell

    Build   cc -o zqcall examples/zqcall.c -I. -lzmq
    Run     ./zqcall -e tcp://127.0.0.1:5555 upper "hello, world"
    Prints  HELLO, WORLD

    The frames of the request are the arguments behind the service, or, if there are none, one frame
    with all of the standard input. The frames of the reply are printed as they are, each followed
    by a newline; partial replies as they come. Status 0: answered. 1: failed, with the reason on
    standard error. 2: the command line is wrong.

    Also try
            ./zqcall -e tcp://127.0.0.1:5555 mmi.services
            ./zqcall -e tcp://127.0.0.1:5555 mmi.stats
            ./zqcall -e tcp://127.0.0.1:5555 --mdp 0.1 upper < README.md
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: zqcall -e ENDPOINT [OPTION...] SERVICE [FRAME...]\n"
    "  -e, --endpoint ENDPOINT    of the broker; several are separated by commas\n"
    "      --mdp 0.1|0.2          speak Majordomo, not ZQB/1\n"
    "      --timeout MS           how long one try may take (2500); -1 for ever\n"
    "      --retries N            how often to try again after the first time (2)\n"
    "  -h, --help                 this\n"
    "Without a FRAME the request is the standard input.\n";

typedef struct settings_t {
    zqb_client_options_t client;
    const char *endpoint;
    const char *service;
    char **frames; /* NULL ends them */
} settings_t;

/* ---- the command line ---- */

static void usage_error (const char *what, const char *which)
{
    fprintf (stderr, "zqcall: %s%s\nTry: zqcall --help\n", what, which);
    exit (2);
}

static int number (const char *text, int least)
{
    char *end;
    long value = strtol (text, &end, 10);

    if (end == text || *end != '\0' || value < least || value > INT_MAX)
        usage_error ("not a number that makes sense here: ", text);
    return (int) value;
}

/* In options -1 is for ever, and 0 would be the default. */
static int timeout (const char *text)
{
    int value = number (text, -1);

    if (value == 0)
        usage_error ("the timeout cannot be ", text);
    return value;
}

/* In options -1 is never, and 0 would be the default. */
static int retries (const char *text)
{
    int value = number (text, 0);

    return value > 0 ? value : -1;
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
        case 'm': settings->client.dialect = dialect (optarg); break;
        case 't': settings->client.timeout_ms = timeout (optarg); break;
        case 'r': settings->client.retries = retries (optarg); break;
        case 'h': show_help (); break;
        default: usage_error ("bad option", ""); /* getopt_long said which */
    }
}

static void parse (settings_t *settings, int argc, char **argv)
{
    static const struct option options[] = {
        { "endpoint", required_argument, NULL, 'e' },
        { "mdp", required_argument, NULL, 'm' },
        { "timeout", required_argument, NULL, 't' },
        { "retries", required_argument, NULL, 'r' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 }
    };
    int option;

    /* The + ends the options with the service, so that a frame may begin with a minus. */
    while ((option = getopt_long (argc, argv, "+e:h", options, NULL)) != -1)
        set_option (settings, option);
    if (settings->endpoint == NULL)
        usage_error ("-e is missing", "");
    if (optind == argc)
        usage_error ("the service is missing", "");
    settings->service = argv[optind];
    settings->frames = argv + optind + 1;
}

/* ---- the call ---- */

static int failed (const char *what)
{
    fprintf (stderr, "zqcall: %s: %s\n", what, zqb_strerror (errno));
    return -1;
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

static int print (const zqb_msg_t *body)
{
    for (size_t i = 0; i < zqb_msg_count (body); i++) {
        fwrite (zqb_msg_data (body, i), 1, zqb_msg_size (body, i), stdout);
        putchar ('\n');
    }
    return fflush (stdout) == 0 && !ferror (stdout) ? 0 : failed ("standard output");
}

static int print_error (const settings_t *settings, const zqb_reply_t *reply)
{
    fprintf (stderr, "zqcall: %s: %s", settings->service, zqb_strerror (reply->error));
    if (zqb_msg_size (&reply->body, 0) > 0)
        fprintf (stderr, ": %.*s", (int) zqb_msg_size (&reply->body, 0),
                 (char *) zqb_msg_data (&reply->body, 0));
    fprintf (stderr, "\n");
    return -1;
}

/* Prints all parts of the reply. */
static int receive (const settings_t *settings, zqb_client_t *client)
{
    zqb_reply_t reply;
    int rc;

    zqb_msg_init (&reply.body);
    do {
        if (zqb_client_recv (client, &reply, -1) == -1)
            rc = failed ("receive");
        else if (reply.kind == ZQB_REPLY_ERROR)
            rc = print_error (settings, &reply);
        else
            rc = print (&reply.body);
    } while (rc == 0 && reply.kind == ZQB_REPLY_PARTIAL);
    zqb_msg_close (&reply.body);
    return rc;
}

static int call (const settings_t *settings, zqb_client_t *client)
{
    zqb_msg_t request;
    int rc;

    zqb_msg_init (&request);
    if (fill (&request, settings->frames) == -1)
        rc = failed ("standard input");
    else if (zqb_client_submit (client, settings->service, &request, NULL) == -1)
        rc = failed (settings->service);
    else
        rc = receive (settings, client);
    zqb_msg_close (&request);
    return rc;
}

int main (int argc, char **argv)
{
    settings_t settings = { 0 };
    zqb_client_t *client;
    void *ctx;
    int rc;

    parse (&settings, argc, argv);
    ctx = zmq_ctx_new ();
    client = zqb_client_new (ctx, settings.endpoint, &settings.client);
    rc = client != NULL ? call (&settings, client) : failed (settings.endpoint);

    zqb_client_destroy (&client);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
