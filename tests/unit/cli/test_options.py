from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proa.cli.options import Command, Options, Settings, UsageError, parse, take_globals

if TYPE_CHECKING:
    from proa.cli.options import Row

ROWS: tuple[Row, ...] = (
    ("env", "e", "list", "list", "Set environment variables"),
    ("interactive", "i", "flag", "", "Keep stdin open"),
    ("name", "", "text", "string", "Name"),
    ("publish", "p", "list", "list", "Ports"),
    ("tail", "n", "int", "int", "Lines"),
    ("tty", "t", "flag", "", "Terminal"),
)


def given(*arguments: str, interspersed: bool = True) -> tuple[Options, list[str]]:
    options, words = parse(ROWS, list(arguments), interspersed=interspersed)
    assert options is not None
    return options, words


@pytest.mark.parametrize("arguments", [("--name", "x"), ("--name=x",)])
def test_a_value_follows_or_is_joined(arguments: tuple[str, ...]) -> None:
    assert given(*arguments)[0].text("name") == "x"


@pytest.mark.parametrize("arguments", [("-eK=V",), ("-e", "K=V"), ("-e=K=V",), ("--env=K=V",)])
def test_short_values(arguments: tuple[str, ...]) -> None:
    assert given(*arguments)[0].texts("env") == ["K=V"]


def test_flags_cluster_and_the_last_may_take_a_value() -> None:
    options, words = given("-itp", "80:80", "image")
    assert options.flag("interactive")
    assert options.flag("tty")
    assert options.texts("publish") == ["80:80"]
    assert words == ["image"]


def test_flags_can_be_switched_off() -> None:
    assert not given("--tty=false")[0].flag("tty", default=True)
    assert given()[0].flag("tty", default=True)
    with pytest.raises(UsageError, match="not true or false"):
        given("--tty=maybe")


def test_options_stop_at_the_first_word_of_commands_that_run_another() -> None:
    options, words = given("-t", "image", "sh", "-c", "x", interspersed=False)
    assert options.flag("tty")
    assert words == ["image", "sh", "-c", "x"]
    options, words = given("a", "-t", "b")
    assert options.flag("tty")
    assert words == ["a", "b"]


def test_two_dashes_end_options_and_one_dash_is_a_word() -> None:
    assert given("--", "-t")[1] == ["-t"]
    assert given("-", "--tty")[1] == ["-"]
    assert given("--", "image", "--", "-t", interspersed=False)[1] == ["image", "--", "-t"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--nope",), "unknown flag: --nope"),
        (("-x",), "unknown shorthand flag: 'x' in -x"),
        (("-tx",), "unknown shorthand flag: 'x' in -tx"),
        (("--name",), "flag needs an argument: --name"),
        (("-e",), "flag needs an argument: 'e' in -e"),
        (("-n", "many"), "not a whole number"),
        (("--tail=1_0",), "not a whole number"),
        (("--tail=\u0661",), "not a whole number"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("[", r"\[")):
        given(*arguments)


def test_help_wins_wherever_it_stands() -> None:
    assert parse(ROWS, ["a", "--help"])[0] is None
    assert parse(ROWS, ["-h"])[0] is None
    assert parse(ROWS, ["a", "--help"], interspersed=False)[0] is not None


def test_reading_an_option_that_is_no_row_is_a_mistake_of_ours() -> None:
    options, _ = given()
    with pytest.raises(KeyError):
        options.flag("nope")
    with pytest.raises(KeyError):
        options.given("nope")
    with pytest.raises(TypeError):
        options.text("tty")


def test_globals_come_before_the_command() -> None:
    settings, rest = take_globals(["-H", "unix:///x", "-D", "ps", "-a"])
    assert (settings.host, settings.debug, rest) == ("unix:///x", True, ["ps", "-a"])
    assert take_globals(["ps", "-a"])[1] == ["ps", "-a"]


@pytest.mark.parametrize(
    ("least", "most", "words", "text"),
    [(1, -1, [], "requires at least 1 argument"), (2, 2, ["a"], "requires 2 arguments"), (0, 0, ["a"], "accepts no")],
)
def test_the_number_of_words_is_checked(least: int, most: int, words: list[str], text: str) -> None:
    command = Command("X", "Summary", ROWS, lambda *_: 0, least=least, most=most)
    with pytest.raises(UsageError, match=text):
        command.call(Settings(), "thing", words)
