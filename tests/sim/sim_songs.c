#include "sim_songs.h"

#include "sim_internal.h"

#include <stdio.h>

uint64_t sim_song_bytes(const struct sim_song *s, uint64_t version)
{
    return s->grows ? s->bytes + version * 7 % 5000 : s->bytes;
}

void sim_answer_trouble(struct sim_world *w, struct sim_answer *a, bool lies)
{
    static const struct str garbage = STR_INIT("\x16\x03\x01 not HTTP at all\r\n\r\n");
    static const struct str moved =
        STR_INIT("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
    static const struct str unasked = STR_INIT("HTTP/1.1 304 Not Modified\r\nETag: \"other\"\r\n\r\n");

    switch (sim_below(w, lies ? 18 : 16)) {
    case 0:
        a->never = true;
        break;
    case 1:
        a->cut = SIM_CUT_BEFORE_HEAD;
        break;
    case 2:
        a->cut = SIM_CUT_IN_HEAD, a->cut_at = sim_below(w, 150);
        break;
    case 3:
    case 4:
    case 5:
        a->cut = SIM_CUT_IN_BODY, a->cut_at = sim_below(w, a->body_bytes + 1);
        break;
    case 6:
        a->status = 500;
        break;
    case 7:
        a->status = 503, a->fields = "Retry-After: 1\r\n";
        break;
    case 8:
        a->raw = garbage;
        break;
    case 9:
        a->raw = moved;
        break;
    case 10:
        a->raw = unasked;
        break;
    case 11:
        a->head_pad_bytes = 100000;
        break;
    case 16:
        a->length_lie = -(int64_t)sim_below(w, a->body_bytes < 1000 ? a->body_bytes + 1 : 1000);
        break;
    case 17:
        a->length_lie = 1 + (int64_t)sim_below(w, 1000);
        break;
    case 12:
        a->interim_100 = 1, a->interim_103 = 2;
        break;
    case 13:
        a->delay_ns = sim_below(w, 5 * NS_PER_S);
        break;
    case 14:
        a->drip_bytes_per_s = 1 + a->body_bytes / (1 + sim_below(w, 8));
        break;
    default:
        a->status = 404;
        break;
    }
    a->cut_by_close = sim_below(w, 2);
}

void sim_songs_make(struct sim_world *w, const struct sim_net *net, struct sim_song songs[SIM_SONGS])
{
    static const uint64_t sizes[SIM_SONGS] = {0,      1,      4096,   400000, 1048576, 1048577, 3500000,
                                              70000,  20000,  524288, 500000, 500001,  500002,  500003,
                                              300000, 400001, 450000, 480000, 510000,  520000};
    static const char *const fields[] = {"",
                                         "",
                                         "",
                                         "Cache-Control: max-age=2\r\n",
                                         "Cache-Control: private\r\n",
                                         "Cache-Control: no-cache\r\n",
                                         "Cache-Control: no-store\r\n",
                                         "Vary: Accept-Encoding\r\n",
                                         "Cache-Control: max-age=1, stale-while-revalidate=5\r\n"};
    uint64_t segment_max = net->send_buffer_bytes.min == 1 ? 1 : net->segment_bytes.max;

    for (size_t i = 0; i < SIM_SONGS; i++) {
        struct sim_song *s = &songs[i];

        *s = (struct sim_song){
            .bytes = sizes[i], .version = 1, .etag = true, .fields = fields[sim_below(w, ARRAY_LEN(fields))]};
        if (segment_max < 1460 && s->bytes > 20000) /* segments or buffers of a byte would only take long */
            s->bytes = s->bytes % 5000;
        else if (segment_max == 1460 && s->bytes > 1048577)
            s->bytes = 1048577 + 5000;
        if (i >= 9) /* to fill the smallest tier */
            s->fields = i % 2 ? "Cache-Control: max-age=60\r\n" : "";
        s->passed = i == 7 && sim_below(w, 2);
        s->is_signed = i == 8;
        s->grows = sim_below(w, 3) == 0;
        switch (sim_below(w, 8)) {
        case 0:
            s->chunked = true;
            break;
        case 1:
            s->no_ranges = true;
            break;
        case 2:
            s->by_close = true;
            break;
        default:
            break;
        }
        snprintf(s->path, sizeof s->path, "/%s/%zu", s->passed ? "p" : s->is_signed ? "s" : "o", i);
    }
}
