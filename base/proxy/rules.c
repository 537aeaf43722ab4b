#include "proxy/rules.h"

#include "http/url.h"
#include "util/check.h"
#include "util/limits.h"

#include <errno.h>
#include <stdlib.h>

/* The canonical form of what an operator wrote, in the arena. */
static int canonical_text(struct str text, struct arena *a, struct str *out, const char **why)
{
    if (text.n > PATTERN_BYTES_MAX) {
        *why = "is longer than 1024 bytes";
        return -EINVAL;
    }
    char scratch[PATTERN_BYTES_MAX];
    struct str canonical;
    int rc = url_path_canonical(text, scratch, &canonical);
    if (rc < 0) {
        *why = url_error_reason(rc);
        return -EINVAL;
    }
    *out = arena_str(a, canonical);
    return 0;
}

/* "/a/b" is taken apart into "a" and "b", "/a/" into "a" and "". False at the end. */
static bool take_segment(struct str *rest, struct str *segment)
{
    if (rest->n == 0)
        return false;
    const char *end = memchr(rest->p + 1, '/', rest->n - 1);
    size_t n = end != NULL ? (size_t)(end - rest->p) : rest->n;
    *segment = str_of(rest->p + 1, n - 1);
    *rest = str_skip(*rest, n);
    return true;
}

/* ---- Patterns ---- */

/* "*" in a compiled pattern: paths have no NUL, and may have a "*" of their own. */
#define WILD '\0'

enum segment_kind {
    SEGMENT_LITERAL,
    SEGMENT_GLOB, /* literal text with '*' in it */
    SEGMENT_ONE,  /* '*' */
    SEGMENT_ANY,  /* '**' */
};

struct pattern_segment {
    enum segment_kind kind;
    struct str text;
};

static enum segment_kind kind_of(struct str segment)
{
    static const char wild[2] = {WILD, WILD};

    if (str_eq(segment, str_of(wild, 2)))
        return SEGMENT_ANY;
    if (str_eq(segment, str_of(wild, 1)))
        return SEGMENT_ONE;
    return segment.n > 0 && memchr(segment.p, WILD, segment.n) != NULL ? SEGMENT_GLOB : SEGMENT_LITERAL;
}

/* The text that a path must end in to match the last segment. */
static struct str suffix_of(const struct pattern_segment *last)
{
    if (last->kind == SEGMENT_LITERAL)
        return last->text;
    if (last->kind != SEGMENT_GLOB)
        return STR("");
    const char *star = memrchr(last->text.p, WILD, last->text.n);
    return str_skip(last->text, (size_t)(star + 1 - last->text.p));
}

/* Decoded, with its "*" told from "%2A". */
static struct str pattern_text(struct str canonical, struct arena *a)
{
    char *text = arena_new(a, char, canonical.n + 1);

    for (size_t i = 0; i < canonical.n; i++)
        text[i] = canonical.p[i] == '*' ? WILD : canonical.p[i];
    return url_path_decode(str_of(text, canonical.n), text, canonical.n);
}

int pattern_compile(struct str text, struct arena *a, struct pattern *out, const char **why)
{
    struct str canonical;
    int rc = canonical_text(text, a, &canonical, why);
    if (rc < 0)
        return rc;
    canonical = pattern_text(canonical, a);

    struct pattern_segment *segments = arena_new(a, struct pattern_segment, canonical.n);
    struct str rest = canonical, segment;
    size_t prefix_n = 0;
    unsigned n = 0;
    while (take_segment(&rest, &segment)) {
        enum segment_kind kind = kind_of(segment);
        if (kind == SEGMENT_GLOB && memmem(segment.p, segment.n, "\0\0", 2) != NULL) {
            *why = "'**' can only be a whole segment, between two '/'";
            return -EINVAL;
        }
        if (n == 0 && kind == SEGMENT_LITERAL)
            prefix_n = (size_t)(segment.p + segment.n - canonical.p);
        else if (kind != SEGMENT_ANY || n == 0 || segments[n - 1].kind != SEGMENT_ANY)
            segments[n++] = (struct pattern_segment){kind, segment};
    }
    *out = (struct pattern){.text = arena_str(a, text),
                            .prefix = str_of(canonical.p, prefix_n),
                            .suffix = n > 0 ? suffix_of(&segments[n - 1]) : STR(""),
                            .segments = segments,
                            .segments_n = n};
    return 0;
}

/* '*' takes as little as it can; on a mismatch only the last '*' takes one byte more. That is enough, since
 * what stands before it has matched as early as it can. */
static bool glob_matches(struct str glob, struct str s)
{
    size_t g = 0, i = 0, star = SIZE_MAX, star_i = 0;
    while (i < s.n) {
        if (g < glob.n && glob.p[g] == WILD) {
            star = g++;
            star_i = i;
        } else if (g < glob.n && glob.p[g] == s.p[i]) {
            g++;
            i++;
        } else if (star != SIZE_MAX) {
            g = star + 1;
            i = ++star_i;
        } else {
            return false;
        }
    }
    while (g < glob.n && glob.p[g] == WILD)
        g++;
    return g == glob.n;
}

static bool segment_matches(const struct pattern_segment *p, struct str segment)
{
    switch (p->kind) {
    case SEGMENT_LITERAL:
        return str_eq(p->text, segment);
    case SEGMENT_ONE:
        return segment.n > 0;
    case SEGMENT_GLOB:
        return glob_matches(p->text, segment);
    case SEGMENT_ANY:
        break;
    }
    return false;
}

/* As glob_matches, with segments in place of bytes. */
static bool segments_match(const struct pattern *p, struct str rest)
{
    unsigned i = 0, any = UINT32_MAX;
    struct str any_rest = STR_NONE, segment;
    for (;;) {
        if (i < p->segments_n && p->segments[i].kind == SEGMENT_ANY) {
            any = i++;
            any_rest = rest;
            if (i == p->segments_n)
                return true;
            continue;
        }
        if (i == p->segments_n && rest.n == 0)
            return true;
        struct str after = rest;
        if (i < p->segments_n && take_segment(&after, &segment) &&
            segment_matches(&p->segments[i], segment)) {
            rest = after;
            i++;
            continue;
        }
        if (any == UINT32_MAX || !take_segment(&any_rest, &segment))
            return false;
        rest = any_rest;
        i = any + 1;
    }
}

static bool matches_decoded(const struct pattern *pattern, struct str path)
{
    if (!str_starts(path, pattern->prefix))
        return false;
    struct str rest = str_skip(path, pattern->prefix.n);
    if (pattern->segments_n == 0)
        return rest.n == 0;
    struct str suffix = pattern->suffix;
    if (rest.n < suffix.n || !str_starts(str_skip(rest, rest.n - suffix.n), suffix))
        return false;
    return (rest.n == 0 || rest.p[0] == '/') && segments_match(pattern, rest);
}

bool pattern_matches(const struct pattern *pattern, struct str canonical_path)
{
    char scratch[HTTP_TARGET_BYTES_MAX];

    return matches_decoded(pattern, url_path_decode(canonical_path, scratch, sizeof scratch));
}

/* ---- Track templates ---- */

enum capture { CAPTURE_TRACK, CAPTURE_QUALITY, CAPTURE_NUMBER, CAPTURE_EXT, CAPTURE_COUNT };

static const struct str capture_names[CAPTURE_COUNT] = {
    [CAPTURE_TRACK] = STR_INIT("{track}"),
    [CAPTURE_QUALITY] = STR_INIT("{quality}"),
    [CAPTURE_NUMBER] = STR_INIT("{n}"),
    [CAPTURE_EXT] = STR_INIT("{ext}"),
};

struct track_part {
    enum capture capture;
    struct str after; /* the literal text that follows it */
};

struct track_template {
    struct str before; /* the literal text before the first part */
    unsigned n;
    struct track_part parts[CAPTURE_COUNT];
};

static struct str take_literal(struct str *rest)
{
    const char *brace = rest->n > 0 ? memchr(rest->p, '{', rest->n) : NULL;
    struct str literal = str_of(rest->p, brace != NULL ? (size_t)(brace - rest->p) : rest->n);
    *rest = str_skip(*rest, literal.n);
    return literal;
}

static bool take_capture(struct str *rest, enum capture *out)
{
    for (unsigned c = 0; c < CAPTURE_COUNT; c++) {
        if (str_starts(*rest, capture_names[c])) {
            *rest = str_skip(*rest, capture_names[c].n);
            *out = c;
            return true;
        }
    }
    return false;
}

static const char *check_part(const struct track_template *t, const struct track_part *part,
                              struct str before)
{
    for (const struct track_part *p = t->parts; p < part; p++)
        if (p->capture == part->capture)
            return "has the same name twice";
    if (part > t->parts && before.n == 0)
        return "has two names with nothing between them";
    if (part->capture == CAPTURE_EXT && (before.n == 0 || before.p[before.n - 1] != '.'))
        return "has {ext} without a '.' before it";
    if (part->capture == CAPTURE_EXT && part->after.n > 0 && part->after.p[0] != '/')
        return "has text after {ext} in the same segment";
    if (part->after.n > 0 &&
        (memchr(part->after.p, '*', part->after.n) || memchr(part->after.p, '}', part->after.n)))
        return "has a '*' or a '}' outside a name";
    return NULL;
}

int track_compile(struct str text, struct arena *a, const struct track_template **out, const char **why)
{
    struct str rest;
    int rc = canonical_text(text, a, &rest, why);
    if (rc < 0)
        return rc;

    struct track_template *t = arena_new(a, struct track_template, 1);
    t->before = take_literal(&rest);
    struct str before = t->before;
    bool named = false;
    *why = memchr(before.p, '*', before.n) ? "has a '*' outside a name" : NULL;
    while (rest.n > 0 && *why == NULL) {
        struct track_part part, *place = &t->parts[t->n];
        if (!take_capture(&rest, &part.capture)) {
            *why = "has a name other than {track}, {quality}, {n} and {ext}";
            break;
        }
        if (t->n == CAPTURE_COUNT) {
            *why = "has the same name twice";
            break;
        }
        part.after = take_literal(&rest);
        *place = part;
        *why = check_part(t, place, before);
        before = part.after;
        named = named || part.capture == CAPTURE_TRACK;
        t->n++;
    }
    if (*why == NULL && !named)
        *why = "does not name the {track}";
    *out = t;
    return *why != NULL ? -EINVAL : 0;
}

static size_t segment_bytes(struct str s)
{
    const char *end = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;
    return end != NULL ? (size_t)(end - s.p) : s.n;
}

/* How many bytes at the front of rest a part takes; 0: it does not match. */
static size_t part_bytes(const struct track_part *part, bool ext_follows, struct str rest)
{
    size_t max = segment_bytes(rest);
    if (max == 0)
        return 0;
    if (part->capture == CAPTURE_EXT)
        return memchr(rest.p, '.', max) == NULL ? max : 0;
    if (part->capture == CAPTURE_NUMBER) {
        size_t digits = 0;
        while (digits < max && rest.p[digits] >= '0' && rest.p[digits] <= '9')
            digits++;
        return digits;
    }
    if (part->after.n == 0 || part->after.p[0] == '/')
        return max;
    if (ext_follows && memchr(part->after.p, '/', part->after.n) == NULL) {
        const char *dot = memrchr(rest.p, '.', max);
        size_t n = dot != NULL ? (size_t)(dot + 1 - rest.p) : 0;
        return n > part->after.n ? n - part->after.n : 0;
    }
    for (size_t n = 1; n <= max; n++)
        if (str_starts(str_skip(rest, n), part->after))
            return n;
    return 0;
}

static bool keep_part(const struct track_part *part, struct str value, struct track_name *out)
{
    switch (part->capture) {
    case CAPTURE_TRACK:
        out->track = value;
        return true;
    case CAPTURE_QUALITY:
        out->quality = value;
        return true;
    case CAPTURE_EXT:
        out->ext = value;
        return true;
    case CAPTURE_NUMBER:
        out->has_number = true;
        return str_to_u64(value, &out->number) == 0;
    case CAPTURE_COUNT:
        break;
    }
    return false;
}

bool track_extract(const struct track_template *t, struct str path, struct track_name *out)
{
    *out = (struct track_name){0};
    if (!str_starts(path, t->before))
        return false;
    struct str rest = str_skip(path, t->before.n);
    for (unsigned i = 0; i < t->n; i++) {
        const struct track_part *part = &t->parts[i];
        bool ext_follows = i + 1 < t->n && t->parts[i + 1].capture == CAPTURE_EXT;
        size_t n = part_bytes(part, ext_follows, rest);
        if (n == 0 || !keep_part(part, str_of(rest.p, n), out))
            return false;
        rest = str_skip(rest, n);
        if (!str_starts(rest, part->after))
            return false;
        rest = str_skip(rest, part->after.n);
    }
    return rest.n == 0;
}

/* ---- Rules ---- */

unsigned rule_method_of(struct str name)
{
    static const struct {
        struct str name;
        enum rule_method bit;
    } methods[] = {
        {STR_INIT("GET"), RULE_METHOD_GET},         {STR_INIT("HEAD"), RULE_METHOD_HEAD},
        {STR_INIT("POST"), RULE_METHOD_POST},       {STR_INIT("PUT"), RULE_METHOD_PUT},
        {STR_INIT("PATCH"), RULE_METHOD_PATCH},     {STR_INIT("DELETE"), RULE_METHOD_DELETE},
        {STR_INIT("OPTIONS"), RULE_METHOD_OPTIONS},
    };
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (str_eq(methods[i].name, name))
            return methods[i].bit;
    return 0;
}

const struct rule *rules_find(const struct rules *rules, struct str canonical_path)
{
    char scratch[HTTP_TARGET_BYTES_MAX];
    struct str path = url_path_decode(canonical_path, scratch, sizeof scratch);

    for (unsigned i = 0; i < rules->n; i++)
        if (matches_decoded(&rules->items[i].match, path))
            return &rules->items[i];
    return &rules->none;
}
