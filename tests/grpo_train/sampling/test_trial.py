"""Models that a cache of ours does not suit are sampled by transformers' generate, or refused by name."""

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, PreTrainedModel

from configs.errors import ConfigError
from configs.records import Completion
from configs.schema.grpo import EarlyStopConfig, LoopStop
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.sampling.trial import Way, way_of
from grpo_train.updating.response_logprobs import micro_batches, response_logprobs
from reward_training.transformer.positions import Positions
from reward_training.transformer.rendering import encode_prompt
from reward_training.transformer.turn_ends import stop_token_ids
from tests.grpo_train.conftest import make_problem
from tests.tiny_architectures import TOKENIZER, build

QUESTIONS = ["1+1", "What is two plus three, please?", "x" * 40, "7"]
PROBLEMS = [make_problem(question) for question in QUESTIONS]


def plain_logprobs(model: PreTrainedModel, completion: Completion) -> torch.Tensor:
    ids = torch.tensor([completion.prompt_ids + completion.token_ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(completion.prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]


def draw(model: PreTrainedModel, **settings: int | float) -> list[Completion]:
    given = {"group_size": 3, "temperature": 1.0, "max_response_length": 12, "num_greedy": 1} | settings
    return sample(model, TOKENIZER, PROBLEMS, Sampling(**given), seed=0, policy_id="p")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model_type", "way"),
    [
        ("llama", "packed"),
        ("deepseek_v3", "packed"),
        ("gemma3_text", "packed"),
        ("lfm2", "generate"),
        ("falcon_h1", "generate"),
        ("qwen3_next", "generate"),
        ("mamba2", "generate"),
        ("minimax", "recompute"),
        ("xlstm", "recompute"),
    ],
)
def test_a_model_is_sampled_as_suits_it_and_writes_what_it_would_write_alone(model_type: str, way: Way) -> None:
    model = build(model_type)
    assert way_of(model, 100) == way
    completions = draw(model)
    assert len({tuple(completion.token_ids) for completion in completions}) > 6
    for completion in completions:
        expected = plain_logprobs(model, completion).tolist()
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)
        assert completion.finish_reason in ("stop", "length")
    for problem, greedy in zip(PROBLEMS, completions[::3], strict=True):
        prompt = torch.tensor([encode_prompt(TOKENIZER, problem)])
        theirs = model.generate(  # type: ignore[operator]
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, pad_token_id=0,
            eos_token_id=sorted(stop_token_ids(model, TOKENIZER)), use_cache=way != "recompute",
        )[0, prompt.shape[1] :]  # fmt: skip
        assert greedy.token_ids == theirs.tolist()


def test_by_generate_a_row_writes_the_same_whatever_is_beside_it_and_memory_is_bounded() -> None:
    model = build("lfm2")
    shapes = []
    forward = model.forward
    model.forward = lambda *args, **kwargs: shapes.append(len(kwargs["input_ids"])) or forward(*args, **kwargs)  # type: ignore[method-assign,func-returns-value]
    together = draw(model)
    assert max(shapes) > 2
    shapes.clear()
    apart = draw(model, max_rows=2)
    assert max(shapes) == 2
    assert [c.token_ids for c in apart] == [c.token_ids for c in together]
    for one, other in zip(apart, together, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_by_generate_hopeless_responses_end_early_groups_are_handed_on_and_positions_counted() -> None:
    model = build("lfm2")
    loops = EarlyStopConfig(loop=LoopStop(max_period=1, repeats=2, min_tokens=2))
    early_stop = EarlyStop(loops, PROBLEMS, TOKENIZER, 12, [])
    groups: list[int] = []
    positions = Positions()
    stopped = sample(
        model, TOKENIZER, PROBLEMS, Sampling(8, 0.3, 12), seed=0, policy_id="p", early_stop=early_stop,
        on_group=lambda number, problem, group: groups.append(number), positions=positions,
    )  # fmt: skip
    assert sorted(groups) == [0, 1, 2, 3]
    aborted = [c for c in stopped if c.finish_reason == "aborted: loop" or "loop" in c.finish_reason]
    assert aborted
    assert all(c.token_ids[-1] == c.token_ids[-2] for c in aborted)
    # each prompt once a row; then each row's tokens but the last, and one for each row that waits for others
    written = sum(len(c.prompt_ids) + len(c.token_ids) - 1 for c in stopped)
    assert positions.computed - positions.padding == written
    assert positions.padding > 0


def test_a_model_that_sees_later_tokens_is_refused_by_name() -> None:
    torch.manual_seed(0)
    model = BertLMHeadModel(
        BertConfig(
            vocab_size=len(TOKENIZER), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, is_decoder=False,
        )
    ).eval()  # fmt: skip
    for _ in range(2):  # the second time from memory
        with pytest.raises(ConfigError, match=r"type 'bert'.*depend on later tokens.*docs/models\.md"):
            draw(model)


@pytest.mark.parametrize("model_type", ["reformer", "xlnet", "roberta"])
def test_what_cannot_be_sampled_or_trained_is_refused_by_name(model_type: str) -> None:
    with pytest.raises(ConfigError, match=f"type '{model_type}', which cannot be sampled"):
        draw(build(model_type))


@pytest.mark.parametrize("window", [16, 256])
def test_a_window_is_kept_in_sampling_and_training(window: int) -> None:
    """Rows that share beginnings, and a cache with spare room, were off by up to 1.3 nats beyond GPT-Neo's window."""
    model = build("gpt_neo", window_size=window, initializer_range=0.6)
    problems = [make_problem("x" * 300), make_problem("x" * 290 + "y"), make_problem("7")]
    completions = sample(model, TOKENIZER, problems, Sampling(3, 1.0, 12), seed=0, policy_id="p")
    expected = [plain_logprobs(model, completion) for completion in completions]
    for completion, logprobs in zip(completions, expected, strict=True):
        assert completion.logprobs == pytest.approx(logprobs.tolist(), abs=1e-4)
    sum(logprobs.sum() for logprobs in expected).backward()  # type: ignore[union-attr,no-untyped-call]
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    for batch in micro_batches(model, completions, range(len(completions)), 2048):
        found = response_logprobs(model, batch, 1.0)
        for line, row in enumerate(batch.rows):
            torch.testing.assert_close(found[line][batch.mask[line].bool()], expected[row], atol=1e-4, rtol=0)
        found.sum().backward()  # type: ignore[no-untyped-call]
    for name, gradient in gradients.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-3, rtol=1e-3)
