"""`phantom pools`, `policies`, `doctor` and `version`: about the node itself."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from phantom_cri import __version__
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.socket_check import Unreachable, check_socket
from phantom_cri.cli.tables import age, print_json, short_id, table

if TYPE_CHECKING:
    from phantom_cri.doctor import Check, CheckState

# Importing grpc and the messages takes most of a command's start: only done if a daemon is needed.

_NAMESPACES = ("host_network", "host_pid", "host_ipc")


async def pools(args: Namespace) -> int:
    from phantom_cri.api.phantom.v1 import node_pb2 as wire
    from phantom_cri.cli.connection import connect

    async with connect(args.host) as daemon:
        found = (await daemon.node.ListPools(wire.ListPoolsRequest())).pools
    if args.json:
        print_json([_described(pool) for pool in found])
    else:
        print(pools_table(found))
    return 0


def _described(pool: Any) -> dict[str, Any]:
    profile = {name: getattr(pool.profile, name) for name in _NAMESPACES}
    numbers = (
        "size",
        "warm",
        "starting",
        "claimed",
        "hits",
        "misses",
        "retired",
        "failed_spawns",
        "oldest_age",
    )
    return {
        "name": pool.name,
        "profile": profile,
        **{name: getattr(pool, name) for name in numbers},
        "last_error": pool.last_error,
    }


def pools_table(found: Any) -> str:
    header = (
        "POOL",
        "PROFILE",
        "WANTED",
        "WARM",
        "STARTING",
        "CLAIMED",
        "OLDEST",
        "HITS",
        "MISSES",
        "LAST ERROR",
    )
    rows = [
        (
            pool.name,
            profile_text(pool.profile),
            *(str(number) for number in (pool.size, pool.warm, pool.starting, pool.claimed)),
            age(pool.oldest_age) if pool.oldest_age else "-",
            str(pool.hits),
            str(pool.misses),
            pool.last_error.partition("\n")[0] or "-",
        )
        for pool in found
    ]
    return table(header, rows)


def profile_text(profile: Any) -> str:
    """`pod` or the namespaces of the node that the pool's fragments share: `host_network,host_pid`."""
    return ",".join(name for name in _NAMESPACES if getattr(profile, name)) or "pod"


async def policies(args: Namespace) -> int:
    from phantom_cri.api.phantom.v1 import node_pb2 as wire
    from phantom_cri.cli.connection import connect

    async with connect(args.host) as daemon:
        found = (await daemon.node.ListPolicies(wire.ListPoliciesRequest())).policies
    if args.json:
        print_json([_policy_described(policy) for policy in found])
    else:
        print(policies_table(found))
    return 0


def _policy_described(policy: Any) -> dict[str, Any]:
    lists = ("handlers", "masked_paths", "readonly_paths", "capabilities")
    plain = ("name", "digest", "default", "can_unmask", "no_new_privs", "containers")
    return {
        **{name: getattr(policy, name) for name in plain},
        **{name: list(getattr(policy, name)) for name in lists},
    }


def policies_table(found: Any) -> str:
    header = (
        "POLICY",
        "DEFAULT",
        "HANDLERS",
        "CONTAINERS",
        "MASKED",
        "READ-ONLY",
        "UNMASK",
        "CAPABILITIES",
        "NEW PRIVILEGES",
        "DIGEST",
    )
    rows = [
        (
            policy.name,
            "yes" if policy.default else "-",
            ", ".join(name or '""' for name in policy.handlers) or "-",
            *(
                str(number)
                for number in (policy.containers, len(policy.masked_paths), len(policy.readonly_paths))
            ),
            "allowed" if policy.can_unmask else "never",
            str(len(policy.capabilities)),
            "never" if policy.no_new_privs else "allowed",
            short_id(policy.digest),
        )
        for policy in found
    ]
    return table(header, rows)


async def doctor(args: Namespace) -> int:
    """The daemon's checks if it runs, since it may have other privileges; else those of this process."""
    from phantom_cri.doctor import Check, examine, runnable
    from phantom_cri.errors import PhantomError

    try:
        checks = [Check("daemon", "ok", f"answers at {args.host}"), *await _ask(args.host)]
    except Unreachable:
        absent = Check("daemon", "missing", f"no answer at {args.host}: checked without the daemon")
        try:
            checks = [absent, *await examine()]
        except PhantomError as error:
            raise Failure(str(error)) from None
    fit = runnable(checks)
    if args.json:
        listed = [
            {"name": c.name, "state": c.state, "detail": c.detail, "required": c.required} for c in checks
        ]
        print_json({"runnable": fit, "checks": listed})
    else:
        print(doctor_table(checks))
        print(f"\n{'Pods can run here.' if fit else 'Pods cannot run here: a required feature is missing.'}")
    return 0 if fit else 1


async def _ask(host: str) -> list[Check]:
    check_socket(host)

    from phantom_cri.api.phantom.v1 import node_pb2 as wire
    from phantom_cri.cli.connection import connect
    from phantom_cri.doctor import Check

    states: dict[wire.Check.State, CheckState] = {
        wire.Check.State.OK: "ok",
        wire.Check.State.DEGRADED: "degraded",
        wire.Check.State.MISSING: "missing",
        wire.Check.State.UNUSED: "unused",
    }
    async with connect(host) as daemon:
        answer = await daemon.node.Doctor(wire.DoctorRequest())
    return [Check(check.name, states[check.state], check.detail, check.required) for check in answer.checks]


def doctor_table(checks: list[Check]) -> str:
    rows = [
        (
            check.name,
            check.state + (" (required)" if check.required and check.state == "missing" else ""),
            check.detail,
        )
        for check in checks
    ]
    return table(("CHECK", "STATE", "DETAIL"), rows)


async def version(args: Namespace) -> int:
    """Both versions; exit code 1 without a daemon, as in docker."""
    daemon: dict[str, str] | None = None
    failure: Failure | None = None
    try:
        daemon = await _daemon_version(args.host)
    except Failure as error:
        failure = error
    if args.json:
        print_json({"client": {"version": __version__}, "daemon": daemon})
    else:
        print(f"Client: phantom {__version__}")
        if daemon:
            print(f"Daemon: {daemon['name']} {daemon['version']} (CRI {daemon['api']})")
    if failure:
        raise failure
    return 0


async def _daemon_version(host: str) -> dict[str, str]:
    check_socket(host)

    from phantom_cri.api.cri.v1 import api_pb2 as cri
    from phantom_cri.cli.connection import connect

    async with connect(host) as daemon:
        answer = await daemon.runtime.Version(cri.VersionRequest())
    return {
        "name": answer.runtime_name,
        "version": answer.runtime_version,
        "api": answer.runtime_api_version,
    }
