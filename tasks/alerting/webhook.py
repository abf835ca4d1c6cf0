"""The program that posts what it reads from standard input, a JSON object, to a webhook: `webhook.py VARIABLE`.

A program of its own, so that a receiver that trickles can be given up, and that no library logs the address. It ends
with 0 if the receiver took the message, otherwise with 1 and the reason, without the address, on standard error.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_S = 10
NO_ADDRESS = "is no http or https address"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, which tells nobody."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def slack_text(text: str) -> str:
    """`text` with the three characters escaped that Slack reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post(address: str, message: dict[str, Any]) -> str | None:
    """Post the message; returns None if the receiver took it, otherwise why not."""
    body = json.dumps(message | {"text": slack_text(message["text"])}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "regroup", "Idempotency-Key": message["id"]}
    try:
        request = urllib.request.Request(address, body, headers, method="POST")
        urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (http.client.InvalidURL, ValueError):  # their messages hold the address
        return NO_ADDRESS
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None


def main(variable: str) -> int:
    address = os.environ.get(variable, "").strip()
    fault = post(address, json.load(sys.stdin)) if address.startswith(("http://", "https://")) else NO_ADDRESS
    if fault is not None:
        print(fault, file=sys.stderr)
    return 0 if fault is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
