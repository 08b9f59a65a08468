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

    With --scale it also starts the workers of a service: between MIN and MAX processes, as the load
    wants it. COMMAND is a line for the shell, and finds the name of the service in ZQB_SERVICE and
    where to connect in ZQB_ENDPOINT:

            ./zqbrokerd --bind tcp://127.0.0.1:5555 \
                        --scale echo 1 4 './zqecho -e "$ZQB_ENDPOINT" "$ZQB_SERVICE"'

    A worker that ends is started again; if it did not live for a second, after longer and longer
    pauses. One that is not needed any more gets SIGTERM, and ends what it has begun. At the end all
    get it, and SIGKILL if they have not ended in five seconds, or at the next SIGINT or SIGTERM.

    With --curve-secret whoever connects needs the public key that belongs to it (zqkeygen makes
    both); with --auth also a key, or with --plain a password, that is in the file. With neither
    --curve-secret nor --plain all get in whose address is not refused, whatever keys are in the
    file: a warning of that is on standard error, and of each tcp endpoint that other machines reach.
    With --rules those that are in may do what the rules say, and nothing else. What is in these files is
    in sections 10 and 11 of the manual. Of --curve-secret, --auth and --rules the last counts.

    SIGHUP has the files of --auth and --rules read again, and then "reloaded" is printed, or "not
    reloaded" and what is wrong, on standard error: that file holds as it was before, and the other
    one, if it is all right, as it is now.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
    "usage: zqbrokerd OPTION...\n"
    "  --bind ENDPOINT                    serve Majordomo and ZQB/1 clients and workers here\n"
    "  --clients ENDPOINT                 serve Majordomo and ZQB/1 clients, but no workers, here\n"
    "  --lru FRONTEND BACKEND SERVICE     serve REQ clients and LRU or PPP workers of a service\n"
    "  --heartbeat MS                     how often heartbeats are sent and expected (2500)\n"
    "  --liveness N                       a worker is lost after so many silent ones (3)\n"
    "  --time-limit SERVICE MS            its workers are lost if they finish nothing for so long\n"
    "  --scale SERVICE MIN MAX COMMAND    start its workers: processes, as many as its load wants\n"
    "  --max-requests N                   so many may be queued and running (1000000)\n"
    "  --wait                             when full, leave --clients and FRONTENDs unread\n"
    "  --curve-secret FILE                CURVE, with the secret key in this file of zqkeygen's\n"
    "  --plain                            PLAIN: users and passwords, not encrypted\n"
    "  --auth FILE                        only addresses, keys and users in this file get in\n"
    "  --allow CIDR                       only these addresses get in, or \"ipc\"\n"
    "  --rules FILE                       who may call and serve what; all else is denied\n"
    "  -v, --verbose                      log to standard error\n"
    "  -h, --help                         this\n"
    "At least one --bind or --lru is needed. All that name something may be given several times.\n"
    "SIGHUP: the files of --auth and --rules are read again, and hold for who is there, too.\n";

typedef enum { BIND, BIND_CLIENTS, BIND_LRU, TIME_LIMIT, SCALE, ALLOW } what_t;

enum { PATH_SIZE = 4096 };

/* Something to be set up: an option with its values. */
typedef struct setup_t {
    what_t what;
    char **values;
} setup_t;

typedef struct settings_t {
    zqb_broker_options_t options;
    setup_t *setups;
    size_t count;
    char secret[PATH_SIZE]; /* what server_secret points to */
    const char *auth_file, *rules_file; /* or NULL */
    int has_workers;                    /* somewhere they may register */
    int has_crews;
    int has_addresses; /* that are allowed */
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
    settings->has_crews |= what == SCALE;
    settings->has_addresses |= what == ALLOW;
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
                { "--time-limit", TIME_LIMIT, 2 },
                { "--scale", SCALE, 4 },
                { "--allow", ALLOW, 1 } };
    char **values;

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if ((values = take (arguments, all[i].name, all[i].values)) != NULL) {
            add_setup (settings, all[i].what, values);
            return 1;
        }
    return 0;
}

static void set_secret (settings_t *settings, const char *path)
{
    size_t room = sizeof settings->secret;

    if ((size_t) snprintf (settings->secret, room, "file:%s", path) >= room)
        usage_error ("too long", path);
    settings->options.server_secret = settings->secret;
}

/* Options of who may connect. 0: it is none of them. */
static int parse_security (settings_t *settings, char ***arguments)
{
    char **values;

    if ((values = take (arguments, "--curve-secret", 1)) != NULL)
        set_secret (settings, values[0]);
    else if (take (arguments, "--plain", 0))
        settings->options.plain = 1;
    else if ((values = take (arguments, "--auth", 1)) != NULL)
        settings->auth_file = values[0];
    else if ((values = take (arguments, "--rules", 1)) != NULL)
        settings->rules_file = values[0];
    else
        return 0;
    return 1;
}

static void parse (settings_t *settings, char **arguments)
{
    char **values;

    while (*arguments != NULL) {
        if (parse_setup (settings, &arguments) || parse_security (settings, &arguments))
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
    if (settings->options.plain && settings->options.server_secret != NULL)
        usage_error ("not both", "--curve-secret and --plain");
}

/* Whether somebody is asked who may connect. */
static int asks (const settings_t *settings)
{
    return settings->auth_file != NULL || settings->has_addresses;
}

/* Whether there is something to be read again. */
static int may_reload (const settings_t *settings)
{
    return settings->auth_file != NULL || settings->rules_file != NULL;
}

/* What follows from all of the options together. */
static void conclude (settings_t *settings)
{
    if (settings->rules_file != NULL && settings->options.log == NULL) {
        settings->options.log = print_log; /* says which line is wrong */
        settings->options.log_level = ZQB_LOG_ERROR;
    }
}

/* ---- the broker ---- */

static zqb_broker_t *broker; /* for the signal handler */
static zqb_auth_t *auth;     /* NULL: nobody is asked */

static void stop (int signal_number)
{
    (void) signal_number;
    zqb_broker_stop (broker);
}

static void act_on (int signal_number, void (*handler) (int signal_number))
{
    struct sigaction action;

    memset (&action, 0, sizeof action);
    action.sa_handler = handler;
    sigaction (signal_number, &action, NULL);
}

static int failed (const char *what)
{
    fprintf (stderr, "zqbrokerd: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

/* ---- who gets in, and may do what ---- */

static void allow (const char *cidr)
{
    if (zqb_auth_allow (auth, cidr) == -1)
        usage_error (zqb_strerror (errno), cidr);
}

/* Before the broker binds anything, so that nobody comes in before. */
static int start_auth (void *ctx, const settings_t *settings)
{
    zqb_auth_options_t options = { 0 };
    int is_verbose = settings->options.log != NULL && settings->options.log_level == 0;

    if (!asks (settings))
        return 0;
    options.file = settings->auth_file;
    options.log = print_log;
    options.log_level = is_verbose ? ZQB_LOG_INFO : ZQB_LOG_ERROR;
    auth = zqb_auth_start (ctx, &options);
    if (auth == NULL)
        return failed (settings->auth_file != NULL ? settings->auth_file : "--allow");
    for (size_t i = 0; i < settings->count; i++)
        if (settings->setups[i].what == ALLOW)
            allow (settings->setups[i].values[0]);
    return 0;
}

static int read_rules (const settings_t *settings)
{
    if (settings->rules_file == NULL || zqb_broker_rules (broker, settings->rules_file) == 0)
        return 0;
    return failed (settings->rules_file);
}

/* Each of the files that is all right holds from now on; of one that is not, what it said before. */
static void reload (const settings_t *settings)
{
    int rc = 0;

    if (settings->auth_file != NULL && zqb_auth_reload (auth) == -1)
        rc = failed (settings->auth_file);
    if (read_rules (settings) == -1)
        rc = -1;
    if (rc == -1) {
        fprintf (stderr, "zqbrokerd: not reloaded\n");
        return;
    }
    printf ("reloaded\n");
    fflush (stdout);
}

/* ---- crews: processes that are the workers of a service ----

   The main thread starts them and waits for their ends, while the broker has a thread of its own.
   What the broker says and what signals say comes to the main thread through a pipe. */

enum { AT_ONCE_MS = 1000, PAUSE_MS = 250, PAUSE_MOST_MS = 30000, PATIENCE_MS = 5000 };

typedef struct process_t {
    pid_t pid;
    int64_t began;
    int leaving; /* it was told to end */
    struct process_t *next;
} process_t;

typedef struct crew_t {
    char **values; /* of --scale: SERVICE MIN MAX COMMAND */
    int wanted;
    process_t *processes; /* the youngest first */
    int64_t start_at;     /* not before, after one has died at once */
    int pause_ms;
    struct crew_t *next;
} crew_t;

/* What comes through the pipe: of a crew, how many are wanted; else which signal. */
typedef struct note_t {
    crew_t *crew;
    int number;
} note_t;

static crew_t *crews;
static int notes[2] = { -1, -1 };
static int has_hung_up; /* SIGHUP came: the files have to be read again */
extern char **environ;

static int64_t now_ms (void)
{
    struct timespec now;

    clock_gettime (CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void send_note (crew_t *crew, int number)
{
    note_t note;
    int error = errno;

    note.crew = crew;
    note.number = number;
    while (write (notes[1], &note, sizeof note) == -1 && errno == EINTR)
        ;
    errno = error;
}

static void note_signal (int signal_number)
{
    send_note (NULL, signal_number);
}

/* In the broker's thread. */
static void note_scale (const zqb_scale_t *scale, void *arg)
{
    send_note ((crew_t *) arg, scale->wanted);
}

static int open_notes (void)
{
    if (notes[0] != -1)
        return 0;
    if (pipe (notes) == -1)
        return -1;
    for (int i = 0; i < 2; i++) {
        fcntl (notes[i], F_SETFD, FD_CLOEXEC);
        fcntl (notes[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static int add_crew (char **values)
{
    zqb_scale_options_t options = { 0 };
    crew_t *crew;

    options.min = number (values[1]);
    options.max = number (values[2]);
    if (options.max < options.min)
        usage_error ("less than the number before it", values[2]);
    crew = (crew_t *) calloc (1, sizeof *crew);
    if (crew == NULL || open_notes () == -1) {
        free (crew);
        return -1;
    }
    crew->values = values;
    crew->next = crews;
    crews = crew;
    return zqb_broker_scale (broker, values[0], &options, note_scale, crew);
}

/* A process of its own group, in which signals do what they do in any program. */
static int spawn (char **arguments, pid_t *pid)
{
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    int error;

    sigemptyset (&none);
    sigemptyset (&usual);
    sigaddset (&usual, SIGINT);
    sigaddset (&usual, SIGTERM);
    sigaddset (&usual, SIGCHLD);
    posix_spawnattr_init (&attributes);
    posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK
                                               | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask (&attributes, &none);
    posix_spawnattr_setsigdefault (&attributes, &usual);
    error = posix_spawn (pid, "/bin/sh", NULL, &attributes, arguments, environ);
    posix_spawnattr_destroy (&attributes);
    errno = error;
    return error == 0 ? 0 : -1;
}

/* The next is started after a pause, which doubles if they die again and again. */
static void hold (crew_t *crew)
{
    int64_t now = now_ms ();
    int again = now - crew->start_at < PAUSE_MOST_MS;

    if (now < crew->start_at)
        return; /* several at a time */
    crew->pause_ms = again && crew->pause_ms > 0 ? 2 * crew->pause_ms : (int) PAUSE_MS;
    if (crew->pause_ms > PAUSE_MOST_MS)
        crew->pause_ms = PAUSE_MOST_MS;
    crew->start_at = now + crew->pause_ms;
    fprintf (stderr, "zqbrokerd: the next worker of '%s' in %d ms\n", crew->values[0],
             crew->pause_ms);
}

static int start_process (crew_t *crew, const char *endpoint)
{
    static const char front[] = "export ZQB_SERVICE=\"$1\" ZQB_ENDPOINT=\"$2\"; exec ";
    const char *command = crew->values[3];
    process_t *process = (process_t *) calloc (1, sizeof *process);
    char *line = (char *) malloc (sizeof front + strlen (command));
    char *arguments[] = { (char *) "sh",    (char *) "-c", line, (char *) "sh",
                          crew->values[0], (char *) endpoint, NULL };
    int rc = -1;

    if (process != NULL && line != NULL) {
        memcpy (line, front, sizeof front - 1);
        memcpy (line + sizeof front - 1, command, strlen (command) + 1);
        rc = spawn (arguments, &process->pid);
    }
    free (line);
    if (rc == -1) {
        failed (command);
        free (process);
        return -1;
    }
    process->began = now_ms ();
    process->next = crew->processes;
    crew->processes = process;
    return 0;
}

/* Tells a process to end, and what it has started; with 0 not. */
static void tell (process_t *process, int signal_number)
{
    if (signal_number == 0)
        return;
    process->leaving = 1;
    kill (-process->pid, signal_number);
}

/* Starts those that are missing, and lets those go that are too many. */
static void fit (crew_t *crew, const char *endpoint)
{
    int missing = crew->wanted;

    for (const process_t *at = crew->processes; at != NULL; at = at->next)
        missing -= !at->leaving;
    for (; missing > 0 && now_ms () >= crew->start_at; missing--)
        if (start_process (crew, endpoint) == -1)
            hold (crew);
    for (process_t *at = crew->processes; at != NULL && missing < 0; at = at->next)
        if (!at->leaving) {
            tell (at, SIGTERM);
            missing++;
        }
}

/* A process has ended. */
static void bury (crew_t *crew, process_t **at, int status)
{
    process_t *process = *at;

    *at = process->next;
    if (!process->leaving && now_ms () - process->began < AT_ONCE_MS) {
        fprintf (stderr, "zqbrokerd: a worker of '%s' ended at once, with %s %d\n", crew->values[0],
                 WIFSIGNALED (status) ? "signal" : "status",
                 WIFSIGNALED (status) ? WTERMSIG (status) : WEXITSTATUS (status));
        hold (crew);
    }
    free (process);
}

static void reap (crew_t *crew)
{
    int status;

    for (process_t **at = &crew->processes; *at != NULL;)
        if (waitpid ((*at)->pid, &status, WNOHANG) == (*at)->pid)
            bury (crew, at, status);
        else
            at = &(*at)->next;
}

/* Waits until a note comes, or for so long (-1: for ever), and takes all that there are. How many
   signals that want an end were among them. */
static int read_notes (int timeout_ms)
{
    struct pollfd item;
    note_t note;
    int ends = 0;

    item.fd = notes[0];
    item.events = POLLIN;
    poll (&item, 1, timeout_ms);
    while (read (notes[0], &note, sizeof note) == (ssize_t) sizeof note)
        if (note.crew != NULL)
            note.crew->wanted = note.number;
        else if (note.number == SIGHUP)
            has_hung_up = 1;
        else
            ends += note.number != SIGCHLD;
    return ends;
}

/* How long nothing has to be done, whatever does not come: -1 for ever. */
static int patience_ms (void)
{
    int64_t now = now_ms (), first = INT64_MAX;

    for (const crew_t *crew = crews; crew != NULL; crew = crew->next)
        if (crew->start_at > now && crew->start_at < first)
            first = crew->start_at;
    return first == INT64_MAX ? -1 : (int) (first - now);
}

/* Tells all of them to end; with 0 none. How many there are still. */
static int end_all (int signal_number)
{
    int count = 0;

    for (crew_t *crew = crews; crew != NULL; crew = crew->next) {
        reap (crew);
        for (process_t *at = crew->processes; at != NULL; at = at->next, count++)
            tell (at, signal_number);
    }
    return count;
}

/* They end what they have begun, while the broker still takes their answers. */
static void end_crews (void)
{
    int64_t end = now_ms () + PATIENCE_MS;
    int left = end_all (SIGTERM);

    while (left > 0 && now_ms () < end && read_notes ((int) (end - now_ms ())) == 0)
        left = end_all (0);
    for (left = end_all (SIGKILL); left > 0; left = end_all (0))
        read_notes (10);
}

/* Until a signal, while the broker runs in its thread. */
static int supervise (const settings_t *settings, const char *endpoint)
{
    act_on (SIGCHLD, note_signal);
    if (zqb_broker_start (broker) == -1)
        return failed ("start");
    while (read_notes (patience_ms ()) == 0) {
        if (has_hung_up)
            reload (settings);
        has_hung_up = 0;
        for (crew_t *crew = crews; crew != NULL; crew = crew->next) {
            reap (crew);
            fit (crew, endpoint);
        }
    }
    end_crews ();
    return 0;
}

static void free_crews (void)
{
    while (crews != NULL) {
        crew_t *crew = crews;

        crews = crew->next;
        free (crew);
    }
    close (notes[0]);
    close (notes[1]);
}

/* ---- setting it up ---- */

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
        case SCALE:
            return add_crew (values);
        case ALLOW:
            return 0; /* see start_auth */
        default:
            return zqb_broker_time_limit (broker, values[0], number (values[1]));
    }
}

static int failed_to_set_up (const setup_t *setup)
{
    const char *reason = zqb_strerror (errno);
    char **values = setup->values;
    int named = setup->what == TIME_LIMIT || setup->what == SCALE;

    fprintf (stderr, "zqbrokerd: ");
    if (setup->what == BIND_LRU)
        fprintf (stderr, "%s, %s, service %s", values[0], values[1], values[2]);
    else
        fprintf (stderr, "%s%s", named ? "service " : "", values[0]);
    fprintf (stderr, ": %s\n", reason);
    return -1;
}

/* Whether only this machine reaches an endpoint, which is as libzmq spells it. */
static int is_local (const char *endpoint)
{
    const char *host = endpoint + strlen ("tcp://");

    return strncmp (endpoint, "tcp:", 4) != 0 || strncmp (host, "127.", 4) == 0
           || strncmp (host, "[::1]:", 6) == 0;
}

/* Whether who connects has to prove who it is. */
static int is_secure (const settings_t *settings)
{
    return settings->options.server_secret != NULL || settings->options.plain;
}

static void say_bound (const settings_t *settings, const char *endpoint)
{
    printf ("bound %s\n", endpoint);
    if (!is_secure (settings) && !is_local (endpoint))
        fprintf (stderr, "zqbrokerd: warning: whoever reaches %s%s may use it, and others read "
                 "what is said: see --curve-secret\n", endpoint,
                 asks (settings) ? " from an address that is allowed" : "");
}

/* Keys and users without a mechanism that asks for them. */
static void warn_of_lists (const settings_t *settings)
{
    if (settings->auth_file != NULL && !is_secure (settings))
        fprintf (stderr, "zqbrokerd: warning: without --curve-secret or --plain nobody is asked for "
                 "a key or password: of %s only the addresses count\n", settings->auth_file);
}

static int set_up_all (const settings_t *settings)
{
    char endpoint[256];

    warn_of_lists (settings);
    for (size_t i = 0; i < settings->count; i++)
        if (set_up_one (&settings->setups[i]) == -1)
            return failed_to_set_up (&settings->setups[i]);
    for (int i = 0; zqb_broker_endpoint (broker, i, endpoint, sizeof endpoint) == 0; i++)
        say_bound (settings, endpoint);
    return 0;
}

/* Where workers that we start connect: the first --bind, or else the first BACKEND. */
static void find_endpoint (const settings_t *settings, char *endpoint, size_t size)
{
    int index = 0, found = -1, backend = -1;

    for (size_t i = 0; i < settings->count && found == -1; i++) {
        what_t what = settings->setups[i].what;

        if (what == BIND)
            found = index;
        if (what == BIND_LRU && backend == -1)
            backend = index + 1;
        index += what == BIND_LRU ? 2 : what == BIND || what == BIND_CLIENTS ? 1 : 0;
    }
    zqb_broker_endpoint (broker, found != -1 ? found : backend, endpoint, size);
}

/* Until a signal: 0; or -1. */
static int serve (const settings_t *settings)
{
    int is_supervised = settings->has_crews || may_reload (settings);
    void (*handler) (int signal_number) = is_supervised ? note_signal : stop;
    char endpoint[256] = "";

    if (is_supervised && open_notes () == -1)
        return failed ("start");
    if (read_rules (settings) == -1 || set_up_all (settings) == -1)
        return -1;
    if (may_reload (settings))
        act_on (SIGHUP, note_signal);
    act_on (SIGINT, handler);
    act_on (SIGTERM, handler);
    printf ("ready\n");
    fflush (stdout);
    if (is_supervised) {
        find_endpoint (settings, endpoint, sizeof endpoint);
        return supervise (settings, endpoint);
    }
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
    conclude (&settings);

    ctx = zmq_ctx_new ();
    rc = start_auth (ctx, &settings);
    settings.options.auth = auth;
    if (rc == 0) {
        broker = zqb_broker_new (ctx, &settings.options);
        if (broker != NULL)
            rc = serve (&settings);
        else
            rc = failed (settings.secret[0] != '\0' ? settings.secret : "start");
    }

    zqb_broker_destroy (&broker);
    zqb_auth_stop (&auth); /* the last, as without it libzmq would let others in */
    zmq_ctx_term (ctx);
    if (notes[0] != -1)
        free_crews ();
    free (settings.setups);
    return rc == 0 ? 0 : 1;
}
