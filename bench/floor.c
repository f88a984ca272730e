/* The kernel's own price of a warm pod, in C: what no runtime can go below.
 *
 * floor ITERATIONS LOWER PROGRAM: each iteration makes a process with new pid, mount, UTS and IPC namespaces
 * in a network namespace that was prepared before, mounts an overlay over LOWER with /proc and a small /dev,
 * pivots into it, executes PROGRAM (a path below LOWER; it should end at once), reaps it and removes the
 * upper layer. Prints {"iterations", "start_us": {"p50", "p95"}, "cycle_us": {"p50", "p95"}}: until execve,
 * and until all is gone.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#include "kernel.h"

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC)

static _Noreturn void give_up(const char *what)
{
    perror(what);
    exit(1);
}

static void need(int result, const char *what)
{
    if (result < 0) {
        errno = errno ? errno : -result;
        give_up(what);
    }
}

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int new_fs(const char *type, const char *const (*options)[2], unsigned count)
{
    int fs = kernel_fsopen(type), mount;

    need(fs, type);
    for (unsigned i = 0; i < count; i++)
        need(kernel_fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1]), options[i][0]);
    need(kernel_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL), type);
    mount = kernel_fsmount(fs, 0);
    need(mount, "fsmount");
    close(fs);
    return mount;
}

static void attach(int mount, const char *path)
{
    need(kernel_move_mount(mount, AT_FDCWD, path, 0), path);
    close(mount);
}

/* The nodes that every container's /dev has. */
static void make_devices(void)
{
    static const struct {
        const char *path;
        unsigned minor;
    } nodes[] = {{"dev/null", 3}, {"dev/zero", 5}, {"dev/full", 7}, {"dev/random", 8}, {"dev/urandom", 9}};

    for (unsigned i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)
        need(mknod(nodes[i].path, S_IFCHR | 0666, makedev(1, nodes[i].minor)), nodes[i].path);
}

static _Noreturn void be_container(const char *lower, const char *program)
{
    static const char *const dev_options[][2] = {{"mode", "755"}, {"size", "64k"}};
    const char *const layers[][2] = {{"lowerdir", lower}, {"upperdir", "upper"}, {"workdir", "work"}};
    struct mount_attr private = {.propagation = PH_MS_PRIVATE};
    int root;

    need(kernel_mount_setattr(-1, "/", AT_RECURSIVE, &private), "private");
    root = new_fs("overlay", layers, 3);
    need(kernel_move_mount(root, AT_FDCWD, "root", 0), "root");
    need(fchdir(root), "fchdir");
    attach(new_fs("proc", NULL, 0), "proc");
    attach(new_fs("tmpfs", dev_options, 2), "dev");
    make_devices();
    need(kernel_pivot_here(), "pivot_root");
    execl(program, program, (char *)NULL);
    give_up(program);
}

static void make_directories(void)
{
    need(mkdir("upper", 0755), "upper");
    need(mkdir("work", 0755), "work");
    need(mkdir("upper/proc", 0755), "upper/proc");
    need(mkdir("upper/dev", 0755), "upper/dev");
}

static void remove_directories(void)
{
    need(rmdir("upper/proc"), "upper/proc");
    need(rmdir("upper/dev"), "upper/dev");
    need(rmdir("upper"), "upper");
    need(rmdir("work/work"), "work/work");
    need(rmdir("work"), "work");
}

/* One pod; sets the times until execve, by the end of a pipe that it closes, and until nothing is left. */
static void cycle(const char *lower, const char *program, double *start, double *whole)
{
    struct clone_args args = {.flags = NAMESPACES, .exit_signal = SIGCHLD};
    double began = now_us();
    int ends[2], status;
    pid_t child;
    char byte;

    make_directories();
    need(pipe2(ends, O_CLOEXEC), "pipe2");
    child = kernel_clone3(&args);
    need(child, "clone3");
    if (child == 0)
        be_container(lower, program);
    close(ends[1]);
    need((int)read(ends[0], &byte, 1), "pipe");
    close(ends[0]);
    *start = now_us() - began;
    need(waitpid(child, &status, 0), "waitpid");
    if (status) {
        fprintf(stderr, "%s ended with %#x\n", program, status);
        exit(1);
    }
    remove_directories();
    *whole = now_us() - began;
}

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static void print_quantiles(const char *name, double *times, int count)
{
    qsort(times, (size_t)count, sizeof(*times), by_size);
    printf("\"%s\": {\"p50\": %.1f, \"p95\": %.1f}", name, times[count / 2], times[count * 95 / 100]);
}

/* What every pod's files lie on: a root of our own with nothing of the host, so that a new mount namespace
 * copies next to nothing; and a network namespace, as a pool has them ready. */
static void make_ground(const char *lower)
{
    struct mount_attr private = {.propagation = PH_MS_PRIVATE};
    int layer = kernel_open_tree(AT_FDCWD, lower, OPEN_TREE_CLONE);
    int ground = new_fs("tmpfs", NULL, 0);

    need(layer, lower);
    need(unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare");
    need(kernel_mount_setattr(-1, "/", AT_RECURSIVE, &private), "private");
    need(kernel_move_mount(ground, AT_FDCWD, "/proc", 0), "move_mount");
    need(fchdir(ground), "fchdir");
    close(ground);
    need(mkdir("root", 0755), "root");
    need(mkdir("lower", 0755), "lower");
    attach(layer, "lower");
    need(kernel_pivot_here(), "pivot_root");
}

int main(int argc, char **argv)
{
    int count = argc == 4 ? atoi(argv[1]) : 0;
    double *start = calloc((size_t)count + 1, sizeof(double)),
           *whole = calloc((size_t)count + 1, sizeof(double));

    if (count <= 0 || !start || !whole) {
        fprintf(stderr, "usage: floor ITERATIONS LOWER PROGRAM\n");
        return 2;
    }
    make_ground(argv[2]);
    for (int i = 0; i < count; i++)
        cycle("/lower", argv[3], &start[i], &whole[i]);
    printf("{\"iterations\": %d, ", count);
    print_quantiles("start_us", start, count);
    printf(", ");
    print_quantiles("cycle_us", whole, count);
    printf("}\n");
    return 0;
}
