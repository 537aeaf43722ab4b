#include "../unit.h"

#include "node/process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void guarded_memory_is_not_dumped(void **state)
{
    struct rlimit limit;
    struct process_usage usage;
    int status;
    pid_t child;

    (void)state;
    assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
    process_guard_memory();
    assert_int_equal(getrlimit(RLIMIT_CORE, &limit), 0);
    assert_int_equal(limit.rlim_cur, 0);
    assert_int_equal(limit.rlim_max, 0);
#ifndef __SANITIZE_ADDRESS__
#ifndef __clang__ /* the sanitized build */
    assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
#endif
#endif
    /* It can still tell of itself. */
    process_usage(&usage);
    assert_true(usage.resident_bytes > 0 && usage.open_files >= 3 && usage.threads >= 1);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        abort();
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && !WCOREDUMP(status));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(guarded_memory_is_not_dumped)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
