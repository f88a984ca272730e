/* Numbers, times, and exit records, against the C library's own. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../phantom_cri/native/cgroup.h"
#include "../../phantom_cri/native/exit_record.h"
#include "../../phantom_cri/native/text.h"
#include "check.h"

static void check_time(int64_t nanoseconds)
{
    time_t seconds = (time_t)(nanoseconds / 1000000000);
    struct tm broken;
    char expected[64], day[32], found[TEXT_TIME_LENGTH];

    CHECK(gmtime_r(&seconds, &broken));
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &broken);
    snprintf(expected, sizeof(expected), "%s.%09ldZ", day, (long)(nanoseconds % 1000000000));
    text_time(nanoseconds, found);
    CHECK(strlen(expected) == TEXT_TIME_LENGTH && !memcmp(expected, found, TEXT_TIME_LENGTH));
}

static void test_times(void)
{
    static const int64_t days[] = {0, 58, 59, 60, 365, 789, 790, 10956, 11016, 11017, 18321, 18322, 47540};

    for (size_t i = 0; i < sizeof(days) / sizeof(days[0]); i++) {
        check_time(days[i] * 86400 * 1000000000);
        check_time((days[i] + 1) * 86400 * 1000000000 - 1);
    }
    for (int64_t day = 0; day < 80000; day++)
        check_time(day * 86400 * 1000000000 + day * 1234567);
}

static void check_number(int64_t number)
{
    char expected[32], bytes[32];
    struct text text = {bytes, sizeof(bytes), 0};

    snprintf(expected, sizeof(expected), "%lld", (long long)number);
    text_append_number(&text, number);
    CHECK(text.used == strlen(expected) && !memcmp(bytes, expected, text.used));
}

static void test_numbers(void)
{
    check_number(0);
    check_number(9);
    check_number(-1);
    check_number(INT64_MAX);
    check_number(INT64_MIN);
}

static void test_no_room(void)
{
    char bytes[4] = "....";
    struct text text = {bytes, 3, 0};

    text_append_string(&text, "ab");
    text_append_number(&text, 123);
    text_append_string(&text, "x");
    CHECK(text.used == 3 && !memcmp(bytes, "ab1.", 4));
}

static void test_record(void)
{
    struct ph_exit end = {INT64_MIN, INT64_MAX, INT32_MIN, INT32_MIN, 1, UINT32_MAX};
    char bytes[EXIT_RECORD_MAX];
    size_t length = exit_record_format(&end, bytes);

    CHECK(length < EXIT_RECORD_MAX && bytes[length - 1] == '\n');
    end = (struct ph_exit){1, 2, 137, 9, 0, 3};
    length = exit_record_format(&end, bytes);
    bytes[length] = 0;
    CHECK(!strcmp(bytes, "{\"exit_code\":137,\"signal\":9,\"oom\":false,\"started_at\":1,\"finished_at\":2,"
                         "\"dropped_lines\":3}\n"));
}

static void test_record_file(const char *folder)
{
    int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct ph_exit end = {.code = 1};
    struct stat status;

    char one[PH_ID_SIZE] = "one", two[PH_ID_SIZE] = "two";

    CHECK(exit_record_write(directory, one, &end) == 0);
    CHECK(fstatat(directory, "exits/one", &status, 0) == 0 && (status.st_mode & 0777) == 0600);
    CHECK(fstatat(directory, "exits/.one", &status, 0) < 0);
    CHECK(exit_record_remove(directory, one) == 0);
    CHECK(exit_record_remove(directory, one) == 0);
    CHECK(symlinkat("/dev/full", directory, "exits/.two") == 0);
    CHECK(exit_record_write(directory, two, &end) < 0);
    CHECK(fstatat(directory, "exits/two", &status, AT_SYMLINK_NOFOLLOW) < 0);
    close(directory);
}

static void set_id(char id[PH_ID_SIZE], const char *text)
{
    memset(id, 0, PH_ID_SIZE);
    strcpy(id, text);
}

static void test_ids(void)
{
    static const char *const names[] = {"a", "0", "a.b", "A-b_c.9"};
    static const char *const pairs[] = {"a/b", "task.1/exec-2_3", "0/0"};
    static const char *const unsound[] = {"",    ".",     "..",   ".a",   "a b",  "a\n",  "\xc3\xa4",
                                          "/",   "/a",    "a/",   "a//b", "../a", "a/..", "a/.b",
                                          "./a", "a/b/c", "a/\n", "a/b/", "\\",   "a\\b"};
    char id[PH_ID_SIZE];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        set_id(id, names[i]);
        CHECK(id_is_sound(id) && id_is_file_name(id));
    }
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        set_id(id, pairs[i]);
        CHECK(id_is_sound(id) && !id_is_file_name(id));
    }
    for (size_t i = 0; i < sizeof(unsound) / sizeof(unsound[0]); i++) {
        set_id(id, unsound[i]);
        CHECK(!id_is_sound(id) && !id_is_file_name(id));
    }
    memset(id, 'a', sizeof(id));
    CHECK(!id_is_sound(id) && !id_is_file_name(id));
    memset(id + PH_ID_MAX, 0, sizeof(id) - PH_ID_MAX);
    CHECK(id_is_sound(id) && id_is_file_name(id));
    id[PH_ID_MAX] = 'a';
    CHECK(!id_is_sound(id) && !id_is_file_name(id));
}

static void test_records_of_hostile_ids(const char *folder)
{
    static const char *const ids[] = {"../out", "a/b", "", ".", "..", "a/../../out"};
    int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct ph_exit end = {.code = 1};
    char id[PH_ID_SIZE];

    CHECK(close(openat(directory, "out", O_CREAT | O_WRONLY, 0600)) == 0);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        set_id(id, ids[i]);
        CHECK(exit_record_write(directory, id, &end) == -EINVAL);
        CHECK(exit_record_remove(directory, id) == -EINVAL);
    }
    CHECK(faccessat(directory, "out", F_OK, 0) == 0);
    close(directory);
}

static void check_oom(const char *content, uint64_t expected)
{
    FILE *file = tmpfile();

    fputs(content, file);
    fflush(file);
    CHECK(cgroup_oom_kills(fileno(file)) == expected);
    fclose(file);
}

static void test_oom_kills(void)
{
    check_oom("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7);
    check_oom("low 0\nhigh 0\nmax 12\noom 3\noom_kill 18446744073709551615\noom_group_kill 1\n", UINT64_MAX);
    check_oom("oom_kill_disable 5\n", 0);
    check_oom("", 0);
    check_oom("oom_kill ", 0);
    CHECK(cgroup_oom_kills(-1) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    test_times();
    test_numbers();
    test_no_room();
    test_record();
    test_record_file(argv[1]);
    test_ids();
    test_records_of_hostile_ids(argv[1]);
    test_oom_kills();
    return 0;
}
