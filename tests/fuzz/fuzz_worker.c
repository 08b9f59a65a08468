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
static int sends_part; /* which may wait until the client has read: 2 when it was stopped for that */
static int dialect, serves_all;

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

/* Only what the user has can be unwanted, and is not so twice. */
static void is_unwanted (zqb_request_t *request, void *arg)
{
    size_t i = 0;
    while (i < held_count && held[i] != request)
        i++;
    CHECK ((i < held_count || runs_left > 0) && arg == NULL, "it is said of what the user has");
}

static int begin (script_t *step)
{
    static const int beats[] = {0, 100, -1, 1000}, pauses[] = {0, 1, 1000, 1};
    zqb_worker_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = dialect = (int) script_byte (step) % 3;
    unsigned chosen = script_byte (step);
    options.heartbeat_ms = beats[chosen & 3];
    options.reconnect_ms = pauses[chosen >> 2 & 3];
    options.credit = chosen & 16 && options.dialect == ZQB_DIALECT_ZQB1 ? 7 : 0;
    options.liveness = chosen & 64 ? -1 : 0;
    options.log = nothing_logged;
    options.cancelled = is_unwanted;
    held_count = 0;
    serves_all = (int) (chosen >> 7 & 1);
    if (chosen & 32) {
        world.memory_holds = script_byte (step) % 32;
        world.memory_fails = 1;
    }
    worker = zqb_worker_new ("a context", script_endpoints (script_byte (step)), serves_all ? "e*" : "echo",
                             &options);
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
    const char *service = zqb_request_service (request, &size);
    CHECK (dialect == ZQB_DIALECT_ZQB1 || strcmp (service, serves_all ? "e*" : "echo") == 0,
           "in Majordomo a request is for our service");
    CHECK (size > 0 && size <= 255 && service[size] == '\0', "a request has a name");
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
    sends_part = kind == WORKER_PARTIAL;
    int failed = kind == WORKER_REPLY     ? zqb_request_reply (held[which], &msg)
                 : kind == WORKER_PARTIAL ? zqb_request_partial (held[which], &msg)
                                          : zqb_request_fail (held[which], (int) frames, frames & 1 ? "it failed" : NULL);
    int error = errno;
    if (sends_part == 2)
        zqb__flag_clear (&worker->own.stop);
    sends_part = 0;
    CHECK (!failed || error == ENOTCONN || error == ENOMEM
               || (kind == WORKER_PARTIAL && (error == ENOTSUP || error == ZQB_ECANCELLED)),
           "an answer fails as it says");
    CHECK (failed || kind == WORKER_FAIL || zqb_msg_count (&msg) == 0, "an answer takes the message over");
    CHECK (!failed || zqb_msg_count (&msg) == frames, "a failed answer leaves the message");
    if (kind != WORKER_PARTIAL && (!failed || error == ENOTCONN))
        held[which] = held[--held_count];
    zqb_msg_close (&msg);
}

static void report (script_t *step)
{
    static char text[301];
    size_t which = script_byte (step);
    uint64_t so_far = script_byte (step), total = script_byte (step);
    size_t length = script_byte (step);
    memset (text, 't', sizeof text - 1);
    text[length == 255 ? 300 : length] = '\0';
    if (!held_count)
        return;
    int failed = zqb_request_progress (held[which % held_count], so_far, total, length & 1 ? text : NULL);
    CHECK (!failed || errno == ENOTCONN || errno == ENOMEM || errno == ZQB_ECANCELLED
               || (errno == ENOTSUP && dialect != ZQB_DIALECT_ZQB1),
           "a report of progress fails as it says");
}

/* Gives one back: it is over then, as with an answer. */
static void refuse (size_t which)
{
    if (!held_count)
        return;
    which %= held_count;
    int failed = zqb_request_refuse (held[which]), error = errno;
    CHECK (!failed || error == ENOTCONN || error == ENOMEM || (error == ENOTSUP && dialect != ZQB_DIALECT_ZQB1),
           "giving back fails as it says");
    if (!failed || error == ENOTCONN)
        held[which] = held[--held_count];
}

static void ask_about (size_t which)
{
    if (!held_count)
        return;
    zqb_request_t *request = held[which % held_count];
    int before = zqb_request_cancelled (request), left = zqb_request_left_ms (request);
    CHECK (before == 0 || before == 1, "it is wanted or not");
    CHECK (left >= -1 && (dialect == ZQB_DIALECT_ZQB1 || left == -1), "something is left, or nothing, or there is no deadline");
    CHECK (!before || zqb_request_cancelled (request), "who wants it no more does not want it again");
}

static int handler (zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    zqb_msg_t part, *body = zqb_request_body (request);
    size_t size = zqb_msg_count (body) ? zqb_msg_size (body, 0) : 0;
    zqb_msg_init (&part);
    sends_part = 1;
    if (size & 4)
        zqb_request_progress (request, 1, size, "so far");
    if (size & 8)
        zqb_request_cancelled (request);
    CHECK (zqb_request_left_ms (request) >= -1, "something is left");
    if (size & 1 && zqb_msg_copy (&part, body) == 0 && zqb_request_partial (request, &part) != 0)
        zqb_msg_close (&part);
    zqb_msg_close (&part);
    zqb_msg_move (reply, body);
    sends_part = 0;
    if (!--runs_left)
        zqb_worker_stop (worker);
    return size & 2 ? -1 : size & 16 ? ZQB_EREFUSED : 0;
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
    if (!comes && (runs_left > 0 || sends_part))
        zqb_worker_stop (worker);
    if (!comes && sends_part)
        sends_part = 2;
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
        case WORKER_PROGRESS: report (step); break;
        case WORKER_REFUSE: refuse (script_byte (step)); break;
        case WORKER_ASK: ask_about (script_byte (step)); break;
        case WORKER_DRAIN:
            if (script_byte (step) == 'D')
                zqb_worker_drain (worker);
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
    runs_left = for_ever = sends_part = 0;
    script_step (&hostile.script, &step);
    int made = begin (&step);
    CHECK (made || world.failed, "a worker is made");
    while (made && script_step (&hostile.script, &step))
        take_step (&step);
    zqb_worker_destroy (&worker);
    world_end ();
    return 0;
}
