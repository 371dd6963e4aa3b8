package api

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// TestListsAreLong: every call that answers with a list counts as one whose answer may be
// long.
func TestListsAreLong(t *testing.T) {
	methods := v1.File_maxwell_v1_market_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		fields := m.Output().Fields()
		for j := range fields.Len() {
			f := fields.Get(j)
			if f.IsList() && f.Kind() == protoreflect.MessageKind && !long[string(m.Name())] {
				t.Errorf("%s answers with %s, and is not among those whose answers may be long", m.Name(), f.Name())
			}
		}
	}
}
