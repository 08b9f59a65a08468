/* An engine with a clock that the test moves and a network that it makes up. After each step everything is counted over.
   Included behind unit_memory.h, zqbroker.h with the implementation, and unit.h. */
#ifndef UNIT_ENGINE_H_INCLUDED
#define UNIT_ENGINE_H_INCLUDED

/* ---- the world */

typedef struct sent_t {
    char to[64];
    int side, type, status;
    uint64_t id;
    char body[64], text[64];
    int flags;
    uint32_t credit, left_ms, code; /* of a deadline; 0 none */
    uint64_t done, total;
    char service[64];
} sent_t;

enum { SENT = 4096, BEAT_MS = 1000, LIVENESS = 3, EXPIRY_MS = BEAT_MS * LIVENESS, NO_WORKER_MS = 10000 };

static struct {
    zqb__engine_t engine;
    uint64_t start;
    sent_t sent[SENT];
    size_t count, read;
    const char *gone; /* names of peers that cannot be reached, with a comma behind each */
    int gone_errno;
    int handler_fails, handled;
    int dead; /* letters */
    char letter[64];
    int (*filter) (zqb__command_t *request, zqb__rare_t *wishes, zqb__command_t *refusal); /* or NULL */
    zqb_outcome_t outcomes[64];
    size_t outcome_count;
    char outcome_service[256]; /* of the last */
    size_t choice;           /* what the host chooses */
    size_t choices;          /* of how many, the last time */
} world;

/* The frames of a body as text, with bars between them. */
UNUSED static void read_body (char *text, size_t size, const zqb__body_t *body)
{
    zqb__cursor_t cursor = {0, 0};
    zqb__frame_t frame;
    size_t used = 0;
    text[0] = 0;
    while (zqb__body_next (body, &cursor, &frame) == 1)
        used += (size_t) snprintf (text + used, size - used, "%s%.*s", used ? "|" : "",
                                   frame.size > 20 ? 3 : (int) frame.size, (const char *) frame.data);
}

UNUSED static int is_gone (const char *name)
{
    const char *at = world.gone ? strstr (world.gone, name) : NULL;
    return at && at[strlen (name)] == ',';
}

UNUSED static int sink_send (void *self, zqb__peer_t *peer, int side, const zqb__command_t *command)
{
    sent_t *sent = &world.sent[world.count % SENT];
    (void) self;
    snprintf (sent->to, sizeof sent->to, "%.*s", (int) peer->address_size, (const char *) peer->address);
    errno = world.gone_errno;
    if (is_gone (sent->to))
        return -1;
    sent->side = side;
    sent->type = command->type;
    sent->status = command->status;
    sent->id = command->id;
    snprintf (sent->text, sizeof sent->text, "%.*s", (int) command->text_size, command->text ? command->text : "");
    read_body (sent->body, sizeof sent->body, &command->body);
    sent->flags = command->flags;
    sent->credit = command->credit;
    sent->left_ms = command->rare ? command->rare->deadline_ms : 0;
    sent->code = command->rare ? command->rare->code : 0;
    sent->done = command->rare ? command->rare->done : 0;
    sent->total = command->rare ? command->rare->total : 0;
    snprintf (sent->service, sizeof sent->service, "%.*s", (int) command->service_size,
              command->service ? (const char *) command->service : "");
    world.count++;
    return 0;
}

UNUSED static void sink_serve (void *self, const zqb__service_t *service, const zqb__command_t *request, zqb__command_t *reply)
{
    (void) self, (void) service;
    world.handled++;
    reply->type = world.handler_fails ? ZQB__ERROR : ZQB__REPLY;
    reply->body = request->body;
}

UNUSED static void sink_dead (void *self, const zqb__command_t *request)
{
    (void) self;
    world.dead++;
    read_body (world.letter, sizeof world.letter, &request->body);
}

UNUSED static void sink_log (void *self, int level, const char *format, va_list args)
{
    char line[1000];
    (void) self, (void) level;
    assert_true (vsnprintf (line, sizeof line, format, args) > 0);
}

UNUSED static int sink_filter (void *self, zqb__command_t *request, zqb__rare_t *wishes, zqb__command_t *refusal)
{
    (void) self;
    return world.filter ? world.filter (request, wishes, refusal) : 0;
}

UNUSED static void sink_outcome (void *self, const zqb_outcome_t *outcome)
{
    (void) self;
    snprintf (world.outcome_service, sizeof world.outcome_service, "%s", outcome->service);
    world.outcomes[world.outcome_count++ % COUNT (world.outcomes)] = *outcome;
}

UNUSED static size_t sink_choose (void *self, const zqb__service_t *service, const zqb_worker_info_t *workers, size_t count)
{
    (void) self, (void) service, (void) workers;
    world.choices = count;
    return world.choice;
}

UNUSED static zqb__limits_t usual_limits (void)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = BEAT_MS;
    options.liveness = LIVENESS;
    options.no_worker_ms = NO_WORKER_MS;
    options = zqb__broker_options (&options);
    return zqb__broker_limits (&options);
}

UNUSED static int begin_with (const zqb__limits_t *limits)
{
    zqb__sink_t sink;
    memset (&sink, 0, sizeof sink);
    sink.send = sink_send;
    sink.serve = sink_serve;
    sink.dead = sink_dead;
    sink.log = sink_log;
    sink.outcome = sink_outcome;
    sink.choose = sink_choose;
    memset (&world, 0, sizeof world);
    unit_memory_live = 0; /* a test before this one may have failed */
    world.gone_errno = EHOSTUNREACH;
    world.start = 5000000;
    return zqb__engine_init (&world.engine, limits, &sink, 0x123456789abcdefu, world.start);
}

UNUSED static void begin (void)
{
    zqb__limits_t limits = usual_limits ();
    assert_ok (begin_with (&limits));
}

UNUSED static const zqb_stats_t *stats (void)
{
    return &world.engine.stats;
}

/* ---- counting everything over */

UNUSED static void check_worker (const zqb__worker_t *worker, uint64_t *running)
{
    uint32_t load = 0;
    for (zqb__link_t *at = worker->hand.next; at != &worker->hand; at = at->next, load++)
        assert_ptr_equal (ZQB__OF (zqb__request_t, place, at)->worker, worker);
    assert_int_equal (worker->load, load);
    assert_true (worker->adapts || worker->draining || worker->load <= worker->credit);
    assert_int_equal (zqb__list_empty (&worker->ready), !zqb__worker_has_room (worker));
    *running += load;
}

UNUSED static void check_service (const zqb__service_t *service, uint64_t *queued, uint64_t *running, uint64_t *workers)
{
    int waiting = 0, count = 0;
    for (zqb__link_t *at = service->queue.next; at != &service->queue; at = at->next)
        waiting++;
    for (zqb__link_t *at = service->workers.next; at != &service->workers; at = at->next, count++)
        check_worker (ZQB__OF (zqb__worker_t, of_service, at), running);
    assert_int_equal (service->queued, waiting);
    assert_int_equal (service->worker_count, count);
    assert_true (!waiting || world.engine.paused || !service->ready_mask); /* nobody waits for nobody */
    assert_true (zqb__service_waiting (service) || service->running || count || service->handler
                 || zqb__service_is_set_up (service));
    *queued += (uint64_t) waiting;
    *workers += (uint64_t) count;
}

/* Where each request is that there is a place for. */
UNUSED static void check_requests (uint64_t queued)
{
    const zqb__slab_t *slab = &world.engine.requests;
    uint64_t places[ZQB__SURVEYING + 1] = {0}, running = 0, outcomes = 0;
    for (size_t i = 0; i < slab->chunk_count * ZQB__SLAB_CHUNK; i++) {
        const zqb__request_t *request = (const zqb__request_t *) zqb__slab_at (slab, i);
        if (!(request->slot.generation & 1))
            continue;
        running += request->worker != NULL;
        outcomes += request->lane == NULL; /* known, though it runs */
        if (!request->worker)
            places[zqb__request_aside (request)]++;
    }
    assert_int_equal (places[ZQB__QUEUED], queued);
    assert_int_equal (places[ZQB__DELAYED], stats ()->delayed);
    assert_int_equal (places[ZQB__FOLLOWING], stats ()->following);
    for (int i = ZQB__DELAYED; i <= ZQB__SURVEYING; i++)
        queued += places[i];
    assert_int_equal (stats ()->queued, queued);
    assert_int_equal (stats ()->running, running);
    assert_int_equal (world.outcome_count + stats ()->queued + stats ()->running - outcomes, stats ()->accepted);
}

UNUSED static void check_all (void)
{
    uint64_t queued = 0, running = 0, workers = 0, services = 0;
    zqb__link_t *all = &world.engine.all_services;
    for (zqb__link_t *at = all->next; at != all; at = at->next, services++)
        check_service (ZQB__OF (zqb__service_t, all, at), &queued, &running, &workers);
    check_requests (queued);
    assert_int_equal (stats ()->running, running);
    assert_int_equal (stats ()->workers, workers);
    assert_int_equal (stats ()->services, services);
    assert_true (unit_adds_up (stats ()));
    assert_true (stats ()->queued + running > 0 || stats ()->bytes == 0);
}

/* The end: nothing is left, not even memory. */
UNUSED static void end (void)
{
    check_all ();
    zqb__engine_close (&world.engine);
    assert_true (unit_adds_up (stats ()));
    assert_int_equal (stats ()->queued + stats ()->running + stats ()->workers + stats ()->services, 0);
    assert_int_equal (unit_memory_live, 0);
}

/* ---- what peers say. A peer is known by its name, which starts with its dialect. */

UNUSED static int dialect_of (const char *name)
{
    static const struct {
        const char *start;
        int dialect;
    } dialects[] = {{"zqb", ZQB__ZQB1}, {"mdp", ZQB__MDP01}, {"two", ZQB__MDP02}, {"lru", ZQB__LRU}, {"ppp", ZQB__PPP}};
    for (size_t i = 0; i < COUNT (dialects); i++)
        if (strncmp (name, dialects[i].start, 3) == 0)
            return dialects[i].dialect;
    return -1;
}

UNUSED static uint64_t life_of (const char *name)
{
    zqb__key_t key = {1, 2};
    return dialect_of (name) == ZQB__ZQB1 ? zqb__hash (key, name, strlen (name)) | 1 : 0;
}

UNUSED static zqb__peer_t *peer_at (const char *address, uint64_t life, int dialect)
{
    zqb__peer_t *peer = zqb__engine_peer (&world.engine, 0, address, strlen (address), life);
    if (peer)
        peer->dialect[ZQB__CLIENT] = peer->dialect[ZQB__WORKER] = dialect;
    return peer;
}

UNUSED static zqb__peer_t *peer_named (const char *name)
{
    return peer_at (name, life_of (name), dialect_of (name));
}

UNUSED static void say_as (const char *address, uint64_t life, int dialect, zqb__command_t command)
{
    zqb__peer_t *peer = peer_at (address, life, dialect);
    if (!peer)
        return;
    zqb__engine_receive (&world.engine, peer, &command);
    zqb__engine_release (&world.engine, peer);
    check_all ();
}

UNUSED static void say (const char *name, zqb__command_t command)
{
    say_as (name, life_of (name), dialect_of (name), command);
}

UNUSED static zqb__command_t named (zqb__command_t command, const char *service)
{
    command.service = (const unsigned char *) service;
    command.service_size = strlen (service);
    return command;
}

/* One frame with this text. What it points to lives until some more are made. */
UNUSED static zqb__command_t with_body (zqb__command_t command, const char *text)
{
    static unsigned char blocks[16][2000];
    static int next;
    unsigned char *block = blocks[next++ % 16];
    size_t size = strlen (text);
    assert_true (size < 1900);
    zqb__put_32 (block, (uint32_t) size);
    memcpy (block + 4, text, size);
    command.body.block = block;
    command.body.size = 4 + size;
    assert_ok (zqb__body_measure (&command.body));
    return command;
}

UNUSED static zqb__command_t ready (const char *service, uint32_t credit)
{
    zqb__command_t command = named (zqb__command (ZQB__READY, 0), service);
    command.credit = credit;
    return command;
}

UNUSED static zqb__command_t request (const char *service, uint64_t id, const char *body)
{
    return with_body (named (zqb__command (ZQB__REQUEST, id), service), body);
}

UNUSED static zqb__command_t again (zqb__command_t command)
{
    command.flags = ZQB__AGAIN;
    return command;
}

UNUSED static zqb__command_t reply (uint64_t token, const char *body)
{
    return with_body (zqb__command (ZQB__REPLY, token), body);
}

UNUSED static zqb__command_t partial (uint64_t token, const char *body)
{
    return with_body (zqb__command (ZQB__PARTIAL, token), body);
}

UNUSED static zqb__command_t failure (uint64_t token, const char *text)
{
    zqb__command_t command = zqb__command (ZQB__ERROR, token);
    command.text = text;
    command.text_size = strlen (text);
    return command;
}

#define heartbeat() zqb__command (ZQB__HEARTBEAT, 0)
#define disconnect() zqb__command (ZQB__DISCONNECT, 0)
#define cancel(id) zqb__command (ZQB__CANCEL, (id))

/* Moves the clock to so many milliseconds after the start, and does what is due. */
UNUSED static void at_ms (uint64_t ms)
{
    world.engine.now = world.start + ms * 1000;
    zqb__engine_tick (&world.engine);
    check_all ();
}

UNUSED static void come_over (const char *name, int connection)
{
    zqb__peer_t *peer = peer_named (name);
    zqb__peer_set_connection (&world.engine, peer, connection);
    zqb__engine_release (&world.engine, peer);
}

UNUSED static void connection_ends (int connection)
{
    zqb__engine_disconnected (&world.engine, 0, connection);
    zqb__engine_bury (&world.engine);
    check_all ();
}

UNUSED static void malformed (const char *name, int side)
{
    zqb__peer_t *peer = peer_named (name);
    zqb__engine_malformed (&world.engine, peer, side);
    zqb__engine_release (&world.engine, peer);
    check_all ();
}

/* ---- what they hear */

/* The next thing that was sent. */
UNUSED static const sent_t *heard (const char *to, int type)
{
    if (world.read == world.count)
        fail_msg ("nothing was sent; wanted %d to %s", type, to);
    const sent_t *sent = &world.sent[world.read++ % SENT];
    assert_string_equal (sent->to, to);
    assert_int_equal (sent->type, type);
    return sent;
}

/* It is this, with this body. Returns its number: the token, if it is a request to a worker. */
UNUSED static uint64_t hears (const char *to, int type, const char *body)
{
    const sent_t *sent = heard (to, type);
    assert_string_equal (sent->body, body);
    return sent->id;
}

UNUSED static void hears_error (const char *to, uint64_t id, int error)
{
    const sent_t *sent = heard (to, ZQB__ERROR);
    assert_true (sent->id == id);
    assert_int_equal (sent->status + ZQB_ERRNO, error);
}

UNUSED static void nothing_is_heard (void)
{
    assert_int_equal (world.read, world.count);
}

UNUSED static void whatever_is_heard (void)
{
    world.read = world.count;
}

/* How many of a type were sent to somebody since the last look. */
UNUSED static int count_heard (const char *to, int type)
{
    int count = 0;
    for (; world.read < world.count; world.read++)
        count += strcmp (world.sent[world.read % SENT].to, to) == 0 && world.sent[world.read % SENT].type == type;
    return count;
}

UNUSED static int worker_count (void)
{
    return (int) stats ()->workers;
}

#endif
