#include "net/geo_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_A_BYTE       16u /* in good files a byte begins one value, which is looked at once or twice */
#define METADATA_BYTES_MAX (128u * 1024) /* from the file's end, as the specification says */

enum kind {
    KIND_EXTENDED = 0,
    KIND_POINTER = 1,
    KIND_STRING = 2,
    KIND_DOUBLE = 3,
    KIND_BYTES = 4,
    KIND_UINT16 = 5,
    KIND_UINT32 = 6,
    KIND_MAP = 7,
    KIND_INT32 = 8,
    KIND_UINT64 = 9,
    KIND_UINT128 = 10,
    KIND_ARRAY = 11,
    KIND_CONTAINER = 12,
    KIND_END = 13,
    KIND_BOOLEAN = 14,
    KIND_FLOAT = 15,
};

struct value {
    enum kind kind;
    size_t size;    /* bytes of a scalar, entries of a container */
    size_t pointer; /* what a pointer points to */
    size_t next;    /* behind the control bytes, or behind a pointer */
};

/* n bytes at *at as a big-endian number; false: they are not all there. */
static bool take(const struct geo_check *c, size_t *at, unsigned n, size_t *out)
{
    size_t value = 0;

    if (c->n - *at < n)
        return false;
    for (unsigned i = 0; i < n; i++)
        value = value << 8 | c->section[(*at)++];
    *out = value;
    return true;
}

static bool read_pointer(const struct geo_check *c, unsigned control, size_t at, struct value *v)
{
    static const size_t base[] = {0, 2048, 526336, 0};
    unsigned bytes = (control >> 3 & 3) + 1;
    size_t low;

    if (!take(c, &at, bytes, &low))
        return false;
    v->pointer = bytes == 4 ? low : (((size_t)(control & 7) << 8 * bytes) | low) + base[bytes - 1];
    v->next = at;
    return true;
}

static bool read_size(const struct geo_check *c, unsigned control, size_t at, struct value *v)
{
    static const size_t base[] = {29, 285, 65821};
    unsigned given = control & 31;
    size_t more;

    v->size = given;
    if (given >= 29) {
        if (!take(c, &at, given - 28, &more))
            return false;
        v->size = more + base[given - 29];
    }
    v->next = at;
    return true;
}

static bool read_value(const struct geo_check *c, size_t at, struct value *v)
{
    size_t control, extended;

    if (at >= c->n || !take(c, &at, 1, &control))
        return false;
    v->kind = (enum kind)(control >> 5);
    if (v->kind == KIND_POINTER)
        return read_pointer(c, (unsigned)control, at, v);
    if (v->kind == KIND_EXTENDED) {
        if (!take(c, &at, 1, &extended) || extended + 7 < KIND_INT32 || extended + 7 > KIND_FLOAT)
            return false;
        v->kind = (enum kind)(extended + 7);
    }
    return read_size(c, (unsigned)control, at, v);
}

static size_t size_max(enum kind kind)
{
    switch (kind) {
    case KIND_UINT16:
        return 2;
    case KIND_UINT32:
    case KIND_INT32:
    case KIND_FLOAT:
        return 4;
    case KIND_UINT64:
    case KIND_DOUBLE:
        return 8;
    case KIND_UINT128:
        return 16;
    case KIND_BOOLEAN:
        return 1;
    default:
        return SIZE_MAX;
    }
}

static bool scalar_fits(const struct geo_check *c, const struct value *v)
{
    if (v->size > size_max(v->kind))
        return false;
    if ((v->kind == KIND_DOUBLE && v->size != 8) || (v->kind == KIND_FLOAT && v->size != 4))
        return false;
    /* A boolean's size is its value. */
    return v->kind == KIND_BOOLEAN || v->size <= c->n - v->next;
}

static bool is_container(enum kind kind)
{
    return kind == KIND_MAP || kind == KIND_ARRAY;
}

/* Where the walk is: the containers that are open, from the outermost. */
struct walk {
    size_t left[GEO_DEPTH_MAX]; /* values still to come; a map's keys count */
    size_t back[GEO_DEPTH_MAX]; /* where to go on once it is over, when a pointer led to it; else 0 */
    bool is_map[GEO_DEPTH_MAX];
    unsigned depth;
};

static bool is_judged(const struct geo_check *c, size_t at)
{
    return c->judged != NULL && (c->judged[at / 8] >> at % 8 & 1);
}

/* Marked before its parts are looked at: a value that holds itself is judged once, and no lookup can go round in it
 * for ever, since each step of one takes a part of its path. */
static void mark(struct geo_check *c, size_t at)
{
    if (c->judged != NULL)
        c->judged[at / 8] |= (uint8_t)(1u << at % 8);
}

static bool open_container(struct walk *w, const struct geo_check *c, const struct value *v, size_t back)
{
    size_t values = v->kind == KIND_MAP ? 2 * v->size : v->size;

    /* Every value takes a byte at least. */
    if (w->depth == GEO_DEPTH_MAX || values > c->n - v->next)
        return false;
    w->left[w->depth] = values;
    w->is_map[w->depth] = v->kind == KIND_MAP;
    w->back[w->depth] = back;
    w->depth++;
    return true;
}

/* One value at *at, and *at moves behind it, or into it when it is a container. */
static bool step(struct geo_check *c, struct walk *w, size_t *at, bool is_key)
{
    struct value v;
    size_t back = 0;

    if (c->steps_left-- == 0 || !read_value(c, *at, &v))
        return false;
    if (v.kind == KIND_POINTER) {
        size_t to = v.pointer;

        back = v.next;
        if (to >= c->n || !read_value(c, to, &v) || v.kind == KIND_POINTER)
            return false;
        if (c->judged == NULL ? is_container(v.kind) : is_key && v.kind != KIND_STRING)
            return false;
        if (is_judged(c, to)) {
            *at = back;
            return true;
        }
        mark(c, to);
    }
    if (v.kind != KIND_STRING && (is_key || (c->judged == NULL && w->depth > 1)))
        return false;
    if (is_container(v.kind)) {
        *at = v.next;
        return open_container(w, c, &v, back);
    }
    if (v.kind == KIND_CONTAINER || v.kind == KIND_END || !scalar_fits(c, &v))
        return false;
    *at = back != 0 ? back : v.next + (v.kind == KIND_BOOLEAN ? 0 : v.size);
    return true;
}

bool geo_check_value(struct geo_check *c, uint64_t offset)
{
    struct walk w = {.depth = 0};
    size_t at = offset;

    if (offset >= c->n)
        return false;
    if (is_judged(c, offset))
        return true;
    mark(c, offset);
    if (!step(c, &w, &at, false))
        return false;
    while (w.depth > 0) {
        unsigned top = w.depth - 1;
        bool is_key = w.is_map[top] && w.left[top] % 2 == 0;

        if (w.left[top] == 0) {
            if (w.back[top] != 0)
                at = w.back[top];
            w.depth--;
            continue;
        }
        w.left[top]--;
        if (!step(c, &w, &at, is_key))
            return false;
    }
    return true;
}

int geo_check_init(struct geo_check *c, const uint8_t *section, size_t n)
{
    *c = (struct geo_check){
        .section = section, .n = n, .judged = calloc(n / 8 + 1, 1), .steps_left = STEPS_A_BYTE * (n + 1)};
    return c->judged == NULL ? -ENOMEM : 0;
}

void geo_check_free(struct geo_check *c)
{
    free(c->judged);
    *c = (struct geo_check){.n = 0};
}

bool geo_check_metadata(const uint8_t *file, size_t n)
{
    static const char marker[] = "\xab\xcd\xefMaxMind.com";
    const size_t marker_n = sizeof marker - 1;
    size_t from = n > METADATA_BYTES_MAX ? n - METADATA_BYTES_MAX : 0;
    const uint8_t *last = NULL, *at = file + from;
    struct geo_check c = {.n = 0};
    struct value v;

    while ((at = memmem(at, (size_t)(file + n - at), marker, marker_n)) != NULL) {
        at += marker_n;
        last = at;
    }
    if (last == NULL)
        return false;
    c.section = last;
    c.n = (size_t)(file + n - last);
    c.steps_left = STEPS_A_BYTE * (c.n + 1);
    return read_value(&c, 0, &v) && v.kind == KIND_MAP && geo_check_value(&c, 0);
}
