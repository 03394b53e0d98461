"""How long each tier is kept."""

from collections.abc import Mapping

from clickhouse_connect.driver.client import Client

from storage.client import store_errors


def keep_days(client: Client, days: Mapping[str, int]) -> None:
    """Change for how many days the named tables keep their rows, by the rows' own time.

    Rows that are older than the TTL vanish the moment they are inserted: lengthen it before a backfill.
    """
    for name, kept in days.items():
        with store_errors(f"changing the retention of {name}"):
            # materialize_ttl_after_modify=0: what is stored already is judged at its next merge.
            client.command(
                f"ALTER TABLE `{name}` MODIFY TTL time + INTERVAL {int(kept)} DAY DELETE",
                settings={"materialize_ttl_after_modify": 0},
            )
