"""Small rows in the layout and the file format of well-known sets of problems, and what becomes of them. The contents are invented.

The key is the title of the set's block in docs/data.md. `files` has the names of a file source's files, or of those in the folder of
a data set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Known:
    files: dict[str, Rows]
    problems: list[tuple[Any, list[str]]]
    """(question, gold answers)"""
    difficulties: list[float | None] = field(default_factory=list)
    metas: list[dict[str, Any]] = field(default_factory=list)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def turn(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


SUM, PEARS = "What is 2 + 3?", "Ann has 4 pears and eats 1. How many are left?"
COLOURS = "Which colour has the sky?\nA. red\nB. blue\nC. green\nD. grey"
SKY, FOUR = "Which colour has the sky?", ["red", "blue", "green", "grey"]
LETTERS = {"A": "red", "B": "blue", "C": "green", "D": "grey"}
LABELLED = {"text": FOUR, "label": ["A", "B", "C", "D"]}
TALK = [user("Hi"), says("Hello!"), user(SUM)]

KNOWN = {
    "own-lines": Known(
        {"my_problems.jsonl": [{"question": SUM, "answer": 5}, {"question": PEARS, "answer": "3 pears"}]},
        [(SUM, ["5"]), (PEARS, ["3 pears"])],
    ),
    "own-table": Known(
        {"my_problems.csv.gz": [{"id": "1", "task": SUM, "result": "005"}, {"id": "2", "task": PEARS, "result": ""}]},
        [(SUM, ["005"])],
    ),
    "own-parquet": Known(
        {
            "data/train-00000.parquet": [{"task": SUM, "result": 5}],
            "data/train-00001.parquet": [{"task": PEARS, "result": 3}],
            "more.parquet": [{"task": "1 + 1?", "result": 2}],
        },
        [(SUM, ["5"]), (PEARS, ["3"]), ("1 + 1?", ["2"])],
    ),
    "content-parts": Known(
        {
            "my_chats.jsonl": [
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?"}],
                        }
                    ],
                    "label": "5",
                }
            ]
        },
        [([user(SUM)], ["5"])],
    ),
    "gsm8k": Known(
        {"train.parquet": [{"question": PEARS, "answer": "She has 4 - 1 = <<4-1=3>>3 left.\n#### 3"}]}, [(PEARS, ["3"])]
    ),
    "math-500": Known(
        {
            "test.jsonl": [
                {
                    "problem": SUM,
                    "solution": "It is $\\boxed{5}$.",
                    "answer": "5",
                    "subject": "Algebra",
                    "level": 2,
                    "unique_id": "test/algebra/1.json",
                },
                {
                    "problem": "Solve.",
                    "solution": "...",
                    "answer": "\\frac{1}{2}",
                    "subject": "Algebra",
                    "level": 5,
                    "unique_id": "test/algebra/2.json",
                },
            ]
        },
        [(SUM, ["5"]), ("Solve.", ["\\frac{1}{2}"])],
        difficulties=[0.25, 1.0],
    ),
    "math": Known(
        {
            "train.parquet": [
                {
                    "problem": SUM,
                    "level": "Level 3",
                    "type": "Algebra",
                    "solution": "So it is $\\boxed{\\frac{10}{2}}$.",
                },
                {"problem": PEARS, "level": "Level ?", "type": "Algebra", "solution": "It is \\boxed{3}."},
            ]
        },
        [(SUM, ["\\frac{10}{2}"]), (PEARS, ["3"])],
        difficulties=[0.5, None],
    ),
    "aime": Known(
        {"train.parquet": [{"id": 60, "problem": SUM, "solution": "...", "answer": "005", "url": "u", "year": "2024"}]},
        [(SUM, ["005"])],
    ),
    "svamp": Known(
        {
            "SVAMP.json": [
                {
                    "ID": "chal-1",
                    "Body": "Ann has 4 pears and eats 1.",
                    "Question": "How many are left?",
                    "Equation": "( 4.0 - 1.0 )",
                    "Answer": 3.0,
                    "Type": "Subtraction",
                }
            ]
        },
        [(PEARS, ["3.0"])],
    ),
    "numina-math": Known(
        {
            "train.parquet": [
                {
                    "source": "olympiads",
                    "problem": SUM,
                    "solution": "We add: $\\boxed{5}$",
                    "messages": [user(SUM), says("5")],
                },
                {
                    "source": "olympiads",
                    "problem": "Prove it.",
                    "solution": "Clear.",
                    "messages": [user("Prove it."), says("Clear.")],
                },
                {"source": "cn_k12", "problem": PEARS, "solution": "\\boxed{3}", "messages": [user(PEARS), says("3")]},
            ]
        },
        [(SUM, ["5"]), (PEARS, ["3"])],
    ),
    "openr1-math": Known(
        {
            "train.parquet": [
                {
                    "problem": SUM,
                    "solution": "...",
                    "answer": "5",
                    "problem_type": "Algebra",
                    "source": "olympiads",
                    "uuid": "x",
                    "generations": ["long " * 100],
                    "correctness_math_verify": [True],
                },
            ]
        },
        [(SUM, ["5"])],
        metas=[{}],
    ),
    "big-math": Known(
        {
            "train.parquet": [
                {
                    "problem": SUM,
                    "answer": "5",
                    "source": "orca_math",
                    "domain": ["Mathematics"],
                    "llama8b_solve_rate": 0.75,
                },
                {
                    "problem": PEARS,
                    "answer": "3",
                    "source": "math",
                    "domain": ["Mathematics"],
                    "llama8b_solve_rate": None,
                },
            ]
        },
        [(SUM, ["5"]), (PEARS, ["3"])],
        difficulties=[0.25, None],
    ),
    "deepscaler": Known({"train.json": [{"problem": SUM, "answer": "5", "solution": "..."}]}, [(SUM, ["5"])]),
    "verl": Known(
        {
            "train.parquet": [
                {
                    "data_source": "math_dapo",
                    "prompt": [user(SUM)],
                    "ability": "MATH",
                    "reward_model": {"ground_truth": "5", "style": "rule"},
                    "extra_info": {"index": "9a9b", "split": "train"},
                },
            ]
        },
        [([user(SUM)], ["5"])],
    ),
    "skywork-or1": Known(
        {
            "data/math-00000-of-00001.parquet": [
                {
                    "data_source": "train-math",
                    "prompt": [user(SUM)],
                    "ability": "math",
                    "reward_model": {"ground_truth": '["\\\\frac{10}{2}"]', "style": "rule"},
                    "extra_info": {"index": 1, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-7B": 3}},
                },
            ]
        },
        [([user(SUM)], ["\\frac{10}{2}"])],
    ),
    "mmlu": Known(
        {
            "data/auxiliary_train-00000-of-00001.parquet": [
                {"question": SKY, "subject": "astronomy", "choices": FOUR, "answer": 1}
            ]
        },
        [(COLOURS, ["B"])],
        metas=[{"choices": LETTERS}],
    ),
    "mmlu-table": Known(
        {
            "mmlu/sky.csv": [{"question": SKY, **LETTERS, "answer": "B"}],
            "mmlu/soil.csv": [{"question": SKY, **LETTERS, "answer": "c"}],
        },
        [(COLOURS, ["B"]), (COLOURS, ["C"])],
    ),
    "mmlu-pro": Known(
        {
            "test.parquet": [
                {
                    "question_id": 70,
                    "question": "Pick i.",
                    "options": list("0123456789"),
                    "answer": "I",
                    "answer_index": 8,
                    "cot_content": "",
                    "category": "other",
                    "src": "x",
                }
            ]
        },
        [("Pick i.\n" + "\n".join(f"{'ABCDEFGHIJ'[i]}. {i}" for i in range(10)), ["I"])],
    ),
    "arc": Known(
        {
            "train.parquet": [
                {"id": "a", "question": SKY, "choices": LABELLED, "answerKey": "B"},
                {
                    "id": "b",
                    "question": SKY,
                    "choices": {"text": FOUR, "label": ["1", "2", "3", "4"]},
                    "answerKey": "3",
                },
            ]
        },
        [(COLOURS, ["B"]), (COLOURS, ["C"])],
        metas=[{"choices": LETTERS}, {"choices": LETTERS}],
    ),
    "commonsense-qa": Known(
        {
            "train.parquet": [
                {"id": "a", "question": SKY, "question_concept": "sky", "choices": LABELLED, "answerKey": "B"}
            ]
        },
        [(COLOURS, ["B"])],
    ),
    "openbookqa": Known(
        {"train.parquet": [{"id": "7-1", "question_stem": SKY, "choices": LABELLED, "answerKey": "D"}]},
        [(COLOURS, ["D"])],
    ),
    "aqua-rat": Known(
        {
            "train.parquet": [
                {
                    "question": SKY,
                    "options": ["A)red", "B)blue", "C)green", "D)grey"],
                    "rationale": "Look up.",
                    "correct": "B",
                }
            ]
        },
        [(COLOURS, ["B"])],
    ),
    "mathqa": Known(
        {
            "train.json": [
                {
                    "Problem": "what is 2 + 3 ?",
                    "Rationale": "add",
                    "options": "a ) 4 , b ) 5 , c ) 6 , d ) 1,000 , e ) none of these",
                    "correct": "b",
                    "annotated_formula": "add(2, 3)",
                    "linear_formula": "add(n0,n1)|",
                    "category": "general",
                }
            ]
        },
        [("what is 2 + 3 ?\nA. 4\nB. 5\nC. 6\nD. 1,000\nE. none of these", ["B"])],
    ),
    "hellaswag": Known(
        {
            "train.parquet": [
                {
                    "ind": 4,
                    "activity_label": "Sky",
                    "ctx_a": SKY,
                    "ctx_b": "",
                    "ctx": SKY,
                    "endings": FOUR,
                    "source_id": "x",
                    "split": "train",
                    "split_type": "indomain",
                    "label": "3",
                },
                {
                    "ind": 5,
                    "activity_label": "Sky",
                    "ctx_a": SKY,
                    "ctx_b": "",
                    "ctx": SKY,
                    "endings": FOUR,
                    "source_id": "x",
                    "split": "train",
                    "split_type": "indomain",
                    "label": "0",
                },
            ]
        },
        [(COLOURS, ["D"]), (COLOURS, ["A"])],
    ),
    "piqa": Known(
        {"piqa.jsonl": [{"goal": "Boil water", "sol1": "Heat it.", "sol2": "Cool it.", "label": 0}]},
        [("Boil water\nA. Heat it.\nB. Cool it.", ["A"])],
    ),
    "winogrande": Known(
        {
            "train.parquet": [
                {"sentence": "Ann thanked Bea because _ had helped.", "option1": "Ann", "option2": "Bea", "answer": "2"}
            ]
        },
        [("Ann thanked Bea because _ had helped.\nA. Ann\nB. Bea", ["B"])],
    ),
    "race": Known(
        {
            "train.parquet": [
                {
                    "example_id": "high1.txt",
                    "article": "The sky was blue.",
                    "answer": "B",
                    "question": SKY,
                    "options": FOUR,
                }
            ]
        },
        [(f"The sky was blue.\n\n{COLOURS}", ["B"])],
    ),
    "medmcqa": Known(
        {
            "train.parquet": [
                {
                    "id": "e9",
                    "question": SKY,
                    "opa": "red",
                    "opb": "blue",
                    "opc": "green",
                    "opd": "grey",
                    "cop": 1,
                    "choice_type": "single",
                    "exp": "",
                    "subject_name": "Physics",
                    "topic_name": None,
                },
                {
                    "id": "ea",
                    "question": SKY,
                    "opa": "red",
                    "opb": "blue",
                    "opc": "green",
                    "opd": "grey",
                    "cop": 2,
                    "choice_type": "single",
                    "exp": "",
                    "subject_name": "Physics",
                    "topic_name": None,
                },
            ]
        },
        [(COLOURS, ["B"]), (COLOURS, ["C"])],
    ),
    "sciq": Known(
        {
            "train.parquet": [
                {
                    "question": SKY,
                    "distractor3": "grey",
                    "distractor1": "red",
                    "distractor2": "green",
                    "correct_answer": "blue",
                    "support": "Look up.",
                }
            ]
        },
        [(f"{SKY}\nA. blue\nB. green\nC. red\nD. grey", ["A"])],
    ),
    "gpqa": Known(
        {
            "gpqa_main.csv": [
                {
                    "Record ID": "r1",
                    "Question": SKY,
                    "Correct Answer": "blue",
                    "Incorrect Answer 1": "red",
                    "Incorrect Answer 2": "green",
                    "Incorrect Answer 3": "grey",
                    "Explanation": "Look\nup.",
                }
            ]
        },
        [(f"{SKY}\nA. blue\nB. green\nC. red\nD. grey", ["A"])],
    ),
    "truthfulqa": Known(
        {
            "validation.parquet": [
                {
                    "question": SKY,
                    "mc1_targets": {"choices": ["blue", "red"], "labels": [1, 0]},
                    "mc2_targets": {"choices": ["blue", "light blue", "red"], "labels": [1, 1, 0]},
                }
            ]
        },
        [(f"{SKY}\nA. blue\nB. red", ["A"])],
    ),
    "triviaqa": Known(
        {
            "train.parquet": [
                {
                    "question": "Who painted it?",
                    "question_id": "t1",
                    "question_source": "x",
                    "entity_pages": {"title": ["A"]},
                    "answer": {
                        "aliases": ["Ann Ode", "A. Ode"],
                        "normalized_aliases": ["ann ode"],
                        "value": "Ann Ode",
                        "type": "x",
                    },
                }
            ]
        },
        [("Who painted it?", ["Ann Ode", "A. Ode"])],
    ),
    "squad": Known(
        {
            "train.parquet": [
                {
                    "id": "5",
                    "title": "Sky",
                    "context": "The sky is blue.",
                    "question": SKY,
                    "answers": {"text": ["blue", "blue"], "answer_start": [11, 11]},
                }
            ]
        },
        [(f"The sky is blue.\n\n{SKY}", ["blue"])],
    ),
    "boolq": Known(
        {
            "train.parquet": [
                {"question": "is the sky blue", "answer": True, "passage": "The sky is blue."},
                {"question": "is the sky red", "answer": False, "passage": "The sky is blue."},
            ]
        },
        [
            ("The sky is blue.\n\nis the sky blue?", ["True", "Yes"]),
            ("The sky is blue.\n\nis the sky red?", ["False", "No"]),
        ],
    ),
    "alpaca": Known(
        {
            "alpaca_data.json": [
                {"instruction": "Add up.", "input": "2 and 3", "output": "5"},
                {"instruction": "Name a colour.", "input": "", "output": "Blue."},
            ]
        },
        [("Add up.\n\n2 and 3", []), ("Name a colour.", [])],
    ),
    "sharegpt": Known(
        {
            "sharegpt.json": [
                {
                    "id": "a_0",
                    "conversations": [turn("human", "Hi"), turn("gpt", "Hello!"), turn("human", SUM), turn("gpt", "5")],
                }
            ]
        },
        [(TALK, [])],
    ),
    "lima": Known(
        {"lima/train.jsonl": [{"conversations": ["Hi", "Hello!", SUM, "5"], "source": "multi_turn"}]}, [(TALK, [])]
    ),
    "tulu": Known({"train.parquet": [{"id": "t1", "messages": [*TALK, says("5")], "source": "x"}]}, [(TALK, [])]),
    "ultrachat": Known(
        {
            "data/train_sft-00000-of-00001.parquet": [
                {"prompt": SUM, "prompt_id": "f0", "messages": [user(SUM), says("5")]}
            ]
        },
        [(SUM, [])],
    ),
    "countdown": Known(
        {"train.parquet": [{"target": 98, "nums": [44, 19, 35]}]},
        [("Make 98 out of the numbers [44, 19, 35], each used once at most, with + - * / and brackets.", [])],
        metas=[{"nums": [44, 19, 35], "target": 98}],
    ),
    "mbpp": Known(
        {
            "train.parquet": [
                {
                    "task_id": 1,
                    "text": "Write a function that adds.",
                    "code": "...",
                    "test_list": ["assert add(2, 3) == 5"],
                    "test_setup_code": "",
                    "challenge_test_list": [],
                }
            ]
        },
        [("Write a function that adds.", [])],
        metas=[{"test_list": ["assert add(2, 3) == 5"]}],
    ),
}
"""the sets and shapes of one block each; `saved` is tried by itself"""
