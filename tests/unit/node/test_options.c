#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/options.h"
#include "util/check.h"
#include "util/version.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct options_program program = {
    .name = "segue-test", .purpose = "Tests.", .default_path = "/etc/segue/test.yaml"};

static int parse(struct options *out, int argc, ...)
{
    char *argv[8] = {(char *)(uintptr_t) "segue-test"};
    va_list args;

    va_start(args, argc);
    for (int i = 1; i <= argc; i++)
        argv[i] = va_arg(args, char *);
    va_end(args);
    return options_parse(argc + 1, argv, &program, out);
}

static void what_is_given_is_taken(void **state)
{
    struct options o;

    (void)state;
    assert_int_equal(parse(&o, 0), -1);
    assert_string_equal(o.config_path, "/etc/segue/test.yaml");
    assert_false(o.check_only);
    assert_int_equal(parse(&o, 3, "-t", "-c", "x.yaml"), -1);
    assert_string_equal(o.config_path, "x.yaml");
    assert_true(o.check_only);
}

/* What a call prints to stdout or stderr. */
static char *printed(int fd, const char *option, int *status)
{
    static char text[4096];
    FILE *file = tmpfile();
    int kept = dup(fd);
    struct options o;
    size_t n;

    fflush(NULL);
    assert_int_equal(dup2(fileno(file), fd), fd);
    *status = parse(&o, 1, option);
    fflush(NULL);
    dup2(kept, fd);
    close(kept);
    rewind(file);
    n = fread(text, 1, sizeof text - 1, file);
    text[n] = 0;
    fclose(file);
    return text;
}

static void help_version_and_errors(void **state)
{
    int status;
    char *text;

    (void)state;
    text = printed(STDOUT_FILENO, "-h", &status);
    assert_int_equal(status, 0);
    assert_non_null(strstr(text, "usage: segue-test [-c FILE] [-t]\n"));
    assert_non_null(strstr(text, "/etc/segue/test.yaml"));
    text = printed(STDOUT_FILENO, "-V", &status);
    assert_int_equal(status, 0);
    assert_ptr_equal(strstr(text, "segue-test " SEGUE_VERSION), text);
    assert_non_null(strstr(text, "\nTLS: OpenSSL "));
    assert_non_null(strstr(text, "\nio_uring: "));
    text = printed(STDERR_FILENO, "-x", &status);
    assert_int_equal(status, 2);
    assert_non_null(strstr(text, "usage: "));
    text = printed(STDERR_FILENO, "extra", &status);
    assert_int_equal(status, 2);
    assert_non_null(strstr(text, "'extra'"));
    printed(STDERR_FILENO, "-c", &status);
    assert_int_equal(status, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_given_is_taken),
        cmocka_unit_test(help_version_and_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
