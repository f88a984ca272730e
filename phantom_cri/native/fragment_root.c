#include <sys/stat.h>

#include "fragment_root.h"
#include "kernel.h"

#define HARMLESS (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

struct option {
    const char *key;
    const char *value;
};

static int new_fs(const char *type, const struct option *options, unsigned attributes)
{
    OWNED_FD fs = kernel_fsopen(type);
    int result = fs < 0 ? fs : 0;

    for (; result == 0 && options->key; options++)
        result = kernel_fsconfig(fs, FSCONFIG_SET_STRING, options->key, options->value);
    if (result == 0)
        result = kernel_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL);
    return result < 0 ? result : kernel_fsmount(fs, attributes);
}

static int attach(int mount, const char *path)
{
    OWNED_FD owned = mount;

    return owned < 0 ? owned : kernel_move_mount(owned, AT_FDCWD, path, 0);
}

static int make_places(int root)
{
    static const char *const directories[] = {"proc", "shm", "empty", "rootfs"};
    OWNED_FD file = -1;

    for (unsigned i = 0; i < sizeof(directories) / sizeof(directories[0]); i++)
        if (mkdirat(root, directories[i], 0755) < 0)
            return -errno;
    file = kernel_result(openat(root, "null", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666));
    return file < 0 ? file : 0;
}

/* The new root is temporarily mounted on /proc, which exists on every host. */
static int enter_root(void)
{
    static const struct option options[] = {{"mode", "0755"}, {"size", "64k"}, {"nr_inodes", "16"}, {0}};
    OWNED_FD root = new_fs("tmpfs", options, MOUNT_ATTR_NOSUID);
    int result = root < 0 ? root : make_places(root);

    if (result == 0)
        result = kernel_move_mount(root, AT_FDCWD, "/proc", 0);
    if (result == 0)
        result = kernel_result(fchdir(root));
    return result == 0 ? kernel_pivot_here() : result;
}

/* Read-only, since otherwise a container's root could change the mode of the host's node through a mask; the
 * device can still be written to. */
static int clone_null(void)
{
    struct mount_attr sealed = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                                .propagation = PH_MS_PRIVATE};
    OWNED_FD null = kernel_open_tree(AT_FDCWD, "/dev/null", OPEN_TREE_CLONE);
    int result = null < 0 ? null : kernel_mount_setattr(null, "", AT_EMPTY_PATH, &sealed);

    return result < 0 ? result : fd_take(&null);
}

/* The initial standard streams of children: fchmod(2) on them also fails. */
static int use_sealed_null(void)
{
    OWNED_FD null = kernel_result(open(FRAGMENT_NULL, O_RDWR | O_CLOEXEC));

    if (null < 0)
        return null;
    return dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ? -errno : 0;
}

static int attach_empty(void)
{
    struct mount_attr sealed = {.attr_set = MOUNT_ATTR_RDONLY | HARMLESS};
    OWNED_FD empty = kernel_open_tree(AT_FDCWD, FRAGMENT_EMPTY, OPEN_TREE_CLONE);
    int result = empty < 0 ? empty : kernel_mount_setattr(empty, "", AT_EMPTY_PATH, &sealed);

    return result == 0 ? kernel_move_mount(empty, AT_FDCWD, FRAGMENT_EMPTY, 0) : result;
}

int fragment_root_init(const char **step)
{
    static const struct option no_options[] = {{0}};
    static const struct option shm_options[] = {{"mode", "1777"}, {"size", "65536k"}, {0}};
    struct mount_attr private = {.propagation = PH_MS_PRIVATE};
    OWNED_FD null = -1;
    int result;

    *step = "make mounts private";
    result = kernel_mount_setattr(-1, "/", AT_RECURSIVE, &private);
    if (result < 0)
        return result;
    *step = "clone /dev/null";
    null = clone_null();
    if (null < 0)
        return null;
    *step = "enter the own root";
    result = enter_root();
    if (result < 0)
        return result;
    *step = "attach /null, /empty, /proc and /shm";
    result = attach(fd_take(&null), FRAGMENT_NULL);
    if (result == 0)
        result = use_sealed_null();
    if (result == 0)
        result = attach_empty();
    if (result == 0)
        result = attach(new_fs("proc", no_options, HARMLESS), "/proc");
    if (result == 0)
        result = attach(new_fs("tmpfs", shm_options, HARMLESS), FRAGMENT_SHM);
    return result;
}
