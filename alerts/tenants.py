"""Who rents which racks and what was promised to them: a site's file, for the burn of each customer's own budget."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class TenantsError(ValueError):
    """The file of tenants cannot be used; the message says where and what to give."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer, the availability that was promised, and the racks by the names that alerts have as labels."""

    customer: Text
    objective: Annotated[float, msgspec.Meta(ge=0.5, lt=1)]
    racks: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: tuple[Tenant, ...] = ()


def load_tenants(file: Path) -> tuple[Tenant, ...]:
    """The tenants of a file; TenantsError with one sentence, also for a rack or a customer that is there twice."""
    try:
        found = msgspec.convert(tomllib.loads(file.read_text()), _File).tenant
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise TenantsError(f"file of tenants {file}: {error}") from error
    counted = Counter(rack for tenant in found for rack in tenant.racks)
    counted.update(f"customer {tenant.customer}" for tenant in found)
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        raise TenantsError(f"file of tenants {file}: {twice[0]} is in it twice; name it once")
    return found
