"""Converting the tables of items and users to ``X.item`` and ``X.user``."""

from __future__ import annotations

from recbole_ser.atomic.schema import FILES, Column
from recbole_ser.convert.engine import identifier
from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.checked_rows import check_rows, columns_of, move_out
from recbole_ser.convert.table.columns import (
    Value,
    clean_text,
    entry_list,
    number,
    plain_text,
    sequence,
    value_name,
    word,
)
from recbole_ser.convert.table.interactions import INTERACTION_EVENTS
from recbole_ser.convert.table.searches import SEARCH_EVENTS
from recbole_ser.convert.table.source import SourceTable, attach
from recbole_ser.convert.table.spec import Attribute, AttributeTable, ListColumn

_IN_SEARCHES = {
    "user": f"SELECT user_id FROM {SEARCH_EVENTS}",
    "item": f"SELECT unnest(string_split(clicked_items, ' ')) AS item_id FROM {SEARCH_EVENTS}",
}


def convert_attributes(conversion: SQLConversion, table: AttributeTable, entity: str, has_searches: bool) -> None:
    """Write ``X.item`` or ``X.user``, sorted by id: a row for each item or user that is in one of the logs.

    If several rows describe the same item or user, the one with the least values is taken, wherever it stands.

    Args:
        table: the table and the meaning of its columns.
        entity: ``item`` or ``user``.
        has_searches: whether there is a search log.

    Raises:
        DataError: a file is damaged, a row is malformed (unless such rows are skipped), or no row is left.
    """
    engine, name = conversion.engine, f"{entity}s"
    wanted = [table.key, *columns_of(table.keep), *(attribute.column for attribute in table.columns.values())]
    relation = attach(engine, name, table.files, wanted)
    key = word(relation, table.key, entity)
    attributes = {label: _value(relation, label, attribute) for label, attribute in table.columns.items()}
    rows = check_rows(conversion, relation, [key, *attributes.values()], table.keep)
    known = f"SELECT {entity}_id FROM {INTERACTION_EVENTS}"
    known += f" UNION {_IN_SEARCHES[entity]}" if has_searches else ""
    columns = ", ".join(value.name for value in attributes.values())
    engine.run(
        f"CREATE TABLE {name}_known AS SELECT {key.name}, {columns},\n"
        f"  row_number() OVER (PARTITION BY {key.name} ORDER BY {columns}) AS place\n"
        f"FROM {rows.kept} WHERE {key.name} IN ({known})"
    )
    of_known = int(engine.ask(f"SELECT count(*) FROM {name}_known")[0][0])
    header = {FILES[entity].required[0]: key.name}
    header |= {Column(label, table.columns[label].type): value.name for label, value in attributes.items()}
    written = engine.write(header, f"{name}_known WHERE place = 1", key.name, conversion.path(entity))
    move_out(rows.counts, f"the {entity} is in neither log", rows.counts.rows_out - of_known)
    move_out(rows.counts, f"another row describes the {entity}", of_known - written)


def _value(relation: SourceTable, label: str, attribute: Attribute) -> Value:
    """An attribute as text for an atomic file, NULL where it is missing."""
    name, column = value_name(f"attribute {label}"), attribute.column
    if attribute.type == "token":
        return Value(name, clean_text(plain_text(relation, column)))
    if attribute.type == "float":
        value = number(relation, column, label)
        return Value(name, f"CAST({value.sql} AS VARCHAR)", value.checks)
    kind = relation.types[column]
    if attribute.separator is None and not kind.endswith("]") and kind != "JSON":
        return Value(name, clean_text(plain_text(relation, column)))
    entries, checks = entry_list(relation, ListColumn(column, attribute.separator), label)
    tokens = f"[replace({clean_text('x')}, ' ', '_') for x in {entries} if {clean_text('x')} IS NOT NULL]"
    if attribute.separator is None and kind == "JSON":  # a text is accepted in place of a list
        is_list = f"json_type({identifier(column)}) = 'ARRAY'"
        return Value(
            name,
            f"CASE WHEN {is_list} THEN {sequence(tokens)} ELSE {clean_text(plain_text(relation, column))} END",
            tuple(checks[1:]),
        )
    return Value(name, sequence(tokens), tuple(checks))
