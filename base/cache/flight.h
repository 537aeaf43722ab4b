/* A flight is one fill and its many readers. The first miss of an identity (key, slice, variant) makes it;
 * whoever misses meanwhile joins. The fill belongs to no reader: it goes on when all of them leave, and a
 * fill that fails frees the identity at once and tells every reader.
 *
 * The fill runs on one worker and is the only writer; readers sit on any worker, each at its own offset and
 * pace, and are woken as soon as something they have not seen has happened. Bytes lie in one run of memory:
 *
 *   stored   the run is as long as the body; offset i of the body is byte i. At the end it becomes the
 *            object.
 *   ring     the answer cannot be kept (no room, length unknown, not storable): offset i is byte i modulo
 *            the capacity, and the fill waits for the slowest reader. Who comes after the start has been
 *            overwritten cannot join.
 *
 * A flight whose answer may not be shared (private, no-store) scatters: its first reader keeps it, the
 * others are told to fetch their own. */
#pragma once

#include "cache/key.h"
#include "cache/memory.h"
#include "cache/object.h"
#include "io/flow.h"
#include "io/mailbox.h"
#include "util/list.h"

#include <pthread.h>
#include <stdatomic.h>

#define FLIGHT_MAGIC          0x466c6974u
#define FLIGHT_WORKERS_MAX    256
#define FLIGHT_LENGTH_UNKNOWN UINT64_MAX

enum flight_state {
    FLIGHT_ASKED,     /* no head yet */
    FLIGHT_STREAMING, /* `answer` is set and will not change; bytes arrive */
    FLIGHT_COMPLETE,  /* all bytes are there; `object` is set when it was stored or found still valid */
    FLIGHT_FAILED, /* `error` says why; after STREAMING the bytes up to `written` are good, and no more come
                    */
};

/* What is known of an answer before it is complete. The head has the shape of struct object's, but has no
 * Content-Length while the length is unknown. */
struct flight_answer {
    struct object_spec spec; /* its strings live in the flight */
    uint64_t length;         /* of this body (the slice), or FLIGHT_LENGTH_UNKNOWN */
    bool ranged;             /* the body is slice spec.slice of spec.total_bytes bytes */
    bool store;              /* will become an object */
    bool shared;             /* others than the first reader may have it */
    bool opaque;             /* passed as it came: no ranges or conditionals of ours */
};

/* Why a fill failed, as the client is told. */
struct flight_error {
    uint16_t status;      /* 502 or 504 (or 416 with total_bytes, 508) */
    const char *reason;   /* a static text for logs */
    uint64_t total_bytes; /* 416: the length of the representation, else UINT64_MAX */
};

struct flight_table;
struct flight;

struct flight_reader {
    struct list node; /* in flight->readers */
    struct flight *flight;
    struct flow *flow;
    uint16_t worker;
    bool waiting;  /* guarded by the flight's lock */
    bool first;    /* the one whose miss made the flight */
    uint64_t read; /* bytes of the body it needs no more; guarded by the lock, used by rings */
};

struct flight_worker {
    struct mailbox *mailbox;
    struct flow_queue *ready; /* set by flight_table_attach, once the worker has one */
};

/* workers[i] is worker i's; the array is copied. NULL: no memory. */
struct flight_table *flight_table_create(struct memory *memory, const struct flight_worker *workers,
                                         unsigned workers_n);
/* On the worker's thread, before it makes or joins a flight. */
void flight_table_attach(struct flight_table *table, unsigned worker, struct flow_queue *ready);
void flight_table_destroy(struct flight_table **table); /* no flight may be left */

/* Joins the flight of this identity, or makes one: then *made is true and the caller starts a fill with it,
 * whose flow calls the functions below. NULL: no memory. `variant`: what is known of it, else 0. */
struct flight *flight_join(struct flight_table *table, struct flight_reader *reader, struct flow *flow,
                           unsigned worker, const struct cache_key *key, uint32_t slice, uint64_t variant,
                           bool *made);

/* One that nobody else can join: for what is passed. The caller starts a fill with it. */
struct flight *flight_alone(struct flight_table *table, struct flight_reader *reader, struct flow *flow,
                            unsigned worker, const struct cache_key *key, uint32_t slice);

/* A flight without a reader, for a refresh in the background; NULL when one is under way, or without memory.
 */
struct flight *flight_background(struct flight_table *table, unsigned worker, const struct cache_key *key,
                                 uint32_t slice, uint64_t variant);

/* --- for readers --- */

enum flight_state flight_state(const struct flight *f);
/* Only from STREAMING on. */
const struct flight_answer *flight_answer(const struct flight *f);
/* Only when COMPLETE; NULL when it was not stored. Borrowed from the flight. */
struct object *flight_object(const struct flight *f);
/* Only when COMPLETE: the object is one that was found still valid. */
bool flight_is_validated(const struct flight *f);
/* Only when FAILED. */
const struct flight_error *flight_error(const struct flight *f);

/* Bytes of the body that have arrived. */
uint64_t flight_written(const struct flight *f);

/* The bytes from `offset` on, as far as they have arrived and lie in one run, at most `max`. They stay while the
 * reader has not given them back. */
struct str flight_bytes(const struct flight *f, uint64_t offset, uint64_t max);

/* Only from STREAMING on: any byte that has arrived stays. False: a ring, which is read forwards only. */
bool flight_keeps(const struct flight *f);

/* Says that bytes before `offset` are needed no more. */
void flight_read_up_to(struct flight_reader *reader, uint64_t offset);

/* True: nothing has happened since the reader saw this state and count, and its flow will be woken when
 * something does. False: look again. */
bool flight_wait(struct flight_reader *reader, enum flight_state seen, uint64_t seen_written);

/* The reader goes; the fill goes on. Clears reader->flight. */
void flight_leave(struct flight_reader *reader);

/* --- for the fill; each takes the fill's reference where it says so --- */

struct cache_key flight_key(const struct flight *f); /* its text lives in the flight */
uint32_t flight_slice(const struct flight *f);

/* Says who is to be woken when readers make room in a ring. */
void flight_set_fill(struct flight *f, struct flow *flow);

/* What happened to this identity lately, so that a dead or an unshareable object does not cause a stampede:
 * FAILED for FLIGHT_FAILED_MS after a fill that got no head (*error is its error), SCATTERED for
 * FLIGHT_SCATTERED_MS after an answer that could not be shared (then fetch alone at once). Remembered in a
 * small table that forgets under pressure; `now_ns` is the caller's clock. */
enum flight_past { FLIGHT_PAST_NONE, FLIGHT_PAST_FAILED, FLIGHT_PAST_SCATTERED };
#define FLIGHT_FAILED_MS    1000u
#define FLIGHT_SCATTERED_MS 10000u
enum flight_past flight_past(struct flight_table *table, const struct cache_key *key, uint32_t slice,
                             uint64_t variant, uint64_t now_ns, struct flight_error *error);

/* True for a ring that nobody reads and that cannot be kept: it has nobody to go on for. The fill is woken
 * when the last reader goes. */
bool flight_deserted(struct flight *f);

/* The head has come; the answer's strings are copied. With `store` the run is allocated from the memory tier,
 * and where there is no room (or the length is unknown, or `store` is not set) it is a ring. Without `shared`
 * the other readers scatter (flight_scattered). Returns 0 or -ENOMEM. */
int flight_begin(struct flight *f, const struct flight_answer *answer, uint64_t now_ns);

/* True for a reader that has to fetch its own. */
bool flight_scattered(const struct flight_reader *reader);

/* Where the next bytes go; *n is the room that is left in one run now (0: a ring that is full: wait, the
 * fill's flow is woken). */
char *flight_room(struct flight *f, size_t *n);
void flight_wrote(struct flight *f, size_t n);

/* Complete. The object is inserted when it is to be stored; a body of unknown length that fits is stored,
 * too. Takes the fill's reference. */
void flight_complete(struct flight **f);

/* Found still valid (304): `object` is what readers get; the flight takes a reference of its own. */
void flight_complete_with(struct flight **f, struct object *object);

void flight_fail(struct flight **f, const struct flight_error *error, uint64_t now_ns);

struct flight_stats {
    uint64_t flights;      /* now */
    uint64_t readers;      /* now */
    uint64_t joined_total; /* readers that found a flight under way */
};
void flight_stats(const struct flight_table *table, struct flight_stats *out);
