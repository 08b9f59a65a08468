/*  guarded.c - a broker whose peers somebody lets in, ours or CZMQ's zauth, for test_matrix.py

        guarded RULES MECHANISM zqb_auth FILE
        guarded RULES MECHANISM zauth COMMAND VALUE...
        guarded has-zauth

    MECHANISM is null, plain or the file of a secret key, for CURVE. FILE is a list of zqb_auth's; COMMAND and VALUE are
    what zauth is told. Inside this process two workers serve "open" and "closed": their reply is the user id of who
    called, and the body.

    Standard output has "bound" and the endpoint, and "ready"; with zauth also what zqb_auth_start says beside it.
    SIGTERM ends it, with status 0. "has-zauth" ends with status 0 if it was built with CZMQ, by -DWITH_CZMQ. */

#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#ifdef WITH_CZMQ
#include <czmq.h>
#endif

#define INSIDE "inproc://guarded"

static int failed (const char *what)
{
    fprintf (stderr, "guarded: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

/* ---- who lets peers in */

typedef struct guard_t {
    void *ctx; /* in which it answers, and which the broker has to use */
    zqb_auth_t *auth;
#ifdef WITH_CZMQ
    zactor_t *zauth;
#endif
} guard_t;

static int start_zqb_auth (guard_t *guard, char **arguments)
{
    zqb_auth_options_t options;

    memset (&options, 0, sizeof options);
    options.file = arguments[0];
    guard->ctx = zmq_ctx_new ();
    guard->auth = zqb_auth_start (guard->ctx, &options);
    return guard->auth ? 0 : failed (arguments[0]);
}

#ifdef WITH_CZMQ

enum { HAS_ZAUTH = 1 };

/* CZMQ has one context for all that it does. */
static int start_zauth (guard_t *guard, char **arguments)
{
    guard->ctx = zsys_init ();
    guard->zauth = zactor_new (zauth, NULL);
    for (; arguments[0] && arguments[1]; arguments += 2) {
        zstr_sendx (guard->zauth, arguments[0], arguments[1], NULL);
        zsock_wait (guard->zauth);
    }
    guard->auth = zqb_auth_start (guard->ctx, NULL);
    printf ("zqb_auth_start: %s\n", guard->auth ? "there are two" : zqb_strerror (errno));
    return guard->auth ? -1 : 0;
}

static void end_zauth (guard_t *guard)
{
    zactor_destroy (&guard->zauth);
    zsys_shutdown ();
}

#else

enum { HAS_ZAUTH = 0 };

static int start_zauth (guard_t *guard, char **arguments)
{
    (void) guard;
    (void) arguments;
    errno = ENOTSUP;
    return failed ("zauth");
}

static void end_zauth (guard_t *guard)
{
    (void) guard;
}

#endif

static int start_guard (guard_t *guard, char **arguments)
{
    int ours = strcmp (arguments[0], "zqb_auth") == 0;

    return ours ? start_zqb_auth (guard, arguments + 1) : start_zauth (guard, arguments + 1);
}

static void end_guard (guard_t *guard)
{
    if (!guard->auth) {
        end_zauth (guard);
        return;
    }
    zqb_auth_stop (&guard->auth);
    zmq_ctx_term (guard->ctx);
}

/* ---- the broker, and who serves inside */

static int tell_who (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_msg_t *body = zqb_request_body (request);

    (void) arg;
    if (zqb_msg_add_str (reply, zqb_request_user (request)) != 0)
        return -1;
    return zqb_msg_add (reply, zqb_msg_data (body, 0), zqb_msg_size (body, 0));
}

static zqb_pool_t *serve_inside (void *ctx, const char *service)
{
    zqb_pool_options_t options;

    memset (&options, 0, sizeof options);
    options.threads = 1;
    options.worker.liveness = 1000; /* it never comes anew because the machine stood still */
    return zqb_pool_start (ctx, INSIDE, service, tell_who, NULL, &options);
}

static int bind_broker (zqb_broker_t *broker, const char *rules)
{
    char endpoint[256];

    if (zqb_broker_rules (broker, rules) != 0)
        return failed (rules);
    if (zqb_broker_bind (broker, INSIDE) != 0 || zqb_broker_bind (broker, "tcp://127.0.0.1:*") != 0
        || zqb_broker_endpoint (broker, -1, endpoint, sizeof endpoint) != 0 || zqb_broker_start (broker) != 0)
        return failed ("broker");
    printf ("bound %s\n", endpoint);
    return 0;
}

static zqb_broker_t *start_broker (const guard_t *guard, const char *rules, const char *mechanism)
{
    char secret[4096];
    zqb_broker_options_t options;

    memset (&options, 0, sizeof options);
    snprintf (secret, sizeof secret, "file:%s", mechanism);
    options.auth = guard->auth;
    options.zap_domain = guard->auth ? NULL : "guarded"; /* without either, a broker of NULL asks nobody */
    if (strcmp (mechanism, "plain") == 0)
        options.plain = 1;
    else if (strcmp (mechanism, "null") != 0)
        options.server_secret = secret;
    zqb_broker_t *broker = zqb_broker_new (guard->ctx, &options);
    if (!broker)
        failed (mechanism);
    else if (bind_broker (broker, rules) != 0)
        zqb_broker_destroy (&broker);
    return broker;
}

/* Until SIGTERM, which all threads have blocked. */
static int serve (void *ctx)
{
    int number;
    sigset_t ends;
    zqb_pool_t *open = serve_inside (ctx, "open"), *closed = serve_inside (ctx, "closed");

    if (open && closed) {
        printf ("ready\n");
        fflush (stdout);
        sigemptyset (&ends);
        sigaddset (&ends, SIGTERM);
        sigwait (&ends, &number);
    }
    int rc = open && closed ? 0 : failed ("pool");
    zqb_pool_stop (&open);
    zqb_pool_stop (&closed);
    return rc;
}

static void block (int number)
{
    sigset_t blocked;
    sigemptyset (&blocked);
    sigaddset (&blocked, number);
    pthread_sigmask (SIG_BLOCK, &blocked, NULL);
}

int main (int argc, char **argv)
{
    guard_t guard;

    if (argc == 2 && strcmp (argv[1], "has-zauth") == 0)
        return HAS_ZAUTH ? 0 : 1;
    if (argc < 5) {
        fprintf (stderr, "usage: guarded RULES MECHANISM zqb_auth|zauth WHAT IT IS TOLD...\n");
        return 2;
    }
    memset (&guard, 0, sizeof guard);
    block (SIGTERM);
    if (start_guard (&guard, argv + 3) != 0)
        return 1;
    zqb_broker_t *broker = start_broker (&guard, argv[1], argv[2]);
    int status = broker && serve (guard.ctx) == 0 ? 0 : 1;
    zqb_broker_destroy (&broker);
    end_guard (&guard);
    return status;
}
