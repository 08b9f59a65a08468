/* Workers: registering, serving in every dialect, leaving, and what they do when their broker does odd things. */
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"
#include <signal.h>

/* ---- the caller's mistakes */

TEST (an_argument_that_is_wrong_is_einval_and_makes_nothing)
{
    char name[257];
    memset (name, 'n', 256);
    name[256] = 0;
    const struct {
        void *ctx;
        const char *endpoints, *service;
        int error;
    } cases[] = {
        {NULL, ENDPOINT, "echo", EINVAL},        {ctx, NULL, "echo", EINVAL},
        {ctx, "", "echo", EINVAL},               {ctx, ",", "echo", EINVAL},
        {ctx, ENDPOINT ",", "echo", EINVAL},     {ctx, "," ENDPOINT, "echo", EINVAL},
        {ctx, ENDPOINT ",,x", "echo", EINVAL},   {ctx, "nonsense", "echo", EINVAL},
        {ctx, ENDPOINT ",nonsense", "echo", EINVAL}, {ctx, "what://ever", "echo", EPROTONOSUPPORT},
        {ctx, ENDPOINT, NULL, EINVAL},           {ctx, ENDPOINT, "", EINVAL},
        {ctx, ENDPOINT, name, EINVAL},           {ctx, ENDPOINT, "mmi.echo", EINVAL},
    };
    for (size_t i = 0; i < COUNT (cases); i++)
        assert_none (zqb_worker_new (cases[i].ctx, cases[i].endpoints, cases[i].service, NULL), cases[i].error);
}

/* Whether a worker is made with these options; errno says why not. */
static int made_with (const zqb_worker_options_t *options)
{
    errno = 0;
    zqb_worker_t *worker = zqb_worker_new (ctx, ENDPOINT, "echo", options);
    int error = errno, made = worker != NULL;
    zqb_worker_destroy (&worker);
    errno = error;
    return made;
}

TEST (an_option_out_of_range_is_einval)
{
    static const struct {
        int dialect, credit, heartbeat_ms, made;
    } cases[] = {{0, 65535, 0, 1}, {0, 65536, 0, 0}, {0, -1, 0, 0}, {0, 0, -1, 1}, {0, 0, -2, 0}, {3, 0, 0, 0}, {-1, 0, 0, 0},
                 {ZQB_DIALECT_MDP01, 1, 0, 1}, {ZQB_DIALECT_MDP01, 2, 0, 0}, {ZQB_DIALECT_MDP02, 2, 0, 0}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_worker_options_t options;
        memset (&options, 0, sizeof options);
        options.dialect = cases[i].dialect;
        options.credit = cases[i].credit;
        options.heartbeat_ms = cases[i].heartbeat_ms;
        assert_int_equal (made_with (&options), cases[i].made);
        assert_int_equal (errno, cases[i].made ? errno : EINVAL);
    }
}

TEST (without_descriptors_there_is_no_worker)
{
    zqb_worker_t *worker = NULL;
    zqb_broker_destroy (&broker); /* nothing else is to miss them */
    assert_without_descriptors ((worker = zqb_worker_new (ctx, ENDPOINT, "echo", NULL)) == NULL);
}

TEST (null_is_einval_and_may_be_stopped_and_destroyed)
{
    zqb_worker_t *none = NULL;
    zqb_msg_t msg;
    size_t size = 7;
    zqb_msg_init (&msg);
    assert_none (zqb_worker_recv (NULL, 0), EINVAL);
    assert_fails (zqb_worker_run (NULL, echo, NULL), EINVAL);
    assert_fails (zqb_worker_fd (NULL), EINVAL);
    assert_fails (zqb_request_reply (NULL, &msg), EINVAL);
    assert_fails (zqb_request_partial (NULL, &msg), EINVAL);
    assert_fails (zqb_request_fail (NULL, 0, "x"), EINVAL);
    assert_null (zqb_request_body (NULL));
    assert_null (zqb_request_service (NULL, &size));
    assert_int_equal (size, 0);
    zqb_worker_stop (NULL);
    zqb_worker_destroy (NULL);
    zqb_worker_destroy (&none);
}

TEST (a_request_that_is_answered_with_null_stays_the_workers)
{
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "echo", "x");
    zqb_request_t *request = is_asked (worker, "x");
    assert_fails (zqb_request_reply (request, NULL), EINVAL);
    assert_fails (zqb_request_partial (request, NULL), EINVAL);
    assert_fails (zqb_worker_run (worker, NULL, NULL), EINVAL);
    assert_ok (reply_text (request, "y"));
    receives (client, id, ZQB_REPLY_FINAL, "y");
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ---- serving */

TEST (a_worker_serves_in_every_dialect)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_worker_t *worker = new_worker (dialect, 0);
        zqb_client_t *client = new_client (0, 0, 0);
        for (int i = 0; i < 3; i++) {
            uint64_t id = submit (client, "echo", "x");
            zqb_request_t *request = is_asked (worker, "x");
            size_t size;
            assert_string_equal (zqb_request_service (request, &size), "echo");
            assert_int_equal (size, 4);
            assert_ok (reply_text (request, "y"));
            receives (client, id, ZQB_REPLY_FINAL, "y");
        }
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
        eventually (stat (broker, workers) == 0);
    }
    assert_int_equal (stat (broker, workers_left), 3);
}

TEST (a_body_may_be_moved_into_the_reply)
{
    static char large[100000];
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t msg;
    zqb_reply_t reply;
    zqb_msg_init (&msg);
    zqb_msg_init (&reply.body);
    for (int i = 0; i < 5; i++)
        zqb_msg_add (&msg, large, i % 2 ? sizeof large : 10);
    assert_ok (zqb_client_submit (client, "echo", &msg, NULL));
    zqb_request_t *request = zqb_worker_recv (worker, PATIENCE_MS);
    assert_ok (zqb_msg_move (&msg, zqb_request_body (request)));
    assert_ok (zqb_request_reply (request, &msg));
    assert_int_equal (zqb_msg_count (&msg), 0);
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_int_equal (zqb_msg_count (&reply.body), 5);
    assert_int_equal (zqb_msg_size (&reply.body, 3), sizeof large);
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (replies_may_be_given_in_any_order)
{
    enum { MANY = 20 };
    uint64_t ids[MANY];
    zqb_request_t *requests[MANY];
    char text[16];
    zqb_worker_t *worker = new_worker (0, MANY);
    zqb_client_t *client = new_client (0, 0, 0);
    for (int i = 0; i < MANY; i++) {
        snprintf (text, sizeof text, "%d", i);
        ids[i] = submit (client, "echo", text);
        requests[i] = is_asked (worker, text);
    }
    for (int i = MANY; i-- > 0;) {
        snprintf (text, sizeof text, "%d", i);
        assert_ok (reply_text (requests[i], text));
        receives (client, ids[i], ZQB_REPLY_FINAL, text);
    }
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (a_worker_holds_as_many_as_its_credit)
{
    zqb_worker_t *worker = new_worker (0, 3);
    zqb_client_t *client = new_client (0, 0, 0);
    eventually (stat (broker, workers) == 1);
    for (int i = 0; i < 10; i++)
        submit (client, "echo", "x");
    eventually (stat (broker, accepted) == 10);
    assert_int_equal (stat (broker, running), 3);
    assert_int_equal (stat (broker, queued), 7);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (parts_of_a_reply_come_as_they_are_sent)
{
    static const int dialects[] = {ZQB_DIALECT_ZQB1, ZQB_DIALECT_MDP02};
    for (size_t i = 0; i < COUNT (dialects); i++) {
        zqb_worker_t *worker = new_worker (dialects[i], 1);
        zqb_client_t *client = new_client (0, 0, 0);
        uint64_t id = submit (client, "echo", "x");
        zqb_request_t *request = is_asked (worker, "x");
        assert_ok (partial_text (request, "1"));
        receives (client, id, ZQB_REPLY_PARTIAL, "1");
        assert_ok (partial_text (request, "2"));
        receives (client, id, ZQB_REPLY_PARTIAL, "2");
        assert_ok (reply_text (request, "3"));
        receives (client, id, ZQB_REPLY_FINAL, "3");
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
    }
}

TEST (mdp01_has_no_partial_replies)
{
    zqb_worker_t *worker = new_worker (ZQB_DIALECT_MDP01, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "echo", "x");
    zqb_request_t *request = is_asked (worker, "x");
    assert_fails (partial_text (request, "1"), ENOTSUP);
    assert_ok (reply_text (request, "whole"));
    receives (client, id, ZQB_REPLY_FINAL, "whole");
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (a_failure_is_told_with_its_text)
{
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    submit (client, "echo", "x");
    assert_ok (zqb_request_fail (is_asked (worker, "x"), 0, "no disk"));
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_int_equal (reply.error, ZQB_EFAILED);
    assert_frame (&reply.body, 0, "no disk");
    submit (client, "echo", "x");
    assert_ok (zqb_request_fail (is_asked (worker, "x"), 0, NULL));
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_int_equal (reply.error, ZQB_EFAILED);
    assert_int_equal (zqb_msg_count (&reply.body), 0);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (a_failure_in_mdp_is_an_empty_reply)
{
    zqb_worker_t *worker = new_worker (ZQB_DIALECT_MDP01, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "echo", "x");
    assert_ok (zqb_request_fail (is_asked (worker, "x"), 0, "why"));
    receives (client, id, ZQB_REPLY_FINAL, "");
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (a_frame_of_2_gib_is_emsgsize_and_the_request_stays)
{
    static char byte;
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    uint64_t id = submit (client, "echo", "x");
    zqb_request_t *request = is_asked (worker, "x");
    zqb_msg_add_zero_copy (&msg, &byte, (size_t) 1 << 31, NULL, NULL); /* it is only asked for its size */
    assert_fails (zqb_request_partial (request, &msg), EMSGSIZE);
    assert_fails (zqb_request_reply (request, &msg), EMSGSIZE);
    assert_int_equal (zqb_msg_count (&msg), 1);
    zqb_msg_close (&msg);
    assert_ok (reply_text (request, "y"));
    receives (client, id, ZQB_REPLY_FINAL, "y");
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ---- waiting, and being woken */

TEST (recv_gives_up_when_its_time_is_over)
{
    zqb_worker_t *worker = new_worker (0, 1);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    assert_none (zqb_worker_recv (worker, 5), EAGAIN);
    zqb_worker_destroy (&worker);
}

static void stop_worker (void *arg)
{
    zqb_worker_stop ((zqb_worker_t *) arg);
}

TEST (a_worker_that_is_stopped_receives_nothing_from_now_on)
{
    zqb_worker_t *worker = new_worker (0, 1);
    void *thread = zmq_threadstart (stop_worker, worker);
    assert_none (zqb_worker_recv (worker, -1), ECANCELED);
    assert_none (zqb_worker_recv (worker, 0), ECANCELED);
    assert_ok (zqb_worker_run (worker, echo, NULL));
    zmq_threadclose (thread);
    zqb_worker_destroy (&worker);
}

typedef struct outcome_t {
    zqb_worker_t *worker;
    int result, error;
    zqb__flag_t done;
} outcome_t;

static void receive_one (void *arg)
{
    outcome_t *outcome = (outcome_t *) arg;
    outcome->result = zqb_worker_recv (outcome->worker, -1) != NULL;
    outcome->error = errno;
    zqb_worker_destroy (&outcome->worker);
    zqb__flag_set (&outcome->done);
}

TEST (a_worker_that_waits_hears_of_the_end_of_the_context)
{
    outcome_t outcome = {new_worker (0, 1), 0, 0, 0};
    eventually (stat (broker, workers) == 1);
    void *thread = zmq_threadstart (receive_one, &outcome);
    zmq_ctx_shutdown (ctx);
    zmq_threadclose (thread);
    assert_int_equal (outcome.result, 0);
    assert_int_equal (outcome.error, ETERM);
}

static void on_signal (int number)
{
    (void) number;
}

static void *receive_on_pthread (void *arg)
{
    receive_one (arg);
    return NULL;
}

TEST (a_worker_that_waits_is_interrupted_by_a_signal)
{
    outcome_t outcome = {new_worker (0, 1), 0, 0, 0};
    struct sigaction action, before;
    pthread_t thread;
    memset (&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction (SIGUSR1, &action, &before);
    assert_ok (pthread_create (&thread, NULL, receive_on_pthread, &outcome));
    eventually (zqb__flag_get (&outcome.done) || (pthread_kill (thread, SIGUSR1), 0));
    pthread_join (thread, NULL);
    sigaction (SIGUSR1, &before, NULL);
    assert_int_equal (outcome.result, 0);
    assert_int_equal (outcome.error, EINTR);
}

TEST (the_descriptor_of_a_worker_tells_when_there_is_something_to_do)
{
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb__poll_t item = zqb__poll_item (zqb_worker_fd (worker));
    zqb_request_t *request = NULL;
    submit (client, "echo", "x");
    while ((request = zqb_worker_recv (worker, 0)) == NULL)
        assert_true (zqb__wait (&item, 1, PATIENCE_MS * 1000u) == 1);
    assert_ok (reply_text (request, "y"));
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ---- run */

static int upper_or_fail (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_worker_t *worker = (zqb_worker_t *) arg;
    if (unit_frame_is (zqb_request_body (request), 0, "fail"))
        return zqb_msg_add_str (reply, "as asked") == 0 ? 7 : -1;
    if (unit_frame_is (zqb_request_body (request), 0, "stop"))
        zqb_worker_stop (worker);
    if (unit_frame_is (zqb_request_body (request), 0, "too much"))
        return zqb_msg_add_zero_copy (reply, worker, (size_t) 1 << 31, NULL, NULL); /* it is only asked for its size */
    if (unit_frame_is (zqb_request_body (request), 0, "early"))
        return zqb_request_reply (request, reply) == -1 && errno == EINVAL ? zqb_msg_add_str (reply, "einval") : -1;
    if (unit_frame_is (zqb_request_body (request), 0, "parts") && partial_text (request, "part") != 0)
        return -1;
    return zqb_msg_add_str (reply, "done");
}

static void run_worker (void *arg)
{
    outcome_t *outcome = (outcome_t *) arg;
    outcome->result = zqb_worker_run (outcome->worker, upper_or_fail, outcome->worker);
    outcome->error = errno;
    zqb_worker_destroy (&outcome->worker);
}

TEST (run_serves_until_it_is_stopped_and_finishes_what_it_does)
{
    outcome_t outcome = {new_worker (0, 1), -1, 0, 0};
    zqb_client_t *client = new_client (0, 0, 0);
    void *thread = zmq_threadstart (run_worker, &outcome);
    receives (client, submit (client, "echo", "x"), ZQB_REPLY_FINAL, "done");
    receives (client, submit (client, "echo", "fail"), ZQB_REPLY_ERROR, "as asked");
    receives (client, submit (client, "echo", "early"), ZQB_REPLY_FINAL, "einval");
    receives (client, submit (client, "echo", "too much"), ZQB_REPLY_ERROR, zqb_strerror (EMSGSIZE));
    uint64_t id = submit (client, "echo", "parts");
    receives (client, id, ZQB_REPLY_PARTIAL, "part");
    receives (client, id, ZQB_REPLY_FINAL, "done");
    receives (client, submit (client, "echo", "stop"), ZQB_REPLY_FINAL, "done");
    zmq_threadclose (thread);
    assert_int_equal (outcome.result, 0);
    zqb_client_destroy (&client);
}

TEST (run_ends_with_the_context)
{
    outcome_t outcome = {new_worker (0, 1), 0, 0, 0};
    void *thread = zmq_threadstart (run_worker, &outcome);
    zmq_ctx_shutdown (ctx);
    zmq_threadclose (thread);
    assert_int_equal (outcome.result, -1);
    assert_int_equal (outcome.error, ETERM);
}

/* ---- leaving, and being refused */

TEST (a_worker_that_is_destroyed_gives_what_it_holds_to_another_at_once)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_worker_t *first = new_worker (dialect, 0);
        zqb_client_t *client = new_client (0, 0, 0);
        uint64_t id = submit (client, "echo", "x");
        is_asked (first, "x");
        zqb_worker_t *second = new_worker (dialect, 0);
        zqb_worker_destroy (&first);
        assert_ok (reply_text (is_asked (second, "x"), "y"));
        receives (client, id, ZQB_REPLY_FINAL, "y");
        zqb_client_destroy (&client);
        zqb_worker_destroy (&second);
        eventually (stat (broker, workers) == 0);
    }
    assert_int_equal (stat (broker, requeued), 3);
}

TEST (what_a_worker_received_but_did_not_begin_goes_to_another_too)
{
    zqb_worker_t *first = new_worker (0, 10);
    zqb_client_t *client = new_client (0, 0, 0);
    eventually (stat (broker, workers) == 1);
    submit (client, "echo", "1");
    submit (client, "echo", "2");
    submit (client, "echo", "3");
    is_asked (first, "1");
    eventually (stat (broker, running) == 3);
    zqb_worker_destroy (&first);
    zqb_worker_t *second = new_worker (0, 1);
    assert_ok (reply_text (is_asked (second, "1"), "y"));
    assert_ok (reply_text (is_asked (second, "2"), "y"));
    assert_ok (reply_text (is_asked (second, "3"), "y"));
    zqb_client_destroy (&client);
    zqb_worker_destroy (&second);
}

TEST (a_worker_that_is_refused_hears_so_and_may_try_again)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.reconnect_ms = 1;
    zqb_worker_t *worker = zqb_worker_new (ctx, ENDPOINT, "echo", &options);
    zqb_client_t *client = new_client (0, 0, 0);
    assert_none (zqb_worker_recv (worker, PATIENCE_MS), ZQB_EREFUSED);
    assert_none (zqb_worker_recv (worker, PATIENCE_MS), ZQB_EREFUSED);
    assert_ok (zqb_broker_handle (broker, "echo", NULL, NULL));
    submit (client, "echo", "x");
    zqb_request_t *request;
    while ((request = zqb_worker_recv (worker, PATIENCE_MS)) == NULL)
        assert_int_equal (errno, ZQB_EREFUSED);
    assert_ok (reply_text (request, "y"));
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ---- brokers that go and come */

/* A worker that soon notices what becomes of its broker. */
static zqb_worker_t *new_quick_worker (const char *endpoint, int dialect)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.heartbeat_ms = 20;
    options.liveness = 1000;
    options.reconnect_ms = 1;
    return zqb_worker_new (ctx, endpoint, "echo", &options);
}

TEST (a_worker_registers_again_with_a_broker_that_was_restarted_and_loses_no_request_over_it)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        const char *endpoint = new_ipc ();
        zqb_broker_t *first = start_broker (endpoint, NULL), *second = NULL;
        zqb_worker_t *worker = new_quick_worker (endpoint, dialect);
        eventually (stat (first, workers) == 1);
        zqb_broker_destroy (&first);
        eventually ((second = start_broker (endpoint, NULL)) != NULL);
        zqb_client_options_t patient;
        memset (&patient, 0, sizeof patient);
        patient.timeout_ms = PATIENCE_MS;
        zqb_client_t *client = zqb_client_new (ctx, endpoint, &patient);
        uint64_t id = submit (client, "echo", "x");
        assert_ok (reply_text (is_asked (worker, "x"), "y"));
        receives (client, id, ZQB_REPLY_FINAL, "y");
        int requeued = (int) stat (second, requeued);
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
        zqb_broker_destroy (&second);
        /* A READY that was said just before the connection broke is delivered by libzmq when it is made again, and then
           the worker, which cannot know, says another: that may cost the request one of its attempts. */
        assert_in_range (requeued, 0, 1);
    }
}

TEST (brokers_with_connections_may_be_destroyed_again_and_again_and_the_context_goes_on)
{
    for (int i = 0; i < 100; i++) {
        const char *endpoint = new_ipc ();
        zqb_broker_t *other = start_broker (endpoint, NULL);
        zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "echo", NULL);
        eventually (stat (other, workers) == 1);
        zqb_worker_destroy (&worker);
        zqb_broker_destroy (&other);
    }
}

TEST (a_reply_to_a_broker_that_is_gone_is_enotconn_and_releases_the_request)
{
    zqb_worker_t *worker = new_worker (0, 2);
    zqb_client_t *client = new_client (0, 0, 0);
    submit (client, "echo", "x");
    submit (client, "echo", "y");
    zqb_request_t *first = is_asked (worker, "x"), *second = is_asked (worker, "y");
    zqb_broker_destroy (&broker);
    eventually (!zqb_worker_recv (worker, 0) && worker->registration > 0);
    assert_fails (partial_text (first, "late"), ENOTCONN);
    assert_fails (reply_text (first, "late"), ENOTCONN);
    assert_fails (zqb_request_fail (second, 0, "late"), ENOTCONN);
    assert_true (zqb__list_empty (&worker->held));
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (a_worker_may_be_destroyed_with_requests_in_hand_and_no_broker)
{
    zqb_worker_t *worker = new_worker (0, 2);
    zqb_client_t *client = new_client (0, 0, 0);
    submit (client, "echo", "x");
    is_asked (worker, "x");
    zqb_broker_destroy (&broker);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

static void destroy_worker (void *arg)
{
    outcome_t *outcome = (outcome_t *) arg;
    zqb_worker_destroy (&outcome->worker);
    zqb__flag_set (&outcome->done);
}

TEST (a_worker_whose_broker_is_gone_is_destroyed_at_once)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = -1;
    outcome_t outcome = {zqb_worker_new (ctx, ENDPOINT, "echo", &options), 0, 0, 0};
    eventually (stat (broker, workers) == 1);
    zqb_broker_destroy (&broker);
    void *thread = zmq_threadstart (destroy_worker, &outcome);
    int done = gets_done (&outcome.done);
    zmq_threadclose (thread);
    assert_true (done);
}

TEST (a_worker_may_be_made_before_its_broker)
{
    const char *endpoint = new_ipc ();
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "echo", NULL);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    zqb_broker_t *other = start_broker (endpoint, NULL);
    eventually (stat (other, workers) == 1);
    zqb_worker_destroy (&worker);
    eventually (stat (other, workers) == 0);
    zqb_broker_destroy (&other);
}

TEST (a_worker_turns_to_the_next_endpoint_when_a_broker_is_silent)
{
    zqb_worker_options_t options;
    char endpoints[128];
    snprintf (endpoints, sizeof endpoints, "%s,%s", new_ipc (), ENDPOINT);
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = 1;
    options.liveness = 5;
    options.reconnect_ms = 1;
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoints, "echo", &options);
    eventually (!zqb_worker_recv (worker, 0) && stat (broker, workers_left) + stat (broker, workers) > 0);
    zqb_worker_destroy (&worker);
}

/* Takes all sockets that are left, while somebody wants one, too. */
enum { SOCKETS_MOST = 2000 };
static void *hoard[SOCKETS_MOST];
static size_t hoarded;

static void hoard_sockets (void)
{
    while (hoarded < SOCKETS_MOST && (hoard[hoarded] = zmq_socket (ctx, ZMQ_PAIR)) != NULL)
        hoarded++;
}

static void free_hoard (void)
{
    while (hoarded)
        zmq_close (hoard[--hoarded]);
}

static void note_lack_of_sockets (UNUSED int level, const char *text, void *arg)
{
    *(int *) arg |= strstr (text, zqb_strerror (EMFILE)) != NULL;
}

TEST (a_worker_that_finds_no_socket_says_so_and_goes_on_trying)
{
    char endpoints[128];
    int noted = 0;
    zqb_worker_options_t options;
    const char *nobody = new_ipc ();
    zqb_broker_t *other = zqb_broker_new (ctx, NULL);
    snprintf (endpoints, sizeof endpoints, "%s,%s", nobody, new_ipc ());
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = options.liveness = options.reconnect_ms = options.reconnect_max_ms = 1;
    options.log = note_lack_of_sockets;
    options.log_arg = &noted;
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoints, "echo", &options);
    eventually ((hoard_sockets (), zqb_worker_recv (worker, 0) == NULL && noted));
    assert_fails (zqb_worker_fd (worker), ENOTCONN);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    free_hoard ();
    eventually (zqb_broker_bind (other, nobody) == 0);
    assert_ok (zqb_broker_start (other));
    eventually (!zqb_worker_recv (worker, 0) && stat (other, workers_left) + stat (other, workers) > 0);
    zqb_worker_destroy (&worker);
    zqb_broker_destroy (&other);
}

TEST (pauses_between_attempts_double_with_jitter_up_to_their_limit)
{
    zqb_worker_t *worker = new_worker (0, 1);
    uint64_t now = worker->line.now, pause = 0, jittered = 0;
    zqb__worker_unregister (worker, "test");
    assert_true (worker->register_at == now); /* the first is at once */
    for (int i = 0; i < 20; i++) {
        pause = worker->pause;
        zqb__worker_unregister (worker, "test");
        assert_true (worker->register_at >= now + pause / 2);
        assert_true (worker->register_at <= now + pause / 2 + pause);
        assert_true (worker->pause == (pause * 2 < 10000000 ? pause * 2 : 10000000));
        jittered += worker->register_at != now + pause;
    }
    assert_int_equal (pause, 10000000);
    assert_true (jittered > 10);
    zqb_worker_destroy (&worker);
}

/* ---- what is on the wire, for brokers of others: one made of a socket */

static void *router_at (const char *endpoint)
{
    void *router = zmq_socket (ctx, ZMQ_ROUTER);
    int patience = PATIENCE_MS, linger = 0;
    zmq_setsockopt (router, ZMQ_RCVTIMEO, &patience, sizeof patience);
    zmq_setsockopt (router, ZMQ_LINGER, &linger, sizeof linger);
    assert_ok (zmq_bind (router, endpoint));
    return router;
}

TEST (a_worker_speaks_majordomo_to_other_brokers_byte_by_byte)
{
    static const struct {
        int dialect;
        const char *front, *ready, *code, *reply, *goodbye;
    } cases[] = {
        {ZQB_DIALECT_MDP01, "", "|MDPW01|\\x01|echo", "MDPW01", "|MDPW01|\\x03|proxy|client||y", "|MDPW01|\\x05"},
        {ZQB_DIALECT_MDP02, NULL, "MDPW02|\\x01|echo", "MDPW02", "MDPW02|\\x04|proxy|client||y", "MDPW02|\\x06"},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_worker_options_t options;
        void *router = router_at (i ? "inproc://other-1" : "inproc://other-0");
        memset (&options, 0, sizeof options);
        options.dialect = cases[i].dialect;
        zqb_worker_t *worker = zqb_worker_new (ctx, i ? "inproc://other-1" : "inproc://other-0", "echo", &options);
        char address[256];
        int size = zmq_recv (router, address, sizeof address, 0);
        assert_string_equal (hear_text (router, 0), cases[i].ready);
        zmq_send (router, address, (size_t) size, ZMQ_SNDMORE);
        if (cases[i].front)
            zmq_send (router, "", 0, ZMQ_SNDMORE);
        zmq_send (router, cases[i].code, 6, ZMQ_SNDMORE);
        zmq_send (router, "\2", 1, ZMQ_SNDMORE);
        zmq_send (router, "proxy", 5, ZMQ_SNDMORE);
        zmq_send (router, "client", 6, ZMQ_SNDMORE);
        zmq_send (router, "", 0, ZMQ_SNDMORE);
        zmq_send (router, "x", 1, 0);
        assert_ok (reply_text (is_asked (worker, "x"), "y"));
        assert_string_equal (hear_text (router, 1), cases[i].reply);
        zqb_worker_destroy (&worker);
        assert_string_equal (hear_text (router, 1), cases[i].goodbye);
        zmq_close (router);
    }
}

TEST (a_worker_sends_heartbeats_while_it_waits)
{
    zqb_worker_options_t options;
    void *router = router_at ("inproc://other");
    memset (&options, 0, sizeof options);
    options.dialect = ZQB_DIALECT_MDP01;
    options.heartbeat_ms = 1;
    options.liveness = -1;
    zqb_worker_t *worker = zqb_worker_new (ctx, "inproc://other", "echo", &options);
    assert_string_equal (hear_text (router, 1), "|MDPW01|\\x01|echo");
    assert_none (zqb_worker_recv (worker, 20), EAGAIN);
    assert_string_equal (hear_text (router, 1), "|MDPW01|\\x04");
    zqb_worker_destroy (&worker);
    zmq_close (router);
}

/* A message of ZQB/1: commands without fields and body, of these types, each with a number of its own. */
static void tell_zqb1 (void *router, const char *address, size_t size, const char *types)
{
    unsigned char message[256] = "ZQB\1ourlife", *at = message + 12;
    for (; *types; types++, at += 16) {
        memset (at, 0, 16);
        zqb__put_32 (at, 16);
        at[4] = (unsigned char) *types;
        zqb__put_64 (at + 8, (uint64_t) (at - message));
    }
    assert_true (zmq_send (router, address, size, ZMQ_SNDMORE) >= 0);
    assert_true (zmq_send (router, message, (size_t) (at - message), 0) >= 0);
}

TEST (a_command_that_a_worker_does_not_know_is_passed_over)
{
    void *router = router_at ("inproc://other");
    zqb_worker_t *worker = zqb_worker_new (ctx, "inproc://other", "echo", NULL);
    char address[256];
    int size = zmq_recv (router, address, sizeof address, 0);
    hear_text (router, 0);
    tell_zqb1 (router, address, (size_t) size, "\11\100\177\2");
    assert_non_null (zqb_worker_recv (worker, PATIENCE_MS));
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    assert_int_equal (worker->registration, 0);
    zqb_worker_destroy (&worker);
    zmq_close (router);
}

/* The broker gives it to another. */
TEST (what_came_over_a_connection_that_was_lost_since_is_not_handed_out)
{
    char endpoint[256], address[256];
    size_t length = sizeof endpoint;
    void *router = router_at ("tcp://127.0.0.1:*");
    assert_ok (zmq_getsockopt (router, ZMQ_LAST_ENDPOINT, endpoint, &length));
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "echo", NULL);
    int size = zmq_recv (router, address, sizeof address, 0);
    hear_text (router, 0);
    tell_zqb1 (router, address, (size_t) size, "\2");
    eventually (zqb__socket_readable (worker->line.socket));
    zmq_close (router);
    eventually ((zqb__line_look_at_monitor (&worker->line), worker->line.lost));
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    assert_true (zqb__list_empty (&worker->waiting));
    assert_true (worker->registration > 0);
    zqb_worker_destroy (&worker);
}

TEST (nonsense_from_a_broker_is_passed_over)
{
    static const char *const nonsense[] = {"", "x", "MDPW01", "ZQB\1lifelife", "ZQB\1lifelifeand garbage behind it"};
    void *router = router_at ("inproc://other");
    zqb_worker_t *worker = zqb_worker_new (ctx, "inproc://other", "echo", NULL);
    char address[256];
    int size = zmq_recv (router, address, sizeof address, 0);
    hear_text (router, 0);
    for (size_t i = 0; i < COUNT (nonsense); i++) {
        zmq_send (router, address, (size_t) size, ZMQ_SNDMORE);
        zmq_send (router, nonsense[i], strlen (nonsense[i]), 0);
    }
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    zqb_worker_destroy (&worker);
    zmq_close (router);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        FRESH (an_argument_that_is_wrong_is_einval_and_makes_nothing),
        FRESH (an_option_out_of_range_is_einval),
        FRESH (without_descriptors_there_is_no_worker),
        FRESH (null_is_einval_and_may_be_stopped_and_destroyed),
        FRESH (a_request_that_is_answered_with_null_stays_the_workers),
        FRESH (a_worker_serves_in_every_dialect),
        FRESH (a_body_may_be_moved_into_the_reply),
        FRESH (replies_may_be_given_in_any_order),
        FRESH (a_worker_holds_as_many_as_its_credit),
        FRESH (parts_of_a_reply_come_as_they_are_sent),
        FRESH (mdp01_has_no_partial_replies),
        FRESH (a_failure_is_told_with_its_text),
        FRESH (a_failure_in_mdp_is_an_empty_reply),
        FRESH (a_frame_of_2_gib_is_emsgsize_and_the_request_stays),
        FRESH (recv_gives_up_when_its_time_is_over),
        FRESH (a_worker_that_is_stopped_receives_nothing_from_now_on),
        FRESH (a_worker_that_waits_hears_of_the_end_of_the_context),
        FRESH (a_worker_that_waits_is_interrupted_by_a_signal),
        FRESH (the_descriptor_of_a_worker_tells_when_there_is_something_to_do),
        FRESH (run_serves_until_it_is_stopped_and_finishes_what_it_does),
        FRESH (run_ends_with_the_context),
        FRESH (a_worker_that_is_destroyed_gives_what_it_holds_to_another_at_once),
        FRESH (what_a_worker_received_but_did_not_begin_goes_to_another_too),
        FRESH (a_worker_that_is_refused_hears_so_and_may_try_again),
        FRESH (a_worker_registers_again_with_a_broker_that_was_restarted_and_loses_no_request_over_it),
        FRESH (brokers_with_connections_may_be_destroyed_again_and_again_and_the_context_goes_on),
        FRESH (a_reply_to_a_broker_that_is_gone_is_enotconn_and_releases_the_request),
        FRESH (a_worker_may_be_destroyed_with_requests_in_hand_and_no_broker),
        FRESH (a_worker_whose_broker_is_gone_is_destroyed_at_once),
        FRESH (a_worker_may_be_made_before_its_broker),
        FRESH (a_worker_turns_to_the_next_endpoint_when_a_broker_is_silent),
        FRESH (a_worker_that_finds_no_socket_says_so_and_goes_on_trying),
        FRESH (pauses_between_attempts_double_with_jitter_up_to_their_limit),
        FRESH (a_worker_speaks_majordomo_to_other_brokers_byte_by_byte),
        FRESH (a_worker_sends_heartbeats_while_it_waits),
        FRESH (a_command_that_a_worker_does_not_know_is_passed_over),
        FRESH (what_came_over_a_connection_that_was_lost_since_is_not_handed_out),
        FRESH (nonsense_from_a_broker_is_passed_over),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
