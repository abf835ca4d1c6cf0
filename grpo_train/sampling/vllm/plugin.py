"""The requests by which a vLLM server with our plugin (`vllm_plugin/`) takes new weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, ServerRefused
from reward_training.endpoint import Endpoint

PROTOCOL = 1
"""of the plugin's requests; `vllm_plugin/regroup_vllm/engine.py` has the same"""
LOAD_S = 600.0
"""for a server that reads weights"""
NONE_YET = "default"
"""what /weight_info says before the first weights"""


def check_plugin(server: Endpoint) -> None:
    """Raise ConfigError, which says what is missing, unless the server can be given weights; ServerAway if it is not there."""
    try:
        server.post("/init_weight_transfer_engine", {"init_info": {"protocol": PROTOCOL}}, LOAD_S)
    except ServerRefused as error:
        raise ConfigError(
            f"the server at {server.url} cannot be given weights: {_missing(error)}; start it by `regroup vllm CONFIG`, or by "
            "what `regroup vllm CONFIG --print` says"
        ) from error


def _missing(refusal: ServerRefused) -> str:
    text = str(refusal)
    if refusal.status == 404:
        return "it was started without VLLM_SERVER_DEV_MODE=1"
    if "Weight transfer not configured" in text:
        return """it was started without --weight-transfer-config '{"backend": "regroup"}'"""
    if "Invalid init_info for" in text and "Regroup" not in text:
        return """its --weight-transfer-config names another backend than "regroup\""""
    return reason(text)


def reason(text: str) -> str:
    """What a worker said, out of the words that vLLM puts around it.

    >>> reason("Call to collective_rpc method failed: Worker failed with error 'no folder', please check the stack trace")
    'no folder'
    """
    inner = text.partition("Worker failed with error ")[2].partition(", please check the stack trace")[0]
    return inner[1:-1] if inner else text


def held(server: Endpoint) -> str | None:
    """The version of the weights that the server was last given; None before, after a restart, and after what went wrong."""
    version = str(server.get("/weight_info")["weight_version"])
    return None if version == NONE_YET else version


def load_folder(server: Endpoint, folder: Path, version: str) -> None:
    """Let the server load a policy's folder, unless it holds that version.

    Raises:
        ServerRefused: the folder is not there for the server, or not of its model; the server works on with the weights it had.
    """
    if held(server) != version:
        with update(server, version) as tell:
            tell({"folder": str(folder.resolve())})


@contextmanager
def update(server: Endpoint, version: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what tells the server where weights come from; afterwards it holds `version`, and none if the block raises."""

    def tell(info: dict[str, Any]) -> None:
        try:
            server.post("/update_weights", {"update_info": info}, LOAD_S)
        except ServerRefused as error:
            # vLLM takes paths out of what a worker says
            said = reason(str(error)).replace("<path>", str(info.get("folder", "<path>")))
            raise ServerRefused(f"the server at {server.url} refused the weights: {said}") from error

    server.post("/update_weight_version", {"new_version": NONE_YET}, LOAD_S)
    _begin(server)
    yield tell
    server.post("/finish_weight_update", {"weight_version": version}, LOAD_S)
    # what was computed of prompts with the old weights must not be read again
    server.post("/reset_prefix_cache?reset_running_requests=true", {}, LOAD_S)


def _begin(server: Endpoint) -> None:
    """Begin an update, also where a trainer was killed in the middle of one: then the plugin has changed nothing yet."""
    try:
        server.post("/start_weight_update", {}, LOAD_S)
    except ServerRefused as error:
        if "already active" not in str(error):
            raise
        server.post("/finish_weight_update", {}, LOAD_S)
        server.post("/start_weight_update", {}, LOAD_S)
