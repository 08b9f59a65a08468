/* Every dialect, read and written, byte by byte; and what is not well-formed. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"
#include "unit_text.h"

/* ---- messages from text, and as text */

/* The frames of a text, in which all bytes stand for themselves but the bar. */
static void add_text (zqb_msg_t *msg, const char *text)
{
    for (const char *end; (end = strchr (text, '|')) != NULL; text = end + 1)
        zqb_msg_add (msg, text, (size_t) (end - text));
    zqb_msg_add_str (msg, text);
}

/* The bytes of a text in hexadecimal, in which spaces do not count. */
static size_t from_hex (unsigned char *bytes, const char *hex)
{
    size_t size = 0;
    unsigned byte;
    for (int read = 0; sscanf (hex, " %2x%n", &byte, &read) == 1; hex += read)
        bytes[size++] = (unsigned char) byte;
    return size;
}

static void put_hex (char *text, const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        put (text, "%02x", bytes[i]);
}

static const char *error_name (int error)
{
    static const char *const names[] = {"FINE", "BAD_HEADER", "BAD_COMMAND", "BAD_FRAMES", "BAD_NAME"};
    return names[error];
}

/* What a message says: "MDP/0.1 client 2 REQUEST ...": the dialect, the side, frames of envelope, the commands. */
static void put_message (char *text, int place, zqb_msg_t *msg)
{
    zqb__parcel_t scratch;
    zqb__incoming_t in;
    zqb__command_t command;
    int more;
    memset (&scratch, 0, sizeof scratch);
    if (zqb__wire_open (&in, place, zqb_msg_frame (msg, 0), zqb_msg_count (msg), &scratch) != 0) {
        put (text, "%s", error_name (in.error));
        return;
    }
    size_t head = strlen (text);
    while ((more = zqb__wire_next (&in, &command)) == 1)
        put (text, "; "), put_command (text, &command);
    if (more < 0)
        put (text, "; %s", error_name (in.error));
    char commands[TEXT];
    snprintf (commands, sizeof commands, "%s", text + head);
    text[head] = 0;
    const char *side = in.dialect == ZQB__ZQB1 ? "" : in.side == ZQB__CLIENT ? "client " : "worker ";
    put (text, "%s %s%u%s", zqb__dialects[in.dialect].name, side, (unsigned) in.envelope, commands);
    zqb__parcel_close (&scratch);
}

typedef struct reading_t {
    const char *frames, *says;
} reading_t;

static void assert_reads (int place, const reading_t *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char text[TEXT] = "";
        zqb_msg_t msg;
        zqb_msg_init (&msg);
        add_text (&msg, cases[i].frames);
        put_message (text, place, &msg);
        zqb_msg_close (&msg);
        assert_string_equal (text, cases[i].says);
    }
}

#define reads(place, cases) assert_reads ((place), (cases), COUNT (cases))

#define TOKEN_BYTES "\1\2\3\4\5\6\7\10"
#define TOKEN 0x0102030405060708u

/* ---- Majordomo, as the broker reads it: the first frame is the address that ROUTER puts in front */

TEST (mdp01_of_clients_is_read_as_rfc_7_says)
{
    static const reading_t cases[] = {
        {"a||MDPC01|echo|body", "MDP/0.1 client 2; REQUEST @echo 1:body"},
        {"a||MDPC01|echo|one||three", "MDP/0.1 client 2; REQUEST @echo 3:one||three"},
        {"a||MDPC01|echo|", "MDP/0.1 client 2; REQUEST @echo 1:"},
        {"a||MDPC01|mmi.service|echo", "MDP/0.1 client 2; REQUEST @mmi.service 1:echo"},
        {"a|MDPC01|echo|no empty frame in front", "MDP/0.1 client 1; REQUEST @echo 1:no empty frame in front"},
        {"a||MDPC01", "MDP/0.1 client 2; BAD_FRAMES"},
        {"a||MDPC01|echo", "MDP/0.1 client 2; BAD_FRAMES"},
        {"a||MDPC01||body", "MDP/0.1 client 2; BAD_NAME"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

TEST (mdp01_of_workers_is_read_as_rfc_7_says)
{
    static const reading_t cases[] = {
        {"a||MDPW01|\1|echo", "MDP/0.1 worker 2; READY @echo"},
        {"a||MDPW01|\3|" TOKEN_BYTES "||body|more", "MDP/0.1 worker 2; REPLY #102030405060708 2:body|more"},
        {"a||MDPW01|\4", "MDP/0.1 worker 2; HEARTBEAT"},
        {"a||MDPW01|\5", "MDP/0.1 worker 2; DISCONNECT"},
        {"a||MDPW01", "MDP/0.1 worker 2; BAD_FRAMES"},
        {"a||MDPW01|\1", "MDP/0.1 worker 2; BAD_FRAMES"},
        {"a||MDPW01|\1|", "MDP/0.1 worker 2; BAD_NAME"},
        {"a||MDPW01|\3", "MDP/0.1 worker 2; BAD_FRAMES"},
        {"a||MDPW01|\2|x||body", "MDP/0.1 worker 2; BAD_COMMAND"},
        {"a||MDPW01|\6", "MDP/0.1 worker 2; BAD_COMMAND"},
        {"a||MDPW01|", "MDP/0.1 worker 2; BAD_COMMAND"},
        {"a||MDPW01|\1\1|echo", "MDP/0.1 worker 2; BAD_COMMAND"},
        {"a||MDPW01|ready|echo", "MDP/0.1 worker 2; BAD_COMMAND"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

TEST (the_empty_frame_behind_the_token_is_optional)
{
    static const reading_t cases[] = {
        {"a||MDPW01|\3|" TOKEN_BYTES "|body", "MDP/0.1 worker 2; REPLY #102030405060708 1:body"},
        {"a|MDPW02|\4|" TOKEN_BYTES "|body", "MDP/0.2 worker 1; REPLY #102030405060708 1:body"},
        {"a||MDPW01|\3|" TOKEN_BYTES "|||", "MDP/0.1 worker 2; REPLY #102030405060708 2:|"},
        {"a||MDPW01|\3|" TOKEN_BYTES "|", "MDP/0.1 worker 2; REPLY #102030405060708"},
        {"a||MDPW01|\3|" TOKEN_BYTES, "MDP/0.1 worker 2; REPLY #102030405060708"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

TEST (an_address_that_is_no_token_of_ours_is_read_as_none)
{
    static const reading_t cases[] = {
        {"a||MDPW01|\3|short||body", "MDP/0.1 worker 2; REPLY 1:body"},
        {"a||MDPW01|\3|" TOKEN_BYTES "longer||body", "MDP/0.1 worker 2; REPLY 1:body"},
        {"a||MDPW01|\3|||body", "MDP/0.1 worker 2; REPLY 1:body"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

TEST (mdp01_may_have_its_commands_in_words)
{
    static const reading_t cases[] = {
        {"a||MDPW01|READY|echo", "MDP/0.1-words worker 2; READY @echo"},
        {"a||MDPW01|REPLY|" TOKEN_BYTES "||body", "MDP/0.1-words worker 2; REPLY #102030405060708 1:body"},
        {"a||MDPW01|HEARTBEAT", "MDP/0.1-words worker 2; HEARTBEAT"},
        {"a||MDPW01|DISCONNECT", "MDP/0.1-words worker 2; DISCONNECT"},
        {"a||MDPW01|REQUEST|x||body", "MDP/0.1-words worker 2; BAD_COMMAND"},
        {"a|MDPW02|READY|echo", "MDP/0.2 worker 1; BAD_COMMAND"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

TEST (mdp02_is_read_as_rfc_18_says_with_and_without_an_empty_frame_in_front)
{
    static const reading_t cases[] = {
        {"a|MDPC02|\1|echo|body|", "MDP/0.2 client 1; REQUEST @echo 2:body|"},
        {"a||MDPC02|\1|echo|body", "MDP/0.2 client 2; REQUEST @echo 1:body"},
        {"a|MDPW02|\1|echo", "MDP/0.2 worker 1; READY @echo"},
        {"a||MDPW02|\1|echo", "MDP/0.2 worker 2; READY @echo"},
        {"a|MDPW02|\3|" TOKEN_BYTES "||part", "MDP/0.2 worker 1; PARTIAL #102030405060708 1:part"},
        {"a|MDPW02|\4|" TOKEN_BYTES "||last", "MDP/0.2 worker 1; REPLY #102030405060708 1:last"},
        {"a|MDPW02|\5", "MDP/0.2 worker 1; HEARTBEAT"},
        {"a|MDPW02|\6", "MDP/0.2 worker 1; DISCONNECT"},
        {"a|MDPC02", "MDP/0.2 client 1; BAD_FRAMES"},
        {"a|MDPC02|\1", "MDP/0.2 client 1; BAD_FRAMES"},
        {"a|MDPC02|\1|echo", "MDP/0.2 client 1; BAD_FRAMES"},
        {"a|MDPC02|\2|echo|body", "MDP/0.2 client 1; BAD_COMMAND"},
        {"a|MDPC02|echo|body", "MDP/0.2 client 1; BAD_COMMAND"},
        {"a|MDPW02|\2|x||body", "MDP/0.2 worker 1; BAD_COMMAND"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

TEST (what_has_no_header_that_we_know_is_a_bad_header)
{
    static const reading_t cases[] = {
        {"a", "BAD_HEADER"},
        {"MDPC01", "BAD_HEADER"},
        {"a|", "BAD_HEADER"},
        {"a||", "BAD_HEADER"},
        {"a||MDPC03|\1|echo|body", "BAD_HEADER"},
        {"a||MDPC0|echo|body", "BAD_HEADER"},
        {"a||MDPC011|echo|body", "BAD_HEADER"},
        {"a||ZQB\1short", "BAD_HEADER"},
        {"a||ZQB\2____________________________", "BAD_HEADER"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

TEST (an_envelope_of_up_to_8_frames_is_taken_off_whole)
{
    static const reading_t cases[] = {
        {"a|1|2|3|4|5|6|7||MDPC01|echo|body", "MDP/0.1 client 9; REQUEST @echo 1:body"},
        {"a|1|2|3|4|5|6|7|8||MDPC01|echo|body", "BAD_HEADER"},
        {"a|1|2|3|4|5|6|7||MDPC02|\1|echo|body", "MDP/0.2 client 9; REQUEST @echo 1:body"},
        {"a|proxy|MDPC01|echo|MDPC01", "MDP/0.1 client 2; REQUEST @echo 1:MDPC01"},
    };
    reads (ZQB__MAJORDOMO, cases);
}

/* ---- LRU and PPP */

TEST (an_lru_frontend_takes_whatever_is_behind_the_first_empty_frame)
{
    static const reading_t cases[] = {
        {"a||body", "LRU client 2; REQUEST 1:body"},
        {"a||one||two", "LRU client 2; REQUEST 3:one||two"},
        {"a|b|c||body", "LRU client 4; REQUEST 1:body"},
        {"a||", "LRU client 2; REQUEST 1:"},
        {"a||MDPC01|echo|body", "LRU client 2; REQUEST 3:MDPC01|echo|body"},
        {"a|", "LRU client 2; BAD_FRAMES"},
        {"a", "BAD_HEADER"},
        {"a|body", "BAD_HEADER"},
        {"a|1|2|3|4|5|6|7||body", "LRU client 9; REQUEST 1:body"},
        {"a|1|2|3|4|5|6|7|8|9||body", "BAD_HEADER"},
    };
    reads (ZQB__FRONTEND, cases);
}

TEST (an_lru_worker_says_ready_in_a_word_or_a_number_and_then_answers)
{
    static const reading_t cases[] = {
        {"a||READY", "LRU worker 2; READY"},
        {"a||\1", "LRU worker 2; READY"},
        {"a||" TOKEN_BYTES "||body|more", "LRU worker 2; REPLY #102030405060708 2:body|more"},
        {"a||" TOKEN_BYTES "||", "LRU worker 2; REPLY #102030405060708 1:"},
        {"a||READY||body", "LRU worker 2; REPLY 1:body"},
        {"a||HEARTBEAT", "LRU worker 2; BAD_COMMAND"},
        {"a||\2", "LRU worker 2; BAD_COMMAND"},
        {"a||hello", "LRU worker 2; BAD_COMMAND"},
        {"a|", "LRU worker 2; BAD_FRAMES"},
        {"a", "BAD_HEADER"},
    };
    reads (ZQB__BACKEND, cases);
}

TEST (a_ppp_worker_has_no_empty_frame_in_front_and_sends_heartbeats)
{
    static const reading_t cases[] = {
        {"a|READY", "PPP-words worker 1; READY"},
        {"a|\1", "PPP worker 1; READY"},
        {"a|HEARTBEAT", "PPP-words worker 1; HEARTBEAT"},
        {"a|\2", "PPP worker 1; HEARTBEAT"},
        {"a|" TOKEN_BYTES "||body", "PPP worker 1; REPLY #102030405060708 1:body"},
        {"a|" TOKEN_BYTES "|body", "PPP worker 1; REPLY #102030405060708 1:body"},
        {"a|\3", "PPP worker 1; BAD_COMMAND"},
        {"a|" TOKEN_BYTES, "PPP worker 1; BAD_COMMAND"},
    };
    reads (ZQB__BACKEND, cases);
}

/* ---- what our own workers and clients read */

TEST (what_a_broker_sends_is_read_by_workers_and_clients)
{
    static const reading_t cases[] = {
        {"|MDPW01|\2|addr||body|more", "MDP/0.1 worker 1; REQUEST from=addr 2:body|more"},
        {"|MDPW01|\2|one|two||body", "MDP/0.1 worker 1; REQUEST from=one from=two 1:body"},
        {"MDPW02|\2|addr||body", "MDP/0.2 worker 0; REQUEST from=addr 1:body"},
        {"|MDPW01|\2|no empty frame", "MDP/0.1 worker 1; BAD_FRAMES"},
        {"|MDPW01|\4", "MDP/0.1 worker 1; HEARTBEAT"},
        {"|MDPW01|\5", "MDP/0.1 worker 1; DISCONNECT"},
        {"|MDPW01|\1|echo", "MDP/0.1 worker 1; BAD_COMMAND"},
        {"|MDPW01|\3|addr||body", "MDP/0.1 worker 1; BAD_COMMAND"},
        {"|MDPC01|echo|body", "MDP/0.1 client 1; REPLY @echo 1:body"},
        {"|MDPC01|echo", "MDP/0.1 client 1; REPLY @echo"},
        {"MDPC02|\2|echo|part", "MDP/0.2 client 0; PARTIAL @echo 1:part"},
        {"MDPC02|\3|echo|last", "MDP/0.2 client 0; REPLY @echo 1:last"},
        {"MDPC02|\1|echo|body", "MDP/0.2 client 0; BAD_COMMAND"},
        {"|something else", "BAD_HEADER"},
    };
    reads (ZQB__FROM_BROKER, cases);
}

/* ---- writing the dialects of frames */

static zqb__parcel_t body_parcel;

/* A command about the service "echo" with the token and this body, frame by frame. */
static zqb__command_t command_with (int type, const char *body)
{
    zqb__command_t command = zqb__command (type, TOKEN);
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    if (body)
        add_text (&msg, body);
    zqb__parcel_clear (&body_parcel);
    assert_ok (zqb__parcel_add_msg (&body_parcel, &msg));
    zqb_msg_close (&msg);
    command.service = (const unsigned char *) "echo";
    command.service_size = 4;
    command.body = zqb__parcel_body (&body_parcel);
    return command;
}

#define TOKEN_TEXT "\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08"

TEST (every_command_is_written_as_its_dialect_says)
{
    enum { C = ZQB__CLIENT, W = ZQB__WORKER };
    static const struct {
        int dialect, side, type;
        const char *body, *frames;
    } cases[] = {
        {ZQB__MDP01, C, ZQB__REQUEST, "a|b", "MDPC01|echo|a|b"},
        {ZQB__MDP01, C, ZQB__REPLY, "a|b", "MDPC01|echo|a|b"},
        {ZQB__MDP01, C, ZQB__REPLY, NULL, "MDPC01|echo|"},
        {ZQB__MDP01, W, ZQB__READY, NULL, "MDPW01|\\x01|echo"},
        {ZQB__MDP01, W, ZQB__REQUEST, "a|b", "MDPW01|\\x02|" TOKEN_TEXT "||a|b"},
        {ZQB__MDP01, W, ZQB__REPLY, "a", "MDPW01|\\x03|" TOKEN_TEXT "||a"},
        {ZQB__MDP01, W, ZQB__HEARTBEAT, NULL, "MDPW01|\\x04"},
        {ZQB__MDP01, W, ZQB__DISCONNECT, NULL, "MDPW01|\\x05"},
        {ZQB__MDP01_WORDS, W, ZQB__READY, NULL, "MDPW01|READY|echo"},
        {ZQB__MDP01_WORDS, W, ZQB__REQUEST, "a", "MDPW01|REQUEST|" TOKEN_TEXT "||a"},
        {ZQB__MDP01_WORDS, W, ZQB__HEARTBEAT, NULL, "MDPW01|HEARTBEAT"},
        {ZQB__MDP01_WORDS, W, ZQB__DISCONNECT, NULL, "MDPW01|DISCONNECT"},
        {ZQB__MDP02, C, ZQB__REQUEST, "a", "MDPC02|\\x01|echo|a"},
        {ZQB__MDP02, C, ZQB__PARTIAL, "a", "MDPC02|\\x02|echo|a"},
        {ZQB__MDP02, C, ZQB__REPLY, "a", "MDPC02|\\x03|echo|a"},
        {ZQB__MDP02, W, ZQB__READY, NULL, "MDPW02|\\x01|echo"},
        {ZQB__MDP02, W, ZQB__REQUEST, "a", "MDPW02|\\x02|" TOKEN_TEXT "||a"},
        {ZQB__MDP02, W, ZQB__PARTIAL, "a", "MDPW02|\\x03|" TOKEN_TEXT "||a"},
        {ZQB__MDP02, W, ZQB__REPLY, "a", "MDPW02|\\x04|" TOKEN_TEXT "||a"},
        {ZQB__MDP02, W, ZQB__HEARTBEAT, NULL, "MDPW02|\\x05"},
        {ZQB__MDP02, W, ZQB__DISCONNECT, NULL, "MDPW02|\\x06"},
        {ZQB__LRU, C, ZQB__REPLY, "a|b", "a|b"},
        {ZQB__LRU, W, ZQB__REQUEST, "a|b", TOKEN_TEXT "||a|b"},
        {ZQB__LRU, W, ZQB__REQUEST, NULL, TOKEN_TEXT "||"},
        {ZQB__PPP, W, ZQB__REQUEST, "a", TOKEN_TEXT "||a"},
        {ZQB__PPP, W, ZQB__HEARTBEAT, NULL, "\\x02"},
        {ZQB__PPP_WORDS, W, ZQB__REQUEST, "a", TOKEN_TEXT "||a"},
        {ZQB__PPP_WORDS, W, ZQB__HEARTBEAT, NULL, "HEARTBEAT"},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        char text[TEXT] = "";
        zqb__command_t command = command_with (cases[i].type, cases[i].body);
        zqb_msg_t out;
        zqb_msg_init (&out);
        assert_ok (zqb__wire_frames (&out, cases[i].dialect, cases[i].side, &command));
        put_msg (text, &out);
        zqb_msg_close (&out);
        assert_string_equal (text, cases[i].frames);
    }
}

TEST (a_worker_gives_the_address_of_another_broker_back_unread)
{
    static const char *const address[] = {"proxy", "client"};
    char text[TEXT] = "";
    zqb_msg_t frames, out;
    zqb_msg_init (&frames);
    zqb_msg_init (&out);
    zqb_msg_add_str (&frames, address[0]);
    zqb_msg_add_str (&frames, address[1]);
    zqb__command_t command = command_with (ZQB__REPLY, "body");
    command.address = zqb_msg_frame (&frames, 0);
    command.address_count = 2;
    assert_ok (zqb__wire_frames (&out, ZQB__MDP01, ZQB__WORKER, &command));
    put_msg (text, &out);
    assert_string_equal (text, "MDPW01|\\x03|proxy|client||body");
    zqb_msg_close (&frames);
    zqb_msg_close (&out);
}

TEST (a_dialect_says_only_what_it_has_a_word_for)
{
    static const struct {
        int dialect, side;
        const char *says; /* of READY to DRAIN, in hexadecimal, those that it has a word for */
    } cases[] = {
        {ZQB__ZQB1, ZQB__CLIENT, "123456789ab"},  {ZQB__ZQB1, ZQB__WORKER, "123456789ab"},
        {ZQB__MDP01, ZQB__CLIENT, "24"},          {ZQB__MDP01, ZQB__WORKER, "12467"},
        {ZQB__MDP01_WORDS, ZQB__WORKER, "12467"}, {ZQB__MDP02, ZQB__CLIENT, "234"},
        {ZQB__MDP02, ZQB__WORKER, "123467"},      {ZQB__LRU, ZQB__CLIENT, "24"},
        {ZQB__LRU, ZQB__WORKER, "24"},            {ZQB__PPP, ZQB__WORKER, "1246"},
        {ZQB__PPP_WORDS, ZQB__WORKER, "1246"},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        char says[TEXT] = "";
        for (int type = 1; type < ZQB__COMMAND_END; type++)
            put (says, zqb__wire_says (cases[i].dialect, cases[i].side, type) ? "%x" : "", type);
        assert_string_equal (says, cases[i].says);
    }
}

/* ---- ZQB/1 */

#define HEAD "5a514201 1122334455667788 "
#define LIFE 0x1122334455667788u

/* What a message says whose first frame is this; the broker's address stands in front of it. */
static void put_hex_message (char *text, int place, const char *hex)
{
    unsigned char bytes[TEXT];
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    if (place != ZQB__FROM_BROKER)
        zqb_msg_add_str (&msg, "a");
    zqb_msg_add (&msg, bytes, from_hex (bytes, hex));
    put_message (text, place, &msg);
    zqb_msg_close (&msg);
}

/* Commands of ZQB/1, written and read: each is what the manual says, byte by byte. */
static const struct {
    int from_broker;
    const char *hex, *says;
} vectors[] = {
    {0, "0000001a 01 00 000a 0000000000000000 01 04 6563686f 02 02 000a", "READY @echo credit=10"},
    {0, "0000001a 01 00 000a 0000000000000000 01 04 6563686f 02 02 0000", "READY @echo credit=0"},
    {0, "0000001a 01 00 000a 0000000000000000 01 04 6563686f 02 02 ffff", "READY @echo credit=65535"},
    {0, "0000001b 02 00 0006 0000000000000007 01 04 6563686f 00000001 61", "REQUEST #7 @echo 1:a"},
    {0, "0000001b 02 01 0006 0000000000000007 01 04 6563686f 00000001 61", "REQUEST again #7 @echo 1:a"},
    {0, "00000016 02 00 0006 0000000000000007 01 04 6563686f", "REQUEST #7 @echo"},
    {1, "0000001b 02 00 0000 0102030405060708 00000001 61 00000002 6263", "REQUEST #102030405060708 2:a|bc"},
    {1, "00000015 02 00 0000 0102030405060708 00000001 61", "REQUEST #102030405060708 1:a"},
    {0, "00000015 03 00 0000 0102030405060708 00000001 61", "PARTIAL #102030405060708 1:a"},
    {1, "00000015 03 00 0000 0000000000000007 00000001 61", "PARTIAL #7 1:a"},
    {0, "0000001a 04 00 0000 0102030405060708 00000000 00000002 6162", "REPLY #102030405060708 2:|ab"},
    {1, "00000010 04 00 0000 0000000000000007", "REPLY #7"},
    {0, "00000015 05 00 0005 0102030405060708 04 03 626164", "ERROR #102030405060708 text=bad"},
    {1, "00000019 05 00 0009 0000000000000007 03 02 0007 04 03 626164", "ERROR #7 status=7 text=bad"},
    {1, "00000014 05 00 0004 0000000000000000 03 02 0008", "ERROR status=8"},
    {0, "00000010 06 00 0000 0000000000000000", "HEARTBEAT"},
    {1, "00000010 06 00 0000 0000000000000000", "HEARTBEAT"},
    {0, "00000010 07 00 0000 0000000000000000", "DISCONNECT"},
    {1, "00000014 07 00 0004 0000000000000000 03 02 0004", "DISCONNECT status=4"},
    {0, "00000010 08 00 0000 0000000000000007", "CANCEL #7"},
    {1, "00000010 08 00 0000 0102030405060708", "CANCEL #102030405060708"},
    {0, "00000010 07 02 0000 0000000000000000", "DISCONNECT unbegun"},
    {0, "00000016 02 04 0006 0000000000000000 01 04 6563686f", "REQUEST one-way @echo"},
    {0, "00000016 02 08 0006 0000000000000007 01 04 6563686f", "REQUEST fail-fast #7 @echo"},
    {0, "00000016 02 10 0006 0000000000000007 01 04 6563686f", "REQUEST survey #7 @echo"},
    {0, "00000016 02 1d 0006 0000000000000007 01 04 6563686f", "REQUEST again one-way fail-fast survey #7 @echo"},
    {1, "00000010 02 20 0000 0102030405060708", "REQUEST window #102030405060708"},
    {1, "0000001c 02 00 000c 0102030405060708 01 04 6563686f 07 04 00000001",
     "REQUEST #102030405060708 @echo deadline=1"},
    {0, "00000019 02 00 0009 0000000000000007 01 04 6563686f 06 01 84", "REQUEST #7 @echo priority=4"},
    {0, "00000019 02 00 0009 0000000000000007 01 04 6563686f 06 01 7c", "REQUEST #7 @echo priority=-4"},
    {0, "00000019 02 00 0009 0000000000000007 01 04 6563686f 06 01 ff", "REQUEST #7 @echo priority=127"},
    {0, "00000019 02 00 0009 0000000000000007 01 04 6563686f 06 01 00", "REQUEST #7 @echo priority=-128"},
    {0, "0000001c 02 00 000c 0000000000000007 01 04 6563686f 07 04 ffffffff",
     "REQUEST #7 @echo deadline=4294967295"},
    {0, "0000001c 02 00 000c 0000000000000007 01 04 6563686f 08 04 000003e8", "REQUEST #7 @echo delay=1000"},
    {0, "0000001a 02 00 000a 0000000000000007 01 04 6563686f 09 02 ffff", "REQUEST #7 @echo attempts=65535"},
    {0, "00000020 02 00 0010 0000000000000007 01 04 6563686f 0a 08 00000005 0000ea60",
     "REQUEST #7 @echo backoff=5/60000"},
    {0, "00000019 02 00 0009 0000000000000007 01 04 6563686f 0b 01 6b", "REQUEST #7 @echo unique=k"},
    {0, "00000019 02 00 0009 0000000000000007 01 04 6563686f 0c 01 00", "REQUEST #7 @echo affinity=\\x00"},
    {0, "0000003e 02 01 0029 0000000000000007 01 04 6563686f 06 01 81 07 04 00000002 08 04 00000003 09 02 0004"
        "0a 08 00000005 00000006 0b 01 75 0c 01 61 00000001 62",
     "REQUEST again #7 @echo priority=1 deadline=2 delay=3 attempts=4 backoff=5/6 unique=u affinity=a 1:b"},
    {0, "00000022 09 00 0012 0102030405060708 0d 10 0000000000000001 ffffffffffffffff",
     "PROGRESS #102030405060708 progress=1/18446744073709551615"},
    {1, "00000026 09 00 0016 0000000000000007 04 02 6869 0d 10 0000000000000000 0000000000000000",
     "PROGRESS #7 text=hi progress=0/0"},
    {1, "00000022 04 00 0012 0000000000000007 0d 10 0000000000000002 0000000000000003", "REPLY #7 progress=2/3"},
    {0, "00000016 05 00 0006 0102030405060708 0e 04 ffffffff", "ERROR #102030405060708 code=4294967295"},
    {1, "0000001f 05 00 000f 0000000000000007 03 02 0007 04 03 626164 0e 04 0000002a",
     "ERROR #7 status=7 text=bad code=42"},
    {0, "00000014 05 00 0004 0102030405060708 03 02 0004", "ERROR #102030405060708 status=4"},
    {0, "00000014 0a 00 0004 0000000000000007 02 02 0010", "MORE #7 credit=16"},
    {1, "00000014 0a 00 0004 0102030405060708 02 02 ffff", "MORE #102030405060708 credit=65535"},
    {0, "00000010 0b 00 0000 0000000000000000", "DRAIN"},
    {1, "00000010 0b 00 0000 0000000000000000", "DRAIN"},
};

TEST (every_command_of_zqb1_is_read_as_the_manual_says)
{
    for (size_t i = 0; i < COUNT (vectors); i++) {
        char hex[TEXT] = HEAD, text[TEXT] = "", wanted[TEXT] = "";
        int place = vectors[i].from_broker ? ZQB__FROM_BROKER : ZQB__MAJORDOMO;
        put (hex, "%s", vectors[i].hex);
        put_hex_message (text, place, hex);
        put (wanted, "ZQB/1 %d; %s", !vectors[i].from_broker, vectors[i].says);
        assert_string_equal (text, wanted);
    }
}

/* Reads the first command of a message. */
static zqb__command_t read_first (zqb__incoming_t *in, zqb_msg_t *msg, int place)
{
    zqb__command_t command;
    assert_ok (zqb__wire_open (in, place, zqb_msg_frame (msg, 0), zqb_msg_count (msg), NULL));
    assert_int_equal (zqb__wire_next (in, &command), 1);
    return command;
}

TEST (every_command_of_zqb1_is_written_as_it_was_read)
{
    for (size_t i = 0; i < COUNT (vectors); i++) {
        char hex[TEXT] = HEAD, text[TEXT] = "", wanted[TEXT] = "";
        unsigned char bytes[TEXT];
        zqb_msg_t msg;
        zqb__incoming_t in;
        zqb__parcel_t out;
        memset (&out, 0, sizeof out);
        zqb_msg_init (&msg);
        put (hex, "%s", vectors[i].hex);
        size_t size = from_hex (bytes, hex);
        int place = vectors[i].from_broker ? ZQB__FROM_BROKER : ZQB__MAJORDOMO;
        if (!vectors[i].from_broker)
            zqb_msg_add_str (&msg, "a");
        zqb_msg_add (&msg, bytes, size);
        zqb__command_t command = read_first (&in, &msg, place);
        assert_true (in.life == LIFE);
        assert_ok (zqb__wire_pack (&out, in.life, &command));
        put_hex (text, out.bytes.bytes, out.bytes.size);
        put_hex (wanted, bytes, size);
        assert_string_equal (text, wanted);
        zqb__parcel_close (&out);
        zqb_msg_close (&msg);
    }
}

TEST (a_type_a_flag_and_a_field_that_are_not_known_are_passed_over)
{
    static const struct {
        const char *hex, *says;
    } cases[] = {
        {"00000010 0c 00 0000 0000000000000000 00000010 06 00 0000 0000000000000000", "UNKNOWN; HEARTBEAT"},
        {"00000015 ff 00 0000 0000000000000000 00000001 78 00000010 06 00 0000 0000000000000000",
         "UNKNOWN 1:x; HEARTBEAT"},
        {"00000010 06 c0 0000 0000000000000000", "HEARTBEAT"},
        {"0000001a 06 00 000a 0000000000000000 10 00 1f 02 aaaa ff 02 bbbb", "HEARTBEAT"},
        {"0000001b 01 00 000b 0000000000000000 63 03 010203 01 04 6563686f", "READY @echo"},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        char hex[TEXT] = HEAD, text[TEXT] = "", wanted[TEXT] = "ZQB/1 1; ";
        put (hex, "%s", cases[i].hex);
        put (wanted, "%s", cases[i].says);
        put_hex_message (text, ZQB__MAJORDOMO, hex);
        assert_string_equal (text, wanted);
    }
}

/* Field by field and size by size: 0 is any but none. */
TEST (a_field_of_another_size_than_its_own_is_malformed)
{
    static const struct {
        unsigned tag, size;
    } fields[] = {{ZQB__FIELD_CREDIT, 2},   {ZQB__FIELD_STATUS, 2},  {ZQB__FIELD_HEARTBEAT, 4}, {ZQB__FIELD_PRIORITY, 1},
                  {ZQB__FIELD_DEADLINE, 4}, {ZQB__FIELD_DELAY, 4},   {ZQB__FIELD_ATTEMPTS, 2},  {ZQB__FIELD_BACKOFF, 8},
                  {ZQB__FIELD_UNIQUE, 0},   {ZQB__FIELD_AFFINITY, 0}, {ZQB__FIELD_PROGRESS, 16}, {ZQB__FIELD_CODE, 4},
                  {ZQB__FIELD_USER, 0}};
    for (size_t i = 0; i < COUNT (fields); i++)
        for (unsigned size = 0; size <= 255; size++) {
            char hex[TEXT] = HEAD, text[TEXT] = "";
            put (hex, "%08x 02 00 %04x 0000000000000007 01 01 65 %02x %02x", 21 + size, 5 + size, fields[i].tag, size);
            for (unsigned byte = 0; byte < size; byte++)
                put (hex, "01");
            put_hex_message (text, ZQB__MAJORDOMO, hex);
            int good = fields[i].size ? size == fields[i].size : size > 0;
            assert_int_equal (strcmp (text, "ZQB/1 1; BAD_FRAMES") == 0, !good);
        }
}

/* So that a receiver of an earlier version understands all that does not ask for more. */
TEST (what_is_as_it_always_was_is_not_written)
{
    zqb__rare_t rare;
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    memset (&rare, 0, sizeof rare);
    rare.backoff_max_ms = 1; /* of no backoff */
    zqb__command_t command = command_with (ZQB__REQUEST, "body");
    command.rare = &rare;
    assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    assert_int_equal (parcel.bytes.size, 12 + 16 + 6 + 8);
    zqb__parcel_close (&parcel);
}

TEST (a_ready_that_says_nothing_of_credit_means_one)
{
    char text[TEXT] = "";
    put_hex_message (text, ZQB__MAJORDOMO, HEAD "00000016 01 00 0006 0000000000000000 01 04 6563686f");
    assert_string_equal (text, "ZQB/1 1; READY @echo");
}

TEST (a_malformed_zqb1_message_is_told_from_a_good_one)
{
    static const struct {
        const char *hex, *says;
    } cases[] = {
        {"", "BAD_FRAMES"},
        {"00", "BAD_FRAMES"},
        {"0000000f 06 00 0000 00000000000000", "BAD_FRAMES"},
        {"00000000 06 00 0000 0000000000000000", "BAD_FRAMES"},
        {"ffffffff 06 00 0000 0000000000000000", "BAD_FRAMES"},
        {"00000011 06 00 0000 0000000000000000", "BAD_FRAMES"},
        {"00000010 06 00 0001 0000000000000000", "BAD_FRAMES"},
        {"00000010 06 00 ffff 0000000000000000", "BAD_FRAMES"},
        {"00000011 06 00 0001 0000000000000000 05", "BAD_FRAMES"},
        {"00000012 06 00 0002 0000000000000000 0501", "BAD_FRAMES"},
        {"00000019 01 00 0009 0000000000000000 01 04 6563686f 02 01 0a", "BAD_FRAMES"},
        {"00000013 05 00 0003 0000000000000001 03 01 07", "BAD_FRAMES"},
        {"00000012 06 00 0000 0000000000000000 0000", "BAD_FRAMES"},
        {"00000014 06 00 0000 0000000000000000 00000001", "BAD_FRAMES"},
        {"00000014 06 00 0000 0000000000000000 80000401", "BAD_FRAMES"},
        {"00000010 01 00 0000 0000000000000000", "BAD_NAME"},
        {"00000012 01 00 0002 0000000000000000 0100", "BAD_NAME"},
        {"00000010 02 00 0000 0000000000000001", "BAD_NAME"},
        {"00000010 06 00 0000 0000000000000000 00000001", "HEARTBEAT; BAD_FRAMES"},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        char hex[TEXT] = HEAD, text[TEXT] = "", wanted[TEXT] = "ZQB/1 1; ";
        put (hex, "%s", cases[i].hex);
        put (wanted, "%s", cases[i].says);
        put_hex_message (text, ZQB__MAJORDOMO, hex);
        assert_string_equal (text, wanted);
    }
}

TEST (many_commands_go_in_one_message_and_each_has_its_own_large_frames)
{
    char text[TEXT] = "", large[2][TEXT / 2], wanted[3 * TEXT];
    zqb__parcel_t parcel;
    zqb_msg_t msg;
    memset (&parcel, 0, sizeof parcel);
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, "a");
    for (int i = 0; i < 2; i++) {
        memset (large[i], 'A' + i, 1030);
        large[i][1030] = 0;
        zqb__command_t command = command_with (ZQB__REPLY, large[i]);
        assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
        command = command_with (ZQB__HEARTBEAT, NULL);
        assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    }
    assert_int_equal (parcel.bytes.size, 12 + 2 * (20 + 16));
    assert_ok (zqb__outbox_add_parcel (&msg, &parcel));
    assert_int_equal (zqb_msg_count (&msg), 4);
    put_message (text, ZQB__MAJORDOMO, &msg);
    snprintf (wanted, sizeof wanted, "ZQB/1 1; REPLY #%llx 1:%s; HEARTBEAT #%llx; REPLY #%llx 1:%s; HEARTBEAT #%llx",
              (unsigned long long) TOKEN, large[0], (unsigned long long) TOKEN, (unsigned long long) TOKEN, large[1],
              (unsigned long long) TOKEN);
    assert_string_equal (text, wanted);
    zqb__parcel_close (&parcel);
    zqb_msg_close (&msg);
}

/* ---- ZQB/1, broken */

static zqb__rare_t everything (void)
{
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    rare.priority = -1;
    rare.deadline_ms = rare.delay_ms = rare.backoff_ms = rare.backoff_max_ms = rare.attempts = rare.code = 1;
    rare.unique = rare.affinity = rare.user = (const unsigned char *) "key";
    rare.unique_size = rare.affinity_size = rare.user_size = 3;
    rare.done = rare.total = rare.has_progress = 1;
    return rare;
}

/* Three commands, the last with two small and two large frames, so that it is whole only as a whole. */
static void fill_whole (zqb_msg_t *msg)
{
    zqb__rare_t rare = everything ();
    zqb_msg_t body;
    zqb__parcel_t parcel;
    zqb__command_t command = command_with (ZQB__READY, NULL);
    memset (&parcel, 0, sizeof parcel);
    zqb_msg_init (&body);
    command.credit = 5;
    assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    static char bytes[2000];
    zqb_msg_add_str (&body, "small");
    zqb_msg_add (&body, bytes, 1500);
    zqb_msg_add_str (&body, "");
    zqb_msg_add (&body, bytes, 2000);
    command = command_with (ZQB__ERROR, NULL);
    command.text = "why";
    command.text_size = 3;
    assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    command = command_with (ZQB__REQUEST, NULL);
    command.rare = &rare;
    assert_ok (zqb__parcel_add_msg (&body_parcel, &body));
    command.body = zqb__parcel_body (&body_parcel);
    assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    zqb_msg_add_str (msg, "a");
    assert_ok (zqb__outbox_add_parcel (msg, &parcel));
    zqb__parcel_close (&parcel);
    zqb_msg_close (&body);
}

static void free_bytes (void *data, void *hint)
{
    (void) hint;
    free (data);
}

/* A copy of a message whose first frame has these bytes, in memory of their very size, so that a checker of memory sees
   when more is read. */
static void copy_with (zqb_msg_t *copy, zqb_msg_t *whole, const void *bytes, size_t size)
{
    void *memory = malloc (size + !size);
    memcpy (memory, bytes, size);
    zqb_msg_init (copy);
    zqb_msg_add_str (copy, "a");
    zqb_msg_add_zero_copy (copy, memory, size, free_bytes, NULL);
    for (size_t i = 2; i < zqb_msg_count (whole); i++)
        zqb_msg_add (copy, zqb_msg_data (whole, i), zqb_msg_size (whole, i));
}

static int within (const void *data, size_t size, zqb_msg_t *msg)
{
    const char *start = (const char *) zqb_msg_data (msg, 1), *at = (const char *) data;
    return !size || (at >= start && at + size <= start + zqb_msg_size (msg, 1));
}

/* Reads a message, whatever it is: what is said lies within the frames. How many commands, or -1 if it is malformed. */
static int read_any (zqb_msg_t *msg)
{
    zqb__incoming_t in;
    zqb__command_t command;
    int more, count = 0;
    if (zqb__wire_open (&in, ZQB__MAJORDOMO, zqb_msg_frame (msg, 0), zqb_msg_count (msg), NULL) != 0)
        return -1;
    for (; (more = zqb__wire_next (&in, &command)) == 1; count++) {
        zqb_msg_t body;
        zqb_msg_init (&body);
        assert_true (within (command.service, command.service_size, msg));
        assert_true (within (command.text, command.text_size, msg));
        assert_true (!command.rare || within (command.rare->unique, command.rare->unique_size, msg));
        assert_true (!command.rare || within (command.rare->affinity, command.rare->affinity_size, msg));
        assert_true (within (command.body.block, command.body.size, msg));
        assert_ok (zqb__body_to_msg (&command.body, &body));
        assert_int_equal (zqb_msg_count (&body), command.body.frames);
        zqb_msg_close (&body);
    }
    return more < 0 ? -1 : count;
}

TEST (a_zqb1_message_that_is_cut_short_anywhere_is_malformed)
{
    zqb_msg_t whole;
    zqb_msg_init (&whole);
    fill_whole (&whole);
    assert_int_equal (read_any (&whole), 3);
    for (size_t size = 0; size < zqb_msg_size (&whole, 1); size++) {
        zqb_msg_t part;
        copy_with (&part, &whole, zqb_msg_data (&whole, 1), size);
        assert_int_equal (read_any (&part), -1);
        zqb_msg_close (&part);
    }
    zqb_msg_close (&whole);
}

TEST (a_zqb1_message_with_any_bit_flipped_is_read_or_refused_but_never_believed)
{
    zqb_msg_t whole;
    zqb_msg_init (&whole);
    fill_whole (&whole);
    size_t size = zqb_msg_size (&whole, 1);
    unsigned char *bytes = (unsigned char *) zqb_msg_data (&whole, 1);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        zqb_msg_t flipped;
        bytes[bit / 8] ^= (unsigned char) (1 << bit % 8);
        copy_with (&flipped, &whole, bytes, size);
        assert_true (read_any (&flipped) <= 4);
        zqb_msg_close (&flipped);
        bytes[bit / 8] ^= (unsigned char) (1 << bit % 8);
    }
    zqb_msg_close (&whole);
}

TEST (a_zqb1_message_with_any_byte_replaced_is_read_or_refused_but_never_believed)
{
    zqb_msg_t whole;
    zqb_msg_init (&whole);
    fill_whole (&whole);
    size_t size = zqb_msg_size (&whole, 1);
    unsigned char *bytes = (unsigned char *) zqb_msg_data (&whole, 1);
    for (size_t i = 0; i < size; i++)
        for (int value = 0; value < 256; value += 51) {
            zqb_msg_t changed;
            unsigned char before = bytes[i];
            bytes[i] = (unsigned char) value;
            copy_with (&changed, &whole, bytes, size);
            assert_true (read_any (&changed) <= 4);
            zqb_msg_close (&changed);
            bytes[i] = before;
        }
    zqb_msg_close (&whole);
}

TEST (large_frames_that_are_missing_too_many_or_of_another_size_are_malformed)
{
    static const size_t cases[][4] = {{0, 0, 0}, {1, 1500}, {2, 1500, 1999}, {2, 1501, 2000},
                                      {2, 2000, 1500}, {3, 1500, 2000, 1}, {2, 0, 0}};
    static char bytes[2000];
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_msg_t whole, none, msg;
        zqb_msg_init (&whole);
        zqb_msg_init (&none);
        fill_whole (&whole);
        copy_with (&msg, &none, zqb_msg_data (&whole, 1), zqb_msg_size (&whole, 1));
        for (size_t n = 1; n <= cases[i][0]; n++)
            zqb_msg_add (&msg, bytes, cases[i][n]);
        assert_int_equal (read_any (&msg), -1);
        zqb_msg_close (&msg);
        zqb_msg_close (&whole);
    }
}

/* ---- ZQB/1: writing */

TEST (a_text_of_more_than_255_bytes_is_cut)
{
    char text[400], read[TEXT] = "", wanted[TEXT];
    memset (text, 't', sizeof text);
    zqb__command_t command = command_with (ZQB__ERROR, NULL);
    zqb__parcel_t parcel;
    zqb_msg_t msg;
    memset (&parcel, 0, sizeof parcel);
    zqb_msg_init (&msg);
    command.text = text;
    command.text_size = sizeof text;
    assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    zqb_msg_add (&msg, parcel.bytes.bytes, parcel.bytes.size);
    put_message (read, ZQB__FROM_BROKER, &msg);
    snprintf (wanted, sizeof wanted, "ZQB/1 0; ERROR #%llx text=%.255s", (unsigned long long) TOKEN, text);
    assert_string_equal (read, wanted);
    zqb_msg_close (&msg);
    zqb__parcel_close (&parcel);
}

TEST (the_longest_name_and_the_longest_text_fit)
{
    char name[255], text[255];
    memset (name, 'n', sizeof name);
    memset (text, 't', sizeof text);
    zqb__command_t command = command_with (ZQB__REQUEST, "body");
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    command.service = (const unsigned char *) name;
    command.service_size = sizeof name;
    command.text = text;
    command.text_size = sizeof text;
    command.status = 65535;
    assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    assert_int_equal (parcel.bytes.size, 12 + 16 + 257 + 4 + 257 + 8);
    zqb__parcel_close (&parcel);
}

TEST (all_fields_at_their_longest_fit)
{
    char key[255];
    zqb__rare_t rare = everything ();
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    memset (key, 'k', sizeof key);
    zqb__command_t command = command_with (ZQB__READY, NULL);
    command.service = (const unsigned char *) key;
    command.service_size = sizeof key;
    command.text = key;
    command.text_size = sizeof key;
    command.status = 65535;
    command.heartbeat_ms = 1;
    rare.unique = rare.affinity = rare.user = command.service;
    rare.unique_size = rare.affinity_size = rare.user_size = sizeof key;
    command.rare = &rare;
    assert_ok (zqb__wire_pack (&parcel, LIFE, &command));
    assert_int_equal (parcel.bytes.size, 12 + 16 + ZQB__FIELDS_MOST);
    zqb__parcel_close (&parcel);
}

TEST (what_cannot_be_packed_leaves_what_waits_as_it_was)
{
    static char large[2000];
    memset (large, 'x', sizeof large - 1);
    for (long left = 0;; left++) {
        zqb__command_t first = command_with (ZQB__HEARTBEAT, NULL);
        zqb__parcel_t parcel;
        memset (&parcel, 0, sizeof parcel);
        assert_ok (zqb__wire_pack (&parcel, LIFE, &first));
        size_t before = parcel.bytes.size;
        zqb__command_t second = command_with (ZQB__REPLY, large);
        unit_memory_left = left;
        int failed = zqb__wire_pack (&parcel, LIFE, &second);
        unit_memory_left = -1;
        if (failed)
            assert_int_equal (parcel.bytes.size + parcel.large_count, before);
        zqb__parcel_close (&parcel);
        if (!failed)
            break;
    }
}

TEST (a_parcel_is_full_when_its_first_frame_is_or_those_behind_it_are)
{
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    assert_false (zqb__wire_full (&parcel));
    parcel.bytes.size = ZQB__PARCEL_FULL - 1;
    parcel.large_bytes = ZQB__PARCEL_LARGE - 1;
    assert_false (zqb__wire_full (&parcel));
    parcel.bytes.size++;
    assert_true (zqb__wire_full (&parcel));
    parcel.bytes.size = 0;
    parcel.large_bytes++;
    assert_true (zqb__wire_full (&parcel));
}

/* Reads a message of so many heartbeats: how many there were until its end, or until what is wrong with it. */
static size_t read_heartbeats (size_t count, int *error)
{
    static unsigned char bytes[ZQB__PARCEL_FULL + 64];
    const zqb__command_t beat = zqb__command (ZQB__HEARTBEAT, 0);
    size_t read = 0;
    zqb_msg_t msg;
    zqb__parcel_t scratch;
    zqb__incoming_t in;
    zqb__command_t command;
    unsigned char *at = zqb__put_head (bytes, 1);
    for (; count; count--, at += ZQB__COMMAND_HEAD) {
        zqb__put_32 (at, ZQB__COMMAND_HEAD);
        zqb__put_command (at, &beat);
    }
    memset (&scratch, 0, sizeof scratch);
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, "a");
    zqb_msg_add (&msg, bytes, (size_t) (at - bytes));
    assert_ok (zqb__wire_open (&in, ZQB__MAJORDOMO, zqb_msg_frame (&msg, 0), 2, &scratch));
    while (zqb__wire_next (&in, &command) == 1)
        read++;
    *error = in.error;
    zqb__parcel_close (&scratch);
    zqb_msg_close (&msg);
    return read;
}

TEST (what_begins_behind_a_first_frame_that_is_full_is_malformed)
{
    int error;
    size_t most = (ZQB__PARCEL_FULL - ZQB__HEAD) / ZQB__COMMAND_HEAD + 1; /* the last begins in front of it */
    assert_int_equal (read_heartbeats (most, &error), most);
    assert_string_equal (error_name (error), "FINE");
    assert_int_equal (read_heartbeats (most + 1, &error), most);
    assert_string_equal (error_name (error), "BAD_FRAMES");
}

TEST (nothing_here_leaks)
{
    zqb__parcel_close (&body_parcel);
    assert_int_equal (unit_memory_live, 0);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (mdp01_of_clients_is_read_as_rfc_7_says),
        cmocka_unit_test (mdp01_of_workers_is_read_as_rfc_7_says),
        cmocka_unit_test (the_empty_frame_behind_the_token_is_optional),
        cmocka_unit_test (an_address_that_is_no_token_of_ours_is_read_as_none),
        cmocka_unit_test (mdp01_may_have_its_commands_in_words),
        cmocka_unit_test (mdp02_is_read_as_rfc_18_says_with_and_without_an_empty_frame_in_front),
        cmocka_unit_test (what_has_no_header_that_we_know_is_a_bad_header),
        cmocka_unit_test (an_envelope_of_up_to_8_frames_is_taken_off_whole),
        cmocka_unit_test (an_lru_frontend_takes_whatever_is_behind_the_first_empty_frame),
        cmocka_unit_test (an_lru_worker_says_ready_in_a_word_or_a_number_and_then_answers),
        cmocka_unit_test (a_ppp_worker_has_no_empty_frame_in_front_and_sends_heartbeats),
        cmocka_unit_test (what_a_broker_sends_is_read_by_workers_and_clients),
        cmocka_unit_test (every_command_is_written_as_its_dialect_says),
        cmocka_unit_test (a_worker_gives_the_address_of_another_broker_back_unread),
        cmocka_unit_test (a_dialect_says_only_what_it_has_a_word_for),
        cmocka_unit_test (every_command_of_zqb1_is_read_as_the_manual_says),
        cmocka_unit_test (every_command_of_zqb1_is_written_as_it_was_read),
        cmocka_unit_test (a_type_a_flag_and_a_field_that_are_not_known_are_passed_over),
        cmocka_unit_test (a_field_of_another_size_than_its_own_is_malformed),
        cmocka_unit_test (what_is_as_it_always_was_is_not_written),
        cmocka_unit_test (a_ready_that_says_nothing_of_credit_means_one),
        cmocka_unit_test (a_malformed_zqb1_message_is_told_from_a_good_one),
        cmocka_unit_test (many_commands_go_in_one_message_and_each_has_its_own_large_frames),
        cmocka_unit_test (a_zqb1_message_that_is_cut_short_anywhere_is_malformed),
        cmocka_unit_test (a_zqb1_message_with_any_bit_flipped_is_read_or_refused_but_never_believed),
        cmocka_unit_test (a_zqb1_message_with_any_byte_replaced_is_read_or_refused_but_never_believed),
        cmocka_unit_test (large_frames_that_are_missing_too_many_or_of_another_size_are_malformed),
        cmocka_unit_test (a_text_of_more_than_255_bytes_is_cut),
        cmocka_unit_test (the_longest_name_and_the_longest_text_fit),
        cmocka_unit_test (all_fields_at_their_longest_fit),
        cmocka_unit_test (what_cannot_be_packed_leaves_what_waits_as_it_was),
        cmocka_unit_test (a_parcel_is_full_when_its_first_frame_is_or_those_behind_it_are),
        cmocka_unit_test (what_begins_behind_a_first_frame_that_is_full_is_malformed),
        cmocka_unit_test (nothing_here_leaks),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
