"""What a process gets from the config: environment, command, folder, stop signal."""

from __future__ import annotations

from typing import Any

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import STOPPED, Better, Case, prints, refused
from tests.e2e.odd_images.draft import Change, config, layers

ECHO = config(Cmd=["echo", "ran"])
# Sorted, for their order means nothing; process 1 has what was given to it, and a shell may drop some.
ENV = config(Cmd=["sh", "-c", "tr '\\0' '\\n' </proc/1/environ | sort"])
CATCHER = (
    'for s in 1 2 3 10 12 15 28 34 37 64; do trap "echo got $s; exit" $s; done; '
    "echo ready; while :; do sleep 0.02; done"
)


def stopped_by(value: Any) -> list[Change]:
    return [config(Cmd=["sh", "-c", CATCHER], StopSignal=value)]


ENVIRONMENT = (
    Case(
        "env-with-nul",
        "A variable has a NUL in it, which execve(2) would end it at.",
        [ENV, config(Env=["PATH=/bin", "A=1\u0000B=2"])],
        (),
        refused("start"),
        Better(refused("create"), "refused when the container is created, by the field's name"),
    ),
    Case(
        "env-null",
        "Env is null.",
        [ENV, config(Env=None)],
        (),
        prints(
            "HOME=/root", "HOSTNAME=odd", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ),
    ),
    Case(
        "env-no-equals",
        "A variable has no `=`.",
        [ENV, config(Env=["PATH=/bin", "ALONE", "A=1"])],
        (),
        prints("A=1", "HOME=/root", "HOSTNAME=odd", "PATH=/bin"),
    ),
    Case(
        "env-empty",
        "A variable is an empty string.",
        [ENV, config(Env=["PATH=/bin", "", "A=1"])],
        (),
        prints("A=1", "HOME=/root", "HOSTNAME=odd", "PATH=/bin"),
    ),
    Case(
        "env-no-name",
        "A variable has no name.",
        [ENV, config(Env=["PATH=/bin", "=x", "A=1"])],
        (),
        refused("start"),
        Better(
            prints("A=1", "HOME=/root", "HOSTNAME=odd", "PATH=/bin"), "left out, like a variable without `=`"
        ),
    ),
    Case(
        "env-twice",
        "A variable is there twice.",
        [ENV, config(Env=["PATH=/bin", "A=1", "B=2", "A=3"])],
        (),
        prints("A=3", "B=2", "HOME=/root", "HOSTNAME=odd", "PATH=/bin"),
    ),
    Case(
        "env-null-element",
        "One of Env is null.",
        [ENV, config(Env=["PATH=/bin", None, "A=1"])],
        (),
        prints("A=1", "HOME=/root", "HOSTNAME=odd", "PATH=/bin"),
    ),
    Case(
        "env-equals-in-value",
        "A value has `=`, blanks and a newline.",
        [ENV, config(Env=["PATH=/bin", "A=b=c d\ne"])],
        (),
        prints("A=b=c d", "HOME=/root", "HOSTNAME=odd", "PATH=/bin", "e"),
    ),
    Case(
        "env-not-utf-8",
        "A variable has an escaped lone surrogate.",
        [ENV, config(Env=["PATH=/bin", "A=\ud800"])],
        (),
        prints("A=�", "HOME=/root", "HOSTNAME=odd", "PATH=/bin"),
    ),
    Case("env-number", "One of Env is a number.", [ENV, config(Env=["PATH=/bin", 7])], (), refused("pull")),
    Case("env-is-a-map", "Env is a map.", [ENV, config(Env={"A": "1"})], (), refused("pull")),
    Case(
        "env-path-empty",
        "PATH is empty, and the command has no slash.",
        [config(Env=["PATH="], Cmd=["echo", "ran"])],
        (),
        refused("start"),
    ),
    Case(
        "env-path-relative",
        "PATH is relative.",
        [config(Env=["PATH=bin"], Cmd=["echo", "ran"])],
        (),
        refused("start"),
        Better(prints("ran"), "POSIX allows it, and it is looked up in the container's root"),
    ),
    Case(
        "env-home",
        "HOME is the image's.",
        [ENV, config(Env=["PATH=/bin", "HOME=/x"])],
        (),
        prints("HOME=/x", "HOSTNAME=odd", "PATH=/bin"),
    ),
    Case(
        "env-hostname",
        "HOSTNAME is the image's.",
        [config(Env=["PATH=/bin", "HOSTNAME=x"], Cmd=["sh", "-c", "echo $HOSTNAME"])],
        (),
        prints("x"),
    ),
)

COMMAND = (
    Case("entrypoint-null", "Entrypoint is null.", [ECHO, config(Entrypoint=None)], (), prints("ran")),
    Case(
        "entrypoint-empty-word",
        "Entrypoint is one empty word, docker's way to take it back.",
        [ECHO, config(Entrypoint=[""])],
        (),
        prints("ran"),
    ),
    Case(
        "entrypoint-and-cmd",
        "Cmd is Entrypoint's arguments.",
        [config(Entrypoint=["echo", "a"], Cmd=["", "b c"])],
        (),
        prints("a  b c"),
    ),
    Case(
        "entrypoint-empty-word-first",
        "Entrypoint begins with an empty word.",
        [config(Entrypoint=["", "echo"], Cmd=["ran"])],
        (),
        refused("start"),
        Better(
            refused("create"),
            "refused when the container is created, by the field's name, before anything of it runs",
        ),
    ),
    Case(
        "entrypoint-string",
        "Entrypoint is a string.",
        [config(Entrypoint="echo ran", Cmd=[])],
        (),
        refused("pull"),
    ),
    Case(
        "cmd-null",
        "Cmd is null, and Entrypoint is there.",
        [config(Entrypoint=["echo", "ran"], Cmd=None)],
        (),
        prints("ran"),
    ),
    Case("cmd-string", "Cmd is a string.", [config(Cmd="echo ran")], (), refused("pull")),
    Case("cmd-null-element", "One of Cmd is null.", [config(Cmd=["echo", None, "ran"])], (), prints(" ran")),
    Case(
        "cmd-only-empty-word",
        "Cmd is one empty word, and nothing else is there.",
        [config(Cmd=[""])],
        (),
        refused("start"),
        Better(
            refused("create"),
            "refused when the container is created, by the field's name, before anything of it runs",
        ),
    ),
    Case(
        "cmd-relative",
        "The command is a relative path.",
        [config(Cmd=["./echo", "ran"], WorkingDir="/bin")],
        (),
        prints("ran"),
    ),
    Case(
        "args-escaped",
        "ArgsEscaped is true, as Windows images have it.",
        [ECHO, config(ArgsEscaped=True)],
        (),
        prints("ran"),
    ),
)

PWD = config(Cmd=["sh", "-c", "pwd; stat -c '%a %u' ."])

WORKING_DIR = (
    Case("workdir-null", "WorkingDir is null.", [PWD, config(WorkingDir=None)], (), prints("/", "755 0")),
    Case(
        "workdir-missing",
        "WorkingDir is not there.",
        [PWD, config(WorkingDir="/gone/deep")],
        (),
        prints("/gone/deep", "755 0"),
    ),
    Case(
        "workdir-missing-for-user",
        "WorkingDir is not there, and the user is not root.",
        [PWD, config(WorkingDir="/gone", User="33")],
        (),
        prints("/gone", "755 0"),
    ),
    Case(
        "workdir-relative",
        "WorkingDir is relative.",
        [PWD, config(WorkingDir="tmp")],
        (),
        refused("start"),
        Better(prints("/tmp", "1777 0"), "taken from the root on, as docker does"),
    ),
    Case(
        "workdir-dot-dot",
        "WorkingDir has `..` and `//` in it.",
        [PWD, config(WorkingDir="//usr/../tmp//")],
        (),
        prints("/tmp", "1777 0"),
    ),
    Case(
        "workdir-above-root",
        "WorkingDir leads above the root.",
        [PWD, config(WorkingDir="/../../tmp")],
        (),
        prints("/tmp", "1777 0"),
    ),
    Case(
        "workdir-dot",
        "WorkingDir is `.`.",
        [PWD, config(WorkingDir=".")],
        (),
        refused("start"),
        Better(prints("/", "755 0"), "taken from the root on, as docker does"),
    ),
    Case(
        "workdir-file", "WorkingDir is a file.", [PWD, config(WorkingDir="/etc/passwd")], (), refused("start")
    ),
    Case(
        "workdir-symlink",
        "WorkingDir is a symbolic link.",
        [layers(Layer().symlink("l", "/tmp").finish()), PWD, config(WorkingDir="/l")],
        (),
        prints("/tmp", "1777 0"),
    ),
    Case(
        "workdir-symlink-out",
        "WorkingDir is a symbolic link that points above the root, to what is not there.",
        [layers(Layer().symlink("l", "../../../odd-gone").finish()), PWD, config(WorkingDir="/l")],
        (),
        refused("start"),
        Better(
            prints("/odd-gone", "755 0"),
            "the link ends at the root, as the kernel has it, and the directory is made",
        ),
    ),
    Case(
        "workdir-not-allowed",
        "WorkingDir may be entered by root alone, and the user is another.",
        [
            layers(Layer().directory("closed", 0o700).finish()),
            config(Cmd=["echo", "ran"], WorkingDir="/closed", User="33"),
        ],
        (),
        prints("ran"),
    ),
)

SIGNALS = (
    Case("stop-signal-null", "StopSignal is null.", stopped_by(None), STOPPED, prints("ready", "got 15")),
    Case(
        "stop-signal-number",
        "StopSignal is a number in a string.",
        stopped_by("10"),
        STOPPED,
        prints("ready", "got 10"),
    ),
    Case("stop-signal-json-number", "StopSignal is a JSON number.", stopped_by(10), STOPPED, refused("pull")),
    Case(
        "stop-signal-lower-case",
        "StopSignal is in lower case.",
        stopped_by("sigusr1"),
        STOPPED,
        prints("ready", "got 10"),
    ),
    Case(
        "stop-signal-short",
        "StopSignal is without SIG.",
        stopped_by("USR2"),
        STOPPED,
        prints("ready", "got 12"),
    ),
    Case(
        "stop-signal-realtime",
        "StopSignal is SIGRTMIN+3, as systemd's images have it.",
        stopped_by("SIGRTMIN+3"),
        STOPPED,
        prints("ready", "got 37"),
    ),
    Case(
        "stop-signal-realtime-short",
        "StopSignal is RTMIN+3.",
        stopped_by("RTMIN+3"),
        STOPPED,
        prints("ready", "got 37"),
    ),
    Case(
        "stop-signal-realtime-last",
        "StopSignal is SIGRTMAX.",
        stopped_by("SIGRTMAX"),
        STOPPED,
        prints("ready", "got 64"),
    ),
    Case(
        "stop-signal-unknown",
        "StopSignal is a name that no signal has.",
        stopped_by("SIGFOO"),
        STOPPED,
        refused("stop"),
        Better(
            refused("create"),
            "refused at once: there the container runs and StopContainer always fails, so its pod never ends",
        ),
    ),
    Case(
        "stop-signal-zero",
        "StopSignal is 0.",
        stopped_by("0"),
        STOPPED,
        refused("stop"),
        Better(
            refused("create"),
            "refused at once: there the container runs and StopContainer always fails, so its pod never ends",
        ),
    ),
    Case(
        "stop-signal-too-large",
        "StopSignal is 99.",
        stopped_by("99"),
        STOPPED,
        refused("stop"),
        Better(
            refused("create"),
            "refused at once: there the container runs and StopContainer always fails, so its pod never ends",
        ),
    ),
    Case(
        "stop-signal-blank",
        "StopSignal has blanks around it.",
        stopped_by(" SIGUSR1 "),
        STOPPED,
        refused("stop"),
        Better(
            refused("create"),
            "refused at once: there the container runs and StopContainer always fails, so its pod never ends",
        ),
    ),
)
