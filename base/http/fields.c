#include "http/fields.h"

#include "util/check.h"

#include <errno.h>

#define T 1
const uint8_t http_token_table[256] = {
    ['!'] = T, ['#'] = T, ['$'] = T, ['%'] = T,         ['&'] = T,         ['\''] = T,
    ['*'] = T, ['+'] = T, ['-'] = T, ['.'] = T,         ['^'] = T,         ['_'] = T,
    ['`'] = T, ['|'] = T, ['~'] = T, ['0' ... '9'] = T, ['A' ... 'Z'] = T, ['a' ... 'z'] = T,
};
#undef T

static const struct str names[FIELD_ID_COUNT] = {
#define FIELD_NAME_(id, name) [FIELD_##id] = STR_INIT(name),
    FIELD_LIST(FIELD_NAME_)
#undef FIELD_NAME_
};

/* The known names of each length, so that a lookup compares only a few; 0 ends a row. */
#define LENGTH_MAX 25
#define ROW_MAX    9
static const uint8_t by_length[LENGTH_MAX + 1][ROW_MAX] = {
    [2] = {FIELD_TE},
    [3] = {FIELD_AGE, FIELD_VIA},
    [4] = {FIELD_HOST, FIELD_DATE, FIELD_ETAG, FIELD_VARY},
    [5] = {FIELD_RANGE, FIELD_ALLOW},
    [6] = {FIELD_ACCEPT, FIELD_COOKIE, FIELD_ORIGIN, FIELD_EXPECT, FIELD_SERVER, FIELD_PRAGMA},
    [7] = {FIELD_REFERER, FIELD_EXPIRES, FIELD_UPGRADE, FIELD_TRAILER, FIELD_X_CACHE},
    [8] = {FIELD_IF_RANGE, FIELD_IF_MATCH, FIELD_LOCATION, FIELD_CDN_LOOP},
    [9] = {FIELD_FORWARDED},
    [10] = {FIELD_CONNECTION, FIELD_USER_AGENT, FIELD_KEEP_ALIVE, FIELD_SET_COOKIE},
    [11] = {FIELD_RETRY_AFTER},
    [12] = {FIELD_CONTENT_TYPE, FIELD_CACHE_STATUS},
    [13] = {FIELD_CACHE_CONTROL, FIELD_IF_NONE_MATCH, FIELD_ACCEPT_RANGES, FIELD_AUTHORIZATION,
            FIELD_CONTENT_RANGE, FIELD_LAST_MODIFIED, FIELD_SURROGATE_KEY},
    [14] = {FIELD_CONTENT_LENGTH},
    [15] = {FIELD_ACCEPT_ENCODING, FIELD_ACCEPT_LANGUAGE, FIELD_X_FORWARDED_FOR},
    [16] = {FIELD_CONTENT_ENCODING, FIELD_CONTENT_LOCATION, FIELD_PROXY_CONNECTION},
    [17] = {FIELD_IF_MODIFIED_SINCE, FIELD_TRANSFER_ENCODING, FIELD_CDN_CACHE_CONTROL,
            FIELD_SURROGATE_CONTROL},
    [18] = {FIELD_PROXY_AUTHENTICATE},
    [19] = {FIELD_IF_UNMODIFIED_SINCE, FIELD_PROXY_AUTHORIZATION},
    [25] = {FIELD_PROXY_AUTHENTICATION_INFO},
};

static uint64_t load8(const char *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return v;
}

/* Equal without case, n bytes, b being letters and "-" only. Setting bit 5 folds letters and leaves "-"
 * alone; of all bytes only CR would turn into "-" by it, which no field name holds. */
static bool name_eq(const char *a, const char *b, size_t n)
{
    const uint64_t fold = 0x2020202020202020ull;
    size_t i = 0;

    if (n < 8) {
        for (; i < n; i++)
            if ((a[i] | 0x20) != (b[i] | 0x20))
                return false;
        return true;
    }
    for (; i + 8 <= n; i += 8)
        if ((load8(a + i) | fold) != (load8(b + i) | fold))
            return false;
    return (load8(a + n - 8) | fold) == (load8(b + n - 8) | fold);
}

enum field_id field_id_of(struct str name)
{
    if (name.n > LENGTH_MAX)
        return FIELD_OTHER;
    for (const uint8_t *id = by_length[name.n]; *id; id++)
        if (name_eq(name.p, names[*id].p, name.n))
            return (enum field_id) * id;
    return FIELD_OTHER;
}

struct str field_id_name(enum field_id id)
{
    CHECK((unsigned)id < FIELD_ID_COUNT);
    return id == FIELD_OTHER ? STR("") : names[id];
}

int fields_add(struct fields *f, const char *base, size_t name_off, size_t name_n, size_t value_off,
               size_t value_n)
{
    enum field_id id;

    if (f->n >= HTTP_FIELDS_MAX)
        return -ENOSPC;
    CHECK(name_off + name_n <= UINT16_MAX && value_off + value_n <= UINT16_MAX);
    id = field_id_of(str_of(base + name_off, name_n));
    f->at[f->n] = (struct field){
        .name_off = (uint16_t)name_off,
        .name_n = (uint16_t)name_n,
        .value_off = (uint16_t)value_off,
        .value_n = (uint16_t)value_n,
        .id = (uint8_t)id,
        .next = FIELD_END,
    };
    if (id != FIELD_OTHER) {
        if (fields_has(f, id))
            f->at[f->last[id]].next = f->n;
        else
            f->first[id] = f->n;
        f->last[id] = f->n;
        f->present |= FIELD_BIT(id);
    }
    f->n++;
    return 0;
}

unsigned fields_count(const struct fields *f, enum field_id id)
{
    unsigned count = 0;

    for (unsigned i = fields_first(f, id); i != FIELD_END; i = f->at[i].next)
        count++;
    return count;
}

unsigned fields_find(const struct fields *f, const char *base, struct str name, unsigned from)
{
    enum field_id id = field_id_of(name);

    for (unsigned i = from; i < f->n; i++)
        if (f->at[i].id == id && (id != FIELD_OTHER || str_eq_nocase(field_name(f, base, i), name)))
            return i;
    return FIELD_END;
}

bool str_member_next(struct str *rest, struct str *member)
{
    while (rest->n > 0) {
        bool quoted = false;
        size_t i = 0;

        for (; i < rest->n && (quoted || rest->p[i] != ','); i++) {
            if (rest->p[i] == '"')
                quoted = !quoted;
            else if (quoted && rest->p[i] == '\\' && i + 1 < rest->n)
                i++;
        }
        *member = str_trim_ows(str_of(rest->p, i));
        *rest = str_skip(*rest, i + 1);
        if (member->n > 0)
            return true;
    }
    return false;
}

struct field_members field_members_of(const struct fields *f, const char *base, enum field_id id)
{
    return (struct field_members){.fields = f, .base = base, .next = fields_first(f, id)};
}

bool field_members_next(struct field_members *it, struct str *member)
{
    while (!str_member_next(&it->rest, member)) {
        if (it->next == FIELD_END)
            return false;
        it->rest = field_value(it->fields, it->base, it->next);
        it->next = it->fields->at[it->next].next;
    }
    return true;
}

bool fields_have_member(const struct fields *f, const char *base, enum field_id id, struct str token)
{
    struct field_members it = field_members_of(f, base, id);
    struct str member;

    while (field_members_next(&it, &member))
        if (str_eq_nocase(member, token))
            return true;
    return false;
}

int field_unquote(struct str quoted, char *out)
{
    int n = 0;

    if (quoted.n < 2 || quoted.p[0] != '"' || quoted.p[quoted.n - 1] != '"')
        return -EINVAL;
    for (size_t i = 1; i < quoted.n - 1; i++) {
        if (quoted.p[i] == '"')
            return -EINVAL;
        if (quoted.p[i] == '\\' && ++i == quoted.n - 1)
            return -EINVAL; /* the escape took the closing quote */
        out[n++] = quoted.p[i];
    }
    return n;
}

bool field_id_is_hop_by_hop(enum field_id id)
{
    const uint64_t set = FIELD_BIT(FIELD_CONNECTION) | FIELD_BIT(FIELD_KEEP_ALIVE) |
                         FIELD_BIT(FIELD_PROXY_CONNECTION) | FIELD_BIT(FIELD_TE) | FIELD_BIT(FIELD_TRAILER) |
                         FIELD_BIT(FIELD_TRANSFER_ENCODING) | FIELD_BIT(FIELD_UPGRADE) |
                         FIELD_BIT(FIELD_PROXY_AUTHENTICATE) | FIELD_BIT(FIELD_PROXY_AUTHENTICATION_INFO) |
                         FIELD_BIT(FIELD_PROXY_AUTHORIZATION);

    return (set >> id & 1) != 0;
}

struct field_set fields_hop_by_hop(const struct fields *f, const char *base)
{
    struct field_set set = {{0, 0}};
    struct field_members it = field_members_of(f, base, FIELD_CONNECTION);
    struct str member;

    for (unsigned i = 0; i < f->n; i++)
        if (field_id_is_hop_by_hop((enum field_id)f->at[i].id))
            set.bits[i / 64] |= 1ull << (i % 64);
    while (field_members_next(&it, &member))
        for (unsigned i = fields_find(f, base, member, 0); i != FIELD_END;
             i = fields_find(f, base, member, i + 1))
            set.bits[i / 64] |= 1ull << (i % 64);
    return set;
}

bool http_is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!http_token_table[(unsigned char)s.p[i]])
            return false;
    return s.n > 0;
}
