"""Who runs: User, passwd and group."""

from __future__ import annotations

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import STATUS, Better, Case, prints, refused
from tests.e2e.odd_images.draft import Change, config, layers

# The kernel's own view: names would be looked up in the very files that are odd.
ID = config(
    Cmd=["sh", "-c", "sed -n 's/^\\(Uid\\|Gid\\|Groups\\):[ \\t]*//p' /proc/self/status | tr '\\t\\n' ' /'"]
)
GROUPS = (
    "root:x:0:\nwww-data:x:33:\naudio:x:29:www-data,nobody\nvideo:x:44:www-data\nbroken\nnobody:x:65534:\n"
)


def passwd(layer: Layer, user: str = "odd") -> list[Change]:
    return [layers(Layer().file("etc/.wh.passwd", "").finish(), layer.finish()), ID, config(User=user)]


USERS = (
    Case("user-null", "User is null.", [ID, config(User=None)], (), prints("0 0 0 0/0 0 0 0/0 /")),
    Case(
        "user-name",
        "User is a name, in groups of its own.",
        [ID, config(User="www-data"), layers(Layer().file("etc/group", GROUPS).finish())],
        (),
        prints("33 33 33 33/33 33 33 33/29 33 44 /"),
    ),
    Case(
        "user-number",
        "User is a number that passwd knows.",
        [ID, config(User="33"), layers(Layer().file("etc/group", GROUPS).finish())],
        (),
        prints("33 33 33 33/33 33 33 33/29 33 44 /"),
    ),
    Case(
        "user-unknown-number",
        "User is a number that passwd does not know.",
        [ID, config(User="4321")],
        (),
        prints("4321 4321 4321 4321/0 0 0 0/0 /"),
    ),
    Case(
        "user-name-and-group",
        "User is a name and a group's name.",
        [
            ID,
            config(User="www-data:daemon"),
            layers(Layer().file("etc/group", GROUPS + "daemon:x:1:\n").finish()),
        ],
        (),
        prints("33 33 33 33/1 1 1 1/1 29 44 /"),
    ),
    Case(
        "user-numbers",
        "User is two numbers that no file knows.",
        [ID, config(User="4321:8765")],
        (),
        prints("4321 4321 4321 4321/8765 8765 8765 8765/8765 /"),
    ),
    Case(
        "user-number-and-group",
        "User is a number and a group's name.",
        [ID, config(User="4321:daemon")],
        (),
        prints("4321 4321 4321 4321/1 1 1 1/1 /"),
    ),
    Case(
        "user-unknown",
        "User is a name that is not in passwd.",
        [ID, config(User="stranger")],
        (),
        refused("create"),
    ),
    Case(
        "user-unknown-group",
        "The group is not in group.",
        [ID, config(User="www-data:strangers")],
        (),
        refused("create"),
    ),
    Case(
        "user-empty-group",
        "User ends in a colon.",
        [ID, config(User="33:")],
        (),
        prints("33 33 33 33/0 0 0 0/0 /"),
        Better(
            prints("33 33 33 33/33 33 33 33/33 /"),
            "no group is asked for, so it is the user's own; there it is root's",
        ),
    ),
    Case(
        "user-group-alone",
        "User begins with a colon.",
        [ID, config(User=":33")],
        (),
        prints("0 0 0 0/33 33 33 33/33 /"),
    ),
    Case("user-two-colons", "User has two colons.", [ID, config(User="1:2:3")], (), refused("create")),
    Case("user-negative", "User is negative.", [ID, config(User="-1")], (), refused("create")),
    Case(
        "user-largest",
        "User is 2³¹-1, the largest that runc takes.",
        [ID, config(User="2147483647")],
        (),
        prints("2147483647 2147483647 2147483647 2147483647/0 0 0 0/0 /"),
    ),
    Case("user-too-large", "User is 2³¹.", [ID, config(User="2147483648")], (), refused("create")),
    Case(
        "user-over-32-bits",
        "User is 2³²: root, if only 32 bits were read.",
        [ID, config(User="4294967296")],
        (),
        refused("create"),
    ),
    Case(
        "user-plus",
        "User is a number with a sign.",
        [ID, config(User="+33")],
        (),
        prints("33 33 33 33/33 33 33 33/33 /"),
    ),
    Case(
        "user-leading-zeros",
        "User has zeros before it.",
        [ID, config(User="0033")],
        (),
        prints("33 33 33 33/33 33 33 33/33 /"),
    ),
    Case("user-with-blank", "User has a blank before it.", [ID, config(User=" 33")], (), refused("create")),
    Case("user-json-number", "User is a JSON number.", [ID, config(User=33)], (), refused("pull")),
    Case(
        "user-name-of-digits",
        "A user in passwd has a number as its name, and another one as its id.",
        passwd(Layer().file("etc/passwd", "1234:x:77:88::/:/bin/sh\n"), "1234"),
        (),
        prints("1234 1234 1234 1234/0 0 0 0/0 /"),
    ),
    Case(
        "user-name-of-digits-is-root",
        "A user in passwd has a number as its name, and is root: kubelet's runAsNonRoot sees the number.",
        passwd(Layer().file("etc/passwd", "1234:x:0:0::/:/bin/sh\n"), "1234"),
        (),
        prints("1234 1234 1234 1234/0 0 0 0/0 /"),
    ),
)

FILES = (
    Case(
        "passwd-missing-number",
        "There is no passwd, and User is a number.",
        passwd(Layer().directory("etc"), "33"),
        (),
        prints("33 33 33 33/0 0 0 0/0 /"),
    ),
    Case(
        "passwd-missing-name",
        "There is no passwd, and User is a name.",
        passwd(Layer().directory("etc")),
        (),
        refused("create"),
    ),
    Case(
        "passwd-missing-root",
        "There is no passwd, and User is root by name.",
        passwd(Layer().directory("etc"), "root"),
        (),
        refused("create"),
    ),
    Case(
        "passwd-symlink",
        "passwd is an absolute symbolic link.",
        passwd(Layer().file("p", "odd:x:77:88::/:\n").symlink("etc/passwd", "/p")),
        (),
        prints("77 77 77 77/88 88 88 88/88 /"),
    ),
    Case(
        "passwd-symlink-out",
        "passwd is a symbolic link that points above the root.",
        passwd(Layer().file("p", "odd:x:77:88::/:\n").symlink("etc/passwd", "../../../../p")),
        (),
        refused("create"),
        Better(prints("77 77 77 77/88 88 88 88/88 /"), "the link ends at the root, as the kernel has it"),
    ),
    Case(
        "passwd-symlink-to-host",
        "passwd is a symbolic link to what the host alone has.",
        passwd(Layer().symlink("etc/passwd", "/proc/1/root/etc/passwd"), "messagebus"),
        (),
        refused("create"),
    ),
    Case(
        "passwd-symlink-loop",
        "passwd is a symbolic link to itself.",
        passwd(Layer().symlink("etc/passwd", "passwd")),
        (),
        refused("create"),
    ),
    Case(
        "passwd-directory",
        "passwd is a directory, and User is a name.",
        passwd(Layer().directory("etc/passwd")),
        (),
        refused("create"),
    ),
    Case(
        "passwd-directory-number",
        "passwd is a directory, and User is a number.",
        passwd(Layer().directory("etc/passwd"), "33"),
        (),
        refused("create"),
        Better(
            prints("33 33 33 33/0 0 0 0/0 /"),
            "only a regular file is read, and without one a number is enough",
        ),
    ),
    Case(
        "passwd-fifo",
        "passwd is a fifo: who opens it waits for a writer.",
        passwd(Layer().member("etc/passwd", b"6", 0o644)),
        (),
        refused("create", "hangs"),
        Better(refused("create"), "a fifo is not opened; there CreateContainer never returns"),
    ),
    Case(
        "passwd-fifo-number",
        "passwd is a fifo, and User is a number.",
        passwd(Layer().member("etc/passwd", b"6", 0o644), "33"),
        (),
        refused("create", "hangs"),
        Better(
            prints("33 33 33 33/0 0 0 0/0 /"), "a fifo is not opened; there CreateContainer never returns"
        ),
    ),
    Case(
        "passwd-device",
        "passwd is /dev/zero, which never ends.",
        passwd(Layer().member("etc/passwd", b"3", 0o644, devmajor=1, devminor=5)),
        (),
        refused("create"),
    ),
    Case(
        "passwd-long-line",
        "A line of passwd has 100 kB.",
        passwd(Layer().file("etc/passwd", "long:x:1:1:" + "x" * 100_000 + ":/:\nodd:x:77:88::/:\n")),
        (),
        refused("create"),
        Better(prints("77 77 77 77/88 88 88 88/88 /"), "a long line is a line"),
    ),
    Case(
        "passwd-odd-lines",
        "passwd has comments, empty lines, NIS lines and lines that are too short.",
        passwd(Layer().file("etc/passwd", "# odd:x:1:1\n\n+::::::\nodd\nodd:x\n  odd:x:77:88::/:\n")),
        (),
        prints("0 0 0 0/0 0 0 0/0 /"),
        Better(
            prints("77 77 77 77/88 88 88 88/88 /"),
            "a line too short to have a number names no user; there it is root",
        ),
    ),
    Case(
        "passwd-user-twice",
        "A user is twice in passwd.",
        passwd(Layer().file("etc/passwd", "odd:x:77:88::/:\nodd:x:99:99::/:\n")),
        (),
        prints("77 77 77 77/88 88 88 88/88 /"),
    ),
    Case(
        "passwd-no-number",
        "A user's id in passwd is no number.",
        passwd(Layer().file("etc/passwd", "odd:x:many:88::/:\n")),
        (),
        prints("0 0 0 0/88 88 88 88/88 /"),
        Better(
            refused("create"), "a line of passwd that has no valid number names no user; there it is root"
        ),
    ),
    Case(
        "passwd-negative",
        "A user's id in passwd is negative.",
        passwd(Layer().file("etc/passwd", "odd:x:-2:-2::/:\n")),
        (),
        prints(
            "4294967294 4294967294 4294967294 4294967294/4294967294 4294967294 4294967294 "
            "4294967294/4294967294 /"
        ),
        Better(refused("create"), "a line of passwd that has no valid number names no user"),
    ),
    Case(
        "passwd-too-large",
        "A user's id in passwd is over 2³².",
        passwd(Layer().file("etc/passwd", "odd:x:4294967296:88::/:\n")),
        (),
        prints("0 0 0 0/88 88 88 88/88 /"),
        Better(
            refused("create"), "a line of passwd that has no valid number names no user; there it is root"
        ),
    ),
    Case(
        "passwd-latin-1",
        "passwd has bytes that are not UTF-8.",
        passwd(Layer().file("etc/passwd", b"h\xe9:x:1:1:h\xe9:/:\nodd:x:77:88:\xff:/:\n")),
        (),
        prints("77 77 77 77/88 88 88 88/88 /"),
    ),
    Case(
        "passwd-no-newline",
        "passwd's last line has no newline, and the others have carriage returns.",
        passwd(Layer().file("etc/passwd", "a:x:1:1::/:\r\nodd:x:77:88::/:")),
        (),
        prints("77 77 77 77/88 88 88 88/88 /"),
    ),
    Case(
        "group-odd",
        "group is a directory, and User is a name.",
        [
            ID,
            config(User="www-data"),
            layers(Layer().file("etc/.wh.group", "").finish(), Layer().directory("etc/group").finish()),
        ],
        (),
        refused("create"),
        Better(prints("33 33 33 33/33 33 33 33/33 /"), "a file of groups that cannot be read names none"),
    ),
    Case(
        "home-from-passwd",
        "HOME is what passwd says, though it is not there.",
        [config(Cmd=["sh", "-c", "echo $HOME"], User="www-data")],
        (),
        prints("/var/www"),
    ),
    Case(
        "home-unknown-user",
        "HOME of a user whom passwd does not know.",
        [config(Cmd=["sh", "-c", "echo $HOME"], User="4321")],
        (),
        prints("/"),
    ),
    Case(
        "status-of-name",
        "ImageStatus has the user's name, for the kubelet's runAsNonRoot.",
        [config(User="www-data:33")],
        STATUS,
        prints("HOST/status-of-name:latest", "HOST/status-of-name@sha256:DIGEST", "user www-data"),
    ),
    Case(
        "status-of-odd-number",
        "ImageStatus of a user that is a number with zeros before it.",
        [config(User="0000")],
        STATUS,
        prints("HOST/status-of-odd-number:latest", "HOST/status-of-odd-number@sha256:DIGEST", "user 0"),
    ),
)
