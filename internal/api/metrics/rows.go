package metrics

import (
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// What an integer of the API is divided by to be in a metric's unit.
const (
	whole = 1
	milli = 1e3
	micro = 1e6
	nano  = 1e9
)

// row is one metric: its name, which ends in its unit, its help, and how it is
// read. Money is in whole $J and called credits, as in the keys of the JSON
// documents.
type row struct {
	name   string
	kind   prometheus.ValueType
	help   string
	labels []string
	keys   []string // of the JSON documents: object.key
	read   func(*view, emit)
}

type emit func(value float64, labels ...string)

// rows are all metrics, in the order of the guide.
func rows() []row {
	all := nodeRows()
	all = append(all, priceRows()...)
	all = append(all, ledgerRows()...)
	for i, c := range counters {
		all = append(all, c.row(i))
	}
	return append(all, gaugeRows()...)
}

// help is the meaning of the first key and, where a metric has parts, theirs.
func help(parts []string, keys ...string) string {
	text := func(key string) string {
		object, name, _ := strings.Cut(key, ".")
		return report.Help(object, name)
	}
	var out strings.Builder
	out.WriteString(text(keys[0]))
	for i, part := range parts {
		sep := "; "
		if i == 0 {
			sep = ". "
		}
		out.WriteString(sep + part + ": " + strings.ToLower(text(keys[i+1])[:1]) + text(keys[i+1])[1:])
	}
	return out.String()
}

// figure is a metric of the snapshot without labels.
func figure(name string, kind prometheus.ValueType, key string, scale float64, get func(*v1.Snapshot) int64) row {
	return row{name: name, kind: kind, help: help(nil, key), keys: []string{key}, read: func(v *view, e emit) {
		e(float64(get(v.snapshot)) / scale)
	}}
}

func nodeRows() []row {
	kinds := []string{"attributed", "system", "idle", "unattributed"}
	keys := []string{"node.energy_uj", "node.attributed_uj", "node.system_uj", "node.idle_uj", "node.unattributed_uj"}
	known := []string{"node.enforcement", "node.energy_source", "node.modelled"}
	return []row{
		{
			name: "maxwell_node_info", kind: prometheus.GaugeValue, help: "How this market enforces, measures energy and meters; always 1", keys: known,
			labels: []string{"enforcement", "source", "modelled", "meter"},
			read: func(v *view, e emit) {
				n := v.snapshot.GetNode()
				e(1, clean(n.GetEnforcement()), clean(n.GetEnergySource()), strconv.FormatBool(n.GetModelled()), clean(n.GetMeter()))
			},
		},
		{
			name: "maxwell_node_energy_joules_total", kind: prometheus.CounterValue, help: help(kinds, keys...), keys: keys,
			labels: []string{"kind", "source", "modelled"},
			read: func(v *view, e emit) {
				n := v.snapshot.GetNode()
				for i, uj := range []int64{n.GetAttributedUj(), n.GetSystemUj(), n.GetIdleUj(), n.GetUnattributedUj()} {
					e(float64(uj)/micro, kinds[i], clean(n.GetEnergySource()), strconv.FormatBool(n.GetModelled()))
				}
			},
		},
		figure("maxwell_node_energy_error_ratio", prometheus.GaugeValue, "node.sigma", micro, func(s *v1.Snapshot) int64 { return s.GetNode().GetSigmaPpm() }),
		figure("maxwell_node_attributed_power_watts", prometheus.GaugeValue, "node.power_uw", micro, func(s *v1.Snapshot) int64 { return s.GetNode().GetWattsUw() }),
		figure("maxwell_node_power_budget_watts", prometheus.GaugeValue, "node.allowance_uw", micro, func(s *v1.Snapshot) int64 { return s.GetNode().GetBudgetUw() }),
		figure("maxwell_node_cores", prometheus.GaugeValue, "node.cores_milli", milli, func(s *v1.Snapshot) int64 { return s.GetNode().GetCoresMilli() }),
		figure("maxwell_node_cores_share_ratio", prometheus.GaugeValue, "node.share_ppm", micro, func(s *v1.Snapshot) int64 { return s.GetNode().GetSharePpm() }),
		figure("maxwell_node_epochs_total", prometheus.CounterValue, "node.epochs", whole, func(s *v1.Snapshot) int64 { return s.GetNode().GetEpochs() }),
		figure("maxwell_node_epoch_seconds", prometheus.GaugeValue, "node.epoch_us", micro, func(s *v1.Snapshot) int64 { return s.GetNode().GetEpochUs() }),
		figure("maxwell_node_lateness_max_seconds", prometheus.GaugeValue, "node.late_max_ns", nano, func(s *v1.Snapshot) int64 { return s.GetNode().GetLateMaxNs() }),
		figure("maxwell_node_misdelivery_ratio", prometheus.GaugeValue, "node.misdelivery_ppm", micro, func(s *v1.Snapshot) int64 { return s.GetNode().GetMisdeliveryPpm() }),
		figure("maxwell_node_self_cpu_seconds_total", prometheus.CounterValue, "node.self_cpu_ns", nano, func(s *v1.Snapshot) int64 { return s.GetNode().GetSelfCpuNs() }),
	}
}

func priceRows() []row {
	return []row{
		figure("maxwell_price_spot_ratio", prometheus.GaugeValue, "price.spot_x_milli", milli, func(s *v1.Snapshot) int64 { return s.GetPrice().GetSpotXMilli() }),
		figure("maxwell_price_spot_peak_ratio", prometheus.GaugeValue, "price.spot_peak_x_milli", milli, func(s *v1.Snapshot) int64 { return s.GetPrice().GetSpotPeakXMilli() }),
		figure("maxwell_price_base_credits_per_core_second", prometheus.GaugeValue, "price.base_ucredits_per_core_s", micro, func(s *v1.Snapshot) int64 { return s.GetPrice().GetBaseUcreditsPerCoreS() }),
		figure("maxwell_price_grid_ratio", prometheus.GaugeValue, "price.grid_ppm", micro, func(s *v1.Snapshot) int64 { return s.GetPrice().GetGridPpm() }),
	}
}

// Accounts as labels: those that exist once, and one for each kind of the
// others, so that no name of a workload is in a label and the values sum to 0.
var (
	single = []string{"mint", "heat", "entropy", "treasury", "system", "loss"}
	many   = map[string]string{"wallet": "wallets", "deposit": "deposits", "lease": "leases", "bond": "bonds"}
)

func ledgerRows() []row {
	return []row{
		{
			name: "maxwell_ledger_account_credits", kind: prometheus.GaugeValue, help: help(nil, "ledger.accounts"),
			keys: []string{"ledger.accounts"}, labels: []string{"account"},
			read: func(v *view, e emit) {
				sums := make(map[string]int64)
				for name, ucredits := range v.snapshot.GetLedger().GetAccounts() {
					sums[account(name)] += ucredits
				}
				for name, ucredits := range sums {
					e(float64(ucredits)/micro, name)
				}
			},
		},
		figure("maxwell_ledger_minted_credits_total", prometheus.CounterValue, "ledger.minted_ucredits", micro, func(s *v1.Snapshot) int64 { return s.GetLedger().GetMintedUcredits() }),
		figure("maxwell_ledger_sum_credits", prometheus.GaugeValue, "ledger.sum_ucredits", micro, func(s *v1.Snapshot) int64 { return s.GetLedger().GetSumUcredits() }),
	}
}

// account is the label of an account's name.
func account(name string) string {
	if slices.Contains(single, name) {
		return name
	}
	kind, _, _ := strings.Cut(name, ":")
	if label := many[kind]; label != "" {
		return label
	}
	return other
}

// counter is a figure of a workload that only grows; its parts are counted
// one by one under "other".
type counter struct {
	name  string
	keys  []string // the whole (with parts), then each part
	label string   // of the parts; "" if there is one
	parts []string
	scale float64
	get   func(*v1.Workload) []int64 // one a part
}

var counters = []counter{
	{
		name: "maxwell_workload_energy_joules_total", keys: []string{"workload.energy_uj"}, scale: micro,
		get: func(w *v1.Workload) []int64 { return []int64{w.GetEnergyUj()} },
	},
	{
		name: "maxwell_workload_cpu_seconds_total", keys: []string{"workload.cpu_ns"}, scale: nano,
		get: func(w *v1.Workload) []int64 { return []int64{w.GetCpuNs()} },
	},
	{
		name: "maxwell_workload_wait_seconds_total", keys: []string{"workload.wait_ns"}, scale: nano,
		get: func(w *v1.Workload) []int64 { return []int64{w.GetWaitNs()} },
	},
	{
		name: "maxwell_workload_spent_credits_total", label: "part", parts: []string{"energy", "rent", "erasure", "other"}, scale: micro,
		keys: []string{
			"workload.spent_ucredits", "workload.energy_ucredits", "workload.rent_ucredits", "workload.erasure_ucredits", "workload.other_ucredits",
		},
		get: func(w *v1.Workload) []int64 {
			return []int64{w.GetEnergyUcredits(), w.GetRentUcredits(), w.GetErasureUcredits(), w.GetOtherUcredits()}
		},
	},
	{
		name: "maxwell_workload_income_credits_total", keys: []string{"workload.income_ucredits"}, scale: micro,
		get: func(w *v1.Workload) []int64 { return []int64{w.GetIncomeUcredits()} },
	},
	{
		name: "maxwell_workload_work_units_total", keys: []string{"workload.work"}, scale: whole,
		get: func(w *v1.Workload) []int64 { return []int64{w.GetWork()} },
	},
}

// row is the metric of counters[i].
func (c counter) row(i int) row {
	r := row{name: c.name, kind: prometheus.CounterValue, help: help(c.parts, c.keys...), keys: c.keys, labels: []string{"workload"}}
	if c.label != "" {
		r.labels = append(r.labels, c.label)
	}
	r.read = func(v *view, e emit) {
		one := func(name string, values []int64) {
			for part, value := range values {
				if c.label == "" {
					e(float64(value)/c.scale, name)
				} else {
					e(float64(value)/c.scale, name, c.parts[part])
				}
			}
		}
		for _, s := range v.shown {
			one(s.label, c.get(s.workload))
		}
		one(other, v.other[i])
	}
	return r
}

// states are what a workload can be in; a word that is none of them is shown
// as unknown.
var states = []string{"pending", "running", "waiting", "broke", "paused", "dying", "dead", unknown}

const unknown = "unknown"

func stateOf(w *v1.Workload) string {
	if slices.Contains(states, w.GetState()) {
		return w.GetState()
	}
	return unknown
}

func gaugeRows() []row {
	return []row{
		gauge("maxwell_workload_balance_credits", "workload.balance_ucredits", micro, true, (*v1.Workload).GetBalanceUcredits),
		gauge("maxwell_workload_power_watts", "workload.power_now_uw", micro, true, (*v1.Workload).GetPowerUw),
		gauge("maxwell_workload_cores", "workload.cores_now_milli", milli, true, (*v1.Workload).GetCoresNowMilli),
		gauge("maxwell_workload_bid_ratio", "workload.bid_milli", milli, false, (*v1.Workload).GetBidMilli),
		gauge("maxwell_workload_price_ratio", "workload.last_price_x_milli", milli, false, (*v1.Workload).GetPriceMilli),
		gauge("maxwell_workload_memory_peak_bytes", "workload.peak_memory_bytes", whole, false, (*v1.Workload).GetPeakMemoryBytes),
		{
			name: "maxwell_workload_state", kind: prometheus.GaugeValue, keys: []string{"workload.state"}, labels: []string{"workload", "state"},
			help: "1 for the state that the workload is in, 0 for the others",
			read: func(v *view, e emit) {
				for _, s := range v.shown {
					for _, state := range states {
						in := 0.0
						if stateOf(s.workload) == state {
							in = 1
						}
						e(in, s.label, state)
					}
				}
			},
		},
		{
			name: "maxwell_workloads", kind: prometheus.GaugeValue, keys: []string{"workload.state"}, labels: []string{"state"},
			help: "Workloads of the market by state, those under other included",
			read: func(v *view, e emit) {
				count := make(map[string]int)
				for _, w := range v.snapshot.GetWorkloads() {
					count[stateOf(w)]++
				}
				for _, state := range states {
					e(float64(count[state]), state)
				}
			},
		},
	}
}

// gauge is a figure of a workload at this moment; those that can be added are
// shown for "other" too.
func gauge(name, key string, scale float64, summed bool, get func(*v1.Workload) int64) row {
	return row{
		name: name, kind: prometheus.GaugeValue, help: help(nil, key), keys: []string{key}, labels: []string{"workload"},
		read: func(v *view, e emit) {
			for _, s := range v.shown {
				e(float64(get(s.workload))/scale, s.label)
			}
			if !summed {
				return
			}
			var sum int64
			for _, w := range v.rest {
				sum += get(w)
			}
			e(float64(sum)/scale, other)
		},
	}
}
