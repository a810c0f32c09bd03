/* UDP goes to the resolver alone; and the last nets below all other hooks. */
static __always_inline int on_sendmsg(struct bpf_sock_addr *ctx, u32 *to)
{
	struct settings *s = current_settings();
	if (!s)
		return REFUSE;
	if (!who(ctx, s).hook)
		return PASS;
	return is_resolver(s, to, bpf_ntohs(ctx->user_port)) && resolves(ctx, s, IPPROTO_UDP) ? PASS : REFUSE;
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	u32 to[4] = { 0, 0, MAPPED, ctx->user_ip4 };
	return on_sendmsg(ctx, to);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	u32 to[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };
	return on_sendmsg(ctx, to);
}

struct seen {
	u32 from[4], to[4];
	u16 from_port, to_port;
	u8 protocol;
	bool opens;                                             /* TCP: SYN without ACK, RFC 9293 3.1 */
};

/* From the network header on.  False for what is neither TCP nor UDP, and for everything that is on the way to no
 * listener: a fragment but the first, options (a source route), an extension header. */
static __always_inline bool look(struct __sk_buff *packet, struct seen *seen)
{
	u16 fragment = 0;
	u8 first = 0, flags = 0;
	u32 ports = 40;
	if (packet->protocol == bpf_htons(0x0800)) {            /* RFC 791 3.1 */
		ports = 20;
		seen->from[2] = seen->to[2] = MAPPED;
		if (bpf_skb_load_bytes(packet, 0, &first, 1) || bpf_skb_load_bytes(packet, 6, &fragment, 2) ||
		    bpf_skb_load_bytes(packet, 9, &seen->protocol, 1) ||
		    bpf_skb_load_bytes(packet, 12, &seen->from[3], 4) || bpf_skb_load_bytes(packet, 16, &seen->to[3], 4))
			return false;
		if (fragment & bpf_htons(0x1fff) || first != 0x45)
			return false;
	} else if (packet->protocol == bpf_htons(0x86dd)) {     /* RFC 8200 3 */
		if (bpf_skb_load_bytes(packet, 6, &seen->protocol, 1) ||
		    bpf_skb_load_bytes(packet, 8, seen->from, 16) || bpf_skb_load_bytes(packet, 24, seen->to, 16))
			return false;
	} else {
		return false;
	}
	if (seen->protocol != IPPROTO_TCP && seen->protocol != IPPROTO_UDP)
		return false;
	if (bpf_skb_load_bytes(packet, ports, &seen->from_port, 2) ||
	    bpf_skb_load_bytes(packet, ports + 2, &seen->to_port, 2))
		return false;
	seen->from_port = bpf_ntohs(seen->from_port);
	seen->to_port = bpf_ntohs(seen->to_port);
	if (seen->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(packet, ports + 13, &flags, 1))
			return false;
		seen->opens = (flags & 0x12) == 0x02;
	}
	return true;
}

static __always_inline bool is_own(struct bpf_sock *listener, u32 mark)
{
	struct maker *maker = makers.sk_storage_get(listener, 0, 0);
	return maker && maker->inside && local_mark(maker->owner, maker->cgroup) == mark;
}

/* Connect's hook has looked at who listens; now the ports are known, by which one of a group (SO_REUSEPORT) is chosen, and
 * in between the listener may be another.  Where nobody listens any more the kernel says so; a connection of the same
 * ports that is remembered (TIME_WAIT) hides who listens, so that this is asked for without them. */
static __always_inline bool to_own(struct __sk_buff *packet, struct seen *seen)
{
	struct bpf_sock_tuple tuple = {};
	u32 size = sizeof(tuple.ipv6);
	__be16 *port = &tuple.ipv6.sport;
	if (is_mapped(seen->to)) {
		tuple.ipv4.saddr = seen->from[3];
		tuple.ipv4.daddr = seen->to[3];
		tuple.ipv4.sport = bpf_htons(seen->from_port);
		tuple.ipv4.dport = bpf_htons(seen->to_port);
		size = sizeof(tuple.ipv4);
		port = &tuple.ipv4.sport;
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, seen->from, 16);
		__builtin_memcpy(tuple.ipv6.daddr, seen->to, 16);
		tuple.ipv6.sport = bpf_htons(seen->from_port);
		tuple.ipv6.dport = bpf_htons(seen->to_port);
	}
	bool own = true;
	for (int again = 0; again < 2; again++) {
		struct bpf_sock *found = bpf_skc_lookup_tcp(packet, &tuple, size, BPF_F_CURRENT_NETNS, 0);
		if (!found)
			return true;
		struct bpf_sock *listener = bpf_get_listener_sock(found);
		bool listens = listener != 0;
		if (listener)
			own = is_own(listener, packet->mark);
		bpf_sk_release(found);
		if (listens)
			return own;
		*port = 0;
	}
	return false;
}

static __always_inline bool may_ask(struct __sk_buff *packet, struct settings *s)
{
	struct turn turn = { .what = TURN_QUESTION };
	struct bpf_sock *asker = packet->sk;
	struct maker *maker = asker ? makers.sk_storage_get(asker, 0, 0) : 0;
	if (maker)
		turn.owner = maker->owner;
	if (!turn.owner)
		turn.cgroup = bpf_skb_ancestor_cgroup_id(packet, s->level + 1);
	if (in_turn(&turn, QUESTIONS, QUESTIONS_AT_ONCE))
		return true;
	struct over *over = count_over(&turn);
	if (over)
		__sync_fetch_and_add(&over->refused, 1);
	return false;
}

/* On the slice: packets of sockets that were made in it, after nftables' redirect. */
int egress(struct __sk_buff *packet)
{
	struct settings *s = current_settings();
	struct seen seen = {};
	if (!s || !look(packet, &seen))
		return REFUSE;
	if (is_resolver(s, seen.to, seen.to_port))
		return resolves(packet, s, seen.protocol) &&
		       ((seen.protocol == IPPROTO_TCP && !seen.opens) || may_ask(packet, s)) ? PASS : REFUSE;
	if (seen.protocol != IPPROTO_TCP || !is_loopback(seen.to))
		return REFUSE;
	/* A socket that is bound to another interface sends what is for a loopback address to the wire. */
	if (packet->ifindex != LOOPBACK_INTERFACE)
		return REFUSE;
	if (seen.to_port == s->listener)
		return is_listener(seen.to) && (!seen.opens || is_door(packet, seen.to, s->listener, IPPROTO_TCP)) ? PASS : REFUSE;
	/* Within a workload: connect has marked who opens; who answers cannot begin anything. */
	if (!seen.opens)
		return is_local(packet->mark) || is_loopback(seen.from) ? PASS : REFUSE;
	return is_local(packet->mark) && to_own(packet, &seen) ? PASS : REFUSE;
}

/* On the slice: nobody connects to a crew but itself, by the socket that the packet has come to.  Answers to a redirected connection come under the name of whom
 * the crew dialled, so of what opens nothing TCP itself knows what it belongs to. */
int ingress(struct __sk_buff *packet)
{
	struct settings *s = current_settings();
	struct seen seen = {};
	if (!s || !look(packet, &seen))
		return REFUSE;
	if (seen.protocol == IPPROTO_UDP)
		return is_resolver(s, seen.from, seen.from_port) ? PASS : REFUSE;
	if (!seen.opens)
		return PASS;
	struct bpf_sock *at = packet->sk;
	if (!is_local(packet->mark) || !is_loopback(seen.from) || !at)
		return REFUSE;
	struct bpf_sock *listener = bpf_get_listener_sock(at);
	return listener && is_own(listener, packet->mark) ? PASS : REFUSE;
}
