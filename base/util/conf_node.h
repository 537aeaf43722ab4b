/* What conf.c and conf_schema.c share: the open file and its nodes. Nobody else includes this. */
#pragma once

#include "util/conf.h"

#include <yaml.h>

struct conf {
    uint32_t magic;
    unsigned flags;
    struct conf_error *error; /* the caller's */
    char *name;               /* of the file, as it was given */
    char *text;
    size_t text_n;
    bool has_document;
    yaml_document_t document;
};

#define CONF_MAGIC 0x636f6e66 /* "conf" */

yaml_node_t *conf_node(struct conf *conf, int index);

static inline struct str conf_scalar(const yaml_node_t *node)
{
    return str_of((const char *)node->data.scalar.value, node->data.scalar.length);
}

/* For libcyaml, which would leave secrets in freed memory (conf_memory.c). */
void *conf_wiping_memory(void *context, void *p, size_t n);

/* As conf_fail, at a line that is known. */
int conf_fail_at(struct conf *conf, unsigned line, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
