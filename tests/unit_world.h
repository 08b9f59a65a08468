/* A context and a broker that runs, for the tests of workers, clients and pools. Included behind unit.h. */
#ifndef UNIT_WORLD_H_INCLUDED
#define UNIT_WORLD_H_INCLUDED

#define ENDPOINT "inproc://broker"

static void *ctx;
static zqb_broker_t *broker;

static zqb_broker_t *start_broker (const char *endpoint, const zqb_broker_options_t *options)
{
    zqb_broker_t *other = zqb_broker_new (ctx, options);
    if (!other || zqb_broker_bind (other, endpoint) != 0 || zqb_broker_start (other) != 0)
        zqb_broker_destroy (&other);
    return other;
}

UNUSED static int set_up (UNUSED void **state)
{
    ctx = zmq_ctx_new ();
    broker = start_broker (ENDPOINT, NULL);
    return broker ? 0 : -1;
}

enum { IPC_MOST = 200 };
static char ipc_endpoints[IPC_MOST][64];
static size_t ipc_count;

/* An endpoint of ipc that nobody else has; its file goes at the end of the test, as libzmq leaves it behind. */
UNUSED static const char *new_ipc (void)
{
    char *endpoint = ipc_endpoints[ipc_count++ % IPC_MOST];
    snprintf (endpoint, sizeof ipc_endpoints[0], "ipc:///tmp/zqbroker-unit-%016llx", (unsigned long long) zqb__random ());
    return endpoint;
}

UNUSED static int tear_down (UNUSED void **state)
{
    zqb_broker_destroy (&broker);
    int failed = zmq_ctx_term (ctx);
    for (; ipc_count; ipc_count--)
        unlink (ipc_endpoints[(ipc_count - 1) % IPC_MOST] + strlen ("ipc://"));
    return failed;
}

/* Replaces the broker by one with these options. */
UNUSED static void broker_with (const zqb_broker_options_t *options)
{
    zqb_broker_destroy (&broker);
    eventually ((broker = start_broker (ENDPOINT, options)) != NULL); /* libzmq frees the name behind our back */
}

/* Whether a thread gets done by itself; if it hangs, the end of the context frees it. */
UNUSED static int gets_done (zqb__flag_t *done)
{
    for (int i = 0; i < PATIENCE_MS && !zqb__flag_get (done); i++)
        zmq_poll (NULL, 0, 1);
    if (zqb__flag_get (done))
        return 1;
    zmq_ctx_shutdown (ctx);
    return 0;
}

UNUSED static zqb_worker_t *new_worker (int dialect, int credit)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.credit = credit;
    zqb_worker_t *worker = zqb_worker_new (ctx, ENDPOINT, "echo", &options);
    assert_non_null (worker);
    return worker;
}

UNUSED static zqb_client_t *new_client (int dialect, int timeout_ms, int retries)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.timeout_ms = timeout_ms ? timeout_ms : PATIENCE_MS;
    options.retries = retries;
    zqb_client_t *client = zqb_client_new (ctx, ENDPOINT, &options);
    assert_non_null (client);
    return client;
}

/* Submits one frame of text; returns its number. */
UNUSED static uint64_t submit (zqb_client_t *client, const char *service, const char *text)
{
    zqb_msg_t msg;
    uint64_t id = 0;
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, text);
    assert_ok (zqb_client_submit (client, service, &msg, &id));
    assert_int_equal (zqb_msg_count (&msg), 0);
    assert_true (id != 0);
    assert_ok (zqb_client_flush (client));
    return id;
}

#define assert_error(given, expected) assert_string_equal (zqb_strerror (given), zqb_strerror (expected))

/* 0, or why a call of a service with "x" failed; in reply what came of it, to be closed. */
UNUSED static int call_with_x (zqb_client_t *client, const char *service, zqb_msg_t *reply)
{
    zqb_msg_t request;
    zqb_msg_init (&request);
    zqb_msg_init (reply);
    zqb_msg_add_str (&request, "x");
    int error = zqb_client_call (client, service, &request, reply) == 0 ? 0 : errno;
    zqb_msg_close (&request);
    return error;
}

/* The next that a client receives is of this kind and about this number. With errors, text may be NULL. */
UNUSED static void receives (zqb_client_t *client, uint64_t id, int kind, const char *text)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_int_equal (reply.kind, kind);
    assert_true (reply.id == id);
    if (text)
        assert_frame (&reply.body, 0, text);
    zqb_msg_close (&reply.body);
}

UNUSED static void receives_error (zqb_client_t *client, uint64_t id, int error)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_int_equal (reply.kind, ZQB_REPLY_ERROR);
    assert_true (reply.id == id);
    assert_string_equal (zqb_strerror (reply.error), zqb_strerror (error));
    zqb_msg_close (&reply.body);
}

/* The next request of a worker, which has this text. */
UNUSED static zqb_request_t *is_asked (zqb_worker_t *worker, const char *text)
{
    zqb_request_t *request = zqb_worker_recv (worker, PATIENCE_MS);
    assert_non_null (request);
    assert_frame (zqb_request_body (request), 0, text);
    return request;
}

UNUSED static int reply_text (zqb_request_t *request, const char *text)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, text);
    int failed = zqb_request_reply (request, &msg), error = errno;
    zqb_msg_close (&msg);
    errno = error;
    return failed;
}

UNUSED static int partial_text (zqb_request_t *request, const char *text)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, text);
    int failed = zqb_request_partial (request, &msg), error = errno;
    zqb_msg_close (&msg);
    errno = error;
    return failed;
}

UNUSED static int echo (zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    return zqb_msg_move (reply, zqb_request_body (request));
}

/* Frames of a message from a raw socket as text, bars between them, other bytes as \xHH. */
UNUSED static const char *hear_text (void *socket, int skip)
{
    static char text[1000];
    size_t used = 0;
    text[0] = 0;
    for (int more = 1, n = 0; more; n++) {
        zmq_msg_t frame;
        zmq_msg_init (&frame);
        assert_true (zmq_msg_recv (&frame, socket, 0) >= 0);
        more = zmq_msg_more (&frame);
        if (n >= skip) {
            used += (size_t) snprintf (text + used, sizeof text - used, n > skip ? "|" : "");
            for (size_t i = 0; i < zmq_msg_size (&frame); i++) {
                unsigned char byte = ((unsigned char *) zmq_msg_data (&frame))[i];
                const char *format = byte > 31 && byte < 127 ? "%c" : "\\x%02x";
                used += (size_t) snprintf (text + used, sizeof text - used, format, byte);
            }
        }
        zmq_msg_close (&frame);
    }
    return text;
}

#endif
