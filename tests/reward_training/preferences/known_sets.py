"""Small rows in the layout of preference data sets, with what they have to become. The contents are invented.

The key is the title of the set's block in docs/data.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Messages = list[dict[str, str]]
Pair = tuple[Messages, str, str]
"""(prompt, chosen, rejected)"""


@dataclass(frozen=True)
class Case:
    rows: list[dict[str, Any]]
    pairs: list[Pair]
    left_out: dict[str, int] = field(default_factory=dict)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def turn(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


def hh(*turns: str) -> str:
    """Turns of HH-RLHF, of which the human says the first."""
    return "".join(f"\n\n{'Assistant' if i % 2 else 'Human'}: {text}" for i, text in enumerate(turns))


TEA, BOIL, COLD = [user("How do I make tea?")], "Boil water first.", "Use cold water."
TEA_TALK = [user("Hi"), says("Hello!"), *TEA]

CASES = {
    "texts": Case(
        [
            {"prompt": "How do I make tea?", "chosen": BOIL, "rejected": COLD},
            {"prompt": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: How do I make tea?\n\nAssistant:", "response": " x",
             "chosen": f" {BOIL}", "rejected": f" {COLD}"},
        ],
        [(TEA, BOIL, COLD), (TEA_TALK, BOIL, COLD)],
    ),
    "conversations": Case(
        [{"chosen": [*TEA_TALK, says(BOIL)], "rejected": [*TEA_TALK, says(COLD)], "score_chosen": 8.0,
          "score_rejected": 3.5}],
        [(TEA_TALK, BOIL, COLD)],
    ),
    "messages": Case(
        [
            {"prompt": [system("Be brief."), *TEA], "chosen": [says(BOIL)], "rejected": [says(COLD)]},
            {"prompt": [*TEA], "chosen": [says("Which tea?"), user("Green."), says(BOIL)],
             "rejected": [says("Which tea?"), user("Green."), says(COLD)]},
        ],
        [([system("Be brief."), *TEA], BOIL, COLD), ([*TEA, says("Which tea?"), user("Green.")], BOIL, COLD)],
    ),
    "ultrafeedback-binarized": Case(
        [
            {"prompt": "How do I make tea?", "prompt_id": "a1", "chosen": [*TEA, says(BOIL)], "rejected": [*TEA, says(COLD)],
             "messages": [*TEA, says(BOIL)], "score_chosen": 8.5, "score_rejected": 5.0},
            {"prompt": "How do I make tea?", "prompt_id": "a2", "chosen": [system("Be brief."), *TEA, says(BOIL)],
             "rejected": [system("Be brief."), *TEA, says(COLD)], "messages": [], "score_chosen": 8.5,
             "score_rejected": 5.0},
            {"prompt": "Hi", "prompt_id": "a3", "chosen": [*TEA_TALK, says(BOIL)], "rejected": [*TEA_TALK, says(COLD)],
             "messages": [], "score_chosen": 8.5, "score_rejected": 5.0},
        ],
        [(TEA, BOIL, COLD), ([system("Be brief."), *TEA], BOIL, COLD), (TEA_TALK, BOIL, COLD)],
    ),
    "hh-rlhf": Case(
        [
            {"chosen": hh("How do I make tea?", BOIL), "rejected": hh("How do I make tea?", COLD)},
            {"chosen": hh("Hi", "Hello!", "How do I make tea?", BOIL),
             "rejected": hh("Hi", "Hello!", "How do I make tea?", COLD)},
            {"chosen": hh("Hi", "Hello!", "Bye", "See you."), "rejected": hh("Hi", "Go away.", "Why?", "No.")},
            {"chosen": hh("Hi", "Hello!"), "rejected": hh("Hi", "")},
            {"chosen": hh("Hi", "Hello!", "Bye"), "rejected": hh("Hi", "Hello!", "Bye", "Bye")},
            {"chosen": hh("How do I make tea?", COLD), "rejected": hh("How do I make tea?", BOIL)},
            {"chosen": hh("Hi", "Hello!"), "rejected": hh("Hi", "Hello!\n")},
        ],
        [(TEA_TALK, BOIL, COLD)],
        {"diverging": 1, "no_response": 2, "contradicting": 2, "equal": 1},
    ),
    "chatml": Case(
        [{"prompt": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow do I make tea?<|im_end|>\n<|im_start|>assistant\n",
          "chosen": f"{BOIL}<|im_end|>\n", "rejected": f"{COLD}<|im_end|>\n"}],
        [([system("Be brief."), *TEA], BOIL, COLD)],
    ),
    "openai-dpo": Case(
        [{"input": {"messages": TEA_TALK, "tools": [], "parallel_tool_calls": True}, "preferred_output": [says(BOIL)],
          "non_preferred_output": [says(COLD)]}],
        [(TEA_TALK, BOIL, COLD)],
    ),
    "orca-dpo": Case(
        [
            {"system": "", "question": "How do I make tea?", "chosen": BOIL, "rejected": COLD},
            {"system": "Be brief.", "question": "How do I make tea?", "chosen": BOIL, "rejected": COLD},
        ],
        [(TEA, BOIL, COLD), ([system("Be brief."), *TEA], BOIL, COLD)],
    ),
    "llama-factory": Case(
        [
            {"conversations": [turn("human", "Hi"), turn("gpt", "Hello!"), turn("human", "How do I make tea?")],
             "chosen": turn("gpt", BOIL), "rejected": turn("gpt", COLD), "system": "Be brief."},
            {"conversations": [turn("human", "How do I make tea?")], "chosen": turn("gpt", BOIL),
             "rejected": turn("gpt", COLD), "system": None},
        ],
        [([system("Be brief."), *TEA_TALK], BOIL, COLD), (TEA, BOIL, COLD)],
    ),
    "ms-swift": Case(
        [{"messages": [system("Be brief."), *TEA, says(BOIL)], "rejected_response": COLD}],
        [([system("Be brief."), *TEA], BOIL, COLD)],
    ),
    "alpaca-farm": Case(
        [
            {"instruction": "Name the capital.", "input": "France", "output_1": "Lyon", "output_2": "Paris", "preference": 2,
             "raw_preference": 2},
            {"instruction": "Name a colour.", "input": "", "output_1": "Red", "output_2": "Two", "preference": 1,
             "raw_preference": 1},
        ],
        [([user("Name the capital.\n\nFrance")], "Paris", "Lyon"), ([user("Name a colour.")], "Red", "Two")],
    ),
    "ultrainteract": Case(
        [{"id": "0", "parent_id": "0", "task": "Coding", "dataset": "x",
          "trajectory": [turn("user", "Add 2 and 2."), turn("assistant", "Step 1: 2 + 2 = 5"), turn("user", "Observation: wrong")],
          "chosen": "2 + 2 = 4", "rejected": "2 + 2 = 6"}],
        [([user("Add 2 and 2."), says("Step 1: 2 + 2 = 5"), user("Observation: wrong")], "2 + 2 = 4", "2 + 2 = 6")],
    ),
    "reward-bench-2": Case(
        [{"id": "1", "prompt": "How do I make tea?", "chosen": [BOIL], "rejected": [COLD, "No idea.", "Ask her."],
          "num_correct": 1, "num_incorrect": 3, "total_completions": 4, "models": ["a", "b", "c", "d"], "subset": "Focus"}],
        [(TEA, BOIL, COLD), (TEA, BOIL, "No idea."), (TEA, BOIL, "Ask her.")],
    ),
    "shp": Case(
        [
            {"post_id": "p", "history": "How do I make tea?", "human_ref_A": BOIL, "human_ref_B": COLD, "labels": 1,
             "score_A": 40, "score_B": 2},
            {"post_id": "q", "history": "Hi", "human_ref_A": "Go away.", "human_ref_B": "Hello!", "labels": 0, "score_A": 3,
             "score_B": 9},
        ],
        [(TEA, BOIL, COLD), ([user("Hi")], "Hello!", "Go away.")],
    ),
    "pku-saferlhf": Case(
        [
            {"prompt": "How do I make tea?", "response_0": COLD, "response_1": BOIL, "is_response_0_safe": True,
             "is_response_1_safe": True, "better_response_id": 1, "safer_response_id": 0},
            {"prompt": "Hi", "response_0": "Hello!", "response_1": "Go away.", "is_response_0_safe": True,
             "is_response_1_safe": False, "better_response_id": 0, "safer_response_id": 0},
        ],
        [(TEA, BOIL, COLD), ([user("Hi")], "Hello!", "Go away.")],
    ),
    "chatbot-arena": Case(
        [
            {"question_id": "1", "model_a": "m", "model_b": "n", "winner": "model_b", "conversation_a": [*TEA, says(COLD)],
             "conversation_b": [*TEA, says(BOIL)], "turn": 1},
            {"question_id": "2", "model_a": "m", "model_b": "n", "winner": "model_a",
             "conversation_a": [user("Hi"), says("Hello!")], "conversation_b": [user("Hi"), says("Go away.")], "turn": 1},
            {"question_id": "3", "model_a": "m", "model_b": "n", "winner": "tie",
             "conversation_a": [user("Hi"), says("Yes?")], "conversation_b": [user("Hi"), says("What?")], "turn": 1},
            {"question_id": "4", "model_a": "m", "model_b": "n", "winner": "tie (bothbad)",
             "conversation_a": [user("Hi"), says("a")], "conversation_b": [user("Hi"), says("b")], "turn": 1},
            {"question_id": "5", "model_a": "m", "model_b": "n", "winner": "model_a",
             "conversation_a": [user("Hi"), says("Hey"), user("Bye"), says("c")],
             "conversation_b": [user("Hi"), says("Ho"), user("Bye"), says("d")], "turn": 2},
        ],
        [(TEA, BOIL, COLD), ([user("Hi")], "Hello!", "Go away.")],
        {"tie": 2, "diverging": 1},
    ),
    "prometheus": Case(
        [
            {"orig_instruction": "How do I make tea?", "orig_response_A": COLD, "orig_response_B": BOIL,
             "orig_preference": "B"},
            {"orig_instruction": "Hi", "orig_response_A": "Hello!", "orig_response_B": "Go away.", "orig_preference": "A"},
        ],
        [(TEA, BOIL, COLD), ([user("Hi")], "Hello!", "Go away.")],
    ),
    "helpsteer3": Case(
        [
            {"domain": "general", "language": "english", "context": TEA_TALK, "response1": BOIL, "response2": COLD,
             "overall_preference": -3, "individual_preference": []},
            {"domain": "general", "language": "english", "context": [user("Hi")], "response1": "Go away.",
             "response2": "Hello!", "overall_preference": 2, "individual_preference": []},
            {"domain": "code", "language": "python", "context": [user("Hi")], "response1": "a", "response2": "b",
             "overall_preference": 1, "individual_preference": []},
            {"domain": "code", "language": "python", "context": [user("Hi")], "response1": "c", "response2": "d",
             "overall_preference": 0, "individual_preference": []},
        ],
        [(TEA_TALK, BOIL, COLD), ([user("Hi")], "Hello!", "Go away.")],
        {"tie": 2},
    ),
    "webgpt": Case(
        [
            {"question": {"dataset": "eli5", "id": "1", "full_text": "How do I make tea?"}, "answer_0": COLD,
             "answer_1": BOIL, "score_0": -0.5, "score_1": 0.5},
            {"question": {"dataset": "eli5", "id": "2", "full_text": "Hi"}, "answer_0": "Hello!", "answer_1": "Go away.",
             "score_0": 1.0, "score_1": -1.0},
            {"question": {"dataset": "eli5", "id": "3", "full_text": "Hi"}, "answer_0": "a", "answer_1": "b",
             "score_0": 0.0, "score_1": 0.0},
        ],
        [(TEA, BOIL, COLD), ([user("Hi")], "Hello!", "Go away.")],
        {"tie": 1},
    ),
    "summarize-comparisons": Case(
        [
            {"info": {"id": "t3", "post": "I lost my cat.", "title": "Cat", "subreddit": "pets", "article": None},
             "summaries": [{"text": "A dog.", "policy": "sup1", "note": "x"}, {"text": "Cat lost.", "policy": "ref", "note": "y"}],
             "choice": 1, "worker": "w", "split": "train"},
            {"info": {"id": "c1", "post": None, "title": None, "subreddit": None, "article": "It rained."},
             "summaries": [{"text": "Rain.", "policy": "sup1", "note": None}, {"text": "Sun.", "policy": "ref", "note": None}],
             "choice": 0, "worker": "w", "split": "train"},
        ],
        [([user("Cat\n\nI lost my cat.")], "Cat lost.", "A dog."), ([user("It rained.")], "Rain.", "Sun.")],
    ),
    "summarize-axis": Case(
        [
            {"info": {"title": "Cat", "post": "I lost my cat.", "article": None},
             "summary": {"text": text, "policy": "p", "note": None, "axes": {"overall": overall, "accuracy": 5}}}
            for text, overall in [("A dog.", 1), ("Cat lost.", 7), ("Cat gone.", 6), ("Pet.", None), ("Cat lost.", 6)]
        ],
        # the two ratings of `Cat lost.` have the mean 6.5, which is under 2 from 6
        [([user("Cat\n\nI lost my cat.")], "Cat lost.", "A dog."), ([user("Cat\n\nI lost my cat.")], "Cat gone.", "A dog.")],
        {"unlabelled": 1, "equal": 1},
    ),
    "nectar": Case(
        [{"prompt": "\n\nHuman: How do I make tea?\n\nAssistant: ", "turns": 1, "num_responses": 3, "source": ["x"],
          "answers": [{"answer": COLD, "model": "m", "rank": 3.0}, {"answer": BOIL, "model": "n", "rank": 1.0},
                      {"answer": "Ask.", "model": "o", "rank": 2.0}]}],
        [(TEA, BOIL, COLD), (TEA, BOIL, "Ask."), (TEA, "Ask.", COLD)],
    ),
    "ultrafeedback": Case(
        [{"source": "x", "instruction": "How do I make tea?", "models": ["a", "b", "c"], "correct_answers": ["None"],
          "completions": [
              {"model": "a", "response": "Ask.", "overall_score": 6.5, "annotations": {}, "critique": "z"},
              {"model": "b", "response": BOIL, "overall_score": 9.0, "annotations": {}, "critique": "z"},
              {"model": "c", "response": "Boil.", "overall_score": 8.5, "annotations": {}, "critique": "z"},
              {"model": "d", "response": "", "overall_score": 1.0, "annotations": {}, "critique": "z"},
          ]}],
        [(TEA, BOIL, "Ask."), (TEA, "Boil.", "Ask.")],
        {"empty": 1},
    ),
    "stack-exchange": Case(
        [{"qid": 7, "question": "How do I make tea?", "date": "x", "metadata": [],
          "answers": [{"answer_id": 1, "author": "u", "pm_score": 1, "selected": False, "text": COLD},
                      {"answer_id": 2, "author": "v", "pm_score": 6, "selected": True, "text": BOIL}]}],
        [(TEA, BOIL, COLD)],
    ),
    "distilabel": Case(
        [
            {"system": "Be brief.", "input": "How do I make tea?", "chosen": BOIL, "rejected": COLD,
             "generations": [COLD, BOIL], "rating": [4.0, 9.0], "status": "swapped"},
            {"system": "", "input": "Hi", "chosen": None, "rejected": None, "generations": ["Hello!", "Hey!"],
             "rating": [8.0, 8.0], "status": "tie"},
            {"system": "", "input": "Hi", "chosen": None, "rejected": None, "generations": ["Hello!", "Ho!"],
             "rating": None, "status": "tie"},
        ],
        [([system("Be brief."), *TEA], BOIL, COLD)],
        {"tie": 1, "unlabelled": 1},
    ),
    "helpsteer2": Case(
        [
            {"prompt": prompt, "response": response, "helpfulness": helpfulness, "correctness": 4, "verbosity": 2}
            for prompt, response, helpfulness in [
                ("How do I make tea?", BOIL, 4),
                ("How do I make tea?", COLD, 1),
                ("Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nHow do I make tea?", COLD, 0),
                ("Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nHow do I make tea?", BOIL, 3),
                ("Bye", "See you.", 3),
                ("Bye", "Good bye.", 3),
            ]
        ],
        [(TEA, BOIL, COLD), (TEA_TALK, BOIL, COLD)],
        {"unpaired": 2},
    ),
    "kto": Case(
        [
            {"prompt": [user(prompt)], "completion": [says(completion)], "label": label}
            for prompt, completion, label in [
                ("How do I make tea?", COLD, False),
                ("Hi", "Hello!", True),
                ("How do I make tea?", BOIL, True),
                ("Hi", "Hey!", True),
            ]
        ],
        [(TEA, BOIL, COLD)],
        {"unpaired": 2},
    ),
    "thumbs": Case(
        [
            {"question": "How do I make tea?", "answer": answer, "feedback": feedback}
            for answer, feedback in [(COLD, "thumbs_down"), (BOIL, "thumbs_up"), ("Ask.", "no_vote")]
        ],
        [(TEA, BOIL, COLD)],
        {"unlabelled": 1},
    ),
}  # fmt: skip
