/* A workload's turn, so that none keeps the others from theirs: connects fill the ring and the recording, questions the
 * resolver's socket.  Virtual scheduling (ITU-T I.371 A, GCRA): a time for each workload that goes on by one step a turn
 * and is late by `at_once` steps at most; it may be ahead of the clock by none. */
#define SECOND 1000000000ULL

static __always_inline struct over *count_over(struct turn *turn)
{
	struct over none = {}, *over = overs.lookup(turn);
	if (over)
		return over;
	overs.insert(turn, &none);
	return overs.lookup(turn);
}

/* False where it cannot be told, too. */
static __always_inline bool in_turn(struct turn *turn, u64 rate, u64 at_once)
{
	u64 now = bpf_ktime_get_ns(), span = at_once * (SECOND / rate), first = now > span ? now - span : 0;
	u64 *next = turns.lookup(turn);
	if (!next) {
		turns.insert(turn, &first);
		next = turns.lookup(turn);
		if (!next)
			return false;
	}
	if (*next < first)
		*next = first;
	if (*next > now)
		return false;
	__sync_fetch_and_add(next, SECOND / rate);
	return true;
}

/* A cgroup that a start makes below its own is no new turn. */
static __always_inline struct turn turn_to_connect(struct crew *crew)
{
	struct turn turn = { .owner = crew->owner, .what = TURN_CONNECT };
	if (!crew->owner)
		turn.cgroup = crew->start ? crew->start : crew->cgroup;
	return turn;
}
