"""Copies the one run of a database 100,000 times, each with a name, times and a state of its own."""

import sqlite3
import sys
import uuid

RUNS = 100_000
STATES = ["SUCCEEDED"] * 14 + ["FAILED"] * 5 + ["CANCELED"]

database = sqlite3.connect(sys.argv[1])
database.row_factory = sqlite3.Row
run = dict(database.execute("SELECT * FROM runs").fetchone())


def copies():
    for number in range(RUNS):
        created = run["created_at"] - number * 1000
        yield run | {
            "id": str(uuid.uuid4()),
            "display_name": "nightly" if number % 100 == 0 else f"train-{number * 7919 % RUNS}",
            "description": f"attempt {number * 104_729 % RUNS}",
            "state": STATES[number % len(STATES)],
            "storage_state": "ARCHIVED" if number % 20 == 0 else run["storage_state"],
            "pipeline_name": f"pipeline-{number % 50}",
            "recurring_run_id": str(uuid.UUID(int=number % 10)),
            "created_at": created,
            "scheduled_at": created,
            "started_at": created,
            "finished_at": created + number * 31 % 600_000,
        }


# The names of columns come from the database itself.
columns = list(run)
places = ", ".join(f":{column}" for column in columns)
with database:
    database.executemany(f"INSERT INTO runs ({', '.join(columns)}) VALUES ({places})", copies())
