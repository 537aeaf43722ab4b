#include "http/cache_control.h"

#include "http/structured.h"
#include "util/check.h"

enum kind { FLAG, FLAG_OR_FIELDS, DELTA, FRESHNESS, MAX_STALE };

static const struct directive {
    struct str name;
    uint32_t flag;        /* FLAG: what it sets; the others: that it has a value */
    uint32_t fields_flag; /* FLAG_OR_FIELDS: that it names fields */
    uint16_t offset;      /* of its number or of its fields, in struct cache_control */
    uint8_t kind;         /* enum kind */
} directives[] = {
#define AT(member) offsetof(struct cache_control, member)
    {STR_INIT("max-age"), CC_HAS_MAX_AGE, 0, AT(max_age_s), FRESHNESS},
    {STR_INIT("s-maxage"), CC_HAS_S_MAXAGE, 0, AT(s_maxage_s), FRESHNESS},
    {STR_INIT("no-store"), CC_NO_STORE, 0, 0, FLAG},
    {STR_INIT("no-cache"), CC_NO_CACHE, CC_NO_CACHE_FIELDS, AT(no_cache_fields), FLAG_OR_FIELDS},
    {STR_INIT("private"), CC_PRIVATE, CC_PRIVATE_FIELDS, AT(private_fields), FLAG_OR_FIELDS},
    {STR_INIT("public"), CC_PUBLIC, 0, 0, FLAG},
    {STR_INIT("must-revalidate"), CC_MUST_REVALIDATE, 0, 0, FLAG},
    {STR_INIT("proxy-revalidate"), CC_PROXY_REVALIDATE, 0, 0, FLAG},
    {STR_INIT("must-understand"), CC_MUST_UNDERSTAND, 0, 0, FLAG},
    {STR_INIT("immutable"), CC_IMMUTABLE, 0, 0, FLAG},
    {STR_INIT("no-transform"), CC_NO_TRANSFORM, 0, 0, FLAG},
    {STR_INIT("only-if-cached"), CC_ONLY_IF_CACHED, 0, 0, FLAG},
    {STR_INIT("stale-while-revalidate"), CC_HAS_SWR, 0, AT(stale_while_revalidate_s), DELTA},
    {STR_INIT("stale-if-error"), CC_HAS_SIE, 0, AT(stale_if_error_s), DELTA},
    {STR_INIT("max-stale"), CC_HAS_MAX_STALE, 0, AT(max_stale_s), MAX_STALE},
    {STR_INIT("min-fresh"), CC_HAS_MIN_FRESH, 0, AT(min_fresh_s), DELTA},
#undef AT
};

static uint32_t *number_of(struct cache_control *cc, const struct directive *d)
{
    return (uint32_t *)(void *)((char *)cc + d->offset);
}

static struct str *fields_of(struct cache_control *cc, const struct directive *d)
{
    return (struct str *)(void *)((char *)cc + d->offset);
}

static const struct directive *directive_of(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(directives); i++)
        if (str_eq_nocase(name, directives[i].name))
            return &directives[i];
    return NULL;
}

/* The inside of a quoted-string that needs no unescaping; false for any other. */
static bool unquote(struct str *s)
{
    if (s->n < 2 || s->p[0] != '"' || s->p[s->n - 1] != '"')
        return false;
    *s = str_of(s->p + 1, s->n - 2);
    return s->n == 0 || (!memchr(s->p, '"', s->n) && !memchr(s->p, '\\', s->n));
}

/* delta-seconds; too big is CACHE_CONTROL_DELTA_MAX. */
static bool parse_delta(struct str s, uint32_t *out)
{
    uint64_t value = CACHE_CONTROL_DELTA_MAX;

    if (s.n > 0 && s.p[0] == '"' && !unquote(&s))
        return false;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    if (str_to_u64(s, &value) < 0 || value > CACHE_CONTROL_DELTA_MAX)
        value = CACHE_CONTROL_DELTA_MAX;
    *out = (uint32_t)value;
    return true;
}

static void set_number(struct cache_control *cc, const struct directive *d, bool valid, uint32_t value)
{
    if (cc->flags & d->flag)
        return; /* the first holds */
    if (!valid) {
        if (d->kind != FRESHNESS)
            return;
        cc->flags |= CC_FRESHNESS_INVALID;
        value = 0;
    }
    cc->flags |= d->flag;
    *number_of(cc, d) = value;
}

/* names: what stands in the quotes. What cannot be told apart by field counts for the whole response. */
static void set_fields(struct cache_control *cc, const struct directive *d, bool valid, struct str names)
{
    if (!valid || names.n == 0 || (cc->flags & d->fields_flag)) {
        cc->flags |= d->flag;
        return;
    }
    cc->flags |= d->fields_flag;
    *fields_of(cc, d) = names;
}

static void parse_directive(struct cache_control *cc, struct str member)
{
    const char *equals = memchr(member.p, '=', member.n);
    struct str name = equals ? str_of(member.p, (size_t)(equals - member.p)) : member;
    struct str value = equals ? str_skip(member, name.n + 1) : STR_NONE;
    struct str trimmed = str_trim_ows(name);
    const struct directive *d = directive_of(trimmed);
    bool well_formed = equals && trimmed.n == name.n; /* "max-age =1" is no number */
    uint32_t number = 0;

    if (!d)
        return;
    switch ((enum kind)d->kind) {
    case FLAG:
        cc->flags |= d->flag; /* whatever value it is given: the cautious reading */
        break;
    case FLAG_OR_FIELDS:
        if (value.n > 0 && value.p[0] == '"')
            well_formed = unquote(&value) && well_formed;
        set_fields(cc, d, well_formed, value);
        break;
    case MAX_STALE:
        if (!equals) {
            if (!(cc->flags & CC_HAS_MAX_STALE))
                cc->flags |= CC_MAX_STALE_ANY;
            break;
        }
        if (cc->flags & CC_MAX_STALE_ANY)
            break;
        /* fall through */
    case DELTA:
    case FRESHNESS:
        well_formed = well_formed && parse_delta(value, &number);
        set_number(cc, d, well_formed, number);
        break;
    }
}

void cache_control_parse(const struct fields *f, const char *base, struct cache_control *out)
{
    struct field_members it = field_members_of(f, base, FIELD_CACHE_CONTROL);
    struct str member;

    *out = (struct cache_control){0};
    while (field_members_next(&it, &member))
        parse_directive(out, member);
}

static void forget(struct cache_control *cc, const struct directive *d)
{
    cc->flags &= ~(d->flag | d->fields_flag);
    if (d->kind == FLAG_OR_FIELDS)
        *fields_of(cc, d) = STR_NONE;
    else if (d->kind != FLAG)
        *number_of(cc, d) = 0;
}

/* Of keys given twice the last holds (RFC 8941, 3.2), so an earlier one is forgotten first. */
static void apply_member(struct cache_control *cc, const struct structured_member *m)
{
    const struct directive *d = directive_of(m->key);

    if (!d)
        return;
    forget(cc, d);
    switch ((enum kind)d->kind) {
    case FLAG:
    case FLAG_OR_FIELDS:
        if (m->type == STRUCTURED_BOOLEAN)
            cc->flags |= m->integer ? d->flag : 0;
        else if (d->kind == FLAG_OR_FIELDS && m->type == STRUCTURED_STRING)
            set_fields(cc, d, memchr(m->text.p, '\\', m->text.n) == NULL, m->text);
        break;
    case MAX_STALE:
    case DELTA:
    case FRESHNESS:
        if (m->type == STRUCTURED_INTEGER)
            set_number(cc, d, m->integer >= 0,
                       m->integer > CACHE_CONTROL_DELTA_MAX ? CACHE_CONTROL_DELTA_MAX : (uint32_t)m->integer);
        break;
    }
}

int cache_control_parse_targeted(const struct fields *f, const char *base, struct cache_control *out)
{
    struct structured_member m;
    int members = 0;

    *out = (struct cache_control){0};
    for (unsigned i = fields_first(f, FIELD_CDN_CACHE_CONTROL); i != FIELD_END; i = f->at[i].next) {
        struct str rest = field_value(f, base, i);
        int r;

        while ((r = structured_member_next(&rest, &m)) > 0) {
            apply_member(out, &m);
            members++;
        }
        if (r < 0) {
            *out = (struct cache_control){0};
            return 0;
        }
    }
    return members > 0;
}
