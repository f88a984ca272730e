/* The log: pieces as they come through a pipe, lines as they land in the file. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../phantom_cri/native/log.h"
#include "check.h"

struct bench {
    struct log log;
    int writer;
    char path[256];
};

static void bench_init(struct bench *bench, const char *folder, bool is_console)
{
    int ends[2], fd;

    snprintf(bench->path, sizeof(bench->path), "%s/log", folder);
    unlink(bench->path);
    fd = open(bench->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && pipe2(ends, O_CLOEXEC) == 0 && fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) > 0);
    CHECK(log_init(fd, ends[0], -1, is_console, &bench->log) == 0);
    bench->writer = ends[1];
}

static void say(struct bench *bench, const char *text, size_t length)
{
    CHECK(write(bench->writer, text, length) == (ssize_t)length);
    CHECK(log_pump(&bench->log, LOG_STDOUT));
}

static void end(struct bench *bench)
{
    close(bench->writer);
    while (log_is_open(&bench->log))
        log_pump(&bench->log, LOG_STDOUT);
}

/* The file without its times: "F text\n" for each line. */
static char *content(struct bench *bench)
{
    static const char *const words[] = {" stdout ", " stderr "};
    FILE *file = fopen(bench->path, "re");
    char *all = calloc(1, 4 << 20), *to = all, *line = NULL;
    size_t room = 0;
    ssize_t length;

    CHECK(file && all);
    while ((length = getline(&line, &room, file)) > 0) {
        CHECK(length > 40 && line[29] == 'Z' && line[length - 1] == '\n');
        CHECK(!memcmp(line + 30, words[0], 8) || !memcmp(line + 30, words[1], 8));
        memcpy(to, line + 38, (size_t)length - 38);
        to += length - 38;
    }
    free(line);
    fclose(file);
    return all;
}

static void check(struct bench *bench, const char *expected)
{
    char *found = content(bench);

    CHECK(!strcmp(found, expected));
    free(found);
    log_deinit(&bench->log);
}

static void test_pieces(const char *folder)
{
    struct bench bench;

    bench_init(&bench, folder, false);
    say(&bench, "one", 3);
    say(&bench, "\n\ntwo\r\nthr", 10);
    say(&bench, "ee", 2);
    say(&bench, "\n", 1);
    end(&bench);
    check(&bench, "F one\nF \nF two\r\nF three\n");
}

static void test_console(const char *folder)
{
    struct bench bench;

    bench_init(&bench, folder, true);
    say(&bench, "one\r\n\r\n\rtwo\r\r\nx\r", 16);
    end(&bench);
    check(&bench, "F one\nF \nF \rtwo\r\nP x\r\n");
}

static void test_bytes_are_kept(const char *folder)
{
    struct bench bench;
    char *found;

    bench_init(&bench, folder, false);
    say(&bench, "a\0b\xff\n", 5);
    end(&bench);
    found = content(&bench);
    CHECK(!memcmp(found, "F a\0b\xff\n", 7));
    free(found);
    log_deinit(&bench.log);
}

/* Every split of a line of `length` bytes, however the pieces come. */
static void check_long(const char *folder, size_t length, size_t piece)
{
    struct bench bench;
    char *text = malloc(length + 1), *found, *at;

    memset(text, 'x', length);
    text[length] = '\n';
    bench_init(&bench, folder, false);
    for (size_t done = 0; done <= length; done += piece)
        say(&bench, text + done, done + piece <= length ? piece : length + 1 - done);
    end(&bench);
    at = found = content(&bench);
    for (size_t left = length;; left -= LOG_LINE_MAX) {
        size_t part = left > LOG_LINE_MAX ? LOG_LINE_MAX : left;

        CHECK(at[0] == (left > LOG_LINE_MAX ? 'P' : 'F') && at[1] == ' ');
        CHECK(strspn(at + 2, "x") == part && at[2 + part] == '\n');
        at += 3 + part;
        if (left <= LOG_LINE_MAX)
            break;
    }
    CHECK(!*at);
    free(found);
    free(text);
    log_deinit(&bench.log);
}

static void test_long_lines(const char *folder)
{
    static const size_t lengths[] = {LOG_LINE_MAX - 1, LOG_LINE_MAX,         LOG_LINE_MAX + 1,
                                     2 * LOG_LINE_MAX, 2 * LOG_LINE_MAX + 1, 70000};
    static const size_t pieces[] = {1, 4096, LOG_LINE_MAX, LOG_LINE_MAX + 1, 100000};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (size_t j = lengths[i] > LOG_LINE_MAX + 1; j < sizeof(pieces) / sizeof(pieces[0]); j++)
            check_long(folder, lengths[i], pieces[j]);
}

static void test_reopen(const char *folder)
{
    struct bench bench;
    char second[300];

    bench_init(&bench, folder, false);
    say(&bench, "old\nhalf", 8);
    snprintf(second, sizeof(second), "%s.2", bench.path);
    rename(bench.path, second);
    log_reopen(&bench.log, open(bench.path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    say(&bench, " line\n", 6);
    end(&bench);
    check(&bench, "F half line\n");
    unlink(second);
}

static void test_full(const char *folder)
{
    struct bench bench;

    bench_init(&bench, folder, false);
    log_reopen(&bench.log, open("/dev/full", O_WRONLY | O_CLOEXEC));
    say(&bench, "a\nb\nc", 5);
    CHECK(bench.log.dropped == 2);
    end(&bench);
    CHECK(bench.log.dropped == 3);
    log_deinit(&bench.log);
}

static void test_flood(const char *folder)
{
    struct bench bench;
    char *text = malloc(1 << 20), *found;
    size_t lines = 0;

    for (size_t i = 0; i < 1 << 20; i++)
        text[i] = i % 7 == 6 ? '\n' : 'y';
    bench_init(&bench, folder, false);
    CHECK(write(bench.writer, text, 1 << 20) == 1 << 20);
    end(&bench);
    found = content(&bench);
    for (const char *at = found; !memcmp(at, "F yyyyyy\n", 9); at += 9)
        lines++;
    CHECK(lines == (1 << 20) / 7);
    free(found);
    free(text);
    log_deinit(&bench.log);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    test_pieces(argv[1]);
    test_console(argv[1]);
    test_bytes_are_kept(argv[1]);
    test_long_lines(argv[1]);
    test_reopen(argv[1]);
    test_full(argv[1]);
    test_flood(argv[1]);
    return 0;
}
