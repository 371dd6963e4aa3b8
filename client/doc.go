// Package client is the public Go client of a machine's market: for agents that
// ask what they can afford, and for tools that watch, fund and stop.
//
// A program that Maxwell started finds everything in its environment: the socket
// (MAXWELL_SOCKET), its own name (MAXWELL_WALLET) and where to report finished
// work (MAXWELL_REPORT). From inside a workload the socket carries the authority
// of that workload and no more: it may read its own account and the prices, bid
// below its cap, and report. From outside it carries the user's.
//
//	c, err := client.Open(ctx)
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	for _, step := range plan {
//		if _, err := c.Afford(ctx, step.Energy); err != nil {
//			return finish(err) // *client.Unaffordable says what is left
//		}
//		step.Do()
//		c.Report(1, "step")
//	}
//
// Quantities are those of package unit, integers with their unit in the type:
// unit.Credits is money in micro-$J, unit.Microjoules energy, unit.Price a
// multiple of the base price in 1/1000 (unit.Times is 1x). 1 $J buys 1 J when
// nobody competes; 3x means that 1 $J buys a third.
//
// # Errors
//
// What the market refuses, and what stands between it and the caller, is an
// [*Error] with a code, a text and, where something can be done, a remedy.
//
// # A change happens once
//
// Fund, Transfer, SetBid and Stop draw a random request id once, before they
// first ask, and repeat the same request when the connection breaks, until the
// context ends or the market has been away for [Client.Patience]. The market
// remembers the id: however often it is delivered, one effect. If the market did
// not come back, the error says that the change may or may not have happened.
//
// A Client may be used by several goroutines at once.
package client
