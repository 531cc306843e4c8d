"""``where``: no text runs code or ends in anything but rows or a message, and what is taken means what pandas means."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell.cells.where import Where
from causcell.cells.where_parser import DEEPEST
from causcell.errors import CausCellError, ConceptError

ROWS = 12
OBS = pd.DataFrame(
    {
        "stim": pd.Categorical(["ctrl", "IFN", None, "ctrl", "IFN ", "it's"] * 2),
        "level": pd.Categorical(["low", "high", "low", "mid"] * 3, categories=["low", "mid", "high"], ordered=True),
        "text": ["a", "b", "", "d", "a b", "B"] * 2,
        "dose": [0.0, 1.5, np.nan, 3.0, -2.0, 1e6] * 2,
        "count": np.arange(ROWS),
        "flag": [True, False, False] * 4,
        "two words": [1, 2, 3, 4] * 3,
    },
    index=[f"cell{i}" for i in range(ROWS)],
)
TEXT, NUMBERS, FLAGS = ("stim", "text"), ("dose", "count", "`two words`"), ("flag",)


def take(text: str) -> np.ndarray:
    return Where(text, OBS.columns).evaluate(OBS)


# -- what pandas means -------------------------------------------------------------------------------------------------

texts = st.sampled_from(["ctrl", "IFN", "IFN ", "a", "b", "", "it's", "nothing"]).map(repr)
numbers = st.one_of(st.integers(-3, 12), st.sampled_from([0.0, 1.5, -2.0, 1e6])).map(str)
equal, signs = st.sampled_from(["==", "!="]), st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def listed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, min_size=1, max_size=4).map(lambda each: f"[{', '.join(each)}]")


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(" ".join)


inside = st.sampled_from(["in", "not in"])
questions = st.one_of(
    joined(st.sampled_from(TEXT), equal, texts),
    joined(st.sampled_from(TEXT), inside, listed(texts)),
    joined(st.sampled_from(NUMBERS), signs, numbers),
    joined(numbers, signs, st.sampled_from(NUMBERS)),
    joined(numbers, st.just("<"), st.sampled_from(NUMBERS), st.just("<="), numbers),
    joined(st.sampled_from(NUMBERS), inside, listed(numbers)),
    joined(st.sampled_from(("dose", "count")), signs, st.sampled_from(("dose", "count"))),
    joined(st.just("level"), signs, st.sampled_from(["'low'", "'mid'", "'high'"])),
    joined(st.just("text"), signs, texts),
    st.sampled_from(["flag", "flag == True", "stim.isna()", "dose.notna()", "stim.isin(['ctrl', 'IFN'])"]),
    joined(st.just("index"), inside, st.just("['cell1', 'cell7', 'x']")),
)
conditions = st.recursive(
    questions,
    lambda part: st.one_of(
        joined(st.just("not"), part),
        part.map(lambda text: f"({text})"),
        part.map(lambda text: f"~({text})"),
        st.tuples(part, st.sampled_from([" and ", " or "]), part).map("".join),
        st.tuples(part, st.sampled_from([" & ", " | "]), part).map(lambda each: f"({each[0]}){each[1]}({each[2]})"),
    ),
    max_leaves=6,
)


@inputs(800)
@given(conditions)
@example("not stim == 'ctrl' and dose > 1 or flag")
@example("1 < dose <= 3")
def test_a_condition_means_what_pandas_means(text: str) -> None:
    with tried("where"):
        found = take(text)
        np.testing.assert_array_equal(found, np.asarray(OBS.eval(text, engine="python")), err_msg=text)
        assert found.dtype == bool


# -- whatever it is ----------------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        *("stim", "dose", "flag", "level", "`two words`", "`", "index", "nothing", "None", "nan", "True", "False"),
        *("==", "!=", "<", ">=", "=", "in", "not", "not in", "and", "or", "&", "|", "~", "(", ")", "[", "]", ",", "."),
        *(
            "'ctrl'",
            '"IFN"',
            "'",
            '"',
            "\\",
            "1",
            "1.5",
            "-",
            "+",
            "1e999",
            "9" * 400,
            "0x1",
            "@",
            "@os",
            ";",
            "#",
            "\n",
        ),
        *(
            ".isna()",
            ".isin(['ctrl'])",
            ".str",
            ".system('x')",
            "__import__('os')",
            "lambda",
            ":",
            "{",
            "}",
            "\0",
            "\ud800",
        ),
        *("é", "变量", "*", "**", "/", "%", "if", "else", "for", "await", "f'{dose}'", "b'x'", "...", "1j", "1_000"),
    ]
)


@inputs(1500)
@given(st.one_of(st.lists(pieces, max_size=12).map(" ".join), st.lists(pieces, max_size=8).map("".join), st.text()))
@example("(" * 2000)
@example("not " * 100_000 + "flag")
@example("flag" + " and flag" * 50_000)
@example("dose in [" + "1," * 100_000 + "1]")
@example("9" * 5000 + " < dose")
@example("dose < " + "9" * 200)
@example("count == " + "9" * 200)
@example("stim == '\\x41'")
@example("stim == '\\d'")
def test_any_text_is_rows_or_a_message(text: str) -> None:
    with tried("where"):
        found = take(text)
        assert (found.dtype, found.shape) == (bool, (ROWS,))


RUNS = [
    "@os.system('touch MARK')",
    "__import__('os').system('touch MARK') == 0",
    "@pd.eval(\"__import__('os').system('touch MARK')\")",
    "stim.map(@os.system)",
    "stim.str.replace('a', @f)",
    "stim.__class__.__mro__",
    "dose.to_csv('MARK').isna()",
    "index.to_series().to_csv('MARK')",
    "flag.apply(print)",
    "(flag := True)",
    "[flag for flag in open('MARK', 'w')]",
]


@pytest.mark.parametrize("text", RUNS)
def test_nothing_is_run_and_no_attribute_is_read(text: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with tried("where"), pytest.raises(ConceptError, match="can't be evaluated"):
        take(text)
    assert list(tmp_path.iterdir()) == []


def test_pandas_is_not_asked_to_evaluate(monkeypatch) -> None:
    def asked(*words: object, **options: object) -> None:
        raise AssertionError("pandas evaluates an expression")

    for name in ("eval", "query"):
        monkeypatch.setattr(pd.DataFrame, name, asked)
    assert take("stim == 'IFN' and not flag").sum() == 2


def test_it_is_read_in_a_moment() -> None:
    """A condition as long as a command line can be, in a process of its own, with its time bounded."""
    code = "import pandas as pd; from causcell.cells.where import Where; obs = pd.DataFrame({'a': [1]})"
    code += "; print(Where('a in [' + '1,' * 60000 + '2]', obs.columns).evaluate(obs))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert done.stdout == "[ True]\n", done.stderr


# -- beside pandas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stim == 3", "column 'stim' holds text and is compared with 3; write '3'"),
        ("dose == '3'", "column 'dose' holds numbers and is compared with '3'; write a number"),
        ("stim in ['ctrl', 1]", "column 'stim' holds text and is compared with 1"),
        ("flag == 'True'", "column 'flag' holds True and False and is compared with 'True'; write True or False"),
        ("stim > 'ctrl'", "the labels of column 'stim' have no order"),
        ("level > 'midd'", r"'midd' is none of the ordered labels of column 'level'; did you mean 'mid'\?"),
        ("stimm == 'ctrl'", r"there is no column 'stimm'; did you mean 'stim'\?"),
        ("dose == nan", r"COLUMN\.isna\(\)"),
        ("dose", "column 'dose' holds numbers"),
        ("dose = 3", "compare by =="),
        ("stim == dose", "column 'stim' holds text and column 'dose' numbers"),
        ("1 == 1", "names no column"),
    ],
)
def test_what_makes_no_sense_is_told(text: str, said: str) -> None:
    with pytest.raises(CausCellError, match=said):
        take(text)


@pytest.mark.parametrize("dtype", ["object", "string", "category"])
def test_missing_values_mean_the_same_in_every_type(dtype: str) -> None:
    obs = pd.DataFrame({"a": pd.Series(["x", None, "y"], dtype=dtype)})
    answers = {
        "a == 'x'": [True, False, False],
        "a != 'x'": [False, True, True],
        "not a == 'x'": [False, True, True],
        "a in ['x', 'y']": [True, False, True],
        "a not in ['x']": [False, True, True],
        "a.isna()": [False, True, False],
    }
    assert {text: Where(text, obs.columns).evaluate(obs).tolist() for text in answers} == answers


@pytest.mark.parametrize("values", [pd.array([1, None, 3], dtype="Int64"), [1.0, np.nan, 3.0]])
def test_missing_numbers_too(values) -> None:
    obs = pd.DataFrame({"a": values})
    assert Where("a > 1", obs.columns).evaluate(obs).tolist() == [False, False, True]
    assert Where("a != 1", obs.columns).evaluate(obs).tolist() == [False, True, True]


def test_labels_that_are_numbers_are_compared_as_numbers() -> None:
    obs = pd.DataFrame({"age": pd.Categorical([1.0, 35.0, 2.0])})
    assert Where("age == 35", obs.columns).evaluate(obs).tolist() == [False, True, False]
    assert Where("age > 1", obs.columns).evaluate(obs).tolist() == [False, True, True]


def test_it_may_be_nested_so_deep() -> None:
    assert take("(" * (DEEPEST - 1) + "flag" + ")" * (DEEPEST - 1)).sum() == 4
