"""What is published about registers (JSON Schemas, guide, templates) says what the import does."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from kvandal.render import ROOT
from reports.registers_import.documents import registers_guide, template
from reports.registers_import.problems import RegisterFileError
from reports.registers_import.rows import read_rows
from reports.registers_import.schemas import json_schema, row_problems, schema_file, schema_text
from storage.register_kinds import DECLARATIONS, PROVENANCE, WITHDRAWN, CellKind, RegisterKind

KINDS = pytest.mark.parametrize("kind", RegisterKind)
GUIDE = Path("docs/guides/registers.md")


@KINDS
def test_every_register_is_declared_once_under_its_own_name(kind: RegisterKind) -> None:
    declaration = DECLARATIONS[kind]
    names = [column.name for column in declaration.all_columns]
    assert declaration.kind is kind
    assert len(set(names)) == len(names)
    assert not set(names) & set(PROVENANCE)
    told = {*declaration.key, *(name for pair in declaration.ordered for name in pair)}
    told |= {name for condition in declaration.conditions for name in (condition.column, *condition.needs)}
    assert told <= set(names)


@KINDS
def test_what_rows_are_told_apart_by_is_in_every_row_or_may_be_left_out_on_purpose(kind: RegisterKind) -> None:
    optional = {name for name in DECLARATIONS[kind].key if not DECLARATIONS[kind].column(name).required}
    assert optional == ({"zone"} if kind is RegisterKind.EMISSION_FACTORS else set())


@KINDS
def test_rows_that_must_not_overlap_are_told_apart_by_their_begin(kind: RegisterKind) -> None:
    """Or a correction that moved a row could leave the earlier one standing beside it, out of sight."""
    declaration = DECLARATIONS[kind]
    if declaration.span is not None:
        assert {declaration.span.start, *declaration.span.alike} == set(declaration.key)
        assert bool(declaration.span.end) != bool(declaration.span.minutes)


@KINDS
def test_the_committed_schema_is_what_the_declaration_renders(kind: RegisterKind) -> None:
    assert (ROOT / schema_file(kind)).read_text() == schema_text(kind)


@KINDS
def test_the_schema_is_json_schema_and_says_that_it_is_generated(kind: RegisterKind) -> None:
    schema = json.loads(schema_text(kind))
    Draft202012Validator.check_schema(schema)
    assert "Generated" in schema_text(kind).splitlines()[1]


@KINDS
def test_a_template_can_be_imported_as_it_is(kind: RegisterKind) -> None:
    (row,) = read_rows("template.csv", template(kind).encode(), kind)
    assert list(row_problems(kind, json.loads(row.text))) == []
    assert Draft202012Validator(json_schema(DECLARATIONS[kind])).is_valid(json.loads(row.text))


@KINDS
def test_every_cell_that_must_be_there_is_missed(kind: RegisterKind) -> None:
    header, example = template(kind).splitlines()
    names = header.split(",")
    cells = example.split(",")
    for column in DECLARATIONS[kind].columns:
        if column.required:
            place = names.index(column.name)
            line = ",".join([*cells[:place], "", *cells[place + 1 :]])
            with pytest.raises(RegisterFileError, match=f"line 2: {column.name} is empty"):
                read_rows("file.csv", f"{header}\n{line}\n".encode(), kind)


@KINDS
def test_a_word_that_is_not_in_its_set_is_refused(kind: RegisterKind) -> None:
    document = json.loads(read_rows("t.csv", template(kind).encode(), kind)[0].text)
    for column in DECLARATIONS[kind].columns:
        if column.words and column.name in document:
            other = document | {column.name: 7 if column.kind is CellKind.WHOLE else "nonsense"}
            assert any(f"{column.name} is" in problem for problem in row_problems(kind, other))


def test_a_cell_without_a_column_is_refused_by_the_schema() -> None:
    assert any(
        "colour" in problem
        for problem in row_problems(RegisterKind.JOB_TOKENS, {"job": "1", "tokens": 1, "colour": "red"})
    )


def test_the_committed_guide_is_what_the_declarations_render() -> None:
    text = (ROOT / GUIDE).read_text()
    assert text == registers_guide()
    assert "Generated" in text.splitlines()[0]


@KINDS
def test_the_guide_names_every_column_with_its_example(kind: RegisterKind) -> None:
    guide = registers_guide()
    section = guide.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    assert all(f"| `{column.name}` |" in section for column in DECLARATIONS[kind].columns)
    assert template(kind) in section
    assert f"`{WITHDRAWN.name}`" in guide
