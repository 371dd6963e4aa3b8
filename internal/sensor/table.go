package sensor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// estimate is what the processor's identity says about its power.
type estimate struct {
	source physics.Source
	sigma  unit.PPM
	core   unit.Microwatts // dynamic, per logical core
	idle   unit.Microwatts // of the node
	basis  string
}

// genericCore is the dynamic power of one busy core of an unknown machine:
// 9.8 W, the log-middle of 4 W (a dense server with every core busy) and 24 W
// (a desktop core alone at its boost clock). Both ends are two and a half
// times away, hence the declared 50 %. It sets the base price of most clouds;
// changing it changes every price shown there.
const genericCore unit.Microwatts = 9_800_000

// genericIdle is the idle power per core of an unknown machine, 15 % of a core
// at work.
const genericIdle unit.Microwatts = 1_500_000

// secondThread is what a core draws with both hardware threads busy, against
// one: 1.2 (simultaneous multithreading adds 10-30 %). A logical processor of
// such a core then counts for 0.6 of it.
const secondThread unit.PPM = 1_200_000

// idleShare is the part of a package's rated power that it draws idle, between
// the 10 and 15 % usual where nothing better is known.
const idleShare unit.PPM = 125_000

// rating is the range of rated (thermal design) power of one package over the
// parts of a generation. It belongs to the package and not to the core: vendors
// sell 16 and 64 cores at similar ratings. The model takes the middle, and half
// the range widens the declared sigma.
type rating struct {
	vendor   string
	family   int    // 0 = any
	models   []int  // nil = every model of the family
	word     string // in the model name
	low, top unit.Microwatts
}

const watt unit.Microwatts = 1_000_000

// ratings lists server and workstation parts by generation, from the vendors'
// published specifications; the first row that matches serves. Desktops and
// laptops span a factor of ten in one generation and have no row: where their
// firmware publishes a power limit that is used instead (see zoneLimits).
func ratings() []rating {
	return []rating{
		{"AuthenticAMD", 23, []int{1}, "EPYC", 120 * watt, 180 * watt},              // Naples
		{"AuthenticAMD", 23, []int{49}, "EPYC", 155 * watt, 280 * watt},             // Rome
		{"AuthenticAMD", 25, []int{1}, "EPYC", 155 * watt, 280 * watt},              // Milan
		{"AuthenticAMD", 25, []int{17, 160}, "EPYC", 200 * watt, 400 * watt},        // Genoa, Bergamo
		{"AuthenticAMD", 26, []int{2, 17}, "EPYC", 200 * watt, 500 * watt},          // Turin
		{"AuthenticAMD", 25, nil, "Threadripper", 280 * watt, 350 * watt},           // 5000 and 7000
		{"AuthenticAMD", 23, nil, "Threadripper", 180 * watt, 280 * watt},           // 1000 to 3000
		{"GenuineIntel", 6, []int{63, 79}, "Xeon(R) CPU E5", 85 * watt, 145 * watt}, // Haswell, Broadwell
		{"GenuineIntel", 6, []int{85}, "Xeon", 85 * watt, 205 * watt},               // Skylake, Cascade Lake
		{"GenuineIntel", 6, []int{106}, "Xeon", 150 * watt, 270 * watt},             // Ice Lake
		{"GenuineIntel", 6, []int{143, 207}, "Xeon", 185 * watt, 385 * watt},        // Sapphire, Emerald Rapids
		{"GenuineIntel", 6, []int{173}, "Xeon", 250 * watt, 500 * watt},             // Granite Rapids
	}
}

// rated is the middle of the range.
func (r rating) rated() unit.Microwatts { return (r.low + r.top) / 2 }

// sigma is half the range against its middle, at least what the source
// declares.
func (r rating) sigma() unit.PPM {
	half := unit.MulDiv(int64(r.top-r.low), int64(unit.One), int64(r.top+r.low))
	return max(unit.PPM(half), physics.SourceFamily.Sigma())
}

func (r rating) matches(p host.Processor) bool {
	if r.vendor != p.Vendor || (r.family != 0 && r.family != p.Family) || !strings.Contains(p.Model, r.word) {
		return false
	}
	return r.models == nil || slices.Contains(r.models, p.ModelNo)
}

// estimatePower is the best guess without any counter: rated power on bare
// metal where the firmware (limits, one per package) or the table knows it,
// else the generic figure. A virtual machine is always generic: which part of
// which core a virtual processor is can't be seen from inside.
func estimatePower(p host.Processor, limits []unit.Microwatts) estimate {
	logical := max(len(p.Online), 1)
	if !p.Hypervisor {
		if rated := sum(limits); rated > 0 {
			return spread(rated, logical, fmt.Sprintf("power limit %v over %d logical cores", rated.Short(), logical))
		}
		for _, r := range ratings() {
			if r.matches(p) {
				rated := r.rated() * unit.Microwatts(max(p.Packages, 1))
				e := spread(rated, logical, fmt.Sprintf("rated about %v over %d logical cores", rated.Short(), logical))
				e.sigma = r.sigma()
				return e
			}
		}
	}
	core := genericCore
	if p.Threads > 1 {
		core = unit.Microwatts(unit.MulDiv(int64(core), int64(secondThread), int64(unit.One)*int64(p.Threads)))
	}
	idle := genericIdle * unit.Microwatts(max(logical/max(p.Threads, 1), 1))
	return estimate{physics.SourceGeneric, physics.SourceGeneric.Sigma(), core, idle, "typical of a busy core of any make"}
}

// spread divides a machine's rated power over its logical cores: with all of
// them busy the model draws the rated power.
func spread(rated unit.Microwatts, logical int, basis string) estimate {
	idle := unit.Microwatts(unit.MulDiv(int64(rated), int64(idleShare), int64(unit.One)))
	return estimate{physics.SourceFamily, physics.SourceFamily.Sigma(), (rated - idle) / unit.Microwatts(logical), idle, basis}
}

func sum(list []unit.Microwatts) unit.Microwatts {
	var total unit.Microwatts
	for _, w := range list {
		total += w
	}
	return total
}
