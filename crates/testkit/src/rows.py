"""Reads a file (argv: csv|parquet|sqlite, path, query) and prints it as PostgreSQL's COPY does: a row
of names, a row of types, then the rows, each value as PostgreSQL would write it."""

import csv
import math
import re
import sqlite3
import struct
import sys
from decimal import Decimal

import duckdb

FIELD = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n|\Z)')
ESCAPES = str.maketrans(
    {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
)


def put(values):
    texts = [r"\N" if value is None else value.translate(ESCAPES) for value in values]
    sys.stdout.write("\t".join(texts) + "\n")


def float_text(value, single=False):
    """The shortest digits that mean this number, as PostgreSQL lays them out."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = repr(value)
    if single:
        same = struct.pack("f", value)
        shorter = (f"{value:.{digits}g}" for digits in range(1, 10))
        text = next(text for text in shorter if struct.pack("f", float(text)) == same)
    sign, digits, exponent = Decimal(text).as_tuple()
    digits = "".join(map(str, digits)).lstrip("0")
    point = len(digits) + exponent - 1
    digits = digits.rstrip("0")
    minus = "-" if sign else ""
    if not digits:
        return minus + "0"
    if point < -4 or point >= (6 if single else 15):
        more = "." + digits[1:] if len(digits) > 1 else ""
        return f"{minus}{digits[0]}{more}e{'-' if point < 0 else '+'}{abs(point):02}"
    if point < 0:
        return minus + "0." + "0" * (-point - 1) + digits
    whole = digits[: point + 1].ljust(point + 1, "0")
    return minus + whole + ("." + digits[point + 1 :] if len(digits) > point + 1 else "")


def csv_file(path):
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    rows, row, at = [], [], 0
    while at < len(text):
        field = FIELD.match(text, at)
        if field is None:
            sys.exit(f"line {text.count(chr(10), 0, at) + 1} is no CSV: {text[at:at + 80]!r}")
        value, end = field.groups()
        quoted = value.startswith('"')
        row.append(value[1:-1].replace('""', '"') if quoted else value or None)
        at = field.end()
        if end != ",":
            rows.append(row)
            row = []
        elif at == len(text):
            sys.exit("the last line ends with a comma and no line end")
    csv.field_size_limit(1 << 31)
    with open(path, encoding="utf-8", newline="") as file:
        others = [row or [""] for row in csv.reader(file, strict=True)]
    if others != [[value or "" for value in row] for row in rows]:
        sys.exit("Python's csv reads it otherwise")
    for row in rows:
        if len(row) != len(rows[0]):
            sys.exit(f"a row has {len(row)} fields and the head {len(rows[0])}: {row}")
    put(rows[0])
    put([])
    for row in rows[1:]:
        put(row)


def written(name, kind):
    """An expression for what a column's values are as text, where DuckDB writes them otherwise."""
    if kind in ("FLOAT", "DOUBLE"):
        return name
    if kind == "BOOLEAN":
        return f"left({name}::VARCHAR, 1)"
    if kind == "BLOB":
        return f"'\\x' || lower(hex({name}))"
    if kind.startswith(("DATE", "TIMESTAMP")):
        # The era stands behind the date there, and behind the time here.
        return f"regexp_replace({name}::VARCHAR, ' \\(BC\\)(.*)', '\\1 BC')"
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP")):
        return f"to_json({name})::VARCHAR"
    return f"{name}::VARCHAR"


def parquet_file(path):
    duckdb.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = true")
    duckdb.execute("SET enable_progress_bar = false")
    columns = duckdb.execute("DESCRIBE SELECT * FROM read_parquet($1)", [path]).fetchall()
    names, kinds = [column[0] for column in columns], [column[1] for column in columns]
    put(names)
    put(kinds)
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    wanted = ", ".join(map(written, quoted, kinds))
    found = duckdb.execute(f"SELECT {wanted} FROM read_parquet($1)", [path])
    single = [kind == "FLOAT" for kind in kinds]
    while rows := found.fetchmany(4096):
        for row in rows:
            put(
                float_text(value, is_single) if isinstance(value, float) else value
                for value, is_single in zip(row, single)
            )


def sqlite_text(value):
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, float):
        return float_text(value)
    return value if value is None else str(value)


def sqlite_file(path, query):
    found = sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute(query)
    put([column[0] for column in found.description])
    put([])
    for row in found:
        put(map(sqlite_text, row))


sys.stdout.reconfigure(encoding="utf-8", newline="\n")
KIND, PATH, QUERY = sys.argv[1:]
if KIND == "csv":
    csv_file(PATH)
elif KIND == "parquet":
    parquet_file(PATH)
else:
    sqlite_file(PATH, QUERY)
