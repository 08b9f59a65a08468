/* Clients: calls and submitted requests, time-outs and retries, several brokers, errors, and late answers. */
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"
#include <signal.h>

/* Calls a service with one frame of text: 0 and the first frame of the reply in text, or the error. */
static int call (zqb_client_t *client, const char *service, const char *body, char text[64])
{
    zqb_msg_t request, reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    zqb_msg_add_str (&request, body);
    int error = zqb_client_call (client, service, &request, &reply) == 0 ? 0 : errno;
    assert_int_equal (zqb_msg_count (&request), error != 0); /* on failure it is as it was */
    if (error)
        assert_frame (&request, 0, body);
    text[0] = 0;
    if (zqb_msg_count (&reply))
        snprintf (text, 64, "%.*s", (int) zqb_msg_size (&reply, 0), (char *) zqb_msg_data (&reply, 0));
    zqb_msg_close (&request);
    zqb_msg_close (&reply);
    return error;
}

#define assert_call_fails(client, service, error)                                                                  \
    do {                                                                                                           \
        char unit_text[64];                                                                                        \
        assert_string_equal (zqb_strerror (call ((client), (service), "x", unit_text)), zqb_strerror (error));     \
    } while (0)

/* ---- the caller's mistakes */

TEST (an_argument_that_is_wrong_is_einval_and_makes_nothing)
{
    const struct {
        void *ctx;
        const char *endpoints;
        int dialect, timeout_ms, error;
    } cases[] = {
        {NULL, ENDPOINT, 0, 0, EINVAL},   {ctx, NULL, 0, 0, EINVAL},         {ctx, "", 0, 0, EINVAL},
        {ctx, ",", 0, 0, EINVAL},         {ctx, ENDPOINT ",", 0, 0, EINVAL}, {ctx, ENDPOINT ",nonsense", 0, 0, EINVAL},
        {ctx, "nonsense", 0, 0, EINVAL},  {ctx, ENDPOINT, 3, 0, EINVAL},     {ctx, ENDPOINT, -1, 0, EINVAL},
        {ctx, ENDPOINT, 0, -2, EINVAL},   {ctx, "what://ever", 0, 0, EPROTONOSUPPORT},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_client_options_t options;
        memset (&options, 0, sizeof options);
        options.dialect = cases[i].dialect;
        options.timeout_ms = cases[i].timeout_ms;
        errno = 0;
        zqb_client_t *client = zqb_client_new (cases[i].ctx, cases[i].endpoints, &options);
        int error = errno, made = client != NULL;
        zqb_client_destroy (&client);
        assert_false (made);
        assert_int_equal (error, cases[i].error);
    }
}

TEST (a_service_that_has_no_good_name_is_einval_and_the_request_stays)
{
    char name[257];
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t request, reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    zqb_msg_add_str (&request, "x");
    memset (name, 'n', 256);
    name[256] = 0;
    const char *const bad[] = {NULL, "", name};
    for (size_t i = 0; i < COUNT (bad); i++) {
        assert_fails (zqb_client_submit (client, bad[i], &request, NULL), EINVAL);
        assert_fails (zqb_client_call (client, bad[i], &request, &reply), EINVAL);
    }
    assert_frame (&request, 0, "x");
    zqb_msg_close (&request);
    zqb_client_destroy (&client);
}

TEST (null_is_einval_and_may_be_destroyed)
{
    zqb_client_t *client = new_client (0, 0, 0), *none = NULL;
    zqb_msg_t msg;
    zqb_reply_t reply;
    zqb_msg_init (&msg);
    zqb_msg_init (&reply.body);
    assert_fails (zqb_client_call (NULL, "echo", &msg, &msg), EINVAL);
    assert_fails (zqb_client_call (client, "echo", NULL, &msg), EINVAL);
    assert_fails (zqb_client_call (client, "echo", &msg, NULL), EINVAL);
    assert_fails (zqb_client_submit (NULL, "echo", &msg, NULL), EINVAL);
    assert_fails (zqb_client_submit (client, "echo", NULL, NULL), EINVAL);
    assert_fails (zqb_client_recv (NULL, &reply, 0), EINVAL);
    assert_fails (zqb_client_recv (client, NULL, 0), EINVAL);
    assert_fails (zqb_client_cancel (NULL, 1), EINVAL);
    assert_fails (zqb_client_flush (NULL), EINVAL);
    assert_fails (zqb_client_fd (NULL), EINVAL);
    zqb_client_destroy (NULL);
    zqb_client_destroy (&none);
    zqb_client_destroy (&client);
    assert_null (client);
}

TEST (a_frame_of_2_gib_is_emsgsize_and_the_request_stays)
{
    static char byte;
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t request, reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    zqb_msg_add_zero_copy (&request, &byte, (size_t) 1 << 31, NULL, NULL); /* it is only asked for its size */
    assert_fails (zqb_client_submit (client, "echo", &request, NULL), EMSGSIZE);
    assert_fails (zqb_client_call (client, "echo", &request, &reply), EMSGSIZE);
    assert_int_equal (zqb_msg_count (&request), 1);
    zqb_msg_close (&request);
    zqb_client_destroy (&client);
}

TEST (more_requests_than_may_be_outstanding_are_eagain_and_stay)
{
    zqb_client_options_t options;
    zqb_msg_t request;
    memset (&options, 0, sizeof options);
    options.max_pending = 2;
    zqb_client_t *client = zqb_client_new (ctx, ENDPOINT, &options);
    submit (client, "nobody", "1");
    uint64_t id = submit (client, "nobody", "2");
    zqb_msg_init (&request);
    zqb_msg_add_str (&request, "3");
    assert_fails (zqb_client_submit (client, "nobody", &request, NULL), EAGAIN);
    assert_frame (&request, 0, "3");
    assert_ok (zqb_client_cancel (client, id));
    assert_ok (zqb_client_submit (client, "nobody", &request, NULL));
    zqb_client_destroy (&client);
}

TEST (without_anything_outstanding_recv_is_enoent)
{
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    assert_fails (zqb_client_recv (client, &reply, -1), ENOENT);
    uint64_t id = submit (client, "nobody", "x");
    assert_fails (zqb_client_recv (client, &reply, 0), EAGAIN);
    assert_fails (zqb_client_recv (client, &reply, 5), EAGAIN);
    assert_ok (zqb_client_cancel (client, id));
    assert_fails (zqb_client_recv (client, &reply, -1), ENOENT);
    zqb_client_destroy (&client);
}

/* ---- calls */

TEST (a_call_is_answered_in_every_dialect)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        char text[64];
        zqb_client_t *client = new_client (dialect, 0, 0);
        for (int i = 0; i < 3; i++) {
            assert_int_equal (call (client, "echo", "hello", text), 0);
            assert_string_equal (text, "hello");
        }
        zqb_client_destroy (&client);
    }
}

TEST (bodies_of_all_sizes_come_back_as_they_were)
{
    static const size_t sizes[] = {0, 1, 20, 33, 1024, 1025, 20000, 1000000};
    static char bytes[1000000];
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char) (i * 7);
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_client_t *client = new_client (dialect, 0, 0);
        zqb_msg_t request, reply;
        zqb_msg_init (&request);
        zqb_msg_init (&reply);
        for (size_t i = 0; i < COUNT (sizes); i++)
            zqb_msg_add (&request, bytes, sizes[i]);
        assert_ok (zqb_client_call (client, "echo", &request, &reply));
        assert_int_equal (zqb_msg_count (&reply), COUNT (sizes));
        for (size_t i = 0; i < COUNT (sizes); i++) {
            assert_int_equal (zqb_msg_size (&reply, i), sizes[i]);
            assert_memory_equal (zqb_msg_data (&reply, i), bytes, sizes[i]);
        }
        zqb_msg_close (&reply);
        zqb_client_destroy (&client);
    }
}

TEST (a_request_without_a_body_is_one_in_zqb1)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t request, reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    zqb_msg_add_str (&reply, "what was here is replaced");
    assert_ok (zqb_client_call (client, "echo", &request, &reply));
    assert_int_equal (zqb_msg_count (&reply), 0);
    zqb_client_destroy (&client);
}


/* Answers one request in three parts. */
static void serve_in_parts (void *arg)
{
    zqb_request_t *request = zqb_worker_recv ((zqb_worker_t *) arg, PATIENCE_MS);
    partial_text (request, "1");
    partial_text (request, "2");
    reply_text (request, "3");
}

TEST (the_parts_of_a_reply_are_the_frames_of_a_calls)
{
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t request, reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    void *thread = zmq_threadstart (serve_in_parts, worker);
    assert_ok (zqb_client_call (client, "echo", &request, &reply));
    assert_int_equal (zqb_msg_count (&reply), 3);
    assert_frame (&reply, 0, "1");
    assert_frame (&reply, 2, "3");
    zmq_threadclose (thread);
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (replies_to_others_that_come_during_a_call_are_kept_for_recv)
{
    char text[64];
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "echo", "first");
    zqb_request_t *request = is_asked (worker, "first");
    assert_ok (partial_text (request, "a part"));
    assert_ok (reply_text (request, "the rest"));
    eventually (stat (broker, replied) == 1);
    assert_ok (zqb_broker_handle (broker, "here", echo, NULL));
    assert_int_equal (call (client, "here", "second", text), 0);
    assert_string_equal (text, "second");
    receives (client, id, ZQB_REPLY_PARTIAL, "a part");
    receives (client, id, ZQB_REPLY_FINAL, "the rest");
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ---- many at once */

enum { MANY = 5000, AT_ONCE = 50 };

/* Answers so many requests, some at a time, the last first. */
static void serve_backwards (void *arg)
{
    zqb_worker_t *worker = (zqb_worker_t *) arg;
    zqb_request_t *held[AT_ONCE];
    for (int done = 0; done < MANY; done += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++)
            held[i] = zqb_worker_recv (worker, PATIENCE_MS);
        for (int i = AT_ONCE; i-- > 0;) {
            zqb_msg_t msg;
            zqb_msg_init (&msg);
            zqb_msg_move (&msg, zqb_request_body (held[i]));
            zqb_request_reply (held[i], &msg);
        }
    }
}

TEST (thousands_may_be_outstanding_and_each_reply_finds_its_request)
{
    static uint64_t ids[MANY];
    zqb_worker_t *worker = new_worker (0, AT_ONCE);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t request;
    zqb_reply_t reply;
    int ordered = 1;
    zqb_msg_init (&request);
    zqb_msg_init (&reply.body);
    for (int i = 0; i < MANY; i++) {
        zqb_msg_add (&request, &i, sizeof i);
        assert_ok (zqb_client_submit (client, "echo", &request, &ids[i]));
    }
    assert_ok (zqb_client_flush (client));
    void *thread = zmq_threadstart (serve_backwards, worker);
    for (int i = 0; i < MANY; i++) {
        int number;
        assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
        assert_int_equal (reply.kind, ZQB_REPLY_FINAL);
        memcpy (&number, zqb_msg_data (&reply.body, 0), sizeof number);
        assert_true (reply.id == ids[number]);
        ordered = ordered && number == i;
        ids[number] = 0;
    }
    assert_false (ordered);
    assert_fails (zqb_client_recv (client, &reply, 0), ENOENT);
    zmq_threadclose (thread);
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (over_mdp_requests_wait_in_the_client_for_their_turn)
{
    for (int dialect = ZQB_DIALECT_MDP01; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        uint64_t ids[3];
        static const char *const texts[] = {"1", "2", "3"};
        zqb_worker_t *worker = new_worker (0, 10);
        zqb_client_t *client = new_client (dialect, 0, 0);
        uint64_t before = stat (broker, accepted);
        for (int i = 0; i < 3; i++)
            ids[i] = submit (client, "echo", texts[i]);
        for (int i = 0; i < 3; i++) {
            zqb_request_t *request = is_asked (worker, texts[i]);
            assert_int_equal (stat (broker, accepted), before + (uint64_t) i + 1);
            assert_ok (reply_text (request, texts[i]));
            receives (client, ids[i], ZQB_REPLY_FINAL, texts[i]);
        }
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
    }
}

TEST (over_mdp02_parts_come_one_by_one)
{
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (ZQB_DIALECT_MDP02, 0, 0);
    uint64_t id = submit (client, "echo", "x");
    zqb_request_t *request = is_asked (worker, "x");
    assert_ok (partial_text (request, "1"));
    receives (client, id, ZQB_REPLY_PARTIAL, "1");
    assert_ok (reply_text (request, "2"));
    receives (client, id, ZQB_REPLY_FINAL, "2");
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ---- errors */

TEST (a_service_without_workers_is_enoworker_in_time)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.no_worker_ms = 1;
    broker_with (&options);
    zqb_client_t *client = new_client (0, 0, 0);
    assert_call_fails (client, "nobody", ZQB_ENOWORKER);
    zqb_client_destroy (&client);
}

TEST (a_queue_that_is_full_is_equeuefull)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.max_queue = 1;
    broker_with (&options);
    zqb_client_t *client = new_client (0, 0, 0);
    submit (client, "nobody", "x");
    assert_call_fails (client, "nobody", ZQB_EQUEUEFULL);
    zqb_client_destroy (&client);
}

TEST (a_request_that_is_too_large_for_the_broker_is_erefused)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.max_message = 4;
    broker_with (&options);
    zqb_client_t *client = new_client (0, 0, 0);
    assert_call_fails (client, "nobody", ZQB_EREFUSED);
    zqb_client_destroy (&client);
}

TEST (a_request_over_which_its_worker_was_lost_is_elost)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.attempts = 1;
    broker_with (&options);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_worker_t *worker = new_worker (0, 1);
    uint64_t id = submit (client, "echo", "x");
    is_asked (worker, "x");
    zqb_worker_destroy (&worker);
    receives_error (client, id, ZQB_ELOST);
    zqb_client_destroy (&client);
}

static int fail_with_text (UNUSED zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    return zqb_msg_add_str (reply, "why") == 0 ? -1 : -2;
}

TEST (work_that_failed_is_efailed_with_the_workers_text)
{
    char text[64];
    assert_ok (zqb_broker_handle (broker, "fail", fail_with_text, NULL));
    zqb_client_t *client = new_client (0, 0, 0);
    assert_int_equal (call (client, "fail", "x", text), ZQB_EFAILED);
    assert_string_equal (text, "why");
    zqb_client_destroy (&client);
}

TEST (the_end_of_the_broker_is_ecancelled)
{
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "nobody", "x");
    eventually (stat (broker, queued) == 1);
    zqb_broker_destroy (&broker);
    receives_error (client, id, ZQB_ECANCELLED);
    zqb_client_destroy (&client);
}

/* ---- time-outs, retries, several brokers */

TEST (without_an_answer_to_any_try_it_is_etimedout_and_the_request_stays)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_client_t *client = new_client (dialect, 2, 2);
        assert_call_fails (client, "nobody", ETIMEDOUT);
        uint64_t id = submit (client, "nobody", "x");
        receives_error (client, id, ETIMEDOUT);
        zqb_client_destroy (&client);
    }
}

TEST (a_request_that_timed_out_is_taken_back_from_the_broker)
{
    char text[64];
    zqb_client_t *client = new_client (0, 2, -1);
    uint64_t id = submit (client, "nobody", "x");
    eventually (stat (broker, accepted) == 1);
    receives_error (client, id, ETIMEDOUT);
    client->timeout = PATIENCE_MS * 1000u;
    assert_int_equal (call (client, "mmi.anything", "x", text), 0); /* so the broker has heard what came before */
    for (int i = 0; i < 3000 && stat (broker, queued); i++)
        zmq_poll (NULL, 0, 1);
    int cancelled = (int) stat (broker, cancelled);
    zqb_client_destroy (&client);
    assert_int_equal (cancelled, 1);
}

TEST (a_retry_is_not_executed_twice)
{
    zqb_worker_t *worker = new_worker (0, 10);
    zqb_client_t *client = new_client (0, 500, 100000); /* long enough for the reply to arrive between two tries */
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    uint64_t id = submit (client, "echo", "x");
    zqb_request_t *request = is_asked (worker, "x");
    eventually (zqb_client_recv (client, &reply, 0) != 0 && stat (broker, joined) >= 1);
    assert_ok (reply_text (request, "y"));
    receives (client, id, ZQB_REPLY_FINAL, "y");
    assert_int_equal (stat (broker, accepted), 1);
    assert_null (zqb_worker_recv (worker, 0));
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (a_client_turns_to_the_next_broker_when_one_does_not_answer)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        char endpoints[200], text[64];
        zqb_client_options_t options;
        snprintf (endpoints, sizeof endpoints, "%s,inproc://nobody,%s", new_ipc (), ENDPOINT);
        memset (&options, 0, sizeof options);
        options.dialect = dialect;
        options.timeout_ms = 50;
        options.retries = 600;
        zqb_client_t *client = zqb_client_new (ctx, endpoints, &options);
        assert_int_equal (call (client, "echo", "hello", text), 0);
        assert_string_equal (text, "hello");
        zqb_client_destroy (&client);
    }
}

TEST (a_client_that_finds_no_socket_goes_on_trying)
{
    enum { MOST = 2000 };
    static void *hoard[MOST];
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        int hoarded = 0, fd = -1, error = 0;
        zqb_reply_t reply;
        zqb_client_options_t options;
        const char *endpoint = new_ipc ();
        zqb_broker_t *other = zqb_broker_new (ctx, NULL);
        memset (&options, 0, sizeof options);
        options.dialect = dialect;
        options.timeout_ms = 1;
        options.retries = INT_MAX;
        zqb_client_t *client = zqb_client_new (ctx, endpoint, &options);
        zqb_msg_init (&reply.body);
        uint64_t id = submit (client, "echo", "x");
        do {
            while (hoarded < MOST && (hoard[hoarded] = zmq_socket (ctx, ZMQ_PAIR)) != NULL)
                hoarded++;
            assert_fails (zqb_client_recv (client, &reply, 1), EAGAIN);
            fd = zqb_client_fd (client);
            error = errno;
        } while (fd >= 0);
        assert_int_equal (error, ENOTCONN);
        uint64_t second = submit (client, "echo", "y");
        while (hoarded)
            zmq_close (hoard[--hoarded]);
        client->timeout = 100 * 1000;
        assert_ok (zqb_broker_handle (other, "echo", echo, NULL));
        assert_ok (zqb_broker_bind (other, endpoint));
        assert_ok (zqb_broker_start (other));
        receives (client, id, ZQB_REPLY_FINAL, "x");
        receives (client, second, ZQB_REPLY_FINAL, "y");
        zqb_client_destroy (&client);
        zqb_broker_destroy (&other);
    }
}

TEST (a_client_survives_the_restart_of_its_broker)
{
    const char *endpoint = new_ipc ();
    zqb_client_options_t options;
    char text[64];
    zqb_broker_t *other = start_broker (endpoint, NULL);
    memset (&options, 0, sizeof options);
    options.timeout_ms = 50;
    options.retries = 600;
    zqb_client_t *client = zqb_client_new (ctx, endpoint, &options);
    assert_ok (zqb_broker_handle (other, "echo", echo, NULL));
    assert_int_equal (call (client, "echo", "before", text), 0);
    zqb_broker_destroy (&other);
    eventually ((other = start_broker (endpoint, NULL)) != NULL);
    assert_ok (zqb_broker_handle (other, "echo", echo, NULL));
    assert_int_equal (call (client, "echo", "after", text), 0);
    assert_string_equal (text, "after");
    zqb_client_destroy (&client);
    zqb_broker_destroy (&other);
}

/* ---- late answers: lesson 15 */

TEST (a_late_answer_is_never_given_to_another_request)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_worker_t *worker = new_worker (0, 2);
        zqb_client_t *client = new_client (dialect, 200, -1);
        uint64_t late = submit (client, "echo", "late");
        zqb_request_t *request = is_asked (worker, "late");
        receives_error (client, late, ETIMEDOUT);
        client->timeout = PATIENCE_MS * 1000u;
        uint64_t id = submit (client, "echo", "in time");
        zqb_request_t *other = is_asked (worker, "in time");
        assert_ok (reply_text (request, "late"));
        assert_ok (reply_text (other, "in time"));
        receives (client, id, ZQB_REPLY_FINAL, "in time");
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
    }
}

TEST (an_answer_to_what_was_cancelled_is_never_given_to_another_request)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_worker_t *worker = new_worker (0, 2);
        zqb_client_t *client = new_client (dialect, 0, 0);
        uint64_t given_up = submit (client, "echo", "given up");
        zqb_request_t *request = is_asked (worker, "given up");
        assert_ok (zqb_client_cancel (client, given_up));
        uint64_t id = submit (client, "echo", "wanted");
        zqb_request_t *other = is_asked (worker, "wanted");
        assert_ok (reply_text (request, "given up"));
        assert_ok (reply_text (other, "wanted"));
        receives (client, id, ZQB_REPLY_FINAL, "wanted");
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
    }
}

/* ---- cancel */

TEST (a_queued_request_that_is_cancelled_is_dropped_by_the_broker)
{
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "nobody", "x");
    eventually (stat (broker, queued) == 1);
    assert_ok (zqb_client_cancel (client, id));
    eventually (stat (broker, cancelled) == 1);
    assert_int_equal (stat (broker, services), 0);
    zqb_client_destroy (&client);
}

TEST (what_has_ended_or_never_was_cannot_be_cancelled)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    zqb_client_t *client = new_client (0, 0, 0);
    assert_fails (zqb_client_cancel (client, 0), ENOENT);
    assert_fails (zqb_client_cancel (client, 12345), ENOENT);
    uint64_t id = submit (client, "echo", "x");
    receives (client, id, ZQB_REPLY_FINAL, "x");
    assert_fails (zqb_client_cancel (client, id), ENOENT);
    id = submit (client, "echo", "x");
    assert_ok (zqb_client_cancel (client, id));
    assert_fails (zqb_client_cancel (client, id), ENOENT);
    zqb_client_destroy (&client);
}

TEST (after_cancel_not_even_a_part_that_was_here_already_is_delivered)
{
    char text[64];
    zqb_worker_t *worker = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    uint64_t id = submit (client, "echo", "x");
    assert_ok (partial_text (is_asked (worker, "x"), "a part"));
    eventually (stat (broker, partials) == 1);
    assert_ok (zqb_broker_handle (broker, "here", echo, NULL));
    assert_int_equal (call (client, "here", "y", text), 0); /* which reads the part, and keeps it for later */
    assert_ok (zqb_client_cancel (client, id));
    int got = zqb_client_recv (client, &reply, 0), error = errno;
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
    assert_int_equal (got, -1);
    assert_int_equal (error, ENOENT);
}

TEST (over_mdp_what_waits_in_the_client_can_be_cancelled)
{
    zqb_worker_t *worker = new_worker (0, 10);
    zqb_client_t *client = new_client (ZQB_DIALECT_MDP01, 0, 0);
    uint64_t first = submit (client, "echo", "1"), second = submit (client, "echo", "2");
    uint64_t third = submit (client, "echo", "3");
    assert_ok (zqb_client_cancel (client, second));
    assert_ok (reply_text (is_asked (worker, "1"), "1"));
    receives (client, first, ZQB_REPLY_FINAL, "1");
    assert_ok (reply_text (is_asked (worker, "3"), "3"));
    receives (client, third, ZQB_REPLY_FINAL, "3");
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ---- waiting, and being woken */

typedef struct outcome_t {
    int error;
    zqb__flag_t done;
    int dialect;
    zqb__flag_t called, gone;
} outcome_t;

static void call_nobody (void *arg)
{
    outcome_t *outcome = (outcome_t *) arg;
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_t msg, reply;
    zqb_msg_init (&msg);
    zqb_msg_init (&reply);
    outcome->error = zqb_client_call (client, "nobody", &msg, &reply) == 0 ? 0 : errno;
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
    zqb__flag_set (&outcome->done);
}

TEST (a_call_that_waits_ends_with_the_context)
{
    outcome_t outcome = {0, 0, 0, 0, 0};
    void *thread = zmq_threadstart (call_nobody, &outcome);
    eventually (stat (broker, queued) == 1);
    zmq_ctx_shutdown (ctx);
    zmq_threadclose (thread);
    assert_int_equal (outcome.error, ETERM);
}

static void on_signal (int number)
{
    (void) number;
}

static void *call_on_pthread (void *arg)
{
    call_nobody (arg);
    return NULL;
}

TEST (a_call_that_is_interrupted_by_a_signal_is_cancelled)
{
    outcome_t outcome = {0, 0, 0, 0, 0};
    struct sigaction action, before;
    pthread_t thread;
    memset (&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction (SIGUSR1, &action, &before);
    assert_ok (pthread_create (&thread, NULL, call_on_pthread, &outcome));
    eventually (stat (broker, queued) == 1);
    eventually (zqb__flag_get (&outcome.done) || (pthread_kill (thread, SIGUSR1), 0));
    pthread_join (thread, NULL);
    sigaction (SIGUSR1, &before, NULL);
    assert_int_equal (outcome.error, EINTR);
    eventually (stat (broker, cancelled) == 1);
}

static void call_after_the_broker (void *arg)
{
    char text[64];
    outcome_t *outcome = (outcome_t *) arg;
    zqb_reply_t reply;
    zqb_client_t *client = new_client (outcome->dialect, 10, 1);
    zqb_msg_init (&reply.body);
    outcome->error = call (client, "mmi.anything", "x", text);
    zqb__flag_set (&outcome->called);
    while (!zqb__flag_get (&outcome->gone))
        zmq_poll (NULL, 0, 1);
    zqb_client_recv (client, &reply, 0); /* in which libzmq notices that nobody is there */
    outcome->error = call (client, "mmi.anything", "x", text);
    zqb_client_destroy (&client);
    zqb__flag_set (&outcome->done);
}

TEST (a_call_times_out_when_its_broker_is_gone)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        outcome_t outcome = {0, 0, dialect, 0, 0};
        void *thread = zmq_threadstart (call_after_the_broker, &outcome);
        eventually (zqb__flag_get (&outcome.called));
        zqb_broker_destroy (&broker);
        zqb__flag_set (&outcome.gone);
        int done = gets_done (&outcome.done);
        zmq_threadclose (thread);
        assert_true (done);
        assert_int_equal (outcome.error, ETIMEDOUT);
        eventually ((broker = start_broker (ENDPOINT, NULL)) != NULL);
    }
}

TEST (the_descriptor_of_a_client_tells_when_there_is_something_to_do)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    submit (client, "echo", "x");
    zqb__poll_t item = zqb__poll_item (zqb_client_fd (client));
    while (zqb_client_recv (client, &reply, 0) != 0)
        assert_true (zqb__wait (&item, 1, PATIENCE_MS * 1000u) == 1);
    assert_frame (&reply.body, 0, "x");
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

TEST (a_client_may_be_destroyed_with_requests_outstanding_and_replies_unread)
{
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        char text[64];
        zqb_client_t *client = new_client (dialect, 0, 0);
        assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
        submit (client, "echo", "never read");
        if (dialect == ZQB_DIALECT_ZQB1)
            assert_int_equal (call (client, "echo", "x", text), 0);
        submit (client, "nobody", "never answered");
        zqb_client_destroy (&client);
    }
}

TEST (a_client_may_be_made_before_its_broker)
{
    const char *endpoint = new_ipc ();
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.timeout_ms = PATIENCE_MS;
    zqb_client_t *client = zqb_client_new (ctx, endpoint, &options);
    uint64_t id = submit (client, "echo", "early");
    zqb_broker_t *other = zqb_broker_new (ctx, NULL);
    assert_ok (zqb_broker_handle (other, "echo", echo, NULL));
    assert_ok (zqb_broker_bind (other, endpoint));
    assert_ok (zqb_broker_start (other));
    receives (client, id, ZQB_REPLY_FINAL, "early");
    zqb_client_destroy (&client);
    zqb_broker_destroy (&other);
}

/* ---- what is on the wire, for brokers of others: one made of a socket */

TEST (a_client_speaks_majordomo_to_other_brokers_byte_by_byte)
{
    static const struct {
        int dialect;
        const char *request;
    } cases[] = {{ZQB_DIALECT_MDP01, "|MDPC01|echo|hello|"}, {ZQB_DIALECT_MDP02, "MDPC02|\\x01|echo|hello|"}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        const char *endpoint = i ? "inproc://other-1" : "inproc://other-0";
        void *router = zmq_socket (ctx, ZMQ_ROUTER);
        zqb_client_options_t options;
        zqb_msg_t msg;
        int patience = PATIENCE_MS;
        zmq_setsockopt (router, ZMQ_RCVTIMEO, &patience, sizeof patience);
        assert_ok (zmq_bind (router, endpoint));
        memset (&options, 0, sizeof options);
        options.dialect = cases[i].dialect;
        zqb_client_t *client = zqb_client_new (ctx, endpoint, &options);
        zqb_msg_init (&msg);
        zqb_msg_add_str (&msg, "hello");
        zqb_msg_add_str (&msg, "");
        assert_ok (zqb_client_submit (client, "echo", &msg, NULL));
        assert_string_equal (hear_text (router, 1), cases[i].request);
        zqb_client_destroy (&client);
        zmq_close (router);
    }
}

static void *router_at (const char *endpoint)
{
    void *router = zmq_socket (ctx, ZMQ_ROUTER);
    int patience = PATIENCE_MS;
    zmq_setsockopt (router, ZMQ_RCVTIMEO, &patience, sizeof patience);
    assert_ok (zmq_bind (router, endpoint));
    return router;
}

static zqb_client_t *patient_client (const char *endpoint, int dialect)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.timeout_ms = -1;
    zqb_client_t *client = zqb_client_new (ctx, endpoint, &options);
    assert_non_null (client);
    return client;
}

/* A reply over MDP/0.1 of one frame. */
static void reply_mdp01 (void *router, const void *address, size_t size, const char *service, const char *text)
{
    assert_true (zmq_send (router, address, size, ZMQ_SNDMORE) >= 0);
    zmq_send (router, "", 0, ZMQ_SNDMORE);
    zmq_send (router, "MDPC01", 6, ZMQ_SNDMORE);
    zmq_send (router, service, strlen (service), ZMQ_SNDMORE);
    assert_true (zmq_send (router, text, strlen (text), 0) >= 0);
}

TEST (over_mdp_an_answer_that_nobody_waits_for_is_passed_over)
{
    char address[256];
    zqb_reply_t reply;
    void *router = router_at ("inproc://other");
    zqb_client_t *client = patient_client ("inproc://other", ZQB_DIALECT_MDP01);
    zqb_msg_init (&reply.body);
    uint64_t id = submit (client, "echo", "x");
    size_t size = (size_t) zmq_recv (router, address, sizeof address, 0);
    hear_text (router, 0);
    reply_mdp01 (router, address, size, "ohce", "of another service");
    reply_mdp01 (router, address, size, "echoes", "of another service");
    reply_mdp01 (router, address, size, "echo", "y");
    reply_mdp01 (router, address, size, "echo", "once more");
    receives (client, id, ZQB_REPLY_FINAL, "y");
    assert_fails (zqb_client_recv (client, &reply, 0), ENOENT);
    id = submit (client, "echo", "z");
    hear_text (router, 0);
    reply_mdp01 (router, address, size, "echo", "z");
    receives (client, id, ZQB_REPLY_FINAL, "z");
    zqb_client_destroy (&client);
    zmq_close (router);
}

/* A message of ZQB/1: a heartbeat, something of a later version, and an error with this status. */
static void tell_error (void *router, const void *address, size_t size, uint64_t id, uint32_t status)
{
    unsigned char message[64] = "ZQB\1ourlife", *at = message + 12;
    static const unsigned char types[] = {ZQB__HEARTBEAT, 99, ZQB__ERROR};
    for (size_t i = 0; i < COUNT (types); i++, at += 16) {
        zqb__put_32 (at, i == 2 ? 20 : 16);
        at[4] = types[i];
        at[7] = i == 2 ? 4 : 0;
        zqb__put_64 (at + 8, i ? id : 0);
    }
    at[0] = 3; /* the field, which has 2 bytes */
    at[1] = 2;
    zqb__put_16 (at + 2, status);
    assert_true (zmq_send (router, address, size, ZMQ_SNDMORE) >= 0);
    assert_true (zmq_send (router, message, (size_t) (at + 4 - message), 0) >= 0);
}

TEST (an_error_of_a_later_version_is_efailed)
{
    static const uint32_t statuses[] = {0, 60000, ZQB_EFAILED - ZQB_ERRNO};
    void *router = router_at ("inproc://other");
    zqb_client_t *client = patient_client ("inproc://other", ZQB_DIALECT_ZQB1);
    for (size_t i = 0; i < COUNT (statuses); i++) {
        char address[256];
        uint64_t id = submit (client, "echo", "x");
        size_t size = (size_t) zmq_recv (router, address, sizeof address, 0);
        hear_text (router, 0);
        tell_error (router, address, size, id, statuses[i]);
        receives_error (client, id, ZQB_EFAILED);
    }
    zqb_client_destroy (&client);
    zmq_close (router);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        FRESH (an_argument_that_is_wrong_is_einval_and_makes_nothing),
        FRESH (a_service_that_has_no_good_name_is_einval_and_the_request_stays),
        FRESH (null_is_einval_and_may_be_destroyed),
        FRESH (a_frame_of_2_gib_is_emsgsize_and_the_request_stays),
        FRESH (more_requests_than_may_be_outstanding_are_eagain_and_stay),
        FRESH (without_anything_outstanding_recv_is_enoent),
        FRESH (a_call_is_answered_in_every_dialect),
        FRESH (bodies_of_all_sizes_come_back_as_they_were),
        FRESH (a_request_without_a_body_is_one_in_zqb1),
        FRESH (the_parts_of_a_reply_are_the_frames_of_a_calls),
        FRESH (replies_to_others_that_come_during_a_call_are_kept_for_recv),
        FRESH (thousands_may_be_outstanding_and_each_reply_finds_its_request),
        FRESH (over_mdp_requests_wait_in_the_client_for_their_turn),
        FRESH (over_mdp02_parts_come_one_by_one),
        FRESH (a_service_without_workers_is_enoworker_in_time),
        FRESH (a_queue_that_is_full_is_equeuefull),
        FRESH (a_request_that_is_too_large_for_the_broker_is_erefused),
        FRESH (a_request_over_which_its_worker_was_lost_is_elost),
        FRESH (work_that_failed_is_efailed_with_the_workers_text),
        FRESH (the_end_of_the_broker_is_ecancelled),
        FRESH (without_an_answer_to_any_try_it_is_etimedout_and_the_request_stays),
        FRESH (a_request_that_timed_out_is_taken_back_from_the_broker),
        FRESH (a_retry_is_not_executed_twice),
        FRESH (a_client_turns_to_the_next_broker_when_one_does_not_answer),
        FRESH (a_client_that_finds_no_socket_goes_on_trying),
        FRESH (a_client_survives_the_restart_of_its_broker),
        FRESH (a_late_answer_is_never_given_to_another_request),
        FRESH (an_answer_to_what_was_cancelled_is_never_given_to_another_request),
        FRESH (a_queued_request_that_is_cancelled_is_dropped_by_the_broker),
        FRESH (what_has_ended_or_never_was_cannot_be_cancelled),
        FRESH (after_cancel_not_even_a_part_that_was_here_already_is_delivered),
        FRESH (over_mdp_what_waits_in_the_client_can_be_cancelled),
        FRESH (a_call_that_waits_ends_with_the_context),
        FRESH (a_call_that_is_interrupted_by_a_signal_is_cancelled),
        FRESH (a_call_times_out_when_its_broker_is_gone),
        FRESH (the_descriptor_of_a_client_tells_when_there_is_something_to_do),
        FRESH (a_client_may_be_destroyed_with_requests_outstanding_and_replies_unread),
        FRESH (a_client_may_be_made_before_its_broker),
        FRESH (a_client_speaks_majordomo_to_other_brokers_byte_by_byte),
        FRESH (over_mdp_an_answer_that_nobody_waits_for_is_passed_over),
        FRESH (an_error_of_a_later_version_is_efailed),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
