/* Clients: calls and submitted requests, time-outs and retries, several brokers, errors, and late answers. */
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"
#include "unit_text.h"
#include "unit_played.h"
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
    assert_fails (zqb_client_call_with (client, "echo", NULL, &msg, NULL), EINVAL);
    assert_fails (zqb_client_submit (NULL, "echo", &msg, NULL), EINVAL);
    assert_fails (zqb_client_submit_with (client, "echo", NULL, NULL, NULL), EINVAL);
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

/* ---- what a request asks for, and what it says to a broker: one that is played */

static zqb_request_options_t no_options (void)
{
    zqb_request_options_t options;
    memset (&options, 0, sizeof options);
    return options;
}

/* Submits one frame of text: 0 or errno. */
static int submit_with (zqb_client_t *client, const zqb_request_options_t *options, const char *text, uint64_t *id)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, text);
    int error = zqb_client_submit_with (client, "echo", options, &msg, id) == 0 ? 0 : errno;
    assert_int_equal (zqb_msg_count (&msg), error != 0); /* on failure it is as it was */
    zqb_msg_close (&msg);
    return error;
}

/* The same, of which nothing goes wrong: its number. */
static uint64_t submitted_with (zqb_client_t *client, const zqb_request_options_t *options, const char *text)
{
    uint64_t id = 1;
    assert_int_equal (submit_with (client, options, text, &id), 0);
    assert_ok (zqb_client_flush (client));
    return id;
}

/* A client of a broker that is played, with a time-out (0 for ever) and so many retries. */
static zqb_client_t *played_client (played_t *played, int timeout_ms, int retries)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.timeout_ms = timeout_ms ? timeout_ms : -1;
    options.retries = retries;
    played_bind (played);
    zqb_client_t *client = zqb_client_new (ctx, played->endpoint, &options);
    assert_non_null (client);
    return client;
}

static void end_played (played_t *played, zqb_client_t **client)
{
    zqb_client_destroy (client);
    played_close (played);
}

static void receives_nothing (zqb_client_t *client, int error)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    assert_fails (zqb_client_recv (client, &reply, 0), error);
}

TEST (what_a_request_asks_for_is_said_to_the_broker)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    options.priority = ZQB_PRIORITY_HIGHEST;
    options.deadline_ms = INT_MAX;
    options.delay_ms = 1000;
    options.attempts = -1;
    options.backoff_ms = 5;
    options.backoff_max_ms = 6;
    options.unique = "u";
    options.affinity = "a";
    options.fail_fast = 1;
    played_hears_text (&played,
                       "REQUEST fail-fast #%llx @echo priority=4 deadline=2147483647 delay=1000 attempts=65535 "
                       "backoff=5/6 unique=u affinity=a 1:x",
                       submitted_with (client, &options, "x"));
    options = no_options ();
    options.priority = ZQB_PRIORITY_LOWEST;
    options.attempts = 65534;
    options.survey = 1;
    played_hears_text (&played, "REQUEST survey #%llx @echo priority=-4 attempts=65534 1:x",
                       submitted_with (client, &options, "x"));
    end_played (&played, &client);
}

TEST (options_out_of_range_are_einval_and_nothing_is_sent)
{
    char key[257];
    zqb_request_options_t bad[20];
    size_t count = 0;
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    memset (key, 'k', 256);
    key[256] = 0;
#define BAD(field, value) bad[count] = no_options (), bad[count++].field = (value)
    BAD (priority, 5), BAD (priority, -5), BAD (deadline_ms, -1), BAD (delay_ms, -1), BAD (attempts, -2);
    BAD (attempts, 65535), BAD (backoff_ms, -1), BAD (backoff_max_ms, -1), BAD (unique, ""), BAD (unique, key);
    BAD (affinity, ""), BAD (affinity, key), BAD (one_way, -1), BAD (one_way, 2), BAD (fail_fast, -1);
    BAD (fail_fast, 2), BAD (survey, -1), BAD (survey, 2), BAD (survey, 1);
#undef BAD
    bad[count - 1].one_way = 1;
    for (size_t i = 0; i < count; i++) {
        uint64_t id = 7;
        assert_int_equal (submit_with (client, &bad[i], "x", &id), EINVAL);
        assert_true (id == 7);
    }
    receives_nothing (client, ENOENT);
    played_hears_nothing (&played);
    end_played (&played, &client);
}

TEST (the_longest_keys_are_said_whole)
{
    char key[256], wanted[1000];
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    memset (key, 'k', 255);
    key[255] = 0;
    options.unique = options.affinity = key;
    uint64_t id = submitted_with (client, &options, "x");
    snprintf (wanted, sizeof wanted, "REQUEST #%%llx @echo unique=%s affinity=%s 1:x", key, key);
    played_hears_text (&played, wanted, id);
    end_played (&played, &client);
}

TEST (who_asks_for_nothing_has_an_ordinary_request)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    played_hears_text (&played, "REQUEST #%llx @echo 1:x", submitted_with (client, &options, "x"));
    assert_null (zqb__client_first (client)->wish);
    assert_null (client->timers.timers);
    played_hears_text (&played, "REQUEST #%llx @echo 1:x", submitted_with (client, NULL, "x"));
    end_played (&played, &client);
}

TEST (over_mdp_nothing_can_be_asked_for)
{
    for (int dialect = ZQB_DIALECT_MDP01; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_client_t *client = new_client (dialect, 0, 0);
        zqb_request_options_t options = no_options ();
        assert_int_equal (submit_with (client, &options, "x", NULL), 0);
        options.fail_fast = 1;
        assert_int_equal (submit_with (client, &options, "x", NULL), ENOTSUP);
        options.priority = 5;
        assert_int_equal (submit_with (client, &options, "x", NULL), EINVAL);
        zqb_client_destroy (&client);
    }
}

TEST (what_was_asked_for_is_asked_again_and_the_callers_memory_is_not_needed)
{
    char unique[] = "unique", affinity[] = "affinity";
    played_t played;
    zqb_client_t *client = played_client (&played, 1, 1);
    zqb_request_options_t options = no_options ();
    options.priority = 1;
    options.deadline_ms = 3600000;
    options.attempts = 2;
    options.unique = unique;
    options.affinity = affinity;
    uint64_t id = submitted_with (client, &options, "x");
    memset (unique, '?', sizeof unique - 1);
    memset (affinity, '?', sizeof affinity - 1);
    memset (&options, 0xff, sizeof options);
    for (int tries = 0; tries < 10; tries++) { /* more often than it would be without a deadline */
        zqb_reply_t reply;
        zqb_msg_init (&reply.body);
        eventually (zqb_client_recv (client, &reply, 0) == -1 && errno == EAGAIN
                    && played_next (&played, ZMQ_DONTWAIT));
        assert_int_equal (played.command.flags, tries ? ZQB__AGAIN : 0);
        assert_in_range (played.command.rare->deadline_ms, 1, 3600000);
        ((zqb__rare_t *) played.command.rare)->deadline_ms = 0; /* what is left of it */
        char text[TEXT] = "";
        played.command.flags = 0;
        put_command (text, &played.command);
        assert_true (played.command.id == id);
        assert_string_equal (strstr (text, "@echo"), "@echo priority=1 attempts=2 unique=unique affinity=affinity 1:x");
    }
    end_played (&played, &client);
}

TEST (of_its_times_a_request_says_what_is_left)
{
    zqb__wish_t wish;
    memset (&wish, 0, sizeof wish);
    static const struct {
        uint64_t deadline, begins, now;
        uint32_t deadline_ms, delay_ms;
    } cases[] = {{UINT64_MAX, 0, 5000, 0, 0},  {6000, 0, 5000, 1, 0},      {6001, 0, 5000, 2, 0}, {5000, 0, 5000, 1, 0},
                 {5000, 0, 9000, 1, 0},        {UINT64_MAX, 5001, 5000, 0, 1}, {9000, 7000, 4000, 5, 3}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb__command_t command = zqb__command (ZQB__REQUEST, 1);
        wish.deadline = cases[i].deadline;
        wish.begins = cases[i].begins;
        zqb__wish_add (&wish, cases[i].now, &command);
        assert_int_equal (command.rare->deadline_ms, cases[i].deadline_ms);
        assert_int_equal (command.rare->delay_ms, cases[i].delay_ms);
    }
}

/* ---- deadlines and delays */

TEST (when_its_deadline_is_over_a_request_ends_even_if_the_broker_is_mute)
{
    static const int retries[] = {0, -1};
    for (size_t i = 0; i < COUNT (retries); i++) {
        played_t played;
        zqb_client_t *client = played_client (&played, 0, retries[i]);
        zqb_request_options_t options = no_options ();
        options.deadline_ms = 20;
        uint64_t id = submitted_with (client, &options, "x");
        played_hears_text (&played, "REQUEST #%llx @echo deadline=20 1:x", id);
        receives_error (client, id, ZQB_EEXPIRED);
        played_says_why (&played, ZQB__ERROR, id, ZQB_EEXPIRED - ZQB_ERRNO, NULL, NULL); /* which it knows */
        receives_nothing (client, ENOENT);
        assert_fails (zqb_client_cancel (client, id), ENOENT);
        played_hears_nothing (&played); /* the broker knows as well */
        end_played (&played, &client);
    }
}

TEST (when_the_broker_says_first_that_a_deadline_is_over_that_is_it)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    options.deadline_ms = 3600000;
    uint64_t id = submitted_with (client, &options, "x");
    played_hears (&played);
    played_says_why (&played, ZQB__ERROR, id, ZQB_EEXPIRED - ZQB_ERRNO, "in its queue", NULL);
    receives (client, id, ZQB_REPLY_ERROR, "in its queue");
    receives_nothing (client, ENOENT);
    assert_int_equal (client->timers.count, 0);
    end_played (&played, &client);
}

TEST (who_is_not_to_try_again_waits_until_the_deadline)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 1, -1);
    zqb_request_options_t options = no_options ();
    options.deadline_ms = 50;
    uint64_t id = submitted_with (client, &options, "x");
    receives_error (client, id, ZQB_EEXPIRED);
    played_hears_text (&played, "REQUEST #%llx @echo deadline=50 1:x", id);
    played_hears_nothing (&played);
    end_played (&played, &client);
}

TEST (each_request_ends_at_its_own_deadline)
{
    static const int deadlines[] = {40, 10, 3600000, 30, 20};
    static const int order[] = {1, 4, 3, 0};
    uint64_t ids[COUNT (deadlines)];
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    uint64_t now = client->line.now; /* at which all begin, however long it takes */
    for (size_t i = 0; i < COUNT (deadlines); i++) {
        zqb_request_options_t options = no_options ();
        options.deadline_ms = deadlines[i];
        ids[i] = submitted_with (client, &options, "x");
        zqb__wish_t *wish = ((zqb__pending_t *) zqb__slab_find (&client->slots, ids[i]))->wish;
        wish->ends = now + (uint64_t) deadlines[i] * 1000;
        assert_ok (zqb__heap_set (&client->timers, &wish->timer, wish->ends));
    }
    uint64_t usual = submitted_with (client, NULL, "x");
    for (size_t i = 0; i < COUNT (order); i++)
        receives_error (client, ids[order[i]], ZQB_EEXPIRED);
    receives_nothing (client, EAGAIN);
    assert_ok (zqb_client_cancel (client, usual));
    assert_ok (zqb_client_cancel (client, ids[2]));
    receives_nothing (client, ENOENT);
    end_played (&played, &client);
}

TEST (a_client_whose_requests_all_expire_turns_to_the_next_broker_when_one_is_mute)
{
    played_t mute;
    char endpoints[200];
    zqb_client_options_t client_options;
    zqb_request_options_t options = no_options ();
    uint64_t answered = 0;
    memset (&client_options, 0, sizeof client_options);
    client_options.timeout_ms = 20;
    played_bind (&mute);
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    snprintf (endpoints, sizeof endpoints, "%s,%s", mute.endpoint, ENDPOINT);
    zqb_client_t *client = zqb_client_new (ctx, endpoints, &client_options);
    options.deadline_ms = 5; /* less than a try may take */
    for (int i = 0; i < PATIENCE_MS / 5 && !answered; i++) {
        zqb_reply_t reply;
        zqb_msg_init (&reply.body);
        submitted_with (client, &options, "x");
        assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
        assert_true (reply.kind == ZQB_REPLY_FINAL || reply.error == ZQB_EEXPIRED);
        answered = reply.kind == ZQB_REPLY_FINAL;
        zqb_msg_close (&reply.body);
    }
    assert_true (answered);
    end_played (&mute, &client);
}

TEST (a_try_begins_when_the_delay_is_over)
{
    played_t played;
    zqb_reply_t reply;
    zqb_client_t *client = played_client (&played, 1, -1);
    zqb_request_options_t options = no_options ();
    zqb_msg_init (&reply.body);
    options.delay_ms = 3600000;
    uint64_t late = submitted_with (client, &options, "x");
    played_hears_text (&played, "REQUEST #%llx @echo delay=3600000 1:x", late);
    options.delay_ms = 10;
    uint64_t soon = submitted_with (client, &options, "x");
    receives_error (client, soon, ETIMEDOUT);
    assert_fails (zqb_client_recv (client, &reply, 20), EAGAIN);
    played_hears_text (&played, "REQUEST #%llx @echo delay=10 1:x", soon);
    played_hears_text (&played, "CANCEL #%llx", soon);
    played_hears_nothing (&played);
    end_played (&played, &client);
}

/* ---- requests that nobody waits for */

TEST (a_one_way_request_is_sent_and_forgotten)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 1, 0);
    zqb_request_options_t options = no_options ();
    options.one_way = 1;
    options.unique = "u";
    options.priority = 1;
    uint64_t id = submitted_with (client, &options, "x");
    assert_true (id == 0);
    played_hears_text (&played, "REQUEST one-way @echo priority=1 unique=u 1:x", 0);
    receives_nothing (client, ENOENT);
    assert_fails (zqb_client_cancel (client, 0), ENOENT);
    assert_int_equal (client->count, 0);
    end_played (&played, &client);
}

TEST (more_one_way_requests_than_may_be_outstanding_leave_one_after_the_other)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    options.one_way = 1;
    client->most = 1;
    submitted_with (client, NULL, "x");
    played_hears (&played);
    for (int i = 0; i < 100; i++) {
        submitted_with (client, &options, "x");
        played_hears_text (&played, "REQUEST one-way @echo 1:x", 0);
    }
    end_played (&played, &client);
}

TEST (a_one_way_request_that_is_packed_is_sent_when_its_client_is_destroyed)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    options.one_way = 1;
    for (int i = 0; i < 10; i++)
        assert_int_equal (submit_with (client, &options, "x", NULL), 0);
    zqb_client_destroy (&client);
    for (int i = 0; i < 10; i++)
        played_hears_text (&played, "REQUEST one-way @echo 1:x", 0);
    played_close (&played);
}

TEST (a_one_way_request_that_cannot_be_packed_or_sent_says_so)
{
    static char byte;
    played_t played;
    zqb_msg_t msg;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    options.one_way = 1;
    zqb_msg_init (&msg);
    zqb_msg_add_zero_copy (&msg, &byte, (size_t) 1 << 31, NULL, NULL); /* it is only asked for its size */
    assert_fails (zqb_client_submit_with (client, "echo", &options, &msg, NULL), EMSGSIZE);
    zqb_msg_close (&msg);
    zqb__line_drop (&client->line);
    assert_int_equal (submit_with (client, &options, "x", NULL), EAGAIN);
    end_played (&played, &client);
}

TEST (a_one_way_request_that_is_packed_when_the_context_has_ended_is_eterm_and_stays)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    options.one_way = 1;
    zmq_ctx_shutdown (ctx);
    assert_false (client->line.ended); /* it does not know yet */
    zmq_poll (NULL, 0, 1);
    assert_int_equal (submit_with (client, &options, "x", NULL), ETERM);
    assert_true (client->line.ended);
    assert_int_equal (submit_with (client, &options, "x", NULL), ETERM);
    end_played (&played, &client);
}

TEST (a_one_way_call_returns_as_soon_as_it_is_sent)
{
    played_t played;
    zqb_msg_t request, reply;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    options.one_way = 1;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    zqb_msg_add_str (&reply, "what was here is gone");
    for (int i = 0; i < 10; i++) {
        zqb_msg_add_str (&request, "x");
        assert_ok (zqb_client_call_with (client, "echo", &options, &request, &reply));
        assert_int_equal (zqb_msg_count (&request) + zqb_msg_count (&reply), 0);
        assert_true (played_next (&played, ZMQ_DONTWAIT));
        assert_string_equal (played.text, "REQUEST one-way @echo 1:x");
    }
    options.priority = 5;
    zqb_msg_add_str (&request, "x");
    assert_fails (zqb_client_call_with (client, "echo", &options, &request, &reply), EINVAL);
    assert_frame (&request, 0, "x");
    zqb_msg_close (&request);
    end_played (&played, &client);
}

/* ---- what else is said of a request */

static zqb__rare_t progress_of (uint64_t done, uint64_t total, uint32_t code)
{
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    rare.has_progress = 1;
    rare.done = done;
    rare.total = total;
    rare.code = code;
    return rare;
}

static void receives_numbers (zqb_client_t *client, int kind, int error, int code, uint64_t done, uint64_t total)
{
    zqb_reply_t reply;
    memset (&reply, 0xff, sizeof reply);
    zqb_msg_init (&reply.body);
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_int_equal (reply.kind, kind);
    assert_string_equal (zqb_strerror (reply.error), zqb_strerror (error));
    assert_int_equal (reply.code, code);
    assert_true (reply.done == done && reply.total == total);
    zqb_msg_close (&reply.body);
}

TEST (progress_and_codes_are_told_where_they_mean_something_and_else_are_0)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb__rare_t rare = progress_of (3, UINT64_MAX, 42);
    static const struct {
        int type, status, kind, error, code, counts;
    } cases[] = {
        {ZQB__PROGRESS, 0, ZQB_REPLY_PROGRESS, 0, 0, 1},
        {ZQB__PARTIAL, 0, ZQB_REPLY_PARTIAL, 0, 0, 0},
        {ZQB__REPLY, 0, ZQB_REPLY_FINAL, 0, 0, 0},
        {ZQB__ERROR, ZQB_EFAILED - ZQB_ERRNO, ZQB_REPLY_ERROR, ZQB_EFAILED, 42, 0},
        {ZQB__ERROR, ZQB_ELOST - ZQB_ERRNO, ZQB_REPLY_ERROR, ZQB_ELOST, 0, 0},
    };
    uint64_t id = 0;
    for (size_t i = 0; i < COUNT (cases); i++) {
        if (i == 0 || i > 2)
            id = submitted_with (client, NULL, "x"), played_hears (&played);
        played_says_why (&played, cases[i].type, id, cases[i].status, NULL, &rare);
        receives_numbers (client, cases[i].kind, cases[i].error, cases[i].code, cases[i].counts ? 3 : 0,
                          cases[i].counts ? UINT64_MAX : 0);
    }
    id = submitted_with (client, NULL, "x");
    played_hears (&played);
    rare.code = UINT32_MAX;
    played_says_why (&played, ZQB__PROGRESS, id, 0, "with a text", NULL);
    receives (client, id, ZQB_REPLY_PROGRESS, "with a text");
    played_says_why (&played, ZQB__ERROR, id, ZQB_EFAILED - ZQB_ERRNO, NULL, &rare);
    receives_numbers (client, ZQB_REPLY_ERROR, ZQB_EFAILED, -1, 0, 0);
    played_says_why (&played, ZQB__PROGRESS, id, 0, NULL, &rare); /* of what is over */
    receives_nothing (client, ENOENT);
    end_played (&played, &client);
}

TEST (a_try_is_not_over_as_long_as_there_is_progress)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 3600000, -1);
    uint64_t id = submitted_with (client, NULL, "x");
    played_hears (&played);
    zqb__pending_t *pending = zqb__client_first (client);
    pending->times_out -= 1000000000; /* as if much of it had passed */
    uint64_t before = pending->times_out;
    played_says_only (&played, ZQB__PROGRESS, id);
    receives (client, id, ZQB_REPLY_PROGRESS, NULL);
    assert_true (pending->times_out >= before + 1000000000);
    end_played (&played, &client);
}

/* Plays a broker in a thread of its own: says what it is told to of the request that comes. */
typedef struct player_t {
    played_t played;
    const zqb__command_t *says;
    size_t count;
} player_t;

static void play (void *arg)
{
    player_t *player = (player_t *) arg;
    played_hears (&player->played);
    uint64_t id = player->played.command.id;
    for (size_t i = 0; i < player->count; i++) {
        zqb__command_t command = player->says[i];
        command.id = id;
        played_packs (&player->played, &command);
    }
    played_sends (&player->played);
}

/* A command with this body, or none. The message is the caller's. */
static zqb__command_t command_with (int type, const zqb_msg_t *body)
{
    zqb__command_t command = zqb__command (type, 0);
    command.msg = body;
    return command;
}

static void fill (zqb_msg_t msgs[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char text[2] = {(char) ('1' + i), 0};
        zqb_msg_init (&msgs[i]);
        zqb_msg_add_str (&msgs[i], text);
    }
}

TEST (a_call_passes_over_progress)
{
    char text[64];
    zqb_msg_t body;
    player_t player;
    fill (&body, 1);
    zqb__command_t says[] = {zqb__command (ZQB__PROGRESS, 0), command_with (ZQB__PARTIAL, &body),
                             zqb__command (ZQB__PROGRESS, 0), zqb__command (ZQB__REPLY, 0)};
    says[0].text = "half";
    says[0].text_size = 4;
    player.says = says;
    player.count = COUNT (says);
    zqb_client_t *client = played_client (&player.played, 0, 0);
    void *thread = zmq_threadstart (play, &player);
    assert_int_equal (call (client, "echo", "x", text), 0);
    assert_string_equal (text, "1");
    zmq_threadclose (thread);
    zqb_msg_close (&body);
    end_played (&player.played, &client);
}

/* Says so many parts of a reply, which the client reads. */
static void read_parts (played_t *played, zqb_client_t *client, uint64_t id, int count)
{
    for (int i = 0; i < count; i++)
        played_says_body (played, ZQB__PARTIAL, 0, id, "part");
    for (int i = 0; i < count; i++)
        receives (client, id, ZQB_REPLY_PARTIAL, "part");
    receives_nothing (client, EAGAIN);
}

TEST (whenever_16_parts_were_read_16_more_may_come)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    uint64_t id = submitted_with (client, NULL, "x"), other = submitted_with (client, NULL, "y");
    played_hears (&played), played_hears (&played);
    for (int i = 0; i < 3; i++) {
        read_parts (&played, client, id, 15);
        read_parts (&played, client, other, i < 2 ? 5 : 0); /* which count for themselves */
        played_says_why (&played, ZQB__PROGRESS, id, 0, NULL, NULL); /* which is none */
        receives (client, id, ZQB_REPLY_PROGRESS, NULL);
        played_hears_nothing (&played);
        read_parts (&played, client, id, 1);
        played_hears_text (&played, "MORE #%llx credit=16", id);
        played_hears_nothing (&played);
    }
    read_parts (&played, client, id, 40);
    played_hears_text (&played, "MORE #%llx credit=16", id);
    played_hears_text (&played, "MORE #%llx credit=16", id);
    played_hears_nothing (&played);
    end_played (&played, &client);
}

TEST (parts_that_were_lost_with_a_connection_are_granted_anew)
{
    played_t played;
    zqb_reply_t reply;
    zqb_client_t *client = played_client (&played, 3600000, 1);
    uint64_t id = submitted_with (client, NULL, "x");
    zqb_msg_init (&reply.body);
    played_hears_text (&played, "REQUEST #%llx @echo 1:x", id);
    client->line.lost = 1; /* as libzmq would tell over tcp */
    assert_fails (zqb_client_recv (client, &reply, 0), EAGAIN);
    played_hears_text (&played, "REQUEST again #%llx @echo 1:x", id);
    played_hears_text (&played, "MORE #%llx credit=32", id);
    played_hears_nothing (&played);
    end_played (&played, &client);
}

/* ---- surveys */

typedef struct heard_t {
    char text[64];
} heard_t;

static void hear (zqb_msg_t *answer, void *arg)
{
    heard_t *heard = (heard_t *) arg;
    zqb_msg_t taken;
    zqb_msg_init (&taken);
    zqb_msg_move (&taken, answer);
    snprintf (heard->text + strlen (heard->text), sizeof heard->text - strlen (heard->text), "%.*s ",
              (int) zqb_msg_size (&taken, 0), (const char *) zqb_msg_data (&taken, 0));
    zqb_msg_close (&taken);
}

/* A survey with one frame of body: how many answered, or -errno. */
static int ask_all (zqb_client_t *client, int deadline_ms, heard_t *heard, int *asked)
{
    zqb_msg_t request;
    zqb_msg_init (&request);
    zqb_msg_add_str (&request, "x");
    heard->text[0] = 0;
    int answered = zqb_client_survey (client, "echo", &request, deadline_ms, hear, heard, asked);
    int error = errno;
    assert_int_equal (zqb_msg_count (&request), answered < 0);
    zqb_msg_close (&request);
    return answered < 0 ? -error : answered;
}

TEST (a_survey_gives_each_answer_and_says_how_many_there_were_of_how_many)
{
    int asked = 0;
    heard_t heard;
    player_t player;
    zqb_msg_t bodies[2];
    zqb__rare_t rare = progress_of (2, 3, 0);
    fill (bodies, 2);
    zqb__command_t says[] = {command_with (ZQB__PARTIAL, &bodies[1]), zqb__command (ZQB__PROGRESS, 0),
                             command_with (ZQB__PARTIAL, &bodies[0]), zqb__command (ZQB__REPLY, 0)};
    says[3].rare = &rare;
    player.says = says;
    player.count = COUNT (says);
    zqb_client_t *client = played_client (&player.played, 0, 0);
    uint64_t other = submitted_with (client, NULL, "other");
    played_hears (&player.played);
    zqb__command_t reply = command_with (ZQB__REPLY, &bodies[0]);
    reply.id = other;
    played_packs (&player.played, &reply); /* which is sent with the rest */
    void *thread = zmq_threadstart (play, &player);
    assert_int_equal (ask_all (client, 3600000, &heard, &asked), 2);
    zmq_threadclose (thread);
    assert_string_equal (heard.text, "2 1 ");
    assert_int_equal (asked, 3);
    receives (client, other, ZQB_REPLY_FINAL, "1");
    assert_int_equal (player.played.command.flags, ZQB__SURVEY);
    assert_int_equal (player.played.command.rare->deadline_ms, 3600000);
    zqb_msg_close (&bodies[0]);
    zqb_msg_close (&bodies[1]);
    end_played (&player.played, &client);
}

TEST (parts_of_a_survey_come_from_many_and_nobody_is_told_that_they_were_read)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 0, 0);
    zqb_request_options_t options = no_options ();
    zqb__rare_t rare = progress_of (40, 41, 0);
    options.survey = 1;
    uint64_t id = submitted_with (client, &options, "x");
    played_hears_text (&played, "REQUEST survey #%llx @echo 1:x", id);
    read_parts (&played, client, id, 40);
    played_hears_nothing (&played);
    played_says_why (&played, ZQB__REPLY, id, 0, NULL, &rare);
    receives_numbers (client, ZQB_REPLY_FINAL, 0, 0, 40, 41);
    end_played (&played, &client);
}

TEST (a_survey_that_cannot_be_made_says_why)
{
    int asked = 7;
    heard_t heard;
    player_t player;
    zqb_msg_t msg;
    zqb__command_t says = zqb__command (ZQB__ERROR, 0);
    says.status = ZQB_ENOWORKER - ZQB_ERRNO;
    player.says = &says;
    player.count = 1;
    zqb_client_t *client = played_client (&player.played, 0, 0), *mdp = new_client (ZQB_DIALECT_MDP02, 0, 0);
    void *thread = zmq_threadstart (play, &player);
    assert_int_equal (ask_all (client, -1, &heard, &asked), -ZQB_ENOWORKER);
    zmq_threadclose (thread);
    assert_null (player.played.command.rare);
    assert_int_equal (ask_all (client, 0, &heard, &asked), -EINVAL);
    assert_int_equal (ask_all (client, -2, &heard, &asked), -EINVAL);
    assert_int_equal (ask_all (mdp, -1, &heard, &asked), -ENOTSUP);
    assert_int_equal (asked, 7);
    zqb_msg_init (&msg);
    assert_fails (zqb_client_survey (NULL, "echo", &msg, -1, hear, &heard, NULL), EINVAL);
    assert_fails (zqb_client_survey (client, NULL, &msg, -1, hear, &heard, NULL), EINVAL);
    assert_fails (zqb_client_survey (client, "echo", NULL, -1, hear, &heard, NULL), EINVAL);
    assert_fails (zqb_client_survey (client, "echo", &msg, -1, NULL, &heard, NULL), EINVAL);
    zqb_client_destroy (&mdp);
    end_played (&player.played, &client);
}

/* At its deadline, that is: so a client gives a broker that is mute the time of a try more. */
/* Calls another service in the midst of a survey; which is answered behind the end of that. */
static void call_another (zqb_msg_t *answer, void *arg)
{
    zqb_client_t *client = (zqb_client_t *) arg;
    char text[64];
    assert_frame (answer, 0, "a");
    assert_ok (call (client, "other", "z", text));
    assert_string_equal (text, "z");
}

static void play_a_survey_with_a_call_in_it (void *arg)
{
    played_t *played = (played_t *) arg;
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    rare.has_progress = 1;
    rare.done = rare.total = 2;
    played_hears (played);
    uint64_t survey = played->command.id;
    played_says_body (played, ZQB__PARTIAL, 0, survey, "a");
    played_hears (played);
    uint64_t other = played->command.id;
    played_says_why (played, ZQB__REPLY, survey, 0, NULL, &rare);
    played_says_body (played, ZQB__REPLY, 0, other, "z");
}

TEST (who_is_called_with_the_answers_of_a_survey_may_call_others_meanwhile)
{
    played_t played;
    zqb_msg_t request;
    int asked = 0;
    zqb_client_t *client = played_client (&played, 0, 0);
    void *thread = zmq_threadstart (play_a_survey_with_a_call_in_it, &played);
    zqb_msg_init (&request);
    zqb_msg_add_str (&request, "x");
    int answered = zqb_client_survey (client, "echo", &request, -1, call_another, client, &asked);
    zmq_threadclose (thread);
    assert_int_equal (answered, 1); /* that came, whatever the broker says */
    assert_int_equal (asked, 2);
    receives_nothing (client, ENOENT);
    zqb_msg_close (&request);
    end_played (&played, &client);
}

TEST (how_a_survey_ends_is_what_the_broker_says_unless_it_is_mute)
{
    played_t played;
    zqb_client_t *client = played_client (&played, 3600000, 0);
    zqb_request_options_t options = no_options ();
    zqb__rare_t rare = progress_of (0, 2, 0);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    options.survey = 1;
    options.deadline_ms = 1;
    uint64_t id = submitted_with (client, &options, "x");
    played_hears_text (&played, "REQUEST survey #%llx @echo deadline=1 1:x", id);
    assert_fails (zqb_client_recv (client, &reply, 5), EAGAIN);
    played_says_why (&played, ZQB__REPLY, id, 0, NULL, &rare);
    receives_numbers (client, ZQB_REPLY_FINAL, 0, 0, 0, 2);
    client->timeout = 5000;
    id = submitted_with (client, &options, "x");
    receives_error (client, id, ZQB_EEXPIRED);
    end_played (&played, &client);
}

/* ---- the same with a real broker, and workers */

/* Serves until it is stopped. */
typedef struct server_t {
    zqb_worker_t *worker;
    zqb_handler_fn *handler;
    void *arg, *thread;
} server_t;

static void run_server (void *arg)
{
    server_t *server = (server_t *) arg;
    zqb_worker_run (server->worker, server->handler, server->arg);
}

static void start_server (server_t *server, const char *service, zqb_handler_fn *handler, void *arg)
{
    server->worker = zqb_worker_new (ctx, ENDPOINT, service, NULL);
    assert_non_null (server->worker);
    server->handler = handler;
    server->arg = arg;
    server->thread = zmq_threadstart (run_server, server);
}

static void stop_server (server_t *server)
{
    zqb_worker_stop (server->worker);
    zmq_threadclose (server->thread);
    zqb_worker_destroy (&server->worker);
}

enum { STREAM = 500 };

/* Sends parts as fast as it may, and counts them. */
static int stream (zqb_request_t *request, UNUSED zqb_msg_t *reply, void *arg)
{
    for (int i = 0; i < STREAM; i++) {
        if (partial_text (request, "part") != 0)
            return -1;
        zqb__flag_add ((zqb__flag_t *) arg, 1);
    }
    return 0;
}

TEST (a_client_that_reads_slowly_slows_its_worker_down)
{
    zqb__flag_t sent = 0;
    server_t server;
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    start_server (&server, "echo", stream, &sent);
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "echo", "x");
    for (int read = 0; read < STREAM; read++) {
        int allowed = ZQB__WINDOW_PARTS + read / ZQB__PARTS_READ * ZQB__PARTS_READ;
        if (read % 50 == 0 && allowed <= STREAM) /* whoever is not slowed down has time to send more */
            eventually (zqb__flag_get (&sent) >= allowed - ZQB__PARTS_READ);
        assert_true (zqb__flag_get (&sent) <= allowed);
        receives (client, id, ZQB_REPLY_PARTIAL, "part");
    }
    receives (client, id, ZQB_REPLY_FINAL, NULL);
    zqb_client_destroy (&client);
    stop_server (&server);
}

TEST (a_stream_of_parts_gets_through_to_a_call)
{
    zqb__flag_t sent = 0;
    server_t server;
    zqb_msg_t request, reply;
    start_server (&server, "echo", stream, &sent);
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    assert_ok (zqb_client_call (client, "echo", &request, &reply));
    assert_int_equal (zqb_msg_count (&reply), STREAM);
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
    stop_server (&server);
}

typedef struct worked_t {
    zqb__flag_t begun, heard; /* how often it began, and heard that nobody wants it any more */
} worked_t;

/* Tells how far it is until nobody wants it any more. */
static int work_until_cancelled (zqb_request_t *request, UNUSED zqb_msg_t *reply, void *arg)
{
    worked_t *worked = (worked_t *) arg;
    zqb__flag_add (&worked->begun, 1);
    while (!zqb_request_cancelled (request)) {
        zqb_request_progress (request, 1, 2, "at it");
        zmq_poll (NULL, 0, 1);
    }
    zqb__flag_add (&worked->heard, 1);
    return 7;
}

/* Whether a request with this deadline was begun before it expired, and its worker was not the first to notice: then it
   fails as its handler says. */
static int expires_at_work (zqb_client_t *client, int deadline_ms)
{
    int begun = 0;
    zqb_reply_t reply;
    zqb_request_options_t options = no_options ();
    zqb_msg_init (&reply.body);
    options.deadline_ms = deadline_ms;
    submitted_with (client, &options, "x");
    for (reply.kind = ZQB_REPLY_PROGRESS; reply.kind == ZQB_REPLY_PROGRESS;) {
        assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
        begun |= reply.kind == ZQB_REPLY_PROGRESS;
    }
    if (reply.error != ZQB_EEXPIRED) /* the worker knows the time, too, and may be heard before the broker looks at it */
        assert_int_equal (reply.code, 7);
    zqb_msg_close (&reply.body);
    return begun;
}

TEST (a_worker_hears_that_its_request_was_cancelled_or_expired_or_that_its_broker_is_gone)
{
    worked_t worked = {0, 0};
    server_t server;
    start_server (&server, "echo", work_until_cancelled, &worked);
    zqb_client_t *client = new_client (0, 0, 0);
    uint64_t id = submit (client, "echo", "x");
    receives (client, id, ZQB_REPLY_PROGRESS, "at it");
    assert_ok (zqb_client_cancel (client, id));
    eventually (zqb__flag_get (&worked.heard) == 1);
    int deadline_ms = 10;
    while (!expires_at_work (client, deadline_ms))
        deadline_ms += deadline_ms / 10; /* the machine may be slow */
    eventually (zqb__flag_get (&worked.heard) == zqb__flag_get (&worked.begun));
    id = submit (client, "echo", "x");
    receives (client, id, ZQB_REPLY_PROGRESS, "at it");
    zqb_broker_destroy (&broker);
    eventually (zqb__flag_get (&worked.heard) == zqb__flag_get (&worked.begun));
    zqb_client_destroy (&client);
    stop_server (&server);
}

static int answer_with (UNUSED zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    return zqb_msg_add_str (reply, (const char *) arg);
}

static int refuse_it (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, UNUSED void *arg)
{
    return ZQB_EREFUSED;
}

static int fail_with_code (UNUSED zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    return zqb_msg_add_str (reply, "why") == 0 ? -42 : 1;
}

TEST (what_one_worker_refuses_another_does)
{
    char text[64];
    server_t refuses, does;
    zqb_client_t *client = new_client (0, 0, 0);
    start_server (&refuses, "echo", refuse_it, NULL);
    eventually (stat (broker, workers) == 1);
    assert_call_fails (client, "echo", ZQB_EREFUSED);
    start_server (&does, "echo", answer_with, (void *) (uintptr_t) "done");
    eventually (stat (broker, workers) == 2);
    for (int i = 0; i < 10; i++) {
        assert_int_equal (call (client, "echo", "x", text), 0);
        assert_string_equal (text, "done");
    }
    zqb_client_destroy (&client);
    stop_server (&refuses);
    stop_server (&does);
}

TEST (a_failure_comes_with_the_workers_code)
{
    server_t server;
    zqb_client_t *client = new_client (0, 0, 0);
    start_server (&server, "echo", fail_with_code, NULL);
    assert_ok (zqb_broker_handle (broker, "here", fail_with_code, NULL));
    submit (client, "echo", "x");
    receives_numbers (client, ZQB_REPLY_ERROR, ZQB_EFAILED, -42, 0, 0);
    submit (client, "here", "x");
    receives_numbers (client, ZQB_REPLY_ERROR, ZQB_EFAILED, -42, 0, 0);
    zqb_client_destroy (&client);
    stop_server (&server);
}

/* What a handler inside the broker may say, and what it may not. */
static int say_all (zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    int good = zqb_request_progress (request, 1, 2, "half") == 0 && zqb_request_cancelled (request) == 0
               && zqb_request_left_ms (request) == -1 && zqb_request_refuse (request) == -1 && errno == EINVAL
               && zqb_request_fail (request, 1, "x") == -1 && errno == EINVAL;
    return zqb_msg_add_str (reply, good ? "well" : zqb_strerror (errno));
}

TEST (a_handler_inside_the_broker_may_say_how_far_it_is_but_nobody_hears_it)
{
    zqb_client_t *client = new_client (0, 0, 0);
    assert_ok (zqb_broker_handle (broker, "here", say_all, NULL));
    assert_ok (zqb_broker_handle (broker, "refuses", refuse_it, NULL));
    receives (client, submit (client, "here", "x"), ZQB_REPLY_FINAL, "well");
    submit (client, "refuses", "x");
    receives_numbers (client, ZQB_REPLY_ERROR, ZQB_EFAILED, ZQB_EREFUSED, 0, 0);
    assert_int_equal (stat (broker, progress), 0);
    zqb_client_destroy (&client);
}

TEST (all_workers_of_a_service_are_asked_in_a_survey)
{
    int asked = 0;
    heard_t heard;
    server_t servers[3];
    zqb_client_t *client = new_client (0, 0, 0);
    assert_int_equal (ask_all (client, -1, &heard, &asked), -ZQB_ENOWORKER);
    for (size_t i = 0; i < COUNT (servers); i++) {
        start_server (&servers[i], "echo", i == 1 ? fail_with_code : answer_with, (void *) (uintptr_t) "here");
        eventually (stat (broker, workers) == i + 1);
    }
    assert_int_equal (ask_all (client, PATIENCE_MS, &heard, &asked), 2);
    assert_string_equal (heard.text, "here here ");
    assert_int_equal (asked, 3);
    for (size_t i = 0; i < COUNT (servers); i++)
        stop_server (&servers[i]);
    zqb_worker_t *busy = new_worker (0, 1);
    eventually (stat (broker, workers) == 1);
    assert_int_equal (ask_all (client, 10, &heard, &asked), 0); /* who does not answer in time is not waited for */
    assert_int_equal (asked, 1);
    zqb_worker_destroy (&busy);
    zqb_client_destroy (&client);
}

TEST (a_one_way_request_is_executed_though_its_client_is_gone)
{
    zqb_request_options_t options = no_options ();
    options.one_way = 1;
    zqb_client_t *client = new_client (0, 0, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal (submit_with (client, &options, "x", NULL), 0);
    zqb_client_destroy (&client);
    zqb_worker_t *worker = new_worker (0, 1);
    for (int i = 0; i < 10; i++)
        assert_ok (reply_text (is_asked (worker, "x"), "y"));
    eventually (stat (broker, replied) == 10);
    zqb_worker_destroy (&worker);
}

TEST (a_more_important_request_is_done_first_and_a_delayed_one_last)
{
    static const int priorities[] = {0, -4, 4, 1};
    static const char *const texts[] = {"0", "-4", "4", "1"};
    static const int order[] = {2, 3, 0, 1};
    zqb_client_t *client = new_client (0, 0, 0);
    zqb_request_options_t options = no_options ();
    options.priority = 4;
    options.delay_ms = 1;
    uint64_t delayed = submitted_with (client, &options, "delayed");
    options.delay_ms = 3600000;
    uint64_t never = submitted_with (client, &options, "never");
    eventually (stat (broker, queued) == 2 && stat (broker, delayed) == 1);
    options.delay_ms = 0;
    for (size_t i = 0; i < COUNT (priorities); i++) {
        options.priority = priorities[i];
        submitted_with (client, &options, texts[i]);
    }
    eventually (stat (broker, queued) == 6);
    zqb_worker_t *worker = new_worker (0, 1);
    assert_ok (reply_text (is_asked (worker, "delayed"), "y")); /* its delay was over before */
    receives (client, delayed, ZQB_REPLY_FINAL, "y");
    for (size_t i = 0; i < COUNT (order); i++)
        assert_ok (reply_text (is_asked (worker, texts[order[i]]), "y"));
    eventually (stat (broker, queued) == 1);
    assert_ok (zqb_client_cancel (client, never));
    eventually (stat (broker, queued) == 0);
    zqb_worker_destroy (&worker);
    zqb_client_destroy (&client);
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
        FRESH (what_a_request_asks_for_is_said_to_the_broker),
        FRESH (options_out_of_range_are_einval_and_nothing_is_sent),
        FRESH (the_longest_keys_are_said_whole),
        FRESH (who_asks_for_nothing_has_an_ordinary_request),
        FRESH (over_mdp_nothing_can_be_asked_for),
        FRESH (what_was_asked_for_is_asked_again_and_the_callers_memory_is_not_needed),
        FRESH (of_its_times_a_request_says_what_is_left),
        FRESH (when_its_deadline_is_over_a_request_ends_even_if_the_broker_is_mute),
        FRESH (when_the_broker_says_first_that_a_deadline_is_over_that_is_it),
        FRESH (who_is_not_to_try_again_waits_until_the_deadline),
        FRESH (each_request_ends_at_its_own_deadline),
        FRESH (a_client_whose_requests_all_expire_turns_to_the_next_broker_when_one_is_mute),
        FRESH (a_try_begins_when_the_delay_is_over),
        FRESH (a_one_way_request_is_sent_and_forgotten),
        FRESH (more_one_way_requests_than_may_be_outstanding_leave_one_after_the_other),
        FRESH (a_one_way_request_that_is_packed_is_sent_when_its_client_is_destroyed),
        FRESH (a_one_way_request_that_cannot_be_packed_or_sent_says_so),
        FRESH (a_one_way_request_that_is_packed_when_the_context_has_ended_is_eterm_and_stays),
        FRESH (a_one_way_call_returns_as_soon_as_it_is_sent),
        FRESH (progress_and_codes_are_told_where_they_mean_something_and_else_are_0),
        FRESH (a_try_is_not_over_as_long_as_there_is_progress),
        FRESH (a_call_passes_over_progress),
        FRESH (whenever_16_parts_were_read_16_more_may_come),
        FRESH (parts_that_were_lost_with_a_connection_are_granted_anew),
        FRESH (a_survey_gives_each_answer_and_says_how_many_there_were_of_how_many),
        FRESH (parts_of_a_survey_come_from_many_and_nobody_is_told_that_they_were_read),
        FRESH (a_survey_that_cannot_be_made_says_why),
        FRESH (who_is_called_with_the_answers_of_a_survey_may_call_others_meanwhile),
        FRESH (how_a_survey_ends_is_what_the_broker_says_unless_it_is_mute),
        FRESH (a_client_that_reads_slowly_slows_its_worker_down),
        FRESH (a_stream_of_parts_gets_through_to_a_call),
        FRESH (a_worker_hears_that_its_request_was_cancelled_or_expired_or_that_its_broker_is_gone),
        FRESH (what_one_worker_refuses_another_does),
        FRESH (a_failure_comes_with_the_workers_code),
        FRESH (a_handler_inside_the_broker_may_say_how_far_it_is_but_nobody_hears_it),
        FRESH (all_workers_of_a_service_are_asked_in_a_survey),
        FRESH (a_one_way_request_is_executed_though_its_client_is_gone),
        FRESH (a_more_important_request_is_done_first_and_a_delayed_one_last),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
