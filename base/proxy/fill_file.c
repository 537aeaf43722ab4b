/* An origin that is a folder. Regular files below it and nothing else: the kernel resolves the name beneath
 * the folder (openat2 with RESOLVE_BENEATH), so that no "..", no absolute name and no symlink leads out. The
 * answer is rendered as an HTTP head and understood like that of any origin, so both kinds of origin behave
 * alike. */
#include "http/date.h"
#include "http/range.h"
#include "proxy/fill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { PHASE_BEGIN, PHASE_DIR, PHASE_OPEN, PHASE_STAT, PHASE_READ, PHASE_CHECK };

#define HEAD_BYTES 512

static const struct {
    struct str extension, type;
} types[] = {
    {STR_INIT("ogg"), STR_INIT("audio/ogg")},
    {STR_INIT("oga"), STR_INIT("audio/ogg")},
    {STR_INIT("opus"), STR_INIT("audio/ogg")},
    {STR_INIT("mp3"), STR_INIT("audio/mpeg")},
    {STR_INIT("m4a"), STR_INIT("audio/mp4")},
    {STR_INIT("m4s"), STR_INIT("audio/mp4")},
    {STR_INIT("mp4"), STR_INIT("audio/mp4")},
    {STR_INIT("aac"), STR_INIT("audio/aac")},
    {STR_INIT("flac"), STR_INIT("audio/flac")},
    {STR_INIT("wav"), STR_INIT("audio/wav")},
    {STR_INIT("m3u8"), STR_INIT("application/vnd.apple.mpegurl")},
    {STR_INIT("mpd"), STR_INIT("application/dash+xml")},
    {STR_INIT("ts"), STR_INIT("video/mp2t")},
    {STR_INIT("jpg"), STR_INIT("image/jpeg")},
    {STR_INIT("jpeg"), STR_INIT("image/jpeg")},
    {STR_INIT("png"), STR_INIT("image/png")},
    {STR_INIT("webp"), STR_INIT("image/webp")},
    {STR_INIT("svg"), STR_INIT("image/svg+xml")},
    {STR_INIT("json"), STR_INIT("application/json")},
    {STR_INIT("html"), STR_INIT("text/html; charset=utf-8")},
    {STR_INIT("js"), STR_INIT("text/javascript; charset=utf-8")},
    {STR_INIT("css"), STR_INIT("text/css; charset=utf-8")},
    {STR_INIT("txt"), STR_INIT("text/plain; charset=utf-8")},
};

static struct str type_of(struct str path)
{
    const char *dot = memrchr(path.p, '.', path.n);

    if (dot != NULL) {
        struct str extension = str_of(dot + 1, (size_t)(path.p + path.n - dot) - 1);

        for (size_t i = 0; i < ARRAY_LEN(types); i++)
            if (str_eq_nocase(extension, types[i].extension))
                return types[i].type;
    }
    return STR("application/octet-stream");
}

static unsigned hex(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A') + 10;
}

/* The canonical path has upper-case escapes, and none of '/', NUL or a dot segment. */
static char *name_of(struct str path)
{
    char *name = malloc(path.n + 1);
    size_t n = 0;

    if (name == NULL)
        return NULL;
    for (size_t i = 1; i < path.n; i++) {
        if (path.p[i] == '%') {
            name[n++] = (char)(hex(path.p[i + 1]) << 4 | hex(path.p[i + 2]));
            i += 2;
        } else {
            name[n++] = path.p[i];
        }
    }
    name[n] = '\0';
    return name;
}

static enum flow_result answer_with(struct fill *f, struct buf *b)
{
    http1_add_head_end(b);
    CHECK(!b->overflow);
    f->head_n = b->n;
    CHECK(http1_parse_response(f->head, f->head_n, f->method == HTTP_HEAD, &f->response) == (int)b->n);
    return fill_head_complete(f);
}

static bool head_room(struct fill *f, struct buf *b)
{
    free(f->head);
    f->head_cap = HEAD_BYTES;
    f->head = malloc(f->head_cap);
    *b = buf_of(f->head, f->head_cap);
    return f->head != NULL;
}

static enum flow_result answer_status(struct fill *f, unsigned status)
{
    struct buf b;

    if (!head_room(f, &b))
        return fill_drop(f, false, 503, "out of memory");
    http1_add_status_line(&b, status);
    buf_add_lit(&b, "Content-Length: 0\r\n");
    return answer_with(f, &b);
}

static enum flow_result open_failed(struct fill *f, int error)
{
    switch (-error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EXDEV: /* it leads out of the folder */
    case ENAMETOOLONG:
    case ENXIO: /* a FIFO or socket */
    case EINVAL:
        return answer_status(f, 404);
    case EACCES:
    case EPERM:
        return answer_status(f, 403);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return fill_drop(f, false, 503, "the file cannot be opened now");
    default:
        return fill_drop(f, false, 502, "the file cannot be opened");
    }
}

static void add_validators(const struct fill *f, struct buf *b)
{
    const struct statx *s = &f->stat;
    char date[DATE_BYTES];

    date_format(s->stx_mtime.tv_sec, date);
    buf_printf(b, "ETag: \"%llx.%x-%llx\"\r\nLast-Modified: %.*s\r\n",
               (unsigned long long)s->stx_mtime.tv_sec, s->stx_mtime.tv_nsec, (unsigned long long)s->stx_size,
               DATE_BYTES, date);
    http1_add_field(b, STR("Date"), worker_date(f->worker));
}

static bool is_unchanged(const struct fill *f, const struct buf *b)
{
    struct str etag = f->revalidate != NULL ? object_etag(f->revalidate) : STR_NONE;

    return etag.n > 0 && memmem(b->p, b->n, etag.p, etag.n) != NULL;
}

static enum flow_result answer_file(struct fill *f)
{
    uint64_t size = f->stat.stx_size, first = (uint64_t)flight_slice(f->flight) * CACHE_SLICE_BYTES, last;
    struct buf b;

    f->asked_range = f->cacheable && size > 0;
    if (!head_room(f, &b))
        return fill_drop(f, false, 503, "out of memory");
    add_validators(f, &b);
    if (is_unchanged(f, &b)) {
        b.n = 0;
        http1_add_status_line(&b, 304);
        add_validators(f, &b);
        return answer_with(f, &b);
    }
    b.n = 0;
    if (f->asked_range && first >= size) {
        http1_add_status_line(&b, 416);
        buf_add_lit(&b, "Content-Length: 0\r\nContent-Range: ");
        content_range_unsatisfied_add(&b, size);
        buf_add_lit(&b, "\r\n");
        return answer_with(f, &b);
    }
    if (!f->asked_range)
        first = 0;
    last = f->asked_range && size - first > CACHE_SLICE_BYTES ? first + CACHE_SLICE_BYTES - 1 : size - 1;
    http1_add_status_line(&b, f->asked_range ? 206 : 200);
    http1_add_field_u64(&b, STR("Content-Length"), size == 0 ? 0 : last - first + 1);
    if (f->asked_range) {
        buf_add_lit(&b, "Content-Range: ");
        content_range_add(&b, (struct range){first, last}, size);
        buf_add_lit(&b, "\r\n");
    }
    http1_add_field(&b, STR("Content-Type"), type_of(f->path));
    add_validators(f, &b);
    f->file_at = first;
    f->stat_before = f->stat;
    return answer_with(f, &b);
}

static void open_file(struct fill *f)
{
    f->how = (struct open_how){.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                               .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    io_openat2(f->worker->io, &f->op, &f->flow, f->dir_fd, f->file_name, &f->how);
    f->file_phase = PHASE_OPEN;
}

enum flow_result fill_file_step(struct flow *flow)
{
    struct fill *f = CONTAINER_OF(flow, struct fill, flow);
    struct io *io = f->worker->io;
    int result = 0;

    if (f->file_phase == PHASE_BEGIN) {
        if (f->method != HTTP_GET && f->method != HTTP_HEAD)
            return answer_status(f, 405);
        if (f->path.p[f->path.n - 1] == '/')
            return answer_status(f, 404); /* a folder, of which no list is given */
        f->file_name = name_of(f->path);
        if (f->file_name == NULL)
            return fill_drop(f, false, 503, "out of memory");
        f->how = (struct open_how){.flags = O_PATH | O_DIRECTORY | O_CLOEXEC};
        io_openat2(io, &f->op, flow, AT_FDCWD, f->upstream->conf->path.p, &f->how);
        f->file_phase = PHASE_DIR;
        return FLOW_WAIT;
    }
    if (!io_op_take(&f->op, &result))
        return FLOW_WAIT;
    switch (f->file_phase) {
    case PHASE_DIR:
        if (result < 0)
            return fill_drop(f, false, 502, "the origin's folder cannot be opened");
        f->dir_fd = result;
        open_file(f);
        return FLOW_WAIT;
    case PHASE_OPEN:
        if (result < 0)
            return open_failed(f, result);
        f->file_fd = result;
        io_statx(io, &f->op, flow, f->file_fd, &f->stat);
        f->file_phase = PHASE_STAT;
        return FLOW_WAIT;
    default:
        break;
    }
    CHECK(f->file_phase == PHASE_STAT);
    f->file_phase = PHASE_READ;
    if (result < 0)
        return fill_drop(f, false, 502, "the file's state cannot be read");
    return S_ISREG(f->stat.stx_mode) ? answer_file(f) : answer_status(f, 404);
}

/* A file that was written to while it was read may have given bytes of two versions. */
static bool has_changed(const struct fill *f)
{
    const struct statx *a = &f->stat_before, *b = &f->stat;

    return a->stx_size != b->stx_size || a->stx_mtime.tv_sec != b->stx_mtime.tv_sec ||
           a->stx_mtime.tv_nsec != b->stx_mtime.tv_nsec || a->stx_ino != b->stx_ino;
}

enum flow_result fill_file_body_step(struct flow *flow)
{
    struct fill *f = CONTAINER_OF(flow, struct fill, flow);
    struct io *io = f->worker->io;
    size_t room;
    char *to;
    int result;

    io_timer_cancel(io, &f->timer); /* a disk has no time limit; its errors come by themselves */
    if (flight_deserted(f->flight))
        return fill_drop(f, false, 502, "nobody reads any more");
    if (f->response.framing != HTTP_BODY_LENGTH || f->response.content_length == 0)
        return fill_whole(f, false);
    if (f->op.in_flight)
        return FLOW_WAIT;
    if (flight_deserted(f->flight))
        return fill_drop(f, false, 502, "nobody reads any more");
    if (io_op_take(&f->op, &result)) {
        if (f->file_phase == PHASE_CHECK) {
            if (result < 0 || has_changed(f))
                return fill_drop(f, false, 502, "the file changed while it was read");
            flight_wrote(f->flight, f->file_last_n);
            return fill_whole(f, false);
        }
        if (result <= 0)
            return fill_drop(f, false, 502, "the file could not be read");
        f->file_at += (uint64_t)result;
        f->body_left -= (uint64_t)result;
        stat_add(&f->worker->stats.upstream_bytes, (uint64_t)result);
        if (f->body_left > 0)
            flight_wrote(f->flight, (size_t)result);
        else
            f->file_last_n = (size_t)result; /* held back until the check has passed */
    }
    if (f->body_left == 0) {
        io_statx(io, &f->op, flow, f->file_fd, &f->stat);
        f->file_phase = PHASE_CHECK;
        return FLOW_WAIT;
    }
    to = flight_room(f->flight, &room);
    if (room == 0)
        return fill_no_room(f);
    if (room > f->body_left)
        room = (size_t)f->body_left;
    io_read(io, &f->op, flow, f->file_fd, to, room, f->file_at);
    return FLOW_WAIT;
}

void fill_file_close(struct fill *f)
{
    if (f->file_fd >= 0)
        io_close(f->worker->io, f->file_fd);
    if (f->dir_fd >= 0)
        io_close(f->worker->io, f->dir_fd);
    f->file_fd = f->dir_fd = -1;
    f->file_phase = PHASE_BEGIN;
    free(TAKE(&f->file_name));
}
