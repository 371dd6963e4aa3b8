#!/usr/bin/env python3
"""An agent that lives within its budget and ends by itself.

    maxwell run --budget 100 --bid 4x -- python3 examples/agent/agent.py state.json

Before every step it asks whether it can afford one more of the most expensive it
has seen. Warned that 80 % of the budget is gone, it bids no more than the base
price and a half: it waits rather than pays for haste. Warned of 95 %, it saves
its state. When the next step does not fit it saves and exits with 0; the next run
goes on from there.
"""
import hashlib
import json
import os
import queue
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "client" / "python"))
import maxwell  # noqa: E402

FIRST_GUESS = 5 * maxwell.JOULE  # what a step burns, until one was measured


def step(state):
    """One unit of work; a real agent calls a tool or runs a test here."""
    link = bytes.fromhex(state["link"])
    for _ in range(100_000):
        link = hashlib.sha256(link).digest()
    state["link"], state["steps"] = link.hex(), state["steps"] + 1


def save(state, path):
    """The whole file or none of it."""
    path.with_suffix(".new").write_text(json.dumps(state))
    os.replace(path.with_suffix(".new"), path)


def listen(market, warnings):
    """Pass warnings on, until the market ends."""
    try:
        for event in market.events(name=os.environ.get("MAXWELL_WALLET", "")):
            if event.kind == "warned" and event.what == "budget":
                warnings.put(event.percent)
    except maxwell.MaxwellError as e:
        print("no more warnings:", e, flush=True)


def heed(warnings, market, state, path):
    """Do what the warnings since the last step ask for."""
    while not warnings.empty():
        percent = warnings.get()
        if percent >= 95:
            save(state, path)
            print("95 %% spent: saved %d steps" % state["steps"], flush=True)
        elif percent >= 80:
            try:
                now = market.self().workload.bid_milli or maxwell.TIMES * 2
                bid = market.bid(min(now, maxwell.TIMES * 3 // 2)).bid_milli
                print("80 %% spent: bidding %gx" % (bid / maxwell.TIMES), flush=True)
            except maxwell.MaxwellError as e:  # not worth dying for
                print("bid unchanged:", e, flush=True)


def main(path, limit):
    state = json.loads(path.read_text()) if path.exists() else {"steps": 0, "link": ""}
    market, warnings = maxwell.Client(), queue.Queue()
    threading.Thread(target=listen, args=(market, warnings), daemon=True).start()
    before, dearest = market.self().workload.energy_uj, 0
    for _ in range(limit):
        heed(warnings, market, state, path)
        try:
            market.afford(dearest or FIRST_GUESS)
        except maxwell.Unaffordable as e:
            print("stopping:", e, flush=True)
            break
        step(state)
        market.report(1, "step")
        now = market.self().workload.energy_uj
        before, dearest = now, max(dearest, now - before)
    save(state, path)
    print("%d steps done" % state["steps"], flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: agent.py STATE-FILE [STEPS]")
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 1 << 30)
    except maxwell.MaxwellError as e:
        sys.exit("agent: %s" % e)
