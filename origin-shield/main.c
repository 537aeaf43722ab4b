/* segue-shield: the origin-facing tier. It collapses the misses of all edges into one fetch. Disk tiers will
 * stand beside this file. */
#include "proxy/program.h"

/* Read by jemalloc at start. Bodies are long-lived and large: huge pages save TLB misses when they are sent.
 */
extern const char *malloc_conf;
const char *malloc_conf = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";

int main(int argc, char **argv)
{
    static const struct program program = {
        .options = {.name = "segue-shield",
                    .purpose = "stands between the edges and the origin, and collapses their misses",
                    .default_path = "/etc/segue/shield.yaml"},
        .role = PROXY_ROLE_SHIELD,
    };

    return program_run(&program, argc, argv);
}
