/* The fragment's socket protocol and the plan's binary form, version 1.
 *
 * Transport: Unix SOCK_SEQPACKET, one message a packet: `struct ph_message` and up to PH_TEXT_MAX bytes
 * of text; fds by SCM_RIGHTS. Little endian, natural alignment, no implicit padding. A peer whose uid is
 * not the fragment's own is hung up on (SO_PEERCRED). Several connections may be open; each that said
 * HELLO gets every event. Requests are answered in any order, matched by `serial`.
 *
 * A plan travels as a memfd (first donated fd of the message) sealed with F_SEAL_WRITE|SHRINK|GROW|SEAL,
 * so that what was validated is what is executed. The other donated fds fill the slots from 0.
 *
 * Compatible changes: new message types, new op numbers, new flags; a fragment answers what it does not
 * know with ENOSYS. Anything else needs a new PH_VERSION, which HELLO tells.
 */
#ifndef PHANTOM_PROTOCOL_H
#define PHANTOM_PROTOCOL_H

#include <stdint.h>

#define PH_VERSION     1
#define PH_ID_MAX      72 /* with the NUL: 64 hex digits, or 64 for the exec ids of later versions */
#define PH_TEXT_MAX    1024
#define PH_DONATED_MAX 240 /* SCM_MAX_FD is 253 */
#define PH_SLOTS       1024

/* the fds a fragment is born with */
#define PH_FD_LISTEN 3 /* listening SOCK_SEQPACKET socket */
#define PH_FD_STATE  4 /* directory of the pod: exits/ID is written below it */

enum ph_type {
    PH_HELLO = 1,    /* -> PH_OK: value = PH_VERSION, value2 = enum ph_phase; subscribes to events */
    PH_ADOPT = 2,    /* plan run by the fragment on itself; PH_FLAG_CLAIM moves warm -> claimed */
    PH_START = 3,    /* id; plan -> PH_OK once execve succeeded, with exit.started_at, the pidfd and, if any,
                        the console */
    PH_SIGNAL = 4,   /* id; value = signal; PH_FLAG_ALL: everything in its cgroup, else its first process */
    PH_REOPEN = 5,   /* id; one fd: the new log file */
    PH_LIST = 6,     /* -> one PH_ENTRY per process, then PH_OK with value = their number */
    PH_GET = 7,      /* id -> PH_ENTRY, with the pidfd while it runs */
    PH_FORGET = 8,   /* id: an exited process's entry (and exits/ID) is dropped; ENOENT is PH_OK */
    PH_SHUTDOWN = 9, /* kill everything, answer PH_OK, exit 0 */
    PH_CLOSE_STDIN = 10, /* id: closes the fragment's end of a PH_PLAN_STDIN pipe */
    PH_GO = 11,          /* id: a prepared process goes on to its execve -> as PH_START */
    PH_ATTACH =
        12, /* id; PH_FLAG_INPUT and so on, and the writing end of a pipe for each output -> PH_OK with
               the console, if asked for and there is one; PH_DETACHED to the same serial later */
    PH_SOCKET =
        13, /* value = AF_INET or AF_INET6 -> PH_OK with a TCP socket of the pod's network, non-blocking */

    PH_OK = 64,    /* reply */
    PH_ERROR = 65, /* reply: error = errno, value = enum ph_stage, value2 = op index, text */
    PH_ENTRY =
        66, /* reply: id, flags = kind, value = state, value2 = pid in the fragment's pid namespace, exit */
    PH_EXITED = 67,   /* event (serial 0): id, flags = kind, exit */
    PH_RESYNC = 68,   /* event: events were lost because the reader was slow: send PH_LIST */
    PH_DETACHED = 69, /* after PH_OK to PH_ATTACH: the pipes are closed; error = 0, or ENOBUFS: the reader was
                         too slow, and what its pipe had no room for is lost to it */
};

enum ph_phase { PH_WARM = 1, PH_CLAIMED = 2, PH_STOPPING = 3 };
enum ph_state { PH_STARTING = 1, PH_RUNNING = 2, PH_EXITED_STATE = 3, PH_PREPARED = 4 };
enum ph_stage { PH_STAGE_REQUEST = 1, PH_STAGE_DECODE = 2, PH_STAGE_CLONE = 3, PH_STAGE_OP = 4 };

#define PH_FLAG_CLAIM     1u
#define PH_FLAG_ALL       1u
#define PH_FLAG_INPUT     1u /* the console: what is written to it is the process's input */
#define PH_FLAG_STDOUT    2u
#define PH_FLAG_STDERR    4u
#define PH_FLAG_ONCE      8u /* a pipe's writing end is given away: when it is closed, the input has ended */
#define PH_KIND_CONTAINER 1u /* leaves an entry and exits/ID when it ends */
#define PH_KIND_EXEC      2u /* forgotten when it ends, once PH_EXITED is sent */

struct ph_exit {            /* how a process ended; also in exits/ID as one line of JSON */
    int64_t started_at;     /* ns since the epoch; 0: never */
    int64_t finished_at;    /* ns since the epoch; 0: still running */
    int32_t code;           /* exit code, 128 + signal when killed by one */
    int32_t signal;         /* 0 when it exited by itself */
    uint32_t oom;           /* 1: its cgroup saw an oom_kill */
    uint32_t dropped_lines; /* log lines that the log file did not take (disk full) */
};

struct ph_message {
    uint32_t type;
    uint32_t flags;
    uint64_t serial; /* chosen by the requester, echoed; 0 in events */
    int64_t value;
    int64_t value2;
    int32_t error;
    uint32_t text_length; /* bytes that follow */
    char id[PH_ID_MAX];
    struct ph_exit exit;
};

/* ---- the plan ---- */

#define PH_PLAN_MAGIC 0x31504850u /* "PHP1" */

#define PH_PLAN_LOG                                                                                          \
    1u /* stdout and stderr are pipes that the fragment writes to the CRI log (or drops: log_slot -1) */
#define PH_PLAN_STDIN 2u /* stdin is a pipe whose other end the fragment holds open */
#define PH_PLAN_TTY   4u /* stdin, stdout, stderr are a new pty of the container's devpts */
#define PH_PLAN_KILL_REST                                                                                    \
    8u /* when the first process ends, kill what is left in its cgroup (shared pid namespaces) */
#define PH_PLAN_HOLD                                                                                         \
    16u /* PH_START is answered right before EXEC, where the process waits for PH_GO; one that ends before   \
         * leaves nothing, not even an event */

struct ph_plan {
    uint32_t magic;
    uint32_t size;  /* of the whole plan in bytes: the memfd's size */
    uint32_t kind;  /* PH_KIND_*; 0 for ADOPT */
    uint32_t flags; /* PH_PLAN_* */
    uint32_t op_count;
    uint32_t slot_count;  /* donated fds; must equal what came with the message */
    uint64_t clone_flags; /* CLONE_NEWPID and so on, for clone3 */
    int32_t cgroup_slot;  /* CLONE_INTO_CGROUP, or -1 */
    int32_t log_slot;     /* log file opened O_WRONLY|O_APPEND, or -1 */
    int32_t
        kill_slot; /* cgroup.kill (v2, opened for writing) or cgroup.procs (v1, opened for reading), or -1 */
    int32_t oom_slot;      /* memory.events or memory.oom_control: has a line "oom_kill N"; or -1 */
    int32_t stdio_slot[3]; /* donated stdin, stdout, stderr, or -1: /dev/null; ignored under LOG/STDIN/TTY as
                              those say */
    uint32_t reserved;
    char pid_namespace_of[PH_ID_MAX]; /* process whose pid namespace the new one is born in, or "" */
    /* op_count ops follow, each 8-aligned:
     *   u16 number, u16 zero, u32 length of the fields in bytes (a multiple of 8), fields:
     *   u, i: 8 bytes
     *   s, b: u32 length, u32 zero, bytes, one NUL (s and b alike), zeros to the next multiple of 8
     *   v:    u32 count, u32 zero, then count strings as s */
};

/* op flags */
#define PH_OPEN_RECURSIVE 1u /* AT_RECURSIVE: submounts too */
#define PH_OPEN_NOFOLLOW  2u
#define PH_OPEN_OPTIONAL                                                                                     \
    4u /* a missing source leaves the slot empty; ATTACH of an empty slot does nothing                       \
        */
#define PH_OPEN_CREATE      8u         /* make a missing source directory, 0755 */
#define PH_OVERLAY_VOLATILE 1u         /* no sync of the upper layer at unmount (overlayfs "volatile") */
#define PH_OVERLAY_JOINED   (1u << 30) /* only the fallbacks: layers as one string */
#define PH_OVERLAY_CLASSIC  (1u << 31) /* only the last fallback: mount(2) */
#define PH_ATTACH_RECURSIVE 1u         /* attributes apply to submounts as well (recursive read-only) */
#define PH_ATTACH_CREATE                                                                                     \
    2u /* make a missing target: a directory for a directory, an empty file for anything else */

#endif
