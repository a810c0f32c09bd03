// clientgo is a program with client-go, as an operator of Kubernetes is one: typed, in JSON or in protobuf, over HTTP/2.
//
//	clientgo [-kubeconfig FILE] [-content-type application/json|application/vnd.kubernetes.protobuf] [-n NAMESPACE] VERB ...
//
//	get KIND NAME, list KIND [LIMIT], create KIND NAME KEY=VALUE..., update KIND NAME KEY=VALUE..., delete KIND NAME
//	                                    KIND: configmap, secret, pod (create: VALUE of `image`)
//	watch KIND COUNT                    so many events, one a line (it says `watching` first, on standard error)
//	inform KIND COUNT                   an informer's, until it has so many (KUBE_FEATURE_WatchListClient=true: by WatchList)
//	exec POD WORD...                    standard input is handed on; ends with the command's status
//	forward POD PORT                    standard input to that port, what it answers to standard output
//	logs POD
//	fill PREFIX COUNT ETCD              so many pods that look like some that run, on no node; ETCD: host:port
//
// Objects are printed as JSON, one a line.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

type program struct {
	config    *rest.Config
	client    *kubernetes.Clientset
	namespace string
	out       *json.Encoder
}

func main() {
	log.SetFlags(0)
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "")
	content := flag.String("content-type", runtime.ContentTypeJSON, "")
	namespace := flag.String("n", "shop", "")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	check(err)
	config.ContentType, config.AcceptContentTypes = *content, *content
	config.QPS = -1
	p := program{config, kubernetes.NewForConfigOrDie(config), *namespace, json.NewEncoder(os.Stdout)}
	err = p.do(context.Background(), flag.Arg(0), flag.Args()[min(1, flag.NArg()):])
	var ended utilexec.CodeExitError
	if errors.As(err, &ended) {
		os.Exit(ended.Code)
	}
	check(err)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func (p program) do(ctx context.Context, verb string, words []string) error {
	switch {
	case verb == "get" && len(words) == 2:
		return p.get(ctx, words[0], words[1])
	case verb == "list" && len(words) >= 1:
		return p.list(ctx, words[0], words[1:])
	case (verb == "create" || verb == "update") && len(words) >= 2:
		return p.write(ctx, verb, words[0], words[1], words[2:])
	case verb == "delete" && len(words) == 2:
		return p.client.CoreV1().RESTClient().Delete().Namespace(p.namespace).Resource(words[0] + "s").Name(words[1]).Do(ctx).Error()
	case verb == "watch" && len(words) == 2:
		return p.watch(ctx, words[0], words[1])
	case verb == "inform" && len(words) == 2:
		return p.inform(ctx, words[0], words[1])
	case verb == "exec" && len(words) >= 2:
		return p.exec(ctx, words[0], words[1:])
	case verb == "forward" && len(words) == 2:
		return p.forward(words[0], words[1])
	case verb == "logs" && len(words) == 1:
		return p.logs(ctx, words[0])
	case verb == "fill" && len(words) == 3:
		return p.fill(ctx, words[0], words[1], words[2])
	}
	return fmt.Errorf("clientgo: %s %s: see its source", verb, strings.Join(words, " "))
}

func (p program) get(ctx context.Context, kind, name string) error {
	return p.print(p.client.CoreV1().RESTClient().Get().Namespace(p.namespace).Resource(kind + "s").Name(name).Do(ctx))
}

func (p program) list(ctx context.Context, kind string, limit []string) error {
	options := &meta.ListOptions{}
	if len(limit) > 0 {
		options.Limit, _ = strconv.ParseInt(limit[0], 10, 64)
	}
	for {
		got, err := p.client.CoreV1().RESTClient().Get().Namespace(p.namespace).Resource(kind+"s").VersionedParams(options, scheme.ParameterCodec).Do(ctx).Get()
		if err != nil {
			return err
		}
		if err := p.out.Encode(got); err != nil {
			return err
		}
		list, ok := got.(meta.ListInterface)
		if !ok || list.GetContinue() == "" {
			return nil
		}
		options.Continue = list.GetContinue()
	}
}

func (p program) print(result rest.Result) error {
	object, err := result.Get()
	if err != nil {
		return err
	}
	return p.out.Encode(object)
}

func (p program) write(ctx context.Context, verb, kind, name string, pairs []string) error {
	values := map[string]string{}
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		values[key] = value
	}
	client := p.client.CoreV1().RESTClient()
	var object runtime.Object
	switch kind {
	case "configmap":
		object = &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: name}, Data: values}
	case "secret":
		data := map[string][]byte{}
		for key, value := range values {
			data[key] = []byte(value)
		}
		object = &core.Secret{ObjectMeta: meta.ObjectMeta{Name: name}, Data: data}
	case "pod":
		object = &core.Pod{ObjectMeta: meta.ObjectMeta{Name: name}, Spec: core.PodSpec{Containers: []core.Container{{Name: "main", Image: values["image"]}}}}
	default:
		return fmt.Errorf("clientgo: %s is not known", kind)
	}
	if verb == "create" {
		return p.print(client.Post().Namespace(p.namespace).Resource(kind + "s").Body(object).Do(ctx))
	}
	return p.print(client.Put().Namespace(p.namespace).Resource(kind + "s").Name(name).Body(object).Do(ctx))
}

func (p program) watch(ctx context.Context, kind, count string) error {
	left, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	events, err := p.client.CoreV1().RESTClient().Get().Namespace(p.namespace).Resource(kind+"s").
		VersionedParams(&meta.ListOptions{Watch: true}, scheme.ParameterCodec).Watch(ctx)
	if err != nil {
		return err
	}
	defer events.Stop()
	log.Print("watching")
	for event := range events.ResultChan() {
		if err := p.out.Encode(map[string]any{"type": event.Type, "object": event.Object}); err != nil {
			return err
		}
		if left--; left == 0 {
			return nil
		}
	}
	return errors.New("the watch ended")
}

func (p program) inform(ctx context.Context, kind, count string) error {
	wanted, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	objects := map[string]runtime.Object{"configmap": &core.ConfigMap{}, "secret": &core.Secret{}, "pod": &core.Pod{}}
	source := cache.NewListWatchFromClient(p.client.CoreV1().RESTClient(), kind+"s", p.namespace, fields.Everything())
	ctx, cancel := context.WithCancel(ctx)
	seen := 0
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source, ObjectType: objects[kind],
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
			p.out.Encode(object.(meta.Object).GetName())
			if seen++; seen == wanted {
				cancel()
			}
		}},
	})
	controller.RunWithContext(ctx)
	return nil
}

func (p program) stream(path, pod string, options runtime.Object) *url.URL {
	request := p.client.CoreV1().RESTClient().Post().Namespace(p.namespace).Resource("pods").Name(pod).SubResource(path)
	if options != nil {
		request.VersionedParams(options, scheme.ParameterCodec)
	}
	return request.URL()
}

func (p program) exec(ctx context.Context, pod string, words []string) error {
	where := p.stream("exec", pod, &core.PodExecOptions{Command: words, Stdin: true, Stdout: true, Stderr: true})
	executor, err := remotecommand.NewWebSocketExecutor(p.config, http.MethodGet, where.String())
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
}

func (p program) forward(pod, port string) error {
	transport, upgrader, err := spdy.RoundTripperFor(p.config)
	if err != nil {
		return err
	}
	where := p.stream("portforward", pod, nil)
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, where)
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(where, p.config)
	if err != nil {
		return err
	}
	dialer = portforward.NewFallbackDialer(tunnel, dialer, func(error) bool { return true })
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(dialer, []string{"0:" + port}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	defer close(stop)
	failed := make(chan error, 1)
	go func() { failed <- forwarder.ForwardPorts() }()
	select {
	case err := <-failed:
		return err
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		return err
	}
	defer connection.Close()
	go func() {
		io.Copy(connection, os.Stdin)
		connection.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, connection)
	return err
}

func (p program) logs(ctx context.Context, pod string) error {
	stream, err := p.client.CoreV1().Pods(p.namespace).GetLogs(pod, &core.PodLogOptions{}).Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	_, err = io.Copy(os.Stdout, stream)
	return err
}

// fill makes one pod by the API, and puts the others beside it where the server keeps them: five thousand in a second or two.
func (p program) fill(ctx context.Context, prefix, count, etcd string) error {
	wanted, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	store, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}, DialTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := p.first(ctx, prefix+"-00000"); err != nil {
		return err
	}
	place := "/registry/pods/" + p.namespace + "/" + prefix + "-"
	found, err := store.Get(ctx, place+"00000")
	if err != nil {
		return err
	}
	codec := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	object, _, err := codec.Decode(found.Kvs[0].Value, nil, nil)
	if err != nil {
		return err
	}
	pod := object.(*core.Pod)
	for number := 1; number < wanted; {
		var puts []clientv3.Op
		for ; number < wanted && len(puts) < 100; number++ {
			ending := fmt.Sprintf("%05d", number)
			pod.Name, pod.UID = prefix+"-"+ending, uuid.NewUUID()
			pod.Status.PodIP = fmt.Sprintf("10.79.%d.%d", number>>8, number&255)
			pod.Status.PodIPs = []core.PodIP{{IP: pod.Status.PodIP}}
			var value bytes.Buffer
			if err := codec.Encode(pod, &value); err != nil {
				return err
			}
			puts = append(puts, clientv3.OpPut(place+ending, value.String()))
		}
		if _, err := store.Txn(ctx).Then(puts...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

// first makes a pod of about the size that pods of a deployment have.
func (p program) first(ctx context.Context, name string) error {
	limits := core.ResourceList{core.ResourceCPU: resource.MustParse("500m"), core.ResourceMemory: resource.MustParse("256Mi")}
	pods := p.client.CoreV1().Pods(p.namespace)
	made, err := pods.Create(ctx, &core.Pod{
		ObjectMeta: meta.ObjectMeta{
			Name: name, Labels: map[string]string{"app": "fill", "pod-template-hash": "7d9f8c5b64", "tier": "backend"},
			Annotations: map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
		},
		Spec: core.PodSpec{NodeName: "elsewhere", Containers: []core.Container{{
			Name: "app", Image: "registry.example/shop/app:1.4.2", Args: []string{"--listen=:8080", "--log=json"},
			Env:       []core.EnvVar{{Name: "MODE", Value: "production"}, {Name: "REGION", Value: "eu-central-1"}},
			Ports:     []core.ContainerPort{{Name: "http", ContainerPort: 8080}},
			Resources: core.ResourceRequirements{Limits: limits, Requests: limits},
		}}},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	now, yes := meta.Now(), true
	made.Status = core.PodStatus{
		Phase: core.PodRunning, HostIP: "10.78.0.9", PodIP: "10.78.9.9", StartTime: &now,
		Conditions: []core.PodCondition{{Type: core.PodScheduled, Status: core.ConditionTrue, LastTransitionTime: now},
			{Type: core.PodInitialized, Status: core.ConditionTrue, LastTransitionTime: now}, {Type: core.PodReady, Status: core.ConditionTrue, LastTransitionTime: now}},
		ContainerStatuses: []core.ContainerStatus{{Name: "app", Image: "registry.example/shop/app:1.4.2", ImageID: "lab://app", Ready: true, Started: &yes,
			ContainerID: "lab://" + string(made.UID), State: core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: now}}}},
	}
	_, err = pods.UpdateStatus(ctx, made, meta.UpdateOptions{})
	return err
}
