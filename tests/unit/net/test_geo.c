#include "net/geo.h"

#include "../unit.h"

#include "net/geo_check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Made by tests/geo/make.sh. */
static const char *const databases[] = {"tests/geo/flat.mmdb", "tests/geo/nested.mmdb",
                                        "tests/geo/nested32.mmdb", "tests/geo/flat4.mmdb"};

static struct geo *open_file(const char *path)
{
    char error[GEO_ERROR_BYTES] = "";
    struct geo *geo;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    if (geo_open(fd, &geo, error) != 0)
        fail_msg("%s %s", path, error);
    close(fd);
    return geo;
}

static int fd_of(const void *bytes, size_t n)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static char *read_file(const char *path, size_t *n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st = {.st_size = 0};
    char *bytes;

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    CHECK(st.st_size > 0); /* the analyser does not know that assert_true ends the test */
    *n = (size_t)st.st_size;
    bytes = malloc(*n + 1);
    assert_non_null(bytes);
    assert_int_equal(read(fd, bytes, *n), st.st_size);
    close(fd);
    return bytes;
}

static void check_country(const struct geo *geo, const char *address, const char *expected)
{
    char country[2] = {'?', '?'};
    struct ip ip;

    assert_int_equal(ip_parse(str_z(address), &ip), 0);
    assert_int_equal(geo_country(geo, &ip, country), expected[0] != '\0');
    if (expected[0] == '\0' ? country[0] != '\0' || country[1] != '\0' : memcmp(country, expected, 2) != 0)
        fail_msg("%s: got \"%.2s\", expected \"%s\"", address, country, expected);
}

static void both_shapes_and_every_record_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(databases); i++) {
        bool v6 = strstr(databases[i], "flat4") == NULL;
        struct geo *geo = open_file(databases[i]);

        check_country(geo, "192.0.2.0", "SE");
        check_country(geo, "192.0.2.127", "SE");
        check_country(geo, "192.0.2.128", "NO");
        check_country(geo, "::ffff:192.0.2.255", "NO");
        check_country(geo, "198.51.100.77", "US");
        check_country(geo, "203.0.113.7", "DE");
        check_country(geo, "203.0.113.6", "");
        check_country(geo, "127.0.0.1", "");
        check_country(geo, "::1", "");
        check_country(geo, "2001:db8:1::5", v6 ? "FR" : "");
        check_country(geo, "2001:db8:2:ffff::", v6 ? "ES" : "");
        check_country(geo, "2001:db8:3::", "");
        /* What is not two upper-case letters is no country. */
        check_country(geo, "203.0.113.8", "");
        check_country(geo, "203.0.113.9", "");
        check_country(geo, "203.0.113.10", "");
        check_country(geo, "203.0.113.11", "");
        assert_true(geo_build_unix_s(geo) > 1700000000);
        assert_true(str_starts(geo_type(geo), STR("Test-")));
        geo_unref(&geo);
        assert_null(geo);
    }
}

static void counted_and_told_apart(void **state)
{
    struct geo *a = open_file(databases[0]), *b = open_file(databases[1]), *more = geo_ref(a);

    (void)state;
    assert_int_not_equal(geo_serial(a), geo_serial(b));
    assert_int_not_equal(geo_serial(a), 0);
    geo_unref(&a);
    check_country(more, "192.0.2.1", "SE");
    geo_unref(&more);
    geo_unref(&b);
    geo_unref(&b); /* NULL by now */
}

static void refused(const void *bytes, size_t n, const char *expected)
{
    char error[GEO_ERROR_BYTES] = "";
    int fd = fd_of(bytes, n);
    struct geo *geo = (struct geo *)(uintptr_t)1;

    assert_int_equal(geo_open(fd, &geo, error), -EINVAL);
    assert_null(geo);
    if (strstr(error, expected) == NULL)
        fail_msg("got \"%s\", expected \"%s\"", error, expected);
    close(fd);
}

static void no_database(void **state)
{
    size_t n;
    char *asn = read_file("tests/geo/asn.mmdb", &n), error[GEO_ERROR_BYTES];
    static const char marker[] = "\xab\xcd\xefMaxMind.com";
    struct geo *geo;

    (void)state;
    refused(asn, n, "holds no countries");
    refused("", 0, "no MaxMind DB");
    refused("country,code\n", 13, "no MaxMind DB");
    refused(marker, sizeof marker - 1, "no MaxMind DB");
    refused("\xab\xcd\xefMaxMind.com\xe0", 15, "cannot be opened");
    free(asn);
    assert_true(geo_open(-1, &geo, error) < 0);
}

/* The file is ours no longer once it is open: what happens to it then reaches nobody. */
static void overwritten_and_truncated(void **state)
{
    size_t n;
    char *bytes = read_file(databases[0], &n), error[GEO_ERROR_BYTES];
    int fd = fd_of(bytes, n);
    struct geo *geo;

    (void)state;
    assert_int_equal(geo_open(fd, &geo, error), 0);
    memset(bytes, 0xff, n);
    assert_int_equal(pwrite(fd, bytes, n, 0), (ssize_t)n);
    check_country(geo, "192.0.2.200", "NO");
    assert_int_equal(ftruncate(fd, 0), 0);
    check_country(geo, "192.0.2.200", "NO");
    geo_unref(&geo);
    close(fd);
    free(bytes);
}

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Whatever is taken must answer every question without harm, and with a country or none. */
static bool try_damaged(const char *bytes, size_t n, uint64_t *random)
{
    static const char *const asked[] = {"192.0.2.1",    "192.0.2.200",   "198.51.100.1", "203.0.113.7",
                                        "203.0.113.10", "2001:db8:1::1", "::",           "255.255.255.255"};
    char error[GEO_ERROR_BYTES] = "", country[2];
    struct geo *geo;
    struct ip ip;
    int fd = fd_of(bytes, n), code = geo_open(fd, &geo, error);

    close(fd);
    if (code != 0) {
        assert_null(geo);
        assert_true(error[0] != '\0');
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(asked) + 32; i++) {
        if (i < ARRAY_LEN(asked))
            assert_int_equal(ip_parse(str_z(asked[i]), &ip), 0);
        else
            for (unsigned k = 0; k < 16; k++)
                ip.bytes[k] = (uint8_t)random_next(random);
        if (geo_country(geo, &ip, country))
            assert_true(country[0] >= 'A' && country[0] <= 'Z' && country[1] >= 'A' && country[1] <= 'Z');
        else
            assert_true(country[0] == '\0' && country[1] == '\0');
    }
    geo_unref(&geo);
    return true;
}

static void truncated_anywhere(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(databases); i++) {
        size_t n;
        char *bytes = read_file(databases[i], &n);

        for (size_t keep = 0; keep < n; keep++)
            if (try_damaged(bytes, keep, &random))
                fail_msg("%s: %zu of %zu bytes were taken for a database", databases[i], keep, n);
        /* And with its begin lost. */
        for (size_t skip = 1; skip < n; skip += 7)
            (void)try_damaged(bytes + skip, n - skip, &random);
        assert_true(try_damaged(bytes, n, &random));
        free(bytes);
    }
}

static void every_bit_flipped(void **state)
{
    unsigned taken = 0, tried = 0;
    uint64_t random = 2;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(databases); i++) {
        size_t n;
        char *bytes = read_file(databases[i], &n);

        for (size_t bit = 0; bit < 8 * n; bit += i == 0 ? 1 : 3) {
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            taken += try_damaged(bytes, n, &random);
            tried++;
            bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        for (unsigned round = 0; round < 2000; round++) {
            char *copy = exact_copy(bytes, n);
            unsigned count = 1 + (unsigned)(random_next(&random) % 16);

            for (unsigned k = 0; k < count; k++)
                copy[random_next(&random) % n] = (char)random_next(&random);
            (void)try_damaged(copy, n, &random);
            free(copy);
        }
        free(bytes);
    }
    assert_true(taken > 0 && taken < tried); /* a letter turned into another is no damage that shows */
}

/* --- values --- */

static bool good_value(const char *bytes, size_t n)
{
    char *exact = exact_copy(bytes, n);
    struct geo_check check;
    bool good;

    assert_int_equal(geo_check_init(&check, (const uint8_t *)exact, n), 0);
    good = geo_check_value(&check, 0);
    geo_check_free(&check);
    free(exact);
    return good;
}

#define GOOD(literal) assert_true(good_value(literal, sizeof(literal) - 1))
#define BAD(literal)  assert_false(good_value(literal, sizeof(literal) - 1))

static void whole_values(void **state)
{
    (void)state;
    GOOD("\x42SE");
    GOOD("\xe1\x42"
         "ab\x42SE");
    GOOD("\xe0");
    GOOD("\x02\x04\x42zz\x42yy"); /* an array of two */
    GOOD("\x01\x07");             /* true */
    GOOD("\xe1\x41"
         "a\x20\x05\x42SE"); /* a pointer to what follows */
    GOOD("\xe1\x41"
         "a\x20\x00"); /* to itself: judged once */
    BAD("");
    BAD("\x42S");
    BAD("\x5d");         /* its size is missing */
    BAD("\x5d\x01xxxx"); /* 30 bytes announced */
    BAD("\xe1\x42"
        "ab");                   /* a key without its value */
    BAD("\xe1\xa1\x01\x42SE");   /* a key that is a number */
    BAD("\xa3\x01\x01\x01");     /* uint16 of three bytes */
    BAD("\x00\x06");             /* the end marker */
    BAD("\x00\x05");             /* a data cache container */
    BAD("\x00\xff");             /* no such type */
    BAD("\x20\x00");             /* a pointer to a pointer */
    BAD("\x20\x09");             /* out of the section */
    BAD("\xff\xff\xff\xff\x42"); /* a map of 16 million entries in one byte */
    BAD("\x38\xff\xff\xff\xff");
}

/* The library would go as deep as the file says; this one does not. */
static void nested_too_deep(void **state)
{
    static char deep[2 * 100000 + 1];

    (void)state;
    for (size_t i = 0; i + 1 < sizeof deep; i += 2) {
        deep[i] = 0x01; /* an array of one ... */
        deep[i + 1] = 0x04;
    }
    deep[sizeof deep - 1] = 0x40;
    assert_false(good_value(deep, sizeof deep));
    assert_true(
        good_value(deep + sizeof deep - 1 - 2 * (size_t)GEO_DEPTH_MAX, 2 * (size_t)GEO_DEPTH_MAX + 1));
    assert_false(good_value(deep + sizeof deep - 1 - 2 * (size_t)(GEO_DEPTH_MAX + 1),
                            2 * (size_t)(GEO_DEPTH_MAX + 1) + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_shapes_and_every_record_size),
        cmocka_unit_test(counted_and_told_apart),
        cmocka_unit_test(no_database),
        cmocka_unit_test(overwritten_and_truncated),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(every_bit_flipped),
        cmocka_unit_test(whole_values),
        cmocka_unit_test(nested_too_deep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
