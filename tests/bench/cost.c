/*  cost.c - requests to count the instructions of, under callgrind; see cost.py

        cost engine ROUNDS WORKERS QUEUED SERVICES CLIENTS [OPTION [RULES]]
                                                       the engine alone: no socket, no clock; its requests ask for that
                                                       ("-": nothing), and there are so many rules
        cost denied ROUNDS RULES                       the engine alone, with so many rules and members of a group; none
                                                       allows what is asked for: to call, and to serve patterns
        cost path ROUNDS                               client, broker and worker over inproc, in one thread

    A round is 100 requests of 10 bytes and their replies, or 50 requests and 50 registrations that are denied. The
    clock that zqbroker.h sees moves by itself, always alike, so that a slow machine sends no other messages than a fast
    one. */

#define _GNU_SOURCE
#include <time.h>

static int steady_clock (struct timespec *now)
{
    static long nanoseconds;
    nanoseconds += 10;
    now->tv_sec = 1000;
    now->tv_nsec = nanoseconds;
    return 0;
}

#define clock_gettime(id, now) steady_clock (now)
#define ZQBROKER_IMPLEMENTATION
#include "../../zqbroker.h"

enum { WINDOW = 100 };

static void must (int condition)
{
    if (condition)
        return;
    fprintf (stderr, "this should not have happened: %s\n", zqb_strerror (errno));
    exit (1);
}

/* ---- the engine alone */

static uint64_t tokens[WINDOW];
static int token_count, replies;

static int keep_token (void *self, zqb__peer_t *peer, int side, const zqb__command_t *command)
{
    (void) self, (void) peer;
    if (side == ZQB__WORKER && command->type == ZQB__REQUEST)
        tokens[token_count++] = command->id;
    replies += command->type == ZQB__REPLY;
    return 0;
}

static void bury_nothing (void *self, const zqb__command_t *request)
{
    (void) self, (void) request;
    abort ();
}

static void serve_nothing (void *self, const zqb__service_t *service, const zqb__command_t *request,
                           zqb__command_t *reply)
{
    (void) self, (void) service, (void) request, (void) reply;
}

static void log_nothing (void *self, int level, const char *format, va_list args)
{
    (void) self, (void) level, (void) format, (void) args;
}

static zqb__engine_t engine;

static void start_engine (void)
{
    zqb_broker_options_t options;
    zqb__sink_t sink;
    memset (&sink, 0, sizeof sink);
    sink.send = keep_token;
    sink.serve = serve_nothing;
    sink.dead = bury_nothing;
    sink.log = log_nothing;
    memset (&options, 0, sizeof options);
    options.max_services = options.max_workers = options.max_requests = options.max_queue = options.max_outstanding = -1;
    options = zqb__broker_options (&options);
    zqb__limits_t limits = zqb__broker_limits (&options);
    must (zqb__engine_init (&engine, &limits, &sink, 1, 1) == 0);
}

/* One message of a ZQB/1 peer, with so many of these commands. */
static void say (uint32_t number, zqb__command_t *commands, int count)
{
    unsigned char address[8] = {0, 0, 0, 4, 0, 0, 0, 0};
    memcpy (address + 4, &number, sizeof number);
    zqb__peer_t *peer = zqb__engine_peer (&engine, 0, address, sizeof address, number);
    must (peer != NULL);
    peer->dialect[ZQB__CLIENT] = peer->dialect[ZQB__WORKER] = ZQB__ZQB1;
    for (int i = 0; i < count; i++)
        must (zqb__engine_receive (&engine, peer, &commands[i]) == 0);
    zqb__engine_release (&engine, peer);
}

static zqb__command_t command_for (int type, uint64_t id, const char *service)
{
    static unsigned char block[] = "\0\0\0\012" "0123456789";
    zqb__command_t command = zqb__command (type, id);
    command.service = (const unsigned char *) service;
    command.service_size = strlen (service);
    command.credit = 2 * WINDOW;
    if (type == ZQB__READY)
        return command;
    command.body.block = block;
    command.body.size = 14;
    command.body.frames = 1;
    return command;
}

static void fill_engine (int workers, int queued, int services, int clients)
{
    char name[32];
    for (int i = 0; i < workers; i++) {
        zqb__command_t ready = command_for (ZQB__READY, 0, "echo");
        say (1000 + (uint32_t) i, &ready, 1);
    }
    for (int i = 0; i < queued; i++) {
        zqb__command_t request = command_for (ZQB__REQUEST, (uint64_t) i + 1, "parked");
        say (1, &request, 1);
    }
    for (int i = 0; i < services; i++) {
        snprintf (name, sizeof name, "service-%d", i);
        zqb__command_t request = command_for (ZQB__REQUEST, (uint64_t) i + 1, name);
        say (2, &request, 1);
    }
    for (int i = 0; i < clients; i++) {
        zqb__command_t request = command_for (ZQB__REQUEST, 1, "crowded");
        say (100000 + (uint32_t) i, &request, 1);
    }
}

/* Replies go back from whoever holds the request: with many workers, from each one. */
static void reply_to_all (void)
{
    for (int i = 0; i < token_count; i++) {
        zqb__command_t reply = command_for (ZQB__REPLY, tokens[i], "echo");
        zqb__request_t *request = (zqb__request_t *) zqb__slab_find (&engine.requests, tokens[i]);
        uint32_t number;
        memcpy (&number, request->worker->peer->address + 4, sizeof number);
        say (number, &reply, 1);
    }
    token_count = 0;
}

/* What the requests of a round ask for. */
static void wish (zqb__command_t *requests, const char *option)
{
    static zqb__rare_t rare;
    static char keys[WINDOW][8];
    static zqb__rare_t with_keys[WINDOW];
    memset (&rare, 0, sizeof rare);
    rare.priority = strcmp (option, "priority") == 0;
    rare.deadline_ms = strcmp (option, "deadline") == 0 ? 1000 : 0;
    rare.attempts = strcmp (option, "attempts") == 0;
    for (int i = 0; i < WINDOW; i++) {
        with_keys[i] = rare;
        snprintf (keys[i], sizeof keys[i], "key %d", i);
        if (strcmp (option, "unique") == 0) {
            with_keys[i].unique = (const unsigned char *) keys[i];
            with_keys[i].unique_size = strlen (keys[i]);
        } else if (strcmp (option, "affinity") == 0) {
            with_keys[i].affinity = (const unsigned char *) keys[i];
            with_keys[i].affinity_size = strlen (keys[i]);
        }
        requests[i].rare = &with_keys[i];
    }
}

static void drive_engine (int rounds, const char *option)
{
    static zqb__command_t requests[WINDOW];
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < WINDOW; i++)
            requests[i] = command_for (ZQB__REQUEST, (uint64_t) i + 1, "echo");
        if (option)
            wish (requests, option);
        engine.now += 10;
        say (3, requests, WINDOW);
        must (token_count == WINDOW);
        reply_to_all ();
    }
    must (replies == rounds * WINDOW);
}

static void add_rule (zqb__rules_t *rules, const char *format, int number)
{
    char line[64];
    int at, size = snprintf (line, sizeof line, format, number);
    must (zqb__rules_read (rules, line, (size_t) size, &at) == NULL);
}

/* So many rules, of which the last is about our client and our worker. */
static void add_rules (int count)
{
    zqb__rules_t *rules = zqb__rules_new ();
    must (rules != NULL);
    for (int i = 1; i <= count; i++)
        add_rule (rules, i < count ? "deny user-%d call,serve echo" : "allow - call,serve *", i);
    zqb__engine_rules (&engine, rules);
}

/* ---- what is denied */

/* So many rules for others and other services, and one of a group that is about what is asked for. Hashes are always
   alike. */
static void add_rules_for_others (int count)
{
    static const char *const kinds[] = {"allow user-%d call,serve *", "allow - call,serve service-%d",
                                        "deny @team call,serve service-%d*"};
    zqb__rules_t *rules = zqb__rules_new ();
    must (rules != NULL);
    rules->hash.k0 = rules->hash.k1 = 1;
    for (int i = 0; i < count; i++) {
        add_rule (rules, "group team user-%d", i);
        add_rule (rules, kinds[i % 3], i);
    }
    add_rule (rules, "allow @team call,serve none-*", 0);
    zqb__engine_rules (&engine, rules);
}

static void drive_denied (int rounds)
{
    static zqb__command_t requests[WINDOW / 2], registrations[WINDOW / 2];
    static char names[WINDOW][16];
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < WINDOW / 2; i++) {
            snprintf (names[2 * i], sizeof names[0], "none-%d", 1000 + i);
            snprintf (names[2 * i + 1], sizeof names[0], "none-%d*", 1000 + i);
            requests[i] = command_for (ZQB__REQUEST, (uint64_t) i + 1, names[2 * i]);
            registrations[i] = command_for (ZQB__READY, 0, names[2 * i + 1]);
        }
        engine.now += 10;
        say (3, requests, WINDOW / 2);
        say (4, registrations, WINDOW / 2);
    }
    must (engine.stats.denied_call == (uint64_t) rounds * WINDOW / 2);
    must (engine.stats.denied_serve == (uint64_t) rounds * WINDOW / 2);
}

/* ---- the whole path */

static void submit_window (zqb_client_t *client)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    for (int i = 0; i < WINDOW; i++)
        must (zqb_msg_add (&msg, "0123456789", 10) == 0 && zqb_client_submit (client, "echo", &msg, NULL) == 0);
    must (zqb_client_flush (client) == 0);
}

static void reply_to_what_came (zqb_worker_t *worker)
{
    zqb_request_t *request;
    zqb_msg_t reply;
    zqb_msg_init (&reply);
    while ((request = zqb_worker_recv (worker, 0)) != NULL)
        must (zqb_msg_move (&reply, zqb_request_body (request)) == 0 && zqb_request_reply (request, &reply) == 0);
}

static void drive_path (int rounds)
{
    void *ctx = zmq_ctx_new ();
    zqb_worker_options_t options;
    zqb_reply_t reply;
    memset (&options, 0, sizeof options);
    memset (&reply, 0, sizeof reply);
    options.credit = 2 * WINDOW;
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    must (broker && zqb_broker_bind (broker, "inproc://cost") == 0);
    zqb_worker_t *worker = zqb_worker_new (ctx, "inproc://cost", "echo", &options);
    zqb_client_t *client = zqb_client_new (ctx, "inproc://cost", NULL);
    must (worker && client);
    for (int round = 0; round < rounds; round++) {
        submit_window (client);
        for (int left = WINDOW; left > 0;) {
            must (zqb_broker_step (broker, 0) >= 0);
            reply_to_what_came (worker);
            while (zqb_client_recv (client, &reply, 0) == 0)
                left--;
        }
    }
}

int main (int argc, char **argv)
{
    int numbers[5] = {0, 1, 0, 0, 0};
    for (int i = 2; i < argc && i < 7; i++)
        numbers[i - 2] = atoi (argv[i]);
    must (argc > 2);
    if (strcmp (argv[1], "path") == 0)
        drive_path (numbers[0]);
    else if (strcmp (argv[1], "denied") == 0) {
        start_engine ();
        add_rules_for_others (numbers[1]);
        drive_denied (numbers[0]);
    } else {
        start_engine ();
        if (argc > 8)
            add_rules (atoi (argv[8]));
        fill_engine (numbers[1], numbers[2], numbers[3], numbers[4]);
        drive_engine (numbers[0], argc > 7 && argv[7][0] != '-' ? argv[7] : NULL);
    }
    return 0;
}
