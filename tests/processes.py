"""Functions in processes of their own: `PROCESSES.Process(target=..., args=...)`.

They are forked from a process that has loaded the code. There is one for all tests of a worker,
and what it loads is settled when the first test asks; so it stands here, whoever needs it.
"""

from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "pytest",  # functions of test modules
        "sqlalchemy.dialects.postgresql.psycopg",
        "sqlalchemy.dialects.sqlite.pysqlite",
        "tests.contract.conftest",
        "tests.e2e.role_process",
        "tests.integration.dying_notices",
        "tests.integration.loyal_worker",
    ]
)
