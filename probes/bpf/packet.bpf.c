/* UDP goes to the resolver alone; and the last net below all other hooks. */
static __always_inline int on_sendmsg(struct bpf_sock_addr *ctx, u32 *to)
{
	struct settings *s = current_settings();
	if (!s)
		return REFUSE;
	if (!who(ctx, s).hook)
		return PASS;
	return is_resolver(s, to, bpf_ntohs(ctx->user_port)) ? PASS : REFUSE;
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

/* On the slice: packets of sockets that were made in it, from the network header on, after nftables' redirect.
 * No fragment but a first one, no options, no extension header: nothing of that kind is on the way to a listener. */
int egress(struct __sk_buff *packet)
{
	struct settings *s = current_settings();
	if (!s)
		return REFUSE;
	u32 to[4] = { 0, 0, MAPPED, 0 };
	u16 port = 0, fragment = 0;
	u8 first = 0, protocol = 0;
	if (packet->protocol == bpf_htons(0x0800)) {            /* RFC 791 3.1 */
		if (bpf_skb_load_bytes(packet, 0, &first, 1) || bpf_skb_load_bytes(packet, 6, &fragment, 2) ||
		    bpf_skb_load_bytes(packet, 9, &protocol, 1) || bpf_skb_load_bytes(packet, 16, &to[3], 4) ||
		    bpf_skb_load_bytes(packet, 22, &port, 2))
			return REFUSE;
		if (fragment & bpf_htons(0x1fff) || first != 0x45)      /* no options: a source route */
			return REFUSE;
	} else if (packet->protocol == bpf_htons(0x86dd)) {     /* RFC 8200 3 */
		if (bpf_skb_load_bytes(packet, 6, &protocol, 1) || bpf_skb_load_bytes(packet, 24, to, 16) ||
		    bpf_skb_load_bytes(packet, 42, &port, 2))
			return REFUSE;
	} else {
		return REFUSE;
	}
	port = bpf_ntohs(port);
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return REFUSE;
	if (is_resolver(s, to, port))
		return PASS;
	bool local = is_mapped(to) ? to[3] == LOOPBACK4
				   : to[0] == 0 && to[1] == 0 && to[2] == 0 && to[3] == bpf_htonl(1);
	return protocol == IPPROTO_TCP && local && port == s->listener ? PASS : REFUSE;
}
