/*  Fuzzes who may connect: requests of ZAP, files of lists, and calls, in any order. Shows that each request that can
    be answered is, once, in due form, and any other not at all; that a request is malformed exactly when a second,
    plainer reader says so; that nobody is let in by a password that is not listed; that who is let in would be let in
    again, by what the answer says of that; that a file is taken whole or not at all; and that nothing is left.

        make fuzz FUZZ=fuzz_auth FUZZ_SECONDS=60 */

#include "world.h"
#include "steps.h"

enum { USERS_MOST = 8 };

static zqb_auth_t *auth;
static char text[16384]; /* of the file that is being written */
static size_t text_size;
static uint64_t asked;   /* requests so far */

/* The answer to the request that was asked last. */
static struct {
    unsigned count;
    int status;
    char user[256], entry[512];
} answer;

static const char *const words[USERS_MOST] = {"alice", "bob", " a", "", "secret", "secret ", "se\0cret", "*"};
static const char *const keys[4] = {"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "*", "short",
                                    "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"};
static const char *const nets[16] = {"192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::1",
                                     "::ffff:192.0.2.1", "::ffff:192.0.2.0/120", "ipc", "localhost:1:2:3", "", "nobody",
                                     "192.0.2.1/33", "fe80::1%eth0", "127.0.0.1/8", "localhost"};

/* What is listed by call; of the file the world knows nothing. */
static const char *listed[USERS_MOST];
static int file_is_read;

/* ---- answers */

static int is_text (zmq_msg_t *frame, const char *expected)
{
    return zmq_msg_size (frame) == strlen (expected) && memcmp (zmq_msg_data (frame), expected, strlen (expected)) == 0;
}

/* One property, of who is let in: what he was let in by. */
static void see_metadata (zmq_msg_t *frame)
{
    const uint8_t *at = (const uint8_t *) zmq_msg_data (frame);
    size_t name = strlen (zqb__zap_property), size = zmq_msg_size (frame);
    CHECK ((size != 0) == (answer.status == 200), "only who is let in has metadata");
    if (!size)
        return;
    CHECK (size > 5 + name && at[0] == name && memcmp (at + 1, zqb__zap_property, name) == 0, "it is our property");
    CHECK (at[1 + name] == 0 && at[2 + name] == 0 && at[3 + name] * 256u + at[4 + name] == size - 5 - name,
           "nothing is behind its value");
    CHECK (size - 5 - name < ZQB__ENTRY_ROOM, "it is short");
    memcpy (answer.entry, at + 5 + name, size - 5 - name);
}

static void see_answer (UNUSED socket_t *socket, frames_t *frames)
{
    CHECK (frames->count == 8, "an answer has seven frames behind the address");
    CHECK (is_text (&frames->at[0], "peer"), "an answer goes to who asked");
    CHECK (zmq_msg_size (&frames->at[1]) == 0 && is_text (&frames->at[2], "1.0"), "an answer has a head");
    CHECK (zmq_msg_size (&frames->at[3]) >= 1 && zmq_msg_size (&frames->at[3]) <= 255, "an answer has an id");
    CHECK (zmq_msg_size (&frames->at[6]) < 256, "a user id is short");
    answer.count++;
    answer.status = is_text (&frames->at[4], "200") ? 200 : is_text (&frames->at[4], "300") ? 300
                    : is_text (&frames->at[4], "400") ? 400 : is_text (&frames->at[4], "500") ? 500 : 0;
    memcpy (answer.user, zmq_msg_data (&frames->at[6]), zmq_msg_size (&frames->at[6]));
    CHECK (answer.status, "the status is one of four");
    CHECK (!answer.user[0] || answer.status == 200, "only who is let in has a user");
    see_metadata (&frames->at[7]);
}

/* ---- a second reader */

static int judge_text (const zmq_msg_t *frame, size_t most)
{
    zmq_msg_t *at = (zmq_msg_t *) frame;
    for (size_t i = 0; i < zmq_msg_size (at); i++)
        if (((const uint8_t *) zmq_msg_data (at))[i] < ' ' || ((const uint8_t *) zmq_msg_data (at))[i] > '~')
            return 0;
    return zmq_msg_size (at) <= most;
}

static int judge_mechanism (zmq_msg_t *frame)
{
    const uint8_t *at = (const uint8_t *) zmq_msg_data (frame);
    size_t size = zmq_msg_size (frame);
    for (size_t i = 0; i < size; i++)
        if (!((at[i] >= 'A' && at[i] <= 'Z') || (at[i] >= '0' && at[i] <= '9') || at[i] == '-' || at[i] == '_'
              || at[i] == '.' || at[i] == '+'))
            return 0;
    return size >= 1 && size <= 20;
}

/* 2: well-formed, 1: malformed, 0: nobody can be answered. */
static int judge (const frames_t *frames)
{
    zmq_msg_t *at = frames->at;
    size_t n = frames->count;
    if (n < 4 || zmq_msg_size (&at[1]) || !zmq_msg_size (&at[3]) || zmq_msg_size (&at[3]) > 255)
        return 0;
    if (n < 8 || n > 16 || !is_text (&at[2], "1.0") || !judge_text (&at[4], 255) || !judge_text (&at[5], 255)
        || zmq_msg_size (&at[6]) > 255 || !judge_mechanism (&at[7]))
        return 1;
    if (is_text (&at[7], "NULL"))
        return n == 8 ? 2 : 1;
    if (is_text (&at[7], "PLAIN"))
        return n == 10 && zmq_msg_size (&at[8]) < 256 && zmq_msg_size (&at[9]) < 256 ? 2 : 1;
    if (is_text (&at[7], "CURVE"))
        return n == 9 && zmq_msg_size (&at[8]) == 32 ? 2 : 1;
    return 2;
}

/* Whether a user and a password are listed by call. */
static int judge_password (const frames_t *frames)
{
    for (size_t i = 0; i < USERS_MOST; i++)
        if (listed[i] && is_text (&frames->at[8], words[i]) && is_text (&frames->at[9], listed[i]))
            return 1;
    return 0;
}

/* ---- steps */

/* Asks, and takes the frames over. */
static void ask (frames_t *frames)
{
    int form = judge (frames), mechanism = form == 2 ? is_text (&frames->at[7], "PLAIN") ? 'P' : 'x' : 0;
    int right = mechanism == 'P' && judge_password (frames);
    char address[256] = "";
    if (form == 2)
        memcpy (address, zmq_msg_data (&frames->at[5]), zmq_msg_size (&frames->at[5]));
    memset (&answer, 0, sizeof answer);
    world_deliver (auth->socket, frames, 1);
    asked++;
    CHECK (zqb__auth_serve (auth, 10) == 0, "what is there is served");
    CHECK (answer.count == (form ? 1u : 0u), "each request that can be answered is, once");
    CHECK ((answer.status == 500) == (form == 1), "500 is for what is malformed");
    CHECK (answer.status != 300 || world.failed, "only without memory it is put off");
    CHECK (mechanism != 'P' || right || file_is_read || answer.status != 200, "nobody gets in without the password");
    CHECK (answer.status != 200 || zqb__auth_admits (auth, answer.user, address, answer.entry),
           "who is let in would be let in again");
}

static void ask_frames (script_t *step)
{
    static const speaker_t nobody = {1, NULL, NULL};
    frames_t frames = {NULL, 0, 0};
    frames_add (&frames, "peer", 4);
    script_frames (step, &frames, &nobody);
    ask (&frames);
}

static void add_text (frames_t *frames, const char *word)
{
    frames_add (frames, word, strlen (word));
}

static void add_field (frames_t *frames, unsigned field, unsigned mechanism, unsigned address, const char *user,
                       const char *password)
{
    static const char *const mechanisms[4] = {"NULL", "PLAIN", "CURVE", "GSSAPI"};
    uint8_t key[32] = {0};
    switch (field) {
        case 0: add_text (frames, "1.0"); break;
        case 1: add_text (frames, "id"); break;
        case 2: add_text (frames, "domain"); break;
        case 3: add_text (frames, nets[address % 16]); break;
        case 4: add_text (frames, ""); break;
        case 5: add_text (frames, mechanisms[mechanism % 4]); break;
        default:
            if (mechanism % 4 == 1) {
                add_text (frames, user);
                add_text (frames, password);
            } else if (mechanism % 4 == 2) {
                zmq_z85_decode (key, keys[mechanism & 4 ? 0 : 3]);
                frames_add (frames, key, 32);
            }
    }
}

/* A request that is well-formed, but for one field, perhaps, that is left out, said twice, or anything. */
static void ask_usual (script_t *step)
{
    frames_t frames = {NULL, 0, 0};
    unsigned mechanism = script_byte (step), address = script_byte (step);
    const char *user = words[script_byte (step) % USERS_MOST], *password = words[script_byte (step) % USERS_MOST];
    unsigned field = script_byte (step), twist = script_byte (step) % 4;
    add_text (&frames, "peer");
    add_text (&frames, "");
    for (unsigned i = 0; i < 7; i++) {
        int here = field && i == (field - 1) % 7;
        if (here && twist == 3)
            frames_add (&frames, step->at, step->left);
        else if (!here || twist != 1)
            add_field (&frames, i, mechanism, address, user, password);
        if (here && twist == 2)
            add_field (&frames, i, mechanism, address, user, password);
    }
    ask (&frames);
}

static void write_text (script_t *step)
{
    static const char *const starts[] = {"", "allow ", "deny ", "curve ", "plain ", "# "};
    const char *start = starts[script_byte (step) % COUNT (starts)];
    for (; *start && text_size < sizeof text; start++)
        text[text_size++] = *start;
    while (step->left && text_size < sizeof text)
        text[text_size++] = (char) script_byte (step);
}

static uint64_t entries (void)
{
    zqb_auth_stats_t stats;
    CHECK (zqb_auth_stats (auth, &stats) == 0, "counters can be read");
    return stats.entries;
}

static int take_text (int shared)
{
    zqb__file_t file = {(char *) fuzz_must (malloc (text_size + 1)), text_size, shared};
    memcpy (file.text, text, text_size);
    file.text[text_size] = 0;
    int failed = zqb__auth_take_file (auth, &file, zqb__auth_begin_reload (auth)), error = errno;
    free (file.text);
    errno = error;
    return failed;
}

static void reload (script_t *step)
{
    unsigned how = script_byte (step);
    int version = zqb__auth_version (auth), shared = how & 1;
    uint64_t before = entries (), failures = world.failed;
    if (take_text (shared) == 0) {
        uint64_t after = entries ();
        CHECK (zqb__auth_version (auth) != version, "what was read changes the version");
        world.memory_fails = 0;
        CHECK (take_text (shared) == 0 && entries () == after, "a file says the same when read again");
        file_is_read = 1;
    } else {
        CHECK (errno == EINVAL || errno == ENOSPC || (errno == EPERM && shared)
                   || (errno == ENOMEM && world.failed > failures),
               "why a file is not taken is told");
        CHECK (entries () == before && zqb__auth_version (auth) == version, "a file is taken whole or not at all");
    }
    if (!(how & 2))
        text_size = 0;
}

/* Whether somebody would be let in by whatever text. */
static void ask_of_anything (script_t *step, const char *user, const char *address)
{
    char entry[64];
    size_t size = 0;
    while (step->left && size + 1 < sizeof entry)
        entry[size++] = (char) script_byte (step);
    entry[size] = 0;
    int version = zqb__auth_version (auth), admits = zqb__auth_admits (auth, user, address, entry);
    CHECK (admits == (admits != 0) && zqb__auth_version (auth) == version, "to ask who is let in changes nothing");
}

/* The calls of the host. */
static void call (script_t *step)
{
    unsigned what = script_byte (step), first = script_byte (step), second = script_byte (step);
    int version = zqb__auth_version (auth), failed = 0;
    const char *user = words[first % USERS_MOST], *word = second & 8 ? NULL : words[second % USERS_MOST];
    switch (what % 5) {
        case 0: failed = zqb_auth_allow (auth, nets[first % 16]); break;
        case 1: failed = zqb_auth_deny (auth, nets[first % 16]); break;
        case 2: failed = zqb_auth_curve (auth, keys[first % 4], word); break;
        case 3:
            failed = zqb_auth_plain (auth, user, word);
            for (size_t i = 0; !failed && i < USERS_MOST; i++)
                if (strcmp (words[i], user) == 0)
                    listed[i] = word;
            break;
        default:
            ask_of_anything (step, user, nets[second % 16]);
            return;
    }
    CHECK ((failed == 0) == (zqb__auth_version (auth) != version), "the version changes with the lists");
    CHECK (!failed || errno == EINVAL || errno == ENOENT || errno == ENOSPC || (errno == ENOMEM && world.failed),
           "a call says why it failed");
}

/* Any text as an address: what is read is a number of bits that there are, and covers itself. */
static void read_address (script_t *step)
{
    char address[256];
    zqb__net_t net, peer;
    size_t size = 0;
    while (step->left)
        address[size++] = (char) script_byte (step);
    address[size] = 0;
    peer = zqb__net_of_peer (address);
    if (zqb__net_read (&net, address) != 0)
        return;
    CHECK (net.family == ZQB__NET_IPC || net.family == ZQB__NET_IP4 || net.family == ZQB__NET_IP6, "a family is known");
    CHECK (net.bits <= (net.family == ZQB__NET_IP4 ? 32u : 128u), "there are so many bits");
    CHECK (strchr (address, '/') || net.family == ZQB__NET_IPC || zqb__net_covers (&net, &peer),
           "an address covers itself");
}

static void take_step (script_t *step)
{
    switch (script_byte (step) % AUTH_STEPS) {
        case AUTH_ASK: ask_usual (step); break;
        case AUTH_FRAMES: ask_frames (step); break;
        case AUTH_TEXT: write_text (step); break;
        case AUTH_LINE: text_size += text_size < sizeof text ? (text[text_size] = '\n', 1u) : 0u; break;
        case AUTH_RELOAD: reload (step); break;
        case AUTH_CALL: call (step); break;
        case AUTH_ADDRESS: read_address (step); break;
        default:
            world.memory_holds = script_byte (step) % 32;
            world.memory_fails = script_byte (step);
    }
}

static void check_counters (void)
{
    zqb_auth_stats_t now;
    zqb_auth_stats (auth, &now);
    CHECK (now.accepted + now.refused_address + now.refused_key + now.refused_password + now.refused_mechanism
                   + now.refused_host + now.malformed == asked,
           "each request is counted once");
    CHECK (now.dropped <= now.malformed, "what has no answer is malformed");
}

static void nothing_told (int level, const char *line, UNUSED void *arg)
{
    CHECK (level >= ZQB_LOG_ERROR && level <= ZQB_LOG_DEBUG, "a line has a level");
    CHECK (strlen (line) < 1280 && !strchr (line, '\n'), "a line is one line");
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    script_t script = {data, size}, step;
    zqb_auth_options_t options;
    world_begin ();
    world.sent = see_answer;
    memset (&options, 0, sizeof options);
    memset (listed, 0, sizeof listed);
    options.log = nothing_told;
    options.max_entries = 40;
    options.max_lines = 100;
    text_size = 0;
    asked = 0;
    file_is_read = 0;
    auth = zqb__auth_new ("a context", &options);
    CHECK (auth, "it is made");
    auth->file = zqb__copy_text ("lists", 5);
    while (script_step (&script, &step))
        take_step (&step);
    check_counters ();
    world.memory_fails = 0;
    zqb__auth_leave (auth);
    zqb__auth_free (auth);
    world_end ();
    return 0;
}
