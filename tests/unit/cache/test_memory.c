#include "memory_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static void hit_gives_what_was_put(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    assert_null(get(m, "s /a"));
    assert_true(put_object(m, &(struct made){.key = "s /a", .body_bytes = 5, .fill = 'q'}));
    struct object *o = get(m, "s /a");
    assert_non_null(o);
    assert_true(str_eq(object_body(o), STR("qqqqq")));
    assert_true(str_eq(object_key_text(o), STR("s /a")));
    assert_true(str_eq(object_etag(o), STR("\"v1\"")));
    assert_true(str_eq(object_last_modified(o), STR("Sun, 06 Nov 1994 08:49:37 GMT")));
    assert_true(str_starts(object_head_tail(o), STR("ETag:")));
    assert_true(o->flags & OBJECT_STRONG_VALIDATOR);
    assert_int_equal(object_age_s(o, 1010), 10);
    assert_int_equal(object_age_s(o, 10), 0);
    object_unref(m, &o);
    assert_null(get(m, "s /b"));
    memory_free(&m);
}

static void replaced_object_lives_on_for_its_reader(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    put_object(m, &(struct made){.key = "s /a", .body_bytes = 100, .fill = '1'});
    struct object *old = get(m, "s /a");
    put_object(m, &(struct made){.key = "s /a", .body_bytes = 50, .fill = '2'});
    struct object *now = get(m, "s /a");
    assert_ptr_not_equal(old, now);
    assert_int_equal(object_body(old).p[99], '1');
    assert_int_equal(object_body(now).p[49], '2');
    struct memory_stats s;
    memory_stats(m, &s);
    assert_int_equal(s.objects, 1);
    assert_int_equal(s.replacements, 1);
    assert_true(s.detached_bytes >= 100);
    object_unref(m, &old);
    memory_stats(m, &s);
    assert_int_equal(s.detached_bytes, 0);
    memory_remove(m, now);
    assert_null(get(m, "s /a"));
    assert_false(holds_nothing(m));
    object_unref(m, &now);
    assert_true(holds_nothing(m));
    memory_free(&m);
}

static void remove_takes_only_the_object_it_names(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    put_object(m, &(struct made){.key = "s /a", .body_bytes = 1});
    struct object *old = get(m, "s /a");
    put_object(m, &(struct made){.key = "s /a", .body_bytes = 1});
    memory_remove(m, old);
    object_unref(m, &old);
    struct object *now = get(m, "s /a");
    assert_non_null(now);
    object_unref(m, &now);
    memory_free(&m);
}

static void budget_is_never_exceeded(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 8; shards *= 8) {
        struct memory *m = tier(8 * MIB, shards);
        unsigned seed = 1;
        for (unsigned i = 0; i < 20000; i++) {
            char key[32];
            snprintf(key, sizeof key, "s /%u", (unsigned)rand_r(&seed) % 4000);
            size_t bytes = i % 50 == 0 ? 300 * KIB : (size_t)rand_r(&seed) % (i < 10000 ? 200 : 20000);
            assert_true(put_object(m, &(struct made){.key = key, .body_bytes = bytes}));
            if (i % 16 == 0)
                assert_true(bytes_in_use(m) <= 8 * MIB);
        }
        struct memory_stats s;
        memory_stats(m, &s);
        assert_true(s.evictions > 0);
        assert_true(s.bytes > 7 * MIB); /* and it is used */
        assert_int_equal(s.refused, 0);
        assert_int_equal(s.detached_bytes, 0);
        memory_free(&m);
    }
}

static void memory_full_of_readers_refuses_and_recovers(void **state)
{
    (void)state;
    struct memory *m = tier(4 * MIB, 1);
    struct object *held[64];
    unsigned n = 0;
    for (; n < 64; n++) {
        char key[32];
        snprintf(key, sizeof key, "s /%u", n);
        if (!put_object(m, &(struct made){.key = key, .body_bytes = 200 * KIB, .fill = (char)('a' + n % 26)}))
            break;
        held[n] = get(m, key);
    }
    assert_in_range(n, 10, 20);
    assert_null(memory_body_new(m, 300 * KIB));
    struct memory_stats s;
    memory_stats(m, &s);
    assert_true(s.refused > 0);
    for (unsigned i = 0; i < n; i++) /* every byte is still there */
        for (size_t b = 0; b < 200 * KIB; b += 4096)
            assert_int_equal(held[i]->body[b], 'a' + i % 26);
    object_unref(m, &held[0]);
    object_unref(m, &held[1]);
    char *body = memory_body_new(m, 300 * KIB);
    assert_non_null(body);
    memory_body_free(m, &body);
    for (unsigned i = 2; i < n; i++)
        object_unref(m, &held[i]);
    memory_free(&m);
}

static void evicted_object_lives_on_for_its_reader(void **state)
{
    (void)state;
    struct memory *m = tier(4 * MIB, 1);
    put_object(m, &(struct made){.key = "s /read", .body_bytes = 100 * KIB, .fill = 'r'});
    struct object *reading = get(m, "s /read");
    memory_remove(m, reading); /* as an eviction does */
    for (unsigned i = 0; i < 200; i++) {
        char key[32];
        snprintf(key, sizeof key, "s /%u", i);
        put_object(m, &(struct made){.key = key, .body_bytes = 100 * KIB, .fill = 'n'});
    }
    struct memory_stats s;
    memory_stats(m, &s);
    assert_true(s.evictions > 100);
    assert_in_range(s.detached_bytes, 100 * KIB, 140 * KIB);
    assert_int_equal(reading->body[100 * KIB - 1], 'r');
    object_unref(m, &reading);
    memory_free(&m);
}

static void too_large_a_body_is_refused(void **state)
{
    (void)state;
    struct memory *m = tier(4 * MIB, 1);
    assert_null(memory_body_new(m, MIB)); /* more than an eighth */
    char *body = memory_body_new(m, 0);
    assert_non_null(body);
    memory_body_free(m, &body);
    memory_free(&m);
    m = tier(64 * MIB, 1);
    assert_null(memory_body_new(m, MIB + 1));
    body = memory_body_new(m, MIB);
    assert_non_null(body);
    memory_body_free(m, &body);
    memory_free(&m);
    assert_null(memory_new(&(struct memory_config){.size_bytes = 1}));
}

static struct object_spec spec_of(struct object *o, uint32_t lifetime_s)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"v1\"\r\nX-Renewed: yes\r\n";
    struct object_spec spec = {.key = cache_key_of(object_key_text(o)),
                               .slice = object_slice(o),
                               .total_bytes = object_total_bytes(o),
                               .head = str_of(head, sizeof head - 1),
                               .status = 200,
                               .birth_unix_s = 2000,
                               .lifetime_s = lifetime_s,
                               .epoch = o->epoch};
    assert_int_equal(object_head_scan(&spec), 0);
    return spec;
}

static void rfc9111_4_3_4_a_304_renews_over_the_same_body(void **state)
{
    (void)state;
    struct memory *m = tier(16 * MIB, 0);
    put_object(m, &(struct made){.key = "s /a", .body_bytes = 300 * KIB, .fill = 'b'});
    struct object *first = get(m, "s /a"), *old = first, *renewed = NULL;
    uint64_t before = bytes_in_use(m);
    object_ref(first);
    for (unsigned i = 1; i <= 3; i++) { /* no chain grows */
        struct object_spec spec = spec_of(old, 60 + i);
        assert_int_equal(memory_object_renew(m, &spec, old, &renewed), 0);
        assert_int_equal(memory_replace(m, old, renewed), 0);
        assert_int_equal(memory_replace(m, old, renewed), -ENOENT);
        object_unref(m, &old);
        old = renewed;
    }
    assert_ptr_equal(renewed->body, first->body);
    assert_true(bytes_in_use(m) - before < 16 * KIB); /* some pages of small parts, no second body */
    assert_int_equal(first->lifetime_s, 60);          /* readers of the old one see the old head */
    object_unref(m, &first);
    struct object *now = get(m, "s /a");
    assert_ptr_equal(now, renewed);
    assert_int_equal(now->lifetime_s, 63);
    assert_int_equal(now->body[300 * KIB - 1], 'b');
    assert_true(str_eq(object_head_tail(now), STR("ETag: \"v1\"\r\nX-Renewed: yes\r\n")));
    object_unref(m, &now);
    memory_remove(m, renewed);
    object_unref(m, &renewed);
    assert_true(holds_nothing(m));
    memory_free(&m);
}

static void a_304_of_a_short_body_copies_it(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    put_object(m, &(struct made){.key = "s /a", .body_bytes = 100, .fill = 'c'});
    struct object *old = get(m, "s /a"), *renewed;
    struct object_spec spec = spec_of(old, 9);
    assert_int_equal(memory_object_renew(m, &spec, old, &renewed), 0);
    assert_ptr_not_equal(old->body, renewed->body);
    assert_true(str_eq(object_body(old), object_body(renewed)));
    object_unref(m, &old);
    object_unref(m, &renewed);
    memory_free(&m);
}

/* --- variants and slices --- */

static uint64_t variant_in_context(void *context, struct str vary)
{
    assert_true(str_eq(vary, STR("accept-encoding")));
    return *(uint64_t *)context;
}

static struct object *get_variant(struct memory *m, const char *key_text, uint32_t slice, uint64_t variant)
{
    struct variant_select select = {variant_in_context, &variant};
    struct cache_key key = key_z(key_text);
    return memory_lookup(m, &key, slice, &select);
}

static bool has_variant(struct memory *m, const char *key_text, uint64_t variant)
{
    struct object *o = get_variant(m, key_text, 0, variant);
    bool has = o != NULL;
    if (o) {
        assert_int_equal(object_variant(o), variant);
        object_unref(m, &o);
    }
    return has;
}

static void put_variant(struct memory *m, uint64_t variant)
{
    assert_true(put_object(
        m, &(struct made){.key = "s /v", .body_bytes = 10, .variant = variant, .vary = "accept-encoding"}));
}

static void variants_are_told_apart_and_bounded(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    for (uint64_t v = 1; v <= OBJECT_VARIANTS_MAX; v++)
        put_variant(m, v);
    for (uint64_t v = 1; v <= OBJECT_VARIANTS_MAX; v++)
        assert_true(has_variant(m, "s /v", v));
    assert_null(get(m, "s /v")); /* nothing without a selection */
    put_variant(m, 100);
    assert_true(has_variant(m, "s /v", 100));
    assert_false(has_variant(m, "s /v", 1)); /* the oldest went */
    assert_true(has_variant(m, "s /v", 2));
    put_variant(m, 2); /* again: nothing is pushed out */
    assert_true(has_variant(m, "s /v", 3));
    memory_free(&m);
}

static void a_response_without_vary_ends_its_variants_and_back(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    put_variant(m, 1);
    put_object(m, &(struct made){.key = "s /v", .body_bytes = 20});
    struct object *o = get_variant(m, "s /v", 0, 1);
    assert_non_null(o);
    assert_int_equal(object_variant(o), 0);
    object_unref(m, &o);
    put_variant(m, 2);
    assert_true(has_variant(m, "s /v", 2));
    assert_false(has_variant(m, "s /v", 3));
    assert_null(get(m, "s /v"));
    memory_free(&m);
}

static void slices_are_objects_of_their_own_and_go_together(void **state)
{
    (void)state;
    struct memory *m = tier(32 * MIB, 4);
    struct cache_key key = key_z("s /long");
    for (uint32_t i = 0; i < 5; i++) {
        struct made how = {
            .key = "s /long", .slice = i, .total_bytes = 5 * MIB, .body_bytes = MIB, .fill = (char)('0' + i)};
        assert_true(put_object(m, &how));
    }
    for (uint32_t i = 0; i < 5; i++) {
        struct object *o = memory_lookup(m, &key, i, NULL);
        assert_non_null(o);
        assert_int_equal(o->body[0], '0' + i);
        assert_int_equal(object_total_bytes(o), 5 * MIB);
        object_unref(m, &o);
    }
    uint64_t epoch = memory_remove_key(m, &key);
    for (uint32_t i = 0; i < 5; i++)
        assert_null(memory_lookup(m, &key, i, NULL));
    /* A slice of the next version does not bring the old ones back. */
    struct made how = {
        .key = "s /long", .slice = 2, .total_bytes = 5 * MIB, .body_bytes = MIB, .epoch = epoch};
    assert_true(put_object(m, &how));
    struct object *o = memory_lookup(m, &key, 2, NULL);
    assert_non_null(o);
    object_unref(m, &o);
    assert_null(memory_lookup(m, &key, 1, NULL));
    /* Nor can one whose fill began before. */
    how.slice = 1;
    how.epoch = epoch - 1;
    assert_false(put_object(m, &how));
    memory_free(&m);
}

static void purge_all_forgets_and_refuses_older_fills(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    uint64_t before = memory_epoch(m);
    put_object(m, &(struct made){.key = "s /a", .body_bytes = 10});
    memory_purge_all(m);
    assert_null(get(m, "s /a"));
    assert_false(put_object(m, &(struct made){.key = "s /a", .body_bytes = 10, .epoch = before}));
    assert_true(put_object(m, &(struct made){.key = "s /a", .body_bytes = 10}));
    struct object *o = get(m, "s /a");
    assert_non_null(o);
    object_unref(m, &o);
    memory_free(&m);
}

static void what_an_object_may_not_be(void **state)
{
    (void)state;
    struct memory *m = tier(8 * MIB, 0);
    char *body = memory_body_new(m, 10);
    struct object *o = NULL;
    struct object_spec spec = {.key = key_z("s /a"), .total_bytes = 10, .slice = 1};
    assert_int_equal(memory_object_new(m, &spec, &body, 10, &o), -EINVAL); /* no such slice */
    spec.slice = 0;
    spec.variant = 1;
    assert_int_equal(memory_object_new(m, &spec, &body, 10, &o), -EINVAL); /* a variant of nothing */
    spec.variant = 0;
    spec.total_bytes = 9;
    assert_int_equal(memory_object_new(m, &spec, &body, 10, &o), -EINVAL);
    spec.total_bytes = 10;
    static char long_head[OBJECT_HEAD_BYTES_MAX + 1];
    spec.head = str_of(long_head, sizeof long_head);
    assert_int_equal(memory_object_new(m, &spec, &body, 10, &o), -E2BIG);
    assert_non_null(body); /* still ours */
    memory_body_free(m, &body);
    memory_free(&m);
}

/* --- two threads --- */

struct hammer {
    struct memory *m;
    unsigned seed;
    unsigned hits;
};

static void hammer_one(struct hammer *h)
{
    char key[32];
    unsigned r = (unsigned)rand_r(&h->seed), number = r % 97;
    char fill = (char)('A' + number % 26);

    snprintf(key, sizeof key, "s /%u", number);
    struct object *o = number % 3 == 0 ? get_variant(h->m, key, 0, 1 + number % 5) : get(h->m, key);
    if (!o) {
        struct made how = {.key = key, .body_bytes = 1000 + (size_t)r % 150000, .fill = fill};
        if (number % 3 == 0) {
            how.variant = 1 + number % 5;
            how.vary = "accept-encoding";
        }
        put_object(h->m, &how);
        return;
    }
    h->hits++;
    for (size_t i = 0; i < o->body_bytes; i += 997)
        assert_int_equal(o->body[i], fill);
    if (r % 64 == 0) {
        memory_remove(h->m, o);
    } else if (r % 32 == 1 && object_variant(o) == 0) {
        struct object_spec spec = spec_of(o, 5);
        struct object *renewed;
        if (memory_object_renew(h->m, &spec, o, &renewed) == 0) {
            memory_replace(h->m, o, renewed);
            object_unref(h->m, &renewed);
        }
    } else if (r % 512 == 2) {
        struct cache_key k = key_z(key);
        memory_remove_key(h->m, &k);
    } else if (r % 4096 == 3) {
        memory_purge_all(h->m);
    }
    object_unref(h->m, &o);
}

static void *hammer_run(void *arg)
{
    struct hammer *h = arg;
    for (unsigned i = 0; i < 20000; i++) {
        hammer_one(h);
        if (i % 1024 == 0)
            bytes_in_use(h->m);
    }
    return NULL;
}

static void two_threads_hammer_one_tier(void **state)
{
    (void)state;
    struct memory *m = tier(5 * MIB, 4);
    uint64_t empty = bytes_in_use(m);
    struct hammer h[2] = {{m, 1, 0}, {m, 2, 0}};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hammer_run, &h[1]), 0);
    hammer_run(&h[0]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(h[0].hits > 1000 && h[1].hits > 1000);
    struct memory_stats s;
    memory_stats(m, &s);
    assert_true(s.evictions > 100);
    assert_int_equal(s.detached_bytes, 0); /* nothing leaked from the account */
    assert_true(s.bytes >= empty);
    memory_free(&m);
}

int main(void)
{
    hash_init_fixed(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hit_gives_what_was_put),
        cmocka_unit_test(replaced_object_lives_on_for_its_reader),
        cmocka_unit_test(remove_takes_only_the_object_it_names),
        cmocka_unit_test(budget_is_never_exceeded),
        cmocka_unit_test(memory_full_of_readers_refuses_and_recovers),
        cmocka_unit_test(evicted_object_lives_on_for_its_reader),
        cmocka_unit_test(too_large_a_body_is_refused),
        cmocka_unit_test(rfc9111_4_3_4_a_304_renews_over_the_same_body),
        cmocka_unit_test(a_304_of_a_short_body_copies_it),
        cmocka_unit_test(variants_are_told_apart_and_bounded),
        cmocka_unit_test(a_response_without_vary_ends_its_variants_and_back),
        cmocka_unit_test(slices_are_objects_of_their_own_and_go_together),
        cmocka_unit_test(purge_all_forgets_and_refuses_older_fills),
        cmocka_unit_test(what_an_object_may_not_be),
        cmocka_unit_test(two_threads_hammer_one_tier),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
