package report

// Key is one figure of the market: the key that JSON documents give it, and
// what it means. Metrics that show the same figure take their help from here.
type Key struct {
	Object string // node, price, workload, ledger
	Name   string // ends in its unit
	Help   string // one sentence without full stop; the unit is in the name
}

// Keys are the figures of a Statement, in its order, and those that only the
// live market has, after them.
func Keys() []Key { return append([]Key(nil), keys...) }

// Help is what a key means; "" if there is no such key.
func Help(object, name string) string {
	for _, k := range keys {
		if k.Object == object && k.Name == name {
			return k.Help
		}
	}
	return ""
}

var keys = []Key{
	{"node", "enforcement", "How allocations become processor time"},
	{"node", "energy_source", "What the energy figures rest on"},
	{"node", "modelled", "Whether energy is computed from a model instead of measured"},
	{"node", "sigma", "Error of the energy figures, one standard deviation as a fraction"},
	{"node", "epochs", "Rounds of the market so far"},
	{"node", "epoch_us", "Length of a round of the market"},
	{"node", "misdelivery_ppm", "Share of core time that was delivered out of score order"},
	{"node", "energy_uj", "Energy that the machine used since the market began"},
	{"node", "attributed_uj", "Energy charged to workloads"},
	{"node", "system_uj", "Energy of what is not governed"},
	{"node", "idle_uj", "Energy that the machine uses when nothing runs"},
	{"node", "unattributed_uj", "Energy above idle while nothing was seen to run"},
	{"node", "cores_milli", "Cores that the market sells"},
	{"node", "power_uw", "Power that workloads use now"},
	{"node", "allowance_uw", "Power that the market may sell; 0 is no limit"},
	{"node", "caveat", "What this enforcement cannot hold"},

	{"price", "base_ucredits_per_core_s", "The base price, 1x: money for an average core-second with nobody competing"},
	{"price", "spot_x_milli", "What the next core-second costs, as a multiple of the base price"},
	{"price", "spot_peak_x_milli", "Highest spot so far, as a multiple of the base price"},

	{"workload", "name", "Name of the wallet"},
	{"workload", "state", "pending, running, waiting, broke, paused, dying or dead"},
	{"workload", "reason", "Why it ended"},
	{"workload", "exit_code", "Exit code of maxwell run"},
	{"workload", "child_exit", "Exit code of the command itself"},
	{"workload", "budget_ucredits", "Money that it was given; of an open wallet, minted so far"},
	{"workload", "income_ucredits", "Money that it earned by finished work"},
	{"workload", "spent_ucredits", "Money that it spent; the parts sum to the whole"},
	{"workload", "energy_ucredits", "Money spent on its energy at the grid price"},
	{"workload", "rent_ucredits", "Money spent on what scarcity adds"},
	{"workload", "erasure_ucredits", "Money spent on bits freed or overwritten"},
	{"workload", "other_ucredits", "Money spent on anything else"},
	{"workload", "deposit_ucredits", "Money locked for its own end"},
	{"workload", "balance_ucredits", "Money that it can still spend"},
	{"workload", "energy_uj", "Energy charged to it"},
	{"workload", "cpu_ns", "Core time that it used"},
	{"workload", "wait_ns", "Time that it was runnable and did not run, summed over its threads"},
	{"workload", "erased_bytes", "Memory that it freed or overwrote; null until something measures it"},
	{"workload", "peak_memory_bytes", "Most memory that it held"},
	{"workload", "work", "Units of work that it reported finished"},
	{"workload", "work_kind", "What a unit of its work is"},
	{"workload", "open", "Whether no budget limits it"},
	{"workload", "loss_ucredits", "Money that it owed and could not pay"},
	{"workload", "last_price_x_milli", "What it pays for a core-second, as a multiple of the base price"},
	{"workload", "wallet", "The standing wallet that pays it; empty if it has money of its own"},
	{"workload", "draws", "Whether it spends from that wallet directly"},

	{"ledger", "minted_ucredits", "Money made so far"},
	{"ledger", "accounts", "Balance of every account; they sum to zero"},
	{"ledger", "sum_ucredits", "Sum of all accounts; anything but 0 is a defect"},

	{"node", "late_max_ns", "Most that a round of the market was late"},
	{"node", "self_cpu_ns", "Core time that the market itself used"},
	{"node", "share_ppm", "Share of the sold cores that the market really gets"},
	{"price", "grid_ppm", "How dear electricity is, as a share of the reference"},
	{"workload", "bid_milli", "The most it pays for a core-second, as a multiple of the base price"},
	{"workload", "cores_now_milli", "Cores that it uses now"},
	{"workload", "power_now_uw", "Power that it uses now"},
}
