/*
 * look [-t] PATH...: what there is at and below each path, one line each, sorted by name.
 *
 * Said is what is not usual: a mode other than 0755 of a folder and 0644 of anything else, an owner other
 * than 0:0, more than one link, extended attributes; with -t also the modification time, folders included.
 * Content is printed up to 48 bytes, else its size and an FNV-1a hash.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SHOWN = 48, CHUNK = 1 << 16 };

static int with_times;

static void print_bytes(const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '\\')
            printf("\\x%02x", byte);
        else
            putchar(byte);
    }
}

static void print_content(const char *path)
{
    static char chunk[CHUNK];
    uint64_t hash = 0xcbf29ce484222325u;
    size_t total = 0;
    ssize_t got;
    int fd = open(path, O_RDONLY | O_NOFOLLOW);
    if (fd < 0) {
        printf(" unreadable");
        return;
    }
    while ((got = read(fd, chunk, sizeof chunk)) > 0) {
        for (ssize_t i = 0; i < got; i++)
            hash = (hash ^ (unsigned char)chunk[i]) * 0x100000001b3u;
        total += (size_t)got;
    }
    close(fd);
    if (total > SHOWN) {
        printf(" %zu bytes %016jx", total, (uintmax_t)hash);
        return;
    }
    printf(" \"");
    print_bytes(chunk, total);
    printf("\"");
}

static int by_name(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void print_xattrs(const char *path)
{
    char list[4096], value[4096], *names[64];
    size_t count = 0;
    ssize_t size = llistxattr(path, list, sizeof list);
    for (char *name = list; size > 0 && name < list + size && count < 64; name += strlen(name) + 1)
        names[count++] = name;
    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        ssize_t length = lgetxattr(path, names[i], value, sizeof value);
        printf(" %s=\"", names[i]);
        print_bytes(value, length > 0 ? (size_t)length : 0);
        printf("\"");
    }
}

static void print_kind(const char *path, const struct stat *found)
{
    char target[PATH_MAX];
    ssize_t length;
    switch (found->st_mode & S_IFMT) {
    case S_IFDIR:
        printf("/");
        break;
    case S_IFREG:
        print_content(path);
        break;
    case S_IFLNK:
        length = readlink(path, target, sizeof target);
        printf(" -> ");
        print_bytes(target, length > 0 ? (size_t)length : 0);
        break;
    case S_IFIFO:
        printf(" fifo");
        break;
    case S_IFSOCK:
        printf(" socket");
        break;
    default:
        printf(" %s %u:%u", S_ISCHR(found->st_mode) ? "char" : "block", major(found->st_rdev),
               minor(found->st_rdev));
    }
}

static void look(const char *path);

static void look_below(const char *path)
{
    char **names = NULL, below[2 * PATH_MAX];
    size_t count = 0;
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        names = realloc(names, (count + 1) * sizeof *names);
        names[count++] = strdup(entry->d_name);
    }
    if (folder)
        closedir(folder);
    if (count)
        qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        snprintf(below, sizeof below, "%s/%s", strcmp(path, "/") ? path : "", names[i]);
        look(below);
        free(names[i]);
    }
    free(names);
}

static void look(const char *path)
{
    struct stat found;
    print_bytes(path, strlen(path));
    if (lstat(path, &found)) {
        printf(" missing\n");
        return;
    }
    mode_t mode = found.st_mode & 07777;
    mode_t usual = S_ISDIR(found.st_mode) ? 0755 : S_ISLNK(found.st_mode) ? 0777 : 0644;
    print_kind(path, &found);
    if (mode != usual)
        printf(" mode %o", mode);
    if (found.st_uid || found.st_gid)
        printf(" owner %u:%u", found.st_uid, found.st_gid);
    if (!S_ISDIR(found.st_mode) && found.st_nlink > 1)
        printf(" links %ju", (uintmax_t)found.st_nlink);
    if (with_times)
        printf(" at %jd.%09ld", (intmax_t)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
    print_xattrs(path);
    printf("\n");
    if (S_ISDIR(found.st_mode))
        look_below(path);
}

int main(int count, char **words)
{
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "-t"))
            with_times = 1;
        else
            look(words[i]);
    }
    return 0;
}
