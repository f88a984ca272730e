#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "exit_record.h"
#include "kernel.h"
#include "text.h"

#define PATH_ROOM (PH_ID_SIZE + 16)

static bool is_file_name(const char *name, size_t length)
{
    if (length == 0 || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_' &&
            c != '-' && c != '.')
            return false;
    }
    return true;
}

bool id_is_file_name(const char id[PH_ID_SIZE])
{
    size_t length = strnlen(id, PH_ID_SIZE);

    return length <= PH_ID_MAX && is_file_name(id, length);
}

bool id_is_sound(const char id[PH_ID_SIZE])
{
    size_t length = strnlen(id, PH_ID_SIZE);
    const char *slash = memchr(id, '/', length);
    size_t first = slash ? (size_t)(slash - id) : length;

    if (length > PH_ID_MAX || !is_file_name(id, first))
        return false;
    return !slash || is_file_name(slash + 1, length - first - 1);
}

static void append_member(struct text *text, const char *key, int64_t number)
{
    text_append_string(text, key);
    text_append_number(text, number);
}

size_t exit_record_format(const struct ph_exit *exit, char bytes[EXIT_RECORD_MAX])
{
    struct text text = {bytes, EXIT_RECORD_MAX, 0};

    append_member(&text, "{\"exit_code\":", exit->code);
    append_member(&text, ",\"signal\":", exit->signal);
    text_append_string(&text, exit->oom ? ",\"oom\":true" : ",\"oom\":false");
    append_member(&text, ",\"started_at\":", exit->started_at);
    append_member(&text, ",\"finished_at\":", exit->finished_at);
    append_member(&text, ",\"dropped_lines\":", exit->dropped_lines);
    text_append_string(&text, "}\n");
    return text.used;
}

static void format_path(const char *prefix, const char *id, char path[PATH_ROOM])
{
    struct text text = {path, PATH_ROOM - 1, 0};

    memset(path, 0, PATH_ROOM);
    text_append_string(&text, prefix);
    text_append(&text, id, strnlen(id, PH_ID_SIZE));
}

static int write_file(int directory, const char *path, const char *bytes, size_t length)
{
    OWNED_FD fd =
        kernel_result(openat(directory, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
    ssize_t written = fd < 0 ? fd : kernel_result(write(fd, bytes, length));

    return written < 0 ? (int)written : (size_t)written == length ? 0 : -ENOSPC;
}

int exit_record_write(int directory, const char *id, const struct ph_exit *exit)
{
    char bytes[EXIT_RECORD_MAX], temporary[PATH_ROOM], path[PATH_ROOM];
    size_t length = exit_record_format(exit, bytes);
    int result;

    if (!id_is_file_name(id))
        return -EINVAL;
    format_path("exits/.", id, temporary);
    format_path("exits/", id, path);
    if (mkdirat(directory, "exits", 0700) < 0 && errno != EEXIST)
        return -errno;
    result = write_file(directory, temporary, bytes, length);
    if (result == 0)
        result = kernel_result(renameat(directory, temporary, directory, path));
    if (result < 0)
        unlinkat(directory, temporary, 0);
    return result;
}

int exit_record_remove(int directory, const char *id)
{
    char path[PATH_ROOM];

    if (!id_is_file_name(id))
        return -EINVAL;
    format_path("exits/", id, path);
    return unlinkat(directory, path, 0) < 0 && errno != ENOENT ? -errno : 0;
}
