/* Paths below a hostile root: what is resolved, what is made, and that the outside stays as it was. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../phantom_cri/native/path.h"
#include "check.h"

static int outside, root;

static void link_inside(const char *target, const char *name)
{
    CHECK(symlinkat(target, root, name) == 0);
}

static bool exists(int directory, const char *path)
{
    struct stat status;

    return fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

/* path_create() makes `found`, below the root. */
static void makes(const char *path, bool directory, const char *found)
{
    struct stat made, expected;
    int fd = path_create(root, path, directory);

    CHECK(fd >= 0);
    CHECK(fstat(fd, &made) == 0 && fstatat(root, found, &expected, AT_SYMLINK_NOFOLLOW) == 0);
    CHECK(made.st_ino == expected.st_ino && S_ISDIR(made.st_mode) == directory);
    CHECK((made.st_mode & 0777) == (directory ? 0755 : 0644));
    close(fd);
}

static void refuses(const char *path, int error)
{
    CHECK(path_create(root, path, true) == -error);
}

static void test_plain(void)
{
    makes("/a/b/c", true, "a/b/c");
    makes("a/b/c", true, "a/b/c");
    makes("//a//b//d//", true, "a/b/d");
    makes("/a/file", false, "a/file");
    makes("/a/./b/../new/./x", true, "a/new/x");
    makes("/../../..", true, ".");
    makes("", true, ".");
    refuses("/a/file/x", ENOTDIR);
}

static void test_links(void)
{
    link_inside("/", "top");
    link_inside("../../../..", "up");
    link_inside("/far/away", "dangling");
    link_inside("far/../near", "relative");
    link_inside("dangling/deeper", "chain");
    link_inside("self", "self");
}

static void test_made_through_links(void)
{
    makes("/top/one", true, "one");
    makes("/up/two", true, "two");
    makes("/up/../up/three", false, "three");
    makes("/chain/end", true, "far/away/deeper/end");
    makes("/dangling", true, "far/away");
    makes("/relative", false, "near");
    refuses("/self/x", ELOOP);
    refuses("/self", ELOOP);
    CHECK(!exists(outside, "one") && !exists(outside, "two") && !exists(outside, "far"));
    CHECK(!exists(AT_FDCWD, "/far"));
}

static void test_endless_links(void)
{
    char name[16], target[32];

    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        snprintf(target, sizeof(target), "/l%d/x", i + 1);
        link_inside(target, name);
    }
    refuses("/l0/end", ELOOP);
    makes("/l40/end", true, "l60/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/end");
}

static void test_lengths(void)
{
    char path[PATH_MAX + 100], name[PATH_NAME_MAX];

    memset(path, 'n', sizeof(path));
    path[300] = 0;
    refuses(path, ENAMETOOLONG);
    CHECK(path_parent(root, path, name) == -ENAMETOOLONG);
    path[300] = 'n';
    path[sizeof(path) - 1] = 0;
    refuses(path, ENAMETOOLONG);
    path[255] = 0;
    makes(path, true, path);
}

static void test_parents(void)
{
    static const char *const bad[] = {"", "/", "//", "/..", "a/..", "a/.", ".", "a/../"};
    char name[PATH_NAME_MAX];
    int fd = path_parent(root, "/up/parent/leaf//", name);

    CHECK(fd >= 0 && !strcmp(name, "leaf") && exists(root, "parent") && !exists(root, "parent/leaf"));
    close(fd);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(path_parent(root, bad[i], name) == -EINVAL);
}

static void test_magic_links(void)
{
    int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    link_inside("/proc/self/root", "magic");
    CHECK(path_resolve(root, "/magic", 0) == -ENOENT);
    CHECK(path_resolve(host, "/proc/self/root/etc", 0) == -ELOOP);
    CHECK(path_resolve(root, "/top", O_NOFOLLOW) >= 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    umask(022);
    outside = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(outside >= 0 && mkdirat(outside, "root", 0755) == 0);
    root = openat(outside, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    test_plain();
    test_links();
    test_made_through_links();
    test_endless_links();
    test_lengths();
    test_parents();
    test_magic_links();
    return 0;
}
