// Package plan is what the host tells the guest's first process to run.
package plan

// Mark begins every line of the guest's first process.
const Mark = "@@vm"

// Step is one binary to run.
type Step struct {
	Name      string   `json:"name"`
	Args      []string `json:"args"`
	Dir       string   `json:"dir"`
	Env       []string `json:"env"`
	TimeoutMS int64    `json:"timeout_ms"`
}
