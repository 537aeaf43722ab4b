/* Heads and chunked bodies: the answer does not depend on how the bytes were split, what was parsed can be
 * written and parses to the same, and every offset lies inside the head. The first byte chooses what is
 * parsed and the split. */
#include "fuzz.h"

#include "http/http1.h"

static void check_fields(const struct fields *f, const char *p, size_t n)
{
    unsigned known = 0, chained = 0;
    struct field_set hop = fields_hop_by_hop(f, p);

    CHECK(f->n <= HTTP_FIELDS_MAX);
    for (unsigned i = 0; i < f->n; i++) {
        struct str name = field_name(f, p, i), value = field_value(f, p, i), trimmed = str_trim_ows(value);

        CHECK(name.p >= p && name.p + name.n <= p + n && value.p >= p && value.p + value.n <= p + n);
        CHECK(http_is_token(name) && trimmed.n == value.n);
        for (size_t k = 0; k < value.n; k++)
            CHECK(value.p[k] == '\t' || ((unsigned char)value.p[k] >= ' ' && value.p[k] != 0x7f));
        CHECK(f->at[i].id == field_id_of(name));
        CHECK(fields_find(f, p, name, 0) <= i);
        CHECK(!field_id_is_hop_by_hop((enum field_id)f->at[i].id) || field_set_has(&hop, i));
        known += f->at[i].id != FIELD_OTHER;
    }
    for (unsigned id = 1; id < FIELD_ID_COUNT; id++) {
        struct field_members it = field_members_of(f, p, (enum field_id)id);
        struct str member;

        chained += fields_count(f, (enum field_id)id);
        while (field_members_next(&it, &member))
            CHECK(member.n > 0 && member.p >= p && member.p + member.n <= p + n);
    }
    CHECK(known == chained);
}

/* As a connection reads it: whole pieces of `step`, parsed first at once and then when it is said to be worth
 * it. */
static int parse_in_pieces(const char *p, size_t n, size_t step, struct http1_request *out)
{
    size_t scanned = 0;
    int r = 0;

    for (size_t have = step < n ? step : n;; have = have + step < n ? have + step : n) {
        char *piece = exact_copy(p, have);

        if (have <= step || http1_head_ready(piece, have, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned))
            r = http1_parse_request(piece, have, out);
        free(piece);
        if (r != 0 || have == n)
            return r;
    }
}

static void check_request(const char *p, size_t n, size_t step)
{
    struct http1_request r, pieces, again;
    int got = http1_parse_request(p, n, &r);
    int in_pieces = parse_in_pieces(p, n, step, &pieces);
    char text[2 * HTTP_REQUEST_HEAD_BYTES_MAX];
    struct buf b = buf_of(text, sizeof text);

    /* An error in a head that is not whole may wait for its end; what is said is the same. */
    CHECK(in_pieces == got || (in_pieces == 0 && got < 0));
    if (got <= 0)
        return;
    CHECK((size_t)got <= n && got <= (int)HTTP_REQUEST_HEAD_BYTES_MAX);
    CHECK(http1_parse_request(p, (size_t)got, &again) == got);
    CHECK(http1_parse_request(p, (size_t)got - 1, &again) == 0);
    check_fields(&r.fields, p, (size_t)got);
    CHECK(r.target_off + r.target_n <= got && r.host_off + r.host_n <= got);
    if (r.minor == 0 || r.target_form == HTTP_TARGET_ABSOLUTE)
        return;
    http1_add_request_line(&b, http1_method(&r, p), http1_target(&r, p));
    for (unsigned i = 0; i < r.fields.n; i++)
        http1_add_field(&b, field_name(&r.fields, p, i), field_value(&r.fields, p, i));
    http1_add_head_end(&b);
    CHECK(!b.overflow);
    if (b.n > HTTP_REQUEST_HEAD_BYTES_MAX)
        return; /* it has a space more after each colon */
    CHECK(http1_parse_request(b.p, b.n, &again) == (int)b.n);
    CHECK(again.framing == r.framing && again.content_length == r.content_length &&
          again.keep_alive == r.keep_alive);
    CHECK(again.fields.n == r.fields.n && str_eq(http1_host(&again, b.p), http1_host(&r, p)));
}

static void check_response(const char *p, size_t n, size_t step, bool to_head)
{
    struct http1_response r, part;
    int got = http1_parse_response(p, n, to_head, &r), early = 0;

    for (size_t have = step; have < n && early == 0; have += step) {
        char *piece = exact_copy(p, have);

        early = http1_parse_response(piece, have, to_head, &part);
        free(piece);
    }
    CHECK(early == 0 || early == got);
    if (got > 0) {
        check_fields(&r.fields, p, (size_t)got);
        CHECK(r.status >= 100 && r.status <= 599 && (r.framing != HTTP_BODY_CLOSE || !r.keep_alive));
    }
}

struct decoded {
    int result;
    size_t taken, n;
    char *body;
};

static struct decoded decode(const char *p, size_t n, size_t step)
{
    struct decoded d = {.body = malloc(n ? n : 1)};
    struct http1_chunked c;

    CHECK(d.body);
    http1_chunked_init(&c);
    while (d.taken < n && d.result == HTTP1_CHUNKED_MORE) {
        struct str in = str_of(p + d.taken, n - d.taken < step ? n - d.taken : step), body;
        size_t before = in.n;

        while ((d.result = http1_chunked_next(&c, &in, &body)) == HTTP1_CHUNKED_BODY) {
            CHECK(body.n > 0);
            memcpy(d.body + d.n, body.p, body.n);
            d.n += body.n;
        }
        d.taken += before - in.n;
    }
    return d;
}

static void check_chunked(const char *p, size_t n, size_t step)
{
    struct decoded whole = decode(p, n, n ? n : 1), split = decode(p, n, step);

    CHECK(whole.result == split.result && whole.taken == split.taken && whole.n == split.n);
    CHECK(memcmp(whole.body, split.body, whole.n) == 0);
    free(whole.body);
    free(split.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_of((const char *)data, size);
    unsigned choice = fuzz_byte(&in);
    size_t step = 1 + (choice >> 2);
    char *p = exact_copy(in.p, in.n);

    if ((choice & 3) == 0)
        check_request(p, in.n, step);
    else if ((choice & 3) == 1)
        check_chunked(p, in.n, step);
    else
        check_response(p, in.n, step, (choice & 3) == 3);
    free(p);
    return 0;
}
