"""One scenario a call, for python_test.go: verbs.py SCENARIO. Prints what came of it."""
import os
import sys

import maxwell
from maxwell import DOLLARJOULE, JOULE, TIMES


def tried(f):
    try:
        return f()
    except maxwell.Unaffordable as e:
        return "unaffordable %s, %s micro-$J and %s uJ left: %s" % (e.reason, e.left_ucredits, e.left_uj, e)
    except maxwell.MaxwellError as e:
        return "%s|%s|%s" % (e.code, e.text, e.remedy)


def verbs(c):
    me = c.self()
    w = me.workload
    print(me.uid, me.admin or False, me.durable, me.version, w.name, w.state, w.balance_ucredits, w.spent_ucredits, w.energy_uj)
    print(w.rent_ucredits, repr(w.refusal), "unheard_of" in w)
    p = c.price()
    print(p.spot_x_milli, p.base_ucredits_per_core_s, p.grid_ppm)
    print([(x.name, x.refusal) for x in c.list()])
    print(c.fund("agent-7", 3 * DOLLARJOULE))
    t = c.transfer("spare", "agent-7", DOLLARJOULE)
    print(t.from_balance_ucredits, t.to_balance_ucredits)
    print(c.bid(TIMES * 3 // 2).bid_milli, c.bid(name="spare", auto=True, max_milli=6000).max_bid_milli)
    print(c.stop("spare", now=True))
    d = c.wait("spare")
    print(d.reason, d.exit_code, d.retryable)
    e = c.explain("spare")
    print(e.verdict, e.needed_bid_milli, e.rank, e.ranked, e.lasts_ns)


def once(c):
    print(c.fund("spare", 7))


def gives_up(c):
    c.timeout = 0.2
    print(tried(lambda: c.fund("spare", 7)))


def hangs(c):
    c.timeout = 0.1
    print(tried(lambda: c.fund("spare", 7)))


def refused(c):
    print(tried(lambda: c.fund("nobody", 7)))


def bad(c):
    for f in (lambda: c.fund("", 1), lambda: c.fund("a", 0), lambda: c.bid(), lambda: c.stop(""), lambda: c.wait(""),
              lambda: c.report(0, "x"), lambda: c.report(1, "two words"), lambda: c.report(1, "x" * 65), lambda: c.report(1, "a\nwork 2")):
        print(tried(f).split("|")[0])


def malformed(c):
    for _ in range(int(sys.argv[2])):
        print(tried(c.self))
    for _ in range(int(sys.argv[3])):
        print(tried(lambda: list(c.events())))


def afford(c):
    for step in (37 * JOULE, 37 * JOULE + 1, 39 * JOULE):
        print(tried(lambda: c.afford(step)))


def outside(c):
    print(tried(lambda: c.afford(1)))
    print(tried(lambda: c.report(1)))


def report(c):
    c.report(3, "page")
    c.report(1 << 40)


def events(c):
    for e in c.events(since_wall_ns=5):
        print(e.kind, e.percent, e.wall_ns, e.workload_state.name)


def no_market(_):
    print(tried(maxwell.Client))


if __name__ == "__main__":
    globals()[sys.argv[1]](None if sys.argv[1] == "no_market" else maxwell.Client())
