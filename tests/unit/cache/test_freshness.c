#include "cache/freshness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NOW 1000000

/* A 200 that arrived at once at NOW and says only what a test adds. */
struct one {
    struct cache_control cc, request_cc;
    struct freshness_response r;
    struct freshness_request q;
    struct freshness_rule rule;
};

static struct one *one(void)
{
    static struct one o;
    o = (struct one){.r = {.status = 200, .request_s = NOW, .response_s = NOW}};
    o.r.cc = &o.cc;
    return &o;
}

static struct one *with(uint32_t flags)
{
    struct one *o = one();
    o->cc.flags = flags;
    return o;
}

static struct one *with_max_age(uint32_t max_age_s, uint32_t flags)
{
    struct one *o = with(CC_HAS_MAX_AGE | flags);
    o->cc.max_age_s = max_age_s;
    return o;
}

static uint32_t lifetime(const struct one *o)
{
    return freshness_lifetime_s(&o->r, &o->rule);
}

static enum freshness_store store(const struct one *o)
{
    return freshness_storable(&o->q, &o->r, &o->rule);
}

static struct freshness all(const struct one *o)
{
    struct freshness f;
    freshness_of(&o->q, &o->r, &o->rule, &f);
    return f;
}

/* --- 4.2 --- */

static void rfc9111_4_2_1_s_maxage_then_max_age_then_expires(void **state)
{
    (void)state;
    struct one *o = with_max_age(60, CC_HAS_S_MAXAGE);
    o->cc.s_maxage_s = 30;
    o->r.has_expires = o->r.has_date = true;
    o->r.date_s = NOW - 5;
    o->r.expires_s = NOW + 5;
    assert_int_equal(lifetime(o), 30);
    o->cc.flags = CC_HAS_MAX_AGE;
    assert_int_equal(lifetime(o), 60);
    o->cc.flags = 0;
    assert_int_equal(lifetime(o), 10);
    o->r.has_date = false; /* then from when it came */
    assert_int_equal(lifetime(o), 5);
}

static void rfc9111_4_2_1_invalid_freshness_is_stale_even_under_a_rule(void **state)
{
    (void)state;
    struct one *o = with(CC_FRESHNESS_INVALID);
    o->rule = (struct freshness_rule){.has_ttl = true, .ttl_s = 600};
    assert_int_equal(lifetime(o), 0);
    o = one();
    o->rule = (struct freshness_rule){.has_ttl = true, .ttl_s = 600};
    o->r.has_expires = true; /* "Expires: 0" (5.3) */
    assert_int_equal(lifetime(o), 0);
    o->r.expires_s = INT64_MIN;
    assert_int_equal(lifetime(o), 0);
    o->r.expires_s = INT64_MAX;
    assert_int_equal(lifetime(o), CACHE_CONTROL_DELTA_MAX);
}

static void rfc9213_2_1_targeted_control_hides_expires(void **state)
{
    (void)state;
    struct one *o = one();
    o->r.has_expires = true;
    o->r.expires_s = NOW + 100;
    o->r.targeted = true;
    assert_int_equal(lifetime(o), 0);
}

static void rfc9111_4_2_2_no_heuristics_but_the_rule(void **state)
{
    (void)state;
    struct one *o = one();
    o->r.has_validator = true;
    assert_int_equal(lifetime(o), 0);
    o->rule = (struct freshness_rule){.has_ttl = true, .ttl_s = 600, .negative_ttl_s = 5};
    assert_int_equal(lifetime(o), 600);
    o->r.status = 404;
    assert_int_equal(lifetime(o), 5);
    o->r.status = 302; /* neither */
    assert_int_equal(lifetime(o), 0);
    o->r.status = 500;
    assert_int_equal(lifetime(o), 0);
}

static void a_rule_overrides_freshness_only(void **state)
{
    (void)state;
    struct one *o = with_max_age(60, CC_NO_CACHE);
    o->rule = (struct freshness_rule){.has_ttl = true, .ttl_s = 600};
    assert_int_equal(lifetime(o), 60);
    o->rule.override = true;
    assert_int_equal(lifetime(o), 600);
    assert_false(all(o).flags & OBJECT_NO_CACHE);
    o->r.status = 404; /* not what a year was meant for */
    assert_int_equal(lifetime(o), 60);
    o->r.status = 200;
    o->cc.flags = CC_NO_STORE;
    assert_int_equal(store(o), FRESHNESS_NO_STORE);
    o->cc.flags = CC_PRIVATE;
    assert_int_equal(store(o), FRESHNESS_PRIVATE);
    o->cc.flags = CC_MUST_REVALIDATE;
    assert_true(all(o).flags & OBJECT_MUST_REVALIDATE);
}

static void rfc9111_4_2_3_initial_age(void **state)
{
    (void)state;
    struct one *o = one();
    assert_int_equal(freshness_initial_age_s(&o->r), 0);
    o->r.has_date = true;
    o->r.date_s = NOW - 7; /* apparent age */
    assert_int_equal(freshness_initial_age_s(&o->r), 7);
    o->r.has_age = true;
    o->r.age_s = 10;
    o->r.request_s = NOW - 3; /* response delay adds to Age, not to the apparent one */
    assert_int_equal(freshness_initial_age_s(&o->r), 13);
    assert_int_equal(all(o).birth_unix_s, NOW - 13);
    o->r.date_s = NOW - 100;
    assert_int_equal(freshness_initial_age_s(&o->r), 100);
    o->r.date_s = NOW + 100; /* a clock ahead of ours */
    assert_int_equal(freshness_initial_age_s(&o->r), 13);
    o->r.age_s = UINT64_MAX;
    assert_int_equal(freshness_initial_age_s(&o->r), UINT64_MAX);
    assert_int_equal(all(o).birth_unix_s, 0);
}

/* --- 3 --- */

static void rfc9111_3_what_may_be_stored(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        uint32_t flags; /* with max-age=60 */
        enum freshness_store want;
    } rows[] = {
        {200, 0, FRESHNESS_STORE},
        {302, 0, FRESHNESS_STORE}, /* explicit freshness is enough for any final status */
        {500, 0, FRESHNESS_STORE},
        {599, 0, FRESHNESS_STORE},
        {600, 0, FRESHNESS_STATUS},
        {103, 0, FRESHNESS_STATUS},
        {304, 0, FRESHNESS_STATUS},
        {200, CC_NO_STORE, FRESHNESS_NO_STORE},
        {200, CC_PRIVATE, FRESHNESS_PRIVATE},
        {200, CC_PRIVATE_FIELDS, FRESHNESS_PRIVATE},
        {200, CC_PRIVATE | CC_PUBLIC, FRESHNESS_PRIVATE},
        {200, CC_NO_STORE | CC_MUST_UNDERSTAND, FRESHNESS_STORE}, /* 5.2.2.3 */
        {499, CC_MUST_UNDERSTAND, FRESHNESS_STATUS},
        {499, CC_NO_STORE | CC_MUST_UNDERSTAND, FRESHNESS_STATUS},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct one *o = with_max_age(60, rows[i].flags);
        o->r.status = rows[i].status;
        assert_int_equal(store(o), rows[i].want);
    }
}

static void rfc9111_3_reuse_must_be_possible(void **state)
{
    (void)state;
    struct one *o = one();
    assert_int_equal(store(o), FRESHNESS_NOT_FRESH);
    o->r.has_validator = true;
    assert_int_equal(store(o), FRESHNESS_STORE);
    o->r.status = 302; /* not cacheable by default, nothing explicit */
    assert_int_equal(store(o), FRESHNESS_NOT_FRESH);
    o->cc.flags = CC_PUBLIC;
    assert_int_equal(store(o), FRESHNESS_STORE);
    o = with_max_age(60, 0);
    o->r.has_age = true;
    o->r.age_s = 60; /* stale on arrival, no validator */
    assert_int_equal(store(o), FRESHNESS_NOT_FRESH);
    o->r.age_s = 59;
    assert_int_equal(store(o), FRESHNESS_STORE);
}

static void rfc9111_3_5_authorization(void **state)
{
    (void)state;
    static const uint32_t allowing[] = {CC_PUBLIC, CC_MUST_REVALIDATE, CC_HAS_S_MAXAGE};
    struct one *o = with_max_age(60, 0);
    o->q.authorization = true;
    assert_int_equal(store(o), FRESHNESS_AUTHORIZATION);
    o->rule.store_authorization = true; /* the rule alone does not do */
    assert_int_equal(store(o), FRESHNESS_AUTHORIZATION);
    for (size_t i = 0; i < ARRAY_LEN(allowing); i++) {
        o = with_max_age(60, allowing[i]);
        o->cc.s_maxage_s = 60;
        o->q.authorization = true;
        assert_int_equal(store(o), FRESHNESS_AUTHORIZATION); /* nor does the RFC alone */
        o->rule.store_authorization = true;
        assert_int_equal(store(o), FRESHNESS_STORE);
    }
}

static void rfc9111_7_3_set_cookie_and_4_1_vary(void **state)
{
    (void)state;
    struct one *o = with_max_age(60, 0);
    o->r.has_set_cookie = true;
    assert_int_equal(store(o), FRESHNESS_SET_COOKIE);
    o->rule.store_set_cookie = true;
    assert_int_equal(store(o), FRESHNESS_STORE);
    o->r.vary_fails = true;
    assert_int_equal(store(o), FRESHNESS_VARY);
}

static void rfc9111_5_2_1_5_no_store_of_a_request_is_advice(void **state)
{
    (void)state;
    struct one *o = with_max_age(60, 0);
    o->request_cc.flags = CC_NO_STORE;
    o->q.cc = &o->request_cc;
    assert_int_equal(store(o), FRESHNESS_STORE);
    o->rule.honour_request = true;
    assert_int_equal(store(o), FRESHNESS_NO_STORE);
}

static void rfc5861_windows_and_what_forbids_them(void **state)
{
    (void)state;
    struct one *o = with_max_age(60, CC_HAS_SWR);
    o->cc.stale_while_revalidate_s = 10;
    o->rule = (struct freshness_rule){.swr_s = 1, .sie_s = 2};
    assert_int_equal(all(o).swr_s, 10);
    assert_int_equal(all(o).sie_s, 2);
    o->cc.flags |= CC_HAS_S_MAXAGE; /* with its own grant: allowed */
    assert_int_equal(all(o).swr_s, 10);
    o->cc.flags = CC_HAS_S_MAXAGE; /* 5.2.2.10 */
    assert_true(all(o).flags & OBJECT_MUST_REVALIDATE);
    assert_int_equal(all(o).swr_s, 0);
    assert_int_equal(all(o).sie_s, 0);
    o->cc.flags = CC_HAS_MAX_AGE | CC_HAS_SWR | CC_PROXY_REVALIDATE; /* 5.2.2.8 */
    assert_true(all(o).flags & OBJECT_MUST_REVALIDATE);
    assert_int_equal(all(o).swr_s, 0);
    o->cc.flags = CC_NO_CACHE_FIELDS | CC_IMMUTABLE;
    assert_int_equal(all(o).flags, OBJECT_NO_CACHE | OBJECT_IMMUTABLE);
    o->cc.flags = CC_HAS_MAX_AGE;
    o->r.status = 404;
    assert_int_equal(all(o).flags, OBJECT_NEGATIVE);
}

/* --- 4 --- */

/* An object born at NOW, fresh for 60 s, served stale for 10 s, on errors for 100 s. */
static struct object *stored(uint16_t flags)
{
    static union {
        struct object o;
        char memory[sizeof(struct object) + sizeof(struct object_extra)];
    } u;
    u.o = (struct object){.magic = OBJECT_MAGIC,
                          .flags = (uint16_t)(flags | OBJECT_HAS_EXTRA),
                          .refs = 1,
                          .birth_unix_s = NOW,
                          .lifetime_s = 60};
    *(struct object_extra *)(void *)u.o.data = (struct object_extra){.swr_s = 10, .sie_s = 100};
    return &u.o;
}

static void rfc9111_4_2_and_rfc5861_by_age(void **state)
{
    (void)state;
    static const struct {
        uint16_t flags;
        uint64_t age_s;
        enum freshness_verdict want;
        bool stale_if_error;
    } rows[] = {
        {0, 0, FRESHNESS_FRESH, false},
        {0, 59, FRESHNESS_FRESH, false},
        {0, 60, FRESHNESS_STALE_SWR, true},
        {0, 69, FRESHNESS_STALE_SWR, true},
        {0, 70, FRESHNESS_VALIDATE, true},
        {0, 159, FRESHNESS_VALIDATE, true},
        {0, 160, FRESHNESS_VALIDATE, false},
        {OBJECT_MUST_REVALIDATE, 59, FRESHNESS_FRESH, false},
        {OBJECT_MUST_REVALIDATE, 60, FRESHNESS_VALIDATE, false},
        {OBJECT_NO_CACHE, 0, FRESHNESS_VALIDATE, false},
        {OBJECT_NO_CACHE, 60, FRESHNESS_VALIDATE, false},
    };
    const struct freshness_request nothing = {0};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct freshness_use use =
            freshness_usable(stored(rows[i].flags), &nothing, true, NOW + rows[i].age_s);
        assert_int_equal(use.verdict, rows[i].want);
        assert_int_equal(use.stale_if_error, rows[i].stale_if_error);
        assert_int_equal(use.ttl_s, 60 - (int64_t)rows[i].age_s);
    }
}

static void rfc9111_5_2_1_request_directives_where_honoured(void **state)
{
    (void)state;
    static const struct {
        struct cache_control cc;
        uint64_t age_s;
        enum freshness_verdict honoured, ignored;
    } rows[] = {
        {{.flags = CC_NO_CACHE}, 1, FRESHNESS_VALIDATE, FRESHNESS_FRESH},
        {{.flags = CC_HAS_MAX_AGE, .max_age_s = 0}, 0, FRESHNESS_FRESH, FRESHNESS_FRESH},
        {{.flags = CC_HAS_MAX_AGE, .max_age_s = 5}, 5, FRESHNESS_FRESH, FRESHNESS_FRESH},
        {{.flags = CC_HAS_MAX_AGE, .max_age_s = 5}, 6, FRESHNESS_VALIDATE, FRESHNESS_FRESH},
        {{.flags = CC_HAS_MIN_FRESH, .min_fresh_s = 50}, 10, FRESHNESS_FRESH, FRESHNESS_FRESH},
        {{.flags = CC_HAS_MIN_FRESH, .min_fresh_s = 50}, 11, FRESHNESS_VALIDATE, FRESHNESS_FRESH},
        {{.flags = CC_MAX_STALE_ANY}, 1000, FRESHNESS_STALE, FRESHNESS_VALIDATE},
        {{.flags = CC_HAS_MAX_STALE, .max_stale_s = 20}, 80, FRESHNESS_STALE, FRESHNESS_VALIDATE},
        {{.flags = CC_HAS_MAX_STALE, .max_stale_s = 20}, 81, FRESHNESS_VALIDATE, FRESHNESS_VALIDATE},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct freshness_request q = {.cc = &rows[i].cc};
        uint64_t now = NOW + rows[i].age_s;
        assert_int_equal(freshness_usable(stored(0), &q, true, now).verdict, rows[i].honoured);
        assert_int_equal(freshness_usable(stored(0), &q, false, now).verdict, rows[i].ignored);
    }
    struct cache_control cc = {.flags = CC_MAX_STALE_ANY}; /* 5.2.2.2 wins over 5.2.1.2 */
    struct freshness_request q = {.cc = &cc};
    assert_int_equal(freshness_usable(stored(OBJECT_MUST_REVALIDATE), &q, true, NOW + 60).verdict,
                     FRESHNESS_VALIDATE);
}

static void rfc9111_5_2_1_7_only_if_cached(void **state)
{
    (void)state;
    struct cache_control cc = {.flags = CC_ONLY_IF_CACHED};
    struct freshness_request q = {.cc = &cc}, nothing = {0};
    assert_int_equal(freshness_usable(NULL, &q, false, NOW).verdict, FRESHNESS_GATEWAY_TIMEOUT);
    assert_int_equal(freshness_usable(NULL, &nothing, false, NOW).verdict, FRESHNESS_VALIDATE);
    assert_int_equal(freshness_usable(stored(0), &q, false, NOW).verdict, FRESHNESS_FRESH);
    assert_int_equal(freshness_usable(stored(0), &q, false, NOW + 500).verdict, FRESHNESS_GATEWAY_TIMEOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc9111_4_2_1_s_maxage_then_max_age_then_expires),
        cmocka_unit_test(rfc9111_4_2_1_invalid_freshness_is_stale_even_under_a_rule),
        cmocka_unit_test(rfc9213_2_1_targeted_control_hides_expires),
        cmocka_unit_test(rfc9111_4_2_2_no_heuristics_but_the_rule),
        cmocka_unit_test(a_rule_overrides_freshness_only),
        cmocka_unit_test(rfc9111_4_2_3_initial_age),
        cmocka_unit_test(rfc9111_3_what_may_be_stored),
        cmocka_unit_test(rfc9111_3_reuse_must_be_possible),
        cmocka_unit_test(rfc9111_3_5_authorization),
        cmocka_unit_test(rfc9111_7_3_set_cookie_and_4_1_vary),
        cmocka_unit_test(rfc9111_5_2_1_5_no_store_of_a_request_is_advice),
        cmocka_unit_test(rfc5861_windows_and_what_forbids_them),
        cmocka_unit_test(rfc9111_4_2_and_rfc5861_by_age),
        cmocka_unit_test(rfc9111_5_2_1_request_directives_where_honoured),
        cmocka_unit_test(rfc9111_5_2_1_7_only_if_cached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
