/* The process around us: the end of the context, signals, fork, exec and exit. Each ends what waits cleanly, or does
   not disturb it. The test is told where a thread is by the functions in which that waits. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <zmq.h>

/* ---- where a thread is */

enum { RECEIVING = 1, POLLING = 2, SPINNING = 4 };

static __thread int watched; /* of this thread we want to know */
static __thread int hasty;   /* whatever blocks in this one is interrupted before it has begun */
static int places;           /* where the watched thread has been */
static void *ends;           /* a context that ends */
static int ends_at;          /* in these places, when the watched thread gets there */
static int sockets_left;     /* or, if that is not 0, as so many sockets later one is about to be made */
static int sockets_open;

static int get (int *number)
{
    return __atomic_load_n (number, __ATOMIC_SEQ_CST);
}

static void set (int *number, int value)
{
    __atomic_store_n (number, value, __ATOMIC_SEQ_CST);
}

static void be_at (int place)
{
    if (!watched)
        return;
    if (get (&ends_at) & place)
        zmq_ctx_shutdown (ends);
    __atomic_or_fetch (&places, place, __ATOMIC_SEQ_CST);
}

static int watched_recv (zmq_msg_t *msg, void *socket, int flags)
{
    if (!flags)
        be_at (RECEIVING);
    if (flags || !hasty)
        return zmq_msg_recv (msg, socket, flags);
    errno = EINTR;
    return -1;
}

static int watched_poll (struct pollfd *items, nfds_t count, int timeout)
{
    if (timeout)
        be_at (POLLING);
    return poll (items, count, timeout);
}

static int watched_yield (void)
{
    be_at (SPINNING);
    return sched_yield ();
}

static void *watched_socket (void *context, int type)
{
    if (get (&sockets_left) && __atomic_sub_fetch (&sockets_left, 1, __ATOMIC_SEQ_CST) == 0)
        zmq_ctx_shutdown (context);
    void *socket = zmq_socket (context, type);
    __atomic_add_fetch (&sockets_open, socket != NULL, __ATOMIC_SEQ_CST);
    return socket;
}

static int counted_close (void *socket)
{
    __atomic_sub_fetch (&sockets_open, 1, __ATOMIC_SEQ_CST);
    return zmq_close (socket);
}

#undef zmq_msg_recv
#define zmq_msg_recv watched_recv
#define zmq_socket watched_socket
#define zmq_close counted_close
#define sched_yield watched_yield
#define poll watched_poll

#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#undef poll
#include "unit.h"
#include "unit_world.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { LONG_SPIN_US = 2000 * 1000 * 1000, DIALECTS = ZQB_DIALECT_MDP02 + 1 };

/* What a test that failed has left open would hold its context for ever. */
static int close_all (void **state)
{
    zqb_broker_destroy (&broker);
    if (get (&sockets_open) == 0)
        return tear_down (state);
    zmq_ctx_shutdown (ctx);
    set (&sockets_open, 0);
    return -1;
}

/* libzmq (4.3.4) leaks what a monitor was to be told when the context has ended, if a name takes more than 33 bytes. */
static const char *short_ipc (void)
{
    char *endpoint = (char *) new_ipc ();
    snprintf (endpoint, 34, "ipc:///tmp/zq-%016llx", (unsigned long long) zqb__random ());
    return endpoint;
}

#define RUNNING(name) cmocka_unit_test_setup_teardown (name, set_up, close_all)

/* ---- threads of the test */

typedef struct caller_t {
    int (*call) (void *object); /* 0, or errno */
    void *object;
    int error;
    zqb__flag_t done;
} caller_t;

static void call_watched (void *arg)
{
    caller_t *caller = (caller_t *) arg;
    watched = 1;
    caller->error = caller->call (caller->object);
    zqb__flag_set (&caller->done);
}

/* What hangs cannot be cleaned up: the whole program has failed. */
static void must_end (zqb__flag_t *done, const char *what)
{
    uint64_t end = zqb__clock () + PATIENCE_MS * 1000u;
    while (!zqb__flag_get (done)) {
        if (zqb__clock () > end) {
            printf ("it hangs: %s\n", what);
            fflush (stdout);
            _exit (1);
        }
        zmq_poll (NULL, 0, 1);
    }
}

static void end_the_context (void *arg)
{
    zqb__flag_t *done = (zqb__flag_t *) arg;
    zmq_ctx_term (ctx);
    zqb__flag_set (done);
}

/* Everything was destroyed: nothing holds the context. */
static void context_is_free (void)
{
    zqb__flag_t done = 0;
    void *thread = zmq_threadstart (end_the_context, &done);
    must_end (&done, "zmq_ctx_term");
    zmq_threadclose (thread);
    ctx = NULL;
}

static int call_text (zqb_client_t *client, const char *service, const char *text)
{
    zqb_msg_t msg, reply;
    zqb_msg_init (&msg);
    zqb_msg_init (&reply);
    zqb_msg_add_str (&msg, text);
    int failed = zqb_client_call (client, service, &msg, &reply), error = errno;
    if (failed && !unit_frame_is (&msg, 0, text))
        error = EPROTO; /* on failure request is as it was */
    if (!failed && !unit_frame_is (&reply, 0, text))
        failed = -1, error = EPROTO;
    zqb_msg_close (&msg);
    zqb_msg_close (&reply);
    return failed ? error : 0;
}

/* ============================================================================================================
   The end of the context
   ============================================================================================================ */

/* ---- what blocks, each 0 or errno */

static int client_calls (void *object)
{
    return call_text ((zqb_client_t *) object, "nobody", "x");
}

static int client_receives (void *object)
{
    zqb_client_t *client = (zqb_client_t *) object;
    zqb_reply_t reply;
    zqb_msg_t msg;
    zqb_msg_init (&reply.body);
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, "x");
    zqb_client_submit (client, "nobody", &msg, NULL);
    int error = zqb_client_recv (client, &reply, -1) ? errno : 0;
    zqb_msg_close (&msg);
    zqb_msg_close (&reply.body);
    return error;
}

static int worker_receives (void *object)
{
    return zqb_worker_recv ((zqb_worker_t *) object, -1) ? 0 : errno;
}

static int worker_runs (void *object)
{
    return zqb_worker_run ((zqb_worker_t *) object, echo, NULL) ? errno : 0;
}

static int broker_runs (void *object)
{
    return zqb_broker_run ((zqb_broker_t *) object) ? errno : 0;
}

/* A step goes on to the next when something was due. */
static int broker_steps (void *object)
{
    while (zqb_broker_step ((zqb_broker_t *) object, -1) >= 0) {
    }
    return errno;
}

/* ---- where and how the end comes */

typedef struct moment_t {
    int place, spin_us;
    int by_itself; /* the thread ends the context itself, right before it blocks; or else another while it blocks */
} moment_t;

static const moment_t moments[] = {
    {0, 0, 0}, {RECEIVING, 0, 1}, {RECEIVING, 0, 0}, {POLLING, 0, 1}, {POLLING, 0, 0},
    {POLLING, 1, 1}, {POLLING, 1, 0}, {SPINNING, LONG_SPIN_US, 1}, {SPINNING, LONG_SPIN_US, 0},
};

/* The call, which would last for ever, says ETERM, and so does every later one. */
static void hears_of_the_end (int (*call) (void *), void *object, const moment_t *moment, const char *what)
{
    caller_t caller = {call, object, 0, 0};
    ends = ctx;
    set (&ends_at, moment->by_itself ? moment->place : 0);
    set (&places, 0);
    if (!moment->place)
        zmq_ctx_shutdown (ctx);
    void *thread = zmq_threadstart (call_watched, &caller);
    eventually (!moment->place || (get (&places) & moment->place) || zqb__flag_get (&caller.done));
    zmq_ctx_shutdown (ctx);
    must_end (&caller.done, what);
    zmq_threadclose (thread);
    set (&ends_at, 0);
    assert_string_equal (zqb_strerror (caller.error), zqb_strerror (ETERM));
    for (int again = 0; again < 3; again++) {
        errno = 0;
        assert_string_equal (zqb_strerror (call (object)), zqb_strerror (ETERM));
    }
}

/* A context with a broker at an endpoint of inproc and one of ipc, and the names by which a peer may call it. */
enum { HERE, NOBODY, IPC, SEVERAL, WAYS };

static void new_world (char endpoints[WAYS][256])
{
    const char *ipc = short_ipc ();
    ctx = zmq_ctx_new ();
    broker = start_broker (ENDPOINT, NULL);
    assert_non_null (broker);
    assert_ok (zqb_broker_bind (broker, ipc));
    strcpy (endpoints[HERE], ENDPOINT);
    strcpy (endpoints[NOBODY], "inproc://nobody");
    strcpy (endpoints[IPC], ipc);
    snprintf (endpoints[SEVERAL], 256, "%s,%s,inproc://nobody", ipc, ENDPOINT);
}

static void end_world (void)
{
    zqb_broker_destroy (&broker);
    context_is_free ();
    for (; ipc_count; ipc_count--)
        unlink (ipc_endpoints[(ipc_count - 1) % IPC_MOST] + strlen ("ipc://"));
}

static zqb_client_t *client_at (const char *endpoints, int dialect, int spin_us)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.spin_us = spin_us;
    options.timeout_ms = -1;
    return zqb_client_new (ctx, endpoints, &options);
}

static zqb_worker_t *worker_at (const char *endpoints, int dialect, int spin_us)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    options.spin_us = spin_us;
    options.heartbeat_ms = -1;
    return zqb_worker_new (ctx, endpoints, "echo", &options);
}

static void each_client_hears_of_the_end (int (*call) (void *), const char *what)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (int way = 0; way < WAYS; way++)
            for (size_t i = 0; i < COUNT (moments); i++) {
                char endpoints[WAYS][256];
                new_world (endpoints);
                zqb_client_t *client = client_at (endpoints[way], dialect, moments[i].spin_us);
                assert_non_null (client);
                hears_of_the_end (call, client, &moments[i], what);
                zqb_client_destroy (&client);
                end_world ();
            }
}

static void each_worker_hears_of_the_end (int (*call) (void *), const char *what)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (int way = 0; way < WAYS; way++)
            for (size_t i = 0; i < COUNT (moments); i++) {
                char endpoints[WAYS][256];
                new_world (endpoints);
                zqb_worker_t *worker = worker_at (endpoints[way], dialect, moments[i].spin_us);
                assert_non_null (worker);
                hears_of_the_end (call, worker, &moments[i], what);
                zqb_worker_destroy (&worker);
                end_world ();
            }
}

TEST (a_call_hears_of_the_end_of_the_context_wherever_it_is)
{
    each_client_hears_of_the_end (client_calls, "zqb_client_call");
}

TEST (a_client_that_receives_hears_of_the_end_of_the_context_wherever_it_is)
{
    each_client_hears_of_the_end (client_receives, "zqb_client_recv");
}

TEST (a_worker_that_receives_hears_of_the_end_of_the_context_wherever_it_is)
{
    each_worker_hears_of_the_end (worker_receives, "zqb_worker_recv");
}

TEST (a_worker_that_runs_hears_of_the_end_of_the_context_wherever_it_is)
{
    each_worker_hears_of_the_end (worker_runs, "zqb_worker_run");
}

/* A broker that is not run yet, with one port or three: it blocks in a receive only if it has but one. */
static void new_idle_broker (int lru, int spin_us)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.spin_us = spin_us;
    ctx = zmq_ctx_new ();
    broker = zqb_broker_new (ctx, &options);
    assert_non_null (broker);
    assert_ok (zqb_broker_bind (broker, ENDPOINT));
    if (lru)
        assert_ok (zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "lru"));
}

static void each_broker_hears_of_the_end (int (*call) (void *), const char *what)
{
    for (int lru = 0; lru < 2; lru++)
        for (size_t i = 0; i < COUNT (moments); i++) {
            if (lru && moments[i].place == RECEIVING)
                continue;
            new_idle_broker (lru, moments[i].spin_us);
            hears_of_the_end (call, broker, &moments[i], what);
            assert_fails (zqb_broker_run (broker), ETERM);
            assert_fails (zqb_broker_step (broker, 0), ETERM);
            end_world ();
        }
}

TEST (a_broker_that_runs_hears_of_the_end_of_the_context_wherever_it_is)
{
    each_broker_hears_of_the_end (broker_runs, "zqb_broker_run");
}

TEST (a_broker_that_is_stepped_hears_of_the_end_of_the_context_wherever_it_is)
{
    each_broker_hears_of_the_end (broker_steps, "zqb_broker_step");
}

/* ---- threads of ours */

static int watch_me (UNUSED zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    watched = 1;
    return zqb_msg_add_str (reply, "x");
}

/* Whether the thread of a started broker has ended by itself: only then may others use the loop. */
static int says_eterm (void)
{
    return zqb_broker_step (broker, 0) == -1 && errno == ETERM;
}

TEST (the_thread_of_a_started_broker_ends_with_the_context)
{
    for (int lru = 0; lru < 2; lru++)
        for (size_t i = 0; i < COUNT (moments); i++) {
            if (moments[i].by_itself || (lru && moments[i].place == RECEIVING))
                continue;
            new_idle_broker (lru, moments[i].spin_us);
            assert_ok (zqb_broker_handle (broker, "echo", watch_me, NULL));
            zqb_client_t *client = client_at (ENDPOINT, 0, 0);
            set (&places, 0);
            assert_ok (zqb_broker_start (broker));
            assert_int_equal (call_text (client, "echo", "x"), 0);
            eventually (!moments[i].place || (get (&places) & moments[i].place));
            zmq_ctx_shutdown (ctx);
            eventually (says_eterm ());
            assert_ok (zqb_broker_start (broker)); /* whose thread ends at once */
            eventually (says_eterm ());
            zqb_client_destroy (&client);
            end_world ();
        }
}

TEST (the_threads_of_a_pool_end_with_the_context)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (size_t i = 0; i < COUNT (moments); i++) {
            if (moments[i].by_itself)
                continue;
            char endpoints[WAYS][256];
            zqb_pool_options_t options;
            memset (&options, 0, sizeof options);
            options.threads = 3;
            options.worker.dialect = dialect;
            options.worker.spin_us = moments[i].spin_us;
            new_world (endpoints);
            void *own = zmq_ctx_new ();
            zqb_pool_t *pool = zqb_pool_start (own, endpoints[IPC], "echo", watch_me, NULL, &options);
            assert_non_null (pool);
            eventually (stat (broker, workers) == 3);
            zqb_client_t *client = client_at (ENDPOINT, 0, 0);
            set (&places, 0);
            assert_int_equal (call_text (client, "echo", "x"), 0);
            eventually (!moments[i].place || (get (&places) & moments[i].place));
            zmq_ctx_shutdown (own);
            eventually (stat (broker, workers) == 0);
            zqb_pool_stop (&pool);
            zmq_ctx_term (own);
            zqb_client_destroy (&client);
            end_world ();
        }
}

/* ---- requests in hand */

TEST (what_a_worker_holds_at_the_end_of_the_context_cannot_be_answered_any_more)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (int how = 0; how < 3; how++) {
            char endpoints[WAYS][256];
            new_world (endpoints);
            zqb_client_t *client = client_at (ENDPOINT, 0, 0);
            zqb_worker_t *worker = worker_at (endpoints[IPC], dialect, 0);
            submit (client, "echo", "x");
            zqb_request_t *request = is_asked (worker, "x");
            zmq_ctx_shutdown (ctx);
            assert_none (zqb_worker_recv (worker, -1), ETERM);
            if (how == 0 && dialect == ZQB_DIALECT_MDP01)
                assert_fails (partial_text (request, "part"), ENOTSUP);
            else if (how == 0)
                assert_true (partial_text (request, "part") == 0 || errno == ENOTCONN);
            if (how < 2)
                assert_true (reply_text (request, "y") == 0 || errno == ENOTCONN);
            else
                assert_true (zqb_request_fail (request, 0, "no") == 0 || errno == ENOTCONN);
            assert_none (zqb_worker_recv (worker, -1), ETERM);
            assert_none (zqb_worker_recv (worker, 0), ETERM);
            zqb_worker_destroy (&worker);
            zqb_client_destroy (&client);
            end_world ();
        }
}

TEST (a_second_answer_after_the_end_of_the_context_is_enotconn)
{
    char endpoints[WAYS][256];
    zqb_request_t *requests[3];
    new_world (endpoints);
    zqb_client_t *client = client_at (ENDPOINT, 0, 0);
    zqb_worker_t *worker = new_worker (0, 3);
    for (int i = 0; i < 3; i++)
        submit (client, "echo", "x");
    for (int i = 0; i < 3; i++)
        requests[i] = is_asked (worker, "x");
    zmq_ctx_shutdown (ctx);
    assert_none (zqb_worker_recv (worker, -1), ETERM);
    reply_text (requests[0], "y");
    assert_fails (partial_text (requests[1], "y"), ENOTCONN);
    assert_fails (zqb_request_fail (requests[1], 0, "y"), ENOTCONN);
    assert_fails (reply_text (requests[2], "y"), ENOTCONN);
    assert_none (zqb_worker_recv (worker, -1), ETERM);
    zqb_worker_destroy (&worker);
    zqb_client_destroy (&client);
    end_world ();
}

/* ---- what does not block */

/* Submits one more and says what was wrong with that, or with a flush behind it. */
static int submits (zqb_client_t *client, int flush)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, "y");
    errno = 0;
    int failed = zqb_client_submit (client, "nobody", &msg, NULL) != 0;
    assert_int_equal (zqb_msg_count (&msg), failed);
    if (!failed && flush)
        failed = zqb_client_flush (client) != 0;
    int error = errno;
    zqb_msg_close (&msg);
    return failed ? error : 0;
}

TEST (a_client_that_only_submits_hears_of_the_end_of_the_context)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (int flush = 0; flush < 2; flush++) {
            char endpoints[WAYS][256];
            new_world (endpoints);
            zqb_client_t *client = client_at (endpoints[IPC], dialect, 0);
            uint64_t id = submit (client, "nobody", "x");
            zmq_ctx_shutdown (ctx);
            if (dialect != ZQB_DIALECT_ZQB1) /* with which a request waits in the client, behind the first */
                assert_int_equal (client_receives (client), ETERM);
            int error = 0;
            eventually ((error = submits (client, flush)) != 0);
            assert_string_equal (zqb_strerror (error), zqb_strerror (ETERM));
            assert_int_equal (submits (client, 0), ETERM);
            assert_fails (zqb_client_flush (client), ETERM);
            assert_ok (zqb_client_cancel (client, id));
            assert_fails (zqb_client_cancel (client, id), ENOENT);
            assert_int_equal (client_calls (client), ETERM);
            zqb_client_destroy (&client);
            end_world ();
        }
}

TEST (after_the_end_of_the_context_nothing_can_be_made_or_bound_but_all_can_be_destroyed)
{
    char endpoints[WAYS][256], name[256];
    new_world (endpoints);
    zqb_client_t *client = client_at (endpoints[IPC], 0, 0);
    zqb_worker_t *worker = worker_at (endpoints[IPC], 0, 0);
    zmq_ctx_shutdown (ctx);
    for (int way = 0; way < WAYS; way++) {
        assert_none (zqb_client_new (ctx, endpoints[way], NULL), ETERM);
        assert_none (zqb_worker_new (ctx, endpoints[way], "echo", NULL), ETERM);
        assert_none (zqb_pool_start (ctx, endpoints[way], "echo", echo, NULL, NULL), ETERM);
    }
    assert_none (zqb_broker_new (ctx, NULL), ETERM);
    eventually (says_eterm ());
    assert_fails (zqb_broker_bind (broker, "inproc://late"), ETERM);
    assert_fails (zqb_broker_bind_lru (broker, "inproc://late", "inproc://later", "lru"), ETERM);
    assert_fails (zqb_broker_endpoint (broker, 2, name, sizeof name), EINVAL);
    assert_ok (zqb_broker_endpoint (broker, -1, name, sizeof name));
    assert_ok (zqb_broker_handle (broker, "in", echo, NULL));
    assert_ok (zqb_broker_time_limit (broker, "out", 1));
    assert_true (unit_adds_up (&(zqb_stats_t){0}));
    assert_true (zqb_broker_fd (broker) >= 0);
    assert_true (zqb_client_fd (client) >= 0);
    assert_true (zqb_worker_fd (worker) >= 0);
    assert_none (zqb_worker_recv (worker, 0), ETERM);
    assert_int_equal (client_calls (client), ETERM);
    zqb_broker_stop (broker);
    zqb_worker_stop (worker);
    assert_none (zqb_worker_recv (worker, 0), ECANCELED);
    zqb_worker_destroy (&worker);
    zqb_client_destroy (&client);
    end_world ();
}

/* The context ends as the n-th socket is to be made. Whether it came to that. */
static int ended_at_socket (int n, int (*make) (const char *))
{
    ctx = zmq_ctx_new ();
    set (&sockets_left, n);
    errno = 0;
    int error = make (short_ipc ()), ended = get (&sockets_left) == 0;
    set (&sockets_left, 0);
    assert_string_equal (zqb_strerror (error), zqb_strerror (ended ? ETERM : 0));
    end_world ();
    return ended;
}

static int make_client (const char *endpoint)
{
    char endpoints[200];
    snprintf (endpoints, sizeof endpoints, "%s,inproc://nobody", endpoint);
    zqb_client_t *client = zqb_client_new (ctx, endpoints, NULL);
    int error = client ? 0 : errno;
    zqb_client_destroy (&client);
    return error;
}

static int make_worker (const char *endpoint)
{
    char endpoints[200];
    snprintf (endpoints, sizeof endpoints, "%s,inproc://nobody", endpoint);
    zqb_worker_t *worker = zqb_worker_new (ctx, endpoints, "echo", NULL);
    int error = worker ? 0 : errno;
    zqb_worker_destroy (&worker);
    return error;
}

static int make_pool (const char *endpoint)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 2;
    zqb_pool_t *pool = zqb_pool_start (ctx, endpoint, "echo", echo, NULL, &options);
    int error = pool ? 0 : errno;
    zqb_pool_stop (&pool);
    return error;
}

static int make_broker (const char *endpoint)
{
    broker = zqb_broker_new (ctx, NULL);
    if (!broker || zqb_broker_bind (broker, endpoint) != 0)
        return errno;
    return zqb_broker_bind_lru (broker, "inproc://front", "inproc://back", "lru") ? errno : 0;
}

TEST (what_is_being_made_as_the_context_ends_is_eterm_and_leaves_nothing_behind)
{
    int (*const makes[]) (const char *) = {make_client, make_worker, make_pool, make_broker};
    const int sockets[] = {3, 3, 4, 6};
    for (size_t i = 0; i < COUNT (makes); i++) {
        int n = 1;
        while (ended_at_socket (n, makes[i]))
            n++;
        assert_int_equal (n - 1, sockets[i]);
    }
}

/* ---- the context ends when a new connection is to be made */

static int call_that_connects_anew (zqb_client_t *client)
{
    caller_t caller = {client_receives, client, 0, 0};
    void *thread = zmq_threadstart (call_watched, &caller);
    eventually (stat (broker, queued) == 1);
    set (&sockets_left, 1);
    zqb_broker_destroy (&broker);
    must_end (&caller.done, "zqb_client_recv");
    zmq_threadclose (thread);
    assert_int_equal (get (&sockets_left), 0);
    return caller.error;
}

TEST (a_client_that_has_lost_its_broker_hears_of_the_end_of_the_context)
{
    for (int dialect = ZQB_DIALECT_MDP01; dialect < DIALECTS; dialect++) {
        char endpoints[WAYS][256];
        new_world (endpoints);
        zqb_client_t *client = client_at (endpoints[IPC], dialect, 0);
        assert_int_equal (call_that_connects_anew (client), ETERM);
        assert_int_equal (client_calls (client), ETERM);
        assert_fails (zqb_client_flush (client), ETERM);
        assert_fails (zqb_client_fd (client), ENOTCONN);
        zqb_client_destroy (&client);
        end_world ();
    }
}

TEST (a_client_that_turns_to_another_broker_hears_of_the_end_of_the_context)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++) {
        char endpoints[WAYS][256];
        zqb_client_options_t options;
        memset (&options, 0, sizeof options);
        options.dialect = dialect;
        options.timeout_ms = 1;
        options.retries = 1000000;
        new_world (endpoints);
        void *mute = zmq_socket (ctx, ZMQ_ROUTER);
        assert_ok (zmq_bind (mute, "inproc://mute"));
        zqb_client_t *client = zqb_client_new (ctx, "inproc://mute,inproc://mute", &options);
        set (&sockets_left, 1);
        caller_t caller = {client_receives, client, 0, 0};
        void *thread = zmq_threadstart (call_watched, &caller);
        must_end (&caller.done, "zqb_client_recv");
        zmq_threadclose (thread);
        assert_int_equal (caller.error, ETERM);
        zqb_client_destroy (&client);
        zmq_close (mute);
        end_world ();
    }
}

TEST (a_worker_that_has_lost_its_broker_hears_of_the_end_of_the_context)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++) {
        char endpoints[WAYS][256];
        new_world (endpoints);
        zqb_worker_t *worker = worker_at (endpoints[IPC], dialect, 0);
        caller_t caller = {worker_runs, worker, 0, 0};
        void *thread = zmq_threadstart (call_watched, &caller);
        eventually (stat (broker, workers) == 1);
        set (&sockets_left, 1);
        zqb_broker_destroy (&broker);
        must_end (&caller.done, "zqb_worker_run");
        zmq_threadclose (thread);
        assert_int_equal (get (&sockets_left), 0);
        assert_int_equal (caller.error, ETERM);
        assert_none (zqb_worker_recv (worker, -1), ETERM);
        assert_fails (zqb_worker_fd (worker), ENOTCONN);
        zqb_worker_destroy (&worker);
        end_world ();
    }
}

/* ============================================================================================================
   Signals
   ============================================================================================================ */

static zqb__flag_t handled;    /* how often a handler ran */
static zqb__flag_t elsewhere;  /* and how often not in the test's thread */
static pthread_t test_thread;
static zqb_broker_t *volatile stopped_broker; /* what the handler stops, if anything */
static zqb_worker_t *volatile stopped_worker;

static void on_signal (int number)
{
    (void) number;
    zqb__flag_add (&handled, 1);
    if (!pthread_equal (pthread_self (), test_thread))
        zqb__flag_add (&elsewhere, 1);
    zqb_broker_stop (stopped_broker);
    zqb_worker_stop (stopped_worker);
}

/* Handlers that interrupt what blocks: without SA_RESTART. */
static const int our_signals[] = {SIGUSR1, SIGALRM, SIGCHLD};

static void handle_signals (int flags)
{
    struct sigaction action;
    memset (&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = flags;
    test_thread = pthread_self ();
    zqb__flag_clear (&handled);
    zqb__flag_clear (&elsewhere);
    stopped_broker = NULL;
    stopped_worker = NULL;
    for (size_t i = 0; i < COUNT (our_signals); i++)
        sigaction (our_signals[i], &action, NULL);
}

/* Whether a thread of the process sleeps and blocks the signal, as its status says. */
static int is_deaf (const char *thread, int number)
{
    char path[300], line[200], state = 0;
    unsigned long long blocked = 0;
    snprintf (path, sizeof path, "/proc/self/task/%s/status", thread);
    FILE *file = fopen (path, "r");
    while (file && fgets (line, sizeof line, file)) {
        sscanf (line, "State: %c", &state);
        sscanf (line, "SigBlk: %llx", &blocked);
    }
    if (file)
        fclose (file);
    return !file || (state == 'S' && blocked & 1ull << (number - 1));
}

/* How many other threads the signal might come to. One that has just been made blocks all signals, then none, and then
   what it likes: so only those that sleep are certain. */
static int count_ears (int number)
{
    int count = 0;
    DIR *threads = opendir ("/proc/self/task");
    for (struct dirent *thread; (thread = readdir (threads)) != NULL;)
        if (thread->d_name[0] != '.' && atoi (thread->d_name) != getpid ())
            count += !is_deaf (thread->d_name, number);
    closedir (threads);
    return count;
}

static int ears_at_first; /* a sanitizer may have one */

static int set_up_signals (void **state)
{
    handle_signals (0);
    int failed = set_up (state);
    eventually (count_ears (SIGUSR1) <= ears_at_first);
    return failed;
}

static int tear_down_signals (void **state)
{
    int failed = close_all (state);
    for (size_t i = 0; i < COUNT (our_signals); i++)
        signal (our_signals[i], SIG_DFL);
    return failed;
}

/* Sends the test's thread signals until it has had enough. */
static zqb__flag_t enough;
static void *tormentor;

static void torment (UNUSED void *arg)
{
    while (!zqb__flag_get (&enough)) {
        pthread_kill (test_thread, SIGUSR1);
        zmq_poll (NULL, 0, 1);
    }
}

static void torment_me (void)
{
    zqb__flag_clear (&enough);
    tormentor = zmq_threadstart (torment, NULL);
}

static void leave_me (void)
{
    zqb__flag_set (&enough);
    zmq_threadclose (tormentor);
}

static zqb_worker_t *worker_for (const char *service, int dialect)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect;
    zqb_worker_t *worker = zqb_worker_new (ctx, ENDPOINT, service, &options);
    assert_non_null (worker);
    return worker;
}

static const int spins[] = {0, 1};

TEST (a_worker_that_was_interrupted_serves_the_next_request)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (size_t i = 0; i < COUNT (spins); i++) {
            zqb_worker_t *worker = worker_at (ENDPOINT, dialect, spins[i]);
            zqb_client_t *client = new_client (0, 0, 0);
            eventually (stat (broker, workers) == 1);
            torment_me ();
            for (int again = 0; again < 5; again++)
                assert_none (zqb_worker_recv (worker, -1), EINTR);
            leave_me ();
            uint64_t id = submit (client, "echo", "x");
            assert_ok (reply_text (is_asked (worker, "x"), "y"));
            receives (client, id, ZQB_REPLY_FINAL, "y");
            zqb_client_destroy (&client);
            zqb_worker_destroy (&worker);
            eventually (stat (broker, workers) == 0);
        }
    assert_int_equal (stat (broker, workers_lost), 0);
    assert_int_equal (stat (broker, requeued), 0);
}

TEST (with_sa_restart_it_is_the_same)
{
    handle_signals (SA_RESTART);
    zqb_worker_t *worker = worker_at (ENDPOINT, 0, 0);
    zqb_client_t *client = new_client (0, 0, 0);
    torment_me ();
    assert_none (zqb_worker_recv (worker, -1), EINTR);
    assert_int_equal (call_text (client, "nobody", "x"), EINTR);
    leave_me ();
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

TEST (a_call_that_was_interrupted_is_cancelled_and_the_next_is_answered)
{
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (size_t i = 0; i < COUNT (spins); i++) {
            zqb_client_t *client = client_at (ENDPOINT, dialect, spins[i]);
            for (int again = 0; again < 3; again++) {
                torment_me ();
                assert_int_equal (call_text (client, "nobody", "x"), EINTR);
                leave_me ();
                assert_int_equal (call_text (client, "echo", "y"), 0);
            }
            zqb_client_destroy (&client);
            if (dialect == ZQB_DIALECT_ZQB1) /* the others have no word for it */
                eventually (stat (broker, cancelled) == 3 * (i + 1) && stat (broker, queued) == 0);
        }
}

TEST (a_receive_that_was_interrupted_loses_no_reply)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (size_t i = 0; i < COUNT (spins); i++) {
            zqb_client_t *client = client_at (ENDPOINT, dialect, spins[i]);
            zqb_reply_t reply;
            zqb_msg_init (&reply.body);
            uint64_t id = submit (client, "later", "x");
            torment_me ();
            for (int again = 0; again < 5; again++)
                assert_fails (zqb_client_recv (client, &reply, -1), EINTR);
            leave_me ();
            zqb_worker_t *worker = worker_for ("later", dialect);
            assert_ok (reply_text (is_asked (worker, "x"), "y"));
            receives (client, id, ZQB_REPLY_FINAL, "y");
            zqb_worker_destroy (&worker);
            zqb_client_destroy (&client);
            eventually (stat (broker, workers) == 0);
        }
    assert_int_equal (stat (broker, cancelled) + stat (broker, client_gone), 0);
}

/* ---- interrupted again and again, before it has waited at all: what the clock says is done all the same */

static int hears_a_heartbeat (void *router)
{
    char bytes[256];
    int more = 0, size = 0;
    for (size_t length = sizeof more; size >= 0; zmq_getsockopt (router, ZMQ_RCVMORE, &more, &length)) {
        size = zmq_recv (router, bytes, sizeof bytes, ZMQ_DONTWAIT);
        if (size > 16 && memcmp (bytes, "ZQB\1", 4) == 0 && bytes[16] == ZQB__HEARTBEAT)
            return 1;
    }
    return 0;
}

TEST (a_worker_that_is_always_interrupted_sends_its_heartbeats)
{
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = 20;
    options.liveness = -1;
    void *router = zmq_socket (ctx, ZMQ_ROUTER);
    assert_ok (zmq_bind (router, "inproc://router"));
    zqb_worker_t *worker = zqb_worker_new (ctx, "inproc://router", "echo", &options);
    hasty = 1;
    for (int beats = 0; beats < 3; beats++)
        eventually (zqb_worker_recv (worker, 100) == NULL && hears_a_heartbeat (router));
    hasty = 0;
    zqb_worker_destroy (&worker);
    zmq_close (router);
}

TEST (a_client_that_is_always_interrupted_times_out)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++) {
        zqb_client_t *client = new_client (dialect, 20, -1);
        zqb_reply_t reply;
        zqb_msg_init (&reply.body);
        uint64_t id = submit (client, "nobody", "x");
        hasty = 1;
        eventually (zqb_client_recv (client, &reply, 100) == 0);
        hasty = 0;
        assert_true (reply.id == id);
        assert_int_equal (reply.error, ETIMEDOUT);
        zqb_client_destroy (&client);
    }
}

/* ---- the broker goes on */

static void call_and_stop (void *arg)
{
    caller_t *caller = (caller_t *) arg;
    zqb_client_t *client = client_at (ENDPOINT, 0, 0);
    for (int i = 0; i < 200 && !caller->error; i++)
        caller->error = call_text (client, "echo", "x");
    eventually (zqb__flag_get (&handled) >= 20);
    caller->error = caller->error ? caller->error : call_text (client, "echo", "x");
    zqb_client_destroy (&client);
    zqb__flag_set (&caller->done);
    zqb_broker_stop (broker);
}

/* The broker is the test's thread's from now on. */
static void take_the_broker (int spin_us)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.spin_us = spin_us;
    zqb_broker_destroy (&broker);
    broker = zqb_broker_new (ctx, &options);
    assert_non_null (broker);
    eventually (zqb_broker_bind (broker, ENDPOINT) == 0);
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
}

TEST (a_broker_that_runs_goes_on_when_it_is_interrupted)
{
    for (size_t i = 0; i < COUNT (spins); i++) {
        caller_t caller = {NULL, NULL, 0, 0};
        take_the_broker (spins[i]);
        zqb__flag_clear (&handled);
        torment_me ();
        void *thread = zmq_threadstart (call_and_stop, &caller);
        assert_ok (zqb_broker_run (broker));
        leave_me ();
        zmq_threadclose (thread);
        assert_int_equal (caller.error, 0);
        assert_int_equal (stat (broker, replied), 201);
    }
}

TEST (a_step_that_is_interrupted_in_its_receive_waits_no_longer)
{
    take_the_broker (0);
    set (&places, 0);
    watched = hasty = 1;
    assert_true (zqb_broker_step (broker, PATIENCE_MS) >= 0);
    watched = hasty = 0;
    assert_int_equal (get (&places), RECEIVING);
}

TEST (a_step_that_is_interrupted_ends_early_and_well)
{
    for (size_t i = 0; i < COUNT (spins); i++) {
        caller_t caller = {NULL, NULL, 0, 0};
        take_the_broker (spins[i]);
        torment_me ();
        for (int again = 0; again < 5; again++) /* nothing is ever due: only a signal ends these */
            assert_true (zqb_broker_step (broker, -1) > 0);
        zqb__flag_clear (&handled);
        void *thread = zmq_threadstart (call_and_stop, &caller);
        while (!zqb__flag_get (&caller.done))
            assert_true (zqb_broker_step (broker, PATIENCE_MS) >= 0);
        leave_me ();
        zmq_threadclose (thread);
        assert_int_equal (caller.error, 0);
    }
}

/* ---- stop, in a handler */

static void signal_once (UNUSED void *arg)
{
    pthread_kill (test_thread, SIGUSR1);
}

static void signal_when_there (void *arg)
{
    eventually (get (&places) & *(int *) arg);
    pthread_kill (test_thread, SIGUSR1);
}

/* Where the test's thread is when the signal comes; 0: perhaps not there yet. */
static void *signal_me_at (int *place)
{
    set (&places, 0);
    return zmq_threadstart (*place ? signal_when_there : signal_once, place);
}

static const struct {
    int place, spin_us;
} stops[] = {{0, 0}, {RECEIVING, 0}, {POLLING, 0}, {SPINNING, LONG_SPIN_US}};

TEST (a_broker_that_is_stopped_in_a_signal_handler_ends_at_once)
{
    watched = 1;
    for (int steps = 0; steps < 2; steps++)
        for (size_t i = 0; i < COUNT (stops); i++) {
            int place = stops[i].place;
            take_the_broker (stops[i].spin_us);
            stopped_broker = broker;
            void *thread = signal_me_at (&place);
            if (steps)
                assert_true (zqb_broker_step (broker, -1) >= 0);
            else
                assert_ok (zqb_broker_run (broker));
            zmq_threadclose (thread);
            stopped_broker = NULL;
        }
    watched = 0;
}

TEST (a_started_broker_may_be_stopped_in_a_signal_handler)
{
    stopped_broker = broker;
    raise (SIGUSR1);
    stopped_broker = NULL;
    eventually (zqb_broker_start (broker) == 0); /* it has ended, and starts anew */
    zqb_client_t *client = new_client (0, 0, 0);
    assert_int_equal (call_text (client, "mmi.any", "501"), 0);
    zqb_client_destroy (&client);
}

TEST (a_worker_that_is_stopped_in_a_signal_handler_ends_at_once)
{
    watched = 1;
    for (int runs = 0; runs < 2; runs++)
        for (size_t i = 0; i < COUNT (stops); i++) {
            int place = stops[i].place;
            zqb_worker_t *worker = worker_at (ENDPOINT, 0, stops[i].spin_us);
            stopped_worker = worker;
            void *thread = signal_me_at (&place);
            if (runs)
                assert_ok (zqb_worker_run (worker, echo, NULL));
            else
                assert_true (!zqb_worker_recv (worker, -1) && (errno == ECANCELED || errno == EINTR));
            zmq_threadclose (thread);
            stopped_worker = NULL;
            assert_none (zqb_worker_recv (worker, -1), ECANCELED);
            assert_ok (zqb_worker_run (worker, echo, NULL));
            zqb_worker_destroy (&worker);
        }
    watched = 0;
}

static void stop_that_worker (void *arg)
{
    eventually (get (&places) & SPINNING);
    zqb_worker_stop ((zqb_worker_t *) arg);
}

TEST (a_worker_that_looks_again_and_again_may_be_stopped_by_another_thread)
{
    zqb_worker_t *worker = worker_at (ENDPOINT, 0, LONG_SPIN_US);
    watched = 1;
    set (&places, 0);
    void *thread = zmq_threadstart (stop_that_worker, worker);
    assert_none (zqb_worker_recv (worker, -1), ECANCELED);
    watched = 0;
    zmq_threadclose (thread);
    zqb_worker_destroy (&worker);
}

TEST (looking_again_and_again_ends_with_the_time_that_it_may_take)
{
    zqb_worker_t *worker = worker_at (ENDPOINT, 0, LONG_SPIN_US);
    zqb_client_t *client = client_at (ENDPOINT, 0, LONG_SPIN_US);
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    submit (client, "nobody", "x");
    assert_none (zqb_worker_recv (worker, 10), EAGAIN);
    assert_fails (zqb_client_recv (client, &reply, 10), EAGAIN);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
    take_the_broker (LONG_SPIN_US);
    assert_true (zqb_broker_step (broker, 10) >= 0);
}

/* ---- which thread gets a signal */

TEST (a_signal_for_the_process_is_never_delivered_to_a_thread_of_ours)
{
    sigset_t set, waiting;
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 3;
    sigemptyset (&set);
    sigaddset (&set, SIGUSR1);
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
    zqb_client_t *client = new_client (0, 0, 0);
    assert_int_equal (call_text (client, "echo", "x"), 0);
    eventually (count_ears (SIGUSR1) <= ears_at_first);
    assert_ok (pthread_sigmask (SIG_BLOCK, &set, NULL));
    kill (getpid (), SIGUSR1);
    for (int i = 0; i < 200; i++)
        assert_int_equal (call_text (client, "echo", "x"), 0);
    assert_ok (sigpending (&waiting));
    assert_true (sigismember (&waiting, SIGUSR1));
    assert_int_equal (zqb__flag_get (&handled), 0);
    assert_ok (pthread_sigmask (SIG_UNBLOCK, &set, NULL));
    eventually (zqb__flag_get (&handled) == 1);
    for (int i = 2; i <= 50; i++) {
        kill (getpid (), SIGUSR1);
        eventually (zqb__flag_get (&handled) == i);
    }
    assert_int_equal (zqb__flag_get (&elsewhere), 0);
    zqb_client_destroy (&client);
    zqb_pool_stop (&pool);
}

/* ---- a storm: a timer that fires each millisecond */

static void storm (int on)
{
    struct itimerval every;
    memset (&every, 0, sizeof every);
    every.it_value.tv_usec = every.it_interval.tv_usec = on ? 1000 : 0;
    setitimer (ITIMER_REAL, &every, NULL);
}

enum { BURST = 50, STORM = 100 }; /* so many signals at least */

static int receive_through_signals (zqb_client_t *client, zqb_reply_t *reply)
{
    int failed;
    do
        failed = zqb_client_recv (client, reply, PATIENCE_MS);
    while (failed && errno == EINTR);
    return failed;
}

/* As many requests as a burst has: each is answered once. */
static void burst_through_signals (zqb_client_t *client)
{
    uint64_t ids[BURST];
    int answers[BURST] = {0};
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    for (int i = 0; i < BURST; i++) {
        zqb_msg_t msg;
        zqb_msg_init (&msg);
        zqb_msg_add (&msg, &i, sizeof i);
        assert_ok (zqb_client_submit (client, "echo", &msg, &ids[i]));
    }
    for (int i = 0, of; i < BURST; i++) {
        assert_ok (receive_through_signals (client, &reply));
        assert_int_equal (reply.kind, ZQB_REPLY_FINAL);
        assert_int_equal (zqb_msg_size (&reply.body, 0), sizeof of);
        memcpy (&of, zqb_msg_data (&reply.body, 0), sizeof of);
        assert_true (reply.id == ids[of]);
        assert_int_equal (answers[of]++, 0);
    }
    assert_fails (zqb_client_recv (client, &reply, 0), ENOENT);
    zqb_msg_close (&reply.body);
}

TEST (in_a_storm_of_signals_every_request_is_answered_once)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++) {
        zqb_pool_options_t options;
        uint64_t before = stat (broker, replied);
        int bursts = 0;
        memset (&options, 0, sizeof options);
        options.threads = 2;
        options.worker.dialect = dialect;
        zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options);
        zqb_client_t *client = new_client (dialect, 0, 0);
        zqb__flag_clear (&handled);
        storm (1);
        for (; bursts < 10 || zqb__flag_get (&handled) < STORM; bursts++)
            burst_through_signals (client);
        storm (0);
        eventually (stat (broker, replied) == before + (uint64_t) bursts * BURST);
        zqb_client_destroy (&client);
        zqb_pool_stop (&pool);
        eventually (stat (broker, workers) == 0);
    }
    zqb_stats_t stats = unit_stats (broker);
    assert_int_equal (stats.accepted, stats.replied);
    assert_int_equal (stats.stale + stats.requeued + stats.workers_lost, 0);
    assert_int_equal (zqb__flag_get (&elsewhere), 0);
}

TEST (in_a_storm_of_signals_a_call_is_answered_or_interrupted)
{
    int calls = 0, answered = 0, error = 0;
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    zqb_client_t *client = new_client (0, 0, 0);
    storm (1);
    for (; calls < 500 || zqb__flag_get (&handled) < STORM; calls++) {
        error = call_text (client, "echo", "x");
        answered += error == 0;
        if (error && error != EINTR)
            break;
    }
    storm (0);
    assert_true (error == 0 || error == EINTR);
    assert_int_equal (call_text (client, "echo", "y"), 0);
    zqb_stats_t stats = unit_stats (broker);
    assert_true (stats.replied > (uint64_t) answered && stats.replied <= (uint64_t) calls + 1);
    assert_int_equal (stats.replied, stats.accepted);
    zqb_client_destroy (&client);
}

static void call_many (void *arg)
{
    caller_t *caller = (caller_t *) arg;
    zqb_client_t *client = client_at (ENDPOINT, 0, 0);
    int calls = 0;
    for (; !caller->error && (calls < 500 || zqb__flag_get (&handled) < STORM); calls++)
        caller->error = call_text (client, "echo", "x");
    *(int *) caller->object = calls;
    zqb_client_destroy (&client);
    zqb__flag_set (&caller->done);
}

TEST (in_a_storm_of_signals_a_worker_serves_every_request_once)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++) {
        int calls = 0, served = 0;
        caller_t caller = {NULL, &calls, 0, 0};
        zqb_worker_t *worker = worker_for ("echo", dialect);
        zqb__flag_clear (&handled);
        void *thread = zmq_threadstart (call_many, &caller);
        storm (1);
        while (!zqb__flag_get (&caller.done)) {
            zqb_request_t *request = zqb_worker_recv (worker, 10);
            assert_true (request || errno == EINTR || errno == EAGAIN);
            served += request && reply_text (request, "x") == 0;
        }
        storm (0);
        zmq_threadclose (thread);
        assert_int_equal (caller.error, 0);
        assert_int_equal (served, calls);
        zqb_worker_destroy (&worker);
        eventually (stat (broker, workers) == 0);
    }
    assert_int_equal (stat (broker, workers_lost) + stat (broker, requeued), 0);
}

static void call_many_and_stop (void *arg)
{
    call_many (arg);
    zqb_broker_stop (broker);
}

TEST (in_a_storm_of_signals_a_broker_serves_every_request_once)
{
    for (size_t i = 0; i < COUNT (spins); i++) {
        int calls = 0;
        caller_t caller = {NULL, &calls, 0, 0};
        take_the_broker (spins[i]);
        zqb__flag_clear (&handled);
        void *thread = zmq_threadstart (call_many_and_stop, &caller);
        storm (1);
        assert_ok (zqb_broker_run (broker));
        storm (0);
        zmq_threadclose (thread);
        assert_int_equal (caller.error, 0);
        assert_int_equal (stat (broker, replied), calls);
    }
}

/* ============================================================================================================
   Other processes: this program again, which is told what to do by its arguments
   ============================================================================================================ */

static const char *program;      /* the path of this one */
static char fds_at_first[4096];  /* descriptors that we were started with, ",0,1,2," */

typedef struct child_t {
    pid_t pid;
    int to, from; /* its standard input and output */
} child_t;

/* Runs program as `what argument`. The child calls nothing but what may be called behind fork. */
static child_t run_program (const char *what, const char *argument)
{
    int to[2], from[2];
    child_t child;
    assert_ok (pipe (to));
    assert_ok (pipe (from));
    fcntl (to[1], F_SETFD, FD_CLOEXEC);
    fcntl (from[0], F_SETFD, FD_CLOEXEC);
    char *const arguments[] = {(char *) program, (char *) what, (char *) argument, NULL};
    child.pid = fork ();
    if (child.pid == 0) {
        dup2 (to[0], 0);
        dup2 (from[1], 1);
        close (to[0]);
        close (from[1]);
        execv (program, arguments);
        _exit (127);
    }
    assert_true (child.pid > 0);
    close (to[0]);
    close (from[1]);
    child.to = to[1];
    child.from = from[0];
    return child;
}

/* What it prints, up to the end of a line or all. */
static void read_line (const child_t *child, char *line, size_t size)
{
    size_t length = 0;
    ssize_t got;
    while (length + 1 < size && ((got = read (child->from, line + length, 1)) == 1 || (got < 0 && errno == EINTR)))
        if (got == 1 && line[length++] == '\n')
            break;
    line[length] = 0;
}

/* Waits for its end: what waitpid says of it. */
static int end_of (child_t *child)
{
    int status = -1;
    close (child->to);
    eventually (waitpid (child->pid, &status, WNOHANG) == child->pid);
    close (child->from);
    return status;
}

static void exits_with (child_t child, int code)
{
    int status = end_of (&child);
    assert_true (WIFEXITED (status));
    assert_int_equal (WEXITSTATUS (status), code);
}

/* The descriptors that are open, as ",0,1,2,", but for that which finds them. */
static void list_fds (char *list, size_t size)
{
    DIR *directory = opendir ("/proc/self/fd");
    size_t length = (size_t) snprintf (list, size, ",");
    for (struct dirent *entry; (entry = readdir (directory)) != NULL;)
        if (entry->d_name[0] != '.' && atoi (entry->d_name) != dirfd (directory) && length + 20 < size)
            length += (size_t) snprintf (list + length, size - length, "%s,", entry->d_name);
    closedir (directory);
}

/* The program: prints the descriptors that it was given and that the one before had not been; 1 if there are any. */
static int tell_fds (const char *known)
{
    char list[4096], entry[32];
    int strange = 0;
    list_fds (list, sizeof list);
    for (char *at = strtok (list, ","); at; at = strtok (NULL, ",")) {
        snprintf (entry, sizeof entry, ",%s,", at);
        if (atoi (at) < 3 || strstr (known, entry))
            continue;
        char path[64], target[200] = "";
        snprintf (path, sizeof path, "/proc/self/fd/%s", at);
        (void) !readlink (path, target, sizeof target - 1);
        printf ("%s is %s\n", at, target);
        strange = 1;
    }
    return strange;
}

/* ---- exec */

TEST (a_program_that_is_executed_inherits_no_descriptor)
{
    char ipc[256], tcp[256], several[600];
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 2;
    strcpy (ipc, short_ipc ());
    assert_ok (zqb_broker_bind (broker, ipc));
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_endpoint (broker, -1, tcp, sizeof tcp));
    assert_ok (zqb_broker_bind_lru (broker, "tcp://127.0.0.1:*", "inproc://back", "lru"));
    assert_true (zqb_broker_fd (broker) >= 0);
    snprintf (several, sizeof several, "%s,%s", tcp, ipc);
    zqb_pool_t *pools[] = {zqb_pool_start (ctx, ipc, "echo", echo, NULL, &options),
                           zqb_pool_start (ctx, tcp, "echo", echo, NULL, &options)};
    zqb_client_t *clients[] = {client_at (ENDPOINT, 0, 0), client_at (ipc, 0, 0), client_at (tcp, 1, 0),
                               client_at (several, 2, 0)};
    eventually (stat (broker, workers) == 4);
    for (size_t i = 0; i < COUNT (clients); i++)
        assert_int_equal (call_text (clients[i], "echo", "x"), 0);
    exits_with (run_program ("fds", fds_at_first), 0);
    for (size_t i = 0; i < COUNT (clients); i++)
        zqb_client_destroy (&clients[i]);
    for (size_t i = 0; i < COUNT (pools); i++)
        zqb_pool_stop (&pools[i]);
}

/* Makes and destroys all kinds of things, until it is told that it is enough. */
static void come_and_go (void *arg)
{
    const char *endpoint = (const char *) arg;
    while (!zqb__flag_get (&enough)) {
        zqb_broker_t *other = zqb_broker_new (ctx, NULL);
        zqb_worker_t *worker = zqb_worker_new (ctx, endpoint, "come", NULL);
        zqb_client_t *client = zqb_client_new (ctx, endpoint, NULL);
        zqb_broker_fd (other);
        zqb_client_destroy (&client);
        zqb_worker_destroy (&worker);
        zqb_broker_destroy (&other);
    }
}

TEST (not_even_one_that_is_executed_while_others_are_being_made)
{
    const char *endpoint = short_ipc ();
    assert_ok (zqb_broker_bind (broker, endpoint));
    zqb__flag_clear (&enough);
    void *thread = zmq_threadstart (come_and_go, (void *) endpoint);
    int strange = 0;
    for (int i = 0; i < 50 && !strange; i++) {
        child_t child = run_program ("fds", fds_at_first);
        strange = end_of (&child);
    }
    zqb__flag_set (&enough);
    zmq_threadclose (thread);
    assert_int_equal (strange, 0);
}

/* ---- fork */

enum { EXITS, IS_KILLED, EXECUTES, KINDS };

static pid_t fork_one (int kind)
{
    pid_t pid = fork ();
    if (pid == 0) {
        if (kind == EXECUTES)
            execl ("/bin/sh", "sh", "-c", "exit 0", (char *) NULL);
        if (kind == IS_KILLED)
            for (;;)
                pause ();
        _exit (0);
    }
    if (pid > 0 && kind == IS_KILLED)
        kill (pid, SIGKILL);
    return pid;
}

/* valgrind (ZQB_SLOW) looks for leaks in a child that exits, too, with this status if there are any: what other threads
   had at hand when the process forked looks lost, as the child has no such threads. */
enum { LOOKS_LOST = 99 };

static void bury (pid_t pid, int kind)
{
    int status = -1;
    pid_t got;
    while ((got = waitpid (pid, &status, 0)) < 0 && errno == EINTR) {
    }
    assert_int_equal (got, pid);
    assert_true (kind == IS_KILLED ? WIFSIGNALED (status) : WIFEXITED (status));
    assert_true (kind == IS_KILLED || WEXITSTATUS (status) == 0
                 || (getenv ("ZQB_SLOW") && kind == EXITS && WEXITSTATUS (status) == LOOKS_LOST));
}

TEST (requests_are_answered_once_while_the_process_forks)
{
    const char *endpoint = short_ipc ();
    int forks = getenv ("ZQB_SLOW") ? 6 : 60;
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 2;
    assert_ok (zqb_broker_bind (broker, endpoint));
    zqb_pool_t *pools[] = {zqb_pool_start (ctx, endpoint, "echo", echo, NULL, &options),
                           zqb_pool_start (ctx, ENDPOINT, "echo", echo, NULL, &options)};
    zqb_client_t *client = client_at (endpoint, 0, 0);
    for (int i = 0; i < forks; i++) {
        uint64_t id = submit (client, "echo", "first");
        pid_t pid = fork_one (i % KINDS);
        assert_true (pid > 0);
        zqb_reply_t reply;
        zqb_msg_init (&reply.body);
        assert_ok (receive_through_signals (client, &reply));
        assert_true (reply.id == id && reply.kind == ZQB_REPLY_FINAL);
        zqb_msg_close (&reply.body);
        burst_through_signals (client);
        bury (pid, i % KINDS);
    }
    eventually (zqb__flag_get (&handled) > 0); /* SIGCHLD */
    zqb_stats_t stats = unit_stats (broker);
    assert_int_equal (stats.replied, forks * (1 + BURST));
    assert_int_equal (stats.accepted, stats.replied);
    assert_int_equal (stats.workers_lost + stats.requeued + stats.stale + stats.bad_header + stats.bad_frames, 0);
    zqb_client_destroy (&client);
    for (size_t i = 0; i < COUNT (pools); i++)
        zqb_pool_stop (&pools[i]);
}

/* ---- programs that end, each as it likes, with all of ours at work */

static zqb_client_t *child_client;
static zqb_pool_t *child_pools[2];

/* The program: says this, and lives as long as its standard input is open. */
static int wait_for_the_end (const char *text)
{
    char byte;
    printf ("%s\n", text);
    fflush (stdout);
    return read (0, &byte, 1) < 0;
}

static int hang (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, UNUSED void *arg)
{
    for (;;)
        pause ();
    return 0;
}

static int exit_4 (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, UNUSED void *arg)
{
    exit (4);
    return 0;
}

/* Like a handler with a bug: what it touches is not there. */
static int crash (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, UNUSED void *arg)
{
    volatile char *page = (volatile char *) mmap (NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page[0];
}

static void on_crash (UNUSED int number)
{
    _exit (5);
}

/* With a broker that runs, and a pool of this handler. */
static void start_all (const char *service, zqb_handler_fn *handler)
{
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 2;
    set_up (NULL);
    child_pools[0] = zqb_pool_start (ctx, ENDPOINT, service, handler, NULL, &options);
    child_client = client_at (ENDPOINT, 0, 0);
}

/* The program: exits while its threads call, answer and hang. */
static int exit_at_work (void)
{
    caller_t caller = {NULL, NULL, 0, 0};
    int calls = 0;
    start_all ("echo", echo);
    child_pools[1] = zqb_pool_start (ctx, ENDPOINT, "hang", hang, NULL, NULL);
    submit (child_client, "hang", "x");
    caller.object = &calls;
    zqb__flag_clear (&handled);
    zmq_threadstart (call_many, &caller); /* which goes on: no signal comes */
    eventually (stat (broker, replied) > 20);
    exit (3);
}

/* The program: a handler makes an end of it. */
static int end_in_a_handler (zqb_handler_fn *handler, int in_broker)
{
    start_all (in_broker ? "other" : "end", handler);
    signal (SIGSEGV, on_crash);
    signal (SIGBUS, on_crash);
    if (in_broker)
        zqb_broker_handle (broker, "end", handler, NULL);
    call_text (child_client, "end", "x");
    return 1;
}

TEST (a_process_may_exit_with_everything_at_work)
{
    for (int i = 0; i < 10; i++)
        exits_with (run_program ("exit", ""), 3);
}

TEST (a_handler_may_exit)
{
    for (int i = 0; i < 5; i++) {
        exits_with (run_program ("exit-in-pool", ""), 4);
        exits_with (run_program ("exit-in-broker", ""), 4);
    }
}

/* The program: how many of the usual signals it has found blocked. */
static int count_blocked (void)
{
    const int usual[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGPIPE};
    sigset_t blocked;
    int count = 0;
    pthread_sigmask (SIG_SETMASK, NULL, &blocked);
    for (size_t i = 0; i < COUNT (usual); i++)
        count += sigismember (&blocked, usual[i]);
    return count;
}

static int execute (UNUSED zqb_request_t *request, UNUSED zqb_msg_t *reply, void *arg)
{
    *(child_t *) arg = run_program ("blocked", "");
    return 0;
}

TEST (a_program_that_a_handler_executes_inherits_what_the_thread_blocks)
{
    child_t child;
    zqb_pool_options_t options;
    memset (&options, 0, sizeof options);
    options.threads = 1;
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "execute", execute, &child, &options);
    zqb_client_t *client = client_at (ENDPOINT, 0, 0);
    assert_int_equal (call_text (client, "execute", ""), EPROTO); /* the reply is empty */
    exits_with (child, 5);
    exits_with (run_program ("blocked", ""), 0);
    zqb_client_destroy (&client);
    zqb_pool_stop (&pool);
}

TEST (a_crash_in_a_handler_is_the_hosts_to_handle)
{
    exits_with (run_program ("crash-in-pool", ""), 5);
    exits_with (run_program ("crash-in-broker", ""), 5);
}

/* ---- a process that is killed, and whose child lives on */

/* The program: serves at this endpoint, and has executed another that lives as long as ours does. */
static int serve (const char *endpoint)
{
    char name[256];
    set_up (NULL);
    if (zqb_broker_bind (broker, endpoint) != 0 || zqb_broker_endpoint (broker, -1, name, sizeof name) != 0)
        return 1;
    if (fork () == 0) {
        execl (program, program, "wait", "ready", (char *) NULL);
        _exit (127);
    }
    return wait_for_the_end (name);
}

/* An address of this machine that nobody else uses: ports of others are not in the way. */
static const char *new_tcp (void)
{
    static char endpoint[64];
    uint64_t dice = zqb__random ();
    snprintf (endpoint, sizeof endpoint, "tcp://127.%u.%u.%u:*", (unsigned) (dice % 250 + 1),
              (unsigned) (dice >> 16) % 250 + 1, (unsigned) (dice >> 32) % 250 + 1);
    return endpoint;
}

TEST (when_a_process_is_killed_what_it_has_executed_keeps_neither_its_endpoints_nor_its_peers)
{
    char endpoint[256], line[256];
    child_t child = run_program ("serve", new_tcp ());
    int read_both = 0;
    for (; read_both < 2; read_both++) {
        read_line (&child, line, sizeof line);
        if (strncmp (line, "tcp:", 4) == 0)
            snprintf (endpoint, sizeof endpoint, "%.*s", (int) strcspn (line, "\n"), line);
        else
            assert_string_equal (line, "ready\n");
    }
    zqb_worker_t *worker = worker_at (endpoint, 0, 0); /* without heartbeats: only its connection tells */
    zqb_client_t *client = client_at (endpoint, 0, 0);
    assert_int_equal (call_text (client, "mmi.any", "501"), 0);
    eventually (!zqb_worker_recv (worker, 1) && worker->line.connected);
    kill (child.pid, SIGKILL);
    assert_true (waitpid (child.pid, NULL, 0) == child.pid);
    eventually (zqb_broker_bind (broker, endpoint) == 0);
    eventually (!zqb_worker_recv (worker, 10) && stat (broker, workers) == 1);
    assert_int_equal (call_text (client, "mmi.any", "501"), 0);
    close (child.to); /* now it ends, too */
    close (child.from);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
}

/* ============================================================================================================
   Peers that close, and stop
   ============================================================================================================ */

/* A peer that says who it is, as ZMTP 3 wants it, asks for much, and goes without reading the answers. */
static void ask_and_go (const char *endpoint, int requests)
{
    void *other = zmq_ctx_new (), *peer = zmq_socket (other, ZMQ_DEALER);
    static char body[100000];
    zqb__set_int (peer, ZMQ_RCVHWM, 1);
    zqb__set_int (peer, ZMQ_LINGER, -1);
    assert_ok (zmq_connect (peer, endpoint));
    for (int i = 0; i < requests; i++) {
        zmq_send (peer, "", 0, ZMQ_SNDMORE);
        zmq_send (peer, "MDPC01", 6, ZMQ_SNDMORE);
        zmq_send (peer, "echo", 4, ZMQ_SNDMORE);
        zmq_send (peer, body, sizeof body, 0);
    }
    eventually (stat (broker, replied) + stat (broker, client_gone) > 0);
    zmq_close (peer);
    zmq_ctx_term (other);
}

TEST (a_peer_that_closes_while_it_is_sent_to_does_not_end_the_process)
{
    char tcp[256];
    struct sigaction now;
    const char *ipc = short_ipc ();
    assert_ok (sigaction (SIGPIPE, NULL, &now));
    assert_true (now.sa_handler == SIG_DFL);
    assert_ok (zqb_broker_bind (broker, ipc));
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_endpoint (broker, -1, tcp, sizeof tcp));
    assert_ok (zqb_broker_handle (broker, "echo", echo, NULL));
    for (int i = 0; i < 20; i++)
        ask_and_go (i % 2 ? ipc : tcp, 20);
    zqb_client_t *client = client_at (tcp, 0, 0);
    assert_int_equal (call_text (client, "echo", "x"), 0);
    zqb_client_destroy (&client);
}

/* A broker that accepts, reads a little and closes, while our client and our worker have much to say to it. */
TEST (a_broker_that_closes_while_it_is_sent_to_does_not_end_the_process)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++) {
        const char *endpoint = short_ipc ();
        static char body[100000];
        zqb_msg_t msg;
        zqb_msg_init (&msg);
        zqb_client_t *client = client_at (endpoint, dialect, 0);
        for (int i = 0; i < 50; i++) {
            zqb_msg_add (&msg, body, sizeof body);
            assert_ok (zqb_client_submit (client, "echo", &msg, NULL));
        }
        for (int i = 0; i < 3; i++) {
            zqb_reply_t reply;
            zqb_msg_init (&reply.body);
            void *other = zmq_ctx_new (), *router = zmq_socket (other, ZMQ_ROUTER);
            zqb__set_int (router, ZMQ_RCVHWM, 1);
            zqb__set_int (router, ZMQ_RCVTIMEO, 10);
            assert_ok (zmq_bind (router, endpoint));
            char byte;
            while (zmq_recv (router, &byte, 1, 0) < 0)
                assert_fails (zqb_client_recv (client, &reply, 1), EAGAIN);
            zqb__set_int (router, ZMQ_LINGER, 0);
            zmq_close (router);
            zmq_ctx_term (other);
            assert_fails (zqb_client_recv (client, &reply, 1), EAGAIN);
        }
        zqb_client_destroy (&client);
    }
}

/* Without time-outs and heartbeats only the connection tells. (A ZQB/1 client is told by the broker itself.) */
TEST (who_waits_for_ever_goes_on_with_the_next_broker_when_the_connection_is_lost)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++)
        for (int works = dialect == 0; works < 2; works++) {
            const char *endpoint = short_ipc ();
            zqb_broker_t *other = start_broker (endpoint, NULL);
            zqb_client_t *client = works ? NULL : client_at (endpoint, dialect, 0);
            zqb_worker_t *worker = works ? worker_at (endpoint, dialect, 0) : NULL;
            caller_t caller = {works ? worker_runs : client_receives, works ? (void *) worker : (void *) client, 0, 0};
            void *thread = zmq_threadstart (call_watched, &caller);
            eventually (stat (other, workers) + stat (other, queued) == 1);
            zqb_broker_destroy (&other);
            eventually ((other = start_broker (endpoint, NULL)) != NULL);
            eventually (stat (other, workers) + stat (other, queued) == 1);
            if (works)
                zqb_worker_stop (worker);
            else
                assert_ok (zqb_broker_handle (other, "nobody", echo, NULL));
            must_end (&caller.done, works ? "zqb_worker_run" : "zqb_client_recv");
            zmq_threadclose (thread);
            assert_int_equal (caller.error, 0);
            zqb_client_destroy (&client);
            zqb_worker_destroy (&worker);
            zqb_broker_destroy (&other);
        }
}

/* ---- stop */

TEST (a_stop_before_it_was_ever_started_is_forgotten_by_start_but_not_by_run_or_step)
{
    take_the_broker (0);
    zqb_broker_stop (broker);
    zqb_broker_stop (broker);
    assert_true (zqb_broker_step (broker, -1) >= 0);
    zqb_broker_stop (broker);
    assert_ok (zqb_broker_run (broker));
    zqb_broker_stop (broker);
    assert_ok (zqb_broker_start (broker));
    zqb_client_t *client = client_at (ENDPOINT, 0, 0);
    assert_int_equal (call_text (client, "echo", "x"), 0);
    zqb_client_destroy (&client);
}

static void stop_often (UNUSED void *arg)
{
    for (int i = 0; i < 1000; i++)
        zqb_broker_stop (broker);
}

TEST (several_threads_may_stop_a_broker_at_once_and_it_may_be_started_again)
{
    zqb_client_t *client = client_at (ENDPOINT, 0, 0);
    for (int again = 0; again < 5; again++) {
        void *threads[4];
        for (size_t i = 0; i < COUNT (threads); i++)
            threads[i] = zmq_threadstart (stop_often, NULL);
        for (size_t i = 0; i < COUNT (threads); i++)
            zmq_threadclose (threads[i]);
        eventually (zqb_broker_start (broker) == 0);
        assert_int_equal (call_text (client, "mmi.any", "501"), 0);
    }
    zqb_client_destroy (&client);
}

static void stop_worker_often (void *arg)
{
    for (int i = 0; i < 1000; i++)
        zqb_worker_stop ((zqb_worker_t *) arg);
}

TEST (several_threads_may_stop_a_worker_at_once)
{
    for (int dialect = 0; dialect < DIALECTS; dialect++) {
        zqb_worker_t *worker = worker_for ("echo", dialect);
        void *threads[4];
        for (size_t i = 0; i < COUNT (threads); i++)
            threads[i] = zmq_threadstart (stop_worker_often, worker);
        assert_ok (zqb_worker_run (worker, echo, NULL));
        for (size_t i = 0; i < COUNT (threads); i++)
            zmq_threadclose (threads[i]);
        assert_none (zqb_worker_recv (worker, -1), ECANCELED);
        zqb_worker_destroy (&worker);
    }
}

/* ---- */

static int run_as (const char *what, const char *argument)
{
    alarm (2 * PATIENCE_MS / 1000); /* whoever forgets us */
    if (strcmp (what, "fds") == 0)
        return tell_fds (argument);
    if (strcmp (what, "blocked") == 0)
        return count_blocked ();
    if (strcmp (what, "wait") == 0)
        return wait_for_the_end (argument);
    if (strcmp (what, "serve") == 0)
        return serve (argument);
    if (strcmp (what, "exit") == 0)
        return exit_at_work ();
    if (strncmp (what, "exit-in-", 8) == 0)
        return end_in_a_handler (exit_4, strcmp (what + 8, "broker") == 0);
    if (strncmp (what, "crash-in-", 9) == 0)
        return end_in_a_handler (crash, strcmp (what + 9, "broker") == 0);
    return 99;
}

#define SIGNALS(name) cmocka_unit_test_setup_teardown (name, set_up_signals, tear_down_signals)

int main (int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_call_hears_of_the_end_of_the_context_wherever_it_is),
        cmocka_unit_test (a_client_that_receives_hears_of_the_end_of_the_context_wherever_it_is),
        cmocka_unit_test (a_worker_that_receives_hears_of_the_end_of_the_context_wherever_it_is),
        cmocka_unit_test (a_worker_that_runs_hears_of_the_end_of_the_context_wherever_it_is),
        cmocka_unit_test (a_broker_that_runs_hears_of_the_end_of_the_context_wherever_it_is),
        cmocka_unit_test (a_broker_that_is_stepped_hears_of_the_end_of_the_context_wherever_it_is),
        cmocka_unit_test (the_thread_of_a_started_broker_ends_with_the_context),
        cmocka_unit_test (the_threads_of_a_pool_end_with_the_context),
        cmocka_unit_test (what_a_worker_holds_at_the_end_of_the_context_cannot_be_answered_any_more),
        cmocka_unit_test (a_second_answer_after_the_end_of_the_context_is_enotconn),
        cmocka_unit_test (a_client_that_only_submits_hears_of_the_end_of_the_context),
        cmocka_unit_test (after_the_end_of_the_context_nothing_can_be_made_or_bound_but_all_can_be_destroyed),
        cmocka_unit_test (what_is_being_made_as_the_context_ends_is_eterm_and_leaves_nothing_behind),
        cmocka_unit_test (a_client_that_has_lost_its_broker_hears_of_the_end_of_the_context),
        cmocka_unit_test (a_client_that_turns_to_another_broker_hears_of_the_end_of_the_context),
        cmocka_unit_test (a_worker_that_has_lost_its_broker_hears_of_the_end_of_the_context),
        SIGNALS (a_worker_that_was_interrupted_serves_the_next_request),
        SIGNALS (with_sa_restart_it_is_the_same),
        SIGNALS (a_call_that_was_interrupted_is_cancelled_and_the_next_is_answered),
        SIGNALS (a_receive_that_was_interrupted_loses_no_reply),
        SIGNALS (a_worker_that_is_always_interrupted_sends_its_heartbeats),
        SIGNALS (a_client_that_is_always_interrupted_times_out),
        SIGNALS (a_broker_that_runs_goes_on_when_it_is_interrupted),
        SIGNALS (a_step_that_is_interrupted_in_its_receive_waits_no_longer),
        SIGNALS (a_step_that_is_interrupted_ends_early_and_well),
        SIGNALS (a_broker_that_is_stopped_in_a_signal_handler_ends_at_once),
        SIGNALS (a_started_broker_may_be_stopped_in_a_signal_handler),
        SIGNALS (a_worker_that_is_stopped_in_a_signal_handler_ends_at_once),
        SIGNALS (a_worker_that_looks_again_and_again_may_be_stopped_by_another_thread),
        SIGNALS (looking_again_and_again_ends_with_the_time_that_it_may_take),
        SIGNALS (a_signal_for_the_process_is_never_delivered_to_a_thread_of_ours),
        SIGNALS (in_a_storm_of_signals_every_request_is_answered_once),
        SIGNALS (in_a_storm_of_signals_a_call_is_answered_or_interrupted),
        SIGNALS (in_a_storm_of_signals_a_worker_serves_every_request_once),
        SIGNALS (in_a_storm_of_signals_a_broker_serves_every_request_once),
        RUNNING (a_program_that_is_executed_inherits_no_descriptor),
        RUNNING (not_even_one_that_is_executed_while_others_are_being_made),
        SIGNALS (requests_are_answered_once_while_the_process_forks),
        cmocka_unit_test (a_process_may_exit_with_everything_at_work),
        cmocka_unit_test (a_handler_may_exit),
        RUNNING (a_program_that_a_handler_executes_inherits_what_the_thread_blocks),
        cmocka_unit_test (a_crash_in_a_handler_is_the_hosts_to_handle),
        RUNNING (when_a_process_is_killed_what_it_has_executed_keeps_neither_its_endpoints_nor_its_peers),
        RUNNING (a_peer_that_closes_while_it_is_sent_to_does_not_end_the_process),
        RUNNING (a_broker_that_closes_while_it_is_sent_to_does_not_end_the_process),
        RUNNING (who_waits_for_ever_goes_on_with_the_next_broker_when_the_connection_is_lost),
        RUNNING (a_stop_before_it_was_ever_started_is_forgotten_by_start_but_not_by_run_or_step),
        RUNNING (several_threads_may_stop_a_broker_at_once_and_it_may_be_started_again),
        RUNNING (several_threads_may_stop_a_worker_at_once),
    };
    program = argv[0];
    if (argc == 3)
        return run_as (argv[1], argv[2]);
    list_fds (fds_at_first, sizeof fds_at_first);
    ears_at_first = count_ears (SIGUSR1);
    return cmocka_run_group_tests_name ("the process", tests, NULL, NULL);
}
