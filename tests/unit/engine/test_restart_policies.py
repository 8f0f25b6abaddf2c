from __future__ import annotations

import pytest

from proa.engine.restarts import LONGEST_PAUSE_S, check_policy, next_pause, shall_restart
from proa.engine.types import RestartPolicy, State
from proa.errors import Invalid


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        ("no", State(exit_code=1), False),
        ("", State(exit_code=1), False),
        ("always", State(exit_code=0), True),
        ("always", State(exit_code=0, manually_stopped=True), False),
        ("unless-stopped", State(exit_code=0), True),
        ("unless-stopped", State(exit_code=0, manually_stopped=True), False),
        ("on-failure", State(exit_code=0), False),
        ("on-failure", State(exit_code=137), True),
        ("on-failure", State(exit_code=1, manually_stopped=True), False),
    ],
)
def test_what_is_started_again(policy: str, state: State, expected: bool) -> None:
    assert shall_restart(RestartPolicy(name=policy), state) is expected


def test_a_limited_number_of_times() -> None:
    policy = RestartPolicy(name="on-failure", maximum_retry_count=2)
    assert [shall_restart(policy, State(exit_code=1, restart_count=n)) for n in range(4)] == [True, True, False, False]


def test_pauses_double_up_to_a_minute() -> None:
    pauses, pause = [], 0.0
    for _ in range(12):
        pause = next_pause(pause, ran_s=0.0)
        pauses.append(pause)
    assert pauses[:5] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert pauses[-2:] == [LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_one_that_ran_for_long_starts_at_the_first_pause_again() -> None:
    assert next_pause(51.2, ran_s=9.9) == 60.0
    assert next_pause(51.2, ran_s=10.0) == 0.1


@pytest.mark.parametrize(
    ("policy", "auto_remove", "words"),
    [
        (RestartPolicy(name="sometimes"), False, "unknown policy 'sometimes'"),
        (RestartPolicy(name="always", maximum_retry_count=3), False, "can only be used with 'on-failure'"),
        (RestartPolicy(name="on-failure", maximum_retry_count=-1), False, "cannot be negative"),
        (RestartPolicy(name="always"), True, "can't create 'AutoRemove' container with restart policy"),
    ],
)
def test_policies_that_cannot_be(policy: RestartPolicy, auto_remove: bool, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check_policy(policy, auto_remove=auto_remove)
