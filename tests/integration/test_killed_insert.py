"""An insert that is killed between its deduplication token and its part is made good when it is replayed.

The moment is too short to be met by chance, so what it leaves behind is made by hand: the token in the log, and the
part under the name that it has while it is written.
"""

import time
from pathlib import Path

import numpy as np
import pytest

from catalogue import GPU
from storage import schema
from storage.client import connect
from storage.writer import Writer
from stream.rows import Rows
from tests.servers.stack import StoreServer, assert_minutes_agree, random_rows, stored_rows

DAY_S = time.time_ns() // 10**9 // 86_400 * 86_400 - 43_200  # noon of yesterday: one partition
TOKEN = "topic/0/0:5-9"  # noqa: S105 - of deduplication


def rows() -> Rows:
    times = np.repeat(np.arange(DAY_S, DAY_S + 90), 4)
    made = random_rows(GPU, np.tile(np.arange(4), 90), times, np.random.default_rng(5))
    return np.sort(made, order=["resource", "time"])


def insert(server: StoreServer) -> None:
    Writer(connect(server.address())).insert_rows("gpu", rows(), token=TOKEN)


def folder_of(server: StoreServer, table: str) -> Path:
    sql = "SELECT data_paths[1] FROM system.tables WHERE database = currentDatabase() AND name = {table:String}"
    return Path(str(connect(server.address()).query(sql, parameters={"table": table}).result_rows[0][0]))


def unname_part(folder: Path) -> None:
    (part,) = (child for child in folder.iterdir() if child.name.startswith("20"))
    part.rename(folder / f"tmp_insert_{part.name}")


def never_begun(folder: Path) -> None:
    unname_part(folder)
    (log,) = (folder / "deduplication_logs").iterdir()
    log.write_bytes(b"")


@pytest.mark.parametrize("killed_in", ["gpu", "gpu_1m"])
def test_what_was_killed_between_token_and_part_is_stored_by_its_replay(tmp_path: Path, killed_in: str) -> None:
    """In the table itself, when its rollup was not yet begun; or in the rollup, when the table had its rows."""
    with StoreServer.start(tmp_path / "store") as server:
        schema.apply(connect(server.address()))
        insert(server)
        folders = {name: folder_of(server, name) for name in ("gpu", "gpu_1m")}
        server.process.kill()
        server.process.wait()
        unname_part(folders[killed_in])
        if killed_in == "gpu":
            never_begun(folders["gpu_1m"])
        server.kill_and_restart()

        insert(server)

        store = connect(server.address())
        np.testing.assert_array_equal(stored_rows(store, GPU), rows())
        assert_minutes_agree(store, GPU)


def test_what_was_not_killed_there_is_still_dropped_when_it_is_replayed(tmp_path: Path) -> None:
    with StoreServer.start(tmp_path / "store") as server:
        schema.apply(connect(server.address()))
        insert(server)
        server.kill_and_restart()
        insert(server)
        store = connect(server.address())
        np.testing.assert_array_equal(stored_rows(store, GPU), rows())
        assert_minutes_agree(store, GPU)
