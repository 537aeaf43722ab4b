#include "http/http2_guard.h"

#include "util/check.h"
#include "util/clock.h"
#include "util/limits.h"

/* A DATA frame that was worth an answer by WINDOW_UPDATE: who opens its window byte by byte earns nothing. Clients that
 * read by 4 KiB, as Go's do under a buffered reader, open both windows after each. */
#define WORTHY_BYTES 1024u
#define READ_BYTES   4096u

struct budget {
    const char *name;
    int32_t burst, per_second; /* burst 0: judged in another way */
};

static const struct budget budgets[HTTP2_ATTACKS] = {
    [HTTP2_ATTACK_NONE] = {"none", 0, 0},
    [HTTP2_ATTACK_RESETS] = {"rapid_reset", HTTP2_RESETS_BURST, 30},
    [HTTP2_ATTACK_CONTINUATION] = {"continuation", 0, 0},
    [HTTP2_ATTACK_HEADERS] = {"header_bomb", 0, 0},
    [HTTP2_ATTACK_SETTINGS] = {"settings", HTTP2_SETTINGS_BURST, 1},
    [HTTP2_ATTACK_PINGS] = {"ping", HTTP2_PINGS_BURST, 20},
    [HTTP2_ATTACK_PRIORITIES] = {"priority", HTTP2_PRIORITIES_BURST, 50},
    [HTTP2_ATTACK_WINDOW_UPDATES] = {"window_update", HTTP2_WINDOW_UPDATES_BURST, 100},
    [HTTP2_ATTACK_EMPTY_FRAMES] = {"empty_frames", HTTP2_EMPTIES_BURST, 10},
    [HTTP2_ATTACK_UNKNOWN_FRAMES] = {"unknown_frames", HTTP2_UNKNOWNS_BURST, 20},
    [HTTP2_ATTACK_UNREAD] = {"unread", 0, 0},
};

const char *http2_attack_name(enum http2_attack attack)
{
    CHECK((unsigned)attack < HTTP2_ATTACKS);
    return budgets[attack].name;
}

void http2_guard_init(struct http2_guard *g, uint32_t skip, uint64_t now_ns)
{
    *g = (struct http2_guard){.skip = skip, .refilled_ns = now_ns};
    for (unsigned i = 0; i < HTTP2_ATTACKS; i++)
        g->left[i] = budgets[i].burst;
}

bool http2_guard_next(struct http2_guard *g, struct str *in, struct http2_frame *frame)
{
    size_t n = in->n < g->skip ? in->n : g->skip;
    const uint8_t *h = g->header;

    *in = str_skip(*in, n);
    g->skip -= (uint32_t)n;
    n = sizeof g->header - g->header_n;
    if (n > in->n)
        n = in->n;
    if (n > 0)
        memcpy(g->header + g->header_n, in->p, n);
    g->header_n = (uint8_t)(g->header_n + n);
    *in = str_skip(*in, n);
    if (g->header_n < sizeof g->header)
        return false;
    g->header_n = 0;
    *frame = (struct http2_frame){
        .length = (uint32_t)h[0] << 16 | (uint32_t)h[1] << 8 | h[2],
        .type = h[3],
        .flags = h[4],
        .stream = (uint32_t)(h[5] & 0x7f) << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8],
    };
    g->skip = frame->length;
    return true;
}

static void earn(struct http2_guard *g, enum http2_attack kind, int32_t n)
{
    int32_t left = g->left[kind] + n;

    g->left[kind] = left < budgets[kind].burst ? left : budgets[kind].burst;
}

/* Whole seconds only, so that no kind loses the fraction of another. */
static void refill(struct http2_guard *g, uint64_t now_ns)
{
    uint64_t seconds = now_ns > g->refilled_ns ? (now_ns - g->refilled_ns) / NS_PER_S : 0;

    if (seconds == 0)
        return;
    g->refilled_ns += seconds * NS_PER_S;
    for (unsigned i = 0; i < HTTP2_ATTACKS; i++)
        earn(g, (enum http2_attack)i, budgets[i].per_second * (int32_t)(seconds < 3600 ? seconds : 3600));
}

enum http2_attack http2_guard_charge(struct http2_guard *g, enum http2_attack kind, uint64_t now_ns)
{
    refill(g, now_ns);
    return g->left[kind]-- > 0 ? HTTP2_ATTACK_NONE : (g->left[kind] = 0, kind);
}

/* HEADERS begins a block, CONTINUATION goes on with it. What stands elsewhere is the session's to refuse. */
static enum http2_attack judge_block(struct http2_guard *g, const struct http2_frame *frame)
{
    if (frame->type == HTTP2_HEADERS) {
        g->continuations = 0;
        g->block_bytes = frame->length;
    } else {
        g->continuations++;
        g->block_bytes += frame->length;
    }
    g->block_last = (frame->flags & HTTP2_FLAG_END_HEADERS) != 0;
    g->block_open = !g->block_last;
    return g->continuations > HTTP2_CONTINUATIONS_MAX || g->block_bytes > HTTP2_HEAD_BYTES_MAX
               ? HTTP2_ATTACK_CONTINUATION
               : HTTP2_ATTACK_NONE;
}

enum http2_attack http2_guard_judge(struct http2_guard *g, const struct http2_frame *frame, uint64_t now_ns)
{
    g->block_last = false;
    switch (frame->type) {
    case HTTP2_DATA:
        if (frame->length > 0 || (frame->flags & HTTP2_FLAG_END_STREAM) != 0)
            return HTTP2_ATTACK_NONE;
        return http2_guard_charge(g, HTTP2_ATTACK_EMPTY_FRAMES, now_ns);
    case HTTP2_HEADERS:
    case HTTP2_CONTINUATION:
        return judge_block(g, frame);
    case HTTP2_PRIORITY:
    case HTTP2_PRIORITY_UPDATE:
        return http2_guard_charge(g, HTTP2_ATTACK_PRIORITIES, now_ns);
    case HTTP2_RST_STREAM:
        return HTTP2_ATTACK_NONE;
    case HTTP2_SETTINGS:
        if (frame->length > 6 * HTTP2_SETTINGS_ENTRIES_MAX)
            return HTTP2_ATTACK_SETTINGS;
        return http2_guard_charge(g, HTTP2_ATTACK_SETTINGS, now_ns);
    case HTTP2_PING:
        return http2_guard_charge(g, HTTP2_ATTACK_PINGS, now_ns);
    case HTTP2_WINDOW_UPDATE:
        return http2_guard_charge(g, HTTP2_ATTACK_WINDOW_UPDATES, now_ns);
    default: /* PUSH_PROMISE too, which a client may not send; GOAWAY is worth one of a connection's life */
        return http2_guard_charge(g, HTTP2_ATTACK_UNKNOWN_FRAMES, now_ns);
    }
}

void http2_guard_requested(struct http2_guard *g)
{
    earn(g, HTTP2_ATTACK_PRIORITIES, 4);
    earn(g, HTTP2_ATTACK_WINDOW_UPDATES, 4);
    earn(g, HTTP2_ATTACK_UNKNOWN_FRAMES, 2);
}

void http2_guard_answered(struct http2_guard *g)
{
    earn(g, HTTP2_ATTACK_RESETS, 1);
}

void http2_guard_sent(struct http2_guard *g, uint32_t bytes, bool end)
{
    if (bytes >= WORTHY_BYTES || end)
        earn(g, HTTP2_ATTACK_WINDOW_UPDATES, 4 * (int32_t)(1 + bytes / READ_BYTES));
}
