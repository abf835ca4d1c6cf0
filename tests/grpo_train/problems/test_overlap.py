import pytest

from grpo_train.problems.overlap import exact_matches, ngram_matches, ngrams, normalized


@pytest.mark.parametrize("text", ["What is 2 + 3?", "  what is\n2 +\t3?", "WHAT IS ２ + ３？"])
def test_spacing_case_and_unicode_form_do_not_make_another_question(text: str) -> None:
    assert normalized(text) == "what is 2 + 3?"


def test_punctuation_makes_another_question() -> None:
    assert normalized("3 + 4") != normalized("3 - 4")


def test_exact_match_names_the_first_held_out_place() -> None:
    assert exact_matches([("a", "1"), ("B", "1"), ("c", "1")], [("b", "1"), ("c", "2"), ("b ", "1")]) == {1: 0, 2: 1}


def test_ngrams_are_words_in_a_row_and_a_short_text_has_none() -> None:
    assert ngrams("One two, three!", 2) == {("one", "two"), ("two", "three")}
    assert ngrams("one two", 3) == set()


def test_shared_run_of_words_matches_whatever_stands_around_it() -> None:
    training = ["Tom has two red apples today", "Ann sold seven blue hats"]
    held_out = ["nothing shared here at all", "Why? Tom has two RED apples!"]
    assert ngram_matches(training, held_out, n=5, common_share=0.01) == {0: 1}
    assert ngram_matches(training, held_out, n=6, common_share=0.01) == {}


def test_ngram_in_more_than_the_common_share_of_training_does_not_count() -> None:
    """A template's phrase stands everywhere; 1% of 300 questions is 3."""
    phrase = "how many apples are left"
    filler = [f"question number {i}" for i in range(300)]
    held_out = [f"Now {phrase}?"]
    three = [f"case {i}: {phrase}" for i in "abc"]
    four = [*three, f"case d: {phrase}"]
    assert set(ngram_matches(three + filler[3:], held_out, n=5, common_share=0.01)) == {0, 1, 2}
    assert ngram_matches(four + filler[4:], held_out, n=5, common_share=0.01) == {}


def test_ngram_in_a_single_question_of_a_small_training_set_counts() -> None:
    """1% of two questions is less than one question; without a floor nothing would ever match."""
    assert ngram_matches(["a b c", "d e f"], ["x a b c"], n=3, common_share=0.01) == {0: 0}
