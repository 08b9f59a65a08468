/*  siege.c - the besieged: a broker with keys, rules and limits, and the good peers, each in a process of its own

        siege broker FOLDER                        prints "bound ENDPOINT" and "ready"; each line of stdin is answered
                                                   by all counters, those of who got in, and "heap=N"
        siege worker FOLDER PAGE ENDPOINT          serves echo; big: 60000 bytes for any request; and hold: it answers
                                                   when the page says so, and hears nothing until then
        siege client FOLDER PAGE ENDPOINT SLOT OUTSTANDING
                                                   asks echo, as user good0 or good1, always so much at a time
        siege named  FOLDER PAGE ENDPOINT          a client and a worker that chose their routing ids
        siege ask    FOLDER ENDPOINT USER COUNT    asks so often, one at a time, and says "asked"; again for each line
                                                   of stdin

    FOLDER has the keys NAME.secret and NAME.public, and the files auth and rules. Good peers never ask twice, so what
    is lost stays lost: each request is answered once, and right, or counts as a fault. At the end of the siege (see
    page_t) client and named tell on stdout what came of it. Status 0: they could tell. */

#define _GNU_SOURCE
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "given.h"
#include "siege.h"

enum { PATIENCE_MS = 60000, LOOK_MS = 20, HEARTBEAT_MS = 3000, BIG = 60000, WORKERS = 2 };
enum { MOST_PER_MS = 300 }; /* requests of a client, so that it never asks for more bytes than a user may */

static const char *folder;
static void *ctx;

/* A path in the folder, with something before and behind it, until there were some more. */
static const char *path_of (const char *before, const char *name, const char *behind)
{
    static char paths[8][4096];
    static size_t at;
    char *path = paths[at++ % 8];
    snprintf (path, sizeof paths[0], "%s%s/%s%s", before, folder, name, behind);
    return path;
}

static const char *secret_of (const char *name)
{
    return path_of ("file:", name, ".secret");
}

static const char *broker_public (void)
{
    return path_of ("file:", "broker", ".public");
}

/* ---- the broker */

static zqb_broker_options_t limits (void)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = HEARTBEAT_MS;
    options.max_services = 100;
    options.max_workers = 100;
    options.max_clients = 1000;
    options.max_requests = 10000;
    options.max_frames = 100;
    options.max_message = 64 << 10;
    options.max_bytes = 16 << 20;
    options.max_unsent = 2 << 20;
    options.send_hwm = 1000;
    options.max_user_outstanding = 1000;
    options.max_user_bytes = 10 << 20;
    options.server_secret = secret_of ("broker");
    return options;
}

static void print_counters (zqb_broker_t *broker, zqb_auth_t *auth)
{
    zqb_stats_t stats;
    zqb_auth_stats_t entries;
    if (zqb_broker_stats (broker, &stats) != 0 || zqb_auth_stats (auth, &entries) != 0)
        fail ("counters");
#define PRINT(name, text) printf (#name "=%llu ", (unsigned long long) stats.name);
    ZQB_STATS (PRINT)
#define PRINT_AUTH(name, text) printf ("auth_" #name "=%llu ", (unsigned long long) entries.name);
    ZQB_AUTH_STATS (PRINT_AUTH)
    printf ("heap=%llu\n", (unsigned long long) heap ());
    fflush (stdout);
}

static int ping (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) arg;
    return zqb_msg_move (reply, zqb_request_body (request));
}

static void serve_as_broker (void)
{
    zqb_broker_options_t options = limits ();
    zqb_auth_options_t who;
    char endpoint[256], line[16];
    memset (&who, 0, sizeof who);
    who.file = path_of ("", "auth", "");
    zqb_auth_t *auth = zqb_auth_start (ctx, &who);
    options.auth = auth;
    zqb_broker_t *broker = auth ? zqb_broker_new (ctx, &options) : NULL;
    if (!broker || zqb_broker_rules (broker, path_of ("", "rules", "")) != 0
        || zqb_broker_handle (broker, "ping", ping, NULL) != 0 || zqb_broker_bind (broker, "tcp://127.0.0.1:*") != 0
        || zqb_broker_start (broker) != 0 || zqb_broker_endpoint (broker, 0, endpoint, sizeof endpoint) != 0)
        fail ("broker");
    printf ("bound %s\nready\n", endpoint);
    fflush (stdout);
    while (fgets (line, sizeof line, stdin))
        print_counters (broker, auth);
    zqb_broker_destroy (&broker);
    zqb_auth_stop (&auth);
}

/* ---- the workers */

static int is_good (const char *user)
{
    return strncmp (user, "good", 4) == 0;
}

/* Who asked must be who the broker says. The token, and who we are, is told to those who forge. */
static int look_at (zqb_request_t *request, body_t *body)
{
    const char *user = zqb_request_user (request);
    zqb_msg_t *msg = zqb_request_body (request);
    if (zqb_msg_size (msg, 0) < sizeof *body)
        return -1;
    memcpy (body, zqb_msg_data (msg, 0), sizeof *body);
    if (!user || strncmp (user, body->user, sizeof body->user) != 0)
        page_add (&page->for_others, 1);
    uint64_t at = __atomic_fetch_add (&page->next_token, 1, __ATOMIC_RELAXED);
    page_set (&page->tokens[at % TOKENS], request->token);
    page_set (&page->worker_life, ((zqb_worker_t *) request->owner)->line.life);
    return 0;
}

static int echo (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    body_t body;
    (void) arg;
    if (look_at (request, &body) != 0)
        return EINVAL;
    if (is_good (body.user)) {
        page_add (&page->executed, 1);
        page_add (&page->executed_digest, mix (body.number));
    }
    body.answered = answer_to (&body);
    return zqb_msg_add (reply, &body, sizeof body);
}

static int big (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    static const char zeros[BIG];
    body_t body;
    (void) arg;
    if (look_at (request, &body) != 0)
        return EINVAL;
    body.answered = answer_to (&body);
    return zqb_msg_add (reply, &body, sizeof body) == 0 ? zqb_msg_add (reply, zeros, sizeof zeros) : -1;
}

static int hold (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) arg;
    page_add (&page->held, 1);
    while (!page_get (&page->released))
        nap_ms (LOOK_MS); /* of this there is no event */
    return zqb_msg_move (reply, zqb_request_body (request));
}

static zqb_pool_t *start_pool (const char *endpoint, const char *service, zqb_handler_fn *handler, int threads)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = threads;
    options.worker.heartbeat_ms = HEARTBEAT_MS;
    options.worker.server_public = broker_public ();
    options.worker.secret_key = secret_of ("worker");
    zqb_pool_t *pool = zqb_pool_start (ctx, endpoint, service, handler, NULL, &options);
    if (!pool)
        fail (service);
    return pool;
}

static void serve_as_worker (const char *endpoint)
{
    zqb_pool_t *echoes = start_pool (endpoint, "echo", echo, WORKERS), *bigs = start_pool (endpoint, "big", big, 1),
               *holds = start_pool (endpoint, "hold", hold, 1);
    printf ("ready\n");
    fflush (stdout);
    while (page_get (&page->phase) != GONE)
        nap_ms (LOOK_MS); /* of this there is no event */
    zqb_pool_stop (&echoes);
    zqb_pool_stop (&bigs);
    zqb_pool_stop (&holds);
}

/* ---- the clients */

enum { IDS = 1 << 16 };

typedef struct tally_t {
    uint64_t asked, replied, errors, wrong, digest, asked_digest;
    uint64_t ids[IDS]; /* of the request with a number, by its lower bits */
    int last_error;
} tally_t;

static tally_t tally;

static zqb_client_t *new_client (const char *endpoint, const char *user)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.timeout_ms = PATIENCE_MS;
    options.retries = -1;
    options.server_public = broker_public ();
    options.secret_key = secret_of (user);
    zqb_client_t *client = zqb_client_new (ctx, endpoint, &options);
    if (!client)
        fail ("client");
    return client;
}

static void ask (zqb_client_t *client, const char *user, uint64_t number, uint64_t *id)
{
    zqb_msg_t msg;
    body_t body;
    memset (&body, 0, sizeof body);
    strncpy (body.user, user, sizeof body.user - 1);
    body.number = number;
    zqb_msg_init (&msg);
    if (zqb_msg_add (&msg, &body, sizeof body) != 0 || zqb_client_submit (client, "echo", &msg, id) != 0)
        fail ("submit");
}

/* Whether this is the answer to a request that this user asked. */
static int is_right (const zqb_reply_t *reply, const char *user)
{
    body_t body;
    if (zqb_msg_count (&reply->body) != 1 || zqb_msg_size (&reply->body, 0) != sizeof body)
        return 0;
    memcpy (&body, zqb_msg_data (&reply->body, 0), sizeof body);
    return strncmp (body.user, user, sizeof body.user) == 0 && body.answered == answer_to (&body);
}

static void take (const zqb_reply_t *reply, const char *user)
{
    body_t body;
    if (reply->kind == ZQB_REPLY_ERROR) {
        tally.errors++;
        tally.last_error = reply->error;
        return;
    }
    if (reply->kind != ZQB_REPLY_FINAL || !is_right (reply, user)) {
        tally.wrong++;
        return;
    }
    memcpy (&body, zqb_msg_data (&reply->body, 0), sizeof body);
    if (tally.ids[body.number % IDS] != reply->id) {
        tally.wrong++;
        return;
    }
    tally.replied++;
    tally.digest += mix (body.number);
}

static uint64_t outstanding (void)
{
    return tally.asked - tally.replied - tally.errors - tally.wrong;
}

static void ask_next (zqb_client_t *client, const char *user, int slot)
{
    uint64_t number = (uint64_t) (slot + 1) << 48 | ++tally.asked, *id = &tally.ids[number % IDS];
    tally.asked_digest += mix (number);
    ask (client, user, number, id);
    page_set (&page->number[slot], *id);
}

static uint64_t now_ms (void)
{
    return zqb__clock () / 1000u;
}

/* Closed loop: so many requests are outstanding until the siege is over. */
static void besieged_client (const char *endpoint, int slot, uint64_t most)
{
    char user[8];
    zqb_reply_t reply;
    int over = 0;
    snprintf (user, sizeof user, "good%d", slot);
    zqb_msg_init (&reply.body);
    zqb_client_t *client = new_client (endpoint, user);
    uint64_t began = now_ms ();
    page_set (&page->life[slot], client->line.life);
    printf ("ready\n");
    fflush (stdout);
    while (!over || outstanding ()) {
        over = page_get (&page->phase) >= OVER;
        while (!over && outstanding () < most && tally.asked < (now_ms () - began + 1) * MOST_PER_MS)
            ask_next (client, user, slot);
        if (zqb_client_recv (client, &reply, 1) == 0) {
            take (&reply, user);
            page_set (&page->good[slot], tally.replied);
        } else if (errno != EAGAIN && errno != ENOENT)
            fail ("recv");
    }
    printf ("asked=%llu replied=%llu errors=%llu wrong=%llu last_error=%d digest=%llu asked_digest=%llu\n",
            (unsigned long long) tally.asked, (unsigned long long) tally.replied, (unsigned long long) tally.errors,
            (unsigned long long) tally.wrong, tally.last_error, (unsigned long long) tally.digest,
            (unsigned long long) tally.asked_digest);
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

/* So many calls, one after the other, for each line of stdin. */
static void ask_when_told (const char *endpoint, const char *user, uint64_t count)
{
    zqb_client_t *client = new_client (endpoint, user);
    zqb_reply_t reply;
    char line[16];
    uint64_t id, number = 0;
    zqb_msg_init (&reply.body);
    do {
        for (uint64_t i = 0; i < count; i++) {
            ask (client, user, ++number, &id);
            if (zqb_client_recv (client, &reply, PATIENCE_MS) != 0 || reply.kind != ZQB_REPLY_FINAL
                || !is_right (&reply, user)) {
                printf ("error %s\n", zqb_strerror (reply.kind == ZQB_REPLY_ERROR ? reply.error : errno));
                return;
            }
        }
        printf ("asked\n");
        fflush (stdout);
    } while (fgets (line, sizeof line, stdin));
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

/* ---- peers with names: MDP/0.2, on libzmq alone */

static void *new_named (const char *endpoint, const char *name)
{
    zqb__keys_t *keys = NULL;
    void *socket = zmq_socket (ctx, ZMQ_DEALER);
    int linger = 0;
    if (!socket || zmq_setsockopt (socket, ZMQ_LINGER, &linger, sizeof linger) != 0
        || zqb__keys_of_peer (&keys, broker_public (), NULL, secret_of ("named"), NULL, NULL) != 0
        || zqb__keys_apply (keys, socket) != 0
        || zmq_setsockopt (socket, ZMQ_ROUTING_ID, name, strlen (name)) != 0 || zmq_connect (socket, endpoint) != 0)
        fail (name);
    zqb__keys_free (&keys);
    return socket;
}

static void send_words (void *socket, const char *header, const char *command, const char *service, const void *body,
                        size_t size)
{
    if (zmq_send (socket, header, strlen (header), ZMQ_SNDMORE) < 0
        || zmq_send (socket, command, strlen (command), ZMQ_SNDMORE) < 0
        || zmq_send (socket, service, strlen (service), body ? ZMQ_SNDMORE : 0) < 0
        || (body && zmq_send (socket, body, size, 0) < 0))
        fail ("send");
}

/* The worker's part: a request goes back as the reply. */
static void named_work (void *socket, zqb__inbox_t *inbox)
{
    if (zqb__inbox_receive (inbox, socket, ZMQ_DONTWAIT) != 1 || inbox->count != 5
        || memcmp (zmq_msg_data (&inbox->frames[1]), "\2", 1) != 0)
        return; /* a heartbeat */
    if (zmq_send (socket, "MDPW02", 6, ZMQ_SNDMORE) < 0 || zmq_send (socket, "\4", 1, ZMQ_SNDMORE) < 0
        || zmq_msg_send (&inbox->frames[2], socket, ZMQ_SNDMORE) < 0 || zmq_send (socket, "", 0, ZMQ_SNDMORE) < 0
        || zmq_msg_send (&inbox->frames[4], socket, 0) < 0)
        fail ("reply");
}

/* One request is under way at a time. */
static void be_named (const char *endpoint)
{
    void *client = new_named (endpoint, "named-client"), *worker = new_named (endpoint, "named-worker");
    zmq_pollitem_t items[2];
    zqb__inbox_t inbox;
    uint64_t asked = 0, answered = 0, wrong = 0, heard = zqb__clock ();
    memset (&inbox, 0, sizeof inbox);
    memset (items, 0, sizeof items);
    inbox.limit = SIZE_MAX;
    items[0].socket = client;
    items[1].socket = worker;
    items[0].events = items[1].events = ZMQ_POLLIN;
    send_words (worker, "MDPW02", "\1", "named", NULL, 0);
    printf ("ready\n");
    fflush (stdout);
    while (page_get (&page->phase) < OVER && zqb__clock () < heard + (uint64_t) PATIENCE_MS * 1000u) {
        if (asked == answered && ++asked)
            send_words (client, "MDPC02", "\1", "named", &asked, sizeof asked);
        zmq_poll (items, 2, LOOK_MS);
        named_work (worker, &inbox);
        if (zqb__inbox_receive (&inbox, client, ZMQ_DONTWAIT) != 1)
            continue;
        heard = zqb__clock ();
        wrong += inbox.count != 4 || zmq_msg_size (&inbox.frames[3]) != sizeof asked
                 || memcmp (zmq_msg_data (&inbox.frames[3]), &asked, sizeof asked) != 0;
        page_set (&page->named, ++answered);
    }
    printf ("named answered=%llu wrong=%llu silent=%d\n", (unsigned long long) answered, (unsigned long long) wrong,
            page_get (&page->phase) < OVER);
    zqb__inbox_close (&inbox);
    zmq_close (client);
    zmq_close (worker);
}

int main (int argc, char **argv)
{
    const char *role = argc > 2 ? argv[1] : "";
    die_with_parent ();
    ctx = zmq_ctx_new ();
    folder = argv[argc > 2 ? 2 : 0];
    if (argc > 4 && strcmp (role, "ask") != 0)
        page_open (argv[3]);
    if (strcmp (role, "broker") == 0)
        serve_as_broker ();
    else if (strcmp (role, "worker") == 0 && argc == 5)
        serve_as_worker (argv[4]);
    else if (strcmp (role, "client") == 0 && argc == 7)
        besieged_client (argv[4], atoi (argv[5]), strtoull (argv[6], NULL, 10));
    else if (strcmp (role, "named") == 0 && argc == 5)
        be_named (argv[4]);
    else if (strcmp (role, "ask") == 0 && argc == 6)
        ask_when_told (argv[3], argv[4], strtoull (argv[5], NULL, 10));
    else {
        fprintf (stderr, "usage: see tests/chaos/siege.c\n");
        return 2;
    }
    zmq_ctx_term (ctx);
    return 0;
}
