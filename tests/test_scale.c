/* How many workers a service should have: the rules, with a clock that the test moves; what the engine sees of a
   service; and what a host is told. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"
#include "unit_world.h"

/* ---- the rules: 1 to 100 workers, 10 in the queue for each, a second to wait, 5 seconds to look back */

static zqb__scaling_t scaling;
static uint64_t now;

static void begin (int workers, int min, int max)
{
    zqb_scale_options_t options;
    memset (&options, 0, sizeof options);
    options.min = min;
    options.max = max;
    now = 1000000000;
    zqb__scaling_init (&scaling, &options, workers, now);
}

/* A tenth of a second later it is seen that so much is queued and at work, of so many workers. */
static int see_wait (int queued, int oldest_ms, int busy, int workers)
{
    zqb_scale_t sample;
    memset (&sample, 0, sizeof sample);
    sample.queued = queued;
    sample.oldest_us = oldest_ms * 1000;
    sample.busy = busy;
    sample.idle = workers - busy;
    now += ZQB__SCALE_US;
    return zqb__scaling_sample (&scaling, now, &sample);
}

static int see (int queued, int busy, int workers)
{
    return see_wait (queued, queued ? 1 : 0, busy, workers);
}

/* The same is seen for so long; and then so many are wanted. */
static int see_for (int ms, int queued, int busy, int workers)
{
    int wanted = scaling.wanted;
    for (; ms > 0; ms -= 100)
        wanted = see (queued, busy, workers);
    return wanted;
}

/* With as many workers as are wanted. */
static int follow_for (int ms, int queued, int busy)
{
    for (; ms > 0; ms -= 100)
        see (queued, busy < scaling.wanted ? busy : scaling.wanted, scaling.wanted);
    return scaling.wanted;
}

TEST (it_begins_with_the_workers_that_are_there_within_the_bounds)
{
    static const int cases[][4] = {{0, 0, 5, 1}, {0, 2, 5, 2}, {3, 2, 5, 3}, {7, 2, 5, 5}, {7, 5, 5, 5}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        begin (cases[i][0], cases[i][1], cases[i][2]);
        assert_int_equal (see (0, 0, cases[i][0]), cases[i][3]);
    }
}

TEST (it_grows_when_a_queue_is_too_long_in_two_samples_in_a_row)
{
    begin (3, 1, 100);
    assert_int_equal (see (31, 3, 3), 3);
    assert_int_equal (see (31, 3, 3), 4);
}

TEST (a_blip_does_nothing)
{
    begin (3, 1, 100);
    for (int i = 0; i < 50; i++) {
        assert_int_equal (see (1000, 3, 3), 3);
        assert_int_equal (see (30, 3, 3), 3); /* just what they may have */
    }
}

TEST (it_grows_by_what_the_queue_asks_for_and_at_most_doubles)
{
    begin (4, 1, 100);
    see (55, 4, 4);
    assert_int_equal (see (55, 4, 4), 6);
    begin (4, 1, 100);
    see (10000, 4, 4);
    assert_int_equal (see (10000, 4, 4), 8);
    assert_int_equal (see (10000, 8, 8), 8); /* again two samples */
    assert_int_equal (see (10000, 8, 8), 16);
}

TEST (it_waits_for_workers_that_are_on_their_way)
{
    begin (2, 1, 100);
    see (10000, 2, 2);
    assert_int_equal (see (10000, 2, 2), 4);
    assert_int_equal (see_for (10000, 10000, 2, 2), 4); /* they have not come */
    see (10000, 4, 4);
    assert_int_equal (see (10000, 4, 4), 8);
}

TEST (it_grows_by_one_when_the_oldest_waits_too_long_however_short_the_queue)
{
    begin (2, 1, 100);
    see_wait (1, 1000, 2, 2);
    assert_int_equal (see_wait (1, 1000, 2, 2), 2);
    see_wait (1, 1001, 2, 2);
    assert_int_equal (see_wait (1, 1101, 2, 2), 3);
    see_wait (1, 1200, 3, 3);
    assert_int_equal (see_wait (1, 1300, 3, 3), 4);
}

TEST (without_a_limit_of_time_only_the_length_of_the_queue_counts)
{
    zqb_scale_options_t options;
    begin (1, 1, 100);
    memset (&options, 0, sizeof options);
    options.max = 100;
    options.wait_ms = -1;
    zqb__scaling_init (&scaling, &options, 1, now);
    for (int i = 0; i < 10; i++)
        assert_int_equal (see_wait (10, 1000000, 1, 1), 1);
}

TEST (it_never_leaves_its_bounds_and_goes_to_them_at_once)
{
    begin (4, 1, 6);
    see (10000, 4, 4);
    assert_int_equal (see (10000, 4, 4), 6);
    for (int i = 0; i < 10; i++)
        assert_int_equal (see (10000, 6, 6), 6);
    zqb__scaling_bound (&scaling, 2, 3);
    assert_int_equal (see (0, 0, 6), 3);
    zqb__scaling_bound (&scaling, 8, 9);
    assert_int_equal (see (0, 0, 3), 8);
    assert_int_equal (follow_for (60000, 0, 0), 8);
}

TEST (it_shrinks_when_for_the_whole_time_fewer_would_have_done)
{
    begin (4, 1, 100);
    follow_for (10000, 0, 4);
    assert_int_equal (scaling.wanted, 4);
    assert_int_equal (follow_for (4900, 0, 2), 4); /* they were needed less than 5 seconds ago */
    assert_int_equal (follow_for (1000, 0, 2), 2);
    assert_int_equal (follow_for (10000, 0, 2), 2);
    assert_int_equal (follow_for (10000, 0, 0), 1);
}

TEST (it_shrinks_by_one_at_a_time)
{
    begin (50, 1, 100);
    int before = follow_for (5000, 0, 50);
    for (int i = 0; i < 200; i++) {
        int wanted = follow_for (100, 0, 0);
        assert_true (wanted == before || wanted == before - 1);
        before = wanted;
    }
    assert_int_equal (before, 1);
}

TEST (what_is_queued_is_needed_like_what_is_at_work)
{
    begin (4, 1, 100);
    follow_for (5000, 0, 4);
    assert_int_equal (follow_for (20000, 2, 2), 4);
    assert_int_equal (follow_for (20000, 1, 2), 3);
}

TEST (a_short_peak_now_and_then_keeps_them)
{
    begin (4, 1, 100);
    for (int i = 0; i < 100; i++) {
        see (0, 4, 4);
        assert_int_equal (see_for (4800, 0, 0, 4), 4);
    }
}

TEST (behind_a_growth_nothing_shrinks_for_a_while)
{
    begin (2, 1, 100);
    see_for (10000, 0, 1, 2); /* one would do */
    begin (2, 1, 100);
    see (1000, 2, 2);
    assert_int_equal (see (1000, 2, 2), 4);
    uint64_t grown = now;
    while (now + ZQB__SCALE_US < grown + 5000000)
        assert_int_equal (see (0, 0, 4), 4);
    assert_true (follow_for (1000, 0, 0) < 4);
}

TEST (when_it_is_not_looked_at_for_long_what_was_seen_last_lasts_until_then)
{
    begin (4, 1, 100);
    follow_for (10000, 0, 4);
    now += 3600u * 1000000u;
    assert_int_equal (see (0, 0, 4), 4); /* a moment ago all were needed */
    assert_int_equal (see_for (4000, 0, 0, 4), 4);
}

TEST (without_an_end_of_looking_back_it_never_shrinks)
{
    zqb_scale_options_t options;
    memset (&options, 0, sizeof options);
    options.max = 100;
    options.idle_ms = -1;
    begin (4, 1, 100);
    zqb__scaling_init (&scaling, &options, 4, now);
    assert_int_equal (see_for (100000, 0, 0, 4), 4);
}

/* A queue that is now above what they may have, now below, however fast. */
TEST (a_load_that_swings_around_a_threshold_does_not_flap)
{
    for (int period = 1; period <= 20; period++) {
        int changes = 0, before = 3;
        begin (3, 1, 100);
        for (int i = 0; i < 2000; i++) {
            int workers = scaling.wanted;
            int wanted = see (i / period % 2 ? 31 : 29, workers, workers);
            assert_true (wanted >= before);
            changes += wanted != before;
            before = wanted;
        }
        assert_true (changes <= 1);
    }
}

/* So much comes in each tenth of a second, and each worker does one of it. */
TEST (a_wave_is_followed_up_and_down_and_ends_where_it_began)
{
    int queued = 0, turns = 0, before = 2, direction = 1, most = 0;
    begin (2, 2, 64);
    for (int i = 0; i < 3000; i++) {
        int workers = scaling.wanted, coming = i < 600 ? 1 : i < 1200 ? 20 : 1;
        queued += coming;
        int done = queued < workers ? queued : workers;
        queued -= done;
        int wanted = see_wait (queued, 100 * queued / workers, done, workers);
        if (wanted != before && (wanted > before) != (direction > 0)) {
            direction = -direction;
            turns++;
        }
        before = wanted;
        most = wanted > most ? wanted : most;
    }
    assert_int_equal (before, 2);
    assert_int_equal (turns, 1); /* up, then down */
    assert_true (most >= 20 && most <= 40);
    assert_int_equal (queued, 0);
}

TEST (options_that_make_no_sense_are_found)
{
    static const struct {
        int min, max, queue, wait, idle, valid;
    } cases[] = {{0, 1, 0, 0, 0, 1},  {1, 1, 1, 1, 1, 1},   {3, 4, -1, -1, -1, 1}, {0, 0, 0, 0, 0, 0},
                 {2, 1, 0, 0, 0, 0},  {-1, 1, 0, 0, 0, 0},  {0, -1, 0, 0, 0, 0},   {0, 1, -2, 0, 0, 0},
                 {0, 1, 0, -2, 0, 0}, {0, 1, 0, 0, -2, 0}};
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb_scale_options_t options;
        options.min = cases[i].min;
        options.max = cases[i].max;
        options.queue_per_worker = cases[i].queue;
        options.wait_ms = cases[i].wait;
        options.idle_ms = cases[i].idle;
        assert_int_equal (zqb__scale_valid (&options), cases[i].valid);
    }
}

/* ---- the engine: it looks at a service every tenth of a second */

static zqb__engine_t engine;
static zqb_scale_t told; /* what was told last */
static int tellings;

static int sink_send (UNUSED void *self, UNUSED zqb__peer_t *peer, UNUSED int side,
                      UNUSED const zqb__command_t *command)
{
    return 0;
}

static void sink_log (UNUSED void *self, UNUSED int level, UNUSED const char *format, UNUSED va_list args)
{
}

static void sink_scale (void *self, zqb_scale_fn *fn, const zqb_scale_t *scale, void *arg)
{
    assert_ptr_equal (self, &engine);
    fn (scale, arg);
}

static void keep (const zqb_scale_t *scale, void *arg)
{
    assert_ptr_equal (arg, &told);
    assert_string_equal (scale->service, "echo");
    told = *scale;
    tellings++;
}

static void begin_engine (int max_services)
{
    zqb_broker_options_t options;
    zqb__sink_t sink;
    memset (&options, 0, sizeof options);
    memset (&sink, 0, sizeof sink);
    memset (&told, 0, sizeof told);
    tellings = 0;
    options.max_services = max_services;
    options.heartbeat_ms = -1;
    options.no_worker_ms = -1;
    options = zqb__broker_options (&options);
    zqb__limits_t limits = zqb__broker_limits (&options);
    sink.self = &engine;
    sink.send = sink_send;
    sink.log = sink_log;
    sink.scale = sink_scale;
    unit_memory_live = 0;
    assert_ok (zqb__engine_init (&engine, &limits, &sink, 7, 1000000000));
}

static void end_engine (void)
{
    zqb__engine_close (&engine);
    assert_int_equal (engine.stats.services, 0);
    assert_int_equal (unit_memory_live, 0);
}

static int watch (const char *service, int min, int max)
{
    zqb_scale_options_t options;
    memset (&options, 0, sizeof options);
    options.min = min;
    options.max = max;
    return zqb__engine_scale (&engine, service, &options, keep, &told);
}

/* Time passes, and what is due is done when it is. */
static void pass (uint64_t ms)
{
    uint64_t end = engine.now + ms * 1000;
    while (zqb__engine_next (&engine) <= end) {
        if (engine.now < zqb__engine_next (&engine))
            engine.now = zqb__engine_next (&engine);
        zqb__engine_tick (&engine);
    }
    engine.now = end;
}

static void say (const char *who, zqb__command_t command)
{
    zqb__peer_t *peer = zqb__engine_peer (&engine, 0, who, strlen (who), 0);
    assert_non_null (peer);
    peer->dialect[ZQB__CLIENT] = peer->dialect[ZQB__WORKER] = ZQB__ZQB1;
    command.service = (const unsigned char *) "echo";
    command.service_size = 4;
    zqb__engine_receive (&engine, peer, &command);
    zqb__engine_release (&engine, peer);
}

static void register_workers (int first, int count)
{
    char name[32];
    zqb__command_t ready = zqb__command (ZQB__READY, 0);
    ready.credit = 1;
    for (int i = first; i < first + count; i++) {
        snprintf (name, sizeof name, "worker %d", i);
        say (name, ready);
    }
}

static void ask (int count)
{
    static uint64_t id;
    for (int i = 0; i < count; i++)
        say ("client", zqb__command (ZQB__REQUEST, ++id));
}

TEST (the_host_is_told_at_first_and_when_another_number_is_wanted)
{
    begin_engine (0);
    assert_ok (watch ("echo", 2, 10));
    assert_int_equal (tellings, 0); /* not by the call itself */
    pass (0);
    assert_int_equal (tellings, 1);
    assert_int_equal (told.wanted, 2);
    assert_int_equal (told.queued + told.idle + told.busy + (int) told.oldest_us, 0);
    pass (1000);
    register_workers (0, 2);
    pass (1000);
    assert_int_equal (tellings, 1);
    ask (102);
    pass (200);
    assert_int_equal (tellings, 2);
    assert_int_equal (told.wanted, 4);
    assert_int_equal (told.queued, 100);
    assert_int_equal (told.busy, 2);
    assert_int_equal (told.idle, 0);
    assert_true (told.oldest_us >= 100000 && told.oldest_us <= 200000);
    pass (1000);
    assert_int_equal (tellings, 2); /* they have not come */
    register_workers (2, 2);
    pass (200);
    assert_int_equal (tellings, 3);
    assert_int_equal (told.wanted, 8);
    end_engine ();
}

/* So many requests that are to be begun later, or by the worker that has this key. */
static void ask_for (int count, uint32_t delay_ms, const char *key)
{
    static uint64_t id = 1000000;
    for (int i = 0; i < count; i++) {
        zqb__rare_t rare;
        zqb__command_t command = zqb__command (ZQB__REQUEST, ++id);
        memset (&rare, 0, sizeof rare);
        rare.delay_ms = delay_ms;
        rare.affinity = (const unsigned char *) key;
        rare.affinity_size = key ? strlen (key) : 0;
        command.rare = &rare;
        say ("client", command);
    }
}

TEST (what_waits_for_one_worker_asks_for_no_other)
{
    begin_engine (0);
    register_workers (0, 1);
    ask_for (1, 0, "key");
    register_workers (1, 1);
    ask_for (100, 0, "key");
    pass (2000);
    zqb_scale_t scale = zqb__service_measure (&engine, zqb__service_find (&engine, "echo", 4));
    assert_int_equal (engine.stats.queued, 100);
    assert_int_equal (scale.queued + (int) scale.oldest_us, 0);
    assert_int_equal (scale.busy, 1);
    assert_int_equal (scale.idle, 1);
    end_engine ();
}

TEST (what_is_delayed_asks_for_no_worker_and_who_leaves_is_none)
{
    begin_engine (0);
    assert_ok (watch ("echo", 1, 10));
    register_workers (0, 2);
    say ("worker 1", zqb__command (ZQB__DRAIN, 0)); /* it has nothing, but has not said goodbye */
    ask (4);
    ask_for (100, 3600000, NULL);
    pass (2000);
    assert_int_equal (engine.stats.delayed, 100);
    zqb_scale_t scale = zqb__service_measure (&engine, zqb__service_find (&engine, "echo", 4));
    assert_int_equal (scale.queued, 3);
    assert_int_equal (scale.busy, 1);
    assert_int_equal (scale.idle, 0);
    assert_int_equal (scale.oldest_us, 2000000);
    end_engine ();
}

TEST (a_service_that_is_watched_is_not_forgotten_before_that_ends)
{
    begin_engine (0);
    assert_ok (watch ("echo", 0, 1));
    register_workers (0, 1);
    say ("worker 0", zqb__command (ZQB__DISCONNECT, 0));
    assert_int_equal (engine.stats.services, 1);
    pass (300);
    zqb__engine_unscale (&engine, "other");
    zqb__engine_unscale (&engine, "echo");
    assert_int_equal (engine.stats.services, 0);
    assert_int_equal (zqb__engine_next (&engine), UINT64_MAX);
    zqb__engine_unscale (&engine, "echo");
    end_engine ();
}

TEST (a_service_with_workers_goes_on_when_it_is_no_longer_watched)
{
    begin_engine (0);
    assert_ok (watch ("echo", 0, 5));
    register_workers (0, 1);
    zqb__engine_unscale (&engine, "echo");
    pass (1000);
    assert_int_equal (tellings, 0);
    ask (1);
    assert_int_equal (engine.stats.running, 1);
    end_engine ();
}

TEST (who_asks_anew_is_told_anew)
{
    begin_engine (0);
    for (int max = 1; max <= 5; max++) {
        assert_ok (watch ("echo", max, max));
        pass (1000);
        assert_int_equal (tellings, max);
        assert_int_equal (told.wanted, max);
    }
    end_engine ();
}

TEST (a_service_that_cannot_be_watched_is_enospc_or_enomem_and_leaves_nothing)
{
    begin_engine (1);
    assert_ok (watch ("echo", 0, 1));
    assert_fails (watch ("other", 0, 1), ENOSPC);
    end_engine ();
    for (long left = 0;; left++) {
        begin_engine (0);
        unit_memory_left = left;
        int failed = watch ("echo", 0, 1), error = errno;
        unit_memory_left = -1;
        assert_int_equal (engine.stats.services, failed ? 0 : 1);
        pass (200);
        assert_int_equal (tellings, failed ? 0 : 1);
        end_engine ();
        if (!failed)
            break;
        assert_int_equal (error, ENOMEM);
        assert_true (left < 10);
    }
}

TEST (a_watch_goes_on_without_memory)
{
    begin_engine (0);
    assert_ok (watch ("echo", 3, 5));
    register_workers (0, 3);
    unit_memory_left = 0;
    pass (10000);
    unit_memory_left = -1;
    assert_int_equal (told.wanted, 3);
    assert_true (zqb__engine_next (&engine) <= engine.now + ZQB__SCALE_US);
    end_engine ();
}

/* ---- the host */

typedef struct seen_t {
    zqb__flag_t calls, wanted, queued, busy, changed;
} seen_t;

/* Rules are the same as in any function of a host: what changes the broker is EBUSY, what looks is not. */
static void see_scale (const zqb_scale_t *scale, void *arg)
{
    seen_t *seen = (seen_t *) arg;
    zqb_stats_t stats;
    if (zqb_broker_scale (broker, "other", NULL, NULL, NULL) == 0 || errno != EBUSY
        || zqb_broker_stats (broker, &stats) != 0 || strcmp (scale->service, "echo") != 0)
        zqb__flag_set (&seen->changed);
    zqb__flag_note (&seen->queued, scale->queued);
    zqb__flag_note (&seen->busy, scale->busy);
    zqb__flag_note (&seen->wanted, scale->wanted);
    zqb__flag_add (&seen->calls, 1);
}

static void ignore_scale (UNUSED const zqb_scale_t *scale, UNUSED void *arg)
{
}

TEST (an_argument_that_is_wrong_is_einval)
{
    zqb_scale_options_t options;
    memset (&options, 0, sizeof options);
    options.max = 1;
    assert_fails (zqb_broker_scale (NULL, "echo", &options, ignore_scale, NULL), EINVAL);
    assert_fails (zqb_broker_scale (broker, NULL, &options, ignore_scale, NULL), EINVAL);
    assert_fails (zqb_broker_scale (broker, "", &options, ignore_scale, NULL), EINVAL);
    assert_fails (zqb_broker_scale (broker, "mmi.x", &options, ignore_scale, NULL), EINVAL);
    assert_fails (zqb_broker_scale (broker, "echo", &options, NULL, NULL), EINVAL);
    options.max = 0;
    assert_fails (zqb_broker_scale (broker, "echo", &options, ignore_scale, NULL), EINVAL);
    options.max = 1;
    options.min = 2;
    assert_fails (zqb_broker_scale (broker, "echo", &options, ignore_scale, NULL), EINVAL);
    assert_ok (zqb_broker_scale (broker, "echo", NULL, NULL, NULL));
    assert_int_equal (stat (broker, services), 0);
}

TEST (a_host_is_told_how_many_workers_to_start_and_when_to_let_them_go)
{
    enum { REQUESTS = 100 };
    seen_t seen;
    zqb_scale_options_t options;
    zqb_worker_t *workers[4];
    memset (&seen, 0, sizeof seen);
    memset (&options, 0, sizeof options);
    options.max = 4;
    options.idle_ms = 200;
    assert_ok (zqb_broker_scale (broker, "echo", &options, see_scale, &seen));
    eventually (zqb__flag_get (&seen.wanted) == 1);
    workers[0] = new_worker (0, 1);
    zqb_client_t *client = new_client (0, 0, 0);
    for (int i = 0; i < REQUESTS; i++)
        submit (client, "echo", "x");
    eventually (zqb__flag_get (&seen.wanted) == 2);
    for (int i = 1; i < 4; i++)
        workers[i] = new_worker (0, 1);
    eventually (zqb__flag_get (&seen.wanted) == 4);
    assert_true (zqb__flag_get (&seen.queued) > 0);
    assert_true (zqb__flag_get (&seen.busy) > 0);
    for (int i = 0; i < REQUESTS;)
        for (int w = 0; w < 4; w++) {
            zqb_request_t *request = zqb_worker_recv (workers[w], 1);
            if (!request)
                continue;
            assert_ok (reply_text (request, "y"));
            i++;
        }
    eventually (zqb__flag_get (&seen.wanted) == 1);
    assert_int_equal (zqb__flag_get (&seen.changed), 0);
    assert_ok (zqb_broker_scale (broker, "echo", NULL, NULL, NULL));
    for (int w = 0; w < 4; w++)
        zqb_worker_destroy (&workers[w]);
    eventually (stat (broker, services) == 0);
    zqb_client_destroy (&client);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (it_begins_with_the_workers_that_are_there_within_the_bounds),
        cmocka_unit_test (it_grows_when_a_queue_is_too_long_in_two_samples_in_a_row),
        cmocka_unit_test (a_blip_does_nothing),
        cmocka_unit_test (it_grows_by_what_the_queue_asks_for_and_at_most_doubles),
        cmocka_unit_test (it_waits_for_workers_that_are_on_their_way),
        cmocka_unit_test (it_grows_by_one_when_the_oldest_waits_too_long_however_short_the_queue),
        cmocka_unit_test (without_a_limit_of_time_only_the_length_of_the_queue_counts),
        cmocka_unit_test (it_never_leaves_its_bounds_and_goes_to_them_at_once),
        cmocka_unit_test (it_shrinks_when_for_the_whole_time_fewer_would_have_done),
        cmocka_unit_test (it_shrinks_by_one_at_a_time),
        cmocka_unit_test (what_is_queued_is_needed_like_what_is_at_work),
        cmocka_unit_test (a_short_peak_now_and_then_keeps_them),
        cmocka_unit_test (behind_a_growth_nothing_shrinks_for_a_while),
        cmocka_unit_test (when_it_is_not_looked_at_for_long_what_was_seen_last_lasts_until_then),
        cmocka_unit_test (without_an_end_of_looking_back_it_never_shrinks),
        cmocka_unit_test (a_load_that_swings_around_a_threshold_does_not_flap),
        cmocka_unit_test (a_wave_is_followed_up_and_down_and_ends_where_it_began),
        cmocka_unit_test (options_that_make_no_sense_are_found),
        cmocka_unit_test (the_host_is_told_at_first_and_when_another_number_is_wanted),
        cmocka_unit_test (what_waits_for_one_worker_asks_for_no_other),
        cmocka_unit_test (what_is_delayed_asks_for_no_worker_and_who_leaves_is_none),
        cmocka_unit_test (a_service_that_is_watched_is_not_forgotten_before_that_ends),
        cmocka_unit_test (a_service_with_workers_goes_on_when_it_is_no_longer_watched),
        cmocka_unit_test (who_asks_anew_is_told_anew),
        cmocka_unit_test (a_service_that_cannot_be_watched_is_enospc_or_enomem_and_leaves_nothing),
        cmocka_unit_test (a_watch_goes_on_without_memory),
        FRESH (an_argument_that_is_wrong_is_einval),
        FRESH (a_host_is_told_how_many_workers_to_start_and_when_to_let_them_go),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
