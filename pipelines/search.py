"""Stage search: the study, by as many workers as this machine has cores, then its best points on fresh seeds.

Goes on where it was interrupted.
"""

from isotrain.config.experiments import run_stage
from isotrain.search.confirm import confirm_best
from isotrain.search.local_workers import run_workers
from isotrain.search.storage import reachable
from isotrain.search.study import place


def main(params: str) -> None:
    with reachable():
        run_workers(params)
        confirm_best(place(params))


if __name__ == "__main__":
    run_stage(main)
