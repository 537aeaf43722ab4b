#include "../unit.h"

#include "http/http2_guard.h"
#include "util/clock.h"
#include "util/limits.h"

#define START_NS (1000 * NS_PER_S)

static void fresh(struct http2_guard *g)
{
    http2_guard_init(g, 0, START_NS);
}

static struct http2_frame frame_of(uint8_t type, uint8_t flags, uint32_t length)
{
    return (struct http2_frame){.type = type, .flags = flags, .length = length, .stream = 1};
}

/* How many frames of it pass at one moment. */
static unsigned passes(struct http2_guard *g, struct http2_frame frame, uint64_t now_ns,
                       enum http2_attack *attack)
{
    for (unsigned n = 0; n < 100000; n++) {
        *attack = http2_guard_judge(g, &frame, now_ns);
        if (*attack != HTTP2_ATTACK_NONE)
            return n;
    }
    return 100000;
}

/* Three frames after a preface, walked in pieces of every size. */
static void test_walk(void **state)
{
    static const uint8_t bytes[] = "PREFACE"
                                   "\x00\x00\x03\x00\x01\x80\x00\x00\x05"
                                   "abc"
                                   "\x00\x00\x00\x04\x01\x00\x00\x00\x00"
                                   "\x01\x02\x03\xfe\xff\x7f\xff\xff\xff"
                                   "rest";
    (void)state;
    for (size_t piece = 1; piece < sizeof bytes; piece++) {
        struct http2_frame frames[4], *f = frames;
        struct http2_guard g;

        http2_guard_init(&g, 7, START_NS);
        for (size_t at = 0; at < sizeof bytes - 1; at += piece) {
            size_t n = sizeof bytes - 1 - at < piece ? sizeof bytes - 1 - at : piece;
            char *copy = exact_copy(bytes + at, n);
            struct str in = str_of(copy, n);

            while (http2_guard_next(&g, &in, f)) {
                f++;
                assert_true(f < frames + 4);
            }
            assert_int_equal(in.n, 0);
            free(copy);
        }
        assert_int_equal(f - frames, 3);
        assert_int_equal(frames[0].length, 3);
        assert_int_equal(frames[0].type, HTTP2_DATA);
        assert_int_equal(frames[0].flags, HTTP2_FLAG_END_STREAM);
        assert_int_equal(frames[0].stream, 5); /* without the reserved bit */
        assert_int_equal(frames[1].type, HTTP2_SETTINGS);
        assert_int_equal(frames[2].length, 0x010203);
        assert_int_equal(frames[2].type, 0xfe);
        assert_int_equal(frames[2].stream, 0x7fffffff);
        assert_int_equal(g.skip, 0x010203 - 4);
    }
}

static void test_budgets(void **state)
{
    static const struct {
        struct http2_frame frame;
        unsigned burst, per_second;
        enum http2_attack attack;
    } kinds[] = {
        {{.type = HTTP2_SETTINGS}, HTTP2_SETTINGS_BURST, 1, HTTP2_ATTACK_SETTINGS},
        {{.type = HTTP2_SETTINGS, .flags = 1}, HTTP2_SETTINGS_BURST, 1, HTTP2_ATTACK_SETTINGS},
        {{.type = HTTP2_PING, .length = 8}, HTTP2_PINGS_BURST, 20, HTTP2_ATTACK_PINGS},
        {{.type = HTTP2_PRIORITY, .length = 5}, HTTP2_PRIORITIES_BURST, 50, HTTP2_ATTACK_PRIORITIES},
        {{.type = HTTP2_PRIORITY_UPDATE}, HTTP2_PRIORITIES_BURST, 50, HTTP2_ATTACK_PRIORITIES},
        {{.type = HTTP2_WINDOW_UPDATE}, HTTP2_WINDOW_UPDATES_BURST, 100, HTTP2_ATTACK_WINDOW_UPDATES},
        {{.type = HTTP2_DATA}, HTTP2_EMPTIES_BURST, 10, HTTP2_ATTACK_EMPTY_FRAMES},
        {{.type = 0x2a, .length = 100}, HTTP2_UNKNOWNS_BURST, 20, HTTP2_ATTACK_UNKNOWN_FRAMES},
        {{.type = HTTP2_GOAWAY}, HTTP2_UNKNOWNS_BURST, 20, HTTP2_ATTACK_UNKNOWN_FRAMES},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct http2_guard g;
        enum http2_attack attack;

        fresh(&g);
        assert_int_equal(passes(&g, kinds[i].frame, START_NS, &attack), kinds[i].burst);
        assert_int_equal(attack, kinds[i].attack);
        /* Time gives it back, in whole seconds, and never more than the burst. */
        assert_int_equal(passes(&g, kinds[i].frame, START_NS + NS_PER_S - 1, &attack), 0);
        assert_int_equal(passes(&g, kinds[i].frame, START_NS + 2 * NS_PER_S, &attack),
                         2 * kinds[i].per_second);
        assert_int_equal(passes(&g, kinds[i].frame, START_NS + 1000000 * NS_PER_S, &attack), kinds[i].burst);
    }
}

static void test_what_costs_nothing(void **state)
{
    struct http2_guard g;
    enum http2_attack attack;

    (void)state;
    fresh(&g);
    assert_int_equal(passes(&g, frame_of(HTTP2_DATA, 0, 1), START_NS, &attack), 100000);
    assert_int_equal(passes(&g, frame_of(HTTP2_DATA, HTTP2_FLAG_END_STREAM, 0), START_NS, &attack), 100000);
    assert_int_equal(passes(&g, frame_of(HTTP2_HEADERS, 5, 40), START_NS, &attack), 100000);
}

static void test_header_blocks(void **state)
{
    const struct http2_frame more = frame_of(HTTP2_CONTINUATION, 0, 10);
    struct http2_frame first = frame_of(HTTP2_HEADERS, 0, 10);
    struct http2_guard g;
    enum http2_attack attack;

    (void)state;
    fresh(&g);
    assert_false(http2_guard_in_block(&g));
    for (int blocks = 0; blocks < 3; blocks++) {
        assert_int_equal(http2_guard_judge(&g, &first, START_NS), HTTP2_ATTACK_NONE);
        assert_true(http2_guard_in_block(&g));
        assert_int_equal(passes(&g, more, START_NS, &attack), HTTP2_CONTINUATIONS_MAX);
        assert_int_equal(attack, HTTP2_ATTACK_CONTINUATION);
    }
    /* By bytes: four frames of 16 KiB are a block, one byte more is none. */
    first.length = 16384;
    assert_int_equal(http2_guard_judge(&g, &first, START_NS), HTTP2_ATTACK_NONE);
    for (int i = 0; i < 3; i++) {
        const struct http2_frame next = frame_of(HTTP2_CONTINUATION, 0, 16384);

        assert_int_equal(http2_guard_judge(&g, &next, START_NS), HTTP2_ATTACK_NONE);
    }
    assert_int_equal(passes(&g, frame_of(HTTP2_CONTINUATION, 0, 1), START_NS, &attack), 0);
    assert_int_equal(attack, HTTP2_ATTACK_CONTINUATION);
}

/* A block is whole when the payload of its last frame is. */
static void test_in_block(void **state)
{
    static const char bytes[] = "\x00\x00\x02\x01\x04\x00\x00\x00\x01"
                                "xy";
    struct http2_guard g;
    struct http2_frame frame;
    struct str in = str_of(bytes, 9);

    (void)state;
    fresh(&g);
    assert_true(http2_guard_next(&g, &in, &frame));
    assert_int_equal(http2_guard_judge(&g, &frame, START_NS), HTTP2_ATTACK_NONE);
    assert_true(http2_guard_in_block(&g));
    in = str_of(bytes + 9, 1);
    assert_false(http2_guard_next(&g, &in, &frame));
    assert_true(http2_guard_in_block(&g));
    in = str_of(bytes + 10, 1);
    assert_false(http2_guard_next(&g, &in, &frame));
    assert_false(http2_guard_in_block(&g));
}

/* Two WINDOW_UPDATE for each DATA, for as long as a download lasts; and one for each byte, which is none. */
static void test_window_updates(void **state)
{
    const struct http2_frame update = frame_of(HTTP2_WINDOW_UPDATE, 0, 4);
    struct http2_guard g;
    unsigned n = 0;

    (void)state;
    fresh(&g);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(http2_guard_judge(&g, &update, START_NS), HTTP2_ATTACK_NONE);
        assert_int_equal(http2_guard_judge(&g, &update, START_NS), HTTP2_ATTACK_NONE);
        http2_guard_sent(&g, 16384, false);
    }
    /* Both windows after each read of 4 KiB, as of Go's clients: eight for a frame of 16 KiB. */
    fresh(&g);
    for (int i = 0; i < 100000; i++) {
        http2_guard_sent(&g, 16384, false);
        for (int k = 0; k < 8; k++)
            assert_int_equal(http2_guard_judge(&g, &update, START_NS), HTTP2_ATTACK_NONE);
    }
    for (fresh(&g); n < 100000 && http2_guard_judge(&g, &update, START_NS) == HTTP2_ATTACK_NONE; n++)
        http2_guard_sent(&g, 1, false);
    assert_int_equal(n, HTTP2_WINDOW_UPDATES_BURST);
    /* Small answers are worth theirs. */
    fresh(&g);
    for (int i = 0; i < 100000; i++) {
        http2_guard_requested(&g);
        http2_guard_sent(&g, 10, true);
        for (int k = 0; k < 4; k++)
            assert_int_equal(http2_guard_judge(&g, &update, START_NS), HTTP2_ATTACK_NONE);
    }
}

static void test_resets(void **state)
{
    struct http2_guard g;
    unsigned n = 0;

    (void)state;
    fresh(&g);
    while (n < 100000 && http2_guard_charge(&g, HTTP2_ATTACK_RESETS, START_NS) == HTTP2_ATTACK_NONE)
        n++;
    assert_int_equal(n, HTTP2_RESETS_BURST);
    fresh(&g);
    for (int i = 0; i < 100000; i++) { /* a listener who skips: one heard, one not */
        http2_guard_answered(&g);
        assert_int_equal(http2_guard_charge(&g, HTTP2_ATTACK_RESETS, START_NS), HTTP2_ATTACK_NONE);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < HTTP2_ATTACKS; i++) {
        assert_non_null(http2_attack_name((enum http2_attack)i));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(http2_attack_name((enum http2_attack)i),
                                    http2_attack_name((enum http2_attack)k));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_what_costs_nothing),
        cmocka_unit_test(test_header_blocks),
        cmocka_unit_test(test_in_block),
        cmocka_unit_test(test_window_updates),
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
