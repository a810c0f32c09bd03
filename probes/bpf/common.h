/* Maps, and who is a crew.  Included first. */
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include "abi.h"

#define REFUSE 0
#define PASS 1
#define STREAM 1
#define DATAGRAM 2

/* PIN is -DPIN='"/.../"'.  bcc reuses a map that is pinned there and pins one that it makes: a second start keeps every
 * mark and every open socket's origin.  bcc has no pinned form of sk_storage and ringbuf, so those are spelled out. */
BPF_TABLE_PINNED("array", u32, struct config, config, 1, PIN "config");
BPF_TABLE_PINNED("array", u32, u32, owners, PID_MAX, PIN "owners");
BPF_TABLE_PINNED("lru_hash", struct conn_key, struct origin, conns, 65536, PIN "conns");
struct origins_table_t {
    int key; struct origin leaf;
    void *(*sk_storage_get)(void *, void *, int);
    int (*sk_storage_delete)(void *);
    u32 flags;
};
__attribute__((section("maps/sk_storage:" PIN "origins"))) struct origins_table_t origins = { .flags = BPF_F_NO_PREALLOC };
BPF_ANNOTATE_KV_PAIR(origins, int, struct origin);
struct connects_table_t {
    int key; u32 leaf;
    void *(*ringbuf_reserve)(u64);
    void (*ringbuf_submit)(void *, u64);
    u32 max_entries;
};
__attribute__((section("maps/ringbuf:" PIN "connects"))) struct connects_table_t connects = { .max_entries = RING };

static __always_inline struct config *configuration(void)
{
    int zero = 0;
    return config.lookup(&zero);
}

/* 0: no crew; 1: by its mark; 2: by its cgroup. */
static __always_inline int crew(struct config *c, u32 *owner)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32, *mark = owners.lookup(&tgid);
    *owner = mark ? *mark : 0;
    if (*owner) return 1;
    return c->slice && bpf_get_current_ancestor_cgroup_id(c->level) == c->slice ? 2 : 0;
}

static __always_inline int is_resolver(struct config *c, u32 a, u32 b, u32 d, u32 e, u16 port)
{
    u32 *r = (u32 *)c->resolver;
    return c->resolver_port && port == c->resolver_port && a == r[0] && b == r[1] && d == r[2] && e == r[3];
}
