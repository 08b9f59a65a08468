/*  The mutator of the fuzzers: a script is a list of steps (script.h), so half of the time whole steps are taken out, said
    twice, moved, or changed within; the other half libFuzzer does to the bytes what it always does. Linked with a target
    that is built with clang -fsanitize=fuzzer. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate (uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerCustomCrossOver (const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out,
                                  size_t most, unsigned seed);

enum { STEPS_MOST = 1024, STEP_SIZE = 256 };

/* Where steps start; the end is at places[count]. */
typedef struct steps_t {
    size_t places[STEPS_MOST + 1];
    size_t count;
} steps_t;

static uint32_t dice;

static size_t below (size_t limit)
{
    dice = dice * 1664525u + 1013904223u;
    return limit ? (dice >> 8) % limit : 0;
}

static void find_steps (steps_t *steps, const uint8_t *data, size_t size)
{
    size_t at = 0;
    for (steps->count = 0; at < size && steps->count < STEPS_MOST; at += 1u + data[at])
        steps->places[steps->count++] = at;
    steps->places[steps->count] = at < size ? at : size;
}

static size_t length_of (const steps_t *steps, size_t step)
{
    return steps->places[step + 1] - steps->places[step];
}

/* Replaces bytes by others, which are elsewhere; returns the new size, or the old one if that would be too large. */
static size_t splice (uint8_t *data, size_t size, size_t most, size_t at, size_t taken, const uint8_t *put, size_t put_size)
{
    if (size - taken + put_size > most)
        return size;
    memmove (data + at + put_size, data + at + taken, size - at - taken);
    memcpy (data + at, put, put_size);
    return size - taken + put_size;
}

static size_t erase_steps (uint8_t *data, size_t size, const steps_t *steps)
{
    size_t first = below (steps->count), many = 1 + below (below (4) ? 1 : steps->count - first);
    size_t at = steps->places[first];
    return splice (data, size, size, at, steps->places[first + many] - at, data, 0);
}

/* A step is said again, somewhere else. */
static size_t repeat_step (uint8_t *data, size_t size, size_t most, const steps_t *steps)
{
    uint8_t copy[STEP_SIZE];
    size_t from = below (steps->count), to = below (steps->count + 1), length = length_of (steps, from);
    memcpy (copy, data + steps->places[from], length);
    return splice (data, size, most, steps->places[to], 0, copy, length);
}

static size_t move_step (uint8_t *data, size_t size, const steps_t *steps)
{
    uint8_t copy[STEP_SIZE];
    steps_t left;
    size_t from = below (steps->count), length = length_of (steps, from);
    memcpy (copy, data + steps->places[from], length);
    size_t rest = splice (data, size, size, steps->places[from], length, data, 0);
    find_steps (&left, data, rest);
    return splice (data, rest, size, left.places[below (left.count + 1)], 0, copy, length);
}

/* The bytes of one step change, and perhaps how many they are. */
static size_t change_step (uint8_t *data, size_t size, size_t most, const steps_t *steps)
{
    uint8_t copy[STEP_SIZE];
    size_t step = below (steps->count), length = length_of (steps, step) - 1;
    memcpy (copy + 1, data + steps->places[step] + 1, length);
    copy[0] = (uint8_t) (length = LLVMFuzzerMutate (copy + 1, length, STEP_SIZE - 1));
    return splice (data, size, most, steps->places[step], length_of (steps, step), copy, 1 + length);
}

size_t LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t most, unsigned seed)
{
    steps_t steps;
    dice = seed;
    find_steps (&steps, data, size);
    size_t changed = size;
    switch (steps.count && size <= most ? below (10) : 9) {
        case 0: changed = erase_steps (data, size, &steps); break;
        case 1: changed = repeat_step (data, size, most, &steps); break;
        case 2: changed = move_step (data, size, &steps); break;
        case 3:
        case 4:
        case 5:
        case 6: changed = change_step (data, size, most, &steps); break;
        default: break;
    }
    return changed != size || below (2) ? changed : LLVMFuzzerMutate (data, size, most);
}

/* The first steps of one script, and the last of another. */
size_t LLVMFuzzerCustomCrossOver (const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out,
                                  size_t most, unsigned seed)
{
    steps_t in_a, in_b;
    dice = seed;
    find_steps (&in_a, a, a_size);
    find_steps (&in_b, b, b_size);
    size_t from_a = in_a.places[below (in_a.count + 1)], at_b = in_b.places[below (in_b.count + 1)];
    size_t from_b = b_size - at_b;
    from_a = from_a < most ? from_a : most;
    from_b = from_b < most - from_a ? from_b : most - from_a;
    memcpy (out, a, from_a);
    memcpy (out + from_a, b + at_b, from_b);
    return from_a + from_b;
}
