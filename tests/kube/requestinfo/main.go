// requestinfo says how the API server reads requests: its own function for paths, and Go's own server for bytes.
//
// One JSON object a line in, one out.  In: {"method": M, "url": TARGET}, or {"raw": BASE64} with the bytes of a connection.
// Out, for the first request (`http.ReadRequest` of the bytes):
//
//	error    why it is refused, and nothing else
//	info     RequestInfoFactory.NewRequestInfo, or infoError
//	request  what was read: see type request
//
// and of `raw` also `served`: what net/http's server makes of the whole connection, its requests one after the other with
// their info and bodies, and `statuses`: those it answers (its own refusals too; 200 to what it hands on).
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
)

type asked struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	Raw    []byte `json:"raw"`
}

type read struct {
	Method           string      `json:"method"`
	Target           string      `json:"target"` // as it was sent
	Path             string      `json:"path"`   // decoded
	RawPath          string      `json:"rawPath,omitempty"`
	Query            string      `json:"query,omitempty"`
	Host             string      `json:"host"`
	Protocol         string      `json:"protocol"`
	Headers          http.Header `json:"headers"`
	ContentLength    int64       `json:"contentLength"` // -1: unknown
	TransferEncoding []string    `json:"transferEncoding,omitempty"`
	Close            bool        `json:"close"`
	Body             []byte      `json:"body,omitempty"`
	BodyError        string      `json:"bodyError,omitempty"`
	Trailers         http.Header `json:"trailers,omitempty"`
}

type seen struct {
	Error     string               `json:"error,omitempty"`
	Info      *request.RequestInfo `json:"info,omitempty"`
	InfoError string               `json:"infoError,omitempty"`
	Request   *read                `json:"request,omitempty"`
}

type answer struct {
	seen
	Served   []seen `json:"served,omitempty"`
	Statuses []int  `json:"statuses,omitempty"`
}

var factory = server.NewRequestInfoResolver(&server.Config{LegacyAPIGroupPrefixes: sets.NewString(server.DefaultLegacyAPIPrefix)})

func look(r *http.Request) seen {
	var found seen
	info, err := factory.NewRequestInfo(r)
	if err != nil {
		found.InfoError = err.Error()
	} else {
		found.Info = info
	}
	body, err := io.ReadAll(r.Body)
	found.Request = &read{
		Method: r.Method, Target: r.RequestURI, Path: r.URL.Path, RawPath: r.URL.RawPath, Query: r.URL.RawQuery, Host: r.Host,
		Protocol: r.Proto, Headers: r.Header, ContentLength: r.ContentLength, TransferEncoding: r.TransferEncoding, Close: r.Close,
		Body: body, Trailers: r.Trailer,
	}
	if err != nil {
		found.Request.BodyError = err.Error()
	}
	return found
}

// A connection whose client has said all that it says.
type told struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (t *told) Read(b []byte) (int, error)       { return t.in.Read(b) }
func (t *told) Write(b []byte) (int, error)      { return t.out.Write(b) }
func (t *told) Close() error                     { return nil }
func (t *told) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6443} }
func (t *told) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (t *told) SetDeadline(time.Time) error      { return nil }
func (t *told) SetReadDeadline(time.Time) error  { return nil }
func (t *told) SetWriteDeadline(time.Time) error { return nil }

type listener chan net.Conn

func (l listener) Accept() (net.Conn, error) { return <-l, nil }
func (l listener) Close() error              { return nil }
func (l listener) Addr() net.Addr            { return &net.TCPAddr{} }

type oracle struct {
	connections listener
	served      []seen
	closed      chan struct{}
}

// The server as the API server sets it up (SecureServingInfo.Serve), where that has a say in how requests are read.
func newOracle() *oracle {
	made := &oracle{connections: make(listener), closed: make(chan struct{})}
	serving := &http.Server{
		Handler:        http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { made.served = append(made.served, look(r)) }),
		MaxHeaderBytes: 1 << 20,
		ErrorLog:       log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				made.closed <- struct{}{}
			}
		},
	}
	go serving.Serve(made.connections)
	return made
}

func (o *oracle) serve(raw []byte) ([]seen, []int) {
	o.served = nil
	connection := &told{in: bytes.NewReader(raw)}
	o.connections <- connection
	<-o.closed
	var statuses []int
	answers := bufio.NewReader(&connection.out)
	for {
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			return o.served, statuses
		}
		io.Copy(io.Discard, response.Body)
		statuses = append(statuses, response.StatusCode)
	}
}

func first(raw []byte) seen {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return seen{Error: err.Error()}
	}
	return look(r)
}

func main() {
	whole := newOracle()
	lines, out := json.NewDecoder(bufio.NewReader(os.Stdin)), bufio.NewWriter(os.Stdout)
	made := json.NewEncoder(out)
	for {
		var line asked
		if err := lines.Decode(&line); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		var told answer
		if line.Raw != nil {
			told.seen = first(line.Raw)
			told.Served, told.Statuses = whole.serve(line.Raw)
		} else {
			told.seen = first([]byte(line.Method + " " + line.URL + " HTTP/1.1\r\nHost: kube.lab.example\r\n\r\n"))
		}
		if err := made.Encode(told); err != nil {
			log.Fatal(err)
		}
		out.Flush()
	}
}
