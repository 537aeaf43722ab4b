#include "cache/pages.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define MIB (1u << 20)

static struct pages *reserve(uint64_t bytes)
{
    struct pages *p = pages_new(bytes);
    assert_non_null(p);
    return p;
}

static char *fresh(struct pages *p, size_t bytes)
{
    size_t resident;
    char *run = pages_take(p, PAGES_FRESH, bytes, &resident);
    if (run)
        assert_true(resident >= pages_rounded(bytes));
    return run;
}

static char *idle(struct pages *p, size_t bytes)
{
    size_t resident;
    char *run = pages_take(p, PAGES_IDLE, bytes, &resident);
    if (run)
        assert_int_equal(resident, 0);
    return run;
}

static void a_run_is_rounded_to_pages(void **state)
{
    (void)state;
    struct pages *p = reserve(8 * MIB);
    size_t resident;
    char *run = pages_take(p, PAGES_FRESH, 4097, &resident);
    assert_int_equal(resident, 2 * (PAGE_BYTES + PAGES_META_BYTES));
    assert_int_equal(pages_run_bytes(p, run), 2 * PAGE_BYTES);
    assert_int_equal((uintptr_t)run % PAGE_BYTES, 0);
    assert_int_equal(pages_own_bytes(p), 2 * PAGES_META_BYTES);
    assert_null(idle(p, 1));
    pages_put(p, run);
    assert_int_equal(pages_idle_bytes(p), 2 * PAGE_BYTES);
    assert_ptr_equal(idle(p, PAGE_BYTES), run); /* cut from what is idle */
    assert_int_equal(pages_idle_bytes(p), PAGE_BYTES);
    pages_put(p, run);
    pages_free(p);
}

static void the_shortest_that_fits_is_taken(void **state)
{
    (void)state;
    struct pages *p = reserve(8 * MIB);
    char *runs[9];
    for (unsigned i = 0; i < 9; i++)
        runs[i] = fresh(p, (i % 2 ? 1 : 5 + i) * PAGE_BYTES); /* 5, 1, 7, 1, 9, 1, 11, 1, 13 */
    for (unsigned i = 0; i < 9; i += 2)
        pages_put(p, runs[i]);
    assert_ptr_equal(idle(p, 8 * PAGE_BYTES), runs[4]);
    assert_ptr_equal(idle(p, 13 * PAGE_BYTES), runs[8]);
    assert_null(idle(p, 13 * PAGE_BYTES));
    assert_ptr_equal(idle(p, 1), runs[4] + 8 * PAGE_BYTES);
    for (unsigned i = 1; i < 9; i += 2)
        pages_put(p, runs[i]);
    pages_put(p, runs[4]);
    pages_put(p, runs[4] + 8 * PAGE_BYTES);
    pages_put(p, runs[8]);
    assert_int_equal(pages_idle_bytes(p), (5 + 7 + 9 + 11 + 13 + 4) * PAGE_BYTES);
    assert_ptr_equal(idle(p, 49 * PAGE_BYTES), runs[0]); /* all joined again */
    pages_put(p, runs[0]);
    pages_free(p);
}

static void neighbours_join_in_any_order(void **state)
{
    (void)state;
    static const unsigned orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (unsigned bytes = 1; bytes <= 3 * PAGE_BYTES; bytes += PAGE_BYTES) {
        for (unsigned o = 0; o < 6; o++) {
            struct pages *p = reserve(8 * MIB);
            char *runs[3];
            for (unsigned i = 0; i < 3; i++)
                runs[i] = fresh(p, bytes);
            for (unsigned i = 0; i < 3; i++)
                pages_put(p, runs[orders[o][i]]);
            assert_ptr_equal(idle(p, 3 * pages_rounded(bytes)), runs[0]);
            pages_put(p, runs[0]);
            pages_free(p);
        }
    }
}

static bool is_resident(char *page)
{
    unsigned char yes = 0;
    assert_int_equal(mincore(page, PAGE_BYTES, &yes), 0);
    return yes & 1;
}

static void what_is_trimmed_is_not_resident_and_comes_again_as_zeros(void **state)
{
    (void)state;
    struct pages *p = reserve(8 * MIB);
    char *run = fresh(p, 16 * PAGE_BYTES), *other = fresh(p, PAGE_BYTES);
    memset(run, 'x', 16 * PAGE_BYTES);
    memset(other, 'y', PAGE_BYTES);
    assert_true(is_resident(run));
    pages_put(p, run);
    assert_int_equal(pages_trim(p, 3 * PAGE_BYTES + 1), 4 * PAGE_BYTES); /* no more than was asked for */
    assert_int_equal(pages_idle_bytes(p), 12 * PAGE_BYTES);
    assert_false(is_resident(run) && is_resident(run + 12 * PAGE_BYTES));
    assert_int_equal(pages_trim(p, UINT64_MAX), 12 * PAGE_BYTES);
    assert_int_equal(pages_trim(p, UINT64_MAX), 0);
    assert_false(is_resident(run));
    assert_true(is_resident(other) && *other == 'y');
    assert_null(idle(p, 1));
    size_t resident; /* its addresses are used again, joined, and its words are there already */
    assert_ptr_equal(pages_take(p, PAGES_FRESH, 16 * PAGE_BYTES, &resident), run);
    assert_int_equal(resident, 16 * PAGE_BYTES);
    assert_int_equal(run[7 * PAGE_BYTES], 0);
    pages_put(p, run);
    pages_put(p, other);
    pages_free(p);
}

static void the_reserve_has_an_end(void **state)
{
    (void)state;
    struct pages *p = reserve(2 * MIB);
    char *run = fresh(p, MIB), *second = fresh(p, MIB - PAGE_BYTES); /* one page is never used */
    assert_non_null(run);
    assert_non_null(second);
    assert_null(fresh(p, 1));
    pages_put(p, second);
    assert_null(fresh(p, 1)); /* it is idle */
    assert_ptr_equal(idle(p, MIB - PAGE_BYTES), second);
    second[MIB - PAGE_BYTES - 1] = 'x';
    pages_put(p, run);
    pages_put(p, second);
    assert_int_equal(pages_trim(p, UINT64_MAX), 2 * MIB - PAGE_BYTES);
    run = fresh(p, MIB);
    assert_non_null(run);
    pages_put(p, run);
    pages_free(p);
}

static void a_number_is_found_from_every_page(void **state)
{
    (void)state;
    struct pages *p = reserve(8 * MIB);
    char *a = fresh(p, 4 * PAGE_BYTES), *b = fresh(p, PAGE_BYTES), *c = fresh(p, MIB);
    pages_number_set(p, a, 7);
    pages_number_set(p, b, PAGES_NUMBERS - 1);
    for (size_t at = 0; at < 4 * PAGE_BYTES; at += 1000)
        assert_int_equal(pages_number(p, a + at), 7);
    assert_int_equal(pages_number(p, b + 4095), PAGES_NUMBERS - 1);
    assert_int_equal(pages_number(p, c), 0);
    pages_put(p, a);
    pages_put(p, b);
    a = idle(p, 5 * PAGE_BYTES); /* and is forgotten with the run */
    assert_non_null(a);
    assert_int_equal(pages_number(p, a), 0);
    pages_put(p, a);
    pages_put(p, c);
    pages_free(p);
}

/* --- against a model: one byte a page --- */

enum { MODEL_PAGES = 4096, HELD = 64 };
enum { NEVER, USED, IDLE, CLEAN };

struct model {
    struct pages *p;
    char *base; /* of the first run */
    unsigned char pages[MODEL_PAGES];
    struct {
        char *run;
        uint32_t first, n;
    } held[HELD];
};

/* The length of the shortest stretch of this kind that has n pages, or 0. */
static uint32_t shortest(const struct model *m, unsigned char kind, uint32_t n)
{
    uint32_t best = 0, from = 0;
    for (uint32_t i = 0; i <= MODEL_PAGES; i++) {
        if (i < MODEL_PAGES && m->pages[i] == kind)
            continue;
        if (i - from >= n && (best == 0 || i - from < best))
            best = i - from;
        from = i + 1;
    }
    return best;
}

static uint32_t count(const struct model *m, unsigned char kind)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < MODEL_PAGES; i++)
        n += m->pages[i] == kind;
    return n;
}

static uint32_t stretch_at(const struct model *m, uint32_t page)
{
    uint32_t from = page, to = page;
    while (from > 0 && m->pages[from - 1] == m->pages[page])
        from--;
    while (to + 1 < MODEL_PAGES && m->pages[to + 1] == m->pages[page])
        to++;
    return to - from + 1;
}

static void model_take(struct model *m, unsigned slot, uint32_t n)
{
    uint32_t best = shortest(m, IDLE, n);
    unsigned char kind = IDLE;
    char *run = idle(m->p, n * PAGE_BYTES);

    assert_int_equal(run != NULL, best != 0);
    if (!run) {
        best = shortest(m, CLEAN, n);
        kind = best ? CLEAN : NEVER;
        run = fresh(m->p, n * PAGE_BYTES);
        if (!run) {
            assert_true(best == 0 && count(m, NEVER) < n);
            return;
        }
    }
    if (!m->base)
        m->base = run;
    uint32_t first = (uint32_t)((uint64_t)(run - m->base) / PAGE_BYTES);
    for (uint32_t i = first; i < first + n; i++)
        assert_int_equal(m->pages[i], kind);
    if (kind != NEVER && best <= PAGES_RUN_BYTES / PAGE_BYTES)
        assert_int_equal(stretch_at(m, first), best);
    memset(m->pages + first, USED, n);
    for (uint32_t i = 0; i < n; i++)
        memset(run + i * PAGE_BYTES, (int)(slot + i), 16);
    m->held[slot].run = run;
    m->held[slot].first = first;
    m->held[slot].n = n;
}

static void model_put(struct model *m, unsigned slot)
{
    uint32_t n = m->held[slot].n;
    char *run = m->held[slot].run;

    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal((unsigned char)run[i * PAGE_BYTES], (slot + i) & 0xff);
        assert_int_equal((unsigned char)run[i * PAGE_BYTES + 15], (slot + i) & 0xff);
    }
    assert_int_equal(pages_run_bytes(m->p, run), n * PAGE_BYTES);
    memset(m->pages + m->held[slot].first, IDLE, n);
    pages_put(m->p, run);
    m->held[slot].run = NULL;
}

static void it_does_as_a_naive_model(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 4; seed++) {
        struct model *m = calloc(1, sizeof *m);
        unsigned r = seed;
        assert_non_null(m);
        m->p = reserve((MODEL_PAGES + 1) * PAGE_BYTES);
        for (unsigned i = 0; i < 10000; i++) {
            unsigned slot = (unsigned)rand_r(&r) % HELD, what = (unsigned)rand_r(&r) % 100;
            if (what == 0) {
                uint32_t had = count(m, IDLE);
                assert_int_equal(pages_trim(m->p, UINT64_MAX), (uint64_t)had * PAGE_BYTES);
                for (uint32_t n = 0; n < MODEL_PAGES; n++)
                    m->pages[n] = m->pages[n] == IDLE ? CLEAN : m->pages[n];
            } else if (m->held[slot].run) {
                model_put(m, slot);
            } else {
                model_take(m, slot, 1 + (uint32_t)rand_r(&r) % (what < 20 ? 256 : what < 60 ? 100 : 5));
            }
            assert_int_equal(pages_idle_bytes(m->p), (uint64_t)count(m, IDLE) * PAGE_BYTES);
        }
        for (unsigned slot = 0; slot < HELD; slot++) {
            if (m->held[slot].run)
                model_put(m, slot);
        }
        assert_true(count(m, NEVER) < MODEL_PAGES && count(m, USED) == 0);
        pages_free(m->p);
        free(m);
    }
}

/* --- threads --- */

struct worker {
    struct pages *p;
    unsigned seed, taken;
    char mark;
};

static void *worker_run(void *arg)
{
    enum { N = 32 };
    struct worker *w = arg;
    char *held[N] = {NULL};

    for (unsigned i = 0; i < 30000; i++) {
        unsigned slot = (unsigned)rand_r(&w->seed) % N;
        if (held[slot]) {
            size_t n = pages_run_bytes(w->p, held[slot]);
            for (size_t b = 0; b < n; b += PAGE_BYTES)
                assert_int_equal(held[slot][b], w->mark);
            pages_put(w->p, held[slot]);
            held[slot] = NULL;
        } else {
            size_t n = (1 + (size_t)rand_r(&w->seed) % 60) * PAGE_BYTES;
            held[slot] = idle(w->p, n);
            if (!held[slot])
                held[slot] = fresh(w->p, n);
            for (size_t b = 0; held[slot] && b < n; b += PAGE_BYTES)
                held[slot][b] = w->mark;
            w->taken += held[slot] != NULL;
        }
        if (i % 64 == 0)
            pages_trim(w->p, 100 * PAGE_BYTES);
    }
    for (unsigned slot = 0; slot < N; slot++) {
        if (held[slot])
            pages_put(w->p, held[slot]);
    }
    return NULL;
}

static void threads_do_not_meet_in_a_run(void **state)
{
    (void)state;
    struct worker w[4];
    pthread_t threads[4];
    struct pages *p = reserve(24 * MIB);
    for (unsigned i = 0; i < 4; i++) {
        w[i] = (struct worker){.p = p, .seed = i + 1, .mark = (char)('a' + i)};
        assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &w[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(w[i].taken > 5000);
    }
    assert_true(pages_idle_bytes(p) <= 24 * MIB);
    pages_trim(p, UINT64_MAX);
    assert_int_equal(pages_idle_bytes(p), 0);
    pages_free(p);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define HAS_POISON 1
#endif
#endif

static void what_is_free_is_poisoned(void **state)
{
    (void)state;
#ifdef HAS_POISON
    struct pages *p = reserve(8 * MIB);
    char *run = fresh(p, 5000);
    assert_false(__asan_address_is_poisoned(run + 4999));
    assert_true(__asan_address_is_poisoned(run + 5000)); /* also what rounding adds */
    pages_put(p, run);
    assert_true(__asan_address_is_poisoned(run));
    assert_ptr_equal(idle(p, 8192), run);
    assert_false(__asan_address_is_poisoned(run + 8191));
    pages_put(p, run);
    pages_free(p);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_rounded_to_pages),
        cmocka_unit_test(the_shortest_that_fits_is_taken),
        cmocka_unit_test(neighbours_join_in_any_order),
        cmocka_unit_test(what_is_trimmed_is_not_resident_and_comes_again_as_zeros),
        cmocka_unit_test(the_reserve_has_an_end),
        cmocka_unit_test(a_number_is_found_from_every_page),
        cmocka_unit_test(it_does_as_a_naive_model),
        cmocka_unit_test(threads_do_not_meet_in_a_run),
        cmocka_unit_test(what_is_free_is_poisoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
