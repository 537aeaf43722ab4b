#include "node/options.h"

#include "io/io.h"
#include "util/version.h"

#include <openssl/crypto.h>
#include <unistd.h>

static void print_help(FILE *to, const struct options_program *program)
{
    fprintf(to,
            "usage: %s [-c FILE] [-t]\n"
            "%s\n\n"
            "  -c FILE  configuration (%s)\n"
            "  -t       check the configuration and exit\n"
            "  -V       version, TLS library and io_uring features\n"
            "  -h       this help\n",
            program->name, program->purpose, program->default_path);
}

void options_print_version(FILE *to, const char *name)
{
    const struct io_options small = {.entries = 8, .receive_buffers = 8, .receive_buffer_bytes = 4096};
    const char *error_text = NULL;
    struct io *io = NULL;

    fprintf(to, "%s %s (%s)\n", name, SEGUE_VERSION, SEGUE_COMMIT);
    fprintf(to, "TLS: %s\n", OpenSSL_version(OPENSSL_VERSION));
    if (io_create(&io, &small, &error_text) != 0) {
        fprintf(to, "io_uring: %s\n", error_text ? error_text : "cannot be set up");
        return;
    }
    fprintf(to, "io_uring: %s\n", io_describe(io));
    io_destroy(&io);
}

int options_parse(int argc, char **argv, const struct options_program *program, struct options *out)
{
    int letter;

    *out = (struct options){.config_path = program->default_path};
    optind = 1;
    while ((letter = getopt(argc, argv, "c:tVh")) != -1) {
        switch (letter) {
        case 'c':
            out->config_path = optarg;
            break;
        case 't':
            out->check_only = true;
            break;
        case 'V':
            options_print_version(stdout, program->name);
            return 0;
        case 'h':
            print_help(stdout, program);
            return 0;
        default:
            print_help(stderr, program);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument '%s'\n", program->name, argv[optind]);
        print_help(stderr, program);
        return 2;
    }
    return -1;
}
