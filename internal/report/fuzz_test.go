package report

import (
	"encoding/json"
	"testing"
)

// FuzzFraction: what is read is written as the same number, and nothing but a
// number of sense is read.
func FuzzFraction(f *testing.F) {
	for _, text := range []string{"0", "0.02", "-1.5", "1e6", "1e999", "1000000.0000001", "null", `"NaN"`, "0.0000005", "-0", "[1]"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var v, again Fraction
		if json.Unmarshal(text, &v) != nil {
			return
		}
		written, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s is %d, which cannot be written: %v", text, v, err)
		}
		if err := json.Unmarshal(written, &again); err != nil || again != v {
			t.Fatalf("%s is %d, written %s, read %d, %v", text, v, written, again, err)
		}
		if v < -1e12 || v > 1e12 {
			t.Fatalf("%s is %d", text, v)
		}
	})
}
