"""What the processes of the launch test do; they import it by name."""

import json
import os

from xmodaler.engine.evaluation import gather_results
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError


def main(folder, value):
    """Rank 0 writes who is there and the merged results of both."""
    if value == 0 and comm.get_rank() == 1:
        raise ZeroDivisionError
    if value == 41:
        raise UserError(f"value is {value}")
    everybody = comm.all_gather((comm.get_rank(), comm.get_local_rank(), os.getpid()))
    mine = range(3) if comm.get_rank() == 0 else range(2, 5)
    results = gather_results([{"id": index} for index in mine], "id")
    if comm.is_main_process():
        (folder / "ranks.json").write_text(json.dumps([everybody, results]))
    else:
        assert results == []
