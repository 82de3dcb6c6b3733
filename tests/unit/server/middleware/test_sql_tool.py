"""sql_tool: what a model can read of a real file, and that it can do nothing else."""

import asyncio
import json
import os
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from turnwire_server.domain.tool import Tool, ToolCall, ToolPlacement
from turnwire_server.middleware.sql_process import VALUE_BYTES_MAX
from turnwire_server.middleware.sql_schema import SCHEMA_BYTES_MAX, read_schema
from turnwire_server.middleware.sql_tool import SqlTool, SqlToolSettings
from turnwire_server.tools.base import Invocation, ToolFailure
from unit.server.middleware.stage import Play, engine_call

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

# Each level doubles what SQLite has to prepare, and it cannot be interrupted there.
EXPLODING = (
    "WITH a0 AS (SELECT 1 x)"
    + "".join(f", a{i} AS (SELECT u.x FROM a{i - 1} u, a{i - 1} v)" for i in range(1, 60))
    + " SELECT count(*) FROM a59"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with a table of three rows."""
    path = tmp_path / "shop #1?.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE goods (id INTEGER PRIMARY KEY, name TEXT, price REAL, picture BLOB);
            INSERT INTO goods VALUES (1, 'pear', 0.5, x'00ff'), (2, 'grüße', NULL, NULL);
            INSERT INTO goods VALUES (3, 'plum', 9e999, zeroblob(5));
            CREATE VIEW cheap AS SELECT name FROM goods WHERE price < 1;
            CREATE VIRTUAL TABLE words USING fts5(word);
            INSERT INTO words VALUES ('hello world');
            CREATE TABLE audit (what TEXT);
            CREATE TRIGGER watch AFTER DELETE ON goods BEGIN INSERT INTO audit VALUES (old.name); END;
            """
        )
        connection.commit()
    return path


@pytest.fixture
def content(path: Path) -> Iterator[None]:
    """Check that a test leaves the file as it was, and no other file beside it."""
    before = path.read_bytes()
    yield
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def sql_tool(path: Path, **settings: Any) -> SqlTool:
    return SqlTool(SqlToolSettings(path=path, **settings))


async def ask(tool: SqlTool, sql: str, *params: object) -> dict[str, Any]:
    args = json.dumps({"sql": sql, "params": params} if params else {"sql": sql})
    result = await tool.tools[0].run(Invocation("s", "i", ToolCall("c", "sql_query", args)))
    answer: dict[str, Any] = json.loads(result)
    assert list(answer) == ["columns", "rows", "row_count", "truncated"]
    assert answer["row_count"] == len(answer["rows"])
    return answer


async def refusal(tool: SqlTool, sql: str, *params: object) -> ToolFailure:
    with pytest.raises(ToolFailure) as raised:
        await ask(tool, sql, *params)
    return raised.value


async def test_values_of_all_kinds(path: Path, content: None) -> None:
    answer = await ask(sql_tool(path), "SELECT * FROM goods ORDER BY id")
    assert answer == {
        "columns": ["id", "name", "price", "picture"],
        "rows": [
            [1, "pear", 0.5, {"base64": "AP8=", "byte_count": 2}],
            [2, "grüße", None, None],
            [3, "plum", "inf", {"base64": "AAAAAAA=", "byte_count": 5}],
        ],
        "row_count": 3,
        "truncated": False,
    }


async def test_parameters(path: Path) -> None:
    sql = "SELECT typeof(?), typeof(?), typeof(?), typeof(?), name FROM goods WHERE name = ?"
    answer = await ask(sql_tool(path), sql, 1, 1.5, True, None, "grüße")
    assert answer["rows"] == [["integer", "real", "integer", "null", "grüße"]]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT name FROM cheap", [["pear"]]),
        ("SELECT word FROM words WHERE words MATCH 'hello'", [["hello world"]]),
        ("SELECT value FROM json_each('[1,2]')", [[1], [2]]),
        ("VALUES (1), (2);", [[1], [2]]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT * FROM n", [[1], [2], [3]]),
        ("SELECT CAST(x'ff41' AS TEXT)", [["\ufffdA"]]),
        ("SELECT 9223372036854775807", [[9223372036854775807]]),
        ("SELECT name FROM goods WHERE id > 10", []),
    ],
)
async def test_all_that_reads_is_allowed(path: Path, content: None, sql: str, rows: list[list[object]]) -> None:
    assert (await ask(sql_tool(path), sql))["rows"] == rows


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM goods",
        "DELETE FROM goods RETURNING id",
        "UPDATE goods SET name = 'x'",
        "WITH x AS (SELECT 9) INSERT INTO goods (id) SELECT * FROM x",
        "REPLACE INTO goods (id) VALUES (1)",
        "UPDATE sqlite_master SET sql = ''",
        "UPDATE sqlite_schema SET sql = '' WHERE type = 'table'",
        "DROP TABLE goods",
        "DROP TRIGGER watch",
        "ALTER TABLE goods ADD COLUMN x",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x (y)",
        "CREATE TEMP VIEW x AS SELECT 1",
        "CREATE TEMP TRIGGER x AFTER DELETE ON goods BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE x USING fts5(y)",
        "INSERT INTO words (words) VALUES ('rebuild')",
        "ATTACH ':memory:' AS x",
        "ATTACH 'file:other.db?mode=rwc' AS x",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "REINDEX",
        "ANALYZE",
        "BEGIN EXCLUSIVE",
        "SAVEPOINT x",
        "ROLLBACK",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 3",
        "PRAGMA page_size = 512",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "SELECT * FROM pragma_user_version",
        "SELECT load_extension('libc')",
        "SELECT LOAD_EXTENSION('libc', 'main')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT writefile('x', 'y')",
        "SELECT 1; DELETE FROM goods",
        "EXPLAIN DELETE FROM goods",
    ],
)
async def test_nothing_else_is(path: Path, content: None, sql: str) -> None:
    failure = await refusal(sql_tool(path), sql)
    assert (failure.code, bool(failure.message)) == ("failed", True)


@pytest.mark.parametrize(
    ("sql", "params", "message"),
    [
        ("SELECT * FROM nowhere", [], "no such table: nowhere"),
        ("SELEC", [], "syntax error"),
        ("", [], "no statement"),
        ("-- nothing", [], "no statement"),
        ("SELECT ?", [], "binding"),
        ("SELECT ?", [2**70], "too large"),
        ("SELECT '\0'", [], "null character"),
        ("SELECT x", ["unused"], "no such column"),
    ],
)
async def test_what_is_wrong_is_said_in_the_words_of_sqlite(
    path: Path, sql: str, params: list[object], message: str
) -> None:
    assert message in (await refusal(sql_tool(path), sql, *params)).message


@pytest.mark.parametrize(
    "args", ["", "{}", "[]", '{"sql": 1}', '{"sql": "SELECT 1", "more": 1}', '{"sql": "\\ud800"}', "{"]
)
async def test_arguments_are_checked(path: Path, args: str) -> None:
    with pytest.raises(ToolFailure) as raised:
        await sql_tool(path).tools[0].run(Invocation("s", "i", ToolCall("c", "sql_query", args)))
    assert raised.value.code == "invalid_args"


async def test_rows_are_limited(path: Path) -> None:
    tool = sql_tool(path, rows_max=2)
    answer = await ask(tool, "SELECT id FROM goods ORDER BY id")
    assert (answer["rows"], answer["truncated"]) == ([[1], [2]], True)
    assert not (await ask(tool, "SELECT id FROM goods ORDER BY id LIMIT 2"))["truncated"]


async def test_cells_are_cut(path: Path) -> None:
    tool = sql_tool(path, cell_bytes_max=16)
    answer = await ask(tool, "SELECT ?, ?, zeroblob(100), zeroblob(12)", "ü" * 8, "x" + "ü" * 8)
    [[whole, cut, blob, small]] = answer["rows"]
    assert (whole, cut) == ("ü" * 8, "x" + "ü" * 7 + "…")
    assert blob == {"base64": b64encode(bytes(12)).decode(), "byte_count": 100}
    assert small["byte_count"] == 12
    assert answer["truncated"]


@pytest.mark.parametrize("text", ["x", "ü", '"', "\n"])
async def test_result_is_limited_as_a_whole(path: Path, text: str) -> None:
    tool = sql_tool(path, bytes_max=4096, rows_max=10_000)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT ? AS c FROM n"
    args = json.dumps({"sql": numbers, "params": [text * 20]})
    result = await tool.tools[0].run(Invocation("s", "i", ToolCall("c", "sql_query", args)))
    assert 3500 < len(result.encode()) <= 4096
    assert json.loads(result)["truncated"]


async def test_names_of_columns_are_part_of_the_result(path: Path) -> None:
    assert (
        "names of the columns" in (await refusal(sql_tool(path, bytes_max=1024), f'SELECT 1 AS "{"x" * 2000}"')).message
    )


@pytest.mark.parametrize(
    "sql", [ENDLESS, EXPLODING, f"SELECT * FROM ({ENDLESS}) ORDER BY 1"], ids=["rows", "plan", "sort"]
)
async def test_time_is_limited(path: Path, content: None, sql: str) -> None:
    failure = await refusal(sql_tool(path, seconds_max=0.3), sql)
    assert (failure.code, failure.message) == ("timeout", "the query took longer than 0.3 s")


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT zeroblob({VALUE_BYTES_MAX + 1})",
        f"SELECT length(randomblob({VALUE_BYTES_MAX + 1}))",
        f"SELECT length(hex(zeroblob({VALUE_BYTES_MAX})))",
        "WITH n AS (VALUES (1), (2), (3), (4), (5)) SELECT group_concat(hex(zeroblob(999999))) FROM n, n b, n c",
        "SELECT " + ", ".join(["randomblob(16000000)"] * 100),
    ],
    ids=["zeroblob", "randomblob", "hex", "group_concat", "many"],
)
async def test_memory_is_limited(path: Path, content: None, sql: str) -> None:
    failure = await refusal(sql_tool(path), sql)
    assert "too big" in failure.message or "memory" in failure.message


async def test_temporary_files_are_limited(path: Path) -> None:
    sql = (
        "WITH RECURSIVE n(i, x) AS (SELECT 1, randomblob(500000) UNION ALL SELECT i + 1, randomblob(500000) FROM n)"
        " SELECT count(*) FROM (SELECT DISTINCT x FROM n)"
    )
    failure = await refusal(sql_tool(path), sql)
    assert failure.code == "failed"
    assert "disk" in failure.message or "full" in failure.message


async def test_cancelled_query_is_gone(path: Path, content: None) -> None:
    tool = sql_tool(path)
    task = asyncio.create_task(ask(tool, EXPLODING))
    child = await query_on(path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert child not in children()
    assert (await ask(tool, "SELECT 1"))["rows"] == [[1]]


def children() -> set[str]:
    """Return the processes of this one, whichever thread started them."""
    return {child for each in Path("/proc/self/task").glob("*/children") for child in each.read_text().split()}


def reads(child: str, path: Path) -> bool:
    """Whether a process has a file open."""
    with suppress(FileNotFoundError):  # it opens and closes others meanwhile
        return any(entry.readlink() == path for entry in Path(f"/proc/{child}/fd").iterdir())
    return False


async def query_on(path: Path) -> str:
    """Return the process that reads the file, once one does."""
    while not (found := [child for child in children() if reads(child, path)]):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    return found[0]


async def test_closing_ends_the_queries(path: Path) -> None:
    tool = sql_tool(path)
    task = asyncio.create_task(refusal(tool, ENDLESS))
    await query_on(path)
    await tool.aclose()
    assert "SIGKILL" in (await task).message
    assert "closed" in (await refusal(tool, "SELECT 1")).message


async def test_query_does_not_hear_what_the_terminal_tells_the_server(path: Path) -> None:
    tool = sql_tool(path)
    task = asyncio.create_task(refusal(tool, ENDLESS))
    child = await query_on(path)
    assert os.getpgid(int(child)) != os.getpgid(0)
    await tool.aclose()
    await task


async def test_queries_wait_for_their_turn(path: Path) -> None:
    tool = sql_tool(path)
    answers = await asyncio.gather(*(ask(tool, "SELECT ?", number) for number in range(10)))
    assert [answer["rows"] for answer in answers] == [[[number]] for number in range(10)]


async def test_writer_at_work_is_seen_and_not_disturbed(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        tool = sql_tool(path)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO goods (id) VALUES (4)")
        assert (await ask(tool, "SELECT count(*) FROM goods"))["rows"] == [[3]]
        writer.execute("COMMIT")
        assert (await ask(tool, "SELECT count(*) FROM goods"))["rows"] == [[4]]
        assert (await refusal(tool, "DELETE FROM goods")).message == "not authorized"


async def test_file_that_a_writer_keeps_to_itself(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        tool = sql_tool(path)
        writer.execute("BEGIN EXCLUSIVE")
        assert (await refusal(tool, "SELECT * FROM goods")).message == "database is locked"
        with capture_logs() as lines:
            assert "goods(" in await shown_description(tool)
        assert [line["log_level"] for line in lines] == ["warning"]


async def test_file_that_is_gone(path: Path) -> None:
    tool = sql_tool(path)
    path.rename(path.with_name("moved.db"))  # noqa: ASYNC240
    assert "unable to open" in (await refusal(tool, "SELECT 1")).message
    assert [entry.name for entry in path.parent.iterdir()] == ["moved.db"]


def test_file_has_to_be_there_and_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path: there is no file"):
        sql_tool(tmp_path / "none.db")
    other = tmp_path / "other.db"
    other.write_text("this is a text, and not a database of any kind" * 100)
    with pytest.raises(ValueError, match=r"other.db cannot be read: file is not a database"):
        sql_tool(other)
    assert not (tmp_path / "none.db").exists()


def test_definition(path: Path) -> None:
    [tool] = sql_tool(path, name="shop", description="The shop.", seconds_max=5).tools
    definition = tool.definition
    assert (definition.tool.name, definition.tool.placement) == ("shop", ToolPlacement.SERVER)
    assert definition.is_idempotent
    assert definition.timeout_seconds is not None
    assert definition.timeout_seconds > 5
    schema = json.loads(definition.tool.input_schema)
    assert (schema["required"], set(schema["properties"])) == (["sql"], {"sql", "params"})
    assert definition.tool.description.startswith("The shop.")
    assert definition.tool.description.endswith(
        "audit(what TEXT)\ncheap(name TEXT)\ngoods(id INTEGER, name TEXT, price REAL, picture BLOB)\nwords(word)"
    )


async def shown_description(tool: SqlTool) -> str:
    play = Play()
    offered = (Tool("other", "unchanged"), tool.tools[0].definition.tool)
    await play.run(tool, engine_call(tools=offered))
    other, shown = play.seen[0].tools
    assert other == offered[0]
    return shown.description


async def test_engine_sees_the_tables_as_they_are(path: Path) -> None:
    tool = sql_tool(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE later (x)")
        connection.execute("CREATE VIEW broken AS SELECT * FROM nowhere")
    description = await shown_description(tool)
    assert "later(x)" in description
    assert "broken()" in description


async def test_view_that_cannot_be_prepared_keeps_nobody(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE VIEW bad AS {EXPLODING}")
    before = children()
    with capture_logs() as lines:
        tool = SqlTool(SqlToolSettings(path=path), partial(read_schema, seconds_max=0.3))
    assert children() == before
    assert [line["log_level"] for line in lines] == ["warning"]
    told = tool.tools[0].definition.tool.description
    assert "the schema could not be read: SELECT name, sql FROM sqlite_schema tells it" in told
    assert await shown_description(tool) == told
    assert ["bad"] in (await ask(tool, "SELECT name FROM sqlite_schema"))["rows"]


async def test_view_that_cannot_be_prepared_comes_and_goes(path: Path) -> None:
    tool = SqlTool(SqlToolSettings(path=path), partial(read_schema, seconds_max=2))
    before = children()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE VIEW bad AS {EXPLODING}")
        assert "could not be read" in await shown_description(tool)
        assert children() == before
        connection.execute("DROP VIEW bad")
    assert "goods(" in await shown_description(tool)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_schema_is_read_again_only_when_it_is_another(path: Path, mode: str) -> None:
    reads: list[Path] = []

    def read(path: Path) -> str:
        reads.append(path)
        return read_schema(path)

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        tool = SqlTool(SqlToolSettings(path=path), read)
        connection.execute("INSERT INTO goods (id) VALUES (4)")
        await asyncio.gather(*(shown_description(tool) for _ in range(3)))
        assert len(reads) == 1
        connection.execute("CREATE TABLE later (x)")
        shown = await asyncio.gather(*(shown_description(tool) for _ in range(3)))
        assert all("later(x)" in each for each in shown)
        assert len(reads) == 2


async def test_another_file_with_the_same_version_is_read(path: Path) -> None:
    other = path.with_name("other.db")
    for each, table in ((path, "one"), (other, "two")):
        each.unlink(missing_ok=True)
        with closing(sqlite3.connect(each)) as connection:
            connection.execute(f"CREATE TABLE {table} (x)")
    tool = sql_tool(path)
    other.replace(path)
    assert "two(x)" in await shown_description(tool)


async def test_tool_that_is_not_offered_stays_so(path: Path) -> None:
    play = Play()
    await play.run(sql_tool(path), engine_call(tools=[Tool("other")]))
    assert play.seen[0].tools == (Tool("other"),)


def test_large_schema_is_cut(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        tables = (f"CREATE TABLE table{number:03} (column_with_a_name TEXT);" for number in range(700))
        connection.executescript(f"BEGIN; {' '.join(tables)} COMMIT;")
    description = sql_tool(path).tools[0].definition.tool.description
    assert "table100(" in description
    assert "more: SELECT name, sql FROM sqlite_schema" in description
    assert len(description.encode()) < SCHEMA_BYTES_MAX + 1024
