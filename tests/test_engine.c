/* The state machine: its promises (design, 4) and what went wrong in others (lessons.md), in the world of
   unit_engine.h. What requests may ask for is in test_options.c. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"
#include "unit_engine.h"

/* ---- who gets what */

TEST (a_request_goes_to_a_worker_and_its_reply_to_the_client)
{
    static const char *const workers[] = {"zqb worker", "mdp worker", "two worker", "lru worker", "ppp worker"};
    static const char *const clients[] = {"zqb client", "mdp client", "two client", "lru client"};
    for (size_t w = 0; w < COUNT (workers); w++)
        for (size_t c = 0; c < COUNT (clients); c++) {
            begin ();
            say (workers[w], ready ("echo", 0));
            say (clients[c], request ("echo", 7, "hello"));
            uint64_t token = hears (workers[w], ZQB__REQUEST, "hello");
            say (workers[w], reply (token, "world"));
            assert_true (hears (clients[c], ZQB__REPLY, "world") == 7);
            nothing_is_heard ();
            assert_int_equal (stats ()->accepted, 1);
            assert_int_equal (stats ()->replied, 1);
            end ();
        }
}

TEST (a_request_that_comes_before_any_worker_waits_for_one)
{
    begin ();
    say ("mdp client", request ("echo", 0, "hello"));
    nothing_is_heard ();
    assert_int_equal (stats ()->queued, 1);
    say ("mdp worker", ready ("echo", 0));
    hears ("mdp worker", ZQB__REQUEST, "hello");
    end ();
}

TEST (requests_are_served_in_the_order_in_which_they_came)
{
    static const char *const bodies[] = {"a", "b", "c", "d", "e"};
    begin ();
    for (size_t i = 0; i < 5; i++)
        say (i % 2 ? "zqb one" : "mdp other", request ("echo", i, bodies[i]));
    say ("mdp worker", ready ("echo", 0));
    for (size_t i = 0; i < 5; i++) {
        uint64_t token = hears ("mdp worker", ZQB__REQUEST, bodies[i]);
        say ("mdp worker", reply (token, bodies[i]));
        hears (i % 2 ? "zqb one" : "mdp other", ZQB__REPLY, bodies[i]);
    }
    end ();
}

/* The next request that a worker gets, whatever clients hear. */
static uint64_t hears_next (const char *worker, const char *body)
{
    while (world.read < world.count && world.sent[world.read % SENT].side == ZQB__CLIENT)
        world.read++;
    return hears (worker, ZQB__REQUEST, body);
}

/* A worker takes them all, one after the other, in this order. */
static void served_in_order (const char *worker, const char *const *bodies, size_t count)
{
    for (size_t i = 0; i < count; i++)
        say (worker, reply (hears_next (worker, bodies[i]), "done"));
    assert_int_equal (stats ()->queued, 0);
}

TEST (a_greedy_client_does_not_make_others_wait_behind_all_that_it_sent)
{
    begin ();
    for (uint64_t i = 0; i < 1000; i++)
        say ("zqb greedy", request ("echo", i, "greedy"));
    say ("mdp modest", request ("echo", 0, "modest"));
    say ("mdp worker", ready ("echo", 0));
    say ("mdp worker", reply (hears ("mdp worker", ZQB__REQUEST, "greedy"), "done"));
    heard ("zqb greedy", ZQB__REPLY);
    say ("mdp worker", reply (hears ("mdp worker", ZQB__REQUEST, "modest"), "done"));
    heard ("mdp modest", ZQB__REPLY);
    hears ("mdp worker", ZQB__REQUEST, "greedy");
    end ();
}

TEST (clients_take_turns_and_each_is_served_in_its_own_order)
{
    static const char *const order[] = {"a1", "b1", "c1", "a2", "b2", "a3"};
    begin ();
    say ("zqb a", request ("echo", 1, "a1"));
    say ("zqb a", request ("echo", 2, "a2"));
    say ("zqb a", request ("echo", 3, "a3"));
    say ("mdp b", request ("echo", 0, "b1"));
    say ("mdp b", request ("echo", 0, "b2"));
    say ("lru c", request ("echo", 0, "c1"));
    say ("lru worker", ready ("echo", 0));
    served_in_order ("lru worker", order, COUNT (order));
    end ();
}

TEST (a_client_has_turns_of_its_own_at_each_service)
{
    static const char *const of_echo[] = {"a1", "b1", "a2"}, *const of_sum[] = {"b2", "a3", "b3"};
    begin ();
    say ("zqb a", request ("echo", 1, "a1"));
    say ("zqb b", request ("sum", 2, "b2"));
    say ("zqb a", request ("echo", 3, "a2"));
    say ("zqb b", request ("echo", 4, "b1"));
    say ("zqb b", request ("sum", 5, "b3"));
    say ("zqb a", request ("sum", 6, "a3"));
    say ("mdp worker", ready ("echo", 0));
    for (size_t i = 0; i < 3; i++)
        say ("mdp worker", reply (hears_next ("mdp worker", of_echo[i]), "done"));
    say ("mdp worker", ready ("sum", 0));
    served_in_order ("mdp worker", of_sum, COUNT (of_sum));
    end ();
}

TEST (a_cancelled_request_costs_its_client_no_turn_and_changes_no_order)
{
    static const char *const order[] = {"a1", "b1", "a3", "b2"};
    begin ();
    for (uint64_t i = 1; i <= 3; i++)
        say ("zqb a", request ("echo", i, i == 1 ? "a1" : i == 2 ? "a2" : "a3"));
    say ("zqb b", request ("echo", 1, "b1"));
    say ("zqb b", request ("echo", 2, "b2"));
    say ("zqb a", cancel (2));
    say ("mdp worker", ready ("echo", 0));
    served_in_order ("mdp worker", order, COUNT (order));
    end ();
}

TEST (what_a_lost_worker_held_has_the_next_turns_in_the_order_in_which_it_got_them)
{
    static const char *const order[] = {"a1", "b1", "a2", "b2", "a3"};
    begin ();
    for (uint64_t i = 1; i <= 3; i++)
        say ("zqb a", request ("echo", i, i == 1 ? "a1" : i == 2 ? "a2" : "a3"));
    for (uint64_t i = 1; i <= 2; i++)
        say ("zqb b", request ("echo", i, i == 1 ? "b1" : "b2"));
    come_over ("zqb worker", 11);
    say ("zqb worker", ready ("echo", 3));
    whatever_is_heard ();
    connection_ends (11);
    say ("mdp worker", ready ("echo", 0));
    served_in_order ("mdp worker", order, COUNT (order));
    end ();
}

TEST (the_worker_that_has_waited_longest_is_served_first)
{
    begin ();
    say ("mdp a", ready ("echo", 0));
    say ("ppp b", ready ("echo", 0));
    say ("zqb c", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "1"));
    uint64_t first = hears ("mdp a", ZQB__REQUEST, "1");
    say ("mdp a", reply (first, "1"));
    hears ("zqb client", ZQB__REPLY, "1");
    say ("zqb client", request ("echo", 2, "2"));
    hears ("ppp b", ZQB__REQUEST, "2");
    say ("zqb client", request ("echo", 3, "3"));
    hears ("zqb c", ZQB__REQUEST, "3");
    say ("zqb client", request ("echo", 4, "4"));
    hears ("mdp a", ZQB__REQUEST, "4");
    end ();
}

TEST (a_heartbeat_does_not_change_whose_turn_it_is)
{
    begin ();
    say ("mdp a", ready ("echo", 0));
    say ("mdp b", ready ("echo", 0));
    say ("mdp a", heartbeat ());
    say ("mdp client", request ("echo", 0, "x"));
    hears ("mdp a", ZQB__REQUEST, "x");
    end ();
}

TEST (a_worker_never_holds_more_than_its_credit)
{
    begin ();
    say ("zqb worker", ready ("echo", 3));
    for (uint64_t i = 1; i <= 10; i++)
        say ("zqb client", request ("echo", i, "x"));
    assert_int_equal (stats ()->running, 3);
    uint64_t token = hears ("zqb worker", ZQB__REQUEST, "x");
    whatever_is_heard ();
    say ("zqb worker", reply (token, "y"));
    assert_int_equal (stats ()->running, 3);
    assert_int_equal (stats ()->queued, 6);
    end ();
}

TEST (credit_is_a_word_of_zqb1_only)
{
    static const char *const workers[] = {"mdp w", "two w", "lru w", "ppp w"};
    for (size_t i = 0; i < COUNT (workers); i++) {
        begin ();
        say (workers[i], ready ("echo", 50));
        for (int n = 0; n < 3; n++)
            say ("mdp client", request ("echo", 0, "x"));
        assert_int_equal (stats ()->running, 1);
        end ();
    }
}

/* A worker of ZQB/1 that leaves its credit to the broker does thousands, and takes so long for each. How many it holds in
   the end. */
static uint64_t held_by_a_worker_that_takes (uint64_t microseconds)
{
    begin ();
    say ("zqb worker", ready ("echo", 0));
    for (uint64_t i = 1; i <= 10000; i++)
        say ("zqb client", request ("echo", i, "x"));
    assert_int_equal (stats ()->running, 1);
    for (int i = 0; i < 8000; i++) {
        world.engine.now += microseconds;
        zqb__request_t *held = ZQB__OF (zqb__request_t, place, peer_named ("zqb worker")->worker->hand.next);
        say ("zqb worker", reply (zqb__slot_token (&held->slot), "y"));
    }
    uint64_t held = stats ()->running;
    end ();
    return held;
}

TEST (a_worker_that_leaves_its_credit_to_the_broker_holds_a_millisecond_of_its_work)
{
    assert_int_equal (held_by_a_worker_that_takes (20000), 1);
    assert_int_equal (held_by_a_worker_that_takes (1000), 1);
    assert_int_equal (held_by_a_worker_that_takes (200), 5);
    assert_int_equal (held_by_a_worker_that_takes (100), 10);
    assert_int_equal (held_by_a_worker_that_takes (1), ZQB__CREDIT_MOST);
}

TEST (a_worker_that_becomes_slow_gets_no_more_than_it_can_do_in_a_millisecond)
{
    begin ();
    say ("zqb worker", ready ("echo", 0));
    for (uint64_t i = 1; i <= 10000; i++)
        say ("zqb client", request ("echo", i, "x"));
    zqb__worker_t *worker = peer_named ("zqb worker")->worker;
    for (int i = 0; i < 8000 + 1000; i++) {
        world.engine.now += i < 8000 ? 1 : 10000;
        zqb__request_t *held = ZQB__OF (zqb__request_t, place, worker->hand.next);
        say ("zqb worker", reply (zqb__slot_token (&held->slot), "y"));
        assert_true (i < 8000 + 3 || worker->credit == 1);
    }
    assert_int_equal (worker->load, 1);
    end ();
}

TEST (large_requests_fill_a_hand_before_its_credit_does)
{
    static unsigned char block[4 + ZQB__HAND_BYTES / 2];
    begin ();
    say ("zqb worker", ready ("echo", 1000));
    zqb__put_32 (block, sizeof block - 4);
    for (uint64_t id = 1; id <= 5; id++) {
        zqb__command_t command = named (zqb__command (ZQB__REQUEST, id), "echo");
        command.body.block = block;
        command.body.size = sizeof block;
        assert_ok (zqb__body_measure (&command.body));
        say ("zqb client", command);
    }
    assert_int_equal (stats ()->running, 2);
    assert_int_equal (stats ()->queued, 3);
    end ();
}

TEST (the_least_loaded_worker_is_served_first)
{
    begin ();
    say ("zqb big", ready ("echo", 100));
    say ("zqb small", ready ("echo", 2));
    for (uint64_t i = 0; i < 4; i++)
        say ("zqb client", request ("echo", i, "x"));
    assert_int_equal (count_heard ("zqb big", ZQB__REQUEST), 2);
    say ("zqb late", ready ("echo", 100));
    for (uint64_t i = 4; i < 6; i++)
        say ("zqb client", request ("echo", i, "x"));
    assert_int_equal (count_heard ("zqb late", ZQB__REQUEST), 2);
    end ();
}

TEST (workers_with_great_loads_are_still_told_apart)
{
    begin ();
    say ("zqb busy", ready ("echo", 65535));
    for (uint64_t i = 0; i < 3000; i++)
        say ("zqb client", request ("echo", i, "x"));
    whatever_is_heard ();
    say ("zqb fresh", ready ("echo", 65535));
    for (uint64_t i = 3000; i < 3100; i++)
        say ("zqb client", request ("echo", i, "x"));
    assert_int_equal (count_heard ("zqb fresh", ZQB__REQUEST), 100);
    end ();
}

TEST (services_do_not_wait_for_each_other)
{
    begin ();
    say ("mdp client", request ("slow", 0, "1"));
    say ("mdp client", request ("fast", 0, "2"));
    say ("mdp worker", ready ("fast", 0));
    hears ("mdp worker", ZQB__REQUEST, "2");
    nothing_is_heard ();
    end ();
}

TEST (replies_may_come_in_any_order)
{
    uint64_t tokens[3];
    begin ();
    say ("zqb worker", ready ("echo", 3));
    for (uint64_t i = 0; i < 3; i++) {
        say ("zqb client", request ("echo", i + 1, "x"));
        tokens[i] = hears ("zqb worker", ZQB__REQUEST, "x");
    }
    for (uint64_t i = 3; i-- > 0;) {
        say ("zqb worker", reply (tokens[i], "y"));
        assert_true (hears ("zqb client", ZQB__REPLY, "y") == i + 1);
    }
    end ();
}

TEST (a_failure_that_a_worker_reports_is_final_and_told)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 5, "x"));
    say ("zqb worker", failure (hears ("zqb worker", ZQB__REQUEST, "x"), "no disk"));
    const sent_t *sent = heard ("zqb client", ZQB__ERROR);
    assert_true (sent->id == 5);
    assert_int_equal (sent->status + ZQB_ERRNO, ZQB_EFAILED);
    assert_string_equal (sent->text, "no disk");
    assert_int_equal (stats ()->failed, 1);
    nothing_is_heard ();
    end ();
}

TEST (a_client_whose_dialect_has_no_word_for_errors_hears_nothing)
{
    static const char *const clients[] = {"mdp client", "two client", "lru client"};
    for (size_t i = 0; i < COUNT (clients); i++) {
        begin ();
        say ("zqb worker", ready ("echo", 1));
        say (clients[i], request ("echo", 0, "x"));
        say ("zqb worker", failure (hears ("zqb worker", ZQB__REQUEST, "x"), "no"));
        nothing_is_heard ();
        assert_int_equal (stats ()->failed, 1);
        end ();
    }
}

/* ---- lost workers: lesson 6 */

/* A worker of ZQB/1 holds "a", "b" and "c"; "d" waits. */
static void three_held_one_queued (void)
{
    static const char *const bodies[] = {"a", "b", "c", "d"};
    begin ();
    say ("zqb worker", ready ("echo", 3));
    come_over ("zqb worker", 11);
    for (uint64_t i = 0; i < 4; i++)
        say ("zqb client", request ("echo", i + 1, bodies[i]));
    whatever_is_heard ();
}

/* They are all served, first the three, by somebody else. */
static void all_four_are_served_in_order (void)
{
    static const char *const bodies[] = {"a", "b", "c", "d"};
    assert_int_equal (stats ()->requeued, 3);
    assert_int_equal (stats ()->queued, 4);
    say ("mdp other", ready ("echo", 0));
    for (uint64_t i = 0; i < 4; i++) {
        say ("mdp other", reply (hears ("mdp other", ZQB__REQUEST, bodies[i]), bodies[i]));
        assert_true (hears ("zqb client", ZQB__REPLY, bodies[i]) == i + 1);
    }
    assert_int_equal (stats ()->replied, 4);
    end ();
}

TEST (a_worker_that_disconnects_gives_its_requests_to_the_head_of_the_queue)
{
    three_held_one_queued ();
    say ("zqb worker", disconnect ());
    assert_int_equal (stats ()->workers_left, 1);
    assert_int_equal (stats ()->workers_lost, 0);
    nothing_is_heard ();
    all_four_are_served_in_order ();
}

TEST (a_worker_whose_connection_is_gone_gives_its_requests_to_the_head_of_the_queue)
{
    three_held_one_queued ();
    connection_ends (11);
    assert_int_equal (stats ()->workers_lost, 1);
    all_four_are_served_in_order ();
}

TEST (a_worker_that_sends_nonsense_gives_its_requests_to_the_head_of_the_queue)
{
    three_held_one_queued ();
    malformed ("zqb worker", ZQB__WORKER);
    const sent_t *sent = heard ("zqb worker", ZQB__DISCONNECT);
    assert_int_equal (sent->status + ZQB_ERRNO, ZQB_EMALFORMED);
    assert_int_equal (stats ()->workers_lost, 1);
    all_four_are_served_in_order ();
}

TEST (a_worker_that_cannot_be_sent_to_gives_its_requests_to_the_head_of_the_queue)
{
    three_held_one_queued ();
    world.gone = "zqb worker,";
    at_ms (BEAT_MS);
    assert_int_equal (stats ()->unsendable, 1);
    assert_int_equal (stats ()->workers_lost, 1);
    world.gone = NULL;
    all_four_are_served_in_order ();
}

TEST (a_worker_whose_packed_messages_were_not_sent_gives_its_requests_to_the_head_of_the_queue)
{
    three_held_one_queued ();
    zqb__peer_t *peer = peer_named ("zqb worker");
    zqb__engine_lost (&world.engine, peer);
    assert_int_equal (stats ()->workers_lost, 1);
    all_four_are_served_in_order ();
}

TEST (a_second_ready_starts_anew_and_what_the_worker_held_is_given_again_in_order)
{
    three_held_one_queued ();
    say ("zqb worker", ready ("echo", 2));
    assert_int_equal (worker_count (), 1);
    hears ("zqb worker", ZQB__REQUEST, "a");
    hears ("zqb worker", ZQB__REQUEST, "b");
    nothing_is_heard ();
    assert_int_equal (stats ()->requeued, 3);
    end ();
}

TEST (a_second_ready_for_another_service_leaves_the_first)
{
    begin ();
    say ("mdp worker", ready ("one", 0));
    say ("mdp client", request ("one", 0, "x"));
    whatever_is_heard ();
    say ("mdp worker", ready ("two", 0));
    assert_int_equal (worker_count (), 1);
    assert_int_equal (stats ()->queued, 1);
    say ("mdp client", request ("two", 0, "y"));
    hears ("mdp worker", ZQB__REQUEST, "y");
    end ();
}

TEST (what_a_lost_worker_held_goes_at_once_to_one_that_is_free)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request ("echo", 0, "x"));
    say ("mdp other", ready ("echo", 0));
    whatever_is_heard ();
    say ("mdp worker", disconnect ());
    hears ("mdp other", ZQB__REQUEST, "x");
    end ();
}

TEST (a_worker_that_cannot_be_reached_when_given_a_request_is_lost_and_the_next_gets_it)
{
    static const int errors[] = {EHOSTUNREACH, EAGAIN};
    for (size_t i = 0; i < COUNT (errors); i++) {
        begin ();
        say ("mdp worker", ready ("echo", 0));
        say ("mdp other", ready ("echo", 0));
        world.gone = "mdp worker,";
        world.gone_errno = errors[i];
        say ("zqb client", request ("echo", 1, "x"));
        hears ("mdp other", ZQB__REQUEST, "x");
        assert_int_equal (worker_count (), 1);
        assert_int_equal (stats ()->unsendable, 1);
        assert_int_equal (stats ()->workers_lost, 1);
        end ();
    }
}

TEST (a_request_that_never_reached_a_worker_was_not_an_attempt)
{
    zqb__limits_t limits = usual_limits ();
    limits.attempts = 1;
    assert_ok (begin_with (&limits));
    say ("mdp a", ready ("echo", 0));
    say ("mdp b", ready ("echo", 0));
    world.gone = "mdp a,mdp b,";
    say ("zqb client", request ("echo", 1, "x"));
    nothing_is_heard ();
    assert_int_equal (stats ()->queued, 1);
    world.gone = NULL;
    say ("mdp c", ready ("echo", 0));
    hears ("mdp c", ZQB__REQUEST, "x");
    end ();
}

TEST (a_thousand_unreachable_workers_are_lost_over_one_request)
{
    begin ();
    char gone[20000] = "";
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf (name, sizeof name, "mdp %d", i);
        strcat (strcat (gone, name), ",");
        zqb__peer_t *peer = peer_named (name);
        zqb__command_t command = ready ("echo", 0);
        zqb__engine_receive (&world.engine, peer, &command);
    }
    world.gone = gone;
    say ("zqb client", request ("echo", 1, "x"));
    assert_int_equal (worker_count (), 0);
    assert_int_equal (stats ()->queued, 1);
    end ();
}

TEST (a_request_over_which_too_many_workers_were_lost_is_dead_and_its_client_told)
{
    begin ();
    say ("zqb client", request ("echo", 9, "poison"));
    for (int i = 0; i < 3; i++) {
        say ("mdp worker", ready ("echo", 0));
        hears ("mdp worker", ZQB__REQUEST, "poison");
        nothing_is_heard ();
        assert_int_equal (world.dead, 0);
        say ("mdp worker", disconnect ());
    }
    hears_error ("zqb client", 9, ZQB_ELOST);
    assert_int_equal (stats ()->dead, 1);
    assert_int_equal (world.dead, 1);
    assert_string_equal (world.letter, "poison");
    assert_int_equal (stats ()->requeued, 2);
    end ();
}

TEST (a_worker_that_cannot_be_told_that_a_request_of_its_own_is_dead_does_not_register_again)
{
    zqb__limits_t limits = usual_limits ();
    limits.attempts = 1;
    assert_ok (begin_with (&limits));
    say ("zqb both", ready ("echo", 1));
    say ("zqb both", request ("echo", 9, "x"));
    hears ("zqb both", ZQB__REQUEST, "x");
    world.gone = "zqb both,";
    say ("zqb both", ready ("echo", 1));
    assert_int_equal (worker_count (), 0);
    assert_int_equal (stats ()->unsendable, 1);
    assert_int_equal (stats ()->client_gone, 1);
    world.gone = NULL;
    say ("zqb both", ready ("echo", 1));
    assert_int_equal (worker_count (), 1);
    nothing_is_heard ();
    end ();
}

TEST (with_one_attempt_a_request_is_executed_at_most_once)
{
    zqb__limits_t limits = usual_limits ();
    limits.attempts = 1;
    assert_ok (begin_with (&limits));
    say ("mdp worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 9, "x"));
    whatever_is_heard ();
    say ("mdp other", ready ("echo", 0));
    say ("mdp worker", disconnect ());
    hears_error ("zqb client", 9, ZQB_ELOST);
    nothing_is_heard ();
    end ();
}

TEST (without_a_limit_of_attempts_a_request_goes_on)
{
    zqb__limits_t limits = usual_limits ();
    limits.attempts = INT_MAX;
    assert_ok (begin_with (&limits));
    say ("zqb client", request ("echo", 9, "x"));
    for (int i = 0; i < 100; i++) {
        say ("mdp worker", ready ("echo", 0));
        hears ("mdp worker", ZQB__REQUEST, "x");
        say ("mdp worker", disconnect ());
    }
    assert_int_equal (stats ()->queued, 1);
    end ();
}

TEST (a_request_that_nobody_wants_any_more_is_not_given_again)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb client", cancel (1));
    whatever_is_heard ();
    say ("zqb worker", disconnect ());
    say ("zqb other", ready ("echo", 1));
    nothing_is_heard ();
    assert_int_equal (stats ()->cancelled, 1);
    end ();
}

/* ---- who may answer: lessons 2 and 3 */

TEST (a_worker_that_is_not_registered_cannot_answer_and_is_told_so)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = hears ("mdp worker", ZQB__REQUEST, "x");
    say ("mdp stranger", reply (token, "forged"));
    heard ("mdp stranger", ZQB__DISCONNECT);
    nothing_is_heard ();
    assert_int_equal (stats ()->bad_state, 1);
    end ();
}

TEST (a_worker_cannot_answer_what_another_holds)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("zqb forger", ready ("other", 10));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = hears ("mdp worker", ZQB__REQUEST, "x");
    say ("zqb forger", reply (token, "forged"));
    say ("zqb forger", partial (token, "forged"));
    say ("zqb forger", failure (token, "forged"));
    nothing_is_heard ();
    assert_int_equal (stats ()->stale, 3);
    say ("mdp worker", reply (token, "true"));
    hears ("zqb client", ZQB__REPLY, "true");
    end ();
}

TEST (a_made_up_token_answers_nothing)
{
    begin ();
    say ("zqb worker", ready ("echo", 10));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = hears ("zqb worker", ZQB__REQUEST, "x");
    for (int bit = 0; bit < 64; bit++)
        say ("zqb worker", reply (token ^ (uint64_t) 1 << bit, "forged"));
    say ("zqb worker", reply (0, "forged"));
    nothing_is_heard ();
    assert_int_equal (stats ()->stale, 65);
    assert_int_equal (stats ()->running, 1);
    end ();
}

TEST (a_reply_counts_once)
{
    begin ();
    say ("zqb worker", ready ("echo", 2));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = hears ("zqb worker", ZQB__REQUEST, "x");
    say ("zqb worker", reply (token, "y"));
    hears ("zqb client", ZQB__REPLY, "y");
    say ("zqb client", request ("echo", 2, "z"));
    assert_true (hears ("zqb worker", ZQB__REQUEST, "z") != token);
    say ("zqb worker", reply (token, "y again"));
    nothing_is_heard ();
    assert_int_equal (stats ()->stale, 1);
    assert_int_equal (stats ()->running, 1);
    end ();
}

TEST (a_late_reply_of_a_worker_that_lost_the_request_reaches_nobody)
{
    begin ();
    say ("mdp slow", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t old = hears ("mdp slow", ZQB__REQUEST, "x");
    say ("mdp slow", ready ("other", 0));
    say ("mdp quick", ready ("echo", 0));
    uint64_t token = hears ("mdp quick", ZQB__REQUEST, "x");
    assert_true (token != old);
    say ("mdp slow", reply (old, "late"));
    assert_int_equal (stats ()->stale, 1);
    say ("mdp quick", reply (token, "right"));
    hears ("zqb client", ZQB__REPLY, "right");
    say ("mdp slow", reply (token, "late"));
    nothing_is_heard ();
    assert_int_equal (stats ()->stale, 2);
    end ();
}

TEST (even_the_same_worker_cannot_answer_with_a_token_of_its_former_registration)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t old = hears ("mdp worker", ZQB__REQUEST, "x");
    say ("mdp worker", ready ("echo", 0));
    uint64_t token = hears ("mdp worker", ZQB__REQUEST, "x");
    say ("mdp worker", reply (old, "late"));
    nothing_is_heard ();
    assert_int_equal (stats ()->stale, 1);
    say ("mdp worker", reply (token, "y"));
    hears ("zqb client", ZQB__REPLY, "y");
    end ();
}

TEST (ready_then_a_reply_that_nobody_asked_for_then_disconnect_harms_nobody)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp worker", reply (1, "unasked"));
    say ("mdp client", request ("echo", 0, "x"));
    say ("mdp client", request ("echo", 0, "y"));
    hears ("mdp worker", ZQB__REQUEST, "x");
    nothing_is_heard ();
    say ("mdp worker", disconnect ());
    say ("mdp worker", disconnect ());
    say ("mdp worker", reply (1, "unasked"));
    assert_int_equal (stats ()->queued, 2);
    assert_int_equal (stats ()->stale, 1);
    assert_int_equal (stats ()->bad_state, 2);
    end ();
}

TEST (tokens_of_another_life_of_the_broker_answer_nothing)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request ("echo", 0, "x"));
    uint64_t old = hears ("mdp worker", ZQB__REQUEST, "x");
    end ();
    zqb__limits_t limits = usual_limits ();
    assert_ok (begin_with (&limits));
    world.engine.requests.seed ^= 0x5555554; /* as another seed would have it */
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request ("echo", 0, "x"));
    hears ("mdp worker", ZQB__REQUEST, "x");
    say ("mdp worker", reply (old, "of another life"));
    nothing_is_heard ();
    assert_int_equal (stats ()->stale, 1);
    end ();
}

/* ---- partial replies */

TEST (parts_are_passed_on_as_they_come_to_clients_that_know_them)
{
    static const char *const clients[] = {"zqb client", "two client"};
    for (size_t i = 0; i < COUNT (clients); i++) {
        begin ();
        say ("zqb worker", ready ("echo", 1));
        say (clients[i], request ("echo", 1, "x"));
        uint64_t token = hears ("zqb worker", ZQB__REQUEST, "x");
        say ("zqb worker", partial (token, "1"));
        hears (clients[i], ZQB__PARTIAL, "1");
        say ("zqb worker", reply (token, "2"));
        hears (clients[i], ZQB__REPLY, "2");
        assert_int_equal (stats ()->partials, 1);
        end ();
    }
}

TEST (parts_are_gathered_for_clients_that_do_not_know_them)
{
    static const char *const clients[] = {"mdp client", "lru client"};
    for (size_t i = 0; i < COUNT (clients); i++) {
        begin ();
        say ("two worker", ready ("echo", 1));
        say (clients[i], request ("echo", 1, "x"));
        uint64_t token = hears ("two worker", ZQB__REQUEST, "x");
        say ("two worker", partial (token, "1"));
        say ("two worker", partial (token, "2"));
        nothing_is_heard ();
        say ("two worker", reply (token, "3"));
        hears (clients[i], ZQB__REPLY, "1|2|3");
        end ();
    }
}

TEST (what_was_gathered_of_a_lost_worker_is_forgotten)
{
    begin ();
    say ("two worker", ready ("echo", 1));
    say ("mdp client", request ("echo", 1, "x"));
    say ("two worker", partial (hears ("two worker", ZQB__REQUEST, "x"), "lost"));
    say ("two worker", disconnect ());
    say ("two other", ready ("echo", 1));
    say ("two other", reply (hears ("two other", ZQB__REQUEST, "x"), "whole"));
    hears ("mdp client", ZQB__REPLY, "whole");
    end ();
}

TEST (a_reply_that_grows_too_large_is_a_failure)
{
    zqb__limits_t limits = usual_limits ();
    limits.frames = 3;
    assert_ok (begin_with (&limits));
    say ("zqb worker", ready ("echo", 1));
    say ("mdp client", request ("echo", 1, "x"));
    uint64_t token = hears ("zqb worker", ZQB__REQUEST, "x");
    for (int i = 0; i < 5; i++)
        say ("zqb worker", partial (token, "part"));
    nothing_is_heard ();
    assert_int_equal (stats ()->failed, 1);
    assert_int_equal (stats ()->refused_frames, 1);
    assert_int_equal (stats ()->stale, 1);
    end ();
}

TEST (a_reply_that_is_too_large_is_a_failure_and_told)
{
    zqb__limits_t limits = usual_limits ();
    limits.message = 20;
    assert_ok (begin_with (&limits));
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb worker", reply (hears ("zqb worker", ZQB__REQUEST, "x"), "more than twenty bytes"));
    hears_error ("zqb client", 1, ZQB_EFAILED);
    assert_int_equal (stats ()->refused_large, 1);
    end ();
}

/* ---- limits: lesson 8 */

static void say_requests (const char *client, const char *service, int count)
{
    for (int i = 0; i < count; i++)
        say (client, request (service, (uint64_t) world.count * 1000 + (uint64_t) i, "12345"));
}

TEST (each_limit_refuses_what_is_over_it_and_counts_that)
{
    static const struct {
        size_t field; /* of zqb__limits_t */
        int wide;     /* 64 bits */
        size_t counter;
        int error;
    } cases[] = {
        {offsetof (zqb__limits_t, requests), 0, offsetof (zqb_stats_t, refused_requests), ZQB_EQUEUEFULL},
        {offsetof (zqb__limits_t, queue), 0, offsetof (zqb_stats_t, refused_queue), ZQB_EQUEUEFULL},
        {offsetof (zqb__limits_t, no_worker_queue), 0, offsetof (zqb_stats_t, refused_no_worker), ZQB_ENOWORKER},
        {offsetof (zqb__limits_t, outstanding), 0, offsetof (zqb_stats_t, refused_outstanding), ZQB_EQUEUEFULL},
        {offsetof (zqb__limits_t, bytes), 1, offsetof (zqb_stats_t, refused_bytes), ZQB_EQUEUEFULL},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        zqb__limits_t limits = usual_limits ();
        if (cases[i].wide)
            *(uint64_t *) (void *) ((char *) &limits + cases[i].field) = 18; /* two bodies of 5 + 4 bytes */
        else
            *(int *) (void *) ((char *) &limits + cases[i].field) = 2;
        assert_ok (begin_with (&limits));
        say_requests ("zqb client", "echo", 2);
        nothing_is_heard ();
        say ("zqb client", request ("echo", 77, "12345"));
        hears_error ("zqb client", 77, cases[i].error);
        assert_int_equal (stats ()->accepted, 2);
        assert_int_equal (*(const uint64_t *) (const void *) ((const char *) stats () + cases[i].counter), 1);
        say ("mdp worker", ready ("echo", 0));
        uint64_t token = hears ("mdp worker", ZQB__REQUEST, "12345");
        say ("mdp worker", reply (token, "done"));
        whatever_is_heard ();
        say ("zqb client", request ("echo", 78, "12345"));
        assert_int_equal (stats ()->accepted, 3);
        end ();
    }
}

TEST (a_full_queue_does_not_refuse_what_a_free_worker_can_take)
{
    zqb__limits_t limits = usual_limits ();
    limits.queue = 1;
    assert_ok (begin_with (&limits));
    say ("zqb worker", ready ("echo", 10));
    say_requests ("zqb client", "echo", 10);
    assert_int_equal (stats ()->running, 10);
    say_requests ("zqb client", "echo", 2);
    assert_int_equal (stats ()->queued, 1);
    assert_int_equal (stats ()->refused_queue, 1);
    end ();
}

TEST (there_is_room_as_long_as_a_large_request_fits)
{
    zqb__limits_t limits = usual_limits ();
    limits.bytes = 100;
    limits.message = 20;
    limits.requests = 3;
    assert_ok (begin_with (&limits));
    assert_true (zqb__engine_has_room (&world.engine, NULL, 0));
    say_requests ("zqb client", "echo", 2); /* 9 bytes each */
    assert_true (zqb__engine_has_room (&world.engine, NULL, 0));
    world.engine.limits.bytes = 37;
    world.engine.limits.message = 1000;
    assert_true (zqb__engine_has_room (&world.engine, NULL, 0)); /* a quarter of all is large */
    world.engine.limits.bytes = 26;
    assert_true (zqb__engine_has_room (&world.engine, NULL, 0));
    world.engine.limits.bytes = 22;
    assert_false (zqb__engine_has_room (&world.engine, NULL, 0));
    world.engine.limits.bytes = world.engine.limits.message = INT64_MAX;
    assert_true (zqb__engine_has_room (&world.engine, NULL, 0));
    say_requests ("zqb client", "echo", 1);
    assert_false (zqb__engine_has_room (&world.engine, NULL, 0));
    end ();
}

TEST (services_are_bounded)
{
    zqb__limits_t limits = usual_limits ();
    limits.services = 2;
    assert_ok (begin_with (&limits));
    say ("mdp worker", ready ("one", 0));
    say ("zqb client", request ("two", 1, "x"));
    say ("zqb client", request ("three", 2, "x"));
    hears_error ("zqb client", 2, ZQB_EQUEUEFULL);
    assert_int_equal (stats ()->refused_services, 1);
    say ("zqb worker", ready ("four", 1));
    assert_int_equal (heard ("zqb worker", ZQB__DISCONNECT)->status + ZQB_ERRNO, ZQB_EREFUSED);
    assert_int_equal (stats ()->refused_services, 2);
    assert_int_equal (stats ()->services, 2);
    end ();
}

TEST (workers_are_bounded)
{
    zqb__limits_t limits = usual_limits ();
    limits.workers = 1;
    assert_ok (begin_with (&limits));
    say ("mdp one", ready ("echo", 0));
    say ("mdp two", ready ("echo", 0));
    heard ("mdp two", ZQB__DISCONNECT);
    assert_int_equal (stats ()->refused_workers, 1);
    say ("mdp one", ready ("echo", 0));
    assert_int_equal (stats ()->refused_workers, 1);
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (clients_with_requests_are_bounded)
{
    zqb__limits_t limits = usual_limits ();
    limits.clients = 2;
    assert_ok (begin_with (&limits));
    say ("zqb one", request ("echo", 1, "x"));
    say ("zqb two", request ("echo", 1, "x"));
    say ("zqb three", request ("echo", 1, "x"));
    hears_error ("zqb three", 1, ZQB_EQUEUEFULL);
    say ("zqb one", request ("echo", 2, "x"));
    assert_int_equal (stats ()->accepted, 3);
    assert_int_equal (stats ()->clients, 2);
    end ();
}

TEST (a_request_that_is_too_large_or_has_too_many_frames_is_refused)
{
    zqb__limits_t limits = usual_limits ();
    limits.message = 9;
    limits.frames = 1;
    assert_ok (begin_with (&limits));
    say ("zqb client", request ("echo", 1, "12345"));
    assert_int_equal (stats ()->accepted, 1);
    say ("zqb client", request ("echo", 2, "123456"));
    hears_error ("zqb client", 2, ZQB_EREFUSED);
    zqb__command_t command = zqb__command (ZQB__REQUEST, 3);
    command.body.block = (const unsigned char *) "\0\0\0\0\0\0\0\0";
    command.body.size = 8;
    zqb__body_measure (&command.body);
    say ("zqb client", named (command, "echo"));
    hears_error ("zqb client", 3, ZQB_EREFUSED);
    assert_int_equal (stats ()->refused_large, 1);
    assert_int_equal (stats ()->refused_frames, 1);
    end ();
}

TEST (a_service_goes_when_it_has_neither_workers_nor_requests)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request ("echo", 0, "x"));
    assert_int_equal (stats ()->services, 1);
    say ("mdp worker", disconnect ());
    assert_int_equal (stats ()->services, 1);
    say ("mdp worker", ready ("echo", 0));
    whatever_is_heard ();
    zqb__request_t *held = ZQB__OF (zqb__request_t, place, peer_named ("mdp worker")->worker->hand.next);
    say ("mdp worker", reply (zqb__slot_token (&held->slot), "y"));
    assert_int_equal (stats ()->services, 1);
    say ("mdp worker", disconnect ());
    assert_int_equal (stats ()->services, 0);
    end ();
}

TEST (a_service_for_every_name_that_anyone_asks_for_does_not_stay)
{
    begin ();
    for (int i = 0; i < 5000; i++) {
        char name[32];
        snprintf (name, sizeof name, "service %d", i);
        zqb__peer_t *peer = peer_named ("mdp client");
        zqb__command_t command = request (name, 0, "x");
        zqb__engine_receive (&world.engine, peer, &command);
        zqb__engine_release (&world.engine, peer);
    }
    assert_int_equal (stats ()->services, 5000);
    at_ms (NO_WORKER_MS);
    assert_int_equal (stats ()->services, 0);
    assert_int_equal (stats ()->expired, 5000);
    assert_int_equal (stats ()->bytes, 0);
    end ();
}

TEST (peers_without_a_purpose_are_forgotten_but_for_the_latest)
{
    begin ();
    for (int i = 0; i < 3 * ZQB__IDLE_PEERS; i++) {
        char name[32];
        snprintf (name, sizeof name, "mdp %d", i);
        zqb__peer_t *peer = peer_named (name);
        zqb__command_t command = heartbeat ();
        zqb__engine_receive (&world.engine, peer, &command);
        zqb__engine_release (&world.engine, peer);
    }
    assert_int_equal (world.engine.peers.count, ZQB__IDLE_PEERS);
    end ();
}

/* ---- names: lessons 9 and 10 */

static zqb__command_t request_to (const char *service, size_t size)
{
    zqb__command_t command = request ("", 1, "x");
    command.service = (const unsigned char *) service;
    command.service_size = size;
    return command;
}

TEST (names_that_differ_behind_a_nul_are_different)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request_to ("echo\0a", 6));
    say ("mdp client", request_to ("echo\0b", 6));
    nothing_is_heard ();
    assert_int_equal (stats ()->services, 3);
    end ();
}

TEST (workers_may_not_register_for_names_that_start_with_mmi)
{
    static const char *const names[] = {"mmi.", "mmi.service", "mmi.anything"};
    for (size_t i = 0; i < COUNT (names); i++) {
        begin ();
        say ("zqb worker", ready (names[i], 1));
        assert_int_equal (heard ("zqb worker", ZQB__DISCONNECT)->status + ZQB_ERRNO, ZQB_EREFUSED);
        assert_int_equal (stats ()->refused_name, 1);
        assert_int_equal (worker_count (), 0);
        end ();
    }
}

TEST (it_is_the_name_of_the_service_that_starts_with_mmi_not_an_address)
{
    begin ();
    say_as ("mmi.worker", 0, ZQB__MDP01, ready ("echo", 0));
    say_as ("mmi.client", 0, ZQB__MDP01, request ("echo", 0, "x"));
    hears ("mmi.worker", ZQB__REQUEST, "x");
    end ();
}

TEST (a_worker_whose_second_ready_is_refused_has_left_the_first_service)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp worker", ready ("mmi.echo", 0));
    heard ("mdp worker", ZQB__DISCONNECT);
    assert_int_equal (worker_count (), 0);
    assert_int_equal (stats ()->services, 0);
    end ();
}

/* ---- handlers */

static int some_handler (zqb_request_t *handled, zqb_msg_t *answer, void *arg)
{
    (void) handled, (void) answer, (void) arg;
    return 0;
}

TEST (a_handler_answers_at_once_and_is_counted_as_a_worker_would_be)
{
    begin ();
    assert_ok (zqb__engine_handle (&world.engine, "here", some_handler, NULL));
    say ("zqb client", request ("here", 4, "x"));
    assert_true (hears ("zqb client", ZQB__REPLY, "x") == 4);
    world.handler_fails = 1;
    say ("zqb client", request ("here", 5, "x"));
    hears_error ("zqb client", 5, ZQB_EFAILED);
    assert_int_equal (stats ()->accepted, 2);
    assert_int_equal (stats ()->replied, 1);
    assert_int_equal (stats ()->failed, 1);
    end ();
}

TEST (a_handlers_reply_to_a_client_that_is_gone_counts_as_that)
{
    begin ();
    assert_ok (zqb__engine_handle (&world.engine, "here", some_handler, NULL));
    world.gone = "mdp client,";
    say ("mdp client", request ("here", 0, "x"));
    assert_int_equal (stats ()->client_gone, 1);
    assert_int_equal (stats ()->replied, 0);
    end ();
}

TEST (a_name_is_served_by_workers_or_by_a_handler_not_by_both)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    assert_fails (zqb__engine_handle (&world.engine, "echo", some_handler, NULL), EADDRINUSE);
    assert_ok (zqb__engine_handle (&world.engine, "here", some_handler, NULL));
    say ("zqb other", ready ("here", 1));
    assert_int_equal (heard ("zqb other", ZQB__DISCONNECT)->status + ZQB_ERRNO, ZQB_EREFUSED);
    assert_int_equal (stats ()->refused_name, 1);
    end ();
}

TEST (a_handler_that_is_removed_takes_its_service_along)
{
    begin ();
    assert_ok (zqb__engine_handle (&world.engine, "here", some_handler, NULL));
    assert_int_equal (stats ()->services, 1);
    assert_ok (zqb__engine_handle (&world.engine, "here", NULL, NULL));
    assert_ok (zqb__engine_handle (&world.engine, "never there", NULL, NULL));
    assert_int_equal (stats ()->services, 0);
    say ("mdp worker", ready ("here", 0));
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (requests_that_waited_when_a_handler_came_are_served_by_it)
{
    begin ();
    say ("zqb client", request ("here", 1, "early"));
    assert_ok (zqb__engine_handle (&world.engine, "here", some_handler, NULL));
    at_ms (1);
    hears ("zqb client", ZQB__REPLY, "early");
    assert_int_equal (stats ()->replied, 1);
    end ();
}

/* ---- time: no worker */

TEST (a_request_that_finds_no_worker_in_time_expires_and_its_client_is_told)
{
    begin ();
    say ("zqb client", request ("echo", 3, "x"));
    at_ms (NO_WORKER_MS - 1);
    nothing_is_heard ();
    at_ms (NO_WORKER_MS);
    hears_error ("zqb client", 3, ZQB_ENOWORKER);
    assert_int_equal (stats ()->expired, 1);
    end ();
}

TEST (each_request_has_its_own_time_to_wait)
{
    begin ();
    say ("zqb client", request ("echo", 1, "x"));
    at_ms (4000);
    say ("zqb client", request ("echo", 2, "x"));
    at_ms (NO_WORKER_MS);
    hears_error ("zqb client", 1, ZQB_ENOWORKER);
    nothing_is_heard ();
    at_ms (NO_WORKER_MS + 3999);
    nothing_is_heard ();
    at_ms (NO_WORKER_MS + 4000);
    hears_error ("zqb client", 2, ZQB_ENOWORKER);
    end ();
}

TEST (as_long_as_there_is_a_worker_a_request_waits_however_long)
{
    begin ();
    say ("lru worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb client", request ("echo", 2, "y"));
    whatever_is_heard ();
    at_ms (100 * NO_WORKER_MS);
    nothing_is_heard ();
    assert_int_equal (stats ()->queued, 1);
    end ();
}

TEST (when_the_last_worker_leaves_requests_have_their_time_from_then)
{
    begin ();
    say ("lru worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    whatever_is_heard ();
    at_ms (50000);
    say ("lru worker", disconnect ());
    at_ms (50000 + NO_WORKER_MS - 1);
    nothing_is_heard ();
    at_ms (50000 + NO_WORKER_MS);
    hears_error ("zqb client", 1, ZQB_ENOWORKER);
    end ();
}

TEST (without_a_limit_of_time_a_request_waits_for_ever)
{
    zqb__limits_t limits = usual_limits ();
    limits.no_worker = UINT64_MAX;
    assert_ok (begin_with (&limits));
    say ("zqb client", request ("echo", 1, "x"));
    assert_true (zqb__engine_next (&world.engine) == UINT64_MAX);
    at_ms (1000000000);
    assert_int_equal (stats ()->queued, 1);
    end ();
}

/* ---- time: heartbeats, lessons 4, 5, 11 and 12 */

TEST (an_idle_worker_hears_from_us_every_heartbeat)
{
    static const char *const workers[] = {"zqb worker", "mdp worker", "two worker", "ppp worker"};
    for (size_t i = 0; i < COUNT (workers); i++) {
        begin ();
        say (workers[i], ready ("echo", 1));
        for (uint64_t beat = 1; beat <= 10; beat++) {
            at_ms (beat * BEAT_MS - 1);
            nothing_is_heard ();
            at_ms (beat * BEAT_MS);
            heard (workers[i], ZQB__HEARTBEAT);
            say (workers[i], heartbeat ());
            nothing_is_heard ();
        }
        end ();
    }
}

TEST (heartbeats_leave_on_time_whenever_the_loop_wakes_by_what_the_engine_asks_for)
{
    begin ();
    say ("mdp worker", ready ("echo", 1));
    for (uint64_t ms = 0; ms < 20 * BEAT_MS; ms += 100) {
        say ("mdp worker", heartbeat ());
        at_ms (ms);
        assert_true (zqb__engine_next (&world.engine) > world.engine.now);
        assert_true (zqb__engine_next (&world.engine) <= world.engine.now + BEAT_MS * 1000);
    }
    assert_int_equal (count_heard ("mdp worker", ZQB__HEARTBEAT), 19);
    end ();
}

TEST (a_busy_worker_hears_from_us_too)
{
    begin ();
    say ("mdp worker", ready ("echo", 1));
    say ("mdp client", request ("echo", 1, "x"));
    hears ("mdp worker", ZQB__REQUEST, "x");
    for (uint64_t beat = 1; beat <= 20; beat++) {
        at_ms (beat * BEAT_MS);
        heard ("mdp worker", ZQB__HEARTBEAT);
        nothing_is_heard ();
    }
    end ();
}

TEST (anything_that_is_sent_counts_as_a_heartbeat)
{
    begin ();
    say ("mdp worker", ready ("echo", 1));
    at_ms (600);
    say ("mdp client", request ("echo", 1, "x"));
    hears ("mdp worker", ZQB__REQUEST, "x");
    at_ms (1500);
    nothing_is_heard ();
    at_ms (1600);
    heard ("mdp worker", ZQB__HEARTBEAT);
    end ();
}

TEST (an_idle_worker_that_is_silent_is_lost_and_told_so)
{
    static const char *const workers[] = {"zqb worker", "mdp worker", "two worker"};
    for (size_t i = 0; i < COUNT (workers); i++) {
        begin ();
        say (workers[i], ready ("echo", 1));
        at_ms (EXPIRY_MS - 1);
        assert_int_equal (worker_count (), 1);
        whatever_is_heard ();
        at_ms (EXPIRY_MS);
        heard (workers[i], ZQB__DISCONNECT);
        nothing_is_heard ();
        assert_int_equal (worker_count (), 0);
        assert_int_equal (stats ()->workers_lost, 1);
        end ();
    }
}

static zqb__command_t ready_with_beat (uint32_t heartbeat_ms)
{
    zqb__command_t command = ready ("echo", 1);
    command.heartbeat_ms = heartbeat_ms;
    return command;
}

TEST (a_worker_that_hangs_is_lost_after_the_time_limit_of_its_service)
{
    static const char *const workers[] = {"zqb hangs", "mdp hangs", "two hangs", "lru hangs", "ppp hangs"};
    for (size_t i = 0; i < COUNT (workers); i++) {
        begin ();
        assert_ok (zqb__engine_limit (&world.engine, "echo", 5000 * 1000));
        at_ms (100);
        say (workers[i], ready ("echo", 1));
        say ("mdp client", request ("echo", 1, "x"));
        hears (workers[i], ZQB__REQUEST, "x");
        at_ms (200);
        say ("zqb other", ready ("echo", 1));
        for (uint64_t ms = 1000; ms < 5000; ms += 1000) {
            at_ms (ms);
            say ("zqb other", heartbeat ());
        }
        at_ms (100 + 4999);
        assert_int_equal (stats ()->workers_lost, 0);
        whatever_is_heard ();
        at_ms (100 + 5000);
        assert_int_equal (stats ()->workers_lost, 1);
        assert_int_equal (stats ()->requeued, 1);
        assert_int_equal (count_heard ("zqb other", ZQB__REQUEST), 1);
        end ();
    }
}

TEST (a_worker_that_finishes_something_in_time_does_not_hang)
{
    begin ();
    assert_ok (zqb__engine_limit (&world.engine, "echo", 5000 * 1000));
    say ("zqb worker", ready ("echo", 10));
    for (uint64_t i = 1; i <= 10; i++)
        say ("zqb client", request ("echo", i, "x"));
    for (uint64_t i = 1; i <= 10; i++) {
        at_ms (4000 * i);
        zqb__request_t *held = ZQB__OF (zqb__request_t, place, peer_named ("zqb worker")->worker->hand.next);
        say ("zqb worker", reply (zqb__slot_token (&held->slot), "y"));
        whatever_is_heard ();
    }
    assert_int_equal (stats ()->replied, 10);
    assert_int_equal (stats ()->workers_lost, 0);
    end ();
}

TEST (a_time_limit_holds_for_those_at_work_and_may_be_taken_back)
{
    begin ();
    say ("mdp worker", ready ("echo", 1));
    say ("mdp client", request ("echo", 1, "x"));
    at_ms (1000);
    assert_ok (zqb__engine_limit (&world.engine, "echo", 5000 * 1000));
    at_ms (2000);
    assert_ok (zqb__engine_limit (&world.engine, "echo", UINT64_MAX));
    at_ms (100000);
    assert_int_equal (stats ()->workers_lost, 0);
    assert_ok (zqb__engine_limit (&world.engine, "echo", 5000 * 1000));
    at_ms (100000 + 1);
    at_ms (100000 + 2);
    assert_int_equal (stats ()->workers_lost, 1);
    assert_ok (zqb__engine_limit (&world.engine, "echo", UINT64_MAX));
    end ();
}

TEST (a_worker_that_wants_to_hear_from_us_more_often_does)
{
    begin ();
    say ("zqb worker", ready_with_beat (BEAT_MS / 10));
    for (uint64_t beat = 1; beat <= 10; beat++) {
        at_ms (beat * BEAT_MS / 10);
        heard ("zqb worker", ZQB__HEARTBEAT);
        nothing_is_heard ();
    }
    at_ms (EXPIRY_MS);
    assert_int_equal (worker_count (), 0);
    end ();
}

TEST (a_worker_that_speaks_less_often_may_be_silent_for_longer)
{
    begin ();
    say ("zqb slow", ready_with_beat (10 * BEAT_MS));
    say ("zqb never", ready_with_beat (0));
    at_ms (10 * EXPIRY_MS - 1);
    assert_int_equal (worker_count (), 2);
    at_ms (10 * EXPIRY_MS);
    assert_int_equal (worker_count (), 1);
    at_ms (1000 * EXPIRY_MS);
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (nobody_is_silent_as_long_as_we_have_not_read_everything)
{
    begin ();
    say ("mdp worker", ready ("echo", 1));
    world.engine.caught_up = 0;
    at_ms (3 * EXPIRY_MS);
    assert_int_equal (worker_count (), 1);
    say ("mdp worker", heartbeat ());
    world.engine.caught_up = 1;
    at_ms (4 * EXPIRY_MS - 1);
    assert_int_equal (worker_count (), 1);
    at_ms (4 * EXPIRY_MS);
    assert_int_equal (worker_count (), 0);
    end ();
}

/* Workers have gone meanwhile, and we hear of it one after the other. */
TEST (after_a_standstill_nobody_gets_anything_until_it_is_known_who_is_there)
{
    begin ();
    for (int i = 0; i < 4; i++) {
        come_over (i == 0 ? "mdp a" : i == 1 ? "mdp b" : i == 2 ? "mdp c" : "mdp d", i);
        say (i == 0 ? "mdp a" : i == 1 ? "mdp b" : i == 2 ? "mdp c" : "mdp d", ready ("echo", 0));
    }
    world.engine.now += BEAT_MS * 1000;
    assert_false (zqb__engine_is_late (&world.engine));
    world.engine.now += BEAT_MS * 1000;
    assert_true (zqb__engine_is_late (&world.engine));
    zqb__engine_pause (&world.engine);
    say ("zqb client", request ("echo", 1, "x"));
    for (int i = 0; i < 3; i++)
        connection_ends (i);
    assert_int_equal (stats ()->workers_lost, 3);
    assert_int_equal (stats ()->queued, 1);
    whatever_is_heard ();
    zqb__engine_go_on (&world.engine);
    hears ("mdp d", ZQB__REQUEST, "x");
    assert_int_equal (stats ()->requeued, 0);
    end ();
}

TEST (without_heartbeats_nothing_is_late)
{
    zqb__limits_t limits = usual_limits ();
    limits.heartbeat = limits.expiry = UINT64_MAX;
    assert_ok (begin_with (&limits));
    say ("zqb client", request ("echo", 1, "x"));
    world.engine.now += 100000000;
    assert_false (zqb__engine_is_late (&world.engine));
    end ();
}

TEST (whatever_a_worker_sends_shows_that_it_lives)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    at_ms (EXPIRY_MS - 1);
    say ("zqb worker", zqb__command (31, 0));
    at_ms (2 * EXPIRY_MS - 2);
    say ("zqb worker", reply (0, "stale"));
    at_ms (3 * EXPIRY_MS - 4);
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (a_worker_that_sends_heartbeats_does_not_hide_those_that_do_not)
{
    begin ();
    say ("mdp alive", ready ("echo", 1));
    say ("mdp silent", ready ("echo", 1));
    say ("mdp quiet", ready ("other", 1));
    for (uint64_t ms = 0; ms <= EXPIRY_MS; ms += 500) {
        say ("mdp alive", heartbeat ());
        at_ms (ms);
    }
    assert_int_equal (worker_count (), 1);
    assert_int_equal (stats ()->workers_lost, 2);
    end ();
}

TEST (a_worker_at_work_may_be_silent_as_long_as_it_likes)
{
    static const char *const workers[] = {"zqb worker", "mdp worker", "ppp worker", "lru worker"};
    for (size_t i = 0; i < COUNT (workers); i++) {
        begin ();
        say (workers[i], ready ("echo", 1));
        say ("zqb client", request ("echo", 1, "x"));
        uint64_t token = hears (workers[i], ZQB__REQUEST, "x");
        for (uint64_t ms = 0; ms < 100 * EXPIRY_MS; ms += 700)
            at_ms (ms);
        whatever_is_heard ();
        say (workers[i], reply (token, "at last"));
        hears ("zqb client", ZQB__REPLY, "at last");
        assert_int_equal (worker_count (), 1);
        end ();
    }
}

TEST (a_worker_that_dies_at_work_is_found_by_its_connection)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    come_over ("mdp worker", 5);
    say ("zqb client", request ("echo", 1, "x"));
    whatever_is_heard ();
    connection_ends (4);
    assert_int_equal (worker_count (), 1);
    connection_ends (5);
    assert_int_equal (worker_count (), 0);
    say ("mdp other", ready ("echo", 0));
    hears ("mdp other", ZQB__REQUEST, "x");
    end ();
}

TEST (a_worker_that_was_at_work_has_its_whole_time_again)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = hears ("mdp worker", ZQB__REQUEST, "x");
    at_ms (100000);
    say ("mdp worker", reply (token, "y"));
    at_ms (100000 + EXPIRY_MS - 1);
    assert_int_equal (worker_count (), 1);
    at_ms (100000 + EXPIRY_MS);
    assert_int_equal (worker_count (), 0);
    end ();
}

TEST (lru_workers_know_no_heartbeats_and_are_spared_them)
{
    begin ();
    say ("lru worker", ready ("echo", 0));
    at_ms (1000000);
    nothing_is_heard ();
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (without_heartbeats_nobody_is_lost_for_silence)
{
    zqb__limits_t limits = usual_limits ();
    limits.heartbeat = limits.expiry = UINT64_MAX;
    assert_ok (begin_with (&limits));
    say ("mdp worker", ready ("echo", 0));
    at_ms (1000000000);
    nothing_is_heard ();
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (a_stranger_that_sends_heartbeats_is_told_to_register)
{
    begin ();
    say ("mdp worker", heartbeat ());
    heard ("mdp worker", ZQB__DISCONNECT);
    assert_int_equal (stats ()->bad_state, 1);
    say ("mdp worker", ready ("echo", 0));
    nothing_is_heard ();
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (a_heartbeat_that_a_busy_worker_does_not_read_is_not_its_end)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request ("echo", 0, "x"));
    world.gone = "mdp worker,";
    world.gone_errno = EAGAIN;
    at_ms (10 * BEAT_MS);
    assert_int_equal (worker_count (), 1);
    assert_int_equal (stats ()->unsendable, 0);
    end ();
}

TEST (after_the_clock_leapt_forward_no_request_is_lost_and_nothing_spins)
{
    begin ();
    say ("mdp idle", ready ("other", 0));
    say ("mdp busy", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = hears ("mdp busy", ZQB__REQUEST, "x");
    at_ms ((uint64_t) 365 * 24 * 3600 * 1000);
    assert_true (zqb__engine_next (&world.engine) > world.engine.now);
    assert_int_equal (worker_count (), 1);
    assert_int_equal (count_heard ("mdp busy", ZQB__HEARTBEAT), 1);
    say ("mdp busy", reply (token, "y"));
    hears ("zqb client", ZQB__REPLY, "y");
    say ("mdp idle", heartbeat ());
    heard ("mdp idle", ZQB__DISCONNECT);
    end ();
}

/* ---- retries: lesson 15 */

TEST (a_retry_joins_the_request_whether_it_is_queued_or_running)
{
    begin ();
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb client", again (request ("echo", 1, "x")));
    assert_int_equal (stats ()->joined, 1);
    say ("zqb worker", ready ("echo", 5));
    uint64_t token = hears ("zqb worker", ZQB__REQUEST, "x");
    say ("zqb client", again (request ("echo", 1, "x")));
    nothing_is_heard ();
    assert_int_equal (stats ()->joined, 2);
    assert_int_equal (stats ()->accepted, 1);
    say ("zqb worker", reply (token, "y"));
    hears ("zqb client", ZQB__REPLY, "y");
    nothing_is_heard ();
    end ();
}

TEST (a_retry_of_what_the_broker_has_no_more_is_a_new_request)
{
    begin ();
    say ("zqb client", again (request ("echo", 1, "x")));
    assert_int_equal (stats ()->accepted, 1);
    assert_int_equal (stats ()->joined, 0);
    end ();
}

TEST (a_retry_joins_even_when_everything_is_full)
{
    zqb__limits_t limits = usual_limits ();
    limits.requests = limits.outstanding = 1;
    assert_ok (begin_with (&limits));
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb client", again (request ("echo", 1, "x")));
    nothing_is_heard ();
    assert_int_equal (stats ()->joined, 1);
    end ();
}

TEST (numbers_of_one_client_are_not_those_of_another)
{
    begin ();
    say ("zqb one", request ("echo", 1, "of one"));
    say ("zqb two", again (request ("echo", 1, "of two")));
    assert_int_equal (stats ()->accepted, 2);
    say ("zqb two", cancel (1));
    say ("zqb worker", ready ("echo", 5));
    hears ("zqb worker", ZQB__REQUEST, "of one");
    nothing_is_heard ();
    end ();
}

TEST (many_numbers_are_all_found)
{
    begin ();
    for (uint64_t id = 1; id <= 500; id++)
        say ("zqb client", request ("echo", id, "x"));
    for (uint64_t id = 1; id <= 500; id += 2)
        say ("zqb client", cancel (id));
    for (uint64_t id = 2; id <= 500; id += 2)
        say ("zqb client", again (request ("echo", id, "x")));
    assert_int_equal (stats ()->cancelled, 250);
    assert_int_equal (stats ()->joined, 250);
    assert_int_equal (stats ()->queued, 250);
    end ();
}

TEST (a_worker_that_speaks_from_another_address_must_register_from_there)
{
    uint64_t life = life_of ("zqb worker");
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("mdp client", request ("echo", 1, "x"));
    hears ("zqb worker", ZQB__REQUEST, "x");
    say_as ("zqb from elsewhere", life, ZQB__ZQB1, heartbeat ());
    heard ("zqb from elsewhere", ZQB__DISCONNECT);
    assert_int_equal (stats ()->running, 1);
    say_as ("zqb from elsewhere", life, ZQB__ZQB1, ready ("echo", 1));
    hears ("zqb from elsewhere", ZQB__REQUEST, "x");
    assert_int_equal (worker_count (), 1);
    say_as ("zqb worker", life, ZQB__ZQB1, heartbeat ());
    heard ("zqb worker", ZQB__DISCONNECT);
    assert_int_equal (stats ()->requeued, 1);
    assert_int_equal (stats ()->running, 1);
    end ();
}

TEST (a_client_that_comes_over_another_connection_is_known_by_its_life)
{
    begin ();
    say_as ("first address", 99, ZQB__ZQB1, request ("echo", 1, "x"));
    say_as ("second address", 99, ZQB__ZQB1, again (request ("echo", 1, "x")));
    assert_int_equal (stats ()->joined, 1);
    assert_int_equal (stats ()->clients, 1);
    say ("zqb worker", ready ("echo", 1));
    say ("zqb worker", reply (hears ("zqb worker", ZQB__REQUEST, "x"), "y"));
    hears ("second address", ZQB__REPLY, "y");
    nothing_is_heard ();
    end ();
}

TEST (what_arrives_late_from_a_former_connection_does_not_move_the_client_back)
{
    begin ();
    say_as ("first address", 99, ZQB__ZQB1, request ("echo", 1, "x"));
    say_as ("second address", 99, ZQB__ZQB1, again (request ("echo", 1, "x")));
    say_as ("first address", 99, ZQB__ZQB1, cancel (17));
    say ("zqb worker", ready ("echo", 1));
    say ("zqb worker", reply (hears ("zqb worker", ZQB__REQUEST, "x"), "y"));
    hears ("second address", ZQB__REPLY, "y");
    end ();
}

TEST (a_client_of_another_life_at_the_same_address_does_not_join_what_the_former_asked)
{
    begin ();
    say_as ("fixed address", 99, ZQB__ZQB1, request ("echo", 1, "of the former"));
    say_as ("fixed address", 100, ZQB__ZQB1, again (request ("echo", 1, "of the new")));
    assert_int_equal (stats ()->joined, 0);
    say ("zqb worker", ready ("echo", 5));
    int found = 0;
    for (; world.read < world.count; world.read++)
        found += strcmp (world.sent[world.read].body, "of the new") == 0;
    assert_int_equal (found, 1);
    end ();
}

TEST (a_zqb1_client_whose_connection_is_gone_is_waited_for)
{
    begin ();
    say ("zqb client", request ("echo", 1, "x"));
    come_over ("zqb client", 3);
    connection_ends (3);
    at_ms (EXPIRY_MS - 1);
    assert_int_equal (stats ()->queued, 1);
    say_as ("other address", life_of ("zqb client"), ZQB__ZQB1, again (request ("echo", 1, "x")));
    at_ms (2 * EXPIRY_MS);
    assert_int_equal (stats ()->queued, 1);
    assert_int_equal (stats ()->joined, 1);
    end ();
}

TEST (a_zqb1_client_that_does_not_come_back_is_given_up)
{
    begin ();
    say ("zqb client", request ("echo", 1, "x"));
    come_over ("zqb client", 3);
    connection_ends (3);
    at_ms (EXPIRY_MS);
    assert_int_equal (stats ()->queued, 0);
    assert_int_equal (stats ()->client_gone, 1);
    end ();
}

TEST (what_a_client_of_another_dialect_asked_is_dropped_when_its_connection_is_gone)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request ("echo", 0, "running"));
    say ("mdp client", request ("echo", 0, "queued"));
    come_over ("mdp client", 3);
    uint64_t token = hears ("mdp worker", ZQB__REQUEST, "running");
    connection_ends (3);
    assert_int_equal (stats ()->queued, 0);
    assert_int_equal (stats ()->client_gone, 1);
    say ("mdp worker", reply (token, "for nobody"));
    nothing_is_heard ();
    assert_int_equal (stats ()->client_gone, 2);
    end ();
}

TEST (a_client_that_cannot_be_sent_to_loses_what_it_has_queued)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("mdp client", request ("echo", 0, "running"));
    say ("mdp client", request ("other", 0, "queued"));
    uint64_t token = hears ("mdp worker", ZQB__REQUEST, "running");
    world.gone = "mdp client,";
    say ("mdp worker", reply (token, "y"));
    assert_int_equal (stats ()->queued, 0);
    assert_int_equal (stats ()->unsendable, 1);
    assert_int_equal (stats ()->client_gone, 2);
    assert_int_equal (stats ()->replied, 0);
    end ();
}

TEST (all_peers_of_a_connection_go_with_it)
{
    begin ();
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf (name, sizeof name, "mdp %d", i);
        say (name, ready ("echo", 0));
        come_over (name, 8);
    }
    say ("mdp other", ready ("echo", 0));
    come_over ("mdp other", 9);
    connection_ends (8);
    assert_int_equal (worker_count (), 1);
    end ();
}

/* ---- cancel */

TEST (a_queued_request_that_is_cancelled_is_dropped)
{
    begin ();
    say ("zqb client", request ("echo", 1, "x"));
    say ("zqb client", cancel (1));
    assert_int_equal (stats ()->cancelled, 1);
    assert_int_equal (stats ()->services, 0);
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", cancel (1));
    say ("zqb client", cancel (2));
    assert_int_equal (stats ()->cancelled, 1);
    end ();
}

TEST (a_running_request_that_is_cancelled_is_finished_for_nobody)
{
    begin ();
    say ("zqb worker", ready ("echo", 1));
    say ("zqb client", request ("echo", 1, "x"));
    uint64_t token = hears ("zqb worker", ZQB__REQUEST, "x");
    say ("zqb client", cancel (1));
    whatever_is_heard ();
    say ("zqb worker", partial (token, "y"));
    say ("zqb worker", reply (token, "y"));
    assert_int_equal (count_heard ("zqb client", ZQB__REPLY), 0);
    assert_int_equal (stats ()->cancelled, 1);
    assert_int_equal (stats ()->replied, 0);
    assert_int_equal (stats ()->stale, 0);
    end ();
}

TEST (a_number_that_was_cancelled_may_be_used_again)
{
    begin ();
    say ("zqb worker", ready ("echo", 2));
    say ("zqb client", request ("echo", 1, "old"));
    uint64_t old = hears ("zqb worker", ZQB__REQUEST, "old");
    say ("zqb client", cancel (1));
    whatever_is_heard ();
    say ("zqb client", request ("echo", 1, "new"));
    uint64_t token = hears ("zqb worker", ZQB__REQUEST, "new");
    say ("zqb worker", reply (old, "old"));
    nothing_is_heard ();
    say ("zqb worker", reply (token, "new"));
    hears ("zqb client", ZQB__REPLY, "new");
    end ();
}

/* ---- bad input: lesson 1 */

TEST (a_client_that_sends_nonsense_is_told_if_it_can_be)
{
    begin ();
    malformed ("zqb client", ZQB__CLIENT);
    assert_int_equal (heard ("zqb client", ZQB__ERROR)->status + ZQB_ERRNO, ZQB_EMALFORMED);
    malformed ("mdp client", ZQB__CLIENT);
    malformed ("lru worker", ZQB__WORKER);
    nothing_is_heard ();
    malformed ("mdp worker", ZQB__WORKER);
    heard ("mdp worker", ZQB__DISCONNECT);
    end ();
}

TEST (commands_of_a_later_version_are_passed_over)
{
    begin ();
    for (int type = ZQB__COMMAND_END; type < 256; type++)
        say ("zqb peer", zqb__command (type, 1));
    say ("zqb peer", zqb__command (0, 1));
    nothing_is_heard ();
    end ();
}

TEST (a_peer_may_be_client_and_worker_at_once)
{
    begin ();
    say ("zqb both", ready ("echo", 1));
    say ("zqb both", request ("echo", 1, "to myself"));
    uint64_t token = hears ("zqb both", ZQB__REQUEST, "to myself");
    say ("zqb both", reply (token, "from myself"));
    assert_true (hears ("zqb both", ZQB__REPLY, "from myself") == 1);
    say ("zqb both", request ("echo", 2, "x"));
    world.gone = "zqb both,";
    zqb__engine_lost (&world.engine, peer_named ("zqb both"));
    check_all ();
    assert_int_equal (stats ()->queued + stats ()->running + stats ()->workers, 0);
    end ();
}

/* ---- the end */

TEST (at_the_end_what_is_running_is_cut_off_and_no_dead_letter)
{
    zqb__limits_t limits = usual_limits ();
    limits.attempts = 1;
    assert_ok (begin_with (&limits));
    say ("mdp worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "x"));
    whatever_is_heard ();
    zqb__engine_finish (&world.engine);
    heard ("mdp worker", ZQB__DISCONNECT);
    hears_error ("zqb client", 1, ZQB_ECANCELLED);
    assert_int_equal (stats ()->cancelled, 1);
    assert_int_equal (world.dead, 0);
    end ();
}

TEST (at_the_end_workers_are_sent_away_and_clients_told)
{
    begin ();
    say ("mdp worker", ready ("echo", 0));
    say ("zqb client", request ("echo", 1, "running"));
    say ("zqb client", request ("echo", 2, "queued"));
    say ("zqb client", request ("other", 3, "alone"));
    assert_ok (zqb__engine_handle (&world.engine, "here", some_handler, NULL));
    whatever_is_heard ();
    zqb__engine_finish (&world.engine);
    assert_int_equal (stats ()->cancelled, 3);
    int errors = 0, goodbyes = 0;
    for (; world.read < world.count; world.read++) {
        goodbyes += world.sent[world.read].type == ZQB__DISCONNECT;
        errors += world.sent[world.read].status == ZQB_ECANCELLED - ZQB_ERRNO;
    }
    assert_int_equal (goodbyes, 1);
    assert_int_equal (errors, 3);
    end ();
}

/* ---- no memory */

/* Much of what can happen; whatever cannot, for lack of memory, is refused. */
static void a_day_in_the_life (void)
{
    static const char *const body = "a body that is too long to be kept in the request itself";
    say ("zqb worker", ready ("echo", 2));
    say ("two worker", ready ("echo", 1));
    for (uint64_t id = 1; id <= 4; id++) {
        say ("zqb client", request ("echo", id, body));
        say ("mdp client", request ("other", 0, body));
    }
    say ("zqb client", again (request ("echo", 1, body)));
    say ("zqb client", cancel (2));
    zqb__peer_t *peer = peer_named ("two worker");
    if (peer && peer->worker && peer->worker->load) {
        zqb__request_t *held = ZQB__OF (zqb__request_t, place, peer->worker->hand.next);
        say ("two worker", partial (zqb__slot_token (&held->slot), body));
        say ("two worker", reply (zqb__slot_token (&held->slot), body));
    }
    say ("mdp third", ready ("other", 1));
    say_as ("other address", life_of ("zqb client"), ZQB__ZQB1, again (request ("echo", 3, body)));
    zqb__engine_handle (&world.engine, "here", some_handler, NULL);
    say ("zqb client", request ("here", 9, body));
    say ("zqb worker", disconnect ());
    at_ms (20 * NO_WORKER_MS);
}

TEST (without_memory_at_any_allocation_requests_are_refused_and_everything_still_adds_up)
{
    zqb__limits_t limits = usual_limits ();
    long needed = 0;
    for (long left = 0; !needed; left++) {
        unit_memory_left = left;
        if (begin_with (&limits) == 0) {
            a_day_in_the_life ();
            needed = unit_memory_left > 0 ? left : 0;
            unit_memory_left = -1;
            end ();
        }
        unit_memory_left = -1;
        assert_int_equal (unit_memory_live, 0);
    }
    assert_true (needed > 20);
}

TEST (after_a_shortage_of_memory_everything_works_again)
{
    begin ();
    for (long left = 0; left < 30; left++) {
        unit_memory_left = left;
        a_day_in_the_life ();
        unit_memory_left = -1;
        world.engine.now = world.start;
    }
    whatever_is_heard ();
    say ("mdp fresh", ready ("fresh", 0));
    say ("mdp client", request ("fresh", 0, "x"));
    hears ("mdp fresh", ZQB__REQUEST, "x");
    end ();
}

/* ---- the host's filter */

static int wants_nothing_special (void *self, zqb__command_t *command, zqb__rare_t *wishes, zqb__command_t *refusal)
{
    (void) self, (void) command, (void) refusal;
    memset (wishes, 0, sizeof *wishes);
    return 0;
}

TEST (what_the_host_takes_away_from_a_request_is_not_asked_for)
{
    begin ();
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    rare.priority = ZQB_PRIORITY_LOWEST;
    world.engine.sink.filter = wants_nothing_special;
    zqb__command_t command = request ("echo", 1, "first");
    command.rare = &rare;
    say ("zqb client", command);
    say ("zqb client", request ("echo", 2, "second"));
    say ("zqb worker", ready ("echo", 1));
    hears ("zqb worker", ZQB__REQUEST, "first");
    end ();
}

/* ---- cost: lesson 13. Not a matter of time here: of how many are touched, which the checks of the containers show. */

TEST (ten_thousand_workers_and_requests_come_and_go)
{
    begin ();
    char name[32];
    for (int i = 0; i < 10000; i++) {
        snprintf (name, sizeof name, "mdp %d", i);
        zqb__peer_t *peer = peer_named (name);
        zqb__command_t command = ready ("echo", 0);
        zqb__engine_receive (&world.engine, peer, &command);
    }
    zqb__peer_t *client = peer_named ("zqb client");
    for (uint64_t i = 0; i < 20000; i++) {
        zqb__command_t command = request ("echo", i, "x");
        zqb__engine_receive (&world.engine, client, &command);
    }
    assert_int_equal (stats ()->running, 10000);
    assert_int_equal (stats ()->queued, 10000);
    check_all ();
    for (int i = 0; i < 10000; i++) {
        snprintf (name, sizeof name, "mdp %d", i);
        zqb__peer_t *peer = peer_named (name);
        zqb__command_t command = disconnect ();
        zqb__engine_receive (&world.engine, peer, &command);
        zqb__engine_release (&world.engine, peer);
    }
    assert_int_equal (worker_count (), 0);
    assert_int_equal (stats ()->queued, 20000);
    end ();
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_request_goes_to_a_worker_and_its_reply_to_the_client),
        cmocka_unit_test (a_request_that_comes_before_any_worker_waits_for_one),
        cmocka_unit_test (requests_are_served_in_the_order_in_which_they_came),
        cmocka_unit_test (a_greedy_client_does_not_make_others_wait_behind_all_that_it_sent),
        cmocka_unit_test (clients_take_turns_and_each_is_served_in_its_own_order),
        cmocka_unit_test (a_client_has_turns_of_its_own_at_each_service),
        cmocka_unit_test (a_cancelled_request_costs_its_client_no_turn_and_changes_no_order),
        cmocka_unit_test (what_a_lost_worker_held_has_the_next_turns_in_the_order_in_which_it_got_them),
        cmocka_unit_test (the_worker_that_has_waited_longest_is_served_first),
        cmocka_unit_test (a_heartbeat_does_not_change_whose_turn_it_is),
        cmocka_unit_test (a_worker_never_holds_more_than_its_credit),
        cmocka_unit_test (credit_is_a_word_of_zqb1_only),
        cmocka_unit_test (a_worker_that_leaves_its_credit_to_the_broker_holds_a_millisecond_of_its_work),
        cmocka_unit_test (a_worker_that_becomes_slow_gets_no_more_than_it_can_do_in_a_millisecond),
        cmocka_unit_test (large_requests_fill_a_hand_before_its_credit_does),
        cmocka_unit_test (the_least_loaded_worker_is_served_first),
        cmocka_unit_test (workers_with_great_loads_are_still_told_apart),
        cmocka_unit_test (services_do_not_wait_for_each_other),
        cmocka_unit_test (replies_may_come_in_any_order),
        cmocka_unit_test (a_failure_that_a_worker_reports_is_final_and_told),
        cmocka_unit_test (a_client_whose_dialect_has_no_word_for_errors_hears_nothing),
        cmocka_unit_test (a_worker_that_disconnects_gives_its_requests_to_the_head_of_the_queue),
        cmocka_unit_test (a_worker_whose_connection_is_gone_gives_its_requests_to_the_head_of_the_queue),
        cmocka_unit_test (a_worker_that_sends_nonsense_gives_its_requests_to_the_head_of_the_queue),
        cmocka_unit_test (a_worker_that_cannot_be_sent_to_gives_its_requests_to_the_head_of_the_queue),
        cmocka_unit_test (a_worker_whose_packed_messages_were_not_sent_gives_its_requests_to_the_head_of_the_queue),
        cmocka_unit_test (a_second_ready_starts_anew_and_what_the_worker_held_is_given_again_in_order),
        cmocka_unit_test (a_second_ready_for_another_service_leaves_the_first),
        cmocka_unit_test (what_a_lost_worker_held_goes_at_once_to_one_that_is_free),
        cmocka_unit_test (a_worker_that_cannot_be_reached_when_given_a_request_is_lost_and_the_next_gets_it),
        cmocka_unit_test (a_request_that_never_reached_a_worker_was_not_an_attempt),
        cmocka_unit_test (a_thousand_unreachable_workers_are_lost_over_one_request),
        cmocka_unit_test (a_request_over_which_too_many_workers_were_lost_is_dead_and_its_client_told),
        cmocka_unit_test (a_worker_that_cannot_be_told_that_a_request_of_its_own_is_dead_does_not_register_again),
        cmocka_unit_test (with_one_attempt_a_request_is_executed_at_most_once),
        cmocka_unit_test (without_a_limit_of_attempts_a_request_goes_on),
        cmocka_unit_test (a_request_that_nobody_wants_any_more_is_not_given_again),
        cmocka_unit_test (a_worker_that_is_not_registered_cannot_answer_and_is_told_so),
        cmocka_unit_test (a_worker_cannot_answer_what_another_holds),
        cmocka_unit_test (a_made_up_token_answers_nothing),
        cmocka_unit_test (a_reply_counts_once),
        cmocka_unit_test (a_late_reply_of_a_worker_that_lost_the_request_reaches_nobody),
        cmocka_unit_test (even_the_same_worker_cannot_answer_with_a_token_of_its_former_registration),
        cmocka_unit_test (ready_then_a_reply_that_nobody_asked_for_then_disconnect_harms_nobody),
        cmocka_unit_test (tokens_of_another_life_of_the_broker_answer_nothing),
        cmocka_unit_test (parts_are_passed_on_as_they_come_to_clients_that_know_them),
        cmocka_unit_test (parts_are_gathered_for_clients_that_do_not_know_them),
        cmocka_unit_test (what_was_gathered_of_a_lost_worker_is_forgotten),
        cmocka_unit_test (a_reply_that_grows_too_large_is_a_failure),
        cmocka_unit_test (a_reply_that_is_too_large_is_a_failure_and_told),
        cmocka_unit_test (each_limit_refuses_what_is_over_it_and_counts_that),
        cmocka_unit_test (a_full_queue_does_not_refuse_what_a_free_worker_can_take),
        cmocka_unit_test (there_is_room_as_long_as_a_large_request_fits),
        cmocka_unit_test (services_are_bounded),
        cmocka_unit_test (workers_are_bounded),
        cmocka_unit_test (clients_with_requests_are_bounded),
        cmocka_unit_test (a_request_that_is_too_large_or_has_too_many_frames_is_refused),
        cmocka_unit_test (a_service_goes_when_it_has_neither_workers_nor_requests),
        cmocka_unit_test (a_service_for_every_name_that_anyone_asks_for_does_not_stay),
        cmocka_unit_test (peers_without_a_purpose_are_forgotten_but_for_the_latest),
        cmocka_unit_test (names_that_differ_behind_a_nul_are_different),
        cmocka_unit_test (workers_may_not_register_for_names_that_start_with_mmi),
        cmocka_unit_test (it_is_the_name_of_the_service_that_starts_with_mmi_not_an_address),
        cmocka_unit_test (a_worker_whose_second_ready_is_refused_has_left_the_first_service),
        cmocka_unit_test (a_handler_answers_at_once_and_is_counted_as_a_worker_would_be),
        cmocka_unit_test (a_handlers_reply_to_a_client_that_is_gone_counts_as_that),
        cmocka_unit_test (a_name_is_served_by_workers_or_by_a_handler_not_by_both),
        cmocka_unit_test (a_handler_that_is_removed_takes_its_service_along),
        cmocka_unit_test (requests_that_waited_when_a_handler_came_are_served_by_it),
        cmocka_unit_test (a_request_that_finds_no_worker_in_time_expires_and_its_client_is_told),
        cmocka_unit_test (each_request_has_its_own_time_to_wait),
        cmocka_unit_test (as_long_as_there_is_a_worker_a_request_waits_however_long),
        cmocka_unit_test (when_the_last_worker_leaves_requests_have_their_time_from_then),
        cmocka_unit_test (without_a_limit_of_time_a_request_waits_for_ever),
        cmocka_unit_test (an_idle_worker_hears_from_us_every_heartbeat),
        cmocka_unit_test (heartbeats_leave_on_time_whenever_the_loop_wakes_by_what_the_engine_asks_for),
        cmocka_unit_test (a_busy_worker_hears_from_us_too),
        cmocka_unit_test (anything_that_is_sent_counts_as_a_heartbeat),
        cmocka_unit_test (an_idle_worker_that_is_silent_is_lost_and_told_so),
        cmocka_unit_test (a_worker_that_hangs_is_lost_after_the_time_limit_of_its_service),
        cmocka_unit_test (a_worker_that_finishes_something_in_time_does_not_hang),
        cmocka_unit_test (a_time_limit_holds_for_those_at_work_and_may_be_taken_back),
        cmocka_unit_test (a_worker_that_wants_to_hear_from_us_more_often_does),
        cmocka_unit_test (a_worker_that_speaks_less_often_may_be_silent_for_longer),
        cmocka_unit_test (nobody_is_silent_as_long_as_we_have_not_read_everything),
        cmocka_unit_test (after_a_standstill_nobody_gets_anything_until_it_is_known_who_is_there),
        cmocka_unit_test (without_heartbeats_nothing_is_late),
        cmocka_unit_test (whatever_a_worker_sends_shows_that_it_lives),
        cmocka_unit_test (a_worker_that_sends_heartbeats_does_not_hide_those_that_do_not),
        cmocka_unit_test (a_worker_at_work_may_be_silent_as_long_as_it_likes),
        cmocka_unit_test (a_worker_that_dies_at_work_is_found_by_its_connection),
        cmocka_unit_test (a_worker_that_was_at_work_has_its_whole_time_again),
        cmocka_unit_test (lru_workers_know_no_heartbeats_and_are_spared_them),
        cmocka_unit_test (without_heartbeats_nobody_is_lost_for_silence),
        cmocka_unit_test (a_stranger_that_sends_heartbeats_is_told_to_register),
        cmocka_unit_test (a_heartbeat_that_a_busy_worker_does_not_read_is_not_its_end),
        cmocka_unit_test (after_the_clock_leapt_forward_no_request_is_lost_and_nothing_spins),
        cmocka_unit_test (a_retry_joins_the_request_whether_it_is_queued_or_running),
        cmocka_unit_test (a_retry_of_what_the_broker_has_no_more_is_a_new_request),
        cmocka_unit_test (a_retry_joins_even_when_everything_is_full),
        cmocka_unit_test (numbers_of_one_client_are_not_those_of_another),
        cmocka_unit_test (many_numbers_are_all_found),
        cmocka_unit_test (a_worker_that_speaks_from_another_address_must_register_from_there),
        cmocka_unit_test (a_client_that_comes_over_another_connection_is_known_by_its_life),
        cmocka_unit_test (what_arrives_late_from_a_former_connection_does_not_move_the_client_back),
        cmocka_unit_test (a_client_of_another_life_at_the_same_address_does_not_join_what_the_former_asked),
        cmocka_unit_test (a_zqb1_client_whose_connection_is_gone_is_waited_for),
        cmocka_unit_test (a_zqb1_client_that_does_not_come_back_is_given_up),
        cmocka_unit_test (what_a_client_of_another_dialect_asked_is_dropped_when_its_connection_is_gone),
        cmocka_unit_test (a_client_that_cannot_be_sent_to_loses_what_it_has_queued),
        cmocka_unit_test (all_peers_of_a_connection_go_with_it),
        cmocka_unit_test (a_queued_request_that_is_cancelled_is_dropped),
        cmocka_unit_test (a_running_request_that_is_cancelled_is_finished_for_nobody),
        cmocka_unit_test (a_number_that_was_cancelled_may_be_used_again),
        cmocka_unit_test (a_client_that_sends_nonsense_is_told_if_it_can_be),
        cmocka_unit_test (commands_of_a_later_version_are_passed_over),
        cmocka_unit_test (a_peer_may_be_client_and_worker_at_once),
        cmocka_unit_test (at_the_end_what_is_running_is_cut_off_and_no_dead_letter),
        cmocka_unit_test (at_the_end_workers_are_sent_away_and_clients_told),
        cmocka_unit_test (without_memory_at_any_allocation_requests_are_refused_and_everything_still_adds_up),
        cmocka_unit_test (after_a_shortage_of_memory_everything_works_again),
        cmocka_unit_test (what_the_host_takes_away_from_a_request_is_not_asked_for),
        cmocka_unit_test (ten_thousand_workers_and_requests_come_and_go),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
