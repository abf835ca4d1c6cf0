from grpo_train.problems.prompt_variants import varied
from tests.grpo_train.conftest import make_problem

VARIANTS = [[{"role": "user", "content": text}] for text in ("2+2?", "Say 2+2.", "What is 2+2?")]
PROBLEM = make_problem("2+2", "4").model_copy(update={"variants": VARIANTS})


def test_a_problem_without_variants_is_asked_as_it_is():
    problem = make_problem("2+2", "4")
    assert varied(problem, seed=0, round_index=1, step=1) is problem


def test_steps_draw_different_wordings_and_the_same_step_the_same_one():
    drawn = [varied(PROBLEM, seed=0, round_index=1, step=step) for step in range(30)]
    assert [varied(PROBLEM, seed=0, round_index=1, step=step) for step in range(30)] == drawn
    prompts = [problem.prompt for problem in drawn]
    assert all(prompts.count(variant) > 3 for variant in VARIANTS)
    assert {problem.key for problem in drawn} == {PROBLEM.key}


def test_problems_of_a_step_draw_apart_from_each_other_and_rounds_and_seeds_do_too():
    others = [PROBLEM.model_copy(update={"key": str(i)}) for i in range(30)]
    assert len({str(varied(problem, seed=0, round_index=1, step=1).prompt) for problem in others}) == 3
    first, *rest = [
        [varied(problem, seed=seed, round_index=round_index, step=1).prompt for problem in others]
        for seed, round_index in ((0, 1), (0, 2), (1, 1))
    ]
    assert all(first != other for other in rest)
