#!/usr/bin/env bash
# Versions: torch 2.13.0 (CPU, oneDNN 3.12.0), Linux, Python 3.11, on an Intel Xeon of the generations with AVX512-FP16 whose virtual
#   machine hides AMX. Seen on 2026-12-01. Needs torch, some hundred MB, and such a processor: others are told apart, and end it.
# Guess: a processor with the flag avx512_bf16 multiplies matrices in bfloat16 at least as fast as in float32. The instruction makes
#   twice as many products as one of float32, and half of the bytes are moved.
# Behaviour: torch takes the kernel for avx512_bf16 (ONEDNN_VERBOSE=1 names it), and needs about 1.6 times as long as in float32.
#   oneDNN reports nothing amiss; without AMX this generation makes no more products a cycle by that instruction than in float32.
# Output seen (TFLOP/s, two threads; of larger products 0.13 to 0.16 and 0.23 to 0.26):
#   bfloat16  0.152
#   float32   0.263
# Way out: take bfloat16 for speed where amx_bf16 is there, or avx512_bf16 without avx512_fp16, or measure.
set -euo pipefail
for flag in avx512_bf16 avx512_fp16; do
    grep --quiet --word-regexp --max-count=1 "$flag" /proc/cpuinfo || { echo "this processor has no $flag"; exit 1; }
done
if grep --quiet --word-regexp --max-count=1 amx_bf16 /proc/cpuinfo; then
    echo "this processor shows AMX"
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
venv/bin/python -W ignore - <<'PY'
import statistics
import sys
import time

import torch

ROWS, INNER, COLUMNS = 1024, 576, 1536


def speed(dtype):
    left, right = torch.randn(ROWS, INNER, dtype=dtype), torch.randn(INNER, COLUMNS, dtype=dtype)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return 2 * ROWS * INNER * COLUMNS / statistics.median(times[3:]) / 1e12


found = {dtype: statistics.median(speed(dtype) for _ in range(5)) for dtype in (torch.bfloat16, torch.float32)}
for dtype, rate in found.items():
    print(f"{str(dtype).removeprefix('torch.'):9} {rate:.3f}")
if found[torch.float32] < 1.2 * found[torch.bfloat16]:
    sys.exit("the behaviour has changed")
PY
