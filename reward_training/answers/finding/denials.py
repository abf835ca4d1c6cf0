"""Phrases with which a text denies, doubts or takes back an answer.

A pattern's anchors say where it is searched: those that end with `$` in the text before an answer, those that begin
with `^` in the text after it, the others in a sentence or between two answers.
"""

from __future__ import annotations

import re

NEAR = 200
"""number of characters before and after an answer that are searched for these phrases"""

TAKEN_BACK = re.compile(
    r"\b(?:scratch that|(?:take|took) (?:that|it|this) back|(?:disregard|ignore|forget) (?:that|this|it|my)|i miscounted|no longer sure|"
    r"not sure any ?more|(?:that|this|which) (?:is|was) (?:wrong|incorrect|not right))\b",
    re.IGNORECASE,
)
"""in a sentence without a number: what was said before does not hold"""
DENIED_AFTER = re.compile(
    r"^\s*(?:(?:is|was|are|were|be|can|could|would|will|does|did|has)\s*(?:not\b|n't|never\b)|cannot\b|"
    r"(?:is|was|are|were|must be|has to be)\s+(?:wrong|incorrect|false|too (?:low|high|much|many|few|small|large|big)|no longer)\b)",
    re.IGNORECASE,
)
"""after an answer: it is not, or it is wrong"""
DENIED_VERB = re.compile(
    r"\b(?:did|does|do|was|were|is|are)\s*(?:not|n't)(?:\s+(?!and\b|but\b|so\b|because\b|only\b)[a-z]+){0,3}\s*$",
    re.IGNORECASE,
)
"""before an answer: something was not done, with at most three words between"""
DENIES = re.compile(
    r"(?:\bnot|n't|\bnever|\brather than|\binstead of|\bthan|≠|!=|\bneither|\bnor|\bwithout|\bbut not|\bcannot be|\bexcept|\bunlike|\bover|\bunder|\bnearly|\balmost)(?:\s+(?:be|the|a|an|it's|it is|is|exactly|even|equal to|only))*(?:\s+\\?[a-z]\s*(?:=|is|equals))?\s*$",
    re.IGNORECASE,
)
"""right before an answer: not, rather than, less than"""
DOUBTS = re.compile(
    r"n't (?:think|believe|say|know)|\b(?:doubt|no way|not sure|(?:wrong|false|incorrect|an error|a mistake) (?:to|that)|hardly|deny|denies)\b",
    re.IGNORECASE,
)
"""anywhere before a number in its sentence"""
WITHDRAWN = re.compile(
    r"\b(?:(?<!to )wait|oops|scratch that|i (?:was|am) wrong|(?:that|this|it)(?:'s| is| was) (?:wrong|incorrect|not right|a mistake)|i (?:made (?:a|an|another) |slipped)|"
    r"no,? (?:no\b|it|that)|(?:actually|hmm),? (?:no\b|it(?:'s| is| was| should| must)|that(?:'s| is| was) (?:wrong|not|incorrect))|it (?:must|should) be(?=[\s:]*[-$\\(]*\d|[\s:]*\\boxed)|correction(?!:? (?:none|not|is not|no\b))|instead it is|not correct)\b",
    re.IGNORECASE,
)
"""after an answer, or between two: the writer corrects what stands before"""
SAID_TO_BE_FALSE = re.compile(
    r"\b(?:false|untrue|not true|wrong|incorrect|not the case)\s+(?:that|to (?:say|claim|think|believe)(?: that)?)\b[^.!?,;:\n]*$",
    re.IGNORECASE,
)
"""before a place for an answer: it is false that ..."""
DOUBTED = re.compile(
    r"(?:\b|(?=n['\u2019]t))(?:no way|doubt|not true|wrong that|n['\u2019]t (?:think|believe|say|know)|not (?:think|believe|sure)|cannot|can't|deny|never|unless|whether|if|suppose|"
    r"hope|pretend|claims?|assume|want me to|end with|say(?:ing)?|write)\b[^.!?\n]*$",
    re.IGNORECASE,
)
"""before a phrase such as `the answer is`, which is then doubted, supposed, or only spoken of"""
