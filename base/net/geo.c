#include "net/geo.h"

#include "net/geo_check.h"
#include "util/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <maxminddb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define GEO_MAGIC 0x47656f21u

struct geo {
    uint32_t magic;
    uint32_t serial;
    _Atomic unsigned refs;
    MMDB_s db;
};

/* --- the copy --- */

static int copy_all(int from, int to, size_t *n)
{
    *n = 0;
    for (;;) {
        ssize_t sent = sendfile(to, from, NULL, 1u << 20);

        if (sent == 0)
            return 0;
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -errno;
        *n += (size_t)sent;
        if (*n > GEO_FILE_BYTES_MAX)
            return -EFBIG;
    }
}

/* MFD_NOEXEC_SEAL, which kernels know from 6.3 on, and may insist on (vm.memfd_noexec). */
#define NEVER_EXECUTED 0x0008u

/* A descriptor of memory that holds what fd does and that nobody can change any more, or -errno. */
static int sealed_copy(int fd, size_t *n)
{
    static const char name[] = "country-database";
    int copy = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | NEVER_EXECUTED), error;

    if (copy < 0 && errno == EINVAL)
        copy = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copy < 0)
        return -errno;
    error = copy_all(fd, copy, n);
    if (error == 0 && fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        error = -errno;
    if (error == 0)
        return copy;
    close(copy);
    return error;
}

/* --- opening --- */

static int fail(char error[GEO_ERROR_BYTES], int code, const char *why)
{
    (void)snprintf(error, GEO_ERROR_BYTES, "%s", why);
    return code;
}

static bool text_at(const MMDB_entry_s *entry, const char *const *path, char country[2])
{
    MMDB_entry_s start = *entry;
    MMDB_entry_data_s data;

    if (MMDB_aget_value(&start, &data, path) != MMDB_SUCCESS || !data.has_data ||
        data.type != MMDB_DATA_TYPE_UTF8_STRING || data.data_size != 2)
        return false;
    for (unsigned i = 0; i < 2; i++)
        if (data.utf8_string[i] < 'A' || data.utf8_string[i] > 'Z')
            return false;
    memcpy(country, data.utf8_string, 2);
    return true;
}

static bool country_of(const MMDB_entry_s *entry, char country[2])
{
    static const char *const nested[] = {"country", "iso_code", NULL}, *const flat[] = {"country_code", NULL};

    return text_at(entry, nested, country) || text_at(entry, flat, country);
}

struct judging {
    const MMDB_s *db;
    struct geo_check *check;
    bool countries;
};

/* A side of a node: another node, nothing, or a place in the data that must hold a whole value. */
static bool judge_side(struct judging *j, uint64_t record, const MMDB_entry_s *entry)
{
    uint32_t nodes = j->db->metadata.node_count;
    char country[2];

    if (record <= nodes)
        return true;
    if (record - nodes < GEO_SEPARATOR_BYTES ||
        !geo_check_value(j->check, record - nodes - GEO_SEPARATOR_BYTES))
        return false;
    j->countries = j->countries || country_of(entry, country);
    return true;
}

static int judge_tree(const MMDB_s *db, struct geo_check *check, char error[GEO_ERROR_BYTES])
{
    struct judging j = {.db = db, .check = check};

    for (uint32_t i = 0; i < db->metadata.node_count; i++) {
        MMDB_search_node_s node;

        if (MMDB_read_node(db, i, &node) != MMDB_SUCCESS ||
            !judge_side(&j, node.left_record, &node.left_record_entry) ||
            !judge_side(&j, node.right_record, &node.right_record_entry)) {
            (void)snprintf(error, GEO_ERROR_BYTES, "is damaged: node %u of its search tree leads to no value",
                           i);
            return -EINVAL;
        }
    }
    if (!j.countries)
        return fail(error, -EINVAL, "holds no countries (neither country.iso_code nor country_code)");
    return 0;
}

/* What the library has made of the metadata must fit the file. */
static int judge(const MMDB_s *db, size_t file_n, char error[GEO_ERROR_BYTES])
{
    uint64_t tree_n = (uint64_t)db->metadata.node_count * db->full_record_byte_size;
    struct geo_check check;
    int result;

    if (db->metadata.node_count == 0 || tree_n + GEO_SEPARATOR_BYTES + db->data_section_size > file_n ||
        (db->metadata.ip_version != 4 && db->metadata.ip_version != 6) ||
        db->data_section != db->file_content + tree_n + GEO_SEPARATOR_BYTES)
        return fail(error, -EINVAL, "is damaged: its metadata do not fit its size");
    if (geo_check_init(&check, db->data_section, db->data_section_size) != 0)
        return fail(error, -ENOMEM, "out of memory");
    result = judge_tree(db, &check, error);
    geo_check_free(&check);
    return result;
}

/* The library opens by name, and reads the metadata at once. */
static int open_copy(int copy, size_t n, MMDB_s *db, char error[GEO_ERROR_BYTES])
{
    char name[32];
    void *bytes = n > 0 ? mmap(NULL, n, PROT_READ, MAP_PRIVATE, copy, 0) : MAP_FAILED;
    bool good = bytes != MAP_FAILED && geo_check_metadata(bytes, n);
    int code;

    if (bytes != MAP_FAILED)
        (void)munmap(bytes, n);
    if (!good)
        return fail(error, -EINVAL, "is no MaxMind DB, or not all of one");
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", copy);
    code = MMDB_open(name, MMDB_MODE_MMAP, db);
    if (code != MMDB_SUCCESS) {
        (void)snprintf(error, GEO_ERROR_BYTES, "cannot be opened: %s", MMDB_strerror(code));
        return -EINVAL;
    }
    code = judge(db, n, error);
    if (code != 0)
        MMDB_close(db);
    return code;
}

int geo_open(int fd, struct geo **out, char error[GEO_ERROR_BYTES])
{
    static _Atomic uint32_t serials;
    struct geo *geo = calloc(1, sizeof *geo);
    size_t n = 0;
    int copy, code;

    *out = NULL;
    if (geo == NULL)
        return fail(error, -ENOMEM, "out of memory");
    copy = sealed_copy(fd, &n);
    if (copy < 0) {
        free(geo);
        return fail(error, copy, copy == -EFBIG ? "is larger than 512 MiB" : strerror(-copy));
    }
    code = open_copy(copy, n, &geo->db, error);
    close(copy);
    if (code != 0) {
        free(geo);
        return code;
    }
    geo->magic = GEO_MAGIC;
    geo->refs = 1;
    do
        geo->serial = atomic_fetch_add(&serials, 1) + 1;
    while (geo->serial == 0);
    *out = geo;
    return 0;
}

struct geo *geo_ref(struct geo *geo)
{
    CHECK_MAGIC(geo, GEO_MAGIC);
    atomic_fetch_add(&geo->refs, 1);
    return geo;
}

void geo_unref(struct geo **pgeo)
{
    struct geo *geo = TAKE(pgeo);

    if (geo == NULL)
        return;
    CHECK_MAGIC(geo, GEO_MAGIC);
    if (atomic_fetch_sub(&geo->refs, 1) != 1)
        return;
    MMDB_close(&geo->db);
    geo->magic = 0;
    free(geo);
}

/* --- asking --- */

bool geo_country(const struct geo *geo, const struct ip *address, char country[2])
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    const struct sockaddr *sa;
    MMDB_lookup_result_s found;
    int error = 0;

    country[0] = country[1] = '\0';
    if (ip_is_ipv4(address)) {
        memcpy(&v4.sin_addr, address->bytes + 12, 4);
        sa = (const struct sockaddr *)&v4;
    } else {
        memcpy(&v6.sin6_addr, address->bytes, 16);
        sa = (const struct sockaddr *)&v6;
    }
    found = MMDB_lookup_sockaddr(&geo->db, sa, &error);
    return error == MMDB_SUCCESS && found.found_entry && country_of(&found.entry, country);
}

uint32_t geo_serial(const struct geo *geo)
{
    return geo->serial;
}

uint64_t geo_build_unix_s(const struct geo *geo)
{
    return geo->db.metadata.build_epoch;
}

struct str geo_type(const struct geo *geo)
{
    return str_z(geo->db.metadata.database_type);
}
