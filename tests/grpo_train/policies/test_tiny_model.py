import torch

from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer


def test_tokenizer_has_one_token_a_character_and_reads_back_what_it_wrote() -> None:
    tokenizer = build_tiny_tokenizer()
    text = "What is 3 + 4?\nAnswer: {7}"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokenizer) == 101
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


def test_special_tokens_of_the_chat_template_are_single_tokens() -> None:
    tokenizer = build_tiny_tokenizer()
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "1"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n"
    # <|im_start|> u s e r \n 1 <|im_end|> \n <|im_start|> a s s i s t a n t \n
    assert len(tokenizer(chat, add_special_tokens=False)["input_ids"]) == 20


def test_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    tokenizer = build_tiny_tokenizer()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_tiny_model(tokenizer)
    assert torch.equal(torch.rand(3), expected)
    same, other = build_tiny_model(tokenizer), build_tiny_model(tokenizer, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


@torch.no_grad()
def test_random_policy_writes_digits_and_stops_by_itself() -> None:
    """So that rewards differ within a group: about half of the probability is on digits, some on the end."""
    tokenizer = build_tiny_tokenizer()
    model = build_tiny_model(tokenizer)
    ids = tokenizer("What is 3 + 4?\n12", return_tensors="pt")["input_ids"]
    probabilities = model(ids).logits[0].softmax(-1)
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    assert 0.3 < float(probabilities[-1, digits].sum()) < 0.8
    assert 0.03 < float(probabilities[-1, tokenizer.eos_token_id]) < 0.3
