package main

import (
	"context"
	"net/http"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/util/flushwriter"
	cri "k8s.io/cri-api/pkg/apis"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // how queries become options
)

// What logs.ReadLogs asks of a container runtime: whether the container runs.
type asked struct {
	cri.RuntimeService
	container *container
}

func (a asked) ContainerStatus(context.Context, string, bool) (*runtime.ContainerStatusResponse, error) {
	state := runtime.ContainerState_CONTAINER_RUNNING
	if a.container.ended() {
		state = runtime.ContainerState_CONTAINER_EXITED
	}
	return &runtime.ContainerStatusResponse{Status: &runtime.ContainerStatus{State: state}}, nil
}

func serveLogs(w http.ResponseWriter, r *http.Request, c *container) {
	var options core.PodLogOptions
	if err := legacyscheme.ParameterCodec.DecodeParameters(r.URL.Query(), core.SchemeGroupVersion, &options); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Transfer-Encoding", "chunked")
	out := flushwriter.Wrap(w)
	err := logs.ReadLogs(r.Context(), nil, c.log(), "", logs.NewLogOptions(&options, time.Now()), asked{container: c}, out, out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}
