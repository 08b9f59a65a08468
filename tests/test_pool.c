/* Pools: threads of workers that start together, serve together and end without losing anything. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_threads.h"
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"

static zqb_pool_t *new_pool (const char *service, int threads, zqb_handler_fn *handler, void *arg)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = threads;
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, service, handler, arg, &options);
    assert_non_null (pool);
    return pool;
}

TEST (an_argument_that_is_wrong_is_einval_and_starts_nothing)
{
    char name[257];
    memset (name, 'n', 256);
    name[256] = 0;
    const struct {
        void *ctx;
        const char *endpoints, *service;
        zqb_handler_fn *handler;
        int threads, credit, error;
    } cases[] = {
        {NULL, ENDPOINT, "echo", echo, 1, 0, EINVAL},       {ctx, NULL, "echo", echo, 1, 0, EINVAL},
        {ctx, ENDPOINT, NULL, echo, 1, 0, EINVAL},          {ctx, ENDPOINT, "", echo, 1, 0, EINVAL},
        {ctx, ENDPOINT, name, echo, 1, 0, EINVAL},          {ctx, ENDPOINT, "mmi.echo", echo, 1, 0, EINVAL},
        {ctx, ENDPOINT, "echo", NULL, 1, 0, EINVAL},        {ctx, ENDPOINT, "echo", echo, -1, 0, EINVAL},
        {ctx, ENDPOINT, "echo", echo, 1, 70000, EINVAL},    {ctx, "nonsense", "echo", echo, 3, 0, EINVAL},
        {ctx, "what://ever", "echo", echo, 3, 0, EPROTONOSUPPORT},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_pool_options_t options;
        memset (&options, 0, sizeof options);
        options.threads = cases[i].threads;
        options.worker.credit = cases[i].credit;
        zqb_pool_t *pool = zqb_pool_start (cases[i].ctx, cases[i].endpoints, cases[i].service, cases[i].handler, NULL,
                                           &options);
        int error = errno;
        assert_null (pool);
        assert_int_equal (error, cases[i].error);
    }
    assert_int_equal (stat (broker, workers), 0);
}

TEST (a_pool_without_enough_sockets_is_emfile_and_leaves_nothing_behind)
{
    void *small = zmq_ctx_new ();
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 50;
    zmq_ctx_set (small, ZMQ_MAX_SOCKETS, 10);
    assert_none (zqb_pool_start (small, "tcp://127.0.0.1:1", "echo", echo, NULL, &options), EMFILE);
    assert_ok (zmq_ctx_term (small));
}

TEST (a_pool_without_descriptors_is_emfile_and_may_be_started_later)
{
    zqb_pool_t *pool = NULL;
    zqb_broker_destroy (&broker); /* nothing else is to miss them */
    assert_without_descriptors ((pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, NULL)) == NULL);
    eventually ((broker = start_broker (ENDPOINT, NULL)) != NULL);
    pool = new_pool ("echo", 2, echo, NULL);
    eventually (stat (broker, workers) == 2);
    zqb_pool_stop (&pool);
}

TEST (a_pool_without_enough_threads_is_eagain_and_leaves_none_running)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 4;
    for (int left = 0; left < options.threads; left++) {
        unit_threads_left = left;
        errno = 0;
        zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
        int error = errno;
        unit_threads_left = -1;
        assert_null (pool);
        assert_int_equal (error, EAGAIN);
        eventually (stat (broker, workers_left) == 4 * ((uint64_t) left + 1)); /* all have said goodbye */
        assert_int_equal (stat (broker, workers), 0);
    }
}

TEST (a_broker_without_a_thread_is_eagain_and_may_be_started_later)
{
    zqb_broker_t *other = zqb_broker_new (ctx, NULL);
    unit_threads_left = 0;
    assert_fails (zqb_broker_start (other), EAGAIN);
    assert_fails (zqb_broker_start (other), EAGAIN); /* and not EALREADY */
    unit_threads_left = -1;
    assert_ok (zqb_broker_start (other));
    assert_fails (zqb_broker_start (other), EALREADY);
    zqb_broker_destroy (&other);
}

TEST (stopping_nothing_is_fine_and_leaves_null)
{
    zqb_pool_t *pool = NULL;
    zqb_pool_stop (NULL);
    zqb_pool_stop (&pool);
    pool = new_pool ("echo", 1, echo, NULL);
    zqb_pool_stop (&pool);
    assert_null (pool);
}

TEST (a_pool_has_as_many_workers_as_it_was_asked_for_and_they_leave_with_it)
{
    zqb_pool_t *pool = new_pool ("echo", 7, echo, NULL);
    eventually (stat (broker, workers) == 7);
    zqb_pool_stop (&pool);
    eventually (stat (broker, workers) == 0);
    assert_int_equal (stat (broker, workers_left), 7);
    assert_int_equal (stat (broker, workers_lost), 0);
}

TEST (a_pool_has_a_worker_for_each_processor_unless_it_is_told_otherwise)
{
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, NULL);
    eventually (stat (broker, workers) == (uint64_t) zqb__processors ());
    zqb_pool_stop (&pool);
}

/* Sends so many and receives all answers, whatever they are; how many were final. */
static int serve_many (const char *service, int count)
{
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_reply_t reply;
    int answered = 0;
    zqb_msg_init (&reply.body);
    for (int i = 0; i < count; i++)
        submit (client, service, "x");
    for (int i = 0; i < count; i++) {
        assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
        answered += reply.kind == ZQB_REPLY_FINAL;
    }
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    return answered;
}

/* Waits for the others: only when all are in here at once does anybody leave. */
static int meet (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb__flag_t *here = (zqb__flag_t *) arg;
    uint64_t end = zqb__clock () + PATIENCE_MS * 1000u;
    zqb__flag_add (here, 1);
    while (zqb__flag_get (here) < 4)
        if (zqb__clock () > end)
            return -1;
        else
            zmq_poll (NULL, 0, 1);
    return echo (request, reply, NULL);
}

TEST (the_handler_runs_in_several_threads_at_once)
{
    zqb__flag_t here = 0;
    zqb_pool_t *pool = new_pool ("meet", 4, meet, &here);
    eventually (stat (broker, workers) == 4);
    assert_int_equal (serve_many ("meet", 4), 4);
    zqb_pool_stop (&pool);
}

TEST (a_pool_serves_in_every_dialect)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_pool_options_t options;
        memset (&options, 0, sizeof options);
        options.threads = 3;
        options.worker.dialect = dialect;
        zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
        assert_int_equal (serve_many ("echo", 200), 200);
        zqb_pool_stop (&pool);
    }
}

static int fail_at_odds (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    return zqb__flag_add ((zqb__flag_t *) arg, 1) % 2 ? -1 : echo (request, reply, NULL);
}

TEST (a_handler_that_fails_fails_its_request_only)
{
    zqb__flag_t calls = 0;
    zqb_pool_t *pool = new_pool ("odd", 3, fail_at_odds, &calls);
    assert_int_equal (serve_many ("odd", 100), 50);
    assert_int_equal (stat (broker, failed), 50);
    zqb_pool_stop (&pool);
}

TEST (several_pools_serve_side_by_side_and_together)
{
    zqb_pool_t *pools[4];
    static const char *const services[] = {"one", "two", "two", "three"};
    for (size_t i = 0; i < COUNT (pools); i++)
        pools[i] = new_pool (services[i], 2, echo, NULL);
    eventually (stat (broker, workers) == 8);
    for (size_t i = 0; i < COUNT (pools); i++)
        assert_int_equal (serve_many (services[i], 100), 100);
    zqb_pool_stop (&pools[1]);
    assert_int_equal (serve_many ("two", 100), 100);
    for (size_t i = 0; i < COUNT (pools); i++)
        zqb_pool_stop (&pools[i]);
}

TEST (a_pool_that_is_stopped_while_it_is_busy_loses_nothing)
{
    enum { REQUESTS = 2000 };
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    broker_with (&options);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    for (int i = 0; i < REQUESTS; i++)
        submit (client, "echo", "x");
    zqb_pool_t *pool = NULL;
    for (int i = 0; i < REQUESTS; i++) {
        if (i % 100 == 0) {
            zqb_pool_stop (&pool);
            pool = new_pool ("echo", 3, echo, NULL);
        }
        assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
        assert_int_equal (reply.kind, ZQB_REPLY_FINAL);
    }
    zqb_pool_stop (&pool);
    assert_int_equal (stat (broker, replied), REQUESTS);
    assert_int_equal (stat (broker, stale), 0);
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

TEST (all_that_spin_before_they_sleep_do_the_same_as_others)
{
    zqb_broker_options_t options;
    zqb_client_options_t of_client;
    zqb_pool_options_t of_pool;
    zqb_msg_t request, answer;
    memset (&options, 0, sizeof options);
    memset (&of_client, 0, sizeof of_client);
    memset (&of_pool, 0, sizeof of_pool);
    options.spin_us = of_client.spin_us = of_pool.worker.spin_us = 200;
    of_pool.threads = 2;
    broker_with (&options);
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &of_pool);
    zqb_client_t *client = zqb_client_new (ctx, ENDPOINT, &of_client);
    zqb_msg_init (&request);
    zqb_msg_init (&answer);
    for (int i = 0; i < 100; i++) {
        zqb_msg_add_str (&request, "x");
        assert_ok (zqb_client_call (client, "echo", &request, &answer));
        assert_true (unit_frame_is (&answer, 0, "x"));
    }
    zqb_msg_close (&answer);
    zqb_client_destroy (&client);
    assert_int_equal (serve_many ("echo", 1000), 1000);
    zqb_pool_stop (&pool);
    options.spin_us = -2;
    assert_none (zqb_broker_new (ctx, &options), EINVAL);
}

TEST (a_pool_ends_with_the_context_and_may_be_stopped_then)
{
    zqb_pool_t *pool = new_pool ("echo", 3, echo, NULL);
    eventually (stat (broker, workers) == 3);
    zmq_ctx_shutdown (ctx);
    zqb_pool_stop (&pool);
    assert_null (pool);
}

TEST (a_pool_may_be_stopped_without_a_broker)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 3;
    zqb_pool_t *pool = zqb_pool_start (ctx, new_ipc (), "echo", echo, NULL, &options);
    assert_non_null (pool);
    zqb_pool_stop (&pool);
}

TEST (a_pool_whose_workers_are_refused_goes_on_trying)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 2;
    options.worker.reconnect_ms = 1;
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
    eventually (stat (broker, refused_name) >= 4);
    assert_ok (zqb_broker_handle (broker, "echo", NULL, NULL));
    eventually (stat (broker, workers) == 2);
    zqb_pool_stop (&pool);
}

/* ---- pools whose threads come and go */

static zqb_pool_stats_t pool_stats (zqb_pool_t *pool)
{
    zqb_pool_stats_t stats;
    memset (&stats, 0xff, sizeof stats);
    assert_ok (zqb_pool_stats (pool, &stats));
    assert_int_equal (stats.threads, (int) (stats.started - stats.left));
    assert_true (stats.busy <= stats.threads);
    return stats;
}

/* A request stays in the handler until it may go on. */
typedef struct gate_t {
    zqb__flag_t inside, most, passed, open; /* open: so many may pass in all */
} gate_t;

static int pass_gate (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    gate_t *gate = (gate_t *) arg;
    zqb__flag_raise (&gate->most, zqb__flag_add (&gate->inside, 1) + 1);
    uint64_t end = zqb__clock () + PATIENCE_MS * 1000u;
    int turn = zqb__flag_add (&gate->passed, 1);
    while (turn >= zqb__flag_get (&gate->open) && zqb__clock () < end)
        zmq_poll (NULL, 0, 1);
    zqb__flag_add (&gate->inside, -1);
    return echo (request, reply, NULL);
}

static void open_gate (gate_t *gate)
{
    zqb__flag_add (&gate->open, 1000000);
}

static zqb_pool_options_t elastic (int min, int max)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.scale.min = min;
    options.scale.max = max;
    options.scale.queue_per_worker = 5;
    options.scale.wait_ms = -1;
    options.scale.idle_ms = 200;
    options.worker.credit = 1;
    return options;
}

/* Answers to all that was submitted, each once. */
static void receives_all (zqb_client_t *client, uint64_t first, int count)
{
    zqb_reply_t reply;
    char *seen = (char *) calloc ((size_t) count, 1);
    assert_non_null (seen);
    zqb_msg_init (&reply.body);
    for (int i = 0; i < count; i++) {
        int number;
        assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
        assert_int_equal (reply.kind, ZQB_REPLY_FINAL);
        memcpy (&number, zqb_msg_data (&reply.body, 0), sizeof number);
        assert_true (number >= (int) first && number < (int) first + count && !seen[number - (int) first]);
        seen[number - (int) first] = 1;
    }
    assert_fails (zqb_client_recv (client, &reply, 0), ENOENT);
    zqb_msg_close (&reply.body);
    free (seen);
}

/* Submits as many, which are numbered. */
static void submit_numbers (zqb_client_t *client, const char *service, int first, int count)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    for (int number = first; number < first + count; number++) {
        zqb_msg_add (&msg, &number, sizeof number);
        assert_ok (zqb_client_submit (client, service, &msg, NULL));
    }
    assert_ok (zqb_client_flush (client));
}

static void bounds_that_make_no_sense (zqb_pool_t *pool)
{
    assert_fails (zqb_pool_resize (NULL, 1, 1), EINVAL);
    assert_fails (zqb_pool_resize (pool, 0, 1), EINVAL);
    assert_fails (zqb_pool_resize (pool, 2, 1), EINVAL);
    assert_fails (zqb_pool_resize (pool, -1, -1), EINVAL);
}

TEST (bounds_that_make_no_sense_are_einval)
{
    static const int cases[][2] = {{-1, 2}, {3, 2}, {0, -1}};
    zqb_pool_stats_t stats;
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_pool_options_t options = elastic (cases[i][0], cases[i][1]);
        assert_none (zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options), EINVAL);
    }
    zqb_pool_options_t options = elastic (1, 2);
    options.scale.idle_ms = -2;
    assert_none (zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options), EINVAL);
    zqb_pool_t *pool = new_pool ("echo", 1, echo, NULL);
    bounds_that_make_no_sense (pool);
    assert_fails (zqb_pool_stats (NULL, &stats), EINVAL);
    assert_fails (zqb_pool_stats (pool, NULL), EINVAL);
    assert_int_equal (pool_stats (pool).threads, 1);
    zqb_pool_stop (&pool);
}

TEST (an_elastic_pool_grows_under_a_long_queue_and_shrinks_behind_it_and_loses_nothing)
{
    enum { REQUESTS = 60 };
    gate_t gate;
    memset (&gate, 0, sizeof gate);
    zqb_pool_options_t options = elastic (1, 4);
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "gate", pass_gate, &gate, &options);
    assert_non_null (pool);
    assert_int_equal (pool_stats (pool).threads, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    submit_numbers (client, "gate", 0, REQUESTS);
    eventually (zqb__flag_get (&gate.inside) == 4);
    assert_int_equal (pool_stats (pool).threads, 4);
    assert_int_equal (pool_stats (pool).busy, 4);
    open_gate (&gate);
    receives_all (client, 0, REQUESTS);
    eventually (pool_stats (pool).left == 3);
    assert_int_equal (pool_stats (pool).started, 4);
    assert_int_equal (pool_stats (pool).busy, 0);
    submit_numbers (client, "gate", 0, REQUESTS); /* the one that stayed goes on */
    receives_all (client, 0, REQUESTS);
    assert_int_equal (zqb__flag_get (&gate.most), 4);
    assert_int_equal (stat (broker, stale) + stat (broker, workers_lost) + stat (broker, requeued), 0);
    zqb_client_destroy (&client);
    zqb_pool_stop (&pool);
}

TEST (threads_come_and_go_all_the_time_and_every_request_is_answered_once)
{
    enum { ROUNDS = 30, REQUESTS = 400 };
    zqb_pool_t *pool = new_pool ("echo", 2, echo, NULL);
    zqb_client_t *client = new_client (0, 0, 0);
    for (int i = 0; i < ROUNDS; i++) {
        static const int sizes[] = {5, 1, 3, 8, 2};
        submit_numbers (client, "echo", i * REQUESTS, REQUESTS);
        assert_ok (zqb_pool_resize (pool, sizes[i % 5], sizes[i % 5]));
        receives_all (client, (uint64_t) (i * REQUESTS), REQUESTS);
    }
    assert_int_equal (stat (broker, replied), ROUNDS * REQUESTS);
    assert_int_equal (stat (broker, stale) + stat (broker, workers_lost) + stat (broker, dead), 0);
    eventually (pool_stats (pool).threads == 2);
    eventually (stat (broker, workers) == 2);
    zqb_client_destroy (&client);
    zqb_pool_stop (&pool);
}

TEST (a_pool_is_resized_up_and_down_and_keeps_to_it)
{
    static const int sizes[] = {5, 2, 7, 1, 1, 3};
    zqb_pool_t *pool = new_pool ("echo", 3, echo, NULL);
    eventually (stat (broker, workers) == 3);
    for (size_t i = 0; i < COUNT (sizes); i++) {
        assert_ok (zqb_pool_resize (pool, sizes[i], sizes[i]));
        eventually (stat (broker, workers) == (uint64_t) sizes[i]);
        eventually (pool_stats (pool).threads == sizes[i]);
    }
    assert_int_equal (stat (broker, workers_lost), 0);
    assert_int_equal (pool_stats (pool).started, 3 + 2 + 5 + 2);
    zqb_pool_stop (&pool);
    eventually (stat (broker, workers_left) == 3 + 2 + 5 + 2);
}

TEST (a_thread_that_is_to_leave_ends_what_it_does_first)
{
    gate_t gate;
    memset (&gate, 0, sizeof gate);
    zqb_pool_t *pool = new_pool ("gate", 3, pass_gate, &gate);
    zqb_client_t *client = new_client (0, 0, 0);
    eventually (stat (broker, workers) == 3);
    submit_numbers (client, "gate", 0, 2);
    eventually (zqb__flag_get (&gate.inside) == 2);
    assert_ok (zqb_pool_resize (pool, 2, 2));
    eventually (stat (broker, workers) == 2); /* the idle one */
    assert_int_equal (pool_stats (pool).busy, 2);
    assert_ok (zqb_pool_resize (pool, 1, 1));
    eventually (pool_stats (pool).left == 1);
    assert_int_equal (pool_stats (pool).threads, 2); /* both are at work */
    open_gate (&gate);
    receives_all (client, 0, 2);
    eventually (pool_stats (pool).threads == 1);
    assert_int_equal (stat (broker, requeued), 0);
    zqb_client_destroy (&client);
    zqb_pool_stop (&pool);
}

TEST (a_fixed_pool_becomes_elastic_and_fixed_again)
{
    gate_t gate;
    memset (&gate, 0, sizeof gate);
    zqb_pool_t *pool = new_pool ("gate", 2, pass_gate, &gate);
    zqb_client_t *client = new_client (0, 0, 0);
    submit_numbers (client, "gate", 0, 200);
    eventually (zqb__flag_get (&gate.inside) == 2);
    assert_ok (zqb_pool_resize (pool, 1, 4));
    eventually (zqb__flag_get (&gate.inside) == 4);
    assert_ok (zqb_pool_resize (pool, 6, 6));
    eventually (zqb__flag_get (&gate.inside) == 6);
    open_gate (&gate);
    receives_all (client, 0, 200);
    assert_int_equal (pool_stats (pool).threads, 6);
    assert_ok (zqb_pool_resize (pool, 1, 4)); /* above: it goes there at once */
    eventually (pool_stats (pool).threads <= 4);
    zqb_client_destroy (&client);
    zqb_pool_stop (&pool);
}

TEST (an_elastic_pool_begins_with_as_many_as_it_is_told_within_its_bounds)
{
    static const int cases[][4] = {{0, 0, 3, 1}, {0, 2, 3, 2}, {1, 2, 3, 2}, {3, 2, 5, 3}, {9, 2, 5, 5}, {9, 4, 4, 4}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_pool_options_t options = elastic (cases[i][1], cases[i][2]);
        options.threads = cases[i][0];
        options.scale.idle_ms = -1;
        zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
        assert_non_null (pool);
        assert_int_equal (pool_stats (pool).started, cases[i][3]);
        eventually (stat (broker, workers) == (uint64_t) cases[i][3]);
        zqb_pool_stop (&pool);
        eventually (stat (broker, workers) == 0);
    }
}

TEST (a_pool_that_is_stopped_while_it_grows_ends_at_once)
{
    for (int i = 0; i < 20; i++) {
        zqb_pool_options_t options = elastic (1, 8);
        zqb_pool_t *pool = i % 2 ? new_pool ("echo", 1, echo, NULL)
                                 : zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
        assert_non_null (pool);
        assert_ok (zqb_pool_resize (pool, 1 + i % 8, 8));
        zqb_pool_stop (&pool);
        assert_null (pool);
        eventually (stat (broker, workers) == 0);
    }
    assert_int_equal (stat (broker, workers_lost), 0);
}

/* Somebody at this endpoint never answers, however often he is asked how long the queue is. */
static void is_asked_in_vain (const char *endpoint, int times)
{
    static const char question[] = "mmi.services";
    void *deaf = zmq_socket (ctx, ZMQ_ROUTER);
    char bytes[4096];
    zqb__set_int (deaf, ZMQ_RCVTIMEO, PATIENCE_MS);
    eventually (zmq_bind (deaf, endpoint) == 0);
    while (times > 0) {
        int size = zmq_recv (deaf, bytes, sizeof bytes, 0);
        assert_true (size >= 0);
        for (int i = 0; i + (int) sizeof question - 1 <= size && i < (int) sizeof bytes; i++)
            times -= memcmp (bytes + i, question, sizeof question - 1) == 0;
    }
    zmq_close (deaf);
}

TEST (an_elastic_pool_changes_nothing_while_its_broker_is_away_and_goes_on_when_it_is_back)
{
    gate_t gate;
    memset (&gate, 0, sizeof gate);
    const char *endpoint = new_ipc ();
    zqb_pool_options_t options = elastic (1, 3);
    options.worker.reconnect_ms = 1;
    zqb_pool_t *pool = zqb_pool_start (ctx, endpoint, "gate", pass_gate, &gate, &options);
    assert_non_null (pool);
    zqb_broker_t *other = start_broker (endpoint, NULL);
    assert_non_null (other);
    zqb_client_t *client = zqb_client_new (ctx, endpoint, NULL);
    submit_numbers (client, "gate", 0, 40);
    eventually (zqb__flag_get (&gate.inside) == 3);
    zqb_broker_destroy (&other);
    zqb_client_destroy (&client);
    is_asked_in_vain (endpoint, 2); /* it waits for an answer for longer than for a reason to shrink */
    assert_int_equal (pool_stats (pool).threads, 3);
    open_gate (&gate);
    eventually ((other = start_broker (endpoint, NULL)) != NULL);
    eventually (pool_stats (pool).threads == 1); /* it hears again that there is nothing to do */
    eventually (stat (other, workers) == 1);
    zqb_pool_stop (&pool);
    zqb_broker_destroy (&other);
}

TEST (an_elastic_pool_without_a_broker_is_stopped_at_once)
{
    zqb_pool_options_t options = elastic (2, 4);
    zqb_pool_t *pool = zqb_pool_start (ctx, new_ipc (), "echo", echo, NULL, &options);
    assert_non_null (pool);
    assert_ok (zqb_pool_resize (pool, 1, 1));
    zqb_pool_stop (&pool);
}

TEST (an_elastic_pool_ends_with_the_context)
{
    zqb_pool_options_t options = elastic (2, 4);
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
    eventually (stat (broker, workers) == 2);
    zmq_ctx_shutdown (ctx);
    eventually (pool_stats (pool).threads == 0);
    assert_ok (zqb_pool_resize (pool, 5, 5)); /* nothing comes of it */
    zqb_pool_stop (&pool);
    assert_null (pool);
}

TEST (a_thread_that_is_not_to_be_had_is_tried_again_later)
{
    zqb_pool_t *pool = new_pool ("echo", 1, echo, NULL);
    unit_threads_run_out (0);
    assert_fails (zqb_pool_resize (pool, 4, 4), EAGAIN); /* not even the manager */
    assert_int_equal (pool_stats (pool).threads, 1);
    unit_threads_run_out (2);
    assert_ok (zqb_pool_resize (pool, 4, 4));
    eventually (stat (broker, workers) == 2);
    unit_threads_run_out (-1);
    eventually (stat (broker, workers) == 4);
    zqb_pool_stop (&pool);
    zqb_pool_options_t options = elastic (2, 4);
    unit_threads_run_out (2);
    assert_none (zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options), EAGAIN);
    unit_threads_run_out (-1);
    eventually (stat (broker, workers) == 0);
}

TEST (a_pool_that_finds_no_descriptors_to_be_resized_stays_as_it_is_and_may_be_resized_later)
{
    zqb_pool_t *pool = new_pool ("echo", 1, echo, NULL);
    eventually (stat (broker, workers) == 1);
    assert_without_descriptors (zqb_pool_resize (pool, 3, 3) == -1);
    assert_int_equal (pool_stats (pool).threads, 1);
    assert_int_equal (serve_many ("echo", 50), 50);
    assert_int_equal (pool_stats (pool).started, 1);
    assert_ok (zqb_pool_resize (pool, 3, 3));
    eventually (stat (broker, workers) == 3);
    zqb_pool_stop (&pool);
}

TEST (a_thread_that_cannot_make_its_worker_ends_and_is_tried_again_later)
{
    zqb_pool_t *pool = new_pool ("echo", 1, echo, NULL);
    assert_ok (zqb_pool_resize (pool, 1, 1)); /* there is somebody to see to it */
    eventually (stat (broker, workers) == 1);
    unit_descriptors_run_out (1);
    int failed = zqb_pool_resize (pool, 3, 3);
    uint64_t end = zqb__clock () + PATIENCE_MS * 1000u;
    while (pool_stats (pool).left < 2 && zqb__clock () < end)
        zmq_poll (NULL, 0, 1);
    unit_descriptors_run_out (0);
    assert_ok (failed);
    assert_true (pool_stats (pool).left >= 2);
    eventually (stat (broker, workers) == 3);
    eventually (pool_stats (pool).threads == 3);
    assert_int_equal (serve_many ("echo", 50), 50);
    zqb_pool_stop (&pool);
    eventually (stat (broker, workers_left) == 3);
}

static int threads_that_stay (zqb_pool_t *pool)
{
    zqb__mutex_enter (&pool->lock);
    int count = zqb__pool_count (pool);
    zqb__mutex_leave (&pool->lock);
    return count;
}

static int let_threads_go (void **state)
{
    unit_threads_hold (0);
    return tear_down (state);
}

TEST (a_thread_that_is_to_leave_before_it_has_a_worker_leaves_all_the_same)
{
    zqb_pool_t *pool = new_pool ("echo", 1, echo, NULL);
    assert_ok (zqb_pool_resize (pool, 2, 2));
    eventually (stat (broker, workers) == 2);
    unit_threads_hold (1);
    assert_ok (zqb_pool_resize (pool, 4, 4));
    eventually (pool_stats (pool).threads == 4);
    assert_ok (zqb_pool_resize (pool, 2, 2));
    eventually (threads_that_stay (pool) == 2);
    assert_int_equal (pool_stats (pool).threads, 4); /* they have not begun */
    unit_threads_hold (0);
    eventually (pool_stats (pool).left == 2);
    assert_int_equal (serve_many ("echo", 50), 50);
    assert_int_equal (stat (broker, workers), 2);
    assert_int_equal (stat (broker, workers_lost), 0);
    zqb_pool_stop (&pool);
}

TEST (pools_of_one_service_share_its_queue)
{
    gate_t gate;
    memset (&gate, 0, sizeof gate);
    zqb_pool_options_t options = elastic (1, 100);
    zqb_pool_t *fixed = new_pool ("gate", 9, pass_gate, &gate);
    eventually (stat (broker, workers) == 9);
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "gate", pass_gate, &gate, &options);
    eventually (stat (broker, workers) == 10);
    zqb_client_t *client = new_client (0, 0, 0);
    submit_numbers (client, "gate", 0, 10 + 50); /* 5 for each of ten workers: just what they may have */
    eventually (zqb__flag_get (&gate.inside) == 10);
    eventually (stat (broker, replied) >= 5); /* so often it was told how long the queue is */
    assert_int_equal (pool_stats (pool).threads, 1);
    submit_numbers (client, "gate", 60, 40);
    eventually (pool_stats (pool).threads == 2);
    open_gate (&gate);
    receives_all (client, 0, 100);
    zqb_client_destroy (&client);
    zqb_pool_stop (&fixed);
    zqb_pool_stop (&pool);
}

TEST (threads_that_the_broker_drains_are_replaced_if_the_pool_may_grow_and_else_leave)
{
    zqb_pool_t *pool = new_pool ("echo", 3, echo, NULL);
    eventually (stat (broker, workers) == 3);
    assert_ok (zqb_broker_drain (broker, "echo", 0));
    eventually (pool_stats (pool).threads == 0);
    assert_int_equal (pool_stats (pool).left, 3);
    assert_ok (zqb_pool_resize (pool, 2, 2));
    eventually (stat (broker, workers) == 2);
    assert_ok (zqb_broker_drain (broker, "echo", 0));
    eventually (pool_stats (pool).left == 5 && stat (broker, workers) == 2);
    assert_int_equal (serve_many ("echo", 50), 50);
    zqb_pool_stop (&pool);
}

/* A handler may use what any thread may. */
static int resize_own (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    return zqb_pool_resize (*(zqb_pool_t **) arg, 2, 2) == 0 ? echo (request, reply, NULL) : -1;
}

TEST (a_handler_may_resize_its_own_pool)
{
    zqb_pool_t *pool = NULL;
    pool = new_pool ("echo", 4, resize_own, &pool);
    assert_int_equal (serve_many ("echo", 50), 50);
    eventually (pool_stats (pool).threads == 2);
    zqb_pool_stop (&pool);
}

/* Lines of mmi.services, as this broker gives them, or another. */
TEST (what_a_broker_says_of_other_services_or_not_at_all_tells_nothing)
{
    static const struct {
        const char *lines[3];
        int known, queued;
        int64_t oldest_us;
    } cases[] = {
        {{NULL}, 0, 0, 0},
        {{"501", NULL}, -1, 0, 0},
        {{"", NULL}, -1, 0, 0},
        {{"my\\x20name", NULL}, -1, 0, 0},
        {{"other queued=7 running=0 workers=1 handler=0 oldest_ms=3", NULL}, -1, 0, 0},
        {{"my\\x20name2 queued=7 running=0 workers=1 handler=0 oldest_ms=3", NULL}, -1, 0, 0},
        {{"my\\x20name queued=7 running=0 workers=0 handler=0 oldest_ms=3", NULL}, 0, 7, 3000},
        {{"other queued=1 running=1", "my\\x20name queued=8 running=0 workers=2 handler=0", NULL}, 0, 8, 0},
        {{"my\\x20name queued=8 running=0 workers=8 handler=0 oldest_ms=99999999999999", NULL}, 0, 2,
         INT64_C (2147483647000)},
        {{"my\\x20name queued=9 running=0 workers=2 handler=0 oldest_ms=1 delayed=4 pinned=3", NULL}, 0, 2, 1000},
        {{"my\\x20name queued=9 running=0 workers=2 handler=0 oldest_ms=0 delayed=9 pinned=3", NULL}, 0, 0, 0},
        {{"my\\x20name queued=-5 running=0 workers=x oldest_ms=", NULL}, 0, 0, 0},
    };
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "my name", echo, NULL, NULL);
    assert_ok (zqb_pool_resize (pool, 2, 2));
    eventually (pool_stats (pool).threads == 2);
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_msg_t answer;
        zqb_scale_t sample;
        zqb_msg_init (&answer);
        for (int k = 0; cases[i].lines[k]; k++)
            zqb_msg_add_str (&answer, cases[i].lines[k]);
        assert_int_equal (zqb__pool_measure (pool, &answer, &sample), cases[i].known);
        if (cases[i].known == 0) {
            assert_int_equal (sample.queued, cases[i].queued);
            assert_int_equal (sample.oldest_us, cases[i].oldest_us);
            assert_int_equal (sample.idle, 2);
        }
        zqb_msg_close (&answer);
    }
    zqb_pool_stop (&pool);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        FRESH (an_argument_that_is_wrong_is_einval_and_starts_nothing),
        FRESH (a_pool_without_enough_sockets_is_emfile_and_leaves_nothing_behind),
        FRESH (a_pool_without_descriptors_is_emfile_and_may_be_started_later),
        FRESH (a_pool_without_enough_threads_is_eagain_and_leaves_none_running),
        FRESH (a_broker_without_a_thread_is_eagain_and_may_be_started_later),
        FRESH (stopping_nothing_is_fine_and_leaves_null),
        FRESH (a_pool_has_as_many_workers_as_it_was_asked_for_and_they_leave_with_it),
        FRESH (a_pool_has_a_worker_for_each_processor_unless_it_is_told_otherwise),
        FRESH (the_handler_runs_in_several_threads_at_once),
        FRESH (a_pool_serves_in_every_dialect),
        FRESH (a_handler_that_fails_fails_its_request_only),
        FRESH (several_pools_serve_side_by_side_and_together),
        FRESH (a_pool_that_is_stopped_while_it_is_busy_loses_nothing),
        FRESH (all_that_spin_before_they_sleep_do_the_same_as_others),
        FRESH (a_pool_ends_with_the_context_and_may_be_stopped_then),
        FRESH (a_pool_may_be_stopped_without_a_broker),
        FRESH (a_pool_whose_workers_are_refused_goes_on_trying),
        FRESH (bounds_that_make_no_sense_are_einval),
        FRESH (an_elastic_pool_grows_under_a_long_queue_and_shrinks_behind_it_and_loses_nothing),
        FRESH (threads_come_and_go_all_the_time_and_every_request_is_answered_once),
        FRESH (a_pool_is_resized_up_and_down_and_keeps_to_it),
        FRESH (a_thread_that_is_to_leave_ends_what_it_does_first),
        FRESH (a_fixed_pool_becomes_elastic_and_fixed_again),
        FRESH (an_elastic_pool_begins_with_as_many_as_it_is_told_within_its_bounds),
        FRESH (a_pool_that_is_stopped_while_it_grows_ends_at_once),
        FRESH (an_elastic_pool_changes_nothing_while_its_broker_is_away_and_goes_on_when_it_is_back),
        FRESH (an_elastic_pool_without_a_broker_is_stopped_at_once),
        FRESH (an_elastic_pool_ends_with_the_context),
        FRESH (a_thread_that_is_not_to_be_had_is_tried_again_later),
        FRESH (a_pool_that_finds_no_descriptors_to_be_resized_stays_as_it_is_and_may_be_resized_later),
        FRESH (a_thread_that_cannot_make_its_worker_ends_and_is_tried_again_later),
        cmocka_unit_test_setup_teardown (a_thread_that_is_to_leave_before_it_has_a_worker_leaves_all_the_same, set_up,
                                         let_threads_go),
        FRESH (pools_of_one_service_share_its_queue),
        FRESH (threads_that_the_broker_drains_are_replaced_if_the_pool_may_grow_and_else_leave),
        FRESH (a_handler_may_resize_its_own_pool),
        FRESH (what_a_broker_says_of_other_services_or_not_at_all_tells_nothing),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
