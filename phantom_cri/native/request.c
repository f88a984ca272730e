#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "attach.h"
#include "exit_record.h"
#include "keep.h"
#include "kernel.h"
#include "launch.h"
#include "process.h"
#include "request.h"
#include "shutdown.h"

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static bool is_claimed;
static int fragment = -1;

void requests_init(int fragment_pidfd)
{
    fragment = fragment_pidfd;
}

static int refuse(struct request *request, int error, const char *text)
{
    struct failure failure;

    failure_set(PH_STAGE_REQUEST, error, -1, text, &failure);
    reply_failure(request->from, &failure);
    return -1;
}

static struct process *find(struct request *request)
{
    struct process *process = process_find(request->message.id);

    if (!process)
        refuse(request, ENOENT, "no such process");
    return process;
}

/* ---- plans ---- */

struct mapping {
    void *memory;
    size_t size;
    struct plan plan;
};

static void mapping_deinit(struct mapping *mapping)
{
    if (mapping->memory)
        munmap(mapping->memory, mapping->size);
}

/* Maps and checks the plan, which is the first fd. */
static int mapping_init(struct request *request, uint32_t kinds, struct mapping *mapping,
                        struct failure *failure)
{
    struct stat status;
    int seals = request->fd_count ? fcntl(request->fds[0], F_GET_SEALS) : -1;
    void *memory;

    mapping->memory = NULL;
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(request->fds[0], &status) < 0 || status.st_size <= 0 ||
        status.st_size > PLAN_SIZE_MAX) {
        failure_set(PH_STAGE_REQUEST, EINVAL, -1, "the plan must be a sealed memfd", failure);
        return -EINVAL;
    }
    memory = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, request->fds[0], 0);
    if (memory == MAP_FAILED) {
        failure_set(PH_STAGE_REQUEST, errno, -1, "mmap", failure);
        return -failure->error;
    }
    mapping->memory = memory;
    mapping->size = (size_t)status.st_size;
    return plan_open(memory, mapping->size, request->fd_count - 1, kinds, &mapping->plan, failure);
}

static void adopted(struct request *request)
{
    is_claimed = is_claimed || request->message.flags & PH_ADOPT_CLAIM;
    reply_ok(request->from, 0, 0);
}

static void run_on_self(struct request *request)
{
    __attribute__((cleanup(mapping_deinit))) struct mapping mapping = {0};
    struct failure failure;
    static struct launch launch;
    int result = mapping_init(request, 1u << PH_KIND_ADOPT, &mapping, &failure);

    if (result == 0) {
        launch_init(&mapping.plan, request->fds + 1, fragment, &launch);
        result = launch_run(&launch, &failure);
        launch_deinit(&launch);
    }
    if (result < 0) {
        reply_failure(request->from, &failure);
        return;
    }
    adopted(request);
}

static void adopt(struct request *request)
{
    if (request->message.flags & PH_ADOPT_CLAIM && (is_claimed || shutdown_is_begun()))
        refuse(request, EBUSY, "claimed already");
    else if (request->fd_count)
        run_on_self(request);
    else
        adopted(request);
}

static void start(struct request *request)
{
    __attribute__((cleanup(mapping_deinit))) struct mapping mapping = {0};
    struct failure failure;
    const char *id = request->message.id;
    int result;

    if (shutdown_is_begun()) {
        refuse(request, ESHUTDOWN, "shutting down");
        return;
    }
    if (!id_is_sound(id) || process_find(id)) {
        refuse(request, id_is_sound(id) ? EEXIST : EINVAL, "id");
        return;
    }
    result = mapping_init(request, 1u << PH_KIND_CONTAINER | 1u << PH_KIND_EXEC, &mapping, &failure);
    if (result == 0 && mapping.plan.head.kind == PH_KIND_CONTAINER && !id_is_file_name(id)) {
        failure_set(PH_STAGE_REQUEST, EINVAL, -1, "the id of a container names its exit record", &failure);
        result = -EINVAL;
    }
    if (result == 0)
        result = process_start(id, &mapping.plan, request->fds + 1, request->from, &failure);
    if (result < 0)
        reply_failure(request->from, &failure);
}

/* ---- the rest ---- */

static enum ph_phase phase(void)
{
    return shutdown_is_begun() ? PH_STOPPING : is_claimed ? PH_CLAIMED : PH_WARM;
}

static void list(struct request *request)
{
    connection_list(request->from, process_list);
}

static void go(struct request *request)
{
    struct process *process = find(request);
    int result = process ? process_go(process, request->from) : 0;

    if (result < 0)
        refuse(request, result, "go");
}

static void send_signal(struct request *request)
{
    struct process *process = find(request);
    int64_t signal = request->message.value;
    int result;

    if (!process)
        return;
    if (signal < 0 || signal > 64) {
        refuse(request, EINVAL, "signal");
        return;
    }
    result = process_signal(process, (int)signal, request->message.flags & PH_SIGNAL_ALL);
    if (result < 0)
        refuse(request, result, "signal");
    else
        reply_ok(request->from, 0, 0);
}

static void reopen(struct request *request)
{
    struct process *process = find(request);

    if (!process)
        return;
    if (request->fd_count != 1) {
        refuse(request, EINVAL, "one fd, the new log file");
        return;
    }
    if (process->phase != PROCESS_EXITED)
        log_reopen(&process->log, fd_take(&request->fds[0]));
    reply_ok(request->from, 0, 0);
}

static void get(struct request *request)
{
    struct process *process = find(request);
    struct ph_message message;
    int fds[2];

    if (!process)
        return;
    process_entry(process, &message);
    fds[0] = process->pidfd;
    fds[1] = process->console;
    reply(request->from, &message, fds, process->pidfd < 0 ? 0 : process->console < 0 ? 1 : 2);
}

static void forget(struct request *request)
{
    struct process *process = process_find(request->message.id);
    int result = process ? process_forget(process) : 0;

    if (result < 0)
        refuse(request, result, "forget");
    else
        reply_ok(request->from, 0, 0);
}

static void close_stdin(struct request *request)
{
    struct process *process = find(request);

    if (!process)
        return;
    if (!(process->flags & PH_PLAN_TTY))
        fd_close(&process->console);
    reply_ok(request->from, 0, 0);
}

/* The received pipes by stream; the caller closes them. */
static int take_outputs(struct request *request, int outputs[LOG_STREAMS])
{
    static const uint32_t flags[LOG_STREAMS] = {PH_ATTACH_STDOUT, PH_ATTACH_STDERR};
    uint32_t next = 0;

    for (int name = 0; name < LOG_STREAMS; name++) {
        outputs[name] = -1;
        if (!(request->message.flags & flags[name]))
            continue;
        if (next == request->fd_count)
            return -EINVAL;
        outputs[name] = fd_take(&request->fds[next++]);
    }
    return next == request->fd_count ? 0 : -EINVAL;
}

static void attach(struct request *request)
{
    struct process *process = find(request);
    uint32_t flags = request->message.flags;
    int outputs[LOG_STREAMS] = {-1, -1}, result;

    if (!process)
        return;
    result = take_outputs(request, outputs);
    if (result == 0 &&
        ((process->phase != PROCESS_RUNNING && process->phase != PROCESS_HELD) || !process->needs_reading))
        result = -ESRCH;
    if (result == 0)
        result = attach_client(&process->log, outputs, flags & PH_ATTACH_INPUT ? process->console : -1,
                               request->from);
    if (result < 0)
        refuse(request, result, result == -EAGAIN ? "too many clients" : "attach");
    else if (flags & PH_ATTACH_ONCE && !(process->flags & PH_PLAN_TTY))
        fd_close(&process->console);
    for (int name = 0; name < LOG_STREAMS; name++)
        fd_close(&outputs[name]);
}

/* The fragment is in the pod's network namespace, which may be the host's. */
static void make_tcp_socket(struct request *request)
{
    struct ph_message message = {.type = PH_OK};
    int64_t family = request->message.value;
    OWNED_FD made = -EAFNOSUPPORT;

    if (family == AF_INET || family == AF_INET6)
        made = kernel_result(socket((int)family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (made < 0)
        refuse(request, made, "socket");
    else
        reply(request->from, &message, &made, 1);
}

static void keep(struct request *request)
{
    const char *id = request->message.id;
    int result = id_is_sound(id) && request->fd_count <= 1 ? 0 : -EINVAL;

    if (result == 0 && request->fd_count)
        result = keep_put(id, fd_take(&request->fds[0]));
    else if (result == 0)
        keep_drop(id);
    if (result < 0)
        refuse(request, result, "keep");
    else
        reply_ok(request->from, 0, 0);
}

static void give_kept(struct request *request)
{
    struct ph_message message = {.type = PH_OK};
    int fd = *request->message.id ? keep_get(request->message.id) : -ENOENT;

    if (fd < 0)
        refuse(request, fd, "nothing is kept under this name");
    else
        reply(request->from, &message, &fd, 1);
}

static void shut_down(struct request *request)
{
    shutdown_begin(request->from);
}

/* ---- supported features ---- */

static void hello(struct request *request);

static const struct {
    void (*handle)(struct request *request);
    uint32_t flags;
} requests[] = {
    [PH_HELLO] = {hello, 0},
    [PH_ADOPT] = {adopt, PH_ADOPT_CLAIM},
    [PH_START] = {start, 0},
    [PH_SIGNAL] = {send_signal, PH_SIGNAL_ALL},
    [PH_REOPEN] = {reopen, 0},
    [PH_LIST] = {list, 0},
    [PH_GET] = {get, 0},
    [PH_FORGET] = {forget, 0},
    [PH_SHUTDOWN] = {shut_down, 0},
    [PH_CLOSE_STDIN] = {close_stdin, 0},
    [PH_GO] = {go, 0},
    [PH_ATTACH] = {attach, PH_ATTACH_FLAGS},
    [PH_SOCKET] = {make_tcp_socket, 0},
    [PH_KEEP] = {keep, 0},
    [PH_KEPT] = {give_kept, 0},
};

#define REQUESTS     (sizeof(requests) / sizeof(requests[0]))
#define FEATURES_MAX (PLAN_FEATURES + REQUESTS)

static uint32_t list_features(struct ph_feature features[FEATURES_MAX])
{
    uint32_t count = PLAN_FEATURES;

    plan_features(features);
    for (uint16_t type = 0; type < REQUESTS; type++)
        if (requests[type].handle)
            features[count++] = (struct ph_feature){PH_FEATURE_REQUEST, type, requests[type].flags};
    return count;
}

static void hello(struct request *request)
{
    struct {
        struct ph_hello hello;
        struct ph_feature features[FEATURES_MAX];
    } text;
    uint32_t count = list_features(text.features);

    text.hello = (struct ph_hello){
        .size = sizeof(text.hello),
        .oldest = PH_VERSION_OLDEST,
        .newest = PH_VERSION_NEWEST,
        .phase = phase(),
    };
    connection_subscribe(request->from);
    reply_text(request->from, &text, (uint32_t)(sizeof(text.hello) + count * sizeof(text.features[0])));
}

void request_handle(struct request *request)
{
    uint32_t type = request->message.type;

    if (type >= REQUESTS || !requests[type].handle)
        refuse(request, ENOSYS, "request type");
    else if (request->message.flags & ~requests[type].flags)
        refuse(request, ENOSYS, "request flags");
    else
        requests[type].handle(request);
}
