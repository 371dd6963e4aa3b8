// Empty: functions without a body (poll.go) need an assembly file in the package.
