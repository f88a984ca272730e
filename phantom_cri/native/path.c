#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel.h"
#include "path.h"

#define LINKS_MAX 40  /* MAXSYMLINKS of the kernel */
#define STEPS_MAX 512 /* components created for one path: ends even if they are removed concurrently */
#define RACES_MAX 64

int path_resolve(int root, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(O_PATH | O_CLOEXEC | flags),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    int fd = -EAGAIN;

    /* EAGAIN: a rename or mount raced with a `..` of the walk (openat2(2), ERRORS). */
    for (int i = 0; i < RACES_MAX && fd == -EAGAIN; i++)
        fd = kernel_openat2(root, *path ? path : "/", &how);
    return fd;
}

static int make(int parent, const char *name, bool directory)
{
    int fd;

    if (directory)
        return kernel_result(mkdirat(parent, name, 0755));
    fd = kernel_result(openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (fd >= 0)
        close(fd);
    return fd < 0 ? fd : 0;
}

/* Replaces path[start, end) by the symlink `name` of `parent`: 1, or -errno. */
static int splice_link(int parent, const char *name, char *path, size_t start, size_t end)
{
    char link[PATH_MAX];
    size_t rest = strlen(path + end) + 1;
    int length = kernel_result(readlinkat(parent, name, link, sizeof(link)));

    if (length < 0)
        /* Not a symlink: it was created concurrently; resolve again. */
        return length == -EINVAL || length == -ENOENT ? 0 : length;
    if (length && link[0] == '/')
        start = 0;
    if (length == 0 || start + (size_t)length + rest > PATH_MAX)
        return -ENAMETOOLONG;
    memmove(path + start + length, path + end, rest);
    memcpy(path + start, link, (size_t)length);
    return 1;
}

/* Creates the component path[start, end) of `parent`, or replaces it in `path` by the target of a dangling
 * symlink: 0, 1 for a symlink, or -errno. */
static int make_component(int parent, char *path, size_t start, size_t end, bool directory)
{
    char name[PATH_NAME_MAX];
    bool last = path[end + strspn(path + end, "/")] == 0;
    int result;

    if (end - start >= sizeof(name))
        return -ENAMETOOLONG;
    memcpy(name, path + start, end - start);
    name[end - start] = 0;
    result = make(parent, name, directory || !last);
    return result == -EEXIST ? splice_link(parent, name, path, start, end) : result;
}

/* Creates the first component of `path` that does not exist. */
static int make_first_missing(int root, char *path, bool directory)
{
    OWNED_FD parent = path_resolve(root, "/", O_DIRECTORY);
    size_t start = strspn(path, "/");

    while (parent >= 0 && path[start]) {
        size_t end = start + strcspn(path + start, "/");
        char kept = path[end];
        int fd;

        path[end] = 0;
        fd = path_resolve(root, path, 0);
        path[end] = kept;
        if (fd == -ENOENT)
            return make_component(parent, path, start, end, directory);
        fd_close(&parent);
        parent = fd;
        start = end + strspn(path + end, "/");
    }
    return parent < 0 ? parent : 0;
}

int path_create(int root, const char *path, bool directory)
{
    char copy[PATH_MAX];
    size_t length = strlen(path);
    int links = 0;

    if (length >= sizeof(copy))
        return -ENAMETOOLONG;
    memcpy(copy, path, length + 1);
    for (int step = 0; step < STEPS_MAX && links <= LINKS_MAX; step++) {
        int fd = path_resolve(root, copy, 0);

        if (fd != -ENOENT)
            return fd;
        fd = make_first_missing(root, copy, directory);
        if (fd < 0)
            return fd;
        links += fd;
    }
    return -ELOOP;
}

int path_parent(int root, const char *path, char name[PATH_NAME_MAX])
{
    char above[PATH_MAX];
    size_t end = strlen(path), start;

    while (end && path[end - 1] == '/')
        end--;
    for (start = end; start && path[start - 1] != '/';)
        start--;
    if (end == start || end - start >= PATH_NAME_MAX || start >= sizeof(above))
        return end == start ? -EINVAL : -ENAMETOOLONG;
    memcpy(name, path + start, end - start);
    name[end - start] = 0;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    memcpy(above, path, start);
    above[start] = 0;
    return path_create(root, above, true);
}
