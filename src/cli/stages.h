/* The parts of a server and how they are put together: what each stage is given, and what the stages ask of
 * one another. serve.c decides when. */
#pragma once

#include "api/server.h"
#include "cli/admin_key.h"
#include "cli/enlist.h"
#include "cli/listeners.h"
#include "deliver/egress.h"
#include "fanout/apply.h"
#include "fanout/pump.h"
#include "fanout/raise.h"
#include "fanout/replayer.h"
#include "settle/reaper.h"

/* The parts, in the order they are started. */
struct server {
    const struct config *c;
    struct address_policy addresses;
    struct egress egress;
    char admin_key[ADMIN_KEY_SIZE];
    bool admin_key_made;
    struct listeners listeners;
    struct store *store;
    struct store_reader *reader;
    struct enlisted self;
    struct id_source ids;
    struct metrics *metrics;
    struct tracer *tracer;
    struct directory *directory;
    struct body_cache *bodies;
    struct fanout *fanout;
    struct reaper *reaper;
    struct writer *writer;
    struct pump *pump;
    struct replayer *replayer;
    struct dispatch *dispatch;
    struct ingest *ingest;
    struct sources *sources;
    struct api *api;
    struct apply_context apply;
    struct policy_memo policies; /* of the writer's thread */
    struct raiser raiser;
};

/* Each returns 0 or a negative errno; what was started until then is ended by serve.c all the same. */

/* Where this process is the store's only one, whoever began an attempt is dead, and its outcome unknown:
 * settles them all, before anything is sent. Makes the reaper. */
int stages_recover_leases(struct server *s, int64_t now) MUST_USE;
/* Tracer, writer, pump, dispatch, replayer, lanes, ingest, node: what is due goes out from now on. */
int stages_start(struct server *s) MUST_USE;
/* The databases that events come from; nothing comes before stages_start_api. */
int stages_prepare_sources(struct server *s) MUST_USE;
/* Events come in from now on. */
int stages_start_api(struct server *s) MUST_USE;
