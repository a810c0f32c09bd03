/* A crew's connect is recorded, then rewritten to the listener; what cannot be recorded is refused. */

/* By its own address: what the kernel makes of none depends on what the socket is bound to (127.0.0.2; for "::" also
 * ::ffff:127.0.0.1), so that it would dial somebody else than was looked at. */
static __always_inline void dial(struct bpf_sock_addr *ctx, int family, u32 *to)
{
	if (family == 4) {
		ctx->user_ip4 = to[3];
	} else {
		ctx->user_ip6[0] = to[0];
		ctx->user_ip6[1] = to[1];
		ctx->user_ip6[2] = to[2];
		ctx->user_ip6[3] = to[3];
	}
}

static __always_inline int connect_tcp(struct bpf_sock_addr *ctx, struct settings *s, struct crew *crew, struct origin *origin, int family)
{
	u32 *to = (u32 *)origin->destination;
	/* Whatever an earlier connect of this socket left no longer holds. */
	origins.sk_storage_delete(ctx->sk);
	if (is_local(ctx->sk->mark) && !set_mark(ctx, 0))
		return REFUSE;
	if (is_resolver(s, to, origin->port)) {
		origin->verdict = VERDICT_DNS;
		if (!record_in_turn(crew, origin))
			return REFUSE;
		return resolves(ctx, s, IPPROTO_TCP) ? PASS : nobody_there();
	}
	u32 place[4] = { to[0], to[1], to[2], to[3] };
	if (is_unspecified(to))
		set_loopback(place);                            /* no address means this host's */
	if (origin->port == s->listener && is_loopback(place)) {
		origin->verdict = VERDICT_REFUSED;              /* the listener is not dialled by hand */
		record_in_turn(crew, origin);
		return REFUSE;
	}
	int local = connect_local(ctx, crew, origin, place);
	if (local == PASS)
		dial(ctx, family, place);
	if (local >= 0)
		return local;
	if (ctx->sk->bound_dev_if) {                            /* another socket could have the same address and port */
		origin->verdict = VERDICT_REFUSED;
		record_in_turn(crew, origin);
		return REFUSE;
	}
	origin->verdict = VERDICT_REDIRECTED;
	if (!origins.sk_storage_get(ctx->sk, origin, BPF_SK_STORAGE_GET_F_CREATE))
		return REFUSE;
	if (!record_in_turn(crew, origin)) {
		origins.sk_storage_delete(ctx->sk);
		return REFUSE;
	}
	set_loopback(place);
	if (!is_door(ctx, place, s->listener, IPPROTO_TCP)) {
		origins.sk_storage_delete(ctx->sk);
		return nobody_there();
	}
	dial(ctx, family, place);
	ctx->user_port = bpf_htons(s->listener);
	return PASS;
}

/* The listener is no outsider's: with a socket that is bound to a device it could have a crew's address and port, and add
 * to what that says.  Who is root is told that nobody knows it. */
static __always_inline int connect_outside(struct bpf_sock_addr *ctx, struct settings *s, u32 *to)
{
	origins.sk_storage_delete(ctx->sk);
	if (ctx->protocol != IPPROTO_TCP || bpf_ntohs(ctx->user_port) != s->listener || is_root())
		return PASS;
	if (is_unspecified(to))
		set_loopback(to);
	return is_listener(to) && is_door(ctx, to, s->listener, IPPROTO_TCP) ? REFUSE : PASS;
}

static __always_inline int on_connect(struct bpf_sock_addr *ctx, int family)
{
	struct settings *s = current_settings();
	if (!s || !ctx->sk)
		return REFUSE;
	struct crew crew = who(ctx, s);
	struct origin origin = {
		.cookie = bpf_get_socket_cookie(ctx), .cgroup = crew.cgroup, .when = bpf_ktime_get_ns(),
		.owner = crew.owner, .tgid = bpf_get_current_pid_tgid() >> 32, .port = bpf_ntohs(ctx->user_port),
		.family = family, .hook = crew.hook,
	};
	u32 *to = (u32 *)origin.destination;
	if (family == 4) {
		to[2] = MAPPED;
		to[3] = ctx->user_ip4;
	} else {
		to[0] = ctx->user_ip6[0];
		to[1] = ctx->user_ip6[1];
		to[2] = ctx->user_ip6[2];
		to[3] = ctx->user_ip6[3];
	}
	if (!crew.hook)
		return connect_outside(ctx, s, to);
	if (ctx->protocol == IPPROTO_TCP)
		return connect_tcp(ctx, s, &crew, &origin, family);
	if (ctx->protocol != IPPROTO_UDP)
		return REFUSE;
	/* It sends nothing, and getaddrinfo does it.  What is sent later without an address passes no hook of sendmsg:
	 * only the packet filters see it, which know sockets that were made in the slice. */
	return crew.inside || is_resolver(s, to, origin.port) ? PASS : REFUSE;
}

int connect4(struct bpf_sock_addr *ctx)
{
	return on_connect(ctx, 4);
}

int connect6(struct bpf_sock_addr *ctx)
{
	return on_connect(ctx, 6);
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct origin *origin = ctx->sk ? origins.sk_storage_get(ctx->sk, 0, 0) : 0;
	if (!origin)
		return PASS;
	ctx->user_ip4 = ((u32 *)origin->destination)[3];
	ctx->user_port = bpf_htons(origin->port);
	return PASS;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct origin *origin = ctx->sk ? origins.sk_storage_get(ctx->sk, 0, 0) : 0;
	if (!origin)
		return PASS;
	u32 *to = (u32 *)origin->destination;
	ctx->user_ip6[0] = to[0];
	ctx->user_ip6[1] = to[1];
	ctx->user_ip6[2] = to[2];
	ctx->user_ip6[3] = to[3];
	ctx->user_port = bpf_htons(origin->port);
	return PASS;
}

/* A crew's socket is connected, and not to the listener or the resolver: the connect was not rewritten.  The firewall may
 * have redirected it all the same, and then a session accounts for it: the ledger's to say. */
static __always_inline void see_established(struct bpf_sock *sk, u32 *to, u16 port, u64 cookie)
{
	struct settings *s = current_settings();
	if (!s || is_resolver(s, to, port))
		return;
	if (is_loopback(to) && (port == s->listener || is_local(sk->mark)))
		return;
	struct origin origin = {
		.cookie = cookie, .when = bpf_ktime_get_ns(), .port = port, .hook = HOOK_SOCKET, .verdict = VERDICT_ELSEWHERE,
		.family = is_mapped(to) ? 4 : 6,
	};
	struct maker *maker = makers.sk_storage_get(sk, 0, 0);
	if (maker) {
		origin.owner = maker->owner;
		origin.cgroup = maker->cgroup;
	} else {
		struct origin *before = origins.sk_storage_get(sk, 0, 0);
		if (!before)
			return;                                 /* nobody's of the crews */
		origin.owner = before->owner;
		origin.cgroup = before->cgroup;
	}
	__builtin_memcpy(origin.destination, to, sizeof(origin.destination));
	record(&origin);
}

/* What identifies a connection from either end.  `from`: the end that dials. */
static __always_inline struct connection handshake(struct bpf_sock_ops *ctx, u32 *from, u16 port, u32 sequence)
{
	struct connection key = { .port = port, .sequence = sequence };
	key.netns = bpf_get_netns_cookie(ctx);
	__builtin_memcpy(key.address, from, sizeof(key.address));
	return key;
}

/* Asks to be called for the options of what the socket sends: by the SYN its first sequence number is known, which is not
 * drawn yet when connect is told of.  Other programs' wishes stay. */
static __always_inline void follow(struct bpf_sock_ops *ctx, u32 wishes, bool on)
{
	u32 wish = BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	bpf_sock_ops_cb_flags_set(ctx, on ? wishes | wish : wishes & ~wish);
}

#define SYN_SENT 2                                              /* include/net/tcp_states.h */

/* A rewritten connect is joined with the socket that the listener makes of it, by the handshake: who accepts has the
 * answer before it accepts, and nobody else's connection has it, whatever its address and port. */
int sockops(struct bpf_sock_ops *ctx)
{
	u32 op = ctx->op;
	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_HDR_OPT_LEN_CB &&
	    op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return PASS;
	u32 own[4] = {}, peer[4] = {};
	/* Every field is read on the straight path: in branches clang sinks the loads into one at ctx + offset, which the
	 * verifier refuses. */
	volatile struct bpf_sock_ops *fields = ctx;
	u32 family = fields->family, v4 = fields->local_ip4, remote4 = fields->remote_ip4, remote_port = fields->remote_port;
	u32 v6[4] = { fields->local_ip6[0], fields->local_ip6[1], fields->local_ip6[2], fields->local_ip6[3] };
	u32 remote6[4] = { fields->remote_ip6[0], fields->remote_ip6[1], fields->remote_ip6[2], fields->remote_ip6[3] };
	u32 own_port = fields->local_port, state = fields->state, wishes = fields->bpf_sock_ops_cb_flags;     /* host order */
	u32 first_sent = fields->snd_una, next_received = fields->rcv_nxt;
	if (family == 2) {                                      /* AF_INET */
		own[2] = peer[2] = MAPPED;
		own[3] = v4;
		peer[3] = remote4;
	} else {
		__builtin_memcpy(own, v6, sizeof(own));
		__builtin_memcpy(peer, remote6, sizeof(peer));
	}
	struct bpf_sock *sk = ctx->sk;
	if (!sk)
		return PASS;
	if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		see_established(sk, peer, bpf_ntohl(remote_port), bpf_get_socket_cookie(ctx));
		return PASS;
	}
	if (op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		struct settings *s = current_settings();
		if (!s || own_port != s->listener || !is_loopback(own))
			return PASS;
		struct connection key = handshake(ctx, peer, bpf_ntohl(remote_port), next_received - 1);
		struct origin *origin = connections.lookup(&key);
		u64 cookie = bpf_get_socket_cookie(ctx);
		if (origin) {
			accepted.update(&cookie, origin);
			connections.delete(&key);
		}
		return PASS;
	}
	struct origin *origin = origins.sk_storage_get(sk, 0, 0);
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		if (origin)
			follow(ctx, wishes, true);
		return PASS;
	}
	if (origin && state == SYN_SENT) {
		struct connection key = handshake(ctx, own, own_port, first_sent);
		connections.update(&key, origin);
	} else {
		follow(ctx, wishes, false);
	}
	return PASS;
}
