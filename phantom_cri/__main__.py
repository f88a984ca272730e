"""The daemon: configuration → objects → serve. The only place that picks implementations."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from phantom_cri import __version__, cgroups, config, native
from phantom_cri.cdi import Registry
from phantom_cri.cgroups import Cgroups, LaunchFds
from phantom_cri.checkpoint import Criu
from phantom_cri.config import Config, PoolConfig, StreamingConfig
from phantom_cri.cri.server import cri_server
from phantom_cri.daemon import gauges, user_namespaces
from phantom_cri.daemon.ownership import Ownership
from phantom_cri.daemon.recover import recover
from phantom_cri.drivers import Driver
from phantom_cri.drivers.native import NativeDriver
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.images import ImageService, Limits
from phantom_cri.lifecycle import confinement, node_fragments
from phantom_cri.lifecycle.durable import DurableRecords
from phantom_cri.lifecycle.image_verbs import ImageVerbs
from phantom_cri.lifecycle.labelling import label_layers
from phantom_cri.lifecycle.node_verbs import NodeVerbs
from phantom_cri.lifecycle.record_file import RecordFile
from phantom_cri.lifecycle.records import Records
from phantom_cri.lifecycle.runtime import Handler, Runtime
from phantom_cri.lifecycle.verbs import PodVerbs
from phantom_cri.network import NetworkDriver
from phantom_cri.network.builtin import BuiltinNetwork
from phantom_cri.network.cni.driver import CniNetwork
from phantom_cri.policy import AppArmor, KeptPolicies, PolicyBook, Selinux, apparmor
from phantom_cri.pools import Pool, Profile
from phantom_cri.rpc.calls import Calls
from phantom_cri.streaming import StreamServer
from phantom_cri.telemetry import logs, metrics, tracing
from shim.node import Node as ShimNode
from shim.server import ShimServer

log = logging.getLogger("phantom_cri")

POLICIES = Path(__file__).with_name("policies")
"""Default folder of the policies."""


def main() -> None:
    """Entry point of `phantom-cri`: exit code 0 after SIGTERM or SIGINT, 1 when it cannot start."""
    try:
        settings = config.load(sys.argv[1:])
        logs.configure(settings.log.level, settings.log.format)
        native.raise_file_limit()
        asyncio.run(serve(settings))
    except PhantomError as error:
        sys.exit(f"phantom-cri: {error}")


async def serve(settings: Config) -> None:
    """Run one daemon until SIGTERM or SIGINT; pods keep running after it."""
    ownership = Ownership(settings.root, settings.state)
    numbers = metrics.Metrics(__version__)
    traces = tracing.from_environment()
    page = metrics.serve(numbers, settings.metrics_address) if settings.metrics_address else None
    try:
        runtime = await compose(settings, numbers, traces)
        await label_layers(runtime)
        await recover(runtime)
        confinement.drop_unused(runtime)
        runtime.userns_unavailable = await user_namespaces.unavailable_reason(runtime)
        await run(runtime)
    finally:
        if page is not None:
            page.close()
        traces.close()
        ownership.close()


async def compose(
    settings: Config, numbers: metrics.Metrics, traces: tracing.Tracing | tracing.NoTracing
) -> Runtime:
    """All objects of one daemon, wired together; nothing is started."""
    policies, profiles = load_policies(settings), make_profiles(settings)
    handlers = make_handlers(settings, policies, profiles)  # a wrong one is refused before anything is made
    tree = await cgroups.detect_systemd() if settings.cgroup.driver == "systemd" else cgroups.detect()
    durable = DurableRecords(RecordFile(os.path.join(settings.root, "records")))
    images = make_images(settings)
    runtime = Runtime(
        config=settings,
        records=Records(settings.state, durable.note),
        durable=durable,
        images=images,
        network=make_network(settings),
        cgroups=tree,
        policies=policies,
        kept_policies=KeptPolicies(os.path.join(settings.state, "policies")),
        metrics=numbers,
        streams=make_streams(settings.streaming),
        cdi=Registry(settings.cdi.spec_dirs),
        selinux=load_selinux(),
        tracing=traces,
        host_mounts=os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC),
        criu=Criu(settings.checkpoint.criu),
        fragments_cgroup=await fragments_cgroup(settings, tree),
        profiles=tuple(profiles.values()),
        drivers=make_drivers(images),
        handlers=handlers,
    )
    for pool in settings.pools:
        runtime.pools[pool.name] = make_pool(runtime, profiles[pool.name], pool)
    for policy in runtime.policies:
        numbers.policy_loaded(policy.name, policy.digest, policy is runtime.policies.default)
    return runtime


def make_images(settings: Config) -> ImageService:
    certs = settings.registry_config_path
    return ImageService(
        Path(settings.root),
        registry_config_path=Path(certs) if certs else None,
        pinned=settings.images.pinned,
        limits=Limits(
            layer_bytes=settings.images.max_layer_size,
            layer_entries=settings.images.max_layer_entries,
            progress_timeout_s=settings.images.pull_progress_timeout_seconds,
        ),
        max_parallel=settings.images.parallel_layers,
    )


def make_streams(wanted: StreamingConfig) -> StreamServer:
    return StreamServer(
        wanted.address,
        wanted.port,
        tls=wanted.tls,
        idle_timeout_s=wanted.idle_timeout_seconds,
        creation_timeout_s=wanted.creation_timeout_seconds,
    )


def load_policies(settings: Config) -> PolicyBook:
    """Raises ConfigError naming the file and the mistake, or for `policy.default` the known policies."""
    folder = Path(settings.policy.directory or POLICIES)
    return PolicyBook.load(folder, settings.policy.default, load_apparmor(folder))


def load_apparmor(folder: Path) -> AppArmor:
    """AppArmor on this host; if the default profile cannot be loaded, only named profiles are applied."""
    if not apparmor.enabled():
        return AppArmor(False)
    try:
        file = folder / apparmor.DEFAULT_PROFILE
        apparmor.load(file if file.exists() else POLICIES / apparmor.DEFAULT_PROFILE)
    except PhantomError as error:
        log.warning("containers run without an AppArmor profile unless they name one: %s", error)
        return AppArmor(True)
    return AppArmor(True, apparmor.DEFAULT_PROFILE)


def load_selinux() -> Selinux:
    """SELinux on this host; if its policy has no container types, containers run without labels."""
    found = Selinux.load()
    if found.is_enabled and found.contexts is None:
        log.warning("containers run without SELinux labels: %s", found.unavailable_reason)
    return found


def make_network(settings: Config) -> NetworkDriver:
    """The driver that `network.driver` names."""
    wanted, state = settings.network, Path(settings.state)
    if wanted.driver == "cni":
        return CniNetwork(wanted.cni, Path(settings.root), state)
    return BuiltinNetwork(wanted, state)


async def fragments_cgroup(settings: Config, tree: Cgroups) -> LaunchFds:
    """The fragments' own cgroup, created if missing; its fds stay open while the daemon lives."""
    path = tree.fragments_path(settings.cgroup.parent)
    await tree.keep(path)
    return tree.launch_fds(path)


def make_drivers(images: ImageService) -> dict[str, Driver]:
    """The drivers by their name in `handlers[].driver`."""
    return {"native": NativeDriver(images)}


def make_handlers(
    settings: Config, policies: PolicyBook, profiles: Mapping[str, Profile]
) -> dict[str, Handler]:
    """Raises ConfigError for an unknown policy, naming the known ones."""
    places = {handler.name: f"handlers[{index}]" for index, handler in enumerate(settings.handlers)}
    return {
        name: Handler(
            name,
            tuple(profiles[pool.name] for pool in settings.pools_of(wanted)),
            wanted.driver,
            policies.get(wanted.policy, f"{places[name]}.policy") if wanted.policy else policies.default,
        )
        for name, wanted in settings.handlers_by_name().items()
    }


def make_profiles(settings: Config) -> dict[str, Profile]:
    """Which host namespaces the fragments of each pool use."""
    spaces = {pool.name: pool.namespaces for pool in settings.pools}
    return {name: Profile(name, one.host_network, one.host_pid, one.host_ipc) for name, one in spaces.items()}


def make_pool(runtime: Runtime, profile: Profile, settings: PoolConfig) -> Pool[FragmentHandle]:
    async def spawn() -> FragmentHandle:
        fragment = await node_fragments.spawn(runtime, profile)
        fragment.on_death = pool.drop_dead
        return fragment

    pool = Pool(
        profile.name,
        settings.size,
        max_age=settings.max_age_seconds,
        spawn=spawn,
        end=partial(node_fragments.end, runtime),
        check=FragmentHandle.check,
        retired=partial(runtime.metrics.fragment_retired, profile.name),
    )
    return pool


async def run(runtime: Runtime) -> None:
    """Serve until SIGTERM or SIGINT, then wait for running calls and end the warm fragments."""
    settings = runtime.config
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    shim = make_shim(runtime)
    server = cri_server(
        settings.socket_path,
        PodVerbs(runtime),
        ImageVerbs(runtime),
        Calls(runtime.metrics, runtime.tracing),
        node=NodeVerbs(runtime),
        grace_s=settings.drain_timeout_seconds,
    )
    for pool in runtime.pools.values():
        pool.start()
    reporter = asyncio.create_task(gauges.keep_current(runtime), name="gauges")
    calm_garbage_collector()
    prefer_the_loop()
    try:
        await runtime.streams.start()
        async with server, shim or AsyncExitStack():
            log.info("phantom-cri %s serves CRI at %s", __version__, settings.listen)
            await stop.wait()
            runtime.events.close()  # before the server waits for all calls to end
            await runtime.streams.close()
            log.info("phantom-cri stops: waiting for running calls to finish; pods keep running")
    finally:
        reporter.cancel()
        await runtime.streams.close()
        for pool in runtime.pools.values():
            await pool.stop()
        await leave(runtime, shim is not None and shim.has_pods)


def make_shim(runtime: Runtime) -> ShimServer | None:
    """The server that containerd's shim command talks to; None if it is disabled."""
    settings = runtime.config
    if not settings.shim.enabled:
        return None
    node = ShimNode(
        state=Path(settings.state) / "shim",
        address=f"{settings.shim_socket}.ttrpc",
        cgroups=runtime.cgroups,
        host_mounts=runtime.host_mounts,
        fragments_cgroup=runtime.fragments_cgroup,
        metrics=runtime.metrics,
        version=__version__,
        pool_size=settings.shim.pool_size,
    )
    return ShimServer(settings.shim_socket, node)


async def leave(runtime: Runtime, serves_containerd: bool) -> None:
    """Without pods, remove the host's network setup too; else it stays, as the pods do."""
    if not runtime.records.pods and not serves_containerd:
        await runtime.network.dismantle()
        runtime.fragments_cgroup.close()
        await runtime.cgroups.remove_async(runtime.cgroups.fragments_path(runtime.config.cgroup.parent))
    await runtime.network.close()
    await runtime.durable.close()
    await runtime.images.close()
    runtime.cgroups.close()


def prefer_the_loop() -> None:
    """Let a computing thread (stats of 1000 containers) yield to the event loop ten times sooner.

    Each step of a call waits for up to this long while it computes; the default is 5 ms.
    """
    sys.setswitchinterval(0.0005)


def calm_garbage_collector() -> None:
    """Objects made at start-up are never freed; full collections of them would only slow down pods."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


if __name__ == "__main__":
    main()
