"""Sampling from vLLM servers: real HTTP to servers on loopback that speak vLLM's protocol."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ServerAway, ServerDiffers, ServerRefused, StageStopped
from configs.records import Completion
from configs.schema.grpo import VllmConfig
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.sampling.vllm import post
from grpo_train.sampling.vllm.asking import Ask, Written, ask, written
from grpo_train.sampling.vllm.known import known_tokens
from grpo_train.sampling.vllm.plugin import load_folder
from grpo_train.sampling.vllm.post import Holding
from grpo_train.sampling.vllm.servers import PolicyServers
from grpo_train.sampling.vllm.spreading import Work
from grpo_train.updating.response_logprobs import sequence_logprobs
from reward_training import waiting
from reward_training.transformer.rendering import encode_prompt
from tests.grpo_train.conftest import make_problem
from tests.grpo_train.sampling.vllm.serving import Served, serve

PROBLEMS = [make_problem("1+1", "2"), make_problem("What is two plus three?"), make_problem("Count to nine.")]
SAMPLING = Sampling(4, 1.0, 12)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(post, "SURE_FOR_S", 0.2)


@pytest.fixture
def policy(tmp_path, tiny_tokenizer) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Any]:
    """(model, tokenizer, its folder); other weights than those that servers are started with."""
    model = build_tiny_model(tiny_tokenizer, seed=3)
    model.save_pretrained(str(tmp_path / "policy"))
    return model, tiny_tokenizer, tmp_path / "policy"


POOLS: list[PolicyServers] = []
"""to be closed at the end of a test"""


@pytest.fixture
def servers() -> Iterator[list[Served]]:
    with ExitStack() as stack:
        tokenizer = build_tiny_tokenizer()
        yield [stack.enter_context(serve(build_tiny_model(tokenizer), tokenizer)) for _ in range(2)]
        while POOLS:
            stack.enter_context(POOLS.pop())


def connect(
    served: list[Served],
    policy,
    told: list[str] | None = None,
    known: bool = True,
    should_stop=lambda: False,
    **settings,
) -> PolicyServers:
    model, tokenizer, folder = policy
    given = {"urls": [each.url for each in served], "patience_s": 20, "request_timeout_s": 20}
    config = VllmConfig.model_validate(given | settings)
    warn = (told if told is not None else []).append
    pool = PolicyServers(config, tokenizer, {tokenizer.eos_token_id}, warn=warn, should_stop=should_stop)
    POOLS.append(pool)
    prompts = [encode_prompt(tokenizer, problem) for problem in PROBLEMS]
    tokens = known_tokens(prompts, lambda rows: sequence_logprobs(model, rows, max_tokens=4096)) if known else []
    pool.hold(Holding("p", partial(load_folder, folder=folder, version="p"), known=tokens))
    return pool


def write(pool: PolicyServers, sampling: Sampling = SAMPLING, **settings) -> list[Completion]:
    return pool.sample(PROBLEMS, sampling, seed=7, policy_id="p", step=3, **settings)


def expected(policy, sampling: Sampling = SAMPLING, **settings) -> list[Completion]:
    return sample(policy[0], policy[1], PROBLEMS, sampling, seed=7, policy_id="p", step=3, **settings)


def refuse_difference(completions: list[Completion], wanted: list[Completion]) -> None:
    assert [c.model_copy(update={"logprobs": []}) for c in completions] == [
        c.model_copy(update={"logprobs": []}) for c in wanted
    ]
    for completion, other in zip(completions, wanted, strict=True):
        assert completion.logprobs == pytest.approx(other.logprobs, abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"group_sizes": [1, 3, 0]}])
def test_servers_write_what_the_model_would_in_the_order_of_the_problems(servers, policy, settings):
    refuse_difference(write(connect(servers, policy), **settings), expected(policy, **settings))
    assert all(served.given == ["p"] for served in servers)


def test_greedy_rows_and_a_temperature(servers, policy):
    sampling = Sampling(3, 0.7, 8, num_greedy=1)
    refuse_difference(write(connect(servers, policy), sampling), expected(policy, sampling))


@pytest.mark.parametrize("part", [{"top_p": 0.6}, {"top_k": 5}])
def test_within_a_part_of_the_vocabulary_the_same_is_drawn(servers, policy, part):
    sampling = Sampling(3, 1.0, 8, **part)
    written_here, of_server = expected(policy, sampling), write(connect(servers, policy), sampling)
    assert [c.token_ids for c in of_server] == [c.token_ids for c in written_here]
    whole = [sum(c.logprobs) for c in written_here]
    assert all(sum(c.logprobs) > value for c, value in zip(of_server, whole, strict=True))  # over less than 1 in all


def test_each_response_is_a_request_with_a_seed_of_its_own_and_both_servers_work(servers, policy):
    pool = connect(servers, policy)
    for served in servers:
        served.hangs_s = 0.1
        served.asked.clear()
    write(pool, Sampling(8, 1.0, 12))
    asked = [body for served in servers for body in served.asked]
    assert len(asked) == len({body["seed"] for body in asked}) == 24
    assert min(len(served.asked) for served in servers) >= 6


def test_no_more_rows_are_under_way_than_may_be(servers, policy):
    pool = connect(servers, policy)
    for served in servers:
        served.hangs_s, served.most_at_once = 0.02, 0
    write(pool, Sampling(8, 1.0, 4, max_rows=6))
    assert max(served.most_at_once for served in servers) == 3


def test_another_server_takes_over_from_one_that_dies(servers, policy):
    told: list[str] = []
    pool = connect(servers, policy, told)
    servers[0].dies_after = 1
    servers[1].hangs_s = 0.02
    refuse_difference(write(pool), expected(policy))
    assert servers[0].is_dead
    assert servers[0].url in told[0]


def revive(served: Served) -> None:
    """Start it again after its death, and no sooner than a restart takes."""
    while not served.is_dead:
        time.sleep(0.02)
    time.sleep(2 * post.SURE_FOR_S)
    served.restart()


def test_a_server_that_was_restarted_is_given_the_weights_again_and_writes_the_same(servers, policy):
    """One that is restarted writes with the weights that it was started with."""
    [served, _] = servers
    told: list[str] = []
    pool = connect([served], policy, told)
    served.dies_after = 3
    revival = threading.Thread(target=revive, args=(served,))
    revival.start()
    refuse_difference(write(pool), expected(policy))
    revival.join()
    assert served.given == ["p", "p"]
    assert pool.metrics()["vllm/waits"] == 1
    away, back = told
    assert away.startswith(f"the vLLM server {served.url} does not answer (no connection")
    assert re.fullmatch(rf"the vLLM server {served.url} answers again, after \d+ s", back)


def test_a_thread_that_still_gives_the_weights_before_leaves_the_server_with_the_new_ones(servers, policy, tmp_path):
    """A server that came back at the end of a step was given that step's weights while the next one began, and wrote it with them."""
    [served, _] = servers
    pool = connect([served], policy)
    begun, may_go_on = threading.Event(), threading.Event()

    def slowly(server):
        begun.set()
        may_go_on.wait(10)
        load_folder(server, policy[2], "p again")

    before = Holding("p again", slowly)
    newer = build_tiny_model(served.tokenizer, seed=11)
    newer.save_pretrained(str(tmp_path / "newer"))
    [one] = pool.posts
    one.want(before)
    late = threading.Thread(target=one.is_right, args=(before,))
    late.start()
    begun.wait(10)
    threading.Timer(0.3, may_go_on.set).start()
    pool.hold(Holding("newer", partial(load_folder, folder=tmp_path / "newer", version="newer")))
    late.join()
    assert served.given == ["p", "p again", "newer"]
    assert not one.is_right(before)
    assert served.version == "newer"


def test_a_server_that_was_restarted_unseen_is_given_the_weights_again(servers, policy):
    pool = connect(servers[:1], policy)
    servers[0].restart()
    time.sleep(post.SURE_FOR_S)
    refuse_difference(write(pool), expected(policy))


def test_a_server_that_hangs_is_asked_again(servers, policy):
    [served, _] = servers
    told: list[str] = []
    pool = connect([served], policy, told, request_timeout_s=2)
    served.hangs_s = 10.0
    threading.Timer(1, lambda: setattr(served, "hangs_s", 0.0)).start()
    refuse_difference(write(pool), expected(policy))
    assert "(no answer within 2 s)" in told[0]


@pytest.mark.parametrize("fault", ["away", "hanging"])
def test_a_server_that_stays_away_or_hangs_ends_the_stage_after_its_patience(servers, policy, fault):
    pool = connect(servers, policy, known=False, patience_s=1, request_timeout_s=0.5)
    for served in servers:
        served.is_dead, served.hangs_s = fault == "away", 5.0
    with pytest.raises(ServerAway, match=r"hanging for 1 s \(grpo_config.vllm.patience_s\)"):
        write(pool)


def test_a_server_that_stays_away_ends_nothing_while_another_is_there(servers, policy):
    told: list[str] = []
    pool = connect(servers, policy, told, patience_s=0.3)
    servers[0].is_dead, servers[1].hangs_s = True, 0.2
    for _ in range(2):
        refuse_difference(write(pool, max_rows(2)), expected(policy, max_rows(2)))
    assert sum("the other servers go on" in text for text in told) == 1


def max_rows(number: int) -> Sampling:
    return Sampling(4, 1.0, 12, max_rows=number)


def test_weights_that_were_not_taken_over_end_the_stage_by_name(servers, policy):
    servers[1].stale_head = True
    with pytest.raises(
        ServerDiffers, match=rf"{servers[1].url} gives .*vllm.max_mismatch=0.15.* started from another model"
    ):
        connect(servers, policy)


def test_rounding_is_no_mismatch(servers, policy):
    pool = connect(servers, policy)
    assert pool.metrics() == {"vllm/waits": 0.0, "vllm/mismatch": pytest.approx(0.0, abs=1e-5)}


def test_an_answer_that_comes_after_the_end_leaves_no_thread_waiting():
    """It was counted, so that what was left came to -1, and the threads that asked for more waited for ever."""
    one, another = (Ask(0, index, {}) for index in range(2))
    work = Work([one, another], num_posts=1)
    work.take()
    work.end()
    work.done(one, Written([1], [-0.5]))
    assert work.is_over()
    assert work.take() is None


def test_a_server_that_refuses_ends_the_stage_with_what_it_said(servers, policy):
    pool = connect(servers, policy)
    servers[1].max_model_len = 20
    with pytest.raises(ServerRefused, match=r"status 400: maximum context length"):
        write(pool)


def test_weights_of_another_model_are_refused(servers, policy, tiny_tokenizer):
    other = build_tiny_model(tiny_tokenizer)
    other.model.extra = torch.nn.Linear(2, 2)
    other.save_pretrained(str(policy[2]))
    with pytest.raises(ServerRefused, match="not the weights of this server's model"):
        connect(servers, policy)


def test_groups_are_handed_on_while_others_are_still_written(servers, policy):
    pool = connect(servers, policy)
    groups: list[tuple[int, int, int]] = []
    rows: list[int] = []
    completions = write(
        pool, on_group=lambda i, problem, group: groups.append((i, len(group), len(rows))), on_progress=rows.append
    )
    assert sorted((i, size) for i, size, _ in groups) == [(0, 4), (1, 4), (2, 4)]
    assert sum(rows) == len(completions) == 12
    assert min(num_rows for _, _, num_rows in groups) < 12


def test_it_can_be_stopped_while_it_samples_and_while_it_waits(servers, policy):
    pool = connect(servers, policy)
    for served in servers:
        served.is_dead = True
    begun = time.monotonic()
    with pytest.raises(StageStopped):
        write(pool, should_stop=lambda: time.monotonic() > begun + 0.3)
    assert time.monotonic() < begun + 5


@pytest.mark.parametrize("fault", ["away", "hanging"])
def test_a_stage_that_is_asked_to_stop_leaves_servers_that_give_nothing(servers, policy, monkeypatch, fault):
    """A server that hung kept Ctrl-C waiting for as long as the request might take."""
    monkeypatch.setattr(waiting, "QUIET_S", 0.3)
    told: list[str] = []
    asked = threading.Event()
    pool = connect(servers, policy, told, known=False, should_stop=asked.is_set)
    for served in servers:
        served.is_dead, served.hangs_s = fault == "away", 15.0
    threading.Timer(1, asked.set).start()
    begun = time.monotonic()
    with pytest.raises(StageStopped, match="waiting for a vLLM server"):
        write(pool)
    assert time.monotonic() < begun + 6
    if fault == "away":
        assert all(f"{served.url} does not answer (no connection" in " ".join(told) for served in servers)
        with pytest.raises(StageStopped):
            pool.hold(Holding("q", partial(load_folder, folder=policy[2], version="q")))
        assert len(told) == 2  # each is told of once


def test_a_stage_that_is_asked_to_stop_goes_on_to_its_step_boundary_while_a_server_writes(servers, policy, monkeypatch):
    monkeypatch.setattr(waiting, "QUIET_S", 2.0)
    pool = connect(servers, policy, should_stop=lambda: True)
    servers[0].is_dead, servers[1].hangs_s = True, 0.5
    refuse_difference(write(pool, max_rows(2)), expected(policy, max_rows(2)))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"finish_reason": "abort"}, ServerAway),
        ({"logprobs": None}, ServerRefused),
        ({"logprobs": {"token_logprobs": [-1.0]}}, ServerRefused),
        ({"logprobs": {"token_logprobs": [-1.0, None]}}, ServerRefused),
        ({"logprobs": {"token_logprobs": [-1.0, float("nan")]}}, ServerRefused),
        ({"token_ids": None}, ServerRefused),
        ({"token_ids": [], "logprobs": {"token_logprobs": []}}, ServerRefused),
        ({"finish_reason": "length"}, ServerRefused),  # 2 of 4 tokens: its context is too short
    ],
)
def test_an_answer_that_is_no_whole_response_is_none(change, error):
    choice = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-1.0, -2.0]}, "finish_reason": "stop"}
    assert written({"choices": [choice]}, 4).token_ids == [5, 6]
    with pytest.raises(error):
        written({"choices": [choice | change]}, 4)


def test_a_greedy_request_draws_nothing_and_no_request_leaves_a_setting_to_the_server():
    greedy, drawn = (
        ask(
            0, i, [1], Sampling(2, 0.7, 4, top_p=0.9, top_k=3, num_greedy=1), stop_ids={2}, seed=1, problem_key="a"
        ).body
        for i in (0, 1)
    )
    assert (greedy["temperature"], greedy["top_p"], greedy["top_k"], "seed" in greedy) == (0.0, 1.0, 0, False)
    assert (drawn["temperature"], drawn["top_p"], drawn["top_k"]) == (0.7, 0.9, 3)
    for body in (greedy, drawn):
        assert (body["repetition_penalty"], body["min_p"], body["ignore_eos"], body["stop_token_ids"]) == (
            1,
            0,
            True,
            [2],
        )
