"""What is proposed for rows in the layout of known data sets. The contents are invented."""

from pathlib import Path
from typing import Any

import pytest

from configs.disk.rows.columns import Row
from flows.doctor.data.holding import columns_of
from flows.doctor.data.report import Place, Problems, problems_part, propose_source, reward_for

LONG = "First I would think about it for a while, and then I would write a long text about it."


def proposed(*rows: dict[str, Any]) -> Problems | None:
    placed: list[Row] = [(f"row {i}", row) for i, row in enumerate(rows)]
    return propose_source(Place("owner/name"), placed, columns_of(rows))


SETS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[list[str] | None] | None, str]] = {
    "openai/gsm8k": (
        [{"question": "Q1?", "answer": "3*4=12\n#### 12"}, {"question": "Q2?", "answer": "So much.\n#### 1,200"}],
        {"answer_place": "hash"},
        [["12"], ["1,200"]],
        "math",
    ),
    "EleutherAI/hendrycks_math": (
        [
            {"problem": "Find $x$.", "level": "Level 5", "type": "Algebra", "solution": r"So \boxed{4}."},
            {"problem": "Find $y$.", "level": "Level 1", "type": "Algebra", "solution": r"So \boxed{\frac{1}{2}}."},
        ],
        {
            "columns": {"question": "problem", "answer": "solution", "difficulty": {"column": "level", "easy": 1, "hard": 5}},
            "answer_place": "boxed",
        },
        [["4"], [r"\frac{1}{2}"]],
        "math",
    ),
    "SynthLabsAI/Big-Math-RL-Verified": (
        [
            {"problem": "P1", "answer": "4", "source": "x", "llama8b_solve_rate": 0.9},
            {"problem": "P2", "answer": "5", "source": "x", "llama8b_solve_rate": 0.1},
        ],
        {"columns": {"question": "problem", "difficulty": {"column": "llama8b_solve_rate", "easy": 1, "hard": 0}}},
        [["4"], ["5"]],
        "math",
    ),
    "cais/mmlu": (
        [{"question": "Q1?", "choices": ["a", "b", "c"], "answer": 2}, {"question": "Q2?", "choices": ["a", "b", "c"], "answer": 0}],
        {"columns": {"options": "choices"}},
        [["C"], ["A"]],
        "choice",
    ),
    "allenai/ai2_arc": (
        [
            {"question": "Q1?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
            {"question": "Q2?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"},
        ],
        {"columns": {"answer": "answerKey", "options": "choices"}},
        [["B"], ["A"]],
        "choice",
    ),
    "openlifescienceai/medmcqa": (
        [
            {"question": "Q1?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 2, "exp": LONG},
            {"question": "Q2?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 0, "exp": LONG},
        ],
        {"columns": {"answer": "cop", "options": ["opa", "opb", "opc", "opd"]}},
        [["C"], ["A"]],
        "choice",
    ),
    "allenai/winogrande": (
        [
            {"sentence": "The _ is.", "option1": "a", "option2": "b", "answer": "1"},
            {"sentence": "The _ was.", "option1": "a", "option2": "b", "answer": "2"},
        ],
        {"columns": {"question": "sentence", "options": ["option1", "option2"], "first_option": 1}},
        [["A"], ["B"]],
        "choice",
    ),
    "allenai/sciq": (
        [
            {"question": "Q1?", "correct_answer": "b", "distractor1": "a", "distractor2": "c", "support": LONG},
            {"question": "Q2?", "correct_answer": "c", "distractor1": "a", "distractor2": "b", "support": LONG},
        ],
        {"columns": {"answer": "correct_answer", "options": ["correct_answer", "distractor1", "distractor2"]}},
        None,
        "choice",
    ),
    "metaeval/reclor": (
        [
            {"context": "C.", "question": "Q1?", "answers": ["a", "b", "c", "d"], "label": 3},
            {"context": "D.", "question": "Q2?", "answers": ["a", "b", "c", "d"], "label": 0},
        ],
        {"columns": {"question": "{context}\n\n{question}", "answer": "label", "options": "answers"}},
        [["D"], ["A"]],
        "choice",
    ),
    "allenai/social_i_qa": (
        [
            {"context": "C.", "question": "Q1?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"},
            {"context": "D.", "question": "Q2?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "1"},
        ],
        {
            "columns": {
                "question": "{context}\n\n{question}", "answer": "label", "options": ["answerA", "answerB", "answerC"],
                "first_option": 1,
            }
        },
        [["C"], ["A"]],
        "choice",
    ),
    "truthfulqa/truthful_qa": (
        [{"question": "Q?", "mc1_targets": {"choices": ["a", "b", "c"], "labels": [0, 1, 0]}}],
        {"columns": {"answer": "mc1_targets.labels", "options": "mc1_targets.choices"}},
        None,
        "choice",
    ),
    "google/boolq": (
        [{"question": "is it?", "passage": "It is.", "answer": True}, {"question": "is he?", "passage": "No.", "answer": False}],
        {"columns": {"question": "{passage}\n\n{question}"}},
        None,
        "exact",
    ),
    "a question that holds its story": (
        [{"Body": "There are 3.", "Question": "There are 3. How many?", "Answer": "3"}],
        {"columns": {"question": "Question", "answer": "Answer"}},
        [["3"]],
        "math",
    ),
    "ChilleD/SVAMP": (
        [{"ID": "1", "Body": "There are 3.", "Question": "How many?", "Equation": "1+2", "Answer": "3", "Type": "Sum"}],
        {"columns": {"question": "{Body}\n\n{Question}", "answer": "Answer"}},
        [["3"]],
        "math",
    ),
    "a file of verl": (
        [
            {
                "data_source": "sums", "prompt": [{"role": "user", "content": "Q?"}],
                "reward_model": {"ground_truth": "12", "style": "rule"}, "extra_info": {"question": "Q", "answer": LONG},
            }
        ],
        {"columns": {"question": "prompt", "answer": "reward_model.ground_truth"}},
        [["12"]],
        "math",
    ),
    "rajpurkar/squad": (
        [{"context": "C", "question": "Who?", "answers": {"text": ["Bob", "Rob"], "answer_start": [1, 9]}}],
        {"columns": {"question": "{context}\n\n{question}", "answer": "answers.text"}},
        [["Bob", "Rob"]],
        "exact",
    ),
    "mandarjoshi/trivia_qa": (
        [{"question": "Who?", "answer": {"aliases": ["Bob", "Rob"], "value": "Bob", "type": "x"}}],
        {"columns": {"answer": "answer.aliases"}},
        [["Bob", "Rob"]],
        "exact",
    ),
    "a conversation and its system message": (
        [{"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": LONG}]}],
        {"columns": {"question": "conversations", "answer": None, "system": "system"}},
        [None],
        "judge",
    ),
    "tatsu-lab/alpaca": (
        [{"instruction": "Do it.", "input": "", "output": LONG}, {"instruction": "Sum up.", "input": "A text", "output": LONG}],
        {"columns": {"question": "{instruction}\n\n{input}", "answer": None}},
        [None, None],
        "judge",
    ),
    "ShareGPT": (
        [{"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}],
        {"columns": {"question": "conversations", "answer": None}},
        [None],
        "judge",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_known_layouts_get_a_block_that_reads_their_golds(name: str) -> None:
    rows, block, golds, checker = SETS[name]
    found = proposed(*rows)
    assert found is not None
    assert found.block == {"kind": "dataset", "path": "owner/name"} | block
    if golds is None:  # the order of the options, or of the marks, is another test's
        assert all(problem.answer is not None for problem in found.problems)
    else:
        assert [[p.answer, *p.other_answers] if p.answer is not None else None for p in found.problems] == golds
    reward = reward_for(found)
    assert reward.get("checker", reward["kind"]) == checker


def test_options_bring_a_template_that_asks_for_the_letter() -> None:
    found = proposed({"question": "Q?", "choices": ["a", "b"], "answer": 1})
    assert found is not None
    assert "letter" in problems_part(found)["problems"]["template"]


def test_rows_without_a_question_get_no_block() -> None:
    assert proposed({"id": 1, "colour": "red"}) is None


def test_files_get_kind_file_and_folders_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert Place(str(tmp_path / "a.jsonl")).is_file
    assert not Place(str(tmp_path)).is_file
    assert Place(f"{tmp_path}/*.parquet").is_file
