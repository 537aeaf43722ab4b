#include "util/conf.h"

#include "util/buf.h"
#include "util/check.h"
#include "util/conf_node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET_TEXT_MIN 16

/* ---- Errors ---- */

static void error_vset(struct conf_error *error, const char *name, unsigned line, const char *path,
                       const char *format, va_list args)
{
    if (error->text[0] != '\0')
        return;
    struct buf b = buf_of(error->text, sizeof(error->text) - 1);
    buf_printf(&b, "%.400s:", name);
    if (line > 0)
        buf_printf(&b, "%u:", line);
    if (path != NULL)
        buf_printf(&b, " %.*s:", CONF_PATH_BYTES_MAX, path);
    buf_add_char(&b, ' ');
    vsnprintf(b.p + b.n, b.cap - b.n + 1, format, args);
    /* What the file holds is quoted in errors, and may not forge lines or steer a terminal. */
    for (char *p = error->text; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

static void error_set(struct conf_error *error, const char *name, unsigned line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void error_set(struct conf_error *error, const char *name, unsigned line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_vset(error, name, line, NULL, format, args);
    va_end(args);
}

/* Whoever puts a secret where a name belongs must not find it in a log. A key of 16 bytes has 24 characters. */
static void hide_quoted(char *text)
{
    char *begin = strchr(text, '"');
    while (begin != NULL) {
        char *end = strchr(begin + 1, '"');
        size_t n = end != NULL ? (size_t)(end - begin) - 1 : strlen(begin + 1);
        if (n >= SECRET_TEXT_MIN)
            memset(begin + 1, '*', n);
        begin = end != NULL ? strchr(end + 1, '"') : NULL;
    }
}

int conf_fail(struct conf *conf, const char *path, const char *format, ...)
{
    CHECK_MAGIC(conf, CONF_MAGIC);
    va_list args;
    va_start(args, format);
    error_vset(conf->error, conf->name, path != NULL ? conf_line(conf, path) : 0, path, format, args);
    va_end(args);
    if (conf->flags & CONF_SECRET)
        hide_quoted(conf->error->text);
    return -EINVAL;
}

int conf_fail_at(struct conf *conf, unsigned line, const char *path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_vset(conf->error, conf->name, line, path[0] != '\0' ? path : NULL, format, args);
    va_end(args);
    if (conf->flags & CONF_SECRET)
        hide_quoted(conf->error->text);
    return -EINVAL;
}

int conf_status(const struct conf *conf)
{
    CHECK_MAGIC(conf, CONF_MAGIC);
    return conf->error->text[0] != '\0' ? -EINVAL : 0;
}

/* ---- Files ---- */

static int check_file(int fd, const char *path, unsigned flags, struct conf_error *error)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        int rc = -errno;
        error_set(error, path, 0, "cannot be read: %s", strerror(-rc));
        return rc;
    }
    if (S_ISDIR(st.st_mode)) {
        error_set(error, path, 0, "is a directory, expected a file");
        return -EISDIR;
    }
    if (!S_ISREG(st.st_mode)) {
        error_set(error, path, 0, "is not a regular file");
        return -EINVAL;
    }
    if ((flags & CONF_SECRET) && (st.st_mode & (S_IROTH | S_IWOTH))) {
        error_set(error, path, 0,
                  "holds a secret, but others can %s it (mode %04o); run: chmod 0640 and give it the "
                  "group of the service",
                  (st.st_mode & S_IROTH) ? "read" : "write", (unsigned)st.st_mode & 07777);
        return -EPERM;
    }
    if (st.st_size > CONF_FILE_BYTES_MAX) {
        error_set(error, path, 0, "is %llu bytes large, at most %u are read", (unsigned long long)st.st_size,
                  CONF_FILE_BYTES_MAX);
        return -EFBIG;
    }
    return 0;
}

/* The size is checked again while reading, since a file may grow. */
static int read_all(int fd, const char *path, char **text, size_t *n, struct conf_error *error)
{
    char *p = malloc(CONF_FILE_BYTES_MAX + 1);
    size_t got = 0;
    ssize_t r = p == NULL ? -1 : 1;
    while (r > 0 && got <= CONF_FILE_BYTES_MAX) {
        r = read(fd, p + got, CONF_FILE_BYTES_MAX + 1 - got);
        if (r > 0)
            got += (size_t)r;
        else if (r < 0 && errno == EINTR)
            r = 1;
    }
    if (r < 0 || got > CONF_FILE_BYTES_MAX) {
        int rc = r < 0 ? -errno : -EFBIG;
        error_set(error, path, 0, "cannot be read: %s", strerror(-rc));
        if (p != NULL)
            explicit_bzero(p, got);
        free(p);
        return rc;
    }
    *text = p;
    *n = got;
    return 0;
}

static int read_file(const char *path, unsigned flags, char **text, size_t *n, struct conf_error *error)
{
    /* O_NONBLOCK: a FIFO must not hold up a start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int rc = -errno;
        error_set(error, path, 0, "cannot be opened: %s", strerror(-rc));
        return rc;
    }
    int rc = check_file(fd, path, flags, error);
    if (rc == 0)
        rc = read_all(fd, path, text, n, error);
    close(fd);
    return rc;
}

int conf_read_token(const char *path, char *out, size_t cap, size_t *n, struct conf_error *error)
{
    char *text = NULL;
    size_t text_n = 0;
    error->text[0] = '\0';
    int rc = read_file(path, CONF_SECRET, &text, &text_n, error);
    if (rc < 0)
        return rc;
    CHECK(text != NULL);

    const char *newline = memchr(text, '\n', text_n);
    struct str token = str_of(text, newline != NULL ? (size_t)(newline - text) : text_n);
    if (token.n > 0 && token.p[token.n - 1] == '\r')
        token.n--;
    token = str_trim_ows(token);
    bool visible = true;
    for (size_t i = 0; i < token.n; i++)
        visible = visible && token.p[i] > 0x20 && token.p[i] < 0x7f;
    if (token.n < 16 || token.n > 512 || token.n > cap || !visible) {
        error_set(error, path, 1, "expected a token of 16 to 512 visible ASCII characters on the first line");
        rc = -EINVAL;
    } else {
        memcpy(out, token.p, token.n);
        *n = token.n;
    }
    explicit_bzero(text, text_n);
    free(text);
    return rc;
}

/* ---- Text to nodes ---- */

static unsigned line_of_offset(const struct conf *conf, size_t offset)
{
    unsigned line = 1;
    for (size_t i = 0; i < offset && i < conf->text_n; i++)
        line += conf->text[i] == '\n';
    return line;
}

static int check_utf8(struct conf *conf)
{
    struct str text = str_of(conf->text, conf->text_n);
    for (size_t i = 0, step; i < text.n; i += step) {
        step = str_utf8_length(str_skip(text, i));
        if (step == 0) {
            conf_fail_at(conf, line_of_offset(conf, i), "", "is not UTF-8 text (byte 0x%02x)",
                         (unsigned char)text.p[i]);
            return -EILSEQ;
        }
    }
    return 0;
}

static int fail_yaml(struct conf *conf, const yaml_parser_t *parser)
{
    unsigned line = parser->error == YAML_READER_ERROR ? line_of_offset(conf, parser->problem_offset)
                                                       : (unsigned)parser->problem_mark.line + 1;
    if (parser->error == YAML_MEMORY_ERROR)
        return conf_fail_at(conf, 0, "", "out of memory");
    return conf_fail_at(conf, line, "", "is not valid YAML: %s%s%s",
                        parser->problem != NULL ? parser->problem : "unknown error",
                        parser->context != NULL ? " " : "", parser->context != NULL ? parser->context : "");
}

/* Aliases make small files large, anchors are of use only with them, tags change what a value means. */
static int check_event(struct conf *conf, const yaml_event_t *event, unsigned *depth, unsigned *documents)
{
    unsigned line = (unsigned)event->start_mark.line + 1;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1)
            return conf_fail_at(conf, line, "", "a second YAML document begins here, expected only one");
        return 0;
    case YAML_ALIAS_EVENT:
        return conf_fail_at(conf, line, "", "YAML aliases (*name) are not supported");
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        ++*depth;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        ++*depth;
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        --*depth;
        break;
    default:
        break;
    }
    if (anchor != NULL)
        return conf_fail_at(conf, line, "", "YAML anchors (&name) are not supported");
    if (tag != NULL)
        return conf_fail_at(conf, line, "", "YAML tags (!name) are not supported");
    if (*depth > CONF_DEPTH_MAX)
        return conf_fail_at(conf, line, "", "is nested deeper than %d", CONF_DEPTH_MAX);
    return 0;
}

static int check_events(struct conf *conf)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return conf_fail_at(conf, 0, "", "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)conf->text, conf->text_n);
    unsigned depth = 0, documents = 0;
    bool end = false;
    int rc = 0;
    while (rc == 0 && !end) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            rc = fail_yaml(conf, &parser);
            break;
        }
        rc = check_event(conf, &event, &depth, &documents);
        end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return rc;
}

static int load_document(struct conf *conf)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return conf_fail_at(conf, 0, "", "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)conf->text, conf->text_n);
    int rc = 0;
    if (!yaml_parser_load(&parser, &conf->document))
        rc = fail_yaml(conf, &parser);
    else
        conf->has_document = true;
    yaml_parser_delete(&parser);
    if (rc < 0)
        return rc;
    const yaml_node_t *root = yaml_document_get_root_node(&conf->document);
    if (root == NULL)
        return conf_fail_at(conf, 0, "", "is empty, expected keys and values");
    if (root->type != YAML_MAPPING_NODE)
        return conf_fail_at(conf, (unsigned)root->start_mark.line + 1, "",
                            "expected keys and values at the top");
    return 0;
}

static int open_owned(const char *name, char *text, size_t text_n, unsigned flags, struct conf **out,
                      struct conf_error *error)
{
    struct conf *conf = calloc(1, sizeof(*conf));
    char *name_copy = strdup(name);
    if (conf == NULL || name_copy == NULL) {
        free(conf);
        free(name_copy);
        explicit_bzero(text, text_n);
        free(text);
        error_set(error, name, 0, "out of memory");
        return -ENOMEM;
    }
    *conf = (struct conf){.magic = CONF_MAGIC,
                          .flags = flags,
                          .error = error,
                          .name = name_copy,
                          .text = text,
                          .text_n = text_n};
    int rc = check_utf8(conf);
    if (rc == 0)
        rc = check_events(conf);
    if (rc == 0)
        rc = load_document(conf);
    if (rc < 0)
        conf_close(&conf);
    *out = conf;
    return rc;
}

int conf_open(const char *path, unsigned flags, struct conf **out, struct conf_error *error)
{
    char *text = NULL;
    size_t text_n = 0;
    error->text[0] = '\0';
    *out = NULL;
    int rc = read_file(path, flags, &text, &text_n, error);
    if (rc < 0)
        return rc;
    CHECK(text != NULL);
    return open_owned(path, text, text_n, flags, out, error);
}

int conf_open_text(const char *name, struct str text, unsigned flags, struct conf **out,
                   struct conf_error *error)
{
    error->text[0] = '\0';
    *out = NULL;
    if (text.n > CONF_FILE_BYTES_MAX) {
        error_set(error, name, 0, "is %zu bytes large, at most %u are read", text.n, CONF_FILE_BYTES_MAX);
        return -EFBIG;
    }
    char *copy = malloc(text.n + 1);
    if (copy == NULL) {
        error_set(error, name, 0, "out of memory");
        return -ENOMEM;
    }
    if (text.n > 0)
        memcpy(copy, text.p, text.n);
    return open_owned(name, copy, text.n, flags, out, error);
}

void conf_close(struct conf **pconf)
{
    struct conf *conf = TAKE(pconf);
    if (conf == NULL)
        return;
    CHECK_MAGIC(conf, CONF_MAGIC);
    if (conf->has_document)
        yaml_document_delete(&conf->document); /* wiped (conf_memory.c) */
    if (conf->flags & CONF_SECRET)
        explicit_bzero(conf->text, conf->text_n);
    free(conf->text);
    free(conf->name);
    conf->magic = 0;
    free(conf);
}

/* ---- Positions ---- */

yaml_node_t *conf_node(struct conf *conf, int index)
{
    return yaml_document_get_node(&conf->document, index);
}

struct conf_path conf_path_of(const char *format, ...)
{
    struct conf_path path;
    va_list args;
    va_start(args, format);
    vsnprintf(path.text, sizeof(path.text), format, args);
    va_end(args);
    return path;
}

/* Goes one step down from *node: a key, or [index]. *line becomes that of the key or item. */
static bool step_down(struct conf *conf, yaml_node_t **node, const char **path, unsigned *line)
{
    const char *p = *path;
    if (*p == '[') {
        char *end;
        unsigned long i = strtoul(p + 1, &end, 10);
        *path = *end == ']' ? end + 1 : end;
        if ((*node)->type != YAML_SEQUENCE_NODE)
            return false;
        const yaml_node_item_t *start = (*node)->data.sequence.items.start;
        if (i >= (size_t)((*node)->data.sequence.items.top - start))
            return false;
        *node = conf_node(conf, start[i]);
        *line = (unsigned)(*node)->start_mark.line + 1;
        return true;
    }
    p += *p == '.';
    struct str key = str_of(p, strcspn(p, ".["));
    *path = p + key.n;
    if ((*node)->type != YAML_MAPPING_NODE)
        return false;
    const yaml_node_pair_t *pair = (*node)->data.mapping.pairs.start;
    for (; pair < (*node)->data.mapping.pairs.top; pair++) {
        const yaml_node_t *k = conf_node(conf, pair->key);
        if (k->type == YAML_SCALAR_NODE && str_eq(conf_scalar(k), key)) {
            *node = conf_node(conf, pair->value);
            *line = (unsigned)k->start_mark.line + 1;
            return true;
        }
    }
    return false;
}

/* The node at a path, or NULL; *line is then that of the nearest parent. */
static const yaml_node_t *find(const struct conf *const_conf, const char *path, unsigned *line)
{
    struct conf *conf = (struct conf *)const_conf; /* libyaml knows no const */
    CHECK_MAGIC(conf, CONF_MAGIC);
    yaml_node_t *node = yaml_document_get_root_node(&conf->document);
    *line = (unsigned)node->start_mark.line + 1;
    while (*path != '\0')
        if (!step_down(conf, &node, &path, line))
            return NULL;
    return node;
}

bool conf_has(const struct conf *conf, const char *path)
{
    unsigned line;
    return find(conf, path, &line) != NULL;
}

unsigned conf_line(const struct conf *conf, const char *path)
{
    unsigned line;
    find(conf, path, &line);
    return line;
}

const char *conf_scalar_at(const struct conf *conf, const char *path)
{
    unsigned line;
    const yaml_node_t *node = find(conf, path, &line);
    return node != NULL && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

int conf_list_count(const struct conf *conf, const char *path)
{
    unsigned line;
    const yaml_node_t *node = find(conf, path, &line);
    if (node == NULL || node->type != YAML_SEQUENCE_NODE)
        return -1;
    return (int)(node->data.sequence.items.top - node->data.sequence.items.start);
}
