package config

import "strings"

// containerScopes are what container engines put before the id in the name of a
// group: docker-ID.scope, libpod-ID.scope (podman), cri-containerd-ID.scope,
// crio-ID.scope (CRI-O), nerdctl-ID.scope.
var containerScopes = []string{"docker-", "libpod-", "cri-containerd-", "crio-", "nerdctl-"}

// containerParents are groups below which engines without systemd make a group
// that is called like the container: docker/ID, kubepods/burstable/podUID/ID.
var containerParents = []string{"docker", "kubepods", "libpod_parent", "nerdctl"}

// ContainerOf returns the id of the container that a cgroup belongs to: the
// outermost, since that one's engine is the machine's. Groups of conmon and of
// pods are no containers.
func ContainerOf(cgroup string) (id string, ok bool) {
	below := false
	for segment := range strings.SplitSeq(strings.Trim(cgroup, "/"), "/") {
		if id, ok := containerSegment(segment, below); ok {
			return id, true
		}
		for _, parent := range containerParents {
			below = below || segment == parent
		}
	}
	return "", false
}

func containerSegment(segment string, below bool) (string, bool) {
	name := strings.TrimSuffix(segment, ".scope")
	if below && isContainerID(name) {
		return name, true
	}
	for _, prefix := range containerScopes {
		if id, ok := strings.CutPrefix(name, prefix); ok && isContainerID(id) {
			return id, true
		}
	}
	// runc's systemd form, taken for a path: kubepods-podUID.slice:cri-containerd:ID
	if i := strings.LastIndexByte(name, ':'); i > 0 && strings.HasSuffix(name[:i], ":cri-containerd") && isContainerID(name[i+1:]) {
		return name[i+1:], true
	}
	return "", false
}

// isContainerID: 64 hexadecimal digits, as all engines that are known here make.
func isContainerID(text string) bool { return len(text) == 64 && isHex(text) }

func isHex(text string) bool { return strings.Trim(text, "0123456789abcdef") == "" }
