// Package demon is one tick of Maxwell's demon: it composes the theory
// (physics, price, market, ledger, apoptosis) and has no side effect.
//
// # The problem
//
// Between two ticks the world runs; at a tick the demon learns what every
// workload used and wanted, prices the epoch that ended, debits the wallets,
// decides who lives, and ranks the next epoch. Everything it is told is a
// value (Input), everything it wants done is a value (Decisions). The node
// (internal/node) carries both across the border to the machine; the
// simulator (internal/sim) does the same with a world it invents. The demon
// cannot tell them apart, which is why a simulated seed means something.
//
// # One tick
//
//	measure   energy of the interval -> physics.Attributor -> joules per wallet
//	price     metered demand and use -> market.Price -> rent area per wallet
//	charge    price.Cost (the core equation) -> debits in memory
//	decide    solvency, caps, timeouts -> apoptosis -> freeze, thaw, end
//	quote     supply of the coming epoch from what was really delivered
//	rank      market.Rank -> shares for enforcement
//	gate      who may go broke before the next tick, and after how much core time
//
// # Money in memory and money in the ledger
//
// Inside a second a wallet spends in memory against a hold on its whole
// balance. Once a second, and at death, one linked chain of transfers posts
// what was spent (energy to heat, rent to treasury, erasure to entropy),
// releases the hold and takes the next one. So at any instant
//
//	budget + income = spent + balance + deposit
//
// holds for every wallet, and the ledger's accounts sum to zero.
// What metering finds after an epoch beyond the balance is drawn from the
// deposit; what exceeds even that is written off to the operator's loss
// account and counted, so that spent <= budget + income survives a machine
// that was suspended in the middle of an epoch.
//
// # The grid factor
//
// What energy costs now comes in as tariffs (Input.Grid) and is slewed by price.Grid.
// The factor in force changes where a window of the sensor ends, between two of its
// readings, after that window was charged: one reading has one price. It is in the
// reserve, the base, and so in bids, which are multiples of it; in deposits as they
// were when locked; and not in what weighs the floor. A resumed market goes on with
// the factor of the process before it.
//
// # Demand
//
// Demand is run time plus runnable-waiting time, at most cores x epoch. A
// workload that Maxwell itself stopped counts as it was when stopped, if it
// is still in the market (solvent, bid at or above its reserve): otherwise
// stopping the losers would empty the losing curve and the winners would pay
// nothing. The broke and the paused are not in the market and move no price.
//
// # Supply
//
// When everything wanted was delivered, supply is what was configured. When
// something was wanted and not delivered, supply is what the workloads
// measurably got: time taken by the rest of the machine was never for sale.
//
// # Standing wallets
//
// A standing wallet is no workload's: a person's, a team's. Its allowance fills it
// from its parent, so that a parent bounds its children, who share what it cannot
// pay in full. A workload that names one and a budget gets the budget from it at
// admission; one that names no budget draws a few seconds' worth at a time, is broke
// when the wallet is empty and goes on when it is not. What a workload leaves goes
// back. An allowance is a rate of the wallet and not of the process: the time that no
// demon was there counts. A wallet that is made begins with one period of it, since a
// newcomer's first command should not wait for money to drip in; one that is closed
// and made again with what came in between, so that this mints nothing.
//
// # Restarts
//
// Entries and Saves hand over, together, what another process needs: the books as
// changes, and of each workload the state that belongs to them. Resume replays the
// books, Readopt takes a workload back, BuryLost closes the books of one that is
// gone. What ran meanwhile is billed once, from the kernel's own counter, at the
// reserve: nobody competed, so there is no rent. Its joules were seen by no sensor;
// they are modelled and added to the node's energy and to what is attributed, as
// is what the workload had burnt before, so that
//
//	node = attributed + system + idle + unattributed
//
// holds in every process, with Statement.Inherited and Statement.Readopted saying
// how much of it this one's sensor did not see.
//
// # Not enforced
//
// A workload that is only observed (Admission.Enforce) is metered, priced and
// billed like any other and never touched. When it would have been stopped it is
// said so once, and from there on its bid counts no more, as if it were stopped;
// what it goes on using is paid by the operator's loss account.
//
// # Guarantees
//
// Conservation of energy and money, no overdraft beyond the deposit except
// into loss, broke means frozen in the same tick, dead stays dead, and the
// same Config and Inputs give the same Decisions (the only chance is drawn
// from Config.Seed). A broken invariant panics with the numbers.
//
// # What the caller must do
//
// Call Step from one goroutine, with an Input whose counters are cumulative
// and never run backwards; carry out Actions in order; watch Gates between
// ticks; release a slot only after its group is gone.
package demon
