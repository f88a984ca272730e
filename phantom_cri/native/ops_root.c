/* Ops that assemble the container's root, up to PIVOT. Paths are in the image: path.h keeps them inside. */
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fragment_root.h"
#include "kernel.h"
#include "launch.h"
#include "path.h"

static int set_attributes(int fd, uint64_t attributes, uint64_t propagation, bool recursive)
{
    struct mount_attr attr = {
        .attr_set = attributes,
        /* To set an access time mode, the old one has to be cleared: mount_setattr(2). */
        .attr_clr = attributes & PH_ATTR_ATIME_ALL ? PH_ATTR_ATIME_ALL : 0,
        .propagation = propagation & ~PH_MS_REC,
    };

    return kernel_mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr);
}

/* A clone of a host mount is a peer of the original; without a request it is made private. */
static int set_propagation(int fd, uint64_t propagation)
{
    return set_attributes(fd, 0, propagation ? propagation : PH_MS_PRIVATE, true);
}

static int attach_to(int tree, int target)
{
    return kernel_move_mount(tree, target, "", MOVE_MOUNT_T_EMPTY_PATH);
}

/* By fd, since a path could be changed between two calls. */
int op_ATTRIBUTES(struct launch *launch, const struct op *op)
{
    launch->step = "mount_setattr";
    return set_attributes(launch->slots[op->field[0].number], op->field[1].number, 0,
                          op->field[2].number & PH_OP_ATTRIBUTES_RECURSIVE);
}

int op_ROOT(struct launch *launch, const struct op *op)
{
    int *slot = &launch->slots[op->field[0].number];
    int result;

    launch->step = "no root given";
    if (*slot < 0 || launch->root >= 0)
        return -EINVAL;
    launch->step = "propagation";
    result = set_propagation(*slot, 0);
    if (result < 0)
        return result;
    launch->step = "move_mount";
    result = kernel_move_mount(*slot, AT_FDCWD, FRAGMENT_ROOTFS, 0);
    if (result == 0)
        launch->root = fd_take(slot);
    return result;
}

static int is_directory(int fd)
{
    struct stat status;

    return fstat(fd, &status) < 0 ? -errno : S_ISDIR(status.st_mode);
}

int op_ATTACH(struct launch *launch, const struct op *op)
{
    OWNED_FD tree = fd_take(&launch->slots[op->field[0].number]);
    OWNED_FD target = -1;
    const char *path = op->field[1].bytes;
    uint64_t flags = op->field[4].number;
    int result;

    launch->step = "source";
    result = is_directory(tree);
    if (result < 0)
        return result;
    launch->step = "target";
    target = flags & PH_OP_ATTACH_CREATE ? path_create(launch->root, path, result)
                                         : path_resolve(launch->root, path, 0);
    if (target < 0)
        return target;
    launch->step = "attributes";
    if (op->field[2].number)
        result = set_attributes(tree, op->field[2].number, 0, flags & PH_OP_ATTACH_RECURSIVE);
    if (result < 0)
        return result;
    launch->step = "propagation";
    result = set_propagation(tree, op->field[3].number);
    if (result < 0)
        return result;
    launch->step = "move_mount";
    return attach_to(tree, target);
}

/* Sets owner and mode of a new directory: by fd, as another container may share the volume. */
static int own_directory(int parent, const char *name, mode_t mode, uid_t uid, gid_t gid)
{
    OWNED_FD fd = kernel_result(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));

    if (fd < 0)
        return fd;
    if (fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0)
        return -errno;
    return 0;
}

int op_MKDIR(struct launch *launch, const struct op *op)
{
    const char *path = op->field[0].bytes;
    mode_t mode = (mode_t)op->field[1].number & 07777;
    char name[PATH_NAME_MAX];
    OWNED_FD existing = path_resolve(launch->root, path, O_DIRECTORY);
    OWNED_FD parent = -1;

    launch->step = "resolve";
    if (existing != -ENOENT)
        return existing < 0 ? existing : 0;
    launch->step = "parent";
    parent = path_parent(launch->root, path, name);
    if (parent < 0)
        return parent;
    launch->step = "mkdir";
    if (mkdirat(parent, name, 0700) == 0)
        return own_directory(parent, name, mode, (uid_t)op->field[2].number, (gid_t)op->field[3].number);
    if (errno != EEXIST)
        return -errno;
    /* A dangling symlink: its target is created; the link's owner and mode stay. */
    existing = path_create(launch->root, path, true);
    return existing < 0
               ? existing
               : own_directory(existing, ".", mode, (uid_t)op->field[2].number, (gid_t)op->field[3].number);
}

int op_MKNOD(struct launch *launch, const struct op *op)
{
    mode_t mode = (mode_t)op->field[1].number;
    dev_t device = makedev((unsigned)op->field[2].number, (unsigned)op->field[3].number);
    char name[PATH_NAME_MAX];
    OWNED_FD parent = path_parent(launch->root, op->field[0].bytes, name);
    mode_t umask_before;
    int result;

    launch->step = "parent";
    if (parent < 0)
        return parent;
    launch->step = "mknod";
    if (!S_ISCHR(mode) && !S_ISBLK(mode) && !S_ISFIFO(mode))
        return -EINVAL;
    umask_before = umask(0);
    result = kernel_result(mknodat(parent, name, mode, device));
    umask(umask_before);
    if (result < 0)
        return result;
    launch->step = "chown";
    return kernel_result(
        fchownat(parent, name, (uid_t)op->field[4].number, (gid_t)op->field[5].number, AT_SYMLINK_NOFOLLOW));
}

int op_SYMLINK(struct launch *launch, const struct op *op)
{
    char name[PATH_NAME_MAX];
    OWNED_FD parent = path_parent(launch->root, op->field[1].bytes, name);

    launch->step = "parent";
    if (parent < 0)
        return parent;
    launch->step = "symlink";
    return symlinkat(op->field[0].bytes, parent, name) < 0 && errno != EEXIST ? -errno : 0;
}

static bool is_missing(int error)
{
    return error == -ENOENT || error == -ENOTDIR;
}

int op_MASK(struct launch *launch, const struct op *op)
{
    OWNED_FD target = path_resolve(launch->root, op->field[0].bytes, 0);
    OWNED_FD cover = -1;
    int result;

    launch->step = "target";
    if (target < 0)
        return is_missing(target) ? 0 : target;
    result = is_directory(target);
    if (result < 0)
        return result;
    launch->step = "cover";
    cover = kernel_open_tree(AT_FDCWD, result ? FRAGMENT_EMPTY : FRAGMENT_NULL, OPEN_TREE_CLONE);
    return cover < 0 ? cover : attach_to(cover, target);
}

int op_READONLY(struct launch *launch, const struct op *op)
{
    OWNED_FD target = path_resolve(launch->root, op->field[0].bytes, 0);
    OWNED_FD tree = -1;
    int result;

    launch->step = "target";
    if (target < 0)
        return is_missing(target) ? 0 : target;
    launch->step = "open_tree";
    tree = kernel_open_tree(target, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0)
        return tree;
    launch->step = "attributes";
    result = set_attributes(tree, MOUNT_ATTR_RDONLY, 0, true);
    return result < 0 ? result : attach_to(tree, target);
}

int op_REMOUNT(struct launch *launch, const struct op *op)
{
    OWNED_FD target = path_resolve(launch->root, op->field[0].bytes, 0);

    launch->step = "target";
    if (target < 0)
        return target;
    launch->step = "attributes";
    return set_attributes(target, op->field[1].number, 0, op->field[2].number & PH_OP_REMOUNT_RECURSIVE);
}

int op_PIVOT(struct launch *launch, const struct op *op)
{
    (void)op;
    if (launch->root < 0)
        return -EINVAL;
    if (fchdir(launch->root) < 0)
        return -errno;
    fd_close(&launch->root);
    launch->step = "pivot_root";
    return kernel_pivot_here();
}
