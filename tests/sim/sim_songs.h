/* What random worlds ask for: songs of all sizes and kinds, that change, and what may go wrong with an answer. */
#pragma once

#include "sim_http.h"

#define SIM_SONGS 20u

struct sim_song {
    char path[24];
    uint64_t bytes; /* of version 1; later ones differ a little where `grows` */
    uint64_t version;
    const char *fields;
    bool grows, etag, chunked, no_ranges, by_close, passed, is_signed;
};

/* As the world's segments and buffers allow: what would only take long is shorter. Paths begin with /o/, or /p/ where they
 * are passed, or /s/ where they are signed. */
void sim_songs_make(struct sim_world *w, const struct sim_net *net, struct sim_song songs[SIM_SONGS]);

uint64_t sim_song_bytes(const struct sim_song *s, uint64_t version);

/* Something is wrong with the answer; with `lies` it may be its length. */
void sim_answer_trouble(struct sim_world *w, struct sim_answer *a, bool lies);
