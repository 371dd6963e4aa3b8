package strict

// Field is one scalar key: how to set it from text, how to write it back.
// Get returns "" when the value is the default and need not be written.
type Field[T any] struct {
	Name    string
	Example string
	Set     func(t *T, text string) error
	Get     func(t *T) string
}

// Find returns the field of that name, or nil.
func Find[T any](fields []Field[T], name string) *Field[T] {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

// Names are the fields' names in their order.
func Names[T any](fields []Field[T]) []string {
	out := make([]string, len(fields))
	for i := range fields {
		out[i] = fields[i].Name
	}
	return out
}
