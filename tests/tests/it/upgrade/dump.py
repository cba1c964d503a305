"""Prints a SQLite database as SQL that PostgreSQL takes as well.

Tables come in the order in which they were made, so what they refer to is there.
"""

import sqlite3
import sys

database = sqlite3.connect(sys.argv[1])
made = list(
    database.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
)
for _, _, sql in made:
    print(f"{sql};")
for table in [name for kind, name, _ in made if kind == "table"]:
    columns = [column for _, column, *_ in database.execute(f"PRAGMA table_info({table})")]
    names = ", ".join(columns)
    values = " || ', ' || ".join(f"quote({column})" for column in columns)
    for (row,) in database.execute(f"SELECT {values} FROM {table} ORDER BY rowid"):
        print(f"INSERT INTO {table} ({names}) VALUES ({row});")
