"""haven api --ephemeral: a cluster that lives as long as the command, for tests in any language.

It is what haven.testing gives Python tests: API server, controllers, scheduler and simulated nodes in one process,
without root. Programs find it by the environment; Go's envtest takes it as an existing cluster, or starts one for
each suite by itself (--envtest).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haven.testing import background as behind

if TYPE_CHECKING:
    from haven.testing.cluster import Cluster

__all__ = ["command"]

PARENT_SECONDS = 0.5
CHILD_SECONDS_MAX = 30.0
SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


@click.command(help="Run a cluster for tests: simulated nodes, nothing on disk, gone with this command.")
@click.option("--ephemeral", is_flag=True, help="Say it: everything in this cluster ends with the command.")
@click.option("--nodes", type=click.IntRange(min=0), default=1, show_default=True, help="Simulated nodes.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Where to listen on 127.0.0.1; any free port by default."
)
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="Write the kubeconfig here as well.")
@click.option("--apply", "manifests", multiple=True, type=click.Path(exists=True), help="Apply a file or folder first.")
@click.option("--controllers/--no-controllers", default=True, help="Whether controllers run (envtest has none).")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of shell exports.")
@click.option(
    "--envtest",
    "envtest_dir",
    type=click.Path(file_okay=False),
    is_flag=False,
    flag_value="",
    help="Start none; make KUBEBUILDER_ASSETS of a folder, so that each Go suite starts its own.",
)
@click.option(
    "--background", is_flag=True, help='Return when it is ready: eval "$(haven api --ephemeral --background)".'
)
@click.option("--outlive-parent", is_flag=True, help="Go on when the program that started this ends.")
@click.argument("arguments", metavar="[-- COMMAND…]", nargs=-1, type=click.UNPROCESSED)
def command(
    ephemeral: bool,
    nodes: int,
    port: int,
    kubeconfig: str | None,
    manifests: tuple[str, ...],
    controllers: bool,
    as_json: bool,
    envtest_dir: str | None,
    background: bool,
    outlive_parent: bool,
    arguments: tuple[str, ...],
) -> None:
    if envtest_dir is not None:
        sys.exit(_envtest(envtest_dir, controllers, as_json, arguments))
    if not ephemeral:
        raise click.UsageError("this cluster keeps nothing: say haven api --ephemeral (haven up makes one that lasts)")
    if background:
        if arguments:
            raise click.UsageError("a command is waited for: leave out --background")
        if sys.platform == "win32":
            raise click.UsageError("--background needs a POSIX shell")
    stopping = _Stopping(outlive_parent=outlive_parent, shell=behind.asking_shell() if background else 0)
    if background:
        behind.divide()
    from haven.apiserver.laterimports import import_rest
    from haven.testing import Cluster

    with stopping, contextlib.ExitStack() as stack:
        with _told_in_a_sentence():
            cluster = stack.enter_context(Cluster(nodes=nodes, port=port, controllers=controllers))
        for manifest in manifests:
            with _told_in_a_sentence(f"{manifest}: "):
                cluster.apply(Path(manifest))
        if kubeconfig:
            with _told_in_a_sentence():
                _write_private(Path(kubeconfig), cluster.kubeconfig.read_text(encoding="utf-8"))
        environment = {**cluster.env, **({"KUBECONFIG": str(Path(kubeconfig).absolute())} if kubeconfig else {})}
        threading.Thread(target=import_rest, name="later-imports", daemon=True).start()
        if arguments:
            status = _run(arguments, environment, stopping)
        else:
            _announce(cluster, environment, as_json=as_json)
            if background:
                behind.hush()
            stopping.wait()
            status = 0
    sys.exit(status)


@contextlib.contextmanager
def _told_in_a_sentence(about: str = "") -> Iterator[None]:
    """Tell what a user can mend without a traceback: a port, a manifest, a place for the kubeconfig."""
    import yaml

    from haven.apimachinery.apierrors import ApiError

    try:
        yield
    except (ApiError, LookupError, OSError, ValueError, yaml.YAMLError) as error:
        text = " ".join(str(error.args[0] if isinstance(error, LookupError) else error).split())
        raise click.ClickException(f"{about}{text}") from error


def _announce(cluster: Cluster, environment: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_description(cluster, environment)))
    else:
        click.echo(_exports(environment))
    sys.stdout.flush()


def _description(cluster: Cluster, environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "url": cluster.url,
        "kubeconfig": environment["KUBECONFIG"],
        "certificateAuthority": str(cluster.ca_file),
        "pid": os.getpid(),
        "env": dict(environment),
    }


def _exports(environment: Mapping[str, str]) -> str:
    if sys.platform == "win32":
        return "\n".join(f"$env:{name} = '{value}'" for name, value in environment.items())
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


class _NotRunnable(click.ClickException):
    """The command cannot be started; the status is a shell's."""

    exit_code = 127


class _Stopping:
    """Notices that it is time to end: a signal, or the end of the program that started this one."""

    def __init__(self, *, outlive_parent: bool, shell: int = 0) -> None:
        """`shell` is a process to end with in place of the parent."""
        self._event = threading.Event()
        self._parent = os.getppid()
        self._shell = shell
        self._watches_parent = not outlive_parent and sys.platform != "win32"  # Windows keeps a dead parent's number.
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stopping:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, lambda *_: self._event.set())
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def poll(self, seconds: float) -> bool:
        """Return whether it is time, at the latest after so many seconds."""
        if self._watches_parent and not self._is_wanted():
            return True
        return self._event.wait(seconds)

    def _is_wanted(self) -> bool:
        return behind.is_alive(self._shell) if self._shell else os.getppid() == self._parent

    def wait(self) -> None:
        """Return when it is time."""
        while not self.poll(PARENT_SECONDS):
            pass


def _run(arguments: Sequence[str], environment: Mapping[str, str], stopping: _Stopping) -> int:
    """Run a command and return its exit status as a shell would."""
    try:
        child = subprocess.Popen(list(arguments), env={**os.environ, **environment})
    except OSError as error:
        raise _NotRunnable(f"{arguments[0]}: {error.strerror}") from error
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return _status(child.wait(0.05))
        if stopping.poll(0.05):
            break
    child.terminate()
    try:
        return _status(child.wait(CHILD_SECONDS_MAX))
    except subprocess.TimeoutExpired:
        child.kill()
        return _status(child.wait())


def _status(code: int) -> int:
    return 128 - code if code < 0 else code


def _envtest(directory: str, controllers: bool, as_json: bool, arguments: Sequence[str]) -> int:
    """Make the programs that envtest starts, and print or use the environment that leads to them."""
    from haven.testing.envtest import write_assets

    with _folder(directory, arguments) as path:
        environment = write_assets(path, controllers=controllers)
        if arguments:
            with _Stopping(outlive_parent=False) as stopping:
                return _run(arguments, environment, stopping)
        click.echo(json.dumps({"env": environment}) if as_json else _exports(environment))
    return 0


@contextlib.contextmanager
def _folder(directory: str, arguments: Sequence[str]) -> Iterator[Path]:
    if directory:
        path = Path(directory).absolute()
        path.mkdir(parents=True, exist_ok=True)
        yield path
    elif arguments:
        with tempfile.TemporaryDirectory(prefix="haven-envtest-") as temporary:
            yield Path(temporary)
    else:
        raise click.UsageError("name the folder to keep the programs in: haven api --envtest DIR")
