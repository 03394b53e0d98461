"""Reports against the truth, over simulated sites with faulty meters: the short form of benchmarks/report_truth.py."""

from typing import Any

import pytest

from benchmarks.report_truth import Errors, run

# Relative half widths (k = 2) that a figure keeps while it is measured: its class's limit and what combines with it.
WIDEST = {
    # Class 0.5S: 2 * 0.5 % / sqrt(3) = 0.58 %; and 2 * 20 % / sqrt(3) of the 1 % that may be estimated.
    "site_energy": 0.0063,
    "it_energy": 0.0063,
    "ipue": 0.009,  # sqrt(2) times that
    "peak_power": 0.0063,
    "heat_handed_over": 0.06,  # EN 1434 class 2 at some 10 K
    "heat_rejected": 0.06,
    "erf": 0.06,
    "ere": 0.075,  # of a difference, E_DC - E_reuse, which is a third to two thirds of E_DC
    "heat_available": 0.06,  # 1 % of flow, 0.14 K of 10 K, 0.5 % of the fluid, k = 2; and 1 % that may be missing
    "supply_temperature": 0.005,  # 0.2 K of 50 °C
    "return_temperature": 0.006,
}
SITES = 10
# Ten sites take half a minute of one core; the first test waits for all of them.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def told() -> Any:
    pytest.importorskip("CoolProp")
    return run(SITES)


def test_truth_lies_in_the_stated_interval(told: Any) -> None:
    # 95 % of some 120 figures, whose number that fails spreads by 2.4 (binomial): 88 % is three of those below.
    assert told["figures_compared"] > 100
    assert told["share_that_holds"] >= 0.88


def test_errors_within_the_limit_never_leave_the_interval_of_a_single_meter() -> None:
    # 2 g / sqrt(3) is more than g.
    found: Any = run(2, first_seed=500, errors=Errors.RECTANGULAR)
    for figure in ("site_energy", "heat_handed_over", "heat_rejected"):
        assert found["by_figure"][figure]["holds"] == 1.0


def test_energy_is_within_a_thousandth_of_what_ideal_registers_would_read(told: Any) -> None:
    assert told["energies"] == SITES * 7
    assert told["energy_off_at_most"] < 1e-3
    assert told["energies_beyond_what_is_estimated"] == 0
    assert told["injuries"]["resets"] > 0
    assert told["injuries"]["roll-overs"] > 0
    assert told["injuries"]["gaps"] > 0


def test_nothing_is_called_measured_of_which_less_than_99_percent_was_observed(told: Any) -> None:
    assert told["measured_below_99_percent"] == 0


@pytest.mark.parametrize("figure", sorted(WIDEST))
def test_measured_figure_keeps_its_width(told: Any, figure: str) -> None:
    assert not told["by_figure"][figure]["widest_measured"] > WIDEST[figure]


def test_no_balance_of_a_sound_site_is_unexplained(told: Any) -> None:
    verdicts = told["verdicts"]
    assert verdicts["holds within uncertainty"] > SITES * 4
    assert verdicts["residual unexplained"] <= 0.05 * sum(verdicts.values())
