/* List, table, heap, slab, buffer and the integers of the wire. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"

/* Numbers that look random and are the same each time. */
static uint64_t dice;

static uint64_t roll (uint64_t sides)
{
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (dice >> 33) % sides;
}

/* ---- list */

typedef struct item_t {
    int number;
    zqb__link_t link;
} item_t;

static int nth (zqb__link_t *head, int n)
{
    zqb__link_t *at = head->next;
    while (n-- > 0)
        at = at->next;
    return at == head ? -1 : ZQB__OF (item_t, link, at)->number;
}

static void fill_list (zqb__link_t *head, item_t *items, int count)
{
    zqb__list_init (head);
    for (int i = 0; i < count; i++) {
        items[i].number = i;
        zqb__list_append (head, &items[i].link);
    }
}

TEST (a_list_keeps_its_items_in_order)
{
    zqb__link_t head;
    item_t items[3];
    fill_list (&head, items, 3);
    assert_int_equal (nth (&head, 0), 0);
    assert_int_equal (nth (&head, 2), 2);
    assert_int_equal (nth (&head, 3), -1);
}

TEST (an_item_can_be_put_in_front_of_another)
{
    zqb__link_t head;
    item_t items[3];
    fill_list (&head, items, 2);
    items[2].number = 2;
    zqb__list_insert (&items[1].link, &items[2].link);
    assert_int_equal (nth (&head, 1), 2);
    assert_int_equal (nth (&head, 2), 1);
}

TEST (an_item_can_be_removed_twice)
{
    zqb__link_t head;
    item_t items[2];
    fill_list (&head, items, 2);
    zqb__list_remove (&items[0].link);
    zqb__list_remove (&items[0].link);
    assert_int_equal (nth (&head, 0), 1);
    zqb__list_remove (&items[1].link);
    assert_true (zqb__list_empty (&head));
}

/* ---- table */

typedef struct entry_t {
    int number;
    zqb__node_t node;
} entry_t;

static int has (const zqb__table_t *table, uint64_t hash, const entry_t *entry)
{
    for (zqb__node_t *node = zqb__table_first (table, hash); node; node = zqb__table_next (node))
        if (ZQB__OF (entry_t, node, node) == entry)
            return 1;
    return 0;
}

enum { ENTRIES = 40000 };

TEST (a_table_finds_each_of_many_as_it_grows_and_shrinks)
{
    zqb__table_t table;
    entry_t *entries = (entry_t *) calloc (ENTRIES, sizeof *entries);
    assert_ok (zqb__table_init (&table));
    for (uint64_t i = 0; i < ENTRIES; i++)
        zqb__table_insert (&table, &entries[i].node, i * 0x9e3779b97f4a7c15u);
    assert_int_equal (table.count, ENTRIES);
    assert_true (table.size >= ENTRIES / 2);
    for (uint64_t i = 0; i < ENTRIES; i++) {
        assert_true (has (&table, i * 0x9e3779b97f4a7c15u, &entries[i]));
        if (i >= 10)
            zqb__table_remove (&table, &entries[i].node);
    }
    assert_int_equal (table.count, 10);
    assert_true (table.size < ENTRIES / 2);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal (has (&table, i * 0x9e3779b97f4a7c15u, &entries[i]), i < 10);
    zqb__table_close (&table);
    free (entries);
}

TEST (a_table_keeps_entries_of_the_same_hash_apart)
{
    zqb__table_t table;
    entry_t entries[3];
    assert_ok (zqb__table_init (&table));
    for (int i = 0; i < 3; i++)
        zqb__table_insert (&table, &entries[i].node, 7);
    zqb__table_remove (&table, &entries[1].node);
    assert_true (has (&table, 7, &entries[0]));
    assert_false (has (&table, 7, &entries[1]));
    assert_true (has (&table, 7, &entries[2]));
    assert_false (has (&table, 7 + 16, &entries[0]));
    zqb__table_close (&table);
}

/* A walk along the chain for each would take minutes. */
TEST (many_entries_of_one_hash_are_removed_in_any_order)
{
    enum { MANY = 400000 };
    zqb__table_t table;
    entry_t *entries = (entry_t *) calloc (MANY, sizeof *entries);
    assert_ok (zqb__table_init (&table));
    for (int i = 0; i < MANY; i++)
        zqb__table_insert (&table, &entries[i].node, 7);
    for (int i = 0; i < MANY; i += 2)
        zqb__table_remove (&table, &entries[i].node);
    for (int i = MANY - 1; i > 1; i -= 2)
        zqb__table_remove (&table, &entries[i].node);
    assert_int_equal (table.count, 1);
    assert_true (has (&table, 7, &entries[1]));
    assert_ptr_equal (zqb__table_next (&entries[1].node), NULL);
    zqb__table_close (&table);
    free (entries);
}

TEST (a_table_without_memory_to_grow_still_finds_everything)
{
    zqb__table_t table;
    static entry_t entries[200];
    assert_ok (zqb__table_init (&table));
    unit_memory_left = 0;
    for (uint64_t i = 0; i < COUNT (entries); i++)
        zqb__table_insert (&table, &entries[i].node, i);
    unit_memory_left = -1;
    for (uint64_t i = 0; i < COUNT (entries); i++)
        assert_true (has (&table, i, &entries[i]));
    zqb__table_close (&table);
}

TEST (a_table_without_memory_is_not_made)
{
    zqb__table_t table;
    unit_memory_left = 0;
    assert_fails (zqb__table_init (&table), ENOMEM);
    unit_memory_left = -1;
}

/* Vectors of Rust's core, whose tests have 64 of them for 1-3; the authors' own are for 2-4. */
TEST (hashes_are_siphash_1_3)
{
    zqb__key_t zero = {0, 0}, key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char) i;
    assert_true (zqb__hash (key, bytes, 0) == 0xabac0158050fc4dcu);
    assert_true (zqb__hash (key, bytes, 1) == 0xc9f49bf37d57ca93u);
    assert_true (zqb__hash (zero, bytes, 8) != zqb__hash (key, bytes, 8));
}

TEST (a_hash_sees_every_byte_and_the_length)
{
    zqb__key_t key = {1, 2};
    unsigned char bytes[24];
    memset (bytes, 0, sizeof bytes);
    for (size_t size = 0; size < sizeof bytes; size++) {
        uint64_t hash = zqb__hash (key, bytes, size);
        assert_true (hash != zqb__hash (key, bytes, size + 1));
        for (size_t i = 0; i < size; i++) {
            bytes[i] = 1;
            assert_true (hash != zqb__hash (key, bytes, size));
            bytes[i] = 0;
        }
    }
}

/* ---- heap */

TEST (timers_come_due_in_the_order_of_their_times)
{
    zqb__heap_t heap;
    static zqb__timer_t timers[500];
    memset (&heap, 0, sizeof heap);
    for (size_t i = 0; i < COUNT (timers); i++)
        assert_ok (zqb__heap_set (&heap, &timers[i], roll (1000)));
    uint64_t last = 0;
    for (zqb__timer_t *timer; (timer = zqb__heap_due (&heap, UINT64_MAX)) != NULL;) {
        assert_true (timer->at >= last);
        assert_int_equal (timer->place, 0);
        last = timer->at;
    }
    assert_int_equal (heap.count, 0);
    zqb__heap_close (&heap);
}

TEST (a_timer_is_due_at_its_time_and_not_before)
{
    zqb__heap_t heap;
    zqb__timer_t timer;
    memset (&heap, 0, sizeof heap);
    memset (&timer, 0, sizeof timer);
    assert_true (zqb__heap_next_at (&heap) == UINT64_MAX);
    assert_ok (zqb__heap_set (&heap, &timer, 100));
    assert_true (zqb__heap_next_at (&heap) == 100);
    assert_null (zqb__heap_due (&heap, 99));
    assert_ptr_equal (zqb__heap_due (&heap, 100), &timer);
    assert_null (zqb__heap_due (&heap, UINT64_MAX));
    zqb__heap_close (&heap);
}

/* The earliest of those that run, found by looking at each. */
static uint64_t earliest (const zqb__timer_t *timers, size_t count)
{
    uint64_t at = UINT64_MAX;
    for (size_t i = 0; i < count; i++)
        if (timers[i].place && timers[i].at < at)
            at = timers[i].at;
    return at;
}

TEST (timers_may_be_set_again_and_removed_in_any_order)
{
    zqb__heap_t heap;
    static zqb__timer_t timers[64];
    memset (&heap, 0, sizeof heap);
    for (int i = 0; i < 20000; i++) {
        zqb__timer_t *timer = &timers[roll (COUNT (timers))];
        if (roll (3))
            assert_ok (zqb__heap_set (&heap, timer, roll (100)));
        else
            zqb__heap_remove (&heap, timer);
        assert_true (zqb__heap_next_at (&heap) == earliest (timers, COUNT (timers)));
    }
    zqb__heap_close (&heap);
}

TEST (a_timer_that_runs_can_be_set_without_memory_a_new_one_not)
{
    zqb__heap_t heap;
    zqb__timer_t first, second;
    memset (&heap, 0, sizeof heap);
    memset (&first, 0, sizeof first);
    memset (&second, 0, sizeof second);
    assert_ok (zqb__heap_set (&heap, &first, 5));
    unit_memory_left = 0;
    assert_ok (zqb__heap_set (&heap, &first, 9));
    assert_fails (zqb__heap_set (&heap, &second, 1), ENOMEM);
    unit_memory_left = -1;
    assert_int_equal (second.place, 0);
    assert_true (zqb__heap_next_at (&heap) == 9);
    zqb__heap_close (&heap);
}

/* ---- slab */

typedef struct thing_t {
    zqb__slot_t slot;
    int value;
} thing_t;

TEST (a_token_finds_its_item_until_it_is_given_back)
{
    zqb__slab_t slab;
    zqb__slab_init (&slab, sizeof (thing_t), 77);
    thing_t *thing = (thing_t *) zqb__slab_new (&slab);
    uint64_t token = zqb__slot_token (&thing->slot);
    assert_int_equal (thing->value, 0);
    assert_ptr_equal (zqb__slab_find (&slab, token), thing);
    zqb__slab_free (&slab, &thing->slot);
    assert_null (zqb__slab_find (&slab, token));
    zqb__slab_close (&slab);
}

TEST (the_token_of_the_next_item_in_a_place_is_another)
{
    zqb__slab_t slab;
    zqb__slab_init (&slab, sizeof (thing_t), 1);
    thing_t *first = (thing_t *) zqb__slab_new (&slab);
    uint64_t old = zqb__slot_token (&first->slot);
    first->value = 3;
    zqb__slab_free (&slab, &first->slot);
    thing_t *second = (thing_t *) zqb__slab_new (&slab);
    assert_ptr_equal (first, second);
    assert_int_equal (second->value, 0);
    assert_null (zqb__slab_find (&slab, old));
    assert_true (zqb__slot_token (&second->slot) != old);
    zqb__slab_close (&slab);
}

TEST (a_renewed_item_is_found_by_its_new_token_only)
{
    zqb__slab_t slab;
    zqb__slab_init (&slab, sizeof (thing_t), 0xfffffffe);
    thing_t *thing = (thing_t *) zqb__slab_new (&slab);
    for (int i = 0; i < 5; i++) {
        uint64_t old = zqb__slot_token (&thing->slot), token = zqb__slot_renew (&thing->slot);
        assert_null (zqb__slab_find (&slab, old));
        assert_ptr_equal (zqb__slab_find (&slab, token), thing);
    }
    zqb__slab_close (&slab);
}

TEST (tokens_are_never_0)
{
    zqb__slab_t slab;
    zqb__slab_init (&slab, sizeof (thing_t), 0xfffffffe);
    for (int i = 0; i < 10; i++) {
        thing_t *thing = (thing_t *) zqb__slab_new (&slab);
        assert_true (zqb__slot_token (&thing->slot) != 0);
        zqb__slab_free (&slab, &thing->slot);
    }
    zqb__slab_close (&slab);
}

TEST (made_up_tokens_find_nothing)
{
    zqb__slab_t slab;
    zqb__slab_init (&slab, sizeof (thing_t), 12345678);
    assert_null (zqb__slab_find (&slab, 1));
    thing_t *thing = (thing_t *) zqb__slab_new (&slab);
    uint64_t token = zqb__slot_token (&thing->slot);
    for (int bit = 0; bit < 64; bit++)
        assert_null (zqb__slab_find (&slab, token ^ (uint64_t) 1 << bit));
    zqb__slab_close (&slab);
}

TEST (tokens_of_a_former_life_find_nothing)
{
    zqb__slab_t former, slab;
    zqb__slab_init (&former, sizeof (thing_t), 1000);
    zqb__slab_init (&slab, sizeof (thing_t), 5000);
    for (int i = 0; i < 300; i++) {
        thing_t *old = (thing_t *) zqb__slab_new (&former);
        assert_non_null (zqb__slab_new (&slab));
        assert_null (zqb__slab_find (&slab, zqb__slot_token (&old->slot)));
    }
    zqb__slab_close (&former);
    zqb__slab_close (&slab);
}

TEST (many_items_keep_their_places_and_their_memory_is_used_again)
{
    zqb__slab_t slab;
    static thing_t *things[1000];
    zqb__slab_init (&slab, sizeof (thing_t), 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) {
            things[i] = (thing_t *) zqb__slab_new (&slab);
            things[i]->value = i;
        }
        for (int i = 0; i < 1000; i++) {
            assert_int_equal (things[i]->value, i);
            zqb__slab_free (&slab, &things[i]->slot);
        }
    }
    assert_int_equal (slab.chunk_count, (1000 + ZQB__SLAB_CHUNK - 1) / ZQB__SLAB_CHUNK);
    zqb__slab_close (&slab);
}

TEST (a_slab_without_memory_gives_nothing_and_recovers)
{
    zqb__slab_t slab;
    zqb__slab_init (&slab, sizeof (thing_t), 0);
    for (long left = 0; left < 2; left++) {
        unit_memory_left = left;
        assert_none (zqb__slab_new (&slab), ENOMEM);
    }
    unit_memory_left = -1;
    assert_non_null (zqb__slab_new (&slab));
    zqb__slab_close (&slab);
}

/* ---- buffer and integers */

TEST (a_buffer_keeps_what_was_added)
{
    zqb__buffer_t buffer;
    memset (&buffer, 0, sizeof buffer);
    for (int i = 0; i < 1000; i++)
        *zqb__buffer_add (&buffer, 1) = (unsigned char) i;
    assert_int_equal (buffer.size, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal (buffer.bytes[i], i & 0xff);
    zqb__buffer_close (&buffer);
}

TEST (a_buffer_without_memory_stays_as_it_was)
{
    zqb__buffer_t buffer;
    memset (&buffer, 0, sizeof buffer);
    assert_non_null (zqb__buffer_add (&buffer, 4));
    unit_memory_left = 0;
    assert_none (zqb__buffer_add (&buffer, 100), ENOMEM);
    unit_memory_left = -1;
    assert_int_equal (buffer.size, 4);
    zqb__buffer_close (&buffer);
}

TEST (integers_on_the_wire_are_big_endian)
{
    unsigned char bytes[8];
    zqb__put_64 (bytes, 0x0102030405060708u);
    assert_memory_equal (bytes, "\1\2\3\4\5\6\7\10", 8);
    assert_true (zqb__get_64 (bytes) == 0x0102030405060708u);
    zqb__put_32 (bytes, 0xfffefdfcu);
    assert_memory_equal (bytes, "\377\376\375\374", 4);
    assert_true (zqb__get_32 (bytes) == 0xfffefdfcu);
    zqb__put_16 (bytes, 0xff01);
    assert_memory_equal (bytes, "\377\1", 2);
    assert_int_equal (zqb__get_16 (bytes), 0xff01);
}

TEST (nothing_here_leaks)
{
    assert_int_equal (unit_memory_live, 0);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_list_keeps_its_items_in_order),
        cmocka_unit_test (an_item_can_be_put_in_front_of_another),
        cmocka_unit_test (an_item_can_be_removed_twice),
        cmocka_unit_test (a_table_finds_each_of_many_as_it_grows_and_shrinks),
        cmocka_unit_test (a_table_keeps_entries_of_the_same_hash_apart),
        cmocka_unit_test (many_entries_of_one_hash_are_removed_in_any_order),
        cmocka_unit_test (a_table_without_memory_to_grow_still_finds_everything),
        cmocka_unit_test (a_table_without_memory_is_not_made),
        cmocka_unit_test (hashes_are_siphash_1_3),
        cmocka_unit_test (a_hash_sees_every_byte_and_the_length),
        cmocka_unit_test (timers_come_due_in_the_order_of_their_times),
        cmocka_unit_test (a_timer_is_due_at_its_time_and_not_before),
        cmocka_unit_test (timers_may_be_set_again_and_removed_in_any_order),
        cmocka_unit_test (a_timer_that_runs_can_be_set_without_memory_a_new_one_not),
        cmocka_unit_test (a_token_finds_its_item_until_it_is_given_back),
        cmocka_unit_test (the_token_of_the_next_item_in_a_place_is_another),
        cmocka_unit_test (a_renewed_item_is_found_by_its_new_token_only),
        cmocka_unit_test (tokens_are_never_0),
        cmocka_unit_test (made_up_tokens_find_nothing),
        cmocka_unit_test (tokens_of_a_former_life_find_nothing),
        cmocka_unit_test (many_items_keep_their_places_and_their_memory_is_used_again),
        cmocka_unit_test (a_slab_without_memory_gives_nothing_and_recovers),
        cmocka_unit_test (a_buffer_keeps_what_was_added),
        cmocka_unit_test (a_buffer_without_memory_stays_as_it_was),
        cmocka_unit_test (integers_on_the_wire_are_big_endian),
        cmocka_unit_test (nothing_here_leaks),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
