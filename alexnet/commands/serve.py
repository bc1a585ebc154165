"""`serve`: a JSON API over a run's classifier."""

from __future__ import annotations

import argparse

from alexnet.commands import RUN_HELP, chosen_run

EVERYWHERE = ("0.0.0.0", "::")  # addresses at which a server listens on every network, and that nobody asks for


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="answer programs over HTTP: POST photos to /classify")
    parser.add_argument("--run", help=RUN_HELP)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at; this machine only by default")
    parser.add_argument("--port", default=8000, type=int, help="8000 by default; 0 takes a free one")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address, without port, by which others ask for this server; may be repeated",
    )
    parser.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> int:
    from alexnet import serve
    from alexnet.predict import load_classifier

    listening = serve.bound(options.host, options.port)
    classifier = load_classifier(chosen_run(options.run))
    own = [] if options.host in EVERYWHERE else [options.host]
    address = f"[{options.host}]" if ":" in options.host else options.host
    port = listening.getsockname()[1]
    print(f"{classifier.run.id} answers at http://{address}:{port}/classify until Ctrl+C ends it.", flush=True)
    serve.run(classifier, listening, (*serve.LOCAL_HOSTS, *own, *options.allow_host))
    return 0
