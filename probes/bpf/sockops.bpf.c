/* Joins a socket's origin with the port that it connects from, before the SYN leaves: whois has its answer in time. */
int sockops(struct bpf_sock_ops *ctx)
{
    if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB) return 1;
    struct conn_key key = {};
    key.netns = bpf_get_netns_cookie(ctx);
    key.port = ctx->local_port;                                       /* host order */
    u32 *s = (u32 *)key.src;
    /* Read every field on the straight path: in branches clang sinks the loads into one at ctx+off, which the verifier
     * refuses. */
    volatile struct bpf_sock_ops *v = ctx;
    u32 family = v->family, v4 = v->local_ip4;
    u32 v6[4] = { v->local_ip6[0], v->local_ip6[1], v->local_ip6[2], v->local_ip6[3] };
    if (family == 2) {
        s[2] = bpf_htonl(0xffff); s[3] = v4;
    } else {
        s[0] = v6[0]; s[1] = v6[1]; s[2] = v6[2]; s[3] = v6[3];
    }
    struct bpf_sock *sk = ctx->sk;
    if (!sk) return 1;
    struct origin *o = origins.sk_storage_get(sk, 0, 0);
    if (o) conns.update(&key, o);
    else conns.delete(&key);                                          /* somebody else's use of the tuple */
    return 1;
}
