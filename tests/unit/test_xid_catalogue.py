"""The XID table against the facts it was made from, stated here a second time."""

import pytest

from catalogue.xid import XIDS, XidAction, XidClass, judge, xid, xid_reference

PAGES = {46, 48, 54, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 154, 157, 158, 165, 167, 168, 169}
PAGES |= set(range(144, 151))
TICKETS = {37, 38, 44, 61, 63, 66, 67, 78, 92, 94, 121, 122, 123, 124, 125, 151, 155, 156, 159, 160, 161, 163, 164}
COPY_ENGINES = {39, 40, 41, 70, 71, 72, 75, 76, 77, 85}
USERS = {8, 13, 31, 32, 43, 68, 69, 137} | COPY_ENGINES
INFOS = {45, 93, 162, 171, 172}


def test_the_table_has_every_number_once_and_no_other() -> None:
    assert set(XIDS) == PAGES | TICKETS | USERS | INFOS
    assert [entry.number for entry in XIDS.values()] == list(XIDS)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [(PAGES, XidClass.PAGE), (TICKETS, XidClass.TICKET), (USERS, XidClass.USER), (INFOS, XidClass.INFO)],
)
def test_every_number_has_its_class(numbers: set[int], expected: XidClass) -> None:
    assert {xid(number).xid_class for number in numbers} == {expected}


@pytest.mark.parametrize(
    ("action", "numbers"),
    [
        (XidAction.RESTART_APPLICATION, {8, 13, 31, 32, 68, 69, 94} | COPY_ENGINES),
        (XidAction.RESET_GPU, {46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 157, 158}),
        (XidAction.RESTART_NODE, {79}),
        (XidAction.RESTART_MACHINE, {151}),
        (XidAction.CHECK_POWER, {54}),
        (XidAction.UPDATE_SOFTWARE, {78}),
        (XidAction.FOLLOW_ECC, {48, 171, 172}),
        (XidAction.FOLLOW_LINK, {74} | set(range(144, 151))),
        (XidAction.FOLLOW_OTHERS, {45}),
        (XidAction.FOLLOW_DRIVER, {154}),
        (XidAction.NOT_STATED, {162, 163, 164, 165, 167, 168, 169}),
    ],
)
def test_every_number_has_its_action(action: XidAction, numbers: set[int]) -> None:
    assert {number for number, entry in XIDS.items() if entry.action is action} == numbers


def test_what_fails_the_vendors_health_check_pages() -> None:
    # DCGM's health watches fail on these whatever the subsystem, and warn on 94.
    assert {judge(number) for number in (48, 74, 79, 95, 119, 120, 140)} == {XidClass.PAGE}
    assert judge(94) is XidClass.TICKET


def test_copy_engine_errors_get_worse_by_repetition() -> None:
    assert {xid(number).repeated for number in COPY_ENGINES} == {XidClass.TICKET}
    assert {number for number, entry in XIDS.items() if entry.repeated} == COPY_ENGINES


@pytest.mark.parametrize("number", [0, 1, 166, 185, 999, 65535, 1 << 31])
def test_an_unlisted_number_is_a_ticket_and_names_itself(number: int) -> None:
    assert judge(number) is XidClass.TICKET
    assert str(number) in xid(number).meaning
    assert xid(number).number == number


def test_power_smoothing_that_is_back_takes_its_loss_back() -> None:
    assert xid(162).clears == (163,)


@pytest.mark.parametrize("number", range(144, 150))
def test_a_link_error_pages_unless_the_driver_calls_it_nonfatal(number: int) -> None:
    assert judge(number, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 03 (0x021425c6 0x00000000)") is XidClass.PAGE
    assert judge(number, "NETIR_BER_EVENT Nonfatal XC0 i0 Link 01 (0x00082226 0x00000001)") is XidClass.TICKET
    assert judge(number) is XidClass.PAGE


def test_the_link_engines_own_failure_is_always_fatal() -> None:
    assert judge(150, "MSE_WATCHDOG Nonfatal XC0") is XidClass.PAGE


def test_a_recovery_action_that_is_over_is_information() -> None:
    changed = "GPU recovery action changed from {} to {}"
    assert judge(154, changed.format("0x0 (None)", "0x1 (GPU Reset Required)")) is XidClass.PAGE
    assert judge(154, changed.format("0x1 (GPU Reset Required)", "0x0 (None)")) is XidClass.INFO
    assert judge(154) is XidClass.PAGE


def test_the_reference_page_lists_every_number_in_order() -> None:
    rows = [line for line in xid_reference().splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [int(row.split("|")[1]) for row in rows] == sorted(XIDS)
    assert all(row.count("|") == 6 for row in rows)
    assert "user, ticket if repeated" in rows[sorted(XIDS).index(39)]
