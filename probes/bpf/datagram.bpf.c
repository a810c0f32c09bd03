/* sendto(2), sendmsg(2) with an address: a crew's datagrams go to the resolver, or nowhere. */
static __always_inline int sent(struct bpf_sock_addr *ctx, int family)
{
    struct config *c = configuration();
    u32 owner, a = 0, b = 0, d = bpf_htonl(0xffff), e;
    if (!c) return REFUSE;
    if (!crew(c, &owner)) return PASS;
    if (family == 4) {
        e = ctx->user_ip4;
    } else {
        a = ctx->user_ip6[0]; b = ctx->user_ip6[1]; d = ctx->user_ip6[2]; e = ctx->user_ip6[3];
    }
    return is_resolver(c, a, b, d, e, bpf_ntohs(ctx->user_port)) ? PASS : REFUSE;
}
int sendmsg4(struct bpf_sock_addr *ctx) { return sent(ctx, 4); }
int sendmsg6(struct bpf_sock_addr *ctx) { return sent(ctx, 6); }
