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
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
