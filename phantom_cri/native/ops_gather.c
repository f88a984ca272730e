/* Ops on namespaces and cgroups, and those that open sources as detached mounts. */
#include <limits.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>

#include "kernel.h"
#include "launch.h"
#include "process.h"

int op_JOIN_NS(struct launch *launch, const struct op *op)
{
    return kernel_result(setns(launch->slots[op->field[0].number], (int)op->field[1].number));
}

int op_JOIN_PROCESS(struct launch *launch, const struct op *op)
{
    int pidfd = process_pidfd(op->field[0].bytes);

    (void)launch;
    return pidfd < 0 ? pidfd : kernel_result(setns(pidfd, (int)op->field[1].number));
}

int op_JOIN_FRAGMENT(struct launch *launch, const struct op *op)
{
    return kernel_result(setns(launch->fragment, (int)op->field[0].number));
}

int op_UNSHARE(struct launch *launch, const struct op *op)
{
    (void)launch;
    return kernel_result(unshare((int)op->field[0].number));
}

int op_CGROUP_PROCS(struct launch *launch, const struct op *op)
{
    int result = kernel_result(write(launch->slots[op->field[0].number], "0", 1));

    return result < 0 ? result : 0;
}

/* mkdir -p of a host path; the daemon chose it, so symlinks on it are followed. */
static int make_directories(const char *path)
{
    char prefix[PATH_MAX];
    size_t length = strlen(path);

    if (length >= sizeof(prefix))
        return -ENAMETOOLONG;
    memcpy(prefix, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        prefix[i] = 0;
        if (mkdir(prefix, 0755) < 0 && errno != EEXIST)
            return -errno;
        prefix[i] = path[i];
    }
    return 0;
}

int op_OPEN_TREE(struct launch *launch, const struct op *op)
{
    const char *path = op->field[1].bytes;
    uint64_t flags = op->field[2].number;
    unsigned how = OPEN_TREE_CLONE;
    int tree;

    if (flags & PH_OP_OPEN_RECURSIVE)
        how |= AT_RECURSIVE;
    launch->step = "open_tree";
    tree = kernel_open_tree(AT_FDCWD, path, how);
    if (tree == -ENOENT && flags & PH_OP_OPEN_CREATE) {
        launch->step = "mkdir";
        tree = make_directories(path);
        if (tree == 0)
            tree = kernel_open_tree(AT_FDCWD, path, how);
    }
    if (tree < 0)
        return tree;
    launch->slots[op->field[0].number] = tree;
    return 0;
}

void mount_reason(int fs, struct launch *launch)
{
    ssize_t length = read(fs, launch->reason, sizeof(launch->reason) - 1);

    launch->reason[length < 0 ? 0 : length] = 0;
    /* Makes it one line of ASCII: it repeats options, which may have any bytes. */
    for (char *byte = launch->reason; *byte; byte++)
        *byte = *byte == '\n' ? 0 : *byte < ' ' || *byte > '~' ? '?' : *byte;
}

/* The root of devpts belongs to uid 0; of any other file system to its creator (FILES_AS_ROOT). */
static int own_root(const char *type, int mount)
{
    uid_t uid = (uid_t)setfsuid((uid_t)-1);

    if (uid == 0 || strcmp(type, "devpts"))
        return 0;
    return kernel_result(fchownat(mount, "", uid, (gid_t)setfsgid((gid_t)-1), AT_EMPTY_PATH));
}

int mount_options(int fs, const struct field *options, struct launch *launch)
{
    const char *option = options->bytes;
    int result = 0;

    for (uint32_t i = 0; result == 0 && i < options->length; i++, option = plan_string_after(option)) {
        char key[64];
        const char *equals = strchr(option, '=');
        size_t length = equals ? (size_t)(equals - option) : strlen(option);

        launch->step = "mount option";
        if (length >= sizeof(key))
            return -EINVAL;
        memcpy(key, option, length);
        key[length] = 0;
        result = equals ? kernel_fsconfig(fs, FSCONFIG_SET_STRING, key, equals + 1)
                        : kernel_fsconfig(fs, FSCONFIG_SET_FLAG, key, NULL);
    }
    return result;
}

int op_NEW_FS(struct launch *launch, const struct op *op)
{
    OWNED_FD fs = kernel_fsopen(op->field[1].bytes);
    int result = fs;

    launch->step = "fsopen";
    if (result >= 0)
        result = mount_options(fs, &op->field[2], launch);
    if (result >= 0 && label_is_option(launch, op->field[1].bytes)) {
        launch->step = "context";
        result = kernel_fsconfig(fs, FSCONFIG_SET_STRING, "context", launch->label);
    }
    if (result >= 0) {
        launch->step = "create file system";
        result = kernel_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL);
    }
    if (result >= 0) {
        launch->step = "fsmount";
        result = kernel_fsmount(fs, (unsigned)op->field[3].number);
    }
    if (result < 0) {
        mount_reason(fs, launch);
        return result;
    }
    launch->slots[op->field[0].number] = result;
    launch->step = "label";
    result = label_root(launch, op->field[1].bytes, launch->slots[op->field[0].number]);
    if (result < 0)
        return result;
    launch->step = "owner";
    return own_root(op->field[1].bytes, launch->slots[op->field[0].number]);
}
