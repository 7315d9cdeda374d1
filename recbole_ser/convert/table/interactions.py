"""Converting the interaction log to ``X.inter``."""

from __future__ import annotations

from recbole_ser.atomic.schema import ITEM_ID, TIMESTAMP, USER_ID
from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.checked_rows import DUPLICATE, check_rows, columns_of, move_out
from recbole_ser.convert.table.columns import number, word
from recbole_ser.convert.table.source import attach
from recbole_ser.convert.table.spec import InteractionLog
from recbole_ser.convert.table.times import Times, describe_times, read_times

INTERACTION_EVENTS = "interaction_events"


def convert_interactions(conversion: SQLConversion, log: InteractionLog, deduplicate: bool) -> None:
    """Write ``X.inter``, sorted by (user, time, position, item), and leave its events in the view `INTERACTION_EVENTS`.

    Raises:
        DataError: a file is damaged, a row is malformed (unless such rows are skipped), or no row is left.
    """
    optional = [] if log.position is None else [log.position]
    wanted = [log.user, log.item, log.time.column, *optional, *columns_of(log.keep)]
    relation = attach(conversion.engine, "interactions", log.files, wanted)
    times = read_times(conversion.engine, relation, log.time)
    values = [word(relation, log.user, "user"), word(relation, log.item, "item"), times.value]
    positions = [number(relation, column, "position") for column in optional]
    rows = check_rows(conversion, relation, [*values, *positions], log.keep)
    names = dict(zip(("user_id", "item_id", "time", "position"), [*values, *positions]))
    selected = ", ".join(f"{value.name} AS {name}" for name, value in names.items())
    order = ("position NULLS LAST",) if positions else ()
    written = write_interactions(
        conversion, times, f"SELECT {'DISTINCT ' * deduplicate}{selected}\nFROM {rows.kept}", *order
    )
    move_out(rows.counts, DUPLICATE, rows.counts.rows_out - written)


def write_interactions(conversion: SQLConversion, times: Times, select: str, *order: str) -> int:
    """Write ``X.inter``, sorted by user, time, ``order`` and item, and leave its events in `INTERACTION_EVENTS`.

    Args:
        times: how the times of the log were read.
        select: SQL that gives ``user_id``, ``item_id``, ``time`` in nanoseconds and the columns that ``order`` names.
        order: SQL expressions that order the events of one user at the same time.

    Returns:
        The number of interactions.
    """
    engine = conversion.engine
    engine.run(f"CREATE VIEW {INTERACTION_EVENTS} AS {select}")
    told = "interaction_facts"
    engine.rows(
        told,
        INTERACTION_EVENTS,
        f"SELECT user_id, item_id, time, fits_seconds(time) AS fits FROM {INTERACTION_EVENTS}",
    )
    questions = "count(*), count(DISTINCT user_id), count(DISTINCT item_id), min(time), max(time), bool_and(fits)"
    rows, users, items, first, last, fits = engine.ask(f"SELECT {questions} FROM {told}")[0]
    columns = {USER_ID: "user_id", ITEM_ID: "item_id", TIMESTAMP: "time_text(time)"}
    conversion.write_later("inter", columns, INTERACTION_EVENTS, ", ".join(["user_id", "time", *order, "item_id"]))
    conversion.sizes |= {"users": users, "items": items, "interactions": rows}
    conversion.times["interactions"] = describe_times(times, first, last)
    conversion.in_seconds &= fits
    return int(rows)
