"""Volumes that images ask for."""

from __future__ import annotations

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import Change, config, layers


def volume(path: str, command: str, layer: Layer | None = None) -> list[Change]:
    seeded = layer or Layer().file("seed/f", "f", 0o640, uid=7)
    return [layers(seeded.finish()), config(Volumes={path: {}}, Cmd=["sh", "-c", command])]


MOUNTS = "awk '$5 == p {print \"mounted\", p}' p={} /proc/self/mountinfo; look {}"

VOLUMES = (
    Case(
        "volume",
        "A volume with content in the image, which it begins with.",
        volume("/seed", MOUNTS.replace("{}", "/seed")),
        (),
        prints("mounted /seed", "/seed/", '/seed/f "f" mode 640 owner 7:0'),
    ),
    Case(
        "volume-null",
        "A volume's value is null.",
        [config(Volumes={"/v": None}, Cmd=["sh", "-c", MOUNTS.replace("{}", "/v")])],
        (),
        prints("mounted /v", "/v/"),
    ),
    Case(
        "volume-relative",
        "A volume's path is relative.",
        volume("seed", MOUNTS.replace("{}", "/seed")),
        (),
        prints("mounted /seed", "/seed/", '/seed/f "f" mode 640 owner 7:0'),
    ),
    Case(
        "volume-dot-dot",
        "A volume's path has `..` and `//` in it.",
        volume("/usr/..//seed/", MOUNTS.replace("{}", "/seed")),
        (),
        prints("mounted /seed", "/seed/", '/seed/f "f" mode 640 owner 7:0'),
    ),
    Case(
        "volume-above-root",
        "A volume's path leads above the root.",
        volume("/../../seed", MOUNTS.replace("{}", "/seed")),
        (),
        prints("mounted /seed", "/seed/", '/seed/f "f" mode 640 owner 7:0'),
    ),
    Case(
        "volume-root",
        "A volume is the root.",
        volume("/", "echo ran"),
        (),
        refused("start"),
        Better(
            refused("create"),
            "refused when the container is created, by the field's name, before anything of it runs",
        ),
    ),
    Case(
        "volume-empty-path",
        "A volume has no path.",
        volume("", "echo ran"),
        (),
        refused("start"),
        Better(
            refused("create"),
            "refused when the container is created, by the field's name, before anything of it runs",
        ),
    ),
    Case(
        "volume-missing",
        "A volume's path is not in the image.",
        volume("/gone/deep", MOUNTS.replace("{}", "/gone/deep")),
        (),
        prints("mounted /gone/deep", "/gone/deep/"),
    ),
    Case(
        "volume-nested",
        "A volume lies in another one.",
        [
            layers(Layer().file("seed/in/f", "f").finish()),
            config(Volumes={"/seed/in": {}, "/seed": {}}, Cmd=["sh", "-c", "look /seed"]),
        ],
        (),
        prints("/seed/", "/seed/in/", '/seed/in/f "f"'),
    ),
    Case(
        "volume-symlink",
        "A volume's path is a symbolic link to a directory.",
        volume(
            "/l",
            "look /l /seed; " + MOUNTS.replace("{}", "/seed"),
            Layer().file("seed/f", "f").symlink("l", "seed"),
        ),
        (),
        prints("/l -> seed", "/seed/", '/seed/f "f"', "mounted /seed", "/seed/", '/seed/f "f"'),
    ),
    Case(
        "volume-symlink-out",
        "A volume's path is a symbolic link that points above the root.",
        volume(
            "/l", MOUNTS.replace("{}", "/seed"), Layer().file("seed/f", "f").symlink("l", "../../../seed")
        ),
        (),
        prints("mounted /seed", "/seed/", '/seed/f "f"'),
    ),
    Case(
        "volume-file",
        "A volume's path is a file.",
        volume("/f", MOUNTS.replace("{}", "/f"), Layer().file("f", "f")),
        (),
        refused("create"),
    ),
    Case(
        "volume-over-proc",
        "A volume's path is /proc/odd.",
        volume("/proc/odd", "echo ran"),
        (),
        refused("start"),
        Better(
            refused("create"),
            "refused when the container is created, by the field's name, before anything of it runs",
        ),
    ),
    Case(
        "volume-over-dev",
        "A volume's path is below /dev.",
        volume("/dev/shm/odd", MOUNTS.replace("{}", "/dev/shm/odd")),
        (),
        prints("mounted /dev/shm/odd", "/dev/shm/odd/"),
    ),
    Case(
        "volume-with-links",
        "A volume begins with links, a fifo and attributes.",
        volume(
            "/seed",
            "look /seed",
            Layer()
            .directory("seed", 0o1777)
            .file("seed/a", "a", 0o755, pax_headers={"SCHILY.xattr.user.a": "b"})
            .member("seed/b", b"1", 0o755, linkname="seed/a")
            .symlink("seed/l", "/etc/passwd")
            .member("seed/p", b"6", 0o600),
        ),
        (),
        prints(
            "/seed/ mode 1777",
            '/seed/a "a" mode 755 links 2 user.a="b"',
            '/seed/b "a" mode 755 links 2 user.a="b"',
            "/seed/l -> /etc/passwd",
            "/seed/p fifo mode 600",
        ),
    ),
    Case(
        "volume-odd-name",
        "A volume's path has a blank, a colon and a comma in it.",
        volume("/a b:c,d", "ls -d '/a b:c,d'"),
        (),
        prints("/a b:c,d"),
    ),
)
