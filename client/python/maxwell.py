#!/usr/bin/env python3
"""Ask the market of this machine: what is left, what a step would cost, and more.

One file, no dependencies, Python 3.8 or later. A program that Maxwell started
finds everything in its environment. A whole agent:

    import maxwell

    market = maxwell.Client()
    for step in plan:
        try:
            market.afford(40 * maxwell.JOULE)       # before each step
        except maxwell.Unaffordable as e:
            save(plan, why=str(e))                  # e.left_ucredits, e.remedy
            break
        step()
        market.report(1, "step")

Quantities are integers in the unit that their name ends in: _ucredits is
micro-$J (DOLLARJOULE is 1 $J), _uj microjoules (JOULE), _milli thousandths
(TIMES is 1x, the base price), _ns nanoseconds. Answers are dicts whose keys are
also attributes; what the market left out is 0, "" or empty, and what it added
since this file was written is there too.

fund, transfer, bid and stop draw a random request id once and repeat the same
request while the connection breaks, until `timeout` seconds are over: the
market applies it once. MaxwellError has code, text and remedy.

From a shell: python3 maxwell.py self | price | bid 1.5x | bid auto | events
"""
from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import socket
import stat
import struct
import sys
import time
from typing import Any, Dict, Iterator, List, Optional

JOULE = DOLLARJOULE = 1_000_000
TIMES = 1_000
MAX_ANSWER = 64 << 20  # bytes
NUMBER = re.compile(r"(_ucredits|_uj|_ns|_us|_milli|_ppm|_uw|_bytes|_core_s|_per_s|^work|^pids|^epochs|^seq|^uid|^exit_code|^percent|^rank|^ranked)$")


class MaxwellError(Exception):
    """A request that was refused, or that did not reach the market.

    code is one word: the market's own (not_found, permission_denied, ...), or
    no_market, outside, malformed, unavailable, deadline_exceeded."""

    def __init__(self, code: str, text: str, remedy: str = "") -> None:
        text = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).strip()
        super().__init__(text if not remedy or remedy in text else text + "; " + remedy)
        self.code, self.text, self.remedy = code, text, remedy


class Unaffordable(MaxwellError):
    """The refusal of afford: what the step needs, and what is left."""

    def __init__(self, reason: str, text: str, remedy: str, estimate: Fields) -> None:
        super().__init__(reason, text, remedy)
        self.reason = reason  # balance, energy, broke, paused, dying, dead
        self.cost_ucredits = estimate.cost_ucredits
        self.left_ucredits = estimate.left_ucredits
        self.left_uj: Optional[int] = estimate["left_uj"]  # None: no energy cap


class Fields(Dict[str, Any]):
    """A message of the market; keys as in its documentation, in snake_case."""

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        if key in self:
            return self[key]
        return 0 if NUMBER.search(key) else Fields() if key in ("workload", "price", "workload_state") else ""


def _fields(value: Any, key: str = "") -> Any:
    """Connect's JSON as Fields: snake_case, and 64-bit numbers not as strings."""
    if key == "accounts":  # a map by name
        return {k: int(v) for k, v in value.items()}
    if isinstance(value, dict):
        snake = {re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), k): v for k, v in value.items()}
        return Fields((k, _fields(v, k)) for k, v in snake.items())
    if isinstance(value, list):
        return [_fields(v) for v in value]
    return int(value) if isinstance(value, str) and NUMBER.search(key) else value


def _closed(directory: str, uid: int) -> bool:
    try:
        s = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(s.st_mode) and s.st_uid == uid and s.st_mode & 0o077 == 0


def sockets() -> List[str]:
    """Where a market may listen, in the order in which it is tried."""
    env, uid = os.environ.get, os.geteuid()
    if env("MAXWELL_SOCKET"):
        return [os.environ["MAXWELL_SOCKET"]]
    if env("MAXWELL_RUNTIME_DIR"):
        return [os.path.join(os.environ["MAXWELL_RUNTIME_DIR"], "market.sock")]
    found = ["/run/maxwell/market.sock"]
    for session in (env("XDG_RUNTIME_DIR") or "", "/run/user/%d" % uid) if uid else ():
        if os.path.isabs(session) and _closed(session, uid):
            return found + [os.path.join(session, "maxwell", "market.sock")]
    own = "/tmp/maxwell-%d" % uid  # only if it is ours: it may be somebody's trap
    return found + [os.path.join(own, "market.sock")] if _closed(own, uid) else found


class _Line(http.client.HTTPConnection):
    """One HTTP connection over a unix socket."""

    def __init__(self, path: str, timeout: Optional[float]) -> None:
        super().__init__("market", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method: str, kind: str, body: bytes) -> http.client.HTTPResponse:
        self.request("POST", "/maxwell.v1.MarketService/" + method, body, {"Content-Type": kind})
        return self.getresponse()

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """What goes wrong with an exchange, as MaxwellError."""
    try:
        yield
    except socket.timeout as e:
        raise MaxwellError("deadline_exceeded", what + ": no answer in time") from e
    except (OSError, http.client.IncompleteRead) as e:
        raise MaxwellError("unavailable", "%s: %s" % (what, e or "the connection broke"), "see whether the market runs: maxwell doctor") from e
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, http.client.HTTPException) as e:
        raise _refusal(what, None, None) from e


def _check(answer: http.client.HTTPResponse, kind: str) -> None:
    if not (answer.getheader("Content-Type") or "").startswith(kind):
        raise ValueError("another kind of answer")


def _exactly(answer: http.client.HTTPResponse, n: int) -> bytes:
    data = answer.read(n)
    if len(data) < n:
        raise ConnectionError("the stream broke")
    return data


def _refusal(what: str, error: Any, remedy: Optional[str]) -> MaxwellError:
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        return MaxwellError("malformed", what + ": no market's answer", "check what listens on the socket")
    text = str(error.get("message", ""))
    return MaxwellError(error["code"], "%s: %s" % (what, text), remedy or text.partition("; ")[2])


class Client:
    """A line to one market. timeout is how many seconds a call waits for it."""

    def __init__(self, path: Optional[str] = None, timeout: float = 10.0) -> None:
        tried = [path] if path else sockets()
        self.timeout = timeout
        for self.path in tried:
            try:
                with _Line(self.path, timeout) as line:
                    line.connect()
                return
            except OSError:
                continue  # none there, a dead one's, or somebody else's
        raise MaxwellError("no_market", "no market runs here (looked at %s)" % ", ".join(tried),
                           "start one with maxwell run or maxwell up")

    def self(self) -> Fields:
        """Who the market takes this program for: uid, admin, price, and workload, empty outside of one."""
        return self._call("self", "Self", {})

    def price(self) -> Fields:
        """What core time costs: base_ucredits_per_core_s, spot_x_milli, grid_ppm."""
        return self.self().price

    def list(self) -> List[Fields]:
        """The workloads that this program may see."""
        return (self._call("list", "Snapshot", {}).get("snapshot") or Fields()).get("workloads", [])

    def explain(self, name: str = "") -> Fields:
        """Why a workload gets what it gets (verdict), and what would help."""
        return self._call("explain " + name, "Explain", {"name": name})

    def bid(self, milli: int = 0, name: str = "", auto: bool = False, max_milli: int = 0) -> Fields:
        """Change the bid, of this program's own workload unless one is named; return the workload."""
        if milli < 0 or max_milli < 0 or not auto and milli == 0:
            raise MaxwellError("invalid_argument", "bid: no price", "give thousandths of 1x above zero, or auto=True")
        return self._change("bid " + name, "SetBid", {"name": name, "bidMilli": milli, "auto": auto, "maxBidMilli": max_milli}).workload

    def fund(self, name: str, ucredits: int) -> int:
        """Add money to a wallet; return its balance."""
        return self._change("fund " + name, "Fund", {"name": name, "amountUcredits": _money("fund", ucredits, name)}).balance_ucredits

    def transfer(self, source: str, to: str, ucredits: int) -> Fields:
        """Move money between two wallets; return from_balance_ucredits and to_balance_ucredits."""
        amount = _money("transfer", ucredits, source, to)
        return self._change("transfer from %s to %s" % (source, to), "Transfer", {"from": source, "to": to, "amountUcredits": amount})

    def stop(self, name: str, now: bool = False) -> None:
        """End a workload: SIGTERM, a paid moment, SIGKILL; with now, SIGKILL at once."""
        _money("stop", 1, name)
        self._change("stop " + name, "Stop", {"name": name, "now": now})

    def wait(self, name: str, timeout: Optional[float] = None) -> Fields:
        """Return the workload when it is gone and paid for; without timeout, however long that takes."""
        _money("wait", 1, name)
        return self._call("wait " + name, "Wait", {"name": name}, timeout or float("inf")).workload

    def afford(self, step_uj: int) -> Fields:
        """Ask before a step that burns about step_uj whether it can be paid; Unaffordable if not.

        The estimate is the step's joules at the grid price times spot, but at most this workload's own bid.
        What draws from a standing wallet holds little of it at a time: there money refuses no step before the
        wallet is empty. The market's limit is a hard one whatever was asked here."""
        me = self.self()
        w = me.workload
        if not w:
            raise MaxwellError("outside", "afford: this program is not inside a workload, nothing limits it",
                               "start it with maxwell run --budget")
        at = max(me.price.spot_x_milli, TIMES)
        limit = max(w.bid_milli, w.max_bid_milli) if w.auto else w.bid_milli
        if limit:
            at = min(at, max(limit, TIMES))
        cost = -(-(-(-step_uj * me.price.grid_ppm // 1_000_000)) * at // TIMES)  # both rounded up
        estimate = Fields(cost_ucredits=cost, at_milli=at, left_ucredits=w.balance_ucredits, open=bool(w.open), draws=bool(w.draws),
                          left_uj=max(0, w.max_energy_uj - w.energy_uj) if w.max_energy_uj else None)
        needs = "a step of %g J " % (step_uj / JOULE)
        if w.state in ("broke", "paused", "dying", "dead"):
            raise Unaffordable(w.state, needs + "cannot start: this workload is " + w.state, w.remedy or "fund " + w.name, estimate)
        if estimate.left_uj is not None and step_uj > estimate.left_uj:
            raise Unaffordable("energy", needs + "does not fit below the energy cap, %g J is left" % (estimate.left_uj / JOULE),
                               "raise --max-energy of " + w.name, estimate)
        if not w.open and not w.draws and cost > w.balance_ucredits:
            raise Unaffordable("balance", needs + "costs about %g $J at %gx and %g $J is left" % (cost / DOLLARJOULE, at / TIMES, w.balance_ucredits / DOLLARJOULE),
                               "take a smaller step, or fund " + w.name, estimate)
        return estimate

    def report(self, units: int, kind: str = "") -> None:
        """Tell the market about finished work; a workload with an income earns by it."""
        if not 0 < units <= 1 << 40 or re.search(r"\s|[^\x21-\x7e\xa1-\U0010ffff]", kind) or len(kind.encode()) > 64:
            raise MaxwellError("invalid_argument", "report: %r units of %r" % (units, kind), "1 to 2^40, of one word of at most 64 bytes")
        try:
            os.write(int(os.environ["MAXWELL_REPORT"]), ("work %d %s" % (units, kind)).strip().encode() + b"\n")
        except (KeyError, ValueError, OSError) as e:
            raise MaxwellError("outside", "report: MAXWELL_REPORT is no open descriptor: %r" % e, "start this program with maxwell run") from e

    def events(self, name: str = "", since_wall_ns: int = 0, follow: bool = True) -> Iterator[Fields]:
        """Yield what happens (kind, workload, percent, ...), first what is remembered since a moment.

        Over a break of the connection it goes on where it was."""
        began, last, seen, again = time.time_ns(), since_wall_ns, [], False
        gone = time.monotonic()
        while True:
            try:
                for e in self._stream({"name": name, "sinceWallNs": str(last or (began if again else 0)), "follow": follow}):
                    gone = time.monotonic()
                    key = (e.workload, e.kind, e.what, e.percent)
                    if e.wall_ns > last:
                        last, seen = e.wall_ns, []
                    if e.wall_ns != last or key not in seen:
                        seen.append(key)
                        yield e
                return
            except MaxwellError as e:
                if e.code != "unavailable" or time.monotonic() - gone > self.timeout:
                    raise
            again = True
            time.sleep(0.1)

    def _change(self, what: str, method: str, request: Dict[str, Any]) -> Fields:
        request["requestId"] = base64.b64encode(os.urandom(16)).decode()
        try:
            return self._call(what, method, request)
        except MaxwellError as e:
            if e.code in ("unavailable", "deadline_exceeded"):
                raise MaxwellError(e.code, e.text + "; it may or may not have happened", "look at the balance before asking again") from e
            raise

    def _call(self, what: str, method: str, request: Dict[str, Any], limit: float = 0.0) -> Fields:
        """One call, repeated, the same in every bit, while the connection breaks."""
        began = gone = time.monotonic()
        limit, pause = limit or self.timeout, 0.01
        while True:
            asked = time.monotonic()
            try:
                return self._once(what, method, request, None if limit == float("inf") else max(0.001, began + limit - asked))
            except MaxwellError as e:
                now = time.monotonic()
                if now - asked > 0.5:  # it was there
                    gone = now
                if e.code != "unavailable" or now + pause > min(began + limit, gone + self.timeout):
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _once(self, what: str, method: str, request: Dict[str, Any], timeout: Optional[float]) -> Fields:
        with _Line(self.path, timeout) as line, _explained(what):
            answer = line.ask(method, "application/json", json.dumps(request).encode())
            _check(answer, "application/json")
            text = answer.read(MAX_ANSWER)
            if answer.length and len(text) < MAX_ANSWER:
                raise ConnectionError("the answer broke off")
            body = json.loads(text)
            if answer.status != 200:
                raise _refusal(what, body, answer.getheader("Maxwell-Remedy"))
            return _fields({**body})

    def _stream(self, request: Dict[str, Any]) -> Iterator[Fields]:
        """The events of one stream. A message follows a byte of flags and four of length."""
        body = json.dumps(request).encode()
        with _Line(self.path, None) as line:
            with _explained("events"):
                answer = line.ask("Watch", "application/connect+json", struct.pack(">BI", 0, len(body)) + body)
                _check(answer, "application/connect+json")
            while True:
                with _explained("events"):
                    flags, size = struct.unpack(">BI", _exactly(answer, 5))
                    message = json.loads(_exactly(answer, min(size, MAX_ANSWER)))
                    if flags & 2:  # the last one: how it ended
                        if message.get("error"):
                            remedy = {k.lower(): v for k, v in message.get("metadata", {}).items()}.get("maxwell-remedy", [""])
                            raise _refusal("events", message["error"], remedy[0])
                        return
                    event = _fields(message).get("event", Fields())
                yield event


def _money(verb: str, ucredits: int, *names: str) -> str:
    if not all(names):
        raise MaxwellError("invalid_argument", verb + ": no workload named", "name one; list has them")
    if ucredits <= 0:
        raise MaxwellError("invalid_argument", verb + ": the amount is not above zero", "DOLLARJOULE is 1 $J")
    return str(int(ucredits))


def main(args: List[str]) -> int:
    usage = "usage: maxwell.py self | price | bid PRICE|auto [NAME] | events"
    bid = re.fullmatch(r"(\d+(?:\.\d{1,3})?)x?|auto", args[1]) if args[:1] == ["bid"] and len(args) in (2, 3) else None
    if args not in (["self"], ["price"], ["events"]) and not bid:
        print(usage, file=sys.stderr)
        return 125
    try:
        c = Client()
        if args[0] == "events":
            for e in c.events():
                print(json.dumps(e), flush=True)
        elif bid:
            milli = round(float(bid[1]) * TIMES) if bid[1] else 0
            print(json.dumps(c.bid(milli, "".join(args[2:]), auto=not bid[1])))
        else:
            print(json.dumps(c.self() if args[0] == "self" else c.price()))
    except MaxwellError as e:
        print("maxwell:", e, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
