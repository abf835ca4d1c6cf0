"""A vLLM plugin: registers the weight-transfer backend `regroup` (`regroup_vllm.engine`).

It lives in the server's environment and imports nothing of Regroup, as Regroup imports nothing of vLLM.
"""


def register() -> None:
    """Called by vLLM in each of its processes, in some of them more than once."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if "regroup" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("regroup", "regroup_vllm.engine", "RegroupEngine")
