#include "http/cmcd.h"

#include "http/structured.h"
#include "http/url.h"
#include "util/check.h"

const struct str cmcd_parameter = STR_INIT("CMCD");

enum kind { NUMBER, MILLI, FLAG, TEXT, TOKEN };

static const struct key {
    struct str name;
    enum kind kind;
    size_t bytes_max; /* of a text or token */
} keys[CMCD_KEYS] = {
    [CMCD_BR] = {STR_INIT("br"), NUMBER, 0},   [CMCD_BL] = {STR_INIT("bl"), NUMBER, 0},
    [CMCD_BS] = {STR_INIT("bs"), FLAG, 0},     [CMCD_CID] = {STR_INIT("cid"), TEXT, CMCD_ID_BYTES_MAX},
    [CMCD_D] = {STR_INIT("d"), NUMBER, 0},     [CMCD_DL] = {STR_INIT("dl"), NUMBER, 0},
    [CMCD_MTP] = {STR_INIT("mtp"), NUMBER, 0}, [CMCD_NOR] = {STR_INIT("nor"), TEXT, HTTP_TARGET_BYTES_MAX},
    [CMCD_NRR] = {STR_INIT("nrr"), TEXT, 64},  [CMCD_OT] = {STR_INIT("ot"), TOKEN, 2},
    [CMCD_PR] = {STR_INIT("pr"), MILLI, 0},    [CMCD_RTP] = {STR_INIT("rtp"), NUMBER, 0},
    [CMCD_SF] = {STR_INIT("sf"), TOKEN, 1},    [CMCD_SID] = {STR_INIT("sid"), TEXT, CMCD_ID_BYTES_MAX},
    [CMCD_ST] = {STR_INIT("st"), TOKEN, 1},    [CMCD_SU] = {STR_INIT("su"), FLAG, 0},
    [CMCD_TB] = {STR_INIT("tb"), NUMBER, 0},   [CMCD_V] = {STR_INIT("v"), NUMBER, 0},
};

/* "1.08" as 1080; what structured_member_next let pass has one to three digits after its point. */
static int64_t milli_of(struct str decimal)
{
    int64_t value = 0;
    int after_point = -1;

    for (size_t i = 0; i < decimal.n; i++) {
        if (decimal.p[i] == '.')
            after_point = 0;
        else if (decimal.p[i] == '-')
            return -1;
        else {
            value = value * 10 + (decimal.p[i] - '0');
            after_point += after_point >= 0;
        }
    }
    for (; after_point < 3; after_point++)
        value *= 10;
    return value;
}

static bool number_of(const struct key *key, const struct structured_member *m, int64_t *out)
{
    if (key->kind == FLAG && m->type == STRUCTURED_BOOLEAN)
        *out = m->integer;
    else if (key->kind == NUMBER && m->type == STRUCTURED_INTEGER)
        *out = m->integer;
    else if (key->kind == MILLI && m->type == STRUCTURED_INTEGER)
        *out = m->integer <= CMCD_NUMBER_MAX ? m->integer * 1000 : -1;
    else if (key->kind == MILLI && m->type == STRUCTURED_DECIMAL)
        *out = milli_of(m->text);
    else
        return false;
    return *out >= 0 && *out <= (int64_t)CMCD_NUMBER_MAX;
}

/* No string of CMCD has a reason to hold a quote or a backslash: one with an escape is left out. */
static bool text_is_good(const struct key *key, const struct structured_member *m)
{
    enum structured_type type = key->kind == TOKEN ? STRUCTURED_TOKEN : STRUCTURED_STRING;

    return m->type == type && m->text.n > 0 && m->text.n <= key->bytes_max &&
           memchr(m->text.p, '\\', m->text.n) == NULL;
}

static void add_member(struct cmcd *c, const struct structured_member *m)
{
    for (unsigned i = 0; i < CMCD_KEYS; i++) {
        const struct key *key = &keys[i];
        int64_t number;

        if (!str_eq(m->key, key->name))
            continue;
        if (key->kind == TEXT || key->kind == TOKEN) {
            if (!text_is_good(key, m))
                return;
            c->text[i] = m->text;
        } else {
            if (!number_of(key, m, &number))
                return;
            c->number[i] = (uint32_t)number;
        }
        c->present |= 1u << i;
        return;
    }
}

void cmcd_add(struct cmcd *c, struct str payload)
{
    struct structured_member m;
    struct str rest = payload;
    int rc;

    while ((rc = structured_member_next(&rest, &m)) > 0)
        ;
    if (rc < 0)
        return;
    while (structured_member_next(&payload, &m) > 0)
        add_member(c, &m);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void decode(struct str value, struct buf *out)
{
    for (size_t i = 0; i < value.n; i++) {
        int high = i + 2 < value.n ? hex(value.p[i + 1]) : -1, low = high < 0 ? -1 : hex(value.p[i + 2]);

        if (value.p[i] == '%' && low >= 0) {
            buf_add_char(out, (char)(high << 4 | low));
            i += 2;
        } else {
            buf_add_char(out, value.p[i]);
        }
    }
}

void cmcd_of_request(const struct fields *fields, const char *head, struct str query, struct buf *scratch,
                     struct cmcd *c)
{
    static const struct str prefix = STR_INIT("CMCD-");
    struct url_param param;

    *c = (struct cmcd){0};
    for (unsigned i = 0; i < fields->n; i++) {
        struct str name = field_name(fields, head, i);

        if (name.n > prefix.n && str_eq_nocase(str_of(name.p, prefix.n), prefix))
            cmcd_add(c, field_value(fields, head, i));
    }
    while (url_query_next(&query, &param)) {
        size_t begin = scratch->n;

        if (!url_name_is(param.name, cmcd_parameter))
            continue;
        decode(param.value, scratch);
        if (!scratch->overflow)
            cmcd_add(c, str_of(scratch->p + begin, scratch->n - begin));
    }
}
