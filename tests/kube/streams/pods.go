package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// The containers that were started, by namespace, pod and name.
type pods struct {
	directory string
	lock      sync.Mutex
	all       map[[3]string]*container
}

func newPods(directory string) *pods {
	return &pods{directory: directory, all: map[[3]string]*container{}}
}

func (p *pods) home(namespace, pod string) string {
	return filepath.Join(p.directory, namespace, pod)
}

func (p *pods) container(namespace, pod, name string) (*container, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	found, ok := p.all[[3]string{namespace, pod, name}]
	if !ok {
		return nil, fmt.Errorf("container %s of pod %s/%s does not run here", name, namespace, pod)
	}
	return found, nil
}

func (p *pods) add(namespace, pod, name string) *container {
	made := &container{
		pod: pod, name: name, directory: filepath.Join(p.home(namespace, pod), name),
		beside: map[*exec.Cmd]bool{}, out: map[*attached]bool{}, done: make(chan struct{}),
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	p.all[[3]string{namespace, pod, name}] = made
	return made
}

func (p *pods) remove(namespace, pod string, uid types.UID) {
	p.lock.Lock()
	defer p.lock.Unlock()
	for key, one := range p.all {
		if key[0] == namespace && key[1] == pod {
			one.clear(uid)
			delete(p.all, key)
		}
	}
}
