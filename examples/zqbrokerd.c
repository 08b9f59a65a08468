/*  zqbrokerd.c - the broker as a program

    Build   cc -o zqbrokerd examples/zqbrokerd.c -I. -lzmq
    Run     ./zqbrokerd --bind tcp://127.0.0.1:5555 --lru ipc:///tmp/front ipc:///tmp/back upper
    Prints  bound tcp://127.0.0.1:5555
            bound ipc:///tmp/front
            bound ipc:///tmp/back
            ready

    A port may be *, for one that is free: the line says which. It serves until SIGINT or SIGTERM,
    and then ends with status 0. Status 1: it could not bind, or had to end. Status 2: the command
    line is wrong. --help lists the options.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
    "usage: zqbrokerd OPTION...\n"
    "  --bind ENDPOINT                    serve Majordomo and ZQB/1 clients and workers here\n"
    "  --clients ENDPOINT                 serve Majordomo and ZQB/1 clients, but no workers, here\n"
    "  --lru FRONTEND BACKEND SERVICE     serve REQ clients and LRU or PPP workers of a service\n"
    "  --heartbeat MS                     how often heartbeats are sent and expected (2500)\n"
    "  --liveness N                       a worker is lost after so many silent ones (3)\n"
    "  --time-limit SERVICE MS            its workers are lost if they finish nothing for so long\n"
    "  --max-requests N                   so many may be queued and running (1000000)\n"
    "  --wait                             when full, leave --clients and FRONTENDs unread\n"
    "  -v, --verbose                      log to standard error\n"
    "  -h, --help                         this\n"
    "At least one --bind or --lru is needed. All that name something may be given several times.\n";

typedef enum { BIND, BIND_CLIENTS, BIND_LRU, TIME_LIMIT } what_t;

/* Something to be set up: an option with its values. */
typedef struct setup_t {
    what_t what;
    char **values;
} setup_t;

typedef struct settings_t {
    zqb_broker_options_t options;
    setup_t *setups;
    size_t count;
    int has_workers; /* somewhere they may register */
} settings_t;

/* ---- the command line ---- */

static void usage_error (const char *what, const char *which)
{
    fprintf (stderr, "zqbrokerd: %s: %s\nTry: zqbrokerd --help\n", what, which);
    exit (2);
}

/* If this argument is that option, moves on behind it and its values, and returns the values; else
   NULL. */
static char **take (char ***arguments, const char *name, int values)
{
    char **first = *arguments + 1;

    if (strcmp (**arguments, name) != 0)
        return NULL;
    for (int i = 0; i < values; i++)
        if (first[i] == NULL)
            usage_error ("option needs more values", name);
    *arguments = first + values;
    return first;
}

static int number (const char *text)
{
    char *end;
    long value = strtol (text, &end, 10);

    if (end == text || *end != '\0' || value < 1 || value > INT_MAX)
        usage_error ("not a positive number", text);
    return (int) value;
}

static void add_setup (settings_t *settings, what_t what, char **values)
{
    setup_t *setup = &settings->setups[settings->count++];

    setup->what = what;
    setup->values = values;
    settings->has_workers |= what == BIND || what == BIND_LRU;
}

static void print_log (int level, const char *text, void *arg)
{
    static const char *const names[] = { "", "error", "warning", "info", "debug" };
    char stamp[32];
    struct timespec now;
    struct tm utc;

    (void) arg;
    clock_gettime (CLOCK_REALTIME, &now);
    gmtime_r (&now.tv_sec, &utc);
    strftime (stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    fprintf (stderr, "%s.%03ldZ %s: %s\n", stamp, now.tv_nsec / 1000000, names[level], text);
}

static void show_help (void)
{
    fputs (help, stdout);
    exit (0);
}

/* Options that name something to be set up. 0: it is none of them. */
static int parse_setup (settings_t *settings, char ***arguments)
{
    static const struct {
        const char *name;
        what_t what;
        int values;
    } all[] = { { "--bind", BIND, 1 },
                { "--clients", BIND_CLIENTS, 1 },
                { "--lru", BIND_LRU, 3 },
                { "--time-limit", TIME_LIMIT, 2 } };
    char **values;

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if ((values = take (arguments, all[i].name, all[i].values)) != NULL) {
            add_setup (settings, all[i].what, values);
            return 1;
        }
    return 0;
}

static void parse (settings_t *settings, char **arguments)
{
    char **values;

    while (*arguments != NULL) {
        if (parse_setup (settings, &arguments))
            continue;
        if ((values = take (&arguments, "--heartbeat", 1)) != NULL)
            settings->options.heartbeat_ms = number (values[0]);
        else if ((values = take (&arguments, "--liveness", 1)) != NULL)
            settings->options.liveness = number (values[0]);
        else if ((values = take (&arguments, "--max-requests", 1)) != NULL)
            settings->options.max_requests = number (values[0]);
        else if (take (&arguments, "--wait", 0))
            settings->options.when_full = ZQB_FULL_WAIT;
        else if (take (&arguments, "-v", 0) || take (&arguments, "--verbose", 0))
            settings->options.log = print_log;
        else if (take (&arguments, "-h", 0) || take (&arguments, "--help", 0))
            show_help ();
        else
            usage_error ("unknown option", *arguments);
    }
    if (!settings->has_workers)
        usage_error ("nothing to bind", "give --bind or --lru");
}

/* ---- the broker ---- */

static zqb_broker_t *broker; /* for the signal handler */

static void stop (int signal_number)
{
    (void) signal_number;
    zqb_broker_stop (broker);
}

static void stop_on (int signal_number)
{
    struct sigaction action;

    memset (&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction (signal_number, &action, NULL);
}

static int failed (const char *what)
{
    fprintf (stderr, "zqbrokerd: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

static int set_up_one (const setup_t *setup)
{
    char **values = setup->values;

    switch (setup->what) {
        case BIND:
            return zqb_broker_bind (broker, values[0]);
        case BIND_CLIENTS:
            return zqb_broker_bind_clients (broker, values[0]);
        case BIND_LRU:
            return zqb_broker_bind_lru (broker, values[0], values[1], values[2]);
        default:
            return zqb_broker_time_limit (broker, values[0], number (values[1]));
    }
}

static int failed_to_set_up (const setup_t *setup)
{
    const char *reason = zqb_strerror (errno);
    char **values = setup->values;

    fprintf (stderr, "zqbrokerd: ");
    if (setup->what == BIND_LRU)
        fprintf (stderr, "%s, %s, service %s", values[0], values[1], values[2]);
    else
        fprintf (stderr, "%s%s", setup->what == TIME_LIMIT ? "service " : "", values[0]);
    fprintf (stderr, ": %s\n", reason);
    return -1;
}

static int set_up_all (const settings_t *settings)
{
    char endpoint[256];

    for (size_t i = 0; i < settings->count; i++)
        if (set_up_one (&settings->setups[i]) == -1)
            return failed_to_set_up (&settings->setups[i]);
    for (int i = 0; zqb_broker_endpoint (broker, i, endpoint, sizeof endpoint) == 0; i++)
        printf ("bound %s\n", endpoint);
    return 0;
}

/* Until a signal: 0; or -1. */
static int serve (const settings_t *settings)
{
    if (set_up_all (settings) == -1)
        return -1;
    stop_on (SIGINT);
    stop_on (SIGTERM);
    printf ("ready\n");
    fflush (stdout);
    return zqb_broker_run (broker) == 0 ? 0 : failed ("run");
}

int main (int argc, char **argv)
{
    settings_t settings = { 0 };
    void *ctx;
    int rc;

    settings.setups = (setup_t *) calloc ((size_t) argc, sizeof *settings.setups);
    if (settings.setups == NULL) {
        failed ("start");
        return 1;
    }
    parse (&settings, argv + 1);

    ctx = zmq_ctx_new ();
    broker = zqb_broker_new (ctx, &settings.options);
    rc = broker != NULL ? serve (&settings) : failed ("start");

    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    free (settings.setups);
    return rc == 0 ? 0 : 1;
}
