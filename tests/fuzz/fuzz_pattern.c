/* The pattern matcher against the simplest one there is, which tries everything. The input is a pattern and a
 * path with a newline between them; bytes are folded into few, so that matches happen. */
#include "proxy/rules.h"
#include "util/check.h"

#define PATTERN_MAX 24
#define PATH_MAX_   32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool bytes_match(struct str glob, struct str s)
{
    if (glob.n == 0)
        return s.n == 0;
    if (glob.p[0] == '*')
        return bytes_match(str_skip(glob, 1), s) || (s.n > 0 && bytes_match(glob, str_skip(s, 1)));
    return s.n > 0 && glob.p[0] == s.p[0] && bytes_match(str_skip(glob, 1), str_skip(s, 1));
}

/* "/a/b" as "a" and "/b" */
static struct str first(struct str *s)
{
    size_t n = 1;
    while (n < s->n && s->p[n] != '/')
        n++;
    struct str segment = str_of(s->p + 1, n - 1);
    *s = str_skip(*s, n);
    return segment;
}

static bool reference(struct str pattern, struct str path)
{
    if (pattern.n == 0)
        return path.n == 0;
    struct str rest = pattern, path_rest = path;
    struct str segment = first(&rest);
    if (str_eq(segment, STR("**")))
        return reference(rest, path) || (path.n > 0 && (first(&path_rest), reference(pattern, path_rest)));
    if (path.n == 0)
        return false;
    struct str path_segment = first(&path_rest);
    if (str_eq(segment, STR("*")) && path_segment.n == 0)
        return false;
    return bytes_match(segment, path_segment) && reference(rest, path_rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char alphabet[] = "//**aab.";
    char pattern_text[PATTERN_MAX], path_text[PATH_MAX_] = "";
    size_t i = 0, pattern_n = 0, path_n = 0;
    for (; i < n && data[i] != '\n' && pattern_n < PATTERN_MAX; i++)
        pattern_text[pattern_n++] = alphabet[data[i] % 8];
    for (i++; i < n && path_n < PATH_MAX_; i++)
        path_text[path_n++] = alphabet[data[i] % 8];
    if (path_n == 0 || path_text[0] != '/')
        return 0;

    struct arena arena = {0};
    struct pattern pattern;
    const char *why;
    struct str text = str_of(pattern_text, pattern_n), path = str_of(path_text, path_n);
    if (pattern_compile(text, &arena, &pattern, &why) == 0)
        CHECK(pattern_matches(&pattern, path) == reference(text, path));

    /* Templates have no reference; what they find lies in the path. */
    const struct track_template *t;
    struct track_name name;
    struct str raw = str_of((const char *)data, n < PATTERN_BYTES_MAX ? n : PATTERN_BYTES_MAX);
    struct str half = str_of(raw.p, raw.n / 2);
    if (raw.n > 1 && track_compile(half, &arena, &t, &why) == 0 &&
        track_extract(t, str_skip(raw, raw.n / 2), &name))
        CHECK(name.track.n > 0 && name.track.p >= raw.p && name.track.p + name.track.n <= raw.p + raw.n);
    arena_free(&arena);
    return 0;
}
