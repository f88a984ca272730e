/* Clients of a process's output, over the fragment's own loop and connections. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../phantom_cri/native/attach.h"
#include "../../phantom_cri/native/loop.h"
#include "../../phantom_cri/native/protocol.h"
#include "check.h"

static int daemon_side; /* of the one connection, which is the first: index 0, generation 1 */

static void no_request(struct request *request)
{
    (void)request;
    CHECK(false);
}

static bool has_turned;

static int64_t one_turn(void)
{
    has_turned = !has_turned;
    return has_turned ? 0 : LOOP_END;
}

static void loop_once(void)
{
    CHECK(loop_run(one_turn) == 0);
}

static void listen_and_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0phantom-test-attach"};
    int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "test-attach-%d", getpid());
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 1) == 0);
    daemon_side = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(connect(daemon_side, (struct sockaddr *)&address, sizeof(address)) == 0);
    daemon_side = fcntl(daemon_side, F_DUPFD_CLOEXEC, 10);
    if (listener != PH_FD_LISTEN) {
        CHECK(dup2(listener, PH_FD_LISTEN) == PH_FD_LISTEN);
        close(listener);
    }
    CHECK(loop_init() == 0);
    attach_init();
    CHECK(connections_init(PH_FD_LISTEN, no_request) == 0);
    loop_once();
}

/* The next packet, which must be there already. */
static struct ph_message told(void)
{
    struct ph_message message;

    CHECK(recv(daemon_side, &message, sizeof(message), MSG_DONTWAIT) == sizeof(message));
    return message;
}

static void check_told(uint32_t type, uint64_t serial, int error)
{
    struct ph_message message = told();

    CHECK(message.type == type && message.serial == serial && message.error == error);
}

static void check_nothing_told(void)
{
    char byte;

    CHECK(recv(daemon_side, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

struct bench {
    struct log log;
    int writers[LOG_STREAMS];
};

static void bench_init(struct bench *bench)
{
    int out[2], err[2];

    CHECK(pipe2(out, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(err, O_CLOEXEC | O_NONBLOCK) == 0);
    CHECK(log_init(open("/dev/null", O_WRONLY | O_CLOEXEC), out[0], err[0], false, &bench->log) == 0);
    bench->writers[LOG_STDOUT] = out[1];
    bench->writers[LOG_STDERR] = err[1];
}

static void bench_deinit(struct bench *bench)
{
    log_deinit(&bench->log);
    close(bench->writers[LOG_STDOUT]);
    close(bench->writers[LOG_STDERR]);
}

static void say(struct bench *bench, enum log_name name, const char *text)
{
    CHECK(write(bench->writers[name], text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(log_pump(&bench->log, name));
}

/* Attaches; readers[] get the reading ends. */
static int attach_both(struct bench *bench, uint64_t serial, int readers[LOG_STREAMS])
{
    int writers[LOG_STREAMS], result;

    for (int name = 0; name < LOG_STREAMS; name++) {
        int ends[2];

        CHECK(pipe2(ends, O_CLOEXEC) == 0);
        readers[name] = ends[0];
        writers[name] = ends[1];
    }
    result = attach_client(&bench->log, writers, -1, (struct reply_to){0, 1, serial});
    CHECK(result < 0 || (writers[LOG_STDOUT] < 0 && writers[LOG_STDERR] < 0));
    for (int name = 0; name < LOG_STREAMS; name++)
        if (writers[name] >= 0)
            close(writers[name]);
    if (result == 0)
        check_told(PH_OK, serial, 0);
    return result;
}

static void close_both(int readers[LOG_STREAMS])
{
    close(readers[LOG_STDOUT]);
    close(readers[LOG_STDERR]);
}

static void check_reads(int fd, const char *expected)
{
    char text[256] = "";

    CHECK(read(fd, text, sizeof(text)) == (ssize_t)strlen(expected) && !strcmp(text, expected));
}

static void check_ended(int fd)
{
    char byte;

    CHECK(read(fd, &byte, 1) == 0);
}

static void test_each_gets_all(void)
{
    struct bench bench;
    int one[LOG_STREAMS], two[LOG_STREAMS];

    bench_init(&bench);
    say(&bench, LOG_STDOUT, "before\n");
    CHECK(attach_both(&bench, 1, one) == 0);
    say(&bench, LOG_STDOUT, "half");
    CHECK(attach_both(&bench, 2, two) == 0);
    say(&bench, LOG_STDOUT, " a line\n");
    say(&bench, LOG_STDERR, "oh\n");
    check_reads(one[LOG_STDOUT], "half a line\n");
    check_reads(one[LOG_STDERR], "oh\n");
    check_reads(two[LOG_STDOUT], " a line\n");
    check_reads(two[LOG_STDERR], "oh\n");
    check_nothing_told();
    log_end(&bench.log, LOG_STDOUT);
    check_ended(one[LOG_STDOUT]);
    check_ended(two[LOG_STDOUT]);
    say(&bench, LOG_STDERR, "more\n");
    check_reads(two[LOG_STDERR], "more\n");
    check_nothing_told();
    log_end(&bench.log, LOG_STDERR);
    check_told(PH_DETACHED, 1, 0);
    check_told(PH_DETACHED, 2, 0);
    CHECK(!bench.log.tap);
    close_both(one);
    close_both(two);
    bench_deinit(&bench);
}

static void test_the_slow_one_is_let_go(void)
{
    struct bench bench;
    int slow[LOG_STREAMS], quick[LOG_STREAMS];
    static char text[4097], found[65536];
    size_t total = 0;

    memset(text, 'x', sizeof(text) - 1);
    bench_init(&bench);
    CHECK(attach_both(&bench, 3, slow) == 0 && attach_both(&bench, 4, quick) == 0);
    for (int i = 0; i < 16; i++) {
        say(&bench, LOG_STDOUT, text);
        CHECK(read(quick[LOG_STDOUT], found, sizeof(found)) == 4096);
    }
    check_nothing_told();
    say(&bench, LOG_STDOUT, text);
    check_told(PH_DETACHED, 3, ENOBUFS);
    CHECK(read(quick[LOG_STDOUT], found, sizeof(found)) == 4096);
    for (ssize_t count; (count = read(slow[LOG_STDOUT], found, sizeof(found))) > 0;)
        total += (size_t)count;
    CHECK(total == 65536); /* a pipe's room; then the end */
    check_ended(slow[LOG_STDERR]);
    say(&bench, LOG_STDERR, "on\n");
    check_reads(quick[LOG_STDERR], "on\n");
    close_both(slow);
    close_both(quick);
    bench_deinit(&bench);
    check_told(PH_DETACHED, 4, 0);
}

static void test_a_client_that_goes_leaves_its_place(void)
{
    struct bench bench, other;
    int readers[ATTACH_PROCESS_MAX][LOG_STREAMS], more[LOG_STREAMS];

    bench_init(&bench);
    bench_init(&other);
    for (int i = 0; i < ATTACH_PROCESS_MAX; i++)
        CHECK(attach_both(&bench, 5, readers[i]) == 0);
    CHECK(attach_both(&bench, 6, more) == -EAGAIN);
    close_both(more);
    check_nothing_told();
    CHECK(attach_both(&other, 6, more) == 0);
    close_both(readers[0]);
    say(&bench, LOG_STDOUT, "anybody?\n"); /* EPIPE, in front of the hang-up's event */
    check_told(PH_DETACHED, 5, 0);
    check_reads(readers[1][LOG_STDOUT], "anybody?\n");
    attach_hung_up(0, 0xffff, READY_INPUT); /* of an earlier client at this place */
    check_nothing_told();
    CHECK(attach_both(&bench, 5, readers[0]) == 0);
    for (int i = 0; i < ATTACH_PROCESS_MAX; i++)
        close_both(readers[i]);
    bench_deinit(&bench);
    for (int i = 0; i < ATTACH_PROCESS_MAX; i++)
        check_told(PH_DETACHED, 5, 0);
    check_nothing_told();
    say(&other, LOG_STDOUT, "still here\n");
    check_reads(more[LOG_STDOUT], "still here\n");
    bench_deinit(&other);
    check_told(PH_DETACHED, 6, 0);
    close_both(more);
}

static void test_all_places_of_a_fragment(void)
{
    struct bench benches[ATTACH_MAX / ATTACH_PROCESS_MAX + 1];
    int readers[LOG_STREAMS], last = ATTACH_MAX / ATTACH_PROCESS_MAX;

    for (int i = 0; i <= last; i++)
        bench_init(&benches[i]);
    for (int i = 0; i < ATTACH_MAX; i++) {
        CHECK(attach_both(&benches[i / ATTACH_PROCESS_MAX], 7, readers) == 0);
        close_both(readers);
    }
    CHECK(attach_both(&benches[last], 8, readers) == -EAGAIN);
    close_both(readers);
    for (int i = 0; i <= last; i++)
        bench_deinit(&benches[i]);
    for (int i = 0; i < ATTACH_MAX; i++)
        check_told(PH_DETACHED, 7, 0);
}

static void test_nothing_to_read(void)
{
    struct bench bench;
    int none[LOG_STREAMS] = {-1, -1}, readers[LOG_STREAMS];

    bench_init(&bench);
    CHECK(attach_client(&bench.log, none, -1, (struct reply_to){0, 1, 9}) == 0);
    check_told(PH_OK, 9, 0);
    check_told(PH_DETACHED, 9, 0);
    log_end(&bench.log, LOG_STDERR);
    CHECK(attach_both(&bench, 10, readers) == 0);
    check_ended(readers[LOG_STDERR]);
    say(&bench, LOG_STDOUT, "half of it\n");
    check_reads(readers[LOG_STDOUT], "half of it\n");
    log_end(&bench.log, LOG_STDOUT);
    check_told(PH_DETACHED, 10, 0);
    close_both(readers);
    CHECK(attach_both(&bench, 11, readers) == 0);
    check_told(PH_DETACHED, 11, 0);
    check_ended(readers[LOG_STDOUT]);
    close_both(readers);
    bench_deinit(&bench);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* the fragment blocks all signals */
    listen_and_connect();
    test_each_gets_all();
    test_the_slow_one_is_let_go();
    test_a_client_that_goes_leaves_its_place();
    test_all_places_of_a_fragment();
    test_nothing_to_read();
    return 0;
}
