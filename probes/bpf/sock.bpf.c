/* socket(2) and bind(2) of crews. */
int sock_create(struct bpf_sock *ctx)
{
    struct config *c = configuration();
    u32 owner;
    if (!c) return REFUSE;
    if (!crew(c, &owner)) return PASS;
    if (ctx->type == STREAM && ctx->protocol == IPPROTO_TCP) return PASS;
    if (ctx->type == DATAGRAM && ctx->protocol == IPPROTO_UDP) return PASS;
    return REFUSE;
}

static __always_inline int bound(struct bpf_sock_addr *ctx)
{
    struct config *c = configuration();
    u32 owner;
    if (!c) return REFUSE;
    if (!crew(c, &owner)) return PASS;
    return bpf_ntohs(ctx->user_port) == c->listener ? REFUSE : PASS;
}
int bind4(struct bpf_sock_addr *ctx) { return bound(ctx); }
int bind6(struct bpf_sock_addr *ctx) { return bound(ctx); }
