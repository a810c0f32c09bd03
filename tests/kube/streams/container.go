package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// A container is this machine's file system, read-only, with /tmp and /root of its own.  Below its directory: `root` is
// where it is mounted, `tmp` and `home` what those two are, `log` its log in the format of the CRI.
//
// Its main process is the pod's own command, or one that says again what it is told (cat).
type container struct {
	pod, name, directory string

	mounted sync.Once
	broken  error // why it could not be mounted

	lock    sync.Mutex
	beside  map[*exec.Cmd]bool // what runs in it by exec
	main    *exec.Cmd
	input   io.WriteCloser // of the main process; nil: it has none
	once    bool           // the input ends with the first who was attached (stdinOnce)
	out     map[*attached]bool
	started time.Time
	done    chan struct{} // closed when it ended
	status  int
}

// One who is attached.
type attached struct {
	out, err io.Writer
	gone     chan struct{} // closed when it takes no more
	once     sync.Once
}

func (a *attached) write(to io.Writer, data []byte) {
	if to == nil {
		return
	}
	if _, err := to.Write(data); err != nil {
		a.once.Do(func() { close(a.gone) })
	}
}

func (c *container) log() string  { return filepath.Join(c.directory, "log") }
func (c *container) root() string { return filepath.Join(c.directory, "root") }

func (c *container) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// mount makes the container's view, once.  The mounts go with the mount namespace that this program has.
func (c *container) mount() error {
	c.mounted.Do(func() {
		root, tmp, home := c.root(), filepath.Join(c.directory, "tmp"), filepath.Join(c.directory, "home")
		for _, one := range []string{root, tmp, home} {
			if c.broken = os.MkdirAll(one, 0o755); c.broken != nil {
				return
			}
		}
		bind, readOnly := uintptr(syscall.MS_BIND), uintptr(syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY)
		for _, one := range []struct {
			from, to string
			flags    uintptr
		}{
			{"/", root, bind}, {"", root, readOnly}, {"/dev", root + "/dev", bind | syscall.MS_REC}, {"/proc", root + "/proc", bind},
			{tmp, root + "/tmp", bind}, {home, root + "/root", bind},
		} {
			if err := syscall.Mount(one.from, one.to, "", one.flags, ""); err != nil {
				c.broken = fmt.Errorf("mount %s: %w", one.to, err)
				return
			}
		}
	})
	return c.broken
}

// clear ends what was started beside the main process, and puts everything away under a name of its own: another pod may
// be called the same.
func (c *container) clear(uid types.UID) {
	c.lock.Lock()
	for command := range c.beside {
		syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	}
	c.lock.Unlock()
	syscall.Unmount(c.root(), syscall.MNT_DETACH)
	os.Rename(c.directory, filepath.Join(filepath.Dir(c.directory), "."+c.name+"-"+string(uid)))
}

// keep remembers a command that was started, until the function that it gives is called.
func (c *container) keep(command *exec.Cmd) func() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.beside[command] = true
	return func() {
		c.lock.Lock()
		defer c.lock.Unlock()
		delete(c.beside, command)
	}
}

func (c *container) command(words []string, more []core.EnvVar) (*exec.Cmd, error) {
	if err := c.mount(); err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, errors.New("no command")
	}
	command := exec.Command(words[0], words[1:]...)
	command.Dir = "/root"
	command.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "HOSTNAME=" + c.pod, "CONTAINER=" + c.name,
		"KUBERNETES_SERVICE_HOST=kubernetes.default.svc", "KUBERNETES_SERVICE_PORT=443",
	}
	for _, one := range more {
		command.Env = append(command.Env, one.Name+"="+one.Value)
	}
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root(), Setsid: true}
	return command, nil
}

// terminal starts a command with one.
func terminal(command *exec.Cmd) (*os.File, error) {
	command.Env = append(command.Env, "TERM=xterm")
	attributes := *command.SysProcAttr
	attributes.Setctty = true
	return pty.StartWithAttrs(command, nil, &attributes)
}

func resize(terminal *os.File, sizes <-chan remotecommand.TerminalSize) {
	for size := range sizes {
		pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
	}
}

// ExecInContainer runs a command beside the main process.
func (c *container) ExecInContainer(ctx context.Context, _ string, _ types.UID, _ string, words []string, in io.Reader, out, errors io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	command, err := c.command(words, nil)
	if err != nil {
		return err
	}
	if tty {
		return c.execTerminal(command, in, out, sizes)
	}
	return c.execPlain(command, in, out, errors)
}

func (c *container) execTerminal(command *exec.Cmd, in io.Reader, out io.Writer, sizes <-chan remotecommand.TerminalSize) error {
	file, err := terminal(command)
	if err != nil {
		return err
	}
	defer file.Close()
	defer c.keep(command)()
	go resize(file, sizes)
	if in != nil {
		go func() {
			io.Copy(file, in)
			file.Write([]byte{4}) // end of input, as a terminal says it
		}()
	}
	if out == nil {
		out = io.Discard
	}
	if _, err := io.Copy(out, file); err != nil && !errors.Is(err, syscall.EIO) {
		command.Process.Kill()
	}
	return exit(command.Wait())
}

func (c *container) execPlain(command *exec.Cmd, in io.Reader, out, errors io.Writer) error {
	// Not command.Stdout: its Wait would say nothing of a client that is gone.
	if out != nil {
		command.Stdout = out
	}
	if errors != nil {
		command.Stderr = errors
	}
	var pipe io.WriteCloser
	if in != nil {
		var err error // not command.Stdin: its Wait would wait for a client that never ends its input
		if pipe, err = command.StdinPipe(); err != nil {
			return err
		}
	}
	if err := command.Start(); err != nil {
		return err
	}
	defer c.keep(command)()
	if pipe != nil {
		go func() {
			io.Copy(pipe, in)
			pipe.Close()
		}()
	}
	return exit(command.Wait())
}

// exit is how the kubelet's package wants a status to be said; a signal counts as shells count it.
func exit(err error) error {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return utilexec.CodeExitError{Err: err, Code: code(ended.ProcessState)}
	}
	return err
}

func code(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// --- the main process ---

func (c *container) start(spec *core.Container) error {
	words := append(append([]string{}, spec.Command...), spec.Args...)
	mirror := len(words) == 0
	if mirror {
		words = []string{"cat"}
	}
	command, err := c.command(words, spec.Env)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(c.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.main, c.started, c.once = command, time.Now(), spec.StdinOnce
	var pumps sync.WaitGroup
	pump := func(from io.Reader, stream string) {
		pumps.Add(1)
		go func() {
			defer pumps.Done()
			c.pump(from, file, stream)
		}()
	}
	if spec.TTY {
		screen, err := terminal(command)
		if err != nil {
			return err
		}
		c.input = screen
		pump(screen, "stdout")
	} else {
		if spec.Stdin || mirror {
			if c.input, err = command.StdinPipe(); err != nil {
				return err
			}
		}
		out, err := command.StdoutPipe()
		if err != nil {
			return err
		}
		problems, err := command.StderrPipe()
		if err != nil {
			return err
		}
		if err := command.Start(); err != nil {
			return err
		}
		pump(out, "stdout")
		pump(problems, "stderr")
	}
	go func() {
		pumps.Wait() // before Wait, which closes the pipes
		command.Wait()
		c.status = code(command.ProcessState)
		file.Close()
		close(c.done)
	}()
	return nil
}

// pump writes what the main process says into the log and to whom is attached.
func (c *container) pump(from io.Reader, log io.Writer, stream string) {
	buffer := make([]byte, 16384)
	for {
		count, err := from.Read(buffer)
		if count > 0 {
			c.lock.Lock()
			log.Write(logged(buffer[:count], stream))
			for one := range c.out {
				if stream == "stderr" {
					one.write(one.err, buffer[:count])
				} else {
					one.write(one.out, buffer[:count])
				}
			}
			c.lock.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// logged is the CRI's format: time, stream, F for a whole line or P for a part, text.
func logged(data []byte, stream string) []byte {
	var made bytes.Buffer
	now := time.Now().UTC().Format(time.RFC3339Nano)
	for len(data) > 0 {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		tag := "P"
		if whole {
			tag = "F"
		}
		fmt.Fprintf(&made, "%s %s %s %s\n", now, stream, tag, line)
		data = rest
	}
	return made.Bytes()
}

// AttachContainer joins the main process, until that ends.
func (c *container) AttachContainer(ctx context.Context, _ string, _ types.UID, _ string, in io.Reader, out, errors io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize) error {
	one := &attached{gone: make(chan struct{})}
	if out != nil {
		one.out = out
	}
	if errors != nil {
		one.err = errors
	}
	c.lock.Lock()
	c.out[one] = true
	input := c.input
	c.lock.Unlock()
	defer func() {
		c.lock.Lock()
		delete(c.out, one)
		c.lock.Unlock()
	}()
	if screen, ok := input.(*os.File); ok && tty {
		go resize(screen, sizes)
	}
	if in != nil && input != nil {
		go func() {
			io.Copy(input, in)
			if c.once && !tty {
				input.Close()
			}
		}()
	}
	select {
	case <-c.done:
	case <-one.gone:
	case <-ctx.Done():
	}
	return nil
}
