/* Which sockets a crew may make, and whose a socket is.  AF_UNIX and the like do not pass here. */
int sock_create(struct bpf_sock *socket)
{
	struct settings *s = current_settings();
	if (!s)
		return REFUSE;
	u32 mark = task_mark();
	bool inside = task_inside(s);
	if (!mark && !inside)
		return PASS;
	u32 protocol = socket->protocol;
	if (!(socket->type == 1 && protocol == IPPROTO_TCP) && !(socket->type == 2 && protocol == IPPROTO_UDP))
		return REFUSE;                                  /* SOCK_STREAM 1, SOCK_DGRAM 2 */
	struct maker maker = { .cgroup = bpf_get_current_cgroup_id(), .owner = mark, .inside = inside };
	return makers.sk_storage_get(socket, &maker, BPF_SK_STORAGE_GET_F_CREATE) ? PASS : REFUSE;
}

/* The mark of packets within one workload. */
static __always_inline u32 local_mark(u32 owner, u64 cgroup)
{
	return LOCAL_MARK | (owner ? owner & LOCAL_OWNER : (LOCAL_OWNER + 1) | ((u32)cgroup & LOCAL_OWNER));
}

struct crew {
	u64 cgroup;
	u64 start;                                              /* with HOOK_CGROUP: what is one start, whatever it makes below */
	u32 owner;
	u8 hook;                                                /* 0: no crew */
	bool inside;                                            /* the socket was made in the slice */
};

/* By the mark, else the task's cgroup, else whoever made the socket. */
static __always_inline struct crew who(struct bpf_sock_addr *ctx, struct settings *s)
{
	struct crew crew = { .cgroup = bpf_get_current_cgroup_id(), .owner = task_mark() };
	struct maker *maker = ctx->sk ? makers.sk_storage_get(ctx->sk, 0, 0) : 0;
	crew.inside = maker && maker->inside;
	if (crew.owner) {
		crew.hook = HOOK_MARK;
	} else if (task_in_slice(s)) {
		crew.hook = HOOK_CGROUP;
		crew.start = bpf_get_current_ancestor_cgroup_id(s->level + 1);
	} else if ((crew.start = task_joined())) {
		crew.hook = HOOK_CGROUP;
	} else if (maker) {
		crew.hook = HOOK_SOCKET;
		crew.owner = maker->owner;
		crew.cgroup = maker->cgroup;
	}
	return crew;
}

/* On the slice.  Joining a multicast group: the kernel reports its name to the neighbours, in packets that are no socket's
 * and pass no other hook.  Choosing who of a group gets a connection (SO_REUSEPORT): packet's programs choose as the kernel
 * does.  An address that is not this host's (IP_FREEBIND, IP_TRANSPARENT): the enforcer would answer to it, on the wire.  A
 * device: a second socket could have the ends of another's.  seccomp refuses them all, where a workload has it; no
 * directive of systemd's does. */
int setsockopt(struct bpf_sockopt *ctx)
{
	int level = ctx->level, option = ctx->optname;
	if (!current_settings())
		return REFUSE;
	if (ctx->optlen > 4096)
		ctx->optlen = 0;                                /* as it is: more than a page is not copied for us */
	if (level == 0)                                         /* IPPROTO_IP */
		return option == 15 || option == 19 || option == 35 || option == 39 || option == 41 || option == 42 || option == 46 || option == 48 ? REFUSE : PASS;
	if (level == IPPROTO_IPV6)
		return option == 20 || option == 27 || option == 42 || option == 46 || option == 48 || option == 75 ||
		       option == 78 ? REFUSE : PASS;
	if (level == 1)                                         /* SOL_SOCKET: SO_ATTACH_REUSEPORT_CBPF, _EBPF; devices */
		return option == 51 || option == 52 || option == 25 || option == 62 ? REFUSE : PASS;
	return PASS;
}
