// Package api is how a client of a market talks to it: one proto, Connect-RPC
// (gRPC, gRPC-Web and plain JSON over HTTP) on one unix socket, and the
// identity of the caller from the kernel, not from the request.
//
// The socket is mode 0600 in a directory of mode 0700, and every connection's
// peer credentials are checked again when it is accepted, so a descriptor that
// leaked to another user is of no use to it. A session token, handed out by
// Join, names the session inside the process's authority; it is not a secret
// that replaces the check.
//
// The package has the generated code (maxwell/v1), the listener, and the
// client's connection; what the calls mean is in internal/node.
package api
