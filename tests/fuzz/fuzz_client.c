/*  Fuzzes a client, in each dialect, against a hostile broker (hostile.h). Shows that each request ends once, by a reply or
    an error, or is cancelled; that nothing else is delivered; that what fails leaves things as they were; and that at the
    end nothing is left.

        make fuzz FUZZ=fuzz_client FUZZ_SECONDS=60 */

#include "hostile.h"

enum { ASKED_MOST = 64 };

static zqb_client_t *client;

/* What we know of our requests. */
static struct {
    uint64_t id;
    int outstanding;
} asked[ASKED_MOST];
static size_t asked_count;

static size_t outstanding (void)
{
    size_t count = 0;
    for (size_t i = 0; i < asked_count; i++)
        count += asked[i].outstanding != 0;
    return count;
}

static size_t find (uint64_t id)
{
    size_t i = 0;
    while (i < asked_count && (asked[i].id != id || !asked[i].outstanding))
        i++;
    return i;
}

static void check (void)
{
    world.looks = 0;
    size_t pending = list_length (&client->pending), ended = list_length (&client->ended);
    CHECK (pending + ended == (size_t) client->count, "requests are counted");
    CHECK (list_length (&client->timed) + list_length (&client->untimed) <= pending, "only what is pending has its time");
    CHECK (pending + ended + list_length (&client->arrived) >= outstanding (), "no request is forgotten");
}

static int begin (script_t *step)
{
    static const int timeouts[] = {0, 5, 100, -1}, retries[] = {0, -1, 1, 5};
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.dialect = (int) script_byte (step) % 3;
    unsigned chosen = script_byte (step);
    options.timeout_ms = timeouts[chosen & 3];
    options.retries = retries[chosen >> 2 & 3];
    options.max_pending = chosen & 16 ? 3 : 0;
    asked_count = 0;
    if (chosen & 32) {
        world.memory_holds = chosen >> 6 | script_byte (step) % 32;
        world.memory_fails = 1;
    }
    client = zqb_client_new ("a context", script_endpoints (script_byte (step)), &options);
    return client != NULL;
}

static const char *service_of (script_t *step)
{
    static char longest[256], too_long[257];
    static const char *const names[] = {"echo", "other", "x", longest, too_long, ""};
    memset (longest, 'n', 255);
    memset (too_long, 'n', 256);
    return names[script_byte (step) % COUNT (names)];
}

static void submit (script_t *step)
{
    const char *service = service_of (step);
    zqb_msg_t msg;
    uint64_t id = 0;
    script_msg (step, &msg);
    size_t frames = zqb_msg_count (&msg);
    if (asked_count < ASKED_MOST && zqb_client_submit (client, service, &msg, &id) == 0) {
        CHECK (zqb_msg_count (&msg) == 0 && id != 0, "submit takes a request over");
        CHECK (find (id) == asked_count, "a number is not given twice");
        asked[asked_count].id = id;
        asked[asked_count++].outstanding = 1;
    } else
        CHECK (zqb_msg_count (&msg) == frames, "a failed submit leaves the request");
    zqb_msg_close (&msg);
}

static void check_reply (const zqb_reply_t *reply)
{
    size_t which = find (reply->id);
    CHECK (which < asked_count, "a reply is to a request that is outstanding");
    CHECK (reply->kind >= ZQB_REPLY_FINAL && reply->kind <= ZQB_REPLY_ERROR, "a reply is of a known kind");
    CHECK ((reply->kind == ZQB_REPLY_ERROR) == (reply->error != 0), "an error says why, and only an error");
    CHECK (reply->kind != ZQB_REPLY_ERROR || zqb_msg_count (&reply->body) <= 1, "an error has a text or nothing");
    if (which < asked_count)
        asked[which].outstanding = reply->kind == ZQB_REPLY_PARTIAL;
}

static void receive (script_t *step)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    errno = 0;
    if (zqb_client_recv (client, &reply, script_timeout (step)) == 0)
        check_reply (&reply);
    else {
        int error = errno;
        CHECK (error == EAGAIN || error == ENOENT || error == EINTR || error == ETERM || world.failed,
               "recv fails as it says");
        CHECK (error != ENOENT || outstanding () == 0, "nothing is outstanding when recv says so");
    }
    zqb_msg_close (&reply.body);
}

static void call (script_t *step)
{
    const char *service = service_of (step);
    zqb_msg_t msg, reply;
    script_msg (step, &msg);
    zqb_msg_init (&reply);
    size_t frames = zqb_msg_count (&msg);
    errno = 0;
    if (zqb_client_call (client, service, &msg, &reply) == 0)
        CHECK (zqb_msg_count (&msg) == 0, "a call takes the request over");
    else {
        CHECK (errno != 0, "a call says why it failed");
        CHECK (zqb_msg_count (&msg) == frames, "a failed call leaves the request");
    }
    zqb_msg_close (&msg);
    zqb_msg_close (&reply);
}

static void cancel (unsigned which)
{
    uint64_t id = which < asked_count ? asked[which].id : which;
    size_t found = find (id);
    if (zqb_client_cancel (client, id) != 0)
        return;
    CHECK (found < asked_count, "only what is outstanding can be cancelled");
    if (found < asked_count)
        asked[found].outstanding = 0;
}

static void take_step (script_t *step)
{
    unsigned kind = script_byte (step) % OWN_KINDS;
    switch (kind) {
        case CLIENT_SUBMIT: submit (step); break;
        case CLIENT_RECEIVE: receive (step); break;
        case CLIENT_CALL: call (step); break;
        case CLIENT_CANCEL: cancel (script_byte (step)); break;
        case CLIENT_FLUSH: zqb_client_flush (client); break;
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
    script_step (&hostile.script, &step);
    int made = begin (&step);
    CHECK (made || world.failed, "a client is made");
    while (made && script_step (&hostile.script, &step))
        take_step (&step);
    zqb_client_destroy (&client);
    world_end ();
    return 0;
}
