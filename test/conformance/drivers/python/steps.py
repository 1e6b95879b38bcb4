"""Runs a scenario's steps one by one and prints what became of each, a line a step."""

import os
import sys
import time
import traceback
import urllib.request


class Skip(Exception):
    """A step that this driver cannot do; its text says why."""


def say(word, name, why=""):
    print(f"{word} {name}" + (": " + " ".join(str(why).split()) if why else ""), flush=True)


def failed(name, error):
    traceback.print_exc(file=sys.stderr)
    say("not ok", name, f"{type(error).__name__}: {error}")


def run(steps):
    for step in steps:
        name = step.__name__.replace("_", "-")
        try:
            step()
        except Skip as reason:
            say("skip", name, reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this step's result
            failed(name, error)
        else:
            say("ok", name)


async def run_async(steps):
    for step in steps:
        name = step.__name__.replace("_", "-")
        try:
            await step()
        except Skip as reason:
            say("skip", name, reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this step's result
            failed(name, error)
        else:
            say("ok", name)


def access(what):
    """Has the account's access ended ("end") or given back ("renew")."""
    with urllib.request.urlopen(os.environ["CONFORMANCE_ACCESS"] + "/" + what, data=b"", timeout=60):
        pass


def eventually(attempt, errors):
    """Gives what attempt gives, once it no longer raises one of these errors. A pool may have to find out first."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return attempt()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def same(got, want):
    if got != want:
        raise AssertionError(f"got {got!r:.300}, want {want!r:.300}")
