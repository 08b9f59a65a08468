/*  Fuzzes a client, in each dialect, against a hostile broker (hostile.h). Shows that each request ends once, by a reply or
    an error, or is cancelled, whatever it asked for; that nothing else is delivered; that what fails leaves things as they
    were; and that at the end nothing is left.

        make fuzz FUZZ=fuzz_client FUZZ_SECONDS=60 */

#include "hostile.h"

enum { ASKED_MOST = 64 };

static zqb_client_t *client;
static int dialect;

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
    options.dialect = dialect = (int) script_byte (step) % 3;
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

/* Wishes: which, as bits of a number, and of each a value. NULL: none at all. */
static const zqb_request_options_t *wishes_of (script_t *step)
{
    static zqb_request_options_t wishes;
    static char keys[2][257];
    static const int spans[] = {0, 1, 50, 1000, 100000, -1, INT_MAX, 20};
    enum { LONGEST_MS = 100000 }; /* until which it is asked for again and again */
    unsigned has = script_number (step);
    memset (&wishes, 0, sizeof wishes);
    int *const numbers[] = {&wishes.priority, &wishes.deadline_ms, &wishes.delay_ms, &wishes.attempts, &wishes.backoff_ms,
                            &wishes.backoff_max_ms};
    int *const flags[] = {&wishes.one_way, &wishes.fail_fast, &wishes.survey};
    for (unsigned bit = 0; bit < 6; bit++)
        if (has >> bit & 1)
            *numbers[bit] = bit == 0 ? (int) script_byte (step) % 16 - 6 : spans[script_byte (step) % COUNT (spans)];
    for (unsigned bit = 0; bit < 2; bit++) {
        unsigned size = has >> (6 + bit) & 1 ? script_byte (step) : 0;
        memset (keys[bit], 'k', sizeof keys[bit]);
        keys[bit][size == 255 ? 256 : size] = '\0';
    }
    wishes.deadline_ms = wishes.deadline_ms < LONGEST_MS ? wishes.deadline_ms : LONGEST_MS;
    wishes.unique = has >> 6 & 1 ? keys[0] : NULL;
    wishes.affinity = has >> 7 & 1 ? keys[1] : NULL;
    for (unsigned bit = 0; bit < 3; bit++)
        if (has >> (8 + bit) & 1)
            *flags[bit] = (int) script_byte (step) % 2;
    return has & 0x8000 ? NULL : &wishes;
}

static int key_is_bad (const char *key)
{
    return key && (strlen (key) < 1 || strlen (key) > 255);
}

/* Whether nobody may ask for that. */
static int are_bad (const zqb_request_options_t *wishes)
{
    return wishes
           && (wishes->priority < ZQB_PRIORITY_LOWEST || wishes->priority > ZQB_PRIORITY_HIGHEST || wishes->deadline_ms < 0
               || wishes->delay_ms < 0 || wishes->attempts < -1 || wishes->attempts > 65534 || wishes->backoff_ms < 0
               || wishes->backoff_max_ms < 0 || key_is_bad (wishes->unique) || key_is_bad (wishes->affinity)
               || (wishes->survey && wishes->one_way));
}

static int has_any (const zqb_request_options_t *wishes)
{
    return wishes
           && (wishes->priority || wishes->deadline_ms || wishes->delay_ms || wishes->attempts || wishes->backoff_ms
               || wishes->backoff_max_ms || wishes->unique || wishes->affinity || wishes->one_way || wishes->fail_fast
               || wishes->survey);
}

/* What asking with wishes says about them. */
static void check_wishes (const zqb_request_options_t *wishes, int failed, int error)
{
    CHECK (failed || !are_bad (wishes), "numbers out of range, and keys, are refused");
    CHECK (failed || dialect == ZQB_DIALECT_ZQB1 || !has_any (wishes), "Majordomo has no words for wishes");
    CHECK (!failed || error != ENOTSUP || (dialect != ZQB_DIALECT_ZQB1 && wishes), "ZQB/1 has words for wishes");
}

static void submit (script_t *step, int with)
{
    const zqb_request_options_t *wishes = with ? wishes_of (step) : NULL;
    const char *service = service_of (step);
    int one_way = wishes && wishes->one_way;
    zqb_msg_t msg;
    uint64_t id = 0;
    script_msg (step, &msg);
    size_t frames = zqb_msg_count (&msg);
    if (asked_count == ASKED_MOST) {
        zqb_msg_close (&msg);
        return;
    }
    errno = 0;
    int failed = with ? zqb_client_submit_with (client, service, wishes, &msg, &id)
                      : zqb_client_submit (client, service, &msg, &id);
    check_wishes (wishes, failed, errno);
    if (!failed && one_way)
        CHECK (zqb_msg_count (&msg) == 0 && id == 0, "a request that is one way has no number");
    else if (!failed) {
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
    CHECK (reply->kind >= ZQB_REPLY_FINAL && reply->kind <= ZQB_REPLY_PROGRESS, "a reply is of a known kind");
    CHECK (reply->error == ZQB_EFAILED || reply->code == 0, "only a failure has a code");
    CHECK (reply->kind == ZQB_REPLY_PROGRESS || reply->kind == ZQB_REPLY_FINAL || (reply->done == 0 && reply->total == 0),
           "only progress, and the end of a survey, says how far it is");
    CHECK (reply->kind != ZQB_REPLY_PROGRESS || (zqb_msg_count (&reply->body) <= 1 && dialect == ZQB_DIALECT_ZQB1),
           "progress has a text or nothing");
    CHECK ((reply->kind == ZQB_REPLY_ERROR) == (reply->error != 0), "an error says why, and only an error");
    CHECK (reply->kind != ZQB_REPLY_ERROR || zqb_msg_count (&reply->body) <= 1, "an error has a text or nothing");
    if (which < asked_count)
        asked[which].outstanding = reply->kind == ZQB_REPLY_PARTIAL || reply->kind == ZQB_REPLY_PROGRESS;
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

static void call (script_t *step, int with)
{
    const zqb_request_options_t *wishes = with ? wishes_of (step) : NULL;
    const char *service = service_of (step);
    zqb_msg_t msg, reply;
    script_msg (step, &msg);
    zqb_msg_init (&reply);
    size_t frames = zqb_msg_count (&msg);
    errno = 0;
    int failed = with ? zqb_client_call_with (client, service, wishes, &msg, &reply)
                      : zqb_client_call (client, service, &msg, &reply);
    int error = errno;
    check_wishes (wishes, failed, error);
    if (!failed)
        CHECK (zqb_msg_count (&msg) == 0, "a call takes the request over");
    else {
        CHECK (error != 0, "a call says why it failed");
        CHECK (zqb_msg_count (&msg) == frames, "a failed call leaves the request");
    }
    zqb_msg_close (&msg);
    zqb_msg_close (&reply);
}

static void hear_answer (zqb_msg_t *answer, void *arg)
{
    ++*(int *) arg;
    if (zqb_msg_count (answer) & 1)
        zqb_msg_close (answer);
}

static void survey (script_t *step)
{
    static const int deadlines[] = {-1, 1, 100, 5000};
    int deadline = deadlines[script_byte (step) % COUNT (deadlines)], heard = 0, asked_in_all = 0;
    const char *service = service_of (step);
    zqb_msg_t msg;
    script_msg (step, &msg);
    size_t frames = zqb_msg_count (&msg);
    errno = 0;
    int answered = zqb_client_survey (client, service, &msg, deadline, hear_answer, &heard, &asked_in_all);
    CHECK (answered >= 0 || errno != 0, "a survey says why it failed");
    CHECK (answered < 0 || (zqb_msg_count (&msg) == 0 && answered == heard), "a survey counts who answered");
    CHECK (answered >= 0 || zqb_msg_count (&msg) == frames, "a failed survey leaves the request");
    CHECK (answered < 0 || dialect == ZQB_DIALECT_ZQB1, "Majordomo has no word for a survey");
    zqb_msg_close (&msg);
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
        case CLIENT_SUBMIT:
        case CLIENT_SUBMIT_WITH: submit (step, kind == CLIENT_SUBMIT_WITH); break;
        case CLIENT_RECEIVE: receive (step); break;
        case CLIENT_CALL:
        case CLIENT_CALL_WITH: call (step, kind == CLIENT_CALL_WITH); break;
        case CLIENT_SURVEY: survey (step); break;
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
