#!/usr/bin/env bash
# Versions: pytest-xdist 3.8.0, pytest 9.2.0, Python 3.11. Seen on 2026-11-29.
# Guess: with --dist loadgroup all tests of one xdist_group run in one worker, so that they can share a port or a server.
# Behaviour: they are spread over the workers like any others, without a word. xdist appends the group to an item's private
#   `_nodeid`, which this pytest no longer reads, so the scheduler never sees a group.
# Output seen:
#   workers of one group of 40 tests: 2 (loadgroup), 1 (loadfile)
# Way out: a scheduler of one's own by the hook pytest_xdist_make_scheduler, a LoadScopeScheduling with its own _split_scope;
#   or --dist loadfile, with what belongs together in one file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pytest==9.2.0 pytest-xdist==3.8.0
mkdir tests
cat > tests/test_one_group.py <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("server")
@pytest.mark.parametrize("index", range(40))
def test_shares_a_server(index):
    time.sleep(0.02)
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PY
workers() {
    SEEN="$work/$1" venv/bin/pytest -q -p no:cacheprovider -n 2 --dist "$1" tests > /dev/null
    sort -u "$work/$1" | wc -l
}
by_group=$(workers loadgroup)
by_file=$(workers loadfile)
echo "workers of one group of 40 tests: $by_group (loadgroup), $by_file (loadfile)"
[[ $by_group == 2 && $by_file == 1 ]] || { echo "the behaviour has changed"; exit 1; }
