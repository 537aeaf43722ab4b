#include "cache/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void *get(struct slab *s, size_t bytes)
{
    void *p = slab_get(s, bytes);
    if (!p) {
        assert_int_equal(slab_grow(s, bytes), 0);
        p = slab_get(s, bytes);
    }
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 8, 0);
    return p;
}

static void nothing_without_a_page(void **state)
{
    (void)state;
    struct slab *s = slab_new(4096);
    assert_null(slab_get(s, 48));
    void *p = get(s, 48);
    assert_null(slab_get(s, 57)); /* pages hold one size */
    assert_int_equal(slab_unused_bytes(s), 4096 - 48);
    assert_int_equal(slab_put(s, p, 48), 4096);
    assert_int_equal(slab_unused_bytes(s), 0);
    slab_free(s);
}

static void a_page_added_for_nothing_is_trimmed(void **state)
{
    (void)state;
    struct slab *s = slab_new(4096);
    void *p = get(s, 48);
    assert_int_equal(slab_grow(s, 48), 0);
    assert_int_equal(slab_trim(s), 4096);
    assert_int_equal(slab_put(s, p, 48), 4096);
    assert_int_equal(slab_trim(s), 0);
    slab_free(s);
}

/* Every slot keeps its own bytes, through reuse in random order; all pages come back. */
static void slots_do_not_overlap(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct {
        unsigned char *p;
        size_t bytes;
    } held[N];
    struct slab *s = slab_new(16384);
    unsigned seed = 5;
    size_t released = 0, grown = 0;
    for (unsigned i = 0; i < 100000; i++) {
        unsigned n = (unsigned)rand_r(&seed) % N;
        if (held[n].p) {
            for (size_t b = 0; b < held[n].bytes; b++)
                assert_int_equal(held[n].p[b], n & 0xff);
            released += slab_put(s, held[n].p, held[n].bytes);
            held[n].p = NULL;
        } else {
            held[n].bytes = 1 + (size_t)rand_r(&seed) % SLAB_BYTES_MAX;
            held[n].p = slab_get(s, held[n].bytes);
            if (!held[n].p) {
                grown += slab_page_bytes(s);
                held[n].p = get(s, held[n].bytes);
            }
            memset(held[n].p, (int)(n & 0xff), held[n].bytes);
        }
    }
    for (unsigned n = 0; n < N; n++) {
        if (held[n].p)
            released += slab_put(s, held[n].p, held[n].bytes);
    }
    assert_int_equal(released, grown);
    slab_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_without_a_page),
        cmocka_unit_test(a_page_added_for_nothing_is_trimmed),
        cmocka_unit_test(slots_do_not_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
