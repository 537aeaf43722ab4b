#include "http/vary.h"

#include <errno.h>

static void lower(char *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        out[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
}

static int compare(struct str a, struct str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

    return c ? c : (a.n > b.n) - (a.n < b.n);
}

int vary_names(const struct fields *response, const char *base, struct buf *out)
{
    struct field_members it = field_members_of(response, base, FIELD_VARY);
    char bytes[HTTP_VARY_BYTES_MAX];
    struct str names[HTTP_VARY_NAMES_MAX];
    size_t used = 0, start = out->n;
    unsigned n = 0;
    struct str member;

    while (field_members_next(&it, &member)) {
        struct str name = str_of(bytes + used, member.n);
        unsigned i = 0;
        int c = 1;

        if (str_eq(member, STR("*")) || !http_is_token(member))
            return -EINVAL;
        if (member.n > sizeof bytes - used)
            return -ENOSPC;
        lower(bytes + used, member);
        while (i < n && (c = compare(name, names[i])) > 0)
            i++;
        if (i < n && c == 0)
            continue;
        if (n == HTTP_VARY_NAMES_MAX)
            return -ENOSPC;
        memmove(&names[i + 1], &names[i], (n - i) * sizeof names[0]);
        names[i] = name;
        used += member.n;
        n++;
    }
    for (unsigned i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        buf_add_str(out, names[i]);
    }
    if (out->n - start > HTTP_VARY_BYTES_MAX)
        out->overflow = true;
    return out->overflow ? -ENOSPC : (int)n;
}

/* Bytes to be hashed, of any length in bounded memory: what does not fit is folded into a hash of what came
 * before. */
struct sink {
    size_t n;
    char bytes[1024];
};

static void sink_add(struct sink *s, struct str bytes)
{
    while (bytes.n > 0) {
        size_t room = sizeof s->bytes - s->n;
        size_t n = bytes.n < room ? bytes.n : room;

        memcpy(s->bytes + s->n, bytes.p, n);
        s->n += n;
        bytes = str_skip(bytes, n);
        if (s->n == sizeof s->bytes) {
            struct hash128 h = hash_of(str_of(s->bytes, s->n));

            memcpy(s->bytes, &h, sizeof h);
            s->n = sizeof h;
        }
    }
}

static void sink_add_lower(struct sink *s, struct str bytes)
{
    while (bytes.n > 0) {
        char part[64];
        size_t n = bytes.n < sizeof part ? bytes.n : sizeof part;

        lower(part, str_of(bytes.p, n));
        sink_add(s, str_of(part, n));
        bytes = str_skip(bytes, n);
    }
}

/* Every value is members each followed by a comma, a field that is absent is a NUL; neither can be inside
 * one. */
static void add_field(struct sink *s, struct str name, const struct fields *request, const char *base)
{
    bool fold = str_eq(name, STR("accept-encoding"));
    unsigned i = fields_find(request, base, name, 0);

    sink_add(s, name);
    sink_add(s, i == FIELD_END ? STR("\0") : STR("\n"));
    for (; i != FIELD_END; i = fields_find(request, base, name, i + 1)) {
        struct str rest = field_value(request, base, i), member;

        while (str_member_next(&rest, &member)) {
            if (fold)
                sink_add_lower(s, member);
            else
                sink_add(s, member);
            sink_add(s, STR("\n"));
        }
    }
}

struct hash128 vary_key(struct str names, const struct fields *request, const char *base)
{
    struct sink s = {.n = 0};
    struct str name;

    while (str_member_next(&names, &name))
        add_field(&s, name, request, base);
    return hash_of(str_of(s.bytes, s.n));
}
