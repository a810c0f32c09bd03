package main

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// A port of a pod is the same port of this network namespace's loopback, or what the file ports/NUMBER in the pod's
// directory names (address:port).
type forwarder struct{ home string }

func (f forwarder) address(port int32) string {
	number := strconv.Itoa(int(port))
	if named, err := os.ReadFile(filepath.Join(f.home, "ports", number)); err == nil {
		return strings.TrimSpace(string(named))
	}
	return net.JoinHostPort("127.0.0.1", number)
}

// PortForward carries one connection; either side may end its half first.
func (f forwarder) PortForward(ctx context.Context, _ string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", f.address(port))
	if err != nil {
		return err
	}
	defer connection.Close()
	go func() {
		io.Copy(connection, stream)
		connection.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, connection)
	return err
}
