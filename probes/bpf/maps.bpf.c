#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include "abi.h"

/* PIN is the path of the pins up to a map's name.  bcc takes the map that is pinned there, or makes and pins one: a second
 * start keeps every mark and every open socket's origin.  It has no pinned form of sk_storage and ringbuf: spelled out. */
BPF_TABLE_PINNED("array", u32, struct settings, settings, 1, PIN "settings");
BPF_TABLE_PINNED("array", u32, struct joined, joined, JOINED, PIN "joined");
BPF_TABLE_PINNED("array", u32, u32, owners, PID_MAX, PIN "owners");
BPF_TABLE_PINNED("lru_hash", struct connection, struct origin, connections, 65536, PIN "connections");
BPF_TABLE_PINNED("lru_hash", u64, struct origin, accepted, 65536, PIN "accepted");      /* by the listener's end: its cookie */

BPF_TABLE_PINNED("lru_hash", struct turn, u64, turns, TURNS, PIN "turns");
BPF_TABLE_PINNED("lru_hash", struct turn, struct over, overs, TURNS, PIN "overs");

BPF_TABLE_PINNED("hash", struct place, u8, places, 4096, PIN "places");

struct origins_table_t {
	int key;
	struct origin leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage:" PIN "origins"))) struct origins_table_t origins = { .flags = BPF_F_NO_PREALLOC };
BPF_ANNOTATE_KV_PAIR(origins, int, struct origin);

struct makers_table_t {
	int key;
	struct maker leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage:" PIN "makers"))) struct makers_table_t makers = { .flags = BPF_F_NO_PREALLOC };
BPF_ANNOTATE_KV_PAIR(makers, int, struct maker);

struct doors_table_t {
	int key;
	u32 leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage:" PIN "doors"))) struct doors_table_t doors = { .flags = BPF_F_NO_PREALLOC };
BPF_ANNOTATE_KV_PAIR(doors, int, u32);

struct ring_table_t {
	int key;
	u32 leaf;
	void *(*ringbuf_reserve)(u64);
	void (*ringbuf_submit)(void *, u64);
	u32 max_entries;
};
__attribute__((section("maps/ringbuf:" PIN "ring"))) struct ring_table_t ring = { .max_entries = RING_BYTES };

#define REFUSE 0
#define PASS 1
#define LOOPBACK4 bpf_htonl(0x7f000001)
#define MAPPED bpf_htonl(0xffff)
#define LOOPBACK_INTERFACE 1                                    /* LOOPBACK_IFINDEX of every network namespace */

static __always_inline struct settings *current_settings(void)
{
	int zero = 0;
	return settings.lookup(&zero);
}

static __always_inline u32 task_mark(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, *mark = owners.lookup(&tgid);
	return mark ? *mark : 0;
}

static __always_inline bool task_in_slice(struct settings *s)
{
	return s->slice && bpf_get_current_ancestor_cgroup_id(s->level) == s->slice;
}

/* The joined cgroup that the task is in.  0: none. */
static __always_inline u64 task_joined(void)
{
	for (u32 place = 0; place < JOINED; place++) {
		u32 key = place;
		struct joined *one = joined.lookup(&key);
		u64 cgroup = one ? one->cgroup : 0;
		if (!cgroup)
			break;
		if (bpf_get_current_ancestor_cgroup_id(one->level) == cgroup)
			return cgroup;
	}
	return 0;
}

static __always_inline bool task_inside(struct settings *s)
{
	return task_in_slice(s) || task_joined();
}

static __always_inline bool same_address(u32 *a, u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline bool is_resolver(struct settings *s, u32 *address, u16 port)
{
	return s->resolver_port && port == s->resolver_port && same_address((u32 *)s->resolver, address);
}

static __always_inline bool is_mapped(u32 *address)
{
	return address[0] == 0 && address[1] == 0 && address[2] == MAPPED;
}

static __always_inline bool is_local(u32 mark)
{
	return (mark & LOCAL_MASK) == LOCAL_MARK;
}

/* 127.0.0.0/8, ::1. */
static __always_inline bool is_loopback(u32 *address)
{
	return is_mapped(address) ? (address[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000)
				  : address[0] == 0 && address[1] == 0 && address[2] == 0 && address[3] == bpf_htonl(1);
}

/* By address: 127.0.0.1, ::1. */
static __always_inline bool is_listener(u32 *address)
{
	return is_loopback(address) && address[3] == (is_mapped(address) ? LOOPBACK4 : bpf_htonl(1));
}

/* 0.0.0.0, ::ffff:0.0.0.0, ::. */
static __always_inline bool is_unspecified(u32 *address)
{
	return address[3] == 0 && (is_mapped(address) || (address[0] == 0 && address[1] == 0 && address[2] == 0));
}

/* v4-mapped stays so. */
static __always_inline void set_loopback(u32 *address)
{
	bool mapped = is_mapped(address);
	address[0] = address[1] = 0;
	address[2] = mapped ? MAPPED : 0;
	address[3] = mapped ? LOOPBACK4 : bpf_htonl(1);
}

/* Uid 0 of the initial user namespace, which no crew has. */
static __always_inline bool is_root(void)
{
	return (u32)bpf_get_current_uid_gid() == 0;
}
