/* Memory runs out at every point: each path is gone once for every allocation in it, which fails, alone or with all
   behind it. Whatever fails says so, nothing is lost without a word, and afterwards all goes on. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"

/* ---- the driver */

typedef void path_fn (int variant);

static struct {
    long left; /* how many allocations succeed in this run */
    long most; /* how many behind them fail; 0 all */
} point = {-1, 0};

/* Within a path: from here on there is memory. Whether there was too little. */
static int memory_is_back (void)
{
    unit_memory_recover ();
    return unit_memory_failures () > 0;
}

/* A result that may be ENOMEM, once an allocation has failed, and nothing else but success. */
static int done (int failed)
{
    int error = errno;
    if (!failed)
        return 1;
    assert_string_equal (zqb_strerror (error), zqb_strerror (ENOMEM));
    assert_true (unit_memory_failures () > 0);
    return 0;
}

/* Goes a path in which the allocations behind so many others fail. Whether it came to that. */
static int goes_without (path_fn *path, int variant, long left, long most)
{
    long live = unit_memory_live;
    point.left = left;
    point.most = most;
    unit_memory_fail (left, most);
    path (variant);
    int failed = memory_is_back ();
    assert_int_equal (unit_memory_live, live);
    return failed;
}

/* Under valgrind not every point is tried. */
static long stride (void)
{
    return getenv ("ZQB_SLOW") ? 5 : 1;
}

/* Goes a path until it needs no more than there is. How many allocations that took. */
static long every_allocation (path_fn *path, int variant, long most)
{
    long left = 0;
    while (goes_without (path, variant, left, most))
        left += stride ();
    point.left = -1;
    return left;
}

/* One allocation fails, and then as many as `most`, or all for 0. The path has at least so many: if there were less, it
   would not be what it is said to be. */
static void at_every_allocation (const char *name, path_fn *path, int variant, long most, long least)
{
    long one = every_allocation (path, variant, 1), many = every_allocation (path, variant, most);
    printf ("# %s %d: %ld allocations, %ld with those behind\n", name, variant, one, many);
    assert_true (one >= least && many >= least);
}

static int says_where (UNUSED void **state)
{
    unit_memory_recover ();
    unit_memory_spared = 0;
    if (point.left >= 0)
        printf ("# failed when %ld allocations succeeded, and %ld behind them did not\n", point.left, point.most);
    point.left = -1;
    return 0;
}

/* ---- messages */

static char zeros[5000];
static int given_back; /* times that memory of the test's was */

static void take_back (UNUSED void *data, UNUSED void *hint)
{
    given_back++;
}

static int add_of_any_kind (zqb_msg_t *msg, int i)
{
    zmq_msg_t frame;
    if (i % 3 == 0)
        return zqb_msg_add (msg, zeros, (size_t) i * 300);
    if (i % 3 == 1)
        return zqb_msg_add_zero_copy (msg, zeros, sizeof zeros, take_back, NULL);
    zmq_msg_init_size (&frame, (size_t) i);
    int failed = zqb_msg_add_frame (msg, &frame), error = errno;
    assert_int_equal (zmq_msg_size (&frame), failed ? i : 0);
    zmq_msg_close (&frame);
    errno = error;
    return failed;
}

/* Appends ten frames, as far as possible; each try leaves the message well. How many were the test's memory. */
static int fill (zqb_msg_t *msg)
{
    int lent = 0;
    for (int i = 0; i < 10; i++) {
        size_t before = zqb_msg_count (msg);
        int added = done (add_of_any_kind (msg, i));
        assert_int_equal (zqb_msg_count (msg), before + (size_t) added);
        lent += added && i % 3 == 1;
    }
    return lent;
}

static void copies_are_equal (const zqb_msg_t *one, const zqb_msg_t *two)
{
    assert_int_equal (zqb_msg_count (one), zqb_msg_count (two));
    for (size_t i = 0; i < zqb_msg_count (one); i++)
        assert_int_equal (zqb_msg_size (one, i), zqb_msg_size (two, i));
}

static void use_messages (UNUSED int variant)
{
    zqb_msg_t one, two, three;
    zqb_msg_init (&one);
    zqb_msg_init (&two);
    zqb_msg_init (&three);
    given_back = 0;
    int lent = fill (&one);
    done (zqb_msg_add_str (&two, "kept"));
    size_t before = zqb_msg_count (&two);
    if (done (zqb_msg_copy (&two, &one)))
        copies_are_equal (&two, &one);
    else
        assert_int_equal (zqb_msg_count (&two), before);
    zqb_msg_move (&three, &two);
    memory_is_back ();
    lent += fill (&one);
    assert_ok (zqb_msg_copy (&two, &one));
    copies_are_equal (&two, &one);
    zqb_msg_close (&one);
    zqb_msg_close (&two);
    zqb_msg_close (&three);
    assert_int_equal (given_back, lent);
}

TEST (a_message_without_memory_is_as_it_was_and_can_be_filled_later)
{
    at_every_allocation ("messages", use_messages, 0, 0, 6);
}

/* ---- containers */

typedef struct thing_t {
    zqb__slot_t slot;
    zqb__node_t node;
    zqb__timer_t timer;
} thing_t;

enum { THINGS = 600 };

static void keep_things (zqb__slab_t *slab, zqb__table_t *table, zqb__heap_t *heap, thing_t **things)
{
    for (uint64_t i = 0; i < THINGS; i++) {
        if (!things[i] && (things[i] = (thing_t *) zqb__slab_new (slab)) != NULL)
            zqb__table_insert (table, &things[i]->node, i);
        done (!things[i]);
        if (things[i] && !things[i]->timer.place)
            done (zqb__heap_set (heap, &things[i]->timer, THINGS - i));
    }
}

/* What could be kept is found; in the heap the earliest is on top. */
static void find_things (zqb__slab_t *slab, zqb__table_t *table, zqb__heap_t *heap, thing_t **things)
{
    uint64_t earliest = UINT64_MAX;
    for (uint64_t i = 0; i < THINGS; i++) {
        zqb__node_t *node = zqb__table_first (table, i);
        assert_ptr_equal (node, things[i] ? &things[i]->node : NULL);
        if (!things[i])
            continue;
        assert_ptr_equal (zqb__slab_find (slab, zqb__slot_token (&things[i]->slot)), things[i]);
        if (things[i]->timer.place && things[i]->timer.at < earliest)
            earliest = things[i]->timer.at;
    }
    assert_true (zqb__heap_next_at (heap) == earliest);
}

static void use_containers (UNUSED int variant)
{
    thing_t *things[THINGS];
    zqb__slab_t slab;
    zqb__heap_t heap;
    zqb__table_t table;
    zqb__buffer_t buffer;
    memset (things, 0, sizeof things);
    memset (&heap, 0, sizeof heap);
    memset (&buffer, 0, sizeof buffer);
    zqb__slab_init (&slab, sizeof (thing_t), 0);
    if (done (zqb__table_init (&table))) {
        keep_things (&slab, &table, &heap, things);
        find_things (&slab, &table, &heap, things);
    }
    for (size_t i = 1; i < 5000; i *= 3) {
        size_t before = buffer.size;
        unsigned char *at = zqb__buffer_add (&buffer, i);
        assert_int_equal (buffer.size, before + (done (!at) ? i : 0));
    }
    memory_is_back ();
    if (!table.buckets)
        assert_ok (zqb__table_init (&table));
    keep_things (&slab, &table, &heap, things);
    find_things (&slab, &table, &heap, things);
    assert_int_equal (table.count, THINGS);
    assert_int_equal (heap.count, THINGS);
    zqb__slab_close (&slab);
    zqb__heap_close (&heap);
    zqb__table_close (&table);
    zqb__buffer_close (&buffer);
}

TEST (containers_without_memory_find_what_they_have_and_take_the_rest_later)
{
    at_every_allocation ("containers", use_containers, 0, 0, 20);
}

/* ---- the wire: every command of every dialect is written, and read again */

/* A text, and behind it so many frames more: an empty one, and large ones. For this there is always memory. */
static zqb_msg_t a_body (const char *text, int more)
{
    zqb_msg_t body;
    int spared = unit_memory_spared;
    unit_memory_spared = 1;
    zqb_msg_init (&body);
    assert_ok (zqb_msg_add_str (&body, text));
    for (int i = 0; i < more; i++)
        assert_ok (zqb_msg_add (&body, zeros, i ? 2000 + (size_t) i : 0));
    unit_memory_spared = spared;
    return body;
}

static zqb__command_t a_command (int type, const zqb_msg_t *body)
{
    zqb__command_t command = zqb__command (type, 0x1122334455667788u);
    command.service = (const unsigned char *) "echo";
    command.service_size = 4;
    if (type == ZQB__REQUEST || type == ZQB__PARTIAL || type == ZQB__REPLY)
        command.msg = body;
    return command;
}

/* The frames in front of what zqb__wire_frames writes: the address, unless the broker has sent it, and what the dialect
   puts behind that. */
static int add_front (zqb_msg_t *msg, int dialect, int place)
{
    int empty = dialect == ZQB__LRU || dialect == ZQB__MDP01 || dialect == ZQB__MDP01_WORDS;
    if (place != ZQB__FROM_BROKER && zqb_msg_add_str (msg, "address") != 0)
        return -1;
    return empty ? zqb_msg_add (msg, NULL, 0) : 0;
}

static int write_command (zqb_msg_t *msg, int dialect, int side, int place, const zqb__command_t *command)
{
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    int failed = add_front (msg, dialect, place);
    if (!failed && dialect == ZQB__ZQB1)
        failed = zqb__wire_pack (&parcel, 1, command) != 0 || zqb__outbox_add_parcel (msg, &parcel) != 0;
    else if (!failed)
        failed = zqb__wire_frames (msg, dialect, side, command);
    int error = errno;
    zqb__parcel_close (&parcel);
    errno = error;
    return failed;
}

static void is_whole (const zqb_msg_t *got, const zqb_msg_t *wanted)
{
    copies_are_equal (got, wanted);
    for (size_t i = 0; i < zqb_msg_count (got); i++)
        assert_memory_equal (zqb_msg_data (got, i), zqb_msg_data (wanted, i), zqb_msg_size (got, i));
}

/* Reads it as far as there is memory. */
static int read_command (zqb_msg_t *msg, int place, int type, zqb_msg_t *body)
{
    zqb__parcel_t scratch;
    zqb__incoming_t in;
    zqb__command_t command;
    memset (&scratch, 0, sizeof scratch);
    assert_ok (zqb__wire_open (&in, place, zqb_msg_frame (msg, 0), zqb_msg_count (msg), &scratch));
    int failed = zqb__wire_next (&in, &command) != 1;
    if (failed) {
        assert_int_equal (in.error, ZQB__NO_MEMORY); /* it is well-formed */
        errno = ENOMEM;
    } else {
        assert_int_equal (command.type, type);
        failed = zqb__body_to_msg (&command.body, body);
    }
    int error = errno;
    zqb__parcel_close (&scratch);
    errno = error;
    return failed;
}

static int write_and_read (int dialect, int side, int place, int type)
{
    zqb_msg_t body = a_body ("small", 4), msg, got;
    zqb__command_t command = a_command (type, &body);
    zqb_msg_init (&msg);
    zqb_msg_init (&got);
    int well = done (write_command (&msg, dialect, side, place, &command));
    if (well)
        well = done (read_command (&msg, place, type, &got));
    if (well && command.msg)
        is_whole (&got, &body);
    zqb_msg_close (&msg);
    zqb_msg_close (&got);
    zqb_msg_close (&body);
    return well;
}

/* All that a dialect can say there and back. How many of these could not be said or understood. */
static int say_everything (int dialect)
{
    int failed = 0, majordomo = dialect <= ZQB__MDP01_WORDS, place = majordomo ? ZQB__MAJORDOMO : ZQB__BACKEND;
    for (int type = ZQB__READY; type < ZQB__COMMAND_END; type++)
        if (type == ZQB__REPLY || (type != ZQB__REQUEST && majordomo && zqb__wire_says (dialect, ZQB__WORKER, type)))
            failed += !write_and_read (dialect, ZQB__WORKER, place, type);
    if (majordomo)
        failed += !write_and_read (dialect, ZQB__WORKER, ZQB__FROM_BROKER, ZQB__REQUEST);
    if (dialect == ZQB__LRU)
        failed += !write_and_read (dialect, ZQB__CLIENT, ZQB__FRONTEND, ZQB__REQUEST);
    if (dialect > ZQB__MDP02)
        return failed; /* words are for workers */
    failed += !write_and_read (dialect, ZQB__CLIENT, place, ZQB__REQUEST);
    return failed + !write_and_read (dialect, ZQB__CLIENT, ZQB__FROM_BROKER, ZQB__REPLY);
}

static void use_the_wire (int dialect)
{
    int failed = say_everything (dialect);
    assert_true (memory_is_back () || !failed);
    assert_int_equal (say_everything (dialect), 0);
}

TEST (what_cannot_be_written_or_read_for_lack_of_memory_is_not_taken_for_malformed)
{
    for (int dialect = 0; dialect < ZQB__DIALECTS; dialect++)
        at_every_allocation ("wire", use_the_wire, dialect, 0, 5);
}

/* ---- the engine: what it sends takes memory, too, as it does in a broker */

enum { BEAT_MS = 1000, LIVENESS = 3, NO_WORKER_MS = 10000, HELD = 64 };

static struct {
    zqb__engine_t engine;
    struct {
        char worker[32];
        uint64_t token;
    } held[HELD]; /* requests that workers were given, and have not answered */
    int held_count;
} world;

static int sink_send (UNUSED void *self, zqb__peer_t *peer, int side, const zqb__command_t *command)
{
    void *memory = zqb__alloc (1);
    if (!memory)
        return -1;
    ZQB_FREE (memory);
    if (side == ZQB__WORKER && command->type == ZQB__REQUEST && world.held_count < HELD) {
        snprintf (world.held[world.held_count].worker, 32, "%.*s", (int) peer->address_size, (char *) peer->address);
        world.held[world.held_count++].token = command->id;
    }
    return 0;
}

static void sink_serve (UNUSED void *self, UNUSED const zqb__service_t *service, const zqb__command_t *request,
                        zqb__command_t *reply)
{
    reply->type = ZQB__REPLY;
    reply->body = request->body;
}

static void sink_log (UNUSED void *self, UNUSED int level, UNUSED const char *format, UNUSED va_list args)
{
}

/* What has no request takes no bytes. */
static int balances (const zqb_stats_t *stats)
{
    return unit_adds_up (stats) && (stats->queued + stats->running > 0 || stats->bytes == 0);
}

/* Nothing is known without a purpose. */
static void check_services (void)
{
    zqb__link_t *all = &world.engine.all_services;
    for (zqb__link_t *at = all->next; at != all; at = at->next) {
        const zqb__service_t *service = ZQB__OF (zqb__service_t, all, at);
        assert_true (service->queued + service->running + service->worker_count > 0 || service->handler
                     || service->limit != UINT64_MAX);
    }
    assert_true (balances (&world.engine.stats));
}

static void sink_dead (UNUSED void *self, const zqb__command_t *request)
{
    assert_true (request->service_size > 0);
}

static int begin_world (void)
{
    zqb_broker_options_t options;
    zqb__sink_t sink;
    memset (&sink, 0, sizeof sink);
    sink.send = sink_send;
    sink.serve = sink_serve;
    sink.dead = sink_dead;
    sink.log = sink_log;
    memset (&options, 0, sizeof options);
    memset (&world, 0, sizeof world);
    options.heartbeat_ms = BEAT_MS;
    options.liveness = LIVENESS;
    options.no_worker_ms = NO_WORKER_MS;
    options = zqb__broker_options (&options);
    zqb__limits_t limits = zqb__broker_limits (&options);
    return zqb__engine_init (&world.engine, &limits, &sink, 0x123456789abcdefu, 5000000);
}

/* Peers are known by their names, which start with their dialect. */
static int dialect_of (const char *name)
{
    static const char *const starts[] = {"zqb", "mdp", "two", "words", "lru", "ppp"};
    for (size_t i = 0; i < COUNT (starts); i++)
        if (strncmp (name, starts[i], strlen (starts[i])) == 0)
            return (int) i;
    return -1;
}

/* A peer over a connection of its own says something; without memory it may not be heard. */
static void say_from (const char *address, const char *name, zqb__command_t command)
{
    uint64_t life = dialect_of (name) == ZQB__ZQB1 ? zqb__hash ((zqb__key_t){1, 2}, name, strlen (name)) | 1 : 0;
    int connection = 100 + name[strlen (name) - 1];
    zqb__peer_t *peer = zqb__engine_peer (&world.engine, 0, address, strlen (address), life);
    if (!done (!peer))
        return;
    if (!zqb__peer_came_over (peer, connection))
        zqb__peer_set_connection (&world.engine, peer, connection);
    peer->dialect[ZQB__CLIENT] = peer->dialect[ZQB__WORKER] = dialect_of (name);
    zqb__engine_receive (&world.engine, peer, &command);
    zqb__engine_release (&world.engine, peer);
    check_services ();
}

static void say (const char *name, zqb__command_t command)
{
    say_from (name, name, command);
}

static zqb__command_t with_body (int type, uint64_t id)
{
    static unsigned char block[104] = {0, 0, 0, 100};
    zqb__command_t command = zqb__command (type, id);
    command.body.block = block;
    command.body.size = sizeof block;
    command.body.frames = 1;
    return command;
}

static zqb__command_t named (zqb__command_t command, const char *service, int flags)
{
    command.service = (const unsigned char *) service;
    command.service_size = strlen (service);
    command.flags = flags;
    command.credit = 2;
    return command;
}

#define ready(service) named (zqb__command (ZQB__READY, 0), (service), 0)
#define request(id, service) named (with_body (ZQB__REQUEST, (id)), (service), 0)
#define again(id, service) named (with_body (ZQB__REQUEST, (id)), (service), ZQB__AGAIN)

/* Every worker answers what it holds, with a part first if its dialect has a word for that. */
static void answer_all (void)
{
    for (int i = 0; i < world.held_count; i++) {
        if (zqb__dialects[dialect_of (world.held[i].worker)].partials)
            say (world.held[i].worker, with_body (ZQB__PARTIAL, world.held[i].token));
        say (world.held[i].worker, with_body (ZQB__REPLY, world.held[i].token));
    }
    world.held_count = 0;
}

static const char *const workers[] = {"zqb worker 1", "mdp worker 2", "two worker 3", "lru worker 4", "ppp worker 5"};
static const char *const clients[] = {"zqb client a", "mdp client b", "two client c", "lru client d"};

static void at_ms (uint64_t ms)
{
    world.engine.now = 5000000 + ms * 1000;
    zqb__engine_tick (&world.engine);
    check_services ();
}

static void connection_ends (int number)
{
    zqb__engine_disconnected (&world.engine, 0, number);
    zqb__engine_bury (&world.engine);
}

static int some_handler (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, UNUSED void *arg)
{
    return 0;
}

/* Much of what can happen. */
static void a_day (void)
{
    for (size_t i = 0; i < COUNT (workers); i++)
        say (workers[i], ready ("echo"));
    for (uint64_t id = 1; id <= 3; id++)
        for (size_t i = 0; i < COUNT (clients); i++)
            say (clients[i], request (id, "echo"));
    say ("zqb client a", again (1, "echo"));
    say ("zqb client a", named (zqb__command (ZQB__CANCEL, 2), "", 0));
    say_from ("from elsewhere", "zqb client a", again (3, "echo"));
    say_from ("from elsewhere", "zqb client a", request (6, "echo"));
    say_from ("from elsewhere", "zqb client a", request (7, "unserved"));
    answer_all ();
    connection_ends (100 + '5');
    say ("two worker 3", zqb__command (ZQB__DISCONNECT, 0));
    say ("mdp worker 2", zqb__command (ZQB__HEARTBEAT, 0));
    answer_all ();
    say ("zqb client a", request (4, "nobody"));
    say ("mdp client b", request (4, "nobody else"));
    done (zqb__engine_handle (&world.engine, "here", some_handler, NULL));
    done (zqb__engine_limit (&world.engine, "echo", 60000000));
    say ("two client c", request (5, "here"));
    at_ms (BEAT_MS);
}

static void is_served (const char *client)
{
    uint64_t before = world.engine.stats.replied;
    say (client, request (77, "echo"));
    answer_all ();
    assert_int_equal (world.engine.stats.replied, before + 1);
}

/* Whoever registers again and asks again is served. */
static void live_on (void)
{
    for (size_t i = 0; i < COUNT (workers); i++)
        say (workers[i], ready ("echo"));
    assert_int_equal (world.engine.stats.workers, COUNT (workers));
    answer_all ();
    for (size_t i = 0; i < COUNT (clients); i++)
        is_served (clients[i]);
    assert_int_equal (world.engine.stats.running, 0);
}

/* Time goes on for those of whom nothing is heard any more: nothing is kept for ever. */
static void fall_silent (void)
{
    for (int i = '1'; i <= '5'; i++)
        connection_ends (100 + i);
    for (uint64_t ms = 2 * BEAT_MS; ms < 5 * NO_WORKER_MS; ms += BEAT_MS)
        at_ms (ms);
    assert_int_equal (world.engine.stats.workers, 0);
    assert_int_equal (world.engine.stats.running, 0);
    assert_int_equal (world.engine.stats.queued, 0);
    assert_int_equal (world.engine.stats.clients, 0);
}

enum { LIVES_ON, FALLS_SILENT, ENDS };

static void spend_a_day (int then)
{
    int begun = done (begin_world ());
    if (begun)
        a_day ();
    memory_is_back ();
    if (!begun)
        assert_ok (begin_world ());
    if (then == LIVES_ON)
        live_on ();
    if (then == FALLS_SILENT)
        fall_silent ();
    zqb__engine_close (&world.engine);
    assert_true (unit_adds_up (&world.engine.stats));
    assert_int_equal (world.engine.stats.queued + world.engine.stats.running + world.engine.stats.workers, 0);
    assert_int_equal (unit_refused (&world.engine.stats), 0); /* there was room */
}

TEST (an_engine_that_was_short_of_memory_serves_all_peers_afterwards)
{
    at_every_allocation ("engine", spend_a_day, LIVES_ON, 0, 80);
}

TEST (an_engine_that_was_short_of_memory_keeps_nothing_of_peers_that_fall_silent)
{
    at_every_allocation ("engine", spend_a_day, FALLS_SILENT, 0, 80);
}

TEST (an_engine_that_was_short_of_memory_ends_with_all_that_it_has)
{
    at_every_allocation ("engine", spend_a_day, ENDS, 0, 80);
}

/* ---- broker, worker and client in one thread: nothing happens but what the test does */

enum { BROKER, BIND, BIND_LRU, BIND_CLIENTS, HANDLER, LIMIT, WORKER, CLIENT, THINGS_MADE };
enum { ECHOED, SERVED_HERE, FAILED, LISTED, UNSERVED }; /* what is to become of a request */
enum { ASKED = 64, PART_FRAMES = 1 };

static struct {
    int made[THINGS_MADE];
    char endpoint[64], front[64], back[64], clients[64];
    zqb_broker_t *broker;
    zqb_worker_t *worker;
    zqb_client_t *client;
    int worker_dialect, client_dialect;
    const char *service; /* of the worker: "echo", or a pattern of it */
    int credit;          /* 0 as the broker says */
    zqb_request_t *held; /* what the worker has not answered yet */
    int has_said_part;
    struct {
        uint64_t id; /* 0: it is over */
        int fate;
        size_t frames, parts; /* of what was sent; of what came in parts */
    } asked[ASKED];
    int asked_count, replied, refused;
} day;

static void *ctx;

static int echo (UNUSED zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    return zqb_msg_move (reply, zqb_request_body (request));
}

static void begin_day (int worker_dialect, int client_dialect)
{
    static int run; /* each has names of its own, as libzmq frees them behind our back */
    run++;
    memset (&day, 0, sizeof day);
    day.worker_dialect = worker_dialect;
    day.client_dialect = client_dialect;
    day.service = "echo";
    snprintf (day.endpoint, sizeof day.endpoint, "inproc://broker-%d", run);
    snprintf (day.front, sizeof day.front, "inproc://front-%d", run);
    snprintf (day.clients, sizeof day.clients, "inproc://clients-%d", run);
    snprintf (day.back, sizeof day.back, "inproc://back-%d", run);
}

/* Heartbeats are quick, so that a worker that was forgotten hears of it; nobody is lost because the machine is slow. */
static int make_broker (void)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = 10;
    options.liveness = -1;
    options.no_worker_ms = 20;
    options.attempts = -1;
    return (day.broker = zqb_broker_new (ctx, &options)) ? 0 : -1;
}

static int make_worker (void)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = day.worker_dialect;
    options.credit = day.credit;
    options.heartbeat_ms = 10;
    options.liveness = -1;
    options.reconnect_ms = options.reconnect_max_ms = 1;
    return (day.worker = zqb_worker_new (ctx, day.endpoint, day.service, &options)) ? 0 : -1;
}

static int make_client (void)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = day.client_dialect;
    options.timeout_ms = 50;
    options.retries = PATIENCE_MS / 50;
    return (day.client = zqb_client_new (ctx, day.endpoint, &options)) ? 0 : -1;
}

static int make (int thing)
{
    switch (thing) {
        case BROKER: return make_broker ();
        case BIND: return zqb_broker_bind (day.broker, day.endpoint);
        case BIND_LRU: return zqb_broker_bind_lru (day.broker, day.front, day.back, "lru");
        case BIND_CLIENTS: return zqb_broker_bind_clients (day.broker, day.clients);
        case HANDLER: return zqb_broker_handle (day.broker, "here", echo, NULL);
        case LIMIT: return zqb_broker_time_limit (day.broker, "echo", PATIENCE_MS);
        case WORKER: return make_worker ();
        default: return make_client ();
    }
}

/* Makes what there is not yet, as far as there is memory. */
static void make_all (void)
{
    for (int thing = 0; thing < THINGS_MADE; thing++)
        if (!day.made[thing] && (thing == BROKER || day.made[BROKER]))
            day.made[thing] = done (make (thing));
}

static void end_day (void)
{
    zqb_client_destroy (&day.client);
    zqb_worker_destroy (&day.worker);
    zqb_broker_destroy (&day.broker);
}

/* ---- what the worker does: as far as it can, and the rest when it is asked to go on */

static int error_is (int error, int one, int two, int three)
{
    return error == one || error == two || error == three;
}

/* How far it is. Whether that is over, well or not. */
static int say_progress (void)
{
    return zqb_request_progress (day.held, 1, 2, "half") == 0 || error_is (errno, ENOTSUP, ENOTCONN, ZQB_ECANCELLED)
           || done (-1);
}

/* A part before the reply. Whether that is over, well or not. */
static int say_part (void)
{
    zqb_msg_t part = a_body ("part", PART_FRAMES - 1);
    int failed = zqb_request_partial (day.held, &part), error = errno;
    assert_int_equal (zqb_msg_count (&part), failed ? PART_FRAMES : 0);
    zqb_msg_close (&part);
    if (!failed || error_is (error, ENOTSUP, ENOTCONN, ZQB_ECANCELLED))
        return 1;
    errno = error;
    return done (failed);
}

/* The reply to what it holds, or that it failed. Whether it holds that no more. */
static int say_reply (void)
{
    zqb_msg_t reply;
    zqb_msg_init (&reply);
    if (unit_frame_is (zqb_request_body (day.held), 0, "fail"))
        return zqb_request_fail (day.held, 0, "sorry") == 0 || errno == ENOTCONN || done (-1);
    if (!done (zqb_msg_copy (&reply, zqb_request_body (day.held))))
        return 0;
    size_t frames = zqb_msg_count (&reply);
    int failed = zqb_request_reply (day.held, &reply), error = errno;
    assert_int_equal (zqb_msg_count (&reply), failed ? frames : 0);
    zqb_msg_close (&reply);
    errno = error;
    return !failed || error == ENOTCONN || done (failed);
}

/* Whether it did something. */
static int work (void)
{
    int took = 0;
    if (day.worker && !day.held) {
        took = (day.held = zqb_worker_recv (day.worker, 0)) != NULL;
        assert_true (took || error_is (errno, EAGAIN, unit_memory_failures () ? ZQB_EREFUSED : EAGAIN, EAGAIN));
        day.has_said_part = 0;
    }
    if (day.held && (day.has_said_part || (day.has_said_part = say_progress () && say_part ())) && say_reply ()) {
        day.held = NULL;
        return 1;
    }
    return took;
}

/* ---- what the client does */

/* Every other request asks for much, if the client can. */
static const zqb_request_options_t *wishes (void)
{
    static zqb_request_options_t options;
    static char key[64];
    memset (&options, 0, sizeof options);
    snprintf (key, sizeof key, "a key that nobody else has %d", day.asked_count);
    options.priority = day.asked_count % 9 - 4;
    options.deadline_ms = 3600000;
    options.unique = key;
    options.affinity = "a key that they all have";
    return day.client_dialect == ZQB_DIALECT_ZQB1 && day.asked_count % 2 ? &options : NULL;
}

static void ask (const char *service, int fate, const char *text, int more)
{
    zqb_msg_t body = a_body (text, more);
    size_t frames = zqb_msg_count (&body);
    uint64_t id = 0;
    assert_true (day.asked_count < ASKED);
    if (day.client && done (zqb_client_submit_with (day.client, service, wishes (), &body, &id))) {
        day.asked[day.asked_count].parts = 0;
        day.asked[day.asked_count].id = id;
        day.asked[day.asked_count].fate = fate;
        day.asked[day.asked_count++].frames = frames;
    } else
        assert_int_equal (zqb_msg_count (&body), frames);
    zqb_msg_close (&body);
}

/* The frames that are to come in all. */
static size_t frames_wanted (int i)
{
    static const size_t counters = sizeof (zqb_stats_t) / sizeof (uint64_t);
    size_t part = day.worker_dialect != ZQB_DIALECT_MDP01 ? PART_FRAMES : 0;
    switch (day.asked[i].fate) {
        case LISTED: return counters;
        case ECHOED: return day.asked[i].frames + part;
        case FAILED: return 1 + part; /* by a worker that has no other word for it */
        default: return day.asked[i].frames;
    }
}

/* A reply is whole, however much was lost; parts may come twice, if its worker was lost. */
static void is_replied (int i, const zqb_reply_t *reply)
{
    size_t frames = zqb_msg_count (&reply->body) + day.asked[i].parts, wanted = frames_wanted (i);
    int came_twice = day.asked[i].parts > PART_FRAMES;
    assert_true (frames == wanted || (came_twice && unit_memory_failures () && frames > wanted));
}

/* What may be said of a request that has no reply. */
static void is_refused (int i, int error)
{
    static const int errors[] = {ENOMEM, ZQB_EFAILED, ZQB_EQUEUEFULL, ZQB_ENOWORKER};
    int known = 0;
    for (size_t n = 0; n < COUNT (errors); n++)
        known |= error == errors[n];
    assert_true (known);
    assert_true (unit_memory_failures () || (day.asked[i].fate == FAILED && error == ZQB_EFAILED)
                 || (day.asked[i].fate == UNSERVED && error == ZQB_ENOWORKER));
}

static void hear (const zqb_reply_t *reply)
{
    int i = 0;
    while (i < day.asked_count && day.asked[i].id != reply->id)
        i++;
    assert_true (i < day.asked_count);
    if (reply->kind == ZQB_REPLY_PARTIAL) {
        day.asked[i].parts += zqb_msg_count (&reply->body);
        return;
    }
    if (reply->kind == ZQB_REPLY_PROGRESS)
        return;
    if (reply->kind == ZQB_REPLY_FINAL)
        is_replied (i, reply);
    else
        is_refused (i, reply->error);
    day.replied += reply->kind == ZQB_REPLY_FINAL;
    day.asked[i].id = 0;
}

/* Whether something came. */
static int listen_once (void)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    int heard = day.client && zqb_client_recv (day.client, &reply, 0) == 0;
    if (heard)
        hear (&reply);
    else if (day.client)
        assert_true (error_is (errno, EAGAIN, ENOENT, EAGAIN));
    zqb_msg_close (&reply.body);
    return heard;
}

/* ---- all of them, as long as something happens */

static int step (void)
{
    if (!day.broker)
        return 0;
    int wait = zqb_broker_step (day.broker, 0);
    zqb_stats_t stats = unit_stats (day.broker);
    assert_true (wait >= 0);
    assert_true (balances (&stats));
    if (day.broker->engine.paused) /* the machine stood still: nobody gets anything for a moment */
        zmq_poll (NULL, 0, 1);
    return wait == 0 || day.broker->engine.paused;
}

static void pump (void)
{
    for (int idle = 0, n = 0; idle < 3 && n < 2000; n++) {
        int did = step ();
        did |= work ();
        did |= listen_once ();
        idle = did ? 0 : idle + 1;
    }
}

/* What is outstanding although nothing happens any more was lost, or nobody serves it: it is given up. */
static void give_up (void)
{
    for (int i = 0; i < day.asked_count; i++)
        if (day.asked[i].id) {
            int mute = day.asked[i].fate == FAILED && day.worker_dialect == 0 && day.client_dialect != 0;
            assert_true (unit_memory_failures () || day.asked[i].fate == UNSERVED || mute);
            assert_ok (zqb_client_cancel (day.client, day.asked[i].id));
            day.asked[i].id = 0;
            pump ();
        }
}

/* Everything that they can do together. */
static void spend_it (void)
{
    make_all ();
    pump ();
    ask ("echo", ECHOED, "small", 0);
    pump ();
    ask ("here", SERVED_HERE, "small", 1);
    ask ("echo", ECHOED, "large", 6);
    ask ("echo", ECHOED, "small", 1);
    ask ("mmi.stats", LISTED, "x", 0);
    pump ();
    ask ("echo", FAILED, "fail", 0);
    ask ("here", SERVED_HERE, "large", 20);
    ask ("echo", ECHOED, "large", 20);
    if (day.client_dialect == ZQB_DIALECT_ZQB1)
        ask ("nobody", UNSERVED, "large", 2);
    pump ();
    give_up ();
}

/* Asks again, for as long as it is not. */
static int is_served_again (void)
{
    int before = day.replied;
    day.asked_count = 0;
    ask ("echo", ECHOED, "again", 3);
    pump ();
    give_up ();
    return day.replied > before;
}

static int nothing_is_left (void)
{
    pump ();
    zqb_stats_t stats = unit_stats (day.broker);
    return stats.queued + stats.running == 0 && stats.workers == 1;
}

/* Nothing was wrong with any message, and no limit was reached. */
static void only_memory_was_short (void)
{
    zqb_stats_t stats = unit_stats (day.broker);
    assert_int_equal (stats.bad_header + stats.bad_command + stats.bad_frames, 0);
    assert_int_equal (unit_refused (&stats), 0);
    assert_int_equal (stats.dead, 0);
}

/* The same objects go on, and of what was before nothing is left. */
static void go_on (void)
{
    make_all ();
    eventually (is_served_again ());
    eventually (nothing_is_left ());
    only_memory_was_short ();
}

/* Dialects of the worker and the client, as two octal digits. */
static void spend_a_day_together (int dialects)
{
    begin_day (dialects / 8, dialects % 8);
    spend_it ();
    memory_is_back ();
    go_on ();
    end_day ();
}

TEST (a_broker_a_worker_and_a_client_that_were_short_of_memory_go_on)
{
    static const int dialects[] = {000, 002, 011, 021};
    for (size_t i = 0; i < COUNT (dialects); i++)
        at_every_allocation ("worker and client", spend_a_day_together, dialects[i], 0, 100);
}

/* ---- a worker that is short of memory when it hears of requests, and that they are cancelled: nobody else is */

enum { MANY = 50 };

/* What the client said reaches the broker, and what follows from that the worker's socket. */
static void pass_on (void)
{
    assert_ok (zqb_client_flush (day.client));
    for (int idle = 0; idle < 3;)
        idle = step () ? 0 : idle + 1;
}

/* Begins the first, if that can be had, and hears of all the others. */
static void worker_begins (void)
{
    unit_memory_spared = 0;
    day.held = zqb_worker_recv (day.worker, 0);
    if (day.held)
        zqb_request_cancelled (day.held);
    unit_memory_spared = 1;
}

/* It hears what its client wants no more, and says of each that it has dropped it. */
static void worker_looks_up (void)
{
    unit_memory_spared = 0;
    if (day.held)
        zqb_request_cancelled (day.held);
    unit_memory_spared = 1;
}

static void cancel_what_waits (UNUSED int variant)
{
    begin_day (0, 0);
    day.service = "ech*"; /* so it is told the name with each */
    day.credit = MANY;
    unit_memory_spared = 1;
    make_all ();
    pump ();
    for (int i = 0; i < MANY; i++)
        ask ("echo", ECHOED, "small", 0);
    pass_on ();
    eventually ((step (), stat (day.broker, running) == MANY));
    worker_begins ();
    for (int i = 1; i < MANY; i++) {
        assert_ok (zqb_client_cancel (day.client, day.asked[i].id));
        day.asked[i].id = 0;
    }
    pass_on ();
    worker_looks_up ();
    memory_is_back ();
    unit_memory_spared = 0;
    pump ();
    give_up ();
    go_on (); /* no place in its hand is taken for ever */
    end_day ();
}

TEST (a_worker_that_was_short_of_memory_for_what_came_and_was_cancelled_goes_on)
{
    at_every_allocation ("what waits", cancel_what_waits, 0, 0, MANY);
}

/* ---- LRU: a service of its own, whose peers have sockets and nothing else */

enum { REQ_WORKER, PPP_WORKER };

static struct {
    void *client, *worker;
    int kind;
    int was_known;  /* the worker to the broker */
    int more, heard; /* frames behind the first of the last request; whether its reply has come */
} lru;

static void *open_socket (int type, const char *endpoint)
{
    void *socket = zmq_socket (ctx, type);
    assert_non_null (socket);
    zqb__set_int (socket, ZMQ_LINGER, 0);
    if (type == ZMQ_REQ) {
        zqb__set_int (socket, ZMQ_REQ_RELAXED, 1);
        zqb__set_int (socket, ZMQ_REQ_CORRELATE, 1);
    }
    assert_ok (zmq_connect (socket, endpoint));
    return socket;
}

static void close_socket (void **socket)
{
    if (*socket)
        zmq_close (*socket);
    *socket = NULL;
}

/* A REQ worker of the Guide knows neither heartbeats nor requests with numbers. */
static void open_lru_worker (void)
{
    close_socket (&lru.worker);
    lru.worker = zmq_socket (ctx, lru.kind == REQ_WORKER ? ZMQ_REQ : ZMQ_DEALER);
    zqb__set_int (lru.worker, ZMQ_LINGER, 0);
    assert_ok (zmq_connect (lru.worker, day.back));
    assert_int_equal (zmq_send (lru.worker, "READY", 5, 0), 5);
}

enum { ENCORE = 40 }; /* frames, so that a reply needs more memory than what was asked */

/* A message of whatever frames goes back as it came, and some more behind it; heartbeats are not answered. Whether there
   was one. */
static int lru_work (void)
{
    zmq_msg_t frames[64];
    int count = 0, more = 1;
    for (; lru.worker && more && count < 64; count++) {
        zmq_msg_init (&frames[count]);
        if (zmq_msg_recv (&frames[count], lru.worker, ZMQ_DONTWAIT) < 0)
            break;
        more = zmq_msg_more (&frames[count]);
    }
    for (int i = 0; i < count; i++) {
        if (count > 1)
            assert_true (zmq_msg_send (&frames[i], lru.worker, ZMQ_SNDMORE) >= 0);
        zmq_msg_close (&frames[i]);
    }
    for (int i = 0; count > 1 && i < ENCORE; i++)
        assert_true (zmq_send (lru.worker, zeros, 3000, i + 1 < ENCORE ? ZMQ_SNDMORE : 0) >= 0);
    return count > 0;
}

static void lru_ask (int more)
{
    lru.more = more;
    lru.heard = 0;
    assert_true (zmq_send (lru.client, "first", 5, more ? ZMQ_SNDMORE : 0) >= 0);
    for (int i = 0; i < more; i++)
        assert_true (zmq_send (lru.client, zeros, 3000, i + 1 < more ? ZMQ_SNDMORE : 0) >= 0);
}

/* Whether the reply came, which is whole then. */
static int lru_listen (void)
{
    char first[5];
    int frames = 0, more = 1;
    size_t size = sizeof more;
    if (!lru.client || zmq_recv (lru.client, first, sizeof first, ZMQ_DONTWAIT) < 0)
        return 0;
    for (zmq_getsockopt (lru.client, ZMQ_RCVMORE, &more, &size); more; frames++) {
        assert_int_equal (zmq_recv (lru.client, NULL, 0, 0), 3000);
        zmq_getsockopt (lru.client, ZMQ_RCVMORE, &more, &size);
    }
    assert_memory_equal (first, "first", 5);
    assert_int_equal (frames, lru.more + ENCORE);
    return lru.heard = 1;
}

static void lru_pump (void)
{
    for (int idle = 0, n = 0; idle < 3 && n < 2000; n++) {
        int did = step ();
        did |= lru_work ();
        did |= lru_listen ();
        idle = did ? 0 : idle + 1;
    }
}

static uint64_t lru_workers (void)
{
    uint64_t workers = stat (day.broker, workers);
    lru.was_known |= workers > 0;
    return workers;
}

static void lru_open (void)
{
    if (!day.made[BIND_LRU] || lru.client)
        return;
    lru.client = open_socket (ZMQ_REQ, day.front);
    open_lru_worker ();
    lru_pump ();
}

static void lru_call (int more)
{
    if (!lru.client)
        return;
    lru_ask (more);
    lru_pump ();
    lru_workers ();
    assert_true (lru.heard || unit_memory_failures () > 0);
}

/* A worker of PPP hears no heartbeats and registers again. One of REQ could not be told that it is forgotten: so it
   never is, once it was known. */
static int lru_is_served (void)
{
    if (!lru_workers ()) {
        assert_false (lru.kind == REQ_WORKER && lru.was_known);
        open_lru_worker ();
    }
    lru_call (1);
    return lru.heard;
}

static int lru_is_quiet (void)
{
    lru_pump ();
    return stat (day.broker, queued) + stat (day.broker, running) == 0;
}

static void spend_a_day_with_lru (int kind)
{
    begin_day (0, 0);
    memset (&lru, 0, sizeof lru);
    lru.kind = kind;
    for (int thing = BROKER; thing <= BIND_LRU; thing++)
        if (thing == BROKER || day.made[BROKER])
            day.made[thing] = done (make (thing));
    lru_open ();
    lru_call (0);
    lru_call (3);
    lru_call (30);
    memory_is_back ();
    for (int thing = BROKER; thing <= BIND_LRU; thing++)
        day.made[thing] = day.made[thing] || done (make (thing));
    lru_open ();
    eventually (lru_is_served ());
    eventually (lru_is_quiet ());
    only_memory_was_short ();
    close_socket (&lru.client);
    close_socket (&lru.worker);
    end_day ();
}

TEST (lru_workers_and_clients_go_on_when_the_broker_was_short_of_memory)
{
    at_every_allocation ("LRU worker", spend_a_day_with_lru, REQ_WORKER, 0, 40);
    at_every_allocation ("PPP worker", spend_a_day_with_lru, PPP_WORKER, 0, 40);
}

/* ---- threads: a broker, and a pool of workers, with the host's client */

static zqb_pool_t *pool;
static int is_started;

static int start_pool (int dialect)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 2;
    options.worker.dialect = dialect;
    options.worker.heartbeat_ms = 10;
    options.worker.liveness = -1;
    options.worker.reconnect_ms = options.worker.reconnect_max_ms = 1;
    return (pool = zqb_pool_start (ctx, day.endpoint, "echo", echo, NULL, &options)) ? 0 : -1;
}

/* Starts what does not run yet. */
static void start_all (int dialect)
{
    for (int thing = BROKER; thing <= LIMIT; thing++)
        if (!day.made[thing] && thing != BIND_LRU && (thing == BROKER || day.made[BROKER]))
            day.made[thing] = done (make (thing));
    if (!is_started && day.made[BIND])
        is_started = done (zqb_broker_start (day.broker));
    if (!pool && is_started)
        done (start_pool (dialect));
    if (!day.client && is_started)
        done (make_client ());
}

/* What a worker says in MDP that has failed. */
static int is_mdp_failure (const zqb_msg_t *reply)
{
    return day.worker_dialect != ZQB_DIALECT_ZQB1 && unit_memory_failures () > 0 && zqb_msg_count (reply) == 1
           && zqb_msg_size (reply, 0) == 0;
}

/* Whether it was answered, and then the reply is whole; if not, the request is as it was. */
static int is_answered (const char *service, int more)
{
    static const int errors[] = {ENOMEM, ZQB_EFAILED, ZQB_EQUEUEFULL, ZQB_ENOWORKER};
    zqb_msg_t asked = a_body ("text", more), reply;
    int known = 0;
    zqb_msg_init (&reply);
    int failed = zqb_client_call (day.client, service, &asked, &reply), error = errno;
    assert_int_equal (zqb_msg_count (&asked), failed ? more + 1 : 0);
    int whole = !failed && !is_mdp_failure (&reply);
    if (whole) {
        zqb_msg_t wanted = a_body ("text", more);
        is_whole (&reply, &wanted);
        zqb_msg_close (&wanted);
    }
    for (size_t i = 0; i < COUNT (errors); i++)
        known |= error == errors[i];
    assert_true (!failed || (known && unit_memory_failures () > 0));
    zqb_msg_close (&asked);
    zqb_msg_close (&reply);
    return whole;
}

static int threads_are_quiet (void)
{
    zqb_stats_t stats = unit_stats (day.broker);
    assert_true (balances (&stats));
    return stats.queued + stats.running == 0 && stats.workers == 2;
}

static void call_all (void)
{
    for (int more = 0; day.client && more < 20; more += 12) {
        if (day.made[HANDLER])
            is_answered ("here", more);
        if (pool)
            is_answered ("echo", more);
    }
}

static void end_threads (void)
{
    zqb_pool_stop (&pool);
    end_day ();
    is_started = 0;
}

static void spend_a_day_in_threads (int dialect)
{
    begin_day (dialect, ZQB_DIALECT_ZQB1); /* whose client tries again without harm */
    start_all (dialect);
    call_all ();
    memory_is_back ();
    start_all (dialect);
    eventually (is_answered ("here", 1));
    eventually (is_answered ("echo", 1));
    eventually (threads_are_quiet ());
    only_memory_was_short ();
    end_threads ();
}

TEST (threads_of_a_broker_and_a_pool_go_on_when_they_were_short_of_memory)
{
    at_every_allocation ("threads", spend_a_day_in_threads, ZQB_DIALECT_ZQB1, 5, 80);
    assert_true (every_allocation (spend_a_day_in_threads, ZQB_DIALECT_MDP02, 1) >= 80);
}

static int open_context (UNUSED void **state)
{
    return (ctx = zmq_ctx_new ()) ? 0 : -1;
}

static int close_context (void **state)
{
    says_where (state);
    close_socket (&lru.client);
    close_socket (&lru.worker);
    end_threads ();
    return zmq_ctx_term (ctx);
}

#define AT_ALL_POINTS(name) cmocka_unit_test_setup_teardown (name, NULL, says_where)
#define TOGETHER(name) cmocka_unit_test_setup_teardown (name, open_context, close_context)

int main (void)
{
    const struct CMUnitTest tests[] = {
        AT_ALL_POINTS (a_message_without_memory_is_as_it_was_and_can_be_filled_later),
        AT_ALL_POINTS (containers_without_memory_find_what_they_have_and_take_the_rest_later),
        AT_ALL_POINTS (what_cannot_be_written_or_read_for_lack_of_memory_is_not_taken_for_malformed),
        AT_ALL_POINTS (an_engine_that_was_short_of_memory_serves_all_peers_afterwards),
        AT_ALL_POINTS (an_engine_that_was_short_of_memory_keeps_nothing_of_peers_that_fall_silent),
        AT_ALL_POINTS (an_engine_that_was_short_of_memory_ends_with_all_that_it_has),
        TOGETHER (a_broker_a_worker_and_a_client_that_were_short_of_memory_go_on),
        TOGETHER (a_worker_that_was_short_of_memory_for_what_came_and_was_cancelled_goes_on),
        TOGETHER (lru_workers_and_clients_go_on_when_the_broker_was_short_of_memory),
        TOGETHER (threads_of_a_broker_and_a_pool_go_on_when_they_were_short_of_memory),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
