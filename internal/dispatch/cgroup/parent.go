package cgroup

import (
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// Parent names the directory of which every wallet's is a child, for the
// meter. The v1 directories are those the market made, by controller.
func (e *Enforcer) Parent() host.CgroupRef {
	var ref host.CgroupRef
	for i := range e.plan.places {
		p, dir := &e.plan.places[i], e.roots[i].Dir
		if p.v2 {
			id, err := host.CgroupID(dir)
			if err == nil {
				ref.ID, ref.Dir = id, dir
			}
			continue
		}
		if ref.V1 == nil {
			ref.V1 = make(map[host.Controller]string)
		}
		for _, c := range p.carries {
			ref.V1[c] = dir
		}
	}
	return ref
}
