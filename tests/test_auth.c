/* Who may connect: lists of addresses, keys and users, the file, and what libzmq is answered by ZAP. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "unit_threads.h"
#include <zmq.h>

/* libzmq, as if it had no memory for a frame of more than 33 bytes, or as if so many signals came while it sends. */
static int unit_frames_out, unit_interruptions;

static int unit_frame (zmq_msg_t *frame, size_t size)
{
    if (size <= 33 || !__atomic_load_n (&unit_frames_out, __ATOMIC_SEQ_CST))
        return zmq_msg_init_size (frame, size);
    errno = ENOMEM;
    return -1;
}

static int unit_send (zmq_msg_t *frame, void *socket, int flags)
{
    if (__atomic_load_n (&unit_interruptions, __ATOMIC_SEQ_CST) == 0)
        return zmq_msg_send (frame, socket, flags);
    __atomic_sub_fetch (&unit_interruptions, 1, __ATOMIC_SEQ_CST);
    errno = EINTR;
    return -1;
}

#define zmq_msg_init_size(frame, size) unit_frame (frame, size)
#define zmq_msg_send(frame, socket, flags) unit_send (frame, socket, flags)

#include "zqbroker.h"
#include "unit.h"

#define ZAP "inproc://zeromq.zap.01"

static void *ctx;
static zqb_auth_t *auth;
static zqb_broker_t *broker; /* of those tests that have one */
static char path[64]; /* of a file, if one was written */

static int set_up (UNUSED void **state)
{
    ctx = zmq_ctx_new ();
    return ctx ? 0 : -1;
}

/* Sockets of the tests: what a test that fails leaves open is closed behind it. */
static void *sockets[8];

static void *open_socket (int type)
{
    size_t i = 0;
    while (sockets[i])
        i++;
    sockets[i] = zmq_socket (ctx, type);
    zqb__set_int (sockets[i], ZMQ_LINGER, 0);
    zqb__set_int (sockets[i], ZMQ_RCVTIMEO, PATIENCE_MS);
    return sockets[i];
}

static void close_socket (void *socket)
{
    for (size_t i = 0; i < COUNT (sockets); i++)
        if (socket && sockets[i] == socket) {
            zmq_close (socket);
            sockets[i] = NULL;
        }
}

static int tear_down (UNUSED void **state)
{
    unit_memory_recover ();
    __atomic_store_n (&unit_frames_out, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n (&unit_interruptions, 0, __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < COUNT (sockets); i++)
        close_socket (sockets[i]);
    zqb_broker_destroy (&broker);
    zqb_auth_stop (&auth);
    if (path[0])
        unlink (path);
    path[0] = 0;
    return zmq_ctx_term (ctx) || unit_memory_live != 0;
}

/* One counter, now. */
#define counter(name) (all_counters ().name)

static zqb_auth_stats_t all_counters (void)
{
    zqb_auth_stats_t stats;
    memset (&stats, 0xff, sizeof stats);
    zqb_auth_stats (auth, &stats);
    return stats;
}

static uint64_t judged (void)
{
    zqb_auth_stats_t now = all_counters ();
    return now.accepted + now.refused_address + now.refused_key + now.refused_password + now.refused_mechanism
           + now.refused_host + now.malformed;
}

static void start (const zqb_auth_options_t *options)
{
    auth = zqb_auth_start (ctx, options);
    assert_non_null (auth);
}

/* ---- lines for the log */

static char logged[8192];
static zqb__mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_log (UNUSED int level, const char *text, UNUSED void *arg)
{
    zqb__mutex_enter (&log_lock);
    size_t size = strlen (logged);
    snprintf (logged + size, sizeof logged - size, "%s\n", text);
    zqb__mutex_leave (&log_lock);
}

static int was_logged (const char *text)
{
    zqb__mutex_enter (&log_lock);
    int found = strstr (logged, text) != NULL;
    zqb__mutex_leave (&log_lock);
    return found;
}

/* ---- files */

static void write_file (const char *text, size_t size, mode_t mode)
{
    if (!path[0]) {
        snprintf (path, sizeof path, "/tmp/zqbroker-auth-XXXXXX");
        close (mkstemp (path));
    }
    chmod (path, 0600);
    FILE *file = fopen (path, "wb");
    assert_non_null (file);
    assert_int_equal (fwrite (text, 1, size, file), size);
    assert_ok (fclose (file));
    assert_ok (chmod (path, mode));
}

static void write_text (const char *text)
{
    write_file (text, strlen (text), 0600);
}

static zqb_auth_options_t with_file (void)
{
    zqb_auth_options_t options;
    memset (&options, 0, sizeof options);
    options.file = path;
    options.log = keep_log;
    logged[0] = 0;
    return options;
}

/* ---- requests of ZAP, asked as libzmq does */

static void *asker (void)
{
    void *socket = open_socket (ZMQ_DEALER);
    assert_ok (zmq_connect (socket, ZAP));
    return socket;
}

static void send_frames (void *socket, const char *const *frames, const size_t *sizes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_true (zmq_send (socket, frames[i], sizes ? sizes[i] : strlen (frames[i]),
                               i + 1 < count ? ZMQ_SNDMORE : 0)
                     >= 0);
}

typedef struct answer_t {
    char frames[8][300];
    size_t sizes[8];
    int count;
} answer_t;

static void read_answer (void *socket, answer_t *answer)
{
    int more = 1;
    size_t size = sizeof more;
    memset (answer, 0, sizeof *answer);
    while (more && answer->count < 8) {
        int got = zmq_recv (socket, answer->frames[answer->count], 299, 0);
        assert_true (got >= 0);
        answer->sizes[answer->count++] = (size_t) got;
        zmq_getsockopt (socket, ZMQ_RCVMORE, &more, &size);
    }
}

/* What the last that was let in was let in by. */
static char entry[300];

/* The metadata of an answer: that, as its only property, if somebody is let in. */
static void read_metadata (const answer_t *answer)
{
    size_t name = strlen (zqb__zap_property);
    const unsigned char *bytes = (const unsigned char *) answer->frames[6];
    if (strcmp (answer->frames[3], "200") != 0) {
        assert_int_equal (answer->sizes[6], 0);
        return;
    }
    assert_true (answer->sizes[6] > 5 + name);
    assert_int_equal (bytes[0], name);
    assert_memory_equal (bytes + 1, zqb__zap_property, name);
    size_t size = answer->sizes[6] - 5 - name;
    assert_int_equal (bytes[1 + name] << 24 | bytes[2 + name] << 16 | bytes[3 + name] << 8 | bytes[4 + name], size);
    memcpy (entry, bytes + 5 + name, size);
    entry[size] = 0;
}

/* A request, and the status of its answer, whose form is looked at; user gets the user id. */
static int ask_frames (void *socket, const char *const *frames, const size_t *sizes, size_t count, char *user)
{
    answer_t answer;
    send_frames (socket, frames, sizes, count);
    read_answer (socket, &answer);
    assert_int_equal (answer.count, 7);
    assert_string_equal (answer.frames[0], "");
    assert_string_equal (answer.frames[1], "1.0");
    assert_memory_equal (answer.frames[2], frames[2], sizes ? sizes[2] : strlen (frames[2]));
    assert_int_equal (answer.sizes[3], 3);
    read_metadata (&answer);
    if (user)
        strcpy (user, answer.frames[5]);
    return atoi (answer.frames[3]);
}

static int ask_null (void *socket, const char *address)
{
    const char *frames[] = {"", "1.0", "id", "domain", address, "", "NULL"};
    return ask_frames (socket, frames, NULL, 7, NULL);
}

static int ask_plain (void *socket, const char *name, const char *password, char *user)
{
    const char *frames[] = {"", "1.0", "id", "domain", "192.0.2.1", "", "PLAIN", name, password};
    return ask_frames (socket, frames, NULL, 9, user);
}

static int ask_curve (void *socket, const unsigned char key[32], char *user)
{
    const char *frames[] = {"", "1.0", "id", "domain", "192.0.2.1", "", "CURVE", (const char *) key};
    const size_t sizes[] = {0, 3, 2, 6, 9, 0, 5, 32};
    return ask_frames (socket, frames, sizes, 8, user);
}

/* ---- pure parts */

TEST (cidr_covers_what_has_the_same_first_bits)
{
    static const struct {
        const char *cidr, *address;
        int covers;
    } cases[] = {
        {"192.0.2.1", "192.0.2.1", 1},          {"192.0.2.1", "192.0.2.2", 0},
        {"192.0.2.0/24", "192.0.2.255", 1},     {"192.0.2.0/24", "192.0.3.0", 0},
        {"192.0.2.77/24", "192.0.2.1", 1},      {"10.0.0.0/8", "10.255.255.255", 1},
        {"10.0.0.0/8", "11.0.0.0", 0},          {"192.0.2.128/25", "192.0.2.127", 0},
        {"192.0.2.128/25", "192.0.2.128", 1},   {"192.0.2.4/31", "192.0.2.5", 1},
        {"192.0.2.4/31", "192.0.2.6", 0},       {"192.0.2.4/32", "192.0.2.5", 0},
        {"0.0.0.0/0", "203.0.113.9", 1},        {"0.0.0.0/0", "2001:db8::1", 0},
        {"128.0.0.0/1", "127.255.255.255", 0},  {"128.0.0.0/1", "255.0.0.0", 1},
        {"2001:db8::/32", "2001:db8:ffff::", 1}, {"2001:db8::/32", "2001:db9::", 0},
        {"2001:db8::1", "2001:db8::1", 1},      {"2001:db8::1", "2001:0db8:0:0:0:0:0:1", 1},
        {"2001:db8::1/127", "2001:db8::", 1},   {"2001:db8::1/128", "2001:db8::", 0},
        {"::/0", "2001:db8::1", 1},             {"::/0", "192.0.2.1", 0},
        {"::/0", "::ffff:192.0.2.1", 0},        {"192.0.2.0/24", "::ffff:192.0.2.1", 1},
        {"::ffff:192.0.2.0/120", "192.0.2.9", 1}, {"::ffff:192.0.2.0/120", "192.0.3.9", 0},
        {"::ffff:0.0.0.0/96", "203.0.113.9", 1}, {"fe80::/10", "fe80::1%eth0", 1},
        {"0.0.0.0/0", "", 0},                   {"0.0.0.0/0", "localhost:0:0:1", 0},
        {"::/0", "localhost", 0},               {"ipc", "localhost:1000:1000:77", 1},
        {"ipc", "localhost", 1},                {"ipc", "localhostile", 0},
        {"ipc", "", 0},                         {"ipc", "127.0.0.1", 0},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb__net_t net, peer = zqb__net_of_peer (cases[i].address);
        assert_ok (zqb__net_read (&net, cases[i].cidr));
        if (zqb__net_covers (&net, &peer) != cases[i].covers)
            fail_msg ("%s and %s", cases[i].cidr, cases[i].address);
    }
}

TEST (what_is_no_cidr_is_einval)
{
    static const char *const cases[] = {
        "", " ", "/", "/8", "10", "10.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8 ",
        " 10.0.0.0/8", "10.0.0.0/8/8", "10.0.0.0/0008", "10.0.0.256", "10.0.0.0.0", "0x0a.0.0.0", "::/129", "::1::",
        ":", "2001:db8::/x", "[::1]", "fe80::1%eth0", "localhost", "example.org", "ipc/8", "IPC", "*", "all",
        "11111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
    };
    zqb__net_t net;
    assert_fails (zqb__net_read (&net, NULL), EINVAL);
    for (size_t i = 0; i < COUNT (cases); i++) {
        errno = 0;
        if (zqb__net_read (&net, cases[i]) != -1 || errno != EINVAL)
            fail_msg ("accepted: %s", cases[i]);
    }
}

TEST (secrets_are_the_same_if_all_bytes_and_the_length_are)
{
    unsigned char a[ZQB__SECRET_ROOM] = {0}, b[ZQB__SECRET_ROOM] = {0};
    assert_true (zqb__secret_same (a, 0, b, 0));
    assert_false (zqb__secret_same (a, 0, b, 1)); /* zeros behind are no part of it */
    for (size_t i = 0; i < sizeof a; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            a[i] = (unsigned char) bit;
            assert_false (zqb__secret_same (a, 255, b, 255));
            b[i] = (unsigned char) bit;
            assert_true (zqb__secret_same (a, 255, b, 255));
            a[i] = b[i] = 0;
        }
    }
    for (size_t size = 1; size < sizeof a; size++)
        assert_false (zqb__secret_same (a, size, b, size - 1));
}

TEST (keys_are_40_characters_of_z85)
{
    unsigned char key[32], again[32];
    char text[41], bad[48];
    for (int i = 0; i < 32; i++)
        key[i] = (unsigned char) (i * 37 + 11);
    assert_non_null (zmq_z85_encode (text, key, 32));
    assert_ok (zqb__key_decode (text, 0, again));
    assert_memory_equal (again, key, 32);
    assert_int_equal (zqb__key_decode ("", 0, again), -1);
    for (size_t i = 0; i < 40; i++) {
        static const char no_z85[] = {' ', '"', '\'', ',', ';', '\\', '_', '`', '|', '~', '\x7f', '\x80', '\xff', '\n'};
        for (size_t j = 0; j < sizeof no_z85; j++) {
            strcpy (bad, text);
            bad[i] = no_z85[j];
            assert_int_equal (zqb__key_decode (bad, 0, again), -1);
        }
        strcpy (bad, text);
        bad[i] = 0; /* too short */
        assert_int_equal (zqb__key_decode (bad, 0, again), -1);
    }
    snprintf (bad, sizeof bad, "%s0", text);
    assert_int_equal (zqb__key_decode (bad, 0, again), -1);
    snprintf (bad, sizeof bad, "#####%.35s", text); /* more than 32 bits */
    assert_int_equal (zqb__key_decode (bad, 0, again), -1);
}

/* ---- the parser */

enum { USUAL = 10 };
static const char *const usual[USUAL] = {"peer",      "",         "1.0",   "id",   "domain",
                                         "192.0.2.1", "identity", "PLAIN", "user", "secret"};

typedef struct request_t {
    zmq_msg_t frames[32];
    size_t count;
} request_t;

static void add (request_t *request, const void *bytes, size_t size)
{
    zmq_msg_t *frame = &request->frames[request->count++];
    assert_ok (zmq_msg_init_size (frame, size));
    if (bytes)
        memcpy (zmq_msg_data (frame), bytes, size);
    else
        memset (zmq_msg_data (frame), 'x', size);
}

/* The usual request up to a frame, and behind one. */
static void add_usual (request_t *request, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        add (request, usual[i], strlen (usual[i]));
}

/* Whether it can be read. */
static int reads (request_t *request)
{
    zqb__zap_t zap;
    int failed = zqb__zap_read (&zap, request->frames, request->count);
    for (size_t i = 0; i < request->count; i++)
        zmq_msg_close (&request->frames[i]);
    request->count = 0;
    return failed == 0;
}

TEST (the_parser_reads_what_is_well_formed)
{
    request_t request;
    zqb__zap_t zap;
    request.count = 0;
    add_usual (&request, 0, USUAL);
    assert_ok (zqb__zap_read (&zap, request.frames, request.count));
    assert_string_equal (zap.peer.domain, "domain");
    assert_string_equal (zap.peer.address, "192.0.2.1");
    assert_string_equal (zap.peer.mechanism, "PLAIN");
    assert_null (zap.peer.public_key);
    assert_int_equal (zap.credential_count, 2);
    assert_true (reads (&request));
}

TEST (the_parser_misses_every_field_that_is_missing)
{
    request_t request;
    request.count = 0;
    for (size_t missing = 0; missing < USUAL; missing++) {
        add_usual (&request, 0, missing);
        add_usual (&request, missing + 1, USUAL);
        assert_false (reads (&request));
        add_usual (&request, 0, missing); /* and all behind it */
        assert_false (reads (&request));
    }
}

TEST (the_parser_refuses_every_field_that_is_there_twice)
{
    request_t request;
    request.count = 0;
    for (size_t twice = 0; twice < USUAL; twice++) {
        add_usual (&request, 0, twice + 1);
        add_usual (&request, twice, USUAL);
        assert_false (reads (&request));
    }
}

TEST (the_parser_refuses_every_field_that_is_too_long)
{
    static const size_t most[USUAL] = {5, 0, 3, 255, 255, 255, 255, 20, 255, 255};
    request_t request;
    request.count = 0;
    for (size_t i = 1; i < USUAL; i++)
        for (size_t size = most[i]; size <= most[i] + 1; size++) {
            add_usual (&request, 0, i);
            add (&request, i == 2 && size == 3 ? "1.0" : i == 7 ? "ABCDEFGHIJ-1234567890" : NULL, size);
            add_usual (&request, i + 1, USUAL);
            assert_int_equal (reads (&request), size == most[i]);
        }
}

TEST (the_parser_refuses_what_is_empty_but_must_not_be_and_what_is_no_text)
{
    static const int may_be_empty[USUAL] = {1, 1, 0, 0, 1, 1, 1, 0, 1, 1};
    static const int any_bytes[USUAL] = {1, 0, 0, 1, 0, 0, 1, 0, 1, 1};
    request_t request;
    request.count = 0;
    for (size_t i = 0; i < USUAL; i++) {
        add_usual (&request, 0, i);
        add (&request, "", 0);
        add_usual (&request, i + 1, USUAL);
        assert_int_equal (reads (&request), may_be_empty[i]);
        for (int j = 0; j < 3; j++) {
            add_usual (&request, 0, i);
            add (&request, &"\0\n\x80"[j], 1);
            add_usual (&request, i + 1, USUAL);
            assert_int_equal (reads (&request), any_bytes[i]);
        }
    }
}

TEST (the_parser_knows_how_many_credentials_a_mechanism_has)
{
    static const struct {
        const char *mechanism;
        size_t count, size;
        int fine;
    } cases[] = {
        {"NULL", 0, 0, 1},   {"NULL", 1, 0, 0},   {"PLAIN", 0, 0, 0},  {"PLAIN", 1, 3, 0},  {"PLAIN", 2, 0, 1},
        {"PLAIN", 3, 1, 0},  {"CURVE", 0, 0, 0},  {"CURVE", 1, 32, 1}, {"CURVE", 1, 31, 0}, {"CURVE", 1, 33, 0},
        {"CURVE", 1, 0, 0},  {"CURVE", 2, 32, 0}, {"GSSAPI", 1, 9, 1}, {"null", 0, 0, 0},   {"NULLX", 0, 0, 1},
    };
    request_t request;
    request.count = 0;
    for (size_t i = 0; i < COUNT (cases); i++) {
        add_usual (&request, 0, 7);
        add (&request, cases[i].mechanism, strlen (cases[i].mechanism));
        for (size_t j = 0; j < cases[i].count; j++)
            add (&request, NULL, cases[i].size);
        assert_int_equal (reads (&request), cases[i].fine);
    }
}

/* ---- answers */

static int wiped = -1;

static void look_whether_wiped (void *data, UNUSED void *hint)
{
    static const char zeros[6] = {0};
    wiped = memcmp (data, zeros, 6) == 0;
}

TEST (credentials_are_overwritten_when_a_request_is_over)
{
    char secret[] = "secret";
    zqb__inbox_t inbox;
    memset (&inbox, 0, sizeof inbox);
    inbox.limit = ZQB__ZAP_FRAMES;
    for (int i = 0; i < USUAL; i++) {
        zmq_msg_t frame;
        if (i == USUAL - 1)
            assert_ok (zmq_msg_init_data (&frame, secret, 6, look_whether_wiped, NULL));
        else
            assert_ok (zmq_msg_init_size (&frame, 0));
        zqb__inbox_keep (&inbox, &frame);
    }
    zqb__auth_wipe_inbox (&inbox);
    assert_int_equal (wiped, 1);
    zqb__inbox_close (&inbox);
}

TEST (what_is_malformed_gets_a_500_or_no_answer_and_is_counted)
{
    static const struct {
        const char *frames[12];
        int status; /* 0 none */
    } cases[] = {
        {{"", "1.1", "id", "d", "1.2.3.4", "", "NULL"}, 500},
        {{"", "", "id", "d", "1.2.3.4", "", "NULL"}, 500},
        {{"", "1.0", "id"}, 500},
        {{"", "1.0", "id", "d", "1.2.3.4", ""}, 500},
        {{"", "1.0", "id", "d", "1.2.3.4", "", "NULL", "more"}, 500},
        {{"", "1.0", "id", "d", "1.2.3.4", "", "CURVE", "short"}, 500},
        {{"", "1.0", "id", "d", "1.2.3.4", "", ""}, 500},
        {{"", "1.0", "id", "d\n", "1.2.3.4", "", "NULL"}, 500},
        {{""}, 0},
        {{"", "1.0"}, 0},
        {{"", "1.0", "", "d", "1.2.3.4", "", "NULL"}, 0},
        {{"x", "1.0", "id", "d", "1.2.3.4", "", "NULL"}, 0},
        {{"1.0", "id", "d", "1.2.3.4", "", "NULL"}, 0},
    };
    uint64_t dropped = 0;
    start (NULL);
    void *socket = asker ();
    for (size_t i = 0; i < COUNT (cases); i++) {
        size_t count = 0;
        while (cases[i].frames[count])
            count++;
        if (cases[i].status)
            assert_int_equal (ask_frames (socket, cases[i].frames, NULL, count, NULL), cases[i].status);
        else {
            send_frames (socket, cases[i].frames, NULL, count);
            dropped++;
        }
        eventually (counter (malformed) == i + 1);
        eventually (counter (dropped) == dropped);
        assert_int_equal (ask_null (socket, "1.2.3.4"), 200); /* and it is the next answer */
    }
    const char *frames[40];
    for (size_t i = 0; i < COUNT (frames); i++)
        frames[i] = i == 1 ? "1.0" : i == 2 ? "id" : i ? "GSSAPI" : "";
    assert_int_equal (ask_frames (socket, frames, NULL, COUNT (frames), NULL), 500);
    assert_int_equal (ask_null (socket, "1.2.3.4"), 200);
    close_socket (socket);
}

TEST (an_unknown_mechanism_is_refused)
{
    static const char *const frames[] = {"", "1.0", "id", "d", "1.2.3.4", "", "GSSAPI", "principal"};
    start (NULL);
    void *socket = asker ();
    assert_int_equal (ask_frames (socket, frames, NULL, 8, NULL), 400);
    assert_int_equal (counter (refused_mechanism), 1);
    close_socket (socket);
}

TEST (denied_wins_and_if_any_is_allowed_others_are_not)
{
    start (NULL);
    void *socket = asker ();
    assert_int_equal (ask_null (socket, "192.0.2.1"), 200);
    assert_int_equal (ask_null (socket, ""), 200);
    assert_int_equal (ask_null (socket, "localhost:1:2:3"), 200);
    assert_ok (zqb_auth_deny (auth, "203.0.113.0/24"));
    assert_int_equal (ask_null (socket, "203.0.113.7"), 400);
    assert_int_equal (ask_null (socket, "192.0.2.1"), 200);
    assert_int_equal (ask_null (socket, ""), 400); /* nobody knows who that is */
    assert_int_equal (ask_null (socket, "localhost:1:2:3"), 200);
    assert_ok (zqb_auth_allow (auth, "203.0.0.0/16"));
    assert_int_equal (ask_null (socket, "203.0.1.1"), 200);
    assert_int_equal (ask_null (socket, "::ffff:203.0.1.1"), 200);
    assert_int_equal (ask_null (socket, "203.0.113.7"), 400);
    assert_int_equal (ask_null (socket, "192.0.2.1"), 400);
    assert_int_equal (ask_null (socket, "localhost:1:2:3"), 400);
    assert_ok (zqb_auth_allow (auth, "ipc"));
    assert_int_equal (ask_null (socket, "localhost:1:2:3"), 200);
    assert_ok (zqb_auth_deny (auth, "ipc"));
    assert_int_equal (ask_null (socket, "localhost:1:2:3"), 400);
    assert_int_equal (counter (entries), 4);
    assert_int_equal (counter (accepted) + counter (refused_address), 14);
    close_socket (socket);
}

TEST (plain_users_need_their_password)
{
    char user[300], longest[256], longer[257];
    memset (longest, 'p', 255);
    longest[255] = 0;
    memset (longer, 'p', 256);
    longer[256] = 0;
    start (NULL);
    void *socket = asker ();
    assert_int_equal (ask_plain (socket, "alice", "secret", user), 400);
    assert_ok (zqb_auth_plain (auth, "alice", "secret"));
    assert_int_equal (ask_plain (socket, "alice", "secret", user), 200);
    assert_string_equal (user, "alice");
    static const char *const wrong[] = {"", "s", "secre", "secret ", "Secret", "secrets"};
    for (size_t i = 0; i < COUNT (wrong); i++) {
        assert_int_equal (ask_plain (socket, "alice", wrong[i], user), 400);
        assert_string_equal (user, "");
    }
    assert_int_equal (ask_plain (socket, "Alice", "secret", user), 400);
    assert_int_equal (ask_plain (socket, "", "", user), 400);
    assert_ok (zqb_auth_plain (auth, "alice", "other"));
    assert_int_equal (ask_plain (socket, "alice", "secret", user), 400);
    assert_int_equal (ask_plain (socket, "alice", "other", user), 200);
    assert_ok (zqb_auth_plain (auth, longest, longest));
    assert_int_equal (ask_plain (socket, longest, longest, user), 200);
    assert_string_equal (user, longest);
    assert_fails (zqb_auth_plain (auth, longer, "x"), EINVAL);
    assert_fails (zqb_auth_plain (auth, "x", longer), EINVAL);
    assert_ok (zqb_auth_plain (auth, "alice", NULL));
    assert_fails (zqb_auth_plain (auth, "alice", NULL), ENOENT);
    assert_int_equal (ask_plain (socket, "alice", "other", user), 400);
    const char *frames[] = {"", "1.0", "id", "d", "1.2.3.4", "", "PLAIN", "bob", "secret\0x"};
    const size_t sizes[] = {0, 3, 2, 1, 7, 0, 5, 3, 8}, sizes_of_user[] = {0, 3, 2, 1, 7, 0, 5, 3, 6};
    assert_ok (zqb_auth_plain (auth, "bob", "secret"));
    assert_int_equal (ask_frames (socket, frames, sizes, 9, user), 400);
    frames[7] = "b\0b";
    assert_int_equal (ask_frames (socket, frames, sizes_of_user, 9, user), 400);
    frames[7] = "bob";
    assert_int_equal (ask_frames (socket, frames, sizes_of_user, 9, user), 200);
    close_socket (socket);
}

TEST (curve_keys_have_a_user)
{
    unsigned char key[32] = {1, 2, 3}, other[32] = {1, 2, 4};
    char text[41], user[300];
    zmq_z85_encode (text, key, 32);
    start (NULL);
    void *socket = asker ();
    assert_int_equal (ask_curve (socket, key, user), 400);
    assert_string_equal (user, "");
    assert_ok (zqb_auth_curve (auth, text, "alice"));
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, "alice");
    assert_int_equal (ask_curve (socket, other, user), 400);
    assert_ok (zqb_auth_curve (auth, "*", "guest"));
    assert_int_equal (ask_curve (socket, other, user), 200);
    assert_string_equal (user, "guest");
    assert_ok (zqb_auth_curve (auth, text, "bob"));
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, "bob");
    assert_int_equal (counter (entries), 2);
    assert_ok (zqb_auth_curve (auth, "*", NULL));
    assert_ok (zqb_auth_curve (auth, text, NULL));
    assert_fails (zqb_auth_curve (auth, text, NULL), ENOENT);
    assert_int_equal (ask_curve (socket, key, user), 400);
    assert_int_equal (counter (refused_key), 3);
    close_socket (socket);
}

/* ---- the host's callbacks */

static struct {
    int opinion;
    const char *rename;
    zqb_auth_peer_t seen;
    char key[64];
    int asked;
} host;

static int decide (zqb_auth_peer_t *peer, UNUSED void *arg)
{
    host.asked++;
    host.seen = *peer;
    snprintf (host.key, sizeof host.key, "%s", peer->public_key ? peer->public_key : "");
    if (host.rename)
        strcpy (peer->user, host.rename);
    zqb_auth_deny (auth, "203.0.113.9"); /* it may: the lock is not held */
    return host.opinion;
}

static int verify (const char *user, const char *password, void *arg)
{
    return strcmp (user, (const char *) arg) == 0 && strcmp (password, "hashed") == 0 ? 1 : 7;
}

TEST (the_host_is_asked_last_and_not_about_what_nobody_can_let_in)
{
    zqb_auth_options_t options;
    unsigned char key[32] = {9};
    char text[41], user[300];
    zmq_z85_encode (text, key, 32);
    memset (&options, 0, sizeof options);
    memset (&host, 0, sizeof host);
    options.decide = decide;
    options.verify = verify;
    options.verify_arg = (void *) "carol";
    start (&options);
    void *socket = asker ();
    assert_ok (zqb_auth_deny (auth, "203.0.113.0/24"));
    host.opinion = 1;
    assert_int_equal (ask_null (socket, "203.0.113.1"), 400);
    assert_int_equal (ask_plain (socket, "carol", "wrong", user), 400);
    assert_int_equal (host.asked, 0);
    assert_int_equal (ask_plain (socket, "carol", "hashed", user), 200);
    assert_string_equal (user, "carol");
    assert_string_equal (host.seen.user, "carol");
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, text);
    assert_string_equal (host.key, text);
    host.rename = "dave";
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, "dave");
    host.opinion = -1;
    assert_int_equal (ask_curve (socket, key, user), 400);
    assert_int_equal (ask_null (socket, "192.0.2.1"), 200);
    host.opinion = 0;
    assert_int_equal (ask_null (socket, "192.0.2.1"), 400);
    assert_int_equal (counter (refused_host), 1);
    assert_int_equal (host.asked, 6);
    assert_string_equal (entry, "host");
    assert_true (zqb__auth_admits (auth, "whoever", "192.0.2.1", entry)); /* the host may have let it in */
    close_socket (socket);
}

/* ---- files */

TEST (a_file_lists_addresses_keys_and_users)
{
    char text[1200], key_text[41], user[300];
    unsigned char key[32] = {7};
    zmq_z85_encode (key_text, key, 32);
    snprintf (text, sizeof text,
              "# who may connect\n\n  \t \nallow 192.0.2.0/24\r\n\tdeny   192.0.2.66 \n allow ipc\n"
              "curve %s alice\ncurve * guest\nplain bob #se!cret\nplain zo\xc3\xab p\xc3\xa4ss", key_text);
    write_text (text);
    zqb_auth_options_t options = with_file ();
    start (&options);
    void *socket = asker ();
    assert_int_equal (counter (entries), 7);
    assert_int_equal (counter (reloads), 1);
    assert_int_equal (ask_null (socket, "192.0.2.1"), 200);
    assert_int_equal (ask_null (socket, "192.0.2.66"), 400);
    assert_int_equal (ask_null (socket, "192.0.3.1"), 400);
    assert_int_equal (ask_null (socket, "localhost:1:1:1"), 200);
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, "alice");
    assert_int_equal (ask_plain (socket, "bob", "#se!cret", user), 200);
    assert_int_equal (ask_plain (socket, "zo\xc3\xab", "p\xc3\xa4ss", user), 200);
    close_socket (socket);
}

#define KEY "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

static const struct {
    const char *text;
    int line;
} bad_files[] = {
    {"allow", 1},
    {"allow 10.0.0.0/8 10.0.0.1", 1},
    {"\nallow 10.0.0.0/99\n", 2},
    {"deny nobody", 1},
    {"# fine\n# fine\npermit 10.0.0.1", 3},
    {"Allow 10.0.0.1", 1},
    {"curve " KEY, 1},
    {"curve " KEY " alice extra", 1},
    {"curve " KEY "0 alice", 1},
    {"curve short alice", 1},
    {"curve " KEY " a\ncurve " KEY " b", 2},
    {"curve * a\ncurve * b", 2},
    {"plain bob", 1},
    {"plain bob two words", 1},
    {"plain bob x\nplain bob y", 2},
    {"plain bob x\x01y", 1},
    {"plain bob x\x7f", 1},
    {"allow 10.0.0.1\rallow 10.0.0.2", 1},
};

TEST (a_file_that_is_wrong_is_einval_and_the_log_says_where)
{
    char line[40];
    for (size_t i = 0; i < COUNT (bad_files); i++) {
        write_text (bad_files[i].text);
        zqb_auth_options_t options = with_file ();
        assert_none (zqb_auth_start (ctx, &options), EINVAL);
        snprintf (line, sizeof line, ", line %d: ", bad_files[i].line);
        if (!was_logged (line))
            fail_msg ("file %zu: %s", i, logged);
    }
    write_file ("allow 10.0.0.1\0\n", 16, 0600);
    zqb_auth_options_t options = with_file ();
    assert_none (zqb_auth_start (ctx, &options), EINVAL);
}

TEST (lines_and_files_and_lists_have_limits)
{
    static char text[1100];
    memset (text, ' ', sizeof text);
    memcpy (text, "allow 10.0.0.1", 14);
    zqb_auth_options_t options = with_file ();
    for (size_t size = 1024; size <= 1025; size++) {
        write_file (text, size, 0600);
        options = with_file ();
        auth = zqb_auth_start (ctx, &options);
        assert_int_equal (auth != NULL, size == 1024);
        zqb_auth_stop (&auth);
    }
    write_text ("#\n#\n#\n");
    options = with_file ();
    options.max_lines = 3;
    start (&options);
    zqb_auth_stop (&auth);
    options = with_file ();
    options.max_lines = 2;
    assert_none (zqb_auth_start (ctx, &options), ENOSPC);
    write_text ("allow 10.0.0.1\nplain a b\ncurve * c\n");
    options = with_file ();
    options.max_entries = 2;
    assert_none (zqb_auth_start (ctx, &options), ENOSPC);
    options.max_entries = 3;
    start (&options);
    assert_ok (zqb_auth_plain (auth, "a", "b"));
    assert_ok (zqb_auth_allow (auth, "10.0.0.2"));
    assert_ok (zqb_auth_curve (auth, "*", "c"));
    assert_fails (zqb_auth_plain (auth, "b", "b"), ENOSPC);
    assert_fails (zqb_auth_allow (auth, "10.0.0.3"), ENOSPC);
    assert_fails (zqb_auth_curve (auth, KEY, "c"), ENOSPC);
    assert_ok (zqb_auth_plain (auth, "a", "replaced"));
    assert_int_equal (counter (entries), 6);
    assert_ok (truncate (path, (16 << 20) + 1));
    assert_fails (zqb_auth_reload (auth), EFBIG);
}

TEST (a_file_that_others_may_change_or_passwords_that_they_may_read_are_eperm)
{
    static const struct {
        mode_t mode;
        int passwords, fine;
    } cases[] = {{0600, 1, 1}, {0400, 1, 1}, {0640, 1, 0}, {0604, 1, 0}, {0644, 0, 1},
                 {0664, 0, 0}, {0646, 0, 0}, {0620, 1, 0}, {0602, 0, 0}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        const char *text = cases[i].passwords ? "plain a b\n" : "allow 10.0.0.1\n";
        write_file (text, strlen (text), cases[i].mode);
        zqb_auth_options_t options = with_file ();
        errno = 0;
        auth = zqb_auth_start (ctx, &options);
        if (cases[i].fine)
            assert_non_null (auth);
        else {
            assert_null (auth);
            assert_int_equal (errno, EPERM);
        }
        zqb_auth_stop (&auth);
    }
}

TEST (what_is_no_file_is_told)
{
    zqb_auth_options_t options = with_file ();
    options.file = "/tmp/zqbroker-no-such-file";
    assert_none (zqb_auth_start (ctx, &options), ENOENT);
    assert_true (was_logged ("zqbroker-no-such-file"));
    options.file = "/tmp";
    assert_none (zqb_auth_start (ctx, &options), EINVAL);
    options.file = "";
    assert_none (zqb_auth_start (ctx, &options), EINVAL);
    start (NULL);
    assert_fails (zqb_auth_reload (auth), EINVAL);
}

TEST (a_reload_takes_all_of_a_file_or_nothing)
{
    char user[300];
    write_text ("plain alice one\nplain bob one\n");
    zqb_auth_options_t options = with_file ();
    start (&options);
    void *socket = asker ();
    assert_ok (zqb_auth_plain (auth, "called", "stays"));
    for (size_t i = 0; i < COUNT (bad_files); i++) {
        char text[300];
        int version = zqb__auth_version (auth);
        snprintf (text, sizeof text, "plain alice two\n%s", bad_files[i].text);
        write_text (text);
        assert_fails (zqb_auth_reload (auth), EINVAL);
        assert_int_equal (zqb__auth_version (auth), version);
        assert_int_equal (ask_plain (socket, "alice", "one", user), 200);
    }
    unlink (path);
    assert_fails (zqb_auth_reload (auth), ENOENT);
    assert_int_equal (counter (reloads_failed), COUNT (bad_files) + 1);
    assert_int_equal (ask_plain (socket, "bob", "one", user), 200);
    int version = zqb__auth_version (auth);
    write_text ("plain alice two\n");
    assert_ok (zqb_auth_reload (auth));
    assert_int_not_equal (zqb__auth_version (auth), version);
    assert_int_equal (ask_plain (socket, "alice", "one", user), 400);
    assert_int_equal (ask_plain (socket, "alice", "two", user), 200);
    assert_int_equal (ask_plain (socket, "bob", "one", user), 400);
    assert_int_equal (ask_plain (socket, "called", "stays", user), 200);
    assert_int_equal (counter (reloads), 2);
    close_socket (socket);
}

TEST (of_reloads_at_once_the_one_that_began_last_holds)
{
    static char old[] = "plain alice old\n", new[] = "plain alice new\n";
    zqb__file_t of_first = {old, sizeof old - 1, 0}, of_second = {new, sizeof new - 1, 0};
    char user[300];
    write_text (old);
    zqb_auth_options_t options = with_file ();
    start (&options);
    uint64_t first = zqb__auth_begin_reload (auth), second = zqb__auth_begin_reload (auth);
    assert_ok (zqb__auth_take_file (auth, &of_second, second));
    assert_ok (zqb__auth_take_file (auth, &of_first, first)); /* it had read the file before that was written */
    void *socket = asker ();
    assert_int_equal (ask_plain (socket, "alice", "new", user), 200);
    assert_int_equal (ask_plain (socket, "alice", "old", user), 400);
    close_socket (socket);
}

TEST (what_calls_say_goes_before_the_file_and_removes_from_it)
{
    char user[300];
    write_text ("plain alice filed\n");
    zqb_auth_options_t options = with_file ();
    start (&options);
    void *socket = asker ();
    assert_ok (zqb_auth_plain (auth, "alice", "called"));
    assert_int_equal (ask_plain (socket, "alice", "called", user), 200);
    assert_int_equal (ask_plain (socket, "alice", "filed", user), 400);
    assert_ok (zqb_auth_plain (auth, "alice", NULL));
    assert_int_equal (ask_plain (socket, "alice", "filed", user), 400);
    assert_ok (zqb_auth_reload (auth));
    assert_int_equal (ask_plain (socket, "alice", "filed", user), 200);
    close_socket (socket);
}

/* ---- who would be let in again */

enum { ALICE, BOB, GUEST, PLAIN_CAROL, NOBODY, KINDS };

typedef struct admitted_t {
    char user[300], entry[300];
} admitted_t;

static admitted_t admitted[KINDS];

/* Lets one of each kind in, from 192.0.2.1. */
static void admit_all (void *socket)
{
    unsigned char key[ZQB__KEY], other[ZQB__KEY] = {2}, guest[ZQB__KEY] = {3};
    zmq_z85_decode (key, KEY);
    for (int kind = 0; kind < KINDS; kind++) {
        admitted_t *in = &admitted[kind];
        int status = kind == ALICE         ? ask_curve (socket, key, in->user)
                     : kind == BOB         ? ask_curve (socket, other, in->user)
                     : kind == GUEST       ? ask_curve (socket, guest, in->user)
                     : kind == PLAIN_CAROL ? ask_plain (socket, "carol", "first", in->user)
                                           : ask_null (socket, "192.0.2.1");
        assert_int_equal (status, 200);
        strcpy (in->entry, entry);
    }
}

/* Whether exactly these would be let in again, each a bit. */
static void assert_admitted (int kinds)
{
    for (int kind = 0; kind < KINDS; kind++)
        assert_int_equal (
            zqb__auth_admits (auth, admitted[kind].user, "192.0.2.1", admitted[kind].entry), kinds >> kind & 1);
}

enum { ALL = (1 << KINDS) - 1 };

static void begin_admitted (void)
{
    unsigned char other[ZQB__KEY] = {2};
    char text[ZQB__KEY_TEXT + 1], file[400];
    zmq_z85_encode (text, other, ZQB__KEY);
    snprintf (file, sizeof file, "curve %s alice\ncurve %s bob\ncurve * guest\nplain carol first\n", KEY, text);
    write_text (file);
    zqb_auth_options_t options = with_file ();
    start (&options);
    void *socket = asker ();
    admit_all (socket);
    close_socket (socket);
    assert_admitted (ALL);
    assert_ok (zqb_auth_reload (auth)); /* which reads the same */
    assert_admitted (ALL);
}

TEST (who_is_on_no_list_any_more_would_not_be_let_in_again)
{
    begin_admitted ();
    int version = zqb__auth_version (auth);
    assert_ok (zqb_auth_curve (auth, "*", NULL));
    assert_int_not_equal (zqb__auth_version (auth), version);
    assert_admitted (ALL & ~(1 << GUEST));
    assert_ok (zqb_auth_curve (auth, KEY, NULL));
    assert_admitted (ALL & ~(1 << GUEST | 1 << ALICE));
    assert_ok (zqb_auth_plain (auth, "carol", NULL));
    assert_admitted (1 << BOB | 1 << NOBODY);
    write_text ("");
    assert_ok (zqb_auth_reload (auth));
    assert_admitted (1 << NOBODY);
}

TEST (who_has_another_key_or_password_now_would_not_be_let_in_by_the_old_one)
{
    begin_admitted ();
    write_text ("curve JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6 alice\nplain carol second\n");
    assert_ok (zqb_auth_reload (auth));
    assert_admitted (1 << NOBODY);
    assert_ok (zqb_auth_plain (auth, "carol", "first"));
    assert_admitted (1 << NOBODY | 1 << PLAIN_CAROL);
    assert_ok (zqb_auth_plain (auth, "carol", "third"));
    assert_admitted (1 << NOBODY);
}

TEST (whose_key_is_anothers_now_would_not_be_let_in_as_who_he_was)
{
    begin_admitted ();
    assert_ok (zqb_auth_curve (auth, KEY, "mallory"));
    assert_admitted (ALL & ~(1 << ALICE));
    assert_ok (zqb_auth_curve (auth, "*", "stranger"));
    assert_admitted (ALL & ~(1 << ALICE | 1 << GUEST));
    assert_ok (zqb_auth_curve (auth, KEY, "alice"));
    assert_admitted (ALL & ~(1 << GUEST));
}

TEST (an_address_that_is_denied_admits_nobody)
{
    begin_admitted ();
    int version = zqb__auth_version (auth);
    assert_ok (zqb_auth_deny (auth, "192.0.2.0/24"));
    assert_int_not_equal (zqb__auth_version (auth), version);
    assert_admitted (0);
    assert_true (zqb__auth_admits (auth, "alice", "10.0.0.1", admitted[ALICE].entry));
    assert_false (zqb__auth_admits (auth, "alice", "", admitted[ALICE].entry));
}

TEST (what_is_no_entry_admits_nobody_who_has_a_name)
{
    static const char *const entries[] = {"", "key", "key ", "key x", "key " KEY "x", "password", "password 1",
                                          "password 1 ", "password 1 carol", "password x carol", "hosts"};
    begin_admitted ();
    for (size_t i = 0; i < COUNT (entries); i++) {
        assert_false (zqb__auth_admits (auth, "alice", "192.0.2.1", entries[i]));
        assert_false (zqb__auth_admits (auth, "carol", "192.0.2.1", entries[i]));
    }
}

static zqb__flag_t lets_in;

static int decide_as_flagged (zqb_auth_peer_t *peer, UNUSED void *arg)
{
    strcpy (peer->user, "renamed");
    return zqb__flag_get (&lets_in) ? 1 : -1;
}

TEST (whom_the_host_named_or_let_in_it_has_to_send_away)
{
    unsigned char key[ZQB__KEY], unknown[ZQB__KEY] = {9};
    char user[300];
    zqb_auth_options_t options;
    memset (&options, 0, sizeof options);
    options.decide = decide_as_flagged;
    lets_in = 0;
    start (&options);
    void *socket = asker ();
    zmq_z85_decode (key, KEY);
    assert_ok (zqb_auth_curve (auth, KEY, "alice"));
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, "renamed");
    assert_true (zqb__auth_admits (auth, user, "192.0.2.1", entry));
    assert_ok (zqb_auth_curve (auth, KEY, NULL));
    assert_false (zqb__auth_admits (auth, user, "192.0.2.1", entry)); /* the list had let it in */
    zqb__flag_set (&lets_in);
    assert_int_equal (ask_curve (socket, unknown, user), 200);
    assert_ok (zqb_auth_plain (auth, "x", "y"));
    assert_true (zqb__auth_admits (auth, user, "192.0.2.1", entry));
    close_socket (socket);
}

TEST (the_log_tells_who_and_why_but_no_password)
{
    zqb_auth_options_t options = with_file ();
    char user[300];
    options.file = NULL;
    start (&options);
    void *socket = asker ();
    assert_ok (zqb_auth_plain (auth, "alice", "hush-hush"));
    assert_int_equal (ask_plain (socket, "alice", "hush-hush", user), 200);
    assert_true (was_logged ("let in: mechanism=PLAIN address=192.0.2.1 user=alice"));
    assert_int_equal (ask_plain (socket, "alice\n\\", "hush-hush", user), 400);
    assert_true (was_logged ("wrong user or password: mechanism=PLAIN address=192.0.2.1 user=alice\\x0a\\x5c"));
    for (int i = 0; i < 200; i++) /* who comes again and again does not fill it */
        ask_plain (socket, "mallory", "hush-hush", user);
    assert_int_equal (counter (refused_password), 201);
    close_socket (socket);
    zqb_auth_stop (&auth);
    assert_false (was_logged ("hush"));
    int lines = 0;
    for (const char *at = logged; (at = strstr (at, "mallory")) != NULL; at++)
        lines++;
    assert_true (lines < 200);
}

TEST (what_the_log_had_no_room_for_is_told_as_a_number)
{
    zqb_auth_options_t options = with_file ();
    options.file = NULL;
    start (&options);
    auth->lines.until = UINT64_MAX; /* the second goes on for ever */
    for (int i = 0; i < 15; i++)
        assert_int_equal (zqb__auth_may_tell (auth), i < 10);
    assert_false (was_logged ("more were refused"));
    auth->lines.until = 0; /* and is over */
    assert_true (zqb__auth_may_tell (auth));
    assert_true (was_logged ("5 more were refused"));
}

/* ---- real connections */

static const char *const server_keys[2] = {"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
                                          "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"};

typedef struct pair_t {
    void *server, *client;
    char client_public[41], client_secret[41];
} pair_t;

enum { BY_NULL, BY_PLAIN, BY_CURVE, MECHANISMS };

static void open_server (pair_t *pair, int mechanism, const char *endpoint)
{
    pair->server = open_socket (ZMQ_ROUTER);
    zmq_setsockopt (pair->server, ZMQ_ZAP_DOMAIN, "test", 4);
    if (mechanism == BY_PLAIN)
        zqb__set_int (pair->server, ZMQ_PLAIN_SERVER, 1);
    if (mechanism == BY_CURVE) {
        zqb__set_int (pair->server, ZMQ_CURVE_SERVER, 1);
        assert_ok (zmq_setsockopt (pair->server, ZMQ_CURVE_SECRETKEY, server_keys[1], 41));
    }
    assert_ok (zmq_bind (pair->server, endpoint));
}

static void open_client (pair_t *pair, int mechanism, const char *user, const char *password)
{
    char endpoint[256];
    size_t size = sizeof endpoint;
    zmq_getsockopt (pair->server, ZMQ_LAST_ENDPOINT, endpoint, &size);
    pair->client = open_socket (ZMQ_DEALER);
    zqb__set_int (pair->client, ZMQ_RECONNECT_IVL, 60000); /* once is enough */
    if (mechanism == BY_PLAIN) {
        zmq_setsockopt (pair->client, ZMQ_PLAIN_USERNAME, user, strlen (user));
        zmq_setsockopt (pair->client, ZMQ_PLAIN_PASSWORD, password, strlen (password));
    }
    if (mechanism == BY_CURVE) {
        assert_ok (zmq_setsockopt (pair->client, ZMQ_CURVE_SERVERKEY, server_keys[0], 41));
        assert_ok (zmq_setsockopt (pair->client, ZMQ_CURVE_PUBLICKEY, pair->client_public, 41));
        assert_ok (zmq_setsockopt (pair->client, ZMQ_CURVE_SECRETKEY, pair->client_secret, 41));
    }
    assert_ok (zmq_connect (pair->client, endpoint));
    assert_int_equal (zmq_send (pair->client, "hello", 5, 0), 5);
}

static void close_pair (pair_t *pair)
{
    close_socket (pair->client);
    close_socket (pair->server);
}

/* What the server gets: from whom, by which address, and, in entry, what that one was let in by. */
static void hear (pair_t *pair, char user[300], char address[300])
{
    zmq_msg_t msg;
    zmq_msg_init (&msg);
    assert_true (zmq_msg_recv (&msg, pair->server, 0) > 0);
    assert_int_equal (zmq_msg_recv (&msg, pair->server, 0), 5);
    const char *id = zmq_msg_gets (&msg, "User-Id"), *from = zmq_msg_gets (&msg, "Peer-Address");
    snprintf (user, 300, "%s", id ? id : "");
    snprintf (address, 300, "%s", from ? from : "");
    snprintf (entry, sizeof entry, "%s", zmq_msg_gets (&msg, zqb__zap_property));
    zmq_msg_close (&msg);
}

TEST (over_tcp_peers_of_each_mechanism_are_let_in_or_refused)
{
    static const struct {
        int mechanism, listed, denied;
        const char *user;
    } cases[] = {
        {BY_NULL, 0, 0, ""},      {BY_NULL, 0, 1, NULL},   {BY_PLAIN, 0, 0, NULL},  {BY_PLAIN, 1, 0, "alice"},
        {BY_PLAIN, 1, 1, NULL},   {BY_CURVE, 0, 0, NULL},  {BY_CURVE, 1, 0, "bob"}, {BY_CURVE, 1, 1, NULL},
    };
    if (!zmq_has ("curve"))
        skip ();
    for (size_t i = 0; i < COUNT (cases); i++) {
        pair_t pair;
        char user[300], address[300];
        zmq_curve_keypair (pair.client_public, pair.client_secret);
        start (NULL);
        if (cases[i].denied)
            assert_ok (zqb_auth_deny (auth, "127.0.0.1"));
        if (cases[i].listed) {
            assert_ok (zqb_auth_plain (auth, "alice", "secret"));
            assert_ok (zqb_auth_curve (auth, pair.client_public, "bob"));
        }
        open_server (&pair, cases[i].mechanism, "tcp://127.0.0.1:*");
        open_client (&pair, cases[i].mechanism, "alice", "secret");
        eventually (judged () == 1);
        assert_int_equal (counter (accepted), cases[i].user != NULL);
        if (cases[i].user) {
            hear (&pair, user, address);
            assert_string_equal (user, cases[i].user);
            assert_string_equal (address, "127.0.0.1");
            assert_true (zqb__auth_admits (auth, user, address, entry));
        } else
            assert_fails (zmq_recv (pair.server, user, 1, ZMQ_DONTWAIT), EAGAIN);
        close_pair (&pair);
        zqb_auth_stop (&auth);
    }
}

TEST (over_ipc_peers_are_of_the_list_ipc)
{
    char endpoint[80], user[300], address[300];
    pair_t pair;
    snprintf (endpoint, sizeof endpoint, "ipc:///tmp/zqbroker-unit-%016llx", (unsigned long long) zqb__random ());
    start (NULL);
    assert_ok (zqb_auth_allow (auth, "ipc"));
    open_server (&pair, BY_NULL, endpoint);
    open_client (&pair, BY_NULL, NULL, NULL);
    hear (&pair, user, address);
    assert_int_equal (strncmp (address, "localhost:", 10), 0);
    assert_ok (zqb_auth_deny (auth, "ipc"));
    close_socket (pair.client);
    open_client (&pair, BY_NULL, NULL, NULL);
    eventually (counter (refused_address) == 1);
    close_pair (&pair);
    unlink (endpoint + strlen ("ipc://"));
}

TEST (a_change_holds_for_the_next_connection)
{
    char user[300], address[300];
    pair_t pair;
    start (NULL);
    assert_ok (zqb_auth_plain (auth, "alice", "secret"));
    open_server (&pair, BY_PLAIN, "tcp://127.0.0.1:*");
    open_client (&pair, BY_PLAIN, "alice", "secret");
    hear (&pair, user, address);
    assert_ok (zqb_auth_plain (auth, "alice", NULL));
    assert_int_equal (zmq_send (pair.client, "again", 5, 0), 5);
    hear (&pair, user, address); /* that there is goes on: the broker has to let it go */
    assert_false (zqb__auth_admits (auth, user, address, entry));
    close_socket (pair.client);
    open_client (&pair, BY_PLAIN, "alice", "secret");
    eventually (counter (refused_password) == 1);
    close_pair (&pair);
}

TEST (while_nobody_answers_libzmq_lets_in_by_curve_and_a_start_ends_that)
{
    char user[300], address[300];
    pair_t pair;
    if (!zmq_has ("curve"))
        skip ();
    zmq_curve_keypair (pair.client_public, pair.client_secret);
    open_server (&pair, BY_CURVE, "tcp://127.0.0.1:*");
    open_client (&pair, BY_CURVE, NULL, NULL);
    hear (&pair, user, address); /* the manual warns of that */
    assert_string_equal (user, "");
    close_socket (pair.client);
    start (NULL);
    open_client (&pair, BY_CURVE, NULL, NULL);
    eventually (counter (refused_key) == 1);
    close_pair (&pair);
}

/* ---- beside others, and the end */

static void other_handler (void *arg)
{
    void *socket = arg;
    char frame[300];
    int more = 1;
    size_t size = sizeof more;
    while (more) {
        assert_true (zmq_recv (socket, frame, sizeof frame, 0) >= 0);
        zmq_getsockopt (socket, ZMQ_RCVMORE, &more, &size);
    }
    static const char *const frames[] = {"1.0", "1", "200", "OK", "whoever", ""};
    send_frames (socket, frames, NULL, 6);
}

TEST (beside_another_handler_it_is_eaddrinuse_and_that_one_answers)
{
    char user[300], address[300];
    pair_t pair;
    void *other = open_socket (ZMQ_REP);
    assert_ok (zmq_bind (other, ZAP));
    assert_none (zqb_auth_start (ctx, NULL), EADDRINUSE);
    zqb__thread_t *thread = zqb__thread_start (other_handler, other);
    open_server (&pair, BY_PLAIN, "tcp://127.0.0.1:*");
    open_client (&pair, BY_PLAIN, "alice", "secret");
    hear (&pair, user, address);
    assert_string_equal (user, "whoever");
    close_pair (&pair);
    zqb__thread_join (&thread);
    close_socket (other);
}

TEST (two_in_one_context_are_eaddrinuse_and_the_name_is_free_behind_stop)
{
    for (int i = 0; i < 20; i++) {
        start (NULL);
        assert_none (zqb_auth_start (ctx, NULL), EADDRINUSE);
        zqb_auth_stop (&auth);
        assert_null (auth);
    }
    zqb_auth_stop (&auth);
    zqb_auth_stop (NULL);
}

TEST (what_is_wrong_is_einval)
{
    zqb_auth_options_t options;
    zqb_auth_stats_t stats;
    memset (&options, 0, sizeof options);
    assert_none (zqb_auth_start (NULL, NULL), EINVAL);
    options.max_entries = -2;
    assert_none (zqb_auth_start (ctx, &options), EINVAL);
    options.max_entries = 0;
    options.max_lines = -2;
    assert_none (zqb_auth_start (ctx, &options), EINVAL);
    options.max_lines = 0;
    options.log_level = 5;
    assert_none (zqb_auth_start (ctx, &options), EINVAL);
    start (NULL);
    assert_fails (zqb_auth_allow (NULL, "10.0.0.1"), EINVAL);
    assert_fails (zqb_auth_allow (auth, NULL), EINVAL);
    assert_fails (zqb_auth_deny (auth, "x"), EINVAL);
    assert_fails (zqb_auth_curve (NULL, KEY, "a"), EINVAL);
    assert_fails (zqb_auth_curve (auth, NULL, "a"), EINVAL);
    assert_fails (zqb_auth_curve (auth, KEY, ""), EINVAL);
    assert_fails (zqb_auth_curve (auth, "**", "a"), EINVAL);
    assert_fails (zqb_auth_plain (NULL, "a", "a"), EINVAL);
    assert_fails (zqb_auth_plain (auth, NULL, "a"), EINVAL);
    assert_fails (zqb_auth_plain (auth, "", "a"), EINVAL);
    assert_fails (zqb_auth_plain (auth, "a", ""), EINVAL);
    assert_fails (zqb_auth_reload (NULL), EINVAL);
    assert_fails (zqb_auth_stats (NULL, &stats), EINVAL);
    assert_fails (zqb_auth_stats (auth, NULL), EINVAL);
    assert_int_equal (counter (entries), 0);
}

TEST (without_a_thread_it_is_eagain_and_may_be_started_later)
{
    unit_threads_run_out (0);
    assert_none (zqb_auth_start (ctx, NULL), EAGAIN);
    unit_threads_run_out (-1);
    start (NULL);
}

TEST (the_end_of_the_context_ends_it)
{
    void *other = zmq_ctx_new ();
    zqb_auth_t *mine = zqb_auth_start (other, NULL);
    assert_non_null (mine);
    assert_ok (zmq_ctx_term (other)); /* returns when its socket is closed */
    assert_ok (zqb_auth_allow (mine, "10.0.0.1"));
    zqb_auth_stop (&mine);
}

static zqb__flag_t flood_over, flooded;

static void flood (UNUSED void *arg)
{
    static const char *const frames[] = {"", "1.0", "id", "d", "1.2.3.4", "", "PLAIN", "alice", "secret"};
    void *socket = zmq_socket (ctx, ZMQ_DEALER);
    zqb__set_int (socket, ZMQ_LINGER, 0);
    zmq_connect (socket, ZAP);
    while (!zqb__flag_get (&flood_over)) {
        for (int i = 0; i < 9; i++)
            zmq_send (socket, frames[i], strlen (frames[i]), (i < 8 ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT);
        char frame[300];
        while (zmq_recv (socket, frame, sizeof frame, ZMQ_DONTWAIT) >= 0) {
        }
        zqb__flag_set (&flooded);
    }
    zmq_close (socket);
}

TEST (it_stops_while_requests_come)
{
    for (int i = 0; i < 10; i++) {
        zqb__thread_t *threads[2];
        flood_over = flooded = 0;
        start (NULL);
        assert_ok (zqb_auth_plain (auth, "alice", "secret"));
        for (int j = 0; j < 2; j++)
            threads[j] = zqb__thread_start (flood, NULL);
        eventually (counter (accepted) > 50);
        zqb_auth_stop (&auth);
        zqb__flag_set (&flood_over);
        for (int j = 0; j < 2; j++)
            zqb__thread_join (&threads[j]);
    }
}

static void change (UNUSED void *arg)
{
    for (int i = 0; i < 300; i++) {
        zqb_auth_curve (auth, KEY, i & 1 ? "bob" : NULL);
        zqb_auth_plain (auth, "carol", i & 1 ? "x" : NULL);
        zqb_auth_reload (auth);
        zqb__auth_admits (auth, "alice", "10.0.0.1", "key " KEY);
    }
}

TEST (lists_change_in_several_threads_while_it_answers)
{
    zqb__thread_t *threads[2];
    char user[300];
    write_text ("plain alice secret\n");
    zqb_auth_options_t options = with_file ();
    start (&options);
    void *socket = asker ();
    for (int i = 0; i < 2; i++)
        threads[i] = zqb__thread_start (change, NULL);
    for (int i = 0; i < 300; i++) /* listed at any time */
        assert_int_equal (ask_plain (socket, "alice", "secret", user), 200);
    for (int i = 0; i < 2; i++)
        zqb__thread_join (&threads[i]);
    assert_int_equal (counter (reloads), 601);
    close_socket (socket);
}

/* ---- memory */

TEST (without_memory_start_is_enomem_and_leaves_nothing)
{
    write_text ("allow 10.0.0.1\ncurve " KEY " alice\nplain bob x\n");
    zqb_auth_options_t options = with_file ();
    for (long most = 0; most <= 1; most++) {
        long left = 0;
        for (;; left++) {
            long live = unit_memory_live;
            unit_memory_fail (left, most);
            errno = 0;
            auth = zqb_auth_start (ctx, &options);
            int error = errno;
            unit_memory_recover ();
            if (auth)
                break;
            assert_int_equal (error, ENOMEM);
            assert_int_equal (unit_memory_live, live);
        }
        assert_true (left >= 14);
        assert_int_equal (counter (entries), 3);
        zqb_auth_stop (&auth);
    }
}

TEST (without_memory_a_reload_is_enomem_and_changes_nothing)
{
    char user[300];
    write_text ("plain alice one\n");
    zqb_auth_options_t options = with_file ();
    start (&options);
    void *socket = asker ();
    write_text ("plain alice two\nallow 192.0.2.1\ncurve * guest\n");
    long left = 0, live = unit_memory_live;
    for (;; left++) {
        unit_memory_fail (left, 0);
        int failed = zqb_auth_reload (auth), error = errno;
        unit_memory_recover ();
        if (!failed)
            break;
        assert_int_equal (error, ENOMEM);
        assert_int_equal (unit_memory_live, live);
        assert_int_equal (ask_plain (socket, "alice", "one", user), 200);
    }
    assert_true (left >= 6);
    assert_int_equal (counter (reloads_failed), (uint64_t) left);
    assert_int_equal (ask_plain (socket, "alice", "two", user), 200);
    close_socket (socket);
}

TEST (without_memory_calls_are_enomem_and_change_nothing)
{
    char user[300];
    start (NULL);
    void *socket = asker ();
    assert_ok (zqb_auth_plain (auth, "alice", "one"));
    unit_memory_fail (0, 0);
    assert_fails (zqb_auth_plain (auth, "alice", "two"), ENOMEM);
    assert_fails (zqb_auth_plain (auth, "bob", "two"), ENOMEM);
    assert_fails (zqb_auth_curve (auth, KEY, "bob"), ENOMEM);
    assert_fails (zqb_auth_allow (auth, "10.0.0.1"), ENOMEM);
    assert_int_equal (ask_plain (socket, "alice", "one", user), 200); /* answers need none of ours */
    assert_int_equal (ask_plain (socket, "bob", "two", user), 400);
    assert_int_equal (unit_memory_failures (), 4);
    unit_memory_recover ();
    assert_int_equal (counter (entries), 1);
    close_socket (socket);
}

/* The frames that tell who is let in are the only ones that may need memory of libzmq. */
TEST (without_memory_to_let_somebody_in_the_answer_is_300_and_that_is_counted)
{
    static const char name[] = "a user whose name has more than 33 bytes";
    char user[300];
    start (NULL);
    void *socket = asker ();
    assert_ok (zqb_auth_plain (auth, name, "secret"));
    assert_ok (zqb_auth_plain (auth, "bob", "secret"));
    __atomic_store_n (&unit_frames_out, 1, __ATOMIC_SEQ_CST);
    assert_int_equal (ask_plain (socket, name, "secret", user), 300);
    assert_string_equal (user, "");
    eventually (counter (no_memory) == 1);
    assert_int_equal (ask_plain (socket, "bob", "secret", user), 300);
    assert_string_equal (user, "");
    eventually (counter (no_memory) == 2);
    assert_int_equal (ask_null (socket, "192.0.2.1"), 200);
    assert_int_equal (ask_plain (socket, name, "wrong", user), 400);
    __atomic_store_n (&unit_frames_out, 0, __ATOMIC_SEQ_CST);
    assert_int_equal (ask_plain (socket, name, "secret", user), 200);
    assert_string_equal (user, name);
    assert_int_equal (counter (no_memory), 2);
    close_socket (socket);
}

TEST (an_answer_that_signals_interrupt_is_sent_nevertheless)
{
    char user[300];
    start (NULL);
    void *socket = asker ();
    assert_ok (zqb_auth_plain (auth, "bob", "secret"));
    __atomic_store_n (&unit_interruptions, 3, __ATOMIC_SEQ_CST);
    assert_int_equal (ask_plain (socket, "bob", "secret", user), 200);
    assert_string_equal (user, "bob");
    assert_int_equal (__atomic_load_n (&unit_interruptions, __ATOMIC_SEQ_CST), 0);
    close_socket (socket);
}

TEST (without_descriptors_or_in_a_context_that_ends_start_says_so_and_leaves_nothing)
{
    long live = unit_memory_live;
    assert_without_descriptors (!zqb_auth_start (ctx, NULL));
    assert_int_equal (unit_memory_live, live);
    void *other = zmq_ctx_new (), *socket = zmq_socket (other, ZMQ_PAIR);
    assert_non_null (socket);
    assert_ok (zmq_ctx_shutdown (other));
    assert_none (zqb_auth_start (other, NULL), ETERM);
    assert_int_equal (unit_memory_live, live);
    zmq_close (socket);
    assert_ok (zmq_ctx_term (other));
}

/* A broker with lists, and a peer that was let in, and has said nothing yet. */
static void *broker_with_a_peer (void)
{
    zqb_broker_options_t options;
    char endpoint[256];
    memset (&options, 0, sizeof options);
    start (NULL);
    options.auth = auth;
    broker = zqb_broker_new (ctx, &options);
    assert_non_null (broker);
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_endpoint (broker, 0, endpoint, sizeof endpoint));
    void *socket = open_socket (ZMQ_DEALER);
    assert_ok (zmq_connect (socket, endpoint));
    eventually (zqb_broker_step (broker, 0) >= 0 && counter (accepted) == 1);
    return socket;
}

static void ask_for_work (void *socket)
{
    static const char *const frames[] = {"", "MDPC01", "work", "x"};
    send_frames (socket, frames, NULL, COUNT (frames));
}

/* One that is on the lists no more, and was not heard before, asks for something: whichever allocation of the broker
   fails, that is not queued. Whether one failed. */
static int revoked_asks (long left)
{
    zqb_stats_t stats;
    memset (&stats, 0, sizeof stats);
    void *socket = broker_with_a_peer ();
    assert_ok (zqb_auth_deny (auth, "127.0.0.0/8"));
    zqb_broker_step (broker, 0);
    unit_memory_fail (left, 1);
    ask_for_work (socket);
    eventually (zqb_broker_step (broker, 0) >= 0 && zqb_broker_stats (broker, &stats) == 0 && stats.messages_in == 1);
    int failed = unit_memory_failures () > 0;
    unit_memory_recover ();
    close_socket (socket);
    zqb_broker_destroy (&broker);
    zqb_auth_stop (&auth);
    assert_int_equal (stats.accepted, 0);
    assert_int_equal (stats.no_memory + stats.denied_call, 1);
    return failed;
}

TEST (without_memory_nobody_is_taken_for_welcome)
{
    for (long left = 0; revoked_asks (left); left++)
        continue;
}

TEST (without_memory_to_read_what_has_ended_a_connection_is_ended_later)
{
    void *socket = broker_with_a_peer ();
    ask_for_work (socket);
    eventually (zqb_broker_step (broker, 0) >= 0 && stat (broker, accepted) == 1);
    zqb__port_t *port = broker->ports[0];
    assert_int_equal (port->gone_count, 0);
    ZQB_FREE (port->gone);
    port->gone = NULL;
    port->gone_capacity = 0;
    assert_ok (zqb_auth_deny (auth, "127.0.0.0/8"));
    unit_memory_fail (0, 0);
    zqb_broker_step (broker, 0);
    assert_true (unit_memory_failures () > 0);
    unit_memory_recover ();
    assert_int_equal (stat (broker, let_go), 0);
    eventually (zqb_broker_step (broker, 0) >= 0 && stat (broker, let_go) == 1);
    close_socket (socket);
}

TEST (without_memory_for_keys_it_is_enomem_and_there_are_none)
{
    zqb__keys_t *keys = (zqb__keys_t *) path; /* anything but NULL */
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.plain = 1;
    unit_memory_fail (0, 0);
    assert_fails (zqb__keys_of_peer (&keys, NULL, NULL, NULL, "alice", "secret"), ENOMEM);
    assert_null (keys);
    keys = (zqb__keys_t *) path;
    assert_fails (zqb__keys_of_broker (&keys, &options), ENOMEM);
    assert_null (keys);
    assert_int_equal (unit_memory_failures (), 2);
}

/* As else it would go on without protection. */
TEST (what_a_socket_does_not_take_of_keys_is_an_error)
{
    zqb__keys_t *keys;
    zqb_broker_options_t options;
    char byte;
    void *other = zmq_ctx_new (), *socket = zmq_socket (other, ZMQ_DEALER);
    assert_non_null (socket);
    assert_ok (zmq_ctx_shutdown (other));
    assert_fails (zmq_recv (socket, &byte, 1, 0), ETERM); /* from here on it takes nothing */
    memset (&options, 0, sizeof options);
    options.plain = 1;
    assert_ok (zqb__keys_of_broker (&keys, &options));
    assert_fails (zqb__keys_apply (keys, socket), ETERM);
    zqb__keys_free (&keys);
    assert_ok (zqb__keys_of_peer (&keys, NULL, NULL, NULL, "alice", "secret"));
    assert_fails (zqb__keys_apply (keys, socket), ETERM);
    zqb__keys_free (&keys);
    assert_ok (zqb__keys_of_peer (&keys, KEY, NULL, NULL, NULL, NULL));
    assert_fails (zqb__keys_apply (keys, socket), ETERM);
    zqb__keys_free (&keys);
    zmq_close (socket);
    assert_ok (zmq_ctx_term (other));
}

TEST (a_file_that_cannot_be_read_is_an_error)
{
    char text[5];
    zqb__file_t file;
    int handle;
    file.text = text;
    file.size = 4;
    write_text ("four");
    handle = open (path, O_WRONLY);
    assert_true (handle >= 0);
    assert_fails (zqb__file_fill (&file, handle), EBADF);
    close (handle);
}

TEST (many_keys_of_one_user_and_many_users_are_found)
{
    char key_text[41], name[32], user[300];
    unsigned char key[32] = {0};
    start (NULL);
    void *socket = asker ();
    for (int i = 0; i < 2000; i++) {
        memcpy (key, &i, sizeof i);
        zmq_z85_encode (key_text, key, 32);
        snprintf (name, sizeof name, "user-%d", i);
        assert_ok (zqb_auth_curve (auth, key_text, i & 1 ? name : "team"));
        assert_ok (zqb_auth_plain (auth, name, name));
    }
    assert_int_equal (counter (entries), 4000);
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, "user-1999");
    assert_int_equal (ask_plain (socket, "user-77", "user-77", user), 200);
    for (int i = 0; i < 2000; i += 2) {
        memcpy (key, &i, sizeof i);
        zmq_z85_encode (key_text, key, 32);
        assert_ok (zqb_auth_curve (auth, key_text, NULL));
        assert_int_equal (ask_curve (socket, key, user), 400);
    }
    assert_int_equal (counter (entries), 3000);
    memcpy (key, &(int){1}, sizeof (int));
    assert_int_equal (ask_curve (socket, key, user), 200);
    assert_string_equal (user, "user-1");
    close_socket (socket);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        FRESH (cidr_covers_what_has_the_same_first_bits),
        FRESH (what_is_no_cidr_is_einval),
        FRESH (secrets_are_the_same_if_all_bytes_and_the_length_are),
        FRESH (keys_are_40_characters_of_z85),
        FRESH (the_parser_reads_what_is_well_formed),
        FRESH (the_parser_misses_every_field_that_is_missing),
        FRESH (the_parser_refuses_every_field_that_is_there_twice),
        FRESH (the_parser_refuses_every_field_that_is_too_long),
        FRESH (the_parser_refuses_what_is_empty_but_must_not_be_and_what_is_no_text),
        FRESH (the_parser_knows_how_many_credentials_a_mechanism_has),
        FRESH (credentials_are_overwritten_when_a_request_is_over),
        FRESH (what_is_malformed_gets_a_500_or_no_answer_and_is_counted),
        FRESH (an_unknown_mechanism_is_refused),
        FRESH (denied_wins_and_if_any_is_allowed_others_are_not),
        FRESH (plain_users_need_their_password),
        FRESH (curve_keys_have_a_user),
        FRESH (the_host_is_asked_last_and_not_about_what_nobody_can_let_in),
        FRESH (a_file_lists_addresses_keys_and_users),
        FRESH (a_file_that_is_wrong_is_einval_and_the_log_says_where),
        FRESH (lines_and_files_and_lists_have_limits),
        FRESH (a_file_that_others_may_change_or_passwords_that_they_may_read_are_eperm),
        FRESH (what_is_no_file_is_told),
        FRESH (a_reload_takes_all_of_a_file_or_nothing),
        FRESH (of_reloads_at_once_the_one_that_began_last_holds),
        FRESH (what_calls_say_goes_before_the_file_and_removes_from_it),
        FRESH (who_is_on_no_list_any_more_would_not_be_let_in_again),
        FRESH (who_has_another_key_or_password_now_would_not_be_let_in_by_the_old_one),
        FRESH (whose_key_is_anothers_now_would_not_be_let_in_as_who_he_was),
        FRESH (an_address_that_is_denied_admits_nobody),
        FRESH (what_is_no_entry_admits_nobody_who_has_a_name),
        FRESH (whom_the_host_named_or_let_in_it_has_to_send_away),
        FRESH (the_log_tells_who_and_why_but_no_password),
        FRESH (what_the_log_had_no_room_for_is_told_as_a_number),
        FRESH (over_tcp_peers_of_each_mechanism_are_let_in_or_refused),
        FRESH (over_ipc_peers_are_of_the_list_ipc),
        FRESH (a_change_holds_for_the_next_connection),
        FRESH (while_nobody_answers_libzmq_lets_in_by_curve_and_a_start_ends_that),
        FRESH (beside_another_handler_it_is_eaddrinuse_and_that_one_answers),
        FRESH (two_in_one_context_are_eaddrinuse_and_the_name_is_free_behind_stop),
        FRESH (what_is_wrong_is_einval),
        FRESH (without_a_thread_it_is_eagain_and_may_be_started_later),
        FRESH (the_end_of_the_context_ends_it),
        FRESH (it_stops_while_requests_come),
        FRESH (lists_change_in_several_threads_while_it_answers),
        FRESH (without_memory_start_is_enomem_and_leaves_nothing),
        FRESH (without_memory_a_reload_is_enomem_and_changes_nothing),
        FRESH (without_memory_calls_are_enomem_and_change_nothing),
        FRESH (without_memory_to_let_somebody_in_the_answer_is_300_and_that_is_counted),
        FRESH (an_answer_that_signals_interrupt_is_sent_nevertheless),
        FRESH (without_descriptors_or_in_a_context_that_ends_start_says_so_and_leaves_nothing),
        FRESH (without_memory_nobody_is_taken_for_welcome),
        FRESH (without_memory_to_read_what_has_ended_a_connection_is_ended_later),
        FRESH (without_memory_for_keys_it_is_enomem_and_there_are_none),
        FRESH (what_a_socket_does_not_take_of_keys_is_an_error),
        FRESH (a_file_that_cannot_be_read_is_an_error),
        FRESH (many_keys_of_one_user_and_many_users_are_found),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
