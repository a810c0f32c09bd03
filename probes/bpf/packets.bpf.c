/* The last net, at the slice: whatever made a packet of a crew's socket, it goes to loopback by TCP or to the resolver. */
static __always_inline int to_resolver(struct config *c, struct __sk_buff *skb, u32 at, u32 a, u32 b, u32 d, u32 e)
{
    u16 port = 0;
    if (bpf_skb_load_bytes(skb, at + 2, &port, 2) < 0) return REFUSE;
    return is_resolver(c, a, b, d, e, bpf_ntohs(port)) ? PASS : REFUSE;
}

int egress(struct __sk_buff *skb)
{
    struct config *c = configuration();
    u8 first = 0, proto = 0;
    u32 to[4] = {};
    if (!c || bpf_skb_load_bytes(skb, 0, &first, 1) < 0) return REFUSE;
    if (first >> 4 == 4) {
        if (bpf_skb_load_bytes(skb, 9, &proto, 1) < 0 || bpf_skb_load_bytes(skb, 16, &to[3], 4) < 0) return REFUSE;
        if (proto == IPPROTO_TCP && to[3] == bpf_htonl(0x7f000001)) return PASS;
        if (proto != IPPROTO_UDP && proto != IPPROTO_TCP) return REFUSE;
        return to_resolver(c, skb, (first & 15) * 4, 0, 0, bpf_htonl(0xffff), to[3]);
    }
    if (first >> 4 == 6) {
        if (bpf_skb_load_bytes(skb, 6, &proto, 1) < 0 || bpf_skb_load_bytes(skb, 24, to, 16) < 0) return REFUSE;
        if (proto == IPPROTO_TCP && !to[0] && !to[1] && !to[2] && to[3] == bpf_htonl(1)) return PASS;
        if (proto != IPPROTO_UDP && proto != IPPROTO_TCP) return REFUSE;
        return to_resolver(c, skb, 40, to[0], to[1], to[2], to[3]);
    }
    return REFUSE;
}
