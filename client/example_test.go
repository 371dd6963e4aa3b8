package client_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/maxwell-hypervisor/maxwell/client"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// An agent asks before each step, and stops by itself when the next one does
// not fit.
func ExampleClient_Afford() {
	ctx := context.Background()
	c, err := client.Open(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close() }()
	for range 100 {
		_, err := c.Afford(ctx, 40*unit.Joule)
		if u, ok := errors.AsType[*client.Unaffordable](err); ok {
			fmt.Println("stop here, with", u.Left, "left:", u.Remedy)
			return
		}
		// ... one step of work ...
		_ = c.Report(1, "step")
	}
}

// A supervisor watches its fleet and gives money to who needs it.
func ExampleClient_Events() {
	ctx := context.Background()
	c, err := client.Open(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close() }()
	for e, err := range c.Events(ctx, client.Query{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if e.Kind == "warned" && e.What == "budget" && e.Percent >= 95 {
			if _, err := c.Fund(ctx, e.Workload, 100*unit.DollarJoule); err != nil {
				fmt.Println(err)
			}
		}
	}
}

// The most a workload pays is its own to choose, below its cap.
func ExampleClient_SetBid() {
	ctx := context.Background()
	c, err := client.Open(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close() }()
	if _, err := c.SetBid(ctx, "", client.Bid{Price: unit.Times + unit.Times/2}); err != nil { // 1.5x
		fmt.Println(err)
	}
}

func ExampleSelf_Afford() {
	self := client.Self{
		Workload: client.Workload{Name: "agent-7", Balance: 10 * unit.DollarJoule, Bid: 4 * unit.Times},
		Price:    client.Price{Spot: 2 * unit.Times, Grid: unit.One},
	}
	e, _ := self.Afford(4 * unit.Joule)
	fmt.Println(e.Cost, "at", e.At)
	_, err := self.Afford(6 * unit.Joule)
	fmt.Println(err)
	// Output:
	// 8 $J at 2x
	// a step of 6 J costs about 12 $J at 2x and 10 $J is left; take a smaller step, or fund agent-7
}
