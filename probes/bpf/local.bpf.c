/* Loopback within a workload: a tool server, a browser's driver.  Who listens is asked of the kernel's own tables at the
 * time of the connect: a list of listeners would be wrong as soon as two sockets are bound to one port. */

/* Written whole or not at all; false: refuse. */
static __always_inline bool record(struct origin *origin)
{
	struct origin *line = ring.ringbuf_reserve(sizeof(*origin));
	if (!line)
		return false;
	*line = *origin;
	ring.ringbuf_submit(line, 0);
	return true;
}

#define NOBODY 0                                                /* no listener there */
#define OTHERS 1
#define OWN 2

static __always_inline int whose_listener(struct bpf_sock_addr *ctx, struct crew *crew, u32 *to, u16 port)
{
	struct bpf_sock_tuple tuple = {};
	u32 size = sizeof(tuple.ipv6);
	if (is_mapped(to)) {
		tuple.ipv4.daddr = to[3];
		tuple.ipv4.dport = bpf_htons(port);
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, to, 16);
		tuple.ipv6.dport = bpf_htons(port);
	}
	struct bpf_sock *listener = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!listener)
		return NOBODY;
	struct maker *maker = makers.sk_storage_get(listener, 0, 0);
	bool own = maker && maker->inside && (crew->owner ? maker->owner == crew->owner : maker->cgroup == crew->cgroup);
	bpf_sk_release(listener);
	return own ? OWN : OTHERS;
}

static __always_inline bool set_mark(struct bpf_sock_addr *ctx, u32 mark)
{
	return ctx->sk->mark == mark || bpf_setsockopt(ctx, 1, 36, &mark, sizeof(mark)) == 0;   /* SOL_SOCKET, SO_MARK */
}

/* A connect that stays within the workload, or finds nobody: PASS or REFUSE; -1 for any other. */
static __always_inline int connect_local(struct bpf_sock_addr *ctx, struct crew *crew, struct origin *origin, u32 *to)
{
	struct place place = { .port = origin->port };
	__builtin_memcpy(place.address, to, 16);
	if (!is_loopback(to) || places.lookup(&place))
		return -1;
	int whose = whose_listener(ctx, crew, to, origin->port);
	if (whose == OTHERS)
		return -1;
	if (whose == NOBODY) {
		bpf_set_retval(-111);                           /* ECONNREFUSED: who waits for a server asks again */
		return REFUSE;
	}
	origin->verdict = VERDICT_LOCAL;
	return set_mark(ctx, LOCAL_MARK) && record(origin) ? PASS : REFUSE;
}
