#include "cache/object.h"

#include <errno.h>

_Static_assert(sizeof(struct object) == 48, "the goal of 96 bytes an object counts on this");

static struct str part(const struct object *o, size_t from, size_t n)
{
    return str_of(o->data + from, n);
}

static size_t extra_bytes(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? sizeof *x + x->vary_bytes + x->tags_bytes : 0;
}

struct str object_vary(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? part(o, sizeof *x, x->vary_bytes) : STR_NONE;
}

struct str object_tags(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? part(o, sizeof *x + x->vary_bytes, x->tags_bytes) : STR_NONE;
}

struct str object_key_text(const struct object *o)
{
    return part(o, extra_bytes(o), o->key_bytes);
}

struct str object_head(const struct object *o)
{
    return part(o, extra_bytes(o) + o->key_bytes, o->head_bytes);
}

struct str object_head_tail(const struct object *o)
{
    return str_skip(object_head(o), o->head_tail_at);
}

static struct str value_at(const struct object *o, uint16_t at)
{
    if (at == 0)
        return STR_NONE;
    struct str rest = str_skip(object_head(o), at);
    const char *end = memchr(rest.p, '\r', rest.n);
    return str_trim_ows(str_of(rest.p, end ? (size_t)(end - rest.p) : rest.n));
}

struct str object_etag(const struct object *o)
{
    return value_at(o, o->etag_at);
}

struct str object_last_modified(const struct object *o)
{
    return value_at(o, o->last_modified_at);
}

bool object_is(const struct object *o, struct str key_text, uint32_t slice, uint64_t variant)
{
    return object_slice(o) == slice && object_variant(o) == variant && str_eq(object_key_text(o), key_text);
}

/* Takes one line off *rest, without its CRLF. False when there is none. */
static bool take_line(struct str *rest, struct str *line)
{
    const char *lf = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
    if (!lf || lf == rest->p || lf[-1] != '\r')
        return false;
    *line = str_of(rest->p, (size_t)(lf - rest->p) - 1);
    *rest = str_skip(*rest, line->n + 2);
    return true;
}

static uint16_t value_offset(struct str head, struct str line, size_t colon)
{
    struct str value = str_trim_ows(str_skip(line, colon + 1));
    return value.n == 0 ? 0 : (uint16_t)(value.p - head.p);
}

int object_head_scan(struct object_spec *spec)
{
    struct str rest = spec->head, line;

    spec->etag_at = spec->last_modified_at = 0;
    spec->flags &= (uint16_t)~OBJECT_STRONG_VALIDATOR;
    if (spec->head.n > OBJECT_HEAD_BYTES_MAX || !take_line(&rest, &line) ||
        !str_starts(line, STR("HTTP/1.1 ")))
        return -EINVAL;
    if (str_starts(rest, STR("Content-Length: ")) && !take_line(&rest, &line))
        return -EINVAL;
    spec->head_tail_at = (uint16_t)(spec->head.n - rest.n);
    while (rest.n > 0) {
        if (!take_line(&rest, &line))
            return -EINVAL;
        const char *colon = memchr(line.p, ':', line.n);
        if (!colon || colon == line.p)
            return -EINVAL; /* also the empty line, which does not belong here */
        struct str name = str_of(line.p, (size_t)(colon - line.p));
        if (str_eq_nocase(name, STR("ETag")))
            spec->etag_at = value_offset(spec->head, line, name.n);
        else if (str_eq_nocase(name, STR("Last-Modified")))
            spec->last_modified_at = value_offset(spec->head, line, name.n);
    }
    if (spec->etag_at != 0 && spec->head.p[spec->etag_at] == '"')
        spec->flags |= OBJECT_STRONG_VALIDATOR;
    return 0;
}

int object_spec_check(const struct object_spec *spec)
{
    if (spec->key.text.n > CACHE_KEY_BYTES_MAX || spec->head.n > OBJECT_HEAD_BYTES_MAX ||
        spec->vary.n > OBJECT_VARY_BYTES_MAX || spec->tags.n > OBJECT_TAGS_BYTES_MAX ||
        spec->total_bytes / CACHE_SLICE_BYTES >= CACHE_SLICES_MAX)
        return -E2BIG;
    if (spec->slice >= cache_slices_in(spec->total_bytes) || (spec->variant == 0) != (spec->vary.n == 0) ||
        spec->head_tail_at > spec->head.n || spec->head_tail_at > UINT8_MAX || spec->etag_at > spec->head.n ||
        spec->last_modified_at > spec->head.n)
        return -EINVAL;
    return 0;
}

static uint32_t clamp_u32(uint64_t v)
{
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static char *put(char *at, struct str s)
{
    if (s.n > 0)
        memcpy(at, s.p, s.n);
    return at + s.n;
}

static bool wants_extra(const struct object_spec *spec, size_t body_bytes, const struct object *body_owner)
{
    return body_owner || spec->slice != 0 || spec->variant != 0 || spec->total_bytes != body_bytes ||
           spec->swr_s != 0 || spec->sie_s != 0 || spec->vary.n > 0 || spec->tags.n > 0;
}

size_t object_spec_bytes(const struct object_spec *spec, size_t body_bytes, const struct object *body_owner)
{
    size_t n = sizeof(struct object) + spec->key.text.n + spec->head.n;
    if (wants_extra(spec, body_bytes, body_owner))
        n += sizeof(struct object_extra) + spec->vary.n + spec->tags.n;
    return n;
}

size_t object_own_bytes(const struct object *o)
{
    return sizeof *o + extra_bytes(o) + o->key_bytes + o->head_bytes;
}

struct object *object_init(void *memory, const struct object_spec *spec, char **body, size_t body_bytes,
                           struct object *body_owner)
{
    CHECK(body_bytes <= CACHE_SLICE_BYTES);
    bool extra = wants_extra(spec, body_bytes, body_owner);
    struct object *o = memory;

    *o = (struct object){
        .magic = OBJECT_MAGIC,
        .flags = (uint16_t)((spec->flags & ~OBJECT_HAS_EXTRA) | (extra ? OBJECT_HAS_EXTRA : 0)),
        .refs = 1,
        .body_bytes = (uint32_t)body_bytes,
        .birth_unix_s = clamp_u32(spec->birth_unix_s),
        .lifetime_s = spec->lifetime_s,
        .status = spec->status,
        .key_bytes = (uint16_t)spec->key.text.n,
        .epoch = spec->epoch,
        .head_bytes = (uint16_t)spec->head.n,
        .head_tail_at = (uint8_t)spec->head_tail_at,
        .etag_at = spec->etag_at,
        .last_modified_at = spec->last_modified_at,
    };
    char *at = o->data;
    if (extra) {
        *(struct object_extra *)(void *)at = (struct object_extra){
            .total_bytes = spec->total_bytes,
            .variant = spec->variant,
            .body_owner = body_owner,
            .slice = spec->slice,
            .swr_s = spec->swr_s,
            .sie_s = spec->sie_s,
            .vary_bytes = (uint16_t)spec->vary.n,
            .tags_bytes = (uint16_t)spec->tags.n,
        };
        at = put(put(at + sizeof(struct object_extra), spec->vary), spec->tags);
    }
    put(put(at, spec->key.text), spec->head);
    if (body_owner) {
        object_ref(body_owner);
        o->body = body_owner->body;
    } else {
        o->body = TAKE(body);
    }
    return o;
}
