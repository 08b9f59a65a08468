/* What the unit tests have in common. Included behind zqbroker.h and its implementation. */
#ifndef UNIT_H_INCLUDED
#define UNIT_H_INCLUDED

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <sys/resource.h>

enum { PATIENCE_MS = 30000 }; /* what takes longer has failed; nothing waits for it to pass */

#define UNUSED __attribute__ ((unused))
#define TEST(name) static void name (UNUSED void **unit_state)
#define COUNT(array) (sizeof (array) / sizeof (array)[0])

/* A test between set_up and tear_down. */
#define FRESH(name) cmocka_unit_test_setup_teardown (name, set_up, tear_down)

#define assert_ok(expression) assert_int_equal ((expression), 0)

/* The expression is -1, and errno says why. */
#define assert_fails(expression, error)                                                                            \
    do {                                                                                                           \
        errno = 0;                                                                                                 \
        assert_true ((expression) == -1);                                                                          \
        assert_string_equal (zqb_strerror (errno), zqb_strerror (error));                                          \
    } while (0)

/* The expression is NULL, and errno says why. */
#define assert_none(expression, error)                                                                             \
    do {                                                                                                           \
        errno = 0;                                                                                                 \
        assert_null ((expression));                                                                                \
        assert_string_equal (zqb_strerror (errno), zqb_strerror (error));                                          \
    } while (0)

/* Looks again and again until it is so. */
#define eventually(condition)                                                                                      \
    do {                                                                                                           \
        uint64_t unit_end = zqb__clock () + PATIENCE_MS * 1000u;                                                   \
        while (!(condition)) {                                                                                     \
            if (zqb__clock () > unit_end)                                                                          \
                fail_msg ("never: %s", #condition);                                                                \
            zmq_poll (NULL, 0, 1);                                                                                 \
        }                                                                                                          \
    } while (0)

/* From now on no file, pipe or socket can be opened, or they can again. What is open already goes on. */
UNUSED static void unit_descriptors_run_out (int out)
{
    static struct rlimit usual;
    if (out) {
        struct rlimit none;
        int lowest = dup (STDOUT_FILENO);
        close (lowest);
        assert_int_equal (getrlimit (RLIMIT_NOFILE, &usual), 0);
        none = usual;
        none.rlim_cur = (rlim_t) lowest;
        assert_int_equal (setrlimit (RLIMIT_NOFILE, &none), 0);
    } else
        assert_int_equal (setrlimit (RLIMIT_NOFILE, &usual), 0);
}

/* The expression is NULL or -1 without descriptors, and errno says why. */
#define assert_without_descriptors(failed)                                                                         \
    do {                                                                                                           \
        unit_descriptors_run_out (1);                                                                              \
        errno = 0;                                                                                                 \
        int unit_failed = (failed), unit_error = errno;                                                            \
        unit_descriptors_run_out (0);                                                                              \
        assert_true (unit_failed);                                                                                 \
        assert_int_equal (unit_error, EMFILE);                                                                     \
    } while (0)

/* One counter of a broker, now. */
#define stat(broker, name) (unit_stats (broker).name)

UNUSED static zqb_stats_t unit_stats (zqb_broker_t *broker)
{
    zqb_stats_t stats;
    memset (&stats, 0xff, sizeof stats);
    zqb_broker_stats (broker, &stats);
    return stats;
}

/* Every request that was accepted is somewhere, or ended in exactly one way. */
UNUSED static int unit_adds_up (const zqb_stats_t *stats)
{
    return stats->accepted
           == stats->replied + stats->failed + stats->expired + stats->cancelled + stats->dead + stats->client_gone
                  + stats->queued + stats->running;
}

/* How much was refused, for whatever reason. */
UNUSED static uint64_t unit_refused (const zqb_stats_t *stats)
{
    uint64_t sum = 0;
#define UNIT_X(name, text) sum += strncmp (#name, "refused_", 8) == 0 ? stats->name : 0;
    ZQB_STATS (UNIT_X)
#undef UNIT_X
    return sum;
}

/* Whether a frame of a message is this text. */
UNUSED static int unit_frame_is (const zqb_msg_t *msg, size_t index, const char *text)
{
    return index < zqb_msg_count (msg) && zqb_msg_size (msg, index) == strlen (text)
           && memcmp (zqb_msg_data (msg, index), text, strlen (text)) == 0;
}

#define assert_frame(msg, index, text) assert_true (unit_frame_is ((msg), (index), (text)))

#endif
