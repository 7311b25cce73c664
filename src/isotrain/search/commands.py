"""``isotrain search``: what is asked on the command line. What is heavy is imported where it is used."""

import argparse


def add_search(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the commands of a study."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, about in (
        ("worker", _worker, "run trials of the study until its budget is spent; as many at once as you like"),
        ("status", _status, "how the study stands"),
        (
            "confirm",
            _confirm,
            "run the front's best points again on fresh seeds, beside the methods that they would replace",
        ),
        ("sync", _sync, "send to MLflow the trials that could not be sent when they ended"),
    ):
        one = commands.add_parser(name, help=about)
        one.add_argument("--params", default="params.yaml", help="the file that describes the study (params.yaml)")
        one.set_defaults(command=command)


def _worker(asked: argparse.Namespace) -> None:
    from isotrain.search.study import place

    at = place(asked.params)

    from isotrain.search.cores import own_cores

    own_cores(at.space.settings({}).runtime.threads)  # torch, imported below, must find its cores chosen

    from isotrain.search.objective import objective
    from isotrain.search.parcels import Outbox
    from isotrain.search.worker import work

    work(at, objective(at), on_finished=Outbox(at))


def _status(asked: argparse.Namespace) -> None:
    from isotrain.search.status import status
    from isotrain.search.study import place

    print(status(place(asked.params)))


def _confirm(asked: argparse.Namespace) -> None:
    from isotrain.search.found import confirm_best
    from isotrain.search.study import place

    confirm_best(place(asked.params))


def _sync(asked: argparse.Namespace) -> None:
    from isotrain.search.parcels import sync
    from isotrain.search.study import place

    print(sync(place(asked.params)))
