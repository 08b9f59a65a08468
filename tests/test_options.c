/* What a request may ask for, and what workers and hosts may do about it, in the engine: each by itself, and many of them
   together in the simulator. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"
#include "unit_engine.h"

/* ---- commands that ask for something. What they point to lives until some more are made. */

static zqb__rare_t *rare_of (zqb__command_t *command)
{
    static zqb__rare_t rares[64];
    static size_t next;
    zqb__rare_t *rare = &rares[next++ % COUNT (rares)];
    memset (rare, 0, sizeof *rare);
    if (command->rare)
        *rare = *command->rare;
    command->rare = rare;
    return rare;
}

static zqb__command_t with_priority (zqb__command_t command, int priority)
{
    rare_of (&command)->priority = priority;
    return command;
}

static zqb__command_t with_deadline (zqb__command_t command, uint32_t ms)
{
    rare_of (&command)->deadline_ms = ms;
    return command;
}

static zqb__command_t with_delay (zqb__command_t command, uint32_t ms)
{
    rare_of (&command)->delay_ms = ms;
    return command;
}

static zqb__command_t with_attempts (zqb__command_t command, uint32_t attempts)
{
    rare_of (&command)->attempts = attempts;
    return command;
}

static zqb__command_t with_backoff (zqb__command_t command, uint32_t ms, uint32_t most_ms)
{
    zqb__rare_t *rare = rare_of (&command);
    rare->backoff_ms = ms;
    rare->backoff_max_ms = most_ms;
    return command;
}

static zqb__command_t with_unique (zqb__command_t command, const char *key)
{
    zqb__rare_t *rare = rare_of (&command);
    rare->unique = (const unsigned char *) key;
    rare->unique_size = strlen (key);
    return command;
}

static zqb__command_t with_affinity (zqb__command_t command, const char *key)
{
    zqb__rare_t *rare = rare_of (&command);
    rare->affinity = (const unsigned char *) key;
    rare->affinity_size = strlen (key);
    return command;
}

static zqb__command_t with_flags (zqb__command_t command, int flags)
{
    command.flags |= flags;
    return command;
}

static zqb__command_t refusal (uint64_t token)
{
    zqb__command_t command = zqb__command (ZQB__ERROR, token);
    command.status = ZQB_EREFUSED - ZQB_ERRNO;
    return command;
}

static zqb__command_t more (uint64_t id, uint32_t parts)
{
    zqb__command_t command = zqb__command (ZQB__MORE, id);
    command.credit = parts;
    return command;
}

static zqb__command_t progress (uint64_t token, uint64_t done, uint64_t total, const char *text)
{
    zqb__command_t command = zqb__command (ZQB__PROGRESS, token);
    zqb__rare_t *rare = rare_of (&command);
    rare->done = done;
    rare->total = total;
    rare->has_progress = 1;
    command.text = text;
    command.text_size = strlen (text);
    return command;
}

/* The next request that a worker is given. */
static uint64_t is_given (const char *worker, const char *body)
{
    return hears (worker, ZQB__REQUEST, body);
}

/* It answers, and the client hears that. */
static void answers (const char *worker, uint64_t token, const char *client, uint64_t id)
{
    say (worker, reply (token, "done"));
    assert_true (hears (client, ZQB__REPLY, "done") == id);
}

static void is_told_cancel (const char *worker, uint64_t token)
{
    assert_true (heard (worker, ZQB__CANCEL)->id == token);
}

static void hears_end_of_survey (const char *client, uint64_t id, uint64_t answered, uint64_t asked)
{
    const sent_t *sent = heard (client, ZQB__REPLY);
    assert_true (sent->id == id);
    assert_int_equal (sent->done, answered);
    assert_int_equal (sent->total, asked);
    assert_string_equal (sent->body, "");
}

static void begin_with_option (void (*set) (zqb__limits_t *limits))
{
    zqb__limits_t limits = usual_limits ();
    set (&limits);
    assert_ok (begin_with (&limits));
}

/* What became of the request that ended last. */
static int last_outcome (void)
{
    return world.outcomes[(world.outcome_count - 1) % COUNT (world.outcomes)].error;
}

/* ---- priority */

TEST (the_more_urgent_request_is_served_first_and_first_come_first_served_within_a_priority)
{
    static const struct {
        int priority;
        const char *body;
    } asked[] = {{0, "normal"}, {-4, "lowest"}, {4, "highest"}, {1, "high"}, {0, "normal too"}, {4, "highest too"}};
    static const char *const order[] = {"highest", "highest too", "high", "normal", "normal too", "lowest"};
    begin ();
    for (size_t i = 0; i < COUNT (asked); i++)
        say ("zqb client", with_priority (request ("echo", i + 1, asked[i].body), asked[i].priority));
    say ("mdp worker", ready ("echo", 0));
    for (size_t i = 0; i < COUNT (order); i++) {
        say ("mdp worker", reply (is_given ("mdp worker", order[i]), "done"));
        heard ("zqb client", ZQB__REPLY);
    }
    end ();
}

TEST (a_priority_beyond_the_range_is_the_nearest)
{
    begin ();
    say ("zqb client", with_priority (request ("echo", 1, "low"), -128));
    say ("zqb client", with_priority (request ("echo", 2, "high"), 127));
    say ("zqb client", with_priority (request ("echo", 3, "high too"), 4));
    say ("zqb client", with_priority (request ("echo", 4, "of a filter"), INT_MAX));
    say ("zqb client", with_priority (request ("echo", 5, "low too"), INT_MIN));
    say ("zqb worker", ready ("echo", 5));
    is_given ("zqb worker", "high");
    is_given ("zqb worker", "high too");
    is_given ("zqb worker", "of a filter");
    is_given ("zqb worker", "low");
    is_given ("zqb worker", "low too");
    end ();
}

TEST (clients_take_turns_within_a_priority)
{
    begin ();
    for (int i = 0; i < 3; i++)
        say ("zqb greedy", with_priority (request ("echo", (uint64_t) i + 1, "greedy"), 2));
    say ("zqb other", with_priority (request ("echo", 1, "other"), 2));
    say ("mdp client", request ("echo", 0, "normal"));
    say ("zqb worker", ready ("echo", 5));
    is_given ("zqb worker", "greedy");
    is_given ("zqb worker", "other");
    is_given ("zqb worker", "greedy");
    is_given ("zqb worker", "greedy");
    is_given ("zqb worker", "normal");
    end ();
}

TEST (peers_of_other_dialects_have_the_normal_priority)
{
    begin ();
    say ("mdp client", request ("echo", 0, "mdp"));
    say ("zqb client", with_priority (request ("echo", 1, "later"), -1));
    say ("zqb client", with_priority (request ("echo", 2, "sooner"), 1));
    say ("zqb worker", ready ("echo", 3));
    is_given ("zqb worker", "sooner");
    is_given ("zqb worker", "mdp");
    is_given ("zqb worker", "later");
    end ();
}

static void set_ageing (zqb__limits_t *limits)
{
    limits->ageing = 1000000;
}

TEST (with_ageing_a_request_rises_by_one_priority_for_each_such_time_that_it_waits)
{
    begin_with_option (set_ageing);
    say ("zqb client", with_priority (request ("echo", 1, "old"), -1));
    at_ms (1999);
    say ("zqb client", with_priority (request ("echo", 2, "new"), 1));
    say ("mdp worker", ready ("echo", 0));
    say ("mdp worker", reply (is_given ("mdp worker", "new"), "done"));
    whatever_is_heard ();
    end ();
    begin_with_option (set_ageing);
    say ("zqb client", with_priority (request ("echo", 1, "old"), -1));
    at_ms (3000);
    say ("zqb client", with_priority (request ("echo", 2, "new"), 1));
    say ("mdp worker", ready ("echo", 0));
    is_given ("mdp worker", "old");
    end ();
}

TEST (without_ageing_it_does_not_rise)
{
    begin ();
    say ("zqb client", with_priority (request ("echo", 1, "old"), -4));
    at_ms (9000);
    say ("zqb client", request ("echo", 2, "new"));
    say ("mdp worker", ready ("echo", 0));
    is_given ("mdp worker", "new");
    end ();
}

TEST (what_a_lost_worker_held_comes_first_within_its_priority)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "held"));
    say ("zqb client", request ("echo", 2, "normal"));
    say ("zqb client", with_priority (request ("echo", 3, "urgent"), 1));
    is_given ("zqb worker", "held");
    say ("zqb worker", disconnect ());
    say ("zqb other", ready ("echo", 3));
    is_given ("zqb other", "urgent");
    is_given ("zqb other", "held");
    is_given ("zqb other", "normal");
    end ();
}

/* ---- deadlines */

TEST (a_queued_request_whose_deadline_is_over_expires_and_its_client_is_told)
{
    begin ();
    say ("zqb client", with_deadline (request ("echo", 1, "x"), 500));
    at_ms (499);
    nothing_is_heard ();
    at_ms (500);
    hears_error ("zqb client", 1, ZQB_EEXPIRED);
    assert_int_equal (stats ()->expired, 1);
    assert_int_equal (stats ()->services, 0);
    assert_int_equal (last_outcome (), ZQB_EEXPIRED);
    say ("zqb worker", ready ("echo", 1));
    nothing_is_heard ();
    end ();
}

TEST (a_running_request_whose_deadline_is_over_is_told_to_its_client_at_once_and_to_its_worker)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", with_deadline (request ("echo", 1, "x"), 500));
    const sent_t *given = heard ("zqb worker", ZQB__REQUEST);
    uint64_t token = given->id;
    assert_int_equal (given->left_ms, 500);
    at_ms (500);
    hears_error ("zqb client", 1, ZQB_EEXPIRED);
    is_told_cancel ("zqb worker", token);
    assert_int_equal (stats ()->running, 1); /* it holds it, until it says otherwise */
    assert_int_equal (stats ()->expired, 0);
    say ("zqb worker", reply (token, "late"));
    nothing_is_heard ();
    assert_int_equal (stats ()->expired, 1);
    assert_int_equal (stats ()->stale, 0);
    end ();
}

TEST (a_worker_sees_what_is_left_of_the_deadline)
{
    begin ();
    say ("zqb client", with_deadline (request ("echo", 1, "x"), 5000));
    at_ms (1200);
    say ("zqb worker", ready ("echo", 1));
    assert_int_equal (heard ("zqb worker", ZQB__REQUEST)->left_ms, 3800);
    say ("zqb client", request ("echo", 2, "no deadline"));
    say ("zqb other", ready ("echo", 1));
    assert_int_equal (heard ("zqb other", ZQB__REQUEST)->left_ms, 0);
    end ();
}

TEST (a_worker_of_another_dialect_is_told_nothing_of_a_deadline_and_its_late_reply_reaches_nobody)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("zqb client", with_deadline (request ("echo", 1, "x"), 500));
    uint64_t token = is_given ("mdp worker", "x");
    at_ms (500);
    hears_error ("zqb client", 1, ZQB_EEXPIRED);
    say ("mdp worker", reply (token, "late"));
    nothing_is_heard ();
    say ("zqb client", request ("echo", 2, "next"));
    is_given ("mdp worker", "next");
    end ();
}

TEST (a_request_that_expired_while_it_ran_is_not_tried_again_when_its_worker_is_lost)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", with_deadline (request ("echo", 1, "x"), 500));
    at_ms (500);
    whatever_is_heard ();
    say ("zqb worker", disconnect ());
    say ("zqb other", ready ("echo", 1));
    nothing_is_heard ();
    assert_int_equal (stats ()->expired, 1);
    end ();
}

TEST (an_answer_in_time_ends_the_deadline)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", with_deadline (request ("echo", 1, "x"), 500));
    answers ("zqb worker", is_given ("zqb worker", "x"), "zqb client", 1);
    at_ms (600);
    nothing_is_heard ();
    assert_int_equal (stats ()->expired, 0);
    end ();
}

/* ---- delays, attempts, pauses between them */

TEST (a_request_is_not_begun_before_its_time)
{
    begin ();
    say ("zqb worker", ready ("echo", 2));
    say ("zqb client", with_delay (request ("echo", 1, "later"), 700));
    say ("zqb client", request ("echo", 2, "now"));
    is_given ("zqb worker", "now");
    assert_int_equal (stats ()->delayed, 1);
    assert_int_equal (stats ()->queued, 1);
    at_ms (699);
    nothing_is_heard ();
    at_ms (700);
    is_given ("zqb worker", "later");
    assert_int_equal (stats ()->delayed, 0);
    end ();
}

TEST (a_service_with_nothing_but_delayed_requests_is_not_forgotten)
{
    begin ();
    say ("zqb client", with_delay (request ("echo", 1, "later"), 700));
    assert_int_equal (stats ()->services, 1);
    at_ms (700);
    say ("zqb worker", ready ("echo", 1));
    is_given ("zqb worker", "later");
    end ();
}

TEST (a_delayed_request_waits_for_a_worker_from_its_time_on)
{
    begin ();
    say ("zqb client", with_delay (request ("echo", 1, "later"), 700));
    at_ms (700);
    at_ms (NO_WORKER_MS + 699);
    nothing_is_heard ();
    at_ms (NO_WORKER_MS + 700);
    hears_error ("zqb client", 1, ZQB_ENOWORKER);
    end ();
}

TEST (a_deadline_before_the_time_to_begin_ends_it)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", with_deadline (with_delay (request ("echo", 1, "x"), 700), 300));
    at_ms (300);
    hears_error ("zqb client", 1, ZQB_EEXPIRED);
    at_ms (700);
    nothing_is_heard ();
    end ();
}

TEST (a_delayed_request_can_be_cancelled_and_found_by_a_retry)
{
    begin ();
    say ("zqb client", with_delay (request ("echo", 1, "x"), 700));
    say ("zqb client", again (with_delay (request ("echo", 1, "x"), 700)));
    assert_int_equal (stats ()->joined, 1);
    say ("zqb client", cancel (1));
    assert_int_equal (stats ()->cancelled, 1);
    assert_int_equal (stats ()->services, 0);
    end ();
}

static void lose_over (const char *worker, const char *body)
{
    say (worker, ready ("echo", 1));
    is_given (worker, body);
    say (worker, disconnect ());
}

TEST (a_request_may_say_how_many_attempts_there_are)
{
    begin ();
    say ("zqb client", with_attempts (request ("echo", 1, "x"), 1));
    lose_over ("zqb worker", "x");
    hears_error ("zqb client", 1, ZQB_ELOST);
    say ("zqb client", with_attempts (request ("echo", 2, "y"), ZQB__ATTEMPTS_ALL));
    for (int i = 0; i < 10; i++)
        lose_over ("zqb worker", "y");
    say ("zqb client", cancel (2));
    nothing_is_heard ();
    assert_int_equal (stats ()->dead, 1);
    end ();
}

TEST (a_worker_that_comes_over_another_connection_may_have_been_the_client_of_what_it_held_among_many)
{
    char name[64];
    begin ();
    say ("zqb worker", ready ("echo", 65535));
    for (int i = 0; i <= ZQB__IDLE_PEERS; i++) {
        snprintf (name, sizeof name, "zqb client %d", i);
        say (name, with_attempts (request ("echo", 1, "x"), 1));
    }
    say ("zqb worker", with_attempts (request ("echo", 1, "x"), 1)); /* the first that is lost */
    say_as ("zqb elsewhere", life_of ("zqb worker"), ZQB__ZQB1, ready ("echo", 1));
    assert_int_equal (stats ()->dead, ZQB__IDLE_PEERS + 2);
    assert_int_equal (stats ()->workers, 1);
    end ();
}

TEST (pauses_between_attempts_double_up_to_the_most)
{
    begin ();
    say ("zqb client", with_attempts (with_backoff (request ("echo", 1, "x"), 100, 300), 5));
    lose_over ("zqb worker", "x");
    say ("zqb other", ready ("echo", 1));
    at_ms (99);
    nothing_is_heard ();
    at_ms (100);
    is_given ("zqb other", "x");
    say ("zqb other", ready ("echo", 1)); /* anew: what it held is lost */
    at_ms (299);
    nothing_is_heard ();
    at_ms (300);
    is_given ("zqb other", "x");
    say ("zqb other", ready ("echo", 1));
    at_ms (599);
    nothing_is_heard ();
    at_ms (600);
    is_given ("zqb other", "x");
    end ();
}

TEST (after_its_pause_a_request_is_the_first)
{
    begin ();
    say ("zqb client", with_backoff (request ("echo", 1, "first"), 100, 0));
    lose_over ("zqb worker", "first");
    say ("zqb client", request ("echo", 2, "second"));
    at_ms (100);
    say ("zqb worker", ready ("echo", 2));
    is_given ("zqb worker", "first");
    is_given ("zqb worker", "second");
    end ();
}

/* ---- unique */

TEST (requests_with_the_same_key_are_executed_once_and_all_are_answered)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb two", with_unique (request ("echo", 7, "x"), "key"));
    say ("zqb one", with_unique (request ("echo", 2, "x"), "key"));
    nothing_is_heard ();
    assert_int_equal (stats ()->following, 2);
    say ("zqb worker", reply (token, "done"));
    assert_true (hears ("zqb one", ZQB__REPLY, "done") == 1);
    assert_true (hears ("zqb two", ZQB__REPLY, "done") == 7);
    assert_true (hears ("zqb one", ZQB__REPLY, "done") == 2);
    assert_int_equal (stats ()->replied, 3);
    say ("zqb two", with_unique (request ("echo", 8, "again"), "key"));
    is_given ("zqb worker", "again");
    end ();
}

TEST (keys_are_those_of_a_service)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb other", ready ("other", 5));
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    say ("zqb one", with_unique (request ("other", 2, "y"), "key"));
    say ("zqb one", with_unique (request ("echo", 3, "z"), "kez"));
    is_given ("zqb worker", "x");
    is_given ("zqb other", "y");
    is_given ("zqb worker", "z");
    end ();
}

TEST (those_that_join_get_progress_and_parts_from_then_on_and_the_failure)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb worker", partial (token, "a"));
    hears ("zqb one", ZQB__PARTIAL, "a");
    say ("zqb two", with_unique (request ("echo", 2, "x"), "key"));
    say ("zqb worker", partial (token, "b"));
    hears ("zqb one", ZQB__PARTIAL, "b");
    assert_true (hears ("zqb two", ZQB__PARTIAL, "b") == 2);
    say ("zqb worker", progress (token, 1, 2, "half"));
    assert_int_equal (heard ("zqb one", ZQB__PROGRESS)->done, 1);
    const sent_t *told = heard ("zqb two", ZQB__PROGRESS);
    assert_int_equal (told->total, 2);
    assert_string_equal (told->text, "half");
    say ("zqb worker", failure (token, "no"));
    hears_error ("zqb one", 1, ZQB_EFAILED);
    hears_error ("zqb two", 2, ZQB_EFAILED);
    assert_int_equal (stats ()->failed, 2);
    end ();
}

TEST (when_the_first_is_cancelled_the_next_takes_its_place_and_the_work_goes_on)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb two", with_unique (request ("echo", 2, "x"), "key"));
    say ("zqb one", cancel (1));
    assert_int_equal (heard ("zqb worker", ZQB__MORE)->credit, ZQB__WINDOW_PARTS);
    nothing_is_heard ();
    assert_int_equal (stats ()->cancelled, 1);
    assert_int_equal (last_outcome (), ZQB_ECANCELLED);
    answers ("zqb worker", token, "zqb two", 2);
    nothing_is_heard ();
    end ();
}

TEST (a_queued_one_goes_on_for_those_that_joined_it)
{
    begin ();
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    say ("zqb two", with_unique (request ("echo", 2, "y"), "key"));
    say ("zqb one", cancel (1));
    say ("zqb one", with_unique (request ("echo", 3, "z"), "key"));
    say ("zqb worker", ready ("echo", 5));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb worker", reply (token, "done"));
    hears ("zqb two", ZQB__REPLY, "done");
    assert_true (hears ("zqb one", ZQB__REPLY, "done") == 3);
    end ();
}

TEST (whoever_takes_its_place_says_whether_it_waits_without_a_worker)
{
    for (int hasty = 0; hasty < 2; hasty++) {
        begin ();
        say ("zqb worker", ready ("echo", 1));
        say ("zqb one", request ("echo", 1, "busy"));
        uint64_t token = is_given ("zqb worker", "busy");
        say ("zqb one", with_flags (with_unique (request ("echo", 2, "x"), "key"), hasty ? 0 : ZQB__FAIL_FAST));
        say ("zqb two", with_flags (with_unique (request ("echo", 3, "x"), "key"), hasty ? ZQB__FAIL_FAST : 0));
        say ("zqb one", cancel (2));
        answers ("zqb worker", token, "zqb one", 1);
        is_given ("zqb worker", "x");
        say ("zqb worker", disconnect ()); /* it is queued again */
        if (hasty)
            hears_error ("zqb two", 3, ZQB_ENOWORKER);
        nothing_is_heard ();
        assert_int_equal (stats ()->queued, !hasty);
        end ();
    }
}

TEST (whoever_takes_the_place_of_one_that_is_queued_ends_with_the_last_worker_if_it_does_not_wait)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb one", request ("echo", 1, "busy"));
    is_given ("zqb worker", "busy");
    say ("zqb one", with_unique (request ("echo", 2, "x"), "key"));
    say ("zqb two", with_flags (with_unique (request ("echo", 3, "x"), "key"), ZQB__FAIL_FAST));
    say ("zqb one", cancel (2));
    nothing_is_heard ();
    say ("zqb worker", disconnect ());
    hears_error ("zqb two", 3, ZQB_ENOWORKER);
    nothing_is_heard ();
    assert_int_equal (stats ()->queued, 1); /* what was at work waits for another */
    end ();
}

TEST (one_that_joined_can_be_cancelled_expire_and_retry_by_itself)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb two", with_unique (request ("echo", 2, "x"), "key"));
    say ("zqb three", with_deadline (with_unique (request ("echo", 3, "x"), "key"), 100));
    say ("zqb two", again (with_unique (request ("echo", 2, "x"), "key")));
    assert_int_equal (stats ()->joined, 1);
    say ("zqb two", cancel (2));
    at_ms (100);
    hears_error ("zqb three", 3, ZQB_EEXPIRED);
    nothing_is_heard ();
    answers ("zqb worker", token, "zqb one", 1);
    nothing_is_heard ();
    end ();
}

TEST (the_deadline_of_the_first_is_not_that_of_the_others)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_deadline (with_unique (request ("echo", 1, "x"), "key"), 100));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb two", with_deadline (with_unique (request ("echo", 2, "x"), "key"), 900));
    at_ms (100);
    heard ("zqb worker", ZQB__MORE);
    hears_error ("zqb one", 1, ZQB_EEXPIRED);
    at_ms (900);
    hears_error ("zqb two", 2, ZQB_EEXPIRED);
    is_told_cancel ("zqb worker", token);
    say ("zqb worker", reply (token, "late"));
    assert_int_equal (stats ()->expired, 2);
    end ();
}

TEST (who_joins_a_request_that_nobody_wants_any_more_does_not)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    is_given ("zqb worker", "x");
    say ("zqb one", cancel (1));
    heard ("zqb worker", ZQB__CANCEL);
    say ("zqb two", with_unique (request ("echo", 2, "y"), "key"));
    is_given ("zqb worker", "y");
    end ();
}

TEST (the_most_urgent_that_joins_makes_it_as_urgent)
{
    begin ();
    say ("zqb one", with_unique (request ("echo", 1, "unique"), "key"));
    say ("zqb one", with_priority (request ("echo", 2, "high"), 2));
    say ("zqb two", with_priority (with_unique (request ("echo", 3, "-"), "key"), 3));
    say ("zqb worker", ready ("echo", 5));
    is_given ("zqb worker", "unique");
    is_given ("zqb worker", "high");
    end ();
}

TEST (the_first_that_may_begin_begins_for_all)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_delay (with_unique (request ("echo", 1, "x"), "key"), 5000));
    say ("zqb two", with_delay (with_unique (request ("echo", 2, "-"), "key"), 100));
    say ("zqb three", with_delay (with_unique (request ("echo", 3, "-"), "key"), 200));
    at_ms (99);
    nothing_is_heard ();
    at_ms (100);
    is_given ("zqb worker", "x");
    say ("zqb four", with_delay (with_unique (request ("echo", 4, "x"), "other"), 5000));
    say ("zqb four", with_unique (request ("echo", 5, "-"), "other"));
    is_given ("zqb worker", "x");
    end ();
}

TEST (all_that_joined_hear_that_every_worker_was_lost)
{
    begin ();
    say ("zqb one", with_unique (with_attempts (request ("echo", 1, "x"), 1), "key"));
    say ("zqb two", with_unique (request ("echo", 2, "x"), "key"));
    lose_over ("zqb worker", "x");
    hears_error ("zqb one", 1, ZQB_ELOST);
    hears_error ("zqb two", 2, ZQB_ELOST);
    assert_int_equal (stats ()->dead, 2);
    end ();
}

TEST (when_its_client_is_gone_the_next_takes_its_place)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    come_over ("zqb one", 3);
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb two", with_unique (request ("echo", 2, "x"), "key"));
    connection_ends (3);
    say ("zqb worker", heartbeat ());
    at_ms (EXPIRY_MS);
    assert_int_equal (stats ()->client_gone, 1);
    whatever_is_heard ();
    answers ("zqb worker", token, "zqb two", 2);
    end ();
}

TEST (a_worker_need_not_count_the_parts_for_an_heir_that_hears_none)
{
    begin ();
    say ("zqb worker", ready ("echo", 5));
    say ("zqb one", with_unique (request ("echo", 1, "x"), "key"));
    is_given ("zqb worker", "x");
    say ("zqb two", with_flags (with_unique (request ("echo", 0, "x"), "key"), ZQB__ONE_WAY));
    say ("zqb one", cancel (1));
    assert_int_equal (heard ("zqb worker", ZQB__MORE)->credit, ZQB__CREDIT_ALL);
    nothing_is_heard ();
    end ();
}

/* ---- one-way */

TEST (a_one_way_request_is_executed_and_nobody_is_told)
{
    begin ();
    say ("zqb worker", ready ("echo", 2));
    say ("zqb client", with_flags (request ("echo", 0, "x"), ZQB__ONE_WAY));
    const sent_t *given = heard ("zqb worker", ZQB__REQUEST);
    assert_int_equal (given->flags & ZQB__WINDOW, 0);
    say ("zqb worker", partial (given->id, "part"));
    say ("zqb worker", reply (given->id, "done"));
    nothing_is_heard ();
    assert_int_equal (stats ()->replied, 1);
    end ();
}

TEST (a_one_way_request_is_executed_even_if_its_client_is_gone)
{
    begin ();
    come_over ("zqb client", 3);
    say ("zqb client", with_flags (request ("echo", 0, "a"), ZQB__ONE_WAY));
    say ("zqb client", request ("echo", 1, "two ways"));
    say ("zqb client", with_flags (request ("echo", 0, "b"), ZQB__ONE_WAY));
    connection_ends (3);
    at_ms (EXPIRY_MS);
    assert_int_equal (stats ()->client_gone, 1);
    assert_int_equal (stats ()->queued, 2);
    assert_int_equal (stats ()->clients, 0);
    say ("zqb worker", ready ("echo", 2));
    uint64_t a = is_given ("zqb worker", "a"), b = is_given ("zqb worker", "b");
    say ("zqb worker", reply (a, "done"));
    say ("zqb worker", failure (b, "no"));
    nothing_is_heard ();
    assert_int_equal (stats ()->replied, 1);
    assert_int_equal (stats ()->failed, 1);
    end ();
}

TEST (a_one_way_request_that_is_refused_or_dies_is_counted_and_not_told)
{
    begin ();
    say ("zqb client", with_flags (request ("echo", 0, "x"), ZQB__ONE_WAY | ZQB__FAIL_FAST));
    assert_int_equal (stats ()->refused_no_worker, 1);
    say ("zqb client", with_deadline (with_flags (request ("echo", 0, "x"), ZQB__ONE_WAY), 100));
    at_ms (100);
    nothing_is_heard ();
    assert_int_equal (stats ()->expired, 1);
    end ();
}

TEST (a_one_way_request_is_not_found_by_its_number)
{
    begin ();
    say ("zqb client", with_flags (request ("echo", 0, "x"), ZQB__ONE_WAY));
    say ("zqb client", cancel (0));
    assert_int_equal (stats ()->queued, 1);
    end ();
}

TEST (without_memory_a_one_way_request_whose_client_is_gone_ends_with_the_others)
{
    begin ();
    say ("mdp client", with_flags (request ("echo", 0, "x"), ZQB__ONE_WAY));
    say ("mdp client", request ("echo", 0, "y"));
    come_over ("mdp client", 3);
    unit_memory_fail (0, 0);
    connection_ends (3);
    unit_memory_recover ();
    assert_int_equal (stats ()->no_memory, 1);
    assert_int_equal (stats ()->client_gone, 2);
    assert_int_equal (stats ()->queued, 0);
    end ();
}

/* ---- fail fast */

TEST (a_request_that_would_not_wait_without_a_worker_is_refused_at_once)
{
    begin ();
    say ("zqb client", with_flags (request ("echo", 1, "x"), ZQB__FAIL_FAST));
    hears_error ("zqb client", 1, ZQB_ENOWORKER);
    assert_int_equal (stats ()->refused_no_worker, 1);
    assert_int_equal (stats ()->accepted, 0);
    assert_int_equal (stats ()->services, 0);
    end ();
}

TEST (it_waits_for_a_busy_worker_and_ends_when_the_last_is_gone)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "held"));
    say ("zqb client", with_flags (request ("echo", 2, "hasty"), ZQB__FAIL_FAST));
    say ("zqb client", request ("echo", 3, "patient"));
    is_given ("zqb worker", "held");
    nothing_is_heard ();
    say ("zqb worker", disconnect ());
    hears_error ("zqb client", 2, ZQB_ENOWORKER);
    nothing_is_heard ();
    assert_int_equal (stats ()->expired, 1);
    assert_int_equal (stats ()->queued, 2);
    end ();
}

TEST (a_delayed_one_ends_if_there_is_no_worker_when_its_time_comes)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", with_flags (with_delay (request ("echo", 1, "x"), 100), ZQB__FAIL_FAST));
    say ("zqb worker", disconnect ());
    nothing_is_heard ();
    at_ms (100);
    hears_error ("zqb client", 1, ZQB_ENOWORKER);
    assert_int_equal (stats ()->services, 0);
    end ();
}

/* ---- affinity */

static char workers_of_keys[10][64]; /* which worker got which key */

static void ask_with_keys (uint64_t first)
{
    char key[16], body[16];
    for (int i = 0; i < 10; i++) {
        snprintf (key, sizeof key, "k%d", i);
        snprintf (body, sizeof body, "%s", key);
        say ("zqb client", with_affinity (request ("echo", first + (uint64_t) i, body), key));
        const sent_t *given = &world.sent[world.read++ % SENT];
        assert_int_equal (given->type, ZQB__REQUEST);
        if (first == 1)
            snprintf (workers_of_keys[i], sizeof workers_of_keys[i], "%s", given->to);
        else
            assert_string_equal (given->to, workers_of_keys[i]);
        say (given->to, reply (given->id, "done"));
        heard ("zqb client", ZQB__REPLY);
    }
}

TEST (requests_with_the_same_key_go_to_the_same_worker_as_long_as_it_lives)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb c", ready ("echo", 1));
    ask_with_keys (1);
    ask_with_keys (11);
    say ("zqb d", ready ("echo", 1)); /* one more takes nothing from them */
    ask_with_keys (21);
    say ("zqb b", disconnect ());
    for (int i = 0; i < 10; i++) /* only those of the one that is gone go elsewhere */
        if (strcmp (workers_of_keys[i], "zqb b") != 0) {
            char key[16];
            snprintf (key, sizeof key, "k%d", i);
            say ("zqb client", with_affinity (request ("echo", 31 + (uint64_t) i, "x"), key));
            uint64_t token = is_given (workers_of_keys[i], "x");
            say (workers_of_keys[i], reply (token, "done"));
            heard ("zqb client", ZQB__REPLY);
        }
    end ();
}

static void only_two_may_wait (zqb__limits_t *limits)
{
    limits->queue = 2;
}

TEST (what_waits_though_a_worker_is_idle_is_not_without_bound)
{
    begin_with_option (only_two_may_wait);
    say ("zqb one", ready ("echo", 1));
    say ("zqb two", ready ("echo", 1));
    say ("zqb client", with_affinity (request ("echo", 1, "x"), "key"));
    is_given ("zqb one", "x");
    say ("zqb client", with_affinity (request ("echo", 2, "y"), "key"));
    say ("zqb client", with_delay (request ("echo", 3, "z"), 1000));
    nothing_is_heard ();
    say ("zqb client", with_affinity (request ("echo", 4, "y"), "key"));
    hears_error ("zqb client", 4, ZQB_EQUEUEFULL);
    say ("zqb client", with_delay (request ("echo", 5, "z"), 1000));
    hears_error ("zqb client", 5, ZQB_EQUEUEFULL);
    assert_int_equal (stats ()->refused_queue, 2);
    say ("zqb client", request ("echo", 6, "at once"));
    is_given ("zqb two", "at once");
    end ();
}

TEST (keys_are_spread_over_the_workers)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    ask_with_keys (1);
    int a = 0;
    for (int i = 0; i < 10; i++)
        a += strcmp (workers_of_keys[i], "zqb a") == 0;
    assert_int_equal (a, 5);
    end ();
}

TEST (a_request_waits_for_the_worker_of_its_key_in_order_while_others_are_served)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", with_affinity (request ("echo", 1, "one"), "key"));
    uint64_t token = is_given ("zqb a", "one");
    say ("zqb client", with_affinity (request ("echo", 2, "two"), "key"));
    say ("zqb client", with_affinity (request ("echo", 3, "three"), "key"));
    nothing_is_heard ();
    say ("zqb client", request ("echo", 4, "other"));
    is_given ("zqb b", "other");
    say ("zqb client", request ("echo", 5, "waits"));
    answers ("zqb a", token, "zqb client", 1);
    token = is_given ("zqb a", "two");
    answers ("zqb a", token, "zqb client", 2);
    token = is_given ("zqb a", "three");
    answers ("zqb a", token, "zqb client", 3);
    is_given ("zqb a", "waits");
    end ();
}

TEST (what_waits_for_a_worker_that_is_lost_goes_to_another_in_order)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 3));
    say ("zqb client", with_affinity (request ("echo", 1, "one"), "key"));
    say ("zqb client", with_affinity (request ("echo", 2, "two"), "key"));
    say ("zqb client", with_affinity (request ("echo", 3, "three"), "key"));
    is_given ("zqb a", "one");
    nothing_is_heard ();
    say ("zqb a", disconnect ());
    is_given ("zqb b", "one");
    is_given ("zqb b", "two");
    is_given ("zqb b", "three");
    assert_int_equal (stats ()->requeued, 1); /* the others were never tried */
    end ();
}

TEST (the_more_urgent_of_those_that_wait_for_a_worker_is_first)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 9));
    say ("zqb client", with_affinity (request ("echo", 1, "one"), "key"));
    uint64_t token = is_given ("zqb a", "one");
    say ("zqb client", with_affinity (request ("echo", 2, "normal"), "key"));
    say ("zqb client", with_priority (with_affinity (request ("echo", 3, "urgent"), "key"), 1));
    answers ("zqb a", token, "zqb client", 1);
    is_given ("zqb a", "urgent");
    end ();
}

TEST (one_that_waits_for_a_worker_becomes_more_urgent_if_one_that_is_joins_it)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 9));
    say ("zqb client", with_affinity (request ("echo", 1, "one"), "key"));
    uint64_t token = is_given ("zqb a", "one");
    say ("zqb client", with_priority (with_affinity (request ("echo", 2, "urgent"), "key"), 1));
    say ("zqb client", with_affinity (with_unique (request ("echo", 3, "more urgent"), "u"), "key"));
    say ("zqb client", with_affinity (request ("echo", 4, "normal"), "key"));
    say ("zqb other", with_priority (with_unique (request ("echo", 5, "-"), "u"), 2));
    nothing_is_heard ();
    answers ("zqb a", token, "zqb client", 1);
    token = is_given ("zqb a", "more urgent");
    say ("zqb client", cancel (3)); /* the one that joined goes on */
    heard ("zqb a", ZQB__MORE);
    answers ("zqb a", token, "zqb other", 5);
    token = is_given ("zqb a", "urgent");
    answers ("zqb a", token, "zqb client", 2);
    is_given ("zqb a", "normal");
    end ();
}

TEST (one_that_waits_for_a_worker_goes_on_as_urgently_as_whoever_takes_its_place)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 9));
    say ("zqb client", with_affinity (request ("echo", 1, "one"), "key"));
    uint64_t token = is_given ("zqb a", "one");
    say ("zqb client", with_priority (with_affinity (with_unique (request ("echo", 2, "was urgent"), "u"), "key"), 2));
    say ("zqb client", with_affinity (request ("echo", 3, "normal"), "key"));
    say ("zqb other", with_priority (with_unique (request ("echo", 4, "-"), "u"), -1));
    say ("zqb client", cancel (2));
    answers ("zqb a", token, "zqb client", 1);
    token = is_given ("zqb a", "normal");
    answers ("zqb a", token, "zqb client", 3);
    token = is_given ("zqb a", "was urgent");
    answers ("zqb a", token, "zqb other", 4);
    end ();
}

TEST (what_waits_for_a_worker_can_be_cancelled_and_expire)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 9));
    say ("zqb client", with_affinity (request ("echo", 1, "one"), "key"));
    say ("zqb client", with_affinity (request ("echo", 2, "two"), "key"));
    say ("zqb client", with_deadline (with_affinity (request ("echo", 3, "three"), "key"), 100));
    uint64_t token = is_given ("zqb a", "one");
    say ("zqb client", cancel (2));
    at_ms (100);
    hears_error ("zqb client", 3, ZQB_EEXPIRED);
    answers ("zqb a", token, "zqb client", 1);
    nothing_is_heard ();
    end ();
}

/* ---- cancel */

TEST (a_worker_is_told_that_nobody_wants_its_request_any_more)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = is_given ("zqb worker", "x");
    say ("zqb client", cancel (1));
    is_told_cancel ("zqb worker", token);
    assert_int_equal (last_outcome (), ZQB_ECANCELLED);
    say ("zqb client", cancel (1));
    say ("zqb worker", failure (token, "I stopped"));
    nothing_is_heard ();
    assert_int_equal (stats ()->cancelled, 1);
    assert_int_equal (stats ()->failed, 0);
    end ();
}

TEST (a_worker_is_told_that_its_client_is_gone)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    come_over ("mdp client", 3);
    say ("mdp client", request ("echo", 0, "x"));
    uint64_t token = is_given ("zqb worker", "x");
    connection_ends (3);
    is_told_cancel ("zqb worker", token);
    end ();
}

/* ---- refusing */

TEST (a_request_that_a_worker_refuses_goes_to_another_at_once_and_that_is_no_attempt)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", with_attempts (request ("echo", 1, "x"), 1));
    say ("zqb a", refusal (is_given ("zqb a", "x")));
    uint64_t token = is_given ("zqb b", "x");
    assert_int_equal (stats ()->given_back, 1);
    answers ("zqb b", token, "zqb client", 1);
    say ("zqb client", request ("echo", 2, "y"));
    is_given ("zqb a", "y"); /* who refused once is asked again for others */
    end ();
}

TEST (when_all_workers_have_refused_it_the_client_is_told)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb a", refusal (is_given ("zqb a", "x")));
    say ("zqb b", refusal (is_given ("zqb b", "x")));
    hears_error ("zqb client", 1, ZQB_EREFUSED);
    assert_int_equal (stats ()->failed, 1);
    assert_int_equal (last_outcome (), ZQB_EREFUSED);
    nothing_is_heard ();
    end ();
}

TEST (it_waits_for_one_that_has_not_refused_it)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "busy"));
    say ("zqb client", request ("echo", 2, "picky"));
    uint64_t busy = is_given ("zqb a", "busy"), picky = is_given ("zqb b", "picky");
    say ("zqb b", refusal (picky));
    nothing_is_heard ();
    say ("zqb client", request ("echo", 3, "any"));
    is_given ("zqb b", "any");
    answers ("zqb a", busy, "zqb client", 1);
    is_given ("zqb a", "picky");
    end ();
}

TEST (a_late_answer_to_a_request_that_was_refused_reaches_nobody)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = is_given ("zqb a", "x");
    say ("zqb a", refusal (token));
    is_given ("zqb b", "x");
    say ("zqb a", reply (token, "after all"));
    nothing_is_heard ();
    assert_int_equal (stats ()->stale, 1);
    end ();
}

TEST (a_refused_request_whose_client_wants_it_no_more_ends)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = is_given ("zqb a", "x");
    say ("zqb client", cancel (1));
    is_told_cancel ("zqb a", token);
    say ("zqb a", refusal (token));
    assert_int_equal (stats ()->cancelled, 1);
    nothing_is_heard ();
    end ();
}

/* ---- failures, progress, parts */

TEST (a_failure_has_a_code_of_the_workers_own)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    zqb__command_t failed = failure (is_given ("zqb worker", "x"), "disk full");
    rare_of (&failed)->code = 28;
    say ("zqb worker", failed);
    const sent_t *told = heard ("zqb client", ZQB__ERROR);
    assert_int_equal (told->code, 28);
    assert_string_equal (told->text, "disk full");
    end ();
}

TEST (progress_reaches_clients_that_have_a_word_for_it)
{
    begin ();
    say ("zqb worker", ready ("echo", 2));
    say ("zqb client", request ("echo", 1, "x"));
    say ("mdp client", request ("echo", 0, "y"));
    uint64_t x = is_given ("zqb worker", "x"), y = is_given ("zqb worker", "y");
    say ("zqb worker", progress (x, 3, 10, "third"));
    const sent_t *told = heard ("zqb client", ZQB__PROGRESS);
    assert_int_equal (told->id, 1);
    assert_int_equal (told->done, 3);
    assert_int_equal (told->total, 10);
    say ("zqb worker", progress (y, 3, 10, "third"));
    nothing_is_heard ();
    say ("zqb other", progress (x, 4, 10, "forged"));
    heard ("zqb other", ZQB__DISCONNECT);
    nothing_is_heard ();
    end ();
}

TEST (parts_that_a_client_has_read_are_told_to_the_worker)
{
    begin ();
    say ("zqb worker", ready ("echo", 2));
    say ("zqb client", request ("echo", 1, "x"));
    say ("mdp client", request ("echo", 0, "y"));
    const sent_t *given = heard ("zqb worker", ZQB__REQUEST);
    uint64_t token = given->id;
    assert_int_equal (given->flags & ZQB__WINDOW, ZQB__WINDOW);
    assert_int_equal (heard ("zqb worker", ZQB__REQUEST)->flags & ZQB__WINDOW, 0); /* MDP says no MORE */
    say ("zqb client", more (1, 16));
    const sent_t *told = heard ("zqb worker", ZQB__MORE);
    assert_true (told->id == token);
    assert_int_equal (told->credit, 16);
    say ("zqb client", more (2, 16));
    say ("zqb other", more (1, 16));
    nothing_is_heard ();
    say ("zqb client", request ("echo", 3, "z")); /* queued: there is nobody to tell */
    say ("zqb client", more (3, 16));
    nothing_is_heard ();
    end ();
}

TEST (who_has_read_more_than_there_is_does_not_flood_the_worker)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = is_given ("zqb worker", "x");
    for (int i = 0; i < 1000; i++)
        say ("zqb client", more (1, 1));
    for (int i = 0; i < ZQB__MORES; i++)
        heard ("zqb worker", ZQB__MORE);
    nothing_is_heard ();
    say ("zqb worker", partial (token, "part"));
    heard ("zqb client", ZQB__PARTIAL);
    say ("zqb client", more (1, 1));
    say ("zqb client", more (1, 1));
    heard ("zqb worker", ZQB__MORE);
    nothing_is_heard ();
    answers ("zqb worker", token, "zqb client", 1);
    end ();
}

TEST (parts_that_a_client_has_read_are_as_good_as_not_said_if_there_is_no_memory_to_find_the_request)
{
    begin ();
    say ("zqb worker", ready ("echo", 2));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = is_given ("zqb worker", "x");
    unit_memory_fail (0, 0);
    say ("zqb client", more (1, 16));
    unit_memory_recover ();
    nothing_is_heard ();
    assert_int_equal (stats ()->no_memory, 1);
    say ("zqb client", more (1, 7));
    assert_int_equal (heard ("zqb worker", ZQB__MORE)->credit, 7);
    answers ("zqb worker", token, "zqb client", 1);
    end ();
}

/* ---- surveys */

TEST (a_survey_asks_every_worker_and_gathers_the_answers)
{
    static const char *const workers[] = {"zqb a", "mdp b", "lru c"};
    uint64_t tokens[3];
    begin ();
    for (int i = 0; i < 3; i++)
        say (workers[i], ready ("echo", 1));
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    for (int i = 0; i < 3; i++)
        tokens[i] = is_given (workers[i], "who?");
    for (int i = 2; i >= 0; i--) {
        say (workers[i], reply (tokens[i], workers[i]));
        assert_true (hears ("zqb client", ZQB__PARTIAL, workers[i]) == 9);
    }
    hears_end_of_survey ("zqb client", 9, 3, 3);
    assert_int_equal (stats ()->accepted, 4);
    assert_int_equal (stats ()->replied, 4);
    end ();
}

TEST (a_busy_worker_is_asked_when_it_has_room)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "work"));
    uint64_t work = is_given ("zqb a", "work");
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    nothing_is_heard ();
    answers ("zqb a", work, "zqb client", 1);
    say ("zqb a", reply (is_given ("zqb a", "who?"), "a"));
    hears ("zqb client", ZQB__PARTIAL, "a");
    hears_end_of_survey ("zqb client", 9, 1, 1);
    end ();
}

TEST (workers_that_fail_refuse_or_are_lost_do_not_answer_a_survey)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb c", ready ("echo", 1));
    say ("zqb d", ready ("echo", 1));
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    uint64_t a = is_given ("zqb a", "who?"), b = is_given ("zqb b", "who?");
    is_given ("zqb c", "who?");
    uint64_t d = is_given ("zqb d", "who?");
    say ("zqb a", failure (a, "no"));
    say ("zqb b", refusal (b));
    say ("zqb c", disconnect ());
    nothing_is_heard ();
    say ("zqb d", reply (d, "d"));
    hears ("zqb client", ZQB__PARTIAL, "d");
    hears_end_of_survey ("zqb client", 9, 1, 4);
    assert_int_equal (stats ()->failed, 3);
    end ();
}

TEST (a_survey_ends_at_its_deadline_with_what_there_is)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", with_deadline (with_flags (request ("echo", 9, "who?"), ZQB__SURVEY), 100));
    uint64_t a = is_given ("zqb a", "who?"), b = is_given ("zqb b", "who?");
    say ("zqb a", reply (a, "a"));
    hears ("zqb client", ZQB__PARTIAL, "a");
    at_ms (100);
    is_told_cancel ("zqb b", b);
    hears_end_of_survey ("zqb client", 9, 1, 2);
    say ("zqb b", reply (b, "late"));
    nothing_is_heard ();
    assert_int_equal (stats ()->expired, 1);
    end ();
}

TEST (a_survey_that_is_cancelled_is_cancelled_everywhere)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "work"));
    is_given ("zqb a", "work");
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    uint64_t b = is_given ("zqb b", "who?");
    say ("zqb client", cancel (9));
    is_told_cancel ("zqb b", b);
    nothing_is_heard ();
    assert_int_equal (stats ()->cancelled, 2);
    say ("zqb b", reply (b, "b"));
    assert_int_equal (stats ()->cancelled, 3);
    end ();
}

TEST (a_survey_of_nobody_is_refused)
{
    begin ();
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    hears_error ("zqb client", 9, ZQB_ENOWORKER);
    assert_int_equal (stats ()->services, 0);
    end ();
}

static void set_few_outstanding (zqb__limits_t *limits)
{
    limits->outstanding = 3;
}

TEST (a_survey_of_too_many_is_refused)
{
    begin_with_option (set_few_outstanding);
    for (int i = 0; i < 3; i++) {
        static const char *const workers[] = {"zqb a", "zqb b", "zqb c"};
        say (workers[i], ready ("echo", 1));
    }
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    hears_error ("zqb client", 9, ZQB_EQUEUEFULL);
    assert_int_equal (stats ()->refused_outstanding, 1);
    say ("zqb c", disconnect ());
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    is_given ("zqb a", "who?");
    end ();
}

static void set_few_requests (zqb__limits_t *limits)
{
    limits->requests = 3;
}

/* The survey counts, too. */
TEST (a_survey_of_more_than_there_may_be_requests_is_refused)
{
    begin_with_option (set_few_requests);
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb other", request ("other", 1, "waits"));
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    hears_error ("zqb client", 9, ZQB_EQUEUEFULL);
    nothing_is_heard ();
    assert_int_equal (stats ()->refused_requests, 1);
    say ("zqb other", cancel (1));
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    is_given ("zqb a", "who?");
    is_given ("zqb b", "who?");
    assert_int_equal (stats ()->queued + stats ()->running, 3);
    end ();
}

TEST (a_handler_answers_a_survey_alone)
{
    begin ();
    assert_ok (zqb__engine_handle (&world.engine, "echo", (zqb_handler_fn *) 1, NULL));
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    hears ("zqb client", ZQB__PARTIAL, "who?");
    hears_end_of_survey ("zqb client", 9, 1, 1);
    say ("zqb client", with_flags (request ("echo", 0, "silent"), ZQB__ONE_WAY));
    nothing_is_heard ();
    assert_int_equal (world.handled, 2);
    assert_ok (zqb__engine_handle (&world.engine, "echo", NULL, NULL));
    end ();
}

TEST (a_client_that_cannot_be_told_what_a_handler_answers_to_its_survey_is_gone)
{
    begin ();
    assert_ok (zqb__engine_handle (&world.engine, "echo", (zqb_handler_fn *) 1, NULL));
    world.gone = "zqb client,";
    say ("zqb client", with_flags (request ("echo", 9, "who?"), ZQB__SURVEY));
    nothing_is_heard ();
    assert_int_equal (world.handled, 1);
    assert_int_equal (stats ()->client_gone, 1);
    assert_int_equal (stats ()->replied, 0);
    assert_int_equal (last_outcome (), EHOSTUNREACH);
    assert_ok (zqb__engine_handle (&world.engine, "echo", NULL, NULL));
    end ();
}

/* ---- draining */

TEST (a_worker_that_wants_to_leave_gets_no_more_and_loses_nothing)
{
    begin ();
    say ("zqb a", ready ("echo", 2));
    say ("zqb client", request ("echo", 1, "held"));
    uint64_t token = is_given ("zqb a", "held");
    say ("zqb a", zqb__command (ZQB__DRAIN, 0));
    heard ("zqb a", ZQB__DRAIN);
    say ("zqb client", request ("echo", 2, "next"));
    nothing_is_heard ();
    answers ("zqb a", token, "zqb client", 1);
    nothing_is_heard ();
    say ("zqb a", disconnect ());
    say ("zqb b", ready ("echo", 2));
    is_given ("zqb b", "next");
    assert_int_equal (stats ()->workers_left, 1);
    assert_int_equal (stats ()->requeued, 0);
    end ();
}

TEST (a_host_drains_one_worker_or_all_of_a_service)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("mdp c", ready ("echo", 1));
    assert_fails (zqb__engine_drain (&world.engine, "echo", 4), ENOENT);
    assert_fails (zqb__engine_drain (&world.engine, "other", 0), ENOENT);
    assert_ok (zqb__engine_drain (&world.engine, "echo", 2));
    heard ("zqb b", ZQB__DRAIN);
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb client", request ("echo", 2, "y"));
    uint64_t x = is_given ("zqb a", "x"), y = is_given ("mdp c", "y");
    assert_ok (zqb__engine_drain (&world.engine, "echo", 0));
    heard ("zqb a", ZQB__DRAIN);
    nothing_is_heard ();
    answers ("mdp c", y, "zqb client", 2);
    heard ("mdp c", ZQB__DISCONNECT); /* MDP has no other word */
    answers ("zqb a", x, "zqb client", 1);
    nothing_is_heard ();
    assert_int_equal (stats ()->workers_left, 1);
    end ();
}

TEST (what_waits_for_a_worker_that_is_drained_goes_to_another)
{
    begin ();
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", with_affinity (request ("echo", 1, "one"), "key"));
    say ("zqb client", with_affinity (request ("echo", 2, "two"), "key"));
    is_given ("zqb a", "one");
    assert_ok (zqb__engine_drain (&world.engine, "echo", 1));
    heard ("zqb a", ZQB__DRAIN);
    is_given ("zqb b", "two");
    end ();
}

TEST (who_is_not_registered_cannot_be_drained)
{
    begin ();
    say ("zqb a", zqb__command (ZQB__DRAIN, 0));
    heard ("zqb a", ZQB__DISCONNECT);
    assert_int_equal (stats ()->bad_state, 1);
    end ();
}

/* ---- patterns */

TEST (an_exact_name_wins_and_then_the_longest_pattern)
{
    begin ();
    say ("zqb any", ready ("*", 9));
    say ("zqb img", ready ("img.*", 9));
    say ("zqb png", ready ("img.png.*", 9));
    say ("zqb exact", ready ("img.png.small", 9));
    say ("zqb client", request ("img.png.small", 1, "1"));
    say ("zqb client", request ("img.png.large", 2, "2"));
    say ("zqb client", request ("img.gif", 3, "3"));
    say ("zqb client", request ("other", 4, "4"));
    is_given ("zqb exact", "1");
    const sent_t *given = heard ("zqb png", ZQB__REQUEST);
    assert_string_equal (given->service, "img.png.large");
    assert_string_equal (heard ("zqb img", ZQB__REQUEST)->service, "img.gif");
    assert_string_equal (heard ("zqb any", ZQB__REQUEST)->service, "other");
    end ();
}

TEST (the_client_hears_the_name_that_it_asked_for)
{
    begin ();
    say ("mdp worker", ready ("img.*", 1));
    say ("mdp client", request ("img.png", 0, "x"));
    say ("mdp worker", reply (is_given ("mdp worker", "x"), "done"));
    assert_string_equal (heard ("mdp client", ZQB__REPLY)->service, "img.png");
    assert_string_equal (world.outcome_service, "img.png");
    end ();
}

static void only_one_may_wait (zqb__limits_t *limits)
{
    limits->queue = 1;
}

TEST (there_is_room_for_a_name_if_there_is_at_the_pattern_that_serves_it)
{
    begin_with_option (only_one_may_wait);
    say ("mdp worker", ready ("img.*", 0));
    say ("lru client", request ("img.png", 0, "x"));
    is_given ("mdp worker", "x");
    assert_true (zqb__engine_has_room (&world.engine, "img.gif", 7));
    say ("lru client", request ("img.png", 0, "y"));
    assert_false (zqb__engine_has_room (&world.engine, "img.gif", 7));
    assert_true (zqb__engine_has_room (&world.engine, "other", 5));
    end ();
}

TEST (what_waits_for_a_name_goes_to_the_first_worker_with_a_pattern_for_it)
{
    begin ();
    say ("zqb client", request ("img.png", 1, "png"));
    say ("zqb client", with_unique (request ("img.gif", 2, "gif"), "key"));
    say ("zqb other", with_unique (request ("img.gif", 2, "gif"), "key"));
    say ("zqb client", request ("other", 3, "other"));
    say ("zqb worker", ready ("img.*", 9));
    assert_string_equal (heard ("zqb worker", ZQB__REQUEST)->service, "img.png");
    const sent_t *given = heard ("zqb worker", ZQB__REQUEST);
    uint64_t token = given->id;
    assert_string_equal (given->service, "img.gif");
    nothing_is_heard ();
    say ("zqb third", with_unique (request ("img.gif", 4, "gif"), "key")); /* still the same key and service */
    say ("zqb worker", reply (token, "done"));
    hears ("zqb client", ZQB__REPLY, "done");
    assert_string_equal (heard ("zqb other", ZQB__REPLY)->service, "img.gif");
    hears ("zqb third", ZQB__REPLY, "done");
    end ();
}

TEST (what_waits_for_a_name_goes_to_the_first_handler_with_a_pattern_for_it)
{
    begin ();
    say ("zqb client", request ("img.png", 1, "png"));
    say ("mdp client", request ("img.gif", 0, "gif"));
    say ("zqb client", request ("other", 3, "other"));
    assert_ok (zqb__engine_handle (&world.engine, "img.*", (zqb_handler_fn *) 1, NULL));
    hears ("zqb client", ZQB__REPLY, "png");
    hears ("mdp client", ZQB__REPLY, "gif");
    nothing_is_heard ();
    end ();
}

TEST (when_the_last_worker_of_a_name_is_gone_a_pattern_takes_over)
{
    begin ();
    say ("zqb any", ready ("img.*", 9));
    say ("zqb exact", ready ("img.png", 1));
    say ("zqb client", request ("img.png", 1, "held"));
    say ("zqb client", request ("img.png", 2, "waits"));
    is_given ("zqb exact", "held");
    nothing_is_heard ();
    say ("zqb exact", disconnect ());
    is_given ("zqb any", "held");
    is_given ("zqb any", "waits");
    assert_int_equal (stats ()->services, 1);
    end ();
}

TEST (what_moves_to_a_pattern_is_joined_there_unless_another_with_its_key_is)
{
    begin ();
    say ("zqb any", ready ("img.*", 1));
    say ("zqb one", with_unique (request ("img.png", 1, "first"), "k"));
    uint64_t first = is_given ("zqb any", "first");
    say ("zqb exact", ready ("img.png", 1));
    say ("zqb other", request ("img.png", 1, "held"));
    uint64_t held = is_given ("zqb exact", "held");
    say ("zqb two", with_unique (request ("img.png", 1, "second"), "k"));
    assert_int_equal (stats ()->following, 0); /* the first is of the pattern */
    say ("zqb exact", reply (held, "done"));
    heard ("zqb other", ZQB__REPLY);
    is_given ("zqb exact", "second");
    say ("zqb exact", disconnect ()); /* it moves to the pattern */
    say ("zqb three", with_unique (request ("img.png", 1, "third"), "k"));
    assert_int_equal (stats ()->following, 1);
    say ("zqb any", reply (first, "done"));
    heard ("zqb one", ZQB__REPLY);
    heard ("zqb three", ZQB__REPLY);
    is_given ("zqb any", "second");
    end ();
}

TEST (without_memory_those_who_have_joined_what_moves_end)
{
    int ended = 0;
    for (long left = 0; !ended; left++) {
        begin ();
        say ("zqb one", with_unique (request ("img.png", 1, "x"), "k"));
        say ("zqb two", with_unique (request ("img.png", 1, "x"), "k"));
        assert_int_equal (stats ()->following, 1);
        unit_memory_fail (left, 1);
        say ("zqb any", ready ("img.*", 1));
        assert_true (unit_memory_failures () == 1); /* or it is not to be had that way */
        unit_memory_recover ();
        ended = count_heard ("zqb two", ZQB__ERROR);
        assert_int_equal (stats ()->failed, ended);
        assert_int_equal (stats ()->following, 1 - ended);
        whatever_is_heard ();
        end ();
    }
}

TEST (a_delayed_one_goes_to_a_pattern_if_its_own_service_has_no_worker_when_its_time_comes)
{
    begin ();
    say ("zqb own", ready ("img.png", 1));
    say ("zqb worker", ready ("img.*", 9));
    say ("zqb client", with_flags (with_delay (request ("img.png", 1, "hasty"), 100), ZQB__FAIL_FAST));
    say ("zqb client", with_delay (request ("img.png", 2, "patient"), 100));
    say ("zqb own", disconnect ());
    nothing_is_heard ();
    at_ms (100);
    is_given ("zqb worker", "hasty");
    is_given ("zqb worker", "patient");
    end ();
}

TEST (patterns_do_not_stand_for_the_brokers_own_services)
{
    begin ();
    world.engine.mmi.handler = (zqb_handler_fn *) 1;
    say ("zqb any", ready ("*", 9));
    say ("zqb client", request ("mmi.service", 1, "x"));
    hears ("zqb client", ZQB__REPLY, "x");
    assert_int_equal (world.handled, 1);
    end ();
}

/* ---- policies */

static void set_policy (int policy)
{
    assert_ok (zqb__engine_policy (&world.engine, "echo", policy, NULL, NULL));
}

/* A request goes to this worker, which answers if it is to. */
static uint64_t goes_to (const char *worker, int is_answered)
{
    static uint64_t id;
    say ("zqb client", request ("echo", ++id, "x"));
    uint64_t token = is_given (worker, "x");
    if (is_answered)
        answers (worker, token, "zqb client", id);
    return token;
}

static void three_workers (uint32_t credit)
{
    say ("zqb a", ready ("echo", credit));
    say ("zqb b", ready ("echo", credit));
    say ("zqb c", ready ("echo", credit));
}

TEST (lru_is_the_one_that_has_waited_longest)
{
    begin ();
    three_workers (1);
    goes_to ("zqb a", 1);
    goes_to ("zqb b", 1);
    goes_to ("zqb c", 1);
    goes_to ("zqb a", 1);
    end ();
}

TEST (mru_is_the_one_that_was_at_work_last)
{
    begin ();
    set_policy (ZQB_POLICY_MRU);
    three_workers (1);
    goes_to ("zqb c", 1);
    goes_to ("zqb c", 1);
    goes_to ("zqb c", 0);
    goes_to ("zqb b", 1);
    goes_to ("zqb b", 1);
    end ();
}

TEST (least_is_the_one_that_holds_the_smallest_share_of_its_credit)
{
    begin ();
    set_policy (ZQB_POLICY_LEAST);
    say ("zqb small", ready ("echo", 2));
    say ("zqb large", ready ("echo", 8));
    goes_to ("zqb small", 0); /* half of its credit */
    goes_to ("zqb large", 0);
    goes_to ("zqb large", 0);
    goes_to ("zqb large", 0);
    goes_to ("zqb large", 0); /* now half of its own */
    goes_to ("zqb small", 0);
    goes_to ("zqb large", 0);
    end ();
}

TEST (round_robin_is_one_after_the_other_whatever_they_hold)
{
    begin ();
    set_policy (ZQB_POLICY_ROUND_ROBIN);
    three_workers (9);
    for (int i = 0; i < 3; i++) {
        goes_to ("zqb a", i == 0);
        goes_to ("zqb b", 1);
        goes_to ("zqb c", i == 1);
    }
    end ();
}

TEST (custom_is_what_the_host_chooses)
{
    begin ();
    set_policy (ZQB_POLICY_CUSTOM);
    three_workers (1);
    world.choice = 2;
    goes_to ("zqb c", 0);
    assert_int_equal (world.choices, 3);
    world.choice = 1;
    goes_to ("zqb b", 0);
    assert_int_equal (world.choices, 2);
    world.choice = 77; /* out of range */
    goes_to ("zqb a", 0);
    end ();
}

TEST (a_policy_may_change_while_workers_wait)
{
    begin ();
    three_workers (1);
    set_policy (ZQB_POLICY_MRU);
    goes_to ("zqb c", 1);
    set_policy (ZQB_POLICY_LRU);
    goes_to ("zqb a", 1);
    goes_to ("zqb b", 1);
    end ();
}

/* ---- filters and outcomes */

static int filter_by_body (zqb__command_t *request, zqb__rare_t *wishes, zqb__command_t *refusal)
{
    char body[64];
    read_body (body, sizeof body, &request->body);
    refusal->text = "not that";
    refusal->text_size = 8;
    if (strcmp (body, "urgent") == 0)
        wishes->priority = 4;
    if (strcmp (body, "short") == 0)
        wishes->deadline_ms = 50;
    return strcmp (body, "bad") == 0;
}

TEST (a_host_may_refuse_a_request_and_change_its_priority_and_deadline)
{
    begin ();
    world.engine.sink.filter = sink_filter;
    zqb__engine_guard (&world.engine);
    world.filter = filter_by_body;
    say ("zqb client", request ("echo", 1, "bad"));
    const sent_t *told = heard ("zqb client", ZQB__ERROR);
    assert_int_equal (told->status + ZQB_ERRNO, ZQB_EREFUSED);
    assert_string_equal (told->text, "not that");
    assert_int_equal (stats ()->refused_filter, 1);
    say ("mdp client", request ("echo", 0, "bad"));
    nothing_is_heard ();
    say ("mdp client", request ("echo", 0, "normal"));
    say ("mdp client", request ("echo", 0, "short"));
    say ("mdp other", request ("echo", 0, "urgent"));
    at_ms (50);
    assert_int_equal (stats ()->expired, 1);
    say ("zqb worker", ready ("echo", 9));
    is_given ("zqb worker", "urgent");
    is_given ("zqb worker", "normal");
    nothing_is_heard ();
    end ();
}

TEST (a_host_sees_what_became_of_each_request)
{
    begin ();
    say ("zqb worker", ready ("echo", 9));
    say ("zqb client", request ("echo", 1, "x"));
    world.engine.now += 1500;
    answers ("zqb worker", is_given ("zqb worker", "x"), "zqb client", 1);
    assert_int_equal (world.outcome_count, 1);
    assert_string_equal (world.outcome_service, "echo");
    assert_int_equal (world.outcomes[0].error, 0);
    assert_int_equal (world.outcomes[0].attempts, 1);
    assert_int_equal (world.outcomes[0].took_us, 1500);
    say ("zqb client", request ("echo", 2, "y"));
    say ("zqb worker", failure (is_given ("zqb worker", "y"), "no"));
    assert_int_equal (last_outcome (), ZQB_EFAILED);
    end ();
}

TEST (the_name_that_a_host_sees_ends_where_it_should_when_a_handler_serves_it)
{
    begin ();
    assert_ok (zqb__engine_handle (&world.engine, "echo", (zqb_handler_fn *) 1, NULL));
    zqb__command_t command = request ("echo and what else the message has", 1, "x");
    command.service_size = 4;
    say ("zqb client", command);
    hears ("zqb client", ZQB__REPLY, "x");
    assert_string_equal (world.outcome_service, "echo");
    end ();
}

/* ---- rests */

static void set_rests (zqb__limits_t *limits)
{
    limits->rest_failures = 2;
    limits->rest = 1000000;
    limits->slow = 400000;
}

static void fails (const char *worker)
{
    uint64_t token = goes_to (worker, 0);
    say (worker, failure (token, "no"));
    heard ("zqb client", ZQB__ERROR);
}

TEST (a_worker_that_fails_repeatedly_is_rested_and_then_gets_one_request_to_see)
{
    begin_with_option (set_rests);
    say ("zqb a", ready ("echo", 4));
    fails ("zqb a");
    goes_to ("zqb a", 1); /* it is failures in a row that count */
    fails ("zqb a");
    fails ("zqb a");
    assert_int_equal (stats ()->rested, 1);
    say ("zqb client", request ("echo", 1001, "one"));
    say ("zqb client", request ("echo", 1002, "two"));
    nothing_is_heard ();
    at_ms (999);
    nothing_is_heard ();
    say ("zqb a", heartbeat ());
    at_ms (1000);
    uint64_t token = is_given ("zqb a", "one");
    whatever_is_heard ();
    say ("zqb a", reply (token, "done"));
    hears ("zqb client", ZQB__REPLY, "done");
    is_given ("zqb a", "two"); /* all is well again */
    goes_to ("zqb a", 0);
    end ();
}

TEST (one_that_fails_again_is_rested_for_longer)
{
    begin_with_option (set_rests);
    say ("zqb a", ready ("echo", 4));
    fails ("zqb a");
    fails ("zqb a");
    say ("zqb a", heartbeat ());
    at_ms (1000);
    whatever_is_heard ();
    fails ("zqb a");
    assert_int_equal (stats ()->rested, 2);
    say ("zqb client", request ("echo", 1001, "one"));
    say ("zqb a", heartbeat ());
    at_ms (2999);
    whatever_is_heard ();
    assert_int_equal (stats ()->running, 0);
    say ("zqb a", heartbeat ());
    at_ms (3000);
    is_given ("zqb a", "one");
    end ();
}

TEST (what_waits_for_a_worker_that_rests_is_the_first_that_it_gets)
{
    begin_with_option (set_rests);
    say ("zqb a", ready ("echo", 4));
    fails ("zqb a");
    fails ("zqb a");
    say ("zqb b", ready ("echo", 1));
    say ("zqb client", with_affinity (request ("echo", 1001, "of a"), "key"));
    nothing_is_heard ();
    say ("zqb client", request ("echo", 1002, "of anybody"));
    is_given ("zqb b", "of anybody");
    say ("zqb client", request ("echo", 1003, "waits"));
    nothing_is_heard ();
    say ("zqb a", heartbeat ());
    say ("zqb b", heartbeat ());
    at_ms (1000);
    assert_int_equal (stats ()->running, 2);
    while (world.sent[world.read % SENT].type == ZQB__HEARTBEAT)
        world.read++;
    uint64_t token = is_given ("zqb a", "of a");
    whatever_is_heard ();
    answers ("zqb a", token, "zqb client", 1001);
    is_given ("zqb a", "waits");
    end ();
}

TEST (slow_answers_count_as_failures_and_others_are_served_meanwhile)
{
    begin_with_option (set_rests);
    say ("zqb slow", ready ("echo", 1));
    say ("zqb quick", ready ("echo", 1));
    for (int i = 0; i < 2; i++) {
        if (i)
            goes_to ("zqb quick", 1);
        uint64_t slow = goes_to ("zqb slow", 0);
        goes_to ("zqb quick", 1);
        world.engine.now += 500000;
        say ("zqb slow", reply (slow, "done"));
        heard ("zqb client", ZQB__REPLY);
    }
    assert_int_equal (stats ()->rested, 1);
    goes_to ("zqb quick", 1);
    goes_to ("zqb quick", 1);
    end ();
}

/* ---- together */

static void many_at_once (void)
{
    say ("zqb one", with_deadline (with_unique (request ("echo", 1, "a"), "key"), 9000));
    say ("zqb two", with_priority (with_unique (request ("echo", 1, "b"), "key"), 2));
    say ("zqb one", with_backoff (with_affinity (request ("echo", 2, "c"), "k"), 5, 9));
    say ("zqb one", with_delay (with_flags (request ("echo.x", 0, "d"), ZQB__ONE_WAY), 5));
    say ("zqb two", again (request ("echo", 1, "b")));
    say ("zqb a", ready ("echo", 1));
    say ("zqb b", ready ("echo*", 1));
    say ("zqb two", request ("echo.y", 4, "e"));
    say ("zqb two", with_flags (request ("echo", 3, "who?"), ZQB__SURVEY));
    at_ms (10);
    say ("zqb one", cancel (1));
    say ("zqb a", refusal (world.count ? world.sent[(world.count - 1) % SENT].id : 0));
    say ("zqb a", disconnect ());
    world.read = world.count;
}

TEST (without_memory_at_any_allocation_what_was_asked_for_ends_and_everything_still_adds_up)
{
    long failed = 1, left = 0;
    for (; failed; left++) {
        begin ();
        unit_memory_fail (left, 1);
        many_at_once ();
        failed = unit_memory_failures ();
        unit_memory_recover ();
        end ();
    }
    assert_true (left > 30);
}

/* More and more that ask for times, so that there must be more and more timers. */
TEST (without_memory_for_its_timer_a_request_that_asks_for_times_is_refused)
{
    enum { REQUESTS = 100 };
    long left = 0;
    for (long failed = 1; failed; left++) {
        begin ();
        unit_memory_fail (left, 1);
        for (uint64_t id = 1; id <= REQUESTS; id++)
            say ("zqb one", with_deadline (request ("echo", id, "x"), 100));
        failed = unit_memory_failures ();
        unit_memory_recover ();
        assert_true (stats ()->no_memory <= 1);
        assert_true (stats ()->accepted + stats ()->no_memory >= REQUESTS - 1); /* one may not even be known */
        assert_int_equal (count_heard ("zqb one", ZQB__ERROR), stats ()->no_memory);
        at_ms (100);
        assert_int_equal (stats ()->expired, stats ()->accepted);
        assert_int_equal (count_heard ("zqb one", ZQB__ERROR), stats ()->accepted);
        end ();
    }
    assert_true (left > REQUESTS);
}

int main (void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test (the_more_urgent_request_is_served_first_and_first_come_first_served_within_a_priority),
        cmocka_unit_test (a_priority_beyond_the_range_is_the_nearest),
        cmocka_unit_test (clients_take_turns_within_a_priority),
        cmocka_unit_test (peers_of_other_dialects_have_the_normal_priority),
        cmocka_unit_test (with_ageing_a_request_rises_by_one_priority_for_each_such_time_that_it_waits),
        cmocka_unit_test (without_ageing_it_does_not_rise),
        cmocka_unit_test (what_a_lost_worker_held_comes_first_within_its_priority),
        cmocka_unit_test (a_queued_request_whose_deadline_is_over_expires_and_its_client_is_told),
        cmocka_unit_test (a_running_request_whose_deadline_is_over_is_told_to_its_client_at_once_and_to_its_worker),
        cmocka_unit_test (a_worker_sees_what_is_left_of_the_deadline),
        cmocka_unit_test (a_worker_of_another_dialect_is_told_nothing_of_a_deadline_and_its_late_reply_reaches_nobody),
        cmocka_unit_test (a_request_that_expired_while_it_ran_is_not_tried_again_when_its_worker_is_lost),
        cmocka_unit_test (an_answer_in_time_ends_the_deadline),
        cmocka_unit_test (a_request_is_not_begun_before_its_time),
        cmocka_unit_test (a_service_with_nothing_but_delayed_requests_is_not_forgotten),
        cmocka_unit_test (a_delayed_request_waits_for_a_worker_from_its_time_on),
        cmocka_unit_test (a_deadline_before_the_time_to_begin_ends_it),
        cmocka_unit_test (a_delayed_request_can_be_cancelled_and_found_by_a_retry),
        cmocka_unit_test (a_request_may_say_how_many_attempts_there_are),
        cmocka_unit_test (a_worker_that_comes_over_another_connection_may_have_been_the_client_of_what_it_held_among_many),
        cmocka_unit_test (pauses_between_attempts_double_up_to_the_most),
        cmocka_unit_test (after_its_pause_a_request_is_the_first),
        cmocka_unit_test (requests_with_the_same_key_are_executed_once_and_all_are_answered),
        cmocka_unit_test (keys_are_those_of_a_service),
        cmocka_unit_test (those_that_join_get_progress_and_parts_from_then_on_and_the_failure),
        cmocka_unit_test (when_the_first_is_cancelled_the_next_takes_its_place_and_the_work_goes_on),
        cmocka_unit_test (a_queued_one_goes_on_for_those_that_joined_it),
        cmocka_unit_test (whoever_takes_its_place_says_whether_it_waits_without_a_worker),
        cmocka_unit_test (whoever_takes_the_place_of_one_that_is_queued_ends_with_the_last_worker_if_it_does_not_wait),
        cmocka_unit_test (one_that_joined_can_be_cancelled_expire_and_retry_by_itself),
        cmocka_unit_test (the_deadline_of_the_first_is_not_that_of_the_others),
        cmocka_unit_test (who_joins_a_request_that_nobody_wants_any_more_does_not),
        cmocka_unit_test (the_most_urgent_that_joins_makes_it_as_urgent),
        cmocka_unit_test (the_first_that_may_begin_begins_for_all),
        cmocka_unit_test (all_that_joined_hear_that_every_worker_was_lost),
        cmocka_unit_test (when_its_client_is_gone_the_next_takes_its_place),
        cmocka_unit_test (a_worker_need_not_count_the_parts_for_an_heir_that_hears_none),
        cmocka_unit_test (a_one_way_request_is_executed_and_nobody_is_told),
        cmocka_unit_test (a_one_way_request_is_executed_even_if_its_client_is_gone),
        cmocka_unit_test (a_one_way_request_that_is_refused_or_dies_is_counted_and_not_told),
        cmocka_unit_test (a_one_way_request_is_not_found_by_its_number),
        cmocka_unit_test (without_memory_a_one_way_request_whose_client_is_gone_ends_with_the_others),
        cmocka_unit_test (a_request_that_would_not_wait_without_a_worker_is_refused_at_once),
        cmocka_unit_test (it_waits_for_a_busy_worker_and_ends_when_the_last_is_gone),
        cmocka_unit_test (a_delayed_one_ends_if_there_is_no_worker_when_its_time_comes),
        cmocka_unit_test (requests_with_the_same_key_go_to_the_same_worker_as_long_as_it_lives),
        cmocka_unit_test (what_waits_though_a_worker_is_idle_is_not_without_bound),
        cmocka_unit_test (keys_are_spread_over_the_workers),
        cmocka_unit_test (a_request_waits_for_the_worker_of_its_key_in_order_while_others_are_served),
        cmocka_unit_test (what_waits_for_a_worker_that_is_lost_goes_to_another_in_order),
        cmocka_unit_test (the_more_urgent_of_those_that_wait_for_a_worker_is_first),
        cmocka_unit_test (one_that_waits_for_a_worker_becomes_more_urgent_if_one_that_is_joins_it),
        cmocka_unit_test (one_that_waits_for_a_worker_goes_on_as_urgently_as_whoever_takes_its_place),
        cmocka_unit_test (what_waits_for_a_worker_can_be_cancelled_and_expire),
        cmocka_unit_test (a_worker_is_told_that_nobody_wants_its_request_any_more),
        cmocka_unit_test (a_worker_is_told_that_its_client_is_gone),
        cmocka_unit_test (a_request_that_a_worker_refuses_goes_to_another_at_once_and_that_is_no_attempt),
        cmocka_unit_test (when_all_workers_have_refused_it_the_client_is_told),
        cmocka_unit_test (it_waits_for_one_that_has_not_refused_it),
        cmocka_unit_test (a_late_answer_to_a_request_that_was_refused_reaches_nobody),
        cmocka_unit_test (a_refused_request_whose_client_wants_it_no_more_ends),
        cmocka_unit_test (a_failure_has_a_code_of_the_workers_own),
        cmocka_unit_test (progress_reaches_clients_that_have_a_word_for_it),
        cmocka_unit_test (parts_that_a_client_has_read_are_told_to_the_worker),
        cmocka_unit_test (who_has_read_more_than_there_is_does_not_flood_the_worker),
        cmocka_unit_test (parts_that_a_client_has_read_are_as_good_as_not_said_if_there_is_no_memory_to_find_the_request),
        cmocka_unit_test (a_survey_asks_every_worker_and_gathers_the_answers),
        cmocka_unit_test (a_busy_worker_is_asked_when_it_has_room),
        cmocka_unit_test (workers_that_fail_refuse_or_are_lost_do_not_answer_a_survey),
        cmocka_unit_test (a_survey_ends_at_its_deadline_with_what_there_is),
        cmocka_unit_test (a_survey_that_is_cancelled_is_cancelled_everywhere),
        cmocka_unit_test (a_survey_of_nobody_is_refused),
        cmocka_unit_test (a_survey_of_too_many_is_refused),
        cmocka_unit_test (a_survey_of_more_than_there_may_be_requests_is_refused),
        cmocka_unit_test (a_handler_answers_a_survey_alone),
        cmocka_unit_test (a_client_that_cannot_be_told_what_a_handler_answers_to_its_survey_is_gone),
        cmocka_unit_test (a_worker_that_wants_to_leave_gets_no_more_and_loses_nothing),
        cmocka_unit_test (a_host_drains_one_worker_or_all_of_a_service),
        cmocka_unit_test (what_waits_for_a_worker_that_is_drained_goes_to_another),
        cmocka_unit_test (who_is_not_registered_cannot_be_drained),
        cmocka_unit_test (an_exact_name_wins_and_then_the_longest_pattern),
        cmocka_unit_test (the_client_hears_the_name_that_it_asked_for),
        cmocka_unit_test (there_is_room_for_a_name_if_there_is_at_the_pattern_that_serves_it),
        cmocka_unit_test (what_waits_for_a_name_goes_to_the_first_worker_with_a_pattern_for_it),
        cmocka_unit_test (what_waits_for_a_name_goes_to_the_first_handler_with_a_pattern_for_it),
        cmocka_unit_test (when_the_last_worker_of_a_name_is_gone_a_pattern_takes_over),
        cmocka_unit_test (what_moves_to_a_pattern_is_joined_there_unless_another_with_its_key_is),
        cmocka_unit_test (without_memory_those_who_have_joined_what_moves_end),
        cmocka_unit_test (a_delayed_one_goes_to_a_pattern_if_its_own_service_has_no_worker_when_its_time_comes),
        cmocka_unit_test (patterns_do_not_stand_for_the_brokers_own_services),
        cmocka_unit_test (lru_is_the_one_that_has_waited_longest),
        cmocka_unit_test (mru_is_the_one_that_was_at_work_last),
        cmocka_unit_test (least_is_the_one_that_holds_the_smallest_share_of_its_credit),
        cmocka_unit_test (round_robin_is_one_after_the_other_whatever_they_hold),
        cmocka_unit_test (custom_is_what_the_host_chooses),
        cmocka_unit_test (a_policy_may_change_while_workers_wait),
        cmocka_unit_test (a_host_may_refuse_a_request_and_change_its_priority_and_deadline),
        cmocka_unit_test (a_host_sees_what_became_of_each_request),
        cmocka_unit_test (the_name_that_a_host_sees_ends_where_it_should_when_a_handler_serves_it),
        cmocka_unit_test (a_worker_that_fails_repeatedly_is_rested_and_then_gets_one_request_to_see),
        cmocka_unit_test (one_that_fails_again_is_rested_for_longer),
        cmocka_unit_test (what_waits_for_a_worker_that_rests_is_the_first_that_it_gets),
        cmocka_unit_test (slow_answers_count_as_failures_and_others_are_served_meanwhile),
        cmocka_unit_test (without_memory_at_any_allocation_what_was_asked_for_ends_and_everything_still_adds_up),
        cmocka_unit_test (without_memory_for_its_timer_a_request_that_asks_for_times_is_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
