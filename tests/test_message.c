/* zqb_msg_t, and the forms that a body has on its way: view, parcel, stored. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"

/* Bytes of a frame that does not fit into a libzmq message, nor into a body block. */
static char large_bytes[5000];

static zqb_msg_t message (const char *first, const char *second)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    if (first)
        zqb_msg_add_str (&msg, first);
    if (second)
        zqb_msg_add_str (&msg, second);
    return msg; /* small frames may be moved like this as long as the old place is forgotten */
}

TEST (a_message_is_empty_at_first_and_after_it_was_closed)
{
    zqb_msg_t msg;
    assert_ok (zqb_msg_init (&msg));
    assert_int_equal (zqb_msg_count (&msg), 0);
    assert_ok (zqb_msg_add_str (&msg, "frame"));
    assert_ok (zqb_msg_close (&msg));
    assert_int_equal (zqb_msg_count (&msg), 0);
    assert_ok (zqb_msg_add_str (&msg, "again"));
    assert_frame (&msg, 0, "again");
    zqb_msg_close (&msg);
}

TEST (frames_keep_their_order_and_bytes_however_many_there_are)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    for (int i = 0; i < 1000; i++)
        assert_ok (zqb_msg_add (&msg, &i, sizeof i));
    assert_int_equal (zqb_msg_count (&msg), 1000);
    for (int i = 0; i < 1000; i++)
        assert_memory_equal (zqb_msg_data (&msg, (size_t) i), &i, sizeof i);
    zqb_msg_close (&msg);
}

TEST (two_small_frames_take_no_allocation)
{
    unit_memory_left = 0;
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    assert_ok (zqb_msg_add_str (&msg, "one"));
    assert_ok (zqb_msg_add_str (&msg, "two"));
    assert_fails (zqb_msg_add_str (&msg, "three"), ENOMEM);
    unit_memory_left = -1;
    assert_int_equal (zqb_msg_count (&msg), 2);
    assert_frame (&msg, 1, "two");
    zqb_msg_close (&msg);
}

TEST (an_empty_frame_is_a_frame)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    assert_ok (zqb_msg_add (&msg, NULL, 0));
    assert_ok (zqb_msg_add_str (&msg, ""));
    assert_int_equal (zqb_msg_count (&msg), 2);
    assert_int_equal (zqb_msg_size (&msg, 0), 0);
    zqb_msg_close (&msg);
}

TEST (a_mistake_of_the_caller_is_einval_and_changes_nothing)
{
    zqb_msg_t msg = message ("frame", NULL);
    zmq_msg_t frame;
    zmq_msg_init (&frame);
    assert_fails (zqb_msg_init (NULL), EINVAL);
    assert_ok (zqb_msg_close (NULL));
    assert_fails (zqb_msg_add (NULL, "x", 1), EINVAL);
    assert_fails (zqb_msg_add (&msg, NULL, 1), EINVAL);
    assert_fails (zqb_msg_add_str (&msg, NULL), EINVAL);
    assert_fails (zqb_msg_add_str (NULL, "x"), EINVAL);
    assert_fails (zqb_msg_add_zero_copy (&msg, NULL, 1, NULL, NULL), EINVAL);
    assert_fails (zqb_msg_add_zero_copy (NULL, "x", 1, NULL, NULL), EINVAL);
    assert_fails (zqb_msg_add_frame (&msg, NULL), EINVAL);
    assert_fails (zqb_msg_add_frame (NULL, &frame), EINVAL);
    assert_fails (zqb_msg_move (NULL, &msg), EINVAL);
    assert_fails (zqb_msg_move (&msg, NULL), EINVAL);
    assert_fails (zqb_msg_copy (NULL, &msg), EINVAL);
    assert_fails (zqb_msg_copy (&msg, NULL), EINVAL);
    assert_int_equal (zqb_msg_count (NULL), 0);
    assert_int_equal (zqb_msg_count (&msg), 1);
    assert_frame (&msg, 0, "frame");
    zqb_msg_close (&msg);
}

TEST (a_frame_that_is_not_there_is_null_and_einval)
{
    zqb_msg_t msg = message ("frame", NULL);
    assert_none (zqb_msg_data (&msg, 1), EINVAL);
    assert_none (zqb_msg_frame (&msg, SIZE_MAX), EINVAL);
    assert_none (zqb_msg_frame (NULL, 0), EINVAL);
    assert_none (zqb_msg_data (NULL, 0), EINVAL);
    errno = 0;
    assert_int_equal (zqb_msg_size (&msg, 1), 0);
    assert_int_equal (errno, EINVAL);
    zqb_msg_close (&msg);
}

TEST (moving_leaves_the_source_empty_and_releases_what_was_in_the_target)
{
    for (int count = 0; count < 5; count++) {
        zqb_msg_t from, to = message ("old", "older");
        zqb_msg_init (&from);
        for (int i = 0; i < count; i++)
            zqb_msg_add_str (&from, "new");
        assert_ok (zqb_msg_move (&to, &from));
        assert_int_equal (zqb_msg_count (&from), 0);
        assert_int_equal (zqb_msg_count (&to), count);
        for (int i = 0; i < count; i++)
            assert_frame (&to, (size_t) i, "new");
        zqb_msg_close (&to);
    }
}

TEST (a_message_moved_or_copied_to_itself_stays_what_it_is)
{
    zqb_msg_t msg = message ("one", "two");
    assert_ok (zqb_msg_move (&msg, &msg));
    assert_ok (zqb_msg_copy (&msg, &msg));
    assert_int_equal (zqb_msg_count (&msg), 2);
    assert_frame (&msg, 1, "two");
    zqb_msg_close (&msg);
}

TEST (a_copy_is_a_message_of_its_own_whose_large_frames_are_shared)
{
    zqb_msg_t msg = message ("small", NULL), copy = message ("old", NULL);
    zqb_msg_add (&msg, large_bytes, sizeof large_bytes);
    zqb_msg_add_str (&msg, "third");
    assert_ok (zqb_msg_copy (&copy, &msg));
    assert_int_equal (zqb_msg_count (&copy), 3);
    assert_frame (&copy, 0, "small");
    assert_ptr_equal (zqb_msg_data (&copy, 1), zqb_msg_data (&msg, 1));
    zqb_msg_close (&msg);
    assert_memory_equal (zqb_msg_data (&copy, 1), large_bytes, sizeof large_bytes);
    assert_frame (&copy, 2, "third");
    zqb_msg_close (&copy);
}

TEST (a_copy_without_memory_leaves_the_target_as_it_was)
{
    zqb_msg_t msg = message ("one", "two"), copy = message ("old", NULL);
    zqb_msg_add_str (&msg, "three");
    unit_memory_left = 0;
    assert_fails (zqb_msg_copy (&copy, &msg), ENOMEM);
    unit_memory_left = -1;
    assert_int_equal (zqb_msg_count (&copy), 1);
    assert_frame (&copy, 0, "old");
    zqb_msg_close (&msg);
    zqb_msg_close (&copy);
}

static void count_free (void *data, void *hint)
{
    (void) data;
    ++*(int *) hint;
}

TEST (memory_of_the_caller_is_freed_once_when_its_last_use_is_over)
{
    int freed = 0;
    zqb_msg_t msg, copy;
    zqb_msg_init (&msg);
    zqb_msg_init (&copy);
    assert_ok (zqb_msg_add_zero_copy (&msg, large_bytes, sizeof large_bytes, count_free, &freed));
    assert_ptr_equal (zqb_msg_data (&msg, 0), large_bytes);
    assert_ok (zqb_msg_copy (&copy, &msg));
    zqb_msg_close (&msg);
    assert_int_equal (freed, 0);
    zqb_msg_close (&copy);
    assert_int_equal (freed, 1);
}

TEST (memory_of_the_caller_stays_the_callers_when_it_could_not_be_added)
{
    int freed = 0;
    zqb_msg_t msg = message ("one", "two");
    unit_memory_left = 0;
    assert_fails (zqb_msg_add_zero_copy (&msg, large_bytes, sizeof large_bytes, count_free, &freed), ENOMEM);
    unit_memory_left = -1;
    zqb_msg_close (&msg);
    assert_int_equal (freed, 0);
}

TEST (a_frame_of_libzmq_is_moved_in_and_left_empty)
{
    zqb_msg_t msg;
    zmq_msg_t frame;
    zqb_msg_init (&msg);
    zmq_msg_init_size (&frame, sizeof large_bytes);
    void *data = zmq_msg_data (&frame);
    assert_ok (zqb_msg_add_frame (&msg, &frame));
    assert_int_equal (zmq_msg_size (&frame), 0);
    assert_ptr_equal (zqb_msg_data (&msg, 0), data);
    assert_ptr_equal (zmq_msg_data (zqb_msg_frame (&msg, 0)), data);
    zmq_msg_close (&frame);
    zqb_msg_close (&msg);
}

TEST (a_frame_of_libzmq_that_could_not_be_added_is_as_it_was)
{
    zqb_msg_t msg = message ("one", "two");
    zmq_msg_t frame;
    zmq_msg_init_size (&frame, 3);
    unit_memory_left = 0;
    assert_fails (zqb_msg_add_frame (&msg, &frame), ENOMEM);
    unit_memory_left = -1;
    assert_int_equal (zmq_msg_size (&frame), 3);
    zmq_msg_close (&frame);
    zqb_msg_close (&msg);
}

/* ---- parcels, bodies, and what is stored */

static zqb__parcel_t parcel_of (const zqb_msg_t *msg)
{
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    assert_ok (zqb__parcel_add_msg (&parcel, msg));
    return parcel;
}

TEST (small_frames_lie_in_the_block_behind_their_lengths)
{
    zqb_msg_t msg = message ("ab", "");
    zqb__parcel_t parcel = parcel_of (&msg);
    assert_int_equal (parcel.bytes.size, 10);
    assert_memory_equal (parcel.bytes.bytes, "\0\0\0\2ab\0\0\0\0", 10);
    assert_int_equal (parcel.large_count, 0);
    zqb__parcel_close (&parcel);
    zqb_msg_close (&msg);
}

TEST (frames_above_1024_bytes_lie_beside_the_block_and_are_not_copied)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    zqb_msg_add (&msg, large_bytes, 1024);
    zqb_msg_add (&msg, large_bytes, 1025);
    zqb__parcel_t parcel = parcel_of (&msg);
    assert_int_equal (parcel.bytes.size, 4 + 1024 + 4);
    assert_memory_equal (parcel.bytes.bytes + 1028, "\200\0\4\1", 4);
    assert_int_equal (parcel.large_count, 1);
    assert_int_equal (parcel.large_bytes, 1025);
    assert_ptr_equal (zmq_msg_data (&parcel.large[0]), zqb_msg_data (&msg, 1));
    zqb__parcel_close (&parcel);
    zqb_msg_close (&msg);
}

/* A message with frames of all kinds of sizes. */
static void add_frames (zqb_msg_t *msg)
{
    static const size_t sizes[] = {0, 1, 20, 1024, 1025, 5000, 3, 2000, 0};
    for (size_t i = 0; i < sizeof large_bytes; i++)
        large_bytes[i] = (char) i;
    for (size_t i = 0; i < COUNT (sizes); i++)
        zqb_msg_add (msg, large_bytes, sizes[i]);
}

static void assert_same (const zqb_msg_t *one, const zqb_msg_t *other)
{
    assert_int_equal (zqb_msg_count (one), zqb_msg_count (other));
    for (size_t i = 0; i < zqb_msg_count (one); i++) {
        assert_int_equal (zqb_msg_size (one, i), zqb_msg_size (other, i));
        assert_memory_equal (zqb_msg_data (one, i), zqb_msg_data (other, i), zqb_msg_size (one, i));
    }
}

TEST (a_body_comes_back_as_it_was_packed)
{
    zqb_msg_t msg, back;
    zqb_msg_init (&msg);
    zqb_msg_init (&back);
    add_frames (&msg);
    zqb__parcel_t parcel = parcel_of (&msg);
    zqb__body_t body = zqb__parcel_body (&parcel);
    assert_int_equal (body.frames, 9);
    assert_int_equal (zqb__body_bytes (&body), 9 * 4 + 1 + 20 + 1024 + 1025 + 5000 + 3 + 2000);
    assert_ok (zqb__body_to_msg (&body, &back));
    assert_same (&msg, &back);
    zqb_msg_close (&back);
    zqb__parcel_close (&parcel);
    zqb_msg_close (&msg);
}

TEST (a_body_comes_back_as_it_was_stored_however_small_or_large)
{
    static const size_t sizes[] = {0, 1, 16, 17, 1024, 1025, 5000};
    for (size_t i = 0; i < COUNT (sizes); i++) {
        zqb_msg_t msg, back;
        zqb__stored_t stored;
        zqb_msg_init (&msg);
        zqb_msg_init (&back);
        zqb_msg_add (&msg, large_bytes, sizes[i]);
        zqb__parcel_t parcel = parcel_of (&msg);
        zqb__body_t body = zqb__parcel_body (&parcel);
        assert_ok (zqb__stored_keep (&stored, &body));
        zqb__parcel_close (&parcel);
        body = zqb__stored_body (&stored);
        assert_int_equal (zqb__stored_is_near (&stored), sizes[i] <= 16);
        assert_ok (zqb__body_to_msg (&body, &back));
        assert_same (&msg, &back);
        zqb__stored_close (&stored);
        zqb_msg_close (&back);
        zqb_msg_close (&msg);
    }
}

TEST (nothing_is_a_body_too)
{
    zqb__stored_t stored;
    zqb__body_t body;
    zqb_msg_t msg;
    memset (&body, 0, sizeof body);
    zqb_msg_init (&msg);
    assert_ok (zqb__stored_keep (&stored, &body));
    body = zqb__stored_body (&stored);
    assert_int_equal (body.frames, 0);
    assert_ok (zqb__body_to_msg (&body, &msg));
    assert_int_equal (zqb_msg_count (&msg), 0);
    zqb__stored_close (&stored);
}

TEST (a_parcel_takes_a_body_behind_what_it_has)
{
    zqb_msg_t msg, back;
    zqb_msg_init (&msg);
    zqb_msg_init (&back);
    add_frames (&msg);
    zqb__parcel_t parcel = parcel_of (&msg), both = parcel_of (&msg);
    zqb__body_t body = zqb__parcel_body (&parcel);
    assert_ok (zqb__parcel_add_body (&both, &body));
    body = zqb__parcel_body (&both);
    assert_int_equal (body.frames, 18);
    zqb__parcel_close (&parcel);
    assert_ok (zqb__body_to_msg (&body, &back));
    assert_int_equal (zqb_msg_size (&back, 14), 5000);
    zqb_msg_close (&back);
    zqb__parcel_close (&both);
    zqb_msg_close (&msg);
}

TEST (what_cannot_be_packed_leaves_the_parcel_as_it_was_at_every_allocation)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    add_frames (&msg);
    zqb__parcel_t whole = parcel_of (&msg);
    zqb__body_t body = zqb__parcel_body (&whole);
    for (long left = 0;; left++) {
        zqb__parcel_t parcel;
        memset (&parcel, 0, sizeof parcel);
        unit_memory_left = left;
        int failed = left % 2 ? zqb__parcel_add_body (&parcel, &body) : zqb__parcel_add_msg (&parcel, &msg);
        unit_memory_left = -1;
        if (failed) {
            assert_int_equal (errno, ENOMEM);
            assert_int_equal (parcel.bytes.size + parcel.large_count + parcel.large_bytes, 0);
        }
        zqb__parcel_close (&parcel);
        if (!failed && left % 2 == 0)
            break;
    }
    zqb__parcel_close (&whole);
    zqb_msg_close (&msg);
}

TEST (what_cannot_be_stored_is_enomem_and_nothing)
{
    zqb_msg_t msg = message ("a text that is too long to lie in the request itself", NULL);
    zqb__parcel_t parcel = parcel_of (&msg);
    zqb__body_t body = zqb__parcel_body (&parcel);
    zqb__stored_t stored;
    unit_memory_left = 0;
    assert_fails (zqb__stored_keep (&stored, &body), ENOMEM);
    unit_memory_left = -1;
    zqb__stored_close (&stored);
    zqb__parcel_close (&parcel);
    zqb_msg_close (&msg);
}

TEST (a_frame_of_2_gib_is_emsgsize)
{
    zmq_msg_t frame;
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    zmq_msg_init_data (&frame, large_bytes, (size_t) 1 << 31, NULL, NULL); /* it is only asked for its size */
    assert_fails (zqb__parcel_add_frames (&parcel, &frame, 1), EMSGSIZE);
    assert_int_equal (parcel.bytes.size, 0);
    zmq_msg_close (&frame);
    zqb__parcel_close (&parcel);
}

/* Whether a block with so many large frames of 5000 bytes behind it is well-formed: how many frames, or -1. */
static int frames_of (const char *block, size_t size, size_t large_count)
{
    zmq_msg_t large[2];
    zqb__body_t body;
    for (size_t i = 0; i < large_count; i++)
        zmq_msg_init_data (&large[i], large_bytes, sizeof large_bytes, NULL, NULL);
    body.block = (const unsigned char *) block;
    body.size = size;
    body.large = large;
    body.large_count = large_count;
    int bad = zqb__body_measure (&body);
    for (size_t i = 0; i < large_count; i++)
        zmq_msg_close (&large[i]);
    return bad ? -1 : (int) body.frames;
}

TEST (a_malformed_block_is_seen)
{
    static const struct {
        const char *block;
        size_t size, large;
        int frames;
    } cases[] = {
        {"", 0, 0, 0},
        {"\0\0\0\0", 4, 0, 1},
        {"\0\0\0", 3, 0, -1},
        {"\0\0\0\1", 4, 0, -1},
        {"\0\0\0\1xy", 6, 0, -1},
        {"\0\0\0\1x\0\0\0\0", 9, 0, 2},
        {"\177\377\377\377x", 5, 0, -1},
        {"\200\0\023\210", 4, 0, -1},
        {"\200\0\023\210", 4, 1, 1},
        {"\200\0\023\207", 4, 1, -1},
        {"\200\0\023\210\200\0\023\210", 8, 1, -1},
        {"\200\0\023\210\200\0\023\210", 8, 2, 2},
    };
    for (size_t i = 0; i < COUNT (cases); i++)
        assert_int_equal (frames_of (cases[i].block, cases[i].size, cases[i].large), cases[i].frames);
}

TEST (nothing_here_leaks)
{
    assert_int_equal (unit_memory_live, 0);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_message_is_empty_at_first_and_after_it_was_closed),
        cmocka_unit_test (frames_keep_their_order_and_bytes_however_many_there_are),
        cmocka_unit_test (two_small_frames_take_no_allocation),
        cmocka_unit_test (an_empty_frame_is_a_frame),
        cmocka_unit_test (a_mistake_of_the_caller_is_einval_and_changes_nothing),
        cmocka_unit_test (a_frame_that_is_not_there_is_null_and_einval),
        cmocka_unit_test (moving_leaves_the_source_empty_and_releases_what_was_in_the_target),
        cmocka_unit_test (a_message_moved_or_copied_to_itself_stays_what_it_is),
        cmocka_unit_test (a_copy_is_a_message_of_its_own_whose_large_frames_are_shared),
        cmocka_unit_test (a_copy_without_memory_leaves_the_target_as_it_was),
        cmocka_unit_test (memory_of_the_caller_is_freed_once_when_its_last_use_is_over),
        cmocka_unit_test (memory_of_the_caller_stays_the_callers_when_it_could_not_be_added),
        cmocka_unit_test (a_frame_of_libzmq_is_moved_in_and_left_empty),
        cmocka_unit_test (a_frame_of_libzmq_that_could_not_be_added_is_as_it_was),
        cmocka_unit_test (small_frames_lie_in_the_block_behind_their_lengths),
        cmocka_unit_test (frames_above_1024_bytes_lie_beside_the_block_and_are_not_copied),
        cmocka_unit_test (a_body_comes_back_as_it_was_packed),
        cmocka_unit_test (a_body_comes_back_as_it_was_stored_however_small_or_large),
        cmocka_unit_test (nothing_is_a_body_too),
        cmocka_unit_test (a_parcel_takes_a_body_behind_what_it_has),
        cmocka_unit_test (what_cannot_be_packed_leaves_the_parcel_as_it_was_at_every_allocation),
        cmocka_unit_test (what_cannot_be_stored_is_enomem_and_nothing),
        cmocka_unit_test (a_frame_of_2_gib_is_emsgsize),
        cmocka_unit_test (a_malformed_block_is_seen),
        cmocka_unit_test (nothing_here_leaks),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
