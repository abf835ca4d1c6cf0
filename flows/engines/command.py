"""The command `regroup vllm`: the servers of a configuration on this machine, or the commands for other machines."""

from __future__ import annotations

import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.errors import ConfigError
from configs.reader import load_config
from flows.engines.settings import Launch, find_environment, is_here, launches
from flows.engines.watching import Watched, end_left_behind, watch
from tasks.runs.workspace import refuse_unwritable
from tasks.showing.terminal import Terminal

FOLDER = ".vllm"
"""of the servers' logs, in the workspace"""


def serve_models(path: Path, overrides: tuple[str, ...], *, venv: Path | None, also: str, only_print: bool) -> None:
    """Start the servers of the configuration that are on this machine and watch them until Ctrl-C; or print their commands.

    Raises:
        ConfigError: there is nothing to start here, no environment, or a port is in use.
        ServerGivenUp: a server does not come up, or ends again and again.
    """
    root, terminal = Path.cwd(), Terminal()
    config = load_config(path, list(overrides))
    refuse_unwritable(root)
    if only_print:
        for launch in launches(config, root, _environment_or_none(venv, root), _options_of(also)):
            terminal.print_path(launch.as_text())
        return
    if config.grpo_config.vllm is not None and not any(is_here(url) for url in config.grpo_config.vllm.urls):
        raise ConfigError(
            f"grpo_config.vllm.urls={config.grpo_config.vllm.urls} are on other machines; `regroup vllm {path} --print` prints the "
            "command to start there"
        )
    environment = find_environment(venv, root)
    wanted = [launch for launch in launches(config, root, environment, _options_of(also)) if is_here(launch.url)]
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    end_left_behind(folder, [launch.port for launch in wanted])
    _refuse_taken(wanted)
    with _until_signal():
        servers = [Watched(launch, folder, terminal) for launch in wanted]
        watch(servers, lambda: terminal.say(f"ready; regroup run {path} in another terminal. Ctrl-C ends the servers"))


def _environment_or_none(venv: Path | None, root: Path) -> Path | None:
    """For another machine no environment is needed here."""
    try:
        return find_environment(venv, root)
    except ConfigError:
        if venv is not None:
            raise
        return None


def _options_of(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--also {text!r} cannot be read: {error}") from error


def _refuse_taken(wanted: list[Launch]) -> None:
    for launch in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", launch.port))
            except OSError as error:
                raise ConfigError(
                    f"grpo_config.vllm.urls: {launch.url} cannot be served ({error.strerror}); end what listens there, or name another port"
                ) from error


@contextmanager
def _until_signal() -> Iterator[None]:
    """End the block on Ctrl-C and on SIGTERM, so that the servers are ended too."""
    with suppress(KeyboardInterrupt):
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.default_int_handler)
        yield
