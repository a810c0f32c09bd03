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

/* And in turn. */
static __always_inline bool record_in_turn(struct crew *crew, struct origin *origin)
{
	struct turn turn = turn_to_connect(crew);
	if (in_turn(&turn, CONNECTS, CONNECTS_AT_ONCE))
		return record(origin);
	struct over *over = count_over(&turn);
	if (over)
		__sync_fetch_and_add(&over->refused, 1);
	bpf_set_retval(-99);    /* EADDRNOTAVAIL: as where every port is taken, which is what a kernel says to who is so fast */
	return false;
}

static __always_inline int nobody_there(void)
{
	bpf_set_retval(-111);                                   /* ECONNREFUSED: who waits for a server asks again */
	return REFUSE;
}

#define NOBODY 0                                                /* no listener there */
#define OTHERS 1
#define OWN 2

/* Gives its size. */
static __always_inline u32 tuple_to(struct bpf_sock_tuple *tuple, u32 *to, u16 port)
{
	if (is_mapped(to)) {
		tuple->ipv4.daddr = to[3];
		tuple->ipv4.dport = bpf_htons(port);
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.daddr, to, 16);
	tuple->ipv6.dport = bpf_htons(port);
	return sizeof(tuple->ipv6);
}

/* Whether who would be given what is sent there is Weir: the agent notes its sockets in `doors`.  Somebody else may have
 * taken the port where no agent has it. */
static __always_inline bool is_door(void *ctx, u32 *to, u16 port, u32 protocol)
{
	struct bpf_sock_tuple tuple = {};
	u32 size = tuple_to(&tuple, to, port);
	struct bpf_sock *found;
	if (protocol == IPPROTO_TCP)
		found = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		found = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return false;
	bool door = doors.sk_storage_get(found, 0, 0) != 0;
	bpf_sk_release(found);
	return door;
}

/* Of another host's there is nothing to look at. */
static __always_inline bool resolves(void *ctx, struct settings *s, u32 protocol)
{
	u32 *resolver = (u32 *)s->resolver;
	return !is_loopback(resolver) || is_door(ctx, resolver, s->resolver_port, protocol);
}

static __always_inline int whose_listener(struct bpf_sock_addr *ctx, struct crew *crew, u32 *to, u16 port)
{
	struct bpf_sock_tuple tuple = {};
	u32 size = tuple_to(&tuple, to, port);
	struct bpf_sock *listener = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!listener)
		return NOBODY;
	struct maker *maker = makers.sk_storage_get(listener, 0, 0);
	bool own = maker && maker->inside && maker->owner == crew->owner && (crew->owner || maker->cgroup == crew->cgroup);
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
	if (whose == NOBODY)
		return nobody_there();
	origin->verdict = VERDICT_LOCAL;
	if (!set_mark(ctx, local_mark(crew->owner, crew->cgroup)))
		return REFUSE;
	struct turn turn = turn_to_connect(crew);
	if (in_turn(&turn, CONNECTS, CONNECTS_AT_ONCE))
		return record(origin) ? PASS : REFUSE;
	struct over *over = count_over(&turn);
	if (!over)
		return REFUSE;
	__sync_fetch_and_add(&over->unwritten, 1);              /* it leads nowhere, and nothing waits for its account */
	return PASS;
}

/* Where Weir listens, in its own network namespace, is root's to bind: with it somebody else would keep the agent out. */
static __always_inline int bind_outside(struct bpf_sock_addr *ctx, struct settings *s, u32 *to, u16 port)
{
	bool listener = ctx->protocol == IPPROTO_TCP && port == s->listener && (is_unspecified(to) || is_listener(to));
	if ((!listener && !is_resolver(s, to, port)) || is_root() || bpf_get_netns_cookie(ctx) != s->netns)
		return PASS;
	bpf_set_retval(-98);                                    /* EADDRINUSE */
	return REFUSE;
}

/* The listeners' port is no crew's to bind, nor is the resolver's: whoever has it gets what others send there.  Nor is any
 * at which somebody else listens: where the kernel lets several sockets of a user have it (SO_REUSEPORT), connections to
 * the other one would come to the crew's and be dropped. */
static __always_inline int on_bind(struct bpf_sock_addr *ctx, u32 *to)
{
	struct settings *s = current_settings();
	if (!s)
		return REFUSE;
	u16 port = bpf_ntohs(ctx->user_port);
	struct crew crew = who(ctx, s);
	if (!port)
		return PASS;
	if (!crew.hook)
		return bind_outside(ctx, s, to, port);
	if (port == s->listener || port == s->resolver_port)
		return REFUSE;
	if (ctx->protocol == IPPROTO_TCP && whose_listener(ctx, &crew, to, port) == OTHERS) {
		bpf_set_retval(-98);                            /* EADDRINUSE */
		return REFUSE;
	}
	return PASS;
}

int bind4(struct bpf_sock_addr *ctx)
{
	u32 to[4] = { 0, 0, MAPPED, ctx->user_ip4 };
	return on_bind(ctx, to);
}

int bind6(struct bpf_sock_addr *ctx)
{
	u32 to[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };
	return on_bind(ctx, to);
}
