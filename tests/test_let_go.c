/* Who is on no list any more is let go: peers that were let in by zqb_auth_*, and what becomes of their connections and
   requests when the lists change. Over real sockets, but for what is found of a descriptor. */
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"
#include <fcntl.h>

static zqb_auth_t *auth;
static char endpoint[256];

typedef struct pair_t {
    char public_key[41], secret_key[41];
} pair_t;

static pair_t server, alice, bob;

static int begin (UNUSED void **state)
{
    ctx = zmq_ctx_new ();
    auth = zqb_auth_start (ctx, NULL);
    return auth && zqb_curve_keypair (server.public_key, server.secret_key) == 0
                   && zqb_curve_keypair (alice.public_key, alice.secret_key) == 0
                   && zqb_curve_keypair (bob.public_key, bob.secret_key) == 0
             ? 0
             : -1;
}

/* What a test has opened beside the broker, and leaves behind if it fails. */
static zqb_client_t *clients[4];
static zqb_worker_t *workers[4];
static void *sockets[4];

static int end (void **state)
{
    for (size_t i = 0; i < COUNT (clients); i++) {
        zqb_client_destroy (&clients[i]);
        zqb_worker_destroy (&workers[i]);
        if (sockets[i])
            zmq_close (sockets[i]);
        sockets[i] = NULL;
    }
    zqb_broker_destroy (&broker);
    zqb_auth_stop (&auth);
    return tear_down (state);
}

#define LISTED(name) cmocka_unit_test_setup_teardown (name, begin, end)

/* A broker with the lists, which sleeps as long as nobody wakes it. */
static void broker_with_lists (const char *where, const zqb_broker_options_t *given)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    if (given)
        options = *given;
    options.auth = auth;
    options.heartbeat_ms = 3600000;
    broker = start_broker (where, &options);
    assert_non_null (broker);
    assert_ok (zqb_broker_endpoint (broker, 0, endpoint, sizeof endpoint));
}

static void broker_with_curve (const char *where)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.server_secret = server.secret_key;
    broker_with_lists (where, &options);
    assert_ok (zqb_auth_curve (auth, alice.public_key, "alice"));
    assert_ok (zqb_auth_curve (auth, bob.public_key, "bob"));
}

static zqb_client_t *client_with (size_t place, zqb_client_options_t options)
{
    options.timeout_ms = PATIENCE_MS;
    clients[place] = zqb_client_new (ctx, endpoint, &options);
    assert_non_null (clients[place]);
    return clients[place];
}

static zqb_client_t *client_of (size_t place, const pair_t *pair)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.server_public = server.public_key;
    options.public_key = pair->public_key;
    options.secret_key = pair->secret_key;
    return client_with (place, options);
}

/* A worker, which gets nothing until it is asked. */
static zqb_worker_t *worker_of (size_t place, const pair_t *pair)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.credit = 1;
    options.server_public = server.public_key;
    options.public_key = pair->public_key;
    options.secret_key = pair->secret_key;
    workers[place] = zqb_worker_new (ctx, endpoint, "work", &options);
    assert_non_null (workers[place]);
    return workers[place];
}

/* 0, or why a call of a service failed. */
static int call_of (zqb_client_t *client, const char *service)
{
    zqb_msg_t reply;
    int error = call_with_x (client, service, &reply);
    zqb_msg_close (&reply);
    return error;
}

/* Why a request fails of who was let go: it is said over the connection that ends, or to the next, which is refused. */
static int says_so (int error)
{
    return error == ZQB_EDENIED || error == EACCES;
}

static void is_let_go (zqb_client_t *client, uint64_t id)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    assert_ok (zqb_client_recv (client, &reply, PATIENCE_MS));
    assert_int_equal (reply.kind, ZQB_REPLY_ERROR);
    assert_true (reply.id == id);
    assert_true (says_so (reply.error));
    zqb_msg_close (&reply.body);
}

/* ---- clients */

static void a_client_is_let_go_over (const char *where)
{
    broker_with_curve (where);
    zqb_client_t *good = client_of (0, &bob), *bad = client_of (1, &alice);
    uint64_t his = submit (good, "work", "his"), hers = submit (bad, "work", "hers");
    eventually (stat (broker, queued) == 2);
    assert_ok (zqb_auth_curve (auth, alice.public_key, NULL));
    is_let_go (bad, hers);
    eventually (stat (broker, queued) == 1);
    assert_int_equal (stat (broker, let_go), 1);
    assert_int_equal (stat (broker, cancelled), 1);
    eventually (call_of (bad, "mmi.service") == EACCES);
    assert_error (call_of (good, "mmi.service"), 0);
    zqb_worker_t *worker = worker_of (0, &bob);
    assert_ok (reply_text (is_asked (worker, "his"), "done"));
    receives (good, his, ZQB_REPLY_FINAL, "done");
    assert_ok (zqb_auth_curve (auth, alice.public_key, "alice"));
    assert_error (call_of (bad, "mmi.service"), 0);
    assert_int_equal (stat (broker, let_go), 1);
}

TEST (a_client_whose_key_is_taken_off_the_list_is_let_go_over_tcp)
{
    a_client_is_let_go_over ("tcp://127.0.0.1:*");
}

TEST (a_client_whose_key_is_taken_off_the_list_is_let_go_over_ipc)
{
    a_client_is_let_go_over (new_ipc ());
}

TEST (who_has_another_key_of_the_same_user_is_let_go_when_his_is_taken_off)
{
    pair_t other;
    assert_ok (zqb_curve_keypair (other.public_key, other.secret_key));
    broker_with_curve ("tcp://127.0.0.1:*");
    assert_ok (zqb_auth_curve (auth, other.public_key, "alice"));
    zqb_client_t *stolen = client_of (0, &alice), *fresh = client_of (1, &other);
    assert_error (call_of (stolen, "mmi.service"), 0);
    assert_error (call_of (fresh, "mmi.service"), 0);
    assert_ok (zqb_auth_curve (auth, alice.public_key, NULL));
    assert_true (says_so (call_of (stolen, "mmi.service")));
    eventually (call_of (stolen, "mmi.service") == EACCES);
    assert_error (call_of (fresh, "mmi.service"), 0);
    assert_int_equal (stat (broker, let_go), 1);
}

TEST (a_client_whose_password_is_changed_is_let_go)
{
    zqb_broker_options_t options;
    zqb_client_options_t of_client;
    memset (&options, 0, sizeof options);
    memset (&of_client, 0, sizeof of_client);
    options.plain = 1;
    of_client.user = "alice";
    of_client.password = "old";
    assert_ok (zqb_auth_plain (auth, "alice", "old"));
    broker_with_lists ("tcp://127.0.0.1:*", &options);
    zqb_client_t *client = client_with (0, of_client);
    assert_error (call_of (client, "mmi.service"), 0);
    assert_ok (zqb_auth_plain (auth, "alice", "old")); /* a change that changes nothing */
    assert_error (call_of (client, "mmi.service"), 0);
    assert_int_equal (stat (broker, let_go), 0);
    assert_ok (zqb_auth_plain (auth, "alice", "new"));
    assert_true (says_so (call_of (client, "mmi.service")));
    eventually (call_of (client, "mmi.service") == EACCES);
    assert_int_equal (stat (broker, let_go), 1);
}

TEST (an_address_that_is_denied_is_let_go_and_the_lists_hold_without_a_mechanism)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    broker_with_lists (new_ipc (), NULL);
    assert_ok (zqb_broker_bind (broker, "inproc://beside"));
    zqb_client_t *client = client_with (0, options);
    assert_error (call_of (client, "mmi.service"), 0);
    uint64_t id = submit (client, "work", "x");
    eventually (stat (broker, queued) == 1);
    assert_ok (zqb_auth_deny (auth, "ipc"));
    is_let_go (client, id);
    eventually (call_of (client, "mmi.service") == EACCES);
    strcpy (endpoint, "inproc://beside");
    assert_error (call_of (client_with (1, options), "mmi.service"), 0); /* it is of this process */
}

/* A broker that alice has asked for something, which does nothing until its lock is left. */
static void lock_with_a_client (void)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    submit (client_of (0, &alice), "work", "x");
    eventually (stat (broker, queued) == 1);
    zqb__lock_enter (&broker->lock);
}

/* Of whose end it was read, but not yet acted upon, as more has come: its number may be another's. */
TEST (what_has_the_number_of_a_connection_that_is_gone_is_left_alone)
{
    lock_with_a_client ();
    zqb__port_t *port = broker->ports[0];
    for (size_t i = 0; i < broker->engine.connections.size; i++)
        for (zqb__node_t *node = broker->engine.connections.buckets[i]; node; node = node->next)
            port->gone[port->gone_count++] = ZQB__OF (zqb__connection_t, by_number, node)->number;
    size_t gone = port->gone_count;
    int failed = zqb_auth_curve (auth, alice.public_key, NULL);
    zqb__broker_look_at_lists (broker);
    int unwelcome = !zqb__list_empty (&broker->unwelcome);
    zqb__broker_end_unwelcome (broker);
    uint64_t let_go = broker->engine.stats.let_go;
    port->gone_count = 0;
    zqb__lock_leave (&broker->lock);
    assert_int_equal (gone, 1);
    assert_ok (failed);
    assert_true (unwelcome);
    assert_int_equal (let_go, 0);
}

TEST (a_connection_is_let_go_once_however_often_the_lists_change)
{
    lock_with_a_client ();
    uint64_t let_go[2];
    for (int i = 0; i < 2; i++) {
        zqb_auth_deny (auth, "127.0.0.1");
        zqb__broker_look_at_lists (broker);
        zqb__broker_end_unwelcome (broker);
        let_go[i] = broker->engine.stats.let_go;
    }
    zqb__lock_leave (&broker->lock);
    assert_int_equal (let_go[0], 1);
    assert_int_equal (let_go[1], 1);
}

TEST (without_a_descriptor_to_spare_a_connection_is_let_go_when_there_is_one)
{
    struct rlimit enough, none;
    lock_with_a_client ();
    getrlimit (RLIMIT_NOFILE, &enough);
    none = enough;
    none.rlim_cur = 3;
    zqb_auth_deny (auth, "127.0.0.1");
    zqb__broker_look_at_lists (broker);
    setrlimit (RLIMIT_NOFILE, &none);
    int looked_at = zqb__broker_end_unwelcome (broker);
    uint64_t wait = zqb__broker_next (broker) - broker->engine.now;
    setrlimit (RLIMIT_NOFILE, &enough);
    uint64_t let_go = broker->engine.stats.let_go;
    zqb__lock_leave (&broker->lock);
    assert_int_equal (looked_at, 0);
    assert_true (wait <= ZQB__END_AGAIN_US);
    assert_int_equal (let_go, 0);
    eventually (stat (broker, let_go) == 1);
}

static int says_nothing (UNUSED zqb_auth_peer_t *peer, UNUSED void *arg)
{
    return -1;
}

TEST (who_is_another_user_by_the_lists_is_let_go_though_the_host_may_decide)
{
    zqb_auth_options_t options;
    memset (&options, 0, sizeof options);
    options.decide = says_nothing;
    zqb_auth_stop (&auth);
    auth = zqb_auth_start (ctx, &options);
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_client_t *client = client_of (0, &alice);
    assert_error (call_of (client, "mmi.service"), 0);
    assert_ok (zqb_auth_curve (auth, alice.public_key, "nobody"));
    eventually (stat (broker, let_go) == 1);
    eventually (call_of (client, "mmi.service") == 0);
    assert_int_equal (stat (broker, let_go), 1);
}

TEST (users_whose_names_begin_or_end_with_blanks_stay)
{
    static const char *const names[] = {" alice", "alice ", "\talice", " ", "a b"};
    zqb_broker_options_t options;
    zqb_client_options_t of_client;
    memset (&options, 0, sizeof options);
    memset (&of_client, 0, sizeof of_client);
    options.plain = 1;
    of_client.password = "secret";
    broker_with_lists ("tcp://127.0.0.1:*", &options);
    for (size_t i = 0; i < COUNT (names); i++) {
        of_client.user = names[i];
        assert_ok (zqb_auth_plain (auth, names[i], "secret"));
        assert_error (call_of (client_with (0, of_client), "mmi.service"), 0);
        zqb_client_destroy (&clients[0]);
    }
    assert_int_equal (stat (broker, let_go), 0);
}

/* Frames of MDP/0.1 from a plain socket. */
static void mdp_asks (void *socket, const char *service)
{
    assert_int_equal (zmq_send (socket, "", 0, ZMQ_SNDMORE), 0);
    assert_int_equal (zmq_send (socket, "MDPC01", 6, ZMQ_SNDMORE), 6);
    assert_int_equal (zmq_send (socket, service, strlen (service), ZMQ_SNDMORE), (int) strlen (service));
    assert_int_equal (zmq_send (socket, "x", 1, 0), 1);
}

/* A plain socket, and in monitor what tells of the end of its connection. */
static void *plain_socket (const pair_t *pair, void **monitor)
{
    void *socket = sockets[0] = zmq_socket (ctx, ZMQ_DEALER);
    zqb__set_int (socket, ZMQ_LINGER, 0);
    zqb__set_int (socket, ZMQ_RECONNECT_IVL, 3600000);
    zqb__set_int (socket, ZMQ_RCVTIMEO, PATIENCE_MS);
    zmq_setsockopt (socket, ZMQ_CURVE_SERVERKEY, server.public_key, 41);
    zmq_setsockopt (socket, ZMQ_CURVE_PUBLICKEY, pair->public_key, 41);
    zmq_setsockopt (socket, ZMQ_CURVE_SECRETKEY, pair->secret_key, 41);
    assert_ok (zmq_socket_monitor (socket, "inproc://monitor", ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED));
    *monitor = sockets[1] = zmq_socket (ctx, ZMQ_PAIR);
    zqb__set_int (*monitor, ZMQ_LINGER, 0);
    zqb__set_int (*monitor, ZMQ_RCVTIMEO, PATIENCE_MS);
    assert_ok (zmq_connect (*monitor, "inproc://monitor"));
    assert_ok (zmq_connect (socket, endpoint));
    return socket;
}

/* The next that a monitor tells is this. */
static void is_told (void *monitor, uint16_t expected)
{
    char bytes[8], where[256];
    uint16_t event;
    assert_true (zmq_recv (monitor, bytes, sizeof bytes, 0) >= (int) sizeof event);
    memcpy (&event, bytes, sizeof event);
    assert_int_equal (event, expected);
    assert_true (zmq_recv (monitor, where, sizeof where, 0) >= 0);
}

TEST (a_peer_that_the_broker_has_forgotten_or_never_heard_is_let_go_when_it_speaks)
{
    void *monitor, *socket;
    broker_with_curve ("tcp://127.0.0.1:*");
    socket = plain_socket (&alice, &monitor);
    is_told (monitor, ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    assert_ok (zqb_auth_curve (auth, alice.public_key, NULL));
    mdp_asks (socket, "work");
    is_told (monitor, ZMQ_EVENT_DISCONNECTED);
    eventually (stat (broker, denied_call) == 1);
    assert_int_equal (stat (broker, let_go), 1);
    assert_int_equal (stat (broker, accepted), 0);
}

TEST (who_only_talks_nonsense_is_let_go_as_well)
{
    void *monitor, *socket;
    broker_with_curve ("tcp://127.0.0.1:*");
    socket = plain_socket (&alice, &monitor);
    mdp_asks (socket, "mmi.service");
    char frame[64];
    assert_int_equal (zmq_recv (socket, frame, sizeof frame, 0), 0);
    is_told (monitor, ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    assert_ok (zqb_auth_curve (auth, alice.public_key, NULL));
    is_told (monitor, ZMQ_EVENT_DISCONNECTED);
    assert_int_equal (stat (broker, let_go), 1);
}

/* What a broker knows of the only client is changed under its lock, as if its connection had just been lost. */
static void lose_the_connection (void)
{
    zqb__lock_enter (&broker->lock);
    zqb__engine_t *engine = &broker->engine;
    for (size_t i = 0; i < engine->peers.size; i++)
        for (zqb__node_t *node = engine->peers.buckets[i]; node; node = node->next)
            zqb__peer_leave_connection (engine, ZQB__OF (zqb__peer_t, by_address, node));
    assert_int_equal (engine->connections.count, 0);
    zqb__lock_leave (&broker->lock);
}

static int lists_are_known (void)
{
    zqb__lock_enter (&broker->lock);
    int known = broker->lists_version == zqb__auth_version (auth);
    zqb__lock_leave (&broker->lock);
    return known;
}

/* It has to be let in to come back. */
TEST (what_a_client_without_a_connection_has_asked_stays_until_it_speaks)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_client_t *client = client_of (0, &alice);
    uint64_t id = submit (client, "work", "x");
    eventually (stat (broker, queued) == 1);
    lose_the_connection ();
    assert_ok (zqb_auth_curve (auth, alice.public_key, NULL));
    eventually (lists_are_known ());
    assert_int_equal (stat (broker, queued), 1);
    assert_int_equal (stat (broker, let_go), 0);
    assert_ok (zqb_client_cancel (client, id));
    submit (client, "work", "y");
    eventually (stat (broker, let_go) == 1);
}

/* ---- workers */

TEST (a_worker_whose_key_is_taken_off_the_list_loses_what_it_holds_to_another)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_worker_t *bad = worker_of (0, &alice);
    zqb_client_t *client = client_of (0, &bob);
    uint64_t id = submit (client, "work", "x");
    zqb_request_t *request = is_asked (bad, "x");
    zqb_worker_t *good = worker_of (1, &bob);
    eventually (!zqb_worker_recv (good, 1) && stat (broker, workers) == 2);
    assert_ok (zqb_auth_curve (auth, alice.public_key, NULL));
    zqb_request_t *again = is_asked (good, "x");
    assert_int_equal (stat (broker, workers), 1);
    assert_int_equal (stat (broker, denied_serve), 1);
    assert_int_equal (stat (broker, requeued), 1);
    reply_text (request, "forged");
    assert_ok (reply_text (again, "done"));
    receives (client, id, ZQB_REPLY_FINAL, "done");
    zqb_stats_t stats = unit_stats (broker);
    assert_int_equal (stats.let_go, 1);
    assert_int_equal (stats.replied, 1);
    assert_true (unit_adds_up (&stats));
}

/* ---- a host with a loop of its own, and many at once */

TEST (a_change_makes_the_descriptor_of_a_hosts_loop_readable)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.auth = auth;
    options.heartbeat_ms = -1;
    broker = zqb_broker_new (ctx, &options);
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    zqb__poll_t item = zqb__poll_item ((zmq_fd_t) zqb_broker_fd (broker));
    eventually (zqb_broker_step (broker, 0) > 0 && zqb__wait (&item, 1, 0) == 0);
    assert_ok (zqb_auth_deny (auth, "10.0.0.1"));
    assert_int_equal (zqb__wait (&item, 1, PATIENCE_MS * 1000u), 1);
    zqb_broker_step (broker, 0);
    assert_true (lists_are_known ());
    eventually (zqb_broker_step (broker, 0) > 0 && zqb__wait (&item, 1, 0) == 0);
}

static zqb__flag_t changing;

static void change_all_the_time (UNUSED void *arg)
{
    for (int i = 0; zqb__flag_get (&changing); i++) {
        zqb_auth_curve (auth, alice.public_key, i & 1 ? "alice" : NULL);
        zmq_poll (NULL, 0, 1);
    }
}

/* Alice comes and goes, and now and then is let in; bob never notices. */
TEST (lists_that_change_all_the_time_disturb_nobody_who_stays_on_them)
{
    broker_with_curve ("tcp://127.0.0.1:*");
    zqb_client_t *good = client_of (0, &bob), *bad = client_of (1, &alice);
    zqb__flag_set (&changing);
    zqb__thread_t *thread = zqb__thread_start (change_all_the_time, NULL);
    enum { CALLS = 40 };
    int failed = 0, served = 0;
    for (int i = 0; i < CALLS; i++) {
        failed += call_of (good, "mmi.service") != 0;
        int error = call_of (bad, "mmi.service");
        served += error == 0 || says_so (error);
    }
    zqb__flag_clear (&changing);
    zqb__thread_join (&thread);
    assert_int_equal (failed, 0);
    assert_int_equal (served, CALLS);
    zqb_stats_t stats = unit_stats (broker);
    assert_true (unit_adds_up (&stats));
}

TEST (lists_of_another_context_are_einval)
{
    zqb_broker_options_t options;
    void *other = zmq_ctx_new ();
    memset (&options, 0, sizeof options);
    options.auth = auth;
    assert_none (zqb_broker_new (other, &options), EINVAL);
    assert_ok (zmq_ctx_term (other));
}

/* ---- the end of a connection: descriptors as they are */

/* A listening socket and both ends of a connection to it. */
typedef struct line_t {
    int listener, near, far;
    char endpoint[160];
} line_t;

static void connect_line (line_t *line, const struct sockaddr *name, socklen_t size)
{
    line->far = socket (name->sa_family, SOCK_STREAM, 0);
    assert_ok (connect (line->far, name, size));
    line->near = accept (line->listener, NULL, NULL);
    assert_true (line->near >= 0);
}

static void open_tcp (line_t *line)
{
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    memset (&name, 0, sizeof name);
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    line->listener = socket (AF_INET, SOCK_STREAM, 0);
    assert_ok (bind (line->listener, (struct sockaddr *) &name, size));
    assert_ok (listen (line->listener, 1));
    assert_ok (getsockname (line->listener, (struct sockaddr *) &name, &size));
    snprintf (line->endpoint, sizeof line->endpoint, "tcp://127.0.0.1:%u", (unsigned) ntohs (name.sin_port));
    connect_line (line, (struct sockaddr *) &name, size);
}

/* path as libzmq spells it: "@x" is an abstract one. */
static void open_ipc (line_t *line, const char *path)
{
    struct sockaddr_un name;
    socklen_t size = (socklen_t) (offsetof (struct sockaddr_un, sun_path) + strlen (path));
    memset (&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    strcpy (name.sun_path, path);
    if (*path == '@')
        name.sun_path[0] = 0;
    else
        size++;
    line->listener = socket (AF_UNIX, SOCK_STREAM, 0);
    assert_ok (bind (line->listener, (struct sockaddr *) &name, size));
    assert_ok (listen (line->listener, 1));
    snprintf (line->endpoint, sizeof line->endpoint, "ipc://%s", path);
    connect_line (line, (struct sockaddr *) &name, size);
}

static void close_line (line_t *line)
{
    close (line->listener);
    close (line->near);
    close (line->far);
}

static int is_open (int fd)
{
    char byte;
    return recv (fd, &byte, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

static void cuts_only_its_own (line_t *line)
{
    char *others[] = {(char *) "inproc://x", (char *) "tcp://127.0.0.1:1", (char *) "ipc:///tmp/x", (char *) "ipc://@",
                      (char *) "ipc://*", (char *) "udp", (char *) "tcp://", (char *) "ws://127.0.0.1:9/x"};
    char *mine[] = {others[0], line->endpoint};
    assert_int_equal (zqb__connection_cut (line->near, others, COUNT (others)), -1);
    assert_int_equal (zqb__connection_cut (line->near, mine, 1), -1);
    assert_int_equal (zqb__connection_cut (line->listener, mine, 2), -1); /* libzmq would abort */
    assert_int_equal (zqb__connection_cut (line->far, mine, 2), -1); /* one of the host's own, to that place */
    assert_true (is_open (line->near) && is_open (line->far));
    assert_ok (zqb__connection_cut (line->near, mine, 2));
    char byte;
    assert_int_equal (recv (line->far, &byte, 1, 0), 0);
    close_line (line);
}

TEST (a_connection_of_an_endpoint_is_cut_and_no_other)
{
    line_t line;
    char path[100];
    open_tcp (&line);
    cuts_only_its_own (&line);
    snprintf (path, sizeof path, "/tmp/zqbroker-unit-%016llx", (unsigned long long) zqb__random ());
    open_ipc (&line, path);
    cuts_only_its_own (&line);
    unlink (path);
#ifdef __linux__
    *path = '@';
    open_ipc (&line, path);
    cuts_only_its_own (&line);
#endif
}

TEST (what_is_no_connection_is_left_alone)
{
    char *endpoints[] = {(char *) "tcp://127.0.0.1:5555"};
    int file = open ("/dev/null", O_RDONLY), ends[2];
    assert_ok (pipe (ends));
    assert_int_equal (zqb__connection_cut (file, endpoints, 1), -1);
    assert_int_equal (zqb__connection_cut (ends[0], endpoints, 1), -1);
    assert_int_equal (write (ends[1], "x", 1), 1);
    assert_int_equal (zqb__connection_cut (-1, endpoints, 1), -1);
    close (file);
    close (ends[0]);
    close (ends[1]);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        LISTED (what_has_the_number_of_a_connection_that_is_gone_is_left_alone),
        LISTED (a_connection_is_let_go_once_however_often_the_lists_change),
        LISTED (without_a_descriptor_to_spare_a_connection_is_let_go_when_there_is_one),
        LISTED (who_is_another_user_by_the_lists_is_let_go_though_the_host_may_decide),
        LISTED (users_whose_names_begin_or_end_with_blanks_stay),
        LISTED (a_client_whose_key_is_taken_off_the_list_is_let_go_over_tcp),
        LISTED (a_client_whose_key_is_taken_off_the_list_is_let_go_over_ipc),
        LISTED (who_has_another_key_of_the_same_user_is_let_go_when_his_is_taken_off),
        LISTED (a_client_whose_password_is_changed_is_let_go),
        LISTED (an_address_that_is_denied_is_let_go_and_the_lists_hold_without_a_mechanism),
        LISTED (a_peer_that_the_broker_has_forgotten_or_never_heard_is_let_go_when_it_speaks),
        LISTED (who_only_talks_nonsense_is_let_go_as_well),
        LISTED (what_a_client_without_a_connection_has_asked_stays_until_it_speaks),
        LISTED (a_worker_whose_key_is_taken_off_the_list_loses_what_it_holds_to_another),
        LISTED (a_change_makes_the_descriptor_of_a_hosts_loop_readable),
        LISTED (lists_that_change_all_the_time_disturb_nobody_who_stays_on_them),
        LISTED (lists_of_another_context_are_einval),
        cmocka_unit_test (a_connection_of_an_endpoint_is_cut_and_no_other),
        cmocka_unit_test (what_is_no_connection_is_left_alone),
    };
    return zmq_has ("curve") ? cmocka_run_group_tests (tests, NULL, NULL) : 0;
}
