import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, {0: 3, 1000: 3}),
        ([500.0, 1000.0, 400], {0: 500, 200: 750, 400: 1000, 900: 1000}),
        ([100, 500.0, 1000.0, 400], {0: 500, 100: 500, 250: 750, 400: 1000, 401: 1000}),
        # threestudio's own list of the recipe, values worked out by hand
        ([100, 7.0, 5.0, 150, 10.0, 200], {0: 7, 100: 7, 125: 6, 150: 5, 175: 7.5, 200: 10, 600: 10}),
        ({0: 1, 10: 2, 30: 0}, {0: 1, 5: 1.5, 10: 2, 20: 1, 30: 0, 99: 0}),
        ({"10": 2.0}, {0: 2, 50: 2}),
    ],
)
def test_values_at_steps(value, expected):
    schedule = Schedule(value)
    assert {step: schedule(step) for step in expected} == pytest.approx(expected)


def test_extremes_describe_the_whole_schedule():
    schedule = Schedule([100, 7.0, 5.0, 150, 10.0, 200])
    assert (schedule.max, schedule.min, schedule.is_zero, schedule.is_constant) == (10, 5, False, False)
    assert Schedule([0, 0.0, 0.0, 5]).is_zero


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, 6, 7],
        [],
        {},
        "much",
        None,
        True,
        [50, 0.7, 0.3, 200.0],
        [200, 1, 2, 100],
        float("nan"),
        {-1: 2},
    ],
)
def test_malformed_schedules_name_their_key(value):
    with pytest.raises(ConfigError, match=r"loss\.lambda_x"):
        Schedule(value, key="loss.lambda_x")


@given(
    start=st.integers(0, 1000),
    length=st.integers(1, 1000),
    v0=st.floats(-1e3, 1e3),
    v1=st.floats(-1e3, 1e3),
    step=st.integers(0, 3000),
)
def test_never_leaves_the_range_of_its_points(start, length, v0, v1, step):
    value = Schedule([start, v0, v1, start + length])(step)
    assert min(v0, v1) - 1e-9 <= value <= max(v0, v1) + 1e-9
