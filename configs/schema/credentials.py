"""Refuses credentials in the addresses of a configuration, which is kept in files, databases and logs."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from configs.schema.operational import flatten

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
SECRET = re.compile(
    r"key(?!word)|token(?!iz|s)|secret|passw|pwd|credential|auth(?!or)|bearer|signature|^sig$|^code$|^pass$",
    re.IGNORECASE,
)
"""in names of query parameters that hold one"""
VLLM_URLS = "vllm.urls"
OF_REWARD_MODEL = re.compile(r"reward_models\..*\.url")


def credentials_in(data: dict[str, Any]) -> Iterator[str]:
    """`field: what is wrong and the remedy` for each address with a credential in it, which the text does not show."""
    for field, value in flatten(data):
        if isinstance(value, str) and ADDRESS.fullmatch(value.strip()) and (what := _credential(field, value.strip())):
            yield f"{field}: the address has {what}, and a configuration is kept in files, databases and logs; {_remedy(field)}"


def _credential(field: str, address: str) -> str:
    """What the address has that may be a credential; empty if nothing."""
    try:
        parts = urlsplit(address)
        username, password = parts.username, parts.password
    except ValueError:  # a host that is none, which is said where the address is used
        return "a user name or password" if "@" in address else ""
    if password or (username and parts.scheme in ("http", "https")):
        return "a user name or password"
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if SECRET.search(name)]
    if names:
        return f"the query parameter {names[0]!r}"
    return "a query, which no endpoint gets" if _is_endpoint(field) and (parts.query or parts.fragment) else ""


def _is_endpoint(field: str) -> bool:
    return field.rpartition(".")[2] == "base_url" or VLLM_URLS in field or OF_REWARD_MODEL.fullmatch(field) is not None


def _remedy(field: str) -> str:
    if VLLM_URLS in field:
        return "take it out: the servers of grpo_config.vllm are asked without"
    if _is_endpoint(field):
        variable = "REWARD_MODEL_KEY" if OF_REWARD_MODEL.fullmatch(field) else "JUDGE_KEY"
        return f"take it out, export the key and name its variable: api_key_env: {variable}"
    return (
        "take it out, and give it to the library that opens the address by its environment variable, such as HF_TOKEN"
    )
