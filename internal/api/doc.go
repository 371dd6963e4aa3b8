// Package api is how a client of a market talks to it: one proto, Connect-RPC
// (gRPC, gRPC-Web and plain JSON over HTTP) on one unix socket, and the
// identity of the caller from the kernel, not from the request.
//
// A user's own market listens on a socket of mode 0600 in a directory of mode
// 0700, and looks at every connection's peer again. A daemon's socket may be open
// to a group or to everybody (Access): who is at the other end is recorded when
// the connection is made (Caller: user, process, cgroup), and whoever holds the
// descriptor later speaks for that process. A session token, handed out by Join,
// names the session inside the caller's authority; it is not a secret that
// replaces the check. Others than admins are held to bounds (limits.go). Other
// machines may call by mutual TLS, where a daemon is told to serve them
// (remote.go).
//
// The package has the generated code (maxwell/v1), the listeners and their
// bounds; what the calls mean is in internal/node.
package api
