"""Seeds of the simulation, run again and again, each time in a fork with a change."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.mutating.forks import ended, forked, scratch, shared_out
from bench.mutating.patch import Functions, loaded_functions
from bench.mutating.points import Mutant
from bench.simulation import seams
from bench.simulation.run import Run
from bench.simulation.store import Queue


@dataclass(frozen=True, slots=True)
class Judge:
    """Runs the seeds from 0 on; this process is of no use for anything else afterwards."""

    functions: Functions
    queue: Queue
    count: int
    patience_s: float = 600.0

    @classmethod
    def prepared(cls, root: Path, count: int) -> Judge | None:
        """Return one that knows how long the seeds take; None: one is broken as it is."""
        seams.close()
        gc.set_threshold(50_000)
        queue = Queue()
        Run(0, queue).result()  # what is made once is made before
        functions = Functions(root, loaded_functions())
        begun_s = time.monotonic()
        if cls(functions, queue, count).is_noticed(None):
            return None
        return cls(functions, queue, count, patience_s=10 + 5 * (time.monotonic() - begun_s))

    def verdicts(self, mutants: Sequence[Mutant], jobs: int) -> Iterator[bool]:
        """Yield of each change whether a seed is broken by it, or does not end."""
        patience_s = self.patience_s * len(mutants)
        yield from shared_out(jobs, self.is_noticed, mutants, patience_s)

    def is_noticed(self, mutant: Mutant | None) -> bool:
        """Run the seeds with a change, or with none; what takes an import is not noticed."""

        def run() -> int:
            if mutant is not None and not self.functions.change(mutant):
                return 0
            return int(any(map(self._is_broken, range(self.count))))

        with scratch() as directory:
            return ended(forked(run, directory), self.patience_s) != 0

    def _is_broken(self, seed: int) -> bool:
        try:
            return bool(Run(seed, self.queue).result().violations)
        except Exception:
            return True
