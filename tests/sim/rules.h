/*  Random rules of who may do what, and the text of them that the engine reads. To be included by sim.c. */

#ifndef SIM_RULES_H
#define SIM_RULES_H

/* What rules are about: the services that a seed has, by their numbers. */
typedef struct named_t {
    char (*names)[256];
    const uint8_t *sizes;
    int numbers[SERVICES_MOST];
    uint32_t count;
} named_t;

/* ---- drawing */

/* This name, or all that begin like it. */
static names_t draw_names_meant (chance_t *chance, const char *name, size_t size)
{
    names_t names = {name, size, (int) chance_below (chance, 2)};
    if (names.star && !chance_one_in (chance, 8))
        names.size = chance_below (chance, (uint32_t) (size < 8 ? size : 8) + 1);
    return names;
}

static who_t draw_who (chance_t *chance, int groups)
{
    who_t who = {(int) chance_below (chance, groups ? 7 : 5), 0, {"", 0, 0}};
    who.kind = who.kind < 3 ? A_USER : who.kind == 3 ? NO_USER : who.kind == 4 ? NEIGHBOURS : A_GROUP;
    if (who.kind == A_GROUP)
        who.group = (int) chance_below (chance, (uint32_t) groups);
    if (who.kind != A_USER)
        return who;
    const char *name = user_names[USERS_FROM + (int) chance_below (chance, IN_PROCESS - USERS_FROM)];
    who.users = draw_names_meant (chance, name, strlen (name));
    return who;
}

static void draw_groups (chance_t *chance, rules_t *rules)
{
    rules->group_count = (int) chance_below (chance, GROUPS_MOST + 1);
    for (int i = 0; i < rules->group_count; i++) {
        rules->member_count[i] = (int) chance_below (chance, MEMBERS_MOST + 1);
        for (int j = 0; j < rules->member_count[i]; j++)
            rules->members[i][j] = draw_who (chance, 0);
    }
}

/* Some are like the one before, but for other services. */
static void draw_rule (chance_t *chance, rules_t *rules, const named_t *named)
{
    rule_t *rule = &rules->rules[rules->count++];
    int service = named->numbers[chance_below (chance, named->count)];
    rule->allow = (int) chance_below (chance, 2);
    rule->actions = chance_one_in (chance, 4) ? MAY_CALL | MAY_SERVE : 1 << chance_below (chance, 3);
    rule->who = draw_who (chance, rules->group_count);
    if (rules->count > 1 && chance_one_in (chance, 4))
        *rule = rule[-1];
    rule->services = draw_names_meant (chance, named->names[service], named->sizes[service]);
}

/* What no rule before is about is mostly allowed, or else little would happen. */
static void draw_last_rules (chance_t *chance, rules_t *rules)
{
    static const int kinds[] = {A_USER, NO_USER, NEIGHBOURS};
    for (int i = 0; i < 3; i++) {
        rule_t rule = {1, MAY_CALL | MAY_SERVE | MAY_MANAGE, {kinds[i], 0, {"", 0, 1}}, {"", 0, 1}};
        if (chance_one_in (chance, 8))
            rule.actions &= ~(1 << chance_below (chance, 3));
        if (!chance_one_in (chance, 8))
            rules->rules[rules->count++] = rule;
    }
}

static void draw_rules (chance_t *chance, rules_t *rules, const named_t *named)
{
    uint32_t count = chance_below (chance, 1 + chance_below (chance, RULES_MOST - 3));
    memset (rules, 0, sizeof *rules);
    draw_groups (chance, rules);
    while ((uint32_t) rules->count < count)
        draw_rule (chance, rules, named);
    draw_last_rules (chance, rules);
}

/* ---- writing: as people may, with more blanks than it takes, and comments */

typedef struct page_t {
    chance_t *chance;
    char *text;
    size_t size, room;
} page_t;

static void write_text (page_t *page, const char *text)
{
    size_t size = strlen (text);
    if (page->size + size > page->room)
        abort (); /* our own memory */
    memcpy (page->text + page->size, text, size);
    page->size += size;
}

static void write_blank (page_t *page)
{
    static const char *const blanks[] = {" ", " ", "\t", "   "};
    write_text (page, blanks[chance_below (page->chance, 4)]);
}

static void write_end (page_t *page)
{
    static const char *const ends[] = {"\n", "\n", "\r\n", " # so be it\n", "\n\n#\n"};
    write_text (page, ends[chance_below (page->chance, 5)]);
}

/* Bytes that mean something else are written in hexadecimal, and now and then others. */
static void write_names (page_t *page, const names_t *names)
{
    char byte[8];
    write_blank (page);
    for (size_t i = 0; i < names->size; i++) {
        char letter = names->text[i];
        int plain = (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z');
        snprintf (byte, sizeof byte, plain && !chance_one_in (page->chance, 32) ? "%c" : "\\x%02x", letter);
        write_text (page, byte);
    }
    if (names->star)
        write_text (page, "*");
}

static void write_group (page_t *page, int group)
{
    static const char *const names[GROUPS_MOST] = {"g", "gg", "inproc2"};
    write_text (page, names[group]);
}

static void write_who (page_t *page, const who_t *who)
{
    if (who->kind == A_USER) {
        write_names (page, &who->users);
        return;
    }
    write_blank (page);
    write_text (page, who->kind == NO_USER ? "-" : who->kind == NEIGHBOURS ? "@inproc" : "@");
    if (who->kind == A_GROUP)
        write_group (page, who->group);
}

/* One line, or several that add to each other. */
static void write_members (page_t *page, const rules_t *rules, int group)
{
    for (int i = -1; i < rules->member_count[group]; i++) {
        if (i < 0 || chance_one_in (page->chance, 3)) {
            if (i >= 0)
                write_end (page);
            write_text (page, "group");
            write_blank (page);
            write_group (page, group);
        }
        if (i >= 0)
            write_who (page, &rules->members[group][i]);
    }
    write_end (page);
}

static void write_actions (page_t *page, int actions)
{
    static const char *const words[] = {"call", "serve", "manage"};
    const char *before = "";
    write_blank (page);
    for (int i = 0; i < 3; i++)
        if (actions >> i & 1) {
            write_text (page, before);
            write_text (page, words[i]);
            before = ",";
        }
}

static int are_same (const who_t *a, const who_t *b)
{
    return a->kind == b->kind && a->group == b->group && a->users.text == b->users.text
           && a->users.size == b->users.size && a->users.star == b->users.star;
}

/* Whether two rules may be written in one line. */
static int have_same_line (const rule_t *a, const rule_t *b)
{
    return a->allow == b->allow && a->actions == b->actions && are_same (&a->who, &b->who);
}

/* Writes them as a file of rules has them; its size. */
static size_t write_rules (chance_t *chance, const rules_t *rules, char *text, size_t room)
{
    page_t page = {chance, text, 0, room};
    for (int i = 0; i < rules->group_count; i++)
        write_members (&page, rules, i);
    for (int i = 0; i < rules->count; i++) {
        const rule_t *rule = &rules->rules[i];
        if (i == 0 || !have_same_line (rule - 1, rule)) {
            write_text (&page, rule->allow ? "allow" : "deny");
            write_who (&page, &rule->who);
            write_actions (&page, rule->actions);
        }
        write_names (&page, &rule->services);
        if (i + 1 == rules->count || !have_same_line (rule, rule + 1))
            write_end (&page);
    }
    return page.size;
}

#endif
