"""The rules of contracts that stand in one cell, as records."""

import itertools
import re
from dataclasses import dataclass

_TIER = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", re.ASCII)


class CreditTermsError(ValueError):
    """Credit tiers that cannot be meant so; the text goes on after the column's name."""


@dataclass(frozen=True, slots=True)
class CreditTier:
    """Below this availability of a month, this share of its price is credited; both in percent."""

    below_percent: float
    credit_percent: float


def parse_credit_tiers(text: str) -> tuple[CreditTier, ...]:
    """Tiers written as 99.5:10;99:25;95:100, from the best availability to the worst. Raises CreditTermsError.

    The lower the availability the higher the credit: anything else is a slip.
    """
    tiers = tuple(_tier(part) for part in text.split(";"))
    for better, worse in itertools.pairwise(tiers):
        if worse.below_percent >= better.below_percent or worse.credit_percent <= better.credit_percent:
            raise CreditTermsError(f"is {text!r}; each tier must have a lower availability and a higher credit")
    return tiers


def _tier(part: str) -> CreditTier:
    match = _TIER.fullmatch(part)
    if match is None:
        raise CreditTermsError(f"has the tier {part!r}; write it as 99.5:10")
    tier = CreditTier(float(match[1]), float(match[2]))
    if not 0 < tier.below_percent <= 100 or not 0 < tier.credit_percent <= 100:
        raise CreditTermsError(f"has the tier {part!r}; give percentages above 0 and up to 100")
    return tier
