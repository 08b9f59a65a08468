/* Who may do what: the rules and how they are written, by themselves; what the engine makes of them; and users over real
   sockets, with a ZAP handler of the test's own. */
#define ZQBROKER_IMPLEMENTATION
#include "unit_memory.h"
#include "zqbroker.h"
#include "unit.h"
#include "unit_engine.h"
#include "unit_world.h"
#include "unit_text.h"
#include "unit_played.h"

#include <sys/stat.h>

/* ---- rules by themselves */

static zqb__rules_t *rules;

static const char *read_rules (const char *text, int *line)
{
    zqb__rules_free (rules);
    rules = zqb__rules_new ();
    return zqb__rules_read (rules, text, strlen (text), line);
}

static void with_rules (const char *text)
{
    int line;
    assert_null (read_rules (text, &line));
}

static int forget_rules (UNUSED void **state)
{
    zqb__rules_free (rules);
    rules = NULL;
    return unit_memory_live != 0;
}

#define RULES(name) cmocka_unit_test_teardown (name, forget_rules)

static int may (const char *user, int action, const char *service)
{
    zqb__ask_t ask;
    memset (&ask, 0, sizeof ask);
    ask.user = *user ? user : NULL;
    ask.user_size = strlen (user);
    ask.local = strcmp (user, "@inproc") == 0;
    if (ask.local)
        ask.user = NULL;
    ask.action = action;
    ask.service = service;
    ask.service_size = strlen (service);
    ask.all = service[ask.service_size - 1] == '*';
    return zqb__rules_allow (rules, &ask);
}

#define may_call(user, service) may (user, ZQB_MAY_CALL, service)
#define may_serve(user, service) may (user, ZQB_MAY_SERVE, service)
#define may_manage(user, service) may (user, ZQB_MAY_MANAGE, service)

TEST (what_no_rule_is_about_is_denied)
{
    with_rules ("");
    assert_false (may_call ("alice", "echo"));
    with_rules ("allow alice call echo\n");
    assert_true (may_call ("alice", "echo"));
    assert_false (may_call ("alice", "echo2"));
    assert_false (may_call ("alice", "ech"));
    assert_false (may_call ("alic", "echo"));
    assert_false (may_call ("alice2", "echo"));
    assert_false (may_serve ("alice", "echo"));
    assert_false (may_manage ("alice", "echo"));
    assert_false (may_call ("", "echo"));
}

TEST (the_first_rule_that_is_about_it_says)
{
    with_rules ("deny  bob call pay.refund\n"
                "allow bob call pay.*\n"
                "deny  *   call pay.*\n"
                "allow *   call *\n");
    assert_false (may_call ("bob", "pay.refund"));
    assert_true (may_call ("bob", "pay.out"));
    assert_false (may_call ("eve", "pay.out"));
    assert_true (may_call ("eve", "echo"));
}

TEST (users_are_names_or_all_that_begin_so_and_a_star_is_nobody_without_a_name)
{
    with_rules ("allow team.* call one\nallow * call two\nallow - call three\nallow @inproc call four\n");
    assert_true (may_call ("team.a", "one"));
    assert_true (may_call ("team.", "one"));
    assert_false (may_call ("team", "one"));
    assert_true (may_call ("anybody", "two"));
    assert_false (may_call ("", "two"));
    assert_true (may_call ("", "three"));
    assert_true (may_call ("@inproc", "three"));
    assert_false (may_call ("-", "three"));
    assert_true (may_call ("@inproc", "four"));
    assert_false (may_call ("", "four"));
}

TEST (a_group_is_its_members_of_all_lines_that_have_its_name)
{
    with_rules ("group staff alice team.*\nallow @staff call,serve echo img.*\ngroup staff bob -\n");
    const char *members[] = {"alice", "team.x", "bob", ""};
    for (size_t i = 0; i < COUNT (members); i++) {
        assert_true (may_call (members[i], "echo"));
        assert_true (may_serve (members[i], "img.x"));
        assert_false (may_manage (members[i], "echo"));
    }
    assert_false (may_call ("eve", "echo"));
}

TEST (who_serves_a_pattern_must_be_allowed_to_serve_all_its_names)
{
    with_rules ("deny w serve img.secret\nallow w serve *\nallow v serve img.a*\nallow u serve img.*\nallow t serve img.x\n");
    assert_false (may_serve ("w", "img.*"));
    assert_false (may_serve ("w", "i*"));
    assert_false (may_serve ("w", "*"));
    assert_false (may_serve ("w", "img.secret"));
    assert_true (may_serve ("w", "img.secret.*"));
    assert_true (may_serve ("w", "img.public*"));
    assert_true (may_serve ("v", "img.abc*"));
    assert_false (may_serve ("v", "img.*"));
    assert_true (may_serve ("u", "img.*"));
    assert_false (may_serve ("t", "img.x*"));
}

TEST (to_ask_for_mmi_takes_manage_or_a_rule_that_names_it)
{
    with_rules ("allow alice call *\nallow bob call mmi.service\nallow carol manage mmi.*\nallow dave manage *\n");
    assert_false (may_manage ("alice", "mmi.service"));
    assert_true (may_manage ("bob", "mmi.service"));
    assert_false (may_manage ("bob", "mmi.workers"));
    assert_true (may_manage ("carol", "mmi.workers"));
    assert_false (may_manage ("carol", "echo"));
    assert_true (may_manage ("dave", "mmi.workers"));
    assert_true (may_manage ("dave", "echo"));
    assert_false (may_call ("dave", "echo"));
}

TEST (bytes_that_a_word_cannot_have_are_written_in_hexadecimal)
{
    with_rules ("allow a\\x20b call \\x2a c\\x5cd\\x41\nallow \\x2d call x\nallow \\x40g call y\nallow q\\x2a call z\n");
    assert_true (may_call ("a b", "c\\dA"));
    zqb__ask_t ask = {"a b", 3, 0, ZQB_MAY_CALL, "*", 1, 0};
    assert_true (zqb__rules_allow (rules, &ask));
    assert_false (may_call ("a b", "x"));
    assert_true (may_call ("-", "x"));
    assert_false (may_call ("", "x"));
    assert_true (may_call ("@g", "y"));
    assert_true (may_call ("q*", "z"));
    assert_false (may_call ("qx", "z"));
}

TEST (comments_blank_lines_and_other_ends_of_lines_mean_nothing)
{
    with_rules ("# all\r\n\r\n  \t\nallow\ta#b  call,call x # and so on\r\n#\nallow c call y");
    assert_true (may_call ("a#b", "x"));
    assert_false (may_call ("a#b", "#"));
    assert_true (may_call ("c", "y"));
}

TEST (what_is_wrong_is_said_with_its_line)
{
    static const struct {
        const char *text;
        int line;
    } cases[] = {
        {"x", 1},
        {"allow", 1},
        {"allow a", 1},
        {"allow a call", 1},
        {"allow a call # x", 1},
        {"\nallow a calls x", 2},
        {"\n\nallow a call, x", 3},
        {"allow a ,call x", 1},
        {"Allow a call x", 1},
        {"allow @g call x\ngroup g a", 1},
        {"allow @ call x", 1},
        {"group", 1},
        {"group inproc a", 1},
        {"group g a\ngroup h @g", 2},
        {"allow a\\ call x", 1},
        {"allow a call x\\x", 1},
        {"allow a call x\\x1", 1},
        {"allow a call x\\xg1", 1},
        {"allow a call x\\n12", 1},
        {"allow a\001 call x", 1},
        {"deny a call x y\\ z", 1},
    };
    for (size_t i = 0; i < COUNT (cases); i++) {
        int line = 0;
        assert_non_null (read_rules (cases[i].text, &line));
        assert_int_equal (line, cases[i].line);
    }
}

/* A file of so many times this line. */
static const char *read_many (size_t times, const char *line, int *at)
{
    size_t size = strlen (line);
    char *text = (char *) malloc (times * size + 1);
    assert_non_null (text);
    for (size_t i = 0; i < times; i++)
        memcpy (text + i * size, line, size);
    text[times * size] = 0;
    const char *wrong = read_rules (text, at);
    free (text);
    return wrong;
}

TEST (names_files_rules_and_groups_have_bounds)
{
    char text[600] = "allow a call ", name[300];
    int line;
    memset (text + 13, 'x', 255);
    assert_null (read_rules (text, &line));
    memset (text + 13, 'x', 256);
    assert_non_null (read_rules (text, &line));
    memset (text + 13, 'x', 255);
    strcpy (text + 13 + 255, "*");
    assert_null (read_rules (text, &line));
    assert_null (read_many (ZQB__RULES_MOST, "deny a call b\n", &line));
    assert_ptr_equal (read_many (ZQB__RULES_MOST + 1, "deny a call b\n", &line), zqb__rules_full);
    assert_int_equal (line, ZQB__RULES_MOST + 1);
    assert_non_null (read_many (ZQB__RULES_BYTES / 2 + 1, "#\n", &line));
    zqb__rules_free (rules);
    rules = zqb__rules_new ();
    for (int i = 0; i <= ZQB__GROUPS_MOST; i++) {
        int size = snprintf (name, sizeof name, "group g%d a", i);
        assert_int_equal (zqb__rules_read (rules, name, (size_t) size, &line) == NULL, i < ZQB__GROUPS_MOST);
    }
}

TEST (without_memory_at_any_allocation_rules_are_not_read_and_nothing_leaks)
{
    int line;
    const char *text = "group g a b* c d e f g h i j k l m n o p q r\n" /* tables grow, and what they hold moves */
                       "allow @g call x y\ndeny c* serve z\nallow d serve a b c d e f g h i j k l m n o p q r\n";
    for (long left = 0;; left++) {
        unit_memory_fail (left, 0);
        rules = zqb__rules_new ();
        const char *wrong = rules ? zqb__rules_read (rules, text, strlen (text), &line) : zqb__no_memory;
        unit_memory_recover ();
        zqb__rules_free (rules);
        rules = NULL;
        assert_int_equal (unit_memory_live, 0);
        if (!wrong)
            return;
        assert_ptr_equal (wrong, zqb__no_memory);
    }
}

/* ---- rules that are found by hashes, against a walk from the first to the last */

static int is_in (const zqb__group_t *group, const zqb__ask_t *ask)
{
    for (size_t i = 0; i < group->count; i++)
        if (zqb__who_is (&group->members[i], ask))
            return 1;
    return 0;
}

static int walk (const zqb__ask_t *ask)
{
    for (size_t i = 0; i < rules->count; i++) {
        const zqb__rule_t *rule = &rules->rules[i];
        int says = zqb__rule_has_action (rule, ask) ? zqb__rule_says (rule, ask) : -1;
        int is_he = rule->who.kind == ZQB__WHO_GROUP ? is_in (&rules->groups[rule->who.group], ask)
                                                     : zqb__who_is (&rule->who, ask);
        if (says >= 0 && is_he)
            return says;
    }
    return 0;
}

/* Numbers that look random, and are the same each time for a seed, which is k0. */
static zqb__key_t dice;

static size_t roll (size_t sides)
{
    dice.k1++;
    return (size_t) (zqb__hash (dice, "", 0) % sides);
}

#define PICK(names) names[roll (COUNT (names))]

/* Names that begin alike, and are the same for users and services. */
static const char *const names[] = {"a", "aa", "aab", "ab", "aba", "b", "ba", "mmi.a", "mmi.aa", "c"};
static const char *const stars[] = {"", "", "*"};

/* Half of them stand for many. */
static void put_who (char *text)
{
    static const char *const others[] = {"*", "-", "@inproc", "@g", "@h", "@i"};
    if (roll (2))
        put (text, " %s", PICK (others));
    else
        put (text, " %s%s", PICK (names), PICK (stars));
}

static void put_services (char *text)
{
    for (size_t i = 1 + roll (3); i > 0; i--)
        if (roll (12))
            put (text, " %s%s", PICK (names), PICK (stars));
        else
            put (text, " *");
}

/* Groups come in several lines, between rules. */
static void put_line (char *text)
{
    static const char *const groups[] = {"g", "h", "i"};
    static const char *const verbs[] = {"allow", "deny"};
    static const char *const actions[] = {"call", "serve", "manage", "call,serve", "call,serve,manage"};
    static const char *const members[] = {"-", "@inproc", "a*", "*"};
    if (roll (4) == 0) {
        put (text, "group %s", PICK (groups));
        for (size_t i = roll (4); i > 0; i--)
            put (text, " %s", roll (3) ? PICK (names) : PICK (members));
    } else {
        put (text, "%s", PICK (verbs));
        put_who (text);
        put (text, " %s", PICK (actions));
        put_services (text);
    }
    put (text, "\n");
}

static void check_question (const char *user, int local, const char *service, int all)
{
    zqb__ask_t ask = {user, user ? strlen (user) : 0, local, ZQB_MAY_CALL, service, strlen (service), all};
    for (; ask.action <= ZQB_MAY_MANAGE; ask.action *= 2)
        if (zqb__rules_allow (rules, &ask) != walk (&ask))
            fail_msg ("seed %d: %s%s, action %d, %s%s", (int) dice.k0, user ? user : "-", local ? " (local)" : "",
                      ask.action, service, all ? ", all of it" : "");
}

/* Each asks for each name, and for all names that begin so. */
static void check_questions (void)
{
    char pattern[16];
    for (size_t i = 0; i <= COUNT (names); i++)
        for (size_t j = 0; j <= COUNT (names); j++)
            for (int local = 0; local <= 1; local++) {
                const char *user = i < COUNT (names) ? names[i] : NULL, *service = j < COUNT (names) ? names[j] : "";
                snprintf (pattern, sizeof pattern, "%s*", service);
                check_question (user, local, pattern, 1);
                check_question (user, local, pattern, 0);
                if (*service)
                    check_question (user, local, service, 0);
            }
}

static void add_lines (size_t lines)
{
    char text[TEXT] = "";
    int line;
    while (lines-- > 0)
        put_line (text);
    assert_null (zqb__rules_read (rules, text, strlen (text), &line));
}

/* A line whose last word is wrong: what came of it before is taken back. */
static void add_what_is_wrong (void)
{
    char text[TEXT] = "allow";
    size_t before = rules->count;
    int line;
    put_who (text);
    put (text, " call,serve");
    for (int i = 0; i < 5; i++)
        put_services (text);
    put (text, " x\\");
    assert_non_null (zqb__rules_read (rules, text, strlen (text), &line));
    assert_int_equal (rules->count, before);
}

TEST (what_is_found_by_hashes_is_what_a_walk_through_all_rules_finds)
{
    for (dice.k0 = 0; dice.k0 < 400; dice.k0++) {
        with_rules ("group g\ngroup h a\ngroup i b*\n");
        add_lines (roll (30));
        check_questions ();
        add_what_is_wrong ();
        add_lines (roll (20));
        check_questions ();
    }
}

/* Tries again until there is memory: where there was not, the rules are those of before. */
TEST (without_memory_at_any_allocation_a_rule_or_a_member_more_changes_nothing)
{
    zqb__word_t who = {"a", 1}, services = {"b aa* ba", 8}, line;
    char text[TEXT];
    with_rules ("group g a b* -\nallow @g call a aa*\ndeny * serve b\nallow aa* call,serve *\n");
    for (int i = 0; i < 50; i++)
        for (const char *wrong = zqb__no_memory; wrong;) {
            size_t count = rules->count, members = rules->groups[0].count;
            snprintf (text, sizeof text, "g m%d", i);
            line.at = text;
            line.size = strlen (text);
            unit_memory_fail ((long) roll (12), 0);
            wrong = i % 2 ? zqb__rules_add (rules, i % 4 == 1, &who, 1 + i % 7, services)
                          : zqb__rules_read_group (rules, line);
            unit_memory_recover ();
            assert_true (!wrong || wrong == zqb__no_memory);
            assert_int_equal (rules->count, count + (!wrong && i % 2 ? 3 : 0));
            assert_int_equal (rules->groups[0].count, members + (!wrong && i % 2 == 0));
            check_questions ();
        }
}

/* ---- the engine: the user is the part of a peer's name behind the dialect and up to a colon: "zqb alice:1" */

static char user_name[64];
static const char *speaks; /* instead */
static int is_local;

static void identify (UNUSED void *self, zqb__identity_t *who)
{
    who->user = speaks;
    who->local = is_local;
}

static char complaint[1000];
static int complaints, left_out; /* how many there were; how many the log says were too many */
static int lines[ZQB_LOG_DEBUG + 1]; /* in the log, of each level */

static void keep_complaint (UNUSED void *self, int level, const char *format, va_list args)
{
    char line[1000];
    int count;
    vsnprintf (line, sizeof line, format, args);
    lines[level]++;
    if (sscanf (line, "%d more warnings of peers", &count) == 1)
        left_out += count;
    if (level != ZQB_LOG_WARNING || strncmp (line, "denied", 6) != 0)
        return;
    complaints++;
    memcpy (complaint, line, sizeof complaint);
}

static void begin_users (const zqb__limits_t *limits)
{
    assert_ok (begin_with (limits));
    world.engine.sink.identify = identify;
    world.engine.sink.log = keep_complaint;
    memset (lines, 0, sizeof lines);
    complaints = left_out = is_local = 0;
    speaks = NULL;
}

static void begin_usual (void)
{
    zqb__limits_t limits = usual_limits ();
    begin_users (&limits);
}

static void set_rules (const char *text)
{
    int line;
    zqb__rules_t *made = zqb__rules_new ();
    assert_null (zqb__rules_read (made, text, strlen (text), &line));
    zqb__engine_rules (&world.engine, made);
    check_all ();
}

/* Somebody says something as a user. */
static void says (const char *name, zqb__command_t command)
{
    const char *user = strchr (name, ' '), *end = strchr (name, ':');
    user_name[0] = 0;
    if (user)
        snprintf (user_name, sizeof user_name, "%.*s", (int) (end ? end - user - 1 : 60), user + 1);
    speaks = user_name;
    say (name, command);
    speaks = NULL;
}

TEST (a_client_is_denied_what_it_may_not_call_and_told_so)
{
    begin_usual ();
    set_rules ("allow alice call echo\nallow w serve *\n");
    says ("zqb w", ready ("echo", 10));
    says ("zqb w:2", ready ("other", 10));
    whatever_is_heard ();
    says ("zqb alice", request ("echo", 1, "a"));
    assert_string_equal (heard ("zqb w", ZQB__REQUEST)->body, "a");
    says ("zqb alice", request ("other", 2, "b"));
    hears_error ("zqb alice", 2, ZQB_EDENIED);
    says ("zqb bob", request ("echo", 1, "c"));
    hears_error ("zqb bob", 1, ZQB_EDENIED);
    says ("zqb", request ("echo", 1, "d"));
    hears_error ("zqb", 1, ZQB_EDENIED);
    says ("mdp bob", request ("echo", 0, "e"));
    says ("lru bob", request ("echo", 0, "e"));
    nothing_is_heard ();
    assert_int_equal (stats ()->denied_call, 5);
    assert_int_equal (stats ()->accepted, 1);
    end ();
}

TEST (what_is_not_known_is_denied_without_becoming_known)
{
    begin_usual ();
    set_rules ("allow alice call known\n");
    says ("zqb alice", request ("unknown", 1, "a"));
    hears_error ("zqb alice", 1, ZQB_EDENIED);
    assert_int_equal (stats ()->services, 0);
    says ("zqb alice", request ("known", 2, "a"));
    assert_int_equal (stats ()->services, 1);
    end ();
}

TEST (a_worker_is_refused_what_it_may_not_serve)
{
    begin_usual ();
    set_rules ("allow w serve echo img.*\nallow * call *\n");
    says ("zqb eve", ready ("echo", 1));
    const sent_t *sent = heard ("zqb eve", ZQB__DISCONNECT);
    assert_int_equal (sent->status, ZQB_EDENIED - ZQB_ERRNO);
    says ("zqb w", ready ("i*", 1));
    heard ("zqb w", ZQB__DISCONNECT);
    says ("lru eve", ready ("echo", 1));
    nothing_is_heard ();
    assert_int_equal (worker_count (), 0);
    assert_int_equal (stats ()->denied_serve, 3);
    says ("zqb w", ready ("img.*", 1));
    assert_int_equal (worker_count (), 1);
    end ();
}

TEST (one_that_registers_for_what_it_may_not_serve_serves_nothing_any_more)
{
    begin_usual ();
    set_rules ("allow w serve echo\n");
    says ("zqb w", ready ("echo", 1));
    says ("zqb w", ready ("other", 1));
    heard ("zqb w", ZQB__DISCONNECT);
    assert_int_equal (worker_count (), 0);
    end ();
}

TEST (a_call_of_a_pattern_is_judged_by_its_own_name)
{
    begin_usual ();
    set_rules ("deny alice call img.secret\nallow * call img.*\nallow w serve *\n");
    says ("zqb w", ready ("img.*", 10));
    for (int i = 0; i < 2; i++) { /* also when it is remembered */
        whatever_is_heard ();
        says ("zqb alice", request ("img.cat", 1, "a"));
        assert_string_equal (heard ("zqb w", ZQB__REQUEST)->service, "img.cat");
        says ("zqb alice", request ("img.secret", 2, "a"));
        hears_error ("zqb alice", 2, ZQB_EDENIED);
        says ("zqb bob", request ("img.secret", 1, "a"));
        heard ("zqb w", ZQB__REQUEST);
    }
    end ();
}

TEST (mmi_and_surveys_are_for_who_may_manage)
{
    zqb_handler_fn *handler = (zqb_handler_fn *) echo;
    zqb__command_t survey = request ("echo", 7, "all");
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    survey.rare = &rare;
    survey.flags = ZQB__SURVEY;
    begin_usual ();
    world.engine.mmi.handler = handler;
    set_rules ("allow ops manage *\nallow * call *\nallow w serve *\n");
    says ("zqb w", ready ("echo", 10));
    whatever_is_heard ();
    says ("zqb alice", request ("mmi.stats", 1, "a"));
    hears_error ("zqb alice", 1, ZQB_EDENIED);
    says ("zqb alice", survey);
    hears_error ("zqb alice", 7, ZQB_EDENIED);
    assert_int_equal (world.handled, 0);
    says ("zqb ops", request ("mmi.stats", 1, "a"));
    hears ("zqb ops", ZQB__REPLY, "a");
    says ("zqb ops", survey);
    heard ("zqb w", ZQB__REQUEST);
    end ();
}

TEST (what_is_asked_of_mmi_before_somebody_serves_it_waits_as_long_as_it_may_be_asked_for)
{
    begin_usual ();
    for (int times = 0; times < 2; times++) {
        set_rules ("allow ops manage mmi.*\n");
        says ("zqb ops", request ("mmi.later", 1, "a"));
        assert_int_equal (stats ()->queued, times + 1);
    }
    set_rules ("allow ops call *\n");
    hears_error ("zqb ops", 1, ZQB_EDENIED);
    hears_error ("zqb ops", 1, ZQB_EDENIED);
    assert_int_equal (stats ()->queued, 0);
    end ();
}

static zqb__command_t survey_of (const char *service, uint64_t id)
{
    static zqb__rare_t rare;
    zqb__command_t command = request (service, id, "all");
    memset (&rare, 0, sizeof rare);
    command.rare = &rare;
    command.flags = ZQB__SURVEY;
    return command;
}

TEST (a_survey_goes_on_while_the_rules_allow_it_and_ends_whole_when_they_do_not)
{
    begin_usual ();
    says ("zqb v", ready ("echo", 10));
    says ("zqb w", ready ("echo", 10));
    says ("zqb ops", survey_of ("echo", 7));
    uint64_t first = heard ("zqb v", ZQB__REQUEST)->id, second = heard ("zqb w", ZQB__REQUEST)->id;
    set_rules ("allow ops manage *\nallow v serve *\nallow w serve *\n"); /* to call is something else */
    nothing_is_heard ();
    assert_int_equal (stats ()->running, 2);
    set_rules ("allow ops call *\nallow v serve *\nallow w serve *\n");
    hears_error ("zqb ops", 7, ZQB_EDENIED);
    assert_true (heard ("zqb v", ZQB__CANCEL)->id == first);
    assert_true (heard ("zqb w", ZQB__CANCEL)->id == second);
    nothing_is_heard ();
    assert_int_equal (stats ()->denied_call, 1);
    end ();
}

TEST (handlers_are_called_by_who_may)
{
    begin_usual ();
    assert_ok (zqb__engine_handle (&world.engine, "here", (zqb_handler_fn *) echo, NULL));
    set_rules ("allow alice call here\n");
    says ("zqb bob", request ("here", 1, "a"));
    hears_error ("zqb bob", 1, ZQB_EDENIED);
    says ("zqb alice", request ("here", 1, "a"));
    hears ("zqb alice", ZQB__REPLY, "a");
    end ();
}

TEST (rules_that_change_send_workers_away_and_what_they_held_goes_to_others)
{
    begin_usual ();
    says ("zqb v", ready ("echo", 10));
    says ("zqb w", ready ("echo", 10));
    says ("zqb x", ready ("echo", 10));
    says ("zqb alice", request ("echo", 1, "a"));
    heard ("zqb v", ZQB__REQUEST);
    set_rules ("allow x serve *\nallow * call *\n");
    assert_int_equal (heard ("zqb v", ZQB__DISCONNECT)->status, ZQB_EDENIED - ZQB_ERRNO);
    hears ("zqb x", ZQB__REQUEST, "a");
    assert_int_equal (heard ("zqb w", ZQB__DISCONNECT)->status, ZQB_EDENIED - ZQB_ERRNO);
    assert_int_equal (worker_count (), 1);
    assert_int_equal (stats ()->denied_serve, 2);
    end ();
}

TEST (rules_that_change_cancel_what_may_not_be_asked_for_any_more)
{
    begin_usual ();
    says ("zqb w", ready ("echo", 1));
    says ("zqb alice", request ("echo", 1, "a"));
    says ("zqb alice", request ("echo", 2, "b"));
    says ("zqb bob", request ("echo", 1, "c"));
    says ("zqb alice", request ("img.x", 3, "d"));
    uint64_t token = hears ("zqb w", ZQB__REQUEST, "a");
    set_rules ("allow alice call img.*\nallow bob call *\nallow w serve *\n");
    hears_error ("zqb alice", 1, ZQB_EDENIED);
    assert_true (heard ("zqb w", ZQB__CANCEL)->id == token);
    hears_error ("zqb alice", 2, ZQB_EDENIED);
    nothing_is_heard ();
    assert_int_equal (stats ()->cancelled, 1);
    says ("zqb w", reply (token, "late"));
    hears ("zqb w", ZQB__REQUEST, "c");
    assert_int_equal (stats ()->cancelled, 2);
    assert_int_equal (stats ()->denied_call, 2);
    assert_int_equal (stats ()->queued, 1);
    end ();
}

TEST (rules_that_change_without_memory_cancel_all_that_may_not_be_asked_for_any_more)
{
    int line;
    begin_usual ();
    for (uint64_t id = 1; id <= 300; id++) {
        says ("zqb alice", request (id % 3 ? "echo" : "img.x", id, "a"));
        says ("zqb bob", request ("echo", id, "b"));
    }
    zqb__rules_t *made = zqb__rules_new ();
    const char *text = "allow bob call *\nallow alice call img.*\n";
    assert_null (zqb__rules_read (made, text, strlen (text), &line));
    unit_memory_fail (0, 0);
    zqb__engine_rules (&world.engine, made);
    unit_memory_recover ();
    check_all ();
    for (uint64_t id = 1; id <= 300; id++)
        if (id % 3)
            hears_error ("zqb alice", id, ZQB_EDENIED);
    nothing_is_heard ();
    assert_int_equal (stats ()->queued, 400);
    end ();
}

TEST (without_rules_everything_is_allowed_again)
{
    begin_usual ();
    set_rules ("");
    says ("zqb alice", request ("echo", 1, "a"));
    hears_error ("zqb alice", 1, ZQB_EDENIED);
    zqb__engine_rules (&world.engine, NULL);
    says ("zqb alice", request ("echo", 1, "a"));
    assert_int_equal (stats ()->queued, 1);
    end ();
}

static int asked_action, asked_count;
static char asked[200];

static int host_says (UNUSED void *self, const zqb_access_t *access)
{
    asked_count++;
    asked_action = access->action;
    snprintf (asked, sizeof asked, "%s@%s %s", access->user, access->address, access->service);
    return strcmp (access->user, "yes") == 0 ? 1 : strcmp (access->user, "no") == 0 ? 0 : -1;
}

TEST (the_host_is_asked_before_the_rules_and_once_for_a_client_and_a_service)
{
    begin_usual ();
    world.engine.sink.access = host_says;
    zqb__engine_guard (&world.engine);
    says ("zqb maybe", ready ("echo", 10)); /* no rules: allowed */
    assert_int_equal (asked_action, ZQB_MAY_SERVE);
    asked_count = 0;
    for (uint64_t id = 1; id <= 3; id++)
        says ("zqb yes", request ("echo", id, "a"));
    assert_string_equal (asked, "yes@ echo");
    assert_int_equal (asked_count, 1);
    set_rules ("allow maybe serve *\n");
    whatever_is_heard ();
    says ("zqb yes", request ("echo", 4, "a"));
    hears ("zqb maybe", ZQB__REQUEST, "a");
    says ("zqb no", request ("echo", 1, "a"));
    hears_error ("zqb no", 1, ZQB_EDENIED);
    says ("zqb maybe:2", request ("echo", 1, "a"));
    hears_error ("zqb maybe:2", 1, ZQB_EDENIED);
    end ();
}

static int asked_often;

/* Of calls it says no to whoever looks, and yes to whoever looks again; in the end no. */
static int changes_its_mind (UNUSED void *self, const zqb_access_t *access)
{
    return access->action != ZQB_MAY_CALL || (asked_often++ % 2 && asked_often < 1000);
}

TEST (a_host_that_changes_its_mind_all_the_time_is_not_asked_for_ever)
{
    begin_usual ();
    says ("zqb w", ready ("p*", 1)); /* of what a pattern serves nothing is remembered that a host says */
    says ("zqb alice", request ("px", 1, "a"));
    hears ("zqb w", ZQB__REQUEST, "a");
    asked_often = 0;
    world.engine.sink.access = changes_its_mind;
    zqb__engine_guard (&world.engine);
    zqb__engine_rules (&world.engine, NULL);
    assert_int_equal (asked_often, 2);
    check_all ();
    end ();
}

static int is_closed;

static int open_until_it_is_closed (UNUSED void *self, UNUSED const zqb_access_t *access)
{
    return !is_closed;
}

TEST (what_the_host_alone_says_is_asked_again_of_who_is_there_when_the_rules_are_set)
{
    begin_usual ();
    is_closed = 0;
    world.engine.sink.access = open_until_it_is_closed;
    zqb__engine_guard (&world.engine);
    says ("zqb w", ready ("echo", 1));
    says ("zqb alice", request ("work", 1, "a"));
    is_closed = 1;
    zqb__engine_rules (&world.engine, NULL);
    check_all ();
    assert_int_equal (heard ("zqb w", ZQB__DISCONNECT)->status, ZQB_EDENIED - ZQB_ERRNO);
    hears_error ("zqb alice", 1, ZQB_EDENIED);
    assert_int_equal (worker_count (), 0);
    assert_int_equal (stats ()->queued, 0);
    end ();
}

static int only_from_home (UNUSED void *self, const zqb_access_t *access)
{
    return strcmp (access->address, "home") == 0;
}

/* A message of alice, over that connection, the other end of which is there. */
static void alice_asks_from (const char *place, int connection, uint64_t id)
{
    zqb__command_t asks = request ("echo", id, "a");
    speaks = "alice";
    zqb__peer_t *peer = peer_at (place, 7, ZQB__ZQB1);
    zqb__peer_set_connection (&world.engine, peer, connection);
    if (!peer->connection->address)
        peer->connection->address = zqb__copy_text (place, strlen (place));
    zqb__engine_receive (&world.engine, peer, &asks);
    zqb__engine_release (&world.engine, peer);
    speaks = NULL;
}

TEST (the_host_is_asked_again_when_a_client_comes_back_from_another_place)
{
    begin_usual ();
    says ("zqb w", ready ("echo", 10));
    world.engine.sink.access = only_from_home;
    zqb__engine_guard (&world.engine);
    alice_asks_from ("abroad", 1, 1);
    hears_error ("abroad", 1, ZQB_EDENIED);
    alice_asks_from ("home", 2, 2);
    hears ("zqb w", ZQB__REQUEST, "a");
    alice_asks_from ("elsewhere", 3, 3);
    hears_error ("elsewhere", 3, ZQB_EDENIED);
    end ();
}

TEST (the_log_tells_who_was_denied_what_but_not_a_hundred_times)
{
    begin_usual ();
    set_rules ("");
    for (uint64_t id = 1; id <= 100; id++)
        says ("zqb al ice", request ("pay ments", id, "a"));
    assert_string_equal (complaint, "denied: user 'al\\x20ice' at '' may not call 'pay\\x20ments'");
    assert_int_equal (complaints, 1);
    says ("zqb al ice", ready ("echo", 1));
    assert_int_equal (complaints, 2);
    at_ms (1001);
    says ("zqb al ice", request ("echo", 101, "a"));
    assert_int_equal (complaints, 3);
    end ();
}

TEST (many_who_are_denied_something_do_not_fill_the_log)
{
    char name[40];
    begin_usual ();
    set_rules ("");
    for (int second = 0; second < 2; second++) {
        for (int i = 0; i < 100; i++) {
            snprintf (name, sizeof name, "zqb user-%d", second * 100 + i);
            says (name, request ("echo", 1, "a"));
        }
        assert_int_equal (complaints, 10 * (second + 1));
        at_ms (1001 * (second + 1));
    }
    says ("zqb another", request ("echo", 1, "a"));
    assert_string_equal (complaint, "denied: user 'another' at '' may not call 'echo'");
    assert_int_equal (complaints, 21);
    assert_int_equal (left_out, 180);
    assert_int_equal (stats ()->denied_call, 201);
    end ();
}

TEST (workers_that_come_and_go_do_not_fill_the_log)
{
    begin_usual ();
    for (int i = 0; i < 300; i++) {
        says ("mdp w", ready ("echo", 1));
        if (i % 2)
            says ("mdp w", disconnect ());
        else
            malformed ("mdp w", ZQB__WORKER);
    }
    assert_int_equal (stats ()->workers_left, 150);
    assert_int_equal (stats ()->workers_lost, 150);
    assert_int_equal (lines[ZQB_LOG_WARNING], 10);
    assert_int_equal (lines[ZQB_LOG_INFO], 100);
    at_ms (1001);
    says ("mdp w", ready ("echo", 1));
    assert_int_equal (lines[ZQB_LOG_INFO], 102); /* how many there were besides, and this one */
    end ();
}

/* ---- who is who */

static void speaks_as (const char *user, const char *address, uint64_t life, zqb__command_t command)
{
    speaks = user;
    say_as (address, life, ZQB__ZQB1, command);
    speaks = NULL;
}

TEST (a_life_that_another_user_presents_is_another_peer)
{
    begin_usual ();
    says ("zqb w", ready ("echo", 10));
    speaks_as ("alice", "a1", 77, request ("echo", 1, "hers"));
    uint64_t token = hears ("zqb w", ZQB__REQUEST, "hers");
    speaks_as ("eve", "e1", 77, again (request ("echo", 1, "his")));
    uint64_t his = hears ("zqb w", ZQB__REQUEST, "his"); /* joined nothing */
    speaks_as ("eve", "e1", 77, cancel (1));
    assert_true (heard ("zqb w", ZQB__CANCEL)->id == his);
    speaks_as (NULL, "n1", 77, cancel (1));
    nothing_is_heard ();
    says ("zqb w", reply (token, "answer"));
    hears ("a1", ZQB__REPLY, "answer");
    speaks_as ("alice", "a2", 77, request ("echo", 2, "again")); /* she moves, as ever */
    token = hears ("zqb w", ZQB__REQUEST, "again");
    says ("zqb w", reply (token, "there"));
    hears ("a2", ZQB__REPLY, "there");
    end ();
}

TEST (a_life_over_inproc_is_not_one_over_the_network)
{
    begin_usual ();
    is_local = 1;
    speaks_as (NULL, "in", 77, request ("echo", 1, "ours"));
    is_local = 0;
    speaks_as (NULL, "out", 77, cancel (1));
    assert_int_equal (stats ()->queued, 1);
    end ();
}

TEST (a_worker_is_not_succeeded_by_another_user)
{
    begin_usual ();
    speaks_as ("w", "w1", 99, ready ("echo", 1));
    speaks_as ("eve", "e1", 99, ready ("echo", 1));
    assert_int_equal (worker_count (), 2);
    speaks_as ("w", "w2", 99, ready ("echo", 1));
    assert_int_equal (worker_count (), 2);
    end ();
}

TEST (another_user_at_the_same_address_has_nothing_of_what_the_first_had)
{
    begin_usual ();
    set_rules ("allow alice call,serve *\n");
    speaks_as ("alice", "name", 5, request ("echo", 1, "hers"));
    speaks_as ("alice", "name", 5, ready ("other", 1));
    assert_int_equal (stats ()->queued, 1);
    speaks = "eve";
    zqb__peer_t *peer = peer_at ("name", 5, ZQB__ZQB1);
    assert_ok (zqb__engine_recognise (&world.engine, peer));
    assert_string_equal (peer->user->name, "eve");
    zqb__engine_release (&world.engine, peer);
    assert_int_equal (stats ()->client_gone, 1);
    assert_int_equal (worker_count (), 0);
    whatever_is_heard ();
    speaks_as ("eve", "name", 5, request ("echo", 1, "his"));
    hears_error ("name", 1, ZQB_EDENIED);
    end ();
}

TEST (another_user_at_the_same_address_hears_nothing_that_is_for_the_first)
{
    begin_usual ();
    speaks_as ("alice", "name", 5, ready ("echo", 1));
    speaks_as ("alice", "name", 5, request ("echo", 1, "for herself"));
    heard ("name", ZQB__REQUEST);
    speaks = "eve";
    zqb__peer_t *peer = peer_at ("name", 5, ZQB__ZQB1);
    assert_ok (zqb__engine_recognise (&world.engine, peer));
    zqb__engine_release (&world.engine, peer);
    assert_int_equal (stats ()->client_gone + stats ()->cancelled, 1);
    nothing_is_heard (); /* so not that nobody wants any more what she held */
    end ();
}

TEST (without_memory_for_who_it_is_the_first_keeps_what_he_has)
{
    begin_usual ();
    speaks_as ("alice", "name", 5, request ("echo", 1, "hers"));
    zqb__peer_t *peer = peer_at ("name", 5, ZQB__ZQB1);
    speaks = "eve";
    unit_memory_fail (0, 0);
    assert_int_equal (zqb__engine_recognise (&world.engine, peer), -1);
    unit_memory_recover ();
    assert_string_equal (peer->user->name, "alice");
    zqb__engine_release (&world.engine, peer);
    assert_int_equal (stats ()->queued, 1);
    end ();
}

static zqb__command_t with_key (zqb__command_t command, const char *key)
{
    static zqb__rare_t rares[16];
    static int next;
    zqb__rare_t *rare = &rares[next++ % 16];
    memset (rare, 0, sizeof *rare);
    rare->unique = (const unsigned char *) key;
    rare->unique_size = strlen (key);
    command.rare = rare;
    return command;
}

TEST (who_joins_a_request_is_the_same_user)
{
    begin_usual ();
    says ("zqb alice:1", with_key (request ("echo", 1, "hers"), "k"));
    says ("zqb eve", with_key (request ("echo", 1, "his"), "k"));
    assert_int_equal (stats ()->following, 0);
    says ("zqb alice:2", with_key (request ("echo", 1, "hers too"), "k"));
    assert_int_equal (stats ()->following, 1);
    says ("zqb", with_key (request ("echo", 1, "nobody's"), "k"));
    says ("zqb:2", with_key (request ("echo", 1, "nobody's"), "k"));
    assert_int_equal (stats ()->following, 2);
    end ();
}

/* The user that the next request to a worker names. */
static char told_user[300];
static size_t told_size;

static int send_and_look (void *self, zqb__peer_t *peer, int side, const zqb__command_t *command)
{
    if (side == ZQB__WORKER && command->type == ZQB__REQUEST) {
        told_size = command->rare ? command->rare->user_size : 0;
        snprintf (told_user, sizeof told_user, "%.*s", (int) told_size, told_size ? (const char *) command->rare->user : "");
    }
    return sink_send (self, peer, side, command);
}

TEST (a_worker_is_told_the_user_and_not_what_a_client_says)
{
    zqb__rare_t forged;
    memset (&forged, 0, sizeof forged);
    forged.user = (const unsigned char *) "root";
    forged.user_size = 4;
    forged.priority = 1;
    begin_usual ();
    world.engine.sink.send = send_and_look;
    says ("zqb w", ready ("echo", 10));
    says ("zqb alice", request ("echo", 1, "a"));
    assert_string_equal (told_user, "alice");
    says ("zqb", request ("echo", 1, "a"));
    assert_string_equal (told_user, "");
    zqb__command_t command = request ("echo", 2, "b");
    command.rare = &forged;
    says ("zqb alice", command);
    assert_string_equal (told_user, "alice");
    says ("zqb", command);
    assert_string_equal (told_user, "");
    forged.deadline_ms = 1000;
    command.id = 3;
    says ("zqb alice", command);
    assert_string_equal (told_user, "alice");
    end ();
}

TEST (a_one_way_request_is_its_users_even_if_he_is_gone)
{
    zqb__command_t command = request ("echo", 0, "a");
    command.flags = ZQB__ONE_WAY;
    begin_usual ();
    world.engine.sink.send = send_and_look;
    says ("mdp alice", command);
    speaks = "alice";
    come_over ("mdp alice", 3);
    connection_ends (3);
    assert_int_equal (stats ()->queued, 1);
    says ("zqb w", ready ("echo", 10));
    assert_string_equal (told_user, "alice");
    end ();
}

/* ---- limits of a user, and of a client */

TEST (a_user_has_no_more_requests_than_he_may_over_all_his_connections)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_outstanding = 3;
    begin_users (&limits);
    says ("zqb w", ready ("echo", 1));
    says ("zqb alice:1", request ("echo", 1, "a"));
    uint64_t token = hears ("zqb w", ZQB__REQUEST, "a");
    says ("zqb alice:1", request ("echo", 2, "b"));
    says ("zqb alice:2", request ("echo", 1, "c"));
    says ("zqb alice:2", request ("echo", 2, "d"));
    hears_error ("zqb alice:2", 2, ZQB_EQUEUEFULL);
    says ("zqb bob", request ("echo", 1, "e"));
    says ("zqb w", reply (token, "r"));
    whatever_is_heard ();
    says ("zqb alice:2", request ("echo", 2, "d"));
    says ("zqb alice:2", request ("echo", 3, "f"));
    hears_error ("zqb alice:2", 3, ZQB_EQUEUEFULL);
    says ("zqb alice:1", cancel (2));
    heard ("zqb w", ZQB__CANCEL);
    says ("zqb alice:2", request ("echo", 3, "f"));
    nothing_is_heard ();
    assert_int_equal (stats ()->refused_user, 2);
    end ();
}

TEST (a_survey_is_one_request_of_its_user_and_as_many_as_there_are_workers)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_outstanding = 2;
    begin_users (&limits);
    says ("zqb v", ready ("echo", 1));
    says ("zqb w", ready ("echo", 1));
    says ("zqb x", ready ("echo", 1));
    says ("zqb alice", survey_of ("echo", 1));
    hears_error ("zqb alice", 1, ZQB_EQUEUEFULL);
    nothing_is_heard ();
    assert_int_equal (stats ()->refused_user, 1);
    assert_int_equal (stats ()->accepted, 0);
    world.engine.limits.user_outstanding = 3;
    says ("zqb alice", survey_of ("echo", 1)); /* which is one itself */
    hears_error ("zqb alice", 1, ZQB_EQUEUEFULL);
    world.engine.limits.user_outstanding = 4;
    says ("zqb alice", survey_of ("echo", 1));
    assert_int_equal (stats ()->running, 3);
    assert_int_equal (stats ()->queued, 1);
    whatever_is_heard ();
    end ();
}

TEST (who_is_nobody_is_limited_by_himself)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_outstanding = 1;
    begin_users (&limits);
    says ("zqb:1", request ("echo", 1, "a"));
    says ("zqb:2", request ("echo", 1, "a"));
    nothing_is_heard ();
    says ("zqb:1", request ("echo", 2, "a"));
    hears_error ("zqb:1", 2, ZQB_EQUEUEFULL);
    end ();
}

TEST (a_user_has_no_more_workers_than_he_may_over_all_his_connections)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_workers = 2;
    begin_users (&limits);
    says ("zqb w:1", ready ("echo", 1));
    says ("zqb w:2", ready ("other", 1));
    says ("zqb w:3", ready ("echo", 1));
    assert_int_equal (worker_count (), 2);
    assert_int_equal (stats ()->refused_workers, 1);
    heard ("zqb w:3", ZQB__DISCONNECT);
    says ("zqb w:2", ready ("echo", 1)); /* one that registers anew is no other */
    says ("zqb alice", ready ("echo", 1));
    says ("zqb:1", ready ("echo", 1)); /* nobody's are not limited */
    says ("zqb:2", ready ("echo", 1));
    says ("zqb:3", ready ("echo", 1));
    assert_int_equal (worker_count (), 6);
    says ("zqb w:1", disconnect ());
    says ("zqb w:3", ready ("echo", 1));
    says ("zqb w:4", ready ("echo", 1));
    assert_int_equal (worker_count (), 6);
    assert_int_equal (stats ()->refused_workers, 2);
    end ();
}

static int accepted_of (const char *user, int count, const char *body)
{
    uint64_t before = stats ()->accepted;
    static uint64_t id = 1000;
    for (int i = 0; i < count; i++)
        says (user, request ("echo", id++, body));
    return (int) (stats ()->accepted - before);
}

TEST (a_user_asks_for_no_more_a_second_than_he_may)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_requests = 10;
    begin_users (&limits);
    at_ms (5000);
    assert_int_equal (accepted_of ("zqb alice:1", 20, "x"), 11); /* a second's worth, and the one that overdraws it */
    assert_int_equal (accepted_of ("zqb alice:2", 20, "x"), 0);
    assert_int_equal (accepted_of ("zqb bob", 20, "x"), 11);
    at_ms (5500);
    assert_int_equal (accepted_of ("zqb alice:2", 20, "x"), 5);
    at_ms (60000);
    assert_int_equal (accepted_of ("zqb alice:2", 100, "x"), 11);
    assert_int_equal (stats ()->refused_rate, 9 + 20 + 9 + 15 + 89);
    end ();
}

TEST (a_client_asks_for_no_more_a_second_than_it_may_whoever_it_is)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_requests = 15;
    limits.client_requests = 10;
    begin_users (&limits);
    at_ms (5000);
    assert_int_equal (accepted_of ("zqb alice:1", 20, "x"), 11);
    assert_int_equal (stats ()->refused_client_rate, 9);
    assert_int_equal (stats ()->refused_rate, 0);
    assert_int_equal (accepted_of ("zqb alice:2", 20, "x"), 5); /* what is left of their user's */
    assert_int_equal (stats ()->refused_client_rate, 9);
    assert_int_equal (stats ()->refused_rate, 15);
    assert_int_equal (accepted_of ("zqb:1", 20, "x"), 11);
    assert_int_equal (accepted_of ("zqb:2", 20, "x"), 11);
    end ();
}

TEST (a_client_sends_no_more_bytes_a_second_than_it_may)
{
    zqb__limits_t limits = usual_limits ();
    limits.client_bytes = 100;
    begin_users (&limits);
    at_ms (5000);
    assert_int_equal (accepted_of ("zqb alice:1", 20, "123456789012345678901"), 5);
    assert_int_equal (accepted_of ("zqb alice:2", 20, "123456789012345678901"), 5);
    whatever_is_heard ();
    says ("zqb alice:1", request ("echo", 1, "a"));
    hears_error ("zqb alice:1", 1, ZQB_EQUEUEFULL);
    assert_int_equal (stats ()->refused_client_rate, 31);
    at_ms (5500);
    assert_int_equal (accepted_of ("zqb alice:1", 20, "123456789012345678901"), 2);
    end ();
}

TEST (a_user_sends_no_more_bytes_a_second_than_he_may)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_bytes = 100;
    begin_users (&limits);
    at_ms (5000);
    assert_int_equal (accepted_of ("zqb alice", 20, "123456789012345678901"), 5); /* of 25 bytes; the fifth overdraws it */
    at_ms (5500);
    assert_int_equal (accepted_of ("zqb alice", 20, "123456789012345678901"), 2);
    at_ms (9000);
    char large[500];
    memset (large, 'x', sizeof large);
    large[396] = 0;
    assert_int_equal (accepted_of ("zqb alice", 2, large), 1); /* four seconds' worth: one of which was there */
    at_ms (11900);
    assert_int_equal (accepted_of ("zqb alice", 1, "x"), 0);
    at_ms (12000);
    assert_int_equal (accepted_of ("zqb alice", 1, "x"), 1);
    end ();
}

TEST (limits_of_users_come_to_an_end_with_whatever_ends_a_request)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_outstanding = 100;
    begin_users (&limits);
    says ("zqb alice", with_key (request ("echo", 1, "a"), "k"));
    says ("zqb alice:2", with_key (request ("echo", 1, "a"), "k"));
    zqb__command_t one_way = request ("echo", 0, "a");
    one_way.flags = ZQB__ONE_WAY;
    says ("zqb alice", one_way);
    says ("mdp alice", request ("img.x", 0, "a"));
    zqb__user_t *alice = zqb__user_find (&world.engine, "alice", zqb__user_hash (&world.engine, "alice"));
    assert_int_equal (alice->quota.outstanding, 4);
    says ("zqb alice", cancel (1));
    assert_int_equal (alice->quota.outstanding, 3);
    says ("zqb w", ready ("img.*", 1));
    assert_int_equal (alice->quota.outstanding, 3);
    at_ms (NO_WORKER_MS + 1);
    assert_int_equal (alice->quota.outstanding, 1); /* it runs */
    says ("zqb w", disconnect ());
    at_ms (3 * NO_WORKER_MS);
    assert_int_equal (alice->quota.outstanding, 0);
    end ();
}

TEST (without_memory_at_any_allocation_nobody_becomes_another_and_everything_adds_up)
{
    zqb__limits_t limits = usual_limits ();
    limits.user_outstanding = 100;
    for (long left = 0;; left++) {
        begin_users (&limits);
        set_rules ("group g alice w\nallow @g call,serve,manage *\n");
        unit_memory_fail (left, 1);
        says ("zqb w", ready ("echo", 1));
        says ("zqb alice", request ("echo", 1, "a"));
        says ("zqb alice:2", with_key (request ("echo", 1, "b"), "k"));
        says ("zqb bob", request ("echo", 1, "c"));
        long failed = unit_memory_failures ();
        unit_memory_recover ();
        for (size_t i = 0; i < world.count; i++)
            assert_true (world.sent[i].type != ZQB__REQUEST || strcmp (world.sent[i].body, "c") != 0);
        set_rules ("");
        assert_int_equal (worker_count (), 0);
        assert_int_equal (stats ()->queued, 0);
        end ();
        if (!failed)
            return;
    }
}

/* ---- over sockets */

static void *zap;
static zqb__thread_t *zap_thread;

/* A frame of a ZAP request; the rest of it if last. */
static int zap_frame (char *text, size_t size)
{
    int got = zmq_recv (zap, text, size - 1, 0);
    if (got >= 0)
        text[got < (int) size - 1 ? got : (int) size - 1] = 0;
    return got;
}

/* Everybody is let in; the user id is his name. Frames: version, id, domain, address, identity, mechanism, credentials. */
static void zap_run (UNUSED void *arg)
{
    enum { FRAMES = 8 };
    char frames[FRAMES][256];
    for (;;) {
        int more = 1, count = 0;
        memset (frames, 0, sizeof frames);
        for (; more; count++) {
            size_t size = sizeof more;
            if (zap_frame (frames[count < FRAMES ? count : FRAMES - 1], sizeof frames[0]) < 0) {
                zmq_close (zap);
                return;
            }
            zmq_getsockopt (zap, ZMQ_RCVMORE, &more, &size);
        }
        const char *answer[] = {"1.0", frames[1], "200", "", count > 6 ? frames[6] : "", ""};
        for (int i = 0; i < 6; i++)
            zmq_send (zap, answer[i], strlen (answer[i]), i < 5 ? ZMQ_SNDMORE : 0);
    }
}

static char tcp[256];
static zqb_broker_options_t options;

static int set_up_users (UNUSED void **state)
{
    memset (&options, 0, sizeof options);
    ctx = zmq_ctx_new ();
    zap = zmq_socket (ctx, ZMQ_REP);
    if (zmq_bind (zap, "inproc://zeromq.zap.01") != 0)
        return -1;
    zap_thread = zqb__thread_start (zap_run, NULL);
    return zap_thread ? 0 : -1;
}

/* The broker, with PLAIN, over tcp. */
static void bind_plain (void)
{
    options.plain = 1;
    broker = zqb_broker_new (ctx, &options);
    assert_non_null (broker);
    assert_ok (zqb_broker_bind (broker, ENDPOINT));
    assert_ok (zqb_broker_bind (broker, "tcp://127.0.0.1:*"));
    assert_ok (zqb_broker_endpoint (broker, -1, tcp, sizeof tcp));
}

static void start_plain (void)
{
    bind_plain ();
    assert_ok (zqb_broker_start (broker));
}

static int tear_down_users (UNUSED void **state)
{
    zqb_broker_destroy (&broker);
    zmq_ctx_shutdown (ctx);
    zqb__thread_join (&zap_thread);
    return zmq_ctx_term (ctx);
}

#define USERS(name) cmocka_unit_test_setup_teardown (name, set_up_users, tear_down_users)

static void *connect_as (const char *user, const char *identity)
{
    void *socket = zmq_socket (ctx, ZMQ_DEALER);
    zqb__set_int (socket, ZMQ_LINGER, 0);
    zqb__set_int (socket, ZMQ_RCVTIMEO, PATIENCE_MS);
    zmq_setsockopt (socket, ZMQ_PLAIN_USERNAME, user, strlen (user));
    zmq_setsockopt (socket, ZMQ_PLAIN_PASSWORD, "secret", 6);
    if (identity)
        zmq_setsockopt (socket, ZMQ_ROUTING_ID, identity, strlen (identity));
    assert_ok (zmq_connect (socket, tcp));
    return socket;
}

/* A message of ZQB/1 with one command. */
static void tell_broker (void *socket, uint64_t life, const zqb__command_t *command)
{
    zqb__parcel_t parcel;
    memset (&parcel, 0, sizeof parcel);
    assert_ok (zqb__wire_pack (&parcel, life, command));
    assert_true (zmq_send (socket, parcel.bytes.bytes, parcel.bytes.size, 0) >= 0);
    zqb__parcel_close (&parcel);
}

/* The type of the first command of the next message, its status and the user that it names. */
static int broker_tells (void *socket, int *status, char *user)
{
    static unsigned char bytes[4096];
    zqb__parcel_t scratch;
    zqb__incoming_t in;
    zqb__command_t command;
    zmq_msg_t frame;
    memset (&scratch, 0, sizeof scratch);
    int size = zmq_recv (socket, bytes, sizeof bytes, 0);
    assert_true (size > 0);
    zmq_msg_init_size (&frame, (size_t) size);
    memcpy (zmq_msg_data (&frame), bytes, (size_t) size);
    assert_ok (zqb__wire_open (&in, ZQB__FROM_BROKER, &frame, 1, &scratch));
    assert_int_equal (zqb__wire_next (&in, &command), 1);
    *status = command.status;
    *user = 0;
    if (command.rare && command.rare->user_size)
        snprintf (user, 256, "%.*s", (int) command.rare->user_size, (const char *) command.rare->user);
    zmq_msg_close (&frame);
    return command.type;
}

static void is_ops (UNUSED void *self, zqb__identity_t *who)
{
    who->user = "ops";
    who->local = 0;
}

static void identify_by (void (*by) (void *self, zqb__identity_t *who))
{
    zqb__lock_enter (&broker->lock);
    broker->engine.sink.identify = by;
    zqb__lock_leave (&broker->lock);
}

/* As when the end of that connection was not acted upon yet, and the next has its number and the name that libzmq had
   chosen for it. */
TEST (who_comes_by_the_name_and_the_number_of_anothers_connection_has_not_his_rights)
{
    char user[256];
    int status;
    zqb__command_t asks[] = {request ("secret", 1, "a"), request ("secret", 2, "b")};
    start_plain ();
    assert_ok (zqb_broker_rule (broker, 1, "ops", ZQB_MAY_CALL, "secret"));
    void *eve = connect_as ("eve", NULL);
    identify_by (is_ops);
    tell_broker (eve, 1, &asks[0]);
    eventually (stat (broker, accepted) == 1);
    identify_by (zqb__broker_identify);
    tell_broker (eve, 1, &asks[1]);
    assert_int_equal (broker_tells (eve, &status, user), ZQB__ERROR);
    assert_int_equal (status, ZQB_EDENIED - ZQB_ERRNO);
    assert_int_equal (stat (broker, accepted), 1);
    zmq_close (eve);
}

TEST (the_user_id_that_zap_gives_is_what_rules_and_workers_see)
{
    char user[256];
    int status;
    start_plain ();
    assert_ok (zqb_broker_rule (broker, 1, "worker", ZQB_MAY_SERVE, "echo"));
    assert_ok (zqb_broker_rule (broker, 1, "alice", ZQB_MAY_CALL, "echo"));
    void *worker = connect_as ("worker", NULL), *alice = connect_as ("alice", NULL), *eve = connect_as ("eve", NULL);
    zqb__command_t registers = ready ("echo", 10), asks = request ("echo", 1, "a");
    tell_broker (worker, 1, &registers);
    tell_broker (alice, 2, &asks);
    assert_int_equal (broker_tells (worker, &status, user), ZQB__REQUEST);
    assert_string_equal (user, "alice");
    tell_broker (eve, 2, &asks); /* her life */
    assert_int_equal (broker_tells (eve, &status, user), ZQB__ERROR);
    assert_int_equal (status, ZQB_EDENIED - ZQB_ERRNO);
    tell_broker (eve, 3, &registers);
    assert_int_equal (broker_tells (eve, &status, user), ZQB__DISCONNECT);
    assert_int_equal (status, ZQB_EDENIED - ZQB_ERRNO);
    assert_int_equal (stat (broker, denied_call), 1);
    assert_int_equal (stat (broker, denied_serve), 1);
    assert_int_equal (stat (broker, running), 1);
    zmq_close (worker);
    zmq_close (alice);
    zmq_close (eve);
}

TEST (a_name_that_another_user_takes_when_its_owner_is_gone_gives_him_nothing)
{
    start_plain ();
    assert_ok (zqb_broker_rule (broker, 1, "alice", ZQB_MAY_CALL, "echo"));
    void *alice = connect_as ("alice", "name");
    zqb__command_t asks = request ("echo", 1, "a");
    tell_broker (alice, 7, &asks);
    eventually (stat (broker, queued) == 1);
    zmq_close (alice);
    void *eve = connect_as ("eve", "name"); /* comes in when libzmq lets go of the name, or never: asked until it does */
    tell_broker (eve, 7, &asks);
    unsigned char byte;
    while (zmq_recv (eve, &byte, 1, ZMQ_DONTWAIT) < 0 && stat (broker, denied_call) == 0) {
        zmq_close (eve);
        eve = connect_as ("eve", "name");
        tell_broker (eve, 7, &asks);
        zmq_poll (NULL, 0, 5);
    }
    assert_true (stat (broker, denied_call) > 0);
    eventually (stat (broker, queued) == 0 && stat (broker, client_gone) == 1);
    zmq_close (eve);
}

static uint64_t no_memory_counted (void)
{
    zqb_broker_step (broker, 10);
    return broker->engine.stats.no_memory;
}

TEST (without_memory_for_who_has_a_name_now_he_is_not_heard)
{
    zqb__user_t *bob;
    bind_plain (); /* this thread runs it */
    zqb__engine_t *engine = &broker->engine;
    void *alice = connect_as ("alice", "name");
    zqb__command_t first = request ("echo", 1, "a"), second = request ("echo", 2, "b");
    tell_broker (alice, 7, &first);
    eventually ((zqb_broker_step (broker, 10), engine->stats.queued == 1));
    zqb__user_t *hers = zqb__user_find (engine, "alice", zqb__user_hash (engine, "alice"));
    zqb__peer_t *peer = zqb__peer_of_life (engine, 7, hers, 0);
    assert_non_null (peer);
    assert_ok (zqb__user_require (engine, "bob", &bob));
    peer->user = bob; /* as if he had had the name, and nobody else of hers were here */
    zqb__user_release (engine, hers);
    tell_broker (alice, 7, &second);
    unit_memory_fail (0, 0);
    eventually (no_memory_counted () == 1);
    unit_memory_recover ();
    assert_int_equal (engine->stats.accepted, 1);
    assert_int_equal (engine->stats.queued, 1); /* his */
    tell_broker (alice, 7, &second);
    eventually ((zqb_broker_step (broker, 10), engine->stats.accepted == 2));
    assert_int_equal (engine->stats.client_gone, 1);
    assert_string_equal (peer->user->name, "alice");
    zmq_close (alice);
}

static int tell_user (zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    const char *user = zqb_request_user (request);
    return zqb_msg_add_str (reply, user ? *user ? user : "nobody" : "not told");
}

static void call_user (const char *wanted)
{
    zqb_client_t *client = new_client (ZQB_DIALECT_ZQB1, 0, 0);
    zqb_msg_t msg, reply_to_it;
    zqb_msg_init (&msg);
    zqb_msg_init (&reply_to_it);
    zqb_msg_add_str (&msg, "who am I?");
    assert_ok (zqb_client_call (client, "echo", &msg, &reply_to_it));
    assert_frame (&reply_to_it, 0, wanted);
    zqb_msg_close (&msg);
    zqb_msg_close (&reply_to_it);
    zqb_client_destroy (&client);
}

TEST (workers_and_handlers_can_ask_who_calls_but_not_over_mdp)
{
    zqb_pool_options_t pool_options;
    memset (&pool_options, 0, sizeof pool_options);
    pool_options.threads = 1;
    start_plain ();
    zqb_pool_t *pool = zqb_pool_start (ctx, ENDPOINT, "echo", tell_user, NULL, &pool_options);
    call_user ("nobody");
    zqb_pool_stop (&pool);
    eventually (stat (broker, workers) == 0);
    pool_options.worker.dialect = ZQB_DIALECT_MDP01;
    pool = zqb_pool_start (ctx, ENDPOINT, "echo", tell_user, NULL, &pool_options);
    call_user ("not told");
    zqb_pool_stop (&pool);
    eventually (stat (broker, workers) == 0 && stat (broker, services) == 0);
    assert_ok (zqb_broker_handle (broker, "echo", tell_user, NULL));
    call_user ("nobody");
    assert_null (zqb_request_user (NULL));
}

TEST (who_is_in_this_process_may_be_allowed_by_that)
{
    start_plain ();
    assert_ok (zqb_broker_rule (broker, 1, "@inproc", ZQB_MAY_CALL | ZQB_MAY_SERVE, "*"));
    zqb_worker_t *worker = new_worker (ZQB_DIALECT_ZQB1, 1);
    eventually (stat (broker, workers) == 1);
    zqb_worker_destroy (&worker);
    void *eve = connect_as ("", NULL); /* nobody, over the network */
    char user[256];
    int status;
    zqb__command_t asks = request ("echo", 1, "a");
    tell_broker (eve, 3, &asks);
    assert_int_equal (broker_tells (eve, &status, user), ZQB__ERROR);
    assert_int_equal (status, ZQB_EDENIED - ZQB_ERRNO);
    zmq_close (eve);
}

TEST (a_worker_and_a_client_of_ours_hear_that_it_is_not_allowed)
{
    zqb_msg_t msg, answer;
    start_plain ();
    assert_ok (zqb_broker_rule (broker, 1, "somebody", ZQB_MAY_CALL, "echo"));
    zqb_worker_t *worker = new_worker (ZQB_DIALECT_ZQB1, 1);
    assert_none (zqb_worker_recv (worker, PATIENCE_MS), ZQB_EDENIED);
    assert_ok (zqb_broker_rules (broker, NULL));
    eventually (zqb_worker_recv (worker, 10) == NULL && stat (broker, workers) == 1); /* it tries again */
    zqb_worker_destroy (&worker);
    assert_ok (zqb_broker_rule (broker, 0, "*", ZQB_MAY_CALL, "echo"));
    zqb_client_t *client = new_client (ZQB_DIALECT_ZQB1, 0, 0);
    zqb_msg_init (&msg);
    zqb_msg_init (&answer);
    zqb_msg_add_str (&msg, "x");
    assert_fails (zqb_client_call (client, "echo", &msg, &answer), ZQB_EDENIED);
    assert_string_equal (zqb_strerror (ZQB_EDENIED), "not allowed");
    zqb_msg_close (&msg);
    zqb_msg_close (&answer);
    zqb_client_destroy (&client);
}

static zqb__flag_t busy; /* how often a function that asks who may was not let change what it is asked about */

static int ask_host (const zqb_access_t *access, void *arg)
{
    int denied = strcmp (access->user, (const char *) arg) == 0;
    if (zqb_broker_rule (broker, 1, "*", ZQB_MAY_CALL, "*") != 0 && errno == EBUSY
        && zqb_broker_rules (broker, NULL) != 0 && errno == EBUSY)
        zqb__flag_add (&busy, 1);
    return denied ? 0 : strcmp (access->user, "alice") == 0 ? 5 : -7; /* as 1 and -1 */
}

TEST (a_function_of_the_host_says_who_may_and_cannot_change_the_rules_meanwhile)
{
    char user[256], eves[] = "eve";
    int status;
    options.access = ask_host;
    options.access_arg = eves;
    zqb__flag_clear (&busy);
    start_plain ();
    assert_ok (zqb_broker_rule (broker, 1, "eve", ZQB_MAY_CALL, "*"));
    void *alice = connect_as ("alice", NULL), *eve = connect_as ("eve", NULL), *bob = connect_as ("bob", NULL);
    zqb__command_t asks = request ("echo", 1, "a");
    tell_broker (eve, 1, &asks);
    assert_int_equal (broker_tells (eve, &status, user), ZQB__ERROR);
    assert_int_equal (status, ZQB_EDENIED - ZQB_ERRNO);
    tell_broker (bob, 2, &asks); /* the rules say */
    assert_int_equal (broker_tells (bob, &status, user), ZQB__ERROR);
    assert_int_equal (status, ZQB_EDENIED - ZQB_ERRNO);
    tell_broker (alice, 3, &asks);
    eventually (stat (broker, queued) == 1);
    assert_int_equal (stat (broker, denied_call), 2);
    assert_int_equal (zqb__flag_get (&busy), 3);
    zmq_close (alice);
    zmq_close (eve);
    zmq_close (bob);
}

/* A worker hears of a request of alice, and the allocation behind so many fails. Whether any did. */
static int alice_asks_for (played_t *played, zqb_worker_t *worker, long left)
{
    static zqb__rare_t rare;
    uint64_t id = (uint64_t) left + 1;
    zqb__command_t asks = zqb__command (ZQB__REQUEST, id);
    memset (&rare, 0, sizeof rare);
    rare.user = (const unsigned char *) "alice";
    rare.user_size = 5;
    asks.rare = &rare;
    played_says (played, &asks);
    unit_memory_fail (left, 1);
    zqb_request_t *asked = zqb_worker_recv (worker, 100);
    int failed = unit_memory_failures () > 0;
    unit_memory_recover ();
    if (asked) {
        assert_string_equal (zqb_request_user (asked), "alice");
        assert_ok (reply_text (asked, "done"));
        return failed;
    }
    assert_true (failed);
    return 1;
}

TEST (a_worker_without_memory_for_who_calls_does_not_take_the_request)
{
    int refused = 0;
    for (long left = 0, failed = 1; failed; left++) {
        played_t played;
        zqb_worker_options_t its;
        memset (&its, 0, sizeof its);
        its.heartbeat_ms = 60000;
        played_bind (&played);
        zqb_worker_t *worker = zqb_worker_new (ctx, played.endpoint, "echo", &its);
        assert_non_null (worker);
        assert_null (zqb_worker_recv (worker, 0));
        played_hears (&played); /* READY */
        failed = alice_asks_for (&played, worker, left);
        zqb_worker_destroy (&worker);
        while (played_next (&played, ZMQ_DONTWAIT))
            refused += strstr (played.text, "the worker is out of memory") != NULL;
        played_close (&played);
    }
    assert_true (refused > 0);
}

/* ---- the file */

static char path[64];
static char logged[1500];

static void keep_log (int level, const char *text, UNUSED void *arg)
{
    if (level == ZQB_LOG_ERROR)
        snprintf (logged, sizeof logged, "%s", text);
}

static void write_rules (const char *text, mode_t mode)
{
    snprintf (path, sizeof path, "/tmp/zqbroker-rules-%016llx", (unsigned long long) zqb__random ());
    FILE *file = fopen (path, "wb");
    assert_non_null (file);
    fputs (text, file);
    fclose (file);
    assert_ok (chmod (path, mode));
}

static void write_many_rules (int count)
{
    write_rules ("", 0600);
    FILE *file = fopen (path, "wb");
    assert_non_null (file);
    for (int i = 0; i < count; i++)
        fputs ("deny a call b\n", file);
    fclose (file);
}

static size_t rule_count (void)
{
    return broker->engine.rules ? broker->engine.rules->count : SIZE_MAX;
}

TEST (a_file_is_read_whole_or_not_at_all)
{
    options.log = keep_log;
    start_plain ();
    write_rules ("allow alice call echo\nallow bob call echo\n", 0644);
    assert_ok (zqb_broker_rules (broker, path));
    assert_int_equal (rule_count (), 2);
    unlink (path);
    write_rules ("allow alice call echo\nnonsense\n", 0600);
    assert_fails (zqb_broker_rules (broker, path), EINVAL);
    assert_non_null (strstr (logged, ", line 2: "));
    assert_int_equal (rule_count (), 2);
    unlink (path);
    assert_fails (zqb_broker_rules (broker, path), ENOENT);
    assert_fails (zqb_broker_rules (broker, "/tmp"), EINVAL);
    write_rules ("allow alice call echo\n", 0666);
    assert_fails (zqb_broker_rules (broker, path), EPERM);
    assert_ok (chmod (path, 0620));
    assert_fails (zqb_broker_rules (broker, path), EPERM);
    assert_ok (chmod (path, 0600));
    assert_ok (truncate (path, 1048577));
    assert_fails (zqb_broker_rules (broker, path), EFBIG);
    assert_int_equal (rule_count (), 2);
    unlink (path);
    write_many_rules (ZQB__RULES_MOST + 1);
    assert_fails (zqb_broker_rules (broker, path), EINVAL);
    assert_int_equal (rule_count (), 2);
    unlink (path);
    assert_ok (zqb_broker_rules (broker, NULL));
    assert_true (rule_count () == SIZE_MAX);
}

TEST (a_rule_that_is_wrong_changes_nothing)
{
    start_plain ();
    assert_fails (zqb_broker_rule (NULL, 1, "a", ZQB_MAY_CALL, "x"), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, NULL, ZQB_MAY_CALL, "x"), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, "a", ZQB_MAY_CALL, NULL), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, "a", 0, "x"), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, "a", 8, "x"), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, "", ZQB_MAY_CALL, "x"), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, "a", ZQB_MAY_CALL, ""), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, "@g", ZQB_MAY_CALL, "x"), EINVAL);
    assert_fails (zqb_broker_rule (broker, 1, "a", ZQB_MAY_CALL, "x y\\"), EINVAL);
    assert_fails (zqb_broker_rules (NULL, "x"), EINVAL);
    assert_true (rule_count () == SIZE_MAX);
    assert_ok (zqb_broker_rule (broker, 1, "a", ZQB_MAY_CALL, "x y"));
    assert_int_equal (rule_count (), 2);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        RULES (what_no_rule_is_about_is_denied),
        RULES (the_first_rule_that_is_about_it_says),
        RULES (users_are_names_or_all_that_begin_so_and_a_star_is_nobody_without_a_name),
        RULES (a_group_is_its_members_of_all_lines_that_have_its_name),
        RULES (who_serves_a_pattern_must_be_allowed_to_serve_all_its_names),
        RULES (to_ask_for_mmi_takes_manage_or_a_rule_that_names_it),
        RULES (bytes_that_a_word_cannot_have_are_written_in_hexadecimal),
        RULES (comments_blank_lines_and_other_ends_of_lines_mean_nothing),
        RULES (what_is_wrong_is_said_with_its_line),
        RULES (names_files_rules_and_groups_have_bounds),
        RULES (without_memory_at_any_allocation_rules_are_not_read_and_nothing_leaks),
        RULES (what_is_found_by_hashes_is_what_a_walk_through_all_rules_finds),
        RULES (without_memory_at_any_allocation_a_rule_or_a_member_more_changes_nothing),
        cmocka_unit_test (a_client_is_denied_what_it_may_not_call_and_told_so),
        cmocka_unit_test (what_is_not_known_is_denied_without_becoming_known),
        cmocka_unit_test (a_worker_is_refused_what_it_may_not_serve),
        cmocka_unit_test (one_that_registers_for_what_it_may_not_serve_serves_nothing_any_more),
        cmocka_unit_test (a_call_of_a_pattern_is_judged_by_its_own_name),
        cmocka_unit_test (mmi_and_surveys_are_for_who_may_manage),
        cmocka_unit_test (what_is_asked_of_mmi_before_somebody_serves_it_waits_as_long_as_it_may_be_asked_for),
        cmocka_unit_test (a_survey_goes_on_while_the_rules_allow_it_and_ends_whole_when_they_do_not),
        cmocka_unit_test (handlers_are_called_by_who_may),
        cmocka_unit_test (rules_that_change_send_workers_away_and_what_they_held_goes_to_others),
        cmocka_unit_test (rules_that_change_cancel_what_may_not_be_asked_for_any_more),
        cmocka_unit_test (rules_that_change_without_memory_cancel_all_that_may_not_be_asked_for_any_more),
        cmocka_unit_test (without_rules_everything_is_allowed_again),
        cmocka_unit_test (the_host_is_asked_before_the_rules_and_once_for_a_client_and_a_service),
        cmocka_unit_test (a_host_that_changes_its_mind_all_the_time_is_not_asked_for_ever),
        cmocka_unit_test (what_the_host_alone_says_is_asked_again_of_who_is_there_when_the_rules_are_set),
        cmocka_unit_test (the_host_is_asked_again_when_a_client_comes_back_from_another_place),
        cmocka_unit_test (the_log_tells_who_was_denied_what_but_not_a_hundred_times),
        cmocka_unit_test (workers_that_come_and_go_do_not_fill_the_log),
        cmocka_unit_test (many_who_are_denied_something_do_not_fill_the_log),
        cmocka_unit_test (a_life_that_another_user_presents_is_another_peer),
        cmocka_unit_test (a_life_over_inproc_is_not_one_over_the_network),
        cmocka_unit_test (a_worker_is_not_succeeded_by_another_user),
        cmocka_unit_test (another_user_at_the_same_address_has_nothing_of_what_the_first_had),
        cmocka_unit_test (another_user_at_the_same_address_hears_nothing_that_is_for_the_first),
        cmocka_unit_test (without_memory_for_who_it_is_the_first_keeps_what_he_has),
        cmocka_unit_test (who_joins_a_request_is_the_same_user),
        cmocka_unit_test (a_worker_is_told_the_user_and_not_what_a_client_says),
        cmocka_unit_test (a_one_way_request_is_its_users_even_if_he_is_gone),
        cmocka_unit_test (a_user_has_no_more_requests_than_he_may_over_all_his_connections),
        cmocka_unit_test (a_survey_is_one_request_of_its_user_and_as_many_as_there_are_workers),
        cmocka_unit_test (who_is_nobody_is_limited_by_himself),
        cmocka_unit_test (a_user_has_no_more_workers_than_he_may_over_all_his_connections),
        cmocka_unit_test (a_user_asks_for_no_more_a_second_than_he_may),
        cmocka_unit_test (a_client_asks_for_no_more_a_second_than_it_may_whoever_it_is),
        cmocka_unit_test (a_client_sends_no_more_bytes_a_second_than_it_may),
        cmocka_unit_test (a_user_sends_no_more_bytes_a_second_than_he_may),
        cmocka_unit_test (limits_of_users_come_to_an_end_with_whatever_ends_a_request),
        cmocka_unit_test (without_memory_at_any_allocation_nobody_becomes_another_and_everything_adds_up),
        USERS (who_comes_by_the_name_and_the_number_of_anothers_connection_has_not_his_rights),
        USERS (the_user_id_that_zap_gives_is_what_rules_and_workers_see),
        USERS (a_name_that_another_user_takes_when_its_owner_is_gone_gives_him_nothing),
        USERS (without_memory_for_who_has_a_name_now_he_is_not_heard),
        USERS (workers_and_handlers_can_ask_who_calls_but_not_over_mdp),
        USERS (who_is_in_this_process_may_be_allowed_by_that),
        USERS (a_worker_and_a_client_of_ours_hear_that_it_is_not_allowed),
        USERS (a_function_of_the_host_says_who_may_and_cannot_change_the_rules_meanwhile),
        USERS (a_worker_without_memory_for_who_calls_does_not_take_the_request),
        USERS (a_file_is_read_whole_or_not_at_all),
        USERS (a_rule_that_is_wrong_changes_nothing),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
