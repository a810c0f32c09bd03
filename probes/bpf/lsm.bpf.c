/* BPF LSM, where the kernel has it: doors that neither cgroup hooks nor packets see.  Only crews are refused anything, and
 * a program is not reached where an earlier one refused.  OFFSET_... are the running kernel's own (probes/btf.py): of
 * structs nothing else is known here, for the headers may be another kernel's. */
#ifdef LSM

#define EPERM 1
#define EPROTONOSUPPORT 93
#define EAFNOSUPPORT 97
#define DEPTH 8                                                 /* cgroups from a start's down that are looked through */

/* An error, or 0.  Since 6.12 the verifier wants to know that it is from -4095 to 0, and does not where the compiler makes
 * `c ? -EPERM : 0` the negative of c: it is not told which number this is. */
static __always_inline int refusal(bool refused, int error)
{
	if (!refused)
		return 0;
	asm volatile("" : "+r"(error));
	return error;
}

static __always_inline u64 word_at(u64 place)
{
	u64 found = 0;
	bpf_probe_read_kernel(&found, sizeof(found), (void *)place);
	return found;
}

static __always_inline bool is_crew(struct settings *s)
{
	return s && (task_mark() || task_inside(s));
}

/* The cgroup of the task's start: right below the slice, or a joined one.  0: it is in none. */
static __always_inline u64 own_start(struct settings *s)
{
	return task_in_slice(s) ? bpf_get_current_ancestor_cgroup_id(s->level + 1) : task_joined();
}

/* Whether `cgroup` (struct cgroup *) is that of the start, or lies in it. */
static __always_inline bool lies_in(u64 cgroup, u64 start)
{
	u64 node = word_at(cgroup + OFFSET_cgroup_kn);
	#pragma unroll
	for (int i = 0; i < DEPTH; i++) {
		if (!start || !node)
			return false;
		if (word_at(node + OFFSET_kernfs_node_id) == start)
			return true;
		node = word_at(node + OFFSET_kernfs_node_parent);
	}
	return false;
}

/* Families and protocols, for sockets that sock_create's cgroup hook does not see as well. */
int lsm__socket_create(u64 *ctx)
{
	int family = ctx[0], type = ctx[1] & 0xf, protocol = ctx[2], kernel = ctx[3];
	if (kernel || !is_crew(current_settings()))
		return 0;
	if (family == 1)                                        /* AF_UNIX */
		return 0;
	if (family == 16)                                       /* AF_NETLINK: NETLINK_ROUTE */
		return refusal(protocol != 0, -EPROTONOSUPPORT);
	if (family != 2 && family != 10)                        /* AF_INET, AF_INET6 */
		return -EAFNOSUPPORT;
	if ((type == 1 && (!protocol || protocol == IPPROTO_TCP)) || (type == 2 && (!protocol || protocol == IPPROTO_UDP)))
		return 0;
	return -EPROTONOSUPPORT;
}

/* An abstract name that somebody outside of the workload's start serves; Weir's own control socket, by its name. */
static __always_inline int on_unix(u64 peer)
{
	struct settings *s = current_settings();
	u64 name = word_at(peer + OFFSET_unix_sock_addr);
	if (!name || !is_crew(s))
		return 0;
	char path[sizeof(CONTROL)] = {};
	bpf_probe_read_kernel(path, sizeof(path), (void *)(name + OFFSET_unix_address_name + 2));       /* sun_path */
	if (path[0]) {
		u8 differs = 0;                                 /* without branches: the verifier walks them all */
		#pragma unroll
		for (int i = 0; i < sizeof(CONTROL); i++)
			differs |= path[i] ^ CONTROL[i];
		return refusal(!differs, -EPERM);
	}
	return refusal(!lies_in(word_at(peer + OFFSET_sock_sk_cgrp_data), own_start(s)), -EPERM);
}

int lsm__unix_stream_connect(u64 *ctx)
{
	return on_unix(ctx[1]);
}

int lsm__unix_may_send(u64 *ctx)
{
	u64 peer = word_at(ctx[1] + OFFSET_socket_sk);
	return peer ? on_unix(peer) : 0;
}

/* Memory, descriptors and registers of whoever is not of the same start. */
int lsm__ptrace_access_check(u64 *ctx)
{
	struct settings *s = current_settings();
	if (!is_crew(s))
		return 0;
	u32 tgid = word_at(ctx[0] + OFFSET_task_struct_tgid), mark = task_mark(), *other = owners.lookup(&tgid);
	if (mark && other && *other == mark)
		return 0;
	u64 cgroup = word_at(word_at(ctx[0] + OFFSET_task_struct_cgroups) + OFFSET_css_set_dfl_cgrp);
	return refusal(!lies_in(cgroup, own_start(s)), -EPERM);
}

int lsm__bpf(u64 *ctx)
{
	return refusal(is_crew(current_settings()), -EPERM);
}

int lsm__perf_event_open(u64 *ctx)
{
	return refusal(is_crew(current_settings()), -EPERM);
}

#endif
