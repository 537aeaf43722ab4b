/* segue-edge: the client-facing tier. What it does beyond base/proxy (TLS, HTTP/2, geo, rate limits) will
 * stand beside this file. */
#include "proxy/program.h"

/* Read by jemalloc at start. Bodies are long-lived and large: huge pages save TLB misses when they are sent.
 */
extern const char *malloc_conf;
const char *malloc_conf = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";

int main(int argc, char **argv)
{
    static const struct program program = {
        .options = {.name = "segue-edge",
                    .purpose = "caching reverse proxy for audio, with signed URLs",
                    .default_path = "/etc/segue/edge.yaml"},
        .role = PROXY_ROLE_EDGE,
    };

    return program_run(&program, argc, argv);
}
