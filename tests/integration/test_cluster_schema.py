"""The cluster form of the schema: parsed by the engine, and complete."""

import re
from contextlib import closing

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from kvandal.cli import main as command_line
from storage import schema
from storage.client import StoreAddress, StoreRefusedError, connect
from storage.cluster import ClusterError, ClusterForm, cluster_script, is_sharded, local_name
from storage.schema import Migration, migrations

TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")


def statements(script: str) -> list[str]:
    return Migration(0, "script", script).statements


def tables(script: str) -> set[str]:
    return set(TABLE.findall(script))


def parsed(client: Client, statement: str) -> str:
    """The statement as the engine understands it."""
    ((text,),) = client.query("SELECT formatQuery({text:String})", parameters={"text": statement}).result_rows
    return str(text)


def test_the_engine_parses_every_statement(database: StoreAddress) -> None:
    rendered = statements(cluster_script("site"))
    assert len(rendered) > 60
    with closing(connect(database)) as client:
        for statement in rendered:
            assert parsed(client, statement)


def test_a_statement_that_is_no_sql_would_be_found(database: StoreAddress) -> None:
    wrong = statements(cluster_script("site"))[1].replace("ENGINE =", "ENGIN =")
    with closing(connect(database)) as client, pytest.raises(DatabaseError, match="Syntax error"):
        parsed(client, wrong)


def test_every_table_and_view_of_the_migrations_is_there_under_its_own_name() -> None:
    single = "\n".join(migration.text for migration in migrations())
    script = cluster_script("site")
    named = re.compile(r"CREATE (?:TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS (\w+)")
    assert set(named.findall(single)) <= set(named.findall(script))
    assert {name for name in tables(single) if is_sharded(name)} == {
        name.removesuffix("_local") for name in tables(script) if name.endswith("_local")
    }
    assert is_sharded("gpu_1m")
    assert not is_sharded("inventory")


def test_every_engine_that_holds_rows_is_replicated_and_remembers_its_tokens() -> None:
    for statement in statements(cluster_script("site")):
        if not statement.startswith("CREATE TABLE"):
            continue
        assert " ON CLUSTER 'site'" in statement.splitlines()[0]
        assert "ENGINE = Replicated" in statement or "ENGINE = Distributed('site'" in statement
        assert "non_replicated_deduplication_window" not in statement


def test_a_rollup_is_filled_on_the_shard_where_its_rows_are() -> None:
    (view,) = [
        s
        for s in statements(cluster_script("site"))
        if s.startswith("CREATE MATERIALIZED VIEW IF NOT EXISTS gpu_to_1m ")
    ]
    assert "TO gpu_1m_local AS" in view
    assert "\nFROM gpu_local AS raw" in view


def test_what_is_not_understood_is_refused_rather_than_left_out() -> None:
    with pytest.raises(ClusterError, match="no cluster form is known of: OPTIMIZE"):
        ClusterForm("site").render(Migration(9, "odd", "OPTIMIZE TABLE gpu;\n"))
    with pytest.raises(ClusterError, match="cluster is 'a b'"):
        ClusterForm("a b")


def test_the_verb_prints_the_script() -> None:
    from click.testing import CliRunner

    ran = CliRunner().invoke(command_line, ["schema", "render", "--cluster", "site"])
    assert ran.exit_code == 0
    assert ran.output == cluster_script("site")


def test_an_upgrade_has_only_what_the_cluster_lacks() -> None:
    last = migrations()[-1]
    script = cluster_script("site", after=last.number - 1)
    assert script.count("-- 00") == 1
    assert f"-- {last.number:04} {last.name}" in script
    assert f"({last.number}, '{last.name}', '{last.checksum}')" in script
    with pytest.raises(ClusterError, match=f"no migration after {last.number:04}"):
        cluster_script("site", after=last.number)


def test_a_cluster_is_not_upgraded_as_if_it_were_one_server(database: StoreAddress) -> None:
    """Its statements would make tables on one replica alone."""
    last = migrations()[-1]
    with closing(connect(database)) as client:
        schema.apply(client)
        client.command(f"CREATE TABLE {schema.CLUSTER_MARK} AS gpu")
        assert schema.apply(client) == []  # nothing is missing: nothing to refuse
        client.command("TRUNCATE TABLE schema_migrations")
        older = [[m.number, m.name, m.checksum] for m in migrations()[:-1]]
        client.insert("schema_migrations", older, column_names=["number", "name", "checksum"])
        with pytest.raises(StoreRefusedError, match=f"--cluster NAME --after {last.number - 1}"):
            schema.apply(client)
    assert local_name("gpu") == schema.CLUSTER_MARK
