package launch

// Check reports why a command cannot be started, without starting it: the
// error is the one that Start would return for its program or its directory.
func Check(spec Spec) error {
	_, _, err := resolve(spec)
	return err
}
