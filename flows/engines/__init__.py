"""Starts and watches vLLM servers on this machine: the command `regroup vllm`."""
