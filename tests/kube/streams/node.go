package main

import (
	"context"
	"encoding/json"
	"log"
	"sync"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// The node: it says that it is there, takes every pod that has no node yet (there is no scheduler), and runs the pods it has.
type node struct {
	client        kubernetes.Interface
	name, address string
	port          int32 // that this program listens on
	pods          *pods
	lock          sync.Mutex
	running       map[types.UID]*running
}

// A pod that runs here.  One goroutine has it; the watch hands it the pod as it is now.
type running struct {
	changed    chan *core.Pod // holds the newest
	containers map[string]*container
	failed     map[string]string // why one could not start
}

func runNode(kubeconfig, name, address string, port int32, pods *pods) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		log.Fatalf("-kubeconfig: %v", err)
	}
	config.QPS, config.Burst = -1, -1
	n := &node{client: kubernetes.NewForConfigOrDie(config), name: name, address: address, port: port, pods: pods, running: map[types.UID]*running{}}
	n.register(context.Background())
	n.watch("spec.nodeName=", n.bind, func(*core.Pod) {}) // gone from here: it has a node now
	n.watch("spec.nodeName="+name, n.hand, n.forget)
}

func (n *node) register(ctx context.Context) {
	made, err := n.client.CoreV1().Nodes().Create(ctx, &core.Node{ObjectMeta: meta.ObjectMeta{
		Name: n.name, Labels: map[string]string{"kubernetes.io/hostname": n.name, "kubernetes.io/os": "linux"}}}, meta.CreateOptions{})
	if err != nil {
		log.Fatalf("node: %v", err)
	}
	now := meta.Now()
	made.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP, Address: n.address}}
	made.Status.DaemonEndpoints.KubeletEndpoint.Port = n.port
	made.Status.Conditions = []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: now, LastTransitionTime: now}}
	if _, err := n.client.CoreV1().Nodes().UpdateStatus(ctx, made, meta.UpdateOptions{}); err != nil {
		log.Fatalf("node: %v", err)
	}
}

func (n *node) watch(selector string, changed, gone func(*core.Pod)) {
	source := cache.NewListWatchFromClient(n.client.CoreV1().RESTClient(), "pods", "", fields.ParseSelectorOrDie(selector))
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source, ObjectType: &core.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { changed(object.(*core.Pod)) },
			UpdateFunc: func(_, object any) { changed(object.(*core.Pod)) },
			DeleteFunc: func(object any) {
				if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = last.Obj
				}
				gone(object.(*core.Pod))
			},
		},
	})
	go controller.Run(make(chan struct{}))
}

func (n *node) bind(pod *core.Pod) {
	if pod.DeletionTimestamp != nil || pod.Spec.SchedulerName != core.DefaultSchedulerName || len(pod.Spec.SchedulingGates) > 0 {
		return
	}
	err := n.client.CoreV1().Pods(pod.Namespace).Bind(context.Background(), &core.Binding{
		ObjectMeta: meta.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
		Target:     core.ObjectReference{Kind: "Node", Name: n.name},
	}, meta.CreateOptions{})
	if err != nil && !errors.IsConflict(err) && !errors.IsNotFound(err) {
		log.Printf("bind %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}

func (n *node) hand(pod *core.Pod) {
	n.lock.Lock()
	defer n.lock.Unlock()
	one, ok := n.running[pod.UID]
	if !ok {
		one = &running{changed: make(chan *core.Pod, 1), containers: map[string]*container{}, failed: map[string]string{}}
		n.running[pod.UID] = one
		go n.run(one)
	}
	select {
	case <-one.changed:
	default:
	}
	one.changed <- pod
}

// forget ends a pod that was deleted without grace.
func (n *node) forget(pod *core.Pod) {
	n.lock.Lock()
	one, ok := n.running[pod.UID]
	delete(n.running, pod.UID)
	n.lock.Unlock()
	if ok {
		select {
		case <-one.changed:
		default:
		}
		close(one.changed)
	}
}

func (n *node) run(one *running) {
	ended := make(chan struct{}, 64)
	var pod *core.Pod
	for {
		select {
		case now, ok := <-one.changed:
			if !ok {
				n.end(one, pod, 0)
				return
			}
			pod = now
			if pod.DeletionTimestamp != nil {
				n.end(one, pod, time.Duration(*pod.DeletionGracePeriodSeconds)*time.Second)
				n.confirm(pod)
				continue
			}
			if !n.startMissing(one, pod, ended) {
				continue
			}
		case <-ended:
			if pod.DeletionTimestamp != nil {
				continue
			}
		}
		n.report(one, pod)
	}
}

// startMissing starts what does not run yet, init containers one after the other; whether it started any.
func (n *node) startMissing(one *running, pod *core.Pod, ended chan<- struct{}) bool {
	any := false
	start := func(spec *core.Container) *container {
		if made := one.containers[spec.Name]; made != nil || one.failed[spec.Name] != "" {
			return nil
		}
		any = true
		made := n.pods.add(pod.Namespace, pod.Name, spec.Name)
		if err := made.start(spec); err != nil {
			one.failed[spec.Name] = err.Error()
			return nil
		}
		one.containers[spec.Name] = made
		go func() {
			<-made.done
			ended <- struct{}{}
		}()
		return made
	}
	for i := range pod.Spec.InitContainers {
		if made := start(&pod.Spec.InitContainers[i]); made != nil {
			<-made.done
		}
	}
	for i := range pod.Spec.Containers {
		start(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		spec := core.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		start(&spec)
	}
	return any
}

func (n *node) end(one *running, pod *core.Pod, grace time.Duration) {
	for _, each := range one.containers {
		if !each.ended() {
			syscall.Kill(-each.main.Process.Pid, syscall.SIGTERM)
		}
	}
	late := time.After(grace)
	for _, each := range one.containers {
		select {
		case <-each.done:
		case <-late:
			late = time.After(0)
			syscall.Kill(-each.main.Process.Pid, syscall.SIGKILL)
			<-each.done
		}
	}
	n.pods.remove(pod.Namespace, pod.Name, pod.UID)
}

func (n *node) confirm(pod *core.Pod) {
	now := int64(0)
	err := n.client.CoreV1().Pods(pod.Namespace).Delete(context.Background(), pod.Name, meta.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &meta.Preconditions{UID: &pod.UID}})
	if err != nil && !errors.IsNotFound(err) && !errors.IsConflict(err) {
		log.Printf("delete %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}

// report writes the status, which is nobody else's.
func (n *node) report(one *running, pod *core.Pod) {
	now := meta.Now()
	status := core.PodStatus{
		Phase: core.PodRunning, HostIP: n.address, PodIP: n.address, StartTime: &pod.CreationTimestamp,
		HostIPs: []core.HostIP{{IP: n.address}}, PodIPs: []core.PodIP{{IP: n.address}}, QOSClass: core.PodQOSBestEffort,
	}
	ready, over, good := true, true, true
	for i := range pod.Spec.InitContainers {
		status.InitContainerStatuses = append(status.InitContainerStatuses, one.status(pod, &pod.Spec.InitContainers[i]))
	}
	for i := range pod.Spec.Containers {
		each := one.status(pod, &pod.Spec.Containers[i])
		ready, over = ready && each.Ready, over && each.State.Terminated != nil
		good = good && each.State.Terminated != nil && each.State.Terminated.ExitCode == 0
		status.ContainerStatuses = append(status.ContainerStatuses, each)
	}
	for i := range pod.Spec.EphemeralContainers {
		spec := core.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		status.EphemeralContainerStatuses = append(status.EphemeralContainerStatuses, one.status(pod, &spec))
	}
	if over && pod.Spec.RestartPolicy != core.RestartPolicyAlways {
		status.Phase = core.PodFailed
		if good {
			status.Phase = core.PodSucceeded
		}
	}
	for _, kind := range []core.PodConditionType{core.PodScheduled, core.PodInitialized, core.ContainersReady, core.PodReady} {
		state := core.ConditionTrue
		if !ready && (kind == core.ContainersReady || kind == core.PodReady) {
			state = core.ConditionFalse
		}
		status.Conditions = append(status.Conditions, core.PodCondition{Type: kind, Status: state, LastTransitionTime: now})
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		log.Fatal(err)
	}
	_, err = n.client.CoreV1().Pods(pod.Namespace).Patch(context.Background(), pod.Name, types.MergePatchType, patch, meta.PatchOptions{}, "status")
	if err != nil && !errors.IsNotFound(err) && !errors.IsConflict(err) {
		log.Printf("status of %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}

func (r *running) status(pod *core.Pod, spec *core.Container) core.ContainerStatus {
	made := core.ContainerStatus{Name: spec.Name, Image: spec.Image, ImageID: "lab://" + spec.Image,
		ContainerID: "lab://" + string(pod.UID) + "/" + spec.Name}
	each := r.containers[spec.Name]
	if each == nil {
		made.State.Waiting = &core.ContainerStateWaiting{Reason: "RunContainerError", Message: r.failed[spec.Name]}
		return made
	}
	if each.ended() {
		reason := "Completed"
		if each.status != 0 {
			reason = "Error"
		}
		made.State.Terminated = &core.ContainerStateTerminated{ExitCode: int32(each.status), Reason: reason,
			StartedAt: meta.NewTime(each.started), FinishedAt: meta.Now(), ContainerID: made.ContainerID}
		return made
	}
	yes := true
	made.Ready, made.Started = true, &yes
	made.State.Running = &core.ContainerStateRunning{StartedAt: meta.NewTime(each.started)}
	return made
}
