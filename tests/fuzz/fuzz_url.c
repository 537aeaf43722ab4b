/* Paths, queries, hosts and configured URLs. What is canonical stays as it is; a canonical path holds nothing
 * that interfaces.md refuses; no parameter that was left out comes back. */
#include "fuzz.h"

#include "http/signed_url.h"
#include "http/url.h"

static void check_path(struct str path)
{
    char *raw = exact_copy(path.p, path.n), *scratch = malloc(path.n ? path.n : 1),
         *again = malloc(path.n ? path.n : 1);
    struct str canonical, twice, rest, segment;

    if (url_path_canonical(str_of(raw, path.n), scratch, &canonical) == 0) {
        CHECK(canonical.n <= path.n && canonical.n > 0 && canonical.p[0] == '/');
        CHECK(url_path_canonical(canonical, again, &twice) == 0 && str_eq(canonical, twice));
        rest = canonical;
        while (url_segment_next(&rest, &segment)) {
            CHECK(segment.n > 0 || rest.n == 0);
            CHECK(!str_eq(segment, STR(".")) && !str_eq(segment, STR("..")));
            for (size_t i = 0; i < segment.n; i++)
                CHECK(segment.p[i] > ' ' && segment.p[i] < 0x7f && segment.p[i] != '\\' &&
                      segment.p[i] != '/');
        }
    }
    free(raw);
    free(scratch);
    free(again);
}

static void check_query(struct str query)
{
    size_t room = 3 * query.n + 1;
    char *first = malloc(room), *second = malloc(room);
    struct buf a = buf_of(first, room), b = buf_of(second, room);
    struct url_param param;
    struct str rest;

    CHECK(first && second);
    url_query_keep_all_but(query, signed_url_names, signed_url_names_n, &a);
    CHECK(!a.overflow);
    url_query_keep_all_but(buf_str(&a), signed_url_names, signed_url_names_n, &b);
    CHECK(!b.overflow && str_eq(buf_str(&a), buf_str(&b)));
    rest = buf_str(&a);
    while (url_query_next(&rest, &param))
        for (size_t i = 0; i < signed_url_names_n; i++)
            CHECK(!url_name_is(param.name, signed_url_names[i]));

    a.n = b.n = 0;
    url_query_keep(query, signed_url_names, signed_url_names_n, &a);
    CHECK(!a.overflow);
    url_query_keep(buf_str(&a), signed_url_names, signed_url_names_n, &b);
    CHECK(str_eq(buf_str(&a), buf_str(&b)));
    free(first);
    free(second);
}

static void check_host(struct str s)
{
    char *copy = exact_copy(s.p, s.n);
    struct url_host host;
    struct url url;

    if (url_host_parse(str_of(copy, s.n), &host) == 0) {
        CHECK(host.name.n > 0 && host.name.p >= copy && host.name.p + host.name.n <= copy + s.n);
        CHECK(url_host_eq(&host, &host, 80));
    }
    if (url_parse(str_of(copy, s.n), &url) == 0)
        CHECK((url.scheme == URL_FILE) == (url.host.n == 0) && (url.path.n == 0 || url.path.p[0] == '/'));
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_of((const char *)data, size);
    struct signed_url_parts parts = signed_url_split(in);
    struct url_target target = url_target_split(in);

    check_path(target.path);
    check_path(parts.path);
    check_query(target.query.p ? target.query : in);
    check_host(in);
    return 0;
}
