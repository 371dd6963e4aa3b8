package report

import (
	"reflect"
	"strings"
	"testing"
)

// TestKeysOfStatement: every key of the JSON document has its meaning written
// down, in its order, and no key twice.
func TestKeysOfStatement(t *testing.T) {
	var want []string
	s := reflect.TypeFor[Statement]()
	for field := range s.Fields() {
		inner := field.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		object := strings.TrimSuffix(field.Tag.Get("json"), "s")
		for field := range inner.Fields() {
			want = append(want, object+"."+field.Tag.Get("json"))
		}
	}
	seen := map[string]bool{}
	for i, k := range Keys() {
		name := k.Object + "." + k.Name
		if i < len(want) && name != want[i] {
			t.Errorf("key %d is %s, the statement has %s", i, name, want[i])
		}
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if k.Help == "" || strings.HasSuffix(k.Help, ".") || strings.ContainsAny(k.Help, "|\n") || Help(k.Object, k.Name) != k.Help {
			t.Errorf("%s means %q", name, k.Help)
		}
	}
	if len(seen) < len(want) {
		t.Errorf("%d keys, the statement alone has %d", len(seen), len(want))
	}
	if Help("node", "none") != "" {
		t.Error("a key that does not exist has a meaning")
	}
}
