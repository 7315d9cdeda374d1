"""Converting any interaction and search log to atomic files, given a mapping of its columns."""

from recbole_ser.convert.table.convert import convert_table
from recbole_ser.convert.table.mapping import parse_spec, read_spec

__all__ = ["convert_table", "parse_spec", "read_spec"]
