/* The fragment's socket protocol and the plan's binary format, version 1.
 *
 * Transport: Unix SOCK_SEQPACKET, one message per packet of at most PH_PACKET_MAX bytes: `struct ph_message`,
 * then `text_length` bytes; fds by SCM_RIGHTS. Little endian, natural alignment, no implicit padding. A peer
 * with another uid than the fragment's is disconnected (SO_PEERCRED). Several connections may be open; each
 * that sent HELLO gets every event. Requests are answered in any order, matched by `serial`.
 *
 * A plan is sent as a memfd (first donated fd of the message) sealed with F_SEAL_WRITE|SHRINK|GROW|SEAL, so
 * that it cannot change after its validation. The other donated fds fill the slots from 0.
 *
 * Compatibility between daemons and fragments of different releases:
 * - Request types, ops, and flags are added, never changed. HELLO lists those that a fragment supports; the
 *   daemon uses no others. A fragment answers ENOSYS to unknown ones.
 * - Structs grow at their end and contain their own size. Fields missing in a shorter one are zero. Unknown
 *   fields of a longer one are accepted by a fragment if they are zero, else it answers ENOSYS; a daemon
 *   ignores them. Reserved fields are zero.
 * - Anything else needs a new version. HELLO reports the range of versions that a fragment supports; both
 *   sides then use the newest common one. HELLO, SHUTDOWN and the first PH_MESSAGE_MIN bytes of a message are
 *   the same in every version: so a daemon can report the versions of any fragment, and shut it down.
 */
#ifndef PHANTOM_PROTOCOL_H
#define PHANTOM_PROTOCOL_H

#include <stdint.h>

#define PH_VERSION_OLDEST 1
#define PH_VERSION_NEWEST 1

#define PH_PACKET_MAX  4096
#define PH_ID_MAX      160 /* bytes of an id: one name, or two separated by a slash, as "task/exec" */
#define PH_ID_SIZE     168 /* of its field: padded with zeros, at least one */
#define PH_DONATED_MAX 240 /* SCM_MAX_FD is 253 */
#define PH_SLOTS       1024

/* fds of a fragment at its start */
#define PH_FD_LISTEN 3 /* listening SOCK_SEQPACKET socket */
#define PH_FD_STATE  4 /* directory of the pod: exits/ID is written below it */

enum ph_type {
    PH_HELLO = 1,    /* value and value2: oldest and newest version of the daemon -> PH_OK, its text
                        struct ph_hello and features; subscribes to events */
    PH_ADOPT = 2,    /* plan run by the fragment on itself; PH_ADOPT_CLAIM moves warm -> claimed */
    PH_START = 3,    /* id (of a container: without slash); plan -> PH_OK once execve succeeded, with
                        exit.started_at, the pidfd and, if any, the console */
    PH_SIGNAL = 4,   /* id; value = signal; to its first process, or with PH_SIGNAL_ALL to its whole cgroup */
    PH_REOPEN = 5,   /* id; one fd: the new log file */
    PH_LIST = 6,     /* -> one PH_ENTRY per process, then PH_OK with value = their number */
    PH_GET = 7,      /* id -> PH_ENTRY, with the pidfd while it runs */
    PH_FORGET = 8,   /* id: an exited process's entry (and exits/ID) is dropped; ENOENT is PH_OK */
    PH_SHUTDOWN = 9, /* kill everything, answer PH_OK, exit 0 */
    PH_CLOSE_STDIN = 10, /* id: closes the fragment's end of a PH_PLAN_STDIN pipe */
    PH_GO = 11,          /* id: a prepared process continues to its execve -> as PH_START */
    PH_ATTACH = 12,      /* id; PH_ATTACH_* and the write end of a pipe for each output -> PH_OK with the
                            console, if asked for and there is one; PH_DETACHED to the same serial later */
    PH_SOCKET =
        13,       /* value = AF_INET or AF_INET6 -> PH_OK with a non-blocking TCP socket of the pod's network
                   */
    PH_KEEP = 14, /* id: a name; one fd: kept under it, in place of an earlier one; none: dropped. Fds that a
                     daemon leaves for a later one */
    PH_KEPT = 15, /* id -> PH_OK with that fd, which stays kept */

    PH_OK = 64,    /* reply */
    PH_ERROR = 65, /* reply: error = errno, value = enum ph_stage, value2 = op index, text */
    PH_ENTRY =
        66, /* reply: id, flags = kind, value = state, value2 = pid in the fragment's pid namespace, exit */
    PH_EXITED = 67,   /* event (serial 0): id, flags = kind, exit */
    PH_RESYNC = 68,   /* event: events were lost because the reader was slow: send PH_LIST */
    PH_DETACHED = 69, /* after PH_OK to PH_ATTACH: the pipes are closed; error = 0, or ENOBUFS: the reader was
                         too slow, and output that did not fit into its pipe is lost */
};

enum ph_phase { PH_WARM = 1, PH_CLAIMED = 2, PH_STOPPING = 3 };
enum ph_state { PH_STARTING = 1, PH_RUNNING = 2, PH_EXITED_STATE = 3, PH_PREPARED = 4 };
enum ph_stage { PH_STAGE_REQUEST = 1, PH_STAGE_DECODE = 2, PH_STAGE_CLONE = 3, PH_STAGE_OP = 4 };

/* flags of requests */
#define PH_ADOPT_CLAIM   1u
#define PH_SIGNAL_ALL    1u
#define PH_ATTACH_INPUT  1u /* send the console: data written to it is the process's input */
#define PH_ATTACH_STDOUT 2u
#define PH_ATTACH_STDERR 4u
#define PH_ATTACH_ONCE   8u /* send the only write end of stdin: closing it ends the input */
#define PH_ATTACH_FLAGS  (PH_ATTACH_INPUT | PH_ATTACH_STDOUT | PH_ATTACH_STDERR | PH_ATTACH_ONCE)

#define PH_KIND_ADOPT     0u
#define PH_KIND_CONTAINER 1u /* leaves an entry and exits/ID when it ends */
#define PH_KIND_EXEC                                                                                         \
    2u /* dropped when it ends, after PH_EXITED, except with PH_PLAN_KEEP; has no exit record */

struct ph_exit {            /* how a process ended; also in exits/ID as one line of JSON */
    int64_t started_at;     /* ns since the epoch; 0: never */
    int64_t finished_at;    /* ns since the epoch; 0: still running */
    int32_t code;           /* exit code, or 128 + signal */
    int32_t signal;         /* 0 if it was not killed by one */
    uint32_t oom;           /* 1: its cgroup saw an oom_kill */
    uint32_t dropped_lines; /* log lines that could not be written (disk full) */
};

#define PH_MESSAGE_MIN 248u /* bytes of version 1's */

struct ph_message {
    uint32_t size; /* of this struct; the text follows */
    uint32_t type;
    uint32_t flags;
    uint32_t text_length; /* bytes that follow */
    uint64_t serial;      /* chosen by the requester, echoed; 0 in events */
    int64_t value;
    int64_t value2;
    int32_t error;
    uint32_t reserved;
    char id[PH_ID_SIZE];
    struct ph_exit exit;
};

/* The text of the answer to PH_HELLO: this struct, then `struct ph_feature`s to its end. */
struct ph_hello {
    uint32_t size; /* of this struct; the features follow */
    uint32_t oldest;
    uint32_t newest; /* range of versions that the fragment supports */
    uint32_t phase;  /* enum ph_phase */
};

enum ph_feature_kind {
    PH_FEATURE_REQUEST = 1, /* number: enum ph_type */
    PH_FEATURE_OP = 2,      /* number: the op's */
    PH_FEATURE_PLAN = 3,    /* number: PH_KIND_* */
};

struct ph_feature {
    uint16_t kind; /* unknown kinds are ignored by the daemon */
    uint16_t number;
    uint32_t flags; /* supported by the fragment */
};

/* ---- the plan ---- */

#define PH_PLAN_MAGIC 0x31504850u /* "PHP1" */

#define PH_PLAN_LOG                                                                                          \
    1u /* stdout and stderr are pipes that the fragment writes to the CRI log (or drops: log_slot -1) */
#define PH_PLAN_STDIN 2u /* stdin is a pipe; the fragment holds its write end open */
#define PH_PLAN_TTY   4u /* stdin, stdout, stderr are a new pty of the container's devpts */
#define PH_PLAN_KILL_REST                                                                                    \
    8u /* when the first process ends, kill what is left in its cgroup (shared pid namespaces) */
#define PH_PLAN_HOLD                                                                                         \
    16u /* PH_START is answered right before EXEC, where the process waits for PH_GO; if it ends before,     \
         * nothing is left, and no event is sent */
#define PH_PLAN_KEEP 32u /* an exec's entry stays after its end, until PH_FORGET, as a container's */
#define PH_PLAN_UNREAD                                                                                       \
    64u /* with TTY: only the caller of the start reads the pty; the fragment keeps it for PH_GET */
#define PH_PLAN_FLAGS                                                                                        \
    (PH_PLAN_LOG | PH_PLAN_STDIN | PH_PLAN_TTY | PH_PLAN_KILL_REST | PH_PLAN_HOLD | PH_PLAN_KEEP |           \
     PH_PLAN_UNREAD)

#define PH_PLAN_HEAD_MIN 240u /* bytes of version 1's */

struct ph_plan {
    uint32_t magic;
    uint32_t size;      /* of the whole plan in bytes: the memfd's size */
    uint32_t head_size; /* of this struct, a multiple of 8; the ops follow */
    uint32_t kind;      /* PH_KIND_* */
    uint32_t flags;     /* PH_PLAN_* */
    uint32_t op_count;
    uint32_t slot_count; /* donated fds; must equal the number received */
    uint32_t reserved;
    uint64_t clone_flags; /* CLONE_NEWPID and so on, for clone3 */
    int32_t cgroup_slot;  /* CLONE_INTO_CGROUP, or -1 */
    int32_t log_slot;     /* log file opened O_WRONLY|O_APPEND, or -1 */
    int32_t
        kill_slot; /* cgroup.kill (v2, opened for writing) or cgroup.procs (v1, opened for reading), or -1 */
    int32_t oom_slot;      /* memory.events or memory.oom_control: has a line "oom_kill N"; or -1 */
    int32_t stdio_slot[3]; /* donated stdin, stdout, stderr, or -1: /dev/null; ignored with LOG, STDIN, TTY */
    uint32_t reserved2;
    char pid_namespace_of[PH_ID_SIZE]; /* process whose pid namespace the new one is started in, or "" */
    /* op_count ops follow, each 8-aligned:
     *   u16 number, u16 zero, u32 length of the fields in bytes (a multiple of 8), fields:
     *   u, i: 8 bytes
     *   s, b: u32 length, u32 zero, bytes, one NUL (s and b alike), zeros to the next multiple of 8
     *   v:    u32 count, u32 zero, then count strings as s */
};

/* flags of ops */
#define PH_OP_OPEN_RECURSIVE   1u         /* AT_RECURSIVE: submounts too */
#define PH_OP_OPEN_CREATE      2u         /* make a missing source directory, 0755 */
#define PH_OP_OVERLAY_VOLATILE 1u         /* no sync of the upper layer at unmount (overlayfs "volatile") */
#define PH_OP_OVERLAY_JOINED   (1u << 30) /* only the fallbacks: layers as one string */
#define PH_OP_OVERLAY_CLASSIC  (1u << 31) /* only the last fallback: mount(2) */
#define PH_OP_ATTACH_RECURSIVE 1u         /* attributes apply to submounts as well (recursive read-only) */
#define PH_OP_ATTACH_CREATE                                                                                  \
    2u /* make a missing target: a directory for a directory, an empty file for anything else */
#define PH_OP_REMOUNT_RECURSIVE    1u
#define PH_OP_ATTRIBUTES_RECURSIVE 1u /* on its submounts too */

#endif
