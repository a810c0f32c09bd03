/* Identity follows the task: a child has its parent's mark, whatever becomes of the parent. */
struct newtask_args {      /* tracefs events/task/task_newtask/format; the loader compares it before it loads */
    u64 common;
    s32 pid;
    char comm[16];
    u64 clone_flags __attribute__((aligned(8)));
    s16 oom_score_adj;
};

int newtask(struct newtask_args *args)
{
    if (args->clone_flags & 0x10000) return 0;                       /* CLONE_THREAD */
    u32 parent = bpf_get_current_pid_tgid() >> 32, child = args->pid;
    u32 *from = owners.lookup(&parent), *to = owners.lookup(&child);
    if (from && to) *to = *from;                                      /* always written: a reused pid is overwritten */
    return 0;
}
