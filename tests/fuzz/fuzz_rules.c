/*  Fuzzes the file of rules: any bytes. Shows that reading it comes to an end, says in which line something is wrong, leaks
    nothing, whether or not memory runs out; and that what was read answers any question, the same way each time, as a second,
    plainer reader of the manual's section 10 does.

        make fuzz FUZZ=fuzz_rules FUZZ_SECONDS=60

    The first byte says when memory runs out (0 never), the next two how much of the rest is a user and a service. */

#include "world.h"

static int lines_of (const char *text, size_t size)
{
    int lines = size && text[size - 1] != '\n';
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    return lines;
}

/* ---- the second reader: what a rule says, from the manual, by what was read of it */

static int starts (const zqb__pattern_t *pattern, const char *name, size_t size)
{
    for (size_t i = 0; i < pattern->size; i++)
        if (i >= size || pattern->text[i] != name[i])
            return 0;
    return pattern->star || size == pattern->size;
}

static int is_who (const zqb__rules_t *rules, const zqb__who_t *who, const zqb__ask_t *ask)
{
    if (who->kind == ZQB__WHO_GROUP) {
        const zqb__group_t *group = &rules->groups[who->group];
        for (size_t i = 0; i < group->count; i++)
            if (is_who (rules, &group->members[i], ask))
                return 1;
        return 0;
    }
    return who->kind == ZQB__WHO_NOBODY   ? ask->user == NULL
           : who->kind == ZQB__WHO_INPROC ? ask->local
                                          : ask->user && starts (&who->user, ask->user, ask->user_size);
}

/* Of one name. */
static int judge (const zqb__rules_t *rules, const zqb__ask_t *ask)
{
    for (size_t i = 0; i < rules->count; i++) {
        const zqb__rule_t *rule = &rules->rules[i];
        int mmi = ask->action == ZQB_MAY_MANAGE && rule->actions & ZQB_MAY_CALL && rule->services.size >= 4
                  && strncmp (rule->services.text, "mmi.", 4) == 0;
        if ((rule->actions & ask->action || mmi) && is_who (rules, &rule->who, ask)
            && starts (&rule->services, ask->service, ask->service_size))
            return rule->allow;
    }
    return 0;
}

/* Who may do something to all names of a pattern may do it to each: to those that the rules name, for a start. */
static void check_all (const zqb__rules_t *rules, zqb__ask_t ask)
{
    char pattern[256];
    memcpy (pattern, ask.service, ask.service_size);
    pattern[ask.service_size] = '*';
    ask.all = 1;
    ask.service = pattern;
    ask.service_size++;
    if (!zqb__rules_allow (rules, &ask))
        return;
    size_t prefix = ask.service_size - 1;
    ask.all = 0;
    for (size_t i = 0; i < rules->count; i++) {
        const zqb__pattern_t *services = &rules->rules[i].services;
        if (services->size < prefix || memcmp (services->text, pattern, prefix) != 0 || !services->size)
            continue;
        ask.service = services->text;
        ask.service_size = services->size;
        CHECK (judge (rules, &ask), "who may do it to all may do it to each");
    }
}

static void ask_all (const zqb__rules_t *rules, const char *user, size_t user_size, const char *service, size_t size)
{
    zqb__ask_t ask = {user_size ? user : NULL, user_size, 0, 0, service, size, 0};
    for (int local = 0; local <= 1; local++)
        for (ask.action = ZQB_MAY_CALL; ask.action <= ZQB_MAY_MANAGE; ask.action *= 2) {
            ask.local = local && !ask.user;
            CHECK (zqb__rules_allow (rules, &ask) == judge (rules, &ask), "two readers agree");
            if (size < 255)
                check_all (rules, ask);
        }
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    script_t script = {data, size};
    int line = 0;
    unsigned fails = script_byte (&script);
    script_t user = script_part (&script, script_byte (&script) % 16);
    script_t service = script_part (&script, 1 + script_byte (&script) % 16);
    char *text = (char *) fuzz_must (malloc (script.left ? script.left : 1)); /* of the exact size, for the sanitizer */
    memcpy (text, script.at, script.left);
    world_begin ();
    world.memory_holds = fails ? fails - 1 : 0;
    world.memory_fails = fails ? 1 : 0;
    zqb__rules_t *rules = zqb__rules_new ();
    const char *wrong = rules ? zqb__rules_read (rules, text, script.left, &line) : zqb__no_memory;
    world.memory_fails = 0;
    CHECK (wrong != zqb__no_memory || world.failed, "there was memory");
    CHECK (!rules || !wrong || (line >= 1 && line <= lines_of (text, script.left)), "what is wrong is in a line");
    if (!wrong && service.left)
        ask_all (rules, (const char *) user.at, user.left, (const char *) service.at, service.left);
    zqb__rules_free (rules);
    free (text);
    world_end ();
    return 0;
}
