/* Ops for the kernel's security modules: labels of processes and files. */
#include <limits.h>
#include <string.h>
#include <sys/xattr.h>

#include "kernel.h"
#include "launch.h"
#include "text.h"

/* AppArmor has its own folder since Linux 5.8; the common file may belong to another module. */
static int open_attribute(bool is_apparmor)
{
    int fd = -ENOENT;

    if (is_apparmor)
        fd = kernel_result(open("/proc/thread-self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC));
    return fd == -ENOENT ? kernel_result(open("/proc/thread-self/attr/exec", O_WRONLY | O_CLOEXEC)) : fd;
}

/* Uses the fragment's own /proc: a container controls the one in its root. */
int op_EXEC_LABEL(struct launch *launch, const struct op *op)
{
    char bytes[PATH_MAX];
    struct text text = {bytes, sizeof(bytes), 0};
    bool is_apparmor = !strcmp(op->field[0].bytes, "apparmor");
    OWNED_FD fd = -1;

    launch->step = "module";
    if (!is_apparmor && strcmp(op->field[0].bytes, "selinux") != 0)
        return -ENOSYS;
    launch->step = "label";
    if (!op->field[1].length || op->field[1].length > sizeof(bytes) - sizeof("exec "))
        return -EINVAL;
    text_append_string(&text, is_apparmor ? "exec " : "");
    text_append_string(&text, op->field[1].bytes);
    launch->step = "open";
    fd = open_attribute(is_apparmor);
    if (fd < 0)
        return fd;
    launch->step = "write";
    return kernel_write_all(fd, bytes, text.used);
}

/* Includes the NUL, as in libselinux. */
static size_t context_size(const char *context)
{
    return strlen(context) + 1;
}

int op_FILE_LABEL(struct launch *launch, const struct op *op)
{
    const char *context = op->field[1].bytes;

    launch->step = "setxattr";
    return kernel_result(setxattr(op->field[0].bytes, "security.selinux", context, context_size(context), 0));
}

int op_MOUNT_LABEL(struct launch *launch, const struct op *op)
{
    launch->step = "quotation mark";
    if (strchr(op->field[0].bytes, '"'))
        return -EINVAL;
    launch->label = op->field[0].bytes;
    return 0;
}

bool label_is_option(const struct launch *launch, const char *type)
{
    return launch->label && (!strcmp(type, "tmpfs") || !strcmp(type, "devpts"));
}

/* All mounts of an IPC namespace's mqueue share one superblock, which the kernel has already mounted without
 * a context: so its root is labelled like a file. */
int label_root(const struct launch *launch, const char *type, int mount)
{
    OWNED_FD root = -1;

    if (!launch->label || strcmp(type, "mqueue"))
        return 0;
    root = kernel_result(openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (root < 0)
        return root;
    return kernel_result(fsetxattr(root, "security.selinux", launch->label, context_size(launch->label), 0));
}
