/* What a strict review found: each promise here was once broken. Where the order of what happens matters the test steps
   the broker, and memory runs out when the test wants it. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>

/* So many allocations of this thread will succeed, and the one behind them fails; -1: all succeed. */
static __thread long memory_left = -1;

static int memory_is_out (void)
{
    return memory_left >= 0 && memory_left-- == 0;
}

/* From now on all succeed again. Whether one has failed. */
static int memory_ran_out (void)
{
    int out = memory_left < 0;
    memory_left = -1;
    return out;
}

#define ZQB_MALLOC(size) (memory_is_out () ? NULL : malloc (size))
#define ZQB_REALLOC(pointer, size) (memory_is_out () ? NULL : realloc (pointer, size))
#define ZQB_FREE(pointer) free (pointer)

#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"
#include <sys/wait.h>

/* ---- the world: what a test leaves open is closed behind it, so that one that fails holds up no other */

enum { SOCKETS = 64 };
static void *sockets[SOCKETS];
static int socket_count;
static void *late; /* binds ENDPOINT in the end: libzmq aborts if there is no socket left to do that itself */
static zqb_client_t *client;
static zqb_worker_t *worker;

static int set_up_context (UNUSED void **state)
{
    ctx = zmq_ctx_new ();
    return ctx ? 0 : -1;
}

static int close_all (void **state)
{
    memory_left = -1;
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
    if (late)
        zmq_bind (late, ENDPOINT);
    late = NULL;
    while (socket_count)
        if (sockets[--socket_count])
            zmq_close (sockets[socket_count]);
    return tear_down (state);
}

#define RUNNING(name) cmocka_unit_test_setup_teardown (name, set_up, close_all)         /* with a broker that runs */
#define STEPPED(name) cmocka_unit_test_setup_teardown (name, set_up_context, close_all) /* the test makes its own */

/* A broker that does something only when the test steps it. */
static void step_broker_with (const zqb_broker_options_t *options)
{
    zqb_broker_destroy (&broker);
    assert_non_null (broker = zqb_broker_new (ctx, options));
    eventually (zqb_broker_bind (broker, ENDPOINT) == 0); /* libzmq frees the name behind our back */
}

static zqb_broker_options_t broker_options (void)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    return options;
}

/* The broker does all that there is to do. What peers said over inproc is there already; over tcp it comes. */
static void step (void)
{
    for (int i = 0; i < 1000 && zqb_broker_step (broker, 0) == 0; i++) {
    }
}

#define steps_until(condition) eventually ((step (), (condition)))

/* An endpoint of tcp, which tells of connections that are gone. */
static const char *bind_tcp (void)
{
    static char endpoint[256];
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_endpoint (broker, -1, endpoint, sizeof endpoint));
    return endpoint;
}

static int is_readable (void *socket)
{
    zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
    return zmq_poll (&item, 1, 0) == 1;
}

/* The broker's socket for tcp; that of inproc was bound before. */
static zqb__port_t *tcp_port (void)
{
    return broker->ports[broker->port_count - 1];
}

/* Something lies in it; its monitor tells of a connection that is gone. Neither is read by this. */
#define something_came() is_readable (tcp_port ()->socket)

/* The broker's monitor has told of the end of a connection, upon which the broker has not acted yet. */
static int connection_ended (void)
{
    zqb__port_t *port = tcp_port ();
    zqb__port_read_monitor (port, &broker->events);
    for (size_t i = 0; i < port->gone_count; i++)
        if (port->gone[i] >= 0)
            return 1;
    return 0;
}

/* There is news for that socket. It does not look at it: libzmq would forget what connection a message came
   over. */
static int has_news (void)
{
    zqb__poll_t item = zqb__poll_item (tcp_port ()->fd);
    return zqb__wait (&item, 1, 0) == 1;
}

/* Lets time pass, in which nothing is to happen. */
static void pass_ms (uint64_t ms)
{
    uint64_t end = zqb__clock () + ms * 1000;
    eventually (zqb__clock () > end);
}

/* ---- peers made of sockets */

static void *open_socket (int type)
{
    void *socket = zmq_socket (ctx, type);
    assert_true (socket && socket_count < SOCKETS);
    sockets[socket_count++] = socket;
    zqb__set_int (socket, ZMQ_LINGER, PATIENCE_MS);
    zqb__set_int (socket, ZMQ_RCVTIMEO, PATIENCE_MS);
    return socket;
}

static void hangs_up (void *socket)
{
    for (int i = 0; i < socket_count; i++)
        if (sockets[i] == socket)
            sockets[i] = NULL;
    zmq_close (socket);
}

static void *dealer_at (const char *endpoint)
{
    void *socket = open_socket (ZMQ_DEALER);
    assert_ok (zmq_connect (socket, endpoint));
    return socket;
}

#define dealer() dealer_at (ENDPOINT)

/* One that may leave but one message unread. */
static void *slow_dealer (void)
{
    void *socket = open_socket (ZMQ_DEALER);
    zqb__set_int (socket, ZMQ_RCVHWM, 1);
    assert_ok (zmq_connect (socket, ENDPOINT));
    return socket;
}

static void *named_dealer (const char *endpoint, const char *name)
{
    void *socket = open_socket (ZMQ_DEALER);
    zmq_setsockopt (socket, ZMQ_ROUTING_ID, name, strlen (name));
    assert_ok (zmq_connect (socket, endpoint));
    return socket;
}

/* Frames of text with a bar between them; flags for the last. */
static void says_frames (void *socket, const char *text, int flags)
{
    for (const char *end; (end = strchr (text, '|')) != NULL; text = end + 1)
        assert_true (zmq_send (socket, text, (size_t) (end - text), ZMQ_SNDMORE) >= 0);
    assert_true (zmq_send (socket, text, strlen (text), flags) >= 0);
}

#define says(socket, text) says_frames ((socket), (text), 0)

/* ---- MDP/0.1: a worker takes a request, and keeps its token; it answers that */

static unsigned char token[8];

static void takes_request (void *socket)
{
    unsigned char frames[6][64];
    for (int i = 0; i < 6; i++)
        assert_true (zmq_recv (socket, frames[i], sizeof frames[i], 0) >= 0);
    memcpy (token, frames[3], sizeof token);
}

static void answers (void *socket, const char *text)
{
    says_frames (socket, "|MDPW01|\3", ZMQ_SNDMORE);
    assert_true (zmq_send (socket, token, sizeof token, ZMQ_SNDMORE) >= 0);
    says_frames (socket, "", ZMQ_SNDMORE);
    says (socket, text);
}

/* Tells the worker or client that a raw broker has heard last something; a frame of its address is put in front. */
static char caller[256];
static size_t askssize;

static const char *hears_caller (void *router)
{
    int size = zmq_recv (router, caller, sizeof caller, 0);
    assert_true (size > 0);
    askssize = (size_t) size;
    return hear_text (router, 0);
}

static void tells_caller (void *router, const char *text)
{
    assert_true (zmq_send (router, caller, askssize, ZMQ_SNDMORE) >= 0);
    says (router, text);
}

/* What else was said is not heard. */
static void forgets_the_rest (void *router)
{
    while (is_readable (router))
        hear_text (router, 0);
}

static void *router_at (const char *endpoint)
{
    void *socket = open_socket (ZMQ_ROUTER);
    assert_ok (zmq_bind (socket, endpoint));
    return socket;
}

/* ---- ZQB/1, byte by byte (manual, 8): one message, with as many commands as wanted */

enum { INLINE_MOST = 1024 };
static char zeros[1200000]; /* what all bodies are made of */
static struct {
    unsigned char bytes[200000];
    size_t size;
    size_t large_count, large_size; /* frames behind the first, all of one size */
} message;

static void begin_message (uint64_t life)
{
    memcpy (message.bytes, "ZQB\1", 4);
    zqb__put_64 (message.bytes + 4, life);
    message.size = 12;
    message.large_count = 0;
}

static void add_field (unsigned tag, const void *value, size_t size)
{
    unsigned char *at = message.bytes + message.size;
    at[0] = (unsigned char) tag;
    at[1] = (unsigned char) size;
    memcpy (at + 2, value, size);
    message.size += 2 + size;
}

static void add_frame (size_t size)
{
    int large = size > INLINE_MOST;
    zqb__put_32 (message.bytes + message.size, (uint32_t) size | (large ? 0x80000000u : 0));
    message.size += 4 + (large ? 0 : size);
    message.large_count += (size_t) large;
    message.large_size = large ? size : message.large_size;
}

/* A command with so many frames of so many bytes. service may be NULL; credit is for READY. */
static void add_command (int type, uint64_t id, const char *service, size_t frames, size_t size)
{
    static const unsigned char credit[] = {0, 10};
    unsigned char *at = message.bytes + message.size;
    memset (at, 0, 16);
    at[4] = (unsigned char) type;
    zqb__put_64 (at + 8, id);
    message.size += 16;
    if (service)
        add_field (1, service, strlen (service));
    if (type == ZQB__READY)
        add_field (2, credit, 2);
    at[6] = (unsigned char) ((size_t) (message.bytes + message.size - at - 16) >> 8);
    at[7] = (unsigned char) (message.bytes + message.size - at - 16);
    while (frames--)
        add_frame (size);
    zqb__put_32 (at, (uint32_t) (message.bytes + message.size - at));
}

static void send_message (void *socket)
{
    int more = message.large_count ? ZMQ_SNDMORE : 0;
    assert_true (zmq_send (socket, message.bytes, message.size, more) >= 0);
    for (size_t i = 1; i <= message.large_count; i++)
        assert_true (zmq_send (socket, zeros, message.large_size, i < message.large_count ? ZMQ_SNDMORE : 0) >= 0);
}

/* A message of one command. */
static void says_command (void *socket, uint64_t life, int type, uint64_t id, const char *service)
{
    begin_message (life);
    add_command (type, id, service, type == ZQB__REQUEST || type == ZQB__REPLY ? 1 : 0, 1);
    send_message (socket);
}

static uint64_t heard_ids[256]; /* of the commands that were counted last */

static int count_commands (const unsigned char *bytes, size_t size, int type)
{
    int count = 0;
    for (size_t at = 12; at + 16 <= size && zqb__get_32 (bytes + at) >= 16; at += zqb__get_32 (bytes + at))
        if (bytes[at + 4] == type)
            heard_ids[count++ % COUNT (heard_ids)] = zqb__get_64 (bytes + at + 8);
    return count;
}

/* Reads all that has come: how many commands of a type are in it. */
static int count_heard (void *socket, int type)
{
    int count = 0, first = 1;
    zmq_msg_t frame;
    zmq_msg_init (&frame);
    while (zmq_msg_recv (&frame, socket, ZMQ_DONTWAIT) >= 0) {
        if (first)
            count += count_commands ((const unsigned char *) zmq_msg_data (&frame), zmq_msg_size (&frame), type);
        first = !zmq_msg_more (&frame);
    }
    zmq_msg_close (&frame);
    return count;
}

/* ---- the life of the host's process */

/* A process that has a broker which is not run for a while, and a peer that sends more than libzmq keeps, and goes. */
static int be_flooded (void)
{
    zqb_broker_options_t options = broker_options ();
    char endpoint[256];
    options.heartbeat_ms = 10;
    void *own = zmq_ctx_new (), *others = zmq_ctx_new ();
    zqb_broker_t *flooded = zqb_broker_new (own, &options);
    if (!flooded || zqb_broker_bind (flooded, "tcp://127.0.0.1:*") != 0
        || zqb_broker_endpoint (flooded, 0, endpoint, sizeof endpoint) != 0)
        return 1;
    void *peer = zmq_socket (others, ZMQ_DEALER);
    zqb__set_int (peer, ZMQ_SNDHWM, 0);
    zqb__set_int (peer, ZMQ_LINGER, 1000);
    zmq_connect (peer, endpoint);
    for (int i = 0; i < 20000; i++)
        zmq_send (peer, "x", 1, 0);
    zmq_close (peer);
    zmq_ctx_term (others);
    zmq_poll (NULL, 0, 300); /* in which heartbeats are due, and nothing else happens */
    zqb_broker_destroy (&flooded);
    return zmq_ctx_term (own);
}

TEST (a_broker_that_does_not_read_a_flood_does_not_end_the_process)
{
    int status = -1;
    pid_t child = fork ();
    if (child == 0)
        _exit (be_flooded ());
    assert_true (child > 0);
    assert_int_equal (waitpid (child, &status, 0), child);
    assert_true (WIFEXITED (status));
    assert_int_equal (WEXITSTATUS (status), 0);
}

/* Sockets hear of it when libzmq looks for news, which it does not do at every call, but every few milliseconds. */
static void shut_down (void)
{
    zmq_ctx_shutdown (ctx);
    pass_ms (10);
}

static int end_the_context (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, UNUSED void *arg)
{
    shut_down ();
    return 0;
}

typedef struct outcome_t {
    int result, error;
    zqb__flag_t done;
} outcome_t;

static void run_worker (void *arg)
{
    outcome_t *outcome = (outcome_t *) arg;
    outcome->result = zqb_worker_run (worker, end_the_context, NULL);
    outcome->error = errno;
    zqb__flag_set (&outcome->done);
}

TEST (run_ends_with_the_context_even_if_that_ends_while_the_worker_is_at_work)
{
    outcome_t outcome = {0, 0, 0};
    worker = zqb_worker_new (ctx, bind_tcp (), "echo", NULL);
    client = new_client (0, 0, 0);
    submit (client, "echo", "x");
    void *thread = zmq_threadstart (run_worker, &outcome);
    int done = gets_done (&outcome.done);
    zqb_worker_stop (worker);
    zmq_threadclose (thread);
    assert_true (done);
    assert_int_equal (outcome.result, -1);
    assert_string_equal (zqb_strerror (outcome.error), zqb_strerror (ETERM));
}

TEST (recv_hears_of_the_end_of_the_context_that_a_reply_has_met)
{
    worker = new_worker (0, 1);
    client = new_client (0, 0, 0);
    submit (client, "echo", "x");
    zqb_request_t *request = is_asked (worker, "x");
    shut_down ();
    reply_text (request, "y");
    assert_none (zqb_worker_recv (worker, 1000), ETERM);
    assert_none (zqb_worker_recv (worker, 1000), ETERM);
}

TEST (time_outs_at_an_endpoint_of_inproc_that_nobody_has_bound_use_up_no_sockets)
{
    zmq_ctx_set (ctx, ZMQ_MAX_SOCKETS, 20);
    late = open_socket (ZMQ_ROUTER);
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        client = new_client (dialect, 1, 50);
        receives_error (client, submit (client, "echo", "x"), ETIMEDOUT);
        zqb_client_destroy (&client);
    }
    assert_non_null (broker = zqb_broker_new (ctx, NULL));
}

/* ---- limits */

TEST (a_request_of_too_many_frames_takes_no_memory_for_them)
{
    zqb_broker_options_t options = broker_options ();
    options.max_frames = 10;
    step_broker_with (&options);
    void *peer = dealer ();
    begin_message (1);
    add_command (ZQB__REQUEST, 1, "echo", 10000, 0);
    send_message (peer);
    steps_until (stat (broker, refused_frames) == 1);
    assert_true (broker->outbox.capacity_ < 100);
}

TEST (the_limit_of_frames_is_one_of_each_body_not_of_what_is_packed_together)
{
    static const struct {
        int max_frames, commands;
        size_t frames, last; /* of each of these, and of one more */
    } cases[] = {{10, 40, 1, 10}, {10, 12, 10, 1}, {0, 1, 230, 900}, {0, 4, 230, 230}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_broker_options_t options = broker_options ();
        options.max_frames = cases[i].max_frames;
        step_broker_with (&options);
        assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
        void *peer = dealer ();
        uint64_t count = 0;
        begin_message (1);
        for (int k = 0; k < cases[i].commands; k++)
            add_command (ZQB__REQUEST, ++count, "echo", cases[i].frames, 1100);
        add_command (ZQB__REQUEST, ++count, "echo", cases[i].last, 1100);
        send_message (peer);
        step ();
        assert_int_equal (stat (broker, replied), count);
        assert_int_equal (count_heard (peer, ZQB__REPLY), count);
    }
}

static void submit_zeros (const char *service, size_t size)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add (&msg, zeros, size);
    assert_ok (zqb_client_submit (client, service, &msg, NULL));
}

static void reply_zeros (zqb_request_t *request, size_t size)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add (&msg, zeros, size);
    assert_ok (zqb_request_reply (request, &msg));
}

/* How many replies have come. */
static int count_replies (void)
{
    int count = 0;
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    while (zqb_client_recv (client, &reply, 0) == 0)
        count += reply.kind == ZQB_REPLY_FINAL;
    zqb_msg_close (&reply.body);
    return count;
}

TEST (what_our_own_client_and_worker_pack_together_the_broker_takes)
{
    enum { MANY = 100 };
    zqb_request_t *requests[MANY], *request;
    zqb_broker_options_t options = broker_options ();
    int asked = 0;
    options.max_frames = 10;
    step_broker_with (&options);
    worker = new_worker (0, MANY);
    client = new_client (0, 0, 0);
    for (int i = 0; i < MANY; i++)
        submit_zeros ("echo", 2048);
    assert_ok (zqb_client_flush (client));
    step ();
    while (asked < MANY && (request = zqb_worker_recv (worker, 0)) != NULL)
        requests[asked++] = request;
    assert_int_equal (asked, MANY);
    for (int i = 0; i < MANY; i++)
        reply_zeros (requests[i], 2048);
    zqb_worker_recv (worker, 0);
    step ();
    assert_int_equal (count_replies (), MANY);
    assert_int_equal (stat (broker, refused_frames) + stat (broker, workers_lost), 0);
}

/* A message that is full but for a byte, and then takes the largest command that there may be. */
TEST (over_tcp_the_largest_message_that_our_own_client_packs_is_taken)
{
    enum { FULL = 65536, LARGEST = 1000 };
    char name[256];
    zqb_broker_options_t options = broker_options ();
    options.max_message = LARGEST;
    step_broker_with (&options);
    memset (name, 's', 255);
    name[255] = 0;
    assert_ok (zqb_broker_handle (broker, name, echo, NULL));
    void *peer = dealer_at (bind_tcp ());
    uint64_t count = 0;
    begin_message (1);
    while (message.size < FULL - 2 * (16 + 257 + LARGEST))
        add_command (ZQB__REQUEST, ++count, name, 1, LARGEST - 4);
    while (FULL - 1 - message.size > 16 + 257 + LARGEST)
        add_command (ZQB__REQUEST, ++count, name, 1, 100);
    add_command (ZQB__REQUEST, ++count, name, 1, FULL - 1 - message.size - (16 + 257 + 4));
    assert_int_equal (message.size, FULL - 1);
    add_command (ZQB__REQUEST, ++count, name, 1, LARGEST - 4);
    send_message (peer);
    eventually (something_came () || connection_ended ());
    step ();
    assert_int_equal (stat (broker, replied), count);
}

/* What a worker of ours makes of a client's request: a part of its reply that is too large. */
static void reply_with_a_part (int dialect, size_t frames, size_t size)
{
    zqb_msg_t part;
    zqb_broker_options_t options = broker_options ();
    options.max_frames = 10;
    options.max_message = 1000;
    broker_with (&options);
    worker = new_worker (0, 1);
    client = new_client (dialect, 0, 0);
    submit (client, "echo", "x");
    zqb_request_t *request = is_asked (worker, "x");
    zqb_msg_init (&part);
    for (size_t i = 0; i < frames; i++)
        zqb_msg_add (&part, zeros, size);
    assert_ok (zqb_request_partial (request, &part));
    assert_ok (reply_text (request, "y"));
    eventually (stat (broker, running) == 0);
    assert_int_equal (stat (broker, failed), 1);
    assert_int_equal (stat (broker, refused_large) + stat (broker, refused_frames), 1);
    assert_int_equal (stat (broker, replied), 0);
}

TEST (a_part_of_a_reply_that_is_too_large_ends_the_request)
{
    static const size_t parts[2][2] = {{11, 0}, {1, 997}};
    for (int i = 0; i < 2; i++)
        for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
            reply_with_a_part (dialect, parts[i][0], parts[i][1]);
            if (dialect == ZQB_DIALECT_ZQB1) {
                zqb_reply_t reply;
                zqb_msg_init (&reply.body);
                assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
                assert_int_equal (reply.error, ZQB_EFAILED);
                assert_frame (&reply.body, 0, "the reply is too large");
                zqb_msg_close (&reply.body);
            }
            zqb_client_destroy (&client);
            zqb_worker_destroy (&worker);
        }
}

TEST (gathered_parts_of_replies_count_among_the_bytes_that_are_kept)
{
    enum { HELD = 3, PART = 400000 };
    zqb_request_t *requests[HELD];
    zqb_broker_options_t options = broker_options ();
    options.max_bytes = 1000000;
    broker_with (&options);
    worker = new_worker (0, HELD);
    for (int i = 0; i < HELD; i++)
        says (dealer (), "|MDPC01|echo|x");
    for (int i = 0; i < HELD; i++)
        requests[i] = is_asked (worker, "x");
    for (int i = 0; i < HELD; i++) {
        zqb_msg_t part;
        zqb_msg_init (&part);
        zqb_msg_add (&part, zeros, PART);
        assert_ok (zqb_request_partial (requests[i], &part));
    }
    for (int i = 0; i < HELD; i++)
        assert_ok (reply_text (requests[i], "y"));
    eventually (stat (broker, running) == 0);
    assert_int_equal (stat (broker, failed), 1);
    assert_int_equal (stat (broker, replied), HELD - 1);
    assert_int_equal (stat (broker, bytes), 0);
}

/* ---- peers that do not read, or are gone */

/* So large that no other is packed with it. */
static int reply_large (UNUSED zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    if (arg)
        ++*(int *) arg;
    return zqb_msg_add (reply, zeros, ZQB__PARCEL_LARGE);
}

TEST (of_a_peer_that_cannot_be_answered_no_more_requests_are_served)
{
    enum { MANY = 100, PIPE = 2 };
    for (int gone = 0; gone < 2; gone++) {
        int served = 0;
        zqb_broker_options_t options = broker_options ();
        options.send_hwm = 1;
        step_broker_with (&options);
        assert_ok (zqb_broker_handle (broker, "here", reply_large, &served));
        void *peer = slow_dealer ();
        begin_message (1);
        for (uint64_t i = 1; i <= MANY; i++)
            add_command (ZQB__REQUEST, i, "here", 1, 1);
        send_message (peer);
        if (gone)
            hangs_up (peer);
        step ();
        zqb_stats_t stats = unit_stats (broker);
        assert_true (served >= 1 && served <= PIPE + 2);
        assert_int_equal (stats.accepted, served);
        assert_true (unit_adds_up (&stats));
        zqb_broker_destroy (&broker);
    }
}

TEST (a_heartbeat_drops_no_reply_that_is_packed)
{
    enum { BEAT_MS = 20, PIPE = 2 };
    zqb_broker_options_t options = broker_options ();
    options.send_hwm = 1;
    options.heartbeat_ms = BEAT_MS;
    options.liveness = 1000;
    step_broker_with (&options);
    assert_ok (zqb_broker_handle (broker, "here", reply_large, NULL));
    void *peer = slow_dealer ();
    says_command (peer, 5, ZQB__READY, 0, "echo");
    steps_until (stat (broker, messages_out) == PIPE); /* heartbeats, which it does not read */
    pass_ms (2 * BEAT_MS);
    says_command (peer, 5, ZQB__REQUEST, 1, "here");
    step ();
    uint64_t heard = 0;
    for (int i = 0; i < 5; i++, step ())
        heard += (uint64_t) count_heard (peer, ZQB__REPLY);
    zqb_stats_t stats = unit_stats (broker);
    assert_int_equal (stats.accepted, 1);
    assert_int_equal (stats.replied, heard);
    assert_true (unit_adds_up (&stats));
}

/* ---- who is who, and who is alive */

TEST (a_worker_that_sent_heartbeats_is_not_lost_because_the_broker_was_not_run)
{
    enum { WORKERS = 20, BEAT_MS = 150, LIVENESS = 2 };
    void *workers[WORKERS];
    zqb_broker_options_t options = broker_options ();
    options.heartbeat_ms = BEAT_MS;
    options.liveness = LIVENESS;
    step_broker_with (&options);
    for (int i = 0; i < WORKERS; i++)
        says (workers[i] = dealer (), "|MDPW01|\1|echo");
    step ();
    assert_int_equal (stat (broker, workers), WORKERS);
    pass_ms (BEAT_MS * LIVENESS + 10);
    for (int i = 0; i < WORKERS; i++)
        says (workers[i], "|MDPW01|\4");
    step ();
    assert_int_equal (stat (broker, workers_lost), 0);
    assert_int_equal (stat (broker, workers), WORKERS);
}

/* Each step of such a host is a standstill, behind which workers wait for a moment. */
TEST (a_host_that_steps_too_seldom_is_served_nevertheless)
{
    enum { BEAT_MS = 20 };
    zqb_broker_options_t options = broker_options ();
    options.heartbeat_ms = BEAT_MS;
    options.liveness = 1000;
    step_broker_with (&options);
    void *asks = dealer ();
    says (dealer (), "|MDPW01|\1|echo");
    step ();
    says (asks, "|MDPC01|echo|x");
    for (int i = 0; i < 3; i++) {
        pass_ms (ZQB__LATE_US / 1000 + 2 * BEAT_MS);
        zqb_broker_step (broker, 0);
        assert_true (i > 0 || broker->engine.paused);
    }
    assert_int_equal (stat (broker, running), 1);
}

TEST (what_a_worker_said_before_it_went_is_heard_whoever_is_heard_first)
{
    zqb_broker_options_t options = broker_options ();
    options.attempts = 1;
    step_broker_with (&options);
    const char *endpoint = bind_tcp ();
    void *peer = dealer_at (endpoint), *asks = dealer_at (endpoint), *proxy = dealer_at (endpoint);
    says (peer, "|MDPW01|\1|echo");
    says (proxy, "one||MDPC01|mmi.none|x");
    steps_until (stat (broker, workers) == 1 && stat (broker, replied) == 1);
    assert_string_equal (hear_text (proxy, 0), "one||MDPC01|mmi.none|501");
    says (asks, "|MDPC01|echo|x");
    steps_until (stat (broker, running) == 1);
    takes_request (peer);
    steps_until (!has_news ());
    says (proxy, "two||MDPC01|mmi.none|x"); /* somebody new: of him the broker wants to know the connection */
    eventually (has_news ());
    answers (peer, "y");
    hangs_up (peer);
    eventually (connection_ended ());
    steps_until (stat (broker, running) == 0);
    assert_string_equal (hear_text (proxy, 0), "two||MDPC01|mmi.none|501");
    assert_int_equal (stat (broker, dead), 0);
    assert_int_equal (stat (broker, replied), 3);
    assert_string_equal (hear_text (asks, 0), "|MDPC01|echo|y");
}

TEST (a_client_that_has_gone_before_it_was_heard_is_not_waited_for)
{
    step_broker_with (NULL);
    const char *endpoint = bind_tcp ();
    void *asks = dealer_at (endpoint);
    says (asks, "|MDPC01|echo|x");
    hangs_up (asks);
    eventually (has_news ());
    pass_ms (100); /* by now libzmq has told of the end, too */
    steps_until (stat (broker, client_gone) == 1);
    assert_int_equal (stat (broker, queued), 0);
}

/* Under the name of a connection that has just ended. libzmq refuses that until it has seen the end: it is tried again.
   The broker reads it in passes in which it does not look at its monitors, as one does that is busy. */
static void calls_again (const char *endpoint, const char *name, const char *text)
{
    uint64_t before = stat (broker, messages_in);
    for (;;) {
        void *socket = named_dealer (endpoint, name);
        says (socket, text);
        for (int i = 0; i < 1000; i++, zmq_poll (NULL, 0, 1)) {
            broker->passes = 0;
            if (zqb__broker_pass (broker, ZMQ_DONTWAIT) > 0 && stat (broker, messages_in) > before)
                return;
        }
        zqb__set_int (socket, ZMQ_LINGER, 0);
        hangs_up (socket);
    }
}

/* A client goes and comes back before the broker has looked what became of its connection. The numbers of connections
   are descriptors: the new one has the number of the old one, unless that was taken by others meanwhile. */
static void come_back_over_another_number (int another)
{
    int taken[4];
    step_broker_with (NULL);
    const char *endpoint = bind_tcp ();
    void *first = named_dealer (endpoint, "client");
    says (first, "|MDPC01|mmi.none|x");
    steps_until (stat (broker, replied) == 1);
    assert_string_equal (hear_text (first, 0), "|MDPC01|mmi.none|501");
    hangs_up (first);
    eventually (!something_came () && connection_ended ());
    for (int i = 0; another && i < 4; i++)
        taken[i] = dup (STDERR_FILENO);
    calls_again (endpoint, "client", "|MDPC01|echo|x");
    for (int i = 0; another && i < 4; i++)
        close (taken[i]);
    step ();
    assert_int_equal (stat (broker, queued), 1);
    assert_int_equal (stat (broker, client_gone), 0);
    void *peer = dealer_at (endpoint);
    says (peer, "|MDPW01|\1|echo");
    steps_until (stat (broker, running) == 1);
    takes_request (peer);
}

TEST (a_client_that_is_back_keeps_what_it_sent_when_the_end_of_its_last_connection_is_read)
{
    come_back_over_another_number (1);
}

TEST (a_client_that_is_back_keeps_what_it_sent_even_if_its_connection_has_the_number_of_the_last)
{
    come_back_over_another_number (0);
}

TEST (a_client_that_is_back_joins_what_is_running_although_a_reply_has_missed_it)
{
    enum { OF_WORKER = 77, OF_CLIENT = 99 };
    step_broker_with (NULL);
    const char *endpoint = bind_tcp ();
    void *peer = dealer_at (endpoint), *asks = dealer_at (endpoint);
    int asked = 0;
    says_command (peer, OF_WORKER, ZQB__READY, 0, "echo");
    steps_until (stat (broker, workers) == 1);
    begin_message (OF_CLIENT);
    add_command (ZQB__REQUEST, 1, "echo", 1, 1);
    add_command (ZQB__REQUEST, 2, "echo", 1, 1);
    send_message (asks);
    steps_until ((asked += count_heard (peer, ZQB__REQUEST)) == 2);
    uint64_t tokens[2] = {heard_ids[0], heard_ids[1]};
    hangs_up (asks);
    eventually (connection_ended ());
    step ();
    says_command (peer, OF_WORKER, ZQB__REPLY, tokens[0], NULL);
    steps_until (stat (broker, running) == 1); /* the reply to the first has nobody to go to */
    asks = dealer_at (endpoint);
    begin_message (OF_CLIENT);
    add_command (ZQB__REQUEST, 2, "echo", 1, 1);
    message.bytes[12 + 5] = 1; /* AGAIN */
    send_message (asks);
    steps_until (stat (broker, messages_in) == 4);
    assert_int_equal (stat (broker, joined), 1);
    assert_int_equal (stat (broker, accepted), 2);
    says_command (peer, OF_WORKER, ZQB__REPLY, tokens[1], NULL);
    steps_until (stat (broker, running) == 0);
    eventually (count_heard (asks, ZQB__REPLY) == 1);
    assert_true (heard_ids[0] == 2);
    assert_int_equal (count_heard (peer, ZQB__REQUEST), 0);
}

TEST (a_reply_to_the_former_owner_of_an_address_does_not_reach_its_new_one)
{
    enum { OLD = 5, NEW = 6 };
    step_broker_with (NULL);
    assert_ok (zqb_broker_handle (broker, "here", echo, NULL));
    void *peer = dealer ();
    says_command (peer, OLD, ZQB__CANCEL, 9, NULL); /* after a first message several are taken in one pass */
    says_command (peer, OLD, ZQB__REQUEST, 1, "here");
    says_command (peer, NEW, ZQB__REQUEST, 1, "nobody");
    step ();
    assert_int_equal (stat (broker, queued), 1);
    assert_int_equal (count_heard (peer, ZQB__REPLY), 0);
    assert_int_equal (stat (broker, client_gone), 1);
    assert_int_equal (stat (broker, replied), 0);
}

/* Whatever there is room for: messages that are wrong. */
static void floods (void *socket)
{
    for (int i = 0; i < 600 && zmq_send (socket, "x", 1, ZMQ_DONTWAIT) >= 0; i++) {
    }
}

TEST (a_worker_that_is_gone_is_found_although_others_never_let_the_broker_finish_reading)
{
    zqb_broker_options_t options = broker_options ();
    options.heartbeat_ms = -1; /* only its connection tells */
    step_broker_with (&options);
    void *peer = dealer_at (bind_tcp ()), *asks = dealer (), *flood = dealer ();
    says (peer, "|MDPW01|\1|echo");
    steps_until (stat (broker, workers) == 1);
    says (asks, "|MDPC01|echo|x");
    steps_until (stat (broker, running) == 1);
    takes_request (peer);
    hangs_up (peer);
    eventually (connection_ended ());
    eventually ((floods (flood), zqb_broker_step (broker, 0), stat (broker, workers_lost) == 1));
    assert_int_equal (stat (broker, queued), 1);
}

/* ---- memory that runs out: every allocation of what is done fails once */

/* Five replies, each so large that three fill a message; the fourth sends it. Whether memory ran out meanwhile. */
static int reply_without_memory (long left)
{
    enum { REPLIES = 5, FOURTH = 3 };
    zqb_request_t *requests[REPLIES - 1], *request; /* one more waits: so nothing need leave at once */
    int answered = 0, ran_out = 0;
    step_broker_with (NULL);
    worker = new_worker (0, 10);
    client = new_client (0, 0, 0);
    for (int i = 0; i < REPLIES; i++)
        submit_zeros ("echo", 1);
    assert_ok (zqb_client_flush (client));
    step ();
    for (int i = 0; i < REPLIES - 1; i++)
        assert_non_null (requests[i] = zqb_worker_recv (worker, 0));
    for (int i = 0; i < FOURTH; i++)
        reply_zeros (requests[i], 100000);
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add (&msg, zeros, 100000);
    memory_left = left;
    while (zqb_request_reply (requests[FOURTH], &msg) != 0 && errno == ENOMEM) {
    }
    ran_out = memory_ran_out ();
    zqb_msg_close (&msg);
    eventually ((request = zqb_worker_recv (worker, 0), request ? reply_zeros (request, 1) : (void) 0, step (),
                 answered += count_replies (), answered == REPLIES));
    assert_int_equal (stat (broker, running), 0);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
    return ran_out;
}

TEST (a_reply_that_could_not_be_sent_for_lack_of_memory_leaves_no_request_running)
{
    for (long left = 0; reply_without_memory (left); left++) {
    }
}

#define OTHER "inproc://other"

/* A client or a worker of a broker that is made of a socket. */
static zqb_client_t *client_of_another (int dialect)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.timeout_ms = PATIENCE_MS;
    return zqb_client_new (ctx, OTHER, &options);
}

static zqb_worker_t *worker_for_another (void)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = ZQB_DIALECT_MDP01;
    return zqb_worker_new (ctx, OTHER, "echo", &options);
}

static int receive_without_memory (void *router, long left)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    client = client_of_another (ZQB_DIALECT_MDP01);
    submit (client, "echo", "x");
    hears_caller (router);
    tells_caller (router, "|MDPC01|echo|1|2|3|4");
    memory_left = left;
    int got = zqb_client_recv (client, &reply, 0) == 0;
    int ran_out = memory_ran_out ();
    assert_true (!got || reply.kind == ZQB_REPLY_ERROR || zqb_msg_count (&reply.body) == 4);
    assert_true (ran_out || (got && reply.kind == ZQB_REPLY_FINAL));
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    forgets_the_rest (router);
    return ran_out;
}

TEST (a_reply_of_which_a_part_was_lost_for_lack_of_memory_is_not_given_to_the_user)
{
    void *router = router_at (OTHER);
    for (long left = 0; receive_without_memory (router, left); left++) {
    }
}

static int be_asked_without_memory (void *router, long left)
{
    worker = worker_for_another ();
    hears_caller (router);
    tells_caller (router, "|MDPW01|\2|client||1|2|3|4");
    memory_left = left;
    zqb_request_t *request = zqb_worker_recv (worker, 0);
    int ran_out = memory_ran_out ();
    assert_true (request ? zqb_msg_count (zqb_request_body (request)) == 4 : ran_out);
    zqb_worker_destroy (&worker);
    forgets_the_rest (router);
    return ran_out;
}

TEST (a_request_of_which_a_part_was_lost_for_lack_of_memory_is_not_given_to_the_user)
{
    void *router = router_at (OTHER);
    for (long left = 0; be_asked_without_memory (router, left); left++) {
    }
}

static int receive_part_without_memory (void *router, long left)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    client = client_of_another (ZQB_DIALECT_MDP02);
    uint64_t one = submit (client, "echo", "one");
    submit (client, "echo", "two");
    hears_caller (router);
    tells_caller (router, "MDPC02|\2|echo|1|2|3|4");
    tells_caller (router, "MDPC02|\3|echo|of one");
    memory_left = left;
    int ran_out = 0;
    for (int i = 0; i < 4; i++) {
        int got = zqb_client_recv (client, &reply, 0) == 0;
        ran_out |= memory_ran_out () && left >= 0;
        left = -1;
        assert_true (!got || reply.id == one || reply.kind == ZQB_REPLY_ERROR);
    }
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    forgets_the_rest (router);
    return ran_out;
}

TEST (over_mdp02_the_answer_to_a_request_that_failed_for_lack_of_memory_is_not_given_to_the_next)
{
    void *router = router_at (OTHER);
    for (long left = 0; receive_part_without_memory (router, left); left++) {
    }
}

static int call_without_memory (long left)
{
    zqb_msg_t request, whole;
    zqb_reply_t reply;
    zqb_msg_init (&request);
    zqb_msg_init (&whole);
    zqb_msg_init (&reply.body);
    broker_with (NULL);
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    client = new_client (0, 200, 100); /* a message for which there is no memory is lost: it is tried again */
    uint64_t first = submit (client, "echo", "first");
    eventually (stat (broker, replied) == 1);
    zqb_msg_add_str (&request, "second");
    memory_left = left;
    int failed = zqb_client_call (client, "echo", &request, &whole), error = errno;
    int ran_out = memory_ran_out ();
    assert_true (!failed || (ran_out && error == ENOMEM));
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_true (reply.id == first);
    assert_true (reply.kind == ZQB_REPLY_ERROR || unit_frame_is (&reply.body, 0, "first"));
    zqb_msg_close (&request);
    zqb_msg_close (&whole);
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    return ran_out;
}

TEST (a_call_without_memory_does_not_lose_the_reply_to_another_request)
{
    for (long left = 0; call_without_memory (left); left++) {
    }
}

enum { BROKER, BIND, BIND_LRU, HANDLER, WORKER, CLIENT, THINGS };

/* Makes one of these: 0, or -1 and errno. Each attempt has its names, as libzmq frees them behind our back. */
static int make (int thing, long attempt)
{
    char names[2][64];
    for (int i = 0; i < 2; i++)
        snprintf (names[i], sizeof names[i], "inproc://%d-%ld-%d", thing, attempt, i);
    switch (thing) {
        case BROKER: return (broker = zqb_broker_new (ctx, NULL)) ? 0 : -1;
        case BIND: return zqb_broker_bind (broker, names[0]);
        case BIND_LRU: return zqb_broker_bind_lru (broker, names[0], names[1], "lru");
        case HANDLER: return zqb_broker_handle (broker, "echo", echo, NULL);
        case WORKER: return (worker = zqb_worker_new (ctx, ENDPOINT, "echo", NULL)) ? 0 : -1;
        default: return (client = zqb_client_new (ctx, ENDPOINT, NULL)) ? 0 : -1;
    }
}

static int make_without_memory (int thing, long left)
{
    if (thing != BROKER)
        step_broker_with (NULL);
    memory_left = left;
    errno = 0;
    int failed = make (thing, left), error = errno, ran_out = memory_ran_out ();
    assert_true (ran_out || !failed);
    if (failed) {
        assert_string_equal (zqb_strerror (error), zqb_strerror (ENOMEM));
        eventually (make (thing, left) == 0);
    }
    zqb_worker_destroy (&worker);
    zqb_client_destroy (&client);
    zqb_broker_destroy (&broker);
    return ran_out;
}

TEST (what_cannot_be_made_for_lack_of_memory_is_enomem_and_may_be_tried_again)
{
    for (int thing = 0; thing < THINGS; thing++)
        for (long left = 0; make_without_memory (thing, left); left++) {
        }
}

static int bind_without_memory (long left)
{
    char name[256] = "", endpoint[256];
    size_t size = sizeof name;
    zqb_broker_destroy (&broker);
    assert_non_null (broker = zqb_broker_new (ctx, NULL));
    memory_left = left;
    int failed = zqb_broker_bind (broker, "tcp://127.0.0.1:*"), ran_out = memory_ran_out ();
    assert_true (ran_out || !failed);
    zmq_getsockopt (broker->ports[0]->socket, ZMQ_LAST_ENDPOINT, name, &size);
    assert_int_equal (zqb_broker_endpoint (broker, 0, endpoint, sizeof endpoint), failed);
    if (failed && strncmp (name, "tcp:", 4) == 0) {
        void *other = open_socket (ZMQ_ROUTER);
        eventually (zmq_bind (other, name) == 0);
        eventually (zqb_broker_bind (broker, ENDPOINT) == 0);
        assert_int_equal (broker->port_count, 2); /* over the first somebody may have said something meanwhile */
    }
    return ran_out;
}

TEST (an_endpoint_that_could_not_be_bound_for_lack_of_memory_is_free_for_others)
{
    for (long left = 0; bind_without_memory (left); left++) {
    }
}

/* ---- the host's functions, called by the broker */

static int is_refused (int result)
{
    return result == -1 && (errno == EBUSY || errno == EALREADY);
}

/* How many of the three ways to run the broker it refuses. If not the first, the others are not tried. */
static int count_ways_refused (void)
{
    if (!is_refused (zqb_broker_step (broker, 0)))
        return 0;
    return 1 + is_refused (zqb_broker_start (broker)) + is_refused (zqb_broker_run (broker));
}

static struct {
    int lines, refused, ways_refused, unclean;
} logged;

static void change_the_broker (UNUSED int level, UNUSED const char *text, UNUSED void *arg)
{
    if (logged.refused < 3 * logged.lines++)
        return; /* that has failed already, and may now be inside itself */
    logged.refused += zqb_broker_handle (broker, "other", echo, NULL) == -1 && errno == EBUSY;
    logged.refused += zqb_broker_bind (broker, "inproc://late") == -1 && errno == EBUSY;
    logged.refused += zqb_broker_bind_lru (broker, "inproc://f", "inproc://b", "lru") == -1 && errno == EBUSY;
    logged.ways_refused += count_ways_refused ();
}

TEST (a_log_function_cannot_change_its_broker)
{
    char name[256];
    zqb_broker_options_t options = broker_options ();
    options.log = change_the_broker;
    options.log_level = ZQB_LOG_DEBUG;
    step_broker_with (&options);
    memset (&logged, 0, sizeof logged);
    void *peer = dealer ();
    says (peer, "|MDPW01|\1|echo");
    says (peer, "|MDPW01|\11|what is this"); /* and so it is lost */
    says (peer, "|MDPW01|\1|echo");
    says (peer, "|MDPW01|\5");
    step ();
    assert_int_equal (stat (broker, workers_lost), 1);
    assert_int_equal (stat (broker, workers_left), 1);
    assert_true (logged.lines >= 4);
    assert_int_equal (logged.refused, 3 * logged.lines);
    assert_int_equal (logged.ways_refused, 3 * logged.lines);
    assert_fails (zqb_broker_endpoint (broker, 1, name, sizeof name), EINVAL);
    assert_int_equal (stat (broker, services), 0);
}

static int run_the_broker (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, void *arg)
{
    *(int *) arg += count_ways_refused ();
    return 0;
}

TEST (a_handler_cannot_run_its_broker_whoever_called_it)
{
    int ways_refused = 0;
    step_broker_with (NULL);
    void *peer = dealer ();
    says (peer, "|MDPC01|here|x");
    step ();
    assert_ok (zqb_broker_handle (broker, "here", run_the_broker, &ways_refused));
    assert_int_equal (ways_refused, 3);
    says (peer, "|MDPC01|here|x");
    step ();
    assert_int_equal (ways_refused, 6);
    assert_int_equal (stat (broker, replied), 2);
}

static void look_at_line (UNUSED int level, const char *text, UNUSED void *arg)
{
    logged.lines++;
    for (; *text; text++)
        logged.unclean += (unsigned char) *text < 32 || *text == 127;
}

TEST (a_line_for_the_log_is_one_line_whatever_peers_call_themselves)
{
    static const char name[] = "echo\nroot logged in\r\t\033[2J\177";
    char ready[64];
    zqb_worker_options_t of_worker;
    zqb_broker_options_t options = broker_options ();
    memset (&of_worker, 0, sizeof of_worker);
    options.log = of_worker.log = look_at_line;
    options.log_level = ZQB_LOG_DEBUG;
    step_broker_with (&options);
    memset (&logged, 0, sizeof logged);
    snprintf (ready, sizeof ready, "|MDPW01|\1|%s", name);
    void *peer = dealer ();
    says (peer, ready);
    says (peer, "|MDPW01|\5");
    step ();
    assert_true (logged.lines >= 2);
    assert_non_null (worker = zqb_worker_new (ctx, ENDPOINT, name, &of_worker));
    step ();
    zqb_broker_destroy (&broker);
    int before = logged.lines;
    assert_null (zqb_worker_recv (worker, 0));
    assert_true (logged.lines > before);
    assert_int_equal (logged.unclean, 0);
}

/* ---- a connection that ends while its owner waits: only the monitor tells, as nobody is missed when silent */

static const char *tcp_endpoint_of (void *socket)
{
    static char endpoint[256];
    size_t size = sizeof endpoint;
    assert_ok (zmq_getsockopt (socket, ZMQ_LAST_ENDPOINT, endpoint, &size));
    return endpoint;
}

TEST (a_worker_that_waits_turns_to_the_next_broker_as_soon_as_its_own_is_gone)
{
    char endpoints[300];
    zqb_worker_options_t options;
    void *router = router_at ("tcp://127.0.0.1:*");
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = -1;
    snprintf (endpoints, sizeof endpoints, "%s,%s", tcp_endpoint_of (router), ENDPOINT);
    assert_non_null (worker = zqb_worker_new (ctx, endpoints, "echo", &options));
    hears_caller (router);
    client = new_client (0, 0, 0);
    uint64_t id = submit (client, "echo", "x");
    hangs_up (router);
    assert_ok (reply_text (is_asked (worker, "x"), "y"));
    receives (client, id, ZQB_REPLY_FINAL, "y");
}

static void serve_at (const char *endpoint)
{
    zqb_broker_destroy (&broker);
    assert_non_null (broker = zqb_broker_new (ctx, NULL));
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    eventually (zqb_broker_bind (broker, endpoint) == 0); /* libzmq frees the port behind our back */
    assert_ok (zqb_broker_start (broker));
}

/* More than go in one message. */
enum { LOST = 5000 };

TEST (what_a_client_waits_for_is_asked_again_as_soon_as_its_connection_is_lost)
{
    static uint64_t ids[LOST];
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_client_options_t options;
        void *router = router_at ("tcp://127.0.0.1:*");
        const char *endpoint = tcp_endpoint_of (router);
        memset (&options, 0, sizeof options);
        options.dialect = dialect;
        options.timeout_ms = -1;
        assert_non_null (client = zqb_client_new (ctx, endpoint, &options));
        for (int i = 0; i < LOST; i++)
            ids[i] = submit (client, "echo", "x");
        hears_caller (router);
        hangs_up (router);
        serve_at (endpoint);
        for (int i = 0; i < LOST; i++)
            receives (client, ids[i], ZQB_REPLY_FINAL, "x");
        zqb_client_destroy (&client);
    }
}

/* What was sent may have been executed, and its reply lost with the connection. */
TEST (a_client_that_is_not_to_try_again_does_not_ask_twice_when_its_connection_is_lost)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_client_options_t options;
        void *router = router_at ("tcp://127.0.0.1:*");
        const char *endpoint = tcp_endpoint_of (router);
        memset (&options, 0, sizeof options);
        options.dialect = dialect;
        options.retries = -1;
        options.timeout_ms = -1;
        assert_non_null (client = zqb_client_new (ctx, endpoint, &options));
        uint64_t id = submit (client, "echo", "x");
        hears_caller (router);
        hangs_up (router);
        receives_error (client, id, ETIMEDOUT);
        serve_at (endpoint);
        id = submit (client, "echo", "y");
        receives (client, id, ZQB_REPLY_FINAL, "y");
        assert_int_equal (stat (broker, accepted), 1);
        zqb_client_destroy (&client);
    }
}

static rlim_t limit_descriptors (rlim_t most)
{
    struct rlimit limit;
    assert_ok (getrlimit (RLIMIT_NOFILE, &limit));
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = most;
    assert_ok (setrlimit (RLIMIT_NOFILE, &limit));
    return before;
}

/* When its connection is lost there is no other to be had for a while. */
TEST (a_client_without_time_out_that_got_no_socket_tries_again)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_client_options_t options;
        zqb_reply_t reply;
        void *router = router_at ("tcp://127.0.0.1:*");
        const char *endpoint = tcp_endpoint_of (router);
        memset (&options, 0, sizeof options);
        memset (&reply, 0, sizeof reply);
        options.dialect = dialect;
        options.timeout_ms = -1;
        assert_non_null (client = zqb_client_new (ctx, endpoint, &options));
        uint64_t id = submit (client, "echo", "x");
        hears_caller (router);
        hangs_up (router);
        rlim_t before = limit_descriptors (3);
        int waited = 0;
        for (; client->line.socket && waited < PATIENCE_MS; waited += 10)
            assert_fails (zqb_client_recv (client, &reply, 10), EAGAIN);
        limit_descriptors (before);
        assert_true (waited < PATIENCE_MS);
        serve_at (endpoint);
        receives (client, id, ZQB_REPLY_FINAL, "x");
        zqb_client_destroy (&client);
    }
}

/* ---- small surprises */

TEST (a_worker_that_need_not_wait_does_not_wait_for_a_broker_that_is_gone)
{
    int events = ZMQ_POLLOUT;
    size_t size = sizeof events;
    worker = new_worker (0, 1);
    eventually (stat (broker, workers) == 1);
    zqb_broker_destroy (&broker);
    eventually (zmq_getsockopt (worker->line.socket, ZMQ_EVENTS, &events, &size) == 0 && !(events & ZMQ_POLLOUT));
    uint64_t start = zqb__clock ();
    for (int i = 0; i < 4; i++)
        assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    assert_true (zqb__clock () - start < 1500 * 1000); /* it once took a heartbeat, 2.5 seconds */
}

TEST (a_pause_between_attempts_cannot_be_without_limit)
{
    zqb_worker_options_t options[2];
    memset (options, 0, sizeof options);
    options[0].reconnect_ms = -1;
    options[1].reconnect_max_ms = -1;
    for (int i = 0; i < 2; i++) {
        errno = 0;
        worker = zqb_worker_new (ctx, ENDPOINT, "echo", &options[i]);
        assert_null (worker);
        assert_int_equal (errno, EINVAL);
    }
}

TEST (a_call_whose_reply_would_replace_its_request_is_einval)
{
    zqb_msg_t msg;
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    client = new_client (0, 0, 0);
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, "x");
    assert_fails (zqb_client_call (client, "echo", &msg, &msg), EINVAL);
    assert_int_equal (zqb_msg_count (&msg), 1);
    assert_frame (&msg, 0, "x");
    zqb_msg_close (&msg);
}

static int runs (void)
{
    zqb__lock_enter (&broker->lock);
    int running = broker->running;
    zqb__lock_leave (&broker->lock);
    return running;
}

TEST (a_broker_that_was_stopped_twice_runs_when_it_is_started)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    zqb_broker_stop (broker);
    eventually (!runs ());
    zqb_broker_stop (broker);
    assert_ok (zqb_broker_start (broker));
    client = new_client (0, 0, 0);
    receives (client, submit (client, "echo", "x"), ZQB_REPLY_FINAL, "x");
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_broker_that_does_not_read_a_flood_does_not_end_the_process), /* first: it forks */
        RUNNING (run_ends_with_the_context_even_if_that_ends_while_the_worker_is_at_work),
        RUNNING (recv_hears_of_the_end_of_the_context_that_a_reply_has_met),
        STEPPED (time_outs_at_an_endpoint_of_inproc_that_nobody_has_bound_use_up_no_sockets),
        STEPPED (a_request_of_too_many_frames_takes_no_memory_for_them),
        STEPPED (the_limit_of_frames_is_one_of_each_body_not_of_what_is_packed_together),
        STEPPED (what_our_own_client_and_worker_pack_together_the_broker_takes),
        STEPPED (over_tcp_the_largest_message_that_our_own_client_packs_is_taken),
        RUNNING (a_part_of_a_reply_that_is_too_large_ends_the_request),
        RUNNING (gathered_parts_of_replies_count_among_the_bytes_that_are_kept),
        STEPPED (of_a_peer_that_cannot_be_answered_no_more_requests_are_served),
        STEPPED (a_heartbeat_drops_no_reply_that_is_packed),
        STEPPED (a_worker_that_sent_heartbeats_is_not_lost_because_the_broker_was_not_run),
        STEPPED (a_host_that_steps_too_seldom_is_served_nevertheless),
        STEPPED (what_a_worker_said_before_it_went_is_heard_whoever_is_heard_first),
        STEPPED (a_client_that_has_gone_before_it_was_heard_is_not_waited_for),
        STEPPED (a_client_that_is_back_keeps_what_it_sent_when_the_end_of_its_last_connection_is_read),
        STEPPED (a_client_that_is_back_keeps_what_it_sent_even_if_its_connection_has_the_number_of_the_last),
        STEPPED (a_client_that_is_back_joins_what_is_running_although_a_reply_has_missed_it),
        STEPPED (a_reply_to_the_former_owner_of_an_address_does_not_reach_its_new_one),
        STEPPED (a_worker_that_is_gone_is_found_although_others_never_let_the_broker_finish_reading),
        STEPPED (a_reply_that_could_not_be_sent_for_lack_of_memory_leaves_no_request_running),
        STEPPED (a_reply_of_which_a_part_was_lost_for_lack_of_memory_is_not_given_to_the_user),
        STEPPED (a_request_of_which_a_part_was_lost_for_lack_of_memory_is_not_given_to_the_user),
        STEPPED (over_mdp02_the_answer_to_a_request_that_failed_for_lack_of_memory_is_not_given_to_the_next),
        RUNNING (a_call_without_memory_does_not_lose_the_reply_to_another_request),
        STEPPED (what_cannot_be_made_for_lack_of_memory_is_enomem_and_may_be_tried_again),
        STEPPED (an_endpoint_that_could_not_be_bound_for_lack_of_memory_is_free_for_others),
        STEPPED (a_log_function_cannot_change_its_broker),
        STEPPED (a_handler_cannot_run_its_broker_whoever_called_it),
        STEPPED (a_line_for_the_log_is_one_line_whatever_peers_call_themselves),
        RUNNING (a_worker_that_waits_turns_to_the_next_broker_as_soon_as_its_own_is_gone),
        STEPPED (what_a_client_waits_for_is_asked_again_as_soon_as_its_connection_is_lost),
        STEPPED (a_client_that_is_not_to_try_again_does_not_ask_twice_when_its_connection_is_lost),
        STEPPED (a_client_without_time_out_that_got_no_socket_tries_again),
        RUNNING (a_worker_that_need_not_wait_does_not_wait_for_a_broker_that_is_gone),
        RUNNING (a_pause_between_attempts_cannot_be_without_limit),
        RUNNING (a_call_whose_reply_would_replace_its_request_is_einval),
        RUNNING (a_broker_that_was_stopped_twice_runs_when_it_is_started),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
