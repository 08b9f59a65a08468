/*  Writes the first scripts of the fuzzers (script.h, steps.h): what peers of each dialect say when all is well, with each
    other, and what goes wrong most often. Small files, one for each script.

        tests/build/fuzz/seeds FOLDER       writes FOLDER/fuzz_wire/..., FOLDER/fuzz_broker/... and so on */

#include "script.h"
#include "steps.h"

#include <sys/stat.h>

/* ---- a script that is being written */

static uint8_t script[8192];
static size_t size, step_at;

static void put (unsigned byte)
{
    if (size == sizeof script)
        fuzz_broken ("a seed is small");
    script[size++] = (uint8_t) byte;
}

static void end_step (void)
{
    size_t length = size - step_at - 1;
    if (length > 255)
        fuzz_broken ("a step is small");
    script[step_at] = (uint8_t) length;
}

/* Begins a step; the one before it is done. */
static void step (void)
{
    if (size)
        end_step ();
    step_at = size;
    put (0);
}

static void step_with (unsigned kind, unsigned first)
{
    step ();
    put (kind);
    put (first);
}

static void write_bytes (const char *folder, const char *fuzzer, const char *name, int number)
{
    char path[600];
    snprintf (path, sizeof path, "%s/%s", folder, fuzzer);
    mkdir (path, 0777);
    snprintf (path, sizeof path, "%s/%s/%s-%d", folder, fuzzer, name, number);
    FILE *file = fopen (path, "wb");
    if (!file || fwrite (script, 1, size, file) != size || fclose (file) != 0) {
        perror (path);
        exit (1);
    }
    size = 0;
}

static void write_script (const char *folder, const char *fuzzer, const char *name, int number)
{
    if (size)
        end_step ();
    write_bytes (folder, fuzzer, name, number);
}

/* ---- frames as text: words with spaces between them; "." is an empty one, "1" to "6" are codes, "$" is the last token,
   "#" a large frame */

static unsigned word (const char *text, size_t length)
{
    char code[2] = {text[0] >= '1' && text[0] <= '6' ? (char) (text[0] - '0') : text[0], 0};
    for (unsigned i = 0; i < COUNT (script_words); i++)
        if ((length == 1 && strcmp (script_words[i], code) == 0)
            || (strlen (script_words[i]) == length && memcmp (script_words[i], text, length) == 0))
            return i;
    fprintf (stderr, "seeds: no word %.*s\n", (int) length, text);
    exit (1);
}

static void frames (const char *text)
{
    while (*text) {
        size_t length = strcspn (text, " ");
        if (*text == '.')
            put (0);
        else if (*text == '$')
            put (FRAME_TOKEN), put (0);
        else if (*text == '#')
            put (FRAME_FILL), put (0x08), put (0x00), put ('#');
        else
            put (1 + word (text, length));
        text += length;
        text += *text == ' ';
    }
}

/* A ZQB/1 message; commands follow. */
static void zqb1 (unsigned commands)
{
    put (FRAME_ZQB1);
    put (0);
    put (commands);
}

enum {
    OF_READY = 1, OF_REQUEST, OF_PARTIAL, OF_REPLY, OF_ERROR, OF_HEARTBEAT, OF_DISCONNECT, OF_CANCEL, OF_PROGRESS, OF_MORE,
    OF_DRAIN, OF_END
};

static const char *service_of_seed = "echo"; /* of READY and REQUEST */
static unsigned rare_of_request;             /* what a REQUEST asks for: RARE_PRIORITY ... */

/* Which of the fields that few commands have, and small values. */
static void put_rare (unsigned rare)
{
    static const unsigned bytes[] = {1, 2, 2, 1, 4, 1, 1, 2, 2};
    put (rare >> 8);
    put (rare);
    for (unsigned field = 0; field < COUNT (bytes); field++)
        for (unsigned i = 0; (rare >> field & 1) && i < bytes[field]; i++)
            put (field == 0 ? 130 : i % 2 ? 50 + field : 0);
    if (rare & RARE_WRONG)
        put (rare), put (rare >> 3);
}

/* A command with what its type has; which id. */
static void command (unsigned type, unsigned flags, unsigned id, unsigned frames_of_body)
{
    static const unsigned has[] = {HAS_UNKNOWN, HAS_SERVICE | HAS_CREDIT | HAS_HEARTBEAT, HAS_SERVICE | HAS_BODY, HAS_BODY,
                                   HAS_BODY, HAS_STATUS | HAS_TEXT, 0, 0, 0, HAS_TEXT, HAS_CREDIT, 0};
    unsigned rare = type == OF_PROGRESS ? RARE_PROGRESS : rare_of_request && type == OF_REQUEST ? rare_of_request : 0;
    put (has[type]);
    put (rare ? type | IS_RARE : type);
    put (flags);
    put (id);
    if (has[type] & HAS_SERVICE)
        put (word (service_of_seed, strlen (service_of_seed)));
    if (has[type] & HAS_CREDIT)
        put (0), put (2);
    if (has[type] & HAS_STATUS)
        put (7);
    if (has[type] & HAS_TEXT)
        put (9);
    if (has[type] & HAS_HEARTBEAT)
        put (1), put (0);
    if (has[type] & HAS_UNKNOWN)
        put (99), put (3);
    if (rare)
        put_rare (rare);
    for (unsigned i = 0; (has[type] & HAS_BODY) && i <= frames_of_body; i++)
        put (i == 0 ? frames_of_body : i % 2 ? 12 : 128 + i);
}

static void zqb1_one (unsigned type, unsigned id)
{
    zqb1 (1);
    command (type, 0, id, 2);
}

/* ---- who takes part */

typedef struct party_t {
    unsigned actor; /* of fuzz_broker, and so its port */
    const char *ready, *request, *partial, *reply, *beat, *leave; /* "" if it speaks ZQB/1, NULL if it has no word */
} party_t;

static const party_t workers[] = {
    {0, "", NULL, "", "", "", ""},
    {1, ". MDPW01 1 echo", NULL, NULL, ". MDPW01 3 $ . x #", ". MDPW01 4", ". MDPW01 5"},
    {1, ". MDPW01 READY echo", NULL, NULL, ". MDPW01 REPLY $ . x", ". MDPW01 HEARTBEAT", ". MDPW01 DISCONNECT"},
    {2, "MDPW02 1 echo", NULL, "MDPW02 3 $ . x", "MDPW02 4 $ . x x", "MDPW02 5", "MDPW02 6"},
    {9, ". READY", NULL, NULL, ". $ . x", NULL, NULL},
    {10, "1", NULL, NULL, "$ . x", "2", NULL},
    {11, "READY", NULL, NULL, "$ . x", "HEARTBEAT", NULL}};

static const party_t clients[] = {{3, NULL, "", NULL, NULL, NULL, NULL},
                                  {4, NULL, ". MDPC01 echo x #", NULL, NULL, NULL, NULL},
                                  {5, NULL, "x x MDPC02 1 echo x x x", NULL, NULL, NULL, NULL},
                                  {6, NULL, ". x", NULL, NULL, NULL, NULL},
                                  {4, NULL, ". MDPC01 lru x", NULL, NULL, NULL, NULL}};

/* Says something in the words of a party; nothing if it has none. */
static void say (const party_t *party, const char *text, unsigned type)
{
    if (!text)
        return;
    step_with (BROKER_SAY, party->actor);
    if (*text)
        frames (text);
    else
        zqb1_one (type, type == OF_REQUEST ? 100 : 0);
}

static void limits (unsigned chosen)
{
    step ();
    put (chosen >> 8);
    put (chosen);
    put (1);
}

/* No limits, and those rules of fuzz_broker.c. */
static void rules (unsigned chosen)
{
    limits (0);
    put (255); /* memory is not short */
    put (chosen);
}

/* A worker registers, is asked, says a part and the reply, a heartbeat and goodbye. */
static void exchange (const party_t *worker, const party_t *client)
{
    say (worker, worker->ready, OF_READY);
    say (client, client->request, OF_REQUEST);
    say (client, client->request, OF_REQUEST);
    say (worker, worker->partial, OF_PARTIAL);
    say (worker, worker->reply, OF_REPLY);
    say (worker, worker->beat, OF_HEARTBEAT);
    say (worker, worker->reply, OF_REPLY);
    say (worker, worker->leave, OF_DISCONNECT);
}

static void wait_for (unsigned seconds)
{
    step_with (BROKER_WAIT, 0);
    put (seconds * 16);
    put (0);
    put (8);
}

/* Somebody of ZQB/1 says one command. */
static void says (unsigned actor, unsigned type, unsigned flags, unsigned id)
{
    step_with (BROKER_SAY, actor);
    zqb1 (1);
    command (type, flags, id, 1);
}

/* A request that asks for something, of which the worker tells how far it is; by each kind of worker. */
static void asks (unsigned rare, unsigned flags, const party_t *worker)
{
    rare_of_request = rare;
    says (3, OF_REQUEST, flags, flags & 4 ? 200 : 100);
    says (5, OF_REQUEST, flags, 100);
    say (worker, worker->ready, OF_READY);
    says (3, OF_REQUEST, flags, 101);
    says (0, OF_PROGRESS, 0, 0);
    says (0, OF_PARTIAL, 0, 0);
    says (3, OF_MORE, 0, 100);
    says (3, OF_CANCEL, 0, 101);
    wait_for (1);
    say (worker, worker->reply, OF_REPLY);
    says (0, OF_REPLY, 0, 0);
    rare_of_request = 0;
}

static void seeds_of_wishes (const char *folder)
{
    int number = 0;
    for (unsigned field = 0; field < 9; field++)
        for (size_t w = 0; w < COUNT (workers); w += 2) {
            rules (field * 29);
            asks (1u << field | (field & 1 ? RARE_PRIORITY : 0), 0, &workers[w]);
            say (&workers[w], workers[w].leave, OF_DISCONNECT);
            wait_for (9);
            write_script (folder, "fuzz_broker", "wishes", number++);
        }
    for (unsigned flags = 0; flags < 64; flags += 4) { /* one way, at once or never, of all */
        rules (flags);
        say (&workers[2], workers[2].ready, OF_READY);
        asks (flags & 8 ? RARE_DEADLINE : flags & 32 ? RARE_UNIQUE : 0, flags, &workers[0]);
        wait_for (3);
        write_script (folder, "fuzz_broker", "flags", (int) flags / 4);
    }
    for (unsigned how = 0; how < 8; how++) { /* given back, drained, failed */
        static const uint8_t own[] = {BROKER_DRAIN, BROKER_POLICY, BROKER_SCALE, BROKER_PASS};
        rules (how * 7);
        say (&workers[0], workers[0].ready, OF_READY);
        say (&workers[how % 4], workers[how % 4].ready, OF_READY);
        asks (how & 1 ? RARE_AFFINITY : RARE_BACKOFF, 0, &workers[0]);
        step_with (BROKER_SAY, 0);
        zqb1 (3);
        put (HAS_STATUS), put (OF_ERROR), put (0), put (0), put (how & 1 ? 4 : 7);
        put (HAS_TEXT), put (OF_ERROR | IS_RARE), put (0), put (1), put (3), put_rare (RARE_CODE);
        command (how & 2 ? OF_DRAIN : OF_DISCONNECT, how & 4 ? 2 : 0, 0, 0);
        step_with (own[how % 4], 0);
        put (how * 4);
        says (3, OF_REQUEST, 0, 110);
        wait_for (3);
        write_script (folder, "fuzz_broker", "given-back", (int) how);
    }
    for (unsigned how = 0; how < 16; how++) { /* users, rules and their limits */
        rules (0);
        put (how & 8 ? how * 9 : 0);
        step_with (BROKER_USER, 3), put (1 + how % 3);
        step_with (BROKER_USER, workers[0].actor), put (how & 1 ? 3 : 0);
        say (&workers[0], workers[0].ready, OF_READY);
        says (3, OF_REQUEST, 0, 100);
        asks (how & 2 ? RARE_UNIQUE : 0, 0, &workers[0]);
        step_with (BROKER_RULES, 0), put (1 + 8 * 7 * (how & 1) + how * 2);
        says (3, OF_REQUEST, how & 4 ? 1 : 0, 100);
        step_with (BROKER_USER, 3), put (how % 4);
        step_with (BROKER_LOSE, 3), put (how & 2 ? 2 : 8 + 16 * 5);
        says (3, OF_REQUEST, 0, 101);
        step_with (BROKER_RULES, 0), put (how & 1 ? 0 : 0x31);
        wait_for (3);
        write_script (folder, "fuzz_broker", "users", (int) how);
    }
    for (unsigned how = 0; how < 4; how++) { /* the end of one connection, as another user comes over its number */
        const party_t *lost = &workers[how & 1 ? 1 : 0], *other = &workers[3];
        rules (0);
        step_with (BROKER_USER, other->actor), put (1);
        say (lost, lost->ready, OF_READY);
        say (other, other->ready, OF_READY);
        says (3, OF_REQUEST, 0, 100);
        step_with (BROKER_USER, other->actor), put (how & 2);
        step_with (BROKER_CONNECTION, other->actor), put (lost->actor + 1);
        step_with (BROKER_SAY_AND_MORE, other->actor);
        frames (other->beat);
        step_with (BROKER_LOSE, lost->actor), put (1);
        wait_for (3);
        write_script (folder, "fuzz_broker", "name-of-another", (int) how);
    }
    for (unsigned how = 0; how < 8; how++) { /* patterns */
        static const char *const names[] = {"e*", "echo*", "*", "echo"};
        rules (how);
        says (3, OF_REQUEST, 0, 100);
        for (unsigned i = 0; i < 3; i++) {
            service_of_seed = names[(how + i) % COUNT (names)];
            say (&workers[0], workers[0].ready, OF_READY);
            service_of_seed = "echo";
            says (3, OF_REQUEST, how & 4 ? 16 : 0, 101 + i);
            step_with (BROKER_SAY, 4);
            frames (". MDPC01 echo x #");
        }
        step_with (BROKER_SAY, 1);
        frames (how & 1 ? ". MDPW01 1 e*" : ". MDPW01 1 echo*");
        say (&workers[0], workers[0].leave, OF_DISCONNECT);
        wait_for (3);
        write_script (folder, "fuzz_broker", "patterns", (int) how);
    }
}

static void seeds_of_broker (const char *folder)
{
    int number = 0;
    for (size_t w = 0; w < COUNT (workers); w++)
        for (size_t c = 0; c < COUNT (clients); c++) {
            limits (0);
            exchange (&workers[w], &clients[c]);
            write_script (folder, "fuzz_broker", "exchange", number++);
        }
    for (int bit = 0; bit < 16; bit++) {
        limits (1u << bit);
        for (size_t c = 0; c < COUNT (clients); c++)
            say (&clients[c], clients[c].request, OF_REQUEST);
        exchange (&workers[bit % 4], &clients[bit % 3]);
        wait_for (3);
        write_script (folder, "fuzz_broker", "limits", bit);
    }
    for (int how = 0; how < 16; how++) {
        limits (0);
        say (&clients[how % 3], clients[how % 3].request, OF_REQUEST);
        say (&workers[how % 4], workers[how % 4].ready, OF_READY);
        step_with (how & 1 ? BROKER_LOSE : BROKER_STATE, how & 2 ? workers[how % 4].actor : clients[how % 3].actor);
        put ((unsigned) how / 4 + 1);
        say (&workers[0], workers[0].ready, OF_READY);
        exchange (&workers[how % 4], &clients[how % 3]);
        wait_for (9);
        write_script (folder, "fuzz_broker", "lost", how);
    }
    for (int held = 0; held < 24; held++) {
        limits (0);
        step_with (BROKER_MEMORY, 0);
        put ((unsigned) held);
        put (held & 1 ? 0 : 3);
        exchange (&workers[held % 4], &clients[held % 3]);
        write_script (folder, "fuzz_broker", "memory", held);
    }
    for (int which = 0; which < 8; which++) {
        static const char *const calls[] = {". MDPC01 mmi.service echo", ". MDPC01 mmi.services x", "MDPC02 1 mmi.workers x",
                                            ". MDPC01 mmi.stats x", ". MDPC01 mmi.none x", ". MDPC01 local x",
                                            "MDPC02 1 local ZQB\1", ". MDPC01 local REPLY x"};
        limits (0);
        step_with (BROKER_HANDLE, 0);
        put (5);
        say (&workers[3], workers[3].ready, OF_READY);
        step_with (BROKER_SAY, 4);
        frames (calls[which]);
        write_script (folder, "fuzz_broker", "handled", which);
    }
    for (unsigned kind = 0; kind < 4; kind++) { /* sent again, cancelled, over another connection */
        limits (0);
        say (&clients[0], "", OF_REQUEST);
        step_with (BROKER_SAY, clients[0].actor);
        zqb1 (2);
        command (OF_REQUEST, 1, 100, 1);
        command (kind & 1 ? OF_CANCEL : OF_REQUEST, 0, kind & 2 ? 100 : 101, 1);
        step_with (BROKER_LOSE, clients[0].actor);
        put (kind == 3 ? 7 : 3);
        step_with (BROKER_SAY, clients[0].actor);
        zqb1 (1);
        command (OF_REQUEST, 1, 100, 1);
        exchange (&workers[kind], &clients[0]);
        write_script (folder, "fuzz_broker", "again", (int) kind);
    }
}

/* ---- single messages, at each place */

static void each_place (const char *folder, const char *name, int number, const char *text, unsigned type)
{
    for (unsigned place = 0; place < 4; place++) {
        step ();
        put (place);
        if (place != 3)
            frames ("x");
        if (*text)
            frames (text);
        else if (type)
            zqb1_one (type, 0);
        else {
            zqb1 (OF_END - 1);
            for (unsigned all = 1; all < OF_END; all++)
                command (all, all, all, all % 4);
        }
    }
    write_script (folder, "fuzz_wire", name, number);
}

static void seeds_of_wire (const char *folder)
{
    int number = 0;
    for (unsigned type = 0; type < OF_END; type++)
        each_place (folder, "zqb1", (int) type, "", type);
    for (unsigned field = 0; field < 10; field++) { /* the fields that few have, and wrong sizes of them */
        rare_of_request = field < 9 ? 1u << field : RARE_ALL;
        each_place (folder, "rare", (int) field, "", OF_REQUEST);
        rare_of_request |= RARE_WRONG;
        each_place (folder, "rare-wrong", (int) field, "", OF_REQUEST);
    }
    rare_of_request = 0;
    for (size_t w = 1; w < COUNT (workers); w++) {
        const party_t *worker = &workers[w];
        const char *const texts[] = {worker->ready, worker->partial, worker->reply, worker->beat, worker->leave};
        for (size_t i = 0; i < COUNT (texts); i++)
            if (texts[i])
                each_place (folder, "worker", number++, texts[i], 0);
    }
    for (size_t c = 1; c < COUNT (clients); c++)
        each_place (folder, "client", number++, clients[c].request, 0);
    each_place (folder, "to-worker", 0, ". MDPW01 2 $ . x x", 0);
    each_place (folder, "to-worker", 1, "MDPW02 2 $ x . x", 0);
    each_place (folder, "to-client", 0, ". MDPC01 echo x", 0);
    each_place (folder, "to-client", 1, "MDPC02 2 echo x", 0);
    each_place (folder, "to-client", 2, "MDPC02 3 echo x #", 0);
    for (unsigned how = 0; how < DISTORTIONS; how++) {
        for (unsigned place = 0; place < 4; place += 3) {
            step ();
            put (place);
            frames (place ? "" : "x");
            zqb1 (1);
            put (HAS_BODY | HAS_TEXT | IS_DISTORTED);
            put (OF_REPLY), put (0), put (0), put (5);
            put (2), put (3), put (130);
            put (how + DISTORTIONS * 3);
        }
        write_script (folder, "fuzz_wire", "distorted", (int) how);
    }
}

/* ---- our client and our worker: each dialect, what the broker answers, and what goes wrong */

static const char *const replies[][2] = {{"", ""}, {". MDPC01 echo x", ". MDPC01 x x"}, {"MDPC02 2 echo x", "MDPC02 3 echo x #"}};
static const char *const requests[][3] = {{"", "", ""}, {". MDPW01 2 $ . x", ". MDPW01 4", ". MDPW01 5"},
                                          {"MDPW02 2 $ x . x", "MDPW02 5", "MDPW02 6"}};

static void broker_says (const char *text, unsigned type)
{
    step ();
    put (HOSTILE_SAY);
    if (*text)
        frames (text);
    else
        zqb1_one (type, 0);
}

static void options (unsigned dialect, unsigned chosen)
{
    step_with (dialect, chosen);
    put (chosen >> 4);
}

static void ask (unsigned kind)
{
    step_with (kind, 0);
    frames ("x #");
}

/* The same with wishes, which come before the service (fuzz_client.c). */
static void ask_with (unsigned kind, unsigned wishes, unsigned value)
{
    step_with (kind, wishes >> 8);
    put (wishes);
    for (unsigned bit = 0; bit < 11; bit++)
        if (wishes >> bit & 1)
            put (value);
    put (0);
    frames ("x #");
}

/* What goes wrong, or nothing, as a step of the hostile broker. */
static void goes_wrong (unsigned what)
{
    static const uint8_t steps[][3] = {{HOSTILE_WAIT, 0, 0}, {HOSTILE_WAIT, 255, 255}, {HOSTILE_EVENT, 0, 0},
                                       {HOSTILE_EVENT, 1, 0}, {HOSTILE_EVENT, 3, 0}, {HOSTILE_STATE, 1, 0},
                                       {HOSTILE_MEMORY, 0, 0}, {HOSTILE_MEMORY, 2, 1}, {HOSTILE_MEMORY, 4, 0},
                                       {HOSTILE_SOCKETS, 1, 1}, {HOSTILE_INTERRUPT, 1, 0}, {HOSTILE_CONTEXT, 'E', 0}};
    const uint8_t *at = steps[what % COUNT (steps)];
    step_with (at[0], at[1]);
    put (at[2]);
    put (11);
}

/* An answer with parts that its type does not have: an error with a body, a reply with a status and a text. */
static void odd_answer (unsigned type, unsigned has)
{
    step ();
    put (HOSTILE_SAY);
    zqb1 (1);
    put (has);
    put (type), put (0), put (0);
    if (has & HAS_STATUS)
        put (7);
    if (has & HAS_TEXT)
        put (9);
    if (has & HAS_BODY)
        put (2), put (3), put (130);
}

static void seeds_of_client (const char *folder)
{
    int number = 0;
    for (unsigned wish = 0; wish < 11; wish++) /* each, of ZQB/1 and of Majordomo; and what comes of it */
        for (unsigned what = 0; what < 3; what++) {
            options (what == 2, wish * 5);
            ask_with (CLIENT_SUBMIT_WITH, 1u << wish, what + 1);
            step_with (CLIENT_RECEIVE, 0);
            broker_says ("", OF_PROGRESS);
            step_with (CLIENT_RECEIVE, 2);
            for (unsigned parts = 0; parts < 3; parts++) {
                step ();
                put (HOSTILE_SAY);
                zqb1 (9);
                for (unsigned i = 0; i < 9; i++)
                    command (OF_PARTIAL, 0, 0, 1);
            }
            for (unsigned parts = 0; parts < 18; parts++)
                step_with (CLIENT_RECEIVE, 0);
            goes_wrong (wish);
            ask_with (CLIENT_CALL_WITH, 1u << wish, what);
            broker_says ("", what ? OF_REPLY : OF_ERROR);
            step_with (CLIENT_RECEIVE, 5);
            write_script (folder, "fuzz_client", "wishes", number++);
        }
    for (unsigned how = 0; how < 6; how++) {
        options (0, how);
        step_with (CLIENT_SURVEY, how);
        put (0);
        frames ("x #");
        for (unsigned i = 0; i < how; i++)
            broker_says ("", OF_PARTIAL);
        goes_wrong (how * 2);
        step ();
        put (HOSTILE_SAY);
        zqb1 (1);
        put (0), put (how & 1 ? OF_REPLY | IS_RARE : OF_ERROR), put (0), put (0);
        if (how & 1)
            put_rare (RARE_PROGRESS);
        write_script (folder, "fuzz_client", "survey", (int) how);
    }
    number = 0;
    for (unsigned type = OF_PARTIAL; type <= OF_ERROR; type++)
        for (unsigned parts = 0; parts < 8; parts++) {
            options (0, 0);
            ask (CLIENT_SUBMIT);
            step_with (CLIENT_RECEIVE, 0);
            odd_answer (type, (parts & 1 ? HAS_STATUS : 0) | (parts & 2 ? HAS_TEXT : 0) | (parts & 4 ? HAS_BODY : 0));
            step_with (CLIENT_RECEIVE, 3);
            write_script (folder, "fuzz_client", "odd", number++);
        }
    for (unsigned dialect = 0; dialect < 3; dialect++)
        for (unsigned what = 0; what < 12; what++) {
            options (dialect, what * 5);
            ask (CLIENT_SUBMIT);
            ask (CLIENT_SUBMIT);
            step_with (CLIENT_RECEIVE, 0);
            broker_says (replies[dialect][0], OF_PARTIAL);
            step_with (CLIENT_RECEIVE, 3);
            goes_wrong (what);
            broker_says (replies[dialect][1], what & 1 ? OF_REPLY : OF_ERROR);
            ask (CLIENT_CALL);
            broker_says (replies[dialect][1], OF_REPLY);
            step_with (CLIENT_RECEIVE, 5);
            step_with (CLIENT_CANCEL, what % 3);
            step ();
            put (CLIENT_FLUSH);
            step_with (CLIENT_RECEIVE, 6);
            write_script (folder, "fuzz_client", "asks", number++);
        }
}

/* Requests with a window and a deadline, of which the worker says all that it can, and hears what there is. */
static void seeds_of_wide_worker (const char *folder)
{
    for (unsigned what = 0; what < 24; what++) {
        options (0, what & 1 ? 128 : 16);
        step ();
        put (HOSTILE_SAY);
        rare_of_request = what & 2 ? RARE_DEADLINE : 0;
        zqb1 (2);
        command (OF_REQUEST, 32, 90, 1);
        command (OF_REQUEST, 0, 91, 2);
        rare_of_request = 0;
        step_with (WORKER_RECEIVE, 3);
        step_with (WORKER_RECEIVE, 0);
        step_with (WORKER_PROGRESS, 0);
        put (1), put (2), put (what);
        for (unsigned parts = 0; parts < 34; parts++) {
            step_with (WORKER_PARTIAL, 0);
            frames ("x");
        }
        broker_says ("", what & 4 ? OF_MORE : OF_CANCEL);
        goes_wrong (what / 2);
        step_with (WORKER_ASK, 0);
        step_with (what & 8 ? WORKER_REFUSE : WORKER_FAIL, 0);
        step_with (WORKER_DRAIN, what & 16 ? 'D' : 0);
        broker_says ("", OF_DRAIN);
        step_with (WORKER_REPLY, 0);
        frames ("x #");
        step_with (WORKER_RECEIVE, 6);
        step_with (WORKER_RUN, 2);
        broker_says ("", OF_REQUEST);
        write_script (folder, "fuzz_worker", "wide", (int) what);
    }
}

static void seeds_of_worker (const char *folder)
{
    int number = 0;
    for (unsigned dialect = 0; dialect < 3; dialect++)
        for (unsigned what = 0; what < 12; what++) {
            options (dialect, what * 5);
            broker_says (requests[dialect][0], OF_REQUEST);
            step_with (WORKER_RECEIVE, 3);
            step_with (WORKER_PARTIAL, 0);
            frames ("x");
            goes_wrong (what);
            step_with (what % 3 ? WORKER_REPLY : WORKER_FAIL, 0);
            frames ("x #");
            broker_says (requests[dialect][1], OF_HEARTBEAT);
            step_with (WORKER_RECEIVE, 5);
            broker_says (requests[dialect][0], OF_REQUEST);
            step_with (WORKER_RUN, 1);
            broker_says (requests[dialect][0], OF_REQUEST);
            broker_says (requests[dialect][2], OF_DISCONNECT);
            step_with (WORKER_RECEIVE, 6);
            write_script (folder, "fuzz_worker", "asked", number++);
        }
}

/* Not scripts, but when memory runs out, how long a user and a service are, both, and a file. */
static void seeds_of_rules (const char *folder)
{
    static const char *const files[] = {
        "allow alice call echo\n",
        "group g alice b* -\nallow @g call,serve echo mmi.*\ndeny * manage *\n",
        "# none\r\n\n deny  alice\tserve ech*  # but\nallow @inproc call,serve,manage e\\x63ho\nallow * serve *\n",
        "allow - manage *\nallow alice\\x20 calls echo\n",
        "allow @h call echo\ngroup h",
    };
    for (unsigned i = 0; i < COUNT (files); i++)
        for (unsigned fails = 0; fails < 6; fails += 3) {
            put (fails), put (5);
            for (const char *at = "alice"; *at; at++)
                put ((unsigned char) *at);
            put (3);
            for (const char *at = "echo"; *at; at++)
                put ((unsigned char) *at);
            for (const char *at = files[i]; *at; at++)
                put ((unsigned char) *at);
            write_bytes (folder, "fuzz_rules", "file", (int) (2 * i + fails / 3));
        }
}

static void put_text (const char *text)
{
    while (*text)
        put ((unsigned char) *text++);
}

/* Not scripts, but what fuzz_keys reads. */
static void seeds_of_keys (const char *folder)
{
    static const char *const files[] = {
        "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
        "# made by zqkeygen\nmetadata\ncurve\n    public-key = \"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\"\n"
        "    secret-key = \"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6\"\n",
        "#   ****  Generated by CZMQ  ****\r\nmetadata\r\n    name = \"alice\"\r\ncurve\r\n"
        "\tsecret-key='JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6'\r\n"
        "\tpublic-key\t=\t'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7'",
        "public-key = \"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf\"\n" /* one too few */
        "secret-key = \"#########################################\"\n",
        "secret-key = \"########################################\"\n" /* too large a number */
        "public-key = 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\"",
        "secret-key : 'JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6'\n"
        "public-key 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7'",
        "secret-key = \"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6\" 1234567", /* 63 bytes, */
        "public-key = \"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6\" 12345678", /* and one more */
        "secret-key = none\nsecret-key\nsecret-key = '0000000000000000000000000000000000000000' public-key = 'x'",
    };
    static const uint8_t heads[][5] = { /* see fuzz_keys.c */
        {0, 224, 0, 0, 0}, {1, 0, 0, 0, 0}, {2, 64, 0, 0, 0}, {3, 64, 0, 0, 0}, {4, 0, 0, 0, 0}, {0, 64, 7, 3, 252},
        {0, 1, 0, 0, 0}, {0, 2, 0, 0, 0}, {0, 3, 0, 0, 0}, {0, 4, 0, 0, 0}, {0, 5, 0, 0, 0}, {0, 6, 9, 0, 0}, {0, 7, 9, 0, 0}};
    for (size_t i = 0; i < COUNT (files); i++)
        for (size_t head = 0; head < COUNT (heads); head++) {
            for (size_t at = 0; at < COUNT (heads[head]); at++)
                put (heads[head][at]);
            put_text (files[i]);
            write_bytes (folder, "fuzz_keys", "file", (int) (COUNT (heads) * i + head));
        }
}

/* A line of a file, which begins with the word of that number. */
static void line (unsigned first, const char *text)
{
    step_with (AUTH_TEXT, first);
    put_text (text);
    step ();
    put (AUTH_LINE);
}

static void ask_auth (unsigned mechanism, unsigned address, unsigned user, unsigned password, unsigned field, unsigned how)
{
    const unsigned bytes[] = {address, user, password, field, how};
    step_with (AUTH_ASK, mechanism);
    for (size_t i = 0; i < COUNT (bytes); i++)
        put (bytes[i]);
    put_text ("any bytes");
}

static void call_auth (unsigned what, unsigned first, unsigned second)
{
    step_with (AUTH_CALL, what);
    put (first);
    put (second);
}

static void seeds_of_auth (const char *folder)
{
    static const char *const addresses[] = {"192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120", "ipc",
                                            "fe80::1%eth0", "localhost:1:2:3"};
    int number = 0;
    for (unsigned mechanism = 0; mechanism < 4; mechanism++)
        for (unsigned field = 0; field < 22; field++) { /* each field is wrong in each way */
            call_auth (3, 0, 4);
            call_auth (2, 0, 1);
            ask_auth (mechanism, field % 16, 0, 4, field ? (field - 1) / 3 + 1 : 0, field ? (field - 1) % 3 + 1 : 0);
            write_script (folder, "fuzz_auth", "asks", number++);
        }
    for (unsigned what = 0; what < 12; what++) {
        line (5, "who may connect");
        line (1, addresses[what % COUNT (addresses)]);
        line (2, "203.0.113.0/24");
        line (3, what & 1 ? "* guest" : "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7 alice");
        line (4, what & 2 ? "alice secret" : "alice");
        if (what & 4) {
            step_with (AUTH_MEMORY, what);
            put (1);
        }
        step_with (AUTH_RELOAD, what == 3 ? 3 : 2);
        ask_auth (1, 0, 0, 4, 0, 0);
        ask_auth (6, 0, 0, 4, 0, 0);
        call_auth (what, what, 8);
        call_auth (4, 0, what);
        ask_auth (1, what, 0, 4, 0, 0);
        step_with (AUTH_RELOAD, 0);
        write_script (folder, "fuzz_auth", "file", number++);
    }
    for (unsigned i = 0; i < COUNT (addresses); i++) {
        step ();
        put (AUTH_ADDRESS);
        put_text (addresses[i]);
        write_script (folder, "fuzz_auth", "address", number++);
    }
}

int main (int argc, char **argv)
{
    if (argc != 2) {
        fprintf (stderr, "seeds FOLDER\n");
        return 2;
    }
    mkdir (argv[1], 0777);
    seeds_of_wire (argv[1]);
    seeds_of_broker (argv[1]);
    seeds_of_wishes (argv[1]);
    seeds_of_client (argv[1]);
    seeds_of_worker (argv[1]);
    seeds_of_wide_worker (argv[1]);
    seeds_of_rules (argv[1]);
    seeds_of_auth (argv[1]);
    seeds_of_keys (argv[1]);
    return 0;
}
