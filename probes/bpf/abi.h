/* The only structs that C and Python share (probes/abi.py): fixed widths, no implicit padding.
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports are in host order. */

#define HOOK_MARK 1             /* how a crew was known: by the task's mark, */
#define HOOK_CGROUP 2           /* by the task's cgroup, */
#define HOOK_SOCKET 3           /* or by who made the socket */

#define VERDICT_REDIRECTED 1
#define VERDICT_DNS 2           /* let through to the resolver */
#define VERDICT_REFUSED 3
#define VERDICT_LOCAL 4         /* to a listener of the same workload, on loopback */
#define VERDICT_ELSEWHERE 8     /* no connect, but its outcome: connected past the rewrite (sockops) */

/* Of sockets, and so of packets, whose connect was found to go to a listener of the same workload, whose number is the
 * rest.  nftables lets such packets pass between loopback addresses and nowhere else, the probes to that workload's
 * listeners alone; a crew cannot set a mark (CAP_NET_ADMIN). */
#define LOCAL_MARK 0x57650000
#define LOCAL_MASK 0xffff0000
#define LOCAL_OWNER 0x7fff      /* the number's bits; the highest one: of a cgroup, where there is no owner */

/* Turns of each workload: so many a second, so many at once. */
#define TURN_CONNECT 1
#define TURN_QUESTION 2         /* a datagram to the resolver, or what opens a stream to it */
#define CONNECTS 500
#define CONNECTS_AT_ONCE 1000
#define QUESTIONS 200
#define QUESTIONS_AT_ONCE 400

struct settings {               /* array of one */
	u64 slice;              /* id of the crews' cgroup: its directory's inode */
	u64 netns;              /* SO_NETNS_COOKIE of the agent's network namespace */
	u32 level;              /* its depth below the root of cgroup v2 */
	u16 listener;           /* TCP port on 127.0.0.1 and ::1 */
	u16 resolver_port;      /* 0: no DNS server may be asked */
	u8 resolver[16];
};

#define JOINED 16               /* cgroups outside of the slice that count as in it: array, no gap before its end */

struct joined {
	u64 cgroup;             /* id; 0: no more of them */
	u32 level;              /* as in settings */
	u32 pad;
};

struct origin {                 /* one connect: kept with its socket, joined to the connection, written to the ring */
	u64 cookie;             /* of the socket */
	u64 cgroup;             /* id; of the task, with HOOK_SOCKET of the one that made the socket */
	u64 when;               /* CLOCK_MONOTONIC, nanoseconds */
	u32 owner;              /* the mark; 0: none */
	u32 tgid;               /* initial pid namespace */
	u8 destination[16];
	u16 port;
	u8 family;              /* 4 or 6, as asked */
	u8 hook;
	u8 verdict;
	u8 pad[3];
};

struct connection {             /* a handshake, as both sides see it: of two sockets that have the same address and port */
	u64 netns;              /* (SO_BINDTODEVICE; one after the other) only one has sent this SYN */
	u8 address[16];         /* whose connect it is */
	u32 sequence;           /* initial sequence number, RFC 9293 3.4.1 */
	u16 port;
	u8 pad[2];
};

struct place {                  /* on loopback, of a target or an egress entry: never a workload's own */
	u8 address[16];
	u16 port;
	u8 pad[6];
};

struct turn {                   /* whose, and of what */
	u64 cgroup;             /* id, where there is no owner */
	u32 owner;
	u32 what;
};

struct over {                   /* what came out of turn, until the agent takes the count */
	u64 refused;
	u64 unwritten;          /* within the workload: let through, and not in the ring */
};

struct maker {                  /* who made a socket: kept with it */
	u64 cgroup;
	u32 owner;
	u32 inside;             /* made in the slice: nftables knows its packets */
};
