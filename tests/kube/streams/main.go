// streams is the half of a kubelet that a lab without container images needs: a node whose containers are local commands.
//
// It serves exec, attach, port-forward and logs with the kubelet's own packages, so that framing, resizing, end of input and
// exit codes are the real ones, and it starts, reports and ends the pods that are given to its node (node.go).  Everything
// of a container is below -dir/NAMESPACE/POD/CONTAINER (container.go).
//
// It runs what it is asked to as root: it answers only those with a certificate of -client-ca, and belongs into namespaces
// (net, mount, pid) of its own.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	streamed "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
)

const (
	idle   = 4 * time.Hour    // the kubelet's --streaming-connection-idle-timeout
	create = 30 * time.Second // and what it gives a client to open the streams of a connection
)

func main() {
	address := flag.String("address", "", "of the node and its pods")
	port := flag.Int("port", 10250, "that it listens on there")
	certificate, key := flag.String("cert", "", "PEM"), flag.String("key", "", "PEM")
	clientCA := flag.String("client-ca", "", "PEM: who signs the API server's client certificate")
	directory := flag.String("dir", "", "where containers are")
	kubeconfig := flag.String("kubeconfig", "", "as whom the node watches its pods")
	name := flag.String("node", "node", "name of the node")
	flag.Parse()

	pods := newPods(*directory)
	pem, err := os.ReadFile(*clientCA)
	trusted := x509.NewCertPool()
	if err != nil || !trusted.AppendCertsFromPEM(pem) {
		log.Fatalf("-client-ca: %v", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(*address, strconv.Itoa(*port)))
	if err != nil {
		log.Fatal(err)
	}
	go runNode(*kubeconfig, *name, *address, int32(*port), pods)
	server := &http.Server{
		Handler:      handlers(pods),
		TLSConfig:    &tls.Config{ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // streams are taken over: HTTP/1.1
	}
	log.Fatal(server.ServeTLS(listener, *certificate, *key))
}

// The paths that the API server asks a kubelet for.
func handlers(pods *pods) http.Handler {
	mux := http.NewServeMux()
	streaming := func(what string, serve func(http.ResponseWriter, *http.Request, *container, *streamed.Options)) {
		mux.HandleFunc("/"+what+"/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
			options, err := streamed.NewOptions(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			c, err := pods.container(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusNotFound)
				return
			}
			serve(w, r, c, options)
		})
	}
	streaming("exec", func(w http.ResponseWriter, r *http.Request, c *container, o *streamed.Options) {
		streamed.ServeExec(w, r, c, c.pod, "", c.name, r.URL.Query()["command"], o, idle, create, remotecommand.SupportedStreamingProtocols)
	})
	streaming("attach", func(w http.ResponseWriter, r *http.Request, c *container, o *streamed.Options) {
		streamed.ServeAttach(w, r, c, c.pod, "", c.name, o, idle, create, remotecommand.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/portForward/{namespace}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		options, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		to := forwarder{pods.home(r.PathValue("namespace"), r.PathValue("pod"))}
		portforward.ServePortForward(w, r, to, r.PathValue("pod"), "", options, idle, create, portforward.SupportedProtocols)
	})
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		c, err := pods.container(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		serveLogs(w, r, c)
	})
	return mux
}
