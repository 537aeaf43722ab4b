/* Secrets of a configuration are nowhere in memory once it is freed, and a signing key's not even before: what the
 * process can write is searched through /proc/self/mem.
 *
 * The secrets are made by a child, so that this process never has them but through what it loads; it knows them by
 * their bytes' differences from a mask. */
#include "../unit.h"

#include "http/signed_url.h"
#include "proxy/proxy_conf.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MASK       0x55
#define CHUNK      (1u << 20)
#define REGION_MAX (1ull << 30) /* larger is what sanitizers set apart */

/* 24 bytes each, masked. The key as base64 text is what the file has; decoded it is 18 bytes. */
static const char token_masked[] = {'t' ^ MASK, 'O' ^ MASK, 'k' ^ MASK, 'E' ^ MASK, 'n' ^ MASK, '-' ^ MASK,
                                    'm' ^ MASK, 'A' ^ MASK, 'r' ^ MASK, 'K' ^ MASK, 'e' ^ MASK, 'R' ^ MASK,
                                    '-' ^ MASK, '7' ^ MASK, '1' ^ MASK, '9' ^ MASK, '3' ^ MASK, 'q' ^ MASK,
                                    'z' ^ MASK, 'w' ^ MASK, 'x' ^ MASK, 'p' ^ MASK, 'v' ^ MASK, 'y' ^ MASK};
static const char key_masked[] = {'Q' ^ MASK, '8' ^ MASK, 'z' ^ MASK, 'V' ^ MASK, 'k' ^ MASK, '2' ^ MASK,
                                  'x' ^ MASK, 'W' ^ MASK, 'p' ^ MASK, 'T' ^ MASK, '7' ^ MASK, 'r' ^ MASK,
                                  'J' ^ MASK, 'm' ^ MASK, '4' ^ MASK, 'b' ^ MASK, 'H' ^ MASK, '9' ^ MASK,
                                  'f' ^ MASK, 'N' ^ MASK, 'c' ^ MASK, '3' ^ MASK, 'L' ^ MASK, 's' ^ MASK};
static char raw_key_masked[18];

static char folder[] = "/tmp/segue-test-secrets-XXXXXX";

static void write_file(const char *name, const char *before, const char *masked, size_t n, const char *after)
{
    FILE *f = fopen(name, "w");

    if (f == NULL || chmod(name, 0600) != 0)
        _exit(1);
    (void)fputs(before, f);
    for (size_t i = 0; i < n; i++)
        (void)fputc(masked[i] ^ MASK, f);
    (void)fputs(after, f);
    if (fclose(f) != 0)
        _exit(1);
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Never holds more than one group of the decoded key. */
static void decode_masked(void)
{
    for (size_t i = 0; i < sizeof key_masked; i += 4) {
        uint32_t bits = 0;

        for (size_t k = 0; k < 4; k++)
            bits = bits << 6 | (uint32_t)(strchr(alphabet, key_masked[i + k] ^ MASK) - alphabet);
        for (size_t k = 0; k < 3; k++)
            raw_key_masked[i / 4 * 3 + k] = (char)((bits >> (16 - 8 * k) & 0xff) ^ MASK);
    }
}

static int setup(void **state)
{
    int status;
    pid_t child;

    (void)state;
    if (mkdtemp(folder) == NULL || chdir(folder) != 0)
        return -1;
    decode_masked();
    child = fork();
    if (child == 0) {
        write_file("token", "", token_masked, sizeof token_masked, "\n");
        write_file("keys.yaml", "# a comment\nkeys:\n  - {kid: k1, secret: ", key_masked, sizeof key_masked,
                   "}\n  - {kid: k2, secret: c2VndWUtdGVzdC1rZXktb25lLTAxMjM0NTY3ODlhYmM=}\n");
        write_file("quoted.yaml", "keys: [{kid: k1, secret: \"", key_masked, sizeof key_masked, "\"}]\n");
        write_file("bad.yaml", "keys: [{kid: k1, secret: ", key_masked, sizeof key_masked, "}, {kid: k1}]\n");
        write_file("invalid.yaml", "keys: [{kid: k1, secret: ", key_masked, sizeof key_masked, "\n");
        write_file("not-base64.yaml", "keys: [{kid: k1, secret: ", key_masked, sizeof key_masked, "!}]\n");
        write_file("unknown.yaml", "keys: [{kid: k1, secrets: ", key_masked, sizeof key_masked, "}]\n");
        _exit(0);
    }
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    static const char *const names[] = {"token",        "keys.yaml",       "quoted.yaml",  "bad.yaml",
                                        "invalid.yaml", "not-base64.yaml", "unknown.yaml", "x.yaml"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)unlink(names[i]);
    return chdir("/") != 0 || rmdir(folder) != 0;
}

/* --- the search --- */

static char chunk[CHUNK + 64];

static unsigned in_chunk(size_t n, const char *masked, size_t masked_n)
{
    unsigned found = 0;

    for (size_t i = 0; i + masked_n <= n; i++) {
        size_t k = 0;

        while (k < masked_n && (chunk[i + k] ^ MASK) == masked[k])
            k++;
        found += k == masked_n;
    }
    return found;
}

static unsigned in_region(int fd, uint64_t from, uint64_t to, const char *masked, size_t masked_n)
{
    unsigned found = 0;

    for (uint64_t at = from; at < to; at += CHUNK) {
        size_t want = to - at < sizeof chunk ? (size_t)(to - at) : sizeof chunk;
        ssize_t got;

        if (at < (uintptr_t)chunk + sizeof chunk && at + want > (uintptr_t)chunk)
            continue; /* this very buffer, and a little around it */
        got = pread(fd, chunk, want, (off_t)at);
        if (got > 0)
            found += in_chunk((size_t)got, masked, masked_n);
    }
    return found;
}

/* How often it stands in what this process can write. */
static unsigned times_in_memory(const char *masked, size_t masked_n)
{
    int fd = open("/proc/self/mem", O_RDONLY);
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned found = 0;

    assert_true(fd >= 0 && maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long long from, to;
        char mode[5];

        assert_int_equal(sscanf(line, "%llx-%llx %4s", &from, &to, mode), 3);
        if (mode[1] == 'w' && to - from <= REGION_MAX)
            found += in_region(fd, from, to, masked, masked_n);
    }
    (void)fclose(maps);
    close(fd);
    explicit_bzero(chunk, sizeof chunk);
    return found;
}

#define TOKEN   times_in_memory(token_masked, sizeof token_masked)
#define KEY     times_in_memory(key_masked, sizeof key_masked)
#define RAW_KEY times_in_memory(raw_key_masked, sizeof raw_key_masked)

/* --- tests --- */

static void the_search_finds(void **state)
{
    char *heap = malloc(4096), stack[sizeof token_masked];

    (void)state;
    assert_non_null(heap);
    assert_int_equal(TOKEN, 0);
    assert_int_equal(KEY, 0);
    assert_int_equal(RAW_KEY, 0);
    for (size_t i = 0; i < sizeof token_masked; i++)
        heap[1001 + i] = (char)(token_masked[i] ^ MASK);
    assert_int_equal(TOKEN, 1);
    memcpy(stack, heap + 1001, sizeof stack);
    __asm__ volatile("" : : "r"(stack) : "memory");
    assert_int_equal(TOKEN, 2);
    explicit_bzero(stack, sizeof stack);
    explicit_bzero(heap, 4096);
    free(heap);
    assert_int_equal(TOKEN, 0);
}

static void write_conf(const char *keys)
{
    FILE *f = fopen("x.yaml", "w");

    assert_non_null(f);
    (void)fprintf(f,
                  "listen: [{address: \"127.0.0.1:80\"}]\n"
                  "admin: {address: \"127.0.0.1:81\", token: token}\n"
                  "upstreams: [{url: \"http://a\", peer_token: token}]\n"
                  "signing: {keys: %s}\n",
                  keys);
    assert_int_equal(fclose(f), 0);
}

static void nothing_is_left(void **state)
{
    static const char *const files[] = {"keys.yaml", "quoted.yaml"};
    struct proxy_conf *conf;
    struct conf_error error;

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(files); i++) { /* as reloads do */
        write_conf(files[i % ARRAY_LEN(files)]);
        assert_int_equal(proxy_conf_load("x.yaml", PROXY_ROLE_EDGE, &conf, &error), 0);
        assert_true(proxy_conf_holds_secrets(conf));
        assert_int_equal(TOKEN, 2); /* the admin's and the upstream's, where they are used */
        assert_int_equal(KEY, 0);
        assert_int_equal(RAW_KEY, 0);
        proxy_conf_free(&conf);
        assert_int_equal(TOKEN, 0);
    }
}

static void nor_after_an_error(void **state)
{
    static const char *const files[] = {"bad.yaml", "invalid.yaml", "not-base64.yaml", "unknown.yaml"};
    struct proxy_conf *conf;
    struct conf_error error;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        write_conf(files[i]);
        assert_true(proxy_conf_load("x.yaml", PROXY_ROLE_EDGE, &conf, &error) < 0);
        if (TOKEN + KEY + RAW_KEY > 0)
            fail_msg("%s: token %u, key %u, decoded %u times in memory; the error is: %s", files[i], TOKEN,
                     KEY, RAW_KEY, error.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_search_finds),
        cmocka_unit_test(nothing_is_left),
        cmocka_unit_test(nor_after_an_error),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
