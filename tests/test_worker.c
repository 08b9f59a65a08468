/* Workers: registering, serving in every dialect, leaving, and what they do when their broker does odd things. */
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"
#include "unit_text.h"
#include "unit_played.h"
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
    assert_fails (zqb_request_refuse (NULL), EINVAL);
    assert_fails (zqb_request_progress (NULL, 1, 2, NULL), EINVAL);
    assert_fails (zqb_request_cancelled (NULL), EINVAL);
    assert_fails (zqb_request_left_ms (NULL), EINVAL);
    assert_null (zqb_request_body (NULL));
    assert_null (zqb_request_service (NULL, &size));
    assert_int_equal (size, 0);
    zqb_worker_stop (NULL);
    zqb_worker_drain (NULL);
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

/* ---- what it says to a broker, and what that says to it: one that is played */

static zqb_worker_t *played_worker (played_t *played, const zqb_worker_options_t *options)
{
    played_bind (played);
    zqb_worker_t *worker = zqb_worker_new (ctx, played->endpoint, "echo", options);
    assert_non_null (worker);
    assert_int_equal (strncmp (played_hears (played), "READY @echo", 11), 0);
    return worker;
}

/* A worker with a request in its hand, which has this token, and these flags. */
static zqb_worker_t *played_worker_at_work (played_t *played, const zqb_worker_options_t *options, uint64_t token,
                                            int flags, zqb_request_t **request)
{
    zqb_worker_t *worker = played_worker (played, options);
    played_says_body (played, ZQB__REQUEST, flags, token, "x");
    *request = is_asked (worker, "x");
    return worker;
}

static void end_played (played_t *played, zqb_worker_t **worker)
{
    zqb_worker_destroy (worker);
    played_close (played);
}

TEST (a_worker_for_a_pattern_is_told_the_name_that_the_client_called)
{
    static const struct {
        const char *sent, *told;
        int copied;
    } cases[] = {{"img.png", "img.png", 1}, {NULL, "img.*", 0}, {"img.*", "img.*", 0}};
    played_t played;
    played_bind (&played);
    zqb_worker_t *worker = zqb_worker_new (ctx, played.endpoint, "img.*", NULL);
    played_hears_text (&played, "READY @img.* credit=0", 0);
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb__command_t command = zqb__command (ZQB__REQUEST, i + 1);
        size_t size;
        command.service = (const unsigned char *) cases[i].sent;
        command.service_size = cases[i].sent ? strlen (cases[i].sent) : 0;
        played_says (&played, &command);
        zqb_request_t *request = zqb_worker_recv (worker, PATIENCE_MS);
        assert_non_null (request);
        assert_string_equal (zqb_request_service (request, &size), cases[i].told);
        assert_int_equal (size, strlen (cases[i].told));
        assert_int_equal (request->name != NULL, cases[i].copied);
        assert_ok (reply_text (request, "y"));
        played_hears_text (&played, "REPLY #%llx 1:y", i + 1);
    }
    end_played (&played, &worker);
}

TEST (progress_is_told_at_once_even_if_more_requests_wait)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    played_says_body (&played, ZQB__REQUEST, 0, 2, "y");
    assert_int_equal (zqb_request_cancelled (request), 0); /* which reads the other */
    assert_false (zqb__list_empty (&worker->waiting));
    assert_ok (zqb_request_progress (request, 1, 2, "half of it"));
    played_hears_text (&played, "PROGRESS #1 text=half of it progress=1/2", 0);
    assert_ok (zqb_request_progress (request, UINT64_MAX, 0, NULL));
    played_hears_text (&played, "PROGRESS #1 progress=18446744073709551615/0", 0);
    assert_ok (partial_text (request, "a part"));
    played_hears_text (&played, "PARTIAL #1 1:a part", 0);
    assert_ok (reply_text (request, "the rest")); /* and of work that is so long, this, too */
    played_hears_text (&played, "REPLY #1 1:the rest", 0);
    is_asked (worker, "y");
    end_played (&played, &worker);
}

TEST (a_text_of_progress_has_255_bytes_at_most)
{
    char text[301], wanted[400];
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    memset (text, 't', 300);
    text[300] = 0;
    assert_ok (zqb_request_progress (request, 0, 0, text));
    snprintf (wanted, sizeof wanted, "PROGRESS #1 text=%.255s progress=0/0", text);
    assert_string_equal (played_hears (&played), wanted);
    end_played (&played, &worker);
}

TEST (a_failure_has_a_code)
{
    static const struct {
        int code;
        const char *text, *says;
    } cases[] = {{42, "why", "ERROR #%llx text=why code=42"}, {0, "why", "ERROR #%llx text=why"},
                 {-1, NULL, "ERROR #%llx code=4294967295"},   {ZQB_EREFUSED, NULL, "ERROR #%llx code=156385716"}};
    played_t played;
    zqb_worker_t *worker = played_worker (&played, NULL);
    for (size_t i = 0; i < COUNT (cases); i++) {
        played_says_body (&played, ZQB__REQUEST, 0, i + 1, "x");
        assert_ok (zqb_request_fail (is_asked (worker, "x"), cases[i].code, cases[i].text));
        played_hears_text (&played, cases[i].says, i + 1);
    }
    end_played (&played, &worker);
}

TEST (a_request_that_is_refused_goes_back)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    assert_ok (zqb_request_refuse (request));
    played_hears_text (&played, "ERROR #1 status=4", 0);
    assert_true (zqb__list_empty (&worker->held));
    end_played (&played, &worker);
}

/* Returns what the first byte says; may not end the request by itself. */
static int return_what_is_asked (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    static const int codes[] = {0, ZQB_EREFUSED, 7, -1};
    zqb_msg_add_str (reply, "text");
    if (zqb_request_refuse (request) == 0 || errno != EINVAL || zqb_request_fail (request, 1, "x") == 0)
        return 99;
    int which = *(const char *) zqb_msg_data (zqb_request_body (request), 0) - '0';
    if (which == 3)
        zqb_worker_stop ((zqb_worker_t *) arg);
    return codes[which];
}

TEST (what_a_handler_returns_is_the_code_or_refuses)
{
    played_t played;
    zqb_worker_t *worker = played_worker (&played, NULL);
    for (int i = 0; i < 4; i++) {
        char body[2] = {(char) ('0' + i), 0};
        played_says_body (&played, ZQB__REQUEST, 0, (uint64_t) i + 1, body);
    }
    assert_ok (zqb_worker_run (worker, return_what_is_asked, worker));
    played_hears_text (&played, "REPLY #1 1:text", 0);
    played_hears_text (&played, "ERROR #2 status=4", 0);
    played_hears_text (&played, "ERROR #3 text=text code=7", 0);
    played_hears_text (&played, "ERROR #4 text=text code=4294967295", 0);
    end_played (&played, &worker);
}

TEST (what_mdp_has_no_word_for_is_enotsup_and_the_request_stays)
{
    for (int dialect = ZQB_DIALECT_MDP01; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_worker_t *worker = new_worker (dialect, 1);
        zqb_client_t *client = new_client (0, 0, 0);
        uint64_t id = submit (client, "echo", "x");
        zqb_request_t *request = is_asked (worker, "x");
        assert_fails (zqb_request_refuse (request), ENOTSUP);
        assert_fails (zqb_request_progress (request, 1, 2, NULL), ENOTSUP);
        assert_int_equal (zqb_request_left_ms (request), -1);
        assert_int_equal (zqb_request_cancelled (request), 0);
        assert_ok (reply_text (request, "y"));
        receives (client, id, ZQB_REPLY_FINAL, "y");
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
    }
}

static int refuse (UNUSED zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    return zqb_msg_add_str (reply, "a text that nobody hears") == 0 ? ZQB_EREFUSED : -1;
}

static void run_refusing (void *arg)
{
    outcome_t *outcome = (outcome_t *) arg;
    outcome->result = zqb_worker_run (outcome->worker, refuse, NULL);
    zqb_worker_destroy (&outcome->worker);
}

TEST (over_mdp_a_handler_that_refuses_gives_an_empty_reply)
{
    outcome_t outcome = {new_worker (ZQB_DIALECT_MDP01, 1), -1, 0, 0};
    zqb_client_t *client = new_client (0, 0, 0);
    void *thread = zmq_threadstart (run_refusing, &outcome);
    receives (client, submit (client, "echo", "x"), ZQB_REPLY_FINAL, "");
    zmq_ctx_shutdown (ctx);
    zmq_threadclose (thread);
    zqb_client_destroy (&client);
}

/* ---- what nobody wants any more */

typedef struct noted_t {
    zqb_request_t *request;
    int count;
} noted_t;

static void note_cancelled (zqb_request_t *request, void *arg)
{
    noted_t *noted = (noted_t *) arg;
    noted->request = request;
    noted->count++;
}

static zqb_worker_options_t options_that_note (noted_t *noted)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.cancelled = note_cancelled;
    options.cancelled_arg = noted;
    return options;
}

TEST (a_request_in_hand_that_is_cancelled_says_so_and_is_ended_all_the_same)
{
    noted_t noted = {NULL, 0};
    played_t played;
    zqb_request_t *request;
    zqb_worker_options_t options = options_that_note (&noted);
    zqb_worker_t *worker = played_worker_at_work (&played, &options, 1, ZQB__WINDOW, &request);
    assert_int_equal (zqb_request_cancelled (request), 0);
    played_says_only (&played, ZQB__CANCEL, 2); /* another's, who ended it just now */
    assert_int_equal (zqb_request_cancelled (request), 0);
    played_says_only (&played, ZQB__CANCEL, 1);
    played_says_only (&played, ZQB__CANCEL, 1);
    assert_int_equal (zqb_request_cancelled (request), 1);
    assert_int_equal (noted.count, 1);
    assert_ptr_equal (noted.request, request);
    assert_fails (partial_text (request, "late"), ZQB_ECANCELLED);
    assert_fails (zqb_request_progress (request, 1, 2, NULL), ZQB_ECANCELLED);
    played_hears_nothing (&played);
    assert_ok (reply_text (request, "late"));
    played_hears_text (&played, "REPLY #1 1:late", 0);
    played_says_body (&played, ZQB__REQUEST, 0, 3, "y"); /* in the memory of the first */
    request = is_asked (worker, "y");
    assert_int_equal (zqb_request_cancelled (request), 0);
    end_played (&played, &worker);
}

TEST (recv_hears_too_what_is_cancelled)
{
    noted_t noted = {NULL, 0};
    played_t played;
    zqb_request_t *request;
    zqb_worker_options_t options = options_that_note (&noted);
    zqb_worker_t *worker = played_worker_at_work (&played, &options, 1, 0, &request);
    played_says_only (&played, ZQB__CANCEL, 1);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    assert_int_equal (noted.count, 1);
    assert_ptr_equal (noted.request, request);
    end_played (&played, &worker);
}

TEST (a_request_that_is_cancelled_before_it_is_begun_is_never_handed_out)
{
    noted_t noted = {NULL, 0};
    played_t played;
    zqb_request_t *request;
    zqb_worker_options_t options = options_that_note (&noted);
    zqb_worker_t *worker = played_worker_at_work (&played, &options, 1, 0, &request);
    played_says_body (&played, ZQB__REQUEST, 0, 2, "y");
    played_says_body (&played, ZQB__REQUEST, 0, 3, "z");
    played_says_only (&played, ZQB__CANCEL, 2);
    assert_int_equal (zqb_request_cancelled (request), 0);
    played_hears_text (&played, "ERROR #2 status=6", 0);
    assert_int_equal (noted.count, 0);
    is_asked (worker, "z");
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    end_played (&played, &worker);
}

TEST (a_request_whose_broker_is_gone_is_cancelled_and_the_worker_does_not_register_in_the_midst_of_it)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    played_says_only (&played, ZQB__DISCONNECT, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal (zqb_request_cancelled (request), 1);
    assert_fails (zqb_request_progress (request, 1, 2, NULL), ENOTCONN);
    played_hears_nothing (&played);
    assert_fails (reply_text (request, "late"), ENOTCONN);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    played_hears_text (&played, "READY @echo credit=0", 0);
    end_played (&played, &worker);
}

TEST (a_request_whose_connection_was_lost_is_cancelled)
{
    char endpoint[256], address[256];
    size_t length = sizeof endpoint;
    void *router = router_at ("tcp://127.0.0.1:*");
    assert_ok (zmq_getsockopt (router, ZMQ_LAST_ENDPOINT, endpoint, &length));
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "echo", NULL);
    int size = zmq_recv (router, address, sizeof address, 0);
    hear_text (router, 0);
    tell_zqb1 (router, address, (size_t) size, "\2");
    zqb_request_t *request = zqb_worker_recv (worker, PATIENCE_MS);
    assert_non_null (request);
    assert_int_equal (zqb_request_cancelled (request), 0);
    zmq_close (router);
    eventually (zqb_request_cancelled (request));
    assert_int_equal (worker->registration, 1);
    assert_fails (zqb_request_progress (request, 1, 2, NULL), ENOTCONN);
    assert_fails (reply_text (request, "late"), ENOTCONN);
    assert_true (zqb__list_empty (&worker->held));
    zqb_worker_destroy (&worker);
}

TEST (with_the_end_of_the_context_nobody_wants_anything)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    zmq_ctx_shutdown (ctx);
    assert_int_equal (zqb_request_cancelled (request), 1);
    assert_fails (partial_text (request, "late"), ENOTCONN);
    end_played (&played, &worker);
}

TEST (who_asks_whether_it_is_cancelled_sends_the_heartbeats_that_are_due)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = 1;
    options.liveness = -1;
    zqb_worker_t *worker = played_worker_at_work (&played, &options, 1, 0, &request);
    for (int beats = 0; beats < 3;) {
        eventually (zqb_request_cancelled (request) == 0 && played_next (&played, ZMQ_DONTWAIT));
        assert_string_equal (played.text, "HEARTBEAT");
        beats++;
    }
    end_played (&played, &worker);
}

TEST (each_request_tells_its_own_user_whoever_had_the_one_before)
{
    static const char *const users[] = {"alice", "alice", "bob", "", "bob", "bobby", "bob", "alice"};
    played_t played;
    zqb_worker_t *worker = played_worker (&played, NULL);
    for (size_t i = 0; i < COUNT (users); i++) {
        zqb__rare_t rare;
        memset (&rare, 0, sizeof rare);
        rare.user = (const unsigned char *) users[i];
        rare.user_size = strlen (users[i]);
        played_says_why (&played, ZQB__REQUEST, i + 1, 0, NULL, &rare);
        zqb_request_t *request = zqb_worker_recv (worker, PATIENCE_MS);
        assert_non_null (request);
        assert_string_equal (zqb_request_user (request), users[i]);
        assert_ok (reply_text (request, "done"));
    }
    end_played (&played, &worker);
}

TEST (what_is_left_of_a_deadline_gets_less_and_then_nobody_wants_a_reply)
{
    static const uint32_t deadlines[] = {0, 3600000, 1, UINT32_MAX};
    played_t played;
    zqb_request_t *requests[COUNT (deadlines)];
    zqb_worker_t *worker = played_worker (&played, NULL);
    for (size_t i = 0; i < COUNT (deadlines); i++) {
        zqb__rare_t rare;
        memset (&rare, 0, sizeof rare);
        rare.deadline_ms = deadlines[i];
        played_says_why (&played, ZQB__REQUEST, i + 1, 0, NULL, &rare);
        requests[i] = zqb_worker_recv (worker, PATIENCE_MS);
        assert_non_null (requests[i]);
    }
    assert_int_equal (zqb_request_left_ms (requests[0]), -1);
    assert_int_equal (zqb_request_cancelled (requests[0]), 0);
    assert_in_range (zqb_request_left_ms (requests[1]), 1, 3600000);
    assert_int_equal (zqb_request_cancelled (requests[1]), 0);
    assert_int_equal (zqb_request_left_ms (requests[3]), INT_MAX);
    eventually (zqb_request_left_ms (requests[2]) == 0);
    assert_int_equal (zqb_request_cancelled (requests[2]), 1);
    assert_fails (partial_text (requests[2], "late"), ZQB_ECANCELLED);
    end_played (&played, &worker);
}

TEST (who_says_how_far_it_is_or_sends_a_part_hears_what_the_broker_has_said)
{
    for (int parts = 0; parts < 2; parts++) {
        noted_t noted = {NULL, 0};
        played_t played;
        zqb_request_t *request;
        zqb_worker_options_t options = options_that_note (&noted);
        zqb_worker_t *worker = played_worker_at_work (&played, &options, 1, 0, &request);
        played_says_only (&played, ZQB__CANCEL, 1);
        if (parts)
            assert_fails (partial_text (request, "late"), ZQB_ECANCELLED);
        else
            assert_fails (zqb_request_progress (request, 1, 2, NULL), ZQB_ECANCELLED);
        assert_int_equal (noted.count, 1);
        played_hears_nothing (&played);
        end_played (&played, &worker);
    }
}

TEST (who_says_how_far_it_is_past_the_deadline_hears_that_nobody_wants_it)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    request->deadline = zqb__clock () + 1000;
    eventually (zqb_request_left_ms (request) == 0);
    assert_fails (zqb_request_progress (request, 1, 2, NULL), ZQB_ECANCELLED);
    assert_fails (partial_text (request, "late"), ZQB_ECANCELLED);
    end_played (&played, &worker);
}

TEST (a_token_of_a_registration_that_is_over_is_another_than_the_same_of_the_next)
{
    noted_t noted = {NULL, 0};
    played_t played;
    zqb_request_t *before, *request;
    zqb_worker_options_t options = options_that_note (&noted);
    zqb_worker_t *worker = played_worker_at_work (&played, &options, 1, 0, &before);
    played_says_only (&played, ZQB__DISCONNECT, 0);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    played_hears_text (&played, "READY @echo credit=0", 0);
    played_says_body (&played, ZQB__REQUEST, 0, 1, "y");
    request = is_asked (worker, "y");
    played_says_only (&played, ZQB__CANCEL, 1);
    assert_int_equal (zqb_request_cancelled (request), 1);
    assert_ptr_equal (noted.request, request);
    assert_fails (reply_text (before, "late"), ENOTCONN);
    end_played (&played, &worker);
}

/* ---- parts that wait until others were read */

/* Sends as many parts as may be sent at once, and hears them. */
static void send_a_window (played_t *played, zqb_request_t *request)
{
    for (int i = 0; i < ZQB__WINDOW_PARTS; i++) {
        assert_ok (partial_text (request, "part"));
        played_hears_text (played, "PARTIAL #1 1:part", 0);
    }
}

TEST (a_part_beyond_the_window_goes_when_more_is_granted)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, ZQB__WINDOW, &request);
    send_a_window (&played, request);
    for (uint32_t granted = 1; granted <= 3; granted++) {
        played_says_more (&played, 2, 100); /* of a request that is over */
        played_says_more (&played, 1, granted);
        for (uint32_t i = 0; i < granted; i++) {
            assert_ok (partial_text (request, "more"));
            played_hears_text (&played, "PARTIAL #1 1:more", 0);
        }
        assert_int_equal (request->parts, 0);
    }
    for (int i = 0; i < 20; i++)
        played_says_more (&played, 1, 65534);
    assert_ok (partial_text (request, "more"));
    assert_int_equal (request->parts, ZQB__PARTS_MOST - 1);
    assert_ok (reply_text (request, "last"));
    end_played (&played, &worker);
}

TEST (when_any_number_of_parts_is_granted_none_is_counted_any_more)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, ZQB__WINDOW, &request);
    send_a_window (&played, request);
    played_says_more (&played, 1, 65535);
    for (int i = 0; i < 3; i++)
        send_a_window (&played, request);
    assert_int_equal (request->parts, ZQB__PARTS_ALL);
    end_played (&played, &worker);
}

TEST (without_a_window_all_parts_go_at_once)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    played_says_more (&played, 1, 5);
    for (int i = 0; i < 3; i++)
        send_a_window (&played, request);
    assert_int_equal (request->parts, ZQB__PARTS_ALL);
    end_played (&played, &worker);
}

TEST (a_part_that_waits_ends_with_what_happens_to_its_request)
{
    static const struct {
        int type, error;
    } cases[] = {{ZQB__CANCEL, ZQB_ECANCELLED}, {ZQB__DISCONNECT, ENOTCONN}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        played_t played;
        zqb_request_t *request;
        zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, ZQB__WINDOW, &request);
        send_a_window (&played, request);
        played_says_only (&played, cases[i].type, 1);
        assert_fails (partial_text (request, "more"), cases[i].error);
        end_played (&played, &worker);
    }
}

TEST (a_part_that_waits_ends_with_the_deadline)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, ZQB__WINDOW, &request);
    send_a_window (&played, request);
    request->deadline = zqb__clock () + 1000;
    assert_fails (partial_text (request, "more"), ZQB_ECANCELLED);
    end_played (&played, &worker);
}

TEST (a_worker_that_is_stopped_sends_its_parts_without_waiting)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, ZQB__WINDOW, &request);
    send_a_window (&played, request);
    zqb_worker_stop (worker);
    assert_ok (partial_text (request, "more"));
    played_hears_text (&played, "PARTIAL #1 1:more", 0);
    assert_ok (reply_text (request, "last"));
    played_hears_text (&played, "REPLY #1 1:last", 0);
    end_played (&played, &worker);
}

typedef struct waiting_t {
    zqb_worker_t *worker;
    zqb_request_t *request;
    int result, error;
} waiting_t;

static void send_one_part_more (void *arg)
{
    waiting_t *waiting = (waiting_t *) arg;
    waiting->result = partial_text (waiting->request, "more");
    waiting->error = errno;
}

TEST (a_worker_whose_part_waits_sends_heartbeats_and_takes_requests)
{
    played_t played;
    waiting_t waiting;
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = 1;
    options.liveness = -1;
    waiting.worker = played_worker_at_work (&played, &options, 1, ZQB__WINDOW, &waiting.request);
    send_a_window (&played, waiting.request);
    void *thread = zmq_threadstart (send_one_part_more, &waiting);
    for (int beats = 0; beats < 3; beats++) {
        assert_true (played_next (&played, 0));
        assert_string_equal (played.text, "HEARTBEAT");
    }
    played_says_body (&played, ZQB__REQUEST, 0, 2, "y");
    played_says_more (&played, 1, 1);
    zmq_threadclose (thread);
    assert_ok (waiting.result);
    played_hears_text (&played, "PARTIAL #1 1:more", 0);
    is_asked (waiting.worker, "y");
    end_played (&played, &waiting.worker);
}

TEST (a_part_that_waits_is_woken_by_a_stop_and_by_the_end_of_the_context)
{
    for (int stops = 1; stops >= 0; stops--) {
        played_t played;
        waiting_t waiting;
        zqb_worker_options_t options;
        memset (&options, 0, sizeof options);
        options.heartbeat_ms = 1;
        options.liveness = -1;
        waiting.worker = played_worker_at_work (&played, &options, 1, ZQB__WINDOW, &waiting.request);
        send_a_window (&played, waiting.request);
        void *thread = zmq_threadstart (send_one_part_more, &waiting);
        assert_true (played_next (&played, 0)); /* a heartbeat: it waits */
        if (stops)
            zqb_worker_stop (waiting.worker);
        else
            zmq_ctx_shutdown (ctx);
        zmq_threadclose (thread);
        assert_int_equal (waiting.result, stops ? 0 : -1);
        assert_int_equal (waiting.error, stops ? waiting.error : ENOTCONN);
        end_played (&played, &waiting.worker);
    }
}

/* ---- leaving */

/* It has left, for ever, and said so once. */
static void has_left (played_t *played, zqb_worker_t **worker)
{
    for (int i = 0; i < 3; i++)
        assert_none (zqb_worker_recv (*worker, i ? -1 : 0), ECANCELED);
    assert_ok (zqb_worker_run (*worker, echo, NULL));
    played_hears_text (played, "DISCONNECT unbegun", 0);
    zqb_worker_destroy (worker);
    played_hears_nothing (played);
    played_close (played);
}

TEST (a_worker_that_is_drained_does_what_it_has_and_what_comes_until_the_broker_agrees)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    zqb_worker_drain (worker);
    zqb_worker_drain (worker);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    played_hears_text (&played, "DRAIN", 0);
    played_says_body (&played, ZQB__REQUEST, 0, 2, "y");
    played_says_body (&played, ZQB__REQUEST, 0, 3, "z");
    played_says_only (&played, ZQB__DRAIN, 0);
    zqb_request_t *second = is_asked (worker, "y");
    assert_ok (reply_text (request, "one"));
    assert_ok (reply_text (is_asked (worker, "z"), "three"));
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    assert_none (zqb_worker_recv (worker, 1), EAGAIN); /* it still has one */
    assert_ok (zqb_request_progress (second, 1, 2, NULL));
    assert_ok (reply_text (second, "two"));
    assert_none (zqb_worker_recv (worker, -1), ECANCELED);
    played_hears_text (&played, "REPLY #1 1:one", 0);
    played_hears_text (&played, "REPLY #3 1:three", 0);
    played_hears_text (&played, "PROGRESS #2 progress=1/2", 0);
    played_hears_text (&played, "REPLY #2 1:two", 0);
    has_left (&played, &worker);
}

TEST (a_worker_whose_broker_drains_it_leaves_in_the_same_way)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    played_says_only (&played, ZQB__DRAIN, 0);
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    zqb_worker_drain (worker); /* which is no news */
    assert_none (zqb_worker_recv (worker, 0), EAGAIN);
    played_hears_nothing (&played);
    assert_ok (reply_text (request, "y"));
    played_hears_text (&played, "REPLY #1 1:y", 0);
    assert_none (zqb_worker_recv (worker, 0), ECANCELED);
    has_left (&played, &worker);
}

TEST (a_worker_that_is_drained_in_the_midst_of_work_tells_the_broker_when_it_is_asked)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    zqb_worker_drain (worker);
    assert_int_equal (zqb_request_cancelled (request), 0);
    played_hears_text (&played, "DRAIN", 0);
    played_says_only (&played, ZQB__DRAIN, 0);
    assert_int_equal (zqb_request_cancelled (request), 0);
    assert_ok (reply_text (request, "y"));
    played_hears_text (&played, "REPLY #1 1:y", 0);
    assert_none (zqb_worker_recv (worker, 0), ECANCELED);
    has_left (&played, &worker);
}

TEST (a_worker_that_is_not_registered_leaves_at_once)
{
    for (int drained_before = 0; drained_before < 2; drained_before++) {
        played_t played;
        zqb_worker_options_t options;
        memset (&options, 0, sizeof options);
        options.reconnect_ms = 3600000;
        zqb_worker_t *worker = played_worker (&played, &options);
        if (drained_before)
            zqb_worker_drain (worker);
        assert_none (zqb_worker_recv (worker, 0), EAGAIN);
        for (int i = 0; i < 2; i++)
            played_says_why (&played, ZQB__DISCONNECT, 0, ZQB_EREFUSED - ZQB_ERRNO, NULL, NULL);
        if (!drained_before)
            assert_none (zqb_worker_recv (worker, 0), ZQB_EREFUSED);
        zqb_worker_drain (worker);
        assert_none (zqb_worker_recv (worker, -1), ECANCELED);
        assert_none (zqb_worker_recv (worker, -1), ECANCELED);
        end_played (&played, &worker);
    }
}

TEST (a_worker_whose_broker_never_came_leaves_at_once)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = -1;
    zqb_worker_t *worker = zqb_worker_new (ctx, new_ipc (), "echo", &options);
    zqb_worker_drain (worker);
    assert_none (zqb_worker_recv (worker, -1), ECANCELED);
    zqb_worker_destroy (&worker);
}

TEST (an_mdp_worker_that_is_drained_says_goodbye_when_it_is_done)
{
    for (int dialect = ZQB_DIALECT_MDP01; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_worker_t *worker = new_worker (dialect, 1);
        zqb_client_t *client = new_client (0, 0, 0);
        uint64_t left = stat (broker, workers_left), id = submit (client, "echo", "x");
        zqb_request_t *request = is_asked (worker, "x");
        zqb_worker_drain (worker);
        assert_none (zqb_worker_recv (worker, 0), EAGAIN);
        assert_ok (reply_text (request, "y"));
        receives (client, id, ZQB_REPLY_FINAL, "y");
        assert_none (zqb_worker_recv (worker, -1), ECANCELED);
        eventually (stat (broker, workers_left) == left + 1);
        zqb_worker_destroy (&worker);
        zqb_client_destroy (&client);
    }
}

/* A broker of another make lives, and gives out requests, but does not know the word. */
static void does_not_answer (played_t *played)
{
    played_says_only (played, ZQB__HEARTBEAT, 0);
    played_says_body (played, ZQB__REQUEST, 0, 2, "y");
}

TEST (a_worker_whose_broker_never_answers_that_it_may_leave_leaves_when_nothing_is_begun)
{
    played_t played;
    zqb_request_t *request;
    zqb_worker_t *worker = played_worker_at_work (&played, NULL, 1, 0, &request);
    zqb_worker_drain (worker);
    assert_int_equal (zqb_request_cancelled (request), 0);
    played_hears_text (&played, "DRAIN", 0);
    worker->leaves_at = 0; /* the time is over */
    assert_none (zqb_worker_recv (worker, 1), EAGAIN);
    assert_ok (reply_text (request, "z"));
    played_hears_text (&played, "REPLY #1 1:z", 0);
    does_not_answer (&played);
    assert_none (zqb_worker_recv (worker, -1), ECANCELED);
    has_left (&played, &worker);
}

TEST (a_worker_that_waits_for_the_answer_that_it_may_leave_does_what_comes_and_is_woken_when_it_waited_enough)
{
    static const struct {
        int heartbeat_ms, liveness, patience_ms;
    } cases[] = {{0, 0, 7500}, {10, 1, 1000}, {1000, 5, 5000}, {60000, 0, 10000}, {-1, 0, 10000}, {0, -1, 10000}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        played_t played;
        zqb_worker_options_t options;
        memset (&options, 0, sizeof options);
        options.heartbeat_ms = cases[i].heartbeat_ms;
        options.liveness = cases[i].liveness;
        zqb_worker_t *worker = played_worker (&played, &options);
        assert_int_equal (zqb__worker_patience (worker), cases[i].patience_ms * 1000);
        worker->expiry = UINT64_MAX; /* the broker is never silent */
        zqb_worker_drain (worker);
        assert_none (zqb_worker_recv (worker, 0), EAGAIN);
        played_hears_text (&played, "DRAIN", 0);
        does_not_answer (&played);
        assert_ok (reply_text (is_asked (worker, "y"), "z"));
        played_hears_text (&played, "REPLY #2 1:z", 0);
        worker->leaves_at = zqb__clock () + 1000;
        assert_none (zqb_worker_recv (worker, -1), ECANCELED);
        has_left (&played, &worker);
    }
}

static void run_played_worker (void *arg)
{
    outcome_t *outcome = (outcome_t *) arg;
    outcome->result = zqb_worker_run (outcome->worker, echo, NULL);
    zqb__flag_set (&outcome->done);
}

TEST (a_worker_that_waits_is_woken_to_be_drained)
{
    played_t played;
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = -1; /* nothing else wakes it */
    outcome_t outcome = {played_worker (&played, &options), -1, 0, 0};
    void *thread = zmq_threadstart (run_played_worker, &outcome);
    played_says_body (&played, ZQB__REQUEST, 0, 1, "x");
    played_hears_text (&played, "REPLY #1 1:x", 0);
    zqb_worker_drain (outcome.worker);
    played_hears_text (&played, "DRAIN", 0);
    zqb_worker_drain (outcome.worker);
    played_says_body (&played, ZQB__REQUEST, 0, 2, "y");
    played_says_only (&played, ZQB__DRAIN, 0);
    played_hears_text (&played, "REPLY #2 1:y", 0);
    zmq_threadclose (thread);
    assert_ok (outcome.result);
    has_left (&played, &outcome.worker);
}

/* ---- leaving a real broker */

/* Serves until it is drained, and counts. */
static int count_and_echo (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb__flag_add ((zqb__flag_t *) arg, 1);
    return echo (request, reply, NULL);
}

typedef struct served_t {
    zqb_worker_t *worker;
    zqb__flag_t count;
    int result;
} served_t;

static void serve_until_drained (void *arg)
{
    served_t *served = (served_t *) arg;
    served->result = zqb_worker_run (served->worker, count_and_echo, &served->count);
}

TEST (workers_are_drained_one_after_the_other_and_no_request_is_lost_or_done_twice)
{
    enum { WORKERS = 4, REQUESTS = 2000 };
    served_t served[WORKERS];
    void *threads[WORKERS];
    zqb_client_t *client = new_client (0, 0, -1);
    zqb_reply_t reply;
    int done = 0;
    zqb_msg_init (&reply.body);
    for (int i = 0; i < WORKERS; i++) {
        memset (&served[i], 0, sizeof served[i]);
        served[i].worker = new_worker (0, 10);
        threads[i] = zmq_threadstart (serve_until_drained, &served[i]);
    }
    eventually (stat (broker, workers) == WORKERS);
    for (int i = 0; i < REQUESTS; i++)
        submit (client, "echo", "x");
    for (int i = 0; i < REQUESTS; i++) {
        assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
        assert_int_equal (reply.kind, ZQB_REPLY_FINAL);
        if (i % 500 == 100 && i / 500 < WORKERS - 1)
            zqb_worker_drain (served[i / 500].worker);
    }
    eventually (stat (broker, workers_left) == WORKERS - 1);
    zqb_worker_drain (served[WORKERS - 1].worker);
    for (int i = 0; i < WORKERS; i++) {
        zmq_threadclose (threads[i]);
        assert_ok (served[i].result);
        done += zqb__flag_get (&served[i].count);
        zqb_worker_destroy (&served[i].worker);
    }
    assert_int_equal (done, REQUESTS);
    assert_int_equal (stat (broker, requeued), 0);
    eventually (stat (broker, workers_left) == WORKERS);
    assert_int_equal (stat (broker, workers_lost), 0);
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

TEST (a_worker_whose_broker_wants_it_to_leave_leaves)
{
    served_t served;
    memset (&served, 0, sizeof served);
    served.worker = new_worker (0, 1);
    served.result = -1;
    eventually (stat (broker, workers) == 1);
    void *thread = zmq_threadstart (serve_until_drained, &served);
    assert_ok (zqb_broker_drain (broker, "echo", 0));
    zmq_threadclose (thread);
    assert_ok (served.result);
    eventually (stat (broker, workers_left) == 1);
    zqb_worker_destroy (&served.worker);
    assert_int_equal (stat (broker, workers_left), 1);
}

TEST (workers_for_patterns_serve_what_has_no_worker_of_its_own)
{
    zqb_worker_t *any = zqb_worker_new (ctx, ENDPOINT, "img.*", NULL);
    zqb_worker_t *png = zqb_worker_new (ctx, ENDPOINT, "img.png", NULL);
    zqb_client_t *client = new_client (0, 0, 0);
    eventually (stat (broker, workers) == 2);
    submit (client, "img.png", "one");
    submit (client, "img.jpeg", "two");
    zqb_request_t *one = is_asked (png, "one"), *two = is_asked (any, "two");
    assert_string_equal (zqb_request_service (one, NULL), "img.png");
    assert_string_equal (zqb_request_service (two, NULL), "img.jpeg");
    zqb_worker_destroy (&any);
    zqb_worker_destroy (&png);
    zqb_client_destroy (&client);
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
        FRESH (a_worker_for_a_pattern_is_told_the_name_that_the_client_called),
        FRESH (progress_is_told_at_once_even_if_more_requests_wait),
        FRESH (a_text_of_progress_has_255_bytes_at_most),
        FRESH (a_failure_has_a_code),
        FRESH (a_request_that_is_refused_goes_back),
        FRESH (what_a_handler_returns_is_the_code_or_refuses),
        FRESH (what_mdp_has_no_word_for_is_enotsup_and_the_request_stays),
        FRESH (over_mdp_a_handler_that_refuses_gives_an_empty_reply),
        FRESH (a_request_in_hand_that_is_cancelled_says_so_and_is_ended_all_the_same),
        FRESH (recv_hears_too_what_is_cancelled),
        FRESH (a_request_that_is_cancelled_before_it_is_begun_is_never_handed_out),
        FRESH (a_request_whose_broker_is_gone_is_cancelled_and_the_worker_does_not_register_in_the_midst_of_it),
        FRESH (a_request_whose_connection_was_lost_is_cancelled),
        FRESH (with_the_end_of_the_context_nobody_wants_anything),
        FRESH (who_asks_whether_it_is_cancelled_sends_the_heartbeats_that_are_due),
        FRESH (what_is_left_of_a_deadline_gets_less_and_then_nobody_wants_a_reply),
        FRESH (each_request_tells_its_own_user_whoever_had_the_one_before),
        FRESH (who_says_how_far_it_is_or_sends_a_part_hears_what_the_broker_has_said),
        FRESH (who_says_how_far_it_is_past_the_deadline_hears_that_nobody_wants_it),
        FRESH (a_token_of_a_registration_that_is_over_is_another_than_the_same_of_the_next),
        FRESH (a_part_beyond_the_window_goes_when_more_is_granted),
        FRESH (when_any_number_of_parts_is_granted_none_is_counted_any_more),
        FRESH (without_a_window_all_parts_go_at_once),
        FRESH (a_part_that_waits_ends_with_what_happens_to_its_request),
        FRESH (a_part_that_waits_ends_with_the_deadline),
        FRESH (a_worker_that_is_stopped_sends_its_parts_without_waiting),
        FRESH (a_worker_whose_part_waits_sends_heartbeats_and_takes_requests),
        FRESH (a_part_that_waits_is_woken_by_a_stop_and_by_the_end_of_the_context),
        FRESH (a_worker_that_is_drained_does_what_it_has_and_what_comes_until_the_broker_agrees),
        FRESH (a_worker_whose_broker_drains_it_leaves_in_the_same_way),
        FRESH (a_worker_that_is_drained_in_the_midst_of_work_tells_the_broker_when_it_is_asked),
        FRESH (a_worker_that_is_not_registered_leaves_at_once),
        FRESH (a_worker_whose_broker_never_came_leaves_at_once),
        FRESH (an_mdp_worker_that_is_drained_says_goodbye_when_it_is_done),
        FRESH (a_worker_whose_broker_never_answers_that_it_may_leave_leaves_when_nothing_is_begun),
        FRESH (a_worker_that_waits_for_the_answer_that_it_may_leave_does_what_comes_and_is_woken_when_it_waited_enough),
        FRESH (a_worker_that_waits_is_woken_to_be_drained),
        FRESH (workers_are_drained_one_after_the_other_and_no_request_is_lost_or_done_twice),
        FRESH (a_worker_whose_broker_wants_it_to_leave_leaves),
        FRESH (workers_for_patterns_serve_what_has_no_worker_of_its_own),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
