package fleet

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/internal/strict"
)

// Format writes a fleet as a file that Parse reads back to the same value.
// Keys at their default are left out.
func Format(f *Fleet) []byte {
	var b bytes.Buffer
	var node bytes.Buffer
	for _, field := range nodeFields {
		if text := field.Get(&f.Node); text != "" {
			fmt.Fprintf(&node, "  %s: %s\n", field.Name, strict.Quote(text))
		}
	}
	if node.Len() > 0 {
		b.WriteString("node:\n")
		b.Write(node.Bytes())
	}
	b.WriteString("workloads:\n")
	for i := range f.Workloads {
		formatWorkload(&b, &f.Workloads[i])
	}
	return b.Bytes()
}

func formatWorkload(b *bytes.Buffer, w *Workload) {
	fmt.Fprintf(b, "  %s:\n    command: [", strict.Quote(w.Name))
	for i, word := range w.Command {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strict.Quote(word))
	}
	b.WriteString("]\n")
	for _, field := range workloadFields {
		if text := field.Get(w); text != "" {
			fmt.Fprintf(b, "    %s: %s\n", field.Name, strict.Quote(text))
		}
	}
	if w.Income.Per != "" {
		fmt.Fprintf(b, "    income: {per: %s, amount: %s}\n", strict.Quote(w.Income.Per), strict.Quote(w.Income.Amount.String()))
	}
	if len(w.Env) > 0 {
		b.WriteString("    env:\n")
		for _, name := range slices.Sorted(maps.Keys(w.Env)) {
			fmt.Fprintf(b, "      %s: %s\n", strict.Quote(name), strict.Quote(w.Env[name]))
		}
	}
}
