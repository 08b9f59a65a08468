/*  Fuzzes a worker, in each dialect, against a hostile broker (hostile.h). Shows that requests are handed out whole, that
    each is answered or stays the user's, that nothing is said for which there is no registration, and that at the end
    nothing is left.

        make fuzz FUZZ=fuzz_worker FUZZ_SECONDS=60 */

#include "hostile.h"

enum { HELD_MOST = 32 };

static zqb_worker_t *worker;
static zqb_request_t *held[HELD_MOST];
static size_t held_count;
static int runs_left; /* requests, until run is stopped */
static int for_ever;  /* somebody waits so long */

static void check (void)
{
    world.looks = 0;
    CHECK (list_length (&worker->held) == held_count, "the user has what he was given");
    list_length (&worker->waiting);
    list_length (&worker->spare);
    CHECK (!worker->registered || worker->line.socket, "nobody is registered without a connection");
    CHECK (worker->registered || list_length (&worker->waiting) == 0, "what waits was for a registration");
}

static void nothing_logged (int level, const char *text, void *arg)
{
    CHECK (level >= ZQB_LOG_ERROR && level <= ZQB_LOG_DEBUG && strlen (text) < 512 && arg == NULL, "lines are logged");
}

static int begin (script_t *step)
{
    static const int beats[] = {0, 100, -1, 1000}, pauses[] = {0, 1, 1000, 1};
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = (int) script_byte (step) % 3;
    unsigned chosen = script_byte (step);
    options.heartbeat_ms = beats[chosen & 3];
    options.reconnect_ms = pauses[chosen >> 2 & 3];
    options.credit = chosen & 16 && options.dialect == ZQB_DIALECT_ZQB1 ? 7 : 0;
    options.liveness = chosen & 64 ? -1 : 0;
    options.log = nothing_logged;
    held_count = 0;
    if (chosen & 32) {
        world.memory_holds = script_byte (step) % 32;
        world.memory_fails = 1;
    }
    worker = zqb_worker_new ("a context", script_endpoints (script_byte (step)), "echo", &options);
    return worker != NULL;
}

static void receive (script_t *step)
{
    size_t size;
    int timeout = script_timeout (step);
    if (held_count == HELD_MOST)
        return;
    errno = 0;
    for_ever = timeout < 0;
    zqb_request_t *request = zqb_worker_recv (worker, timeout);
    for_ever = 0;
    if (!request) {
        int error = errno;
        CHECK (error == EAGAIN || error == EINTR || error == ECANCELED || error == ETERM || error == ZQB_EREFUSED
                   || world.failed,
               "recv fails as it says");
        return;
    }
    CHECK (strcmp (zqb_request_service (request, &size), "echo") == 0 && size == 4, "a request is for our service");
    for (size_t i = 0; i < zqb_msg_count (zqb_request_body (request)); i++)
        CHECK (zqb_msg_data (zqb_request_body (request), i) != NULL, "a request has its frames");
    held[held_count++] = request;
}

/* Answers one that we hold: it is over then, unless that failed for another reason than that its broker is gone. */
static void answer (script_t *step, unsigned kind)
{
    size_t which = script_byte (step);
    zqb_msg_t msg;
    if (!held_count)
        return;
    which %= held_count;
    script_msg (step, &msg);
    size_t frames = zqb_msg_count (&msg);
    int failed = kind == WORKER_REPLY     ? zqb_request_reply (held[which], &msg)
                 : kind == WORKER_PARTIAL ? zqb_request_partial (held[which], &msg)
                                          : zqb_request_fail (held[which], 0, frames & 1 ? "it failed" : NULL);
    int error = errno;
    CHECK (!failed || error == ENOTCONN || error == ENOMEM || (error == ENOTSUP && kind == WORKER_PARTIAL),
           "an answer fails as it says");
    CHECK (failed || kind == WORKER_FAIL || zqb_msg_count (&msg) == 0, "an answer takes the message over");
    CHECK (!failed || zqb_msg_count (&msg) == frames, "a failed answer leaves the message");
    if (kind != WORKER_PARTIAL && (!failed || error == ENOTCONN))
        held[which] = held[--held_count];
    zqb_msg_close (&msg);
}

static int handler (zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    zqb_msg_t part, *body = zqb_request_body (request);
    size_t size = zqb_msg_count (body) ? zqb_msg_size (body, 0) : 0;
    zqb_msg_init (&part);
    if (size & 1 && zqb_msg_copy (&part, body) == 0 && zqb_request_partial (request, &part) != 0)
        zqb_msg_close (&part);
    zqb_msg_close (&part);
    zqb_msg_move (reply, body);
    if (!--runs_left)
        zqb_worker_stop (worker);
    return size & 2 ? -1 : 0;
}

/* Runs a handler until it has had enough, or there is nothing more to come. */
static void run (unsigned most)
{
    script_t script = hostile.script, step;
    if (!script_step (&script, &step))
        return;
    runs_left = (int) (most % 8 + 1);
    world.ended |= world.interrupts != 0; /* run goes on after those */
    if (zqb_worker_run (worker, handler, NULL) == 0)
        zqb__flag_clear (&worker->own.stop);
}

/* As hostile_waits; who waits for ever is interrupted, or stopped, when the script has no more for him. */
static int waits (uint64_t until)
{
    int comes = hostile_waits (until);
    if (!comes && for_ever)
        world.interrupts = 1;
    if (!comes && runs_left > 0)
        zqb_worker_stop (worker);
    return comes;
}

static void take_step (script_t *step)
{
    unsigned kind = script_byte (step) % OWN_KINDS;
    switch (kind) {
        case WORKER_RECEIVE: receive (step); break;
        case WORKER_REPLY:
        case WORKER_PARTIAL:
        case WORKER_FAIL: answer (step, kind); break;
        case WORKER_RUN:
            run (script_byte (step));
            runs_left = 0;
            break;
        case WORKER_STOP:
            if (script_byte (step) == 'S')
                zqb_worker_stop (worker);
            break;
        default:
            if (kind < HOSTILE_STEPS)
                hostile_step (kind, step);
    }
    check ();
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    script_t step = {NULL, 0};
    hostile_begin (data, size);
    world.waits = waits;
    runs_left = for_ever = 0;
    script_step (&hostile.script, &step);
    int made = begin (&step);
    CHECK (made || world.failed, "a worker is made");
    while (made && script_step (&hostile.script, &step))
        take_step (&step);
    zqb_worker_destroy (&worker);
    world_end ();
    return 0;
}
