#include "cache/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RESERVED (64u << 20)

static struct pages *pages;

static int pages_made(void **state)
{
    (void)state;
    pages = pages_new(RESERVED);
    return pages ? 0 : -1;
}

static int pages_gone(void **state)
{
    (void)state;
    pages_free(pages); /* which checks that all slabs came back */
    return 0;
}

static struct slab *slab(size_t bytes_max)
{
    struct slab *s = slab_new(pages, bytes_max, RESERVED);
    assert_non_null(s);
    return s;
}

static void add(struct slab *s, size_t bytes)
{
    size_t resident;
    char *run = pages_take(pages, PAGES_IDLE, slab_run_bytes(s, bytes), &resident);
    if (!run)
        run = pages_take(pages, PAGES_FRESH, slab_run_bytes(s, bytes), &resident);
    assert_non_null(run);
    slab_add(s, bytes, &run);
    assert_null(run);
}

static void *get(struct slab *s, size_t bytes)
{
    void *p = slab_get(s, bytes);
    if (!p) {
        add(s, bytes);
        p = slab_get(s, bytes);
    }
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 8, 0);
    assert_int_equal(slab_slot_bytes(s, p), slab_rounded(bytes));
    return p;
}

static void give_back(char *run)
{
    assert_non_null(run);
    pages_put(pages, run);
}

static void nothing_without_a_slab(void **state)
{
    (void)state;
    struct slab *s = slab(4096);
    assert_null(slab_get(s, 48));
    void *p = get(s, 48);
    assert_null(slab_get(s, 57)); /* slabs hold one size */
    assert_int_equal(slab_unused_bytes(s), 4096 - 48 + SLAB_META_BYTES);
    give_back(slab_put(s, p));
    assert_int_equal(slab_unused_bytes(s), 0);
    slab_free(s);
}

static void a_slab_added_for_nothing_is_found(void **state)
{
    (void)state;
    struct slab *s = slab(4096);
    void *p = get(s, 48);
    add(s, 48);
    give_back(slab_take_unused(s));
    assert_null(slab_take_unused(s));
    give_back(slab_put(s, p));
    assert_null(slab_take_unused(s));
    slab_free(s);
}

static void a_kibibyte_wastes_nothing(void **state)
{
    (void)state;
    struct slab *s = slab(16384);
    void *slots[4];
    assert_int_equal(slab_run_bytes(s, 1024), 4096);
    for (unsigned i = 0; i < 4; i++)
        slots[i] = get(s, 1024);
    assert_int_equal(slab_unused_bytes(s), SLAB_META_BYTES);
    for (unsigned i = 0; i < 3; i++)
        assert_null(slab_put(s, slots[i]));
    give_back(slab_put(s, slots[3]));
    slab_free(s);
}

static void little_is_left_over_of_a_slab(void **state)
{
    (void)state;
    struct slab *s = slab(16384);
    for (size_t bytes = 48; bytes <= slab_slot_max(s); bytes++) {
        size_t run_bytes = slab_run_bytes(s, bytes), slot_bytes = slab_rounded(bytes);
        assert_true(run_bytes % PAGE_BYTES == 0 && run_bytes >= slot_bytes && run_bytes <= 16384);
        assert_true(slot_bytes >= bytes && run_bytes % slot_bytes <= run_bytes / 6);
    }
    slab_free(s);
}

/* Every slot keeps its own bytes, through reuse in random order; all slabs come back. */
static void slots_do_not_overlap(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct {
        unsigned char *p;
        size_t bytes;
    } held[N];
    struct slab *s = slab(16384);
    unsigned seed = 5;
    char *run;
    for (unsigned i = 0; i < 100000; i++) {
        unsigned n = (unsigned)rand_r(&seed) % N;
        if (held[n].p) {
            for (size_t b = 0; b < held[n].bytes; b++)
                assert_int_equal(held[n].p[b], n & 0xff);
            run = slab_put(s, held[n].p);
            if (run)
                give_back(run);
            held[n].p = NULL;
        } else {
            held[n].bytes = 1 + (size_t)rand_r(&seed) % slab_slot_max(s);
            held[n].p = get(s, held[n].bytes);
            memset(held[n].p, (int)(n & 0xff), held[n].bytes);
        }
    }
    for (unsigned n = 0; n < N; n++) {
        if (held[n].p && (run = slab_put(s, held[n].p)) != NULL)
            give_back(run);
    }
    assert_int_equal(slab_unused_bytes(s), 0);
    slab_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_without_a_slab, pages_made, pages_gone),
        cmocka_unit_test_setup_teardown(a_slab_added_for_nothing_is_found, pages_made, pages_gone),
        cmocka_unit_test_setup_teardown(a_kibibyte_wastes_nothing, pages_made, pages_gone),
        cmocka_unit_test_setup_teardown(little_is_left_over_of_a_slab, pages_made, pages_gone),
        cmocka_unit_test_setup_teardown(slots_do_not_overlap, pages_made, pages_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
