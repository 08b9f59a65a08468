/* The clock, random numbers, waiting, signals, options and errors. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"
#include <sys/stat.h>
#include <unistd.h>

TEST (the_clock_never_goes_back)
{
    uint64_t last = zqb__clock ();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = zqb__clock ();
        assert_true (now >= last);
        last = now;
    }
}

TEST (random_numbers_do_not_recur)
{
    uint64_t numbers[64];
    for (size_t i = 0; i < COUNT (numbers); i++) {
        numbers[i] = zqb__random ();
        for (size_t j = 0; j < i; j++)
            assert_true (numbers[i] != numbers[j]);
    }
}

TEST (random_numbers_do_not_recur_even_where_there_are_no_devices)
{
    uint64_t numbers[2];
    unit_descriptors_run_out (1);
    numbers[0] = zqb__random ();
    for (uint64_t start = zqb__clock (); zqb__clock () == start;) {
    }
    numbers[1] = zqb__random ();
    unit_descriptors_run_out (0);
    assert_true (numbers[0] != numbers[1]);
}

TEST (memory_comes_zeroed)
{
    static const char zeros[100];
    char *memory = (char *) zqb__alloc (sizeof zeros);
    assert_memory_equal (memory, zeros, sizeof zeros);
    ZQB_FREE (memory);
}

TEST (without_memory_it_is_enomem)
{
    unit_memory_left = 0;
    assert_none (zqb__alloc (1), ENOMEM);
    assert_none (zqb__copy_text ("text", 4), ENOMEM);
    unit_memory_left = -1;
}

TEST (a_copy_of_a_text_keeps_nuls_and_ends_with_one)
{
    char *copy = zqb__copy_text ("a\0b", 3);
    assert_memory_equal (copy, "a\0b", 4);
    ZQB_FREE (copy);
}

TEST (growing_keeps_what_there_is_and_at_least_doubles)
{
    int *items = NULL;
    size_t capacity = 0;
    assert_ok (zqb__grow ((void **) &items, &capacity, 3, sizeof *items));
    assert_int_equal (capacity, 3);
    items[2] = 42;
    assert_ok (zqb__grow ((void **) &items, &capacity, 4, sizeof *items));
    assert_int_equal (capacity, 6);
    assert_int_equal (items[2], 42);
    ZQB_FREE (items);
}

TEST (growing_without_memory_leaves_everything_as_it_was)
{
    int *items = NULL;
    size_t capacity = 0;
    assert_ok (zqb__grow ((void **) &items, &capacity, 1, sizeof *items));
    int *before = items;
    unit_memory_left = 0;
    assert_fails (zqb__grow ((void **) &items, &capacity, 2, sizeof *items), ENOMEM);
    unit_memory_left = -1;
    assert_fails (zqb__grow ((void **) &items, &capacity, SIZE_MAX / 2, sizeof *items), ENOMEM);
    assert_ptr_equal (items, before);
    assert_int_equal (capacity, 1);
    ZQB_FREE (items);
}

/* ---- locks and signals */

static void add_a_thousand (void *arg)
{
    zqb__lock_t *lock = (zqb__lock_t *) ((void **) arg)[0];
    int *sum = (int *) ((void **) arg)[1];
    for (int i = 0; i < 1000; i++) {
        zqb__lock_enter (lock);
        ++*sum;
        zqb__lock_yield (lock);
        zqb__lock_leave (lock);
    }
}

TEST (a_lock_lets_in_one_at_a_time)
{
    zqb__lock_t lock;
    int sum = 0;
    void *both[2], *threads[4];
    both[0] = &lock;
    both[1] = &sum;
    assert_ok (zqb__lock_init (&lock));
    for (size_t i = 0; i < COUNT (threads); i++)
        threads[i] = zmq_threadstart (add_a_thousand, both);
    for (size_t i = 0; i < COUNT (threads); i++)
        zmq_threadclose (threads[i]);
    assert_int_equal (sum, 4000);
    zqb__lock_close (&lock);
}

TEST (a_lock_may_be_entered_again_by_whom_has_it)
{
    zqb__lock_t lock;
    assert_ok (zqb__lock_init (&lock));
    zqb__lock_enter (&lock);
    zqb__lock_enter (&lock);
    zqb__lock_leave (&lock);
    zqb__lock_leave (&lock);
    zqb__lock_close (&lock);
}

/* ---- flags */

typedef struct raised_t {
    zqb__flag_t begun, highest;
    int numbers, wrong;
} raised_t;

/* Raises it to ever higher numbers, against others who do the same; it is never less than it was, nor than that. */
static void raise_step_by_step (void *arg)
{
    raised_t *raised = (raised_t *) arg;
    int last = 0, wrong = 0;
    zqb__flag_add (&raised->begun, 1);
    while (zqb__flag_get (&raised->begun) < 2) {
    }
    for (int number = 1; number <= raised->numbers; number++) {
        zqb__flag_raise (&raised->highest, number);
        int now = zqb__flag_get (&raised->highest);
        wrong |= now < number || now < last;
        last = now;
    }
    if (wrong)
        zqb__flag_set (&raised->wrong);
}

TEST (a_flag_that_several_raise_at_once_is_what_the_highest_wanted)
{
    raised_t raised = {0, 0, 200000, 0};
    zqb__thread_t *threads[2];
    for (size_t i = 0; i < COUNT (threads); i++)
        assert_non_null (threads[i] = zqb__thread_start (raise_step_by_step, &raised));
    for (size_t i = 0; i < COUNT (threads); i++)
        zqb__thread_join (&threads[i]);
    assert_false (raised.wrong);
    assert_int_equal (raised.highest, raised.numbers);
    zqb__flag_raise (&raised.highest, 7);
    assert_int_equal (raised.highest, raised.numbers);
}

static void use_and_release (void *arg)
{
    zqb__account_t *account = (zqb__account_t *) arg;
    for (uint64_t i = 0; i < 10000; i++) {
        zqb__account_use (account, i);
        zqb__account_release (account, i);
    }
}

TEST (an_account_takes_bytes_until_there_are_too_many)
{
    zqb__ledger_t *ledger = zqb__ledger_new (1000, 100);
    zqb__account_t *account = zqb__account_new (ledger);
    assert_ok (zqb__account_use (account, 99));
    assert_ok (zqb__account_use (account, 500)); /* one that is large still goes */
    assert_fails (zqb__account_use (account, 1), EAGAIN);
    assert_true (account->bytes == 599 && ledger->bytes == 599);
    zqb__account_release (account, 500);
    assert_ok (zqb__account_use (account, 1));
    zqb__account_release (account, 99);
    zqb__account_release (account, 1);
    zqb__account_release (account, 0);
    zqb__ledger_release (ledger);
    assert_int_equal (unit_memory_live, 0);
}

/* Each may have as much as is left: half, a quarter ... */
TEST (accounts_share_what_there_is_and_all_together_take_no_more)
{
    zqb__ledger_t *ledger = zqb__ledger_new (1024, UINT64_MAX);
    zqb__account_t *accounts[10];
    uint64_t taken[10] = {0};
    for (int i = 0; i < 10; i++) {
        accounts[i] = zqb__account_new (ledger);
        while (zqb__account_use (accounts[i], 1) == 0)
            taken[i]++;
        assert_true (taken[i] <= 512 && (i == 0 || taken[i] <= taken[i - 1]));
    }
    assert_true (taken[0] == 512 && taken[1] == 256 && taken[2] == 128 && ledger->bytes == 1023);
    zqb__account_t *late = zqb__account_new (ledger);
    assert_ok (zqb__account_use (late, 100)); /* who has nothing may have something, however much the others have */
    assert_fails (zqb__account_use (late, 1), EAGAIN);
    zqb__account_release (late, 100);
    zqb__account_release (late, 0);
    for (int i = 0; i < 10; i++) {
        for (; taken[i]; taken[i]--)
            zqb__account_release (accounts[i], 1);
        zqb__account_release (accounts[i], 0);
    }
    zqb__ledger_release (ledger);
    assert_int_equal (unit_memory_live, 0);
}

TEST (what_is_under_way_outlives_whoever_sent_it)
{
    zqb__ledger_t *ledger = zqb__ledger_new (1000, 100);
    zqb__account_t *account = zqb__account_new (ledger);
    assert_ok (zqb__account_use (account, 10));
    zqb__account_release (account, 0);
    zqb__ledger_release (ledger);
    assert_true (unit_memory_live == 2);
    zqb__account_release (account, 10);
    assert_int_equal (unit_memory_live, 0);
    zqb__account_release (NULL, 0);
    zqb__ledger_release (NULL);
}

TEST (several_threads_may_use_an_account)
{
    enum { THREADS = 4 };
    zqb__ledger_t *ledger = zqb__ledger_new (UINT64_MAX, UINT64_MAX);
    zqb__account_t *account = zqb__account_new (ledger);
    zqb__thread_t *threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_non_null (threads[i] = zqb__thread_start (use_and_release, account));
    for (int i = 0; i < THREADS; i++)
        zqb__thread_join (&threads[i]);
    assert_true (account->bytes == 0 && ledger->bytes == 0 && account->users == 1);
    zqb__account_release (account, 0);
    zqb__ledger_release (ledger);
    assert_int_equal (unit_memory_live, 0);
}

TEST (without_descriptors_there_is_no_signal)
{
    zqb__signal_t signal;
    assert_without_descriptors (zqb__signal_init (&signal) == -1);
}

static void stop_it (void *arg)
{
    zqb__signal_stop ((zqb__signal_t *) arg);
}

TEST (a_signal_wakes_whom_it_is_for)
{
    zqb__signal_t signal;
    assert_ok (zqb__signal_init (&signal));
    zqb__poll_t item = zqb__poll_item (signal.ends[0]);
    void *thread = zmq_threadstart (stop_it, &signal);
    assert_int_equal (zqb__wait (&item, 1, UINT64_MAX), 1);
    zmq_threadclose (thread);
    assert_true (zqb__signal_stopped (&signal));
    zqb__signal_close (&signal);
}

TEST (draining_a_signal_forgets_the_calls_but_not_the_stop)
{
    zqb__signal_t signal;
    assert_ok (zqb__signal_init (&signal));
    zqb__poll_t item = zqb__poll_item (signal.ends[0]);
    zqb__signal_wake (&signal);
    assert_false (zqb__signal_stopped (&signal));
    zqb__signal_stop (&signal);
    zqb__signal_drain (&signal);
    assert_int_equal (zqb__wait (&item, 1, 0), 0);
    assert_true (zqb__signal_stopped (&signal));
    zqb__signal_close (&signal);
}

TEST (a_signal_may_be_raised_more_often_than_anybody_listens)
{
    zqb__signal_t signal;
    assert_ok (zqb__signal_init (&signal));
    errno = 42;
    for (int i = 0; i < 100000; i++)
        zqb__signal_wake (&signal);
    assert_int_equal (errno, 42);
    zqb__poll_t item = zqb__poll_item (signal.ends[0]);
    assert_int_equal (zqb__wait (&item, 1, 0), 1);
    zqb__signal_close (&signal);
}

/* ---- options, times, errors, names */

TEST (zero_is_the_default_and_minus_one_is_without_limit)
{
    assert_int_equal (zqb__option (0, 7), 7);
    assert_int_equal (zqb__option (5, 7), 5);
    assert_int_equal (zqb__option (-1, 7), INT_MAX);
    assert_true (zqb__option64 (0, 7) == 7);
    assert_true (zqb__option64 ((int64_t) 1 << 40, 7) == (int64_t) 1 << 40);
    assert_true (zqb__option64 (-1, 7) == INT64_MAX);
    assert_true (zqb__option_us (0, 7) == 7000);
    assert_true (zqb__option_us (INT_MAX, 7) == (uint64_t) INT_MAX * 1000);
    assert_true (zqb__option_us (-1, 7) == UINT64_MAX);
}

TEST (what_is_after_the_end_of_time_is_never)
{
    assert_true (zqb__after (5, 6) == 11);
    assert_true (zqb__after (5, UINT64_MAX) == UINT64_MAX);
    assert_true (zqb__after (UINT64_MAX - 1, 5) == UINT64_MAX);
}

TEST (a_span_many_times_over_is_never_if_it_is_longer_than_time)
{
    assert_true (zqb__times (7, 6) == 42);
    assert_true (zqb__times (7, 0) == 0);
    assert_true (zqb__times (UINT64_MAX, 1) == UINT64_MAX);
    assert_true (zqb__times (UINT64_MAX / 2, 2) == UINT64_MAX - 1);
    assert_true (zqb__times (UINT64_MAX / 2, 3) == UINT64_MAX);
}

TEST (the_version_is_that_of_the_macros)
{
    int major = -1, minor = -1, patch = -1;
    zqb_version (&major, &minor, &patch);
    assert_int_equal (major, ZQB_VERSION_MAJOR);
    assert_int_equal (minor, ZQB_VERSION_MINOR);
    assert_int_equal (patch, ZQB_VERSION_PATCH);
    zqb_version (NULL, NULL, NULL);
}

TEST (every_error_has_a_text_of_its_own)
{
#define ZQB_X(name, status, text) assert_string_equal (zqb_strerror (name), text);
    ZQB_ERRORS (ZQB_X)
#undef ZQB_X
    assert_string_equal (zqb_strerror (ETERM), zmq_strerror (ETERM));
    assert_string_equal (zqb_strerror (EINVAL), zmq_strerror (EINVAL));
    assert_non_null (zqb_strerror (-12345));
}

TEST (errors_are_their_status_above_those_of_libzmq)
{
    assert_true (ZQB_ERRNO >= ZMQ_HAUSNUMERO + 1000);
    assert_int_equal (ZQB_ENOWORKER, ZQB_ERRNO + 1);
    assert_int_equal (ZQB_EQUEUEFULL, ZQB_ERRNO + 2);
    assert_int_equal (ZQB_EEXPIRED, ZQB_ERRNO + 3);
    assert_int_equal (ZQB_EREFUSED, ZQB_ERRNO + 4);
    assert_int_equal (ZQB_ELOST, ZQB_ERRNO + 5);
    assert_int_equal (ZQB_ECANCELLED, ZQB_ERRNO + 6);
    assert_int_equal (ZQB_EFAILED, ZQB_ERRNO + 7);
    assert_int_equal (ZQB_EMALFORMED, ZQB_ERRNO + 8);
}

TEST (a_name_of_a_service_has_1_to_255_bytes_and_does_not_start_with_mmi)
{
    char name[257];
    memset (name, 'n', sizeof name);
    name[256] = 0;
    assert_false (zqb__service_valid (name));
    name[255] = 0;
    assert_true (zqb__service_valid (name));
    static const struct {
        const char *name;
        int valid;
    } cases[] = {{NULL, 0}, {"", 0}, {"x", 1}, {"mmi.", 0}, {"mmi.x", 0}, {"mmi", 1}, {"mmix", 1}, {"xmmi.", 1}};
    for (size_t i = 0; i < COUNT (cases); i++)
        assert_int_equal (zqb__service_valid (cases[i].name), cases[i].valid);
}

static char logged[2000];

static void keep_line (int level, const char *text, void *arg)
{
    snprintf (logged, sizeof logged, "%d %s %s", level, text, (const char *) arg);
}

static void log_line (zqb_log_fn *log, int wanted, int level, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    zqb__log (log, "arg", wanted, level, format, args);
    va_end (args);
}

TEST (a_line_is_logged_to_whom_wants_its_level)
{
    logged[0] = 0;
    log_line (NULL, ZQB_LOG_DEBUG, ZQB_LOG_ERROR, "nobody");
    log_line (keep_line, ZQB_LOG_ERROR, ZQB_LOG_WARNING, "too fine");
    assert_string_equal (logged, "");
    log_line (keep_line, ZQB_LOG_INFO, ZQB_LOG_INFO, "%d things", 3);
    assert_string_equal (logged, "3 3 things arg");
}

TEST (a_line_too_long_for_the_log_is_cut)
{
    char text[2000];
    memset (text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    log_line (keep_line, ZQB_LOG_INFO, ZQB_LOG_ERROR, "%s", text);
    assert_int_equal (strlen (logged), 2 + 1279 + 4);
}

TEST (wiping_leaves_zeros_and_nothing_else_is_touched)
{
    unsigned char bytes[64], zeros[62] = {0};
    memset (bytes, 0xaa, sizeof bytes);
    zqb__wipe (bytes + 1, 62);
    assert_memory_equal (bytes + 1, zeros, 62);
    assert_int_equal (bytes[0], 0xaa);
    assert_int_equal (bytes[63], 0xaa);
    zqb__wipe (NULL, 0);
}

/* ---- files */

static char path[64];

static void write_text (const char *text, size_t size, mode_t mode)
{
    snprintf (path, sizeof path, "/tmp/zqbroker-file-%016llx", (unsigned long long) zqb__random ());
    FILE *out = fopen (path, "wb");
    assert_non_null (out);
    assert_int_equal (fwrite (text, 1, size, out), size);
    fclose (out);
    assert_ok (chmod (path, mode));
}

static void fails_to_read (size_t most, int is_secret, int error)
{
    zqb__file_t file;
    assert_fails (zqb__file_read (&file, path, most, is_secret), error);
    assert_null (file.text);
}

TEST (a_file_is_read_whole_with_a_nul_behind_it)
{
    zqb__file_t file;
    for (size_t size = 0; size <= 4; size++) {
        write_text ("a\0b\n", size, 0600);
        assert_ok (zqb__file_read (&file, path, size, 1));
        assert_int_equal (file.size, size);
        assert_memory_equal (file.text, "a\0b\n", size);
        assert_int_equal (file.text[size], 0);
        zqb__file_free (&file);
        assert_null (file.text);
        if (size)
            fails_to_read (size - 1, 1, EFBIG);
        unlink (path);
        fails_to_read (size, 1, ENOENT);
    }
}

TEST (a_file_is_trusted_by_who_may_write_it_and_a_secret_by_who_may_read_it)
{
    zqb__file_t file;
    write_text ("x", 1, 0600);
    for (mode_t mode = 0400; mode < 01000; mode++) {
        assert_ok (chmod (path, mode));
        if (mode & 0022)
            fails_to_read (1, 0, EPERM);
        else {
            assert_ok (zqb__file_read (&file, path, 1, 0));
            assert_int_equal (file.is_shared, (mode & 0077) != 0);
            zqb__file_free (&file);
        }
        if (mode & 0077)
            fails_to_read (1, 1, EPERM);
        else {
            assert_ok (zqb__file_read (&file, path, 1, 1));
            zqb__file_free (&file);
        }
    }
    if (geteuid () == 0) {
        assert_ok (chmod (path, 0600));
        assert_ok (chown (path, 12345, (gid_t) -1));
        fails_to_read (1, 0, EPERM);
    }
    unlink (path);
}

TEST (what_is_no_plain_file_is_einval_and_does_not_block)
{
    strcpy (path, "/tmp");
    fails_to_read (100, 0, EINVAL);
    strcpy (path, "/dev/null");
    fails_to_read (100, 0, EINVAL);
    snprintf (path, sizeof path, "/tmp/zqbroker-fifo-%016llx", (unsigned long long) zqb__random ());
    assert_ok (mkfifo (path, 0600));
    fails_to_read (100, 1, EINVAL);
    unlink (path);
}

TEST (a_file_that_is_longer_or_shorter_than_it_was_is_eagain)
{
    zqb__file_t file;
    write_text ("four", 4, 0600);
    for (size_t size = 3; size <= 5; size++) {
        char text[6];
        file.text = text;
        file.size = size;
        int handle = open (path, O_RDONLY);
        if (size == 4)
            assert_ok (zqb__file_fill (&file, handle));
        else
            assert_fails (zqb__file_fill (&file, handle), EAGAIN);
        close (handle);
    }
    unlink (path);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (the_clock_never_goes_back),
        cmocka_unit_test (random_numbers_do_not_recur),
        cmocka_unit_test (random_numbers_do_not_recur_even_where_there_are_no_devices),
        cmocka_unit_test (memory_comes_zeroed),
        cmocka_unit_test (without_memory_it_is_enomem),
        cmocka_unit_test (a_copy_of_a_text_keeps_nuls_and_ends_with_one),
        cmocka_unit_test (growing_keeps_what_there_is_and_at_least_doubles),
        cmocka_unit_test (growing_without_memory_leaves_everything_as_it_was),
        cmocka_unit_test (a_lock_lets_in_one_at_a_time),
        cmocka_unit_test (a_lock_may_be_entered_again_by_whom_has_it),
        cmocka_unit_test (a_flag_that_several_raise_at_once_is_what_the_highest_wanted),
        cmocka_unit_test (an_account_takes_bytes_until_there_are_too_many),
        cmocka_unit_test (accounts_share_what_there_is_and_all_together_take_no_more),
        cmocka_unit_test (what_is_under_way_outlives_whoever_sent_it),
        cmocka_unit_test (several_threads_may_use_an_account),
        cmocka_unit_test (without_descriptors_there_is_no_signal),
        cmocka_unit_test (a_signal_wakes_whom_it_is_for),
        cmocka_unit_test (draining_a_signal_forgets_the_calls_but_not_the_stop),
        cmocka_unit_test (a_signal_may_be_raised_more_often_than_anybody_listens),
        cmocka_unit_test (zero_is_the_default_and_minus_one_is_without_limit),
        cmocka_unit_test (what_is_after_the_end_of_time_is_never),
        cmocka_unit_test (a_span_many_times_over_is_never_if_it_is_longer_than_time),
        cmocka_unit_test (the_version_is_that_of_the_macros),
        cmocka_unit_test (every_error_has_a_text_of_its_own),
        cmocka_unit_test (errors_are_their_status_above_those_of_libzmq),
        cmocka_unit_test (a_name_of_a_service_has_1_to_255_bytes_and_does_not_start_with_mmi),
        cmocka_unit_test (a_line_is_logged_to_whom_wants_its_level),
        cmocka_unit_test (a_line_too_long_for_the_log_is_cut),
        cmocka_unit_test (wiping_leaves_zeros_and_nothing_else_is_touched),
        cmocka_unit_test (a_file_is_read_whole_with_a_nul_behind_it),
        cmocka_unit_test (a_file_is_trusted_by_who_may_write_it_and_a_secret_by_who_may_read_it),
        cmocka_unit_test (what_is_no_plain_file_is_einval_and_does_not_block),
        cmocka_unit_test (a_file_that_is_longer_or_shorter_than_it_was_is_eagain),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
