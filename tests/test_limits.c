/* What happens when there is too much: back-pressure at endpoints for clients, peers that do not read, and clients that
   want everything for themselves; over real sockets. That each limit refuses and counts is in test_engine.c. */
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"

static zqb_broker_options_t options;

static int set_up_limits (void **state)
{
    memset (&options, 0, sizeof options);
    return set_up (state);
}

#define LIMITED(name) cmocka_unit_test_setup_teardown (name, set_up_limits, tear_down)

/* ---- peers of Majordomo, made of sockets */

static void *connect_to (const char *endpoint, int type)
{
    void *socket = zmq_socket (ctx, type);
    zqb__set_int (socket, ZMQ_RCVTIMEO, PATIENCE_MS);
    zqb__set_int (socket, ZMQ_LINGER, 0);
    zqb__set_int (socket, ZMQ_RCVHWM, 1);
    zqb__set_int (socket, ZMQ_SNDHWM, 0);
    assert_ok (zmq_connect (socket, endpoint));
    return socket;
}

static void send_frames (void *socket, const char *const *frames, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_true (zmq_send (socket, frames[i], strlen (frames[i]), i + 1 < count ? ZMQ_SNDMORE : 0) >= 0);
}

static void ask (void *socket, const char *body)
{
    const char *frames[] = {"", "MDPC01", "echo", body};
    send_frames (socket, frames, COUNT (frames));
}

/* How many messages there are, of which each ends with this frame. */
static int answers (void *socket, int count, const char *last)
{
    int right = 0;
    for (int i = 0; i < count; i++) {
        int more = 1;
        while (more) {
            char frame[64];
            int size = zmq_recv (socket, frame, sizeof frame, 0);
            if (size < 0)
                return right;
            more = 0;
            size_t size_of_more = sizeof more;
            zmq_getsockopt (socket, ZMQ_RCVMORE, &more, &size_of_more);
            right += !more && size == (int) strlen (last) && memcmp (frame, last, (size_t) size) == 0;
        }
    }
    return right;
}

static zqb_pool_t *start_workers (void)
{
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, NULL);
    assert_non_null (pool);
    return pool;
}

static const char *bound_at (int index)
{
    static char endpoint[256];
    assert_ok (zqb_broker_endpoint (broker, index, endpoint, sizeof endpoint));
    return endpoint;
}

/* ---- endpoints for clients */

TEST (clients_of_an_endpoint_of_their_own_are_served_by_workers_of_the_other)
{
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    void *client = connect_to ("inproc://clients", ZMQ_DEALER);
    zqb_pool_t *pool = start_workers ();
    ask (client, "hello");
    assert_int_equal (answers (client, 1, "hello"), 1);
    zqb_pool_stop (&pool);
    zmq_close (client);
}

TEST (a_worker_that_registers_at_an_endpoint_for_clients_is_refused)
{
    const char *ready[] = {"", "MDPW01", "\1", "echo"};
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    zqb_worker_t *worker = zqb_worker_new (ctx, "inproc://clients", "echo", NULL);
    assert_none (zqb_worker_recv (worker, PATIENCE_MS), ZQB_EREFUSED);
    void *plain = connect_to ("inproc://clients", ZMQ_DEALER);
    send_frames (plain, ready, COUNT (ready));
    assert_int_equal (answers (plain, 1, "\5"), 1);
    assert_int_equal (stat (broker, refused_endpoint), 2);
    assert_int_equal (stat (broker, workers), 0);
    zmq_close (plain);
    zqb_worker_destroy (&worker);
}

TEST (an_endpoint_for_clients_that_cannot_be_bound_says_why)
{
    assert_fails (zqb_broker_bind_clients (broker, "nonsense"), EINVAL);
    assert_fails (zqb_broker_bind_clients (broker, ENDPOINT), EADDRINUSE);
    assert_fails (zqb_broker_bind_clients (NULL, "inproc://clients"), EINVAL);
    assert_fails (zqb_broker_bind_clients (broker, NULL), EINVAL);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    assert_ok (zqb_broker_bind_clients (broker, "inproc://more-clients"));
    assert_string_equal (bound_at (1), "inproc://clients");
    assert_string_equal (bound_at (2), "inproc://more-clients");
    assert_int_equal (broker->port_count, 2);
}

TEST (an_endpoint_for_clients_that_cannot_be_bound_leaves_nothing_behind)
{
    assert_fails (zqb_broker_bind_clients (broker, "nonsense"), EINVAL);
    assert_int_equal (broker->port_count, 1);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    assert_fails (zqb_broker_bind_clients (broker, "nonsense"), EINVAL);
    assert_int_equal (broker->port_count, 2);
}

static int bind_more (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) request, (void) arg;
    int refused = zqb_broker_bind_clients (broker, "inproc://more") == -1 && errno == EBUSY;
    return zqb_msg_add_str (reply, refused ? "busy" : "bound");
}

TEST (a_handler_cannot_bind_an_endpoint_for_clients)
{
    assert_ok (zqb_broker_handle (broker, "echo", bind_more, NULL));
    void *client = connect_to (ENDPOINT, ZMQ_DEALER);
    ask (client, "x");
    assert_int_equal (answers (client, 1, "busy"), 1);
    zmq_close (client);
}

TEST (without_sockets_there_is_no_endpoint_for_clients)
{
    void *small = zmq_ctx_new ();
    zmq_ctx_set (small, ZMQ_MAX_SOCKETS, 4); /* the broker takes three, the endpoint for clients as many more */
    zqb_broker_t *other = zqb_broker_new (small, NULL);
    assert_non_null (other);
    assert_fails (zqb_broker_bind_clients (other, "inproc://clients"), EMFILE);
    assert_ok (zqb_broker_bind (other, "inproc://other"));
    assert_ok (zqb_broker_handle (other, "echo", echo, NULL));
    zqb_broker_destroy (&other);
    zmq_ctx_term (small);
}

/* ---- no room */

static uint64_t refused (void)
{
    zqb_stats_t stats = unit_stats (broker);
    return unit_refused (&stats);
}

enum { MANY = 50 };

/* Clients ask more than there is room for, before there is a worker, and then there is one. */
static void ask_too_much (void)
{
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    void *one = connect_to ("inproc://clients", ZMQ_DEALER), *other = connect_to ("inproc://clients", ZMQ_DEALER);
    for (int i = 0; i < MANY; i++)
        ask (i % 2 ? one : other, "hello");
    eventually (stat (broker, queued) == 4);
    zqb_pool_t *pool = start_workers ();
    assert_int_equal (answers (one, MANY / 2, "hello"), MANY / 2);
    assert_int_equal (answers (other, MANY / 2, "hello"), MANY / 2);
    assert_int_equal (stat (broker, replied), MANY);
    assert_int_equal (refused (), 0);
    zqb_pool_stop (&pool);
    zmq_close (one);
    zmq_close (other);
}

TEST (what_there_is_no_room_for_waits_in_the_sockets_of_clients_if_asked)
{
    options.max_requests = 4;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    ask_too_much ();
}

TEST (what_there_are_too_many_bytes_of_waits_too)
{
    options.max_bytes = 4 * 9;
    options.max_message = 9; /* 5 bytes in a frame */
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    ask_too_much ();
}

TEST (otherwise_what_there_is_no_room_for_is_dropped_and_counted)
{
    options.max_requests = 4;
    broker_with (&options);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    void *client = connect_to ("inproc://clients", ZMQ_DEALER);
    for (int i = 0; i < MANY; i++)
        ask (client, "hello");
    eventually (stat (broker, refused_requests) == MANY - 4);
    assert_int_equal (stat (broker, queued), 4);
    zmq_close (client);
}

TEST (where_workers_are_too_nothing_waits_as_replies_come_the_same_way)
{
    options.max_requests = 4;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    void *client = connect_to (ENDPOINT, ZMQ_DEALER);
    for (int i = 0; i < MANY; i++)
        ask (client, "hello");
    eventually (stat (broker, refused_requests) == MANY - 4);
    zmq_close (client);
}

/* Who has a word for a refusal must be heard: what it cancels, and what it sends again. */
TEST (requests_of_zqb1_do_not_wait_but_are_refused)
{
    options.max_requests = 4;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    zqb_client_t *client = zqb_client_new (ctx, "inproc://clients", NULL);
    receives_error (client, submit (client, "echo", "x"), ZQB_EREFUSED);
    assert_int_equal (stat (broker, refused_endpoint), 1);
    zqb_client_destroy (&client);
}

TEST (little_waits_in_the_sockets_of_the_broker)
{
    int most = 0;
    size_t size = sizeof most;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    assert_ok (zmq_getsockopt (broker->ports[1]->socket, ZMQ_RCVHWM, &most, &size));
    assert_int_equal (most, ZQB__WAITING);
    assert_ok (zmq_getsockopt (broker->ports[0]->socket, ZMQ_RCVHWM, &most, &size));
    assert_int_equal (most, 1000); /* where workers are, too: libzmq's own */
}

/* One has a flood waiting, and takes all room each time that there is some. */
TEST (endpoints_that_wait_take_turns)
{
    const char *frames[] = {"", "hello"};
    options.max_requests = 4;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    assert_ok (zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "echo"));
    void *flood = connect_to ("inproc://clients", ZMQ_DEALER), *lone = connect_to ("inproc://front", ZMQ_DEALER);
    for (int i = 0; i < 3000; i++)
        ask (flood, "flood");
    eventually (stat (broker, queued) == 4);
    send_frames (lone, frames, COUNT (frames));
    zqb_worker_t *worker = new_worker (ZQB_DIALECT_MDP01, 0);
    int served = 0, was_lone = 0;
    for (; !was_lone && served < 10; served++) {
        zqb_request_t *request = zqb_worker_recv (worker, PATIENCE_MS);
        assert_non_null (request);
        was_lone = unit_frame_is (zqb_request_body (request), 0, "hello");
        assert_ok (zqb_request_reply (request, zqb_request_body (request)));
    }
    assert_true (was_lone);
    zqb_worker_destroy (&worker);
    zmq_close (flood);
    zmq_close (lone);
}

TEST (a_full_queue_of_an_lru_service_holds_its_own_frontend_only)
{
    const char *frames[] = {"", "hello"};
    options.max_queue = 4;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    assert_ok (zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "lru"));
    assert_ok (zqb_broker_bind_lru (broker, "inproc://front2", "inproc://back2", "other"));
    void *client = connect_to ("inproc://front", ZMQ_DEALER), *other = connect_to ("inproc://front2", ZMQ_DEALER);
    for (int i = 0; i < MANY; i++)
        send_frames (client, frames, COUNT (frames));
    eventually (stat (broker, queued) == 4);
    send_frames (other, frames, COUNT (frames));
    eventually (stat (broker, queued) == 5);
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "lru", echo, NULL, NULL);
    assert_int_equal (answers (client, MANY, "hello"), MANY);
    assert_int_equal (refused (), 0);
    zqb_pool_stop (&pool);
    zmq_close (client);
    zmq_close (other);
}

TEST (the_room_of_a_client_that_dies_is_for_others)
{
    options.max_requests = 4;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    assert_ok (zqb_broker_bind_clients (broker, "tcp://127.0.0.1:*"));
    void *dies = connect_to (bound_at (-1), ZMQ_DEALER);
    for (int i = 0; i < 4; i++)
        ask (dies, "hello");
    eventually (stat (broker, queued) == 4);
    void *lives = connect_to (bound_at (-1), ZMQ_DEALER);
    ask (lives, "hello");
    zmq_close (dies);
    eventually (stat (broker, accepted) == 5);
    assert_int_equal (stat (broker, client_gone), 4);
    zmq_close (lives);
}

TEST (what_expires_makes_room)
{
    options.max_requests = 1;
    options.no_worker_ms = 20;
    options.when_full = ZQB_FULL_WAIT;
    broker_with (&options);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    void *client = connect_to ("inproc://clients", ZMQ_DEALER);
    for (int i = 0; i < 3; i++)
        ask (client, "hello");
    eventually (stat (broker, expired) == 3);
    assert_int_equal (refused (), 0);
    zmq_close (client);
}

/* As long as there is no room, what comes does not make the descriptor readable; as soon as there is, it does. */
TEST (a_host_with_a_loop_of_its_own_is_not_woken_by_what_has_to_wait)
{
    options.max_requests = 1;
    options.when_full = ZQB_FULL_WAIT;
    zqb_broker_destroy (&broker);
    broker = zqb_broker_new (ctx, &options);
    assert_ok (zqb_broker_bind_clients (broker, "inproc://clients"));
    zqb__poll_t item = zqb__poll_item (zqb_broker_fd (broker));
    void *client = connect_to ("inproc://clients", ZMQ_DEALER);
    ask (client, "one");
    while (stat (broker, queued) == 0)
        assert_true (zqb_broker_step (broker, 100) >= 0);
    while (zqb_broker_step (broker, 0) == 0) {
    }
    ask (client, "two");
    assert_true (zqb_broker_step (broker, 0) > 0);
    assert_int_equal (zqb__wait (&item, 1, 0), 0);
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    while (stat (broker, replied) < 2 && zqb__wait (&item, 1, PATIENCE_MS * 1000u) == 1)
        while (zqb_broker_step (broker, 0) == 0) {
        }
    assert_int_equal (stat (broker, replied), 2);
    zmq_close (client);
}

TEST (what_is_neither_dropping_nor_waiting_is_einval)
{
    options.when_full = 2;
    assert_none (zqb_broker_new (ctx, &options), EINVAL);
    options.when_full = -1;
    assert_none (zqb_broker_new (ctx, &options), EINVAL);
}

/* ---- peers that do not read */

enum { LARGE = 1 << 20 };

static int reply_large (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) request;
    return zqb_msg_add (reply, arg, LARGE);
}

static uint64_t unsent (void)
{
    zqb__mutex_enter (&broker->unsent->mutex);
    uint64_t bytes = broker->unsent->bytes;
    zqb__mutex_leave (&broker->unsent->mutex);
    return bytes;
}

static char large[LARGE];

/* A broker that answers each request with a megabyte, over tcp. */
static void answer_large (void)
{
    broker_with (&options);
    assert_ok (zqb_broker_handle (broker, "echo", reply_large, large));
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
}

TEST (a_client_that_does_not_read_costs_no_more_than_it_may_and_holds_up_nobody)
{
    options.max_unsent = 4 * LARGE;
    answer_large ();
    void *stuck = connect_to (bound_at (-1), ZMQ_DEALER);
    for (int i = 0; i < 100; i++)
        ask (stuck, "more");
    eventually (stat (broker, accepted) == 100);
    assert_true (stat (broker, unsendable) > 0);
    assert_true (unsent () < 6 * LARGE); /* the last may be as large as it likes */
    void *other = connect_to (ENDPOINT, ZMQ_DEALER);
    ask (other, "hello");
    char byte;
    assert_true (zmq_recv (other, &byte, 1, 0) == 0);
    zqb_stats_t stats = unit_stats (broker);
    assert_true (stats.client_gone > 0 && unit_adds_up (&stats));
    zmq_close (stuck);
    eventually (unsent () == 0);
    zmq_close (other);
}

TEST (several_slow_connections_share_what_may_wait)
{
    enum { SLOW = 8 };
    void *stuck[SLOW];
    options.max_bytes = 8 * LARGE;
    options.max_unsent = 8 * LARGE;
    answer_large ();
    for (int i = 0; i < SLOW; i++)
        stuck[i] = connect_to (bound_at (-1), ZMQ_DEALER);
    for (int i = 0; i < SLOW * 50; i++)
        ask (stuck[i % SLOW], "more");
    eventually (stat (broker, accepted) == SLOW * 50);
    assert_true (stat (broker, unsendable) > 0);
    assert_true (unsent () < (8 + 1 + SLOW) * LARGE); /* and one message each */
    for (int i = 0; i < SLOW; i++)
        zmq_close (stuck[i]);
    eventually (unsent () == 0);
}

TEST (what_waits_to_be_sent_may_outlive_its_broker)
{
    answer_large ();
    void *stuck = connect_to (bound_at (-1), ZMQ_DEALER);
    for (int i = 0; i < 20; i++)
        ask (stuck, "more");
    eventually (stat (broker, replied) == 20);
    assert_true (unsent () > 0);
    zqb_broker_destroy (&broker);
    zmq_close (stuck);
}

TEST (a_client_that_reads_gets_all_however_much_that_is)
{
    options.max_unsent = 100 * (int64_t) LARGE;
    answer_large ();
    void *client = connect_to (bound_at (-1), ZMQ_DEALER);
    for (int i = 0; i < 64; i++)
        ask (client, "more");
    for (int i = 0; i < 64 * 4; i++) {
        zmq_msg_t frame;
        zmq_msg_init (&frame);
        assert_true (zmq_msg_recv (&frame, client, 0) >= 0);
        assert_true (zmq_msg_more (&frame) || zmq_msg_size (&frame) == LARGE);
        zmq_msg_close (&frame);
    }
    assert_int_equal (stat (broker, replied), 64);
    assert_int_equal (stat (broker, unsendable), 0);
    eventually (unsent () == 0);
    zmq_close (client);
}

/* ---- a client that wants everything */

/* All requests of one who asks a thousand times come before the first of another; that one is served second. */
TEST (a_greedy_client_does_not_starve_another)
{
    enum { GREEDY = 1000 };
    void *greedy = connect_to (ENDPOINT, ZMQ_DEALER), *modest = connect_to (ENDPOINT, ZMQ_DEALER);
    for (int i = 0; i < GREEDY; i++)
        ask (greedy, "greedy");
    eventually (stat (broker, queued) == GREEDY);
    ask (modest, "modest");
    eventually (stat (broker, queued) == GREEDY + 1);
    zqb_worker_t *worker = new_worker (ZQB_DIALECT_MDP01, 0);
    assert_ok (reply_text (is_asked (worker, "greedy"), "done"));
    assert_ok (reply_text (is_asked (worker, "modest"), "done"));
    assert_int_equal (answers (modest, 1, "done"), 1);
    zqb_worker_destroy (&worker);
    zmq_close (greedy);
    zmq_close (modest);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        LIMITED (clients_of_an_endpoint_of_their_own_are_served_by_workers_of_the_other),
        LIMITED (a_worker_that_registers_at_an_endpoint_for_clients_is_refused),
        LIMITED (an_endpoint_for_clients_that_cannot_be_bound_says_why),
        LIMITED (an_endpoint_for_clients_that_cannot_be_bound_leaves_nothing_behind),
        LIMITED (a_handler_cannot_bind_an_endpoint_for_clients),
        LIMITED (without_sockets_there_is_no_endpoint_for_clients),
        LIMITED (what_there_is_no_room_for_waits_in_the_sockets_of_clients_if_asked),
        LIMITED (what_there_are_too_many_bytes_of_waits_too),
        LIMITED (otherwise_what_there_is_no_room_for_is_dropped_and_counted),
        LIMITED (where_workers_are_too_nothing_waits_as_replies_come_the_same_way),
        LIMITED (requests_of_zqb1_do_not_wait_but_are_refused),
        LIMITED (little_waits_in_the_sockets_of_the_broker),
        LIMITED (endpoints_that_wait_take_turns),
        LIMITED (a_full_queue_of_an_lru_service_holds_its_own_frontend_only),
        LIMITED (the_room_of_a_client_that_dies_is_for_others),
        LIMITED (what_expires_makes_room),
        LIMITED (a_host_with_a_loop_of_its_own_is_not_woken_by_what_has_to_wait),
        LIMITED (what_is_neither_dropping_nor_waiting_is_einval),
        LIMITED (a_client_that_does_not_read_costs_no_more_than_it_may_and_holds_up_nobody),
        LIMITED (several_slow_connections_share_what_may_wait),
        LIMITED (what_waits_to_be_sent_may_outlive_its_broker),
        LIMITED (a_client_that_reads_gets_all_however_much_that_is),
        LIMITED (a_greedy_client_does_not_starve_another),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
