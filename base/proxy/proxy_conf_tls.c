/* TLS of listeners and upstreams: the files are read and the contexts made, so that `-t` finds what is wrong. */
#include "proxy/proxy_conf_raw.h"

#include "util/check.h"

/* Either one pair, or a list of them. Returns how many, 0 after an error. */
static unsigned certificates_of(struct loader *l, const char *path, const struct raw_listen_tls *raw,
                                struct tls_certificate out[PROXY_CERTIFICATES_MAX])
{
    bool one = raw->certificate != NULL || raw->key != NULL;

    if (one == (raw->certificates_count > 0) || (one && (raw->certificate == NULL || raw->key == NULL))) {
        conf_fail(l->conf, path, "expected `certificate` and `key`, or a list of both as `certificates`");
        return 0;
    }
    if (one) {
        out[0] = (struct tls_certificate){load_path(l, raw->certificate).p, load_path(l, raw->key).p};
        return 1;
    }
    for (unsigned i = 0; i < raw->certificates_count; i++)
        out[i] = (struct tls_certificate){load_path(l, raw->certificates[i].certificate).p,
                                          load_path(l, raw->certificates[i].key).p};
    return raw->certificates_count;
}

void load_listen_tls(struct loader *l)
{
    struct proxy_listen *items =
        (struct proxy_listen *)(uintptr_t)l->out->listen; /* ours, and not yet shared */

    for (unsigned i = 0; i < l->out->listen_n; i++) {
        const struct raw_listen *raw = &l->raw->listen[i];
        struct conf_path path = conf_path_of("listen[%u].tls", i);
        struct tls_certificate certificates[PROXY_CERTIFICATES_MAX];
        struct tls_server_options options = {
            .certificates = certificates,
            .client_ca_path = l->out->peers_client_ca.n > 0 ? l->out->peers_client_ca.p : NULL,
        };
        char why[TLS_WHY_BYTES];

        items[i].http2 = raw->http2 != NULL ? *raw->http2 : raw->tls != NULL;
        options.http2 = items[i].http2;
        if (raw->tls == NULL)
            continue;
        options.certificates_n = certificates_of(l, path.text, raw->tls, certificates);
        if (conf_status(l->conf) == 0 && tls_server_create(&options, &items[i].tls, why) != 0)
            conf_fail(l->conf, path.text, "%s", why);
    }
}

void load_upstream_tls(struct loader *l, const char *path, const struct raw_upstream_tls *raw,
                       struct proxy_upstream *out)
{
    static const struct raw_upstream_tls none;
    struct tls_client_options options = {.verify = true};
    struct url_host name;
    char why[TLS_WHY_BYTES];

    out->tls_name = out->host;
    if (raw == NULL)
        raw = &none;
    if (raw->verify != NULL)
        options.verify = *raw->verify;
    if (raw->ca != NULL)
        options.ca_path = load_path(l, raw->ca).p;
    if (raw->certificate != NULL)
        options.certificate_path = load_path(l, raw->certificate).p;
    if (raw->key != NULL)
        options.key_path = load_path(l, raw->key).p;
    l->out->has_tokens = true;
    if (raw->name != NULL) {
        if (url_host_parse(str_z(raw->name), &name) < 0 || name.port != 0)
            conf_fail(l->conf, path, "`name`: expected a host name or an address, got \"%.80s\"", raw->name);
        else
            out->tls_name = load_lower(l, name.name);
    }
    if (!options.verify && raw->ca != NULL)
        conf_fail(l->conf, path, "`ca` means nothing with `verify: false`");
    if ((raw->certificate == NULL) != (raw->key == NULL))
        conf_fail(l->conf, path, "`certificate` and `key` go together");
    if (conf_status(l->conf) == 0 && tls_client_create(&options, &out->tls, why) != 0)
        conf_fail(l->conf, path, "%s", why);
}
