/* The mark follows the task.  Layout: events/task/task_newtask/format, which the loader compares. */
struct newtask_arguments {
	u64 common;
	s32 pid;
	char comm[16];
	u64 clone_flags __attribute__((aligned(8)));
	s16 oom_score_adj;
};

int newtask(struct newtask_arguments *arguments)
{
	if (arguments->clone_flags & 0x10000)                   /* CLONE_THREAD: the same tgid */
		return 0;
	u32 parent = bpf_get_current_pid_tgid() >> 32, child = arguments->pid;
	u32 *from = owners.lookup(&parent), *to = owners.lookup(&child);
	if (from && to)
		*to = *from;                                    /* also where it is 0: pids are used again */
	return 0;
}
