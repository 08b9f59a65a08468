/* The broker with its sockets: endpoints, threads, ways to run it, handlers, mmi, peers of all dialects, and the end. */
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"

static void *ctx;
static zqb_broker_t *broker;

static int set_up (void **state)
{
    (void) state;
    ctx = zmq_ctx_new ();
    zmq_ctx_set (ctx, ZMQ_MAX_SOCKETS, 4000);
    broker = zqb_broker_new (ctx, NULL);
    return !broker || zqb_broker_bind (broker, "inproc://broker") != 0;
}

static int tear_down (void **state)
{
    (void) state;
    zqb_broker_destroy (&broker);
    return zmq_ctx_term (ctx);
}

/* ---- peers made of sockets and text: frames with a bar between them */

static void *connect_to (const char *endpoint, int type)
{
    void *socket = zmq_socket (ctx, type);
    int patience = PATIENCE_MS, linger = 0;
    zmq_setsockopt (socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    zmq_setsockopt (socket, ZMQ_LINGER, &linger, sizeof linger);
    assert_ok (zmq_connect (socket, endpoint));
    return socket;
}

static void *dealer (void)
{
    return connect_to ("inproc://broker", ZMQ_DEALER);
}

static void send_text (void *socket, const char *text)
{
    for (const char *end; (end = strchr (text, '|')) != NULL; text = end + 1)
        assert_true (zmq_send (socket, text, (size_t) (end - text), ZMQ_SNDMORE) >= 0);
    assert_true (zmq_send (socket, text, strlen (text), 0) >= 0);
}

/* Receives a message as text in which a frame of 8 bytes that are not printable is "TOKEN", and keeps that. */
static char token[8];

static const char *receive_message (void *socket)
{
    static char text[4000];
    size_t used = 0;
    int more = 1;
    for (; more; used += (size_t) snprintf (text + used, sizeof text - used, more ? "|" : "")) {
        zmq_msg_t frame;
        zmq_msg_init (&frame);
        if (zmq_msg_recv (&frame, socket, 0) < 0)
            return "nothing";
        const char *data = (const char *) zmq_msg_data (&frame);
        int is_token = zmq_msg_size (&frame) == 8 && !data[0];
        if (is_token)
            memcpy (token, data, 8);
        used += (size_t) snprintf (text + used, sizeof text - used, "%.*s", is_token ? 5 : (int) zmq_msg_size (&frame),
                                   is_token ? "TOKEN" : data);
        more = zmq_msg_more (&frame);
        zmq_msg_close (&frame);
    }
    return text;
}

/* The same, but for heartbeats: they come when the test has taken long, as when the machine stands still. */
static const char *receive_text (void *socket)
{
    static const char *const heartbeats[] = {"|MDPW01|\4", "|MDPW01|HEARTBEAT", "|MDPW02|\5", "MDPW02|\5", "\2"};
    const char *text = receive_message (socket);
    for (size_t i = 0; i < COUNT (heartbeats); i++)
        if (strcmp (text, heartbeats[i]) == 0)
            return receive_text (socket);
    return text;
}

#define hears(socket, text) assert_string_equal (receive_text (socket), (text))

/* Frames before the token, the token that came last, frames behind it. */
static void send_with_token (void *socket, const char *before, const char *after)
{
    for (const char *end; (end = strchr (before, '|')) != NULL; before = end + 1)
        zmq_send (socket, before, (size_t) (end - before), ZMQ_SNDMORE);
    zmq_send (socket, token, sizeof token, ZMQ_SNDMORE);
    send_text (socket, after);
}

/* Calls a service; the first frame of the reply, as text, behind the error if there was one. */
static const char *call (const char *service, const char *body)
{
    static char text[2000];
    zqb_client_t *client = zqb_client_new (ctx, "inproc://broker", NULL);
    zqb_msg_t request, reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    if (body)
        zqb_msg_add_str (&request, body);
    int failed = zqb_client_call (client, service, &request, &reply);
    const char *error = failed ? zqb_strerror (errno) : "";
    snprintf (text, sizeof text, "%s%s%.*s", error, failed ? ": " : "", (int) zqb_msg_size (&reply, 0),
              zqb_msg_count (&reply) ? (char *) zqb_msg_data (&reply, 0) : "");
    zqb_msg_close (&request);
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
    return text;
}

static int echo (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    if (arg)
        ++*(int *) arg;
    return zqb_msg_move (reply, zqb_request_body (request));
}

/* ---- the caller's mistakes */

TEST (a_mistake_of_the_caller_is_einval_and_changes_nothing)
{
    char name[300], buffer[300];
    zqb_stats_t stats;
    memset (name, 'n', 256);
    name[256] = 0;
    assert_none (zqb_broker_new (NULL, NULL), EINVAL);
    assert_fails (zqb_broker_bind (NULL, "inproc://x"), EINVAL);
    assert_fails (zqb_broker_time_limit (NULL, "echo", 1), EINVAL);
    assert_fails (zqb_broker_time_limit (broker, NULL, 1), EINVAL);
    assert_fails (zqb_broker_time_limit (broker, "", 1), EINVAL);
    assert_fails (zqb_broker_time_limit (broker, "mmi.x", 1), EINVAL);
    assert_fails (zqb_broker_time_limit (broker, "echo", -2), EINVAL);
    assert_fails (zqb_broker_bind (broker, NULL), EINVAL);
    assert_fails (zqb_broker_bind_lru (NULL, "inproc://f", "inproc://b", "echo"), EINVAL);
    assert_fails (zqb_broker_bind_lru (broker, NULL, "inproc://b", "echo"), EINVAL);
    assert_fails (zqb_broker_bind_lru (broker, "inproc://f", NULL, "echo"), EINVAL);
    const char *const bad[] = {NULL, "", name, "mmi.echo"};
    for (size_t i = 0; i < COUNT (bad); i++)
        assert_fails (zqb_broker_bind_lru (broker, "inproc://f", "inproc://b", bad[i]), EINVAL);
    for (size_t i = 0; i < 3; i++)
        assert_fails (zqb_broker_handle (broker, bad[i], echo, NULL), EINVAL);
    assert_fails (zqb_broker_handle (NULL, "echo", echo, NULL), EINVAL);
    assert_fails (zqb_broker_start (NULL), EINVAL);
    assert_fails (zqb_broker_run (NULL), EINVAL);
    assert_fails (zqb_broker_step (NULL, 0), EINVAL);
    assert_fails (zqb_broker_fd (NULL), EINVAL);
    assert_fails (zqb_broker_stats (NULL, &stats), EINVAL);
    assert_fails (zqb_broker_stats (broker, NULL), EINVAL);
    assert_fails (zqb_broker_endpoint (NULL, 0, buffer, sizeof buffer), EINVAL);
    assert_fails (zqb_broker_endpoint (broker, 0, NULL, sizeof buffer), EINVAL);
    assert_fails (zqb_broker_endpoint (broker, 1, buffer, sizeof buffer), EINVAL);
    zqb_broker_stop (NULL);
    zqb_broker_destroy (NULL);
    assert_int_equal (stat (broker, services), 0);
}

TEST (a_number_of_the_options_below_minus_one_is_einval)
{
    zqb_broker_options_t options[2];
    memset (options, 0, sizeof options);
    options[0].heartbeat_ms = -2;
    options[1].max_bytes = -2;
    for (int i = 0; i < 2; i++) {
        errno = 0;
        zqb_broker_t *other = zqb_broker_new (ctx, &options[i]);
        int error = errno, made = other != NULL;
        zqb_broker_destroy (&other);
        assert_false (made);
        assert_int_equal (error, EINVAL);
    }
}

TEST (destroying_nothing_is_fine_and_leaves_null)
{
    zqb_broker_t *none = NULL;
    zqb_broker_destroy (&none);
    zqb_broker_destroy (NULL);
    zqb_broker_destroy (&broker);
    assert_null (broker);
    zqb_broker_destroy (&broker);
}

TEST (a_broker_cannot_be_made_in_a_context_that_has_ended)
{
    void *other = zmq_ctx_new ();
    zmq_ctx_shutdown (other);
    assert_none (zqb_broker_new (other, NULL), ETERM);
    zmq_ctx_term (other);
}

TEST (a_broker_cannot_be_made_without_sockets)
{
    for (int most = 1; most <= 2; most++) { /* it has one, and two that watch its connections */
        void *small = zmq_ctx_new ();
        zmq_ctx_set (small, ZMQ_MAX_SOCKETS, most);
        assert_none (zqb_broker_new (small, NULL), EMFILE);
        zmq_ctx_term (small);
    }
}

TEST (a_broker_cannot_be_made_without_descriptors)
{
    zqb_broker_t *other = NULL;
    assert_without_descriptors ((other = zqb_broker_new (ctx, NULL)) == NULL);
    assert_non_null (other = zqb_broker_new (ctx, NULL));
    zqb_broker_destroy (&other);
}

/* ---- endpoints */

TEST (an_endpoint_that_cannot_be_bound_says_why)
{
    static const struct {
        const char *endpoint;
        int error;
    } cases[] = {{"inproc://broker", EADDRINUSE}, {"", EINVAL}, {"nonsense", EINVAL},
                 {"what://ever", EPROTONOSUPPORT}, {"tcp://127.0.0.1", EINVAL}};
    for (size_t i = 0; i < COUNT (cases); i++)
        assert_fails (zqb_broker_bind (broker, cases[i].endpoint), cases[i].error);
    char buffer[256];
    assert_ok (zqb_broker_endpoint (broker, 0, buffer, sizeof buffer));
    assert_fails (zqb_broker_endpoint (broker, 1, buffer, sizeof buffer), EINVAL);
}

TEST (an_endpoint_in_use_by_another_is_eaddrinuse)
{
    char buffer[256];
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_endpoint (broker, -1, buffer, sizeof buffer));
    zqb_broker_t *other = zqb_broker_new (ctx, NULL);
    assert_fails (zqb_broker_bind (other, buffer), EADDRINUSE);
    assert_fails (zqb_broker_bind (other, "inproc://broker"), EADDRINUSE);
    zqb_broker_destroy (&other);
}

TEST (endpoints_are_told_in_the_order_of_binding_and_back_from_the_last)
{
    char buffer[256];
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "lru"));
    static const struct {
        int index;
        const char *start;
    } cases[] = {{0, "inproc://broker"}, {1, "tcp://127.0.0.1:"}, {2, "inproc://front"}, {3, "inproc://back"},
                 {-1, "inproc://back"}, {-4, "inproc://broker"}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        assert_ok (zqb_broker_endpoint (broker, cases[i].index, buffer, sizeof buffer));
        assert_memory_equal (buffer, cases[i].start, strlen (cases[i].start));
    }
    assert_null (strchr (buffer, '*'));
    assert_fails (zqb_broker_endpoint (broker, 4, buffer, sizeof buffer), EINVAL);
    assert_fails (zqb_broker_endpoint (broker, -5, buffer, sizeof buffer), EINVAL);
    assert_fails (zqb_broker_endpoint (broker, INT_MIN, buffer, sizeof buffer), EINVAL);
}

TEST (a_buffer_too_small_for_an_endpoint_is_einval)
{
    char buffer[16] = "untouched";
    assert_fails (zqb_broker_endpoint (broker, 0, buffer, 15), EINVAL);
    assert_string_equal (buffer, "untouched");
    assert_ok (zqb_broker_endpoint (broker, 0, buffer, 16));
    assert_string_equal (buffer, "inproc://broker");
}

TEST (an_endpoint_of_inproc_may_be_as_long_as_one_likes)
{
    char endpoint[400] = "inproc://", told[400] = "untouched";
    memset (endpoint + strlen (endpoint), 'x', 300);
    assert_ok (zqb_broker_bind (broker, endpoint));
    assert_ok (zqb_broker_endpoint (broker, -1, told, sizeof told));
    assert_string_equal (told, endpoint);
    assert_ok (zqb_broker_start (broker));
    void *client = connect_to (endpoint, ZMQ_DEALER);
    send_text (client, "|MDPC01|mmi.service|echo");
    hears (client, "|MDPC01|mmi.service|404");
    zmq_close (client);
}

TEST (when_one_end_of_an_lru_service_cannot_be_bound_neither_is)
{
    char buffer[256];
    assert_fails (zqb_broker_bind_lru (broker, "inproc://front", "inproc://broker", "lru"), EADDRINUSE);
    assert_fails (zqb_broker_bind_lru (broker, "inproc://broker", "inproc://back", "lru"), EADDRINUSE);
    assert_fails (zqb_broker_bind_lru (broker, "inproc://same", "inproc://same", "lru"), EADDRINUSE);
    assert_fails (zqb_broker_bind_lru (broker, "inproc://first", "what://ever", "lru"), EPROTONOSUPPORT);
    assert_fails (zqb_broker_endpoint (broker, 1, buffer, sizeof buffer), EINVAL);
    /* libzmq closes sockets behind our back */
    eventually (zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "lru") == 0);
    eventually (zqb_broker_bind_lru (broker, "inproc://first", "inproc://same", "lru") == 0);
    assert_ok (zqb_broker_endpoint (broker, 2, buffer, sizeof buffer));
    assert_string_equal (buffer, "inproc://back");
}

TEST (endpoints_may_be_bound_while_it_runs)
{
    assert_ok (zqb_broker_start (broker));
    assert_ok (zqb_broker_bind (broker, "inproc://late"));
    assert_ok (zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "echo"));
    void *worker = connect_to ("inproc://late", ZMQ_DEALER), *client = connect_to ("inproc://front", ZMQ_REQ);
    send_text (worker, "|MDPW01|\1|echo");
    send_text (client, "hello");
    hears (worker, "|MDPW01|\2|TOKEN||hello");
    send_with_token (worker, "|MDPW01|\3|", "|world");
    hears (client, "world");
    zmq_close (worker);
    zmq_close (client);
}

/* ---- ways to run it */

TEST (a_broker_that_runs_already_is_not_run_again)
{
    assert_ok (zqb_broker_start (broker));
    assert_fails (zqb_broker_start (broker), EALREADY);
    assert_fails (zqb_broker_run (broker), EALREADY);
    assert_fails (zqb_broker_step (broker, 0), EALREADY);
    assert_string_equal (call ("mmi.service", "none"), "404");
}

TEST (a_broker_may_be_destroyed_whether_or_not_it_was_ever_bound_or_run)
{
    for (int how = 0; how < 8; how++) {
        zqb_broker_t *other = zqb_broker_new (ctx, NULL);
        if (how & 1)
            assert_ok (zqb_broker_bind (other, "tcp://127.0.0.1:*"));
        if (how & 2)
            assert_ok (zqb_broker_start (other));
        if (how & 4)
            zqb_broker_stop (other);
        zqb_broker_destroy (&other);
        assert_null (other);
    }
}

static void run_it (void *arg)
{
    ((int *) arg)[0] = zqb_broker_run (broker);
    ((int *) arg)[1] = errno;
}

TEST (run_serves_in_its_thread_until_it_is_stopped_by_another)
{
    int result[2] = {-1, 0};
    void *thread = zmq_threadstart (run_it, result);
    assert_string_equal (call ("mmi.service", "none"), "404");
    zqb_broker_stop (broker);
    zmq_threadclose (thread);
    assert_int_equal (result[0], 0);
}

TEST (a_stop_that_comes_before_run_ends_it_at_once)
{
    zqb_broker_stop (broker);
    assert_ok (zqb_broker_run (broker));
}

TEST (a_broker_that_was_stopped_may_be_started_again_and_has_kept_its_requests)
{
    void *client = dealer (), *worker = dealer ();
    assert_ok (zqb_broker_start (broker));
    send_text (client, "|MDPC01|echo|kept");
    eventually (stat (broker, queued) == 1);
    zqb_broker_stop (broker);
    send_text (worker, "|MDPW01|\1|echo");
    eventually (zqb_broker_start (broker) == 0);
    hears (worker, "|MDPW01|\2|TOKEN||kept");
    zmq_close (client);
    zmq_close (worker);
}

TEST (after_start_and_stop_it_may_be_stepped_or_run)
{
    int result[2] = {-1, 0};
    assert_ok (zqb_broker_start (broker));
    zqb_broker_stop (broker);
    eventually (zqb_broker_step (broker, 0) >= 0);
    void *thread = zmq_threadstart (run_it, result);
    assert_string_equal (call ("mmi.none", "x"), "501");
    zqb_broker_stop (broker);
    zmq_threadclose (thread);
    assert_int_equal (result[0], 0);
}

TEST (a_host_with_a_loop_of_its_own_steps_when_the_descriptor_says_so)
{
    void *client = connect_to ("inproc://broker", ZMQ_REQ);
    zqb__poll_t item = zqb__poll_item (zqb_broker_fd (broker));
    int steps = 0;
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    send_text (client, "MDPC01|echo|hello");
    while (zmq_poll (NULL, 0, 0) == 0 && stat (broker, replied) == 0) {
        assert_true (zqb__wait (&item, 1, PATIENCE_MS * 1000u) == 1);
        while (zqb_broker_step (broker, 0) == 0)
            steps++;
    }
    assert_true (steps > 0);
    hears (client, "MDPC01|echo|hello");
    zmq_close (client);
}

/* A client at an endpoint is answered by a host that steps when the descriptor says so. */
static void descriptor_knows_of (int fd, const char *endpoint, const char *asks)
{
    uint64_t replied = stat (broker, replied);
    zqb__poll_t item = zqb__poll_item (fd);
    while (zqb_broker_step (broker, 0) == 0)
        ;
    void *client = connect_to (endpoint, ZMQ_REQ);
    send_text (client, asks);
    while (stat (broker, replied) == replied) {
        assert_true (zqb__wait (&item, 1, PATIENCE_MS * 1000u) == 1);
        while (zqb_broker_step (broker, 0) == 0)
            ;
    }
    hears (client, asks);
    zmq_close (client);
}

TEST (the_descriptor_stays_the_same_and_knows_of_endpoints_bound_later)
{
    char tcp[256];
    int fd = zqb_broker_fd (broker);
    assert_true (fd >= 0);
    assert_ok (zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "echo"));
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_endpoint (broker, -1, tcp, sizeof tcp));
    assert_int_equal (zqb_broker_fd (broker), fd);
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    descriptor_knows_of (fd, "inproc://front", "hello");
    descriptor_knows_of (fd, tcp, "MDPC01|echo|hello");
}

/* What comes over a socket that has endpoints of inproc alone is of this process. */
TEST (endpoints_of_inproc_share_a_socket_and_all_others_another)
{
    zqb_broker_t *other = zqb_broker_new (ctx, NULL);
    assert_int_equal (other->port_count, 1);
    for (int i = 0; i < 2; i++) {
        assert_ok (zqb_broker_bind (other, i ? "inproc://one" : "inproc://another"));
        assert_int_equal (other->port_count, 1);
    }
    assert_fails (zqb_broker_bind (other, "tcp://nowhere"), EINVAL);
    assert_int_equal (other->port_count, 1);
    for (int i = 0; i < 2; i++) {
        assert_ok (zqb_broker_bind (other, "tcp://127.0.0.1:*"));
        assert_int_equal (other->port_count, 2);
    }
    assert_ok (zqb_broker_bind_clients (other, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_bind_clients (other, "inproc://third"));
    assert_int_equal (other->port_count, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal (other->ports[i]->local, i == 0 || i == 3);
    zqb_broker_destroy (&other);
}

TEST (a_descriptor_that_cannot_be_had_may_be_had_later)
{
    assert_without_descriptors (zqb_broker_fd (broker) == -1);
    assert_true (zqb_broker_fd (broker) >= 0);
}

TEST (step_waits_for_what_comes_and_says_when_it_wants_to_be_called_again)
{
    void *worker = dealer ();
    send_text (worker, "|MDPW01|\1|echo");
    while (stat (broker, workers) == 0)
        assert_true (zqb_broker_step (broker, PATIENCE_MS) >= 0);
    int next;
    while ((next = zqb_broker_step (broker, 0)) == 0)
        ;
    assert_true (next > 0 && next <= 2500);
    zmq_close (worker);
}

static void stop_it (void *arg)
{
    zqb_broker_stop ((zqb_broker_t *) arg);
}

TEST (a_step_that_waits_for_ever_is_ended_by_stop)
{
    void *thread = zmq_threadstart (stop_it, broker);
    assert_true (zqb_broker_step (broker, -1) >= 0);
    zmq_threadclose (thread);
}

TEST (a_run_that_waits_ends_with_the_context)
{
    int result[2] = {0, 0};
    void *thread = zmq_threadstart (run_it, result);
    assert_string_equal (call ("mmi.service", "none"), "404");
    zmq_ctx_shutdown (ctx);
    zmq_threadclose (thread);
    assert_int_equal (result[0], -1);
    assert_int_equal (result[1], ETERM);
    assert_fails (zqb_broker_step (broker, -1), ETERM);
    assert_fails (zqb_broker_bind (broker, "inproc://late"), ETERM);
    zqb_broker_destroy (&broker);
}

TEST (a_started_broker_may_be_destroyed_after_the_context_ended)
{
    assert_ok (zqb_broker_start (broker));
    void *client = dealer ();
    send_text (client, "|MDPC01|echo|x");
    eventually (stat (broker, queued) == 1);
    zmq_close (client);
    zmq_ctx_shutdown (ctx);
    zqb_broker_destroy (&broker);
}

TEST (several_brokers_live_in_one_context)
{
    zqb_broker_t *brokers[8];
    char endpoint[64];
    for (int i = 0; i < 8; i++) {
        snprintf (endpoint, sizeof endpoint, "inproc://broker-%d", i);
        brokers[i] = zqb_broker_new (ctx, NULL);
        assert_ok (zqb_broker_bind (brokers[i], endpoint));
        assert_ok (zqb_broker_start (brokers[i]));
        void *client = connect_to (endpoint, ZMQ_REQ);
        send_text (client, "MDPC01|mmi.nothing|x");
        hears (client, "MDPC01|mmi.nothing|501");
        zmq_close (client);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal (stat (brokers[i], accepted), 1);
        zqb_broker_destroy (&brokers[i]);
    }
}

/* ---- peers of all dialects, and endpoints of all kinds */

/* A REQ client that speaks MDP/0.1 and a worker that does, over this endpoint. */
static void serve_over (const char *endpoint)
{
    char name[256];
    assert_ok (zqb_broker_bind (broker, endpoint));
    assert_ok (zqb_broker_endpoint (broker, -1, name, sizeof name));
    void *worker = connect_to (name, ZMQ_DEALER), *client = connect_to (name, ZMQ_REQ);
    send_text (worker, "|MDPW01|\1|echo");
    send_text (client, "MDPC01|echo|hello|there");
    hears (worker, "|MDPW01|\2|TOKEN||hello|there");
    send_with_token (worker, "|MDPW01|\3|", "|general");
    hears (client, "MDPC01|echo|general");
    zmq_close (worker);
    zmq_close (client);
    eventually (stat (broker, workers) == 0); /* found by its connection */
}

TEST (tcp_ipc_and_inproc_serve_alike)
{
    assert_ok (zqb_broker_start (broker));
    serve_over ("tcp://127.0.0.1:*");
    serve_over ("ipc://*");
}

TEST (a_worker_over_inproc_whose_socket_is_closed_gives_its_request_to_another)
{
    assert_ok (zqb_broker_start (broker));
    void *worker = dealer (), *other = dealer (), *client = dealer ();
    send_text (worker, "|MDPW01|\1|echo");
    send_text (client, "|MDPC01|echo|hello");
    hears (worker, "|MDPW01|\2|TOKEN||hello");
    zmq_close (worker);
    send_text (other, "|MDPW01|\1|echo");
    eventually (stat (broker, workers) >= 1);
    zmq_close (other);
    zmq_close (client);
}

static void *worker_that_says (const char *ready)
{
    void *worker = dealer ();
    send_text (worker, ready);
    return worker;
}

TEST (every_dialect_of_majordomo_is_answered_in_kind)
{
    static const struct {
        const char *ready, *request, *before, *call, *reply, *goodbye;
    } cases[] = {
        {"|MDPW01|\1|echo", "|MDPW01|\2|TOKEN||x", "|MDPW01|\3|", "|MDPC01|echo|x", "|MDPC01|echo|y", "|MDPW01|\5"},
        {"|MDPW01|READY|echo", "|MDPW01|REQUEST|TOKEN||x", "|MDPW01|REPLY|", "|MDPC01|echo|x", "|MDPC01|echo|y",
         "|MDPW01|DISCONNECT"},
        {"MDPW02|\1|echo", "MDPW02|\2|TOKEN||x", "MDPW02|\4|", "MDPC02|\1|echo|x", "MDPC02|\3|echo|y", "MDPW02|\6"},
        {"|MDPW02|\1|echo", "|MDPW02|\2|TOKEN||x", "|MDPW02|\4|", "|MDPC02|\1|echo|x", "|MDPC02|\3|echo|y",
         "|MDPW02|\6"},
        {"MDPW02|\1|echo", "MDPW02|\2|TOKEN||x", "MDPW02|\4|", "one|two||MDPC01|echo|x", "one|two||MDPC01|echo|y",
         "MDPW02|\6"},
    };
    assert_ok (zqb_broker_start (broker));
    for (size_t i = 0; i < COUNT (cases); i++) {
        void *worker = dealer (), *client = dealer ();
        send_text (worker, cases[i].ready);
        eventually (stat (broker, workers) == 1);
        send_text (client, cases[i].call);
        hears (worker, cases[i].request);
        send_with_token (worker, cases[i].before, "|y");
        hears (client, cases[i].reply);
        send_text (worker, cases[i].goodbye);
        eventually (stat (broker, workers) == 0);
        zmq_close (client);
        zmq_close (worker);
    }
    assert_int_equal (stat (broker, workers_left), COUNT (cases));
}

TEST (lru_and_ppp_workers_serve_any_client_of_their_service)
{
    static const struct {
        int type;
        const char *ready;
    } cases[] = {{ZMQ_REQ, "READY"}, {ZMQ_REQ, "\1"}, {ZMQ_DEALER, "READY"}, {ZMQ_DEALER, "\1"}};
    assert_ok (zqb_broker_start (broker));
    for (size_t i = 0; i < COUNT (cases); i++) {
        char front[32], back[32], name[32], call[64], reply[64];
        snprintf (front, sizeof front, "inproc://front-%u", (unsigned) i);
        snprintf (back, sizeof back, "inproc://back-%u", (unsigned) i);
        snprintf (name, sizeof name, "echo-%u", (unsigned) i);
        snprintf (call, sizeof call, "|MDPC01|%s|x", name);
        snprintf (reply, sizeof reply, "|MDPC01|%s|z", name);
        assert_ok (zqb_broker_bind_lru (broker, front, back, name));
        void *worker = connect_to (back, cases[i].type), *client = connect_to (front, ZMQ_REQ), *majordomo = dealer ();
        send_text (worker, cases[i].ready);
        send_text (client, "x");
        hears (worker, "TOKEN||x");
        send_with_token (worker, "", "|y");
        hears (client, "y");
        send_text (majordomo, call);
        hears (worker, "TOKEN||x");
        send_with_token (worker, "", "|z");
        hears (majordomo, reply);
        zmq_close (client);
        zmq_close (majordomo);
        zmq_close (worker);
    }
}

TEST (a_client_behind_a_proxy_gets_its_own_answer)
{
    void *router = zmq_socket (ctx, ZMQ_ROUTER), *back = dealer ();
    assert_ok (zmq_bind (router, "inproc://proxy"));
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    assert_ok (zqb_broker_start (broker));
    void *one = connect_to ("inproc://proxy", ZMQ_REQ), *two = connect_to ("inproc://proxy", ZMQ_REQ);
    send_text (one, "MDPC01|echo|of one");
    send_text (two, "MDPC01|echo|of two");
    for (int i = 0; i < 4; i++) /* two forth, two back */
        for (int more = 1; more;) {
            void *from = i < 2 ? router : back, *to = i < 2 ? back : router;
            zmq_msg_t frame;
            zmq_msg_init (&frame);
            assert_true (zmq_msg_recv (&frame, from, 0) >= 0);
            more = zmq_msg_more (&frame);
            assert_true (zmq_msg_send (&frame, to, more ? ZMQ_SNDMORE : 0) >= 0);
        }
    hears (two, "MDPC01|echo|of two");
    hears (one, "MDPC01|echo|of one");
    zmq_close (one);
    zmq_close (two);
    zmq_close (router);
    zmq_close (back);
}

/* ---- bad input: each is counted, and others are served all the while */

TEST (malformed_messages_are_counted_by_kind_and_others_are_served)
{
    static const struct {
        const char *text;
        size_t counter;
    } cases[] = {
#define COUNTS(name) offsetof (zqb_stats_t, name)
        {"", COUNTS (bad_header)},
        {"one frame", COUNTS (bad_header)},
        {"||", COUNTS (bad_header)},
        {"|MDPC03|\1|echo|x", COUNTS (bad_header)},
        {"1|2|3|4|5|6|7|8|9|MDPC01|echo|x", COUNTS (bad_header)},
        {"|MDPC01", COUNTS (bad_frames)},
        {"|MDPC01|echo", COUNTS (bad_frames)},
        {"|MDPC01||x", COUNTS (refused_name)},
        {"|MDPW01", COUNTS (bad_frames)},
        {"|MDPW01|\1", COUNTS (bad_frames)},
        {"|MDPW01|\1|", COUNTS (refused_name)},
        {"|MDPW01|\1|mmi.echo", COUNTS (refused_name)},
        {"|MDPW01|\2|x||x", COUNTS (bad_command)},
        {"|MDPW01|\11", COUNTS (bad_command)},
        {"|MDPW01|\3", COUNTS (bad_frames)},
        {"|MDPW01|\3|x||forged", COUNTS (bad_state)},
        {"|MDPW01|\4", COUNTS (bad_state)},
        {"|MDPW01|\5", COUNTS (bad_state)},
        {"MDPC02|\7|echo|x", COUNTS (bad_command)},
        {"MDPC02", COUNTS (bad_frames)},
        {"MDPW02|\11", COUNTS (bad_command)},
        {"ZQB\1lifelife", COUNTS (bad_frames)},
        {"ZQB\1lifelifegarbage that is no command", COUNTS (bad_frames)},
    };
    assert_ok (zqb_broker_start (broker));
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_stats_t before = unit_stats (broker);
        void *peer = dealer ();
        send_text (peer, cases[i].text);
        eventually (stat (broker, messages_in) > before.messages_in);
        zqb_stats_t after = unit_stats (broker);
        uint64_t *was = (uint64_t *) (void *) ((char *) &before + cases[i].counter);
        uint64_t *is = (uint64_t *) (void *) ((char *) &after + cases[i].counter);
        assert_int_equal (*is, *was + 1);
        assert_int_equal (after.workers + after.accepted, before.workers + before.accepted);
        zmq_close (peer);
        assert_string_equal (call ("mmi.service", "echo"), "404");
    }
}

TEST (an_address_that_is_too_long_is_refused)
{
    char text[1200], name[1100];
    memset (name, 'a', sizeof name);
    name[sizeof name - 1] = 0;
    snprintf (text, sizeof text, "%s|MDPC01|echo|x", name);
    assert_ok (zqb_broker_start (broker));
    void *peer = dealer ();
    send_text (peer, text);
    eventually (stat (broker, bad_header) == 1);
    zmq_close (peer);
}

TEST (a_name_of_256_bytes_is_refused_one_of_255_not)
{
    char text[300] = "|MDPC01|";
    memset (text + 8, 'n', 256);
    strcpy (text + 8 + 256, "|x");
    assert_ok (zqb_broker_start (broker));
    void *peer = dealer ();
    send_text (peer, text);
    eventually (stat (broker, refused_name) == 1);
    strcpy (text + 8 + 255, "|x");
    send_text (peer, text);
    eventually (stat (broker, accepted) == 1);
    zmq_close (peer);
}

TEST (too_many_frames_are_refused_without_being_kept)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.max_frames = 10;
    zqb_broker_t *other = zqb_broker_new (ctx, &options);
    assert_ok (zqb_broker_bind (other, "inproc://other"));
    assert_ok (zqb_broker_start (other));
    void *peer = connect_to ("inproc://other", ZMQ_DEALER);
    send_text (peer, "|MDPC01|echo|1|2|3|4|5|6|7|8|9|10");
    eventually (stat (other, accepted) == 1);
    send_text (peer, "|MDPC01|echo|1|2|3|4|5|6|7|8|9|10|11");
    eventually (stat (other, refused_frames) == 1);
    zmq_send (peer, "", 0, ZMQ_SNDMORE);
    zmq_send (peer, "MDPC01", 6, ZMQ_SNDMORE);
    for (int i = 0; i < 5000; i++)
        zmq_send (peer, "x", 1, ZMQ_SNDMORE);
    zmq_send (peer, "x", 1, 0);
    eventually (stat (other, refused_frames) == 2);
    zmq_close (peer);
    zqb_broker_destroy (&other);
}

TEST (a_reply_of_a_worker_that_does_not_hold_the_request_is_stale)
{
    assert_ok (zqb_broker_start (broker));
    void *worker = worker_that_says ("|MDPW01|\1|echo"), *client = dealer ();
    void *forger = worker_that_says ("|MDPW01|\1|other");
    send_text (client, "|MDPC01|echo|x");
    hears (worker, "|MDPW01|\2|TOKEN||x");
    send_with_token (forger, "|MDPW01|\3|", "|forged");
    eventually (stat (broker, stale) == 1);
    send_with_token (worker, "|MDPW01|\3|", "|true");
    hears (client, "|MDPC01|echo|true");
    zmq_close (worker);
    zmq_close (forger);
    zmq_close (client);
}

static char last_log[512];
static int logged;

static void keep_log (int level, const char *text, void *arg)
{
    (void) arg;
    if (level == ZQB_LOG_WARNING) {
        snprintf (last_log, sizeof last_log, "%s", text);
        logged++;
    }
}

TEST (what_is_malformed_is_logged_if_asked)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.log = keep_log;
    zqb_broker_t *other = zqb_broker_new (ctx, &options);
    assert_ok (zqb_broker_bind (other, "inproc://other"));
    void *peer = connect_to ("inproc://other", ZMQ_DEALER);
    logged = 0;
    send_text (peer, "|MDPC01|echo");
    while (stat (other, bad_frames) == 0)
        assert_true (zqb_broker_step (other, PATIENCE_MS) >= 0);
    assert_true (logged > 0);
    assert_non_null (strstr (last_log, "malformed"));
    other->engine.warnings.until = UINT64_MAX; /* the second goes on for ever */
    for (int i = 0; i < 50; i++)
        send_text (peer, i % 2 ? "|MDPC01|echo" : "nonsense");
    while (stat (other, bad_frames) + stat (other, bad_header) < 51)
        assert_true (zqb_broker_step (other, PATIENCE_MS) >= 0);
    assert_int_equal (logged, 10);
    zmq_close (peer);
    zqb_broker_destroy (&other);
}

/* ---- handlers */

TEST (a_handler_serves_in_the_brokers_own_thread)
{
    int calls = 0;
    assert_ok (zqb_broker_handle (broker, "echo", echo, &calls));
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("echo", "hello"), "hello");
    assert_string_equal (call ("mmi.service", "echo"), "200");
    zqb_broker_destroy (&broker);
    assert_int_equal (calls, 1);
}

static int fail_with_text (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) request;
    if (arg)
        zqb_msg_add_str (reply, (const char *) arg);
    return -1;
}

TEST (a_handler_that_fails_says_why)
{
    static char why[] = "no such file";
    assert_ok (zqb_broker_handle (broker, "fail", fail_with_text, why));
    assert_ok (zqb_broker_handle (broker, "fail silently", fail_with_text, NULL));
    assert_ok (zqb_broker_start (broker));
    char wanted[200];
    snprintf (wanted, sizeof wanted, "%s: no such file", zqb_strerror (ZQB_EFAILED));
    assert_string_equal (call ("fail", "x"), wanted);
    snprintf (wanted, sizeof wanted, "%s: ", zqb_strerror (ZQB_EFAILED));
    assert_string_equal (call ("fail silently", "x"), wanted);
    assert_int_equal (stat (broker, failed), 2);
}

static int in_parts (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_msg_t part;
    size_t size;
    (void) arg;
    zqb_msg_init (&part);
    zqb_msg_add_str (&part, zqb_request_service (request, &size));
    if (size != 5 || zqb_request_partial (request, &part) != 0 || zqb_msg_count (&part) != 0)
        return -1;
    zqb_msg_add_str (&part, "never sent by this");
    int refused = zqb_request_reply (request, &part) == -1 && errno == EINVAL;
    refused += zqb_request_fail (request, 0, "no") == -1 && errno == EINVAL;
    zqb_msg_close (&part);
    return zqb_msg_add_str (reply, refused == 2 ? "two refused" : "not refused");
}

TEST (a_handler_may_reply_in_parts_which_leave_together)
{
    assert_ok (zqb_broker_handle (broker, "parts", in_parts, NULL));
    assert_ok (zqb_broker_start (broker));
    void *client = dealer ();
    send_text (client, "MDPC02|\1|parts|x");
    hears (client, "MDPC02|\3|parts|parts|two refused");
    zmq_close (client);
}

static int call_the_broker (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_stats_t stats;
    char text[100];
    (void) request, (void) arg;
    if (zqb_broker_stats (broker, &stats) != 0 || zqb_broker_endpoint (broker, 0, text, sizeof text) != 0
        || zqb_broker_step (broker, 0) != -1 || errno != EALREADY
        || zqb_broker_handle (broker, "first", NULL, NULL) != -1 || errno != EBUSY
        || zqb_broker_time_limit (broker, "first", 1) != -1 || errno != EBUSY
        || zqb_broker_policy (broker, "first", ZQB_POLICY_MRU, NULL, NULL) != -1 || errno != EBUSY
        || zqb_broker_drain (broker, "first", 0) != -1 || errno != EBUSY)
        return -1;
    return zqb_msg_add_str (reply, text);
}

TEST (a_handler_may_ask_its_broker_but_not_change_handlers)
{
    assert_ok (zqb_broker_handle (broker, "first", call_the_broker, NULL));
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("first", "x"), "inproc://broker");
    assert_string_equal (call ("first", "x"), "inproc://broker");
}

typedef struct letters_t {
    int count, adds_up, could_answer, could_change;
    char service[20];
    zqb_msg_t body;
} letters_t;

static void keep_letter (zqb_request_t *request, void *arg)
{
    letters_t *letters = (letters_t *) arg;
    zqb_stats_t stats = unit_stats (broker);
    letters->count++;
    letters->adds_up = unit_adds_up (&stats);
    size_t size;
    const char *service = zqb_request_service (request, &size);
    if (service && size < sizeof letters->service)
        memcpy (letters->service, service, size + 1);
    letters->could_change = zqb_broker_handle (broker, "jobs", echo, NULL) == 0 || errno != EBUSY;
    letters->could_answer = zqb_request_partial (request, zqb_request_body (request)) == 0 || errno != ENOTCONN
                            || zqb_request_reply (request, zqb_request_body (request)) == 0 || errno != EINVAL;
    zqb_msg_move (&letters->body, zqb_request_body (request));
}

TEST (a_request_that_is_given_up_goes_to_the_host_as_a_dead_letter)
{
    letters_t letters;
    zqb_broker_options_t options;
    memset (&letters, 0, sizeof letters);
    memset (&options, 0, sizeof options);
    zqb_msg_init (&letters.body);
    options.attempts = 2;
    options.dead_letter = keep_letter;
    options.dead_letter_arg = &letters;
    zqb_broker_destroy (&broker);
    broker = zqb_broker_new (ctx, &options);
    eventually (zqb_broker_bind (broker, "inproc://broker") == 0); /* the former's socket is still being closed */
    assert_ok (zqb_broker_start (broker));
    void *worker = dealer (), *client = dealer ();
    send_text (client, "|MDPC01|jobs|poison|more");
    for (int i = 0; i < 2; i++) {
        send_text (worker, "|MDPW01|\1|jobs");
        hears (worker, "|MDPW01|\2|TOKEN||poison|more");
        send_text (worker, "|MDPW01|\5");
    }
    eventually (stat (broker, dead) == 1);
    zqb_broker_destroy (&broker);
    assert_true (letters.count == 1 && letters.adds_up);
    assert_string_equal (letters.service, "jobs");
    assert_int_equal (zqb_msg_count (&letters.body), 2);
    assert_memory_equal (zqb_msg_data (&letters.body, 0), "poison", 6);
    assert_false (letters.could_change || letters.could_answer);
    zqb_msg_close (&letters.body);
    zmq_close (worker);
    zmq_close (client);
}

TEST (requests_that_waited_when_a_handler_came_are_answered)
{
    assert_ok (zqb_broker_start (broker));
    void *client = dealer ();
    send_text (client, "|MDPC01|echo|early");
    eventually (stat (broker, queued) == 1);
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    hears (client, "|MDPC01|echo|early");
    zmq_close (client);
}

TEST (a_handler_replaces_the_one_before_and_null_removes_it)
{
    static char why[] = "replaced";
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("echo", "hello"), "hello");
    assert_ok (zqb_broker_handle (broker, "echo", fail_with_text, why));
    assert_non_null (strstr (call ("echo", "hello"), "replaced"));
    assert_ok (zqb_broker_handle (broker, "echo", NULL, NULL));
    assert_string_equal (call ("mmi.service", "echo"), "404");
    assert_int_equal (stat (broker, services), 0);
}

TEST (a_handler_is_not_for_a_name_that_workers_serve)
{
    assert_ok (zqb_broker_start (broker));
    void *worker = worker_that_says ("|MDPW01|\1|echo");
    eventually (stat (broker, workers) == 1);
    assert_fails (zqb_broker_handle (broker, "echo", echo, NULL), EADDRINUSE);
    zmq_close (worker);
}

TEST (the_host_may_serve_mmi_names_of_its_own)
{
    assert_ok (zqb_broker_handle (broker, "mmi.own", echo, NULL));
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("mmi.own", "hello"), "hello");
    assert_string_equal (call ("mmi.others", "hello"), "501");
}

/* ---- limits */

TEST (a_broker_without_any_limit_serves)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = options.liveness = options.attempts = options.no_worker_ms = options.max_services = -1;
    options.max_workers = options.max_clients = options.max_requests = options.max_queue = options.max_outstanding = -1;
    options.max_frames = options.send_hwm = -1;
    options.max_message = options.max_bytes = -1;
    zqb_broker_destroy (&broker);
    assert_non_null (broker = zqb_broker_new (ctx, &options));
    eventually (zqb_broker_bind (broker, "inproc://broker") == 0); /* libzmq frees the name behind our back */
    assert_ok (zqb_broker_start (broker));
    void *worker = worker_that_says ("|MDPW01|\1|echo"), *client = dealer ();
    send_text (client, "|MDPC01|echo|hello");
    hears (worker, "|MDPW01|\2|TOKEN||hello");
    send_with_token (worker, "|MDPW01|\3|", "|world");
    hears (client, "|MDPC01|echo|world");
    zmq_close (worker);
    zmq_close (client);
}

TEST (a_worker_that_hangs_loses_its_request_to_another)
{
    assert_ok (zqb_broker_start (broker));
    void *hangs = worker_that_says ("|MDPW01|\1|echo"), *client = dealer ();
    eventually (stat (broker, workers) == 1);
    send_text (client, "|MDPC01|echo|x");
    hears (hangs, "|MDPW01|\2|TOKEN||x");
    void *other = worker_that_says ("|MDPW01|\1|echo");
    eventually (stat (broker, workers) == 2);
    assert_ok (zqb_broker_time_limit (broker, "echo", 1));
    hears (other, "|MDPW01|\2|TOKEN||x");
    hears (hangs, "|MDPW01|\5");
    assert_true (stat (broker, workers_lost) >= 1);
    assert_true (stat (broker, requeued) >= 1);
    zmq_close (hangs);
    zmq_close (other);
    zmq_close (client);
}

TEST (a_time_limit_that_was_taken_back_leaves_no_service_behind)
{
    for (int never = -1; never <= 0; never++) {
        assert_ok (zqb_broker_time_limit (broker, "echo", 1000));
        assert_int_equal (stat (broker, services), 1);
        assert_ok (zqb_broker_time_limit (broker, "echo", never));
        assert_int_equal (stat (broker, services), 0);
    }
}

TEST (a_time_limit_for_one_service_too_many_is_enospc)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.max_services = 1;
    zqb_broker_t *small = zqb_broker_new (ctx, &options);
    assert_ok (zqb_broker_time_limit (small, "echo", 1000));
    assert_fails (zqb_broker_time_limit (small, "other", 1000), ENOSPC);
    assert_ok (zqb_broker_time_limit (small, "echo", 2000));
    zqb_broker_destroy (&small);
}

/* ---- mmi */

TEST (mmi_service_says_whether_a_service_is_served)
{
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("mmi.service", "echo"), "404");
    void *worker = worker_that_says ("|MDPW01|\1|echo"), *client = dealer ();
    eventually (stat (broker, workers) == 1);
    assert_string_equal (call ("mmi.service", "echo"), "200");
    assert_string_equal (call ("mmi.service", "mmi.service"), "200");
    send_text (client, "|MDPC01|nobody|x");
    eventually (stat (broker, queued) == 1);
    assert_string_equal (call ("mmi.service", "nobody"), "404");
    send_text (client, "|MDPC01|mmi.service|echo");
    hears (client, "|MDPC01|mmi.service|200");
    zmq_close (worker);
    zmq_close (client);
}

TEST (mmi_service_without_a_name_is_400)
{
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("mmi.service", NULL), "400");
}

TEST (mmi_services_and_workers_list_what_there_is)
{
    assert_ok (zqb_broker_start (broker));
    void *worker = worker_that_says ("|MDPW01|READY|a name\\with \1");
    eventually (stat (broker, workers) == 1);
    assert_string_equal (call ("mmi.services", NULL),
                         "a\\x20name\\x5cwith\\x20\\x01 queued=0 running=0 workers=1 handler=0 oldest_ms=0 delayed=0 "
                         "pinned=0");
    const char *line = call ("mmi.workers", NULL);
    const char *start = "a\\x20name\\x5cwith\\x20\\x01 dialect=MDP/0.1-words load=0 credit=1 served=0 silent_ms=";
    assert_memory_equal (line, start, strlen (start));
    zmq_close (worker);
}

TEST (mmi_lists_end_with_dots_after_a_thousand)
{
    zqb_client_t *client = zqb_client_new (ctx, "inproc://broker", NULL);
    zqb_msg_t request, reply;
    char name[32];
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    for (int i = 0; i < 1200; i++) {
        snprintf (name, sizeof name, "service-%d", i);
        assert_ok (zqb_broker_handle (broker, name, echo, NULL));
    }
    assert_ok (zqb_broker_start (broker));
    zqb_msg_add_str (&request, "");
    assert_ok (zqb_client_call (client, "mmi.services", &request, &reply));
    assert_int_equal (zqb_msg_count (&reply), 1001);
    assert_frame (&reply, 1000, "...");
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
}

/* Counts replies, and their frames, in what a peer of ZQB/1 has heard. */
static void count_replies (void *peer, int *replies, size_t *frames)
{
    zqb__parcel_t scratch;
    zqb__incoming_t in;
    zqb__command_t command;
    zmq_msg_t message;
    memset (&scratch, 0, sizeof scratch);
    zmq_msg_init (&message);
    while (zmq_msg_recv (&message, peer, ZMQ_DONTWAIT) >= 0) {
        assert_ok (zqb__wire_open (&in, ZQB__FROM_BROKER, &message, 1, &scratch));
        while (zqb__wire_next (&in, &command) == 1)
            if (command.type == ZQB__REPLY) {
                ++*replies;
                *frames += command.body.frames;
            }
    }
    zmq_msg_close (&message);
    zqb__parcel_close (&scratch);
}

/* As many as fit into 64 KiB would keep the broker busy for a second. */
TEST (lists_that_one_message_asks_for_are_short_together)
{
    static const char mmi[] = "mmi.services";
    char name[32];
    int replies = 0;
    size_t frames = 0;
    zqb__parcel_t asks;
    zqb__command_t command = zqb__command (ZQB__REQUEST, 0);
    memset (&asks, 0, sizeof asks);
    for (int i = 0; i < 900; i++) {
        snprintf (name, sizeof name, "service-%d", i);
        assert_ok (zqb_broker_handle (broker, name, echo, NULL));
    }
    command.service = (const unsigned char *) mmi;
    command.service_size = sizeof mmi - 1;
    for (command.id = 1; command.id <= 10; command.id++)
        assert_ok (zqb__wire_pack (&asks, 1, &command));
    void *peer = connect_to ("inproc://broker", ZMQ_DEALER);
    assert_int_equal (zmq_send (peer, asks.bytes.bytes, asks.bytes.size, 0), (int) asks.bytes.size);
    zqb__parcel_close (&asks);
    while (replies < 10) {
        assert_true (zqb_broker_step (broker, 1) >= 0);
        count_replies (peer, &replies, &frames);
    }
    assert_int_equal (frames, 2000 + 8); /* and "..." in all but the first two */
    zmq_close (peer);
}

/* Workers behind a proxy share its socket, and are known by their addresses. */
TEST (the_list_of_workers_ends_with_dots_after_a_thousand_too)
{
    zqb_client_t *client = zqb_client_new (ctx, "inproc://broker", NULL);
    zqb_msg_t request, reply;
    char ready[64];
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    assert_ok (zqb_broker_start (broker));
    void *proxy = dealer ();
    for (int i = 0; i < 1001; i++) {
        snprintf (ready, sizeof ready, "worker-%d||MDPW01|\1|echo", i);
        send_text (proxy, ready);
    }
    eventually (stat (broker, workers) == 1001);
    assert_ok (zqb_client_call (client, "mmi.workers", &request, &reply));
    assert_int_equal (zqb_msg_count (&reply), 1001);
    assert_frame (&reply, 1000, "...");
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
    zmq_close (proxy);
}

TEST (mmi_stats_tells_every_counter)
{
    zqb_client_t *client = zqb_client_new (ctx, "inproc://broker", NULL);
    zqb_msg_t request, reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply);
    assert_ok (zqb_broker_start (broker));
    assert_ok (zqb_client_call (client, "mmi.stats", &request, &reply));
    assert_int_equal (zqb_msg_count (&reply), sizeof (zqb_stats_t) / sizeof (uint64_t));
    assert_frame (&reply, 0, "accepted=0"); /* the call itself is counted when it is over */
    zqb_msg_close (&reply);
    zqb_client_destroy (&client);
}

TEST (mmi_of_anything_else_is_501)
{
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("mmi.", "x"), "501");
    assert_string_equal (call ("mmi.servicex", "x"), "501");
    assert_string_equal (call ("mmi.status", NULL), "501");
}

/* ---- many at once */

enum { CALLS = 2000 };

static void call_many (void *arg)
{
    zqb_client_t *client = zqb_client_new (ctx, "inproc://broker", NULL);
    zqb_msg_t request;
    zqb_reply_t reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply.body);
    for (int i = 0; i < CALLS; i++) {
        zqb_msg_add_str (&request, "x");
        if (zqb_client_submit (client, "echo", &request, NULL) != 0)
            break;
    }
    for (int i = 0; i < CALLS; i++)
        if (zqb_client_recv (client, &reply, PATIENCE_MS) == 0 && reply.kind == ZQB_REPLY_FINAL)
            ++*(int *) arg;
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
}

TEST (other_threads_may_use_a_saturated_broker)
{
    int answered[2] = {0, 0};
    char name[32], buffer[64];
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    assert_ok (zqb_broker_start (broker));
    void *threads[2];
    for (int i = 0; i < 2; i++)
        threads[i] = zmq_threadstart (call_many, &answered[i]);
    for (int i = 0; i < 50; i++) {
        zqb_stats_t stats = unit_stats (broker);
        assert_true (unit_adds_up (&stats));
        snprintf (name, sizeof name, "handler-%d", i);
        assert_ok (zqb_broker_handle (broker, name, echo, NULL));
        snprintf (name, sizeof name, "inproc://bound-%d", i);
        assert_ok (zqb_broker_bind (broker, name));
        assert_ok (zqb_broker_endpoint (broker, -1, buffer, sizeof buffer));
        assert_string_equal (buffer, name);
    }
    for (int i = 0; i < 2; i++)
        zmq_threadclose (threads[i]);
    assert_int_equal (answered[0], CALLS);
    assert_int_equal (answered[1], CALLS);
    assert_int_equal (stat (broker, replied), 2 * CALLS);
}

TEST (a_broker_with_many_peers_of_all_kinds_may_be_destroyed)
{
    void *peers[400];
    assert_ok (zqb_broker_start (broker));
    for (int i = 0; i < 400; i++) {
        static const char *const texts[] = {"|MDPW01|\1|echo", "|MDPC01|other|x", "MDPC02|\1|more|x", "MDPW02|\1|most"};
        peers[i] = dealer ();
        send_text (peers[i], texts[i % 4]);
    }
    eventually (stat (broker, messages_in) == 400);
    assert_int_equal (stat (broker, workers), 200);
    assert_int_equal (stat (broker, queued), 200);
    zqb_broker_destroy (&broker);
    for (int i = 0; i < 400; i++) {
        if (i % 4 == 0)
            hears (peers[i], "|MDPW01|\5");
        if (i % 4 == 3)
            hears (peers[i], "MDPW02|\6");
        zmq_close (peers[i]);
    }
}

TEST (every_zqb1_client_of_a_broker_that_is_destroyed_is_told)
{
    enum { CLIENTS = 100 };
    zqb_client_t *clients[CLIENTS];
    zqb_msg_t request;
    zqb_reply_t reply;
    zqb_msg_init (&request);
    zqb_msg_init (&reply.body);
    assert_ok (zqb_broker_start (broker));
    for (int i = 0; i < CLIENTS; i++) {
        assert_non_null (clients[i] = zqb_client_new (ctx, "inproc://broker", NULL));
        assert_ok (zqb_client_submit (clients[i], "nobody", &request, NULL));
    }
    eventually (stat (broker, queued) == CLIENTS);
    zqb_broker_destroy (&broker);
    for (int i = 0; i < CLIENTS; i++) {
        assert_ok (zqb_client_recv (clients[i], &reply, PATIENCE_MS));
        assert_int_equal (reply.kind, ZQB_REPLY_ERROR);
        assert_int_equal (reply.error, ZQB_ECANCELLED);
        zqb_client_destroy (&clients[i]);
    }
    zqb_msg_close (&reply.body);
}

/* ---- what the host sees and says of requests and workers */

static int wants_numbers_only (zqb_request_t *request, zqb_request_options_t *options, zqb_msg_t *refusal, void *arg)
{
    zqb_msg_t *body = zqb_request_body (request);
    const char *text = (const char *) zqb_msg_data (body, 0);
    ++*(int *) arg;
    assert_string_equal (zqb_request_service (request, NULL), "echo");
    if (text[0] == 'u')
        options->priority = ZQB_PRIORITY_HIGHEST;
    if (text[0] == 'f')
        options->fail_fast = 1;
    if (text[0] != 'b')
        return 0;
    zqb_msg_add_str (refusal, "no ");
    zqb_msg_add_str (refusal, "second frames");
    return 7;
}

static const char *error_and (int error, const char *text)
{
    static char both[300];
    snprintf (both, sizeof both, "%s: %s", zqb_strerror (error), text);
    return both;
}

/* Replaces the broker by one with these options. */
static void broker_with (const zqb_broker_options_t *options)
{
    zqb_broker_destroy (&broker);
    broker = zqb_broker_new (ctx, options);
    eventually (zqb_broker_bind (broker, "inproc://broker") == 0);
    assert_ok (zqb_broker_start (broker));
}

TEST (a_filter_sees_each_request_before_it_is_queued_and_may_refuse_and_change_it)
{
    zqb_broker_options_t options;
    int seen = 0;
    memset (&options, 0, sizeof options);
    options.filter = wants_numbers_only;
    options.filter_arg = &seen;
    broker_with (&options);
    assert_string_equal (call ("echo", "bad"), error_and (ZQB_EREFUSED, "no "));
    assert_string_equal (call ("echo", "fast"), error_and (ZQB_ENOWORKER, ""));
    assert_int_equal (stat (broker, refused_filter), 1);
    void *client = dealer (), *worker = dealer ();
    send_text (client, "|MDPC01|echo|normal");
    send_text (client, "|MDPC01|echo|urgent");
    eventually (stat (broker, queued) == 2);
    send_text (worker, "|MDPW01|READY|echo");
    hears (worker, "|MDPW01|REQUEST|TOKEN||urgent");
    assert_string_equal (call ("mmi.service", "echo"), "200"); /* which it does not see */
    assert_int_equal (seen, 4);
    zmq_close (client);
    zmq_close (worker);
}

typedef struct outcomes_t {
    int errors[16];
    int count;
} outcomes_t;

static void keep_outcome (const zqb_outcome_t *outcome, void *arg)
{
    outcomes_t *outcomes = (outcomes_t *) arg;
    assert_int_equal (strlen (outcome->service), outcome->service_size);
    assert_true (outcome->took_us >= 0);
    outcomes->errors[outcomes->count++ % 16] = outcome->error;
}

TEST (a_host_sees_the_outcome_of_each_request)
{
    zqb_broker_options_t options;
    static outcomes_t outcomes;
    static char why[] = "why";
    memset (&options, 0, sizeof options);
    options.outcome = keep_outcome;
    options.outcome_arg = &outcomes;
    broker_with (&options);
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    assert_ok (zqb_broker_handle (broker, "fail", fail_with_text, why));
    assert_string_equal (call ("echo", "x"), "x");
    call ("fail", "x");
    void *client = dealer ();
    send_text (client, "|MDPC01|nobody|x");
    eventually (stat (broker, queued) == 1);
    zmq_close (client);
    zqb_broker_destroy (&broker);
    assert_int_equal (outcomes.count, 3);
    assert_int_equal (outcomes.errors[0], 0);
    assert_int_equal (outcomes.errors[1], ZQB_EFAILED);
    assert_int_equal (outcomes.errors[2], ZQB_ECANCELLED);
}

/* The number by which a worker is known, from a line of mmi.workers. */
static uint64_t id_in (const char *line)
{
    const char *at = strstr (line, " id=");
    assert_non_null (at);
    return strtoull (at + 4, NULL, 10);
}

TEST (a_worker_that_the_host_drains_finishes_what_it_holds_and_leaves)
{
    assert_ok (zqb_broker_start (broker));
    void *client = dealer (), *worker = dealer ();
    send_text (worker, "|MDPW01|READY|echo");
    eventually (stat (broker, workers) == 1);
    send_text (client, "|MDPC01|echo|first");
    hears (worker, "|MDPW01|REQUEST|TOKEN||first");
    uint64_t id = id_in (call ("mmi.workers", NULL));
    assert_fails (zqb_broker_drain (broker, "echo", id + 1), ENOENT);
    assert_ok (zqb_broker_drain (broker, "echo", id));
    assert_non_null (strstr (call ("mmi.workers", NULL), " draining=1"));
    send_text (client, "|MDPC01|echo|second");
    send_with_token (worker, "|MDPW01|REPLY|", "|done");
    hears (client, "|MDPC01|echo|done");
    hears (worker, "|MDPW01|DISCONNECT");
    eventually (stat (broker, queued) == 1);
    assert_int_equal (stat (broker, workers_left), 1);
    assert_fails (zqb_broker_drain (broker, "echo", 0), ENOENT);
    zmq_close (client);
    zmq_close (worker);
}

static size_t choose_last (const zqb_worker_info_t *workers, size_t count, void *arg)
{
    ++*(int *) arg;
    assert_true (workers[0].id < workers[count - 1].id);
    assert_int_equal (workers[0].credit, 1);
    return count - 1;
}

TEST (a_host_may_choose_the_worker)
{
    int asked = 0;
    assert_ok (zqb_broker_policy (broker, "echo", ZQB_POLICY_CUSTOM, choose_last, &asked));
    assert_ok (zqb_broker_start (broker));
    void *client = dealer (), *first = dealer (), *second = dealer ();
    send_text (first, "|MDPW01|READY|echo");
    eventually (stat (broker, workers) == 1);
    send_text (second, "|MDPW01|READY|echo");
    eventually (stat (broker, workers) == 2);
    send_text (client, "|MDPC01|echo|x");
    hears (second, "|MDPW01|REQUEST|TOKEN||x");
    assert_int_equal (asked, 1);
    assert_ok (zqb_broker_policy (broker, "echo", ZQB_POLICY_LRU, NULL, NULL));
    zmq_close (client);
    zmq_close (first);
    zmq_close (second);
}

TEST (mistakes_about_policies_and_draining_are_einval)
{
    assert_fails (zqb_broker_policy (NULL, "echo", ZQB_POLICY_LRU, NULL, NULL), EINVAL);
    assert_fails (zqb_broker_policy (broker, NULL, ZQB_POLICY_LRU, NULL, NULL), EINVAL);
    assert_fails (zqb_broker_policy (broker, "mmi.x", ZQB_POLICY_LRU, NULL, NULL), EINVAL);
    assert_fails (zqb_broker_policy (broker, "echo", -1, NULL, NULL), EINVAL);
    assert_fails (zqb_broker_policy (broker, "echo", 5, NULL, NULL), EINVAL);
    assert_fails (zqb_broker_policy (broker, "echo", ZQB_POLICY_CUSTOM, NULL, NULL), EINVAL);
    assert_fails (zqb_broker_drain (NULL, "echo", 0), EINVAL);
    assert_fails (zqb_broker_drain (broker, NULL, 0), EINVAL);
    assert_fails (zqb_broker_drain (broker, "mmi.x", 0), EINVAL);
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.ageing_ms = -2;
    assert_none (zqb_broker_new (ctx, &options), EINVAL);
    assert_int_equal (stat (broker, services), 0);
}

TEST (mmi_services_lists_one_service_if_it_is_named)
{
    assert_ok (zqb_broker_handle (broker, "one", echo, NULL));
    assert_ok (zqb_broker_handle (broker, "two", echo, NULL));
    assert_ok (zqb_broker_start (broker));
    assert_string_equal (call ("mmi.services", "two"),
                         "two queued=0 running=0 workers=0 handler=1 oldest_ms=0 delayed=0 pinned=0");
    assert_string_equal (call ("mmi.services", "three"), "");
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        FRESH (a_mistake_of_the_caller_is_einval_and_changes_nothing),
        FRESH (a_number_of_the_options_below_minus_one_is_einval),
        FRESH (destroying_nothing_is_fine_and_leaves_null),
        FRESH (a_broker_cannot_be_made_in_a_context_that_has_ended),
        FRESH (a_broker_cannot_be_made_without_sockets),
        FRESH (a_broker_cannot_be_made_without_descriptors),
        FRESH (an_endpoint_that_cannot_be_bound_says_why),
        FRESH (an_endpoint_in_use_by_another_is_eaddrinuse),
        FRESH (endpoints_are_told_in_the_order_of_binding_and_back_from_the_last),
        FRESH (a_buffer_too_small_for_an_endpoint_is_einval),
        FRESH (an_endpoint_of_inproc_may_be_as_long_as_one_likes),
        FRESH (when_one_end_of_an_lru_service_cannot_be_bound_neither_is),
        FRESH (endpoints_may_be_bound_while_it_runs),
        FRESH (a_broker_that_runs_already_is_not_run_again),
        FRESH (a_broker_may_be_destroyed_whether_or_not_it_was_ever_bound_or_run),
        FRESH (run_serves_in_its_thread_until_it_is_stopped_by_another),
        FRESH (a_stop_that_comes_before_run_ends_it_at_once),
        FRESH (a_broker_that_was_stopped_may_be_started_again_and_has_kept_its_requests),
        FRESH (after_start_and_stop_it_may_be_stepped_or_run),
        FRESH (a_host_with_a_loop_of_its_own_steps_when_the_descriptor_says_so),
        FRESH (the_descriptor_stays_the_same_and_knows_of_endpoints_bound_later),
        FRESH (a_descriptor_that_cannot_be_had_may_be_had_later),
        FRESH (endpoints_of_inproc_share_a_socket_and_all_others_another),
        FRESH (step_waits_for_what_comes_and_says_when_it_wants_to_be_called_again),
        FRESH (a_step_that_waits_for_ever_is_ended_by_stop),
        FRESH (a_run_that_waits_ends_with_the_context),
        FRESH (a_started_broker_may_be_destroyed_after_the_context_ended),
        FRESH (several_brokers_live_in_one_context),
        FRESH (tcp_ipc_and_inproc_serve_alike),
        FRESH (a_worker_over_inproc_whose_socket_is_closed_gives_its_request_to_another),
        FRESH (every_dialect_of_majordomo_is_answered_in_kind),
        FRESH (lru_and_ppp_workers_serve_any_client_of_their_service),
        FRESH (a_client_behind_a_proxy_gets_its_own_answer),
        FRESH (malformed_messages_are_counted_by_kind_and_others_are_served),
        FRESH (an_address_that_is_too_long_is_refused),
        FRESH (a_name_of_256_bytes_is_refused_one_of_255_not),
        FRESH (too_many_frames_are_refused_without_being_kept),
        FRESH (a_reply_of_a_worker_that_does_not_hold_the_request_is_stale),
        FRESH (what_is_malformed_is_logged_if_asked),
        FRESH (a_handler_serves_in_the_brokers_own_thread),
        FRESH (a_handler_that_fails_says_why),
        FRESH (a_handler_may_reply_in_parts_which_leave_together),
        FRESH (a_handler_may_ask_its_broker_but_not_change_handlers),
        FRESH (a_request_that_is_given_up_goes_to_the_host_as_a_dead_letter),
        FRESH (requests_that_waited_when_a_handler_came_are_answered),
        FRESH (a_handler_replaces_the_one_before_and_null_removes_it),
        FRESH (a_handler_is_not_for_a_name_that_workers_serve),
        FRESH (the_host_may_serve_mmi_names_of_its_own),
        FRESH (mmi_service_says_whether_a_service_is_served),
        FRESH (a_broker_without_any_limit_serves),
        FRESH (a_worker_that_hangs_loses_its_request_to_another),
        FRESH (a_time_limit_that_was_taken_back_leaves_no_service_behind),
        FRESH (a_time_limit_for_one_service_too_many_is_enospc),
        FRESH (mmi_service_without_a_name_is_400),
        FRESH (mmi_services_and_workers_list_what_there_is),
        FRESH (lists_that_one_message_asks_for_are_short_together),
        FRESH (mmi_lists_end_with_dots_after_a_thousand),
        FRESH (the_list_of_workers_ends_with_dots_after_a_thousand_too),
        FRESH (mmi_stats_tells_every_counter),
        FRESH (mmi_of_anything_else_is_501),
        FRESH (other_threads_may_use_a_saturated_broker),
        FRESH (a_broker_with_many_peers_of_all_kinds_may_be_destroyed),
        FRESH (every_zqb1_client_of_a_broker_that_is_destroyed_is_told),
        FRESH (a_filter_sees_each_request_before_it_is_queued_and_may_refuse_and_change_it),
        FRESH (a_host_sees_the_outcome_of_each_request),
        FRESH (a_worker_that_the_host_drains_finishes_what_it_holds_and_leaves),
        FRESH (a_host_may_choose_the_worker),
        FRESH (mistakes_about_policies_and_draining_are_einval),
        FRESH (mmi_services_lists_one_service_if_it_is_named),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
