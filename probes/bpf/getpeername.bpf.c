/* getpeername(2) goes on to show whom the crew dialled. */
int getpeername4(struct bpf_sock_addr *ctx)
{
    if (!ctx->sk) return PASS;
    struct origin *o = origins.sk_storage_get(ctx->sk, 0, 0);
    if (!o) return PASS;
    ctx->user_ip4 = ((u32 *)o->dst)[3];
    ctx->user_port = bpf_htons(o->port);
    return PASS;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
    if (!ctx->sk) return PASS;
    struct origin *o = origins.sk_storage_get(ctx->sk, 0, 0);
    if (!o) return PASS;
    u32 *d = (u32 *)o->dst;
    ctx->user_ip6[0] = d[0]; ctx->user_ip6[1] = d[1]; ctx->user_ip6[2] = d[2]; ctx->user_ip6[3] = d[3];
    ctx->user_port = bpf_htons(o->port);
    return PASS;
}
