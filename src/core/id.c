#include "core/id.h"

#include <errno.h>

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
static const char *const prefixes[] = {"evt_", "sub_", "dlv_", "att_", "sec_", "rpl_", "key_"};

enum { PREFIX_LENGTH = 4, BASE32_LENGTH = 26 };

static void to_uuid(struct id id, uint64_t *high, uint64_t *low) {
    /* unix_ts_ms(48) ver(4)=7 rand_a(12) | var(2)=2 rand_b(62) */
    *high = (id.key >> 12) << 16 | UINT64_C(7) << 12 | (id.key & 0xFFF);
    *low = UINT64_C(2) << 62 | id.tail;
}

void id_format(enum id_kind kind, struct id id, char out[ID_TEXT_SIZE]) {
    CHECK(id.key <= ID_KEY_MAX && id.tail <= ID_TAIL_MAX);
    uint64_t high, low;
    to_uuid(id, &high, &low);
    unsigned __int128 v = (unsigned __int128)high << 64 | low;
    memcpy(out, prefixes[kind], PREFIX_LENGTH);
    for (int i = BASE32_LENGTH - 1; i >= 0; i--, v >>= 5)
        out[PREFIX_LENGTH + i] = alphabet[(unsigned)(v & 31)];
    out[PREFIX_LENGTH + BASE32_LENGTH] = '\0';
}

static int digit_of(char c) {
    if (c >= 'a' && c <= 'z')
        c = (char)(c - 'a' + 'A');
    if (c == 'O')
        return 0;
    if (c == 'I' || c == 'L')
        return 1;
    const char *at = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

int id_parse(enum id_kind kind, struct slice s, struct id *ret) {
    if (s.n != PREFIX_LENGTH + BASE32_LENGTH || memcmp(s.p, prefixes[kind], PREFIX_LENGTH) != 0)
        return -EINVAL;
    unsigned __int128 v = 0;
    for (int i = 0; i < BASE32_LENGTH; i++) {
        int d = digit_of(s.p[PREFIX_LENGTH + i]);
        if (d < 0 || (i == 0 && d > 7))
            return -EINVAL;
        v = v << 5 | (unsigned)d;
    }
    uint64_t high = (uint64_t)(v >> 64), low = (uint64_t)v;
    if ((high >> 12 & 15) != 7 || low >> 62 != 2)
        return -EINVAL;
    *ret = (struct id){.key = (high >> 16) << 12 | (high & 0xFFF), .tail = low & ID_TAIL_MAX};
    return 0;
}

void id_source_raise(struct id_source *s, uint64_t key) {
    uint64_t last = atomic_load(&s->last);
    while (last < key && !atomic_compare_exchange_weak(&s->last, &last, key))
        ;
}

void id_source_set_slot(struct id_source *s, uint32_t slot, uint32_t slots) {
    CHECK(slots >= 1 && slots <= ID_SLOTS_MAX && (slots & (slots - 1)) == 0 && slot < slots);
    s->slot = slot;
    s->slots = slots;
}

/* The least key of the source's slot that is not below `key`. */
static uint64_t in_slot(const struct id_source *s, uint64_t key) {
    uint64_t step = id_source_step(s);
    return key + ((s->slot - key) & (step - 1));
}

uint64_t id_source_take(struct id_source *s, int64_t now_ms, unsigned n) {
    CHECK(n > 0);
    uint64_t last = atomic_load(&s->last), first, end;
    do {
        uint64_t at_now = id_key_at(now_ms);
        first = in_slot(s, at_now > last ? at_now : last + 1);
        end = first + (uint64_t)(n - 1) * id_source_step(s);
    } while (!atomic_compare_exchange_weak(&s->last, &last, end));
    CHECK(end <= ID_KEY_MAX);
    return first;
}

struct id id_source_next(struct id_source *s, int64_t now_ms, uint64_t random) {
    return (struct id){.key = id_source_take(s, now_ms, 1), .tail = random & ID_TAIL_MAX};
}

static uint64_t delivery_check(uint64_t event_key, uint32_t subscription_no) {
    return mix64(event_key ^ mix64(subscription_no)) & ((1U << 30) - 1);
}

struct id id_of_delivery(uint64_t event_key, uint32_t subscription_no) {
    CHECK(event_key <= ID_KEY_MAX && subscription_no > 0);
    uint64_t check = delivery_check(event_key, subscription_no);
    /* The number is blended with the check, so that ids do not tell how many subscriptions there are. */
    uint32_t blended = subscription_no ^ (uint32_t)mix64(event_key ^ check << 32);
    return (struct id){.key = event_key, .tail = check << 32 | blended};
}

int id_delivery_parts(struct id id, uint64_t *ret_event_key, uint32_t *ret_subscription_no) {
    uint64_t check = id.tail >> 32;
    uint32_t no = (uint32_t)id.tail ^ (uint32_t)mix64(id.key ^ check << 32);
    if (no == 0 || delivery_check(id.key, no) != check)
        return -EINVAL;
    *ret_event_key = id.key;
    *ret_subscription_no = no;
    return 0;
}

struct id id_of_attempt(uint64_t event_key, uint32_t subscription_no, uint32_t number, int64_t started_at) {
    CHECK(event_key <= ID_KEY_MAX && subscription_no > 0 && number > 0);
    uint64_t hash = mix64(event_key ^ mix64((uint64_t)subscription_no << 32 | number));
    uint64_t key = id_key_at(started_at) | (hash & 0xFFF);
    CHECK(key <= ID_KEY_MAX);
    return (struct id){.key = key, .tail = mix64(hash) & ID_TAIL_MAX};
}

static void put_u64(char *p, uint64_t v) {
    for (int i = 7; i >= 0; i--, v >>= 8)
        p[i] = (char)(v & 0xff);
}

static uint64_t get_u64(const char *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

void ids_pack(const struct id *ids, size_t n, struct buf *out) {
    for (size_t i = 0; i < n; i++) {
        char bytes[ID_PACKED_SIZE];
        put_u64(bytes, ids[i].key);
        put_u64(bytes + 8, ids[i].tail);
        buf_add(out, bytes, sizeof bytes);
    }
}

size_t ids_unpack(struct slice packed, struct id *ret, size_t max) {
    size_t n = packed.n / ID_PACKED_SIZE;
    if (n > max)
        n = max;
    for (size_t i = 0; i < n; i++) {
        const char *p = packed.p + i * ID_PACKED_SIZE;
        ret[i] = (struct id){get_u64(p), get_u64(p + 8)};
    }
    return n;
}
