package host

// Feature is an ability of the machine that Maxwell can use. The text is the
// word that doctor prints.
type Feature string

// Features, each with the probe that decides it.
const (
	FeatureCgroupCreate Feature = "cgroup-create"   // make and remove a cgroup v2 directory
	FeatureCgroupStart  Feature = "cgroup-start"    // start a child inside it (CLONE_INTO_CGROUP)
	FeatureCgroupFreeze Feature = "cgroup-freeze"   // stop and continue the child
	FeatureCgroupKill   Feature = "cgroup-kill"     // end the tree by cgroup.kill
	FeatureCgroupCPU    Feature = "cgroup-cpu"      // weigh groups: the cpu controller, on v2 or v1
	FeatureCgroupMemory Feature = "cgroup-memory"   // cap memory
	FeatureCgroupPids   Feature = "cgroup-pids"     // cap processes
	FeatureMark         Feature = "directory-marks" // xattr and flock on a cgroup directory
	FeatureBPF          Feature = "bpf"             // load the meter's programs
	FeatureNamespaces   Feature = "namespaces"      // user + pid namespace without privilege
	FeatureFIFO         Feature = "fifo"            // SCHED_FIFO for the epoch thread
	FeaturePowercap     Feature = "powercap"        // RAPL energy counters
	FeatureSchedExt     Feature = "sched-ext"       // schedulers in BPF
	FeatureSystemd      Feature = "systemd"         // a manager to ask for a delegated unit
)
