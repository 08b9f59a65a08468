/* Mechanisms: who has which key or password over tcp and ipc, what becomes of those who have not, key files, and that
   secrets are wiped. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Memory that is looked at when it is given back: does it still hold what nobody is to find? */
static const void *unit_secret;
static size_t unit_secret_size;
static long unit_leaks, unit_given_back;
static pthread_mutex_t unit_lock = PTHREAD_MUTEX_INITIALIZER; /* of these, as all threads give memory back */

static void *unit_malloc (size_t size)
{
    size_t *memory = (size_t *) malloc (sizeof (size_t) * 2 + size);
    if (!memory)
        return NULL;
    memset (memory + 2, 0xa5, size); /* what libzmq left there is not our copy */
    memory[0] = size;
    return memory + 2;
}

static int unit_holds (const void *memory, size_t size, const void *text, size_t text_size)
{
    for (size_t i = 0; i + text_size <= size; i++)
        if (memcmp ((const char *) memory + i, text, text_size) == 0)
            return 1;
    return 0;
}

static void unit_look (const void *memory, size_t size)
{
    pthread_mutex_lock (&unit_lock);
    unit_leaks += unit_secret && unit_holds (memory, size, unit_secret, unit_secret_size);
    unit_given_back++;
    pthread_mutex_unlock (&unit_lock);
}

/* From now on that is looked for, or nothing. */
static void unit_look_for (const void *secret, size_t size)
{
    pthread_mutex_lock (&unit_lock);
    unit_secret = secret;
    unit_secret_size = size;
    unit_leaks = 0;
    pthread_mutex_unlock (&unit_lock);
}

static long unit_found (void)
{
    pthread_mutex_lock (&unit_lock);
    long leaks = unit_leaks;
    pthread_mutex_unlock (&unit_lock);
    return leaks;
}

static void unit_free (void *memory)
{
    if (!memory)
        return;
    unit_look (memory, ((size_t *) memory)[-2]);
    free ((size_t *) memory - 2);
}

static void *unit_realloc (void *old, size_t size)
{
    void *memory = unit_malloc (size);
    if (memory && old)
        memcpy (memory, old, ((size_t *) old)[-2] < size ? ((size_t *) old)[-2] : size);
    if (memory)
        unit_free (old);
    return memory;
}

#define ZQB_MALLOC(size) unit_malloc (size)
#define ZQB_REALLOC(pointer, size) unit_realloc (pointer, size)
#define ZQB_FREE(pointer) unit_free (pointer)

#include <zmq.h>

static int unit_no_curve; /* as if libzmq had been built without it */

static int unit_has (const char *capability)
{
    return unit_no_curve && strcmp (capability, "curve") == 0 ? 0 : zmq_has (capability);
}

#define zmq_has(capability) unit_has (capability)

static int unit_refused_option = -1; /* as if libzmq were too old for it */

static int unit_setsockopt (void *socket, int option, const void *value, size_t size)
{
    if (option == unit_refused_option) {
        errno = EINVAL;
        return -1;
    }
    return zmq_setsockopt (socket, option, value, size);
}

#define zmq_setsockopt(socket, option, value, size) unit_setsockopt (socket, option, value, size)

#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"
#include <fcntl.h>

/* ---- keys: the broker's, two users', and files with them */

typedef struct pair_t {
    char public_key[41], secret_key[41];
} pair_t;

static pair_t server, alice, eve;
static char place[64]; /* the folder of this test */

static const char *file (const char *name)
{
    static char paths[8][128];
    static int next;
    char *path = paths[next++ % 8];
    snprintf (path, sizeof paths[0], "file:%s/%s", place, name);
    return path;
}

static const char *written (const char *name, mode_t mode, const char *text)
{
    const char *given = file (name);
    int out = open (given + 5, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true (out >= 0);
    assert_int_equal (write (out, text, strlen (text)), (ssize_t) strlen (text));
    assert_ok (fchmod (out, mode));
    close (out);
    return given;
}

static const char *certificate (const char *name, mode_t mode, const pair_t *pair)
{
    char text[256];
    snprintf (text, sizeof text,
              "# one of CZMQ's\r\nmetadata\n  name = \"x\"\ncurve\n    public-key = \"%s\"\n    secret-key = \"%s\"\n",
              pair->public_key, pair->secret_key);
    return written (name, mode, text);
}

static char endpoint[256];

/* Replaces the broker by one that binds tcp, and serves "echo" itself. */
static void broker_over (const char *where, const zqb_broker_options_t *options)
{
    zqb_broker_destroy (&broker);
    broker = zqb_broker_new (ctx, options);
    assert_non_null (broker);
    assert_ok (zqb_broker_bind (broker, where));
    assert_ok (zqb_broker_endpoint (broker, -1, endpoint, sizeof endpoint));
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    assert_ok (zqb_broker_start (broker));
}

static void broker_with_curve (const char *where)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.server_secret = server.secret_key;
    broker_over (where, &options);
}

static int fresh (void **state)
{
    strcpy (place, "/tmp/zqbroker-unit-XXXXXX");
    ctx = zmq_ctx_new ();
    unit_no_curve = 0;
    unit_refused_option = -1;
    unit_look_for (NULL, 0);
    return mkdtemp (place) && zqb_curve_keypair (server.public_key, server.secret_key) == 0
                   && zqb_curve_keypair (alice.public_key, alice.secret_key) == 0
                   && zqb_curve_keypair (eve.public_key, eve.secret_key) == 0
             ? (void) state, 0
             : -1;
}

static void stop_zap (void);

static int clean (void **state)
{
    static const char *const names[] = {"s", "p", "x", "fifo"};
    stop_zap ();
    for (size_t i = 0; i < COUNT (names); i++)
        unlink (file (names[i]) + 5);
    rmdir (place);
    return tear_down (state);
}

#define SECURE(name) cmocka_unit_test_setup_teardown (name, fresh, clean)

/* ---- who calls */

static zqb_client_t *client_of (const char *endpoints, const zqb_client_options_t *options)
{
    zqb_client_t *client = zqb_client_new (ctx, endpoints, options);
    assert_non_null (client);
    return client;
}

/* 0 or the error of a call of "echo". */
static int call_of (zqb_client_t *client, const char *service)
{
    zqb_msg_t reply;
    int error = call_with_x (client, service, &reply);
    if (!error)
        assert_frame (&reply, 0, "x");
    zqb_msg_close (&reply);
    return error;
}

static int call_with (const zqb_client_options_t *options, const char *service)
{
    zqb_client_t *client = client_of (endpoint, options);
    int error = call_of (client, service);
    zqb_client_destroy (&client);
    return error;
}

static zqb_client_options_t curve_client (const pair_t *pair, const char *server_public)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.timeout_ms = PATIENCE_MS;
    options.retries = -1;
    options.server_public = server_public;
    options.public_key = pair ? pair->public_key : NULL;
    options.secret_key = pair ? pair->secret_key : NULL;
    return options;
}

static zqb_client_options_t plain_client (const char *user, const char *password)
{
    zqb_client_options_t options = curve_client (NULL, NULL);
    options.user = user;
    options.password = password;
    return options;
}

/* ---- a ZAP handler as small as can be: one key, one user */

static void *zap_socket, *zap_thread;
static char zap_domain[256], zap_mechanism[64];
static const char *zap_key; /* whose is allowed */
static pthread_mutex_t zap_lock = PTHREAD_MUTEX_INITIALIZER; /* of the domain and the mechanism */

static int zap_allows (char frames[][256], int count)
{
    unsigned char key[32];
    if (strcmp (frames[5], "NULL") == 0)
        return 0;
    if (strcmp (frames[5], "PLAIN") == 0)
        return count == 8 && strcmp (frames[6], "alice") == 0 && strcmp (frames[7], "wonder land") == 0;
    zmq_z85_decode (key, __atomic_load_n (&zap_key, __ATOMIC_SEQ_CST));
    return memcmp (frames[6], key, sizeof key) == 0;
}

static int zap_hear (char frames[12][256])
{
    int count = 0, more = 1;
    for (size_t size = sizeof more; more; count++) {
        int got = zmq_recv (zap_socket, frames[count], 255, 0);
        if (got < 0)
            return -1;
        frames[count][got] = 0;
        zmq_getsockopt (zap_socket, ZMQ_RCVMORE, &more, &size);
    }
    return count;
}

static void zap_run (UNUSED void *arg)
{
    char frames[12][256];
    for (int count; (count = zap_hear (frames)) > 0;) {
        const char *answer[] = {"1.0", frames[1], zap_allows (frames, count) ? "200" : "400", "", "alice", ""};
        pthread_mutex_lock (&zap_lock);
        strcpy (zap_domain, frames[2]);
        strcpy (zap_mechanism, frames[5]);
        pthread_mutex_unlock (&zap_lock);
        for (int i = 0; i < 6; i++)
            zmq_send (zap_socket, answer[i], strlen (answer[i]), i < 5 ? ZMQ_SNDMORE : 0);
    }
    zmq_close (zap_socket);
}

static void start_zap (void)
{
    zap_socket = zmq_socket (ctx, ZMQ_REP);
    zap_key = alice.public_key;
    assert_ok (zmq_bind (zap_socket, "inproc://zeromq.zap.01"));
    zap_thread = zmq_threadstart (zap_run, NULL);
}

static void assert_zap_asked (const char *domain, const char *mechanism)
{
    pthread_mutex_lock (&zap_lock);
    int same = strcmp (zap_domain, domain) == 0 && strcmp (zap_mechanism, mechanism) == 0;
    pthread_mutex_unlock (&zap_lock);
    assert_true (same);
}

/* It ends with the context. */
static void stop_zap (void)
{
    if (!zap_thread)
        return;
    zmq_ctx_shutdown (ctx);
    zmq_threadclose (zap_thread);
    zap_thread = NULL;
}

/* ---- CURVE */

static void curve_works_over (const char *where)
{
    broker_with_curve (where);
    zqb_client_options_t options = curve_client (&alice, server.public_key);
    assert_error (call_with (&options, "echo"), 0);
    options = curve_client (NULL, server.public_key); /* a pair of this moment */
    assert_error (call_with (&options, "echo"), 0);
    options.secret_key = alice.secret_key; /* the public key is the one that belongs to it */
    assert_error (call_with (&options, "echo"), 0);
}

TEST (with_the_right_keys_a_client_is_answered_over_tcp_and_ipc)
{
    curve_works_over ("tcp://127.0.0.1:*");
    curve_works_over (new_ipc ());
}

TEST (what_is_said_is_not_on_the_network_as_it_is)
{
    char heard[4096];
    int relayed = 0;
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_client_options_t options = curve_client (&alice, server.public_key);
    void *in = zmq_socket (ctx, ZMQ_STREAM), *out = zmq_socket (ctx, ZMQ_STREAM);
    int none = 0;
    char to[256], id_in[256], id_out[256];
    size_t size = sizeof to, in_size = 0, out_size = sizeof id_out;
    zmq_setsockopt (in, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt (out, ZMQ_LINGER, &none, sizeof none);
    assert_ok (zmq_bind (in, "tcp://127.0.0.1:*"));
    assert_ok (zmq_getsockopt (in, ZMQ_LAST_ENDPOINT, to, &size));
    assert_ok (zmq_connect (out, endpoint));
    assert_ok (zmq_getsockopt (out, ZMQ_ROUTING_ID, id_out, &out_size));
    zqb_client_t *client = client_of (to, &options);
    uint64_t id = submit (client, "echo", "a sentence that nobody else may read");
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    while (zqb_client_recv (client, &reply, 5) != 0) { /* a relay that listens */
        assert_int_equal (errno, EAGAIN);
        for (int side = 0; side < 2; side++) {
            void *from = side ? out : in;
            char sender[256];
            int got = zmq_recv (from, sender, sizeof sender, ZMQ_DONTWAIT), bytes;
            if (got < 0)
                continue;
            bytes = zmq_recv (from, heard, sizeof heard, 0);
            assert_true (bytes >= 0 && bytes <= (int) sizeof heard);
            if (!side) {
                memcpy (id_in, sender, (size_t) got);
                in_size = (size_t) got;
            }
            assert_false (unit_holds (heard, (size_t) bytes, "sentence", strlen ("sentence")));
            if (!bytes || !in_size)
                continue;
            relayed++;
            zmq_send (side ? in : out, side ? id_in : id_out, side ? in_size : out_size, ZMQ_SNDMORE);
            zmq_send (side ? in : out, heard, (size_t) bytes, 0);
        }
    }
    assert_true (reply.id == id && relayed > 6);
    assert_frame (&reply.body, 0, "a sentence that nobody else may read");
    zqb_msg_close (&reply.body);
    zqb_client_destroy (&client);
    zmq_close (in);
    zmq_close (out);
}

TEST (a_client_without_keys_or_with_another_mechanism_hears_so_at_once)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_client_options_t options = curve_client (NULL, NULL);
    assert_error (call_with (&options, "echo"), EPROTO);
    options = plain_client ("alice", "wonder land");
    assert_error (call_with (&options, "echo"), EPROTO);
    options = curve_client (NULL, NULL);
    options.dialect = ZQB_DIALECT_MDP02;
    assert_error (call_with (&options, "echo"), EPROTO);
    assert_int_equal (stat (broker, accepted), 0);
}

TEST (a_client_with_keys_hears_at_once_that_the_broker_has_none)
{
    broker_over ("tcp://127.0.0.1:*", NULL);
    zqb_client_options_t options = curve_client (&alice, server.public_key);
    assert_error (call_with (&options, "echo"), EPROTO);
    assert_int_equal (stat (broker, accepted), 0);
}

TEST (a_wrong_key_of_the_broker_is_a_broker_that_is_away)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_client_options_t options = curve_client (&alice, eve.public_key);
    options.timeout_ms = 100;
    options.retries = 1;
    assert_error (call_with (&options, "echo"), ETIMEDOUT);
    assert_int_equal (stat (broker, accepted), 0);
}

TEST (whose_key_the_handler_does_not_know_is_refused_at_once_and_may_ask_again)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    start_zap ();
    zqb_client_options_t options = curve_client (&alice, server.public_key);
    assert_error (call_with (&options, "echo"), 0);
    assert_zap_asked ("zqbroker", "CURVE");
    options = curve_client (&eve, server.public_key);
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        options.dialect = dialect;
        zqb_client_t *client = client_of (endpoint, &options);
        assert_error (call_of (client, "echo"), EACCES);
        assert_error (call_of (client, "echo"), EACCES);
        __atomic_store_n (&zap_key, eve.public_key, __ATOMIC_SEQ_CST);
        assert_error (call_of (client, "echo"), 0);
        __atomic_store_n (&zap_key, alice.public_key, __ATOMIC_SEQ_CST);
        zqb_client_destroy (&client);
    }
}

TEST (all_that_is_outstanding_ends_when_the_broker_refuses_us)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    start_zap ();
    zqb_client_options_t options = curve_client (&eve, server.public_key);
    options.retries = 5;
    zqb_client_t *client = client_of (endpoint, &options);
    uint64_t first = submit (client, "echo", "a"), second = submit (client, "echo", "b");
    receives_error (client, first, EACCES);
    receives_error (client, second, EACCES);
    zqb_client_destroy (&client);
    assert_int_equal (stat (broker, accepted), 0);
}

TEST (a_client_that_one_broker_refuses_turns_to_the_next)
{
    char both[600];
    broker_over ("tcp://127.0.0.1:*", NULL);
    zqb_broker_options_t of_other;
    memset (&of_other, 0, sizeof of_other);
    of_other.server_secret = server.secret_key;
    zqb_broker_t *other = start_broker ("tcp://127.0.0.1:*", &of_other);
    assert_non_null (other);
    assert_ok (zqb_broker_handle (other, "echo", echo, NULL));
    char there[256];
    assert_ok (zqb_broker_endpoint (other, 0, there, sizeof there));
    snprintf (both, sizeof both, "%s,%s", endpoint, there);
    zqb_client_options_t options = curve_client (&alice, server.public_key);
    zqb_client_t *client = client_of (both, &options);
    assert_error (call_of (client, "echo"), 0);
    zqb_client_destroy (&client);
    options = curve_client (NULL, NULL);
    snprintf (both, sizeof both, "%s,%s", there, endpoint);
    client = client_of (both, &options);
    assert_error (call_of (client, "echo"), 0);
    zqb_client_destroy (&client);
    zqb_broker_destroy (&other);
}

/* ---- workers */

static char said[512];
static zqb__flag_t has_said;

static void remember (UNUSED int level, const char *text, UNUSED void *arg)
{
    if (zqb__flag_get (&has_said))
        return;
    snprintf (said, sizeof said, "%s", text);
    zqb__flag_set (&has_said);
}

static zqb_worker_options_t curve_worker (const pair_t *pair, const char *server_public)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.server_public = server_public;
    options.public_key = pair ? pair->public_key : NULL;
    options.secret_key = pair ? pair->secret_key : NULL;
    options.log = remember;
    zqb__flag_clear (&has_said);
    said[0] = 0;
    return options;
}

/* What a worker that cannot get in says about it. */
static const char *what_is_said (const zqb_worker_options_t *options)
{
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "work", options);
    assert_non_null (worker);
    eventually (!zqb_worker_recv (worker, 10) && zqb__flag_get (&has_said));
    assert_int_equal (stat (broker, workers), 0);
    zqb_worker_destroy (&worker);
    return said;
}

TEST (a_worker_with_the_right_keys_serves_clients_with_theirs_in_every_dialect)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    start_zap ();
    for (int dialect = ZQB_DIALECT_ZQB1; dialect <= ZQB_DIALECT_MDP02; dialect++) {
        zqb_pool_options_t pool_options;
        memset (&pool_options, 0, sizeof pool_options);
        pool_options.threads = 1;
        pool_options.worker = curve_worker (&alice, server.public_key);
        pool_options.worker.dialect = dialect;
        zqb_pool_t *pool = zqb_pool_start (ctx, endpoint, "work", echo, NULL, &pool_options);
        assert_non_null (pool);
        zqb_client_options_t options = curve_client (&alice, server.public_key);
        options.dialect = dialect;
        assert_error (call_with (&options, "work"), 0);
        zqb_pool_stop (&pool);
    }
}

TEST (a_worker_says_why_it_cannot_get_in)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_worker_options_t options = curve_worker (NULL, NULL);
    assert_non_null (strstr (what_is_said (&options), "another security mechanism"));
    options = curve_worker (&alice, eve.public_key);
    options.heartbeat_ms = 100;
    assert_non_null (strstr (what_is_said (&options), "is the broker's key another"));
    start_zap ();
    options = curve_worker (&eve, server.public_key);
    assert_non_null (strstr (what_is_said (&options), "refuses our key or password"));
}

TEST (an_elastic_pool_has_keys_for_all_that_it_does)
{
    char public_key[41], secret_key[41], server_public[41];
    broker_with_curve ("tcp://127.0.0.1:*");
    start_zap ();
    strcpy (public_key, alice.public_key);
    strcpy (secret_key, alice.secret_key);
    strcpy (server_public, server.public_key);
    zqb_pool_options_t pool_options;
    memset (&pool_options, 0, sizeof pool_options);
    pool_options.scale.max = 2;
    pool_options.worker = curve_worker (NULL, server_public);
    pool_options.worker.public_key = public_key;
    pool_options.worker.secret_key = secret_key;
    zqb_pool_t *pool = zqb_pool_start (ctx, endpoint, "work", echo, NULL, &pool_options);
    assert_non_null (pool);
    memset (public_key, 'x', 40); /* the caller's memory is not needed any more */
    memset (secret_key, 'x', 40);
    memset (server_public, 'x', 40);
    assert_ok (zqb_pool_resize (pool, 2, 2));
    eventually (stat (broker, workers) == 2);
    assert_ok (zqb_pool_resize (pool, 1, 2));
    eventually (stat (broker, accepted) > 0); /* the pool's question how long the queue is */
    zqb_pool_stop (&pool);
}

/* ---- PLAIN, and the NULL mechanism with a handler */

TEST (with_plain_only_the_right_password_gets_in)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.plain = 1;
    options.zap_domain = "mine";
    broker_over ("tcp://127.0.0.1:*", &options);
    start_zap ();
    static const struct {
        const char *user, *password;
        int error;
    } cases[] = {{"alice", "wonder land", 0},
                 {"alice", "Wonder land", EACCES},
                 {"eve", "wonder land", EACCES},
                 {NULL, NULL, EPROTO}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_client_options_t client = plain_client (cases[i].user, cases[i].password);
        assert_error (call_with (&client, "echo"), cases[i].error);
    }
    assert_zap_asked ("mine", "PLAIN");
    zqb_worker_options_t worker = curve_worker (NULL, NULL);
    worker.user = "alice";
    worker.password = "wrong";
    assert_non_null (strstr (what_is_said (&worker), "refuses our key or password"));
    worker = curve_worker (NULL, NULL);
    worker.user = "alice";
    worker.password = "wonder land";
    zqb_worker_t *good = zqb_worker_new (ctx, endpoint, "work", &worker);
    eventually (!zqb_worker_recv (good, 1) && stat (broker, workers) == 1);
    zqb_worker_destroy (&good);
}

TEST (where_a_handler_is_needed_nobody_gets_in_without_one)
{
    zqb_broker_options_t options;
    for (int plain = 0; plain < 2; plain++) {
        memset (&options, 0, sizeof options);
        options.plain = plain;
        options.zap_domain = plain ? NULL : "mine";
        broker_over ("tcp://127.0.0.1:*", &options);
        zqb_client_options_t client = plain ? plain_client ("alice", "wonder land") : curve_client (NULL, NULL);
        client.timeout_ms = 100;
        assert_error (call_with (&client, "echo"), ETIMEDOUT);
        assert_int_equal (stat (broker, accepted), 0);
    }
}

TEST (without_a_mechanism_a_handler_is_asked_if_there_is_a_domain)
{
    zqb_broker_options_t options;
    zqb_client_options_t client = curve_client (NULL, NULL);
    memset (&options, 0, sizeof options);
    start_zap ();
    broker_over ("tcp://127.0.0.1:*", &options);
    assert_error (call_with (&client, "echo"), 0);
    options.zap_domain = "mine";
    broker_over ("tcp://127.0.0.1:*", &options);
    assert_error (call_with (&client, "echo"), EACCES);
    assert_zap_asked ("mine", "NULL");
}

TEST (over_inproc_no_key_is_needed_and_none_disturbs)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    assert_ok (zqb_broker_bind (broker, "inproc://beside"));
    strcpy (endpoint, "inproc://beside");
    zqb_client_options_t options = curve_client (NULL, NULL);
    assert_error (call_with (&options, "echo"), 0);
    options = curve_client (&alice, server.public_key);
    assert_error (call_with (&options, "echo"), 0);
}

TEST (every_endpoint_of_a_broker_asks_for_the_same)
{
    char ends[3][256];
    broker_with_curve ("tcp://127.0.0.1:*");
    assert_ok (zqb_broker_bind_clients (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_bind_lru (broker, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", "lru"));
    assert_ok (zqb_broker_handle (broker, "lru", echo, NULL));
    for (int i = 0; i < 3; i++)
        assert_ok (zqb_broker_endpoint (broker, i, ends[i], sizeof ends[i]));
    for (int i = 0; i < 3; i++) {
        zqb_client_options_t options = curve_client (NULL, NULL);
        strcpy (endpoint, ends[i]);
        assert_error (call_with (&options, "echo"), EPROTO);
    }
    zqb_client_options_t options = curve_client (&alice, server.public_key);
    strcpy (endpoint, ends[1]);
    assert_error (call_with (&options, "echo"), 0);
}

/* ---- what is wrong with what is given */

static int error_of_broker (const char *server_secret, int plain, const char *zap)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.server_secret = server_secret;
    options.plain = plain;
    options.zap_domain = zap;
    errno = 0;
    zqb_broker_t *made = zqb_broker_new (ctx, &options);
    int error = made ? 0 : errno;
    zqb_broker_destroy (&made);
    return error;
}

/* The same for a client, a worker and a pool, who all have to say the same. */
static int error_of_peer (const char *server_public, const char *public_key, const char *secret_key, const char *user,
                          const char *password)
{
    zqb_client_options_t c;
    zqb_pool_options_t p;
    memset (&c, 0, sizeof c);
    memset (&p, 0, sizeof p);
    p.threads = 1;
    c.server_public = p.worker.server_public = server_public;
    c.public_key = p.worker.public_key = public_key;
    c.secret_key = p.worker.secret_key = secret_key;
    c.user = p.worker.user = user;
    c.password = p.worker.password = password;
    errno = 0;
    zqb_client_t *client = zqb_client_new (ctx, "tcp://127.0.0.1:1", &c);
    int error = client ? 0 : errno;
    zqb_client_destroy (&client);
    errno = 0;
    zqb_worker_t *worker = zqb_worker_new (ctx, "tcp://127.0.0.1:1", "work", &p.worker);
    assert_error (worker ? 0 : errno, error);
    zqb_worker_destroy (&worker);
    errno = 0;
    zqb_pool_t *pool = zqb_pool_start (ctx, "tcp://127.0.0.1:1", "work", echo, NULL, &p);
    assert_error (pool ? 0 : errno, error);
    zqb_pool_stop (&pool);
    return error;
}

TEST (keys_and_passwords_that_are_none_or_do_not_fit_together_are_einval)
{
    char shorter[41], other[41], longest[257];
    strcpy (shorter, server.public_key);
    shorter[39] = 0;
    strcpy (other, server.public_key);
    other[7] = '~'; /* not Z85 */
    memset (longest, 'u', 256);
    longest[256] = 0;
    const char *const bad[] = {"", "x", shorter, other, "#########################################", "file", "file:"};
    for (size_t i = 0; i < COUNT (bad) - 1; i++) {
        assert_error (error_of_broker (bad[i], 0, NULL), EINVAL);
        assert_error (error_of_peer (bad[i], NULL, NULL, NULL, NULL), EINVAL);
        assert_error (error_of_peer (server.public_key, bad[i], alice.secret_key, NULL, NULL), EINVAL);
        assert_error (error_of_peer (server.public_key, NULL, bad[i], NULL, NULL), EINVAL);
    }
    assert_error (error_of_peer (server.public_key, NULL, bad[6], NULL, NULL), ENOENT);
    assert_error (error_of_peer (NULL, alice.public_key, alice.secret_key, NULL, NULL), EINVAL);
    assert_error (error_of_peer (server.public_key, alice.public_key, NULL, NULL, NULL), EINVAL);
    assert_error (error_of_peer (server.public_key, NULL, NULL, "u", "p"), EINVAL);
    assert_error (error_of_peer (NULL, NULL, NULL, "u", NULL), EINVAL);
    assert_error (error_of_peer (NULL, NULL, NULL, NULL, "p"), EINVAL);
    assert_error (error_of_peer (NULL, NULL, NULL, "", "p"), EINVAL);
    assert_error (error_of_peer (NULL, NULL, NULL, longest, "p"), EINVAL);
    assert_error (error_of_peer (NULL, NULL, NULL, "u", longest), EINVAL);
    longest[255] = 0;
    assert_error (error_of_peer (NULL, NULL, NULL, longest, longest), 0);
    assert_error (error_of_broker (server.secret_key, 1, NULL), EINVAL);
    assert_error (error_of_broker (NULL, 2, NULL), EINVAL);
    assert_error (error_of_broker (NULL, -1, NULL), EINVAL);
    assert_error (error_of_broker (NULL, 0, ""), EINVAL);
    assert_error (error_of_broker (server.secret_key, 0, longest), 0);
    assert_fails (zqb_curve_keypair (NULL, shorter), EINVAL);
    assert_fails (zqb_curve_keypair (shorter, NULL), EINVAL);
}

TEST (keys_come_from_files_of_their_owner_alone)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.server_secret = certificate ("s", 0600, &server);
    broker_over ("tcp://127.0.0.1:*", &options);
    zqb_client_options_t client = curve_client (NULL, certificate ("p", 0644, &server));
    client.public_key = certificate ("x", 0400, &alice);
    client.secret_key = client.public_key;
    assert_error (call_with (&client, "echo"), 0);
    static const mode_t open_to_others[] = {0640, 0604, 0620, 0602, 0610, 0601};
    for (size_t i = 0; i < COUNT (open_to_others); i++) {
        const char *secret = certificate ("s", open_to_others[i], &server);
        assert_error (error_of_broker (secret, 0, NULL), EPERM);
        assert_error (error_of_peer (server.public_key, NULL, secret, NULL, NULL), EPERM);
        int may_write = (open_to_others[i] & 0022) != 0; /* a public key is for everybody to read */
        assert_error (error_of_peer (secret, NULL, NULL, NULL, NULL), may_write ? EPERM : 0);
    }
}

TEST (a_password_comes_from_a_file_of_its_owner_alone)
{
    char long_one[300];
    memset (long_one, 'x', sizeof long_one);
    long_one[256] = 0;
    static const char *const good[] = {"wonder land", "wonder land\n", "wonder land\r\nand more", "file:x"};
    for (size_t i = 0; i < COUNT (good); i++)
        assert_error (error_of_peer (NULL, NULL, NULL, "alice", written ("s", 0600, good[i])), 0);
    const char *const bad[] = {"", "\n", "\nwonder land", long_one};
    for (size_t i = 0; i < COUNT (bad); i++)
        assert_error (error_of_peer (NULL, NULL, NULL, "alice", written ("s", 0600, bad[i])), EINVAL);
    assert_error (error_of_peer (NULL, NULL, NULL, "alice", written ("s", 0640, "wonder land")), EPERM);
    assert_error (error_of_peer (NULL, NULL, NULL, "alice", written ("s", 0604, "wonder land")), EPERM);
    assert_error (error_of_peer (NULL, NULL, NULL, "alice", file ("nothing")), ENOENT);
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.plain = 1;
    broker_over ("tcp://127.0.0.1:*", &options);
    start_zap ();
    unit_look_for ("wonder land", strlen ("wonder land"));
    zqb_client_options_t client = plain_client ("alice", written ("s", 0600, "wonder land\n"));
    assert_error (call_with (&client, "echo"), 0);
    assert_int_equal (unit_found (), 0);
    unit_look_for (NULL, 0);
}

TEST (files_that_are_missing_or_malformed_say_so)
{
    char text[8192];
    assert_error (error_of_broker (file ("nothing"), 0, NULL), ENOENT);
    assert_error (error_of_peer (file ("nothing"), NULL, NULL, NULL, NULL), ENOENT);
    assert_error (error_of_peer ("file:/tmp", NULL, NULL, NULL, NULL), EINVAL);
    memset (text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    const char *const bad[] = {"", "\n", "secret-key", "secret-key = ", "secret-key = \"", "secret-key = \"x\"\n",
                               "secret-key = \"0123456789012345678901234567890123456789",
                               "secret-key = \"0123456789012345678901234567890123456789'",
                               "# secret-key = \"0123456789012345678901234567890123456789\"",
                               "public-key = \"0123456789012345678901234567890123456789\"",
                               "secret-key = \"#########################################\"",
                               "secret-key = \"########################################\"", text + 4096};
    for (size_t i = 0; i < COUNT (bad); i++)
        assert_error (error_of_broker (written ("s", 0600, bad[i]), 0, NULL), EINVAL);
    assert_error (error_of_broker (written ("s", 0600, text + 4095), 0, NULL), EFBIG);
    const char *good = written ("s", 0600, "secret-key='0123456789012345678901234567890123456789'");
    assert_error (error_of_broker (good, 0, NULL), 0);
}

TEST (without_curve_in_libzmq_it_is_enotsup)
{
    char key[41];
    unit_no_curve = 1;
    assert_fails (zqb_curve_keypair (key, key), ENOTSUP);
    assert_error (error_of_broker (server.secret_key, 0, NULL), ENOTSUP);
    assert_error (error_of_peer (server.public_key, NULL, NULL, NULL, NULL), ENOTSUP);
    assert_error (error_of_peer (NULL, NULL, NULL, "u", "p"), 0);
    assert_error (error_of_broker (NULL, 1, NULL), 0);
}

TEST (where_libzmq_would_let_in_everybody_without_a_handler_it_is_enotsup)
{
    unit_refused_option = ZQB__ZAP_ENFORCE_DOMAIN;
    assert_error (error_of_broker (NULL, 1, NULL), ENOTSUP);
    assert_error (error_of_broker (NULL, 0, "mine"), ENOTSUP);
    assert_error (error_of_broker (server.secret_key, 0, "mine"), ENOTSUP);
    assert_error (error_of_broker (server.secret_key, 0, NULL), 0);
    assert_error (error_of_broker (NULL, 0, NULL), 0);
}

/* ---- what a peer says of itself, over connections without libzmq */

static int connect_raw (void)
{
    struct sockaddr_in where;
    memset (&where, 0, sizeof where);
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    where.sin_port = htons ((uint16_t) atoi (strrchr (endpoint, ':') + 1));
    int line = socket (AF_INET, SOCK_STREAM, 0);
    assert_ok (connect (line, (struct sockaddr *) &where, sizeof where));
    return line;
}

#define say_raw(line, bytes, size) assert_int_equal (send (line, bytes, size, MSG_NOSIGNAL), (ssize_t) (size))

static void reset_raw (int line)
{
    static const struct linger at_once = {1, 0};
    assert_ok (setsockopt (line, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
    close (line);
}

/* A broker whose rules let ops and its own process call, and nobody else. */
static void broker_for_few (void)
{
    broker_over ("tcp://127.0.0.1:*", NULL);
    assert_ok (zqb_broker_bind (broker, "inproc://beside"));
    assert_ok (zqb_broker_rule (broker, 1, "ops", ZQB_MAY_CALL, "echo"));
    assert_ok (zqb_broker_rule (broker, 1, "@inproc", ZQB_MAY_CALL, "echo"));
}

/* ZMTP, 23, 3.0: frames of a request in MDP/0.1. */
#define ASKS "\1\0\1\6MDPC01\1\4echo\0\1x"

/* A connection of ZMTP 3.1, over which the greetings were said. */
static int greet_raw (void)
{
    static const char greeting[64] = "\377\0\0\0\0\0\0\0\0\177\3\1NULL";
    char heard[sizeof greeting];
    int line = connect_raw ();
    say_raw (line, greeting, sizeof greeting);
    assert_int_equal (recv (line, heard, sizeof heard, MSG_WAITALL), sizeof heard);
    return line;
}

TEST (a_user_id_that_a_peer_claims_counts_for_nothing)
{
    static const char asks[] = "\4\53\5READY\13Socket-Type\0\0\0\6DEALER\7User-Id\0\0\0\3ops" ASKS;
    zqb_client_options_t client = curve_client (NULL, NULL);
    broker_for_few ();
    int line = greet_raw ();
    say_raw (line, asks, sizeof asks - 1);
    eventually (stat (broker, denied_call) == 1);
    assert_int_equal (stat (broker, accepted), 0);
    close (line);
    strcpy (endpoint, "inproc://beside");
    assert_error (call_with (&client, "echo"), 0);
}

/* libzmq hands it out as a frame, and would send it on as a command, with its name put in front. */
TEST (a_frame_that_is_a_command_of_zmtp_reaches_a_worker_as_it_is)
{
    static const char *const commands[] = {"\11SUBSCRIBE", "\6CANCEL"};
    static const char ready[] = "\4\34\5READY\13Socket-Type\0\0\0\6DEALER";
    static const char head[] = "\1\0\1\6MDPC01\1\4work\6\0\0\0\0\0\0\5\334"; /* of 1500 bytes */
    static char body[1500];
    broker_over ("tcp://127.0.0.1:*", NULL);
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "work", NULL);
    assert_null (zqb_worker_recv (worker, 1));
    for (size_t i = 0; i < COUNT (commands); i++) {
        int line = greet_raw ();
        memcpy (body, commands[i], strlen (commands[i]));
        say_raw (line, ready, sizeof ready - 1);
        say_raw (line, head, sizeof head - 1);
        say_raw (line, body, sizeof body);
        zqb_request_t *request = zqb_worker_recv (worker, PATIENCE_MS);
        assert_non_null (request);
        assert_int_equal (zqb_msg_size (zqb_request_body (request), 0), sizeof body);
        assert_memory_equal (zqb_msg_data (zqb_request_body (request), 0), body, sizeof body);
        assert_ok (zqb_request_reply (request, zqb_request_body (request)));
        close (line);
    }
    zqb_worker_destroy (&worker);
}

/* libzmq may not know then where a message came from, as of one over inproc. */
TEST (who_is_gone_before_its_address_is_known_is_not_taken_for_one_of_this_process)
{
    static const char asks[] = "\377\0\0\0\0\0\0\0\1\177\1\5\0\0" ASKS; /* ZMTP 2.0: nothing is waited for */
    broker_for_few ();
    while (stat (broker, denied_call) < 20 && !stat (broker, accepted)) {
        int line = connect_raw ();
        say_raw (line, asks, sizeof asks - 1);
        reset_raw (line);
    }
    assert_int_equal (stat (broker, accepted), 0);
}

/* ---- secrets */

TEST (our_copies_of_secrets_are_wiped)
{
    unsigned char keys[2][32];
    zmq_z85_decode (keys[0], server.secret_key);
    zmq_z85_decode (keys[1], alice.secret_key);
    for (int round = 0; round < 3; round++) {
        if (round < 2)
            unit_look_for (keys[round], sizeof keys[round]);
        else
            unit_look_for ("wonder land", strlen ("wonder land"));
        if (round < 2) {
            zqb_broker_options_t options;
            memset (&options, 0, sizeof options);
            options.server_secret = certificate ("s", 0600, &server);
            broker_over ("tcp://127.0.0.1:*", &options);
            zqb_client_options_t client = curve_client (&alice, server.public_key);
            assert_error (call_with (&client, "echo"), 0);
            zqb_broker_destroy (&broker);
            assert_error (error_of_peer (server.public_key, NULL, alice.secret_key, NULL, NULL), 0);
            assert_error (error_of_broker (server.secret_key, 0, ""), EINVAL);
            assert_error (error_of_peer (server.public_key, "no key", alice.secret_key, NULL, NULL), EINVAL);
        } else
            assert_error (error_of_peer (NULL, NULL, NULL, "alice", "wonder land"), 0);
        assert_int_equal (unit_found (), 0);
    }
    /* This test could find it. */
    assert_true (unit_given_back > 3);
    unit_look_for (keys[1], sizeof keys[1]);
    unit_look (keys[1], sizeof keys[1]);
    assert_int_equal (unit_found (), 1);
    unit_look_for (NULL, 0);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        SECURE (with_the_right_keys_a_client_is_answered_over_tcp_and_ipc),
        SECURE (what_is_said_is_not_on_the_network_as_it_is),
        SECURE (a_client_without_keys_or_with_another_mechanism_hears_so_at_once),
        SECURE (a_client_with_keys_hears_at_once_that_the_broker_has_none),
        SECURE (a_wrong_key_of_the_broker_is_a_broker_that_is_away),
        SECURE (whose_key_the_handler_does_not_know_is_refused_at_once_and_may_ask_again),
        SECURE (all_that_is_outstanding_ends_when_the_broker_refuses_us),
        SECURE (a_client_that_one_broker_refuses_turns_to_the_next),
        SECURE (a_worker_with_the_right_keys_serves_clients_with_theirs_in_every_dialect),
        SECURE (a_worker_says_why_it_cannot_get_in),
        SECURE (an_elastic_pool_has_keys_for_all_that_it_does),
        SECURE (with_plain_only_the_right_password_gets_in),
        SECURE (where_a_handler_is_needed_nobody_gets_in_without_one),
        SECURE (without_a_mechanism_a_handler_is_asked_if_there_is_a_domain),
        SECURE (over_inproc_no_key_is_needed_and_none_disturbs),
        SECURE (every_endpoint_of_a_broker_asks_for_the_same),
        SECURE (keys_and_passwords_that_are_none_or_do_not_fit_together_are_einval),
        SECURE (keys_come_from_files_of_their_owner_alone),
        SECURE (a_password_comes_from_a_file_of_its_owner_alone),
        SECURE (files_that_are_missing_or_malformed_say_so),
        SECURE (without_curve_in_libzmq_it_is_enotsup),
        SECURE (where_libzmq_would_let_in_everybody_without_a_handler_it_is_enotsup),
        SECURE (a_user_id_that_a_peer_claims_counts_for_nothing),
        SECURE (a_frame_that_is_a_command_of_zmtp_reaches_a_worker_as_it_is),
        SECURE (who_is_gone_before_its_address_is_known_is_not_taken_for_one_of_this_process),
        SECURE (our_copies_of_secrets_are_wiped),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
